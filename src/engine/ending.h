/*
 * engine/ending.h - how a program or a source ended, read from the stream of its output
 *
 * The stream (exec.start, code.run) is chunks of `u8 kind, u24 length` and as many bytes; the
 * last one says how it ended. What was printed is dropped. Bounded: a guest wrote this.
 * Private to engine/. Thread: the caller's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
struct err;
struct span;

struct ending {
	bool is_code; /* of code.run */
	/* Private. */
	unsigned char head[4]; /* of the chunk that comes */
	unsigned n_head;
	uint32_t left; /* of it */
	struct str *into; /* one of these, or NULL */
	struct str end, error; /* records: the last chunk; the last exception */
};

void ending_init(struct ending *x, bool is_code);
void ending_deinit(struct ending *x); /* zero-initialised: fine */
void ending_read(struct ending *x, struct span bytes); /* the next ones */
/* 0: well, with status 0. -ERR_INVALID: not, and how. */
int ending_check(const struct ending *x, struct err *e);
