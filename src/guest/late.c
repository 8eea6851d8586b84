/* guest/late.c - arguments that come behind their request */
#include "guest/late.h"
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "loop/link.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

struct late {
	struct agent *agent;
	struct str request, bytes;
	uint64_t n_argv, n_env;
};

static void late_free(struct late *la)
{
	la->agent->n_late--;
	str_deinit(&la->request);
	str_deinit(&la->bytes);
	free(la);
}

static void refuse(struct stream *s, const struct err *why)
{
	late_free(stream_arg(s));
	stream_fail(s, why);
}

static int check_entries(struct strv v, size_t count, const char *name, struct err *e)
{
	size_t n = 0;

	if (v.n && v.p[v.n - 1])
		return err_set(e, ERR_INVALID, "%s: the last entry has no end", name);
	for (const char *p = v.p; p < v.p + v.n; p += strlen(p) + 1)
		if (strlen(p) > LIMIT_EXEC_STRING)
			return err_set(e, ERR_LIMIT, "%s: an entry of %zu bytes, the limit is %d", name, strlen(p),
				       LIMIT_EXEC_STRING);
		else if (++n > count)
			return err_set(e, ERR_LIMIT, "%s: more than %zu entries", name, count);
	return 0;
}

static void complete(struct late *la, struct stream *s)
{
	struct rec_exec_start rq;
	struct err e = ERR_INIT;
	struct strv argv = {la->bytes.p, la->n_argv}, env = {la->bytes.p + la->n_argv, la->n_env};
	int r = rec_decode(&rec_exec_start_type, la->request.p, la->request.len, &rq, &e);

	if (r == 0)
		r = check_entries(argv, LIMIT_ARGV_COUNT, "argv", &e);
	if (r == 0)
		r = check_entries(env, LIMIT_EXEC_ENV_COUNT, "env", &e);
	if (r < 0) {
		refuse(s, &e);
		return;
	}
	if (argv.n)
		rq.argv = argv;
	exec_begin(la->agent, s, &rq, env);
	late_free(la);
}

static void on_data(struct stream *s, uint64_t offset, struct span bytes)
{
	static const struct err early = {ERR_INVALID, "exec: input came before the program was started"};
	struct late *la = stream_arg(s);
	uint64_t want = la->n_argv + la->n_env;

	if (offset != la->bytes.len || bytes.n > want - offset) {
		refuse(s, &early);
		return;
	}
	str_add_mem(&la->bytes, bytes.p, bytes.n);
	stream_consumed(s, bytes.n);
	if (la->bytes.len == want)
		complete(la, s);
}

static void on_end(struct stream *s, uint64_t offset)
{
	static const struct err early = {ERR_INVALID, "exec: the arguments ended before they were complete"};

	(void)offset;
	refuse(s, &early);
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	late_free(stream_arg(s));
}

void late_start(struct agent *a, struct stream *s, const struct rec_exec_start *rq)
{
	static const struct stream_ops ops = {.data = on_data, .end = on_end, .closed = on_closed};
	struct err e = ERR_INIT;
	struct late *la;

	if (rq->late_argv + rq->late_env > LIMIT_ARGV_BYTES)
		err_set(&e, ERR_LIMIT, "argv and env: more than %d bytes together", LIMIT_ARGV_BYTES);
	else if (a->n_late >= LATE_MAX)
		err_set(&e, ERR_LIMIT, "%d programs with long arguments are being started; try again", LATE_MAX);
	if (e.code) {
		stream_fail(s, &e);
		return;
	}
	la = mem_new(sizeof(*la));
	*la = (struct late){
		.agent = a,
		.request = STR_INIT(RECORD_MAX),
		.bytes = STR_INIT(LIMIT_ARGV_BYTES),
		.n_argv = rq->late_argv,
		.n_env = rq->late_env,
	};
	a->n_late++;
	stream_accept(s, &ops, la);
	if (rec_encode(&rec_exec_start_type, rq, &la->request, &e) < 0)
		refuse(s, &e);
}
