/*
 * policy/policy.h - who may do what, within which bounds. Pure: no state, no clock, no system calls.
 *
 * Every create and every exec passes here first. A request can narrow what the
 * server allows, never widen it. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/span.h"

struct err;
struct rec_exec_start;
struct rec_sandbox_create;

enum policy_limit { POLICY_MEMORY = 1, POLICY_CPU = 2, POLICY_PIDS = 4, POLICY_DISK = 8 };

struct policy_principal {
	const char *tenant, *owner;
};

/* A way to run a sandbox, as the policy sees it. */
struct policy_wall {
	const char *driver;
	const char *isolation; /* what a request says: "vm", "process" */
	bool own_kernel;
	bool layer_in_memory; /* what it writes to its root counts as its memory */
	unsigned enforced; /* enum policy_limit: limits that hold on this host */
	unsigned extra_mb, extra_permille; /* what a sandbox may use besides its memory: fixed, and by its size */
	const char *unusable; /* why it can't be used on this host; NULL: it can */
};

/* What the server allows and assumes. */
struct policy_limits {
	const struct policy_wall *walls;
	unsigned n_walls;
	unsigned sandboxes_max;
	uint64_t memory_budget_mb; /* of all sandboxes together */
	uint64_t idle_timeout_ms;  /* when the request says nothing */
	uint64_t pids_max;	   /* likewise */
};

/* What a template suggests; zero: nothing. */
struct policy_defaults {
	uint64_t vcpus, memory_mb, disk_mb;
};

struct policy_usage {
	unsigned sandboxes;
	uint64_t memory_promised_mb;
};

/* The decision, in full: nothing is left to a default later. */
struct policy_verdict {
	const struct policy_wall *wall;
	uint64_t vcpus, memory_mb, disk_mb, pids_max;
	uint64_t idle_timeout_ms, lifetime_ms;
	unsigned unenforced; /* enum policy_limit: agreed to be lost */
};

enum { POLICY_OWN_KERNEL_MB = 128, POLICY_PIDS_MIN = 3 };

/* Of a sandbox or a snapshot; empty: none. -ERR_INVALID */
int policy_name(struct span name, struct err *e);

/*
 * policy_create() - may @who make this sandbox, and with which limits exactly
 * @rec:	decoded, so its schema bounds hold
 *
 * Isolation "" means a kernel of its own; a weaker wall is never chosen silently.
 * Return: 0; -ERR_INVALID, -ERR_LIMIT naming field and bound; -ERR_UNSUPPORTED for a wall
 * this server does not offer and for a limit this host cannot enforce, unless the
 * request accepts that by name.
 */
int policy_create(const struct policy_principal *who, const struct rec_sandbox_create *rec,
		  const struct policy_limits *limits, const struct policy_usage *usage,
		  struct policy_verdict *ret, struct err *e);

/* What a sandbox of this memory may use in all, of this host's: that counts against the budget. @w may be NULL. */
uint64_t policy_promise(const struct policy_wall *w, uint64_t memory_mb);

/*
 * policy_size() - fill what the request left to the template, and check the result
 * @v:	of policy_create()
 *
 * Return: 0; -ERR_LIMIT when the memory is not to be had now, with the numbers, or when the
 * writable layer would not fit into the memory it lives in.
 */
int policy_size(const struct policy_principal *who, const struct policy_defaults *defaults,
		const struct policy_limits *limits, const struct policy_usage *usage,
		struct policy_verdict *v, struct err *e);

/* May @who run this in a sandbox of @tenant and @owner. -ERR_DENIED, -ERR_INVALID. */
int policy_exec(const struct policy_principal *who, const char *tenant, const char *owner,
		const struct rec_exec_start *rec, struct err *e);
/* The same for source in a live interpreter: code.run, code.open, code.restart. */
int policy_code(const struct policy_principal *who, const char *tenant, const char *owner,
		struct err *e);

/* May @who call this method at all. Every call of every method asks, before anything else. -ERR_DENIED. */
int policy_method(const struct policy_principal *who, unsigned method, struct err *e);

/* May @who see and use what belongs to @tenant. */
bool policy_may_use(const struct policy_principal *who, const char *tenant);
