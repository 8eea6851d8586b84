/* cli/signals.h - signals as events of the connection's loop. One thread. */
#pragma once

struct err;
struct loop;
struct signals;

/* Block the signals of the table in signals.c and hand them to @on_signal from the loop. */
int signals_new(struct loop *l, void (*on_signal)(void *arg, int signo), void *arg,
		struct signals **ret, struct err *e);
/* Somebody else listens from now on. */
void signals_redirect(struct signals *s, void (*on_signal)(void *arg, int signo), void *arg);
struct signals *signals_free(struct signals *s); /* NULL is fine; unblocks */
