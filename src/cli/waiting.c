/* cli/waiting.c - one line on a terminal, written anew */
#include "cli/waiting.h"
#include <stdio.h>
#include <unistd.h>
#include "base/macro.h"
#include "cli/cli.h"
#include "client/conn.h"

static void tick(struct loop_timer *t)
{
	struct waiting *p = CONTAINER_OF(t, struct waiting, timer);
	struct loop *l = conn_loop(p->cli->conn);
	uint64_t now = loop_now(l);

	p->is_shown = true;
	(void)fprintf(stderr, "\r\033[Khotcell: %s ... %llu s", p->doing,
		      (unsigned long long)((now - p->begun_ns) / NS_PER_S));
	loop_timer_set(l, t, now + NS_PER_S, tick);
}

void waiting_begin(struct waiting *p, struct cli *cli, const char *doing)
{
	struct loop *l = conn_loop(cli->conn);

	*p = (struct waiting){.doing = doing};
	if (cli->quiet || cli->json || !isatty(STDERR_FILENO))
		return;
	p->cli = cli;
	p->begun_ns = loop_now(l);
	loop_timer_set(l, &p->timer, p->begun_ns + NS_PER_S, tick);
}

void waiting_end(struct waiting *p)
{
	if (!p->cli)
		return;
	loop_timer_cancel(conn_loop(p->cli->conn), &p->timer);
	if (p->is_shown)
		(void)fputs("\r\033[K", stderr);
	p->cli = NULL;
}
