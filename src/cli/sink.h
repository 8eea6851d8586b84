/*
 * cli/sink.h - an output descriptor that never blocks the loop
 *
 * Standard output may be a pipe whose reader has stopped; signals must still be heard. Its
 * O_NONBLOCK flag is shared with other processes, so a pipe or terminal is opened a second
 * time; what can't be (a socket) is asked not to block per call. Regular files never wait.
 */
#pragma once
#include <stddef.h>
#include <sys/types.h>
#include "loop/loop.h"

enum sink_kind { SINK_FILE, SINK_OWN, SINK_SOCKET, SINK_CAREFUL };

struct sink {
	struct loop *loop;
	struct loop_io io;
	int fd;	    /* borrowed */
	int own_fd; /* the second description, or -1 */
	enum sink_kind kind;
	void (*ready)(struct sink *s);
};

/* @ready: called when a sink that said -EAGAIN takes bytes again */
void sink_init(struct sink *s, struct loop *l, int fd, void (*ready)(struct sink *s));
void sink_deinit(struct sink *s);
/* Returns how much went out; -EAGAIN: `ready` follows; or another -errno. */
ssize_t sink_write(struct sink *s, const void *p, size_t n);
