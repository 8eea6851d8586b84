/* driver/monitor.c - say hello to QEMU, then listen */
#include "driver/monitor.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/qmp.h"

enum {
	OUT_MAX = 4096,		/* a flush and a hello, or one command */
	READ_BYTES = 16 * 1024, /* per turn: a hostile QEMU delays nobody else */
};

/* HELLO -> READY -> DOWN; HELLO -> DOWN */
enum monitor_state { MONITOR_HELLO, MONITOR_READY, MONITOR_DOWN };

struct monitor {
	struct loop *loop;
	struct monitor_ops ops;
	void *arg;
	int fd;
	enum monitor_state state;
	uint64_t hello_id;
	struct loop_io io;
	struct loop_timer late;
	struct qmp_parser parser;
	struct str out;
	int out_fd;	   /* travels with the first byte of @out; -1: none */
	struct list calls; /* the first one is said, the others wait */
	uint64_t next_id;
	bool *freed; /* set by monitor_free() while a callback is under way */
};

/* The call is its caller's again. */
static void forget(struct monitor_call *c)
{
	list_del(&c->link);
	str_deinit(&c->line);
	c->fd = sys_close(c->fd);
}

static void go_down(struct monitor *m, const struct err *why)
{
	bool freed = false;

	loop_io_del(m->loop, &m->io);
	loop_timer_cancel(m->loop, &m->late);
	m->state = MONITOR_DOWN;
	m->freed = &freed;
	while (!list_empty(&m->calls)) {
		struct monitor_call *c = LIST_ENTRY(m->calls.next, struct monitor_call, link);

		forget(c);
		c->done(c, why);
		if (freed)
			return;
	}
	m->freed = NULL;
	m->ops.down(m->arg, why);
}

static void on_late(struct loop_timer *t)
{
	struct monitor *m = CONTAINER_OF(t, struct monitor, late);
	struct err e;

	(void)err_set(&e, ERR_TIMEOUT, "QEMU's monitor did not answer within %d s",
		      (m->state == MONITOR_HELLO ? MONITOR_HELLO_MS : MONITOR_ANSWER_MS) / 1000);
	go_down(m, &e);
}

/* ---- commands ---- */

/* Say the first call, unless one is under way: MON-3. */
static void say_next(struct monitor *m)
{
	struct monitor_call *c;

	if (list_empty(&m->calls) || m->out.len)
		return;
	c = LIST_ENTRY(m->calls.next, struct monitor_call, link);
	str_add_mem(&m->out, c->line.p, c->line.len);
	m->out_fd = c->fd;
	(void)loop_io_set(m->loop, &m->io, LOOP_READ | LOOP_WRITE);
	loop_timer_set(m->loop, &m->late, loop_now(m->loop) + MONITOR_ANSWER_MS * NS_PER_MS, on_late);
}

int monitor_call(struct monitor *m, const char *name, const char *arguments, int fd,
		 struct monitor_call *c, struct err *e)
{
	int own = fd < 0 ? -1 : sys_dup(fd);

	if (m->state != MONITOR_READY || (fd >= 0 && own < 0)) {
		(void)sys_close(own);
		return fd >= 0 && own < 0 ? err_sys(e, own, "lend QEMU a descriptor")
					  : err_set(e, ERR_GONE, "QEMU's monitor does not answer");
	}
	c->line = (struct str)STR_INIT(OUT_MAX);
	c->id = ++m->next_id;
	c->fd = own;
	qmp_command(&c->line, name, arguments, c->id);
	list_add_tail(&m->calls, &c->link);
	if (m->calls.next == &c->link)
		say_next(m);
	return 0;
}

static void answer(struct monitor *m, const struct qmp_message *msg)
{
	struct monitor_call *c;
	struct err why = ERR_INIT;

	if (list_empty(&m->calls) || m->out.len) /* nobody can answer what was not said: @out_fd is the call's */
		return;
	c = LIST_ENTRY(m->calls.next, struct monitor_call, link);
	if (msg->id != c->id)
		return;
	loop_timer_cancel(m->loop, &m->late);
	forget(c);
	say_next(m);
	if (msg->kind == QMP_ERROR)
		(void)err_set(&why, ERR_INTERNAL, "QEMU: %s", msg->text);
	c->text = msg->text;
	c->done(c, msg->kind == QMP_ERROR ? &why : NULL);
}

/*
 * MON-1. An error is an answer, too: once negotiated, QEMU knows no such command any more.
 */
static void take(struct monitor *m, const struct qmp_message *msg)
{
	if (msg->kind == QMP_EVENT) {
		m->ops.event(m->arg, msg);
		return;
	}
	if (msg->kind == QMP_GREETING)
		return;
	if (m->state == MONITOR_READY) {
		answer(m, msg); /* perhaps the last of @m */
		return;
	}
	if (m->state != MONITOR_HELLO || msg->id != m->hello_id || m->out.len)
		return;
	m->state = MONITOR_READY;
	loop_timer_cancel(m->loop, &m->late);
	m->ops.ready(m->arg);
}

/* Return: 1 while there may be more, 0 when not now or freed from below; -ERR_* when it is over. */
static int read_some(struct monitor *m, struct err *e)
{
	char bytes[READ_BYTES];
	unsigned none = 0;
	ssize_t n = sys_recv(m->fd, bytes, sizeof(bytes), NULL, &none);
	struct span in = {bytes, n > 0 ? (size_t)n : 0};
	struct qmp_message msg;
	bool freed = false;
	int r;

	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return err_sys(e, (int)n, "read QEMU's monitor");
	if (n == 0)
		return err_set(e, ERR_GONE, "QEMU closed its monitor");
	m->freed = &freed;
	while ((r = qmp_parse(&m->parser, &in, &msg, e)) > 0) {
		take(m, &msg);
		if (freed)
			return 0;
	}
	m->freed = NULL;
	return r < 0 ? r : 1;
}

static int write_some(struct monitor *m, struct err *e)
{
	struct iovec iov = {m->out.p, m->out.len};
	ssize_t n = sys_send(m->fd, &iov, 1, &m->out_fd, m->out_fd >= 0);

	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return err_sys(e, (int)n, "write to QEMU's monitor");
	m->out_fd = -1; /* the call keeps it */
	memmove(m->out.p, m->out.p + n, m->out.len - (size_t)n);
	m->out.len -= (size_t)n;
	if (m->out.len == 0)
		(void)loop_io_set(m->loop, &m->io, LOOP_READ);
	return 0;
}

static void on_io(struct loop_io *io, unsigned events)
{
	struct monitor *m = CONTAINER_OF(io, struct monitor, io);
	struct err e = ERR_INIT;
	int r = 0;

	if (events & LOOP_WRITE && m->out.len)
		r = write_some(m, &e);
	if (r == 0 && events & (LOOP_READ | LOOP_HANGUP))
		r = read_some(m, &e); /* the last use of @m unless it failed */
	if (r < 0)
		go_down(m, &e);
}

int monitor_new(struct loop *l, int fd, bool used, const struct monitor_ops *ops, void *arg,
		struct monitor **ret, struct err *e)
{
	struct monitor *m = mem_new(sizeof(*m));
	int r;

	*m = (struct monitor){.loop = l, .ops = *ops, .arg = arg, .fd = fd, .out = STR_INIT(OUT_MAX), .out_fd = -1};
	list_init(&m->calls);
	qmp_parser_init(&m->parser, used);
	r = sys_random(&m->hello_id, sizeof(m->hello_id));
	if (r == 0)
		r = sys_nonblock(fd, true);
	if (r == 0)
		r = loop_io_add(l, &m->io, fd, LOOP_READ | LOOP_WRITE, on_io);
	if (r < 0) {
		(void)monitor_free(m);
		return err_sys(e, r, "talk to QEMU's monitor");
	}
	m->hello_id = m->hello_id % (QMP_ID_MAX / 2) + 1; /* nobody before us used it */
	if (used)
		qmp_flush(&m->out);
	m->next_id = m->hello_id;
	qmp_command(&m->out, "qmp_capabilities", NULL, m->hello_id);
	loop_timer_set(l, &m->late, loop_now(l) + MONITOR_HELLO_MS * NS_PER_MS, on_late);
	*ret = m;
	return 0;
}

struct monitor *monitor_free(struct monitor *m)
{
	if (!m)
		return NULL;
	if (m->freed)
		*m->freed = true;
	loop_io_del(m->loop, &m->io);
	loop_timer_cancel(m->loop, &m->late);
	while (!list_empty(&m->calls))
		forget(LIST_ENTRY(m->calls.next, struct monitor_call, link));
	qmp_parser_deinit(&m->parser);
	str_deinit(&m->out);
	(void)sys_close(m->fd);
	free(m);
	return NULL;
}

void monitor_drain(struct monitor *m)
{
	enum { ROUNDS = 16 };

	for (int i = 0; i < ROUNDS && m->state != MONITOR_DOWN; i++)
		if (read_some(m, NULL) <= 0)
			return;
}
