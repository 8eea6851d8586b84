/* cli/table.h - columns of text for people. Every cell is escaped. One thread. */
#pragma once
#include "base/span.h"
#include "base/str.h"

enum { TABLE_COLUMNS = 10, TABLE_AGE = 24 };

struct table {
	const char *const *heads; /* a leading '>' aligns right */
	unsigned columns, filled;
	struct str cells; /* NUL behind each */
};

void table_init(struct table *t, const char *const *heads, unsigned columns);
void table_add(struct table *t, struct span cell); /* left to right, row by row */
[[gnu::format(printf, 2, 3)]] void table_addf(struct table *t, const char *fmt, ...);
void table_print(struct table *t, struct str *out);
void table_deinit(struct table *t);

/* "12s", "5m", "3h", "2d": how long ago @then_ms was. */
void table_age(uint64_t then_ms, char ret[TABLE_AGE]);
