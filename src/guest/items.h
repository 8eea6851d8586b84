/*
 * guest/items.h - answer a call with a list, item by item, as fast as the
 * reader takes them and never holding up the loop.
 */
#pragma once
#include "wire/record.h"

struct err;
struct stream;

enum { ITEMS_END = 0, ITEMS_ONE = 1, ITEMS_LATER = 2 /* nothing yet: ask again next turn */ };

struct items_source {
	const struct rec_type *type;
	/* Fill @rec with the current item (lent until advance). ITEMS_*; -ERR_x ends the call. */
	int (*fill)(void *arg, void *rec, struct err *e);
	void (*advance)(void *arg);
	void (*free)(void *arg); /* once */
};

/* Replies "empty" and streams; @arg is given. */
void items_start(struct stream *s, const struct items_source *src, void *arg);
