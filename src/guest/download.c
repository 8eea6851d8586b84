/* guest/download.c - file.read: a file as fast as its reader takes it */
#include <errno.h>
#include <fcntl.h>
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
#include "sys/fd.h"
#include "wire/gen/records.h"

enum { PIECE = 65536 };

struct download {
	struct stream *s;
	int fd;
	uint64_t at, end;  /* end: UINT64_MAX: where the file ends */
	uint64_t start;	   /* `at` of the stream's first byte */
	uint64_t data_end; /* holes are looked for: up to here there is none */
	bool holes;
	char path[FILE_PATH_SIZE];
};

static void download_free(struct download *d)
{
	(void)sys_close(d->fd);
	free(d);
}

static void fail(struct download *d, int r)
{
	struct err e = ERR_INIT;

	if (r == -EAGAIN)
		err_set(&e, ERR_UNSUPPORTED, "'%s' would make its reader wait: it is no plain file",
			d->path);
	else
		(void)file_error(&e, r, d->path);
	stream_fail(d->s, &e);
	download_free(d);
}

/* On to the next data, or to the end. A file system that knows no holes has none. */
static int skip_hole(struct download *d)
{
	int64_t data = sys_seek(d->fd, d->at, SEEK_DATA), hole;
	struct stat st;

	if (data == -ENXIO) { /* nothing but a hole, or cut since */
		if (fstat(d->fd, &st) < 0)
			return -errno;
		data = hole = MAX(st.st_size, (int64_t)d->at);
	} else {
		hole = data < 0 ? data : sys_seek(d->fd, (uint64_t)data, SEEK_HOLE);
	}
	if (data < 0 || hole < 0) {
		d->holes = false;
		return 0;
	}
	d->at = MIN((uint64_t)data, d->end);
	d->data_end = MIN((uint64_t)hole, d->end);
	if (d->at - d->start > stream_sent(d->s))
		stream_skip(d->s, d->at - d->start);
	d->holes = d->at < d->data_end; /* else it is the end */
	return 0;
}

static ssize_t next_piece(struct download *d, char *buf, size_t want)
{
	int r = d->holes && d->at >= d->data_end ? skip_hole(d) : 0;

	if (r < 0)
		return r;
	want = (size_t)MIN((uint64_t)want, d->end - d->at);
	if (d->holes)
		want = (size_t)MIN((uint64_t)want, d->data_end - d->at);
	return want ? sys_pread(d->fd, buf, want, d->at) : 0;
}

/* Ends by itself when the stream takes no more; may free @d. */
static void pump(struct download *d)
{
	char buf[PIECE];

	while (stream_credit(d->s)) {
		ssize_t n = next_piece(d, buf, MIN(sizeof(buf), stream_credit(d->s)));
		size_t sent;

		if (n < 0) {
			fail(d, (int)n);
			return;
		}
		if (n == 0) {
			stream_end(d->s); /* `closed` frees */
			return;
		}
		sent = stream_send(d->s, buf, (size_t)n);
		d->at += sent;
		if (sent < (size_t)n)
			return; /* the link is full: `writable` follows */
	}
}

static void on_writable(struct stream *s)
{
	pump(stream_arg(s));
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	download_free(stream_arg(s));
}

static const struct stream_ops ops = {.writable = on_writable, .closed = on_closed};

static int open_file(const char *path, struct err *e)
{
	/* Never wait in open: it may be a pipe nobody writes to. */
	AUTO_CLOSE int fd = sys_open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
	struct stat st;

	if (fd < 0)
		return fd == -ENXIO ? err_set(e, ERR_INVALID, "'%s' is not a regular file", path)
				    : file_error(e, fd, path);
	if (fstat(fd, &st) < 0)
		return file_error(e, -errno, path);
	if (S_ISDIR(st.st_mode))
		return file_error(e, -EISDIR, path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INVALID, "'%s' is not a regular file", path);
	return take_fd(&fd);
}

static int prepare(struct agent *a, const struct rec_file_read *rq, struct download *d,
		   struct file_facts *facts, struct file_names *names, struct err *e)
{
	struct user user;
	int r = agent_user(a, rq->user, &user, e);

	if (r == 0)
		r = file_path(rq->path, &user, d->path, e);
	if (r < 0)
		return r;
	user_enter(&user);
	r = d->fd = open_file(d->path, e);
	if (r >= 0 && (r = file_look(AT_FDCWD, d->path, d->path, true, names, facts)) < 0)
		r = file_error(e, r, d->path);
	user_leave();
	return r;
}

void file_read_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_read *rq = rec;
	struct download *d = mem_new(sizeof(*d));
	struct file_facts facts;
	struct file_names names;
	struct err e = ERR_INIT;
	int r;

	*d = (struct download){.s = s, .fd = -1, .at = rq->offset, .start = rq->offset, .end = UINT64_MAX,
			       .holes = rq->holes};
	if (rq->length && rq->length < UINT64_MAX - rq->offset)
		d->end = rq->offset + rq->length;
	file_names_load(&names);
	r = prepare(a, rq, d, &facts, &names, &e);
	/* What is added meanwhile is not what was announced. Files of /proc say 0 and have content. */
	if (r >= 0 && facts.info.size)
		d->end = MIN(d->end, MAX(facts.info.size, d->at));
	if (r >= 0 && d->at > INT64_MAX)
		r = err_set(&e, ERR_INVALID, "offset: no file is that long");
	if (r < 0) {
		stream_fail(s, &e);
		download_free(d);
	} else {
		stream_accept(s, &ops, d);
		(void)stream_reply(s, &rec_file_info_type, &facts.info, true, NULL, 0, NULL);
		pump(d);
	}
	file_names_free(&names);
}
