/* sys/clock.c - time and randomness */
#include "sys/clock.h"
#include <errno.h>
#include <sys/random.h>
#include <time.h>
#if defined(__x86_64__)
#include <x86intrin.h>
#endif
#include "base/macro.h"
#include "sys/fault.h"

static uint64_t now(clockid_t clock)
{
	struct timespec ts;

	(void)clock_gettime(clock, &ts); /* cannot fail for these clocks */
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t sys_now_ns(void)
{
	return now(CLOCK_MONOTONIC);
}

uint64_t sys_unix_ns(void)
{
	return now(CLOCK_REALTIME);
}

int sys_random(void *p, size_t n)
{
	size_t done = 0;
	int r = sys_fault();

	if (r)
		return r;
	while (done < n) {
		ssize_t got = getrandom((char *)p + done, n - done, 0);

		if (got < 0 && errno != EINTR)
			return -errno;
		if (got > 0)
			done += (size_t)got;
	}
	return 0;
}

#if defined(__x86_64__)
/* The two clocks must be read together: of several tries the tightest pair counts. */
static void read_pair(uint64_t *ret_tsc, uint64_t *ret_ns)
{
	uint64_t best = UINT64_MAX;

	for (int i = 0; i < 8; i++) {
		uint64_t before = __rdtsc();
		uint64_t ns = now(CLOCK_MONOTONIC_RAW);
		uint64_t after = __rdtsc();

		if (after - before >= best)
			continue;
		best = after - before;
		*ret_tsc = before + best / 2;
		*ret_ns = ns;
	}
}

int sys_tsc_khz(unsigned ms, uint64_t *ret)
{
	struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	uint64_t tsc0 = 0, tsc1 = 0, ns0 = 0, ns1 = 0;

	read_pair(&tsc0, &ns0);
	while (nanosleep(&pause, &pause) < 0)
		;
	read_pair(&tsc1, &ns1);
	if (ns1 <= ns0 || tsc1 <= tsc0)
		return -EIO;
	*ret = (uint64_t)((double)(tsc1 - tsc0) * 1e6 / (double)(ns1 - ns0));
	return 0;
}
#else
int sys_tsc_khz(unsigned ms, uint64_t *ret)
{
	(void)ms;
	(void)ret;
	return -ENOTSUP;
}
#endif
