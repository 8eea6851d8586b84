/*
 * guest/code_frame.h - what agent and harness say to each other. Pure.
 *
 * A frame is u8 kind, u24 little-endian length, bytes; at most CODE_FRAME_MAX of
 * them. Numbers inside are little-endian. doc/code.md describes it for the
 * authors of languages.
 *
 * HARNESS-1 The agent believes a harness nothing but lengths and kinds: bodies pass
 *	     through unread, heads are rebuilt from checked values.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/span.h"

struct err;
struct str;

enum {
	CODE_HEAD = 4,
	CODE_FRAME_MAX = 32768 - CODE_HEAD, /* of a harness; sources may be longer */
	CODE_NONCE = 16,
	CODE_PART_MAX = 4096, /* an encoded code_part record */
};

/* Agent to harness. */
enum code_order {
	CODE_RUN = 1,	 /* source */
	CODE_RESEED = 2, /* CODE_NONCE bytes */
	CODE_ENV = 3,	 /* "NAME=value" or, of what is not there any more, "NAME"; each with its NUL */
};

/* Harness to agent. */
enum code_say {
	CODE_READY = 1,	   /* once, first */
	CODE_RUNNING = 2,  /* the source was taken: it can be interrupted from here on */
	CODE_PART = 3,	   /* u32 length of the body, u8 flags (1: main), the MIME type */
	CODE_BODY = 4,	   /* a piece of the body of the last PART or ERROR */
	CODE_ERROR = 5,	   /* u32 length of the body, u16 length of the name, name, message */
	CODE_END = 6,	   /* u8 code_outcome, i32 exit code */
	CODE_RESEEDED = 7, /* the nonce: new randomness was drawn after it was received */
};

enum code_outcome { CODE_OK, CODE_FAILED, CODE_INTERRUPTED, CODE_OUTCOME_N };

/* Chunks of code.run's data; heads as above. */
enum code_chunk {
	CHUNK_STDOUT = 1,
	CHUNK_STDERR = 2,
	CHUNK_PART = 3,
	CHUNK_BODY = 4,
	CHUNK_ERROR = 5,
	CHUNK_END = 6,
};

void code_head(unsigned char ret[CODE_HEAD], unsigned kind, size_t n);

/* Bytes of a harness on their way to becoming frames. */
struct code_reader {
	unsigned char bytes[CODE_HEAD + CODE_FRAME_MAX];
	size_t used;
};

struct code_frame {
	enum code_say kind;
	struct span body; /* lent from the reader, until code_reader_drop() */
};

/* Where the next bytes go, and how many are wanted: never more than the frame at hand needs. */
void *code_reader_space(struct code_reader *r, size_t *ret_n);
/* 1: @ret is whole; 0: more bytes are needed; -ERR_INVALID. */
int code_reader_frame(const struct code_reader *r, struct code_frame *ret, struct err *e);
void code_reader_drop(struct code_reader *r); /* the frame at hand is dealt with */

/* What may be said next. */
struct code_state {
	bool ready, running, told; /* told: RUNNING was said for this run */
	bool reseeding;
	uint64_t body_left;
};

/* Check @f against the state and move it on. -ERR_INVALID says what is wrong. */
int code_state_take(struct code_state *st, const struct code_frame *f, struct err *e);

/* The code_part record of a PART or ERROR that passed code_state_take(), appended to @out. */
void code_part_encode(const struct code_frame *f, struct str *out);
void code_end_read(const struct code_frame *f, enum code_outcome *ret, int32_t *ret_exit_code);
