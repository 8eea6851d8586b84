/* keeper/server.c - the methods of the keeper */
#include "keeper/server.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "keeper/keeper.h"
#include "keeper/klog.h"
#include "keeper/machines.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/cgroup.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { ENFORCED_MAX = 256 };

struct server {
	struct loop *loop;
	struct machines *ms;
	struct loop_io accept_io;
	int listen_fd;
	uid_t daemon;
	struct server_info info;
	struct link *link;	/* the daemon; NULL: none now */
	struct loop_call drop;	/* free the link, from outside its callbacks */
	struct loop_timer linger; /* while there is no daemon */
	struct stream *watcher; /* machine.watch */
	bool *untold;		/* per slot: an end the watcher has not heard of */
	struct list waits, listings;
};

/* ---- answers that come later ---- */

/* A call whose stream waits for a machine. The stream may go first; then nobody is told. */
struct wait {
	struct machine_call call;
	struct list link; /* in the server's waits */
	struct stream *stream;
};

static void wait_closed(struct stream *s, const struct err *why)
{
	struct wait *w = stream_arg(s);

	(void)why;
	w->stream = NULL;
}

static const struct stream_ops wait_ops = {.closed = wait_closed};
static const struct stream_ops plain_ops;

static struct wait *wait_new(struct server *v, struct stream *s)
{
	struct wait *w = mem_new(sizeof(*w));

	list_add_tail(&v->waits, &w->link);
	list_init(&w->call.link);
	w->stream = s;
	stream_accept(s, &wait_ops, w);
	return w;
}

static void wait_free(struct wait *w)
{
	if (w->stream)
		stream_accept(w->stream, &plain_ops, NULL); /* it may outlive us */
	list_del(&w->link);
	machine_call_forget(&w->call);
	free(w);
}

static void reply(struct stream *s, const struct rec_type *t, const void *rec, const int *fds,
		  unsigned n_fds)
{
	struct err e = ERR_INIT;

	if (stream_reply(s, t, rec, false, fds, n_fds, &e) < 0)
		stream_fail(s, &e);
}

static void reply_empty(struct stream *s)
{
	reply(s, &rec_empty_type, &(struct rec_empty){0}, NULL, 0);
}

/* ---- methods ---- */

struct request {
	struct server *server;
	struct stream *stream;
	const void *rec;
	const int *fds; /* lent; closed after the handler */
	unsigned n_fds;
};

static struct slot *find(const struct request *q, bool running, struct err *e)
{
	const struct rec_machine_ref *ref = q->rec;
	struct slot *s = machines_find(q->server->ms, &ref->id);

	if (!s) {
		(void)err_set(e, ERR_NOT_FOUND, "the keeper has no machine of this id");
		return NULL;
	}
	if (running && !slot_runs(s)) {
		(void)err_set(e, slot_is_gone(s) ? ERR_GONE : ERR_CONFLICT, "the machine does not run");
		return NULL;
	}
	return s;
}

static int do_hello(struct request *q, struct err *e)
{
	static const struct {
		const char *name;
		unsigned limit;
	} names[] = {{"memory", CGROUP_MEMORY}, {"cpu", CGROUP_CPU}, {"pids", CGROUP_PIDS}};
	const struct server_info *i = &q->server->info;
	struct str enforced = STR_INIT(ENFORCED_MAX);
	struct rec_keeper_info rec = {
		.version = span_of(HOTCELL_VERSION),
		.pid = (uint64_t)getpid(),
		.root = i->root,
		.slots = machines_slots(q->server->ms),
		.kvm = i->kvm,
		.kvm_reason = span_of(i->kvm_reason),
		.tsc_khz = i->tsc_khz,
		.qemu = span_of(i->qemu),
		.qemu_reason = span_of(i->qemu_reason),
		.process_reason = span_of(i->process_reason),
		.closure = span_of(i->closure),
		.opens_trees = true,
	};

	(void)e;
	for (size_t n = 0; n < ARRAY_LEN(names); n++)
		if (i->limits & names[n].limit)
			strv_add(&enforced, names[n].name);
	strv_add(&enforced, "disk"); /* an image has a size, a process sandbox a tmpfs */
	rec.enforced = strv_of(&enforced);
	stream_accept(q->stream, &plain_ops, NULL);
	reply(q->stream, &rec_keeper_info_type, &rec, NULL, 0);
	str_deinit(&enforced);
	return 0;
}

static int do_renew(struct request *q, struct err *e)
{
	const struct rec_lease_renew *rec = q->rec;

	(void)e;
	machines_renew(q->server->ms, rec->lease_ms);
	stream_accept(q->stream, &plain_ops, NULL);
	reply_empty(q->stream);
	return 0;
}

static void send_started(struct stream *st, struct slot *s)
{
	struct rec_machine_info i;
	char reason[SLOT_REASON_MAX];
	int fds[MACHINE_FDS];

	slot_info(s, &i, reason);
	slot_fds(s, fds);
	reply(st, &rec_machine_started_type,
	      &(struct rec_machine_started){.id = i.id, .slot = i.slot, .pid = i.pid, .kind = i.kind, .kvm = i.kvm},
	      fds, fds[KEEPER_MONITOR] < 0 ? MACHINE_FDS - 1 : MACHINE_FDS);
}

static void started(struct machine_call *c, struct slot *s, const struct err *why)
{
	struct wait *w = CONTAINER_OF(c, struct wait, call);

	if (w->stream && why)
		stream_fail(w->stream, why);
	else if (w->stream)
		send_started(w->stream, s);
	wait_free(w);
}

static int do_start(struct request *q, struct err *e)
{
	struct wait *w = wait_new(q->server, q->stream);
	int r;

	w->call.done = started;
	r = machines_start(q->server->ms, q->rec, q->fds, q->n_fds, &w->call, e);
	if (r < 0)
		wait_free(w);
	return r;
}

static int do_adopt(struct request *q, struct err *e)
{
	struct slot *s = find(q, true, e);

	if (!s)
		return -e->code;
	stream_accept(q->stream, &plain_ops, NULL);
	send_started(q->stream, s);
	return 0;
}

static int do_stop(struct request *q, struct err *e)
{
	const struct rec_machine_ref *ref = q->rec;
	struct slot *s = find(q, true, e);

	if (!s)
		return -e->code;
	slot_stop(s, (unsigned)ref->grace_ms);
	stream_accept(q->stream, &plain_ops, NULL);
	reply_empty(q->stream);
	return 0;
}

static void released(struct machine_call *c, struct slot *s, const struct err *why)
{
	struct wait *w = CONTAINER_OF(c, struct wait, call);

	(void)s;
	(void)why; /* a release can't fail, only take its time */
	if (w->stream)
		reply_empty(w->stream);
	wait_free(w);
}

static int do_release(struct request *q, struct err *e)
{
	const struct rec_machine_ref *ref = q->rec;
	struct slot *s = machines_find(q->server->ms, &ref->id);
	struct wait *w;

	(void)e;
	if (!s) { /* never had or released before: what was asked for is so */
		stream_accept(q->stream, &plain_ops, NULL);
		reply_empty(q->stream);
		return 0;
	}
	w = wait_new(q->server, q->stream);
	w->call.done = released;
	slot_release(s, &w->call);
	return 0;
}

static int do_stats(struct request *q, struct err *e)
{
	struct slot *s = find(q, true, e);
	struct rec_machine_stats rec;

	if (!s)
		return -e->code;
	slot_stats(s, &rec);
	stream_accept(q->stream, &plain_ops, NULL);
	reply(q->stream, &rec_machine_stats_type, &rec, NULL, 0);
	return 0;
}

static void saved_or_copied(struct machine_call *c, struct slot *s, const struct err *why)
{
	struct wait *w = CONTAINER_OF(c, struct wait, call);

	(void)s;
	if (w->stream && why)
		stream_fail(w->stream, why);
	else if (w->stream)
		reply_empty(w->stream);
	wait_free(w);
}

static void given(struct machine_call *c, struct slot *s, const struct err *why)
{
	struct wait *w = CONTAINER_OF(c, struct wait, call);
	struct slot_copied got = {.fd = -1};

	if (!why)
		got = slot_copied(s);
	if (w->stream && why)
		stream_fail(w->stream, why);
	else if (w->stream)
		reply(w->stream, &rec_machine_copied_type,
		      &(struct rec_machine_copied){.bytes = got.bytes, .copy_us = got.us}, &got.fd, 1);
	wait_free(w);
	if (!why)
		slot_copied_drop(s);
}

static int wait_for(struct request *q, int (*begin)(struct slot *s, struct machine_call *c, struct err *e),
		    void (*done)(struct machine_call *c, struct slot *s, const struct err *why), struct err *e)
{
	struct slot *s = find(q, true, e);
	struct wait *w;
	int r;

	if (!s)
		return -e->code;
	w = wait_new(q->server, q->stream);
	w->call.done = done;
	r = begin(s, &w->call, e);
	if (r < 0)
		wait_free(w);
	return r;
}

static int do_save(struct request *q, struct err *e)
{
	return wait_for(q, slot_save, saved_or_copied, e);
}

static int do_copy(struct request *q, struct err *e)
{
	return wait_for(q, slot_copy, saved_or_copied, e);
}

static int do_take(struct request *q, struct err *e)
{
	return wait_for(q, slot_take, given, e);
}

static bool send_slot(struct stream *st, const struct slot *s)
{
	struct rec_machine_info rec;
	char reason[SLOT_REASON_MAX];

	slot_info(s, &rec, reason);
	return stream_send_item(st, &rec_machine_info_type, &rec);
}

/* ---- machine.list: as much as there is credit for, the rest when there is more ---- */

struct listing {
	struct list link; /* in the server's listings */
	struct server *server;
	unsigned next;
};

static void listing_free(struct listing *l)
{
	list_del(&l->link);
	free(l);
}

static void list_more(struct stream *st)
{
	struct listing *l = stream_arg(st);
	struct machines *ms = l->server->ms;

	for (; l->next < machines_slots(ms); l->next++) {
		struct slot *s = machines_slot(ms, l->next);

		if (slot_has_machine(s) && !send_slot(st, s))
			return;
	}
	stream_end(st);
}

static void list_closed(struct stream *st, const struct err *why)
{
	(void)why;
	listing_free(stream_arg(st));
}

static int reply_and_follow(struct stream *st, struct err *e)
{
	return stream_reply(st, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, e);
}

static int do_list(struct request *q, struct err *e)
{
	static const struct stream_ops ops = {.writable = list_more, .closed = list_closed};
	struct listing *l = mem_new(sizeof(*l));
	int r;

	l->server = q->server;
	list_add_tail(&l->server->listings, &l->link);
	stream_accept(q->stream, &ops, l);
	r = reply_and_follow(q->stream, e);
	if (r < 0) {
		listing_free(l);
		return r;
	}
	list_more(q->stream);
	return 0;
}

/* ---- machine.watch ---- */

static void tell_ends(struct server *v)
{
	for (unsigned i = 0; i < machines_slots(v->ms) && v->watcher; i++) {
		struct slot *s = machines_slot(v->ms, i);

		if (!v->untold[i])
			continue;
		if (slot_is_gone(s) && !send_slot(v->watcher, s))
			return; /* goes on when there is credit */
		v->untold[i] = false;
	}
}

static void watch_more(struct stream *st)
{
	tell_ends(stream_arg(st));
}

static void watch_closed(struct stream *st, const struct err *why)
{
	struct server *v = stream_arg(st);

	(void)why;
	if (v->watcher == st)
		v->watcher = NULL;
}

static int do_watch(struct request *q, struct err *e)
{
	static const struct stream_ops ops = {.writable = watch_more, .closed = watch_closed};
	struct server *v = q->server;
	int r;

	stream_accept(q->stream, &ops, v);
	r = reply_and_follow(q->stream, e);
	if (r < 0)
		return r;
	v->watcher = q->stream;
	for (unsigned i = 0; i < machines_slots(v->ms); i++)
		v->untold[i] = true; /* what ended while nobody watched */
	tell_ends(v);
	return 0;
}

void server_machine_gone(struct server *v, struct slot *s)
{
	struct rec_machine_info i;
	char reason[SLOT_REASON_MAX];

	slot_info(s, &i, reason);
	v->untold[i.slot] = true;
	if (v->watcher)
		tell_ends(v);
}

/* ---- the link ---- */

static const struct {
	unsigned method;
	int (*handle)(struct request *q, struct err *e);
} handlers[] = {
	{METHOD_KEEPER_HELLO, do_hello},   {METHOD_KEEPER_RENEW, do_renew},
	{METHOD_MACHINE_START, do_start},  {METHOD_MACHINE_LIST, do_list},
	{METHOD_MACHINE_ADOPT, do_adopt},  {METHOD_MACHINE_STOP, do_stop},
	{METHOD_MACHINE_RELEASE, do_release}, {METHOD_MACHINE_STATS, do_stats},
	{METHOD_MACHINE_WATCH, do_watch},   {METHOD_MACHINE_SAVE, do_save},
	{METHOD_MACHINE_COPY, do_copy},	    {METHOD_MACHINE_TAKE, do_take},
};

/* Every request record of the keeper fits. */
union any_request {
	struct rec_empty empty;
	struct rec_keeper_hello hello;
	struct rec_lease_renew renew;
	struct rec_machine_start start;
	struct rec_machine_ref ref;
};

static int dispatch(struct request *q, unsigned method, struct span payload, struct err *e)
{
	const struct method_info *info = method_find(method);
	union any_request rec;
	int r;

	for (size_t i = 0; i < ARRAY_LEN(handlers); i++) {
		if (handlers[i].method != method)
			continue;
		r = rec_decode(info->request, payload.p, payload.n, &rec, e);
		if (r < 0)
			return r;
		q->rec = &rec;
		return handlers[i].handle(q, e);
	}
	return err_set(e, ERR_UNSUPPORTED, "the keeper has no method %u", method);
}

static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload,
		       const int *fds, unsigned n_fds)
{
	struct request q = {.server = link_arg(k), .stream = s, .fds = fds, .n_fds = n_fds};
	struct err e = ERR_INIT;

	if (dispatch(&q, method, payload, &e) < 0)
		stream_fail(s, &e);
	for (unsigned i = 0; i < n_fds; i++)
		(void)sys_close(fds[i]);
}

static bool has_machines(const struct server *v)
{
	for (unsigned i = 0; v->ms && i < machines_slots(v->ms); i++)
		if (slot_has_machine(machines_slot(v->ms, i)))
			return true;
	return false;
}

static void linger(struct server *v, uint64_t ms);

/* Machines nobody comes for end by their leases, and are cleaned up a lease later. */
static void on_linger(struct loop_timer *t)
{
	struct server *v = CONTAINER_OF(t, struct server, linger);

	if (has_machines(v))
		linger(v, v->info.linger_ms);
	else
		v->info.unused(v->info.arg);
}

static void linger(struct server *v, uint64_t ms)
{
	if (v->info.unused)
		loop_timer_set(v->loop, &v->linger, loop_now(v->loop) + ms * NS_PER_MS, on_linger);
}

static void drop_link(struct loop_call *c)
{
	struct server *v = CONTAINER_OF(c, struct server, drop);

	v->link = link_free(v->link);
	linger(v, v->info.linger_ms);
}

static void on_down(struct link *k, const struct err *why)
{
	struct server *v = link_arg(k);
	struct str text = STR_INIT(ERR_TEXT_MAX * 4);

	str_add_escaped(&text, why->text, strlen(why->text));
	klog("event=daemon-gone why=\"%s\"", str_text(&text));
	str_deinit(&text);
	loop_defer(v->loop, &v->drop, drop_link);
}

static void forget_streams(struct server *v)
{
	v->watcher = NULL;
	LIST_FOR_EACH(l, &v->waits)
		LIST_ENTRY(l, struct wait, link)->stream = NULL;
	while (!list_empty(&v->listings))
		listing_free(LIST_ENTRY(v->listings.next, struct listing, link));
}

static void replace_link(struct server *v, int fd, pid_t pid, uid_t uid)
{
	static const struct link_ops ops = {.request = on_request, .down = on_down};
	struct err e = ERR_INIT;

	loop_call_cancel(v->loop, &v->drop);
	loop_timer_cancel(v->loop, &v->linger);
	forget_streams(v); /* they vanish without a callback */
	v->link = link_free(v->link);
	if (link_new(v->loop, fd, LINK_FDS | LINK_SOCKET, 0, &ops, v, &v->link, &e) < 0) {
		klog("event=daemon-refused pid=%d why=\"%s\"", pid, e.text);
		linger(v, v->info.linger_ms);
		return;
	}
	klog("event=daemon pid=%d uid=%u", pid, uid);
}

static void on_accept(struct loop_io *io, unsigned events)
{
	struct server *v = CONTAINER_OF(io, struct server, accept_io);
	AUTO_CLOSE int fd = sys_accept(io->fd);
	pid_t pid = 0;
	uid_t uid = (uid_t)-1;

	(void)events;
	if (fd < 0)
		return;
	if (sys_peer(fd, &pid, &uid) < 0 || (uid != 0 && uid != geteuid() && uid != v->daemon)) {
		klog("event=daemon-refused pid=%d uid=%u why=\"not the daemon's uid\"", pid, uid);
		return;
	}
	replace_link(v, take_fd(&fd), pid, uid);
}

int server_new(struct loop *l, int listen_fd, uid_t daemon, const struct server_info *info,
	       struct server **ret, struct err *e)
{
	struct server *v = mem_new(sizeof(*v));
	int r;

	v->loop = l;
	v->listen_fd = listen_fd;
	v->daemon = daemon;
	v->info = *info;
	list_init(&v->waits);
	list_init(&v->listings);
	r = loop_io_add(l, &v->accept_io, listen_fd, LOOP_READ, on_accept);
	if (r < 0) {
		(void)server_free(v);
		return err_sys(e, r, "listen for the daemon");
	}
	linger(v, MAX(info->linger_ms, (uint64_t)KEEPER_LEASE_MS)); /* the first may take its time */
	*ret = v;
	return 0;
}

void server_attach(struct server *v, struct machines *ms)
{
	v->ms = ms;
	v->untold = mem_new(machines_slots(ms) * sizeof(*v->untold));
}

struct server *server_free(struct server *v)
{
	if (!v)
		return NULL;
	loop_call_cancel(v->loop, &v->drop);
	loop_timer_cancel(v->loop, &v->linger);
	loop_io_del(v->loop, &v->accept_io);
	forget_streams(v);
	v->link = link_free(v->link);
	while (!list_empty(&v->waits))
		wait_free(LIST_ENTRY(v->waits.next, struct wait, link));
	(void)sys_close(v->listen_fd);
	free(v->untold);
	free(v);
	return NULL;
}
