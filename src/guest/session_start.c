/* guest/session_start.c - from a request to a running program */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/hunt.h"
#include "guest/session_int.h"
#include "guest/terminal.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

static void on_timeout(struct loop_timer *t)
{
	session_kill(CONTAINER_OF(t, struct session, timeout), "timeout");
}

static void on_spawned(struct spawn *sp, pid_t inner_pid, const struct err *why)
{
	struct session *ss = spawn_arg(sp);
	struct subscriber *u = list_empty(&ss->subscribers)
				       ? NULL
				       : LIST_ENTRY(ss->subscribers.next, struct subscriber, link);
	struct stream *s = u ? u->stream : NULL;
	struct rec_exec_started started = {
		.session = ss->number, .pid = (uint64_t)inner_pid, .stdin_offset = input_offset(&ss->in),
		.merged = ss->is_merged};

	/* Killed by us while it was being born: its end is told as that of any other. */
	if (why && !(why->code == ERR_UNAVAILABLE && ss->reason)) { /* SPAWN-1; the child is reaped as nobody's */
		ss->kill_on_detach = false;
		if (u)
			subscriber_free(u);
		if (s)
			stream_fail(s, why);
		session_free(ss);
		return;
	}
	spawn_free(take_ptr(&ss->spawn));
	ss->inner_pid = inner_pid;
	ss->state = SESSION_RUNNING;
	if (s)
		(void)stream_reply(s, &rec_exec_started_type, &started, true, NULL, 0, NULL);
	spawn_offer_to_oom_killer(ss->all->c.proc_fd, ss->pid);
	subscribers_pump(ss);
	if (ss->reaped)
		session_main_gone(ss);
}

static void describe(struct session *ss, const struct rec_exec_start *rq, const struct user *user)
{
	span_copy(rq->tag, ss->tag, sizeof(ss->tag));
	span_copy(span_of(user->name), ss->user, sizeof(ss->user));
	span_copy(rq->command, ss->command, sizeof(ss->command));
	for (const char *s = strv_first(rq->argv); s; s = strv_next(rq->argv, s)) {
		size_t used = strlen(ss->command), room = sizeof(ss->command) - used;

		(void)snprintf(ss->command + used, room, "%s%.*s", used ? " " : "",
			       (int)MIN(strlen(s), room), s);
	}
}

static struct session *session_new(struct sessions *all, const struct rec_exec_start *rq,
				   const struct user *user, struct err *e)
{
	struct session **slot = sessions_take_slot(all), *ss;

	if (!slot) {
		err_set(e, ERR_LIMIT, "%d programs are running, no more can be started",
			LIMIT_SESSIONS);
		return NULL;
	}
	ss = mem_new(sizeof(*ss));
	*ss = (struct session){
		.all = all,
		.number = ++all->last, /* SESSION-1 */
		.pty = rq->pty,
		.is_merged = rq->merge_output || rq->pty,
		.kill_on_detach = !span_is(rq->on_detach, "keep"),
		.started_ns = sys_now_ns(),
		.started_unix_ms = sys_unix_ns() / NS_PER_MS,
		.oom_before = cgroups_oom_kills(all->c.cgroups),
	};
	list_init(&ss->subscribers);
	describe(ss, rq, user);
	input_open(&ss->in, ss, -1, false);
	if (output_init(&ss->output) < 0) {
		err_set(e, ERR_LIMIT, "no memory for a session");
		free(ss);
		return NULL;
	}
	*slot = ss;
	return ss;
}

/* The child's ends, closed by the caller; ours are in the session. */
struct child_ends {
	int fds[3];
};

static int open_pipe(const struct user *user, int *ret_get, int *ret_put, struct err *e)
{
	int ends[2], r = sys_pipe(ends);

	if (r < 0)
		return err_sys(e, r, "make a pipe for the program");
	user_own(ends[0], user);
	*ret_get = ends[0];
	*ret_put = ends[1];
	return 0;
}

static int open_pipes(struct session *ss, bool with_input, const struct user *user, struct child_ends *ret,
		      struct err *e)
{
	int ours = -1, r;

	if (with_input) {
		r = open_pipe(user, &ret->fds[0], &ours, e);
		if (r == 0) {
			input_open(&ss->in, ss, ours, false);
			r = sys_nonblock(ours, true);
		}
	} else {
		r = ret->fds[0] = sys_open("/dev/null", O_RDONLY);
	}
	if (r < 0)
		return err_sys(e, r, "open the program's input");
	r = open_pipe(user, &ours, &ret->fds[1], e);
	if (r == 0)
		r = source_open(&ss->out, ss, ours, OUTPUT_STDOUT, e);
	if (r == 0 && ss->is_merged) {
		ret->fds[2] = sys_dup(ret->fds[1]);
		return ret->fds[2] < 0 ? err_sys(e, ret->fds[2], "open the program's output") : 0;
	}
	if (r == 0)
		r = open_pipe(user, &ours, &ret->fds[2], e);
	if (r == 0)
		r = source_open(&ss->err, ss, ours, OUTPUT_STDERR, e);
	return r;
}

static int open_pty(struct session *ss, const struct rec_exec_start *rq, const struct user *user,
		    struct child_ends *ret, struct err *e)
{
	int master, writer;
	int r = terminal_open(user->uid, (unsigned)rq->rows, (unsigned)rq->cols, &master,
			      &ret->fds[0], e);

	if (r < 0)
		return r;
	r = source_open(&ss->out, ss, master, OUTPUT_PTY, e);
	writer = sys_dup(master); /* a second number, so that it can be watched for room alone */
	if (r == 0 && writer < 0)
		r = err_sys(e, writer, "open the terminal");
	input_open(&ss->in, ss, writer, true);
	ret->fds[1] = sys_dup(ret->fds[0]);
	ret->fds[2] = sys_dup(ret->fds[0]);
	return r;
}

static int launch(struct session *ss, const struct rec_exec_start *rq, const struct user *user,
		  struct env *env, const struct child_ends *ends, const char *cwd, struct err *e)
{
	struct str argv = STR_INIT(LIMIT_COMMAND + 64);
	struct spawn_request sr = {
		.user = user,
		.argv = rq->argv,
		.cwd = cwd,
		.cwd_may_fail = rq->cwd.n == 0,
		.pty = ss->pty,
		.walls = ss->all->c.walls,
	};
	int r = cgroup_take(ss->all->c.cgroups, &ss->cgroup, e);

	if (rq->command.n) {
		str_add(&argv, "/bin/sh");
		str_add_mem(&argv, "\0-c\0", 4);
		str_add_mem(&argv, rq->command.p, rq->command.n);
		str_add_mem(&argv, "", 1);
		sr.argv = (struct strv){argv.p, argv.len};
	}
	memcpy(sr.fds, ends->fds, sizeof(sr.fds));
	sr.cgroup_fd = ss->cgroup ? ss->cgroup->fd : -1;
	sr.env = *env;
	*env = (struct env){0};
	if (r == 0)
		r = spawn_start(ss->all->c.loop, &sr, on_spawned, ss, &ss->spawn, e);
	if (r == 0)
		ss->pid = spawn_pid(ss->spawn);
	env_deinit(&sr.env);
	str_deinit(&argv);
	return r;
}

static int check_start(const struct rec_exec_start *rq, struct err *e)
{
	const char *first = strv_first(rq->argv);

	if (!first == !rq->command.n)
		return err_set(e, ERR_INVALID, "exec: give either argv or command");
	if (first && !*first)
		return err_set(e, ERR_INVALID, "exec: the program's name is empty");
	return 0;
}

static int mark_env(const struct session *ss, struct env *env, struct err *e)
{
	char number[32];

	if (!ss->all->has_marks)
		return 0;
	(void)snprintf(number, sizeof(number), "%" PRIu64, ss->number);
	return env_set(env, HUNT_MARK, number, e);
}

static int start(struct session *ss, const struct rec_exec_start *rq, const struct user *user,
		 struct env *env, struct err *e)
{
	struct child_ends ends = {{-1, -1, -1}};
	char cwd[USER_CWD_SIZE];
	int r = user_cwd(rq->cwd, user, cwd, sizeof(cwd), e);

	if (r == 0)
		r = mark_env(ss, env, e);
	if (r == 0)
		r = ss->pty ? open_pty(ss, rq, user, &ends, e)
			    : open_pipes(ss, rq->stdin, user, &ends, e);
	if (r == 0)
		r = launch(ss, rq, user, env, &ends, cwd, e);
	for (int i = 0; i < 3; i++)
		(void)sys_close(ends.fds[i]);
	return r;
}

void session_start(struct sessions *all, struct stream *s, const struct rec_exec_start *rq,
		   const struct user *user, struct env *env)
{
	struct loop *l = all->c.loop;
	struct err e = ERR_INIT;
	struct subscriber *u;
	struct session *ss = NULL;
	int r = check_start(rq, &e);

	if (r == 0)
		ss = session_new(all, rq, user, &e);
	if (ss && start(ss, rq, user, env, &e) < 0) {
		session_free(ss);
		ss = NULL;
	}
	env_deinit(env);
	if (!ss) {
		stream_fail(s, &e);
		return;
	}
	u = subscriber_new(ss, s, span_is(rq->on_slow, "drop"));
	ss->in.ring.head = ss->in.ring.tail = rq->late_argv + rq->late_env; /* the stream's offsets are the input's */
	if (rq->stdin || rq->pty)
		input_own(&ss->in, u);
	if (rq->timeout_ms)
		loop_timer_set(l, &ss->timeout, loop_now(l) + rq->timeout_ms * NS_PER_MS, on_timeout);
}
