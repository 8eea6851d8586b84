/*
 * client/fuzz_link.h - the client's link, connection and loop in memory, for fuzz targets
 *
 * It defines what loop/link.h, client/conn.h and loop/loop.h declare, as far as exec.c, code.c and file.c call it,
 * so those run as they are, without a descriptor or a system call. Whoever includes it is the peer: fz_reply(),
 * fz_data(), fz_end() and fz_close() say what a real link would let through, and nothing else.
 */
#pragma once
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/list.h"
#include "base/macro.h"
#include "client/conn.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { FZ_STREAMS = 16 };

struct loop {
	struct list calls;
	struct loop_timer *timer;
	uint64_t now;
};

struct link {
	bool up;
};

struct stream {
	const struct stream_ops *ops;
	void *arg;
	struct link *link;
	unsigned method;
	bool open, replied, rx_ended, tx_ended;
	uint64_t rx_offset, held;	   /* received */
	uint64_t tx_offset, sent, granted; /* of this side */
};

struct conn {
	struct loop loop;
	struct link link;
	struct conn_watch *watch;
	struct stream streams[FZ_STREAMS];
	struct stream *last;   /* the call at hand */
	uint64_t features;     /* of the agent */
	/* A step of the peer while a call blocks; false: it says no more. */
	bool (*play)(struct conn *c, struct conn_op *op);
	/* What was sent: p NULL: @n bytes were skipped. */
	void (*sent)(struct conn *c, struct stream *s, const void *p, uint64_t n);
	void *arg;
};

static struct conn *fz; /* the only one */

static inline void fz_init(struct conn *c)
{
	*c = (struct conn){.link.up = true};
	list_init(&c->loop.calls);
	fz = c;
}

/* ---- the loop ---- */

void loop_defer(struct loop *l, struct loop_call *c, void (*cb)(struct loop_call *c))
{
	c->cb = cb;
	if (!c->queued)
		list_add_tail(&l->calls, &c->link);
	c->queued = true;
}

void loop_call_cancel(struct loop *l, struct loop_call *c)
{
	(void)l;
	if (c->queued)
		list_del(&c->link);
	c->queued = false;
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns, void (*cb)(struct loop_timer *t))
{
	t->cb = cb;
	t->at_ns = at_ns;
	l->timer = t;
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	if (l->timer == t)
		l->timer = NULL;
}

/* What was deferred, and what that defers, until nothing is. */
static inline void fz_turn(struct conn *c)
{
	while (!list_empty(&c->loop.calls)) {
		struct loop_call *call = LIST_ENTRY(c->loop.calls.next, struct loop_call, link);

		loop_call_cancel(&c->loop, call);
		call->cb(call);
	}
}

/* ---- the link ---- */

bool link_is_up(const struct link *k)
{
	return k->up;
}

int link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more, const int *fds,
	      unsigned n_fds, const struct stream_ops *ops, void *arg, struct stream **ret, struct err *e)
{
	int r = rec_check(t, rec, e);

	(void)fds;
	(void)n_fds;
	for (size_t i = 0; i < FZ_STREAMS && r == 0; i++) {
		struct stream *s = &fz->streams[i];

		if (s->open)
			continue;
		*s = (struct stream){.ops = ops, .arg = arg, .link = k, .method = method, .open = true,
				     .tx_ended = !more, .granted = LIMIT_WINDOW};
		if (ret) {
			*ret = s;
			fz->last = s;
		} else {
			s->open = false; /* its answer is not wanted */
		}
		return 0;
	}
	return r < 0 ? r : err_set(e, ERR_LIMIT, "too many streams");
}

void *stream_arg(const struct stream *s)
{
	return s->arg;
}

struct link *stream_link(const struct stream *s)
{
	return s->link;
}

void stream_reset(struct stream *s)
{
	assert(s->open);
	s->open = false;
}

size_t stream_send(struct stream *s, const void *p, size_t n)
{
	size_t take = (size_t)MIN((uint64_t)n, s->granted - s->sent);

	assert(s->open && !s->tx_ended);
	if (fz->sent && take)
		fz->sent(fz, s, p, take);
	s->sent += take;
	s->tx_offset += take;
	return take;
}

uint64_t stream_sent(const struct stream *s)
{
	return s->tx_offset;
}

void stream_skip(struct stream *s, uint64_t to_offset)
{
	assert(s->open && !s->tx_ended && to_offset >= s->tx_offset);
	if (fz->sent)
		fz->sent(fz, s, NULL, to_offset - s->tx_offset);
	s->tx_offset = to_offset;
}

void stream_start_at(struct stream *s, uint64_t offset)
{
	s->tx_offset = offset;
}

uint64_t stream_peer_consumed(const struct stream *s)
{
	return s->tx_offset;
}

void stream_consumed(struct stream *s, size_t n)
{
	assert(s->open && n <= s->held); /* no more than came */
	s->held -= n;
}

void stream_consumed_to(struct stream *s, uint64_t offset)
{
	uint64_t dealt_with = s->rx_offset - s->held;

	assert(s->open);
	if (offset > dealt_with)
		s->held -= MIN(offset - dealt_with, s->held);
}

static inline void fz_close(struct stream *s, const struct err *why)
{
	if (!s->open)
		return;
	s->open = false;
	s->ops->closed(s, why);
}

static inline void fz_complete(struct stream *s)
{
	if (s->open && s->replied && s->rx_ended && s->tx_ended)
		fz_close(s, NULL);
}

void stream_end(struct stream *s)
{
	assert(s->open);
	s->tx_ended = true; /* `closed` comes later: LINK-5 */
}

static inline void fz_reply(struct stream *s, const void *p, size_t n)
{
	if (!s->open || s->replied)
		return;
	s->replied = true;
	if (s->ops->reply)
		s->ops->reply(s, (struct span){p, n}, NULL, 0);
	fz_complete(s);
}

static inline void fz_data(struct stream *s, uint64_t offset, const void *p, size_t n)
{
	if (!s->open || !s->replied || s->rx_ended || offset < s->rx_offset || offset > UINT64_C(1) << 62 ||
	    s->held + n > LIMIT_WINDOW || n == 0)
		return;
	s->rx_offset = offset + n;
	s->held += n;
	if (s->ops->data)
		s->ops->data(s, offset, (struct span){p, n});
}

static inline void fz_end(struct stream *s, uint64_t offset)
{
	if (!s->open || s->rx_ended || offset < s->rx_offset || offset > UINT64_C(1) << 62)
		return;
	s->rx_ended = true;
	if (s->ops->end)
		s->ops->end(s, offset);
	fz_complete(s);
}

/* The link is gone, and every call with it. */
static inline void fz_down(struct conn *c)
{
	const struct err why = {ERR_GONE, "the link is gone"};

	c->link.up = false;
	for (size_t i = 0; i < FZ_STREAMS; i++)
		fz_close(&c->streams[i], &why);
}

/* ---- the connection ---- */

struct loop *conn_loop(const struct conn *c)
{
	(void)c;
	return &fz->loop;
}

struct link *conn_link(const struct conn *c)
{
	(void)c;
	return fz->link.up ? &fz->link : NULL;
}

int conn_ready(struct conn *c, struct err *e)
{
	(void)e;
	c->link.up = true;
	return 0;
}

int conn_run(struct conn *c, struct conn_op *op, struct err *e)
{
	const struct err why = {ERR_CANCELED, "the peer says no more"};

	(void)e;
	while (!op->done && c->play(c, op))
		if (!op->done)
			fz_complete(c->last);
	if (!op->done)
		fz_complete(c->last);
	if (!op->done)
		fz_close(c->last, &why);
	assert(op->done);
	return 0;
}

int conn_call(struct conn *c, unsigned method, const void *req, struct str *bytes, void *ret, struct err *e)
{
	(void)req;
	(void)bytes;
	if (method != METHOD_GUEST_PING)
		return err_set(e, ERR_UNSUPPORTED, "not played");
	*(struct rec_guest_health *)ret = (struct rec_guest_health){.features = c->features};
	return 0;
}

void conn_revive(struct conn *c, struct conn_watch *w)
{
	c->watch = w;
}

void conn_unwatch(struct conn *c, struct conn_watch *w)
{
	if (c->watch == w)
		c->watch = NULL;
}
