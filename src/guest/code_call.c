/* guest/code_call.c - the code methods */
#include <inttypes.h>
#include <stdlib.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/code_int.h"
#include "guest/items.h"
#include "loop/link.h"

static int find(const struct agent *a, uint64_t number, struct code **ret, struct err *e)
{
	*ret = code_find(a->codes, number);
	return *ret ? 0 : err_set(e, ERR_NOT_FOUND, "there is no context %" PRIu64, number);
}

/* ---- code.open, code.restart: answered when the interpreter is ready ---- */

static void opening_closed(struct stream *s, const struct err *why)
{
	struct code *c = stream_arg(s);

	(void)why;
	c->opening = NULL; /* it is there all the same */
}

static void answer_when_ready(struct code *c, struct stream *s)
{
	static const struct stream_ops ops = {.closed = opening_closed};

	c->opening = s;
	stream_accept(s, &ops, c);
}

void code_open_call(struct agent *a, struct stream *s, const void *rec)
{
	struct err e = ERR_INIT;
	struct code *c = NULL;
	int r = code_new(a->codes, rec, &c, &e);

	if (r == 0)
		r = code_launch(c, &e);
	if (r == 0) {
		answer_when_ready(c, s);
		return;
	}
	if (c)
		code_free(c);
	stream_fail(s, &e);
}

void code_restart_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_code_ref *rq = rec;
	struct err e = ERR_INIT;
	struct code *c;
	int r = find(a, rq->context, &c, &e);

	if (r == 0 && (c->state == CODE_STARTING || c->opening))
		r = err_set(&e, ERR_CONFLICT, "context %" PRIu64 " is starting", rq->context);
	if (r == 0 && c->state == CODE_ENDED) {
		r = code_launch(c, &e);
	} else if (r == 0) {
		c->restarting = true;
		code_kill(c, "ended", "the context was restarted: its state is gone");
	}
	if (r == 0)
		answer_when_ready(c, s);
	else
		stream_fail(s, &e);
}

/* ---- code.run ---- */

static bool is_better(const struct code *c, const struct code *than)
{
	return !than || c->warm > than->warm || (c->warm == than->warm && c->number < than->number);
}

/* The language's first context: idle before ended or starting, warm before others. */
static struct code *choose(const struct codes *all, const struct language *l, bool idle)
{
	struct code *best = NULL;

	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (c && !c->closing && c->language == l && !c->run &&
		    (!idle || c->state == CODE_IDLE) && is_better(c, best))
			best = c;
	}
	return best;
}

static int some_context(struct agent *a, const struct rec_code_run *rq, struct code **ret,
			struct err *e)
{
	const struct language *l = language_find(rq->language, e);
	struct rec_code_open open = {.language = rq->language};

	if (!l)
		return -ERR_NOT_FOUND;
	*ret = choose(a->codes, l, true);
	if (!*ret)
		*ret = choose(a->codes, l, false);
	return *ret ? 0 : code_new(a->codes, &open, ret, e);
}

static int named_context(struct agent *a, const struct rec_code_run *rq, struct code **ret,
			 struct err *e)
{
	int r = find(a, rq->context, ret, e);

	if (r < 0)
		return r;
	if (rq->language.n && !span_is(rq->language, (*ret)->language->name))
		return err_set(e, ERR_INVALID, "context %" PRIu64 " speaks %s, not %.*s", rq->context,
			       (*ret)->language->name, (int)rq->language.n, rq->language.p);
	if ((*ret)->run) /* CODE-1 */
		return err_set(e, ERR_CONFLICT,
			       "context %" PRIu64 " is busy: wait, interrupt it, or open another", rq->context);
	return 0;
}

void code_run_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_code_run *rq = rec;
	struct err e = ERR_INIT;
	struct code *c = NULL;
	int r = rq->context ? named_context(a, rq, &c, &e) : some_context(a, rq, &c, &e);

	if (r == 0 && c->state == CODE_DYING)
		c->restarting = true; /* a moment more, and a new one starts */
	else if (r == 0 && c->state == CODE_ENDED)
		r = code_launch(c, &e);
	if (r < 0) {
		if (c && c->state == CODE_ENDED && !c->was_ready)
			code_free(c);
		stream_fail(s, &e);
		return;
	}
	c->run = code_run_new(a->codes, s, rq);
	c->run->code = c;
	if (c->state == CODE_IDLE)
		code_go(c);
}

/* ---- code.interrupt, code.close ---- */

static void answer_empty(struct stream *s, int r, const struct err *e)
{
	struct rec_empty none = {0};

	agent_answer(s, &rec_empty_type, &none, r, e);
}

void code_interrupt_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_code_ref *rq = rec;
	struct err e = ERR_INIT;
	struct code *c;
	int r = find(a, rq->context, &c, &e);

	if (r == 0)
		code_run_interrupt(c);
	answer_empty(s, r, &e);
}

void code_close_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_code_ref *rq = rec;
	struct err e = ERR_INIT;
	struct code *c;
	int r = find(a, rq->context, &c, &e);

	if (r == 0)
		code_close(c);
	answer_empty(s, r, &e);
}

/* ---- code.list ---- */

struct listing {
	const struct codes *codes;
	uint64_t after, current;
};

static int list_fill(void *arg, void *rec, struct err *e)
{
	struct listing *li = arg;
	struct rec_code_context *info = rec;

	(void)e;
	if (!code_next(li->codes, li->after, info))
		return ITEMS_END;
	li->current = info->context;
	return ITEMS_ONE;
}

static void list_advance(void *arg)
{
	struct listing *li = arg;

	li->after = li->current;
}

static const struct items_source list_source = {
	&rec_code_context_type,
	list_fill,
	list_advance,
	free,
};

void code_list_call(struct agent *a, struct stream *s, const void *rec)
{
	struct listing *li = mem_new(sizeof(*li));

	(void)rec;
	li->codes = a->codes;
	items_start(s, &list_source, li);
}
