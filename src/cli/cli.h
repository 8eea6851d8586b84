/*
 * cli/cli.h - what the verbs share: a connection, output, exit status
 *
 * Exit status: of `run`, `exec`, `shell` and `attach` the program's own (128 + signal, 124 after
 * --timeout), 127 when there is no such program, 126 when it can't be run, 125 when hotcell
 * itself failed, 128 + signal when it was interrupted; of every other verb the one of the
 * error's code (schema/errors.toml). One thread.
 */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include "cli/args.h"
#include "wire/gen/records.h"
#include "wire/record.h"

struct conn;
struct err;
struct signals;
struct str;
struct table;

enum { CLI_FAILED = 125, CLI_NO_EXEC = 126, CLI_NO_PROGRAM = 127, CLI_TIMED_OUT = 124, CLI_SIGNAL = 128 };

/* What is done without the daemon; bin/ wires it. Each returns 0 or -ERR_x. */
struct cli_hooks {
	int (*image)(int argc, char **argv, struct err *e); /* argv[0] is "image" */
	int (*doctor)(bool json, struct err *e); /* becomes another program, so it returns only when that fails */
};

struct cli {
	const struct cli_hooks *hooks;
	const struct verb *verb;
	bool json, quiet;
	int interrupted;	 /* by this signal; 0: not */
	int failed_status;	 /* exit status of the error that follows; 0: by its code */
	struct conn *conn;	 /* made by cli_connect() */
	struct signals *signals; /* by cli_signals() */
};

/* The whole program. Returns its exit status. */
int cli_main(int argc, char **argv, const struct cli_hooks *hooks);

/* Options of every verb. */
struct common_options {
	bool json, quiet, help;
};
extern const struct rec_type common_type;

/* The verbs, ends with a NULL name; cli_verb(): NULL when there is none. */
extern const struct verb cli_verbs[];
const struct verb *cli_verb(const char *name);
/* "\"lisst\" is no command; did you mean 'list'?" */
int cli_no_verb(const char *word, struct err *e);

int cli_connect(struct cli *c, struct err *e); /* connected already: fine */
/* From now on INT, TERM and HUP end the blocking call in progress instead of the program. */
int cli_signals(struct cli *c, struct err *e);

/* Signals cancel the blocking call again, after somebody redirected them. */
void cli_default_signals(struct cli *c);

/* One record as a line of JSON. */
int cli_put_json(const struct rec_type *t, const void *rec, struct err *e);
/* A record for people: a line per field that is not empty. */
/* The image of template @name is gone: what was hot of it goes, too, if a daemon runs. */
int cli_forget_hot(struct cli *c, const char *name, struct err *e);
int cli_describe(const struct rec_type *t, const void *rec, struct err *e);
/* A line of JSON or text on standard output; fails when nobody reads it. */
int cli_put(const struct str *line, struct err *e);
/* A notice for people on standard error, escaped; silent with --quiet. */
[[gnu::format(printf, 2, 3)]] void cli_note(const struct cli *c, const char *fmt, ...);

/* The items of a call: a table for people, JSON lines for programs. @row: adds the cells of one. */
int cli_list(struct cli *c, unsigned method, const void *req, void (*row)(struct table *t, const void *item),
	     const char *const *heads, unsigned columns, struct err *e);

/* Each verb: a file. */
int run_run(struct cli *c, const struct args *a, struct err *e);
int run_create(struct cli *c, const struct args *a, struct err *e);
int run_exec(struct cli *c, const struct args *a, struct err *e);
int run_code(struct cli *c, const struct args *a, struct err *e);
int run_fork(struct cli *c, const struct args *a, struct err *e);
int run_pause(struct cli *c, const struct args *a, struct err *e);
int run_resume(struct cli *c, const struct args *a, struct err *e);
int run_rollback(struct cli *c, const struct args *a, struct err *e);
int run_snapshot(struct cli *c, const struct args *a, struct err *e);
int run_restore(struct cli *c, const struct args *a, struct err *e);
int run_template(struct cli *c, const struct args *a, struct err *e);
int run_pool(struct cli *c, const struct args *a, struct err *e);
int run_shell(struct cli *c, const struct args *a, struct err *e);
int run_attach(struct cli *c, const struct args *a, struct err *e);
int run_cp(struct cli *c, const struct args *a, struct err *e);
int run_ls(struct cli *c, const struct args *a, struct err *e);
int run_watch(struct cli *c, const struct args *a, struct err *e);
int run_ps(struct cli *c, const struct args *a, struct err *e);
int run_list(struct cli *c, const struct args *a, struct err *e);
int run_info(struct cli *c, const struct args *a, struct err *e);
int run_rm(struct cli *c, const struct args *a, struct err *e);
int run_sessions(struct cli *c, const struct args *a, struct err *e);
int run_signal(struct cli *c, const struct args *a, struct err *e);
int run_port(struct cli *c, const struct args *a, struct err *e);
int run_events(struct cli *c, const struct args *a, struct err *e);
int run_daemon(struct cli *c, const struct args *a, struct err *e);
int run_doctor(struct cli *c, const struct args *a, struct err *e);
int run_version(struct cli *c, const struct args *a, struct err *e);
int run_help(struct cli *c, const struct args *a, struct err *e);

extern const struct rec_type run_type, follow_type, shell_type, cp_type, ls_type, rm_type,
	attach_type, events_type, code_type, watch_type, daemon_type;
