/* client/t_code.c - runs of code through hotcell.h, against a double that says what a test wants */
#include <hotcell.h>
#include "base/str.h"
#include "base/testing.h"
#include "client/t_double.h"

struct test {
	struct double_daemon d;
	struct hotcell *h;
	struct hotcell_sandbox *s;
	struct hotcell_error e;
	const char *says; /* chunks that follow any code.run */
	size_t n, sent;
	struct stream *stream;
	uint64_t seen_context;
	char heard[64];
};

static void pump(struct test *t)
{
	t->sent += stream_send(t->stream, t->says + t->sent, t->n - t->sent);
	if (t->sent == t->n)
		stream_end(t->stream);
}

static void on_writable(struct stream *s)
{
	struct test *t = stream_arg(s);

	if (t->sent < t->n)
		pump(t);
}

static void answer(struct double_daemon *d, struct stream *s, unsigned method, struct span payload)
{
	static const struct stream_ops ops = {.writable = on_writable};
	struct test *t = d->arg;
	struct rec_sandbox_info info = {.id.b = {1}, .state = span_of("running")};
	struct rec_code_started started = {.context = 3, .run = 1};
	struct rec_code_context context = {.context = 4};
	struct rec_code_run run;

	stream_accept(s, &ops, t);
	if (method == METHOD_SANDBOX_CREATE) {
		(void)stream_reply(s, &rec_sandbox_info_type, &info, false, NULL, 0, NULL);
	} else if (method == METHOD_CODE_OPEN) {
		(void)stream_reply(s, &rec_code_context_type, &context, false, NULL, 0, NULL);
	} else if (method != METHOD_CODE_RUN || rec_decode(&rec_code_run_type, payload.p, payload.n, &run, NULL) < 0) {
		double_fail(s, ERR_UNSUPPORTED, "not here");
	} else if (span_is(run.source, "die")) {
		double_die(d);
	} else if (span_is(run.source, "busy")) {
		double_fail(s, ERR_CONFLICT, "context 3 is busy");
	} else {
		t->seen_context = run.context;
		t->stream = s;
		t->sent = 0;
		(void)stream_reply(s, &rec_code_started_type, &started, true, NULL, 0, NULL);
		pump(t);
	}
}

static int set_up(void **state)
{
	struct hotcell_connect_options o = HOTCELL_CONNECT_OPTIONS_INIT;
	struct test *t = calloc(1, sizeof(*t));

	assert(t);
	(void)t_before(state);
	t->d.request = answer;
	t->d.arg = t;
	double_start(&t->d);
	o.run_dir = t->d.dir;
	o.no_start = true;
	assert(hotcell_connect(&o, &t->h, &t->e) == 0);
	assert(hotcell_create_default(t->h, &t->s, &t->e) == 0);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct test *t = *state;

	hotcell_sandbox_close(t->s);
	hotcell_disconnect(t->h);
	double_stop(&t->d);
	free(t);
	return t_after(state);
}

/* ---- building what is said ---- */

static void chunk(struct str *to, unsigned kind, const void *p, size_t n)
{
	char head[4] = {(char)kind, (char)n, (char)(n >> 8), (char)(n >> 16)};

	str_add_mem(to, head, 4);
	str_add_mem(to, p, n);
}

static void record(struct str *to, unsigned kind, const struct rec_type *type, const void *rec)
{
	struct str text = STR_INIT(RECORD_MAX);

	assert_int_equal(rec_encode(type, rec, &text, NULL), 0);
	chunk(to, kind, text.p, text.len);
	str_deinit(&text);
}

static void part(struct str *to, const char *mime, bool main, const char *body, size_t n)
{
	struct rec_code_part p = {.mime = span_of(mime), .bytes = n, .is_main = main};

	record(to, 3, &rec_code_part_type, &p);
	if (n)
		chunk(to, 4, body, n / 2 + 1);
	if (n > n / 2 + 1)
		chunk(to, 4, body + n / 2 + 1, n - n / 2 - 1);
}

static void end(struct str *to, const char *status, int code)
{
	struct rec_code_end x = {.status = span_of(status), .exit_code = code, .message = span_of("why")};

	record(to, 6, &rec_code_end_type, &x);
}

static int say(struct test *t, struct str *said, const struct hotcell_code_options *o,
	       struct hotcell_code_result **ret)
{
	t->says = said->p;
	t->n = said->len;
	return hotcell_code_run(t->s, "x", o, ret, &t->e);
}

/* ---- the tests ---- */

static void hear(void *arg, enum hotcell_stream which, const void *p, size_t n)
{
	struct test *t = arg;
	size_t at = strlen(t->heard);

	(void)snprintf(t->heard + at, sizeof(t->heard) - at, "%d:%.*s ", (int)which, (int)n, (const char *)p);
}

static void t_whole(void **state)
{
	struct hotcell_code_options o = HOTCELL_CODE_OPTIONS_INIT;
	struct rec_code_part error = {.mime = span_of("text/plain"), .bytes = 5, .name = span_of("Oops"),
				      .message = span_of("it broke")};
	struct test *t = *state;
	struct hotcell_code_result *r;
	struct str said = STR_INIT(65536);
	size_t n;

	chunk(&said, 1, "out", 3);
	chunk(&said, 2, "err", 3);
	part(&said, "image/png", false, "\x89\0P", 3);
	part(&said, "text/plain", true, "42", 2);
	part(&said, "text/html", true, "", 0);
	record(&said, 5, &rec_code_part_type, &error);
	chunk(&said, 4, "trace", 5);
	end(&said, "error", 1);
	o.output = hear;
	o.arg = t;
	o.context = 3;
	assert_int_equal(say(t, &said, &o, &r), 0);
	assert_int_equal(t->seen_context, 3);
	assert_string_equal(t->heard, "1:out 2:err ");
	assert_string_equal(hotcell_code_stdout(r, NULL), "out");
	assert_string_equal(hotcell_code_stderr(r, NULL), "err");
	assert_int_equal(hotcell_code_count(r), 3);
	assert_memory_equal(hotcell_code_data(r, 0, &n), "\x89\0P", 3);
	assert_int_equal(n, 3);
	assert_string_equal(hotcell_code_mime(r, 0), "image/png");
	assert_false(hotcell_code_is_main(r, 0));
	assert_string_equal(hotcell_code_text(r), "42");
	assert_string_equal(hotcell_code_error_name(r), "Oops");
	assert_string_equal(hotcell_code_error_message(r), "it broke");
	assert_string_equal(hotcell_code_traceback(r), "trace");
	assert_string_equal(hotcell_code_status(r), "error");
	assert_string_equal(hotcell_code_message(r), "why");
	assert_int_equal(hotcell_code_exit_code(r), 1);
	assert_int_equal(hotcell_code_context(r), 3);
	hotcell_code_result_free(r);
	str_deinit(&said);
}

static void t_large(void **state)
{
	enum { SIZE = 3000000 };
	struct hotcell_code_options o = HOTCELL_CODE_OPTIONS_INIT;
	struct rec_code_part head = {.mime = span_of("text/plain"), .bytes = SIZE, .is_main = true};
	struct test *t = *state;
	struct hotcell_code_result *r;
	struct str said = STR_INIT(3 * SIZE);
	char piece[30000];

	memset(piece, 'x', sizeof(piece));
	record(&said, 3, &rec_code_part_type, &head);
	for (size_t i = 0; i < SIZE / sizeof(piece); i++) {
		chunk(&said, 4, piece, sizeof(piece));
		chunk(&said, 1, piece, 100); /* a thread may print meanwhile */
	}
	end(&said, "ok", 0);
	o.max_output = 1000;
	assert_int_equal(say(t, &said, &o, &r), 0);
	assert_int_equal(strlen(hotcell_code_text(r)), SIZE);
	assert_int_equal(strlen(hotcell_code_stdout(r, NULL)), 1000);
	assert_true(hotcell_code_truncated(r));
	hotcell_code_result_free(r);
	str_deinit(&said);
}

static void t_broken(void **state)
{
	struct rec_code_part head = {.mime = span_of("text/plain"), .bytes = 4};
	struct test *t = *state;
	struct hotcell_code_result *r;
	struct str said = STR_INIT(65536);

	for (int i = 0; i < 8; i++) {
		str_clear(&said);
		if (i == 0)
			chunk(&said, 9, "x", 1);
		if (i == 1)
			chunk(&said, 4, "x", 1); /* of nothing */
		if (i >= 2 && i <= 4)
			record(&said, 3, &rec_code_part_type, &head);
		if (i == 2)
			chunk(&said, 4, "12345", 5); /* more than announced */
		if (i == 3)
			record(&said, 3, &rec_code_part_type, &head);
		if (i == 5)
			chunk(&said, 6, "rubbish", 7);
		if (i == 6)
			chunk(&said, 1, "no end", 6);
		if (i == 7)
			str_add_mem(&said, "\1\0", 2); /* half a head */
		if (i < 6)
			end(&said, "ok", 0);
		assert_int_equal(say(t, &said, NULL, &r), -HOTCELL_INVALID);
	}
	str_deinit(&said);
}

static void t_refused_and_lost(void **state)
{
	struct test *t = *state;
	struct hotcell_code_result *r;
	uint64_t context;

	assert_int_equal(hotcell_code_run(t->s, "busy", NULL, &r, &t->e), -HOTCELL_CONFLICT);
	assert_string_equal(t->e.message, "context 3 is busy");
	assert_int_equal(hotcell_code_run(t->s, "", NULL, &r, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_code_open(t->s, NULL, &context, &t->e), 0);
	assert_int_equal(context, 4);
	assert_int_equal(hotcell_code_close(t->s, 9, &t->e), -HOTCELL_UNSUPPORTED);
	assert_int_equal(hotcell_code_run(t->s, "die", NULL, &r, &t->e), -HOTCELL_GONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(t_whole, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_large, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_broken, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_refused_and_lost, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
