/*
 * base/testing.h - for t_*.c only: cmocka, and after every test a look for leaked
 * descriptors, children and (under the address sanitizer) memory.
 *
 *	static void adds_up(void **state) { T_UNUSED(state); assert_int_equal(1 + 1, 2); }
 *
 *	T_MAIN(T(adds_up), T(another))
 */
#pragma once
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/macro.h"

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
int __lsan_do_recoverable_leak_check(void);
#define T_MEMORY_LEAKED() (__lsan_do_recoverable_leak_check() != 0)
#else
#define T_MEMORY_LEAKED() false
#endif

/* Tests of base/ and wire/ are linked without sys/: then there is nothing to disarm. */
[[gnu::weak]] void sys_fault_arm(unsigned nth, int negative_errno);
[[gnu::weak]] unsigned sys_fault_seen(void);

#define T_UNUSED(x) ((void)(x))

enum { T_FDS = 4096 };

/* One bit per open descriptor. */
struct t_fds {
	uint64_t open[T_FDS / 64];
};

static inline void t_fds_read(struct t_fds *ret)
{
	DIR *d = opendir("/proc/self/fd");

	memset(ret, 0, sizeof(*ret));
	if (!d)
		return;
	for (struct dirent *e = readdir(d); e; e = readdir(d)) {
		long fd = strtol(e->d_name, NULL, 10);

		if (e->d_name[0] != '.' && fd != dirfd(d) && fd < T_FDS)
			ret->open[fd / 64] |= 1ull << (fd % 64);
	}
	(void)closedir(d);
}

/* Names every descriptor that is open now and was not then. Return: how many. */
static inline int t_fds_leaked(const struct t_fds *then)
{
	struct t_fds now;
	int leaked = 0;

	t_fds_read(&now);
	for (int fd = 0; fd < T_FDS; fd++) {
		char link[64], target[256] = "";

		if (!((now.open[fd / 64] & ~then->open[fd / 64]) >> (fd % 64) & 1))
			continue;
		(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		if (readlink(link, target, sizeof(target) - 1) < 0)
			target[0] = '\0';
		print_error("leaked descriptor %d: %s\n", fd, target);
		leaked++;
	}
	return leaked;
}

/* Return: how many children, running or not, nobody waited for; they are ended. */
static inline int t_children_leaked(void)
{
	char path[64], text[4096] = "", *p = text;
	int leaked = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/children", getpid());
	f = fopen(path, "re");
	if (f) {
		if (!fgets(text, sizeof(text), f))
			text[0] = '\0';
		(void)fclose(f);
	}
	for (long pid = strtol(p, &p, 10); pid > 0; pid = strtol(p, &p, 10)) {
		print_error("leaked child %ld\n", pid);
		(void)kill((pid_t)pid, SIGKILL);
	}
	while (waitpid(-1, NULL, __WALL) > 0)
		leaked++;
	return leaked;
}

static inline struct t_fds *t_fds_then(void)
{
	static struct t_fds then;

	return &then;
}

/* Only the first is told: the sanitizer would report it again after every later test. */
static inline bool t_memory_leaked(void)
{
	static bool told;

	if (told || !T_MEMORY_LEAKED())
		return false;
	return told = true;
}

static inline int t_before(void **state)
{
	T_UNUSED(state);
	if (sys_fault_arm)
		sys_fault_arm(0, 0);
	t_fds_read(t_fds_then());
	return 0;
}

static inline int t_after(void **state)
{
	int leaks;

	T_UNUSED(state);
	if (sys_fault_arm)
		sys_fault_arm(0, 0);
	leaks = t_children_leaked() + t_fds_leaked(t_fds_then());
	if (t_memory_leaked())
		leaks++;
	return leaks ? -1 : 0;
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, t_before, t_after)

#define T_MAIN(...)                                                                                \
	int main(void)                                                                             \
	{                                                                                          \
		const struct CMUnitTest tests[] = {__VA_ARGS__};                                   \
												   \
		return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;                          \
	}

/*
 * Run the body once per system call it makes, with the n-th call failing as @no
 * (positive errno), then once without a failure (nth counts from 1). The body
 * cleans up; what a round leaves open fails the test. No break, return or goto inside.
 *
 *	FOR_EACH_FAULT(nth, EIO) {
 *		int r = thing_new(&t);
 *		...
 *	}
 */
#define FOR_EACH_FAULT(nth, no)                                                                    \
	for (struct t_round nth##_ = t_round_start(1, no); nth##_.nth; nth##_ = t_round_next(nth##_, no)) \
		for (unsigned nth = nth##_.nth, nth##_once = 1; nth##_once && nth; nth##_once = 0)

struct t_round {
	unsigned nth; /* 0: over */
	struct t_fds then;
};

static inline struct t_round t_round_start(unsigned nth, int no)
{
	struct t_round r = {.nth = nth};

	t_fds_read(&r.then);
	sys_fault_arm(nth, -no);
	return r;
}

static inline struct t_round t_round_next(struct t_round r, int no)
{
	bool more = sys_fault_seen() >= r.nth;

	sys_fault_arm(0, 0);
	if (t_fds_leaked(&r.then))
		fail_msg("descriptors leaked when system call %u failed", r.nth);
	return more ? t_round_start(r.nth + 1, no) : (struct t_round){0};
}

/* Repeatable pseudo-random numbers: tests must fail the same way twice. */
static inline uint64_t t_random(uint64_t *seed)
{
	uint64_t z = *seed += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
