/* client/api_file.c - hotcell.h: files */
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "client/api_int.h"
#include "client/conn.h"
#include "client/file.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "wire/gen/methods.h"

enum { NAMES_MAX = 268435456, ENTRIES_MAX = 1000000 };

/* ---- into memory, and from it ---- */

static int put_memory(void *arg, const void *p, size_t n, struct err *e)
{
	struct str *s = arg;

	str_add_mem(s, p, n);
	return s->failed ? err_set(e, ERR_LIMIT, "the file is longer than %zu bytes", s->max) : 0;
}

int hotcell_read_file(struct hotcell_sandbox *s, const char *path, size_t max, char **ret,
		      size_t *ret_n, struct hotcell_error *e)
{
	struct str content = STR_INIT(max);
	struct file_sink sink = {.put = put_memory, .arg = &content, .max = max ? max : 1};
	struct rec_file_read rec = {.sandbox = span_of(s->id), .path = span_of(path)};
	struct file_sum sum;
	int r;

	str_add(&content, ""); /* an empty file is a text too */
	r = file_fetch(s->h->conn, &rec, &sink, &sum, api_err(e));
	if (r < 0) {
		str_deinit(&content);
		return r;
	}
	*ret = content.p;
	*ret_n = content.len;
	return 0;
}

struct memory {
	const char *p;
	size_t left;
	const char *start;
	size_t n;
};

static ssize_t get_memory(void *arg, void *p, size_t n, struct err *e)
{
	struct memory *m = arg;
	size_t take = MIN(n, m->left);

	(void)e;
	memcpy(p, m->p, take);
	m->p += take;
	m->left -= take;
	return (ssize_t)take;
}

static int rewind_memory(void *arg, uint64_t bytes, struct err *e)
{
	struct memory *m = arg;

	(void)bytes;
	(void)e;
	m->p = m->start;
	m->left = m->n;
	return 0;
}

static int store(struct hotcell_sandbox *s, const char *path, unsigned mode,
		 const struct file_source *from, struct file_sum *ret, struct err *e)
{
	struct rec_file_write rec = {.sandbox = span_of(s->id),
				     .path = span_of(path),
				     .mode = mode,
				     .parents = true};

	return file_store(s->h->conn, &rec, from, ret, e);
}

int hotcell_write_file(struct hotcell_sandbox *s, const char *path, const void *p, size_t n,
		       unsigned mode, struct hotcell_error *e)
{
	const char *start = n ? p : "";
	struct memory m = {start, n, start, n};
	struct file_source from = {get_memory, &m, rewind_memory};
	struct file_sum sum;

	return store(s, path, mode, &from, &sum, api_err(e));
}

/* ---- descriptors ---- */

static int put_fd(void *arg, const void *p, size_t n, struct err *e)
{
	int r = sys_write_full(*(int *)arg, p, n);

	return r < 0 ? err_sys(e, r, "write to descriptor %d", *(int *)arg) : 0;
}

static ssize_t get_fd(void *arg, void *p, size_t n, struct err *e)
{
	ssize_t r = sys_read(*(int *)arg, p, n);

	return r < 0 ? err_sys(e, (int)r, "read from descriptor %d", *(int *)arg) : r;
}

static int give_sum(int r, const struct file_sum *sum, char *ret_sha256)
{
	if (r == 0 && ret_sha256)
		file_sum_text(sum, ret_sha256);
	return r;
}

int hotcell_get_file(struct hotcell_sandbox *s, const char *path, int fd, char *ret_sha256,
		     struct hotcell_error *e)
{
	struct file_sink sink = {.put = put_fd, .arg = &fd};
	struct rec_file_read rec = {.sandbox = span_of(s->id), .path = span_of(path)};
	struct file_sum sum;
	int r = file_room(s->h->conn, s->id, &sink.max, api_err(e));

	return r < 0 ? r : give_sum(file_fetch(s->h->conn, &rec, &sink, &sum, api_err(e)), &sum, ret_sha256);
}

int hotcell_put_file(struct hotcell_sandbox *s, const char *path, int fd, unsigned mode,
		     char *ret_sha256, struct hotcell_error *e)
{
	struct file_source from = {.get = get_fd, .arg = &fd};
	struct file_sum sum;

	return give_sum(store(s, path, mode, &from, &sum, api_err(e)), &sum, ret_sha256);
}

static int change(struct hotcell_sandbox *s, unsigned method, const char *path, bool recursive,
		  unsigned mode, struct err *e)
{
	struct rec_file_ref rec = {.sandbox = span_of(s->id),
				   .path = span_of(path),
				   .recursive = recursive,
				   .mode = mode};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(s->h->conn, method, &rec, &bytes, NULL, e);

	str_deinit(&bytes);
	return r;
}

int hotcell_remove_file(struct hotcell_sandbox *s, const char *path, bool recursive,
			struct hotcell_error *e)
{
	return change(s, METHOD_FILE_REMOVE, path, recursive, 0, api_err(e));
}

int hotcell_make_dir(struct hotcell_sandbox *s, const char *path, unsigned mode,
		     struct hotcell_error *e)
{
	return change(s, METHOD_FILE_MKDIR, path, true, mode, api_err(e));
}

/* ---- directories ---- */

struct entry {
	size_t name; /* in names */
	uint64_t size;
	bool is_dir;
};

struct hotcell_dir {
	struct str names; /* NUL behind each */
	struct entry *entries;
	size_t n, cap;
};

static int on_entry(void *arg, const void *item, struct err *e)
{
	const struct rec_file_info *info = item;
	struct hotcell_dir *d = arg;

	if (d->n >= ENTRIES_MAX)
		return err_set(e, ERR_LIMIT, "more than %d entries", ENTRIES_MAX);
	if (d->n == d->cap) {
		struct entry *bigger;

		d->cap = d->cap ? 2 * d->cap : 64;
		bigger = realloc(d->entries, d->cap * sizeof(*bigger));
		if (!bigger)
			return err_set(e, ERR_LIMIT, "out of memory");
		d->entries = bigger;
	}
	d->entries[d->n++] = (struct entry){.name = d->names.len,
					    .is_dir = span_is(info->kind, "directory"),
					    .size = span_is(info->kind, "directory") ? 0 : info->size};
	str_add_mem(&d->names, info->path.p, info->path.n);
	str_add_mem(&d->names, "", 1);
	return d->names.failed
		       ? err_set(e, ERR_LIMIT, "names of more than %d bytes in all", NAMES_MAX)
		       : 0;
}

int hotcell_list_dir(struct hotcell_sandbox *s, const char *path, struct hotcell_dir **ret,
		     struct hotcell_error *e)
{
	struct rec_file_ref rec = {.sandbox = span_of(s->id), .path = span_of(path)};
	struct hotcell_dir *d = mem_new(sizeof(*d));
	int r;

	d->names = (struct str)STR_INIT(NAMES_MAX);
	r = conn_items(s->h->conn, METHOD_FILE_LIST, &rec, on_entry, d, api_err(e));
	if (r < 0) {
		hotcell_dir_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

size_t hotcell_dir_count(const struct hotcell_dir *d)
{
	return d->n;
}

const char *hotcell_dir_name(const struct hotcell_dir *d, size_t i)
{
	return i < d->n ? d->names.p + d->entries[i].name : NULL;
}

bool hotcell_dir_is_dir(const struct hotcell_dir *d, size_t i)
{
	return i < d->n && d->entries[i].is_dir;
}

uint64_t hotcell_dir_size(const struct hotcell_dir *d, size_t i)
{
	return i < d->n ? d->entries[i].size : 0;
}

void hotcell_dir_free(struct hotcell_dir *d)
{
	if (!d)
		return;
	str_deinit(&d->names);
	free(d->entries);
	free(d);
}

/* ---- changes ---- */

struct dir_watch {
	struct loop_timer timer;
	struct conn *conn;
	bool is_late;
	int (*fn)(void *arg, const char *kind, const char *path);
	void *arg;
	char kind[17], path[LIMIT_PATH + 1];
};

static void on_late(struct loop_timer *t)
{
	struct dir_watch *w = CONTAINER_OF(t, struct dir_watch, timer);

	w->is_late = true;
	conn_cancel(w->conn);
}

static int on_change(void *arg, const void *item, struct err *e)
{
	const struct rec_file_event *v = item;
	struct dir_watch *w = arg;

	span_copy(v->kind, w->kind, sizeof(w->kind));
	span_copy(v->path, w->path, sizeof(w->path));
	return w->fn(w->arg, w->kind, w->path) == 0 ? 0 : err_set(e, ERR_CANCELED, "ended by the caller");
}

int hotcell_watch_dir(struct hotcell_sandbox *s, const char *path, bool recursive, uint64_t timeout_ms,
		      int (*fn)(void *arg, const char *kind, const char *path), void *arg, struct hotcell_error *e)
{
	const struct rec_file_ref ref = {.sandbox = span_of(s->id), .path = span_of(path), .recursive = recursive};
	struct dir_watch w = {.conn = s->h->conn, .fn = fn, .arg = arg};
	struct loop *l = conn_loop(w.conn);
	int r;

	if (timeout_ms < UINT64_MAX / NS_PER_MS / 2)
		loop_timer_set(l, &w.timer, loop_now(l) + timeout_ms * NS_PER_MS, on_late);
	r = conn_items(w.conn, METHOD_FILE_WATCH, &ref, on_change, &w, api_err(e));
	loop_timer_cancel(l, &w.timer);
	return w.is_late && r == -ERR_CANCELED ? err_set(api_err(e), ERR_TIMEOUT, "%llu ms have passed",
							 (unsigned long long)timeout_ms)
					       : r;
}
