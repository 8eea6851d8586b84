/* cli/command.c - which command of a verb is meant */
#include "cli/command.h"
#include <string.h>
#include "base/err.h"
#include "cli/cli.h"

bool command_exists(const struct command *table, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(table[i].name, word) == 0)
			return true;
	return false;
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
	return err_set(e, ERR_INVALID, "%s: there is no command \"%.64s\"; see hotcell help %s", a->verb->name,
		       a->operand[0], a->verb->name);
}
