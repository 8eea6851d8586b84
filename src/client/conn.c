/* client/conn.c - one connection to the daemon */
#include "client/conn.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/items.h"
#include "client/place.h"
#include "client/start.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"

enum {
	RETRY_MS = 50, /* nothing tells when another process has finished starting the daemon */
	TAIL_TEXT = 400,
	LOCK_MODE = 0600,
};

struct conn {
	struct loop *loop;
	struct link *link;
	struct place place;
	enum conn_state state;
	struct err why;
	bool no_start, opened, locked;
	uint64_t start_ms, log_start;
	int lock_fd, ready_fd;
	struct loop_io ready_io;
	struct loop_timer retry, deadline;
	struct loop_call tell;
	struct list watches;
	struct conn_op *current; /* the blocking call in progress */
};

static void attempt(struct conn *c);
static void revive(struct conn *c);

/* ---- state ---- */

static void stop_attempt(struct conn *c)
{
	loop_timer_cancel(c->loop, &c->retry);
	loop_timer_cancel(c->loop, &c->deadline);
	loop_io_del(c->loop, &c->ready_io);
	c->ready_fd = sys_close(c->ready_fd);
	c->lock_fd = sys_close(c->lock_fd);
	c->locked = false;
}

static void on_tell(struct loop_call *call)
{
	struct conn *c = CONTAINER_OF(call, struct conn, tell);
	struct list turn;

	if (c->state == CONN_DOWN && !list_empty(&c->watches))
		revive(c); /* asked for while the link was going down */
	if (c->state != CONN_UP && c->state != CONN_FAILED)
		return; /* they hear of the next outcome */
	list_take(&c->watches, &turn);
	while (!list_empty(&turn)) {
		struct conn_watch *w = LIST_ENTRY(turn.next, struct conn_watch, link);

		list_del(&w->link);
		if (c->state == CONN_UP)
			w->up(w);
		else
			w->failed(w, &c->why);
	}
}

static void settle(struct conn *c, enum conn_state state)
{
	stop_attempt(c);
	c->state = state;
	loop_defer(c->loop, &c->tell, on_tell);
}

static void fail(struct conn *c)
{
	c->link = link_free(c->link);
	settle(c, CONN_FAILED);
}

/* ---- link ---- */

static void on_retry(struct loop_timer *t)
{
	attempt(CONTAINER_OF(t, struct conn, retry));
}

static void retry_later(struct conn *c)
{
	c->state = CONN_WAIT;
	loop_timer_set(c->loop, &c->retry, loop_now(c->loop) + RETRY_MS * NS_PER_MS, on_retry);
}

static void on_up(struct link *k, uint64_t generation)
{
	struct conn *c = link_arg(k);

	(void)generation;
	c->opened = true;
	settle(c, CONN_UP);
}

static void on_down(struct link *k, const struct err *why)
{
	struct conn *c = link_arg(k);

	c->link = link_free(k);
	if (c->state == CONN_SYNCING && why->code == ERR_GONE) {
		retry_later(c); /* it died just now */
		return;
	}
	err_copy(&c->why, why);
	err_wrap(&c->why, "the daemon (%s)", c->place.socket);
	if (c->state == CONN_SYNCING)
		settle(c, CONN_FAILED);
	else
		c->state = CONN_DOWN;
}

static const struct link_ops conn_link_ops = {.up = on_up, .down = on_down};

/*
 * Before the first word: who listens there? What a client says is its user's, and so is what it
 * believes; only root serves others. The kernel knows who it was that began to listen.
 */
static int check_peer(struct conn *c, int fd)
{
	pid_t pid;
	uid_t uid;
	int r = sys_peer(fd, &pid, &uid);

	if (r < 0)
		return err_sys(&c->why, r, "ask who serves %s", c->place.socket);
	if (uid != 0 && uid != geteuid())
		return err_set(&c->why, ERR_DENIED,
			       "user %u listens at the daemon's socket %s, neither root nor user %u, who asks; become "
			       "that user, or set HOTCELL_RUN to a directory of your own",
			       uid, c->place.socket, geteuid());
	return 0;
}

static void sync_link(struct conn *c, int fd)
{
	if (check_peer(c, fd) < 0) {
		(void)sys_close(fd);
		fail(c);
		return;
	}
	c->state = CONN_SYNCING;
	if (link_new(c->loop, fd, LINK_INITIATOR | LINK_SOCKET, 1, &conn_link_ops, c, &c->link,
		     &c->why) < 0)
		fail(c);
}

/* ---- attempts ---- */

static void describe_failure(struct conn *c, int code, const char *what)
{
	char tail[TAIL_TEXT] = "";

	if (c->state == CONN_STARTING)
		start_log_tail(&c->place, c->log_start, tail, sizeof(tail));
	if (tail[0])
		err_set(&c->why, code, "the daemon %s; its last words: %s", what, tail);
	else
		err_set(&c->why, code, "the daemon %s; see %s", what, c->place.log);
}

static void on_ready(struct loop_io *io, unsigned events)
{
	struct conn *c = CONTAINER_OF(io, struct conn, ready_io);
	char byte;
	ssize_t r = sys_read(io->fd, &byte, 1);

	(void)events;
	if (r == -EAGAIN)
		return;
	if (r != 1) {
		describe_failure(c, ERR_UNAVAILABLE, "ended while starting");
		fail(c);
		return;
	}
	loop_io_del(c->loop, io);
	c->ready_fd = sys_close(c->ready_fd);
	c->state = CONN_WAIT;
	attempt(c);
}

static void start(struct conn *c)
{
	int r = start_daemon(&c->place, &c->ready_fd, &c->log_start, &c->why);

	if (r == 0) {
		c->state = CONN_STARTING;
		r = loop_io_add(c->loop, &c->ready_io, c->ready_fd, LOOP_READ, on_ready);
		if (r < 0)
			err_sys(&c->why, r, "wait for the daemon");
	}
	if (r < 0)
		fail(c);
}

/* Of all clients that find no daemon, the holder of the lock starts one; the others look again. */
static int take_lock(struct conn *c)
{
	int fd = c->lock_fd, r;

	if (fd < 0) {
		r = place_claim(c->place.run, "HOTCELL_RUN", &c->why);
		if (r < 0)
			return r;
		fd = sys_create(c->place.lock, O_RDWR | O_NOFOLLOW, LOCK_MODE);
		if (fd < 0)
			return err_sys(&c->why, fd, "open %s", c->place.lock);
		c->lock_fd = fd;
	}
	r = sys_lock(fd);
	c->locked = r == 0;
	return r < 0 && r != -EAGAIN ? err_sys(&c->why, r, "lock %s", c->place.lock) : r;
}

static void start_or_wait(struct conn *c)
{
	bool had_lock = c->locked;
	int r;

	if (c->no_start) {
		if (c->opened) { /* it may come back */
			retry_later(c);
			return;
		}
		err_set(&c->why, ERR_UNAVAILABLE, "no daemon listens on %s", c->place.socket);
		fail(c);
		return;
	}
	r = take_lock(c);
	if (r == -EAGAIN)
		retry_later(c);
	else if (r < 0)
		fail(c);
	else if (!had_lock)
		attempt(c); /* the last holder may have succeeded between our look and our lock */
	else
		start(c);
}

static void attempt(struct conn *c)
{
	int fd = sys_unix_connect(c->place.socket);

	if (fd >= 0) {
		sync_link(c, fd);
	} else if (fd == -ENOENT || fd == -ECONNREFUSED) {
		start_or_wait(c);
	} else {
		if (fd == -EACCES || fd == -EPERM)
			err_set(&c->why, ERR_DENIED,
				"the daemon's socket %s is another user's; become that user, or unset "
				"HOTCELL_RUN to have a daemon of your own",
				c->place.socket);
		else
			err_sys(&c->why, fd, "connect to the daemon's socket %s", c->place.socket);
		fail(c);
	}
}

static void on_deadline(struct loop_timer *t)
{
	struct conn *c = CONTAINER_OF(t, struct conn, deadline);

	describe_failure(c, ERR_TIMEOUT,
			 c->state == CONN_STARTING  ? "did not get ready in time"
			 : c->state == CONN_SYNCING ? "accepted the connection but does not answer"
						    : "did not come in time");
	fail(c);
}

static void revive(struct conn *c)
{
	uint64_t ms = c->opened ? CONN_RECONNECT_MS : c->start_ms;

	if (c->state != CONN_DOWN && c->state != CONN_FAILED)
		return;
	c->why = (struct err)ERR_INIT;
	c->state = CONN_WAIT;
	loop_timer_set(c->loop, &c->deadline, loop_now(c->loop) + ms * NS_PER_MS, on_deadline);
	attempt(c);
}

void conn_revive(struct conn *c, struct conn_watch *w)
{
	list_add_tail(&c->watches, &w->link);
	if (c->state == CONN_UP)
		loop_defer(c->loop, &c->tell, on_tell);
	else
		revive(c);
}

void conn_unwatch(struct conn *c, struct conn_watch *w)
{
	(void)c;
	if (w->link.next)
		list_del(&w->link);
}

/* ---- life ---- */

int conn_open(const struct conn_options *o, struct conn **ret, struct err *e)
{
	struct conn *c = mem_new(sizeof(*c));
	int r;

	*c = (struct conn){.lock_fd = -1,
			   .ready_fd = -1,
			   .no_start = o && o->no_start,
			   .start_ms = o && o->start_ms ? o->start_ms : CONN_START_MS};
	list_init(&c->watches);
	r = loop_new(false, &c->loop);
	if (r < 0)
		r = err_sys(e, r, "connect: event loop");
	if (r == 0)
		r = place_find(o ? o->run_dir : NULL, &c->place, e);
	if (r == 0)
		r = conn_ready(c, e);
	if (r < 0) {
		conn_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct conn *conn_close(struct conn *c)
{
	if (!c)
		return NULL;
	link_free(c->link);
	if (c->loop) {
		stop_attempt(c);
		loop_call_cancel(c->loop, &c->tell);
	}
	loop_free(c->loop);
	free(c);
	return NULL;
}

struct loop *conn_loop(const struct conn *c)
{
	return c->loop;
}

struct link *conn_link(const struct conn *c)
{
	return c->state == CONN_UP ? c->link : NULL;
}

enum conn_state conn_state(const struct conn *c)
{
	return c->state;
}

const struct err *conn_error(const struct conn *c)
{
	return &c->why;
}

const struct place *conn_place(const struct conn *c)
{
	return &c->place;
}

/* ---- blocking calls ---- */

struct call {
	struct conn_op op;
	const struct method_info *method;
	struct stream *stream;
	struct str *bytes; /* reply */
	bool lost;
	struct err why;
	struct loop_timer late;
	unsigned patience_ms;
	/* items */
	int (*each)(void *arg, const void *item, struct err *e);
	void *arg;
	struct items items;
};

static void finish(struct call *k, const struct err *why)
{
	if (!k->why.code)
		err_copy(&k->why, why);
	k->stream = NULL;
	k->op.done = true;
}

/* End a call from this side, with k->why. */
static void abandon(struct call *k)
{
	if (k->stream)
		stream_reset(k->stream);
	finish(k, NULL);
}

static void cancel_call(struct conn_op *op)
{
	struct call *k = CONTAINER_OF(op, struct call, op);

	err_set(&k->why, ERR_CANCELED, "interrupted");
	abandon(k);
}

void conn_cancel(struct conn *c)
{
	if (c->current && !c->current->done)
		c->current->cancel(c->current);
}

static void on_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct call *k = stream_arg(s);

	(void)fds;
	(void)n_fds;
	str_clear(k->bytes);
	str_add_mem(k->bytes, payload.p, payload.n);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct call *k = stream_arg(s);

	k->lost = why && !link_is_up(stream_link(s));
	finish(k, why);
}

static const struct stream_ops call_ops = {.reply = on_reply, .closed = on_closed};

int conn_run(struct conn *c, struct conn_op *op, struct err *e)
{
	int r = 0;

	assert(!c->current); /* CONN-1 */
	c->current = op;
	while (!op->done && r == 0)
		r = loop_turn(c->loop, -1);
	c->current = NULL;
	return r < 0 ? err_sys(e, r, "wait for the daemon") : 0;
}

struct waiter {
	struct conn_watch watch;
	struct call call;
};

static void ready_up(struct conn_watch *w)
{
	CONTAINER_OF(w, struct waiter, watch)->call.op.done = true;
}

static void ready_failed(struct conn_watch *w, const struct err *why)
{
	finish(&CONTAINER_OF(w, struct waiter, watch)->call, why);
}

static int run(struct conn *c, struct call *k, struct err *e)
{
	int r = conn_run(c, &k->op, e);

	return r < 0 ? r : err_copy(e, k->why.code ? &k->why : NULL);
}

int conn_ready(struct conn *c, struct err *e)
{
	struct waiter w = {.watch = {.up = ready_up, .failed = ready_failed},
			   .call = {.op.cancel = cancel_call}};
	int r;

	if (c->state == CONN_UP)
		return 0;
	conn_revive(c, &w.watch);
	r = run(c, &w.call, e);
	conn_unwatch(c, &w.watch);
	return r;
}

/* CONN-2 */
static bool may_repeat(unsigned method)
{
	return method != METHOD_EXEC_START && method != METHOD_FILE_MOVE &&
	       method != METHOD_FILE_WRITE && method != METHOD_DAEMON_STOP &&
	       method != METHOD_EXEC_SIGNAL;
}

static int ask(struct conn *c, struct call *k, const void *req, const struct stream_ops *ops,
	       struct err *e)
{
	int r = conn_ready(c, e);

	k->op.done = k->lost = false;
	k->why = (struct err)ERR_INIT;
	if (r == 0)
		r = link_call(conn_link(c), k->method->number, k->method->request, req, false, NULL,
			      0, ops, k, &k->stream, e);
	return r < 0 ? r : run(c, k, e);
}

/* A remove whose answer was lost: not being there any more is what was asked for. */
static bool is_done_already(unsigned method, int r, unsigned tries)
{
	return method == METHOD_SANDBOX_REMOVE && r == -ERR_NOT_FOUND && tries > 0;
}

/* A guest that hangs answers never; whoever asks how it is wants to know just that. 0: for ever */
static unsigned patience_ms(unsigned method)
{
	return method == METHOD_GUEST_PING ? CONN_PING_MS : method == METHOD_GUEST_INFO ? CONN_GUEST_INFO_MS : 0;
}

static void on_late(struct loop_timer *t)
{
	struct call *k = CONTAINER_OF(t, struct call, late);

	err_set(&k->why, ERR_TIMEOUT, "the guest did not answer within %u s", k->patience_ms / 1000);
	abandon(k);
}

int conn_call(struct conn *c, unsigned method, const void *req, struct str *bytes, void *ret,
	      struct err *e)
{
	struct call k = {.op.cancel = cancel_call, .method = method_find(method), .bytes = bytes,
			 .patience_ms = patience_ms(method)};
	unsigned tries = 0;
	int r;

	assert(k.method);
	if (k.patience_ms) /* not from loop_now(): the last turn may be long ago */
		loop_timer_set(c->loop, &k.late, sys_now_ns() + k.patience_ms * NS_PER_MS, on_late);
	do
		r = ask(c, &k, req, &call_ops, e);
	while (k.lost && may_repeat(method) && ++tries < 10);
	loop_timer_cancel(c->loop, &k.late);
	if (is_done_already(method, r, tries)) {
		str_clear(bytes);
		r = 0;
	}
	if (r < 0)
		return r;
	if (bytes->failed)
		return err_set(e, ERR_LIMIT, "%s: the reply is longer than %zu bytes",
			       k.method->name, bytes->max);
	return ret ? rec_decode(k.method->reply, bytes->p, bytes->len, ret, e) : 0;
}

static void on_items(struct stream *s, uint64_t offset, struct span bytes)
{
	struct call *k = stream_arg(s);
	int r = items_put(&k->items, bytes, k->each, k->arg, &k->why);

	(void)offset;
	if (r < 0) {
		if (!k->why.code)
			err_set(&k->why, -r, "%s: ended by the caller", k->method->name);
		abandon(k);
		return;
	}
	stream_consumed(s, bytes.n);
}

static const struct stream_ops items_ops = {
	.reply = on_reply, .data = on_items, .closed = on_closed};

int conn_items(struct conn *c, unsigned method, const void *req,
	       int (*each)(void *arg, const void *item, struct err *e), void *arg, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct call k = {.op.cancel = cancel_call,
			 .method = method_find(method),
			 .bytes = &bytes,
			 .each = each,
			 .arg = arg};
	unsigned tries = 0;
	int r;

	assert(k.method && k.method->items);
	k.items = (struct items)ITEMS_INIT(k.method->items);
	do {
		items_clear(&k.items);
		r = ask(c, &k, req, &items_ops, e);
	} while (k.lost && k.items.n == 0 && ++tries < 10);
	if (r == 0)
		r = items_end(&k.items, e);
	items_deinit(&k.items);
	str_deinit(&bytes);
	return r;
}
