/* guest/session_input.c - bytes for a program's standard input */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "guest/session_int.h"
#include "guest/terminal.h"
#include "loop/link.h"
#include "sys/fd.h"

static const uint64_t END_PAUSE_NS = 10 * NS_PER_MS, END_PAUSE_MAX_NS = NS_PER_S;

void input_open(struct input *in, struct session *ss, int fd, bool is_pty)
{
	*in = (struct input){.session = ss, .fd = fd, .is_pty = is_pty};
}

void input_close(struct input *in)
{
	loop_io_del(in->session->all->c.loop, &in->io);
	loop_timer_cancel(in->session->all->c.loop, &in->again);
	in->fd = sys_close(in->fd);
	/* Offsets go on counting: what still comes is taken and forgotten. */
	free(in->ring.p);
	in->ring.p = NULL;
	in->ring.cap = 0;
	in->ring.head = in->ring.tail;
}

uint64_t input_offset(const struct input *in)
{
	return in->ring.head;
}

static int make_ring(struct input *in)
{
	struct ring made;

	if (in->ring.cap)
		return 0;
	if (ring_init(&made, LIMIT_WINDOW) < 0)
		return -ENOMEM;
	made.head = made.tail = in->ring.head;
	in->ring = made;
	return 0;
}

/*
 * A terminal stays open, and its end of input is a character: it ends a line that was begun, or
 * one read of one program. So that whoever reads finds the end, as behind a pipe, there is
 * always one of them that nobody took yet; the kernel tells us of that only when asked. A
 * program that reads keys gets it once, and makes of it what it likes.
 */
static void on_end_again(struct loop_timer *t)
{
	struct input *in = CONTAINER_OF(t, struct input, again);
	struct loop *l = in->session->all->c.loop;
	enum terminal_input found = terminal_input(in->fd);

	in->told_keys &= found != TERMINAL_LINES;
	if (found == TERMINAL_LINES || (found == TERMINAL_KEYS && !in->told_keys)) {
		in->told_keys = terminal_put_end(in->fd);
		in->pause_ns = END_PAUSE_NS;
	} else {
		in->pause_ns = MIN(2 * in->pause_ns, END_PAUSE_MAX_NS);
	}
	loop_timer_set(l, &in->again, loop_now(l) + in->pause_ns, on_end_again);
}

static void end_of_input(struct input *in)
{
	struct loop *l = in->session->all->c.loop;

	if (!in->is_pty) {
		input_close(in);
		return;
	}
	in->end = false;
	in->told_keys = terminal_put_end(in->fd);
	in->pause_ns = END_PAUSE_NS;
	loop_timer_set(l, &in->again, loop_now(l) + in->pause_ns, on_end_again);
}

static void on_writable(struct loop_io *io, unsigned events);

static void wait_writable(struct input *in)
{
	if (!in->io.added && loop_io_add(in->session->all->c.loop, &in->io, in->fd, LOOP_WRITE,
					 on_writable) < 0)
		input_close(in);
}

static void flush(struct input *in)
{
	while (in->fd >= 0 && ring_used(&in->ring)) {
		size_t n;
		const void *p = ring_at(&in->ring, in->ring.head, &n);
		ssize_t r = sys_write(in->fd, p, n);

		if (r == -EAGAIN) {
			wait_writable(in);
			break;
		}
		if (r < 0) /* the program closed its input: so do we */
			input_close(in);
		else
			ring_drop(&in->ring, (size_t)r);
	}
	if (in->owner && in->owner->stream)
		stream_consumed_to(in->owner->stream, in->ring.head);
	if (in->fd >= 0 && !ring_used(&in->ring)) {
		loop_io_del(in->session->all->c.loop, &in->io);
		if (in->end)
			end_of_input(in);
	}
}

static void on_writable(struct loop_io *io, unsigned events)
{
	struct input *in = CONTAINER_OF(io, struct input, io);

	(void)events;
	flush(in);
}

void input_own(struct input *in, struct subscriber *owner)
{
	/*
	 * The newcomer starts at input_offset(), so what the one before sent and
	 * the program has not got is forgotten: it comes again, or from nobody.
	 */
	in->owner = owner;
	if (owner) {
		in->ring.tail = in->ring.head;
		in->end = false;
		loop_timer_cancel(in->session->all->c.loop, &in->again);
	}
}

void input_data(struct input *in, struct subscriber *from, uint64_t offset, struct span bytes)
{
	static const struct err hole = {ERR_INVALID, "input does not continue where it stopped"};
	uint64_t end = offset + bytes.n;

	if (from != in->owner || in->fd < 0) {
		if (from == in->owner && end > in->ring.head)
			in->ring.head = in->ring.tail = end;
		stream_consumed_to(from->stream, end);
		return;
	}
	if (offset > in->ring.tail || make_ring(in) < 0) {
		struct stream *s = from->stream;

		subscriber_free(from);
		stream_fail(s, &hole);
		return;
	}
	if (end > in->ring.tail) {
		size_t known = (size_t)(in->ring.tail - offset);

		(void)ring_write(&in->ring, bytes.p + known, bytes.n - known);
	}
	flush(in);
}

void input_end(struct input *in, struct subscriber *from)
{
	if (from != in->owner || in->fd < 0)
		return;
	in->end = true;
	flush(in);
}
