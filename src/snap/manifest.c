/* snap/manifest.c - one table says what a manifest holds, in which order, and how it is written */
#include "snap/manifest_int.h"
#include <errno.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdbool.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "snap/key_int.h"
#include "snap/set.h"

enum { VALUE_MAX = 160 }; /* bytes of a value, with NUL */

#define FIRST "hotcell-snapshot "
#define LAST  "mac "

struct field {
	const char *key;
	const struct kind *kind;
	size_t at, size;      /* in struct snap_manifest */
	bool required;	      /* or left out when empty */
	uint64_t min, max;    /* of numbers */
};

/* How one kind of value is written and read. */
struct kind {
	bool (*is_empty)(const struct field *f, const void *v);
	bool (*is_good)(const struct field *f, const void *v);
	void (*write)(const struct field *f, const void *v, struct str *out);
	int (*read)(const struct field *f, const char *text, void *v);
};

/* ---- texts ---- */

static bool text_is_empty(const struct field *f, const void *v)
{
	(void)f;
	return !*(const char *)v;
}

static bool text_is_good(const struct field *f, const void *v)
{
	const char *s = v;
	size_t n = strnlen(s, f->size);

	if (n == f->size || (n && (s[0] == ' ' || s[n - 1] == ' ')))
		return false;
	for (size_t i = 0; i < n; i++)
		if (s[i] < ' ' || s[i] > '~')
			return false;
	return true;
}

static void text_write(const struct field *f, const void *v, struct str *out)
{
	(void)f;
	str_add(out, v);
}

static int text_read(const struct field *f, const char *text, void *v)
{
	size_t n = strlen(text);

	if (n >= f->size)
		return -EINVAL;
	memcpy(v, text, n + 1);
	return 0;
}

static const struct kind text_kind = {text_is_empty, text_is_good, text_write, text_read};

/* ---- ids and sums: hexadecimal ---- */

static bool hex_is_empty(const struct field *f, const void *v)
{
	const unsigned char *b = v;

	for (size_t i = 0; i < f->size; i++)
		if (b[i])
			return false;
	return true;
}

static bool hex_is_good(const struct field *f, const void *v)
{
	(void)f, (void)v;
	return true;
}

static void hex_write(const struct field *f, const void *v, struct str *out)
{
	const unsigned char *b = v;

	for (size_t i = 0; i < f->size; i++)
		str_addf(out, "%02x", b[i]);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int hex_read(const struct field *f, const char *text, void *v)
{
	unsigned char *b = v;

	if (strlen(text) != 2 * f->size)
		return -EINVAL;
	for (size_t i = 0; i < f->size; i++) {
		int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		b[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

static const struct kind hex_kind = {hex_is_empty, hex_is_good, hex_write, hex_read};

/* ---- numbers ---- */

static bool number_is_empty(const struct field *f, const void *v)
{
	(void)f;
	return !*(const uint64_t *)v; /* of one that is required, 0 says something */
}

static bool number_is_good(const struct field *f, const void *v)
{
	uint64_t n = *(const uint64_t *)v;

	return n >= f->min && n <= f->max;
}

static void number_write(const struct field *f, const void *v, struct str *out)
{
	(void)f;
	str_addf(out, "%" PRIu64, *(const uint64_t *)v);
}

static int number_read(const struct field *f, const char *text, void *v)
{
	return str_to_u64(text, f->min, f->max, v);
}

static const struct kind number_kind = {number_is_empty, number_is_good, number_write, number_read};

/* ---- the table ---- */

#define MEMBER(name)	      offsetof(struct snap_manifest, name), sizeof(((struct snap_manifest *)0)->name)
#define TEXT(name, needed)    {#name, &text_kind, MEMBER(name), needed, 0, 0}
#define HEX(name, needed)     {#name, &hex_kind, MEMBER(name), needed, 0, 0}
#define NUMBER(name, min, max) {#name, &number_kind, MEMBER(name), true, min, max}
#define OPTION(name, min, max) {#name, &number_kind, MEMBER(name), false, min, max}

static const struct field fields[] = {
	HEX(id, true),
	TEXT(kind, true),
	TEXT(name, false),
	TEXT(tenant, false),
	TEXT(owner, false),
	HEX(sandbox, false),
	HEX(parent, false),
	TEXT(template, false),
	TEXT(image, false),
	TEXT(driver, true),
	TEXT(closure, false),
	TEXT(cpu, false),
	TEXT(kernel, false),
	NUMBER(tsc_khz, 0, UINT64_MAX),
	NUMBER(vcpus, 0, LIMIT_VCPUS_MAX),
	NUMBER(memory_mb, 0, LIMIT_MEMORY_MB_MAX),
	NUMBER(disk_mb, 0, LIMIT_DISK_MB_MAX),
	NUMBER(pids_max, 0, LIMIT_PIDS_MAX),
	NUMBER(layers, 0, LIMIT_DISK_LAYERS),
	NUMBER(created_ms, 0, UINT64_MAX),
	NUMBER(delete_ms, 0, UINT64_MAX),
	NUMBER(generation, 0, UINT64_MAX),
	NUMBER(memory_size, 0, (uint64_t)LIMIT_MEMORY_MB_MAX * MIB),
	NUMBER(memory_bytes, 0, (uint64_t)LIMIT_MEMORY_MB_MAX * MIB),
	NUMBER(state_bytes, 0, SNAP_STATE_MAX),
	HEX(memory_salt, true),
	HEX(memory_tag, true),
	HEX(state_sum, true),
	HEX(layer_sums, false),
	/* Of a set with a base, which is what format 3 adds: */
	OPTION(own_bytes, 0, UINT64_MAX),
	OPTION(base_size, 0, (uint64_t)LIMIT_MEMORY_MB_MAX * MIB),
	HEX(base_tag, false),
};

/* What can do without a base can be read by a program that knows none. */
static int format_of(const struct snap_manifest *m)
{
	return m->base_size ? SNAP_FORMAT : SNAP_FORMAT_BEFORE;
}

static void *value_of(const struct field *f, struct snap_manifest *m)
{
	return (char *)m + f->at;
}

static const void *peek(const struct field *f, const struct snap_manifest *m)
{
	return (const char *)m + f->at;
}

int manifest_check(const struct snap_manifest *m, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const struct field *f = &fields[i];
		const void *v = peek(f, m);

		if (!f->kind->is_good(f, v) ||
		    (f->required && f->kind == &text_kind && f->kind->is_empty(f, v)))
			return err_set(e, ERR_INVALID, "a snapshot can't be kept with this \"%s\"", f->key);
	}
	if (id_is_zero(&m->id))
		return err_set(e, ERR_INVALID, "a snapshot can't be kept without an id");
	return 0;
}

void manifest_write_body(const struct snap_manifest *m, struct str *out)
{
	str_addf(out, FIRST "%d\n", format_of(m));
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const struct field *f = &fields[i];

		if (!f->required && f->kind->is_empty(f, peek(f, m)))
			continue;
		str_addf(out, "%s ", f->key);
		f->kind->write(f, peek(f, m), out);
		str_add(out, "\n");
	}
}

/* ---- reading ---- */

struct reader {
	const char *at, *end;
};

/* Take the line "@key value" if it is the next one. */
static bool take_line(struct reader *r, const char *key, char value[VALUE_MAX])
{
	size_t left = (size_t)(r->end - r->at), n = strlen(key);
	const char *eol, *from;

	if (left <= n || memcmp(r->at, key, n) != 0 || r->at[n] != ' ')
		return false;
	from = r->at + n + 1;
	eol = memchr(from, '\n', (size_t)(r->end - from));
	if (!eol || eol - from >= VALUE_MAX || memchr(from, '\0', (size_t)(eol - from)))
		return false;
	memcpy(value, from, (size_t)(eol - from));
	value[eol - from] = '\0';
	r->at = eol + 1;
	return true;
}

static int damaged(struct err *e, const char *where)
{
	return err_set(e, ERR_INVALID, "its manifest is damaged at \"%s\"", where);
}

static int read_format(struct reader *r, struct err *e)
{
	char value[VALUE_MAX];
	uint64_t format;

	if (!take_line(r, "hotcell-snapshot", value) || str_to_u64(value, 1, UINT32_MAX, &format) < 0)
		return damaged(e, "hotcell-snapshot");
	if (format != SNAP_FORMAT && format != SNAP_FORMAT_BEFORE)
		return err_set(e, ERR_UNSUPPORTED, "it has format %" PRIu64 "; this program reads %d and %d",
			       format, SNAP_FORMAT_BEFORE, SNAP_FORMAT);
	return 0;
}

int manifest_read_body(const char *text, size_t n, struct snap_manifest *ret, struct err *e)
{
	struct str again = STR_INIT(SNAP_MANIFEST_MAX);
	struct reader reader = {text, text + n};
	struct snap_manifest m = {0};
	char value[VALUE_MAX];
	bool is_same;
	int r = read_format(&reader, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		const struct field *f = &fields[i];

		if (take_line(&reader, f->key, value)) {
			if (f->kind->read(f, value, value_of(f, &m)) < 0)
				return damaged(e, f->key);
		} else if (f->required) {
			return damaged(e, f->key);
		}
	}
	r = manifest_check(&m, e);
	if (r < 0)
		return r;
	manifest_write_body(&m, &again);
	is_same = !again.failed && again.len == n && memcmp(again.p, text, n) == 0;
	str_deinit(&again);
	if (!is_same)
		return damaged(e, "its end");
	*ret = m;
	return 0;
}

/* ---- with the MAC ---- */

static const struct field mac_field = {"mac", &hex_kind, 0, KEY_MAC, true, 0, 0};

int manifest_write(const struct snap_manifest *m, const struct key *k, struct str *out, struct err *e)
{
	unsigned char mac[KEY_MAC];
	int r = manifest_check(m, e);

	if (r < 0)
		return r;
	manifest_write_body(m, out);
	if (out->failed)
		return err_set(e, ERR_LIMIT, "the manifest is too long");
	r = key_mac(k, out->p, out->len, mac, e);
	if (r < 0)
		return r;
	str_add(out, LAST);
	hex_write(&mac_field, mac, out);
	str_add(out, "\n");
	return out->failed ? err_set(e, ERR_LIMIT, "the manifest is too long") : 0;
}

int manifest_read(const char *text, size_t n, const struct key *k, struct snap_manifest *ret,
		  struct err *e)
{
	const size_t last = strlen(LAST) + 2 * KEY_MAC + 1;
	unsigned char said[KEY_MAC], mac[KEY_MAC];
	char value[VALUE_MAX];
	struct reader reader;
	int r;

	if (n > SNAP_MANIFEST_MAX || n < last)
		return damaged(e, "its end");
	reader = (struct reader){text + n - last, text + n};
	if (!take_line(&reader, "mac", value) || reader.at != reader.end ||
	    hex_read(&mac_field, value, said) < 0)
		return damaged(e, "mac");
	r = key_mac(k, text, n - last, mac, e);
	if (r < 0)
		return r;
	if (CRYPTO_memcmp(mac, said, KEY_MAC) != 0)
		return err_set(e, ERR_DENIED, "its manifest was made on another installation or changed");
	return manifest_read_body(text, n - last, ret, e);
}
