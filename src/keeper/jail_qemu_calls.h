/* keeper/jail_qemu_calls.h - the system calls QEMU is left with */
#pragma once
#include "sys/seccomp.h"

extern const struct seccomp_policy jail_qemu_calls;	/* emulating */
extern const struct seccomp_policy jail_qemu_calls_kvm; /* with /dev/kvm */
