/* cli/encode.h - bytes as text. Pure. Any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct str;

void encode_base64(const void *p, size_t n, struct str *out); /* RFC 4648, padded, one line */
bool encode_is_utf8(const void *p, size_t n);		      /* NUL counts as text */
/*
 * Add a JSON string, then `,"NAME_encoding":"utf-8"` or `"base64"`. Text that was cut inside a
 * character is base64: nothing is changed.
 */
void encode_bytes_json(const void *p, size_t n, const char *name, struct str *out);
