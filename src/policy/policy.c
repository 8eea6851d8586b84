/* policy/policy.c - bounds and choices; rules of what is allowed grow here */
#include "policy/policy.h"
#include <string.h>
#include "base/err.h"
#include "base/id.h"
#include "base/macro.h"
#include "base/str.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { LIST_MAX = 256 };

static const struct {
	const char *name;
	unsigned bit;
	const char *without; /* what it means to lose it */
} limit_words[] = {
	{"memory", POLICY_MEMORY, "it could use all memory of this host"},
	{"cpu", POLICY_CPU, "it could use all processors of this host"},
	{"pids", POLICY_PIDS, "it could use all process numbers of this host"},
	{"disk", POLICY_DISK, "it could fill the disk of this host"},
};

static int read_unenforced(struct strv words, unsigned *ret, struct err *e)
{
	unsigned bits = 0;

	for (const char *w = strv_first(words); w; w = strv_next(words, w)) {
		unsigned bit = 0;

		for (size_t i = 0; i < ARRAY_LEN(limit_words); i++)
			if (strcmp(w, limit_words[i].name) == 0)
				bit = limit_words[i].bit;
		if (!bit)
			return err_set(e, ERR_INVALID,
				       "unenforced: there is no limit of that name; the limits are "
				       "memory, cpu, pids and disk");
		bits |= bit;
	}
	*ret = bits;
	return 0;
}

static const struct policy_wall *find_wall(const struct policy_limits *limits,
					   struct span wanted)
{
	for (unsigned i = 0; i < limits->n_walls; i++)
		if (span_is(wanted, limits->walls[i].isolation))
			return &limits->walls[i];
	return NULL;
}

static int choose_wall(const struct rec_sandbox_create *rec, const struct policy_limits *limits,
		       struct policy_verdict *v, struct err *e)
{
	struct span wanted = rec->isolation.n ? rec->isolation : span_of("vm");

	v->wall = find_wall(limits, wanted);
	if (!v->wall)
		return err_set(e, ERR_UNSUPPORTED, "isolation: this daemon has none called %.*s",
			       (int)wanted.n, wanted.p);
	if (v->wall->unusable)
		return err_set(e, ERR_UNSUPPORTED,
			       "isolation: %s cannot be used on this host: %s (so it was when the daemon started; "
			       "once that has changed, hotcell daemon stop makes the next command look again)",
			       v->wall->isolation, v->wall->unusable);
	return 0;
}

/* Limits that can't hold are refused by name, all at once: the caller must know, and say so. */
static int check_enforced(const struct policy_verdict *v, struct err *e)
{
	unsigned lost = ~v->wall->enforced & ~v->unenforced;
	struct str names = STR_INIT(LIST_MAX), flags = STR_INIT(LIST_MAX);
	const char *without = NULL;
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(limit_words); i++) {
		if (!(lost & limit_words[i].bit))
			continue;
		str_addf(&names, "%s%s", names.len ? ", " : "", limit_words[i].name);
		str_addf(&flags, " --unenforced %s", limit_words[i].name);
		if (!without)
			without = limit_words[i].without;
	}
	if (without)
		r = err_set(e, ERR_UNSUPPORTED,
			    "limits that cannot be enforced on this host for a %s sandbox: %s (%s); "
			    "accept that with%s, or see hotcell doctor",
			    v->wall->isolation, str_text(&names), without, str_text(&flags));
	str_deinit(&names);
	str_deinit(&flags);
	return r;
}

int policy_name(struct span name, struct err *e)
{
	if (name.n && !id_name_ok(name.p, name.n))
		return err_set(e, ERR_INVALID,
			       "name: 1 to 64 of A-Z a-z 0-9 _ . - are allowed, not starting with "
			       ". or -, and not 32 hexadecimal digits");
	return 0;
}

/* The agent would say so too, of a machine that was booted for nothing. */
static int check_env(struct strv env, struct err *e)
{
	for (const char *s = strv_first(env); s; s = strv_next(env, s))
		if (*s == '=' || !strchr(s, '='))
			return err_set(e, ERR_INVALID, "env: '%.64s' is not NAME=value", s);
	return 0;
}

static int check_count(const struct policy_limits *limits, const struct policy_usage *usage,
		       struct err *e)
{
	if (usage->sandboxes < limits->sandboxes_max)
		return 0;
	return err_set(e, ERR_LIMIT, "there are %u sandboxes, the limit is %u: remove some",
		       usage->sandboxes, limits->sandboxes_max);
}

/* Each number within its bounds; zero was left to the template. */
static int check_bounds(const struct policy_verdict *v, struct err *e)
{
	uint64_t min = v->wall->own_kernel ? POLICY_OWN_KERNEL_MB : LIMIT_MEMORY_MB_MIN;

	if (v->memory_mb && (v->memory_mb < min || v->memory_mb > LIMIT_MEMORY_MB_MAX))
		return err_set(e, ERR_LIMIT, "memory: %llu MiB is not between %llu and %d%s",
			       (unsigned long long)v->memory_mb, (unsigned long long)min,
			       LIMIT_MEMORY_MB_MAX,
			       v->wall->own_kernel ? " (a kernel of its own needs the minimum)" : "");
	if (v->vcpus > LIMIT_VCPUS_MAX)
		return err_set(e, ERR_LIMIT, "vcpus: %llu, the limit is %d",
			       (unsigned long long)v->vcpus, LIMIT_VCPUS_MAX);
	if (v->disk_mb > LIMIT_DISK_MB_MAX)
		return err_set(e, ERR_LIMIT, "disk: %llu MiB, the limit is %d",
			       (unsigned long long)v->disk_mb, LIMIT_DISK_MB_MAX);
	if (v->pids_max && v->pids_max < POLICY_PIDS_MIN)
		return err_set(e, ERR_LIMIT,
			       "pids: %llu; with less than %d no program can start beside the sandbox's own",
			       (unsigned long long)v->pids_max, POLICY_PIDS_MIN);
	return 0;
}

int policy_create(const struct policy_principal *who, const struct rec_sandbox_create *rec,
		  const struct policy_limits *limits, const struct policy_usage *usage,
		  struct policy_verdict *ret, struct err *e)
{
	struct policy_verdict v = {
		.vcpus = rec->vcpus,
		.memory_mb = rec->memory_mb,
		.disk_mb = rec->disk_mb,
		.pids_max = rec->pids_max ? rec->pids_max : limits->pids_max,
		.idle_timeout_ms = rec->idle_never	     ? 0
				   : rec->idle_timeout_ms ? rec->idle_timeout_ms
							  : limits->idle_timeout_ms,
		.lifetime_ms = rec->lifetime_ms,
	};
	int r = policy_name(rec->name, e);

	(void)who;
	if (r == 0)
		r = check_env(rec->env, e);
	if (r == 0)
		r = choose_wall(rec, limits, &v, e);
	if (r == 0)
		r = read_unenforced(rec->unenforced, &v.unenforced, e);
	if (r == 0)
		r = check_enforced(&v, e);
	if (r == 0)
		r = check_bounds(&v, e);
	if (r == 0)
		r = check_count(limits, usage, e);
	if (r == 0)
		*ret = v;
	return r;
}

static uint64_t pick(uint64_t wanted, uint64_t suggested, uint64_t otherwise)
{
	return wanted ? wanted : suggested ? suggested : otherwise;
}

uint64_t policy_promise(const struct policy_wall *w, uint64_t memory_mb)
{
	return w ? memory_mb + w->extra_mb + (memory_mb * w->extra_permille + 999) / 1000 : memory_mb;
}

static int check_budget(const struct policy_verdict *v, const struct policy_limits *limits,
			const struct policy_usage *usage, struct err *e)
{
	uint64_t budget = limits->memory_budget_mb, promised = usage->memory_promised_mb;
	uint64_t wanted = policy_promise(v->wall, v->memory_mb);

	if (promised <= budget && wanted <= budget - promised)
		return 0;
	return err_set(e, ERR_LIMIT,
		       "memory: %llu MiB wanted%s, %llu of %llu MiB are promised to other sandboxes: "
		       "remove some, ask for less, or start hotcelld with a larger --memory-budget",
		       (unsigned long long)wanted,
		       wanted > v->memory_mb ? " with what its machine takes besides the guest" : "",
		       (unsigned long long)promised,
		       (unsigned long long)budget);
}

/*
 * A layer in memory that could fill all of it would end in the out-of-memory
 * killer, where a full disk should be an error the program can see.
 */
static int size_layer(struct policy_verdict *v, uint64_t wanted_mb, struct err *e)
{
	uint64_t most = v->memory_mb / 4 * 3;

	if (!v->wall->layer_in_memory)
		return 0;
	if (!wanted_mb)
		v->disk_mb = MIN(v->disk_mb, v->memory_mb / 2);
	if (v->disk_mb <= most)
		return 0;
	return err_set(e, ERR_LIMIT,
		       "disk: %llu MiB; the writable layer of a %s sandbox lives in its memory, so with "
		       "%llu MiB of memory it can have at most %llu",
		       (unsigned long long)v->disk_mb, v->wall->isolation,
		       (unsigned long long)v->memory_mb, (unsigned long long)most);
}

int policy_size(const struct policy_principal *who, const struct policy_defaults *defaults,
		const struct policy_limits *limits, const struct policy_usage *usage,
		struct policy_verdict *v, struct err *e)
{
	struct policy_verdict sized = *v;
	int r;

	(void)who;
	sized.vcpus = pick(v->vcpus, defaults->vcpus, 1);
	sized.memory_mb = pick(v->memory_mb, defaults->memory_mb, 512);
	sized.disk_mb = pick(v->disk_mb, defaults->disk_mb, 1024);
	r = check_bounds(&sized, e);
	if (r == 0)
		r = size_layer(&sized, v->disk_mb, e);
	if (r == 0)
		r = check_budget(&sized, limits, usage, e);
	if (r == 0)
		*v = sized;
	return r;
}

int policy_method(const struct policy_principal *who, unsigned method, struct err *e)
{
	(void)who; /* all may call all, each in its own tenant: rules grow here */
	(void)method;
	(void)e;
	return 0;
}

bool policy_may_use(const struct policy_principal *who, const char *tenant)
{
	return strcmp(who->tenant, tenant) == 0;
}

int policy_exec(const struct policy_principal *who, const char *tenant, const char *owner,
		const struct rec_exec_start *rec, struct err *e)
{
	(void)owner;
	if (!policy_may_use(who, tenant))
		return err_set(e, ERR_DENIED, "the sandbox belongs to another tenant");
	if (rec->late_argv && (rec->argv.n || rec->command.n))
		return err_set(e, ERR_INVALID, "argv or command, and late_argv: one of them");
	if (rec->argv.n == 0 && rec->command.n == 0 && rec->late_argv == 0)
		return err_set(e, ERR_INVALID, "argv and command are empty: nothing to run");
	if (rec->argv.n && rec->command.n)
		return err_set(e, ERR_INVALID, "argv and command are both given: one of them");
	return 0;
}

int policy_code(const struct policy_principal *who, const char *tenant, const char *owner,
		struct err *e)
{
	(void)owner;
	return policy_may_use(who, tenant)
		       ? 0
		       : err_set(e, ERR_DENIED, "the sandbox belongs to another tenant");
}
