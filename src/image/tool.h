/*
 * image/tool.h - run the distribution's programs (apt-get, mmdebstrap, mke2fs, ...):
 * always in a folder given by descriptor, so that no path of ours is ever an
 * argument; ended when we die; their complaints become our error.
 */
#pragma once
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
struct err;
struct progress;
struct str;

enum {
	TOOL_ARGS_MAX = 512,
	TOOL_OUTPUT_MAX = 4 << 20, /* bytes of standard output that are kept */
	TOOL_SIGNALS = 3,
};

struct tool {
	const char *const
		*argv; /* NULL-terminated; argv[0] is looked up in PATH and the sbin folders */
	const char *const *env; /* NULL-terminated NAME=value on top of ours; may be NULL */
	int cwd_fd;             /* lent */
	int stdin_fd;           /* lent; -1: /dev/null */
	int stdout_fd;          /* lent; -1: /dev/null, or @output */
	struct str *output;     /* NULL, or where standard output goes */
	int lock_fd; /* lent; -1, or held open by all it starts: a lock outlives us with them */
	/* Root only: own mount and process namespaces. When we die, so does all it started and
	 * mounted. */
	bool is_contained;
	struct progress *progress; /* NULL, or kept alive meanwhile */
	/* NULL, or called for every line of standard error, to tell the stage from it */
	void (*on_line)(struct progress *p, const char *line);
};

#define TOOL_INIT                                                                                  \
	{                                                                                          \
		.cwd_fd = -1, .stdin_fd = -1, .stdout_fd = -1, .lock_fd = -1                       \
	}

/*
 * Run to the end. Return: 0 when it exited with 0; -ERR_UNSUPPORTED when it is not
 * installed, naming the package; -ERR_LIMIT when the file system of @cwd_fd is full;
 * otherwise -ERR_INTERNAL with what it said last.
 */
int tool_run(const struct tool *t, struct err *e);

/* -ERR_UNSUPPORTED that names every missing program's package in one sentence. */
int tool_need(const char *const *programs, size_t n, struct err *e);

/*
 * Between these two, INT, TERM and HUP (unless ignored) end the tool that runs instead of this program;
 * tool_run() waits for it and is -ERR_CANCELED from then on, so that the caller can tidy up. One thread.
 */
struct tool_signals {
	struct sigaction before[TOOL_SIGNALS];
};

void tool_signals_take(struct tool_signals *s);
void tool_signals_return(const struct tool_signals *s);
