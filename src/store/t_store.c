/* store/t_store.c - rows come back, errors leave nothing, damage and strangers are named */
#include "store/store.h"
#include <fcntl.h>
#include <sqlite3.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

struct rig {
	char dir[64];
	struct store *store;
};

static void rig_begin(struct rig *r)
{
	(void)snprintf(r->dir, sizeof(r->dir), "/tmp/t_store.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	assert_int_equal(store_open(r->dir, &r->store, NULL), 0);
}

static void rig_end(struct rig *r)
{
	r->store = store_close(r->store);
	assert_int_equal(sys_remove_tree(AT_FDCWD, r->dir), 0);
}

static void reopen(struct rig *r)
{
	r->store = store_close(r->store);
	assert_int_equal(store_open(r->dir, &r->store, NULL), 0);
}

static struct store_sandbox row(unsigned char n, const char *name, const char *request)
{
	return (struct store_sandbox){
		.id = {{n}},
		.name = name,
		.tenant = "default",
		.owner = "uid:0",
		.request_id = request,
		.template = "base",
		.image = "digest",
		.driver = "qemu",
		.vcpus = 2,
		.memory_mb = 512,
		.disk_mb = 1024,
		.pids_max = 100,
		.ephemeral = true,
		.metadata = {"a=1\0b=2", 8},
		.state = "creating",
		.reason = "",
		.created_ms = UINT64_C(1700000000123),
		.idle_timeout_ms = 5,
		.idle_deadline_ms = 6,
		.deadline_ms = 7,
		.generation = 8,
		.layers = 1,
		.path = "boot",
		.closure = "qemu 1",
	};
}

struct seen {
	unsigned n;
	struct id last;
	char name[64], state[32], reason[64], stages[64], meta[64];
	uint64_t memory_mb, created_ms, idle_deadline_ms, generation;
	char closure[64];
	bool ephemeral;
};

static void see(void *arg, const struct store_sandbox *b)
{
	struct seen *s = arg;

	s->n++;
	s->last = b->id;
	(void)snprintf(s->name, sizeof(s->name), "%s", b->name);
	(void)snprintf(s->state, sizeof(s->state), "%s", b->state);
	(void)snprintf(s->reason, sizeof(s->reason), "%s", b->reason);
	memset(s->stages, 0, sizeof(s->stages));
	memcpy(s->stages, b->stages.p ? b->stages.p : "", b->stages.n);
	memset(s->meta, 0, sizeof(s->meta));
	memcpy(s->meta, b->metadata.p ? b->metadata.p : "", b->metadata.n);
	s->memory_mb = b->memory_mb;
	s->created_ms = b->created_ms;
	s->idle_deadline_ms = b->idle_deadline_ms;
	s->generation = b->generation;
	s->ephemeral = b->ephemeral;
	(void)snprintf(s->closure, sizeof(s->closure), "%s", b->closure);
}

static struct seen look(struct rig *r)
{
	struct seen s = {0};

	assert_int_equal(store_sandbox_each(r->store, see, &s, NULL), 0);
	return s;
}

static void rows_come_back_after_reopening(void **state)
{
	struct store_sandbox b = row(1, "web", "r1");
	struct store_life life = {"running", "why not", 60, 80, 2, 1, {"image=5", 8}, NULL};
	struct rig r;
	struct seen s;

	T_UNUSED(state);
	rig_begin(&r);
	assert_int_equal(store_sandbox_add(r.store, &b, NULL), 0);
	assert_int_equal(store_sandbox_update(r.store, &b.id, &life, NULL), 0);
	reopen(&r);
	s = look(&r);
	assert_int_equal(s.n, 1);
	assert_true(id_eq(&s.last, &b.id));
	assert_string_equal(s.name, "web");
	assert_string_equal(s.state, "running");
	assert_string_equal(s.reason, "why not");
	assert_string_equal(s.stages, "image=5");
	assert_memory_equal(s.meta, "a=1\0b=2", 8);
	assert_int_equal(s.memory_mb, 512);
	assert_int_equal(s.created_ms, UINT64_C(1700000000123));
	assert_int_equal(s.idle_deadline_ms, 60);
	assert_int_equal(s.generation, 80);
	assert_true(s.ephemeral);
	assert_string_equal(s.closure, "qemu 1"); /* nobody said another one */
	life.closure = "qemu 2";
	assert_int_equal(store_sandbox_update(r.store, &b.id, &life, NULL), 0);
	assert_string_equal(look(&r).closure, "qemu 2");
	assert_int_equal(store_sandbox_remove(r.store, &b.id, NULL), 0);
	assert_int_equal(store_sandbox_remove(r.store, &b.id, NULL), 0);
	assert_int_equal(look(&r).n, 0);
	rig_end(&r);
}

static void names_and_requests_are_unique_per_tenant(void **state)
{
	struct store_sandbox a = row(1, "web", "r1"), b = row(2, "web", ""), c = row(3, "", "r1"),
			     d = row(4, "", ""), e = row(5, "", ""), f = row(6, "web", "r1");
	struct rig r;
	struct seen s;

	T_UNUSED(state);
	rig_begin(&r);
	f.tenant = "other";
	assert_int_equal(store_sandbox_add(r.store, &a, NULL), 0);
	assert_int_equal(store_sandbox_add(r.store, &a, NULL), -ERR_CONFLICT);
	assert_int_equal(store_sandbox_add(r.store, &b, NULL), -ERR_CONFLICT);
	assert_int_equal(store_sandbox_add(r.store, &c, NULL), -ERR_CONFLICT);
	assert_int_equal(store_sandbox_add(r.store, &d, NULL), 0);
	assert_int_equal(store_sandbox_add(r.store, &e, NULL), 0); /* no name is no name */
	assert_int_equal(store_sandbox_add(r.store, &f, NULL), 0);
	assert_int_equal(look(&r).n, 4);
	s = look(&r);
	assert_true(id_eq(&s.last, &f.id)); /* in order of creation */
	rig_end(&r);
}

static void note(void *arg, const char *step, bool is_open)
{
	char *text = arg;

	(void)snprintf(text + strlen(text), 64 - strlen(text), "%s%s ", step, is_open ? "?" : "");
}

static void intents_open_and_close(void **state)
{
	struct id id = {{9}}, other = {{8}};
	char text[64] = "";
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	assert_int_equal(store_intent_open(r.store, &id, "disk", NULL), 0);
	assert_int_equal(store_intent_close(r.store, &id, "disk", NULL), 0);
	assert_int_equal(store_intent_open(r.store, &id, "machine", NULL), 0);
	assert_int_equal(store_intent_open(r.store, &id, "machine", NULL), 0); /* a retry */
	assert_int_equal(store_intent_open(r.store, &other, "disk", NULL), 0);
	reopen(&r);
	assert_int_equal(store_intent_each(r.store, &id, note, text, NULL), 0);
	assert_string_equal(text, "disk machine? ");
	assert_int_equal(store_sandbox_remove(r.store, &id, NULL), 0);
	text[0] = '\0';
	assert_int_equal(store_intent_each(r.store, &id, note, text, NULL), 0);
	assert_string_equal(text, "");
	rig_end(&r);
}

static void a_row_is_rewritten_whole(void **state)
{
	struct store_sandbox b = row(1, "", ""), other = row(2, "taken", "r2"), now = row(1, "web", "r1");
	struct err e = ERR_INIT;
	struct rig r;
	struct seen s;

	T_UNUSED(state);
	rig_begin(&r);
	assert_int_equal(store_sandbox_rewrite(r.store, &b, &e), -ERR_NOT_FOUND);
	assert_int_equal(store_sandbox_add(r.store, &b, NULL), 0);
	now.state = "running";
	now.memory_mb = 99;
	now.metadata = (struct strv){"c=3", 4};
	now.ephemeral = false;
	assert_int_equal(store_sandbox_rewrite(r.store, &now, NULL), 0);
	reopen(&r);
	s = look(&r);
	assert_int_equal(s.n, 1);
	assert_string_equal(s.name, "web");
	assert_string_equal(s.state, "running");
	assert_memory_equal(s.meta, "c=3", 4);
	assert_int_equal(s.memory_mb, 99);
	assert_false(s.ephemeral);
	assert_int_equal(store_sandbox_add(r.store, &other, NULL), 0);
	now.name = "taken";
	assert_int_equal(store_sandbox_rewrite(r.store, &now, NULL), -ERR_CONFLICT);
	rig_end(&r);
}

/* ---- pools ---- */

static struct store_pool pool(const char *template, uint64_t memory_mb, uint64_t size)
{
	return (struct store_pool){"default", template, "vm", 0, memory_mb, 0, size, 1, {"cpu", 4}};
}

static void add_pool(void *arg, const struct store_pool *p)
{
	char *text = arg;

	(void)snprintf(text + strlen(text), 200, "%s/%s/%s/%u:%u+%u,%s ", p->tenant, p->template, p->isolation,
		       (unsigned)p->memory_mb, (unsigned)p->size, (unsigned)p->prestarted, p->unenforced.p);
}

static void expect_pools(struct rig *r, const char *want)
{
	char text[1000] = "";

	assert_int_equal(store_pool_each(r->store, add_pool, text, NULL), 0);
	assert_string_equal(text, want);
}

static void pools_are_kept(void **state)
{
	struct store_pool a = pool("base", 0, 3), b = pool("base", 256, 4), none = pool("base", 0, 0);
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	expect_pools(&r, "");
	assert_int_equal(store_pool_set(r.store, &a, NULL), 0);
	assert_int_equal(store_pool_set(r.store, &b, NULL), 0);
	a.size = 5;
	assert_int_equal(store_pool_set(r.store, &a, NULL), 0);
	reopen(&r);
	expect_pools(&r, "default/base/vm/0:5+1,cpu default/base/vm/256:4+1,cpu ");
	none.prestarted = 0;
	assert_int_equal(store_pool_set(r.store, &none, NULL), 0);
	expect_pools(&r, "default/base/vm/256:4+1,cpu ");
	rig_end(&r);
}

static void epochs_are_never_repeated(void **state)
{
	uint64_t first = 0, second = 0;
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	assert_int_equal(store_epoch_next(r.store, &first, NULL), 0);
	reopen(&r);
	assert_int_equal(store_epoch_next(r.store, &second, NULL), 0);
	assert_int_equal(first, 1);
	assert_int_equal(second, 2);
	rig_end(&r);
}

static void a_second_daemon_is_told(void **state)
{
	struct store *second = NULL;
	struct err e = ERR_INIT;
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	assert_int_equal(store_open(r.dir, &second, &e), -ERR_CONFLICT);
	assert_non_null(strstr(e.text, "only one hotcelld"));
	rig_end(&r);
}

/* ---- files that are not what they should be ---- */

static void put_file(const struct rig *r, const char *name, const void *p, size_t n, uint64_t at)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", r->dir, name);
	fd = sys_create(path, O_WRONLY, 0600);
	assert_true(fd >= 0);
	assert_int_equal(sys_pwrite_full(fd, p, n, at), 0);
	(void)sys_close(fd);
}

static void open_fails(struct rig *r, int code, const char *word)
{
	struct err e = ERR_INIT;

	assert_int_equal(store_open(r->dir, &r->store, &e), -code);
	if (!strstr(e.text, word))
		fail_msg("\"%s\" lacks \"%s\"", e.text, word);
	assert_non_null(strstr(e.text, "run.db")); /* names the file */
	r->store = NULL;
}

static void strangers_and_damage_are_named(void **state)
{
	char junk[8192];
	struct rig r;

	T_UNUSED(state);
	memset(junk, 'j', sizeof(junk));
	rig_begin(&r);
	r.store = store_close(r.store);
	put_file(&r, "run.db", junk, sizeof(junk), 0); /* no database at all */
	open_fails(&r, ERR_INVALID, "not written by hotcell");
	rig_end(&r);

	rig_begin(&r);
	for (unsigned char i = 1; i < 200; i++) {
		struct store_sandbox b = row(i, "", "");

		assert_int_equal(store_sandbox_add(r.store, &b, NULL), 0);
	}
	r.store = store_close(r.store);
	put_file(&r, "run.db", junk, sizeof(junk), 8192); /* pages in the middle are gone */
	open_fails(&r, ERR_INVALID, "damaged");
	rig_end(&r);
}

static void sql(const struct rig *r, const char *text)
{
	char path[128];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/run.db", r->dir);
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void newer_and_foreign_databases_are_left_alone(void **state)
{
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	r.store = store_close(r.store);
	sql(&r, "PRAGMA user_version = 99");
	open_fails(&r, ERR_UNSUPPORTED, "newer hotcell");
	sql(&r, "PRAGMA user_version = 4; PRAGMA application_id = 5");
	open_fails(&r, ERR_INVALID, "not written by hotcell");
	sql(&r, "PRAGMA application_id = 1752134755"); /* ours again */
	assert_int_equal(store_open(r.dir, &r.store, NULL), 0);
	rig_end(&r);
}

/* ---- a disk that fails ---- */

/* SQLite on a disk whose n-th write, sync or growth fails: below every cache of ours. */
static struct {
	unsigned nth, seen;
	int code;
} bad_disk;

/* SQLite gives database files and others (logs) different tables with the same write and sync. */
static sqlite3_io_methods bad_methods[2];
static const sqlite3_io_methods *good_methods;

static int disk_says(void)
{
	return bad_disk.nth && ++bad_disk.seen >= bad_disk.nth ? bad_disk.code : SQLITE_OK;
}

static int bad_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	int rc = disk_says();

	return rc ? rc : good_methods->xWrite(f, p, n, at);
}

static int bad_sync(sqlite3_file *f, int flags)
{
	int rc = disk_says();

	return rc ? rc : good_methods->xSync(f, flags);
}

static int bad_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags, int *out)
{
	sqlite3_io_methods *bad = &bad_methods[flags & SQLITE_OPEN_MAIN_DB ? 0 : 1];
	sqlite3_vfs *real = vfs->pAppData;
	int rc = real->xOpen(real, name, f, flags, out);

	if (rc != SQLITE_OK)
		return rc;
	good_methods = f->pMethods;
	*bad = *good_methods;
	bad->xWrite = bad_write;
	bad->xSync = bad_sync;
	f->pMethods = bad;
	return SQLITE_OK;
}

static sqlite3_vfs *bad_vfs(void)
{
	static sqlite3_vfs vfs;

	if (!vfs.zName) {
		sqlite3_vfs *real = sqlite3_vfs_find(NULL);

		vfs = *real;
		vfs.zName = "bad";
		vfs.pAppData = real;
		vfs.xOpen = bad_open;
		vfs.pNext = NULL;
		(void)sqlite3_vfs_register(&vfs, 1);
	}
	return &vfs;
}

/* One life of a row; stops at the first failure. */
static int live(struct store *s, const struct store_sandbox *b, struct err *e)
{
	struct store_life life = {"running", "", 1, 2, 1, 0, {NULL, 0}, NULL};
	int r = store_sandbox_add(s, b, e);

	if (r == 0)
		r = store_intent_open(s, &b->id, "disk", e);
	if (r == 0)
		r = store_intent_close(s, &b->id, "disk", e);
	if (r == 0)
		r = store_sandbox_update(s, &b->id, &life, e);
	return r;
}

static void a_full_disk_at_any_write_loses_nothing(void **state)
{
	struct store_sandbox old = row(1, "old", ""), b = row(2, "new", "");
	bool over = false;

	T_UNUSED(state);
	(void)bad_vfs();
	for (unsigned nth = 1; !over; nth++) {
		struct err e = ERR_INIT;
		struct rig r;
		struct seen s;
		int got;

		rig_begin(&r);
		assert_int_equal(live(r.store, &old, NULL), 0);
		bad_disk.seen = 0;
		bad_disk.nth = nth;
		bad_disk.code = SQLITE_FULL;
		got = live(r.store, &b, &e);
		over = bad_disk.seen < nth;
		bad_disk.nth = 0;
		if (over)
			assert_int_equal(got, 0);
		else
			assert_int_equal(got, -ERR_LIMIT);
		if (got < 0)
			assert_non_null(strstr(e.text, "is full"));
		assert_int_equal(store_sandbox_remove(r.store, &b.id, NULL), 0); /* room again */
		reopen(&r);
		s = look(&r);
		assert_int_equal(s.n, 1);
		assert_string_equal(s.name, "old");
		assert_string_equal(s.state, "running");
		rig_end(&r);
	}
}

static void a_failing_call_says_so_and_changes_nothing(void **state)
{
	struct store_sandbox b = row(2, "new", "");
	struct rig r;

	T_UNUSED(state);
	rig_begin(&r);
	for (unsigned nth = 1, met = 1; met; nth++) {
		int got;

		sys_fault_arm(nth, -EIO);
		got = store_sandbox_add(r.store, &b, NULL);
		if (got == 0)
			got = store_sandbox_remove(r.store, &b.id, NULL);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_int_equal(got == 0, !met);
		assert_int_equal(store_sandbox_remove(r.store, &b.id, NULL), 0);
		assert_int_equal(look(&r).n, 0);
	}
	rig_end(&r);
}

T_MAIN(T(rows_come_back_after_reopening), T(a_row_is_rewritten_whole), T(pools_are_kept),
       T(names_and_requests_are_unique_per_tenant),
       T(intents_open_and_close), T(epochs_are_never_repeated), T(a_second_daemon_is_told),
       T(strangers_and_damage_are_named), T(newer_and_foreign_databases_are_left_alone),
       T(a_full_disk_at_any_write_loses_nothing), T(a_failing_call_says_so_and_changes_nothing))
