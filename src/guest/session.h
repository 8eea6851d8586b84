/*
 * guest/session.h - the programs the agent started, and who follows them.
 *
 * SESSION-1 A number is never used twice.
 * SESSION-2 The exit chunk is written once, after the main process is reaped and
 *	     everything it wrote is in the output; nothing follows it.
 * SESSION-3 A blocking reader gets every byte from its offset on, in order, once;
 *	     while it does not read, the program waits and the agent does not grow.
 * SESSION-4 A reader that lost its link is no reader that left: for
 *	     SESSION_LOST_NS its bytes are kept, then it counts as gone.
 * SESSION-5 An ended session can be attached for SESSION_KEPT_NS, unless its
 *	     place or memory is needed.
 * SESSION-5a What an ended session left running in its cgroup is still its own: its time limit
 *	     ends it, SIGKILL to the session ends it, and as long as it lives the session is
 *	     listed, without its output after SESSION_KEPT_NS.
 * SESSION-6 Killing means the tree: every process of the session's cgroup,
 *	     or, where the host gives no cgroup, all that carry its mark.
 *
 * Main gone but pipes held open by background programs: after SESSION_HELD_NS,
 * and when all that was in the pipes is read, the session ends; what they
 * write later is read and dropped.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/macro.h"
#include "guest/cgroup.h"
#include "guest/sink.h"
#include "guest/spawn.h"

struct err;
struct link;
struct loop;
struct rec_exec_attach;
struct rec_exec_info;
struct rec_exec_start;
struct rusage;
struct session;
struct stream;
struct user;

static const uint64_t SESSION_LOST_NS = 30 * NS_PER_S;
static const uint64_t SESSION_KEPT_NS = 30 * NS_PER_S;
static const uint64_t SESSION_HELD_NS = 250 * NS_PER_MS;

struct sessions;

struct sessions_config {
	struct loop *loop;
	struct cgroups *cgroups;
	struct sinks *sinks;
	const struct walls *walls;
	int proc_fd; /* lent */
};

struct sessions *sessions_new(const struct sessions_config *c);
/* The processes must be dead and reaped. */
struct sessions *sessions_free(struct sessions *all);

/*
 * session_start() - run a program; answers @s when it runs or can't
 * @user, @env:	whose it is and its complete environment (given)
 */
void session_start(struct sessions *all, struct stream *s, const struct rec_exec_start *rq,
		   const struct user *user, struct env *env);
void session_attach(struct sessions *all, struct stream *s, const struct rec_exec_attach *rq);

int session_signal(struct sessions *all, uint64_t number, int sig, struct err *e);
int session_resize(struct sessions *all, uint64_t number, unsigned rows, unsigned cols,
		   struct err *e);

/* A child of the agent was reaped. Returns false when it is no session's. */
bool sessions_child_gone(struct sessions *all, pid_t pid, int status, const struct rusage *use);

/*
 * In a copy of the machine: whoever followed them follows the original. Their programs live
 * on, unheard; what they write is dropped.
 */
void sessions_fork(struct sessions *all);

/* FREEZE-3: between the two no program's time runs out. */
void sessions_pause(struct sessions *all);
void sessions_go_on(struct sessions *all);

unsigned sessions_running(const struct sessions *all);
unsigned sessions_left(struct sessions *all); /* ended ones of which something lives; those of which nothing does go */
/* The first session after number @after; false: no more. @ret borrows from it. */
bool session_next(struct sessions *all, uint64_t after, struct rec_exec_info *ret);
