/*
 * store/store.h - what must outlive the daemon: sandboxes, intents, pools, and the epoch
 *
 *	{dir}/run.db	sandboxes and their intents: class DB_RUN. After a power cut no
 *			machine lives, so losing the last rows then loses nothing, but of
 *			those that are paused: store_sync().
 *	{dir}/keep.db	what must survive a power cut (the epoch, pools): class DB_KEEP.
 *
 * STORE-1 Every call is one transaction: on an error nothing of it was written.
 * STORE-2 A sandbox's row is there before the first side effect of its creation,
 *	   and goes after the last trace of it is gone.
 * STORE-3 An intent is there before its step's side effect.
 *
 * Thread: one at a time per file: the engine's loop for run.db; before the loop runs, or one
 * worker, for keep.db (epoch, pools).
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/id.h"
#include "base/span.h"

struct err;
struct store;

/* Texts and lists are lent for the call or callback. */
struct store_sandbox {
	struct id id;
	const char *name, *tenant, *owner, *request_id; /* "": none */
	const char *template, *image, *driver;
	uint64_t vcpus, memory_mb, disk_mb, pids_max;
	bool ephemeral;
	struct strv metadata, unenforced, stages;
	const char *state, *reason;
	uint64_t created_ms, idle_timeout_ms, idle_deadline_ms, deadline_ms; /* unix; 0: none */
	uint64_t generation; /* of the link */
	uint64_t layers;     /* of its disk */
	uint64_t node;	     /* of its monitor, that stands for the top one */
	const char *path;    /* how it was made: boot, fork, prestarted, pool */
	struct id parent;    /* the snapshot it was started from; zero: none */
	const char *closure; /* of the monitor it runs in; NULL: none */
	uint64_t lifetime_ms; /* as asked for; its forks get it, too. 0: none, or a record of before */
};

/* What changes in a sandbox's life. */
struct store_life {
	const char *state, *reason;
	uint64_t idle_deadline_ms, generation, layers, node;
	struct strv stages;
	const char *closure; /* NULL: as it was */
};

/* A pool that somebody wants; its first six fields name it. Texts are lent. */
struct store_pool {
	const char *tenant, *template, *isolation;
	uint64_t vcpus, memory_mb, disk_mb;
	uint64_t size, prestarted; /* both 0: none */
	struct strv unenforced;
};

/* Open or create both files in @dir. Errors: db_open(). */
int store_open(const char *dir, struct store **ret, struct err *e);
struct store *store_close(struct store *s); /* NULL fine */

/* Add a row. -ERR_CONFLICT when its id, or its name or request id in this tenant, exists. */
int store_sandbox_add(struct store *s, const struct store_sandbox *row, struct err *e);
/* Everything in the row of this id, as it was given to somebody. Errors: as add; -ERR_NOT_FOUND. */
int store_sandbox_rewrite(struct store *s, const struct store_sandbox *row, struct err *e);
int store_sandbox_update(struct store *s, const struct id *id, const struct store_life *life,
			 struct err *e);
/* Remove the row and its intents. No such row: fine. */
int store_sandbox_remove(struct store *s, const struct id *id, struct err *e);

/* In the order of creation; @each must not call the store. */
int store_sandbox_each(struct store *s, void (*each)(void *arg, const struct store_sandbox *row),
		       void *arg, struct err *e);

/* Every change of a sandbox so far is on disk when it returns. Blocks. Any thread. */
int store_sync(const struct store *s, struct err *e);

/* @step begins; store_intent_close() when it is done. An open one after a crash: nobody knows. */
int store_intent_open(struct store *s, const struct id *id, const char *step, struct err *e);
int store_intent_close(struct store *s, const struct id *id, const char *step, struct err *e);
/* The intents of a sandbox in order. */
int store_intent_each(struct store *s, const struct id *id,
		      void (*each)(void *arg, const char *step, bool is_open), void *arg,
		      struct err *e);

/*
 * store_epoch_next() - how often this state directory was opened for service, this time included
 *
 * On disk when it returns, so no number is ever given twice: event numbers build on it.
 * Blocks; call it before the loop runs or on a worker.
 */
int store_epoch_next(struct store *s, uint64_t *ret, struct err *e);

/* Blocks until it is on disk. Both numbers 0: forget the pool. */
int store_pool_set(struct store *s, const struct store_pool *p, struct err *e);
/* @each must not call the store. Blocks. */
int store_pool_each(struct store *s, void (*each)(void *arg, const struct store_pool *p), void *arg, struct err *e);
