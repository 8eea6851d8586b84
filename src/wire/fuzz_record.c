/*
 * wire/fuzz_record.c - hostile records. The first byte picks the type; what was
 * accepted satisfies the schema and comes back the same when encoded again.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "wire/gen/records.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

static void again(const struct rec_type *t, const void *rec)
{
	struct str once = STR_INIT(4 * RECORD_MAX), twice = STR_INIT(4 * RECORD_MAX), json = STR_INIT(8 * RECORD_MAX);
	void *copy = mem_new(t->size);
	struct err e = ERR_INIT;

	/* Explicit zeros are accepted and left out here, so one round may shrink it, a second may not. */
	if (rec_encode(t, rec, &once, &e) < 0)
		abort();
	if (rec_decode(t, once.p, once.len, copy, &e) < 0 || rec_encode(t, copy, &twice, &e) < 0)
		abort();
	assert(once.len == twice.len && (once.len == 0 || memcmp(once.p, twice.p, once.len) == 0));
	rec_json(t, rec, &json);
	assert(json.failed || (json.p[0] == '{' && json.p[json.len - 1] == '}'));
	free(copy);
	str_deinit(&once);
	str_deinit(&twice);
	str_deinit(&json);
}

static void items(const struct rec_type *t, void *rec, const unsigned char *p, size_t n)
{
	int r;

	for (; (r = rec_item_next(t, p, n, rec, NULL)) > 0; p += r, n -= (size_t)r)
		assert((size_t)r <= n);
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	size_t types = 0, pick;
	struct err e = ERR_INIT;
	void *rec;

	while (rec_types[types])
		types++;
	if (n == 0)
		return 0;
	pick = p[0] % types;
	rec = mem_new(rec_types[pick]->size);
	if (rec_decode(rec_types[pick], p + 1, n - 1, rec, &e) == 0)
		again(rec_types[pick], rec);
	else
		assert(e.code && strncmp(e.text, rec_types[pick]->name, strlen(rec_types[pick]->name)) == 0);
	items(rec_types[pick], rec, p + 1, n - 1);
	free(rec);
	return 0;
}
