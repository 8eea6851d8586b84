/* engine/plan.c - one walker, two directions */
#include "engine/plan.h"
#include <assert.h>
#include <string.h>
#include "base/macro.h"

static void walk(struct plan *p);

static void on_over(struct loop_call *c)
{
	struct plan *p = CONTAINER_OF(c, struct plan, over_call);

	p->ops->over(p, p->state == PLAN_UNDONE ? &p->why : NULL);
}

static void finish(struct plan *p, enum plan_state state)
{
	p->state = state;
	loop_timer_cancel(p->loop, &p->deadline);
	loop_defer(p->loop, &p->over_call, on_over); /* PLAN-4 */
}

static void turn_back(struct plan *p)
{
	/* A `done` that was not delivered yet is overtaken by the walk back. */
	loop_call_cancel(p->loop, &p->over_call);
	loop_timer_cancel(p->loop, &p->deadline);
	p->state = PLAN_BACKWARD;
	p->at = p->entered;
	p->answered = true;
}

static void keep_reason(struct plan *p, const struct err *why)
{
	if (p->why.code) /* PLAN-5 */
		return;
	p->why = *why;
	if (!p->why.code)
		p->why.code = ERR_INTERNAL;
	if (p->ops->turning)
		p->ops->turning(p, &p->why);
}

/* ---- forward ---- */

static void step_finished(struct plan *p)
{
	const struct step *s = &p->steps[p->at];

	p->us[p->at] = (loop_now(p->loop) - p->started_ns) / NS_PER_US;
	if (p->ops->step_done)
		p->ops->step_done(p, s, p->us[p->at]);
}

static void enter_step(struct plan *p)
{
	const struct step *s = &p->steps[p->at];
	struct err e = ERR_INIT;
	int r = 0;

	p->answered = false;
	p->started_ns = loop_now(p->loop);
	if (s->intent && p->ops->begin)
		r = p->ops->begin(p, s, &e);
	if (r == 0) {
		p->entered = p->at + 1;
		if (s->run)
			r = s->run(p, &e);
		else
			plan_next(p);
	}
	if (r < 0)
		plan_fail(p, &e);
}

static void forward(struct plan *p)
{
	if (!p->steps[p->at].name)
		finish(p, PLAN_DONE);
	else
		enter_step(p);
}

/* ---- backward ---- */

static void backward(struct plan *p)
{
	if (p->at == 0) {
		finish(p, PLAN_UNDONE);
		return;
	}
	p->at--;
	p->answered = false;
	if (p->steps[p->at].undo)
		p->steps[p->at].undo(p);
	else
		plan_undone(p);
}

/* A loop instead of recursion: however many steps are immediate, the stack stays flat. */
static void walk(struct plan *p)
{
	if (p->inside)
		return;
	p->inside = true;
	while (p->answered && (p->state == PLAN_FORWARD || p->state == PLAN_BACKWARD)) {
		if (p->state == PLAN_FORWARD)
			forward(p);
		else
			backward(p);
	}
	p->inside = false;
}

/* ---- public ---- */

static void on_deadline(struct loop_timer *t)
{
	struct plan *p = CONTAINER_OF(t, struct plan, deadline);
	struct err e = ERR_INIT;

	err_set(&e, ERR_TIMEOUT, "step %s did not finish in time", p->steps[p->at].name);
	plan_undo(p, &e);
}

static void init(struct plan *p, struct loop *l, const struct step *steps,
		 const struct plan_ops *ops)
{
	assert(p->state == PLAN_IDLE);
	*p = (struct plan){.loop = l, .steps = steps, .ops = ops};
}

void plan_deadline(struct plan *p, uint64_t ms)
{
	if (p->state != PLAN_FORWARD || !ms)
		loop_timer_cancel(p->loop, &p->deadline);
	else
		loop_timer_set(p->loop, &p->deadline, loop_now(p->loop) + ms * NS_PER_MS,
			       on_deadline);
}

void plan_start(struct plan *p, struct loop *l, const struct step *steps,
		const struct plan_ops *ops, uint64_t deadline_ms)
{
	init(p, l, steps, ops);
	p->state = PLAN_FORWARD;
	p->answered = true;
	plan_deadline(p, deadline_ms);
	walk(p);
}

void plan_adopted(struct plan *p, struct loop *l, const struct step *steps,
		  const struct plan_ops *ops)
{
	init(p, l, steps, ops);
	while (steps[p->entered].name)
		p->entered++;
	p->state = PLAN_DONE;
}

void plan_next(struct plan *p)
{
	if (p->state == PLAN_STOPPING) {
		turn_back(p);
	} else if (p->state == PLAN_FORWARD && !p->answered) {
		step_finished(p);
		p->answered = true;
		p->at++;
	}
	walk(p);
}

void plan_fail(struct plan *p, const struct err *why)
{
	if (p->state != PLAN_FORWARD && p->state != PLAN_STOPPING)
		return;
	keep_reason(p, why);
	turn_back(p);
	walk(p);
}

void plan_undone(struct plan *p)
{
	if (p->state != PLAN_BACKWARD)
		return;
	p->answered = true;
	walk(p);
}

void plan_undo(struct plan *p, const struct err *why)
{
	bool in_flight = p->state == PLAN_FORWARD && !p->answered;

	if (p->state != PLAN_FORWARD && p->state != PLAN_DONE)
		return;
	keep_reason(p, why);
	if (in_flight && p->steps[p->at].waits) {
		p->state = PLAN_STOPPING;
		return;
	}
	turn_back(p);
	walk(p);
}

void plan_drop(struct plan *p)
{
	if (!p->loop)
		return;
	loop_call_cancel(p->loop, &p->over_call);
	loop_timer_cancel(p->loop, &p->deadline);
	p->state = PLAN_UNDONE;
}

const struct step *plan_step(const struct plan *p)
{
	bool walking = p->state == PLAN_FORWARD || p->state == PLAN_STOPPING ||
		       p->state == PLAN_BACKWARD;

	return walking && p->steps[p->at].name ? &p->steps[p->at] : NULL;
}

bool plan_is_forward(const struct plan *p)
{
	return p->state == PLAN_FORWARD;
}
