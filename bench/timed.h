/* bench/timed.h - start a program and time its first byte of output and its end. */
#pragma once
#include <stdint.h>

enum { TIMED_TEXT_MAX = 512 };

struct timed {
	uint64_t start_ns, first_ns, end_ns; /* CLOCK_MONOTONIC; first_ns 0: no output */
	uint64_t bytes;			     /* of standard output */
	int status;			     /* exit code, or 128 + signal */
	char text[TIMED_TEXT_MAX];	     /* last line of standard error if status is not 0 */
};

/*
 * timed_run() - run a program to its end
 * @argv:	argv[0] is looked up in the PATH
 * @timeout_ms:	its process group is killed after this long
 *
 * Return: 0; -errno when it couldn't be started; -ETIMEDOUT. Thread: any.
 */
int timed_run(char *const argv[], uint64_t timeout_ms, struct timed *ret);
