/* wire/frame.c - the link's frames */
#include "wire/frame.h"
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "wire/bytes.h"

/* The first byte is no frame type, so a SYNC block is recognised at a boundary. */
static const unsigned char magic[16] = "HOTCELL\rlink\n\x1a\xff\x01";

enum { SYNC_MARK = 'H', AT_VERSION = 16, AT_NONCE = 20, AT_GENERATION = 36 };

_Static_assert(FRAME_PAYLOAD_MAX == 65536 && FRAME_FDS_MAX == 16, "what head_fault() says");

enum { BOUNDARY, HEADER, PAYLOAD, TRAILER, SYNC, HUNT };

void frame_put(unsigned char head[FRAME_HEAD], const struct frame *f)
{
	head[0] = f->type;
	head[1] = 0;
	head[2] = f->fds;
	head[3] = 0;
	put_u32(head + 4, f->stream);
	put_u32(head + 8, f->len);
	put_u32(head + 12, f->arg);
	put_u64(head + 16, f->offset);
}

static void get(const unsigned char *head, struct frame *f)
{
	f->type = head[0];
	f->fds = head[2];
	f->stream = get_u32(head + 4);
	f->len = get_u32(head + 8);
	f->arg = get_u32(head + 12);
	f->offset = get_u64(head + 16);
}

void frame_put_sync(unsigned char block[FRAME_SYNC], const struct frame_sync *s)
{
	memset(block, 0, FRAME_SYNC);
	memcpy(block, magic, sizeof(magic));
	put_u16(block + AT_VERSION, s->version_min);
	put_u16(block + AT_VERSION + 2, s->version_max);
	memcpy(block + AT_NONCE, s->nonce, FRAME_NONCE);
	put_u64(block + AT_GENERATION, s->generation);
	block[FRAME_SYNC - 1] = FRAME_TRAILER;
}

void frame_parser_init(struct frame_parser *p, bool is_initiator)
{
	*p = (struct frame_parser){
		.state = is_initiator ? HUNT : BOUNDARY,
		.is_initiator = is_initiator,
	};
}

void frame_parser_expect(struct frame_parser *p, const unsigned char nonce[FRAME_NONCE])
{
	memcpy(p->nonce, nonce, FRAME_NONCE);
	p->expect_nonce = true;
	p->state = HUNT;
	p->held = 0;
}

/* Add to hold until it has @want bytes. */
static bool fill(struct frame_parser *fp, size_t want, const unsigned char **p, size_t *n)
{
	size_t take = MIN(want - fp->held, *n);

	memcpy(fp->hold + fp->held, *p, take);
	fp->held += take;
	*p += take;
	*n -= take;
	return fp->held == want;
}

static int broken(struct frame_parser *fp, struct err *e, int code, const char *what)
{
	if (fp->is_initiator)
		return err_set(e, code, "link: %s", what);
	fp->state = HUNT;
	fp->held = 0;
	return FRAME_MORE; /* torn by a peer that is gone, or hostile: wait for the next SYNC */
}

static const char *header_fault(const unsigned char *head, const struct frame *f)
{
	if (f->type == FRAME_PAD || f->type >= FRAME_TYPE_N || head[1] || head[3])
		return "a frame of unknown type";
	if (f->len > FRAME_PAYLOAD_MAX)
		return "a frame longer than 65536 bytes";
	if (f->fds > FRAME_FDS_MAX)
		return "a frame with more than 16 descriptors";
	if (f->stream == 0)
		return "a frame on stream 0";
	return NULL;
}

static int take_sync(struct frame_parser *fp)
{
	if (fp->hold[FRAME_SYNC - 1] != FRAME_TRAILER) { /* torn: filled up with a successor's zeros */
		fp->state = HUNT;
		fp->held = 0;
		return FRAME_MORE;
	}
	fp->sync.version_min = get_u16(fp->hold + AT_VERSION);
	fp->sync.version_max = get_u16(fp->hold + AT_VERSION + 2);
	memcpy(fp->sync.nonce, fp->hold + AT_NONCE, FRAME_NONCE);
	fp->sync.generation = get_u64(fp->hold + AT_GENERATION);
	fp->held = 0;
	if (fp->is_initiator &&
	    (!fp->expect_nonce || memcmp(fp->sync.nonce, fp->nonce, FRAME_NONCE) != 0)) {
		fp->state = HUNT; /* an answer to somebody before us */
		return FRAME_MORE;
	}
	fp->expect_nonce = false;
	fp->state = BOUNDARY;
	return FRAME_SYNCED;
}

/* Byte by byte: the magic has no repeated prefix but its first byte. */
static void hunt(struct frame_parser *fp, const unsigned char **p, size_t *n)
{
	while (*n && fp->held < sizeof(magic)) {
		const unsigned char *first = fp->held ? *p : memchr(*p, magic[0], *n);
		size_t skip = first ? (size_t)(first - *p) : *n;
		unsigned char c;

		*p += skip;
		*n -= skip;
		if (!first)
			return;
		c = **p;

		++*p;
		--*n;
		if (c != magic[fp->held])
			fp->held = 0;
		if (c == magic[fp->held])
			fp->hold[fp->held++] = c;
	}
	if (fp->held == sizeof(magic))
		fp->state = SYNC;
}

static int boundary(struct frame_parser *fp, const unsigned char **p, size_t *n, struct err *e)
{
	while (*n && **p == FRAME_PAD) {
		++*p;
		--*n;
	}
	if (!*n)
		return FRAME_MORE;
	if (**p == SYNC_MARK && fp->is_initiator)
		return broken(fp, e, ERR_INVALID, "an answer to no question");
	fp->held = 0;
	fp->state = **p == SYNC_MARK ? HUNT : HEADER;
	return FRAME_MORE;
}

static int header(struct frame_parser *fp, const unsigned char **p, size_t *n, struct err *e)
{
	const char *fault;

	if (!fill(fp, FRAME_HEAD, p, n))
		return FRAME_MORE;
	get(fp->hold, &fp->f);
	fault = header_fault(fp->hold, &fp->f);
	if (fault)
		return broken(fp, e, ERR_INVALID, fault);
	fp->held = 0;
	fp->left = fp->f.len;
	fp->state = fp->left ? PAYLOAD : TRAILER;
	return FRAME_HEADER;
}

static int payload(struct frame_parser *fp, const unsigned char **p, size_t *n)
{
	fp->piece = *p;
	fp->piece_len = MIN((size_t)fp->left, *n);
	*p += fp->piece_len;
	*n -= fp->piece_len;
	fp->left -= (uint32_t)fp->piece_len;
	if (!fp->left)
		fp->state = TRAILER;
	return FRAME_PAYLOAD;
}

static int trailer(struct frame_parser *fp, const unsigned char **p, size_t *n, struct err *e)
{
	unsigned char c = **p;

	++*p;
	--*n;
	if (c != FRAME_TRAILER) /* FRAME-2 */
		return broken(fp, e, ERR_INVALID, "a torn frame");
	fp->state = BOUNDARY;
	return FRAME_DONE;
}

int frame_parse(struct frame_parser *fp, const unsigned char **p, size_t *n, struct err *e)
{
	int r = FRAME_MORE;

	while (*n && r == FRAME_MORE) {
		switch (fp->state) {
		case BOUNDARY: r = boundary(fp, p, n, e); break;
		case HEADER: r = header(fp, p, n, e); break;
		case PAYLOAD: r = payload(fp, p, n); break;
		case TRAILER: r = trailer(fp, p, n, e); break;
		case HUNT: hunt(fp, p, n); break;
		case SYNC:
			if (fill(fp, FRAME_SYNC, p, n))
				r = take_sync(fp);
			break;
		}
	}
	return r;
}
