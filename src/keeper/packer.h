/*
 * keeper/packer.h - the files of a process sandbox as they stand, in a memory file
 *
 * A process of its own walks them (keeper/files.h), so that the keeper answers others
 * meanwhile. It has joined the sandbox's user namespace and made the sandbox's writable layer
 * its root: whatever a sandbox did to its files, there is nothing else within reach, and no
 * right it does not have itself. Nobody in the sandbox can see or signal it.
 *
 * PACKER-1 The result is sealed before anybody else gets it.
 *
 * Thread: the keeper's loop. Completions come later, never from inside the call.
 */
#pragma once
#include <stdint.h>

struct err;
struct loop;
struct packer;

enum { PACKER_MS = 60000 }; /* then `failed` comes: the sandbox stands still meanwhile */

struct packer_events {
	void (*packed)(void *arg, int fd, uint64_t bytes, uint64_t us); /* once; fd lent, sealed */
	void (*failed)(void *arg, const struct err *why);		/* instead, once */
	void *arg;
};

/*
 * packer_new() - begin
 * @folder_fd:	"upper" and "tmp" are in it; lent
 * @userns_fd:	of the sandbox; lent
 * @disk_bytes:	what they can hold: the bound of the result follows
 */
int packer_new(struct loop *l, int folder_fd, int userns_fd, uint64_t disk_bytes, const struct packer_events *ev,
	       struct packer **ret, struct err *e);
struct packer *packer_free(struct packer *p); /* kills it, waits until it is dead. NULL: fine */
