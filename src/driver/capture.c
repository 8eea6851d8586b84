/*
 * driver/capture.c - what a QEMU machine is at one instant: device state, memory, disk
 *
 * QEMU writes its devices' state while the keeper copies the memory, a new disk layer leaves
 * the old one as it is. The machine stands still from `stop` to `cont`; what can be done
 * before is done before. A failure walks back: whatever happens, the machine runs on.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <fcntl.h>
#include <sys/mman.h>
#include "base/macro.h"
#include "base/mem.h"
#include "driver/kept.h"
#include "driver/kept_int.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum {
	SET_STATE = KEEPER_LAYER_SET - 1, /* a set of descriptors in QEMU */
	GOES_ON = 1,			  /* of a step: the next one need not wait for it */
};

struct capture {
	struct machine *machine;
	struct driver_capture *rq; /* the caller's; lent until it completes */
	struct monitor_call say;
	struct op *op; /* with the keeper; NULL: none */
	struct err copy_why;
	bool is_awaited; /* its copy is all that is missing */
	unsigned at;   /* in steps, or in the way back */
	bool is_back, is_held; /* held: until capture_now() */
	struct err why;
	bool state_lent, layer_lent, file_added, layer_added, is_stopped;
	int state_fd, state_out, memory_fd;
	uint64_t stopped_ns, pause_us, copied_bytes;
};

static void next(struct capture *c, const struct err *why);

/* ---- the two that do the work ---- */

static void said(struct monitor_call *call, const struct err *why)
{
	next(CONTAINER_OF(call, struct capture, say), why);
}

static int say(struct capture *c, const char *name, const char *arguments, int fd, struct err *e)
{
	c->say.done = said;
	return monitor_call(c->machine->monitor, name, arguments, fd, &c->say, e);
}

/* The capture that an answer of the keeper is for; NULL: it is over, or its machine is destroyed, which ends it. */
static struct capture *answered(struct op *op)
{
	const struct machine *m = op->machine;
	struct capture *c = m->capture && m->capture->op == op ? m->capture : NULL;
	bool goes_on = m->state == KEPT_UP;

	if (c)
		c->op = NULL;
	op_free(op);
	return goes_on ? c : NULL;
}

static void saved(struct keeper_call *call, const struct err *why)
{
	struct capture *c = answered(CONTAINER_OF(call, struct op, call));

	if (c)
		next(c, why);
}

static void copied(struct keeper_call *call, const struct err *why)
{
	struct capture *c = answered(CONTAINER_OF(call, struct op, call));

	if (!c)
		return;
	err_copy(&c->copy_why, why);
	if (c->is_awaited)
		next(c, why);
}

static void taken(struct keeper_call *call, const struct err *why)
{
	uint64_t bytes = call->copied_bytes;
	int fd = call->fds[KEEPER_LINK];
	struct capture *c = answered(CONTAINER_OF(call, struct op, call));

	if (!why && c) {
		c->memory_fd = fd;
		c->copied_bytes = bytes;
	} else if (!why) {
		(void)sys_close(fd);
	}
	if (c)
		next(c, why);
}

static int ask_keeper(struct capture *c, void (*done)(struct keeper_call *call, const struct err *why),
		      int (*ask)(struct keeper *k, const struct id *id, struct keeper_call *call,
				 struct err *e),
		      struct err *e)
{
	struct machine *m = c->machine;
	int r;

	c->op = op_new(m, NULL, done);
	r = ask(m->keeper, &m->id, &c->op->call, e);
	if (r < 0) {
		op_free(c->op);
		c->op = NULL;
	}
	return r;
}

/* ---- steps ---- */

static int lend_state(struct capture *c, struct err *e)
{
	char text[64];

	c->state_fd = sys_memfd("state", MFD_ALLOW_SEALING);
	if (c->state_fd < 0)
		return err_sys(e, c->state_fd, "make a file for the machine's state");
	(void)snprintf(text, sizeof(text), "/proc/self/fd/%d", c->state_fd);
	c->state_out = sys_open(text, O_WRONLY); /* QEMU wants one it can only write */
	if (c->state_out < 0)
		return err_sys(e, c->state_out, "open the file for the machine's state");
	(void)snprintf(text, sizeof(text), "{\"fdset-id\":%d}", SET_STATE);
	c->state_lent = true;
	return say(c, "add-fd", text, c->state_out, e);
}

/* The node it goes on with. */
static unsigned overlay(const struct capture *c)
{
	return c->rq->node + 1;
}

static int lend_layer(struct capture *c, struct err *e)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "{\"fdset-id\":%d}", KEEPER_LAYER_SET + (int)overlay(c));
	c->layer_lent = true;
	return say(c, "add-fd", text, c->rq->overlay_fd, e);
}

/* As on the command line: keeper/jail_qemu.c. */
static int add_file(struct capture *c, struct err *e)
{
	char text[256];

	(void)snprintf(text, sizeof(text),
		       "{\"driver\":\"file\",\"node-name\":\"l%u-file\",\"filename\":\"/dev/fdset/%u\","
		       "\"auto-read-only\":false,\"locking\":\"off\",\"discard\":\"unmap\","
		       "\"cache\":{\"no-flush\":true}}",
		       overlay(c), KEEPER_LAYER_SET + overlay(c));
	c->file_added = true;
	return say(c, "blockdev-add", text, -1, e);
}

static int add_layer(struct capture *c, struct err *e)
{
	char text[256];

	(void)snprintf(text, sizeof(text),
		       "{\"driver\":\"qcow2\",\"node-name\":\"l%u\",\"file\":\"l%u-file\",\"backing\":null,"
		       "\"discard\":\"unmap\",\"cache\":{\"no-flush\":true}}",
		       overlay(c), overlay(c));
	c->layer_added = true;
	return say(c, "blockdev-add", text, -1, e);
}

static int prepare_memory(struct capture *c, struct err *e)
{
	return ask_keeper(c, saved, keeper_save, e);
}

/* Whoever asked stops what runs in it, and calls kept_capture_now(), perhaps before this returns. */
static int hold(struct capture *c, struct err *e)
{
	(void)e;
	c->is_held = true;
	c->rq->prepared(c->rq); /* the last use of @c */
	return 0;
}

static int stop(struct capture *c, struct err *e)
{
	c->stopped_ns = sys_now_ns();
	c->is_stopped = true;
	return say(c, "stop", NULL, -1, e);
}

static int save_state(struct capture *c, struct err *e)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "{\"filename\":\"/dev/fdset/%d\",\"live\":false}", SET_STATE);
	return say(c, "xen-save-devices-state", text, -1, e);
}

static int move_to_layer(struct capture *c, struct err *e)
{
	char text[96];

	(void)snprintf(text, sizeof(text), "{\"node\":\"l%u\",\"overlay\":\"l%u\"}", c->rq->node,
		       overlay(c));
	return say(c, "blockdev-snapshot", text, -1, e);
}

/* QEMU has said all of it. A machine that is taken over later must not change what its copies start from. */
static int seal_state(const struct capture *c, struct err *e)
{
	int r = sys_seal(c->state_fd, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);

	return r < 0 ? err_sys(e, r, "seal the machine's state") : 0;
}

/* Its memory does not change any more: nothing runs, and QEMU has ended what it did for the disk. */
static int copy_memory(struct capture *c, struct err *e)
{
	int r = ask_keeper(c, copied, keeper_copy, e);

	return r < 0 ? r : GOES_ON;
}

static int await_memory(struct capture *c, struct err *e)
{
	int r;

	if (c->rq->overlay_fd >= 0)
		c->rq->is_layered = true; /* the step before this one succeeded */
	r = seal_state(c, e);
	if (r < 0)
		return r;
	if (c->copy_why.code)
		return err_copy(e, &c->copy_why);
	c->is_awaited = c->op != NULL;
	return c->is_awaited ? 0 : GOES_ON;
}

static int go_on(struct capture *c, struct err *e)
{
	return say(c, "cont", NULL, -1, e);
}

static int take_memory(struct capture *c, struct err *e)
{
	return ask_keeper(c, taken, keeper_take, e);
}

static int drop_state(struct capture *c, struct err *e)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "{\"fdset-id\":%d}", SET_STATE);
	return say(c, "remove-fd", text, -1, e);
}

static int drop_layer(struct capture *c, struct err *e)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "{\"node-name\":\"l%u\"}", overlay(c));
	return say(c, "blockdev-del", text, -1, e);
}

static int drop_file(struct capture *c, struct err *e)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "{\"node-name\":\"l%u-file\"}", overlay(c));
	return say(c, "blockdev-del", text, -1, e);
}

static int drop_layer_fd(struct capture *c, struct err *e)
{
	char text[64];

	(void)snprintf(text, sizeof(text), "{\"fdset-id\":%d}", KEEPER_LAYER_SET + (int)overlay(c));
	return say(c, "remove-fd", text, -1, e);
}

static bool always(const struct capture *c)
{
	(void)c;
	return true;
}

static bool is_waited_for(const struct capture *c)
{
	return c->rq->prepared != NULL;
}

static bool has_overlay(const struct capture *c)
{
	return c->rq->overlay_fd >= 0;
}

static bool goes_on(const struct capture *c)
{
	return !c->rq->stay_stopped;
}

static bool was_stopped(const struct capture *c)
{
	return c->is_stopped;
}

static bool has_layer(const struct capture *c)
{
	return c->layer_added && !c->rq->is_layered;
}

static bool has_file(const struct capture *c)
{
	return c->file_added && !c->rq->is_layered;
}

static bool has_layer_fd(const struct capture *c)
{
	return c->layer_lent && !c->rq->is_layered;
}

static bool has_state(const struct capture *c)
{
	return c->state_lent;
}

struct capture_step {
	bool (*applies)(const struct capture *c);
	int (*run)(struct capture *c, struct err *e); /* 0: next() comes; GOES_ON: it does not */
};

static const struct capture_step steps[] = {
	{always, lend_state},	     {has_overlay, lend_layer}, {has_overlay, add_file},
	{has_overlay, add_layer},    {always, prepare_memory},	{is_waited_for, hold},
	{always, stop},		     {always, copy_memory},	{always, save_state},
	{has_overlay, move_to_layer}, {always, await_memory},	{goes_on, go_on},
	{always, take_memory},	     {always, drop_state},
};

/* After a failure. What fails on this way was not done before. */
static const struct capture_step way_back[] = {
	{was_stopped, go_on},	 {has_state, drop_state},      {has_layer, drop_layer},
	{has_file, drop_file}, {has_layer_fd, drop_layer_fd},
};

/* ---- walking ---- */

static void finish(struct capture *c, const struct err *why)
{
	struct driver_capture *rq = c->rq;
	struct err e = ERR_INIT;

	if (why) {
		err_copy(&e, why);
		(void)sys_close(c->memory_fd);
		(void)sys_close(c->state_fd);
	} else {
		rq->memory_fd = c->memory_fd;
		rq->state_fd = c->state_fd;
		rq->pause_us = c->pause_us;
		rq->copied_bytes = c->copied_bytes;
		c->machine->is_held = rq->stay_stopped;
	}
	(void)sys_close(c->state_out);
	c->machine->capture = NULL;
	free(c);
	rq->req.done(&rq->req, e.code ? &e : NULL);
}

static void note(struct capture *c)
{
	if (c->is_back || c->at == 0 || steps[c->at - 1].run != go_on)
		return;
	c->pause_us = (sys_now_ns() - c->stopped_ns) / NS_PER_US;
	c->is_stopped = false;
}

static void turn_back(struct capture *c, const struct err *why)
{
	err_copy(&c->why, why);
	c->op = NULL; /* a copy that is still made is not wanted */
	c->is_back = true;
	c->at = 0;
}

/* @why: of the step before; on the way back it says nothing. */
static void next(struct capture *c, const struct err *why)
{
	struct err e = ERR_INIT;
	int r;

	if (why && !c->is_back)
		turn_back(c, why);
	else
		note(c);
	for (;;) {
		const struct capture_step *table = c->is_back ? way_back : steps;
		size_t n = c->is_back ? ARRAY_LEN(way_back) : ARRAY_LEN(steps);

		if (c->at == n) {
			finish(c, c->is_back ? &c->why : NULL);
			return;
		}
		table += c->at++;
		if (!table->applies(c))
			continue;
		e = (struct err)ERR_INIT;
		r = table->run(c, &e);
		if (r == 0)
			return;
		if (r < 0 && !c->is_back)
			turn_back(c, &e);
	}
}

int kept_capture(struct machine *m, struct driver_capture *rq, struct err *e)
{
	struct capture *c;
	int r;

	rq->is_layered = false;
	if (m->state != KEPT_UP || !m->monitor)
		return err_set(e, ERR_GONE, "the machine does not run");
	if (m->capture || m->flatten)
		return err_set(e, ERR_CONFLICT, "the machine is being copied");
	c = mem_new(sizeof(*c));
	*c = (struct capture){
		.machine = m, .rq = rq, .at = 1, .state_fd = -1, .state_out = -1, .memory_fd = -1};
	m->capture = c;
	r = steps[0].run(c, e); /* so that no completion comes from inside the call */
	if (r < 0) {
		m->capture = NULL;
		(void)sys_close(c->state_fd);
		(void)sys_close(c->state_out);
		free(c);
	}
	return r;
}

void kept_capture_now(struct machine *m, const struct err *why)
{
	struct capture *c = m->capture;

	assert(c && c->is_held);
	c->is_held = false;
	next(c, why);
}

void capture_end(struct machine *m, const struct err *why)
{
	if (m->capture)
		finish(m->capture, why);
}

void capture_forget(struct machine *m)
{
	struct capture *c = m->capture;

	m->capture = NULL;
	if (!c)
		return;
	(void)sys_close(c->memory_fd);
	(void)sys_close(c->state_fd);
	(void)sys_close(c->state_out);
	free(c);
}
