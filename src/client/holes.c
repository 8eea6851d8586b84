/* client/holes.c - read a file of this host, its holes apart */
#include "client/holes.h"
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/fd.h"

enum { BLOCK = 512 }; /* what st_blocks counts */

void holes_init(struct holes *h, int fd, const struct stat *st)
{
	bool regular = S_ISREG(st->st_mode);

	*h = (struct holes){.fd = fd, .regular = regular, .sparse = regular && st->st_blocks < st->st_size / BLOCK};
}

int64_t holes_skip(struct holes *h)
{
	int64_t data, end, from = (int64_t)h->at;
	struct stat st;

	if (!h->sparse || h->at < h->data_end)
		return 0;
	data = sys_seek(h->fd, h->at, SEEK_DATA);
	if (data == -ENXIO) { /* the rest of it is one */
		if (fstat(h->fd, &st) < 0)
			return -errno;
		data = end = MAX(st.st_size, from);
	} else {
		end = data < 0 ? data : sys_seek(h->fd, (uint64_t)data, SEEK_HOLE);
	}
	if (data < from || end < data) { /* a file system without holes */
		h->sparse = false;
		return 0;
	}
	h->at = (uint64_t)data;
	h->data_end = (uint64_t)end;
	return data - from;
}

ssize_t holes_get(struct holes *h, void *p, size_t n)
{
	ssize_t r;

	if (h->at < h->data_end)
		n = (size_t)MIN((uint64_t)n, h->data_end - h->at);
	r = h->regular ? sys_pread(h->fd, p, n, h->at) : sys_read(h->fd, p, n);
	if (r > 0)
		h->at += (uint64_t)r;
	return r;
}

int holes_rewind(struct holes *h)
{
	int64_t r = h->regular ? 0 : sys_seek(h->fd, 0, SEEK_SET);

	h->at = h->data_end = 0;
	return r < 0 ? (int)r : 0;
}
