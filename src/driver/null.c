/*
 * driver/null.c - machines that are nothing
 *
 * A *world* is what a real driver's keeper would hold: a machine that runs whether or not
 * an engine knows it. A *machine* is an engine's object for it. An *op* is a call under way.
 */
#include "driver/null.h"
#include <errno.h>
#include <stdlib.h>
#include "base/macro.h"
#include "base/mem.h"
#include "driver/driver.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"

struct world {
	struct list link; /* in the script's worlds; alone without a script */
	struct id id;
	struct machine *machine; /* whose engine knows it; NULL: nobody */
	int host_fd, guest_fd;	 /* the link's ends; guest's: -1 when a test plays it */
	uint64_t memory_bytes, pids_max;
	bool dead;
	struct err why;
};

struct op {
	struct list link; /* in the machine's ops */
	struct machine *machine;
	struct driver_req *req;
	enum null_call call;
	struct null_step step;
	struct loop_call soon;
	struct loop_timer later;
};

/* NEW -> (start) UP -> GONE; adopt begins as NEW and ends as UP. gone() is told on the way from UP. */
enum machine_state { MACHINE_NEW, MACHINE_UP, MACHINE_GONE };

struct machine {
	struct loop *loop;
	struct null_script *script;
	struct id id;
	struct machine_events ev;
	enum machine_state state;
	struct world *world; /* NULL before a start and after the end */
	int link_fd;
	struct list ops;
	struct loop_call gone;
	struct loop_timer death;
	uint64_t memory_bytes, pids_max;
	struct list held; /* in the script's held, when its destroy never completes */
	struct driver_req prepare;
	struct driver_capture *capture; /* prepared, or about to be; waits for capture_now(); NULL: none */
};

/* The one script of this thread: a driver's calls have no argument a test could own. */
static _Thread_local struct null_script *current;

/* ---- worlds ---- */

static struct world *world_free(struct world *w)
{
	if (!w)
		return NULL;
	list_del(&w->link);
	(void)sys_close(w->host_fd);
	(void)sys_close(w->guest_fd);
	free(w);
	return NULL;
}

static int world_new(struct machine *m, struct world **ret, struct err *e)
{
	struct world *w;
	int pair[2], r;

	r = sys_socketpair(pair);
	if (r < 0)
		return err_sys(e, r, "make a link");
	w = mem_new(sizeof(*w));
	*w = (struct world){
		.id = m->id,
		.host_fd = pair[0],
		.guest_fd = pair[1],
		.memory_bytes = m->memory_bytes,
		.pids_max = m->pids_max,
	};
	list_init(&w->link);
	if (m->script)
		list_add_tail(&m->script->worlds, &w->link);
	*ret = w;
	return 0;
}

static struct world *world_find(struct null_script *s, const struct id *id)
{
	if (!s)
		return NULL;
	LIST_FOR_EACH(l, &s->worlds) {
		struct world *w = LIST_ENTRY(l, struct world, link);

		if (id_eq(&w->id, id))
			return w;
	}
	return NULL;
}

/* ---- the end of a machine ---- */

static void tell_gone(struct loop_call *c)
{
	struct machine *m = CONTAINER_OF(c, struct machine, gone);

	if (m->state != MACHINE_UP || !m->world)
		return;
	m->state = MACHINE_GONE; /* DRIVER-2 */
	m->ev.gone(m->ev.arg, &m->world->why);
}

static void world_die(struct world *w, const struct err *why)
{
	if (w->dead)
		return;
	w->dead = true;
	(void)err_copy(&w->why, why);
	w->guest_fd = sys_close(w->guest_fd);
	if (w->machine && w->machine->state == MACHINE_UP)
		loop_defer(w->machine->loop, &w->machine->gone, tell_gone);
}

static void death_due(struct loop_timer *t)
{
	struct machine *m = CONTAINER_OF(t, struct machine, death);
	struct err why = ERR_INIT;

	(void)err_set(&why, ERR_GONE, "the script ended the machine");
	if (m->world)
		world_die(m->world, &why);
}

static void machine_up(struct machine *m, struct world *w)
{
	m->world = w;
	w->machine = m;
	m->state = MACHINE_UP;
	m->link_fd = sys_dup(w->host_fd);
	if (w->dead)
		loop_defer(m->loop, &m->gone, tell_gone);
	else if (m->script && m->script->dies_after_ns)
		loop_timer_set(m->loop, &m->death, loop_now(m->loop) + m->script->dies_after_ns,
			       death_due);
}

/* ---- machines ---- */

static struct machine *machine_new(struct loop *l, const struct id *id, const struct machine_events *ev)
{
	struct machine *m = mem_new(sizeof(*m));

	*m = (struct machine){.loop = l, .script = current, .id = *id, .ev = *ev, .link_fd = -1};
	list_init(&m->ops);
	list_init(&m->held);
	return m;
}

static void op_free(struct op *op)
{
	list_del(&op->link);
	loop_call_cancel(op->machine->loop, &op->soon);
	loop_timer_cancel(op->machine->loop, &op->later);
	free(op);
}

static void machine_free(struct machine *m)
{
	LIST_FOR_EACH_SAFE(l, &m->ops)
		op_free(LIST_ENTRY(l, struct op, link));
	loop_call_cancel(m->loop, &m->gone);
	loop_timer_cancel(m->loop, &m->death);
	list_del(&m->held);
	if (m->world && !m->script)
		m->world = world_free(m->world);
	else if (m->world)
		m->world->machine = NULL;
	(void)sys_close(m->link_fd);
	free(m);
}

/* ---- calls: what the script says, and when ---- */

static struct null_step next_step(struct null_script *s, enum null_call call, const struct id *id)
{
	struct null_step step = {.mode = NULL_OK};
	unsigned nth;

	if (!s)
		return step;
	nth = ++s->seen[call];
	step = s->steps[call];
	if (s->choose)
		s->choose(s, call, id, nth, &step);
	if (step.mode != NULL_OK && step.why.code == 0)
		(void)err_set(&step.why, ERR_INTERNAL, "the script says so");
	return step;
}

/* What a call that succeeds does, at the moment it completes. */
static int do_start(struct machine *m, struct op *op, struct err *e)
{
	struct world *w = NULL;
	int r = world_new(m, &w, e);

	(void)op;
	if (r < 0)
		return r;
	machine_up(m, w);
	if (m->script && m->script->agent)
		m->script->agent(m->script, &m->id, take_fd(&w->guest_fd));
	return 0;
}

static int do_adopt(struct machine *m, struct op *op, struct err *e)
{
	struct world *w = world_find(m->script, &m->id);

	(void)op;
	if (!w)
		return err_set(e, ERR_NOT_FOUND, "no such machine");
	if (w->machine)
		return err_set(e, ERR_CONFLICT, "the machine is known already");
	machine_up(m, w);
	return 0;
}

static int do_usage(struct machine *m, struct op *op, struct err *e)
{
	struct driver_usage_req *r = CONTAINER_OF(op->req, struct driver_usage_req, req);

	if (!m->world)
		return err_set(e, ERR_GONE, "the machine does not run");
	r->usage = (struct machine_usage){
		.memory_max_bytes = m->world->memory_bytes,
		.pids_max = m->world->pids_max,
	};
	return 0;
}

/* A copy of nothing: two empty files. */
static int do_capture(struct machine *m, struct op *op, struct err *e)
{
	struct driver_capture *c = CONTAINER_OF(op->req, struct driver_capture, req);
	int memory, state;

	if (!m->world)
		return err_set(e, ERR_GONE, "the machine does not run");
	memory = sys_memfd("memory", 0);
	if (memory < 0)
		return err_sys(e, memory, "make a memory file");
	state = sys_memfd("state", 0);
	if (state < 0) {
		(void)sys_close(memory);
		return err_sys(e, state, "make a state file");
	}
	c->memory_fd = memory;
	c->state_fd = state;
	c->is_layered = c->overlay_fd >= 0;
	return 0;
}

static int do_stop(struct machine *m, struct op *op, struct err *e)
{
	struct err why = ERR_INIT;

	(void)op;
	(void)e;
	(void)err_set(&why, ERR_GONE, "stopped");
	if (m->world)
		world_die(m->world, &why);
	return 0;
}

static int do_nothing(struct machine *m, struct op *op, struct err *e)
{
	(void)m;
	(void)op;
	(void)e;
	return 0;
}

static int (*const effects[NULL_CALLS_N])(struct machine *m, struct op *op, struct err *e) = {
	[NULL_START] = do_start, [NULL_ADOPT] = do_adopt,   [NULL_USAGE] = do_usage,
	[NULL_STOP] = do_stop,	 [NULL_CAPTURE] = do_capture, [NULL_RESUME] = do_nothing,
	[NULL_LOAD] = do_nothing, [NULL_FLATTEN] = do_nothing, [NULL_PREPARE] = do_nothing,
};

/* Frees the op, then completes its request: the callback may destroy the machine. */
static void op_complete(struct op *op)
{
	struct err why = op->step.why;
	struct driver_req *req = op->req;
	int r = op->step.mode == NULL_OK ? effects[op->call](op->machine, op, &why) : -why.code;

	op_free(op);
	req->done(req, r < 0 ? &why : NULL);
}

static void op_soon(struct loop_call *c)
{
	op_complete(CONTAINER_OF(c, struct op, soon));
}

static void op_later(struct loop_timer *t)
{
	op_complete(CONTAINER_OF(t, struct op, later));
}

static int op_begin(struct machine *m, enum null_call call, struct driver_req *req, struct err *e)
{
	struct null_step step = next_step(m->script, call, &m->id);
	struct op *op;

	if (step.mode == NULL_REFUSE)
		return err_copy(e, &step.why);
	op = mem_new(sizeof(*op));
	*op = (struct op){.machine = m, .req = req, .call = call, .step = step};
	if (step.mode == NULL_OK)
		op->step.why = (struct err)ERR_INIT;
	list_add_tail(&m->ops, &op->link);
	if (step.mode == NULL_NEVER)
		return 0;
	if (step.after_ns)
		loop_timer_set(m->loop, &op->later, loop_now(m->loop) + step.after_ns, op_later);
	else
		loop_defer(m->loop, &op->soon, op_soon);
	return 0;
}

/* ---- the driver ---- */

static const char *null_wall(const struct keeper *k)
{
	(void)k;
	return "null";
}

static int null_probe(const struct keeper *k, struct err *e)
{
	(void)k;
	(void)e;
	return 0;
}

static int null_create(struct loop *l, struct keeper *k, const struct machine_spec *s,
		       const struct machine_events *ev, struct machine **ret, struct err *e)
{
	struct null_step step = next_step(current, NULL_CREATE, &s->id);
	struct machine *m;

	(void)k;
	if (step.mode != NULL_OK)
		return err_copy(e, &step.why);
	m = machine_new(l, &s->id, ev);
	m->memory_bytes = s->memory_mb * MIB;
	m->pids_max = s->pids_max;
	*ret = m;
	return 0;
}

static int null_start(struct machine *m, const struct machine_spec *s, struct driver_req *r,
		      struct err *e)
{
	(void)s;
	return op_begin(m, NULL_START, r, e);
}

static int null_adopt(struct loop *l, struct keeper *k, const struct id *id,
		      const struct machine_events *ev, struct driver_req *req, struct machine **ret,
		      struct err *e)
{
	struct machine *m = machine_new(l, id, ev);
	int r = op_begin(m, NULL_ADOPT, req, e);

	(void)k;
	if (r < 0) {
		machine_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

static int null_take_link(struct machine *m)
{
	return take_fd(&m->link_fd);
}

static int null_pid(const struct machine *m)
{
	(void)m;
	return 0;
}

static int null_usage(struct machine *m, struct driver_usage_req *r, struct err *e)
{
	return op_begin(m, NULL_USAGE, &r->req, e);
}

static void null_prepared(struct driver_req *r, const struct err *why)
{
	struct machine *m = CONTAINER_OF(r, struct machine, prepare);
	struct driver_capture *c = m->capture;

	if (!why) {
		c->prepared(c);
		return;
	}
	m->capture = NULL;
	c->req.done(&c->req, why);
}

static int null_capture(struct machine *m, struct driver_capture *c, struct err *e)
{
	int r;

	c->is_layered = false;
	if (!c->prepared)
		return op_begin(m, NULL_CAPTURE, &c->req, e);
	m->prepare.done = null_prepared;
	r = op_begin(m, NULL_PREPARE, &m->prepare, e);
	if (r == 0)
		m->capture = c;
	return r;
}

static void null_capture_now(struct machine *m, const struct err *why)
{
	struct driver_capture *c = take_ptr(&m->capture);
	struct err e = ERR_INIT;

	err_copy(&e, why);
	if (why || op_begin(m, NULL_CAPTURE, &c->req, &e) < 0)
		c->req.done(&c->req, &e);
}

static int null_load(struct machine *m, struct driver_req *r, struct err *e)
{
	return op_begin(m, NULL_LOAD, r, e);
}

static int null_flatten(struct machine *m, unsigned first, unsigned node, struct driver_req *r, struct err *e)
{
	(void)first;
	(void)node;
	return op_begin(m, NULL_FLATTEN, r, e);
}

static int null_resume(struct machine *m, struct driver_req *r, struct err *e)
{
	return op_begin(m, NULL_RESUME, r, e);
}

static int null_stop(struct machine *m, unsigned grace_ms, struct driver_req *r, struct err *e)
{
	(void)grace_ms;
	return op_begin(m, NULL_STOP, r, e);
}

/* DRIVER-3: what is in flight is canceled before the destroy completes. */
static void cancel_ops(struct machine *m, const struct op *but)
{
	struct err why = ERR_INIT;

	(void)err_set(&why, ERR_CANCELED, "the machine is destroyed");
	LIST_FOR_EACH_SAFE(l, &m->ops) {
		struct op *op = LIST_ENTRY(l, struct op, link);
		struct driver_req *req = op->req;

		if (op == but)
			continue;
		op_free(op);
		req->done(req, &why);
	}
	if (m->capture) { /* nobody said to go on */
		struct driver_capture *c = take_ptr(&m->capture);

		c->req.done(&c->req, &why);
	}
}

static void destroy_due(struct op *op)
{
	struct machine *m = op->machine;
	struct driver_req *req = op->req;
	struct err why = op->step.why;
	bool fails = op->step.mode == NULL_FAIL;

	cancel_ops(m, op);
	if (!fails)
		m->world = world_free(m->world);
	machine_free(m);
	req->done(req, fails ? &why : NULL);
}

static void destroy_soon(struct loop_call *c)
{
	destroy_due(CONTAINER_OF(c, struct op, soon));
}

static void destroy_later(struct loop_timer *t)
{
	destroy_due(CONTAINER_OF(t, struct op, later));
}

static void cancel_soon(struct loop_call *c)
{
	struct op *op = CONTAINER_OF(c, struct op, soon);

	cancel_ops(op->machine, op);
}

static void null_destroy(struct machine *m, struct driver_req *r)
{
	struct op *op = mem_new(sizeof(*op));

	*op = (struct op){
		.machine = m,
		.req = r,
		.call = NULL_DESTROY,
		.step = next_step(m->script, NULL_DESTROY, &m->id),
	};
	list_add_tail(&m->ops, &op->link);
	m->state = MACHINE_GONE; /* no `gone` from here on */
	loop_timer_cancel(m->loop, &m->death);
	LIST_FOR_EACH(l, &m->ops) {
		struct op *other = LIST_ENTRY(l, struct op, link);

		loop_call_cancel(m->loop, &other->soon);
		loop_timer_cancel(m->loop, &other->later);
	}
	if (op->step.mode == NULL_NEVER && m->script) {
		list_add_tail(&m->script->held, &m->held);
		loop_defer(m->loop, &op->soon, cancel_soon);
	} else if (op->step.after_ns) {
		loop_timer_set(m->loop, &op->later, loop_now(m->loop) + op->step.after_ns,
			       destroy_later);
	} else {
		loop_defer(m->loop, &op->soon, destroy_soon);
	}
}

static void null_forget(struct machine *m)
{
	machine_free(m);
}

const struct driver driver_null = {
	.name = "null",
	.caps = DRIVER_CAN_CAPTURE,
	.wall = null_wall,
	.probe = null_probe,
	.create = null_create,
	.start = null_start,
	.adopt = null_adopt,
	.load = null_load,
	.take_link = null_take_link,
	.pid = null_pid,
	.usage = null_usage,
	.capture = null_capture,
	.capture_now = null_capture_now,
	.flatten = null_flatten,
	.resume = null_resume,
	.stop = null_stop,
	.destroy = null_destroy,
	.forget = null_forget,
};

/* ---- scripts ---- */

void null_script_begin(struct null_script *s)
{
	list_init(&s->worlds);
	list_init(&s->held);
	current = s;
}

void null_script_end(struct null_script *s)
{
	LIST_FOR_EACH_SAFE(l, &s->held)
		machine_free(LIST_ENTRY(l, struct machine, held));
	LIST_FOR_EACH_SAFE(l, &s->worlds)
		(void)world_free(LIST_ENTRY(l, struct world, link));
	if (current == s)
		current = NULL;
}

unsigned null_script_running(const struct null_script *s)
{
	unsigned n = 0;

	LIST_FOR_EACH(l, &s->worlds)
		n += !LIST_ENTRY(l, struct world, link)->dead;
	return n;
}

int null_script_kill(struct null_script *s, const struct id *id, const struct err *why)
{
	struct world *w = world_find(s, id);

	if (!w)
		return -ENOENT;
	world_die(w, why);
	return 0;
}
