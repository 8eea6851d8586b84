/*
 * keeper/process_root.h - the writable root of a process sandbox
 *
 * An overlay: the template's tree, its owners shifted, below; a tmpfs of a given size above,
 * which is /tmp and /dev/shm as well, so that one number bounds everything a sandbox writes.
 *
 * It is mounted by the sandbox's own root where the kernel keeps user.* attributes on a
 * tmpfs (Linux 6.6): least privilege. Older kernels keep only trusted.* ones, and without
 * any an overlay can't replace a folder of the template; there a helper of the keeper, host's
 * root in a mount namespace of its own, mounts it and hands it over.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

/* Detached mounts; owned. */
struct process_root {
	int root, tmp, shm;
};

enum { PROCESS_ROOT_FDS = 3 }; /* of the struct, in its order */

#define PROCESS_ROOT_INIT {-1, -1, -1}

/* Does a tmpfs keep user.* attributes here? Needs CAP_SYS_ADMIN. */
bool process_root_by_user(void);

/*
 * process_root_build() - in a mount namespace of the caller's own
 * @stage:	a mounted folder with the empty folders "lower" and "write"
 * @tree_fd:	the shifted tree, a detached mount; lent
 * @files_fd:	what its writable layer starts with (keeper/files.h); -1: nothing. Only @by_user; lent
 * @owner:	of the root folder, as the caller sees ids
 * @by_user:	the caller is root of a user namespace, not the host's
 */
int process_root_build(const char *stage, int tree_fd, int files_fd, uint64_t disk_bytes, uid_t owner, bool by_user,
		       struct process_root *ret, struct err *e);

/* What process_root_build() mounted: the folder of "upper" and "tmp"; given. -errno. */
int process_root_layer(const char *stage);

/* The same by a helper process of the host's root. Blocks for about a millisecond. */
int process_root_lend(int tree_fd, uint64_t disk_bytes, uid_t owner, struct process_root *ret, struct err *e);

void process_root_close(struct process_root *r);
