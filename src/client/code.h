/*
 * client/code.h - run source in a live interpreter and follow it
 *
 * What is said is pulled: code_peek() shows the next thing, code_take() says it
 * is dealt with. What is not taken is not credited, so a reader that stops makes
 * the interpreter wait.
 *
 * CODE_CALL-1 A result is shown whole or not at all.
 * CODE_CALL-2 No callback comes from inside a code_ call, and none after code_close().
 * CODE_CALL-3 A lost connection ends it with ERR_GONE: the run goes on in the guest,
 *	       but what it says is not kept for anybody.
 *
 * Thread: the connection's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "wire/gen/records.h"

struct code_call;
struct conn;
struct err;

enum code_said { CODE_STDOUT = 1, CODE_STDERR = 2, CODE_RESULT = 3, CODE_EXCEPTION = 5 };

struct code_ops {
	void (*readable)(struct code_call *x);
	/* The last one. @why NULL: all was taken, code_end() is valid. */
	void (*ended)(struct code_call *x, const struct err *why);
};

struct code_item {
	enum code_said what;
	const void *p; /* output: as much as has come; else the whole body */
	size_t n;
	const struct rec_code_part *part; /* results and exceptions */
};

/* Return: 0; -ERR_UNAVAILABLE when the connection is down; what rec_encode() says of @rec. */
int code_run(struct conn *c, const struct rec_code_run *rec, const struct code_ops *ops, void *arg,
	     struct code_call **ret, struct err *e);
struct code_call *code_close(struct code_call *x); /* stop following; NULL is fine */

void *code_arg(const struct code_call *x);
uint64_t code_context(const struct code_call *x); /* 0 until it runs */
uint64_t code_number(const struct code_call *x);  /* of the run in its context */

/* The next thing, lent until code_take() or the loop turns; false: none now. */
bool code_peek(const struct code_call *x, struct code_item *ret);
void code_take(struct code_call *x, size_t n); /* at most what was shown; of a result: all */
const struct rec_code_end *code_end(const struct code_call *x); /* NULL until it ended */
