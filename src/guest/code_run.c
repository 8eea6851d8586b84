/* guest/code_run.c - one run: its stream, its deadline, its end */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/code_int.h"
#include "loop/link.h"

enum {
	END_MAX = 2048,			 /* an encoded code_end record */
	RESERVE = 2 * CODE_HEAD + END_MAX, /* credit kept for the last chunk */
};

static struct loop *loop_of(const struct code *c)
{
	return c->all->agent->loop;
}

/* ---- the stream ---- */

/* Bytes of a context that runs nothing are nobody's (CODE-3). */
static struct stream *listener(const struct code *c)
{
	return c->run && c->proto.told ? c->run->s : NULL;
}

bool code_run_room(const struct code *c, size_t n)
{
	struct stream *s = listener(c);

	return !s || stream_credit(s) >= RESERVE + CODE_HEAD + n;
}

size_t code_run_space(const struct code *c)
{
	struct stream *s = listener(c);
	size_t credit = s ? stream_credit(s) : SIZE_MAX;

	return credit <= RESERVE + CODE_HEAD ? 0 : MIN(credit - RESERVE - CODE_HEAD, (size_t)CODE_FRAME_MAX);
}

void code_run_say(struct code *c, enum code_chunk kind, const void *p, size_t n)
{
	struct stream *s = listener(c);
	unsigned char head[CODE_HEAD];

	if (!s)
		return;
	code_head(head, kind, n);
	stream_push(s, head, sizeof(head));
	stream_push(s, p, n);
}

static void on_writable(struct stream *s)
{
	struct code_run *run = stream_arg(s);

	if (run->code)
		code_talk_resume(run->code);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct code_run *run = stream_arg(s);

	(void)why;
	run->s = NULL;
	if (run->code)
		code_talk_resume(run->code);
	else
		code_run_free(run);
}

struct code_run *code_run_new(struct codes *all, struct stream *s, const struct rec_code_run *rq)
{
	static const struct stream_ops ops = {.writable = on_writable, .closed = on_closed};
	struct code_run *run = mem_new(sizeof(*run));

	run->s = s;
	run->timeout_ms = rq->timeout_ms;
	run->source = mem_dup(rq->source.p, rq->source.n);
	run->source_n = rq->source.n;
	list_add_tail(&all->runs, &run->link);
	stream_accept(s, &ops, run);
	return run;
}

void code_run_free(struct code_run *run)
{
	list_del(&run->link);
	free(run->source);
	free(run);
}

/* ---- its life ---- */

void code_run_begin(struct code *c)
{
	struct code_run *run = c->run;

	c->state = CODE_BUSY;
	c->proto.running = true;
	run->number = ++c->runs;
	code_env_tell(c);
	code_order(c, CODE_RUN, run->source, run->source_n);
	free(run->source);
	run->source = NULL;
}

static void on_grace(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, timeout);

	code_kill(c, "timeout",
		  "it ran longer than %" PRIu64 " ms and ignored its interrupt: the interpreter was killed, "
		  "its state is lost, a new one starts at the next use",
		  c->run->timeout_ms);
}

static void on_timeout(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, timeout);

	c->run->timed_out = true;
	code_signal(c, SIGINT);
	loop_timer_set(loop_of(c), t, loop_now(loop_of(c)) + CODE_GRACE_NS, on_grace);
}

void code_run_started(struct code *c)
{
	struct code_run *run = c->run;
	struct loop *l = loop_of(c);
	struct rec_code_started started = {.context = c->number, .run = run->number};

	run->began_ns = loop_now(l);
	if (run->s)
		(void)stream_reply(run->s, &rec_code_started_type, &started, true, NULL, 0, NULL);
	if (run->timeout_ms)
		loop_timer_set(l, &c->timeout, run->began_ns + run->timeout_ms * NS_PER_MS, on_timeout);
	if (run->wants_interrupt)
		code_signal(c, SIGINT);
}

void code_run_interrupt(struct code *c)
{
	if (c->run && c->proto.told)
		code_signal(c, SIGINT);
	else if (c->run)
		c->run->wants_interrupt = true; /* as soon as it can hear it */
}

/* The run and its context part; what was sent may still be read. */
static struct code_run *part(struct code *c)
{
	struct code_run *run = take_ptr(&c->run);

	loop_timer_cancel(loop_of(c), &c->timeout);
	c->proto.running = c->proto.told = false;
	run->code = NULL;
	return run;
}

void code_run_fail(struct code *c, const struct err *why)
{
	struct code_run *run = part(c);
	struct stream *s = run->s;

	code_run_free(run);
	if (s)
		stream_fail(s, why);
}

void code_run_end(struct code *c, const char *word, int64_t exit_code, uint64_t signo,
		  const char *message)
{
	struct str text = STR_INIT(END_MAX);
	struct rec_code_end end = {
		.status = span_of(word),
		.duration_us = (loop_now(loop_of(c)) - c->run->began_ns) / NS_PER_US,
		.exit_code = exit_code,
		.signal = signo,
		.message = span_of(message),
	};
	struct code_run *run;

	(void)rec_encode(&rec_code_end_type, &end, &text, NULL); /* our own words: they fit */
	code_run_say(c, CHUNK_END, text.p, text.len); /* CODE-2 */
	str_deinit(&text);
	run = part(c);
	if (run->s)
		stream_end(run->s);
	else
		code_run_free(run);
}
