/*
 * guest/watch.c - file.watch: changes below a directory
 *
 * One inotify instance per watch. While the reader takes nothing, events wait in
 * the kernel's queue; when that overflows, the reader is told "overflow", the
 * one event after which it must look for itself. A new directory is watched
 * first and read then, so nothing made in it is missed; it may be told twice.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/list.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/file.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

enum {
	DIRS_MAX = 8192,    /* directories of one watch */
	QUEUE_MAX = 8192,   /* events waiting for the reader */
	QUEUE_PAUSE = 1024, /* above: no more are fetched from the kernel */
	MASK = IN_CREATE | IN_MODIFY | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ATTRIB |
	       IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK,
};

struct event {
	struct list link;
	const char *kind; /* static */
	char path[];
};

struct watched {
	int wd;
	char *path; /* relative to the root; "" is the root */
};

struct watch {
	struct agent *agent;
	struct stream *s;
	struct loop_io io;
	int fd, root_fd;
	bool recursive, overflowed;
	struct user user;
	struct watched *dirs;
	size_t n_dirs, cap_dirs;
	struct list queue;
	size_t n_queue;
};

static void watch_free(struct watch *w)
{
	loop_io_del(w->agent->loop, &w->io);
	(void)sys_close(w->fd);
	(void)sys_close(w->root_fd);
	for (size_t i = 0; i < w->n_dirs; i++)
		free(w->dirs[i].path);
	free(w->dirs);
	while (!list_empty(&w->queue)) {
		struct list *first = w->queue.next;

		list_del(first);
		free(LIST_ENTRY(first, struct event, link));
	}
	w->agent->watches--;
	free(w);
}

/* ---- to the reader ---- */

static void say(struct watch *w, const char *kind, const char *path)
{
	struct event *ev;

	if (w->overflowed)
		return; /* said already, and not yet read */
	if (w->n_queue == QUEUE_MAX) {
		w->overflowed = true;
		kind = "overflow";
		path = "";
	}
	ev = mem_new(sizeof(*ev) + strlen(path) + 1);
	ev->kind = kind;
	memcpy(ev->path, path, strlen(path) + 1);
	list_add_tail(&w->queue, &ev->link);
	w->n_queue++;
}

static void on_events(struct loop_io *io, unsigned events);

static void deliver(struct watch *w)
{
	while (!list_empty(&w->queue)) {
		struct event *ev = LIST_ENTRY(w->queue.next, struct event, link);
		struct rec_file_event rec = {span_of(ev->kind), span_of(ev->path)};

		if (!stream_send_item(w->s, &rec_file_event_type, &rec))
			break;
		list_del(&ev->link);
		w->n_queue--;
		free(ev);
	}
	if (list_empty(&w->queue))
		w->overflowed = false;
	if (w->n_queue > QUEUE_PAUSE)
		loop_io_del(w->agent->loop, &w->io);
	else if (!w->io.added)
		(void)loop_io_add(w->agent->loop, &w->io, w->fd, LOOP_READ, on_events);
}

/* ---- directories ---- */

static struct watched *find_wd(struct watch *w, int wd)
{
	for (size_t i = 0; i < w->n_dirs; i++)
		if (w->dirs[i].wd == wd)
			return &w->dirs[i];
	return NULL;
}

static void forget(struct watch *w, struct watched *dir)
{
	free(dir->path);
	*dir = w->dirs[--w->n_dirs];
}

/* A directory moved away: what is below it has another path now, or is none of ours. */
static void forget_below(struct watch *w, const char *path)
{
	size_t n = strlen(path);

	for (size_t i = 0; i < w->n_dirs;) {
		const char *p = w->dirs[i].path;

		if (strncmp(p, path, n) != 0 || (p[n] != '/' && p[n] != '\0')) {
			i++;
			continue;
		}
		(void)inotify_rm_watch(w->fd, w->dirs[i].wd);
		forget(w, &w->dirs[i]);
	}
}

static int remember(struct watch *w, int wd, const char *path)
{
	struct watched *known = find_wd(w, wd);

	if (known) {
		free(known->path);
		known->path = mem_strdup(path);
		return 0;
	}
	if (w->n_dirs == DIRS_MAX)
		return -ENOSPC;
	if (w->n_dirs == w->cap_dirs) {
		size_t cap = w->cap_dirs ? 2 * w->cap_dirs : 16;
		struct watched *more = realloc(w->dirs, cap * sizeof(*more));

		if (!more)
			return -ENOMEM;
		w->dirs = more;
		w->cap_dirs = cap;
	}
	w->dirs[w->n_dirs++] = (struct watched){wd, mem_strdup(path)};
	return 0;
}

static int watch_dir(struct watch *w, const char *path)
{
	AUTO_CLOSE int fd = *path ? sys_open_beneath(w->root_fd, path, O_RDONLY | O_DIRECTORY, 0)
				  : sys_openat(w->root_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	int wd;

	if (fd < 0)
		return fd;
	/* From inside: what is watched is what was opened, whatever the names say meanwhile. */
	if (fchdir(fd) < 0)
		return -errno;
	wd = inotify_add_watch(w->fd, ".", MASK);
	if (wd < 0)
		wd = -errno;
	if (chdir("/") < 0)
		return -errno;
	return wd < 0 ? wd : remember(w, wd, path);
}

static void add_tree(struct watch *w, const char *path, bool tell, unsigned depth);

static void add_entry(struct watch *w, int dirfd, const char *path, const char *name, bool tell,
		      unsigned depth)
{
	char full[FILE_PATH_SIZE];
	struct stat st;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
	    snprintf(full, sizeof(full), "%s%s%s", path, *path ? "/" : "", name) >=
		    (int)sizeof(full) ||
	    fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (tell)
		say(w, "create", full);
	if (S_ISDIR(st.st_mode))
		add_tree(w, full, tell, depth + 1);
}

/* Watch @path and all below it; @tell what is there already. */
static void add_tree(struct watch *w, const char *path, bool tell, unsigned depth)
{
	int r = depth > LIMIT_LIST_DEPTH ? -ELOOP : watch_dir(w, path);
	int fd;
	DIR *d;

	if (r == -ENOSPC || r == -ENOMEM || r == -ELOOP)
		say(w, "overflow", path); /* more directories than can be watched */
	if (r < 0 || !w->recursive)
		return; /* gone again, or not ours to read */
	fd = *path ? sys_open_beneath(w->root_fd, path, O_RDONLY | O_DIRECTORY, 0)
		   : sys_openat(w->root_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (!d) {
		(void)sys_close(fd);
		return;
	}
	for (struct dirent *ent = readdir(d); ent; ent = readdir(d))
		add_entry(w, dirfd(d), path, ent->d_name, tell, depth);
	(void)closedir(d);
}

/* ---- from the kernel ---- */

static const struct {
	uint32_t mask;
	const char *kind;
} kinds[] = {
	{IN_CREATE, "create"},	   {IN_MOVED_TO, "create"}, {IN_MODIFY, "write"},
	{IN_DELETE, "remove"},	   {IN_MOVED_FROM, "rename"}, {IN_ATTRIB, "chmod"},
	{IN_Q_OVERFLOW, "overflow"},
};

static const char *kind_of(uint32_t mask)
{
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (mask & kinds[i].mask)
			return kinds[i].kind;
	return NULL;
}

static void handle(struct watch *w, const struct inotify_event *ev)
{
	struct watched *dir = find_wd(w, ev->wd);
	const char *kind = kind_of(ev->mask);
	char path[FILE_PATH_SIZE];

	if (ev->mask & IN_Q_OVERFLOW) {
		say(w, kind, "");
		return;
	}
	if (!dir)
		return;
	if (ev->mask & IN_IGNORED) {
		forget(w, dir);
		return;
	}
	if (ev->mask & (IN_DELETE_SELF | IN_MOVE_SELF)) {
		if (!*dir->path)
			say(w, "remove", "");
		return;
	}
	if (!kind || !ev->len ||
	    snprintf(path, sizeof(path), "%s%s%s", dir->path, *dir->path ? "/" : "", ev->name) >=
		    (int)sizeof(path))
		return;
	say(w, kind, path);
	if (!w->recursive || !(ev->mask & IN_ISDIR))
		return;
	if (ev->mask & (IN_CREATE | IN_MOVED_TO)) {
		user_enter(&w->user);
		add_tree(w, path, true, 1);
		user_leave();
	} else if (ev->mask & IN_MOVED_FROM) {
		forget_below(w, path);
	}
}

static void on_events(struct loop_io *io, unsigned events)
{
	struct watch *w = CONTAINER_OF(io, struct watch, io);
	_Alignas(struct inotify_event) char buf[16384];
	ssize_t n = sys_read(w->fd, buf, sizeof(buf));

	(void)events;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const void *)(buf + at);

		handle(w, ev);
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
	deliver(w);
}

/* ---- the call ---- */

static void on_writable(struct stream *s)
{
	deliver(stream_arg(s));
}

static void on_end(struct stream *s, uint64_t offset)
{
	(void)s;
	(void)offset; /* a watch lasts until its reader resets the call */
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	watch_free(stream_arg(s));
}

static const struct stream_ops ops = {.writable = on_writable, .end = on_end, .closed = on_closed};

static int open_root(struct watch *w, const char *path, struct err *e)
{
	int r;

	user_enter(&w->user);
	r = w->root_fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK);
	if (r >= 0) {
		r = watch_dir(w, "");
		if (r == 0 && w->recursive)
			add_tree(w, "", false, 0);
	}
	user_leave();
	if (r == -ENOTDIR)
		return err_set(e, ERR_INVALID, "'%s' is not a directory", path);
	return r < 0 ? file_error(e, r, path) : 0;
}

static int prepare(struct watch *w, const struct rec_file_ref *rq, struct err *e)
{
	char path[FILE_PATH_SIZE];
	int r;

	if (w->agent->watches > LIMIT_FILE_WATCHES)
		return err_set(e, ERR_LIMIT, "%d file watches are open, no more can be",
			       LIMIT_FILE_WATCHES);
	r = agent_user(w->agent, rq->user, &w->user, e);
	if (r == 0)
		r = file_path(rq->path, &w->user, path, e);
	if (r < 0)
		return r;
	w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w->fd < 0)
		return err_sys(e, -errno, "watch files");
	r = open_root(w, path, e);
	if (r < 0)
		return r;
	r = loop_io_add(w->agent->loop, &w->io, w->fd, LOOP_READ, on_events);
	return r < 0 ? err_sys(e, r, "watch files") : 0;
}

void file_watch_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_ref *rq = rec;
	struct watch *w = mem_new(sizeof(*w));
	struct rec_empty none = {0};
	struct err e = ERR_INIT;

	*w = (struct watch){
		.agent = a,
		.s = s,
		.fd = -1,
		.root_fd = -1,
		.recursive = rq->recursive,
	};
	list_init(&w->queue);
	a->watches++;
	if (prepare(w, rq, &e) < 0) {
		watch_free(w);
		stream_fail(s, &e);
		return;
	}
	stream_accept(s, &ops, w);
	(void)stream_reply(s, &rec_empty_type, &none, true, NULL, 0, NULL);
	deliver(w);
}
