/* image/cpio.c - the newc writer: a header of 13 eight-digit hex numbers, name and data padded to 4
 */
#include "image/cpio.h"
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/macro.h"
#include "sys/fd.h"

enum { HEADER_BYTES = 110, ALIGN = 4, END_ALIGN = 512, COPY_BYTES = 1 << 16 };

struct entry {
	const char *name;
	mode_t mode;
	uint64_t size;
	uint32_t major, minor;
};

static void put(struct cpio *c, const void *p, size_t n)
{
	if (c->failed)
		return;
	c->failed = sys_write_full(c->fd, p, n);
	c->at += n;
}

static void pad(struct cpio *c, size_t align)
{
	static const char zeros[END_ALIGN];

	put(c, zeros, (align - c->at % align) % align);
}

static bool is_name_ok(const char *name)
{
	size_t n = strlen(name);

	return n && n <= CPIO_NAME_MAX && name[0] != '/' && !strstr(name, "..");
}

static void put_header(struct cpio *c, const struct entry *en)
{
	unsigned links = S_ISDIR(en->mode) ? 2 : 1;
	char h[HEADER_BYTES + 1];

	if (!c->failed && !is_name_ok(en->name))
		c->failed = -EINVAL;
	if (!c->failed && en->size > UINT32_MAX)
		c->failed = -EFBIG;
	if (c->failed)
		return;
	/* magic, ino, mode, uid, gid, nlink, mtime, size, dev, rdev, name size, check */
	(void)snprintf(h, sizeof(h), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		       c->next_ino++, (unsigned)en->mode, 0, 0, links, 0, (unsigned)en->size, 0, 0,
		       en->major, en->minor, (unsigned)strlen(en->name) + 1, 0);
	put(c, h, HEADER_BYTES);
	put(c, en->name, strlen(en->name) + 1);
	pad(c, ALIGN);
}

void cpio_dir(struct cpio *c, const char *name, mode_t mode)
{
	put_header(c, &(struct entry){ .name = name, .mode = S_IFDIR | mode });
}

void cpio_char_node(struct cpio *c, const char *name, mode_t mode, uint32_t major, uint32_t minor)
{
	put_header(c,
		   &(struct entry){
			   .name = name, .mode = S_IFCHR | mode, .major = major, .minor = minor });
}

void cpio_mem(struct cpio *c, const char *name, mode_t mode, const void *p, size_t n)
{
	put_header(c, &(struct entry){ .name = name, .mode = S_IFREG | mode, .size = n });
	put(c, p, n);
	pad(c, ALIGN);
}

static int copy(struct cpio *c, int fd, uint64_t size)
{
	AUTO_FREE char *buf = malloc(COPY_BYTES);
	uint64_t at = 0;
	ssize_t n;

	if (!buf)
		return -ENOMEM;
	while (at < size && !c->failed) {
		n = sys_pread(fd, buf, (size_t)MIN(size - at, (uint64_t)COPY_BYTES), at);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		put(c, buf, (size_t)n);
		at += (uint64_t)n;
	}
	return 0;
}

void cpio_file(struct cpio *c, const char *name, mode_t mode, int fd)
{
	struct stat st;
	int r;

	if (c->failed)
		return;
	if (fstat(fd, &st) < 0) {
		c->failed = -errno;
		return;
	}
	put_header(c, &(struct entry){
			      .name = name, .mode = S_IFREG | mode, .size = (uint64_t)st.st_size });
	r = copy(c, fd, (uint64_t)st.st_size);
	if (r < 0 && !c->failed)
		c->failed = r;
	pad(c, ALIGN);
}

int cpio_end(struct cpio *c)
{
	put_header(c, &(struct entry){ .name = "TRAILER!!!" });
	pad(c, END_ALIGN);
	return c->failed;
}
