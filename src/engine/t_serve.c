/* engine/t_serve.c - the clients' side: names, requests, deadlines, holds, relays, events, adoption */
#include <sys/resource.h>
#include "engine/engine.h"
#include "engine/engine_int.h"
#include "engine/event.h"
#include "engine/t_rig.h"
#include "wire/gen/events.h"

static struct rig *rig_new(void)
{
	struct rig *r = malloc(sizeof(*r));

	rig_begin(r);
	rig_up(r);
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

static void make(struct rig *r, const struct rec_sandbox_create *rec)
{
	struct ask *a = ask_new();
	struct rec_sandbox_info info;

	assert_int_equal(rig_create(r, a, rec, &info), 0);
	free(a);
}

static void make_named(struct rig *r, const char *name)
{
	make(r, &(struct rec_sandbox_create){.name = span_of(name)});
}

static int state_is(struct rig *r, const char *name, const char *state)
{
	struct ask *a = ask_new();
	struct rec_sandbox_info info;
	int got = rig_ref(r, a, METHOD_SANDBOX_INFO, name);

	if (got == 0) {
		ask_decode(a, METHOD_SANDBOX_INFO, &info);
		got = span_is(info.state, state);
	}
	free(a);
	return got;
}

/* ---- admission ---- */

static void names_are_unique(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make_named(r, "web");
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.name = span_of("web")}),
			 -ERR_CONFLICT);
	assert_non_null(strstr(a->why.text, "web"));
	assert_int_equal(rig_info(r).sandboxes, 1);
	free(a);
	rig_free(r);
}

static void a_failed_name_is_free_again(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	r->mode = AGENT_REFUSES;
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.name = span_of("web")}),
			 -ERR_INTERNAL);
	assert_int_equal(state_is(r, "web", "failed"), 1); /* the reason can be looked up */
	r->mode = AGENT_GOOD;
	make_named(r, "web");
	assert_int_equal(state_is(r, "web", "running"), 1);
	free(a);
	rig_free(r);
}

static void a_repeated_request_gets_the_first_answer(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new(), *b = ask_new();
	struct rec_sandbox_create rec = {.request_id = span_of("req-1")};
	struct rec_sandbox_info one, two;

	T_UNUSED(state);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false); /* two at once */
	assert_int_equal(rig_create(r, b, &rec, &two), 0);
	assert_true(rig_until(r, &a->done));
	ask_decode(a, METHOD_SANDBOX_CREATE, &one);
	assert_true(id_eq(&one.id, &two.id));
	assert_int_equal(rig_create(r, b, &rec, &two), 0); /* and later */
	assert_true(id_eq(&one.id, &two.id));
	assert_int_equal(r->n_agents, 1);
	rec.name = span_of("other");
	assert_int_equal(rig_create(r, b, &rec, &two), -ERR_CONFLICT);
	rec = (struct rec_sandbox_create){.request_id = span_of("req-2")};
	r->mode = AGENT_REFUSES; /* failures are answers too */
	assert_int_equal(rig_create(r, b, &rec, &two), -ERR_INTERNAL);
	r->mode = AGENT_GOOD;
	assert_int_equal(rig_create(r, b, &rec, &two), -ERR_INTERNAL);
	free(a);
	free(b);
	rig_free(r);
}

static void memory_beyond_the_budget_is_refused(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_create big = {.memory_mb = 600};

	T_UNUSED(state);
	make(r, &big);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &big), -ERR_LIMIT);
	assert_non_null(strstr(a->why.text, "600 of 1024"));
	make(r, &(struct rec_sandbox_create){.memory_mb = 424});
	assert_int_equal(rig_info(r).memory_promised_mb, 1024);
	assert_int_equal(rig_info(r).sandboxes, 2); /* the refused one left no record */
	free(a);
	rig_free(r);
}

static void bad_requests_name_field_and_limit(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.memory_mb = 100}),
			 -ERR_LIMIT);
	assert_non_null(strstr(a->why.text, "memory"));
	assert_non_null(strstr(a->why.text, "128"));
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.name = span_of("a/b")}),
			 -ERR_INVALID);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE,
			     &(struct rec_sandbox_create){.isolation = span_of("process")}),
			 -ERR_UNSUPPORTED);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, "nobody"), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "nobody"), -ERR_NOT_FOUND);
	assert_int_equal(rig_ref(r, a, METHOD_GUEST_PING, "nobody"), -ERR_NOT_FOUND);
	ask_start(r, a, METHOD_GUEST_SETUP, &(struct rec_guest_setup){0}, false); /* the engine's alone */
	assert_true(rig_until(r, &a->done));
	assert_int_equal(a->why.code, ERR_UNSUPPORTED);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void strangers_are_told_so(void **state)
{
	static const struct link_ops ops = {0};
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct link *mine = r->client;
	int pair[2];

	T_UNUSED(state);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(engine_serve(r->engine, pair[0], RIG_UID + 1, NULL), 0);
	assert_int_equal(link_new(r->loop, pair[1], LINK_INITIATOR | LINK_SOCKET, 1, &ops, r, &r->client, NULL), 0);
	rig_turns(r, 10);
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), -ERR_DENIED);
	assert_non_null(strstr(a->why.text, "1001"));
	link_free(r->client);
	r->client = mine;
	free(a);
	rig_free(r);
}

/* Who comes when all places are taken hears the limit, and is served when somebody left. */
static void one_too_many_is_told_so(void **state)
{
	struct link *others[ENGINE_CLIENTS_MAX], *last;
	struct rlimit files;
	struct rig *r;
	struct ask *a;

	T_UNUSED(state);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	if (files.rlim_max < 3 * ENGINE_CLIENTS_MAX || setrlimit(RLIMIT_NOFILE, &files) < 0)
		skip();
	r = rig_new();
	a = ask_new();
	for (int i = 0; i < ENGINE_CLIENTS_MAX; i++) {
		others[i] = r->client;
		rig_connect(r);
	}
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), -ERR_LIMIT);
	assert_non_null(strstr(a->why.text, "512"));
	last = r->client;
	r->client = others[0];
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0);
	link_free(others[0]);
	rig_turns(r, 10);
	r->client = last;
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0);
	for (int i = 1; i < ENGINE_CLIENTS_MAX; i++)
		link_free(others[i]);
	free(a);
	rig_free(r);
}

/* Connections that say nothing hold their places for a while only; clients that do nothing keep theirs. */
static void silent_ones_make_room(void **state)
{
	enum { SILENT = ENGINE_CLIENTS_MAX + ENGINE_CLIENTS_SPARE };
	static int ends[SILENT][2];
	struct link *idle;
	struct rlimit files;
	struct rig *r;
	struct ask *a;

	T_UNUSED(state);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
	files.rlim_cur = files.rlim_max;
	if (files.rlim_max < 3 * SILENT || setrlimit(RLIMIT_NOFILE, &files) < 0)
		skip();
	r = rig_new();
	a = ask_new();
	idle = r->client;
	for (int i = 0; i < SILENT; i++) {
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends[i]), 0);
		assert_int_equal(engine_serve(r->engine, ends[i][0], RIG_UID, NULL), i < SILENT - 1 ? 0 : -ERR_LIMIT);
	}
	assert_int_equal(write(ends[0][1], "half a greeting", 15), 15);
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0); /* it was here before */
	loop_advance(r->loop, (ENGINE_SILENT_MS - 1000) * NS_PER_MS);
	assert_int_equal(read(ends[0][1], (char[1]){0}, 1), -1);
	assert_int_equal(errno, EAGAIN);
	loop_advance(r->loop, 2000 * NS_PER_MS);
	for (int i = 0; i < SILENT; i++)
		assert_int_equal(read(ends[i][1], (char[1]){0}, 1), 0);
	rig_connect(r);
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0);
	link_free(r->client);
	r->client = idle;
	loop_advance(r->loop, 100 * ENGINE_SILENT_MS * NS_PER_MS);
	assert_int_equal(ask(r, a, METHOD_DAEMON_INFO, &(struct rec_empty){0}), 0);
	for (int i = 0; i < SILENT; i++)
		(void)close(ends[i][1]);
	free(a);
	rig_free(r);
}

/* ---- deadlines ---- */

static void idle_ones_expire_and_used_ones_do_not(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .idle_timeout_ms = 60000});
	loop_advance(r->loop, 50000 * NS_PER_MS);
	ask_start(r, a, METHOD_GUEST_PING, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false); /* use */
	rig_turns(r, 10);
	assert_non_null(r->agents[0].call);
	loop_advance(r->loop, 100000 * NS_PER_MS); /* the call goes on: still in use */
	assert_int_equal(state_is(r, "x", "running"), 1);
	assert_int_equal(stream_reply(r->agents[0].call, &rec_guest_health_type,
				      &(struct rec_guest_health){.sessions = 1}, false, NULL, 0, NULL), 0);
	assert_true(rig_until(r, &a->done));
	assert_int_equal(a->why.code, 0);
	loop_advance(r->loop, 59000 * NS_PER_MS);
	assert_int_equal(state_is(r, "x", "running"), 1);
	loop_advance(r->loop, 2000 * NS_PER_MS);
	rig_turns(r, 50);
	for (int i = 0; i < 50; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void lifetimes_end_whatever_goes_on(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .lifetime_ms = 60000});
	ask_start(r, a, METHOD_GUEST_PING, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
	rig_turns(r, 10);
	loop_advance(r->loop, 61000 * NS_PER_MS);
	assert_true(rig_until(r, &a->done));
	assert_int_equal(a->why.code, ERR_TIMEOUT);
	assert_non_null(strstr(a->why.text, "lifetime"));
	for (int i = 0; i < 50; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void failures_are_forgotten_after_a_while(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	r->mode = AGENT_REFUSES;
	assert_int_equal(ask(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.name = span_of("x")}),
			 -ERR_INTERNAL);
	rig_crash(r); /* and they outlive the daemon */
	rig_up(r);
	assert_int_equal(state_is(r, "x", "failed"), 1);
	loop_advance(r->loop, (ENGINE_FAILED_MS + 1000) * NS_PER_MS);
	assert_int_equal(state_is(r, "x", "failed"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void info_of(struct rig *r, const char *name, struct rec_sandbox_info *ret, struct ask *a)
{
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_INFO, name), 0);
	ask_decode(a, METHOD_SANDBOX_INFO, ret);
}

/* Half an interval more than @ms each time, so that what is due in between comes in its order. */
static void pass_time(struct rig *r, uint64_t ms)
{
	for (uint64_t done = 0; done < ms; done += ENGINE_PING_MS / 2) {
		loop_advance(r->loop, ENGINE_PING_MS / 2 * NS_PER_MS);
		rig_turns(r, 10);
	}
}

static void a_program_that_nobody_follows_is_use(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .idle_timeout_ms = 60000});
	r->programs_left = 1;
	pass_time(r, 300000);
	assert_int_equal(state_is(r, "x", "running"), 1);
	assert_true(r->n_pings >= 4);
	r->programs_left = 0;
	pass_time(r, 61000);
	for (int i = 0; i < 50; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	rig_free(r);
}

static void an_idle_guest_is_not_woken(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	make_named(r, "x");
	pass_time(r, 600000);
	assert_int_equal(r->n_pings, 0); /* HEALTH-1 */
	rig_free(r);
}

static void without_an_idle_timeout_it_stays(void **state)
{
	struct rec_sandbox_create rec = {.name = span_of("x"), .idle_never = true};
	struct rec_sandbox_info info;
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make(r, &rec);
	info_of(r, "x", &info, a);
	assert_int_equal(info.idle_deadline_ms, 0);
	loop_advance(r->loop, 40 * (uint64_t)86400000 * NS_PER_MS);
	rig_turns(r, 50);
	assert_int_equal(state_is(r, "x", "running"), 1);
	rig_crash(r); /* the next daemon knows, too */
	rig_up(r);
	loop_advance(r->loop, 40 * (uint64_t)86400000 * NS_PER_MS);
	rig_turns(r, 50);
	assert_int_equal(state_is(r, "x", "running"), 1);
	free(a);
	rig_free(r);
}

/* ---- guests that do not answer ---- */

static struct agent_double *start_exec(struct rig *r, struct ask *x);
static void settle(struct rig *r);

static void start_timed(struct rig *r, struct ask *x, uint64_t timeout_ms)
{
	struct rec_exec_start rec = {.sandbox = span_of("x"), .command = span_of("cat"), .timeout_ms = timeout_ms};

	ask_start(r, x, METHOD_EXEC_START, &rec, false);
	rig_turns(r, 20);
	assert_false(x->done);
}

static void a_silent_guest_loses_its_calls_and_is_unhealthy(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new(), *a = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .idle_timeout_ms = 300000});
	r->pings = ANSWER_NEVER;
	start_timed(r, x, 0);
	pass_time(r, 2 * ENGINE_PING_MS);
	info_of(r, "x", &info, a);
	assert_false(x->done); /* not yet: it may be slow */
	assert_int_equal(info.unhealthy_since_ms, 0);
	pass_time(r, 3 * ENGINE_PING_MS);
	assert_true(x->done);
	assert_int_equal(x->why.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(x->why.text, "sandbox x is unhealthy"));
	info_of(r, "x", &info, a);
	assert_true(info.unhealthy_since_ms > 0 && info.unhealthy_since_ms < loop_unix_ms(r->loop));
	assert_true(span_is(info.state, "running") && info.unhealthy.n);
	/* New calls and copies are refused at once, and are not use. */
	assert_int_equal(rig_ref(r, a, METHOD_GUEST_PROCESSES, "x"), -ERR_UNAVAILABLE);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_PAUSE, "x"), -ERR_UNAVAILABLE);
	pass_time(r, 310000);
	settle(r);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND); /* its idle timeout came */
	rig_is_clean(r);
	free(x);
	free(a);
	rig_free(r);
}

static void a_guest_that_answers_late_is_healthy_again(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new(), *a = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	make_named(r, "x");
	r->pings = ANSWER_NEVER;
	start_timed(r, x, 0);
	pass_time(r, 5 * ENGINE_PING_MS);
	assert_true(x->done);
	assert_non_null(r->agents[0].owed);
	assert_int_equal(stream_reply(r->agents[0].owed, &rec_guest_health_type, &(struct rec_guest_health){0}, false,
				      NULL, 0, NULL), 0);
	rig_turns(r, 20);
	info_of(r, "x", &info, a);
	assert_int_equal(info.unhealthy_since_ms, 0);
	r->pings = ANSWER_OK;
	start_timed(r, x, 0);
	pass_time(r, 100 * ENGINE_PING_MS);
	assert_false(x->done); /* it says nothing but that it lives: its calls go on */
	free(x);
	free(a);
	rig_free(r);
}

static void a_time_limit_holds_whatever_the_guest_does(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();

	T_UNUSED(state);
	make_named(r, "x"); /* it answers pings, and lets the program run on */
	start_timed(r, x, 3000);
	loop_advance(r->loop, (3000 + ENGINE_LATE_MS - 1) * NS_PER_MS);
	rig_turns(r, 20);
	assert_false(x->done);
	loop_advance(r->loop, NS_PER_MS);
	rig_turns(r, 20);
	assert_true(x->done);
	assert_int_equal(x->why.code, ERR_TIMEOUT);
	assert_non_null(strstr(x->why.text, "sandbox x did not end the program"));
	free(x);
	rig_free(r);
}

static void a_silent_guest_can_be_removed(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new(), *a = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	r->pings = ANSWER_NEVER;
	start_timed(r, x, 0);
	pass_time(r, 5 * ENGINE_PING_MS);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	rig_is_clean(r);
	free(x);
	free(a);
	rig_free(r);
}

/* ---- what every method asks ---- */

static unsigned asked[512];

static int refuses(const struct policy_principal *who, unsigned method, struct err *e)
{
	asked[method]++;
	return err_set(e, ERR_DENIED, "%s may not", who->owner);
}

static void every_method_asks_policy(void **state)
{
	_Alignas(16) char rec[1024];
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	unsigned n = 0;

	T_UNUSED(state);
	make_named(r, "x");
	r->config.allows = refuses;
	for (unsigned m = 1; m < ARRAY_LEN(asked); m++) {
		const struct method_info *info = method_find(m);

		if (!info || !(info->to & METHOD_TO_DAEMON))
			continue;
		memset(rec, 0, sizeof(rec));
		for (size_t i = 0; i < info->request->n_fields; i++) { /* as little as passes the schema */
			const struct rec_field *f = &info->request->fields[i];

			if (f->type == REC_TEXT && f->required)
				*(struct span *)(void *)(rec + f->offset) = span_of("x");
			if (f->type == REC_U64 && (f->required || f->min))
				*(uint64_t *)(void *)(rec + f->offset) = MAX(f->min, (uint64_t)1);
		}
		ask_start(r, a, m, rec, false);
		assert_true(rig_until(r, &a->done));
		if (asked[m] != 1 || a->why.code != ERR_DENIED)
			fail_msg("%s: asked %u times, code %d, \"%s\"", info->name, asked[m], a->why.code, a->why.text);
		n++;
	}
	assert_true(n > 40);
	r->config.allows = NULL;
	assert_int_equal(state_is(r, "x", "running"), 1);
	free(a);
	rig_free(r);
}

static void a_fork_ends_in_time_after_a_restart_too(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .lifetime_ms = 3600000});
	rig_crash(r);
	rig_up(r);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_FORK,
			     &(struct rec_sandbox_fork){.sandbox = span_of("x"), .name = span_of("y")}), 0);
	info_of(r, "y", &info, a);
	assert_true(info.deadline_ms > loop_unix_ms(r->loop));
	free(a);
	rig_free(r);
}

/* ---- a workload that does not stand still at once ---- */

static void a_freeze_is_tried_again_for_longer(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	r->freeze = ANSWER_FAIL;
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_PAUSE, "x"), -ERR_BUSY);
	assert_int_equal(r->agents[0].freezes, 4);
	assert_int_equal(state_is(r, "x", "running"), 1);
	free(a);
	rig_free(r);
}

/* ---- a disk that can't be removed ---- */

static void a_disk_that_stays_is_told(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	r->disks_stay = true;
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), -ERR_INTERNAL);
	assert_non_null(strstr(a->why.text, "sandbox x"));
	assert_non_null(strstr(a->why.text, "the disk is read-only"));
	assert_int_equal(state_is(r, "x", "failed"), 1);
	rig_crash(r); /* the next daemon knows, too */
	rig_up(r);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), -ERR_INTERNAL);
	assert_int_equal(state_is(r, "x", "failed"), 1);
	r->disks_stay = false;
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_int_equal(state_is(r, "x", "failed"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

/* ---- ephemeral ones ---- */

static void hold(struct rig *r, struct ask *h, const char *name)
{
	ask_start(r, h, METHOD_SANDBOX_HOLD, &(struct rec_sandbox_ref){.sandbox = span_of(name)}, true);
	assert_true(rig_until(r, &h->replied));
}

static void settle(struct rig *r)
{
	for (int i = 0; i < 60; i++)
		assert_int_equal(loop_turn(r->loop, 1), 0);
}

static void ephemeral_ones_go_with_their_holder(void **state)
{
	struct rec_sandbox_create rec = {.name = span_of("x"), .ephemeral = true};
	struct rig *r = rig_new();
	struct ask *h = ask_new(), *h2 = ask_new();

	T_UNUSED(state);
	make(r, &rec);
	hold(r, h, "x");
	hold(r, h2, "x");
	loop_advance(r->loop, 2 * ENGINE_GRACE_MS * NS_PER_MS);
	assert_int_equal(state_is(r, "x", "running"), 1);
	stream_reset(h->stream);
	settle(r);
	assert_int_equal(state_is(r, "x", "running"), 1); /* one still holds it */
	stream_reset(h2->stream);
	settle(r);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(h);
	free(h2);
	rig_free(r);
}

static void a_create_stream_left_open_holds(void **state)
{
	struct rec_sandbox_create rec = {.name = span_of("x"), .ephemeral = true};
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, true);
	assert_true(rig_until(r, &a->replied));
	loop_advance(r->loop, 2 * ENGINE_GRACE_MS * NS_PER_MS);
	assert_int_equal(state_is(r, "x", "running"), 1);
	r->client = link_free(r->client); /* the client dies */
	settle(r);
	rig_connect(r);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(a);
	rig_free(r);
}

static void one_that_nobody_holds_goes_after_a_grace(void **state)
{
	struct rec_sandbox_create rec = {.name = span_of("x"), .ephemeral = true};
	struct rig *r = rig_new();
	struct ask *h = ask_new();

	T_UNUSED(state);
	make(r, &rec);
	rig_crash(r);
	rig_up(r);
	loop_advance(r->loop, (ENGINE_GRACE_MS - 5000) * NS_PER_MS);
	hold(r, h, "x"); /* its client came back in time */
	loop_advance(r->loop, 2 * ENGINE_GRACE_MS * NS_PER_MS);
	assert_int_equal(state_is(r, "x", "running"), 1);
	r->client = link_free(r->client);
	rig_crash(r); /* both die; the client for ever */
	rig_up(r);
	loop_advance(r->loop, (ENGINE_GRACE_MS + 5000) * NS_PER_MS);
	settle(r);
	assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
	rig_is_clean(r);
	free(h);
	rig_free(r);
}

static void a_dying_machine_tells_everybody_why(void **state)
{
	struct rec_sandbox_create rec = {.name = span_of("x")};
	struct err why = {ERR_GONE, "killed for memory"};
	struct rig *r = rig_new();
	struct ask *h = ask_new(), *p = ask_new();

	T_UNUSED(state);
	make(r, &rec);
	hold(r, h, "x");
	ask_start(r, p, METHOD_GUEST_PING, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
	rig_turns(r, 10);
	assert_int_equal(null_script_kill(&r->script, &r->agents[0].id, &why), 0);
	assert_true(rig_until(r, &h->done));
	assert_true(rig_until(r, &p->done));
	assert_non_null(strstr(h->why.text, "killed for memory"));
	assert_non_null(strstr(p->why.text, "killed for memory"));
	assert_int_equal(state_is(r, "x", "failed"), 1);
	rig_is_clean(r);
	free(h);
	free(p);
	rig_free(r);
}

/* ---- relays ---- */

static struct agent_double *start_exec(struct rig *r, struct ask *x)
{
	struct rec_exec_start rec = {.sandbox = span_of("x"), .command = span_of("cat"), .stdin = true};
	struct agent_double *a = &r->agents[r->n_agents - 1];

	ask_start(r, x, METHOD_EXEC_START, &rec, true);
	for (int i = 0; i < 50 && !a->call; i++)
		rig_turns(r, 1);
	assert_non_null(a->call);
	return a;
}

static void reply_started(struct agent_double *a)
{
	assert_int_equal(stream_reply(a->call, &rec_exec_started_type,
				      &(struct rec_exec_started){.session = 4, .pid = 12}, true, NULL, 0,
				      NULL), 0);
}

static void bytes_pass_both_ways_with_their_offsets(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();
	struct agent_double *a;

	T_UNUSED(state);
	make_named(r, "x");
	x->items = (struct str)STR_INIT(4096);
	a = start_exec(r, x);
	reply_started(a);
	stream_start_at(a->call, 1000);
	stream_push(a->call, "hello ", 6);
	stream_skip(a->call, 5000);
	stream_push(a->call, "world", 5);
	rig_turns(r, 10);
	assert_true(x->replied);
	assert_memory_equal(x->items.p, "hello world", 11);
	assert_int_equal(stream_send(x->stream, "input", 5), 5);
	stream_end(x->stream);
	rig_turns(r, 10);
	assert_int_equal(a->got, 5);
	stream_end(a->call);
	assert_true(rig_until(r, &x->done));
	assert_int_equal(x->why.code, 0);
	assert_true(a->call_over);
	str_deinit(&x->items);
	free(x);
	rig_free(r);
}

/* Credit is the client's: when it stops, the guest may send one window and not a byte more. */
static void a_stalled_client_stops_the_guest(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();
	struct agent_double *a;
	char *chunk = calloc(1, LIMIT_WINDOW);
	uint64_t sent = 0;

	T_UNUSED(state);
	make_named(r, "x");
	x->hold_back = true;
	a = start_exec(r, x);
	reply_started(a);
	for (int i = 0; i < 200; i++) {
		size_t n = stream_credit(a->call);

		stream_push(a->call, chunk, n);
		sent += n;
		rig_turns(r, 2);
	}
	assert_int_equal(sent, LIMIT_WINDOW);
	assert_int_equal(x->got, LIMIT_WINDOW);
	x->hold_back = false;
	stream_consumed(x->stream, LIMIT_WINDOW);
	for (int i = 0; i < 40; i++) {
		size_t n = stream_credit(a->call);

		stream_push(a->call, chunk, n);
		sent += n;
		rig_turns(r, 4);
	}
	assert_true(sent > 4 * LIMIT_WINDOW);
	stream_end(a->call);
	stream_end(x->stream);
	assert_true(rig_until(r, &x->done));
	assert_int_equal(x->got, sent);
	free(chunk);
	free(x);
	rig_free(r);
}

static void a_leaving_client_detaches(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();
	struct agent_double *a;

	T_UNUSED(state);
	make_named(r, "x");
	a = start_exec(r, x);
	reply_started(a);
	rig_turns(r, 5);
	r->client = link_free(r->client);
	rig_turns(r, 10);
	assert_true(a->call_over);
	rig_connect(r);
	assert_int_equal(state_is(r, "x", "running"), 1);
	free(x);
	rig_free(r);
}

static void a_guest_that_lies_ends_alone(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();
	struct agent_double *a;

	T_UNUSED(state);
	make_named(r, "other");
	make_named(r, "x");
	a = start_exec(r, x);
	stream_reply_raw(a->call, (struct span){"\1\0\10\0\0\0", 6}, true); /* ends inside a field */
	assert_true(rig_until(r, &x->done));
	assert_int_equal(x->why.code, ERR_INVALID);
	settle(r);
	assert_int_equal(state_is(r, "x", "failed"), 1);
	assert_int_equal(state_is(r, "other", "running"), 1);
	assert_int_equal(null_script_running(&r->script), 1);
	free(x);
	rig_free(r);
}

static void a_silent_end_of_the_link_is_noticed(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	start_exec(r, x);
	r->agents[0].link = link_free(r->agents[0].link); /* the agent dies, its machine does not */
	assert_true(rig_until(r, &x->done));
	assert_int_equal(x->why.code, ERR_GONE);
	settle(r);
	assert_int_equal(state_is(r, "x", "failed"), 1);
	rig_is_clean(r);
	free(x);
	rig_free(r);
}

static void an_empty_exec_is_denied(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	assert_int_equal(ask(r, x, METHOD_EXEC_START, &(struct rec_exec_start){.sandbox = span_of("x")}),
			 -ERR_INVALID);
	assert_null(r->agents[0].call);
	free(x);
	rig_free(r);
}

/* ---- adoption ---- */

static void what_runs_is_adopted_under_a_new_generation(void **state)
{
	struct rig *r = rig_new();
	struct ask *x = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	make(r, &(struct rec_sandbox_create){.name = span_of("x"), .metadata = {"a=b", 4}, .lifetime_ms = 3600000});
	assert_int_equal(r->agents[0].generation, 1);
	rig_crash(r);
	assert_int_equal(null_script_running(&r->script), 1);
	rig_up(r);
	assert_int_equal(r->agents[0].generation, 2);
	assert_int_equal(rig_ref(r, x, METHOD_SANDBOX_INFO, "x"), 0);
	ask_decode(x, METHOD_SANDBOX_INFO, &info);
	assert_true(span_is(info.state, "running"));
	assert_true(strv_count(info.stages) > 5);
	assert_int_equal(strv_count(info.metadata), 1);
	assert_true(info.deadline_ms > info.created_ms);
	rig_crash(r);
	rig_up(r);
	assert_int_equal(r->agents[0].generation, 3);
	start_exec(r, x);
	reply_started(&r->agents[0]);
	rig_turns(r, 5);
	assert_true(x->replied);
	free(x);
	rig_free(r);
}

static void a_machine_that_died_meanwhile_is_a_failure_with_reason(void **state)
{
	struct err why = {ERR_GONE, "crashed"};
	struct rig *r = rig_new();
	struct id id;

	T_UNUSED(state);
	make_named(r, "x");
	id = r->agents[0].id;
	rig_crash(r);
	assert_int_equal(null_script_kill(&r->script, &id, &why), 0);
	rig_up(r);
	assert_int_equal(state_is(r, "x", "failed"), 1);
	rig_is_clean(r);
	rig_free(r);
}

static void a_hanging_guest_does_not_hold_up_the_others(void **state)
{
	struct rig *r = rig_new();

	T_UNUSED(state);
	make_named(r, "good");
	make_named(r, "hangs");
	r->agents[1].link = link_free(r->agents[1].link);
	rig_crash(r);
	assert_int_equal(rig_start_engine(r, NULL), 0);
	settle(r);
	loop_advance(r->loop, (ENGINE_ADOPT_MS + 1000) * NS_PER_MS);
	assert_true(rig_until(r, &r->ready));
	rig_connect(r);
	assert_int_equal(state_is(r, "good", "running"), 1);
	assert_int_equal(state_is(r, "hangs", "failed"), 1);
	rig_free(r);
}

/* ---- a store that fails ---- */

static void any_failing_system_call_leaves_nothing(void **state)
{
	T_UNUSED(state);
	for (unsigned nth = 1, met = 1; met; nth++) {
		struct rig *r = rig_new();
		struct ask *a = ask_new();
		struct rec_sandbox_create rec = {.name = span_of("x"), .disk_mb = 64};

		ask_start(r, a, METHOD_SANDBOX_CREATE, &rec, false);
		sys_fault_arm(nth, -EIO);
		for (int i = 0; i < 200 && !a->done; i++) {
			(void)loop_turn(r->loop, 1);
			loop_advance(r->loop, 20 * NS_PER_MS);
		}
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		rig_until(r, &a->done);
		settle(r);
		r->client = link_free(r->client);
		rig_turns(r, 5);
		rig_connect(r);
		(void)rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x");
		loop_advance(r->loop, 5000 * NS_PER_MS);
		settle(r);
		rig_is_clean(r);
		free(a);
		rig_free(r);
		nth += nth / 8; /* denser at the start, where the steps are */
	}
}

/* ---- events ---- */

struct tale {
	char text[4096];
	uint64_t last;
};

static void tell(struct ask *a, struct tale *t)
{
	const char *p = a->items.p;
	size_t n = a->items.len;
	struct rec_event v;
	int used;

	while (n && (used = rec_item_next(&rec_event_type, p, n, &v, NULL)) > 0) {
		assert_true(v.seq > t->last);
		t->last = v.seq;
		(void)snprintf(t->text + strlen(t->text), sizeof(t->text) - strlen(t->text), "%.*s%s%.*s ",
			       (int)v.type.n, v.type.p, v.step.n ? ":" : "", (int)v.step.n,
			       v.step.p ? v.step.p : "");
		p += used;
		n -= (size_t)used;
	}
	str_clear(&a->items);
}

static void events_tell_the_story(void **state)
{
	struct rig *r = rig_new();
	struct ask *w = ask_new(), *a = ask_new();
	struct tale t = {{0}, 0};

	T_UNUSED(state);
	w->items = (struct str)STR_INIT(1 << 20);
	ask_start(r, w, METHOD_EVENT_WATCH, &(struct rec_event_watch){0}, false);
	rig_turns(r, 5);
	make_named(r, "x");
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	rig_turns(r, 5);
	tell(w, &t);
	assert_string_equal(t.text,
			    "sandbox_creating sandbox_step:image sandbox_step:promise sandbox_step:record "
			    "sandbox_step:load sandbox_step:disk sandbox_step:turn sandbox_step:machine "
			    "sandbox_step:state sandbox_step:go sandbox_step:link "
			    "sandbox_step:hello sandbox_step:setup sandbox_step:pool "
			    "sandbox_step:ready sandbox_ready sandbox_removed ");
	stream_reset(w->stream);
	rig_crash(r);
	rig_up(r); /* numbers go on growing */
	ask_start(r, w, METHOD_EVENT_WATCH, &(struct rec_event_watch){0}, false);
	rig_turns(r, 5);
	t.text[0] = '\0';
	make_named(r, "y");
	rig_turns(r, 5);
	tell(w, &t);
	assert_true(t.last > EVENTS_PER_EPOCH);
	str_deinit(&w->items);
	free(w);
	free(a);
	rig_free(r);
}

static void events_are_told_to_their_tenant_only(void **state)
{
	struct rig *r = rig_new();
	struct ask *w = ask_new();

	T_UNUSED(state);
	w->items = (struct str)STR_INIT(1 << 16);
	make_named(r, "x");
	events_add(r->engine->events, "other", EVENT_SANDBOX_READY, NULL, NULL, "not for you");
	ask_start(r, w, METHOD_EVENT_WATCH, &(struct rec_event_watch){.after = 1}, false);
	rig_turns(r, 20);
	assert_non_null(memmem(w->items.p, w->items.len, "default", 7));
	assert_non_null(memmem(w->items.p, w->items.len, EVENT_SANDBOX_READY, strlen(EVENT_SANDBOX_READY)));
	assert_null(memmem(w->items.p, w->items.len, "not for you", 11));
	str_deinit(&w->items);
	free(w);
	rig_free(r);
}

static void a_slow_watcher_sees_a_gap(void **state)
{
	struct rig *r = rig_new();
	struct events *ev = events_new(r->loop, 8, 3);

	T_UNUSED(state);
	assert_int_equal(events_last(ev), 0);
	for (int i = 0; i < 20; i++)
		events_add(ev, "default", EVENT_SANDBOX_READY, "id", NULL, "m");
	assert_int_equal(events_last(ev), 3 * EVENTS_PER_EPOCH + 20);
	events_free(ev);
	rig_free(r);
}

/* ---- questions to a driver that is slow ---- */

static void a_slow_usage_outlives_client_and_sandbox(void **state)
{
	struct rec_sandbox_ref ref = {.sandbox = span_of("x")};
	struct rig *r = rig_new();
	struct ask *a = ask_new(), *b = ask_new();
	struct rec_sandbox_info info;

	T_UNUSED(state);
	make_named(r, "x");
	r->script.steps[NULL_USAGE].mode = NULL_NEVER;
	ask_start(r, a, METHOD_SANDBOX_INFO, &ref, false);
	rig_turns(r, 10);
	assert_false(a->done);
	r->client = link_free(r->client); /* who asked goes away */
	rig_turns(r, 10);
	rig_connect(r);
	ask_start(r, b, METHOD_SANDBOX_INFO, &ref, false);
	rig_turns(r, 10);
	assert_int_equal(rig_ref(r, a, METHOD_SANDBOX_REMOVE, "x"), 0);
	assert_true(b->done); /* answered with what is known */
	assert_int_equal(b->why.code, 0);
	ask_decode(b, METHOD_SANDBOX_INFO, &info);
	assert_int_equal(info.memory_used_mb, 0);
	rig_is_clean(r);
	free(a);
	free(b);
	rig_free(r);
}

static void the_daemon_may_end_while_a_machine_is_destroyed(void **state)
{
	struct rec_sandbox_ref ref = {.sandbox = span_of("x")};

	T_UNUSED(state);
	for (int starting = 0; starting < 2; starting++) {
		struct rig *r = rig_new();
		struct ask *a = ask_new(), *b = ask_new();

		r->script.steps[NULL_DESTROY].after_ns = 50 * NS_PER_MS;
		r->script.steps[NULL_START].mode = starting ? NULL_NEVER : NULL_OK;
		ask_start(r, a, METHOD_SANDBOX_CREATE, &(struct rec_sandbox_create){.name = span_of("x")}, false);
		settle(r);
		assert_int_equal(a->done, !starting);
		ask_start(r, b, METHOD_SANDBOX_REMOVE, &ref, false);
		rig_turns(r, 10);
		assert_false(b->done);
		rig_crash(r);
		loop_advance(r->loop, 100 * NS_PER_MS); /* the driver answers to nobody */
		r->script.steps[NULL_START].mode = NULL_OK;
		rig_up(r);
		assert_int_equal(state_is(r, "x", "running"), -ERR_NOT_FOUND);
		rig_is_clean(r);
		free(a);
		free(b);
		rig_free(r);
	}
}

/* ---- lists and the daemon ---- */

static void long_lists_come_in_pieces(void **state)
{
	enum { MANY = 40 };
	struct rig *r = rig_new();
	struct ask *a = ask_new();
	char meta[8192];
	unsigned seen = 0;
	struct rec_sandbox_info info;
	const char *p;
	size_t n;

	T_UNUSED(state);
	memset(meta, 'm', sizeof(meta));
	memcpy(meta, "k=", 2);
	meta[sizeof(meta) - 1] = '\0';
	r->config.memory_budget_mb = 1 << 20;
	rig_crash(r);
	rig_up(r);
	for (int i = 0; i < MANY; i++)
		make(r, &(struct rec_sandbox_create){.metadata = {meta, sizeof(meta)}});
	a->items = (struct str)STR_INIT(4 << 20);
	assert_int_equal(ask(r, a, METHOD_SANDBOX_LIST, &(struct rec_empty){0}), 0);
	assert_true(a->items.len > LIMIT_WINDOW);
	for (p = a->items.p, n = a->items.len; n; seen++) {
		int used = rec_item_next(&rec_sandbox_info_type, p, n, &info, NULL);

		assert_true(used > 0);
		p += used;
		n -= (size_t)used;
	}
	assert_int_equal(seen, MANY);
	str_deinit(&a->items);
	free(a);
	rig_free(r);
}

static void stop_leaves_machines_running(void **state)
{
	struct rig *r = rig_new();
	struct ask *a = ask_new();

	T_UNUSED(state);
	make_named(r, "x");
	assert_int_equal(ask(r, a, METHOD_DAEMON_STOP, &(struct rec_empty){0}), 0);
	assert_true(rig_until(r, &r->over));
	assert_int_equal(r->over_why.code, 0);
	rig_crash(r);
	assert_int_equal(null_script_running(&r->script), 1);
	rig_up(r);
	assert_int_equal(state_is(r, "x", "running"), 1);
	free(a);
	rig_free(r);
}

T_MAIN(T(names_are_unique), T(a_failed_name_is_free_again), T(a_repeated_request_gets_the_first_answer),
       T(memory_beyond_the_budget_is_refused), T(bad_requests_name_field_and_limit),
       T(strangers_are_told_so), T(one_too_many_is_told_so), T(silent_ones_make_room),
       T(idle_ones_expire_and_used_ones_do_not),
       T(a_program_that_nobody_follows_is_use), T(an_idle_guest_is_not_woken), T(without_an_idle_timeout_it_stays),
       T(a_silent_guest_loses_its_calls_and_is_unhealthy), T(a_guest_that_answers_late_is_healthy_again),
       T(a_time_limit_holds_whatever_the_guest_does), T(a_silent_guest_can_be_removed),
       T(every_method_asks_policy), T(a_freeze_is_tried_again_for_longer),
       T(a_fork_ends_in_time_after_a_restart_too),
       T(a_disk_that_stays_is_told), T(events_are_told_to_their_tenant_only),
       T(lifetimes_end_whatever_goes_on), T(failures_are_forgotten_after_a_while),
       T(ephemeral_ones_go_with_their_holder), T(a_create_stream_left_open_holds),
       T(one_that_nobody_holds_goes_after_a_grace), T(a_dying_machine_tells_everybody_why),
       T(bytes_pass_both_ways_with_their_offsets), T(a_stalled_client_stops_the_guest),
       T(a_leaving_client_detaches), T(a_guest_that_lies_ends_alone),
       T(a_silent_end_of_the_link_is_noticed), T(an_empty_exec_is_denied),
       T(what_runs_is_adopted_under_a_new_generation),
       T(a_machine_that_died_meanwhile_is_a_failure_with_reason),
       T(a_hanging_guest_does_not_hold_up_the_others), T(any_failing_system_call_leaves_nothing),
       T(events_tell_the_story), T(a_slow_watcher_sees_a_gap), T(a_slow_usage_outlives_client_and_sandbox),
       T(the_daemon_may_end_while_a_machine_is_destroyed), T(long_lists_come_in_pieces),
       T(stop_leaves_machines_running))
