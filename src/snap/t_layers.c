/* snap/t_layers.c - chains are whole, shared below, written only at their end */
#include "snap/layers.h"
#include "snap/testing.h"

enum { DISK = 64 << 20 };

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

static bool is_writable(int fd)
{
	return (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

/* Which layers, which of them writable. */
static void is_chain(const struct layers *l, unsigned n)
{
	assert_int_equal(l->n, n);
	for (unsigned i = 0; i < LIMIT_DISK_LAYERS; i++) {
		assert_int_equal(l->fds[i] >= 0, i < n);
		if (i < n)
			assert_int_equal(is_writable(l->fds[i]), i == n - 1);
	}
}

static void text_is(int fd, const char *text)
{
	char got[64] = "";

	assert_int_equal(sys_pread(fd, got, sizeof(got) - 1, 0), (ssize_t)strlen(text));
	assert_string_equal(got, text);
}

static void grows_and_opens(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	assert_int_equal(layers_open(s, &A, &l, &e), -ERR_NOT_FOUND);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	is_chain(&l, 1);
	layers_close(&l);
	is_chain(&l, 0);
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	assert_true(is_writable(fd));
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	is_chain(&l, 2);
	assert_int_equal(inode(fd), inode(l.fds[1]));
	layers_close(&l);
	(void)sys_close(fd);
	fd = -1;
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), -ERR_CONFLICT);
	assert_int_equal(fd, -1);
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 2);
	assert_int_equal(layers_drop(s, &A, 1, &e), 0);
	assert_int_equal(layers_drop(s, &A, 1, &e), 0);
	assert_int_equal(layers_drop(s, &B, 1, &e), 0);
	assert_int_equal(layers_drop(s, &A, 0, &e), -ERR_INVALID);
	assert_int_equal(layers_add(s, &A, 0, DISK, &fd, &e), -ERR_INVALID);
	assert_int_equal(layers_add(s, &B, 1, DISK, &fd, &e), -ERR_NOT_FOUND);
	assert_int_equal(layers_add(s, &A, 1, DISK + 1, &fd, &e), -ERR_INVALID);
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 1);
	state_free(s);
}

static void modes_are_private(void **state)
{
	struct layers l = LAYERS_INIT;
	struct stat st;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &l, NULL), 0);
	assert_int_equal(fstatat(s, SANDBOXES_FOLDER "/" B_TEXT, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fstat(l.fds[1], &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	layers_close(&l);
	state_free(s);
}

static void shares_what_lies_below(void **state)
{
	struct layers a = LAYERS_INIT, b = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &b, &e), 0);
	is_chain(&b, 2);
	assert_int_equal(layers_open(s, &A, &a, &e), 0);
	assert_int_equal(inode(a.fds[0]), inode(b.fds[0]));
	assert_int_not_equal(inode(a.fds[1]), inode(b.fds[1]));
	layers_close(&a);
	layers_close(&b);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &b, &e), -ERR_CONFLICT);
	is_chain(&b, 0);
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 2);
	assert_int_equal(layers_remove(s, &A, &e), 0); /* what B shares stays */
	assert_int_equal(layers_remove(s, &A, &e), 0);
	assert_int_equal(layers_open(s, &B, &b, &e), 0);
	text_is(b.fds[0], "a");
	layers_close(&b);
	state_free(s);
}

/* A machine that was taken over: what it was ever given for writing. */
static int open_as_machine(int s, const char *path)
{
	int fd = openat(s, path, O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void overwrite(int fd, const char *text)
{
	assert_int_equal(sys_pwrite_full(fd, text, strlen(text), 0), 0);
}

static void is_sealed_as(int s, const char *path, const char *text)
{
	AUTO_CLOSE int fd = openat(s, path, O_RDONLY | O_CLOEXEC);
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0400);
	text_is(fd, text);
}

static ino_t inode_at(int s, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(s, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_ino;
}

#define A_0 SANDBOXES_FOLDER "/" A_TEXT "/layer-0"
#define B_0 SANDBOXES_FOLDER "/" B_TEXT "/layer-0"
#define C_0 SANDBOXES_FOLDER "/" C_TEXT "/layer-0"

/* LAYERS-3 */
static void what_was_open_for_writing_is_never_shared(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1, machine;

	T_UNUSED(state);
	disk_new(s, A_TEXT, "good");
	machine = open_as_machine(s, A_0);
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	/* a copy of what is not sealed */
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &l, &e), 0);
	overwrite(machine, "bad1");
	text_is(l.fds[0], "good");
	layers_close(&l);
	is_sealed_as(s, B_0, "good");
	overwrite(machine, "good");
	/* what is sealed is not the machine's any more */
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	overwrite(machine, "bad2");
	is_sealed_as(s, A_0, "good");
	assert_int_not_equal(inode(machine), inode_at(s, A_0));
	/* once, and then everybody's */
	fd = open_as_machine(s, SANDBOXES_FOLDER "/" A_TEXT "/layer-1");
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &C, DISK, &l, &e), 0);
	layers_close(&l);
	assert_int_equal(inode_at(s, C_0), inode_at(s, A_0));
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	assert_int_equal(inode_at(s, C_0), inode_at(s, A_0));
	/* the one it writes to now stays its own */
	assert_int_equal(inode(fd), inode_at(s, SANDBOXES_FOLDER "/" A_TEXT "/layer-1"));
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 2);
	assert_int_equal(layers_seal(s, &A, 3, &e), -ERR_NOT_FOUND);
	(void)sys_close(fd);
	(void)sys_close(machine);
	state_free(s);
}

/* Holes stay holes, and what lies between is all there. */
static void is_copied_sparse(int s)
{
	enum { SIZE = 256 << 20, FIRST = 3 << 20, LAST = SIZE - 4096 };
	struct err e = ERR_INIT;
	char text[8] = "";
	struct stat st;
	int fd;

	disk_new(s, A_TEXT, "begin");
	fd = open_as_machine(s, A_0);
	assert_int_equal(sys_truncate(fd, SIZE), 0);
	assert_int_equal(sys_pwrite_full(fd, "middle", 6, FIRST), 0);
	assert_int_equal(sys_pwrite_full(fd, "end", 3, LAST), 0);
	(void)sys_close(fd);
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	fd = openat(s, A_0, O_RDONLY | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, SIZE);
	assert_true(st.st_blocks * 512 < 1 << 20);
	assert_int_equal(sys_pread(fd, text, 5, 0), 5);
	assert_string_equal(text, "begin");
	assert_int_equal(sys_pread(fd, text, 6, FIRST), 6);
	assert_string_equal(text, "middle");
	assert_int_equal(sys_pread(fd, text, 6, LAST), 6);
	assert_memory_equal(text, "end\0\0", 6);
	(void)sys_close(fd);
}

static void copies_are_sparse(void **state)
{
	int s = state_new();

	T_UNUSED(state);
	is_copied_sparse(s);
	state_free(s);
	if (small_state(4096, &s)) { /* where files can't share their extents, whatever /tmp is */
		is_copied_sparse(s);
		small_state_free(s);
	}
}

/* LAYERS-1 */
static void a_shared_last_layer_is_not_opened_for_writing(void **state)
{
	struct layers a = LAYERS_INIT, b = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	assert_int_equal(layers_open(s, &A, &a, &e), -ERR_CONFLICT);
	is_chain(&a, 0);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &b, &e), 0);
	layers_close(&b);
	assert_int_equal(layers_open(s, &A, &a, &e), -ERR_CONFLICT);
	is_chain(&a, 0);
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	assert_int_equal(layers_open(s, &A, &a, &e), 0);
	is_chain(&a, 2);
	layers_close(&a);
	state_free(s);
}

static void the_longest_chain_is_refused_in_words(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	for (unsigned n = 1; n < LIMIT_DISK_LAYERS; n++) {
		assert_int_equal(layers_add(s, &A, n, DISK, &fd, &e), 0);
		(void)sys_close(fd);
	}
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	is_chain(&l, LIMIT_DISK_LAYERS);
	layers_close(&l);
	assert_int_equal(layers_add(s, &A, LIMIT_DISK_LAYERS, DISK, &fd, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "layers"));
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, LIMIT_DISK_LAYERS, &B, DISK, &l, &e),
			 -ERR_LIMIT);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, LIMIT_DISK_LAYERS - 1, &B, DISK, &l, &e), 0);
	is_chain(&l, LIMIT_DISK_LAYERS);
	layers_close(&l);
	state_free(s);
}

static void odd_names_and_numbers_are_refused(void **state)
{
	static const char *const names[] = {"", "/etc", "sandboxes", "sandboxes/", "sandboxes/..",
		"sandboxes/../snapshots/" A_TEXT, "snapshots/" A_TEXT "/", "sandboxes/" A_TEXT "0",
		"sandboxes/AA010000000000000000000000000000", "sandboxes//a010000000000000000000000000000",
		"images/" A_TEXT, "sandboxes/aa0100000000000000000000000000.."};
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_int_equal(layers_link(s, names[i], 1, &B, DISK, &l, &e), -ERR_INVALID);
	assert_int_equal(layers_link(s, "snapshots/" A_TEXT, 1, &B, DISK, &l, &e), -ERR_NOT_FOUND);
	assert_int_equal(layers_link(s, "sandboxes/" A_TEXT, 0, &B, DISK, &l, &e), -ERR_INVALID);
	assert_int_equal(layers_link(s, "sandboxes/" A_TEXT, 2, &B, DISK, &l, &e), -ERR_NOT_FOUND);
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 1);
	state_free(s);
}

/* A symbolic link instead of a folder is not followed. */
static void links_are_not_followed(void **state)
{
	struct layers l = LAYERS_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(symlinkat(A_TEXT, s, SANDBOXES_FOLDER "/" B_TEXT), 0);
	assert_int_equal(layers_open(s, &B, &l, NULL), -ERR_DENIED);
	is_chain(&l, 0);
	state_free(s);
}

static void set_new(int s, const char *text)
{
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER, 0700), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/" C_TEXT, 0700), 0);
	assert_int_equal(sys_write_file(s, SNAPSHOTS_FOLDER "/" C_TEXT "/layer-0", text), 0);
}

static void rolls_back(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	set_new(s, "then");
	assert_int_equal(layers_rollback(s, &A, &C, 1, DISK, &l, &e), -ERR_NOT_FOUND); /* no disk to replace */
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 0);
	disk_new(s, A_TEXT, "now");
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	assert_int_equal(layers_add(s, &A, 2, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	assert_int_equal(layers_rollback(s, &A, &C, 1, DISK, &l, &e), 0);
	is_chain(&l, 2);
	text_is(l.fds[0], "then");
	layers_close(&l);
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 1);
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	is_chain(&l, 2);
	text_is(l.fds[0], "then");
	layers_close(&l);
	assert_int_equal(layers_rollback(s, &A, &B, 1, DISK, &l, &e), -ERR_NOT_FOUND);
	state_free(s);
}

/* ---- whatever call fails ---- */

static void a_failed_call_leaves_nothing(void **state)
{
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	for (unsigned nth = 1, met = 1; met; nth++) {
		struct layers l = LAYERS_INIT;
		struct err e = ERR_INIT;
		int r;

		sys_fault_arm(nth, -ENOSPC);
		r = layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &l, &e);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_int_equal(r, met ? -ERR_LIMIT : 0);
		is_chain(&l, r < 0 ? 0 : 2);
		layers_close(&l);
		assert_int_equal(entries(s, SANDBOXES_FOLDER), r < 0 ? 1 : 2);
	}
	FOR_EACH_FAULT(nth, ENOSPC) {
		struct err e = ERR_INIT;
		int fd = -1, r = layers_add(s, &A, 1, DISK, &fd, &e);
		bool failed = sys_fault_seen() >= nth;

		assert_int_equal(r, failed ? -ERR_LIMIT : 0);
		assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), failed ? 1 : 2);
		(void)sys_close(fd);
	}
	state_free(s);
}

static void a_failed_rollback_keeps_the_old_disk(void **state)
{
	unsigned rounds = 0, kept = 0;
	int s = state_new();

	T_UNUSED(state);
	set_new(s, "then");
	for (unsigned nth = 1, met = 1; met; nth++, rounds++) {
		struct layers l = LAYERS_INIT;
		struct err e = ERR_INIT;
		int r;

		disk_new(s, A_TEXT, "now");
		sys_fault_arm(nth, -EIO);
		r = layers_rollback(s, &A, &C, 1, DISK, &l, &e);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		layers_close(&l);
		kept += r < 0;
		assert_int_equal(layers_sweep(s, &e), 0); /* the old disk, if its removal was what failed */
		assert_int_equal(entries(s, SANDBOXES_FOLDER), 1);
		assert_int_equal(layers_open(s, &A, &l, &e), 0);
		is_chain(&l, r < 0 ? 1 : 2);
		text_is(l.fds[0], r < 0 ? "now" : "then");
		layers_close(&l);
		assert_int_equal(layers_remove(s, &A, &e), 0);
	}
	assert_true(kept > 5 && rounds > kept);
	state_free(s);
}

/* ---- whenever it dies ---- */

static void seal_a(int s)
{
	(void)layers_seal(s, &A, 1, NULL);
}

static void seal_is_whole_or_not_begun(int s, bool died)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	struct stat st;

	assert_int_equal(fstatat(s, A_0, &st, 0), 0);
	assert_true(died || (st.st_mode & 07777) == 0400);
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	text_is(l.fds[0], "a");
	layers_close(&l);
	if (!died)
		return;
	assert_int_equal(layers_seal(s, &A, 1, &e), 0);
	is_sealed_as(s, A_0, "a");
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 2);
	assert_int_equal(fchmodat(s, A_0, 0600, 0), 0); /* for the next round */
}

static void a_failed_seal_goes_on(void **state)
{
	struct err e = ERR_INIT;
	unsigned rounds = 0;
	int s = state_new(), fd = -1;

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), 0);
	(void)sys_close(fd);
	FOR_EACH_FAULT(nth, ENOSPC) {
		struct err why = ERR_INIT;
		int r = layers_seal(s, &A, 1, &why);
		bool met = sys_fault_seen() >= nth;

		assert_int_equal(r, met ? -why.code : 0);
		assert_true(!met || why.code);
		assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 2);
		rounds++;
	}
	assert_true(rounds > 6); /* more where extents can't be shared */
	is_sealed_as(s, A_0, "a");
	assert_int_equal(fchmodat(s, A_0, 0600, 0), 0);
	assert_true(deaths(s, seal_a, seal_is_whole_or_not_begun) > 6);
	state_free(s);
}

static void link_b(int s)
{
	struct layers l = LAYERS_INIT;

	(void)layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &l, NULL);
}

static void b_is_whole_or_absent(int s, bool died)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int r;

	assert_int_equal(layers_sweep(s, &e), 0);
	r = layers_open(s, &B, &l, &e);
	if (!died || r != -ERR_NOT_FOUND) {
		assert_int_equal(r, 0);
		is_chain(&l, 2);
	}
	assert_int_equal(entries(s, SANDBOXES_FOLDER), r < 0 ? 1 : 2);
	layers_close(&l);
	assert_int_equal(layers_remove(s, &B, &e), 0);
}

static void roll_a_back(int s)
{
	struct layers l = LAYERS_INIT;

	(void)layers_rollback(s, &A, &C, 1, DISK, &l, NULL);
}

static void a_is_old_or_new(int s, bool died)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;

	assert_int_equal(layers_sweep(s, &e), 0);
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 1);
	assert_int_equal(layers_open(s, &A, &l, &e), 0);
	if (l.n == 1 && died)
		text_is(l.fds[0], "now");
	else
		text_is(l.fds[l.n == 2 ? 0 : 1], "then");
	layers_close(&l);
	assert_int_equal(layers_remove(s, &A, &e), 0);
	disk_new(s, A_TEXT, "now");
}

static void add_to_a(int s)
{
	int fd = -1;

	(void)layers_add(s, &A, 1, DISK, &fd, NULL);
}

static void a_has_whole_layers(int s, bool died)
{
	struct layers l = LAYERS_INIT;
	struct stat st;

	assert_int_equal(layers_open(s, &A, &l, NULL), 0);
	assert_true(l.n == 2 || (died && l.n == 1));
	if (l.n == 2) {
		assert_int_equal(fstat(l.fds[1], &st), 0);
		assert_int_equal(st.st_size, 4 << 16);
	}
	layers_close(&l);
	assert_int_equal(layers_drop(s, &A, 1, NULL), 0);
}

/* Four layers, told apart by the size of the top one. */
static void pile_up(int s)
{
	int fd = -1;

	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(layers_add(s, &A, i, DISK, &fd, NULL), 0);
		if (i == 3)
			assert_int_equal(ftruncate(fd, 12345), 0);
		(void)sys_close(fd);
	}
}

static void is_flat(int s)
{
	struct layers l = LAYERS_INIT;
	struct stat st;

	assert_int_equal(layers_open(s, &A, &l, NULL), 0);
	is_chain(&l, 2);
	assert_int_equal(fstat(l.fds[1], &st), 0);
	assert_int_equal(st.st_size, 12345);
	layers_close(&l);
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 2);
}

static void layers_between_go(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, A_TEXT, "a");
	assert_int_equal(layers_flatten(s, &A, 1, &e), 0);
	pile_up(s);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 3, &B, DISK, &l, &e), 0);
	layers_close(&l);
	assert_int_equal(layers_flatten(s, &A, 4, &e), 0);
	is_flat(s);
	assert_int_equal(layers_flatten(s, &A, 4, &e), 0); /* it was not written down */
	is_flat(s);
	assert_int_equal(layers_flatten(s, &A, 2, &e), 0);
	is_flat(s);
	assert_int_equal(layers_open(s, &B, &l, &e), 0); /* who shares them has them */
	is_chain(&l, 4);
	layers_close(&l);
	assert_int_equal(layers_flatten(s, &B, 7, &e), -ERR_NOT_FOUND);
	assert_int_equal(layers_flatten(s, &C, 4, &e), -ERR_NOT_FOUND);
	state_free(s);
}

static void flatten_a(int s)
{
	(void)layers_flatten(s, &A, 4, NULL);
}

/* The old chain, or the new one however it is come upon first. */
static void a_reads_the_same(int s, bool died)
{
	struct layers l = LAYERS_INIT;

	assert_int_equal(layers_open(s, &A, &l, NULL), 0);
	assert_true(l.n == 2 || (died && l.n == 4));
	layers_close(&l);
	assert_int_equal(layers_flatten(s, &A, 4, NULL), 0);
	is_flat(s);
	assert_int_equal(layers_remove(s, &A, NULL), 0);
	disk_new(s, A_TEXT, "now");
	pile_up(s);
}

static void a_death_at_any_call_leaves_old_or_new(void **state)
{
	int s = state_new();

	T_UNUSED(state);
	set_new(s, "then");
	disk_new(s, A_TEXT, "now");
	assert_true(deaths(s, link_b, b_is_whole_or_absent) > 10);
	assert_true(deaths(s, add_to_a, a_has_whole_layers) > 5);
	assert_true(deaths(s, roll_a_back, a_is_old_or_new) > 10);
	pile_up(s);
	assert_true(deaths(s, flatten_a, a_reads_the_same) > 5);
	state_free(s);
}

static void a_full_disk_leaves_nothing(void **state)
{
	char text[64 << 10];
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = -1, fd = -1;

	T_UNUSED(state);
	if (!small_state(40, &s)) { /* needs the right to mount */
		print_message("[ SKIP     ] no right to mount a small file system\n");
		skip();
	}
	disk_new(s, A_TEXT, "a");
	fd = openat(s, "filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	memset(text, 1, sizeof(text));
	while (write(fd, text, 4096) > 0)
		;
	(void)sys_close(fd);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" A_TEXT, 1, &B, DISK, &l, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "full"));
	assert_int_equal(layers_add(s, &A, 1, DISK, &fd, &e), -ERR_LIMIT);
	assert_int_equal(entries(s, SANDBOXES_FOLDER), 1);
	assert_int_equal(entries(s, SANDBOXES_FOLDER "/" A_TEXT), 1);
	small_state_free(s);
}

T_MAIN(T(grows_and_opens), T(layers_between_go), T(modes_are_private), T(shares_what_lies_below),
       T(what_was_open_for_writing_is_never_shared), T(copies_are_sparse),
       T(a_failed_seal_goes_on), T(a_shared_last_layer_is_not_opened_for_writing),
       T(the_longest_chain_is_refused_in_words),
       T(odd_names_and_numbers_are_refused), T(links_are_not_followed), T(rolls_back),
       T(a_failed_call_leaves_nothing), T(a_failed_rollback_keeps_the_old_disk),
       T(a_death_at_any_call_leaves_old_or_new), T(a_full_disk_leaves_nothing))
