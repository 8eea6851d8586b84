/*
 * engine/t_host.h - for t_*.c only: a host whose disks and sets are modelled, under the rig of t_rig.h
 *
 * The doubles of t_rig.h say yes or no. These keep what snap/layers.h and snap/set.h promise:
 * every layer and memory is a file of its own, known by its inode, so a machine that is started
 * with the memory of one moment and the disk of another one is caught, in whatever test it happens.
 * What is caught (host_wrong) fails host_free().
 *
 * Files and sets outlive the engine, as on a disk. Called on worker threads; one lock.
 */
#pragma once
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/mem.h"
#include "engine/t_rig.h"

enum { HOST_DISKS = 128, HOST_SETS = 64, HOST_MEMORIES = 512, HOST_MACHINES = RIG_AGENTS };

enum host_op {
	HOST_IMAGE, HOST_DISK_MAKE, HOST_DISK_REMOVE, HOST_OPEN, HOST_ADD, HOST_FLATTEN, HOST_SEAL, HOST_DROP,
	HOST_LINK, HOST_ROLLBACK, HOST_SAVE, HOST_LOAD, HOST_REMOVE, HOST_OPS,
};

/* A disk: files, oldest first. */
struct host_chain {
	unsigned n;
	int fds[LIMIT_DISK_LAYERS];
};

struct host_disk {
	bool is_used;
	struct id id;
	struct host_chain chain;
	unsigned sealed; /* of its layers, those that may be shared: LAYERS-3 */
};

/* A memory, and the disk it goes with. */
struct host_memory {
	ino_t file;
	bool is_pause; /* goes on in that very disk; others in one with a layer on top */
	unsigned n;
	ino_t layers[LIMIT_DISK_LAYERS];
};

struct host_set {
	bool is_used;
	struct snap_manifest m;
	struct host_chain chain; /* none of a pause */
	struct host_memory memory;
};

struct host_machine {
	struct id id;
	struct machine *m; /* NULL: none */
	bool runs;	   /* writes to `top` */
	ino_t top;
	int node; /* of it */
	struct driver_capture *copy;
	void (*copied)(struct driver_req *r, const struct err *why);
	struct driver_req *end;
	void (*ended)(struct driver_req *r, const struct err *why);
};

struct host {
	struct rig rig; /* first: the doubles of t_rig.h find it */
	pthread_mutex_t lock;
	struct host_disk disks[HOST_DISKS];
	struct host_set sets[HOST_SETS];
	struct host_memory memories[HOST_MEMORIES];
	unsigned n_memories;
	struct host_machine machines[HOST_MACHINES];
	bool copy_is_layered; /* a capture that fails has moved the machine to its new layer */
	char image_warm[64], image_interpreters[64];
	size_t n_warm, n_interpreters;
	/* read and written on both sides */
	_Atomic int fails[HOST_OPS];   /* ERR_x; 0: not */
	_Atomic bool blocks[HOST_OPS]; /* waits, then does it */
	_Atomic unsigned calls[HOST_OPS];
	_Atomic bool is_dead; /* kill -9: nothing has an effect any more */
	char wrong[160];
};

/* The driver's calls have no argument a test could own. */
static inline struct host **host_of_tests(void)
{
	static struct host *h;

	return &h;
}

static inline struct host *host_of_test(void)
{
	return *host_of_tests();
}

/* ---- files ---- */

static inline ino_t host_ino(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

[[gnu::format(printf, 2, 3)]] static inline void host_is_wrong(struct host *h, const char *fmt, ...)
{
	va_list ap;

	if (h->wrong[0])
		return;
	va_start(ap, fmt);
	(void)vsnprintf(h->wrong, sizeof(h->wrong), fmt, ap);
	va_end(ap);
}

static inline int host_new_file(void)
{
	return memfd_create("t_host", MFD_CLOEXEC);
}

static inline void host_chain_close(struct host_chain *c)
{
	while (c->n)
		(void)close(c->fds[--c->n]);
}

static inline void host_chain_copy(const struct host_chain *from, unsigned n, struct host_chain *to)
{
	for (to->n = 0; to->n < n; to->n++)
		to->fds[to->n] = fcntl(from->fds[to->n], F_DUPFD_CLOEXEC, 0);
}

static inline void host_chain_open(const struct host_chain *c, struct layers *ret)
{
	*ret = (struct layers)LAYERS_INIT;
	for (; ret->n < c->n; ret->n++)
		ret->fds[ret->n] = fcntl(c->fds[ret->n], F_DUPFD_CLOEXEC, 0);
}

/* ---- what there is ---- */

static inline struct host_disk *host_disk(struct host *h, const struct id *id)
{
	for (unsigned i = 0; i < HOST_DISKS; i++)
		if (h->disks[i].is_used && id_eq(&h->disks[i].id, id))
			return &h->disks[i];
	return NULL;
}

static inline struct host_set *host_set(struct host *h, const struct id *id)
{
	for (unsigned i = 0; i < HOST_SETS; i++)
		if (h->sets[i].is_used && id_eq(&h->sets[i].m.id, id))
			return &h->sets[i];
	return NULL;
}

static inline struct host_disk *host_disk_new(struct host *h, const struct id *id)
{
	for (unsigned i = 0; i < HOST_DISKS; i++)
		if (!h->disks[i].is_used) {
			h->disks[i] = (struct host_disk){.is_used = true, .id = *id};
			return &h->disks[i];
		}
	abort();
}

static inline struct host_set *host_set_new(struct host *h, const struct snap_manifest *m)
{
	for (unsigned i = 0; i < HOST_SETS; i++)
		if (!h->sets[i].is_used) {
			h->sets[i] = (struct host_set){.is_used = true, .m = *m};
			return &h->sets[i];
		}
	abort();
}

static inline unsigned host_disks(struct host *h)
{
	unsigned n = 0;

	for (unsigned i = 0; i < HOST_DISKS; i++)
		n += h->disks[i].is_used;
	return n;
}

static inline unsigned host_sets(struct host *h)
{
	unsigned n = 0;

	for (unsigned i = 0; i < HOST_SETS; i++)
		n += h->sets[i].is_used;
	return n;
}

static inline struct host_memory *host_memory(struct host *h, int fd)
{
	ino_t file = host_ino(fd);

	for (unsigned i = h->n_memories; i-- > 0;)
		if (h->memories[i].file == file)
			return &h->memories[i];
	return NULL;
}

static inline void host_remember(struct host *h, const struct host_memory *m)
{
	struct host_memory *old = NULL;

	for (unsigned i = 0; i < h->n_memories; i++)
		if (h->memories[i].file == m->file)
			old = &h->memories[i];
	if (!old && h->n_memories == HOST_MEMORIES)
		abort();
	*(old ? old : &h->memories[h->n_memories++]) = *m;
}

static inline struct host_memory host_memory_of(int fd, const struct host_chain *c, unsigned n, bool is_pause)
{
	struct host_memory m = {.file = host_ino(fd), .is_pause = is_pause, .n = n};

	for (unsigned i = 0; i < n; i++)
		m.layers[i] = host_ino(c->fds[i]);
	return m;
}

/* Is the file written to by a machine now? */
static inline bool host_is_written(struct host *h, ino_t file)
{
	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (h->machines[i].m && h->machines[i].runs && h->machines[i].top == file)
			return true;
	return false;
}

static inline struct host_machine *host_machine(struct host *h, const struct id *id)
{
	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (h->machines[i].m && id_eq(&h->machines[i].id, id))
			return &h->machines[i];
	return NULL;
}

static inline struct host_disk *host_folder_disk(struct host *h, const char *from)
{
	struct id id;

	return strncmp(from, "sandboxes/", 10) == 0 && id_parse(from + 10, strlen(from + 10), &id) == 0
		       ? host_disk(h, &id) : NULL;
}

static inline struct host_chain *host_folder(struct host *h, const char *from)
{
	const char *slash = strchr(from, '/');
	struct host_disk *d;
	struct host_set *s;
	struct id id;

	if (!slash || id_parse(slash + 1, strlen(slash + 1), &id) < 0)
		return NULL;
	d = strncmp(from, "sandboxes/", 10) == 0 ? host_disk(h, &id) : NULL;
	s = strncmp(from, "snapshots/", 10) == 0 ? host_set(h, &id) : NULL;
	return d ? &d->chain : s ? &s->chain : NULL;
}

/* ---- operations, on worker threads ---- */

/* Return: 0, and the lock is held; host_leave(). */
static inline int host_enter(struct host *h, enum host_op op, struct err *e)
{
	h->calls[op]++;
	while (h->blocks[op])
		(void)usleep(100);
	if (h->is_dead)
		return err_set(e, ERR_INTERNAL, "the daemon is dead");
	if (h->fails[op])
		return err_set(e, h->fails[op], "the disk is full");
	(void)pthread_mutex_lock(&h->lock);
	return 0;
}

static inline int host_leave(struct host *h, int r)
{
	(void)pthread_mutex_unlock(&h->lock);
	return r;
}

static inline int host_image_open(void *arg, const char *ref, struct image *ret, struct err *e)
{
	struct host *h = arg;
	int r = host_enter(h, HOST_IMAGE, e);

	if (r < 0)
		return r;
	(void)host_leave(h, 0);
	r = rig_image_open(arg, ref, ret, e);
	if (r == 0) {
		ret->warm = mem_dup_strv((struct strv){h->image_warm, h->n_warm});
		ret->interpreters = mem_dup_strv((struct strv){h->image_interpreters, h->n_interpreters});
	}
	return r;
}

static inline int host_disk_make(void *arg, const char *text, uint64_t mb, int *ret_fd, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;
	struct id id;

	T_UNUSED(mb);
	if (host_enter(h, HOST_DISK_MAKE, e) < 0)
		return -e->code;
	if (id_parse(text, strlen(text), &id) < 0 || host_disk(h, &id))
		return host_leave(h, err_set(e, ERR_CONFLICT, "there is a disk"));
	d = host_disk_new(h, &id);
	d->chain.fds[d->chain.n++] = host_new_file();
	*ret_fd = fcntl(d->chain.fds[0], F_DUPFD_CLOEXEC, 0);
	return host_leave(h, 0);
}

static inline int host_disk_remove(void *arg, const char *text, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;
	struct id id;

	if (host_enter(h, HOST_DISK_REMOVE, e) < 0)
		return -e->code;
	d = id_parse(text, strlen(text), &id) == 0 ? host_disk(h, &id) : NULL;
	if (d && host_machine(h, &id))
		host_is_wrong(h, "the disk of a machine was removed");
	if (d) {
		host_chain_close(&d->chain);
		d->is_used = false;
	}
	return host_leave(h, 0);
}

static inline bool host_is_shared(struct host *h, ino_t file)
{
	for (unsigned i = 0; i < HOST_SETS; i++)
		for (unsigned k = 0; h->sets[i].is_used && k < h->sets[i].chain.n; k++)
			if (host_ino(h->sets[i].chain.fds[k]) == file)
				return true;
	return false;
}

static inline int host_layers_open(void *arg, const struct id *id, struct layers *ret, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;

	if (host_enter(h, HOST_OPEN, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	if (!d)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no disk"));
	if (host_is_shared(h, host_ino(d->chain.fds[d->chain.n - 1])))
		return host_leave(h, err_set(e, ERR_CONFLICT, "its last layer is a snapshot's"));
	host_chain_open(&d->chain, ret);
	return host_leave(h, 0);
}

static inline int host_layers_add(void *arg, const struct id *id, unsigned n, uint64_t bytes, int *ret_fd,
				  struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;

	T_UNUSED(bytes);
	if (host_enter(h, HOST_ADD, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	if (!d)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no disk"));
	if (n >= LIMIT_DISK_LAYERS)
		return host_leave(h, err_set(e, ERR_LIMIT, "too many layers"));
	if (n < d->chain.n)
		return host_leave(h, err_set(e, ERR_CONFLICT, "there is a layer %u", n));
	if (n > d->chain.n)
		host_is_wrong(h, "layer %u was added to %u", n, d->chain.n);
	d->chain.fds[d->chain.n++] = host_new_file();
	*ret_fd = fcntl(d->chain.fds[d->chain.n - 1], F_DUPFD_CLOEXEC, 0);
	return host_leave(h, 0);
}

static inline int host_layers_flatten(void *arg, const struct id *id, unsigned n, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;

	if (host_enter(h, HOST_FLATTEN, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	if (!d || (d->chain.n < n && d->chain.n != 2))
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no layer %u", n - 1));
	while (d->chain.n > 2) {
		(void)close(d->chain.fds[d->chain.n - 2]);
		d->chain.fds[d->chain.n - 2] = d->chain.fds[d->chain.n - 1];
		d->chain.n--;
	}
	d->sealed = d->sealed ? 1 : 0;
	return host_leave(h, 0);
}

static inline int host_layers_seal(void *arg, const struct id *id, unsigned n, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;

	if (host_enter(h, HOST_SEAL, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	if (!d || n >= d->chain.n)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no layer %u above those to be sealed", n));
	d->sealed = n;
	return host_leave(h, 0);
}

static inline int host_layers_drop(void *arg, const struct id *id, unsigned n, struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;

	if (host_enter(h, HOST_DROP, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	if (n == 0)
		host_is_wrong(h, "layer 0 was dropped");
	if (!d || n == 0 || n >= d->chain.n)
		return host_leave(h, 0);
	if (n + 1 != d->chain.n || host_is_written(h, host_ino(d->chain.fds[n])))
		host_is_wrong(h, "layer %u of %u was dropped, and somebody has it", n, d->chain.n);
	(void)close(d->chain.fds[--d->chain.n]);
	return host_leave(h, 0);
}

/* Layers 0 to n - 1 of @from and a new one on top. */
static inline void host_stack(const struct host_chain *from, unsigned n, struct host_chain *to)
{
	host_chain_copy(from, n, to);
	to->fds[to->n++] = host_new_file();
}

static inline int host_layers_link(void *arg, const char *from, unsigned n, const struct id *to, uint64_t bytes,
				   struct layers *ret, struct err *e)
{
	struct host *h = arg;
	struct host_chain *c;
	struct host_disk *d;

	T_UNUSED(bytes);
	if (host_enter(h, HOST_LINK, e) < 0)
		return -e->code;
	c = host_folder(h, from);
	if (!c || c->n < n)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "%s has no layer %u", from, n));
	if (host_disk(h, to))
		return host_leave(h, err_set(e, ERR_CONFLICT, "there is a disk"));
	if (n + 1 > LIMIT_DISK_LAYERS)
		return host_leave(h, err_set(e, ERR_LIMIT, "too many layers"));
	for (unsigned i = 0; i < n; i++)
		if (host_is_written(h, host_ino(c->fds[i])))
			host_is_wrong(h, "layer %u of %s is shared and written to", i, from);
	d = host_folder_disk(h, from);
	if (d && d->sealed < n)
		host_is_wrong(h, "of %s, %u layers are shared and %u sealed", from, n, d->sealed);
	d = host_disk_new(h, to);
	d->sealed = n;
	host_stack(c, n, &d->chain);
	host_chain_open(&d->chain, ret);
	return host_leave(h, 0);
}

static inline int host_layers_rollback(void *arg, const struct id *id, const struct id *set, unsigned n,
				       uint64_t bytes, struct layers *ret, struct err *e)
{
	struct host *h = arg;
	struct host_chain new = {0};
	struct host_disk *d;
	struct host_set *s;

	T_UNUSED(bytes);
	if (host_enter(h, HOST_ROLLBACK, e) < 0)
		return -e->code;
	d = host_disk(h, id);
	s = host_set(h, set);
	if (!d || !s || s->chain.n < n)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no such disk or snapshot"));
	if (host_machine(h, id))
		host_is_wrong(h, "the disk of a machine was put back");
	host_stack(&s->chain, n, &new);
	host_chain_close(&d->chain);
	d->chain = new;
	d->sealed = n;
	host_chain_open(&d->chain, ret);
	return host_leave(h, 0);
}

static inline int host_set_save(void *arg, struct snap_manifest *m, int memory_fd, int state_fd, const char *from,
				struct err *e)
{
	struct host *h = arg;
	struct host_disk *d;
	struct host_chain *c;
	struct host_set *s;

	if (host_enter(h, HOST_SAVE, e) < 0)
		return -e->code;
	d = host_disk(h, &m->id);
	c = from ? host_folder(h, from) : d ? &d->chain : NULL;
	if (host_set(h, &m->id))
		return host_leave(h, err_set(e, ERR_CONFLICT, "there is a set of this id"));
	if (!c || c->n < m->layers || memory_fd < 0 || state_fd < 0)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is nothing to save"));
	for (unsigned i = 0; i < m->layers; i++)
		if (host_is_written(h, host_ino(c->fds[i])))
			host_is_wrong(h, "a %s has layer %u, which is written to", m->kind, i);
	m->memory_bytes = MIB;
	s = host_set_new(h, m);
	if (from)
		host_chain_copy(c, (unsigned)m->layers, &s->chain);
	s->memory = host_memory_of(memory_fd, c, from ? (unsigned)m->layers : c->n, !from);
	host_remember(h, &s->memory);
	return host_leave(h, 0);
}

static inline int host_set_load(void *arg, const struct id *id, struct snap_set *ret, struct err *e)
{
	struct host *h = arg;
	struct host_memory m;
	struct host_set *s;

	if (host_enter(h, HOST_LOAD, e) < 0)
		return -e->code;
	s = host_set(h, id);
	if (!s)
		return host_leave(h, err_set(e, ERR_NOT_FOUND, "there is no such set"));
	ret->manifest = s->m;
	ret->memory_fd = host_new_file();
	ret->state_fd = host_new_file();
	m = s->memory;
	m.file = host_ino(ret->memory_fd);
	host_remember(h, &m);
	return host_leave(h, 0);
}

static inline int host_set_disk_check(void *arg, const struct id *id, struct err *e)
{
	struct host *h = arg;

	if (host_enter(h, HOST_LOAD, e) < 0)
		return -e->code;
	return host_leave(h, host_set(h, id) ? 0 : err_set(e, ERR_NOT_FOUND, "there is no such set"));
}

static inline int host_set_remove(void *arg, const struct id *id, struct err *e)
{
	struct host *h = arg;
	struct host_set *s;

	if (host_enter(h, HOST_REMOVE, e) < 0)
		return -e->code;
	s = host_set(h, id);
	if (s) {
		host_chain_close(&s->chain);
		s->is_used = false;
	}
	return host_leave(h, 0);
}

static inline int host_set_each(void *arg,
				void (*each)(void *each_arg, const struct id *id, const struct snap_manifest *m,
					     const struct err *why),
				void *each_arg, struct err *e)
{
	struct host *h = arg;

	T_UNUSED(e);
	for (unsigned i = 0; i < HOST_SETS; i++)
		if (h->sets[i].is_used)
			each(each_arg, &h->sets[i].m.id, &h->sets[i].m, NULL);
	return 0;
}

/* ---- machines, on the loop ---- */

/* The memory and the disk are of one moment; nobody else writes to the disk. */
static inline void host_started(struct host *h, const struct machine_spec *s)
{
	const struct host_memory *m = s->memory_fd >= 0 ? host_memory(h, s->memory_fd) : NULL;
	ino_t top = s->n_layers ? host_ino(s->layers[s->n_layers - 1]) : 0;

	if (s->n_layers == 0 || host_is_shared(h, top) || host_is_written(h, top))
		host_is_wrong(h, "a machine was started on a disk that it may not write to");
	if (s->memory_fd < 0)
		return;
	if (!m || s->state_fd < 0) {
		host_is_wrong(h, "a machine was started with a memory that nobody saved");
		return;
	}
	if (s->n_layers != m->n + !m->is_pause)
		host_is_wrong(h, "memory and disk are of two moments: %u layers, not %u", s->n_layers,
			      m->n + !m->is_pause);
	for (unsigned i = 0; i < MIN(m->n, s->n_layers); i++)
		if (host_ino(s->layers[i]) != m->layers[i])
			host_is_wrong(h, "memory and disk are of two moments: layer %u", i);
}

static inline struct host_machine *host_machine_of(const struct machine *m)
{
	struct host *h = host_of_test();

	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (h->machines[i].m == m)
			return &h->machines[i];
	return NULL;
}

static inline int host_driver_start(struct machine *m, const struct machine_spec *s, struct driver_req *r,
				    struct err *e)
{
	struct host *h = host_of_test();
	int got;

	(void)pthread_mutex_lock(&h->lock);
	host_started(h, s);
	(void)pthread_mutex_unlock(&h->lock);
	got = driver_null.start(m, s, r, e);
	if (got < 0)
		return got;
	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (!h->machines[i].m) {
			h->machines[i] = (struct host_machine){
				.id = s->id, .m = m, .runs = true, .node = (int)s->n_layers - 1,
				.top = host_ino(s->layers[s->n_layers - 1])};
			return 0;
		}
	abort();
}

static inline int host_driver_adopt(struct loop *l, struct keeper *k, const struct id *id,
				    const struct machine_events *ev, struct driver_req *r, struct machine **ret,
				    struct err *e)
{
	struct host_machine *hm = host_machine(host_of_test(), id);
	int got = driver_null.adopt(l, k, id, ev, r, ret, e);

	if (got == 0 && hm) {
		hm->m = *ret;
		hm->runs = true;
	}
	return got;
}

static inline int host_driver_top(const struct machine *m)
{
	const struct host_machine *hm = host_machine_of(m);

	return hm ? hm->node : -1;
}

static inline void host_copied(struct driver_req *r, const struct err *why)
{
	struct host *h = host_of_test();
	struct driver_capture *c = CONTAINER_OF(r, struct driver_capture, req);
	struct host_machine *hm = NULL;
	struct host_memory m;
	struct host_disk *d;

	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (h->machines[i].copy == c)
			hm = &h->machines[i];
	if (!hm)
		abort();
	(void)pthread_mutex_lock(&h->lock);
	d = host_disk(h, &hm->id);
	hm->copy = NULL;
	if (why && h->copy_is_layered && c->overlay_fd >= 0)
		c->is_layered = true;
	if (c->is_layered) {
		hm->top = host_ino(c->overlay_fd);
		hm->node++;
	}
	if (!why && d) {
		m = host_memory_of(c->memory_fd, &d->chain, d->chain.n - c->is_layered, false);
		host_remember(h, &m);
	}
	if (!why && c->stay_stopped)
		hm->runs = false;
	(void)pthread_mutex_unlock(&h->lock);
	r->done = hm->copied;
	r->done(r, why);
}

static inline void host_driver_capture_now(struct machine *m, const struct err *why)
{
	struct host *h = host_of_test();
	struct host_machine *hm = host_machine_of(m);

	for (unsigned i = 0; !why && i < h->rig.n_agents; i++) {
		const struct agent_double *a = &h->rig.agents[i];

		if (hm && a->link && id_eq(&a->id, &hm->id) && !a->is_frozen)
			host_is_wrong(h, "a workload that runs was copied");
	}
	driver_null.capture_now(m, why);
}

static inline int host_driver_capture(struct machine *m, struct driver_capture *c, struct err *e)
{
	struct host_machine *hm = host_machine_of(m);
	void (*done)(struct driver_req *r, const struct err *why) = c->req.done;
	int got;

	c->req.done = host_copied;
	got = driver_null.capture(m, c, e);
	if (got < 0)
		c->req.done = done;
	else
		hm->copy = c, hm->copied = done;
	return got;
}

static inline int host_driver_resume(struct machine *m, struct driver_req *r, struct err *e)
{
	struct host_machine *hm = host_machine_of(m);
	int got = driver_null.resume(m, r, e);

	if (got == 0)
		hm->runs = true;
	return got;
}

static inline void host_ended(struct driver_req *r, const struct err *why)
{
	struct host *h = host_of_test();
	struct host_machine *hm = NULL;
	void (*done)(struct driver_req *r, const struct err *why);

	for (unsigned i = 0; i < HOST_MACHINES; i++)
		if (h->machines[i].end == r)
			hm = &h->machines[i];
	if (!hm)
		abort();
	done = hm->ended;
	(void)pthread_mutex_lock(&h->lock);
	*hm = (struct host_machine){0};
	(void)pthread_mutex_unlock(&h->lock);
	r->done = done;
	done(r, why);
}

static inline void host_driver_destroy(struct machine *m, struct driver_req *r)
{
	struct host_machine *hm = host_machine_of(m);

	if (hm) {
		hm->runs = false;
		hm->end = r;
		hm->ended = r->done;
		r->done = host_ended;
	}
	driver_null.destroy(m, r);
}

/* ---- begin and end ---- */

static inline struct host *host_new(void)
{
	struct host *h = mem_new(sizeof(*h));

	*host_of_tests() = h;
	rig_begin(&h->rig);
	(void)pthread_mutex_init(&h->lock, NULL);
	h->rig.host.image_open = host_image_open;
	h->rig.host.disk_make = host_disk_make;
	h->rig.host.disk_remove = host_disk_remove;
	h->rig.host.layers_open = host_layers_open;
	h->rig.host.layers_add = host_layers_add;
	h->rig.host.layers_flatten = host_layers_flatten;
	h->rig.host.layers_seal = host_layers_seal;
	h->rig.host.layers_drop = host_layers_drop;
	h->rig.host.layers_link = host_layers_link;
	h->rig.host.layers_rollback = host_layers_rollback;
	h->rig.host.set_save = host_set_save;
	h->rig.host.set_load = host_set_load;
	h->rig.host.set_disk_check = host_set_disk_check;
	h->rig.host.set_remove = host_set_remove;
	h->rig.host.set_each = host_set_each;
	h->rig.driver.start = host_driver_start;
	h->rig.driver.adopt = host_driver_adopt;
	h->rig.driver.top = host_driver_top;
	h->rig.driver.capture = host_driver_capture;
	h->rig.driver.capture_now = host_driver_capture_now;
	h->rig.driver.resume = host_driver_resume;
	h->rig.driver.destroy = host_driver_destroy;
	h->rig.programs = ANSWER_OK;
	h->rig.config.memory_budget_mb = 8192;
	h->rig.config.hot_budget_mb = 1024;
	return h;
}

/* kill -9, then the next daemon: what was under way on a worker has happened, or not. */
static inline void host_crash(struct host *h, bool jobs_are_lost)
{
	h->is_dead = jobs_are_lost;
	for (unsigned i = 0; i < HOST_OPS; i++)
		h->blocks[i] = false;
	rig_crash(&h->rig);
	h->is_dead = false;
	for (unsigned i = 0; i < HOST_MACHINES; i++) /* what ran runs on, and nobody knows it by its object */
		if (h->machines[i].m) {
			h->machines[i].m = (struct machine *)(void *)&h->machines[i];
			h->machines[i].copy = NULL;
		}
}

static inline void host_free(struct host *h)
{
	char wrong[sizeof(h->wrong)];

	rig_end(&h->rig);
	for (unsigned i = 0; i < HOST_DISKS; i++)
		host_chain_close(&h->disks[i].chain);
	for (unsigned i = 0; i < HOST_SETS; i++)
		host_chain_close(&h->sets[i].chain);
	(void)pthread_mutex_destroy(&h->lock);
	memcpy(wrong, h->wrong, sizeof(wrong));
	free(h);
	if (wrong[0])
		fail_msg("%s", wrong);
}
