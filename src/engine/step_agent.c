/* engine/step_agent.c - the agent's link, its setup with proof, and the result written down */
#include "engine/step.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/str.h"
#include "engine/capture.h"
#include "engine/claim.h"
#include "engine/engine_int.h"
#include "engine/relay.h"
#include "engine/sandbox.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum {
	CLOCK_SLACK_S = 60, /* beyond it the guest did not set its clock at all */
	CLOCK_OFF_MS = 20,  /* beyond it the setup was long on its way, and is said again */
	CLOCK_TRIES = 8,
	SEED_BYTES = 32,
};

/* ---- link: the protocol on the agent's stream ---- */

static void link_up(struct link *k, uint64_t generation)
{
	struct sandbox *sb = link_arg(k);

	(void)generation;
	sb->link_was_up = true;
	if (plan_step(&sb->plan) && strcmp(plan_step(&sb->plan)->name, "hello") == 0)
		plan_next(&sb->plan);
}

static void on_gone_timer(struct loop_timer *t)
{
	struct sandbox *sb = CONTAINER_OF(t, struct sandbox, gone_timer);
	struct err e = ERR_INIT;

	err_set(&e, ERR_GONE, "its agent closed the link, and the machine runs on");
	sandbox_break(sb, &e);
}

/*
 * The end of the stream usually means that the machine ends: its own last word,
 * which says why, is on its way. Anything else is a guest that lies.
 */
static void link_down(struct link *k, const struct err *why)
{
	struct sandbox *sb = link_arg(k);
	struct loop *l = sb->engine->loop;

	if (why->code == ERR_GONE) {
		loop_timer_set(l, &sb->gone_timer, loop_now(l) + ENGINE_GONE_WAIT_MS * NS_PER_MS,
			       on_gone_timer);
		return;
	}
	engine_emit(sb->engine, "warn", EVENT_LINK_BROKEN, sb, NULL, "%s", why->text);
	sandbox_break(sb, why);
}

int step_run_link(struct plan *p, struct err *e)
{
	static const struct link_ops ops = {.up = link_up, .down = link_down};
	struct sandbox *sb = step_sandbox(p);
	unsigned flags = LINK_INITIATOR | LINK_SOCKET | (sb->is_adopted ? LINK_RESYNC : 0u);
	int fd = sb->driver->take_link(sb->machine);
	int r;

	if (fd < 0)
		return err_set(e, ERR_INTERNAL, "driver %s gave no link", sb->driver->name);
	r = link_new(sb->engine->loop, fd, flags, sb->generation, &ops, sb, &sb->link, e);
	if (r < 0) {
		sb->link = NULL;
		return r;
	}
	plan_next(p);
	return 0;
}

void step_undo_link(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	if (capture_holds(sb)) /* comes again when its job is back */
		return;
	step_unlink(sb, &sb->reason);
	plan_undone(p);
}

void step_unlink(struct sandbox *sb, const struct err *why)
{
	relay_end_all(&sb->relays, why);
	health_drop(sb);
	sb->setup = NULL;
	sb->link = link_free(sb->link);
	sb->link_was_up = false;
}

/* ---- hello: the agent answers ---- */

int step_run_hello(struct plan *p, struct err *e)
{
	(void)e;
	if (step_sandbox(p)->link_was_up)
		plan_next(p);
	return 0;
}

/* ---- setup: clock, randomness, identity; with proof ---- */

/* Names may be more than a host may be called: what does not go becomes a dash, and none is at the end. */
static void hostname_of(const struct sandbox *sb, char ret[SANDBOX_TEXT])
{
	size_t n;

	if (sb->name[0])
		(void)snprintf(ret, SANDBOX_TEXT, "%s", sb->name);
	else
		(void)snprintf(ret, SANDBOX_TEXT, "hotcell-%.12s", sb->id_text);
	for (char *p = ret; (p = strchr(p, '_'));)
		*p = '-';
	for (n = strlen(ret); n > 1 && (ret[n - 1] == '-' || ret[n - 1] == '.');)
		ret[--n] = '\0';
}

static int check_proof(const struct sandbox *sb, const struct rec_guest_ready *ready, struct err *e)
{
	uint64_t now_s = loop_unix_ms(sb->engine->loop) / 1000, guest_s = ready->time_ns / NS_PER_S;
	const char *wall = sb->driver->caps & DRIVER_OWN_KERNEL ? "vm" : "process";
	char hostname[SANDBOX_TEXT];

	hostname_of(sb, hostname);
	if (sb->driver->caps & DRIVER_OWN_KERNEL && !ready->seeded) /* else the pool is this host's */
		return err_set(e, ERR_UNAVAILABLE, "the guest did not reseed its random pool");
	if (sb->said_forked && !ready->thawed)
		return err_set(e, ERR_UNAVAILABLE, "the guest did not let its workload go on");
	if (!span_is(ready->hostname, hostname))
		return err_set(e, ERR_UNAVAILABLE, "the guest did not take its host name");
	if (guest_s + CLOCK_SLACK_S < now_s || guest_s > now_s + CLOCK_SLACK_S)
		return err_set(e, ERR_UNAVAILABLE, "the guest did not set its clock");
	if (!span_is(ready->wall, wall))
		return err_set(e, ERR_UNAVAILABLE, "the guest does not find itself behind a %s wall",
			       wall);
	return 0;
}

static bool is_off(uint64_t host_ms, uint64_t guest_ms)
{
	return MAX(host_ms, guest_ms) - MIN(host_ms, guest_ms) > CLOCK_OFF_MS;
}

static int say_setup(struct sandbox *sb, bool is_forked, void (*done)(struct sandbox *sb), struct err *e);

static void setup_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct sandbox *sb = stream_arg(s);
	struct rec_guest_ready ready;
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds;
	if (rec_decode(&rec_guest_ready_type, payload.p, payload.n, &ready, &e) == 0)
		(void)check_proof(sb, &ready, &e);
	sb->guest_boot_us = ready.boot_us;
	sb->clock_is_off = is_off(loop_unix_ms(sb->engine->loop), ready.time_ns / NS_PER_MS);
	if (e.code)
		plan_fail(&sb->plan, &e);
}

static void setup_closed(struct stream *s, const struct err *why)
{
	struct sandbox *sb = stream_arg(s);
	struct err e = ERR_INIT;

	sb->setup = NULL;
	if (!why && (!sb->clock_is_off || sb->clock_tries == CLOCK_TRIES)) {
		sb->setup_done(sb);
		return;
	}
	if (!why) { /* now that the guest is awake it takes the time sooner */
		sb->clock_tries++;
		if (say_setup(sb, false, sb->setup_done, &e) < 0)
			plan_fail(&sb->plan, &e);
		return;
	}
	if (sb->link && !link_is_up(sb->link)) /* link_down() knows more */
		return;
	err_copy(&e, why);
	err_wrap(&e, "the guest refused its setup");
	plan_fail(&sb->plan, &e);
}

static int say_setup(struct sandbox *sb, bool is_forked, void (*done)(struct sandbox *sb), struct err *e)
{
	static const struct stream_ops ops = {.reply = setup_reply, .closed = setup_closed};
	const struct engine_host *host = sb->engine->host;
	char hostname[SANDBOX_TEXT], seed[SEED_BYTES];
	struct rec_guest_setup rec = {
		.time_ns = loop_unix_ms(sb->engine->loop) * NS_PER_MS,
		.seed = {seed, sizeof(seed)},
		.env = sb->env,
		.user = span_of("user"),
		.pids_max = sb->verdict.pids_max,
		.forked = is_forked,
	};
	int r = host->random(host->arg, seed, sizeof(seed));

	if (r == 0)
		r = host->random(host->arg, rec.machine_id.b, ID_BYTES);
	if (r < 0)
		return err_sys(e, r, "random seed");
	hostname_of(sb, hostname);
	rec.hostname = span_of(hostname);
	sb->said_forked = is_forked;
	sb->setup_done = done;
	sb->clock_is_off = false;
	r = link_call(sb->link, METHOD_GUEST_SETUP, &rec_guest_setup_type, &rec, false, NULL, 0, &ops,
		      sb, &sb->setup, e);
	return r;
}

static void step_over(struct sandbox *sb)
{
	plan_next(&sb->plan);
}

int step_run_setup(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	sb->clock_tries = 0;
	return say_setup(sb, step_is_fork(sb) || sb->is_resuming, step_over, e);
}

int step_say_setup(struct sandbox *sb, void (*done)(struct sandbox *sb), struct err *e)
{
	sb->clock_tries = 0;
	return say_setup(sb, false, done, e);
}

/* ---- thaw: the daemon before may have died while it was copying this one ---- */

int step_run_thaw(struct plan *p, struct err *e)
{
	static const struct stream_ops ops = {.closed = setup_closed};
	struct sandbox *sb = step_sandbox(p);

	if (sb->is_resuming) /* it was restored, and not yet told so */
		return step_run_setup(p, e);
	sb->setup_done = step_over;
	return link_call(sb->link, METHOD_GUEST_THAW, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0,
			 &ops, sb, &sb->setup, e);
}

/* ---- commit: a resume that changes what it came from ---- */

static void run_sync(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	(void)store_sync(sb->engine->store, &sb->job_error);
}

/* Only now: else a power cut could bring back a pause whose disk has gone on. */
static void committed(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code) /* there is no way back; whoever runs on such a disk shall know */
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "commit", "%s", sb->job_error.text);
	set_remove(sb->set, NULL); /* its memory stays while we hold it */
	plan_next(&sb->plan);
}

int step_run_commit(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
	struct store_life life = {
		.state = SANDBOX_RESUMING,
		.reason = "",
		.idle_deadline_ms = sandbox_deadline_ms(sb, sb->idle_at_ns),
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.stages = {sb->stages, sb->stages_n},
		.closure = sb->set->m.closure,
	};
	int r = store_sandbox_update(sb->engine->store, &sb->id, &life, e);

	if (r < 0)
		return r;
	sb->is_committed = true;
	sb->is_rolling_back = false;
	span_copy(span_of(sb->set->m.closure), sb->closure, sizeof(sb->closure));
	if (strcmp(sb->set->m.kind, "pause") != 0) {
		plan_next(p);
		return 0;
	}
	sb->job_error = (struct err)ERR_INIT;
	sb->job.run = run_sync;
	sb->job.done = committed;
	work_submit(sb->engine->pool, &sb->job);
	return 0;
}

/* ---- ready: the result is written down ---- */

void step_add_stage(struct str *s, const char *name, uint64_t us)
{
	char pair[64];

	(void)snprintf(pair, sizeof(pair), "%s=%llu", name, (unsigned long long)us);
	strv_add(s, pair);
}

static void note_stages(struct sandbox *sb)
{
	struct str s = STR_INIT(sizeof(sb->stages));
	uint64_t total = (loop_now(sb->engine->loop) - sb->plan_started_ns) / NS_PER_US;

	for (unsigned i = sb->claim ? sb->claim->from_step : 0; i < sb->plan.at; i++)
		step_add_stage(&s, sb->plan.steps[i].name, sb->plan.us[i]);
	if (sb->guest_boot_us && !sb->claim)
		step_add_stage(&s, "guest_boot", sb->guest_boot_us);
	step_add_stage(&s, "total", total);
	if (!s.failed && s.len <= sizeof(sb->stages)) {
		memcpy(sb->stages, s.p, s.len);
		sb->stages_n = s.len;
	}
	str_deinit(&s);
}

int step_run_ready(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
	int r;

	if (!sb->is_adopted || sb->is_resuming)
		note_stages(sb);
	sandbox_set_state(sb, SANDBOX_RUNNING);
	r = sandbox_save(sb, e);
	if (r < 0)
		return r;
	step_give_turn(sb);
	sb->set = set_unref(sb->set);
	free((char *)sb->env.p); /* the guest has it */
	sb->env = (struct strv){0};
	sb->claim = claim_free(sb->claim);
	plan_next(p);
	return 0;
}
