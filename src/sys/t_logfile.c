/* sys/t_logfile.c */
#include <fcntl.h>
#include <sys/stat.h>
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"
#include "sys/logfile.h"

enum { MAX = 100, LINE = 10 };

static char folder[64], log_path[96], old_path[96];

static int make_log(int flags)
{
	int fd;

	(void)snprintf(folder, sizeof(folder), "/tmp/hotcell-t_logfile.XXXXXX");
	assert_non_null(mkdtemp(folder));
	(void)snprintf(log_path, sizeof(log_path), "%s/a.log", folder);
	(void)snprintf(old_path, sizeof(old_path), "%s/a.log.1", folder);
	fd = sys_create(log_path, O_WRONLY | flags, 0600);
	assert_true(fd >= 0);
	return fd;
}

static void remove_log(int fd)
{
	(void)sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, folder), 0);
}

static void write_lines(int fd, int from, int to)
{
	for (int i = from; i < to; i++) {
		char line[LINE + 1];

		(void)snprintf(line, sizeof(line), "line %4d\n", i);
		logfile_write(fd, "a.log", MAX, line, LINE);
	}
}

/* The file holds lines @from to @to and nothing else. */
static void holds_lines(const char *path, int from, int to)
{
	char text[4 * MAX], want[4 * MAX] = "";

	for (int i = from; i < to; i++)
		(void)snprintf(want + (i - from) * LINE, LINE + 1, "line %4d\n", i);
	assert_true(sys_read_file(AT_FDCWD, path, text, sizeof(text)) >= 0);
	assert_string_equal(text, want);
}

static void two_files_within_bounds(void **state)
{
	int fd = make_log(O_APPEND);

	T_UNUSED(state);
	write_lines(fd, 0, 10);
	holds_lines(log_path, 0, 10);
	assert_int_equal(access(old_path, F_OK), -1);
	write_lines(fd, 10, 11);
	holds_lines(old_path, 0, 10);
	holds_lines(log_path, 10, 11);
	write_lines(fd, 11, 25);
	holds_lines(old_path, 10, 20);
	holds_lines(log_path, 20, 25);
	remove_log(fd);
}

static void other_descriptors_go_on(void **state)
{
	int fd = make_log(O_APPEND), other = sys_create(log_path, O_WRONLY | O_APPEND, 0600), dup = sys_dup(fd);

	T_UNUSED(state);
	write_lines(fd, 0, 11);
	assert_int_equal(sys_write_full(other, "line   11\n", LINE), 0);
	assert_int_equal(sys_write_full(dup, "line   12\n", LINE), 0);
	holds_lines(log_path, 10, 13);
	(void)sys_close(other);
	(void)sys_close(dup);
	remove_log(fd);
}

static void keeps_the_end_of_one_that_was_too_big(void **state)
{
	int fd = make_log(O_APPEND);

	T_UNUSED(state);
	for (int i = 0; i < 30; i++) {
		char line[LINE + 1];

		(void)snprintf(line, sizeof(line), "line %4d\n", i);
		assert_int_equal(sys_write_full(fd, line, LINE), 0);
	}
	write_lines(fd, 30, 31);
	holds_lines(old_path, 20, 30);
	holds_lines(log_path, 30, 31);
	remove_log(fd);
}

static uint64_t size_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_size;
}

static void leaves_what_is_not_its_own(void **state)
{
	int plain = make_log(0), ends[2], fd;
	char line[LINE];

	T_UNUSED(state);
	write_lines(plain, 0, 20); /* not appended to: whoever opened it so keeps his place in it */
	assert_int_equal(size_of(plain), 20 * LINE);
	assert_int_equal(logfile_give(plain, "a.log", geteuid()), 0);
	fd = sys_create(log_path, O_WRONLY | O_APPEND, 0600);
	for (int i = 0; i < 20; i++)
		logfile_write(fd, "b.log", MAX, "other name", LINE);
	assert_int_equal(size_of(fd), 40 * LINE);
	assert_int_equal(logfile_give(fd, "b.log", geteuid()), 0);
	(void)sys_close(fd);
	assert_int_equal(sys_pipe(ends), 0);
	logfile_write(ends[1], "a.log", MAX, "by a pipe\n", LINE);
	assert_int_equal(sys_read_full(ends[0], line, LINE), 0);
	assert_int_equal(logfile_give(ends[1], "a.log", geteuid()), 0);
	assert_int_equal(access(old_path, F_OK), -1);
	(void)sys_close(ends[0]);
	(void)sys_close(ends[1]);
	remove_log(plain);
}

/* A link in the older file's place is not followed: the log starts again, what it points to stays. */
static void follows_no_link(void **state)
{
	int fd = make_log(O_APPEND);
	char target[96];

	T_UNUSED(state);
	(void)snprintf(target, sizeof(target), "%s/target", folder);
	assert_int_equal(sys_write_file(AT_FDCWD, target, "line    7\n"), 0);
	assert_int_equal(symlink(target, old_path), 0);
	assert_int_equal(logfile_give(fd, "a.log", geteuid()), -ELOOP);
	write_lines(fd, 0, 11);
	holds_lines(target, 7, 8);
	holds_lines(log_path, 10, 11);
	remove_log(fd);
}

/* The n-th call fails, for every n: no more than the line that was written is above the bound. */
static void every_failure_keeps_the_bound(void **state)
{
	bool more = true;

	T_UNUSED(state);
	for (unsigned nth = 1; more; nth++) {
		int fd = make_log(O_APPEND);

		write_lines(fd, 0, 10);
		sys_fault_arm(nth, -ENOSPC);
		write_lines(fd, 10, 11);
		more = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_true(size_of(fd) <= MAX + LINE); /* the truncation itself may be what fails */
		remove_log(fd);
	}
	assert_false(more);
}

/* A process that has given up root still makes room in a log of a folder that is not its own. */
static void room_without_powers(void **state)
{
	enum { USER = 65534 };
	int fd, status = 0;
	pid_t pid;

	T_UNUSED(state);
	if (geteuid() != 0)
		skip();
	fd = make_log(O_APPEND);
	assert_int_equal(chmod(folder, 0755), 0);
	assert_int_equal(logfile_give(fd, "a.log", USER), 0);
	write_lines(fd, 0, 10);
	pid = fork();
	if (pid == 0) {
		if (setresuid(USER, USER, USER) == 0)
			write_lines(fd, 10, 11);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	holds_lines(old_path, 0, 10);
	holds_lines(log_path, 10, 11);
	remove_log(fd);
}

T_MAIN(T(two_files_within_bounds), T(other_descriptors_go_on), T(keeps_the_end_of_one_that_was_too_big),
       T(leaves_what_is_not_its_own), T(follows_no_link), T(every_failure_keeps_the_bound), T(room_without_powers))
