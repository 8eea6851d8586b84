/*
 * keeper/files.h - what a process sandbox has written, as one stream of bytes, and back
 *
 * The writable layer holds what untrusted programs made: any name, depth, hole, link and
 * mode. Both ways run in a process that has the sandbox's files as its root and no rights
 * beyond the sandbox's user namespace; ids, capabilities of files and ACLs are written down
 * as that namespace shows them, so they mean the same in another slot.
 *
 * FILES-1 No link is ever followed, no descriptor leaves the folder, nothing but regular files
 *	   and folders is opened.
 * FILES-2 The stream is believed as little as the files: every length in it has a bound,
 *	   every name is one component, and it can only make what a sandbox could have made.
 *
 * Kept: folders, files with their holes, symbolic and hard links, FIFOs, sockets, deleted
 * names of the template, owners, modes, times of change, extended attributes (user.*, file
 * capabilities, ACLs). Not kept: times of access, files that are open but deleted.
 *
 * Thread: any; they block.
 */
#pragma once
#include <stdint.h>

struct err;

enum {
	FILES_DEPTH_MAX = 256,	     /* folders within one another */
	FILES_LINKS_MAX = 32 << 20,  /* bytes to remember names of hard-linked files in */
};

/*
 * files_pack() - write down "upper" and "tmp" of a folder
 * @root_fd:	the folder; nobody writes to it meanwhile
 * @to_fd:	an empty file; grows to whole pages
 * @max_bytes:	of the stream
 *
 * Return: 0; -ERR_LIMIT when something exceeds a bound, with its name; -ERR_INVALID for a device.
 */
int files_pack(int root_fd, int to_fd, uint64_t max_bytes, struct err *e);

/*
 * files_unpack() - make them again
 * @from_fd:	what files_pack() wrote; its offset does not matter
 * @root_fd:	a folder with empty folders "upper" and "tmp"
 *
 * What a failure leaves is the caller's to throw away.
 * Return: 0; -ERR_INVALID for a stream that is no such thing; -ERR_LIMIT when they don't fit.
 */
int files_unpack(int from_fd, int root_fd, struct err *e);

/* Is @fd a sealed memory file, as a stream must be that is not to change while it is read? 0; -ERR_INVALID. */
int files_check(int fd, struct err *e);

/* Bytes the stream of a layer of @disk_bytes may have: names, owners and attributes come on top of the contents. */
uint64_t files_max_bytes(uint64_t disk_bytes);
