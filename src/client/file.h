/*
 * client/file.h - the bytes of one file, in and out, hashed while they stream
 *
 * Blocking, like conn_call(). The hash is taken here: a guest is slow at it, and what it
 * says about its own bytes proves nothing.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct conn;
struct err;
struct rec_file_info;
struct rec_file_read;
struct rec_file_write;

enum { FILE_SHA256 = 32 };

struct file_sum {
	uint64_t bytes;
	unsigned char sha256[FILE_SHA256];
};

struct file_sink {
	/* Once, before the first byte; may be NULL. @info is lent. An error ends the transfer. */
	int (*begin)(void *arg, const struct rec_file_info *info, struct err *e);
	int (*put)(void *arg, const void *p, size_t n, struct err *e); /* all of it, or an error */
	void *arg;
};

/*
 * file_fetch() - read a file
 *
 * When the daemon dies, reading goes on at the byte that was reached.
 * Return: 0; what the guest, the daemon or @to say; -ERR_CONFLICT when the file changed meanwhile.
 */
int file_fetch(struct conn *c, const struct rec_file_read *rec, const struct file_sink *to,
	       struct file_sum *ret, struct err *e);

struct file_source {
	/* The next bytes, at most @n; 0: end; negative code: the file is not written. May block. */
	ssize_t (*get)(void *arg, void *p, size_t n, struct err *e);
	void *arg;
	/* Start over: the daemon died, all @bytes so far come again. NULL: can't be done. */
	int (*rewind)(void *arg, uint64_t bytes, struct err *e);
};

/*
 * file_store() - write a file; it appears whole when this returns 0, or not at all
 * Return: 0; what the guest, the daemon or @from say; -ERR_GONE when the daemon died midway
 * and @from can't start over.
 */
int file_store(struct conn *c, const struct rec_file_write *rec, const struct file_source *from,
	       struct file_sum *ret, struct err *e);

/* As lower-case hex, with NUL. */
void file_sum_text(const struct file_sum *s, char ret[2 * FILE_SHA256 + 1]);
