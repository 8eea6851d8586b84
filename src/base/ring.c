/* base/ring.c - byte queue of fixed capacity */
#include "base/ring.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"

int ring_init(struct ring *r, size_t cap)
{
	if (!cap || (cap & (cap - 1)))
		return -EINVAL;
	*r = (struct ring){.p = malloc(cap), .cap = cap};
	return r->p ? 0 : -ENOMEM;
}

void ring_deinit(struct ring *r)
{
	free(r->p);
	*r = (struct ring){0};
}

size_t ring_used(const struct ring *r)
{
	return (size_t)(r->tail - r->head);
}

size_t ring_room(const struct ring *r)
{
	return r->cap - ring_used(r);
}

void *ring_space(struct ring *r, size_t *ret_n)
{
	size_t at = (size_t)(r->tail & (r->cap - 1));

	*ret_n = MIN(ring_room(r), r->cap - at);
	return r->p + at;
}

void ring_commit(struct ring *r, size_t n)
{
	assert(n <= ring_room(r)); /* RING-1 */
	r->tail += n;
}

size_t ring_write(struct ring *r, const void *p, size_t n)
{
	const unsigned char *from = p;
	size_t done = 0, room;
	void *to;

	while (done < n) {
		to = ring_space(r, &room);
		room = MIN(room, n - done);
		if (!room)
			break;
		memcpy(to, from + done, room);
		ring_commit(r, room);
		done += room;
	}
	return done;
}

const void *ring_at(const struct ring *r, uint64_t off, size_t *ret_n)
{
	size_t at = (size_t)(off & (r->cap - 1));

	assert(off >= r->head && off <= r->tail);
	*ret_n = MIN((size_t)(r->tail - off), r->cap - at);
	return r->p + at;
}

void ring_drop(struct ring *r, size_t n)
{
	assert(n <= ring_used(r));
	r->head += n;
}
