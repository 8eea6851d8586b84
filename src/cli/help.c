/* cli/help.c - hotcell help, version, doctor */
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "cli/cli.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { HELP_BYTES = 65536, NAME_COLUMN = 10 };

static void overview(struct str *out)
{
	str_add(out, "hotcell runs code that nobody has read in a machine of its own.\n\n"
		     "usage: hotcell COMMAND [OPTIONS] ...\n\n");
	for (const struct verb *v = cli_verbs; v->name; v++)
		str_addf(out, "  %-*s %s\n", NAME_COLUMN, v->name, v->summary);
	str_add(out, "\n'hotcell help COMMAND' shows the options of one. A sandbox is named by its id or "
		     "name.\n");
}

static void page(const struct verb *v, struct str *out)
{
	str_addf(out, "%s\n\nusage: hotcell %s%s%s%s\n", v->summary, v->name,
		 v->foreign ? "" : " [OPTIONS]", *v->operands ? " " : "", v->operands);
	if (v->details)
		str_addf(out, "%s%s", v->details[0] == '\n' ? "" : "\n", v->details);
	if (!v->foreign) {
		str_add(out, "\nOptions:\n");
		args_help(v, out);
	}
}

int run_help(struct cli *c, const struct args *a, struct err *e)
{
	struct str out = STR_INIT(HELP_BYTES);
	const struct verb *v = a->n_operands ? cli_verb(a->operand[0]) : NULL;
	int r;

	if (a->n_operands && !v)
		return cli_no_verb(a->operand[0], e);
	if (v && v->foreign && c->hooks->image) {
		char *words[] = {(char *)v->name, (char *)"--help", NULL};

		return c->hooks->image(2, words, e);
	}
	if (v)
		page(v, &out);
	else
		overview(&out);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

int run_version(struct cli *c, const struct args *a, struct err *e)
{
	struct conn_options quiet = {.no_start = true};
	struct rec_empty nothing = {0};
	struct rec_daemon_info d = {0};
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(HELP_BYTES);
	int r;

	(void)a;
	/* Versions matter most when something is wrong: never start a daemon for them. */
	if (conn_open(&quiet, &c->conn, NULL) == 0)
		(void)conn_call(c->conn, METHOD_DAEMON_INFO, &nothing, &bytes, &d, NULL);
	if (c->json) {
		str_add(&out, "{\"version\":\"" HOTCELL_VERSION "\",\"daemon\":");
		str_add_json(&out, d.version.p, d.version.n);
		str_add(&out, "}\n");
	} else {
		str_add(&out, "hotcell " HOTCELL_VERSION "\n");
		str_addf(&out, "daemon  %.*s\n", d.version.n ? (int)d.version.n : 16,
			 d.version.n ? d.version.p : "(does not run)");
	}
	r = cli_put(&out, e);
	str_deinit(&bytes);
	str_deinit(&out);
	return r;
}

int run_doctor(struct cli *c, const struct args *a, struct err *e)
{
	(void)a;
	if (!c->hooks->doctor)
		return err_set(e, ERR_UNSUPPORTED, "'doctor' is not part of this build");
	return c->hooks->doctor(c->json, e);
}
