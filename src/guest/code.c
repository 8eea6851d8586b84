/* guest/code.c - the table of contexts and the life of one; invariants in code.h */
#include "guest/code.h"
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/code_int.h"
#include "guest/hunt.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/fd.h"
#include "sys/sock.h"

enum { MESSAGE_MAX = LIMIT_TEXT_MEDIUM, HUNT_ROUNDS = 100 };
static const uint64_t HUNT_PAUSE_NS = 20 * NS_PER_MS;
static const uint64_t HUNT_BASE = (uint64_t)1 << 62; /* marks of contexts, far from those of sessions */

static struct loop *loop_of(const struct code *c)
{
	return c->all->agent->loop;
}

/* ---- the table ---- */

struct codes *codes_new(struct agent *a)
{
	struct codes *all = mem_new(sizeof(*all));

	all->agent = a;
	list_init(&all->runs);
	return all;
}

struct codes *codes_free(struct codes *all)
{
	if (!all)
		return NULL;
	/* The link is gone, and the streams with it. */
	LIST_FOR_EACH(pos, &all->runs)
		LIST_ENTRY(pos, struct code_run, link)->s = NULL;
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		if (!all->table[i])
			continue;
		all->table[i]->opening = NULL;
		code_free(all->table[i]);
	}
	while (!list_empty(&all->runs))
		code_run_free(LIST_ENTRY(all->runs.next, struct code_run, link));
	free(all);
	return NULL;
}

struct code *code_find(const struct codes *all, uint64_t number)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
		if (all->table[i] && all->table[i]->number == number && !all->table[i]->closing)
			return all->table[i];
	return NULL;
}

static struct code **free_slot(struct codes *all)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
		if (!all->table[i])
			return &all->table[i];
	return NULL;
}

bool code_next(const struct codes *all, uint64_t after, struct rec_code_context *ret)
{
	const struct code *best = NULL;

	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		const struct code *c = all->table[i];

		if (c && !c->closing && c->number > after && (!best || c->number < best->number))
			best = c;
	}
	if (!best)
		return false;
	code_info(best, ret);
	return true;
}

void code_info(const struct code *c, struct rec_code_context *ret)
{
	static const char *const states[] = {
		[CODE_STARTING] = "starting", [CODE_IDLE] = "idle",   [CODE_BUSY] = "busy",
		[CODE_DYING] = "ended",	      [CODE_ENDED] = "ended",
	};

	*ret = (struct rec_code_context){
		.context = c->number,
		.language = span_of(c->language->name),
		.state = span_of(states[c->state]),
		.pid = c->state == CODE_ENDED ? 0 : (uint64_t)c->inner_pid,
		.cwd = span_of(c->cwd),
		.runs = c->runs,
		.warm = c->warm,
	};
}

int code_new(struct codes *all, const struct rec_code_open *rq, struct code **ret, struct err *e)
{
	const struct language *language = language_find(rq->language, e);
	struct code **slot = free_slot(all), *c;
	int r;

	if (!language)
		return -ERR_NOT_FOUND;
	if (!slot)
		return err_set(e, ERR_LIMIT, "there are %d contexts, no more can be opened",
			       LIMIT_CONTEXTS);
	c = mem_new(sizeof(*c));
	c->all = all;
	c->language = language;
	c->state = CODE_ENDED;
	c->talk_fd = c->out.fd = c->err.fd = -1;
	c->env.max = LIMIT_ENV_BYTES;
	c->end_message.max = MESSAGE_MAX;
	c->cwd_may_fail = rq->cwd.n == 0;
	str_add_mem(&c->env, rq->env.p, rq->env.n);
	r = agent_user(all->agent, rq->user, &c->user, e);
	if (r == 0)
		r = user_cwd(rq->cwd, &c->user, c->cwd, sizeof(c->cwd), e);
	if (r < 0) {
		code_free(c);
		return r;
	}
	c->number = ++all->last;
	*slot = *ret = c;
	return 0;
}

void code_free(struct code *c)
{
	struct codes *all = c->all;

	if (c->run)
		code_run_fail(c, &(struct err){ERR_GONE, "the context was closed"});
	if (c->opening)
		stream_fail(c->opening, &(struct err){ERR_GONE, "the context was closed"});
	loop_timer_cancel(loop_of(c), &c->starting);
	loop_timer_cancel(loop_of(c), &c->timeout);
	loop_timer_cancel(loop_of(c), &c->renewal);
	loop_timer_cancel(loop_of(c), &c->hunt);
	code_talk_close(c);
	cgroup_give(&all->agent->cgroups, c->cgroup);
	spawn_free(c->spawn);
	str_deinit(&c->env);
	free(c->told);
	str_deinit(&c->end_message);
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
		if (all->table[i] == c)
			all->table[i] = NULL;
	free(c);
}

/* ---- signals and death ---- */

void code_signal(struct code *c, int signo)
{
	if (c->pid && !c->reaped)
		(void)kill(-c->pid, signo);
}

static void on_hunt(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, hunt);
	struct loop *l = loop_of(c);

	if (hunt_kill(c->all->agent->c.proc_fd, HUNT_BASE + c->number) && ++c->hunts < HUNT_ROUNDS)
		loop_timer_set(l, &c->hunt, loop_now(l) + HUNT_PAUSE_NS, on_hunt);
}

/* The interpreter and all that it started. */
static void kill_tree(struct code *c)
{
	if (!c->reaped)
		(void)kill(c->pid, SIGKILL);
	if (c->cgroup)
		(void)cgroup_kill(c->cgroup);
	else
		on_hunt(&c->hunt);
}

void code_kill(struct code *c, const char *word, const char *fmt, ...)
{
	va_list ap;

	if (c->state == CODE_DYING || c->state == CODE_ENDED)
		return;
	loop_timer_cancel(loop_of(c), &c->starting);
	loop_timer_cancel(loop_of(c), &c->timeout);
	loop_timer_cancel(loop_of(c), &c->renewal);
	c->state = CODE_DYING;
	c->end_word = word;
	str_clear(&c->end_message);
	va_start(ap, fmt);
	str_addv(&c->end_message, fmt, ap);
	va_end(ap);
	kill_tree(c);
}

static void explain_end(struct code *c)
{
	if (c->end_word)
		return;
	c->end_word = "ended";
	if (WIFSIGNALED(c->status))
		str_addf(&c->end_message, "the interpreter was killed by signal %d (%s)", WTERMSIG(c->status),
			 strsignal(WTERMSIG(c->status)));
	else
		str_addf(&c->end_message, "the interpreter ended with exit status %d",
			 WEXITSTATUS(c->status));
	str_add(&c->end_message, ": its state is lost, a new one starts at the next use");
}

static void tell_end(struct code *c)
{
	struct err why = ERR_INIT;
	int code = WIFEXITED(c->status) ? WEXITSTATUS(c->status) : -1;
	uint64_t signo = WIFSIGNALED(c->status) ? (uint64_t)WTERMSIG(c->status) : 0;

	explain_end(c);
	if (c->run && c->proto.told)
		code_run_end(c, c->end_word, code, signo, str_text(&c->end_message));
	err_set(&why, ERR_GONE, "context %" PRIu64 ": %s", c->number, str_text(&c->end_message));
	if (c->run && !(c->restarting && c->run->source)) /* else it waits for the next one */
		code_run_fail(c, &why);
	if (c->opening && !c->restarting)
		stream_fail(take_ptr(&c->opening), &why);
}

void code_gone(struct code *c)
{
	struct err e = ERR_INIT;
	bool again = c->restarting;

	loop_timer_cancel(loop_of(c), &c->starting);
	c->state = CODE_DYING;
	if (c->proto.reseeding || c->is_awaited)
		code_proven(c);
	tell_end(c);
	code_talk_close(c);
	cgroup_give(&c->all->agent->cgroups, take_ptr(&c->cgroup));
	c->state = CODE_ENDED;
	c->restarting = false;
	if (c->closing || (!c->was_ready && !again)) { /* what never worked is not kept */
		code_free(c);
		return;
	}
	if (!again || code_launch(c, &e) == 0)
		return;
	if (c->opening)
		stream_fail(take_ptr(&c->opening), &e);
	if (c->run)
		code_run_fail(c, &e);
}

void code_close(struct code *c)
{
	if (c->state == CODE_ENDED) {
		code_free(c);
		return;
	}
	c->closing = true;
	c->restarting = false;
	code_kill(c, "ended", "the context was closed");
}

bool codes_child_gone(struct codes *all, pid_t pid, int status)
{
	for (size_t i = 0; i < LIMIT_CONTEXTS; i++) {
		struct code *c = all->table[i];

		if (!c || c->pid != pid || c->reaped || c->state == CODE_ENDED)
			continue;
		c->reaped = true;
		c->status = status;
		if (!c->spawn) { /* else its report is on the way */
			kill_tree(c);
			code_talk_over(c);
		}
		return true;
	}
	return false;
}

/* ---- birth ---- */

static void on_slow_start(struct loop_timer *t)
{
	struct code *c = CONTAINER_OF(t, struct code, starting);

	code_kill(c, "ended", "its interpreter was not ready after %d s",
		  (int)(CODE_START_NS / NS_PER_S));
}

/* It never ran: the child is reaped as nobody's. */
static void not_spawned(struct code *c, const struct err *why)
{
	bool keep = c->was_ready && !c->closing;

	loop_timer_cancel(loop_of(c), &c->starting);
	code_talk_close(c);
	c->state = CODE_ENDED;
	c->restarting = false;
	if (c->run)
		code_run_fail(c, why);
	if (c->opening)
		stream_fail(take_ptr(&c->opening), why);
	cgroup_give(&c->all->agent->cgroups, take_ptr(&c->cgroup));
	if (!keep)
		code_free(c);
}

static void on_spawned(struct spawn *sp, pid_t inner_pid, const struct err *why)
{
	struct code *c = spawn_arg(sp);
	struct err reason = ERR_INIT;

	err_copy(&reason, why);
	spawn_free(take_ptr(&c->spawn));
	if (why) {
		not_spawned(c, &reason);
		return;
	}
	c->inner_pid = inner_pid;
	spawn_offer_to_oom_killer(c->all->agent->c.proc_fd, c->pid);
	if (c->reaped) {
		kill_tree(c);
		code_talk_over(c);
	}
}

/* The ends of the interpreter, closed by the caller; ours are in the context. */
struct ends {
	int harness, talk, out, err;
};

static int write_harness(const struct code *c, struct err *e)
{
	int fd = sys_memfd("harness", 0);
	int r = fd;

	if (r >= 0)
		r = sys_pwrite_full(fd, c->language->harness.p, c->language->harness.n, 0);
	if (r >= 0)
		return fd;
	(void)sys_close(fd);
	return err_sys(e, r, "keep the harness of %s", c->language->name);
}

static int open_ends(struct code *c, struct ends *ret, struct err *e)
{
	int talk[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};
	int r = sys_socketpair(talk);

	if (r == 0)
		r = sys_nonblock(talk[1], false);
	if (r == 0)
		r = sys_pipe(out);
	if (r == 0)
		r = sys_pipe(err);
	if (r == 0) {
		user_own(out[0], &c->user);
		user_own(err[0], &c->user);
	}
	ret->talk = talk[1];
	ret->out = out[1];
	ret->err = err[1];
	if (r == 0)
		return code_talk_open(c, talk[0], out[0], err[0], e);
	(void)sys_close(talk[0]);
	(void)sys_close(out[0]);
	return err_sys(e, r, "make the lines to an interpreter");
}

static int make_env(const struct code *c, struct env *env, struct err *e)
{
	char mark[32];
	int r = agent_env(c->all->agent, &c->user, false, (struct strv){c->env.p, c->env.len}, env, e);

	if (r == 0 && c->all->agent->cgroups.root_fd < 0) {
		(void)snprintf(mark, sizeof(mark), "%" PRIu64, HUNT_BASE + c->number);
		r = env_set(env, HUNT_MARK, mark, e);
	}
	return r;
}

static int spawn(struct code *c, const struct ends *ends, struct err *e)
{
	struct agent *a = c->all->agent;
	struct spawn_request sr = {
		.user = &c->user,
		.argv = c->language->argv,
		.cwd = c->cwd,
		.cwd_may_fail = c->cwd_may_fail,
		.fds = {ends->harness, ends->out, ends->err},
		.talk_fd = ends->talk,
		.walls = &a->c.walls,
	};
	int r;

	env_init(&sr.env);
	r = make_env(c, &sr.env, e);
	if (r == 0)
		r = cgroup_take(&a->cgroups, &c->cgroup, e);
	sr.cgroup_fd = c->cgroup ? c->cgroup->fd : -1;
	if (r == 0)
		r = spawn_start(a->loop, &sr, on_spawned, c, &c->spawn, e);
	if (r == 0)
		c->pid = spawn_pid(c->spawn);
	env_deinit(&sr.env);
	return r;
}

int code_launch(struct code *c, struct err *e)
{
	struct ends ends = {-1, -1, -1, -1};
	struct loop *l = loop_of(c);
	int r = write_harness(c, e);

	ends.harness = r;
	if (r >= 0)
		r = open_ends(c, &ends, e);
	if (r >= 0)
		r = spawn(c, &ends, e);
	(void)sys_close(ends.harness);
	(void)sys_close(ends.talk);
	(void)sys_close(ends.out);
	(void)sys_close(ends.err);
	if (r < 0) {
		code_talk_close(c);
		cgroup_give(&c->all->agent->cgroups, take_ptr(&c->cgroup));
		return r;
	}
	code_env_keep(c);
	loop_timer_cancel(l, &c->hunt);
	c->hunts = 0;
	c->reaped = c->is_alone = c->is_stale = c->is_held = false;
	c->stale_proofs = 0;
	c->inner_pid = 0;
	c->end_word = NULL;
	str_clear(&c->end_message);
	c->state = CODE_STARTING;
	loop_timer_set(l, &c->starting, loop_now(l) + CODE_START_NS, on_slow_start);
	return 0;
}

void code_ready(struct code *c)
{
	struct rec_code_context info;

	loop_timer_cancel(loop_of(c), &c->starting);
	c->was_ready = true;
	c->state = CODE_IDLE;
	if (c->opening) {
		code_info(c, &info);
		agent_answer(take_ptr(&c->opening), &rec_code_context_type, &info, 0, NULL);
	}
	if (c->run)
		code_run_begin(c);
}

unsigned codes_busy(const struct codes *all)
{
	unsigned n = 0;

	for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
		n += all->table[i] && all->table[i]->state == CODE_BUSY;
	return n;
}
