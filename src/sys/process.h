/*
 * sys/process.h - processes: namespaces at birth, signals and waiting by pidfd.
 * Everything returns 0 or a value, or a negative errno. Any thread.
 */
#pragma once
#include <signal.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * sys_clone() - fork(2) with clone3(2): the child continues here with a copy of everything
 * @flags:	CLONE_NEW*; others are refused
 * @cgroup_fd:	directory of a cgroup v2 group to be born in; -1: the parent's
 * @ret_pidfd:	in the parent: close-on-exec, given
 *
 * For single-threaded callers: the C library's fork handlers do not run.
 * Return: the child's pid in the parent, 0 in the child.
 */
pid_t sys_clone(uint64_t flags, int cgroup_fd, int *ret_pidfd);

int sys_pidfd_open(pid_t pid);
int sys_pidfd_signal(int pidfd, int sig); /* -ESRCH when it was reaped */

/* How a process ended. */
struct sys_exit {
	int code;   /* exit status; -1 when a signal ended it */
	int signal; /* 0: none */
};

/* Reap a child without blocking: -EAGAIN while it runs. A pidfd becomes readable when it ends. */
int sys_pidfd_reap(int pidfd, struct sys_exit *ret);
int sys_pidfd_wait(int pidfd, struct sys_exit *ret); /* the same, blocking */

int sys_die_with_parent(void); /* SIGKILL when the parent thread ends; forgotten when ids change */
int sys_no_new_privs(void);

/* Close every descriptor but 0-2 and the @n in @keep (-1 entries are ignored, at most 64). */
int sys_close_all_but(const int *keep, unsigned n);

int sys_await_readable(int fd); /* blocks until there is something to read, or its end */
