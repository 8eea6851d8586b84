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
struct stat;

enum {
	FILE_SHA256 = 32,
	FILE_UNSIZED_MAX = 16777216, /* of a file that is announced as empty and has content, as those of /proc */
	FILE_IMAGE_MB = 8192,	     /* what an image may add to the room that a sandbox has of its own */
};

struct file_sum {
	uint64_t bytes;
	unsigned char sha256[FILE_SHA256];
};

struct file_sink {
	/* Once, before the first byte; may be NULL. @info is lent. An error ends the transfer. */
	int (*begin)(void *arg, const struct rec_file_info *info, struct err *e);
	int (*put)(void *arg, const void *p, size_t n, struct err *e); /* all of it, or an error */
	void *arg;
	/* The next @n bytes are zeros that need no room. NULL: they are put. */
	int (*hole)(void *arg, uint64_t n, struct err *e);
	uint64_t max; /* bytes; a larger file is refused when it is announced; 0: any */
};

/*
 * file_room() - more than this can't be in a file of the sandbox: its disk, its memory and an image
 *
 * From the daemon, which gave it the disk. Return: 0; what the daemon says.
 */
int file_room(struct conn *c, const char *sandbox, uint64_t *ret, struct err *e);

/*
 * file_fetch() - read a file
 * @ret:	NULL: not hashed
 *
 * When the daemon dies, reading goes on at the byte that was reached. More than the guest announced
 * does not come (FILE_UNSIZED_MAX where it announced nothing).
 * Return: 0; what the guest, the daemon or @to say; -ERR_CONFLICT when the file changed meanwhile;
 * -ERR_LIMIT for a file beyond @to's max, and when more came than was announced.
 */
int file_fetch(struct conn *c, const struct rec_file_read *rec, const struct file_sink *to,
	       struct file_sum *ret, struct err *e);

struct file_source {
	/* The next bytes, at most @n; 0: end; negative code: the file is not written. May block. */
	ssize_t (*get)(void *arg, void *p, size_t n, struct err *e);
	void *arg;
	/* Start over: the daemon died, all @bytes so far come again. NULL: can't be done. */
	int (*rewind)(void *arg, uint64_t bytes, struct err *e);
	/* The bytes of a hole that begins here, which is passed; 0: none. NULL: there are no holes. */
	int64_t (*hole)(void *arg, struct err *e);
};

/*
 * file_store() - write a file; it appears whole when this returns 0, or not at all
 * @ret:	NULL: not hashed
 *
 * Holes stay holes where the sandbox's agent knows how (since 0.1.1); before, they become zeros.
 * Return: 0; what the guest, the daemon or @from say; -ERR_GONE when the daemon died midway
 * and @from can't start over.
 */
int file_store(struct conn *c, const struct rec_file_write *rec, const struct file_source *from,
	       struct file_sum *ret, struct err *e);

/* What file_write.mtime_ns says of a file of this host. */
uint64_t file_mtime(const struct stat *st);

/* As lower-case hex, with NUL. */
void file_sum_text(const struct file_sum *s, char ret[2 * FILE_SHA256 + 1]);
