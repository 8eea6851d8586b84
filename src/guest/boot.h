/*
 * guest/boot.h - from the kernel's first breath to a place where programs can run:
 * modules, disks, the overlay, the usual mounts, the loopback. Machine only.
 */
#pragma once
#include "guest/agent.h"
#include "guest/log.h"

struct err;

/*
 * boot_machine() - as process 1 in the initramfs
 * @ret:	filled for agent_new(); its descriptors are given
 *
 * On return the root is the sandbox's own, /proc is unmounted again (the
 * workload gets one of its own) and nothing of the initramfs is left but us.
 */
int boot_machine(struct guest_log *log, struct agent_config *ret, struct err *e);

/* Write everything back and restart, which the host takes for the end. Does not return. */
_Noreturn void boot_end(void);
