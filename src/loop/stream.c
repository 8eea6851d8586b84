/* loop/stream.c - calls and byte streams of a link: credit, replies, ends */
#include "loop/link_int.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

/* Far from where sums of offsets and lengths could wrap. */
#define OFFSET_MAX (UINT64_C(1) << 62)

static void on_reap(struct loop_call *c);

/* ---- the table and the end of a stream ---- */

static void put_simple(struct stream *s, enum frame_type type, uint64_t offset)
{
	link_put_frame(s->link, &(struct frame){.type = type, .stream = s->id, .offset = offset}, NULL);
}

static unsigned bucket(uint32_t id)
{
	return id / 2 % BUCKETS; /* the last bit only says whose it is */
}

static struct stream *find(struct link *k, uint32_t id)
{
	LIST_FOR_EACH(pos, &k->streams[bucket(id)]) {
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
	};
	list_init(&s->blocked);
	list_add_tail(&k->streams[bucket(id)], &s->hash);
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
void link_settle(struct link *k)
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

void link_reap(struct link *k)
{
	link_settle(k);
	while (!list_empty(&k->dead)) {
		struct stream *s = LIST_ENTRY(k->dead.next, struct stream, hash);

		list_del(&s->hash);
		free(s);
	}
}

static void on_reap(struct loop_call *c)
{
	struct link *k = CONTAINER_OF(c, struct link, reap_call);

	link_enter(k);
	link_reap(k);
	link_leave(k);
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

void link_close_streams(struct link *k, const struct err *why)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!k->freed && !list_empty(&k->streams[i]))
			close_stream(LIST_ENTRY(k->streams[i].next, struct stream, hash), why);
}

void link_retire_streams(struct link *k)
{
	for (unsigned i = 0; i < BUCKETS; i++)
		while (!list_empty(&k->streams[i]))
			retire(LIST_ENTRY(k->streams[i].next, struct stream, hash));
}

/* ---- frames of the peer ---- */

static int violation(struct err *e, const char *what)
{
	return err_set(e, ERR_INVALID, "link: %s", what);
}

static void refuse(struct link *k, uint32_t id, int code, const char *why)
{
	struct str text = STR_INIT(RECORD_MAX);
	struct rec_failure f = {.message = span_of(why)};

	if (rec_encode(&rec_failure_type, &f, &text, NULL) == 0)
		link_put_frame(k,
			  &(struct frame){.type = FRAME_RESET,
					  .stream = id,
					  .arg = (uint32_t)code,
					  .len = (uint32_t)text.len},
			  text.p);
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

void link_close_fds(const int *fds, unsigned n)
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
		link_close_fds(fds, f->fds);
		return violation(e, "a request on a stream number that is not free");
	}
	if (!k->ops->request || k->n_streams >= LIMIT_LINK_STREAMS) {
		link_close_fds(fds, f->fds);
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
		link_close_fds(fds, n_fds);
		return violation(e, "a reply to no question");
	}
	s->replied = true;
	if (s->ops && s->ops->reply)
		s->ops->reply(s, payload, fds, n_fds);
	else
		link_close_fds(fds, n_fds);
	close_if_complete(s);
	return 0;
}

static int in_data(struct stream *s, const struct frame *f, struct span payload, struct err *e)
{
	if (s->is_opener && !s->replied)
		return violation(e, "bytes before the answer");
	if (s->rx_ended)
		return violation(e, "bytes behind the end of a stream");
	if (f->offset > OFFSET_MAX)
		return violation(e, "an offset beyond 2^62");
	if (s->rx_started && f->offset < s->rx_offset)
		return violation(e, "bytes out of order");
	if (s->rx_held + payload.n > LIMIT_WINDOW)
		return violation(e, "bytes beyond the credit");
	s->rx_started = true;
	s->rx_offset = f->offset + payload.n;
	s->rx_held += payload.n;
	if (s->ops && s->ops->data)
		s->ops->data(s, f->offset, payload);
	else
		stream_consumed(s, payload.n);
	return 0;
}

static int in_window(struct stream *s, uint64_t consumed, struct err *e)
{
	if (consumed > s->tx_sent)
		return violation(e, "credit for bytes never sent");
	if (consumed <= s->tx_acked)
		return 0;
	s->tx_acked = consumed;
	list_del(&s->blocked);
	if (s->ops && s->ops->writable)
		s->ops->writable(s);
	return 0;
}

static int in_end(struct stream *s, uint64_t offset, struct err *e)
{
	if (s->rx_ended)
		return violation(e, "a stream ended twice");
	if (offset > OFFSET_MAX || (s->rx_started && offset < s->rx_offset))
		return violation(e, "an end before the last byte");
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

int link_dispatch(struct link *k, const struct frame *f, struct span payload, struct err *e)
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
	link_close_fds(fds, f->fds);
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

/* ---- public ---- */

static int put_record(struct link *k, struct frame *f, const struct rec_type *t, const void *rec,
		      const int *fds, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX + 1);
	int r = rec_encode(t, rec, &bytes, e);

	if (r == 0 && f->fds)
		r = link_mark_fds(k, fds, f->fds, e);
	if (r == 0) {
		f->len = (uint32_t)bytes.len;
		link_put_frame(k, f, bytes.p);
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
	link_put_frame(s->link, &f, payload.p);
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
	return s->tx_ended || s->dead ? 0 : (size_t)(LIMIT_WINDOW - (s->tx_sent - s->tx_acked));
}

void stream_push(struct stream *s, const void *p, size_t n)
{
	assert(n <= stream_credit(s));
	while (n) {
		size_t piece = MIN(n, (size_t)DATA_SIZE);

		link_put_frame(s->link,
			  &(struct frame){.type = FRAME_DATA,
					  .stream = s->id,
					  .len = (uint32_t)piece,
					  .offset = s->tx_offset},
			  p);
		s->tx_offset += piece;
		s->tx_sent += piece;
		p = (const char *)p + piece;
		n -= piece;
	}
}

size_t stream_send(struct stream *s, const void *p, size_t n)
{
	size_t used = link_out_used(s->link), room = used < OUT_SOFT ? OUT_SOFT - used : 0;
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
	s->tx_offset = to_offset;
}

void stream_start_at(struct stream *s, uint64_t offset)
{
	assert(s->tx_sent == 0);
	s->tx_offset = offset;
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

void stream_consumed(struct stream *s, size_t n)
{
	if (s->dead)
		return;
	assert(n <= s->rx_held);
	s->rx_held -= n;
	s->rx_consumed += n;
	/* Tell the peer in quarters of the window, or it would hear about every frame. */
	if (!s->rx_ended && s->rx_consumed - s->rx_granted >= LIMIT_WINDOW / 4) {
		s->rx_granted = s->rx_consumed;
		put_simple(s, FRAME_WINDOW, s->rx_consumed);
	}
}

void stream_consumed_to(struct stream *s, uint64_t offset)
{
	uint64_t dealt_with = s->rx_offset - s->rx_held;

	/* An owner that took the session over may be ahead of a stream that has brought nothing yet. */
	if (offset > dealt_with)
		stream_consumed(s, (size_t)MIN(offset - dealt_with, (uint64_t)s->rx_held));
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
	return s->tx_offset - (s->tx_sent - s->tx_acked);
}

bool stream_is_replied(const struct stream *s)
{
	return s->replied;
}
