/* snap/memory.c - memory files: sparse copies with a tag, and what differs between two */
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
	int from, to; /* to -1: only the tag is wanted */
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
	r = c->to < 0 ? 0 : sys_pwrite_full(c->to, c->chunk + from, n, chunk_at + from);
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

/* The first chunk from @at on in which there is data; c->size: none. */
static int find_chunk(const struct copy *c, uint64_t at, uint64_t *ret, struct err *e)
{
	int64_t data = at < c->size ? sys_seek(c->from, at, SEEK_DATA) : -ENXIO;

	if (data < 0 && data != -ENXIO)
		return err_sys(e, (int)data, "look for the memory's data");
	*ret = data < 0 || (uint64_t)data >= c->size ? c->size : (uint64_t)data & ~(uint64_t)(MEMORY_CHUNK - 1);
	return 0;
}

static size_t chunk_size(const struct copy *c, uint64_t at)
{
	return (size_t)MIN(c->size - at, (uint64_t)MEMORY_CHUNK);
}

static int copy_data(struct copy *c, struct err *e)
{
	uint64_t at;
	int r = find_chunk(c, 0, &at, e);

	while (r == 0 && at < c->size) {
		size_t n = chunk_size(c, at);

		r = get_chunk(c, at, n, e);
		if (r == 0)
			r = put_chunk(c, at, n, e);
		if (r == 0)
			r = find_chunk(c, at + n, &at, e);
	}
	return r;
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

static void drop(struct copy *c)
{
	EVP_CIPHER_CTX_free(c->gmac);
	free(c->chunk);
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
	drop(&c);
	return r;
}

/* ---- what differs ---- */

struct delta {
	struct copy own, base;
	unsigned char *map; /* a bit per page: it is zero, and not so in the base */
	uint64_t bytes;	    /* of pages that are not zero */
};

static size_t map_bytes(uint64_t size)
{
	uint64_t bytes = (size / MEMORY_PAGE + 7) / 8;

	return (size_t)((bytes + MEMORY_PAGE - 1) / MEMORY_PAGE * MEMORY_PAGE);
}

/* Where the map lies: its runs begin with a chunk, as those of the pages before it end with one. */
static uint64_t map_at(uint64_t size)
{
	return (size + MEMORY_CHUNK - 1) / MEMORY_CHUNK * MEMORY_CHUNK;
}

uint64_t memory_delta_size(uint64_t size)
{
	return map_at(size) + map_bytes(size);
}

/* Whether the page at @at + @from is to be written; else it is the base's, or noted in the map. */
static bool is_own(struct delta *d, uint64_t at, size_t from)
{
	const unsigned char *page = d->own.chunk + from;
	uint64_t nth = (at + from) / MEMORY_PAGE;
	bool zero = is_zero(page);

	if (!zero)
		d->bytes += MEMORY_PAGE;
	if (memcmp(page, d->base.chunk + from, MEMORY_PAGE) == 0)
		return false;
	if (zero)
		d->map[nth / 8] |= (unsigned char)(1 << nth % 8);
	return !zero;
}

static int compare_chunk(struct delta *d, uint64_t at, size_t n, struct err *e)
{
	size_t begun = n; /* the run that may go on; n: none */
	int r = 0;

	for (size_t from = 0; from < n && r == 0; from += MEMORY_PAGE) {
		if (is_own(d, at, from)) {
			begun = MIN(begun, from);
		} else if (begun < n) {
			r = put_run(&d->own, at, begun, from - begun, e);
			begun = n;
		}
	}
	return r == 0 && begun < n ? put_run(&d->own, at, begun, n - begun, e) : r;
}

static int find_either(const struct delta *d, uint64_t at, uint64_t *ret, struct err *e)
{
	uint64_t other;
	int r = find_chunk(&d->own, at, ret, e);

	if (r == 0)
		r = find_chunk(&d->base, at, &other, e);
	if (r == 0)
		*ret = MIN(*ret, other);
	return r;
}

static int compare_data(struct delta *d, struct err *e)
{
	uint64_t at;
	int r = find_either(d, 0, &at, e);

	while (r == 0 && at < d->own.size) {
		size_t n = chunk_size(&d->own, at);

		r = get_chunk(&d->own, at, n, e);
		if (r == 0)
			r = get_chunk(&d->base, at, n, e);
		if (r == 0)
			r = put_chunk(&d->base, at, n, e);
		if (r == 0)
			r = compare_chunk(d, at, n, e);
		if (r == 0)
			r = find_either(d, at + n, &at, e);
	}
	return r;
}

static int put_map(struct delta *d, struct err *e)
{
	uint64_t to = map_at(d->own.size);
	size_t all = map_bytes(d->own.size);
	int r = 0;

	for (size_t at = 0, n; at < all && r == 0; at += n) {
		n = MIN(all - at, (size_t)MEMORY_CHUNK);
		memcpy(d->own.chunk, d->map + at, n);
		r = put_chunk(&d->own, to + at, n, e);
	}
	return r;
}

static int compare(struct delta *d, const struct key *k, const struct key *base_k, struct err *e)
{
	int r;

	d->map = calloc(1, map_bytes(d->own.size));
	if (!d->map)
		return err_set(e, ERR_LIMIT, "no memory to compare memory with");
	r = begin(&d->own, k, e);
	if (r == 0)
		r = begin(&d->base, base_k, e);
	if (r == 0) {
		r = sys_truncate(d->own.to, memory_delta_size(d->own.size));
		if (r < 0)
			r = err_disk(e, r, "make room for the memory");
	}
	if (r == 0)
		r = compare_data(d, e);
	return r == 0 ? put_map(d, e) : r;
}

int memory_compare(int from, int base, int to, uint64_t size, const struct key *k, const struct key *base_k,
		   struct memory_delta *ret, struct err *e)
{
	struct delta d = {.own = {.from = from, .to = to, .size = size},
			  .base = {.from = base, .to = -1, .size = size}};
	int r = compare(&d, k, base_k, e);

	if (r == 0)
		r = end(&d.own, &ret->own, e);
	if (r == 0)
		r = end(&d.base, &ret->base, e);
	ret->bytes = d.bytes;
	drop(&d.own);
	drop(&d.base);
	free(d.map);
	return r;
}

static bool bit(const unsigned char *map, uint64_t nth)
{
	return map[nth / 8] >> nth % 8 & 1;
}

static int clear_pages(int fd, const unsigned char *map, uint64_t pages, struct err *e)
{
	for (uint64_t from = 0, to; from < pages; from = to) {
		int r;

		for (to = from + 1; to < pages && bit(map, to) == bit(map, from);)
			to++;
		r = bit(map, from) ? sys_punch(fd, from * MEMORY_PAGE, (to - from) * MEMORY_PAGE) : 0;
		if (r < 0)
			return err_sys(e, r, "clear pages of the memory");
	}
	return 0;
}

int memory_clear(int fd, uint64_t size, struct err *e)
{
	struct copy c = {.from = fd, .size = size};
	int r = 0;

	c.chunk = malloc(map_bytes(size));
	if (!c.chunk)
		return err_set(e, ERR_LIMIT, "no memory to clear memory with");
	r = get_chunk(&c, map_at(size), map_bytes(size), e);
	if (r == 0)
		r = clear_pages(fd, c.chunk, size / MEMORY_PAGE, e);
	free(c.chunk);
	if (r < 0)
		return r;
	r = sys_truncate(fd, size);
	return r < 0 ? err_sys(e, r, "cut a memory file") : 0;
}
