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
	OUT_MAX = 1024,		/* commands not taken yet: a flush and a hello */
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
	bool *freed; /* set by monitor_free() while a callback is under way */
};

static void go_down(struct monitor *m, const struct err *why)
{
	loop_io_del(m->loop, &m->io);
	loop_timer_cancel(m->loop, &m->late);
	m->state = MONITOR_DOWN;
	m->ops.down(m->arg, why);
}

static void on_late(struct loop_timer *t)
{
	struct monitor *m = CONTAINER_OF(t, struct monitor, late);
	struct err e;

	(void)err_set(&e, ERR_TIMEOUT, "QEMU's monitor did not answer within %d s", MONITOR_HELLO_MS / 1000);
	go_down(m, &e);
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
	if (m->state != MONITOR_HELLO || msg->kind == QMP_GREETING || msg->id != m->hello_id)
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
	ssize_t n = sys_send(m->fd, &iov, 1, NULL, 0);

	if (n == -EAGAIN)
		return 0;
	if (n < 0)
		return err_sys(e, (int)n, "write to QEMU's monitor");
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

	*m = (struct monitor){.loop = l, .ops = *ops, .arg = arg, .fd = fd, .out = STR_INIT(OUT_MAX)};
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
	m->hello_id = m->hello_id % QMP_ID_MAX + 1; /* nobody before us used it */
	if (used)
		qmp_flush(&m->out);
	qmp_command(&m->out, "qmp_capabilities", m->hello_id);
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
