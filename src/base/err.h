/* base/err.h - one error value for the whole project: a code and a sentence. Any thread. */
#pragma once
#include <stdarg.h>
#include "base/gen/err_codes.h" /* enum err_code, from schema/errors.toml */

#define ERR_TEXT_MAX 512

/*
 * Every function above base/ and sys/ takes a `struct err *e` last and returns
 * 0 or a negative `enum err_code`. base/ and sys/ return negative errno and say
 * nothing. @e may be NULL where the caller only needs the code.
 */
struct err {
	int code; /* enum err_code; 0: no error */
	char text[ERR_TEXT_MAX];
};

#define ERR_INIT {0}

/* Raise: sets @e and returns -code. Text longer than ERR_TEXT_MAX is cut. */
[[gnu::format(printf, 3, 4)]] int err_set(struct err *e, int code, const char *fmt, ...);

/* Raise from a negative errno: the code follows from it, ": <strerror>" is appended. */
[[gnu::format(printf, 3, 4)]] int err_sys(struct err *e, int negative_errno, const char *fmt, ...);

/* What everybody says of the disk with the state directory when there is no room on it; ERR_LIMIT. */
#define ERR_DISK_FULL                                                                 \
	"the disk that holds hotcell's state is full; remove snapshots or sandboxes " \
	"(hotcell list, hotcell snapshot list), or make room"

/* err_sys() of a file in the state directory: a full disk in words that say whose disk and what to do. */
[[gnu::format(printf, 3, 4)]] int err_disk(struct err *e, int negative_errno, const char *fmt, ...);

/* Add context in front of the sentence ("context: sentence"). Return: -e->code. */
[[gnu::format(printf, 2, 3)]] int err_wrap(struct err *e, const char *fmt, ...);

/* Copy @from into @to (either may be NULL). Return: -from->code. */
int err_copy(struct err *to, const struct err *from);

/* The stable name of a code ("not_found"); "unknown" for numbers not in the list. */
const char *err_code_name(int code);

/* The code a negative errno maps to. */
int err_code_of_errno(int negative_errno);
