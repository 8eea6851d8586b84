/* engine/relay.c - two streams, one credit */
#include "engine/relay.h"
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/gen/methods.h"

enum { RECORD_STRUCT_MAX = 1024 }; /* bytes of the largest decoded record */

struct relay {
	struct list link;
	struct relay_events events;
	const struct method_info *method;
	struct stream *down, *up; /* NULL: over */
	bool up_started, down_started;
	struct loop *loop;
	struct loop_timer limit;
	uint64_t until_ns, still_ns; /* when it is late; what had been stood still by its start */
};

static void relay_free(struct relay *r)
{
	loop_timer_cancel(r->loop, &r->limit);
	list_del(&r->link);
	free(r);
}

static void drop(struct relay *r)
{
	struct relay_events ev = r->events;

	relay_free(r);
	if (ev.over)
		ev.over(ev.arg);
}

static void drop_if_over(struct relay *r)
{
	if (!r->down && !r->up)
		drop(r);
}

/* The client is told, the guest's stream is withdrawn. */
static void fail(struct relay *r, const struct err *why)
{
	if (r->down)
		stream_fail(r->down, why);
	if (r->up)
		stream_reset(r->up);
	r->down = r->up = NULL;
}

static void broken(struct relay *r, const struct err *why)
{
	struct relay_events ev = r->events;

	fail(r, why);
	drop(r);
	ev.broken(ev.arg, why);
}

/* Bytes that arrived on one side leave on the other. @started: of the leaving side. */
static bool pass(struct stream *to, bool *started, uint64_t offset, struct span bytes)
{
	if (!*started)
		stream_start_at(to, offset);
	else if (offset > stream_sent(to))
		stream_skip(to, offset);
	*started = true;
	if (bytes.n > stream_credit(to)) /* RELAY-2 */
		return false;
	stream_push(to, bytes.p, bytes.n);
	return true;
}

static void pass_end(struct stream *to, bool started, uint64_t offset)
{
	if (!started)
		stream_start_at(to, offset);
	else if (offset > stream_sent(to)) /* the last bytes were skipped */
		stream_skip(to, offset);
	stream_end(to);
}

/* ---- the guest's side ---- */

static void up_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct relay *r = stream_arg(s);
	_Alignas(16) char rec[RECORD_STRUCT_MAX];
	struct err e = ERR_INIT;

	(void)fds; /* a guest's link carries no descriptors */
	(void)n_fds;
	if (r->method->reply->size > sizeof(rec))
		err_set(&e, ERR_INTERNAL, "%s is too large", r->method->reply->name);
	else
		(void)rec_decode(r->method->reply, payload.p, payload.n, rec, &e);
	if (e.code) {
		err_wrap(&e, "the guest's answer to %s", r->method->name);
		broken(r, &e);
		return;
	}
	if (r->events.replied)
		r->events.replied(r->events.arg, r->method, rec);
	if (r->down)
		stream_reply_raw(r->down, payload, true); /* its END follows when the guest's does */
}

static void up_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct relay *r = stream_arg(s);
	struct err e = ERR_INIT;

	if (!r->down || pass(r->down, &r->down_started, offset, bytes))
		return;
	err_set(&e, ERR_INVALID, "the guest sent bytes beyond the credit");
	broken(r, &e);
}

static void up_writable(struct stream *s)
{
	struct relay *r = stream_arg(s);

	if (r->down && r->up_started)
		stream_consumed_to(r->down, stream_peer_consumed(s));
}

static void up_end(struct stream *s, uint64_t offset)
{
	struct relay *r = stream_arg(s);

	if (r->down)
		pass_end(r->down, r->down_started, offset);
	r->down_started = true;
}

static void up_closed(struct stream *s, const struct err *why)
{
	struct relay *r = stream_arg(s);

	r->up = NULL;
	/*
	 * When the whole link is down the machine is probably ending. The client
	 * waits for the real reason: relay_end_all() brings it.
	 */
	if (why && r->down && link_is_up(stream_link(s))) {
		stream_fail(r->down, why);
		r->down = NULL;
	}
	drop_if_over(r);
}

/* ---- the client's side ---- */

static void down_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct relay *r = stream_arg(s);
	struct err e = ERR_INIT;

	if (!r->up || pass(r->up, &r->up_started, offset, bytes))
		return;
	err_set(&e, ERR_INVALID, "bytes beyond the credit");
	fail(r, &e);
	drop(r);
}

static void down_writable(struct stream *s)
{
	struct relay *r = stream_arg(s);

	if (r->up && r->down_started)
		stream_consumed_to(r->up, stream_peer_consumed(s));
}

static void down_end(struct stream *s, uint64_t offset)
{
	struct relay *r = stream_arg(s);

	if (r->up)
		pass_end(r->up, r->up_started, offset);
	r->up_started = true;
}

/* The client went away or withdrew the call: the guest decides what that means (on_detach). */
static void down_closed(struct stream *s, const struct err *why)
{
	struct relay *r = stream_arg(s);

	(void)s;
	r->down = NULL;
	if (why && r->up) {
		stream_reset(r->up);
		r->up = NULL;
	}
	drop_if_over(r);
}

/* ---- RELAY-3 ---- */

static void on_limit(struct loop_timer *t)
{
	struct relay *r = CONTAINER_OF(t, struct relay, limit);
	uint64_t due = r->until_ns + r->events.still_ns(r->events.arg) - r->still_ns;
	struct err e = ERR_INIT;

	if (loop_now(r->loop) < due) {
		loop_timer_set(r->loop, &r->limit, due, on_limit);
		return;
	}
	r->events.late(r->events.arg, &e);
	fail(r, &e);
	relay_free(r);
}

static void set_limit(struct relay *r)
{
	if (!r->events.limit_ms)
		return;
	r->until_ns = loop_now(r->loop) + r->events.limit_ms * NS_PER_MS;
	r->still_ns = r->events.still_ns(r->events.arg);
	loop_timer_set(r->loop, &r->limit, r->until_ns, on_limit);
}

/* ---- public ---- */

void relay_start(struct link *guest, const struct method_info *m, const void *rec,
		 struct stream *down, const struct relay_events *ev, struct list *owner)
{
	static const struct stream_ops up_ops = {
		.reply = up_reply,
		.data = up_data,
		.writable = up_writable,
		.end = up_end,
		.closed = up_closed,
	};
	static const struct stream_ops down_ops = {
		.data = down_data,
		.writable = down_writable,
		.end = down_end,
		.closed = down_closed,
	};
	struct relay *r = mem_new(sizeof(*r));
	struct err e = ERR_INIT;

	*r = (struct relay){.events = *ev, .method = m, .down = down, .loop = link_loop(guest)};
	list_init(&r->link);
	if (link_call(guest, m->number, m->request, rec, true, NULL, 0, &up_ops, r, &r->up, &e) < 0) {
		free(r);
		stream_fail(down, &e);
		return;
	}
	stream_accept(down, &down_ops, r);
	list_add_tail(owner, &r->link);
	set_limit(r);
}

void relay_end_all(struct list *owner, const struct err *why)
{
	struct list all;

	list_take(owner, &all);
	while (!list_empty(&all)) {
		struct relay *r = LIST_ENTRY(all.next, struct relay, link);

		fail(r, why);
		relay_free(r);
	}
}
