/* keeper/copier.c - the process that copies, and the keeper's side of it */
#include "keeper/copier.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/jail_qemu.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"

enum {
	CHUNK = 1 << 20,     /* bytes copied at once */
	ENTRIES = 8192,	     /* of pagemap, read at once: 32 MiB of memory */
	REGIONS_MAX = 64,    /* pieces in which a machine may map its memory */
	LINE_MAX_BYTES = 4096,
};

#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61)

/* What the copying process says: of the preparation, then of the copy. */
struct word {
	int code;     /* errno; 0: done */
	char what[64];
	uint64_t bytes, us;
};

/* ---- in the process that copies ---- */

struct region {
	uint64_t start, bytes, offset; /* address in the machine, size, place in the file */
};

struct job {
	pid_t pid;
	int base_fd, to_fd, talk_fd;
	uint64_t bytes, page;
	struct region regions[REGIONS_MAX];
	unsigned n_regions;
	char *buffer; /* CHUNK */
	uint64_t *entries;
	const char *what; /* is being done */
};

static int take_line(struct job *j, const char *line, const struct stat *st)
{
	uint64_t start, end, offset, inode;
	unsigned major_n, minor_n;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &start, &end, &offset, &major_n,
		   &minor_n, &inode) != 6)
		return 0;
	if (inode != st->st_ino || makedev(major_n, minor_n) != st->st_dev)
		return 0;
	if (end <= start || offset >= j->bytes || end - start > j->bytes - offset || offset % j->page)
		return -ERANGE; /* COPIER-1 */
	if (j->n_regions == REGIONS_MAX)
		return -E2BIG;
	j->regions[j->n_regions++] = (struct region){start, end - start, offset};
	return 0;
}

static int find_regions(struct job *j)
{
	char path[64], line[LINE_MAX_BYTES];
	struct stat st;
	FILE *f;
	int r = 0;

	j->what = "look at its address space";
	(void)snprintf(path, sizeof(path), "/proc/%d/maps", j->pid);
	if (fstat(j->base_fd, &st) < 0)
		return -errno;
	f = fopen(path, "re");
	if (!f)
		return -errno;
	j->n_regions = 0;
	while (r == 0 && fgets(line, sizeof(line), f))
		r = take_line(j, line, &st);
	(void)fclose(f);
	return r == 0 && j->n_regions == 0 ? -ENOENT : r;
}

/* [at, at + n) of the machine to the same place of the file. */
static int copy_range(struct job *j, const struct region *g, uint64_t at, uint64_t n)
{
	while (n) {
		size_t part = (size_t)MIN(n, (uint64_t)CHUNK);
		struct iovec to = {j->buffer, part};
		struct iovec from = {(void *)(uintptr_t)(g->start + at), part}; /* NOLINT: another process's */
		ssize_t got = process_vm_readv(j->pid, &to, 1, &from, 1, 0);
		int r;

		if (got <= 0)
			return got < 0 ? -errno : -EFAULT;
		r = sys_pwrite_full(j->to_fd, j->buffer, (size_t)got, g->offset + at);
		if (r < 0)
			return r;
		at += (uint64_t)got;
		n -= (uint64_t)got;
	}
	return 0;
}

static bool is_own(uint64_t entry)
{
	return entry & (PAGE_PRESENT | PAGE_SWAPPED) && !(entry & PAGE_OF_FILE);
}

/* Runs of own pages among @n entries from page @first of the region on. */
static int copy_runs(struct job *j, const struct region *g, uint64_t first, size_t n, uint64_t *bytes)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0;) {
		size_t from = i;

		if (!is_own(j->entries[i])) {
			i++;
			continue;
		}
		while (i < n && is_own(j->entries[i]))
			i++;
		*bytes += (i - from) * j->page;
		r = copy_range(j, g, (first + from) * j->page, (i - from) * j->page);
	}
	return r;
}

static int copy_own(struct job *j, uint64_t *bytes)
{
	AUTO_CLOSE int fd = -1;
	char path[64];
	int r = 0;

	j->what = "read its memory";
	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", j->pid);
	fd = sys_open(path, O_RDONLY);
	if (fd < 0)
		return fd;
	for (unsigned k = 0; k < j->n_regions && r == 0; k++) {
		const struct region *g = &j->regions[k];
		uint64_t pages = g->bytes / j->page;

		for (uint64_t at = 0; at < pages && r == 0;) {
			size_t n = (size_t)MIN(pages - at, (uint64_t)ENTRIES);
			ssize_t got = sys_pread(fd, j->entries, n * sizeof(*j->entries),
						(g->start / j->page + at) * sizeof(*j->entries));

			if (got <= 0)
				return got < 0 ? (int)got : -EFAULT;
			n = (size_t)got / sizeof(*j->entries);
			r = copy_runs(j, g, at, n, bytes);
			at += n;
		}
	}
	return r;
}

static int copy_base(struct job *j)
{
	off_t at = 0, end = (off_t)j->bytes;

	j->what = "copy what it started from";
	while (at < end) {
		off_t data = lseek(j->base_fd, at, SEEK_DATA), hole;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(j->base_fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		while (data < hole) {
			ssize_t n = sys_pread(j->base_fd, j->buffer, (size_t)MIN(hole - data, (off_t)CHUNK),
					      (uint64_t)data);
			int r = n <= 0 ? (n < 0 ? (int)n : -EIO)
				       : sys_pwrite_full(j->to_fd, j->buffer, (size_t)n, (uint64_t)data);

			if (r < 0)
				return r;
			data += n;
		}
		at = hole;
	}
	return 0;
}

static void say(const struct job *j, int r, uint64_t bytes, uint64_t us)
{
	struct word w = {.code = -r, .bytes = bytes, .us = us};

	(void)snprintf(w.what, sizeof(w.what), "%s", j->what);
	(void)sys_write_full(j->talk_fd, &w, sizeof(w));
}

/* Its own pages are copied once now, so that their places are allocated when it stands still. */
static int prepare(struct job *j)
{
	uint64_t bytes = 0;
	int r = copy_base(j);

	if (r == 0)
		r = find_regions(j);
	return r < 0 ? r : copy_own(j, &bytes);
}

static int copy(struct job *j, uint64_t *bytes)
{
	int r = find_regions(j);

	return r < 0 ? r : copy_own(j, bytes);
}

static _Noreturn void work(struct job *j)
{
	const int keep[] = {j->base_fd, j->to_fd, j->talk_fd};
	uint64_t bytes = 0, begin;
	char go;
	int r = sys_die_with_parent();

	(void)sys_close_all_but(keep, ARRAY_LEN(keep));
	j->what = "begin";
	j->buffer = malloc(CHUNK);
	j->entries = malloc(ENTRIES * sizeof(*j->entries));
	if (r == 0 && (!j->buffer || !j->entries))
		r = -ENOMEM;
	if (r == 0)
		r = prepare(j);
	say(j, r, 0, 0);
	if (r < 0 || sys_read_full(j->talk_fd, &go, 1) < 0)
		_exit(1);
	begin = sys_now_ns();
	r = copy(j, &bytes);
	say(j, r, bytes, (sys_now_ns() - begin) / NS_PER_US);
	_exit(r < 0);
}

/* ---- in the keeper ---- */

/* PREPARING -> PREPARED -> COPYING -> DONE; any -> DONE by a failure */
enum copier_state { COPIER_PREPARING, COPIER_PREPARED, COPIER_COPYING, COPIER_DONE };

struct copier {
	struct loop *loop;
	struct copier_events ev;
	enum copier_state state;
	int pidfd, talk_fd, to_fd;
	struct loop_io io;
	struct loop_timer late;
};

static void stop(struct copier *c)
{
	struct sys_exit how;

	loop_io_del(c->loop, &c->io);
	loop_timer_cancel(c->loop, &c->late);
	if (c->pidfd >= 0) {
		(void)sys_pidfd_signal(c->pidfd, SIGKILL);
		(void)sys_pidfd_wait(c->pidfd, &how);
	}
	c->pidfd = sys_close(c->pidfd);
	c->talk_fd = sys_close(c->talk_fd);
	c->state = COPIER_DONE;
}

static void fail(struct copier *c, const struct err *why)
{
	stop(c);
	c->ev.failed(c->ev.arg, why); /* the last use of @c */
}

static void on_late(struct loop_timer *t)
{
	struct err e = ERR_INIT;

	(void)err_set(&e, ERR_TIMEOUT, "copying the machine's memory took too long");
	fail(CONTAINER_OF(t, struct copier, late), &e);
}

static void finish(struct copier *c, const struct word *w)
{
	struct err e = ERR_INIT;

	/* It is dead before the seal: nobody writes any more, and who might could not. */
	stop(c);
	if (jail_qemu_memory_seal(c->to_fd, &e) < 0)
		c->ev.failed(c->ev.arg, &e);
	else
		c->ev.copied(c->ev.arg, c->to_fd, w->bytes, w->us);
}

static void on_word(struct loop_io *io, unsigned events)
{
	struct copier *c = CONTAINER_OF(io, struct copier, io);
	struct word w;
	struct err e = ERR_INIT;

	(void)events;
	if (sys_read_full(c->talk_fd, &w, sizeof(w)) < 0) {
		(void)err_set(&e, ERR_INTERNAL, "the process that copies the machine's memory died");
		fail(c, &e);
		return;
	}
	w.what[sizeof(w.what) - 1] = '\0';
	if (w.code) {
		(void)err_sys(&e, -w.code, "copy the machine's memory: %s", w.what);
		fail(c, &e);
	} else if (c->state == COPIER_PREPARING) {
		loop_timer_cancel(c->loop, &c->late);
		c->state = COPIER_PREPARED;
		c->ev.prepared(c->ev.arg);
	} else {
		finish(c, &w);
	}
}

static int start(struct copier *c, struct job *j, struct err *e)
{
	int pair[2], r = sys_socketpair(pair);
	pid_t pid;

	if (r < 0)
		return err_sys(e, r, "talk to the process that copies");
	c->talk_fd = pair[0];
	j->talk_fd = pair[1];
	pid = sys_clone(0, -1, &c->pidfd);
	if (pid == 0)
		work(j);
	(void)sys_close(pair[1]);
	if (pid < 0)
		return err_sys(e, (int)pid, "start a process that copies memory");
	r = loop_io_add(c->loop, &c->io, c->talk_fd, LOOP_READ, on_word);
	return r < 0 ? err_sys(e, r, "watch the process that copies") : 0;
}

int copier_new(struct loop *l, pid_t pid, int memory_fd, uint64_t bytes, const struct copier_events *ev,
	       struct copier **ret, struct err *e)
{
	struct copier *c = mem_new(sizeof(*c));
	struct job j = {.pid = pid, .base_fd = memory_fd, .bytes = bytes, .page = (uint64_t)sysconf(_SC_PAGESIZE)};
	int r;

	*c = (struct copier){.loop = l, .ev = *ev, .pidfd = -1, .talk_fd = -1};
	c->to_fd = j.to_fd = sys_memfd("ram", MFD_ALLOW_SEALING);
	r = c->to_fd < 0 ? c->to_fd : 0;
	if (r == 0 && ftruncate(c->to_fd, (off_t)bytes) < 0)
		r = -errno;
	if (r < 0)
		r = err_sys(e, r, "make a memory file of %" PRIu64 " MiB", bytes / MIB);
	if (r == 0)
		r = start(c, &j, e);
	if (r < 0) {
		(void)copier_free(c);
		return r;
	}
	loop_timer_set(l, &c->late, loop_now(l) + COPIER_PREPARE_MS * NS_PER_MS, on_late);
	*ret = c;
	return 0;
}

int copier_copy(struct copier *c, struct err *e)
{
	int r;

	if (c->state != COPIER_PREPARED)
		return err_set(e, ERR_CONFLICT, "no copy of the machine's memory is prepared");
	r = sys_write_full(c->talk_fd, "g", 1);
	if (r < 0)
		return err_sys(e, r, "tell the process that copies to go on");
	c->state = COPIER_COPYING;
	loop_timer_set(c->loop, &c->late, loop_now(c->loop) + COPIER_COPY_MS * NS_PER_MS, on_late);
	return 0;
}

struct copier *copier_free(struct copier *c)
{
	if (!c)
		return NULL;
	stop(c);
	(void)sys_close(c->to_fd);
	free(c);
	return NULL;
}
