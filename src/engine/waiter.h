/*
 * engine/waiter.h - clients' streams that wait for a sandbox, or hold it. Private to engine/.
 *
 * An ephemeral sandbox lives while somebody holds it: the stream of sandbox.hold,
 * or of sandbox.create when its client left its own direction open. When a holder
 * leaves by word (reset) or by death (its link), and was the last, the sandbox
 * goes at once. When nobody has come yet, or again after a restart of the daemon,
 * there is a grace of ENGINE_GRACE_MS. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include "base/list.h"

struct err;
struct sandbox;
struct stream;

enum waiter_kind { WAIT_READY, WAIT_GONE, WAIT_HOLD };

struct waiter {
	struct list link; /* in sandbox->waiters */
	struct sandbox *sandbox;
	struct stream *stream;
	enum waiter_kind kind;
	bool ended; /* the client sends no more: it won't hold */
};

/* @s is accepted here and answered or failed when what it waits for happens. */
void sandbox_wait(struct sandbox *sb, struct stream *s, enum waiter_kind kind);

bool waiters_hold(const struct sandbox *sb); /* somebody waits for it to run, or holds it */
void waiters_ready(struct sandbox *sb); /* it runs */
void waiters_over(struct sandbox *sb, const struct err *why); /* it is gone or has failed */
void waiters_move(struct sandbox *from, struct sandbox *to); /* @to is being made */
void waiters_fail(struct sandbox *sb, const struct err *why); /* all, whatever they wait for */
