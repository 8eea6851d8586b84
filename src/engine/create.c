/*
 * engine/create.c - how a sandbox is made, taken over, and undone
 *
 * Two tables of the same steps: create_steps makes, adopt_steps takes over what
 * a daemon before made. Their undo functions are the same, and each copes with
 * things that are half there, not there, or only known to the keeper.
 *
 * A job on a worker thread can't be withdrawn, so its steps `wait` (PLAN-3).
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/engine_int.h"
#include "engine/relay.h"
#include "engine/sandbox.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { CLOCK_SLACK_S = 60, SEED_BYTES = 32 };

/*
 * What is lent to the driver for a machine. A destroy() that is under way when
 * the engine is freed still completes, and what it withdraws before: so this
 * outlives the sandbox then, and frees itself.
 */
struct machine_calls {
	struct driver_req start, destroy;
	struct sandbox *sandbox; /* NULL: forgotten */
};

static struct sandbox *of(struct plan *p)
{
	return CONTAINER_OF(p, struct sandbox, plan);
}

static bool is_machine_with_kernel(const struct sandbox *sb)
{
	return sb->driver && sb->driver->caps & DRIVER_NEEDS_IMAGE;
}

/* ---- jobs on a worker ---- */

static void job_done(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		plan_fail(&sb->plan, &sb->job_error);
	else
		plan_next(&sb->plan);
}

static void submit(struct sandbox *sb, void (*run)(struct work *w), void (*done)(struct work *w))
{
	sb->job_error = (struct err)ERR_INIT;
	sb->job.run = run;
	sb->job.done = done;
	work_submit(sb->engine->pool, &sb->job);
}

/* ---- image: open the template, hold its lock ---- */

static void open_image(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;
	char ref[2 * SANDBOX_TEXT + 1];

	if (sb->is_adopted) /* exactly the one it runs on, whatever the name means by now */
		(void)snprintf(ref, sizeof(ref), "%s@%s", sb->template, sb->image_digest);
	else
		(void)snprintf(ref, sizeof(ref), "%s", sb->template);
	(void)host->image_open(host->arg, ref, &sb->image, &sb->job_error);
}

static int run_image(struct plan *p, struct err *e)
{
	(void)e;
	submit(of(p), open_image, job_done);
	return 0;
}

/* A machine that runs has its files open: a template that was removed since is no reason to end it. */
static void readopted(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		engine_emit(sb->engine, "warn", EVENT_SANDBOX_STEP, sb, "image", "%s",
			    sb->job_error.text);
	plan_next(&sb->plan);
}

static int run_reopen(struct plan *p, struct err *e)
{
	(void)e;
	submit(of(p), open_image, readopted);
	return 0;
}

static void undo_image(struct plan *p)
{
	image_close(&of(p)->image);
	plan_undone(p);
}

/* The machine has its own copies; the lock in dir_fd stays. */
static void close_image_files(struct sandbox *sb)
{
	const struct engine_host *host = sb->engine->host;
	int *fds[] = {&sb->image.root_fd, &sb->image.tree_fd, &sb->image.kernel_fd,
		      &sb->image.initrd_fd, &sb->disk_fd};

	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		if (*fds[i] >= 0)
			host->close_fd(host->arg, *fds[i]);
		*fds[i] = -1;
	}
}

/* ---- promise: memory against the budget ---- */

static int run_promise(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	struct engine *g = sb->engine;
	const struct policy_principal who = {sb->tenant, sb->owner};
	const struct policy_defaults defaults = {
		sb->image.defaults.vcpus, sb->image.defaults.memory_mb, sb->image.defaults.disk_mb};
	int r = policy_size(&who, &defaults, &g->limits, &g->usage, &sb->verdict, e);

	if (r < 0) {
		engine_emit(g, "info", EVENT_CREATE_DENIED, sb, "promise", "%s", e->text);
		return r;
	}
	span_copy(span_of(sb->image.digest), sb->image_digest, sizeof(sb->image_digest));
	sb->promised_mb = sb->verdict.memory_mb;
	g->usage.memory_promised_mb += sb->promised_mb;
	plan_next(p);
	return 0;
}

static int run_repromise(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);

	(void)e;
	sb->promised_mb = sb->verdict.memory_mb;
	engine_count_adopted(sb->engine, sb->promised_mb);
	plan_next(p);
	return 0;
}

static void undo_promise(struct plan *p)
{
	struct sandbox *sb = of(p);

	sb->engine->usage.memory_promised_mb -= sb->promised_mb;
	sb->promised_mb = 0;
	plan_undone(p);
}

/* ---- record: STORE-2 ---- */

static int run_record(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	uint64_t now = loop_now(sb->engine->loop);
	const struct policy_verdict *v = &sb->verdict;
	struct store_sandbox row;
	int r;

	sb->idle_at_ns = v->idle_timeout_ms ? now + v->idle_timeout_ms * NS_PER_MS : 0;
	sb->end_at_ns = v->lifetime_ms ? now + v->lifetime_ms * NS_PER_MS : 0;
	row = (struct store_sandbox){
		.id = sb->id,
		.name = sb->name,
		.tenant = sb->tenant,
		.owner = sb->owner,
		.request_id = sb->request_id,
		.template = sb->template,
		.image = sb->image_digest,
		.driver = sb->driver->name,
		.vcpus = v->vcpus,
		.memory_mb = v->memory_mb,
		.disk_mb = v->disk_mb,
		.pids_max = v->pids_max,
		.ephemeral = sb->ephemeral,
		.metadata = sb->metadata,
		.unenforced = sb->unenforced,
		.state = sandbox_state_name(sb->state),
		.reason = "",
		.created_ms = sb->created_ms,
		.idle_timeout_ms = v->idle_timeout_ms,
		.idle_deadline_ms = sandbox_deadline_ms(sb, sb->idle_at_ns),
		.deadline_ms = sandbox_deadline_ms(sb, sb->end_at_ns),
		.generation = sb->generation,
	};
	r = store_sandbox_add(sb->engine->store, &row, e);
	if (r < 0)
		return r;
	sb->idle_saved_ms = row.idle_deadline_ms;
	sb->is_recorded = true;
	plan_next(p);
	return 0;
}

static void try_forget(struct sandbox *sb);

static void on_retry(struct loop_timer *t)
{
	try_forget(CONTAINER_OF(t, struct sandbox, retry_timer));
}

static bool keeps_failure(const struct sandbox *sb)
{
	return sb->fate == SANDBOX_FAILED && !sb->ephemeral;
}

static int write_end(struct sandbox *sb, struct err *e)
{
	struct store_life life = {
		.state = sandbox_state_name(SANDBOX_FAILED),
		.reason = sb->reason.text,
		.generation = sb->generation,
		.stages = {sb->stages, sb->stages_n},
	};

	int r;

	if (!sb->is_recorded)
		return 0;
	if (keeps_failure(sb))
		return store_sandbox_update(sb->engine->store, &sb->id, &life, e);
	r = store_sandbox_remove(sb->engine->store, &sb->id, e);
	if (r == 0)
		sb->is_recorded = false;
	return r;
}

/* Everything is gone but the row. A store that can't write now (full disk) is asked again. */
static void try_forget(struct sandbox *sb)
{
	struct loop *l = sb->engine->loop;
	struct err e = ERR_INIT;

	if (write_end(sb, &e) == 0) {
		plan_undone(&sb->plan);
		return;
	}
	engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "record", "%s", e.text);
	loop_timer_set(l, &sb->retry_timer, loop_now(l) + ENGINE_STORE_RETRY_MS * NS_PER_MS, on_retry);
}

static void undo_record(struct plan *p)
{
	try_forget(of(p));
}

/* ---- disk: the writable layer of a machine with a kernel of its own ---- */

static void make_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->disk_make(host->arg, sb->id_text, sb->verdict.disk_mb, &sb->disk_fd,
			      &sb->job_error);
}

static int run_disk(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);

	(void)e;
	if (is_machine_with_kernel(sb))
		submit(sb, make_disk, job_done);
	else
		plan_next(p);
	return 0;
}

static void remove_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->disk_remove(host->arg, sb->id_text, &sb->job_error);
}

static void disk_removed(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "disk", "%s",
			    sb->job_error.text);
	plan_undone(&sb->plan);
}

static void undo_disk(struct plan *p)
{
	struct sandbox *sb = of(p);

	if (sb->disk_fd >= 0)
		sb->engine->host->close_fd(sb->engine->host->arg, sb->disk_fd);
	sb->disk_fd = -1;
	if (is_machine_with_kernel(sb) || !sb->driver)
		submit(sb, remove_disk, disk_removed);
	else
		plan_undone(p);
}

/* ---- turn: kernels that boot all at once would all be late ---- */

static uint64_t deadline_of(const struct sandbox *sb)
{
	uint64_t ms = sb->engine->config->create_deadline_ms;

	return ms ? ms : ENGINE_CREATE_MS;
}

static bool may_boot(const struct engine *g)
{
	return !g->config->boots_max || g->boots < g->config->boots_max;
}

static void take_turn(struct sandbox *sb)
{
	list_del(&sb->turn);
	sb->has_turn = true;
	sb->engine->boots++;
	plan_deadline(&sb->plan, deadline_of(sb));
	plan_next(&sb->plan);
}

/* From the loop: one that fails at once gives its turn to the next without a growing stack. */
static void on_turn(struct loop_call *c)
{
	struct engine *g = CONTAINER_OF(c, struct engine, turn_call);

	while (may_boot(g) && !list_empty(&g->boot_queue))
		take_turn(LIST_ENTRY(g->boot_queue.next, struct sandbox, turn));
}

static void give_turn(struct sandbox *sb)
{
	struct engine *g = sb->engine;

	list_del(&sb->turn);
	if (!sb->has_turn)
		return;
	sb->has_turn = false;
	g->boots--;
	loop_defer(g->loop, &g->turn_call, on_turn);
}

static int run_turn(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	struct engine *g = sb->engine;

	(void)e;
	if (!(sb->driver->caps & DRIVER_OWN_KERNEL)) {
		plan_next(p);
	} else if (may_boot(g) && list_empty(&g->boot_queue)) {
		take_turn(sb);
	} else {
		list_add_tail(&g->boot_queue, &sb->turn);
		plan_deadline(p, 0); /* those before it have theirs */
	}
	return 0;
}

static void undo_turn(struct plan *p)
{
	give_turn(of(p));
	plan_undone(p);
}

/* ---- machine ---- */

static struct machine_calls *calls_new(struct sandbox *sb,
				       void (*started)(struct driver_req *r, const struct err *why))
{
	struct machine_calls *c = mem_new(sizeof(*c));

	*c = (struct machine_calls){.start.done = started, .sandbox = sb};
	sb->calls = c;
	return c;
}

static void machine_gone(void *arg, const struct err *why)
{
	create_machine_gone(arg, why);
}

static void fill_spec(struct sandbox *sb, struct machine_spec *s)
{
	bool is_image = is_machine_with_kernel(sb);

	*s = (struct machine_spec){
		.id = sb->id,
		.vcpus = (unsigned)sb->verdict.vcpus,
		.memory_mb = sb->verdict.memory_mb,
		.disk_mb = sb->verdict.disk_mb,
		.pids_max = (unsigned)sb->verdict.pids_max,
		.root_fd = is_image ? sb->image.root_fd : sb->image.tree_fd,
		.kernel_fd = is_image ? sb->image.kernel_fd : -1,
		.initrd_fd = is_image ? sb->image.initrd_fd : -1,
		.unenforced = sb->unenforced,
		.lease_ms = KEEPER_LEASE_MS,
	};
	if (sb->disk_fd >= 0)
		s->drives[s->n_drives++] = (struct machine_drive){.fd = sb->disk_fd};
}

static void started(struct driver_req *r, const struct err *why)
{
	struct sandbox *sb = CONTAINER_OF(r, struct machine_calls, start)->sandbox;

	if (!sb || !plan_is_forward(&sb->plan)) /* destroy() withdrew it */
		return;
	close_image_files(sb);
	if (why)
		plan_fail(&sb->plan, why);
	else
		plan_next(&sb->plan);
}

static int run_machine(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	struct engine *g = sb->engine;
	struct machine_events ev = {machine_gone, sb};
	struct machine_spec spec;
	int r;

	fill_spec(sb, &spec);
	r = sb->driver->create(g->loop, g->keeper, &spec, &ev, &sb->machine, e);
	if (r < 0) {
		sb->machine = NULL;
		return r;
	}
	return sb->driver->start(sb->machine, &spec, &calls_new(sb, started)->start, e);
}

static int run_adopt(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	struct engine *g = sb->engine;
	struct machine_events ev = {machine_gone, sb};
	int r;

	r = sb->driver->adopt(g->loop, g->keeper, &sb->id, &ev, &calls_new(sb, started)->start,
			      &sb->machine, e);
	if (r < 0) {
		sb->machine = NULL;
		free(take_ptr(&sb->calls));
	}
	return r;
}

static void destroyed(struct driver_req *r, const struct err *why)
{
	struct machine_calls *c = CONTAINER_OF(r, struct machine_calls, destroy);
	struct sandbox *sb = c->sandbox;

	free(c);
	if (!sb)
		return;
	sb->calls = NULL;
	if (why)
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "machine", "%s", why->text);
	plan_undone(&sb->plan);
}

static void destroy(struct sandbox *sb)
{
	sb->calls->destroy.done = destroyed;
	sb->driver->destroy(take_ptr(&sb->machine), &sb->calls->destroy);
}

static void released(struct keeper_call *c, const struct err *why)
{
	struct sandbox *sb = CONTAINER_OF(c, struct sandbox, release_call);

	if (why)
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "machine", "%s", why->text);
	plan_undone(&sb->plan);
}

/* No keeper stands behind the null driver's machines: they are taken over, to be destroyed. */
static void adopted_to_destroy(struct driver_req *r, const struct err *why)
{
	(void)why; /* there was none, or it has ended: destroy() cleans up either way */
	destroy(CONTAINER_OF(r, struct machine_calls, start)->sandbox);
}

static void ignore_gone(void *arg, const struct err *why)
{
	(void)arg;
	(void)why;
}

static void release_foreign(struct sandbox *sb)
{
	struct engine *g = sb->engine;
	struct machine_events ev = {ignore_gone, NULL};
	struct err e = ERR_INIT;
	int r;

	sb->machine_is_foreign = false;
	sb->release_call.done = released;
	if (g->keeper)
		r = keeper_release(g->keeper, &sb->id, &sb->release_call, &e);
	else if (sb->driver)
		r = sb->driver->adopt(g->loop, NULL, &sb->id, &ev,
				      &calls_new(sb, adopted_to_destroy)->start, &sb->machine, &e);
	else
		r = -ERR_NOT_FOUND;
	if (r < 0) {
		sb->machine = NULL;
		free(take_ptr(&sb->calls));
		plan_undone(&sb->plan);
	}
}

static void undo_machine(struct plan *p)
{
	struct sandbox *sb = of(p);

	close_image_files(sb);
	loop_timer_cancel(sb->engine->loop, &sb->gone_timer);
	if (sb->machine)
		destroy(sb);
	else if (sb->machine_is_foreign)
		release_foreign(sb);
	else
		plan_undone(p);
}

void create_machine_gone(struct sandbox *sb, const struct err *why)
{
	struct err e = ERR_INIT;

	err_copy(&e, why);
	if (!e.code)
		err_set(&e, ERR_GONE, "its machine ended");
	loop_timer_cancel(sb->engine->loop, &sb->gone_timer);
	sandbox_break(sb, &e);
}

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

static int run_link(struct plan *p, struct err *e)
{
	static const struct link_ops ops = {.up = link_up, .down = link_down};
	struct sandbox *sb = of(p);
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

static void undo_link(struct plan *p)
{
	struct sandbox *sb = of(p);

	relay_end_all(&sb->relays, &sb->reason);
	sb->setup = NULL;
	sb->link = link_free(sb->link);
	sb->link_was_up = false;
	plan_undone(p);
}

/* ---- hello: the agent answers ---- */

static int run_hello(struct plan *p, struct err *e)
{
	(void)e;
	if (of(p)->link_was_up)
		plan_next(p);
	return 0;
}

/* ---- setup: clock, randomness, identity; with proof ---- */

static void hostname_of(const struct sandbox *sb, char ret[SANDBOX_TEXT])
{
	if (sb->name[0])
		(void)snprintf(ret, SANDBOX_TEXT, "%s", sb->name);
	else
		(void)snprintf(ret, SANDBOX_TEXT, "hotcell-%.12s", sb->id_text);
}

static int check_proof(const struct sandbox *sb, const struct rec_guest_ready *ready, struct err *e)
{
	uint64_t now_s = loop_unix_ms(sb->engine->loop) / 1000, guest_s = ready->time_ns / NS_PER_S;
	const char *wall = sb->driver->caps & DRIVER_OWN_KERNEL ? "vm" : "process";
	char hostname[SANDBOX_TEXT];

	hostname_of(sb, hostname);
	if (sb->driver->caps & DRIVER_OWN_KERNEL && !ready->seeded) /* else the pool is this host's */
		return err_set(e, ERR_UNAVAILABLE, "the guest did not reseed its random pool");
	if (!span_is(ready->hostname, hostname))
		return err_set(e, ERR_UNAVAILABLE, "the guest did not take its host name");
	if (guest_s + CLOCK_SLACK_S < now_s || guest_s > now_s + CLOCK_SLACK_S)
		return err_set(e, ERR_UNAVAILABLE, "the guest did not set its clock");
	if (!span_is(ready->wall, wall))
		return err_set(e, ERR_UNAVAILABLE, "the guest does not find itself behind a %s wall",
			       wall);
	return 0;
}

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
	if (e.code)
		plan_fail(&sb->plan, &e);
}

static void setup_closed(struct stream *s, const struct err *why)
{
	struct sandbox *sb = stream_arg(s);
	struct err e = ERR_INIT;

	sb->setup = NULL;
	if (!why) {
		plan_next(&sb->plan);
		return;
	}
	if (sb->link && !link_is_up(sb->link)) /* link_down() knows more */
		return;
	err_copy(&e, why);
	err_wrap(&e, "the guest refused its setup");
	plan_fail(&sb->plan, &e);
}

static int run_setup(struct plan *p, struct err *e)
{
	static const struct stream_ops ops = {.reply = setup_reply, .closed = setup_closed};
	struct sandbox *sb = of(p);
	const struct engine_host *host = sb->engine->host;
	char hostname[SANDBOX_TEXT], seed[SEED_BYTES];
	struct rec_guest_setup rec = {
		.time_ns = loop_unix_ms(sb->engine->loop) * NS_PER_MS,
		.seed = {seed, sizeof(seed)},
		.env = sb->env,
		.user = span_of("user"),
		.pids_max = sb->verdict.pids_max,
	};
	int r = host->random(host->arg, seed, sizeof(seed));

	if (r == 0)
		r = host->random(host->arg, rec.machine_id.b, ID_BYTES);
	if (r < 0)
		return err_sys(e, r, "random seed");
	hostname_of(sb, hostname);
	rec.hostname = span_of(hostname);
	r = link_call(sb->link, METHOD_GUEST_SETUP, &rec_guest_setup_type, &rec, false, NULL, 0, &ops,
		      sb, &sb->setup, e);
	return r;
}

/* ---- ready: the result is written down ---- */

static void add_stage(struct str *s, const char *name, uint64_t us)
{
	char pair[64];

	(void)snprintf(pair, sizeof(pair), "%s=%llu", name, (unsigned long long)us);
	strv_add(s, pair);
}

static void note_stages(struct sandbox *sb)
{
	struct str s = STR_INIT(sizeof(sb->stages));
	uint64_t total = (loop_now(sb->engine->loop) - sb->plan_started_ns) / NS_PER_US;

	for (unsigned i = 0; i < sb->plan.at; i++)
		add_stage(&s, sb->plan.steps[i].name, sb->plan.us[i]);
	if (sb->guest_boot_us)
		add_stage(&s, "guest_boot", sb->guest_boot_us);
	add_stage(&s, "total", total);
	if (!s.failed && s.len <= sizeof(sb->stages)) {
		memcpy(sb->stages, s.p, s.len);
		sb->stages_n = s.len;
	}
	str_deinit(&s);
}

static int run_ready(struct plan *p, struct err *e)
{
	struct sandbox *sb = of(p);
	int r;

	if (!sb->is_adopted)
		note_stages(sb);
	sandbox_set_state(sb, SANDBOX_RUNNING);
	r = sandbox_save(sb, e);
	if (r < 0)
		return r;
	give_turn(sb);
	free((char *)sb->env.p); /* the guest has it */
	sb->env = (struct strv){0};
	plan_next(p);
	return 0;
}

/* ---- the tables ---- */

static const struct step create_steps[] = {
	{.name = "image", .run = run_image, .undo = undo_image, .waits = true},
	{.name = "promise", .run = run_promise, .undo = undo_promise},
	{.name = "record", .run = run_record, .undo = undo_record},
	{.name = "disk", .run = run_disk, .undo = undo_disk, .waits = true, .intent = true},
	{.name = "turn", .run = run_turn, .undo = undo_turn},
	{.name = "machine", .run = run_machine, .undo = undo_machine, .intent = true},
	{.name = "link", .run = run_link, .undo = undo_link},
	{.name = "hello", .run = run_hello},
	{.name = "setup", .run = run_setup},
	{.name = "ready", .run = run_ready},
	{0},
};

static const struct step adopt_steps[] = {
	{.name = "image", .run = run_reopen, .undo = undo_image, .waits = true},
	{.name = "promise", .run = run_repromise, .undo = undo_promise},
	{.name = "record", .undo = undo_record},
	{.name = "disk", .undo = undo_disk},
	{.name = "machine", .run = run_adopt, .undo = undo_machine},
	{.name = "link", .run = run_link, .undo = undo_link},
	{.name = "hello", .run = run_hello},
	{.name = "ready", .run = run_ready},
	{0},
};

static int begin(struct plan *p, const struct step *s, struct err *e)
{
	struct sandbox *sb = of(p);

	return store_intent_open(sb->engine->store, &sb->id, s->name, e);
}

static void step_done(struct plan *p, const struct step *s, uint64_t us)
{
	struct sandbox *sb = of(p);

	/* An intent left open says less, not something wrong: undoing copes with both. */
	if (s->intent)
		(void)store_intent_close(sb->engine->store, &sb->id, s->name, NULL);
	engine_emit(sb->engine, NULL, EVENT_SANDBOX_STEP, sb, s->name, "%llu us",
		    (unsigned long long)us);
}

static void turning(struct plan *p, const struct err *why)
{
	struct sandbox *sb = of(p);

	sb->reason = *why;
	if (sb->state != SANDBOX_STOPPING)
		sandbox_set_state(sb, SANDBOX_STOPPING);
	/* If this can't be written, the next daemon adopts it and finds it ending: the same end. */
	if (sb->is_recorded)
		(void)sandbox_save(sb, NULL);
}

static void over(struct plan *p, const struct err *why)
{
	sandbox_settle(of(p), why);
}

static const struct plan_ops ops = {
	.begin = begin,
	.step_done = step_done,
	.turning = turning,
	.over = over,
};

/* ---- for engine/sandbox.c ---- */

void create_start(struct sandbox *sb)
{
	sb->plan_started_ns = loop_now(sb->engine->loop);
	plan_start(&sb->plan, sb->engine->loop, create_steps, &ops, deadline_of(sb));
}

void create_adopt(struct sandbox *sb)
{
	sb->is_adopted = true;
	sb->machine_is_foreign = true;
	sb->plan_started_ns = loop_now(sb->engine->loop);
	plan_start(&sb->plan, sb->engine->loop, adopt_steps, &ops, ENGINE_ADOPT_MS);
}

void create_resume_undo(struct sandbox *sb, const struct err *why)
{
	sb->machine_is_foreign = true;
	plan_adopted(&sb->plan, sb->engine->loop, adopt_steps, &ops);
	plan_undo(&sb->plan, why);
}

void create_drop(struct sandbox *sb)
{
	plan_drop(&sb->plan);
	sb->link = link_free(sb->link);
	if (sb->calls)
		sb->calls->sandbox = NULL;
	if (sb->machine) {
		sb->driver->forget(sb->machine);
		free(sb->calls);
	}
	sb->machine = NULL;
	sb->calls = NULL;
	close_image_files(sb);
	image_close(&sb->image);
}
