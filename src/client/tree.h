/*
 * client/tree.h - whole directories, in and out of a sandbox
 *
 * Blocking, like conn_call(). Regular files, directories and links that stay inside are
 * copied, with permission bits and times; holes stay holes. Names of one file (hard links) become files.
 * What is not copied because it is no such thing is named by `skipped`, what could not be copied by
 * `failed`; both are counted, and the copy goes on. Only what would end every other file, too, ends
 * it: a lost connection, an interrupt, no room.
 */
#pragma once
#include <stdint.h>
#include "base/span.h"

struct conn;
struct err;

enum {
	TREE_ENTRIES_MAX = 1000000, /* of one tree */
	TREE_NAMES_MAX = 268435456, /* bytes of all their names */
};

struct tree_stats {
	uint64_t files, directories, links, skipped, failed, bytes;
	uint64_t bytes_total; /* known for copies out of a sandbox; otherwise 0 */
};

struct tree_events {
	void (*progress)(void *arg, const struct tree_stats *so_far); /* NULL: fine */
	/* Names are unescaped; NULL: fine. */
	void (*skipped)(void *arg, struct span name, const char *why);
	void (*failed)(void *arg, struct span name, const struct err *why);
	void *arg;
};

/*
 * tree_fetch() - copy what is below @path of the sandbox below @root_fd (see client/host.h)
 * @user:	of the guest; empty: the default one
 * @room:	bytes; a longer file, or more data in all, is an error; 0: any
 * Return: 0; -ERR_LIMIT for trees beyond the maxima or 64 levels, or beyond @room; -ERR_DENIED for
 * a name that would leave @root_fd. What was copied before an error stays, directories complete.
 */
int tree_fetch(struct conn *c, const char *sandbox, struct span user, const char *path,
	       int root_fd, uint64_t room, const struct tree_events *ev, struct tree_stats *ret,
	       struct err *e);

/* tree_store() - copy what is below @dir_fd (lent) below @path of the sandbox, which is made. */
int tree_store(struct conn *c, const char *sandbox, struct span user, int dir_fd,
	       const char *path, const struct tree_events *ev, struct tree_stats *ret,
	       struct err *e);
