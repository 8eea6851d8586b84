/*
 * image/disk.h - the lowest writable layer of a sandbox: an empty ext4 file of a given size.
 *
 *	{state}/sandboxes/<id>/layer-0		sparse; see snap/layers.h for what lies on it
 *	{state}/sandboxes/.blank-<mib>		a fresh one, copied instead of formatted again
 *
 * Any thread; the functions block on disk, disk_make() the first time also on mke2fs.
 */
#pragma once
#include <stdint.h>
struct err;
struct formatter;

/*
 * disk_make() - make the disk of sandbox @id (hex digits) and open it for reading and writing
 * @f:		who runs mke2fs; NULL: the caller
 * @ret_fd:	given
 *
 * Return: 0; -ERR_LIMIT when the disk of the host is full, -ERR_CONFLICT when it exists.
 * What a failure leaves, layers_remove() removes.
 */
int disk_make(int state_dirfd, struct formatter *f, const char *id, uint64_t size_mb, int *ret_fd, struct err *e);

/* Run mke2fs: a fresh file DISK_NEW in the folder. For image/formatter.c. */
#define DISK_NEW "disk.new"
int disk_format(int folder_fd, uint64_t size_mb, struct err *e);
