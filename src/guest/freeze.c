/* guest/freeze.c - the freezer of every group below the workload's */
#include "guest/freeze.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "guest/agent.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

enum { TIMEOUT_MS = 100, POLL_US = 500, EVENTS_MAX = 512 };

/* Call @each with every group of the workload; false from it ends the walk. */
static bool each_group(const struct agent *a, bool (*each)(int group_fd))
{
	int fd = sys_open_beneath(a->cgroups.root_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	bool all = d != NULL;
	struct dirent *entry;

	if (!d)
		(void)sys_close(fd);
	while (all && (entry = readdir(d))) {
		AUTO_CLOSE int group = -1;

		if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
			continue;
		group = sys_openat(a->cgroups.root_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
		all = group < 0 || each(group); /* one that went away has nothing in it */
	}
	if (d)
		(void)closedir(d);
	return all;
}

static bool freeze_one(int group)
{
	return sys_write_file(group, "cgroup.freeze", "1") == 0;
}

static bool thaw_one(int group)
{
	(void)sys_write_file(group, "cgroup.freeze", "0");
	return true;
}

static bool is_frozen(int group)
{
	char text[EVENTS_MAX];

	return sys_read_file(group, "cgroup.events", text, sizeof(text)) >= 0 && strstr(text, "frozen 1");
}

void freeze_thaw_group(void *agent, struct cgroup *cg)
{
	(void)agent;
	if (cg)
		(void)thaw_one(cg->fd);
}

void freeze_thaw_all(struct agent *a)
{
	if (!a->freeze.is_frozen)
		return;
	a->freeze.is_frozen = false;
	loop_timer_cancel(a->loop, &a->freeze.poll);
	(void)each_group(a, thaw_one);
}

static void fail(struct agent *a, int code, const char *what)
{
	struct stream *s = take_ptr(&a->freeze.call);
	struct err e = ERR_INIT;

	freeze_thaw_all(a);
	(void)err_set(&e, code, "%s within %u ms", what, a->freeze.timeout_ms);
	if (s)
		stream_fail(s, &e);
}

static void on_poll(struct loop_timer *t);

static void look(struct agent *a)
{
	struct rec_empty none = {0};
	struct stream *s;

	if (each_group(a, is_frozen)) {
		s = take_ptr(&a->freeze.call);
		(void)stream_reply(s, &rec_empty_type, &none, false, NULL, 0, NULL);
		link_hold(a->link); /* FREEZE-1 */
	} else if (loop_now(a->loop) >= a->freeze.deadline_ns) {
		fail(a, ERR_BUSY, "the workload did not stand still");
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
		(void)err_set(&e, ERR_UNSUPPORTED, "this guest has no cgroups to freeze");
	else if (a->freeze.call)
		(void)err_set(&e, ERR_CONFLICT, "the workload is being frozen");
	if (e.code) {
		stream_fail(s, &e);
		return;
	}
	stream_accept(s, &ops, a);
	a->freeze.call = s;
	a->freeze.is_frozen = true;
	a->freeze.timeout_ms = rq->timeout_ms ? (unsigned)rq->timeout_ms : TIMEOUT_MS;
	a->freeze.deadline_ns = loop_now(a->loop) + a->freeze.timeout_ms * NS_PER_MS;
	if (each_group(a, freeze_one))
		look(a);
	else
		fail(a, ERR_INTERNAL, "the workload can't be frozen");
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
}
