/*
 * image/place.h - a folder of the store ({state}/images, {state}/kernels, ...)
 * whose entries appear whole or not at all. Any thread.
 *
 * PLACE-1: an entry is made as ".new" and renamed when it is complete and on disk.
 * PLACE-2: ".new" is only touched under the folder's lock, so one that is found
 *	    there is what an interrupted writer left, and is removed.
 * PLACE-3: a pointer is a link whose text is the name of an entry; it is read
 *	    as text and never followed.
 */
#pragma once
#include <stddef.h>
struct err;

enum { PLACE_NAME_MAX = 128 }; /* with NUL */

#define PLACE_NEW ".new"

/* Open {state}/@folder for reading. -ERR_NOT_FOUND while nothing was ever built. */
int place_open(int state_dirfd, const char *folder, int *ret_fd, struct err *e);

/*
 * Open {state}/@folder for writing: made when missing, locked until *ret_lock is
 * closed, leftovers of interrupted writers removed. -ERR_CONFLICT when another
 * process writes there now.
 */
int place_enter(int state_dirfd, const char *folder, int *ret_fd, int *ret_lock, struct err *e);

/* Make the folder ".new", mode 0755, and open it. Only between place_enter() and closing the lock.
 */
int place_begin(int place_fd, int *ret_fd, struct err *e);

/* Put everything in the file system of @place_fd on disk and rename ".new" to @name, which it may
 * replace. */
int place_commit(int place_fd, const char *name, struct err *e);

/* Remove ".new" after a failure; without it the next place_enter() does that. */
void place_abandon(int place_fd);

/* Remove the entry: renamed to ".new" first, so that no half of it is ever seen. */
int place_remove(int place_fd, const char *name, struct err *e);

/* @ret: the entry that pointer @name names, not checked to exist. -ERR_NOT_FOUND, -ERR_INVALID. */
int place_read_pointer(int place_fd, const char *name, char ret[PLACE_NAME_MAX], struct err *e);
int place_set_pointer(int place_fd, const char *name, const char *entry, struct err *e);
