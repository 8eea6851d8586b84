/*
 * guest/agent.h - the answering end of the link inside a sandbox.
 *
 * One thread, one loop, nothing that blocks. The host may be replaced at any
 * time (SYNC): calls end, sessions stay.
 */
#pragma once
#include <stdbool.h>
#include "guest/cgroup.h"
#include "guest/env.h"
#include "guest/freeze.h"
#include "guest/identity.h"
#include "guest/log.h"
#include "guest/passwd.h"
#include "guest/reaper.h"
#include "guest/sink.h"
#include "guest/spawn.h"
#include "loop/loop.h"

struct agent;
struct codes;
struct err;
struct link;
struct rec_exec_start;
struct rec_type;
struct sessions;
struct stream;
struct watches;

enum agent_end { AGENT_RUNS, AGENT_SHUTDOWN, AGENT_LINK_GONE, AGENT_WORKLOAD_GONE };

struct agent_config {
	bool is_machine;
	int proc_fd;   /* /proc of the agent's own namespace; given */
	int cgroup_fd; /* given; -1: none */
	int oom_fd;    /* a file with a line "oom_kill N"; given; negative: none */
	int log_fd;    /* given */
	unsigned link_flags;
	struct walls walls; /* filter: given (malloc) */
	/* A fresh descriptor of the link, given to the caller; -errno when the host is not there. */
	int (*open_link)(void *arg);
	void *arg;
};

struct agent {
	struct loop *loop;
	struct agent_config c;
	struct link *link; /* NULL: waiting to open it again */
	struct loop_timer reopen;
	struct guest_log log;
	struct reaper reaper;
	struct cgroups cgroups;
	struct sinks sinks;
	struct sessions *sessions;
	struct codes *codes;
	struct loop_io children; /* signalfd */
	int children_fd;
	uint64_t generation;
	struct freeze freeze;
	struct identity identity;
	unsigned watches; /* open file watches */
	unsigned n_late;  /* calls whose arguments are on their way: late.h */
	enum agent_end end;
	/* from guest.setup */
	char default_user[PASSWD_NAME_MAX + 1];
	char *env; /* env_len bytes: entries, each with its NUL */
	size_t env_len;
	uint64_t pids_max; /* 0: as the kernel has it */
	struct stream *setup_call; /* of a copy: waits for the interpreters */
	/* guest/shutdown.c */
	struct loop_timer killing;
	struct stream *shutdown_call;
	uint64_t shutdown_deadline_ns;
};

/* Everything in @c is given, whatever the outcome. */
int agent_new(struct loop *l, const struct agent_config *c, struct agent **ret, struct err *e);
struct agent *agent_free(struct agent *a); /* kills the workload */

/* One exchange of method and handler; @rec decoded and checked, lent. The handler answers @s. */
struct agent_method {
	unsigned number;
	void (*call)(struct agent *a, struct stream *s, const void *rec);
};

/* Who a request acts as. */
int agent_user(const struct agent *a, struct span name, struct user *ret, struct err *e);
/* The environment of @user's programs. Later entries win: ours, then those of guest.setup, then @more. */
int agent_env(const struct agent *a, const struct user *user, bool terminal, struct strv more,
	      struct env *env, struct err *e);

/* An exec.start with all its arguments; @late: environment that did not fit into @rq. */
void exec_begin(struct agent *a, struct stream *s, const struct rec_exec_start *rq, struct strv late);

/* Handlers, by file: exec.c, code_call.c, files.c, upload.c, list.c, watch.c, port.c, info.c, setup.c, shutdown.c */
void exec_start_call(struct agent *a, struct stream *s, const void *rec);
void exec_attach_call(struct agent *a, struct stream *s, const void *rec);
void exec_signal_call(struct agent *a, struct stream *s, const void *rec);
void exec_resize_call(struct agent *a, struct stream *s, const void *rec);
void exec_list_call(struct agent *a, struct stream *s, const void *rec);
void code_run_call(struct agent *a, struct stream *s, const void *rec);
void code_open_call(struct agent *a, struct stream *s, const void *rec);
void code_list_call(struct agent *a, struct stream *s, const void *rec);
void code_interrupt_call(struct agent *a, struct stream *s, const void *rec);
void code_restart_call(struct agent *a, struct stream *s, const void *rec);
void code_close_call(struct agent *a, struct stream *s, const void *rec);
void file_read_call(struct agent *a, struct stream *s, const void *rec);
void file_write_call(struct agent *a, struct stream *s, const void *rec);
void file_stat_call(struct agent *a, struct stream *s, const void *rec);
void file_list_call(struct agent *a, struct stream *s, const void *rec);
void file_move_call(struct agent *a, struct stream *s, const void *rec);
void file_remove_call(struct agent *a, struct stream *s, const void *rec);
void file_mkdir_call(struct agent *a, struct stream *s, const void *rec);
void file_link_call(struct agent *a, struct stream *s, const void *rec);
void file_set_call(struct agent *a, struct stream *s, const void *rec);
void file_watch_call(struct agent *a, struct stream *s, const void *rec);
void port_connect_call(struct agent *a, struct stream *s, const void *rec);
void guest_setup_call(struct agent *a, struct stream *s, const void *rec);
void guest_freeze_call(struct agent *a, struct stream *s, const void *rec);
void guest_thaw_call(struct agent *a, struct stream *s, const void *rec);
void guest_ping_call(struct agent *a, struct stream *s, const void *rec);
void guest_info_call(struct agent *a, struct stream *s, const void *rec);
void guest_processes_call(struct agent *a, struct stream *s, const void *rec);
void guest_shutdown_call(struct agent *a, struct stream *s, const void *rec);

/* Answer with a record, or with the error @r when it is negative. */
void agent_answer(struct stream *s, const struct rec_type *t, const void *rec, int r,
		  const struct err *e);
