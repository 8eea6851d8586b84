/*
 * guest/list.c - file.list: a directory tree, sorted, as a stream
 *
 * Depth first, each directory's names in byte order. A directory must be read
 * whole to be sorted; that is done in slices, so that other calls go on, and
 * names beyond NAMES_MAX end the call instead of growing the agent.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/file.h"
#include "guest/items.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

enum {
	NAMES_MAX = 16 * 1024 * 1024, /* bytes of names in all directories being listed */
	SLICE = 32768,		      /* bytes of directory entries per turn */
};

struct level {
	int fd;
	char *names; /* each with its NUL */
	size_t used, cap;
	char **order; /* sorted; NULL until the directory is read */
	size_t n, i;
	size_t prefix; /* length of this directory's path in listing.path */
};

struct listing {
	struct user user;
	struct file_names names;
	struct file_facts facts;
	char path[FILE_PATH_SIZE]; /* of the current entry, relative to the listed directory */
	struct level levels[LIMIT_LIST_DEPTH];
	size_t depth, max_depth; /* levels in use, at most */
	size_t names_total;
};

static void pop(struct listing *li)
{
	struct level *l = &li->levels[--li->depth];

	(void)sys_close(l->fd);
	li->names_total -= l->cap;
	free(l->names);
	free(l->order);
}

static void listing_free(void *arg)
{
	struct listing *li = arg;

	while (li->depth)
		pop(li);
	file_names_free(&li->names);
	free(li);
}

static int push(struct listing *li, int dirfd, const char *name, int flags, size_t prefix)
{
	int fd = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK | flags, 0);

	if (fd < 0)
		return fd;
	li->levels[li->depth++] = (struct level){.fd = fd, .prefix = prefix};
	return 0;
}

static int keep_name(struct listing *li, struct level *l, const char *name, struct err *e)
{
	size_t n = strlen(name) + 1, cap = l->cap ? l->cap : 4096;
	char *p;

	while (cap < l->used + n)
		cap *= 2;
	if (cap != l->cap) {
		if (li->names_total + cap - l->cap > NAMES_MAX)
			return err_set(e, ERR_LIMIT, "too many files to list: more than %d bytes of names",
				       NAMES_MAX);
		p = realloc(l->names, cap);
		if (!p)
			return err_set(e, ERR_LIMIT, "no memory to list the directory");
		li->names_total += cap - l->cap;
		l->names = p;
		l->cap = cap;
	}
	memcpy(l->names + l->used, name, n);
	l->used += n;
	l->n++;
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int sort(struct level *l, struct err *e)
{
	char *p = l->names;

	l->order = calloc(l->n + 1, sizeof(*l->order));
	if (!l->order)
		return err_set(e, ERR_LIMIT, "no memory to list the directory");
	for (size_t i = 0; i < l->n; i++, p += strlen(p) + 1)
		l->order[i] = p;
	qsort(l->order, l->n, sizeof(*l->order), by_bytes);
	return 0;
}

/* Take in a slice of the directory; sorted when nothing more comes. */
static int read_slice(struct listing *li, struct level *l, struct err *e)
{
	_Alignas(8) char buf[SLICE];
	long got = syscall(SYS_getdents64, l->fd, buf, sizeof(buf));
	int r = 0;

	if (got < 0)
		return err_sys(e, -errno, "read a directory");
	if (got == 0)
		return sort(l, e);
	for (long at = 0; at < got && r == 0;) {
		const struct dirent64 *ent = (const void *)(buf + at);

		if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
			r = keep_name(li, l, ent->d_name, e);
		at += ent->d_reclen;
	}
	return r;
}

/* The entry's path: the directory's, a slash, its name. False when that is too long to say. */
static bool name_entry(struct listing *li, const struct level *l)
{
	const char *name = l->order[l->i];
	size_t at = l->prefix, n = strlen(name);

	if (at + 1 + n >= sizeof(li->path))
		return false;
	if (at)
		li->path[at++] = '/';
	memcpy(li->path + at, name, n + 1);
	return true;
}

static bool can_list(int dirfd, const char *name)
{
	AUTO_CLOSE int fd = sys_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_NOFOLLOW, 0);
	struct stat st;

	return fd >= 0 && fstatat(fd, ".", &st, 0) == 0; /* to read its names is not yet to reach them */
}

static int describe(struct listing *li, const struct level *l)
{
	int r;

	user_enter(&li->user);
	r = file_look(l->fd, l->order[l->i], li->path, false, &li->names, &li->facts);
	/* A directory that may not be read is an entry without contents, and says so. */
	if (r == 0 && li->depth < li->max_depth && span_is(li->facts.info.kind, "directory"))
		li->facts.info.unread = !can_list(l->fd, l->order[l->i]);
	user_leave();
	return r;
}

static int fill(void *arg, void *rec, struct err *e)
{
	struct listing *li = arg;

	while (li->depth) {
		struct level *l = &li->levels[li->depth - 1];

		if (!l->order) {
			int r = read_slice(li, l, e);

			return r < 0 ? r : ITEMS_LATER;
		}
		if (l->i == l->n) {
			pop(li);
			continue;
		}
		if (name_entry(li, l) && describe(li, l) == 0) {
			memcpy(rec, &li->facts.info, sizeof(li->facts.info));
			return ITEMS_ONE;
		}
		l->i++; /* gone since, or its path is too long */
	}
	return ITEMS_END;
}

static void advance(void *arg)
{
	struct listing *li = arg;
	struct level *l = &li->levels[li->depth - 1];
	const char *name = l->order[l->i++];

	if (!span_is(li->facts.info.kind, "directory") || li->depth == li->max_depth)
		return;
	user_enter(&li->user);
	(void)push(li, l->fd, name, O_NOFOLLOW, strlen(li->path));
	user_leave();
}

static const struct items_source source = {&rec_file_info_type, fill, advance, listing_free};

void file_list_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_ref *rq = rec;
	struct listing *li = mem_new(sizeof(*li));
	char path[FILE_PATH_SIZE];
	struct err e = ERR_INIT;
	int r = agent_user(a, rq->user, &li->user, &e);

	li->max_depth = rq->depth ? (size_t)rq->depth : 1;
	if (r == 0)
		r = file_path(rq->path, &li->user, path, &e);
	if (r == 0) {
		user_enter(&li->user);
		r = push(li, AT_FDCWD, path, 0, 0);
		user_leave();
		if (r == -ENOTDIR)
			r = err_set(&e, ERR_INVALID, "'%s' is not a directory", path);
		else if (r < 0)
			r = file_error(&e, r, path);
	}
	if (r < 0) {
		stream_fail(s, &e);
		listing_free(li);
		return;
	}
	file_names_load(&li->names);
	items_start(s, &source, li);
}
