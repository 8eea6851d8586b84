/* base/ring.h - byte queue of fixed capacity that remembers absolute stream offsets */
#pragma once
#include <stddef.h>
#include <stdint.h>

/*
 * Holds stream bytes [head, tail). Offsets only grow; position = offset % cap.
 * RING-1: tail - head <= cap.
 */
struct ring {
	unsigned char *p; /* owned */
	size_t cap;	  /* a power of two */
	uint64_t head, tail;
};

int ring_init(struct ring *r, size_t cap);				/* -EINVAL, -ENOMEM */
void ring_deinit(struct ring *r);
size_t ring_used(const struct ring *r);
size_t ring_room(const struct ring *r);
size_t ring_write(struct ring *r, const void *p, size_t n);		/* -> bytes taken, <= room */
void ring_drop(struct ring *r, size_t n);				/* forget from the head, n <= used */

/* Longest contiguous readable piece at absolute @off (head <= off <= tail). Lent. */
const void *ring_at(const struct ring *r, uint64_t off, size_t *ret_n);

/* Longest contiguous writable piece at the tail; commit with ring_commit(). */
void *ring_space(struct ring *r, size_t *ret_n);
void ring_commit(struct ring *r, size_t n);
