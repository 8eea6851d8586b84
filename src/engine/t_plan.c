/* engine/t_plan.c - PLAN-1 to PLAN-5, with every step failing, cancelled and late */
#include "engine/plan.h"
#include "base/testing.h"

enum { STEPS = 4, NEVER = STEPS };

enum how { NOW, LATER, STUCK };

/* A plan whose steps count themselves. */
struct rig {
	struct plan plan;
	struct loop *loop;
	enum how how;		  /* steps and undos finish */
	unsigned fails_at;	  /* this step fails */
	bool refuses;		  /* by its return value */
	bool begin_fails;	  /* before it ran */
	int balance[STEPS];	  /* run +1, undo -1 */
	unsigned runs, undos, overs, turnings, begins, dones;
	int over_code;
	struct loop_call later;
	bool in_call;
};

static struct rig *of(struct plan *p)
{
	return CONTAINER_OF(p, struct rig, plan);
}

static void late(struct loop_call *c)
{
	struct rig *r = CONTAINER_OF(c, struct rig, later);
	struct err why = {ERR_LIMIT, "late"};

	if (r->plan.state == PLAN_BACKWARD)
		plan_undone(&r->plan);
	else if (r->plan.at == r->fails_at)
		plan_fail(&r->plan, &why);
	else
		plan_next(&r->plan);
}

static int run(struct plan *p, struct err *e)
{
	struct rig *r = of(p);
	unsigned at = p->at;

	r->runs++;
	r->balance[at]++;
	if (r->how == STUCK)
		return 0;
	if (at == r->fails_at && (r->refuses || r->how == NOW))
		return err_set(e, ERR_LIMIT, "now");
	if (r->how == NOW)
		plan_next(p);
	else
		loop_defer(r->loop, &r->later, late);
	return 0;
}

static void undo(struct plan *p)
{
	struct rig *r = of(p);

	loop_call_cancel(r->loop, &r->later); /* PLAN-3: withdraw what is in flight */
	r->undos++;
	r->balance[p->at]--;
	if (r->how == LATER)
		loop_defer(r->loop, &r->later, late);
	else
		plan_undone(p);
}

static int begin(struct plan *p, const struct step *s, struct err *e)
{
	struct rig *r = of(p);

	T_UNUSED(s);
	r->begins++;
	return r->begin_fails && p->at == r->fails_at ? err_set(e, ERR_INTERNAL, "store") : 0;
}

static void step_done(struct plan *p, const struct step *s, uint64_t us)
{
	T_UNUSED(s);
	T_UNUSED(us);
	of(p)->dones++;
}

static void turning(struct plan *p, const struct err *why)
{
	assert_true(why->code != 0);
	of(p)->turnings++;
}

static void over(struct plan *p, const struct err *why)
{
	struct rig *r = of(p);

	assert_false(r->in_call); /* PLAN-4 */
	r->overs++;
	r->over_code = why ? why->code : 0;
}

static const struct plan_ops ops = {begin, step_done, turning, over};

static const struct step steps[] = {
	{.name = "a", .run = run, .undo = undo, .intent = true},
	{.name = "b", .run = run, .undo = undo, .intent = true},
	{.name = "c", .run = run, .undo = undo, .intent = true},
	{.name = "d", .run = run, .undo = undo, .intent = true},
	{0},
};

static const struct step waiting_steps[] = {
	{.name = "a", .run = run, .undo = undo, .waits = true},
	{.name = "b", .run = run, .undo = undo, .waits = true},
	{0},
};

static void rig_begin(struct rig *r, enum how how, unsigned fails_at)
{
	memset(r, 0, sizeof(*r));
	r->how = how;
	r->fails_at = fails_at;
	assert_int_equal(loop_new(true, &r->loop), 0);
}

static void start(struct rig *r, const struct step *table, uint64_t deadline_ms)
{
	r->in_call = true;
	plan_start(&r->plan, r->loop, table, &ops, deadline_ms);
	r->in_call = false;
}

static void turns(struct rig *r)
{
	for (int i = 0; i < 4 * STEPS; i++)
		assert_int_equal(loop_turn(r->loop, 0), 0);
}

static void balanced(struct rig *r)
{
	for (int i = 0; i < STEPS; i++)
		assert_int_equal(r->balance[i], 0);
	assert_int_equal(r->runs, r->undos);
}

static void rig_end(struct rig *r)
{
	plan_drop(&r->plan);
	loop_call_cancel(r->loop, &r->later);
	r->loop = loop_free(r->loop);
}

static void runs_to_the_end(void **state)
{
	T_UNUSED(state);
	for (enum how how = NOW; how <= LATER; how++) {
		struct rig r;

		rig_begin(&r, how, NEVER);
		start(&r, steps, 1000);
		assert_int_equal(r.overs, 0);
		turns(&r);
		assert_int_equal(r.overs, 1);
		assert_int_equal(r.over_code, 0);
		assert_int_equal(r.dones, STEPS);
		assert_int_equal(r.undos + r.turnings, 0);
		loop_advance(r.loop, 2000 * NS_PER_MS); /* the deadline is over with the walk */
		assert_int_equal(r.overs, 1);
		assert_null(plan_step(&r.plan));
		rig_end(&r);
	}
}

static void every_failing_step_is_undone_with_those_before(void **state)
{
	T_UNUSED(state);
	for (enum how how = NOW; how <= LATER; how++)
		for (unsigned at = 0; at < STEPS; at++)
			for (int refuses = 0; refuses < 2; refuses++) {
				struct rig r;

				rig_begin(&r, how, at);
				r.refuses = refuses;
				start(&r, steps, 0);
				turns(&r);
				assert_int_equal(r.overs, 1);
				assert_int_equal(r.over_code, ERR_LIMIT);
				assert_int_equal(r.turnings, 1);
				assert_int_equal(r.runs, at + 1); /* PLAN-2: the failed one included */
				balanced(&r);
				rig_end(&r);
			}
}

static void a_step_that_could_not_be_written_down_never_runs(void **state)
{
	T_UNUSED(state);
	for (unsigned at = 0; at < STEPS; at++) {
		struct rig r;

		rig_begin(&r, NOW, at);
		r.begin_fails = true;
		start(&r, steps, 0);
		turns(&r);
		assert_int_equal(r.over_code, ERR_INTERNAL);
		assert_int_equal(r.runs, at);
		balanced(&r);
		rig_end(&r);
	}
}

static void can_be_cancelled_in_every_step(void **state)
{
	struct err first = {ERR_CANCELED, "first"}, second = {ERR_TIMEOUT, "second"};

	T_UNUSED(state);
	for (int n = 0; n < STEPS; n++) {
		struct rig r;

		rig_begin(&r, LATER, NEVER);
		start(&r, steps, 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(loop_turn(r.loop, 0), 0);
		r.in_call = true;
		plan_undo(&r.plan, &first);
		plan_undo(&r.plan, &second);
		r.in_call = false;
		turns(&r);
		assert_int_equal(r.overs, 1);
		assert_int_equal(r.over_code, ERR_CANCELED); /* PLAN-5 */
		assert_int_equal(r.turnings, 1);
		balanced(&r);
		rig_end(&r);
	}
}

static void undoing_a_finished_plan_is_destroying(void **state)
{
	struct err why = {ERR_GONE, "removed"};

	T_UNUSED(state);
	for (enum how how = NOW; how <= LATER; how++) {
		struct rig r;

		rig_begin(&r, how, NEVER);
		start(&r, steps, 0);
		turns(&r);
		plan_undo(&r.plan, &why);
		turns(&r);
		assert_int_equal(r.overs, 2); /* once per walk */
		assert_int_equal(r.over_code, ERR_GONE);
		balanced(&r);
		rig_end(&r);
	}
}

/* The good news was on its way when the bad decision came: only that one is told. */
static void undoing_overtakes_done(void **state)
{
	struct err why = {ERR_GONE, "removed"};
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r, NOW, NEVER);
	start(&r, steps, 0);
	plan_undo(&r.plan, &why);
	turns(&r);
	assert_int_equal(r.overs, 1);
	assert_int_equal(r.over_code, ERR_GONE);
	balanced(&r);
	rig_end(&r);
}

static void a_stuck_step_meets_the_deadline(void **state)
{
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r, STUCK, NEVER);
	start(&r, steps, 1000);
	loop_advance(r.loop, 999 * NS_PER_MS);
	assert_int_equal(r.overs, 0);
	loop_advance(r.loop, 2 * NS_PER_MS);
	turns(&r);
	assert_int_equal(r.over_code, ERR_TIMEOUT);
	balanced(&r);
	rig_end(&r);
}

static void a_waiting_step_is_waited_for(void **state)
{
	struct err why = {ERR_CANCELED, "stop"}, broken = {ERR_LIMIT, "broken"};

	T_UNUSED(state);
	for (int fails = 0; fails < 2; fails++) {
		struct rig r;

		rig_begin(&r, STUCK, NEVER);
		start(&r, waiting_steps, 0);
		plan_undo(&r.plan, &why);
		turns(&r);
		assert_int_equal(r.overs, 0);
		assert_int_equal(r.undos, 0);
		assert_int_equal(r.turnings, 1);
		if (fails)
			plan_fail(&r.plan, &broken);
		else
			plan_next(&r.plan);
		turns(&r);
		assert_int_equal(r.over_code, ERR_CANCELED);
		assert_int_equal(r.runs, 1);
		balanced(&r);
		rig_end(&r);
	}
}

static void what_an_earlier_process_did_is_undone(void **state)
{
	struct err why = {ERR_GONE, "crash"};
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r, LATER, NEVER);
	plan_adopted(&r.plan, r.loop, steps, &ops);
	plan_undo(&r.plan, &why);
	turns(&r);
	assert_int_equal(r.undos, STEPS);
	assert_int_equal(r.overs, 1);
	rig_end(&r);
}

static void late_answers_are_ignored(void **state)
{
	struct err why = {ERR_CANCELED, "stop"};
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r, STUCK, NEVER);
	start(&r, steps, 0);
	r.how = LATER;
	plan_undo(&r.plan, &why);
	plan_next(&r.plan); /* of the step that was withdrawn */
	plan_fail(&r.plan, &why);
	turns(&r);
	plan_next(&r.plan);
	plan_undone(&r.plan);
	turns(&r);
	assert_int_equal(r.overs, 1);
	balanced(&r);
	rig_end(&r);
}

T_MAIN(T(runs_to_the_end), T(every_failing_step_is_undone_with_those_before),
       T(a_step_that_could_not_be_written_down_never_runs), T(can_be_cancelled_in_every_step),
       T(undoing_a_finished_plan_is_destroying), T(undoing_overtakes_done),
       T(a_stuck_step_meets_the_deadline), T(a_waiting_step_is_waited_for),
       T(what_an_earlier_process_did_is_undone), T(late_answers_are_ignored))
