/*
 * client/conn.h - one connection to the daemon: started when absent, made again when lost
 *
 * A connection owns a loop. Blocking calls turn it until they have their answer, so
 * sources that the caller added to conn_loop() (signals, a terminal) are served meanwhile.
 *
 * CONN_DOWN    no link. conn_revive() starts over.
 * CONN_WAIT    a timer runs until the next attempt: somebody else is starting the daemon
 * CONN_STARTING we started the daemon and wait for its word
 * CONN_SYNCING a socket is connected, the two ends get in step
 * CONN_UP      link_call() works
 * CONN_FAILED  conn_error() says why; conn_revive() starts over
 *
 * CONN-1 A blocking call is never made from inside a callback of the loop.
 * CONN-2 A call that changes something is repeated after a lost link only if the daemon
 *	  cannot do it twice (sandbox.create carries a request id, sandbox.remove is final).
 *
 * Thread: whoever made it, one at a time. Connections share nothing.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"

struct conn;
struct err;
struct link;
struct loop;
struct place;
struct str;

enum conn_state { CONN_DOWN, CONN_WAIT, CONN_STARTING, CONN_SYNCING, CONN_UP, CONN_FAILED };

enum {
	CONN_START_MS = 30000,	   /* for a daemon to serve */
	CONN_PING_MS = 10000,	   /* for a guest to say that it is there */
	CONN_GUEST_INFO_MS = 5000, /* for a guest to say how it is */
	CONN_RECONNECT_MS = 30000, /* as long as sessions of the guest wait for us */
};

struct conn_options {
	const char *run_dir; /* absolute; NULL: from the environment */
	bool no_start;	     /* an absent daemon is an error */
	uint64_t start_ms;   /* 0: CONN_START_MS */
};

/* Told when the link is there again, or when no more is tried. Embedded by its owner, lent. */
struct conn_watch {
	void (*up)(struct conn_watch *w);
	void (*failed)(struct conn_watch *w, const struct err *why);
	struct list link; /* private */
};

/*
 * conn_open() - connect, starting the daemon if nobody listens. Blocks up to start_ms.
 *
 * Return: 0; -ERR_UNAVAILABLE, with the daemon's last words if it ended; -ERR_TIMEOUT;
 * -ERR_DENIED when the socket is somebody else's.
 */
int conn_open(const struct conn_options *o, struct conn **ret, struct err *e);
struct conn *conn_close(struct conn *c); /* NULL is fine; calls in progress are withdrawn */

struct loop *conn_loop(const struct conn *c);
struct link *conn_link(const struct conn *c); /* NULL unless CONN_UP; lent until the loop turns */
enum conn_state conn_state(const struct conn *c);
const struct err *conn_error(const struct conn *c);
const struct place *conn_place(const struct conn *c);

/* Tell @w of the next up or failure, once, from the loop; starts connecting if nothing does. */
void conn_revive(struct conn *c, struct conn_watch *w);
void conn_unwatch(struct conn *c, struct conn_watch *w); /* not watching: fine */

/* Block until the link is up. */
int conn_ready(struct conn *c, struct err *e);

/* A blocking call in progress. Embedded by whoever blocks. */
struct conn_op {
	bool done;
	void (*cancel)(struct conn_op *op); /* makes it done, with an error of its owner's */
};

/* Turn the loop until @op is done. */
int conn_run(struct conn *c, struct conn_op *op, struct err *e);

/* The blocking call in progress ends with ERR_CANCELED. From a callback of the loop; none: fine. */
void conn_cancel(struct conn *c);

/*
 * conn_call() - one question, one answer
 * @method:	of schema/methods.toml; @req is of its request type
 * @bytes:	cleared, then holds what the texts of @ret point to
 * @ret:	of its reply type; NULL: not wanted
 *
 * Return: 0; what the daemon says; -ERR_TIMEOUT from a guest asked how it is; -ERR_GONE when the
 * daemon died and asking again could do it twice (CONN-2); -ERR_CANCELED.
 */
int conn_call(struct conn *c, unsigned method, const void *req, struct str *bytes, void *ret,
	      struct err *e);

/*
 * conn_items() - one question, a list of answers
 * @each:	per item, which is lent; an error it returns ends the call with that
 *
 * A list that breaks off is asked for again only while nothing of it was seen.
 */
int conn_items(struct conn *c, unsigned method, const void *req,
	       int (*each)(void *arg, const void *item, struct err *e), void *arg, struct err *e);
