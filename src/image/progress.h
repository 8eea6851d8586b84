/*
 * image/progress.h - one line on a terminal for what takes longer than two
 * seconds: what is being done and since when. Silent where stderr is no terminal.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

enum { PROGRESS_TEXT = 80, PROGRESS_AFTER_MS = 2000, PROGRESS_EVERY_MS = 500 };

struct progress {
	uint64_t start_ns;
	bool is_terminal, is_shown;
	char stage[PROGRESS_TEXT];
};

void progress_begin(struct progress *p);
/* @stage is copied; bytes that could steer a terminal are left out. NULL @p: nothing happens,
 * everywhere. */
void progress_stage(struct progress *p, const char *stage);
/* Draw the line anew; call every PROGRESS_EVERY_MS or so. */
void progress_tick(struct progress *p);
/* Clear the line. Harmless twice. */
void progress_end(struct progress *p);
