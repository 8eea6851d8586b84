/* cli/input.c - an input descriptor, read only while somebody has room */
#include "cli/input.h"
#include <errno.h>
#include "base/macro.h"
#include "sys/fd.h"

static void on_readable(struct loop_io *io, unsigned events)
{
	struct input *i = CONTAINER_OF(io, struct input, io);

	(void)events;
	i->ready(i);
}

static void on_turn(struct loop_call *c)
{
	struct input *i = CONTAINER_OF(c, struct input, call);

	i->ready(i);
}

void input_init(struct input *i, struct loop *l, int fd, void (*ready)(struct input *i))
{
	*i = (struct input){.loop = l, .fd = fd, .ready = ready};
}

void input_deinit(struct input *i)
{
	input_want(i, false);
}

void input_want(struct input *i, bool want)
{
	if (i->fd < 0 || i->ended || !want) {
		if (i->loop) {
			loop_io_del(i->loop, &i->io);
			loop_call_cancel(i->loop, &i->call);
		}
		return;
	}
	/* epoll refuses regular files and such: they are always ready */
	if (!i->is_always && !i->io.added &&
	    loop_io_add(i->loop, &i->io, i->fd, LOOP_READ, on_readable) < 0)
		i->is_always = true;
	if (i->is_always)
		loop_defer(i->loop, &i->call, on_turn);
}

ssize_t input_read(struct input *i, void *p, size_t n)
{
	ssize_t r = sys_read(i->fd, p, n);

	if (r == 0 || (r < 0 && r != -EAGAIN)) {
		input_want(i, false);
		i->ended = true;
	}
	return r;
}
