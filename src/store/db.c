/* store/db.c - open carefully, say clearly what is wrong, keep statements prepared */
#include "store/db.h"
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/id.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/fault.h"
#include "sys/fd.h"

enum {
	APPLICATION_ID = 0x686f7463, /* "hotc", in the file's header */
	STATEMENTS_MAX = 32,
	CACHE_KIB = 2048,
	PATH_LIMIT = 4096,
};

struct db {
	sqlite3 *sql;
	char *path;
	const struct db_schema *schema;
	sqlite3_stmt *statements[STATEMENTS_MAX];
};

/* ---- errors ---- */

static int damaged(const struct db *db, struct err *e)
{
	return err_set(e, ERR_INVALID,
		       "%s is damaged (%s). Move it away (mv %s %s.damaged) and start again: "
		       "sandboxes it knew are then ended and cleaned up",
		       db->path, sqlite3_errmsg(db->sql), db->path, db->path);
}

static int foreign(const struct db *db, struct err *e)
{
	return err_set(e, ERR_INVALID,
		       "%s was not written by hotcell. Move it away (mv %s %s.foreign), or name "
		       "another directory with --state",
		       db->path, db->path, db->path);
}

static int fail(const struct db *db, int rc, struct err *e)
{
	switch (rc & 0xff) {
	case SQLITE_FULL:
		return err_set(e, ERR_LIMIT, "write %s: " ERR_DISK_FULL, db->path);
	case SQLITE_CORRUPT: return damaged(db, e);
	case SQLITE_NOTADB: return foreign(db, e);
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return err_set(e, ERR_CONFLICT, "another process uses %s: only one hotcelld may",
			       db->path);
	case SQLITE_CONSTRAINT:
		return err_set(e, ERR_CONFLICT, "%s: %s", db->path, sqlite3_errmsg(db->sql));
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_CANTOPEN:
		return err_set(e, ERR_DENIED, "cannot write %s: %s", db->path,
			       sqlite3_errmsg(db->sql));
	}
	return err_set(e, ERR_INTERNAL, "%s: %s", db->path, sqlite3_errmsg(db->sql));
}

int db_sync(const struct db *db, struct err *e)
{
	struct str path = STR_INIT(PATH_LIMIT);
	AUTO_CLOSE int fd = -1;
	int r;

	str_addf(&path, "%s-wal", db->path); /* SQLite has no lock on it that our closing it could lose */
	fd = sys_open(str_text(&path), O_RDONLY);
	r = fd < 0 ? fd : sys_fsync(fd);
	if (r < 0)
		r = err_sys(e, r, "bring %s to the disk", str_text(&path));
	str_deinit(&path);
	return r;
}

/* ---- open ---- */

static int exec(struct db *db, const char *sql, struct err *e)
{
	int rc = sqlite3_exec(db->sql, sql, NULL, NULL, NULL);

	return rc == SQLITE_OK ? 0 : fail(db, rc, e);
}

/* One number from a PRAGMA or a count. */
static int ask(struct db *db, const char *sql, int64_t *ret, struct err *e)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db->sql, sql, -1, &s, NULL);

	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		*ret = sqlite3_column_int64(s, 0);
	sqlite3_finalize(s);
	return rc == SQLITE_ROW ? 0 : fail(db, rc, e);
}

static int check_integrity(struct db *db, struct err *e)
{
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_prepare_v2(db->sql, "PRAGMA quick_check(1)", -1, &s, NULL);
	bool is_ok;

	if (rc == SQLITE_OK)
		rc = sqlite3_step(s);
	is_ok = rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") == 0;
	sqlite3_finalize(s);
	if (rc != SQLITE_ROW)
		return fail(db, rc, e);
	return is_ok ? 0 : damaged(db, e);
}

static int check_owner(struct db *db, struct err *e)
{
	int64_t application, objects;
	int r = ask(db, "PRAGMA application_id", &application, e);

	if (r == 0)
		r = ask(db, "SELECT count(*) FROM sqlite_schema", &objects, e);
	if (r < 0 || application == APPLICATION_ID)
		return r;
	return application == 0 && objects == 0 ? 0 : foreign(db, e);
}

static int migrate_one(struct db *db, int64_t version, struct err *e)
{
	char pragma[96];
	int r = db_begin(db, e);

	if (r < 0)
		return r;
	r = exec(db, db->schema->migrations[version], e);
	(void)sqlite3_snprintf(sizeof(pragma), pragma,
			       "PRAGMA application_id = %d; PRAGMA user_version = %lld",
			       APPLICATION_ID, (long long)version + 1);
	if (r == 0)
		r = exec(db, pragma, e);
	return db_end(db, r, e);
}

static int migrate(struct db *db, struct err *e)
{
	int64_t version, newest = 0;
	int r = ask(db, "PRAGMA user_version", &version, e);

	while (db->schema->migrations[newest])
		newest++;
	if (r == 0 && version > newest)
		return err_set(e, ERR_UNSUPPORTED,
			       "%s was written by a newer hotcell (version %lld, this program knows "
			       "%lld): install that one, or name another directory with --state",
			       db->path, (long long)version, (long long)newest);
	for (; r == 0 && version < newest; version++)
		r = migrate_one(db, version, e);
	return r;
}

static int prepare(struct db *db, struct err *e)
{
	for (unsigned i = 0; db->schema->statements[i]; i++) {
		int rc = sqlite3_prepare_v3(db->sql, db->schema->statements[i], -1,
					    SQLITE_PREPARE_PERSISTENT, &db->statements[i], NULL);

		if (rc != SQLITE_OK)
			return fail(db, rc, e);
	}
	return 0;
}

/* Exclusive: the one writer keeps its lock, and WAL needs no shared memory file. */
static const char *const class_setup[] = {
	[DB_RUN] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; "
		   "PRAGMA synchronous = NORMAL;",
	[DB_KEEP] = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; "
		    "PRAGMA synchronous = FULL;",
};

static int set_up(struct db *db, struct err *e)
{
	int r = check_owner(db, e);

	if (r == 0)
		r = exec(db, class_setup[db->schema->class], e);
	if (r == 0)
		r = check_integrity(db, e);
	if (r == 0)
		r = migrate(db, e);
	if (r == 0)
		r = prepare(db, e);
	return r;
}

int db_open(const char *path, const struct db_schema *schema, struct db **ret, struct err *e)
{
	struct db *db = mem_new(sizeof(*db));
	int r, rc;

	db->path = mem_strdup(path);
	db->schema = schema;
	rc = sqlite3_open_v2(path, &db->sql,
			     SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX |
				     SQLITE_OPEN_EXRESCODE,
			     NULL);
	r = rc == SQLITE_OK ? set_up(db, e) : fail(db, rc, e);
	if (r < 0)
		db = db_close(db);
	else
		*ret = db;
	return r;
}

struct db *db_close(struct db *db)
{
	if (!db)
		return NULL;
	for (unsigned i = 0; i < STATEMENTS_MAX; i++)
		sqlite3_finalize(db->statements[i]);
	(void)sqlite3_close(db->sql);
	free(db->path);
	free(db);
	return NULL;
}

/* ---- statements ---- */

struct sqlite3_stmt *db_take(struct db *db, unsigned number)
{
	sqlite3_stmt *s = db->statements[number];

	(void)sqlite3_reset(s);
	(void)sqlite3_clear_bindings(s);
	return s;
}

void db_bind_u64(struct sqlite3_stmt *s, int at, uint64_t v)
{
	(void)sqlite3_bind_int64(s, at, (sqlite3_int64)v);
}

void db_bind_text(struct sqlite3_stmt *s, int at, const char *text)
{
	(void)sqlite3_bind_text(s, at, text, -1, SQLITE_STATIC);
}

void db_bind_blob(struct sqlite3_stmt *s, int at, const void *p, size_t n)
{
	(void)sqlite3_bind_blob64(s, at, n ? p : "", n, SQLITE_STATIC);
}

void db_bind_id(struct sqlite3_stmt *s, int at, const struct id *id)
{
	db_bind_blob(s, at, id->b, ID_BYTES);
}

int db_row(struct db *db, struct sqlite3_stmt *s, struct err *e)
{
	int r = sys_fault();
	int rc;

	if (r < 0) {
		(void)sqlite3_reset(s);
		return err_sys(e, r, "%s", db->path);
	}
	rc = sqlite3_step(s);
	if (rc == SQLITE_ROW)
		return 1;
	if (rc != SQLITE_DONE)
		r = fail(db, rc, e);
	(void)sqlite3_reset(s); /* an unfinished statement would hold the transaction open */
	return r;
}

int db_run(struct db *db, struct sqlite3_stmt *s, struct err *e)
{
	int r = db_row(db, s, e);

	(void)sqlite3_reset(s);
	return r < 0 ? r : 0;
}

uint64_t db_column_u64(struct sqlite3_stmt *s, int at)
{
	return (uint64_t)sqlite3_column_int64(s, at);
}

const char *db_column_text(struct sqlite3_stmt *s, int at)
{
	const unsigned char *text = sqlite3_column_text(s, at);

	return text ? (const char *)text : "";
}

struct span db_column_blob(struct sqlite3_stmt *s, int at)
{
	const void *p = sqlite3_column_blob(s, at);

	return (struct span){p, p ? (size_t)sqlite3_column_bytes(s, at) : 0};
}

int db_column_id(struct sqlite3_stmt *s, int at, struct id *ret)
{
	struct span b = db_column_blob(s, at);

	if (b.n != ID_BYTES)
		return -EINVAL;
	memcpy(ret->b, b.p, ID_BYTES);
	return 0;
}

int db_begin(struct db *db, struct err *e)
{
	return exec(db, "BEGIN IMMEDIATE", e);
}

int db_end(struct db *db, int result, struct err *e)
{
	int r = result;

	if (r >= 0)
		r = exec(db, "COMMIT", e);
	if (r < 0) /* some failures have rolled back already: then this says so, and that is fine */
		(void)sqlite3_exec(db->sql, "ROLLBACK", NULL, NULL, NULL);
	return r;
}
