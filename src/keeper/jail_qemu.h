/*
 * keeper/jail_qemu.h - QEMU as a machine: its command line, its descriptors, its jail
 *
 * Without KVM nobody promises that QEMU keeps a guest inside, so this jail is the wall:
 * an empty root with a read-only closure (keeper/qemu_host.h), /proc with nothing but
 * QEMU itself, no network, no capability, a uid of the slot's, an allow-list of system
 * calls in which nothing can be opened for writing, Landlock, rlimits.
 *
 * Memory, state, disks, kernel, link, monitor and console are inherited descriptors. The
 * memory is a sealed file mapped privately: what a machine writes stays its own, and the
 * file stays what it was for everybody who was started from it.
 * Thread: the keeper's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "wire/gen/limits.h"

struct err;
struct jail_qemu;
struct jail_spec;
struct qemu_host;
struct rec_machine_start;

/* Descriptors of machine.start: root, layers, then two more: kernel and initrd, or memory and state. */
enum { JAIL_QEMU_FDS_MAX = LIMIT_DISK_LAYERS + 3 };

/* Everything is lent: descriptors until jail_start() returned, the rest for the call. */
struct jail_qemu_parts {
	const struct qemu_host *host;
	const struct rec_machine_start *rec;
	const int *fds; /* as above */
	unsigned n_fds;
	int memory_fd;	/* sealed, rec->memory_mb long; a fork's came in @fds as well */
	int object_fd;	/* keeper/qemu_memory.h */
	int link_fd, monitor_fd; /* QEMU's ends */
	int console_fd;		 /* write end of a pipe: the serial port's and QEMU's own last words */
	uint64_t tsc_khz;	 /* of the host, measured; emulated guests hang without it */
	bool root;		 /* the keeper has root's powers */
	uid_t uid_base;		 /* as in struct jail_spec */
	gid_t gid_base;
};

/* -ERR_INVALID: wrong number or kind of descriptors. -ERR_UNSUPPORTED: not on this host. */
int jail_qemu_new(const struct jail_qemu_parts *p, struct jail_qemu **ret, struct err *e);

/* Fill in all of @s but name, uid_base, gid_base, id_count and cgroup. @q is lent to @s. */
void jail_qemu_spec(struct jail_qemu *q, struct jail_spec *s);
struct jail_qemu *jail_qemu_free(struct jail_qemu *q); /* after jail_start(); NULL: fine */

/*
 * jail_qemu_memory_check() - is @fd a memory file of @mb MiB that nobody can write any more
 * Return: 0; -ERR_INVALID naming what is wrong.
 */
int jail_qemu_memory_check(int fd, uint64_t mb, struct err *e);
int jail_qemu_memory_seal(int fd, struct err *e);

/* What a machine may use, for its cgroup: the guest's memory and a named overhead; threads. */
uint64_t jail_qemu_memory(const struct rec_machine_start *rec);
unsigned jail_qemu_pids(const struct rec_machine_start *rec);
