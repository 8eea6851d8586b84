/* guest/sink.c - read and forget */
#include "guest/sink.h"
#include <errno.h>
#include <stdlib.h>
#include "base/mem.h"
#include "sys/fd.h"

enum { PIECE = 65536 };

struct sink {
	struct sinks *owner;
	struct loop_io io;
	int fd;
	struct list link;
};

static void drop(struct sink *s)
{
	loop_io_del(s->owner->loop, &s->io);
	(void)sys_close(s->fd);
	list_del(&s->link);
	s->owner->n--;
	free(s);
}

static void on_ready(struct loop_io *io, unsigned events)
{
	struct sink *s = CONTAINER_OF(io, struct sink, io);
	char buf[PIECE];
	ssize_t r = sys_read(s->fd, buf, sizeof(buf));

	(void)events;
	if (r == 0 || (r < 0 && r != -EAGAIN))
		drop(s);
}

void sinks_init(struct sinks *k, struct loop *l)
{
	*k = (struct sinks){.loop = l};
	list_init(&k->all);
}

void sinks_deinit(struct sinks *k)
{
	while (!list_empty(&k->all))
		drop(LIST_ENTRY(k->all.next, struct sink, link));
}

void sinks_add(struct sinks *k, int fd)
{
	struct sink *s;

	if (k->n == SINKS_MAX)
		drop(LIST_ENTRY(k->all.next, struct sink, link));
	s = mem_new(sizeof(*s));
	*s = (struct sink){.owner = k, .fd = fd};
	list_add_tail(&k->all, &s->link);
	k->n++;
	if (loop_io_add(k->loop, &s->io, fd, LOOP_READ, on_ready) < 0)
		drop(s);
}
