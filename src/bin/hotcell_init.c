/* bin/hotcell_init.c - process 1 of a machine, first process of a process sandbox */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "guest/agent.h"
#include "guest/boot.h"
#include "guest/process_start.h"
#include "loop/loop.h"

enum { EXIT_USAGE = 2 };

static int serve(const struct agent_config *c, struct err *e)
{
	struct loop *l = NULL;
	struct agent *a = NULL;
	int r = loop_new(false, &l);

	if (r < 0)
		return err_sys(e, r, "start the event loop");
	r = agent_new(l, c, &a, e);
	if (r == 0) {
		r = loop_run(l);
		if (r < 0)
			r = err_sys(e, r, "event loop");
		(void)agent_free(a);
	}
	(void)loop_free(l);
	return r;
}

/* A machine that can't go on ends, and the host reads why from its console. */
static _Noreturn void machine(void)
{
	struct guest_log log = {.fd = -1};
	struct agent_config c;
	struct err e = ERR_INIT;

	if (boot_machine(&log, &c, &e) == 0)
		(void)serve(&c, &e);
	if (e.code)
		log_line(&log, "%s", e.text);
	boot_end();
}

static int process(void)
{
	struct agent_config c;
	struct err e = ERR_INIT;

	if (process_start(&c, &e) == 0)
		(void)serve(&c, &e);
	if (!e.code)
		return 0;
	(void)fprintf(stderr, "hotcell-init: %s\n", e.text);
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 2 && strcmp(argv[1], "--process") == 0)
		return process();
	if (argc == 2 && strcmp(argv[1], "--version") == 0) {
		(void)puts("hotcell-init " HOTCELL_VERSION);
		return 0;
	}
	if (getpid() == 1)
		machine();
	(void)fprintf(stderr, "hotcell-init: I am process 1 of a sandbox; people type \"hotcell\"\n");
	return EXIT_USAGE;
}
