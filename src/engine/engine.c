/* engine/engine.c - the whole: what it is made of, how it starts and ends */
#include "engine/engine.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "driver/driver.h"
#include "engine/engine_int.h"
#include "engine/forks.h"
#include "engine/log.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "engine/sets.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { EMIT_TEXT = ERR_TEXT_MAX + 128 };

/* ---- events and logs ---- */

void engine_emit_for(struct engine *g, const char *tenant, const char *level, const char *type, const char *fmt, ...)
{
	char text[EMIT_TEXT];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	events_add(g->events, tenant, type, NULL, NULL, text);
	if (level)
		log_line(g->host, g->loop, level, type, NULL, "text", text[0] ? text : NULL, NULL);
}

void engine_emit(struct engine *g, const char *level, const char *type, struct sandbox *sb,
		 const char *step, const char *fmt, ...)
{
	char text[EMIT_TEXT];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	events_add(g->events, sb->tenant, type, sb->id_text, step, text);
	if (level)
		log_line(g->host, g->loop, level, type, sb->id_text, "name", sb->name[0] ? sb->name : NULL,
			 "step", step, "text", text[0] ? text : NULL, NULL);
}

/* ---- walls ---- */

const struct driver *engine_driver(const struct engine *g, const char *name)
{
	for (const struct engine_wall *w = g->config->walls; w->driver; w++)
		if (strcmp(w->driver->name, name) == 0)
			return w->driver;
	return NULL;
}

const struct policy_wall *engine_wall(const struct engine *g, const char *driver)
{
	for (unsigned i = 0; i < g->limits.n_walls; i++)
		if (strcmp(g->walls[i].driver, driver) == 0)
			return &g->walls[i];
	return NULL;
}

/* Around a machine with a kernel of its own, too: what leaves it is a process of this host. */
static unsigned enforced_limits(const struct engine *g)
{
	const struct keeper_host *h = g->keeper ? keeper_host(g->keeper) : NULL;

	if (!h)
		return POLICY_MEMORY | POLICY_CPU | POLICY_PIDS | POLICY_DISK;
	return (h->enforces_memory ? POLICY_MEMORY : 0u) | (h->enforces_cpu ? POLICY_CPU : 0u) |
	       (h->enforces_pids ? POLICY_PIDS : 0u) | (h->enforces_disk ? POLICY_DISK : 0u);
}

static void measure_walls(struct engine *g)
{
	unsigned n = 0;

	for (const struct engine_wall *w = g->config->walls; w->driver; w++, n++) {
		const struct driver *d = w->driver;
		struct err *e = &g->wall_errors[n];

		assert(n < ENGINE_WALLS_MAX);
		*e = (struct err)ERR_INIT;
		if (d->probe)
			(void)d->probe(g->keeper, e);
		g->walls[n] = (struct policy_wall){
			.driver = d->name,
			.isolation = w->isolation,
			.own_kernel = d->caps & DRIVER_OWN_KERNEL,
			.layer_in_memory = !(d->caps & DRIVER_NEEDS_IMAGE),
			.enforced = enforced_limits(g),
			.unusable = e->code ? e->text : NULL,
		};
		if (d->extra)
			d->extra(g->keeper, &g->walls[n].extra_mb, &g->walls[n].extra_permille);
		log_line(g->host, g->loop, "info", "wall", NULL, "driver", d->name, "isolation",
			 w->isolation, "unusable", g->walls[n].unusable, NULL);
	}
	g->limits.walls = g->walls;
	g->limits.n_walls = n;
}

/* ---- start ---- */

static void on_ready(struct loop_call *c)
{
	struct engine *g = CONTAINER_OF(c, struct engine, ready_call);
	char adopted[16];

	if (g->state != ENGINE_STARTING)
		return;
	g->state = ENGINE_SERVING;
	(void)snprintf(adopted, sizeof(adopted), "%u", g->adopted);
	log_line(g->host, g->loop, "info", "serving", NULL, "version", g->config->version, "adopted",
		 adopted, NULL);
	pools_serve(g);
	g->ops.ready(g->ops.arg);
}

void engine_recovered(struct engine *g)
{
	assert(g->recovering > 0);
	if (--g->recovering > 0)
		return;
	loop_timer_cancel(g->loop, &g->recovery_timer);
	loop_defer(g->loop, &g->ready_call, on_ready);
}

/* Whatever still hangs goes on hanging beside the service. */
static void on_recovery_timer(struct loop_timer *t)
{
	struct engine *g = CONTAINER_OF(t, struct engine, recovery_timer);

	log_line(g->host, g->loop, "warn", "recovery_slow", NULL, "text",
		 "serving before everything of the daemon before is settled", NULL);
	loop_defer(g->loop, &g->ready_call, on_ready);
}

/* What runs was promised its memory already; a derived budget did not count that as available. */
void engine_count_adopted(struct engine *g, uint64_t promised_mb)
{
	const struct engine_config *c = g->config;
	uint64_t all = c->memory_total_mb > ENGINE_RESERVE_MB ? c->memory_total_mb - ENGINE_RESERVE_MB
							      : 0;

	g->usage.memory_promised_mb += promised_mb;
	if (!c->memory_budget_mb)
		g->limits.memory_budget_mb = MAX(g->limits.memory_budget_mb,
						 MIN(g->limits.memory_budget_mb + promised_mb, all));
}

static int recover(struct engine *g, struct err *e)
{
	measure_walls(g);
	loop_timer_set(g->loop, &g->recovery_timer,
		       loop_now(g->loop) + 2 * ENGINE_ADOPT_MS * NS_PER_MS, on_recovery_timer);
	return recover_start(g, e);
}

static void keeper_up(void *arg)
{
	struct engine *g = arg;
	struct err e = ERR_INIT;

	if (recover(g, &e) < 0)
		engine_end(g, &e);
}

static void keeper_machine_gone(void *arg, const struct rec_machine_info *m)
{
	struct engine *g = arg;
	struct map_node *node = map_find(&g->by_id, m->id.b, ID_BYTES);
	struct err e = ERR_INIT;

	if (!node)
		return;
	err_set(&e, ERR_GONE, "its machine ended: %.*s", (int)m->reason.n, m->reason.p ? m->reason.p : "");
	create_machine_gone(CONTAINER_OF(node, struct sandbox, by_id), &e);
}

/* Every machine died with its parent. The rows say so; the next daemon cleans up by them. */
static void keeper_lost(void *arg, const struct err *why)
{
	struct engine *g = arg;
	struct err e = ERR_INIT;

	err_set(&e, ERR_GONE, "the keeper ended, and every machine with it: %s", why->text);
	LIST_FOR_EACH(pos, &g->sandboxes) {
		struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, all);

		sandbox_lost(sb, &e);
	}
	engine_end(g, &e);
}

int engine_start(struct engine *g, struct err *e)
{
	const struct keeper_events ev = {keeper_up, keeper_machine_gone, keeper_lost, g};

	if (!g->config->keeper_socket)
		return recover(g, e);
	return keeper_new(g->loop, g->config->keeper_socket, &ev, &g->keeper, e);
}

/* ---- end ---- */

static void on_over(struct loop_call *c)
{
	struct engine *g = CONTAINER_OF(c, struct engine, over_call);

	log_line(g->host, g->loop, g->over_why.code ? "error" : "info", "ending", NULL, "text",
		 g->over_why.code ? g->over_why.text : "asked to", NULL);
	g->ops.over(g->ops.arg, g->over_why.code ? &g->over_why : NULL);
}

void engine_end(struct engine *g, const struct err *why)
{
	if (g->state == ENGINE_OVER)
		return;
	g->state = ENGINE_OVER;
	err_copy(&g->over_why, why);
	loop_defer(g->loop, &g->over_call, on_over);
}

/* ---- birth and death ---- */

static uint64_t derive_budget(const struct engine_config *c)
{
	uint64_t free_mb = c->memory_available_mb;

	if (c->memory_budget_mb)
		return c->memory_budget_mb;
	return free_mb > ENGINE_RESERVE_MB ? free_mb - ENGINE_RESERVE_MB : 0;
}

/* Whoever waited that long for us finds why: a disk that holds up a commit, a host that holds up everybody. */
static void on_slow(void *arg, uint64_t took_ns)
{
	struct engine *g = arg;
	char text[64];

	(void)snprintf(text, sizeof(text), "clients and machines waited %llu ms for the daemon",
		       (unsigned long long)(took_ns / NS_PER_MS));
	log_line(g->host, g->loop, "warn", "slow_turn", NULL, "text", text, NULL);
}

int engine_new(const struct engine_config *config, const struct engine_ops *ops,
	       struct engine **ret, struct err *e)
{
	struct engine *g = mem_new(sizeof(*g));
	uint64_t seed;
	int r;

	*g = (struct engine){
		.config = config,
		.host = config->host,
		.ops = *ops,
		.loop = config->loop,
		.store = config->store,
		.started_ns = loop_now(config->loop),
		.limits = {.sandboxes_max = LIMIT_SANDBOXES,
			   .memory_budget_mb = derive_budget(config),
			   .idle_timeout_ms = ENGINE_IDLE_MS,
			   .pids_max = ENGINE_PIDS_MAX},
	};
	list_init(&g->sandboxes);
	list_init(&g->boot_queue);
	list_init(&g->sets);
	list_init(&g->set_jobs);
	list_init(&g->closings);
	list_init(&g->tasks);
	list_init(&g->pools);
	list_init(&g->pool_sets);
	g->hot_budget_bytes =
		(config->hot_budget_mb ? config->hot_budget_mb : config->memory_total_mb / 8) * MIB;
	list_init(&g->clients);
	list_init(&g->silent);
	list_init(&g->strays);
	g->events = events_new(g->loop, ENGINE_EVENTS, config->epoch);
	r = g->host->random(g->host->arg, &seed, sizeof(seed));
	g->by_id = g->by_name = g->by_request = (struct map)MAP_INIT(seed);
	if (r == 0)
		r = work_pool_new(g->loop, ENGINE_WORKERS, &g->pool);
	if (r < 0) {
		engine_free(g);
		return err_sys(e, r, "start the engine");
	}
	r = sets_start(g, e);
	if (r == 0)
		r = pools_start(g, e);
	if (r < 0) {
		engine_free(g);
		return r;
	}
	loop_on_slow(g->loop, ENGINE_SLOW_MS * NS_PER_MS, on_slow, g);
	*ret = g;
	return 0;
}

struct engine *engine_free(struct engine *g)
{
	struct err why = ERR_INIT;

	if (!g)
		return NULL;
	g->state = ENGINE_OVER;
	loop_on_slow(g->loop, 0, NULL, NULL);
	g->pool = work_pool_free(g->pool);
	err_set(&why, ERR_UNAVAILABLE, "the daemon is ending; sandboxes wait for the next one");
	err_copy(&why, g->over_why.code ? &g->over_why : NULL);
	LIST_FOR_EACH(pos, &g->sandboxes)
		sandbox_detach(LIST_ENTRY(pos, struct sandbox, all), &why);
	g->keeper = g->keeper ? keeper_free(g->keeper) : NULL; /* answers what is in flight */
	tasks_drop(g); /* before their sandboxes: nobody is told, the next daemon is asked again */
	while (!list_empty(&g->sandboxes))
		sandbox_forget(LIST_ENTRY(g->sandboxes.next, struct sandbox, all));
	recover_drop(g);
	pools_drop(g);
	sets_drop(g);
	g->events = events_free(g->events); /* its streams are the clients' */
	serve_drop_all(g);
	loop_timer_cancel(g->loop, &g->recovery_timer);
	loop_call_cancel(g->loop, &g->turn_call);
	loop_call_cancel(g->loop, &g->budget_call);
	loop_call_cancel(g->loop, &g->ready_call);
	loop_call_cancel(g->loop, &g->over_call);
	map_deinit(&g->by_id);
	map_deinit(&g->by_name);
	map_deinit(&g->by_request);
	free(g);
	return NULL;
}

unsigned engine_sandboxes(const struct engine *g)
{
	return g->usage.sandboxes;
}
