/* cli/code_follow.c - print what a run says while it says it */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/code.h"
#include "cli/encode.h"
#include "cli/signals.h"
#include "cli/sink.h"
#include "client/code.h"
#include "client/conn.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"

enum { TEXT_MAX = 8 * LIMIT_CODE_PART /* a result as JSON */ };

struct follow {
	struct conn_op op;
	struct cli *cli;
	const struct rec_code_run *rec;
	int save_fd; /* -1: results are not kept */
	struct code_call *x;
	struct sink out, err;
	struct str text; /* on its way to `to` */
	size_t text_done;
	struct sink *to;
	unsigned interrupts, saved;
	bool ended;
	int status;
	struct err why;
};

static void finish(struct follow *f, const struct err *why)
{
	if (f->op.done)
		return;
	err_copy(&f->why, why);
	f->op.done = true;
}

/* ---- results ---- */

static const char *suffix_of(struct span mime)
{
	static const char *const suffixes[][2] = {
		{"image/png", "png"},	     {"image/svg+xml", "svg"},	   {"image/jpeg", "jpg"},
		{"text/html", "html"},	     {"text/markdown", "md"},	   {"text/latex", "tex"},
		{"application/json", "json"}, {"application/pdf", "pdf"},
	};
	const char *end = memchr(mime.p, ';', mime.n);

	if (end)
		mime.n = (size_t)(end - mime.p);
	for (size_t i = 0; i < ARRAY_LEN(suffixes); i++)
		if (span_is(mime, suffixes[i][0]))
			return suffixes[i][1];
	return "bin";
}

static bool is_image(struct span mime)
{
	return mime.n > 6 && memcmp(mime.p, "image/", 6) == 0;
}

/* Names are ours, not the guest's; what is there already is not followed if it is a link. */
static void save(struct follow *f, const struct code_item *item)
{
	struct span mime = item->part->mime;
	struct err e = ERR_INIT;
	char name[64];
	AUTO_CLOSE int fd = -1;
	int r;

	(void)snprintf(name, sizeof(name), "result-%u.%s", ++f->saved, suffix_of(mime));
	r = fd = sys_openat(f->save_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644);
	if (r >= 0)
		r = sys_write_full(fd, item->p, item->n);
	if (r < 0) {
		err_sys(&e, r, "--save: %s", name);
		finish(f, &e);
		return;
	}
	cli_note(f->cli, "%s: %.*s, %zu bytes", name, (int)mime.n, mime.p, item->n);
}

static void show_result(struct follow *f, const struct code_item *item)
{
	struct span mime = item->part->mime;

	if (span_is(mime, "text/plain")) {
		f->to = &f->out;
		str_add_mem(&f->text, item->p, item->n);
		if (!item->n || ((const char *)item->p)[item->n - 1] != '\n')
			str_add(&f->text, "\n");
	} else if (f->save_fd >= 0) {
		save(f, item);
	} else if (is_image(mime)) { /* of others there is a text, too */
		cli_note(f->cli, "%.*s, %zu bytes; --save DIR keeps it", (int)mime.n, mime.p, item->n);
	}
}

static void render_people(struct follow *f, const struct code_item *item)
{
	if (item->what == CODE_RESULT) {
		show_result(f, item);
		return;
	}
	f->to = &f->err;
	str_add_mem(&f->text, item->p, item->n);
}

static void render_json(struct follow *f, const struct code_item *item)
{
	static const char *const kinds[] = {[CODE_STDOUT] = "stdout",
					    [CODE_STDERR] = "stderr",
					    [CODE_RESULT] = "result",
					    [CODE_EXCEPTION] = "error"};
	struct str *t = &f->text;

	f->to = &f->out;
	str_addf(t, "{\"kind\":\"%s\",", kinds[item->what]);
	if (item->part) {
		str_add(t, "\"part\":");
		rec_json(&rec_code_part_type, item->part, t);
		str_add(t, ",");
	}
	str_add(t, "\"data\":");
	encode_bytes_json(item->p, item->n, "data", t);
	str_add(t, "}\n");
	if (item->part && item->what == CODE_RESULT && f->save_fd >= 0 &&
	    !span_is(item->part->mime, "text/plain"))
		save(f, item);
}

/* ---- output ---- */

static void write_failed(struct follow *f, int r)
{
	struct err e = ERR_INIT;

	if (r == -EPIPE) {
		f->status = CLI_SIGNAL + SIGPIPE;
		finish(f, NULL);
		return;
	}
	err_sys(&e, r, "write to standard output");
	finish(f, &e);
}

/* Returns false when the sink calls later, or it is over. */
static bool put(struct follow *f, struct sink *to, const void *p, size_t n, size_t *ret_n)
{
	ssize_t r = sink_write(to, p, n);

	if (r >= 0)
		*ret_n = (size_t)r;
	else if (r != -EAGAIN)
		write_failed(f, (int)r);
	return r >= 0;
}

static bool put_text(struct follow *f)
{
	size_t n;

	while (f->text_done < f->text.len) {
		if (!put(f, f->to, f->text.p + f->text_done, f->text.len - f->text_done, &n))
			return false;
		f->text_done += n;
	}
	f->text_done = 0;
	if (f->text.cap > 1024 * 1024) { /* they are rare */
		str_deinit(&f->text);
		f->text = (struct str)STR_INIT(TEXT_MAX);
	} else {
		str_clear(&f->text);
	}
	return true;
}

static bool pass(struct follow *f, const struct code_item *item)
{
	size_t n;

	if (!f->cli->json && item->part == NULL) {
		if (!put(f, item->what == CODE_STDERR ? &f->err : &f->out, item->p, item->n, &n))
			return false;
		code_take(f->x, n);
		return true;
	}
	if (f->cli->json)
		render_json(f, item);
	else
		render_people(f, item);
	code_take(f->x, item->n);
	return true;
}

static void drain(struct follow *f)
{
	struct code_item item;

	while (!f->op.done && put_text(f)) {
		if (f->ended && !f->op.done) {
			finish(f, NULL);
			return;
		}
		if (!code_peek(f->x, &item) || !pass(f, &item))
			return;
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

static void on_readable(struct code_call *x)
{
	drain(code_arg(x));
}

/* ---- the end ---- */

static int status_of(const struct rec_code_end *end)
{
	int code = (int)(end->exit_code & 255);

	if (span_is(end->status, "ok"))
		return code;
	if (span_is(end->status, "timeout"))
		return CLI_TIMED_OUT;
	if (span_is(end->status, "interrupted"))
		return CLI_SIGNAL + SIGINT;
	return end->signal ? CLI_SIGNAL + (int)(end->signal & 127) : code ? code : 1;
}

static void on_ended(struct code_call *x, const struct err *why)
{
	struct follow *f = code_arg(x);
	const struct rec_code_end *end = code_end(x);

	if (why) {
		finish(f, why);
		return;
	}
	f->status = status_of(end);
	f->ended = true;
	if (f->cli->json) {
		f->to = &f->out;
		str_addf(&f->text, "{\"kind\":\"end\",\"context\":%llu,\"run\":%llu,\"end\":",
			 (unsigned long long)code_context(x), (unsigned long long)code_number(x));
		rec_json(&rec_code_end_type, end, &f->text);
		str_add(&f->text, "}\n");
	} else if (end->message.n) {
		cli_note(f->cli, "%.*s", (int)end->message.n, end->message.p);
	}
	drain(f);
}

/* ---- signals ---- */

static void leave(struct follow *f, int signo)
{
	f->status = CLI_SIGNAL + signo;
	finish(f, NULL);
}

static void interrupt(struct follow *f)
{
	static const struct stream_ops nobody = {0};
	struct rec_code_ref ref = {.sandbox = f->rec->sandbox, .context = code_context(f->x)};
	struct link *k = conn_link(f->cli->conn);

	if (k && ref.context)
		(void)link_call(k, METHOD_CODE_INTERRUPT, &rec_code_ref_type, &ref, false, NULL, 0,
				&nobody, NULL, NULL, NULL);
}

static void on_signal(void *arg, int signo)
{
	struct follow *f = arg;

	if (signo != SIGINT && signo != SIGQUIT && signo != SIGTERM && signo != SIGHUP) {
		if (signo == SIGTSTP)
			(void)kill(getpid(), SIGSTOP);
		return;
	}
	interrupt(f);
	if (signo == SIGINT && f->interrupts++ == 0 && code_context(f->x))
		return;
	leave(f, signo);
}

static void cancel(struct conn_op *op)
{
	leave(CONTAINER_OF(op, struct follow, op), SIGINT);
}

/* ---- all of it ---- */

static int open_save(struct span dir, int *ret, struct err *e)
{
	char path[LIMIT_PATH + 1];

	if (!dir.n)
		return 0;
	span_copy(dir, path, sizeof(path));
	*ret = sys_open(path, O_RDONLY | O_DIRECTORY);
	return *ret < 0 ? err_sys(e, *ret, "--save %s", path) : 0;
}

static int run(struct follow *f, struct err *e)
{
	static const struct code_ops ops = {.readable = on_readable, .ended = on_ended};
	struct loop *l = conn_loop(f->cli->conn);
	int r = code_run(f->cli->conn, f->rec, &ops, f, &f->x, e);

	if (r < 0)
		return r;
	sink_init(&f->out, l, STDOUT_FILENO, out_ready);
	sink_init(&f->err, l, STDERR_FILENO, err_ready);
	signals_redirect(f->cli->signals, on_signal, f);
	r = conn_run(f->cli->conn, &f->op, e);
	cli_default_signals(f->cli);
	sink_deinit(&f->out);
	sink_deinit(&f->err);
	return r < 0 ? r : err_copy(e, f->why.code ? &f->why : NULL);
}

int code_follow(struct cli *c, const struct rec_code_run *rec, struct span save_dir, int *ret_status,
		struct err *e)
{
	struct follow f = {.op.cancel = cancel,
			   .cli = c,
			   .rec = rec,
			   .save_fd = -1,
			   .text = STR_INIT(TEXT_MAX)};
	int r = open_save(save_dir, &f.save_fd, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = conn_ready(c->conn, e);
	if (r == 0)
		r = run(&f, e);
	code_close(f.x);
	(void)sys_close(f.save_fd);
	str_deinit(&f.text);
	if (r == 0)
		*ret_status = f.status;
	return r;
}
