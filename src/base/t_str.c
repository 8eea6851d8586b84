/* base/t_str.c */
#include "base/str.h"
#include "base/testing.h"

static void grows_and_stays_terminated(void **state)
{
	struct str s = STR_INIT(100000);

	T_UNUSED(state);
	assert_string_equal(str_text(&s), "");
	for (int i = 0; i < 10000; i++) {
		str_addf(&s, "%d", i % 10);
		assert_int_equal(s.len, i + 1);
		assert_int_equal(s.p[s.len], '\0');
	}
	assert_false(s.failed);
	str_clear(&s);
	assert_int_equal(s.len, 0);
	assert_string_equal(str_text(&s), "");
	str_add(&s, "again");
	assert_string_equal(str_text(&s), "again");
	str_deinit(&s);
	str_deinit(&s);
}

/* Exactly max bytes fit, one more fails; a failed text ignores what follows. */
static void stops_at_its_maximum(void **state)
{
	T_UNUSED(state);
	for (size_t max = 0; max < 200; max++) {
		struct str s = STR_INIT(max);
		char fill[256];

		memset(fill, 'a', sizeof(fill));
		str_add_mem(&s, fill, max);
		assert_false(s.failed);
		assert_int_equal(s.len, max);
		str_add_mem(&s, "", 0);
		assert_false(s.failed);
		str_add(&s, "b");
		assert_true(s.failed);
		assert_int_equal(s.len, max);
		str_add_mem(&s, "", 0);
		str_addf(&s, "%s", "");
		assert_int_equal(s.len, max);
		assert_int_equal(strlen(str_text(&s)), max);
		str_clear(&s);
		assert_false(s.failed);
		str_deinit(&s);
	}
}

static void huge_additions_fail_without_overflow(void **state)
{
	struct str s = STR_INIT(64);

	T_UNUSED(state);
	str_add(&s, "x");
	str_add_mem(&s, "y", SIZE_MAX);
	assert_true(s.failed);
	assert_string_equal(str_text(&s), "x");
	str_deinit(&s);
}

static void check_escaped(const char *in, size_t n, const char *want)
{
	struct str s = STR_INIT(1000);

	str_add_escaped(&s, in, n);
	assert_string_equal(str_text(&s), want);
	str_deinit(&s);
}

static void check_json(const char *in, size_t n, const char *want)
{
	struct str s = STR_INIT(1000);

	str_add_json(&s, in, n);
	assert_string_equal(str_text(&s), want);
	str_deinit(&s);
}

static void escapes_what_terminals_obey(void **state)
{
	T_UNUSED(state);
	check_escaped("plain ~", 7, "plain ~");
	check_escaped("a\nb\tc\\d\r", 8, "a\\nb\\tc\\\\d\\x0d");
	check_escaped("\x1b[31m", 5, "\\x1b[31m");
	check_escaped("\0\x7f", 2, "\\x00\\x7f");
	check_escaped("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80", 15,
		      "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x98\x80");
	check_escaped("\xc2\x9b" "31m", 5, "\\xc2\\x9b31m"); /* CSI in one byte, as UTF-8 */
	check_escaped("\xc2\xa0", 2, "\xc2\xa0");
	check_escaped("\xff\xfe", 2, "\\xff\\xfe");
	check_escaped("\xe2\x82", 2, "\\xe2\\x82");
	check_escaped("", 0, "");
}

/* Each as UTF-8: none may reach a terminal, in a line for people or in JSON. */
static void what_is_not_seen_is_escaped(void **state)
{
	static const struct {
		const char *bytes, *shown, *json;
	} cases[] = {
		{"\xc2\x80", "\\xc2\\x80", "\"\\u0080\""},		/* C1 */
		{"\xc2\x9b", "\\xc2\\x9b", "\"\\u009b\""},		/* CSI */
		{"\xc2\x9f", "\\xc2\\x9f", "\"\\u009f\""},
		{"\xc2\xa0", "\xc2\xa0", "\"\xc2\xa0\""},		/* a blank that does not break is seen */
		{"\xc2\xad", "\\xc2\\xad", "\"\\u00ad\""},		/* soft hyphen */
		{"\xd8\x9c", "\\xd8\\x9c", "\"\\u061c\""},		/* Arabic letter mark */
		{"\xe2\x80\x8a", "\xe2\x80\x8a", "\"\xe2\x80\x8a\""}, /* a thin blank */
		{"\xe2\x80\x8b", "\\xe2\\x80\\x8b", "\"\\u200b\""}, /* no width */
		{"\xe2\x80\x8e", "\\xe2\\x80\\x8e", "\"\\u200e\""}, /* left to right */
		{"\xe2\x80\x8f", "\\xe2\\x80\\x8f", "\"\\u200f\""},
		{"\xe2\x80\x90", "\xe2\x80\x90", "\"\xe2\x80\x90\""}, /* a hyphen */
		{"\xe2\x80\xa8", "\\xe2\\x80\\xa8", "\"\\u2028\""}, /* line separator */
		{"\xe2\x80\xa9", "\\xe2\\x80\\xa9", "\"\\u2029\""},
		{"\xe2\x80\xaa", "\\xe2\\x80\\xaa", "\"\\u202a\""}, /* embedding */
		{"\xe2\x80\xae", "\\xe2\\x80\\xae", "\"\\u202e\""}, /* right to left from here on */
		{"\xe2\x81\xa0", "\\xe2\\x81\\xa0", "\"\\u2060\""},
		{"\xe2\x81\xa6", "\\xe2\\x81\\xa6", "\"\\u2066\""}, /* isolates */
		{"\xe2\x81\xa9", "\\xe2\\x81\\xa9", "\"\\u2069\""},
		{"\xef\xbb\xbf", "\\xef\\xbb\\xbf", "\"\\ufeff\""}, /* byte-order mark */
		{"\xf3\xa0\x81\x81", "\\xf3\\xa0\\x81\\x81", "\"\\udb40\\udc41\""}, /* tags */
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\""},
		{"\xc0\x9b", "\\xc0\\x9b", "\"\xef\xbf\xbd\xef\xbf\xbd\""}, /* overlong */
		{"\xe0\x82\x9b", "\\xe0\\x82\\x9b", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
		{"\x9b", "\\x9b", "\"\xef\xbf\xbd\""},
		{"\x7f", "\\x7f", "\"\\u007f\""},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		check_escaped(cases[i].bytes, strlen(cases[i].bytes), cases[i].shown);
		check_json(cases[i].bytes, strlen(cases[i].bytes), cases[i].json);
	}
}

/* For any bytes: one line, no control codes, and the original can be read back. */
static void escaping_is_reversible_and_one_line(void **state)
{
	uint64_t seed = 1;

	T_UNUSED(state);
	for (int round = 0; round < 2000; round++) {
		unsigned char in[40], back[40];
		size_t n = t_random(&seed) % sizeof(in), m = 0;
		struct str s = STR_INIT(1000);

		for (size_t i = 0; i < n; i++)
			in[i] = (unsigned char)t_random(&seed);
		str_add_escaped(&s, in, n);
		for (const char *p = str_text(&s); *p; p++) {
			unsigned value;

			assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
			if (*p != '\\') {
				back[m++] = (unsigned char)*p;
				continue;
			}
			p++;
			if (*p == 'x') {
				assert_int_equal(sscanf(p + 1, "%2x", &value), 1);
				back[m++] = (unsigned char)value;
				p += 2;
			} else {
				back[m++] = *p == 'n' ? '\n' : *p == 't' ? '\t' : '\\';
			}
		}
		assert_int_equal(m, n);
		assert_memory_equal(in, back, n);
		str_deinit(&s);
	}
}

static void utf8_is_strict(void **state)
{
	static const struct {
		const char *bytes;
		size_t n, want;
	} cases[] = {
		{ "", 0, 0 },
		{ "a", 1, 1 },
		{ "\0", 1, 1 },
		{ "\x7f", 1, 1 },
		{ "\x80", 1, 0 },
		{ "\xc0\x80", 2, 0 },		/* overlong NUL */
		{ "\xc1\xbf", 2, 0 },
		{ "\xc2\x80", 2, 2 },
		{ "\xdf\xbf", 2, 2 },
		{ "\xe0\x9f\xbf", 3, 0 },	/* overlong */
		{ "\xe0\xa0\x80", 3, 3 },
		{ "\xed\x9f\xbf", 3, 3 },
		{ "\xed\xa0\x80", 3, 0 },	/* surrogate */
		{ "\xed\xbf\xbf", 3, 0 },
		{ "\xee\x80\x80", 3, 3 },
		{ "\xf0\x8f\xbf\xbf", 4, 0 },	/* overlong */
		{ "\xf0\x90\x80\x80", 4, 4 },
		{ "\xf4\x8f\xbf\xbf", 4, 4 },
		{ "\xf4\x90\x80\x80", 4, 0 },	/* beyond U+10FFFF */
		{ "\xf8\x88\x80\x80\x80", 5, 0 },
		{ "\xff", 1, 0 },
		{ "\xc3", 1, 0 },
		{ "\xc3(", 2, 0 },
		{ "\xe2\x82", 2, 0 },
		{ "\xc3\xbctail", 6, 2 },
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(str_utf8_len(cases[i].bytes, cases[i].n), cases[i].want);
}

static void json_strings_are_valid_whatever_comes_in(void **state)
{
	T_UNUSED(state);
	check_json("", 0, "\"\"");
	check_json("a\"b\\c", 5, "\"a\\\"b\\\\c\"");
	check_json("\n\0\x1f", 3, "\"\\u000a\\u0000\\u001f\"");
	check_json("\xe2\x82\xac", 3, "\"\xe2\x82\xac\"");
	check_json("x\xffy", 3, "\"x\xef\xbf\xbdy\"");
	check_json("\xe2\x82", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

static void prefixes_and_equality(void **state)
{
	T_UNUSED(state);
	assert_true(str_starts("abc", "ab"));
	assert_true(str_starts("abc", ""));
	assert_false(str_starts("ab", "abc"));
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq(NULL, ""));
	assert_false(str_eq("", NULL));
	assert_true(str_eq("a", "a"));
	assert_false(str_eq("a", "b"));
}

static void numbers_have_bounds(void **state)
{
	uint64_t v = 42;

	T_UNUSED(state);
	assert_int_equal(str_to_u64("0", 0, 9, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(str_to_u64("18446744073709551615", 0, UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(str_to_u64("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(str_to_u64("99999999999999999999999", 0, UINT64_MAX, &v), -ERANGE);
	assert_int_equal(str_to_u64("10", 0, 9, &v), -ERANGE);
	assert_int_equal(str_to_u64("4", 5, 9, &v), -ERANGE);
	assert_int_equal(str_to_u64("007", 7, 7, &v), 0);
	static const char *const bad[] = { NULL, "", " 1", "1 ", "-1", "+1", "0x10", "1e3", "one" };

	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(str_to_u64(bad[i], 0, 100, &v), -EINVAL);
	assert_int_equal(v, 7); /* failures leave it alone */
}

T_MAIN(T(grows_and_stays_terminated), T(stops_at_its_maximum), T(huge_additions_fail_without_overflow),
       T(escapes_what_terminals_obey), T(what_is_not_seen_is_escaped),
       T(escaping_is_reversible_and_one_line), T(utf8_is_strict),
       T(json_strings_are_valid_whatever_comes_in), T(prefixes_and_equality), T(numbers_have_bounds))
