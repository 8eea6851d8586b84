/*
 * guest/freeze.h - the workload stands still while its memory is copied
 *
 * FREEZE-1 Between the answer to guest.freeze and a thaw (or the next host's SYNC) the
 *	    agent says nothing: what it has to say waits in its memory.
 * FREEZE-2 In a copy the workload goes on last: after clock, randomness, names and
 *	    interpreters are its own.
 *
 * Thread: the agent's loop; nothing here blocks.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "loop/loop.h"

struct agent;
struct cgroup;
struct stream;

struct freeze {
	bool is_frozen;
	struct stream *call; /* waits for the workload to stand still */
	struct loop_timer poll;
	uint64_t deadline_ns;
	unsigned timeout_ms;
};

void freeze_thaw_group(void *agent, struct cgroup *cg); /* NULL: fine */
void freeze_thaw_all(struct agent *a);			/* not frozen: fine */
void freeze_drop(struct agent *a);
