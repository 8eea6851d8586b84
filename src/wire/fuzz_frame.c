/*
 * wire/fuzz_frame.c - hostile frames, to a responder and to an initiator. The
 * first byte says how the rest is cut: the cuts must make no difference.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

struct sum {
	unsigned headers, done, synced;
	uint64_t payload, mix;
	int r;
};

static void check_header(const struct frame *f)
{
	assert(f->type > FRAME_PAD && f->type < FRAME_TYPE_N);
	assert(f->len <= FRAME_PAYLOAD_MAX && f->fds <= FRAME_FDS_MAX && f->stream);
}

static void feed(struct frame_parser *fp, const unsigned char *p, size_t n, struct sum *s)
{
	struct err e = ERR_INIT;
	size_t before;
	int r;

	do {
		before = n;
		r = s->r < 0 ? s->r : frame_parse(fp, &p, &n, &e);
		assert(n <= before);
		if (r < 0) {
			assert(fp->is_initiator && s->r <= 0);
			s->r = r;
			return;
		}
		if (r == FRAME_HEADER) {
			check_header(&fp->f);
			s->headers++;
			s->payload = 0;
		}
		if (r == FRAME_PAYLOAD) {
			assert(fp->piece_len && fp->piece + fp->piece_len <= p);
			for (size_t i = 0; i < fp->piece_len; i++)
				s->mix = s->mix * 31 + fp->piece[i];
			s->payload += fp->piece_len;
			assert(s->payload <= fp->f.len);
		}
		if (r == FRAME_DONE) {
			assert(s->payload == fp->f.len);
			s->done++;
		}
		if (r == FRAME_SYNCED) {
			s->synced++;
			s->mix = s->mix * 31 + fp->sync.generation;
		}
	} while (r != FRAME_MORE);
	assert(n == 0);
}

static struct sum run(bool initiator, const unsigned char *p, size_t n, size_t piece)
{
	static const unsigned char nonce[FRAME_NONCE];
	struct frame_parser fp;
	struct sum s = {0};

	frame_parser_init(&fp, initiator);
	if (initiator)
		frame_parser_expect(&fp, nonce);
	for (size_t at = 0; at < n; at += piece) {
		size_t len = MIN(piece, n - at);
		unsigned char *exact = mem_dup(p + at, len);

		feed(&fp, exact, len, &s);
		free(exact);
	}
	return s;
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	if (n < 2)
		return 0;
	for (int initiator = 0; initiator < 2; initiator++) {
		struct sum whole = run(initiator, p + 1, n - 1, n), cut = run(initiator, p + 1, n - 1, 1u + p[0] % 97u);

		assert(whole.headers == cut.headers && whole.done == cut.done && whole.synced == cut.synced);
		assert(whole.mix == cut.mix && (whole.r < 0) == (cut.r < 0));
	}
	return 0;
}
