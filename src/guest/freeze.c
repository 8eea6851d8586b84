/* guest/freeze.c - the freezer of every group below the workload's */
#include "guest/freeze.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/code.h"
#include "guest/session.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { TIMEOUT_MS = 100, POLL_US = 500, GROUPS_MAX = LIMIT_SESSIONS + LIMIT_CONTEXTS + 64 };

/* Those with nobody in them are left alone: what is started in one later must run. */
static int look_at(struct agent *a, const char *name, struct err *e)
{
	struct freeze *f = &a->freeze;
	AUTO_CLOSE int fd = -1;
	int r;

	if (codes_have_group(a->codes, name))
		return 0;
	fd = sys_openat(a->cgroups.root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0 || cgroup_is_empty(fd)) /* what went away was empty, too */
		return 0;
	if (f->n_groups == GROUPS_MAX)
		return err_set(e, ERR_LIMIT, "more than %d cgroups of the workload to stop", GROUPS_MAX);
	r = cgroup_freeze(fd, true);
	f->groups[f->n_groups++] = take_fd(&fd);
	return r < 0 ? err_sys(e, r, "stop the workload") : 0;
}

static int freeze_all(struct agent *a, struct err *e)
{
	int fd = sys_open_beneath(a->cgroups.root_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int r;

	if (!d) {
		(void)sys_close(fd);
		return err_set(e, ERR_INTERNAL, "the workload's cgroups can't be listed");
	}
	a->freeze.groups = mem_new(GROUPS_MAX * sizeof(*a->freeze.groups));
	r = codes_freeze(a->codes, e);
	while (r == 0 && (entry = readdir(d)))
		if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
			r = look_at(a, entry->d_name, e);
	(void)closedir(d);
	return r;
}

static bool all_stand_still(const struct agent *a)
{
	const struct freeze *f = &a->freeze;

	for (size_t i = 0; i < f->n_groups; i++)
		if (!cgroup_is_frozen(f->groups[i]))
			return false;
	return codes_stand_still(a->codes);
}

static void drop_groups(struct freeze *f)
{
	while (f->n_groups)
		(void)sys_close(f->groups[--f->n_groups]);
	free(take_ptr(&f->groups));
}

uint64_t freeze_timer(struct loop *l, struct loop_timer *t)
{
	uint64_t left_ns = t->place ? MAX(t->at_ns, loop_now(l) + 1) - loop_now(l) : 0;

	loop_timer_cancel(l, t);
	return left_ns;
}

void freeze_timer_go_on(struct loop *l, struct loop_timer *t, uint64_t left_ns)
{
	if (left_ns)
		loop_timer_set(l, t, loop_now(l) + left_ns, t->cb);
}

void freeze_thaw_all(struct agent *a)
{
	struct freeze *f = &a->freeze;

	if (!f->is_frozen)
		return;
	f->is_frozen = false;
	loop_timer_cancel(a->loop, &f->poll);
	for (size_t i = 0; i < f->n_groups; i++)
		(void)cgroup_freeze(f->groups[i], false);
	drop_groups(f);
	codes_thaw(a->codes);
	sessions_go_on(a->sessions);
}

static void fail(struct agent *a, const struct err *why)
{
	struct stream *s = take_ptr(&a->freeze.call);

	freeze_thaw_all(a);
	if (s)
		stream_fail(s, why);
}

static void on_poll(struct loop_timer *t);

static void look(struct agent *a)
{
	struct rec_empty none = {0};
	struct err e = ERR_INIT;
	struct stream *s;

	if (all_stand_still(a)) {
		s = take_ptr(&a->freeze.call);
		(void)stream_reply(s, &rec_empty_type, &none, false, NULL, 0, NULL);
		link_hold(a->link); /* FREEZE-1 */
	} else if (loop_now(a->loop) >= a->freeze.deadline_ns) {
		(void)err_set(&e, ERR_BUSY, "the workload did not stand still within %u ms", a->freeze.timeout_ms);
		fail(a, &e);
	} else {
		loop_timer_set(a->loop, &a->freeze.poll, loop_now(a->loop) + POLL_US * NS_PER_US, on_poll);
	}
}

static void on_poll(struct loop_timer *t)
{
	look(CONTAINER_OF(CONTAINER_OF(t, struct freeze, poll), struct agent, freeze));
}

/* The host is gone or thought better of it. */
static void on_closed(struct stream *s, const struct err *why)
{
	struct agent *a = stream_arg(s);

	if (a->freeze.call != s)
		return; /* answered */
	a->freeze.call = NULL;
	if (why)
		freeze_thaw_all(a);
}

void guest_freeze_call(struct agent *a, struct stream *s, const void *rec)
{
	static const struct stream_ops ops = {.closed = on_closed};
	const struct rec_guest_freeze *rq = rec;
	struct err e = ERR_INIT;

	if (a->cgroups.root_fd < 0)
		(void)err_set(&e, ERR_UNSUPPORTED, "the workload can't be frozen: there is no cgroup v2 here; for "
			      "process sandboxes, mount a cgroup2 file system on the host and restart hotcell");
	else if (a->freeze.call)
		(void)err_set(&e, ERR_CONFLICT, "the workload is being frozen");
	if (e.code) {
		stream_fail(s, &e);
		return;
	}
	freeze_thaw_all(a); /* a host before left it frozen, and this one will copy what runs */
	stream_accept(s, &ops, a);
	a->freeze.call = s;
	a->freeze.is_frozen = true;
	a->freeze.timeout_ms = rq->timeout_ms ? (unsigned)rq->timeout_ms : TIMEOUT_MS;
	a->freeze.deadline_ns = loop_now(a->loop) + a->freeze.timeout_ms * NS_PER_MS;
	sessions_pause(a->sessions);
	if (freeze_all(a, &e) < 0)
		fail(a, &e);
	else
		look(a);
}

void guest_thaw_call(struct agent *a, struct stream *s, const void *rec)
{
	struct rec_empty none = {0};

	(void)rec;
	freeze_thaw_all(a);
	link_release(a->link);
	agent_answer(s, &rec_empty_type, &none, 0, NULL);
}

void freeze_drop(struct agent *a)
{
	a->freeze.call = NULL;
	loop_timer_cancel(a->loop, &a->freeze.poll);
	drop_groups(&a->freeze);
}
