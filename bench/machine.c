/* machine.c - see machine.h */
#include "machine.h"

#include <stdio.h>
#include <string.h>

#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/conn.h"
#include "client/exec.h"
#include "client/file.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

static const char *const template_name = "base";

static struct rec_sandbox_create wanted(const char *wall, uint64_t memory_mb)
{
	return (struct rec_sandbox_create){
		.template = span_of(template_name),
		.isolation = span_of(wall),
		.memory_mb = memory_mb,
		.lifetime_ms = 10 * 60 * 1000, /* if this program is killed */
	};
}

static void join(struct strv v, char *ret, size_t size)
{
	size_t at = 0;

	ret[0] = '\0';
	for (const char *s = strv_first(v); s && at < size; s = strv_next(v, s))
		at += (size_t)snprintf(ret + at, size - at, "%s%s", at ? " " : "", s);
}

int machine_create(struct conn *c, const char *wall, uint64_t memory_mb, struct machine *ret,
		   struct err *e)
{
	const struct rec_sandbox_create req = wanted(wall, memory_mb);
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	int r;

	ret->start_ns = sys_now_ns();
	r = conn_call(c, METHOD_SANDBOX_CREATE, &req, &bytes, &info, e);
	ret->ready_ns = sys_now_ns();
	if (r == 0) {
		id_format(&info.id, ret->id);
		span_copy(info.wall, ret->wall, sizeof(ret->wall));
		join(info.stages, ret->stages, sizeof(ret->stages));
		ret->pid = info.pid;
	}
	str_deinit(&bytes);
	return r;
}

int machine_remove(struct conn *c, const char *id, struct err *e)
{
	const struct rec_sandbox_ref req = { .sandbox = span_of(id) };
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(c, METHOD_SANDBOX_REMOVE, &req, &bytes, NULL, e);

	str_deinit(&bytes);
	return r;
}

int machine_ping(struct conn *c, const char *id, uint64_t *ret_ns, struct err *e)
{
	const struct rec_sandbox_ref req = { .sandbox = span_of(id) };
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_guest_health health;
	uint64_t start_ns = sys_now_ns();
	int r = conn_call(c, METHOD_GUEST_PING, &req, &bytes, &health, e);

	*ret_ns = sys_now_ns() - start_ns;
	str_deinit(&bytes);
	return r;
}

/* ---- a program ---- */

struct follow {
	struct conn_op op;
	struct exec *x;
	struct machine_run run;
	struct err err;
	bool failed;
	void (*over)(struct follow *f); /* NULL: op is what somebody waits for */
	void *arg;
};

static void follow_readable(struct exec *x)
{
	struct follow *f = exec_arg(x);
	enum exec_stream which;
	size_t n;

	while (exec_peek(x, &which, &n) != NULL) {
		if (f->run.first_ns == 0)
			f->run.first_ns = sys_now_ns();
		f->run.bytes += n;
		exec_take(x, n);
	}
}

static void follow_ended(struct exec *x, const struct err *why)
{
	struct follow *f = exec_arg(x);

	f->run.end_ns = sys_now_ns();
	if (why) {
		f->failed = true;
		err_copy(&f->err, why);
	} else {
		f->run.code = exec_exit(x)->code;
	}
	f->op.done = true;
	if (f->over)
		f->over(f);
}

static const struct exec_ops follow_ops = { .readable = follow_readable, .ended = follow_ended };

static void follow_cancel(struct conn_op *op)
{
	struct follow *f = CONTAINER_OF(op, struct follow, op);

	f->failed = true;
	err_set(&f->err, ERR_CANCELED, "canceled");
	op->done = true;
}

static int follow_start(struct follow *f, struct conn *c, const char *id, char *const argv[],
			struct err *e)
{
	struct str list = STR_INIT(LIMIT_ARGV_BYTES);
	struct rec_exec_start req = { .sandbox = span_of(id) };
	int r;

	for (size_t i = 0; argv[i]; i++)
		strv_add(&list, argv[i]);
	req.argv = strv_of(&list);
	f->run = (struct machine_run){ .start_ns = sys_now_ns() };
	r = exec_start(c, &req, &follow_ops, f, &f->x, e);
	str_deinit(&list);
	return r;
}

int machine_exec(struct conn *c, const char *id, char *const argv[], struct machine_run *ret,
		 struct err *e)
{
	struct follow f = { .op.cancel = follow_cancel };
	int r = follow_start(&f, c, id, argv, e);

	if (r == 0)
		r = conn_run(c, &f.op, e);
	f.x = exec_close(f.x);
	if (r == 0 && f.failed)
		r = err_copy(e, &f.err);
	*ret = f.run;
	return r;
}

/* ---- a file ---- */

enum { BLOCK = 1 << 20 };

/* Bytes that don't repeat within a block, so that nothing on the way can leave them out. */
struct pattern {
	uint64_t left;
	unsigned char *block;
};

static unsigned char *pattern_block(uint64_t seed)
{
	unsigned char *block = mem_new(BLOCK);

	for (size_t i = 0; i < BLOCK; i += sizeof(seed)) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		memcpy(block + i, &seed, sizeof(seed));
	}
	return block;
}

static ssize_t pattern_get(void *arg, void *p, size_t n, struct err *e)
{
	struct pattern *t = arg;
	size_t at = t->left % BLOCK;
	size_t take = MIN(n, t->left);

	(void)e;
	take = MIN(take, BLOCK - at);
	memcpy(p, t->block + at, take);
	t->left -= take;
	return (ssize_t)take;
}

static int drop(void *arg, const void *p, size_t n, struct err *e)
{
	(void)arg;
	(void)p;
	(void)n;
	(void)e;
	return 0;
}

int machine_put(struct conn *c, const char *id, const char *path, uint64_t bytes,
		unsigned char sha256[32], uint64_t *ret_ns, struct err *e)
{
	const struct rec_file_write req = { .sandbox = span_of(id), .path = span_of(path) };
	AUTO_FREE unsigned char *block = pattern_block(bytes);
	struct pattern pattern = { .left = bytes, .block = block };
	const struct file_source from = { .get = pattern_get, .arg = &pattern };
	struct file_sum sum;
	uint64_t start_ns = sys_now_ns();
	int r = file_store(c, &req, &from, &sum, e);

	*ret_ns = sys_now_ns() - start_ns;
	if (r == 0)
		memcpy(sha256, sum.sha256, 32);
	return r;
}

int machine_get(struct conn *c, const char *id, const char *path, const unsigned char sha256[32],
		uint64_t *ret_ns, struct err *e)
{
	const struct rec_file_read req = { .sandbox = span_of(id), .path = span_of(path) };
	const struct file_sink to = { .put = drop };
	struct file_sum sum;
	uint64_t start_ns = sys_now_ns();
	int r = file_fetch(c, &req, &to, &sum, e);

	*ret_ns = sys_now_ns() - start_ns;
	if (r == 0 && memcmp(sum.sha256, sha256, 32) != 0)
		r = err_set(e, ERR_INTERNAL, "%s came back changed", path);
	return r;
}

/* ---- many at once ---- */

struct crowd;

struct member {
	struct crowd *crowd;
	struct stream *create;
	struct follow follow;
	struct machine_burst *ret;
	bool exists;
};

struct crowd {
	struct conn_op op;
	struct conn *c;
	char *const *argv;
	uint64_t start_ns;
	size_t left;
	struct err err; /* the first failure */
};

static void crowd_fail(struct crowd *w, const struct err *why)
{
	if (w->err.code == 0)
		err_copy(&w->err, why);
	w->op.done = true;
}

static void crowd_cancel(struct conn_op *op)
{
	const struct err why = { .code = ERR_CANCELED, .text = "canceled" };

	crowd_fail(CONTAINER_OF(op, struct crowd, op), &why);
}

static void member_spoke(struct follow *f)
{
	struct member *m = f->arg;

	if (f->failed || f->run.first_ns == 0) {
		const struct err silent = { .code = ERR_INTERNAL,
					    .text = "the program said nothing" };
		crowd_fail(m->crowd, f->failed ? &f->err : &silent);
		return;
	}
	m->ret->first_ns = f->run.first_ns - m->crowd->start_ns;
	if (--m->crowd->left == 0)
		m->crowd->op.done = true;
}

static void member_ready(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct member *m = stream_arg(s);
	struct rec_sandbox_info info;
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds;
	if (rec_decode(&rec_sandbox_info_type, payload.p, payload.n, &info, &e) == 0) {
		m->ret->ready_ns = sys_now_ns() - m->crowd->start_ns;
		id_format(&info.id, m->ret->id);
		m->exists = true;
		m->follow.over = member_spoke;
		m->follow.arg = m;
		follow_start(&m->follow, m->crowd->c, m->ret->id, m->crowd->argv, &e);
	}
	if (e.code)
		crowd_fail(m->crowd, &e);
}

static void member_closed(struct stream *s, const struct err *why)
{
	struct member *m = stream_arg(s);

	m->create = NULL;
	if (why)
		crowd_fail(m->crowd, why);
}

static const struct stream_ops member_ops = { .reply = member_ready, .closed = member_closed };

static int crowd_run(struct crowd *w, struct member *m, size_t n,
		     const struct rec_sandbox_create *req, struct err *e)
{
	int r = 0;

	w->start_ns = sys_now_ns();
	for (size_t i = 0; i < n && r == 0; i++)
		r = link_call(conn_link(w->c), METHOD_SANDBOX_CREATE, &rec_sandbox_create_type, req,
			      false, NULL, 0, &member_ops, &m[i], &m[i].create, e);
	if (r == 0)
		r = conn_run(w->c, &w->op, e);
	if (r == 0 && w->err.code)
		r = err_copy(e, &w->err);
	return r;
}

int machine_burst(struct conn *c, const char *wall, uint64_t memory_mb, char *const argv[],
		  struct machine_burst *ret, size_t n, struct err *e)
{
	const struct rec_sandbox_create req = wanted(wall, memory_mb);
	struct crowd w = { .op.cancel = crowd_cancel, .c = c, .argv = argv, .left = n };
	AUTO_FREE struct member *m = mem_new(n * sizeof(*m));
	struct err ignored = ERR_INIT;
	int r = conn_ready(c, e);

	for (size_t i = 0; i < n; i++)
		m[i] = (struct member){ .crowd = &w, .ret = &ret[i] };
	if (r == 0)
		r = crowd_run(&w, m, n, &req, e);
	for (size_t i = 0; i < n; i++) {
		m[i].follow.x = exec_close(m[i].follow.x);
		if (m[i].create)
			stream_reset(m[i].create);
	}
	for (size_t i = 0; i < n; i++) {
		if (m[i].exists)
			machine_remove(c, m[i].ret->id, &ignored);
	}
	return r;
}
