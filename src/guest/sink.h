/*
 * guest/sink.h - read and forget what background programs still write into the
 * pipes of a session that is over, so that a server started with "&" does not
 * die of a broken pipe at its next log line.
 */
#pragma once
#include "base/list.h"
#include "loop/loop.h"

enum { SINKS_MAX = 256 }; /* beyond: the oldest is closed */

struct sinks {
	struct loop *loop;
	struct list all;
	unsigned n;
};

void sinks_init(struct sinks *k, struct loop *l);
void sinks_deinit(struct sinks *k);
void sinks_add(struct sinks *k, int fd); /* given; non-blocking */
