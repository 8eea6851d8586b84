/*
 * client/t_double.h - a daemon of a few lines, on a thread of its own, for tests of the client
 *
 * It answers one connection at a time with the handler it was given, and can be told to
 * "die": the connection ends at once, with whatever was in flight; the next one finds it alive.
 */
#pragma once
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "client/conn.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

struct double_daemon {
	char dir[64], socket[96];
	struct loop *loop;
	struct loop_io io;
	struct loop_call stop;
	struct link *link;
	int fd;
	pthread_t thread;
	atomic_uint connections;
	void (*request)(struct double_daemon *d, struct stream *s, unsigned method,
			struct span payload);
	void *arg;
};

static inline void double_request(struct link *k, struct stream *s, unsigned method,
				  struct span payload, const int *fds, unsigned n_fds)
{
	struct double_daemon *d = link_arg(k);

	(void)fds;
	(void)n_fds;
	d->request(d, s, method, payload);
}

static inline void double_down(struct link *k, const struct err *why)
{
	struct double_daemon *d = link_arg(k);

	(void)why;
	d->link = link_free(k);
}

/* From the handler: end the connection. Every stream of it is gone. */
static inline void double_die(struct double_daemon *d)
{
	d->link = link_free(d->link);
}

static inline void double_accept(struct loop_io *io, unsigned events)
{
	static const struct link_ops ops = {.request = double_request, .down = double_down};
	struct double_daemon *d = CONTAINER_OF(io, struct double_daemon, io);
	int fd = sys_accept(io->fd);

	(void)events;
	if (fd < 0)
		return;
	link_free(d->link);
	d->link = NULL;
	assert(link_new(d->loop, fd, LINK_SOCKET, 0, &ops, d, &d->link, NULL) == 0);
	d->connections++;
}

static inline void double_on_stop(struct loop_call *c)
{
	loop_stop(CONTAINER_OF(c, struct double_daemon, stop)->loop);
}

static inline void *double_run(void *arg)
{
	struct double_daemon *d = arg;

	assert(loop_run(d->loop) == 0);
	link_free(d->link);
	return NULL;
}

static inline void double_listen(struct double_daemon *d, const char *dir)
{
	(void)snprintf(d->dir, sizeof(d->dir), "%s", dir);
	(void)snprintf(d->socket, sizeof(d->socket), "%s/hotcelld.sock", dir);
	assert(loop_new(false, &d->loop) == 0);
	d->fd = sys_unix_listen(d->socket, 0600);
	assert(d->fd >= 0);
	assert(loop_io_add(d->loop, &d->io, d->fd, LOOP_READ, double_accept) == 0);
}

static inline void double_start(struct double_daemon *d)
{
	char dir[] = "/tmp/hotcell-t-XXXXXX";

	assert(mkdtemp(dir));
	double_listen(d, dir);
	assert(pthread_create(&d->thread, NULL, double_run, d) == 0);
}

static inline void double_stop(struct double_daemon *d)
{
	loop_post(d->loop, &d->stop, double_on_stop);
	assert(pthread_join(d->thread, NULL) == 0);
	loop_free(d->loop);
	(void)sys_close(d->fd);
	assert(sys_remove_tree(-1, d->dir) == 0);
}

static inline struct conn *double_connect(struct double_daemon *d)
{
	struct conn_options o = {.run_dir = d->dir, .no_start = true};
	struct conn *c = NULL;
	struct err e = ERR_INIT;

	if (conn_open(&o, &c, &e) < 0)
		(void)fprintf(stderr, "%s\n", e.text);
	assert(c);
	return c;
}

static inline void double_fail(struct stream *s, int code, const char *text)
{
	struct err e = ERR_INIT;

	err_set(&e, code, "%s", text);
	stream_fail(s, &e);
}
