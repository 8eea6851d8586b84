/*
 * probe.c - the part of the benchmark that holds the stop watch.
 *
 * bench/run decides what is measured next and tells this program so, one line per
 * sample on standard input, fields separated by tabs; the answer is one line:
 * "ok" and key=value fields, or "error" and a sentence, again separated by tabs.
 * Times are microseconds. C, because starting a process or decoding a reply costs
 * Python more than the shortest things that are measured here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"
#include "base/mem.h"
#include "timed.h"
#include "sys/clock.h"

enum { FIELDS_MAX = 64 };

static int fail(const char *text)
{
	printf("error\t%s\n", text);
	return 0;
}

static uint64_t number(const char *s)
{
	return strtoull(s, NULL, 10);
}

/* spawn TIMEOUT_MS ARGV... */
static int do_spawn(int n, char *field[])
{
	struct timed s;
	int r;

	if (n < 2)
		return fail("spawn needs a time limit and a program");
	r = timed_run(field + 1, number(field[0]), &s);
	if (r < 0)
		return fail(strerror(-r));
	printf("ok\tfirst_us=%.1f\tend_us=%.1f\tstatus=%d\tbytes=%llu\ttext=%s\n",
	       s.bytes ? (double)(s.first_ns - s.start_ns) / 1e3 : 0.0,
	       (double)(s.end_ns - s.start_ns) / 1e3, s.status, (unsigned long long)s.bytes, s.text);
	return 0;
}

/* tsc: the frequency a guest under emulation must be told */
static int do_tsc(int n, char *field[])
{
	uint64_t khz;

	(void)n;
	(void)field;
	if (sys_tsc_khz(100, &khz) < 0)
		return fail("this processor has no time stamp counter");
	printf("ok\tkhz=%llu\n", (unsigned long long)khz);
	return 0;
}

static const struct command {
	const char *name;
	int (*run)(int n, char *field[]);
} commands[] = {
	{"spawn", do_spawn},
	{"tsc", do_tsc},
};

static int dispatch(char *line)
{
	char *field[FIELDS_MAX + 1];
	int n = 0;

	for (char *s; (s = strsep(&line, "\t")) != NULL;) {
		if (n == FIELDS_MAX)
			return fail("too many fields");
		field[n++] = s;
	}
	field[n] = NULL;
	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		if (strcmp(commands[i].name, field[0]) == 0)
			return commands[i].run(n - 1, field + 1);
	}
	return fail("no such command");
}

int main(void)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, stdin)) > 0) {
		line[n - 1] = '\0';
		dispatch(line);
		fflush(stdout);
	}
	free(line);
	return 0;
}
