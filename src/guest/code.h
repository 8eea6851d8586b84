/*
 * guest/code.h - live interpreters: contexts whose state outlasts a run
 *
 * A context is one interpreter process, the harness of its language
 * (languages/), with walls, user, environment and cgroup like any program the
 * agent starts. Harness and agent talk frames over a socket pair
 * (guest/code_frame.h); standard output and error are real pipes, so what
 * extensions and child processes write is seen too.
 *
 * CODE-1 A context runs one source at a time; another one is refused, not queued.
 * CODE-2 The end of a run is its last chunk, and follows all that the harness had
 *	  printed before it, on whichever way.
 * CODE-3 While the client does not read, the interpreter waits and the agent does
 *	  not grow. A client that goes away leaves the run running; its output is
 *	  read and forgotten.
 * CODE-4 The harness is hostile. A frame that is malformed, too long or out of turn
 *	  kills the interpreter and ends nothing else.
 * CODE-5 After a fork an interpreter proves that it drew new randomness before it runs
 *	  any source, or it is killed. One that waits for source and has nothing else in
 *	  its cgroup does not go on before it is used; the others prove before the
 *	  workload goes on. One that ended starts anew when it is used next, with the
 *	  same number.
 *
 * CODE_STARTING  the process exists, the harness has not said READY
 * CODE_IDLE      waits for source
 * CODE_BUSY      runs one
 * CODE_DYING     was killed, is not reaped
 * CODE_ENDED     no process; starts at the next use
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/macro.h"
#include "guest/cgroup.h"
#include "guest/env.h"
#include "guest/spawn.h"

struct agent;
struct codes;
struct err;
struct rec_code_context;

static const uint64_t CODE_START_NS = 30 * NS_PER_S;  /* from exec to READY */
static const uint64_t CODE_GRACE_NS = 2 * NS_PER_S;   /* from a timeout's interrupt to the kill */
static const uint64_t CODE_RESEED_NS = 2 * NS_PER_S;  /* from a fork to the last proof that it waits for */
static const uint64_t CODE_RENEW_NS = 30 * NS_PER_S;  /* from a use to the proof of one that was held */

/* One per agent. Sources, timers and cgroups are the agent's. */
struct codes *codes_new(struct agent *a);
/* The processes must be dead and reaped. */
struct codes *codes_free(struct codes *all);

/* A child of the agent was reaped. Returns false when it is no context's. */
bool codes_child_gone(struct codes *all, pid_t pid, int status);

/* The context after number @after; false: no more. @ret borrows from it. */
bool code_next(const struct codes *all, uint64_t after, struct rec_code_context *ret);

/*
 * code_reseed() - after a fork, before anything else of the workload runs
 * @done:	once, now or later: every interpreter that goes on has proven or is killed.
 *		@proofs: how many proved.
 *
 * Every context that is there now counts as warm from here on. One at a time.
 */
void code_reseed(struct codes *all, void (*done)(void *arg, unsigned proofs), void *arg);
unsigned codes_busy(const struct codes *all); /* contexts that run something */
/* The kernel's pool is new: nothing runs on the randomness of before. */
void codes_stale(struct codes *all);

/*
 * For guest/freeze.c: every context stands still; is that so by now; all that are not held go on.
 * Between the first and the last no run's time runs out (FREEZE-3).
 */
int codes_freeze(struct codes *all, struct err *e);
bool codes_stand_still(struct codes *all); /* if so, it is known who is alone */
void codes_thaw(struct codes *all);
bool codes_have_group(const struct codes *all, const char *name); /* a cgroup of theirs */
