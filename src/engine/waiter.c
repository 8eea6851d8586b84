/* engine/waiter.c - clients' streams that wait for a sandbox, or hold it */
#include "engine/waiter.h"
#include <stdlib.h>
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/sandbox.h"
#include "loop/link.h"
#include "wire/gen/records.h"

static void waiter_drop(struct waiter *w)
{
	list_del(&w->link);
	free(w);
}

/* The stream is answered for good: nobody listens to its last callbacks. */
static void waiter_leave(struct waiter *w)
{
	static const struct stream_ops deaf = {0};

	stream_accept(w->stream, &deaf, NULL);
	waiter_drop(w);
}

static void waiter_reply(struct waiter *w, bool more)
{
	struct rec_sandbox_info info;

	sandbox_info(w->sandbox, &info);
	(void)stream_reply(w->stream, &rec_sandbox_info_type, &info, more, NULL, 0, NULL);
}

static void waiter_fail(struct waiter *w, const struct err *why)
{
	stream_fail(w->stream, why);
	waiter_drop(w);
}

bool waiters_hold(const struct sandbox *sb)
{
	LIST_FOR_EACH(pos, &sb->waiters) {
		const struct waiter *w = LIST_ENTRY(pos, struct waiter, link);

		if (w->kind != WAIT_GONE)
			return true;
	}
	return false;
}

/* An ephemeral sandbox that nobody holds lives on for a while: its client may be reconnecting. */
static void watch_holders(struct sandbox *sb)
{
	bool is_alone = sb->ephemeral && !waiters_hold(sb);

	sb->grace_at_ns = is_alone
				  ? loop_now(sb->engine->loop) + ENGINE_GRACE_MS * NS_PER_MS
				  : 0;
	sandbox_arm_timer(sb);
}

static void waiter_end(struct stream *s, uint64_t offset)
{
	struct waiter *w = stream_arg(s);

	(void)offset;
	w->ended = true;
}

/* Withdrawn (reset), or the client is gone (its link is down). */
static void waiter_closed(struct stream *s, const struct err *why)
{
	struct waiter *w = stream_arg(s);
	struct sandbox *sb = w->sandbox;
	bool was_withdrawn = why && link_is_up(stream_link(s)), was_gone = w->kind == WAIT_GONE;
	struct err e = ERR_INIT;

	waiter_drop(w);
	if (was_gone || waiters_hold(sb) || !sandbox_is_live(sb))
		return;
	if (!sb->ephemeral && !(was_withdrawn && sb->state == SANDBOX_CREATING))
		return;
	err_set(&e, ERR_CANCELED, was_withdrawn ? "its client withdrew it" : "its client went away");
	sandbox_remove(sb, &e);
}

void sandbox_wait(struct sandbox *sb, struct stream *s, enum waiter_kind kind)
{
	static const struct stream_ops ops = {.end = waiter_end, .closed = waiter_closed};
	struct waiter *w = mem_new(sizeof(*w));
	struct err e = ERR_INIT;

	*w = (struct waiter){.sandbox = sb, .stream = s, .kind = kind};
	list_add_tail(&sb->waiters, &w->link);
	stream_accept(s, &ops, w);
	if (kind == WAIT_GONE || sb->state == SANDBOX_CREATING)
		return;
	if (!sandbox_is_live(sb)) {
		if (sb->reason.code)
			e = sb->reason;
		else
			err_set(&e, ERR_CONFLICT, "sandbox %s is %s", sb->id_text,
				sandbox_state_name(sb->state));
		waiter_fail(w, &e);
	} else if (kind == WAIT_HOLD) {
		waiter_reply(w, true);
		watch_holders(sb);
	} else {
		waiter_reply(w, false);
		waiter_leave(w);
	}
}

void waiters_ready(struct sandbox *sb)
{
	LIST_FOR_EACH_SAFE(pos, &sb->waiters) {
		struct waiter *w = LIST_ENTRY(pos, struct waiter, link);
		bool holds = w->kind == WAIT_HOLD ||
			     (w->kind == WAIT_READY && sb->ephemeral && !w->ended);

		if (w->kind == WAIT_GONE || stream_is_replied(w->stream))
			continue; /* a holder was told when it was made; now it was paused and goes on */
		waiter_reply(w, holds);
		if (holds)
			w->kind = WAIT_HOLD;
		else
			waiter_leave(w);
	}
	watch_holders(sb);
}

void waiters_over(struct sandbox *sb, const struct err *why)
{
	LIST_FOR_EACH_SAFE(pos, &sb->waiters) {
		struct waiter *w = LIST_ENTRY(pos, struct waiter, link);

		if (w->kind != WAIT_GONE) {
			waiter_fail(w, why);
		} else if (sb->state == SANDBOX_GONE) {
			waiter_reply(w, false);
			waiter_leave(w);
		}
	}
}

void waiters_move(struct sandbox *from, struct sandbox *to)
{
	while (!list_empty(&from->waiters)) {
		struct waiter *w = LIST_ENTRY(from->waiters.next, struct waiter, link);

		list_del(&w->link);
		list_add_tail(&to->waiters, &w->link);
		w->sandbox = to;
	}
}

void waiters_fail(struct sandbox *sb, const struct err *why)
{
	while (!list_empty(&sb->waiters))
		waiter_fail(LIST_ENTRY(sb->waiters.next, struct waiter, link), why);
}
