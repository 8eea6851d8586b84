/*
 * snap/key_int.h - the key of this installation, and what is made with it. Any thread.
 *
 * The key never leaves its file and the stack of whoever uses it.
 */
#pragma once
#include <stddef.h>
struct err;

enum { KEY_BYTES = 32, KEY_MAC = 32 };

struct key {
	unsigned char b[KEY_BYTES];
};

/* Read it. -ERR_NOT_FOUND: nothing was ever kept here. -ERR_INVALID: not a key. -ERR_DENIED: others may read it. */
int key_load(int state_fd, struct key *ret, struct err *e);
/* The same, and make it if there is none: whole or not at all, once, whoever else does it too. */
int key_ensure(int state_fd, struct key *ret, struct err *e);
/* Remove what a death left while the key was made. */
int key_sweep(int state_fd, struct err *e);
void key_wipe(struct key *k);

/* HMAC-SHA256. */
int key_mac(const struct key *k, const void *p, size_t n, unsigned char ret[KEY_MAC], struct err *e);
/* A key for one purpose and one @salt. */
int key_derive(const struct key *k, const char *purpose, const void *salt, size_t n, struct key *ret,
	       struct err *e);
