/*
 * image/disk.c - writable layers
 *
 * Formatting takes tens of milliseconds, copying the few blocks that a fresh
 * file system has written takes one. So each size is formatted once and the
 * result kept. Every disk of a size then has the same UUID: each is alone in
 * its machine, nothing looks disks up by it.
 *
 * No journal: a machine that dies takes its layer with it.
 */
#include "image/disk.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "image/formatter.h"
#include "image/tool.h"
#include "snap/layers.h"
#include "sys/fd.h"

enum { NAME = 64 };

/* Copy what is written of @from; what is a hole stays one. */
static int copy_sparse(int from, int to)
{
	off_t end = lseek(from, 0, SEEK_END), at = 0;

	if (end < 0 || ftruncate(to, end) < 0)
		return -errno;
	while (at < end) {
		off_t data = lseek(from, at, SEEK_DATA), hole, out;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno; /* only holes from here */
		hole = lseek(from, data, SEEK_HOLE);
		for (out = data; data < hole;) {
			ssize_t n = copy_file_range(from, &data, to, &out, (size_t)(hole - data), 0);

			if (n <= 0)
				return n < 0 ? -errno : -EIO;
		}
		at = hole;
	}
	return 0;
}

int disk_format(int folder_fd, uint64_t size_mb, struct err *e)
{
	char size[NAME];
	const char *const argv[] = {"mke2fs", "-q",    "-F",
				    "-t",     "ext4",  "-m",
				    "0",      "-L",    "layer",
				    "-O",     "^has_journal", "-E",
				    "lazy_itable_init=1,nodiscard", DISK_NEW, size, NULL};
	struct tool t = TOOL_INIT;

	(void)snprintf(size, sizeof(size), "%" PRIu64 "M", size_mb);
	t.argv = argv;
	t.cwd_fd = folder_fd;
	return tool_run(&t, e);
}

/* Make the blank of this size in @folder_fd and let it appear whole. Two may race: either is good. */
static int make_blank(struct formatter *f, int disks_fd, int folder_fd, const char *blank, uint64_t size_mb,
		      struct err *e)
{
	int r = formatter_run(f, folder_fd, size_mb, e);

	if (r == 0 && renameat(folder_fd, DISK_NEW, disks_fd, blank) < 0)
		r = err_disk(e, -errno, "keep a blank disk");
	return r;
}

static int open_blank(struct formatter *f, int disks_fd, int folder_fd, uint64_t size_mb, int *ret, struct err *e)
{
	char blank[NAME];
	int fd, r;

	(void)snprintf(blank, sizeof(blank), ".blank-%" PRIu64, size_mb);
	fd = sys_open_beneath(disks_fd, blank, O_RDONLY, 0);
	if (fd == -ENOENT) {
		r = make_blank(f, disks_fd, folder_fd, blank, size_mb, e);
		if (r < 0)
			return r;
		fd = sys_open_beneath(disks_fd, blank, O_RDONLY, 0);
	}
	if (fd < 0)
		return err_sys(e, fd, "open a blank disk");
	*ret = fd;
	return 0;
}

static int open_disks(int state_dirfd, int *ret, struct err *e)
{
	int fd = sys_open_beneath(state_dirfd, SANDBOXES_FOLDER, O_RDONLY | O_DIRECTORY, 0);

	if (fd < 0)
		return err_sys(e, fd, "open the folder " SANDBOXES_FOLDER);
	*ret = fd;
	return 0;
}

int disk_make(int state_dirfd, struct formatter *f, const char *id, uint64_t size_mb, int *ret_fd, struct err *e)
{
	AUTO_CLOSE int disks_fd = -1, folder_fd = -1, blank_fd = -1, fd = -1;
	int r = open_disks(state_dirfd, &disks_fd, e);

	if (r < 0)
		return r;
	r = sys_mkdir(disks_fd, id, 0700);
	if (r < 0)
		return err_disk(e, r, "make the folder of a sandbox");
	folder_fd = sys_open_beneath(disks_fd, id, O_RDONLY | O_DIRECTORY, 0);
	if (folder_fd < 0)
		return err_sys(e, folder_fd, "open the folder of a sandbox");
	r = open_blank(f, disks_fd, folder_fd, size_mb, &blank_fd, e);
	if (r < 0)
		return r;
	fd = sys_open_beneath(folder_fd, LAYER_0, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return err_disk(e, fd, "make a disk");
	r = copy_sparse(blank_fd, fd);
	if (r < 0)
		return err_disk(e, r, "make a disk of %" PRIu64 " MiB", size_mb);
	*ret_fd = take_fd(&fd);
	return 0;
}
