/* guest/spawn.c - start a program in the workload's namespace */
#include "guest/spawn.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/spawn_child.h"
#include "sys/fd.h"

enum { STACK_SIZE = 65536 };
#define OOM_SCORE "500" /* above the agent's, which the keeper chose */

struct spawn {
	struct loop *loop;
	struct loop_io io;
	int report_fd;
	pid_t pid;
	void (*done)(struct spawn *sp, pid_t inner_pid, const struct err *why);
	void *arg;
	struct child child;
	char *argv_text, **argv, *cwd;
	struct env env;
	struct child_report failure; /* stage 0: none */
	_Alignas(16) char stack[STACK_SIZE];
};

static void explain(const struct spawn *sp, struct err *e)
{
	const struct child *c = &sp->child;
	int error = sp->failure.error;

	switch (sp->failure.stage) {
	case CHILD_CWD:
		if (error == -ENOENT)
			err_set(e, ERR_INVALID, "cwd '%s' does not exist", sp->cwd);
		else
			err_sys(e, error, "cwd '%s'", sp->cwd);
		break;
	case CHILD_EXEC:
		if (error == -ENOENT)
			err_set(e, ERR_NOT_FOUND,
				strchr(c->argv[0], '/')
					? "program '%s' not found (or its interpreter)"
					: "program '%s' not found in PATH",
				c->argv[0]);
		else if (error == -ENOEXEC)
			err_set(e, ERR_INVALID, "'%s' is not a program: no known format, no #! line",
				c->argv[0]);
		else if (error == -E2BIG)
			err_set(e, ERR_LIMIT,
				"arguments and environment: together more than Linux takes (2 MiB, of which each "
				"takes its length and 9 bytes; 128 KiB in one of them); use a file or standard input");
		else
			err_sys(e, error, "can't execute '%s'", c->argv[0]);
		break;
	case CHILD_USER: err_sys(e, error, "become user %u", c->uid); break;
	case CHILD_TERMINAL: err_sys(e, error, "take the terminal"); break;
	case CHILD_WALLS: err_sys(e, error, "put up the walls for the program"); break;
	default: err_sys(e, error, "prepare the program");
	}
}

static void finish(struct spawn *sp)
{
	struct err why = ERR_INIT;

	loop_io_del(sp->loop, &sp->io);
	if (sp->failure.stage)
		explain(sp, &why);
	else if (!sp->child.own_pid)
		err_set(&why, ERR_UNAVAILABLE, "the program was killed before it started");
	sp->done(sp, sp->child.own_pid, why.code ? &why : NULL);
}

static void on_report(struct loop_io *io, unsigned events)
{
	struct spawn *sp = CONTAINER_OF(io, struct spawn, io);
	struct child_report say;
	ssize_t r;

	(void)events;
	while ((r = sys_read(sp->report_fd, &say, sizeof(say))) == sizeof(say)) {
		if (say.stage == CHILD_ALIVE)
			sp->child.own_pid = say.error;
		else
			sp->failure = say;
	}
	if (r != -EAGAIN)
		finish(sp);
}

static void copy_argv(struct spawn *sp, struct strv argv)
{
	size_t i = 0;

	sp->argv_text = mem_dup(argv.p, argv.n);
	sp->argv = mem_new((strv_count(argv) + 1) * sizeof(*sp->argv));
	for (const char *s = strv_first(argv); s; s = strv_next(argv, s))
		sp->argv[i++] = sp->argv_text + (s - argv.p);
}

static void fill_child(struct spawn *sp, const struct spawn_request *rq, int report_fd)
{
	struct child *c = &sp->child;

	*c = (struct child){
		.report_fd = report_fd,
		.pty = rq->pty,
		.walls = rq->walls->on,
		.filter = &rq->walls->filter,
		.uid = rq->user->uid,
		.gid = rq->user->gid,
		.n_groups = rq->user->n_groups + 1,
		.cwd = sp->cwd,
		.cwd_may_fail = rq->cwd_may_fail,
		.path = env_get(&sp->env, "PATH"),
		.argv = sp->argv,
		.envp = sp->env.v,
	};
	memcpy(c->fds, rq->fds, sizeof(c->fds));
	c->talk_fd = rq->talk_fd;
	c->groups[0] = rq->user->gid;
	memcpy(c->groups + 1, rq->user->groups, rq->user->n_groups * sizeof(gid_t));
}

static int clone_it(struct spawn *sp, struct spawn_request *rq, struct err *e)
{
	AUTO_CLOSE int put = -1;
	int report[2];
	int r = sys_pipe(report);

	if (r < 0)
		return err_sys(e, r, "start a program");
	sp->report_fd = report[0];
	put = report[1];
	r = sys_nonblock(sp->report_fd, true);
	if (r == 0)
		r = loop_io_add(sp->loop, &sp->io, sp->report_fd, LOOP_READ, on_report);
	if (r < 0)
		return err_sys(e, r, "start a program");
	fill_child(sp, rq, put);
	sp->pid = child_clone(&sp->child, sp->stack, sizeof(sp->stack), rq->cgroup_fd);
	if (sp->pid == -EAGAIN)
		return err_set(e, ERR_LIMIT, "no more processes: the sandbox's pids limit is reached");
	return sp->pid < 0 ? err_sys(e, sp->pid, "start a program") : 0;
}

int spawn_start(struct loop *l, struct spawn_request *rq,
		void (*done)(struct spawn *sp, pid_t inner_pid, const struct err *why), void *arg,
		struct spawn **ret, struct err *e)
{
	struct spawn *sp = malloc(sizeof(*sp));
	int r;

	if (!sp)
		return err_set(e, ERR_LIMIT, "no memory to start a program");
	memset(sp, 0, offsetof(struct spawn, stack)); /* the stack is most of it */
	sp->loop = l;
	sp->report_fd = -1;
	sp->done = done;
	sp->arg = arg;
	sp->cwd = mem_strdup(rq->cwd);
	sp->env = rq->env;
	rq->env = (struct env){0};
	copy_argv(sp, rq->argv);
	r = clone_it(sp, rq, e);
	if (r < 0) {
		spawn_free(sp);
		return r;
	}
	*ret = sp;
	return 0;
}

pid_t spawn_pid(const struct spawn *sp)
{
	return sp->pid;
}

void *spawn_arg(const struct spawn *sp)
{
	return sp->arg;
}

void spawn_free(struct spawn *sp)
{
	if (!sp)
		return;
	loop_io_del(sp->loop, &sp->io);
	(void)sys_close(sp->report_fd);
	env_deinit(&sp->env);
	free(sp->argv_text);
	free(sp->argv);
	free(sp->cwd);
	free(sp);
}

void spawn_offer_to_oom_killer(int proc_fd, pid_t pid)
{
	char path[32];

	(void)snprintf(path, sizeof(path), "%d/oom_score_adj", (int)pid);
	(void)sys_write_file(proc_fd, path, OOM_SCORE); /* gone already: as good */
}
