/*
 * driver/flatten.c - a long chain of disk layers becomes two, while the machine runs
 *
 * QEMU copies what lies between the lowest layer and the top one into the top one
 * (block-stream); then nobody reads the layers between, and they are let go of. A death
 * anywhere leaves a chain that reads the same.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "driver/kept.h"
#include "driver/kept_int.h"

enum {
	COMMAND_MAX = 128,
	STREAM_MS = 30 * 60 * 1000, /* for QEMU to copy what was written to a disk of the largest size */
};

struct flatten {
	struct machine *machine;
	struct driver_req *req;
	struct monitor_call say;
	unsigned node, top; /* the one that is let go of; the last one is before top */
	unsigned part;	    /* of letting it go */
	bool is_answered, is_streamed;
	struct loop_timer late;
	struct err why;
};

static void finish(struct flatten *f, const struct err *why)
{
	struct driver_req *req = f->req;
	struct err e = ERR_INIT;

	err_copy(&e, why);
	loop_timer_cancel(f->machine->loop, &f->late);
	f->machine->flatten = NULL;
	free(f);
	req->done(req, e.code ? &e : NULL);
}

/* ---- letting go: the node, its file, its descriptor ---- */

static void let_go(struct flatten *f);

/* What can't be let go of costs a descriptor and nothing else: it is used no more, and its name never again. */
static void let_gone(struct monitor_call *c, const struct err *why)
{
	(void)why;
	let_go(CONTAINER_OF(c, struct flatten, say));
}

static void let_go(struct flatten *f)
{
	static const struct {
		const char *command, *before, *after;
		unsigned base;
	} parts[] = {
		{"blockdev-del", "{\"node-name\":\"l", "\"}", 0},
		{"blockdev-del", "{\"node-name\":\"l", "-file\"}", 0},
		{"remove-fd", "{\"fdset-id\":", "}", KEEPER_LAYER_SET},
	};
	char text[COMMAND_MAX];
	struct err e = ERR_INIT;

	if (f->part == ARRAY_LEN(parts)) {
		f->part = 0;
		f->node++;
	}
	if (f->node == f->top) {
		finish(f, NULL);
		return;
	}
	(void)snprintf(text, sizeof(text), "%s%u%s", parts[f->part].before, parts[f->part].base + f->node,
		       parts[f->part].after);
	f->say.done = let_gone;
	if (monitor_call(f->machine->monitor, parts[f->part++].command, text, -1, &f->say, &e) < 0)
		finish(f, &e);
}

/* ---- the stream: QEMU's answer, and the event that says it is over, in any order ---- */

static void settle(struct flatten *f)
{
	struct err e = f->why;

	if (!f->is_answered || !f->is_streamed)
		return;
	loop_timer_cancel(f->machine->loop, &f->late);
	if (e.code)
		finish(f, &e);
	else
		let_go(f);
}

static void began(struct monitor_call *c, const struct err *why)
{
	struct flatten *f = CONTAINER_OF(c, struct flatten, say);

	f->is_answered = true;
	if (why) { /* no event follows */
		err_copy(&f->why, why);
		f->is_streamed = true;
	}
	settle(f);
}

void flatten_event(struct machine *m, const struct qmp_message *msg)
{
	struct flatten *f = m->flatten;
	bool was_canceled = str_eq(msg->name, "BLOCK_JOB_CANCELLED");

	if (f->is_streamed || (!was_canceled && !str_eq(msg->name, "BLOCK_JOB_COMPLETED")))
		return;
	f->is_streamed = true;
	if (str_eq(msg->text, strerror(ENOSPC)))
		(void)err_set(&f->why, ERR_LIMIT, "the layers of the disk could not be merged: " ERR_DISK_FULL);
	else if (was_canceled || msg->text[0])
		(void)err_set(&f->why, ERR_UNAVAILABLE, "the layers of the disk could not be merged: %s",
			      msg->text[0] ? msg->text : "canceled");
	settle(f);
}

/* No command of ours is under way: the monitor would have given up on it long ago. */
static void on_late(struct loop_timer *t)
{
	struct flatten *f = CONTAINER_OF(t, struct flatten, late);
	struct err why = ERR_INIT;

	(void)err_set(&why, ERR_TIMEOUT, "the layers of the disk were not merged within %d minutes", STREAM_MS / 60000);
	finish(f, &why);
}

int kept_flatten(struct machine *m, unsigned first, unsigned node, struct driver_req *r, struct err *e)
{
	char text[COMMAND_MAX];
	struct flatten *f;
	int ret;

	if (m->state != KEPT_UP || !m->monitor)
		return err_set(e, ERR_GONE, "the machine does not run");
	if (m->capture || m->flatten)
		return err_set(e, ERR_CONFLICT, "the machine is being copied");
	f = mem_new(sizeof(*f));
	*f = (struct flatten){.machine = m, .req = r, .node = first, .top = node};
	f->say.done = began;
	(void)snprintf(text, sizeof(text), "{\"job-id\":\"flatten\",\"device\":\"l%u\",\"base-node\":\"l0\"}",
		       node);
	ret = monitor_call(m->monitor, "block-stream", text, -1, &f->say, e);
	if (ret < 0) {
		free(f);
		return ret;
	}
	loop_timer_set(m->loop, &f->late, loop_now(m->loop) + STREAM_MS * NS_PER_MS, on_late);
	m->flatten = f;
	return 0;
}

void flatten_end(struct machine *m, const struct err *why)
{
	if (m->flatten)
		finish(m->flatten, why);
}

void flatten_forget(struct machine *m)
{
	struct flatten *f = take_ptr(&m->flatten);

	if (f)
		loop_timer_cancel(m->loop, &f->late);
	free(f);
}
