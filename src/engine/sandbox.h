/*
 * engine/sandbox.h - a sandbox: its states, its deadlines, those who wait for it
 *
 * Private to engine/. Thread: the loop's.
 *
 * SANDBOX-1 sandbox_set_state() is the only writer of `state`; it asserts the arrow.
 * SANDBOX-2 Memory of a sandbox is freed by sandbox_forget() only, after its plan is
 *	     over and nothing of it is left on the host.
 * SANDBOX-3 An ephemeral sandbox leaves no failed record behind.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/id.h"
#include "base/list.h"
#include "base/map.h"
#include "driver/driver.h"
#include "engine/health.h"
#include "engine/plan.h"
#include "image/store.h"
#include "keeper/keeper.h"
#include "loop/work.h"
#include "engine/sets.h"
#include "policy/policy.h"
#include "snap/layers.h"
#include "wire/gen/limits.h"

struct capture;
struct claim;
struct client;
struct engine;
struct link;
struct pool;
struct rec_sandbox_create;
struct rec_sandbox_info;
struct store_sandbox;
struct str;
struct stream;
struct task;

/* In brackets: the calls that are legal there, besides info, list and remove, which always are. */
enum sandbox_state {
	SANDBOX_NEW,	  /* not yet known to anybody */
	SANDBOX_CREATING, /* create, adopt or resume plan runs forward [hold] */
	SANDBOX_RUNNING,  /* [hold, every method of the guest, fork, snapshot, pause, rollback] */
	SANDBOX_PAUSED,	  /* on disk only [hold, resume] */
	SANDBOX_STOPPING, /* the plan walks backward, towards `fate` [] */
	SANDBOX_FAILED,	  /* nothing is left but the reason, for a while [] */
	SANDBOX_GONE,	  /* about to be freed */
	SANDBOX_STATE_N,
};

enum {
	SANDBOX_TEXT = LIMIT_TEXT_SHORT + 1,
	SANDBOX_CLOSURE = 65,
	SANDBOX_KEY = 2 * SANDBOX_TEXT,
	SANDBOX_STAGES = 1024,
};

struct sandbox {
	struct engine *engine;
	struct list all; /* in engine->sandboxes, oldest first */
	uint64_t serial; /* grows; a list that is sent in pieces goes on behind it */
	struct map_node by_id, by_name, by_request;

	/* What was asked for and decided; constant after admission but for the sizes. */
	struct id id;
	char id_text[ID_TEXT];
	char name[SANDBOX_TEXT], tenant[SANDBOX_TEXT], owner[SANDBOX_TEXT];
	char request_id[SANDBOX_TEXT], template[SANDBOX_TEXT], image_digest[SANDBOX_TEXT];
	char name_key[SANDBOX_KEY], request_key[SANDBOX_KEY];
	const struct driver *driver;
	struct policy_verdict verdict;
	bool ephemeral;
	struct strv metadata, unenforced, env; /* owned */

	enum sandbox_state state;
	enum sandbox_state loaded_state; /* as the daemon before left it */
	enum sandbox_state fate; /* of SANDBOX_STOPPING: FAILED or GONE */
	struct err reason;	 /* why it failed or is going; code 0: none */
	uint64_t created_ms;	 /* unix */
	uint64_t idle_at_ns, end_at_ns, grace_at_ns, forget_at_ns; /* loop time; 0: none */
	uint64_t idle_saved_ms;	 /* the idle deadline as the store has it */
	struct loop_timer timer, retry_timer, gone_timer;
	struct list waiters;	 /* struct waiter (engine/waiter.h) */

	/* What the plan has made so far. */
	struct plan plan;
	uint64_t plan_started_ns;
	bool is_adopted, is_recorded;
	bool is_recovering; /* counts in engine->recovering */
	bool was_listed;    /* the keeper knows its machine */
	struct err machine_ended; /* by what the keeper says; code 0: it runs */
	uint64_t promised_mb;
	struct image image;
	struct layers disk;	/* open until the machine has them */
	unsigned layers;	/* of its disk */
	unsigned node;		/* of the monitor, that stands for the top one */
	struct set *set;	/* what it starts from, until it runs; NULL: it boots */
	struct set_wait set_wait;
	bool is_cold, is_disk_only; /* as asked for */
	const char *path;	/* how it was made: "boot", "fork", "prestarted", "pool" */
	struct id parent;	/* the set it was started from; zero: none */
	char closure[SANDBOX_CLOSURE]; /* of the monitor its machine runs in; "": none */
	struct capture *capture; /* under way; NULL: none */
	struct list followers;	/* struct sandbox_follow */
	struct task *task;	/* done to it now (forks.c); NULL: none */
	bool is_resuming;	/* the resume plan runs; CREATING meanwhile */
	bool is_rolling_back;	/* paused without memory: a resume puts it back to @parent */
	bool is_swapping;	/* paused, and its disk is being put back: its end waits */
	bool is_committed;	/* it has passed the point from which it can't be paused again by a failure */
	bool is_spare;		/* nobody's yet (engine/pool.h) */
	struct pool *pool;	/* whose spare it is; NULL: no pool's, or no more */
	struct list spare;	/* in pool->spares */
	unsigned spare_as;	/* enum spare */
	bool is_shell;		/* made to wait as an empty shell */
	struct claim *claim;	/* the request it was taken for, until it runs; NULL: none */
	struct list turn; /* in engine->boot_queue */
	bool has_turn;
	struct machine *machine;
	struct machine_usage used; /* by its machine, when it was last asked */
	bool machine_is_foreign; /* of the daemon before: only the keeper knows it */
	struct machine_calls *calls; /* owned until destroy() was called, then its own */
	void (*parked)(struct sandbox *sb); /* its machine is going, it stays; NULL: no */
	struct keeper_call release_call;
	struct link *link;
	bool link_was_up; /* in this life of the link */
	uint64_t generation;
	struct stream *setup;
	void (*setup_done)(struct sandbox *sb);
	bool said_forked;	/* in that setup */
	unsigned clock_tries;	/* setups that were said again, for the clock's sake */
	bool clock_is_off;
	struct list relays;
	struct health health;
	struct work job; /* image, disk or store, one at a time */
	struct err job_error;
	struct err disk_left; /* why its disk is still there; code 0: it is not, or it is wanted */
	struct err forget_why;
	bool is_forgetting; /* that is tried again */
	bool is_child;	    /* of a fork under way, which tells its failure: nothing of it is kept */
	bool is_builder;    /* of a template: goes when that is built */
	uint64_t guest_boot_us;
	char stages[SANDBOX_STAGES];
	size_t stages_n;
};

/* Told once, from the loop, when it runs or why it never will. Embedded; sandbox_unfollow() withdraws. */
struct sandbox_follow {
	void (*done)(struct sandbox_follow *f, struct sandbox *sb, const struct err *why);
	struct list link;
};

void sandbox_follow(struct sandbox *sb, struct sandbox_follow *f); /* one that is CREATING */
void sandbox_unfollow(struct sandbox_follow *f);
void followers_tell(struct sandbox *sb, const struct err *why);

/* In the store only: on its way from a pause, which is no more. */
#define SANDBOX_RESUMING "resuming"
/* Likewise: paused without memory, on its way to the snapshot that is its parent. */
#define SANDBOX_ROLLING_BACK "rolling-back"

const char *sandbox_state_name(enum sandbox_state s);
bool sandbox_arrow_exists(enum sandbox_state from, enum sandbox_state to);

/*
 * sandbox_create() - admit, and start the create plan
 * @rec:	decoded request
 * @ret:	the sandbox, new or (same request id) the one of before
 *
 * Return: 0; what policy_create() says; -ERR_CONFLICT when the name is taken;
 * -ERR_DENIED or -ERR_CONFLICT for a request id that belongs to something else.
 */
int sandbox_create(struct engine *g, const struct policy_principal *who,
		   const struct rec_sandbox_create *rec, struct sandbox **ret, struct err *e);

/*
 * sandbox_fork() - a sandbox that goes on from @set, which is hot or can be loaded
 * @source:	what the new one takes over: its limits and deadlines; NULL: the set's
 */
int sandbox_fork(struct engine *g, const struct policy_principal *who, const struct sandbox *source,
		 struct set *set, const char *name, bool ephemeral, struct sandbox **ret, struct err *e);

/* A spare of @pool, for nobody; @rec: its template, wall and shape. */
int sandbox_spare(struct engine *g, const struct policy_principal *who, const struct rec_sandbox_create *rec,
		  struct pool *pool, bool is_shell, struct sandbox **ret, struct err *e);
/*
 * sandbox_bind() - a spare becomes what @rec asks for, in its record too
 *
 * Return: 0; as sandbox_create(); -ERR_CONFLICT when its limits aren't the request's. Then nothing changed.
 */
int sandbox_bind(struct sandbox *sb, const struct policy_principal *who, const struct rec_sandbox_create *rec,
		 struct err *e);
void sandbox_unbind(struct sandbox *sb); /* it ends; name and request id are free again */
bool sandbox_knows_request(struct engine *g, const char *tenant, struct span request_id);

void sandbox_paused(struct sandbox *sb); /* its machine is gone, its set and its record say so */
/* Go on from @set. -ERR_LIMIT without memory for it; otherwise followers are told. */
int sandbox_resume_paused(struct sandbox *sb, struct set *set, struct err *e);

/* Something is wrong with its disk, so it stays, failed, until a removal succeeds. */
#define SANDBOX_DISK_LEFT "its disk could not be removed"

/* From the store, at start; nothing happens before sandbox_resume(). @row lent. */
void sandbox_load(struct engine *g, const struct store_sandbox *row);

/*
 * sandbox_resume() - adopt a loaded sandbox, undo it, or remember its failure
 * @machine_ended:	why its machine is no more; code 0: it runs, as far as anybody knows
 */
void sandbox_resume(struct sandbox *sb, const struct err *machine_ended);

/* End it. @why is what others are told; ends in GONE. Legal in every state. */
void sandbox_remove(struct sandbox *sb, const struct err *why);
/* End it because something broke; ends in FAILED (or GONE when ephemeral). */
void sandbox_break(struct sandbox *sb, const struct err *why);

/* Its machine died with the keeper: write that down, for the next daemon to clean up. */
void sandbox_lost(struct sandbox *sb, const struct err *why);

/* Somebody used it. */
void sandbox_touch(struct sandbox *sb);
void sandbox_expire_idle(struct sandbox *sb); /* nobody does, and nothing runs in it */
const char *sandbox_called(const struct sandbox *sb); /* its name, else its id */

/* Fill @ret; texts point into @sb, the stages into it as well. Usage is left at 0. */
void sandbox_info(const struct sandbox *sb, struct rec_sandbox_info *ret);

/* By id or name, of a tenant. NULL: none. */
struct sandbox *sandbox_find(struct engine *g, const char *tenant, struct span ref);

/* Of a machine that was killed for memory: how much it had, and what can be done. Other ends stay as told. */
void sandbox_explain_end(const struct sandbox *sb, struct err *e);

/* Unless the guest can be called: -ERR_CONFLICT, saying the state and why; -ERR_UNAVAILABLE when it is silent. */
int sandbox_check_running(const struct sandbox *sb, struct err *e);

/*
 * engine_free(), in two steps: let go of everything outside without undoing it, then free.
 * @why: what those who wait are told.
 */
void sandbox_detach(struct sandbox *sb, const struct err *why);
void sandbox_forget(struct sandbox *sb);

/* ---- for the other files of engine/ ---- */

bool sandbox_is_live(const struct sandbox *sb); /* creating, running or paused */
void sandbox_arm_timer(struct sandbox *sb);	/* after one of its deadlines changed */

void sandbox_set_state(struct sandbox *sb, enum sandbox_state to);
void sandbox_row(struct sandbox *sb, struct store_sandbox *ret); /* all of it; points into @sb */
void sandbox_start_clocks(struct sandbox *sb);		/* idle and absolute deadline, from now on */
int sandbox_save(struct sandbox *sb, struct err *e); /* what changes: state, reason, deadlines */
uint64_t sandbox_deadline_ms(const struct sandbox *sb, uint64_t at_ns); /* loop time to unix; 0: 0 */
void sandbox_settle(struct sandbox *sb, const struct err *why); /* the plan is over */

void sandbox_resumed(struct sandbox *sb, const struct err *why); /* the resume plan is over */

/* create.c: the plans, and what ends them from outside. */
void create_start(struct sandbox *sb);	/* forward */
void create_adopt(struct sandbox *sb);	/* forward, from a record */
void create_resume_undo(struct sandbox *sb, const struct err *why); /* backward, from a record */
void create_paused(struct sandbox *sb); /* from a record */
void create_resume(struct sandbox *sb); /* forward, from a pause */
void create_machine_gone(struct sandbox *sb, const struct err *why);
void create_drop(struct sandbox *sb); /* forget what the plan holds in this process */
