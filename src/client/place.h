/* client/place.h - where the daemon's socket, log and programs are. Any thread. */
#pragma once
#include <stddef.h>

struct err;

enum { PLACE_PATH = 4096 };

/* Files of one run directory; see doc/ARCHITECTURE.md, State. */
struct place {
	char run[PLACE_PATH];
	char socket[PLACE_PATH + 32]; /* clients connect here */
	char log[PLACE_PATH + 32];    /* what the daemon says */
	char lock[PLACE_PATH + 32];   /* held by the client that starts the daemon */
};

/*
 * place_find() - the run directory: @run_dir, else $HOTCELL_RUN, else run/ below $HOTCELL_STATE, else the default
 * @run_dir:	absolute; NULL: from the environment
 * Return: 0; -ERR_INVALID for a relative path or one too long for a socket,
 * -ERR_UNSUPPORTED when nothing names a directory.
 */
int place_find(const char *run_dir, struct place *ret, struct err *e);

/*
 * place_claim() - make a directory that is to be ours, or refuse it
 * @variable:	what names another one: HOTCELL_STATE or HOTCELL_RUN
 *
 * Whoever may exchange what is in there decides what root opens: so it, and a link that leads there,
 * must belong to us or to root, and be writable for nobody else (or be sticky).
 * Return: 0; -ERR_DENIED naming it, its owner and what to type.
 */
int place_claim(const char *path, const char *variable, struct err *e);

/* place_state() - the state directory: $HOTCELL_STATE, else the default. -ERR_INVALID, -ERR_UNSUPPORTED. */
int place_state(char *ret, size_t size, struct err *e);

/*
 * place_program() - find one of hotcell's programs
 *
 * Looked for beside the running program, in ../libexec/hotcell from there, then in $PATH
 * (a program of somebody else that links libhotcell has no siblings of ours).
 * Return: 0; -ERR_NOT_FOUND naming the places.
 */
int place_program(const char *name, char *ret, size_t size, struct err *e);
