/*
 * client/t_echo.h - a double (t_double.h) whose sandboxes run a handful of programs, for tests
 *
 *	cat, or any argv	its input, then exit 0
 *	fail			"out" and "err", exit 7
 *	die			signal 9
 *	late			killed by its timeout
 *	much			1000 bytes, exit 0
 *	binary			bytes that are no text, exit 0
 *	hang			"ready", and nothing more until it is sent a signal, which ends it
 *	wait			nothing
 *	nobody			refused
 *	missing, locked		refused as the agent does: not found, not executable
 */
#pragma once
#include <stdlib.h>
#include "base/str.h"
#include "client/t_double.h"
#include "wire/bytes.h"

enum { ECHO_ITEMS = 3 };

struct echo {
	struct double_daemon *d;
	struct stream *stream;
	struct str in, out;
	size_t at;
	bool echoes, ended, is_late;
	char argv[64], env[64], cwd[64], on_detach[16], on_slow[16];
	uint64_t timeout_ms;
	unsigned removed, calls, held;
	struct rec_sandbox_create create;
	char name[64], isolation[16], metadata[64], snapshot[64], sandbox[64];
	struct rec_sandbox_fork fork;
	struct rec_snapshot_create keep;
	struct rec_template_build build;
	struct rec_pool_set pool;
	struct rec_exec_attach attach;
	struct rec_file_ref watch;
};

static inline void echo_chunk(struct echo *x, unsigned tag, const void *p, size_t n)
{
	unsigned char head[4];

	put_u32(head, (uint32_t)(n << 8 | tag));
	str_add_mem(&x->out, head, 4);
	str_add_mem(&x->out, p, n);
}

static inline void echo_exit_chunk(struct echo *x, int64_t code, uint64_t signal)
{
	struct rec_exec_exit e = {.code = signal ? -1 : code,
				  .signal = signal,
				  .reason = span_of(x->is_late ? "timeout" : signal ? "signaled" : "exited"),
				  .wall_ms = 5,
				  .cpu_ms = 4};
	struct str rec = STR_INIT(4096);

	assert(rec_encode(&rec_exec_exit_type, &e, &rec, NULL) == 0);
	echo_chunk(x, 4, rec.p, rec.len);
	str_deinit(&rec);
	x->ended = true;
}

static inline void echo_pump(struct echo *x)
{
	while (x->stream && x->at < x->out.len) {
		size_t sent = stream_send(x->stream, x->out.p + x->at, x->out.len - x->at);

		x->at += sent;
		if (!sent)
			return;
	}
	if (x->stream && x->ended)
		stream_end(x->stream);
}

static inline void echo_on_writable(struct stream *s)
{
	echo_pump(stream_arg(s));
}

static inline void echo_on_input(struct stream *s, uint64_t offset, struct span bytes)
{
	struct echo *x = stream_arg(s);

	(void)offset;
	str_add_mem(&x->in, bytes.p, bytes.n);
	if (x->echoes)
		echo_chunk(x, 1, bytes.p, bytes.n);
	stream_consumed(s, bytes.n);
	echo_pump(x);
}

static inline void echo_on_input_end(struct stream *s, uint64_t offset)
{
	struct echo *x = stream_arg(s);

	(void)offset;
	if (x->echoes)
		echo_exit_chunk(x, 0, 0);
	echo_pump(x);
}

static inline void echo_on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	((struct echo *)stream_arg(s))->stream = NULL;
}

static const struct stream_ops echo_ops = {
	.data = echo_on_input, .writable = echo_on_writable, .end = echo_on_input_end, .closed = echo_on_closed};

static inline void echo_begin(struct echo *x, struct span command)
{
	x->is_late = span_is(command, "late");
	x->echoes = span_is(command, "cat") || command.n == 0;
	if (span_is(command, "fail")) {
		echo_chunk(x, 1, "out", 3);
		echo_chunk(x, 2, "err", 3);
		echo_exit_chunk(x, 7, 0);
	} else if (span_is(command, "die")) {
		echo_exit_chunk(x, 0, 9);
	} else if (span_is(command, "much")) {
		for (int i = 0; i < 100; i++)
			echo_chunk(x, 1, "0123456789", 10);
		echo_exit_chunk(x, 0, 0);
	} else if (span_is(command, "binary")) {
		echo_chunk(x, 1, "\xff\x00\xfe", 3);
		echo_exit_chunk(x, 0, 0);
	} else if (span_is(command, "late")) {
		echo_exit_chunk(x, 0, 9);
	} else if (span_is(command, "hang")) {
		echo_chunk(x, 1, "ready", 5);
	}
}

static inline void echo_copy_list(struct strv v, char *ret, size_t size)
{
	struct str s = STR_INIT(4096);

	for (const char *t = strv_first(v); t; t = strv_next(v, t))
		str_addf(&s, "%s;", t);
	(void)snprintf(ret, size, "%s", str_text(&s));
	str_deinit(&s);
}

static inline void echo_start_program(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_exec_started reply = {.session = 1, .pid = 2};
	struct rec_exec_start rec;

	assert(rec_decode(&rec_exec_start_type, payload.p, payload.n, &rec, NULL) == 0);
	str_clear(&x->in);
	str_clear(&x->out);
	x->at = 0;
	x->ended = false;
	x->timeout_ms = rec.timeout_ms;
	echo_copy_list(rec.argv, x->argv, sizeof(x->argv));
	echo_copy_list(rec.env, x->env, sizeof(x->env));
	span_copy(rec.cwd, x->cwd, sizeof(x->cwd));
	span_copy(rec.on_detach, x->on_detach, sizeof(x->on_detach));
	span_copy(rec.on_slow, x->on_slow, sizeof(x->on_slow));
	if (span_is(rec.command, "nobody")) {
		double_fail(s, ERR_NOT_FOUND, "no user 'nobody'");
		return;
	}
	if (strcmp(x->argv, "missing;") == 0) {
		double_fail(s, ERR_NOT_FOUND, "program 'missing' not found in PATH");
		return;
	}
	if (strcmp(x->argv, "locked;") == 0) {
		double_fail(s, ERR_DENIED, "can't execute 'locked': Permission denied");
		return;
	}
	x->stream = s;
	stream_accept(s, &echo_ops, x);
	assert(stream_reply(s, &rec_exec_started_type, &reply, true, NULL, 0, NULL) == 0);
	echo_begin(x, rec.command);
	echo_pump(x);
}

static const struct stream_ops echo_none = {0};

static inline void echo_reply_state(struct stream *s, const char *name, unsigned number, const char *state)
{
	struct rec_sandbox_info info = {.name = span_of(name),
					.state = span_of(state),
					.wall = span_of("process"),
					.template = span_of("base"),
					.vcpus = 2,
					.memory_mb = 512,
					.created_ms = 1234};

	info.id.b[15] = (unsigned char)number;
	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_sandbox_info_type, &info, false, NULL, 0, NULL) == 0);
}

static inline void echo_reply_sandbox(struct stream *s, const char *name, unsigned number)
{
	echo_reply_state(s, name, number, "running");
}

static inline void echo_reply_snapshot(struct stream *s, struct span name, const char *kind)
{
	struct rec_snapshot_info info = {.id = {{0xa1}}, .name = name, .kind = span_of(kind), .pause_us = 17};

	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_snapshot_info_type, &info, false, NULL, 0, NULL) == 0);
}

/* A request that names a sandbox; what it said is looked at by the test. */
static inline void echo_rollback(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_sandbox_rollback rec;

	assert(rec_decode(&rec_sandbox_rollback_type, payload.p, payload.n, &rec, NULL) == 0);
	span_copy(rec.sandbox, x->sandbox, sizeof(x->sandbox));
	span_copy(rec.snapshot, x->snapshot, sizeof(x->snapshot));
	echo_reply_sandbox(s, "back", 1);
}

static inline void echo_keep(struct echo *x, struct stream *s, struct span payload)
{
	assert(rec_decode(&rec_snapshot_create_type, payload.p, payload.n, &x->keep, NULL) == 0);
	span_copy(x->keep.sandbox, x->sandbox, sizeof(x->sandbox));
	echo_reply_snapshot(s, x->keep.name, "snapshot");
}

static inline void echo_refer(struct echo *x, struct stream *s, struct span payload, bool removes)
{
	struct rec_snapshot_ref rec;
	struct rec_empty nothing = {0};

	assert(rec_decode(&rec_snapshot_ref_type, payload.p, payload.n, &rec, NULL) == 0);
	span_copy(rec.snapshot, x->snapshot, sizeof(x->snapshot));
	if (span_is(rec.snapshot, "nobody")) {
		double_fail(s, ERR_NOT_FOUND, "there is no snapshot nobody");
	} else if (!removes) {
		echo_reply_snapshot(s, rec.snapshot, "snapshot");
	} else {
		x->removed++;
		stream_accept(s, &echo_none, NULL);
		assert(stream_reply(s, &rec_empty_type, &nothing, false, NULL, 0, NULL) == 0);
	}
}

static inline void echo_build(struct echo *x, struct stream *s, struct span payload)
{
	assert(rec_decode(&rec_template_build_type, payload.p, payload.n, &x->build, NULL) == 0);
	span_copy(x->build.template, x->name, sizeof(x->name));
	echo_reply_snapshot(s, (struct span){0}, "template");
}

static inline void echo_pool(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_pool_info info = {.ready = 1, .isolation = span_of("vm"), .hits = 2, .shell_hits = 3, .misses = 4};

	assert(rec_decode(&rec_pool_set_type, payload.p, payload.n, &x->pool, NULL) == 0);
	span_copy(x->pool.template, x->name, sizeof(x->name));
	span_copy(x->pool.isolation, x->isolation, sizeof(x->isolation));
	echo_copy_list(x->pool.unenforced, x->metadata, sizeof(x->metadata));
	if (span_is(x->pool.template, "nobody")) {
		double_fail(s, ERR_NOT_FOUND, "there is no template nobody");
		return;
	}
	info.template = x->pool.template;
	info.size = x->pool.size;
	info.prestarted = x->pool.prestarted;
	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_pool_info_type, &info, false, NULL, 0, NULL) == 0);
}

static inline void echo_create_sandbox(struct echo *x, struct stream *s, struct span payload)
{
	assert(rec_decode(&rec_sandbox_create_type, payload.p, payload.n, &x->create, NULL) == 0);
	span_copy(x->create.name, x->name, sizeof(x->name));
	span_copy(x->create.snapshot, x->snapshot, sizeof(x->snapshot));
	span_copy(x->create.isolation, x->isolation, sizeof(x->isolation));
	echo_copy_list(x->create.metadata, x->metadata, sizeof(x->metadata));
	echo_reply_sandbox(s, x->name, 1);
}

static inline void echo_send_items(struct stream *s, const struct rec_type *t, const void *items, size_t size)
{
	struct rec_empty nothing = {0};

	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_empty_type, &nothing, true, NULL, 0, NULL) == 0);
	for (size_t i = 0; i < ECHO_ITEMS; i++)
		assert(stream_send_item(s, t, (const char *)items + i * size));
	stream_end(s);
}

/* A session that has ended already. */
static inline void echo_follow(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_exec_started reply = {.session = 1, .pid = 2};

	assert(rec_decode(&rec_exec_attach_type, payload.p, payload.n, &x->attach, NULL) == 0);
	span_copy(x->attach.on_slow, x->on_slow, sizeof(x->on_slow));
	str_clear(&x->out);
	x->at = 0;
	x->stream = s;
	stream_accept(s, &echo_ops, x);
	assert(stream_reply(s, &rec_exec_started_type, &reply, true, NULL, 0, NULL) == 0);
	echo_exit_chunk(x, 5, 0);
	echo_pump(x);
}

/* Three changes, and then nothing more happens. */
static inline void echo_changes(struct echo *x, struct stream *s, struct span payload)
{
	static const struct rec_file_event changes[ECHO_ITEMS] = {
		{{"create", 6}, {"a", 1}}, {{"write", 5}, {"a", 1}}, {{"overflow", 8}, {"", 0}}};
	struct rec_empty nothing = {0};

	assert(rec_decode(&rec_file_ref_type, payload.p, payload.n, &x->watch, NULL) == 0);
	span_copy(x->watch.path, x->name, sizeof(x->name));
	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_empty_type, &nothing, true, NULL, 0, NULL) == 0);
	for (size_t i = 0; i < ECHO_ITEMS; i++)
		assert(stream_send_item(s, &rec_file_event_type, &changes[i]));
}

static inline void echo_take_signal(struct echo *x, struct stream *s, struct span payload)
{
	struct rec_exec_signal rec;
	struct rec_empty nothing = {0};

	assert(rec_decode(&rec_exec_signal_type, payload.p, payload.n, &rec, NULL) == 0);
	stream_accept(s, &echo_none, NULL);
	assert(stream_reply(s, &rec_empty_type, &nothing, false, NULL, 0, NULL) == 0);
	echo_exit_chunk(x, 0, rec.signal);
	echo_pump(x);
}

static inline void echo_answer(struct double_daemon *d, struct stream *s, unsigned method, struct span payload)
{
	static const struct rec_sandbox_info boxes[ECHO_ITEMS] = {
		{.id = {{1}}}, {.id = {{2}}, .state = {"paused", 6}}, {.id = {{3}}}};
	static const struct rec_file_info files[ECHO_ITEMS] = {
		{.path = {"a", 1}, .kind = {"file", 4}, .size = 5},
		{.path = {"b", 1}, .kind = {"directory", 9}, .size = 4096},
		{.path = {"c", 1}, .kind = {"symlink", 7}, .size = 1}};
	static const struct rec_snapshot_info sets[ECHO_ITEMS] = {
		{.id = {{1}}, .name = {"before", 6}, .kind = {"snapshot", 8}, .template = {"base", 4}},
		{.id = {{2}}, .kind = {"template", 8}, .template = {"base", 4}, .image = {"0123456789abcdef", 16},
		 .vcpus = 1, .memory_mb = 512, .disk_mb = 2048, .hot = true},
		{.id = {{3}}, .kind = {"template", 8}, .template = {"python", 6}}};
	static const struct rec_pool_info pools[ECHO_ITEMS] = {
		{.template = {"base", 4}, .isolation = {"vm", 2}, .size = 3, .ready = 3},
		{.template = {"python", 6}, .isolation = {"vm", 2}, .size = 2, .reason = {"no room", 7}},
		{.template = {"base", 4}, .isolation = {"process", 7}, .prestarted = 2}};
	struct echo *x = d->arg;

	x->calls++;
	switch (method) {
	case METHOD_EXEC_START: echo_start_program(x, s, payload); return;
	case METHOD_EXEC_SIGNAL: echo_take_signal(x, s, payload); return;
	case METHOD_SANDBOX_HOLD:
		x->held++;
		stream_accept(s, &echo_none, NULL);
		return;
	case METHOD_SANDBOX_CREATE: echo_create_sandbox(x, s, payload); return;
	case METHOD_SANDBOX_INFO:
		if (memmem(payload.p, payload.n, "nobody", 6))
			double_fail(s, ERR_NOT_FOUND, "there is no sandbox nobody");
		else
			echo_reply_sandbox(s, "lab", 1);
		return;
	case METHOD_SANDBOX_REMOVE:
		x->removed++;
		echo_reply_sandbox(s, "", 1);
		return;
	case METHOD_SANDBOX_FORK:
		assert(rec_decode(&rec_sandbox_fork_type, payload.p, payload.n, &x->fork, NULL) == 0);
		span_copy(x->fork.name, x->name, sizeof(x->name));
		echo_send_items(s, &rec_sandbox_info_type, boxes, sizeof(boxes[0]));
		return;
	case METHOD_SANDBOX_PAUSE: echo_reply_state(s, "lab", 1, "paused"); return;
	case METHOD_SANDBOX_RESUME: echo_reply_sandbox(s, "lab", 1); return;
	case METHOD_SANDBOX_ROLLBACK: echo_rollback(x, s, payload); return;
	case METHOD_SNAPSHOT_CREATE: echo_keep(x, s, payload); return;
	case METHOD_SNAPSHOT_INFO: echo_refer(x, s, payload, false); return;
	case METHOD_SNAPSHOT_REMOVE: echo_refer(x, s, payload, true); return;
	case METHOD_SNAPSHOT_LIST: echo_send_items(s, &rec_snapshot_info_type, sets, sizeof(sets[0])); return;
	case METHOD_TEMPLATE_BUILD: echo_build(x, s, payload); return;
	case METHOD_POOL_SET: echo_pool(x, s, payload); return;
	case METHOD_POOL_LIST: echo_send_items(s, &rec_pool_info_type, pools, sizeof(pools[0])); return;
	case METHOD_SANDBOX_LIST:
		echo_send_items(s, &rec_sandbox_info_type, boxes, sizeof(boxes[0]));
		return;
	case METHOD_EXEC_ATTACH: echo_follow(x, s, payload); return;
	case METHOD_FILE_WATCH: echo_changes(x, s, payload); return;
	case METHOD_FILE_LIST: echo_send_items(s, &rec_file_info_type, files, sizeof(files[0])); return;
	default: double_fail(s, ERR_UNSUPPORTED, "not played"); return;
	}
}
