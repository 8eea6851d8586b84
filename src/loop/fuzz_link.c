/*
 * loop/fuzz_link.c - a whole link against a peer that sends anything.
 *
 * The input is a little program: the first byte picks the side (0 responder,
 * 1 initiator, plus 2: our callbacks misbehave), the rest are operations that
 * build frames, mostly well-formed, or raw bytes. Whatever comes, at most one
 * `down`, `closed` at most once per stream, no more bytes held than credit
 * given, and no leak.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
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

enum { STREAMS = 64 };

struct peer {
	struct loop *l;
	struct link *k;
	int raw;
	bool initiator, rude;
	unsigned downs, ups, turn;
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

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct rec_exec_started rec;

	assert(fds && n_fds == 0); /* this link carries none */
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
		*slot = (struct slot){.peer = x, .used = true};
		if (link_call(k, 20, &rec_failure_type, &rec, link_streams(k) % 2, NULL, 0, &stream_ops, slot,
			      &slot->s, NULL) < 0)
			abort();
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

	assert(fds && n_fds == 0);
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
	unsigned char sink[65536];

	while (n--) {
		if (loop_turn(x->l, 0) < 0)
			abort();
		if (x->raw >= 0)
			(void)sys_read(x->raw, sink, sizeof(sink));
	}
}

static void say(struct peer *x, const void *p, size_t n)
{
	for (size_t at = 0; at < n && x->raw >= 0;) {
		ssize_t r = sys_write(x->raw, (const char *)p + at, n - at);

		if (r == -EAGAIN)
			turns(x, 1);
		else if (r < 0)
			return;
		else
			at += (size_t)r;
		if (x->downs || !x->k)
			return;
	}
}

static void introduce(struct peer *x)
{
	unsigned char block[FRAME_SYNC];

	if (x->initiator) { /* repeat its question */
		if (loop_turn(x->l, 0) < 0 || sys_read_full(x->raw, block, sizeof(block)) < 0)
			abort();
	} else {
		frame_put_sync(block, &(struct frame_sync){1, 1, {1}, 2});
	}
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

/* op: 0-5 a frame of that type + 1, 6 raw bytes, 7 SYNC, 8 hang up, 9 pads */
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
		x->raw = sys_close(x->raw);
	} else if (op % 10 == 9) {
		memset(frame, 0, op);
		say(x, frame, op);
	} else if (op % 10 < 6) {
		f.stream = (uint32_t)take(t, 1);
		f.arg = (uint32_t)take(t, 1);
		f.offset = op & 64 ? take(t, 8) : take(t, 3);
		f.fds = op > 250;
		len = (unsigned)take(t, 1);
		f.len = len < 128 ? (uint32_t)MIN(len, t->n) : len * 257;
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
	struct tape t = {p, n};
	struct peer *x = mem_new(sizeof(*x));
	unsigned kind = (unsigned)take(&t, 1);
	int fds[2];

	x->initiator = kind & 1;
	x->rude = kind & 2;
	if (loop_new(true, &x->l) < 0 || sys_socketpair(fds) < 0)
		abort();
	x->raw = fds[0];
	if (link_new(x->l, fds[1], LINK_SOCKET | (x->initiator ? LINK_INITIATOR : 0), 1, &link_ops, x, &x->k, NULL) < 0)
		abort();
	if (!(kind & 4))
		introduce(x);
	while (t.n && x->k && !x->downs)
		operation(x, &t);
	turns(x, 10);
	x->k = link_free(x->k);
	(void)sys_close(x->raw);
	loop_free(x->l);
	free(x);
	return 0;
}
