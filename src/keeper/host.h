/*
 * keeper/host.h - what this host can do, found once at the keeper's start
 *
 * Nothing is assumed from a version number: KVM runs a guest, the process wall builds a
 * whole jail around an empty folder, cgroups are made and limits read back.
 * Blocks: a fraction of a second, longer when QEMU's closure has to be copied.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "keeper/qemu_host.h"
#include "sys/kvm_probe.h"

enum { HOST_REASON_MAX = 1024, HOST_PATH_MAX = 4096 };

/* Ids of root mode: the daemon's, then 65536 for each slot. */
#define HOST_UID_DAEMON	   0x70000000u
#define HOST_UID_SLOTS	   (HOST_UID_DAEMON + 65536u)
#define HOST_UID_TRIAL	   (HOST_UID_SLOTS + 65536u * 1024) /* behind the last slot */

/* Whether machines run on KVM: as the probe says, or as the operator knows better. */
enum host_kvm { HOST_KVM_PROBE, HOST_KVM_YES, HOST_KVM_NO };

struct host_paths {
	char state[HOST_PATH_MAX], run[HOST_PATH_MAX]; /* absolute */
	char init[HOST_PATH_MAX];		       /* hotcell-init; may be missing */
	char qemu[HOST_PATH_MAX];		       /* the operator's choice; empty: the known places */
	enum host_kvm kvm;
};

struct host {
	bool root;
	struct kvm_probe kvm;
	uint64_t tsc_khz; /* 0: none */
	struct qemu_host qemu;
	bool has_qemu;
	struct process_host *process; /* NULL: see process_reason */
	int images_fd;		      /* where its trees are; -1 without the process wall */
	struct cgroup_root *groups;   /* NULL: see groups_reason */
	unsigned limits;	      /* CGROUP_* that hold */
	char qemu_reason[HOST_REASON_MAX], process_reason[HOST_REASON_MAX], groups_reason[HOST_REASON_MAX];
};

/*
 * host_probe() - look at everything; what is missing becomes a reason, not an error
 * @groups: name of the keeper's parent cgroup
 */
void host_probe(const struct host_paths *p, const char *groups, struct host *ret);
void host_deinit(struct host *h);
