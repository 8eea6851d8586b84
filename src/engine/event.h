/*
 * engine/event.h - a bounded ring of what happened, and those who follow it
 *
 * Numbers grow by one; the epoch makes them grow across restarts too. A watcher
 * that falls behind the ring goes on with the oldest event still kept: it sees a
 * gap in the numbers and costs nothing. Thread: the loop's.
 */
#pragma once
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

struct events;
struct loop;
struct stream;

/* Room for this many events in an epoch; decimal, so that people can read the number. */
#define EVENTS_PER_EPOCH UINT64_C(1000000000)

struct events *events_new(struct loop *l, size_t keep, uint64_t epoch);
struct events *events_free(struct events *ev); /* watchers' streams end */

/*
 * @tenant: whose, copied. @type from wire/gen/events.h, @step: const or NULL;
 * @sandbox: id text, copied; @message: copied.
 */
void events_add(struct events *ev, const char *tenant, const char *type, const char *sandbox,
		const char *step, const char *message);

/*
 * events_watch() - reply on @s and send what matches from now on
 * @tenant:	copied; events of others are not sent
 * @sandbox:	id text, copied; NULL: all
 * @after:	start behind this number if it is still kept; 0: only new events
 */
void events_watch(struct events *ev, struct stream *s, const char *tenant, const char *sandbox, uint64_t after);

uint64_t events_last(const struct events *ev); /* number of the newest; 0: none yet */
