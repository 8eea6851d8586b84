/*
 * wire/record.h - control records: structs to bytes and back, driven by tables
 * that tools/gen writes from schema/records.toml. No system calls. Any thread.
 *
 * Bytes: per field, u16 tag, u32 length, value; little-endian; numbers are 8
 * bytes, bool is 1, id is 16. Zero and empty fields are left out, so absent
 * means zero. Unknown tags are skipped (a newer peer), a known tag twice is an
 * error (two readers must never see two values).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/id.h"
#include "base/span.h"

struct err;
struct str;

#define RECORD_MAX 65536 /* LIMIT_RECORD: bytes of one encoded record */

enum rec_kind { REC_U64, REC_I64, REC_BOOL, REC_TEXT, REC_BYTES, REC_LIST, REC_MAP, REC_ID };

/* How a person types and reads a number. */
enum rec_unit { REC_PLAIN, REC_MIB, REC_MS, REC_MILLI, REC_OCTAL, REC_COUNT, REC_SIZE };

struct rec_field {
	const char *name;
	uint16_t tag;
	enum rec_kind type;
	size_t offset;	   /* in the struct */
	uint64_t min, max; /* number: value, when max != 0; else: bytes */
	unsigned count;	   /* list, map: entries */
	bool required;
	enum rec_unit unit;
	const char *const *choices; /* NULL-terminated; NULL: anything */
	const char *flag, *arg;	    /* command line option; NULL: none */
	const char *doc;
};

struct rec_type {
	const char *name;
	const struct rec_field *fields;
	size_t n_fields;
	size_t size; /* of the struct */
};

/*
 * rec_encode() - append @rec to @out
 *
 * Return: 0; -ERR_INVALID or -ERR_LIMIT naming the record, the field and the limit.
 */
int rec_encode(const struct rec_type *t, const void *rec, struct str *out, struct err *e);

/*
 * rec_decode() - check @n hostile bytes and fill @rec
 * @rec:	zeroed first; text, bytes and lists point into @p, which must outlive it
 *
 * Every bound of the schema holds afterwards; text holds no NUL; list entries
 * are NUL-terminated, map entries hold a '='.
 * Return: 0; -ERR_INVALID or -ERR_LIMIT naming the record, the field and the limit.
 */
int rec_decode(const struct rec_type *t, const void *p, size_t n, void *rec, struct err *e);

/* Check the bounds of a struct made here, as rec_decode() does for bytes. */
int rec_check(const struct rec_type *t, const void *rec, struct err *e);

/*
 * Add @rec as a JSON object, every field in schema order, empty ones included
 * (so that readers need not guess). A map becomes an object of texts (REC_COUNT: of
 * numbers), an id hex text.
 */
void rec_json(const struct rec_type *t, const void *rec, struct str *out);

/*
 * Items: records behind each other in a byte stream, each after a u32 length.
 * rec_item_next() takes one off the front of @n bytes.
 * Return: bytes used; 0 when more are needed; -ERR_LIMIT or -ERR_INVALID.
 */
int rec_item_encode(const struct rec_type *t, const void *rec, struct str *out, struct err *e);
int rec_item_next(const struct rec_type *t, const void *p, size_t n, void *rec, struct err *e);

/* Build a list or map value in a str: entry by entry, each with its NUL. */
void strv_add(struct str *s, const char *entry);
struct strv strv_of(const struct str *s); /* lent from @s */
