/* guest/session_output.c - from a program's pipes into the ring, and on to its followers */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/session_int.h"
#include "loop/link.h"
#include "sys/fd.h"

enum {
	PIECE = 2 * OUTPUT_CHUNK_MAX, /* of one read: what a pipe holds */
	PARK_BELOW = 4096,	      /* less room: wait for the readers, chunks would be crumbs */
};

/* ---- sources ---- */

static struct loop *loop_of(const struct session *ss)
{
	return ss->all->c.loop;
}

static void park(struct source *src)
{
	/* Not just without LOOP_READ: a hang-up would be reported all the time. */
	loop_io_del(loop_of(src->session), &src->io);
	src->is_parked = true;
}

static void at_end(struct source *src)
{
	loop_io_del(loop_of(src->session), &src->io);
	src->fd = sys_close(src->fd);
	src->owed = 0;
}

static void take(struct source *src, const void *p, size_t n)
{
	struct session *ss = src->session;

	output_put(&ss->output, session_keep(ss), src->tag, p, n);
	src->owed -= MIN(src->owed, n);
	subscribers_pump(ss);
}

static void on_source(struct loop_io *io, unsigned events)
{
	struct source *src = CONTAINER_OF(io, struct source, io);
	struct session *ss = src->session;
	size_t room = output_room(&ss->output, session_keep(ss));
	char buf[PIECE];
	ssize_t r;

	(void)events;
	if (room < PARK_BELOW) {
		park(src);
		return;
	}
	r = sys_read(src->fd, buf, MIN(room, sizeof(buf)));
	if (r > 0)
		take(src, buf, (size_t)r);
	else if (r == -EAGAIN)
		src->owed = 0; /* somebody else took it: pipes can be opened through /proc */
	else
		at_end(src); /* EIO from a terminal that was hung up is its end, too */
	session_maybe_end(ss);
}

int source_open(struct source *src, struct session *ss, int fd, enum output_tag tag, struct err *e)
{
	int r;

	*src = (struct source){.session = ss, .fd = fd, .tag = tag};
	r = sys_nonblock(fd, true);
	if (r == 0)
		r = loop_io_add(loop_of(ss), &src->io, fd, LOOP_READ, on_source);
	return r < 0 ? err_sys(e, r, "follow the program's output") : 0;
}

void source_close(struct source *src)
{
	if (!src->session || src->fd < 0)
		return;
	loop_io_del(loop_of(src->session), &src->io);
	sinks_add(src->session->all->c.sinks, take_fd(&src->fd));
}

static void resume(struct source *src)
{
	if (!src->session || !src->is_parked || src->fd < 0)
		return;
	src->is_parked = false;
	if (loop_io_add(loop_of(src->session), &src->io, src->fd, LOOP_READ, on_source) < 0)
		at_end(src);
}

void sources_resume(struct session *ss)
{
	if (ss->state == SESSION_ENDED ||
	    output_room(&ss->output, session_keep(ss)) < PARK_BELOW)
		return;
	resume(&ss->out);
	resume(&ss->err);
}

static void note_owed(struct source *src)
{
	int n = 0;

	if (src->session && src->fd >= 0 && ioctl(src->fd, FIONREAD, &n) == 0 && n > 0)
		src->owed = (size_t)n;
}

void sources_note_owed(struct session *ss)
{
	note_owed(&ss->out);
	note_owed(&ss->err);
}

/* ---- followers ---- */

static uint64_t consumed(const struct subscriber *u)
{
	return u->stream ? stream_peer_consumed(u->stream) : u->consumed;
}

uint64_t session_keep(const struct session *ss)
{
	uint64_t keep = output_tail(&ss->output);

	LIST_FOR_EACH(pos, &ss->subscribers) {
		const struct subscriber *u = LIST_ENTRY(pos, struct subscriber, link);

		if (!u->drop)
			keep = MIN(keep, consumed(u));
	}
	return keep;
}

/* A whole chunk, or what is left of it, or nothing: what may be dropped is never torn. */
static bool send_chunk(struct subscriber *u, uint64_t at)
{
	const struct output *o = &u->session->output;
	uint64_t end = output_chunk_end(o, at);
	size_t n;

	if (stream_credit(u->stream) < end - at)
		return false;
	for (; at < end; at += n) {
		const void *p = output_at(o, at, &n);

		n = MIN(n, (size_t)(end - at));
		stream_push(u->stream, p, n);
	}
	return true;
}

static bool send_piece(struct subscriber *u, uint64_t at)
{
	size_t n;
	const void *p = output_at(&u->session->output, at, &n);

	return stream_send(u->stream, p, n) == n;
}

/* May free @u: the end of its stream can be its close. */
static void pump(struct subscriber *u)
{
	const struct output *o = &u->session->output;
	bool more = true;

	if (!u->stream || !stream_is_replied(u->stream))
		return;
	if (stream_sent(u->stream) < output_head(o))
		stream_skip(u->stream, output_head(o));
	while (more && stream_sent(u->stream) < output_tail(o))
		more = u->drop ? send_chunk(u, stream_sent(u->stream))
			       : send_piece(u, stream_sent(u->stream));
	if (u->session->state == SESSION_ENDED && stream_sent(u->stream) == output_tail(o))
		stream_end(u->stream);
}

void subscribers_pump(struct session *ss)
{
	LIST_FOR_EACH_SAFE(pos, &ss->subscribers)
		pump(LIST_ENTRY(pos, struct subscriber, link));
}

static void detached(struct session *ss)
{
	if (ss->n_subscribers == 0 && ss->kill_on_detach && ss->state != SESSION_ENDED)
		session_kill(ss, "detached");
	sources_resume(ss);
}

void subscriber_free(struct subscriber *u)
{
	struct session *ss = u->session;

	if (ss->in.owner == u)
		ss->in.owner = NULL;
	loop_timer_cancel(loop_of(ss), &u->lost);
	list_del(&u->link);
	ss->n_subscribers--;
	free(u);
	detached(ss);
}

static void on_lost(struct loop_timer *t)
{
	subscriber_free(CONTAINER_OF(t, struct subscriber, lost));
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct subscriber *u = stream_arg(s);

	input_data(&u->session->in, u, offset, bytes);
}

static void on_writable(struct stream *s)
{
	struct subscriber *u = stream_arg(s);
	struct session *ss = u->session;

	pump(u);
	sources_resume(ss);
}

static void on_end(struct stream *s, uint64_t offset)
{
	struct subscriber *u = stream_arg(s);

	(void)offset;
	input_end(&u->session->in, u);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct subscriber *u = stream_arg(s);
	struct session *ss = u->session;

	if (!why || link_is_up(stream_link(s))) { /* complete, or its client left */
		subscriber_free(u);
		return;
	}
	u->consumed = stream_peer_consumed(s); /* SESSION-4 */
	u->stream = NULL;
	if (ss->in.owner == u)
		ss->in.owner = NULL;
	loop_timer_set(loop_of(ss), &u->lost, loop_now(loop_of(ss)) + SESSION_LOST_NS, on_lost);
}

static const struct stream_ops ops = {
	.data = on_data,
	.writable = on_writable,
	.end = on_end,
	.closed = on_closed,
};

struct subscriber *subscriber_new(struct session *ss, struct stream *s, bool drop)
{
	struct subscriber *u = mem_new(sizeof(*u));

	assert(ss->n_subscribers < LIMIT_SUBSCRIBERS);
	*u = (struct subscriber){.session = ss, .stream = s, .drop = drop};
	list_add_tail(&ss->subscribers, &u->link);
	ss->n_subscribers++;
	stream_accept(s, &ops, u);
	return u;
}

void subscriber_replace_lost(struct session *ss, uint64_t offset)
{
	struct subscriber *best = NULL;

	LIST_FOR_EACH(pos, &ss->subscribers) {
		struct subscriber *u = LIST_ENTRY(pos, struct subscriber, link);

		if (u->stream)
			continue;
		if (!best || (u->consumed <= offset && u->consumed > best->consumed))
			best = u;
	}
	if (best)
		subscriber_free(best);
}
