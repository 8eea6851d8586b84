/*
 * client/host.h - files of this host whose names come from a guest
 *
 * HOST-1 Nothing is opened, made or changed outside the directory @root_fd: every name is
 *	  checked (host_name_check()) and then resolved by openat2(2) beneath it, following no link.
 * HOST-2 A file or link appears whole or not at all, and replaces only a regular file or a link,
 *	  which is not followed.
 * HOST-3 A link is made only if it can't lead out of the tree, whatever other links are in it.
 * HOST-4 Only the nine permission bits come from a guest: no set-user-id, no sticky.
 *
 * Any thread; the functions block on disk only.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/span.h"

struct err;

enum { HOST_PATH = 4096, HOST_DEPTH = 65 };

/*
 * host_name_check() - is @path relative, made of plain components, and of sane length?
 * Return: the number of components; -ERR_DENIED for "", "/...", ".", "..", NUL, "a//b";
 * -ERR_LIMIT for too many bytes or components.
 */
int host_name_check(struct span path, struct err *e);

/* Make a directory, or accept one that is there, which its owner can fill afterwards. */
int host_mkdir(int root_fd, struct span path, struct err *e);
/* Set permission bits and time (nanoseconds; 0: now) of a directory, once nothing more is put into it. */
int host_dir_done(int root_fd, struct span path, unsigned mode, uint64_t mtime_ns, struct err *e);
/* -ERR_DENIED when @target could lead out of the tree. */
int host_symlink(int root_fd, struct span path, struct span target, uint64_t mtime_ns, struct err *e);
/* Could a link to @target, that many directories below the top of a tree, lead out of it? (HOST-3) */
bool host_leads_out(struct span target, int depth);

struct host_file {
	int fd, dir_fd;
	char name[256], temporary[64];
};

#define HOST_FILE_INIT {.fd = -1, .dir_fd = -1}

/* A new file under a temporary name beside @path. Give up with host_file_drop(). */
int host_file_open(int root_fd, struct span path, struct host_file *ret, struct err *e);
int host_file_put(struct host_file *f, const void *p, size_t n, struct err *e);
/* The next @n bytes are zeros that take no room. */
int host_file_skip(struct host_file *f, uint64_t n, struct err *e);
/* Give it its name, permission bits and time (nanoseconds; 0: now). Not synced to disk. */
int host_file_keep(struct host_file *f, unsigned mode, uint64_t mtime_ns, struct err *e);
void host_file_drop(struct host_file *f); /* kept or never opened: fine */
