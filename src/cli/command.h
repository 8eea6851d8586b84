/* cli/command.h - verbs with commands of their own: hotcell VERB COMMAND OPERAND... */
#pragma once
#include <stdbool.h>
#include <stddef.h>

struct args;
struct cli;
struct err;

struct command {
	const char *name;
	unsigned operands; /* behind it */
	int (*run)(struct cli *c, const struct args *a, struct err *e);
};

bool command_exists(const struct command *table, size_t n, const char *word);
/* Run the one that the first operand names. -ERR_INVALID: none, or with other operands. */
int command_run(struct cli *c, const struct args *a, const struct command *table, size_t n, struct err *e);
