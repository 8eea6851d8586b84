/*
 * client/fuzz_chunks.c - a hostile guest's chunk streams: what programs (exec.c) and runs (code.c) say
 *
 * The first byte picks one of the two, the second how the stream is cut and taken, the rest writes it: chunks,
 * mostly well-formed, or raw bytes. However it is cut and however slowly it is taken, the same bytes of the same
 * kinds come, and the same end. With gaps (exec, on_slow drop) only the invariants hold.
 */
#include <stdio.h>
#include "base/str.h"
#include "client/code.h"
#include "client/exec.h"
#include "client/fuzz_link.h"
#include "wire/bytes.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum { STREAM_MAX = 30000, PIECES = 100, KINDS = 8 };

struct run {
	struct conn conn;
	struct exec *x;
	struct code_call *code;
	unsigned slow; /* takes that many bytes at once; 0: all */
	bool holds;    /* takes nothing until the end */
	uint64_t hash[KINDS], bytes[KINDS], results;
	bool ended;
	int code_of_end;
	char why[200];
};

static void mix(struct run *r, unsigned kind, const void *p, size_t n)
{
	assert(kind < KINDS && !r->ended);
	for (const unsigned char *u = p; n--; u++)
		r->hash[kind] = (r->hash[kind] ^ *u) * UINT64_C(1099511628211) + 1;
}

static void end(struct run *r, const struct err *why)
{
	assert(!r->ended); /* once */
	r->ended = true;
	r->code_of_end = why ? why->code : 0;
	assert(!why || (why->code > 0 && why->text[0]));
	if (why)
		(void)snprintf(r->why, sizeof(r->why), "%s", why->text);
}

/* ---- exec ---- */

static void take_exec(struct run *r, bool all)
{
	enum exec_stream which;
	const void *p;
	size_t n;

	while (!r->ended && (p = exec_peek(r->x, &which, &n))) {
		size_t some = r->slow ? MIN(n, (size_t)r->slow) : n;

		assert(n > 0 && which >= EXEC_STDOUT && which <= EXEC_PTY);
		mix(r, which, p, some);
		r->bytes[which] += some;
		exec_take(r->x, some);
		if (r->slow && !all)
			return;
	}
}

static void exec_readable(struct exec *x)
{
	struct run *r = exec_arg(x);

	if (!r->holds)
		take_exec(r, false);
}

static void exec_ended(struct exec *x, const struct err *why)
{
	struct run *r = exec_arg(x);

	take_exec(r, true);
	assert(!why == !!exec_exit(x));
	if (!why)
		mix(r, EXEC_EXIT, &exec_exit(x)->code, sizeof(exec_exit(x)->code));
	end(r, why);
}

static void start_exec(struct run *r, bool drops)
{
	static const struct exec_ops ops = {.readable = exec_readable, .ended = exec_ended};
	struct rec_exec_start rec = {.sandbox = span_of("s"), .tag = span_of("t"), .command = span_of("c"),
				     .on_slow = span_of(drops ? "drop" : "")};
	struct rec_exec_started started = {.session = 1, .pid = 2};
	struct str bytes = STR_INIT(RECORD_MAX);

	if (exec_start(&r->conn, &rec, &ops, r, &r->x, NULL) < 0 ||
	    rec_encode(&rec_exec_started_type, &started, &bytes, NULL) < 0)
		abort();
	fz_reply(r->conn.last, bytes.p, bytes.len);
	str_deinit(&bytes);
	fz_turn(&r->conn);
}

/* ---- code ---- */

static void take_code(struct run *r, bool all)
{
	struct code_item item;

	while (!r->ended && code_peek(r->code, &item)) {
		bool is_output = item.what == CODE_STDOUT || item.what == CODE_STDERR;
		size_t some = is_output && r->slow ? MIN(item.n, (size_t)r->slow) : item.n;

		assert(is_output ? item.n > 0 && !item.part : item.part && item.part->bytes == item.n);
		mix(r, item.what, item.p, some);
		if (item.part)
			mix(r, item.what, item.part->mime.p, item.part->mime.n);
		r->bytes[item.what] += some;
		r->results += !is_output;
		code_take(r->code, some);
		if (r->slow && !all)
			return;
	}
}

static void code_readable(struct code_call *x)
{
	struct run *r = code_arg(x);

	if (!r->holds)
		take_code(r, false);
}

static void code_ended(struct code_call *x, const struct err *why)
{
	struct run *r = code_arg(x);

	if (!why) {
		struct code_item item;

		assert(code_end(x) && !code_peek(x, &item)); /* all was taken */
		mix(r, 6, code_end(x)->status.p, code_end(x)->status.n);
	}
	end(r, why);
}

static void start_code(struct run *r)
{
	static const struct code_ops ops = {code_readable, code_ended};
	struct rec_code_run rec = {.sandbox = span_of("s"), .source = span_of("c")};

	if (code_run(&r->conn, &rec, &ops, r, &r->code, NULL) < 0)
		abort();
	fz_reply(r->conn.last, "", 0);
	fz_turn(&r->conn);
}

/* ---- the stream ---- */

struct tape {
	const unsigned char *p;
	size_t n;
};

static unsigned take(struct tape *t)
{
	return t->n ? (t->n--, *t->p++) : 0;
}

static void add_head(struct str *s, unsigned kind, size_t n)
{
	unsigned char head[4];

	put_u32(head, (uint32_t)(kind | n << 8));
	str_add_mem(s, head, sizeof(head));
}

static void add_record(struct str *s, unsigned kind, const struct rec_type *type, const void *rec)
{
	struct str bytes = STR_INIT(RECORD_MAX);

	if (rec_encode(type, rec, &bytes, NULL) == 0) {
		add_head(s, kind, bytes.len);
		str_add_mem(s, bytes.p ? bytes.p : "", bytes.len);
	}
	str_deinit(&bytes);
}

/* 0-6 a chunk of that kind, 7 raw bytes, 8 a result's head, 9 a body, 10 an exit, 11 an end of a run, 12 a large one */
static void write_stream(struct tape *t, struct str *s)
{
	static const char block[9000];

	while (t->n && s->len < STREAM_MAX) {
		unsigned op = take(t) % 13, len = (unsigned)MIN(take(t), t->n);
		struct rec_code_part part = {.mime = span_of("text/plain"), .bytes = len};
		struct rec_exec_exit ex = {.code = len, .reason = span_of("exited")};
		struct rec_code_end over = {.status = span_of(len % 2 ? "ok" : "error")};

		switch (op) {
		case 8: add_record(s, len % 2 ? CODE_RESULT : CODE_EXCEPTION, &rec_code_part_type, &part); continue;
		case 10: add_record(s, EXEC_EXIT, &rec_exec_exit_type, &ex); continue;
		case 11: add_record(s, 6, &rec_code_end_type, &over); continue;
		case 12:
			add_head(s, 1 + len % 2, sizeof(block));
			str_add_mem(s, block, sizeof(block));
			continue;
		case 7: break;
		default: add_head(s, op == 9 ? 4 : op, len); break;
		}
		str_add_mem(s, t->p, len);
		t->p += len;
		t->n -= len;
	}
}

static void feed(struct run *r, const struct str *bytes, size_t piece, bool gaps)
{
	struct stream *s = r->conn.last;
	size_t at = 0, skipped = 0;

	while (s->open && at < bytes->len) {
		size_t room = (size_t)(LIMIT_WINDOW - s->held), n = MIN(piece, room);

		n = MIN(n, bytes->len - at);
		if (!n) { /* nobody takes anything */
			r->holds = false;
			if (r->x)
				take_exec(r, true);
			else
				take_code(r, true);
			fz_turn(&r->conn);
			if (LIMIT_WINDOW == s->held)
				break;
			continue;
		}
		if (gaps && at % 7 == 3)
			skipped += at;
		fz_data(s, at + skipped, bytes->p + at, n);
		at += n;
		fz_turn(&r->conn);
	}
	r->holds = false;
	if (r->x)
		take_exec(r, true);
	else
		take_code(r, true);
	fz_turn(&r->conn);
	if (s->open)
		fz_end(s, at + skipped);
	fz_turn(&r->conn);
	fz_complete(s);
	fz_turn(&r->conn);
}

static void follow(struct run *r, bool is_exec, const struct str *bytes, size_t piece, bool gaps)
{
	fz_init(&r->conn);
	if (is_exec)
		start_exec(r, gaps);
	else
		start_code(r);
	feed(r, bytes, piece, gaps);
	if (r->x && !r->ended) /* its last word waits for its output to be taken */
		take_exec(r, true);
	fz_turn(&r->conn);
	assert(r->ended);
	if (r->x)
		(void)exec_close(r->x);
	if (r->code)
		(void)code_close(r->code);
	assert(list_empty(&r->conn.loop.calls));
	for (size_t i = 0; i < FZ_STREAMS; i++)
		assert(!r->conn.streams[i].open);
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	struct tape t = {p, n};
	unsigned kind = take(&t), how = take(&t);
	bool is_exec = kind & 1, gaps = is_exec && (kind & 14) == 14;
	struct str bytes = STR_INIT(2 * STREAM_MAX);
	static struct run whole, cut;

	write_stream(&t, &bytes);
	if (!bytes.len)
		str_add_mem(&bytes, "", 0);
	whole = (struct run){0};
	cut = (struct run){.slow = how % 16, .holds = how & 16};
	follow(&whole, is_exec, &bytes, LIMIT_WINDOW, gaps);
	follow(&cut, is_exec, &bytes, bytes.len / PIECES + (how & 32 ? 1 + how % 5 : 1 + (size_t)how * 97), gaps);
	if (!gaps) {
		assert(whole.code_of_end == cut.code_of_end && strcmp(whole.why, cut.why) == 0);
		assert(whole.results == cut.results);
		for (int i = 0; i < KINDS; i++)
			assert(whole.hash[i] == cut.hash[i] && whole.bytes[i] == cut.bytes[i]);
	}
	str_deinit(&bytes);
	return 0;
}
