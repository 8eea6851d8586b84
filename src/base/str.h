/* base/str.h - bounded strings: a growing builder, escaping, prefix tests */
#pragma once
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A text that grows up to a maximum given at birth. Past it, or without memory,
 * it turns `failed` and ignores what follows: check once, at the end.
 */
struct str {
	char *p; /* always NUL-terminated once anything was added; owned */
	size_t len, cap, max;
	bool failed;
};

#define STR_INIT(max_) {.max = (max_)}

void str_deinit(struct str *s);
void str_clear(struct str *s);
void str_add(struct str *s, const char *text);
void str_add_mem(struct str *s, const void *p, size_t n);
[[gnu::format(printf, 2, 3)]] void str_addf(struct str *s, const char *fmt, ...);
[[gnu::format(printf, 2, 0)]] void str_addv(struct str *s, const char *fmt, va_list ap);
const char *str_text(const struct str *s); /* lent; "" when empty */

/*
 * Add guest- or client-controlled bytes so that a terminal or a log line stays
 * whole and shows what is there: printable ASCII and well-formed UTF-8 pass but for what
 * is not seen (control codes, marks of direction, separators of lines, no width); that, a backslash
 * and everything else becomes \n, \t, \xHH. One line in, one line out.
 */
void str_add_escaped(struct str *s, const void *p, size_t n);

/* Add as a JSON string with quotes. What is not seen becomes \uHHHH, bytes that are not UTF-8 U+FFFD. */
void str_add_json(struct str *s, const void *p, size_t n);

/* Length of the well-formed UTF-8 sequence at @p (1-4), 0 when there is none. RFC 3629. */
size_t str_utf8_len(const void *p, size_t n);

bool str_starts(const char *s, const char *prefix);
bool str_eq(const char *a, const char *b); /* NULL equals NULL only */

/* Read a decimal number in [min, max]. Return: 0, -EINVAL (not a number), -ERANGE. */
int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);
