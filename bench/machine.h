/*
 * bench/machine.h - the sandboxes that are measured, through the client library.
 *
 * Every function blocks until its answer is there and takes its times at the
 * client: from before the request is made to after the answer is decoded.
 * Thread: the connection's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "base/id.h"

struct conn;
struct err;
struct str;

enum {
	MACHINE_STAGES = 8192,
	MACHINE_BURST_MAX = 256,
	MACHINE_FILE_MAX = 256 << 20,
};

struct machine {
	char id[ID_TEXT];
	char wall[32];
	uint64_t pid;                /* on the host */
	uint64_t start_ns, ready_ns; /* of the create call; CLOCK_MONOTONIC */
	char stages[MACHINE_STAGES]; /* name=microseconds, separated by blanks, in order */
};

/* @wall: vm or process; @memory_mb 0: the template's. Ten minutes later it removes itself. */
int machine_create(struct conn *c, const char *wall, uint64_t memory_mb, struct machine *ret,
		   struct err *e);
int machine_remove(struct conn *c, const char *id, struct err *e);
int machine_ping(struct conn *c, const char *id, uint64_t *ret_ns, struct err *e);

struct machine_run {
	uint64_t start_ns, first_ns, end_ns; /* first_ns 0: no output */
	uint64_t bytes;
	int64_t code; /* -1: a signal */
};

/* Run @argv (NULL-terminated) and follow it to its end. Output is counted and dropped. */
int machine_exec(struct conn *c, const char *id, char *const argv[], struct machine_run *ret,
		 struct err *e);

/*
 * Write @bytes to @path of the sandbox, or read it back. Both hash what passes;
 * machine_get() fails when the hash is not @sha256, which machine_put() filled.
 */
int machine_put(struct conn *c, const char *id, const char *path, uint64_t bytes,
		unsigned char sha256[32], uint64_t *ret_ns, struct err *e);
int machine_get(struct conn *c, const char *id, const char *path, const unsigned char sha256[32],
		uint64_t *ret_ns, struct err *e);

/* One of many asked for at once: when it was ready and when its program spoke. */
struct machine_burst {
	char id[ID_TEXT];
	uint64_t ready_ns, first_ns; /* since the first request */
};

/* @n creates in flight at once; in each, @argv as soon as it is ready. All are removed again. */
int machine_burst(struct conn *c, const char *wall, uint64_t memory_mb, char *const argv[],
		  struct machine_burst *ret, size_t n, struct err *e);
