/*
 * keeper/jail_process.h - the `process` wall: hotcell-init in a template's tree
 *
 * What does not depend on the request is done before it comes: a *shell* is a
 * child that stands in fresh namespaces and its cgroup, with /proc and /dev
 * ready, and waits. process_shell_go() hands it the tree; it builds the root and
 * becomes hotcell-init. A shell is used once.
 *
 * Disk: the writable layer, /tmp and /dev/shm are one tmpfs of `disk_bytes`. It
 * lives in memory and is charged to the sandbox's memory limit; that is the
 * price of a bound that holds on every file system. Where the sandbox mounts it itself
 * (keeper/process_root.h), the keeper gets the folder, so that it can be written down, and a
 * new one can start with what was (keeper/files.h).
 *
 * Thread: the keeper's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "keeper/jail.h"

struct process_host;
struct process_shell;

/*
 * Open the agent (a static program) and compile the workload's filter, once.
 * -ERR_UNSUPPORTED with the reason when the agent is missing.
 */
int process_host_open(const char *init_path, struct process_host **ret, struct err *e);
struct process_host *process_host_close(struct process_host *h); /* NULL: fine */

/*
 * Build a whole jail around an empty folder and tear it down: can this host do it?
 * @folder:	an empty directory on the file system that holds the trees
 * @uid_base:	a slot's range; nothing may run in it
 * Return: 0; -ERR_UNSUPPORTED with the step that failed and what to do.
 */
int process_probe(struct process_host *h, int folder_fd, uid_t uid_base, struct err *e);

/* @cg: lent until process_shell_free(); the shell is in it. */
int process_shell_new(struct process_host *h, uid_t uid_base, struct cgroup *cg,
		      struct process_shell **ret, struct err *e);
struct process_shell *process_shell_free(struct process_shell *s); /* kills what was not taken */
int process_shell_pidfd(const struct process_shell *s);		   /* lent */

struct process_go {
	int tree_fd;	     /* the template's tree; lent */
	int files_fd;	     /* what its writable layer starts with; lent; -1: nothing */
	uint64_t disk_bytes;
};

/* The running sandbox. All given. */
struct process_ends {
	struct jail_child child; /* its status says when it runs */
	int link_fd;		 /* host end of the agent's link */
	int console_fd;		 /* what it writes to its standard error; non-blocking */
	int layer_fd;		 /* when it runs, process_layer() takes the folder of its files from it */
};

/* process_shell_go() - give it the tree; it sets out to become hotcell-init */
int process_shell_go(struct process_shell *s, const struct process_go *go, struct process_ends *ret, struct err *e);

/* The writable layer of a sandbox that runs; given, for packer_new(). -ERR_UNSUPPORTED on older kernels. */
int process_layer(int layer_fd, int *ret, struct err *e);
