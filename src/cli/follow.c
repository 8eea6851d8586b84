/* cli/follow.c - a program in a sandbox, as if it ran here */
#include "cli/follow.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "cli/cli.h"
#include "cli/encode.h"
#include "cli/input.h"
#include "cli/signals.h"
#include "cli/sink.h"
#include "cli/terminal.h"
#include "client/conn.h"
#include "client/exec.h"
#include "wire/gen/methods.h"

enum { INPUT_PIECE = 65536 };

struct follow {
	struct conn_op op;
	struct cli *cli;
	const struct follow_options *o;
	struct follow_result *result;
	struct exec *x;
	struct sink out, err;
	struct input in;
	struct terminal terminal;
	unsigned interrupts;
	bool start_only;
	struct err why;
};

static void finish(struct follow *f, const struct err *why)
{
	if (f->op.done)
		return;
	err_copy(&f->why, why);
	f->op.done = true;
}

/* ---- output ---- */

static void keep(struct capture *c, const void *p, size_t n)
{
	size_t room = c->bytes.max - c->bytes.len;

	c->total += n;
	str_add_mem(&c->bytes, p, MIN(n, room));
}

static void write_failed(struct follow *f, int r, bool is_err)
{
	struct err e = ERR_INIT;

	if (r == -EPIPE) { /* as if the program itself had met the closed pipe */
		f->result->status = CLI_SIGNAL + SIGPIPE;
		finish(f, NULL);
		return;
	}
	err_sys(&e, r, "write to standard %s", is_err ? "error" : "output");
	finish(f, &e);
}

static void drain(struct follow *f)
{
	enum exec_stream which;
	const void *p;
	size_t n;

	while (!f->op.done && (p = exec_peek(f->x, &which, &n))) {
		bool is_err = which == EXEC_STDERR;
		ssize_t r = (ssize_t)n;

		if (f->o->capture)
			keep(is_err ? &f->result->err : &f->result->out, p, n);
		else
			r = sink_write(is_err ? &f->err : &f->out, p, n);
		if (r == -EAGAIN)
			return; /* the sink calls when it is ready */
		if (r < 0)
			write_failed(f, (int)r, is_err);
		else
			exec_take(f->x, (size_t)r);
	}
}

static void out_ready(struct sink *s)
{
	drain(CONTAINER_OF(s, struct follow, out));
}

static void err_ready(struct sink *s)
{
	drain(CONTAINER_OF(s, struct follow, err));
}

/* ---- input ---- */

/* What can't be read is not the end of it: the program must not take half for all. */
static void read_failed(struct follow *f, int r)
{
	struct err e = ERR_INIT;

	err_sys(&e, r, "read standard input (--no-stdin gives the program an empty one)");
	finish(f, &e);
}

static void in_ready(struct input *i)
{
	struct follow *f = CONTAINER_OF(i, struct follow, in);
	char piece[INPUT_PIECE];
	size_t room = MIN(exec_room(f->x), sizeof(piece));
	ssize_t r = -EAGAIN;

	if (room)
		r = input_read(i, piece, room);
	if (r > 0)
		(void)exec_write(f->x, piece, (size_t)r); /* no more than there is room for */
	else if (r == 0)
		exec_end_input(f->x);
	else if (r != -EAGAIN)
		read_failed(f, (int)r);
	input_want(i, exec_room(f->x) > 0);
}

static void on_writable(struct exec *x)
{
	struct follow *f = exec_arg(x);

	input_want(&f->in, true);
}

/* ---- the program ---- */

static void on_started(struct exec *x)
{
	struct follow *f = exec_arg(x);

	f->result->session = exec_session(x);
	if (f->start_only) {
		finish(f, NULL);
		return;
	}
	if (f->o->input)
		input_want(&f->in, exec_room(x) > 0);
}

static void on_readable(struct exec *x)
{
	drain(exec_arg(x));
}

static int status_of(const struct rec_exec_exit *exit)
{
	if (span_is(exit->reason, "timeout"))
		return CLI_TIMED_OUT;
	return exit->signal ? CLI_SIGNAL + (int)(exit->signal & 127) : (int)(exit->code & 255);
}

/* As a shell has it, when the guest's sentence says that it was the program. 0: it was not. */
static int status_of_missing(struct strv argv, const struct err *why)
{
	static const struct {
		const char *before, *behind;
		int code, status;
	} table[] = {
		{"program '", "' not found", ERR_NOT_FOUND, CLI_NO_PROGRAM},
		{"can't execute '", "'", ERR_DENIED, CLI_NO_EXEC},
		{"'", "' is not a program", ERR_INVALID, CLI_NO_EXEC},
	};
	int status = 0;

	for (size_t i = 0; argv.n && i < ARRAY_LEN(table); i++) {
		struct str sentence = STR_INIT(sizeof(why->text));

		str_addf(&sentence, "%s%s%s", table[i].before, strv_first(argv), table[i].behind);
		if (why->code == table[i].code && !sentence.failed && strstr(why->text, str_text(&sentence)))
			status = table[i].status;
		str_deinit(&sentence);
	}
	return status;
}

static void on_ended(struct exec *x, const struct err *why)
{
	struct follow *f = exec_arg(x);
	struct follow_result *r = f->result;

	if (why)
		drain(f); /* what came before the error */
	if (why && f->o->start)
		f->cli->failed_status = why->code == ERR_TIMEOUT && f->o->start->timeout_ms
						? CLI_TIMED_OUT
						: status_of_missing(f->o->start->argv, why);
	if (!why) {
		r->exit = *exec_exit(x);
		span_copy(r->exit.reason, r->reason, sizeof(r->reason));
		r->exit.reason = span_of(r->reason);
		r->status = status_of(&r->exit);
		r->finished = true;
	}
	finish(f, why);
}

static void make_raw(struct follow *f)
{
	if (f->o->terminal && f->o->input && terminal_is(STDIN_FILENO))
		(void)terminal_raw(&f->terminal, STDIN_FILENO, NULL);
}

static void on_lost(struct exec *x, const struct err *why)
{
	struct follow *f = exec_arg(x);
	bool was_raw = f->terminal.is_raw;

	terminal_restore(&f->terminal); /* lines have an end there */
	cli_note(f->cli, "%s; going on as soon as it is back", why->text);
	if (was_raw)
		make_raw(f);
}

static const struct exec_ops ops = {
	.started = on_started,
	.readable = on_readable,
	.writable = on_writable,
	.lost = on_lost,
	.ended = on_ended,
};

/* ---- signals and the terminal ---- */

static void resize(struct follow *f)
{
	unsigned rows, cols;

	if (!f->terminal.is_raw)
		return;
	terminal_size(STDIN_FILENO, &rows, &cols);
	exec_resize(f->x, rows, cols);
}

static void stop_here(struct follow *f)
{
	terminal_restore(&f->terminal);
	(void)kill(getpid(), SIGSTOP);
	make_raw(f); /* continued */
	resize(f);
}

/* Somebody else stopped us: whoever had the terminal meanwhile may have changed it. */
static void continued(struct follow *f)
{
	if (!f->terminal.is_raw)
		return;
	terminal_restore(&f->terminal);
	make_raw(f);
	resize(f);
}

static void leave(struct follow *f, int signo)
{
	f->result->status = CLI_SIGNAL + signo;
	finish(f, NULL);
}

static void on_signal(void *arg, int signo)
{
	struct follow *f = arg;

	switch (signo) {
	case SIGWINCH: resize(f); return;
	case SIGCONT: continued(f); return;
	case SIGTSTP: stop_here(f); return;
	case SIGINT:
	case SIGQUIT:
		exec_signal(f->x, (unsigned)signo);
		if (f->interrupts++ == 0)
			return;
		break;
	default: exec_signal(f->x, (unsigned)signo); break;
	}
	leave(f, signo);
}

static void cancel(struct conn_op *op)
{
	leave(CONTAINER_OF(op, struct follow, op), SIGINT);
}

/* ---- all of it ---- */

static int start(struct follow *f, struct err *e)
{
	struct conn *c = f->cli->conn;
	int r = conn_ready(c, e);

	if (r < 0)
		return r;
	if (f->o->start)
		return exec_start(c, f->o->start, &ops, f, &f->x, e);
	return exec_attach(c, f->o->attach, &ops, f, &f->x, e);
}

static int run(struct follow *f, struct err *e)
{
	struct loop *l = conn_loop(f->cli->conn);
	int r;

	sink_init(&f->out, l, STDOUT_FILENO, out_ready);
	sink_init(&f->err, l, STDERR_FILENO, err_ready);
	input_init(&f->in, l, f->o->input ? STDIN_FILENO : -1, in_ready);
	make_raw(f);
	signals_redirect(f->cli->signals, on_signal, f);
	r = conn_run(f->cli->conn, &f->op, e);
	cli_default_signals(f->cli);
	terminal_restore(&f->terminal);
	input_deinit(&f->in);
	sink_deinit(&f->out);
	sink_deinit(&f->err);
	return r < 0 ? r : err_copy(e, f->why.code ? &f->why : NULL);
}

int follow(struct cli *c, const struct follow_options *o, struct follow_result *ret,
	   struct err *e)
{
	struct follow f = {.op.cancel = cancel, .cli = c, .o = o, .result = ret};
	int r;

	*ret = (struct follow_result){.out.bytes = STR_INIT(o->max_bytes),
				      .err.bytes = STR_INIT(o->max_bytes)};
	r = cli_signals(c, e);
	if (r == 0)
		r = start(&f, e);
	if (r == 0)
		r = run(&f, e);
	if (f.x)
		ret->reconnects = exec_reconnects(f.x);
	exec_close(f.x);
	return r;
}

int follow_start_only(struct cli *c, const struct rec_exec_start *rec, uint64_t *ret_session,
		      struct err *e)
{
	struct follow_options o = {.start = rec};
	struct follow_result result = {0};
	struct follow f = {
		.op.cancel = cancel, .cli = c, .o = &o, .result = &result, .start_only = true};
	int r = cli_signals(c, e);

	if (r == 0)
		r = start(&f, e);
	if (r == 0)
		r = conn_run(c->conn, &f.op, e);
	if (r == 0)
		r = err_copy(e, f.why.code ? &f.why : NULL);
	exec_close(f.x);
	*ret_session = result.session;
	return r;
}

void follow_result_free(struct follow_result *r)
{
	str_deinit(&r->out.bytes);
	str_deinit(&r->err.bytes);
}

/* ---- how it ended ---- */

/* 0: nobody knows. */
static uint64_t memory_of(struct cli *c, const char *sandbox)
{
	const struct rec_sandbox_ref ref = {span_of(sandbox)};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info = {0};
	int r = conn_call(c->conn, METHOD_SANDBOX_INFO, &ref, &bytes, &info, NULL);

	str_deinit(&bytes);
	return r == 0 ? info.memory_mb : 0;
}

void follow_note_end(struct cli *c, const struct follow_result *r, const char *sandbox)
{
	bool was_it = span_is(r->exit.reason, "oom");
	char limit[48] = "";
	uint64_t mb;

	if (span_is(r->exit.reason, "timeout"))
		cli_note(c, "the program ran longer than --timeout and was killed");
	if (!r->finished || (!was_it && !r->exit.oom_kills))
		return;
	mb = memory_of(c, sandbox);
	if (mb)
		(void)snprintf(limit, sizeof(limit), " (limit %llu MiB)", (unsigned long long)mb);
	cli_note(c, "%s: out of memory%s; --memory gives a new sandbox more",
		 was_it ? "killed" : "something in the sandbox was killed meanwhile", limit);
}

/* ---- JSON ---- */

static void capture_json(const struct capture *c, const char *name, struct str *out)
{
	str_addf(out, ",\"%s\":", name);
	encode_bytes_json(c->bytes.p, c->bytes.len, name, out);
	str_addf(out, ",\"%s_bytes\":%llu,\"%s_truncated\":%s", name, (unsigned long long)c->total,
		 name, c->total > c->bytes.len ? "true" : "false");
}

void follow_json(const struct follow_result *r, struct str *out)
{
	str_addf(out, "\"session\":%llu,\"exit_code\":%d,\"exit\":", (unsigned long long)r->session,
		 r->status);
	if (r->finished)
		rec_json(&rec_exec_exit_type, &r->exit, out);
	else
		str_add(out, "null");
	str_addf(out, ",\"reconnects\":%llu", (unsigned long long)r->reconnects);
	capture_json(&r->out, "stdout", out);
	capture_json(&r->err, "stderr", out);
}
