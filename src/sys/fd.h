/* sys/fd.h - descriptors: always close-on-exec, closed by the scope that owns them. Any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All functions of sys/ return 0 or a value, or a negative errno; EINTR is retried. */

void auto_close_(int *fd);
#define AUTO_CLOSE [[gnu::cleanup(auto_close_)]]

/* Give a descriptor away: return it and forget it. */
static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

int sys_close(int fd); /* -1: fine; keeps errno; returns -1 for convenience */
int sys_open(const char *path, int flags);
int sys_create(const char *path, int flags, mode_t mode);
int sys_openat(int dirfd, const char *path, int flags, mode_t mode);
/* Never leaves @dirfd, follows no link, crosses no magic link: openat2(2). */
int sys_open_beneath(int dirfd, const char *path, int flags, mode_t mode);
/* The same, and stays in the file system, the very mount, that @dirfd is in: -EXDEV. For what exists. */
int sys_open_within(int dirfd, const char *path, int flags);
int sys_dup(int fd);		      /* close-on-exec */
int sys_nonblock(int fd, bool on);
int sys_inherit(int fd);	      /* clear close-on-exec, for the child about to exec */
int sys_pipe(int ret[2]);	      /* close-on-exec, blocking */
int sys_fchown(int fd, uid_t uid, gid_t gid);
int sys_memfd(const char *name, unsigned extra_flags);

ssize_t sys_read(int fd, void *p, size_t n);		/* 0: end */
ssize_t sys_write(int fd, const void *p, size_t n);
int sys_read_full(int fd, void *p, size_t n);		/* -EPIPE when it ends early */
int sys_write_full(int fd, const void *p, size_t n);
ssize_t sys_pread(int fd, void *p, size_t n, uint64_t off);
int sys_pwrite_full(int fd, const void *p, size_t n, uint64_t off);

/* Whole small file relative to @dirfd into @ret, NUL-terminated; -EFBIG beyond @size - 1. */
ssize_t sys_read_file(int dirfd, const char *path, char *ret, size_t size);
/* Replace the content of an existing file (or create it 0644); for /proc, /sys and cgroup files. */
int sys_write_file(int dirfd, const char *path, const char *text);
/* New file appears whole or not at all: temporary, fsync, rename, fsync of the directory. */
int sys_replace_file(int dirfd, const char *path, const void *p, size_t n, mode_t mode);

int sys_mkdir(int dirfd, const char *path, mode_t mode);	/* existing directory: 0 */
int sys_mkdirs(const char *path, mode_t mode);			/* parents too */
int sys_unlink(int dirfd, const char *path);			/* missing: 0 */
int sys_remove_tree(int dirfd, const char *path);		/* never follows links; missing: 0 */
/* renameat2(2): @flags RENAME_NOREPLACE, RENAME_EXCHANGE or 0. */
int sys_rename(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
int sys_link(int from_dirfd, const char *from, int to_dirfd, const char *to); /* hard; of a link: itself */
int sys_fsync(int fd);
int sys_truncate(int fd, uint64_t bytes);
int sys_chmod(int fd, mode_t mode);
int sys_share_extents(int from, int to); /* all of @from in the empty @to, copied on write; no way here: -EOPNOTSUPP */
int sys_punch(int fd, uint64_t off, uint64_t n); /* a hole of zeros, the size stays */
int64_t sys_seek(int fd, uint64_t off, int whence); /* SEEK_DATA, SEEK_HOLE: -ENXIO past the last data */
int sys_seal(int fd, int seals);		    /* F_SEAL_*, of a memfd made with MFD_ALLOW_SEALING */
/* Of a file in memory that is open for reading: has it all of these? Of anything else: no. */
bool sys_is_sealed(int fd, int seals);
int sys_lock(int fd);			/* exclusive flock, -EAGAIN when held elsewhere */
