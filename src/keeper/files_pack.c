/* keeper/files_pack.c - a walk without recursion, and what it writes down */
#include "keeper/files.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "keeper/files_int.h"
#include "sys/fd.h"

enum {
	BLOCK = 1 << 20,
	PAGE = 4096,
	PATH_ROOM = (FILES_DEPTH_MAX + 1) * (FILES_NAME_MAX + 1),
	NAME_SHOWN = 80, /* bytes of a name in a message */
};

/* A file with several names, under the first one met. */
struct link_seen {
	struct map_node node;
	struct link_seen *next;
	uint64_t inode;
	size_t n;
	char path[];
};

struct folder {
	DIR *dir;
	size_t path_len; /* of its parent */
};

struct pack {
	int to;
	uint64_t at, max;
	size_t used; /* of block */
	char *block; /* BLOCK, goes to the file when it is full */
	char *data;  /* FILES_DATA_MAX */
	char *names; /* FILES_VALUE_MAX: of attributes */
	struct folder folders[FILES_DEPTH_MAX];
	unsigned depth;
	char path[PATH_ROOM]; /* of the innermost folder */
	size_t path_len;
	struct map links;
	struct link_seen *seen;
	size_t links_bytes;
	struct err *e;
};

uint64_t files_max_bytes(uint64_t disk_bytes)
{
	return disk_bytes + disk_bytes / 2 + MIB;
}

bool files_keeps_xattr(const char *name, bool is_folder)
{
	static const char *const others[] = {"security.capability", "system.posix_acl_access",
					     "system.posix_acl_default"};

	if (str_starts(name, "user.overlay.")) /* those of the sandbox's own are one "overlay." deeper */
		return str_starts(name, "user.overlay.overlay.") ||
		       (is_folder && str_eq(name, "user.overlay.opaque"));
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		if (str_eq(name, others[i]))
			return true;
	return str_starts(name, "user.");
}

/* ---- what went wrong, and where ---- */

static int refuse(struct pack *p, int code, const char *name, const char *what)
{
	struct str shown = STR_INIT(4 * NAME_SHOWN + 1); /* an escaped byte takes up to four */

	str_add_escaped(&shown, name, strnlen(name, NAME_SHOWN));
	(void)err_set(p->e, code, "the sandbox's files can't be copied: %s: %s", str_text(&shown), what);
	str_deinit(&shown);
	return -code;
}

static int broken(struct pack *p, int negative_errno, const char *name)
{
	return refuse(p, negative_errno == -ENOSPC || negative_errno == -ENOMEM ? ERR_LIMIT : ERR_INTERNAL, name,
		      strerror(-negative_errno));
}

/* ---- writing ---- */

static int flush(struct pack *p)
{
	int r = sys_pwrite_full(p->to, p->block, p->used, p->at);

	if (r < 0)
		return err_sys(p->e, r, "write down the sandbox's files");
	p->at += p->used;
	p->used = 0;
	return 0;
}

static int put(struct pack *p, const void *bytes, size_t n)
{
	const char *from = bytes;
	int r = 0;

	if (p->at + p->used + n > p->max)
		return err_set(p->e, ERR_LIMIT, "the sandbox's files take more than %llu MiB to write down",
			       (unsigned long long)(p->max / MIB));
	while (n && r == 0) {
		size_t part = MIN(n, (size_t)BLOCK - p->used);

		memcpy(p->block + p->used, from, part);
		p->used += part;
		from += part;
		n -= part;
		if (p->used == BLOCK)
			r = flush(p);
	}
	return r;
}

static int put_record(struct pack *p, struct files_record rec, const char *name)
{
	int r;

	rec.name_len = name ? (uint32_t)strlen(name) : 0;
	r = put(p, &rec, sizeof(rec));
	return r < 0 || !name ? r : put(p, name, rec.name_len);
}

static struct files_record record_of(char type, const struct stat *st)
{
	return (struct files_record){
		.type = (uint32_t)type,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
	};
}

static int put_simple(struct pack *p, char type, const struct stat *st, const char *name)
{
	return put_record(p, record_of(type, st), name);
}

static int put_content(struct pack *p, char type, const struct stat *st, const char *name, const char *bytes,
		       size_t n)
{
	struct files_record rec = record_of(type, st);
	int r;

	rec.size = n;
	r = put_record(p, rec, name);
	return r < 0 ? r : put(p, bytes, n);
}

static int put_end(struct pack *p, char type)
{
	return put_record(p, (struct files_record){.type = (uint32_t)type}, NULL);
}

/* ---- attributes ---- */

static int pack_xattr(struct pack *p, int fd, const char *xattr, const char *name)
{
	struct files_record rec = {.type = 'x'};
	ssize_t n = fgetxattr(fd, xattr, p->data, FILES_VALUE_MAX);
	int r;

	if (n < 0)
		return broken(p, -errno, name);
	rec.size = (uint64_t)n;
	r = put_record(p, rec, xattr);
	return r < 0 ? r : put(p, p->data, (size_t)n);
}

static int pack_xattrs(struct pack *p, int fd, bool is_folder, const char *name)
{
	ssize_t n = flistxattr(fd, p->names, FILES_VALUE_MAX);
	int r = 0;

	if (n < 0)
		return errno == ENOTSUP ? 0 : broken(p, -errno, name);
	for (const char *x = p->names; x < p->names + n && r == 0; x += strlen(x) + 1)
		if (files_keeps_xattr(x, is_folder))
			r = pack_xattr(p, fd, x, name);
	return r;
}

/* ---- files ---- */

static int pack_extent(struct pack *p, int fd, uint64_t at, uint64_t end, const char *name)
{
	while (at < end) {
		struct files_record rec = {.type = 'b', .at = at};
		ssize_t n = sys_pread(fd, p->data, (size_t)MIN(end - at, (uint64_t)FILES_DATA_MAX), at);
		int r;

		if (n <= 0)
			return n < 0 ? broken(p, (int)n, name) : refuse(p, ERR_CONFLICT, name, "became shorter");
		rec.size = (uint64_t)n;
		r = put_record(p, rec, NULL);
		if (r == 0)
			r = put(p, p->data, (size_t)n);
		if (r < 0)
			return r;
		at += (uint64_t)n;
	}
	return 0;
}

static int pack_data(struct pack *p, int fd, uint64_t size, const char *name)
{
	for (uint64_t at = 0; at < size;) {
		int64_t data = sys_seek(fd, at, SEEK_DATA), hole;
		int r;

		if (data < 0)
			return data == -ENXIO ? 0 : broken(p, (int)data, name);
		hole = sys_seek(fd, (uint64_t)data, SEEK_HOLE);
		if (hole < 0)
			return broken(p, (int)hole, name);
		r = pack_extent(p, fd, (uint64_t)data, MIN((uint64_t)hole, size), name);
		if (r < 0)
			return r;
		at = (uint64_t)hole;
	}
	return 0;
}

static int pack_file(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	AUTO_CLOSE int fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct files_record rec = record_of('f', st);
	int r;

	if (fd < 0)
		return broken(p, fd, name);
	rec.size = (uint64_t)st->st_size;
	r = put_record(p, rec, name);
	if (r == 0)
		r = pack_data(p, fd, rec.size, name);
	if (r == 0)
		r = pack_xattrs(p, fd, false, name);
	return r < 0 ? r : put_end(p, 'e');
}

static int pack_symlink(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	ssize_t n = readlinkat(dir_fd, name, p->data, FILES_PATH_MAX + 1);

	if (n < 0 || n > FILES_PATH_MAX)
		return broken(p, n < 0 ? -errno : -ENAMETOOLONG, name);
	return put_content(p, 'l', st, name, p->data, (size_t)n);
}

static int pack_fifo(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	(void)dir_fd;
	return put_simple(p, 'p', st, name);
}

static int pack_socket(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	(void)dir_fd;
	return put_simple(p, 's', st, name);
}

/* The overlay's mark of a deleted name. No user namespace can make another device. */
static int pack_device(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	(void)dir_fd;
	return st->st_rdev ? refuse(p, ERR_INVALID, name, "is a device") : put_simple(p, 'w', st, name);
}

static int enter_folder(struct pack *p, int dir_fd, const char *name, const struct stat *st)
{
	AUTO_CLOSE int fd = -1;
	DIR *dir;
	int r;

	if (p->depth == FILES_DEPTH_MAX)
		return refuse(p, ERR_LIMIT, name, "more folders within one another than can be copied");
	r = put_simple(p, 'd', st, name);
	if (r < 0)
		return r;
	fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return broken(p, fd, name);
	dir = fdopendir(fd);
	if (!dir)
		return broken(p, -errno, name);
	(void)take_fd(&fd); /* the DIR's */
	p->folders[p->depth++] = (struct folder){dir, p->path_len};
	if (p->path_len)
		p->path[p->path_len++] = '/';
	memcpy(p->path + p->path_len, name, strlen(name));
	p->path_len += strlen(name);
	return 0;
}

static int leave_folder(struct pack *p)
{
	struct folder *f = &p->folders[p->depth - 1];
	int r = pack_xattrs(p, dirfd(f->dir), true, "a folder");

	if (r == 0)
		r = put_end(p, 'e');
	(void)closedir(f->dir);
	p->path_len = f->path_len;
	p->depth--;
	return r;
}

/* ---- hard links ---- */

static int remember(struct pack *p, const char *name, uint64_t inode)
{
	size_t n = p->path_len + 1 + strlen(name);
	struct link_seen *s;

	if (n > FILES_PATH_MAX)
		return refuse(p, ERR_LIMIT, name, "a hard-linked file whose path is too long");
	if (p->links_bytes + sizeof(*s) + n > FILES_LINKS_MAX)
		return refuse(p, ERR_LIMIT, name, "more hard-linked files than can be kept track of");
	s = mem_new(sizeof(*s) + n);
	s->inode = inode;
	s->n = n;
	memcpy(s->path, p->path, p->path_len);
	s->path[p->path_len] = '/';
	memcpy(s->path + p->path_len + 1, name, n - p->path_len - 1);
	s->next = p->seen;
	p->seen = s;
	p->links_bytes += sizeof(*s) + n;
	map_add(&p->links, &s->node, &s->inode, sizeof(s->inode));
	return 0;
}

/* 1: another name of what is written down already. */
static int pack_link(struct pack *p, const char *name, const struct stat *st)
{
	uint64_t inode = st->st_ino;
	struct map_node *node;
	const struct link_seen *s;
	int r;

	if (st->st_nlink < 2 || S_ISDIR(st->st_mode) || S_ISCHR(st->st_mode)) /* the overlay links its marks */
		return 0;
	node = map_find(&p->links, &inode, sizeof(inode));
	if (!node)
		return remember(p, name, inode);
	s = CONTAINER_OF(node, struct link_seen, node);
	r = put_content(p, 'h', st, name, s->path, s->n);
	return r < 0 ? r : 1;
}

/* ---- the walk ---- */

static const struct {
	mode_t type;
	int (*pack)(struct pack *p, int dir_fd, const char *name, const struct stat *st);
} kinds[] = {
	{S_IFREG, pack_file}, {S_IFDIR, enter_folder}, {S_IFLNK, pack_symlink},
	{S_IFIFO, pack_fifo}, {S_IFSOCK, pack_socket}, {S_IFCHR, pack_device},
};

static int pack_entry(struct pack *p, int dir_fd, const char *name)
{
	struct stat st;
	int r;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return broken(p, -errno, name);
	r = pack_link(p, name, &st);
	if (r)
		return r < 0 ? r : 0;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if ((st.st_mode & S_IFMT) == kinds[i].type)
			return kinds[i].pack(p, dir_fd, name, &st);
	return refuse(p, ERR_INVALID, name, "is a device");
}

/* One entry of the innermost folder, or its end. */
static int step(struct pack *p)
{
	DIR *dir = p->folders[p->depth - 1].dir;
	const struct dirent *ent;

	errno = 0;
	ent = readdir(dir);
	if (!ent)
		return errno ? broken(p, -errno, "a folder") : leave_folder(p);
	if (str_eq(ent->d_name, ".") || str_eq(ent->d_name, ".."))
		return 0;
	return pack_entry(p, dirfd(dir), ent->d_name);
}

static int finish(struct pack *p)
{
	int r = put_end(p, 'z');

	if (r == 0)
		r = flush(p);
	if (r == 0 && ftruncate(p->to, (off_t)((p->at + PAGE - 1) / PAGE * PAGE)) < 0)
		r = err_sys(p->e, -errno, "write down the sandbox's files");
	return r;
}

static void pack_deinit(struct pack *p)
{
	while (p->depth)
		(void)closedir(p->folders[--p->depth].dir);
	while (p->seen) {
		struct link_seen *s = p->seen;

		p->seen = s->next;
		free(s);
	}
	map_deinit(&p->links);
	free(p->block);
	free(p->data);
	free(p->names);
	free(p);
}

int files_pack(int root_fd, int to_fd, uint64_t max_bytes, struct err *e)
{
	struct pack *p = mem_new(sizeof(*p)); /* too large for a stack */
	int r;

	*p = (struct pack){.to = to_fd, .max = max_bytes, .links = MAP_INIT((uintptr_t)p), .e = e};
	p->block = mem_new(BLOCK);
	p->data = mem_new(FILES_DATA_MAX);
	p->names = mem_new(FILES_VALUE_MAX);
	r = put(p, FILES_MAGIC, FILES_MAGIC_BYTES);
	for (size_t i = 0; i < ARRAY_LEN(files_roots) && r == 0; i++) {
		r = pack_entry(p, root_fd, files_roots[i]);
		while (r == 0 && p->depth)
			r = step(p);
	}
	if (r == 0)
		r = finish(p);
	pack_deinit(p);
	return r;
}
