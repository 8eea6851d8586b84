/*
 * loop/fuzz_link.c - a whole link against a peer that sends anything.
 *
 * The input is a little program: the first byte picks the side (0 responder, 1 initiator, plus 2: our callbacks
 * misbehave, 4: the peer does not introduce itself, 8: descriptors may travel, 16: somebody used the wire before),
 * the rest are operations that build frames, mostly well-formed, or raw bytes, and now and then let the wire take
 * nothing. Whatever comes, at most one `down`, `closed` at most once per stream, no more bytes held than credit
 * given, every descriptor that was handed over is closed once, and no leak.
 *
 * The wire is memory: what the link does to its descriptor comes here (the linker's --wrap, meson.build), so that an
 * input costs no system call but the loop's own.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/bytes.h"
#include "wire/frame.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum {
	STREAMS = 64,
	WIRE = 1 << 30,		 /* our descriptors are numbers no process has */
	PASSED = WIRE + 1,	 /* and those that travel on it */
	PASSED_MAX = 4096,
	IN_MAX = 1 << 17,
	BULK_MAX = 3 * FRAME_PAYLOAD_MAX, /* of payloads that are made up, an input: more only takes time */
	INPUT_MAX = 256,		  /* likewise */
};

/* ---- the wire ---- */

static struct {
	struct loop_io *io;
	bool is_open, is_shut, is_full; /* shut: by the peer; full: it takes nothing now */
	unsigned char in[IN_MAX];
	size_t n, at;
	int fds[FRAME_FDS_MAX]; /* with the first byte of what comes next */
	unsigned n_fds;
	unsigned char said[FRAME_PAD_MAX + FRAME_SYNC]; /* first by the link */
	size_t n_said;
	unsigned n_passed;
	bool passed_open[PASSED_MAX];
} wire;

int __real_sys_close(int fd);
int __real_sys_dup(int fd);
int __real_sys_nonblock(int fd, bool on);
ssize_t __real_sys_read(int fd, void *p, size_t n);
ssize_t __real_sys_write(int fd, const void *p, size_t n);
int __real_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events));
int __real_loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void __real_loop_io_del(struct loop *l, struct loop_io *io);

int __wrap_sys_close(int fd);
int __wrap_sys_dup(int fd);
int __wrap_sys_nonblock(int fd, bool on);
ssize_t __wrap_sys_read(int fd, void *p, size_t n);
ssize_t __wrap_sys_write(int fd, const void *p, size_t n);
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

static ssize_t get(void *p, size_t n)
{
	n = MIN(n, wire.n - wire.at);
	if (n == 0)
		return wire.is_shut ? 0 : -EAGAIN;
	memcpy(p, wire.in + wire.at, n);
	wire.at += n;
	if (wire.at == wire.n)
		wire.at = wire.n = 0;
	return (ssize_t)n;
}

static ssize_t put(const void *p, size_t n)
{
	size_t room = sizeof(wire.said) - wire.n_said;

	if (wire.is_shut)
		return -EPIPE;
	if (wire.is_full)
		return -EAGAIN;
	memcpy(wire.said + wire.n_said, p, MIN(n, room));
	wire.n_said += MIN(n, room);
	return (ssize_t)n;
}

ssize_t __wrap_sys_read(int fd, void *p, size_t n)
{
	return fd < WIRE ? __real_sys_read(fd, p, n) : get(p, n);
}

ssize_t __wrap_sys_write(int fd, const void *p, size_t n)
{
	return fd < WIRE ? __real_sys_write(fd, p, n) : put(p, n);
}

ssize_t __wrap_sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds)
{
	assert(fd == WIRE && n_iov == 1);
	for (unsigned i = 0; i < n_fds; i++)
		assert(wire.passed_open[fds[i] - PASSED]);
	return put(iov[0].iov_base, iov[0].iov_len);
}

ssize_t __wrap_sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds)
{
	ssize_t r = get(p, n);
	unsigned passed = r > 0 ? wire.n_fds : 0, room = *n_fds;

	assert(fd == WIRE);
	*n_fds = 0;
	if (r <= 0)
		return r;
	wire.n_fds = 0;
	for (unsigned i = 0; i < passed; i++)
		if (passed > room)
			(void)__wrap_sys_close(wire.fds[i]);
		else
			fds[(*n_fds)++] = wire.fds[i];
	return passed > room ? -EPROTO : r;
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

/* As epoll would: what there is to do, as long as the link wants to be told. */
static void serve_wire(void)
{
	unsigned events = 0;

	if (!wire.io)
		return;
	if (wire.n > wire.at || wire.is_shut)
		events |= LOOP_READ;
	if (!wire.is_full || wire.is_shut)
		events |= LOOP_WRITE;
	events &= wire.io->events;
	if (events)
		wire.io->cb(wire.io, events);
}

/* ---- our side ---- */

struct peer {
	struct loop *l;
	struct link *k;
	bool initiator, rude, passes;
	unsigned downs, ups, turn;
	size_t bulk;
	struct slot {
		struct peer *peer;
		struct stream *s;
		bool used, closed;
		uint64_t held;
	} slots[STREAMS];
};

static struct slot *slot_of(struct stream *s)
{
	struct slot *slot = stream_arg(s);

	assert(slot->used && !slot->closed); /* LINK-1, LINK-2 */
	return slot;
}

static struct slot *free_slot(struct peer *x)
{
	for (int i = 0; i < STREAMS; i++)
		if (!x->slots[i].used)
			return &x->slots[i];
	return NULL;
}

static void reset(struct slot *slot)
{
	stream_reset(slot->s);
	*slot = (struct slot){0};
}

/* Sometimes, in any callback: reset the stream, or free the link. */
static bool rudely(struct peer *x, struct slot *slot)
{
	if (!x->rude || ++x->turn % 7)
		return false;
	if (x->turn % 3 == 0)
		x->k = link_free(x->k);
	else if (slot)
		reset(slot);
	return true;
}

static void take_fds(const struct peer *x, const int *fds, unsigned n_fds)
{
	assert(fds && (n_fds == 0 || x->passes) && n_fds <= FRAME_FDS_MAX);
	for (unsigned i = 0; i < n_fds; i++)
		(void)__wrap_sys_close(fds[i]);
}

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct rec_exec_started rec;

	take_fds(slot_of(s)->peer, fds, n_fds);
	(void)rec_decode(&rec_exec_started_type, payload.p, payload.n, &rec, NULL);
	(void)rudely(slot_of(s)->peer, slot_of(s));
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct slot *slot = slot_of(s);
	volatile unsigned char touch = 0;

	for (size_t i = 0; i < bytes.n; i++)
		touch = (unsigned char)(touch ^ bytes.p[i]);
	assert(offset <= UINT64_MAX - bytes.n);
	slot->held += bytes.n;
	assert(slot->held <= LIMIT_WINDOW);
	if (rudely(slot->peer, slot))
		return;
	if (bytes.n % 3) {
		stream_consumed(s, (size_t)slot->held);
		slot->held = 0;
	}
}

static void on_writable(struct stream *s)
{
	struct slot *slot = slot_of(s);

	if (!rudely(slot->peer, slot))
		(void)stream_send(s, "more", 4);
}

static void on_end(struct stream *s, uint64_t offset)
{
	(void)offset;
	if (!rudely(slot_of(s)->peer, slot_of(s)))
		stream_end(s);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct slot *slot = slot_of(s);
	struct peer *x = slot->peer;

	assert(!why || why->code > 0);
	*slot = (struct slot){0};
	(void)rudely(x, NULL);
}

static const struct stream_ops stream_ops = {on_reply, on_data, on_writable, on_end, on_closed};

static void on_up(struct link *k, uint64_t generation)
{
	struct peer *x = link_arg(k);
	struct rec_failure rec = {span_of("question")};
	struct slot *slot;

	(void)generation;
	x->ups++;
	while (x->ups == 1 && x->k && link_streams(k) < 8 && (slot = free_slot(x))) {
		int fd = pass();

		*slot = (struct slot){.peer = x, .used = true};
		if (fd < 0 || link_call(k, 20, &rec_failure_type, &rec, link_streams(k) % 2, &fd, x->passes,
					&stream_ops, slot, &slot->s, NULL) < 0)
			abort();
		(void)__wrap_sys_close(fd); /* lent */
		if (link_streams(k) % 2 == 0)
			(void)stream_send(slot->s, "input", 5);
	}
}

static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload, const int *fds,
		       unsigned n_fds)
{
	static char block[70000];
	struct peer *x = link_arg(k);
	struct slot *slot = free_slot(x);
	struct rec_failure rec = {span_of("answer")};

	take_fds(x, fds, n_fds);
	if (!slot || method % 5 == 4) {
		stream_reset(s);
		return;
	}
	(void)rec_decode(&rec_exec_start_type, payload.p, payload.n, &(struct rec_exec_start){0}, NULL);
	*slot = (struct slot){.peer = x, .s = s, .used = true};
	stream_accept(s, &stream_ops, slot);
	if (method % 5 == 3 || rudely(x, slot))
		return; /* answers never */
	if (stream_reply(s, &rec_failure_type, &rec, method % 5, NULL, 0, NULL) < 0)
		abort();
	if (method % 5) {
		(void)stream_send(s, block, sizeof(block));
		if (method % 5 == 2)
			stream_skip(s, stream_sent(s) + 1000);
	}
}

static void on_down(struct link *k, const struct err *why)
{
	struct peer *x = link_arg(k);

	assert(why && why->code > 0);
	assert(++x->downs == 1);
	for (int i = 0; i < STREAMS; i++)
		assert(!x->slots[i].used); /* all streams were closed before */
	assert(link_streams(k) == 0);
}

static const struct link_ops link_ops = {on_up, on_request, on_down};

/* ---- the peer's side ---- */

static void turns(struct peer *x, int n)
{
	while (n--) {
		serve_wire();
		if (loop_turn(x->l, 0) < 0)
			abort();
	}
}

static void say(struct peer *x, const void *p, size_t n)
{
	while (wire.n + n > IN_MAX && wire.io && (wire.io->events & LOOP_READ))
		turns(x, 1);
	if (wire.is_shut || wire.n + n > IN_MAX) /* it reads nothing: this is lost */
		return;
	memcpy(wire.in + wire.n, p, n);
	wire.n += n;
}

static void introduce(struct peer *x)
{
	unsigned char block[FRAME_SYNC];

	turns(x, 1);
	if (x->initiator) /* repeat its question */
		memcpy(block, wire.said + wire.n_said - FRAME_SYNC, FRAME_SYNC);
	else
		frame_put_sync(block, &(struct frame_sync){1, 1, {1}, 2});
	say(x, block, sizeof(block));
	turns(x, 2);
}

struct tape {
	const unsigned char *p;
	size_t n;
};

static uint64_t take(struct tape *t, unsigned bytes)
{
	uint64_t v = 0;

	for (; bytes && t->n; bytes--, t->n--)
		v = v << 8 | *t->p++;
	return v;
}

/* op: 0-5 a frame of that type + 1, 6 raw bytes, 7 SYNC, 8 hang up, or the wire is full or not, 9 pads */
static void operation(struct peer *x, struct tape *t)
{
	static unsigned char frame[FRAME_HEAD + FRAME_PAYLOAD_MAX + 1];
	unsigned op = (unsigned)take(t, 1), len;
	struct frame f = {.type = (uint8_t)(op % 10 + 1)};

	if (op % 10 == 6) {
		len = (unsigned)MIN(take(t, 1), t->n);
		say(x, t->p, len);
		t->p += len;
		t->n -= len;
	} else if (op % 10 == 7) {
		frame_put_sync(frame, &(struct frame_sync){1, (uint16_t)(1 + op / 128), {(unsigned char)op}, op});
		say(x, frame, FRAME_SYNC);
	} else if (op % 10 == 8 && op > 200) {
		wire.is_shut = true;
	} else if (op % 10 == 8) {
		wire.is_full = op > 100;
	} else if (op % 10 == 9) {
		memset(frame, 0, op);
		say(x, frame, op);
	} else if (op % 10 < 6) {
		f.stream = (uint32_t)take(t, 1);
		f.arg = (uint32_t)take(t, 1);
		f.offset = op & 64 ? take(t, 8) : take(t, 3);
		f.fds = op > 245 ? (uint8_t)take(t, 1) : op > 235;
		wire.n_fds = MIN(wire.n_fds, 8u);
		for (; x->passes && wire.n_fds < MIN(f.fds, FRAME_FDS_MAX); wire.n_fds++)
			if ((wire.fds[wire.n_fds] = pass()) < 0)
				break;
		len = (unsigned)take(t, 1);
		f.len = len < 128 ? (uint32_t)MIN(len, t->n) : len * 257;
		if (len >= 128 && (x->bulk += f.len) > BULK_MAX)
			f.len = 16;
		memset(frame + FRAME_HEAD, 0, f.len);
		if (len < 128) {
			memcpy(frame + FRAME_HEAD, t->p, f.len);
			t->p += f.len;
			t->n -= f.len;
		}
		frame_put(frame, &f);
		frame[FRAME_HEAD + f.len] = FRAME_TRAILER;
		say(x, frame, FRAME_HEAD + f.len + 1);
	}
	turns(x, 1);
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	static struct loop *l;
	struct tape t = {p, MIN(n, (size_t)INPUT_MAX)};
	struct peer *x = mem_new(sizeof(*x));
	unsigned kind = (unsigned)take(&t, 1), flags;

	if (!l && loop_new(true, &l) < 0)
		abort();
	x->l = l;
	x->initiator = kind & 1;
	x->rude = kind & 2;
	x->passes = kind & 8;
	flags = (x->initiator ? LINK_INITIATOR : 0) | (x->passes ? LINK_FDS : kind & 16 ? LINK_RESYNC : LINK_SOCKET);
	wire.is_open = true;
	if (link_new(l, WIRE, flags, 1, &link_ops, x, &x->k, NULL) < 0)
		abort();
	if (!(kind & 4))
		introduce(x);
	while (t.n && x->k && !x->downs)
		operation(x, &t);
	wire.is_full = false;
	turns(x, 10);
	x->k = link_free(x->k);
	turns(x, 1);
	for (unsigned i = 0; i < wire.n_fds; i++)
		(void)__wrap_sys_close(wire.fds[i]);
	assert(!wire.is_open && !wire.io);
	for (unsigned i = 0; i < wire.n_passed; i++)
		assert(!wire.passed_open[i]);
	wire.n = wire.at = wire.n_fds = wire.n_passed = wire.n_said = 0;
	wire.is_shut = false;
	free(x);
	return 0;
}
