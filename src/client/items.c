/* client/items.c - a list on its way */
#include "client/items.h"
#include <assert.h>
#include <string.h>
#include "base/err.h"

enum { STRUCT_MAX = 1024 }; /* bytes of the largest decoded record */

void items_deinit(struct items *it)
{
	str_deinit(&it->pending);
}

void items_clear(struct items *it)
{
	str_clear(&it->pending);
}

int items_put(struct items *it, struct span bytes, int (*each)(void *arg, const void *item, struct err *e),
	      void *arg, struct err *e)
{
	_Alignas(16) char item[STRUCT_MAX];
	size_t used = 0;
	int r = 0;

	assert(it->type->size <= sizeof(item));
	str_add_mem(&it->pending, bytes.p, bytes.n);
	if (it->pending.failed)
		return err_set(e, ERR_LIMIT, "%s: an item is too long", it->type->name);
	while (r == 0) {
		r = rec_item_next(it->type, it->pending.p + used, it->pending.len - used, item, e);
		if (r <= 0)
			break;
		used += (size_t)r;
		it->n++;
		r = each(arg, item, e);
	}
	if (r < 0)
		return r;
	if (used)
		memmove(it->pending.p, it->pending.p + used, it->pending.len - used);
	it->pending.len -= used;
	return 0;
}

int items_end(const struct items *it, struct err *e)
{
	return it->pending.len ? err_set(e, ERR_INVALID, "%s: the list ends in the middle of an item; it is not "
					 "whole", it->type->name)
			       : 0;
}
