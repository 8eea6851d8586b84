/* loop/t_link.c - the link over socket pairs: between two of ours, and with a peer that writes bytes by hand */
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/testing.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/fault.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/frame.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { METHOD = 77 };

/* What a callback does besides counting. */
enum deed { NOTHING, FREE_LINK, RESET_STREAM };
enum where { NOWHERE, AT_UP, AT_REQUEST, AT_REPLY, AT_DATA, AT_WRITABLE, AT_END, AT_CLOSED, AT_DOWN, WHERE_N };

struct side;

/* One stream as one side sees it. */
struct call {
	struct side *side;
	struct stream *s;
	unsigned replies, writables, ends, closed, after_the_end;
	uint64_t bytes, offset, end;
	int code;		 /* of closed */
	char why[ERR_TEXT_MAX];
	char text[80];		 /* of the reply */
	struct str data;
};

struct side {
	struct link *k;
	struct loop *l;
	unsigned ups, downs, requests;
	uint64_t generation;
	int code;
	char why[ERR_TEXT_MAX];
	bool hold;		 /* do not consume */
	bool silent;		 /* take requests, answer nothing */
	bool more;		 /* answer, bytes will follow */
	bool ignore;		 /* do not even accept */
	bool keep;		 /* collect the bytes */
	unsigned method;
	int fds[FRAME_FDS_MAX];
	unsigned n_fds;
	enum where where;
	enum deed deed;
	struct call calls[64];	 /* of requests */
	unsigned n_calls;
};

static struct link *freed(struct side *d)
{
	d->k = link_free(d->k);
	return NULL;
}

/* At the chosen callback: free the link, or reset the stream. */
static void act(struct side *d, enum where where, struct stream *s)
{
	if (d->where != where || d->deed == NOTHING || !d->k)
		return;
	if (d->deed == FREE_LINK)
		freed(d);
	else if (s)
		stream_reset(s);
}

static struct call *call_of(struct stream *s)
{
	struct call *c = stream_arg(s);

	if (c->closed || (c->side->deed == FREE_LINK && !c->side->k))
		c->after_the_end++;
	return c;
}

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct call *c = call_of(s);
	struct rec_failure f;

	c->replies++;
	assert_int_equal(rec_decode(&rec_failure_type, payload.p, payload.n, &f, NULL), 0);
	span_copy(f.message, c->text, sizeof(c->text));
	for (unsigned i = 0; i < n_fds; i++)
		c->side->fds[c->side->n_fds++] = fds[i];
	act(c->side, AT_REPLY, s);
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct call *c = call_of(s);

	assert_true(offset >= c->offset);
	c->offset = offset + bytes.n;
	c->bytes += bytes.n;
	if (c->side->keep)
		str_add_mem(&c->data, bytes.p, bytes.n);
	if (!c->side->hold)
		stream_consumed(s, bytes.n);
	act(c->side, AT_DATA, s);
}

static void on_writable(struct stream *s)
{
	struct call *c = call_of(s);

	c->writables++;
	act(c->side, AT_WRITABLE, s);
}

static void on_end(struct stream *s, uint64_t offset)
{
	struct call *c = call_of(s);

	c->ends++;
	c->end = offset;
	act(c->side, AT_END, s);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct call *c = call_of(s);

	c->closed++;
	c->code = why ? why->code : 0;
	(void)snprintf(c->why, sizeof(c->why), "%s", why ? why->text : "");
	act(c->side, AT_CLOSED, s);
}

static const struct stream_ops stream_ops = { on_reply, on_data, on_writable, on_end, on_closed };

static void on_up(struct link *k, uint64_t generation)
{
	struct side *d = link_arg(k);

	d->ups++;
	d->generation = generation;
	act(d, AT_UP, NULL);
}

static void answer(struct stream *s, const char *text, bool more, const int *fds, unsigned n)
{
	struct rec_failure f = { span_of(text) };
	struct err e = ERR_INIT;

	assert_int_equal(stream_reply(s, &rec_failure_type, &f, more, fds, n, &e), 0);
}

static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload, const int *fds,
		       unsigned n_fds)
{
	struct side *d = link_arg(k);
	struct call *c = &d->calls[d->n_calls++ % ARRAY_LEN(d->calls)];

	T_UNUSED(payload);
	d->requests++;
	d->method = method;
	for (unsigned i = 0; i < n_fds; i++)
		if (d->n_fds < FRAME_FDS_MAX)
			d->fds[d->n_fds++] = fds[i];
		else
			(void)sys_close(fds[i]);
	if (d->ignore)
		return;
	str_deinit(&c->data);
	*c = (struct call){ .side = d, .s = s, .data = STR_INIT(64 * MIB) };
	stream_accept(s, &stream_ops, c);
	act(d, AT_REQUEST, s);
	if (!d->k || (d->where == AT_REQUEST && d->deed == RESET_STREAM) || d->silent)
		return;
	answer(s, "hello", d->more, NULL, 0);
}

static void on_down(struct link *k, const struct err *why)
{
	struct side *d = link_arg(k);

	d->downs++;
	d->code = why->code;
	(void)snprintf(d->why, sizeof(d->why), "%s", why->text);
	act(d, AT_DOWN, NULL);
}

static const struct link_ops link_ops = { on_up, on_request, on_down };

/* Initiator a, responder b; what is not ours stays NULL and the test writes to `raw`. */
struct pair {
	struct loop *l;
	struct side a, b;
	int raw;
};

static void turns(struct loop *l, int n)
{
	while (n--)
		assert_int_equal(loop_turn(l, 0), 0);
}

static void settle(struct pair *p)
{
	turns(p->l, 40);
}

static void new_side(struct loop *l, struct side *d, int fd, unsigned flags, uint64_t generation)
{
	struct err e = ERR_INIT;

	d->l = l;
	if (link_new(l, fd, flags, generation, &link_ops, d, &d->k, &e) < 0)
		fail_msg("%s", e.text);
}

static struct pair *pair_new(unsigned flags)
{
	struct pair *p = mem_new(sizeof(*p));
	int fds[2];

	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	new_side(p->l, &p->a, fds[0], LINK_INITIATOR | flags, 9);
	new_side(p->l, &p->b, fds[1], flags, 0);
	p->raw = -1;
	settle(p);
	return p;
}

static void put_sync(int fd, uint16_t version_min, uint16_t version_max, unsigned char nonce)
{
	struct frame_sync s = { version_min, version_max, { nonce }, 5 };
	unsigned char block[FRAME_SYNC];

	frame_put_sync(block, &s);
	assert_int_equal(sys_write_full(fd, block, sizeof(block)), 0);
}

/* A responder of ours; the test is the initiator, already in step. */
static struct pair *raw_initiator(unsigned flags)
{
	struct pair *p = mem_new(sizeof(*p));
	unsigned char block[FRAME_SYNC];
	int fds[2];

	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	p->raw = fds[0];
	new_side(p->l, &p->b, fds[1], flags, 0);
	put_sync(p->raw, 1, 1, 3);
	settle(p);
	assert_int_equal(p->b.ups, 1);
	assert_int_equal(sys_read_full(p->raw, block, sizeof(block)), 0);
	return p;
}

/* An initiator of ours; the test is the responder, already in step. */
static struct pair *raw_responder(unsigned flags)
{
	struct pair *p = mem_new(sizeof(*p));
	unsigned char block[FRAME_SYNC];
	int fds[2];

	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	p->raw = fds[1];
	new_side(p->l, &p->a, fds[0], LINK_INITIATOR | flags, 9);
	settle(p);
	assert_int_equal(sys_read_full(p->raw, block, sizeof(block)), 0);
	assert_int_equal(sys_write_full(p->raw, block, sizeof(block)), 0);
	settle(p);
	assert_int_equal(p->a.ups, 1);
	return p;
}

static void side_end(struct side *d)
{
	freed(d);
	for (unsigned i = 0; i < d->n_fds; i++)
		(void)sys_close(d->fds[i]);
	for (unsigned i = 0; i < ARRAY_LEN(d->calls); i++)
		str_deinit(&d->calls[i].data);
}

static void pair_free(struct pair *p)
{
	side_end(&p->a);
	side_end(&p->b);
	(void)sys_close(p->raw);
	loop_free(p->l);
	free(p);
}

static int call_fds(struct side *d, struct call *c, bool more, const int *fds, unsigned n, struct err *e)
{
	struct rec_failure f = { span_of("please") };

	*c = (struct call){ .side = d, .data = STR_INIT(64 * MIB) };
	return link_call(d->k, METHOD, &rec_failure_type, &f, more, fds, n, &stream_ops, c, &c->s, e);
}

static void call(struct side *d, struct call *c, bool more)
{
	struct err e = ERR_INIT;

	if (call_fds(d, c, more, NULL, 0, &e) < 0)
		fail_msg("%s", e.text);
}

/* ---- between friends ---- */

static void calls_go_both_ways(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call one, two;

	T_UNUSED(state);
	assert_int_equal(p->a.ups, 1);
	assert_int_equal(p->b.ups, 1);
	assert_int_equal(p->b.generation, 9);
	assert_true(link_is_up(p->a.k) && link_is_up(p->b.k));
	call(&p->a, &one, false);
	call(&p->b, &two, false);
	settle(p);
	assert_string_equal(one.text, "hello");
	assert_string_equal(two.text, "hello");
	assert_int_equal(p->b.method, METHOD);
	assert_int_equal(one.closed + two.closed, 2);
	assert_int_equal(one.code, 0);
	assert_int_equal(p->a.calls[0].closed + p->b.calls[0].closed, 2);
	assert_int_equal(p->a.calls[0].code, 0);
	assert_int_equal(link_streams(p->a.k) + link_streams(p->b.k), 0);
	pair_free(p);
}

static void no_call_before_the_link_is_up(void **state)
{
	struct pair *p = mem_new(sizeof(*p));
	struct err e = ERR_INIT;
	struct call c;
	int fds[2];

	T_UNUSED(state);
	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	p->raw = fds[1];
	new_side(p->l, &p->a, fds[0], LINK_INITIATOR | LINK_SOCKET, 0);
	assert_int_equal(call_fds(&p->a, &c, false, NULL, 0, &e), -ERR_UNAVAILABLE);
	pair_free(p);
}

/* What is queued goes, what comes later waits, and nothing of it is lost. */
static void a_held_link_says_no_more(void **state)
{
	struct pair *p = pair_new(0);
	struct call before, later;

	T_UNUSED(state);
	call(&p->a, &before, false);
	link_hold(p->a.k);
	call(&p->a, &later, false);
	settle(p);
	assert_int_equal(before.closed, 1);
	assert_int_equal(later.closed, 0);
	assert_int_equal(link_streams(p->b.k), 0);
	link_release(p->a.k);
	settle(p);
	assert_int_equal(later.closed, 1);
	pair_free(p);
}

static void refusals_carry_their_reason(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct err why = ERR_INIT;
	struct call c;

	T_UNUSED(state);
	p->b.silent = true;
	call(&p->a, &c, true);
	settle(p);
	err_set(&why, ERR_DENIED, "not on a Saturday");
	stream_fail(p->b.calls[0].s, &why);
	settle(p);
	assert_int_equal(c.closed, 1);
	assert_int_equal(c.code, ERR_DENIED);
	assert_string_equal(c.why, "not on a Saturday");
	assert_int_equal(p->b.calls[0].closed, 0); /* LINK-2: it failed here */

	p->b.ignore = true;
	call(&p->a, &c, true);
	settle(p);
	assert_int_equal(c.code, ERR_UNSUPPORTED);

	p->b.ignore = false;
	call(&p->a, &c, true);
	settle(p);
	stream_reset(c.s);
	settle(p);
	assert_int_equal(c.closed, 0);
	assert_int_equal(p->b.calls[2].closed, 1);
	assert_int_equal(p->b.calls[2].code, ERR_CANCELED);
	assert_int_equal(link_streams(p->a.k) + link_streams(p->b.k), 0);
	pair_free(p);
}

/* LINK-5: what completes a stream by our own call is told later, not from inside that call. */
static void closing_is_told_from_the_loop(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call c;

	T_UNUSED(state);
	p->b.silent = true;
	call(&p->a, &c, false);
	settle(p);
	answer(p->b.calls[0].s, "late", false, NULL, 0);
	assert_int_equal(p->b.calls[0].closed, 0);
	settle(p);
	assert_int_equal(p->b.calls[0].closed, 1);
	assert_int_equal(c.closed, 1);

	p->b.more = true;
	call(&p->a, &c, false);
	settle(p);
	answer(p->b.calls[1].s, "late", true, NULL, 0);
	stream_end(p->b.calls[1].s);
	stream_end(p->b.calls[1].s); /* twice is fine */
	stream_reset(p->b.calls[1].s);
	settle(p);
	assert_int_equal(p->b.calls[1].closed, 0); /* LINK-1: reset before it was told */
	pair_free(p);
}

static size_t send_all_that_goes(struct pair *p, struct stream *s)
{
	static const char block[50000];
	size_t sent = 0, n;

	do {
		n = stream_send(s, block, sizeof(block));
		sent += n;
		if (n < sizeof(block))
			settle(p);
	} while (n);
	return sent;
}

static void a_stalled_reader_stops_the_writer(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call c, other;
	size_t more;

	T_UNUSED(state);
	p->b.hold = true;
	call(&p->a, &c, true);
	settle(p);
	assert_int_equal(send_all_that_goes(p, c.s), LIMIT_WINDOW);
	assert_int_equal(stream_credit(c.s), 0);
	assert_int_equal(p->b.calls[0].bytes, LIMIT_WINDOW);
	assert_int_equal(stream_peer_consumed(c.s), 0);
	call(&p->a, &other, false); /* other streams are not held up */
	settle(p);
	assert_int_equal(other.closed, 1);

	stream_consumed(p->b.calls[0].s, LIMIT_WINDOW / 2);
	settle(p);
	assert_true(c.writables >= 1);
	assert_int_equal(stream_peer_consumed(c.s), LIMIT_WINDOW / 2);
	more = send_all_that_goes(p, c.s);
	assert_int_equal(more, LIMIT_WINDOW / 2);
	stream_consumed_to(p->b.calls[0].s, LIMIT_WINDOW);
	stream_consumed_to(p->b.calls[0].s, 5); /* backwards: ignored */
	settle(p);
	assert_int_equal(stream_credit(c.s), LIMIT_WINDOW / 2);
	pair_free(p);
}

/* on_slow=drop: the reader stalls, the sender skips far ahead, the reader comes back. */
static void skipping_neither_gains_nor_loses_credit(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call c, *r = &p->b.calls[0];

	T_UNUSED(state);
	p->b.hold = true;
	call(&p->a, &c, true);
	settle(p);
	stream_start_at(c.s, 1000);
	assert_int_equal(stream_peer_consumed(c.s), 1000);
	assert_int_equal(send_all_that_goes(p, c.s), LIMIT_WINDOW);
	stream_skip(c.s, 1000 + 20 * LIMIT_WINDOW);
	assert_int_equal(stream_credit(c.s), 0);
	settle(p);
	stream_consumed(r->s, LIMIT_WINDOW);
	settle(p);
	assert_int_equal(stream_credit(c.s), LIMIT_WINDOW);
	assert_int_equal(send_all_that_goes(p, c.s), LIMIT_WINDOW);
	assert_int_equal(r->offset, 1000 + 21 * LIMIT_WINDOW);
	assert_int_equal(r->bytes, 2 * LIMIT_WINDOW);
	stream_skip(c.s, 1000 + 30 * LIMIT_WINDOW);
	stream_consumed_to(r->s, r->offset);
	settle(p);
	assert_int_equal(stream_peer_consumed(c.s), stream_sent(c.s));
	stream_end(c.s);
	settle(p);
	assert_int_equal(r->end, 1000 + 30 * LIMIT_WINDOW);
	pair_free(p);
}

/* 64 MiB, mixed piece sizes, checked byte by byte, with little memory. */
static void bytes_arrive_whole_and_in_order(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	uint64_t seed = 3, sent = 0, total = 64 * MIB;
	unsigned char *pattern = mem_new(251 * 1024);
	struct call c, *r = &p->b.calls[0];
	uint64_t checked = 0;

	T_UNUSED(state);
	for (size_t i = 0; i < 251 * 1024; i++)
		pattern[i] = (unsigned char)(i % 251);
	p->b.keep = true;
	call(&p->a, &c, true);
	settle(p);
	while (checked < total) {
		size_t want = MIN(t_random(&seed) % 200000, total - sent);

		sent += stream_send(c.s, pattern + sent % 251, want);
		turns(p->l, 1);
		for (size_t i = 0; i < r->data.len;) {
			size_t n = MIN(r->data.len - i, (size_t)100000);

			assert_memory_equal(r->data.p + i, pattern + checked % 251, n);
			checked += n;
			i += n;
		}
		str_clear(&r->data);
		assert_true(sent - checked <= LIMIT_WINDOW);
	}
	stream_end(c.s);
	settle(p);
	assert_int_equal(r->end, total);
	assert_int_equal(c.closed + r->closed, 2);
	free(pattern);
	pair_free(p);
}

static void a_thousand_streams_at_once(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call *calls = mem_new(LIMIT_LINK_STREAMS * sizeof(*calls)), extra;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	p->b.silent = true;
	for (unsigned i = 0; i < LIMIT_LINK_STREAMS; i++)
		call(&p->a, &calls[i], true);
	assert_int_equal(call_fds(&p->a, &extra, true, NULL, 0, &e), -ERR_LIMIT);
	settle(p);
	assert_int_equal(p->b.requests, LIMIT_LINK_STREAMS);
	assert_int_equal(link_streams(p->b.k), LIMIT_LINK_STREAMS);
	for (unsigned i = 0; i < LIMIT_LINK_STREAMS; i++)
		stream_reset(calls[(i * 7) % LIMIT_LINK_STREAMS].s);
	turns(p->l, 200);
	assert_int_equal(link_streams(p->a.k) + link_streams(p->b.k), 0);
	call(&p->a, &extra, false);
	settle(p);
	free(calls);
	pair_free(p);
}

static ino_t inode(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* Many frames with descriptors, queued in one go: each gets its own. */
static void descriptors_travel_with_their_frame(void **state)
{
	struct pair *p = pair_new(LINK_FDS);
	int pipes[8][2];
	struct err e = ERR_INIT;
	struct call c[4];

	T_UNUSED(state);
	for (int i = 0; i < 8; i++)
		assert_int_equal(sys_pipe(pipes[i]), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(call_fds(&p->a, &c[i], false, pipes[2 * i], 2, &e), 0);
	settle(p);
	assert_int_equal(p->a.downs + p->b.downs, 0);
	assert_int_equal(p->b.requests, 4);
	assert_int_equal(p->b.n_fds, 8);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(inode(p->b.fds[2 * i]), inode(pipes[2 * i][0]));
		assert_true(fcntl(p->b.fds[2 * i], F_GETFD) & FD_CLOEXEC);
	}
	p->b.silent = true;
	call(&p->a, &c[0], false);
	settle(p);
	answer(p->b.calls[4].s, "yours", false, pipes[7], 1);
	settle(p);
	assert_int_equal(p->a.n_fds, 1);
	assert_int_equal(inode(p->a.fds[0]), inode(pipes[7][0]));
	for (int i = 0; i < 8; i++) {
		(void)sys_close(pipes[i][0]);
		(void)sys_close(pipes[i][1]);
	}
	pair_free(p);
}

static void running_out_of_descriptors_fails_the_call_only(void **state)
{
	struct pair *p = pair_new(LINK_FDS);
	struct err e = ERR_INIT;
	struct call c;

	T_UNUSED(state);
	sys_fault_arm(2, -EMFILE);
	assert_int_equal(call_fds(&p->a, &c, false, (int[]){ 0, 1 }, 2, &e), -ERR_LIMIT);
	sys_fault_arm(0, 0);
	settle(p);
	assert_int_equal(p->a.downs, 0);
	assert_int_equal(link_streams(p->a.k), 0);
	call(&p->a, &c, false);
	settle(p);
	assert_int_equal(c.closed, 1);
	pair_free(p);
}

static void descriptors_where_none_belong_end_the_link(void **state)
{
	struct pair *p = raw_initiator(LINK_SOCKET);
	struct iovec iov = { (char[]){ "x" }, 1 };

	T_UNUSED(state);
	assert_int_equal(sys_send(p->raw, &iov, 1, (int[]){ 0 }, 1), 1);
	settle(p);
	assert_int_equal(p->b.downs, 1);
	pair_free(p);
}

static void items_stream_behind_each_other(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct rec_process_info out = { .pid = 5, .command = span_of("sh") }, in;
	struct call c;
	size_t at = 0;

	T_UNUSED(state);
	p->b.more = true;
	p->a.keep = true;
	call(&p->a, &c, false);
	settle(p);
	for (out.pid = 1; out.pid <= 3; out.pid++)
		assert_true(stream_send_item(p->b.calls[0].s, &rec_process_info_type, &out));
	stream_end(p->b.calls[0].s);
	settle(p);
	for (uint64_t pid = 1; pid <= 3; pid++) {
		int n = rec_item_next(&rec_process_info_type, c.data.p + at, c.data.len - at, &in, NULL);

		assert_true(n > 0);
		assert_int_equal(in.pid, pid);
		at += (size_t)n;
	}
	assert_int_equal(at, c.data.len);
	assert_int_equal(c.closed, 1);
	str_deinit(&c.data);
	pair_free(p);
}

/* ---- ends ---- */

static void the_peer_goes_away(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct call c, d;

	T_UNUSED(state);
	p->b.silent = true;
	call(&p->a, &c, true);
	call(&p->a, &d, true);
	settle(p);
	freed(&p->b);
	settle(p);
	assert_int_equal(p->a.downs, 1);
	assert_int_equal(p->a.code, ERR_GONE);
	assert_int_equal(c.closed + d.closed, 2);
	assert_int_equal(c.code, ERR_GONE);
	assert_false(link_is_up(p->a.k));
	pair_free(p);
}

struct leaver {
	struct loop_call call;
	struct side *side;
};

static void leave(struct loop_call *c)
{
	freed(CONTAINER_OF(c, struct leaver, call)->side);
}

/* It answers and closes between our look for input and our next write: the answer counts. */
static void last_words_are_heard(void **state)
{
	struct pair *p = pair_new(LINK_SOCKET);
	struct leaver leaver = { .side = &p->b };
	struct call c;

	T_UNUSED(state);
	p->b.silent = true;
	call(&p->a, &c, true);
	settle(p);
	answer(p->b.calls[0].s, "goodbye", true, NULL, 0);
	loop_defer(p->l, &leaver.call, leave); /* runs before the flush of what we send now */
	assert_int_equal(stream_send(c.s, "too late", 8), 8);
	settle(p);
	assert_int_equal(c.replies, 1);
	assert_string_equal(c.text, "goodbye");
	assert_int_equal(p->a.downs, 1);
	assert_int_equal(c.closed, 1);
	assert_int_equal(c.code, ERR_GONE);
	pair_free(p);
}

/* Everything happens once between two peers, and at one place one of them frees its link or resets. */
static void misbehave(enum where where, enum deed deed, bool at_opener)
{
	struct pair *p = mem_new(sizeof(*p));
	struct side *d = at_opener ? &p->a : &p->b;
	struct call c = { 0 }, *r = &p->b.calls[0];
	static const char bytes[LIMIT_WINDOW];
	int fds[2];

	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	p->raw = -1;
	d->where = where;
	d->deed = deed;
	p->b.more = true;
	new_side(p->l, &p->a, fds[0], LINK_INITIATOR | LINK_SOCKET, 9);
	new_side(p->l, &p->b, fds[1], LINK_SOCKET, 0);
	settle(p);
	if (p->a.k && link_is_up(p->a.k))
		call(&p->a, &c, true);
	settle(p);
	if (p->a.k && c.s && !c.closed && !(deed == RESET_STREAM && at_opener && c.replies && where == AT_REPLY))
		(void)stream_send(c.s, bytes, sizeof(bytes));
	if (p->b.k && p->b.n_calls && r->s && !r->closed &&
	    !(deed == RESET_STREAM && !at_opener && where == AT_REQUEST))
		(void)stream_send(r->s, bytes, sizeof(bytes));
	turns(p->l, 200);
	if (p->a.k && c.s && link_streams(p->a.k))
		stream_end(c.s);
	if (p->b.k && r->s && link_streams(p->b.k))
		stream_end(r->s);
	settle(p);
	if (p->a.k && where != AT_DOWN)
		freed(&p->a);
	else if (p->b.k)
		freed(at_opener ? &p->b : &p->a);
	settle(p);
	assert_int_equal(c.after_the_end, 0);
	assert_int_equal(r->after_the_end, 0);
	assert_true(c.closed <= 1 && r->closed <= 1);
	assert_true(p->a.downs <= 1 && p->b.downs <= 1);
	pair_free(p);
}

static void any_callback_may_free_the_link_or_reset_the_stream(void **state)
{
	T_UNUSED(state);
	for (enum where w = AT_UP; w < WHERE_N; w++)
		for (enum deed d = FREE_LINK; d <= RESET_STREAM; d++) {
			misbehave(w, d, true);
			misbehave(w, d, false);
		}
}

/* ---- replaced peers ---- */

/* What an initiator says: a request with a payload, some data. Returns its length. */
static size_t conversation(unsigned char *out)
{
	struct frame f = { .type = FRAME_REQ, .stream = 1, .len = 10, .arg = METHOD };
	size_t n = 0;

	frame_put(out, &f);
	memcpy(out + FRAME_HEAD, "\1\0\4\0\0\0four", 10);
	n = FRAME_HEAD + 10;
	out[n++] = FRAME_TRAILER;
	f = (struct frame){ .type = FRAME_DATA, .stream = 1, .len = 300 };
	frame_put(out + n, &f);
	memset(out + n + FRAME_HEAD, 0x41, 300);
	n += FRAME_HEAD + 300;
	out[n++] = FRAME_TRAILER;
	return n;
}

/* After @cut bytes the initiator dies; a new one takes over the same socket. */
static void replace_after(const unsigned char *said, size_t cut)
{
	struct pair *p = raw_initiator(LINK_SOCKET);
	struct call c;

	p->b.more = true;
	assert_int_equal(sys_write_full(p->raw, said, cut), 0);
	settle(p);
	new_side(p->l, &p->a, take_fd(&p->raw), LINK_INITIATOR | LINK_SOCKET | LINK_RESYNC, 9);
	turns(p->l, 20);
	assert_int_equal(p->b.downs, 0);
	assert_int_equal(p->a.downs, 0);
	assert_int_equal(p->a.ups, 1);
	assert_int_equal(p->b.generation, 9);
	assert_int_equal(link_streams(p->b.k), 0);
	if (p->b.requests) {
		assert_int_equal(p->b.calls[0].closed, 1);
		assert_int_equal(p->b.calls[0].code, ERR_GONE);
	}
	p->b.more = false;
	call(&p->a, &c, false);
	turns(p->l, 10);
	assert_int_equal(c.closed, 1);
	assert_string_equal(c.text, "hello");
	pair_free(p);
}

static void an_initiator_may_be_replaced_at_any_byte(void **state)
{
	unsigned char said[1024], block[FRAME_SYNC];
	size_t n = conversation(said);

	T_UNUSED(state);
	for (size_t cut = 0; cut <= n; cut++)
		replace_after(said, cut);
	frame_put_sync(block, &(struct frame_sync){ 1, 1, { 7 }, 4 });
	for (size_t cut = 0; cut <= sizeof(block); cut++) /* or while it introduced itself */
		replace_after(block, cut);
}

/* The largest frame, torn at its edges: the pads must reach its end. */
static void the_largest_frame_may_be_torn(void **state)
{
	unsigned char *said = mem_new(FRAME_PAD_MAX);
	struct frame f = { .type = FRAME_REQ, .stream = 1, .len = FRAME_PAYLOAD_MAX, .arg = METHOD };
	static const size_t cuts[] = { 1, 4, 8, 11, 23, 24, 25, 40000, FRAME_PAD_MAX - 2, FRAME_PAD_MAX - 1 };

	T_UNUSED(state);
	frame_put(said, &f);
	memset(said + FRAME_HEAD, 0xa5, FRAME_PAYLOAD_MAX);
	said[FRAME_PAD_MAX - 1] = FRAME_TRAILER;
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++)
		replace_after(said, cuts[i]);
	free(said);
}

/* The old initiator read half of what was said to it; the rest still waits in the socket. */
static void a_successor_skips_what_was_meant_for_others(void **state)
{
	T_UNUSED(state);
	for (size_t taken = 0; taken < 2 * (FRAME_HEAD + 40); taken++) {
		struct pair *p = raw_initiator(LINK_SOCKET);
		unsigned char said[1024], gone[256];
		struct call c;

		p->b.more = true;
		assert_int_equal(sys_write_full(p->raw, said, conversation(said)), 0);
		settle(p);
		assert_int_equal(stream_send(p->b.calls[0].s, said, 400), 400);
		turns(p->l, 3);
		assert_int_equal(sys_read_full(p->raw, gone, taken), 0);
		new_side(p->l, &p->a, take_fd(&p->raw), LINK_INITIATOR | LINK_SOCKET | LINK_RESYNC, 9);
		turns(p->l, 20);
		assert_int_equal(p->a.ups, 1);
		assert_int_equal(p->a.downs + p->b.downs, 0);
		call(&p->a, &c, true);
		turns(p->l, 10);
		assert_int_equal(c.replies, 1);
		pair_free(p);
	}
}

/* The same with a reader that never read, so that the responder's output is stuck in mid-frame. */
static void a_successor_finds_a_full_pipe(void **state)
{
	struct pair *p = raw_initiator(LINK_SOCKET);
	unsigned char said[1024];
	struct call c;

	T_UNUSED(state);
	p->b.more = true;
	assert_int_equal(sys_write_full(p->raw, said, conversation(said)), 0);
	settle(p);
	assert_int_equal(send_all_that_goes(p, p->b.calls[0].s), LIMIT_WINDOW);
	new_side(p->l, &p->a, take_fd(&p->raw), LINK_INITIATOR | LINK_SOCKET | LINK_RESYNC, 9);
	turns(p->l, 100);
	assert_int_equal(p->a.ups, 1);
	call(&p->a, &c, true);
	settle(p);
	assert_int_equal(c.replies, 1);
	pair_free(p);
}

/* Descriptors of a request that was torn must not be taken for those of the next one. */
static void stale_descriptors_go_with_their_sender(void **state)
{
	struct pair *p = raw_initiator(LINK_FDS);
	unsigned char said[1024];
	int pipe_fds[2];
	struct err e = ERR_INIT;
	struct iovec iov = { said, 20 };
	struct call c;

	T_UNUSED(state);
	(void)conversation(said);
	assert_int_equal(sys_pipe(pipe_fds), 0);
	said[2] = 1;
	assert_int_equal(sys_send(p->raw, &iov, 1, (int[]){ 0 }, 1), 20);
	settle(p);
	new_side(p->l, &p->a, take_fd(&p->raw), LINK_INITIATOR | LINK_FDS | LINK_RESYNC, 9);
	settle(p);
	assert_int_equal(call_fds(&p->a, &c, false, pipe_fds, 1, &e), 0);
	settle(p);
	assert_int_equal(p->b.n_fds, 1);
	assert_int_equal(inode(p->b.fds[0]), inode(pipe_fds[0]));
	(void)sys_close(pipe_fds[0]);
	(void)sys_close(pipe_fds[1]);
	pair_free(p);
}

static void versions_that_do_not_meet(void **state)
{
	struct pair *p = mem_new(sizeof(*p)), *q;
	unsigned char block[FRAME_SYNC];
	struct frame_sync s;
	int fds[2];

	T_UNUSED(state);
	assert_int_equal(loop_new(true, &p->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	p->raw = fds[0];
	new_side(p->l, &p->b, fds[1], LINK_SOCKET, 0);
	put_sync(p->raw, 2, 3, 1);
	settle(p);
	assert_int_equal(p->b.ups, 0);
	assert_int_equal(p->b.code, ERR_UNSUPPORTED);
	assert_non_null(strstr(p->b.why, "one release"));
	assert_int_equal(sys_read_full(p->raw, block, sizeof(block)), 0); /* told, not just dropped */
	pair_free(p);

	q = mem_new(sizeof(*q));
	assert_int_equal(loop_new(true, &q->l), 0);
	assert_int_equal(sys_socketpair(fds), 0);
	q->raw = fds[1];
	new_side(q->l, &q->a, fds[0], LINK_INITIATOR | LINK_SOCKET, 0);
	settle(q);
	assert_int_equal(sys_read_full(q->raw, block, sizeof(block)), 0);
	s = (struct frame_sync){ .version_min = 2, .version_max = 2 };
	memcpy(s.nonce, block + 20, FRAME_NONCE);
	frame_put_sync(block, &s);
	assert_int_equal(sys_write_full(q->raw, block, sizeof(block)), 0);
	settle(q);
	assert_int_equal(q->a.ups, 0);
	assert_int_equal(q->a.code, ERR_UNSUPPORTED);
	pair_free(q);
}

/* ---- hostile peers ---- */

static void put(int fd, const struct frame *f, size_t payload)
{
	static unsigned char bytes[FRAME_PAD_MAX];

	frame_put(bytes, f);
	memset(bytes + FRAME_HEAD, 0, payload);
	bytes[FRAME_HEAD + payload] = FRAME_TRAILER;
	for (size_t at = 0; at < FRAME_HEAD + payload + 1;) {
		ssize_t r = sys_write(fd, bytes + at, FRAME_HEAD + payload + 1 - at);

		assert_true(r > 0);
		at += (size_t)r;
	}
}

static void put_request(int fd, uint32_t stream)
{
	put(fd, &(struct frame){ .type = FRAME_REQ, .stream = stream, .arg = METHOD }, 0);
}

#define DATA_FRAME(at, n) { .type = FRAME_DATA, .stream = 1, .offset = at, .len = n }

/* Each ends this link with `down`, closes its streams once, and nothing else happens. */
static void broken_rules_end_the_link(void **state)
{
	static const struct {
		const char *what;
		struct frame f[6]; /* after an accepted request on stream 1 */
	} cases[] = {
		{ "a stream number in use", { { .type = FRAME_REQ, .stream = 1 } } },
		{ "a stream number of ours", { { .type = FRAME_REQ, .stream = 2 } } },
		{ "a reply to no question", { { .type = FRAME_RES, .stream = 1 } } },
		{ "bytes out of order", { DATA_FRAME(10, 10), DATA_FRAME(5, 10) } },
		{ "an overlap", { DATA_FRAME(10, 10), DATA_FRAME(19, 1) } },
		{ "bytes beyond the credit", { DATA_FRAME(0, 65536), DATA_FRAME(65536, 65536),
					       DATA_FRAME(131072, 65536), DATA_FRAME(196608, 65536),
					       DATA_FRAME(262144, 1) } },
		{ "credit gained by skipping", { DATA_FRAME(0, 65536), DATA_FRAME(1 << 20, 65536),
						 DATA_FRAME(2 << 20, 65536), DATA_FRAME(3 << 20, 65536),
						 DATA_FRAME(4 << 20, 65536) } },
		{ "an offset that wraps", { DATA_FRAME(UINT64_MAX - 3, 10) } },
		{ "an offset that wraps later", { DATA_FRAME(0, 10), DATA_FRAME(UINT64_MAX, 10) } },
		{ "bytes behind the end", { { .type = FRAME_END, .stream = 1 }, DATA_FRAME(0, 1) } },
		{ "an end before the last byte",
		  { DATA_FRAME(0, 10), { .type = FRAME_END, .stream = 1, .offset = 9 } } },
		{ "an end twice", { { .type = FRAME_END, .stream = 1 }, { .type = FRAME_END, .stream = 1 } } },
		{ "credit for bytes never sent", { { .type = FRAME_WINDOW, .stream = 1, .offset = 1 } } },
		{ "credit without end", { { .type = FRAME_WINDOW, .stream = 1, .offset = UINT64_MAX } } },
		{ "descriptors announced only", { { .type = FRAME_WINDOW, .stream = 1, .fds = 1 } } },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct pair *p = raw_initiator(LINK_SOCKET), *bystander = pair_new(LINK_SOCKET);

		p->b.hold = p->b.silent = true;
		put_request(p->raw, 1);
		settle(p);
		assert_int_equal(p->b.requests, 1);
		for (size_t j = 0; j < ARRAY_LEN(cases[i].f) && cases[i].f[j].type; j++) {
			assert_int_equal(p->b.downs, 0);
			put(p->raw, &cases[i].f[j], cases[i].f[j].len);
			settle(p);
		}
		if (p->b.downs != 1 || p->b.code != ERR_INVALID || p->b.calls[0].closed != 1)
			fail_msg("%s: the link lives on", cases[i].what);
		settle(bystander);
		assert_int_equal(bystander->a.downs + bystander->b.downs, 0);
		pair_free(bystander);
		pair_free(p);
	}
}

/* To those who asked: an answer twice, or bytes before it. */
static void broken_answers_end_the_link(void **state)
{
	static const struct frame cases[][2] = {
		{ { .type = FRAME_RES, .stream = 1 }, { .type = FRAME_RES, .stream = 1 } },
		{ { .type = FRAME_DATA, .stream = 1, .len = 1 } },
		{ { .type = FRAME_RES, .stream = 1, .fds = 1 } },
		{ { .type = FRAME_REQ, .stream = 1 } },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct pair *p = raw_responder(LINK_SOCKET);
		struct call c;

		call(&p->a, &c, true);
		settle(p);
		for (size_t j = 0; j < 2 && cases[i][j].type; j++)
			put(p->raw, &cases[i][j], cases[i][j].len);
		settle(p);
		assert_int_equal(p->a.downs, 1);
		assert_int_equal(p->a.code, ERR_INVALID);
		assert_int_equal(c.closed, 1);
		pair_free(p);
	}
}

/* Malformed frames: an initiator ends the link, a responder waits for the next SYNC. */
static void malformed_frames(void **state)
{
	static const unsigned char cases[][FRAME_HEAD] = {
		{ 7, 0, 0, 0, 1 },
		{ 255, 0, 0, 0, 1 },
		{ 1, 1, 0, 0, 1 },
		{ 1, 0, 17, 0, 1 },
		{ 1, 0, 0, 1, 1 },
		{ 1, 0, 0, 0, 0 },
		{ 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1 },	/* 65537 bytes */
		{ 3, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff },
		{ 'H', 'O', 'T', 'C', 'O', 'L', 'D' },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct pair *p = raw_responder(LINK_SOCKET), *q = raw_initiator(LINK_SOCKET);

		assert_int_equal(sys_write_full(p->raw, cases[i], FRAME_HEAD), 0);
		settle(p);
		assert_int_equal(p->a.downs, 1);
		assert_int_equal(p->a.code, ERR_INVALID);
		pair_free(p);

		assert_int_equal(sys_write_full(q->raw, cases[i], FRAME_HEAD), 0);
		put_request(q->raw, 1);
		settle(q);
		assert_int_equal(q->b.downs + q->b.requests, 0);
		put_sync(q->raw, 1, 1, 8);
		put_request(q->raw, 1);
		settle(q);
		assert_int_equal(q->b.ups, 2);
		assert_int_equal(q->b.requests, 1);
		pair_free(q);
	}
}

/* Frames on streams that are over, or never were, are nobody's business. */
static void late_frames_are_ignored(void **state)
{
	struct pair *p = raw_initiator(LINK_SOCKET);

	T_UNUSED(state);
	for (uint8_t type = FRAME_RES; type < FRAME_TYPE_N; type++)
		put(p->raw, &(struct frame){ .type = type, .stream = 4242, .offset = 99, .len = 3 }, 3);
	put_request(p->raw, 1);
	settle(p);
	assert_int_equal(p->b.downs, 0);
	assert_int_equal(p->b.requests, 1);
	pair_free(p);
}

/* Requests without end from a peer that reads nothing: refused, and memory stays bounded. */
static void a_flood_of_calls_is_bounded(void **state)
{
	struct pair *p = raw_initiator(LINK_SOCKET);
	unsigned char frame[FRAME_HEAD + 1];
	uint32_t id = 1;
	uint64_t sent = 0;

	T_UNUSED(state);
	p->b.silent = true;
	for (int idle = 0; idle < 200 && id < 400000;) {
		ssize_t r;

		frame_put(frame, &(struct frame){ .type = FRAME_REQ, .stream = id, .arg = METHOD });
		frame[FRAME_HEAD] = FRAME_TRAILER;
		r = sys_write(p->raw, frame + sent % sizeof(frame), sizeof(frame) - sent % sizeof(frame));
		if (r == -EAGAIN) {
			turns(p->l, 1);
			idle++;
			continue;
		}
		assert_true(r > 0);
		idle = 0;
		sent += (uint64_t)r;
		if (sent % sizeof(frame) == 0)
			id += 2;
	}
	assert_true(id < 400000); /* it stopped listening */
	assert_int_equal(link_streams(p->b.k), LIMIT_LINK_STREAMS);
	assert_int_equal(p->b.requests, LIMIT_LINK_STREAMS);
	pair_free(p);
}

static void failing_system_calls_leave_nothing_behind(void **state)
{
	static const int errors[] = { EIO, EAGAIN, ENOMEM };

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(errors); i++)
		FOR_EACH_FAULT(nth, errors[i])
		{
			struct pair *p = mem_new(sizeof(*p));
			struct err e = ERR_INIT;
			struct call c;
			int fds[2] = { -1, -1 };

			p->raw = -1;
			if (loop_new(true, &p->l) == 0 && sys_socketpair(fds) == 0) {
				(void)link_new(p->l, fds[0], LINK_INITIATOR | LINK_FDS, 9, &link_ops, &p->a,
					       &p->a.k, &e);
				(void)link_new(p->l, fds[1], LINK_FDS, 0, &link_ops, &p->b, &p->b.k, &e);
				turns(p->l, 5);
				if (p->a.k && link_is_up(p->a.k))
					(void)call_fds(&p->a, &c, false, (int[]){ 0, 1 }, 2, &e);
				turns(p->l, 5);
			}
			pair_free(p);
		}
}

T_MAIN(T(calls_go_both_ways), T(no_call_before_the_link_is_up), T(a_held_link_says_no_more),
       T(refusals_carry_their_reason),
       T(closing_is_told_from_the_loop), T(a_stalled_reader_stops_the_writer),
       T(skipping_neither_gains_nor_loses_credit), T(bytes_arrive_whole_and_in_order),
       T(a_thousand_streams_at_once), T(descriptors_travel_with_their_frame),
       T(running_out_of_descriptors_fails_the_call_only), T(descriptors_where_none_belong_end_the_link),
       T(items_stream_behind_each_other), T(the_peer_goes_away), T(last_words_are_heard),
       T(any_callback_may_free_the_link_or_reset_the_stream), T(an_initiator_may_be_replaced_at_any_byte),
       T(the_largest_frame_may_be_torn), T(a_successor_skips_what_was_meant_for_others),
       T(a_successor_finds_a_full_pipe), T(stale_descriptors_go_with_their_sender), T(versions_that_do_not_meet),
       T(broken_rules_end_the_link), T(broken_answers_end_the_link), T(malformed_frames), T(late_frames_are_ignored),
       T(a_flood_of_calls_is_bounded), T(failing_system_calls_leave_nothing_behind))
