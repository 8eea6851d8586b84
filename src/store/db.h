/*
 * store/db.h - an SQLite file that is ours, of a known version, with prepared statements.
 * One thread at a time.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/span.h"

struct db;
struct err;
struct id;
struct sqlite3_stmt;

/*
 * The durability class of a file. SQLite syncs per file, and a commit that syncs
 * holds the file's write lock for as long as the disk takes. So the classes are
 * two files, not two connections to one: run-time records never wait for a disk.
 */
enum db_class {
	DB_RUN,	 /* synchronous=NORMAL: survives kill -9, not a power cut. Microseconds */
	DB_KEEP, /* synchronous=FULL: on disk when the call returns. Milliseconds; not on the loop */
};

struct db_schema {
	enum db_class class;
	const char *const *migrations; /* [i]: SQL from version i to i + 1; NULL-terminated. Only append */
	const char *const *statements; /* by number; NULL-terminated */
};

/*
 * db_open() - open or create the file and bring it to the newest version
 * @schema:	const table, kept
 *
 * Return: 0; -ERR_INVALID when it is damaged, not SQLite, or somebody else's;
 * -ERR_UNSUPPORTED when a newer release wrote it; -ERR_CONFLICT when another
 * process has it; -ERR_LIMIT when the disk is full. The sentence says what to do.
 */
int db_open(const char *path, const struct db_schema *schema, struct db **ret, struct err *e);
struct db *db_close(struct db *db); /* NULL fine */

/* Take statement @number, reset and without values; lent until the next take of the same. */
struct sqlite3_stmt *db_take(struct db *db, unsigned number);

void db_bind_u64(struct sqlite3_stmt *s, int at, uint64_t v); /* at: from 1 */
void db_bind_text(struct sqlite3_stmt *s, int at, const char *text); /* lent until the step; NULL: NULL */
void db_bind_blob(struct sqlite3_stmt *s, int at, const void *p, size_t n);
void db_bind_id(struct sqlite3_stmt *s, int at, const struct id *id);

/* What was committed is on disk when it returns, in either class. Any thread. */
int db_sync(const struct db *db, struct err *e);

/* Run a statement that gives no rows. */
int db_run(struct db *db, struct sqlite3_stmt *s, struct err *e);
/* Next row: 1, 0 at the end, or an error. */
int db_row(struct db *db, struct sqlite3_stmt *s, struct err *e);

uint64_t db_column_u64(struct sqlite3_stmt *s, int at); /* at: from 0 */
const char *db_column_text(struct sqlite3_stmt *s, int at); /* lent until the next row; never NULL */
struct span db_column_blob(struct sqlite3_stmt *s, int at); /* likewise */
int db_column_id(struct sqlite3_stmt *s, int at, struct id *ret); /* -EINVAL */

/* Everything between these happens or nothing does. db_end() rolls back when @result is negative. */
int db_begin(struct db *db, struct err *e);
int db_end(struct db *db, int result, struct err *e);
