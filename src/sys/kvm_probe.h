/* sys/kvm_probe.h - is KVM usable, as measured. Any thread; takes a few milliseconds. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct kvm_probe {
	bool usable, runs; /* runs: a guest does, at whatever speed */
	uint64_t loops_per_s; /* of a guest at privilege level 0 */
	char reason[256];     /* why not */
};

/* Below this the guest's kernel is interpreted and never finishes booting. */
#define KVM_PROBE_LOOPS_PER_S ((uint64_t)50000000)

void kvm_probe(struct kvm_probe *ret);
