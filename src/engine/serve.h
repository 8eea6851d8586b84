/*
 * engine/serve.h - the clients' side: connections, methods, answers. Private to engine/.
 *
 * A method is answered here (serve_verbs) or passed to the guest after its
 * request was decoded, checked against policy and encoded again, so a guest
 * sees only fields this version knows. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"
#include "policy/policy.h"

struct engine;
struct link;
struct method_info;
struct stream;

struct client {
	struct list link;
	struct engine *engine;
	struct link *conn;
	bool is_stranger, is_spare; /* every call is refused; a spare one is served when others left */
	struct list silent; /* in the engine's, until its first words */
	uint64_t silent_ns; /* since */
	unsigned uid;
	char owner[32];
	struct policy_principal who;
	struct list calls; /* struct call: answers that take more than one turn */
};

/* Embedded first in what a verb keeps; freed by serve.c when the client goes. */
struct call {
	struct list link;
	struct client *client;
	struct stream *stream; /* NULL: closed */
	bool is_lent;	       /* to a driver, whose answer frees it: not freed with the client */
};

struct verb {
	unsigned method;
	/* Accept, answer or fail @s. @rec: decoded, of the method's request type; lent. */
	void (*run)(struct client *c, struct stream *s, const void *rec);
};

/*
 * serve_items() - answer with a list, in pieces as the reader has room
 * @send:	send what comes behind serial *after, moving it; true: that was all
 */
void serve_items(struct client *c, struct stream *s,
		 bool (*send)(struct client *c, struct stream *s, uint64_t *after));

extern const struct verb serve_verbs[]; /* verbs.c; ends with method 0 */

void serve_guest(struct client *c, struct stream *s, const struct method_info *m, void *rec);
