/* snap/memory.c - memory files: sparse copies with a tag */
#include "snap/memory_int.h"
#include <endian.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "snap/dir_int.h"
#include "snap/key_int.h"
#include "sys/fd.h"

struct copy {
	int from, to;
	uint64_t size, bytes;
	EVP_CIPHER_CTX *gmac;
	unsigned char *chunk; /* MEMORY_CHUNK bytes */
};

static int refused(struct err *e)
{
	return err_set(e, ERR_INTERNAL, "the cryptographic library refused to compute a GMAC");
}

static bool is_zero(const unsigned char *page)
{
	return page[0] == 0 && memcmp(page, page + 1, MEMORY_PAGE - 1) == 0;
}

static bool add(struct copy *c, const void *p, size_t n)
{
	int out;

	return EVP_EncryptUpdate(c->gmac, NULL, &out, p, (int)n) == 1;
}

static int put_run(struct copy *c, uint64_t chunk_at, size_t from, size_t n, struct err *e)
{
	const uint64_t head[2] = {htole64(chunk_at + from), htole64(n)};
	int r;

	if (!add(c, head, sizeof(head)) || !add(c, c->chunk + from, n))
		return refused(e);
	r = sys_pwrite_full(c->to, c->chunk + from, n, chunk_at + from);
	if (r < 0)
		return err_disk(e, r, "write the memory");
	c->bytes += n;
	return 0;
}

static int put_chunk(struct copy *c, uint64_t at, size_t n, struct err *e)
{
	int r = 0;

	for (size_t from = 0, to; from < n && r == 0; from = to) {
		bool zero = is_zero(c->chunk + from);

		for (to = from + MEMORY_PAGE; to < n && is_zero(c->chunk + to) == zero;)
			to += MEMORY_PAGE;
		if (!zero)
			r = put_run(c, at, from, to - from, e);
	}
	return r;
}

static int get_chunk(const struct copy *c, uint64_t at, size_t n, struct err *e)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = sys_pread(c->from, c->chunk + done, n - done, at + done);

		if (r < 0)
			return err_sys(e, (int)r, "read the memory");
		if (r == 0)
			return err_set(e, ERR_INVALID, "the memory is cut off");
		done += (size_t)r;
	}
	return 0;
}

static int copy_data(struct copy *c, struct err *e)
{
	for (uint64_t at = 0; at < c->size;) {
		int64_t data = sys_seek(c->from, at, SEEK_DATA);
		size_t n;
		int r;

		if (data == -ENXIO)
			break; /* only holes from here */
		if (data < 0)
			return err_sys(e, (int)data, "look for the memory's data");
		if ((uint64_t)data >= c->size)
			break;
		at = (uint64_t)data & ~(uint64_t)(MEMORY_CHUNK - 1);
		n = (size_t)MIN(c->size - at, (uint64_t)MEMORY_CHUNK);
		r = get_chunk(c, at, n, e);
		if (r == 0)
			r = put_chunk(c, at, n, e);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

static int begin(struct copy *c, const struct key *k, struct err *e)
{
	static const unsigned char nonce[12]; /* constant: no key is used twice */

	c->gmac = EVP_CIPHER_CTX_new();
	c->chunk = malloc(MEMORY_CHUNK);
	if (!c->gmac || !c->chunk)
		return err_set(e, ERR_LIMIT, "no memory to copy memory with");
	if (EVP_EncryptInit_ex(c->gmac, EVP_aes_256_gcm(), NULL, k->b, nonce) != 1)
		return refused(e);
	return 0;
}

static int end(struct copy *c, struct memory_sum *ret, struct err *e)
{
	unsigned char none[16];
	int n = 0;

	if (EVP_EncryptFinal_ex(c->gmac, none, &n) != 1 || n != 0 ||
	    EVP_CIPHER_CTX_ctrl(c->gmac, EVP_CTRL_AEAD_GET_TAG, SNAP_TAG, ret->tag) != 1)
		return refused(e);
	ret->bytes = c->bytes;
	return 0;
}

int memory_copy(int from, int to, uint64_t size, const struct key *k, struct memory_sum *ret,
		struct err *e)
{
	struct copy c = {.from = from, .to = to, .size = size};
	int r = begin(&c, k, e);

	if (r == 0) {
		r = sys_truncate(to, size);
		if (r < 0)
			r = err_disk(e, r, "make room for the memory");
	}
	if (r == 0)
		r = copy_data(&c, e);
	if (r == 0)
		r = end(&c, ret, e);
	EVP_CIPHER_CTX_free(c.gmac);
	free(c.chunk);
	return r;
}
