/* guest/setup.c - guest.setup: clock, randomness, identity, before anything else */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/code.h"
#include "guest/session.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

static int set_clock(uint64_t unix_ns, struct err *e)
{
	struct timespec ts = {(time_t)(unix_ns / NS_PER_S), (long)(unix_ns % NS_PER_S)};

	return clock_settime(CLOCK_REALTIME, &ts) < 0 ? err_sys(e, -errno, "set the clock") : 0;
}

static int set_pids_max(struct agent *a, uint64_t max, struct err *e)
{
	char text[32];
	int r;

	if (max == a->pids_max)
		return 0; /* a copy has its original's */
	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)max);
	if (a->cgroups.root_fd < 0)
		return err_set(e, ERR_UNSUPPORTED, "pids_max: no cgroups in this guest");
	r = sys_write_file(a->cgroups.root_fd, "pids.max", text);
	if (r < 0)
		return err_sys(e, r, "limit the processes of the workload");
	a->pids_max = max;
	return 0;
}

static int take_env(struct agent *a, struct strv env, struct err *e)
{
	struct env check;
	int r;

	env_init(&check);
	r = env_add_all(&check, env, e);
	env_deinit(&check);
	if (r < 0)
		return r;
	free(a->env);
	a->env = env.n ? mem_dup(env.p, env.n) : NULL;
	a->env_len = env.n;
	return 0;
}

/* A machine's kernel is ours alone; of a process sandbox only the names are. */
static int set_machine(struct agent *a, const struct rec_guest_setup *rq, bool *ret_seeded,
		       struct err *e)
{
	int r = 0;

	if (rq->time_ns)
		r = set_clock(rq->time_ns, e);
	if (r == 0 && rq->seed.n) {
		r = identity_reseed(&a->identity, rq->seed, e);
		*ret_seeded = r == 0;
	}
	if (r == 0 && rq->pids_max)
		r = set_pids_max(a, rq->pids_max, e);
	return r;
}

/* Time from kernel start until now; the daemon asks once, right after boot. */
static uint64_t uptime_us(void)
{
	struct timespec ts = {0};

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- the call ---- */

static void answer(struct agent *a, struct stream *s, bool seeded, bool forked, unsigned proofs)
{
	struct utsname u = {0};

	(void)uname(&u);
	struct rec_guest_ready ready = {
		.agent = span_of(HOTCELL_VERSION),
		.kernel = (struct span){u.release, strnlen(u.release, LIMIT_TEXT_SHORT)},
		.time_ns = sys_unix_ns(),
		.boot_id = span_of(a->identity.boot_id),
		.seeded = seeded,
		.hostname = span_of(u.nodename),
		.boot_us = a->c.is_machine && !forked ? uptime_us() : 0,
		.wall = span_of(a->c.is_machine ? "vm" : "process"),
		.reseeded = proofs,
		.thawed = !a->freeze.is_frozen,
	};
	agent_answer(s, &rec_guest_ready_type, &ready, 0, NULL);
	identity_resolve_hostname(&a->identity);
}

static void setup_closed(struct stream *s, const struct err *why)
{
	struct agent *a = stream_arg(s);

	(void)why;
	if (a->setup_call == s)
		a->setup_call = NULL;
}

/* FREEZE-2, CODE-5 */
static void interpreters_reseeded(void *arg, unsigned proofs)
{
	struct agent *a = arg;
	struct stream *s = a->setup_call;

	a->setup_call = NULL;
	if (!s) /* the host went: the next one begins anew, and nothing runs before */
		return;
	freeze_thaw_all(a);
	answer(a, s, true, true, proofs);
}

static void finish_copy(struct agent *a, struct stream *s)
{
	static const struct stream_ops ops = {.closed = setup_closed};

	sessions_fork(a->sessions);
	stream_accept(s, &ops, a);
	a->setup_call = s;
	code_reseed(a->codes, interpreters_reseeded, a);
}

void guest_setup_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_guest_setup *rq = rec;
	struct err e = ERR_INIT;
	bool seeded = false;
	int r = rq->env.n ? take_env(a, rq->env, &e) : 0; /* a copy has its original's, whoever repeats the call */

	if (r == 0 && a->c.is_machine)
		r = set_machine(a, rq, &seeded, &e);
	if (r == 0 && rq->forked && !seeded)
		r = err_set(&e, ERR_INVALID, "seed: a copy without one would repeat its original's random numbers");
	if (r == 0 && rq->hostname.n)
		r = identity_set_hostname(rq->hostname, &e);
	if (r == 0 && !id_is_zero(&rq->machine_id))
		r = identity_set_machine_id(&a->identity, &rq->machine_id, &e);
	if (r == 0 && rq->forked)
		r = identity_renew_boot_id(&a->identity, &e);
	if (r < 0) {
		stream_fail(s, &e);
		return;
	}
	span_copy(rq->user, a->default_user, sizeof(a->default_user));
	if (rq->forked) {
		finish_copy(a, s);
		return;
	}
	if (seeded)
		codes_stale(a->codes);
	answer(a, s, seeded, false, 0);
}
