/* guest/spawn_child.h - what the child of spawn.c does between clone and exec */
#pragma once
#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "guest/passwd.h"

enum child_stage {
	CHILD_ALIVE, /* error is its process id in its own namespace; only without shared memory */
	CHILD_TERMINAL,
	CHILD_DESCRIPTORS,
	CHILD_LIMITS,
	CHILD_USER,
	CHILD_CWD,
	CHILD_WALLS,
	CHILD_EXEC,
	CHILD_STAGE_N,
};

struct child_report {
	uint32_t stage;
	int32_t error; /* negative errno */
};

struct child {
	int report_fd; /* closes itself at exec */
	pid_t own_pid; /* in its own namespace; written by the child, where memory is shared */
	int fds[3], talk_fd;
	bool pty, walls, cwd_may_fail;
	const struct sock_fprog *filter;
	uid_t uid;
	gid_t gid;
	gid_t groups[PASSWD_GROUPS_MAX + 1];
	size_t n_groups;
	const char *cwd, *path; /* PATH, for a program without a slash */
	char **argv, **envp;
};

/* Clone, with @stack of @size bytes, shared memory; returns the pid or -errno. */
pid_t child_clone(struct child *c, void *stack, size_t size, int cgroup_fd);
