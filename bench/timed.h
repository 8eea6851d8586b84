/* bench/timed.h - start programs and time their first byte of output and their end. Thread: any. */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	TIMED_TEXT_MAX = 512,
	TIMED_BURST_MAX = 256,
};

struct timed {
	uint64_t start_ns, first_ns, end_ns; /* CLOCK_MONOTONIC; first_ns 0: no output */
	uint64_t bytes;			     /* of standard output */
	int status;			     /* exit code, or 128 + signal */
	char text[TIMED_TEXT_MAX];	     /* last line of standard error if status is not 0 */
	pid_t pid;			     /* the rest is used while it runs */
	int out, err;
};

/*
 * timed_run() - run a program to its end
 * @argv:	argv[0] is looked up in the PATH
 * @timeout_ms:	its process group is killed after this long
 *
 * Return: 0; -errno when it couldn't be started; -ETIMEDOUT.
 */
int timed_run(char *const argv[], uint64_t timeout_ms, struct timed *ret);

/*
 * timed_burst() - start @n copies of a program at once
 * @ret:	array of @n; first_ns of each counts from ret[0].start_ns if the caller wants the
 * batch
 *
 * Only the first piece of output of each is read: at most a pipe full may be written.
 * Return: as timed_run(); -E2BIG beyond TIMED_BURST_MAX.
 */
int timed_burst(char *const argv[], uint64_t timeout_ms, struct timed *ret, size_t n);
