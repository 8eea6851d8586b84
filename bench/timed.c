/*
 * timed.c - start a program and time its first byte of output and its end.
 *
 * The child's standard error goes to a memory file, so that a peer that can't run
 * here says why in its own words. Its process group is killed at the deadline.
 */
#include "timed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sys/clock.h"
#include "sys/fd.h"

extern char **environ;

static int start(char *const argv[], int out, int err, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attr);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, err, STDERR_FILENO);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setpgroup(&attr, 0);
	r = posix_spawnp(ret, argv[0], &actions, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Reads to the end of @fd; -ETIMEDOUT when @deadline_ns comes first. */
static int drain(int fd, uint64_t deadline_ns, struct timed *ret)
{
	char buf[65536];

	for (;;) {
		uint64_t now = sys_now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int r = poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0)
			continue;
		ssize_t n = read(fd, buf, sizeof(buf));
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		if (ret->bytes == 0)
			ret->first_ns = sys_now_ns();
		ret->bytes += (uint64_t)n;
	}
}

/* The last line a failing program wrote, as its explanation. */
static void last_words(int fd, char text[TIMED_TEXT_MAX])
{
	char buf[TIMED_TEXT_MAX];
	off_t size = lseek(fd, 0, SEEK_END);
	off_t from = size > (off_t)sizeof(buf) - 1 ? size - ((off_t)sizeof(buf) - 1) : 0;
	ssize_t n = pread(fd, buf, sizeof(buf) - 1, from);

	if (n < 0)
		n = 0;
	while (n > 0 && buf[n - 1] == '\n')
		n--;
	buf[n] = '\0';
	char *line = strrchr(buf, '\n');
	line = line ? line + 1 : buf;
	for (char *c = line; *c; c++) {
		if ((unsigned char)*c < ' ')
			*c = ' ';
	}
	memcpy(text, line, strlen(line) + 1);
}

int timed_run(char *const argv[], uint64_t timeout_ms, struct timed *ret)
{
	AUTO_CLOSE int err = memfd_create("stderr", MFD_CLOEXEC);
	AUTO_CLOSE int rd = -1;
	AUTO_CLOSE int wr = -1;
	int p[2];
	pid_t pid;
	int status, r;

	if (err < 0 || pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	rd = p[0];
	wr = p[1];
	*ret = (struct timed){.start_ns = sys_now_ns()};
	r = start(argv, wr, err, &pid);
	if (r < 0)
		return r;
	close(wr);
	wr = -1;
	r = drain(rd, ret->start_ns + timeout_ms * 1000000, ret);
	if (r < 0)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	ret->end_ns = sys_now_ns();
	ret->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (ret->status != 0)
		last_words(err, ret->text);
	return r;
}
