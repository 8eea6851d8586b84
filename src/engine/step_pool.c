/* engine/step_pool.c - where a spare waits for its request, and how it is handed over */
#include "base/macro.h"
#include "engine/claim.h"
#include "engine/engine_int.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "engine/step.h"
#include "loop/link.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { PRACTICE_MS = 5000 };

/* ---- is its template still what the name means? ---- */

static void look(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->image_open(host->arg, sb->template, &sb->claim->now, &sb->job_error);
}

static void part_done(struct sandbox *sb)
{
	if (--sb->claim->waits == 0 && plan_is_forward(&sb->plan))
		plan_next(&sb->plan);
}

static void looked(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	struct err e = sb->job_error;

	sb->claim->looks = false;
	if (!e.code && !span_is(span_of(sb->claim->now.digest), sb->image_digest))
		err_set(&e, ERR_GONE, "its template was built again");
	image_close(&sb->claim->now);
	if (!plan_is_forward(&sb->plan)) /* its undo waited for this */
		plan_undone(&sb->plan);
	else if (e.code)
		plan_fail(&sb->plan, &e);
	else
		part_done(sb);
}

static void hand_over(struct sandbox *sb)
{
	bool is_set_up = !sb->is_shell; /* for nobody; a shell was set up for its request */
	struct err e = ERR_INIT;

	plan_deadline(&sb->plan, POOL_HAND_OVER_MS);
	sb->claim->waits = is_set_up ? 2 : 1;
	sb->claim->looks = true;
	sb->job_error = (struct err)ERR_INIT;
	sb->job.run = look;
	sb->job.done = looked;
	work_submit(sb->engine->pool, &sb->job);
	if (is_set_up && step_say_setup(sb, part_done, &e) < 0)
		plan_fail(&sb->plan, &e);
}

void step_go_on(struct sandbox *sb)
{
	struct err e = ERR_INIT;

	if (!plan_is_forward(&sb->plan))
		return;
	if (!sb->is_shell) {
		hand_over(sb);
		return;
	}
	plan_deadline(&sb->plan, step_deadline_ms(sb));
	if (step_load_state(sb, &e) < 0)
		plan_fail(&sb->plan, &e);
}

static void rehearsed(struct sandbox *sb)
{
	plan_deadline(&sb->plan, 0); /* until somebody comes */
	step_give_turn(sb);
	pool_parked(sb, SPARE_READY);
}

static void practice_said(struct stream *s, uint64_t offset, struct span bytes)
{
	(void)offset;
	stream_consumed(s, bytes.n);
}

/* However it ended: an image may have no such program. */
static void practised(struct stream *s, const struct err *why)
{
	struct sandbox *sb = stream_arg(s);

	(void)why;
	sb->setup = NULL;
	if (sb->link && link_is_up(sb->link) && plan_is_forward(&sb->plan)) /* else link_down() knows more */
		rehearsed(sb);
}

static void practise(struct sandbox *sb)
{
	static const struct stream_ops ops = {.data = practice_said, .closed = practised};
	const struct rec_exec_start rec = {.command = span_of("/bin/true"), .timeout_ms = PRACTICE_MS};
	struct err e = ERR_INIT;

	if (link_call(sb->link, METHOD_EXEC_START, &rec_exec_start_type, &rec, false, NULL, 0, &ops, sb, &sb->setup,
		      &e) < 0)
		plan_fail(&sb->plan, &e);
}

/*
 * A spare is handed over once for practice, and starts a program: its agent has then shown that it can,
 * and an emulated machine, which translates code when it first meets it, is quick at both.
 */
int step_run_pool(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	if (sb->pool)
		return step_say_setup(sb, practise, e);
	if (sb->claim) {
		hand_over(sb);
	} else {
		plan_next(p);
	}
	return 0;
}

void step_undo_pool(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	if (!sb->claim || !sb->claim->looks) /* else looked() goes on */
		plan_undone(p);
}
