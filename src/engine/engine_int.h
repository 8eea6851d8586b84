/* engine/engine_int.h - the engine's insides. Private to engine/. Thread: the loop's. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"
#include "base/map.h"
#include "engine/engine.h"
#include "engine/event.h"
#include "image/hash.h"
#include "keeper/keeper.h"
#include "loop/loop.h"
#include "loop/work.h"
#include "policy/policy.h"

struct sandbox;

enum { ENGINE_WALLS_MAX = 8, ENGINE_HEATED = 32 };

/* A shape of an image that had to boot, and how often. */
struct heat {
	char image[HASH_TEXT];
	uint64_t vcpus, memory_mb, disk_mb;
	unsigned boots;
};

#define ENGINE_TENANT "default" /* whose everything is for which nobody else is known */

enum engine_state {
	ENGINE_STARTING, /* waits for the keeper, then for recovery */
	ENGINE_SERVING,
	ENGINE_OVER,	 /* `over` was or will be called */
};

struct engine {
	const struct engine_config *config;
	const struct engine_host *host;
	struct engine_ops ops;
	struct loop *loop;
	struct store *store;
	struct work_pool *pool;
	struct keeper *keeper; /* NULL: none */
	enum engine_state state;
	struct loop_call ready_call, over_call;
	struct err over_why; /* code 0: asked for */
	uint64_t started_ns;

	struct policy_limits limits;
	struct policy_usage usage;
	struct policy_wall walls[ENGINE_WALLS_MAX];
	struct err wall_errors[ENGINE_WALLS_MAX];

	struct list sandboxes;
	struct map by_id, by_name, by_request;
	uint64_t next_serial;
	unsigned adopted;    /* taken over from the daemon before */
	struct loop_timer recovery_timer;
	unsigned recovering; /* plans and calls of the start that are not over yet */

	struct list sets; /* struct set */
	uint64_t next_serial_set;
	uint64_t hot_budget_bytes;
	struct loop_call budget_call;
	struct list set_jobs; /* struct set: jobs that wait for those before */
	unsigned n_set_jobs;  /* under way */
	struct list closings; /* memory that is being given back */
	struct heat heats[ENGINE_HEATED]; /* the shapes that last had to boot (engine/heat.h) */
	unsigned n_heats;
	struct list tasks; /* struct task (engine/forks.c) */

	struct list pools, pool_sets; /* struct pool, struct setting (engine/pool.c) */
	uint64_t next_serial_pool;

	struct list boot_queue; /* sandboxes that wait for their turn, first come first served */
	unsigned boots;		/* turns given */
	struct loop_call turn_call;

	struct list clients;
	unsigned n_clients;
	struct list silent; /* of them, who has not said a word, the oldest first; one timer for all */
	struct loop_timer silent_timer;
	struct events *events;
	struct keeper_list_call list_call;
	struct list strays; /* machines without a record, being released */
};

/* Ring and, unless @level is NULL, log. @step may be NULL. */
[[gnu::format(printf, 6, 7)]] void engine_emit(struct engine *g, const char *level,
					       const char *type, struct sandbox *sb,
					       const char *step, const char *fmt, ...);

/* The same of what is not a sandbox's but a tenant's. */
[[gnu::format(printf, 5, 6)]] void engine_emit_for(struct engine *g, const char *tenant, const char *level,
						   const char *type, const char *fmt, ...);

const struct driver *engine_driver(const struct engine *g, const char *name); /* NULL: none */
const struct policy_wall *engine_wall(const struct engine *g, const char *driver);

void engine_count_adopted(struct engine *g, uint64_t promised_mb);

/* One thing of the start is settled; the last one makes the engine ready. */
void engine_recovered(struct engine *g);

/* Tell the owner, from the loop, to free us. @why NULL: asked for. */
void engine_end(struct engine *g, const struct err *why);

/* recover.c: records, then machines without one. */
int recover_start(struct engine *g, struct err *e);
void recover_drop(struct engine *g);

/* serve.c */
void serve_drop_all(struct engine *g);
