/* sys/fd.c - descriptors and files */
#include "sys/fd.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "sys/call_int.h"

void auto_close_(int *fd)
{
	sys_close(*fd);
}

int sys_close(int fd)
{
	int keep = errno;

	if (fd >= 0)
		(void)close(fd);
	errno = keep;
	return -1;
}

int sys_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return SYS_CALL(openat(dirfd, path, flags | O_CLOEXEC, mode));
}

int sys_open(const char *path, int flags)
{
	return sys_openat(AT_FDCWD, path, flags, 0);
}

int sys_create(const char *path, int flags, mode_t mode)
{
	return sys_openat(AT_FDCWD, path, flags | O_CREAT, mode);
}

int sys_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};

	return (int)SYS_CALL(syscall(SYS_openat2, dirfd, path, &how, sizeof(how)));
}

int sys_open_within(int dirfd, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV,
	};

	return (int)SYS_CALL(syscall(SYS_openat2, dirfd, path, &how, sizeof(how)));
}

int sys_dup(int fd)
{
	return SYS_CALL(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

int sys_nonblock(int fd, bool on)
{
	int flags = SYS_CALL(fcntl(fd, F_GETFL));

	if (flags < 0)
		return flags;
	return SYS_CALL(fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

int sys_inherit(int fd)
{
	return SYS_CALL(fcntl(fd, F_SETFD, 0));
}

int sys_pipe(int ret[2])
{
	return SYS_CALL(pipe2(ret, O_CLOEXEC));
}

int sys_fchown(int fd, uid_t uid, gid_t gid)
{
	return SYS_CALL(fchown(fd, uid, gid));
}

int sys_memfd(const char *name, unsigned extra_flags)
{
	return SYS_CALL(memfd_create(name, MFD_CLOEXEC | extra_flags));
}

ssize_t sys_read(int fd, void *p, size_t n)
{
	return SYS_CALL(read(fd, p, n));
}

ssize_t sys_write(int fd, const void *p, size_t n)
{
	return SYS_CALL(write(fd, p, n));
}

ssize_t sys_pread(int fd, void *p, size_t n, uint64_t off)
{
	return SYS_CALL(pread(fd, p, n, (off_t)off));
}

int sys_read_full(int fd, void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = sys_read(fd, (char *)p + done, n - done);

		if (r <= 0)
			return r < 0 ? (int)r : -EPIPE;
		done += (size_t)r;
	}
	return 0;
}

int sys_write_full(int fd, const void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = sys_write(fd, (const char *)p + done, n - done);

		if (r < 0)
			return (int)r;
		done += (size_t)r;
	}
	return 0;
}

int sys_pwrite_full(int fd, const void *p, size_t n, uint64_t off)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = SYS_CALL(pwrite(fd, (const char *)p + done, n - done, (off_t)(off + done)));

		if (r < 0)
			return (int)r;
		done += (size_t)r;
	}
	return 0;
}

ssize_t sys_read_file(int dirfd, const char *path, char *ret, size_t size)
{
	AUTO_CLOSE int fd = sys_openat(dirfd, path, O_RDONLY, 0);
	size_t done = 0;
	ssize_t r;

	if (fd < 0)
		return fd;
	do {
		r = sys_read(fd, ret + done, size - done);
		if (r < 0)
			return r;
		done += (size_t)r;
		if (done == size)
			return -EFBIG;
	} while (r);
	ret[done] = '\0';
	return (ssize_t)done;
}

int sys_write_file(int dirfd, const char *path, const char *text)
{
	AUTO_CLOSE int fd = sys_openat(dirfd, path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	return fd < 0 ? fd : sys_write_full(fd, text, strlen(text));
}

static int sync_dir_of(int dirfd, const char *path)
{
	char parent[PATH_MAX];
	const char *slash = strrchr(path, '/');
	AUTO_CLOSE int fd = -1;

	(void)snprintf(parent, sizeof(parent), "%.*s", slash ? (int)(slash - path) : 1,
		       slash ? path : ".");
	fd = sys_openat(dirfd, parent[0] ? parent : "/", O_RDONLY | O_DIRECTORY, 0);
	return fd < 0 ? fd : SYS_CALL(fsync(fd));
}

int sys_replace_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode)
{
	char tmp[PATH_MAX];
	AUTO_CLOSE int fd = -1;
	int r;

	if (snprintf(tmp, sizeof(tmp), "%s.new", path) >= (int)sizeof(tmp))
		return -ENAMETOOLONG;
	r = sys_unlink(dirfd, tmp); /* of a writer that was killed: perhaps another mode, another owner */
	if (r < 0)
		return r;
	fd = sys_openat(dirfd, tmp, O_WRONLY | O_CREAT | O_EXCL, mode);
	if (fd < 0)
		return fd;
	r = sys_write_full(fd, p, n);
	if (r == 0)
		r = SYS_CALL(fsync(fd));
	if (r == 0)
		r = SYS_CALL(renameat(dirfd, tmp, dirfd, path));
	if (r < 0) {
		(void)unlinkat(dirfd, tmp, 0);
		return r;
	}
	return sync_dir_of(dirfd, path);
}

int sys_mkdir(int dirfd, const char *path, mode_t mode)
{
	int r = SYS_CALL(mkdirat(dirfd, path, mode));
	struct stat st;

	if (r == -EEXIST && fstatat(dirfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    S_ISDIR(st.st_mode))
		return 0;
	return r;
}

int sys_mkdirs(const char *path, mode_t mode)
{
	char part[PATH_MAX];
	size_t n = strlen(path);
	int r = 0;

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	if (n == 0)
		return -ENOENT;
	for (size_t i = 1; i <= n && r == 0; i++) {
		struct stat st;

		if (path[i] != '/' && path[i] != '\0')
			continue;
		memcpy(part, path, i);
		part[i] = '\0';
		if (stat(part, &st) == 0 && S_ISDIR(st.st_mode))
			continue; /* may be a link to a directory, which sys_mkdir() refuses */
		r = sys_mkdir(AT_FDCWD, part, mode);
	}
	return r;
}

int sys_unlink(int dirfd, const char *path)
{
	int r = SYS_CALL(unlinkat(dirfd, path, 0));

	return r == -ENOENT ? 0 : r;
}

/*
 * Whoever filled the tree decides how deep it is, so depth must cost neither
 * stack nor descriptors: what lies deeper than TREE_DEPTH is moved to the top,
 * where the next pass finds it.
 */
enum { TREE_DEPTH = 32 };

struct removal {
	int top;	   /* the tree's root, open */
	unsigned raised;   /* directories moved to the top so far */
	bool again;
};

static int remove_at(struct removal *rm, int dirfd, const char *name, unsigned depth);

static int raise_up(struct removal *rm, int dirfd, const char *name)
{
	char to[32];
	int r;

	do {
		(void)snprintf(to, sizeof(to), ".raised-%u", rm->raised++);
		r = SYS_CALL(renameat(dirfd, name, rm->top, to));
	} while (r == -EEXIST || r == -ENOTEMPTY || r == -ENOTDIR); /* taken: planted, or raised before */
	rm->again = rm->again || r == 0;
	return r;
}

static int remove_entries(struct removal *rm, DIR *d, unsigned depth)
{
	int first = 0;

	for (struct dirent *ent = readdir(d); ent; ent = readdir(d)) {
		int r;

		if (strcmp(ent->d_name, ".") == 0 || strcmp(ent->d_name, "..") == 0)
			continue;
		r = remove_at(rm, dirfd(d), ent->d_name, depth + 1);
		if (r < 0 && first == 0)
			first = r;
	}
	return first;
}

static int remove_below(struct removal *rm, int fd, unsigned depth)
{
	int copy = sys_dup(fd);
	DIR *d;
	int r;

	if (copy < 0)
		return copy;
	d = fdopendir(copy);
	if (!d) {
		r = -errno;
		(void)sys_close(copy);
		return r;
	}
	rewinddir(d); /* the offset is shared with earlier passes */
	r = remove_entries(rm, d, depth);
	(void)closedir(d);
	return r;
}

static int remove_at(struct removal *rm, int dirfd, const char *name, unsigned depth)
{
	int r = SYS_CALL(unlinkat(dirfd, name, 0));
	AUTO_CLOSE int fd = -1;

	if (r == 0 || r == -ENOENT)
		return 0;
	if (r != -EISDIR && r != -EPERM)
		return r;
	if (depth > TREE_DEPTH)
		return raise_up(rm, dirfd, name);
	fd = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd == -ENOTDIR ? r : fd;
	r = remove_below(rm, fd, depth);
	return r < 0 ? r : SYS_CALL(unlinkat(dirfd, name, AT_REMOVEDIR));
}

int sys_remove_tree(int dirfd, const char *path)
{
	int r = SYS_CALL(unlinkat(dirfd, path, 0));
	struct removal rm = {.again = true};
	AUTO_CLOSE int top = -1;

	if (r == 0 || r == -ENOENT)
		return 0;
	if (r != -EISDIR && r != -EPERM)
		return r;
	top = sys_openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (top < 0)
		return top == -ENOTDIR ? r : top;
	rm.top = top;
	for (r = 0; rm.again && r == 0;) {
		rm.again = false;
		r = remove_below(&rm, top, 0);
	}
	return r < 0 ? r : SYS_CALL(unlinkat(dirfd, path, AT_REMOVEDIR));
}

int sys_rename(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
	return SYS_CALL(renameat2(from_dirfd, from, to_dirfd, to, flags));
}

int sys_link(int from_dirfd, const char *from, int to_dirfd, const char *to)
{
	return SYS_CALL(linkat(from_dirfd, from, to_dirfd, to, 0));
}

int sys_fsync(int fd)
{
	return SYS_CALL(fsync(fd));
}

int sys_truncate(int fd, uint64_t bytes)
{
	return SYS_CALL(ftruncate(fd, (off_t)bytes));
}

int sys_chmod(int fd, mode_t mode)
{
	return SYS_CALL(fchmod(fd, mode));
}

/* File systems that can't and places between which they can't say it in many ways. */
int sys_share_extents(int from, int to)
{
	int r = SYS_CALL(ioctl(to, FICLONE, from));

	return r == -ENOTTY || r == -EXDEV || r == -EINVAL || r == -ENOSYS || r == -EPERM ? -EOPNOTSUPP : r;
}

int sys_punch(int fd, uint64_t off, uint64_t n)
{
	return SYS_CALL(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)n));
}

int64_t sys_seek(int fd, uint64_t off, int whence)
{
	return SYS_CALL(lseek(fd, (off_t)off, whence));
}

int sys_seal(int fd, int seals)
{
	return SYS_CALL(fcntl(fd, F_ADD_SEALS, seals));
}

bool sys_is_sealed(int fd, int seals)
{
	int flags = fcntl(fd, F_GETFL), has = fcntl(fd, F_GET_SEALS);

	return flags >= 0 && has >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != O_WRONLY &&
	       (has & seals) == seals;
}

int sys_lock(int fd)
{
	int r = SYS_CALL(flock(fd, LOCK_EX | LOCK_NB));

	return r == -EWOULDBLOCK ? -EAGAIN : r;
}
