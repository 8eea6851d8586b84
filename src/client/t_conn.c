/*
 * client/t_conn.c - connecting, starting the daemon, calls and lists
 *
 * The daemon that gets started is a shell script in a search path of the test's own, or this
 * very program as a double.
 */
#include "client/conn.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/str.h"
#include "base/testing.h"
#include "client/file.h"
#include "client/place.h"
#include "client/t_double.h"
#include "client/tree.h"
#include "sys/clock.h"

enum { ITEMS = 3000, FILE_BYTES = 1000000 };

/* ---- the double's answers ---- */

struct listing {
	struct double_daemon *d;
	unsigned at;
};

struct plan {
	struct listing listing;
	unsigned die;		/* that many questions end the connection */
	unsigned die_after;	/* items before the list breaks off */
	unsigned asked, removed;
	bool half_item;		/* behind the list */
	uint64_t announced;	/* size of the file, whatever it is; 0: the true one */
	uint64_t skips[2];	/* the file's bytes are behind this hole, and before that one */
	bool no_size;
	bool answers_ping;
	uint64_t skipped;	/* bytes of holes of the stored file */
	uint64_t features;	/* of the agent */
	char request_id[65];
	struct str stored;
	struct str content;	/* of the file that is read; empty: "hello" */
	uint64_t at;
	uint64_t cut[8];	/* the connection ends at these offsets of a file, one after the other */
	unsigned cuts;
	bool changes;		/* the file is another one after the first cut */
	const char *const *tree; /* "name\0kind\0target" triples */
};

static const struct stream_ops none = {0};

static void reply_info(struct stream *s, const char *name)
{
	struct rec_sandbox_info info = {.name = span_of(name), .state = span_of("running"), .disk_mb = 100,
					.memory_mb = 28};

	stream_accept(s, &none, NULL);
	assert(stream_reply(s, &rec_sandbox_info_type, &info, false, NULL, 0, NULL) == 0);
}

static void more_items(struct stream *s)
{
	struct listing *l = stream_arg(s);
	struct plan *p = l->d->arg;

	for (; l->at < ITEMS; l->at++) {
		char name[64];
		struct rec_sandbox_info info = {.created_ms = l->at + 1};

		(void)snprintf(name, sizeof(name), "sandbox-%u", l->at);
		info.name = span_of(name);
		if (!stream_send_item(s, &rec_sandbox_info_type, &info))
			return;
		if (p->die_after && l->at == p->die_after) {
			p->die_after = 0;
			double_die(l->d);
			return;
		}
	}
	if (p->half_item)
		(void)stream_send(s, "\x20\0\0\0half", 8);
	stream_end(s);
}

static void send_list(struct double_daemon *d, struct stream *s)
{
	static const struct stream_ops ops = {.writable = more_items};
	struct listing *l = &((struct plan *)d->arg)->listing;
	struct rec_empty nothing = {0};

	*l = (struct listing){.d = d};
	stream_accept(s, &ops, l);
	assert(stream_reply(s, &rec_empty_type, &nothing, true, NULL, 0, NULL) == 0);
	more_items(s);
}

static void send_tree(struct plan *p, struct stream *s)
{
	struct rec_empty nothing = {0};

	stream_accept(s, &none, NULL);
	assert(stream_reply(s, &rec_empty_type, &nothing, true, NULL, 0, NULL) == 0);
	for (const char *const *t = p->tree; *t; t += 3) {
		struct rec_file_info info = {.path = span_of(t[0]),
					     .kind = span_of(t[1]),
					     .target = span_of(t[2]),
					     .mode = 04755,
					     .size = 5};

		assert(stream_send_item(s, &rec_file_info_type, &info));
	}
	stream_end(s);
}

static bool cut_here(struct double_daemon *d, uint64_t at)
{
	struct plan *p = d->arg;

	if (p->cuts >= ARRAY_LEN(p->cut) || !p->cut[p->cuts] || at < p->cut[p->cuts])
		return false;
	p->cuts++;
	double_die(d);
	return true;
}

static void more_bytes(struct stream *s)
{
	struct double_daemon *d = stream_arg(s);
	struct plan *p = d->arg;

	if (p->skips[0] && p->at == 0)
		stream_skip(s, p->skips[0]);
	while (p->at < p->content.len) {
		size_t n = MIN(p->content.len - (size_t)p->at, (size_t)20000), sent;

		sent = stream_send(s, p->content.p + p->at, n);
		p->at += sent;
		if (cut_here(d, p->at) || sent < n)
			return;
	}
	if (p->skips[1])
		stream_skip(s, p->skips[1]);
	stream_end(s);
}

static void send_file(struct double_daemon *d, struct stream *s, struct span payload)
{
	static const struct stream_ops ops = {.writable = more_bytes};
	struct plan *p = d->arg;
	struct rec_file_read rec;
	struct rec_file_info info = {.kind = span_of("file"), .mode = 0640};

	assert(rec_decode(&rec_file_read_type, payload.p, payload.n, &rec, NULL) == 0);
	if (!p->content.len)
		str_add(&p->content, "hello");
	info.size = p->no_size ? 0 : p->announced ? p->announced : p->content.len;
	info.mtime_ns = p->changes ? 100 + p->cuts : 100;
	p->at = rec.offset;
	stream_accept(s, &ops, d);
	assert(stream_reply(s, &rec_file_info_type, &info, true, NULL, 0, NULL) == 0);
	more_bytes(s);
}

static void on_stored(struct stream *s, uint64_t offset, struct span bytes)
{
	struct double_daemon *d = stream_arg(s);
	struct plan *p = d->arg;

	if (offset == 0)
		str_clear(&p->stored); /* the half of before never appeared */
	assert(offset >= p->stored.len);
	p->skipped += offset - p->stored.len;
	while (p->stored.len < offset)
		str_add_mem(&p->stored, "", 1);
	str_add_mem(&p->stored, bytes.p, bytes.n);
	if (!cut_here(d, p->stored.len))
		stream_consumed(s, bytes.n);
}

static void on_stored_end(struct stream *s, uint64_t offset)
{
	struct double_daemon *d = stream_arg(s);
	struct plan *p = d->arg;
	struct rec_file_info info = {.size = offset};

	p->skipped += offset - p->stored.len;
	while (p->stored.len < offset)
		str_add_mem(&p->stored, "", 1);

	assert(stream_reply(s, &rec_file_info_type, &info, false, NULL, 0, NULL) == 0);
}

static const struct stream_ops store_ops = {.data = on_stored, .end = on_stored_end};

static void answer(struct double_daemon *d, struct stream *s, unsigned method, struct span payload)
{
	struct plan *p = d->arg;
	struct rec_sandbox_create create;

	p->asked++;
	if (p->die) {
		p->die--;
		p->removed += method == METHOD_SANDBOX_REMOVE;
		double_die(d);
		return;
	}
	switch (method) {
	case METHOD_SANDBOX_CREATE:
		assert(rec_decode(&rec_sandbox_create_type, payload.p, payload.n, &create, NULL) == 0);
		span_copy(create.request_id, p->request_id, sizeof(p->request_id));
		reply_info(s, "new");
		return;
	case METHOD_SANDBOX_INFO: reply_info(s, "lab"); return;
	case METHOD_SANDBOX_REMOVE:
		if (p->removed)
			double_fail(s, ERR_NOT_FOUND, "no sandbox lab");
		else
			reply_info(s, "lab");
		return;
	case METHOD_SANDBOX_LIST: send_list(d, s); return;
	case METHOD_FILE_LIST: send_tree(p, s); return;
	case METHOD_FILE_READ: send_file(d, s, payload); return;
	case METHOD_FILE_WRITE: stream_accept(s, &store_ops, d); return;
	case METHOD_DAEMON_STOP: loop_stop(d->loop); return;
	case METHOD_GUEST_PING:
		stream_accept(s, &none, NULL); /* for ever */
		if (p->answers_ping)
			(void)stream_reply(s, &rec_guest_health_type,
					   &(struct rec_guest_health){.features = p->features}, false, NULL, 0, NULL);
		return;
	default: double_fail(s, ERR_UNSUPPORTED, "not played"); return;
	}
}

/* ---- calls ---- */

struct test {
	struct double_daemon d;
	struct plan plan;
	struct conn *c;
	struct str bytes;
	struct err e;
};

static int set_up(void **state)
{
	struct test *t = calloc(1, sizeof(*t));

	(void)t_before(state);
	t->plan.stored = t->plan.content = (struct str)STR_INIT(16 << 20);
	t->d.request = answer;
	t->d.arg = &t->plan;
	t->bytes = (struct str)STR_INIT(RECORD_MAX);
	double_start(&t->d);
	t->c = double_connect(&t->d);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct test *t = *state;

	conn_close(t->c);
	double_stop(&t->d);
	str_deinit(&t->bytes);
	str_deinit(&t->plan.stored);
	str_deinit(&t->plan.content);
	free(t);
	return t_after(state);
}

static int ask(struct test *t, unsigned method)
{
	struct rec_sandbox_ref ref = {span_of("lab")};
	struct rec_sandbox_create create = {.request_id = span_of("r1")};
	struct rec_sandbox_info info;

	return conn_call(t->c, method,
			 method == METHOD_SANDBOX_CREATE ? (const void *)&create : &ref, &t->bytes,
			 &info, &t->e);
}

static void t_questions_survive_deaths_double(void **state)
{
	struct test *t = *state;

	t->plan.die = 3;
	assert_int_equal(ask(t, METHOD_SANDBOX_INFO), 0);
	assert_int_equal(t->plan.asked, 4);
	t->plan.die = 2;
	assert_int_equal(ask(t, METHOD_SANDBOX_CREATE), 0);
	assert_string_equal(t->plan.request_id, "r1");
	t->plan.die = 1; /* removed, but the answer is lost; the second time it is not there */
	assert_int_equal(ask(t, METHOD_SANDBOX_REMOVE), 0);
	assert_int_equal(ask(t, METHOD_SANDBOX_REMOVE), -ERR_NOT_FOUND);
	assert_string_equal(t->e.text, "no sandbox lab");
}

static void t_bad_requests_never_leave_double(void **state)
{
	struct test *t = *state;
	struct rec_sandbox_ref ref = {span_of("")};

	assert_int_equal(conn_call(t->c, METHOD_SANDBOX_INFO, &ref, &t->bytes, NULL, &t->e),
			 -ERR_INVALID);
	assert_int_equal(t->plan.asked, 0);
	assert_int_equal(ask(t, METHOD_SANDBOX_INFO), 0);
}

struct counting {
	unsigned n, stop_at;
};

static int count(void *arg, const void *item, struct err *e)
{
	const struct rec_sandbox_info *info = item;
	struct counting *c = arg;

	assert_int_equal(info->created_ms, c->n + 1);
	if (++c->n == c->stop_at)
		return err_set(e, ERR_LIMIT, "enough");
	return 0;
}

static void t_lists_come_whole_double(void **state)
{
	struct test *t = *state;
	struct rec_empty nothing = {0};
	struct counting c = {0}, some = {.stop_at = 5}, cut = {0}, half = {0};

	assert_int_equal(conn_items(t->c, METHOD_SANDBOX_LIST, &nothing, count, &c, &t->e), 0);
	assert_int_equal(c.n, ITEMS);
	assert_int_equal(conn_items(t->c, METHOD_SANDBOX_LIST, &nothing, count, &some, &t->e),
			 -ERR_LIMIT);
	assert_string_equal(t->e.text, "enough");
	assert_int_equal(some.n, 5);
	/* one that ends inside an item is not whole, whatever came before */
	t->plan.half_item = true;
	assert_int_equal(conn_items(t->c, METHOD_SANDBOX_LIST, &nothing, count, &half, &t->e), -ERR_INVALID);
	assert_non_null(strstr(t->e.text, "middle of an item"));
	assert_int_equal(half.n, ITEMS);
	t->plan.half_item = false;
	/* what was seen in part is not asked for again: nothing twice */
	t->plan.die_after = 2500;
	assert_true(conn_items(t->c, METHOD_SANDBOX_LIST, &nothing, count, &cut, &t->e) < 0);
	assert_true(cut.n > 0 && cut.n <= 2501);
	assert_int_equal(ask(t, METHOD_SANDBOX_INFO), 0);
}

static void cancel_now(struct loop_timer *timer)
{
	conn_cancel(*(struct conn **)(timer + 1));
}

static void t_calls_can_be_withdrawn_double(void **state)
{
	struct test *t = *state;
	struct {
		struct loop_timer timer;
		struct conn *c;
	} later = {.c = t->c};
	struct rec_sandbox_ref ref = {span_of("lab")};

	loop_timer_set(conn_loop(t->c), &later.timer, 0, cancel_now);
	assert_int_equal(conn_call(t->c, METHOD_GUEST_PING, &ref, &t->bytes, NULL, &t->e),
			 -ERR_CANCELED);
	assert_int_equal(ask(t, METHOD_SANDBOX_INFO), 0);
}

/* ---- files ---- */

static ssize_t get_pattern(void *arg, void *p, size_t n, struct err *e)
{
	size_t *left = arg, take = MIN(*left, n);

	(void)e;
	memset(p, 'a', take);
	*left -= take;
	return (ssize_t)take;
}

static ssize_t get_error(void *arg, void *p, size_t n, struct err *e)
{
	(void)arg;
	(void)p;
	(void)n;
	return err_set(e, ERR_DENIED, "cannot read it");
}

static void t_files_are_hashed_while_they_stream_double(void **state)
{
	struct test *t = *state;
	size_t left = 1000000;
	struct file_source source = {get_pattern, &left, NULL}, broken = {get_error, NULL, NULL};
	struct rec_file_write rec = {.sandbox = span_of("lab"), .path = span_of("f")};
	struct file_sum sum;
	char text[2 * FILE_SHA256 + 1];

	assert_int_equal(file_store(t->c, &rec, &source, &sum, &t->e), 0);
	assert_int_equal(sum.bytes, 1000000);
	assert_int_equal(t->plan.stored.len, 1000000);
	file_sum_text(&sum, text); /* FIPS 180-2, appendix B.3: a million letters 'a' */
	assert_string_equal(text, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
	str_clear(&t->plan.stored);
	assert_int_equal(file_store(t->c, &rec, &broken, &sum, &t->e), -ERR_DENIED);
	assert_string_equal(t->e.text, "cannot read it");
}

static int rewind_pattern(void *arg, uint64_t bytes, struct err *e)
{
	(void)e;
	*(size_t *)arg += bytes;
	return 0;
}

static int put_str(void *arg, const void *p, size_t n, struct err *e)
{
	(void)e;
	str_add_mem(arg, p, n);
	return 0;
}

static void t_files_survive_deaths_double(void **state)
{
	struct test *t = *state;
	size_t left = FILE_BYTES;
	struct str got = STR_INIT(16 << 20);
	struct file_source source = {get_pattern, &left, rewind_pattern};
	struct file_sink sink = {.put = put_str, .arg = &got};
	struct rec_file_write write = {.sandbox = span_of("lab"), .path = span_of("f")};
	struct rec_file_read read = {.sandbox = span_of("lab"), .path = span_of("f")};
	struct file_sum sum, again;

	memcpy(t->plan.cut, (uint64_t[]){1, 300000, 999999}, 3 * sizeof(uint64_t));
	assert_int_equal(file_store(t->c, &write, &source, &sum, &t->e), 0);
	assert_int_equal(t->plan.cuts, 3);
	assert_int_equal(t->plan.stored.len, FILE_BYTES);
	assert_int_equal(sum.bytes, FILE_BYTES);
	for (size_t i = 0; i < FILE_BYTES; i++)
		str_add_mem(&t->plan.content, "a", 1);
	t->plan.cuts = 0;
	assert_int_equal(file_fetch(t->c, &read, &sink, &again, &t->e), 0);
	assert_int_equal(t->plan.cuts, 3);
	assert_int_equal(got.len, FILE_BYTES);
	assert_memory_equal(again.sha256, sum.sha256, FILE_SHA256);
	/* one that is written meanwhile is not glued together from two versions */
	t->plan.cuts = 0;
	t->plan.changes = true;
	assert_int_equal(file_fetch(t->c, &read, &sink, &again, &t->e), -ERR_CONFLICT);
	/* a source that can't start over is an error, not half a file */
	t->plan.cuts = 0;
	source.rewind = NULL;
	left = FILE_BYTES;
	assert_int_equal(file_store(t->c, &write, &source, &sum, &t->e), -ERR_GONE);
	str_deinit(&got);
}

/* Each refused with nothing but what was announced taken. */
static void t_downloads_are_bounded_double(void **state)
{
	static const struct {
		size_t content;
		uint64_t announced, skips[2], max;
		bool no_size;
		int want;
		const char *says;
	} cases[] = {
		{.content = 48000, .announced = 10, .want = -ERR_LIMIT, .says = "more than the 10 bytes it announced"},
		{.content = 48000, .announced = 47999, .want = -ERR_LIMIT, .says = "announced"},
		{.content = 48000, .announced = 48000, .want = 0},
		{.content = 48000, .announced = 100000, .want = 0}, /* it became shorter while it was read */
		{.content = 48000, .no_size = true, .want = 0},	    /* as files of /proc */
		{.content = FILE_UNSIZED_MAX + 1, .no_size = true, .want = -ERR_LIMIT, .says = "announced"},
		{.content = 48000, .announced = 48000, .max = 47999, .want = -ERR_LIMIT, .says = "--max-size"},
		{.content = 5, .announced = UINT64_C(7) << 60, .max = 1 << 20, .want = -ERR_LIMIT, .says = "7168 PiB"},
		{.content = 5, .announced = 100, .skips = {UINT64_C(1) << 61}, .want = -ERR_LIMIT, .says = "announced"},
		{.content = 5, .announced = 100, .skips = {0, UINT64_C(1) << 61}, .want = -ERR_LIMIT, .says = "more"},
		{.content = 5, .announced = 100, .skips = {95, 0}, .want = 0},
		{.content = 5, .announced = 100, .skips = {96, 0}, .want = -ERR_LIMIT, .says = "announced"},
		{.content = 5, .announced = 100, .skips = {0, 100}, .want = 0},
		{.content = 5, .announced = 100, .skips = {0, 101}, .want = -ERR_LIMIT, .says = "announced"},
	};
	struct test *t = *state;
	uint64_t room = 0;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct str got = STR_INIT(32 << 20);
		struct file_sink sink = {.put = put_str, .arg = &got, .max = cases[i].max};
		struct rec_file_read read = {.sandbox = span_of("lab"), .path = span_of("f")};
		struct file_sum sum;
		int r;

		str_clear(&t->plan.content);
		t->plan.content.max = 32 << 20;
		while (t->plan.content.len < cases[i].content)
			str_add_mem(&t->plan.content, "abcde", MIN((size_t)5, cases[i].content - t->plan.content.len));
		t->plan.announced = cases[i].announced;
		memcpy(t->plan.skips, cases[i].skips, sizeof(t->plan.skips));
		t->plan.no_size = cases[i].no_size;
		t->e = (struct err)ERR_INIT;
		r = file_fetch(t->c, &read, &sink, &sum, &t->e);
		if (r != cases[i].want || (r < 0 && !strstr(t->e.text, cases[i].says)))
			fail_msg("case %zu: %d, %s", i, r, t->e.text);
		assert_true(got.len <= MAX(cases[i].announced, (uint64_t)FILE_UNSIZED_MAX));
		if (r == 0)
			assert_int_equal(got.len, MAX(cases[i].content + cases[i].skips[0], cases[i].skips[1]));
		str_deinit(&got);
	}
	assert_int_equal(file_room(t->c, "lab", &room, &t->e), 0);
	assert_int_equal(room, (100 + 28 + FILE_IMAGE_MB) * (uint64_t)MIB);
}

struct holey {
	size_t at;
	bool skipped;
};

static ssize_t get_holey(void *arg, void *p, size_t n, struct err *e)
{
	struct holey *h = arg;

	(void)e;
	n = MIN(n, h->skipped ? 3u : 1003u - h->at);
	n = h->at >= 1003 ? 0 : n;
	memset(p, 0, n);
	if (n && h->at + n == 1003)
		memcpy((char *)p + n - 3, "end", 3);
	h->at += n;
	return (ssize_t)n;
}

static int64_t skip_holey(void *arg, struct err *e)
{
	struct holey *h = arg;
	int64_t n = h->at == 0 ? 1000 : 0;

	(void)e;
	h->at += (size_t)n;
	h->skipped = h->skipped || n;
	return n;
}

/* Holes go as holes to agents that say that they know them, as zeros to those of before. */
static void t_holes_are_sent_to_who_knows_them_double(void **state)
{
	struct test *t = *state;
	struct rec_file_write rec = {.sandbox = span_of("lab"), .path = span_of("f")};
	struct file_sum sums[2];

	t->plan.answers_ping = true;
	for (int knows = 0; knows < 2; knows++) {
		struct holey h = {0};
		struct file_source source = {.get = get_holey, .arg = &h, .hole = skip_holey};

		str_clear(&t->plan.stored);
		t->plan.features = (uint64_t)knows;
		assert_int_equal(file_store(t->c, &rec, &source, &sums[knows], &t->e), 0);
		assert_int_equal(sums[knows].bytes, 1003);
		assert_int_equal(t->plan.stored.len, 1003);
		assert_memory_equal(t->plan.stored.p + 998, "\0\0end", 5);
		assert_int_equal(t->plan.skipped, knows ? 1000 : 0);
	}
	assert_memory_equal(sums[0].sha256, sums[1].sha256, FILE_SHA256);
}

/* ---- trees ---- */

static int fetch_tree(struct test *t, const char *const *tree, struct tree_stats *stats, int root)
{
	t->plan.tree = tree;
	return tree_fetch(t->c, "lab", (struct span){0}, "/src", root, 0, NULL, stats, &t->e);
}

static void t_trees_keep_inside_their_target_double(void **state)
{
	static const char *const good[] = {"a",	     "directory", "",	  "a/f",    "file",  "",
					   "a/link", "symlink",	  "f",	  "a/evil", "symlink", "../../x",
					   "b",	     "fifo",	  "",	  NULL};
	static const char *const bad[][7] = {
		{"../x", "file", "", NULL},	  {"/etc/x", "file", "", NULL},
		{"a/../../x", "file", "", NULL},  {"..", "directory", "", NULL},
		{"", "file", "", NULL},		  {".", "directory", "", NULL},
		{"l", "symlink", "..", "l/x", "file", "", NULL},
		{"d", "symlink", "good", "d/x", "file", "", NULL},
	};
	struct test *t = *state;
	struct tree_stats stats;
	struct stat st;
	char dir[128], text[16];
	int outside, root;

	(void)snprintf(dir, sizeof(dir), "%s/target", t->d.dir);
	assert_int_equal(sys_mkdirs(dir, 0755), 0);
	outside = sys_open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(mkdirat(outside, "root", 0755), 0);
	root = sys_openat(outside, "root", O_RDONLY | O_DIRECTORY, 0);
	assert_int_equal(fetch_tree(t, good, &stats, root), 0);
	assert_int_equal(stats.files, 1);
	assert_int_equal(stats.directories, 1);
	assert_int_equal(stats.links, 1);
	assert_int_equal(stats.skipped, 2);
	assert_int_equal(stats.bytes, 5);
	assert_int_equal(sys_read_file(root, "a/f", text, sizeof(text)), 5);
	assert_string_equal(text, "hello");
	assert_int_equal(fstatat(root, "a/f", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (fetch_tree(t, bad[i], &stats, root) == 0 && stats.failed == 0)
			fail_msg("accepted: tree %zu", i);
	assert_int_equal(fstatat(outside, "x", &st, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(ask(t, METHOD_SANDBOX_INFO), 0);
	(void)sys_close(root);
	(void)sys_close(outside);
}

/* ---- starting the daemon ---- */

struct start {
	char dir[64], program[96];
	char *path;
};

static void script(const struct start *s, const char *text)
{
	assert_int_equal(sys_write_file(-1, s->program, text), 0);
	assert_int_equal(chmod(s->program, 0755), 0);
}

static int set_up_start(void **state)
{
	struct start *s = calloc(1, sizeof(*s));

	(void)t_before(state);
	assert(s);
	(void)snprintf(s->dir, sizeof(s->dir), "/tmp/hotcell-t-XXXXXX");
	assert(mkdtemp(s->dir));
	(void)snprintf(s->program, sizeof(s->program), "%s/hotcelld", s->dir);
	s->path = strdup(getenv("PATH"));
	assert_int_equal(setenv("PATH", s->dir, 1), 0);
	*state = s;
	return 0;
}

static int tear_down_start(void **state)
{
	struct start *s = *state;

	assert_int_equal(setenv("PATH", s->path, 1), 0);
	assert_int_equal(sys_remove_tree(-1, s->dir), 0);
	free(s->path);
	free(s);
	return t_after(state);
}

static int open_at(const struct start *s, uint64_t start_ms, struct conn **ret, struct err *e)
{
	struct conn_options o = {.run_dir = s->dir, .start_ms = start_ms};

	return conn_open(&o, ret, e);
}

static void t_missing_daemon_is_named(void **state)
{
	struct start *s = *state;
	struct conn_options o = {.run_dir = s->dir, .no_start = true};
	struct err e = ERR_INIT;
	struct conn *c;

	assert_int_equal(open_at(s, 0, &c, &e), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "hotcelld"));
	assert_int_equal(conn_open(&o, &c, &e), -ERR_UNAVAILABLE);
	o.run_dir = "relative";
	assert_int_equal(conn_open(&o, &c, &e), -ERR_INVALID);
}

static void t_last_words_are_passed_on(void **state)
{
	struct start *s = *state;
	struct err e = ERR_INIT;
	struct conn *c;

	script(s, "#!/bin/sh\necho old words; exit 1\n");
	assert_int_equal(open_at(s, 0, &c, &e), -ERR_UNAVAILABLE);
	script(s, "#!/bin/sh\necho starting; printf 'no \\033[2Jroom\\n' >&2; exit 1\n");
	assert_int_equal(open_at(s, 0, &c, &e), -ERR_UNAVAILABLE);
	if (!strstr(e.text, "its last words: starting | no \\x1b[2Jroom"))
		fail_msg("%s", e.text);
	assert_null(strstr(e.text, "old words"));
}

static void t_slow_daemon_meets_a_deadline(void **state)
{
	struct start *s = *state;
	struct err e = ERR_INIT;
	struct conn *c;
	char pid_file[128], pid[32];

	(void)snprintf(pid_file, sizeof(pid_file), "%s/pid", s->dir);
	script(s, "#!/bin/sh\necho $$ > \"${0%/*}/pid\"; echo thinking; read forever < \"${0%/*}/fifo\"\n");
	(void)snprintf(pid_file, sizeof(pid_file), "%s/fifo", s->dir);
	assert_int_equal(mkfifo(pid_file, 0600), 0);
	assert_int_equal(open_at(s, 2500, &c, &e), -ERR_TIMEOUT); /* time enough for the shell to say it */
	assert_non_null(strstr(e.text, "thinking"));
	(void)snprintf(pid_file, sizeof(pid_file), "%s/pid", s->dir);
	assert_true(sys_read_file(-1, pid_file, pid, sizeof(pid)) > 0);
	assert_int_equal(kill((pid_t)atoi(pid), SIGKILL), 0);
}

static int be_daemon(const char *dir)
{
	struct double_daemon d = {.request = answer, .arg = &(struct plan){.die = 0}};

	double_listen(&d, dir);
	if (write(3, "", 1) != 1)
		return 1;
	double_run(&d);
	return 0;
}

static void stop_daemon(struct conn *c)
{
	struct rec_empty nothing = {0};
	struct str bytes = STR_INIT(RECORD_MAX);

	(void)conn_call(c, METHOD_DAEMON_STOP, &nothing, &bytes, NULL, NULL);
	str_deinit(&bytes);
}

/* Eight at once find nothing there; one starts it, all are served by the same. */
static void t_one_of_many_starts_it_double(void **state)
{
	struct start *s = *state;
	char text[512], self[256], log[128], starts[64];
	pid_t kids[8];
	struct conn *c;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = '\0';
	(void)snprintf(text, sizeof(text),
		       "#!/bin/sh\necho start\nexec %s --as-daemon %s\n", self, s->dir);
	script(s, text);
	for (size_t i = 0; i < ARRAY_LEN(kids); i++) {
		kids[i] = fork();
		if (kids[i] == 0)
			_exit(open_at(s, 0, &c, NULL) == 0 ? 0 : 1);
	}
	for (size_t i = 0; i < ARRAY_LEN(kids); i++) {
		int status;

		assert_int_equal(waitpid(kids[i], &status, 0), kids[i]);
		assert_int_equal(status, 0);
	}
	assert_int_equal(open_at(s, 0, &c, NULL), 0);
	(void)snprintf(log, sizeof(log), "%s/hotcelld.log", s->dir);
	assert_true(sys_read_file(-1, log, starts, sizeof(starts)) > 0);
	assert_string_equal(starts, "start\n");
	stop_daemon(c);
	conn_close(c);
}

/* Every system call of the client fails once: an error, or another way, and nothing stays open. */
static void t_faults_are_errors(void **state)
{
	struct start *s = *state;
	char text[512], self[256];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_ref ref = {span_of("lab")};
	struct conn *c;
	unsigned failed = 0;

	assert_true(n > 0);
	self[n] = '\0';
	(void)snprintf(text, sizeof(text), "#!/bin/sh\nexec %s --as-daemon %s\n", self, s->dir);
	script(s, text);
	assert_int_equal(open_at(s, 0, &c, NULL), 0);
	conn_close(c);
	FOR_EACH_FAULT(nth, EIO) {
		struct err e = ERR_INIT;
		int r = open_at(s, 0, &c, &e);

		if (r == 0) {
			r = conn_call(c, METHOD_SANDBOX_INFO, &ref, &bytes, NULL, &e);
			conn_close(c);
		}
		if (r < 0) {
			failed++;
			assert_true(e.text[0]);
		}
	}
	assert_true(failed > 0);
	str_deinit(&bytes);
	assert_int_equal(open_at(s, 0, &c, NULL), 0);
	stop_daemon(c);
	conn_close(c);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(t_questions_survive_deaths_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_bad_requests_never_leave_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_lists_come_whole_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_calls_can_be_withdrawn_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_files_are_hashed_while_they_stream_double, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(t_files_survive_deaths_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_downloads_are_bounded_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_holes_are_sent_to_who_knows_them_double, set_up, tear_down),
		cmocka_unit_test_setup_teardown(t_trees_keep_inside_their_target_double, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(t_missing_daemon_is_named, set_up_start,
						tear_down_start),
		cmocka_unit_test_setup_teardown(t_last_words_are_passed_on, set_up_start,
						tear_down_start),
		cmocka_unit_test_setup_teardown(t_slow_daemon_meets_a_deadline, set_up_start,
						tear_down_start),
		cmocka_unit_test_setup_teardown(t_one_of_many_starts_it_double, set_up_start,
						tear_down_start),
		cmocka_unit_test_setup_teardown(t_faults_are_errors, set_up_start, tear_down_start),
	};

	if (argc > 2 && strcmp(argv[1], "--as-daemon") == 0)
		return be_daemon(argv[2]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
