/* cli/run.c - hotcell run: create, follow, remove */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/code.h"
#include "cli/create.h"
#include "cli/follow.h"
#include "cli/program.h"
#include "client/conn.h"
#include "client/exec.h"
#include "client/hold.h"
#include "sys/clock.h"
#include "wire/gen/methods.h"

enum { ANSWER_SLACK = 262144 };

#define FLAG(member) .offset = offsetof(struct follow_flags, member)

static const struct rec_field run_fields[] = {
	{.name = "command", .type = REC_TEXT, FLAG(command), .max = LIMIT_COMMAND,
	 .flag = "command", .arg = "SCRIPT", .doc = "Run SCRIPT with /bin/sh -c instead of a program."},
	{.name = "code", .type = REC_TEXT, FLAG(code), .max = LIMIT_SOURCE,
	 .flag = "code", .arg = "SOURCE", .doc = "Run SOURCE in a live interpreter instead of a program."},
	{.name = "language", .type = REC_TEXT, FLAG(language), .max = 32,
	 .flag = "language", .arg = "NAME", .doc = "With --code: python (default) or shell."},
	{.name = "save", .type = REC_TEXT, FLAG(save), .max = LIMIT_PATH,
	 .flag = "save", .arg = "DIR", .doc = "With --code: keep results other than text in DIR."},
	{.name = "tty", .type = REC_BOOL, FLAG(tty), .flag = "tty",
	 .doc = "Give it a terminal; yours becomes raw."},
	{.name = "no_stdin", .type = REC_BOOL, FLAG(no_stdin), .flag = "no-stdin",
	 .doc = "Its standard input is empty."},
	{.name = "verbose", .type = REC_BOOL, FLAG(verbose), .flag = "verbose",
	 .doc = "Afterwards, say which wall it ran behind and how long each stage took."},
	{.name = "max_output", .type = REC_U64, FLAG(max_output), .min = 1, .max = LIMIT_OUTPUT_KEPT,
	 .unit = REC_SIZE,
	 .flag = "max-output", .arg = "SIZE",
	 .doc = "With --json: keep this much of each output stream, 1 byte to 1G (1M)."},
};
const struct rec_type run_type = {.name = "run_flags", .fields = run_fields,
				  .n_fields = ARRAY_LEN(run_fields),
				  .size = sizeof(struct follow_flags)};

struct times {
	uint64_t connect_us, create_us, exec_us, remove_us;
};

struct run {
	struct cli *cli;
	const struct follow_flags *flags;
	struct rec_sandbox_info info; /* texts in bytes */
	struct str bytes;
	char id[ID_TEXT], kernel[LIMIT_TEXT_SHORT + 1];
	struct times times;
	struct follow_result result;
};

static uint64_t lap(uint64_t *since_ns)
{
	uint64_t now = sys_now_ns(), us = (now - *since_ns) / NS_PER_US;

	*since_ns = now;
	return us;
}

/* What `uname -r` says inside; asked for only when it is going to be shown. */
static void ask_kernel(struct run *r)
{
	struct rec_sandbox_ref ref = {span_of(r->id)};
	struct rec_guest_info info;
	struct str bytes = STR_INIT(RECORD_MAX);

	if (conn_call(r->cli->conn, METHOD_GUEST_INFO, &ref, &bytes, &info, NULL) == 0)
		span_copy(info.kernel, r->kernel, sizeof(r->kernel));
	str_deinit(&bytes);
}

static int put_result(const struct run *r, struct err *e)
{
	const struct times *t = &r->times;
	struct str out = STR_INIT(8 * (r->result.out.bytes.len + r->result.err.bytes.len) +
				  ANSWER_SLACK);
	int code;

	str_add(&out, "{\"wall\":");
	str_add_json(&out, r->info.wall.p, r->info.wall.n);
	str_add(&out, ",\"kernel\":");
	str_add_json(&out, r->kernel, strlen(r->kernel));
	str_add(&out, ",");
	follow_json(&r->result, &out);
	str_addf(&out,
		 ",\"times_us\":{\"connect\":%llu,\"create\":%llu,\"exec\":%llu,\"remove\":%llu}",
		 (unsigned long long)t->connect_us, (unsigned long long)t->create_us,
		 (unsigned long long)t->exec_us, (unsigned long long)t->remove_us);
	str_add(&out, ",\"sandbox\":");
	rec_json(&rec_sandbox_info_type, &r->info, &out);
	str_add(&out, "}\n");
	code = cli_put(&out, e);
	str_deinit(&out);
	return code;
}

static void say_stages(const struct run *r)
{
	struct str text = STR_INIT(RECORD_MAX);

	str_addf(&text, "wall %.*s, kernel %s; created by %.*s in %.1f ms (", (int)r->info.wall.n,
		 r->info.wall.p, r->kernel, (int)r->info.path.n, r->info.path.p, (double)r->times.create_us / 1000);
	for (const char *s = strv_first(r->info.stages); s; s = strv_next(r->info.stages, s))
		str_addf(&text, "%s%s", s == r->info.stages.p ? "" : ", ", s);
	str_addf(&text, " us); ran %.1f ms; removed in %.1f ms", (double)r->times.exec_us / 1000,
		 (double)r->times.remove_us / 1000);
	cli_note(r->cli, "%s", str_text(&text));
	str_deinit(&text);
}

/* --code: a context of its own with the options a program would have had. */
static int run_code_inside(struct run *r, const struct args *a, struct err *e)
{
	const struct rec_exec_start *x = args_rec(a, &rec_exec_start_type);
	struct rec_code_open open = {.sandbox = span_of(r->id),
				     .language = r->flags->language,
				     .cwd = x->cwd,
				     .user = x->user,
				     .env = x->env};
	struct rec_code_run run = {.sandbox = open.sandbox,
				   .source = r->flags->code,
				   .timeout_ms = x->timeout_ms};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_code_context info;
	int code = 0;

	if (open.cwd.n || open.user.n || open.env.n) {
		code = conn_call(r->cli->conn, METHOD_CODE_OPEN, &open, &bytes, &info, e);
		run.context = code < 0 ? 0 : info.context;
	}
	run.language = open.language;
	if (code == 0)
		code = code_follow(r->cli, &run, r->flags->save, &r->result.status, e);
	r->result.finished = code == 0;
	str_deinit(&bytes);
	return code;
}

static int run_inside(struct run *r, const struct args *a, struct err *e)
{
	const struct follow_flags *flags = r->flags;
	struct program p;
	struct follow_options o = {
		.start = &p.rec,
		.terminal = flags->tty,
		.capture = r->cli->json,
		.max_bytes = flags->max_output ? flags->max_output : MAX_OUTPUT,
	};
	int code = program_init(&p, r->id, flags, a, 0, e);

	o.input = p.rec.stdin;
	if (code == 0)
		code = follow(r->cli, &o, &r->result, e);
	program_deinit(&p);
	return code;
}

/* Also after an error: nothing is left behind. The first error is the one that counts. */
static int remove_it(struct run *r, int code, struct err *e)
{
	struct rec_sandbox_ref ref = {span_of(r->id)};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct err why = ERR_INIT;
	int removed = conn_call(r->cli->conn, METHOD_SANDBOX_REMOVE, &ref, &bytes, NULL, &why);

	str_deinit(&bytes);
	if (removed == -ERR_NOT_FOUND)
		removed = 0; /* it ended by itself */
	if (code < 0 || removed == 0)
		return code;
	err_copy(e, &why);
	return err_wrap(e, "the program is done, but its sandbox %s was not removed", r->id);
}

static int in_sandbox(struct run *r, const struct args *a, uint64_t since, struct err *e)
{
	int code = r->flags->code.n ? run_code_inside(r, a, e) : run_inside(r, a, e);

	r->times.exec_us = lap(&since);
	if (code == 0 && r->result.finished && (r->cli->json || r->flags->verbose))
		ask_kernel(r);
	if (code == 0)
		follow_note_end(r->cli, &r->result, r->id);
	lap(&since);
	code = remove_it(r, code, e);
	r->times.remove_us = lap(&since);
	return code;
}

/* A mistake on the command line is found before anything is made. */
static int check(struct run *r, const struct args *a, struct err *e)
{
	const struct follow_flags *flags = r->flags;
	struct program p;
	int code;

	if (flags->code.n) {
		bool mixed = a->n_operands || flags->command.n || flags->tty;

		return mixed ? err_set(e, ERR_INVALID, "--code: not with a program, --command or --tty") : 0;
	}
	if (flags->language.n || flags->save.n)
		return err_set(e, ERR_INVALID, "--language and --save go with --code");
	code = program_init(&p, "unnamed", flags, a, 0, e);
	if (code == 0)
		code = exec_check(&p.rec, e);
	program_deinit(&p);
	return code;
}

static int report(struct run *r, struct err *e)
{
	/* Of --code, a line for each piece is printed already. */
	int code = r->cli->json && !r->flags->code.n ? put_result(r, e) : 0;

	if (r->flags->verbose && !r->cli->json)
		say_stages(r);
	return code < 0 ? code : r->result.status;
}

int run_run(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_create *rec = args_rec(a, &rec_sandbox_create_type);
	struct run r = {.cli = c, .flags = args_rec(a, &run_type), .bytes = STR_INIT(RECORD_MAX)};
	uint64_t since = sys_now_ns();
	struct hold *hold = NULL;
	int code = check(&r, a, e);

	if (code == 0)
		code = cli_connect(c, e);
	if (code == 0)
		code = cli_signals(c, e);
	r.times.connect_us = lap(&since);
	if (code == 0)
		code = create_sandbox(c, rec, &r.bytes, &r.info, &hold, e);
	r.times.create_us = lap(&since);
	if (code == 0) {
		id_format(&r.info.id, r.id);
		if (isatty(STDERR_FILENO) && !c->json) /* in a pipe it would stand between what the program says */
			create_note_boot(c, rec, &r.info);
		code = in_sandbox(&r, a, since, e);
	}
	hold_stop(hold);
	if (code == 0)
		code = report(&r, e);
	follow_result_free(&r.result);
	str_deinit(&r.bytes);
	return code;
}
