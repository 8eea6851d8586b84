/* cli/code.h - source in a live interpreter, for `hotcell code` and `hotcell run --code` */
#pragma once
#include "base/span.h"

struct cli;
struct err;
struct rec_code_run;

/*
 * code_follow() - run @rec and print what it says while it says it
 * @save:	directory for results other than text; empty: none
 * @ret_status:	for exit(): 0, the source's own (1 after an exception), 124 after a timeout,
 *		128 + signal when something was ended by one
 *
 * With --json a line per piece. Blocks. Return: 0; an error of hotcell's own.
 */
int code_follow(struct cli *c, const struct rec_code_run *rec, struct span save, int *ret_status,
		struct err *e);
