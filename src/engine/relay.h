/*
 * engine/relay.h - a client's call passed on to a guest, bytes both ways
 *
 * "Up" is towards the guest. Credit is passed end to end: the guest gets new
 * credit only for what the client has consumed and the other way round, so a
 * relay holds no bytes of its own and a stalled reader stops the writer, not
 * the daemon. Offsets are the guest's and the client's own and pass unchanged.
 *
 * RELAY-1 The guest's reply is decoded and checked before the client sees it; one
 *	   that breaks its schema ends the guest's link (relay_events.broken).
 * RELAY-2 What is relayed never exceeds what the far end has granted: a guest that
 *	   sends more breaks the protocol, not the daemon.
 *
 * RELAY-3 A call with a limit ends by then, whatever the guest does or does not.
 *
 * Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include "base/list.h"
#include "base/span.h"

struct err;
struct link;
struct method_info;
struct relay;
struct stream;

struct relay_events {
	/* The guest answered @s's method; @rec of its reply type. NULL: not wanted. */
	void (*replied)(void *arg, const struct method_info *m, const void *rec);
	/* The guest broke the protocol: end its link. The relay is gone already. */
	void (*broken)(void *arg, const struct err *why);
	/* The relay is gone and no longer in its list. */
	void (*over)(void *arg);
	/* The guest was to end the call long ago: what the client is told. `over` does not follow. */
	void (*late)(void *arg, struct err *ret);
	/* How long we have kept the guest from running so far, in all. */
	uint64_t (*still_ns)(void *arg);
	void *arg;
	uint64_t limit_ms; /* of the call, not counting that; 0: none */
};

/*
 * relay_start() - pass @down's request @rec of method @m on through @guest
 * @owner:	list head the relay hangs in until it is over
 * @down:	client's stream; accepted here, and failed here on errors
 */
void relay_start(struct link *guest, const struct method_info *m, const void *rec,
		 struct stream *down, const struct relay_events *ev, struct list *owner);

/* End every relay of @owner with @why: the guest is gone. No events. */
void relay_end_all(struct list *owner, const struct err *why);
