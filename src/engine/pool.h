/*
 * engine/pool.h - sandboxes that are made before anybody asks for one
 *
 * A *spare* is a sandbox whose create plan waits for its request: as an empty shell at step
 * `state` (its monitor runs, nothing is loaded), or ready at step `pool` (set up, its agent
 * answers). A create that fits takes a spare: it gets the request's name, owner, limits and
 * environment, is set up for it, and its plan goes on. So whatever ends a sandbox that is
 * being made ends a spare, and a daemon that finds one in the store undoes it.
 *
 * POOL-1 A spare is nobody's: no call finds it, no list shows it, and it holds no secret.
 * POOL-2 It goes to its own tenant, once, to a request of its template, wall and shape,
 *	  while its template still is what the name means.
 * POOL-3 One that fails when it is taken is thrown away, and its request goes the longer way.
 *
 * Private to engine/. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/span.h"

struct client;
struct engine;
struct pool;
struct policy_principal;
struct rec_sandbox_create;
struct sandbox;
struct stream;

enum {
	POOL_FILLS_MAX = 2,	   /* spares of one pool made at once */
	POOL_REFILL_MS = 20,	   /* after a create; again while creates are under way */
	POOL_REFILL_PATIENCE = 25, /* so often */
	POOL_RETRY_MS = 1000,	   /* after a failure; doubles */
	POOL_RETRY_MAX_MS = 60000,
	POOL_HAND_OVER_MS = 2000,  /* a ready spare has this long to answer */
	POOL_BUDGET_PERCENT = 75,  /* of the memory budget: beyond it no spare is made */
	POOLS_MAX = 256,
};

enum spare { SPARE_FILLING, SPARE_SHELL, SPARE_READY };

int pools_start(struct engine *g, struct err *e); /* what is wanted, from the store. Blocks */
void pools_serve(struct engine *g);		  /* creates are served now: fill */
void pools_drop(struct engine *g);		  /* the engine ends; its sandboxes are forgotten */

/* A spare for this request, bound to it and on its way. NULL: there is none. */
struct sandbox *pool_take(struct engine *g, const struct policy_principal *who,
			  const struct rec_sandbox_create *rec);

void pool_parked(struct sandbox *sb, enum spare as); /* its plan waits from now on */
/* Its plan turns back. After it was taken: who waited for it waits for another one. */
void pool_failed(struct sandbox *sb, const struct err *why);
/* The template changed: spares of before are thrown away. */
void pools_renew(struct engine *g, const char *tenant, const char *template);

/* Verbs; see engine/serve.h. */
void run_pool_list(struct client *c, struct stream *s, const void *rec);
void run_pool_set(struct client *c, struct stream *s, const void *rec);
