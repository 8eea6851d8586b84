/* sys/caps.c - capabilities by raw system call */
#include "sys/caps.h"
#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "sys/call_int.h"

enum { CAPS_N = 64 };

static int get(struct __user_cap_data_struct ret[2])
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};

	return (int)SYS_CALL(syscall(SYS_capget, &h, ret));
}

uint64_t caps_effective(void)
{
	struct __user_cap_data_struct d[2] = {0};

	if (get(d) < 0)
		return 0;
	return d[0].effective | (uint64_t)d[1].effective << 32;
}

int caps_bound(uint64_t mask)
{
	for (int cap = 0; cap < CAPS_N; cap++) {
		int has = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

		if (has < 0)
			break; /* past the last one this kernel knows */
		if (has && !(mask & CAP_BIT(cap)) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
			return -errno;
	}
	return 0;
}

int caps_limit(uint64_t mask)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {0};
	int r = get(d);

	if (r == 0 && (d[0].effective & (1u << CAP_SETPCAP)))
		r = caps_bound(mask);
	if (r < 0)
		return r;
	for (int i = 0; i < 2; i++) {
		uint32_t part = (uint32_t)(mask >> (32 * i));

		d[i].permitted &= part;
		d[i].effective = d[i].permitted;
		d[i].inheritable = 0;
	}
	r = (int)SYS_CALL(syscall(SYS_capset, &h, d));
	if (r == 0 && prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		r = -errno;
	return r;
}
