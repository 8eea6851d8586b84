/*
 * guest/user.h - who a request acts as, and acting as that user.
 *
 * Files are touched under the user's own file-system ids and groups, so the
 * kernel checks permissions as for any program of that user, and what is made
 * belongs to them. The agent has one thread, so nothing else runs in between.
 */
#pragma once
#include "base/span.h"
#include "guest/passwd.h"
#include "wire/gen/limits.h"

struct err;

enum { USER_CWD_SIZE = LIMIT_PATH + PASSWD_PATH_MAX + 2 };

/* One of the guest's files, whole; @ret is given (free() it) and empty when the file is missing. */
int user_load(const char *path, struct span *ret, struct err *e);

/*
 * user_find() - a user by name or number, with groups
 * @name:	empty: @fallback; that empty too: "user" if there is one, else root
 *
 * Return: 0; -ERR_NOT_FOUND when there is no such user; -ERR_LIMIT for absurd files.
 */
int user_find(struct span name, struct span fallback, struct user *ret, struct err *e);

/* Act as @u for files, from now until user_leave(). Cannot fail for the agent, which is root. */
void user_enter(const struct user *u);
void user_leave(void);

/*
 * One end of a pipe made for a program of @u becomes theirs, and with it the other: /dev/stdout
 * and its like open the pipe anew, which the kernel allows its owner alone.
 */
void user_own(int fd, const struct user *u);

/* Where a program of @u starts: "~" and "~/x" are the home, what is relative starts there. -ERR_LIMIT. */
int user_cwd(struct span cwd, const struct user *u, char *ret, size_t size, struct err *e);
