/* client/start.h - start the daemon in the background. Any thread. */
#pragma once
#include <stddef.h>
#include <stdint.h>

struct err;
struct place;

/*
 * start_daemon() - run hotcelld as a process of its own (new session, no parent to wait for it)
 * @ret_ready_fd:	given; one byte arrives when it serves, end of file when it ended instead
 * @ret_log_start:	size of the log before; what comes behind it is this daemon's
 *
 * Blocks for a fork. Its output goes to the end of @p's log.
 * Return: 0; -ERR_NOT_FOUND when there is no such program; what opening the log says.
 */
int start_daemon(const struct place *p, int *ret_ready_fd, uint64_t *ret_log_start, struct err *e);

/*
 * start_log_tail() - the last words in the log from @log_start on, escaped, lines joined by " | "
 * @ret:	"" when there are none
 */
void start_log_tail(const struct place *p, uint64_t log_start, char *ret, size_t size);
