/*
 * base/mem.h - allocation. Small fixed allocations abort on failure (the daemon
 * is crash-only: machines are other processes); what is sized by input is
 * bounded by a named maximum first and goes through mem_try().
 */
#pragma once
#include <stddef.h>
#include "base/span.h"

void *mem_new(size_t size);			/* zeroed; aborts when out of memory */
void *mem_try(size_t size);			/* zeroed; NULL when out of memory */
char *mem_strdup(const char *s);		/* NULL in, NULL out; aborts */
char *mem_strndup(const char *s, size_t n);	/* at most @n bytes, up to a NUL; aborts */
void *mem_dup(const void *p, size_t n);		/* aborts */
struct strv mem_dup_strv(struct strv v);		/* aborts; p is NULL when it is empty */
