/*
 * client/t_exec.c - following a program while its daemon dies, against a double
 *
 * The double plays daemon and guest: a session whose output is a known sequence of chunks, served
 * from any offset, and whose input is collected by offset.
 */
#include "client/exec.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/testing.h"
#include "client/t_double.h"
#include "wire/bytes.h"

enum { OUT_BYTES = 3 * 1024 * 1024, IN_BYTES = 1500000, SESSION = 7, DEATHS_MAX = 64, MAX = 8 << 20 };

enum lie { HONEST, LIE_BACK, LIE_FORWARD, LIE_CHUNK, LIE_STDIN, LIE_NO_EXIT, LIE_LONG_EXIT };

struct session {
	struct double_daemon *d;
	enum lie lie;
	/* Death plan: the connection ends once this much was sent, or taken, in all. */
	uint64_t die_out[DEATHS_MAX], die_in[DEATHS_MAX];
	unsigned deaths_out, deaths_in;
	unsigned die_before_reply; /* that many answers to exec.start are swallowed by death */
	bool lose_request;	   /* ... and the request with them */
	bool input_first;	   /* says nothing before it has read all input */
	bool signal_first;	   /* ... before it was sent one */
	unsigned busy;		   /* that many attaches are told "unavailable" */
	bool drops;		   /* on_slow is "drop": whoever comes back finds only the exit */
	/* state */
	bool exists;
	unsigned starts, attaches;
	uint64_t signals[8];
	unsigned n_signals;
	char tag[65];
	struct str out; /* the chunk stream */
	uint64_t exit_at; /* in there */
	struct str in;
	bool in_ended;
	uint64_t at;
	struct stream *stream;
};

static unsigned char out_byte(unsigned tag, size_t i)
{
	return (unsigned char)((i * 131u + (i >> 8) * 31u + tag) & 0xff);
}

static unsigned char in_byte(size_t i)
{
	return (unsigned char)((i * 197u + (i >> 9)) & 0xff);
}

static void add_chunk(struct str *out, unsigned tag, const void *p, size_t n)
{
	unsigned char head[4];

	put_u32(head, (uint32_t)(n << 8 | tag));
	str_add_mem(out, head, 4);
	str_add_mem(out, p, n);
}

/* Chunks of every size from 0 to 40 KB, on two streams, then the exit. */
static void make_output(struct session *s, size_t bytes)
{
	struct rec_exec_exit exit = {.code = 3, .reason = span_of("exited"), .wall_ms = 12};
	struct str rec = STR_INIT(4096);
	size_t done[3] = {0};
	unsigned char *piece = mem_new(40000);

	for (size_t n = 1; done[1] + done[2] < bytes; n = n * 7 % 39989) {
		unsigned tag = n % 3 == 0 ? EXEC_STDERR : EXEC_STDOUT;

		for (size_t i = 0; i < n; i++)
			piece[i] = out_byte(tag, done[tag] + i);
		add_chunk(&s->out, tag, piece, n);
		add_chunk(&s->out, tag, "", 0);
		done[tag] += n;
	}
	free(piece);
	if (s->lie == LIE_CHUNK)
		add_chunk(&s->out, 9, "x", 1);
	assert_int_equal(rec_encode(&rec_exec_exit_type, &exit, &rec, NULL), 0);
	s->exit_at = s->out.len;
	if (s->lie == LIE_LONG_EXIT)
		put_u32(rec.p, 5000u << 8 | EXEC_EXIT); /* a head and nothing that fits it */
	if (s->lie == LIE_LONG_EXIT)
		str_add_mem(&s->out, rec.p, 4);
	else if (s->lie != LIE_NO_EXIT)
		add_chunk(&s->out, EXEC_EXIT, rec.p, rec.len);
	str_deinit(&rec);
}

static bool dies(struct session *s, const uint64_t *plan, unsigned *n, uint64_t at)
{
	if (*n == DEATHS_MAX || plan[*n] == 0 || at < plan[*n])
		return false;
	(*n)++;
	s->stream = NULL;
	double_die(s->d);
	return true;
}

static void pump(struct session *s)
{
	if ((s->input_first && !s->in_ended) || (s->signal_first && !s->n_signals))
		return;
	while (s->stream && s->at < s->out.len) {
		size_t left = s->out.len - s->at, piece = MIN(left, (size_t)10000), sent;

		sent = stream_send(s->stream, s->out.p + s->at, piece);
		s->at += sent;
		if (dies(s, s->die_out, &s->deaths_out, s->at))
			return;
		if (sent < piece)
			return;
	}
	if (s->stream)
		stream_end(s->stream);
}

static void on_writable(struct stream *st)
{
	pump(stream_arg(st));
}

static void on_input(struct stream *st, uint64_t offset, struct span bytes)
{
	struct session *s = stream_arg(st);
	/* Only a part is acknowledged before the next death: the rest must come again. */
	size_t take = bytes.n > 1000 && s->deaths_in % 2 ? bytes.n / 2 : bytes.n;

	if (offset + bytes.n <= s->in.len)
		return;
	assert_int_equal(offset, s->in.len);
	str_add_mem(&s->in, bytes.p, take);
	stream_consumed(st, take);
	if (dies(s, s->die_in, &s->deaths_in, s->in.len) || take == bytes.n)
		return;
	str_add_mem(&s->in, bytes.p + take, bytes.n - take);
	stream_consumed(st, bytes.n - take);
}

static void on_input_end(struct stream *st, uint64_t offset)
{
	struct session *s = stream_arg(st);

	assert_int_equal(offset, s->in.len);
	s->in_ended = true;
	pump(s);
}

static void on_stream_closed(struct stream *st, const struct err *why)
{
	struct session *s = stream_arg(st);

	(void)why;
	s->stream = NULL;
}

static const struct stream_ops session_ops = {.data = on_input,
					      .writable = on_writable,
					      .end = on_input_end,
					      .closed = on_stream_closed};

static void follow(struct session *s, struct stream *st, uint64_t offset)
{
	struct rec_exec_started rec = {.session = SESSION,
				       .pid = 42,
				       .offset = offset,
				       .stdin_offset = s->in.len};

	if (s->lie == LIE_BACK && offset)
		rec.offset = offset - 1;
	if (s->lie == LIE_FORWARD && offset)
		rec.offset = offset + 1;
	if (s->lie == LIE_STDIN)
		rec.stdin_offset = 1 << 20;
	s->stream = st;
	s->at = offset;
	stream_accept(st, &session_ops, s);
	stream_start_at(st, offset);
	assert_int_equal(stream_reply(st, &rec_exec_started_type, &rec, true, NULL, 0, NULL), 0);
	pump(s);
}

static void start_session(struct session *s, struct stream *st, struct span payload)
{
	struct rec_exec_start rec;

	assert_int_equal(rec_decode(&rec_exec_start_type, payload.p, payload.n, &rec, NULL), 0);
	if (!(s->die_before_reply && s->lose_request)) {
		s->starts++;
		s->exists = true;
		span_copy(rec.tag, s->tag, sizeof(s->tag));
	}
	if (s->die_before_reply) {
		s->die_before_reply--;
		double_die(s->d);
		return;
	}
	follow(s, st, 0);
}

static void attach_session(struct session *s, struct stream *st, struct span payload)
{
	struct rec_exec_attach rec;

	assert_int_equal(rec_decode(&rec_exec_attach_type, payload.p, payload.n, &rec, NULL), 0);
	if (s->busy) {
		s->busy--;
		double_fail(st, ERR_UNAVAILABLE, "taking over");
		return;
	}
	s->attaches++;
	assert_int_equal(span_is(rec.on_slow, "drop"), s->drops);
	if (!s->exists || rec.session != SESSION)
		double_fail(st, ERR_NOT_FOUND, "no such session");
	else
		follow(s, st, s->drops ? s->exit_at : rec.offset);
}

static void list_sessions(struct session *s, struct stream *st)
{
	static const struct stream_ops none = {0};
	struct rec_exec_info other = {.session = 3, .tag = span_of("other")};
	struct rec_exec_info info = {.session = SESSION, .tag = span_of(s->tag)};
	struct rec_empty nothing = {0};

	stream_accept(st, &none, NULL);
	assert_int_equal(stream_reply(st, &rec_empty_type, &nothing, true, NULL, 0, NULL), 0);
	assert_true(stream_send_item(st, &rec_exec_info_type, &other));
	if (s->exists)
		assert_true(stream_send_item(st, &rec_exec_info_type, &info));
	stream_end(st);
}

static void take_signal(struct session *s, struct stream *st, struct span payload)
{
	struct rec_exec_signal rec;
	struct rec_empty nothing = {0};
	static const struct stream_ops none = {0};

	assert_int_equal(rec_decode(&rec_exec_signal_type, payload.p, payload.n, &rec, NULL), 0);
	stream_accept(st, &none, NULL);
	assert_int_equal(stream_reply(st, &rec_empty_type, &nothing, false, NULL, 0, NULL), 0);
	s->signals[s->n_signals++ % 8] = rec.signal;
	pump(s);
}

static void answer(struct double_daemon *d, struct stream *st, unsigned method, struct span payload)
{
	struct session *s = d->arg;

	switch (method) {
	case METHOD_EXEC_START: start_session(s, st, payload); return;
	case METHOD_EXEC_ATTACH: attach_session(s, st, payload); return;
	case METHOD_EXEC_LIST: list_sessions(s, st); return;
	case METHOD_EXEC_SIGNAL: take_signal(s, st, payload); return;
	default: double_fail(st, ERR_UNSUPPORTED, "not played"); return;
	}
}

/* ---- the client's side ---- */

struct reader {
	struct conn_op op;
	struct exec *x;
	struct str got[3];
	size_t written, to_write, step;
	unsigned started, lost;
	int code;
	char text[512];
	struct rec_exec_exit exit; /* its reason lies in the next */
	char reason[32];
};

static void on_started(struct exec *x)
{
	((struct reader *)exec_arg(x))->started++;
}

static void on_lost(struct exec *x, const struct err *why)
{
	(void)why;
	((struct reader *)exec_arg(x))->lost++;
}

static void on_readable(struct exec *x)
{
	struct reader *r = exec_arg(x);
	enum exec_stream which;
	const void *p;
	size_t n;

	while ((p = exec_peek(x, &which, &n))) {
		if (r->step)
			n = MIN(n, r->step);
		str_add_mem(&r->got[which], p, n);
		exec_take(x, n);
	}
}

static void on_room(struct exec *x)
{
	struct reader *r = exec_arg(x);
	unsigned char piece[7000];

	while (r->written < r->to_write) {
		size_t n = MIN(sizeof(piece), r->to_write - r->written), taken;

		for (size_t i = 0; i < n; i++)
			piece[i] = in_byte(r->written + i);
		taken = exec_write(x, piece, n);
		r->written += taken;
		if (taken < n)
			return;
	}
	exec_end_input(x);
}

static void on_ended(struct exec *x, const struct err *why)
{
	struct reader *r = exec_arg(x);

	r->op.done = true;
	r->code = why ? why->code : 0;
	if (why) {
		(void)snprintf(r->text, sizeof(r->text), "%s", why->text);
		return;
	}
	r->exit = *exec_exit(x);
	span_copy(r->exit.reason, r->reason, sizeof(r->reason));
	r->exit.reason = span_of(r->reason);
}

static const struct exec_ops reader_ops = {.started = on_started,
					   .readable = on_readable,
					   .writable = on_room,
					   .lost = on_lost,
					   .ended = on_ended};

static void reader_free(struct reader *r)
{
	for (int i = 0; i < 3; i++)
		str_deinit(&r->got[i]);
}

static void check_output(const struct reader *r, const struct session *s)
{
	size_t total = 0;

	for (unsigned tag = EXEC_STDOUT; tag <= EXEC_STDERR; tag++) {
		for (size_t i = 0; i < r->got[tag].len; i++)
			if ((unsigned char)r->got[tag].p[i] != out_byte(tag, i))
				fail_msg("stream %u differs at byte %zu", tag, i);
		total += r->got[tag].len;
	}
	assert_true(total >= OUT_BYTES || s->out.len < OUT_BYTES);
}

static void play(struct session *s, struct reader *r, size_t out_bytes)
{
	struct double_daemon d = {.request = answer, .arg = s};
	struct rec_exec_start rec = {.sandbox = span_of("lab"),
				     .command = span_of("work"),
				     .stdin = r->to_write > 0,
				     .on_slow = span_of(s->drops ? "drop" : "")};
	struct conn *c;
	struct err e = ERR_INIT;

	s->d = &d;
	s->out = s->in = (struct str)STR_INIT(MAX);
	make_output(s, out_bytes);
	for (int i = 0; i < 3; i++)
		r->got[i] = (struct str)STR_INIT(MAX);
	double_start(&d);
	c = double_connect(&d);
	assert_int_equal(exec_start(c, &rec, &reader_ops, r, &r->x, &e), 0);
	if (s->signal_first) /* nobody is there yet to take them */
		exec_signal(r->x, 15), exec_signal(r->x, 2);
	assert_int_equal(conn_run(c, &r->op, &e), 0);
	exec_close(r->x);
	conn_close(c);
	double_stop(&d);
}

static void finish(struct session *s, struct reader *r)
{
	str_deinit(&s->out);
	str_deinit(&s->in);
	reader_free(r);
}

static void t_output_and_exit_status_double(void **state)
{
	struct session s = {0};
	struct reader r = {0};

	(void)state;
	play(&s, &r, OUT_BYTES);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.exit.code, 3);
	assert_true(span_is(r.exit.reason, "exited"));
	assert_int_equal(r.started, 1);
	assert_int_equal(s.starts, 1);
	check_output(&r, &s);
	finish(&s, &r);
}

/* EXEC-1: every byte once, whatever it was cut at: heads, payloads, in front of the exit. */
static void t_output_survives_deaths_double(void **state)
{
	for (size_t step = 0; step < 4; step++) {
		struct session s = {0};
		struct reader r = {.step = step * 3001};

		(void)state;
		for (unsigned i = 0; i < 20; i++)
			s.die_out[i] = 1 + i * (OUT_BYTES / 20) + i * step;
		play(&s, &r, OUT_BYTES);
		assert_int_equal(r.code, 0);
		assert_int_equal(s.deaths_out, 20);
		assert_int_equal(s.starts, 1);
		assert_int_equal(r.lost, 20);
		check_output(&r, &s);
		finish(&s, &r);
	}
}

/* EXEC-2 */
/* Who asked for it may find a gap after a death, in the middle of a chunk too, and goes on behind it. */
static void t_gaps_for_who_drops_double(void **state)
{
	struct session s = {.die_out = {300001}, .drops = true};
	struct reader r = {0};

	(void)state;
	play(&s, &r, OUT_BYTES);
	assert_int_equal(r.code, 0);
	assert_int_equal(r.exit.code, 3);
	assert_int_equal(s.attaches, 1);
	assert_in_range(r.got[EXEC_STDOUT].len + r.got[EXEC_STDERR].len, 1, 310000);
	finish(&s, &r);
}

static void t_input_survives_deaths_double(void **state)
{
	struct session s = {.input_first = true};
	struct reader r = {.to_write = IN_BYTES};

	(void)state;
	for (unsigned i = 0; i < 15; i++)
		s.die_in[i] = 1 + i * (IN_BYTES / 15);
	for (unsigned i = 0; i < 5; i++)
		s.die_out[i] = 1 + i * (OUT_BYTES / 5);
	play(&s, &r, OUT_BYTES);
	assert_int_equal(r.code, 0);
	assert_int_equal(s.deaths_in, 15);
	assert_int_equal(s.deaths_out, 5);
	check_output(&r, &s);
	assert_int_equal(s.in.len, IN_BYTES);
	for (size_t i = 0; i < s.in.len; i++)
		if ((unsigned char)s.in.p[i] != in_byte(i))
			fail_msg("input differs at byte %zu", i);
	finish(&s, &r);
}

/* EXEC-3, both ways: the request was heard, or it was not. */
static void t_lost_answer_does_not_start_twice_double(void **state)
{
	for (int lost = 0; lost < 2; lost++) {
		struct session s = {.die_before_reply = 2, .lose_request = lost};
		struct reader r = {0};

		(void)state;
		play(&s, &r, 1000);
		assert_int_equal(r.code, 0);
		assert_int_equal(s.starts, 1);
		finish(&s, &r);
	}
}

static void t_busy_daemon_is_asked_again_double(void **state)
{
	struct session s = {.die_out = {20000}, .busy = 3};
	struct reader r = {0};

	(void)state;
	play(&s, &r, OUT_BYTES);
	assert_int_equal(r.code, 0);
	assert_int_equal(s.attaches, 1);
	check_output(&r, &s);
	finish(&s, &r);
}

static void t_early_signals_arrive_double(void **state)
{
	struct session s = {.signal_first = true, .die_before_reply = 1};
	struct reader r = {0};

	(void)state;
	play(&s, &r, 1000);
	assert_int_equal(r.code, 0);
	assert_int_equal(s.n_signals, 2);
	assert_int_equal(s.signals[0], 2);
	assert_int_equal(s.signals[1], 15);
	finish(&s, &r);
}

static void t_lies_end_the_session_double(void **state)
{
	static const struct {
		enum lie lie;
		int code;
		const char *word;
	} lies[] = {
		{LIE_BACK, ERR_GONE, "output was lost"},
		{LIE_FORWARD, ERR_GONE, "output was lost"},
		{LIE_STDIN, ERR_GONE, "input was lost"},
		{LIE_NO_EXIT, ERR_GONE, "without an exit status"},
		{LIE_LONG_EXIT, ERR_INVALID, "too long"},
		{LIE_CHUNK, ERR_INVALID, "unknown kind"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(lies); i++) {
		struct session s = {.lie = lies[i].lie, .die_out = {300000}};
		struct reader r = {.to_write = 10};

		play(&s, &r, OUT_BYTES);
		assert_int_equal(r.code, lies[i].code);
		if (!strstr(r.text, lies[i].word))
			fail_msg("\"%s\" does not say \"%s\"", r.text, lies[i].word);
		finish(&s, &r);
	}
}

T_MAIN(T(t_output_and_exit_status_double),
       T(t_output_survives_deaths_double),
       T(t_gaps_for_who_drops_double),
       T(t_input_survives_deaths_double),
       T(t_lost_answer_does_not_start_twice_double),
       T(t_busy_daemon_is_asked_again_double),
       T(t_early_signals_arrive_double),
       T(t_lies_end_the_session_double))
