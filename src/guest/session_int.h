/* guest/session_int.h - inside of a session; for session*.c only */
#pragma once
#include "guest/output.h"
#include "guest/session.h"
#include "wire/gen/limits.h"

enum session_state {
	SESSION_STARTING, /* the child has not executed the program; its opener waits for the reply */
	SESSION_RUNNING,
	SESSION_ENDING, /* the main process is gone; its pipes may still be read */
	SESSION_ENDED,	/* the exit chunk is written; list and attach work */
};

/* One of the program's outputs. */
struct source {
	struct session *session;
	struct loop_io io;
	int fd;		/* -1: at its end */
	bool is_parked; /* the ring is full: not watched */
	enum output_tag tag;
	size_t owed; /* bytes that were in it when the main process ended */
};

/* The program's input: bytes on their way from a stream to a pipe. */
struct input {
	struct session *session;
	struct loop_io io;
	int fd;		      /* -1: closed */
	bool is_pty, end;     /* the reader of the ring is a terminal; no more will come */
	bool told_keys;	      /* a program that reads keys got the one for the end */
	struct loop_timer again; /* a terminal's end of input, for whoever reads next */
	uint64_t pause_ns;
	struct ring ring;     /* offsets are the session's input offsets; cap 0: not made yet */
	struct subscriber *owner; /* whose bytes these are; NULL: nobody's */
};

/* A follower. */
struct subscriber {
	struct session *session;
	struct stream *stream; /* NULL: lost with its link (SESSION-4) */
	struct loop_timer lost;
	struct list link;
	uint64_t consumed; /* when lost */
	bool drop;	   /* on_slow: chunks may be left out for it */
};

struct session {
	struct sessions *all;
	uint64_t number;
	enum session_state state;
	pid_t pid, inner_pid; /* the agent's view and the workload's */
	bool is_forked; /* of the machine this one is a copy of */
	bool reaped, pty, is_merged, kill_on_detach, kill_pending, held_over;
	bool is_mute; /* SESSION-5a: its output is gone, what it left lives */
	struct spawn *spawn;
	struct cgroup *cgroup;
	struct source out, err;
	struct input in;
	struct output output;
	struct list subscribers;
	unsigned n_subscribers;
	struct loop_timer timeout, held, hunt, expiry;
	uint64_t timeout_left_ns; /* while the workload stands still; 0: none */
	struct loop_call tidy;
	unsigned hunts;
	int status; /* as waitpid says */
	const char *reason;
	uint64_t cpu_us, peak_kib, started_ns, wall_ms, started_unix_ms, oom_before;
	char tag[LIMIT_TEXT_SHORT + 1], command[LIMIT_TEXT_MEDIUM + 1], user[LIMIT_TEXT_SHORT + 1];
};

struct sessions {
	struct sessions_config c;
	struct session *table[LIMIT_SESSIONS];
	uint64_t last;
	bool has_marks;
};

/* session.c */
struct session **sessions_take_slot(struct sessions *all); /* empty; NULL: all are running */
void session_free(struct session *ss);
void session_main_gone(struct session *ss); /* its status is known */
void session_kill(struct session *ss, const char *reason);
void session_maybe_end(struct session *ss);

/* session_output.c */
int source_open(struct source *src, struct session *ss, int fd, enum output_tag tag, struct err *e);
void source_close(struct source *src); /* hands what is still open to the sinks */
void sources_resume(struct session *ss);
void sources_note_owed(struct session *ss);
uint64_t session_keep(const struct session *ss);
struct subscriber *subscriber_new(struct session *ss, struct stream *s, bool drop);
void subscriber_free(struct subscriber *u);
void subscribers_pump(struct session *ss);
void subscriber_replace_lost(struct session *ss, uint64_t offset);

/* session_input.c */
void input_open(struct input *in, struct session *ss, int fd, bool is_pty);
void input_close(struct input *in);
void input_own(struct input *in, struct subscriber *owner);
uint64_t input_offset(const struct input *in);
void input_data(struct input *in, struct subscriber *from, uint64_t offset, struct span bytes);
void input_end(struct input *in, struct subscriber *from);
