/*
 * client/exec.h - follow a program in a sandbox, across the death of the daemon
 *
 * Output is pulled: exec_peek() shows the next bytes, exec_take() says they are dealt with.
 * What is not taken is not credited, so a reader that stops makes the program wait.
 *
 * EXEC_STARTING  exec.start was sent
 * EXEC_RUNNING   attached: bytes flow
 * EXEC_LOST      the connection is gone and being made again
 * EXEC_FINDING   it was lost before the answer to exec.start: looking for our tag in the session table
 * EXEC_ATTACHING exec.attach was sent
 * EXEC_ENDED     `ended` was or will be called
 *
 * EXEC-1 Output is exact: after a reconnect it goes on at the first byte that was not taken. A follower with
 *	  on_slow "drop" may miss whole chunks, and only those.
 * EXEC-2 Input is exact: up to LIMIT_WINDOW bytes the guest has not acknowledged are kept, and
 *	  sent again from where the guest says it is.
 * EXEC-3 A program is started once: an exec.start without an answer is looked up, not repeated blindly.
 * EXEC-4 No callback comes from inside an exec_ call, and none after exec_close().
 *
 * Thread: the connection's.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct err;
struct exec;
struct rec_exec_attach;
struct rec_exec_exit;
struct rec_exec_start;

enum exec_stream { EXEC_STDOUT = 1, EXEC_STDERR = 2, EXEC_PTY = 3, EXEC_EXIT = 4 };
enum exec_state {
	EXEC_STARTING, EXEC_RUNNING, EXEC_LOST, EXEC_FINDING, EXEC_ATTACHING, EXEC_ENDED,
};

struct exec_ops {
	void (*started)(struct exec *x); /* exec_session() is valid; NULL: not wanted */
	void (*readable)(struct exec *x);
	void (*writable)(struct exec *x); /* exec_write() takes more than before; NULL: fine */
	void (*lost)(struct exec *x, const struct err *why); /* trying again; NULL: fine */
	/*
	 * The last one. @why NULL: all output was taken and exec_exit() is valid. Otherwise
	 * exec_peek() still shows what came before the error.
	 */
	void (*ended)(struct exec *x, const struct err *why);
};

/*
 * exec_start() - start @rec in its sandbox and follow it
 * @rec:	copied; without a tag it gets one, by which it is found again (EXEC-3)
 * Return: 0; -ERR_UNAVAILABLE when the connection is down; what rec_encode() says of @rec.
 */
int exec_start(struct conn *c, const struct rec_exec_start *rec, const struct exec_ops *ops,
	       void *arg, struct exec **ret, struct err *e);
/* The bounds of @rec and of Linux, which both name the field and what to do: before anything is made. */
int exec_check(const struct rec_exec_start *rec, struct err *e);
/* Follow a session that exists. */
int exec_attach(struct conn *c, const struct rec_exec_attach *rec, const struct exec_ops *ops,
		void *arg, struct exec **ret, struct err *e);
struct exec *exec_close(struct exec *x); /* detach; NULL is fine */

void *exec_arg(const struct exec *x);
enum exec_state exec_state(const struct exec *x);
uint64_t exec_session(const struct exec *x);
uint64_t exec_pid(const struct exec *x);
uint64_t exec_offset(const struct exec *x); /* of the first byte of the chunk stream not taken */
uint64_t exec_reconnects(const struct exec *x);
const struct rec_exec_exit *exec_exit(const struct exec *x); /* NULL until it ended */

/* The next output bytes, lent until exec_take() or the loop turns; NULL: none now. */
const void *exec_peek(const struct exec *x, enum exec_stream *ret_stream, size_t *ret_n);
void exec_take(struct exec *x, size_t n); /* at most what exec_peek() showed */

size_t exec_write(struct exec *x, const void *p, size_t n); /* input; returns how much was taken */
size_t exec_room(const struct exec *x);			    /* what exec_write() would take */
void exec_end_input(struct exec *x);			    /* no more; twice is fine */

/* Sent now, or after the reconnect that is under way. */
void exec_signal(struct exec *x, unsigned signal);	     /* 1 to 64 */
void exec_resize(struct exec *x, unsigned rows, unsigned cols); /* 1 to 65535 */
