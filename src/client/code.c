/* client/code.c - run source in a live interpreter and follow it */
#include "client/code.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/ring.h"
#include "base/str.h"
#include "client/conn.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/bytes.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"

enum {
	CHUNK_HEAD = 4,
	CHUNK_BODY = 4,
	CHUNK_END = 6,
	RECORD_BYTES = 4096, /* of a code_part or code_end */
};

struct code_call {
	struct conn *conn;
	const struct code_ops *ops;
	void *arg;
	struct stream *stream;
	struct loop_call notify;
	struct rec_code_started started;

	struct ring in;	 /* received, not taken */
	unsigned kind;	 /* of the chunk at hand; 0: between chunks */
	size_t left;	 /* of it */
	enum code_said what; /* result or exception being put together; 0: none */
	bool whole;	     /* it is */
	char head[RECORD_BYTES], tail[RECORD_BYTES];
	struct rec_code_part part; /* texts in head */
	struct str body;
	struct rec_code_end end; /* texts in tail */
	bool has_end, over, told;
	struct err why;
};

static void on_notify(struct loop_call *call);

static void wake(struct code_call *x)
{
	loop_defer(conn_loop(x->conn), &x->notify, on_notify);
}

static void finish(struct code_call *x, const struct err *why)
{
	if (x->over)
		return;
	x->over = true;
	err_copy(&x->why, why);
	if (x->stream)
		stream_reset(take_ptr(&x->stream));
	wake(x);
}

static void broken(struct code_call *x, const char *what)
{
	struct err e = ERR_INIT;

	err_set(&e, ERR_INVALID, "the guest sent %s", what);
	x->kind = x->left = 0;
	finish(x, &e);
}

/* ---- from bytes to items ---- */

static void drop(struct code_call *x, size_t n)
{
	ring_drop(&x->in, n);
	if (x->stream)
		stream_consumed_to(x->stream, x->in.head);
}

static bool take_bytes(struct code_call *x, void *to, size_t n)
{
	if (ring_used(&x->in) < n)
		return false;
	for (size_t done = 0; done < n;) {
		size_t piece;
		const void *p = ring_at(&x->in, x->in.head + done, &piece);

		piece = MIN(piece, n - done);
		memcpy((char *)to + done, p, piece);
		done += piece;
	}
	drop(x, n);
	return true;
}

static bool is_output(unsigned kind)
{
	return kind == CODE_STDOUT || kind == CODE_STDERR;
}

/* Each returns whether it got anywhere. */
static bool next_chunk(struct code_call *x)
{
	unsigned char head[CHUNK_HEAD];

	if (!take_bytes(x, head, sizeof(head)))
		return false;
	x->kind = head[0];
	x->left = get_u32(head) >> 8;
	if (x->kind < CODE_STDOUT || x->kind > CHUNK_END)
		broken(x, "a chunk of an unknown kind");
	else if (!is_output(x->kind) && x->kind != CHUNK_BODY && x->left > RECORD_BYTES)
		broken(x, "a head that is too long (4096 bytes)");
	else if ((x->kind == CHUNK_BODY) != (x->what != 0) && !is_output(x->kind))
		broken(x, "results that overlap");
	return !x->over;
}

static bool next_part(struct code_call *x)
{
	size_t n = x->left;
	struct err e = ERR_INIT;

	if (!take_bytes(x, x->head, n))
		return false;
	x->what = (enum code_said)x->kind;
	x->kind = x->left = 0;
	str_clear(&x->body);
	if (rec_decode(&rec_code_part_type, x->head, n, &x->part, &e) < 0)
		finish(x, &e);
	else if (x->part.bytes > x->body.max)
		broken(x, "a result beyond the limit");
	x->whole = !x->over && x->part.bytes == 0;
	return true;
}

static bool next_body(struct code_call *x)
{
	size_t n;
	const void *p;

	if (x->left > x->part.bytes - x->body.len) {
		broken(x, "more of a result than it announced");
		return false;
	}
	p = ring_at(&x->in, x->in.head, &n);
	n = MIN(n, x->left);
	if (!n)
		return false;
	str_add_mem(&x->body, p, n);
	x->left -= n;
	drop(x, n);
	if (!x->left)
		x->kind = 0;
	x->whole = x->body.len == x->part.bytes;
	if (x->body.failed)
		broken(x, "a result there is no memory for");
	return true;
}

static bool next_end(struct code_call *x)
{
	size_t n = x->left;
	struct err e = ERR_INIT;

	if (!take_bytes(x, x->tail, n))
		return false;
	x->kind = x->left = 0;
	x->has_end = rec_decode(&rec_code_end_type, x->tail, n, &x->end, &e) == 0;
	finish(x, x->has_end ? NULL : &e);
	return false;
}

/* On until there is something to show, nothing more came, or it is over. */
static void advance(struct code_call *x)
{
	bool more = true;

	while (more && !x->over && !x->whole) {
		if (x->kind == 0)
			more = next_chunk(x);
		else if (is_output(x->kind) && x->left)
			return;
		else if (is_output(x->kind))
			x->kind = 0;
		else if (x->kind == CHUNK_BODY)
			more = next_body(x);
		else if (x->kind == CHUNK_END)
			more = next_end(x);
		else
			more = next_part(x);
	}
}

bool code_peek(const struct code_call *x, struct code_item *ret)
{
	const void *p;
	size_t n;

	if (x->whole) {
		*ret = (struct code_item){x->what, str_text(&x->body), x->body.len, &x->part};
		return true;
	}
	if (!is_output(x->kind) || !x->left || ring_used(&x->in) == 0)
		return false;
	p = ring_at(&x->in, x->in.head, &n);
	*ret = (struct code_item){(enum code_said)x->kind, p, MIN(n, x->left), NULL};
	return true;
}

/* All has come: the end is among it, maybe behind what is not taken yet. */
static void check_cut(struct code_call *x)
{
	struct code_item item;

	if (!x->stream && !x->over && !code_peek(x, &item))
		broken(x, "no end of a run");
}

void code_take(struct code_call *x, size_t n)
{
	if (x->whole) {
		assert(n == x->body.len);
		x->whole = false;
		x->what = 0;
		str_deinit(&x->body); /* results can be large, and are rare */
		x->body = (struct str)STR_INIT(LIMIT_CODE_PART);
	} else {
		assert(n <= x->left);
		x->left -= n;
		drop(x, n);
	}
	advance(x);
	check_cut(x);
	if (x->over)
		wake(x);
}

/* ---- the stream ---- */

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct code_call *x = stream_arg(s);
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds;
	if (rec_decode(&rec_code_started_type, payload.p, payload.n, &x->started, &e) < 0)
		finish(x, &e);
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct code_call *x = stream_arg(s);

	if (offset != x->in.tail || ring_write(&x->in, bytes.p, bytes.n) != bytes.n) {
		broken(x, "more than it was allowed to");
		return;
	}
	advance(x);
	wake(x);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct code_call *x = stream_arg(s);
	struct err e = ERR_INIT;

	x->stream = NULL;
	if (why && !link_is_up(stream_link(s)))
		err_set(&e, ERR_GONE,
			"the connection was lost; the code may still run, but what it says is not kept");
	else if (why)
		err_copy(&e, why);
	if (e.code)
		finish(x, &e);
	else
		check_cut(x);
}

static void on_notify(struct loop_call *call)
{
	struct code_call *x = CONTAINER_OF(call, struct code_call, notify);
	struct code_item item;

	if (code_peek(x, &item) && !(x->over && x->why.code)) {
		x->ops->readable(x);
		return;
	}
	if (!x->over || x->told)
		return;
	x->told = true;
	x->ops->ended(x, x->why.code ? &x->why : NULL);
}

int code_run(struct conn *c, const struct rec_code_run *rec, const struct code_ops *ops, void *arg,
	     struct code_call **ret, struct err *e)
{
	static const struct stream_ops stream_ops = {
		.reply = on_reply, .data = on_data, .closed = on_closed};
	struct link *k = conn_link(c);
	struct code_call *x;
	int r;

	if (!k)
		return err_set(e, ERR_UNAVAILABLE, "there is no connection to the daemon");
	x = mem_new(sizeof(*x));
	x->conn = c;
	x->ops = ops;
	x->arg = arg;
	x->body.max = LIMIT_CODE_PART;
	r = ring_init(&x->in, LIMIT_WINDOW);
	if (r < 0)
		r = err_sys(e, r, "follow code");
	if (r == 0)
		r = link_call(k, METHOD_CODE_RUN, &rec_code_run_type, rec, false, NULL, 0, &stream_ops, x,
			      &x->stream, e);
	if (r < 0) {
		code_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

struct code_call *code_close(struct code_call *x)
{
	if (!x)
		return NULL;
	if (x->stream)
		stream_reset(x->stream);
	loop_call_cancel(conn_loop(x->conn), &x->notify);
	ring_deinit(&x->in);
	str_deinit(&x->body);
	free(x);
	return NULL;
}

void *code_arg(const struct code_call *x)
{
	return x->arg;
}

uint64_t code_context(const struct code_call *x)
{
	return x->started.context;
}

uint64_t code_number(const struct code_call *x)
{
	return x->started.run;
}

const struct rec_code_end *code_end(const struct code_call *x)
{
	return x->has_end ? &x->end : NULL;
}
