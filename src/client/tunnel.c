/* client/tunnel.c - TCP connections of this host into a sandbox */
#include "client/tunnel.h"
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/list.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/ring.h"
#include "client/conn.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { PIECE = 65536, BACKLOG = 64 };

struct tunnel {
	struct conn *conn;
	char sandbox[LIMIT_TEXT_SHORT + 1];
	uint16_t guest_port, local_port;
	int fd;
	struct loop_io io;
	struct list pipes;
	unsigned n_pipes;
	void (*failed)(void *arg, const struct err *why);
	void *arg;
};

/* One connection: socket <-> stream. */
struct pipe {
	struct tunnel *tunnel;
	struct list link;
	struct stream *stream;
	int fd;
	struct loop_io io;
	struct ring in;	 /* from the sandbox, not yet written to the socket */
	char piece[PIECE]; /* [at, n) from the socket, not yet sent */
	size_t at, n;
	bool socket_ended, stream_ended, shut;
};

static void on_accept(struct loop_io *io, unsigned events);

static void drop(struct pipe *p, const struct err *why)
{
	struct tunnel *t = p->tunnel;

	if (p->stream)
		stream_reset(p->stream);
	loop_io_del(conn_loop(t->conn), &p->io);
	(void)sys_close(p->fd);
	ring_deinit(&p->in);
	list_del(&p->link);
	free(p);
	if (t->n_pipes-- == TUNNEL_CONNECTIONS && t->fd >= 0)
		(void)loop_io_set(conn_loop(t->conn), &t->io, LOOP_READ);
	if (why && t->failed)
		t->failed(t->arg, why);
}

static bool is_over(const struct pipe *p)
{
	return p->shut && p->socket_ended && p->at == p->n;
}

static void update(struct pipe *p)
{
	unsigned want = (!p->socket_ended && p->at == p->n ? LOOP_READ : 0u) |
			(ring_used(&p->in) ? LOOP_WRITE : 0u);

	(void)loop_io_set(conn_loop(p->tunnel->conn), &p->io, want);
}

/* Sandbox to socket. */
static int write_out(struct pipe *p)
{
	while (ring_used(&p->in)) {
		size_t n;
		const void *bytes = ring_at(&p->in, p->in.head, &n);
		struct iovec iov = {(void *)bytes, n};
		ssize_t r = sys_send(p->fd, &iov, 1, NULL, 0);

		if (r == -EAGAIN)
			return 0;
		if (r < 0)
			return (int)r;
		ring_drop(&p->in, (size_t)r);
		if (p->stream)
			stream_consumed(p->stream, (size_t)r);
	}
	if (p->stream_ended && !p->shut) {
		p->shut = true;
		(void)shutdown(p->fd, SHUT_WR);
	}
	return 0;
}

/* Socket to sandbox: one piece at a time, the next when it is gone. */
static int read_in(struct pipe *p)
{
	while (p->stream && !p->socket_ended) {
		ssize_t r;

		p->at += stream_send(p->stream, p->piece + p->at, p->n - p->at);
		if (p->at < p->n)
			return 0;
		r = sys_read(p->fd, p->piece, sizeof(p->piece));
		if (r == -EAGAIN)
			return 0;
		if (r < 0)
			return (int)r;
		p->at = 0;
		p->n = (size_t)r;
		p->socket_ended = r == 0;
	}
	if (p->stream && p->at == p->n)
		stream_end(p->stream);
	return 0;
}

static void move(struct pipe *p)
{
	int r = write_out(p);

	if (r == 0)
		r = read_in(p);
	if (r < 0 || is_over(p))
		drop(p, NULL); /* the local side hung up: nothing to report */
	else
		update(p);
}

static void on_socket(struct loop_io *io, unsigned events)
{
	struct pipe *p = CONTAINER_OF(io, struct pipe, io);

	/* Reported as long as it is watched. What is left to do needs no more events from it. */
	if (events & LOOP_HANGUP)
		loop_io_del(conn_loop(p->tunnel->conn), io);
	move(p);
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct pipe *p = stream_arg(s);

	(void)offset;
	if (ring_write(&p->in, bytes.p, bytes.n) != bytes.n) {
		struct err e = ERR_INIT;

		err_set(&e, ERR_INVALID, "port %u: more bytes than were asked for",
			p->tunnel->guest_port);
		drop(p, &e);
		return;
	}
	move(p);
}

static void on_writable(struct stream *s)
{
	move(stream_arg(s));
}

static void on_end(struct stream *s, uint64_t offset)
{
	struct pipe *p = stream_arg(s);

	(void)offset;
	p->stream_ended = true;
	move(p);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct pipe *p = stream_arg(s);

	p->stream = NULL;
	if (why)
		drop(p, why);
	else if (p->shut)
		drop(p, NULL);
	/* else: complete, but the socket has not taken all of it yet */
}

static const struct stream_ops pipe_ops = {
	.data = on_data, .writable = on_writable, .end = on_end, .closed = on_closed};

static int connect_guest(struct tunnel *t, int fd, struct err *e)
{
	struct rec_port_connect rec = {.sandbox = span_of(t->sandbox), .port = t->guest_port};
	struct pipe *p;
	int r;

	p = mem_new(sizeof(*p));
	p->tunnel = t;
	p->fd = fd;
	list_add_tail(&t->pipes, &p->link);
	t->n_pipes++;
	r = ring_init(&p->in, LIMIT_WINDOW);
	if (r == 0)
		r = loop_io_add(conn_loop(t->conn), &p->io, fd, 0, on_socket);
	if (r < 0)
		r = err_sys(e, r, "watch a connection");
	if (r == 0)
		r = link_call(conn_link(t->conn), METHOD_PORT_CONNECT, &rec_port_connect_type, &rec,
			      true, NULL, 0, &pipe_ops, p, &p->stream, e);
	if (r == 0)
		update(p);
	else
		drop(p, NULL);
	return r;
}

static void refuse(int fd, struct err *e)
{
	(void)sys_close(fd);
	err_set(e, ERR_UNAVAILABLE, "the daemon is not reachable now");
}

static void on_accept(struct loop_io *io, unsigned events)
{
	struct tunnel *t = CONTAINER_OF(io, struct tunnel, io);
	struct err e = ERR_INIT;
	int fd = sys_accept(io->fd);

	(void)events;
	if (fd == -EAGAIN)
		return;
	if (fd < 0)
		err_sys(&e, fd, "accept a connection");
	else if (!conn_link(t->conn))
		refuse(fd, &e);
	else
		(void)connect_guest(t, fd, &e);
	if (e.code && t->failed)
		t->failed(t->arg, &e);
	if (t->n_pipes >= TUNNEL_CONNECTIONS)
		(void)loop_io_set(conn_loop(t->conn), &t->io, 0);
}

static int listen_local(uint16_t port, uint16_t *ret_port, struct err *e)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t n = sizeof(sa);
	int on = 1;

	if (fd < 0)
		return err_sys(e, -errno, "make a socket");
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		int no = errno;

		return no == EADDRINUSE ? err_set(e, ERR_CONFLICT, "port %u of 127.0.0.1 is taken", port)
					: err_sys(e, -no, "listen on port %u of 127.0.0.1", port);
	}
	if (listen(fd, BACKLOG) < 0 || getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
		return err_sys(e, -errno, "listen on port %u of 127.0.0.1", port);
	*ret_port = ntohs(sa.sin_port);
	return take_fd(&fd);
}

int tunnel_open(struct conn *c, const char *sandbox, uint16_t guest_port, uint16_t local_port,
		void (*failed)(void *arg, const struct err *why), void *arg, struct tunnel **ret,
		struct err *e)
{
	struct tunnel *t = mem_new(sizeof(*t));
	int r;

	*t = (struct tunnel){.conn = c, .guest_port = guest_port, .failed = failed, .arg = arg};
	list_init(&t->pipes);
	span_copy(span_of(sandbox), t->sandbox, sizeof(t->sandbox));
	t->fd = listen_local(local_port, &t->local_port, e);
	r = t->fd;
	if (r >= 0) {
		r = loop_io_add(conn_loop(c), &t->io, t->fd, LOOP_READ, on_accept);
		if (r < 0)
			r = err_sys(e, r, "watch the listening socket");
	}
	if (r < 0) {
		tunnel_close(t);
		return r;
	}
	*ret = t;
	return 0;
}

uint16_t tunnel_port(const struct tunnel *t)
{
	return t->local_port;
}

struct tunnel *tunnel_close(struct tunnel *t)
{
	if (!t)
		return NULL;
	loop_io_del(conn_loop(t->conn), &t->io);
	t->fd = sys_close(t->fd);
	while (!list_empty(&t->pipes))
		drop(LIST_ENTRY(t->pipes.next, struct pipe, link), NULL);
	free(t);
	return NULL;
}
