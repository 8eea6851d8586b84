/* cli/program.c - from options and words to an exec.start record */
#include "cli/program.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "cli/args.h"
#include "cli/terminal.h"

static int add_words(struct program *p, const struct args *a, unsigned first, struct err *e)
{
	unsigned n = a->n_operands - first;

	if (n > LIMIT_ARGV_COUNT)
		return err_set(e, ERR_LIMIT, "the program has %u arguments, the limit is %d", n,
			       LIMIT_ARGV_COUNT);
	for (unsigned i = first; i < a->n_operands; i++)
		strv_add(&p->argv, a->operand[i]);
	if (p->argv.failed)
		return err_set(e, ERR_LIMIT,
			       "the program's arguments are longer than %d bytes; "
			       "put them in a file ('hotcell cp') or on standard input",
			       LIMIT_ARGV_BYTES);
	p->rec.argv = strv_of(&p->argv);
	return 0;
}

static bool has_variable(struct strv env, const char *prefix)
{
	for (const char *s = strv_first(env); s; s = strv_next(env, s))
		if (str_starts(s, prefix))
			return true;
	return false;
}

/* The program draws for our terminal, so it must know which kind that is. */
static void add_terminal(struct program *p)
{
	const char *term = getenv("TERM");
	unsigned rows, cols;

	terminal_size(STDIN_FILENO, &rows, &cols);
	p->rec.pty = true;
	p->rec.rows = rows;
	p->rec.cols = cols;
	if (!term || strlen(term) > LIMIT_TEXT_SHORT || has_variable(p->rec.env, "TERM="))
		return;
	str_add_mem(&p->env, p->rec.env.p, p->rec.env.n);
	str_add(&p->env, "TERM=");
	strv_add(&p->env, term);
	p->rec.env = strv_of(&p->env);
}

int program_init(struct program *p, const char *sandbox, const struct follow_flags *flags,
		 const struct args *a, unsigned first, struct err *e)
{
	bool words = a->n_operands > first;
	int r = 0;

	*p = (struct program){.rec = *(struct rec_exec_start *)args_rec(a, &rec_exec_start_type),
			      .argv = STR_INIT(LIMIT_ARGV_BYTES),
			      .env = STR_INIT(LIMIT_ARGV_BYTES)};
	p->rec.sandbox = span_of(sandbox);
	p->rec.command = flags->command;
	/* Reading from a terminal in the background would stop us. */
	p->rec.stdin = !flags->no_stdin && !flags->detach &&
		       !terminal_is_background(STDIN_FILENO);
	if (flags->detach)
		p->rec.on_detach = span_of("keep");
	if (words && flags->command.n)
		return err_set(e, ERR_INVALID, "give a program or --command, not both");
	if (!words && !flags->command.n)
		return err_set(e, ERR_INVALID, "no program given; usage: hotcell %s [OPTIONS] %s",
			       a->verb->name, a->verb->operands);
	if (words)
		r = add_words(p, a, first, e);
	if (r == 0 && flags->tty)
		add_terminal(p);
	return r;
}

void program_deinit(struct program *p)
{
	str_deinit(&p->argv);
	str_deinit(&p->env);
}
