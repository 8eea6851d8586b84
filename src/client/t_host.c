/* client/t_host.c - guest names on this host: HOST-1 to HOST-4 */
#include "client/host.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

struct place {
	char base[64];
	int root, outside; /* base/root, base/outside */
};

static struct span span_lit(const char *s, size_t n)
{
	return (struct span){s, n};
}

#define LIT(s) span_lit(s, sizeof(s) - 1) /* NULs inside count */

static int set_up(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	(void)t_before(state);
	(void)snprintf(p->base, sizeof(p->base), "/tmp/hotcell-t-XXXXXX");
	assert_non_null(mkdtemp(p->base));
	p->outside = sys_open(p->base, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(p->outside, "root", 0755), 0);
	p->root = sys_openat(p->outside, "root", O_RDONLY | O_DIRECTORY, 0);
	assert_true(p->root >= 0);
	*state = p;
	return 0;
}

static int tear_down(void **state)
{
	struct place *p = *state;

	(void)sys_close(p->root);
	(void)sys_close(p->outside);
	assert_int_equal(sys_remove_tree(-1, p->base), 0);
	free(p);
	return t_after(state);
}

static unsigned count_entries(int dir_fd)
{
	char path[64], command[128];
	unsigned n = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), dir_fd);
	(void)snprintf(command, sizeof(command), "find %s/ -mindepth 1 | wc -l", path);
	f = popen(command, "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%u", &n), 1);
	(void)pclose(f);
	return n;
}

static int write_file(const struct place *p, struct span name, const char *text, unsigned mode,
		      struct err *e)
{
	struct host_file f = HOST_FILE_INIT;
	int r = host_file_open(p->root, name, &f, e);

	if (r == 0)
		r = host_file_put(&f, text, strlen(text), e);
	if (r == 0)
		r = host_file_keep(&f, mode, 0, e);
	host_file_drop(&f);
	return r;
}

static void t_hostile_names_touch_nothing(void **state)
{
	static const struct span names[] = {
		{"", 0},	     {"/etc/passwd", 11}, {"..", 2},	   {"../x", 4},
		{"a/../../x", 9},    {"./x", 3},	  {"a//b", 4},	   {"a/", 2},
		{"a\0b", 3},	     {"/", 1},		  {".", 1},	   {"a/./b", 5},
		{"a/..", 4},	     {"\0", 1},		  {"//", 2},
	};
	const struct place *p = *state;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct err e = ERR_INIT;

		assert_int_equal(host_name_check(names[i], &e), -ERR_DENIED);
		assert_int_equal(write_file(p, names[i], "x", 0644, NULL), -ERR_DENIED);
		assert_int_equal(host_mkdir(p->root, names[i], NULL), -ERR_DENIED);
		assert_int_equal(host_symlink(p->root, names[i], span_of("x"), 0, NULL), -ERR_DENIED);
		assert_int_equal(host_dir_done(p->root, names[i], 0700, 0, NULL), -ERR_DENIED);
		/* a NUL or newline of the guest's never reaches the message raw */
		assert_null(strpbrk(e.text, "\n\r\033"));
	}
	assert_int_equal(count_entries(p->outside), 1);
}

static void t_names_have_limits(void **state)
{
	char deep[2 * (HOST_DEPTH + 1)], lengthy[HOST_PATH + 8], name[300];

	(void)state;
	for (size_t i = 0; i < sizeof(deep); i++)
		deep[i] = i % 2 ? '/' : 'd';
	assert_int_equal(host_name_check((struct span){deep, 2 * HOST_DEPTH - 1}, NULL), HOST_DEPTH);
	assert_int_equal(host_name_check((struct span){deep, 2 * HOST_DEPTH + 1}, NULL), -ERR_LIMIT);
	memset(lengthy, 'a', sizeof(lengthy));
	assert_int_equal(host_name_check((struct span){lengthy, HOST_PATH}, NULL), -ERR_LIMIT);
	memset(name, 'b', sizeof(name));
	assert_int_equal(host_name_check((struct span){name, 255}, NULL), 1);
	assert_int_equal(host_name_check((struct span){name, 256}, NULL), -ERR_DENIED);
}

static void t_escapes_do_not_reach_a_terminal(void **state)
{
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(host_name_check(LIT("..\033[2J"), &e), 1);
	assert_int_equal(host_name_check(LIT("\033[2J/.."), &e), -ERR_DENIED);
	assert_null(strchr(e.text, '\033'));
	assert_non_null(strstr(e.text, "\\x1b"));
}

static void t_files_appear_whole(void **state)
{
	const struct place *p = *state;
	struct host_file f = HOST_FILE_INIT;
	struct stat st;
	char text[16];

	assert_int_equal(host_mkdir(p->root, LIT("dir"), NULL), 0);
	assert_int_equal(host_mkdir(p->root, LIT("dir"), NULL), 0);
	assert_int_equal(write_file(p, LIT("dir/file"), "one", 06755, NULL), 0);
	assert_int_equal(fstatat(p->root, "dir/file", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0755); /* HOST-4 */
	assert_int_equal(write_file(p, LIT("dir/file"), "two", 0600, NULL), 0);
	assert_int_equal(sys_read_file(p->root, "dir/file", text, sizeof(text)), 3);
	assert_string_equal(text, "two");
	/* given up midway: the old one stays and nothing else */
	assert_int_equal(host_file_open(p->root, LIT("dir/file"), &f, NULL), 0);
	assert_int_equal(host_file_put(&f, "three", 5, NULL), 0);
	host_file_drop(&f);
	host_file_drop(&f);
	assert_int_equal(sys_read_file(p->root, "dir/file", text, sizeof(text)), 3);
	assert_int_equal(count_entries(p->root), 2);
	assert_int_equal(host_dir_done(p->root, LIT("dir"), 01500, 0, NULL), 0);
	assert_int_equal(fstatat(p->root, "dir", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0500);
}

/* What a guest's tree, or somebody racing with us, may have put in the way. */
static void t_links_in_the_way_are_not_followed(void **state)
{
	const struct place *p = *state;
	struct stat st;

	assert_int_equal(symlinkat("..", p->root, "up"), 0);
	assert_int_equal(symlinkat("/etc", p->root, "etc"), 0);
	assert_int_equal(symlinkat("../victim", p->root, "file"), 0);
	assert_int_equal(sys_write_file(p->outside, "victim", "safe"), 0);
	assert_true(write_file(p, LIT("up/x"), "x", 0644, NULL) < 0);
	assert_true(write_file(p, LIT("etc/x"), "x", 0644, NULL) < 0);
	assert_true(host_mkdir(p->root, LIT("up/dir"), NULL) < 0);
	assert_true(host_mkdir(p->root, LIT("up"), NULL) < 0);
	assert_true(host_dir_done(p->root, LIT("up"), 0, 0, NULL) < 0);
	assert_true(host_symlink(p->root, LIT("up/l"), span_of("x"), 0, NULL) < 0);
	/* the link is replaced, not what it points to; the same by a link */
	assert_int_equal(write_file(p, LIT("file"), "overwritten", 0644, NULL), 0);
	assert_int_equal(fstatat(p->root, "file", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(symlinkat("../victim", p->root, "other"), 0);
	assert_int_equal(host_symlink(p->root, LIT("other"), span_of("file"), 0, NULL), 0);
	assert_int_equal(sys_unlink(p->root, "other"), 0);
	assert_int_equal(fstatat(p->outside, "victim", &st, 0), 0);
	assert_int_equal(st.st_size, 4);
	assert_int_equal(count_entries(p->outside), 5); /* root, its 3 links, victim */
}

/* The directory a file goes to is swapped for a link while its bytes arrive. */
static void t_swapped_directory_does_not_leave_the_tree(void **state)
{
	const struct place *p = *state;
	struct host_file f = HOST_FILE_INIT;
	struct stat st;

	assert_int_equal(host_mkdir(p->root, LIT("dir"), NULL), 0);
	assert_int_equal(host_file_open(p->root, LIT("dir/file"), &f, NULL), 0);
	assert_int_equal(renameat(p->root, "dir", p->root, "old"), 0);
	assert_int_equal(symlinkat("..", p->root, "dir"), 0);
	assert_int_equal(host_file_put(&f, "x", 1, NULL), 0);
	assert_int_equal(host_file_keep(&f, 0644, 0, NULL), 0);
	assert_int_equal(fstatat(p->outside, "file", &st, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(fstatat(p->root, "old/file", &st, AT_SYMLINK_NOFOLLOW), 0);
}

static void t_holes_and_times_are_kept(void **state)
{
	const struct place *p = *state;
	const uint64_t when = 981173106789000000, before_1970 = (uint64_t)-1500000000;
	struct host_file f = HOST_FILE_INIT;
	struct stat st;

	assert_int_equal(host_file_open(p->root, LIT("sparse"), &f, NULL), 0);
	assert_int_equal(host_file_skip(&f, 1 << 20, NULL), 0);
	assert_int_equal(host_file_put(&f, "middle", 6, NULL), 0);
	assert_int_equal(host_file_skip(&f, 1 << 20, NULL), 0);
	assert_int_equal(host_file_keep(&f, 0600, when, NULL), 0);
	assert_int_equal(fstatat(p->root, "sparse", &st, 0), 0);
	assert_int_equal(st.st_size, (2 << 20) + 6);
	assert_true(st.st_blocks < 1024);
	assert_int_equal(st.st_mtim.tv_sec, 981173106);
	assert_int_equal(st.st_mtim.tv_nsec, 789000000);
	assert_int_equal(host_symlink(p->root, LIT("link"), span_of("sparse"), when, NULL), 0);
	assert_int_equal(host_symlink(p->root, LIT("link"), span_of("other"), before_1970, NULL), 0); /* again */
	assert_int_equal(fstatat(p->root, "link", &st, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(st.st_mtim.tv_sec, -2);
	assert_int_equal(st.st_mtim.tv_nsec, 500000000);
	assert_int_equal(host_symlink(p->root, LIT("sparse"), span_of("link"), 0, NULL), 0);
	assert_int_equal(mkdirat(p->root, "dir", 0500), 0);
	assert_int_equal(host_symlink(p->root, LIT("dir"), span_of("link"), 0, NULL), -ERR_CONFLICT);
	assert_int_equal(host_mkdir(p->root, LIT("dir"), NULL), 0); /* that can be filled */
	assert_int_equal(fstatat(p->root, "dir", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(host_dir_done(p->root, LIT("dir"), 0555, when, NULL), 0);
	assert_int_equal(fstatat(p->root, "dir", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0555);
	assert_int_equal(st.st_mtim.tv_sec, 981173106);
	assert_int_equal(count_entries(p->root), 3);
}

static void t_only_regular_files_are_replaced(void **state)
{
	const struct place *p = *state;

	assert_int_equal(mkfifoat(p->root, "fifo", 0600), 0);
	assert_int_equal(mkdirat(p->root, "dir", 0700), 0);
	assert_int_equal(write_file(p, LIT("fifo"), "x", 0644, NULL), -ERR_CONFLICT);
	assert_int_equal(write_file(p, LIT("dir"), "x", 0644, NULL), -ERR_CONFLICT);
	assert_int_equal(write_file(p, LIT("fifo/x"), "x", 0644, NULL), -ERR_INVALID);
}

/* HOST-3 */
static void t_links_that_could_lead_out_are_refused(void **state)
{
	static const struct {
		const char *path, *target;
		bool allowed;
	} links[] = {
		{"l01", "file", true},	     {"l02", "./file", true},
		{"d/l03", "../file", true},  {"d/e/l04", "../../x/y", true},
		{"l05", "d/e/f", true},	     {"l06", "/etc/passwd", false},
		{"l07", "..", false},	     {"d/l08", "../..", false},
		{"l09", "d/..", false},	     {"d/e/l10", "../../../x", false},
		{"l11", "", false},	     {"d/l12", "x/../../y", false},
		{"d/l13", "./..", true},     {"l14", "d//e", true},
		{"d/l15", "..//../x", false},
	};
	const struct place *p = *state;

	assert_int_equal(host_mkdir(p->root, LIT("d"), NULL), 0);
	assert_int_equal(host_mkdir(p->root, LIT("d/e"), NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		int r = host_symlink(p->root, span_of(links[i].path), span_of(links[i].target), 0, NULL);

		if (r != (links[i].allowed ? 0 : -ERR_DENIED))
			fail_msg("%s -> %s: %d", links[i].path, links[i].target, r);
	}
	assert_int_equal(host_symlink(p->root, LIT("z"), LIT("a\0b"), 0, NULL), -ERR_DENIED);
}

/* Every system call fails once: an error comes back and no temporary stays. */
static void t_faults_leave_nothing(void **state)
{
	const struct place *p = *state;

	for (unsigned n = 1;; n++) {
		struct err e = ERR_INIT;
		int r;

		sys_fault_arm(n, -5);
		r = write_file(p, LIT("file"), "text", 0644, &e);
		if (sys_fault_seen() < n) {
			sys_fault_arm(0, 0);
			assert_int_equal(r, 0);
			break;
		}
		sys_fault_arm(0, 0);
		assert_true(r < 0);
		assert_true(e.text[0]);
		assert_int_equal(count_entries(p->root), 0);
	}
	assert_int_equal(count_entries(p->root), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

T_MAIN(TEST(t_hostile_names_touch_nothing),
       TEST(t_names_have_limits),
       TEST(t_escapes_do_not_reach_a_terminal),
       TEST(t_files_appear_whole),
       TEST(t_links_in_the_way_are_not_followed),
       TEST(t_swapped_directory_does_not_leave_the_tree),
       TEST(t_holes_and_times_are_kept),
       TEST(t_only_regular_files_are_replaced),
       TEST(t_links_that_could_lead_out_are_refused),
       TEST(t_faults_leave_nothing))
