/* image/t_tree.c */
#include "image/tree.h"
#include <fcntl.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

static char root[64];

/* A new tree with a file, a folder with a file, and a link. */
static int make(void)
{
	int fd;

	strcpy(root, "/tmp/t_tree.XXXXXX");
	assert_non_null(mkdtemp(root));
	fd = sys_open(root, O_RDONLY | O_DIRECTORY);
	assert_int_equal(sys_write_file(fd, "b", "hello"), 0);
	assert_int_equal(sys_mkdir(fd, "a", 0755), 0);
	assert_int_equal(sys_write_file(fd, "a/x", "12345"), 0);
	assert_int_equal(symlinkat("b", fd, "link"), 0);
	return fd;
}

static void unmake(int fd)
{
	sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, root), 0);
}

static void hash_of(int fd, char ret[HASH_TEXT])
{
	struct err e = ERR_INIT;

	if (tree_hash(fd, ret, NULL, &e) < 0)
		fail_msg("%s", e.text);
}

static void the_hash_sees_every_change(void **state)
{
	char before[HASH_TEXT], after[HASH_TEXT];
	int fd = make();

	T_UNUSED(state);
	hash_of(fd, before);
	assert_int_equal(sys_write_file(fd, "b", "hellO"), 0);
	hash_of(fd, after);
	assert_string_not_equal(before, after);
	assert_int_equal(sys_write_file(fd, "b", "hello"), 0);
	hash_of(fd, after);
	assert_string_equal(before, after); /* times do not count */
	assert_int_equal(fchmodat(fd, "b", 0600, 0), 0);
	hash_of(fd, after);
	assert_string_not_equal(before, after);
	assert_int_equal(fchmodat(fd, "b", 0644, 0), 0);
	assert_int_equal(renameat(fd, "a/x", fd, "a/y"), 0);
	hash_of(fd, after);
	assert_string_not_equal(before, after);
	assert_int_equal(renameat(fd, "a/y", fd, "a/x"), 0);
	assert_int_equal(sys_unlink(fd, "link"), 0);
	assert_int_equal(symlinkat("c", fd, "link"), 0);
	hash_of(fd, after);
	assert_string_not_equal(before, after);
	assert_int_equal(sys_unlink(fd, "link"), 0);
	assert_int_equal(symlinkat("b", fd, "link"), 0);
	hash_of(fd, after);
	assert_string_equal(before, after);
	unmake(fd);
}

static void add_file(struct hash *h, int fd, const char *path)
{
	struct stat st;
	char head[100];
	int n;

	assert_int_equal(fstatat(fd, path, &st, 0), 0);
	n = snprintf(head, sizeof(head), "%o %u %u %jd 0:0", st.st_mode, st.st_uid, st.st_gid,
		     (intmax_t)st.st_size);
	hash_add(h, path, strlen(path) + 1);
	hash_add(h, head, (size_t)n + 1);
	hash_add(h, path, strlen(path)); /* the content is the name */
}

/* Computed here by other means, in sorted order; folders list their entries in any. */
static void the_hash_is_over_sorted_names(void **state)
{
	char expected[HASH_TEXT], found[HASH_TEXT], name[3] = "";
	struct hash h;
	int fd = make();

	T_UNUSED(state);
	assert_int_equal(sys_unlink(fd, "b"), 0);
	assert_int_equal(sys_unlink(fd, "link"), 0);
	assert_int_equal(sys_remove_tree(fd, "a"), 0);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "%02d", i * 37 % 100);
		assert_int_equal(sys_write_file(fd, name, name), 0);
		if (i % 3 == 0 && geteuid() == 0)
			assert_int_equal(fchownat(fd, name, (uid_t)i, 7, 0), 0);
	}
	hash_begin(&h);
	for (int i = 0; i < 100; i++) {
		(void)snprintf(name, sizeof(name), "%02d", i);
		add_file(&h, fd, name);
	}
	assert_int_equal(hash_end(&h, expected, NULL), 0);
	hash_of(fd, found);
	assert_string_equal(found, expected);
	unmake(fd);
}

static void links_are_not_followed(void **state)
{
	char before[HASH_TEXT], after[HASH_TEXT], outside[] = "/tmp/t_tree_out.XXXXXX";
	int fd = make(), out = mkstemp(outside);
	struct tree_size size;

	T_UNUSED(state);
	assert_int_equal(symlinkat(outside, fd, "out"), 0);
	assert_int_equal(symlinkat("/", fd, "top"), 0);
	hash_of(fd, before);
	assert_int_equal(sys_write_full(out, "changed", 7), 0);
	hash_of(fd, after);
	assert_string_equal(before, after);
	assert_int_equal(tree_measure(fd, &size, NULL), 0);
	assert_int_equal(size.entries, 6);
	sys_close(out);
	unlink(outside);
	unmake(fd);
}

static void measures_in_blocks(void **state)
{
	struct tree_size before, after;
	int fd = make();

	T_UNUSED(state);
	assert_int_equal(tree_measure(fd, &before, NULL), 0);
	assert_int_equal(before.entries, 4);
	AUTO_CLOSE int file = sys_openat(fd, "big", O_WRONLY | O_CREAT, 0644);
	assert_int_equal(ftruncate(file, 10 * TREE_BLOCK + 1), 0);
	assert_int_equal(tree_measure(fd, &after, NULL), 0);
	assert_int_equal(after.entries, 5);
	assert_int_equal(after.blocks, before.blocks + 11);
	unmake(fd);
}

static void disarming_takes_set_id_bits_and_special_files(void **state)
{
	struct stat st;
	int fd = make();

	T_UNUSED(state);
	assert_int_equal(fchmodat(fd, "b", 06755, 0), 0);
	assert_int_equal(fchmodat(fd, "a", 01777, 0), 0);
	assert_int_equal(mkfifoat(fd, "a/pipe", 0666), 0);
	assert_int_equal(tree_disarm(fd, NULL), 0);
	assert_int_equal(fstatat(fd, "b", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(fstatat(fd, "a", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 01777); /* a folder's sticky bit protects */
	assert_int_equal(faccessat(fd, "a/pipe", F_OK, 0), -1);
	assert_int_equal(faccessat(fd, "link", F_OK, AT_SYMLINK_NOFOLLOW), 0);
	unmake(fd);
}

static void depth_is_bounded(void **state)
{
	struct tree_size size;
	struct err e = ERR_INIT;
	int top = make(), fd = dup(top);

	T_UNUSED(state);
	for (int i = 0; i <= TREE_DEPTH_MAX; i++) {
		int below;

		assert_int_equal(sys_mkdir(fd, "d", 0755), 0);
		below = sys_openat(fd, "d", O_RDONLY | O_DIRECTORY, 0);
		sys_close(fd);
		fd = below;
	}
	sys_close(fd);
	assert_int_equal(tree_measure(top, &size, &e), -ERR_LIMIT);
	unmake(top);
}

static void no_failure_is_swallowed(void **state)
{
	char hash[HASH_TEXT];
	int fd = make();

	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO)
	{
		int r = tree_hash(fd, hash, NULL, NULL);

		assert_int_equal(r == 0, sys_fault_seen() < nth);
	}
	FOR_EACH_FAULT(nth, EACCES)
	{
		int r = tree_disarm(fd, NULL);

		assert_int_equal(r, sys_fault_seen() < nth ? 0 : -ERR_DENIED);
	}
	unmake(fd);
}

T_MAIN(T(the_hash_sees_every_change), T(the_hash_is_over_sorted_names), T(links_are_not_followed),
       T(measures_in_blocks), T(disarming_takes_set_id_bits_and_special_files), T(depth_is_bounded),
       T(no_failure_is_swallowed))
