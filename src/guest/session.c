/* guest/session.c - the table of sessions and the life of one; invariants in session.h */
#include "guest/session.h"
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/hunt.h"
#include "guest/session_int.h"
#include "guest/terminal.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

#define OOM_SCORE "500" /* above the agent's, which the keeper chose */

enum {
	ENDED_MEMORY_MAX = 4 * 1024 * 1024, /* output of all ended sessions together */
	HUNT_ROUNDS = 100,
	SIGNAL_EXIT_CODE = -1,
};
static const uint64_t HUNT_PAUSE_NS = 20 * NS_PER_MS;

struct sessions *sessions_new(const struct sessions_config *c)
{
	struct sessions *all = mem_new(sizeof(*all));

	all->c = *c;
	all->has_marks = c->cgroups->root_fd < 0;
	return all;
}

/* ---- the table ---- */

static struct session *find(const struct sessions *all, uint64_t number)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		if (all->table[i] && all->table[i]->number == number)
			return all->table[i];
	return NULL;
}

static void cancel_timers(struct session *ss)
{
	struct loop *l = ss->all->c.loop;

	loop_timer_cancel(l, &ss->timeout);
	loop_timer_cancel(l, &ss->held);
	loop_timer_cancel(l, &ss->expiry);
}

static void session_free(struct session *ss)
{
	struct sessions *all = ss->all;

	ss->kill_on_detach = false;
	while (!list_empty(&ss->subscribers)) {
		struct subscriber *u =
			LIST_ENTRY(ss->subscribers.next, struct subscriber, link);
		struct stream *s = u->stream;

		subscriber_free(u);
		if (s)
			stream_reset(s);
	}
	cancel_timers(ss);
	loop_call_cancel(all->c.loop, &ss->tidy);
	loop_timer_cancel(all->c.loop, &ss->hunt);
	input_close(&ss->in);
	source_close(&ss->out);
	source_close(&ss->err);
	cgroup_give(all->c.cgroups, ss->cgroup);
	output_deinit(&ss->output);
	spawn_free(ss->spawn);
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		if (all->table[i] == ss)
			all->table[i] = NULL;
	free(ss);
}

struct sessions *sessions_free(struct sessions *all)
{
	for (size_t i = 0; all && i < LIMIT_SESSIONS; i++)
		if (all->table[i])
			session_free(all->table[i]);
	free(all);
	return NULL;
}

/* The ended session that can be missed most easily: without followers, then the oldest. */
static struct session *oldest_ended(const struct sessions *all, bool followed_too)
{
	struct session *best = NULL;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (!ss || ss->state != SESSION_ENDED || (ss->n_subscribers && !followed_too))
			continue;
		if (!best || ss->number < best->number)
			best = ss;
	}
	return best;
}

static struct session **free_slot(struct sessions *all)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		if (!all->table[i])
			return &all->table[i];
	return NULL;
}

static struct session **take_slot(struct sessions *all)
{
	struct session **slot = free_slot(all), *victim;

	if (slot)
		return slot;
	victim = oldest_ended(all, false);
	if (!victim)
		victim = oldest_ended(all, true);
	if (!victim)
		return NULL;
	session_free(victim);
	return free_slot(all);
}

/* SESSION-5: memory of the dead is bounded. */
static void trim_ended(struct sessions *all)
{
	for (;;) {
		struct session *oldest = oldest_ended(all, false);
		size_t total = 0;

		for (size_t i = 0; i < LIMIT_SESSIONS; i++)
			if (all->table[i] && all->table[i]->state == SESSION_ENDED)
				total += output_memory(&all->table[i]->output);
		if (!oldest || total <= ENDED_MEMORY_MAX)
			return;
		session_free(oldest);
	}
}

/* ---- the end ---- */

static void on_hunt(struct loop_timer *t)
{
	struct session *ss = CONTAINER_OF(t, struct session, hunt);
	struct loop *l = ss->all->c.loop;

	if (hunt_kill(ss->all->c.proc_fd, ss->number) && ++ss->hunts < HUNT_ROUNDS)
		loop_timer_set(l, &ss->hunt, loop_now(l) + HUNT_PAUSE_NS, on_hunt);
}

void session_kill(struct session *ss, const char *reason)
{
	if (ss->state == SESSION_ENDED)
		return;
	if (!ss->reason)
		ss->reason = reason;
	if (!ss->reaped)
		(void)kill(ss->pid, SIGKILL);
	if (ss->cgroup)
		(void)cgroup_kill(ss->cgroup);
	else
		on_hunt(&ss->hunt);
}

static const char *reason_of(const struct session *ss)
{
	if (ss->reason)
		return ss->reason;
	if (!WIFSIGNALED(ss->status))
		return "exited";
	if (WTERMSIG(ss->status) == SIGKILL &&
	    cgroups_oom_kills(ss->all->c.cgroups) > ss->oom_before)
		return "oom";
	return "signaled";
}

static void write_exit(struct session *ss)
{
	struct str text = STR_INIT(OUTPUT_EXIT_MAX);
	struct rec_exec_exit x = {
		.code = WIFEXITED(ss->status) ? WEXITSTATUS(ss->status) : SIGNAL_EXIT_CODE,
		.signal = WIFSIGNALED(ss->status) ? (uint64_t)WTERMSIG(ss->status) : 0,
		.reason = span_of(reason_of(ss)),
		.cpu_ms = (ss->cgroup ? MAX(cgroup_cpu_us(ss->cgroup), ss->cpu_us) : ss->cpu_us) / 1000,
		.peak_kib = ss->peak_kib,
		.wall_ms = ss->wall_ms,
	};

	(void)rec_encode(&rec_exec_exit_type, &x, &text, NULL); /* our own words: they fit */
	output_put_exit(&ss->output, session_keep(ss), text.p, text.len);
	str_deinit(&text);
}

static void on_expiry(struct loop_timer *t)
{
	session_free(CONTAINER_OF(t, struct session, expiry));
}

static void on_tidy(struct loop_call *c)
{
	struct session *ss = CONTAINER_OF(c, struct session, tidy);

	cgroup_give(ss->all->c.cgroups, take_ptr(&ss->cgroup));
}

static void end(struct session *ss)
{
	struct loop *l = ss->all->c.loop;

	write_exit(ss); /* SESSION-2 */
	ss->state = SESSION_ENDED;
	cancel_timers(ss);
	input_close(&ss->in);
	source_close(&ss->out);
	source_close(&ss->err);
	loop_timer_set(l, &ss->expiry, loop_now(l) + SESSION_KEPT_NS, on_expiry);
	subscribers_pump(ss);
	loop_defer(l, &ss->tidy, on_tidy); /* behind the link's own call: the exit is on its way by then */
	trim_ended(ss->all);
}

static bool is_drained(const struct source *src)
{
	return !src->session || src->fd < 0;
}

void session_maybe_end(struct session *ss)
{
	bool at_end = is_drained(&ss->out) && is_drained(&ss->err);

	if (ss->state != SESSION_ENDING)
		return;
	if (at_end || (ss->held_over && !ss->out.owed && !ss->err.owed))
		end(ss);
}

static void on_held(struct loop_timer *t)
{
	struct session *ss = CONTAINER_OF(t, struct session, held);

	ss->held_over = true;
	session_maybe_end(ss);
}

static void main_gone(struct session *ss)
{
	struct loop *l = ss->all->c.loop;

	ss->state = SESSION_ENDING;
	sources_note_owed(ss);
	loop_timer_set(l, &ss->held, loop_now(l) + SESSION_HELD_NS, on_held);
	session_maybe_end(ss);
}

bool sessions_child_gone(struct sessions *all, pid_t pid, int status, const struct rusage *use)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (!ss || ss->pid != pid || ss->reaped)
			continue;
		ss->reaped = true;
		ss->status = status;
		ss->wall_ms = (sys_now_ns() - ss->started_ns) / NS_PER_MS;
		ss->cpu_us = (uint64_t)(use->ru_utime.tv_sec + use->ru_stime.tv_sec) * 1000000 +
			     (uint64_t)(use->ru_utime.tv_usec + use->ru_stime.tv_usec);
		ss->peak_kib = (uint64_t)use->ru_maxrss;
		if (ss->state == SESSION_RUNNING) /* else its report is still on the way */
			main_gone(ss);
		return true;
	}
	return false;
}

/* ---- the beginning ---- */

static void on_timeout(struct loop_timer *t)
{
	session_kill(CONTAINER_OF(t, struct session, timeout), "timeout");
}

/*
 * When memory runs out, the program goes before the agent, which answers for it. Not in the
 * child: until it executes, it shares our memory, and the kernel would score us both.
 */
static void offer_to_oom_killer(const struct session *ss)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "%d/oom_score_adj", (int)ss->pid);
	(void)sys_write_file(ss->all->c.proc_fd, path, OOM_SCORE); /* gone already: as good */
}

static void on_spawned(struct spawn *sp, pid_t inner_pid, const struct err *why)
{
	struct session *ss = spawn_arg(sp);
	struct subscriber *u = list_empty(&ss->subscribers)
				       ? NULL
				       : LIST_ENTRY(ss->subscribers.next, struct subscriber, link);
	struct stream *s = u ? u->stream : NULL;
	struct rec_exec_started started = {.session = ss->number, .pid = (uint64_t)inner_pid};

	if (why) { /* SPAWN-1; the child is reaped as nobody's */
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
	offer_to_oom_killer(ss);
	subscribers_pump(ss);
	if (ss->reaped)
		main_gone(ss);
}

static void describe(struct session *ss, const struct rec_exec_start *rq, const struct user *user)
{
	struct str text = STR_INIT(LIMIT_TEXT_MEDIUM);

	span_copy(rq->tag, ss->tag, sizeof(ss->tag));
	span_copy(span_of(user->name), ss->user, sizeof(ss->user));
	span_copy(rq->command, ss->command, sizeof(ss->command));
	for (const char *s = strv_first(rq->argv); s; s = strv_next(rq->argv, s)) {
		size_t used = strlen(ss->command), room = sizeof(ss->command) - used;

		(void)snprintf(ss->command + used, room, "%s%.*s", used ? " " : "",
			       (int)MIN(strlen(s), room), s);
	}
	str_deinit(&text);
}

static struct session *session_new(struct sessions *all, const struct rec_exec_start *rq,
				   const struct user *user, struct err *e)
{
	struct session **slot = take_slot(all), *ss;

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

static int open_pipe(int *ret_get, int *ret_put, struct err *e)
{
	int ends[2], r = sys_pipe(ends);

	if (r < 0)
		return err_sys(e, r, "make a pipe for the program");
	*ret_get = ends[0];
	*ret_put = ends[1];
	return 0;
}

static int open_pipes(struct session *ss, bool with_input, struct child_ends *ret, struct err *e)
{
	int ours = -1, r;

	if (with_input) {
		r = open_pipe(&ret->fds[0], &ours, e);
		if (r == 0) {
			input_open(&ss->in, ss, ours, false);
			r = sys_nonblock(ours, true);
		}
	} else {
		r = ret->fds[0] = sys_open("/dev/null", O_RDONLY);
	}
	if (r < 0)
		return err_sys(e, r, "open the program's input");
	r = open_pipe(&ours, &ret->fds[1], e);
	if (r == 0)
		r = source_open(&ss->out, ss, ours, OUTPUT_STDOUT, e);
	if (r == 0)
		r = open_pipe(&ours, &ret->fds[2], e);
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

/* "~" and "~/x" are the home; what is relative starts there. */
static int resolve_cwd(struct span cwd, const struct user *user, char *ret, size_t size,
		       struct err *e)
{
	const char *sep = "/";
	int n;

	if (cwd.n && cwd.p[0] == '~' && (cwd.n == 1 || cwd.p[1] == '/')) {
		cwd.p++;
		cwd.n--;
		sep = "";
	} else if (cwd.n && cwd.p[0] == '/') {
		n = snprintf(ret, size, "%.*s", (int)cwd.n, cwd.p);
		return (size_t)n < size ? 0 : err_set(e, ERR_LIMIT, "cwd is too long");
	}
	n = snprintf(ret, size, "%s%s%.*s", user->home, cwd.n ? sep : "", (int)cwd.n, cwd.p);
	return (size_t)n < size ? 0 : err_set(e, ERR_LIMIT, "cwd is too long");
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
	char cwd[LIMIT_PATH + PASSWD_PATH_MAX + 2];
	int r = resolve_cwd(rq->cwd, user, cwd, sizeof(cwd), e);

	if (r == 0)
		r = mark_env(ss, env, e);
	if (r == 0)
		r = ss->pty ? open_pty(ss, rq, user, &ends, e)
			    : open_pipes(ss, rq->stdin, &ends, e);
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
	if (rq->stdin || rq->pty)
		input_own(&ss->in, u);
	if (rq->timeout_ms)
		loop_timer_set(l, &ss->timeout, loop_now(l) + rq->timeout_ms * NS_PER_MS, on_timeout);
}

/* ---- calls on a session ---- */

static int find_live(const struct sessions *all, uint64_t number, struct session **ret,
		     struct err *e)
{
	*ret = find(all, number);
	if (!*ret || (*ret)->state == SESSION_STARTING)
		return err_set(e, ERR_NOT_FOUND, "no session %" PRIu64, number);
	return 0;
}

static unsigned live_subscribers(const struct session *ss)
{
	unsigned n = 0;

	LIST_FOR_EACH(pos, &ss->subscribers)
		n += LIST_ENTRY(pos, struct subscriber, link)->stream != NULL;
	return n;
}

static int attach_check(const struct session *ss, const struct rec_exec_attach *rq, struct err *e)
{
	if (live_subscribers(ss) >= LIMIT_SUBSCRIBERS)
		return err_set(e, ERR_LIMIT, "session %" PRIu64 " has %d readers, no more can join",
			       ss->number, LIMIT_SUBSCRIBERS);
	if (!rq->from_now && rq->offset > output_tail(&ss->output))
		return err_set(e, ERR_INVALID,
			       "offset %" PRIu64 " is beyond the output of session %" PRIu64
			       " (%" PRIu64 " bytes so far)",
			       rq->offset, ss->number, output_tail(&ss->output));
	return 0;
}

void session_attach(struct sessions *all, struct stream *s, const struct rec_exec_attach *rq)
{
	struct err e = ERR_INIT;
	struct rec_exec_started started;
	struct subscriber *u;
	struct session *ss;
	uint64_t offset;
	int r = find_live(all, rq->session, &ss, &e);

	if (r == 0)
		r = attach_check(ss, rq, &e);
	if (r < 0) {
		stream_fail(s, &e);
		return;
	}
	offset = rq->from_now ? output_tail(&ss->output)
			      : MAX(rq->offset, output_head(&ss->output));
	stream_start_at(s, offset);
	u = subscriber_new(ss, s, span_is(rq->on_slow, "drop"));
	subscriber_replace_lost(ss, offset);
	if (rq->stdin)
		input_own(&ss->in, u);
	started = (struct rec_exec_started){
		.session = ss->number,
		.pid = (uint64_t)ss->inner_pid,
		.offset = offset,
		.stdin_offset = input_offset(&ss->in),
	};
	(void)stream_reply(s, &rec_exec_started_type, &started, true, NULL, 0, NULL);
	subscribers_pump(ss);
	sources_resume(ss);
}

int session_signal(struct sessions *all, uint64_t number, int sig, struct err *e)
{
	struct session *ss;
	int r = find_live(all, number, &ss, e);

	if (r < 0)
		return r;
	if (ss->state == SESSION_ENDED)
		return err_set(e, ERR_GONE, "session %" PRIu64 " has ended", number);
	if (sig == SIGKILL) {
		session_kill(ss, "killed");
		return 0;
	}
	/* The group's number is only ours while its leader is not reaped. */
	if (ss->reaped)
		return err_set(e, ERR_GONE, "the main process of session %" PRIu64 " has ended", number);
	if (kill(-ss->pid, sig) < 0)
		return errno == ESRCH ? err_set(e, ERR_GONE,
						"session %" PRIu64 "'s process group is empty",
						number)
				      : err_sys(e, -errno, "signal session %" PRIu64, number);
	return 0;
}

int session_resize(struct sessions *all, uint64_t number, unsigned rows, unsigned cols,
		   struct err *e)
{
	struct session *ss;
	int r = find_live(all, number, &ss, e);

	if (r < 0)
		return r;
	if (!ss->pty)
		return err_set(e, ERR_CONFLICT, "session %" PRIu64 " has no terminal", number);
	if (ss->out.fd < 0)
		return err_set(e, ERR_GONE, "session %" PRIu64 " has ended", number);
	return terminal_resize(ss->out.fd, rows, cols, e);
}

unsigned sessions_running(const struct sessions *all)
{
	unsigned n = 0;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		n += all->table[i] && all->table[i]->state != SESSION_ENDED;
	return n;
}

static const struct session *first_after(const struct sessions *all, uint64_t after)
{
	const struct session *best = NULL;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		const struct session *ss = all->table[i];

		if (ss && ss->state != SESSION_STARTING && ss->number > after &&
		    (!best || ss->number < best->number))
			best = ss;
	}
	return best;
}

bool session_next(const struct sessions *all, uint64_t after, struct rec_exec_info *ret)
{
	const struct session *ss = first_after(all, after);

	if (!ss)
		return false;
	*ret = (struct rec_exec_info){
		.session = ss->number,
		.pid = (uint64_t)ss->inner_pid,
		.tag = span_of(ss->tag),
		.command = span_of(ss->command),
		.user = span_of(ss->user),
		.running = ss->state != SESSION_ENDED,
		.pty = ss->pty,
		.code = ss->reaped && WIFEXITED(ss->status) ? WEXITSTATUS(ss->status)
			: ss->reaped			    ? SIGNAL_EXIT_CODE
							    : 0,
		.signal = ss->reaped && WIFSIGNALED(ss->status) ? (uint64_t)WTERMSIG(ss->status) : 0,
		.subscribers = ss->n_subscribers,
		.started_ms = ss->started_unix_ms,
		.produced = output_tail(&ss->output),
	};
	return true;
}
