/* snap/testing.h - for t_*.c only: a state directory by hand, and deaths at every system call */
#pragma once
#include <fcntl.h>
#include <inttypes.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/id.h"
#include "base/testing.h"
#include "snap/layers.h"
#include "snap/set.h"
#include "sys/fault.h"
#include "sys/fd.h"

static const struct id A = {{0xaa, 1}}, B = {{0xbb, 2}}, C = {{0xcc, 3}};

#define A_TEXT "aa010000000000000000000000000000"
#define B_TEXT "bb020000000000000000000000000000"
#define C_TEXT "cc030000000000000000000000000000"

static inline char *state_path(void)
{
	static char path[64];

	return path;
}

static inline int state_new(void)
{
	int fd;

	strcpy(state_path(), "/tmp/t_snap.XXXXXX");
	assert_non_null(mkdtemp(state_path()));
	fd = sys_open(state_path(), O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	return fd;
}

static inline void state_free(int fd)
{
	(void)sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, state_path()), 0);
}

/* A disk of one layer, which holds @text. */
static inline void disk_new(int state_fd, const char *id, const char *text)
{
	char path[96];

	assert_int_equal(sys_mkdir(state_fd, SANDBOXES_FOLDER, 0700), 0);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s", id);
	assert_int_equal(sys_mkdir(state_fd, path, 0700), 0);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s/" LAYER_0, id);
	assert_int_equal(sys_write_file(state_fd, path, text), 0);
}

static inline bool exists(int state_fd, const char *path)
{
	return faccessat(state_fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static inline unsigned entries(int state_fd, const char *folder)
{
	int fd = openat(state_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned n = 0;
	DIR *d;

	if (fd < 0)
		return 0;
	d = fdopendir(fd);
	assert_non_null(d);
	while (readdir(d))
		n++;
	(void)closedir(d);
	return n - 2;
}

/*
 * Run @act in a process that dies before its n-th system call, as by kill -9; then @check here.
 * For every n; ends after the round in which it was not killed. Return: rounds.
 */
static inline unsigned deaths(int state_fd, void (*act)(int state_fd), void (*check)(int state_fd, bool died))
{
	for (unsigned nth = 1;; nth++) {
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			sys_fault_arm(nth, SYS_FAULT_KILL);
			act(state_fd);
			_exit(0);
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
		check(state_fd, WIFSIGNALED(status));
		if (!WIFSIGNALED(status))
			return nth;
	}
}

/* A state directory with @kib of room. False without the right to mount. */
static inline bool small_state(unsigned kib, int *ret_fd)
{
	char options[32];

	strcpy(state_path(), "/tmp/t_snap.XXXXXX");
	assert_non_null(mkdtemp(state_path()));
	(void)snprintf(options, sizeof(options), "size=%uk", kib);
	if (mount("small", state_path(), "tmpfs", MS_NODEV | MS_NOSUID, options) < 0) {
		assert_int_equal(rmdir(state_path()), 0);
		return false;
	}
	*ret_fd = sys_open(state_path(), O_RDONLY | O_DIRECTORY);
	assert_true(*ret_fd >= 0);
	return true;
}

static inline void small_state_free(int fd)
{
	(void)sys_close(fd);
	assert_int_equal(umount2(state_path(), MNT_DETACH), 0);
	assert_int_equal(rmdir(state_path()), 0);
}
