/*
 * guest/hunt.h - kill a process tree on hosts that give no cgroup: every process
 * of the workload that carries the session's mark in the environment it was
 * started with. Best effort: a program that starts another with an environment
 * of its own making gets away, which is why cgroups come first.
 */
#pragma once
#include <stdint.h>

#define HUNT_MARK "HOTCELL_SESSION"

/* Send SIGKILL to all marked processes; returns how many there were. @proc_fd: the agent's /proc. */
unsigned hunt_kill(int proc_fd, uint64_t session);
