/* base/id.h - 128-bit identifiers: 32 lower-case hex digits, dashed UUID accepted */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define ID_BYTES 16
#define ID_TEXT	 33 /* with NUL */

struct id {
	unsigned char b[ID_BYTES];
};

void id_format(const struct id *id, char ret[ID_TEXT]);
int id_parse(const char *s, size_t n, struct id *ret); /* -EINVAL; hex in either case, or a dashed UUID */
bool id_eq(const struct id *a, const struct id *b);
bool id_is_zero(const struct id *id);

/* A sandbox name: 1-64 of [A-Za-z0-9_.-], not starting with '.' or '-', and not shaped like an id. */
bool id_name_ok(const char *s, size_t n);
