/* client/api_exec.c - hotcell.h: programs and sessions */
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "client/api_int.h"
#include "client/conn.h"
#include "client/exec.h"
#include "loop/loop.h"

enum { DEFAULT_OUTPUT = 16 * 1024 * 1024 };

struct hotcell_session {
	struct conn_op op;
	struct conn *conn;
	struct exec *x;
	struct loop_timer timer;
	bool started, ended, timed_out, wants_room;
	struct err why;
	struct rec_exec_exit exit;
	char reason[33];
};

struct hotcell_result {
	struct str out, err;
	bool truncated;
	struct rec_exec_exit exit;
	char reason[33];
};

/* ---- a session turns the loop until something happened ---- */

static void on_started(struct exec *x)
{
	struct hotcell_session *s = exec_arg(x);

	s->started = s->op.done = true;
}

static void on_readable(struct exec *x)
{
	((struct hotcell_session *)exec_arg(x))->op.done = true;
}

static void on_writable(struct exec *x)
{
	struct hotcell_session *s = exec_arg(x);

	s->op.done |= s->wants_room;
}

static void on_ended(struct exec *x, const struct err *why)
{
	struct hotcell_session *s = exec_arg(x);

	s->ended = s->op.done = true;
	err_copy(&s->why, why);
	if (why)
		return;
	s->exit = *exec_exit(x);
	span_copy(s->exit.reason, s->reason, sizeof(s->reason));
	s->exit.reason = span_of(s->reason);
}

static const struct exec_ops session_ops = {
	.started = on_started, .readable = on_readable, .writable = on_writable, .ended = on_ended};

static void on_timeout(struct loop_timer *t)
{
	struct hotcell_session *s = CONTAINER_OF(t, struct hotcell_session, timer);

	s->timed_out = s->op.done = true;
}

static void on_cancel(struct conn_op *op)
{
	op->done = true;
}

/* Until any of the callbacks; -ERR_TIMEOUT. */
static int turn(struct hotcell_session *s, uint64_t timeout_ms, struct err *e)
{
	struct loop *l = conn_loop(s->conn);
	int r;

	s->op = (struct conn_op){.cancel = on_cancel};
	s->timed_out = false;
	if (timeout_ms < UINT64_MAX / NS_PER_MS / 2)
		loop_timer_set(l, &s->timer, loop_now(l) + timeout_ms * NS_PER_MS, on_timeout);
	r = conn_run(s->conn, &s->op, e);
	loop_timer_cancel(l, &s->timer);
	return r == 0 && s->timed_out ? err_set(e, ERR_TIMEOUT, "nothing came within %llu ms",
						(unsigned long long)timeout_ms)
				      : r;
}

static int fill_start(const struct hotcell_exec_options *o, const char *command,
		      const char *const *argv, struct rec_exec_start *rec, struct str lists[2],
		      struct err *e)
{
	int r = api_list(argv, &lists[0], &rec->argv, "argv", e);

	if (r == 0)
		r = api_list(o->env, &lists[1], &rec->env, "hotcell_exec_options.env", e);
	if (r == 0 && (!command || !*command) == (rec->argv.n == 0))
		r = err_set(e, ERR_INVALID, "give either a command or argv");
	rec->command = span_of(command);
	rec->cwd = span_of(o->cwd);
	rec->user = span_of(o->user);
	rec->timeout_ms = o->timeout_ms;
	rec->tag = span_of(o->tag);
	rec->merge_output = o->merge_output;
	return r;
}

static int start(struct hotcell_sandbox *sandbox, const struct rec_exec_start *rec,
		 struct hotcell_session **ret, struct err *e)
{
	struct hotcell_session *s = mem_new(sizeof(*s));
	int r = conn_ready(sandbox->h->conn, e);

	s->conn = sandbox->h->conn;
	if (r == 0)
		r = exec_start(s->conn, rec, &session_ops, s, &s->x, e);
	/* Until it has a number, or was refused. */
	while (r == 0 && !s->ended && !s->started)
		r = turn(s, HOTCELL_FOREVER, e);
	if (r == 0 && s->ended && s->why.code)
		r = err_copy(e, &s->why);
	if (r < 0) {
		hotcell_session_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int hotcell_start(struct hotcell_sandbox *s, const char *command, const char *const *argv,
		  const struct hotcell_exec_options *o, struct hotcell_session **ret,
		  struct hotcell_error *e)
{
	struct str lists[2] = {STR_INIT(LIMIT_ARGV_BYTES), STR_INIT(LIMIT_ARGV_BYTES)};
	struct rec_exec_start rec = {.sandbox = span_of(s->id), .stdin = true};
	struct hotcell_exec_options mine;
	int r = api_options(o, &mine, sizeof(mine), "hotcell_exec_options", api_err(e));

	if (r == 0)
		r = fill_start(&mine, command, argv, &rec, lists, api_err(e));
	rec.pty = mine.pty;
	rec.rows = mine.rows;
	rec.cols = mine.cols;
	rec.on_detach = span_of(mine.keep_running ? "keep" : "");
	rec.on_slow = span_of(mine.drop_output ? "drop" : "");
	if (r == 0)
		r = start(s, &rec, ret, api_err(e));
	str_deinit(&lists[0]);
	str_deinit(&lists[1]);
	return r;
}

static int attach(struct hotcell_sandbox *sandbox, const struct rec_exec_attach *rec, struct hotcell_session **ret,
		  struct hotcell_error *e)
{
	struct hotcell_session *s = mem_new(sizeof(*s));
	int r = conn_ready(sandbox->h->conn, api_err(e));

	s->conn = sandbox->h->conn;
	if (r == 0)
		r = exec_attach(s->conn, rec, &session_ops, s, &s->x, api_err(e));
	while (r == 0 && !s->ended && !s->started)
		r = turn(s, HOTCELL_FOREVER, api_err(e));
	if (r == 0 && s->ended && s->why.code)
		r = err_copy(api_err(e), &s->why);
	if (r < 0) {
		hotcell_session_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int hotcell_attach_with(struct hotcell_sandbox *s, uint64_t number, const struct hotcell_attach_options *o,
			struct hotcell_session **ret, struct hotcell_error *e)
{
	struct rec_exec_attach rec = {.sandbox = span_of(s->id), .session = number};
	struct hotcell_attach_options mine;
	int r = api_options(o, &mine, sizeof(mine), "hotcell_attach_options", api_err(e));

	rec.from_now = mine.from_now;
	rec.stdin = !mine.watch_only;
	rec.on_slow = span_of(mine.drop_output ? "drop" : "");
	return r < 0 ? r : attach(s, &rec, ret, e);
}

int hotcell_attach(struct hotcell_sandbox *s, uint64_t number, struct hotcell_session **ret, struct hotcell_error *e)
{
	return hotcell_attach_with(s, number, NULL, ret, e);
}

uint64_t hotcell_session_number(const struct hotcell_session *x)
{
	return exec_session(x->x);
}

int hotcell_session_read(struct hotcell_session *x, void *p, size_t size, uint64_t timeout_ms,
			 enum hotcell_stream *ret_stream, size_t *ret_n, struct hotcell_error *e)
{
	enum exec_stream which;
	const void *bytes;
	size_t n;

	while (!(bytes = exec_peek(x->x, &which, &n))) {
		int r;

		if (x->ended && x->why.code)
			return err_copy(api_err(e), &x->why);
		if (x->ended) {
			*ret_n = 0;
			return 0;
		}
		r = turn(x, timeout_ms, api_err(e));
		if (r < 0)
			return r;
	}
	n = MIN(n, size);
	memcpy(p, bytes, n);
	exec_take(x->x, n);
	*ret_stream = (enum hotcell_stream)which;
	*ret_n = n;
	return 0;
}

int hotcell_session_write(struct hotcell_session *x, const void *p, size_t n,
			  struct hotcell_error *e)
{
	const char *from = p;
	int r = 0;

	while (n && r == 0) {
		size_t taken = exec_write(x->x, from, n);

		from += taken;
		n -= taken;
		if (!n)
			break;
		if (x->ended)
			return err_set(api_err(e), ERR_GONE, "the program has ended");
		/* Output that waits makes the caller's turn: it must be read for the program to go on. */
		x->wants_room = true;
		r = turn(x, HOTCELL_FOREVER, api_err(e));
		x->wants_room = false;
	}
	return r;
}

void hotcell_session_end_input(struct hotcell_session *x)
{
	exec_end_input(x->x);
}

int hotcell_session_signal(struct hotcell_session *x, int signal, struct hotcell_error *e)
{
	if (signal < 1 || signal > 64)
		return err_set(api_err(e), ERR_INVALID, "signal %d: not between 1 and 64", signal);
	exec_signal(x->x, (unsigned)signal);
	return 0;
}

int hotcell_session_resize(struct hotcell_session *x, uint16_t rows, uint16_t cols,
			   struct hotcell_error *e)
{
	if (!rows || !cols)
		return err_set(api_err(e), ERR_INVALID, "a terminal has at least one row and column");
	exec_resize(x->x, rows, cols);
	return 0;
}

int hotcell_session_wait(struct hotcell_session *x, uint64_t timeout_ms, int *ret_exit_code,
			 struct hotcell_error *e)
{
	struct loop *l = conn_loop(x->conn);
	uint64_t start_ms = loop_now(l) / NS_PER_MS;
	char piece[16384];
	enum hotcell_stream which;
	size_t n = 1;
	int r = 0;

	while (r == 0 && n) {
		uint64_t gone = loop_now(l) / NS_PER_MS - start_ms;
		uint64_t left = timeout_ms == HOTCELL_FOREVER ? timeout_ms
				: gone < timeout_ms	      ? timeout_ms - gone
							      : 0;

		r = hotcell_session_read(x, piece, sizeof(piece), left, &which, &n, e);
	}
	if (r == 0 && ret_exit_code)
		*ret_exit_code = x->exit.signal ? -1 : (int)x->exit.code;
	return r;
}

void hotcell_session_close(struct hotcell_session *x)
{
	if (!x)
		return;
	exec_close(x->x);
	free(x);
}

/* ---- to the end ---- */

static void keep(struct hotcell_result *r, bool is_err, const void *p, size_t n)
{
	struct str *s = is_err ? &r->err : &r->out;
	size_t room = s->max - s->len;

	r->truncated |= n > room;
	str_add_mem(s, p, MIN(n, room));
}

/* Output is taken while the input goes in, or both could wait for each other. */
static int run_to_end(struct hotcell_session *s, const char *input, size_t n,
		      struct hotcell_result *ret, struct err *e)
{
	enum exec_stream which;
	const void *p;
	size_t got, taken;
	int r = 0;

	s->wants_room = true;
	while (r == 0) {
		while ((p = exec_peek(s->x, &which, &got))) {
			keep(ret, which == EXEC_STDERR, p, got);
			exec_take(s->x, got);
		}
		taken = exec_write(s->x, input, n);
		input += taken;
		n -= taken;
		if (!n)
			exec_end_input(s->x);
		if (s->ended)
			return err_copy(e, s->why.code ? &s->why : NULL);
		r = turn(s, HOTCELL_FOREVER, e);
	}
	return r;
}

static struct hotcell_result *new_result(size_t max)
{
	struct hotcell_result *r = mem_new(sizeof(*r));

	r->out = r->err = (struct str)STR_INIT(max ? max : DEFAULT_OUTPUT);
	return r;
}

static int execute(struct hotcell_sandbox *s, const char *command, const char *const *argv,
		   const struct hotcell_exec_options *o, struct hotcell_result **ret,
		   struct hotcell_error *e)
{
	struct hotcell_exec_options plain = *o;
	struct hotcell_session *x;
	struct hotcell_result *result;
	int r;

	plain.pty = plain.keep_running = plain.drop_output = false;
	r = hotcell_start(s, command, argv, &plain, &x, e);
	if (r < 0)
		return r;
	result = new_result(o->max_output);
	r = run_to_end(x, o->input ? o->input : "", o->input_size, result, api_err(e));
	result->exit = x->exit;
	memcpy(result->reason, x->reason, sizeof(result->reason));
	hotcell_session_close(x);
	if (r < 0) {
		hotcell_result_free(result);
		return r;
	}
	*ret = result;
	return 0;
}

static int options_of(const struct hotcell_exec_options *given, struct hotcell_exec_options *ret,
		      struct hotcell_error *e)
{
	int r = api_options(given, ret, sizeof(*ret), "hotcell_exec_options", api_err(e));

	ret->size = sizeof(*ret);
	return r;
}

int hotcell_execute(struct hotcell_sandbox *s, const char *command,
		    const struct hotcell_exec_options *o, struct hotcell_result **ret,
		    struct hotcell_error *e)
{
	struct hotcell_exec_options mine;
	int r = options_of(o, &mine, e);

	return r < 0 ? r : execute(s, command, NULL, &mine, ret, e);
}

int hotcell_execute_argv(struct hotcell_sandbox *s, const char *const *argv,
			 const struct hotcell_exec_options *o, struct hotcell_result **ret,
			 struct hotcell_error *e)
{
	struct hotcell_exec_options mine;
	int r = options_of(o, &mine, e);

	return r < 0 ? r : execute(s, NULL, argv, &mine, ret, e);
}

static const struct language {
	const char *name;
	const char *argv[3];
} languages[] = {
	{"python", {"python3", "-", NULL}},  {"python3", {"python3", "-", NULL}},
	{"javascript", {"node", "-", NULL}}, {"js", {"node", "-", NULL}},
	{"node", {"node", "-", NULL}},	     {"bash", {"bash", "-s", NULL}},
	{"sh", {"sh", "-s", NULL}},
};

int hotcell_execute_code(struct hotcell_sandbox *s, const char *language, const char *code,
			 const struct hotcell_exec_options *o, struct hotcell_result **ret,
			 struct hotcell_error *e)
{
	struct hotcell_exec_options mine;
	int r = options_of(o, &mine, e);

	if (r < 0)
		return r;
	if (mine.input)
		return err_set(api_err(e), ERR_INVALID,
			       "hotcell_exec_options.input: standard input is taken by the code");
	mine.input = code;
	mine.input_size = strlen(code);
	for (size_t i = 0; i < ARRAY_LEN(languages); i++)
		if (strcmp(languages[i].name, language) == 0)
			return execute(s, NULL, languages[i].argv, &mine, ret, e);
	*ret = new_result(1024);
	(*ret)->exit.code = -1;
	str_addf(&(*ret)->err, "unknown language: %.64s", language);
	return 0;
}

/* ---- accessors ---- */

int hotcell_result_exit_code(const struct hotcell_result *r)
{
	return r->exit.signal ? -1 : (int)r->exit.code;
}

int hotcell_result_signal(const struct hotcell_result *r)
{
	return (int)r->exit.signal;
}

bool hotcell_result_success(const struct hotcell_result *r)
{
	return hotcell_result_exit_code(r) == 0;
}

const char *hotcell_result_reason(const struct hotcell_result *r)
{
	return r->reason;
}

const char *hotcell_result_stdout(const struct hotcell_result *r, size_t *ret_n)
{
	if (ret_n)
		*ret_n = r->out.len;
	return str_text(&r->out);
}

const char *hotcell_result_stderr(const struct hotcell_result *r, size_t *ret_n)
{
	if (ret_n)
		*ret_n = r->err.len;
	return str_text(&r->err);
}

bool hotcell_result_truncated(const struct hotcell_result *r)
{
	return r->truncated;
}

uint64_t hotcell_result_wall_ms(const struct hotcell_result *r)
{
	return r->exit.wall_ms;
}

uint64_t hotcell_result_cpu_ms(const struct hotcell_result *r)
{
	return r->exit.cpu_ms;
}

void hotcell_result_free(struct hotcell_result *r)
{
	if (!r)
		return;
	str_deinit(&r->out);
	str_deinit(&r->err);
	free(r);
}
