/*
 * cli/follow.h - a program in a sandbox, as if it ran here: input, output, signals, terminal
 *
 * Output goes out unchanged and in order; a reader that stops makes the program wait. The
 * first INT or QUIT is the program's, the second ends us; TERM and HUP do both at once.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "wire/gen/records.h"

struct cli;
struct err;

struct follow_options {
	const struct rec_exec_start *start; /* one of the two */
	const struct rec_exec_attach *attach;
	bool input;	   /* standard input is the program's */
	bool terminal;	   /* it has a terminal: ours becomes raw if it is one */
	bool capture;	   /* keep the output instead of printing it */
	uint64_t max_bytes; /* of each captured stream; the rest is counted and forgotten */
};

struct capture {
	struct str bytes;
	uint64_t total;
};

struct follow_result {
	int status; /* for exit(): the program's, or 128 + the signal that ended us */
	bool finished; /* the program ended and exit is valid; otherwise we left it */
	struct rec_exec_exit exit;
	char reason[33];
	uint64_t session, reconnects;
	struct capture out, err;
};

/* Blocks. Return: 0; an error of hotcell's own. End with follow_result_free() in every case. */
int follow(struct cli *c, const struct follow_options *o, struct follow_result *ret,
	   struct err *e);
void follow_result_free(struct follow_result *r);
/* On standard error: that it was killed, for its time or for memory. @sandbox: by id or name. */
void follow_note_end(struct cli *c, const struct follow_result *r, const char *sandbox);

/* Start and leave: the session keeps running. */
int follow_start_only(struct cli *c, const struct rec_exec_start *rec, uint64_t *ret_session,
		      struct err *e);

/* Add members "exit", "exit_code", "stdout", ... of a JSON object. */
void follow_json(const struct follow_result *r, struct str *out);
