/* cli/list.c - hotcell list, ps, sessions, ls: a table for people, JSON lines for programs */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "base/unit.h"
#include "cli/cli.h"
#include "cli/place.h"
#include "cli/table.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { OUT_MAX = 256 * 1024 * 1024, ITEMS_MAX = 1000000 };

/* One listing: how an item becomes a row. */
struct listing {
	const struct rec_type *item;
	void (*row)(struct table *t, const void *item);
	struct table table;
	bool json;
	uint64_t items;
};

static int on_item(void *arg, const void *item, struct err *e)
{
	struct listing *l = arg;

	if (++l->items > ITEMS_MAX)
		return err_set(e, ERR_LIMIT, "more than %d entries", ITEMS_MAX);
	if (l->json)
		return cli_put_json(l->item, item, e);
	l->row(&l->table, item);
	return 0;
}

int cli_list(struct cli *c, unsigned method, const void *req, void (*row)(struct table *t, const void *item),
	     const char *const *heads, unsigned columns, struct err *e)
{
	struct listing l = {.item = method_find(method)->items, .row = row, .json = c->json};
	struct str out = STR_INIT(OUT_MAX);
	int r = cli_connect(c, e);

	table_init(&l.table, heads, columns);
	if (r == 0)
		r = conn_items(c->conn, method, req, on_item, &l, e);
	if (r == 0 && !c->json) {
		table_print(&l.table, &out);
		r = cli_put(&out, e);
	}
	table_deinit(&l.table);
	str_deinit(&out);
	return r;
}

/* ---- list ---- */

static void sandbox_row(struct table *t, const void *item)
{
	const struct rec_sandbox_info *s = item;
	char id[ID_TEXT], age[TABLE_AGE];

	id_format(&s->id, id);
	table_age(s->created_ms, age);
	table_add(t, span_of(id));
	table_add(t, s->purpose.n && !s->name.n ? s->purpose : s->name);
	table_add(t, s->unhealthy_since_ms ? span_of("unhealthy") : s->state);
	table_add(t, s->wall);
	table_add(t, s->template);
	table_addf(t, "%llu", (unsigned long long)s->vcpus);
	table_addf(t, "%llu MiB", (unsigned long long)s->memory_mb);
	table_add(t, span_of(age));
}

int run_list(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {"ID",   "NAME",    "STATE",  "WALL",
					    "TEMPLATE", ">CPUS", ">MEMORY", ">AGE"};
	struct rec_empty nothing = {0};

	(void)a;
	return cli_list(c, METHOD_SANDBOX_LIST, &nothing, sandbox_row, heads, ARRAY_LEN(heads), e);
}

/* ---- ps ---- */

static void process_row(struct table *t, const void *item)
{
	const struct rec_process_info *p = item;
	char rss[UNIT_TEXT];

	unit_format_bytes(p->rss_kib > UINT64_MAX / KIB ? UINT64_MAX : p->rss_kib * KIB, rss);
	table_addf(t, "%llu", (unsigned long long)p->pid);
	table_addf(t, "%llu", (unsigned long long)p->parent);
	table_add(t, p->user);
	table_add(t, p->state);
	table_add(t, span_of(rss));
	table_addf(t, "%llu.%02llu", (unsigned long long)p->cpu_ms / 1000,
		   (unsigned long long)p->cpu_ms % 1000 / 10);
	table_add(t, p->command);
}

int run_ps(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {">PID", ">PPID", "USER",   "S",
					    ">MEMORY", ">CPU s", "COMMAND"};
	struct rec_sandbox_ref ref = {span_of(a->operand[0])};

	return cli_list(c, METHOD_GUEST_PROCESSES, &ref, process_row, heads, ARRAY_LEN(heads), e);
}

/* ---- sessions ---- */

static void session_row(struct table *t, const void *item)
{
	const struct rec_exec_info *s = item;
	char age[TABLE_AGE];

	table_age(s->started_ms, age);
	table_addf(t, "%llu", (unsigned long long)s->session);
	table_addf(t, "%llu", (unsigned long long)s->pid);
	table_add(t, s->user);
	if (s->running)
		table_add(t, span_of("running"));
	else if (s->signal)
		table_addf(t, "signal %llu%s", (unsigned long long)s->signal, s->left ? ", not all" : "");
	else
		table_addf(t, "exit %lld%s", (long long)s->code, s->left ? ", not all" : "");
	table_addf(t, "%llu", (unsigned long long)s->subscribers);
	table_add(t, span_of(age));
	table_add(t, s->tag);
	table_add(t, s->command);
}

int run_sessions(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {">SESSION",	 ">PID", "USER", "STATE",
					    ">FOLLOWED", ">AGE", "TAG",	 "COMMAND"};
	struct rec_sandbox_ref ref = {span_of(a->operand[0])};

	return cli_list(c, METHOD_EXEC_LIST, &ref, session_row, heads, ARRAY_LEN(heads), e);
}

/* ---- ls ---- */

struct ls_flags {
	bool is_long, recursive;
	struct span user;
};

static const struct rec_field ls_fields[] = {
	{.name = "long", .type = REC_BOOL, .offset = offsetof(struct ls_flags, is_long),
	 .flag = "long", .doc = "Mode, owner, size and time too."},
	{.name = "recursive", .type = REC_BOOL, .offset = offsetof(struct ls_flags, recursive),
	 .flag = "recursive", .doc = "Directories below as well, 64 levels at most."},
	{.name = "user", .type = REC_TEXT, .offset = offsetof(struct ls_flags, user),
	 .max = LIMIT_TEXT_SHORT, .flag = "user", .arg = "USER", .doc = "Look as this user of the guest (user)."},
};
const struct rec_type ls_type = {.name = "ls_flags", .fields = ls_fields,
				 .n_fields = ARRAY_LEN(ls_fields), .size = sizeof(struct ls_flags)};

static void mode_text(const struct rec_file_info *f, char ret[11])
{
	static const struct {
		const char *kind;
		char letter;
	} kinds[] = {{"directory", 'd'}, {"symlink", 'l'}, {"fifo", 'p'}, {"socket", 's'}, {"device", 'c'}};

	ret[0] = '-';
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (span_is(f->kind, kinds[i].kind))
			ret[0] = kinds[i].letter;
	for (int i = 0; i < 9; i++)
		ret[1 + i] = f->mode & (0400u >> i) ? "rwx"[i % 3] : '-';
	if (f->mode & 04000)
		ret[3] = f->mode & 0100 ? 's' : 'S';
	if (f->mode & 02000)
		ret[6] = f->mode & 0010 ? 's' : 'S';
	if (f->mode & 01000)
		ret[9] = f->mode & 0001 ? 't' : 'T';
	ret[10] = '\0';
}

static void add_owner(struct table *t, struct span name, uint64_t number)
{
	if (name.n)
		table_add(t, name);
	else
		table_addf(t, "%llu", (unsigned long long)number);
}

static void file_row(struct table *t, const void *item)
{
	const struct rec_file_info *f = item;
	time_t seconds = (time_t)(f->mtime_ns / NS_PER_S);
	struct str name = STR_INIT(4 * LIMIT_PATH);
	char mode[11], when[32] = "-";
	struct tm tm;

	mode_text(f, mode);
	if (localtime_r(&seconds, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
	table_add(t, span_of(mode));
	add_owner(t, f->owner, f->uid);
	add_owner(t, f->group, f->gid);
	table_addf(t, "%llu", (unsigned long long)f->size);
	table_add(t, span_of(when));
	str_add_mem(&name, f->path.p, f->path.n);
	if (f->target.n)
		str_addf(&name, " -> %.*s", (int)f->target.n, f->target.p);
	table_add(t, (struct span){name.p, name.len});
	str_deinit(&name);
}

/* Names only: a line each, while they come. */
static int on_name(void *arg, const void *item, struct err *e)
{
	const struct rec_file_info *f = item;
	struct str line = STR_INIT(4 * LIMIT_PATH + 16);
	int r;

	(void)arg;
	str_add_escaped(&line, f->path.p, f->path.n);
	str_add(&line, span_is(f->kind, "directory") ? "/\n" : "\n");
	r = cli_put(&line, e);
	str_deinit(&line);
	return r;
}

int run_ls(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {"MODE", "OWNER", "GROUP", ">SIZE", "TIME", "NAME"};
	const struct ls_flags *flags = args_rec(a, &ls_type);
	struct guest_path at;
	struct rec_file_ref ref;
	int r = guest_path_or_home(a->operand[0], &at, e);

	if (r < 0)
		return r;
	ref = (struct rec_file_ref){.sandbox = span_of(at.sandbox),
				    .path = span_of(at.path),
				    .user = flags->user,
				    .depth = flags->recursive ? LIMIT_LIST_DEPTH : 0};
	if (c->json || flags->is_long)
		return cli_list(c, METHOD_FILE_LIST, &ref, file_row, heads, ARRAY_LEN(heads), e);
	r = cli_connect(c, e);
	return r < 0 ? r : conn_items(c->conn, METHOD_FILE_LIST, &ref, on_name, NULL, e);
}
