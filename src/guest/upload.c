/*
 * guest/upload.c - file.write: a new file appears whole or not at all
 *
 * Bytes go into a temporary file beside the target, which takes its name at the
 * end. Appending writes to the file itself and takes back what a broken
 * upload had added.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/file.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

enum { LINKS_MAX = 8, NAME_SIZE = 256, DEFAULT_MODE = 0644 };

struct upload {
	struct stream *s;
	struct user user;
	int dir_fd, fd;
	bool append, is_done;
	off_t size_before; /* append */
	uint64_t at;	   /* offset of the stream: how far it is written */
	uint64_t mtime_ns;
	mode_t mode;
	char path[FILE_PATH_SIZE], name[NAME_SIZE], temporary[NAME_SIZE];
};

static void undo(struct upload *up)
{
	if (up->is_done || up->fd < 0)
		return;
	user_enter(&up->user);
	if (up->append)
		(void)!ftruncate(up->fd, up->size_before);
	else
		(void)unlinkat(up->dir_fd, up->temporary, 0);
	user_leave();
}

static void upload_free(struct upload *up)
{
	undo(up);
	(void)sys_close(up->fd);
	(void)sys_close(up->dir_fd);
	free(up);
}

static void fail(struct upload *up, int r)
{
	struct stream *s = up->s;
	struct err e = ERR_INIT;

	(void)file_error(&e, r, up->path);
	upload_free(up);
	stream_fail(s, &e);
}

/* ---- opening ---- */

/* Replace @path by where the link at its end points; -ELOOP after too many. */
static int follow(char *path, const char *target)
{
	char *slash = strrchr(path, '/');
	size_t room = FILE_PATH_SIZE, keep = target[0] == '/' ? 0 : (size_t)(slash - path) + 1;

	if (keep + strlen(target) >= room)
		return -ENAMETOOLONG;
	memcpy(path + keep, target, strlen(target) + 1);
	return 0;
}

/* The directory and name to write to, links at the end followed. */
static int open_place(struct upload *up, bool make)
{
	char target[FILE_PATH_SIZE];

	for (int i = 0; i < LINKS_MAX; i++) {
		char *name;
		ssize_t n;
		int r;

		up->dir_fd = file_open_parent(up->path, make, &name);
		if (up->dir_fd < 0)
			return up->dir_fd;
		if (strlen(name) >= sizeof(up->name))
			return -ENAMETOOLONG;
		memcpy(up->name, name, strlen(name) + 1);
		n = readlinkat(up->dir_fd, name, target, sizeof(target) - 1);
		if (n <= 0)
			return 0;
		target[n] = '\0';
		up->dir_fd = sys_close(up->dir_fd);
		r = follow(up->path, target);
		if (r < 0)
			return r;
	}
	return -ELOOP;
}

static int open_append(struct upload *up)
{
	struct stat st;
	int r = up->fd = sys_openat(up->dir_fd, up->name,
				    O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY,
				    up->mode);

	if (r < 0)
		return r;
	if (fstat(up->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode)) {
		up->fd = sys_close(up->fd);
		return -ENXIO;
	}
	up->size_before = st.st_size;
	return 0;
}

static int open_new(struct upload *up)
{
	struct stat st;
	uint64_t random;
	int r = sys_random(&random, sizeof(random));

	if (r < 0)
		return r;
	if (fstatat(up->dir_fd, up->name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -ENXIO;
	(void)snprintf(up->temporary, sizeof(up->temporary), ".hotcell-upload-%016" PRIx64, random);
	up->fd = sys_openat(up->dir_fd, up->temporary,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
	return up->fd < 0 ? up->fd : 0;
}

static int open_target(struct upload *up, bool make)
{
	int r;

	user_enter(&up->user);
	r = open_place(up, make);
	if (r == 0)
		r = up->append ? open_append(up) : open_new(up);
	user_leave();
	return r;
}

/* ---- the stream ---- */

/* What the sender skipped up to @offset is a hole. */
static int leave_hole(struct upload *up, uint64_t offset)
{
	uint64_t to = (uint64_t)up->size_before + offset;
	int64_t r;

	if (offset <= up->at)
		return 0;
	if (to > INT64_MAX)
		return -EFBIG;
	r = sys_truncate(up->fd, to);
	if (r == 0)
		r = sys_seek(up->fd, to, SEEK_SET);
	up->at = offset;
	return r < 0 ? (int)r : 0;
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct upload *up = stream_arg(s);
	int r = leave_hole(up, offset);

	if (r == 0)
		r = sys_write_full(up->fd, bytes.p, bytes.n);
	up->at += bytes.n;
	if (r < 0)
		fail(up, r);
	else
		stream_consumed(s, bytes.n);
}

static int commit(struct upload *up)
{
	struct timespec times[2];
	int r = 0;

	user_enter(&up->user);
	if (!up->append && fchmod(up->fd, up->mode) < 0)
		r = -errno;
	file_times(up->mtime_ns, times);
	if (r == 0 && up->mtime_ns && futimens(up->fd, times) < 0)
		r = -errno;
	if (r == 0 && !up->append &&
	    renameat(up->dir_fd, up->temporary, up->dir_fd, up->name) < 0)
		r = -errno;
	user_leave();
	up->is_done = r == 0;
	return r;
}

static void on_end(struct stream *s, uint64_t offset)
{
	struct upload *up = stream_arg(s);
	struct file_facts facts;
	struct file_names names;
	int r = leave_hole(up, offset);

	if (r == 0)
		r = commit(up);
	if (r == 0) {
		file_names_load(&names);
		r = file_look(up->dir_fd, up->name, up->path, false, &names, &facts);
		if (r == 0) /* may close, and free, at once */
			(void)stream_reply(s, &rec_file_info_type, &facts.info, false, NULL, 0, NULL);
		file_names_free(&names);
	}
	if (r < 0)
		fail(up, r);
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	upload_free(stream_arg(s));
}

static const struct stream_ops ops = {.data = on_data, .end = on_end, .closed = on_closed};

void file_write_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_write *rq = rec;
	struct upload *up = mem_new(sizeof(*up));
	struct err e = ERR_INIT;
	int r;

	*up = (struct upload){
		.s = s,
		.dir_fd = -1,
		.fd = -1,
		.append = rq->append,
		.mtime_ns = rq->mtime_ns,
		.mode = rq->mode || rq->exact ? (mode_t)rq->mode : DEFAULT_MODE,
	};
	r = agent_user(a, rq->user, &up->user, &e);
	if (r == 0)
		r = file_path(rq->path, &up->user, up->path, &e);
	if (r < 0) {
		upload_free(up);
		stream_fail(s, &e);
		return;
	}
	r = open_target(up, rq->parents);
	if (r == -ENXIO) {
		err_set(&e, ERR_INVALID, "'%s' is not a regular file", up->path);
		upload_free(up);
		stream_fail(s, &e);
	} else if (r < 0) {
		fail(up, r);
	} else {
		stream_accept(s, &ops, up);
	}
}
