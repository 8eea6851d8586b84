/* sys/caps.h - capabilities of the caller. -errno. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define CAP_BIT(cap) (1ull << (cap))

uint64_t caps_effective(void);
/* Keep at most @mask in the bounding set: while CAP_SETPCAP is there, so before ids change. */
int caps_bound(uint64_t mask);
/* Keep at most @mask in every set, the bounding set included if it may; ambient ones go. */
int caps_limit(uint64_t mask);
