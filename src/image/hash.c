/* image/hash.c - SHA-256 by OpenSSL's EVP interface */
#include "image/hash.h"
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "sys/fd.h"

enum { HASH_BYTES = 32, READ_BYTES = 1 << 20 };

static void fail(struct hash *h)
{
	EVP_MD_CTX_free(h->md);
	h->md = NULL;
}

void hash_begin(struct hash *h)
{
	h->md = EVP_MD_CTX_new();
	if (h->md && EVP_DigestInit_ex(h->md, EVP_sha256(), NULL) != 1)
		fail(h);
}

void hash_add(struct hash *h, const void *p, size_t n)
{
	if (h->md && EVP_DigestUpdate(h->md, p, n) != 1)
		fail(h);
}

int hash_end(struct hash *h, char ret[HASH_TEXT], struct err *e)
{
	static const char digits[] = "0123456789abcdef";
	unsigned char sum[HASH_BYTES];
	bool ok = h->md && EVP_DigestFinal_ex(h->md, sum, NULL) == 1;

	fail(h); /* frees it */
	if (!ok)
		return err_set(e, ERR_INTERNAL,
			       "the cryptographic library refused to compute SHA-256");
	for (int i = 0; i < HASH_BYTES; i++) {
		ret[2 * i] = digits[sum[i] >> 4];
		ret[2 * i + 1] = digits[sum[i] & 15];
	}
	ret[HASH_TEXT - 1] = '\0';
	return 0;
}

int hash_add_fd(struct hash *h, int fd, uint64_t *ret_bytes, struct err *e)
{
	AUTO_FREE unsigned char *buf = malloc(READ_BYTES);
	uint64_t at = 0;
	ssize_t n;

	if (!buf)
		return err_set(e, ERR_LIMIT, "no memory to hash a file");
	while ((n = sys_pread(fd, buf, READ_BYTES, at)) > 0) {
		hash_add(h, buf, (size_t)n);
		at += (uint64_t)n;
	}
	if (n < 0)
		return err_sys(e, (int)n, "read a file to hash it");
	if (ret_bytes)
		*ret_bytes = at;
	return 0;
}

int hash_mem(const void *p, size_t n, char ret[HASH_TEXT], struct err *e)
{
	struct hash h;

	hash_begin(&h);
	hash_add(&h, p, n);
	return hash_end(&h, ret, e);
}

int hash_fd(int fd, char ret[HASH_TEXT], uint64_t *ret_bytes, struct err *e)
{
	char text[HASH_TEXT];
	struct hash h;
	uint64_t bytes;
	int r;

	hash_begin(&h);
	r = hash_add_fd(&h, fd, &bytes, e);
	if (r < 0) {
		(void)hash_end(&h, text, NULL);
		return r;
	}
	r = hash_end(&h, text, e);
	if (r < 0)
		return r;
	memcpy(ret, text, sizeof(text));
	if (ret_bytes)
		*ret_bytes = bytes;
	return 0;
}

bool hash_text_ok(const char *s)
{
	size_t n = strspn(s, "0123456789abcdef");

	return n == HASH_TEXT - 1 && !s[n];
}
