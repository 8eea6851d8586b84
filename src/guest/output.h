/*
 * guest/output.h - the output of a session, kept until its readers have it. Pure.
 *
 * Output is one stream of chunks: u8 tag, u24 little-endian length, bytes.
 * Offsets are absolute in this stream and only grow.
 *
 * OUTPUT-1 What is kept begins and ends at a chunk boundary.
 * OUTPUT-2 Nothing at or beyond `keep` (what the slowest blocking reader has
 *	    dealt with) is forgotten; below it, only when room is needed.
 * OUTPUT-3 There is always room for the exit chunk.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/ring.h"

enum output_tag { OUTPUT_STDOUT = 1, OUTPUT_STDERR = 2, OUTPUT_PTY = 3, OUTPUT_EXIT = 4 };

enum {
	OUTPUT_HEAD = 4,
	OUTPUT_CHUNK_MAX = 32768 - OUTPUT_HEAD, /* payload: chunk and head make one frame */
	OUTPUT_EXIT_MAX = 512,			/* payload of the exit chunk */
};

struct output {
	struct ring ring; /* grows up to LIMIT_WINDOW */
};

int output_init(struct output *o); /* -errno */
void output_deinit(struct output *o);
uint64_t output_head(const struct output *o); /* first byte still kept */
uint64_t output_tail(const struct output *o); /* one behind the last */
size_t output_memory(const struct output *o);

/* How much payload output_put() would take now (0: wait for readers). */
size_t output_room(const struct output *o, uint64_t keep);

/* Add @n <= output_room() bytes as one or more chunks; forgets what it must. */
void output_put(struct output *o, uint64_t keep, enum output_tag tag, const void *p, size_t n);

/* Add the exit chunk, once; n <= OUTPUT_EXIT_MAX. */
void output_put_exit(struct output *o, uint64_t keep, const void *p, size_t n);

/* Longest contiguous piece at @off; head <= @off <= tail. Lent until the next put. */
const void *output_at(const struct output *o, uint64_t off, size_t *ret_n);

/* End of the chunk that holds the byte at @off (head <= @off < tail). */
uint64_t output_chunk_end(const struct output *o, uint64_t off);
