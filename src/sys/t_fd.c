/* sys/t_fd.c */
#include <fcntl.h>
#include <sys/stat.h>
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

/* A scratch directory, open; removed by the code under test, then made sure of. */
static int scratch(char path[64])
{
	int fd;

	(void)snprintf(path, 64, "/tmp/hotcell-t_fd.XXXXXX");
	assert_non_null(mkdtemp(path));
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	return fd;
}

static void gone(int fd, const char *path)
{
	(void)sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, path), 0);
	assert_int_equal(access(path, F_OK), -1);
}

static void touch(int dirfd, const char *path)
{
	assert_int_equal(sys_write_file(dirfd, path, "x"), 0);
}

static void descriptors_close_on_exec(void **state)
{
	int fds[8] = { -1, -1, -1, -1, -1, -1, -1, -1 }, ends[2];
	char path[64], byte;

	T_UNUSED(state);
	fds[0] = scratch(path);
	fds[1] = sys_openat(fds[0], "a", O_RDWR | O_CREAT, 0600);
	fds[2] = sys_dup(0);
	fds[3] = sys_memfd("t", 0);
	assert_int_equal(sys_pipe(ends), 0);
	fds[4] = ends[0];
	fds[5] = ends[1];
	fds[6] = sys_open_beneath(fds[0], "a", O_RDONLY, 0);
	for (int i = 0; i < 7; i++) {
		assert_true(fds[i] >= 3 || (i != 2 && fds[i] >= 0));
		assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
	}
	assert_int_equal(sys_inherit(fds[3]), 0);
	assert_int_equal(fcntl(fds[3], F_GETFD), 0);
	assert_int_equal(sys_nonblock(ends[0], true), 0);
	assert_int_equal(sys_read(ends[0], &byte, 1), -EAGAIN);
	for (int i = 1; i < 7; i++)
		(void)sys_close(fds[i]);
	gone(fds[0], path);
}

static void closing_keeps_errno(void **state)
{
	T_UNUSED(state);
	errno = EXDEV;
	assert_int_equal(sys_close(-1), -1);
	assert_int_equal(sys_close(4000), -1);
	assert_int_equal(errno, EXDEV);
}

/* Nothing may lead out of the directory: not .., not links of any kind, not absolute paths. */
static void beneath_stays_beneath(void **state)
{
	static const char *const bad[] = { "..", "../x", "/etc/passwd", "d/../../x", "abs", "up", "d/up2", "loop",
					   "dirlink/f", "hereby" };
	char path[64];
	int dir = scratch(path), fd;

	T_UNUSED(state);
	assert_int_equal(sys_mkdir(dir, "d", 0700), 0);
	touch(dir, "d/f");
	assert_int_equal(symlinkat("/etc/passwd", dir, "abs"), 0);
	assert_int_equal(symlinkat("..", dir, "up"), 0);
	assert_int_equal(symlinkat("../../x", dir, "d/up2"), 0);
	assert_int_equal(symlinkat("loop", dir, "loop"), 0);
	assert_int_equal(symlinkat("d", dir, "dirlink"), 0);
	assert_int_equal(symlinkat("d/f", dir, "hereby"), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_true(sys_open_beneath(dir, bad[i], O_RDONLY, 0) < 0);
		assert_true(sys_open_beneath(dir, bad[i], O_WRONLY | O_CREAT, 0600) < 0);
	}
	fd = sys_open_beneath(dir, "d/f", O_RDONLY, 0);
	assert_true(fd >= 0);
	(void)sys_close(fd);
	fd = sys_open_beneath(dir, "d/new", O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	(void)sys_close(fd);
	gone(dir, path);
}

static void small_files_are_read_whole_or_refused(void **state)
{
	char path[64], text[8];
	int dir = scratch(path);

	T_UNUSED(state);
	assert_int_equal(sys_write_file(dir, "f", "1234567"), 0);
	assert_int_equal(sys_read_file(dir, "f", text, sizeof(text)), 7);
	assert_string_equal(text, "1234567");
	assert_int_equal(sys_write_file(dir, "f", "12345678"), 0);
	assert_int_equal(sys_read_file(dir, "f", text, sizeof(text)), -EFBIG);
	assert_int_equal(sys_write_file(dir, "f", ""), 0);
	assert_int_equal(sys_read_file(dir, "f", text, sizeof(text)), 0);
	assert_string_equal(text, "");
	assert_int_equal(sys_read_file(dir, "none", text, sizeof(text)), -ENOENT);
	gone(dir, path);
}

static void pipes_that_end_early(void **state)
{
	int ends[2];
	char text[4];

	T_UNUSED(state);
	assert_int_equal(sys_pipe(ends), 0);
	assert_int_equal(sys_write_full(ends[1], "ab", 2), 0);
	(void)sys_close(ends[1]);
	assert_int_equal(sys_read_full(ends[0], text, 4), -EPIPE);
	(void)sys_close(ends[0]);
}

/* Past the code under test, so that no failure is injected here. */
static void plain_write(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	(void)close(fd);
}

static void plain_read(int dir, const char *name, char ret[64])
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	assert_true(fd >= 0);
	n = read(fd, ret, 63);
	assert_true(n >= 0);
	ret[n] = '\0';
	(void)close(fd);
}

/* With any call failing, the old content or the new is there, whole, and no litter. */
static void replaced_files_are_old_or_new(void **state)
{
	static const int errors[] = { EIO, ENOSPC, EACCES };
	char path[64], text[64];
	int dir = scratch(path);

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		FOR_EACH_FAULT(nth, errors[i])
		{
			int r;

			plain_write(dir, "f", "old");
			r = sys_replace_file(dir, "f", "brand new", 9, 0600);
			plain_read(dir, "f", text);
			if (r == 0)
				assert_string_equal(text, "brand new");
			else
				assert_true(strcmp(text, "old") == 0 || strcmp(text, "brand new") == 0);
			assert_int_equal(faccessat(dir, "f.new", F_OK, 0), -1);
		}
	gone(dir, path);
}

/* What a killed writer left, or an enemy planted, lends neither mode nor content nor target. */
static void replacing_trusts_no_leftover(void **state)
{
	char path[64], text[64];
	int dir = scratch(path);
	struct stat st;

	T_UNUSED(state);
	touch(dir, "victim");
	assert_int_equal(linkat(dir, "victim", dir, "f.new", 0), 0);
	assert_int_equal(fchmodat(dir, "f.new", 0666, 0), 0);
	assert_int_equal(sys_replace_file(dir, "f", "secret", 6, 0600), 0);
	assert_int_equal(fstatat(dir, "f", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(sys_read_file(dir, "victim", text, sizeof(text)), 1);
	assert_int_equal(symlinkat("victim", dir, "g.new"), 0);
	assert_int_equal(sys_replace_file(dir, "g", "secret", 6, 0600), 0);
	assert_int_equal(sys_read_file(dir, "victim", text, sizeof(text)), 1);
	gone(dir, path);
}

static void directories_are_made_with_their_parents(void **state)
{
	char path[64], deep[200];
	int dir = scratch(path);

	T_UNUSED(state);
	(void)snprintf(deep, sizeof(deep), "%s/a//b/c/", path);
	assert_int_equal(sys_mkdirs(deep, 0700), 0);
	assert_int_equal(sys_mkdirs(deep, 0700), 0);
	assert_int_equal(faccessat(dir, "a/b/c", X_OK, 0), 0);
	touch(dir, "file");
	assert_int_equal(sys_mkdir(dir, "a", 0700), 0);
	assert_int_equal(sys_mkdir(dir, "file", 0700), -EEXIST);
	(void)snprintf(deep, sizeof(deep), "%s/file/x", path);
	assert_true(sys_mkdirs(deep, 0700) < 0);
	assert_int_equal(sys_mkdirs("", 0700), -ENOENT);
	assert_int_equal(symlinkat("a", dir, "link"), 0);
	assert_int_equal(sys_mkdir(dir, "link", 0700), -EEXIST);
	(void)snprintf(deep, sizeof(deep), "%s/link/d", path);
	assert_int_equal(sys_mkdirs(deep, 0700), 0); /* a link to a directory will do on the way */
	gone(dir, path);
}

static void removing_follows_no_link(void **state)
{
	char path[64], other[64];
	int dir = scratch(path), safe = scratch(other);

	T_UNUSED(state);
	touch(safe, "precious");
	assert_int_equal(sys_mkdir(dir, "t", 0700), 0);
	assert_int_equal(sys_mkdir(dir, "t/empty", 0700), 0);
	assert_int_equal(symlinkat(other, dir, "t/link"), 0);
	assert_int_equal(mkfifoat(dir, "t/fifo", 0600), 0);
	touch(dir, "t/.hidden");
	assert_int_equal(sys_remove_tree(dir, "t"), 0);
	assert_int_equal(faccessat(dir, "t", F_OK, 0), -1);
	assert_int_equal(symlinkat(other, dir, "top"), 0);
	assert_int_equal(sys_remove_tree(dir, "top"), 0);
	assert_int_equal(faccessat(safe, "precious", F_OK, 0), 0);
	assert_int_equal(sys_remove_tree(dir, "top"), 0); /* missing: fine */
	assert_int_equal(sys_unlink(dir, "top"), 0);
	gone(safe, other);
	gone(dir, path);
}

/* Whoever filled the tree chose its depth: paths longer than any limit must go too. */
static void removing_reaches_any_depth(void **state)
{
	char path[64];
	int dir = scratch(path), at = sys_dup(dir);

	T_UNUSED(state);
	for (int i = 0; i < 3000; i++) {
		int next;

		assert_int_equal(sys_mkdir(at, "d", 0700), 0);
		if (i % 100 == 0)
			touch(at, "f");
		if (i % 500 == 0) /* in the way of what is moved up */
			touch(at, ".raised-0");
		next = sys_openat(at, "d", O_RDONLY | O_DIRECTORY, 0);
		assert_true(next >= 0);
		(void)sys_close(at);
		at = next;
	}
	(void)sys_close(at);
	gone(dir, path);
}

static void a_wide_tree_goes_too(void **state)
{
	char path[64], name[32];
	int dir = scratch(path);

	T_UNUSED(state);
	for (int i = 0; i < 3000; i++) {
		(void)snprintf(name, sizeof(name), "%s%d", i % 3 ? "file" : "dir", i);
		if (i % 3)
			touch(dir, name);
		else
			assert_int_equal(sys_mkdir(dir, name, 0700), 0);
	}
	gone(dir, path);
}

static void failing_removals_leave_no_descriptor(void **state)
{
	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO)
	{
		char path[64];
		int dir;

		sys_fault_arm(0, 0);
		dir = scratch(path);
		assert_int_equal(sys_mkdir(dir, "a", 0700), 0);
		assert_int_equal(sys_mkdir(dir, "a/b", 0700), 0);
		touch(dir, "a/b/c");
		(void)sys_close(dir);
		sys_fault_arm(nth, -EIO);
		if (sys_remove_tree(AT_FDCWD, path) < 0) {
			unsigned seen = sys_fault_seen();

			assert_int_equal(sys_remove_tree(AT_FDCWD, path), 0); /* once more does it */
			assert_true(seen >= nth);
		}
		assert_int_equal(access(path, F_OK), -1);
	}
}

static void locks_are_exclusive(void **state)
{
	char path[64];
	int dir = scratch(path), a = sys_openat(dir, "l", O_RDWR | O_CREAT, 0600),
	    b = sys_openat(dir, "l", O_RDWR, 0);

	T_UNUSED(state);
	assert_int_equal(sys_lock(a), 0);
	assert_int_equal(sys_lock(a), 0);
	assert_int_equal(sys_lock(b), -EAGAIN);
	(void)sys_close(a);
	assert_int_equal(sys_lock(b), 0);
	(void)sys_close(b);
	gone(dir, path);
}

T_MAIN(T(descriptors_close_on_exec), T(closing_keeps_errno), T(beneath_stays_beneath),
       T(small_files_are_read_whole_or_refused), T(pipes_that_end_early), T(replaced_files_are_old_or_new),
       T(replacing_trusts_no_leftover), T(directories_are_made_with_their_parents), T(removing_follows_no_link),
       T(removing_reaches_any_depth), T(a_wide_tree_goes_too), T(failing_removals_leave_no_descriptor),
       T(locks_are_exclusive))
