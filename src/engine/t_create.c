/* engine/t_create.c - the create plan: every step, failure, cancel and crash leaves nothing behind */
#include "engine/engine.h"
#include "engine/t_rig.h"

static struct rig *rig_new(void)
{
	struct rig *r = malloc(sizeof(*r));

	rig_begin(r);
	return r;
}

static void rig_free(struct rig *r)
{
	rig_end(r);
	free(r);
}

static struct ask *ask_new(void)
{
	return calloc(1, sizeof(struct ask));
}

/* ---- the good case ---- */

static void creates_uses_and_removes(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_info info;
	struct rec_sandbox_create rec = {.name = span_of("web"), .metadata = {"team=red", 9}};

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(rig_create(r, a, &rec, &info), 0);
	assert_true(span_is(info.name, "web"));
	assert_true(span_is(info.state, "running"));
	assert_int_equal(info.memory_mb, 256); /* the template's */
	assert_true(span_is(info.owner, "uid:1000"));
	assert_true(strv_count(info.stages) >= 9);
	assert_int_equal(r->disks, 1);
	assert_int_equal(rig_info(r).memory_promised_mb, 256);
	assert_int_equal(null_script_running(&r->script), 1);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, "web"), 0);
	ask_decode(a, METHOD_SANDBOX_INFO, &info);
	assert_int_equal(strv_count(info.metadata), 1);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "web"), 0);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, "web"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* ---- failures ---- */

static void fails_cleanly(struct rig *r, int code, const char *word)
{
	struct ask *a = ask_new();
	struct rec_sandbox_info info;
	struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};
	int got;

	rig_up(r);
	got = rig_create(r, a, &rec, &info);
	if (got != -code || !strstr(a->why.text, word))
		fail_msg("code %d, text \"%s\"; wanted %d and \"%s\"", got, a->why.text, -code, word);
	rig_is_clean(r);
	free(a);
}

static void a_failing_template_is_named(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	r->images_fail = 1;
	fails_cleanly(r, ERR_NOT_FOUND, "template base");
	rig_free(r);
}

static void a_full_disk_fails_the_disk_step(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	r->disks_fail = 1;
	fails_cleanly(r, ERR_LIMIT, "full");
	rig_free(r);
}

static void every_failure_of_the_driver_is_undone(void **state)
{
	static const struct {
		enum null_call call;
		enum null_mode mode;
		uint64_t after_ns;
	} cases[] = {
		{NULL_CREATE, NULL_REFUSE, 0},
		{NULL_START, NULL_REFUSE, 0},
		{NULL_START, NULL_FAIL, 0},
		{NULL_START, NULL_FAIL, 50 * NS_PER_MS},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rig *r = rig_new();

		r->script.steps[cases[i].call] =
			(struct null_step){cases[i].mode, cases[i].after_ns, {ERR_LIMIT, "no slot is free"}};
		fails_cleanly(r, ERR_LIMIT, "no slot is free");
		rig_free(r);
	}
}

static void every_bad_agent_is_undone(void **state)
{
	static const struct {
		enum agent_mode mode;
		int code;
		const char *word;
	} cases[] = {
		{AGENT_HANGS_UP, ERR_GONE, "agent"},
		{AGENT_BABBLES, ERR_INVALID, "link"},
		{AGENT_REFUSES, ERR_INTERNAL, "no entropy device"},
		{AGENT_NOT_SEEDED, ERR_UNAVAILABLE, "random pool"},
		{AGENT_WRONG_NAME, ERR_UNAVAILABLE, "host name"},
		{AGENT_WRONG_CLOCK, ERR_UNAVAILABLE, "clock"},
		{AGENT_WRONG_WALL, ERR_UNAVAILABLE, "wall"},
		{AGENT_BAD_RECORD, ERR_INVALID, "guest_ready"},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rig *r = rig_new();

		r->mode = cases[i].mode;
		fails_cleanly(r, cases[i].code, cases[i].word);
		rig_free(r);
	}
}

/* ---- steps that never answer ---- */

static void times_out(struct rig *r, const char *step)
{
	struct ask *a = ask_new();

	rig_up(r);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.disk_mb = 64}, false);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	assert_false(a->done);
	loop_advance(r->loop, ENGINE_CREATE_MS * NS_PER_MS);
	assert_true(rig_until(r, &a->done));
	assert_int_equal(a->why.code, ERR_TIMEOUT);
	assert_non_null(strstr(a->why.text, step));
	rig_is_clean(r);
	free(a);
}

static void a_silent_start_times_out(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	r->script.steps[NULL_START].mode = NULL_NEVER;
	times_out(r, "machine");
	rig_free(r);
}

static void a_mute_agent_times_out(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	r->mode = AGENT_MUTE;
	times_out(r, "hello");
	rig_free(r);
}

static void an_ignored_setup_times_out(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	r->mode = AGENT_IGNORES;
	times_out(r, "setup");
	rig_free(r);
}

/* ---- removal and death while it is being made ---- */

static void kill_its_machine(struct rig *r, struct ask *create)
{
	struct err why = {ERR_GONE, "killed by the test"};

	T_UNUSED(create);
	if (r->n_agents)
		(void)null_script_kill(&r->script, &r->agents[0].id, &why);
}

/* Go on by single turns, and do @act after @turns of them: sooner or later in every step. */
static void interrupt(unsigned turns, void (*act)(struct rig *r, struct ask *create))
{
	struct rig *r = rig_new();
	struct ask *a = ask_new(), *b = ask_new();
	struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};

	rig_up(r);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
	for (unsigned i = 0; i < turns; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	act(r, a);
	assert_true(rig_until(r, &a->done));
	/* Its create succeeds, or says what was done to it: no other reason and no success that is none. */
	if (act == kill_its_machine && a->why.code)
		assert_non_null(strstr(a->why.text, "killed by the test"));
	if (act == kill_its_machine && !a->why.code) {
		struct rec_sandbox_info info;

		ask_decode(a, METHOD_SANDBOX_CREATE, &info);
		assert_true(span_is(info.state, "running"));
	}
	(void)rig_ref(r, b, METHOD_SANDBOX_REMOVE, "x"); /* if it came to live after all */
	rig_is_clean(r);
	free(a);
	free(b);
	rig_free(r);
}

static void remove_it(struct rig *r, struct ask *create)
{
	struct ask *a = ask_new();
	int got = rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x");

	assert_true(got == 0 || got == -ERR_NOT_FOUND);
	if (got == 0)
		assert_true(create->done);
	free(a);
}

static void withdraw(struct rig *r, struct ask *create)
{
	T_UNUSED(r);
	if (create->stream)
		stream_reset(create->stream);
	create->done = true;
}

static void crash_and_restart(struct rig *r, struct ask *create)
{
	rig_crash(r);
	rig_up(r);
	create->done = true;
}

static void can_be_removed_at_every_moment(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 40; turns++)
		interrupt(turns, remove_it);
}

static void machine_can_die_at_every_moment(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 40; turns++)
		interrupt(turns, kill_its_machine);
}

static void can_be_withdrawn_at_every_moment(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 40; turns++)
		interrupt(turns, withdraw);
}

/* The same, with each step that can hang held exactly there. */
static void a_hanging_step_yields_to_everything(void **state)
{
	static void (*const acts[])(struct rig *r, struct ask *create) = {
		remove_it, kill_its_machine, withdraw, crash_and_restart};
	static const struct {
		enum null_mode start;
		enum agent_mode agent;
	} hangs[] = {{NULL_NEVER, AGENT_GOOD}, {NULL_OK, AGENT_MUTE}, {NULL_OK, AGENT_IGNORES}};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(hangs); i++)
		for (size_t k = 0; k < ARRAY_LEN(acts); k++) {
			struct rig *r = rig_new();
			struct ask *a = ask_new(), *b = ask_new();
			struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};

			r->script.steps[NULL_START].mode = hangs[i].start;
			r->mode = hangs[i].agent;
			rig_up(r);
			ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
			for (int turn = 0; turn < 60; turn++)
				assert_int_equal(loop_turn(r->loop, 1), 0);
			assert_false(a->done);
			acts[k](r, a);
			(void)rig_ref(r, b, METHOD_SANDBOX_REMOVE, "x");
			rig_is_clean(r);
			free(a);
			free(b);
			rig_free(r);
		}
}

/* A worker's job can't be withdrawn: undoing waits for it, and nothing is lost. */
static void removal_waits_for_a_job_in_flight(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new(), *b = ask_new();
	struct rec_sandbox_create rec = {.name = span_of("x")};

	T_UNUSED(state);
	r->image_blocks = true;
	rig_up(r);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
	rig_turns(r, 20);
	ask_start(r, b, METHOD_SANDBOX_REMOVE, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
	rig_turns(r, 200);
	assert_false(a->done || b->done);
	r->image_blocks = false;
	assert_true(rig_until(r, &b->done));
	assert_int_equal(b->why.code, 0);
	assert_int_equal(a->why.code, ERR_GONE);
	rig_is_clean(r);
	free(a);
	free(b);
	rig_free(r);
}

/* ---- turns ---- */

static void kernels_boot_in_turns(void **state)
{
	struct rec_sandbox_create recs[4] = {{.name = span_of("a")}, {.name = span_of("b")},
					     {.name = span_of("c")}, {.name = span_of("d")}};
	struct rig *r = rig_new();
	struct ask *asks[4], *b = ask_new();

	T_UNUSED(state);
	r->config.boots_max = 1;
	r->mode = AGENT_IGNORES; /* the first one hangs in its boot */
	rig_up(r);
	for (int i = 0; i < 4; i++) {
		asks[i] = ask_new();
		ask_start(r, asks[i], METHOD_SANDBOX_CREATE, &recs[i], false);
		for (int turn = 0; turn < 30; turn++)
			assert_int_equal(loop_turn(r->loop, 1), 0);
	}
	assert_int_equal(null_script_running(&r->script), 1);
	assert_int_equal(rig_ref(r, b, METHOD_SANDBOX_REMOVE, "b"), 0); /* waits: can go at once */
	assert_true(asks[1]->done);
	r->mode = AGENT_GOOD;
	loop_advance(r->loop, ENGINE_CREATE_MS * NS_PER_MS); /* the first one's time is over, not the others' */
	assert_true(rig_until(r, &asks[0]->done));
	assert_int_equal(asks[0]->why.code, ERR_TIMEOUT);
	assert_true(rig_until(r, &asks[2]->done));
	assert_true(rig_until(r, &asks[3]->done));
	assert_int_equal(asks[2]->why.code, 0);
	assert_int_equal(asks[3]->why.code, 0);
	assert_int_equal(null_script_running(&r->script), 2);
	for (int i = 0; i < 4; i++)
		free(asks[i]);
	free(b);
	rig_free(r);
}

/* ---- crashes ---- */

/*
 * The daemon dies after @turns turns of a create; the next one finds what there
 * is. Either the sandbox lives and is adopted whole, or nothing is left.
 */
static void crash_after(unsigned turns, bool agent_is_slow)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};
	struct rec_sandbox_info info;

	if (agent_is_slow)
		r->mode = AGENT_IGNORES;
	rig_up(r);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
	for (unsigned i = 0; i < turns; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	rig_crash(r);
	r->mode = AGENT_GOOD;
	rig_up(r);
	if (rig_ref(r, a, METHOD_SANDBOX_INFO, "x") == 0) {
		ask_decode(a, METHOD_SANDBOX_INFO, &info);
		assert_true(span_is(info.state, "running"));
		assert_int_equal(null_script_running(&r->script), 1);
		assert_int_equal(rig_info(r).adopted, 1);
		assert_int_equal(rig_info(r).memory_promised_mb, 256);
		assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	}
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void a_crash_at_every_moment_leaves_all_or_nothing(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 40; turns++)
		crash_after(turns, false);
}

static void a_crash_before_the_setup_leaves_nothing(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 5; turns < 40; turns += 5)
		crash_after(turns, true);
}

static void a_crash_while_removing_is_finished(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 16; turns++) {
		struct rig *r = rig_new();
		struct ask *a = ask_new();
		struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};
		struct rec_sandbox_info info;

		rig_up(r);
		assert_int_equal(rig_create(r, a, &rec, &info), 0);
		ask_start(r, a, METHOD_SANDBOX_REMOVE,
			  &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
		for (unsigned i = 0; i < turns; i++)
			assert_int_equal(loop_turn(r->loop, 1), 0);
		rig_crash(r);
		rig_up(r);
		(void)rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"); /* the request had not arrived yet */
		rig_is_clean(r);
		free(a);
		rig_free(r);
	}
}

T_MAIN(T(creates_uses_and_removes), T(a_failing_template_is_named),
       T(a_full_disk_fails_the_disk_step), T(every_failure_of_the_driver_is_undone),
       T(every_bad_agent_is_undone), T(a_silent_start_times_out), T(a_mute_agent_times_out),
       T(an_ignored_setup_times_out), T(can_be_removed_at_every_moment),
       T(machine_can_die_at_every_moment), T(can_be_withdrawn_at_every_moment),
       T(a_hanging_step_yields_to_everything), T(removal_waits_for_a_job_in_flight), T(kernels_boot_in_turns),
       T(a_crash_at_every_moment_leaves_all_or_nothing),
       T(a_crash_before_the_setup_leaves_nothing), T(a_crash_while_removing_is_finished))
