/*
 * client/fuzz_items.c - a hostile list, cut anywhere
 *
 * The first byte picks the list, the next four say where it is cut. However it is cut, the same items
 * come, and it is whole or broken in the same way.
 */
#include <assert.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "client/items.h"
#include "wire/gen/records.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

enum { BROKEN_AT_END = 1000, PIECES = 100 };

struct seen {
	const struct rec_type *type;
	uint64_t hash, n, stop_at;
};

static void mix(uint64_t *hash, const void *p, size_t n)
{
	for (const unsigned char *u = p; n--; u++)
		*hash = (*hash ^ *u) * UINT64_C(1099511628211);
}

static int on_item(void *arg, const void *item, struct err *e)
{
	struct seen *s = arg;

	for (size_t i = 0; i < s->type->n_fields; i++) {
		const struct rec_field *f = &s->type->fields[i];
		const void *at = (const char *)item + f->offset;
		const struct span *text = at;

		if (f->type == REC_U64 || f->type == REC_I64)
			mix(&s->hash, at, 8);
		else if (f->type == REC_BOOL)
			mix(&s->hash, at, 1);
		else if (f->type == REC_ID)
			mix(&s->hash, at, ID_BYTES);
		else if (text->n)
			mix(&s->hash, text->p, text->n); /* lent: it must be there */
	}
	if (++s->n == s->stop_at)
		return err_set(e, ERR_CANCELED, "enough");
	return 0;
}

/* The end of the list: 0, or the code. */
static int take(const unsigned char *p, size_t n, const unsigned char cuts[4], struct seen *ret)
{
	struct items it = ITEMS_INIT(ret->type);
	struct err e = ERR_INIT;
	size_t step = 0, least = n / PIECES;
	int r = 0;

	while (n && r == 0) {
		size_t piece = cuts && cuts[step % 4] ? MIN(n, least + cuts[step % 4]) : n;

		r = items_put(&it, (struct span){(const char *)p, piece}, on_item, ret, &e);
		p += piece;
		n -= piece;
		step++;
	}
	assert(it.n == ret->n);
	if (r == 0 && items_end(&it, &e) < 0)
		r = BROKEN_AT_END;
	assert(r == 0 || (e.code && e.text[0]));
	items_deinit(&it);
	return r;
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	static const struct rec_type *const types[] = {
		&rec_file_info_type, &rec_exec_info_type, &rec_sandbox_info_type, &rec_process_info_type,
		&rec_file_event_type, &rec_event_type,	  &rec_code_context_type, &rec_snapshot_info_type,
	};
	struct seen whole = {0}, cut;
	int a, b;

	if (n < 5)
		return 0;
	whole.type = types[p[0] % ARRAY_LEN(types)];
	whole.stop_at = p[0] / 64 == 3 ? 2 : 0;
	cut = whole;
	a = take(p + 5, n - 5, NULL, &whole);
	b = take(p + 5, n - 5, p + 1, &cut);
	assert(a == b && whole.n == cut.n && whole.hash == cut.hash);
	return 0;
}
