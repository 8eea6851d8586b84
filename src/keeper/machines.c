/* keeper/machines.c - slots: states, starting, ending, cleaning up */
#include "keeper/machines.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/span.h"
#include "base/str.h"
#include "keeper/copier.h"
#include "keeper/files.h"
#include "keeper/jail.h"
#include "keeper/jail_process.h"
#include "keeper/jail_qemu.h"
#include "keeper/keeper.h"
#include "keeper/klog.h"
#include "keeper/packer.h"
#include "keeper/qemu_host.h"
#include "keeper/qemu_memory.h"
#include "keeper/trees.h"
#include "loop/loop.h"
#include "sys/cgroup.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"
#include "wire/gen/records.h"

enum {
	TAIL_MAX = 4096,	/* last words of a console: a kernel's panic with its registers */
	WORDS_MAX = 900,	/* of them in a reason */
	CONSOLE_READ = 4096,
	CONSOLE_READS = 16,	/* in one go: what a pipe holds */
	CONSOLE_PAUSE_MS = 20,	/* between two */
	CLEAN_RETRY_MS = 5,	/* cgroup v1 has no event for "empty" */
	REFILL_MS = 20,		/* a new machine gets the processors first */
	CLOSURES_MAX = 4,	/* of QEMUs before the current one, held open */
};

/*
 * FREE		nothing. machines_start() takes it, so does the pool of shells
 * READY	a process shell waits in it, cgroup and namespaces made. machines_start() takes it
 * STARTING	on its way to exec. release
 * RUNNING	adopt, stop, stats, release
 * GONE		ended; its exit is kept. list, release
 * CLEANING	killed or ended, being removed. Nothing is legal; FREE follows (MACH-1)
 */
enum slot_state { SLOT_FREE, SLOT_READY, SLOT_STARTING, SLOT_RUNNING, SLOT_GONE, SLOT_CLEANING, SLOT_STATE_N };

static const char *const state_names[SLOT_STATE_N] = {
	[SLOT_FREE] = "free",	     [SLOT_READY] = "ready", [SLOT_STARTING] = "starting",
	[SLOT_RUNNING] = "running", [SLOT_GONE] = "gone",   [SLOT_CLEANING] = "cleaning",
};

/* What may follow what: a bit per state. */
static const unsigned arrows[SLOT_STATE_N] = {
	[SLOT_FREE] = 1 << SLOT_READY | 1 << SLOT_STARTING,
	[SLOT_READY] = 1 << SLOT_STARTING | 1 << SLOT_CLEANING,
	[SLOT_STARTING] = 1 << SLOT_RUNNING | 1 << SLOT_CLEANING,
	[SLOT_RUNNING] = 1 << SLOT_GONE | 1 << SLOT_CLEANING,
	[SLOT_GONE] = 1 << SLOT_CLEANING,
	[SLOT_CLEANING] = 1 << SLOT_FREE,
};

struct slot {
	struct machines *ms;
	unsigned n;
	enum slot_state state;

	struct id id;
	enum machine_kind kind;
	bool kvm;

	struct cgroup *group;	     /* NULL: this host has none */
	struct process_shell *shell; /* READY */
	struct jail_child child;     /* STARTING and RUNNING */
	int link_fd, monitor_fd, console_fd;
	int memory_fd; /* qemu: what its memory was at its start */
	int layer_fd;  /* process: where process_layer() finds its files; then files_fd has them */
	int files_fd;
	uint64_t disk_bytes; /* process */

	struct loop_io exit_io, status_io, console_io, group_io;
	struct loop_timer lease, kill, clean, listen;
	uint64_t lease_ns;
	struct sys_exit how;
	const char *cause; /* why we killed it; NULL: we did not */
	char *tail; /* last words, TAIL_MAX; NULL: none yet */
	size_t tail_len;

	struct copier *copier;	    /* NULL: no copy under way or done */
	struct packer *packer;	    /* the same of a process sandbox */
	struct machine_call *copy;  /* waits for it */
	struct slot_copied copied;
	struct machine_call *start; /* STARTING */
	struct list releases;	    /* CLEANING: calls that wait */
};

struct machines {
	struct loop *loop;
	struct machines_config c;
	unsigned ready; /* slots in READY */
	struct loop_timer refill;
	struct slot *slots;
	struct qemu_host closures[CLOSURES_MAX]; /* not the current one */
	unsigned next_closure;			 /* is replaced next */
	int object_fd;				 /* lent to each QEMU (keeper/qemu_memory.h); -1: none yet */
};

static void set_state(struct slot *s, enum slot_state to)
{
	char id[ID_TEXT];

	assert(arrows[s->state] & (1u << to));
	s->ms->ready += (to == SLOT_READY) - (s->state == SLOT_READY);
	s->state = to;
	if (to == SLOT_READY || id_is_zero(&s->id))
		return;
	id_format(&s->id, id);
	klog("event=machine slot=%u id=%s state=%s pid=%d", s->n, id, state_names[to], s->child.pid);
}

static uid_t slot_uid(const struct slot *s)
{
	return s->ms->c.uid_base + (s->ms->c.root ? s->n * (uid_t)JAIL_IDS : 0);
}

static gid_t slot_gid(const struct slot *s)
{
	return s->ms->c.gid_base + (s->ms->c.root ? s->n * (gid_t)JAIL_IDS : 0);
}

/* ---- copies of memory ---- */

static void answer_copy(struct slot *s, const struct err *why)
{
	struct machine_call *c = take_ptr(&s->copy);

	if (c)
		c->done(c, s, why);
}

static void drop_copy(struct slot *s)
{
	s->copied = (struct slot_copied){.fd = -1};
	s->copier = copier_free(s->copier);
	s->packer = packer_free(s->packer);
}

/* Before its process is reaped: the one that copies reads it by number. Its files are free from here on. */
static void end_copy(struct slot *s)
{
	struct err why = ERR_INIT;

	drop_copy(s);
	s->layer_fd = sys_close(s->layer_fd);
	s->files_fd = sys_close(s->files_fd);
	(void)err_set(&why, ERR_GONE, "the machine ended while it was copied");
	answer_copy(s, &why);
}

static void copy_prepared(void *arg)
{
	answer_copy(arg, NULL);
}

static void copy_made(void *arg, uint64_t bytes, uint64_t us)
{
	struct slot *s = arg;

	s->copied = (struct slot_copied){-1, bytes, us};
	answer_copy(s, NULL);
}

static void files_packed(void *arg, int fd, uint64_t bytes, uint64_t us)
{
	struct slot *s = arg;

	s->copied = (struct slot_copied){fd, bytes, us};
	answer_copy(s, NULL);
}

static void copy_failed(void *arg, const struct err *why)
{
	struct slot *s = arg;

	s->copier = copier_free(s->copier);
	s->packer = packer_free(s->packer);
	answer_copy(s, why);
}

int slot_save(struct slot *s, struct machine_call *c, struct err *e)
{
	const struct copier_events ev = {copy_prepared, copy_made, copy_failed, s};
	struct err why = ERR_INIT;
	struct stat st;
	int r;

	if (s->kind != MACHINE_QEMU)
		return err_set(e, ERR_UNSUPPORTED, "a process sandbox has no memory of its own to copy");
	drop_copy(s);
	(void)err_set(&why, ERR_CANCELED, "another copy of the machine's memory was begun");
	answer_copy(s, &why);
	if (fstat(s->memory_fd, &st) < 0)
		return err_sys(e, -errno, "look at the machine's memory");
	r = copier_new(s->ms->loop, s->child.pid, s->memory_fd, (uint64_t)st.st_size, &ev, &s->copier, e);
	if (r == 0)
		s->copy = c;
	return r;
}

static int copy_files(struct slot *s, struct machine_call *c, struct err *e)
{
	const struct packer_events ev = {files_packed, copy_failed, s};
	int r = 0;

	if (s->packer && s->copy)
		return err_set(e, ERR_CONFLICT, "the sandbox's files are being copied");
	drop_copy(s);
	if (s->files_fd < 0)
		r = process_layer(s->layer_fd, &s->files_fd, e);
	if (r == 0)
		r = packer_new(s->ms->loop, s->files_fd, s->child.userns_fd, s->disk_bytes, &ev, &s->packer, e);
	if (r == 0)
		s->copy = c;
	return r;
}

int slot_copy(struct slot *s, struct machine_call *c, struct err *e)
{
	int r;

	if (!s->copier || s->copy)
		return err_set(e, ERR_CONFLICT, "no copy of the machine's memory is prepared");
	r = copier_copy(s->copier, e);
	if (r == 0)
		s->copy = c;
	return r;
}

int slot_take(struct slot *s, struct machine_call *c, struct err *e)
{
	int r;

	if (s->kind == MACHINE_PROCESS)
		return copy_files(s, c, e);
	if (!s->copier || s->copy)
		return err_set(e, ERR_CONFLICT, "no copy of the machine's memory is complete");
	r = copier_take(s->copier, &s->copied.fd, e);
	if (r == 0)
		c->done(c, s, NULL);
	return r;
}

struct slot_copied slot_copied(const struct slot *s)
{
	return s->copied;
}

void slot_copied_drop(struct slot *s)
{
	drop_copy(s);
}

/* ---- cleaning up ---- */

static void forget_process(struct slot *s)
{
	struct loop *l = s->ms->loop;

	end_copy(s);
	loop_io_del(l, &s->exit_io);
	loop_io_del(l, &s->status_io);
	loop_io_del(l, &s->console_io);
	loop_timer_cancel(l, &s->listen);
	loop_timer_cancel(l, &s->kill);
	loop_timer_cancel(l, &s->lease);
	s->shell = process_shell_free(s->shell);
	jail_end(&s->child);
	s->link_fd = sys_close(s->link_fd);
	s->monitor_fd = sys_close(s->monitor_fd);
	s->console_fd = sys_close(s->console_fd);
	s->memory_fd = sys_close(s->memory_fd);
}

static void answer_releases(struct slot *s)
{
	struct list waiting;

	list_take(&s->releases, &waiting);
	while (!list_empty(&waiting)) {
		struct machine_call *c = LIST_ENTRY(waiting.next, struct machine_call, link);

		list_del(&c->link);
		c->done(c, NULL, NULL);
	}
}

static void refill_soon(struct machines *ms);

static void slot_freed(struct slot *s)
{
	loop_io_del(s->ms->loop, &s->group_io);
	loop_timer_cancel(s->ms->loop, &s->clean);
	s->group = cgroup_free(s->group);
	set_state(s, SLOT_FREE);
	s->id = (struct id){0};
	s->how = (struct sys_exit){0};
	s->cause = NULL;
	free(take_ptr(&s->tail));
	s->tail_len = 0;
	s->kvm = false;
	answer_releases(s);
	refill_soon(s->ms);
}

static void clean_again(struct loop_timer *t);

/* MACH-1: free when the group is empty and gone; otherwise the kernel says when to look again. */
static void try_clean(struct slot *s)
{
	struct machines *ms = s->ms;
	int r = s->group ? cgroup_remove(s->group) : 0;

	if (r == 0) {
		slot_freed(s);
		return;
	}
	(void)cgroup_kill(s->group);
	if (cgroup_events_fd(s->group) < 0 || cgroup_is_populated(s->group) != 1)
		loop_timer_set(ms->loop, &s->clean, loop_now(ms->loop) + CLEAN_RETRY_MS * NS_PER_MS,
			       clean_again);
}

static void clean_again(struct loop_timer *t)
{
	try_clean(CONTAINER_OF(t, struct slot, clean));
}

static void on_group(struct loop_io *io, unsigned events)
{
	struct slot *s = CONTAINER_OF(io, struct slot, group_io);

	(void)events;
	if (cgroup_is_populated(s->group) == 0) /* arms the next event as well */
		try_clean(s);
}

static void process_is_dead(struct slot *s)
{
	forget_process(s);
	if (s->group && cgroup_events_fd(s->group) >= 0)
		(void)loop_io_add(s->ms->loop, &s->group_io, cgroup_events_fd(s->group), 0, on_group);
	loop_timer_set(s->ms->loop, &s->clean, loop_now(s->ms->loop), clean_again); /* not from inside the call */
}

/* A killed machine may take long to give its memory back: its pidfd says when. */
static void start_cleaning(struct slot *s)
{
	set_state(s, SLOT_CLEANING);
	loop_io_del(s->ms->loop, &s->status_io);
	loop_timer_cancel(s->ms->loop, &s->lease);
	if (s->child.pidfd < 0) {
		process_is_dead(s);
		return;
	}
	end_copy(s);
	(void)sys_pidfd_signal(s->child.pidfd, SIGKILL);
}

/* ---- leases ---- */

static void on_lease(struct loop_timer *t)
{
	struct slot *s = CONTAINER_OF(t, struct slot, lease);

	if (s->state == SLOT_GONE) { /* MACH-3 */
		start_cleaning(s);
		return;
	}
	s->cause = "lease";
	(void)sys_pidfd_signal(s->child.pidfd, SIGKILL);
}

static void set_lease(struct slot *s)
{
	loop_timer_set(s->ms->loop, &s->lease, loop_now(s->ms->loop) + s->lease_ns, on_lease);
}

void machines_renew(struct machines *ms, uint64_t lease_ms)
{
	for (unsigned i = 0; i < ms->c.slots; i++) {
		struct slot *s = &ms->slots[i];

		if (s->state != SLOT_STARTING && s->state != SLOT_RUNNING)
			continue;
		s->lease_ns = lease_ms * NS_PER_MS;
		set_lease(s);
	}
}

/* ---- what a machine says ---- */

static void keep_tail(struct slot *s, const char *p, size_t n)
{
	if (!s->tail)
		s->tail = mem_new(TAIL_MAX);
	if (n >= TAIL_MAX) {
		p += n - TAIL_MAX;
		n = TAIL_MAX;
	}
	if (s->tail_len + n > TAIL_MAX) {
		size_t drop = s->tail_len + n - TAIL_MAX;

		memmove(s->tail, s->tail + drop, s->tail_len - drop);
		s->tail_len -= drop;
	}
	memcpy(s->tail + s->tail_len, p, n);
	s->tail_len += n;
}

static ssize_t read_console(struct slot *s)
{
	char bytes[CONSOLE_READ];
	ssize_t n = sys_read(s->console_fd, bytes, sizeof(bytes));

	if (n > 0)
		keep_tail(s, bytes, (size_t)n);
	return n;
}

static int watch_console(struct slot *s);

static void listen_again(struct loop_timer *t)
{
	(void)watch_console(CONTAINER_OF(t, struct slot, listen)); /* else nobody hears its console, and that is all */
}

/*
 * A serial port writes byte by byte. The keeper looks fifty times a second, so that a machine that floods its
 * console does not take a processor's time from everybody; what a full pipe does not take is lost.
 */
static void on_console(struct loop_io *io, unsigned events)
{
	struct slot *s = CONTAINER_OF(io, struct slot, console_io);
	struct loop *l = s->ms->loop;
	ssize_t n = 1;

	(void)events;
	for (int i = 0; i < CONSOLE_READS && n > 0; i++)
		n = read_console(s);
	loop_io_del(l, io);
	if (n > 0 || n == -EAGAIN)
		loop_timer_set(l, &s->listen, loop_now(l) + CONSOLE_PAUSE_MS * NS_PER_MS, listen_again);
}

static int watch_console(struct slot *s)
{
	return loop_io_add(s->ms->loop, &s->console_io, s->console_fd, LOOP_READ, on_console);
}

/* ---- ending ---- */

static const char *cause_of(const struct slot *s)
{
	struct cgroup_usage use = {0};

	if (s->cause)
		return s->cause;
	if (s->how.signal == 0)
		return "exited";
	if (s->group && cgroup_usage(s->group, &use) == 0 && use.oom_kills && s->how.signal == SIGKILL)
		return "oom";
	return "killed";
}

/* The sentence of a start that failed: the child's own, or how it ended. */
static void explain_failure(struct slot *s, struct err *ret)
{
	if (jail_status(s->child.status_fd, ret) < 0)
		return;
	(void)err_set(ret, ERR_INTERNAL, "the machine ended while it was starting (code %d, signal %d)",
		      s->how.code, s->how.signal);
}

static void fail_start(struct slot *s, const struct err *why)
{
	struct machine_call *c = s->start;

	s->start = NULL;
	start_cleaning(s);
	if (c)
		c->done(c, s, why);
}

static void on_exit_of(struct loop_io *io, unsigned events)
{
	struct slot *s = CONTAINER_OF(io, struct slot, exit_io);
	struct err why = ERR_INIT;

	(void)events;
	end_copy(s);
	if (sys_pidfd_reap(io->fd, &s->how) < 0)
		return;
	loop_io_del(s->ms->loop, io);
	s->child.pidfd = sys_close(s->child.pidfd);
	switch (s->state) {
	case SLOT_STARTING:
		explain_failure(s, &why);
		fail_start(s, &why);
		break;
	case SLOT_RUNNING:
		while (read_console(s) > 0) /* bounded: the writers are dead, a pipe holds 64 KiB */
			;
		s->cause = cause_of(s);
		loop_timer_cancel(s->ms->loop, &s->kill);
		set_state(s, SLOT_GONE);
		set_lease(s);
		s->ms->c.gone(s->ms->c.arg, s); /* MACH-2 */
		break;
	case SLOT_CLEANING:
		process_is_dead(s);
		break;
	default: /* READY: a shell that died before anybody wanted it */
		start_cleaning(s);
		break;
	}
}

static void on_status(struct loop_io *io, unsigned events)
{
	struct slot *s = CONTAINER_OF(io, struct slot, status_io);
	struct err why = ERR_INIT;
	int r = jail_status(io->fd, &why);
	struct machine_call *c = s->start;

	(void)events;
	if (r == 1)
		return;
	loop_io_del(s->ms->loop, io);
	if (r < 0) {
		fail_start(s, &why);
		return;
	}
	s->child.status_fd = sys_close(s->child.status_fd);
	if (s->kind != MACHINE_PROCESS) /* whose files are copied by who joins it */
		s->child.userns_fd = sys_close(s->child.userns_fd);
	set_state(s, SLOT_RUNNING);
	s->start = NULL;
	if (c)
		c->done(c, s, NULL);
}

static void on_grace(struct loop_timer *t)
{
	struct slot *s = CONTAINER_OF(t, struct slot, kill);

	(void)sys_pidfd_signal(s->child.pidfd, SIGKILL);
}

void slot_stop(struct slot *s, unsigned grace_ms)
{
	struct loop *l = s->ms->loop;

	if (s->state != SLOT_RUNNING)
		return;
	s->cause = "stopped";
	(void)sys_pidfd_signal(s->child.pidfd, grace_ms ? SIGTERM : SIGKILL);
	loop_timer_set(l, &s->kill, loop_now(l) + grace_ms * NS_PER_MS, on_grace);
}

void slot_release(struct slot *s, struct machine_call *c)
{
	struct err canceled = ERR_INIT;

	if (c)
		list_add_tail(&s->releases, &c->link);
	if (s->state == SLOT_CLEANING)
		return;
	if (s->state == SLOT_STARTING) {
		(void)err_set(&canceled, ERR_CANCELED, "released while it was starting");
		fail_start(s, &canceled);
		return;
	}
	start_cleaning(s);
}

void machine_call_forget(struct machine_call *c)
{
	list_del(&c->link);
}

/* ---- limits ---- */

static const struct {
	const char *name;
	unsigned limit;
} limit_names[] = {{"memory", CGROUP_MEMORY}, {"cpu", CGROUP_CPU}, {"pids", CGROUP_PIDS}};

static bool is_accepted(struct strv unenforced, const char *name)
{
	for (const char *s = strv_first(unenforced); s; s = strv_next(unenforced, s))
		if (strcmp(s, name) == 0)
			return true;
	return false;
}

/* Every limit in @missing must be one whose absence was accepted. */
static int refuse_missing(const struct rec_machine_start *rec, unsigned missing, struct err *e)
{
	for (size_t i = 0; i < ARRAY_LEN(limit_names); i++)
		if (missing & limit_names[i].limit && !is_accepted(rec->unenforced, limit_names[i].name))
			return err_set(e, ERR_UNSUPPORTED,
				       "the %s limit can't be enforced on this host (no cgroup controller "
				       "that the keeper may use); accept that with --unenforced %s",
				       limit_names[i].name, limit_names[i].name);
	return 0;
}

static struct cgroup_limits limits_of(const struct rec_machine_start *rec)
{
	bool qemu = rec->kind == MACHINE_QEMU;

	return (struct cgroup_limits){
		.memory_bytes = qemu ? jail_qemu_memory(rec) : rec->memory_mb * MIB,
		.cpu_milli = (unsigned)rec->vcpus * 1000,
		.pids = qemu ? jail_qemu_pids(rec) : (unsigned)rec->pids_max,
		.oom_group = qemu,
	};
}

static unsigned limits_wanted(const struct cgroup_limits *l)
{
	return (l->memory_bytes ? CGROUP_MEMORY : 0u) | (l->cpu_milli ? CGROUP_CPU : 0u) |
	       (l->pids ? CGROUP_PIDS : 0u);
}

/* Before anything is touched. */
static int check_limits(struct machines *ms, const struct rec_machine_start *rec, struct err *e)
{
	struct cgroup_limits l = limits_of(rec);
	unsigned have = ms->c.groups ? cgroup_root_limits(ms->c.groups) : 0;

	return refuse_missing(rec, limits_wanted(&l) & ~have, e);
}

static int set_limits(struct slot *s, const struct rec_machine_start *rec, struct err *e)
{
	struct cgroup_limits l = limits_of(rec);
	unsigned failed = 0;

	if (!s->group)
		return 0; /* check_limits() asked whether that is accepted */
	(void)cgroup_set(s->group, &l, &failed);
	return refuse_missing(rec, failed, e);
}

static int make_group(struct slot *s, struct err *e)
{
	char name[16];
	int r;

	if (!s->ms->c.groups)
		return 0;
	(void)snprintf(name, sizeof(name), "%u", s->n);
	r = cgroup_new(s->ms->c.groups, name, &s->group);
	return r < 0 ? err_sys(e, r, "make cgroup %s", name) : 0;
}

/* ---- shells ---- */

static int make_shell(struct slot *s, struct err *e)
{
	int r = make_group(s, e);

	if (r == 0)
		r = process_shell_new(s->ms->c.process, slot_uid(s), s->group, &s->shell, e);
	if (r == 0) {
		r = loop_io_add(s->ms->loop, &s->exit_io, process_shell_pidfd(s->shell), LOOP_READ, on_exit_of);
		if (r < 0)
			r = err_sys(e, r, "watch a shell");
	}
	return r;
}

static struct slot *find_state(struct machines *ms, enum slot_state state)
{
	for (unsigned i = 0; i < ms->c.slots; i++)
		if (ms->slots[i].state == state)
			return &ms->slots[i];
	return NULL;
}

/* Undo what a slot that never left FREE has got so far. */
static void abandon(struct slot *s)
{
	forget_process(s);
	if (s->group && cgroup_remove(s->group) < 0) { /* still dying in there: let events do it */
		set_state(s, SLOT_STARTING);
		start_cleaning(s);
		return;
	}
	s->group = cgroup_free(s->group);
}

/* One shell per turn of the loop, so that requests come between. */
static void refill(struct loop_timer *t)
{
	struct machines *ms = CONTAINER_OF(t, struct machines, refill);
	struct slot *s = find_state(ms, SLOT_FREE);
	struct err e = ERR_INIT;

	if (ms->ready >= ms->c.ready || !s)
		return;
	if (make_shell(s, &e) < 0) {
		klog("event=shell-failed slot=%u why=\"%s\"", s->n, e.text);
		abandon(s);
		return; /* the next start tries again and tells its caller */
	}
	set_state(s, SLOT_READY);
	refill_soon(ms);
}

/* Off the path of whoever starts a machine now; at once only when the next one would have to wait. */
static void refill_soon(struct machines *ms)
{
	uint64_t delay_ms = ms->ready ? REFILL_MS : 0;

	if (ms->c.process && ms->ready < ms->c.ready)
		loop_timer_set(ms->loop, &ms->refill, loop_now(ms->loop) + delay_ms * NS_PER_MS, refill);
}

/* ---- starting ---- */

static int start_process(struct slot *s, const struct rec_machine_start *rec, const int *fds,
			 unsigned n_fds, struct err *e)
{
	AUTO_CLOSE int tree = -1;
	struct process_go go = {.files_fd = n_fds ? fds[0] : -1, .disk_bytes = rec->disk_mb * MIB};
	struct process_ends ends;
	int r;

	if (n_fds != (rec->forked ? 1 : 0))
		return err_set(e, ERR_INVALID,
			       "a process sandbox takes the hash of its template, and the files of a fork; got %u "
			       "descriptors. A daemon of 0.1.0 does that: end hotcelld, the next command starts one of "
			       "this version", n_fds);
	r = rec->forked ? files_check(go.files_fd, e) : 0;
	if (r == 0)
		r = tree_open(s->ms->c.images_fd, rec->image, &tree, e);
	go.tree_fd = tree;
	if (r == 0 && !s->shell)
		r = make_shell(s, e);
	if (r == 0)
		r = set_limits(s, rec, e);
	if (r == 0)
		r = process_shell_go(s->shell, &go, &ends, e);
	if (r < 0)
		return r;
	s->child = ends.child;
	s->link_fd = ends.link_fd;
	s->console_fd = ends.console_fd;
	s->layer_fd = ends.layer_fd;
	s->disk_bytes = go.disk_bytes;
	loop_io_del(s->ms->loop, &s->exit_io);
	s->shell = process_shell_free(s->shell);
	return 0;
}

struct qemu_ends {
	int link, monitor, console;
};

static int make_qemu_ends(struct slot *s, struct qemu_ends *t, struct err *e)
{
	int pair[2], r = sys_socketpair(pair);

	if (r < 0)
		return err_sys(e, r, "make a link");
	s->link_fd = pair[0];
	t->link = pair[1];
	r = sys_socketpair(pair);
	if (r < 0)
		return err_sys(e, r, "make a monitor socket");
	s->monitor_fd = pair[0];
	t->monitor = pair[1];
	r = sys_pipe(pair);
	if (r < 0)
		return err_sys(e, r, "make a pipe");
	s->console_fd = pair[0];
	t->console = pair[1];
	r = sys_nonblock(s->console_fd, true);
	return r < 0 ? err_sys(e, r, "make a pipe non-blocking") : 0;
}

static int jail_qemu(struct slot *s, struct jail_qemu *q, struct err *e)
{
	struct jail_spec spec = {
		.name = "a machine",
		.uid_base = slot_uid(s),
		.gid_base = slot_gid(s),
		.id_count = s->ms->c.root ? JAIL_IDS : 1,
		.cgroup = s->group,
		.seccomp_fd = -1,
		.exec_fd = -1,
	};

	jail_qemu_spec(q, &spec);
	return jail_start(&spec, &s->child, e);
}

/* A boot starts from nothing; a fork brings its memory as the last but one descriptor. */
static int take_memory(struct slot *s, const struct rec_machine_start *rec, const int *fds, unsigned n_fds,
		       struct err *e)
{
	int r;

	if (rec->forked) {
		s->memory_fd = n_fds >= 2 ? sys_dup(fds[n_fds - 2]) : -EBADF;
		return s->memory_fd < 0 ? err_sys(e, s->memory_fd, "take the memory") : 0;
	}
	s->memory_fd = sys_memfd("ram", MFD_ALLOW_SEALING);
	if (s->memory_fd < 0)
		return err_sys(e, s->memory_fd, "make a memory file");
	r = ftruncate(s->memory_fd, (off_t)(rec->memory_mb * MIB)) < 0 ? -errno : 0;
	return r < 0 ? err_sys(e, r, "make a memory file of %llu MiB", (unsigned long long)rec->memory_mb)
		     : jail_qemu_memory_seal(s->memory_fd, e);
}

static const struct qemu_host *open_closure(struct machines *ms, const char *hash)
{
	struct qemu_host found = QEMU_HOST_INIT, *place = &ms->closures[ms->next_closure];
	struct err why = ERR_INIT;

	if (qemu_host_open(ms->c.closures, hash, &found, &why) < 0) {
		klog("event=closure why=\"%s\"", why.text);
		return NULL;
	}
	ms->next_closure = (ms->next_closure + 1) % CLOSURES_MAX;
	qemu_host_deinit(place); /* machines that run from it have mounts of their own */
	*place = found;
	return place;
}

/*
 * The QEMU that made the memory. One that is not kept any more, or no longer whole: the current
 * one, which the jail then refuses with the way out.
 */
static const struct qemu_host *qemu_for(struct machines *ms, const struct rec_machine_start *rec)
{
	char hash[sizeof(ms->c.qemu->hash)];
	const struct qemu_host *found = NULL;

	if (rec->closure.n != sizeof(hash) - 1 || span_is(rec->closure, ms->c.qemu->hash))
		return ms->c.qemu;
	span_copy(rec->closure, hash, sizeof(hash));
	if (strspn(hash, "0123456789abcdef") != sizeof(hash) - 1)
		return ms->c.qemu;
	for (unsigned i = 0; i < CLOSURES_MAX; i++)
		if (ms->closures[i].root_fd >= 0 && str_eq(ms->closures[i].hash, hash))
			return &ms->closures[i];
	found = open_closure(ms, hash);
	return found ? found : ms->c.qemu;
}

static int start_qemu(struct slot *s, const struct rec_machine_start *rec, const int *fds,
		      unsigned n_fds, struct err *e)
{
	struct qemu_ends t = {-1, -1, -1};
	struct jail_qemu *q = NULL;
	int object = s->ms->object_fd < 0 ? qemu_memory_object_new(&s->ms->object_fd, e) : 0;
	int memory = object < 0 ? object : take_memory(s, rec, fds, n_fds, e);
	int r = memory < 0 ? memory : make_qemu_ends(s, &t, e);
	const struct jail_qemu_parts parts = {
		.host = qemu_for(s->ms, rec),
		.rec = rec,
		.fds = fds,
		.n_fds = n_fds,
		.memory_fd = s->memory_fd,
		.object_fd = s->ms->object_fd,
		.link_fd = t.link,
		.monitor_fd = t.monitor,
		.console_fd = t.console,
		.tsc_khz = s->ms->c.tsc_khz,
		.root = s->ms->c.root,
		.uid_base = slot_uid(s),
		.gid_base = slot_gid(s),
	};

	if (r == 0)
		r = jail_qemu_new(&parts, &q, e);
	if (r == 0)
		r = make_group(s, e);
	if (r == 0)
		r = set_limits(s, rec, e);
	if (r == 0)
		r = jail_qemu(s, q, e);
	(void)jail_qemu_free(q);
	(void)sys_close(t.link);
	(void)sys_close(t.monitor);
	(void)sys_close(t.console);
	s->kvm = rec->kvm;
	return r;
}

/* Can it be done at all? Nothing is touched. */
static int check_start(struct machines *ms, const struct rec_machine_start *rec, struct err *e)
{
	if (id_is_zero(&rec->id))
		return err_set(e, ERR_INVALID, "machine_start.id is missing");
	if (machines_find(ms, &rec->id))
		return err_set(e, ERR_CONFLICT, "this id has a machine already");
	if (rec->kind == MACHINE_PROCESS && !ms->c.process)
		return err_set(e, ERR_UNSUPPORTED, "%s", ms->c.process_reason);
	if (rec->kind == MACHINE_QEMU && !ms->c.qemu)
		return err_set(e, ERR_UNSUPPORTED, "%s", ms->c.qemu_reason);
	if (rec->kvm && !ms->c.kvm)
		return err_set(e, ERR_UNSUPPORTED, "KVM is not usable on this host");
	if (rec->kind == MACHINE_PROCESS && rec->disk_mb == 0)
		return err_set(e, ERR_INVALID, "machine_start.disk_mb is 0; a process sandbox needs a bound");
	return check_limits(ms, rec, e);
}

static int watch_start(struct slot *s, struct err *e)
{
	struct loop *l = s->ms->loop;
	int r = loop_io_add(l, &s->exit_io, s->child.pidfd, LOOP_READ, on_exit_of);

	if (r == 0)
		r = loop_io_add(l, &s->status_io, s->child.status_fd, LOOP_READ, on_status);
	if (r == 0)
		r = watch_console(s);
	return r < 0 ? err_sys(e, r, "watch a machine") : 0;
}

int machines_start(struct machines *ms, const struct rec_machine_start *rec, const int *fds,
		   unsigned n_fds, struct machine_call *c, struct err *e)
{
	struct slot *s = rec->kind == MACHINE_PROCESS ? find_state(ms, SLOT_READY) : NULL;
	bool was_ready;
	int r = check_start(ms, rec, e);

	if (r < 0)
		return r;
	was_ready = s != NULL;
	if (!s)
		s = find_state(ms, SLOT_FREE);
	if (!s)
		return err_set(e, ERR_LIMIT, "all %u machine slots are taken", ms->c.slots);
	s->kind = (enum machine_kind)rec->kind;
	r = s->kind == MACHINE_PROCESS ? start_process(s, rec, fds, n_fds, e)
				       : start_qemu(s, rec, fds, n_fds, e);
	if (r == 0)
		r = watch_start(s, e);
	if (r < 0) {
		if (was_ready)
			start_cleaning(s);
		else
			abandon(s);
		return r;
	}
	s->id = rec->id;
	s->start = c;
	s->lease_ns = (rec->lease_ms ? rec->lease_ms : KEEPER_LEASE_MS) * NS_PER_MS;
	set_state(s, SLOT_STARTING);
	set_lease(s);
	refill_soon(ms);
	return 0;
}

/* ---- looking ---- */

struct slot *machines_find(struct machines *ms, const struct id *id)
{
	for (unsigned i = 0; i < ms->c.slots; i++)
		if (ms->slots[i].state >= SLOT_STARTING && id_eq(&ms->slots[i].id, id))
			return &ms->slots[i];
	return NULL;
}

unsigned machines_slots(const struct machines *ms)
{
	return ms->c.slots;
}

struct slot *machines_slot(struct machines *ms, unsigned n)
{
	return &ms->slots[n];
}

bool slot_runs(const struct slot *s)
{
	return s->state == SLOT_RUNNING;
}

bool slot_is_gone(const struct slot *s)
{
	return s->state == SLOT_GONE;
}

bool slot_has_machine(const struct slot *s)
{
	return slot_runs(s) || slot_is_gone(s);
}

void slot_fds(const struct slot *s, int ret[MACHINE_FDS])
{
	ret[KEEPER_LINK] = s->link_fd;
	ret[KEEPER_PIDFD] = s->child.pidfd;
	ret[KEEPER_MONITOR] = s->monitor_fd;
}

/* What every kernel of ours says at its boot, and what has nothing to do with its end. */
static bool is_harmless(const char *line, size_t n)
{
	static const char *const lines[] = {
		"PCI: Fatal: No config space access function found", /* microvm has no PCI */
	};

	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		if (memmem(line, n, lines[i], strlen(lines[i])))
			return true;
	return false;
}

/* One line for people: control characters become blanks; whoever prints it escapes the rest. */
static void add_words(struct str *text, const char *p, size_t n)
{
	bool blank = true; /* so that several become one and none leads */

	for (size_t i = 0; i < n; i++) {
		bool control = (unsigned char)p[i] < ' ' || p[i] == 0x7f;

		if (!control && blank)
			str_add(text, text->len ? " " : ": ");
		if (!control)
			str_add_mem(text, &p[i], 1);
		blank = control;
	}
}

/* Where the telling part of the last words starts: a panic, else the last whole lines that fit. */
static size_t find_last_words(const struct slot *s)
{
	static const char panic[] = "Kernel panic";
	const char *at, *line;

	if (!s->tail)
		return 0;
	at = memmem(s->tail, s->tail_len, panic, sizeof(panic) - 1);
	if (at)
		return (size_t)(at - s->tail);
	if (s->tail_len <= WORDS_MAX)
		return 0;
	at = s->tail + s->tail_len - WORDS_MAX;
	line = memchr(at, '\n', WORDS_MAX);
	return (size_t)((line ? line + 1 : at) - s->tail);
}

static void describe_end(const struct slot *s, char reason[SLOT_REASON_MAX])
{
	struct str text = STR_INIT(SLOT_REASON_MAX - 1), words = STR_INIT(WORDS_MAX + 2);
	size_t from = find_last_words(s), n = MIN(s->tail_len - from, (size_t)WORDS_MAX);

	for (size_t line; n; from += line, n -= line) {
		const char *p = s->tail + from, *end = memchr(p, '\n', n);

		line = end ? (size_t)(end - p) + 1 : n;
		if (!is_harmless(p, line))
			add_words(&words, p, line);
	}
	str_addf(&text, "%s%s", s->cause, str_text(&words));
	(void)snprintf(reason, SLOT_REASON_MAX, "%s", str_text(&text));
	str_deinit(&words);
	str_deinit(&text);
}

void slot_info(const struct slot *s, struct rec_machine_info *ret, char reason[SLOT_REASON_MAX])
{
	uint64_t now = loop_now(s->ms->loop);

	*ret = (struct rec_machine_info){
		.id = s->id,
		.slot = s->n,
		.pid = (uint64_t)s->child.pid,
		.kind = s->kind,
		.kvm = s->kvm,
		.gone = slot_is_gone(s),
		.lease_left_ms = s->lease.at_ns > now ? (s->lease.at_ns - now) / NS_PER_MS : 0,
	};
	if (!ret->gone)
		return;
	ret->code = s->how.code;
	ret->signal = (uint64_t)s->how.signal;
	describe_end(s, reason);
	ret->reason = span_of(reason);
}

void slot_stats(struct slot *s, struct rec_machine_stats *ret)
{
	struct cgroup_usage use = {0};

	if (s->group)
		(void)cgroup_usage(s->group, &use);
	*ret = (struct rec_machine_stats){
		.memory_bytes = use.memory_bytes,
		.memory_max_bytes = use.memory_max_bytes,
		.cpu_us = use.cpu_us,
		.pids = use.pids,
		.pids_max = use.pids_max,
		.oom_kills = use.oom_kills,
	};
}

/* ---- the table ---- */

int machines_new(struct loop *l, const struct machines_config *c, struct machines **ret, struct err *e)
{
	struct machines *ms;

	if (c->slots == 0 || c->slots > MACHINES_SLOTS_MAX)
		return err_set(e, ERR_INVALID, "slots must be 1 to %d", MACHINES_SLOTS_MAX);
	ms = mem_new(sizeof(*ms));
	ms->loop = l;
	ms->c = *c;
	ms->object_fd = -1;
	ms->slots = mem_new(c->slots * sizeof(*ms->slots));
	for (unsigned i = 0; i < CLOSURES_MAX; i++)
		ms->closures[i] = (struct qemu_host)QEMU_HOST_INIT;
	for (unsigned i = 0; i < c->slots; i++) {
		ms->slots[i] = (struct slot){
			.ms = ms, .n = i, .child = JAIL_CHILD_INIT, .link_fd = -1, .monitor_fd = -1, .console_fd = -1,
			.memory_fd = -1, .layer_fd = -1, .files_fd = -1, .copied = {.fd = -1}};
		list_init(&ms->slots[i].releases);
	}
	refill_soon(ms);
	*ret = ms;
	return 0;
}

struct machines *machines_free(struct machines *ms)
{
	if (!ms)
		return NULL;
	loop_timer_cancel(ms->loop, &ms->refill);
	for (unsigned i = 0; i < ms->c.slots; i++) {
		struct slot *s = &ms->slots[i];

		forget_process(s);
		loop_io_del(ms->loop, &s->group_io);
		loop_timer_cancel(ms->loop, &s->clean);
		if (s->group)
			(void)cgroup_remove(s->group); /* what resists is the sweep's */
		s->group = cgroup_free(s->group);
		free(s->tail);
	}
	for (unsigned i = 0; i < CLOSURES_MAX; i++)
		qemu_host_deinit(&ms->closures[i]);
	(void)sys_close(ms->object_fd);
	free(ms->slots);
	free(ms);
	return NULL;
}
