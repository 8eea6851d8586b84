/* base/unit.c - sizes and durations people type */
#include "base/unit.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/macro.h"

struct unit {
	const char *name;
	uint64_t factor;
};

/* <digits>[.<digits>]<unit> -> value * factor; at most three decimals count. */
static int parse(const char *s, const struct unit *units, size_t n_units,
		 int (*same)(const char *a, const char *b), uint64_t *ret)
{
	uint64_t whole = 0, thousandths = 0, scale = 100, v, part;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			return -ERANGE;
	if (*s == '.') {
		if (s[1] < '0' || s[1] > '9')
			return -EINVAL;
		for (s++; *s >= '0' && *s <= '9'; s++, scale /= 10)
			thousandths += scale * (uint64_t)(*s - '0');
	}
	for (size_t i = 0; i < n_units; i++) {
		if (same(s, units[i].name) != 0)
			continue;
		if (__builtin_mul_overflow(whole, units[i].factor, &v) ||
		    __builtin_mul_overflow(thousandths, units[i].factor, &part) ||
		    __builtin_add_overflow(v, part / 1000, &v))
			return -ERANGE;
		*ret = v;
		return 0;
	}
	return -EINVAL;
}

int unit_parse_bytes(const char *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{"", 1},	 {"B", 1},	  {"K", KIB},	 {"KB", KIB},	    {"KiB", KIB},
		{"M", MIB},	 {"MB", MIB},	  {"MiB", MIB},	 {"G", GIB},	    {"GB", GIB},
		{"GiB", GIB},	 {"T", 1024 * GIB}, {"TB", 1024 * GIB}, {"TiB", 1024 * GIB},
	};

	return parse(s, units, ARRAY_LEN(units), strcasecmp, ret); /* no unit of bytes is less than one: m is M */
}

int unit_parse_ms(const char *s, uint64_t *ret)
{
	static const struct unit units[] = {
		{"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
	};

	return parse(s, units, ARRAY_LEN(units), strcmp, ret);
}

void unit_format_ms(uint64_t ms, char ret[UNIT_TEXT])
{
	static const struct unit units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};

	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		if (ms % units[i].factor != 0 || (ms == 0 && units[i].factor != 1000))
			continue;
		(void)snprintf(ret, UNIT_TEXT, "%llu%s", (unsigned long long)(ms / units[i].factor), units[i].name);
		return;
	}
}

void unit_format_bytes(uint64_t bytes, char ret[UNIT_TEXT])
{
	static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	size_t i = 0;

	while (v >= 1024 && i + 1 < ARRAY_LEN(names)) {
		v /= 1024;
		i++;
	}
	(void)snprintf(ret, UNIT_TEXT, i == 0 || v >= 100 ? "%.0f %s" : "%.1f %s", v, names[i]);
}
