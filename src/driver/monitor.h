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
#include "base/list.h"
#include "base/str.h"

struct err;
struct loop;
struct monitor;
struct qmp_message;

struct monitor_ops {
	void (*ready)(void *arg); /* once: QEMU's main loop answers */
	void (*event)(void *arg, const struct qmp_message *m);
	void (*down)(void *arg, const struct err *why); /* it broke the protocol, ended, or was silent too long */
};

/* Embedded by the caller, lent until done or monitor_free(), after which it never is. */
struct monitor_call {
	void (*done)(struct monitor_call *c, const struct err *why); /* why NULL: it returned */
	const char *text; /* of what it returned; lent inside done */
	uint64_t id;	  /* private, as the rest */
	struct list link;
	struct str line;
	int fd;
};

enum {
	MONITOR_ANSWER_MS = 30000, /* of one command; a save or load of device state takes a few */
};

/*
 * monitor_call() - say a command and hear its answer
 * @arguments:	text of a JSON object of our own making; NULL: none
 * @fd:		a descriptor that travels with it, lent; -1: none
 *
 * MON-3 Commands go out one at a time, each after the answer to the one before: QEMU keeps
 *	 a descriptor for the next command only.
 * Completes once, later; with an error when QEMU refuses, says nothing for
 * MONITOR_ANSWER_MS, or `down` is about to come. Legal after `ready`.
 */
int monitor_call(struct monitor *m, const char *name, const char *arguments, int fd,
		 struct monitor_call *c, struct err *e);

enum { MONITOR_HELLO_MS = 30000 /* emulated machines share few cores when many start at once */ };

/* @fd: given, also on failure. @used: another daemon spoke on it before. */
int monitor_new(struct loop *l, int fd, bool used, const struct monitor_ops *ops, void *arg,
		struct monitor **ret, struct err *e);
struct monitor *monitor_free(struct monitor *m); /* NULL: fine */

/* Read what is there now, for a machine that just ended; events come from inside. */
void monitor_drain(struct monitor *m);
