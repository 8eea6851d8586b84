/*
 * cli/waiting.h - what a person sees while something takes its time
 *
 * Nothing for the first second; then one line on standard error that is written anew each second and wiped at the
 * end. Only on a terminal, and not with --quiet or --json. Thread: the caller's, from callbacks of @cli's loop.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "loop/loop.h"

struct cli;

struct waiting {
	struct cli *cli; /* NULL: nothing is shown */
	const char *doing;
	uint64_t begun_ns;
	bool is_shown;
	struct loop_timer timer;
};

/* @doing: what happens, lent: "the machine boots". @cli must be connected. */
void waiting_begin(struct waiting *p, struct cli *cli, const char *doing);
void waiting_end(struct waiting *p);
