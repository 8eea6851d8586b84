/*
 * image/cpio.h - write a cpio archive in the "newc" form the kernel unpacks.
 * Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
 * Deterministic: owner root, time 0, inode numbers counted. Any thread.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { CPIO_NAME_MAX = 255 };

/*
 * Ignores everything after the first failure; cpio_end() reports it. Names are
 * relative, without a leading '/', and folders come before what is in them.
 */
struct cpio {
	int fd;     /* lent, written from its current offset */
	int failed; /* negative errno */
	uint32_t next_ino;
	uint64_t at; /* bytes written */
};

#define CPIO_INIT(fd_)                                                                             \
	{                                                                                          \
		.fd = (fd_), .next_ino = 1                                                         \
	}

void cpio_dir(struct cpio *c, const char *name, mode_t mode);
void cpio_mem(struct cpio *c, const char *name, mode_t mode, const void *p, size_t n);
/* The whole of @fd, whatever its offset. A file that changes its size meanwhile: -EIO. */
void cpio_file(struct cpio *c, const char *name, mode_t mode, int fd);
void cpio_char_node(struct cpio *c, const char *name, mode_t mode, uint32_t major, uint32_t minor);

/* Write the trailer. Return: 0, or what failed: -EINVAL for a bad name, -EFBIG, a write's errno. */
int cpio_end(struct cpio *c);
