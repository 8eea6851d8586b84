/* loop/link.c - frames over one descriptor: output with descriptors, input, getting in step, the end */
#include "loop/link_int.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/sock.h"

static void on_io(struct loop_io *io, unsigned events);
static void on_flush(struct loop_call *c);
static void go_down(struct link *k, const struct err *why);
static void hear_last_words(struct link *k, int negative_errno);

/* ---- callbacks with care: the callee may free link and streams ---- */

void link_enter(struct link *k)
{
	k->busy++;
}

static void destroy(struct link *k);

void link_leave(struct link *k)
{
	if (--k->busy == 0 && k->freed)
		destroy(k);
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

static void drop_mark(struct fd_mark *m)
{
	list_del(&m->link);
	for (unsigned i = 0; i < m->n; i++)
		(void)sys_close(m->fds[i]);
	free(m);
}

int link_mark_fds(struct link *k, const int *fds, unsigned n, struct err *e)
{
	struct fd_mark *m = mem_new(sizeof(*m));

	m->at = k->out_written + link_out_used(k);
	list_add_tail(&k->marks, &m->link);
	for (; m->n < n; m->n++) {
		int fd = sys_dup(fds[m->n]);

		if (fd < 0) {
			drop_mark(m);
			return err_sys(e, fd, "link: pass a descriptor");
		}
		m->fds[m->n] = fd;
	}
	return 0;
}

void link_put_frame(struct link *k, const struct frame *f, const void *payload)
{
	unsigned char *p;

	if (k->is_down || k->is_mute)
		return;
	p = out_space(k, FRAME_HEAD + f->len + 1);
	frame_put(p, f);
	if (f->len)
		memcpy(p + FRAME_HEAD, payload, f->len);
	p[FRAME_HEAD + f->len] = FRAME_TRAILER;
	loop_defer(k->loop, &k->flush_call, on_flush);
}

static struct fd_mark *first_mark(struct link *k)
{
	return list_empty(&k->marks) ? NULL : LIST_ENTRY(k->marks.next, struct fd_mark, link);
}

/* Bytes up to the next mark go alone; those of a mark go with its descriptors, and not with another's. */
static ssize_t write_some(struct link *k)
{
	struct fd_mark *m = first_mark(k), *limit = m;
	struct iovec iov = {k->out + k->out_head, link_out_ready(k)};
	ssize_t r;

	if (!(k->flags & (LINK_SOCKET | LINK_FDS)))
		return sys_write(k->fd, iov.iov_base, iov.iov_len);
	if (m && m->at == k->out_written)
		limit = m->link.next == &k->marks ? NULL : LIST_ENTRY(m->link.next, struct fd_mark, link);
	else
		m = NULL;
	if (limit)
		iov.iov_len = MIN(iov.iov_len, (size_t)(limit->at - k->out_written));
	r = sys_send(k->fd, &iov, 1, m ? m->fds : NULL, m ? m->n : 0);
	if (r > 0 && m)
		drop_mark(m);
	return r;
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
	unsigned want = (link_out_ready(k) ? LOOP_WRITE : 0u) | (link_out_used(k) < OUT_HARD ? LOOP_READ : 0u);

	if (!k->freed && !k->is_down)
		(void)loop_io_set(k->loop, &k->io, want);
}

static void out_trim(struct link *k)
{
	if (link_out_used(k))
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
	link_enter(k);
	while (!k->is_down && link_out_ready(k)) {
		ssize_t r = write_some(k);

		if (r == -EAGAIN)
			break;
		if (r < 0) {
			hear_last_words(k, (int)r);
			break;
		}
		k->out_head += (size_t)r;
		k->out_written += (uint64_t)r;
	}
	if (!k->is_down && !k->freed) {
		out_trim(k);
		if (link_out_used(k) < OUT_SOFT / 2)
			wake_blocked(k);
		update_interest(k);
	}
	link_leave(k);
}

static void on_flush(struct loop_call *c)
{
	flush(CONTAINER_OF(c, struct link, flush_call));
}

void link_hold(struct link *k)
{
	if (k->is_held)
		return;
	k->is_held = true;
	k->hold_at = k->out_written + link_out_used(k);
}

void link_release(struct link *k)
{
	if (!k->is_held)
		return;
	k->is_held = false;
	if (!k->is_down)
		loop_defer(k->loop, &k->flush_call, on_flush);
}

static void drop_output(struct link *k)
{
	while (!list_empty(&k->marks))
		drop_mark(LIST_ENTRY(k->marks.next, struct fd_mark, link));
	k->out_written += link_out_used(k);
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
	link_enter(k);
	shut(k);
	link_settle(k);
	link_close_streams(k, why);
	if (!k->freed && k->ops->down)
		k->ops->down(k, why);
	link_leave(k);
}

static void destroy(struct link *k)
{
	link_reap(k);
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
	if (!k->is_down && link_out_ready(k))
		(void)write_some(k); /* a last answer goes out if the socket takes it */
	shut(k);
	k->freed = true;
	link_retire_streams(k);
	if (!k->busy)
		destroy(k);
	return NULL;
}

/* ---- input ---- */

/* A new initiator: nothing said before counts. */
static void start_over(struct link *k, const struct frame_sync *in)
{
	struct frame_sync answer = {FRAME_VERSION, FRAME_VERSION, {0}, in->generation};
	struct err gone = ERR_INIT;

	memcpy(answer.nonce, in->nonce, FRAME_NONCE);
	err_set(&gone, ERR_GONE, "the other end of the link was replaced");
	k->up = false;
	link_settle(k);
	link_close_streams(k, &gone);
	if (k->freed)
		return;
	drop_output(k);
	k->is_held = false;
	drop_fds(k);
	k->next_id = 2;
	frame_put_sync(out_space(k, FRAME_SYNC), &answer);
	loop_defer(k->loop, &k->flush_call, on_flush);
}

static int synced(struct link *k, struct err *e)
{
	const struct frame_sync *in = &k->parser.sync;

	if (!(k->flags & LINK_INITIATOR))
		start_over(k, in);
	if (k->freed)
		return 0;
	if (in->version_min > FRAME_VERSION || in->version_max < FRAME_VERSION) {
		if (link_out_ready(k))
			(void)write_some(k); /* the answer, so that the peer can say it too */
		return err_set(e, ERR_UNSUPPORTED,
			       "link: the peer speaks versions %u to %u, this side %d: "
			       "use programs of one release",
			       in->version_min, in->version_max, FRAME_VERSION);
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
				r = link_dispatch(k, &k->parser.f, payload, e);
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
		link_close_fds(fds, n_fds);
		return -EPROTO;
	}
	memcpy(k->fds + k->n_fds, fds, n_fds * sizeof(int));
	k->n_fds += n_fds;
	return r;
}

/* Return: there may be more. */
static bool fill_once(struct link *k)
{
	unsigned char buf[READ_SIZE];
	struct err e = ERR_INIT;
	ssize_t r = read_some(k, buf, sizeof(buf));

	if (r > 0)
		k->heard_ns = loop_now(k->loop);
	if (r == -EAGAIN)
		return false;
	if (r == 0)
		err_set(&e, ERR_GONE, "link: the other end closed it");
	else if (r < 0)
		err_sys(&e, (int)r, "link: read");
	else
		(void)parse(k, buf, (size_t)r, &e);
	if (e.code && !k->freed)
		go_down(k, &e);
	return !k->freed && !k->is_down;
}

static void fill(struct link *k)
{
	for (int i = 0; i < READS_PER_EVENT; i++)
		if (!fill_once(k) || link_out_used(k) >= OUT_HARD)
			return;
}

/* The peer takes no more bytes, but what it said before it left still counts. */
static void hear_last_words(struct link *k, int negative_errno)
{
	struct err e = ERR_INIT;

	k->is_mute = true;
	drop_output(k);
	for (int i = 0; i < LAST_READS; i++)
		if (!fill_once(k))
			break;
	err_sys(&e, negative_errno, "link: write");
	if (!k->freed)
		go_down(k, &e);
}

static void on_io(struct loop_io *io, unsigned events)
{
	struct link *k = CONTAINER_OF(io, struct link, io);

	link_enter(k);
	if (events & (LOOP_READ | LOOP_HANGUP))
		fill(k);
	if (events & LOOP_WRITE && !k->is_down && !k->freed)
		flush(k);
	if (!k->is_down && !k->freed)
		update_interest(k);
	link_leave(k);
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

	*k = (struct link){.loop = l, .ops = ops, .arg = arg, .fd = fd, .flags = flags, .heard_ns = loop_now(l)};
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

uint64_t link_heard_ns(const struct link *k)
{
	return k->heard_ns;
}

