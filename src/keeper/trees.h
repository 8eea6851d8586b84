/*
 * keeper/trees.h - the root of a process sandbox, found by the hash of its template
 *
 * What the keeper shows a sandbox it maps onto the owners of a slot, whoever owns it on disk. So it
 * believes no descriptor of a daemon's that may have been taken over: not even where one leads can be
 * told, since whoever has a user namespace can make any path. A hash has nothing to say but which one.
 *
 * TREES-1 What tree_open() gives lies below the folder of templates, on its file system, with no link on
 *	   the way, and belongs to the keeper's user, to whom alone the way to it is writable.
 *
 * Thread: the keeper's.
 */
#pragma once
#include "base/span.h"

struct err;

/* The folder {state}/images, made if it is missing; -ERR_DENIED when somebody else could change it. */
int trees_open(const char *state, int *ret_fd, struct err *e);

/*
 * tree_open() - the tree of a template
 * @images_fd:	of trees_open(); lent
 * @hash:	64 digits
 * Return: 0; -ERR_INVALID for what is no hash, -ERR_NOT_FOUND, -ERR_DENIED when TREES-1 would not hold.
 */
int tree_open(int images_fd, struct span hash, int *ret_fd, struct err *e);

/* An empty folder of that file system, to try a jail with; trees_close_trial() removes it. */
int trees_open_trial(int images_fd, int *ret_fd, struct err *e);
void trees_close_trial(int images_fd);
