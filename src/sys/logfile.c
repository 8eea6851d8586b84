/* sys/logfile.c - logs: room for the next line */
#include "sys/logfile.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/fd.h"

enum { OLD_MODE = 0640, CHUNK = 65536 };

#define OLD_SUFFIX ".1"

/* Where @fd is, when that is a file called @name that is appended to. */
static bool find_path(int fd, const char *name, char ret[PATH_MAX])
{
	char link[32];
	const char *slash;
	int flags = fcntl(fd, F_GETFL);
	ssize_t n;

	if (flags < 0 || !(flags & O_APPEND))
		return false;
	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, ret, PATH_MAX - 1);
	if (n <= 0)
		return false;
	ret[n] = '\0';
	slash = strrchr(ret, '/');
	return slash && strcmp(slash + 1, name) == 0;
}

static int open_old(const char *path, int flags)
{
	char old[PATH_MAX + sizeof(OLD_SUFFIX)];

	(void)snprintf(old, sizeof(old), "%s" OLD_SUFFIX, path);
	return sys_create(old, O_WRONLY | O_NOFOLLOW | flags, OLD_MODE);
}

/* The last @max bytes of the log to the older file; an error ends it early. */
static void keep(const char *path, uint64_t size, uint64_t max)
{
	AUTO_CLOSE int from = sys_open(path, O_RDONLY | O_NOFOLLOW), to = open_old(path, O_TRUNC);
	char chunk[CHUNK];
	ssize_t n = from < 0 || to < 0 ? -1 : 1;

	for (uint64_t at = size > max ? size - max : 0; n > 0 && at < size; at += (uint64_t)n) {
		n = sys_pread(from, chunk, (size_t)MIN(size - at, (uint64_t)CHUNK), at);
		if (n > 0 && sys_write_full(to, chunk, (size_t)n) < 0)
			return;
	}
}

/* A full disk, too, is a reason to go on with an empty file. */
static void make_room(int fd, const char *name, uint64_t max, size_t n)
{
	char path[PATH_MAX];
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size + n <= max)
		return;
	if (!find_path(fd, name, path))
		return;
	keep(path, (uint64_t)st.st_size, max);
	(void)sys_truncate(fd, 0);
}

void logfile_write(int fd, const char *name, uint64_t max, const void *p, size_t n)
{
	make_room(fd, name, max, n);
	(void)sys_write(fd, p, n);
}

int logfile_give(int fd, const char *name, uid_t uid)
{
	AUTO_CLOSE int old = -1;
	char path[PATH_MAX];
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !find_path(fd, name, path))
		return 0;
	old = open_old(path, 0);
	if (old < 0)
		return old;
	if (fchown(fd, uid, (gid_t)-1) < 0 || fchown(old, uid, (gid_t)-1) < 0)
		return -errno;
	return 0;
}
