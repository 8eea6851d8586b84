/* policy/t_policy.c - every refusal names its field and bound; nothing weaker is chosen silently */
#include "policy/policy.h"
#include "base/err.h"
#include "base/testing.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { ALL = POLICY_MEMORY | POLICY_CPU | POLICY_PIDS | POLICY_DISK };

static const struct policy_wall both[] = {
	{.driver = "qemu", .isolation = "vm", .own_kernel = true, .enforced = ALL},
	{.driver = "process",
	 .isolation = "process",
	 .layer_in_memory = true,
	 .enforced = POLICY_CPU | POLICY_DISK},
};
static const struct policy_principal me = {"default", "uid:0"};
static const struct policy_limits limits = {
	.walls = both,
	.n_walls = 2,
	.sandboxes_max = 3,
	.memory_budget_mb = 1000,
	.idle_timeout_ms = 3600000,
	.pids_max = 512,
};

static int create(const struct rec_sandbox_create *rec, struct policy_verdict *v, struct err *e)
{
	struct policy_usage none = {0};

	*e = (struct err)ERR_INIT;
	return policy_create(&me, rec, &limits, &none, v, e);
}

static void default_is_a_kernel_of_its_own(void **state)
{
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(create(&(struct rec_sandbox_create){0}, &v, &e), 0);
	assert_string_equal(v.wall->driver, "qemu");
	assert_int_equal(v.idle_timeout_ms, 3600000);
	assert_int_equal(v.pids_max, 512);
	assert_int_equal(create(&(struct rec_sandbox_create){.isolation = span_of("vm")}, &v, &e), 0);
	assert_string_equal(v.wall->driver, "qemu");
}

static void a_missing_wall_is_never_replaced(void **state)
{
	struct policy_limits weak = limits;
	struct policy_usage none = {0};
	struct policy_verdict v;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	weak.walls = &both[1];
	weak.n_walls = 1;
	assert_int_equal(policy_create(&me, &(struct rec_sandbox_create){0}, &weak, &none, &v, &e),
			 -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "vm"));
}

static void an_unusable_wall_says_why(void **state)
{
	struct policy_wall walls[] = {both[0], both[1]};
	struct policy_limits broken = limits;
	struct policy_usage none = {0};
	struct policy_verdict v;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	walls[0].unusable = "there is no QEMU";
	broken.walls = walls;
	assert_int_equal(policy_create(&me, &(struct rec_sandbox_create){0}, &broken, &none, &v, &e),
			 -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "there is no QEMU"));
}

static void unenforceable_limits_are_refused_by_name(void **state)
{
	struct rec_sandbox_create rec = {.isolation = span_of("process")};
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(create(&rec, &v, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "memory"));
	assert_non_null(strstr(e.text, "--unenforced memory --unenforced pids"));
	rec.unenforced = (struct strv){"memory", 7};
	assert_int_equal(create(&rec, &v, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "--unenforced pids"));
	rec.unenforced = (struct strv){"memory\0pids", 12};
	assert_int_equal(create(&rec, &v, &e), 0);
	assert_int_equal(v.unenforced, POLICY_MEMORY | POLICY_PIDS);
	rec.unenforced = (struct strv){"memori", 7};
	assert_int_equal(create(&rec, &v, &e), -ERR_INVALID);
}

static void explicit_numbers_are_checked_before_anything_happens(void **state)
{
	struct rec_sandbox_create fits = {.memory_mb = 128, .vcpus = 32, .disk_mb = 1048576};
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(create(&(struct rec_sandbox_create){.memory_mb = 127}, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "memory: 127"));
	assert_int_equal(create(&(struct rec_sandbox_create){.vcpus = 33}, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "vcpus: 33"));
	assert_int_equal(create(&(struct rec_sandbox_create){.disk_mb = 1048577}, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "disk: 1048577"));
	assert_int_equal(create(&fits, &v, &e), 0);
}

static void names_are_checked(void **state)
{
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(create(&(struct rec_sandbox_create){.name = span_of("../x")}, &v, &e),
			 -ERR_INVALID);
	assert_non_null(strstr(e.text, "name"));
	assert_int_equal(create(&(struct rec_sandbox_create){.name = span_of("web-1")}, &v, &e), 0);
}

static void count_is_bounded(void **state)
{
	struct policy_usage full = {.sandboxes = 3};
	struct policy_verdict v;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(policy_create(&me, &(struct rec_sandbox_create){0}, &limits, &full, &v, &e),
			 -ERR_LIMIT);
	full.sandboxes = 2;
	assert_int_equal(policy_create(&me, &(struct rec_sandbox_create){0}, &limits, &full, &v, &e), 0);
}

static int size(uint64_t memory_mb, unsigned wall, uint64_t promised, struct policy_verdict *v,
		struct err *e)
{
	struct policy_usage usage = {.memory_promised_mb = promised};
	struct policy_defaults template = {.vcpus = 2, .memory_mb = 256};

	*v = (struct policy_verdict){.wall = &both[wall], .memory_mb = memory_mb};
	*e = (struct err)ERR_INIT;
	return policy_size(&me, &template, &limits, &usage, v, e);
}

static void template_fills_what_is_missing(void **state)
{
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(size(0, 0, 0, &v, &e), 0);
	assert_int_equal(v.memory_mb, 256);
	assert_int_equal(v.vcpus, 2);
	assert_int_equal(v.disk_mb, 1024);
	assert_int_equal(size(300, 0, 0, &v, &e), 0);
	assert_int_equal(v.memory_mb, 300);
}

static void a_layer_in_memory_leaves_room_for_memory(void **state)
{
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(size(400, 1, 0, &v, &e), 0);
	assert_int_equal(v.disk_mb, 200); /* of 1024 by default */
	assert_int_equal(size(400, 0, 0, &v, &e), 0);
	assert_int_equal(v.disk_mb, 1024); /* an image on disk */
	v = (struct policy_verdict){.wall = &both[1], .memory_mb = 400, .disk_mb = 301};
	e = (struct err)ERR_INIT;
	assert_int_equal(policy_size(&me, &(struct policy_defaults){0}, &limits, &(struct policy_usage){0}, &v, &e),
			 -ERR_LIMIT);
	assert_non_null(strstr(e.text, "disk: 301"));
	assert_non_null(strstr(e.text, "at most 300"));
	v.disk_mb = 300;
	assert_int_equal(policy_size(&me, &(struct policy_defaults){0}, &limits, &(struct policy_usage){0}, &v, &e),
			 0);
	assert_int_equal(v.disk_mb, 300);
}

static void memory_has_bounds_and_a_budget(void **state)
{
	struct policy_verdict v;
	struct err e;

	T_UNUSED(state);
	assert_int_equal(size(127, 0, 0, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "128"));
	assert_int_equal(v.memory_mb, 127); /* untouched on failure */
	assert_int_equal(size(127, 1, 0, &v, &e), 0);
	assert_int_equal(size(31, 1, 0, &v, &e), -ERR_LIMIT);
	assert_int_equal(size(400, 0, 600, &v, &e), 0);
	assert_int_equal(size(401, 0, 600, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "401"));
	assert_non_null(strstr(e.text, "600 of 1000"));
	/* More promised than the budget (it was lowered): nothing fits, nothing wraps. */
	assert_int_equal(size(200, 0, 2000, &v, &e), -ERR_LIMIT);
}

/* A machine's monitor takes memory, too: what is promised is what its control group lets it have. */
static void a_machine_is_more_than_its_guest(void **state)
{
	const struct policy_wall wall = {.driver = "qemu", .isolation = "vm", .extra_mb = 256, .extra_permille = 4};
	struct policy_usage usage = {.memory_promised_mb = 200};
	struct policy_verdict v = {.wall = &wall, .memory_mb = 500};
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(policy_promise(NULL, 500), 500);
	assert_int_equal(policy_promise(&both[1], 500), 500);
	assert_int_equal(policy_promise(&wall, 500), 758);
	assert_int_equal(policy_promise(&wall, 501), 760); /* a page table more */
	assert_int_equal(policy_size(&me, &(struct policy_defaults){0}, &limits, &usage, &v, &e), 0);
	assert_int_equal(v.memory_mb, 500);
	usage.memory_promised_mb = 243;
	assert_int_equal(policy_size(&me, &(struct policy_defaults){0}, &limits, &usage, &v, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "758 MiB wanted"));
	assert_non_null(strstr(e.text, "243 of 1000"));
}

static void exec_needs_exactly_one_program(void **state)
{
	struct rec_exec_start rec = {0};

	T_UNUSED(state);
	assert_int_equal(policy_exec(&me, "default", "uid:0", &rec, NULL), -ERR_INVALID);
	rec.command = span_of("true");
	assert_int_equal(policy_exec(&me, "default", "uid:0", &rec, NULL), 0);
	assert_int_equal(policy_exec(&me, "other", "uid:0", &rec, NULL), -ERR_DENIED);
	assert_int_equal(policy_code(&me, "default", "uid:0", NULL), 0);
	assert_int_equal(policy_code(&me, "other", "uid:0", NULL), -ERR_DENIED);
	rec.argv = (struct strv){"true", 5};
	assert_int_equal(policy_exec(&me, "default", "uid:0", &rec, NULL), -ERR_INVALID);
}

T_MAIN(T(default_is_a_kernel_of_its_own), T(a_missing_wall_is_never_replaced),
       T(an_unusable_wall_says_why), T(unenforceable_limits_are_refused_by_name),
       T(explicit_numbers_are_checked_before_anything_happens), T(names_are_checked),
       T(count_is_bounded), T(a_machine_is_more_than_its_guest),
       T(template_fills_what_is_missing), T(a_layer_in_memory_leaves_room_for_memory),
       T(memory_has_bounds_and_a_budget),
       T(exec_needs_exactly_one_program))
