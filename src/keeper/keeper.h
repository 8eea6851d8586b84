/*
 * keeper/keeper.h - the daemon's side of the keeper: closed verbs, descriptors, numbers
 *
 * The keeper (bin/hotcell-keeper) is the parent of every machine and outlives the
 * daemon. It listens on {run}/keeper/keeper.sock (loop/link.h with descriptors; only
 * root, its own uid and the daemon's uid may connect). Machines die when their
 * lease runs out; keeper_new() renews it every third of LEASE_MS.
 *
 * Thread: the loop's. Completions follow DRIVER-1: exactly once, later.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/id.h"
#include "base/list.h"
#include "base/span.h"

struct keeper;
struct keeper_items;
struct loop;
struct rec_machine_info;
struct rec_machine_start;

/* Of a forked QEMU: the state it is to load, by number. */
enum { KEEPER_STATE_FD = 11 };

/* In QEMU, the set of descriptors of the disk's layer 0; the next layers have the next ones. */
enum { KEEPER_LAYER_SET = 200 };

/* The processor an emulated guest sees; jail_qemu.c says why. A guest goes on with the one it had. */
#define KEEPER_CPU "Nehalem,+arat"

/*
 * What a machine may use besides its guest's memory; its control group is bounded by both together.
 *
 * TB: translated code, without KVM: the default, an eighth of the guest's memory, has no bound of its own.
 * HEAP: QEMU itself, 20 to 50 MB, and what the kernel keeps of its disk meanwhile.
 * PERMILLE: of the guest's memory: page tables of QEMU, and with KVM those of the guest.
 */
enum { KEEPER_TB_MB = 128, KEEPER_HEAP_MB = 128, KEEPER_TABLES_PERMILLE = 4 };

#define KEEPER_DISK "disk" /* in QEMU, the device of the writable disk */

enum { KEEPER_LEASE_MS = 60000, KEEPER_LINK = 0, KEEPER_PIDFD = 1, KEEPER_MONITOR = 2, KEEPER_FDS = 3 };

/* What the keeper measured about this host; valid until keeper_free(). */
struct keeper_host {
	char version[65];
	int pid;
	bool root, kvm;
	bool opens_trees; /* false: one of 0.1.0, which wants descriptors of them */
	unsigned slots;
	uint64_t tsc_khz;
	char kvm_reason[1025], qemu[65], qemu_reason[1025], process_reason[1025];
	char closure[65]; /* SHA-256 of QEMU and what it loads; "": none */
	bool enforces_memory, enforces_cpu, enforces_pids, enforces_disk;
};

struct keeper_events {
	void (*up)(void *arg);				/* said hello: keeper_host() is valid */
	void (*gone)(void *arg, const struct rec_machine_info *m); /* a machine ended; m lent */
	void (*lost)(void *arg, const struct err *why); /* the keeper itself is gone; once */
	void *arg;
};

/* Connect to @socket_path and shake hands; `up` or `lost` follows. */
int keeper_new(struct loop *l, const char *socket_path, const struct keeper_events *ev,
	       struct keeper **ret, struct err *e);
/* Machines stay. Pending calls complete with ERR_CANCELED, here; not from inside a callback of @k's. */
struct keeper *keeper_free(struct keeper *k);
const struct keeper_host *keeper_host(const struct keeper *k);

/*
 * The end of one machine: @gone comes once, from the loop, with what the keeper
 * recorded (exit, reason, last words of its console); also for one that had ended before.
 * Not after keeper_unwatch() or `lost`.
 */
struct keeper_watch {
	void (*gone)(struct keeper_watch *w, const struct rec_machine_info *m); /* m lent */
	struct id id;
	struct list link; /* private */
};
void keeper_watch(struct keeper *k, const struct id *id, struct keeper_watch *w);
void keeper_unwatch(struct keeper_watch *w); /* zero-initialised or told already: fine */

/* Embedded by the caller, lent until done. */
struct keeper_call {
	/* @fds (KEEPER_FDS of them, -1 where absent) are given for start and adopt; @pid, @kvm likewise valid. */
	void (*done)(struct keeper_call *c, const struct err *why);
	int fds[KEEPER_FDS];
	int pid;
	bool kvm;
	uint64_t memory_bytes, memory_max_bytes, cpu_us, pids, pids_max, oom_kills; /* keeper_stats() */
	uint64_t copied_bytes, copy_us; /* keeper_take() */
	struct stream *stream; /* private, as the rest */
	struct list link;
	struct keeper_items *items;
	bool is_malformed;
};

/* @fds: for qemu root, disk, kernel, initrd; of a process sandbox only a fork's files; lent. */
int keeper_start(struct keeper *k, const struct rec_machine_start *rec, const int *fds,
		 unsigned n_fds, struct keeper_call *c, struct err *e);
int keeper_adopt(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);
int keeper_stop(struct keeper *k, const struct id *id, unsigned grace_ms, struct keeper_call *c,
		struct err *e);
/* Kill if needed and clean up; completes when nothing is left. A machine it never had: success. */
int keeper_release(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);
int keeper_stats(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);

/*
 * The memory of a qemu machine, in three steps, so that it stands still for the second only.
 * keeper_save() allocates and copies what will not change, while the machine runs; a second one
 * replaces the first. keeper_copy() adds what is the machine's own; the caller has stopped its
 * vCPUs, until it completes. keeper_take(): fds[KEEPER_LINK] of the call: the sealed memory file,
 * given.
 *
 * Of a process sandbox, keeper_take() alone copies the files, as a stream of keeper/files.h in a
 * sealed memory file; the caller has frozen the workload. A machine starts with them when the
 * record says forked and the file is its descriptor.
 */
int keeper_save(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);
int keeper_copy(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);
int keeper_take(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e);

/* All machines, ended ones included: @each per machine, then done. */
struct keeper_list_call {
	struct keeper_call call;
	void (*each)(struct keeper_list_call *c, const struct rec_machine_info *m);
};
int keeper_list(struct keeper *k, struct keeper_list_call *c, struct err *e);
