/*
 * engine/t_forks.c - what is done with whole machines: copied, kept, put back; and that nothing
 * of it is lost, mixed or left behind when a step fails, the sandbox ends or the daemon dies
 *
 * The host is modelled (engine/t_host.h): a machine with the memory of one moment and the disk of
 * another one fails the test, whichever it is.
 */
#include "engine/capture.h"
#include "engine/engine_int.h"
#include "engine/sandbox.h"
#include "engine/sets.h"
#include "engine/t_host.h"

enum { MANY_TURNS = 400 };

static struct ask *ask_new(void)
{
	struct ask *a = calloc(1, sizeof(*a));

	a->items = (struct str)STR_INIT(1 << 20);
	return a;
}

static void ask_free(struct ask *a)
{
	str_deinit(&a->items);
	free(a);
}

static struct host *up(void)
{
	struct host *h = host_new();

	rig_up(&h->rig);
	return h;
}

/* ---- what a test asks; 0 or the negative code ---- */

static int call(struct host *h, struct ask *a, unsigned method, const void *rec)
{
	str_clear(&a->items);
	return ask(&h->rig, a, method, rec);
}

static int make(struct host *h, struct ask *a, const struct rec_sandbox_create *rec)
{
	return call(h, a, METHOD_SANDBOX_CREATE, rec);
}

static int make_named(struct host *h, struct ask *a, const char *name)
{
	return make(h, a, &(struct rec_sandbox_create){.name = span_of(name)});
}

static int on_sandbox(struct host *h, struct ask *a, unsigned method, const char *name)
{
	return call(h, a, method, &(struct rec_sandbox_ref){.sandbox = span_of(name)});
}

static int snap(struct host *h, struct ask *a, const char *sandbox, const char *name)
{
	return call(h, a, METHOD_SNAPSHOT_CREATE,
		    &(struct rec_snapshot_create){.sandbox = span_of(sandbox), .name = span_of(name)});
}

static int from_snap(struct host *h, struct ask *a, const char *snapshot, const char *name, bool disk_only)
{
	return make(h, a, &(struct rec_sandbox_create){
		.snapshot = span_of(snapshot), .name = span_of(name), .disk_only = disk_only});
}

static int on_snap(struct host *h, struct ask *a, unsigned method, const char *name)
{
	return call(h, a, method, &(struct rec_snapshot_ref){.snapshot = span_of(name)});
}

static int fork_named(struct host *h, struct ask *a, const char *sandbox, unsigned count, const char *name)
{
	return call(h, a, METHOD_SANDBOX_FORK,
		    &(struct rec_sandbox_fork){.sandbox = span_of(sandbox), .count = count, .name = span_of(name)});
}

static int rollback(struct host *h, struct ask *a, const char *sandbox, const char *snapshot)
{
	return call(h, a, METHOD_SANDBOX_ROLLBACK,
		    &(struct rec_sandbox_rollback){.sandbox = span_of(sandbox), .snapshot = span_of(snapshot)});
}

static int build(struct host *h, struct ask *a)
{
	return call(h, a, METHOD_TEMPLATE_BUILD, &(struct rec_template_build){.template = span_of("base")});
}

/* Texts point into @a. */
static struct rec_sandbox_info sandbox(struct host *h, struct ask *a, const char *name)
{
	struct rec_sandbox_info info;

	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_INFO, name), 0);
	ask_decode(a, METHOD_SANDBOX_INFO, &info);
	return info;
}

static void state_is(struct host *h, const char *name, const char *state)
{
	struct ask *a = ask_new();
	struct rec_sandbox_info info = sandbox(h, a, name);

	if (!span_is(info.state, state))
		fail_msg("%s is %.*s, not %s (%.*s)", name, (int)info.state.n, info.state.p, state,
			 (int)info.reason.n, info.reason.p ? info.reason.p : "");
	ask_free(a);
}

static struct rec_snapshot_info snapshot(struct host *h, struct ask *a, const char *name)
{
	struct rec_snapshot_info info;

	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_INFO, name), 0);
	ask_decode(a, METHOD_SNAPSHOT_INFO, &info);
	return info;
}

static unsigned count_items(const struct ask *a, const struct rec_type *t, void *last)
{
	unsigned n = 0;

	for (size_t at = 0; at < a->items.len; n++) {
		int used = rec_item_next(t, a->items.p + at, a->items.len - at, last, NULL);

		assert_true(used > 0);
		at += (size_t)used;
	}
	return n;
}

/* @last: texts point into @a. */
static unsigned snapshots(struct host *h, struct ask *a, struct rec_snapshot_info *last)
{
	assert_int_equal(call(h, a, METHOD_SNAPSHOT_LIST, &(struct rec_empty){0}), 0);
	return count_items(a, &rec_snapshot_info_type, last);
}

static unsigned sandboxes(struct host *h, struct ask *a, struct rec_sandbox_info *last)
{
	assert_int_equal(call(h, a, METHOD_SANDBOX_LIST, &(struct rec_empty){0}), 0);
	return count_items(a, &rec_sandbox_info_type, last);
}

static unsigned listed_snapshots(struct host *h)
{
	struct ask *a = ask_new();
	struct rec_snapshot_info last;
	unsigned n = snapshots(h, a, &last);

	ask_free(a);
	return n;
}

static struct agent_double *agent(struct host *h, const char *name)
{
	struct ask *a = ask_new();
	struct id id = sandbox(h, a, name).id;
	struct agent_double *found = NULL;

	for (unsigned i = 0; i < h->rig.n_agents; i++)
		if (id_eq(&h->rig.agents[i].id, &id))
			found = &h->rig.agents[i];
	assert_non_null(found);
	ask_free(a);
	return found;
}

/* ---- waiting ---- */

/* Turns, a fake millisecond each, until @is_so. */
static bool until(struct host *h, bool (*is_so)(struct host *h))
{
	for (unsigned i = 0; i < RIG_TURNS && !is_so(h); i++) {
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
		loop_advance(h->rig.loop, NS_PER_MS);
	}
	return is_so(h);
}

static bool nothing_on_disk(struct host *h)
{
	return host_disks(h) == 0 && host_sets(h) == 0;
}

static void pass(struct host *h, uint64_t ms)
{
	rig_turns(&h->rig, 5);
	loop_advance(h->rig.loop, ms * NS_PER_MS);
	rig_turns(&h->rig, 5);
}

/* ---- the end of a test ---- */

static void remove_all_sandboxes(struct host *h, struct ask *a)
{
	struct rec_sandbox_info box;
	char id[ID_TEXT];

	while (sandboxes(h, a, &box)) {
		int r;

		id_format(&box.id, id);
		r = on_sandbox(h, a, METHOD_SANDBOX_REMOVE, id);
		assert_true(r == 0 || r == -ERR_NOT_FOUND);
	}
}

/* Whatever there is can be removed, and then nothing is left. */
static void end(struct host *h, struct ask *a)
{
	struct rec_snapshot_info set;
	char id[ID_TEXT];

	remove_all_sandboxes(h, a);
	while (snapshots(h, a, &set)) {
		int r;

		id_format(&set.id, id);
		r = on_snap(h, a, METHOD_SNAPSHOT_REMOVE, id);
		assert_true(r == 0 || r == -ERR_NOT_FOUND);
	}
	if (!until(h, nothing_on_disk))
		fail_msg("%u disks and %u sets are left", host_disks(h), host_sets(h));
	rig_is_clean(&h->rig);
	ask_free(a);
	host_free(h);
}

/* It can be used: it runs, and its workload too, or can be resumed. */
static void is_usable(struct host *h, struct ask *a, const char *name)
{
	struct rec_sandbox_info info = sandbox(h, a, name);

	if (span_is(info.state, "paused"))
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, name), 0);
	state_is(h, name, "running");
	assert_false(agent(h, name)->is_frozen);
	assert_int_equal(snap(h, a, name, "proof-of-use"), 0);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "proof-of-use"), 0);
}

/* ---- snapshots ---- */

static void a_snapshot_is_kept_listed_and_removed(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_snapshot_info info;
	struct rec_sandbox_info box;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	ask_decode(a, METHOD_SANDBOX_CREATE, &box);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	ask_decode(a, METHOD_SNAPSHOT_CREATE, &info);
	assert_true(span_is(info.name, "s"));
	assert_true(span_is(info.kind, "snapshot"));
	assert_true(id_eq(&info.sandbox, &box.id));
	assert_true(id_is_zero(&info.parent));
	assert_int_equal(info.memory_mb, 256);
	assert_int_equal(info.layers, 1);
	assert_int_equal(info.delete_ms, 0);
	assert_true(info.hot);
	assert_string_equal(agent(h, "x")->programs, "sync;"); /* its disk alone is worth having */
	assert_int_equal(agent(h, "x")->freezes, 1);
	assert_int_equal(agent(h, "x")->thaws, 1);
	state_is(h, "x", "running");
	assert_int_equal(snapshots(h, a, &info), 1);
	assert_true(span_is(info.name, "s"));
	assert_true(span_is(snapshot(h, a, "s").tenant, "default"));
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), 0);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_INFO, "s"), -ERR_NOT_FOUND);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), -ERR_NOT_FOUND);
	assert_int_equal(listed_snapshots(h), 0);
	assert_int_equal(host_sets(h), 0);
	is_usable(h, a, "x");
	end(h, a);
}

static void sandboxes_start_from_a_snapshot(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_info y;
	struct id set;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	set = snapshot(h, a, "s").id;
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0); /* it needs its source no more */
	assert_int_equal(from_snap(h, a, "s", "y", false), 0);
	y = sandbox(h, a, "y");
	assert_true(span_is(y.path, "fork"));
	assert_true(id_eq(&y.parent, &set));
	assert_true(agent(h, "y")->was_forked);
	assert_int_equal(agent(h, "y")->generation, 2);
	assert_int_equal(from_snap(h, a, "s", "z", true), 0);
	assert_true(span_is(sandbox(h, a, "z").path, "boot"));
	assert_false(agent(h, "z")->was_forked);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), 0); /* what runs on it runs on */
	is_usable(h, a, "y");
	is_usable(h, a, "z");
	assert_int_equal(from_snap(h, a, "s", "w", false), -ERR_NOT_FOUND);
	assert_int_equal(from_snap(h, a, "", "w", true), -ERR_INVALID); /* disk_only goes with snapshot */
	end(h, a);
}

static void a_snapshot_has_the_shape_of_its_sandbox(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_create other = {.name = span_of("y"), .snapshot = span_of("s"), .memory_mb = 512};

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(make(h, a, &other), -ERR_INVALID);
	assert_non_null(strstr(a->why.text, "memory_mb"));
	other.disk_only = true; /* it boots: any memory will do */
	assert_int_equal(make(h, a, &other), 0);
	assert_int_equal(sandbox(h, a, "y").memory_mb, 512);
	other = (struct rec_sandbox_create){.snapshot = span_of("s"), .template = span_of("other")};
	assert_int_equal(make(h, a, &other), -ERR_INVALID);
	end(h, a);
}

static void names_of_snapshots_are_checked(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(snap(h, a, "x", "s"), -ERR_CONFLICT);
	assert_int_equal(snap(h, a, "x", "a b"), -ERR_INVALID);
	assert_int_equal(snap(h, a, "x", "0123456789abcdef0123456789abcdef"), -ERR_INVALID);
	assert_int_equal(snap(h, a, "nobody", "t"), -ERR_NOT_FOUND);
	assert_int_equal(snap(h, a, "x", ""), 0); /* nameless: by its id */
	assert_int_equal(listed_snapshots(h), 2);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0); /* free again */
	end(h, a);
}

/* Both were admitted before either had its name. */
static void one_name_is_given_once_even_at_the_same_time(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *b = ask_new();
	const struct rec_snapshot_create x = {.sandbox = span_of("x"), .name = span_of("s")},
					 y = {.sandbox = span_of("y"), .name = span_of("s")};
	struct rec_snapshot_info last;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(make_named(h, a, "y"), 0);
	ask_start(&h->rig, a, METHOD_SNAPSHOT_CREATE, &x, false);
	ask_start(&h->rig, b, METHOD_SNAPSHOT_CREATE, &y, false);
	assert_true(rig_until(&h->rig, &a->done));
	assert_true(rig_until(&h->rig, &b->done));
	assert_int_equal(a->why.code + b->why.code, ERR_CONFLICT);
	assert_int_equal(snapshots(h, a, &last), 1);
	is_usable(h, a, "x");
	is_usable(h, a, "y");
	ask_free(b);
	end(h, a);
}

static void a_snapshot_is_deleted_in_its_time(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	const struct rec_snapshot_create rec = {.sandbox = span_of("x"), .name = span_of("s"), .keep_ms = 60000};
	struct rec_snapshot_info info;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(call(h, a, METHOD_SNAPSHOT_CREATE, &rec), 0);
	ask_decode(a, METHOD_SNAPSHOT_CREATE, &info);
	assert_int_equal(info.delete_ms, info.created_ms + 60000);
	pass(h, 59000);
	assert_int_equal(host_sets(h), 1);
	pass(h, 2000);
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_INFO, "s"), -ERR_NOT_FOUND);
	end(h, a);
}

/* Its time does not begin anew with the daemon, nor is it forgotten when the disk fails once. */
static void retention_outlives_daemons_and_failures(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	const struct rec_snapshot_create rec = {.sandbox = span_of("x"), .name = span_of("s"), .keep_ms = 60000};

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(call(h, a, METHOD_SNAPSHOT_CREATE, &rec), 0);
	pass(h, 30000);
	host_crash(h, false);
	rig_up(&h->rig);
	assert_int_equal(listed_snapshots(h), 1);
	pass(h, 20000);
	assert_int_equal(listed_snapshots(h), 1);
	h->fails[HOST_REMOVE] = ERR_INTERNAL;
	pass(h, 11000);
	for (unsigned i = 0; i < MANY_TURNS && !h->calls[HOST_REMOVE]; i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
	assert_true(h->calls[HOST_REMOVE] > 0);
	rig_turns(&h->rig, 20);
	h->fails[HOST_REMOVE] = 0;
	assert_int_equal(host_sets(h), 1);
	pass(h, 3600000);
	for (unsigned i = 0; i < MANY_TURNS && host_sets(h); i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
	assert_int_equal(host_sets(h), 0);
	end(h, a);
}

static void a_removal_that_fails_leaves_it_usable(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	h->fails[HOST_REMOVE] = ERR_LIMIT;
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), -ERR_LIMIT);
	assert_int_equal(listed_snapshots(h), 1);
	assert_int_equal(from_snap(h, a, "s", "y", false), 0);
	h->fails[HOST_REMOVE] = 0;
	assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), 0);
	end(h, a);
}

/* ---- other tenants ---- */

static void another_tenants_are_not_there(void **state)
{
	struct host *h = host_new();
	struct ask *a = ask_new();
	struct rec_snapshot_info last;
	struct host_set *set;
	char id[ID_TEXT];

	T_UNUSED(state);
	rig_up(&h->rig);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(build(h, a), 0);
	for (unsigned i = 0; i < HOST_SETS; i++) { /* they belong to somebody else from here on */
		set = &h->sets[i];
		if (set->is_used)
			(void)snprintf(set->m.tenant, sizeof(set->m.tenant), "other");
		if (set->is_used && strcmp(set->m.kind, "snapshot") == 0)
			id_format(&set->m.id, id);
	}
	host_crash(h, false);
	rig_up(&h->rig);
	assert_int_equal(snapshots(h, a, &last), 0);
	for (int by_id = 0; by_id < 2; by_id++) {
		const char *ref = by_id ? id : "s";

		assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_INFO, ref), -ERR_NOT_FOUND);
		assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, ref), -ERR_NOT_FOUND);
		assert_int_equal(from_snap(h, a, ref, "y", false), -ERR_NOT_FOUND);
		assert_int_equal(from_snap(h, a, ref, "y", true), -ERR_NOT_FOUND);
		assert_int_equal(rollback(h, a, "x", ref), -ERR_NOT_FOUND);
	}
	assert_int_equal(make_named(h, a, "z"), 0);
	assert_true(span_is(sandbox(h, a, "z").path, "boot")); /* not by the other's hot template */
	assert_int_equal(snap(h, a, "x", "s"), 0);	       /* names are a tenant's own */
	assert_int_equal(snapshots(h, a, &last), 1);
	for (unsigned i = 0; i < HOST_SETS; i++) /* theirs again, so that the end can remove them */
		if (h->sets[i].is_used)
			(void)snprintf(h->sets[i].m.tenant, sizeof(h->sets[i].m.tenant), "default");
	host_crash(h, false);
	rig_up(&h->rig);
	end(h, a);
}

/* ---- forks ---- */

static void forks_run_beside_their_source(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_info y = {0};
	struct id source;

	T_UNUSED(state);
	assert_int_equal(make(h, a, &(struct rec_sandbox_create){.name = span_of("x"), .metadata = {"a=b", 4}}), 0);
	source = sandbox(h, a, "x").id;
	assert_int_equal(fork_named(h, a, "x", 3, "y"), 0);
	assert_int_equal(count_items(a, &rec_sandbox_info_type, &y), 3);
	assert_true(span_is(y.name, "y-3"));
	assert_true(span_is(y.state, "running"));
	assert_true(span_is(y.path, "fork"));
	assert_true(span_is(y.owner, "uid:1000"));
	assert_int_equal(strv_count(y.metadata), 1);
	assert_false(id_eq(&y.id, &source));
	assert_int_equal(agent(h, "x")->freezes, 1); /* once for all */
	assert_int_equal(agent(h, "x")->thaws, 1);
	for (int i = 1; i <= 3; i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "y-%d", i);
		assert_true(agent(h, name)->was_forked);
		assert_int_equal(agent(h, name)->generation, 2);
	}
	assert_int_equal(rig_info(&h->rig).memory_promised_mb, 4 * 256);
	assert_int_equal(fork_named(h, a, "y-1", 0, "z"), 0); /* one when no number is named; a fork of a fork */
	assert_int_equal(agent(h, "z")->generation, 3);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "y-1"), 0);
	is_usable(h, a, "z");
	is_usable(h, a, "y-2");
	assert_int_equal(host_sets(h), 0);
	end(h, a);
}

/* Every copy adds a layer; before there are too many they are merged, and what was copied has its own. */
static void a_disk_has_so_many_layers(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	for (int i = 1; i < LIMIT_DISK_LAYERS; i++)
		assert_int_equal(snap(h, a, "x", i == 3 ? "s" : ""), 0);
	assert_int_equal(host_disk(h, &agent(h, "x")->id)->chain.n, LIMIT_DISK_LAYERS);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0); /* adds none */
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), 0);
	assert_int_equal(h->rig.script.seen[NULL_FLATTEN], 0);
	assert_int_equal(fork_named(h, a, "x", 1, "y"), 0);
	assert_int_equal(h->rig.script.seen[NULL_FLATTEN], 1);
	assert_int_equal(host_disk(h, &agent(h, "x")->id)->chain.n, 3);
	assert_int_equal(host_disk(h, &agent(h, "y")->id)->chain.n, 3);
	assert_int_equal(rollback(h, a, "x", "s"), 0); /* of four layers, which nobody merged */
	assert_int_equal(host_disk(h, &agent(h, "x")->id)->chain.n, 4);
	is_usable(h, a, "x");
	is_usable(h, a, "y");
	end(h, a);
}

/* All or nothing. */
static void forks_that_do_not_fit_are_none(void **state)
{
	struct host *h = host_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	h->rig.config.memory_budget_mb = 1024;
	rig_up(&h->rig);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(fork_named(h, a, "x", 4, "y"), -ERR_LIMIT);
	assert_non_null(strstr(a->why.text, "1024"));
	for (unsigned i = 0; i < MANY_TURNS && host_disks(h) > 1; i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_INFO, "y-1"), -ERR_NOT_FOUND);
	assert_int_equal(rig_info(&h->rig).memory_promised_mb, 256);
	assert_int_equal(fork_named(h, a, "x", 3, "y"), 0);
	assert_int_equal(fork_named(h, a, "x", 1, "y-2"), -ERR_CONFLICT); /* the name is taken */
	is_usable(h, a, "x");
	end(h, a);
}

static void ephemeral_forks_go_with_nobody(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(call(h, a, METHOD_SANDBOX_FORK, &(struct rec_sandbox_fork){
		.sandbox = span_of("x"), .name = span_of("y"), .ephemeral = true}), 0);
	state_is(h, "y", "running");
	pass(h, ENGINE_GRACE_MS + 1000);
	for (unsigned i = 0; i < MANY_TURNS && host_disks(h) > 1; i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_INFO, "y"), -ERR_NOT_FOUND);
	is_usable(h, a, "x");
	end(h, a);
}

/* ---- pause and resume ---- */

static void a_pause_gives_memory_back_and_goes_on(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_info x;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
		ask_decode(a, METHOD_SANDBOX_PAUSE, &x);
		assert_true(span_is(x.state, "paused"));
		assert_int_equal(rig_info(&h->rig).memory_promised_mb, 0);
		assert_int_equal(null_script_running(&h->rig.script), 0);
		assert_int_equal(host_sets(h), 1);
		assert_int_equal(listed_snapshots(h), 0); /* it is no snapshot of anybody's */
		assert_int_equal(snap(h, a, "x", "s"), -ERR_CONFLICT);
		assert_int_equal(fork_named(h, a, "x", 1, ""), -ERR_CONFLICT);
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), -ERR_CONFLICT);
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), 0);
		assert_true(agent(h, "x")->was_forked);
		assert_int_equal(agent(h, "x")->generation, i + 1);
		assert_int_equal(rig_info(&h->rig).memory_promised_mb, 256);
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), -ERR_CONFLICT);
	}
	for (unsigned i = 0; i < MANY_TURNS && host_sets(h); i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
	assert_int_equal(host_sets(h), 0); /* what it came from is gone: it changes from here on */
	is_usable(h, a, "x");
	end(h, a);
}

/* Gigabytes on their way to the disk hold up nobody's create. */
static void sets_leave_workers_to_sandboxes(void **state)
{
	enum { MANY = ENGINE_WORKERS + 1 };
	struct host *h = up();
	struct ask *a = ask_new(), *x[MANY];
	char name[MANY][8];

	T_UNUSED(state);
	for (unsigned i = 0; i < MANY; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "x%u", i % 10);
		assert_int_equal(make_named(h, a, name[i]), 0);
	}
	h->blocks[HOST_SAVE] = true;
	for (unsigned i = 0; i < MANY; i++) {
		x[i] = ask_new();
		ask_start(&h->rig, x[i], METHOD_SNAPSHOT_CREATE,
			  &(struct rec_snapshot_create){.sandbox = span_of(name[i])}, false);
	}
	pass(h, 1000);
	assert_int_equal(make_named(h, a, "z"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "z"), 0);
	h->blocks[HOST_SAVE] = false;
	for (unsigned i = 0; i < MANY; i++) {
		assert_true(rig_until(&h->rig, &x[i]->done));
		assert_int_equal(x[i]->why.code, 0);
		ask_free(x[i]);
	}
	assert_int_equal(host_sets(h), MANY);
	end(h, a);
}

/* However long it was used, and by whomever: then it goes. */
static void memory_beyond_the_budget_goes_when_nobody_uses_it(void **state)
{
	struct host *h = host_new();
	struct ask *a = ask_new();
	struct rec_snapshot_info last;

	T_UNUSED(state);
	h->rig.config.hot_budget_mb = 0;
	h->rig.config.memory_total_mb = 0; /* an eighth of it */
	rig_up(&h->rig);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	rig_turns(&h->rig, 5);
	assert_int_equal(snapshots(h, a, &last), 1);
	assert_false(last.hot);
	assert_int_equal(from_snap(h, a, "s", "y", false), 0); /* loaded for this */
	rig_turns(&h->rig, 5);
	assert_int_equal(snapshots(h, a, &last), 1);
	assert_false(last.hot);
	end(h, a);
}

static bool saves(struct host *h)
{
	return h->calls[HOST_SAVE] == 1;
}

static void a_copy_is_use(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();

	T_UNUSED(state);
	assert_int_equal(make(h, a, &(struct rec_sandbox_create){.name = span_of("x"), .idle_timeout_ms = 10000}), 0);
	pass(h, 9000);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	pass(h, 9000);
	state_is(h, "x", "running");
	h->blocks[HOST_SAVE] = true;
	h->calls[HOST_SAVE] = 0;
	ask_start(&h->rig, x, METHOD_SANDBOX_PAUSE, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
	assert_true(until(h, saves));
	pass(h, 25000);
	h->blocks[HOST_SAVE] = false;
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_equal(x->why.code, 0);
	state_is(h, "x", "paused");
	ask_free(x);
	end(h, a);
}

static void a_pause_stops_the_idle_clock_not_the_other(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	const struct rec_sandbox_create rec = {
		.name = span_of("x"), .idle_timeout_ms = 10000, .lifetime_ms = 100000};

	T_UNUSED(state);
	assert_int_equal(make(h, a, &rec), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	pass(h, 50000);
	state_is(h, "x", "paused");
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), 0);
	pass(h, 5000);
	state_is(h, "x", "running"); /* and it begins anew */
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	pass(h, 60000);
	assert_true(until(h, nothing_on_disk));
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_INFO, "x"), -ERR_NOT_FOUND);
	end(h, a);
}

static void a_pause_ends_what_runs_on_the_link(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();

	T_UNUSED(state);
	h->rig.programs = ANSWER_TEST;
	assert_int_equal(make_named(h, a, "x"), 0);
	ask_start(&h->rig, x, METHOD_EXEC_START,
		  &(struct rec_exec_start){.sandbox = span_of("x"), .command = span_of("top")}, true);
	rig_turns(&h->rig, 10);
	assert_non_null(agent(h, "x")->call);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_equal(x->why.code, ERR_FORKED);
	h->rig.programs = ANSWER_OK;
	is_usable(h, a, "x");
	ask_free(x);
	end(h, a);
}

static bool has_no_room(const struct machine *m)
{
	T_UNUSED(m);
	return true;
}

static bool owes(struct host *h)
{
	return agent(h, "x")->owed;
}

static bool prepares(struct host *h)
{
	return h->rig.script.seen[NULL_PREPARE] == 1;
}

/* Most of a copy is made while its programs run; they stand still for the rest only. */
static void programs_run_while_a_copy_is_prepared(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	h->rig.script.steps[NULL_PREPARE].after_ns = 5 * NS_PER_S;
	ask_start(&h->rig, x, METHOD_SNAPSHOT_CREATE,
		  &(struct rec_snapshot_create){.sandbox = span_of("x"), .name = span_of("s")}, false);
	assert_true(until(h, prepares));
	assert_int_equal(agent(h, "x")->freezes, 0);
	pass(h, 5001);
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_equal(x->why.code, 0);
	assert_int_equal(agent(h, "x")->freezes, 1);
	assert_int_equal(h->rig.script.seen[NULL_CAPTURE], 1);
	h->rig.script.steps[NULL_PREPARE].after_ns = 0;
	is_usable(h, a, "x");
	ask_free(x);
	end(h, a);
}

/* Whoever ends meanwhile ends the copy as well. */
static void a_sandbox_may_go_while_a_copy_is_prepared(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	h->rig.script.steps[NULL_PREPARE].after_ns = 5 * NS_PER_S;
	ask_start(&h->rig, x, METHOD_SNAPSHOT_CREATE,
		  &(struct rec_snapshot_create){.sandbox = span_of("x"), .name = span_of("s")}, false);
	assert_true(until(h, prepares));
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_not_equal(x->why.code, 0);
	pass(h, 5001);
	assert_int_equal(listed_snapshots(h), 0);
	assert_int_equal(h->rig.script.seen[NULL_CAPTURE], 0);
	ask_free(x);
	end(h, a);
}

/* A guest that does not answer keeps nobody waiting; the reason is said, if it is a full disk. */
static void a_guest_that_does_not_answer(void **state)
{
	static const struct {
		bool (*lacks_room)(const struct machine *m);
		uint64_t ms;
		int code;
	} cases[] = {{NULL, 16000, ERR_TIMEOUT}, {has_no_room, 1001, ERR_LIMIT}};
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct ask *x = ask_new();

		h->rig.driver.lacks_room = cases[i].lacks_room;
		h->rig.freeze = ANSWER_NEVER;
		ask_start(&h->rig, x, METHOD_SNAPSHOT_CREATE,
			  &(struct rec_snapshot_create){.sandbox = span_of("x"), .name = span_of("s")}, false);
		assert_true(until(h, owes));
		pass(h, 500);
		assert_false(x->done);
		pass(h, cases[i].ms);
		assert_true(rig_until(&h->rig, &x->done));
		assert_int_equal(x->why.code, cases[i].code);
		h->rig.freeze = ANSWER_OK;
		is_usable(h, a, "x");
		ask_free(x);
	}
	end(h, a);
}

/* Frozen, and then the disk was full: it thaws when there is room, however late. */
static void a_thaw_waits_for_room(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	h->rig.driver.lacks_room = has_no_room;
	h->rig.thaw = ANSWER_NEVER;
	ask_start(&h->rig, x, METHOD_SNAPSHOT_CREATE,
		  &(struct rec_snapshot_create){.sandbox = span_of("x"), .name = span_of("s")}, false);
	assert_true(until(h, owes));
	for (unsigned i = 0; i < 3; i++)
		pass(h, 60000);
	assert_false(x->done);
	state_is(h, "x", "running");
	h->rig.driver.lacks_room = NULL;
	h->rig.thaw = ANSWER_OK;
	agent(h, "x")->is_frozen = false;
	(void)stream_reply(agent(h, "x")->owed, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0, NULL);
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_equal(x->why.code, 0);
	is_usable(h, a, "x");
	ask_free(x);
	end(h, a);
}

static void a_resume_needs_its_memory(void **state)
{
	struct host *h = host_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	h->rig.config.memory_budget_mb = 512;
	rig_up(&h->rig);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	assert_int_equal(make_named(h, a, "y"), 0);
	assert_int_equal(make_named(h, a, "z"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), -ERR_LIMIT);
	state_is(h, "x", "paused");
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "y"), 0);
	is_usable(h, a, "x");
	end(h, a);
}

static bool merges(struct host *h)
{
	return h->calls[HOST_FLATTEN] > 0;
}

/* The layers were merged on the disk, and the daemon died before it wrote that down. */
static void a_merge_that_nobody_noted(void **state)
{
	static const unsigned methods[] = {METHOD_SANDBOX_PAUSE, METHOD_SNAPSHOT_CREATE};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		struct host *h = up();
		struct ask *a = ask_new(), *x = ask_new();

		assert_int_equal(make_named(h, a, "x"), 0);
		for (int n = 1; n < LIMIT_DISK_LAYERS; n++)
			assert_int_equal(snap(h, a, "x", ""), 0);
		h->calls[HOST_FLATTEN] = 0;
		h->blocks[HOST_FLATTEN] = true;
		ask_start(&h->rig, x, METHOD_SANDBOX_FORK,
			  &(struct rec_sandbox_fork){.sandbox = span_of("x"), .count = 1}, false);
		assert_true(until(h, merges));
		host_crash(h, false);
		rig_up(&h->rig);
		state_is(h, "x", "running");
		if (methods[i] == METHOD_SANDBOX_PAUSE) {
			assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
			assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), 0);
		} else {
			assert_int_equal(snap(h, a, "x", "t"), 0);
		}
		is_usable(h, a, "x");
		ask_free(x);
		end(h, a);
	}
}

static bool goes(struct host *h)
{
	return h->rig.script.seen[NULL_DESTROY] > 0;
}

/* Its machine is on its way out: nothing but its own end can end what waits for that. */
static void one_that_is_parked_can_be_removed(void **state)
{
	static const unsigned methods[] = {METHOD_SANDBOX_PAUSE, METHOD_SANDBOX_ROLLBACK};
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		struct ask *x = ask_new();
		const struct rec_sandbox_rollback back = {.sandbox = span_of("x"), .snapshot = span_of("s")};
		const struct rec_sandbox_ref ref = {.sandbox = span_of("x")};

		assert_int_equal(make_named(h, a, "x"), 0);
		assert_int_equal(snap(h, a, "x", "s"), 0);
		h->rig.script.seen[NULL_DESTROY] = 0;
		h->rig.script.steps[NULL_DESTROY].after_ns = 5 * NS_PER_S;
		ask_start(&h->rig, x, methods[i],
			  methods[i] == METHOD_SANDBOX_PAUSE ? (const void *)&ref : (const void *)&back, false);
		assert_true(until(h, goes));
		ask_start(&h->rig, a, METHOD_SANDBOX_REMOVE, &ref, false);
		pass(h, 5001);
		assert_true(rig_until(&h->rig, &x->done));
		assert_int_equal(x->why.code, ERR_GONE);
		assert_true(rig_until(&h->rig, &a->done));
		assert_int_equal(a->why.code, 0);
		h->rig.script.steps[NULL_DESTROY].after_ns = 0;
		assert_int_equal(on_snap(h, a, METHOD_SNAPSHOT_REMOVE, "s"), 0);
		assert_true(until(h, nothing_on_disk));
		ask_free(x);
	}
	end(h, a);
}

static void a_paused_one_can_be_removed(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_true(until(h, nothing_on_disk));
	end(h, a);
}

static void a_paused_one_outlives_the_daemon(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(fork_named(h, a, "x", 1, "y"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "y"), 0);
	host_crash(h, false);
	rig_up(&h->rig);
	state_is(h, "x", "running");
	state_is(h, "y", "paused");
	assert_int_equal(rig_info(&h->rig).memory_promised_mb, 256);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "y"), 0);
	assert_true(h->calls[HOST_LOAD] > 0); /* from disk */
	is_usable(h, a, "y");
	end(h, a);
}

static void a_pause_that_is_lost_leaves_a_disk_to_roll_back(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	rig_crash(&h->rig);
	for (unsigned i = 0; i < HOST_SETS; i++)
		h->sets[i].is_used = false; /* damaged: set_each() does not give it */
	rig_up(&h->rig);
	state_is(h, "x", "paused");
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), -ERR_NOT_FOUND);
	assert_non_null(strstr(a->why.text, "missing or damaged"));
	state_is(h, "x", "paused");
	end(h, a);
}

/* It has a snapshot it was once put back to; nobody asked for that again. */
static void a_pause_that_is_lost_puts_nothing_back(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(rollback(h, a, "x", "s"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	host_crash(h, false);
	for (unsigned i = 0; i < HOST_SETS; i++)
		h->sets[i].is_used = h->sets[i].is_used && strcmp(h->sets[i].m.kind, "pause") != 0;
	rig_up(&h->rig);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), -ERR_NOT_FOUND);
	assert_non_null(strstr(a->why.text, "missing or damaged"));
	state_is(h, "x", "paused");
	assert_int_equal(rollback(h, a, "x", "s"), 0); /* now somebody did */
	is_usable(h, a, "x");
	end(h, a);
}

/* ---- rollback ---- */

static void a_rollback_puts_it_back(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_info x;
	struct id id, set;

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	id = sandbox(h, a, "x").id;
	assert_int_equal(snap(h, a, "x", "s"), 0);
	set = snapshot(h, a, "s").id;
	assert_int_equal(snap(h, a, "x", "later"), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(rollback(h, a, "x", i == 1 ? "later" : "s"), 0);
		ask_decode(a, METHOD_SANDBOX_ROLLBACK, &x);
		assert_true(id_eq(&x.id, &id));
		assert_true(span_is(x.state, "running"));
		assert_int_equal(host_disk(h, &id)->chain.n, i == 1 ? 3 : 2);
		assert_true(agent(h, "x")->was_forked);
	}
	x = sandbox(h, a, "x");
	assert_true(id_eq(&x.parent, &set));
	assert_int_equal(rig_info(&h->rig).memory_promised_mb, 256);
	assert_int_equal(listed_snapshots(h), 2);
	is_usable(h, a, "x");
	end(h, a);
}

static void a_rollback_is_to_ones_own_snapshots(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(make_named(h, a, "y"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(rollback(h, a, "y", "s"), -ERR_INVALID);
	assert_non_null(strstr(a->why.text, "create"));
	assert_int_equal(rollback(h, a, "y", "t"), -ERR_NOT_FOUND);
	assert_int_equal(rollback(h, a, "z", "s"), -ERR_NOT_FOUND);
	is_usable(h, a, "y");
	end(h, a);
}

static void a_paused_one_can_be_rolled_back(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	assert_int_equal(rollback(h, a, "x", "s"), 0);
	state_is(h, "x", "running");
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0); /* nothing of the old pause is in the way */
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x"), 0);
	is_usable(h, a, "x");
	end(h, a);
}

/* The old memory with the disk of the snapshot would be a damaged file system. */
static void a_rollback_that_fails_late_is_never_a_mixture(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	for (int was_paused = 0; was_paused < 2; was_paused++) {
		const char *name = was_paused ? "p" : "r", *set = was_paused ? "sp" : "sr";
		struct id id;

		assert_int_equal(make_named(h, a, name), 0);
		assert_int_equal(snap(h, a, name, set), 0);
		if (was_paused)
			assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, name), 0);
		h->rig.script.steps[NULL_START].mode = NULL_FAIL; /* the disk is put back by then */
		assert_int_equal(rollback(h, a, name, set), -ERR_INTERNAL);
		h->rig.script.steps[NULL_START].mode = NULL_OK;
		state_is(h, name, "paused");
		if (was_paused) { /* a resume goes where the rollback was to go, under the next daemon too */
			rig_crash(&h->rig);
			rig_up(&h->rig);
			assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_RESUME, name), 0);
			id = sandbox(h, a, name).id;
			assert_int_equal(host_disk(h, &id)->chain.n, 2);
		} else {
			assert_int_equal(rollback(h, a, name, set), 0);
		}
		is_usable(h, a, name);
	}
	end(h, a);
}

/* ---- every verb, for what follows: it fails, is disturbed, or its daemon dies, at any point ---- */

union request {
	struct rec_snapshot_create snapshot;
	struct rec_sandbox_fork fork;
	struct rec_sandbox_ref ref;
	struct rec_sandbox_rollback rollback;
	struct rec_sandbox_create create;
	struct rec_template_build build;
};

struct verb {
	const char *name;
	void (*prepare)(struct host *h, struct ask *a); /* there is sandbox x */
	unsigned method;
	union request rec;
	const char *before; /* state of x */
	bool is_of_another; /* x has no part in it */
	bool is_rollback;
};

static void have_x(struct host *h, struct ask *a)
{
	assert_int_equal(make_named(h, a, "x"), 0);
}

static void have_cold_sets(struct host *h)
{
	host_crash(h, false);
	rig_up(&h->rig);
}

static void have_snapshot(struct host *h, struct ask *a)
{
	have_x(h, a);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	have_cold_sets(h);
}

static void have_paused(struct host *h, struct ask *a)
{
	have_x(h, a);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	have_cold_sets(h);
}

static void have_paused_snapshot(struct host *h, struct ask *a)
{
	have_x(h, a);
	assert_int_equal(snap(h, a, "x", "s"), 0);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_PAUSE, "x"), 0);
	have_cold_sets(h);
}

static void have_all_layers(struct host *h, struct ask *a)
{
	have_x(h, a);
	for (int i = 1; i < LIMIT_DISK_LAYERS; i++)
		assert_int_equal(snap(h, a, "x", ""), 0);
}

static void have_warm_list(struct host *h, struct ask *a)
{
	have_x(h, a);
	memcpy(h->image_warm, "ls", h->n_warm = 3);
	memcpy(h->image_interpreters, "python=1", h->n_interpreters = 9);
}

#define TEXT(text) {text, sizeof(text) - 1}

static const struct verb verbs[] = {
	{.name = "snapshot", .prepare = have_x, .method = METHOD_SNAPSHOT_CREATE,
	 .rec.snapshot = {.sandbox = TEXT("x"), .name = TEXT("t")}, .before = "running"},
	{.name = "snapshot of many layers", .prepare = have_all_layers, .method = METHOD_SNAPSHOT_CREATE,
	 .rec.snapshot = {.sandbox = TEXT("x"), .name = TEXT("t")}, .before = "running"},
	{.name = "fork", .prepare = have_x, .method = METHOD_SANDBOX_FORK,
	 .rec.fork = {.sandbox = TEXT("x"), .name = TEXT("y"), .count = 2}, .before = "running"},
	{.name = "pause", .prepare = have_x, .method = METHOD_SANDBOX_PAUSE, .rec.ref = {.sandbox = TEXT("x")},
	 .before = "running"},
	{.name = "resume", .prepare = have_paused, .method = METHOD_SANDBOX_RESUME,
	 .rec.ref = {.sandbox = TEXT("x")}, .before = "paused"},
	{.name = "rollback", .prepare = have_snapshot, .method = METHOD_SANDBOX_ROLLBACK,
	 .rec.rollback = {.sandbox = TEXT("x"), .snapshot = TEXT("s")}, .before = "running",
	 .is_rollback = true},
	{.name = "rollback of a paused one", .prepare = have_paused_snapshot, .method = METHOD_SANDBOX_ROLLBACK,
	 .rec.rollback = {.sandbox = TEXT("x"), .snapshot = TEXT("s")}, .before = "paused",
	 .is_rollback = true},
	{.name = "create from a snapshot", .prepare = have_snapshot, .method = METHOD_SANDBOX_CREATE,
	 .rec.create = {.name = TEXT("y"), .snapshot = TEXT("s")}, .before = "running",
	 .is_of_another = true},
	{.name = "create from its disk", .prepare = have_snapshot, .method = METHOD_SANDBOX_CREATE,
	 .rec.create = {.name = TEXT("y"), .snapshot = TEXT("s"), .disk_only = true}, .before = "running",
	 .is_of_another = true},
	{.name = "template", .prepare = have_warm_list, .method = METHOD_TEMPLATE_BUILD,
	 .rec.build = {.template = TEXT("base")}, .before = "running", .is_of_another = true},
};

/* What can go wrong in a step of it. */
struct fault {
	const char *name;
	enum { OF_AGENT, OF_DRIVER, OF_HOST } of;
	int part; /* offset of the agent's answer, a call of the driver, an operation of the host */
	int how;  /* enum answer, enum null_mode */
	uint64_t after_ns;
	bool is_layered;
	bool breaks; /* x does not survive it */
};

static const struct fault faults[] = {
	{"the freeze is busy", OF_AGENT, offsetof(struct rig, freeze), ANSWER_FAIL, 0, false, false},
	{"the agent goes at the freeze", OF_AGENT, offsetof(struct rig, freeze), ANSWER_HANGS_UP, 0, false, true},
	{"the thaw fails", OF_AGENT, offsetof(struct rig, thaw), ANSWER_FAIL, 0, false, true},
	{"the agent goes at the thaw", OF_AGENT, offsetof(struct rig, thaw), ANSWER_HANGS_UP, 0, false, true},
	{"programs fail", OF_AGENT, offsetof(struct rig, programs), ANSWER_FAIL, 0, false, false},
	{"the agent goes at a program", OF_AGENT, offsetof(struct rig, programs), ANSWER_HANGS_UP, 0, false, true},
	{"the preparation is refused", OF_DRIVER, NULL_PREPARE, NULL_REFUSE, 0, false, false},
	{"the preparation fails", OF_DRIVER, NULL_PREPARE, NULL_FAIL, 0, false, false},
	{"the preparation fails late", OF_DRIVER, NULL_PREPARE, NULL_FAIL, 30 * NS_PER_MS, false, false},
	{"the preparation comes late", OF_DRIVER, NULL_PREPARE, NULL_OK, 30 * NS_PER_MS, false, false},
	{"the copy is refused", OF_DRIVER, NULL_CAPTURE, NULL_REFUSE, 0, false, false},
	{"the copy fails", OF_DRIVER, NULL_CAPTURE, NULL_FAIL, 0, false, false},
	{"the copy fails late", OF_DRIVER, NULL_CAPTURE, NULL_FAIL, 30 * NS_PER_MS, false, false},
	{"the copy fails on its new layer", OF_DRIVER, NULL_CAPTURE, NULL_FAIL, 0, true, false},
	{"the copy comes late", OF_DRIVER, NULL_CAPTURE, NULL_OK, 30 * NS_PER_MS, false, false},
	{"the merge is refused", OF_DRIVER, NULL_FLATTEN, NULL_REFUSE, 0, false, false},
	{"the merge fails", OF_DRIVER, NULL_FLATTEN, NULL_FAIL, 30 * NS_PER_MS, false, false},
	{"going on is refused", OF_DRIVER, NULL_RESUME, NULL_REFUSE, 0, false, true},
	{"going on fails", OF_DRIVER, NULL_RESUME, NULL_FAIL, 30 * NS_PER_MS, false, true},
	{"the create is refused", OF_DRIVER, NULL_CREATE, NULL_REFUSE, 0, false, false},
	{"the start is refused", OF_DRIVER, NULL_START, NULL_REFUSE, 0, false, false},
	{"the start fails", OF_DRIVER, NULL_START, NULL_FAIL, 30 * NS_PER_MS, false, false},
	{"the load is refused", OF_DRIVER, NULL_LOAD, NULL_REFUSE, 0, false, false},
	{"the load fails", OF_DRIVER, NULL_LOAD, NULL_FAIL, 30 * NS_PER_MS, false, false},
	{"the image is gone", OF_HOST, HOST_IMAGE, 0, 0, false, false},
	{"there is no disk", OF_HOST, HOST_DISK_MAKE, 0, 0, false, false},
	{"the disk can't be opened", OF_HOST, HOST_OPEN, 0, 0, false, false},
	{"a layer can't be added", OF_HOST, HOST_ADD, 0, 0, false, false},
	{"layers can't be merged", OF_HOST, HOST_FLATTEN, 0, 0, false, false},
	{"layers can't be sealed", OF_HOST, HOST_SEAL, 0, 0, false, false},
	{"layers can't be linked", OF_HOST, HOST_LINK, 0, 0, false, false},
	{"the disk can't be put back", OF_HOST, HOST_ROLLBACK, 0, 0, false, false},
	{"a set can't be saved", OF_HOST, HOST_SAVE, 0, 0, false, false},
	{"a set can't be loaded", OF_HOST, HOST_LOAD, 0, 0, false, false},
	{"a set can't be removed", OF_HOST, HOST_REMOVE, 0, 0, false, false},
};

static void inject(struct host *h, const struct fault *f)
{
	if (f->of == OF_AGENT)
		*(enum answer *)(void *)((char *)&h->rig + f->part) = (enum answer)f->how;
	else if (f->of == OF_DRIVER)
		h->rig.script.steps[f->part] =
			(struct null_step){(enum null_mode)f->how, f->after_ns, {ERR_LIMIT, "no room"}};
	else
		h->fails[f->part] = ERR_LIMIT;
	h->copy_is_layered = f->is_layered;
}

static void repair(struct host *h)
{
	h->rig.freeze = h->rig.thaw = h->rig.programs = ANSWER_OK;
	memset(h->rig.script.steps, 0, sizeof(h->rig.script.steps));
	for (unsigned i = 0; i < HOST_OPS; i++) {
		h->fails[i] = 0;
		h->blocks[i] = false;
	}
	h->copy_is_layered = false;
}

static bool is_on_its_way(struct host *h, struct ask *a)
{
	struct rec_sandbox_info box;

	assert_int_equal(call(h, a, METHOD_SANDBOX_LIST, &(struct rec_empty){0}), 0);
	for (size_t at = 0; at < a->items.len;) {
		at += (size_t)rec_item_next(&rec_sandbox_info_type, a->items.p + at, a->items.len - at, &box, NULL);
		if (span_is(box.state, "stopping") || span_is(box.state, "creating"))
			return true;
	}
	return false;
}

/* In a rollback it may end paused without a memory: then it says so, and can be rolled back again. */
static void may_need_rollback(struct host *h, struct ask *a, const struct verb *v)
{
	struct rec_sandbox_info x = sandbox(h, a, "x");

	if (!v->is_rollback || !span_is(x.state, "paused") || on_sandbox(h, a, METHOD_SANDBOX_RESUME, "x") == 0)
		return;
	assert_int_equal(a->why.code, ERR_NOT_FOUND);
	assert_non_null(strstr(a->why.text, "roll it back again"));
	assert_int_equal(rollback(h, a, "x", "s"), 0);
}

/* What failed beside the answer has its effect, and nothing is on its way any more. */
static void settle(struct host *h, struct ask *a)
{
	for (unsigned i = 0; i < 12; i++) {
		rig_turns(&h->rig, 1);
		loop_advance(h->rig.loop, ENGINE_GONE_WAIT_MS / 8 * NS_PER_MS);
	}
	for (unsigned i = 0; i < MANY_TURNS && is_on_its_way(h, a); i++)
		assert_int_equal(loop_turn(h->rig.loop, 1), 0);
}

/* What the verb has made runs, if it said that all is well. */
static void result_is_usable(struct host *h, struct ask *a, const struct verb *v)
{
	if (v->method == METHOD_SANDBOX_CREATE)
		is_usable(h, a, "y");
	if (v->method == METHOD_SANDBOX_FORK)
		is_usable(h, a, "y-2");
	if (v->method == METHOD_SNAPSHOT_CREATE)
		assert_int_equal(from_snap(h, a, "t", "from-it", false), 0);
}

/* Nothing runs but x. */
static void only_x_is_left(struct host *h, struct ask *a)
{
	struct rec_sandbox_info box;

	assert_int_equal(call(h, a, METHOD_SANDBOX_LIST, &(struct rec_empty){0}), 0);
	for (size_t at = 0; at < a->items.len;) {
		at += (size_t)rec_item_next(&rec_sandbox_info_type, a->items.p + at, a->items.len - at, &box, NULL);
		if (!span_is(box.name, "x") && !span_is(box.state, "failed"))
			fail_msg("%.*s is left, and %.*s", (int)box.name.n, box.name.p, (int)box.state.n, box.state.p);
	}
}

/* How often that which @f makes fail was asked for. */
static unsigned met(struct host *h, const struct fault *f)
{
	const struct rig *r = &h->rig;

	if (f->of == OF_AGENT && f->part == offsetof(struct rig, freeze))
		return r->froze;
	if (f->of == OF_AGENT)
		return f->part == offsetof(struct rig, thaw) ? r->thawed : r->started;
	return f->of == OF_DRIVER ? r->script.seen[f->part] : h->calls[f->part];
}

/* @second: something else that goes wrong, too; NULL: nothing. Return: whether the fault was met. */
static bool one_fault(const struct verb *v, const struct fault *f, const struct fault *second)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_sandbox_info x;
	unsigned promised, before;
	bool was_met;
	int got;

	v->prepare(h, a);
	before = met(h, f);
	promised = (unsigned)rig_info(&h->rig).memory_promised_mb;
	inject(h, f);
	if (second)
		inject(h, second);
	got = call(h, a, v->method, &v->rec);
	was_met = met(h, f) > before;
	repair(h);
	settle(h, a);
	if (got < 0 || v->method == METHOD_TEMPLATE_BUILD)
		only_x_is_left(h, a);
	x = sandbox(h, a, "x");
	if (got == 0 && !span_is(x.state, "failed"))
		result_is_usable(h, a, v);
	else if (span_is(x.state, v->before))
		assert_int_equal(rig_info(&h->rig).memory_promised_mb, promised);
	if (!span_is(x.state, "failed")) {
		may_need_rollback(h, a, v);
		is_usable(h, a, "x");
	} else if (v->is_of_another || (!f->breaks && (!second || !second->breaks))) {
		fail_msg("%s: %s: x failed: %.*s", v->name, f->name, (int)x.reason.n, x.reason.p);
	}
	end(h, a);
	if (got < 0 && !was_met && !second)
		fail_msg("%s: %s: it failed without: %s", v->name, f->name, a->why.text);
	return was_met;
}

static bool is_hot(struct host *h)
{
	return host_sets(h) == 1 && rig_info(&h->rig).sandboxes == 1;
}

static bool is_being_made_hot(struct host *h)
{
	return rig_info(&h->rig).sandboxes == 2;
}

static bool is_alone(struct host *h)
{
	return rig_info(&h->rig).sandboxes == 1;
}

static struct host *up_and_heating(void)
{
	struct host *h = host_new();

	h->rig.config.heats = true;
	rig_up(&h->rig);
	return h;
}

static void what_had_to_boot_is_made_hot(void **state)
{
	struct host *h = up_and_heating();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(make(h, a, &(struct rec_sandbox_create){.name = span_of("x"), .cold = true}), 0);
	pass(h, 1000);
	assert_true(is_alone(h)); /* it was asked to boot */
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_int_equal(make(h, a, &(struct rec_sandbox_create){.name = span_of("x"), .memory_mb = 300}), 0);
	pass(h, 1000);
	assert_true(is_alone(h)); /* another size than the template's, for the first time */
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_true(span_is(sandbox(h, a, "x").path, "boot"));
	assert_true(until(h, is_hot));
	assert_int_equal(make_named(h, a, "y"), 0);
	assert_true(span_is(sandbox(h, a, "y").path, "fork"));
	end(h, a);
}

static void another_size_is_made_hot_when_it_comes_again(void **state)
{
	const struct rec_sandbox_create wide = {.name = span_of("x"), .memory_mb = 300};
	struct host *h = up_and_heating();
	struct ask *a = ask_new();

	T_UNUSED(state);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(host_sets(h), 0);
		assert_int_equal(make(h, a, &wide), 0);
		assert_true(span_is(sandbox(h, a, "x").path, "boot"));
		if (i == 0)
			pass(h, 1000);
		else
			assert_true(until(h, is_hot));
		assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	}
	assert_int_equal(make(h, a, &wide), 0);
	assert_true(span_is(sandbox(h, a, "x").path, "fork"));
	end(h, a);
}

static void what_cant_be_made_hot_is_tried_once(void **state)
{
	struct host *h = up_and_heating();
	struct ask *a = ask_new();

	T_UNUSED(state);
	memcpy(h->image_warm, "ls", h->n_warm = 3);
	h->rig.programs_status = 3;
	assert_int_equal(make_named(h, a, "x"), 0);
	assert_true(until(h, is_being_made_hot));
	assert_true(until(h, is_alone));
	h->rig.programs_status = 0;
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_int_equal(make_named(h, a, "x"), 0);
	pass(h, 1000);
	assert_true(is_alone(h));
	assert_int_equal(host_sets(h), 0);
	end(h, a);
}

static void a_template_whose_warming_fails_is_none(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();

	T_UNUSED(state);
	have_warm_list(h, a);
	h->rig.programs = ANSWER_OK;
	h->rig.programs_status = 3;
	assert_int_equal(build(h, a), -ERR_INVALID);
	assert_string_equal(a->why.text, "warm: ls: it ended with status 3");
	assert_int_equal(snapshots(h, a, NULL), 0);
	h->rig.programs_status = 0;
	assert_int_equal(build(h, a), 0);
	end(h, a);
}

static bool has_one_set(struct host *h)
{
	return host_sets(h) == 1;
}

static bool warms(struct host *h)
{
	for (unsigned i = 0; i < h->rig.n_agents; i++)
		if (h->rig.agents[i].owed)
			return true;
	return false;
}

/* Its program's stream ends without a word when the link is let go of. */
static void a_template_whose_builder_is_removed_is_none(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new(), *x = ask_new();
	struct rec_sandbox_info builder;
	char text[ID_TEXT];

	T_UNUSED(state);
	have_warm_list(h, a);
	h->rig.programs = ANSWER_NEVER;
	ask_start(&h->rig, x, METHOD_TEMPLATE_BUILD, &(struct rec_template_build){.template = span_of("base")}, false);
	assert_true(until(h, warms));
	assert_int_equal(sandboxes(h, a, &builder), 2);
	id_format(&builder.id, text);
	assert_int_equal(on_sandbox(h, a, METHOD_SANDBOX_REMOVE, text), 0);
	assert_true(rig_until(&h->rig, &x->done));
	assert_int_not_equal(x->why.code, 0);
	h->rig.programs = ANSWER_OK;
	ask_free(x);
	end(h, a);
}

static void of_two_hot_templates_the_newer_stays(void **state)
{
	struct host *h = up();
	struct ask *a = ask_new();
	struct rec_snapshot_info newer, left;

	T_UNUSED(state);
	assert_int_equal(build(h, a), 0);
	pass(h, 1000);
	h->fails[HOST_REMOVE] = ERR_INTERNAL; /* as if the daemon died before it got to that */
	assert_int_equal(build(h, a), 0);
	ask_decode(a, METHOD_TEMPLATE_BUILD, &newer);
	assert_int_equal(host_sets(h), 2);
	host_crash(h, false);
	h->fails[HOST_REMOVE] = 0;
	rig_up(&h->rig);
	assert_true(until(h, has_one_set));
	assert_int_equal(snapshots(h, a, &left), 1);
	assert_true(id_eq(&left.id, &newer.id));
	end(h, a);
}

/* Which case it was. */
#define say(...) (getenv("T_SAY") ? print_message(__VA_ARGS__) : (void)0)

static void any_step_may_fail(void **state)
{
	bool was_met[ARRAY_LEN(faults)] = {false};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		for (size_t k = 0; k < ARRAY_LEN(faults); k++) {
			say("%s: %s\n", verbs[i].name, faults[k].name);
			was_met[k] |= one_fault(&verbs[i], &faults[k], NULL);
		}
	for (size_t k = 0; k < ARRAY_LEN(faults); k++)
		if (!was_met[k])
			fail_msg("no verb meets this: %s", faults[k].name);
}

static void going_back_may_fail_too(void **state)
{
	static const struct fault unsaved = {"a set can't be saved", OF_HOST, HOST_SAVE, 0, 0, false, false};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		for (size_t k = 0; verbs[i].method == METHOD_SANDBOX_PAUSE && k < ARRAY_LEN(faults); k++) {
			say("%s: %s, and %s\n", verbs[i].name, unsaved.name, faults[k].name);
			(void)one_fault(&verbs[i], &unsaved, &faults[k]);
		}
}

T_MAIN(T(a_snapshot_is_kept_listed_and_removed), T(sandboxes_start_from_a_snapshot),
       T(a_snapshot_has_the_shape_of_its_sandbox), T(names_of_snapshots_are_checked),
       T(one_name_is_given_once_even_at_the_same_time), T(a_snapshot_is_deleted_in_its_time),
       T(retention_outlives_daemons_and_failures), T(a_removal_that_fails_leaves_it_usable),
       T(another_tenants_are_not_there), T(forks_run_beside_their_source), T(a_disk_has_so_many_layers),
       T(forks_that_do_not_fit_are_none), T(ephemeral_forks_go_with_nobody),
       T(a_pause_gives_memory_back_and_goes_on), T(a_copy_is_use),
       T(sets_leave_workers_to_sandboxes), T(memory_beyond_the_budget_goes_when_nobody_uses_it),
       T(a_pause_stops_the_idle_clock_not_the_other), T(a_pause_ends_what_runs_on_the_link),
       T(programs_run_while_a_copy_is_prepared), T(a_sandbox_may_go_while_a_copy_is_prepared),
       T(a_guest_that_does_not_answer), T(a_thaw_waits_for_room), T(a_resume_needs_its_memory),
       T(a_merge_that_nobody_noted), T(one_that_is_parked_can_be_removed), T(a_paused_one_can_be_removed),
       T(a_paused_one_outlives_the_daemon), T(a_pause_that_is_lost_leaves_a_disk_to_roll_back),
       T(a_pause_that_is_lost_puts_nothing_back), T(a_rollback_puts_it_back),
       T(a_rollback_is_to_ones_own_snapshots), T(a_paused_one_can_be_rolled_back),
       T(a_rollback_that_fails_late_is_never_a_mixture), T(a_template_whose_warming_fails_is_none),
       T(a_template_whose_builder_is_removed_is_none), T(of_two_hot_templates_the_newer_stays),
       T(what_had_to_boot_is_made_hot), T(another_size_is_made_hot_when_it_comes_again),
       T(what_cant_be_made_hot_is_tried_once), T(any_step_may_fail),
       T(going_back_may_fail_too))
