/*
 * loop/work.h - a bounded pool of threads for what blocks: disks, hashing, programs.
 * A job gets copies, touches no state of the loop, and is answered on the loop.
 */
#pragma once
#include "loop/loop.h"

struct work_pool;

struct work {
	void (*run)(struct work *w);	/* on a pool thread */
	void (*done)(struct work *w);	/* on the loop, exactly once, never from inside work_submit() */
	struct loop_call call;		/* private */
	struct list link;		/* private */
	struct work_pool *pool;		/* private */
};

int work_pool_new(struct loop *l, unsigned threads, struct work_pool **ret); /* -errno */
/* Runs what is queued, then joins. No `done` comes after it: owners may free their jobs. */
struct work_pool *work_pool_free(struct work_pool *p);
void work_submit(struct work_pool *p, struct work *w);
