/*
 * engine/capture.h - a running sandbox, copied as it stands, into a set
 *
 *	flatten	a disk of too many layers first becomes one of two
 *	sync	for a snapshot: the guest writes out what its disk shall have
 *	layer	a new disk layer for it to go on with (worker thread)
 *	prepare	the driver copies what it can while all runs
 *	freeze	the agent stops the workload; nothing else is said on the link until it goes on
 *	copy	the driver: device state, the rest of memory, disk; the machine stands still for that only
 *	thaw	the agent lets the workload go on
 *
 * A process sandbox has no memory of its own: of it there are snapshots only, and they have its
 * files. Nothing is synced or prepared, and no layer added.
 *
 * CAPTURE-1 One at a time per sandbox. A failure leaves it running as it was.
 * CAPTURE-2 When the sandbox ends meanwhile, the capture ends first, with its reason.
 *
 * Private to engine/. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct err;
struct sandbox;
struct set;

/* Embedded by the caller, lent until done. */
struct capture_call {
	/* @set: given, hot, not stored, with a reference; NULL: @why. Nothing the caller lent is used after it. */
	void (*done)(struct capture_call *c, struct set *set, const struct err *why);
	bool stay; /* it stays frozen and stopped: then capture_go_on(), or the sandbox ends or is paused */
	const char *kind; /* of the set; constant */
};

/* @sb runs. -ERR_UNSUPPORTED for its driver, -ERR_CONFLICT when it is being copied, -ERR_LIMIT. */
int capture_start(struct sandbox *sb, struct capture_call *c, struct err *e);

/* Fork, pause and rollback need it. -ERR_UNSUPPORTED for its driver, with the way out. */
int capture_check_memory(const struct sandbox *sb, struct err *e);

/* After `stay`: let it go on. `done`, perhaps from inside, with neither set nor why when it does. */
void capture_go_on(struct sandbox *sb, struct capture_call *c);

/* Its link is about to go: end what is under way. True: a job has to come back first, which walks on. */
bool capture_holds(struct sandbox *sb);
void capture_drop(struct sandbox *sb); /* the engine ends, the pool has joined */
