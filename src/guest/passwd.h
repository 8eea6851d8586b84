/*
 * guest/passwd.h - users and groups out of the guest's own files. Pure.
 *
 * The files belong to the workload, so anything may stand in them: lines that
 * are too long, not UTF-8, without numbers. A line that does not parse does not exist.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/span.h"

enum {
	PASSWD_FILE_MAX = 1 << 20, /* bytes of /etc/passwd or /etc/group that are looked at */
	PASSWD_NAME_MAX = 64,
	PASSWD_PATH_MAX = 1024, /* home, shell */
	PASSWD_GROUPS_MAX = 64, /* supplementary groups of one user */
};

struct user {
	uid_t uid;
	gid_t gid;
	gid_t groups[PASSWD_GROUPS_MAX]; /* without gid */
	size_t n_groups;
	char name[PASSWD_NAME_MAX + 1];
	char home[PASSWD_PATH_MAX + 1];
	char shell[PASSWD_PATH_MAX + 1];
};

/* The first line of that name; -ENOENT. @ret's groups are left empty. */
int passwd_by_name(struct span file, struct span name, struct user *ret);
int passwd_by_uid(struct span file, uid_t uid, struct user *ret);

/* Fill @u's supplementary groups; beyond PASSWD_GROUPS_MAX they are left out. */
void passwd_groups(struct span file, struct user *u);

/* Name of a user (or group: same shape) by number; empty when there is none. Lent from @file. */
struct span passwd_name_of(struct span file, uint32_t number);
