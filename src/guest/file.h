/*
 * guest/file.h - paths of requests, and what is there.
 *
 * Names may hold any bytes but NUL and '/'. Everything here is called between
 * user_enter() and user_leave(), so the kernel applies the user's permissions.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include "guest/passwd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

struct err;

enum { FILE_PATH_SIZE = LIMIT_PATH + 1 };
enum { FILE_KNOWS_HOLES = 1 }; /* guest_health.features */

/* Owners' names, loaded once per call. */
struct file_names {
	struct span passwd, group; /* given by user_load() */
};

void file_names_load(struct file_names *n);
void file_names_free(struct file_names *n);

/* A file_info and what it points to. */
struct file_facts {
	struct rec_file_info info;
	char target[FILE_PATH_SIZE];
};

/* Absolute, "~", "~/x", or relative to the user's home. -ERR_LIMIT when longer than LIMIT_PATH. */
int file_path(struct span path, const struct user *u, char ret[FILE_PATH_SIZE], struct err *e);

/*
 * file_look() - describe @name in @dirfd
 * @shown:	the path that the answer names, lent
 * @follow:	a link at the end
 * Return: 0 or a negative errno.
 */
int file_look(int dirfd, const char *name, const char *shown, bool follow,
	      const struct file_names *names, struct file_facts *ret);

/*
 * file_open_parent() - the directory that holds the last name of @path, and that name
 * @make:	make missing directories, 0755
 * @ret_name:	points into @path
 *
 * A descriptor of the parent, so that nobody can swap directories under later
 * steps. Return: the descriptor (O_PATH), given, or a negative errno.
 */
int file_open_parent(char *path, bool make, char **ret_name);

/* Directories of @path that are missing; negative errno. */
int file_make_dirs(const char *path, mode_t mode);

/* Of a record's mtime_ns, for utimensat(2): the time of reading stays, 0 leaves the other as it is, too. */
void file_times(uint64_t mtime_ns, struct timespec ret[2]);

/* Raise the right code for @negative_errno of an operation on @path. */
int file_error(struct err *e, int negative_errno, const char *path);
