/* engine/serve.c - connections of clients, and what is passed on to guests */
#include "engine/serve.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/health.h"
#include "engine/relay.h"
#include "engine/sandbox.h"
#include "loop/link.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { RECORD_STRUCT_MAX = 1024 }; /* bytes of the largest decoded request */

/* ---- methods of the guest ---- */

static struct span *sandbox_field(const struct rec_type *t, void *rec)
{
	for (size_t i = 0; i < t->n_fields; i++)
		if (strcmp(t->fields[i].name, "sandbox") == 0)
			return (void *)((char *)rec + t->fields[i].offset);
	return NULL;
}

/* Whatever lets a client start something in the guest asks first. */
static int check_policy(struct client *c, struct sandbox *sb, unsigned method, const void *rec,
			struct err *e)
{
	int r = 0;

	if (method == METHOD_EXEC_START)
		r = policy_exec(&c->who, sb->tenant, sb->owner, rec, e);
	else if (method == METHOD_CODE_RUN || method == METHOD_CODE_OPEN || method == METHOD_CODE_RESTART)
		r = policy_code(&c->who, sb->tenant, sb->owner, e);
	if (r < 0)
		engine_emit(c->engine, "info", EVENT_EXEC_DENIED, sb, NULL, "%s", e->text);
	return r;
}

static void guest_replied(void *arg, const struct method_info *m, const void *rec)
{
	struct sandbox *sb = arg;
	const struct rec_exec_started *x = rec;

	if (m->number == METHOD_EXEC_START)
		engine_emit(sb->engine, "info", EVENT_EXEC_STARTED, sb, NULL, "session %llu, pid %llu",
			    (unsigned long long)x->session, (unsigned long long)x->pid);
}

static void guest_broke(void *arg, const struct err *why)
{
	struct sandbox *sb = arg;

	engine_emit(sb->engine, "warn", EVENT_LINK_BROKEN, sb, NULL, "%s", why->text);
	sandbox_break(sb, why);
}

static void guest_call_over(void *arg)
{
	sandbox_touch(arg);
}

static void guest_late(void *arg, struct err *ret)
{
	struct sandbox *sb = arg;

	err_set(ret, ERR_TIMEOUT, "sandbox %s did not end the program at its time limit, nor within %d s after it; "
		"hotcell info %s says whether the sandbox still answers", sandbox_called(sb), ENGINE_LATE_MS / 1000,
		sandbox_called(sb));
	engine_emit(sb->engine, "warn", EVENT_EXEC_LATE, sb, NULL, "%s", ret->text);
}

static uint64_t guest_still_ns(void *arg)
{
	return health_still_ns(arg);
}

/* The guest keeps the time limit itself; this one is for a guest that does not. 0: none was asked for. */
static uint64_t limit_ms(unsigned method, const void *rec)
{
	uint64_t ms = 0;

	if (method == METHOD_EXEC_START)
		ms = ((const struct rec_exec_start *)rec)->timeout_ms;
	else if (method == METHOD_CODE_RUN)
		ms = ((const struct rec_code_run *)rec)->timeout_ms;
	return ms ? ms + ENGINE_LATE_MS : 0;
}

void serve_guest(struct client *c, struct stream *s, const struct method_info *m, void *rec)
{
	struct span *name = sandbox_field(m->request, rec);
	struct sandbox *sb = name ? sandbox_find(c->engine, c->who.tenant, *name) : NULL;
	struct relay_events ev = {.replied = guest_replied,
				  .broken = guest_broke,
				  .over = guest_call_over,
				  .late = guest_late,
				  .still_ns = guest_still_ns,
				  .arg = sb,
				  .limit_ms = limit_ms(m->number, rec)};
	struct err e = ERR_INIT;

	if (!sb)
		err_set(&e, ERR_NOT_FOUND, "there is no sandbox %.*s", name ? (int)name->n : 0,
			name && name->n ? name->p : "");
	else if (sandbox_check_running(sb, &e) == 0)
		(void)check_policy(c, sb, m->number, rec, &e);
	if (e.code) {
		stream_fail(s, &e);
		return;
	}
	*name = span_of(sb->id_text); /* whatever it was called, the guest knows its id */
	sandbox_touch(sb);
	relay_start(sb->link, m, rec, s, &ev, &sb->relays);
	health_watch(sb);
}

/* ---- lists ---- */

struct items {
	struct call call; /* first: freed with its client */
	bool (*send)(struct client *c, struct stream *s, uint64_t *after);
	uint64_t after;
};

static void items_pump(struct items *i)
{
	if (i->send(i->call.client, i->call.stream, &i->after))
		stream_end(i->call.stream);
}

static void items_writable(struct stream *s)
{
	items_pump(stream_arg(s));
}

static void items_closed(struct stream *s, const struct err *why)
{
	struct items *i = stream_arg(s);

	(void)why;
	list_del(&i->call.link);
	free(i);
}

void serve_items(struct client *c, struct stream *s,
		 bool (*send)(struct client *c, struct stream *s, uint64_t *after))
{
	static const struct stream_ops ops = {.writable = items_writable, .closed = items_closed};
	struct items *i = mem_new(sizeof(*i));

	*i = (struct items){.call = {.client = c, .stream = s}, .send = send};
	list_add_tail(&c->calls, &i->call.link);
	stream_accept(s, &ops, i);
	(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, NULL);
	items_pump(i);
}

/* ---- requests ---- */

static const struct verb *find_verb(unsigned method)
{
	for (const struct verb *v = serve_verbs; v->method; v++)
		if (v->method == method)
			return v;
	return NULL;
}

/* Here, and nowhere else, every method passes, whoever answers it. */
static int ask_policy(struct client *c, const struct method_info *m, struct err *e)
{
	const struct engine_config *config = c->engine->config;
	int r = config->allows ? config->allows(&c->who, m->number, e) : policy_method(&c->who, m->number, e);

	if (r < 0)
		engine_emit_for(c->engine, c->who.tenant, "info", EVENT_CALL_DENIED, "%s, asked for by %s: %s", m->name,
				c->who.owner, e->text);
	return r;
}

static void answer(struct client *c, struct stream *s, const struct method_info *m,
		   struct span payload, struct err *e)
{
	_Alignas(16) char rec[RECORD_STRUCT_MAX];
	const struct verb *v = find_verb(m->number);

	if (m->request->size > sizeof(rec))
		err_set(e, ERR_INTERNAL, "%s is too large", m->request->name);
	else if (rec_decode(m->request, payload.p, payload.n, rec, e) < 0)
		return;
	else if (v)
		v->run(c, s, rec);
	else
		serve_guest(c, s, m, rec);
}

static bool is_ours(const struct method_info *m)
{
	return m && m->to & METHOD_TO_DAEMON && (find_verb(m->number) || m->to & METHOD_TO_GUEST);
}

/* One that came when all places were taken has one as soon as others leave. */
static bool is_too_many(struct client *c)
{
	if (c->engine->n_clients <= ENGINE_CLIENTS_MAX)
		c->is_spare = false;
	return c->is_spare;
}

static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload,
		       const int *fds, unsigned n_fds)
{
	static const struct stream_ops deaf = {0};
	struct client *c = link_arg(k);
	const struct method_info *m = method_find(method);
	struct err e = ERR_INIT;

	(void)fds; /* clients' links carry no descriptors */
	(void)n_fds;
	if (c->engine->state == ENGINE_OVER) { /* its link ends with us; then it asks the next daemon */
		stream_accept(s, &deaf, NULL);
		return;
	}
	if (c->is_stranger)
		err_set(&e, ERR_DENIED, "this daemon does not serve user %u", c->uid);
	else if (is_too_many(c))
		err_set(&e, ERR_LIMIT, "the daemon has %d connections, its limit (ENGINE_CLIENTS_MAX); end one and try "
			"again", ENGINE_CLIENTS_MAX);
	else if (c->engine->state != ENGINE_SERVING)
		err_set(&e, ERR_UNAVAILABLE, "the daemon is starting");
	else if (!is_ours(m))
		err_set(&e, ERR_UNSUPPORTED, "the daemon has no method %u", method);
	else if (ask_policy(c, m, &e) == 0)
		answer(c, s, m, payload, &e);
	if (e.code)
		stream_fail(s, &e);
}

/* ---- connections ---- */

static void drop_client(struct client *c)
{
	list_del(&c->silent);
	while (!list_empty(&c->calls)) {
		struct call *call = LIST_ENTRY(c->calls.next, struct call, link);

		list_del(&call->link);
		call->stream = NULL;
		if (!call->is_lent)
			free(call);
	}
	link_free(c->conn);
	list_del(&c->link);
	c->engine->n_clients--;
	free(c);
}

static void on_down(struct link *k, const struct err *why)
{
	(void)why; /* that clients come and go is no news */
	drop_client(link_arg(k));
}

/* It has found the frames' boundary: a client, who may be as idle as it likes. */
static void on_up(struct link *k, uint64_t generation)
{
	struct client *c = link_arg(k);

	(void)generation;
	list_del(&c->silent);
}

/* Places are few, and whoever only holds one shuts out the others of its uid. */
static void on_silent(struct loop_timer *t)
{
	struct engine *g = CONTAINER_OF(t, struct engine, silent_timer);

	while (!list_empty(&g->silent)) {
		struct client *c = LIST_ENTRY(g->silent.next, struct client, silent);
		uint64_t until = c->silent_ns + ENGINE_SILENT_MS * NS_PER_MS;

		if (until > loop_now(g->loop)) {
			loop_timer_set(g->loop, t, until, on_silent);
			return;
		}
		drop_client(c);
	}
}

static void await_words(struct client *c)
{
	struct engine *g = c->engine;

	c->silent_ns = loop_now(g->loop);
	if (list_empty(&g->silent))
		loop_timer_set(g->loop, &g->silent_timer, c->silent_ns + ENGINE_SILENT_MS * NS_PER_MS, on_silent);
	list_add_tail(&g->silent, &c->silent);
}

static bool is_served(const struct engine *g, unsigned uid)
{
	for (unsigned i = 0; i < g->config->n_uids; i++)
		if (g->config->uids[i] == uid)
			return true;
	return false;
}

int engine_serve(struct engine *g, int fd, unsigned uid, struct err *e)
{
	static const struct link_ops ops = {.up = on_up, .request = on_request, .down = on_down};
	struct client *c;
	int r;

	if (g->n_clients >= ENGINE_CLIENTS_MAX + ENGINE_CLIENTS_SPARE) {
		g->host->close_fd(g->host->arg, fd);
		return err_set(e, ERR_LIMIT, "more than %d connections", ENGINE_CLIENTS_MAX);
	}
	c = mem_new(sizeof(*c));
	*c = (struct client){.engine = g, .uid = uid, .is_stranger = !is_served(g, uid)};
	c->is_spare = g->n_clients >= ENGINE_CLIENTS_MAX;
	(void)snprintf(c->owner, sizeof(c->owner), "uid:%u", uid);
	c->who = (struct policy_principal){ENGINE_TENANT, c->owner};
	list_init(&c->calls);
	r = link_new(g->loop, fd, LINK_SOCKET, 0, &ops, c, &c->conn, e);
	if (r < 0) {
		free(c);
		return r;
	}
	list_add_tail(&g->clients, &c->link);
	g->n_clients++;
	await_words(c);
	return 0;
}

void serve_drop_all(struct engine *g)
{
	loop_timer_cancel(g->loop, &g->silent_timer);
	while (!list_empty(&g->clients))
		drop_client(LIST_ENTRY(g->clients.next, struct client, link));
}
