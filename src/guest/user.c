/* guest/user.c - who a request acts as, and acting as that user */
#include "guest/user.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/fd.h"

static int check_file(int fd, const char *path, size_t *ret_size, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "%s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "%s in the guest is not a regular file", path);
	if (st.st_size > PASSWD_FILE_MAX)
		return err_set(e, ERR_LIMIT, "%s in the guest is larger than %d bytes", path,
			       PASSWD_FILE_MAX);
	*ret_size = (size_t)st.st_size;
	return 0;
}

int user_load(const char *path, struct span *ret, struct err *e)
{
	/* It may be anything, a pipe for instance: never wait for it. */
	AUTO_CLOSE int fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	AUTO_FREE char *p = NULL;
	size_t size = 0;
	ssize_t got;
	int r;

	*ret = (struct span){0};
	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return err_sys(e, fd, "%s", path);
	r = check_file(fd, path, &size, e);
	if (r < 0)
		return r;
	p = mem_try(size + 1);
	if (!p)
		return err_set(e, ERR_LIMIT, "no memory to read %s", path);
	got = sys_pread(fd, p, size, 0);
	if (got < 0)
		return err_sys(e, (int)got, "%s", path);
	ret->n = (size_t)got;
	ret->p = take_ptr(&p);
	return 0;
}

/*
 * UID or UID:GID. A number without a line in passwd is a user all the same, as for every container
 * runtime; a line can give it a name and a home, but not another number, whatever stands there.
 */
static int by_number(struct span file, char *name, struct user *ret)
{
	char *group = strchr(name, ':');
	uint64_t uid, gid = UINT32_MAX;
	int r;

	if (group)
		*group++ = '\0';
	r = group ? str_to_u64(group, 0, UINT32_MAX - 1, &gid) : 0;
	if (r < 0 || str_to_u64(name, 0, UINT32_MAX - 1, &uid) < 0)
		return -ENOENT;
	if (passwd_by_uid(file, (uid_t)uid, ret) < 0) {
		*ret = (struct user){.uid = (uid_t)uid, .gid = (gid_t)uid, .home = "/", .shell = "/bin/sh"};
		span_copy(span_of(name), ret->name, sizeof(ret->name));
	}
	if (group)
		ret->gid = (gid_t)gid;
	return 0;
}

static int find(struct span file, struct span name, struct user *ret)
{
	char text[PASSWD_NAME_MAX + 1];

	if (name.n > PASSWD_NAME_MAX)
		return -ENOENT;
	span_copy(name, text, sizeof(text));
	if (by_number(file, text, ret) == 0 || passwd_by_name(file, name, ret) == 0)
		return 0;
	span_copy(name, text, sizeof(text));
	if (strcmp(text, "root") != 0)
		return -ENOENT;
	*ret = (struct user){.name = "root", .home = "/root", .shell = "/bin/sh"};
	return 0;
}

int user_find(struct span name, struct span fallback, struct user *ret, struct err *e)
{
	struct span passwd, group;
	struct err why = ERR_INIT;
	bool is_broken = user_load("/etc/passwd", &passwd, &why) < 0;
	int r = 0;

	if (name.n == 0)
		name = fallback;
	if (name.n)
		r = find(passwd, name, ret);
	else if (find(passwd, span_of("user"), ret) < 0) /* who that is, a broken file does not say: not root */
		r = is_broken ? -ENOENT : find(passwd, span_of("root"), ret);
	free((void *)passwd.p);
	if (r < 0 && is_broken) {
		err_copy(e, &why);
		return err_wrap(e, "who is '%.*s'? --user 0 (root) and other numbers work without that file",
				(int)name.n, name.p);
	}
	if (r < 0)
		return err_set(e, ERR_NOT_FOUND, "no user '%.*s' in this sandbox", (int)name.n,
			       name.p);
	if (user_load("/etc/group", &group, NULL) == 0)
		passwd_groups(group, ret);
	free((void *)group.p);
	return 0;
}

void user_enter(const struct user *u)
{
	gid_t groups[PASSWD_GROUPS_MAX];

	memcpy(groups, u->groups, u->n_groups * sizeof(*groups));
	(void)setgroups(u->n_groups, groups);
	(void)setfsgid(u->gid);
	(void)setfsuid(u->uid); /* last: it takes the capability that overrides permissions */
}

void user_leave(void)
{
	(void)setfsuid(0);
	(void)setfsgid(0);
	(void)setgroups(0, NULL);
	/* The kernel forgets this signal when ids change; without it a keeper could die alone. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
}

/* An id that the sandbox has no room for can't own it; becoming that user says so better. */
void user_own(int fd, const struct user *u)
{
	(void)sys_fchown(fd, u->uid, u->gid);
}

int user_cwd(struct span cwd, const struct user *user, char *ret, size_t size, struct err *e)
{
	const char *sep = "/";
	int n;

	if (cwd.n && cwd.p[0] == '~' && (cwd.n == 1 || cwd.p[1] == '/')) {
		cwd.p++;
		cwd.n--;
		sep = "";
	} else if (cwd.n && cwd.p[0] == '/') {
		n = snprintf(ret, size, "%.*s", (int)cwd.n, cwd.p);
		return (size_t)n < size ? 0 : err_set(e, ERR_LIMIT, "cwd is too long");
	}
	n = snprintf(ret, size, "%s%s%.*s", user->home, cwd.n ? sep : "", (int)cwd.n, cwd.p);
	return (size_t)n < size ? 0 : err_set(e, ERR_LIMIT, "cwd is too long");
}
