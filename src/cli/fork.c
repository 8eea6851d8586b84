/* cli/fork.c - fork, pause, resume, rollback, snapshot, restore, template: whole machines */
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/table.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { TABLE_MAX = 16 << 20 };

static int put_id(const struct id *id, struct err *e)
{
	struct str out = STR_INIT(64);
	char text[ID_TEXT];
	int r;

	id_format(id, text);
	str_addf(&out, "%s\n", text);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

/* A call that answers with a record which begins with an id. */
static int ask(struct cli *c, unsigned method, const void *rq, const struct rec_type *t, void *ret, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = cli_connect(c, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = conn_call(c->conn, method, rq, &bytes, ret, e);
	if (r == 0)
		r = c->json ? cli_put_json(t, ret, e) : put_id(ret, e);
	str_deinit(&bytes);
	return r;
}

static int ask_sandbox(struct cli *c, unsigned method, const void *rq, struct err *e)
{
	struct rec_sandbox_info info;

	_Static_assert(offsetof(struct rec_sandbox_info, id) == 0, "ask() prints it");
	return ask(c, method, rq, &rec_sandbox_info_type, &info, e);
}

static int ask_set(struct cli *c, unsigned method, const void *rq, struct err *e)
{
	struct rec_snapshot_info info;

	_Static_assert(offsetof(struct rec_snapshot_info, id) == 0, "ask() prints it");
	return ask(c, method, rq, &rec_snapshot_info_type, &info, e);
}

/* ---- fork, pause, resume, rollback ---- */

static int on_fork(void *arg, const void *item, struct err *e)
{
	const struct cli *c = arg;
	const struct rec_sandbox_info *info = item;

	return c->json ? cli_put_json(&rec_sandbox_info_type, info, e) : put_id(&info->id, e);
}

int run_fork(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_sandbox_fork rq = *(struct rec_sandbox_fork *)args_rec(a, &rec_sandbox_fork_type);
	int r = cli_connect(c, e);

	rq.sandbox = span_of(a->operand[0]);
	if (r == 0)
		r = cli_signals(c, e);
	return r < 0 ? r : conn_items(c->conn, METHOD_SANDBOX_FORK, &rq, on_fork, c, e);
}

int run_pause(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_ref rq = {span_of(a->operand[0])};

	return ask_sandbox(c, METHOD_SANDBOX_PAUSE, &rq, e);
}

int run_resume(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_ref rq = {span_of(a->operand[0])};

	return ask_sandbox(c, METHOD_SANDBOX_RESUME, &rq, e);
}

int run_rollback(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_rollback rq = {span_of(a->operand[0]), span_of(a->operand[1])};

	return ask_sandbox(c, METHOD_SANDBOX_ROLLBACK, &rq, e);
}

/* ---- snapshot, template ---- */

struct sets {
	struct cli *cli;
	struct table table;
	const char *kind;     /* that is wanted */
	const char *template; /* wanted; NULL: any */
	char found[64][ID_TEXT];
	unsigned n;
};

static void set_row(struct table *t, const struct rec_snapshot_info *s)
{
	char id[ID_TEXT], age[TABLE_AGE];

	id_format(&s->id, id);
	table_age(s->created_ms, age);
	table_add(t, span_of(id));
	table_add(t, s->name.n ? s->name : s->template);
	table_add(t, s->template);
	table_addf(t, "%llu", (unsigned long long)s->vcpus);
	table_addf(t, "%llu MiB", (unsigned long long)s->memory_mb);
	table_addf(t, "%llu MiB", (unsigned long long)(s->bytes / MIB));
	table_add(t, span_of(s->hot ? "yes" : "no"));
	table_add(t, span_of(age));
}

static int on_set(void *arg, const void *item, struct err *e)
{
	struct sets *l = arg;
	const struct rec_snapshot_info *s = item;

	if (!span_is(s->kind, l->kind) || (l->template && !span_is(s->template, l->template)))
		return 0;
	if (l->n < ARRAY_LEN(l->found))
		id_format(&s->id, l->found[l->n++]);
	if (l->template)
		return 0;
	if (l->cli->json)
		return cli_put_json(&rec_snapshot_info_type, s, e);
	set_row(&l->table, s);
	return 0;
}

static int read_sets(struct cli *c, struct sets *l, struct err *e)
{
	const struct rec_empty nothing = {0};
	int r = cli_connect(c, e);

	l->cli = c;
	return r < 0 ? r : conn_items(c->conn, METHOD_SNAPSHOT_LIST, &nothing, on_set, l, e);
}

static int list_sets(struct cli *c, const char *kind, struct err *e)
{
	static const char *const heads[] = {"ID", "NAME", "TEMPLATE", ">CPUS", ">MEMORY", ">SIZE", "HOT", ">AGE"};
	struct str out = STR_INIT(TABLE_MAX);
	struct sets l = {.kind = kind};
	int r;

	table_init(&l.table, heads, ARRAY_LEN(heads));
	r = read_sets(c, &l, e);
	if (r == 0 && !c->json) {
		table_print(&l.table, &out);
		r = cli_put(&out, e);
	}
	table_deinit(&l.table);
	str_deinit(&out);
	return r;
}

static int remove_set(struct cli *c, const char *name, struct err *e)
{
	const struct rec_snapshot_ref rq = {span_of(name)};
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(256);
	int r = cli_connect(c, e);

	if (r == 0)
		r = conn_call(c->conn, METHOD_SNAPSHOT_REMOVE, &rq, &bytes, NULL, e);
	if (r == 0 && !c->json) {
		str_add_escaped(&out, name, strlen(name));
		str_add(&out, "\n");
		r = cli_put(&out, e);
	}
	str_deinit(&bytes);
	str_deinit(&out);
	return r;
}

static int snapshot_create(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_snapshot_create rq = *(struct rec_snapshot_create *)args_rec(a, &rec_snapshot_create_type);

	rq.sandbox = span_of(a->operand[1]);
	return ask_set(c, METHOD_SNAPSHOT_CREATE, &rq, e);
}

static int snapshot_info(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_snapshot_ref rq = {span_of(a->operand[1])};
	bool json = c->json;
	int r;

	c->json = true; /* all of it, or nothing */
	r = ask_set(c, METHOD_SNAPSHOT_INFO, &rq, e);
	c->json = json;
	return r;
}

static int snapshot_list(struct cli *c, const struct args *a, struct err *e)
{
	(void)a;
	return list_sets(c, "snapshot", e);
}

static int snapshot_rm(struct cli *c, const struct args *a, struct err *e)
{
	return remove_set(c, a->operand[1], e);
}

static int template_build(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_template_build rq = *(struct rec_template_build *)args_rec(a, &rec_template_build_type);

	rq.template = span_of(a->operand[1]);
	cli_note(c, "booting and warming template %s", a->operand[1]);
	return ask_set(c, METHOD_TEMPLATE_BUILD, &rq, e);
}

static int template_list(struct cli *c, const struct args *a, struct err *e)
{
	(void)a;
	return list_sets(c, "template", e);
}

/* By id, or all shapes of a name. */
static int template_rm(struct cli *c, const struct args *a, struct err *e)
{
	struct sets l = {.kind = "template", .template = a->operand[1]};
	int r = read_sets(c, &l, e);

	if (r == 0 && l.n == 0)
		return remove_set(c, a->operand[1], e);
	for (unsigned i = 0; i < l.n && r == 0; i++)
		r = remove_set(c, l.found[i], e);
	return r;
}

struct command {
	const char *name;
	unsigned operands; /* behind it */
	int (*run)(struct cli *c, const struct args *a, struct err *e);
};

static int dispatch(struct cli *c, const struct args *a, const struct command *table, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, a->operand[0]) != 0)
			continue;
		if (a->n_operands != 1 + table[i].operands)
			return err_set(e, ERR_INVALID, "%s %s takes %u operand%s, not %u", a->verb->name, table[i].name,
				       table[i].operands, table[i].operands == 1 ? "" : "s", a->n_operands - 1);
		return table[i].run(c, a, e);
	}
	return err_set(e, ERR_INVALID, "%s: there is no command \"%.64s\"; see hotcell help %s", a->verb->name,
		       a->operand[0], a->verb->name);
}

int run_snapshot(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {
		{"create", 1, snapshot_create}, {"list", 0, snapshot_list}, {"info", 1, snapshot_info},
		{"rm", 1, snapshot_rm},
	};

	return dispatch(c, a, commands, ARRAY_LEN(commands), e);
}

int run_template(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {
		{"build", 1, template_build}, {"list", 0, template_list}, {"rm", 1, template_rm},
	};

	return dispatch(c, a, commands, ARRAY_LEN(commands), e);
}

int run_restore(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_sandbox_create rq = *(struct rec_sandbox_create *)args_rec(a, &rec_sandbox_create_type);
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	int r = cli_connect(c, e);

	rq.snapshot = span_of(a->operand[0]);
	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = create_sandbox(c->conn, &rq, &bytes, &info, NULL, e);
	if (r == 0)
		r = c->json ? cli_put_json(&rec_sandbox_info_type, &info, e) : put_id(&info.id, e);
	str_deinit(&bytes);
	return r;
}
