/* image/progress.c - the status line */
#include "image/progress.h"
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/clock.h"

void progress_begin(struct progress *p)
{
	*p = (struct progress){ .start_ns = sys_now_ns(),
				.is_terminal = isatty(STDERR_FILENO) == 1 };
}

void progress_stage(struct progress *p, const char *stage)
{
	size_t n = 0;

	if (!p)
		return;
	for (; *stage && n < PROGRESS_TEXT - 1; stage++)
		if (*stage >= ' ' && *stage <= '~')
			p->stage[n++] = *stage;
	p->stage[n] = '\0';
	progress_tick(p);
}

void progress_tick(struct progress *p)
{
	uint64_t ms;

	if (!p || !p->is_terminal)
		return;
	ms = (sys_now_ns() - p->start_ns) / NS_PER_MS;
	if (ms < PROGRESS_AFTER_MS)
		return;
	(void)fprintf(stderr, "\r\033[K%3" PRIu64 " s  %s", ms / 1000, p->stage);
	(void)fflush(stderr);
	p->is_shown = true;
}

void progress_end(struct progress *p)
{
	if (!p || !p->is_shown)
		return;
	(void)fputs("\r\033[K", stderr);
	(void)fflush(stderr);
	p->is_shown = false;
}
