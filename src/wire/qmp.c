/* wire/qmp.c - lines, then jansson, then the few fields that matter */
#include "wire/qmp.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"

enum { LINE_FIRST = 1024 };

void qmp_parser_init(struct qmp_parser *p, bool torn)
{
	*p = (struct qmp_parser){.is_torn = torn};
}

void qmp_parser_deinit(struct qmp_parser *p)
{
	free(p->line);
	*p = (struct qmp_parser){.failed = true};
}

/* ---- fields ---- */

static void json_free(json_t **j)
{
	json_decref(*j);
}

/* Absent or of another type: empty. */
static void copy_text(const json_t *j, char ret[QMP_TEXT_MAX + 1])
{
	span_copy((struct span){json_string_value(j), json_string_length(j)}, ret, QMP_TEXT_MAX + 1);
}

static void text_of(const json_t *object, const char *key, char ret[QMP_TEXT_MAX + 1])
{
	copy_text(json_object_get(object, key), ret);
}

static int read_greeting(const json_t *qmp, struct qmp_message *m)
{
	const json_t *v = json_object_get(json_object_get(qmp, "version"), "qemu");

	m->kind = QMP_GREETING;
	(void)snprintf(m->name, sizeof(m->name), "%lld.%lld.%lld",
		       (long long)json_integer_value(json_object_get(v, "major")),
		       (long long)json_integer_value(json_object_get(v, "minor")),
		       (long long)json_integer_value(json_object_get(v, "micro")));
	return 0;
}

static int read_return(const json_t *value, struct qmp_message *m)
{
	m->kind = QMP_RETURN;
	if (json_is_string(value))
		copy_text(value, m->text);
	else
		text_of(value, "status", m->text);
	return 0;
}

static int read_error(const json_t *error, struct qmp_message *m)
{
	m->kind = QMP_ERROR;
	text_of(error, "class", m->name);
	text_of(error, "desc", m->text);
	return json_is_object(error) ? 0 : -1;
}

static int read_event(const json_t *root, const json_t *event, struct qmp_message *m)
{
	static const char *const keys[] = {"reason", "action", "status", "error"};
	const json_t *data = json_object_get(root, "data");

	m->kind = QMP_EVENT;
	text_of(root, "event", m->name);
	for (size_t i = 0; i < ARRAY_LEN(keys) && !m->text[0]; i++)
		text_of(data, keys[i], m->text);
	return json_is_string(event) ? 0 : -1;
}

static int read_fields(const json_t *root, struct qmp_message *m)
{
	const json_t *j, *id = json_object_get(root, "id");

	if (json_is_integer(id) && json_integer_value(id) > 0)
		m->id = (uint64_t)json_integer_value(id);
	if ((j = json_object_get(root, "event")))
		return read_event(root, j, m);
	if ((j = json_object_get(root, "return")))
		return read_return(j, m);
	if ((j = json_object_get(root, "error")))
		return read_error(j, m);
	if ((j = json_object_get(root, "QMP")))
		return read_greeting(j, m);
	return -1;
}

/* ---- lines ---- */

/* The JSON reader recurses per level: refuse depth before it sees it. */
static bool is_shallow(const char *p, size_t n)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < n; i++) {
		if (quoted && p[i] == '\\') {
			i++; /* whatever it escapes, a quote above all */
		} else if (quoted) {
			quoted = p[i] != '"';
		} else if (p[i] == '"') {
			quoted = true;
		} else if (p[i] == '{' || p[i] == '[') {
			if (++depth > QMP_DEPTH_MAX)
				return false;
		} else if ((p[i] == '}' || p[i] == ']') && depth) {
			depth--;
		}
	}
	return true;
}

static int read_line(const char *p, size_t n, struct qmp_message *ret, struct err *e)
{
	[[gnu::cleanup(json_free)]] json_t *root = NULL;
	struct qmp_message m = {0};

	if (!is_shallow(p, n))
		return err_set(e, ERR_LIMIT, "the monitor sent a message deeper than %d levels", QMP_DEPTH_MAX);
	root = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(root) || read_fields(root, &m) < 0)
		return err_set(e, ERR_INVALID, "the monitor sent a line that is no message");
	*ret = m;
	return 1;
}

static int add(struct qmp_parser *p, const char *bytes, size_t n, struct err *e)
{
	if (n > QMP_LINE_MAX - p->len)
		return err_set(e, ERR_LIMIT, "the monitor sent a line longer than %d bytes", QMP_LINE_MAX);
	if (p->len + n > p->cap) {
		size_t cap = MAX(p->cap, (size_t)LINE_FIRST);
		char *line;

		while (cap < p->len + n)
			cap *= 2;
		line = realloc(p->line, cap);
		if (!line)
			return err_set(e, ERR_LIMIT, "out of memory");
		p->line = line;
		p->cap = cap;
	}
	if (n)
		memcpy(p->line + p->len, bytes, n);
	p->len += n;
	return 0;
}

static bool is_blank(const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r')
			return false;
	return true;
}

/* A line is whole. */
static int finish(struct qmp_parser *p, struct qmp_message *ret, struct err *e)
{
	bool torn = p->is_torn;
	size_t n = p->len;
	int r;

	p->len = 0;
	if (n == 0 || is_blank(p->line, n))
		return 0;
	p->is_torn = false;
	r = read_line(p->line, n, ret, torn ? NULL : e);
	return r < 0 && torn ? 0 : r;
}

int qmp_parse(struct qmp_parser *p, struct span *in, struct qmp_message *ret, struct err *e)
{
	int r = 0;

	if (p->failed)
		return err_set(e, ERR_INVALID, "the monitor broke its protocol before");
	while (in->n && r == 0) {
		const char *end = memchr(in->p, '\n', in->n);
		size_t n = end ? (size_t)(end - in->p) : in->n;

		r = add(p, in->p, n, e);
		n += end != NULL;
		in->p += n;
		in->n -= n;
		if (r == 0 && end)
			r = finish(p, ret, e);
	}
	if (r < 0)
		p->failed = true; /* QMP-2 */
	return r;
}

/* ---- commands ---- */

void qmp_command(struct str *s, const char *name, const char *arguments, uint64_t id)
{
	str_addf(s, "{\"execute\":\"%s\",%s%s%s\"id\":%" PRIu64 "}\n", name,
		 arguments ? "\"arguments\":" : "", arguments ? arguments : "", arguments ? "," : "", id);
}

void qmp_flush(struct str *s)
{
	/* No token of JSON contains it, in or out of a string, so the reader on the other side starts anew. */
	str_add_mem(s, "\xff", 1);
}
