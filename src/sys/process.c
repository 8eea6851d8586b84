/* sys/process.c - processes by pidfd */
#include "sys/process.h"
#include <errno.h>
#include <linux/sched.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/call_int.h"

enum { KEEP_MAX = 64 };

#define NEW_FLAGS                                                                                  \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
	 CLONE_NEWCGROUP)

pid_t sys_clone(uint64_t flags, int cgroup_fd, int *ret_pidfd)
{
	int pidfd = -1;
	struct clone_args a = {
		.flags = flags | CLONE_PIDFD | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
		.pidfd = (uint64_t)(uintptr_t)&pidfd,
		.exit_signal = SIGCHLD,
		.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
	};
	long pid;

	if (flags & ~(uint64_t)NEW_FLAGS)
		return -EINVAL;
	pid = SYS_CALL(syscall(SYS_clone3, &a, sizeof(a)));
	if (pid > 0)
		*ret_pidfd = pidfd;
	return (pid_t)pid;
}

int sys_pidfd_open(pid_t pid)
{
	return (int)SYS_CALL(syscall(SYS_pidfd_open, pid, 0));
}

int sys_pidfd_signal(int pidfd, int sig)
{
	return (int)SYS_CALL(syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0));
}

static int reap(int pidfd, int flags, struct sys_exit *ret)
{
	siginfo_t si = {0};
	int r = SYS_CALL(waitid(P_PIDFD, (id_t)pidfd, &si, WEXITED | flags));

	if (r < 0)
		return r;
	if (si.si_pid == 0)
		return -EAGAIN;
	if (si.si_code == CLD_EXITED)
		*ret = (struct sys_exit){.code = si.si_status};
	else
		*ret = (struct sys_exit){.code = -1, .signal = si.si_status};
	return 0;
}

int sys_pidfd_reap(int pidfd, struct sys_exit *ret)
{
	return reap(pidfd, WNOHANG, ret);
}

int sys_pidfd_wait(int pidfd, struct sys_exit *ret)
{
	return reap(pidfd, 0, ret);
}

int sys_die_with_parent(void)
{
	return SYS_CALL(prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0));
}

int sys_no_new_privs(void)
{
	return SYS_CALL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static int close_from_to(unsigned first, unsigned last)
{
	if (first > last)
		return 0;
	return (int)SYS_CALL(syscall(SYS_close_range, first, last, 0));
}

int sys_close_all_but(const int *keep, unsigned n)
{
	int sorted[KEEP_MAX];
	unsigned next = 3;

	if (n > KEEP_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < n; i++)
		sorted[i] = keep[i];
	qsort(sorted, n, sizeof(sorted[0]), by_number);
	for (unsigned i = 0; i < n; i++) {
		int r;

		if (sorted[i] < 0 || (unsigned)sorted[i] < next)
			continue; /* absent, standard, or named twice */
		r = close_from_to(next, (unsigned)sorted[i] - 1);
		if (r < 0)
			return r;
		next = (unsigned)sorted[i] + 1;
	}
	return close_from_to(next, ~0u);
}

int sys_await_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int r = SYS_CALL(poll(&p, 1, -1));

	return r < 0 ? r : 0;
}
