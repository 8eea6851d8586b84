/*
 * guest/late.h - an exec.start whose arguments and environment are more than a record holds
 *
 * They come first on the stream that is the program's input afterwards: rq->late_argv bytes of
 * arguments, rq->late_env bytes of environment, entries with their NUL. Nothing more comes
 * before the reply. LATE_MAX such calls at once, each with at most LIMIT_ARGV_BYTES.
 *
 * Thread: the loop's.
 */
#pragma once

struct agent;
struct rec_exec_start;
struct stream;

enum { LATE_MAX = 4 };

/* @rq is copied. Ends in exec_begin(), or in a failure of @s. */
void late_start(struct agent *a, struct stream *s, const struct rec_exec_start *rq);
