/* cli/sink.c - an output descriptor that never blocks the loop */
#include "cli/sink.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "base/macro.h"
#include "sys/fd.h"

enum { CAREFUL_BYTES = 4096 /* a writable pipe takes that much without blocking: pipe(7) */ };

static void on_writable(struct loop_io *io, unsigned events)
{
	struct sink *s = CONTAINER_OF(io, struct sink, io);

	(void)events;
	loop_io_del(s->loop, io);
	s->ready(s);
}

void sink_init(struct sink *s, struct loop *l, int fd, void (*ready)(struct sink *s))
{
	char path[64];
	struct stat st;

	*s = (struct sink){
		.loop = l, .fd = fd, .own_fd = -1, .kind = SINK_CAREFUL, .ready = ready};
	if (fstat(fd, &st) < 0 || (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
		return; /* the first write says so; opened anew it would not */
	if (S_ISREG(st.st_mode)) {
		s->kind = SINK_FILE;
	} else if (S_ISSOCK(st.st_mode)) {
		s->kind = SINK_SOCKET;
	} else {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		s->own_fd = sys_open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY);
		if (s->own_fd >= 0)
			s->kind = SINK_OWN;
	}
}

void sink_deinit(struct sink *s)
{
	if (s->loop)
		loop_io_del(s->loop, &s->io);
	s->own_fd = sys_close(s->own_fd);
}

static ssize_t put(struct sink *s, const void *p, size_t n)
{
	struct pollfd ask = {.fd = s->fd, .events = POLLOUT};
	ssize_t r;

	switch (s->kind) {
	case SINK_FILE: return sys_write(s->fd, p, n);
	case SINK_OWN: return sys_write(s->own_fd, p, n);
	case SINK_SOCKET:
		r = send(s->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
		return r < 0 ? -errno : r;
	case SINK_CAREFUL:
		if (poll(&ask, 1, 0) == 0)
			return -EAGAIN;
		return sys_write(s->fd, p, MIN(n, (size_t)CAREFUL_BYTES));
	}
	return -EINVAL;
}

ssize_t sink_write(struct sink *s, const void *p, size_t n)
{
	ssize_t r = put(s, p, n);
	int watch;

	if (r != -EAGAIN)
		return r;
	if (s->io.added)
		return r;
	watch = loop_io_add(s->loop, &s->io, s->kind == SINK_OWN ? s->own_fd : s->fd, LOOP_WRITE,
			    on_writable);
	return watch < 0 ? watch : -EAGAIN;
}
