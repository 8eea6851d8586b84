/* client/tree.c - whole directories, in and out of a sandbox */
#include "client/tree.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/conn.h"
#include "client/file.h"
#include "client/host.h"
#include "sys/fd.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { PERMISSIONS = 0777 };

struct tree {
	struct conn *conn;
	const char *sandbox;
	struct span user;
	const struct tree_events *ev;
	struct tree_stats *stats;
};

static void skip(struct tree *t, struct span name, const char *why)
{
	t->stats->skipped++;
	if (t->ev && t->ev->skipped)
		t->ev->skipped(t->ev->arg, name, why);
}

static void moved(struct tree *t, size_t n)
{
	t->stats->bytes += n;
	if (t->ev && t->ev->progress)
		t->ev->progress(t->ev->arg, t->stats);
}

/* ---- out: the list first, then file by file ---- */

enum kind { KIND_FILE, KIND_DIRECTORY, KIND_LINK, KIND_OTHER };

struct entry {
	size_t name, target; /* in names */
	uint32_t name_n, target_n;
	uint16_t mode;
	uint8_t kind;
};

struct listing {
	struct tree *tree;
	struct entry *entries;
	size_t n, cap;
	struct str names;
};

static enum kind kind_of(struct span text)
{
	return span_is(text, "file")	    ? KIND_FILE
	       : span_is(text, "directory") ? KIND_DIRECTORY
	       : span_is(text, "symlink")   ? KIND_LINK
					    : KIND_OTHER;
}

static int reserve(struct listing *l, struct err *e)
{
	struct entry *bigger;

	if (l->n < l->cap)
		return 0;
	if (l->n >= TREE_ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "the tree has more than %d entries", TREE_ENTRIES_MAX);
	l->cap = l->cap ? 2 * l->cap : 256;
	bigger = realloc(l->entries, l->cap * sizeof(*bigger));
	if (!bigger)
		return err_set(e, ERR_LIMIT, "out of memory");
	l->entries = bigger;
	return 0;
}

static int on_entry(void *arg, const void *item, struct err *e)
{
	struct listing *l = arg;
	const struct rec_file_info *info = item;
	int r = host_name_check(info->path, e);

	if (r > LIMIT_LIST_DEPTH && kind_of(info->kind) == KIND_DIRECTORY)
		return err_set(e, ERR_LIMIT, "the tree is deeper than %d levels", LIMIT_LIST_DEPTH);
	if (r >= 0)
		r = reserve(l, e);
	if (r < 0)
		return r;
	l->entries[l->n++] = (struct entry){
		.name = l->names.len,
		.name_n = (uint32_t)info->path.n,
		.target = l->names.len + info->path.n,
		.target_n = (uint32_t)info->target.n,
		.mode = (uint16_t)(info->mode & PERMISSIONS),
		.kind = (uint8_t)kind_of(info->kind),
	};
	str_add_mem(&l->names, info->path.p, info->path.n);
	str_add_mem(&l->names, info->target.p, info->target.n);
	if (kind_of(info->kind) == KIND_FILE)
		l->tree->stats->bytes_total += info->size;
	return l->names.failed ? err_set(e, ERR_LIMIT, "the names in the tree are longer than %d bytes",
					 TREE_NAMES_MAX)
			       : 0;
}

struct fetched {
	struct tree *tree;
	struct host_file file;
};

static int put_bytes(void *arg, const void *p, size_t n, struct err *e)
{
	struct fetched *f = arg;
	int r = host_file_put(&f->file, p, n, e);

	if (r == 0)
		moved(f->tree, n);
	return r;
}

static int fetch_file(struct tree *t, const char *from, int root_fd, struct span name,
		      unsigned mode, struct err *e)
{
	struct fetched f = {.tree = t, .file = HOST_FILE_INIT};
	struct file_sink sink = {.put = put_bytes, .arg = &f};
	struct rec_file_read rec = {
		.sandbox = span_of(t->sandbox), .user = t->user, .path = span_of(from)};
	struct file_sum sum;
	int r = host_file_open(root_fd, name, &f.file, e);

	if (r == 0)
		r = file_fetch(t->conn, &rec, &sink, &sum, e);
	if (r == 0)
		r = host_file_keep(&f.file, mode, e);
	host_file_drop(&f.file);
	if (r == 0)
		t->stats->files++;
	return r;
}

static int make_link(struct tree *t, int root_fd, struct span name, struct span target,
		     struct err *e)
{
	struct err why = ERR_INIT;
	int r = host_symlink(root_fd, name, target, &why);

	if (r == -ERR_DENIED) {
		skip(t, name, "a link that could lead out of the target");
		return 0;
	}
	if (r == 0)
		t->stats->links++;
	return r < 0 ? err_copy(e, &why) : 0;
}

static int fetch_entry(struct tree *t, const struct listing *l, const struct entry *n,
		       const char *path, int root_fd, struct err *e)
{
	struct span name = {l->names.p + n->name, n->name_n};
	struct str from = STR_INIT(2 * HOST_PATH);
	int r = 0;

	switch ((enum kind)n->kind) {
	case KIND_DIRECTORY:
		r = host_mkdir(root_fd, name, e);
		t->stats->directories += r == 0;
		break;
	case KIND_FILE:
		str_addf(&from, "%s/%.*s", path, (int)name.n, name.p);
		r = fetch_file(t, str_text(&from), root_fd, name, n->mode, e);
		break;
	case KIND_LINK:
		r = make_link(t, root_fd, name, (struct span){l->names.p + n->target, n->target_n},
			      e);
		break;
	case KIND_OTHER: skip(t, name, "neither a file, a directory nor a link"); break;
	}
	str_deinit(&from);
	return r;
}

/* From the leaves up, since a directory that is read-only cannot be filled any more. */
static int set_modes(const struct listing *l, int root_fd, struct err *e)
{
	int r = 0;

	for (size_t i = l->n; i > 0 && r == 0; i--) {
		const struct entry *n = &l->entries[i - 1];

		if (n->kind == KIND_DIRECTORY)
			r = host_dir_mode(root_fd, (struct span){l->names.p + n->name, n->name_n},
					  n->mode, e);
	}
	return r;
}

int tree_fetch(struct conn *c, const char *sandbox, struct span user, const char *path,
	       int root_fd, const struct tree_events *ev, struct tree_stats *ret, struct err *e)
{
	struct tree t = {c, sandbox, user, ev, ret};
	struct listing l = {.tree = &t, .names = STR_INIT(TREE_NAMES_MAX)};
	struct rec_file_ref rec = {.sandbox = span_of(sandbox),
				   .path = span_of(path),
				   .user = user,
				   .depth = LIMIT_LIST_DEPTH};
	int r;

	*ret = (struct tree_stats){0};
	r = conn_items(c, METHOD_FILE_LIST, &rec, on_entry, &l, e);
	for (size_t i = 0; i < l.n && r == 0; i++)
		r = fetch_entry(&t, &l, &l.entries[i], path, root_fd, e);
	if (r == 0)
		r = set_modes(&l, root_fd, e);
	free(l.entries);
	str_deinit(&l.names);
	return r;
}

/* ---- in ---- */

static int store_dir(struct tree *t, int dir_fd, struct str *path, unsigned depth, struct err *e);

static int make_dir(struct tree *t, const char *path, unsigned mode, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	/* Its owner must be able to fill it. */
	struct rec_file_ref rec = {.sandbox = span_of(t->sandbox),
				   .path = span_of(path),
				   .user = t->user,
				   .recursive = true,
				   .mode = (mode & PERMISSIONS) | 0700};
	int r = conn_call(t->conn, METHOD_FILE_MKDIR, &rec, &bytes, NULL, e);

	str_deinit(&bytes);
	t->stats->directories += r == 0;
	return r;
}

struct stored {
	struct tree *tree;
	int fd;
	const char *name;
};

static ssize_t get_bytes(void *arg, void *p, size_t n, struct err *e)
{
	struct stored *s = arg;
	ssize_t r = sys_read(s->fd, p, n);

	if (r < 0)
		return err_sys(e, (int)r, "read %s", s->name);
	moved(s->tree, (size_t)r);
	return r;
}

static int rewind_bytes(void *arg, uint64_t bytes, struct err *e)
{
	struct stored *s = arg;

	s->tree->stats->bytes -= bytes;
	return lseek(s->fd, 0, SEEK_SET) < 0 ? err_sys(e, -errno, "read %s again", s->name) : 0;
}

static int store_file(struct tree *t, int dir_fd, const char *name, const struct stat *st,
		      const char *to, struct err *e)
{
	/* O_NONBLOCK: should it have become a FIFO since we looked. */
	AUTO_CLOSE int fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stored s = {t, fd, name};
	struct file_source source = {get_bytes, &s, rewind_bytes};
	struct rec_file_write rec = {.sandbox = span_of(t->sandbox),
				     .path = span_of(to),
				     .user = t->user,
				     .mode = st->st_mode & PERMISSIONS,
				     .parents = true};
	struct file_sum sum;
	int r;

	if (fd < 0)
		return err_sys(e, fd, "open %s", name);
	r = file_store(t->conn, &rec, &source, &sum, e);
	t->stats->files += r == 0;
	return r;
}

static int store_entry(struct tree *t, int dir_fd, const char *name, struct str *path,
		       unsigned depth, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, -errno, "look at %s", name);
	if (S_ISREG(st.st_mode))
		return store_file(t, dir_fd, name, &st, str_text(path), e);
	if (S_ISDIR(st.st_mode)) {
		int r = make_dir(t, str_text(path), st.st_mode, e);

		if (r < 0)
			return r;
		fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
		return fd < 0 ? err_sys(e, fd, "open %s", name)
			      : store_dir(t, fd, path, depth + 1, e);
	}
	skip(t, span_of(str_text(path)), S_ISLNK(st.st_mode) ? "a link" : "not a regular file");
	return 0;
}

static int no_dots(const struct dirent *d)
{
	return strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0;
}

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int store_dir(struct tree *t, int dir_fd, struct str *path, unsigned depth, struct err *e)
{
	struct dirent **names = NULL;
	size_t base = path->len;
	int n, r = 0;

	if (depth > LIMIT_LIST_DEPTH)
		return err_set(e, ERR_LIMIT, "%s: deeper than %d levels", str_text(path),
			       LIMIT_LIST_DEPTH);
	n = scandirat(dir_fd, ".", &names, no_dots, by_bytes);
	if (n < 0)
		return err_sys(e, -errno, "read the directory of %s", str_text(path));
	for (int i = 0; i < n; i++) {
		if (r == 0) {
			str_addf(path, "/%s", names[i]->d_name);
			r = path->failed ? err_set(e, ERR_LIMIT, "%s: path longer than %d bytes",
						   names[i]->d_name, HOST_PATH)
					 : store_entry(t, dir_fd, names[i]->d_name, path, depth, e);
			path->len = base;
			path->p[base] = '\0';
		}
		free(names[i]);
	}
	free(names);
	return r;
}

int tree_store(struct conn *c, const char *sandbox, struct span user, int dir_fd,
	       const char *path, const struct tree_events *ev, struct tree_stats *ret,
	       struct err *e)
{
	struct tree t = {c, sandbox, user, ev, ret};
	struct str to = STR_INIT(HOST_PATH);
	struct stat st;
	int r = 0;

	*ret = (struct tree_stats){0};
	str_add(&to, path);
	if (fstat(dir_fd, &st) < 0)
		r = err_sys(e, -errno, "look at the directory to copy");
	if (r == 0)
		r = make_dir(&t, path, st.st_mode, e);
	if (r == 0)
		r = store_dir(&t, dir_fd, &to, 0, e);
	str_deinit(&to);
	return r;
}
