/*
 * sys/logfile.h - a log that stays within bounds
 *
 * When a line would not fit, what the file holds moves to a second file beside it (".1"), over what was
 * there, and the file starts again: two times the bound at most, with the older half at least kept.
 *
 * The bytes move and the file stays, so that everybody else who has it open (a child, the daemon before
 * this one) goes on writing to the right place. Where it is, is asked of the descriptor itself: no state,
 * so that a log line needs no context. Only a file of our name is touched; a terminal, a pipe, or a file that
 * somebody else chose is that person's to bound.
 *
 * Any thread; lines of several processes stay whole.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { LOGFILE_MAX = 8 << 20 }; /* bytes of one file */

/*
 * Write @n bytes, a line or several, to @fd in one write; first make room if @fd is a file called @name,
 * open for appending, that would grow beyond @max bytes. What fails is not said: there is nowhere to say it.
 */
void logfile_write(int fd, const char *name, uint64_t max, const void *p, size_t n);

/*
 * Let @uid make room in the log @fd later, when it may not create files beside it any more: both files exist
 * and are its own. Nothing happens when @fd is not a file called @name. Return: 0 or a negative errno.
 */
int logfile_give(int fd, const char *name, uid_t uid);
