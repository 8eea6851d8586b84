/*
 * guest/spawn.h - start a program in the workload's namespace.
 *
 * The child shares the agent's memory until it executes the program (copying
 * page tables would cost more than all the rest), on a stack of its own, and the
 * agent does not wait for it: a workload that stops the newborn child with
 * SIGSTOP stops nobody else. What the child needs therefore lives in `struct
 * spawn` until its report pipe closes, which is when the program runs or the
 * child is dead.
 *
 * SPAWN-1 Nothing the child does before exec is ever reported as the program's exit.
 */
#pragma once
#include <linux/filter.h>
#include <stdbool.h>
#include <sys/types.h>
#include "guest/env.h"
#include "guest/passwd.h"
#include "loop/loop.h"

struct err;
struct spawn;

/* What holds programs in a process sandbox; in a machine the kernel is the wall. */
struct walls {
	bool on; /* no_new_privs, no capabilities, the filter */
	struct sock_fprog filter;
};

struct spawn_request {
	const struct user *user;
	struct strv argv;   /* at least one */
	struct env env;	    /* given */
	const char *cwd;
	bool cwd_may_fail;  /* nobody asked for it: "/" will do */
	int fds[3];	    /* lent: stdin, stdout, stderr */
	int talk_fd;	    /* lent: its descriptor 3; 0: none */
	bool pty;	    /* fds are its slave: make it the controlling terminal */
	int cgroup_fd;	    /* lent; -1: none */
	const struct walls *walls; /* outlives the child's start */
};

/*
 * spawn_start() - clone the child; it goes on by itself
 * @done:	once, from the loop: @why NULL: the program runs and @inner_pid is its number
 *		in the workload's namespace; otherwise the child is about to end. spawn_free() it.
 *
 * Return: 0; -ERR_LIMIT when there may be no more processes.
 */
int spawn_start(struct loop *l, struct spawn_request *rq,
		void (*done)(struct spawn *sp, pid_t inner_pid, const struct err *why), void *arg,
		struct spawn **ret, struct err *e);
pid_t spawn_pid(const struct spawn *sp); /* in the agent's namespace */
void *spawn_arg(const struct spawn *sp);
void spawn_free(struct spawn *sp); /* only from `done` or after it */

/*
 * When memory runs out, the program @pid goes before the agent, which answers for it. Once it
 * runs, not before: until it executes, it shares our memory, and the kernel would score us both.
 */
void spawn_offer_to_oom_killer(int proc_fd, pid_t pid);
