/* image/formatter.c - the process beside the daemon that runs mke2fs */
#include "image/formatter.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "image/disk.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"
#include "wire/gen/limits.h"

struct formatter {
	pthread_mutex_t lock; /* one question at a time */
	int sock, pidfd;
};

/* ---- the other process ---- */

static int confine(const char *disks)
{
	const struct landlock_rule rules[] = {
		{"/", LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC},
		{"/dev/null", LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{disks, LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
	};
	AUTO_CLOSE int filter = -1;
	int r = sys_no_new_privs();

	if (r == 0)
		r = landlock_confine(rules, ARRAY_LEN(rules), true);
	if (r == 0)
		r = seccomp_compile(&seccomp_workload, &filter); /* it starts programs as one */
	return r == 0 ? seccomp_install(filter) : r;
}

/* A number from the daemon, which may have been taken over by now. */
static int hear(int sock, uint64_t *ret_mb, int *ret_fd)
{
	unsigned n = 1;
	ssize_t got = sys_await_readable(sock);

	*ret_fd = -1;
	if (got == 0)
		got = sys_recv(sock, ret_mb, sizeof(*ret_mb), ret_fd, &n);
	if (got == -EAGAIN)
		return 0;
	return got == sizeof(*ret_mb) && n == 1 && *ret_mb > 0 && *ret_mb <= LIMIT_DISK_MB_MAX ? 1 : -1;
}

static _Noreturn void formatter_main(int sock, const char *disks)
{
	const int keep[] = {sock};
	struct err e = ERR_INIT;
	uint64_t mb = 0;
	int fd, r = sys_die_with_parent();

	(void)setsid(); /* what a terminal sends is the daemon's to hear */
	(void)sys_close_all_but(keep, 1);
	if (r == 0)
		r = confine(disks);
	if (r < 0)
		(void)err_sys(&e, r, "confine the process that formats disks");
	if (sys_write_full(sock, &e, sizeof(e)) < 0 || r < 0)
		_exit(1);
	while ((r = hear(sock, &mb, &fd)) >= 0) {
		e = (struct err)ERR_INIT;
		if (r == 0)
			continue;
		(void)disk_format(fd, mb, &e);
		(void)sys_close(fd);
		if (sys_write_full(sock, &e, sizeof(e)) < 0)
			break;
	}
	_exit(0);
}

/* ---- ours ---- */

static int answer(struct formatter *f, struct err *e)
{
	struct err said = ERR_INIT;
	int r = sys_await_readable(f->sock);

	if (r == 0)
		r = sys_read_full(f->sock, &said, sizeof(said));
	if (r < 0)
		return err_set(e, ERR_UNAVAILABLE, "the process that formats disks has ended; end hotcelld, the next "
			       "command starts both again");
	said.text[sizeof(said.text) - 1] = '\0';
	return said.code ? err_copy(e, &said) : 0;
}

int formatter_new(const char *disks, struct formatter **ret, struct err *e)
{
	struct formatter *f = mem_new(sizeof(*f));
	int pair[2], r = sys_socketpair(pair);
	pid_t pid;

	f->sock = f->pidfd = -1;
	(void)pthread_mutex_init(&f->lock, NULL);
	if (r < 0) {
		(void)formatter_free(f);
		return err_sys(e, r, "make a socket pair");
	}
	pid = sys_clone(0, -1, &f->pidfd);
	if (pid == 0)
		formatter_main(pair[1], disks);
	f->sock = pair[0];
	(void)sys_close(pair[1]);
	r = pid < 0 ? err_sys(e, (int)pid, "start a process that formats disks") : answer(f, e);
	if (r < 0) {
		(void)formatter_free(f);
		return r;
	}
	*ret = f;
	return 0;
}

struct formatter *formatter_free(struct formatter *f)
{
	struct sys_exit how;

	if (!f)
		return NULL;
	f->sock = sys_close(f->sock); /* ends it */
	while (f->pidfd >= 0 && sys_pidfd_wait(f->pidfd, &how) == -EIO) /* only ever injected */
		;
	(void)sys_close(f->pidfd);
	(void)pthread_mutex_destroy(&f->lock);
	free(f);
	return NULL;
}

static int ask(struct formatter *f, int folder_fd, uint64_t size_mb, struct err *e)
{
	struct iovec iov = {&size_mb, sizeof(size_mb)};
	ssize_t r = sys_send(f->sock, &iov, 1, &folder_fd, 1);

	(void)r; /* of one that is gone, the answer says so */
	return answer(f, e);
}

int formatter_run(struct formatter *f, int folder_fd, uint64_t size_mb, struct err *e)
{
	int r;

	if (!f)
		return disk_format(folder_fd, size_mb, e);
	(void)pthread_mutex_lock(&f->lock);
	r = ask(f, folder_fd, size_mb, e);
	(void)pthread_mutex_unlock(&f->lock);
	return r;
}
