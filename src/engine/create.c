/*
 * engine/create.c - how a sandbox is made, taken over, and undone
 *
 * Two tables of the same steps: create_steps makes, adopt_steps takes over what
 * a daemon before made. Their undo functions are the same, and each copes with
 * things that are half there, not there, or only known to the keeper.
 *
 * A job on a worker thread can't be withdrawn, so its steps `wait` (PLAN-3).
 */
#include "base/macro.h"
#include "engine/capture.h"
#include "engine/claim.h"
#include "engine/engine_int.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "engine/step.h"
#include "image/store.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"

static const struct step create_steps[] = {
	{.name = "image", .run = step_run_image, .undo = step_undo_image, .waits = true},
	{.name = "promise", .run = step_run_promise, .undo = step_undo_promise},
	{.name = "record", .run = step_run_record, .undo = step_undo_record},
	{.name = "load", .run = step_run_load, .undo = step_undo_load},
	{.name = "disk", .run = step_run_disk, .undo = step_undo_disk, .waits = true, .intent = true},
	{.name = "turn", .run = step_run_turn, .undo = step_undo_turn},
	{.name = "machine", .run = step_run_machine, .undo = step_undo_machine, .intent = true},
	{.name = "state", .run = step_run_state},
	{.name = "go", .run = step_run_go},
	{.name = "link", .run = step_run_link, .undo = step_undo_link},
	{.name = "hello", .run = step_run_hello},
	{.name = "setup", .run = step_run_setup},
	{.name = "pool", .run = step_run_pool, .undo = step_undo_pool},
	{.name = "ready", .run = step_run_ready},
	{0},
};

static const struct step adopt_steps[] = {
	{.name = "image", .run = step_run_reopen, .undo = step_undo_image, .waits = true},
	{.name = "promise", .run = step_run_repromise, .undo = step_undo_promise},
	{.name = "record", .undo = step_undo_record},
	{.name = "disk", .undo = step_undo_disk},
	{.name = "machine", .run = step_run_adopt, .undo = step_undo_machine},
	{.name = "layers", .run = step_run_layers, .waits = true},
	{.name = "link", .run = step_run_link, .undo = step_undo_link},
	{.name = "hello", .run = step_run_hello},
	{.name = "thaw", .run = step_run_thaw},
	{.name = "ready", .run = step_run_ready},
	{0},
};

/*
 * From a pause. Until `commit` nothing of it has changed and a failure leaves it paused; after
 * that it runs, or it is broken.
 */
static const struct step resume_steps[] = {
	{.name = "image", .run = step_run_image, .undo = step_undo_image, .waits = true},
	{.name = "promise", .run = step_run_repromise, .undo = step_undo_promise},
	{.name = "load", .run = step_run_load, .undo = step_undo_load},
	{.name = "disk", .run = step_run_disk_again, .undo = step_undo_disk_again, .waits = true},
	{.name = "machine", .run = step_run_machine, .undo = step_undo_machine},
	{.name = "state", .run = step_run_state},
	{.name = "commit", .run = step_run_commit, .waits = true},
	{.name = "go", .run = step_run_go},
	{.name = "link", .run = step_run_link, .undo = step_undo_link},
	{.name = "hello", .run = step_run_hello},
	{.name = "setup", .run = step_run_setup},
	{.name = "ready", .run = step_run_ready},
	{0},
};

static int begin(struct plan *p, const struct step *s, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	return store_intent_open(sb->engine->store, &sb->id, s->name, e);
}

static void step_done(struct plan *p, const struct step *s, uint64_t us)
{
	struct sandbox *sb = step_sandbox(p);

	/* An intent left open says less, not something wrong: undoing copes with both. */
	if (s->intent)
		(void)store_intent_close(sb->engine->store, &sb->id, s->name, NULL);
	engine_emit(sb->engine, NULL, EVENT_SANDBOX_STEP, sb, s->name, "%llu us",
		    (unsigned long long)us);
}

static void turning(struct plan *p, const struct err *why)
{
	struct sandbox *sb = step_sandbox(p);

	sb->reason = *why;
	if (sb->pool || sb->claim)
		pool_failed(sb, why);
	if (sb->state != SANDBOX_STOPPING)
		sandbox_set_state(sb, SANDBOX_STOPPING);
	/* If this can't be written, the next daemon adopts it and finds it ending: the same end. */
	if (sb->is_recorded)
		(void)sandbox_save(sb, NULL);
}

static void over(struct plan *p, const struct err *why)
{
	sandbox_settle(step_sandbox(p), why);
}

static const struct plan_ops ops = {
	.begin = begin,
	.step_done = step_done,
	.turning = turning,
	.over = over,
};

static void resume_step_done(struct plan *p, const struct step *s, uint64_t us)
{
	struct sandbox *sb = step_sandbox(p);

	engine_emit(sb->engine, NULL, EVENT_SANDBOX_STEP, sb, s->name, "%llu us", (unsigned long long)us);
}

/* The walk back ends where it began: what had been made before the pause counts as made. */
static void resume_over(struct plan *p, const struct err *why)
{
	struct sandbox *sb = step_sandbox(p);
	struct err e = ERR_INIT;

	err_copy(&e, why);
	*p = (struct plan){0};
	plan_adopted(p, sb->engine->loop, adopt_steps, &ops);
	sandbox_resumed(sb, why ? &e : NULL);
}

static const struct plan_ops resume_ops = {.step_done = resume_step_done, .over = resume_over};

/* ---- for engine/sandbox.c ---- */

void create_paused(struct sandbox *sb)
{
	plan_adopted(&sb->plan, sb->engine->loop, adopt_steps, &ops);
}

void create_resume(struct sandbox *sb)
{
	sb->plan = (struct plan){0};
	sb->plan_started_ns = loop_now(sb->engine->loop);
	plan_start(&sb->plan, sb->engine->loop, resume_steps, &resume_ops, step_deadline_ms(sb));
}

void create_start(struct sandbox *sb)
{
	sb->plan_started_ns = loop_now(sb->engine->loop);
	plan_start(&sb->plan, sb->engine->loop, create_steps, &ops, step_deadline_ms(sb));
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
	health_drop(sb);
	sb->link = link_free(sb->link);
	step_forget_machine(sb);
	capture_drop(sb);
	step_close_files(sb);
	image_close(&sb->image);
	set_forget(&sb->set_wait);
	sb->set = set_unref(sb->set);
	sb->claim = claim_free(sb->claim);
}
