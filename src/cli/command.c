/* cli/command.c - which command of a verb is meant */
#include "cli/command.h"
#include <string.h>
#include "base/err.h"
#include "cli/args.h"
#include "cli/cli.h"

enum { COMMANDS_MAX = 16 };

bool command_exists(const struct command *table, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(table[i].name, word) == 0)
			return true;
	return false;
}

static int no_command(const struct args *a, const struct command *table, size_t n, struct err *e)
{
	const char *names[COMMANDS_MAX + 1] = {NULL}, *near;

	for (size_t i = 0; i < n && i < COMMANDS_MAX; i++)
		names[i] = table[i].name;
	near = args_nearest(a->operand[0], names);
	return err_set(e, ERR_INVALID, "%s: there is no command \"%.64s\"; %s%s%s", a->verb->name, a->operand[0],
		       near ? "did you mean '" : "see hotcell help ", near ? near : a->verb->name, near ? "'?" : "");
}

int command_run(struct cli *c, const struct args *a, const struct command *table, size_t n, struct err *e)
{
	for (size_t i = 0; i < n; i++) {
		if (strcmp(table[i].name, a->operand[0]) != 0)
			continue;
		if (a->n_operands != 1 + table[i].operands)
			return err_set(e, ERR_INVALID, "%s %s takes %u operand%s, not %u", a->verb->name, table[i].name,
				       table[i].operands, table[i].operands == 1 ? "" : "s", a->n_operands - 1);
		return table[i].run(c, a, e);
	}
	return no_command(a, table, n, e);
}
