/* base/mem.c - allocation */
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"

void auto_free_(void *pp)
{
	free(*(void **)pp);
}

void *mem_try(size_t size)
{
	return calloc(1, size ? size : 1);
}

void *mem_new(size_t size)
{
	void *p = mem_try(size);

	if (!p) {
		fputs("out of memory\n", stderr);
		abort();
	}
	return p;
}

void *mem_dup(const void *p, size_t n)
{
	void *copy = mem_new(n);

	if (n)
		memcpy(copy, p, n);
	return copy;
}

char *mem_strndup(const char *s, size_t n)
{
	size_t len = n ? strnlen(s, n) : 0;
	char *copy = mem_new(len + 1);

	if (len)
		memcpy(copy, s, len);
	return copy;
}

char *mem_strdup(const char *s)
{
	return s ? mem_strndup(s, strlen(s)) : NULL;
}

struct strv mem_dup_strv(struct strv v)
{
	return (struct strv){v.n ? mem_dup(v.p, v.n) : NULL, v.n};
}
