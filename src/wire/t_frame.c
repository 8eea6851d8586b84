/* wire/t_frame.c - frames whole, in pieces, torn and malformed */
#include "wire/frame.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/testing.h"

/* What a parser saw, as text and as sums: "H3:1:5 D S". */
struct seen {
	unsigned headers, done, synced;
	struct frame f;
	unsigned char payload[64];
	size_t payload_len; /* of the last frame */
	size_t done_bytes;  /* payload of frames that count */
	int r;
};

static void feed(struct frame_parser *fp, const unsigned char *p, size_t n, struct seen *s)
{
	struct err e = ERR_INIT;
	int r;

	while ((r = frame_parse(fp, &p, &n, &e)) != FRAME_MORE) {
		if (r < 0) {
			s->r = r;
			return;
		}
		if (r == FRAME_HEADER) {
			s->headers++;
			s->f = fp->f;
			s->payload_len = 0;
		}
		if (r == FRAME_PAYLOAD) {
			assert_true(fp->piece_len > 0);
			for (size_t i = 0; i < fp->piece_len; i++, s->payload_len++)
				if (s->payload_len < sizeof(s->payload))
					s->payload[s->payload_len] = fp->piece[i];
		}
		if (r == FRAME_DONE) {
			assert_int_equal(s->payload_len, fp->f.len);
			s->done++;
			s->done_bytes += fp->f.len;
		}
		if (r == FRAME_SYNCED)
			s->synced++;
	}
	assert_int_equal(n, 0); /* all input is used */
}

static const struct frame example = { .type = FRAME_DATA, .stream = 0x01020304, .arg = 0xa0b0c0d0, .len = 5,
				      .offset = 0x1122334455667788, .fds = 3 };

static size_t put_frame(unsigned char *out, const struct frame *f, const char *payload)
{
	frame_put(out, f);
	memcpy(out + FRAME_HEAD, payload, f->len);
	out[FRAME_HEAD + f->len] = FRAME_TRAILER;
	return FRAME_HEAD + f->len + 1;
}

static size_t put_sync(unsigned char *out, unsigned char nonce)
{
	frame_put_sync(out, &(struct frame_sync){ 1, 1, { nonce }, 42 });
	return FRAME_SYNC;
}

/* The bytes are for ever: two releases must agree on them. */
static void the_bytes_of_a_frame(void **state)
{
	static const unsigned char want[FRAME_HEAD] = { 3,    0,    3,	  0,	4,    3,    2,	  1,
							5,    0,    0,	  0,	0xd0, 0xc0, 0xb0, 0xa0,
							0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11 };
	unsigned char head[FRAME_HEAD], block[FRAME_SYNC];

	T_UNUSED(state);
	frame_put(head, &example);
	assert_memory_equal(head, want, FRAME_HEAD);
	frame_put_sync(block, &(struct frame_sync){ 1, 2, { 0xee }, 3 });
	assert_memory_equal(block, "HOTCELL\rlink\n\x1a\xff\x01", 16);
	assert_memory_equal(block + 16, "\1\0\2\0\xee", 5);
	assert_memory_equal(block + 36, "\3\0\0\0\0\0\0\0", 8);
	for (int i = 44; i < 63; i++)
		assert_int_equal(block[i], 0);
	assert_int_equal(block[63], 0xa5);
}

/* Two frames with padding around, fed in two pieces cut at every byte, and byte by byte. */
static void frames_may_be_split_anywhere(void **state)
{
	unsigned char bytes[256] = { 0 };
	struct frame empty = { .type = FRAME_END, .stream = 9 };
	size_t n = 3;

	T_UNUSED(state);
	n += put_frame(bytes + n, &empty, "");
	n += 2;
	n += put_frame(bytes + n, &example, "hello");
	for (size_t cut = 0; cut <= n; cut++) {
		struct frame_parser fp;
		struct seen s = { 0 };
		unsigned char *a = mem_dup(bytes, cut), *b = mem_dup(bytes + cut, n - cut);

		frame_parser_init(&fp, false);
		feed(&fp, a, cut, &s);
		feed(&fp, b, n - cut, &s);
		assert_int_equal(s.done, 2);
		assert_memory_equal(s.payload, "hello", 5);
		assert_memory_equal(&s.f.offset, &example.offset, 8);
		assert_int_equal(s.f.stream, example.stream);
		assert_int_equal(s.f.arg, example.arg);
		assert_int_equal(s.f.fds, 3);
		free(a);
		free(b);
	}
	struct frame_parser fp;
	struct seen s = { 0 };

	frame_parser_init(&fp, false);
	for (size_t i = 0; i < n; i++)
		feed(&fp, bytes + i, 1, &s);
	assert_int_equal(s.done, 2);
}

/* FRAME-2, FRAME-3: torn at every byte, then the successor's zeros and its SYNC: nothing torn counts. */
static void a_torn_frame_never_counts(void **state)
{
	unsigned char bytes[128], sync[FRAME_SYNC], *pads = mem_new(FRAME_PAD_MAX);
	size_t n = put_frame(bytes, &example, "\xa5\xa5\xa5\xa5\xa5");

	T_UNUSED(state);
	put_sync(sync, 1);
	for (size_t cut = 0; cut <= n; cut++) {
		struct frame_parser fp;
		struct seen s = { 0 };

		frame_parser_init(&fp, false);
		feed(&fp, bytes, cut, &s);
		feed(&fp, pads, FRAME_PAD_MAX, &s);
		assert_int_equal(s.done, cut == n);
		feed(&fp, sync, FRAME_SYNC, &s);
		assert_int_equal(s.synced, 1);
		assert_int_equal(fp.sync.generation, 42);
		feed(&fp, bytes, n, &s);
		assert_int_equal(s.done, 1 + (cut == n));
	}
	free(pads);
}

static void a_torn_sync_is_no_sync(void **state)
{
	unsigned char first[FRAME_SYNC], second[FRAME_SYNC], *pads = mem_new(FRAME_PAD_MAX);

	T_UNUSED(state);
	put_sync(first, 0xff);
	put_sync(second, 1);
	for (size_t cut = 0; cut <= FRAME_SYNC; cut++) {
		struct frame_parser fp;
		struct seen s = { 0 };

		frame_parser_init(&fp, false);
		feed(&fp, first, cut, &s);
		feed(&fp, pads, FRAME_PAD_MAX, &s);
		assert_int_equal(s.synced, cut == FRAME_SYNC);
		feed(&fp, second, FRAME_SYNC, &s);
		assert_int_equal(s.synced, 1 + (cut == FRAME_SYNC));
		assert_int_equal(fp.sync.nonce[0], 1);
	}
	free(pads);
}

/* The largest frame a header can announce ends within the pads, whatever the bytes said. */
static void pads_outlast_any_frame(void **state)
{
	unsigned char head[FRAME_HEAD], sync[FRAME_SYNC], *pads = mem_new(FRAME_PAD_MAX);
	uint64_t seed = 21;

	T_UNUSED(state);
	put_sync(sync, 1);
	for (int i = 0; i < 2000; i++) {
		struct frame_parser fp;
		struct seen s = { 0 };
		struct frame f = { .type = (uint8_t)(1 + t_random(&seed) % 6), .stream = 1 + (uint32_t)t_random(&seed),
				   .len = FRAME_PAYLOAD_MAX };

		if (i)
			f.len = (uint32_t)(t_random(&seed) % (FRAME_PAYLOAD_MAX + 1));
		frame_put(head, &f);
		frame_parser_init(&fp, false);
		feed(&fp, head, i ? t_random(&seed) % (FRAME_HEAD + 1) : FRAME_HEAD, &s);
		feed(&fp, pads, FRAME_PAD_MAX, &s);
		feed(&fp, sync, FRAME_SYNC, &s);
		assert_int_equal(s.done, 0);
		assert_int_equal(s.synced, 1);
	}
	free(pads);
}

static const unsigned char malformed[][FRAME_HEAD] = {
	{ 7, 0, 0, 0, 1 },			       /* unknown type */
	{ 200, 0, 0, 0, 1 },			       /* unknown type */
	{ 1, 1, 0, 0, 1 },			       /* flags */
	{ 1, 0, 17, 0, 1 },			       /* seventeen descriptors */
	{ 1, 0, 0, 1, 1 },			       /* the zero is none */
	{ 1, 0, 0, 0, 0 },			       /* stream 0 */
	{ 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0 },	       /* 65537 bytes */
	{ 3, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255 },
};

static void a_responder_waits_for_the_next_sync(void **state)
{
	unsigned char frame[64], sync[FRAME_SYNC];
	size_t n = put_frame(frame, &example, "hello");

	T_UNUSED(state);
	put_sync(sync, 1);
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
		struct frame_parser fp;
		struct seen s = { 0 };

		frame_parser_init(&fp, false);
		feed(&fp, malformed[i], FRAME_HEAD, &s);
		feed(&fp, frame, n, &s);
		feed(&fp, (const unsigned char *)"HOTHOTCELL\rlinkHOTCELL\rlink\n\x1a\xffHH", 33, &s);
		assert_int_equal(s.headers + s.synced, 0);
		feed(&fp, sync, FRAME_SYNC, &s);
		feed(&fp, frame, n, &s);
		assert_int_equal(s.synced, 1);
		assert_int_equal(s.done, 1);
		assert_int_equal(s.r, 0);
	}
}

static struct frame_parser in_step(void)
{
	unsigned char sync[FRAME_SYNC], nonce[FRAME_NONCE] = { 7 };
	struct frame_parser fp;
	struct seen s = { 0 };

	frame_parser_init(&fp, true);
	frame_parser_expect(&fp, nonce);
	put_sync(sync, 7);
	feed(&fp, sync, FRAME_SYNC, &s);
	assert_int_equal(s.synced, 1);
	return fp;
}

static void an_initiator_meets_lies_with_an_error(void **state)
{
	unsigned char sync[FRAME_SYNC], torn[64];
	size_t n = put_frame(torn, &example, "hello");

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++) {
		struct frame_parser fp = in_step();
		struct seen s = { 0 };

		feed(&fp, malformed[i], FRAME_HEAD, &s);
		assert_true(s.r == -ERR_INVALID || s.r == -ERR_LIMIT);
	}
	struct frame_parser fp = in_step();
	struct seen s = { 0 };

	put_sync(sync, 7);
	feed(&fp, sync, FRAME_SYNC, &s); /* an answer to no question */
	assert_true(s.r < 0);
	assert_int_equal(s.synced, 0);

	fp = in_step();
	s = (struct seen){ 0 };
	torn[n - 1] = 0;
	feed(&fp, torn, n, &s);
	assert_true(s.r < 0);
	assert_int_equal(s.done, 0);
}

/* Everything up to the answer with our nonce is somebody else's: frames, old answers, half magics. */
static void an_initiator_discards_all_before_its_answer(void **state)
{
	unsigned char bytes[512], nonce[FRAME_NONCE] = { 7 };
	size_t n = 0;

	T_UNUSED(state);
	n += put_frame(bytes + n, &example, "hello");
	n += put_sync(bytes + n, 6);
	n += put_frame(bytes + n, &example, "HOTCE");
	n += put_sync(bytes + n, 7);
	n += put_frame(bytes + n, &example, "after");
	for (size_t skip = 0; skip < FRAME_HEAD + 6; skip++)
		for (size_t piece = 1; piece <= n; piece += 37) {
			struct frame_parser fp;
			struct seen s = { 0 };

			frame_parser_init(&fp, true);
			frame_parser_expect(&fp, nonce);
			for (size_t at = skip; at < n; at += piece)
				feed(&fp, bytes + at, MIN(piece, n - at), &s);
			assert_int_equal(s.r, 0);
			assert_int_equal(s.synced, 1);
			assert_int_equal(s.done, 1);
			assert_memory_equal(s.payload, "after", 5);
		}
	struct frame_parser fp;
	struct seen s = { 0 };

	frame_parser_init(&fp, true); /* before it asked, nothing can be an answer */
	feed(&fp, bytes, n, &s);
	assert_int_equal(s.synced + s.headers, 0);
}

T_MAIN(T(the_bytes_of_a_frame), T(frames_may_be_split_anywhere), T(a_torn_frame_never_counts),
       T(a_torn_sync_is_no_sync), T(pads_outlast_any_frame), T(a_responder_waits_for_the_next_sync),
       T(an_initiator_meets_lies_with_an_error), T(an_initiator_discards_all_before_its_answer))
