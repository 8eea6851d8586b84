/* driver/kept.c - requests to the keeper, and what becomes of them */
#include "driver/kept.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/list.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "driver/kept_int.h"
#include "driver/monitor.h"
#include "keeper/keeper.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "wire/gen/records.h"
#include "wire/qmp.h"

enum {
	LAST_WORDS = 256,    /* bytes of a console in a sentence */
	ROOM_WAIT_MS = 1000, /* a disk that was full is tried again after that */
	DOWN_WAIT_MS = 1000, /* the monitor ended while the machine started: wait for its own last word */
};

/* ---- ops ---- */

struct op *op_new(struct machine *m, struct driver_req *req,
		  void (*done)(struct keeper_call *c, const struct err *why))
{
	struct op *op = mem_new(sizeof(*op));

	*op = (struct op){.machine = m, .req = req, .call.done = done};
	list_add_tail(&m->ops, &op->link);
	return op;
}

static void machine_free_if_idle(struct machine *m)
{
	if (m->state != KEPT_ENDING || !list_empty(&m->ops) || m->release_req)
		return;
	loop_call_cancel(m->loop, &m->cancel);
	loop_call_cancel(m->loop, &m->released);
	(void)monitor_free(m->monitor);
	(void)sys_close(m->link_fd);
	free(m);
}

void op_free(struct op *op)
{
	struct machine *m = op->machine;

	list_del(&op->link);
	free(op);
	machine_free_if_idle(m);
}

/* Take the request out of an op that is back. NULL: it was canceled. */
static struct driver_req *op_finish(struct op *op)
{
	struct driver_req *req = take_ptr(&op->req);

	op_free(op);
	return req;
}

static void complete(struct driver_req *req, const struct err *why)
{
	if (req)
		req->done(req, why);
}

/* Issue the call of an op, or forget the op. */
static int op_issued(struct op *op, int r)
{
	if (r < 0)
		op_free(op);
	return r;
}

/* ---- the end ---- */

/* What people should read first; numbers and the keeper's own words follow. */
static const char *explain(const struct machine *m, const struct rec_machine_info *info)
{
	static const struct {
		const char *event, *text;
	} events[] = {
		{"SHUTDOWN guest-reset", "its kernel restarted or panicked; "},
		{"SHUTDOWN guest-panic", "its kernel panicked; "},
		{"SHUTDOWN guest-shutdown", "it was switched off from inside; "},
	};

	if (info->signal == SIGSYS)
		return "it made a system call that its jail forbids; ";
	for (size_t i = 0; i < ARRAY_LEN(events); i++)
		if (str_eq(m->last_event, events[i].event))
			return events[i].text;
	return "";
}

/* What a console said last says most; of a kernel's panic it is the line with that word. */
static void add_reason(struct str *s, struct span reason)
{
	static const char panic[] = "Kernel panic";
	const char *colon, *from;
	size_t cause;

	if (reason.n == 0)
		return;
	colon = memchr(reason.p, ':', reason.n);
	from = memmem(reason.p, reason.n, panic, sizeof(panic) - 1);
	cause = colon ? (size_t)(colon - reason.p) : reason.n;
	str_add_escaped(s, reason.p, cause);
	if (!from && reason.n - cause > LAST_WORDS)
		from = reason.p + reason.n - LAST_WORDS;
	if (from)
		str_addf(s, ": ... ");
	else
		from = reason.p + cause;
	str_add_escaped(s, from, MIN((size_t)(reason.p + reason.n - from), (size_t)LAST_WORDS + 2));
}

static void fail_start(struct machine *m, const struct err *why)
{
	struct driver_req *req = take_ptr(&m->start_req);

	m->state = KEPT_GONE;
	loop_timer_cancel(m->loop, &m->down_timer);
	keeper_unwatch(&m->watch);
	m->monitor = monitor_free(m->monitor);
	m->link_fd = sys_close(m->link_fd);
	complete(req, why);
}

static void on_gone(struct keeper_watch *w, const struct rec_machine_info *info)
{
	struct machine *m = CONTAINER_OF(w, struct machine, watch);
	struct err why = ERR_INIT;
	struct str s = STR_INIT(ERR_TEXT_MAX);

	if (m->monitor) /* its last words may be behind the keeper's */
		monitor_drain(m->monitor);
	add_reason(&s, info->reason);
	(void)err_set(&why, ERR_GONE, "the machine ended: %s%s", explain(m, info), str_text(&s));
	str_deinit(&s);
	if (m->state == KEPT_STARTING && m->start_req) {
		fail_start(m, &why);
	} else if (m->state == KEPT_UP) {
		m->state = KEPT_GONE; /* DRIVER-2 */
		loop_timer_cancel(m->loop, &m->room);
		m->monitor = monitor_free(m->monitor);
		complete(take_ptr(&m->load_req), &why);
		complete(take_ptr(&m->resume_req), &why);
		capture_end(m, &why);
		flatten_end(m, &why);
		m->ev.gone(m->ev.arg, &why);
	}
}

/* ---- the monitor ---- */

static void up(struct machine *m)
{
	m->state = KEPT_UP;
	complete(take_ptr(&m->start_req), NULL);
}

static void say(struct machine *m, const char *name, const char *arguments,
		void (*done)(struct monitor_call *c, const struct err *why))
{
	struct err e = ERR_INIT;

	m->say.done = done;
	if (monitor_call(m->monitor, name, arguments, -1, &m->say, &e) < 0)
		fail_start(m, &e);
}

/* A fork waits for load() from here on; that it has loaded is said by an event. */
static void events_on(struct monitor_call *c, const struct err *why)
{
	struct machine *m = CONTAINER_OF(c, struct machine, say);

	if (m->state != KEPT_STARTING)
		return;
	if (why)
		fail_start(m, why);
	else
		up(m);
}

static void tidied(struct machine *m, const struct err *why)
{
	if (m->state != KEPT_STARTING)
		return;
	if (why)
		fail_start(m, why);
	else
		up(m);
}

static void on_ready(void *arg)
{
	struct machine *m = arg;

	if (m->state != KEPT_STARTING)
		return;
	if (m->monitor && m->is_fork)
		say(m, "migrate-set-capabilities",
		    "{\"capabilities\":[{\"capability\":\"events\",\"state\":true}]}", events_on);
	else if (m->monitor && m->was_adopted)
		tidy(m, tidied);
	else
		up(m);
}

static void on_loaded(struct machine *m, const char *status)
{
	struct err why = ERR_INIT;

	if (str_eq(status, "completed")) {
		complete(take_ptr(&m->load_req), NULL);
	} else if (str_eq(status, "failed")) {
		(void)err_set(&why, ERR_INVALID,
			      "QEMU can't load this state: it was made by another QEMU or is damaged");
		complete(take_ptr(&m->load_req), &why);
	}
}

/*
 * A write found this host's disk full: QEMU stops the machine, so nothing of the write is lost,
 * and leaves it to us when to go on. While the disk is full it stops again.
 */
static void tried_again(struct monitor_call *c, const struct err *why)
{
	(void)why;
	CONTAINER_OF(c, struct machine, try_again)->is_trying = false;
}

static void on_room(struct loop_timer *t)
{
	struct machine *m = CONTAINER_OF(t, struct machine, room);

	if (m->state != KEPT_UP || !m->monitor || m->is_held)
		return;
	if (m->capture || m->is_trying) {
		loop_timer_set(m->loop, &m->room, loop_now(m->loop) + ROOM_WAIT_MS * NS_PER_MS, on_room);
		return;
	}
	m->try_again.done = tried_again;
	m->is_trying = monitor_call(m->monitor, "cont", NULL, -1, &m->try_again, NULL) == 0;
}

static void on_event(void *arg, const struct qmp_message *msg)
{
	struct machine *m = arg;

	if (m->load_req && str_eq(msg->name, "MIGRATION")) {
		on_loaded(m, msg->text); /* the last use of @m */
		return;
	}
	if (m->flatten)
		flatten_event(m, msg);
	if (str_eq(msg->name, "BLOCK_IO_ERROR")) {
		if (str_eq(msg->text, strerror(ENOSPC)))
			m->no_room_ns = loop_now(m->loop) + 2 * ROOM_WAIT_MS * NS_PER_MS;
		loop_timer_set(m->loop, &m->room, loop_now(m->loop) + ROOM_WAIT_MS * NS_PER_MS, on_room);
	}
	if (str_eq(msg->name, "SHUTDOWN") || str_eq(msg->name, "GUEST_PANICKED"))
		(void)snprintf(m->last_event, sizeof(m->last_event), "%s%s%s", msg->name,
			       msg->text[0] ? " " : "", msg->text);
}

static void on_down_timer(struct loop_timer *t)
{
	struct machine *m = CONTAINER_OF(t, struct machine, down_timer);
	struct err why = m->down_why;

	fail_start(m, &why);
}

/* A monitor that ends takes only itself along; whether the machine lives, the keeper knows. */
static void on_down(void *arg, const struct err *why)
{
	struct machine *m = arg;

	if (m->state != KEPT_STARTING) { /* the one or the other, if any: it could never be answered */
		if (m->flatten)
			flatten_end(m, why);
		else
			complete(take_ptr(&m->load_req), why);
		return;
	}
	if (why->code == ERR_TIMEOUT) { /* QEMU is there, and silent */
		fail_start(m, why);
		return;
	}
	err_copy(&m->down_why, why);
	loop_timer_set(m->loop, &m->down_timer, loop_now(m->loop) + DOWN_WAIT_MS * NS_PER_MS, on_down_timer);
}

static int listen(struct machine *m, int fd, struct err *e)
{
	static const struct monitor_ops ops = {.ready = on_ready, .event = on_event, .down = on_down};

	return monitor_new(m->loop, fd, m->was_adopted, &ops, m, &m->monitor, e);
}

/* ---- start and adopt ---- */

static void started(struct keeper_call *c, const struct err *why)
{
	struct op *op = CONTAINER_OF(c, struct op, call);
	struct machine *m = op->machine;
	int monitor = c->fds[KEEPER_MONITOR];
	struct err e = ERR_INIT;
	bool is_wanted = op->req != NULL;

	(void)sys_close(c->fds[KEEPER_PIDFD]);
	if (!is_wanted || why) {
		(void)sys_close(c->fds[KEEPER_LINK]);
		(void)sys_close(monitor);
	} else {
		m->link_fd = c->fds[KEEPER_LINK];
		m->pid = c->pid;
	}
	m->start_req = take_ptr(&op->req);
	list_del(&op->link);
	free(op);
	if (!is_wanted) {
		machine_free_if_idle(m);
		return;
	}
	if (why) {
		fail_start(m, why);
	} else if (monitor >= 0) {
		if (listen(m, monitor, &e) < 0)
			fail_start(m, &e);
	} else {
		on_ready(m);
	}
}

struct machine *kept_new(struct loop *l, struct keeper *k, const struct id *id,
			 const struct machine_events *ev)
{
	struct machine *m = mem_new(sizeof(*m));

	*m = (struct machine){.loop = l, .keeper = k, .id = *id, .ev = *ev, .link_fd = -1, .top = -1};
	m->watch.gone = on_gone;
	list_init(&m->ops);
	return m;
}

const struct keeper_host *kept_host(const struct machine *m)
{
	return keeper_host(m->keeper);
}

static int began(struct machine *m, struct op *op, int r)
{
	if (op_issued(op, r) < 0)
		return r;
	m->state = KEPT_STARTING;
	keeper_watch(m->keeper, &m->id, &m->watch);
	return 0;
}

int kept_start(struct machine *m, const struct rec_machine_start *rec, const int *fds, unsigned n_fds,
	       struct driver_req *r, struct err *e)
{
	struct op *op;

	if (m->state != KEPT_NEW)
		return err_set(e, ERR_CONFLICT, "the machine was started before");
	m->is_fork = rec->forked;
	op = op_new(m, r, started);
	return began(m, op, keeper_start(m->keeper, rec, fds, n_fds, &op->call, e));
}

int kept_adopt(struct loop *l, struct keeper *k, const struct id *id, const struct machine_events *ev,
	       struct driver_req *req, struct machine **ret, struct err *e)
{
	struct machine *m = kept_new(l, k, id, ev);
	struct op *op = op_new(m, req, started);
	int r = began(m, op, keeper_adopt(k, id, &op->call, e));

	if (r < 0) {
		free(m);
		return r;
	}
	m->was_adopted = true;
	*ret = m;
	return 0;
}

int kept_take_link(struct machine *m)
{
	return take_fd(&m->link_fd);
}

int kept_top(const struct machine *m)
{
	return m->top;
}

/* It was tried again in the meantime, and would have failed again. */
bool kept_lacks_room(const struct machine *m)
{
	return m->state == KEPT_UP && loop_now(m->loop) < m->no_room_ns;
}

int kept_pid(const struct machine *m)
{
	return m->pid;
}

/* ---- usage and stop ---- */

static void told_usage(struct keeper_call *c, const struct err *why)
{
	struct op *op = CONTAINER_OF(c, struct op, call);
	struct machine_usage usage = {
		.memory_bytes = c->memory_bytes,
		.memory_max_bytes = c->memory_max_bytes,
		.cpu_us = c->cpu_us,
		.pids = c->pids,
		.pids_max = c->pids_max,
		.oom_kills = c->oom_kills,
	};
	struct driver_req *req = op_finish(op);

	if (req && !why)
		CONTAINER_OF(req, struct driver_usage_req, req)->usage = usage;
	complete(req, why);
}

int kept_usage(struct machine *m, struct driver_usage_req *r, struct err *e)
{
	struct op *op;

	if (m->state != KEPT_UP)
		return err_set(e, ERR_GONE, "the machine does not run");
	op = op_new(m, &r->req, told_usage);
	return op_issued(op, keeper_stats(m->keeper, &m->id, &op->call, e));
}

static void told(struct keeper_call *c, const struct err *why)
{
	complete(op_finish(CONTAINER_OF(c, struct op, call)), why);
}

int kept_stop(struct machine *m, unsigned grace_ms, struct driver_req *r, struct err *e)
{
	struct op *op;

	if (m->state != KEPT_UP)
		return err_set(e, ERR_GONE, "the machine does not run");
	op = op_new(m, r, told);
	return op_issued(op, keeper_stop(m->keeper, &m->id, grace_ms, &op->call, e));
}

/* ---- the files of a process sandbox ---- */

static void told_files(struct keeper_call *c, const struct err *why)
{
	uint64_t bytes = c->copied_bytes, us = c->copy_us;
	int fd = c->fds[KEEPER_LINK];
	struct driver_req *req = op_finish(CONTAINER_OF(c, struct op, call));
	struct driver_capture *rq = req ? CONTAINER_OF(req, struct driver_capture, req) : NULL;

	if (rq && !why) {
		rq->memory_fd = fd;
		rq->copied_bytes = bytes;
		rq->pause_us = us;
	} else if (!why) {
		(void)sys_close(fd);
	}
	complete(req, why);
}

int kept_copy_files(struct machine *m, struct driver_capture *c, struct err *e)
{
	struct op *op;

	if (m->state != KEPT_UP)
		return err_set(e, ERR_GONE, "the machine does not run");
	c->memory_fd = c->state_fd = -1;
	op = op_new(m, &c->req, told_files);
	return op_issued(op, keeper_take(m->keeper, &m->id, &op->call, e));
}

/* ---- load and resume ---- */

/* A failure; success is an event, later. */
static void loading(struct monitor_call *c, const struct err *why)
{
	struct machine *m = CONTAINER_OF(c, struct machine, say);

	if (why)
		complete(take_ptr(&m->load_req), why);
}

int kept_load(struct machine *m, struct driver_req *r, struct err *e)
{
	char uri[64];
	int ret;

	if (m->state != KEPT_UP || !m->monitor)
		return err_set(e, ERR_GONE, "the machine does not run");
	if (!m->is_fork || m->load_req)
		return err_set(e, ERR_CONFLICT, "there is no state to load");
	(void)snprintf(uri, sizeof(uri), "{\"uri\":\"fd:%d\"}", KEEPER_STATE_FD);
	m->say.done = loading;
	ret = monitor_call(m->monitor, "migrate-incoming", uri, -1, &m->say, e);
	if (ret == 0)
		m->load_req = r;
	return ret;
}

static void resumed(struct monitor_call *c, const struct err *why)
{
	struct machine *m = CONTAINER_OF(c, struct machine, resume);

	complete(take_ptr(&m->resume_req), why);
}

int kept_resume(struct machine *m, struct driver_req *r, struct err *e)
{
	int ret;

	if (m->state != KEPT_UP || !m->monitor)
		return err_set(e, ERR_GONE, "the machine does not run");
	if (m->resume_req)
		return err_set(e, ERR_CONFLICT, "the machine is being resumed");
	m->is_held = false;
	m->resume.done = resumed;
	ret = monitor_call(m->monitor, "cont", NULL, -1, &m->resume, e);
	if (ret == 0)
		m->resume_req = r;
	return ret;
}

/* ---- destroy and forget ---- */

/* DRIVER-3. Callbacks may do anything but touch this machine: one request at a time. */
static void cancel_requests(struct machine *m)
{
	struct err why = ERR_INIT;

	(void)err_set(&why, ERR_CANCELED, "the machine is destroyed");
	complete(take_ptr(&m->start_req), &why);
	complete(take_ptr(&m->load_req), &why);
	complete(take_ptr(&m->resume_req), &why);
	capture_end(m, &why);
	flatten_end(m, &why);
	LIST_FOR_EACH(l, &m->ops)
		complete(take_ptr(&LIST_ENTRY(l, struct op, link)->req), &why);
}

static void on_cancel(struct loop_call *c)
{
	cancel_requests(CONTAINER_OF(c, struct machine, cancel));
}

static void finish_release(struct machine *m, const struct err *why)
{
	struct driver_req *req = take_ptr(&m->release_req);

	cancel_requests(m);
	machine_free_if_idle(m);
	complete(req, why);
}

static void released(struct keeper_call *c, const struct err *why)
{
	struct op *op = CONTAINER_OF(c, struct op, call);
	struct machine *m = op->machine;

	list_del(&op->link);
	free(op);
	finish_release(m, why);
}

static void on_release_failed(struct loop_call *c)
{
	struct machine *m = CONTAINER_OF(c, struct machine, released);
	struct err why = m->release_why;

	finish_release(m, &why);
}

/* The machine is out of the engine's sight from here on. */
static void leave(struct machine *m)
{
	m->state = KEPT_ENDING;
	loop_timer_cancel(m->loop, &m->down_timer);
	loop_timer_cancel(m->loop, &m->room);
	keeper_unwatch(&m->watch);
	m->monitor = monitor_free(m->monitor);
	m->link_fd = sys_close(m->link_fd);
}

void kept_destroy(struct machine *m, struct driver_req *r)
{
	struct op *op;

	leave(m);
	m->release_req = r;
	if (m->start_req || m->load_req || m->resume_req || m->capture || m->flatten || !list_empty(&m->ops))
		loop_defer(m->loop, &m->cancel, on_cancel);
	op = op_new(m, NULL, released);
	if (keeper_release(m->keeper, &m->id, &op->call, &m->release_why) < 0) {
		list_del(&op->link);
		free(op);
		loop_defer(m->loop, &m->released, on_release_failed);
	}
}

void kept_forget(struct machine *m)
{
	leave(m);
	m->start_req = m->load_req = m->resume_req = NULL;
	capture_forget(m);
	flatten_forget(m);
	LIST_FOR_EACH(l, &m->ops)
		LIST_ENTRY(l, struct op, link)->req = NULL;
	machine_free_if_idle(m);
}
