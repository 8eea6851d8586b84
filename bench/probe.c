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

#include "base/macro.h"
#include "base/mem.h"
#include "hotcell.h"
#include "machine.h"
#include "sys/clock.h"
#include "timed.h"

enum { FIELDS_MAX = 64 };

struct probe {
	struct hotcell *conn;
	char *run_dir;
	struct hotcell_sandbox *box;
	char sha256[MACHINE_HASH_TEXT]; /* of the last file written */
};

static int fail(const char *text)
{
	printf("error\t%s\n", text);
	return 0;
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
	       s.bytes ? (double)(s.first_ns - s.start_ns) / 1e3 : 0.0, (double)(s.end_ns - s.start_ns) / 1e3, s.status,
	       s.bytes, s.text);
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
	struct hotcell_connect_options o = HOTCELL_CONNECT_OPTIONS_INIT;
	struct hotcell_error e;

	if (n != 1)
		return fail("connect needs a run directory");
	if (p->conn)
		return fail("connected already");
	o.run_dir = field[0];
	if (hotcell_connect(&o, &p->conn, &e) < 0)
		return fail(e.message);
	free(p->run_dir);
	p->run_dir = mem_strdup(field[0]);
	printf("ok\n");
	return 0;
}

/* create KIND MEMORY_MIB */
static int do_create(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_sandbox *s;
	struct hotcell_error e;

	if (n != 2)
		return fail("create needs a kind and a size");
	if (machine_create(p->conn, field[0], (uint32_t)number(field[1]), &s, &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\tid=%s\tinfo=%s\n", us_of(sys_now_ns() - start_ns), hotcell_sandbox_id(s),
	       hotcell_sandbox_json(s));
	hotcell_sandbox_close(s);
	return 0;
}

/* remove ID */
static int do_remove(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_error e;

	if (n != 1)
		return fail("remove needs a sandbox");
	if (hotcell_destroy(p->conn, field[0], &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\n", us_of(sys_now_ns() - start_ns));
	return 0;
}

/* fresh KIND MEMORY_MIB ARGV...: a new sandbox, to the first output of a program in it; removed again */
static int do_fresh(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns(), ready_ns, first_ns, end_ns;
	struct hotcell_sandbox *s;
	struct hotcell_error e, ignored;

	if (n < 3)
		return fail("fresh needs a kind, a size and a program");
	if (machine_create(p->conn, field[0], (uint32_t)number(field[1]), &s, &e) < 0)
		return fail(e.message);
	ready_ns = sys_now_ns();
	if (machine_speak(s, field + 2, &first_ns, &e) < 0) {
		(void)hotcell_sandbox_destroy(s, &ignored);
		return fail(e.message);
	}
	AUTO_FREE char *info = mem_strdup(hotcell_sandbox_json(s));
	end_ns = sys_now_ns();
	if (hotcell_sandbox_destroy(s, &e) < 0)
		return fail(e.message);
	printf("ok\tready_us=%.1f\tfirst_us=%.1f\tremove_us=%.1f\tinfo=%s\n", us_of(ready_ns - start_ns),
	       us_of(first_ns - start_ns), us_of(sys_now_ns() - end_ns), info);
	return 0;
}

/* use ID: the sandbox that what follows is about */
static int do_use(struct probe *p, int n, char *field[])
{
	struct hotcell_sandbox *s;
	struct hotcell_error e;

	if (n != 1)
		return fail("use needs a sandbox");
	if (hotcell_open(p->conn, field[0], &s, &e) < 0)
		return fail(e.message);
	hotcell_sandbox_close(p->box);
	p->box = s;
	printf("ok\n");
	return 0;
}

/* exec ARGV...: to its exit code */
static int do_exec(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns(), end_ns;
	struct hotcell_result *result;
	struct hotcell_error e;
	bool success;

	if (n < 1)
		return fail("exec needs a program");
	if (hotcell_execute_argv(p->box, (const char *const *)field, NULL, &result, &e) < 0)
		return fail(e.message);
	end_ns = sys_now_ns();
	success = hotcell_result_success(result);
	hotcell_result_free(result);
	if (!success)
		return fail("the program failed");
	printf("ok\tus=%.1f\n", us_of(end_ns - start_ns));
	return 0;
}

/* ping: does the agent answer */
static int do_ping(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();

	(void)n;
	(void)field;
	if (!hotcell_sandbox_is_healthy(p->box))
		return fail("the agent does not answer");
	printf("ok\tus=%.1f\n", us_of(sys_now_ns() - start_ns));
	return 0;
}

/* build TEMPLATE: boot it and keep it hot */
static int do_build(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_snapshot *s;
	struct hotcell_error e;

	if (n != 1)
		return fail("build needs a template");
	if (hotcell_template_build(p->conn, field[0], 0, 0, 0, &s, &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\tinfo=%s\n", us_of(sys_now_ns() - start_ns), hotcell_snapshot_json(s));
	hotcell_snapshot_free(s);
	return 0;
}

/* fork COUNT: running copies of the sandbox, until all are ready; removed again */
static int do_fork(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns(), end_ns;
	struct hotcell_list *l;
	struct hotcell_error e;
	int r = 0;

	if (n != 1)
		return fail("fork needs a number");
	if (hotcell_fork(p->box, (unsigned)number(field[0]), NULL, &l, &e) < 0)
		return fail(e.message);
	end_ns = sys_now_ns();
	for (size_t i = 0; i < hotcell_list_count(l) && r == 0; i++)
		r = hotcell_destroy(p->conn, hotcell_sandbox_id(hotcell_list_get(l, i)), &e);
	if (r < 0)
		fail(e.message);
	else
		printf("ok\tus=%.1f\tinfo=%s\n", us_of(end_ns - start_ns),
		       hotcell_sandbox_json(hotcell_list_get(l, 0)));
	hotcell_list_free(l);
	return 0;
}

/* snapshot: keep the sandbox as it is */
static int do_snapshot(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_snapshot *s;
	struct hotcell_error e;

	(void)n;
	(void)field;
	if (hotcell_snapshot_create(p->box, NULL, 0, &s, &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\tid=%s\tinfo=%s\n", us_of(sys_now_ns() - start_ns), hotcell_snapshot_id(s),
	       hotcell_snapshot_json(s));
	hotcell_snapshot_free(s);
	return 0;
}

/* forget SNAPSHOT */
static int do_forget(struct probe *p, int n, char *field[])
{
	struct hotcell_error e;

	if (n != 1)
		return fail("forget needs a snapshot");
	if (hotcell_snapshot_remove(p->conn, field[0], &e) < 0)
		return fail(e.message);
	printf("ok\n");
	return 0;
}

static int took(int r, uint64_t start_ns, const struct hotcell_error *e)
{
	if (r < 0)
		return fail(e->message);
	printf("ok\tus=%.1f\n", us_of(sys_now_ns() - start_ns));
	return 0;
}

/* pause: its memory is on disk, its monitor gone */
static int do_pause(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_error e;

	(void)n;
	(void)field;
	return took(hotcell_pause(p->box, &e), start_ns, &e);
}

/* resume: until its agent answers */
static int do_resume(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_error e;

	(void)n;
	(void)field;
	return took(hotcell_resume(p->box, &e), start_ns, &e);
}

/* rollback SNAPSHOT */
static int do_rollback(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns();
	struct hotcell_error e;

	if (n != 1)
		return fail("rollback needs a snapshot");
	return took(hotcell_rollback(p->box, field[0], &e), start_ns, &e);
}

/* code SOURCE: Python, to its end; inner_us is the part in the interpreter */
static int do_code(struct probe *p, int n, char *field[])
{
	uint64_t start_ns = sys_now_ns(), end_ns;
	struct hotcell_code_result *result;
	struct hotcell_error e;

	if (n != 1)
		return fail("code needs a source");
	if (hotcell_code_run(p->box, field[0], NULL, &result, &e) < 0)
		return fail(e.message);
	end_ns = sys_now_ns();
	if (strcmp(hotcell_code_status(result), "ok") != 0)
		fail("the source failed");
	else
		printf("ok\tus=%.1f\tinner_us=%" PRIu64 "\ttext=%s\n", us_of(end_ns - start_ns),
		       hotcell_code_duration_us(result), hotcell_code_text(result) ? hotcell_code_text(result) : "");
	hotcell_code_result_free(result);
	return 0;
}

/* put PATH BYTES */
static int do_put(struct probe *p, int n, char *field[])
{
	struct hotcell_error e;
	uint64_t ns;

	if (n != 2 || number(field[1]) > MACHINE_FILE_MAX)
		return fail("put needs a path and a size of at most 256 MiB");
	if (machine_put(p->box, field[0], number(field[1]), p->sha256, &ns, &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\n", us_of(ns));
	return 0;
}

/* get PATH: the last file that was put */
static int do_get(struct probe *p, int n, char *field[])
{
	struct hotcell_error e;
	uint64_t ns;

	if (n != 1)
		return fail("get needs a path");
	if (machine_get(p->box, field[0], p->sha256, &ns, &e) < 0)
		return fail(e.message);
	printf("ok\tus=%.1f\n", us_of(ns));
	return 0;
}

/* crowd KIND N [ARGV...]: N sandboxes asked for at once */
static int do_crowd(struct probe *p, int n, char *field[])
{
	size_t count = n < 2 ? 0 : number(field[1]);
	struct machine_member m[MACHINE_CROWD_MAX];
	double ready_us[MACHINE_CROWD_MAX], first_us[MACHINE_CROWD_MAX];
	struct hotcell_error e;

	if (count == 0 || count > MACHINE_CROWD_MAX)
		return fail("crowd needs a kind and a number up to 128");
	if (machine_crowd(p->run_dir, field[0], field + 2, m, count, &e) < 0)
		return fail(e.message);
	for (size_t i = 0; i < count; i++) {
		ready_us[i] = us_of(m[i].ready_ns);
		first_us[i] = us_of(m[i].first_ns);
	}
	qsort(ready_us, count, sizeof(ready_us[0]), compare);
	qsort(first_us, count, sizeof(first_us[0]), compare);
	printf("ok\tready_us=%.1f\tmedian_us=%.1f\tlast_us=%.1f\n", ready_us[count - 1], first_us[count / 2],
	       first_us[count - 1]);
	return 0;
}

enum need { NEED_NOTHING, NEED_CONNECTION, NEED_BOX };

static const struct command {
	const char *name;
	int (*run)(struct probe *p, int n, char *field[]);
	enum need need;
} commands[] = {
	{"build", do_build, NEED_CONNECTION},
	{"burst", do_burst, NEED_NOTHING},
	{"code", do_code, NEED_BOX},
	{"connect", do_connect, NEED_NOTHING},
	{"create", do_create, NEED_CONNECTION},
	{"crowd", do_crowd, NEED_CONNECTION},
	{"exec", do_exec, NEED_BOX},
	{"forget", do_forget, NEED_CONNECTION},
	{"fork", do_fork, NEED_BOX},
	{"fresh", do_fresh, NEED_CONNECTION},
	{"get", do_get, NEED_BOX},
	{"pause", do_pause, NEED_BOX},
	{"ping", do_ping, NEED_BOX},
	{"put", do_put, NEED_BOX},
	{"remove", do_remove, NEED_CONNECTION},
	{"resume", do_resume, NEED_BOX},
	{"rollback", do_rollback, NEED_BOX},
	{"snapshot", do_snapshot, NEED_BOX},
	{"spawn", do_spawn, NEED_NOTHING},
	{"tsc", do_tsc, NEED_NOTHING},
	{"use", do_use, NEED_CONNECTION},
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
		if (commands[i].need >= NEED_CONNECTION && !p->conn)
			return fail("not connected");
		if (commands[i].need >= NEED_BOX && !p->box)
			return fail("no sandbox in use");
		return commands[i].run(p, n - 1, field + 1);
	}
	return fail("no such command");
}

int main(void)
{
	struct probe p = {0};
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, stdin)) > 0) {
		line[n - 1] = '\0';
		dispatch(&p, line);
		fflush(stdout);
	}
	free(line);
	hotcell_sandbox_close(p.box);
	if (p.conn)
		hotcell_disconnect(p.conn);
	free(p.run_dir);
	return 0;
}
