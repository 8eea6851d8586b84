/*
 * engine/plan.h - do steps in order; undo them backwards on failure, cancel and destroy
 *
 * A step's run() and undo() finish now or later, by plan_next() (or plan_fail())
 * and plan_undone(). So the error path is the path of every ordinary removal.
 *
 * PLAN-1 A run() that returned 0 finishes exactly once, by plan_next() or plan_fail().
 *	  One that returned an error finishes no more.
 * PLAN-2 undo() is called once for every step whose run() was entered, the one
 *	  that failed included, last step first. It must cope with half-done steps.
 * PLAN-3 A step without `waits` may be in flight when its undo() is called, and must
 *	  then not finish its run any more: undo() withdraws what is in flight. For a step
 *	  with `waits` (a job on another thread can't be withdrawn) undoing starts
 *	  when the step has finished.
 * PLAN-4 ops->over is called exactly once per forward or backward walk, from the
 *	  loop, never from inside a plan_ call, also when every step was immediate.
 * PLAN-5 The first reason wins: later failures and cancels don't replace it.
 *
 * Thread: the loop's. The plan is embedded in its owner; steps and ops are const tables.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "loop/loop.h"

struct plan;

enum { PLAN_STEPS_MAX = 20 };

struct step {
	const char *name;
	int (*run)(struct plan *p, struct err *e); /* NULL: nothing to do */
	void (*undo)(struct plan *p);		   /* cannot fail; NULL: nothing to undo */
	bool waits;				   /* PLAN-3 */
	bool intent;				   /* leaves something behind that a crash would lose */
};

struct plan_ops {
	/* Before run() of a step with `intent`: write it down. An error fails the step before it ran. */
	int (*begin)(struct plan *p, const struct step *s, struct err *e);
	/* A step finished; @us: how long it took. */
	void (*step_done)(struct plan *p, const struct step *s, uint64_t us);
	/* The walk back is decided, for reason @why. Once; no plan_ call from inside. */
	void (*turning)(struct plan *p, const struct err *why);
	/* Forward to the end (@why NULL), or everything undone (@why: the reason). PLAN-4 */
	void (*over)(struct plan *p, const struct err *why);
};

/* Legal calls in each state; others are ignored, as the events that cause them may cross. */
enum plan_state {
	PLAN_IDLE,	/* plan_start, plan_adopted */
	PLAN_FORWARD,	/* plan_next, plan_fail, plan_undo */
	PLAN_STOPPING,	/* waits for the step in flight (PLAN-3): plan_next, plan_fail */
	PLAN_DONE,	/* plan_undo */
	PLAN_BACKWARD,	/* plan_undone */
	PLAN_UNDONE,	/* nothing */
};

struct plan {
	struct loop *loop;
	const struct step *steps; /* ends with a NULL name */
	const struct plan_ops *ops;
	enum plan_state state;
	unsigned at;	     /* forward: step in flight; backward: step being undone */
	unsigned entered;    /* steps whose run() was entered */
	bool answered;	     /* the step in flight finished inside its own call */
	bool inside;	     /* walk() is on the stack */
	struct err why;	     /* code 0: none */
	uint64_t started_ns; /* of the step in flight */
	uint64_t us[PLAN_STEPS_MAX];
	struct loop_call over_call;
	struct loop_timer deadline;
};

/* @deadline_ms: of the whole forward walk; 0: none. Its expiry is a plan_undo() with ERR_TIMEOUT. */
void plan_start(struct plan *p, struct loop *l, const struct step *steps,
		const struct plan_ops *ops, uint64_t deadline_ms);

/* Take over what an earlier process did with these steps: all of them count as entered and done. */
void plan_adopted(struct plan *p, struct loop *l, const struct step *steps,
		  const struct plan_ops *ops);

void plan_next(struct plan *p);				/* the step in flight succeeded */
void plan_fail(struct plan *p, const struct err *why);	/* it failed; why is copied */
void plan_undone(struct plan *p);			/* the step being undone is undone */

/* Move the deadline of a forward walk to @ms from now; 0: none until it is set again. */
void plan_deadline(struct plan *p, uint64_t ms);

/* Cancel a forward walk, or begin to undo a finished one. @why is copied and reported. */
void plan_undo(struct plan *p, const struct err *why);

/* Forget everything, undo nothing: the owner is about to be freed. */
void plan_drop(struct plan *p);

const struct step *plan_step(const struct plan *p); /* in flight or being undone; NULL: none */
bool plan_is_forward(const struct plan *p);	    /* PLAN_FORWARD: a step may still finish */
