/* guest/exec.c - the exec methods */
#include <stdlib.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/items.h"
#include "guest/late.h"
#include "guest/session.h"
#include "loop/link.h"
#include "wire/gen/records.h"

static const char default_path[] =
	"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

int agent_env(const struct agent *a, const struct user *user, bool terminal, struct strv more,
	      struct env *env, struct err *e)
{
	int r = env_set(env, "PATH", default_path, e);

	if (r == 0)
		r = env_set(env, "HOME", user->home, e);
	if (r == 0)
		r = env_set(env, "USER", user->name, e);
	if (r == 0)
		r = env_set(env, "LOGNAME", user->name, e);
	if (r == 0) /* every glibc has it; without one, names and texts beyond ASCII are question marks */
		r = env_set(env, "LANG", "C.UTF-8", e);
	if (r == 0 && terminal)
		r = env_set(env, "TERM", "xterm-256color", e);
	if (r == 0)
		r = env_add_all(env, (struct strv){a->env, a->env_len}, e);
	if (r == 0)
		r = env_add_all(env, more, e);
	return r;
}

void exec_begin(struct agent *a, struct stream *s, const struct rec_exec_start *rq, struct strv late)
{
	struct err e = ERR_INIT;
	struct user user;
	struct env env;

	env_init(&env);
	env_reserve(&env, rq->env.n + late.n, strv_count(rq->env) + strv_count(late));
	if (agent_user(a, rq->user, &user, &e) < 0 ||
	    agent_env(a, &user, rq->pty, rq->env, &env, &e) < 0 || env_add_all(&env, late, &e) < 0) {
		env_deinit(&env);
		stream_fail(s, &e);
		return;
	}
	session_start(a->sessions, s, rq, &user, &env);
}

void exec_start_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_exec_start *rq = rec;

	if (rq->late_argv || rq->late_env)
		late_start(a, s, rq);
	else
		exec_begin(a, s, rq, (struct strv){0});
}

void exec_attach_call(struct agent *a, struct stream *s, const void *rec)
{
	session_attach(a->sessions, s, rec);
}

static void answer_empty(struct stream *s, int r, const struct err *e)
{
	struct rec_empty none = {0};

	agent_answer(s, &rec_empty_type, &none, r, e);
}

void exec_signal_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_exec_signal *rq = rec;
	struct err e = ERR_INIT;

	answer_empty(s, session_signal(a->sessions, rq->session, (int)rq->signal, &e), &e);
}

void exec_resize_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_exec_resize *rq = rec;
	struct err e = ERR_INIT;
	int r = session_resize(a->sessions, rq->session, (unsigned)rq->rows, (unsigned)rq->cols,
			       &e);

	answer_empty(s, r, &e);
}

/* ---- exec.list ---- */

struct listing {
	struct sessions *sessions;
	uint64_t after, current;
};

static int list_fill(void *arg, void *rec, struct err *e)
{
	struct listing *li = arg;
	struct rec_exec_info *info = rec;

	(void)e;
	if (!session_next(li->sessions, li->after, info))
		return ITEMS_END;
	li->current = info->session;
	return ITEMS_ONE;
}

static void list_advance(void *arg)
{
	struct listing *li = arg;

	li->after = li->current;
}

static const struct items_source list_source = {
	&rec_exec_info_type,
	list_fill,
	list_advance,
	free,
};

void exec_list_call(struct agent *a, struct stream *s, const void *rec)
{
	struct listing *li = mem_new(sizeof(*li));

	(void)rec;
	li->sessions = a->sessions;
	items_start(s, &list_source, li);
}
