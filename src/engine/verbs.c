/* engine/verbs.c - the methods the daemon answers itself */
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/forks.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "engine/serve.h"
#include "engine/waiter.h"
#include "loop/link.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

static void call_init(struct call *call, struct client *c, struct stream *s)
{
	call->client = c;
	call->stream = s;
	list_add_tail(&c->calls, &call->link);
}

static void call_free(struct call *call)
{
	list_del(&call->link);
	free(call);
}

static struct sandbox *find(struct client *c, struct stream *s, const struct rec_sandbox_ref *rec)
{
	struct sandbox *sb = sandbox_find(c->engine, c->who.tenant, rec->sandbox);
	struct err e = ERR_INIT;

	if (sb)
		return sb;
	err_set(&e, ERR_NOT_FOUND, "there is no sandbox %.*s", (int)rec->sandbox.n, rec->sandbox.p);
	stream_fail(s, &e);
	return NULL;
}

/* ---- sandbox.create, remove, hold ---- */

static void run_create(struct client *c, struct stream *s, const void *rec)
{
	struct sandbox *sb;
	struct err e = ERR_INIT;

	sb = pool_take(c->engine, &c->who, rec);
	if (sb || sandbox_create(c->engine, &c->who, rec, &sb, &e) == 0) {
		sandbox_wait(sb, s, WAIT_READY);
		return;
	}
	engine_emit_for(c->engine, c->who.tenant, "info", EVENT_CREATE_DENIED, "%s", e.text);
	stream_fail(s, &e);
}

static void run_remove(struct client *c, struct stream *s, const void *rec)
{
	struct sandbox *sb = find(c, s, rec);
	struct err why = ERR_INIT;

	if (!sb)
		return;
	err_set(&why, ERR_GONE, "removed by %s", c->who.owner);
	sandbox_wait(sb, s, WAIT_GONE);
	sandbox_remove(sb, &why);
}

static void run_hold(struct client *c, struct stream *s, const void *rec)
{
	struct sandbox *sb = find(c, s, rec);

	if (sb)
		sandbox_wait(sb, s, WAIT_HOLD);
}

/* ---- sandbox.info: what the machine uses comes from its driver ---- */

struct info_call {
	struct call call; /* first: serve.c frees it */
	struct sandbox *sandbox;
	struct driver_usage_req usage;
};

static void info_closed(struct stream *s, const struct err *why)
{
	struct info_call *i = stream_arg(s);

	(void)why;
	i->call.stream = NULL; /* freed when the driver has answered */
}

static void info_use(struct rec_sandbox_info *info, const struct machine_usage *u)
{
	info->memory_used_mb = u->memory_bytes / MIB;
	info->cpu_ms = u->cpu_us / 1000;
}

static void reply_info(struct stream *s, const struct sandbox *sb, const struct machine_usage *u)
{
	struct rec_sandbox_info info;

	sandbox_info(sb, &info);
	info_use(&info, u);
	(void)stream_reply(s, &rec_sandbox_info_type, &info, false, NULL, 0, NULL);
}

static void info_usage(struct driver_req *r, const struct err *why)
{
	struct info_call *i = CONTAINER_OF(r, struct info_call, usage.req);
	struct stream *s = i->call.stream;

	if (why) /* it may be ending: say the rest */
		i->usage.usage = (struct machine_usage){0};
	if (s) {
		static const struct stream_ops deaf = {0};

		stream_accept(s, &deaf, NULL);
		reply_info(s, i->sandbox, &i->usage.usage);
	}
	call_free(&i->call);
}

static void run_info(struct client *c, struct stream *s, const void *rec)
{
	static const struct stream_ops ops = {.closed = info_closed};
	static const struct stream_ops deaf = {0};
	struct sandbox *sb = find(c, s, rec);
	struct machine_usage none = {0};
	struct info_call *i;

	if (!sb)
		return;
	if (sb->state == SANDBOX_RUNNING && sb->machine && sb->driver->usage) {
		i = mem_new(sizeof(*i));
		i->sandbox = sb;
		i->usage.req.done = info_usage;
		i->call.is_lent = true;
		if (sb->driver->usage(sb->machine, &i->usage, NULL) == 0) {
			call_init(&i->call, c, s);
			stream_accept(s, &ops, i);
			return;
		}
		free(i);
	}
	stream_accept(s, &deaf, NULL);
	reply_info(s, sb, &none);
}

/* ---- sandbox.list: each running machine's use is asked for, one after the other, then all is sent ---- */

struct list_call {
	struct call call; /* first: serve.c frees it */
	struct sandbox *asked;
	uint64_t after; /* the serial of the last one that was asked for */
	struct driver_usage_req usage;
};

static bool is_listed(const struct client *c, const struct sandbox *sb)
{
	return !sb->is_spare && policy_may_use(&c->who, sb->tenant);
}

static bool send_sandboxes(struct client *c, struct stream *s, uint64_t *after)
{
	LIST_FOR_EACH(pos, &c->engine->sandboxes) {
		const struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, all);
		struct rec_sandbox_info info;

		if (sb->serial <= *after || !is_listed(c, sb))
			continue;
		sandbox_info(sb, &info);
		if (sb->state == SANDBOX_RUNNING)
			info_use(&info, &sb->used);
		if (!stream_send_item(s, &rec_sandbox_info_type, &info))
			return false;
		*after = sb->serial;
	}
	return true;
}

/* Ask for the next one. false: that was all. */
static bool list_ask(struct list_call *l)
{
	struct client *c = l->call.client;

	LIST_FOR_EACH(pos, &c->engine->sandboxes) {
		struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, all);

		if (sb->serial <= l->after || !is_listed(c, sb) || sb->state != SANDBOX_RUNNING || !sb->machine ||
		    !sb->driver->usage)
			continue;
		l->after = sb->serial;
		l->asked = sb;
		if (sb->driver->usage(sb->machine, &l->usage, NULL) == 0)
			return true;
	}
	return false;
}

static void list_usage(struct driver_req *r, const struct err *why)
{
	struct list_call *l = CONTAINER_OF(r, struct list_call, usage.req);
	struct client *c = l->call.client;
	struct stream *s = l->call.stream;

	if (!why) /* otherwise it may be ending: what was known of it stands */
		l->asked->used = l->usage.usage;
	if (s && list_ask(l))
		return;
	call_free(&l->call);
	if (s)
		serve_items(c, s, send_sandboxes);
}

static void list_closed(struct stream *s, const struct err *why)
{
	struct list_call *l = stream_arg(s);

	(void)why;
	l->call.stream = NULL; /* freed when the driver has answered */
}

static void run_list(struct client *c, struct stream *s, const void *rec)
{
	static const struct stream_ops ops = {.closed = list_closed};
	struct list_call *l = mem_new(sizeof(*l));

	(void)rec;
	*l = (struct list_call){.call = {.is_lent = true, .client = c}, .usage.req.done = list_usage};
	if (!list_ask(l)) {
		free(l);
		serve_items(c, s, send_sandboxes);
		return;
	}
	call_init(&l->call, c, s);
	stream_accept(s, &ops, l);
}

/* ---- daemon.info, daemon.stop ---- */

static void run_daemon_info(struct client *c, struct stream *s, const void *rec)
{
	static const struct stream_ops deaf = {0};
	const struct engine *g = c->engine;
	const struct keeper_host *h = g->keeper ? keeper_host(g->keeper) : NULL;
	struct rec_daemon_info info = {
		.version = span_of(g->config->version),
		.pid = (uint64_t)g->config->pid,
		.keeper_pid = h ? (uint64_t)h->pid : 0,
		.mode = span_of(h && h->root ? "root" : "user"),
		.sandboxes = g->usage.sandboxes,
		.memory_budget_mb = g->limits.memory_budget_mb,
		.memory_promised_mb = g->usage.memory_promised_mb,
		.uptime_ms = (loop_now(g->loop) - g->started_ns) / NS_PER_MS,
		.adopted = g->adopted,
	};

	(void)rec;
	stream_accept(s, &deaf, NULL);
	(void)stream_reply(s, &rec_daemon_info_type, &info, false, NULL, 0, NULL);
}

static void run_daemon_stop(struct client *c, struct stream *s, const void *rec)
{
	static const struct stream_ops deaf = {0};

	(void)rec;
	stream_accept(s, &deaf, NULL);
	(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0, NULL);
	engine_end(c->engine, NULL);
}

/* ---- event.watch ---- */

static void run_event_watch(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_event_watch *w = rec;
	struct sandbox *sb = NULL;
	struct err e = ERR_INIT;
	char text[ID_TEXT];
	struct id id;

	if (w->sandbox.n)
		sb = sandbox_find(c->engine, c->who.tenant, w->sandbox);
	if (sb)
		id = sb->id;
	else if (w->sandbox.n && id_parse(w->sandbox.p, w->sandbox.n, &id) < 0)
		err_set(&e, ERR_NOT_FOUND, "there is no sandbox %.*s", (int)w->sandbox.n,
			w->sandbox.p);
	if (e.code) {
		stream_fail(s, &e);
		return;
	}
	if (w->sandbox.n) /* one that is gone has left its events, under its id */
		id_format(&id, text);
	events_watch(c->engine->events, s, c->who.tenant, w->sandbox.n ? text : NULL, w->after);
}

const struct verb serve_verbs[] = {
	{METHOD_SANDBOX_CREATE, run_create},
	{METHOD_SANDBOX_LIST, run_list},
	{METHOD_SANDBOX_INFO, run_info},
	{METHOD_SANDBOX_REMOVE, run_remove},
	{METHOD_SANDBOX_HOLD, run_hold},
	{METHOD_SANDBOX_FORK, run_fork},
	{METHOD_SANDBOX_PAUSE, run_pause},
	{METHOD_SANDBOX_RESUME, run_resume},
	{METHOD_SANDBOX_ROLLBACK, run_rollback},
	{METHOD_SNAPSHOT_CREATE, run_snapshot_create},
	{METHOD_SNAPSHOT_LIST, run_snapshot_list},
	{METHOD_SNAPSHOT_INFO, run_snapshot_info},
	{METHOD_SNAPSHOT_REMOVE, run_snapshot_remove},
	{METHOD_TEMPLATE_BUILD, run_template_build},
	{METHOD_POOL_LIST, run_pool_list},
	{METHOD_POOL_SET, run_pool_set},
	{METHOD_DAEMON_INFO, run_daemon_info},
	{METHOD_DAEMON_STOP, run_daemon_stop},
	{METHOD_EVENT_WATCH, run_event_watch},
	{0, NULL},
};
