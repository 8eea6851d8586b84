/* engine/ending.c - chunks are counted through; the last one is kept */
#include "engine/ending.h"
#include <stddef.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/span.h"
#include "wire/bytes.h"
#include "wire/gen/records.h"

enum { EXEC_EXIT = 4, CODE_ERROR = 5, CODE_END = 6, RECORD_BYTES = 4096 };

void ending_init(struct ending *x, bool is_code)
{
	*x = (struct ending){.is_code = is_code, .end = STR_INIT(RECORD_BYTES), .error = STR_INIT(RECORD_BYTES)};
}

void ending_deinit(struct ending *x)
{
	str_deinit(&x->end);
	str_deinit(&x->error);
}

static void begin(struct ending *x)
{
	unsigned kind = x->head[0];

	x->n_head = 0;
	x->left = get_u32(x->head) >> 8;
	x->into = NULL;
	if (kind == (x->is_code ? CODE_END : EXEC_EXIT))
		x->into = &x->end;
	else if (x->is_code && kind == CODE_ERROR)
		x->into = &x->error;
	if (x->into)
		str_clear(x->into);
}

void ending_read(struct ending *x, struct span bytes)
{
	const char *p = bytes.p;

	for (size_t n = bytes.n; n;) {
		size_t piece = MIN(n, (size_t)x->left);

		if (!piece) {
			x->head[x->n_head++] = (unsigned char)*p++;
			n--;
			if (x->n_head == sizeof(x->head))
				begin(x);
			continue;
		}
		if (x->into)
			str_add_mem(x->into, p, piece);
		x->left -= (uint32_t)piece;
		p += piece;
		n -= piece;
	}
}

static int check_program(const struct ending *x, struct err *e)
{
	struct rec_exec_exit end;

	if (x->end.failed || rec_decode(&rec_exec_exit_type, str_text(&x->end), x->end.len, &end, NULL) < 0 ||
	    !end.reason.n)
		return err_set(e, ERR_INVALID, "the guest did not say how it ended");
	if (end.signal)
		return err_set(e, ERR_INVALID, "it was ended by signal %llu (%.*s)", (unsigned long long)end.signal,
			       (int)end.reason.n, end.reason.p);
	if (end.code)
		return err_set(e, ERR_INVALID, "it ended with status %lld", (long long)end.code);
	return 0;
}

static int check_code(const struct ending *x, struct err *e)
{
	struct rec_code_end end;
	struct rec_code_part error;

	if (x->end.failed || rec_decode(&rec_code_end_type, str_text(&x->end), x->end.len, &end, NULL) < 0 ||
	    !end.status.n)
		return err_set(e, ERR_INVALID, "the guest did not say how it ended");
	if (end.message.n)
		return err_set(e, ERR_INVALID, "%.*s", (int)end.message.n, end.message.p);
	if (span_is(end.status, "ok") && !end.exit_code)
		return 0;
	if (!x->error.len || x->error.failed ||
	    rec_decode(&rec_code_part_type, str_text(&x->error), x->error.len, &error, NULL) < 0)
		return err_set(e, ERR_INVALID, "it ended with %.*s, status %lld", (int)end.status.n, end.status.p,
			       (long long)end.exit_code);
	return err_set(e, ERR_INVALID, "%.*s: %.*s", (int)error.name.n, error.name.p, (int)error.message.n,
		       error.message.p);
}

int ending_check(const struct ending *x, struct err *e)
{
	return x->is_code ? check_code(x, e) : check_program(x, e);
}
