/* engine/capture.c - layer, prepare, freeze, copy, thaw, seal */
#include "engine/capture.h"
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/engine_int.h"
#include "engine/sandbox.h"
#include "engine/sets.h"
#include "engine/step.h"
#include "loop/link.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum {
	FREEZE_MS = 100,   /* the first try; its programs stand still that long at most */
	FREEZE_TRIES = 4,  /* each four times as long as the one before */
	SYNC_MS = 10000,
	ANSWER_MS = 15000, /* beyond that: a guest that doesn't answer keeps nobody waiting */
	WATCH_MS = 1000,   /* looks whether it can answer at all */
};

enum phase {
	PHASE_FLATTEN,
	PHASE_MERGE,
	PHASE_SYNC,
	PHASE_LAYER,
	PHASE_PREPARE,
	PHASE_FREEZE,
	PHASE_COPY,
	PHASE_GO,
	PHASE_THAW,
	PHASE_SEAL,
	PHASE_UNDO,
	PHASES,
};

/* Those that a set's stages tell. */
static const char *const names[PHASES] = {
	[PHASE_FLATTEN] = "flatten", [PHASE_MERGE] = "merge",	[PHASE_SYNC] = "sync", [PHASE_LAYER] = "layer",
	[PHASE_PREPARE] = "prepare", [PHASE_FREEZE] = "freeze", [PHASE_COPY] = "copy", [PHASE_THAW] = "thaw",
	[PHASE_SEAL] = "seal",
};

struct capture {
	struct engine *engine;
	struct sandbox *sb; /* NULL: ended; waits for the driver or a job to let go of it */
	struct capture_call *call;
	enum phase phase;
	struct work job;
	struct err job_error, why;
	int overlay_fd;
	unsigned layer; /* its number */
	struct stream *said;
	unsigned freezes;	 /* tries so far */
	struct loop_timer watch; /* the guest's answer */
	uint64_t late_ns;	 /* it should be there by then */
	struct driver_capture copy;
	bool is_lent; /* the driver has it: `copied` follows */
	uint64_t entered_ns, us[PHASES];
	struct driver_req go;
	struct set *set;
	bool undo_waits;
};

static void go_on(struct capture *c);

static const struct engine_host *host_of(const struct capture *c)
{
	return c->engine->host;
}

static void close_overlay(struct capture *c)
{
	if (c->overlay_fd >= 0)
		host_of(c)->close_fd(host_of(c)->arg, c->overlay_fd);
	c->overlay_fd = -1;
}

static void enter(struct capture *c, enum phase to)
{
	uint64_t now = loop_now(c->engine->loop);

	if (c->entered_ns)
		c->us[c->phase] += (now - c->entered_ns) / NS_PER_US;
	c->entered_ns = now;
	c->phase = to;
}

static void note_stages(struct capture *c)
{
	struct str s = STR_INIT(sizeof(c->set->stages));

	enter(c, c->phase);
	for (unsigned i = 0; i < PHASES; i++)
		if (names[i] && c->us[i])
			step_add_stage(&s, names[i], c->us[i]);
	if (!s.failed && s.len <= sizeof(c->set->stages)) {
		memcpy(c->set->stages, s.p, s.len);
		c->set->stages_n = s.len;
	}
	str_deinit(&s);
}

static void finish(struct capture *c, const struct err *why)
{
	struct sandbox *sb = c->sb;
	struct capture_call *call = c->call;
	struct set *set;
	struct err e = ERR_INIT;

	if (c->set)
		note_stages(c);
	set = take_ptr(&c->set);
	err_copy(&e, why);
	close_overlay(c);
	loop_timer_cancel(c->engine->loop, &c->watch);
	sb->capture = NULL;
	health_release(sb);
	if (sb->link && !(call->stay && !e.code && set))
		link_release(sb->link);
	if (e.code)
		set = set_unref(set);
	free(c);
	call->done(call, set, e.code ? &e : NULL);
}

/* ---- undoing the layer ---- */

static void run_drop(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	(void)host_of(c)->layers_drop(host_of(c)->arg, &c->sb->id, c->layer, &c->job_error);
}

/* The walk back of the sandbox waited for this job. */
static void walk_on(struct capture *c)
{
	struct sandbox *sb = c->sb;

	c->undo_waits = false;
	finish(c, &sb->reason);
	step_undo_link(&sb->plan);
}

static void dropped(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	if (c->undo_waits)
		walk_on(c);
	else
		finish(c, &c->why);
}

static void fail(struct capture *c, const struct err *why)
{
	if (!c->why.code)
		err_copy(&c->why, why);
	close_overlay(c);
	if (c->layer == 0 || c->copy.is_layered) {
		finish(c, &c->why);
		return;
	}
	enter(c, PHASE_UNDO);
	c->job.run = run_drop;
	c->job.done = dropped;
	work_submit(c->sb->engine->pool, &c->job);
}

/* ---- what the guest is asked ---- */

static void on_watch(struct loop_timer *t);

static void watch(struct capture *c)
{
	struct loop *l = c->engine->loop;

	loop_timer_set(l, &c->watch, loop_now(l) + WATCH_MS * NS_PER_MS, on_watch);
}

static int ask(struct capture *c, unsigned method, const struct rec_type *type, const void *rec, unsigned ms,
	       const struct stream_ops *ops, struct err *e)
{
	int r = link_call(c->sb->link, method, type, rec, false, NULL, 0, ops, c, &c->said, e);

	if (r < 0)
		return r;
	c->late_ns = loop_now(c->engine->loop) + (ms + (uint64_t)ANSWER_MS) * NS_PER_MS;
	watch(c);
	return 0;
}

static void answered(struct capture *c)
{
	c->said = NULL;
	loop_timer_cancel(c->engine->loop, &c->watch);
}

/* ---- seal: what its machine may go on writing to, if it was taken over, nobody else gets ---- */

static void run_seal(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	(void)host_of(c)->layers_seal(host_of(c)->arg, &c->sb->id, c->layer, &c->job_error);
}

static void sealed(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	if (c->undo_waits)
		walk_on(c);
	else if (c->job_error.code)
		fail(c, &c->job_error);
	else
		finish(c, NULL);
}

static void seal(struct capture *c)
{
	enter(c, PHASE_SEAL);
	c->job.run = run_seal;
	c->job.done = sealed;
	work_submit(c->sb->engine->pool, &c->job);
}

/* ---- thaw ---- */

/* A machine that stays stopped, or a workload that stays frozen, is no running sandbox. */
static void stuck(struct capture *c, const struct err *why)
{
	struct err e = ERR_INIT;

	enter(c, PHASE_THAW); /* the driver does not have it any more */
	err_copy(&e, why);
	err_wrap(&e, "the guest did not go on");
	sandbox_break(c->sb, &e); /* ends us */
}

static void thawed(struct stream *s, const struct err *why)
{
	struct capture *c = stream_arg(s);

	answered(c);
	if (why) {
		stuck(c, why);
	} else if (c->why.code) {
		fail(c, &c->why);
	} else if (c->copy.is_layered) {
		seal(c);
	} else {
		finish(c, NULL);
	}
}

static void thaw(struct capture *c)
{
	static const struct stream_ops ops = {.closed = thawed};
	struct err e = ERR_INIT;

	enter(c, PHASE_THAW);
	link_release(c->sb->link);
	if (ask(c, METHOD_GUEST_THAW, &rec_empty_type, &(struct rec_empty){0}, 0, &ops, &e) < 0)
		stuck(c, &e);
}

static void gone_on(struct driver_req *r, const struct err *why)
{
	struct capture *c = CONTAINER_OF(r, struct capture, go);

	if (!c->sb) {
		free(c);
		return;
	}
	if (why)
		stuck(c, why);
	else
		thaw(c);
}

static void go_on(struct capture *c)
{
	struct err e = ERR_INIT;

	enter(c, PHASE_GO);
	c->go.done = gone_on;
	if (c->sb->driver->resume(c->sb->machine, &c->go, &e) < 0)
		stuck(c, &e);
}

/* ---- copy ---- */

static struct snap_manifest manifest_of(const struct capture *c)
{
	const struct sandbox *sb = c->sb;
	const struct engine *g = sb->engine;
	const struct keeper_host *h = g->keeper ? keeper_host(g->keeper) : NULL;
	bool is_machine = sb->driver->caps & DRIVER_CAN_CAPTURE; /* files need no particular host */
	struct snap_manifest m = {
		.sandbox = sb->id,
		.parent = sb->parent,
		.tsc_khz = h && is_machine ? h->tsc_khz : 0,
		.vcpus = sb->verdict.vcpus,
		.memory_mb = sb->verdict.memory_mb,
		.disk_mb = sb->verdict.disk_mb,
		.pids_max = sb->verdict.pids_max,
		.layers = !is_machine ? 0 : c->layer ? c->layer : sb->layers,
		.created_ms = loop_unix_ms(g->loop),
		.generation = sb->generation,
	};
	const struct {
		char *to;
		size_t size;
		const char *from;
	} texts[] = {
		{m.kind, sizeof(m.kind), c->call->kind},
		{m.tenant, sizeof(m.tenant), sb->tenant},
		{m.owner, sizeof(m.owner), sb->owner},
		{m.template, sizeof(m.template), sb->template},
		{m.image, sizeof(m.image), sb->image_digest},
		{m.driver, sizeof(m.driver), sb->driver->name},
		{m.closure, sizeof(m.closure), sb->closure},
		{m.cpu, sizeof(m.cpu), is_machine ? set_cpu_here(g) : ""},
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		span_copy(span_of(texts[i].from), texts[i].to, texts[i].size);
	return m;
}

/* It was not frozen, or nobody knows. */
static void not_copied(struct capture *c, const struct err *why)
{
	if (c->phase == PHASE_FREEZE) {
		stream_reset(take_ptr(&c->said));
		loop_timer_cancel(c->engine->loop, &c->watch);
		link_release(c->sb->link);
	}
	fail(c, why);
}

static void copied(struct driver_req *r, const struct err *why)
{
	struct capture *c = CONTAINER_OF(CONTAINER_OF(r, struct driver_capture, req), struct capture, copy);
	struct snap_manifest m;

	c->is_lent = false;
	if (!c->sb) {
		if (!why) {
			set_close_memory(c->engine, &c->copy.memory_fd);
			host_of(c)->close_fd(host_of(c)->arg, c->copy.state_fd);
		}
		free(c);
		return;
	}
	if (c->phase != PHASE_COPY) {
		not_copied(c, why);
		return;
	}
	if (c->copy.is_layered) {
		c->sb->layers = c->layer + 1;
		c->sb->node++;
		(void)sandbox_save(c->sb, NULL);
	}
	if (why) {
		err_copy(&c->why, why);
		thaw(c); /* the driver let it run on */
		return;
	}
	m = manifest_of(c);
	if (host_of(c)->random(host_of(c)->arg, m.id.b, ID_BYTES) < 0)
		memset(m.id.b, 0, ID_BYTES);
	c->set = set_new(c->sb->engine, &m, c->copy.memory_fd, c->copy.state_fd);
	c->set->pause_us = c->copy.pause_us;
	if (c->call->stay)
		finish(c, NULL);
	else
		thaw(c);
}

/* ---- freeze ---- */

/* What was asked of the driver comes back as failed. */
static void give_up(struct capture *c, const struct err *why)
{
	if (!c->is_lent) {
		fail(c, why);
		return;
	}
	enter(c, PHASE_PREPARE);
	c->sb->driver->capture_now(c->sb->machine, why);
}

static void copy_files(struct capture *c)
{
	struct err e = ERR_INIT;

	if (c->sb->driver->capture(c->sb->machine, &c->copy, &e) == 0) {
		c->is_lent = true;
		return;
	}
	err_copy(&c->why, &e);
	thaw(c);
}

static void freeze(struct capture *c);

static void frozen(struct stream *s, const struct err *why)
{
	struct capture *c = stream_arg(s);

	answered(c);
	if (why) {
		link_release(c->sb->link);
		if (why->code == ERR_BUSY && c->freezes < FREEZE_TRIES)
			freeze(c);
		else
			give_up(c, why);
		return;
	}
	enter(c, PHASE_COPY);
	if (c->is_lent)
		c->sb->driver->capture_now(c->sb->machine, NULL);
	else
		copy_files(c);
}

static void freeze(struct capture *c)
{
	static const struct stream_ops ops = {.closed = frozen};
	const unsigned ms = FREEZE_MS << 2 * c->freezes++;
	const struct rec_guest_freeze rec = {.timeout_ms = ms};
	struct err e = ERR_INIT;

	enter(c, PHASE_FREEZE);
	if (ask(c, METHOD_GUEST_FREEZE, &rec_guest_freeze_type, &rec, ms, &ops, &e) < 0)
		give_up(c, &e);
	else
		link_hold(c->sb->link);
}

/* ---- prepare: most of a copy is made while its programs run ---- */

static void prepared(struct driver_capture *d)
{
	struct capture *c = CONTAINER_OF(d, struct capture, copy);

	if (c->sb) /* else its machine is about to be destroyed, which ends the copy */
		freeze(c);
}

static void prepare(struct capture *c)
{
	struct err e = ERR_INIT;

	enter(c, PHASE_PREPARE);
	c->copy.prepared = prepared;
	c->copy.overlay_fd = c->overlay_fd;
	if (c->sb->driver->capture(c->sb->machine, &c->copy, &e) < 0)
		fail(c, &e);
	else
		c->is_lent = true;
}

/* ---- layer ---- */

static void added(struct work *w);

static void run_add(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	(void)host_of(c)->layers_add(host_of(c)->arg, &c->sb->id, c->layer, c->sb->verdict.disk_mb * MIB,
				     &c->overlay_fd, &c->job_error);
}

static void added(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	if (c->undo_waits)
		walk_on(c);
	else if (c->job_error.code) {
		c->layer = 0;
		fail(c, &c->job_error);
	} else
		prepare(c);
}

static void add_layer(struct capture *c)
{
	enter(c, PHASE_LAYER);
	c->layer = c->sb->layers;
	c->job.run = run_add;
	c->job.done = added;
	work_submit(c->sb->engine->pool, &c->job);
}

/* ---- sync: a snapshot's disk alone is worth having, so nothing of it is only in memory ---- */

static void sync_data(struct stream *s, uint64_t offset, struct span bytes)
{
	(void)offset;
	stream_consumed(s, bytes.n);
}

static void synced(struct stream *s, const struct err *why)
{
	struct capture *c = stream_arg(s);

	answered(c);
	(void)why; /* a guest without such a program has its memory all the same */
	if (link_is_up(c->sb->link))
		add_layer(c);
	else
		fail(c, why);
}

static void sync_disk(struct capture *c)
{
	static const struct stream_ops ops = {.data = sync_data, .closed = synced};
	const struct rec_exec_start rec = {.command = span_of("sync"), .timeout_ms = SYNC_MS};
	struct err e = ERR_INIT;

	enter(c, PHASE_SYNC);
	if (ask(c, METHOD_EXEC_START, &rec_exec_start_type, &rec, SYNC_MS, &ops, &e) < 0)
		fail(c, &e);
}

/* ---- a guest that does not answer ---- */

/*
 * A freeze that comes after all is followed by a thaw: order on the link is kept. One that
 * was frozen and does not thaw is no running sandbox.
 */
static void too_late(struct capture *c, const struct err *why)
{
	static const struct stream_ops deaf = {0};
	struct stream *s = NULL;

	stream_reset(take_ptr(&c->said));
	if (c->phase == PHASE_THAW) {
		sandbox_break(c->sb, why); /* ends us */
		return;
	}
	if (c->phase == PHASE_FREEZE) {
		link_release(c->sb->link);
		(void)link_call(c->sb->link, METHOD_GUEST_THAW, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0,
				&deaf, NULL, &s, NULL);
	}
	give_up(c, why);
}

static bool lacks_room(const struct sandbox *sb)
{
	return sb->driver->lacks_room && sb->driver->lacks_room(sb->machine);
}

/* A machine that waits for room on this host's disk can't answer; it goes on when there is some, and thaws. */
static void on_watch(struct loop_timer *t)
{
	struct capture *c = CONTAINER_OF(t, struct capture, watch);
	bool is_full = lacks_room(c->sb);
	struct err e = ERR_INIT;

	if (is_full && c->phase != PHASE_THAW) {
		err_set(&e, ERR_LIMIT, "the disk that holds hotcell's state is full, and the sandbox waits for room on "
			"it; remove snapshots or sandboxes (hotcell list, hotcell snapshot list), or make room");
		too_late(c, &e);
	} else if (is_full || loop_now(c->engine->loop) < c->late_ns) {
		watch(c);
	} else {
		err_set(&e, ERR_TIMEOUT, "the guest did not answer within %d s", ANSWER_MS / 1000);
		too_late(c, &e);
	}
}

static void begin(struct capture *c)
{
	if (c->call->stay) /* no disk to go on with */
		prepare(c);
	else if (strcmp(c->call->kind, "snapshot") == 0)
		sync_disk(c);
	else
		add_layer(c);
}

/*
 * ---- flatten: a disk of as many layers as there may be becomes one of two ----
 *
 * Or is one already, and the daemon before died before it could write that down.
 */

static void run_merge(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	(void)host_of(c)->layers_flatten(host_of(c)->arg, &c->sb->id, c->sb->layers, &c->job_error);
}

static void merged(struct work *w)
{
	struct capture *c = CONTAINER_OF(w, struct capture, job);

	if (!c->job_error.code) {
		c->sb->layers = 2;
		(void)sandbox_save(c->sb, NULL);
	}
	if (c->undo_waits)
		walk_on(c);
	else if (c->job_error.code)
		fail(c, &c->job_error);
	else
		begin(c);
}

static void flattened(struct driver_req *r, const struct err *why)
{
	struct capture *c = CONTAINER_OF(r, struct capture, go);

	if (!c->sb) {
		free(c);
		return;
	}
	if (why) {
		fail(c, why);
		return;
	}
	enter(c, PHASE_MERGE);
	c->job.run = run_merge;
	c->job.done = merged;
	work_submit(c->sb->engine->pool, &c->job);
}

static int flatten(struct capture *c, struct err *e)
{
	const struct sandbox *sb = c->sb;

	enter(c, PHASE_FLATTEN);
	c->go.done = flattened;
	return sb->driver->flatten(sb->machine, sb->node + 2 - sb->layers, sb->node, &c->go, e);
}

int capture_check_memory(const struct sandbox *sb, struct err *e)
{
	if (!sb->driver || sb->driver->caps & DRIVER_CAN_CAPTURE)
		return 0;
	return err_set(e, ERR_UNSUPPORTED, "a %s sandbox has no memory of its own to copy: hotcell snapshot create and "
		       "hotcell create --snapshot clone its files; isolation vm has all", sb->driver->name);
}

/* Of a driver that can't copy memory, a snapshot has the files. */
static bool is_of_files(const struct sandbox *sb, const struct capture_call *call)
{
	return sb->driver->caps & DRIVER_CAN_COPY_FILES && strcmp(call->kind, "snapshot") == 0;
}

static int check(const struct sandbox *sb, const struct capture_call *call, struct err *e)
{
	int r = is_of_files(sb, call) ? 0 : capture_check_memory(sb, e);

	if (r == 0)
		r = sandbox_check_running(sb, e);
	if (r < 0)
		return r;
	if (sb->capture)
		return err_set(e, ERR_CONFLICT, "sandbox %s is being copied", sb->id_text);
	return 0;
}

static struct capture *capture_new(struct sandbox *sb, struct capture_call *call)
{
	struct capture *c = mem_new(sizeof(*c));

	*c = (struct capture){.engine = sb->engine, .sb = sb, .call = call, .overlay_fd = -1,
			      .copy = {.req.done = copied,
				       .overlay_fd = -1,
				       .node = sb->node,
				       .stay_stopped = call->stay,
				       .memory_fd = -1,
				       .state_fd = -1}};
	sb->capture = c;
	health_hold(sb);
	return c;
}

int capture_start(struct sandbox *sb, struct capture_call *call, struct err *e)
{
	struct capture *c;
	int r = check(sb, call, e);

	if (r < 0)
		return r;
	c = capture_new(sb, call);
	if (is_of_files(sb, call))
		freeze(c);
	else if (sb->layers < LIMIT_DISK_LAYERS || (call->stay && !sb->is_adopted))
		begin(c);
	else if ((r = flatten(c, e)) < 0) {
		sb->capture = NULL;
		health_release(sb);
		free(c);
	}
	return r;
}

void capture_go_on(struct sandbox *sb, struct capture_call *call)
{
	call->stay = false;
	go_on(capture_new(sb, call));
}

/* ---- the end ---- */

bool capture_holds(struct sandbox *sb)
{
	struct capture *c = sb->capture;

	if (!c)
		return false;
	if (c->phase == PHASE_MERGE || c->phase == PHASE_LAYER || c->phase == PHASE_SEAL || c->phase == PHASE_UNDO) {
		c->undo_waits = true;
		return true;
	}
	if (c->phase == PHASE_FLATTEN || c->is_lent || c->phase == PHASE_GO) {
		struct capture_call *call = c->call;

		/* The driver has it: its answer, which comes before the machine is gone, frees it. */
		close_overlay(c);
		c->said = NULL; /* goes with the link */
		loop_timer_cancel(c->engine->loop, &c->watch);
		sb->capture = NULL;
		c->sb = NULL;
		call->done(call, NULL, &sb->reason);
	} else {
		c->said = NULL;
		finish(c, &sb->reason);
	}
	return false;
}

void capture_drop(struct sandbox *sb)
{
	struct capture *c = sb->capture;

	if (!c)
		return;
	close_overlay(c);
	loop_timer_cancel(c->engine->loop, &c->watch);
	sb->capture = NULL;
	(void)set_unref(c->set);
	free(c);
}
