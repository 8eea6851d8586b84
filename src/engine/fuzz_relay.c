/*
 * engine/fuzz_relay.c - relayed calls between a hostile guest and a hostile client
 *
 * The first byte picks the case (1: somebody used the guest's descriptor before, 2: our callbacks end the guest,
 * 4: calls have a limit, 8: bytes come in small pieces, 16: the guest's calls end with its link at once), the rest are
 * operations: frames of either side, mostly as the protocol wants them, wires that take nothing, hang-ups, a client
 * that begins anew, time, relay_end_all(). What both sides hear is held against what the other said:
 *
 * - bytes pass with their offsets, none beyond what the far end granted, and none behind an end or a reset;
 * - credit is given for what the far end has consumed and for nothing else, so a relay never owes more than a window;
 * - one reply, one end, one reset a stream; no callback of a stream behind its `closed` or reset (LINK-1, LINK-2);
 * - `replied`, `over`, `late`, `broken` at most once, in the order relay.h gives, and nothing behind relay_end_all();
 * - a relay is in its list as long as one of its sides is open and no longer; at the end nothing is left.
 *
 * The wires are memory (the linker's --wrap, meson.build).
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
#include "engine/relay.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/frame.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum {
	GUEST,
	CLIENT,
	SIDES,
	CALLS = 12,	/* an input */
	WIRE = 1 << 30, /* our descriptors are numbers no process has */
	IN_MAX = 1 << 19,
	BULK_MAX = 5 * LIMIT_WINDOW, /* bytes of data, an input: more only takes time */
	INPUT_MAX = 256,	     /* likewise */
	PIECE = 61,		     /* of one read or write, if they are small */
	LIMIT_MS = 5000,
	PATTERN = 251, /* a byte of data says what its offset is */
};

/* One side of a call, as its peer sees it. */
struct flow {
	struct stream *s;		 /* ours, as long as it is open */
	uint32_t id;			 /* 0: the peer has not met it */
	uint64_t said, next, acked;	 /* bytes the peer sent, its next offset, bytes it consumed */
	uint64_t heard, offset, granted; /* bytes it got, the offset behind them, credit it got */
	unsigned asked, resets;		 /* the same number may be used again; each use is reset once */
	bool replied, ended;		 /* what it heard */
};

struct call {
	struct flow sides[SIDES];
	bool is_live, is_passed;		  /* there is a relay; its request is on the guest's wire, or will be */
	unsigned replies, overs, lates, brokens; /* events */
};

struct peer {
	struct link *link;
	struct loop_io *io;
	bool is_open, is_shut, is_full, is_lost; /* shut: by the peer; lost: our link said `down` */
	unsigned char in[IN_MAX];
	size_t n, at;
	struct frame_parser parser; /* of what our link says */
	uint64_t data_at;	    /* offset of the next byte of the frame that is heard */
};

static struct {
	struct loop *l;
	struct peer peers[SIDES];
	struct call calls[CALLS];
	unsigned n_calls, n_met; /* made by the client; met by the guest */
	uint32_t next_id;
	unsigned char n_syncs; /* INPUT_MAX at most: no nonce is used twice while it counts */
	struct call *starting;
	struct list relays;
	bool is_rude, is_limited, is_piecemeal, ends_at_once;
	uint64_t still_ns;
	size_t bulk;
} x;

static unsigned char pattern[PATTERN + FRAME_PAYLOAD_MAX];
static const struct stream_ops *real_ops[SIDES];

/* ---- the wires ---- */

int __real_sys_close(int fd);
int __real_sys_nonblock(int fd, bool on);
int __real_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events));
int __real_loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void __real_loop_io_del(struct loop *l, struct loop_io *io);

int __wrap_sys_close(int fd);
int __wrap_sys_nonblock(int fd, bool on);
int __wrap_sys_random(void *p, size_t n);
ssize_t __wrap_sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds);
ssize_t __wrap_sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds);
int __wrap_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events));
int __wrap_loop_io_set(struct loop *l, struct loop_io *io, unsigned events);
void __wrap_loop_io_del(struct loop *l, struct loop_io *io);

static void hear(int side, const unsigned char *p, size_t n);

int __wrap_sys_close(int fd)
{
	if (fd < WIRE)
		return __real_sys_close(fd);
	assert(x.peers[fd - WIRE].is_open);
	x.peers[fd - WIRE].is_open = false;
	return -1;
}

int __wrap_sys_nonblock(int fd, bool on)
{
	return fd < WIRE ? __real_sys_nonblock(fd, on) : 0;
}

int __wrap_sys_random(void *p, size_t n)
{
	memset(p, 0, n);
	return 0;
}

ssize_t __wrap_sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds)
{
	struct peer *p = &x.peers[fd - WIRE];
	size_t n = x.is_piecemeal ? MIN(iov[0].iov_len, (size_t)PIECE) : iov[0].iov_len;

	assert(fd >= WIRE && p->is_open && n_iov == 1 && !fds && n_fds == 0);
	if (p->is_shut)
		return -EPIPE;
	if (p->is_full)
		return -EAGAIN;
	hear(fd - WIRE, iov[0].iov_base, n);
	return (ssize_t)n;
}

ssize_t __wrap_sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds)
{
	struct peer *from = &x.peers[fd - WIRE];

	assert(fd >= WIRE && from->is_open && fds && *n_fds == 0);
	n = MIN(n, from->n - from->at);
	n = x.is_piecemeal ? MIN(n, (size_t)PIECE) : n;
	if (n == 0)
		return from->is_shut ? 0 : -EAGAIN;
	memcpy(p, from->in + from->at, n);
	from->at += n;
	if (from->at == from->n)
		from->at = from->n = 0;
	return (ssize_t)n;
}

int __wrap_loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		       void (*cb)(struct loop_io *io, unsigned events))
{
	if (fd < WIRE)
		return __real_loop_io_add(l, io, fd, events, cb);
	*io = (struct loop_io){cb, fd, events, true};
	x.peers[fd - WIRE].io = io;
	return 0;
}

static bool is_on_wire(const struct loop_io *io)
{
	return io == x.peers[GUEST].io || io == x.peers[CLIENT].io;
}

int __wrap_loop_io_set(struct loop *l, struct loop_io *io, unsigned events)
{
	if (!is_on_wire(io))
		return __real_loop_io_set(l, io, events);
	io->events = events;
	return 0;
}

void __wrap_loop_io_del(struct loop *l, struct loop_io *io)
{
	if (!is_on_wire(io))
		__real_loop_io_del(l, io);
	else
		x.peers[io->fd - WIRE].io = NULL;
}

/* As epoll would. */
static bool serve(struct peer *p)
{
	unsigned events = p->n > p->at || p->is_shut ? LOOP_READ : 0;

	if (!p->io)
		return false;
	if (!p->is_full || p->is_shut)
		events |= LOOP_WRITE;
	events &= p->io->events;
	if (events)
		p->io->cb(p->io, events);
	return events;
}

static void check(void);

/* Until both links have done what they can. */
static void settle(void)
{
	bool again;

	do {
		again = serve(&x.peers[GUEST]);
		again |= serve(&x.peers[CLIENT]);
		if (loop_turn(x.l, 0) < 0)
			abort();
		check();
	} while (again);
	if (loop_turn(x.l, 0) < 0)
		abort();
}

/* ---- what the relay does to its streams, and they to it ---- */

int __real_link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more,
		     const int *fds, unsigned n_fds, const struct stream_ops *ops, void *arg, struct stream **ret,
		     struct err *e);
void __real_stream_accept(struct stream *s, const struct stream_ops *ops, void *arg);
void __real_stream_fail(struct stream *s, const struct err *why);
void __real_stream_reset(struct stream *s);

int __wrap_link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more,
		     const int *fds, unsigned n_fds, const struct stream_ops *ops, void *arg, struct stream **ret,
		     struct err *e);
void __wrap_stream_accept(struct stream *s, const struct stream_ops *ops, void *arg);
void __wrap_stream_fail(struct stream *s, const struct err *why);
void __wrap_stream_reset(struct stream *s);

static struct flow *flow_of(const struct stream *s)
{
	for (unsigned i = 0; i < x.n_calls * SIDES; i++)
		if (x.calls[i / SIDES].sides[i % SIDES].s == s)
			return &x.calls[i / SIDES].sides[i % SIDES];
	return NULL;
}

static const struct stream_ops *ops_of(const struct stream *s)
{
	const struct flow *f = flow_of(s);

	assert(f); /* LINK-1, LINK-2 */
	for (unsigned i = 0; i < x.n_calls; i++)
		if (f == &x.calls[i].sides[GUEST])
			return real_ops[GUEST];
	return real_ops[CLIENT];
}

static void spy_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	assert(n_fds == 0 && ops_of(s) == real_ops[GUEST]);
	real_ops[GUEST]->reply(s, payload, fds, n_fds);
}

static void spy_data(struct stream *s, uint64_t offset, struct span bytes)
{
	ops_of(s)->data(s, offset, bytes);
}

static void spy_writable(struct stream *s)
{
	ops_of(s)->writable(s);
}

static void spy_end(struct stream *s, uint64_t offset)
{
	ops_of(s)->end(s, offset);
}

static void spy_closed(struct stream *s, const struct err *why)
{
	const struct stream_ops *ops = ops_of(s);

	flow_of(s)->s = NULL;
	ops->closed(s, why);
}

static const struct stream_ops spy = {spy_reply, spy_data, spy_writable, spy_end, spy_closed};

int __wrap_link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more,
		     const int *fds, unsigned n_fds, const struct stream_ops *ops, void *arg, struct stream **ret,
		     struct err *e)
{
	int r = __real_link_call(k, method, t, rec, more, fds, n_fds, &spy, arg, ret, e);

	real_ops[GUEST] = ops;
	if (r == 0) {
		x.starting->is_live = x.starting->is_passed = true;
		x.starting->sides[GUEST].s = *ret;
	}
	return r;
}

void __wrap_stream_accept(struct stream *s, const struct stream_ops *ops, void *arg)
{
	real_ops[CLIENT] = ops;
	x.starting->sides[CLIENT].s = s;
	__real_stream_accept(s, &spy, arg);
}

static void forget(const struct stream *s)
{
	struct flow *f = flow_of(s);

	if (f)
		f->s = NULL;
}

void __wrap_stream_fail(struct stream *s, const struct err *why)
{
	forget(s);
	__real_stream_fail(s, why);
}

void __wrap_stream_reset(struct stream *s)
{
	assert(flow_of(s));
	forget(s);
	__real_stream_reset(s);
}

/* ---- events, and what must be true between any two of them ---- */

static void check(void)
{
	unsigned live = 0, listed = 0, open[SIDES] = {0};

	for (struct list *pos = x.relays.next; pos != &x.relays; pos = pos->next)
		listed++;
	for (unsigned i = 0; i < x.n_calls; i++) {
		const struct call *c = &x.calls[i];

		live += c->is_live;
		for (int side = 0; side < SIDES; side++)
			open[side] += c->sides[side].s != NULL;
		assert(c->is_live == (c->sides[GUEST].s || c->sides[CLIENT].s));
	}
	assert(live == listed);
	for (int side = 0; side < SIDES; side++)
		assert(!x.peers[side].link || link_streams(x.peers[side].link) <= open[side]);
}

static void end_all(void)
{
	struct err why = {ERR_GONE, "the guest is gone"};

	relay_end_all(&x.relays, &why);
	for (unsigned i = 0; i < x.n_calls; i++)
		x.calls[i].is_live = false;
	check();
}

static void end_guest(void)
{
	end_all();
	x.peers[GUEST].link = link_free(x.peers[GUEST].link);
}

static void on_replied(void *arg, const struct method_info *m, const void *rec)
{
	struct call *c = arg;

	assert(c->is_live && ++c->replies == 1 && m->number == METHOD_EXEC_START);
	assert(rec_check(&rec_exec_started_type, rec, NULL) == 0);
}

static void on_over(void *arg)
{
	struct call *c = arg;

	assert(c->is_live && ++c->overs == 1 && !c->sides[GUEST].s && !c->sides[CLIENT].s);
	c->is_live = false;
	check();
}

static void on_broken(void *arg, const struct err *why)
{
	struct call *c = arg;

	assert(!c->is_live && c->overs == 1 && ++c->brokens == 1 && why->code > 0 && why->text[0]);
	if (x.is_rude)
		end_guest();
}

static void on_late(void *arg, struct err *ret)
{
	struct call *c = arg;

	assert(c->is_live && ++c->lates == 1 && x.is_limited);
	c->is_live = false;
	err_set(ret, ERR_TIMEOUT, "late");
}

static uint64_t still_ns(void *arg)
{
	assert(((struct call *)arg)->overs == 0);
	return x.still_ns;
}

/* The method's number says which call of the client's it is. */
static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload, const int *fds,
		       unsigned n_fds)
{
	struct rec_exec_start rec = {.sandbox = span_of("x"), .command = span_of("cat")};
	struct relay_events ev = {on_replied, on_broken, on_over, on_late, still_ns, NULL, x.is_limited ? LIMIT_MS : 0};
	struct err e = ERR_INIT;

	(void)payload;
	(void)fds;
	assert(k == x.peers[CLIENT].link && n_fds == 0);
	if (method >= x.n_calls || x.calls[method].is_passed || !x.peers[GUEST].link) {
		err_set(&e, ERR_NOT_FOUND, "no");
		stream_fail(s, &e);
		return;
	}
	ev.arg = x.starting = &x.calls[method];
	relay_start(x.peers[GUEST].link, method_find(METHOD_EXEC_START), &rec, s, &ev, &x.relays);
	check();
}

static void on_guest_down(struct link *k, const struct err *why)
{
	assert(k == x.peers[GUEST].link && why->code > 0 && !x.peers[GUEST].is_lost);
	x.peers[GUEST].is_lost = true;
	if (x.ends_at_once)
		end_guest();
}

static void on_client_down(struct link *k, const struct err *why)
{
	assert(k == x.peers[CLIENT].link && why->code > 0 && !x.peers[CLIENT].is_lost);
	x.peers[CLIENT].is_lost = true;
	for (unsigned i = 0; i < x.n_calls; i++)
		assert(!x.calls[i].sides[CLIENT].s);
}

static const struct link_ops guest_ops = {.down = on_guest_down};
static const struct link_ops client_ops = {.request = on_request, .down = on_client_down};

/* ---- the peers hear ---- */

static bool say(int side, const void *p, size_t n)
{
	struct peer *to = &x.peers[side];

	if (to->is_shut || n > IN_MAX - to->n)
		return false;
	memcpy(to->in + to->n, p, n);
	to->n += n;
	return true;
}

static void say_sync(int side, const struct frame_sync *sync)
{
	unsigned char block[FRAME_SYNC];

	frame_put_sync(block, sync);
	(void)say(side, block, sizeof(block));
}

static struct call *call_of(int side, uint32_t id)
{
	for (unsigned i = 0; i < x.n_calls; i++)
		if (x.calls[i].sides[side].id == id)
			return &x.calls[i];
	return NULL;
}

static void guest_meets(uint32_t id)
{
	while (x.n_met < x.n_calls && x.calls[x.n_met].sides[GUEST].id)
		x.n_met++;
	for (unsigned i = 0; i < x.n_calls; i++) /* no number twice */
		assert(x.calls[i].sides[GUEST].id != id);
	for (unsigned i = x.n_met; i < x.n_calls; i++)
		if (x.calls[i].is_passed && !x.calls[i].sides[GUEST].id) {
			x.calls[i].sides[GUEST].id = id;
			x.calls[i].sides[GUEST].asked = 1;
			return;
		}
	abort();
}

static void hear_head(int side, const struct frame *f)
{
	struct call *c = call_of(side, f->stream);
	struct flow *me, *far;

	if (f->type == FRAME_REQ) {
		assert(side == GUEST && !c);
		guest_meets(f->stream);
		return;
	}
	if (!c) { /* it asked under a number that we do not follow: refused */
		assert(f->type == FRAME_RESET);
		return;
	}
	me = &c->sides[side];
	far = &c->sides[!side];
	assert(me->resets < me->asked);
	switch (f->type) {
	case FRAME_RES:
		assert(side == CLIENT && !me->replied && c->replies == 1);
		me->replied = true;
		break;
	case FRAME_DATA:
		assert(!me->ended && f->offset >= me->offset && (side == GUEST || me->replied));
		me->heard += f->len;
		assert(me->heard <= me->acked + LIMIT_WINDOW && me->heard <= far->said);
		me->offset = f->offset + f->len;
		break;
	case FRAME_WINDOW:
		assert(f->offset > me->granted && f->offset <= me->said && f->offset <= far->acked);
		me->granted = f->offset;
		break;
	case FRAME_END:
		assert(!me->ended && f->offset >= me->offset);
		me->ended = true;
		break;
	case FRAME_RESET: me->resets++; break;
	default: abort();
	}
}

static void hear_piece(struct peer *p)
{
	size_t n = p->parser.piece_len;

	if (p->parser.f.type != FRAME_DATA)
		return;
	assert(memcmp(p->parser.piece, pattern + p->data_at % PATTERN, n) == 0);
	p->data_at += n;
}

static void hear(int side, const unsigned char *p, size_t n)
{
	struct peer *to = &x.peers[side];
	int r;

	while ((r = frame_parse(&to->parser, &p, &n, NULL)) != FRAME_MORE) {
		assert(r >= 0);
		if (r == FRAME_HEADER) {
			to->data_at = to->parser.f.offset;
			hear_head(side, &to->parser.f);
		} else if (r == FRAME_PAYLOAD) {
			hear_piece(to);
		} else if (r == FRAME_SYNCED && side == GUEST) {
			say_sync(GUEST, &to->parser.sync);
		}
	}
}

/* ---- the peers speak ---- */

struct tape {
	const unsigned char *p;
	size_t n;
};

static unsigned take(struct tape *t)
{
	return t->n ? t->n--, *t->p++ : 0;
}

static bool say_frame(int side, struct frame *f, const void *payload)
{
	static unsigned char bytes[FRAME_HEAD + FRAME_PAYLOAD_MAX + 1];
	struct call *c = call_of(side, f->stream);
	struct flow *me = c ? &c->sides[side] : NULL;

	frame_put(bytes, f);
	if (f->len)
		memcpy(bytes + FRAME_HEAD, payload, f->len);
	bytes[FRAME_HEAD + f->len] = FRAME_TRAILER;
	if (!say(side, bytes, FRAME_HEAD + f->len + 1))
		return false;
	if (me && f->type == FRAME_DATA) {
		me->said += f->len;
		me->next = f->offset + f->len;
	} else if (me && f->type == FRAME_WINDOW) {
		me->acked = MAX(me->acked, f->offset);
	} else if (me && f->type == FRAME_REQ && side == CLIENT) {
		me->asked++;
	}
	return true;
}

/* Begin anew: nothing that was said before is heard any more. */
static void client_syncs(void)
{
	struct frame_sync sync = {FRAME_VERSION, FRAME_VERSION, {++x.n_syncs}, 2};

	frame_parser_init(&x.peers[CLIENT].parser, true);
	frame_parser_expect(&x.peers[CLIENT].parser, sync.nonce);
	say_sync(CLIENT, &sync);
}

static void ask(void)
{
	struct frame f = {.type = FRAME_REQ, .stream = x.next_id, .arg = x.n_calls};

	if (x.n_calls == CALLS)
		return;
	x.calls[x.n_calls] = (struct call){.sides[CLIENT].id = x.next_id};
	x.n_calls++;
	x.next_id += 2;
	(void)say_frame(CLIENT, &f, NULL);
}

static void answer(struct frame *f, unsigned how, struct tape *t)
{
	struct rec_exec_started rec = {.session = 4, .pid = how};
	struct str bytes = STR_INIT(RECORD_MAX);
	size_t n = MIN(t->n, (size_t)how % 32);

	f->type = FRAME_RES;
	if (how < 224) {
		if (rec_encode(&rec_exec_started_type, &rec, &bytes, NULL) < 0)
			abort();
		f->len = (uint32_t)bytes.len;
		(void)say_frame(GUEST, f, bytes.p);
	} else { /* any bytes */
		f->len = (uint32_t)n;
		(void)say_frame(GUEST, f, t->p);
		t->p += n;
		t->n -= n;
	}
	str_deinit(&bytes);
}

/* @how: 0-199 that many times 331 bytes in order; then: behind a gap, in the past, anywhere, nothing. */
static void send(int side, struct frame *f, unsigned how, struct tape *t)
{
	const struct flow *me = &call_of(side, f->stream)->sides[side];

	f->type = FRAME_DATA;
	f->len = how < 200 ? MIN(how * 331, (unsigned)FRAME_PAYLOAD_MAX) : how % 4 * 100;
	f->offset = me->next;
	if (how >= 240)
		f->offset = (uint64_t)take(t) << (how % 16 * 4);
	else if (how >= 230)
		f->offset -= MIN(me->next, (uint64_t)1);
	else if (how >= 200)
		f->offset += (uint64_t)how << (how % 4 * 12);
	if ((x.bulk += f->len) > BULK_MAX)
		f->len = 8;
	(void)say_frame(side, f, pattern + f->offset % PATTERN);
}

static void grant(int side, struct frame *f, unsigned how)
{
	const struct flow *me = &call_of(side, f->stream)->sides[side];

	f->type = FRAME_WINDOW;
	f->offset = me->heard;
	if (how >= 250) /* for more than was sent */
		f->offset += (uint64_t)1 << (how % 4 * 20);
	else if (how >= 128)
		f->offset -= (me->heard - MIN(me->acked, me->heard)) / 2;
	(void)say_frame(side, f, NULL);
}

static void finish(int side, struct frame *f, unsigned how)
{
	f->type = FRAME_END;
	f->offset = call_of(side, f->stream)->sides[side].next;
	if (how >= 240)
		f->offset = (uint64_t)how << (how % 16 * 4);
	else if (how >= 200) /* the last bytes were skipped */
		f->offset += how;
	(void)say_frame(side, f, NULL);
}

/* A frame of @side about one of the calls it knows. */
static void speak(int side, unsigned what, struct tape *t)
{
	struct frame f = {.stream = 0};
	unsigned which = take(t), how = take(t);

	if (x.n_calls)
		f.stream = x.calls[which % x.n_calls].sides[side].id;
	if (!f.stream)
		return;
	switch (what) {
	case 0: answer(&f, how, t); break;
	case 1: send(side, &f, how, t); break;
	case 2: grant(side, &f, how); break;
	case 3: finish(side, &f, how); break;
	case 4:
		f.type = FRAME_RESET;
		f.arg = how;
		(void)say_frame(side, &f, NULL);
		break;
	default: /* what no protocol knows */
		f.type = (uint8_t)(how % 16);
		f.arg = CALLS;
		f.fds = how / 128;
		f.stream += how / 16 % 2;
		if (f.type != FRAME_RES || side == GUEST)
			(void)say_frame(side, &f, NULL);
	}
}

static void hang_up(int side, unsigned how)
{
	if (how > 180)
		x.peers[side].is_shut = true;
}

static void operation(struct tape *t)
{
	unsigned op = take(t);

	switch (op % 24) {
	case 0:
	case 1: ask(); break;
	case 2: speak(GUEST, 0, t); break;
	case 3:
	case 4:
	case 5: speak(GUEST, 1, t); break;
	case 6:
	case 7:
	case 8: speak(CLIENT, 1, t); break;
	case 9: speak(GUEST, 2, t); break;
	case 10:
	case 11: speak(CLIENT, 2, t); break;
	case 12: speak(GUEST, 3, t); break;
	case 13: speak(CLIENT, 3, t); break;
	case 14: speak(GUEST, 4, t); break;
	case 15: speak(CLIENT, 4, t); break;
	case 16: speak(op > 128, 5, t); break;
	case 17: x.peers[op > 128].is_full = op % 48 > 24; break;
	case 18: hang_up(GUEST, op); break;
	case 19: hang_up(CLIENT, op); break;
	case 20: client_syncs(); break;
	case 21: x.still_ns += op * 10 * NS_PER_MS; break;
	case 22: loop_advance(x.l, (uint64_t)op * 10 * NS_PER_MS); break;
	case 23: op > 128 ? end_guest() : end_all(); break;
	}
	if (op < 200) /* else more before it is read */
		settle();
}

/* ---- an input ---- */

static void begin(unsigned kind)
{
	static struct loop *l;
	unsigned flags = LINK_INITIATOR | LINK_SOCKET | (kind & 1 ? LINK_RESYNC : 0u);

	if (!l && loop_new(true, &l) < 0)
		abort();
	x.l = l;
	x.n_calls = x.n_met = 0;
	x.next_id = 1;
	x.n_syncs = 0;
	x.still_ns = x.bulk = 0;
	x.is_rude = kind & 2;
	x.is_limited = kind & 4;
	x.is_piecemeal = kind & 8;
	x.ends_at_once = kind & 16;
	list_init(&x.relays);
	for (int side = 0; side < SIDES; side++) {
		struct peer *p = &x.peers[side];

		p->n = p->at = 0;
		p->is_shut = p->is_full = p->is_lost = false;
		p->is_open = true;
	}
	frame_parser_init(&x.peers[GUEST].parser, false);
	if (link_new(l, WIRE + GUEST, flags, 1, &guest_ops, NULL, &x.peers[GUEST].link, NULL) < 0 ||
	    link_new(l, WIRE + CLIENT, LINK_SOCKET, 0, &client_ops, NULL, &x.peers[CLIENT].link, NULL) < 0)
		abort();
	client_syncs();
	settle();
	assert(link_is_up(x.peers[GUEST].link) && link_is_up(x.peers[CLIENT].link));
}

static void finish_all(void)
{
	x.peers[GUEST].is_full = x.peers[CLIENT].is_full = false;
	settle();
	end_guest();
	settle();
	assert(list_empty(&x.relays));
	assert(link_streams(x.peers[CLIENT].link) == 0);
	for (unsigned i = 0; i < x.n_calls; i++) {
		const struct call *c = &x.calls[i];

		assert(!c->is_live && !c->sides[GUEST].s && !c->sides[CLIENT].s && c->overs + c->lates <= 1);
	}
	loop_advance(x.l, 3 * (uint64_t)LIMIT_MS * NS_PER_MS); /* no limit is left behind */
	x.peers[CLIENT].link = link_free(x.peers[CLIENT].link);
	settle();
	for (int side = 0; side < SIDES; side++)
		assert(!x.peers[side].is_open && !x.peers[side].io);
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	struct tape t = {p, MIN(n, (size_t)INPUT_MAX)};

	if (!pattern[1])
		for (unsigned i = 0; i < sizeof(pattern); i++)
			pattern[i] = (unsigned char)(i % PATTERN);
	begin(take(&t));
	while (t.n && !x.peers[CLIENT].is_lost)
		operation(&t);
	finish_all();
	return 0;
}
