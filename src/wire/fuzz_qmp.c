/*
 * wire/fuzz_qmp.c - a hostile monitor. The first byte says whether somebody read before
 * and how the rest is cut: the cuts must make no difference (QMP-1).
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "wire/qmp.h"

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n);

struct sum {
	unsigned messages;
	uint64_t mix;
	int r;
};

static void mix_in(struct sum *s, const struct qmp_message *m)
{
	assert(m->kind <= QMP_EVENT);
	assert(strlen(m->name) <= QMP_TEXT_MAX && strlen(m->text) <= QMP_TEXT_MAX);
	s->messages++;
	s->mix = s->mix * 31 + m->kind + m->id * 7;
	for (const char *c = m->name; *c; c++)
		s->mix = s->mix * 31 + (unsigned char)*c;
	for (const char *c = m->text; *c; c++)
		s->mix = s->mix * 31 + (unsigned char)*c;
}

static struct sum run(bool torn, const unsigned char *p, size_t n, size_t piece)
{
	struct qmp_parser qp;
	struct qmp_message m;
	struct sum s = {0};

	qmp_parser_init(&qp, torn);
	for (size_t at = 0; at < n && s.r >= 0; at += piece) {
		size_t len = MIN(piece, n - at);
		char *exact = mem_dup(p + at, len);
		struct span in = {exact, len};

		while ((s.r = qmp_parse(&qp, &in, &m, NULL)) > 0)
			mix_in(&s, &m);
		assert(s.r < 0 || in.n == 0);
		assert(qp.len <= QMP_LINE_MAX);
		free(exact);
	}
	qmp_parser_deinit(&qp);
	return s;
}

int LLVMFuzzerTestOneInput(const unsigned char *p, size_t n)
{
	struct sum whole, cut;

	if (n < 2)
		return 0;
	whole = run(p[0] & 1, p + 1, n - 1, n);
	cut = run(p[0] & 1, p + 1, n - 1, 1u + p[0] / 2u);
	assert(whole.messages == cut.messages && whole.mix == cut.mix && whole.r == cut.r);
	return 0;
}
