/* engine/t_pool.c - pools: who gets a spare, what becomes of those that fail, and that none is lost */
#include "engine/pool.h"
#include "engine/t_rig.h"

enum { MANY_TURNS = 2000 };

static struct rig *rig_new(void)
{
	struct rig *r = malloc(sizeof(*r));

	rig_begin(r);
	r->programs = ANSWER_OK;
	r->config.memory_budget_mb = 8192;
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

/* ---- what a test asks ---- */

static struct rec_pool_info pool_info(struct rig *r)
{
	struct ask *a = ask_new();
	struct rec_pool_info info = {0};

	a->items = (struct str)STR_INIT(1 << 20);
	assert_int_equal(ask(r, a, METHOD_POOL_LIST, &(struct rec_empty){0}), 0);
	if (a->items.len)
		assert_true(rec_item_next(&rec_pool_info_type, a->items.p, a->items.len, &info, NULL) > 0);
	info.template = info.tenant = info.isolation = (struct span){0};
	info.reason.p = NULL; /* its length says whether there is one */
	str_deinit(&a->items);
	free(a);
	return info;
}

static int pool_set(struct rig *r, struct ask *a, uint64_t size, uint64_t shells)
{
	const struct rec_pool_set rec = {.template = span_of("base"), .size = size, .prestarted = shells};

	return ask(r, a, METHOD_POOL_SET, &rec);
}

/* Time passes until the pool is as full as it gets. */
static void fill(struct rig *r, uint64_t ready, uint64_t shells)
{
	struct rec_pool_info info;

	for (unsigned i = 0; i < MANY_TURNS; i++) {
		info = pool_info(r);
		if (info.ready == ready && info.shells == shells && !info.filling)
			return;
		assert_int_equal(loop_turn(r->loop, i < 20 ? 0 : 1), 0); /* a worker thread may be at it */
		loop_advance(r->loop, 10 * NS_PER_MS);
	}
	fail_msg("%u ready and %u shells, %u being made; wanted %u and %u", (unsigned)info.ready,
		 (unsigned)info.shells, (unsigned)info.filling, (unsigned)ready, (unsigned)shells);
}

static unsigned listed(struct rig *r)
{
	struct ask *a = ask_new();
	unsigned n = 0;

	a->items = (struct str)STR_INIT(1 << 20);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_LIST, &(struct rec_empty){0}), 0);
	for (size_t at = 0; at < a->items.len; n++) {
		struct rec_sandbox_info info;
		int used = rec_item_next(&rec_sandbox_info_type, a->items.p + at, a->items.len - at, &info, NULL);

		assert_true(used > 0);
		at += (size_t)used;
	}
	str_deinit(&a->items);
	free(a);
	return n;
}

static void create(struct rig *r, struct ask *a, const char *name, const char *path)
{
	const struct rec_sandbox_create rec = {.name = span_of(name), .metadata = {"team=red", 9}};
	struct rec_sandbox_info info;

	assert_int_equal(rig_create(r, a, &rec, &info), 0);
	if (!span_is(info.path, path))
		fail_msg("path %.*s, wanted %s", (int)info.path.n, info.path.p, path);
	assert_true(span_is(info.name, name));
	assert_true(span_is(info.owner, "uid:1000"));
	assert_true(span_is(info.state, "running"));
	assert_int_equal(strv_count(info.metadata), 1);
}

static void remove_named(struct rig *r, struct ask *a, const char *name)
{
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, name), 0);
}

static void end_pool(struct rig *r, struct ask *a)
{
	assert_int_equal(pool_set(r, a, 0, 0), 0);
	for (unsigned i = 0; i < MANY_TURNS && rig_info(r).sandboxes; i++)
		loop_advance(r->loop, NS_PER_MS);
}

/* A hot template, so that there is something to load. */
static void make_hot(struct rig *r, struct ask *a)
{
	const struct rec_template_build rec = {.template = span_of("base")};

	assert_int_equal(ask(r, a, METHOD_TEMPLATE_BUILD, &rec), 0);
	rig_turns(r, 20);
}

/* ---- the good cases ---- */

static void a_create_takes_a_ready_one(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_pool_info info;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 2, 0), 0);
	fill(r, 2, 0);
	assert_int_equal(listed(r), 0); /* POOL-1 */
	create(r, a, "one", "pool");
	assert_int_equal(listed(r), 1);
	info = pool_info(r);
	assert_int_equal(info.hits, 1);
	assert_int_equal(info.misses, 0);
	fill(r, 2, 0); /* made again */
	assert_int_equal(pool_info(r).created, 3);
	create(r, a, "two", "pool");
	create(r, a, "three", "pool");
	remove_named(r, a, "one");
	remove_named(r, a, "two");
	remove_named(r, a, "three");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void spares_have_ids_that_open_nothing(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	char id[ID_TEXT];

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	id_format(&r->agents[0].id, id);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, id), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, id), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_HOLD, id), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_PAUSE, id), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_GUEST_PROCESSES, id), -ERR_NOT_FOUND);
	assert_int_equal(pool_info(r).ready, 1);
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void shells_only_load(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	unsigned loads, starts;

	T_UNUSED(state);
	rig_up(r);
	make_hot(r, a);
	assert_int_equal(pool_set(r, a, 0, 2), 0);
	fill(r, 0, 2);
	loads = r->script.seen[NULL_LOAD];
	starts = r->script.seen[NULL_START];
	create(r, a, "one", "prestarted");
	assert_int_equal(r->script.seen[NULL_LOAD], loads + 1);
	assert_true(r->script.seen[NULL_START] <= starts + 1); /* the next spare's */
	assert_int_equal(pool_info(r).shell_hits, 1);
	fill(r, 0, 2);
	remove_named(r, a, "one");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void ready_ones_go_before_shells_and_an_empty_pool_is_a_miss(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	make_hot(r, a);
	assert_int_equal(pool_set(r, a, 1, 1), 0);
	fill(r, 1, 1);
	r->script.steps[NULL_START].after_ns = 500 * NS_PER_MS; /* so that none is made meanwhile */
	create(r, a, "one", "pool");
	create(r, a, "two", "prestarted");
	create(r, a, "three", "fork");
	assert_int_equal(pool_info(r).misses, 1);
	fill(r, 1, 1);
	remove_named(r, a, "one");
	remove_named(r, a, "two");
	remove_named(r, a, "three");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* ---- who gets none ---- */

static void other_requests_go_their_own_way(void **state)
{
	static const struct rec_sandbox_create other[] = {
		{.name = {"cold", 4}, .cold = true},
		{.name = {"large", 5}, .memory_mb = 512},
		{.name = {"cpus", 4}, .vcpus = 2},
		{.name = {"disk", 4}, .disk_mb = 4096},
		{.name = {"else", 4}, .template = {"other", 5}},
	};
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	for (size_t i = 0; i < ARRAY_LEN(other); i++) {
		struct rec_sandbox_info info;

		assert_int_equal(rig_create(r, a, &other[i], &info), 0);
		assert_true(span_is(info.path, "boot"));
		assert_int_equal(pool_info(r).hits, 0);
	}
	for (size_t i = 0; i < ARRAY_LEN(other); i++)
		remove_named(r, a, other[i].name.p);
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* What the spare was made with may be asked for by number, too. */
static void the_same_size_by_number_fits(void **state)
{
	const struct rec_sandbox_create rec = {.name = span_of("x"), .memory_mb = 256};
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	assert_int_equal(rig_create(r, a, &rec, &info), 0);
	assert_true(span_is(info.path, "pool"));
	remove_named(r, a, "x");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void names_and_request_ids_mean_the_same(void **state)
{
	const struct rec_sandbox_create rec = {.name = span_of("x"), .request_id = span_of("r1")};
	const struct rec_sandbox_create taken = {.name = span_of("x")};
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_info first, again;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 2, 0), 0);
	fill(r, 2, 0);
	assert_int_equal(rig_create(r, a, &rec, &first), 0);
	assert_int_equal(rig_create(r, a, &rec, &again), 0);
	assert_true(id_eq(&first.id, &again.id));
	assert_int_equal(rig_create(r, a, &taken, &again), -ERR_CONFLICT);
	fill(r, 2, 0);
	assert_int_equal(pool_info(r).hits, 1);
	remove_named(r, a, "x");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* ---- spares that fail ---- */

static void one_that_dies_is_made_again(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct err why = ERR_INIT;
	struct rec_pool_info info;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	err_set(&why, ERR_GONE, "killed");
	assert_int_equal(null_script_kill(&r->script, &r->agents[0].id, &why), 0);
	rig_turns(r, 20);
	info = pool_info(r);
	assert_int_equal(info.unhealthy, 1);
	assert_int_equal(info.ready, 0);
	assert_true(info.reason.n > 0);
	loop_advance(r->loop, POOL_RETRY_MS * NS_PER_MS);
	fill(r, 1, 0);
	assert_int_equal(pool_info(r).reason.n, 0);
	create(r, a, "one", "pool");
	remove_named(r, a, "one");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* POOL-3: whatever the agent of a spare does when it is handed over, the create succeeds. */
static void one_that_fails_when_taken_is_replaced(void **state)
{
	static const enum agent_mode modes[] = {AGENT_REFUSES,	  AGENT_IGNORES,     AGENT_BABBLES,
						AGENT_NOT_SEEDED, AGENT_WRONG_NAME,  AGENT_WRONG_CLOCK,
						AGENT_WRONG_WALL, AGENT_BAD_RECORD};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		const struct rec_sandbox_create rec = {.name = span_of("x"), .request_id = span_of("r")};
		struct rig *r = rig_new();
		struct ask *a = ask_new();
		struct rec_sandbox_info info;

		rig_up(r);
		assert_int_equal(pool_set(r, a, 1, 0), 0);
		fill(r, 1, 0);
		r->mode = modes[i];
		ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
		for (unsigned n = 0; n < MANY_TURNS && r->agents[0].setups < 3; n++)
			rig_turns(r, 1);
		assert_true(r->agents[0].setups >= 3); /* made, rehearsed, handed over */
		r->mode = AGENT_GOOD; /* the others are well */
		assert_true(rig_until(r, &a->done));
		if (a->why.code)
			fail_msg("mode %u: %s", modes[i], a->why.text);
		ask_decode(a, METHOD_SANDBOX_CREATE, &info);
		assert_true(span_is(info.path, "boot"));
		assert_false(id_eq(&info.id, &r->agents[0].id));
		assert_int_equal(pool_info(r).unhealthy, 1);
		assert_int_equal(rig_create(r, a, &rec, &info), 0); /* the request id is the new one's */
		assert_false(id_eq(&info.id, &r->agents[0].id));
		remove_named(r, a, "x");
		end_pool(r, a);
		rig_is_clean(r);
		free(a);
		rig_free(r);
	}
}

static void a_shell_that_cant_load_is_replaced(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	make_hot(r, a);
	assert_int_equal(pool_set(r, a, 0, 1), 0);
	fill(r, 0, 1);
	for (enum null_mode mode = NULL_REFUSE; mode <= NULL_FAIL; mode++) {
		const struct rec_sandbox_create rec = {.name = span_of("x")};
		struct rec_sandbox_info info;
		unsigned loads = r->script.seen[NULL_LOAD];

		r->script.steps[NULL_LOAD].mode = mode;
		ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
		for (unsigned n = 0; n < MANY_TURNS && r->script.seen[NULL_LOAD] == loads; n++)
			rig_turns(r, 1);
		r->script.steps[NULL_LOAD].mode = NULL_OK;
		assert_true(rig_until(r, &a->done));
		assert_int_equal(a->why.code, 0);
		ask_decode(a, METHOD_SANDBOX_CREATE, &info);
		assert_true(span_is(info.path, "fork"));
		remove_named(r, a, "x");
		fill(r, 0, 1);
	}
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void a_template_built_again_makes_old_spares_worthless(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	r->image_builds++; /* by somebody who tells nobody */
	create(r, a, "one", "boot");
	assert_int_equal(pool_info(r).unhealthy, 1);
	fill(r, 1, 0);
	create(r, a, "two", "pool");
	remove_named(r, a, "one");
	remove_named(r, a, "two");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void a_new_hot_template_renews_the_pool(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	uint64_t created;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 1, 0), 0);
	fill(r, 1, 0);
	created = pool_info(r).created;
	make_hot(r, a);
	for (unsigned i = 0; i < MANY_TURNS && pool_info(r).created == created; i++) {
		rig_turns(r, 1);
		loop_advance(r->loop, 10 * NS_PER_MS);
	}
	fill(r, 1, 0);
	assert_int_equal(pool_info(r).unhealthy, 0);
	create(r, a, "one", "pool");
	remove_named(r, a, "one");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void a_pool_that_cant_be_filled_says_why_and_tries_less_often(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	unsigned starts;

	T_UNUSED(state);
	rig_up(r);
	r->script.steps[NULL_START].mode = NULL_FAIL;
	assert_int_equal(pool_set(r, a, 2, 0), 0);
	rig_turns(r, 100);
	for (unsigned i = 0; i < 1000 && !pool_info(r).reason.n; i++)
		loop_advance(r->loop, NS_PER_MS);
	assert_true(pool_info(r).reason.n > 0);
	starts = r->script.seen[NULL_START];
	for (unsigned i = 0; i < 600; i++) { /* a minute */
		rig_turns(r, 3);
		assert_int_equal(loop_turn(r->loop, 1), 0);
		loop_advance(r->loop, 100 * NS_PER_MS);
	}
	assert_true(r->script.seen[NULL_START] - starts <= 2 * POOL_FILLS_MAX * 6); /* 1, 2, 4 ... 32 s */
	assert_true(r->script.seen[NULL_START] > starts);
	r->script.steps[NULL_START].mode = NULL_OK;
	loop_advance(r->loop, POOL_RETRY_MAX_MS * NS_PER_MS);
	fill(r, 2, 0);
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void pools_leave_memory_to_creates(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	r->config.memory_budget_mb = 1024; /* spares take 256 each */
	rig_up(r);
	assert_int_equal(pool_set(r, a, 8, 0), 0);
	fill(r, 3, 0);
	for (unsigned i = 0; i < 50; i++) {
		rig_turns(r, 5);
		loop_advance(r->loop, 100 * NS_PER_MS);
	}
	assert_int_equal(pool_info(r).ready, 3);
	assert_true(pool_info(r).reason.n > 0);
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* ---- changes, crashes ---- */

static void a_pool_shrinks_and_ends(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	make_hot(r, a);
	assert_int_equal(pool_set(r, a, 3, 2), 0);
	fill(r, 3, 2);
	assert_int_equal(pool_set(r, a, 1, 1), 0);
	for (unsigned i = 0; i < MANY_TURNS && rig_info(r).sandboxes != 2; i++)
		loop_advance(r->loop, NS_PER_MS);
	assert_int_equal(rig_info(r).sandboxes, 2);
	fill(r, 1, 1);
	end_pool(r, a);
	assert_int_equal(pool_info(r).size, 0); /* there is none */
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* Spares of a daemon that died are undone; the pool is filled again; what was taken stays. */
static void the_next_daemon_fills_it_again(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	rig_up(r);
	assert_int_equal(pool_set(r, a, 2, 0), 0);
	fill(r, 2, 0);
	create(r, a, "kept", "pool");
	rig_crash(r);
	rig_up(r);
	fill(r, 2, 0);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, "kept"), 0);
	ask_decode(a, METHOD_SANDBOX_INFO, &info);
	assert_true(span_is(info.path, "pool"));
	assert_true(span_is(info.owner, "uid:1000"));
	assert_int_equal(strv_count(info.metadata), 1);
	assert_int_equal(rig_info(r).sandboxes, 3);
	assert_int_equal(null_script_running(&r->script), 3);
	remove_named(r, a, "kept");
	end_pool(r, a);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* The daemon ends, or its client goes, at any moment of a hand-over. */
static void nothing_is_left_of_an_interrupted_hand_over(void **state)
{
	T_UNUSED(state);
	for (unsigned turns = 0; turns < 24; turns++) {
		const struct rec_sandbox_create rec = {.name = span_of("x"), .ephemeral = true};
		struct rig *r = rig_new();
		struct ask *a = ask_new();
		bool crashes = turns % 2;

		rig_up(r);
		assert_int_equal(pool_set(r, a, 1, 0), 0);
		fill(r, 1, 0);
		ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, true);
		rig_turns(r, turns / 2);
		if (crashes) {
			rig_crash(r);
			rig_up(r);
			loop_advance(r->loop, (ENGINE_GRACE_MS + 1) * NS_PER_MS);
			rig_turns(r, 50);
		} else {
			r->client = link_free(r->client);
			rig_turns(r, 50);
			rig_connect(r);
		}
		for (unsigned i = 0; i < MANY_TURNS && listed(r); i++)
			loop_advance(r->loop, NS_PER_MS);
		assert_int_equal(listed(r), 0);
		fill(r, 1, 0);
		end_pool(r, a);
		rig_is_clean(r);
		free(a);
		rig_free(r);
	}
}

static void bad_pools_are_refused(void **state)
{
	const struct rec_pool_set bad[] = {
		{.template = span_of("missing"), .size = 1},
		{.template = span_of("base"), .isolation = span_of("process"), .size = 1},
		{.template = span_of("base"), .memory_mb = 64, .size = 1},
		{.template = span_of("base")}, /* to be ended, and there is none */
	};
	static const int codes[] = {ERR_NOT_FOUND, ERR_UNSUPPORTED, ERR_LIMIT, ERR_NOT_FOUND};
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	rig_up(r);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(ask(r, a, METHOD_POOL_SET, &bad[i]), -codes[i]);
	assert_int_equal(pool_info(r).size, 0);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

T_MAIN(T(a_create_takes_a_ready_one), T(spares_have_ids_that_open_nothing), T(shells_only_load),
       T(ready_ones_go_before_shells_and_an_empty_pool_is_a_miss), T(other_requests_go_their_own_way),
       T(the_same_size_by_number_fits), T(names_and_request_ids_mean_the_same), T(one_that_dies_is_made_again),
       T(one_that_fails_when_taken_is_replaced), T(a_shell_that_cant_load_is_replaced),
       T(a_template_built_again_makes_old_spares_worthless), T(a_new_hot_template_renews_the_pool),
       T(a_pool_that_cant_be_filled_says_why_and_tries_less_often), T(pools_leave_memory_to_creates),
       T(a_pool_shrinks_and_ends), T(the_next_daemon_fills_it_again),
       T(nothing_is_left_of_an_interrupted_hand_over), T(bad_pools_are_refused))
