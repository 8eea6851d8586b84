/* wire/t_record.c - every record type of the schema, with random and with hostile contents */
#include "wire/record.h"
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/testing.h"
#include "wire/bytes.h"
#include "wire/gen/records.h"

enum { HEAD = 6, ROUNDS = 40, BYTES = 1 << 18 };

static uint64_t seed = 5;

static uint64_t below(uint64_t n)
{
	return n ? t_random(&seed) % n : 0;
}

/* A valid value for @f. Texts and lists point into @mem, which moves on. */
static void random_value(const struct rec_field *f, void *rec, char **mem, size_t most)
{
	void *p = (char *)rec + f->offset;
	size_t n;

	switch (f->type) {
	case REC_U64:
		*(uint64_t *)p = f->max ? f->min + below(f->max - f->min + 1) : MAX(f->min, t_random(&seed));
		break;
	case REC_I64: *(int64_t *)p = (int64_t)t_random(&seed); break;
	case REC_BOOL: *(bool *)p = below(2); break;
	case REC_ID:
		for (int i = 0; i < ID_BYTES; i++)
			((struct id *)p)->b[i] = (unsigned char)t_random(&seed);
		break;
	case REC_TEXT:
	case REC_BYTES:
		if (f->choices) {
			size_t count = 0;

			while (f->choices[count])
				count++;
			*(struct span *)p = span_of(f->choices[below(count)]);
			break;
		}
		n = below(MIN(f->max, most) + 1);
		n = n || !f->required ? n : 1;
		for (size_t i = 0; i < n; i++)
			(*mem)[i] = (char)(f->type == REC_TEXT ? 1 + below(255) : below(256));
		*(struct span *)p = (struct span){ *mem, n };
		*mem += n;
		break;
	case REC_LIST:
	case REC_MAP:
		n = 0;
		for (size_t i = below(f->count + 1); i; i--) {
			size_t len = 2 + below(6);

			if (n + len > MIN(f->max, most))
				break;
			memset(*mem + n, 'k', len);
			if (f->type == REC_MAP)
				(*mem)[n + below(len - 1)] = '=';
			(*mem)[n + len - 1] = '\0';
			n += len;
		}
		*(struct strv *)p = (struct strv){ *mem, n };
		*mem += n;
		break;
	}
}

static void random_record(const struct rec_type *t, void *rec, char *mem)
{
	memset(rec, 0, t->size);
	for (size_t i = 0; i < t->n_fields; i++)
		if (t->fields[i].required || below(4))
			random_value(&t->fields[i], rec, &mem, 4000);
}

static bool same_value(const struct rec_field *f, const void *a, const void *b)
{
	const void *p = (const char *)a + f->offset, *q = (const char *)b + f->offset;
	const struct span *s = p, *u = q;

	switch (f->type) {
	case REC_U64:
	case REC_I64: return memcmp(p, q, 8) == 0;
	case REC_BOOL: return *(const bool *)p == *(const bool *)q;
	case REC_ID: return id_eq(p, q);
	default: return s->n == u->n && (s->n == 0 || memcmp(s->p, u->p, s->n) == 0);
	}
}

static void must(int r, const struct err *e)
{
	if (r < 0)
		fail_msg("%s", e->text);
}

struct scratch {
	void *in, *out;
	char *mem;
	struct str bytes;
	struct err e;
};

static struct scratch scratch(const struct rec_type *t)
{
	return (struct scratch){ .in = mem_new(t->size), .out = mem_new(t->size), .mem = mem_new(BYTES),
				 .bytes = STR_INIT(4 * RECORD_MAX) };
}

static void scratch_free(struct scratch *x)
{
	free(x->in);
	free(x->out);
	free(x->mem);
	str_deinit(&x->bytes);
}

/* ---- all types ---- */

static void every_type_comes_back_as_it_went(void **state)
{
	unsigned types = 0;

	T_UNUSED(state);
	for (const struct rec_type *const *t = rec_types; *t; t++, types++) {
		struct scratch x = scratch(*t);

		for (int i = 0; i < ROUNDS; i++) {
			random_record(*t, x.in, x.mem);
			str_clear(&x.bytes);
			must(rec_encode(*t, x.in, &x.bytes, &x.e), &x.e);
			assert_true(x.bytes.len <= RECORD_MAX);
			memset(x.out, 0xaa, (*t)->size);
			must(rec_decode(*t, x.bytes.p, x.bytes.len, x.out, &x.e), &x.e);
			for (size_t j = 0; j < (*t)->n_fields; j++)
				if (!same_value(&(*t)->fields[j], x.in, x.out))
					fail_msg("%s.%s changed", (*t)->name, (*t)->fields[j].name);
		}
		scratch_free(&x);
	}
	assert_true(types > 20);
}

/* At every cut: refused, or whole fields were lost and the rest still satisfies the schema. */
static void truncated_records_are_refused(void **state)
{
	T_UNUSED(state);
	for (const struct rec_type *const *t = rec_types; *t; t++) {
		struct scratch x = scratch(*t);

		random_record(*t, x.in, x.mem);
		must(rec_encode(*t, x.in, &x.bytes, &x.e), &x.e);
		for (size_t cut = 0; cut < x.bytes.len; cut++) {
			char *exact = mem_dup(x.bytes.p, cut); /* so that reading beyond is seen */
			size_t at = 0;

			while (at + HEAD <= cut && at + HEAD + get_u32(exact + at + 2) <= cut)
				at += HEAD + get_u32(exact + at + 2);
			if (rec_decode(*t, exact, cut, x.out, &x.e) == 0) {
				assert_int_equal(at, cut);
				assert_int_equal(rec_check(*t, x.out, NULL), 0);
			}
			free(exact);
		}
		scratch_free(&x);
	}
}

static void add_field(struct str *s, uint16_t tag, const void *p, size_t n)
{
	unsigned char head[HEAD];

	put_u16(head, tag);
	put_u32(head + 2, (uint32_t)n);
	str_add_mem(s, head, HEAD);
	str_add_mem(s, p, n);
}

static void add_u64(struct str *s, uint16_t tag, uint64_t v)
{
	unsigned char bytes[8];

	put_u64(bytes, v);
	add_field(s, tag, bytes, 8);
}

static void unknown_fields_are_skipped(void **state)
{
	T_UNUSED(state);
	for (const struct rec_type *const *t = rec_types; *t; t++) {
		struct scratch x = scratch(*t);

		random_record(*t, x.in, x.mem);
		add_field(&x.bytes, 60000, "new", 3);
		add_field(&x.bytes, 60000, "", 0); /* even twice: nobody knows what it means */
		must(rec_encode(*t, x.in, &x.bytes, &x.e), &x.e);
		add_field(&x.bytes, 60001, "newer", 5);
		must(rec_decode(*t, x.bytes.p, x.bytes.len, x.out, &x.e), &x.e);
		for (size_t j = 0; j < (*t)->n_fields; j++)
			assert_true(same_value(&(*t)->fields[j], x.in, x.out));
		scratch_free(&x);
	}
}

static void known_fields_come_once(void **state)
{
	T_UNUSED(state);
	for (const struct rec_type *const *t = rec_types; *t; t++)
		for (size_t i = 0; i < (*t)->n_fields; i++) {
			const struct rec_field *f = &(*t)->fields[i];
			static const char zeros[16];
			struct scratch x = scratch(*t);
			size_t n = f->type == REC_U64 || f->type == REC_I64 ? 8
				   : f->type == REC_BOOL		    ? 1
				   : f->type == REC_ID			    ? 16
									    : 0;

			add_field(&x.bytes, f->tag, zeros, n);
			add_field(&x.bytes, f->tag, zeros, n);
			assert_int_equal(rec_decode(*t, x.bytes.p, x.bytes.len, x.out, &x.e), -ERR_INVALID);
			assert_non_null(strstr(x.e.text, (*t)->name));
			assert_non_null(strstr(x.e.text, f->name));
			scratch_free(&x);
		}
}

/* A record of valid fields but for the one that is set by hand. */
static int with(struct scratch *x, const struct rec_type *t, const struct rec_field *skip, const void *p, size_t n)
{
	int r;

	str_clear(&x->bytes);
	if (p)
		add_field(&x->bytes, skip->tag, p, n);
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct rec_field *f = &t->fields[i];

		if (f == skip || !f->required)
			continue;
		if (f->type == REC_TEXT || f->type == REC_BYTES)
			add_field(&x->bytes, f->tag, "v", 1);
		else if (f->type == REC_U64)
			add_u64(&x->bytes, f->tag, MAX(f->min, 1));
		else
			fail_msg("%s.%s: teach this test to fill it", t->name, f->name);
	}
	x->e.code = 0;
	r = rec_decode(t, x->bytes.p, x->bytes.len, x->out, &x->e);
	if (r < 0 && (!strstr(x->e.text, t->name) || !strstr(x->e.text, skip->name)))
		fail_msg("the message names neither record nor field: %s", x->e.text);
	return r;
}

static int with_number(struct scratch *x, const struct rec_type *t, const struct rec_field *f, uint64_t v)
{
	unsigned char bytes[8];

	put_u64(bytes, v);
	return with(x, t, f, bytes, 8);
}

static void check_number_bounds(struct scratch *x, const struct rec_type *t, const struct rec_field *f)
{
	static const char zeros[16];

	assert_int_equal(with(x, t, f, zeros, 7), -ERR_INVALID);
	assert_int_equal(with(x, t, f, zeros, 9), -ERR_INVALID);
	assert_int_equal(with(x, t, f, zeros, 0), -ERR_INVALID);
	if (f->type == REC_I64)
		return;
	if (f->max) {
		assert_int_equal(with_number(x, t, f, f->max), 0);
		assert_int_equal(with_number(x, t, f, f->max + 1), -ERR_LIMIT);
		assert_int_equal(with_number(x, t, f, UINT64_MAX), -ERR_LIMIT);
	}
	if (f->min > 1) {
		assert_int_equal(with_number(x, t, f, f->min), 0);
		assert_int_equal(with_number(x, t, f, f->min - 1), -ERR_LIMIT);
	}
}

static void check_text_bounds(struct scratch *x, const struct rec_type *t, const struct rec_field *f)
{
	if (f->choices) {
		assert_int_equal(with(x, t, f, "nonsense", 8), -ERR_INVALID);
		assert_int_equal(with(x, t, f, f->choices[1], strlen(f->choices[1])), 0);
		return;
	}
	memset(x->mem, 'a', f->max + 1);
	assert_int_equal(with(x, t, f, x->mem, f->max), f->max + HEAD > RECORD_MAX ? -ERR_LIMIT : 0);
	assert_int_equal(with(x, t, f, x->mem, f->max + 1), -ERR_LIMIT);
	assert_int_equal(with(x, t, f, "a\0b", 3), f->type == REC_TEXT ? -ERR_INVALID : 0);
	if (f->required) {
		assert_int_equal(with(x, t, f, "", 0), -ERR_INVALID);
		assert_int_equal(with(x, t, f, NULL, 0), -ERR_INVALID);
	}
}

static void check_list_bounds(struct scratch *x, const struct rec_type *t, const struct rec_field *f)
{
	size_t n = 0;

	for (unsigned i = 0; i < f->count; i++) {
		memcpy(x->mem + n, "=", 2);
		n += 2;
	}
	if (n <= f->max)
		assert_int_equal(with(x, t, f, x->mem, n), 0);
	memcpy(x->mem + n, "=", 2);
	if (n + 2 <= RECORD_MAX - HEAD) /* else no record could hold them */
		assert_int_equal(with(x, t, f, x->mem, n + 2), -ERR_LIMIT);
	memset(x->mem, '=', f->max + 1);
	x->mem[f->max - 1] = '\0';
	assert_int_equal(with(x, t, f, x->mem, f->max), 0);
	x->mem[f->max - 1] = '=';
	x->mem[f->max] = '\0';
	assert_int_equal(with(x, t, f, x->mem, f->max + 1), -ERR_LIMIT);
	assert_int_equal(with(x, t, f, "a=b", 3), -ERR_INVALID); /* no NUL at the end */
	assert_int_equal(with(x, t, f, "a=b\0cd", 7), f->type == REC_MAP ? -ERR_INVALID : 0);
}

static void every_bound_of_the_schema_holds(void **state)
{
	static const char two = 2;

	T_UNUSED(state);
	for (const struct rec_type *const *t = rec_types; *t; t++)
		for (size_t i = 0; i < (*t)->n_fields; i++) {
			const struct rec_field *f = &(*t)->fields[i];
			struct scratch x = scratch(*t);

			switch (f->type) {
			case REC_U64:
			case REC_I64: check_number_bounds(&x, *t, f); break;
			case REC_TEXT:
			case REC_BYTES: check_text_bounds(&x, *t, f); break;
			case REC_LIST:
			case REC_MAP: check_list_bounds(&x, *t, f); break;
			case REC_BOOL:
				assert_int_equal(with(&x, *t, f, &two, 1), -ERR_INVALID);
				assert_int_equal(with(&x, *t, f, "\0\0", 2), -ERR_INVALID);
				break;
			case REC_ID:
				assert_int_equal(with(&x, *t, f, "123456789012345", 15), -ERR_INVALID);
				assert_int_equal(with(&x, *t, f, "12345678901234567", 17), -ERR_INVALID);
				break;
			}
			scratch_free(&x);
		}
}

/* What we make ourselves is held to the same bounds. */
static void encoding_refuses_what_decoding_would(void **state)
{
	struct rec_exec_signal big = { .signal = 65 };
	struct rec_file_ref no_path = { .depth = 1 };
	struct rec_failure nul = { .message = { "a\0b", 3 } };
	struct str s = STR_INIT(RECORD_MAX);
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(rec_encode(&rec_exec_signal_type, &big, &s, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "exec_signal.signal"));
	assert_non_null(strstr(e.text, "64"));
	assert_int_equal(rec_encode(&rec_file_ref_type, &no_path, &s, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "file_ref.path"));
	assert_int_equal(rec_encode(&rec_failure_type, &nul, &s, NULL), -ERR_INVALID);
	assert_int_equal(s.len, 0);
	str_deinit(&s);
}

static void absent_means_zero(void **state)
{
	struct rec_sandbox_info in = { 0 }, out;
	struct str s = STR_INIT(RECORD_MAX);

	T_UNUSED(state);
	assert_int_equal(rec_encode(&rec_sandbox_info_type, &in, &s, NULL), 0);
	assert_int_equal(s.len, 0);
	memset(&out, 0xff, sizeof(out));
	assert_int_equal(rec_decode(&rec_sandbox_info_type, NULL, 0, &out, NULL), 0);
	assert_memory_equal(&in, &out, sizeof(in));
	str_deinit(&s);
}

static void oversized_records_are_refused(void **state)
{
	char *big = mem_new(RECORD_MAX + 1);
	struct rec_failure out;

	T_UNUSED(state);
	put_u16(big, 60000);
	put_u32(big + 2, RECORD_MAX - HEAD);
	assert_int_equal(rec_decode(&rec_failure_type, big, RECORD_MAX, &out, NULL), 0);
	put_u32(big + 2, RECORD_MAX + 1 - HEAD);
	assert_int_equal(rec_decode(&rec_failure_type, big, RECORD_MAX + 1, &out, NULL), -ERR_LIMIT);
	put_u32(big + 2, 0xffffffff);
	assert_int_equal(rec_decode(&rec_failure_type, big, 100, &out, NULL), -ERR_INVALID);
	free(big);
}

/* ---- items ---- */

static void items_come_off_the_front(void **state)
{
	struct rec_process_info in = { .pid = 1, .command = span_of("init") }, out;
	struct str s = STR_INIT(RECORD_MAX);
	size_t first;

	T_UNUSED(state);
	assert_int_equal(rec_item_encode(&rec_process_info_type, &in, &s, NULL), 0);
	first = s.len;
	in.pid = 2;
	assert_int_equal(rec_item_encode(&rec_process_info_type, &in, &s, NULL), 0);
	for (size_t n = 0; n < first; n++)
		assert_int_equal(rec_item_next(&rec_process_info_type, s.p, n, &out, NULL), 0);
	for (size_t n = first; n < s.len; n++)
		assert_int_equal(rec_item_next(&rec_process_info_type, s.p, n, &out, NULL), first);
	assert_int_equal(rec_item_next(&rec_process_info_type, s.p + first, s.len - first, &out, NULL), s.len - first);
	assert_int_equal(out.pid, 2);
	put_u32(s.p, RECORD_MAX + 1); /* refused before anybody waits for it */
	assert_int_equal(rec_item_next(&rec_process_info_type, s.p, 4, &out, NULL), -ERR_LIMIT);
	put_u32(s.p, 3);
	assert_int_equal(rec_item_next(&rec_process_info_type, s.p, s.len, &out, NULL), -ERR_INVALID);
	str_deinit(&s);
}

/* ---- JSON ---- */

static void records_become_json(void **state)
{
	struct rec_sandbox_info in = {
		.id = { { 0xab, 1 } },
		.name = { "a\"b\n", 4 },
		.vcpus = UINT64_MAX,
		.ephemeral = true,
		.stages = { "boot=12\0bad=0x\0zero=0\0lead=007", 31 },
		.unenforced = { "cpu\0pids", 9 },
	};
	struct rec_exec_exit ended = { .code = -1 };
	struct str s = STR_INIT(1 << 20);

	T_UNUSED(state);
	rec_json(&rec_sandbox_info_type, &in, &s);
	assert_non_null(strstr(s.p, "{\"id\":\"ab010000000000000000000000000000\",\"name\":\"a\\\"b\\u000a\","));
	assert_non_null(strstr(s.p, "\"vcpus\":18446744073709551615,"));
	assert_non_null(strstr(s.p, "\"ephemeral\":true"));
	assert_non_null(strstr(s.p, "\"stages\":{\"boot\":12,\"bad\":\"0x\",\"zero\":0,\"lead\":\"007\"}"));
	assert_non_null(strstr(s.p, "\"unenforced\":[\"cpu\",\"pids\"]"));
	assert_non_null(strstr(s.p, "\"metadata\":{}"));
	assert_non_null(strstr(s.p, "\"owner\":\"\""));
	assert_int_equal(s.p[s.len - 1], '}');
	str_clear(&s);
	rec_json(&rec_exec_exit_type, &ended, &s);
	assert_non_null(strstr(s.p, "\"code\":-1,"));
	str_deinit(&s);
}

T_MAIN(T(every_type_comes_back_as_it_went), T(truncated_records_are_refused), T(unknown_fields_are_skipped),
       T(known_fields_come_once), T(every_bound_of_the_schema_holds), T(encoding_refuses_what_decoding_would),
       T(absent_means_zero), T(oversized_records_are_refused), T(items_come_off_the_front), T(records_become_json))
