/* guest/code_int.h - inside of a context; for code*.c only */
#pragma once
#include "base/list.h"
#include "base/str.h"
#include "guest/code.h"
#include "guest/code_frame.h"
#include "guest/language.h"
#include "guest/user.h"
#include "loop/loop.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

struct stream;

enum code_context_state { CODE_STARTING, CODE_IDLE, CODE_BUSY, CODE_DYING, CODE_ENDED };

/* Standard output or error of an interpreter. */
struct code_pipe {
	struct code *code;
	struct loop_io io;
	int fd; /* -1: at its end */
	bool is_parked;
	enum code_chunk kind;
	size_t owed; /* bytes in it that belong before the frame at hand, or before the end */
};

/* One source and who follows it. */
struct code_run {
	struct list link;    /* of codes.runs */
	struct code *code;   /* NULL: over, what was said waits for its reader */
	struct stream *s;    /* NULL: nobody follows */
	uint64_t number, timeout_ms, began_ns;
	bool timed_out, wants_interrupt;
	char *source; /* until it is handed over */
	size_t source_n;
};

struct code {
	struct codes *all;
	uint64_t number;
	enum code_context_state state;
	const struct language *language;
	struct user user;
	char cwd[USER_CWD_SIZE];
	bool cwd_may_fail;
	struct str env; /* the request's */
	char *told;	/* guest.setup's, as the interpreter knows it; told_n bytes */
	size_t told_n;

	pid_t pid, inner_pid;
	struct spawn *spawn;
	struct cgroup *cgroup;
	struct code_pipe out, err;
	int talk_fd; /* -1: closed */
	struct loop_io talk;
	bool talk_is_parked, has_frame;
	struct code_reader reader;
	struct code_state proto;
	unsigned char *order; /* bytes for the harness that did not fit yet */
	size_t order_n, order_sent;

	struct code_run *run;	/* NULL: none */
	struct stream *opening; /* waits for READY */
	struct loop_timer starting, timeout, renewal, hunt;
	uint64_t timeout_left_ns, renewal_left_ns; /* while the workload stands still; 0: none */
	unsigned hunts;
	uint64_t runs;
	unsigned char nonce[CODE_NONCE];
	unsigned stale_proofs; /* still to come, from before a fork: they prove nothing */
	bool is_alone;	 /* when the workload stood still last: nothing but its one thread, which waited for source */
	bool is_stale;	 /* must renew its randomness before it runs anything */
	bool is_held;	 /* stands still until then */
	bool is_awaited; /* code_reseed() is not over without it */
	bool warm, was_ready, reaped, closing, restarting;
	int status;	       /* as waitpid says, once reaped */
	const char *end_word;  /* code_end.status when it is killed; NULL: by itself */
	struct str end_message; /* for people */
};

struct codes {
	struct agent *agent;
	struct code *table[LIMIT_CONTEXTS];
	struct list runs;
	uint64_t last;
	/* code_reseed() */
	unsigned awaited, proofs;
	void (*done)(void *arg, unsigned proofs);
	void *arg;
};

/* code.c */
struct code *code_find(const struct codes *all, uint64_t number);
int code_new(struct codes *all, const struct rec_code_open *rq, struct code **ret, struct err *e);
void code_free(struct code *c);
void code_info(const struct code *c, struct rec_code_context *ret);
int code_launch(struct code *c, struct err *e);
void code_ready(struct code *c); /* the harness says so */
void code_go(struct code *c);	 /* it is idle and has a run: begin, or renew its randomness first */
void code_close(struct code *c); /* nobody sees it any more; freed when its processes are gone */
/* @word: code_end.status of what runs; the text is for people. Not alive: nothing. */
[[gnu::format(printf, 3, 4)]] void code_kill(struct code *c, const char *word, const char *fmt, ...);
void code_gone(struct code *c); /* reaped, and all that it said was read */
void code_signal(struct code *c, int signo);
void code_proven(struct code *c); /* or has no more to prove */

/* code_env.c: the environment of guest.setup changes while interpreters live */
void code_env_keep(struct code *c); /* it starts with what there is now */
void code_env_tell(struct code *c); /* what changed since; nothing: nothing */

/* code_talk.c: frames and pipes */
int code_talk_open(struct code *c, int talk_fd, int out_fd, int err_fd, struct err *e); /* given */
void code_talk_close(struct code *c);
void code_order(struct code *c, enum code_order kind, const void *p, size_t n);
void code_talk_over(struct code *c); /* the process was reaped: what is left is read, then code_gone() */
void code_talk_resume(struct code *c);

/* code_run.c: what a run says to its client */
struct code_run *code_run_new(struct codes *all, struct stream *s, const struct rec_code_run *rq);
void code_run_begin(struct code *c);   /* hand the source over */
void code_run_started(struct code *c); /* it runs: RUNNING */
void code_run_fail(struct code *c, const struct err *why); /* it never ran */
void code_run_end(struct code *c, const char *word, int64_t exit_code, uint64_t signo,
		  const char *message);
void code_run_free(struct code_run *run);
void code_run_interrupt(struct code *c);
/* Whether a chunk of @n bytes can be said now; what nobody hears can always be. */
bool code_run_room(const struct code *c, size_t n);
size_t code_run_space(const struct code *c); /* payload that fits into a chunk now */
void code_run_say(struct code *c, enum code_chunk kind, const void *p, size_t n);
