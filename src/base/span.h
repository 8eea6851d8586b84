/* base/span.h - bytes somebody else owns */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct span {
	const char *p; /* not NUL-terminated; NULL only when n is 0 */
	size_t n;
};

/* Several texts behind each other, each with its NUL: "a\0bc\0". */
struct strv {
	const char *p;
	size_t n; /* bytes, NULs included */
};

static inline struct span span_of(const char *s)
{
	return s ? (struct span){s, strlen(s)} : (struct span){0};
}

static inline bool span_is(struct span s, const char *text)
{
	return s.n == strlen(text) && (s.n == 0 || memcmp(s.p, text, s.n) == 0);
}

/* Copy as a NUL-terminated string, cut to fit. */
static inline void span_copy(struct span s, char *ret, size_t size)
{
	size_t n = s.n < size - 1 ? s.n : size - 1;

	if (n)
		memcpy(ret, s.p, n);
	ret[n] = '\0';
}

/* Walk: for (const char *s = strv_first(v); s; s = strv_next(v, s)) */
static inline const char *strv_first(struct strv v)
{
	return v.n ? v.p : NULL;
}

static inline const char *strv_next(struct strv v, const char *s)
{
	s += strlen(s) + 1;
	return s < v.p + v.n ? s : NULL;
}

static inline size_t strv_count(struct strv v)
{
	size_t count = 0;

	for (const char *s = strv_first(v); s; s = strv_next(v, s))
		count++;
	return count;
}
