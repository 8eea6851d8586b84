/*
 * guest/code_renew.c - interpreters of a copy: who renews its randomness when
 *
 * Most forks never use the interpreters they were born with. So one of which it is
 * known that it can do nothing by itself, since its only thread waits for source, is
 * left standing until it is used: a fork is ready sooner, and shares more memory.
 */
#include <signal.h>
#include <string.h>
#include "base/err.h"
#include "guest/agent.h"
#include "guest/code_int.h"
#include "guest/freeze.h"
#include "sys/clock.h"

enum { RESEED_SIGNAL = SIGUSR2 };

static struct loop *loop_of(const struct code *c)
{
	return c->all->agent->loop;
}

/* ---- one ---- */

static void maybe_tell(struct codes *all)
{
	if (all->awaited == 0)
		all->done(all->arg, all->proofs);
}

void code_proven(struct code *c)
{
	c->proto.reseeding = c->is_stale = false;
	loop_timer_cancel(loop_of(c), &c->renewal);
	if (c->is_awaited) {
		c->is_awaited = false;
		c->all->awaited--;
		maybe_tell(c->all);
	}
	if (c->state == CODE_IDLE && c->run) /* it came meanwhile */
		code_run_begin(c);
}

static void on_deadline(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, renewal);

	code_kill(c, "ended", "the interpreter did not renew its randomness after a fork: it was killed");
	code_proven(c); /* CODE-5: not counted, and not there any more */
}

static void go_on(struct code *c)
{
	c->is_held = false;
	if (c->cgroup)
		(void)cgroup_freeze(c->cgroup->fd, false);
}

/* It reads the order before anything else. */
static void renew(struct code *c, uint64_t within_ns)
{
	if (sys_random(c->nonce, sizeof(c->nonce)) < 0) {
		code_kill(c, "ended", "no randomness to renew its own with");
		return;
	}
	for (size_t i = 0; i < sizeof(c->nonce); i++) /* text, so that a shell can read it at once */
		c->nonce[i] = (unsigned char)('A' + c->nonce[i] % 26);
	c->stale_proofs += c->proto.reseeding;
	c->proto.reseeding = true;
	code_order(c, CODE_RESEED, c->nonce, sizeof(c->nonce));
	loop_timer_set(loop_of(c), &c->renewal, loop_now(loop_of(c)) + within_ns, on_deadline);
	go_on(c);
}

void code_go(struct code *c)
{
	if (!c->is_stale)
		code_run_begin(c);
	else if (!c->proto.reseeding)
		renew(c, CODE_RENEW_NS);
}

/* ---- all ---- */

static void renew_now(struct code *c)
{
	switch (c->state) {
	case CODE_STARTING: /* between reading old randomness and saying so: nobody could tell */
		code_kill(c, "ended", "it was starting when the sandbox was forked");
		go_on(c);
		break;
	case CODE_BUSY:
		(void)kill(c->pid, RESEED_SIGNAL);
		go_on(c);
		break;
	case CODE_IDLE:
		c->is_stale = true;
		if (c->is_alone) {
			c->is_held = true;
			break;
		}
		c->is_awaited = true;
		c->all->awaited++;
		renew(c, CODE_RESEED_NS);
		break;
	default: break;
	}
}

void code_reseed(struct codes *all, void (*done)(void *arg, unsigned proofs), void *arg)
{
	all->done = done;
	all->arg = arg;
	all->proofs = 0;
	all->awaited = 1; /* ourselves, so that it is not over in the middle */
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (!c || c->state == CODE_ENDED)
			continue;
		c->warm = true;
		renew_now(c);
	}
	all->awaited--;
	maybe_tell(all);
}

void codes_stale(struct codes *all)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (c && c->state == CODE_IDLE)
			c->is_stale = true;
		else if (c && c->state == CODE_BUSY)
			(void)kill(c->pid, RESEED_SIGNAL);
	}
}

/* ---- while the workload stands still ---- */

bool codes_have_group(const struct codes *all, const char *name)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
		if (all->table[i] && all->table[i]->cgroup && strcmp(all->table[i]->cgroup->name, name) == 0)
			return true;
	return false;
}

int codes_freeze(struct codes *all, struct err *e)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];
		int r = 0;

		if (!c)
			continue;
		c->timeout_left_ns = freeze_timer(loop_of(c), &c->timeout);
		c->renewal_left_ns = freeze_timer(loop_of(c), &c->renewal);
		if (c->cgroup)
			r = cgroup_freeze(c->cgroup->fd, true);
		if (r < 0)
			return err_sys(e, r, "stop an interpreter");
	}
	return 0;
}

bool codes_stand_still(struct codes *all)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (!c || !c->cgroup || c->is_held)
			continue;
		if (!cgroup_is_frozen(c->cgroup->fd))
			return false;
		c->is_alone = c->state == CODE_IDLE && !c->proto.reseeding && cgroup_has_only(c->cgroup, c->pid);
	}
	return true;
}

void codes_thaw(struct codes *all)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (!c)
			continue;
		if (c->state == CODE_BUSY)
			freeze_timer_go_on(loop_of(c), &c->timeout, c->timeout_left_ns);
		if (c->proto.reseeding && !c->renewal.place)
			freeze_timer_go_on(loop_of(c), &c->renewal, c->renewal_left_ns);
		if (!c->is_held)
			go_on(c);
	}
}
