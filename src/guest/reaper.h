/*
 * guest/reaper.h - the workload's own process-id namespace and its first process.
 *
 * After reaper_start() every child of the agent is born in that namespace:
 * programs see each other and the reaper as process 1, never the agent, so not
 * even the guest's root can trace it. /proc is mounted for that namespace; the
 * agent keeps looking through a descriptor of its own /proc, opened before.
 */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

struct err;

/* Of a machine: lies over the kernel's boot id, and is renewed in a copy. */
#define REAPER_BOOT_ID "/run/hotcell-boot-id"

struct reaper {
	pid_t pid;     /* in the agent's namespace; 0: none */
	int own_ns_fd; /* the agent's namespace, to come back to; 0: not opened yet */
	int proc_fd;   /* the workload's /proc as it was mounted; 0: not yet */
};

/* @proc_fd: the agent's /proc, lent. @shared_kernel: mask /proc, and the reaper keeps no capability. */
int reaper_start(struct reaper *rp, int proc_fd, bool shared_kernel, struct err *e);
/* Kill the reaper, and with it, says the kernel, everything in the namespace; all children are reaped. */
void reaper_kill(struct reaper *rp);
void reaper_deinit(struct reaper *rp);
