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
#include "sys/caps.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"

enum {
	CHUNK = 1 << 20, /* of the base, read at once */
	ENTRIES = 8192,	 /* of pagemap, read at once: 32 MiB of memory */
	REGIONS_MAX = 64, /* pieces in which a machine may map its memory */
	RUNS_MAX = 1024,  /* runs of pages fetched by one call: what the kernel takes */
	FETCH_MAX = 64 << 20, /* bytes by one call */
	LINE_MAX_BYTES = 4096,
};

#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61)

/* Whoever lacks memory takes it from the copy before anything else of ours; the machine runs on. */
#define OOM_SCORE "500"

/* What the copying process says: of the preparation, then of the copy. */
struct word {
	int code; /* errno; 0: done */
	char what[64];
	uint64_t bytes, us;
};

/* ---- in the process that copies ---- */

struct region {
	uint64_t start, bytes, offset; /* address in the machine, size, place in the file */
};

/* Runs of pages that wait to be fetched. */
struct fetch {
	struct iovec from[RUNS_MAX], to[RUNS_MAX];
	unsigned n;
	size_t bytes;
};

struct job {
	pid_t pid;
	int base_fd, to_fd, talk_fd;
	int maps_fd, pagemap_fd; /* of the machine: opened while we may */
	uint64_t bytes, page;
	struct region regions[REGIONS_MAX];
	unsigned n_regions;
	char *to;     /* the new file, mapped: one copy less than writing to it */
	char *buffer; /* CHUNK */
	uint64_t *entries;
	struct fetch fetch;
	uint64_t copied;
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
	char line[LINE_MAX_BYTES];
	struct stat st;
	int r = 0, fd;
	FILE *f;

	j->what = "look at its address space";
	if (fstat(j->base_fd, &st) < 0 || lseek(j->maps_fd, 0, SEEK_SET) < 0)
		return -errno;
	fd = sys_dup(j->maps_fd);
	f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f) {
		(void)sys_close(fd);
		return -EMFILE;
	}
	j->n_regions = 0;
	while (r == 0 && fgets(line, sizeof(line), f))
		r = take_line(j, line, &st);
	(void)fclose(f);
	return r == 0 && j->n_regions == 0 ? -ENOENT : r;
}

static int fetch_now(struct job *j)
{
	struct fetch *f = &j->fetch;
	ssize_t got;

	if (f->n == 0)
		return 0;
	got = process_vm_readv(j->pid, f->to, f->n, f->from, f->n, 0);
	if (got < 0)
		return -errno;
	if ((size_t)got != f->bytes)
		return -EFAULT; /* it unmapped some of it, or there is no memory for the copy */
	j->copied += f->bytes;
	f->n = 0;
	f->bytes = 0;
	return 0;
}

/* [at, at + n) of the region to the same place of the file; fetched by the next fetch_now(). */
static int fetch_add(struct job *j, const struct region *g, uint64_t at, uint64_t n)
{
	struct fetch *f = &j->fetch;
	int r = 0;

	while (n && r == 0) {
		size_t part = (size_t)MIN(n, (uint64_t)FETCH_MAX - f->bytes);

		/* NOLINTNEXTLINE: an address in another process */
		f->from[f->n] = (struct iovec){(void *)(uintptr_t)(g->start + at), part};
		f->to[f->n] = (struct iovec){j->to + g->offset + at, part};
		f->n++;
		f->bytes += part;
		at += part;
		n -= part;
		if (f->n == RUNS_MAX || f->bytes == FETCH_MAX)
			r = fetch_now(j);
	}
	return r;
}

static bool is_own(uint64_t entry)
{
	return entry & (PAGE_PRESENT | PAGE_SWAPPED) && !(entry & PAGE_OF_FILE);
}

/* Runs of own pages among @n entries from page @first of the region on. */
static int fetch_runs(struct job *j, const struct region *g, uint64_t first, size_t n)
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
		r = fetch_add(j, g, (first + from) * j->page, (i - from) * j->page);
	}
	return r;
}

static int fetch_region(struct job *j, const struct region *g)
{
	uint64_t pages = g->bytes / j->page;
	int r = 0;

	for (uint64_t at = 0; at < pages && r == 0;) {
		size_t n = (size_t)MIN(pages - at, (uint64_t)ENTRIES);
		ssize_t got = sys_pread(j->pagemap_fd, j->entries, n * sizeof(*j->entries),
					(g->start / j->page + at) * sizeof(*j->entries));

		if (got <= 0)
			return got < 0 ? (int)got : -ESRCH; /* it died */
		n = (size_t)got / sizeof(*j->entries);
		r = fetch_runs(j, g, at, n);
		at += n;
	}
	return r;
}

/* A machine never gives a page back (it has no balloon): what was its own once stays so. */
static int copy_own(struct job *j)
{
	int r = find_regions(j);

	if (r < 0)
		return r;
	j->what = "read its memory";
	j->copied = 0;
	for (unsigned k = 0; k < j->n_regions && r == 0; k++)
		r = fetch_region(j, &j->regions[k]);
	return r < 0 ? r : fetch_now(j);
}

static bool is_zero(const char *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Pages of zeros, which a machine leaves where it only read, stay holes. */
static int write_chunk(struct job *j, size_t n, uint64_t at)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0;) {
		size_t from = i;

		while (i < n && !is_zero(j->buffer + i, (size_t)MIN(j->page, n - i)))
			i += (size_t)MIN(j->page, n - i);
		if (i > from)
			r = sys_pwrite_full(j->to_fd, j->buffer + from, i - from, at + from);
		else
			i += (size_t)MIN(j->page, n - i);
	}
	return r;
}

static int copy_extent(struct job *j, off_t at, off_t end)
{
	while (at < end) {
		ssize_t n = sys_pread(j->base_fd, j->buffer, (size_t)MIN(end - at, (off_t)CHUNK), (uint64_t)at);
		int r = n <= 0 ? (n < 0 ? (int)n : -EIO) : write_chunk(j, (size_t)n, (uint64_t)at);

		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

/* Extents are asked for by place: whoever shares the base may move its offset. */
static int copy_base(struct job *j)
{
	off_t at = 0, end = (off_t)j->bytes;

	j->what = "copy what it started from";
	while (at < end) {
		off_t data = lseek(j->base_fd, at, SEEK_DATA), hole;
		int r;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		hole = lseek(j->base_fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_extent(j, data, MIN(hole, end));
		if (r < 0)
			return r;
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

static int open_of(const struct job *j, const char *name)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/%s", j->pid, name);
	return sys_open(path, O_RDONLY);
}

/* What is left is to own the machine's user namespace, which lets us read its memory, and nothing else. */
static int give_up_powers(struct job *j)
{
	j->maps_fd = open_of(j, "maps");
	if (j->maps_fd < 0)
		return j->maps_fd;
	j->pagemap_fd = open_of(j, "pagemap");
	return j->pagemap_fd < 0 ? j->pagemap_fd : caps_limit(0);
}

static int begin(struct job *j)
{
	const int keep[] = {j->base_fd, j->to_fd, j->talk_fd};
	void *to;
	int r = sys_die_with_parent();

	j->what = "begin";
	(void)sys_close_all_but(keep, ARRAY_LEN(keep));
	(void)sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE);
	if (r == 0)
		r = give_up_powers(j);
	if (r < 0)
		return r;
	j->buffer = malloc(CHUNK);
	j->entries = malloc(ENTRIES * sizeof(*j->entries));
	to = mmap(NULL, j->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, j->to_fd, 0);
	if (!j->buffer || !j->entries || to == MAP_FAILED)
		return -ENOMEM;
	j->to = to;
	return 0;
}

/* Its own pages are copied once now, so that their places are there when it stands still. */
static int prepare(struct job *j)
{
	int r = begin(j);

	if (r == 0)
		r = copy_base(j);
	return r < 0 ? r : copy_own(j);
}

static _Noreturn void work(struct job *j)
{
	uint64_t begun;
	char go;
	int r = prepare(j);

	say(j, r, 0, 0);
	if (r < 0 || sys_await_readable(j->talk_fd) < 0 || sys_read_full(j->talk_fd, &go, 1) < 0)
		_exit(1);
	begun = sys_now_ns();
	r = copy_own(j);
	say(j, r, j->copied, (sys_now_ns() - begun) / NS_PER_US);
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
	c->talk_fd = sys_close(c->talk_fd);
	if (c->pidfd >= 0) {
		(void)sys_pidfd_signal(c->pidfd, SIGKILL);
		while (sys_pidfd_wait(c->pidfd, &how) == -EIO) /* only ever injected */
			;
	}
	c->pidfd = sys_close(c->pidfd);
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

	(void)err_set(&e, ERR_TIMEOUT, "copying the machine's memory took too long, or nobody came for the copy");
	fail(CONTAINER_OF(t, struct copier, late), &e);
}

static void set_late(struct copier *c, uint64_t ms)
{
	loop_timer_set(c->loop, &c->late, loop_now(c->loop) + ms * NS_PER_MS, on_late);
}

static void explain(const struct word *w, struct err *ret)
{
	if (w->code == EPERM || w->code == EACCES)
		(void)err_set(ret, ERR_UNSUPPORTED,
			      "this host does not let the keeper read a machine's memory (%s: %s); run hotcell as root",
			      w->what, strerror(w->code));
	else if (w->code == ESRCH || w->code == ENOENT)
		(void)err_set(ret, ERR_GONE, "the machine ended while its memory was copied (%s)", w->what);
	else
		(void)err_sys(ret, -w->code, "copy the machine's memory: %s", w->what);
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
		(void)err_set(&e, ERR_INTERNAL,
			      "the process that copies the machine's memory was killed: too little memory?");
		fail(c, &e);
	} else if (w.code) {
		w.what[sizeof(w.what) - 1] = '\0';
		explain(&w, &e);
		fail(c, &e);
	} else if (c->state == COPIER_PREPARING) {
		set_late(c, COPIER_IDLE_MS);
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
	struct job *j = mem_new(sizeof(*j)); /* too large for a stack */
	int r;

	*j = (struct job){.pid = pid, .base_fd = memory_fd, .bytes = bytes, .page = (uint64_t)sysconf(_SC_PAGESIZE)};
	*c = (struct copier){.loop = l, .ev = *ev, .pidfd = -1, .talk_fd = -1};
	c->to_fd = j->to_fd = sys_memfd("ram", MFD_ALLOW_SEALING);
	r = c->to_fd < 0 ? c->to_fd : 0;
	if (r == 0 && ftruncate(c->to_fd, (off_t)bytes) < 0)
		r = -errno;
	if (r < 0)
		r = err_sys(e, r, "make a memory file of %" PRIu64 " MiB", bytes / MIB);
	if (r == 0)
		r = start(c, j, e);
	free(j);
	if (r < 0) {
		(void)copier_free(c);
		return r;
	}
	set_late(c, COPIER_PREPARE_MS);
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
	set_late(c, COPIER_COPY_MS);
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
