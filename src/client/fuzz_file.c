/*
 * client/fuzz_file.c - a hostile guest's side of a download, and of an upload
 *
 * The first bytes pick the direction and what is asked for, the rest are the guest's steps: answers, bytes behind
 * gaps, ends, failures, lost links. A download never takes more than was announced and allowed, and each byte
 * has the place it was sent for; of an upload, the guest never sees other bytes than the file's.
 */
#include "base/str.h"
#include "client/file.h"
#include "client/fuzz_link.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum { FILE_MAX = 4096, SINK_MAX = 50000 };

struct tape {
	const unsigned char *p;
	size_t n;
};

static uint64_t take(struct tape *t, unsigned bytes)
{
	uint64_t v = 0;

	for (; bytes && t->n; bytes--, t->n--)
		v = v << 8 | *t->p++;
	return v;
}

/* ---- out ---- */

struct download {
	struct tape *t;
	uint64_t total;	    /* put and left as holes */
	uint64_t announced; /* by the first answer */
	uint64_t asked, base;
	uint64_t from;	    /* total when this attempt began */
	uint64_t max;
	bool began, stops;
	unsigned deaths;
	struct stream *stream;
};

static int on_begin(void *arg, const struct rec_file_info *info, struct err *e)
{
	struct download *d = arg;

	assert(!d->began && d->total == 0);
	assert(!d->max || info->size <= d->max); /* a larger one is refused before */
	d->began = true;
	d->announced = info->size;
	return d->stops && info->size % 3 == 0 ? err_set(e, ERR_DENIED, "the sink does not want it") : 0;
}

static void count(struct download *d, uint64_t n)
{
	uint64_t left = d->announced > d->base ? d->announced - d->base : 0;
	uint64_t most = d->announced ? left : (uint64_t)FILE_UNSIZED_MAX;

	assert(d->began && n <= UINT64_MAX - d->total);
	d->total += n;
	assert(d->total <= most && (!d->asked || d->total <= d->asked));
}

static int on_put(void *arg, const void *p, size_t n, struct err *e)
{
	struct download *d = arg;

	(void)p;
	count(d, n);
	return d->stops && d->total % 5 == 0 ? err_set(e, ERR_LIMIT, "the sink is full") : 0;
}

static int on_hole(void *arg, uint64_t n, struct err *e)
{
	(void)e;
	count(arg, n);
	return 0;
}

static void answer(struct download *d, struct stream *s, unsigned how)
{
	unsigned char bytes[32];
	struct rec_file_info info = {.kind = span_of("file"), .mode = 0644, .mtime_ns = how & 1};
	struct str rec = STR_INIT(RECORD_MAX);

	info.size = how & 2 ? take(d->t, 2) : how & 4 ? take(d->t, 8) : how & 8 ? 0 : d->announced;
	if (how & 16) { /* anything */
		size_t n = MIN(sizeof(bytes), d->t->n);

		memcpy(bytes, d->t->p, n);
		fz_reply(s, bytes, n);
	} else if (rec_encode(&rec_file_info_type, &info, &rec, NULL) == 0) {
		fz_reply(s, rec.p ? rec.p : "", rec.len);
	}
	str_deinit(&rec);
}

static uint64_t gap(struct download *d, unsigned how)
{
	return how & 64 ? take(d->t, 8) >> (how & 7) : how & 128 ? take(d->t, 2) : 0;
}

static bool play_download(struct conn *c, struct conn_op *op)
{
	static const char block[LIMIT_WINDOW];
	struct download *d = c->arg;
	struct stream *s = c->last;
	unsigned how;
	uint64_t at;

	if (s != d->stream || !s->replied) {
		d->stream = s;
		d->from = d->total;
	}
	if (!d->t->n)
		return false;
	how = (unsigned)take(d->t, 1);
	at = s->rx_offset + gap(d, how);
	switch (how % 6) {
	case 0: answer(d, s, (unsigned)take(d->t, 1)); break;
	case 1:
	case 2: {
		size_t n = (size_t)(how & 8 ? take(d->t, 3) % sizeof(block) : take(d->t, 1));
		uint64_t before = d->total;

		fz_data(s, at, block, MIN(n, (size_t)(LIMIT_WINDOW - s->held)));
		if (!op->done && d->total != before)
			assert(d->total == d->from + s->rx_offset); /* each byte at its place */
		break;
	}
	case 3: fz_end(s, at); break;
	case 4:
		if (++d->deaths < 8)
			fz_down(c);
		break;
	case 5:
		if (how & 8)
			op->cancel(op);
		else
			fz_close(s, &(struct err){1 + how % 11, "the guest fails"});
		break;
	}
	return true;
}

static void download(struct conn *c, struct tape *t, unsigned how)
{
	struct download d = {.t = t, .stops = how & 2};
	struct file_sink sink = {.begin = on_begin, .put = on_put, .arg = &d, .hole = how & 4 ? on_hole : NULL};
	struct rec_file_read rec = {.sandbox = span_of("s"), .path = span_of("f")};
	struct file_sum sum;
	struct err e = ERR_INIT;
	bool hashes = how & 8;
	int r;

	rec.offset = how & 16 ? take(t, 2) : 0;
	rec.length = how & 32 ? take(t, 2) : 0;
	d.base = rec.offset;
	d.asked = rec.length;
	sink.max = d.max = hashes || !sink.hole ? SINK_MAX : 0; /* zeros that are hashed or put take their time */
	c->arg = &d;
	c->play = play_download;
	r = file_fetch(c, &rec, &sink, hashes ? &sum : NULL, &e);
	assert(r == 0 || (r < 0 && e.code == -r && e.text[0]));
	if (r == 0 && hashes)
		assert(sum.bytes == d.total);
}

/* ---- in ---- */

struct upload {
	struct tape *t;
	unsigned char content[FILE_MAX];
	size_t n, at;
	size_t hole_at, hole_n; /* of the content */
	unsigned piece, deaths;
	bool fails, knows;
};

static ssize_t get(void *arg, void *p, size_t n, struct err *e)
{
	struct upload *u = arg;

	if (u->fails && u->at > u->n / 2)
		return err_set(e, ERR_INTERNAL, "it can't be read");
	n = MIN(n, u->n - u->at);
	n = MIN(n, (size_t)u->piece);
	if (u->at < u->hole_at)
		n = MIN(n, u->hole_at - u->at);
	memcpy(p, u->content + u->at, n);
	u->at += n;
	return (ssize_t)n;
}

static int64_t hole(void *arg, struct err *e)
{
	struct upload *u = arg;

	(void)e;
	assert(u->knows); /* nobody else may be sent one */
	if (u->at != u->hole_at || !u->hole_n)
		return 0;
	u->at += u->hole_n;
	return (int64_t)u->hole_n;
}

static int start_over(void *arg, uint64_t bytes, struct err *e)
{
	struct upload *u = arg;

	(void)e;
	assert(bytes == u->at);
	u->at = 0;
	return 0;
}

static void on_sent(struct conn *c, struct stream *s, const void *p, uint64_t n)
{
	static const unsigned char zeros[FILE_MAX];
	struct upload *u = c->arg;

	assert(s->tx_offset <= u->n && n <= u->n - s->tx_offset);
	assert(memcmp(u->content + s->tx_offset, p ? p : zeros, (size_t)n) == 0);
}

static bool play_upload(struct conn *c, struct conn_op *op)
{
	struct upload *u = c->arg;
	struct stream *s = c->last;
	unsigned how;

	if (!u->t->n)
		return false;
	how = (unsigned)take(u->t, 1);
	switch (how % 6) {
	case 0:
	case 1:
		s->granted += how;
		if (s->open && !s->tx_ended)
			s->ops->writable(s);
		break;
	case 2: fz_reply(s, u->t->p, MIN(u->t->n, (size_t)how / 8)); break;
	case 3: fz_end(s, how / 8); break;
	case 4:
		if (++u->deaths < 8)
			fz_down(c);
		break;
	case 5:
		if (how & 8)
			op->cancel(op);
		else
			fz_close(s, &(struct err){1 + how % 11, "the guest fails"});
		break;
	}
	return true;
}

static void upload(struct conn *c, struct tape *t, unsigned how)
{
	struct upload u = {.t = t, .fails = how & 2, .knows = how & 4};
	struct file_source source = {.get = get, .arg = &u, .rewind = how & 16 ? start_over : NULL,
				     .hole = how & 32 ? hole : NULL};
	struct rec_file_write rec = {.sandbox = span_of("s"), .path = span_of("f"), .append = how & 64};
	struct file_sum sum;
	struct err e = ERR_INIT;
	int r;

	u.n = take(t, 2) % FILE_MAX;
	u.piece = 1 + (unsigned)take(t, 1) * 16;
	u.hole_at = u.n ? take(t, 2) % u.n : 0;
	u.hole_n = u.n ? take(t, 2) % (u.n - u.hole_at + 1) : 0;
	for (size_t i = 0; i < u.n; i++)
		u.content[i] = i >= u.hole_at && i < u.hole_at + u.hole_n ? 0 : (unsigned char)(i * 7 + 1);
	c->features = u.knows;
	c->arg = &u;
	c->play = play_upload;
	c->sent = on_sent;
	r = file_store(c, &rec, &source, how & 8 ? &sum : NULL, &e);
	assert(r == 0 || (r < 0 && e.code == -r && e.text[0]));
	if (r == 0) { /* the guest may say "done" only when it has all of it */
		assert(c->last->tx_offset == u.n && c->last->tx_ended);
		assert(!(how & 8) || sum.bytes == u.n);
	}
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	static struct conn c;
	struct tape t = {p, n};
	unsigned how = (unsigned)take(&t, 1);

	fz_init(&c);
	if (how & 1)
		upload(&c, &t, how);
	else
		download(&c, &t, how);
	return 0;
}
