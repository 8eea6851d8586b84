/*
 * loop/loop.h - events of one thread: descriptors, timers, deferred calls, children.
 *
 * Instantiable; nothing is global. Every call but loop_post() belongs to the
 * thread that runs the loop. All source structs are embedded in their owner,
 * zero-initialised, and lent to the loop until removed. A callback may add or
 * remove any source, its own included.
 *
 * LOOP-1 A source that was removed is never called again, even if its event was already fetched.
 * LOOP-2 A deferred call runs in the next turn, never from inside loop_defer().
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/list.h"

struct loop;

enum { LOOP_READ = 1, LOOP_WRITE = 2, LOOP_HANGUP = 4 /* reported unasked */ };

struct loop_io {
	void (*cb)(struct loop_io *io, unsigned events);
	int fd; /* borrowed: the owner closes it, after loop_io_del() */
	unsigned events;
	bool added;
};

struct loop_timer {
	void (*cb)(struct loop_timer *t);
	uint64_t at_ns; /* loop_now() time */
	size_t place;	/* in the heap, from 1; 0: not set */
};

/* A call to make in the next turn of the loop. */
struct loop_call {
	void (*cb)(struct loop_call *c);
	struct list link;
	bool queued;
};

/* @fake_clock: time stands still but for loop_advance(); for tests. -errno */
int loop_new(bool fake_clock, struct loop **ret);
struct loop *loop_free(struct loop *l); /* NULL is fine; sources still added are forgotten */

uint64_t loop_now(const struct loop *l);      /* monotonic ns, of this turn */
uint64_t loop_unix_ms(const struct loop *l);  /* wall clock; with a fake clock: moves with it */
void loop_advance(struct loop *l, uint64_t ns); /* fake clock only; runs what falls due */

int loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		void (*cb)(struct loop_io *io, unsigned events)); /* -errno */
int loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void loop_io_del(struct loop *l, struct loop_io *io); /* not added: fine */

/* Call @cb once at or after @at_ns; set again to move. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns,
		    void (*cb)(struct loop_timer *t));
void loop_timer_cancel(struct loop *l, struct loop_timer *t); /* not set: fine */

void loop_defer(struct loop *l, struct loop_call *c, void (*cb)(struct loop_call *c));
void loop_call_cancel(struct loop *l, struct loop_call *c); /* same thread, not queued: fine */
/* As loop_defer(), from any thread. */
void loop_post(struct loop *l, struct loop_call *c, void (*cb)(struct loop_call *c));

int loop_run(struct loop *l);	 /* until loop_stop(); -errno when epoll itself fails */
/* With a real clock: @cb after each turn whose calls took @ns or longer; NULL: nobody asks any more. */
void loop_on_slow(struct loop *l, uint64_t ns, void (*cb)(void *arg, uint64_t took_ns), void *arg);
void loop_stop(struct loop *l);
/* One turn: wait at most @timeout_ms (-1: for ever) and call what is due. */
int loop_turn(struct loop *l, int timeout_ms);
