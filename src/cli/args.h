/*
 * cli/args.h - the command line as records
 *
 * Options are the flags of record fields (schema/records.toml), plus those a verb declares
 * itself in a record type of its own; there is no other option parser. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "wire/gen/limits.h"
#include "wire/record.h"

struct args;
struct cli;
struct err;
struct str;

enum { VERB_TYPES = 4, ARGS_MAX = 2 * LIMIT_ARGV_COUNT };

struct verb {
	const char *name;
	const char *operands; /* for help: "SANDBOX [--] PROGRAM [ARG...]" */
	const char *summary;  /* one line */
	const char *details;  /* more for its own help page; NULL: none */
	unsigned min, max;    /* operands */
	/* From operand number `max` on (counted from 1), everything is the program's, dashes or not. */
	bool program;
	/* Where its options come from; the first type that has a flag wins. NULL-terminated. */
	const struct rec_type *types[VERB_TYPES + 1];
	/* Exit status; an error (negative code) is printed and mapped by the caller. */
	int (*run)(struct cli *c, const struct args *a, struct err *e);
	/* Exit status of hotcell's own errors; 0: by code (schema/errors.toml). */
	int error_status;
	/* Its words after the verb are given to cli_hooks.image instead. */
	bool foreign;
};

struct args {
	const struct verb *verb;
	void *recs[VERB_TYPES];	    /* one per type, owned */
	const char *const *operand; /* lent from argv */
	unsigned n_operands;
	struct str *lists; /* values of repeated options; private */
	size_t n_lists;
	const char **kept; /* private */
};

/*
 * args_parse() - read the words behind the verb
 * @argv:	lent; texts in the records point into it
 * @ret:	end with args_free() in every case
 *
 * Return: 0; -ERR_INVALID or -ERR_LIMIT naming the option, the value and the limit.
 */
int args_parse(const struct verb *v, int argc, const char *const *argv, struct args *ret,
	       struct err *e);
void args_free(struct args *a);

/* The record of type @t; the verb must list it. */
void *args_rec(const struct args *a, const struct rec_type *t);

/* The options of a verb for help, a line each. */
void args_help(const struct verb *v, struct str *out);

/* Of @names (NULL-terminated), the one that was probably meant; NULL: none is near. */
const char *args_nearest(const char *word, const char *const *names);

/* Append every option of @v ("--memory", "-m") with a blank behind it. */
void args_words(const struct verb *v, struct str *out);
