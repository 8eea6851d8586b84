/*
 * image/manifest.h - the text file that seals a kernel or an image.
 *
 *	hotcell-image 1
 *	name base
 *	root <sha256> <bytes>
 *	package curl 7.88.1-10
 *
 * First line: kind and format. Then lines of a key and words, one space between.
 * What a manifest lists is verified by the hashes in it; the manifest itself by
 * its own hash, which is part of the name of an image. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "image/hash.h"
struct err;
struct str;

enum {
	MANIFEST_MAX = 1 << 18,  /* bytes of the file */
	MANIFEST_WORDS_MAX = 4,  /* of a line, the key included */
	MANIFEST_WORD_MAX = 256, /* bytes of a word, with NUL */
	MANIFEST_FORMAT = 1,
};

#define MANIFEST_FILE "manifest"

struct manifest {
	char *text; /* owned */
	size_t n;
	char hash[HASH_TEXT]; /* of the text */
};

struct manifest_line {
	size_t n_words;
	char word[MANIFEST_WORDS_MAX][MANIFEST_WORD_MAX]; /* word[0]: the key */
};

/*
 * Read @dirfd's manifest of @kind ("image", "kernel"). Return: 0; -ERR_NOT_FOUND;
 * -ERR_INVALID when it is damaged or of another kind; -ERR_UNSUPPORTED for a newer format.
 */
int manifest_load(int dirfd, const char *kind, struct manifest *ret, struct err *e);
int manifest_parse(const char *text, size_t n, const char *kind, struct manifest *ret,
		   struct err *e);
void manifest_deinit(struct manifest *m);

/* Walk the lines: *at starts at 0. False at the end. Every line was checked at loading. */
bool manifest_next(const struct manifest *m, size_t *at, struct manifest_line *ret);

/* The first line with @key, which must have exactly @n_words words. -ERR_INVALID otherwise. */
int manifest_find(const struct manifest *m, const char *key, size_t n_words,
		  struct manifest_line *ret, struct err *e);

/* Is there a line with @key? */
bool manifest_has(const struct manifest *m, const char *key);

/* A key followed by one number in [min, max]. */
int manifest_u64(const struct manifest *m, const char *key, uint64_t min, uint64_t max,
		 uint64_t *ret, struct err *e);

/* A key followed by a hash and a number: a file's content and size. */
struct manifest_sum {
	char hash[HASH_TEXT];
	uint64_t size; /* bytes of a file, entries of a tree */
};
int manifest_sum(const struct manifest *m, const char *key, struct manifest_sum *ret,
		 struct err *e);

/* Begin a text to be written: the first line. */
void manifest_begin(struct str *s, const char *kind);
