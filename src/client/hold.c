/* client/hold.c - an ephemeral sandbox lives while this connection does */
#include "client/hold.h"
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/conn.h"
#include "loop/link.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { LOST_MAX = 10 };

struct hold {
	struct conn_op op; /* while creating */
	struct conn *conn;
	struct conn_watch watch;
	struct stream *stream; /* our direction stays open: that is the hold */
	char sandbox[ID_TEXT]; /* "" until it was made */
	struct str *bytes;     /* while creating: the reply */
	bool lost;
	void (*gone)(void *arg, const struct err *why); /* NULL: who uses the sandbox hears it */
	void *arg;
	struct err why;
};

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct hold *h = stream_arg(s);
	struct rec_sandbox_info info;

	(void)fds;
	(void)n_fds;
	if (h->op.done)
		return; /* held again */
	str_clear(h->bytes);
	str_add_mem(h->bytes, payload.p, payload.n);
	if (rec_decode(&rec_sandbox_info_type, payload.p, payload.n, &info, &h->why) == 0)
		id_format(&info.id, h->sandbox);
	h->op.done = true;
}

/* An answer without a hold: the sandbox was made already, by this request before the daemon died. */
static void on_end(struct stream *s, uint64_t offset)
{
	struct hold *h = stream_arg(s);

	(void)offset;
	if (stream_method(s) != METHOD_SANDBOX_CREATE || !h->sandbox[0])
		return;
	h->stream = NULL;
	stream_reset(s);
	conn_revive(h->conn, &h->watch);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct hold *h = stream_arg(s);

	h->stream = NULL;
	h->lost = why && !link_is_up(stream_link(s));
	if (!h->op.done) {
		err_copy(&h->why, why);
		h->op.done = true;
	} else if (h->lost && h->sandbox[0]) {
		conn_revive(h->conn, &h->watch);
	} else if (h->gone) {
		h->gone(h->arg, why);
	}
}

static const struct stream_ops hold_ops = {
	.reply = on_reply, .end = on_end, .closed = on_closed};

static void on_up(struct conn_watch *w)
{
	struct hold *h = CONTAINER_OF(w, struct hold, watch);
	struct rec_sandbox_ref rec = {span_of(h->sandbox)};

	(void)link_call(conn_link(h->conn), METHOD_SANDBOX_HOLD, &rec_sandbox_ref_type, &rec, true,
			NULL, 0, &hold_ops, h, &h->stream, NULL);
}

static void on_failed(struct conn_watch *w, const struct err *why)
{
	(void)w;
	(void)why; /* whoever uses the sandbox reports it */
}

static void on_cancel(struct conn_op *op)
{
	struct hold *h = CONTAINER_OF(op, struct hold, op);

	if (h->stream)
		stream_reset(h->stream);
	h->stream = NULL;
	err_set(&h->why, ERR_CANCELED, "interrupted");
	op->done = true;
}

static int attempt(struct hold *h, const struct rec_sandbox_create *rec, struct err *e)
{
	int r = conn_ready(h->conn, e);

	h->op = (struct conn_op){.cancel = on_cancel};
	h->lost = false;
	h->why = (struct err)ERR_INIT;
	if (r == 0)
		r = link_call(conn_link(h->conn), METHOD_SANDBOX_CREATE, &rec_sandbox_create_type,
			      rec, true, NULL, 0, &hold_ops, h, &h->stream, e);
	if (r == 0)
		r = conn_run(h->conn, &h->op, e);
	return r < 0 ? r : err_copy(e, h->why.code ? &h->why : NULL);
}

int hold_create(struct conn *c, const struct rec_sandbox_create *rec, struct str *bytes,
		struct rec_sandbox_info *ret, struct hold **ret_hold, struct err *e)
{
	struct hold *h = mem_new(sizeof(*h));
	unsigned tries = 0;
	int r;

	*h = (struct hold){
		.conn = c, .watch = {.up = on_up, .failed = on_failed}, .bytes = bytes};
	do
		r = attempt(h, rec, e);
	while (r < 0 && h->lost && ++tries < LOST_MAX);
	if (r == 0)
		r = rec_decode(&rec_sandbox_info_type, bytes->p, bytes->len, ret, e);
	if (r < 0) {
		hold_stop(h);
		return r;
	}
	*ret_hold = h;
	return 0;
}

int hold_open(struct conn *c, const struct id *sandbox, void (*gone)(void *arg, const struct err *why), void *arg,
	      struct hold **ret, struct err *e)
{
	struct hold *h;
	int r = conn_ready(c, e);

	if (r < 0)
		return r;
	h = mem_new(sizeof(*h));
	*h = (struct hold){.conn = c, .watch = {.up = on_up, .failed = on_failed}, .gone = gone, .arg = arg};
	h->op.done = true; /* it is not being made */
	id_format(sandbox, h->sandbox);
	on_up(&h->watch);
	*ret = h;
	return 0;
}

struct hold *hold_stop(struct hold *h)
{
	if (!h)
		return NULL;
	conn_unwatch(h->conn, &h->watch);
	if (h->stream)
		stream_reset(h->stream);
	free(h);
	return NULL;
}
