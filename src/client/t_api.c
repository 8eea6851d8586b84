/* client/t_api.c - hotcell.h, against a double that echoes */
#include <hotcell.h>
#include "base/str.h"
#include "base/testing.h"
#include "client/t_double.h"
#include "wire/bytes.h"

enum { MAX = 8 << 20, ENTRIES = 3 };

/* What a program does is in its command: see begin(). */
struct echo {
	struct double_daemon *d;
	struct stream *stream;
	struct str in, out;
	size_t at;
	bool echoes, ended;
	char argv[64], env[64], cwd[64], on_detach[16];
	uint64_t timeout_ms;
	unsigned removed;
	struct rec_sandbox_create create;
	char name[64], isolation[16], metadata[64];
};

static void chunk(struct echo *x, unsigned tag, const void *p, size_t n)
{
	unsigned char head[4];

	put_u32(head, (uint32_t)(n << 8 | tag));
	str_add_mem(&x->out, head, 4);
	str_add_mem(&x->out, p, n);
}

static void exit_chunk(struct echo *x, int64_t code, uint64_t signal)
{
	struct rec_exec_exit e = {.code = signal ? -1 : code,
				  .signal = signal,
				  .reason = span_of(signal ? "signaled" : "exited"),
				  .wall_ms = 5,
				  .cpu_ms = 4};
	struct str rec = STR_INIT(4096);

	assert(rec_encode(&rec_exec_exit_type, &e, &rec, NULL) == 0);
	chunk(x, 4, rec.p, rec.len);
	str_deinit(&rec);
	x->ended = true;
}

static void pump(struct echo *x)
{
	while (x->stream && x->at < x->out.len) {
		size_t sent = stream_send(x->stream, x->out.p + x->at, x->out.len - x->at);

		x->at += sent;
		if (!sent)
			return;
	}
	if (x->stream && x->ended)
		stream_end(x->stream);
}

static void on_writable(struct stream *s)
{
	pump(stream_arg(s));
}

static void on_input(struct stream *s, uint64_t offset, struct span bytes)
{
	struct echo *x = stream_arg(s);

	(void)offset;
	str_add_mem(&x->in, bytes.p, bytes.n);
	if (x->echoes)
		chunk(x, 1, bytes.p, bytes.n);
	stream_consumed(s, bytes.n);
	pump(x);
}

static void on_input_end(struct stream *s, uint64_t offset)
{
	struct echo *x = stream_arg(s);

	(void)offset;
	if (x->echoes)
		exit_chunk(x, 0, 0);
	pump(x);
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	((struct echo *)stream_arg(s))->stream = NULL;
}

static const struct stream_ops echo_ops = {
	.data = on_input, .writable = on_writable, .end = on_input_end, .closed = on_closed};

static void begin(struct echo *x, struct span command)
{
	x->echoes = span_is(command, "cat") || command.n == 0;
	if (span_is(command, "fail")) {
		chunk(x, 1, "out", 3);
		chunk(x, 2, "err", 3);
		exit_chunk(x, 7, 0);
	} else if (span_is(command, "die")) {
		exit_chunk(x, 0, 9);
	} else if (span_is(command, "much")) {
		for (int i = 0; i < 100; i++)
			chunk(x, 1, "0123456789", 10);
		exit_chunk(x, 0, 0);
	} /* "wait": says nothing and stays */
}

static void copy_list(struct strv v, char *ret, size_t size)
{
	struct str s = STR_INIT(4096);

	for (const char *t = strv_first(v); t; t = strv_next(v, t))
		str_addf(&s, "%s;", t);
	(void)snprintf(ret, size, "%s", str_text(&s));
	str_deinit(&s);
}

static void start_program(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_exec_started reply = {.session = 1, .pid = 2};
	struct rec_exec_start rec;

	assert(rec_decode(&rec_exec_start_type, payload.p, payload.n, &rec, NULL) == 0);
	str_clear(&x->in);
	str_clear(&x->out);
	x->at = 0;
	x->ended = false;
	x->timeout_ms = rec.timeout_ms;
	copy_list(rec.argv, x->argv, sizeof(x->argv));
	copy_list(rec.env, x->env, sizeof(x->env));
	span_copy(rec.cwd, x->cwd, sizeof(x->cwd));
	span_copy(rec.on_detach, x->on_detach, sizeof(x->on_detach));
	if (span_is(rec.command, "nobody")) {
		double_fail(s, ERR_NOT_FOUND, "no user 'nobody'");
		return;
	}
	x->stream = s;
	stream_accept(s, &echo_ops, x);
	assert(stream_reply(s, &rec_exec_started_type, &reply, true, NULL, 0, NULL) == 0);
	begin(x, rec.command);
	pump(x);
}

static const struct stream_ops none = {0};

static void reply_sandbox(struct stream *s, const char *name, unsigned number)
{
	struct rec_sandbox_info info = {.name = span_of(name),
					.state = span_of("running"),
					.wall = span_of("process"),
					.template = span_of("base"),
					.vcpus = 2,
					.memory_mb = 512,
					.created_ms = 1234};

	info.id.b[15] = (unsigned char)number;
	stream_accept(s, &none, NULL);
	assert(stream_reply(s, &rec_sandbox_info_type, &info, false, NULL, 0, NULL) == 0);
}

static void create_sandbox(struct echo *x, struct stream *s, struct span payload)
{
	assert(rec_decode(&rec_sandbox_create_type, payload.p, payload.n, &x->create, NULL) == 0);
	span_copy(x->create.name, x->name, sizeof(x->name));
	span_copy(x->create.isolation, x->isolation, sizeof(x->isolation));
	copy_list(x->create.metadata, x->metadata, sizeof(x->metadata));
	reply_sandbox(s, x->name, 1);
}

static void send_items(struct stream *s, const struct rec_type *t, const void *items, size_t size)
{
	struct rec_empty nothing = {0};

	stream_accept(s, &none, NULL);
	assert(stream_reply(s, &rec_empty_type, &nothing, true, NULL, 0, NULL) == 0);
	for (size_t i = 0; i < ENTRIES; i++)
		assert(stream_send_item(s, t, (const char *)items + i * size));
	stream_end(s);
}

static void answer(struct double_daemon *d, struct stream *s, unsigned method, struct span payload)
{
	static const struct rec_sandbox_info boxes[ENTRIES] = {
		{.id = {{1}}}, {.id = {{2}}, .state = {"paused", 6}}, {.id = {{3}}}};
	static const struct rec_file_info files[ENTRIES] = {
		{.path = {"a", 1}, .kind = {"file", 4}, .size = 5},
		{.path = {"b", 1}, .kind = {"directory", 9}, .size = 4096},
		{.path = {"c", 1}, .kind = {"symlink", 7}, .size = 1}};
	struct echo *x = d->arg;

	switch (method) {
	case METHOD_EXEC_START: start_program(x, s, payload); return;
	case METHOD_SANDBOX_CREATE: create_sandbox(x, s, payload); return;
	case METHOD_SANDBOX_INFO:
		if (memmem(payload.p, payload.n, "nobody", 6))
			double_fail(s, ERR_NOT_FOUND, "there is no sandbox nobody");
		else
			reply_sandbox(s, "lab", 1);
		return;
	case METHOD_SANDBOX_REMOVE:
		x->removed++;
		reply_sandbox(s, "", 1);
		return;
	case METHOD_SANDBOX_LIST:
		send_items(s, &rec_sandbox_info_type, boxes, sizeof(boxes[0]));
		return;
	case METHOD_FILE_LIST: send_items(s, &rec_file_info_type, files, sizeof(files[0])); return;
	default: double_fail(s, ERR_UNSUPPORTED, "not played"); return;
	}
}

/* ---- the tests ---- */

struct test {
	struct double_daemon d;
	struct echo x;
	struct hotcell *h;
	struct hotcell_sandbox *s;
	struct hotcell_error e;
};

static int set_up(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	struct hotcell_connect_options o = HOTCELL_CONNECT_OPTIONS_INIT;

	assert(t);
	(void)t_before(state);
	t->x.in = t->x.out = (struct str)STR_INIT(MAX);
	t->d.request = answer;
	t->d.arg = &t->x;
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
	str_deinit(&t->x.in);
	str_deinit(&t->x.out);
	free(t);
	return t_after(state);
}

static void t_sandboxes_double(void **state)
{
	static const char *const metadata[] = {"a=1", "b=2", NULL};
	struct hotcell_config c = HOTCELL_CONFIG_INIT;
	struct test *t = *state;
	struct hotcell_sandbox *s;
	bool exists;

	c.name = "lab";
	c.isolation = "process";
	c.memory_mib = 256;
	c.metadata = metadata;
	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), 0);
	assert_string_equal(t->x.name, "lab");
	assert_string_equal(t->x.isolation, "process");
	assert_string_equal(t->x.metadata, "a=1;b=2;");
	assert_int_equal(t->x.create.memory_mb, 256);
	assert_string_equal(hotcell_sandbox_id(s), "00000000000000000000000000000001");
	assert_string_equal(hotcell_sandbox_name(s), "lab");
	assert_string_equal(hotcell_sandbox_wall(s), "process");
	assert_int_equal(hotcell_sandbox_state(s), HOTCELL_READY);
	assert_int_equal(hotcell_sandbox_vcpus(s), 2);
	assert_non_null(strstr(hotcell_sandbox_json(s), "\"name\":\"lab\""));
	assert_int_equal(hotcell_sandbox_refresh(s, &t->e), 0);
	assert_int_equal(hotcell_sandbox_destroy(s, &t->e), 0);
	assert_int_equal(t->x.removed, 1);
	assert_int_equal(hotcell_exists(t->h, "lab", &exists, &t->e), 0);
	assert_true(exists);
	assert_int_equal(hotcell_exists(t->h, "nobody", &exists, &t->e), 0);
	assert_false(exists);
	assert_int_equal(hotcell_open(t->h, "nobody", &s, &t->e), -HOTCELL_NOT_FOUND);
	assert_string_equal(t->e.message, "there is no sandbox nobody");
	assert_string_equal(hotcell_code_name(t->e.code), "not_found");
}

static void t_lists_double(void **state)
{
	struct test *t = *state;
	struct hotcell_list *l;
	struct hotcell_dir *d;
	size_t n;

	assert_int_equal(hotcell_count(t->h, &n, &t->e), 0);
	assert_int_equal(n, ENTRIES);
	assert_int_equal(hotcell_list(t->h, &l, &t->e), 0);
	assert_int_equal(hotcell_list_count(l), ENTRIES);
	assert_int_equal(hotcell_sandbox_state(hotcell_list_get(l, 1)), HOTCELL_PAUSED);
	assert_int_equal(hotcell_sandbox_id(hotcell_list_get(l, 2))[1], '3');
	assert_null(hotcell_list_get(l, ENTRIES));
	hotcell_list_free(l);
	assert_int_equal(hotcell_list_dir(t->s, "/", &d, &t->e), 0);
	assert_int_equal(hotcell_dir_count(d), ENTRIES);
	assert_string_equal(hotcell_dir_name(d, 0), "a");
	assert_int_equal(hotcell_dir_size(d, 0), 5);
	assert_true(hotcell_dir_is_dir(d, 1));
	assert_int_equal(hotcell_dir_size(d, 1), 0);
	assert_null(hotcell_dir_name(d, ENTRIES));
	hotcell_dir_free(d);
	assert_int_equal(hotcell_destroy_all(t->h, &t->e), 0);
	assert_int_equal(t->x.removed, ENTRIES);
}

static void t_programs_double(void **state)
{
	static const char *const env[] = {"A=1", NULL};
	static char big[1000000];
	struct hotcell_exec_options o = HOTCELL_EXEC_OPTIONS_INIT;
	struct test *t = *state;
	struct hotcell_result *r;
	size_t n;

	assert_int_equal(hotcell_execute(t->s, "fail", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), 7);
	assert_false(hotcell_result_success(r));
	assert_string_equal(hotcell_result_stdout(r, NULL), "out");
	assert_string_equal(hotcell_result_stderr(r, &n), "err");
	assert_int_equal(n, 3);
	assert_string_equal(hotcell_result_reason(r), "exited");
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute(t->s, "die", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), -1);
	assert_int_equal(hotcell_result_signal(r), 9);
	hotcell_result_free(r);
	/* more than every window in both directions, at once */
	memset(big, 'x', sizeof(big));
	o.input = big;
	o.input_size = sizeof(big);
	o.env = env;
	o.cwd = "/tmp";
	o.timeout_ms = 1500;
	assert_int_equal(hotcell_execute(t->s, "cat", &o, &r, &t->e), 0);
	assert_memory_equal(hotcell_result_stdout(r, &n), big, sizeof(big));
	assert_int_equal(n, sizeof(big));
	assert_false(hotcell_result_truncated(r));
	assert_string_equal(t->x.env, "A=1;");
	assert_string_equal(t->x.cwd, "/tmp");
	assert_int_equal(t->x.timeout_ms, 1500);
	hotcell_result_free(r);
	o = (struct hotcell_exec_options)HOTCELL_EXEC_OPTIONS_INIT;
	o.max_output = 55;
	assert_int_equal(hotcell_execute(t->s, "much", &o, &r, &t->e), 0);
	assert_true(hotcell_result_truncated(r));
	assert_int_equal(strlen(hotcell_result_stdout(r, NULL)), 55);
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute(t->s, "nobody", NULL, &r, &t->e), -HOTCELL_NOT_FOUND);
	assert_int_equal(hotcell_execute(t->s, "", NULL, &r, &t->e), -HOTCELL_INVALID);
}

static void t_code_double(void **state)
{
	struct hotcell_exec_options o = HOTCELL_EXEC_OPTIONS_INIT;
	struct test *t = *state;
	struct hotcell_result *r;

	assert_int_equal(hotcell_execute_code(t->s, "python", "print(1)", NULL, &r, &t->e), 0);
	assert_string_equal(t->x.argv, "python3;-;");
	assert_string_equal(hotcell_result_stdout(r, NULL), "print(1)"); /* its input, echoed */
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute_code(t->s, "cobol", "x", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), -1);
	assert_non_null(strstr(hotcell_result_stderr(r, NULL), "cobol"));
	hotcell_result_free(r);
	o.input = "x";
	assert_int_equal(hotcell_execute_code(t->s, "sh", "x", &o, &r, &t->e), -HOTCELL_INVALID);
}

static void t_sessions_double(void **state)
{
	static const char *const argv[] = {"cat", NULL};
	struct test *t = *state;
	struct hotcell_session *x;
	enum hotcell_stream which = 0;
	char p[64];
	size_t n = 0;
	int code = 99;

	assert_int_equal(hotcell_start(t->s, NULL, argv, NULL, &x, &t->e), 0);
	assert_int_equal(hotcell_session_number(x), 1);
	assert_string_equal(t->x.argv, "cat;");
	assert_int_equal(hotcell_session_read(x, p, sizeof(p), 20, &which, &n, &t->e), -HOTCELL_TIMEOUT);
	assert_int_equal(hotcell_session_write(x, "hello", 5, &t->e), 0);
	assert_int_equal(hotcell_session_read(x, p, 2, HOTCELL_FOREVER, &which, &n, &t->e), 0);
	assert_int_equal(which, HOTCELL_STDOUT);
	assert_memory_equal(p, "he", 2);
	assert_int_equal(hotcell_session_signal(x, 65, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_session_resize(x, 0, 5, &t->e), -HOTCELL_INVALID);
	hotcell_session_end_input(x);
	assert_int_equal(hotcell_session_wait(x, HOTCELL_FOREVER, &code, &t->e), 0);
	assert_int_equal(code, 0);
	assert_int_equal(hotcell_session_read(x, p, sizeof(p), 0, &which, &n, &t->e), 0);
	assert_int_equal(n, 0); /* over, as often as one asks */
	hotcell_session_close(x);
	assert_int_equal(hotcell_start(t->s, "cat", argv, NULL, &x, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_start(t->s, NULL, NULL, NULL, &x, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_start(t->s, "wait", NULL, NULL, &x, &t->e), 0);
	assert_int_equal(hotcell_session_wait(x, 10, &code, &t->e), -HOTCELL_TIMEOUT);
	hotcell_session_close(x);
}

/* Programs built against older and newer headers. */
static void t_option_sizes_double(void **state)
{
	struct {
		struct hotcell_config c;
		int newer;
	} future = {HOTCELL_CONFIG_INIT, 0};
	struct hotcell_config c = {.size = offsetof(struct hotcell_config, isolation),
				   .name = "old",
				   .isolation = "not looked at"};
	struct test *t = *state;
	struct hotcell_sandbox *s;

	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), 0);
	assert_string_equal(t->x.isolation, "");
	hotcell_sandbox_close(s);
	future.c.size = sizeof(future);
	assert_int_equal(hotcell_create(t->h, &future.c, &s, &t->e), 0);
	hotcell_sandbox_close(s);
	future.newer = 1;
	assert_int_equal(hotcell_create(t->h, &future.c, &s, &t->e), -HOTCELL_INVALID);
	c.size = 0;
	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), -HOTCELL_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

T_MAIN(TEST(t_sandboxes_double),
       TEST(t_lists_double),
       TEST(t_programs_double),
       TEST(t_code_double),
       TEST(t_sessions_double),
       TEST(t_option_sizes_double))
