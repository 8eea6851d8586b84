/* cli/pool.c - hotcell pool: sandboxes made before anybody asks */
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/command.h"
#include "cli/table.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

static int ask(struct cli *c, const struct rec_pool_set *rq, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_pool_info info;
	int r = cli_connect(c, e);

	if (r == 0)
		r = conn_call(c->conn, METHOD_POOL_SET, rq, &bytes, &info, e);
	if (r == 0 && c->json)
		r = cli_put_json(&rec_pool_info_type, &info, e);
	else if (r == 0)
		r = cli_describe(&rec_pool_info_type, &info, e);
	str_deinit(&bytes);
	return r;
}

static int pool_set(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_pool_set rq = *(struct rec_pool_set *)args_rec(a, &rec_pool_set_type);

	rq.template = span_of(a->operand[1]);
	if (!rq.size && !rq.prestarted)
		return err_set(e, ERR_INVALID, "pool set: --size or --prestarted must say how many; pool rm ends a "
			       "pool");
	return ask(c, &rq, e);
}

static int pool_rm(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_pool_set rq = *(struct rec_pool_set *)args_rec(a, &rec_pool_set_type);

	if (rq.size || rq.prestarted)
		return err_set(e, ERR_INVALID, "pool rm takes neither --size nor --prestarted");
	rq.template = span_of(a->operand[1]);
	return ask(c, &rq, e);
}

static void add_size(struct table *t, uint64_t mb)
{
	if (mb)
		table_addf(t, "%llu MiB", (unsigned long long)mb);
	else
		table_add(t, span_of("-"));
}

static void pool_row(struct table *t, const void *item)
{
	const struct rec_pool_info *p = item;

	table_add(t, p->template);
	table_add(t, p->isolation);
	add_size(t, p->memory_mb);
	table_addf(t, "%llu/%llu", (unsigned long long)p->ready, (unsigned long long)p->size);
	table_addf(t, "%llu/%llu", (unsigned long long)p->shells, (unsigned long long)p->prestarted);
	table_addf(t, "%llu", (unsigned long long)(p->hits + p->shell_hits));
	table_addf(t, "%llu", (unsigned long long)p->misses);
	table_addf(t, "%llu", (unsigned long long)p->unhealthy);
	table_addf(t, "%llu ms", (unsigned long long)p->refill_us / 1000);
	table_add(t, p->reason);
}

static int pool_list(struct cli *c, const struct args *a, struct err *e)
{
	static const char *const heads[] = {"TEMPLATE", "ISOLATION", ">MEMORY",	 ">READY",  ">SHELLS",
					    ">HITS",	">MISSES",   ">UNHEALTHY", ">REFILL", "LAST FAILURE"};
	const struct rec_empty nothing = {0};

	(void)a;
	return cli_list(c, METHOD_POOL_LIST, &nothing, pool_row, heads, ARRAY_LEN(heads), e);
}

int run_pool(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {{"set", 1, pool_set}, {"list", 0, pool_list}, {"rm", 1, pool_rm}};

	return command_run(c, a, commands, ARRAY_LEN(commands), e);
}
