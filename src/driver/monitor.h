/*
 * driver/monitor.h - a conversation with a machine's monitor (QMP) on a descriptor
 *
 * MON-1 What another daemon left half said or half read does no harm: the first thing
 *	 sent makes QEMU forget half commands, and everything is passed over until the
 *	 answer to our own first command comes.
 * MON-2 `down` comes at most once, and nothing after it.
 *
 * Thread: the loop's. No callback from inside a call.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct err;
struct loop;
struct monitor;
struct qmp_message;

struct monitor_ops {
	void (*ready)(void *arg); /* once: QEMU's main loop answers */
	void (*event)(void *arg, const struct qmp_message *m);
	void (*down)(void *arg, const struct err *why); /* it broke the protocol, ended, or was silent too long */
};

enum { MONITOR_HELLO_MS = 30000 /* emulated machines share few cores when many start at once */ };

/* @fd: given, also on failure. @used: another daemon spoke on it before. */
int monitor_new(struct loop *l, int fd, bool used, const struct monitor_ops *ops, void *arg,
		struct monitor **ret, struct err *e);
struct monitor *monitor_free(struct monitor *m); /* NULL: fine */

/* Read what is there now, for a machine that just ended; events come from inside. */
void monitor_drain(struct monitor *m);
