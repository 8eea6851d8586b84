/* cli/program.h - from options and words to an exec.start record, for run, exec and shell */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/span.h"
#include "base/str.h"
#include "wire/gen/records.h"

struct args;
struct err;

/* Options of `exec`, in part of `run` and `shell`. */
struct follow_flags {
	struct span command;
	struct span code, language, save; /* run --code */
	bool tty, no_stdin, detach, verbose;
	uint64_t max_output;
};

enum { MAX_OUTPUT = 1 << 20 /* bytes of each captured stream, without --max-output */ };

struct program {
	struct rec_exec_start rec; /* texts point to the command line or to the lists here */
	struct str argv, env;
};

/*
 * program_init() - @sandbox and @flags, the exec.start options of @a, and its words from @first on
 * Return: 0; -ERR_INVALID without a program or with two; -ERR_LIMIT. End with program_deinit().
 */
int program_init(struct program *p, const char *sandbox, const struct follow_flags *flags,
		 const struct args *a, unsigned first, struct err *e);
void program_deinit(struct program *p);
