/*
 * keeper/qemu_host.h - which QEMU this host has, and the copy of it that machines run
 *
 * A machine's jail holds nothing but a *closure*: QEMU, its libraries and modules and the
 * firmware of one machine type, copied into {closures}/<hash of names and contents>/ when
 * the host's QEMU changed. So an upgrade of the package changes nothing under running
 * machines, and what a jail holds has a name that later snapshots can refer to.
 *
 * QEMU-1 A closure directory exists only whole: it is built aside, synced, renamed.
 * QEMU-2 A closure is never changed; the manifest beside its root has a hash per file.
 *
 * Blocks (copies about 60 MB when the host's QEMU changed, some milliseconds otherwise).
 */
#pragma once
#include <stdbool.h>

struct err;

enum { QEMU_VERSION_MAX = 64, QEMU_PATH_MAX = 4096 };

struct qemu_host {
	char version[QEMU_VERSION_MAX + 1]; /* "7.2.22" */
	char closure[QEMU_PATH_MAX];	    /* the jail's root directory, absolute */
	char hash[65];			    /* the closure's name */
	int root_fd;			    /* of the same directory, O_PATH; owned */
};

#define QEMU_HOST_INIT {.root_fd = -1}

/*
 * qemu_host_probe() - find QEMU and have its closure ready
 * @program:	the operator's choice, absolute; NULL: the table of known places
 * @closures:	absolute directory of closures, made if absent
 * @root:	root's keeper: program and libraries must be root's and nobody else's to write
 *
 * Return: 0; -ERR_UNSUPPORTED with the reason and what to type.
 */
int qemu_host_probe(const char *program, const char *closures, bool root, struct qemu_host *ret,
		    struct err *e);

/*
 * qemu_host_open() - a closure that was made before, for memory that another QEMU saved
 * @hash:	its name
 *
 * Reads and compares every file of it. Return: 0; -ERR_INVALID: no name of a closure;
 * -ERR_NOT_FOUND: not kept here; -ERR_UNSUPPORTED: changed since.
 */
int qemu_host_open(const char *closures, const char *hash, struct qemu_host *ret, struct err *e);
void qemu_host_deinit(struct qemu_host *h);
