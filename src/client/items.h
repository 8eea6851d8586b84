/*
 * client/items.h - a list on its way: bytes, however they are cut, to records
 *
 * No system calls. What is fed comes from a guest: anything.
 */
#pragma once
#include <stdint.h>
#include "base/span.h"
#include "base/str.h"
#include "wire/record.h"

struct err;

enum { ITEM_BUFFER = 4 * RECORD_MAX };

struct items {
	const struct rec_type *type;
	struct str pending; /* the beginning of an item */
	uint64_t n;	    /* items so far */
};

#define ITEMS_INIT(type_) {.type = (type_), .pending = STR_INIT(ITEM_BUFFER)}

void items_deinit(struct items *it);
void items_clear(struct items *it); /* the list begins again; n stays */

/*
 * items_put() - more of the list
 * @each:	per whole item, which is lent
 * Return: 0; what @each or rec_item_next() say, and then nothing more may be put.
 */
int items_put(struct items *it, struct span bytes, int (*each)(void *arg, const void *item, struct err *e),
	      void *arg, struct err *e);

/* The list is over. -ERR_INVALID when it ended inside an item: it is not whole then. */
int items_end(const struct items *it, struct err *e);
