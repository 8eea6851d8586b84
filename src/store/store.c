/* store/store.c - sandboxes and intents in SQLite */
#include "store/store.h"
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "store/db.h"

enum { PATH_LIMIT = 4096 };

struct store {
	struct db *run, *keep;
};

static const char *const run_migrations[] = {
	"CREATE TABLE sandbox ("
	" serial INTEGER PRIMARY KEY,"
	" id BLOB NOT NULL UNIQUE,"
	" name TEXT NOT NULL, tenant TEXT NOT NULL, owner TEXT NOT NULL, request_id TEXT NOT NULL,"
	" template TEXT NOT NULL, image TEXT NOT NULL, driver TEXT NOT NULL,"
	" vcpus INTEGER NOT NULL, memory_mb INTEGER NOT NULL, disk_mb INTEGER NOT NULL,"
	" pids_max INTEGER NOT NULL, ephemeral INTEGER NOT NULL,"
	" metadata BLOB NOT NULL, unenforced BLOB NOT NULL, stages BLOB NOT NULL,"
	" state TEXT NOT NULL, reason TEXT NOT NULL,"
	" created_ms INTEGER NOT NULL, idle_timeout_ms INTEGER NOT NULL,"
	" idle_deadline_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL,"
	" generation INTEGER NOT NULL) STRICT;"
	"CREATE UNIQUE INDEX sandbox_name ON sandbox (tenant, name) WHERE name <> '';"
	"CREATE UNIQUE INDEX sandbox_request ON sandbox (tenant, request_id) WHERE request_id <> '';"
	"CREATE TABLE intent ("
	" sandbox BLOB NOT NULL, step TEXT NOT NULL, open INTEGER NOT NULL,"
	" PRIMARY KEY (sandbox, step)) STRICT;",
	"ALTER TABLE sandbox ADD COLUMN layers INTEGER NOT NULL DEFAULT 1;"
	"ALTER TABLE sandbox ADD COLUMN path TEXT NOT NULL DEFAULT 'boot';"
	"ALTER TABLE sandbox ADD COLUMN parent BLOB NOT NULL DEFAULT x'00000000000000000000000000000000';",
	"ALTER TABLE sandbox ADD COLUMN closure TEXT NOT NULL DEFAULT '';"
	"ALTER TABLE sandbox ADD COLUMN node INTEGER NOT NULL DEFAULT 0;"
	"UPDATE sandbox SET node = layers - 1 WHERE layers > 0;",
	"ALTER TABLE sandbox ADD COLUMN lifetime_ms INTEGER NOT NULL DEFAULT 0;",
	NULL,
};

enum run_statement {
	SANDBOX_ADD,
	SANDBOX_REWRITE,
	SANDBOX_UPDATE,
	SANDBOX_REMOVE,
	SANDBOX_EACH,
	INTENT_OPEN,
	INTENT_CLOSE,
	INTENT_REMOVE,
	INTENT_EACH,
	RUN_STATEMENT_N,
};

static const char *const run_statements[] = {
	[SANDBOX_ADD] = "INSERT INTO sandbox (id, name, tenant, owner, request_id, template, image,"
			" driver, vcpus, memory_mb, disk_mb, pids_max, ephemeral, metadata,"
			" unenforced, stages, state, reason, created_ms, idle_timeout_ms,"
			" idle_deadline_ms, deadline_ms, generation, layers, path, parent, closure,"
			" node, lifetime_ms)"
			" VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
	[SANDBOX_REWRITE] = "UPDATE sandbox SET name = ?2, tenant = ?3, owner = ?4, request_id = ?5,"
			    " template = ?6, image = ?7, driver = ?8, vcpus = ?9, memory_mb = ?10,"
			    " disk_mb = ?11, pids_max = ?12, ephemeral = ?13, metadata = ?14,"
			    " unenforced = ?15, stages = ?16, state = ?17, reason = ?18,"
			    " created_ms = ?19, idle_timeout_ms = ?20, idle_deadline_ms = ?21,"
			    " deadline_ms = ?22, generation = ?23, layers = ?24, path = ?25,"
			    " parent = ?26, closure = ?27, node = ?28, lifetime_ms = ?29 WHERE id = ?1"
			    " RETURNING serial",
	[SANDBOX_UPDATE] = "UPDATE sandbox SET state = ?2, reason = ?3, idle_deadline_ms = ?4,"
			   " generation = ?5, stages = ?6, layers = ?7,"
			   " closure = COALESCE(?8, closure), node = ?9 WHERE id = ?1",
	[SANDBOX_REMOVE] = "DELETE FROM sandbox WHERE id = ?1",
	[SANDBOX_EACH] = "SELECT id, name, tenant, owner, request_id, template, image, driver,"
			 " vcpus, memory_mb, disk_mb, pids_max, ephemeral, metadata, unenforced,"
			 " stages, state, reason, created_ms, idle_timeout_ms, idle_deadline_ms,"
			 " deadline_ms, generation, layers, path, parent, closure, node, lifetime_ms FROM sandbox"
			 " ORDER BY serial",
	[INTENT_OPEN] = "INSERT INTO intent (sandbox, step, open) VALUES (?1, ?2, 1)"
			" ON CONFLICT DO UPDATE SET open = 1",
	[INTENT_CLOSE] = "UPDATE intent SET open = 0 WHERE sandbox = ?1 AND step = ?2",
	[INTENT_REMOVE] = "DELETE FROM intent WHERE sandbox = ?1",
	[INTENT_EACH] = "SELECT step, open FROM intent WHERE sandbox = ?1 ORDER BY rowid",
	[RUN_STATEMENT_N] = NULL,
};

static const struct db_schema run_schema = {DB_RUN, run_migrations, run_statements};

static const char *const keep_migrations[] = {
	"CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;"
	"INSERT INTO counter (name, value) VALUES ('epoch', 0);",
	"CREATE TABLE pool ("
	" tenant TEXT NOT NULL, template TEXT NOT NULL, isolation TEXT NOT NULL,"
	" vcpus INTEGER NOT NULL, memory_mb INTEGER NOT NULL, disk_mb INTEGER NOT NULL,"
	" size INTEGER NOT NULL, prestarted INTEGER NOT NULL, unenforced BLOB NOT NULL,"
	" PRIMARY KEY (tenant, template, isolation, vcpus, memory_mb, disk_mb)) STRICT;",
	NULL,
};

enum keep_statement { EPOCH_NEXT, POOL_SET, POOL_REMOVE, POOL_EACH, KEEP_STATEMENT_N };

static const char *const keep_statements[] = {
	[EPOCH_NEXT] = "UPDATE counter SET value = value + 1 WHERE name = 'epoch' RETURNING value",
	[POOL_SET] = "INSERT INTO pool (tenant, template, isolation, vcpus, memory_mb, disk_mb, size,"
		     " prestarted, unenforced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)"
		     " ON CONFLICT DO UPDATE SET size = ?7, prestarted = ?8, unenforced = ?9",
	[POOL_REMOVE] = "DELETE FROM pool WHERE tenant = ?1 AND template = ?2 AND isolation = ?3"
			" AND vcpus = ?4 AND memory_mb = ?5 AND disk_mb = ?6",
	[POOL_EACH] = "SELECT tenant, template, isolation, vcpus, memory_mb, disk_mb, size, prestarted,"
		      " unenforced FROM pool ORDER BY rowid",
	[KEEP_STATEMENT_N] = NULL,
};

static const struct db_schema keep_schema = {DB_KEEP, keep_migrations, keep_statements};

static int open_one(const char *dir, const char *name, const struct db_schema *schema,
		    struct db **ret, struct err *e)
{
	struct str path = STR_INIT(PATH_LIMIT);
	int r;

	str_addf(&path, "%s/%s", dir, name);
	r = path.failed ? err_set(e, ERR_LIMIT, "the path of the state directory is too long")
			: db_open(str_text(&path), schema, ret, e);
	str_deinit(&path);
	return r;
}

int store_open(const char *dir, struct store **ret, struct err *e)
{
	struct store *s = mem_new(sizeof(*s));
	int r = open_one(dir, "run.db", &run_schema, &s->run, e);

	if (r == 0)
		r = open_one(dir, "keep.db", &keep_schema, &s->keep, e);
	if (r < 0)
		s = store_close(s);
	else
		*ret = s;
	return r;
}

struct store *store_close(struct store *s)
{
	if (!s)
		return NULL;
	db_close(s->run);
	db_close(s->keep);
	free(s);
	return NULL;
}

int store_sync(const struct store *s, struct err *e)
{
	return db_sync(s->run, e);
}

/* ---- sandboxes ---- */

/* The fields in the order in which both statements name them. */
static void bind_row(struct sqlite3_stmt *st, const struct store_sandbox *b)
{
	const char *texts[] = {b->name, b->tenant, b->owner, b->request_id,
			       b->template, b->image, b->driver};
	const uint64_t numbers[] = {b->vcpus, b->memory_mb, b->disk_mb, b->pids_max, b->ephemeral};
	const struct strv lists[] = {b->metadata, b->unenforced, b->stages};
	const uint64_t ends[] = {b->created_ms, b->idle_timeout_ms, b->idle_deadline_ms,
				 b->deadline_ms, b->generation, b->layers};
	int at = 1;

	db_bind_id(st, at++, &b->id);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		db_bind_text(st, at++, texts[i]);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		db_bind_u64(st, at++, numbers[i]);
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		db_bind_blob(st, at++, lists[i].p, lists[i].n);
	db_bind_text(st, at++, b->state);
	db_bind_text(st, at++, b->reason);
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		db_bind_u64(st, at++, ends[i]);
	db_bind_text(st, at++, b->path);
	db_bind_id(st, at++, &b->parent);
	db_bind_text(st, at++, b->closure ? b->closure : "");
	db_bind_u64(st, at++, b->node);
	db_bind_u64(st, at, b->lifetime_ms);
}

/* A list from disk is only a list if its last entry is closed. */
static struct strv column_list(struct sqlite3_stmt *st, int at)
{
	struct span b = db_column_blob(st, at);

	if (b.n && b.p[b.n - 1] != '\0')
		return (struct strv){0};
	return (struct strv){b.p, b.n};
}

static int read_row(struct sqlite3_stmt *st, struct store_sandbox *b)
{
	const char **texts[] = {&b->name, &b->tenant, &b->owner, &b->request_id,
				&b->template, &b->image, &b->driver};
	uint64_t *numbers[] = {&b->vcpus, &b->memory_mb, &b->disk_mb, &b->pids_max};
	struct strv *lists[] = {&b->metadata, &b->unenforced, &b->stages};
	uint64_t *ends[] = {&b->created_ms, &b->idle_timeout_ms, &b->idle_deadline_ms,
			    &b->deadline_ms, &b->generation, &b->layers};
	int at = 0, r = db_column_id(st, at++, &b->id);

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		*texts[i] = db_column_text(st, at++);
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		*numbers[i] = db_column_u64(st, at++);
	b->ephemeral = db_column_u64(st, at++);
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		*lists[i] = column_list(st, at++);
	b->state = db_column_text(st, at++);
	b->reason = db_column_text(st, at++);
	for (size_t i = 0; i < ARRAY_LEN(ends); i++)
		*ends[i] = db_column_u64(st, at++);
	b->path = db_column_text(st, at++);
	b->closure = db_column_text(st, at + 1);
	b->node = db_column_u64(st, at + 2);
	b->lifetime_ms = db_column_u64(st, at + 3);
	return r < 0 ? r : db_column_id(st, at, &b->parent);
}

int store_sandbox_add(struct store *s, const struct store_sandbox *row, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, SANDBOX_ADD);

	bind_row(st, row);
	return db_run(s->run, st, e);
}

/* Bound as for an insert; a row that comes back says that there was one. */
int store_sandbox_rewrite(struct store *s, const struct store_sandbox *row, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, SANDBOX_REWRITE);
	int r;

	bind_row(st, row);
	r = db_row(s->run, st, e);
	if (r == 0)
		return err_set(e, ERR_NOT_FOUND, "the sandbox has no row");
	return r < 0 ? r : db_run(s->run, st, e); /* to the end: the statement commits there */
}

int store_sandbox_update(struct store *s, const struct id *id, const struct store_life *life,
			 struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, SANDBOX_UPDATE);

	db_bind_id(st, 1, id);
	db_bind_text(st, 2, life->state);
	db_bind_text(st, 3, life->reason);
	db_bind_u64(st, 4, life->idle_deadline_ms);
	db_bind_u64(st, 5, life->generation);
	db_bind_blob(st, 6, life->stages.p, life->stages.n);
	db_bind_u64(st, 7, life->layers);
	db_bind_text(st, 8, life->closure);
	db_bind_u64(st, 9, life->node);
	return db_run(s->run, st, e);
}

static int remove_by(struct store *s, enum run_statement what, const struct id *id, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, what);

	db_bind_id(st, 1, id);
	return db_run(s->run, st, e);
}

int store_sandbox_remove(struct store *s, const struct id *id, struct err *e)
{
	int r = db_begin(s->run, e);

	if (r < 0)
		return r;
	r = remove_by(s, INTENT_REMOVE, id, e);
	if (r == 0)
		r = remove_by(s, SANDBOX_REMOVE, id, e);
	return db_end(s->run, r, e);
}

int store_sandbox_each(struct store *s, void (*each)(void *arg, const struct store_sandbox *row),
		       void *arg, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, SANDBOX_EACH);
	int r;

	while ((r = db_row(s->run, st, e)) > 0) {
		struct store_sandbox row = {0};

		if (read_row(st, &row) == 0)
			each(arg, &row);
	}
	return r;
}

/* ---- intents ---- */

static int set_intent(struct store *s, enum run_statement what, const struct id *id,
		      const char *step, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, what);

	db_bind_id(st, 1, id);
	db_bind_text(st, 2, step);
	return db_run(s->run, st, e);
}

int store_intent_open(struct store *s, const struct id *id, const char *step, struct err *e)
{
	return set_intent(s, INTENT_OPEN, id, step, e);
}

int store_intent_close(struct store *s, const struct id *id, const char *step, struct err *e)
{
	return set_intent(s, INTENT_CLOSE, id, step, e);
}

int store_intent_each(struct store *s, const struct id *id,
		      void (*each)(void *arg, const char *step, bool is_open), void *arg,
		      struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->run, INTENT_EACH);
	int r;

	db_bind_id(st, 1, id);
	while ((r = db_row(s->run, st, e)) > 0)
		each(arg, db_column_text(st, 0), db_column_u64(st, 1));
	return r;
}

/* ---- the durable class ---- */

int store_epoch_next(struct store *s, uint64_t *ret, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->keep, EPOCH_NEXT);
	int r = db_row(s->keep, st, e);

	if (r == 0)
		return err_set(e, ERR_INVALID, "keep.db has lost its epoch");
	if (r > 0) {
		*ret = db_column_u64(st, 0);
		r = db_run(s->keep, st, e); /* to the end: the statement commits there */
	}
	return r;
}

int store_pool_set(struct store *s, const struct store_pool *p, struct err *e)
{
	const char *texts[] = {p->tenant, p->template, p->isolation};
	const uint64_t shape[] = {p->vcpus, p->memory_mb, p->disk_mb};
	bool is_wanted = p->size || p->prestarted;
	struct sqlite3_stmt *st = db_take(s->keep, is_wanted ? POOL_SET : POOL_REMOVE);
	int at = 1;

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		db_bind_text(st, at++, texts[i]);
	for (size_t i = 0; i < ARRAY_LEN(shape); i++)
		db_bind_u64(st, at++, shape[i]);
	if (is_wanted) {
		db_bind_u64(st, at++, p->size);
		db_bind_u64(st, at++, p->prestarted);
		db_bind_blob(st, at, p->unenforced.p, p->unenforced.n);
	}
	return db_run(s->keep, st, e);
}

int store_pool_each(struct store *s, void (*each)(void *arg, const struct store_pool *p), void *arg, struct err *e)
{
	struct sqlite3_stmt *st = db_take(s->keep, POOL_EACH);
	int r;

	while ((r = db_row(s->keep, st, e)) > 0) {
		const struct store_pool p = {
			db_column_text(st, 0), db_column_text(st, 1), db_column_text(st, 2),
			db_column_u64(st, 3),  db_column_u64(st, 4),  db_column_u64(st, 5),
			db_column_u64(st, 6),  db_column_u64(st, 7),  column_list(st, 8)};

		each(arg, &p);
	}
	return r;
}
