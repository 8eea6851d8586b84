/* guest/output.c - a ring of chunks that forgets whole chunks only */
#include "guest/output.h"
#include <assert.h>
#include "base/macro.h"
#include "wire/gen/limits.h"

enum {
	FIRST_CAP = 8192,
	GROW = 4,
	RESERVE = OUTPUT_HEAD + OUTPUT_EXIT_MAX, /* OUTPUT-3 */
};

int output_init(struct output *o)
{
	return ring_init(&o->ring, FIRST_CAP);
}

void output_deinit(struct output *o)
{
	ring_deinit(&o->ring);
}

uint64_t output_head(const struct output *o)
{
	return o->ring.head;
}

uint64_t output_tail(const struct output *o)
{
	return o->ring.tail;
}

size_t output_memory(const struct output *o)
{
	return o->ring.cap;
}

static unsigned char byte_at(const struct output *o, uint64_t off)
{
	size_t n;

	return *(const unsigned char *)ring_at(&o->ring, off, &n);
}

static size_t chunk_size(const struct output *o, uint64_t off)
{
	return OUTPUT_HEAD + ((size_t)byte_at(o, off + 1) | (size_t)byte_at(o, off + 2) << 8 |
			      (size_t)byte_at(o, off + 3) << 16);
}

/* The chunk boundary up to which everything may be forgotten. */
static uint64_t free_to(const struct output *o, uint64_t keep)
{
	uint64_t at = o->ring.head;

	while (at < o->ring.tail && at + chunk_size(o, at) <= keep)
		at += chunk_size(o, at);
	return at;
}

/* Largest payload that fits into @n raw bytes, heads of full chunks taken off. */
static size_t payload_in(size_t n)
{
	size_t full = n / (OUTPUT_CHUNK_MAX + OUTPUT_HEAD);
	size_t rest = n - full * (OUTPUT_CHUNK_MAX + OUTPUT_HEAD);

	return full * OUTPUT_CHUNK_MAX + (rest > OUTPUT_HEAD ? rest - OUTPUT_HEAD : 0);
}

size_t output_room(const struct output *o, uint64_t keep)
{
	size_t kept = (size_t)(o->ring.tail - free_to(o, keep));

	return kept + RESERVE < LIMIT_WINDOW ? payload_in(LIMIT_WINDOW - RESERVE - kept) : 0;
}

/* Replace the ring by one with room for @need more bytes, if the maximum allows. */
static void grow(struct output *o, size_t need)
{
	struct ring bigger = {0};
	size_t cap = o->ring.cap, n;

	while (cap < LIMIT_WINDOW && cap < ring_used(&o->ring) + need)
		cap *= GROW;
	cap = MIN(cap, (size_t)LIMIT_WINDOW);
	if (cap == o->ring.cap || ring_init(&bigger, cap) < 0)
		return;
	bigger.head = bigger.tail = o->ring.head;
	for (uint64_t at = o->ring.head; at < o->ring.tail; at += n) {
		const void *p = ring_at(&o->ring, at, &n);

		(void)ring_write(&bigger, p, n);
	}
	ring_deinit(&o->ring);
	o->ring = bigger;
}

static void make_room(struct output *o, uint64_t keep, size_t need)
{
	if (ring_room(&o->ring) < need)
		grow(o, need);
	while (ring_room(&o->ring) < need) {
		size_t size = chunk_size(o, o->ring.head);

		assert(o->ring.head + size <= keep); /* OUTPUT-2 */
		ring_drop(&o->ring, size);
	}
}

static void put_chunk(struct output *o, uint64_t keep, enum output_tag tag, const void *p,
		      size_t n)
{
	unsigned char head[OUTPUT_HEAD] = {(unsigned char)tag, (unsigned char)n,
					   (unsigned char)(n >> 8), (unsigned char)(n >> 16)};

	make_room(o, keep, n + OUTPUT_HEAD);
	(void)ring_write(&o->ring, head, sizeof(head));
	(void)ring_write(&o->ring, p, n);
}

void output_put(struct output *o, uint64_t keep, enum output_tag tag, const void *p, size_t n)
{
	assert(n <= output_room(o, keep));
	while (n) {
		size_t piece = MIN(n, (size_t)OUTPUT_CHUNK_MAX);

		put_chunk(o, keep, tag, p, piece);
		p = (const char *)p + piece;
		n -= piece;
	}
}

void output_put_exit(struct output *o, uint64_t keep, const void *p, size_t n)
{
	assert(n <= OUTPUT_EXIT_MAX);
	put_chunk(o, keep, OUTPUT_EXIT, p, n);
}

const void *output_at(const struct output *o, uint64_t off, size_t *ret_n)
{
	return ring_at(&o->ring, off, ret_n);
}

uint64_t output_chunk_end(const struct output *o, uint64_t off)
{
	uint64_t at = o->ring.head;

	assert(off >= at && off < o->ring.tail);
	while (at <= off)
		at += chunk_size(o, at);
	return at;
}
