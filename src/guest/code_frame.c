/* guest/code_frame.c - what agent and harness say to each other */
#include "guest/code_frame.h"
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "wire/bytes.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum {
	PART_HEAD = 5,	/* length, flags */
	ERROR_HEAD = 6, /* length, length of the name */
	END_SIZE = 5,
	FLAG_MAIN = 1,
};

void code_head(unsigned char ret[CODE_HEAD], unsigned kind, size_t n)
{
	ret[0] = (unsigned char)kind;
	ret[1] = (unsigned char)n;
	ret[2] = (unsigned char)(n >> 8);
	ret[3] = (unsigned char)(n >> 16);
}

/* ---- frames ---- */

static size_t body_length(const struct code_reader *r)
{
	return get_u32(r->bytes) >> 8;
}

void *code_reader_space(struct code_reader *r, size_t *ret_n)
{
	size_t want = CODE_HEAD;

	if (r->used >= CODE_HEAD)
		want += MIN(body_length(r), (size_t)CODE_FRAME_MAX);
	*ret_n = want - r->used;
	return r->bytes + r->used;
}

int code_reader_frame(const struct code_reader *r, struct code_frame *ret, struct err *e)
{
	size_t n;

	if (r->used < CODE_HEAD)
		return 0;
	n = body_length(r);
	if (n > CODE_FRAME_MAX)
		return err_set(e, ERR_INVALID, "a frame of %zu bytes; %d is the limit", n, CODE_FRAME_MAX);
	if (r->used < CODE_HEAD + n)
		return 0;
	*ret = (struct code_frame){(enum code_say)r->bytes[0],
				   {(const char *)r->bytes + CODE_HEAD, n}};
	return 1;
}

void code_reader_drop(struct code_reader *r)
{
	r->used = 0;
}

/* ---- what may be said next ---- */

static int begin_body(struct code_state *st, const struct code_frame *f, size_t head, struct err *e)
{
	uint32_t n;

	if (st->body_left)
		return err_set(e, ERR_INVALID, "a result begins before the last one is complete");
	if (f->body.n < head)
		return err_set(e, ERR_INVALID, "a head of %zu bytes", f->body.n);
	n = get_u32(f->body.p);
	if (n > LIMIT_CODE_PART)
		return err_set(e, ERR_INVALID, "a result of %u bytes; %d is the limit", n, LIMIT_CODE_PART);
	st->body_left = n;
	return 0;
}

static int take_ready(struct code_state *st, const struct code_frame *f, struct err *e)
{
	(void)f;
	if (st->ready)
		return err_set(e, ERR_INVALID, "ready twice");
	st->ready = true;
	return 0;
}

static int take_running(struct code_state *st, const struct code_frame *f, struct err *e)
{
	(void)f;
	if (st->told)
		return err_set(e, ERR_INVALID, "one source was taken twice");
	st->told = true;
	return 0;
}

static int take_part(struct code_state *st, const struct code_frame *f, struct err *e)
{
	struct span mime = {f->body.p + PART_HEAD, f->body.n - MIN(f->body.n, (size_t)PART_HEAD)};

	for (size_t i = 0; i < mime.n; i++)
		if (mime.p[i] < ' ' || mime.p[i] > '~')
			return err_set(e, ERR_INVALID, "a type that is no text");
	if (mime.n == 0 || mime.n > LIMIT_TEXT_SHORT)
		return err_set(e, ERR_INVALID, "a type of %zu bytes", mime.n);
	return begin_body(st, f, PART_HEAD, e);
}

static int take_body(struct code_state *st, const struct code_frame *f, struct err *e)
{
	if (f->body.n == 0 || f->body.n > st->body_left)
		return err_set(e, ERR_INVALID, "%zu bytes of a result that has %llu left", f->body.n,
			       (unsigned long long)st->body_left);
	st->body_left -= f->body.n;
	return 0;
}

static int take_error(struct code_state *st, const struct code_frame *f, struct err *e)
{
	if (f->body.n >= ERROR_HEAD && get_u16(f->body.p + 4) > f->body.n - ERROR_HEAD)
		return err_set(e, ERR_INVALID, "an error's name that is longer than its frame");
	return begin_body(st, f, ERROR_HEAD, e);
}

static int take_end(struct code_state *st, const struct code_frame *f, struct err *e)
{
	if (f->body.n != END_SIZE || (unsigned char)f->body.p[0] >= CODE_OUTCOME_N)
		return err_set(e, ERR_INVALID, "an end that is none");
	if (st->body_left)
		return err_set(e, ERR_INVALID, "an end in the middle of a result");
	return 0; /* the agent ends the run */
}

static int take_reseeded(struct code_state *st, const struct code_frame *f, struct err *e)
{
	if (!st->reseeding || f->body.n != CODE_NONCE)
		return err_set(e, ERR_INVALID, "a proof nobody asked for");
	st->reseeding = false;
	return 0;
}

/* When each may be said: while a source runs, or while none does. */
static const struct {
	bool running, told;
	int (*take)(struct code_state *st, const struct code_frame *f, struct err *e);
} sayings[] = {
	[CODE_READY] = {false, false, take_ready},
	[CODE_RUNNING] = {true, false, take_running},
	[CODE_PART] = {true, true, take_part},
	[CODE_BODY] = {true, true, take_body},
	[CODE_ERROR] = {true, true, take_error},
	[CODE_END] = {true, true, take_end},
	[CODE_RESEEDED] = {false, false, take_reseeded},
};

int code_state_take(struct code_state *st, const struct code_frame *f, struct err *e)
{
	unsigned kind = f->kind;

	if (kind >= ARRAY_LEN(sayings) || !sayings[kind].take)
		return err_set(e, ERR_INVALID, "a frame of the unknown kind %u", kind);
	if (st->running != sayings[kind].running || (sayings[kind].told && !st->told) ||
	    (kind != CODE_READY && !st->ready))
		return err_set(e, ERR_INVALID, "a frame of kind %u out of turn", kind);
	return sayings[kind].take(st, f, e);
}

/* ---- heads ---- */

/* Cut to the record's limit, between characters; NUL bytes would not pass. */
static struct span as_text(struct span from, char *to)
{
	size_t n = 0;

	for (size_t i = 0; i < from.n && n < LIMIT_TEXT_MEDIUM; i++)
		to[n++] = from.p[i] ? from.p[i] : '?';
	while (n && n < from.n && ((unsigned char)from.p[n] & 0xc0) == 0x80)
		n--;
	return (struct span){to, n};
}

void code_part_encode(const struct code_frame *f, struct str *out)
{
	char name[LIMIT_TEXT_MEDIUM], message[LIMIT_TEXT_MEDIUM];
	struct rec_code_part part = {.bytes = get_u32(f->body.p)};
	struct span rest;

	if (f->kind == CODE_PART) {
		part.is_main = f->body.p[4] & FLAG_MAIN;
		part.mime = (struct span){f->body.p + PART_HEAD, f->body.n - PART_HEAD};
	} else {
		size_t n = get_u16(f->body.p + 4);

		rest = (struct span){f->body.p + ERROR_HEAD + n, f->body.n - ERROR_HEAD - n};
		part.mime = span_of("text/plain");
		part.name = as_text((struct span){f->body.p + ERROR_HEAD, n}, name);
		part.message = as_text(rest, message);
	}
	(void)rec_encode(&rec_code_part_type, &part, out, NULL); /* within every limit by now */
}

void code_end_read(const struct code_frame *f, enum code_outcome *ret, int32_t *ret_exit_code)
{
	*ret = (enum code_outcome)(unsigned char)f->body.p[0];
	*ret_exit_code = (int32_t)get_u32(f->body.p + 1);
}
