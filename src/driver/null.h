/*
 * driver/null.h - machines that are nothing: for tests of everything above a driver
 *
 * A script says for each call whether it succeeds, fails at once, fails late or never
 * answers, and a test plays the guest at the other end of each link. Machines live in
 * the script, so a second engine can adopt what the first one left.
 *
 * NULL-1 Without a script every call succeeds, in the next turn of the loop, and nobody
 *	  answers on the links.
 *
 * Thread: the loop's; a script belongs to the thread that set it.
 */
#pragma once
#include <stdint.h>
#include "base/err.h"
#include "base/id.h"
#include "base/list.h"

enum null_call {
	NULL_CREATE, /* only NULL_OK and NULL_REFUSE */
	NULL_START,
	NULL_ADOPT,
	NULL_LOAD,
	NULL_USAGE,
	NULL_PREPARE, /* of a capture, until it is prepared */
	NULL_CAPTURE, /* the rest of it */
	NULL_FLATTEN,
	NULL_RESUME,
	NULL_STOP,
	NULL_DESTROY, /* can't be refused: NULL_REFUSE counts as NULL_OK */
	NULL_CALLS_N,
};

enum null_mode {
	NULL_OK,     /* completes without error, @after_ns later but never from inside the call */
	NULL_REFUSE, /* returns -why.code; never completes */
	NULL_FAIL,   /* completes with why, @after_ns later */
	NULL_NEVER,  /* completes only when destroy() cancels it; a destroy: when the script ends */
};

struct null_step {
	enum null_mode mode;
	uint64_t after_ns; /* 0: the next turn */
	struct err why;	   /* code 0: ERR_INTERNAL "the script says so" */
};

/* Zero-initialise, then null_script_begin(). Fields may be changed between calls. */
struct null_script {
	struct null_step steps[NULL_CALLS_N];

	/* Asked before each call; NULL: @steps. @nth counts the calls of this kind from 1. */
	void (*choose)(struct null_script *s, enum null_call call, const struct id *id,
		       unsigned nth, struct null_step *step);
	/* A machine started: @fd is the guest's end of its link, given. NULL: kept by the machine. */
	void (*agent)(struct null_script *s, const struct id *id, int fd);
	void *arg; /* the test's */

	uint64_t dies_after_ns; /* of every machine, from its start; 0: it does not */

	unsigned seen[NULL_CALLS_N]; /* calls so far */
	struct list worlds;	     /* private: machines that run, known to an engine or not */
	struct list held;	     /* private: destroys that never complete */
};

void null_script_begin(struct null_script *s); /* this thread's machines follow @s from here on */
/* Before the loop is freed, with every machine destroyed or forgotten: ends what runs. */
void null_script_end(struct null_script *s);

unsigned null_script_running(const struct null_script *s);
/* End machine @id as if by itself: `gone` follows in the next turn. No such machine: -ENOENT. */
int null_script_kill(struct null_script *s, const struct id *id, const struct err *why);
