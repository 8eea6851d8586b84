/* engine/log.c - one line per fact */
#include "engine/log.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/str.h"
#include "engine/engine.h"
#include "loop/loop.h"

enum { LINE_MAX_BYTES = 4096 };

static void add_time(struct str *line, uint64_t unix_ms)
{
	time_t seconds = (time_t)(unix_ms / 1000);
	char text[32] = "";
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		(void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	str_addf(line, "time=%s.%03uZ", text, (unsigned)(unix_ms % 1000));
}

/* A bare word stays bare; everything else is quoted, its quotes escaped. */
static void add_value(struct str *line, const char *value)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_.,:/@%+-";
	size_t n = strlen(value);

	if (n && strspn(value, plain) == n) {
		str_add(line, value);
		return;
	}
	str_add(line, "\"");
	for (const char *p = value; *p;) {
		size_t run = strcspn(p, "\"");

		str_add_escaped(line, p, run);
		p += run;
		if (*p == '"') {
			str_add(line, "\\\"");
			p++;
		}
	}
	str_add(line, "\"");
}

void log_line(const struct engine_host *host, const struct loop *l, const char *level,
	      const char *event, const char *sandbox, ...)
{
	struct str line = STR_INIT(LINE_MAX_BYTES);
	va_list ap;

	add_time(&line, loop_unix_ms(l));
	str_addf(&line, " level=%s event=%s", level, event);
	if (sandbox && *sandbox)
		str_addf(&line, " sandbox=%s", sandbox);
	va_start(ap, sandbox);
	for (const char *key = va_arg(ap, const char *); key; key = va_arg(ap, const char *)) {
		const char *value = va_arg(ap, const char *);

		if (!value)
			continue;
		str_addf(&line, " %s=", key);
		add_value(&line, value);
	}
	va_end(ap);
	host->log(host->arg, str_text(&line));
	str_deinit(&line);
}
