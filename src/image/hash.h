/* image/hash.h - SHA-256 of files and of things put together. Any thread. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
struct err;

#define HASH_TEXT 65 /* 64 lower-case hex digits and NUL */

/* A running hash. hash_end() frees it, also after a failure: call it exactly once per hash_begin().
 */
struct hash {
	void *md; /* EVP_MD_CTX; NULL once something failed */
};

void hash_begin(struct hash *h);
void hash_add(struct hash *h, const void *p, size_t n);
/* The text is only set on success. -ERR_INTERNAL when the library failed anywhere since the start.
 */
int hash_end(struct hash *h, char ret[HASH_TEXT], struct err *e);

/* Add everything from @fd's start to its end, whatever its offset; *ret_bytes: how much that was.
 */
int hash_add_fd(struct hash *h, int fd, uint64_t *ret_bytes, struct err *e);

int hash_mem(const void *p, size_t n, char ret[HASH_TEXT], struct err *e);
int hash_fd(int fd, char ret[HASH_TEXT], uint64_t *ret_bytes, struct err *e);

/* Exactly 64 lower-case hex digits. */
bool hash_text_ok(const char *s);
