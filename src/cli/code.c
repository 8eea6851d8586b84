/* cli/code.c - hotcell code: live interpreters in a sandbox */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/code.h"
#include "cli/table.h"
#include "client/conn.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"

enum { TABLE_MAX = 65536 };

struct code_flags {
	struct span file, save;
};

static const struct rec_field code_fields[] = {
	{.name = "file", .type = REC_TEXT, .offset = offsetof(struct code_flags, file), .max = LIMIT_PATH,
	 .flag = "file", .arg = "FILE", .doc = "run: the source is in FILE of this host."},
	{.name = "save", .type = REC_TEXT, .offset = offsetof(struct code_flags, save), .max = LIMIT_PATH,
	 .flag = "save", .arg = "DIR", .doc = "run: keep results other than text in DIR of this host."},
};
const struct rec_type code_type = {.name = "code_flags", .fields = code_fields,
				   .n_fields = ARRAY_LEN(code_fields),
				   .size = sizeof(struct code_flags)};

/* ---- run ---- */

static int read_all(int fd, const char *what, struct str *ret, struct err *e)
{
	char piece[8192];
	ssize_t r;

	while ((r = sys_read(fd, piece, sizeof(piece))) > 0)
		str_add_mem(ret, piece, (size_t)r);
	if (r < 0)
		return err_sys(e, (int)r, "read %s", what);
	return ret->failed ? err_set(e, ERR_LIMIT, "%s: more than %d bytes; put a larger program into a "
						   "file of the sandbox and run that",
				     what, LIMIT_SOURCE)
			   : 0;
}

/* From the command line, --file, or standard input. */
static int source_of(const struct args *a, const struct code_flags *flags, struct str *ret,
		     struct err *e)
{
	const char *word = a->n_operands > 2 ? a->operand[2] : NULL;
	char path[LIMIT_PATH + 1];
	AUTO_CLOSE int fd = -1;

	if (word && flags->file.n)
		return err_set(e, ERR_INVALID, "source and --file are both given: one of them");
	if (word && strcmp(word, "-") != 0) {
		str_add(ret, word);
		return ret->failed ? err_set(e, ERR_LIMIT, "source: more than %d bytes; use --file", LIMIT_SOURCE)
				   : 0;
	}
	if (!flags->file.n)
		return read_all(STDIN_FILENO, "standard input", ret, e);
	span_copy(flags->file, path, sizeof(path));
	fd = sys_open(path, O_RDONLY);
	return fd < 0 ? err_sys(e, fd, "--file %s", path) : read_all(fd, path, ret, e);
}

static int do_run(struct cli *c, const struct args *a, struct err *e)
{
	const struct code_flags *flags = args_rec(a, &code_type);
	struct rec_code_run rec = *(struct rec_code_run *)args_rec(a, &rec_code_run_type);
	struct str source = STR_INIT(LIMIT_SOURCE + 1); /* and its NUL */
	int status = 0, r = source_of(a, flags, &source, e);

	rec.sandbox = span_of(a->operand[1]);
	rec.source = (struct span){str_text(&source), source.len};
	if (r == 0)
		r = rec_check(&rec_code_run_type, &rec, e);
	if (r == 0)
		r = cli_connect(c, e);
	if (r == 0)
		r = code_follow(c, &rec, flags->save, &status, e);
	str_deinit(&source);
	return r < 0 ? r : status;
}

/* ---- open, restart, interrupt, close ---- */

static int put_context(const struct cli *c, const struct rec_code_context *info, struct err *e)
{
	struct str out = STR_INIT(64);
	int r;

	if (c->json)
		return cli_put_json(&rec_code_context_type, info, e);
	str_addf(&out, "%llu\n", (unsigned long long)info->context);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

static int do_open(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_code_run *run = args_rec(a, &rec_code_run_type);
	struct rec_code_open rec = *(struct rec_code_open *)args_rec(a, &rec_code_open_type);
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_code_context info;
	int r = cli_connect(c, e);

	rec.sandbox = span_of(a->operand[1]);
	rec.language = run->language; /* the option is one for both */
	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = conn_call(c->conn, METHOD_CODE_OPEN, &rec, &bytes, &info, e);
	if (r == 0)
		r = put_context(c, &info, e);
	str_deinit(&bytes);
	return r;
}

static int call_context(struct cli *c, const struct args *a, unsigned method,
			struct rec_code_context *ret, struct str *bytes, struct err *e)
{
	struct rec_code_ref rec = {.sandbox = span_of(a->operand[1])};
	int r;

	if (str_to_u64(a->operand[2], 1, UINT64_MAX, &rec.context) < 0)
		return err_set(e, ERR_INVALID, "CONTEXT: \"%.60s\" is not a number; see 'hotcell code list %s'",
			       a->operand[2], a->operand[1]);
	r = cli_connect(c, e);
	if (r == 0)
		r = cli_signals(c, e);
	return r < 0 ? r : conn_call(c->conn, method, &rec, bytes, ret, e);
}

static int do_restart(struct cli *c, const struct args *a, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_code_context info;
	int r = call_context(c, a, METHOD_CODE_RESTART, &info, &bytes, e);

	if (r == 0 && c->json)
		r = put_context(c, &info, e);
	str_deinit(&bytes);
	return r;
}

static int plain_call(struct cli *c, const struct args *a, unsigned method, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = call_context(c, a, method, NULL, &bytes, e);

	str_deinit(&bytes);
	return r;
}

static int do_interrupt(struct cli *c, const struct args *a, struct err *e)
{
	return plain_call(c, a, METHOD_CODE_INTERRUPT, e);
}

static int do_close(struct cli *c, const struct args *a, struct err *e)
{
	return plain_call(c, a, METHOD_CODE_CLOSE, e);
}

/* ---- list ---- */

struct listing {
	const struct cli *cli;
	struct table table;
};

static int on_context(void *arg, const void *item, struct err *e)
{
	const struct rec_code_context *x = item;
	struct listing *l = arg;

	if (l->cli->json)
		return cli_put_json(&rec_code_context_type, x, e);
	table_addf(&l->table, "%llu", (unsigned long long)x->context);
	table_add(&l->table, x->language);
	table_add(&l->table, x->state);
	table_addf(&l->table, "%llu", (unsigned long long)x->pid);
	table_addf(&l->table, "%llu", (unsigned long long)x->runs);
	table_add(&l->table, span_of(x->warm ? "yes" : "no"));
	table_add(&l->table, x->cwd);
	return 0;
}

static int do_list(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {">CONTEXT", "LANGUAGE", "STATE", ">PID",
					    ">RUNS",	"WARM",	    "CWD"};
	struct rec_sandbox_ref ref = {span_of(a->operand[1])};
	struct str out = STR_INIT(TABLE_MAX);
	struct listing l = {.cli = c};
	int r = cli_connect(c, e);

	table_init(&l.table, heads, ARRAY_LEN(heads));
	if (r == 0)
		r = conn_items(c->conn, METHOD_CODE_LIST, &ref, on_context, &l, e);
	if (r == 0 && !c->json) {
		table_print(&l.table, &out);
		r = cli_put(&out, e);
	}
	table_deinit(&l.table);
	str_deinit(&out);
	return r;
}

/* ---- the verb ---- */

static const struct {
	const char *name;
	unsigned min, max; /* words behind it */
	bool runs, opens;  /* options it has */
	int (*run)(struct cli *c, const struct args *a, struct err *e);
} commands[] = {
	{"run", 1, 2, true, false, do_run},	  {"open", 1, 1, false, true, do_open},
	{"list", 1, 1, false, false, do_list},	  {"interrupt", 2, 2, false, false, do_interrupt},
	{"restart", 2, 2, false, false, do_restart}, {"close", 2, 2, false, false, do_close},
};

static int check_options(const struct args *a, const char *name, bool runs, bool opens, struct err *e)
{
	const struct code_flags *flags = args_rec(a, &code_type);
	const struct rec_code_run *run = args_rec(a, &rec_code_run_type);
	const struct rec_code_open *open = args_rec(a, &rec_code_open_type);

	if (!runs && (flags->file.n || flags->save.n || run->context || run->timeout_ms))
		return err_set(e, ERR_INVALID, "--file, --save, --context and --timeout are for 'code run', not '%s'",
			       name);
	if (!opens && (open->cwd.n || open->user.n || open->env.n))
		return err_set(e, ERR_INVALID, "--cwd, --user and --env are for 'code open', not '%s'", name);
	if (!runs && !opens && run->language.n)
		return err_set(e, ERR_INVALID, "--language is for 'code run' and 'code open', not '%s'", name);
	return 0;
}

int run_code(struct cli *c, const struct args *a, struct err *e)
{
	const char *names[ARRAY_LEN(commands) + 1] = {NULL}, *near;

	for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
		int r;

		names[i] = commands[i].name;
		if (strcmp(a->operand[0], commands[i].name) != 0)
			continue;
		if (a->n_operands < 1 + commands[i].min || a->n_operands > 1 + commands[i].max)
			return err_set(e, ERR_INVALID, "hotcell code %s: wrong number of words; "
						       "'hotcell help code' shows them",
				       commands[i].name);
		r = check_options(a, commands[i].name, commands[i].runs, commands[i].opens, e);
		return r < 0 ? r : commands[i].run(c, a, e);
	}
	near = args_nearest(a->operand[0], names);
	return err_set(e, ERR_INVALID, "hotcell code: there is no \"%.40s\"; %s%s%s", a->operand[0],
		       near ? "did you mean '" : "'hotcell help code' lists them", near ? near : "",
		       near ? "'?" : "");
}
