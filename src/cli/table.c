/* cli/table.c - columns of text for people */
#include "cli/table.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/macro.h"
#include "sys/clock.h"

enum { CELLS_MAX = 64 * 1024 * 1024, GAP = 2 };

void table_init(struct table *t, const char *const *heads, unsigned columns)
{
	assert(columns <= TABLE_COLUMNS);
	*t = (struct table){.heads = heads, .columns = columns, .cells = STR_INIT(CELLS_MAX)};
}

void table_deinit(struct table *t)
{
	str_deinit(&t->cells);
}

void table_add(struct table *t, struct span cell)
{
	if (cell.n)
		str_add_escaped(&t->cells, cell.p, cell.n);
	else
		str_add(&t->cells, "-");
	str_add_mem(&t->cells, "", 1);
	t->filled++;
}

void table_addf(struct table *t, const char *fmt, ...)
{
	struct str s = STR_INIT(8192);
	va_list ap;

	va_start(ap, fmt);
	str_addv(&s, fmt, ap);
	va_end(ap);
	table_add(t, span_of(str_text(&s)));
	str_deinit(&s);
}

/* Characters, not bytes: what is behind the first byte of a UTF-8 sequence has no width. */
static unsigned width(const char *s)
{
	unsigned n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static bool is_right(const char *head)
{
	return head[0] == '>';
}

static void put_cell(const char *text, unsigned wide, bool right, bool last, struct str *out)
{
	unsigned pad = wide - MIN(wide, width(text));

	if (right)
		str_addf(out, "%*s%s", (int)pad, "", text);
	else
		str_addf(out, "%s%*s", text, last ? 0 : (int)pad, "");
	str_add(out, last ? "\n" : "  ");
}

void table_print(struct table *t, struct str *out)
{
	struct strv cells = {t->cells.p, t->cells.len};
	unsigned wide[TABLE_COLUMNS], i = 0;

	for (unsigned c = 0; c < t->columns; c++)
		wide[c] = width(t->heads[c]) - is_right(t->heads[c]);
	for (const char *s = strv_first(cells); s; s = strv_next(cells, s), i++)
		wide[i % t->columns] = MAX(wide[i % t->columns], width(s));
	for (unsigned c = 0; c < t->columns; c++)
		put_cell(t->heads[c] + is_right(t->heads[c]), wide[c], is_right(t->heads[c]),
			 c + 1 == t->columns, out);
	i = 0;
	for (const char *s = strv_first(cells); s; s = strv_next(cells, s), i++)
		put_cell(s, wide[i % t->columns], is_right(t->heads[i % t->columns]),
			 i % t->columns + 1 == t->columns, out);
}

void table_age(uint64_t then_ms, char ret[TABLE_AGE])
{
	static const struct {
		uint64_t seconds;
		char unit;
	} units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}, {1, 's'}};
	uint64_t now = sys_unix_ns() / NS_PER_MS, age = now > then_ms ? (now - then_ms) / 1000 : 0;

	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (age >= 2 * units[i].seconds || units[i].seconds == 1) {
			(void)snprintf(ret, TABLE_AGE, "%llu%c",
				       (unsigned long long)(age / units[i].seconds), units[i].unit);
			return;
		}
}
