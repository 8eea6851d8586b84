/*
 * engine/health.h - does a guest still answer? Private to engine/.
 *
 * Whoever is root in a guest can take its agent's voice away: then no call would end, and a
 * call that goes on is use. So while calls are open and the guest says nothing, it is asked
 * (guest.ping); when it says nothing to that either, ENGINE_PING_MISSED times in a row, it is
 * unhealthy: its calls end, new ones are refused, and it counts as unused. An answer heals it.
 * A guest that is only slow answers in the end, and whatever it says counts as a word.
 *
 * HEALTH-1 A sandbox without calls is not asked, but for its idle timeout: nothing wakes an idle guest.
 * HEALTH-2 Time in which we keep the guest from answering does not count: while it is copied, or
 *	    waits for room on this host's disk.
 *
 * Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "loop/loop.h"

struct sandbox;
struct stream;

struct health {
	struct loop_timer timer;
	struct stream *ping; /* not answered yet; NULL: none */
	uint64_t looked_ns;  /* loop time of the last look */
	unsigned missed;     /* looks in a row at which nothing had been heard */
	uint64_t since_ms;   /* unix; it is silent since then. 0: it is not */
	struct err why;	     /* what calls are told then */
	bool decides;	     /* the answer says whether it goes for lack of use */
	uint64_t still_ns, stopped_ns; /* copied so far; the copy under way began then, 0: none */
};

void health_watch(struct sandbox *sb);	 /* a call was passed on to it */
void health_ask_use(struct sandbox *sb); /* its idle timeout is over: does anything run in it? */
void health_drop(struct sandbox *sb);	 /* its link goes, or it does */
int health_check(const struct sandbox *sb, struct err *e); /* -ERR_UNAVAILABLE when it is silent */

/* A copy begins, ends. Between the two the guest stands still, or may. */
void health_hold(struct sandbox *sb);
void health_release(struct sandbox *sb);
uint64_t health_still_ns(const struct sandbox *sb); /* in all copies so far */
