/* client/exec.c - follow a program in a sandbox */
#include "client/exec.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/ring.h"
#include "base/str.h"
#include "client/conn.h"
#include "client/items.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "wire/bytes.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum {
	CHUNK_HEAD = 4,
	EXIT_MAX = 4096,	/* bytes of an exit record */
	ATTACH_RETRY_MS = 100,	/* a daemon that is still taking its machines over says "unavailable" */
	TAG_BYTES = 8,
	NAME_ROOM = LIMIT_TEXT_SHORT + 1,
};

/* Where the taken output ends inside the chunk stream. */
struct chunk {
	unsigned tag; /* 0: between chunks */
	size_t left;
};

struct exec {
	struct conn *conn;
	const struct exec_ops *ops;
	void *arg;
	enum exec_state state;
	struct stream *stream;
	struct conn_watch watch;
	struct loop_call notify, room;
	struct loop_timer retry;
	uint64_t give_up_at; /* loop time; while lost */
	struct err why;

	struct str request; /* encoded exec.start; empty: attached to a session of somebody else */
	char sandbox[NAME_ROOM], tag[NAME_ROOM];
	uint64_t session, pid, reconnects;
	struct str late; /* arguments that don't fit into a record: the first bytes of the input */
	size_t late_sent;
	bool known;	    /* session is valid */
	bool followed;	    /* output flowed: from here on it has no gaps (EXEC-1) */
	bool from_now;
	bool merges; /* merge_output was asked for */
	bool drops; /* what we are too slow for is left out */

	struct ring out; /* [head, tail) of the chunk stream: received, not taken */
	struct chunk chunk;
	struct rec_exec_exit exit;
	char reason[33];
	bool has_exit, told_started, out_ended;

	struct ring in;	  /* [head, tail) of the input: not acknowledged */
	uint64_t in_sent; /* on this stream */
	bool has_input, in_end;

	uint64_t signals; /* to send, bit per signal */
	unsigned rows, cols;
	struct items list; /* the session table, while finding */
	bool found;
};

static void on_notify(struct loop_call *call);
static void on_room(struct loop_call *call);
static void recover(struct exec *x);

static struct loop *loop_of(const struct exec *x)
{
	return conn_loop(x->conn);
}

static void wake(struct exec *x)
{
	loop_defer(loop_of(x), &x->notify, on_notify);
}

static void wake_writer(struct exec *x)
{
	if (x->ops->writable)
		loop_defer(loop_of(x), &x->room, on_room);
}

static void drop_stream(struct exec *x)
{
	if (x->stream)
		stream_reset(x->stream);
	x->stream = NULL;
}

static void end(struct exec *x, const struct err *why)
{
	if (x->state == EXEC_ENDED)
		return;
	x->state = EXEC_ENDED;
	loop_timer_cancel(loop_of(x), &x->retry);
	conn_unwatch(x->conn, &x->watch);
	err_copy(&x->why, why);
	wake(x);
}

static void fail(struct exec *x, int code, const char *what)
{
	struct err e = ERR_INIT;

	err_set(&e, code, "session %llu: %s", (unsigned long long)x->session, what);
	drop_stream(x);
	end(x, &e);
}

/* ---- output ---- */

static bool copy_out(const struct exec *x, void *to, size_t n)
{
	uint64_t at = x->out.head;

	if (ring_used(&x->out) < n)
		return false;
	while (n) {
		size_t piece;
		const void *p = ring_at(&x->out, at, &piece);

		piece = MIN(piece, n);
		memcpy(to, p, piece);
		to = (char *)to + piece;
		at += piece;
		n -= piece;
	}
	return true;
}

static void drop_out(struct exec *x, size_t n)
{
	ring_drop(&x->out, n);
	if (x->stream)
		stream_consumed_to(x->stream, x->out.head);
}

static void take_exit(struct exec *x)
{
	unsigned char bytes[EXIT_MAX];
	size_t n = x->chunk.left;
	struct err e = ERR_INIT;

	if (n > EXIT_MAX) {
		fail(x, ERR_INVALID, "the guest sent an exit record that is too long (4096 bytes)");
		return;
	}
	if (!copy_out(x, bytes, n))
		return;
	if (rec_decode(&rec_exec_exit_type, bytes, n, &x->exit, &e) < 0) {
		fail(x, ERR_INVALID, e.text);
		return;
	}
	span_copy(x->exit.reason, x->reason, sizeof(x->reason));
	x->exit.reason = span_of(x->reason);
	x->has_exit = true;
	drop_out(x, n);
	drop_stream(x);
	end(x, NULL);
}

/* Step over chunk heads until there are bytes to show, nothing more came, or it is over. */
static void advance(struct exec *x)
{
	unsigned char head[CHUNK_HEAD];

	while (x->state != EXEC_ENDED && x->chunk.left == 0 && copy_out(x, head, CHUNK_HEAD)) {
		x->chunk.tag = head[0];
		x->chunk.left = get_u32(head) >> 8;
		drop_out(x, CHUNK_HEAD);
		if (x->chunk.tag < EXEC_STDOUT || x->chunk.tag > EXEC_EXIT) {
			x->chunk.left = 0; /* nothing of it is shown */
			fail(x, ERR_INVALID, "the guest sent output of an unknown kind");
			return;
		}
		if (x->chunk.tag == EXEC_EXIT)
			break;
	}
	if (x->state != EXEC_ENDED && x->chunk.tag == EXEC_EXIT)
		take_exit(x);
}

const void *exec_peek(const struct exec *x, enum exec_stream *ret_stream, size_t *ret_n)
{
	const void *p;
	size_t n;

	if (x->chunk.left == 0 || x->chunk.tag == EXEC_EXIT || ring_used(&x->out) == 0)
		return NULL;
	p = ring_at(&x->out, x->out.head, &n);
	*ret_stream = (enum exec_stream)x->chunk.tag;
	*ret_n = MIN(n, x->chunk.left);
	return p;
}

void exec_take(struct exec *x, size_t n)
{
	assert(n <= x->chunk.left);
	x->chunk.left -= n;
	drop_out(x, n);
	if (x->chunk.left == 0)
		advance(x);
	if (x->out_ended)
		wake(x);
}

/* The output goes on at @offset: the guest dropped whole chunks before. */
static void jump(struct exec *x, uint64_t offset)
{
	x->out.head = x->out.tail = offset;
	x->chunk = (struct chunk){0};
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct exec *x = stream_arg(s);

	if (offset != x->out.tail)
		jump(x, offset);
	if (ring_write(&x->out, bytes.p, bytes.n) != bytes.n) {
		fail(x, ERR_INVALID, "the guest sent more than it was allowed to");
		return;
	}
	if (x->chunk.left == 0 || x->chunk.tag == EXEC_EXIT)
		advance(x);
	wake(x);
}

/* ---- input ---- */

static void pump_late(struct exec *x)
{
	size_t sent = 1;

	while (x->stream && sent && x->late_sent < x->late.len) {
		sent = stream_send(x->stream, x->late.p + x->late_sent, x->late.len - x->late_sent);
		x->late_sent += sent;
	}
	if (x->stream && x->late_sent == x->late.len && !x->has_input)
		stream_end(x->stream);
}

static void pump(struct exec *x)
{
	while (x->state == EXEC_RUNNING && x->stream && x->in_sent < x->in.tail) {
		size_t n, sent;
		const void *p = ring_at(&x->in, x->in_sent, &n);

		sent = stream_send(x->stream, p, n);
		x->in_sent += sent;
		if (sent < n)
			return;
	}
	if (x->state == EXEC_RUNNING && x->stream && x->in_end && x->has_input)
		stream_end(x->stream);
}

static void on_writable(struct stream *s)
{
	struct exec *x = stream_arg(s);
	uint64_t taken = stream_peer_consumed(s);

	if (x->state == EXEC_STARTING)
		pump_late(x);
	if (x->state != EXEC_RUNNING)
		return;
	if (taken > x->in.head)
		ring_drop(&x->in, (size_t)(MIN(taken, x->in_sent) - x->in.head));
	pump(x);
	wake_writer(x);
}

size_t exec_room(const struct exec *x)
{
	return x->has_input && !x->in_end && x->state != EXEC_ENDED ? ring_room(&x->in) : 0;
}

size_t exec_write(struct exec *x, const void *p, size_t n)
{
	size_t taken = ring_write(&x->in, p, MIN(n, exec_room(x)));

	pump(x);
	return taken;
}

void exec_end_input(struct exec *x)
{
	x->in_end = true;
	pump(x);
}

/* ---- signals and size: calls of their own whose answers nobody waits for ---- */

static void side_call(struct exec *x, unsigned method, const void *rec)
{
	static const struct stream_ops nobody = {0};
	struct link *k = conn_link(x->conn);

	if (k)
		(void)link_call(k, method, method_find(method)->request, rec, false, NULL, 0,
				&nobody, NULL, NULL, NULL);
}

static void send_side(struct exec *x)
{
	if (x->state != EXEC_RUNNING)
		return;
	for (unsigned n = 1; n <= 64; n++) {
		struct rec_exec_signal rec = {
			.sandbox = span_of(x->sandbox), .session = x->session, .signal = n};

		if (x->signals & 1ull << (n - 1))
			side_call(x, METHOD_EXEC_SIGNAL, &rec);
	}
	x->signals = 0;
	if (x->rows && x->cols) {
		struct rec_exec_resize rec = {.sandbox = span_of(x->sandbox),
					      .session = x->session,
					      .rows = x->rows,
					      .cols = x->cols};

		side_call(x, METHOD_EXEC_RESIZE, &rec);
	}
	x->rows = x->cols = 0;
}

void exec_signal(struct exec *x, unsigned signal)
{
	assert(signal >= 1 && signal <= 64);
	x->signals |= 1ull << (signal - 1);
	send_side(x);
}

void exec_resize(struct exec *x, unsigned rows, unsigned cols)
{
	x->rows = rows;
	x->cols = cols;
	send_side(x);
}

/* ---- streams ---- */

static bool place_input(struct exec *x, uint64_t offset)
{
	if (!x->has_input)
		return true;
	if (offset < x->in.head || offset > x->in.tail)
		return false;
	ring_drop(&x->in, (size_t)(offset - x->in.head));
	if (x->state != EXEC_STARTING || !x->late.len) /* else it is there already */
		stream_start_at(x->stream, offset);
	x->in_sent = offset;
	return true;
}

static void on_started(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct exec *x = stream_arg(s);
	struct rec_exec_started rec;
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds;
	if (rec_decode(&rec_exec_started_type, payload.p, payload.n, &rec, &e) < 0) {
		drop_stream(x);
		end(x, &e);
		return;
	}
	x->session = rec.session;
	x->pid = rec.pid;
	x->known = true;
	if ((!x->followed && x->from_now) || ((!x->followed || x->drops) && rec.offset > x->out.tail))
		jump(x, rec.offset);
	x->followed = true;
	x->from_now = false;
	if (rec.offset != x->out.tail) {
		fail(x, ERR_GONE, "output was lost: the guest does not keep it any more");
		return;
	}
	if (x->state == EXEC_STARTING && x->merges && !rec.merged) {
		fail(x, ERR_UNSUPPORTED,
		     "merged output: the agent of this sandbox is too old for it; make a new sandbox");
		return;
	}
	if (!place_input(x, rec.stdin_offset)) {
		fail(x, ERR_GONE, "input was lost: the guest wants bytes that are not kept any more");
		return;
	}
	x->state = EXEC_RUNNING;
	send_side(x);
	pump(x);
	wake(x);
	wake_writer(x);
}

/* Everything is in the ring now, the exit chunk included. */
static void on_end(struct stream *s, uint64_t offset)
{
	struct exec *x = stream_arg(s);

	(void)offset;
	x->out_ended = true;
	wake(x);
}

/* What the agent of 0.1.0 says of a request whose arguments come later. */
#define OLD_AGENT "give either argv or command"

static void fail_old(struct exec *x)
{
	struct err e = ERR_INIT;

	err_set(&e, ERR_UNSUPPORTED,
		"the agent of this sandbox is too old for arguments and environment of more than %d bytes; "
		"make a new sandbox, or use a file or standard input", LIMIT_EXEC_INLINE);
	end(x, &e);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct exec *x = stream_arg(s);

	x->stream = NULL;
	if (x->state == EXEC_ENDED || x->out_ended)
		return;
	if (why && !link_is_up(stream_link(s))) {
		err_copy(&x->why, why);
		recover(x);
	} else if (why && why->code == ERR_UNAVAILABLE && x->state == EXEC_ATTACHING) {
		recover(x);
	} else if (why && x->state == EXEC_STARTING && x->late.len && strstr(why->text, OLD_AGENT)) {
		fail_old(x);
	} else {
		end(x, why ? why : &(struct err){ERR_INVALID, "the guest ended the session twice"});
	}
}

static const struct stream_ops exec_stream_ops = {
	.reply = on_started, .data = on_data, .writable = on_writable, .end = on_end, .closed = on_closed};

static int send_start(struct exec *x, struct err *e)
{
	struct rec_exec_start rec;
	int r = rec_decode(&rec_exec_start_type, x->request.p, x->request.len, &rec, e);

	if (r == 0)
		r = link_call(conn_link(x->conn), METHOD_EXEC_START, &rec_exec_start_type, &rec,
			      x->has_input || x->late.len, NULL, 0, &exec_stream_ops, x, &x->stream, e);
	if (r < 0)
		return r;
	x->state = EXEC_STARTING;
	x->late_sent = 0;
	if (x->late.len)
		pump_late(x);
	return 0;
}

static int send_attach(struct exec *x, struct err *e)
{
	struct rec_exec_attach rec = {.sandbox = span_of(x->sandbox),
				      .session = x->session,
				      .offset = x->out.head,
				      .from_now = x->from_now,
				      .stdin = x->has_input,
				      .on_slow = span_of(x->drops ? "drop" : "")};
	int r;

	/* What was received and not taken comes again: one place holds the truth, the guest's ring. */
	x->out.tail = x->out.head;
	r = link_call(conn_link(x->conn), METHOD_EXEC_ATTACH, &rec_exec_attach_type, &rec,
		      x->has_input, NULL, 0, &exec_stream_ops, x, &x->stream, e);
	if (r == 0)
		x->state = EXEC_ATTACHING;
	return r;
}

/* ---- EXEC-3: was it started? ---- */

static int on_listed(void *arg, const void *item, struct err *e)
{
	const struct rec_exec_info *info = item;
	struct exec *x = arg;

	(void)e;
	if (span_is(info->tag, x->tag)) {
		x->session = info->session;
		x->found = true;
	}
	return 0;
}

static void on_list_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct exec *x = stream_arg(s);
	struct err e = ERR_INIT;

	(void)offset;
	if (items_put(&x->list, bytes, on_listed, x, &e) < 0) { /* what can't be read may name our program */
		drop_stream(x);
		end(x, &e);
		return;
	}
	stream_consumed(s, bytes.n);
}

static void attempt(struct exec *x)
{
	struct err e = ERR_INIT;
	int r = x->known ? send_attach(x, &e) : send_start(x, &e);

	if (r < 0)
		end(x, &e);
}

static void on_list_closed(struct stream *s, const struct err *why)
{
	struct exec *x = stream_arg(s);
	struct err e = ERR_INIT;

	x->stream = NULL;
	if (why && (why->code == ERR_UNAVAILABLE || !link_is_up(stream_link(s)))) {
		recover(x);
		return;
	}
	if (why || items_end(&x->list, &e) < 0) {
		end(x, why ? why : &e);
		return;
	}
	x->known = x->found;
	attempt(x);
}

static const struct stream_ops list_ops = {.data = on_list_data, .closed = on_list_closed};

static void find(struct exec *x)
{
	struct rec_sandbox_ref rec = {span_of(x->sandbox)};
	struct err e = ERR_INIT;

	items_clear(&x->list);
	x->found = false;
	x->state = EXEC_FINDING;
	if (link_call(conn_link(x->conn), METHOD_EXEC_LIST, &rec_sandbox_ref_type, &rec, false,
		      NULL, 0, &list_ops, x, &x->stream, &e) < 0)
		end(x, &e);
}

/* ---- recovery ---- */

static void on_again(struct loop_timer *t)
{
	struct exec *x = CONTAINER_OF(t, struct exec, retry);

	conn_revive(x->conn, &x->watch);
}

static void on_conn_up(struct conn_watch *w)
{
	struct exec *x = CONTAINER_OF(w, struct exec, watch);

	if (x->known)
		attempt(x);
	else
		find(x);
}

static void on_conn_failed(struct conn_watch *w, const struct err *why)
{
	struct exec *x = CONTAINER_OF(w, struct exec, watch);
	struct err e = *why;

	err_wrap(&e, "the connection was lost and could not be made again");
	end(x, &e);
}

static void recover(struct exec *x)
{
	uint64_t now = loop_now(loop_of(x));
	bool again = x->state == EXEC_ATTACHING || x->state == EXEC_FINDING;

	if (!again || !x->give_up_at) {
		x->give_up_at = now + CONN_RECONNECT_MS * NS_PER_MS;
		x->reconnects++;
	}
	if (now >= x->give_up_at) {
		fail(x, ERR_TIMEOUT, "could not be followed again within 30 s");
		return;
	}
	x->state = EXEC_LOST;
	if (x->ops->lost && !again)
		wake(x);
	if (again)
		loop_timer_set(loop_of(x), &x->retry, now + ATTACH_RETRY_MS * NS_PER_MS, on_again);
	else
		conn_revive(x->conn, &x->watch);
}

/* ---- telling the owner ---- */

static void tell_end(struct exec *x)
{
	x->ops->ended(x, x->has_exit ? NULL : &x->why);
}

/* One callback per turn: each of them may close @x. */
static void on_notify(struct loop_call *call)
{
	struct exec *x = CONTAINER_OF(call, struct exec, notify);
	enum exec_stream which;
	size_t n;

	if (x->followed && !x->told_started) {
		x->told_started = true;
		wake(x);
		if (x->ops->started)
			x->ops->started(x);
	} else if (x->state == EXEC_ENDED) {
		tell_end(x);
	} else if (x->state == EXEC_LOST && x->ops->lost && x->why.code) {
		struct err why = x->why;

		x->why = (struct err)ERR_INIT;
		wake(x);
		x->ops->lost(x, &why);
	} else if (exec_peek(x, &which, &n)) {
		x->ops->readable(x);
	} else if (x->out_ended) {
		fail(x, ERR_GONE, "its output ended without an exit status");
	}
}

static void on_room(struct loop_call *call)
{
	struct exec *x = CONTAINER_OF(call, struct exec, room);

	if (exec_room(x))
		x->ops->writable(x);
}

/* ---- life ---- */

static struct exec *new_exec(struct conn *c, struct span sandbox, const struct exec_ops *ops,
			     void *arg, struct err *e)
{
	struct exec *x = mem_new(sizeof(*x));

	*x = (struct exec){
		.conn = c,
		.ops = ops,
		.arg = arg,
		.watch = {.up = on_conn_up, .failed = on_conn_failed},
		.request = STR_INIT(RECORD_MAX),
		.list = ITEMS_INIT(&rec_exec_info_type),
		.late = STR_INIT(LIMIT_ARGV_BYTES),
	};
	span_copy(sandbox, x->sandbox, sizeof(x->sandbox));
	if (ring_init(&x->out, LIMIT_WINDOW) < 0 || ring_init(&x->in, LIMIT_WINDOW) < 0) {
		err_set(e, ERR_LIMIT, "out of memory");
		return exec_close(x);
	}
	return x;
}

static int random_tag(char *ret, struct err *e)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char bytes[TAG_BYTES];
	int r = sys_random(bytes, sizeof(bytes));

	if (r < 0)
		return err_sys(e, r, "random tag");
	for (size_t i = 0; i < TAG_BYTES; i++) {
		*ret++ = digits[bytes[i] >> 4];
		*ret++ = digits[bytes[i] & 15];
	}
	*ret = '\0';
	return 0;
}

static bool fits(const struct rec_exec_start *rec)
{
	return rec->argv.n + rec->env.n + rec->command.n <= LIMIT_EXEC_INLINE;
}

static int check_strings(struct strv v, unsigned max, const char *name, struct err *e)
{
	unsigned at = 0;

	for (const char *s = strv_first(v); s; s = strv_next(v, s), at++)
		if (strlen(s) > LIMIT_EXEC_STRING)
			return err_set(e, ERR_LIMIT,
				       "%s: number %u has %zu bytes, Linux takes %d; use a file or standard input",
				       name, at, strlen(s), LIMIT_EXEC_STRING);
	if (at > max)
		return err_set(e, ERR_LIMIT, "%s: %u entries, the limit is %u", name, at, max);
	return 0;
}

int exec_check(const struct rec_exec_start *rec, struct err *e)
{
	int r = 0;

	if (rec->command.n > LIMIT_COMMAND)
		r = err_set(e, ERR_LIMIT,
			    "command: %zu bytes, Linux takes %d in one argument; give a longer script on standard "
			    "input (sh -s)", rec->command.n, LIMIT_COMMAND);
	if (r == 0)
		r = check_strings(rec->argv, LIMIT_ARGV_COUNT, "argv", e);
	if (r == 0)
		r = check_strings(rec->env, LIMIT_EXEC_ENV_COUNT, "env", e);
	if (r == 0 && rec->argv.n + rec->env.n + rec->command.n > LIMIT_ARGV_BYTES)
		r = err_set(e, ERR_LIMIT,
			    "argv and env: %zu bytes together, Linux takes %d; use a file or standard input",
			    rec->argv.n + rec->env.n + rec->command.n, LIMIT_ARGV_BYTES);
	return r < 0 || !fits(rec) ? r : rec_check(&rec_exec_start_type, rec, e);
}

/* What is more than a record holds goes as stream data: @rec names only how much that is. */
static void take_late(struct exec *x, struct rec_exec_start *rec)
{
	if (fits(rec))
		return;
	if (rec->command.n) {
		str_add_mem(&x->late, "/bin/sh\0-c", sizeof("/bin/sh\0-c"));
		str_add_mem(&x->late, rec->command.p, rec->command.n);
		str_add_mem(&x->late, "", 1);
	}
	str_add_mem(&x->late, rec->argv.p, rec->argv.n);
	rec->late_argv = x->late.len;
	str_add_mem(&x->late, rec->env.p, rec->env.n);
	rec->late_env = x->late.len - rec->late_argv;
	rec->argv = rec->env = (struct strv){0};
	rec->command = (struct span){0};
	x->in.head = x->in.tail = x->in_sent = x->late.len;
}

int exec_start(struct conn *c, const struct rec_exec_start *rec, const struct exec_ops *ops,
	       void *arg, struct exec **ret, struct err *e)
{
	struct rec_exec_start tagged = *rec;
	struct exec *x = new_exec(c, rec->sandbox, ops, arg, e);
	int r = x ? exec_check(rec, e) : -ERR_LIMIT;

	if (r == 0 && rec->tag.n == 0) {
		r = random_tag(x->tag, e);
		tagged.tag = span_of(x->tag);
	} else if (r == 0) {
		span_copy(rec->tag, x->tag, sizeof(x->tag));
	}
	if (r == 0) {
		x->has_input = rec->stdin;
		x->drops = span_is(rec->on_slow, "drop");
		x->merges = rec->merge_output;
		take_late(x, &tagged);
		r = x->late.failed ? err_set(e, ERR_LIMIT, "argv and env: more than %d bytes", LIMIT_ARGV_BYTES) : 0;
	}
	if (r == 0)
		r = rec_encode(&rec_exec_start_type, &tagged, &x->request, e);
	if (r == 0 && !conn_link(c))
		r = err_set(e, ERR_UNAVAILABLE, "not connected");
	if (r == 0)
		r = send_start(x, e);
	if (r < 0) {
		exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

int exec_attach(struct conn *c, const struct rec_exec_attach *rec, const struct exec_ops *ops,
		void *arg, struct exec **ret, struct err *e)
{
	struct exec *x = new_exec(c, rec->sandbox, ops, arg, e);
	int r = x ? 0 : -ERR_LIMIT;

	if (r == 0) {
		x->session = rec->session;
		x->known = true;
		x->from_now = rec->from_now;
		x->has_input = rec->stdin;
		x->drops = span_is(rec->on_slow, "drop");
		x->out.head = x->out.tail = rec->offset;
		r = conn_link(c) ? send_attach(x, e)
				 : err_set(e, ERR_UNAVAILABLE, "not connected");
	}
	if (r < 0) {
		exec_close(x);
		return r;
	}
	*ret = x;
	return 0;
}

struct exec *exec_close(struct exec *x)
{
	if (!x)
		return NULL;
	drop_stream(x);
	conn_unwatch(x->conn, &x->watch);
	loop_timer_cancel(loop_of(x), &x->retry);
	loop_call_cancel(loop_of(x), &x->notify);
	loop_call_cancel(loop_of(x), &x->room);
	ring_deinit(&x->out);
	ring_deinit(&x->in);
	str_deinit(&x->request);
	items_deinit(&x->list);
	str_deinit(&x->late);
	free(x);
	return NULL;
}

void *exec_arg(const struct exec *x)
{
	return x->arg;
}

enum exec_state exec_state(const struct exec *x)
{
	return x->state;
}

uint64_t exec_session(const struct exec *x)
{
	return x->session;
}

uint64_t exec_pid(const struct exec *x)
{
	return x->pid;
}

uint64_t exec_offset(const struct exec *x)
{
	return x->out.head;
}

uint64_t exec_reconnects(const struct exec *x)
{
	return x->reconnects;
}

const struct rec_exec_exit *exec_exit(const struct exec *x)
{
	return x->has_exit ? &x->exit : NULL;
}
