/*
 * keeper/machines.h - the slot table: every machine from its start until nothing of it is left
 *
 * A slot is a number; its ids, its cgroup and its name follow from it.
 *
 * MACH-1 A slot is free only when its processes are reaped and its cgroup is removed.
 * MACH-2 `gone` is told once per machine that had started, with its exit.
 * MACH-3 A machine nobody renewed dies with reason "lease"; one that ended and that nobody
 *	  released is cleaned up a lease later.
 *
 * Thread: the keeper's loop. Completions come later, never from inside the call.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/id.h"
#include "base/list.h"

struct cgroup_root;
struct err;
struct loop;
struct machines;
struct process_host;
struct qemu_host;
struct rec_machine_info;
struct rec_machine_stats;
struct rec_machine_start;
struct slot;

enum { MACHINES_SLOTS_MAX = 1024, MACHINE_FDS = 3 };
enum machine_kind { MACHINE_PROCESS = 1, MACHINE_QEMU = 2 };

struct machines_config {
	unsigned slots;		/* at most MACHINES_SLOTS_MAX */
	unsigned ready;		/* process shells kept waiting */
	bool root;
	uid_t uid_base;		/* root: of slot 0; slot n: + n * 65536. Otherwise one's own */
	gid_t gid_base;
	int images_fd;		/* of trees_open(); lent for good */
	struct cgroup_root *groups;    /* NULL: none here; lent for good, like all below */
	struct process_host *process;  /* NULL: see process_reason */
	struct qemu_host *qemu;	       /* NULL: see qemu_reason */
	const char *closures;	       /* the folder of QEMU's closures; lent for good */
	const char *process_reason, *qemu_reason;
	bool kvm;
	uint64_t tsc_khz;
	void (*gone)(void *arg, struct slot *s);
	void *arg;
};

/* Embedded by the caller, lent until done. */
struct machine_call {
	void (*done)(struct machine_call *c, struct slot *s, const struct err *why);
	struct list link; /* private */
};

int machines_new(struct loop *l, const struct machines_config *c, struct machines **ret, struct err *e);
/* Kills all, waits for the kernel to say they are dead. NULL: fine. */
struct machines *machines_free(struct machines *ms);

/* @fds: lent. On success @c completes when the program runs or has failed. */
int machines_start(struct machines *ms, const struct rec_machine_start *rec, const int *fds,
		   unsigned n_fds, struct machine_call *c, struct err *e);
struct slot *machines_find(struct machines *ms, const struct id *id); /* NULL: none such */
void machines_renew(struct machines *ms, uint64_t lease_ms);
unsigned machines_slots(const struct machines *ms);
struct slot *machines_slot(struct machines *ms, unsigned n);

bool slot_has_machine(const struct slot *s); /* running or ended, not being cleaned up */
bool slot_runs(const struct slot *s);
bool slot_is_gone(const struct slot *s);
void slot_fds(const struct slot *s, int ret[MACHINE_FDS]); /* link, pidfd, monitor; lent, -1: none */

enum { SLOT_REASON_MAX = 1024 };
/* Text of @ret lives in @reason. */
void slot_info(const struct slot *s, struct rec_machine_info *ret, char reason[SLOT_REASON_MAX]);
void slot_stats(struct slot *s, struct rec_machine_stats *ret);

/*
 * The memory of a running qemu machine, in three steps (keeper/copier.h). @c completes when the
 * copy is prepared, made, or given: then, perhaps from inside slot_take(), slot_copied() has it.
 * Of a process sandbox, its files (keeper/packer.h), by slot_take() alone.
 */
int slot_save(struct slot *s, struct machine_call *c, struct err *e);
int slot_copy(struct slot *s, struct machine_call *c, struct err *e);
int slot_take(struct slot *s, struct machine_call *c, struct err *e);
struct slot_copied {
	int fd; /* lent, sealed */
	uint64_t bytes, us;
};
struct slot_copied slot_copied(const struct slot *s);
void slot_copied_drop(struct slot *s); /* it was given away */

void slot_stop(struct slot *s, unsigned grace_ms); /* TERM, then KILL; of an ended one: nothing */
/* Kill if needed and clean up; @c (may be NULL) completes when nothing is left, with no slot. */
void slot_release(struct slot *s, struct machine_call *c);
void machine_call_forget(struct machine_call *c); /* its owner goes away: never completes */
