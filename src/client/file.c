/* client/file.c - the bytes of one file, in and out */
#include "client/file.h"
#include <openssl/evp.h>
#include <stdbool.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "client/conn.h"
#include "loop/link.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { PIECE = 65536, LOST_MAX = 10 };

struct transfer {
	struct conn_op op;
	struct stream *stream;
	EVP_MD_CTX *hash;
	uint64_t bytes;
	bool lost;		      /* the connection, not the file, failed */
	bool known;		      /* size and mtime are valid */
	uint64_t size, mtime_ns;      /* of the file when reading began */
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
	return EVP_DigestUpdate(t->hash, p, n) == 1
		       ? 0
		       : err_set(&t->why, ERR_INTERNAL, "SHA-256 failed");
}

static int hash_start(struct transfer *t, struct err *e)
{
	t->hash = EVP_MD_CTX_new();
	if (!t->hash || EVP_DigestInit_ex(t->hash, EVP_sha256(), NULL) != 1)
		return err_set(e, ERR_INTERNAL, "SHA-256 is not available");
	return 0;
}

static int hash_finish(struct transfer *t, struct file_sum *ret)
{
	ret->bytes = t->bytes;
	return EVP_DigestFinal_ex(t->hash, ret->sha256, NULL) == 1
		       ? 0
		       : err_set(&t->why, ERR_INTERNAL, "SHA-256 failed");
}

/* ---- out of the sandbox ---- */

static void on_info(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct transfer *t = stream_arg(s);
	struct rec_file_info info;
	int r = rec_decode(&rec_file_info_type, payload.p, payload.n, &info, &t->why);

	(void)fds;
	(void)n_fds;
	if (r == 0 && t->known && (info.size != t->size || info.mtime_ns != t->mtime_ns))
		r = err_set(&t->why, ERR_CONFLICT, "the file changed while it was read");
	if (r == 0 && !t->known && t->to->begin)
		r = t->to->begin(t->to->arg, &info, &t->why);
	t->known = true;
	t->size = info.size;
	t->mtime_ns = info.mtime_ns;
	if (r < 0)
		stop(t);
}

static void on_bytes(struct stream *s, uint64_t offset, struct span bytes)
{
	struct transfer *t = stream_arg(s);
	int r = 0;

	(void)offset;
	r = hash_update(t, bytes.p, bytes.n);
	if (r == 0)
		r = t->to->put(t->to->arg, bytes.p, bytes.n, &t->why);
	if (r < 0)
		stop(t);
	else
		stream_consumed(s, bytes.n);
}

static const struct stream_ops fetch_ops = {
	.reply = on_info, .data = on_bytes, .closed = on_closed};

/* ---- into the sandbox ---- */

static int refill(struct transfer *t)
{
	ssize_t n = t->from->get(t->from->arg, t->piece, PIECE, &t->why);

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

		if (t->piece_at == t->piece_n && refill(t) < 0) {
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

	t->op.done = t->lost = false;
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
	int r = hash_start(&t, e);

	if (r < 0)
		return end(&t, r, ret, e);
	do {
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
	if (r == 0 && EVP_DigestInit_ex(t->hash, EVP_sha256(), NULL) != 1)
		r = err_set(e, ERR_INTERNAL, "SHA-256 failed");
	return r;
}

int file_store(struct conn *c, const struct rec_file_write *rec, const struct file_source *from,
	       struct file_sum *ret, struct err *e)
{
	AUTO_FREE unsigned char *piece = mem_new(PIECE);
	struct transfer t = {.op.cancel = cancel, .from = from, .piece = piece};
	unsigned tries = 0;
	bool again;
	int r = hash_start(&t, e);

	if (r < 0)
		return end(&t, r, ret, e);
	do {
		r = attempt(c, METHOD_FILE_WRITE, rec, &t, e);
		again = t.lost && from->rewind && !rec->append && ++tries < LOST_MAX;
		if (again)
			r = start_over(&t, e);
	} while (again && r == 0);
	return end(&t, r, ret, e);
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
