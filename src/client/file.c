/* client/file.c - the bytes of one file, in and out */
#include "client/file.h"
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/unit.h"
#include "client/conn.h"
#include "loop/link.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { PIECE = 65536, LOST_MAX = 10, KNOWS_HOLES = 1 /* guest_health.features */ };

struct transfer {
	struct conn_op op;
	struct stream *stream;
	EVP_MD_CTX *hash;
	uint64_t bytes;
	bool lost;		      /* the connection, not the file, failed */
	bool is_answered;	      /* this attempt; an end may come without */
	bool known;		      /* size and mtime are valid */
	uint64_t size, mtime_ns;      /* of the file when reading began */
	uint64_t want;		      /* bytes at most, by what was asked and announced */
	uint64_t base;		      /* the first byte asked for */
	uint64_t from_byte;	      /* where this attempt's stream begins, counted from base */
	bool holes;		      /* the agent takes them */
	struct err why; /* ours comes before the peer's: it is the cause */
	const struct file_sink *to;
	const struct file_source *from;
	unsigned char *piece; /* [piece_at, piece_n) was read and not sent */
	size_t piece_at, piece_n;
	bool source_ended;
};

static void stop(struct transfer *t)
{
	if (t->stream)
		stream_reset(t->stream);
	t->stream = NULL;
	t->op.done = true;
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct transfer *t = stream_arg(s);

	t->stream = NULL;
	t->op.done = true;
	t->lost = why && !t->why.code && !link_is_up(stream_link(s));
	if (!t->why.code)
		err_copy(&t->why, why);
}

static void cancel(struct conn_op *op)
{
	struct transfer *t = CONTAINER_OF(op, struct transfer, op);

	err_set(&t->why, ERR_CANCELED, "interrupted");
	stop(t);
}

static int hash_update(struct transfer *t, const void *p, size_t n)
{
	t->bytes += n;
	return !t->hash || EVP_DigestUpdate(t->hash, p, n) == 1
		       ? 0
		       : err_set(&t->why, ERR_INTERNAL, "SHA-256 failed");
}

static int hash_zeros(struct transfer *t, uint64_t n)
{
	static const unsigned char zeros[PIECE];
	int r = 0;

	if (!t->hash) {
		t->bytes += n;
		return 0;
	}
	for (; n && r == 0; n -= MIN(n, (uint64_t)PIECE))
		r = hash_update(t, zeros, (size_t)MIN(n, (uint64_t)PIECE));
	return r;
}

static int hash_start(struct transfer *t, const struct file_sum *wanted, struct err *e)
{
	if (!wanted)
		return 0;
	t->hash = EVP_MD_CTX_new();
	if (!t->hash || EVP_DigestInit_ex(t->hash, EVP_sha256(), NULL) != 1)
		return err_set(e, ERR_INTERNAL, "SHA-256 is not available");
	return 0;
}

static int hash_finish(struct transfer *t, struct file_sum *ret)
{
	if (!ret)
		return 0;
	ret->bytes = t->bytes;
	return EVP_DigestFinal_ex(t->hash, ret->sha256, NULL) == 1
		       ? 0
		       : err_set(&t->why, ERR_INTERNAL, "SHA-256 failed");
}

/* ---- out of the sandbox ---- */

/* How much may come. The guest's word bounds the guest; ours bounds its word. */
static int bound(struct transfer *t, const struct rec_file_info *info)
{
	char size[UNIT_TEXT], max[UNIT_TEXT];
	uint64_t left = info->size > t->base ? info->size - t->base : 0;

	unit_format_bytes(info->size, size);
	unit_format_bytes(t->to->max, max);
	if (t->to->max && info->size > t->to->max)
		return err_set(&t->why, ERR_LIMIT, "it is %s long, and no file of this sandbox is expected to be "
			       "longer than %s; 'hotcell cp --max-size' takes more", size, max);
	t->want = MIN(t->want, info->size ? left : (uint64_t)FILE_UNSIZED_MAX);
	return 0;
}

static int too_much(struct transfer *t)
{
	return err_set(&t->why, ERR_LIMIT, "the sandbox sent more than the %llu bytes it announced: refused",
		       (unsigned long long)t->want);
}

static void on_info(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct transfer *t = stream_arg(s);
	struct rec_file_info info;
	int r = rec_decode(&rec_file_info_type, payload.p, payload.n, &info, &t->why);

	(void)fds;
	(void)n_fds;
	if (r == 0 && t->known && (info.size != t->size || info.mtime_ns != t->mtime_ns))
		r = err_set(&t->why, ERR_CONFLICT, "the file changed while it was read");
	if (r == 0 && !t->known)
		r = bound(t, &info);
	if (r == 0 && !t->known && t->to->begin)
		r = t->to->begin(t->to->arg, &info, &t->why);
	t->known = t->is_answered = true;
	t->size = info.size;
	t->mtime_ns = info.mtime_ns;
	if (r < 0)
		stop(t);
}

static int put_zeros(struct transfer *t, uint64_t n)
{
	static const unsigned char zeros[PIECE];
	int r = 0;

	if (t->to->hole)
		return t->to->hole(t->to->arg, n, &t->why);
	for (; n && r == 0; n -= MIN(n, (uint64_t)PIECE))
		r = t->to->put(t->to->arg, zeros, (size_t)MIN(n, (uint64_t)PIECE), &t->why);
	return r;
}

/* @n bytes come, at @offset of this attempt: what lies between is a hole. */
static int pass_hole(struct transfer *t, uint64_t offset, size_t n)
{
	uint64_t at = t->from_byte + offset; /* both far from wrapping: the link's offsets end at 2^62 */
	uint64_t gap = at - t->bytes;
	int r;

	if (at < t->bytes)
		return err_set(&t->why, ERR_INVALID, "the sandbox sent bytes of a file twice");
	if (at > t->want || n > t->want - at)
		return too_much(t);
	if (!gap)
		return 0;
	r = hash_zeros(t, gap);
	return r == 0 ? put_zeros(t, gap) : r;
}

static void on_bytes(struct stream *s, uint64_t offset, struct span bytes)
{
	struct transfer *t = stream_arg(s);
	int r = pass_hole(t, offset, bytes.n);

	if (r == 0)
		r = hash_update(t, bytes.p, bytes.n);
	if (r == 0)
		r = t->to->put(t->to->arg, bytes.p, bytes.n, &t->why);
	if (r < 0)
		stop(t);
	else
		stream_consumed(s, bytes.n);
}

static void on_last(struct stream *s, uint64_t offset)
{
	struct transfer *t = stream_arg(s);

	int r = t->is_answered ? pass_hole(t, offset, 0)
			       : err_set(&t->why, ERR_INVALID, "the sandbox ended the file before it said what it is");

	if (r < 0)
		stop(t);
}

static const struct stream_ops fetch_ops = {
	.reply = on_info, .data = on_bytes, .end = on_last, .closed = on_closed};

/* ---- into the sandbox ---- */

/* A hole before the next piece is skipped in the stream. */
static int skip_hole(struct transfer *t, struct stream *s)
{
	int64_t n = t->holes ? t->from->hole(t->from->arg, &t->why) : 0;

	if (n <= 0)
		return (int)n;
	stream_skip(s, stream_sent(s) + (uint64_t)n);
	return hash_zeros(t, (uint64_t)n);
}

static int refill(struct transfer *t, struct stream *s)
{
	int r = skip_hole(t, s);
	ssize_t n = r == 0 ? t->from->get(t->from->arg, t->piece, PIECE, &t->why) : r;

	if (n < 0)
		return (int)n;
	t->piece_at = 0;
	t->piece_n = (size_t)n;
	t->source_ended = n == 0;
	return hash_update(t, t->piece, t->piece_n);
}

static void on_writable(struct stream *s)
{
	struct transfer *t = stream_arg(s);

	while (!t->source_ended) {
		size_t sent;

		if (t->piece_at == t->piece_n && refill(t, s) < 0) {
			stop(t);
			return;
		}
		sent = stream_send(s, t->piece + t->piece_at, t->piece_n - t->piece_at);
		t->piece_at += sent;
		if (t->piece_at < t->piece_n)
			return;
	}
	stream_end(s);
}

static const struct stream_ops store_ops = {.writable = on_writable, .closed = on_closed};

/* ---- both ---- */

static int attempt(struct conn *c, unsigned method, const void *rec, struct transfer *t,
		   struct err *e)
{
	const struct stream_ops *ops = t->from ? &store_ops : &fetch_ops;
	int r = conn_ready(c, e);

	t->op.done = t->lost = t->is_answered = false;
	t->why = (struct err)ERR_INIT;
	if (r == 0)
		r = link_call(conn_link(c), method, method_find(method)->request, rec,
			      t->from != NULL, NULL, 0, ops, t, &t->stream, e);
	if (r == 0 && t->from)
		on_writable(t->stream);
	if (r == 0)
		r = conn_run(c, &t->op, e);
	return r < 0 ? r : err_copy(e, t->why.code ? &t->why : NULL);
}

static int end(struct transfer *t, int r, struct file_sum *ret, struct err *e)
{
	if (r == 0 && hash_finish(t, ret) < 0)
		r = err_copy(e, &t->why);
	EVP_MD_CTX_free(t->hash);
	return r;
}

int file_fetch(struct conn *c, const struct rec_file_read *rec, const struct file_sink *to,
	       struct file_sum *ret, struct err *e)
{
	struct transfer t = {.op.cancel = cancel, .to = to};
	struct rec_file_read rest = *rec;
	unsigned tries = 0;
	int r = hash_start(&t, ret, e);

	if (r < 0)
		return end(&t, r, ret, e);
	rest.holes = true; /* an agent that does not know the word sends zeros */
	t.want = rec->length ? rec->length : UINT64_MAX;
	t.base = rec->offset;
	do {
		t.from_byte = t.bytes;
		rest.offset = rec->offset + t.bytes;
		rest.length = rec->length ? rec->length - t.bytes : 0;
		r = attempt(c, METHOD_FILE_READ, &rest, &t, e);
	} while (t.lost && (!rec->length || t.bytes < rec->length) && ++tries < LOST_MAX);
	return end(&t, r, ret, e);
}

static int start_over(struct transfer *t, struct err *e)
{
	int r = t->from->rewind(t->from->arg, t->bytes, e);

	t->bytes = 0;
	t->piece_at = t->piece_n = 0;
	t->source_ended = false;
	if (r == 0 && t->hash && EVP_DigestInit_ex(t->hash, EVP_sha256(), NULL) != 1)
		r = err_set(e, ERR_INTERNAL, "SHA-256 failed");
	return r;
}

/* Of agents before 0.1.1, running still, none: they would put the bytes behind a hole in its place. */
static bool takes_holes(struct conn *c, struct span sandbox)
{
	struct rec_sandbox_ref ref = {sandbox};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_guest_health health;
	bool knows = conn_call(c, METHOD_GUEST_PING, &ref, &bytes, &health, NULL) == 0 && health.features & KNOWS_HOLES;

	str_deinit(&bytes);
	return knows;
}

int file_store(struct conn *c, const struct rec_file_write *rec, const struct file_source *from,
	       struct file_sum *ret, struct err *e)
{
	AUTO_FREE unsigned char *piece = mem_new(PIECE);
	struct transfer t = {.op.cancel = cancel, .from = from, .piece = piece};
	unsigned tries = 0;
	bool again;
	int r = hash_start(&t, ret, e);

	if (r < 0)
		return end(&t, r, ret, e);
	t.holes = from->hole && takes_holes(c, rec->sandbox);
	do {
		r = attempt(c, METHOD_FILE_WRITE, rec, &t, e);
		again = t.lost && from->rewind && !rec->append && ++tries < LOST_MAX;
		if (again)
			r = start_over(&t, e);
	} while (again && r == 0);
	return end(&t, r, ret, e);
}

int file_room(struct conn *c, const char *sandbox, uint64_t *ret, struct err *e)
{
	struct rec_sandbox_ref ref = {span_of(sandbox)};
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	int r = conn_call(c, METHOD_SANDBOX_INFO, &ref, &bytes, &info, e);

	if (r == 0)
		*ret = ((info.disk_mb ? info.disk_mb : LIMIT_DISK_MB_MAX) + info.memory_mb + FILE_IMAGE_MB) * MIB;
	str_deinit(&bytes);
	return r;
}

uint64_t file_mtime(const struct stat *st)
{
	int64_t ns = (int64_t)st->st_mtim.tv_sec * (int64_t)NS_PER_S + st->st_mtim.tv_nsec;

	return ns ? (uint64_t)ns : 1; /* 0 is "not given" */
}

void file_sum_text(const struct file_sum *s, char ret[2 * FILE_SHA256 + 1])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < FILE_SHA256; i++) {
		ret[2 * i] = digits[s->sha256[i] >> 4];
		ret[2 * i + 1] = digits[s->sha256[i] & 15];
	}
	ret[2 * FILE_SHA256] = '\0';
}
