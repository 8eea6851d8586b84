/*
 * keeper/jail.h - start one program in namespaces of its own
 *
 * The order in the child, each step a layer that holds if another fails: pdeathsig, foreign
 * descriptors closed, (parent: id maps, cgroups), @setup assembles the root, rlimits, ids,
 * capabilities, no_new_privs, Landlock, seccomp, exec.
 *
 * JAIL-1 The child has no descriptor but those named in the spec.
 * JAIL-2 It dies with the keeper: SIGKILL by pdeathsig, and as pid 1 it takes its namespace along.
 * JAIL-3 A failure before exec reaches the parent as a sentence; nothing of the child stays.
 *
 * Thread: the caller is single-threaded.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct err;
struct landlock_rule;

enum { JAIL_FDS_MAX = 32, JAIL_IDS = 65536 };

/*
 * RLIMIT_CORE: bytes that hold no core file, and the one value with which a host whose core_pattern is a pipe
 * doesn't start its handler, as root, either. 0 does not stop that.
 */
enum { JAIL_NO_CORE = 1 };

struct jail_fd {
	int from; /* lent */
	int to;	  /* its number in the program */
};

struct jail_rlimit {
	int what; /* RLIMIT_* */
	uint64_t soft, hard;
};

struct jail_spec {
	const char *name;    /* for messages */
	uint64_t namespaces; /* CLONE_NEW* of clone3(2); CLONE_NEWUSER is always added */

	/* Ids 0..id_count-1 inside are uid_base.. outside. Without root: one's own, and 1. */
	uid_t uid_base;
	gid_t gid_base;
	unsigned id_count;

	struct cgroup *cgroup; /* born or put into it; NULL: the keeper's own */

	/*
	 * In the child: uid 0 of its namespace with every capability there, a private
	 * copy of the host's mounts, cwd "/". Assemble a root, sys_pivot() into it.
	 * May wait for a message on a descriptor in @lent. NULL: keep the host's root.
	 */
	int (*setup)(void *arg, struct err *e);
	void *arg;
	const int *lent; /* descriptors @setup uses; closed at exec */
	unsigned n_lent;

	const struct jail_rlimit *rlimits;
	unsigned n_rlimits;

	/* Ids inside to run under; 0 with keep_caps for an agent that still has to mount. */
	uid_t uid;
	gid_t gid;
	bool keep_caps;

	const struct landlock_rule *landlock; /* NULL: none. Forbids mounting: not for an agent */
	unsigned n_landlock;
	int seccomp_fd; /* seccomp_compile(); lent; -1: none */

	/* 0, 1 and 2 that are not named become /dev/null. */
	const struct jail_fd *fds;
	unsigned n_fds;

	int exec_fd;	       /* opened before, lent; -1: exec_path */
	const char *exec_path; /* in the new root */
	const char *const *argv, *const *envp;
};

struct jail_child {
	pid_t pid;
	int pidfd;     /* given */
	int userns_fd; /* given: for sys_mount_idmap() */
	int status_fd; /* given: readable once it runs or failed; then jail_status() */
};

#define JAIL_CHILD_INIT {.pid = 0, .pidfd = -1, .userns_fd = -1, .status_fd = -1}

/*
 * jail_start() - make the child; its set-up and exec go on while this returns
 *
 * Return: 0; otherwise nothing is left. -ERR_UNSUPPORTED: the host forbids it, with the reason.
 */
int jail_start(const struct jail_spec *s, struct jail_child *ret, struct err *e);

/* Non-blocking. 1: still on its way; 0: the program runs; else what failed in the child. */
int jail_status(int status_fd, struct err *e);

/* Kill it if it runs, reap it, close everything. Blocks until it is dead. */
void jail_end(struct jail_child *c);
