/* client/host.c - files of this host whose names come from a guest */
#include "client/host.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { PERMISSIONS = 0777, SHOWN = 160 };

/* Guest names go into messages, so messages escape them. */
static const char *shown(struct span path, char ret[SHOWN])
{
	struct str s = STR_INIT(HOST_PATH * 8);

	str_add_escaped(&s, path.p, path.n);
	(void)snprintf(ret, SHOWN, "%s", str_text(&s));
	str_deinit(&s);
	return ret;
}

static bool is_plain(const char *p, size_t n)
{
	return n > 0 && n <= NAME_MAX && !(n == 1 && p[0] == '.') &&
	       !(n == 2 && p[0] == '.' && p[1] == '.') && !memchr(p, '\0', n);
}

int host_name_check(struct span path, struct err *e)
{
	char text[SHOWN];
	const char *p = path.p;
	size_t left = path.n;
	int count = 0;

	if (path.n >= HOST_PATH)
		return err_set(e, ERR_LIMIT, "guest file name \"%s...\": longer than %d bytes",
			       shown((struct span){path.p, 64}, text), HOST_PATH - 1);
	do {
		const char *slash = left ? memchr(p, '/', left) : NULL;
		size_t n = slash ? (size_t)(slash - p) : left;

		if (!is_plain(p, n))
			return err_set(e, ERR_DENIED,
				       "guest file name \"%s\": refused, it is not a plain path below "
				       "the target",
				       shown(path, text));
		if (++count > HOST_DEPTH)
			return err_set(e, ERR_LIMIT, "guest file name \"%s\": deeper than %d levels",
				       shown(path, text), HOST_DEPTH);
		p += n + (slash ? 1 : 0);
		left -= n + (slash ? 1 : 0);
		if (slash && left == 0)
			return err_set(e, ERR_DENIED, "guest file name \"%s\": refused, it ends in /",
				       shown(path, text));
	} while (left);
	return count;
}

/* HOST-1. Opens the directory above @path and copies the last component. */
static int open_parent(int root_fd, struct span path, char name[256], int *ret_fd, struct err *e)
{
	char dir[HOST_PATH], text[SHOWN];
	const char *slash;
	int fd, r = host_name_check(path, e);

	if (r < 0)
		return r;
	slash = memrchr(path.p, '/', path.n);
	span_copy(slash ? (struct span){path.p, (size_t)(slash - path.p)} : span_of("."), dir,
		  sizeof(dir));
	fd = sys_open_beneath(root_fd, dir, O_PATH | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, fd, "%s: open the directory it belongs to", shown(path, text));
	slash = slash ? slash + 1 : path.p;
	span_copy((struct span){slash, (size_t)(path.p + path.n - slash)}, name, 256);
	*ret_fd = fd;
	return 0;
}

/* Of a guest's word: any number is some time. */
static void times_of(uint64_t mtime_ns, struct timespec ret[2])
{
	int64_t ns = (int64_t)mtime_ns, s = ns / (int64_t)NS_PER_S, rest = ns % (int64_t)NS_PER_S;

	if (rest < 0) { /* before 1970 */
		rest += (int64_t)NS_PER_S;
		s--;
	}
	ret[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	ret[1] = mtime_ns ? (struct timespec){.tv_sec = s, .tv_nsec = rest} : ret[0];
}

/* A directory that is there may be read-only, from a copy before. Where this fails, filling it says why. */
static void let_fill(int dir_fd, const char *name)
{
	AUTO_CLOSE int fd = sys_open_beneath(dir_fd, name, O_PATH | O_DIRECTORY, 0);
	char self[32]; /* names this very directory, whatever becomes of its name */
	struct stat st;

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fd >= 0 && fstat(fd, &st) == 0 && (st.st_mode & 0700) != 0700)
		(void)!chmod(self, (st.st_mode & PERMISSIONS) | 0700);
}

int host_mkdir(int root_fd, struct span path, struct err *e)
{
	char name[256], text[SHOWN];
	AUTO_CLOSE int dir_fd = -1;
	int r = open_parent(root_fd, path, name, &dir_fd, e);

	if (r < 0)
		return r;
	r = sys_mkdir(dir_fd, name, 0700);
	if (r == -EEXIST)
		return err_set(e, ERR_CONFLICT, "%s: something else of that name is there, a directory does not "
			       "replace it; remove it first", shown(path, text));
	if (r < 0)
		return err_sys(e, r, "%s: make the directory", shown(path, text));
	let_fill(dir_fd, name);
	return 0;
}

int host_dir_done(int root_fd, struct span path, unsigned mode, uint64_t mtime_ns, struct err *e)
{
	char name[256], text[SHOWN];
	AUTO_CLOSE int dir_fd = -1, fd = -1;
	struct timespec times[2];
	int r = open_parent(root_fd, path, name, &dir_fd, e);

	if (r < 0)
		return r;
	fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, fd, "%s: open the directory", shown(path, text));
	times_of(mtime_ns, times);
	if (fchmod(fd, mode & PERMISSIONS) < 0) /* HOST-4 */
		return err_sys(e, -errno, "%s: set permissions", shown(path, text));
	if (futimens(fd, times) < 0)
		return err_sys(e, -errno, "%s: set the time", shown(path, text));
	return 0;
}

/*
 * HOST-3. Allowed: as many leading ".." as the link is deep, then plain names. A ".." behind
 * a name is refused, since that name may be another link and lead somewhere less deep.
 */
bool host_leads_out(struct span target, int depth)
{
	const char *p = target.p;
	size_t left = target.n;
	bool named = false;
	int up = 0;

	if (left == 0 || p[0] == '/' || memchr(p, '\0', left))
		return true;
	while (left) {
		const char *slash = memchr(p, '/', left);
		size_t n = slash ? (size_t)(slash - p) : left;

		if (n == 2 && p[0] == '.' && p[1] == '.') {
			if (named || ++up > depth)
				return true;
		} else if (n && !(n == 1 && p[0] == '.')) {
			named = true;
		}
		p += n + (slash ? 1 : 0);
		left -= n + (slash ? 1 : 0);
	}
	return false;
}

/* ---- links and files: made aside, then given their name ---- */

static int random_name(char *ret, size_t size, struct err *e)
{
	uint64_t number;
	int r = sys_random(&number, sizeof(number));

	if (r < 0)
		return err_sys(e, r, "random name");
	(void)snprintf(ret, size, ".hotcell-%016llx", (unsigned long long)number);
	return 0;
}

/* HOST-2 */
static int may_replace(int dir_fd, const char *name, struct span path, struct err *e)
{
	struct stat st;
	char text[SHOWN];

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "%s", shown(path, text));
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "%s: %s of that name is there, a file or link does not replace it; "
			       "remove it first", shown(path, text),
			       S_ISDIR(st.st_mode) ? "a directory" : "something else");
	return 0;
}

int host_symlink(int root_fd, struct span path, struct span target, uint64_t mtime_ns, struct err *e)
{
	char name[256], to[HOST_PATH], temporary[64], text[SHOWN], there[SHOWN];
	AUTO_CLOSE int dir_fd = -1;
	struct timespec times[2];
	int r = open_parent(root_fd, path, name, &dir_fd, e);

	if (r < 0)
		return r;
	if (target.n >= HOST_PATH || host_leads_out(target, host_name_check(path, NULL) - 1))
		return err_set(e, ERR_DENIED, "%s: a link to \"%s\" could lead out of the target",
			       shown(path, text), shown(target, there));
	span_copy(target, to, sizeof(to));
	r = may_replace(dir_fd, name, path, e);
	if (r == 0)
		r = random_name(temporary, sizeof(temporary), e);
	if (r < 0)
		return r;
	if (symlinkat(to, dir_fd, temporary) < 0)
		return err_sys(e, -errno, "%s: make the link", shown(path, text));
	times_of(mtime_ns, times);
	(void)!utimensat(dir_fd, temporary, times, AT_SYMLINK_NOFOLLOW); /* some file systems can't */
	r = sys_rename(dir_fd, temporary, dir_fd, name, 0);
	if (r < 0) {
		(void)sys_unlink(dir_fd, temporary);
		return err_sys(e, r, "%s: give the link its name", shown(path, text));
	}
	return 0;
}

int host_file_open(int root_fd, struct span path, struct host_file *ret, struct err *e)
{
	struct host_file f = HOST_FILE_INIT;
	char text[SHOWN];
	int r = open_parent(root_fd, path, f.name, &f.dir_fd, e);

	if (r == 0)
		r = may_replace(f.dir_fd, f.name, path, e);
	if (r == 0)
		r = random_name(f.temporary, sizeof(f.temporary), e);
	if (r == 0) {
		f.fd = sys_open_beneath(f.dir_fd, f.temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
		if (f.fd < 0)
			r = err_sys(e, f.fd, "%s: create", shown(path, text));
	}
	if (r < 0) {
		f.temporary[0] = '\0';
		host_file_drop(&f);
		return r;
	}
	*ret = f;
	return 0;
}

int host_file_put(struct host_file *f, const void *p, size_t n, struct err *e)
{
	char text[SHOWN];
	int r = sys_write_full(f->fd, p, n);

	return r < 0 ? err_sys(e, r, "%s: write", shown(span_of(f->name), text)) : 0;
}

int host_file_skip(struct host_file *f, uint64_t n, struct err *e)
{
	off_t at = lseek(f->fd, 0, SEEK_CUR), to = 0;
	char text[SHOWN];
	int r = at < 0 ? -errno : __builtin_add_overflow(at, n, &to) ? -EFBIG : 0;

	if (r == 0)
		r = sys_truncate(f->fd, (uint64_t)to);
	if (r == 0)
		r = lseek(f->fd, to, SEEK_SET) < 0 ? -errno : 0;
	return r < 0 ? err_sys(e, r, "%s: write", shown(span_of(f->name), text)) : 0;
}

int host_file_keep(struct host_file *f, unsigned mode, uint64_t mtime_ns, struct err *e)
{
	struct timespec times[2];
	char text[SHOWN];

	times_of(mtime_ns, times);
	if (fchmod(f->fd, mode & PERMISSIONS) < 0 || /* HOST-4 */
	    futimens(f->fd, times) < 0 || renameat(f->dir_fd, f->temporary, f->dir_fd, f->name) < 0)
		return err_sys(e, -errno, "%s: give the file its name",
			       shown(span_of(f->name), text));
	f->temporary[0] = '\0';
	host_file_drop(f);
	return 0;
}

void host_file_drop(struct host_file *f)
{
	if (f->temporary[0])
		(void)sys_unlink(f->dir_fd, f->temporary);
	f->temporary[0] = '\0';
	f->fd = sys_close(f->fd);
	f->dir_fd = sys_close(f->dir_fd);
}
