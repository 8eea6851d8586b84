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
#include "client/holes.h"
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
	uint64_t room, data; /* out: bytes that may come and that came, holes apart; room 0: any */
	bool is_old;	     /* in: the agent does not know file.set */
};

static void skip(struct tree *t, struct span name, const char *why)
{
	t->stats->skipped++;
	if (t->ev && t->ev->skipped)
		t->ev->skipped(t->ev->arg, name, why);
}

/* What says nothing about the next file is counted, and the copy goes on. */
static int pass_over(struct tree *t, struct span name, const struct err *why, struct err *e)
{
	switch (why->code) {
	case ERR_LIMIT:
	case ERR_TIMEOUT:
	case ERR_UNAVAILABLE:
	case ERR_GONE:
	case ERR_CANCELED:
	case ERR_FORKED:
	case ERR_BUSY: return err_copy(e, why);
	default: break;
	}
	t->stats->failed++;
	if (t->ev && t->ev->failed)
		t->ev->failed(t->ev->arg, name, why);
	return 0;
}

static void moved(struct tree *t, uint64_t n)
{
	t->stats->bytes += n;
	if (t->ev && t->ev->progress)
		t->ev->progress(t->ev->arg, t->stats);
}

/* ---- out: the list first, then file by file ---- */

enum kind { KIND_FILE, KIND_DIRECTORY, KIND_LINK, KIND_OTHER };

struct entry {
	size_t name, target; /* in names */
	uint64_t mtime_ns;
	uint32_t name_n, target_n;
	uint16_t mode;
	uint8_t kind;
	bool unread; /* a directory */
	bool failed; /* a directory that could not be made: what is below it is not tried */
	bool made;   /* a directory */
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
		.mtime_ns = info->mtime_ns,
		.unread = info->unread,
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
	struct tree *t = f->tree;

	t->data += n;
	if (t->room && t->data > t->room)
		return err_set(e, ERR_LIMIT, "the tree has more than %llu bytes, and this sandbox is not expected to; "
			       "'hotcell cp --max-size' takes more", (unsigned long long)t->room);
	moved(t, n);
	return host_file_put(&f->file, p, n, e);
}

static int put_hole(void *arg, uint64_t n, struct err *e)
{
	struct fetched *f = arg;

	moved(f->tree, n);
	return host_file_skip(&f->file, n, e);
}

static int fetch_file(struct tree *t, const char *from, int root_fd, const struct entry *n, struct span name,
		      struct err *e)
{
	struct fetched f = {.tree = t, .file = HOST_FILE_INIT};
	struct file_sink sink = {.put = put_bytes, .hole = put_hole, .arg = &f, .max = t->room};
	struct rec_file_read rec = {
		.sandbox = span_of(t->sandbox), .user = t->user, .path = span_of(from)};
	int r = host_file_open(root_fd, name, &f.file, e);

	if (r == 0)
		r = file_fetch(t->conn, &rec, &sink, NULL, e);
	if (r == 0)
		r = host_file_keep(&f.file, n->mode, n->mtime_ns, e);
	host_file_drop(&f.file);
	if (r == 0)
		t->stats->files++;
	return r;
}

static int make_link(struct tree *t, int root_fd, const struct entry *n, struct span name, struct span target,
		     struct err *e)
{
	int r;

	if (host_leads_out(target, host_name_check(name, NULL) - 1)) {
		skip(t, name, "a link that could lead out of the target");
		return 0;
	}
	r = host_symlink(root_fd, name, target, n->mtime_ns, e);
	if (r == 0)
		t->stats->links++;
	return r;
}

static int fetch_dir(struct tree *t, int root_fd, struct entry *n, struct span name, struct err *e)
{
	int r = host_mkdir(root_fd, name, e);

	n->failed = r < 0;
	n->made = r == 0;
	t->stats->directories += r == 0;
	return r == 0 && n->unread ? err_set(e, ERR_DENIED, "its contents can't be read") : r;
}

static int fetch_entry(struct tree *t, const struct listing *l, struct entry *n, const char *path, int root_fd,
		       struct err *e)
{
	struct span name = {l->names.p + n->name, n->name_n};
	struct str from = STR_INIT(2 * HOST_PATH);
	struct err why = ERR_INIT;
	int r = 0;

	switch ((enum kind)n->kind) {
	case KIND_DIRECTORY: r = fetch_dir(t, root_fd, n, name, &why); break;
	case KIND_FILE:
		str_addf(&from, "%s/%.*s", path, (int)name.n, name.p);
		r = fetch_file(t, str_text(&from), root_fd, n, name, &why);
		break;
	case KIND_LINK:
		r = make_link(t, root_fd, n, name, (struct span){l->names.p + n->target, n->target_n},
			      &why);
		break;
	case KIND_OTHER: skip(t, name, "neither a file, a directory nor a link"); break;
	}
	str_deinit(&from);
	return r < 0 ? pass_over(t, name, &why, e) : 0;
}

/* Entry @i is what is left of a directory that could not be made; the first entry that is not below it. */
static size_t pass_below(const struct listing *l, size_t i)
{
	const struct entry *top = &l->entries[i];

	for (i++; i < l->n; i++) {
		const struct entry *n = &l->entries[i];

		if (n->name_n <= top->name_n || l->names.p[n->name + top->name_n] != '/' ||
		    memcmp(l->names.p + n->name, l->names.p + top->name, top->name_n) != 0)
			break;
		l->tree->stats->failed++;
	}
	return i;
}

/* From the leaves up, since a directory that is read-only cannot be filled any more. */
static int finish_dirs(const struct listing *l, size_t tried, int root_fd, struct err *e)
{
	int r = 0;

	for (size_t i = tried; i > 0; i--) {
		const struct entry *n = &l->entries[i - 1];
		struct span name = {l->names.p + n->name, n->name_n};
		struct err why = ERR_INIT;

		if (n->kind != KIND_DIRECTORY || !n->made)
			continue;
		if (host_dir_done(root_fd, name, n->mode, n->mtime_ns, &why) < 0 && r == 0)
			r = pass_over(l->tree, name, &why, e);
	}
	return r;
}

int tree_fetch(struct conn *c, const char *sandbox, struct span user, const char *path,
	       int root_fd, uint64_t room, const struct tree_events *ev, struct tree_stats *ret,
	       struct err *e)
{
	struct tree t = {.conn = c, .sandbox = sandbox, .user = user, .ev = ev, .stats = ret, .room = room};
	struct listing l = {.tree = &t, .names = STR_INIT(TREE_NAMES_MAX)};
	struct rec_file_ref rec = {.sandbox = span_of(sandbox),
				   .path = span_of(path),
				   .user = user,
				   .depth = LIMIT_LIST_DEPTH};
	struct err late = ERR_INIT;
	size_t i = 0;
	int r;

	*ret = (struct tree_stats){0};
	r = conn_items(c, METHOD_FILE_LIST, &rec, on_entry, &l, e);
	while (i < l.n && r == 0) {
		r = fetch_entry(&t, &l, &l.entries[i], path, root_fd, e);
		i = l.entries[i].failed ? pass_below(&l, i) : i + 1;
	}
	if (finish_dirs(&l, i, root_fd, &late) < 0 && r == 0)
		r = err_copy(e, &late);
	free(l.entries);
	str_deinit(&l.names);
	return r;
}

/* ---- in ---- */

static int store_dir(struct tree *t, int dir_fd, struct str *path, unsigned depth, struct err *e);

/* Is a directory there already? A second copy goes into it. */
static bool is_dir(struct tree *t, const char *path)
{
	struct rec_file_ref ref = {
		.sandbox = span_of(t->sandbox), .path = span_of(path), .user = t->user, .follow = true};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_file_info info;
	bool is = conn_call(t->conn, METHOD_FILE_STAT, &ref, &bytes, &info, NULL) == 0 &&
		  span_is(info.kind, "directory");

	str_deinit(&bytes);
	return is;
}

static int set_dir(struct tree *t, const char *path, unsigned mode, uint64_t mtime_ns, struct err *e)
{
	struct rec_file_set rec = {.sandbox = span_of(t->sandbox),
				   .path = span_of(path),
				   .user = t->user,
				   .mode = mode & PERMISSIONS,
				   .mtime_ns = mtime_ns};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = t->is_old ? -ERR_UNSUPPORTED : conn_call(t->conn, METHOD_FILE_SET, &rec, &bytes, NULL, e);

	str_deinit(&bytes);
	return r;
}

/* Return: 0; 1: it was there. */
static int make_dir(struct tree *t, const char *path, unsigned mode, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	/* Its owner must be able to fill it. */
	struct rec_file_ref rec = {.sandbox = span_of(t->sandbox),
				   .path = span_of(path),
				   .user = t->user,
				   .recursive = true,
				   .mode = (mode & PERMISSIONS) | 0700};
	struct err why = ERR_INIT;
	int r = conn_call(t->conn, METHOD_FILE_MKDIR, &rec, &bytes, NULL, &why);

	str_deinit(&bytes);
	t->stats->directories += r == 0;
	if (r == -ERR_CONFLICT && is_dir(t, path))
		return 1;
	return r < 0 ? err_copy(e, &why) : 0;
}

/* Once it is filled: its own bits and time. Agents of 0.1.0 can't; then its owner keeps what it took to fill it. */
static int finish_dir(struct tree *t, const char *path, const struct stat *st, struct err *e)
{
	struct err why = ERR_INIT;
	int r = set_dir(t, path, st->st_mode, file_mtime(st), &why);

	if (r != -ERR_UNSUPPORTED)
		return r < 0 ? err_copy(e, &why) : 0;
	t->is_old = true;
	if ((st->st_mode & 0700) == 0700)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, "its permission bits can't be set: its sandbox is of an older hotcell");
}

struct stored {
	struct tree *tree;
	struct holes from;
	const char *name;
};

static ssize_t get_bytes(void *arg, void *p, size_t n, struct err *e)
{
	struct stored *s = arg;
	ssize_t r = holes_get(&s->from, p, n);

	if (r < 0)
		return err_sys(e, (int)r, "read %s", s->name);
	moved(s->tree, (size_t)r);
	return r;
}

static int64_t get_hole(void *arg, struct err *e)
{
	struct stored *s = arg;
	int64_t r = holes_skip(&s->from);

	if (r < 0)
		return err_sys(e, (int)r, "read %s", s->name);
	moved(s->tree, (uint64_t)r);
	return r;
}

static int rewind_bytes(void *arg, uint64_t bytes, struct err *e)
{
	struct stored *s = arg;
	int r = holes_rewind(&s->from);

	s->tree->stats->bytes -= bytes;
	return r < 0 ? err_sys(e, r, "read %s again", s->name) : 0;
}

static int store_file(struct tree *t, int dir_fd, const char *name, const char *to, struct err *e)
{
	/* O_NONBLOCK: should it have become a FIFO since we looked. */
	AUTO_CLOSE int fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stored s = {.tree = t, .name = name};
	struct file_source source = {.get = get_bytes, .arg = &s, .rewind = rewind_bytes};
	struct rec_file_write rec = {.sandbox = span_of(t->sandbox),
				     .path = span_of(to),
				     .user = t->user,
				     .parents = true,
				     .exact = true};
	struct stat st;
	int r;

	if (fd < 0)
		return err_sys(e, fd, "open it");
	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at it");
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_CONFLICT, "it changed while it was looked at");
	holes_init(&s.from, fd, &st);
	if (s.from.sparse)
		source.hole = get_hole;
	rec.mode = st.st_mode & PERMISSIONS;
	rec.mtime_ns = file_mtime(&st);
	r = file_store(t->conn, &rec, &source, NULL, e);
	t->stats->files += r == 0;
	return r;
}

/* As in the other direction (HOST-3): one that could lead out of the tree is left out. */
static int store_link(struct tree *t, int dir_fd, const char *name, const char *to, unsigned depth, struct err *e)
{
	char target[HOST_PATH];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target));
	struct rec_file_link rec = {.sandbox = span_of(t->sandbox),
				    .path = span_of(to),
				    .user = t->user,
				    .target = {target, (size_t)MAX(n, 0)}};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct err why = ERR_INIT;
	int r;

	if (n < 0)
		return err_sys(e, -errno, "read the link");
	if (n == sizeof(target) || host_leads_out(rec.target, (int)depth)) {
		skip(t, span_of(to), "a link that could lead out of the tree");
		return 0;
	}
	r = conn_call(t->conn, METHOD_FILE_LINK, &rec, &bytes, NULL, &why);
	str_deinit(&bytes);
	t->stats->links += r == 0;
	if (r == -ERR_UNSUPPORTED)
		return err_set(e, ERR_UNSUPPORTED, "a link can't be made: its sandbox is of an older hotcell");
	return r < 0 ? err_copy(e, &why) : 0;
}

static int store_below(struct tree *t, int dir_fd, const char *name, const struct stat *st, struct str *path,
		       unsigned depth, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(dir_fd, name, O_RDONLY | O_DIRECTORY, 0);
	struct err late = ERR_INIT;
	int r = fd < 0 ? err_sys(e, fd, "open it") : 0, done;

	if (r == 0)
		r = make_dir(t, str_text(path), st->st_mode, e);
	if (r < 0)
		return r;
	if (r == 1) /* it may be read-only, from a copy before; where this fails, filling it says why */
		(void)set_dir(t, str_text(path), st->st_mode | 0700, 0, NULL);
	r = store_dir(t, fd, path, depth + 1, e);
	done = finish_dir(t, str_text(path), st, &late);
	return r < 0 || done == 0 ? r : err_copy(e, &late);
}

static int store_entry(struct tree *t, int dir_fd, const char *name, struct str *path,
		       unsigned depth, struct err *e)
{
	struct err why = ERR_INIT;
	struct stat st;
	int r = 0;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		r = err_sys(&why, -errno, "look at it");
	else if (S_ISREG(st.st_mode))
		r = store_file(t, dir_fd, name, str_text(path), &why);
	else if (S_ISDIR(st.st_mode))
		r = store_below(t, dir_fd, name, &st, path, depth, &why);
	else if (S_ISLNK(st.st_mode))
		r = store_link(t, dir_fd, name, str_text(path), depth, &why);
	else
		skip(t, span_of(str_text(path)), "neither a file, a directory nor a link");
	return r < 0 ? pass_over(t, span_of(str_text(path)), &why, e) : 0;
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
	struct tree t = {.conn = c, .sandbox = sandbox, .user = user, .ev = ev, .stats = ret};
	struct str to = STR_INIT(HOST_PATH);
	struct err late = ERR_INIT;
	struct stat st;
	int made, r;

	*ret = (struct tree_stats){0};
	if (fstat(dir_fd, &st) < 0)
		return err_sys(e, -errno, "look at the directory to copy");
	str_add(&to, path);
	made = r = make_dir(&t, path, st.st_mode, e);
	if (r >= 0)
		r = store_dir(&t, dir_fd, &to, 0, e);
	if (made == 0 && finish_dir(&t, path, &st, &late) < 0 && r == 0) /* one that was there stays as it is */
		r = pass_over(&t, span_of(path), &late, e);
	str_deinit(&to);
	return r;
}
