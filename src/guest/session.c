/* guest/session.c - the table of sessions and the life of one; invariants in session.h */
#include "guest/session.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/freeze.h"
#include "guest/hunt.h"
#include "guest/session_int.h"
#include "guest/terminal.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "wire/gen/records.h"

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

static void drop_subscribers(struct session *ss)
{
	ss->kill_on_detach = false;
	while (!list_empty(&ss->subscribers)) {
		struct subscriber *u =
			LIST_ENTRY(ss->subscribers.next, struct subscriber, link);
		struct stream *s = u->stream;

		subscriber_free(u);
		if (s)
			stream_reset(s);
	}
}

void session_free(struct session *ss)
{
	struct sessions *all = ss->all;

	drop_subscribers(ss);
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
static struct session *oldest_ended(const struct sessions *all, bool followed_too, bool left_too)
{
	struct session *best = NULL;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (!ss || ss->state != SESSION_ENDED || (ss->n_subscribers && !followed_too))
			continue;
		if (ss->timeout.place || (ss->cgroup && !left_too)) /* SESSION-5a */
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

struct session **sessions_take_slot(struct sessions *all)
{
	struct session **slot = free_slot(all), *victim;

	if (slot)
		return slot;
	(void)sessions_left(all);
	slot = free_slot(all);
	if (slot)
		return slot;
	victim = oldest_ended(all, false, false);
	if (!victim)
		victim = oldest_ended(all, true, false);
	if (!victim) /* what it left lives on as nobody's */
		victim = oldest_ended(all, true, true);
	if (!victim)
		return NULL;
	session_free(victim);
	return free_slot(all);
}

/* SESSION-5: memory of the dead is bounded. */
static void trim_ended(struct sessions *all)
{
	for (;;) {
		struct session *oldest = oldest_ended(all, false, false);
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
	if (ss->state == SESSION_ENDED && !ss->cgroup && !ss->all->has_marks)
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
		.oom_kills = cgroups_oom_kills(ss->all->c.cgroups) - ss->oom_before,
	};

	(void)rec_encode(&rec_exec_exit_type, &x, &text, NULL); /* our own words: they fit */
	output_put_exit(&ss->output, session_keep(ss), text.p, text.len);
	str_deinit(&text);
}

/* Return: something that an ended session started lives. */
static bool is_left(struct session *ss)
{
	if (ss->cgroup ? !cgroup_is_empty(ss->cgroup->fd) : ss->all->has_marks && ss->timeout.place)
		return true; /* by their marks nobody knows, but the time may come to look for them */
	cgroup_give(ss->all->c.cgroups, take_ptr(&ss->cgroup));
	loop_timer_cancel(ss->all->c.loop, &ss->timeout);
	return false;
}

static void on_expiry(struct loop_timer *t)
{
	struct session *ss = CONTAINER_OF(t, struct session, expiry);

	if (!is_left(ss)) {
		session_free(ss);
		return;
	}
	drop_subscribers(ss);
	ss->is_mute = true;
	output_deinit(&ss->output);
}

static void on_tidy(struct loop_call *c)
{
	(void)is_left(CONTAINER_OF(c, struct session, tidy));
}

/* Looked at when somebody asks, so that nothing wakes us for it. */
unsigned sessions_left(struct sessions *all)
{
	unsigned n = 0;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (!ss || ss->state != SESSION_ENDED || (!ss->cgroup && !ss->is_mute))
			continue;
		if (is_left(ss))
			n++;
		else if (ss->is_mute)
			session_free(ss);
	}
	return n;
}

static void end(struct session *ss)
{
	struct loop *l = ss->all->c.loop;

	write_exit(ss); /* SESSION-2 */
	ss->state = SESSION_ENDED;
	loop_timer_cancel(l, &ss->held);
	if (!ss->cgroup && !ss->all->has_marks) /* SESSION-5a */
		loop_timer_cancel(l, &ss->timeout);
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

void session_main_gone(struct session *ss)
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
			session_main_gone(ss);
		return true;
	}
	return false;
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

void sessions_fork(struct sessions *all)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (!ss)
			continue;
		ss->is_forked = true;
		ss->kill_on_detach = false;
		if (ss->state == SESSION_ENDED && ss->cgroup && !ss->timeout.place && !ss->timeout_left_ns)
			cgroup_give(all->c.cgroups, take_ptr(&ss->cgroup)); /* of the template's list, or as good */
		LIST_FOR_EACH_SAFE(pos, &ss->subscribers) {
			struct subscriber *u = LIST_ENTRY(pos, struct subscriber, link);

			if (!u->stream)
				subscriber_free(u);
		}
	}
}

void sessions_pause(struct sessions *all)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		if (all->table[i])
			all->table[i]->timeout_left_ns = freeze_timer(all->c.loop, &all->table[i]->timeout);
}

void sessions_go_on(struct sessions *all)
{
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		if (all->table[i])
			freeze_timer_go_on(all->c.loop, &all->table[i]->timeout, all->table[i]->timeout_left_ns);
}

void session_attach(struct sessions *all, struct stream *s, const struct rec_exec_attach *rq)
{
	struct err e = ERR_INIT;
	struct rec_exec_started started;
	struct subscriber *u;
	struct session *ss;
	uint64_t offset;
	int r = find_live(all, rq->session, &ss, &e);

	if (r == 0 && ss->is_mute)
		r = err_set(&e, ERR_NOT_FOUND, "session %" PRIu64 " has ended, and its output is not kept any more",
			    ss->number);
	if (r == 0 && ss->is_forked)
		r = err_set(&e, ERR_FORKED,
			    "session %" PRIu64 " belongs to the machine this one is a copy of; its program lives on "
			    "here as process %d", ss->number, (int)ss->inner_pid);
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
	if (ss->state == SESSION_ENDED && !is_left(ss) && !(ss->all->has_marks && sig == SIGKILL))
		return err_set(e, ERR_GONE, "session %" PRIu64 " has ended", number);
	if (sig == SIGKILL) {
		session_kill(ss, "killed");
		return 0;
	}
	if (ss->state == SESSION_ENDED)
		return err_set(e, ERR_GONE, "session %" PRIu64 " has ended; what it left running can only be killed "
			       "(signal KILL)", number);
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

static struct session *first_after(const struct sessions *all, uint64_t after)
{
	struct session *best = NULL;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		struct session *ss = all->table[i];

		if (ss && ss->state != SESSION_STARTING && ss->number > after &&
		    (!best || ss->number < best->number))
			best = ss;
	}
	return best;
}

bool session_next(struct sessions *all, uint64_t after, struct rec_exec_info *ret)
{
	struct session *ss;

	if (!after)
		(void)sessions_left(all);
	ss = first_after(all, after);

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
		.produced = ss->is_mute ? 0 : output_tail(&ss->output),
		.left = ss->state == SESSION_ENDED && is_left(ss),
	};
	return true;
}
