/* client/api_code.c - hotcell.h: source in live interpreters */
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "client/api_int.h"
#include "client/code.h"
#include "client/conn.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"

enum { DEFAULT_OUTPUT = 16 * 1024 * 1024, PARTS_MAX = 1024, PARTS_BYTES_MAX = 64 * 1024 * 1024 };

struct part {
	char mime[LIMIT_TEXT_SHORT + 1];
	bool is_main;
	char *data; /* NUL behind it */
	size_t n;
};

struct hotcell_code_result {
	struct conn_op op; /* while it runs */
	struct code_call *x;
	const struct hotcell_code_options *options;
	struct err why;
	struct str out, err;
	bool truncated;
	struct part *parts;
	size_t n_parts, parts_bytes;
	char name[LIMIT_TEXT_MEDIUM + 1], says[LIMIT_TEXT_MEDIUM + 1], *traceback;
	char status[33], message[LIMIT_TEXT_MEDIUM + 1];
	uint64_t context, duration_us;
	int exit_code;
};

/* ---- what it says ---- */

static char *copy(const struct code_item *item)
{
	char *p = mem_try(item->n + 1);

	if (p)
		memcpy(p, item->p, item->n);
	return p;
}

static void keep_part(struct hotcell_code_result *r, const struct code_item *item)
{
	struct part *p;

	if (r->n_parts == PARTS_MAX || item->n > PARTS_BYTES_MAX - r->parts_bytes) {
		r->truncated = true;
		return;
	}
	p = &r->parts[r->n_parts];
	p->data = copy(item);
	if (!p->data) {
		r->truncated = true;
		return;
	}
	p->n = item->n;
	p->is_main = item->part->is_main;
	span_copy(item->part->mime, p->mime, sizeof(p->mime));
	r->parts_bytes += item->n;
	r->n_parts++;
}

static void keep_error(struct hotcell_code_result *r, const struct code_item *item)
{
	free(r->traceback);
	r->traceback = copy(item);
	span_copy(item->part->name, r->name, sizeof(r->name));
	span_copy(item->part->message, r->says, sizeof(r->says));
}

static void keep_output(struct hotcell_code_result *r, const struct code_item *item)
{
	struct str *s = item->what == CODE_STDERR ? &r->err : &r->out;
	size_t room = s->max - s->len;

	r->truncated |= item->n > room;
	str_add_mem(s, item->p, MIN(item->n, room));
	if (r->options->output)
		r->options->output(r->options->arg, (enum hotcell_stream)item->what, item->p, item->n);
}

static void on_readable(struct code_call *x)
{
	struct hotcell_code_result *r = code_arg(x);
	struct code_item item;

	while (code_peek(x, &item)) {
		if (item.what == CODE_RESULT)
			keep_part(r, &item);
		else if (item.what == CODE_EXCEPTION)
			keep_error(r, &item);
		else
			keep_output(r, &item);
		code_take(x, item.n);
	}
}

static void on_ended(struct code_call *x, const struct err *why)
{
	struct hotcell_code_result *r = code_arg(x);
	const struct rec_code_end *end = code_end(x);

	r->op.done = true;
	err_copy(&r->why, why);
	if (why)
		return;
	span_copy(end->status, r->status, sizeof(r->status));
	span_copy(end->message, r->message, sizeof(r->message));
	r->exit_code = (int)end->exit_code;
	r->duration_us = end->duration_us;
	r->context = code_context(x);
}

static void on_cancel(struct conn_op *op)
{
	struct hotcell_code_result *r = CONTAINER_OF(op, struct hotcell_code_result, op);

	err_set(&r->why, ERR_CANCELED, "canceled");
	op->done = true;
}

/* ---- calls ---- */

static int run(struct hotcell_sandbox *s, const struct rec_code_run *rec, struct hotcell_code_result *r,
	       struct err *e)
{
	static const struct code_ops ops = {.readable = on_readable, .ended = on_ended};
	int code = conn_ready(s->h->conn, e);

	if (code == 0)
		code = code_run(s->h->conn, rec, &ops, r, &r->x, e);
	if (code == 0)
		code = conn_run(s->h->conn, &r->op, e);
	r->x = code_close(r->x);
	return code < 0 ? code : err_copy(e, r->why.code ? &r->why : NULL);
}

int hotcell_code_run(struct hotcell_sandbox *s, const char *source, const struct hotcell_code_options *o,
		     struct hotcell_code_result **ret, struct hotcell_error *e)
{
	struct hotcell_code_options mine;
	struct hotcell_code_result *r;
	struct rec_code_run rec = {.sandbox = span_of(s->id), .source = span_of(source)};
	int code = api_options(o, &mine, sizeof(mine), "hotcell_code_options", api_err(e));

	if (code < 0)
		return code;
	rec.language = span_of(mine.language);
	rec.context = mine.context;
	rec.timeout_ms = mine.timeout_ms;
	r = mem_new(sizeof(*r));
	r->op.cancel = on_cancel;
	r->options = &mine;
	r->parts = mem_new(PARTS_MAX * sizeof(*r->parts));
	r->out.max = r->err.max = mine.max_output ? mine.max_output : DEFAULT_OUTPUT;
	code = run(s, &rec, r, api_err(e));
	if (code < 0) {
		hotcell_code_result_free(r);
		return code;
	}
	r->options = NULL;
	*ret = r;
	return 0;
}

int hotcell_code_open(struct hotcell_sandbox *s, const char *language, uint64_t *ret_context,
		      struct hotcell_error *e)
{
	struct rec_code_open rec = {.sandbox = span_of(s->id), .language = span_of(language)};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_code_context info;
	int r = conn_call(s->h->conn, METHOD_CODE_OPEN, &rec, &bytes, &info, api_err(e));

	if (r == 0)
		*ret_context = info.context;
	str_deinit(&bytes);
	return r;
}

static int call(struct hotcell_sandbox *s, unsigned method, uint64_t context, struct hotcell_error *e)
{
	struct rec_code_ref rec = {.sandbox = span_of(s->id), .context = context};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(s->h->conn, method, &rec, &bytes, NULL, api_err(e));

	str_deinit(&bytes);
	return r;
}

int hotcell_code_interrupt(struct hotcell_sandbox *s, uint64_t context, struct hotcell_error *e)
{
	return call(s, METHOD_CODE_INTERRUPT, context, e);
}

int hotcell_code_restart(struct hotcell_sandbox *s, uint64_t context, struct hotcell_error *e)
{
	return call(s, METHOD_CODE_RESTART, context, e);
}

int hotcell_code_close(struct hotcell_sandbox *s, uint64_t context, struct hotcell_error *e)
{
	return call(s, METHOD_CODE_CLOSE, context, e);
}

/* ---- accessors ---- */

const char *hotcell_code_status(const struct hotcell_code_result *r)
{
	return r->status;
}

const char *hotcell_code_message(const struct hotcell_code_result *r)
{
	return r->message;
}

int hotcell_code_exit_code(const struct hotcell_code_result *r)
{
	return r->exit_code;
}

uint64_t hotcell_code_context(const struct hotcell_code_result *r)
{
	return r->context;
}

uint64_t hotcell_code_duration_us(const struct hotcell_code_result *r)
{
	return r->duration_us;
}

static const char *text_of(const struct str *s, size_t *ret_n)
{
	if (ret_n)
		*ret_n = s->len;
	return str_text(s);
}

const char *hotcell_code_stdout(const struct hotcell_code_result *r, size_t *ret_n)
{
	return text_of(&r->out, ret_n);
}

const char *hotcell_code_stderr(const struct hotcell_code_result *r, size_t *ret_n)
{
	return text_of(&r->err, ret_n);
}

bool hotcell_code_truncated(const struct hotcell_code_result *r)
{
	return r->truncated;
}

size_t hotcell_code_count(const struct hotcell_code_result *r)
{
	return r->n_parts;
}

const char *hotcell_code_mime(const struct hotcell_code_result *r, size_t i)
{
	return r->parts[i].mime;
}

const void *hotcell_code_data(const struct hotcell_code_result *r, size_t i, size_t *ret_n)
{
	if (ret_n)
		*ret_n = r->parts[i].n;
	return r->parts[i].data;
}

bool hotcell_code_is_main(const struct hotcell_code_result *r, size_t i)
{
	return r->parts[i].is_main;
}

const char *hotcell_code_text(const struct hotcell_code_result *r)
{
	for (size_t i = 0; i < r->n_parts; i++)
		if (r->parts[i].is_main && strcmp(r->parts[i].mime, "text/plain") == 0)
			return r->parts[i].data;
	return NULL;
}

const char *hotcell_code_error_name(const struct hotcell_code_result *r)
{
	return r->name;
}

const char *hotcell_code_error_message(const struct hotcell_code_result *r)
{
	return r->says;
}

const char *hotcell_code_traceback(const struct hotcell_code_result *r)
{
	return r->traceback ? r->traceback : "";
}

void hotcell_code_result_free(struct hotcell_code_result *r)
{
	if (!r)
		return;
	for (size_t i = 0; i < r->n_parts; i++)
		free(r->parts[i].data);
	free(r->parts);
	free(r->traceback);
	str_deinit(&r->out);
	str_deinit(&r->err);
	free(r);
}
