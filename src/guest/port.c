/* guest/port.c - port.connect: a tunnel to a TCP port on the loopback of the workload */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/ring.h"
#include "guest/agent.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { PIECE = 65536 };

struct tunnel {
	struct stream *s;
	struct loop *loop;
	struct loop_io io;
	int fd;
	uint16_t port;
	bool is_v6, connected;
	bool from_ended, to_ended; /* the program sends no more; the stream sends no more */
	bool shut;		   /* the program was told so */
	struct ring out;	   /* towards the program; made when first needed */
};

static void tunnel_free(struct tunnel *t)
{
	loop_io_del(t->loop, &t->io);
	(void)sys_close(t->fd);
	ring_deinit(&t->out);
	free(t);
}

static void fail(struct tunnel *t, int code, const char *what)
{
	struct stream *s = t->s;
	struct err e = ERR_INIT;

	err_set(&e, code, "port %u: %s", t->port, what);
	tunnel_free(t);
	stream_fail(s, &e);
}

static void on_socket(struct loop_io *io, unsigned events);

/* Watch for what can be used; nothing to watch for: not at all, or a hang-up would spin. */
static void update(struct tunnel *t)
{
	unsigned want = (ring_used(&t->out) ? LOOP_WRITE : 0u) |
			(!t->from_ended && stream_credit(t->s) ? LOOP_READ : 0u);

	if (want == 0)
		loop_io_del(t->loop, &t->io);
	else if (t->io.added)
		(void)loop_io_set(t->loop, &t->io, want);
	else if (loop_io_add(t->loop, &t->io, t->fd, want, on_socket) < 0)
		fail(t, ERR_INTERNAL, "can't watch the connection");
}

/* Towards the program. Returns false when @t is gone. */
static bool flush(struct tunnel *t)
{
	while (ring_used(&t->out)) {
		size_t n;
		const void *p = ring_at(&t->out, t->out.head, &n);
		ssize_t r = send(t->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (r < 0 && (errno == EAGAIN || errno == EINTR))
			return true;
		if (r < 0) {
			fail(t, ERR_GONE, "the program closed the connection");
			return false;
		}
		ring_drop(&t->out, (size_t)r);
		stream_consumed(t->s, (size_t)r);
	}
	if (t->to_ended && !t->shut) {
		t->shut = true;
		(void)shutdown(t->fd, SHUT_WR);
	}
	return true;
}

/* From the program. Returns false when @t may be gone. */
static bool fetch(struct tunnel *t)
{
	char buf[PIECE];
	size_t want = MIN(sizeof(buf), stream_credit(t->s));
	ssize_t r;

	if (!want || t->from_ended)
		return true;
	r = recv(t->fd, buf, want, MSG_DONTWAIT);
	if (r > 0) {
		stream_push(t->s, buf, (size_t)r);
		return true;
	}
	if (r < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (r < 0) {
		fail(t, ERR_GONE, "the program broke the connection");
		return false;
	}
	t->from_ended = true;
	update(t);
	stream_end(t->s); /* may close, and free */
	return false;
}

static void on_socket(struct loop_io *io, unsigned events)
{
	struct tunnel *t = CONTAINER_OF(io, struct tunnel, io);

	if (events & LOOP_WRITE && !flush(t))
		return;
	if (events & (LOOP_READ | LOOP_HANGUP) && !fetch(t))
		return;
	update(t);
}

static void on_writable(struct stream *s)
{
	struct tunnel *t = stream_arg(s);

	if (t->connected)
		update(t);
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct tunnel *t = stream_arg(s);

	(void)offset;
	if (!t->out.cap && ring_init(&t->out, LIMIT_WINDOW) < 0) {
		fail(t, ERR_LIMIT, "no memory");
		return;
	}
	(void)ring_write(&t->out, bytes.p, bytes.n); /* credit never exceeds it */
	if (t->connected && flush(t))
		update(t);
}

static void on_end(struct stream *s, uint64_t offset)
{
	struct tunnel *t = stream_arg(s);

	(void)offset;
	t->to_ended = true;
	if (t->connected && flush(t))
		update(t);
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	tunnel_free(stream_arg(s));
}

static const struct stream_ops ops = {
	.data = on_data,
	.writable = on_writable,
	.end = on_end,
	.closed = on_closed,
};

static void start_connect(struct tunnel *t);

static void connected(struct tunnel *t)
{
	struct rec_empty none = {0};
	int one = 1;

	(void)setsockopt(t->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	t->connected = true;
	(void)stream_reply(t->s, &rec_empty_type, &none, true, NULL, 0, NULL);
	if (flush(t))
		update(t);
}

/* Nobody there: some servers listen on ::1 only. */
static void refused(struct tunnel *t)
{
	t->fd = sys_close(t->fd);
	if (t->is_v6) {
		fail(t, ERR_UNAVAILABLE, "nothing listens there");
		return;
	}
	t->is_v6 = true;
	start_connect(t);
}

static void on_connect(struct loop_io *io, unsigned events)
{
	struct tunnel *t = CONTAINER_OF(io, struct tunnel, io);
	int error = 0;
	socklen_t n = sizeof(error);

	(void)events;
	(void)getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &error, &n);
	loop_io_del(t->loop, &t->io);
	if (error)
		refused(t);
	else
		connected(t);
}

static int dial(const struct tunnel *t)
{
	struct sockaddr_in v4 = {
		.sin_family = AF_INET,
		.sin_port = htons(t->port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct sockaddr_in6 v6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(t->port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};

	if (t->is_v6)
		return connect(t->fd, (struct sockaddr *)&v6, sizeof(v6));
	return connect(t->fd, (struct sockaddr *)&v4, sizeof(v4));
}

static void start_connect(struct tunnel *t)
{
	t->fd = socket(t->is_v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (t->fd < 0 || (dial(t) < 0 && errno != EINPROGRESS))
		refused(t);
	else if (loop_io_add(t->loop, &t->io, t->fd, LOOP_WRITE, on_connect) < 0)
		fail(t, ERR_INTERNAL, "can't watch the connection");
}

void port_connect_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_port_connect *rq = rec;
	struct tunnel *t = mem_new(sizeof(*t));

	*t = (struct tunnel){.s = s, .loop = a->loop, .fd = -1, .port = (uint16_t)rq->port};
	stream_accept(s, &ops, t);
	start_connect(t);
}
