/*
 * bench/machine.h - the sandboxes that are measured, through the C library.
 *
 * Every function blocks until its answer is there and takes its times at the caller:
 * from before the call to after it. Times are CLOCK_MONOTONIC nanoseconds. Thread: the
 * connection's.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct hotcell;
struct hotcell_error;
struct hotcell_sandbox;

enum {
	MACHINE_CROWD_MAX = 128,
	MACHINE_FILE_MAX = 256 << 20,
	MACHINE_HASH_TEXT = 65,
};

/*
 * @kind: process, vm, or vm-cold: a machine that is booted even if its template is hot
 * @memory_mib 0: the template's
 * Twenty minutes later it removes itself.
 */
int machine_create(struct hotcell *h, const char *kind, uint32_t memory_mib, struct hotcell_sandbox **ret,
		   struct hotcell_error *e);

/*
 * machine_speak() - run @argv (NULL-terminated) to its end
 * @ret_first_ns:	when its first output was there
 * Return: 0; -HOTCELL_INTERNAL when it failed or said nothing; what the library says.
 */
int machine_speak(struct hotcell_sandbox *s, char *const argv[], uint64_t *ret_first_ns, struct hotcell_error *e);

/*
 * Write @bytes to @path of the sandbox, or read it back. Both hash what passes;
 * machine_get() fails when the hash is not @sha256, which machine_put() filled.
 */
int machine_put(struct hotcell_sandbox *s, const char *path, uint64_t bytes, char sha256[MACHINE_HASH_TEXT],
		uint64_t *ret_ns, struct hotcell_error *e);
int machine_get(struct hotcell_sandbox *s, const char *path, const char sha256[MACHINE_HASH_TEXT], uint64_t *ret_ns,
		struct hotcell_error *e);

/* One of many asked for at once: when it was ready and when its program spoke, since all began. */
struct machine_member {
	uint64_t ready_ns, first_ns;
};

/*
 * machine_crowd() - @n threads with a connection each make a sandbox at the same time
 * @run_dir:	of the daemon
 * @argv:	run in each as soon as it is ready; its first may be NULL: nothing is run, first_ns is ready_ns
 * @n:		at most MACHINE_CROWD_MAX
 * All are removed again, when the last is done. Return: 0; the first failure.
 */
int machine_crowd(const char *run_dir, const char *kind, char *const argv[], struct machine_member *ret, size_t n,
		  struct hotcell_error *e);
