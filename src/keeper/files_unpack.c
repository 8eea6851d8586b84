/* keeper/files_unpack.c - a stream nobody vouches for, made files again */
#include "keeper/files.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "keeper/files_int.h"
#include "sys/fd.h"

enum { BLOCK = 1 << 20, MODE_BITS = 07777 };

/* A folder or file that is being filled. */
struct open_entry {
	int fd;
	bool is_folder;
	struct files_record rec;
};

struct unpack {
	int from, root;
	uint64_t at;	     /* in the stream: behind the block */
	size_t have, used;   /* of block */
	char *block, *data;  /* BLOCK; FILES_DATA_MAX */
	struct open_entry stack[FILES_DEPTH_MAX + 1];
	unsigned depth;
	char name[FILES_NAME_MAX + 1];
	struct err *e;
};

static int bad(struct unpack *u, const char *what)
{
	return err_set(u->e, ERR_INVALID, "the files of the snapshot are damaged: %s", what);
}

static int broken(struct unpack *u, int negative_errno, const char *doing)
{
	if (negative_errno == -ENOSPC || negative_errno == -ENOMEM || negative_errno == -EDQUOT)
		return err_set(u->e, ERR_LIMIT, "the files of the snapshot don't fit: %s: %s", doing,
			       strerror(-negative_errno));
	return err_sys(u->e, negative_errno, "make the files of the snapshot: %s", doing);
}

static int result(struct unpack *u, int is_ok, const char *doing)
{
	return is_ok < 0 ? broken(u, -errno, doing) : 0;
}

/* ---- reading ---- */

static int get(struct unpack *u, void *to, size_t n)
{
	char *p = to;

	while (n) {
		size_t part = MIN(n, u->have - u->used);

		if (part == 0) {
			ssize_t r = sys_pread(u->from, u->block, BLOCK, u->at);

			if (r <= 0)
				return r < 0 ? broken(u, (int)r, "read") : bad(u, "they are cut off");
			u->at += (uint64_t)r;
			u->have = (size_t)r;
			u->used = 0;
			continue;
		}
		memcpy(p, u->block + u->used, part);
		u->used += part;
		p += part;
		n -= part;
	}
	return 0;
}

/* @n bytes of text into @to, of n + 1. */
static int get_text(struct unpack *u, char *to, size_t n)
{
	int r = get(u, to, n);

	if (r < 0)
		return r;
	to[n] = '\0';
	return strlen(to) == n ? 0 : bad(u, "a name with a zero in it");
}

static struct open_entry *innermost(struct unpack *u)
{
	return u->depth ? &u->stack[u->depth - 1] : NULL;
}

static bool is_component(const char *name)
{
	return *name && !strchr(name, '/') && !str_eq(name, ".") && !str_eq(name, "..");
}

/* The folder a new name goes to. -code: there is none, or it is no name. */
static int parent_of(struct unpack *u, const char *name)
{
	const struct open_entry *in = innermost(u);

	if (!in || !in->is_folder)
		return bad(u, "a name outside of a folder");
	return is_component(name) ? in->fd : bad(u, "a name that is none");
}

/* ---- making ---- */

static int push(struct unpack *u, int fd, bool is_folder, const struct files_record *rec)
{
	u->stack[u->depth++] = (struct open_entry){fd, is_folder, *rec};
	return result(u, fchown(fd, rec->uid, rec->gid), "set an owner");
}

static bool is_root_folder(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(files_roots); i++)
		if (str_eq(name, files_roots[i]))
			return true;
	return false;
}

static int make_folder(struct unpack *u, const struct files_record *rec)
{
	int parent, fd;

	if (u->depth >= FILES_DEPTH_MAX)
		return bad(u, "too many folders within one another");
	if (u->depth == 0) {
		if (!is_root_folder(u->name))
			return bad(u, "a folder that has no place");
		parent = u->root;
	} else {
		parent = parent_of(u, u->name);
		if (parent < 0)
			return parent;
		if (mkdirat(parent, u->name, 0700) < 0)
			return broken(u, -errno, "make a folder");
	}
	fd = sys_open_beneath(parent, u->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	return fd < 0 ? broken(u, fd, "open a folder") : push(u, fd, true, rec);
}

static int make_file(struct unpack *u, const struct files_record *rec)
{
	int parent = parent_of(u, u->name), fd;

	if (parent < 0)
		return parent;
	if (rec->size > INT64_MAX)
		return bad(u, "a file that is too long");
	fd = sys_open_beneath(parent, u->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	if (fd < 0)
		return broken(u, fd, "make a file");
	if (push(u, fd, false, rec) < 0)
		return -u->e->code;
	return result(u, ftruncate(fd, (off_t)rec->size), "set a file's length");
}

static int fill_file(struct unpack *u, const struct files_record *rec)
{
	const struct open_entry *in = innermost(u);
	int r;

	if (!in || in->is_folder)
		return bad(u, "data outside of a file");
	if (rec->size > FILES_DATA_MAX || rec->at > in->rec.size || rec->size > in->rec.size - rec->at)
		return bad(u, "data beyond the end of a file");
	r = get(u, u->data, (size_t)rec->size);
	if (r < 0)
		return r;
	r = sys_pwrite_full(in->fd, u->data, (size_t)rec->size, rec->at);
	return r < 0 ? broken(u, r, "write a file") : 0;
}

static int set_xattr(struct unpack *u, const struct files_record *rec)
{
	const struct open_entry *in = innermost(u);
	int r;

	if (!in || rec->size > FILES_VALUE_MAX)
		return bad(u, "an attribute of nothing, or too long");
	if (!files_keeps_xattr(u->name, in->is_folder))
		return bad(u, "an attribute that nobody may bring");
	r = get(u, u->data, (size_t)rec->size);
	return r < 0 ? r : result(u, fsetxattr(in->fd, u->name, u->data, (size_t)rec->size, 0), "set an attribute");
}

static void times_of(const struct files_record *rec, struct timespec ret[2])
{
	ret[0] = ret[1] = (struct timespec){(time_t)rec->mtime_s, (long)rec->mtime_ns};
}

static int end_entry(struct unpack *u, const struct files_record *rec)
{
	const struct open_entry *in = innermost(u);
	struct timespec times[2];
	int r;

	(void)rec;
	if (!in)
		return bad(u, "an end of nothing");
	times_of(&in->rec, times);
	r = result(u, fchmod(in->fd, in->rec.mode & MODE_BITS), "set a mode");
	if (r == 0)
		r = result(u, futimens(in->fd, times), "set a time");
	(void)sys_close(in->fd);
	u->depth--;
	return r;
}

/* What has no descriptor: by name, and nobody else is here to exchange it. */
static int dress(struct unpack *u, int parent, const struct files_record *rec)
{
	struct timespec times[2];

	times_of(rec, times);
	if (fchownat(parent, u->name, rec->uid, rec->gid, AT_SYMLINK_NOFOLLOW) < 0)
		return broken(u, -errno, "set an owner");
	return result(u, utimensat(parent, u->name, times, AT_SYMLINK_NOFOLLOW), "set a time");
}

static int make_symlink(struct unpack *u, const struct files_record *rec)
{
	int parent = parent_of(u, u->name), r;

	if (parent < 0)
		return parent;
	if (rec->size == 0 || rec->size > FILES_PATH_MAX)
		return bad(u, "a link whose target is no path");
	r = get_text(u, u->data, (size_t)rec->size);
	if (r == 0)
		r = result(u, symlinkat(u->data, parent, u->name), "make a symbolic link");
	return r < 0 ? r : dress(u, parent, rec);
}

/* The folder of a path from the root, by components; *ret_name: its last one. */
static int open_place(struct unpack *u, char *path, char **ret_name)
{
	char *slash = strrchr(path, '/');
	int fd;

	if (!slash || slash == path || !is_component(slash + 1))
		return bad(u, "a link to what is no path");
	*slash = '\0';
	*ret_name = slash + 1;
	fd = sys_open_beneath(u->root, path, O_PATH | O_DIRECTORY, 0);
	return fd < 0 ? broken(u, fd, "find what a link is another name of") : fd;
}

static int make_link(struct unpack *u, const struct files_record *rec)
{
	int parent = parent_of(u, u->name), r;
	AUTO_CLOSE int from = -1;
	char *name = NULL;

	if (parent < 0)
		return parent;
	if (rec->size == 0 || rec->size > FILES_PATH_MAX)
		return bad(u, "a link to what is no path");
	r = get_text(u, u->data, (size_t)rec->size);
	if (r < 0)
		return r;
	r = from = open_place(u, u->data, &name);
	if (r < 0)
		return r;
	r = sys_link(from, name, parent, u->name);
	return r < 0 ? broken(u, r, "make a hard link") : 0;
}

static int make_node(struct unpack *u, const struct files_record *rec, mode_t type)
{
	int parent = parent_of(u, u->name), r;

	if (parent < 0)
		return parent;
	r = result(u, mknodat(parent, u->name, type, 0), "make a special file");
	if (r == 0 && type != S_IFCHR)
		r = result(u, fchmodat(parent, u->name, rec->mode & MODE_BITS, 0), "set a mode");
	return r < 0 || type == S_IFCHR ? r : dress(u, parent, rec);
}

static int make_fifo(struct unpack *u, const struct files_record *rec)
{
	return make_node(u, rec, S_IFIFO);
}

static int make_socket(struct unpack *u, const struct files_record *rec)
{
	return make_node(u, rec, S_IFSOCK);
}

/* Device 0:0, which no kernel has: the overlay's mark of a deleted name. */
static int make_mark(struct unpack *u, const struct files_record *rec)
{
	return make_node(u, rec, S_IFCHR);
}

/* ---- the stream ---- */

static const struct {
	char type;
	bool has_name;
	int (*make)(struct unpack *u, const struct files_record *rec);
} kinds[] = {
	{'d', true, make_folder}, {'f', true, make_file},    {'b', false, fill_file},
	{'x', true, set_xattr},	  {'e', false, end_entry},   {'l', true, make_symlink},
	{'h', true, make_link},	  {'p', true, make_fifo},    {'s', true, make_socket},
	{'w', true, make_mark},
};

static int unpack_one(struct unpack *u, const struct files_record *rec)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		int r;

		if (rec->type != (uint32_t)kinds[i].type)
			continue;
		if (rec->name_len > FILES_NAME_MAX || (rec->name_len > 0) != kinds[i].has_name)
			return bad(u, "a name of no length");
		r = get_text(u, u->name, rec->name_len);
		return r < 0 ? r : kinds[i].make(u, rec);
	}
	return bad(u, "a record of no kind");
}

static int unpack_all(struct unpack *u)
{
	char magic[FILES_MAGIC_BYTES];
	struct files_record rec;
	int r = get(u, magic, sizeof(magic));

	if (r == 0 && memcmp(magic, FILES_MAGIC, sizeof(magic)) != 0)
		r = bad(u, "they are of no format known here");
	while (r == 0) {
		r = get(u, &rec, sizeof(rec));
		if (r == 0 && rec.type == 'z')
			return u->depth ? bad(u, "they end in the middle") : 0;
		if (r == 0)
			r = unpack_one(u, &rec);
	}
	return r;
}

int files_check(int fd, struct err *e)
{
	if (!sys_is_sealed(fd, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK))
		return err_set(e, ERR_INVALID, "the files of a snapshot must come as a memory file that is sealed "
			       "against writing, growing and shrinking");
	return 0;
}

int files_unpack(int from_fd, int root_fd, struct err *e)
{
	struct unpack *u = mem_new(sizeof(*u));
	struct err none = ERR_INIT;
	int r;

	*u = (struct unpack){.from = from_fd, .root = root_fd, .e = e ? e : &none};
	u->block = mem_new(BLOCK);
	u->data = mem_new(FILES_DATA_MAX);
	r = unpack_all(u);
	while (u->depth)
		(void)sys_close(u->stack[--u->depth].fd);
	free(u->block);
	free(u->data);
	free(u);
	return r;
}
