/*
 * image/formatter.h - blank disks for a daemon that may not start programs
 *
 * A process of the daemon's own user, born before the daemon is confined, that does one thing: run
 * mke2fs in a folder it is handed. It is told a number and a descriptor, may write nowhere but in the
 * folder of disks, and ends with the daemon. formatter_run(): any thread; it blocks.
 */
#pragma once
#include <stdint.h>

struct err;
struct formatter;

/* @disks: the folder below which it may write. For a process with one thread. */
int formatter_new(const char *disks, struct formatter **ret, struct err *e);
struct formatter *formatter_free(struct formatter *f); /* NULL: fine */

/* disk_format() by that process, or here when @f is NULL. */
int formatter_run(struct formatter *f, int folder_fd, uint64_t size_mb, struct err *e);
