/*
 * client/holes.h - read a file of this host, its holes apart
 *
 * holes_skip(), then holes_get() until the next hole; who never asks for holes gets zeros. Blocks on disk.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct stat;

struct holes {
	int fd; /* lent */
	bool regular;	       /* else it is read from where it stands */
	bool sparse;	       /* it has holes to look for */
	uint64_t at, data_end; /* regular: the place; up to data_end there is no hole */
};

/* @st: of @fd. A regular file is read from its first byte on. */
void holes_init(struct holes *h, int fd, const struct stat *st);
/* Bytes of the hole that begins here, which is passed; 0: none; negative errno. */
int64_t holes_skip(struct holes *h);
/* 0: the end; negative errno. */
ssize_t holes_get(struct holes *h, void *p, size_t n);
int holes_rewind(struct holes *h);
