/* guest/items.c - lists as streams of records */
#include "guest/items.h"
#include <stdlib.h>
#include "base/err.h"
#include "base/mem.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/gen/records.h"

struct items {
	struct stream *s;
	struct loop *loop;
	const struct items_source *src;
	void *arg, *rec;
	struct loop_call again;
};

static void drop(struct items *it)
{
	loop_call_cancel(it->loop, &it->again);
	it->src->free(it->arg);
	free(it->rec);
	free(it);
}

static void on_again(struct loop_call *c);

/* Returns false when @it is gone. */
static bool step(struct items *it)
{
	struct err e = ERR_INIT;
	int r = it->src->fill(it->arg, it->rec, &e);

	if (r == ITEMS_LATER) {
		loop_defer(it->loop, &it->again, on_again);
		return false;
	}
	if (r == ITEMS_ONE) {
		if (!stream_send_item(it->s, it->src->type, it->rec))
			return false; /* `writable` comes with credit */
		it->src->advance(it->arg);
		return true;
	}
	if (r < 0) {
		stream_fail(it->s, &e);
		drop(it);
		return false;
	}
	stream_end(it->s); /* `closed` follows, now or when the caller ends its side */
	return false;
}

static void on_again(struct loop_call *c)
{
	struct items *it = CONTAINER_OF(c, struct items, again);

	while (step(it))
		;
}

static void on_writable(struct stream *s)
{
	struct items *it = stream_arg(s);

	if (!it->again.queued)
		on_again(&it->again);
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	drop(stream_arg(s));
}

static const struct stream_ops ops = {.writable = on_writable, .closed = on_closed};

void items_start(struct stream *s, const struct items_source *src, void *arg)
{
	struct items *it = mem_new(sizeof(*it));
	struct rec_empty none = {0};

	*it = (struct items){.s = s, .loop = link_loop(stream_link(s)), .src = src, .arg = arg};
	it->rec = mem_new(src->type->size);
	stream_accept(s, &ops, it);
	(void)stream_reply(s, &rec_empty_type, &none, true, NULL, 0, NULL);
	loop_defer(it->loop, &it->again, on_again);
}
