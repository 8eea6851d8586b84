/*
 * client/hold.h - an ephemeral sandbox lives while this connection, or its successor, does
 *
 * The daemon removes an ephemeral sandbox when the stream that made it ends and no other
 * holds it. Held again after each reconnect. Thread: the connection's.
 */
#pragma once

struct conn;
struct err;
struct hold;
struct id;
struct rec_sandbox_create;
struct rec_sandbox_info;
struct str;

/*
 * hold_create() - make a sandbox and hold it from its first moment; blocks like conn_call()
 * @rec:	ephemeral, with a request id: asked again when the daemon dies
 * @bytes:	cleared, then holds what the texts of @ret point to
 * Return: 0; what the daemon says; -ERR_CANCELED.
 */
int hold_create(struct conn *c, const struct rec_sandbox_create *rec, struct str *bytes,
		struct rec_sandbox_info *ret, struct hold **ret_hold, struct err *e);
/*
 * hold_open() - hold a sandbox that exists: it counts as used
 * @gone:	once, when it is no more; from the loop
 */
int hold_open(struct conn *c, const struct id *sandbox, void (*gone)(void *arg, const struct err *why), void *arg,
	      struct hold **ret, struct err *e);
struct hold *hold_stop(struct hold *h); /* the sandbox goes, if nobody else holds it; NULL is fine */
