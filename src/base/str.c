/* base/str.c - bounded strings */
#include "base/str.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"

enum { STR_FIRST_CAP = 64 };

void str_deinit(struct str *s)
{
	free(s->p);
	*s = (struct str)STR_INIT(s->max);
}

void str_clear(struct str *s)
{
	s->len = 0;
	s->failed = false;
	if (s->p)
		s->p[0] = '\0';
}

static bool reserve(struct str *s, size_t more)
{
	size_t want, cap;
	char *p;

	if (s->failed || __builtin_add_overflow(s->len, more, &want) || want > s->max)
		goto fail;
	if (want < s->cap)
		return true;
	cap = s->cap ? s->cap : STR_FIRST_CAP;
	while (cap <= want)
		cap *= 2;
	p = realloc(s->p, cap);
	if (!p)
		goto fail;
	s->p = p;
	s->cap = cap;
	return true;
fail:
	s->failed = true;
	return false;
}

void str_add_mem(struct str *s, const void *p, size_t n)
{
	if (!reserve(s, n))
		return;
	if (n)
		memcpy(s->p + s->len, p, n);
	s->len += n;
	s->p[s->len] = '\0';
}

void str_add(struct str *s, const char *text)
{
	str_add_mem(s, text, strlen(text));
}

void str_addv(struct str *s, const char *fmt, va_list ap)
{
	va_list again;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, again);
	va_end(again);
	if (n < 0 || !reserve(s, (size_t)n))
		return;
	(void)vsnprintf(s->p + s->len, (size_t)n + 1, fmt, ap);
	s->len += (size_t)n;
}

void str_addf(struct str *s, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	str_addv(s, fmt, ap);
	va_end(ap);
}

const char *str_text(const struct str *s)
{
	return s->p ? s->p : "";
}

size_t str_utf8_len(const void *p, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *u = p;
	uint32_t c;
	size_t len;

	if (!n)
		return 0;
	if (u[0] < 0x80)
		return 1;
	len = u[0] >= 0xf0 && u[0] < 0xf8 ? 4 : u[0] >= 0xe0 ? 3 : 2;
	if (u[0] < 0xc0 || u[0] >= 0xf8 || len > n)
		return 0;
	c = u[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((u[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (u[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return 0;
	return len;
}

static uint32_t utf8_code(const unsigned char *u, size_t len)
{
	uint32_t c = len == 1 ? u[0] : u[0] & (0x7fu >> len);

	for (size_t i = 1; i < len; i++)
		c = c << 6 | (u[i] & 0x3f);
	return c;
}

/*
 * What is not seen but changes what is: control codes that terminals obey, marks that turn the direction of
 * the text around them, separators of lines, and what has no width. Two names that look alike would be two.
 */
static bool is_unseen(uint32_t c)
{
	static const struct {
		uint32_t first, last;
	} unseen[] = {
		{0x7f, 0x9f},	    {0xad, 0xad},	{0x34f, 0x34f},	    {0x61c, 0x61c},
		{0x115f, 0x1160},   {0x17b4, 0x17b5},	{0x180b, 0x180f},   {0x200b, 0x200f},
		{0x2028, 0x202e},   {0x2060, 0x206f},	{0x3164, 0x3164},   {0xfe00, 0xfe0f},
		{0xfeff, 0xfeff},   {0xffa0, 0xffa0},	{0xfff0, 0xfffb},   {0x1bca0, 0x1bca3},
		{0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
	};

	for (size_t i = 0; i < ARRAY_LEN(unseen); i++)
		if (c >= unseen[i].first && c <= unseen[i].last)
			return true;
	return c < 0x20;
}

void str_add_escaped(struct str *s, const void *p, size_t n)
{
	const unsigned char *u = p;
	size_t len;

	for (size_t i = 0; i < n; i += len) {
		len = str_utf8_len(u + i, n - i);
		if (len > 1 && !is_unseen(utf8_code(u + i, len))) {
			str_add_mem(s, u + i, len);
			continue;
		}
		len = 1;
		if (u[i] == '\n')
			str_add(s, "\\n");
		else if (u[i] == '\t')
			str_add(s, "\\t");
		else if (u[i] == '\\')
			str_add(s, "\\\\");
		else if (u[i] >= 0x20 && u[i] < 0x7f)
			str_add_mem(s, u + i, 1);
		else
			str_addf(s, "\\x%02x", u[i]);
	}
}

static void add_json_code(struct str *s, uint32_t c)
{
	if (c > 0xffff) /* two halves */
		str_addf(s, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + ((c - 0x10000) & 0x3ff));
	else
		str_addf(s, "\\u%04x", c);
}

void str_add_json(struct str *s, const void *p, size_t n)
{
	const unsigned char *u = p;
	size_t len;

	str_add(s, "\"");
	for (size_t i = 0; i < n; i += len) {
		len = str_utf8_len(u + i, n - i);
		if (!len) {
			str_add(s, "\xef\xbf\xbd");
			len = 1;
		} else if (is_unseen(utf8_code(u + i, len))) {
			add_json_code(s, utf8_code(u + i, len));
		} else if (u[i] == '"' || u[i] == '\\') {
			str_addf(s, "\\%c", u[i]);
		} else {
			str_add_mem(s, u + i, len);
		}
	}
	str_add(s, "\"");
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_eq(const char *a, const char *b)
{
	if (!a || !b)
		return a == b;
	return strcmp(a, b) == 0;
}

int str_to_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (!s || !*s)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	}
	if (v < min || v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}
