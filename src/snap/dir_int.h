/*
 * snap/dir_int.h - folders named by ids, made under another name and renamed when whole
 *
 *	<id>		whole
 *	<id>.new	being made, or what its replacement left
 *	<id>.old	being removed
 *
 * Any thread; block on disk.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "base/id.h"
struct err;

enum { DIR_NAME = ID_TEXT + 8, DIR_PATH = DIR_NAME + 16 };

/* "<id><suffix>" */
void dir_name(const struct id *id, const char *suffix, char ret[DIR_NAME]);

/* Open {state}/@folder/@name ("": the folder itself). -ERR_NOT_FOUND when it is missing. */
int dir_open(int state_fd, const char *folder, const char *name, int *ret_fd, struct err *e);

/* Make {state}/@folder if need be, and in it @name, empty: what was there before is removed. */
int dir_make(int state_fd, const char *folder, const char *name, int *ret_parent, int *ret_fd,
	     struct err *e);

/* Remove entries of {state}/@folder that end in ".new" or ".old". No such folder: 0. */
int dir_sweep(int state_fd, const char *folder, struct err *e);

/* Call @each for every entry of {state}/@folder; the first failure it returns ends it. No such folder: 0. */
int dir_each(int state_fd, const char *folder,
	     int (*each)(void *arg, int folder_fd, const char *name, struct err *e), void *arg,
	     struct err *e);

/* "<folder>/<id>", folder "sandboxes" or "snapshots", id 32 lower-case hex digits. -ERR_INVALID otherwise. */
int dir_path_ok(const char *path, struct err *e);
