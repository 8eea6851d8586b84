/* fuzz_code.c - what a hostile harness says: frames, their order, their heads */
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/code_frame.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const struct code_frame *f, struct code_state *st)
{
	struct str text = STR_INIT(CODE_PART_MAX);
	struct rec_code_part part;
	enum code_outcome outcome;
	int32_t code;

	if (f->kind == CODE_PART || f->kind == CODE_ERROR) {
		code_part_encode(f, &text);
		if (rec_decode(&rec_code_part_type, text.p, text.len, &part, NULL) < 0 ||
		    part.bytes != st->body_left || part.bytes > LIMIT_CODE_PART)
			abort();
	} else if (f->kind == CODE_END) {
		code_end_read(f, &outcome, &code);
		if (outcome >= CODE_OUTCOME_N || st->body_left)
			abort();
		st->running = st->told = false;
	}
	str_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct code_reader *r = mem_new(sizeof(*r));
	struct code_state st = {0};
	struct code_frame f;
	int got = 0;

	while (got >= 0 && size) {
		size_t room, n;
		void *to = code_reader_space(r, &room);

		if (room == 0 || (char *)to + room > (char *)r->bytes + sizeof(r->bytes))
			abort();
		n = MIN(room, size);
		memcpy(to, data, n);
		r->used += n;
		data += n;
		size -= n;
		got = code_reader_frame(r, &f, NULL);
		if (got <= 0)
			continue;
		if (st.ready && !st.running)
			st.running = st.reseeding = true; /* as if there were always work */
		if (code_state_take(&st, &f, NULL) < 0)
			break;
		use(&f, &st);
		code_reader_drop(r);
	}
	free(r);
	return 0;
}
