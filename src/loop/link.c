/* loop/link.c - calls and byte streams over one descriptor */
#include "loop/link.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/frame.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum {
	BUCKETS = 64,
	READ_SIZE = 65536,
	READS_PER_EVENT = 4,	    /* then other descriptors get their turn */
	DATA_SIZE = 32768,	    /* of one frame: small enough to interleave, large enough to be cheap */
	OUT_SOFT = 262144,	    /* above: stream_send() takes nothing */
	OUT_HARD = 4 * 1024 * 1024, /* above: nothing is read, since reading makes answers */
	OUT_KEEP = 262144,	    /* an empty output buffer larger than this is given back */
	FDS_QUEUED = 32,
};

struct stream {
	struct link *link;
	struct list hash, blocked;
	const struct stream_ops *ops;
	void *arg;
	uint32_t id;
	unsigned method;
	bool is_opener, accepted, replied, tx_ended, rx_ended, rx_started, dead;
	bool owes_closed; /* complete by our own doing: `closed` follows from the loop */
	uint64_t tx_offset, tx_limit;	 /* next byte to send; first byte that lacks credit */
	uint64_t rx_offset, rx_consumed; /* next byte expected; dealt with */
	uint64_t rx_granted;		 /* last offset told to the peer */
};

/* Descriptors wait for the byte they travel with. */
struct fd_mark {
	uint64_t at; /* position in all output ever queued */
	int fds[FRAME_FDS_MAX];
	unsigned n;
	struct list link;
};

struct link {
	struct loop *loop;
	const struct link_ops *ops;
	void *arg;
	int fd;
	unsigned flags;
	bool up, is_down, freed;
	unsigned busy; /* callbacks on the stack: LINK-3 */
	uint64_t generation;
	struct loop_io io;
	struct loop_call flush_call, reap_call;
	struct list streams[BUCKETS], blocked, dead, marks;
	unsigned n_streams;
	uint32_t next_id;
	struct frame_parser parser;
	unsigned char *payload; /* of a frame that came in pieces; FRAME_PAYLOAD_MAX */
	const unsigned char *whole;
	size_t have;
	int fds[FDS_QUEUED];
	unsigned n_fds;
	unsigned char *out; /* [out_head, out_len) waits to be written */
	size_t out_head, out_len, out_cap;
	uint64_t out_written; /* position of out[out_head] in all output */
};

static void on_io(struct loop_io *io, unsigned events);
static void on_flush(struct loop_call *c);
static void on_reap(struct loop_call *c);
static void go_down(struct link *k, const struct err *why);

/* ---- callbacks with care: the callee may free link and streams ---- */

static void enter(struct link *k)
{
	k->busy++;
}

static void destroy(struct link *k);

static void leave(struct link *k)
{
	if (--k->busy == 0 && k->freed)
		destroy(k);
}

/* ---- streams ---- */

static struct stream *find(struct link *k, uint32_t id)
{
	LIST_FOR_EACH(pos, &k->streams[id % BUCKETS]) {
		struct stream *s = LIST_ENTRY(pos, struct stream, hash);

		if (s->id == id)
			return s;
	}
	return NULL;
}

static struct stream *stream_new(struct link *k, uint32_t id, bool is_opener, unsigned method)
{
	struct stream *s = mem_new(sizeof(*s));

	*s = (struct stream){
		.link = k,
		.id = id,
		.is_opener = is_opener,
		.method = method,
		.tx_limit = LIMIT_WINDOW,
	};
	list_init(&s->blocked);
	list_add_tail(&k->streams[id % BUCKETS], &s->hash);
	k->n_streams++;
	return s;
}

/* The memory stays until the end of the turn, so that callers on the stack may look. */
static void retire(struct stream *s)
{
	struct link *k = s->link;

	if (s->dead)
		return;
	s->dead = true;
	k->n_streams--;
	list_del(&s->blocked);
	list_del(&s->hash);
	list_add_tail(&k->dead, &s->hash);
	if (!k->freed)
		loop_defer(k->loop, &k->reap_call, on_reap);
}

/* Say `closed` where it is owed. Callbacks may retire more streams; they join at the tail. */
static void settle(struct link *k)
{
	for (struct list *pos = k->dead.next; pos != &k->dead && !k->freed; pos = pos->next) {
		struct stream *s = LIST_ENTRY(pos, struct stream, hash);

		if (!s->owes_closed)
			continue;
		s->owes_closed = false;
		if (s->ops && s->ops->closed)
			s->ops->closed(s, NULL);
	}
}

static void reap(struct link *k)
{
	settle(k);
	while (!list_empty(&k->dead)) {
		struct stream *s = LIST_ENTRY(k->dead.next, struct stream, hash);

		list_del(&s->hash);
		free(s);
	}
}

static void on_reap(struct loop_call *c)
{
	struct link *k = CONTAINER_OF(c, struct link, reap_call);

	enter(k);
	reap(k);
	leave(k);
}

static void close_stream(struct stream *s, const struct err *why)
{
	if (s->dead)
		return;
	retire(s);
	if (s->ops && s->ops->closed)
		s->ops->closed(s, why);
}

static bool is_complete(const struct stream *s)
{
	return !s->dead && s->replied && s->tx_ended && s->rx_ended;
}

static void close_if_complete(struct stream *s)
{
	if (is_complete(s))
		close_stream(s, NULL);
}

/* Our own call completed it, so the caller is on the stack: LINK-5. */
static void close_soon_if_complete(struct stream *s)
{
	if (!is_complete(s))
		return;
	s->owes_closed = true;
	retire(s);
}

static void close_all(struct link *k, const struct err *why)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!k->freed && !list_empty(&k->streams[i]))
			close_stream(LIST_ENTRY(k->streams[i].next, struct stream, hash), why);
}

/* ---- output ---- */

static unsigned char *out_space(struct link *k, size_t n)
{
	if (k->out_len + n > k->out_cap && k->out_head) {
		memmove(k->out, k->out + k->out_head, k->out_len - k->out_head);
		k->out_len -= k->out_head;
		k->out_head = 0;
	}
	if (k->out_len + n > k->out_cap) {
		size_t cap = MAX(k->out_cap, (size_t)4096);
		unsigned char *p;

		while (cap < k->out_len + n)
			cap *= 2;
		p = realloc(k->out, cap);
		if (!p)
			abort(); /* bounded by windows and OUT_HARD: this host is out of memory */
		k->out = p;
		k->out_cap = cap;
	}
	k->out_len += n;
	return k->out + k->out_len - n;
}

static size_t out_used(const struct link *k)
{
	return k->out_len - k->out_head;
}

static void mark_fds(struct link *k, const int *fds, unsigned n)
{
	struct fd_mark *m = mem_new(sizeof(*m));

	m->at = k->out_written + out_used(k);
	for (unsigned i = 0; i < n; i++)
		m->fds[i] = sys_dup(fds[i]); /* -1 on failure: sendmsg reports it */
	m->n = n;
	list_add_tail(&k->marks, &m->link);
}

static void drop_mark(struct fd_mark *m)
{
	list_del(&m->link);
	for (unsigned i = 0; i < m->n; i++)
		(void)sys_close(m->fds[i]);
	free(m);
}

static void put_frame(struct link *k, const struct frame *f, const void *payload, const int *fds)
{
	unsigned char *p;

	if (k->is_down)
		return;
	if (f->fds)
		mark_fds(k, fds, f->fds);
	p = out_space(k, FRAME_HEAD + f->len + 1);
	frame_put(p, f);
	if (f->len)
		memcpy(p + FRAME_HEAD, payload, f->len);
	p[FRAME_HEAD + f->len] = FRAME_TRAILER;
	loop_defer(k->loop, &k->flush_call, on_flush);
}

static void put_simple(struct stream *s, enum frame_type type, uint64_t offset)
{
	put_frame(s->link, &(struct frame){.type = type, .stream = s->id, .offset = offset}, NULL,
		  NULL);
}

static ssize_t write_some(struct link *k)
{
	struct fd_mark *m = list_empty(&k->marks)
				    ? NULL
				    : LIST_ENTRY(k->marks.next, struct fd_mark, link);
	struct iovec iov = {k->out + k->out_head, out_used(k)};
	ssize_t r;

	if (m && m->at > k->out_written)
		iov.iov_len = (size_t)(m->at - k->out_written);
	if (!(k->flags & (LINK_SOCKET | LINK_FDS)))
		return sys_write(k->fd, iov.iov_base, iov.iov_len);
	if (m && m->at == k->out_written) {
		r = sys_send(k->fd, &iov, 1, m->fds, m->n);
		if (r > 0)
			drop_mark(m);
		return r;
	}
	return sys_send(k->fd, &iov, 1, NULL, 0);
}

static void wake_blocked(struct link *k)
{
	struct list turn;

	list_take(&k->blocked, &turn);
	while (!list_empty(&turn)) {
		struct stream *s = LIST_ENTRY(turn.next, struct stream, blocked);

		list_del(&s->blocked);
		if (s->ops && s->ops->writable)
			s->ops->writable(s);
	}
}

static void update_interest(struct link *k)
{
	unsigned want = (out_used(k) ? LOOP_WRITE : 0u) | (out_used(k) < OUT_HARD ? LOOP_READ : 0u);

	if (!k->freed && !k->is_down)
		(void)loop_io_set(k->loop, &k->io, want);
}

static void out_trim(struct link *k)
{
	if (out_used(k))
		return;
	k->out_head = k->out_len = 0;
	if (k->out_cap > OUT_KEEP) {
		free(k->out);
		k->out = NULL;
		k->out_cap = 0;
	}
}

static void flush(struct link *k)
{
	struct err e = ERR_INIT;

	enter(k);
	while (!k->is_down && out_used(k)) {
		ssize_t r = write_some(k);

		if (r == -EAGAIN)
			break;
		if (r < 0) {
			err_sys(&e, (int)r, "link: write");
			go_down(k, &e);
			break;
		}
		k->out_head += (size_t)r;
		k->out_written += (uint64_t)r;
	}
	if (!k->is_down && !k->freed) {
		out_trim(k);
		if (out_used(k) < OUT_SOFT / 2)
			wake_blocked(k);
		update_interest(k);
	}
	leave(k);
}

static void on_flush(struct loop_call *c)
{
	flush(CONTAINER_OF(c, struct link, flush_call));
}

static void drop_output(struct link *k)
{
	while (!list_empty(&k->marks))
		drop_mark(LIST_ENTRY(k->marks.next, struct fd_mark, link));
	k->out_written += out_used(k);
	k->out_head = k->out_len = 0;
	out_trim(k);
}

/* ---- the end ---- */

static void drop_fds(struct link *k)
{
	while (k->n_fds)
		(void)sys_close(k->fds[--k->n_fds]);
}

static void shut(struct link *k)
{
	k->is_down = true;
	k->up = false;
	loop_io_del(k->loop, &k->io);
	k->fd = sys_close(k->fd);
	drop_output(k);
	drop_fds(k);
}

static void go_down(struct link *k, const struct err *why)
{
	if (k->is_down)
		return;
	enter(k);
	shut(k);
	settle(k);
	close_all(k, why);
	if (!k->freed && k->ops->down)
		k->ops->down(k, why);
	leave(k);
}

static void destroy(struct link *k)
{
	reap(k);
	loop_call_cancel(k->loop, &k->flush_call);
	loop_call_cancel(k->loop, &k->reap_call);
	free(k->payload);
	free(k->out);
	free(k);
}

struct link *link_free(struct link *k)
{
	if (!k || k->freed)
		return NULL;
	if (!k->is_down && out_used(k))
		(void)write_some(k); /* a last answer goes out if the socket takes it */
	shut(k);
	k->freed = true;
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!list_empty(&k->streams[i]))
			retire(LIST_ENTRY(k->streams[i].next, struct stream, hash));
	if (!k->busy)
		destroy(k);
	return NULL;
}

/* ---- input ---- */

static int violation(struct err *e, const char *what)
{
	return err_set(e, ERR_INVALID, "link: %s", what);
}

static void refuse(struct link *k, uint32_t id, int code, const char *why)
{
	struct str text = STR_INIT(RECORD_MAX);
	struct rec_failure f = {.message = span_of(why)};

	if (rec_encode(&rec_failure_type, &f, &text, NULL) == 0)
		put_frame(k,
			  &(struct frame){.type = FRAME_RESET,
					  .stream = id,
					  .arg = (uint32_t)code,
					  .len = (uint32_t)text.len},
			  text.p, NULL);
	str_deinit(&text);
}

static int take_fds(struct link *k, unsigned n, int *ret, struct err *e)
{
	if (n > k->n_fds)
		return violation(e, "a frame without its descriptors");
	memcpy(ret, k->fds, n * sizeof(int));
	k->n_fds -= n;
	memmove(k->fds, k->fds + n, k->n_fds * sizeof(int));
	return 0;
}

static void close_fds(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)sys_close(fds[i]);
}

static int in_request(struct link *k, const struct frame *f, struct span payload, const int *fds,
		      struct err *e)
{
	bool odd = f->stream & 1, theirs_are_odd = !(k->flags & LINK_INITIATOR);
	struct stream *s;

	if (odd != theirs_are_odd || find(k, f->stream)) {
		close_fds(fds, f->fds);
		return violation(e, "a request on a stream number that is not free");
	}
	if (!k->ops->request || k->n_streams >= LIMIT_LINK_STREAMS) {
		close_fds(fds, f->fds);
		refuse(k, f->stream, k->ops->request ? ERR_LIMIT : ERR_UNSUPPORTED,
		       k->ops->request ? "too many open calls on this connection (1024)"
				       : "this side takes no calls");
		return 0;
	}
	s = stream_new(k, f->stream, false, f->arg);
	k->ops->request(k, s, f->arg, payload, fds, f->fds);
	if (!k->freed && !s->dead && !s->accepted) {
		struct err why = ERR_INIT;

		err_set(&why, ERR_UNSUPPORTED, "nobody answers method %u", f->arg);
		stream_fail(s, &why);
	}
	return 0;
}

static int in_reply(struct stream *s, struct span payload, const int *fds, unsigned n_fds,
		    struct err *e)
{
	if (!s->is_opener || s->replied) {
		close_fds(fds, n_fds);
		return violation(e, "a reply to no question");
	}
	s->replied = true;
	if (s->ops->reply)
		s->ops->reply(s, payload, fds, n_fds);
	else
		close_fds(fds, n_fds);
	close_if_complete(s);
	return 0;
}

static int in_data(struct stream *s, const struct frame *f, struct span payload, struct err *e)
{
	if (s->rx_ended)
		return violation(e, "bytes behind the end of a stream");
	if (!s->rx_started || f->offset > s->rx_offset) { /* first byte, or the sender skipped */
		s->rx_started = true;
		s->rx_offset = s->rx_consumed = s->rx_granted = f->offset;
	}
	if (f->offset != s->rx_offset)
		return violation(e, "bytes out of order");
	if (s->rx_offset + payload.n - s->rx_consumed > LIMIT_WINDOW)
		return violation(e, "bytes beyond the credit");
	s->rx_offset += payload.n;
	if (s->ops && s->ops->data)
		s->ops->data(s, f->offset, payload);
	else
		stream_consumed(s, payload.n);
	return 0;
}

static int in_window(struct stream *s, uint64_t consumed, struct err *e)
{
	uint64_t limit = consumed + LIMIT_WINDOW;

	if (consumed > s->tx_offset)
		return violation(e, "credit for bytes never sent");
	if (limit <= s->tx_limit)
		return 0;
	s->tx_limit = limit;
	list_del(&s->blocked);
	if (s->ops && s->ops->writable)
		s->ops->writable(s);
	return 0;
}

static int in_end(struct stream *s, uint64_t offset, struct err *e)
{
	if (s->rx_ended)
		return violation(e, "a stream ended twice");
	s->rx_ended = true;
	if (s->ops && s->ops->end)
		s->ops->end(s, offset);
	close_if_complete(s);
	return 0;
}

static void in_reset(struct stream *s, uint32_t code, struct span payload)
{
	struct rec_failure f;
	struct err why = ERR_INIT;

	if (code == 0 || code >= ERR_CODE_N)
		code = ERR_INTERNAL;
	if (rec_decode(&rec_failure_type, payload.p, payload.n, &f, NULL) == 0)
		err_set(&why, (int)code, "%.*s", (int)f.message.n, f.message.p ? f.message.p : "");
	else
		err_set(&why, (int)code, "%s", err_code_name((int)code));
	close_stream(s, &why);
}

static int dispatch(struct link *k, const struct frame *f, struct span payload, struct err *e)
{
	struct stream *s = find(k, f->stream);
	int fds[FRAME_FDS_MAX];
	int r = take_fds(k, f->fds, fds, e);

	if (r < 0)
		return r;
	if (f->type == FRAME_REQ)
		return in_request(k, f, payload, fds, e);
	if (f->type == FRAME_RES && s)
		return in_reply(s, payload, fds, f->fds, e);
	close_fds(fds, f->fds);
	if (!s) /* crossed with our reset */
		return 0;
	switch (f->type) {
	case FRAME_DATA: return in_data(s, f, payload, e);
	case FRAME_WINDOW: return in_window(s, f->offset, e);
	case FRAME_END: return in_end(s, f->offset, e);
	case FRAME_RESET: in_reset(s, f->arg, payload); return 0;
	}
	return violation(e, "a frame of unknown type");
}

static int synced(struct link *k, struct err *e)
{
	const struct frame_sync *in = &k->parser.sync;
	struct err gone = ERR_INIT;

	if (in->version_min > FRAME_VERSION || in->version_max < FRAME_VERSION)
		return err_set(e, ERR_UNSUPPORTED,
			       "link: the peer speaks versions %u to %u, this side %d: "
			       "use programs of one release",
			       in->version_min, in->version_max, FRAME_VERSION);
	if (!(k->flags & LINK_INITIATOR)) {
		struct frame_sync answer = {FRAME_VERSION, FRAME_VERSION, {0}, in->generation};

		memcpy(answer.nonce, in->nonce, FRAME_NONCE);
		err_set(&gone, ERR_GONE, "the other end of the link was replaced");
		k->up = false;
		close_all(k, &gone);
		if (k->freed)
			return 0;
		drop_output(k);
		k->next_id = 2;
		frame_put_sync(out_space(k, FRAME_SYNC), &answer);
		loop_defer(k->loop, &k->flush_call, on_flush);
	}
	k->generation = in->generation;
	k->up = true;
	if (k->ops->up)
		k->ops->up(k, in->generation);
	return 0;
}

/* Pieces of a payload: whole in the input if possible, else collected. */
static void keep_piece(struct link *k)
{
	if (k->parser.piece_len == k->parser.f.len) {
		k->whole = k->parser.piece;
		k->have = k->parser.piece_len;
		return;
	}
	k->whole = NULL;
	memcpy(k->payload + k->have, k->parser.piece, k->parser.piece_len);
	k->have += k->parser.piece_len;
}

/* The input buffer is about to go: a payload that only waits for its trailer must be kept. */
static void keep_whole(struct link *k)
{
	if (!k->whole)
		return;
	memcpy(k->payload, k->whole, k->have);
	k->whole = NULL;
}

static int parse(struct link *k, const unsigned char *p, size_t n, struct err *e)
{
	int r = 0;

	while (r >= 0 && !k->freed && !k->is_down) {
		r = frame_parse(&k->parser, &p, &n, e);
		if (r == FRAME_MORE)
			break;
		if (r == FRAME_HEADER) {
			k->have = 0;
			k->whole = NULL;
		} else if (r == FRAME_PAYLOAD) {
			keep_piece(k);
		} else if (r == FRAME_DONE) {
			struct span payload = {(const char *)(k->whole ? k->whole : k->payload),
					       k->parser.f.len};

			k->whole = NULL;
			if (k->up)
				r = dispatch(k, &k->parser.f, payload, e);
		} else if (r == FRAME_SYNCED) {
			r = synced(k, e);
		}
	}
	if (!k->freed)
		keep_whole(k);
	return r < 0 ? r : 0;
}

static ssize_t read_some(struct link *k, void *p, size_t n)
{
	int fds[FRAME_FDS_MAX];
	unsigned n_fds = FRAME_FDS_MAX;
	ssize_t r;

	if (!(k->flags & (LINK_SOCKET | LINK_FDS)))
		return sys_read(k->fd, p, n);
	if (!(k->flags & LINK_FDS))
		n_fds = 0; /* whatever arrives is an error */
	r = sys_recv(k->fd, p, n, fds, &n_fds);
	if (r < 0)
		return r;
	if (k->n_fds + n_fds > FDS_QUEUED) {
		close_fds(fds, n_fds);
		return -EPROTO;
	}
	memcpy(k->fds + k->n_fds, fds, n_fds * sizeof(int));
	k->n_fds += n_fds;
	return r;
}

static void fill(struct link *k)
{
	unsigned char buf[READ_SIZE];
	struct err e = ERR_INIT;

	for (int i = 0; i < READS_PER_EVENT && !k->freed && !k->is_down; i++) {
		ssize_t r = read_some(k, buf, sizeof(buf));

		if (r == -EAGAIN)
			return;
		if (r == 0)
			err_set(&e, ERR_GONE, "link: the other end closed it");
		else if (r < 0)
			err_sys(&e, (int)r, "link: read");
		else
			(void)parse(k, buf, (size_t)r, &e);
		if (e.code && !k->freed) {
			go_down(k, &e);
			return;
		}
		if ((size_t)r < sizeof(buf) || out_used(k) >= OUT_HARD)
			return;
	}
}

static void on_io(struct loop_io *io, unsigned events)
{
	struct link *k = CONTAINER_OF(io, struct link, io);

	enter(k);
	if (events & (LOOP_READ | LOOP_HANGUP))
		fill(k);
	if (events & LOOP_WRITE && !k->is_down && !k->freed)
		flush(k);
	if (!k->is_down && !k->freed)
		update_interest(k);
	leave(k);
}

/* ---- public ---- */

static int send_sync(struct link *k, uint64_t generation, struct err *e)
{
	struct frame_sync sync = {FRAME_VERSION, FRAME_VERSION, {0}, generation};
	int r = sys_random(sync.nonce, sizeof(sync.nonce));

	if (r < 0)
		return err_sys(e, r, "link: random nonce");
	if (k->flags & LINK_RESYNC)
		memset(out_space(k, FRAME_PAD_MAX), 0, FRAME_PAD_MAX);
	frame_put_sync(out_space(k, FRAME_SYNC), &sync);
	frame_parser_expect(&k->parser, sync.nonce);
	loop_defer(k->loop, &k->flush_call, on_flush);
	return 0;
}

int link_new(struct loop *l, int fd, unsigned flags, uint64_t generation,
	     const struct link_ops *ops, void *arg, struct link **ret, struct err *e)
{
	struct link *k = mem_new(sizeof(*k));
	int r;

	*k = (struct link){.loop = l, .ops = ops, .arg = arg, .fd = fd, .flags = flags};
	for (unsigned i = 0; i < BUCKETS; i++)
		list_init(&k->streams[i]);
	list_init(&k->blocked);
	list_init(&k->dead);
	list_init(&k->marks);
	k->next_id = flags & LINK_INITIATOR ? 1 : 2;
	k->payload = mem_new(FRAME_PAYLOAD_MAX);
	frame_parser_init(&k->parser, flags & LINK_INITIATOR);
	r = sys_nonblock(fd, true);
	if (r == 0)
		r = loop_io_add(l, &k->io, fd, LOOP_READ, on_io);
	if (r < 0) {
		r = err_sys(e, r, "link: watch the descriptor");
		link_free(k);
		return r;
	}
	r = flags & LINK_INITIATOR ? send_sync(k, generation, e) : 0;
	if (r < 0) {
		link_free(k);
		return r;
	}
	*ret = k;
	return 0;
}

void *link_arg(const struct link *k)
{
	return k->arg;
}

struct loop *link_loop(const struct link *k)
{
	return k->loop;
}

bool link_is_up(const struct link *k)
{
	return k->up;
}

unsigned link_streams(const struct link *k)
{
	return k->n_streams;
}

int link_fd(const struct link *k)
{
	return k->fd;
}

static int put_record(struct link *k, struct frame *f, const struct rec_type *t, const void *rec,
		      const int *fds, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX + 1);
	int r = rec_encode(t, rec, &bytes, e);

	if (r == 0) {
		f->len = (uint32_t)bytes.len;
		put_frame(k, f, bytes.p, fds);
	}
	str_deinit(&bytes);
	return r;
}

static uint32_t free_id(struct link *k)
{
	uint32_t id;

	do {
		id = k->next_id;
		k->next_id = k->next_id + 2 ? k->next_id + 2 : 2; /* even numbers wrap past 0 */
	} while (find(k, id));
	return id;
}

int link_call(struct link *k, unsigned method, const struct rec_type *t, const void *rec, bool more,
	      const int *fds, unsigned n_fds, const struct stream_ops *ops, void *arg,
	      struct stream **ret, struct err *e)
{
	struct frame f = {.type = FRAME_REQ, .arg = method, .fds = (uint8_t)n_fds};
	struct stream *s;
	int r;

	assert(n_fds == 0 || (k->flags & LINK_FDS && n_fds <= FRAME_FDS_MAX));
	if (!k->up)
		return err_set(e, ERR_UNAVAILABLE, "the link is not up");
	if (k->n_streams >= LIMIT_LINK_STREAMS)
		return err_set(e, ERR_LIMIT, "too many open calls on one link (%d)",
			       LIMIT_LINK_STREAMS);
	f.stream = free_id(k);
	r = put_record(k, &f, t, rec, fds, e);
	if (r < 0)
		return r;
	s = stream_new(k, f.stream, true, method);
	s->ops = ops;
	s->arg = arg;
	s->accepted = true;
	if (!more)
		stream_end(s);
	if (ret)
		*ret = s;
	return 0;
}

void stream_accept(struct stream *s, const struct stream_ops *ops, void *arg)
{
	s->ops = ops;
	s->arg = arg;
	s->accepted = true;
}

static void replied(struct stream *s, bool more)
{
	s->replied = true;
	if (!more)
		stream_end(s);
	close_soon_if_complete(s);
}

int stream_reply(struct stream *s, const struct rec_type *t, const void *rec, bool more,
		 const int *fds, unsigned n_fds, struct err *e)
{
	struct frame f = {.type = FRAME_RES, .stream = s->id, .fds = (uint8_t)n_fds};
	int r;

	assert(!s->is_opener && !s->replied);
	if (s->dead)
		return 0;
	r = put_record(s->link, &f, t, rec, fds, e);
	if (r == 0)
		replied(s, more);
	return r;
}

void stream_reply_raw(struct stream *s, struct span payload, bool more)
{
	struct frame f = {.type = FRAME_RES, .stream = s->id, .len = (uint32_t)payload.n};

	assert(!s->is_opener && !s->replied && payload.n <= FRAME_PAYLOAD_MAX);
	if (s->dead)
		return;
	put_frame(s->link, &f, payload.p, NULL);
	replied(s, more);
}

void stream_fail(struct stream *s, const struct err *why)
{
	s->owes_closed = false; /* LINK-1 */
	if (s->dead)
		return;
	refuse(s->link, s->id, why->code ? why->code : ERR_INTERNAL, why->text);
	retire(s);
}

void stream_reset(struct stream *s)
{
	static const struct err canceled = {ERR_CANCELED, "the call was withdrawn"};

	stream_fail(s, &canceled);
}

size_t stream_credit(const struct stream *s)
{
	return s->tx_ended || s->dead || s->tx_limit <= s->tx_offset
		       ? 0
		       : (size_t)(s->tx_limit - s->tx_offset);
}

void stream_push(struct stream *s, const void *p, size_t n)
{
	assert(n <= stream_credit(s));
	while (n) {
		size_t piece = MIN(n, (size_t)DATA_SIZE);

		put_frame(s->link,
			  &(struct frame){.type = FRAME_DATA,
					  .stream = s->id,
					  .len = (uint32_t)piece,
					  .offset = s->tx_offset},
			  p, NULL);
		s->tx_offset += piece;
		p = (const char *)p + piece;
		n -= piece;
	}
}

size_t stream_send(struct stream *s, const void *p, size_t n)
{
	size_t used = out_used(s->link), room = used < OUT_SOFT ? OUT_SOFT - used : 0;
	size_t may = MIN(stream_credit(s), room), take = MIN(n, may);

	stream_push(s, p, take);
	if (take < n && !s->dead && !s->tx_ended && room < stream_credit(s) + take &&
	    list_empty(&s->blocked))
		list_add_tail(&s->link->blocked, &s->blocked);
	return take;
}

void stream_skip(struct stream *s, uint64_t to_offset)
{
	assert(to_offset >= s->tx_offset);
	s->tx_limit += to_offset - s->tx_offset;
	s->tx_offset = to_offset;
}

void stream_start_at(struct stream *s, uint64_t offset)
{
	s->tx_offset = offset;
	s->tx_limit = offset + LIMIT_WINDOW;
}

void stream_end(struct stream *s)
{
	if (s->tx_ended || s->dead)
		return;
	s->tx_ended = true;
	list_del(&s->blocked);
	put_simple(s, FRAME_END, s->tx_offset);
	close_soon_if_complete(s);
}

void stream_consumed_to(struct stream *s, uint64_t offset)
{
	if (s->dead || offset <= s->rx_consumed)
		return;
	assert(offset <= s->rx_offset);
	s->rx_consumed = offset;
	/* Tell the peer in quarters of the window, or it would hear about every frame. */
	if (!s->rx_ended && s->rx_consumed - s->rx_granted >= LIMIT_WINDOW / 4) {
		s->rx_granted = s->rx_consumed;
		put_simple(s, FRAME_WINDOW, s->rx_consumed);
	}
}

void stream_consumed(struct stream *s, size_t n)
{
	stream_consumed_to(s, s->rx_consumed + n);
}

bool stream_send_item(struct stream *s, const struct rec_type *t, const void *rec)
{
	struct str bytes = STR_INIT(RECORD_MAX + 16);
	bool fits = false;

	if (rec_item_encode(t, rec, &bytes, NULL) == 0) {
		fits = bytes.len <= stream_credit(s);
		if (fits)
			stream_push(s, bytes.p, bytes.len);
	} else {
		fits = true; /* a defect of ours: an item that breaks its own schema is left out */
	}
	str_deinit(&bytes);
	return fits;
}

void *stream_arg(const struct stream *s)
{
	return s->arg;
}

struct link *stream_link(const struct stream *s)
{
	return s->link;
}

unsigned stream_method(const struct stream *s)
{
	return s->method;
}

uint64_t stream_sent(const struct stream *s)
{
	return s->tx_offset;
}

uint64_t stream_peer_consumed(const struct stream *s)
{
	return s->tx_limit >= LIMIT_WINDOW ? s->tx_limit - LIMIT_WINDOW : 0;
}

bool stream_is_replied(const struct stream *s)
{
	return s->replied;
}
