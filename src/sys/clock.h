/* sys/clock.h - time and randomness. Any thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

uint64_t sys_now_ns(void);	/* CLOCK_MONOTONIC */
uint64_t sys_unix_ns(void);	/* CLOCK_REALTIME */
int sys_random(void *p, size_t n);	/* getrandom(2), whole */

/*
 * Frequency of the host's time stamp counter in kHz, timed against
 * CLOCK_MONOTONIC_RAW for @ms milliseconds (100 gives about 10 ppm).
 * -ENOTSUP where there is none.
 */
int sys_tsc_khz(unsigned ms, uint64_t *ret);
