/*
 * snap/layers.c - chains of disk layers
 *
 * A chain is made in "<id>.new" and renamed; for a rollback the two folders are
 * exchanged, and what is then under ".new" is the old disk.
 */
#include "snap/layers.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "snap/dir_int.h"
#include "snap/layers_int.h"
#include "snap/qcow2.h"
#include "snap/set.h"
#include "sys/fd.h"

enum {
	FILE_NAME = 32,
	SEALED = 0400,	     /* mode of a layer that nobody writes to any more: LAYERS-3 */
	COPY_BYTES = 1 << 20, /* at a time */
};

#define NEW ".new"
#define FLAT "flat" /* the top layer, from when it replaces those between to when they are gone */

static void layer_name(unsigned n, const char *suffix, char ret[FILE_NAME])
{
	(void)snprintf(ret, FILE_NAME, "layer-%u%s", n, suffix);
}

void layers_close(struct layers *l)
{
	for (unsigned i = 0; i < LIMIT_DISK_LAYERS; i++)
		l->fds[i] = sys_close(l->fds[i]);
	l->n = 0;
}

static int too_long(struct err *e)
{
	return err_set(e, ERR_LIMIT, "the disk has %d layers, as many as may lie on one another: "
		       "each fork or snapshot of a running machine adds one; start a sandbox from its "
		       "template again", LIMIT_DISK_LAYERS);
}

static int open_layer(int folder_fd, unsigned n, int flags)
{
	char name[FILE_NAME];

	layer_name(n, "", name);
	return sys_open_beneath(folder_fd, name, flags, 0);
}

static bool is_sealed(const struct stat *st)
{
	return S_ISREG(st->st_mode) && (st->st_mode & 07777) == SEALED;
}

/* Once more, for writing. LAYERS-3: not if somebody else has it too, or might. */
static int open_last(int folder_fd, struct layers *l, struct err *e)
{
	struct stat st;
	int fd;

	if (fstat(l->fds[l->n - 1], &st) < 0)
		return err_sys(e, -errno, "look at the last disk layer");
	if (st.st_nlink > 1 || is_sealed(&st))
		return err_set(e, ERR_CONFLICT, "the last disk layer belongs to a snapshot too");
	fd = open_layer(folder_fd, l->n - 1, O_RDWR);
	if (fd < 0)
		return err_sys(e, fd, "open the last disk layer");
	(void)sys_close(l->fds[l->n - 1]);
	l->fds[l->n - 1] = fd;
	return 0;
}

/* Open what is there for reading, the last one for writing. */
static int open_chain(int folder_fd, struct layers *l, struct err *e)
{
	int fd;

	for (; l->n < LIMIT_DISK_LAYERS; l->n++) {
		fd = open_layer(folder_fd, l->n, O_RDONLY);
		if (fd == -ENOENT)
			break;
		if (fd < 0)
			return err_sys(e, fd, "open disk layer %u", l->n);
		l->fds[l->n] = fd;
	}
	if (!l->n)
		return err_set(e, ERR_NOT_FOUND, "the sandbox has no disk");
	return open_last(folder_fd, l, e);
}

static int finish_flat(int folder_fd, struct err *e)
{
	struct stat st;
	int r = 0;

	if (fstatat(folder_fd, FLAT, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : err_sys(e, -errno, "look at the disk");
	for (unsigned i = 1; r == 0 && i < LIMIT_DISK_LAYERS; i++) {
		char name[FILE_NAME];

		layer_name(i, "", name);
		r = sys_unlink(folder_fd, name);
	}
	if (r == 0)
		r = sys_rename(folder_fd, FLAT, folder_fd, "layer-1", RENAME_NOREPLACE);
	return r < 0 ? err_sys(e, r, "let go of merged disk layers") : 0;
}

int layers_flatten(int state_fd, const struct id *id, unsigned n, struct err *e)
{
	char name[DIR_NAME], top[FILE_NAME];
	AUTO_CLOSE int folder = -1;
	struct stat st;
	int r;

	if (n <= 2)
		return 0;
	dir_name(id, "", name);
	r = dir_open(state_fd, SANDBOXES_FOLDER, name, &folder, e);
	if (r == 0)
		r = finish_flat(folder, e);
	if (r < 0)
		return r;
	layer_name(n - 1, "", top);
	r = sys_rename(folder, top, folder, FLAT, RENAME_NOREPLACE);
	if (r == -ENOENT && fstatat(folder, "layer-1", &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	    fstatat(folder, "layer-2", &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0; /* a death came after it was done and before it was written down */
	return r < 0 ? err_sys(e, r, "merge disk layers") : finish_flat(folder, e);
}

int layers_open(int state_fd, const struct id *id, struct layers *ret, struct err *e)
{
	struct layers l = LAYERS_INIT;
	AUTO_CLOSE int folder = -1;
	char name[DIR_NAME];
	int r;

	dir_name(id, "", name);
	r = dir_open(state_fd, SANDBOXES_FOLDER, name, &folder, e);
	if (r == 0)
		r = finish_flat(folder, e);
	if (r == 0)
		r = open_chain(folder, &l, e);
	if (r < 0) {
		layers_close(&l);
		return r;
	}
	*ret = l;
	return 0;
}

/* Make "layer-n.new" an empty overlay and call it "layer-n". What a failure leaves is not called so. */
static int make_overlay(int folder_fd, unsigned n, uint64_t virtual_bytes, int *ret_fd, struct err *e)
{
	char name[FILE_NAME], fresh[FILE_NAME];
	AUTO_CLOSE int fd = -1;
	int r;

	layer_name(n, "", name);
	layer_name(n, NEW, fresh);
	r = sys_unlink(folder_fd, fresh); /* of a predecessor that was killed */
	if (r == 0)
		r = fd = sys_open_beneath(folder_fd, fresh, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (r < 0)
		return err_disk(e, r, "make disk layer %u", n);
	r = qcow2_make(fd, virtual_bytes, e);
	if (r == 0) {
		r = sys_rename(folder_fd, fresh, folder_fd, name, RENAME_NOREPLACE);
		if (r < 0)
			r = err_disk(e, r, "make disk layer %u", n);
	}
	if (r < 0) {
		(void)sys_unlink(folder_fd, fresh);
		return r;
	}
	*ret_fd = take_fd(&fd);
	return 0;
}

int layers_add(int state_fd, const struct id *id, unsigned n, uint64_t virtual_bytes, int *ret_fd,
	       struct err *e)
{
	AUTO_CLOSE int folder = -1;
	char name[DIR_NAME];
	int r;

	if (n == 0)
		return err_set(e, ERR_INVALID, "the lowest disk layer is no overlay");
	if (n >= LIMIT_DISK_LAYERS)
		return too_long(e);
	dir_name(id, "", name);
	r = dir_open(state_fd, SANDBOXES_FOLDER, name, &folder, e);
	return r < 0 ? r : make_overlay(folder, n, virtual_bytes, ret_fd, e);
}

int layers_drop(int state_fd, const struct id *id, unsigned n, struct err *e)
{
	char path[DIR_PATH + FILE_NAME], dir[DIR_NAME];
	int r;

	if (n == 0)
		return err_set(e, ERR_INVALID, "the lowest disk layer stays as long as its sandbox");
	dir_name(id, "", dir);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s/layer-%u", dir, n);
	r = sys_unlink(state_fd, path);
	return r < 0 ? err_sys(e, r, "remove disk layer %u", n) : 0;
}

/* ---- sharing: LAYERS-3 ---- */

static int missing(unsigned n, struct err *e)
{
	return err_set(e, ERR_NOT_FOUND, "disk layer %u is missing", n);
}

/* Data from @at on, as it is: whoever writes there meanwhile spoils their own copy. */
static int copy_extent(int from, int to, char *buffer, uint64_t at, uint64_t end)
{
	while (at < end) {
		ssize_t n = sys_pread(from, buffer, (size_t)MIN(end - at, (uint64_t)COPY_BYTES), at);
		int r = n <= 0 ? (int)n : sys_pwrite_full(to, buffer, (size_t)n, at);

		if (r < 0 || n == 0) /* cut meanwhile */
			return r;
		at += (uint64_t)n;
	}
	return 0;
}

static int copy_extents(int from, int to, char *buffer, uint64_t size)
{
	int r = sys_truncate(to, size);

	for (uint64_t at = 0; r == 0 && at < size;) {
		int64_t data = sys_seek(from, at, SEEK_DATA), hole;

		if (data == -ENXIO || data >= (int64_t)size)
			break;
		hole = data < 0 ? data : sys_seek(from, (uint64_t)data, SEEK_HOLE);
		if (hole == -ENXIO) /* cut meanwhile */
			break;
		if (hole < 0)
			return (int)hole;
		r = copy_extent(from, to, buffer, (uint64_t)data, MIN((uint64_t)hole, size));
		at = (uint64_t)hole;
	}
	return r;
}

static int copy_content(int from, int to, uint64_t size, struct err *e)
{
	AUTO_FREE char *buffer = NULL;
	int r = sys_share_extents(from, to);

	if (r == -EOPNOTSUPP) {
		buffer = mem_try(COPY_BYTES);
		if (!buffer)
			return err_set(e, ERR_LIMIT, "no memory to copy a disk layer with");
		r = copy_extents(from, to, buffer, size);
	}
	return r < 0 ? err_disk(e, r, "copy a disk layer") : 0;
}

/* A sealed copy of layer @n under the name @to. What a failure leaves has that name too. */
static int copy_layer(int from_fd, unsigned n, int to_fd, const char *to, struct err *e)
{
	AUTO_CLOSE int in = open_layer(from_fd, n, O_RDONLY), out = -1;
	struct stat st;
	int r;

	if (in < 0)
		return in == -ENOENT ? missing(n, e) : err_sys(e, in, "open disk layer %u", n);
	if (fstat(in, &st) < 0)
		return err_sys(e, -errno, "look at disk layer %u", n);
	r = out = sys_open_beneath(to_fd, to, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (r < 0)
		return err_disk(e, r, "make a copy of disk layer %u", n);
	r = copy_content(in, out, (uint64_t)st.st_size, e);
	if (r < 0)
		return r;
	r = sys_chmod(out, SEALED);
	return r < 0 ? err_sys(e, r, "seal a copy of disk layer %u", n) : 0;
}

static int look_at(int folder_fd, unsigned n, struct stat *ret, struct err *e)
{
	char name[FILE_NAME];

	layer_name(n, "", name);
	if (fstatat(folder_fd, name, ret, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? missing(n, e) : err_sys(e, -errno, "look at disk layer %u", n);
	return 0;
}

static int share_layer(int from_fd, int to_fd, unsigned n, struct err *e)
{
	char name[FILE_NAME];
	struct stat st;
	int r = look_at(from_fd, n, &st, e);

	if (r < 0)
		return r;
	layer_name(n, "", name);
	r = is_sealed(&st) ? sys_link(from_fd, name, to_fd, name) : -EMLINK;
	if (r == -EMLINK) /* or as many have it as may */
		return copy_layer(from_fd, n, to_fd, name, e);
	return r < 0 ? err_disk(e, r, "share disk layer %u", n) : 0;
}

int layers_share(int from_fd, int to_fd, unsigned n, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < n && r == 0; i++)
		r = share_layer(from_fd, to_fd, i, e);
	return r;
}

static int seal_layer(int folder_fd, unsigned n, struct err *e)
{
	char name[FILE_NAME], fresh[FILE_NAME];
	struct stat st;
	int r = look_at(folder_fd, n, &st, e);

	if (r < 0 || is_sealed(&st))
		return r;
	layer_name(n, "", name);
	layer_name(n, NEW, fresh);
	r = sys_unlink(folder_fd, fresh); /* of a predecessor that was killed */
	if (r < 0)
		return err_disk(e, r, "make a copy of disk layer %u", n);
	r = copy_layer(folder_fd, n, folder_fd, fresh, e);
	if (r == 0) {
		r = sys_rename(folder_fd, fresh, folder_fd, name, 0);
		if (r < 0)
			r = err_disk(e, r, "put a copy of disk layer %u in its place", n);
	}
	if (r < 0)
		(void)sys_unlink(folder_fd, fresh);
	return r;
}

int layers_seal(int state_fd, const struct id *id, unsigned n, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	char name[DIR_NAME];
	int r;

	dir_name(id, "", name);
	r = dir_open(state_fd, SANDBOXES_FOLDER, name, &folder, e);
	for (unsigned i = 0; i < n && r == 0; i++)
		r = seal_layer(folder, i, e);
	return r;
}

int layers_link_base(int from_fd, const char *name, int to_fd)
{
	int r = sys_link(from_fd, name, to_fd, LAYERS_BASE);

	return r == -EMLINK ? -ENOENT : r;
}

/* What else a sandbox has from where its disk is from. A set without a base is one itself. */
static int link_memory(int from_fd, int to_fd, struct err *e)
{
	static const char *const names[] = {LAYERS_BASE, SNAP_MEMORY};
	int r = -ENOENT;

	for (size_t i = 0; i < ARRAY_LEN(names) && r == -ENOENT; i++)
		r = layers_link_base(from_fd, names[i], to_fd);
	return r < 0 && r != -ENOENT ? err_disk(e, r, "share the memory that a machine begins with") : 0;
}

int layers_sync(int folder_fd, unsigned n, struct err *e)
{
	for (unsigned i = 0; i < n; i++) {
		AUTO_CLOSE int fd = open_layer(folder_fd, i, O_RDONLY);
		int r = fd < 0 ? fd : sys_fsync(fd);

		if (r < 0)
			return err_disk(e, r, "sync disk layer %u", i);
	}
	return 0;
}

/* Fill the new folder: n shared layers, one of its own. */
static int fill(int from_fd, int to_fd, unsigned n, uint64_t virtual_bytes, struct layers *l,
		struct err *e)
{
	int r = layers_share(from_fd, to_fd, n, e);

	if (r == 0)
		r = link_memory(from_fd, to_fd, e);
	if (r == 0)
		r = make_overlay(to_fd, n, virtual_bytes, &l->fds[n], e);
	for (; r == 0 && l->n < n; l->n++) {
		l->fds[l->n] = open_layer(to_fd, l->n, O_RDONLY);
		if (l->fds[l->n] < 0)
			r = err_sys(e, l->fds[l->n], "open disk layer %u", l->n);
	}
	if (r == 0)
		l->n = n + 1;
	return r;
}

/* The one way both are made: @flags says whether the folder of @to appears or is exchanged. */
static int build(int state_fd, const char *from_dir, unsigned n, const struct id *to, unsigned flags,
		 uint64_t virtual_bytes, struct layers *ret, struct err *e)
{
	AUTO_CLOSE int from = -1, parent = -1, folder = -1;
	char name[DIR_NAME], fresh[DIR_NAME];
	struct layers l = LAYERS_INIT;
	int r;

	dir_name(to, "", name);
	dir_name(to, NEW, fresh);
	r = dir_open(state_fd, from_dir, "", &from, e);
	if (r == 0)
		r = dir_make(state_fd, SANDBOXES_FOLDER, fresh, &parent, &folder, e);
	if (r < 0)
		return r;
	r = fill(from, folder, n, virtual_bytes, &l, e);
	if (r == 0) {
		r = sys_rename(parent, fresh, parent, name, flags);
		if (r < 0)
			r = err_disk(e, r, "put a disk in its place");
	}
	if (r < 0) {
		layers_close(&l);
		(void)sys_remove_tree(parent, fresh);
		return r;
	}
	if (flags == RENAME_EXCHANGE)
		(void)sys_remove_tree(parent, fresh); /* the old disk; else the next sweep has it */
	*ret = l;
	return 0;
}

static int check_link(const char *from_dir, unsigned n, struct err *e)
{
	if (n == 0)
		return err_set(e, ERR_INVALID, "there is no disk without a layer");
	if (n >= LIMIT_DISK_LAYERS)
		return too_long(e);
	return dir_path_ok(from_dir, e);
}

int layers_link(int state_fd, const char *from_dir, unsigned n, const struct id *to,
		uint64_t virtual_bytes, struct layers *ret, struct err *e)
{
	int r = check_link(from_dir, n, e);

	return r < 0 ? r : build(state_fd, from_dir, n, to, RENAME_NOREPLACE, virtual_bytes, ret, e);
}

int layers_rollback(int state_fd, const struct id *id, const struct id *set, unsigned n,
		    uint64_t virtual_bytes, struct layers *ret, struct err *e)
{
	char from[DIR_PATH], name[DIR_NAME];
	int r;

	dir_name(set, "", name);
	(void)snprintf(from, sizeof(from), SNAPSHOTS_FOLDER "/%s", name);
	r = check_link(from, n, e);
	return r < 0 ? r : build(state_fd, from, n, id, RENAME_EXCHANGE, virtual_bytes, ret, e);
}

int layers_remove(int state_fd, const struct id *id, struct err *e)
{
	static const char *const suffixes[] = {NEW, ""};

	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++) {
		char path[DIR_PATH], name[DIR_NAME];
		int r;

		dir_name(id, suffixes[i], name);
		(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s", name);
		r = sys_remove_tree(state_fd, path);
		if (r < 0)
			return err_sys(e, r, "remove the disk of sandbox %s", name);
	}
	return 0;
}

int layers_sweep(int state_fd, struct err *e)
{
	return dir_sweep(state_fd, SANDBOXES_FOLDER, e);
}
