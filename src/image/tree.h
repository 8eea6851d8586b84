/*
 * image/tree.h - walk an unpacked root file system without ever leaving it:
 * entries by descriptor, no link followed, no other file system entered. Any thread.
 */
#pragma once
#include <stdint.h>
#include <sys/stat.h>
#include "image/hash.h"
struct err;

enum {
	TREE_DEPTH_MAX = 100,
	TREE_ENTRIES_MAX = 2000000,
	TREE_PATH_MAX = 4096, /* with NUL */
};

/* What a file system for the tree must hold. */
struct tree_size {
	uint64_t entries;
	uint64_t blocks; /* of TREE_BLOCK bytes: contents of files and folders */
};
#define TREE_BLOCK 4096

int tree_measure(int tree_fd, struct tree_size *ret, struct err *e);

/*
 * Make the tree harmless for the host it lies on: set-id bits and file
 * capabilities go, device nodes, pipes and sockets are removed. (Whoever runs
 * on this tree runs with no_new_privs, where they mean nothing.)
 */
int tree_disarm(int tree_fd, struct err *e);

/* One hash over names, types, modes, owners, sizes, link texts and contents, in sorted order; not
 * times. */
int tree_hash(int tree_fd, char ret[HASH_TEXT], uint64_t *ret_entries, struct err *e);
