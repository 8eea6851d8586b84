/* base/t_data.c - ring, list, span, id, unit */
#include "base/id.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/ring.h"
#include "base/span.h"
#include "base/testing.h"
#include "base/unit.h"

static void ring_refuses_odd_capacities(void **state)
{
	struct ring r;

	T_UNUSED(state);
	assert_int_equal(ring_init(&r, 0), -EINVAL);
	assert_int_equal(ring_init(&r, 3), -EINVAL);
	assert_int_equal(ring_init(&r, 4096), 0);
	assert_int_equal(ring_room(&r), 4096);
	ring_deinit(&r);
	ring_deinit(&r);
}

/* Against a plain array: whatever is written and dropped, [head, tail) reads back. */
static void ring_keeps_bytes_and_offsets(void **state)
{
	static unsigned char all[200000];
	uint64_t seed = 7;
	struct ring r;

	T_UNUSED(state);
	for (size_t i = 0; i < sizeof(all); i++)
		all[i] = (unsigned char)t_random(&seed);
	assert_int_equal(ring_init(&r, 256), 0);
	while (r.tail < sizeof(all)) {
		size_t want = MIN(t_random(&seed) % 300, sizeof(all) - r.tail), room = ring_room(&r), n;

		assert_int_equal(ring_write(&r, all + r.tail, want), MIN(want, room));
		assert_true(r.tail - r.head <= 256); /* RING-1 */
		for (uint64_t off = r.head; off < r.tail; off += n) {
			const void *p = ring_at(&r, off, &n);

			assert_true(n > 0 && off + n <= r.tail);
			assert_memory_equal(p, all + off, n);
		}
		(void)ring_at(&r, r.tail, &n);
		assert_int_equal(n, 0);
		ring_drop(&r, t_random(&seed) % (ring_used(&r) + 1));
	}
	ring_deinit(&r);
}

static void ring_space_is_contiguous_room(void **state)
{
	struct ring r;
	size_t n;
	char *p;

	T_UNUSED(state);
	assert_int_equal(ring_init(&r, 16), 0);
	assert_int_equal(ring_write(&r, "0123456789", 10), 10);
	ring_drop(&r, 6);
	p = ring_space(&r, &n);
	assert_int_equal(n, 6); /* up to the edge, though 12 are free */
	memcpy(p, "abcdef", n);
	ring_commit(&r, n);
	(void)ring_space(&r, &n);
	assert_int_equal(n, 6);
	assert_int_equal(ring_write(&r, "ghijklmnop", 10), 6);
	(void)ring_space(&r, &n);
	assert_int_equal(n, 0);
	assert_int_equal(ring_room(&r), 0);
	p = (char *)ring_at(&r, 10, &n);
	assert_int_equal(n, 6);
	assert_memory_equal(p, "abcdef", 6);
	ring_deinit(&r);
}

struct item {
	int value;
	struct list link;
};

static void list_adds_takes_and_deletes_twice(void **state)
{
	struct list head, taken;
	struct item items[4];
	int sum = 0;

	T_UNUSED(state);
	list_init(&head);
	list_take(&head, &taken);
	assert_true(list_empty(&taken));
	for (int i = 0; i < 4; i++) {
		items[i].value = i + 1;
		list_add_tail(&head, &items[i].link);
	}
	list_del(&items[1].link);
	list_del(&items[1].link);
	LIST_FOR_EACH(pos, &head)
		sum = 10 * sum + LIST_ENTRY(pos, struct item, link)->value;
	assert_int_equal(sum, 134);
	list_take(&head, &taken);
	assert_true(list_empty(&head));
	LIST_FOR_EACH_SAFE(pos, &taken)
		list_del(pos);
	assert_true(list_empty(&taken));
}

static void spans_and_vectors(void **state)
{
	struct strv v = { "a\0bc\0\0d\0", 8 };
	static const char *const want[] = { "a", "bc", "", "d" };
	char small[4];
	size_t i = 0;

	T_UNUSED(state);
	assert_int_equal(strv_count(v), 4);
	for (const char *s = strv_first(v); s; s = strv_next(v, s))
		assert_string_equal(s, want[i++]);
	assert_int_equal(i, 4);
	assert_null(strv_first((struct strv){ 0 }));
	assert_int_equal(strv_count((struct strv){ "\0", 1 }), 1);
	assert_true(span_is(span_of("abc"), "abc"));
	assert_false(span_is(span_of("abc"), "ab"));
	assert_true(span_is((struct span){ 0 }, ""));
	assert_int_equal(span_of(NULL).n, 0);
	span_copy(span_of("abcdef"), small, sizeof(small));
	assert_string_equal(small, "abc");
	span_copy((struct span){ 0 }, small, sizeof(small));
	assert_string_equal(small, "");
}

static void ids_parse_in_both_shapes(void **state)
{
	static const char text[] = "0123456789abcdef0123456789abcdef";
	struct id a, b = { { 9 } };
	char out[ID_TEXT];

	T_UNUSED(state);
	assert_int_equal(id_parse(text, 32, &a), 0);
	id_format(&a, out);
	assert_string_equal(out, text);
	assert_int_equal(id_parse("01234567-89AB-cdef-0123-456789abcDEF", 36, &b), 0);
	assert_true(id_eq(&a, &b));
	assert_false(id_is_zero(&a));
	assert_true(id_is_zero(&(struct id){ { 0 } }));
	static const char *const bad[] = {
		"", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdef0",
		"0123456789abcdef0123456789abcdeg", "01234567-89ab-cdef-0123-456789abcde-",
		"012345678-9ab-cdef-0123-456789abcdef", "------------------------------------",
		" 123456789abcdef0123456789abcdef", "0123456789abcdef-0123456789abcdef---",
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		b = a;
		assert_int_equal(id_parse(bad[i], strlen(bad[i]), &b), -EINVAL);
		assert_true(id_eq(&a, &b)); /* untouched */
	}
}

static void names_are_safe_words(void **state)
{
	static const char *const good[] = { "a", "A-b_c.9", "_", "0",
					    "0123456789012345678901234567890123456789012345678901234567890123" };
	static const char *const bad[] = { "", ".", "..", ".a", "-a", "a/b", "a b", "a\n", "\xc3\xbc", "a\\",
					   "0123456789abcdef0123456789abcdef",
					   "01234567-89ab-cdef-0123-456789abcdef",
					   "01234567890123456789012345678901234567890123456789012345678901234" };

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(id_name_ok(good[i], strlen(good[i])));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(id_name_ok(bad[i], strlen(bad[i])));
	assert_false(id_name_ok("a\0b", 3));
}

static void sizes_people_type(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t want;
	} cases[] = {
		{ "0", 0, 0 },
		{ "17", 0, 17 },
		{ "17B", 0, 17 },
		{ "1K", 0, 1024 },
		{ "1.5KiB", 0, 1536 },
		{ "512M", 0, 512 * MIB },
		{ "512MB", 0, 512 * MIB },
		{ "1.5G", 0, 1536 * MIB },
		{ "0.0009G", 0, 0 }, /* three decimals count */
		{ "2TiB", 0, 2048 * GIB },
		{ "16777216T", -ERANGE, 0 },
		{ "18446744073709551616", -ERANGE, 0 },
		{ "", -EINVAL, 0 },
		{ "M", -EINVAL, 0 },
		{ "-1M", -EINVAL, 0 },
		{ "+1M", -EINVAL, 0 },
		{ " 1M", -EINVAL, 0 },
		{ "1 M", -EINVAL, 0 },
		{ "1.M", -EINVAL, 0 },
		{ "1,5G", -EINVAL, 0 },
		{ "512m", 0, 512 * MIB },
		{ "2g", 0, 2 * GIB },
		{ "1kib", 0, 1024 },
		{ "1mm", -EINVAL, 0 },
		{ "1MM", -EINVAL, 0 },
		{ "0x10", -EINVAL, 0 },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t v = 99;

		assert_int_equal(unit_parse_bytes(cases[i].text, &v), cases[i].r);
		assert_int_equal(v, cases[i].r ? 99 : cases[i].want);
	}
}

static void durations_people_type(void **state)
{
	static const struct {
		const char *text;
		int r;
		uint64_t want;
	} cases[] = {
		{ "30", 0, 30000 },	 { "30s", 0, 30000 },  { "250ms", 0, 250 },	{ "1.5m", 0, 90000 },
		{ "2h", 0, 7200000 },	 { "1d", 0, 86400000 }, { "0.25s", 0, 250 },	{ "1.2345s", 0, 1234 },
		{ "5x", -EINVAL, 0 },	 { "s", -EINVAL, 0 },  { "", -EINVAL, 0 },	{ "1M", -EINVAL, 0 },
		{ "99999999999999999999s", -ERANGE, 0 },       { "300000000000d", -ERANGE, 0 },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t v = 99;

		assert_int_equal(unit_parse_ms(cases[i].text, &v), cases[i].r);
		assert_int_equal(v, cases[i].r ? 99 : cases[i].want);
	}
}

static void durations_people_read(void **state)
{
	static const struct {
		uint64_t ms;
		const char *want;
	} cases[] = {{0, "0s"}, {1, "1ms"}, {1500, "1500ms"}, {90000, "90s"}, {60000, "1m"},
		     {7200000, "2h"}, {2592000000, "30d"}, {UINT64_MAX, "18446744073709551615ms"}};
	uint64_t v;
	char text[UNIT_TEXT];

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		unit_format_ms(cases[i].ms, text);
		assert_string_equal(text, cases[i].want);
		assert_int_equal(unit_parse_ms(text, &v), 0);
		assert_int_equal(v, cases[i].ms);
	}
}

static void sizes_people_read(void **state)
{
	static const struct {
		uint64_t bytes;
		const char *want;
	} cases[] = {
		{ 0, "0 B" },		     { 1023, "1023 B" },	  { 1024, "1.0 KiB" },
		{ 1536 * MIB, "1.5 GiB" },   { 200 * MIB, "200 MiB" },	  { UINT64_MAX, "16384 PiB" },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[UNIT_TEXT];

		unit_format_bytes(cases[i].bytes, text);
		assert_string_equal(text, cases[i].want);
	}
}

static void memory_is_zeroed_and_copied(void **state)
{
	AUTO_FREE char *a = mem_new(1000);
	AUTO_FREE char *b = mem_dup("xyz", 3);
	AUTO_FREE char *c = mem_strndup("xyz", 2);
	char *given = take_ptr(&c);

	T_UNUSED(state);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(a[i], 0);
	assert_memory_equal(b, "xyz", 3);
	assert_string_equal(given, "xy");
	free(given);
	given = mem_strndup("short", 1000);
	assert_string_equal(given, "short");
	assert_null(c);
	assert_null(mem_strdup(NULL));
	free(given);
}

T_MAIN(T(ring_refuses_odd_capacities), T(ring_keeps_bytes_and_offsets), T(ring_space_is_contiguous_room),
       T(list_adds_takes_and_deletes_twice), T(spans_and_vectors), T(ids_parse_in_both_shapes),
       T(names_are_safe_words), T(sizes_people_type), T(durations_people_type), T(durations_people_read),
       T(sizes_people_read),
       T(memory_is_zeroed_and_copied))
