/* cli/input.h - an input descriptor, read only while somebody has room. One thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "loop/loop.h"

struct input {
	struct loop *loop;
	struct loop_io io;
	int fd;		/* borrowed; -1: none */
	bool is_always; /* a regular file or a device that cannot be waited for: never blocks long */
	bool ended;
	void (*ready)(struct input *i); /* something, or the end, can be read with input_read() */
	struct loop_call call;
};

void input_init(struct input *i, struct loop *l, int fd, void (*ready)(struct input *i));
void input_deinit(struct input *i);
void input_want(struct input *i, bool want); /* whether `ready` is to come; after the end: ignored */
/* From `ready`: bytes read, 0 at the end (once), -EAGAIN, or another -errno. */
ssize_t input_read(struct input *i, void *p, size_t n);
