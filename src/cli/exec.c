/* cli/exec.c - hotcell exec, shell, attach */
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/follow.h"
#include "cli/program.h"
#include "cli/terminal.h"

enum { ANSWER_SLACK = 65536 };

#define FLAG(member) .offset = offsetof(struct follow_flags, member)

static const struct rec_field exec_fields[] = {
	{.name = "command", .type = REC_TEXT, FLAG(command), .max = LIMIT_COMMAND,
	 .flag = "command", .arg = "SCRIPT", .doc = "Run SCRIPT with /bin/sh -c instead of a program."},
	{.name = "tty", .type = REC_BOOL, FLAG(tty), .flag = "tty",
	 .doc = "Give it a terminal; yours becomes raw."},
	{.name = "no_stdin", .type = REC_BOOL, FLAG(no_stdin), .flag = "no-stdin",
	 .doc = "Its standard input is empty."},
	{.name = "detach", .type = REC_BOOL, FLAG(detach), .flag = "detach",
	 .doc = "Print the session's number and leave it running."},
	{.name = "max_output", .type = REC_U64, FLAG(max_output), .min = 1, .max = LIMIT_OUTPUT_KEPT,
	 .unit = REC_SIZE,
	 .flag = "max-output", .arg = "SIZE",
	 .doc = "With --json: keep this much of each output stream, 1 byte to 1G (1M)."},
};
const struct rec_type follow_type = {.name = "exec_flags", .fields = exec_fields,
				     .n_fields = ARRAY_LEN(exec_fields),
				     .size = sizeof(struct follow_flags)};

static const struct rec_field shell_fields[] = {
	{.name = "command", .type = REC_TEXT, FLAG(command), .max = LIMIT_COMMAND,
	 .flag = "command", .arg = "SCRIPT", .doc = "Run SCRIPT on the terminal instead of a shell."},
};
const struct rec_type shell_type = {.name = "shell_flags", .fields = shell_fields,
				    .n_fields = ARRAY_LEN(shell_fields),
				    .size = sizeof(struct follow_flags)};

struct attach_flags {
	bool no_stdin, from_now;
	uint64_t max_output;
	struct span on_slow;
};

static const struct rec_field attach_fields[] = {
	{.name = "no_stdin", .type = REC_BOOL, .offset = offsetof(struct attach_flags, no_stdin),
	 .flag = "no-stdin", .doc = "Only watch: standard input stays where it is."},
	{.name = "from_now", .type = REC_BOOL, .offset = offsetof(struct attach_flags, from_now),
	 .flag = "from-now", .doc = "Skip the output that is kept; only what comes from now on."},
	{.name = "max_output", .type = REC_U64, .offset = offsetof(struct attach_flags, max_output),
	 .min = 1, .max = LIMIT_OUTPUT_KEPT, .unit = REC_SIZE, .flag = "max-output", .arg = "SIZE",
	 .doc = "With --json: keep this much of each output stream, 1 byte to 1G (1M)."},
	{.name = "on_slow", .type = REC_TEXT, .offset = offsetof(struct attach_flags, on_slow), .max = 8,
	 .choices = (const char *const[]){"block", "drop", NULL}, .flag = "on-slow", .arg = "WHAT",
	 .doc = "When we are slow: block the program, or drop output (block)."},
};
const struct rec_type attach_type = {.name = "attach_flags", .fields = attach_fields,
				     .n_fields = ARRAY_LEN(attach_fields),
				     .size = sizeof(struct attach_flags)};

static int put_result(const struct follow_result *result, struct err *e)
{
	struct str out = STR_INIT(8 * (result->out.bytes.len + result->err.bytes.len) + ANSWER_SLACK);
	int r;

	str_add(&out, "{");
	follow_json(result, &out);
	str_add(&out, "}\n");
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

static int follow_and_report(struct cli *c, const struct follow_options *o, const char *sandbox, struct err *e)
{
	struct follow_result result;
	int r = follow(c, o, &result, e);

	if (r == 0 && c->json)
		r = put_result(&result, e);
	if (r == 0)
		follow_note_end(c, &result, sandbox);
	if (r == 0)
		r = result.status;
	follow_result_free(&result);
	return r;
}

static int detach(struct cli *c, const struct rec_exec_start *rec, struct err *e)
{
	struct str out = STR_INIT(256);
	uint64_t session;
	int r = follow_start_only(c, rec, &session, e);

	if (r == 0) {
		str_addf(&out, c->json ? "{\"session\":%llu}\n" : "%llu\n",
			 (unsigned long long)session);
		r = cli_put(&out, e);
	}
	str_deinit(&out);
	return r;
}

static int run_program(struct cli *c, const struct args *a, const struct follow_flags *flags,
		       struct err *e)
{
	struct program p;
	struct follow_options o = {
		.start = &p.rec,
		.terminal = flags->tty,
		.capture = c->json,
		.max_bytes = flags->max_output ? flags->max_output : MAX_OUTPUT,
	};
	int r = program_init(&p, a->operand[0], flags, a, 1, e);

	o.input = p.rec.stdin;
	if (r == 0)
		r = cli_connect(c, e);
	if (r == 0)
		r = flags->detach ? detach(c, &p.rec, e) : follow_and_report(c, &o, a->operand[0], e);
	program_deinit(&p);
	return r;
}

int run_exec(struct cli *c, const struct args *a, struct err *e)
{
	return run_program(c, a, args_rec(a, &follow_type), e);
}

/* The best shell the image has, as a login shell, in one process. */
#define LOGIN_SHELL "exec \"$(command -v bash || echo /bin/sh)\" -l"

int run_shell(struct cli *c, const struct args *a, struct err *e)
{
	struct follow_flags flags = *(struct follow_flags *)args_rec(a, &shell_type);

	if (!terminal_is(STDIN_FILENO))
		return err_set(e, ERR_INVALID,
			       "standard input is not a terminal; use 'hotcell exec %s -- sh'",
			       a->operand[0]);
	if (c->json)
		return err_set(e, ERR_INVALID, "--json: not with a terminal; use 'hotcell exec --json'");
	flags.tty = true;
	if (!flags.command.n)
		flags.command = span_of(LOGIN_SHELL);
	return run_program(c, a, &flags, e);
}

int run_attach(struct cli *c, const struct args *a, struct err *e)
{
	const struct attach_flags *flags = args_rec(a, &attach_type);
	struct rec_exec_attach rec = {.sandbox = span_of(a->operand[0]),
				      .from_now = flags->from_now,
				      .on_slow = flags->on_slow,
				      .stdin = !flags->no_stdin &&
					       !terminal_is_background(STDIN_FILENO)};
	struct follow_options o = {
		.attach = &rec,
		.input = rec.stdin,
		.capture = c->json,
		.max_bytes = flags->max_output ? flags->max_output : MAX_OUTPUT,
	};
	int r = 0;

	if (str_to_u64(a->operand[1], 0, UINT64_MAX, &rec.session) < 0)
		r = err_set(e, ERR_INVALID, "SESSION: \"%.60s\" is not a number; see 'hotcell sessions %s'",
			    a->operand[1], a->operand[0]);
	if (r == 0)
		r = cli_connect(c, e);
	return r < 0 ? r : follow_and_report(c, &o, a->operand[0], e);
}
