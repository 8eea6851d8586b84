/*
 * driver/tidy.c - the monitor of a machine that is taken over
 *
 * The daemon before may have died while it copied the machine: it may stand still, its disk may
 * write to a layer that nobody wrote down, and descriptors and nodes of the half made copy may
 * be left, which the next copy would trip over. QEMU is asked for the layer, the rest is undone.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/macro.h"
#include "driver/kept_int.h"
#include "keeper/keeper.h"

enum { COMMAND_MAX = 128, STATE_SET = KEEPER_LAYER_SET - 1 };

static void next_part(struct machine *m);

static void tidied(struct machine *m, const struct err *why)
{
	struct err e = ERR_INIT;

	err_copy(&e, why);
	m->tidied(m, e.code ? &e : NULL);
}

/* What was not left can't be undone. That it goes on must succeed. */
static void part_done(struct monitor_call *c, const struct err *why)
{
	(void)why;
	next_part(CONTAINER_OF(c, struct machine, say));
}

static void goes_on(struct monitor_call *c, const struct err *why)
{
	tidied(CONTAINER_OF(c, struct machine, say), why);
}

static void say(struct machine *m, const char *command, const char *arguments,
		void (*done)(struct monitor_call *c, const struct err *why))
{
	struct err e = ERR_INIT;

	m->say.done = done;
	if (monitor_call(m->monitor, command, arguments, -1, &m->say, &e) < 0)
		tidied(m, &e);
}

static void next_part(struct machine *m)
{
	const int next = m->top + 1;
	const struct {
		const char *command, *before, *after;
		int number;
	} parts[] = {
		{"blockdev-del", "{\"node-name\":\"l", "\"}", next},
		{"blockdev-del", "{\"node-name\":\"l", "-file\"}", next},
		{"remove-fd", "{\"fdset-id\":", "}", KEEPER_LAYER_SET + next},
		{"remove-fd", "{\"fdset-id\":", "}", STATE_SET},
	};
	char text[COMMAND_MAX];
	unsigned i = m->tidy_part++;

	if (i == ARRAY_LEN(parts)) {
		say(m, "cont", NULL, goes_on);
		return;
	}
	(void)snprintf(text, sizeof(text), "%s%d%s", parts[i].before, parts[i].number, parts[i].after);
	say(m, parts[i].command, text, part_done);
}

/* QEMU may be its guest's: a number in words that are ours, or it is not believed. */
static int read_node(const char *text)
{
	char again[16];
	long n;

	if (text[0] != 'l')
		return -1;
	n = strtol(text + 1, NULL, 10);
	if (n < 0 || n >= INT_MAX - KEEPER_LAYER_SET)
		return -1;
	(void)snprintf(again, sizeof(again), "l%ld", n);
	return strcmp(text, again) == 0 ? (int)n : -1;
}

static void told_top(struct monitor_call *c, const struct err *why)
{
	struct machine *m = CONTAINER_OF(c, struct machine, say);
	struct err e = ERR_INIT;

	if (why) {
		tidied(m, why);
		return;
	}
	m->top = read_node(c->text);
	if (m->top < 0) {
		(void)err_set(&e, ERR_INVALID, "QEMU doesn't say which layer its disk writes to");
		tidied(m, &e);
		return;
	}
	next_part(m);
}

void tidy(struct machine *m, void (*done)(struct machine *m, const struct err *why))
{
	m->tidied = done;
	m->tidy_part = 0;
	say(m, "qom-get", "{\"path\":\"/machine/peripheral/" KEEPER_DISK "\",\"property\":\"drive\"}", told_top);
}
