/* cli/fork.c - fork, pause, resume, rollback, restore: whole machines */
#include "base/err.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/create.h"
#include "cli/waiting.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

static int put_id(const struct id *id, struct err *e)
{
	struct str out = STR_INIT(64);
	char text[ID_TEXT];
	int r;

	id_format(id, text);
	str_addf(&out, "%s\n", text);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

static int put_sandbox(const struct cli *c, const struct rec_sandbox_info *info, struct err *e)
{
	return c->json ? cli_put_json(&rec_sandbox_info_type, info, e) : put_id(&info->id, e);
}

static int ask_sandbox(struct cli *c, unsigned method, const void *rq, const char *doing, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	struct waiting waiting;
	int r = cli_connect(c, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0) {
		waiting_begin(&waiting, c, doing);
		r = conn_call(c->conn, method, rq, &bytes, &info, e);
		waiting_end(&waiting);
	}
	if (r == 0)
		r = put_sandbox(c, &info, e);
	str_deinit(&bytes);
	return r;
}

static int on_fork(void *arg, const void *item, struct err *e)
{
	return put_sandbox(arg, item, e);
}

int run_fork(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_sandbox_fork rq = *(struct rec_sandbox_fork *)args_rec(a, &rec_sandbox_fork_type);
	int r = cli_connect(c, e);

	rq.sandbox = span_of(a->operand[0]);
	if (r == 0)
		r = cli_signals(c, e);
	return r < 0 ? r : conn_items(c->conn, METHOD_SANDBOX_FORK, &rq, on_fork, c, e);
}

int run_pause(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_ref rq = {span_of(a->operand[0])};

	return ask_sandbox(c, METHOD_SANDBOX_PAUSE, &rq, "saving the sandbox", e);
}

int run_resume(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_ref rq = {span_of(a->operand[0])};

	return ask_sandbox(c, METHOD_SANDBOX_RESUME, &rq, "loading what was saved", e);
}

int run_rollback(struct cli *c, const struct args *a, struct err *e)
{
	const struct rec_sandbox_rollback rq = {span_of(a->operand[0]), span_of(a->operand[1])};

	return ask_sandbox(c, METHOD_SANDBOX_ROLLBACK, &rq, "putting the sandbox back", e);
}

int run_restore(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_sandbox_create rq = *(struct rec_sandbox_create *)args_rec(a, &rec_sandbox_create_type);
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_sandbox_info info;
	int r = cli_connect(c, e);

	rq.snapshot = span_of(a->operand[0]);
	if (r == 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = create_sandbox(c, &rq, &bytes, &info, NULL, e);
	if (r == 0)
		r = put_sandbox(c, &info, e);
	str_deinit(&bytes);
	return r;
}
