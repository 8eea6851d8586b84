/*
 * guest/t_peer.h - for tests: the host's side of the link, one call at a time.
 * Every function runs the loop until it has its answer or WAIT_MS have passed.
 */
#pragma once
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/code_frame.h"
#include "guest/output.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/bytes.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { WAIT_MS = 60000, KEEP_MAX = 96 * 1024 * 1024 };

struct peer {
	struct loop *loop;
	struct link *link;
	int fd; /* kept, so that a new link can follow an old one */
	bool up, down;
};

/* One call and what came of it. */
struct call {
	struct stream *s;
	bool replied, ended, closed, hold; /* hold: nothing is consumed */
	struct err why;
	struct str reply, bytes; /* bytes as received */
	uint64_t first, next;	 /* offsets */
	uint64_t held;
	const char *send; /* what is still to be sent */
	size_t send_n;
	bool end_after_send, discard;
	uint64_t discarded;
};

static inline void peer_on_up(struct link *k, uint64_t generation)
{
	struct peer *p = link_arg(k);

	(void)generation;
	p->up = true;
}

static inline void peer_on_down(struct link *k, const struct err *why)
{
	struct peer *p = link_arg(k);

	(void)why;
	p->down = true;
}

static inline void peer_turn(struct peer *p, int ms)
{
	if (loop_turn(p->loop, ms) < 0)
		abort();
}

static inline bool peer_wait(struct peer *p, bool *flag)
{
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;

	while (!*flag && sys_now_ns() < end)
		peer_turn(p, 100);
	return *flag;
}

static inline bool peer_open(struct peer *p, unsigned flags)
{
	static const struct link_ops ops = {.up = peer_on_up, .down = peer_on_down};
	struct err e = ERR_INIT;

	p->up = p->down = false;
	if (link_new(p->loop, sys_dup(p->fd), LINK_INITIATOR | flags, 1, &ops, p, &p->link, &e) < 0)
		return false;
	return peer_wait(p, &p->up);
}

static inline void call_on_reply(struct stream *s, struct span payload, const int *fds, unsigned n)
{
	struct call *c = stream_arg(s);

	(void)fds;
	(void)n;
	str_add_mem(&c->reply, payload.p, payload.n);
	c->replied = true;
}

static inline void call_push(struct call *c)
{
	size_t n;

	while (c->send_n && (n = stream_send(c->s, c->send, c->send_n)) > 0) {
		c->send += n;
		c->send_n -= n;
	}
	if (!c->send_n && c->end_after_send) {
		c->end_after_send = false;
		stream_end(c->s);
	}
}

static inline void call_on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct call *c = stream_arg(s);

	if (!c->next)
		c->first = offset;
	c->next = offset + bytes.n;
	if (c->discard)
		c->discarded += bytes.n;
	else
		str_add_mem(&c->bytes, bytes.p, bytes.n);
	if (c->hold)
		c->held += bytes.n;
	else
		stream_consumed_to(s, c->next);
}

static inline void call_on_writable(struct stream *s)
{
	call_push(stream_arg(s));
}

static inline void call_on_end(struct stream *s, uint64_t offset)
{
	struct call *c = stream_arg(s);

	(void)offset;
	c->ended = true;
}

static inline void call_on_closed(struct stream *s, const struct err *why)
{
	struct call *c = stream_arg(s);

	if (why)
		c->why = *why;
	c->closed = true;
	c->s = NULL;
}

static inline struct call *call_start(struct peer *p, unsigned method, const void *rec, bool more)
{
	static const struct stream_ops ops = {
		.reply = call_on_reply,
		.data = call_on_data,
		.writable = call_on_writable,
		.end = call_on_end,
		.closed = call_on_closed,
	};
	struct call *c = mem_new(sizeof(*c));

	c->reply.max = RECORD_MAX;
	c->bytes.max = KEEP_MAX;
	if (link_call(p->link, method, method_find(method)->request, rec, more, NULL, 0, &ops, c,
		      &c->s, &c->why) < 0)
		c->closed = true;
	return c;
}

static inline struct call *call_free(struct call *c)
{
	if (c->s)
		stream_reset(c->s);
	str_deinit(&c->reply);
	str_deinit(&c->bytes);
	free(c);
	return NULL;
}

/* Call and wait for its end; @ret (of the method's reply type) borrows from the call. */
static inline struct call *call_wait(struct peer *p, unsigned method, const void *rec, void *ret)
{
	struct call *c = call_start(p, method, rec, false);

	if (!peer_wait(p, &c->closed))
		err_set(&c->why, ERR_TIMEOUT, "no answer");
	if (ret && !c->why.code &&
	    rec_decode(method_find(method)->reply, c->reply.p, c->reply.len, ret, &c->why) < 0)
		c->replied = false;
	return c;
}

/* What a session said, taken apart. */
struct said {
	struct str out, err, pty;
	struct rec_exec_exit exit;
	bool has_exit, torn;
	unsigned chunks;
	char order[64]; /* the first tags: o, e, p */
};

static inline void said_free(struct said *x)
{
	str_deinit(&x->out);
	str_deinit(&x->err);
	str_deinit(&x->pty);
}

static inline void said_parse(struct said *x, const struct str *bytes)
{
	const unsigned char *p = (const unsigned char *)bytes->p;
	size_t left = bytes->len;

	*x = (struct said){.out.max = KEEP_MAX, .err.max = KEEP_MAX, .pty.max = KEEP_MAX};
	while (left >= OUTPUT_HEAD) {
		size_t n = p[1] | (size_t)p[2] << 8 | (size_t)p[3] << 16;
		struct str *to = p[0] == OUTPUT_STDOUT ? &x->out
				 : p[0] == OUTPUT_STDERR ? &x->err
							 : &x->pty;

		if (n > left - OUTPUT_HEAD || p[0] < 1 || p[0] > 4 || x->has_exit)
			break;
		if (p[0] == OUTPUT_EXIT)
			x->has_exit = rec_decode(&rec_exec_exit_type, p + OUTPUT_HEAD, n, &x->exit,
						 NULL) == 0;
		else
			str_add_mem(to, p + OUTPUT_HEAD, n);
		if (x->chunks < sizeof(x->order) - 1 && p[0] < 4)
			x->order[x->chunks] = " oep"[p[0]];
		x->chunks++;
		p += OUTPUT_HEAD + n;
		left -= OUTPUT_HEAD + n;
	}
	x->torn = left != 0;
}

/* A shell command to its end. The call is kept for its reply and error. */
static inline struct call *run_shell(struct peer *p, const char *command, struct said *x)
{
	struct rec_exec_start rq = {.command = span_of(command)};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);

	said_parse(x, &c->bytes);
	return c;
}

/* What a run of code said, taken apart. */
struct heard {
	struct str out, err, body; /* body: of the last result or error */
	struct rec_code_part part;
	struct rec_code_end end;
	char order[64]; /* the kinds, as digits */
	bool has_end, torn;
};

static inline void hear(struct heard *h, const struct str *bytes)
{
	const char *p = bytes->p;
	size_t left = bytes->len, n_order = 0;
	bool bad = false;

	*h = (struct heard){.out.max = KEEP_MAX, .err.max = KEEP_MAX, .body.max = KEEP_MAX};
	while (left >= CODE_HEAD && !h->has_end) {
		unsigned kind = (unsigned char)p[0];
		size_t n = get_u32(p) >> 8;

		if (n > left - CODE_HEAD)
			break;
		p += CODE_HEAD;
		if (n_order < sizeof(h->order) - 1)
			h->order[n_order++] = (char)('0' + kind);
		if (kind == CHUNK_STDOUT)
			str_add_mem(&h->out, p, n);
		else if (kind == CHUNK_STDERR)
			str_add_mem(&h->err, p, n);
		else if (kind == CHUNK_BODY)
			str_add_mem(&h->body, p, n);
		else if (kind == CHUNK_END)
			h->has_end = rec_decode(&rec_code_end_type, p, n, &h->end, NULL) == 0;
		else
			bad |= rec_decode(&rec_code_part_type, p, n, &h->part, NULL) < 0;
		if (kind == CHUNK_PART || kind == CHUNK_ERROR)
			str_clear(&h->body);
		p += n;
		left -= CODE_HEAD + n;
	}
	h->torn = left != 0 || bad;
}

static inline void heard_free(struct heard *h)
{
	str_deinit(&h->out);
	str_deinit(&h->err);
	str_deinit(&h->body);
}
