/*
 * driver/fuzz_monitor.c - the monitor's whole life with a hostile QEMU
 *
 * The first byte picks what we do (1: somebody used the monitor before, 2: our callbacks misbehave, 4: QEMU does not
 * answer our hello, 8: its bytes come one at a time), the rest are operations: answers in any order, events, raw
 * bytes, calls of ours, silence, a wire that takes nothing. Whatever comes: each call is completed once, or never
 * when the monitor was freed first, not from inside a call; `ready` and `down` come at most once and nothing comes
 * after `down`; commands go out one at a time; every descriptor is closed once, and no leak.
 *
 * The wire is memory (the linker's --wrap, meson.build), and so an input costs no system call.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "driver/monitor.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/qmp.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum {
	CALLS = 8,
	WIRE = 1 << 30, /* our descriptors are numbers no process has */
	PASSED = WIRE + 1,
	PASSED_MAX = 512,
	IN_MAX = 1 << 17,
	INPUT_MAX = 512, /* more only takes time */
};

/* ---- the wire ---- */

static struct {
	struct loop_io *io;
	bool is_open, is_shut, is_full;
	unsigned char in[IN_MAX];
	size_t n, at, piece; /* piece: of one read */
	unsigned n_lines;    /* that the monitor said */
	unsigned n_passed;
	bool passed_open[PASSED_MAX];
} wire;

int __real_sys_close(int fd);
int __real_sys_dup(int fd);
int __real_sys_nonblock(int fd, bool on);
int __real_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events));
int __real_loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void __real_loop_io_del(struct loop *l, struct loop_io *io);

int __wrap_sys_close(int fd);
int __wrap_sys_dup(int fd);
int __wrap_sys_nonblock(int fd, bool on);
int __wrap_sys_random(void *p, size_t n);
ssize_t __wrap_sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds);
ssize_t __wrap_sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds);
int __wrap_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events));
int __wrap_loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void __wrap_loop_io_del(struct loop *l, struct loop_io *io);

static int pass(void)
{
	if (wire.n_passed == PASSED_MAX)
		return -EMFILE;
	wire.passed_open[wire.n_passed] = true;
	return PASSED + (int)wire.n_passed++;
}

int __wrap_sys_close(int fd)
{
	if (fd < WIRE)
		return __real_sys_close(fd);
	if (fd == WIRE) {
		assert(wire.is_open);
		wire.is_open = false;
		return -1;
	}
	assert(wire.passed_open[fd - PASSED]);
	wire.passed_open[fd - PASSED] = false;
	return -1;
}

int __wrap_sys_dup(int fd)
{
	return fd < WIRE ? __real_sys_dup(fd) : pass();
}

int __wrap_sys_nonblock(int fd, bool on)
{
	return fd < WIRE ? __real_sys_nonblock(fd, on) : 0;
}

/* The same ids for the same input. */
int __wrap_sys_random(void *p, size_t n)
{
	memset(p, 0, n);
	return 0;
}

ssize_t __wrap_sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds)
{
	size_t n = MIN(iov[0].iov_len, wire.piece * 16);

	assert(fd == WIRE && wire.is_open && n_iov == 1 && n_fds <= 1);
	if (n_fds)
		assert(wire.passed_open[fds[0] - PASSED]);
	if (wire.is_shut)
		return -EPIPE;
	if (wire.is_full)
		return -EAGAIN;
	for (size_t i = 0; i < n; i++)
		wire.n_lines += ((const char *)iov[0].iov_base)[i] == '\n';
	return (ssize_t)n;
}

ssize_t __wrap_sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds)
{
	assert(fd == WIRE && wire.is_open && !fds && *n_fds == 0);
	n = MIN(n, wire.piece);
	n = MIN(n, wire.n - wire.at);
	if (n == 0)
		return wire.is_shut ? 0 : -EAGAIN;
	memcpy(p, wire.in + wire.at, n);
	wire.at += n;
	if (wire.at == wire.n)
		wire.at = wire.n = 0;
	return (ssize_t)n;
}

int __wrap_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events))
{
	if (fd < WIRE)
		return __real_loop_io_add(l, io, fd, events, cb);
	*io = (struct loop_io){cb, fd, events, true};
	wire.io = io;
	return 0;
}

int __wrap_loop_io_set(struct loop *l, struct loop_io *io, unsigned events)
{
	if (io != wire.io)
		return __real_loop_io_set(l, io, events);
	io->events = events;
	return 0;
}

void __wrap_loop_io_del(struct loop *l, struct loop_io *io)
{
	if (io == wire.io)
		wire.io = NULL;
	else
		__real_loop_io_del(l, io);
}

/* As epoll would, until nothing is left to do. */
static void serve_wire(void)
{
	while (wire.io) {
		unsigned events = wire.n > wire.at || wire.is_shut ? LOOP_READ : 0;

		if (!wire.is_full || wire.is_shut)
			events |= LOOP_WRITE;
		events &= wire.io->events;
		if (!events)
			return;
		wire.io->cb(wire.io, events);
	}
}

/* ---- our side ---- */

struct user {
	struct loop *l;
	struct monitor *m;
	bool rude, calling;
	unsigned turn, readies, downs;
	struct slot {
		struct monitor_call call;
		struct user *user;
		bool used;
	} slots[CALLS];
};

static void end(struct user *x)
{
	x->m = monitor_free(x->m);
	for (int i = 0; i < CALLS; i++)
		x->slots[i].used = false; /* these are never completed: see done() */
}

static void call(struct user *x);

/* Sometimes, in any callback: free the monitor, or call again. */
static void rudely(struct user *x)
{
	if (!x->rude || !x->m || ++x->turn % 4)
		return;
	if (x->turn % 12 == 0)
		end(x);
	else
		call(x);
}

static void done(struct monitor_call *c, const struct err *why)
{
	struct slot *slot = CONTAINER_OF(c, struct slot, call);
	struct user *x = slot->user;

	assert(slot->used && x->m && !x->calling && x->downs == 0);
	assert(why ? why->code > 0 && why->text[0] : strlen(c->text) <= QMP_TEXT_MAX);
	memset(slot, 0xa5, sizeof(*slot)); /* it is ours again: the monitor looks at it no more */
	slot->used = false;
	rudely(x);
}

static void call(struct user *x)
{
	struct slot *slot = NULL;
	struct err e = ERR_INIT;
	int fd = x->turn % 2 ? pass() : -1;

	for (int i = 0; i < CALLS && !slot; i++)
		if (!x->slots[i].used)
			slot = &x->slots[i];
	if (slot) {
		*slot = (struct slot){.user = x, .used = true, .call.done = done};
		x->calling = true;
		if (monitor_call(x->m, "getfd", x->turn % 3 ? "{\"fdname\": \"f\"}" : NULL, fd, &slot->call, &e) < 0) {
			assert(e.code);
			slot->used = false;
		} else {
			assert(x->readies == 1);
		}
		x->calling = false;
	}
	if (fd >= 0)
		(void)__wrap_sys_close(fd); /* lent */
}

static void on_ready(void *arg)
{
	struct user *x = arg;

	assert(x->m && !x->calling && x->downs == 0 && ++x->readies == 1);
	call(x);
	rudely(x);
}

static void on_event(void *arg, const struct qmp_message *m)
{
	struct user *x = arg;

	assert(x->m && !x->calling && x->downs == 0);
	assert(m->kind == QMP_EVENT && strlen(m->name) <= QMP_TEXT_MAX && strlen(m->text) <= QMP_TEXT_MAX);
	rudely(x);
}

static void on_down(void *arg, const struct err *why)
{
	struct user *x = arg;

	assert(x->m && !x->calling && why->code > 0 && ++x->downs == 1);
	for (int i = 0; i < CALLS; i++)
		assert(!x->slots[i].used); /* all calls were completed before */
	if (x->rude)
		end(x);
}

static const struct monitor_ops ops = {on_ready, on_event, on_down};

/* ---- QEMU's side ---- */

static void say(const void *p, size_t n)
{
	if (wire.is_shut || n > IN_MAX - wire.n)
		return;
	memcpy(wire.in + wire.n, p, n);
	wire.n += n;
}

static void answer(const char *what, uint64_t id)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "{%s, \"id\": %llu}\r\n", what, (unsigned long long)id);

	say(line, (size_t)n);
}

static void say_text(const char *s)
{
	say(s, strlen(s));
}

/* The hello is number 1, our calls follow. @op / 16: which number; the next byte in raw bytes is their count. */
static void operation(struct user *x, const unsigned char **p, size_t *n)
{
	unsigned op = *(*p)++;
	size_t len;

	(*n)--;
	switch (op % 16) {
	case 0:
	case 1:
	case 2:
		answer("\"return\": {\"status\": \"running\"}", wire.n_lines + op / 16);
		break;
	case 3:
		answer("\"return\": \"text\"", op / 16);
		break;
	case 4:
		answer("\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}", wire.n_lines);
		break;
	case 5:
		say_text("{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\r\n");
		break;
	case 6:
		say_text("{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 1, \"minor\": 2, \"major\": 7}}}}\r\n");
		break;
	case 7: /* raw bytes */
		len = MIN((size_t)op / 4, *n);
		say(*p, len);
		*p += len;
		*n -= len;
		break;
	case 8:
		wire.is_full = op > 100;
		break;
	case 9:
		wire.is_shut = op > 200;
		break;
	case 10:
		x->turn++;
		loop_advance(x->l, (uint64_t)op * 200 * NS_PER_MS);
		break;
	case 11:
		monitor_drain(x->m);
		break;
	case 12:
		wire.piece = op / 16 + 1u;
		break;
	case 13: /* more before it is read */
		say_text("{\"event\": \"RESUME\"}\r\n{\"event\": \"STOP\"}\r\n");
		return;
	default:
		call(x);
	}
	if (x->m && op % 5)
		serve_wire();
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	static struct loop *l;
	static struct user user;
	struct user *x = &user;
	unsigned kind = n ? *p : 0;

	if (n == 0)
		return 0;
	if (!l && loop_new(true, &l) < 0)
		abort();
	p++;
	n = MIN(n - 1, (size_t)INPUT_MAX);
	*x = (struct user){.l = l, .rude = kind & 2};
	wire.is_open = true;
	wire.piece = kind & 8 ? 1 : 4096;
	if (monitor_new(l, WIRE, kind & 1, &ops, x, &x->m, NULL) < 0)
		abort();
	if (!(kind & 4)) {
		answer("\"return\": {}", 1);
		serve_wire();
		assert(x->readies == 1);
	}
	while (n && x->m && !x->downs)
		operation(x, &p, &n);
	wire.is_full = false;
	serve_wire();
	if (x->m && !x->downs) /* who says nothing is given up */
		loop_advance(l, (uint64_t)(MONITOR_ANSWER_MS + MONITOR_HELLO_MS) * NS_PER_MS);
	for (int i = 0; i < CALLS; i++)
		assert(!x->slots[i].used);
	end(x);
	assert(!wire.is_open && !wire.io);
	for (unsigned i = 0; i < wire.n_passed; i++)
		assert(!wire.passed_open[i]);
	wire.n = wire.at = wire.n_lines = wire.n_passed = 0;
	wire.is_shut = false;
	return 0;
}
