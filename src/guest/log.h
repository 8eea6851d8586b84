/*
 * guest/log.h - the agent's own words: the kernel log in a machine (the host
 * keeps the console's last lines), standard error in a process sandbox.
 * Workloads can cause lines, so they are escaped and rate-limited. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct err;

struct guest_log {
	int fd;	      /* owned */
	bool is_kmsg; /* lines get a level */
	unsigned left, dropped;
	uint64_t refill_ns;
};

/* @fd is given; -1: silent. */
void log_init(struct guest_log *log, int fd, bool is_kmsg);
void log_deinit(struct guest_log *log);
[[gnu::format(printf, 2, 3)]] void log_line(struct guest_log *log, const char *fmt, ...);
