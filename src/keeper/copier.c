/* keeper/copier.c - the process that copies, and the keeper's side of it */
#include "keeper/copier.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/jail_qemu.h"
#include "keeper/qemu_memory.h"
#include "loop/loop.h"
#include "sys/caps.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"

enum {
	STRIPE = 1 << 20, /* of the file: what a thread takes at a time */
	LANES_MAX = 4,	  /* threads that copy at once */
	REGIONS_MAX = 2 * QEMU_EXTENTS_MAX + 64, /* pieces in which a machine may map its memory */
	RUNS_MAX = 1024,  /* runs of pages fetched by one call: what the kernel takes */
	LINE_MAX_BYTES = 4096,
};

#define PAGE_PRESENT (UINT64_C(1) << 63)
#define PAGE_SWAPPED (UINT64_C(1) << 62)
#define PAGE_OF_FILE (UINT64_C(1) << 61)
#define PAGE_EXCLUSIVE (UINT64_C(1) << 56) /* nobody else maps it */

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

struct job;

/* A thread, and the stripes whose number modulo all lanes is its own. */
struct lane {
	struct job *job;
	unsigned n;
	int (*part)(struct lane *l); /* what it does now */
	char *buffer;		     /* STRIPE */
	uint64_t *entries;	     /* of the pages of a stripe */
	struct fetch fetch;
	uint64_t copied;
	const char *what; /* is being done */
	int result;
	pthread_t thread;
};

struct job {
	pid_t pid;
	int base_fd, to_fd, talk_fd;
	int maps_fd, pagemap_fd; /* of the machine: opened while we may */
	uint64_t bytes, page;
	struct region *regions; /* REGIONS_MAX */
	unsigned n_regions;
	char *to;     /* the new file, mapped: one copy less than writing to it */
	const char *what; /* is being done */
	unsigned n_lanes;
	struct lane lanes[LANES_MAX];
};

static bool is_of(const struct stat *st, dev_t dev, uint64_t inode)
{
	return st->st_dev == dev && st->st_ino == inode;
}

/* Its memory is the file's data and, in the file's holes, private zeros: both at the offset that is their place. */
static int take_line(struct job *j, const char *line, const struct stat *file, const struct stat *zero)
{
	uint64_t start, end, offset, inode;
	unsigned major_n, minor_n;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64, &start, &end, &offset, &major_n,
		   &minor_n, &inode) != 6)
		return 0;
	if (!is_of(file, makedev(major_n, minor_n), inode) && !is_of(zero, makedev(major_n, minor_n), inode))
		return 0;
	if (end <= start || offset >= j->bytes || end - start > j->bytes - offset || offset % j->page)
		return -ERANGE; /* COPIER-1 */
	if (j->n_regions == REGIONS_MAX)
		return -E2BIG;
	j->regions[j->n_regions++] = (struct region){start, end - start, offset};
	return 0;
}

/* What it maps in some other way would be missing in its copy. */
static int check_regions(const struct job *j)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < j->n_regions; i++)
		bytes += j->regions[i].bytes;
	return j->n_regions == 0 ? -ENOENT : bytes == j->bytes ? 0 : -ERANGE;
}

static int find_regions(struct job *j)
{
	char line[LINE_MAX_BYTES];
	struct stat file, zero;
	int r = 0, fd;
	FILE *f;

	j->what = "look at its address space";
	if (fstat(j->base_fd, &file) < 0 || stat(QEMU_ZERO, &zero) < 0 || lseek(j->maps_fd, 0, SEEK_SET) < 0)
		return -errno;
	fd = sys_dup(j->maps_fd);
	f = fd < 0 ? NULL : fdopen(fd, "r");
	if (!f) {
		(void)sys_close(fd);
		return -EMFILE;
	}
	j->n_regions = 0;
	while (r == 0 && fgets(line, sizeof(line), f))
		r = take_line(j, line, &file, &zero);
	(void)fclose(f);
	return r < 0 ? r : check_regions(j);
}

static int fetch_now(struct lane *l)
{
	struct fetch *f = &l->fetch;
	ssize_t got;

	if (f->n == 0)
		return 0;
	got = process_vm_readv(l->job->pid, f->to, f->n, f->from, f->n, 0);
	if (got < 0)
		return -errno;
	if ((size_t)got != f->bytes)
		return -EFAULT; /* it unmapped some of it, or there is no memory for the copy */
	l->copied += f->bytes;
	f->n = 0;
	f->bytes = 0;
	return 0;
}

/* [at, at + n) of the region to the same place of the file; fetched by the next fetch_now(). */
static int fetch_add(struct lane *l, const struct region *g, uint64_t at, uint64_t n)
{
	struct fetch *f = &l->fetch;

	/* NOLINTNEXTLINE: an address in another process */
	f->from[f->n] = (struct iovec){(void *)(uintptr_t)(g->start + at), (size_t)n};
	f->to[f->n] = (struct iovec){l->job->to + g->offset + at, (size_t)n};
	f->n++;
	f->bytes += n;
	return f->n == RUNS_MAX ? fetch_now(l) : 0;
}

/* What the copy takes of a page: nothing, it is the file's or was never touched; all; what it is seen to be. */
enum kind { KIND_NONE, KIND_OWN, KIND_ZERO };

/* A hole that was only read shows the kernel's page of zeros, which many map. */
static enum kind kind_of(uint64_t entry)
{
	if (!(entry & (PAGE_PRESENT | PAGE_SWAPPED)) || entry & PAGE_OF_FILE)
		return KIND_NONE;
	return entry & (PAGE_SWAPPED | PAGE_EXCLUSIVE) ? KIND_OWN : KIND_ZERO;
}

static bool is_zero(const char *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Pages of zeros, which a machine leaves where it only read, stay holes. */
static int write_chunk(const struct lane *l, size_t n, uint64_t at)
{
	const struct job *j = l->job;
	int r = 0;

	for (size_t i = 0; i < n && r == 0;) {
		size_t from = i;

		while (i < n && !is_zero(l->buffer + i, (size_t)MIN(j->page, n - i)))
			i += (size_t)MIN(j->page, n - i);
		if (i > from)
			r = sys_pwrite_full(j->to_fd, l->buffer + from, i - from, at + from);
		else
			i += (size_t)MIN(j->page, n - i);
	}
	return r;
}

/* [at, at + n) of the region, within a stripe: probably zeros, and then to be holes; looked at all the same. */
static int fetch_zeros(const struct lane *l, const struct region *g, uint64_t at, size_t n)
{
	const struct job *j = l->job;
	struct iovec to = {l->buffer, n};
	/* NOLINTNEXTLINE: an address in another process */
	struct iovec from = {(void *)(uintptr_t)(g->start + at), n};
	ssize_t got = process_vm_readv(j->pid, &to, 1, &from, 1, 0);

	if (got < 0)
		return -errno;
	if ((size_t)got != n)
		return -EFAULT;
	if (fallocate(j->to_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(g->offset + at), (off_t)n) < 0)
		return -errno;
	return write_chunk(l, n, g->offset + at);
}

/* Runs of one kind among @n entries from page @first of the region on. */
static int fetch_runs(struct lane *l, const struct region *g, uint64_t first, size_t n)
{
	uint64_t page = l->job->page;
	int r = 0;

	for (size_t i = 0, from = 0; i < n && r == 0; from = i) {
		enum kind kind = kind_of(l->entries[from]);

		while (i < n && kind_of(l->entries[i]) == kind)
			i++;
		if (kind == KIND_OWN)
			r = fetch_add(l, g, (first + from) * page, (i - from) * page);
		else if (kind == KIND_ZERO)
			r = fetch_zeros(l, g, (first + from) * page, (i - from) * (size_t)page);
	}
	return r;
}

/* The own pages of the region from @at on, within a stripe. */
static int fetch_stripe(struct lane *l, const struct region *g, uint64_t at, uint64_t bytes)
{
	const struct job *j = l->job;
	uint64_t first = at / j->page;
	size_t n = (size_t)(bytes / j->page);
	ssize_t got = sys_pread(j->pagemap_fd, l->entries, n * sizeof(*l->entries),
				(g->start / j->page + first) * sizeof(*l->entries));

	if (got < 0)
		return (int)got;
	if ((size_t)got != n * sizeof(*l->entries))
		return -ESRCH; /* it died */
	return fetch_runs(l, g, first, n);
}

/* The end of the stripe of @at, a place in the file. */
static uint64_t stripe_end(uint64_t at)
{
	return at - at % STRIPE + STRIPE;
}

static bool is_mine(const struct lane *l, uint64_t at)
{
	return at / STRIPE % l->job->n_lanes == l->n;
}

static int fetch_region(struct lane *l, const struct region *g)
{
	uint64_t end = g->offset + g->bytes;
	int r = 0;

	for (uint64_t at = g->offset, next; at < end && r == 0; at = next) {
		next = MIN(stripe_end(at), end);
		if (is_mine(l, at))
			r = fetch_stripe(l, g, at - g->offset, next - at);
	}
	return r;
}

/* A machine never gives a page back (it has no balloon): what was its own once stays so. */
static int copy_own(struct lane *l)
{
	const struct job *j = l->job;
	int r = 0;

	l->what = "read its memory";
	for (unsigned k = 0; k < j->n_regions && r == 0; k++)
		r = fetch_region(l, &j->regions[k]);
	return r < 0 ? r : fetch_now(l);
}

static int copy_extent(const struct lane *l, off_t at, off_t end)
{
	while (at < end) {
		ssize_t n = sys_pread(l->job->base_fd, l->buffer, (size_t)(end - at), (uint64_t)at);
		int r = n <= 0 ? (n < 0 ? (int)n : -EIO) : write_chunk(l, (size_t)n, (uint64_t)at);

		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

/* Extents are asked for by place: whoever shares the base may move its offset. */
static int copy_stripe(const struct lane *l, off_t at, off_t end)
{
	while (at < end) {
		off_t data = lseek(l->job->base_fd, at, SEEK_DATA), hole;
		int r;

		if (data < 0)
			return errno == ENXIO ? 0 : -errno;
		if (data >= end)
			return 0;
		hole = lseek(l->job->base_fd, data, SEEK_HOLE);
		if (hole < 0)
			return -errno;
		r = copy_extent(l, data, MIN(hole, end));
		if (r < 0)
			return r;
		at = hole;
	}
	return 0;
}

static int copy_base(struct lane *l)
{
	uint64_t bytes = l->job->bytes;
	int r = 0;

	l->what = "copy what it started from";
	for (uint64_t at = 0; at < bytes && r == 0; at += STRIPE)
		if (is_mine(l, at))
			r = copy_stripe(l, (off_t)at, (off_t)MIN(at + STRIPE, bytes));
	return r;
}

/* Its own pages are copied once now, so that their places are there when it stands still. */
static int prepare(struct lane *l)
{
	int r = copy_base(l);

	return r < 0 ? r : copy_own(l);
}

static void *run(void *arg)
{
	struct lane *l = arg;

	l->copied = 0;
	l->result = l->part(l);
	return NULL;
}

/* @part in all lanes at once: memory is copied faster by several processors. */
static int in_lanes(struct job *j, int (*part)(struct lane *l))
{
	unsigned started = 0;
	int r;

	j->what = "start a thread";
	do {
		j->lanes[started].part = part;
		r = pthread_create(&j->lanes[started].thread, NULL, run, &j->lanes[started]);
	} while (r == 0 && ++started < j->n_lanes);
	r = -r;
	for (unsigned i = 0; i < started; i++) {
		struct lane *l = &j->lanes[i];

		(void)pthread_join(l->thread, NULL);
		if (r == 0 && l->result < 0) {
			r = l->result;
			j->what = l->what;
		}
	}
	return r;
}

static uint64_t copied(const struct job *j)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < j->n_lanes; i++)
		n += j->lanes[i].copied;
	return n;
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

static int make_lanes(struct job *j)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	j->regions = calloc(REGIONS_MAX, sizeof(*j->regions));
	if (!j->regions)
		return -ENOMEM;
	j->n_lanes = processors > 1 ? (unsigned)MIN(processors, (long)LANES_MAX) : 1;
	for (unsigned i = 0; i < j->n_lanes; i++) {
		struct lane *l = &j->lanes[i];

		l->job = j;
		l->n = i;
		l->buffer = malloc(STRIPE);
		l->entries = malloc(STRIPE / j->page * sizeof(*l->entries));
		if (!l->buffer || !l->entries)
			return -ENOMEM;
	}
	return 0;
}

static int begin(struct job *j)
{
	const int keep[] = {j->base_fd, j->to_fd, j->talk_fd};
	void *to;
	int r = sys_die_with_parent();

	j->what = "begin";
	(void)prctl(PR_SET_NAME, "hotcell-copier", 0, 0, 0);
	(void)sys_close_all_but(keep, ARRAY_LEN(keep));
	(void)sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE);
	if (r == 0)
		r = give_up_powers(j);
	if (r == 0)
		r = make_lanes(j);
	if (r < 0)
		return r;
	to = mmap(NULL, j->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, j->to_fd, 0);
	if (to == MAP_FAILED)
		return -ENOMEM;
	j->to = to;
	return find_regions(j);
}

/* A machine maps its memory where it did when it began: one that does not spoils its own copy. */
static _Noreturn void work(struct job *j)
{
	uint64_t begun;
	char go;
	int r = begin(j);

	if (r == 0)
		r = in_lanes(j, prepare);
	say(j, r, 0, 0);
	if (r < 0 || sys_await_readable(j->talk_fd) < 0 || sys_read_full(j->talk_fd, &go, 1) < 0)
		_exit(1);
	begun = sys_now_ns();
	r = in_lanes(j, copy_own);
	say(j, r, copied(j), (sys_now_ns() - begun) / NS_PER_US);
	_exit(r < 0);
}

/* ---- in the keeper ---- */

/* PREPARING -> PREPARED -> COPYING -> COPIED -> DONE; any -> DONE by a failure */
enum copier_state { COPIER_PREPARING, COPIER_PREPARED, COPIER_COPYING, COPIER_COPIED, COPIER_DONE };

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
	loop_io_del(c->loop, &c->io); /* it ends */
	set_late(c, COPIER_IDLE_MS);
	c->state = COPIER_COPIED;
	c->ev.copied(c->ev.arg, w->bytes, w->us);
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

int copier_take(struct copier *c, int *ret_fd, struct err *e)
{
	int r;

	if (c->state != COPIER_COPIED)
		return err_set(e, ERR_CONFLICT, "the copy of the machine's memory is not complete");
	/* It is dead before the seal: nobody writes any more, and who might could not. */
	stop(c);
	r = jail_qemu_memory_seal(c->to_fd, e);
	if (r == 0)
		*ret_fd = c->to_fd;
	return r;
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
