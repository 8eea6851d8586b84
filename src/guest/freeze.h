/*
 * guest/freeze.h - the workload stands still while its memory is copied
 *
 * FREEZE-1 Between the answer to guest.freeze and a thaw (or the next host's SYNC) the
 *	    agent says nothing: what it has to say waits in its memory.
 * FREEZE-2 In a copy the workload goes on last: after clock, randomness, names and
 *	    interpreters are its own. An interpreter that waits for source, and has
 *	    nothing else in its cgroup, goes on later still: when it is used (CODE-5).
 * FREEZE-3 Time stands still for the workload: deadlines of sessions and runs are as far away
 *	    after the thaw as they were before.
 *
 * Thread: the agent's loop; nothing here blocks.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "loop/loop.h"

struct agent;
struct stream;

struct freeze {
	bool is_frozen;
	struct stream *call; /* waits for the workload to stand still */
	struct loop_timer poll;
	uint64_t deadline_ns;
	unsigned timeout_ms;
	int *groups; /* directories of the cgroups that were stopped; interpreters' are with their contexts */
	size_t n_groups;
};

void freeze_thaw_all(struct agent *a); /* but interpreters that are held; not frozen: fine */
void freeze_drop(struct agent *a);

/* For what the workload must do in time: how far away @t was, which is canceled; 0: not set. */
uint64_t freeze_timer(struct loop *l, struct loop_timer *t);
void freeze_timer_go_on(struct loop *l, struct loop_timer *t, uint64_t left_ns);
