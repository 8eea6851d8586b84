/*
 * keeper/client.c - the daemon's side: calls, the watch stream, the renewals
 *
 * A call fails at once or completes once, later (DRIVER-1): its stream's `closed` is the
 * completion. When the keeper is lost every call completes first, then `lost` comes.
 */
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/keeper.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum {
	HELLO_MS = 10000, /* a keeper that says nothing for this long is none */
	RENEW_MS = KEEPER_LEASE_MS / 3,
	ITEM_MAX = 4 + RECORD_MAX,
};

/* Items of a stream, which arrive in pieces. */
struct keeper_items {
	size_t n;
	char p[ITEM_MAX];
};

/* CONNECTING -> GREETING -> WATCHING -> UP; any -> LOST. Calls are legal in UP. */
enum keeper_state { KEEPER_CONNECTING, KEEPER_GREETING, KEEPER_WATCHING, KEEPER_UP, KEEPER_LOST };

struct keeper {
	struct loop *loop;
	struct keeper_events ev;
	enum keeper_state state;
	struct link *link;
	struct loop_timer renew, hello;
	struct loop_call tell_lost;
	struct err why;
	struct keeper_host host;
	struct keeper_items *watched;
	struct list watches; /* struct keeper_watch */
	struct list calls;   /* struct keeper_call */
};

/* ---- items ---- */

/* Call @each with every whole record; -ERR_* when the peer breaks the format. */
static int items_feed(struct keeper_items *it, struct span bytes, const struct rec_type *t, void *rec,
		      void (*each)(void *arg, const void *rec), void *arg, struct err *e)
{
	while (bytes.n) {
		size_t take = MIN(bytes.n, sizeof(it->p) - it->n), done = 0;
		int r;

		memcpy(it->p + it->n, bytes.p, take);
		it->n += take;
		bytes.p += take;
		bytes.n -= take;
		while ((r = rec_item_next(t, it->p + done, it->n - done, rec, e)) > 0) {
			done += (size_t)r;
			each(arg, rec);
		}
		if (r < 0)
			return r;
		memmove(it->p, it->p + done, it->n - done);
		it->n -= done;
	}
	return 0;
}

/* ---- losing the keeper ---- */

static void on_tell_lost(struct loop_call *c)
{
	struct keeper *k = CONTAINER_OF(c, struct keeper, tell_lost);

	if (k->ev.lost)
		k->ev.lost(k->ev.arg, &k->why);
}

static void lose(struct keeper *k, const struct err *why)
{
	if (k->state == KEEPER_LOST)
		return;
	k->state = KEEPER_LOST;
	k->why = *why;
	loop_timer_cancel(k->loop, &k->renew);
	loop_timer_cancel(k->loop, &k->hello);
	loop_defer(k->loop, &k->tell_lost, on_tell_lost);
}

static void on_down(struct link *link, const struct err *why)
{
	struct err e = *why;

	(void)err_wrap(&e, "the keeper is gone");
	lose(link_arg(link), &e);
}

static void on_hello_late(struct loop_timer *t)
{
	struct keeper *k = CONTAINER_OF(t, struct keeper, hello);
	struct err e;

	(void)err_set(&e, ERR_TIMEOUT, "the keeper did not answer within %d s", HELLO_MS / 1000);
	lose(k, &e);
}

/* ---- calls ---- */

static void finish(struct keeper_call *c, const struct err *why)
{
	list_del(&c->link);
	c->stream = NULL;
	free(take_ptr(&c->items));
	if (why)
		for (int i = 0; i < KEEPER_FDS; i++)
			c->fds[i] = sys_close(c->fds[i]);
	c->done(c, why);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct keeper_call *c = stream_arg(s);
	struct err e = why ? *why : (struct err)ERR_INIT;

	if (!why && (c->is_malformed || (c->items && c->items->n))) /* or it ends inside an item */
		(void)err_set(&e, ERR_INTERNAL, "the keeper's answer is malformed");
	else if (why && !link_is_up(stream_link(s))) /* nobody answered: the connection ended */
		(void)err_wrap(&e, "the keeper is gone, and every machine with it; the next command starts both again");
	finish(c, e.code ? &e : NULL);
}

static void keep_fds(struct keeper_call *c, const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (i < KEEPER_FDS)
			c->fds[i] = fds[i];
		else
			(void)sys_close(fds[i]);
}

static void on_started(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct keeper_call *c = stream_arg(s);
	struct rec_machine_started rec;

	keep_fds(c, fds, n_fds);
	if (n_fds <= KEEPER_PIDFD ||
	    rec_decode(&rec_machine_started_type, payload.p, payload.n, &rec, NULL) < 0) {
		c->is_malformed = true;
		return;
	}
	c->pid = (int)rec.pid;
	c->kvm = rec.kvm;
}

static void on_stats(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct keeper_call *c = stream_arg(s);
	struct rec_machine_stats rec;

	keep_fds(c, fds, n_fds);
	if (rec_decode(&rec_machine_stats_type, payload.p, payload.n, &rec, NULL) < 0) {
		c->is_malformed = true;
		return;
	}
	c->memory_bytes = rec.memory_bytes;
	c->memory_max_bytes = rec.memory_max_bytes;
	c->cpu_us = rec.cpu_us;
	c->pids = rec.pids;
	c->pids_max = rec.pids_max;
	c->oom_kills = rec.oom_kills;
}

static void on_copied(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct keeper_call *c = stream_arg(s);
	struct rec_machine_copied rec;

	keep_fds(c, fds, n_fds);
	if (n_fds != 1 || rec_decode(&rec_machine_copied_type, payload.p, payload.n, &rec, NULL) < 0) {
		c->is_malformed = true;
		return;
	}
	c->copied_bytes = rec.bytes;
	c->copy_us = rec.copy_us;
}

static const struct stream_ops started_ops = {.reply = on_started, .closed = on_closed};
static const struct stream_ops stats_ops = {.reply = on_stats, .closed = on_closed};
static const struct stream_ops copied_ops = {.reply = on_copied, .closed = on_closed};
static const struct stream_ops plain_ops = {.closed = on_closed};

static int call(struct keeper *k, unsigned method, const void *rec, const int *fds, unsigned n_fds,
		const struct stream_ops *ops, struct keeper_call *c, struct err *e)
{
	int r;

	c->stream = NULL;
	c->items = NULL;
	c->is_malformed = false;
	for (int i = 0; i < KEEPER_FDS; i++)
		c->fds[i] = -1;
	if (k->state != KEEPER_UP)
		return err_set(e, ERR_UNAVAILABLE, "the keeper is not connected");
	r = link_call(k->link, method, method_find(method)->request, rec, false, fds, n_fds, ops, c, &c->stream, e);
	if (r == 0)
		list_add_tail(&k->calls, &c->link);
	return r;
}

static int call_ref(struct keeper *k, unsigned method, const struct id *id, unsigned grace_ms,
		    const struct stream_ops *ops, struct keeper_call *c, struct err *e)
{
	const struct rec_machine_ref rec = {.id = *id, .grace_ms = grace_ms};

	return call(k, method, &rec, NULL, 0, ops, c, e);
}

int keeper_start(struct keeper *k, const struct rec_machine_start *rec, const int *fds,
		 unsigned n_fds, struct keeper_call *c, struct err *e)
{
	return call(k, METHOD_MACHINE_START, rec, fds, n_fds, &started_ops, c, e);
}

int keeper_adopt(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_ADOPT, id, 0, &started_ops, c, e);
}

int keeper_stop(struct keeper *k, const struct id *id, unsigned grace_ms, struct keeper_call *c,
		struct err *e)
{
	return call_ref(k, METHOD_MACHINE_STOP, id, grace_ms, &plain_ops, c, e);
}

int keeper_release(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_RELEASE, id, 0, &plain_ops, c, e);
}

int keeper_stats(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_STATS, id, 0, &stats_ops, c, e);
}

int keeper_save(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_SAVE, id, 0, &plain_ops, c, e);
}

int keeper_copy(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_COPY, id, 0, &plain_ops, c, e);
}

int keeper_take(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e)
{
	return call_ref(k, METHOD_MACHINE_TAKE, id, 0, &copied_ops, c, e);
}

/* ---- machine.list ---- */

static struct keeper_list_call *list_call_of(struct stream *s)
{
	struct keeper_call *c = stream_arg(s);

	return CONTAINER_OF(c, struct keeper_list_call, call);
}

static void on_listed(void *arg, const void *rec)
{
	struct keeper_list_call *c = arg;

	c->each(c, rec);
}

static void on_list_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct keeper_list_call *c = list_call_of(s);
	struct rec_machine_info rec;

	(void)offset;
	if (!c->call.is_malformed &&
	    items_feed(c->call.items, bytes, &rec_machine_info_type, &rec, on_listed, c, NULL) < 0)
		c->call.is_malformed = true;
	stream_consumed(s, bytes.n);
}

int keeper_list(struct keeper *k, struct keeper_list_call *c, struct err *e)
{
	static const struct stream_ops ops = {.data = on_list_data, .closed = on_closed};
	int r = call(k, METHOD_MACHINE_LIST, &(struct rec_empty){0}, NULL, 0, &ops, &c->call, e);

	if (r == 0)
		c->call.items = mem_new(sizeof(*c->call.items));
	return r;
}

/* ---- following ends ---- */

void keeper_watch(struct keeper *k, const struct id *id, struct keeper_watch *w)
{
	w->id = *id;
	list_add_tail(&k->watches, &w->link);
}

void keeper_unwatch(struct keeper_watch *w)
{
	if (w->link.next)
		list_del(&w->link);
}

/* Nothing after a callback may touch what it could have freed; so one watch at a time. */
static struct keeper_watch *find_watch(struct keeper *k, const struct id *id)
{
	LIST_FOR_EACH(l, &k->watches) {
		struct keeper_watch *w = LIST_ENTRY(l, struct keeper_watch, link);

		if (id_eq(&w->id, id))
			return w;
	}
	return NULL;
}

static void on_gone(void *arg, const void *rec)
{
	struct keeper *k = arg;
	const struct rec_machine_info *m = rec;
	struct keeper_watch *w;

	while ((w = find_watch(k, &m->id))) {
		list_del(&w->link);
		w->gone(w, m);
	}
	if (k->ev.gone)
		k->ev.gone(k->ev.arg, m);
}

static void on_watch_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct keeper *k = stream_arg(s);
	struct rec_machine_info rec;
	struct err e = ERR_INIT;
	int r;

	(void)offset;
	r = items_feed(k->watched, bytes, &rec_machine_info_type, &rec, on_gone, k, &e);
	stream_consumed(s, bytes.n);
	if (r < 0)
		lose(k, &e);
}

static void on_watch_closed(struct stream *s, const struct err *why)
{
	struct err e;

	(void)err_set(&e, ERR_GONE, "the keeper stopped telling what ends%s%s", why ? ": " : "",
		      why ? why->text : "");
	lose(stream_arg(s), &e);
}

/* ---- getting in step ---- */

static void on_renew(struct loop_timer *t);

static void renewed(struct keeper_call *c, const struct err *why)
{
	(void)why; /* a lost link says so itself */
	free(c);
}

static void renew(struct keeper *k)
{
	const struct rec_lease_renew rec = {.lease_ms = KEEPER_LEASE_MS};
	struct keeper_call *c = mem_new(sizeof(*c));

	c->done = renewed;
	if (call(k, METHOD_KEEPER_RENEW, &rec, NULL, 0, &plain_ops, c, NULL) < 0)
		free(c);
	loop_timer_set(k->loop, &k->renew, loop_now(k->loop) + RENEW_MS * NS_PER_MS, on_renew);
}

static void on_renew(struct loop_timer *t)
{
	renew(CONTAINER_OF(t, struct keeper, renew));
}

/* Watching: nothing that ends from here on is missed. */
static void on_watching(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct keeper *k = stream_arg(s);

	(void)payload;
	for (unsigned i = 0; i < n_fds; i++)
		(void)sys_close(fds[i]);
	k->state = KEEPER_UP;
	loop_timer_cancel(k->loop, &k->hello);
	renew(k); /* machines of the daemon before may be close to their end */
	if (k->ev.up)
		k->ev.up(k->ev.arg);
}

static bool strv_has(struct strv v, const char *word)
{
	for (const char *s = strv_first(v); s; s = strv_next(v, s))
		if (strcmp(s, word) == 0)
			return true;
	return false;
}

static void keep_host(struct keeper_host *h, const struct rec_keeper_info *rec)
{
	*h = (struct keeper_host){
		.pid = (int)rec->pid,
		.root = rec->root,
		.kvm = rec->kvm,
		.slots = (unsigned)rec->slots,
		.tsc_khz = rec->tsc_khz,
		.opens_trees = rec->opens_trees,
		.enforces_memory = strv_has(rec->enforced, "memory"),
		.enforces_cpu = strv_has(rec->enforced, "cpu"),
		.enforces_pids = strv_has(rec->enforced, "pids"),
		.enforces_disk = strv_has(rec->enforced, "disk"),
	};
	span_copy(rec->version, h->version, sizeof(h->version));
	span_copy(rec->kvm_reason, h->kvm_reason, sizeof(h->kvm_reason));
	span_copy(rec->qemu, h->qemu, sizeof(h->qemu));
	span_copy(rec->closure, h->closure, sizeof(h->closure));
	span_copy(rec->qemu_reason, h->qemu_reason, sizeof(h->qemu_reason));
	span_copy(rec->process_reason, h->process_reason, sizeof(h->process_reason));
}

static void on_hello(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	static const struct stream_ops watch_ops = {
		.reply = on_watching, .data = on_watch_data, .closed = on_watch_closed};
	struct keeper *k = stream_arg(s);
	struct rec_keeper_info rec;
	struct stream *watch;
	struct err e = ERR_INIT;
	int r;

	for (unsigned i = 0; i < n_fds; i++)
		(void)sys_close(fds[i]);
	r = rec_decode(&rec_keeper_info_type, payload.p, payload.n, &rec, &e);
	if (r == 0) {
		keep_host(&k->host, &rec);
		k->state = KEEPER_WATCHING;
		r = link_call(k->link, METHOD_MACHINE_WATCH, &rec_empty_type, &(struct rec_empty){0}, false,
			      NULL, 0, &watch_ops, k, &watch, &e);
	}
	if (r < 0)
		lose(k, &e);
}

static void on_hello_closed(struct stream *s, const struct err *why)
{
	if (why)
		lose(stream_arg(s), why);
}

static void on_up(struct link *link, uint64_t generation)
{
	static const struct stream_ops ops = {.reply = on_hello, .closed = on_hello_closed};
	const struct rec_keeper_hello rec = {.version = span_of(HOTCELL_VERSION)};
	struct keeper *k = link_arg(link);
	struct stream *s;
	struct err e = ERR_INIT;

	(void)generation;
	k->state = KEEPER_GREETING;
	if (link_call(link, METHOD_KEEPER_HELLO, &rec_keeper_hello_type, &rec, false, NULL, 0, &ops, k, &s, &e) < 0)
		lose(k, &e);
}

int keeper_new(struct loop *l, const char *socket_path, const struct keeper_events *ev,
	       struct keeper **ret, struct err *e)
{
	static const struct link_ops ops = {.up = on_up, .down = on_down};
	AUTO_CLOSE int fd = sys_unix_connect(socket_path);
	struct keeper *k;
	int r;

	if (fd < 0)
		return err_sys(e, fd, "connect to the keeper at %s", socket_path);
	k = mem_new(sizeof(*k));
	k->loop = l;
	k->ev = *ev;
	list_init(&k->watches);
	list_init(&k->calls);
	k->watched = mem_new(sizeof(*k->watched));
	r = link_new(l, take_fd(&fd), LINK_INITIATOR | LINK_FDS | LINK_SOCKET, sys_now_ns(), &ops, k, &k->link, e);
	if (r < 0) {
		k->link = NULL;
		(void)keeper_free(k);
		return r;
	}
	loop_timer_set(l, &k->hello, loop_now(l) + HELLO_MS * NS_PER_MS, on_hello_late);
	*ret = k;
	return 0;
}

static void cancel_calls(struct keeper *k)
{
	struct err e;

	(void)err_set(&e, ERR_CANCELED, "the connection to the keeper was closed");
	while (!list_empty(&k->calls)) {
		struct keeper_call *c = LIST_ENTRY(k->calls.next, struct keeper_call, link);

		stream_reset(c->stream);
		finish(c, &e);
	}
}

struct keeper *keeper_free(struct keeper *k)
{
	if (!k)
		return NULL;
	loop_timer_cancel(k->loop, &k->renew);
	loop_timer_cancel(k->loop, &k->hello);
	loop_call_cancel(k->loop, &k->tell_lost);
	k->state = KEEPER_LOST;
	cancel_calls(k);
	while (!list_empty(&k->watches))
		list_del(k->watches.next);
	k->link = link_free(k->link);
	free(k->watched);
	free(k);
	return NULL;
}

const struct keeper_host *keeper_host(const struct keeper *k)
{
	return &k->host;
}
