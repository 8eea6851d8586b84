/* cli/sets.c - hotcell snapshot, template: what is kept of machines */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "base/unit.h"
#include "cli/cli.h"
#include "cli/command.h"
#include "cli/waiting.h"
#include "cli/table.h"
#include "client/conn.h"
#include "sys/fd.h"
#include "wire/gen/methods.h"

enum { TABLE_MAX = 16 << 20, SHORT_DIGEST = 12, FOUND_MAX = LIMIT_SNAPSHOTS };

/* @doing: what a person reads when it takes long. */
static int ask_set(struct cli *c, unsigned method, const void *rq, const char *doing, bool describes, struct err *e)
{
	struct waiting waiting;
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(64);
	struct rec_snapshot_info info;
	char id[ID_TEXT];
	int r = cli_connect(c, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0) {
		waiting_begin(&waiting, c, doing);
		r = conn_call(c->conn, method, rq, &bytes, &info, e);
		waiting_end(&waiting);
	}
	if (r == 0 && c->json) {
		r = cli_put_json(&rec_snapshot_info_type, &info, e);
	} else if (r == 0 && describes) {
		r = cli_describe(&rec_snapshot_info_type, &info, e);
	} else if (r == 0) {
		id_format(&info.id, id);
		str_addf(&out, "%s\n", id);
		r = cli_put(&out, e);
	}
	str_deinit(&out);
	str_deinit(&bytes);
	return r;
}

/* ---- lists ---- */

struct sets {
	const struct cli *cli;
	const char *kind;     /* that is wanted */
	const char *template; /* likewise; NULL: any */
	/* What happens to each. */
	int (*each)(struct sets *l, const struct rec_snapshot_info *s, struct err *e);
	struct table table;
	struct str ids; /* of each() == keep_id(): NUL behind each */
	unsigned n;
};

static int on_set(void *arg, const void *item, struct err *e)
{
	const struct rec_snapshot_info *s = item;
	struct sets *l = arg;

	bool is_wanted = span_is(s->kind, l->kind) || (span_is(s->kind, "unusable") && str_eq(l->kind, "snapshot"));

	if (!is_wanted || (l->template && !span_is(s->template, l->template)))
		return 0;
	if (++l->n > FOUND_MAX)
		return err_set(e, ERR_LIMIT, "more than %d of them", FOUND_MAX);
	return l->each(l, s, e);
}

static int read_sets(struct cli *c, struct sets *l, struct err *e)
{
	const struct rec_empty nothing = {0};
	int r = cli_connect(c, e);

	l->cli = c;
	return r < 0 ? r : conn_items(c->conn, METHOD_SNAPSHOT_LIST, &nothing, on_set, l, e);
}

static void add_shape(struct table *t, const struct rec_snapshot_info *s)
{
	char size[UNIT_TEXT], age[TABLE_AGE];

	unit_format_bytes(s->bytes, size);
	table_age(s->created_ms, age);
	table_addf(t, "%llu", (unsigned long long)s->vcpus);
	table_addf(t, "%llu MiB", (unsigned long long)s->memory_mb);
	table_addf(t, "%llu MiB", (unsigned long long)s->disk_mb);
	table_add(t, span_of(s->reason.n ? "unusable" : s->hot ? "yes" : "no"));
	table_add(t, span_of(size));
	table_add(t, span_of(age));
}

static int snapshot_row(struct sets *l, const struct rec_snapshot_info *s, struct err *e)
{
	char id[ID_TEXT];

	if (l->cli->json)
		return cli_put_json(&rec_snapshot_info_type, s, e);
	id_format(&s->id, id);
	table_add(&l->table, span_of(id));
	table_add(&l->table, s->name);
	table_add(&l->table, s->template);
	add_shape(&l->table, s);
	return 0;
}

static int template_row(struct sets *l, const struct rec_snapshot_info *s, struct err *e)
{
	char id[ID_TEXT];

	if (l->cli->json)
		return cli_put_json(&rec_snapshot_info_type, s, e);
	id_format(&s->id, id);
	table_add(&l->table, span_of(id));
	table_add(&l->table, s->template);
	table_add(&l->table, (struct span){s->image.p, MIN(s->image.n, (size_t)SHORT_DIGEST)});
	add_shape(&l->table, s);
	return 0;
}

static int list_sets(struct cli *c, struct sets *l, const char *const *heads, unsigned columns, struct err *e)
{
	struct str out = STR_INIT(TABLE_MAX);
	int r;

	table_init(&l->table, heads, columns);
	r = read_sets(c, l, e);
	if (r == 0 && !c->json) {
		table_print(&l->table, &out);
		r = cli_put(&out, e);
	}
	table_deinit(&l->table);
	str_deinit(&out);
	return r;
}

static int forget_set(struct cli *c, const char *name, struct err *e)
{
	const struct rec_snapshot_ref rq = {span_of(name)};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = cli_connect(c, e);

	if (r == 0)
		r = conn_call(c->conn, METHOD_SNAPSHOT_REMOVE, &rq, &bytes, NULL, e);
	str_deinit(&bytes);
	return r;
}

static int remove_set(struct cli *c, const char *name, struct err *e)
{
	struct str out = STR_INIT(1024);
	int r = forget_set(c, name, e);

	if (r == 0) {
		if (c->json)
			str_add(&out, "{}");
		else
			str_add_escaped(&out, name, strlen(name));
		str_add(&out, "\n");
		r = cli_put(&out, e);
	}
	str_deinit(&out);
	return r;
}

/* ---- snapshot ---- */

static int snapshot_create(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_snapshot_create rq = *(struct rec_snapshot_create *)args_rec(a, &rec_snapshot_create_type);

	rq.sandbox = span_of(a->operand[a->n_operands - 1]); /* the word "create" may be left out */
	return ask_set(c, METHOD_SNAPSHOT_CREATE, &rq, "copying the sandbox", false, e);
}

static int snapshot_info(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_snapshot_ref rq = {span_of(a->operand[1])};

	return ask_set(c, METHOD_SNAPSHOT_INFO, &rq, "asking", true, e);
}

static int snapshot_list(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {"ID",     "NAME", "TEMPLATE", ">CPUS", ">MEMORY",
					    ">DISK", "HOT",  ">SIZE",	  ">AGE"};
	struct sets l = {.kind = "snapshot", .each = snapshot_row};

	(void)a;
	return list_sets(c, &l, heads, ARRAY_LEN(heads), e);
}

static int snapshot_rm(struct cli *c, const struct args *a, struct err *e)
{
	return remove_set(c, a->operand[1], e);
}

/* ---- template ---- */

/* The answer of the verb goes to standard output; what the build says is for people. */
static int build_image(const struct cli *c, const char *name, struct err *e)
{
	const char *words[] = {"image", "build", name, NULL};
	int mine, r;

	(void)fflush(stdout);
	mine = dup(STDOUT_FILENO);
	if (mine < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
		(void)sys_close(mine);
		return err_set(e, ERR_INTERNAL, "standard output can't be redirected");
	}
	r = c->hooks->image(3, (char **)words, e);
	(void)fflush(stdout);
	(void)dup2(mine, STDOUT_FILENO);
	(void)sys_close(mine);
	return r == -ERR_CONFLICT ? 0 : r; /* somebody else is building: what is there will do */
}

static int template_build(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_template_build rq = *(struct rec_template_build *)args_rec(a, &rec_template_build_type);
	int r = c->hooks->image ? build_image(c, a->operand[1], e) : 0;

	rq.template = span_of(a->operand[1]);
	if (r < 0)
		return r;
	cli_note(c, "booting and warming template %s", a->operand[1]);
	return ask_set(c, METHOD_TEMPLATE_BUILD, &rq, "booting and warming the template", false, e);
}

static int template_list(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {"ID",     "TEMPLATE", "IMAGE", ">CPUS", ">MEMORY",
					    ">DISK", "HOT",	   ">SIZE",  ">AGE"};
	struct sets l = {.kind = "template", .each = template_row};

	(void)a;
	return list_sets(c, &l, heads, ARRAY_LEN(heads), e);
}

static int put_set(struct sets *l, const struct rec_snapshot_info *s, struct err *e)
{
	struct str blank = STR_INIT(2);
	int r = 0;

	if (l->cli->json)
		return cli_put_json(&rec_snapshot_info_type, s, e);
	if (l->n > 1) {
		str_add(&blank, "\n");
		r = cli_put(&blank, e);
		str_deinit(&blank);
	}
	return r < 0 ? r : cli_describe(&rec_snapshot_info_type, s, e);
}

/* The daemon, asked for an id, knows sets only. */
static int no_template(int r, const char *name, struct err *e)
{
	return r == -ERR_NOT_FOUND ? err_set(e, ERR_NOT_FOUND, "there is no hot template %.64s", name) : r;
}

/* All shapes of a name, or one id. */
static int template_info(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_snapshot_ref rq = {span_of(a->operand[1])};
	struct sets l = {.kind = "template", .template = a->operand[1], .each = put_set};
	int r = read_sets(c, &l, e);

	if (r < 0 || l.n)
		return r;
	return no_template(ask_set(c, METHOD_SNAPSHOT_INFO, &rq, "asking", true, e), a->operand[1], e);
}

static int keep_id(struct sets *l, const struct rec_snapshot_info *s, struct err *e)
{
	char id[ID_TEXT];

	id_format(&s->id, id);
	strv_add(&l->ids, id);
	return l->ids.failed ? err_set(e, ERR_LIMIT, "too many of them") : 0;
}

static int template_rm(struct cli *c, const struct args *a, struct err *e)
{
	struct sets l = {.kind = "template", .template = a->operand[1], .each = keep_id,
			 .ids = STR_INIT(FOUND_MAX * ID_TEXT)};
	int r = read_sets(c, &l, e);
	struct strv ids = strv_of(&l.ids);

	if (r == 0 && l.n == 0)
		r = no_template(remove_set(c, a->operand[1], e), a->operand[1], e);
	for (const char *id = strv_first(ids); id && r == 0; id = strv_next(ids, id))
		r = remove_set(c, id, e);
	str_deinit(&l.ids);
	return r;
}

int cli_forget_hot(struct cli *c, const char *name, struct err *e)
{
	struct sets l = {.kind = "template", .template = name, .each = keep_id,
			 .ids = STR_INIT(FOUND_MAX * ID_TEXT)};
	const struct conn_options quietly = {.no_start = true};
	struct strv ids;
	int r = 0;

	if (strchr(name, '@') || conn_open(&quietly, &c->conn, NULL) < 0)
		return 0; /* an older build is nobody's template; without a daemon nothing is hot */
	r = read_sets(c, &l, e);
	ids = strv_of(&l.ids);
	for (const char *id = strv_first(ids); id && r == 0; id = strv_next(ids, id))
		r = forget_set(c, id, e);
	str_deinit(&l.ids);
	return r < 0 ? err_wrap(e, "the image is removed, but what was hot of it is not; 'hotcell template rm %.64s' "
				"removes that", name) : 0;
}

/* ---- the tables ---- */

int run_snapshot(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {
		{"create", 1, snapshot_create}, {"list", 0, snapshot_list}, {"info", 1, snapshot_info},
		{"rm", 1, snapshot_rm},
	};

	if (a->n_operands == 1 && !command_exists(commands, ARRAY_LEN(commands), a->operand[0]))
		return snapshot_create(c, a, e); /* of the sandbox named */
	return command_run(c, a, commands, ARRAY_LEN(commands), e);
}

int run_template(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {
		{"build", 1, template_build}, {"list", 0, template_list}, {"info", 1, template_info},
		{"rm", 1, template_rm},
	};

	return command_run(c, a, commands, ARRAY_LEN(commands), e);
}
