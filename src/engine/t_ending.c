/* engine/t_ending.c - output cut anywhere, and every way to end */
#include "engine/ending.h"
#include "base/testing.h"
#include "base/err.h"
#include "base/macro.h"
#include "base/span.h"
#include "wire/bytes.h"
#include "wire/gen/records.h"

static void add_chunk(struct str *s, unsigned kind, const char *p, size_t n)
{
	unsigned char head[4];

	put_u32(head, (uint32_t)n << 8 | kind);
	str_add_mem(s, head, sizeof(head));
	str_add_mem(s, p, n);
}

static void add_record(struct str *s, unsigned kind, const struct rec_type *t, const void *rec)
{
	struct str bytes = STR_INIT(4096);

	assert_int_equal(rec_encode(t, rec, &bytes, NULL), 0);
	add_chunk(s, kind, str_text(&bytes), bytes.len);
	str_deinit(&bytes);
}

/* Read @s in pieces of @piece bytes. */
static int verdict(const struct str *s, bool is_code, size_t piece, struct err *e)
{
	struct ending x;
	int r;

	ending_init(&x, is_code);
	for (size_t at = 0; at < s->len; at += piece)
		ending_read(&x, (struct span){s->p + at, MIN(piece, s->len - at)});
	*e = (struct err)ERR_INIT;
	r = ending_check(&x, e);
	ending_deinit(&x);
	return r;
}

static void a_program_in_pieces(void **state)
{
	struct str s = STR_INIT(4096);
	struct err e;

	T_UNUSED(state);
	add_chunk(&s, 1, "\4\0\0\0", 4); /* looks like the end, and is output */
	add_chunk(&s, 2, "", 0);
	add_record(&s, 4, &rec_exec_exit_type, &(struct rec_exec_exit){.reason = span_of("exited")});
	for (size_t piece = 1; piece <= s.len; piece++)
		assert_int_equal(verdict(&s, false, piece, &e), 0);
	str_clear(&s);
	add_record(&s, 4, &rec_exec_exit_type, &(struct rec_exec_exit){.code = 3, .reason = span_of("exited")});
	for (size_t piece = 1; piece <= s.len; piece++)
		assert_int_equal(verdict(&s, false, piece, &e), -ERR_INVALID);
	assert_string_equal(e.text, "it ended with status 3");
	str_clear(&s);
	add_record(&s, 4, &rec_exec_exit_type,
		   &(struct rec_exec_exit){.code = -1, .signal = 9, .reason = span_of("timeout")});
	assert_int_equal(verdict(&s, false, s.len, &e), -ERR_INVALID);
	assert_string_equal(e.text, "it was ended by signal 9 (timeout)");
	str_deinit(&s);
}

static void sources(void **state)
{
	static const struct {
		struct rec_code_end end;
		const char *says; /* NULL: fine */
	} cases[] = {
		{{.status = {"ok", 2}}, NULL},
		{{.status = {"ok", 2}, .exit_code = 2}, "it ended with ok, status 2"},
		{{.status = {"error", 5}, .exit_code = 1}, "ImportError: no numpy"},
		{{.status = {"ended", 5}, .signal = 4, .message = {"killed by signal 4", 18}}, "killed by signal 4"},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct str s = STR_INIT(4096);
		struct err e;
		int want = cases[i].says ? -ERR_INVALID : 0;

		add_chunk(&s, 2, "warning", 7);
		if (span_is(cases[i].end.status, "error"))
			add_record(&s, 5, &rec_code_part_type,
				   &(struct rec_code_part){.name = span_of("ImportError"),
							   .message = span_of("no numpy"), .bytes = 5});
		add_chunk(&s, 4, "trace", 5);
		add_record(&s, 6, &rec_code_end_type, &cases[i].end);
		for (size_t piece = 1; piece <= s.len; piece++)
			assert_int_equal(verdict(&s, true, piece, &e), want);
		if (want)
			assert_string_equal(e.text, cases[i].says);
		str_deinit(&s);
	}
}

/* An exception without its head; no end; an end beyond any record, or that is none. */
static void nonsense(void **state)
{
	static const struct rec_code_end end = {.status = {"error", 5}, .exit_code = 1};
	static char much[100000];
	struct str s = STR_INIT(1 << 20);
	struct err e;

	T_UNUSED(state);
	assert_int_equal(verdict(&s, false, 1, &e), -ERR_INVALID);
	assert_int_equal(verdict(&s, true, 1, &e), -ERR_INVALID);
	assert_string_equal(e.text, "the guest did not say how it ended");
	add_chunk(&s, 1, much, sizeof(much));
	add_chunk(&s, 4, much, sizeof(much));
	assert_int_equal(verdict(&s, false, 4096, &e), -ERR_INVALID);
	str_clear(&s);
	add_chunk(&s, 4, "\377", 1);
	assert_int_equal(verdict(&s, false, 1, &e), -ERR_INVALID);
	str_clear(&s);
	add_record(&s, 6, &rec_code_end_type, &end);
	assert_int_equal(verdict(&s, true, 1, &e), -ERR_INVALID);
	assert_string_equal(e.text, "it ended with error, status 1");
	s.len--; /* cut off */
	assert_int_equal(verdict(&s, true, 1, &e), -ERR_INVALID);
	str_deinit(&s);
}

T_MAIN(T(a_program_in_pieces), T(sources), T(nonsense))
