/* guest/agent.c - link, children, and which handler answers which method */
#include "guest/agent.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/code.h"
#include "guest/session.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

static const uint64_t REOPEN_NS = 200 * NS_PER_MS;

static const struct agent_method methods[] = {
	{METHOD_EXEC_START, exec_start_call},
	{METHOD_EXEC_ATTACH, exec_attach_call},
	{METHOD_EXEC_SIGNAL, exec_signal_call},
	{METHOD_EXEC_RESIZE, exec_resize_call},
	{METHOD_EXEC_LIST, exec_list_call},
	{METHOD_CODE_RUN, code_run_call},
	{METHOD_CODE_OPEN, code_open_call},
	{METHOD_CODE_LIST, code_list_call},
	{METHOD_CODE_INTERRUPT, code_interrupt_call},
	{METHOD_CODE_RESTART, code_restart_call},
	{METHOD_CODE_CLOSE, code_close_call},
	{METHOD_FILE_READ, file_read_call},
	{METHOD_FILE_WRITE, file_write_call},
	{METHOD_FILE_STAT, file_stat_call},
	{METHOD_FILE_LIST, file_list_call},
	{METHOD_FILE_MOVE, file_move_call},
	{METHOD_FILE_REMOVE, file_remove_call},
	{METHOD_FILE_MKDIR, file_mkdir_call},
	{METHOD_FILE_LINK, file_link_call},
	{METHOD_FILE_SET, file_set_call},
	{METHOD_FILE_WATCH, file_watch_call},
	{METHOD_PORT_CONNECT, port_connect_call},
	{METHOD_GUEST_SETUP, guest_setup_call},
	{METHOD_GUEST_PING, guest_ping_call},
	{METHOD_GUEST_INFO, guest_info_call},
	{METHOD_GUEST_PROCESSES, guest_processes_call},
	{METHOD_GUEST_SHUTDOWN, guest_shutdown_call},
	{METHOD_GUEST_FREEZE, guest_freeze_call},
	{METHOD_GUEST_THAW, guest_thaw_call},
};

void agent_answer(struct stream *s, const struct rec_type *t, const void *rec, int r,
		  const struct err *e)
{
	struct err why = ERR_INIT;

	if (r >= 0) {
		stream_accept(s, NULL, NULL);
		r = stream_reply(s, t, rec, false, NULL, 0, &why);
		e = &why;
	}
	if (r < 0)
		stream_fail(s, e);
}

int agent_user(const struct agent *a, struct span name, struct user *ret, struct err *e)
{
	return user_find(name, span_of(a->default_user), ret, e);
}

/* ---- link ---- */

static const struct agent_method *find_method(unsigned number)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (methods[i].number == number)
			return &methods[i];
	return NULL;
}

static void on_request(struct link *k, struct stream *s, unsigned number, struct span payload,
		       const int *fds, unsigned n_fds)
{
	struct agent *a = link_arg(k);
	const struct agent_method *m = find_method(number);
	const struct method_info *info = method_find(number);
	AUTO_FREE void *rec = NULL;
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds; /* this link carries none */
	if (!m || !info)
		return; /* refused by the link */
	rec = mem_new(info->request->size);
	if (rec_decode(info->request, payload.p, payload.n, rec, &e) < 0)
		stream_fail(s, &e);
	else
		m->call(a, s, rec);
}

static void on_up(struct link *k, uint64_t generation)
{
	struct agent *a = link_arg(k);

	a->generation = generation;
}

static void open_link(struct agent *a);

static void on_reopen(struct loop_timer *t)
{
	open_link(CONTAINER_OF(t, struct agent, reopen));
}

static void on_down(struct link *k, const struct err *why)
{
	struct agent *a = link_arg(k);

	if (why->code != ERR_GONE) /* a host that closes is nothing to complain about */
		log_line(&a->log, "%s", why->text);
	a->link = link_free(k);
	loop_timer_set(a->loop, &a->reopen, loop_now(a->loop) + REOPEN_NS, on_reopen);
}

static const struct link_ops link_ops = {.up = on_up, .request = on_request, .down = on_down};

static void open_link(struct agent *a)
{
	struct err e = ERR_INIT;
	int fd = a->c.open_link(a->c.arg);

	if (fd < 0 && !a->c.is_machine) { /* the host's end is closed: nobody can ask us any more */
		a->end = AGENT_LINK_GONE;
		loop_stop(a->loop);
		return;
	}
	if (fd >= 0 && link_new(a->loop, fd, a->c.link_flags, 0, &link_ops, a, &a->link, &e) == 0)
		return;
	if (e.code)
		log_line(&a->log, "%s", e.text);
	loop_timer_set(a->loop, &a->reopen, loop_now(a->loop) + REOPEN_NS, on_reopen);
}

/* ---- children ---- */

/* The workload's first process is gone, and everything with it, says the kernel. */
static void reaper_gone(struct agent *a)
{
	struct err e = ERR_INIT;

	a->reaper.pid = 0;
	if (!a->c.is_machine) { /* Landlock forbids us to mount another /proc */
		log_line(&a->log, "the workload's process 1 was killed, and so everything else");
		a->end = AGENT_WORKLOAD_GONE;
		loop_stop(a->loop);
		return;
	}

	log_line(&a->log, "the workload's process 1 was killed; starting another");
	(void)umount2("/proc", MNT_DETACH);
	if (reaper_start(&a->reaper, a->c.proc_fd, false, &e) < 0)
		log_line(&a->log, "%s: no program can be started", e.text);
	identity_cover(&a->identity, &a->log);
}

static void on_child(struct loop_io *io, unsigned events)
{
	struct agent *a = CONTAINER_OF(io, struct agent, children);
	struct signalfd_siginfo info[8];
	struct rusage use;
	int status;
	pid_t pid;

	(void)events;
	(void)sys_read(a->children_fd, info, sizeof(info)); /* signals merge: ask for all of them */
	while ((pid = wait4(-1, &status, WNOHANG, &use)) > 0) {
		if (pid == a->reaper.pid)
			reaper_gone(a);
		else if (!sessions_child_gone(a->sessions, pid, status, &use))
			(void)codes_child_gone(a->codes, pid, status);
	}
}

static int watch_children(struct agent *a, struct err *e)
{
	sigset_t all, child;
	int r;

	/* Nothing but SIGKILL shall interrupt the agent; what it must know comes by descriptor. */
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_SETMASK, &all, NULL);
	(void)sigemptyset(&child);
	(void)sigaddset(&child, SIGCHLD);
	a->children_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->children_fd < 0)
		return err_sys(e, -errno, "follow children");
	r = loop_io_add(a->loop, &a->children, a->children_fd, LOOP_READ, on_child);
	return r < 0 ? err_sys(e, r, "follow children") : 0;
}

/* ---- life ---- */

static void make_sessions(struct agent *a)
{
	struct sessions_config c = {
		.loop = a->loop,
		.cgroups = &a->cgroups,
		.sinks = &a->sinks,
		.walls = &a->c.walls,
		.proc_fd = a->c.proc_fd,
	};
	int r = cgroups_init(&a->cgroups, a->c.cgroup_fd);

	a->cgroups.oom_fd = a->c.oom_fd;
	if (r < 0)
		log_line(&a->log, "cgroups can't be used (%d): trees are killed by their mark", r);
	a->sessions = sessions_new(&c);
	a->codes = codes_new(a);
}

/*
 * One Landlock domain for us and all that we start: nobody in it can mount, and
 * none can reach out of it. Had every program a domain of its own, they
 * could not signal or trace each other.
 */
static int confine(const struct agent *a, struct err *e)
{
	const struct landlock_rule rules[] = {
		{.path = "/", .may = LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC | LANDLOCK_MAY_WRITE},
		{.fd = a->cgroups.root_fd, .may = LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
	};
	int r = landlock_confine(rules, a->cgroups.root_fd < 0 ? 1 : 2, false);

	return r < 0 ? err_sys(e, r, "confine the sandbox with Landlock") : 0;
}

int agent_new(struct loop *l, const struct agent_config *c, struct agent **ret, struct err *e)
{
	struct agent *a = mem_new(sizeof(*a));
	int r;

	a->loop = l;
	a->c = *c;
	a->children_fd = -1;
	log_init(&a->log, c->log_fd, c->is_machine);
	sinks_init(&a->sinks, l);
	identity_init(&a->identity, l, c->proc_fd);
	make_sessions(a);
	/* Ending the workload means signals to everybody but process 1. */
	r = getpid() == 1 ? 0 : err_set(e, ERR_CONFLICT, "the agent must be process 1 of a namespace");
	if (r == 0)
		r = watch_children(a, e);
	if (r == 0)
		r = reaper_start(&a->reaper, c->proc_fd, !c->is_machine, e);
	if (r == 0 && !c->is_machine)
		r = confine(a, e);
	else if (r == 0)
		identity_cover(&a->identity, &a->log);
	if (r < 0) {
		(void)agent_free(a);
		return r;
	}
	open_link(a);
	*ret = a;
	return 0;
}

struct agent *agent_free(struct agent *a)
{
	if (!a)
		return NULL;
	if (a->reaper.pid) /* else nothing was started, and we may not even be process 1 */
		(void)kill(-1, SIGKILL);
	freeze_drop(a);
	identity_deinit(&a->identity);
	a->link = link_free(a->link);
	loop_timer_cancel(a->loop, &a->reopen);
	loop_timer_cancel(a->loop, &a->killing);
	loop_io_del(a->loop, &a->children);
	(void)sys_close(a->children_fd);
	reaper_deinit(&a->reaper);
	(void)sessions_free(a->sessions);
	(void)codes_free(a->codes);
	sinks_deinit(&a->sinks);
	cgroups_deinit(&a->cgroups);
	(void)sys_close(a->c.proc_fd);
	free(a->c.walls.filter.filter);
	free(a->env);
	log_deinit(&a->log);
	free(a);
	return NULL;
}
