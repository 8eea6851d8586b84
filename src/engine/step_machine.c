/* engine/step_machine.c - a turn to boot, and the machine */
#include "engine/step.h"
#include <stdlib.h>
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "wire/gen/events.h"

/*
 * What is lent to the driver for a machine. A destroy() that is under way when
 * the engine is freed still completes, and what it withdraws before: so this
 * outlives the sandbox then, and frees itself.
 */
struct machine_calls {
	struct driver_req start, load, go, destroy;
	struct sandbox *sandbox; /* NULL: forgotten */
};

/* ---- turn: kernels that start all at once, booted or forked, would all be late ---- */

uint64_t step_deadline_ms(const struct sandbox *sb)
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
	plan_deadline(&sb->plan, step_deadline_ms(sb));
	plan_next(&sb->plan);
}

/* From the loop: one that fails at once gives its turn to the next without a growing stack. */
static void on_turn(struct loop_call *c)
{
	struct engine *g = CONTAINER_OF(c, struct engine, turn_call);

	while (may_boot(g) && !list_empty(&g->boot_queue))
		take_turn(LIST_ENTRY(g->boot_queue.next, struct sandbox, turn));
}

void step_give_turn(struct sandbox *sb)
{
	struct engine *g = sb->engine;

	list_del(&sb->turn);
	if (!sb->has_turn)
		return;
	sb->has_turn = false;
	g->boots--;
	loop_defer(g->loop, &g->turn_call, on_turn);
}

int step_run_turn(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
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

void step_undo_turn(struct plan *p)
{
	step_give_turn(step_sandbox(p));
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
	bool is_image = step_needs_image(sb);

	*s = (struct machine_spec){
		.id = sb->id,
		.vcpus = (unsigned)sb->verdict.vcpus,
		.memory_mb = sb->verdict.memory_mb,
		.disk_mb = sb->verdict.disk_mb,
		.pids_max = (unsigned)sb->verdict.pids_max,
		.root_fd = is_image ? sb->image.root_fd : -1,
		.image = is_image ? NULL : sb->image.digest,
		.kernel_fd = is_image ? sb->image.kernel_fd : -1,
		.initrd_fd = is_image ? sb->image.initrd_fd : -1,
		.unenforced = sb->unenforced,
		.lease_ms = KEEPER_LEASE_MS,
		.memory_fd = -1,
		.state_fd = -1,
		.closure = "",
	};
	for (unsigned i = 0; i < sb->disk.n; i++)
		s->layers[s->n_layers++] = sb->disk.fds[i];
	if (step_brings_files(sb))
		s->memory_fd = sb->set->memory_fd;
	if (step_is_fork(sb)) {
		s->memory_fd = sb->set->memory_fd;
		s->state_fd = sb->set->state_fd;
		s->closure = sb->set->m.closure;
	}
}

static void started(struct driver_req *r, const struct err *why)
{
	struct sandbox *sb = CONTAINER_OF(r, struct machine_calls, start)->sandbox;

	if (!sb || !plan_is_forward(&sb->plan)) /* destroy() withdrew it */
		return;
	step_close_files(sb);
	if (step_brings_files(sb)) /* it has its own */
		sb->set = set_unref(sb->set);
	if (why)
		plan_fail(&sb->plan, why);
	else
		plan_next(&sb->plan);
}

int step_run_machine(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
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

static void answered(struct sandbox *sb, const struct err *why)
{
	if (!sb || !plan_is_forward(&sb->plan))
		return;
	if (why)
		plan_fail(&sb->plan, why);
	else
		plan_next(&sb->plan);
}

static void state_loaded(struct driver_req *r, const struct err *why)
{
	answered(CONTAINER_OF(r, struct machine_calls, load)->sandbox, why);
}

int step_load_state(struct sandbox *sb, struct err *e)
{
	sb->calls->load.done = state_loaded;
	return sb->driver->load(sb->machine, &sb->calls->load, e);
}

int step_run_state(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	if (sb->is_shell && !step_is_fork(sb))
		return err_set(e, ERR_UNSUPPORTED, "prestarted: template %s is not hot: hotcell template build %s",
			       sb->template, sb->template);
	if (sb->is_shell && sb->pool) {
		plan_deadline(p, 0); /* until somebody comes */
		step_give_turn(sb);
		pool_parked(sb, SPARE_SHELL);
		return 0;
	}
	if (step_is_fork(sb))
		return step_load_state(sb, e);
	plan_next(p);
	return 0;
}

static void gone_on(struct driver_req *r, const struct err *why)
{
	answered(CONTAINER_OF(r, struct machine_calls, go)->sandbox, why);
}

int step_run_go(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	if (!step_is_fork(sb)) {
		plan_next(p);
		return 0;
	}
	sb->calls->go.done = gone_on;
	return sb->driver->resume(sb->machine, &sb->calls->go, e);
}

int step_run_adopt(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
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

/* ---- parked: the machine goes, the sandbox stays ---- */

static void parked(struct driver_req *r, const struct err *why)
{
	struct machine_calls *c = CONTAINER_OF(r, struct machine_calls, destroy);
	struct sandbox *sb = c->sandbox;
	void (*then)(struct sandbox *sb);

	free(c);
	if (!sb)
		return;
	sb->calls = NULL;
	then = sb->parked;
	sb->parked = NULL;
	if (why)
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "machine", "%s", why->text);
	if (sb->state == SANDBOX_STOPPING) /* its end waited for this */
		plan_undone(&sb->plan);
	else
		then(sb);
}

void step_park(struct sandbox *sb, void (*then)(struct sandbox *sb))
{
	sb->parked = then;
	loop_timer_cancel(sb->engine->loop, &sb->gone_timer);
	sb->calls->destroy.done = parked;
	sb->driver->destroy(take_ptr(&sb->machine), &sb->calls->destroy);
}

void step_undo_machine(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	if (sb->parked)
		return; /* its machine is going already */

	step_close_files(sb);
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

	if (sb->state == SANDBOX_PAUSED || sb->parked)
		return; /* that is what was wanted */
	err_copy(&e, why);
	if (!e.code)
		err_set(&e, ERR_GONE, "its machine ended");
	sandbox_explain_end(sb, &e);
	loop_timer_cancel(sb->engine->loop, &sb->gone_timer);
	sandbox_break(sb, &e);
}

void step_forget_machine(struct sandbox *sb)
{
	if (sb->calls)
		sb->calls->sandbox = NULL;
	if (sb->machine) {
		sb->driver->forget(sb->machine);
		free(sb->calls);
	}
	sb->machine = NULL;
	sb->calls = NULL;
}
