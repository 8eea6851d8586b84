/*
 * timed.c - start programs and time their first byte of output and their end.
 *
 * A child's standard error goes to a memory file, so that a peer that can't run
 * here says why in its own words. Its process group is killed at the deadline.
 */
#include "timed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macro.h"
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

/* Everything of @fd that is there or comes before @deadline_ns; 0 at its end, else -ETIMEDOUT. */
static int drain(int fd, uint64_t deadline_ns, struct timed *ret)
{
	char buf[65536];

	for (;;) {
		uint64_t now = sys_now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int r = poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1);
		if (r < 0 && errno != EINTR)
			return -errno;
		if (r <= 0)
			continue;
		ssize_t n = sys_read(fd, buf, sizeof(buf));
		if (n <= 0)
			return (int)n;
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

static int begin(struct timed *t, char *const argv[])
{
	AUTO_CLOSE int wr = -1;
	int p[2];
	int r;

	*t = (struct timed){.out = -1, .err = sys_memfd("stderr", 0)};
	if (t->err < 0)
		return t->err;
	r = sys_pipe(p);
	if (r < 0)
		return r;
	t->out = p[0];
	wr = p[1];
	t->start_ns = sys_now_ns();
	return start(argv, wr, t->err, &t->pid);
}

/* Reaps; kills the group first if it is still there at @deadline_ns. */
static void finish(struct timed *t, uint64_t deadline_ns)
{
	AUTO_CLOSE int pidfd = t->pid > 0 ? (int)syscall(SYS_pidfd_open, t->pid, 0) : -1;
	uint64_t now = sys_now_ns();
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int status = 0;

	if (t->pid > 0) {
		if (now >= deadline_ns || poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) <= 0)
			kill(-t->pid, SIGKILL);
		while (waitpid(t->pid, &status, 0) < 0 && errno == EINTR)
			;
		t->end_ns = sys_now_ns();
		t->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (t->status != 0)
			last_words(t->err, t->text);
	}
	t->out = sys_close(t->out);
	t->err = sys_close(t->err);
}

int timed_run(char *const argv[], uint64_t timeout_ms, struct timed *ret)
{
	int r = begin(ret, argv);
	uint64_t deadline_ns = ret->start_ns + timeout_ms * NS_PER_MS;

	if (r == 0)
		r = drain(ret->out, deadline_ns, ret);
	finish(ret, r < 0 ? 0 : deadline_ns);
	return r;
}

/* Notes the first byte of each child until all have spoken, ended or are late. */
static int hear_all(struct timed *t, size_t n, uint64_t deadline_ns)
{
	struct pollfd p[TIMED_BURST_MAX];
	size_t left = n;
	char buf[4096];

	for (size_t i = 0; i < n; i++)
		p[i] = (struct pollfd){.fd = t[i].out, .events = POLLIN};
	while (left > 0) {
		uint64_t now = sys_now_ns();
		if (now >= deadline_ns)
			return -ETIMEDOUT;
		if (poll(p, n, (int)((deadline_ns - now) / NS_PER_MS) + 1) < 0 && errno != EINTR)
			return -errno;
		for (size_t i = 0; i < n; i++) {
			if (p[i].fd < 0 || p[i].revents == 0)
				continue;
			ssize_t got = sys_read(t[i].out, buf, sizeof(buf));
			t[i].first_ns = sys_now_ns();
			t[i].bytes = got > 0 ? (uint64_t)got : 0;
			p[i].fd = -1;
			left--;
		}
	}
	return 0;
}

int timed_burst(char *const argv[], uint64_t timeout_ms, struct timed *ret, size_t n)
{
	uint64_t deadline_ns = sys_now_ns() + timeout_ms * NS_PER_MS;
	size_t begun = 0;
	int r = n > TIMED_BURST_MAX ? -E2BIG : 0;

	while (r == 0 && begun < n)
		r = begin(&ret[begun++], argv);
	if (r == 0)
		r = hear_all(ret, n, deadline_ns);
	for (size_t i = 0; i < begun; i++)
		finish(&ret[i], r < 0 ? 0 : deadline_ns);
	return r;
}
