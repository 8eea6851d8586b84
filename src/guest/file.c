/* guest/file.c - paths of requests, and what is there */
#include "guest/file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "guest/user.h"
#include "sys/fd.h"

void file_names_load(struct file_names *n)
{
	(void)user_load("/etc/passwd", &n->passwd, NULL);
	(void)user_load("/etc/group", &n->group, NULL);
}

void file_names_free(struct file_names *n)
{
	free((void *)n->passwd.p);
	free((void *)n->group.p);
	*n = (struct file_names){0};
}

int file_path(struct span path, const struct user *u, char ret[FILE_PATH_SIZE], struct err *e)
{
	const char *home = "";
	int n;

	if (path.p[0] == '~' && (path.n == 1 || path.p[1] == '/')) {
		home = u->home;
		path.p++;
		path.n--;
	} else if (path.p[0] != '/') {
		home = u->home;
	}
	n = snprintf(ret, FILE_PATH_SIZE, "%s%s%.*s", home,
		     *home && path.n && path.p[0] != '/' ? "/" : "", (int)path.n, path.p);
	if (n >= FILE_PATH_SIZE)
		return err_set(e, ERR_LIMIT, "path: more than %d bytes", LIMIT_PATH);
	return 0;
}

static const char *kind_of(mode_t mode)
{
	static const struct {
		mode_t mode;
		const char *name;
	} kinds[] = {
		{S_IFREG, "file"},  {S_IFDIR, "directory"}, {S_IFLNK, "symlink"},
		{S_IFIFO, "fifo"},  {S_IFSOCK, "socket"},
	};

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if ((mode & S_IFMT) == kinds[i].mode)
			return kinds[i].name;
	return "device";
}

int file_look(int dirfd, const char *name, const char *shown, bool follow,
	      const struct file_names *names, struct file_facts *ret)
{
	struct stat st;
	ssize_t n = 0;

	if (fstatat(dirfd, name, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (S_ISLNK(st.st_mode))
		n = readlinkat(dirfd, name, ret->target, LIMIT_PATH);
	ret->info = (struct rec_file_info){
		.path = span_of(shown),
		.kind = span_of(kind_of(st.st_mode)),
		.size = (uint64_t)st.st_size,
		.mode = st.st_mode & 07777,
		.uid = st.st_uid,
		.gid = st.st_gid,
		.owner = passwd_name_of(names->passwd, st.st_uid),
		.group = passwd_name_of(names->group, st.st_gid),
		.mtime_ns = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec,
		.target = {ret->target, n > 0 ? (size_t)n : 0},
	};
	return 0;
}

int file_make_dirs(const char *path, mode_t mode)
{
	return sys_mkdirs(path, mode);
}

int file_open_parent(char *path, bool make, char **ret_name)
{
	size_t n = strlen(path);
	char *slash;
	int fd = 0;

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
	slash = strrchr(path, '/');
	*ret_name = slash + 1;
	if (!**ret_name || strcmp(*ret_name, ".") == 0 || strcmp(*ret_name, "..") == 0)
		return -EISDIR;
	if (slash == path)
		return sys_open("/", O_PATH | O_DIRECTORY);
	*slash = '\0';
	if (make)
		fd = file_make_dirs(path, 0755);
	if (fd == 0)
		fd = sys_open(path, O_PATH | O_DIRECTORY);
	*slash = '/';
	return fd;
}

void file_times(uint64_t mtime_ns, struct timespec ret[2])
{
	int64_t ns = (int64_t)mtime_ns, s = ns / (int64_t)NS_PER_S, rest = ns % (int64_t)NS_PER_S;

	if (rest < 0) { /* before 1970 */
		rest += (int64_t)NS_PER_S;
		s--;
	}
	ret[0] = (struct timespec){.tv_nsec = UTIME_OMIT};
	ret[1] = (struct timespec){.tv_sec = s, .tv_nsec = rest};
	if (!mtime_ns)
		ret[1] = (struct timespec){.tv_nsec = UTIME_OMIT};
}

int file_error(struct err *e, int negative_errno, const char *path)
{
	switch (-negative_errno) {
	case ENOENT: return err_set(e, ERR_NOT_FOUND, "'%s' does not exist", path);
	case EISDIR: return err_set(e, ERR_INVALID, "'%s' is a directory", path);
	case ENOTDIR: return err_set(e, ERR_INVALID, "'%s': a part of it is no directory", path);
	case ENOTEMPTY:
		return err_set(e, ERR_CONFLICT, "'%s' is not empty (ask for recursive)", path);
	case EEXIST: return err_set(e, ERR_CONFLICT, "'%s' exists", path);
	case ENOSPC:
	case EDQUOT:
		return err_set(e, ERR_LIMIT, "no space left on the sandbox's disk for '%s'", path);
	case ENOMEM: return err_set(e, ERR_LIMIT, "the sandbox's memory is used up: '%s'", path);
	case EXDEV:
		return err_set(e, ERR_UNSUPPORTED, "'%s': can't move to another file system", path);
	default: return err_sys(e, negative_errno, "'%s'", path);
	}
}
