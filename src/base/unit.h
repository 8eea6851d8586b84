/* base/unit.h - sizes and durations people type: "512M", "1.5G", "30s", "250ms" */
#pragma once
#include <stdint.h>

/* Bytes; suffixes K M G T in any case (powers of 1024, optional "B"/"iB"), none: bytes. -EINVAL, -ERANGE. */
int unit_parse_bytes(const char *s, uint64_t *ret);

/* Milliseconds; suffixes ms s m h d, none: seconds. -EINVAL, -ERANGE. */
int unit_parse_ms(const char *s, uint64_t *ret);

/* "2h", "90s", "1500ms": exact, in the largest unit that is, as unit_parse_ms() takes it. */
#define UNIT_TEXT 32
void unit_format_ms(uint64_t ms, char ret[UNIT_TEXT]);

/* "1.4 GiB": three significant digits for people. */
void unit_format_bytes(uint64_t bytes, char ret[UNIT_TEXT]);
