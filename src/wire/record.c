/* wire/record.c - control records, driven by tables */
#include "wire/record.h"
#include <assert.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "wire/bytes.h"
#include "wire/gen/limits.h"

static_assert(RECORD_MAX == LIMIT_RECORD, "the schema and the code agree on the size of a record");

enum { FIELD_HEAD = 6, ITEM_HEAD = 4 };

static const void *at(const struct rec_field *f, const void *rec)
{
	return (const char *)rec + f->offset;
}

static int bad(const struct rec_type *t, const struct rec_field *f, struct err *e, int code,
	       const char *what)
{
	return err_set(e, code, "%s.%s: %s", t->name, f->name, what);
}

static int too_long(const struct rec_type *t, const struct rec_field *f, size_t n, struct err *e)
{
	return err_set(e, ERR_LIMIT, "%s.%s: %zu bytes, the limit is %llu", t->name, f->name, n,
		       (unsigned long long)f->max);
}

static int check_number(const struct rec_type *t, const struct rec_field *f, uint64_t v,
			struct err *e)
{
	if (v == 0 && !f->required) /* absent */
		return 0;
	if (v < f->min || (f->max && v > f->max))
		return err_set(e, ERR_LIMIT, "%s.%s: %llu is not between %llu and %llu", t->name,
			       f->name, (unsigned long long)v, (unsigned long long)f->min,
			       (unsigned long long)f->max);
	return 0;
}

static int no_choice(const struct rec_type *t, const struct rec_field *f, struct err *e)
{
	struct str words = STR_INIT(LIMIT_TEXT_MEDIUM);

	for (const char *const *c = f->choices; *c; c++)
		if (**c)
			str_addf(&words, "%s%s", words.len ? ", " : "", *c);
	(void)err_set(e, ERR_INVALID, "%s.%s: is none of: %s", t->name, f->name, str_text(&words));
	str_deinit(&words);
	return -ERR_INVALID;
}

static int check_text(const struct rec_type *t, const struct rec_field *f, struct span s,
		      struct err *e)
{
	if (f->required && s.n == 0)
		return bad(t, f, e, ERR_INVALID, "is missing");
	if (s.n > f->max)
		return too_long(t, f, s.n, e);
	if (f->type == REC_TEXT && s.n && memchr(s.p, '\0', s.n))
		return bad(t, f, e, ERR_INVALID, "holds a NUL byte");
	if (!f->choices)
		return 0;
	for (const char *const *c = f->choices; *c; c++)
		if (span_is(s, *c))
			return 0;
	return no_choice(t, f, e);
}

static int check_list(const struct rec_type *t, const struct rec_field *f, struct strv v,
		      struct err *e)
{
	if (f->required && v.n == 0)
		return bad(t, f, e, ERR_INVALID, "is missing");
	if (v.n > f->max)
		return too_long(t, f, v.n, e);
	if (v.n && v.p[v.n - 1] != '\0')
		return bad(t, f, e, ERR_INVALID, "does not end with a NUL");
	if (strv_count(v) > f->count)
		return err_set(e, ERR_LIMIT, "%s.%s: more than %u entries", t->name, f->name,
			       f->count);
	for (const char *s = strv_first(v); s && f->type == REC_MAP; s = strv_next(v, s))
		if (!strchr(s, '='))
			return bad(t, f, e, ERR_INVALID, "has an entry without '='");
	return 0;
}

static int check_field(const struct rec_type *t, const struct rec_field *f, const void *rec,
		       struct err *e)
{
	switch (f->type) {
	case REC_U64: return check_number(t, f, *(const uint64_t *)at(f, rec), e);
	case REC_TEXT:
	case REC_BYTES: return check_text(t, f, *(const struct span *)at(f, rec), e);
	case REC_LIST:
	case REC_MAP: return check_list(t, f, *(const struct strv *)at(f, rec), e);
	case REC_I64:
	case REC_BOOL:
	case REC_ID: return 0;
	}
	return bad(t, f, e, ERR_INTERNAL, "has no known type");
}

int rec_check(const struct rec_type *t, const void *rec, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < t->n_fields && r == 0; i++)
		r = check_field(t, &t->fields[i], rec, e);
	return r;
}

static void put(struct str *out, uint16_t tag, const void *p, size_t n)
{
	unsigned char head[FIELD_HEAD];

	put_u16(head, tag);
	put_u32(head + 2, (uint32_t)n);
	str_add_mem(out, head, sizeof(head));
	str_add_mem(out, p, n);
}

static void encode_field(const struct rec_field *f, const void *rec, struct str *out)
{
	const struct span *s = at(f, rec); /* struct strv has the same shape */
	unsigned char number[8];
	uint64_t v;

	switch (f->type) {
	case REC_U64:
	case REC_I64:
		memcpy(&v, at(f, rec), sizeof(v));
		put_u64(number, v);
		if (v)
			put(out, f->tag, number, sizeof(number));
		return;
	case REC_BOOL:
		if (*(const bool *)at(f, rec))
			put(out, f->tag, "\1", 1);
		return;
	case REC_ID:
		if (!id_is_zero(at(f, rec)))
			put(out, f->tag, at(f, rec), ID_BYTES);
		return;
	case REC_TEXT:
	case REC_BYTES:
	case REC_LIST:
	case REC_MAP:
		if (s->n)
			put(out, f->tag, s->p, s->n);
		return;
	}
}

int rec_encode(const struct rec_type *t, const void *rec, struct str *out, struct err *e)
{
	size_t start = out->len;
	int r = rec_check(t, rec, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < t->n_fields; i++)
		encode_field(&t->fields[i], rec, out);
	if (out->failed || out->len - start > RECORD_MAX)
		return err_set(e, ERR_LIMIT, "%s: longer than %d bytes in all", t->name, RECORD_MAX);
	return 0;
}

static const struct rec_field *find(const struct rec_type *t, uint16_t tag)
{
	for (size_t i = 0; i < t->n_fields; i++)
		if (t->fields[i].tag == tag)
			return &t->fields[i];
	return NULL;
}

static int decode_field(const struct rec_type *t, const struct rec_field *f, const unsigned char *p,
			size_t n, void *rec, struct err *e)
{
	void *to = (char *)rec + f->offset;
	uint64_t v;

	switch (f->type) {
	case REC_U64:
	case REC_I64:
		if (n != 8)
			return bad(t, f, e, ERR_INVALID, "a number has 8 bytes");
		v = get_u64(p);
		memcpy(to, &v, sizeof(v));
		return 0;
	case REC_BOOL:
		if (n != 1 || p[0] > 1)
			return bad(t, f, e, ERR_INVALID, "is neither true nor false");
		*(bool *)to = p[0];
		return 0;
	case REC_ID:
		if (n != ID_BYTES)
			return bad(t, f, e, ERR_INVALID, "an id has 16 bytes");
		memcpy(to, p, n);
		return 0;
	case REC_TEXT:
	case REC_BYTES:
	case REC_LIST:
	case REC_MAP: *(struct span *)to = (struct span){(const char *)p, n}; return 0;
	}
	return bad(t, f, e, ERR_INTERNAL, "has no known type");
}

int rec_decode(const struct rec_type *t, const void *bytes, size_t n, void *rec, struct err *e)
{
	const unsigned char *p = bytes;
	uint64_t seen = 0; /* bit per field */
	int r;

	assert(t->n_fields <= 64);
	memset(rec, 0, t->size);
	if (n > RECORD_MAX)
		return err_set(e, ERR_LIMIT, "%s: longer than %d bytes", t->name, RECORD_MAX);
	while (n) {
		const struct rec_field *f;
		size_t len;

		if (n < FIELD_HEAD)
			return err_set(e, ERR_INVALID, "%s: ends inside a field", t->name);
		f = find(t, get_u16(p));
		len = get_u32(p + 2);
		p += FIELD_HEAD;
		n -= FIELD_HEAD;
		if (len > n)
			return err_set(e, ERR_INVALID, "%s: ends inside a field", t->name);
		if (f) {
			uint64_t bit = 1ull << (f - t->fields);

			if (seen & bit)
				return bad(t, f, e, ERR_INVALID, "is given twice");
			seen |= bit;
			r = decode_field(t, f, p, len, rec, e);
			if (r < 0)
				return r;
		}
		p += len;
		n -= len;
	}
	return rec_check(t, rec, e);
}

int rec_item_encode(const struct rec_type *t, const void *rec, struct str *out, struct err *e)
{
	size_t start = out->len;
	int r;

	str_add_mem(out, "\0\0\0\0", ITEM_HEAD);
	r = rec_encode(t, rec, out, e);
	if (r == 0)
		put_u32((unsigned char *)out->p + start, (uint32_t)(out->len - start - ITEM_HEAD));
	return r;
}

int rec_item_next(const struct rec_type *t, const void *p, size_t n, void *rec, struct err *e)
{
	uint32_t len;
	int r;

	if (n < ITEM_HEAD)
		return 0;
	len = get_u32(p);
	if (len > RECORD_MAX)
		return err_set(e, ERR_LIMIT, "%s: an item of %u bytes, the limit is %d", t->name, len,
			       RECORD_MAX);
	if (n - ITEM_HEAD < len)
		return 0;
	r = rec_decode(t, (const char *)p + ITEM_HEAD, len, rec, e);
	return r < 0 ? r : (int)(ITEM_HEAD + len);
}

static void json_list(struct strv v, struct str *out)
{
	const char *comma = "";

	str_add(out, "[");
	for (const char *s = strv_first(v); s; s = strv_next(v, s)) {
		str_add(out, comma);
		str_add_json(out, s, strlen(s));
		comma = ",";
	}
	str_add(out, "]");
}

/* A number of the schema is one in JSON, if it looks like one. */
static void json_map_value(const char *s, bool count, struct str *out)
{
	size_t n = strlen(s);

	if (count && n > 0 && n < 16 && strspn(s, "0123456789") == n && (s[0] != '0' || n == 1))
		str_add(out, s);
	else
		str_add_json(out, s, n);
}

static void json_map(struct strv v, bool count, struct str *out)
{
	const char *comma = "";

	str_add(out, "{");
	for (const char *s = strv_first(v); s; s = strv_next(v, s)) {
		const char *eq = strchr(s, '=');

		if (!eq)
			continue;
		str_add(out, comma);
		str_add_json(out, s, (size_t)(eq - s));
		str_add(out, ":");
		json_map_value(eq + 1, count, out);
		comma = ",";
	}
	str_add(out, "}");
}

static void json_field(const struct rec_field *f, const void *rec, struct str *out)
{
	const void *p = at(f, rec);
	char text[ID_TEXT];

	switch (f->type) {
	case REC_U64: str_addf(out, "%llu", (unsigned long long)*(const uint64_t *)p); return;
	case REC_I64: str_addf(out, "%lld", (long long)*(const int64_t *)p); return;
	case REC_BOOL: str_add(out, *(const bool *)p ? "true" : "false"); return;
	case REC_TEXT:
	case REC_BYTES:
		str_add_json(out, ((const struct span *)p)->p, ((const struct span *)p)->n);
		return;
	case REC_LIST: json_list(*(const struct strv *)p, out); return;
	case REC_MAP: json_map(*(const struct strv *)p, f->unit == REC_COUNT, out); return;
	case REC_ID:
		id_format(p, text);
		str_addf(out, "\"%s\"", text);
		return;
	}
}

void rec_json(const struct rec_type *t, const void *rec, struct str *out)
{
	str_add(out, "{");
	for (size_t i = 0; i < t->n_fields; i++) {
		str_addf(out, "%s\"%s\":", i ? "," : "", t->fields[i].name);
		json_field(&t->fields[i], rec, out);
	}
	str_add(out, "}");
}

void strv_add(struct str *s, const char *entry)
{
	str_add_mem(s, entry, strlen(entry) + 1);
}

struct strv strv_of(const struct str *s)
{
	return (struct strv){s->p, s->len};
}
