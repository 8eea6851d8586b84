/* client/hold.c - keep an ephemeral sandbox */
#include "client/hold.h"
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "client/conn.h"
#include "loop/link.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

struct hold {
	struct conn *conn;
	struct conn_watch watch;
	struct stream *stream;
	char sandbox[LIMIT_TEXT_SHORT + 1];
};

static void on_closed(struct stream *s, const struct err *why)
{
	struct hold *h = stream_arg(s);

	h->stream = NULL;
	/* The daemon's own word means that the sandbox is gone: who uses it will hear that. */
	if (why && !link_is_up(stream_link(s)))
		conn_revive(h->conn, &h->watch);
}

static const struct stream_ops hold_ops = {.closed = on_closed};

/* The request stays open in our direction: that is the hold. */
static int ask(struct hold *h, struct err *e)
{
	struct rec_sandbox_ref rec = {span_of(h->sandbox)};

	return link_call(conn_link(h->conn), METHOD_SANDBOX_HOLD, &rec_sandbox_ref_type, &rec, true,
			 NULL, 0, &hold_ops, h, &h->stream, e);
}

static void on_up(struct conn_watch *w)
{
	(void)ask(CONTAINER_OF(w, struct hold, watch), NULL);
}

static void on_failed(struct conn_watch *w, const struct err *why)
{
	(void)w;
	(void)why; /* whoever follows the sandbox reports it */
}

int hold_start(struct conn *c, const char *sandbox, struct hold **ret, struct err *e)
{
	struct hold *h;
	int r;

	if (!conn_link(c))
		return err_set(e, ERR_UNAVAILABLE, "not connected");
	h = mem_new(sizeof(*h));
	*h = (struct hold){.conn = c, .watch = {.up = on_up, .failed = on_failed}};
	span_copy(span_of(sandbox), h->sandbox, sizeof(h->sandbox));
	r = ask(h, e);
	if (r < 0) {
		free(h);
		return r;
	}
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
