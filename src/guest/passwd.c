/* guest/passwd.c - users and groups out of the guest's own files */
#include "guest/passwd.h"
#include <errno.h>
#include <string.h>
#include "base/macro.h"

enum { FIELDS = 7, GROUP_FIELDS = 4 };

/* Take one line off the front of @file. */
static bool next_line(struct span *file, struct span *ret)
{
	const char *end;

	if (!file->n)
		return false;
	end = memchr(file->p, '\n', file->n);
	ret->p = file->p;
	ret->n = end ? (size_t)(end - file->p) : file->n;
	file->p += ret->n + (end ? 1 : 0);
	file->n -= ret->n + (end ? 1 : 0);
	return true;
}

/* Split at @sep into exactly @n fields, or fewer: returns how many; more is as bad as fewer. */
static size_t split(struct span line, char sep, struct span *fields, size_t n)
{
	size_t count = 0;

	for (;;) {
		const char *end = line.n ? memchr(line.p, sep, line.n) : NULL;

		if (count == n)
			return n + 1;
		fields[count].p = line.p;
		fields[count].n = end ? (size_t)(end - line.p) : line.n;
		count++;
		if (!end)
			return count;
		line.n -= (size_t)(end - line.p) + 1;
		line.p = end + 1;
	}
}

/* A user or group number: decimal, not (uint32_t)-1, which means "leave as it is" to the kernel. */
static bool number(struct span s, uint32_t *ret)
{
	uint64_t v = 0;

	if (s.n == 0 || s.n > 10)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	if (v >= UINT32_MAX)
		return false;
	*ret = (uint32_t)v;
	return true;
}

static bool equal(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

static bool has_nul(struct span s)
{
	return s.n && memchr(s.p, '\0', s.n);
}

static bool parse_user(struct span line, struct user *ret)
{
	struct span f[FIELDS];
	uint32_t uid, gid;

	if (has_nul(line) || split(line, ':', f, FIELDS) != FIELDS)
		return false;
	if (f[0].n == 0 || f[0].n > PASSWD_NAME_MAX || f[5].n > PASSWD_PATH_MAX ||
	    f[6].n > PASSWD_PATH_MAX)
		return false;
	if (!number(f[2], &uid) || !number(f[3], &gid))
		return false;
	*ret = (struct user){.uid = uid, .gid = gid};
	span_copy(f[0], ret->name, sizeof(ret->name));
	span_copy(f[5], ret->home, sizeof(ret->home));
	span_copy(f[6], ret->shell, sizeof(ret->shell));
	if (ret->home[0] != '/')
		memcpy(ret->home, "/", 2);
	return true;
}

int passwd_by_name(struct span file, struct span name, struct user *ret)
{
	struct span line;
	struct user u;

	while (next_line(&file, &line)) {
		if (line.n <= name.n || line.p[name.n] != ':' || memcmp(line.p, name.p, name.n) != 0)
			continue;
		if (parse_user(line, &u) && span_is(name, u.name)) { /* "a:x" is no name */
			*ret = u;
			return 0;
		}
	}
	return -ENOENT;
}

int passwd_by_uid(struct span file, uid_t uid, struct user *ret)
{
	struct span line;
	struct user u;

	while (next_line(&file, &line))
		if (parse_user(line, &u) && u.uid == uid) {
			*ret = u;
			return 0;
		}
	return -ENOENT;
}

static bool lists_member(struct span members, struct span name)
{
	while (members.n) {
		const char *end = memchr(members.p, ',', members.n);
		struct span one = {members.p, end ? (size_t)(end - members.p) : members.n};

		if (equal(one, name))
			return true;
		members.p += one.n + (end ? 1 : 0);
		members.n -= one.n + (end ? 1 : 0);
	}
	return false;
}

static bool has_group(const struct user *u, gid_t gid)
{
	for (size_t i = 0; i < u->n_groups; i++)
		if (u->groups[i] == gid)
			return true;
	return gid == u->gid;
}

void passwd_groups(struct span file, struct user *u)
{
	struct span line, f[GROUP_FIELDS], name = span_of(u->name);
	uint32_t gid;

	u->n_groups = 0;
	while (u->n_groups < PASSWD_GROUPS_MAX && next_line(&file, &line)) {
		if (split(line, ':', f, GROUP_FIELDS) != GROUP_FIELDS || !number(f[2], &gid))
			continue;
		if (lists_member(f[3], name) && !has_group(u, gid))
			u->groups[u->n_groups++] = gid;
	}
}

struct span passwd_name_of(struct span file, uint32_t wanted)
{
	struct span line, f[3];
	uint32_t got;

	while (next_line(&file, &line)) {
		if (split(line, ':', f, ARRAY_LEN(f)) < ARRAY_LEN(f)) /* more fields are fine */
			continue;
		if (number(f[2], &got) && got == wanted && f[0].n && f[0].n <= PASSWD_NAME_MAX &&
		    !has_nul(f[0]))
			return f[0];
	}
	return (struct span){0};
}
