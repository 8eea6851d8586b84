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
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/conn.h"
#include "machine.h"
#include "sys/clock.h"
#include "timed.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { FIELDS_MAX = 64 };

struct probe {
	struct conn *conn;
	unsigned char sha256[32]; /* of the last file written */
};

static int fail(const char *text)
{
	printf("error\t%s\n", text);
	return 0;
}

static int fail_err(const struct err *e)
{
	return fail(e->text);
}

static double us_of(uint64_t ns)
{
	return (double)ns / 1e3;
}

static uint64_t number(const char *s)
{
	return strtoull(s, NULL, 10);
}

/* spawn TIMEOUT_MS ARGV... */
static int do_spawn(struct probe *p, int n, char *field[])
{
	struct timed s;
	int r;

	(void)p;
	if (n < 2)
		return fail("spawn needs a time limit and a program");
	r = timed_run(field + 1, number(field[0]), &s);
	if (r < 0)
		return fail(strerror(-r));
	printf("ok\tfirst_us=%.1f\tend_us=%.1f\tstatus=%d\tbytes=%" PRIu64 "\ttext=%s\n",
	       s.bytes ? (double)(s.first_ns - s.start_ns) / 1e3 : 0.0,
	       (double)(s.end_ns - s.start_ns) / 1e3, s.status, s.bytes, s.text);
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* burst TIMEOUT_MS N ARGV...: from the first start to the first output of the median and the last
 */
static int do_burst(struct probe *p, int n, char *field[])
{
	double us[TIMED_BURST_MAX];
	size_t count = n < 3 ? 0 : number(field[1]);
	AUTO_FREE struct timed *t = NULL;
	int r;

	(void)p;
	if (count == 0 || count > TIMED_BURST_MAX)
		return fail("burst needs a time limit, a number up to 256 and a program");
	t = mem_new(count * sizeof(*t));
	r = timed_burst(field + 2, number(field[0]), t, count);
	if (r < 0)
		return fail(strerror(-r));
	for (size_t i = 0; i < count; i++) {
		if (t[i].status != 0 || t[i].bytes == 0)
			return fail(t[i].text[0] ? t[i].text : "no output");
		us[i] = (double)(t[i].first_ns - t[0].start_ns) / 1e3;
	}
	qsort(us, count, sizeof(us[0]), compare);
	printf("ok\tmedian_us=%.1f\tlast_us=%.1f\n", us[count / 2], us[count - 1]);
	return 0;
}

/* tsc: the frequency a guest under emulation must be told */
static int do_tsc(struct probe *p, int n, char *field[])
{
	uint64_t khz;

	(void)p;
	(void)n;
	(void)field;
	if (sys_tsc_khz(100, &khz) < 0)
		return fail("this processor has no time stamp counter");
	printf("ok\tkhz=%" PRIu64 "\n", khz);
	return 0;
}

/* connect RUN_DIR */
static int do_connect(struct probe *p, int n, char *field[])
{
	const struct conn_options o = { .run_dir = field[0] };
	struct err e = ERR_INIT;

	if (n != 1)
		return fail("connect needs a run directory");
	p->conn = conn_close(p->conn);
	if (conn_open(&o, &p->conn, &e) < 0)
		return fail_err(&e);
	printf("ok\n");
	return 0;
}

/* daemon: the processes behind the connection */
static int do_daemon(struct probe *p, int n, char *field[])
{
	struct str bytes = STR_INIT(RECORD_MAX);
	const struct rec_empty req = { 0 };
	struct rec_daemon_info info;
	struct err e = ERR_INIT;
	int r = conn_call(p->conn, METHOD_DAEMON_INFO, &req, &bytes, &info, &e);

	(void)n;
	(void)field;
	if (r == 0)
		printf("ok\tpid=%" PRIu64 "\tkeeper_pid=%" PRIu64 "\tversion=%.*s\tmode=%.*s\n",
		       info.pid, info.keeper_pid, (int)info.version.n, info.version.p,
		       (int)info.mode.n, info.mode.p);
	str_deinit(&bytes);
	return r < 0 ? fail_err(&e) : 0;
}

/* create WALL MEMORY_MB */
static int do_create(struct probe *p, int n, char *field[])
{
	struct machine m;
	struct err e = ERR_INIT;

	if (n != 2)
		return fail("create needs a wall and a size");
	if (machine_create(p->conn, field[0], number(field[1]), &m, &e) < 0)
		return fail_err(&e);
	printf("ok\tid=%s\twall=%s\tpid=%" PRIu64 "\tus=%.1f\tstages=%s\n", m.id, m.wall, m.pid,
	       us_of(m.ready_ns - m.start_ns), m.stages);
	return 0;
}

/* remove ID */
static int do_remove(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct err e = ERR_INIT;

	if (n != 1)
		return fail("remove needs a sandbox");
	if (machine_remove(p->conn, field[0], &e) < 0)
		return fail_err(&e);
	printf("ok\tus=%.1f\n", us_of(sys_now_ns() - start_ns));
	return 0;
}

/* fresh WALL MEMORY_MB ARGV...: a new sandbox, to the first output of a program in it; removed
 * again */
static int do_fresh(struct probe *p, int n, char *field[])
{
	struct machine m;
	struct machine_run run;
	struct err e = ERR_INIT, ignored = ERR_INIT;
	int r;

	if (n < 3)
		return fail("fresh needs a wall, a size and a program");
	if (machine_create(p->conn, field[0], number(field[1]), &m, &e) < 0)
		return fail_err(&e);
	r = machine_exec(p->conn, m.id, field + 2, &run, &e);
	uint64_t remove_ns = sys_now_ns();
	if (r < 0) {
		machine_remove(p->conn, m.id, &ignored);
		return fail_err(&e);
	}
	if (machine_remove(p->conn, m.id, &e) < 0)
		return fail_err(&e);
	if (run.code != 0 || run.bytes == 0)
		return fail("the program failed or said nothing");
	printf("ok\tready_us=%.1f\tfirst_us=%.1f\tremove_us=%.1f\twall=%s\tstages=%s\n",
	       us_of(m.ready_ns - m.start_ns), us_of(run.first_ns - m.start_ns),
	       us_of(sys_now_ns() - remove_ns), m.wall, m.stages);
	return 0;
}

/* exec ID ARGV... */
static int do_exec(struct probe *p, int n, char *field[])
{
	struct machine_run run;
	struct err e = ERR_INIT;

	if (n < 2)
		return fail("exec needs a sandbox and a program");
	if (machine_exec(p->conn, field[0], field + 1, &run, &e) < 0)
		return fail_err(&e);
	if (run.code != 0)
		return fail("the program failed");
	printf("ok\tus=%.1f\n", us_of(run.end_ns - run.start_ns));
	return 0;
}

/* ping ID */
static int do_ping(struct probe *p, int n, char *field[])
{
	struct err e = ERR_INIT;
	uint64_t ns;

	if (n != 1)
		return fail("ping needs a sandbox");
	if (machine_ping(p->conn, field[0], &ns, &e) < 0)
		return fail_err(&e);
	printf("ok\tus=%.1f\n", us_of(ns));
	return 0;
}

/* put ID PATH BYTES */
static int do_put(struct probe *p, int n, char *field[])
{
	struct err e = ERR_INIT;
	uint64_t ns;

	if (n != 3 || number(field[2]) > MACHINE_FILE_MAX)
		return fail("put needs a sandbox, a path and a size of at most 256 MiB");
	if (machine_put(p->conn, field[0], field[1], number(field[2]), p->sha256, &ns, &e) < 0)
		return fail_err(&e);
	printf("ok\tus=%.1f\n", us_of(ns));
	return 0;
}

/* get ID PATH: the last file that was put */
static int do_get(struct probe *p, int n, char *field[])
{
	struct err e = ERR_INIT;
	uint64_t ns;

	if (n != 2)
		return fail("get needs a sandbox and a path");
	if (machine_get(p->conn, field[0], field[1], p->sha256, &ns, &e) < 0)
		return fail_err(&e);
	printf("ok\tus=%.1f\n", us_of(ns));
	return 0;
}

/* crowd WALL MEMORY_MB N ARGV...: N sandboxes asked for at once */
static int do_crowd(struct probe *p, int n, char *field[])
{
	size_t count = n < 4 ? 0 : number(field[2]);
	struct machine_burst b[MACHINE_BURST_MAX];
	double ready_us[MACHINE_BURST_MAX], first_us[MACHINE_BURST_MAX];
	struct err e = ERR_INIT;

	if (count == 0 || count > MACHINE_BURST_MAX)
		return fail("crowd needs a wall, a size, a number up to 256 and a program");
	if (machine_burst(p->conn, field[0], number(field[1]), field + 3, b, count, &e) < 0)
		return fail_err(&e);
	for (size_t i = 0; i < count; i++) {
		ready_us[i] = us_of(b[i].ready_ns);
		first_us[i] = us_of(b[i].first_ns);
	}
	qsort(ready_us, count, sizeof(ready_us[0]), compare);
	qsort(first_us, count, sizeof(first_us[0]), compare);
	printf("ok\tready_us=%.1f\tmedian_us=%.1f\tlast_us=%.1f\n", ready_us[count - 1],
	       first_us[count / 2], first_us[count - 1]);
	return 0;
}

static const struct command {
	const char *name;
	int (*run)(struct probe *p, int n, char *field[]);
	bool connected; /* needs a connection */
} commands[] = {
	{ "burst", do_burst, false },  { "connect", do_connect, false },
	{ "create", do_create, true }, { "crowd", do_crowd, true },
	{ "daemon", do_daemon, true }, { "exec", do_exec, true },
	{ "fresh", do_fresh, true },   { "get", do_get, true },
	{ "ping", do_ping, true },     { "put", do_put, true },
	{ "remove", do_remove, true }, { "spawn", do_spawn, false },
	{ "tsc", do_tsc, false },
};

static int dispatch(struct probe *p, char *line)
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
		if (strcmp(commands[i].name, field[0]) != 0)
			continue;
		if (commands[i].connected && !p->conn)
			return fail("not connected");
		return commands[i].run(p, n - 1, field + 1);
	}
	return fail("no such command");
}

int main(void)
{
	struct probe p = { 0 };
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, stdin)) > 0) {
		line[n - 1] = '\0';
		dispatch(&p, line);
		fflush(stdout);
	}
	free(line);
	conn_close(p.conn);
	return 0;
}
