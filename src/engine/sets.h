/*
 * engine/sets.h - snapshot sets as the engine knows them: on disk, in memory, or both
 *
 * A set on disk can be loaded: then it is *hot*, and starting from it needs no disk. Hot
 * sets nobody uses leave memory when the budget asks for it, the longest unused first.
 *
 * SETS-1 A set lives while it is stored or somebody holds a reference.
 * SETS-2 A removed set can't be found any more; who holds it goes on.
 * SETS-3 A damaged or foreign set is found by its id, to be told why and removed; nothing starts from it.
 *
 * Private to engine/. Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/list.h"
#include "base/span.h"
#include "loop/work.h"
#include "snap/set.h"

#define SET_UNUSABLE "unusable" /* a kind */

struct engine;
struct rec_snapshot_info;
struct sandbox;
struct set;

/* Embedded by who waits, lent until done; set_forget() withdraws it. */
struct set_wait {
	void (*done)(struct set_wait *w, const struct err *why);
	struct list link;
};

enum { SET_STAGES = 256 };

struct set {
	struct list link; /* in engine->sets */
	struct engine *engine;
	unsigned refs;
	uint64_t serial; /* grows */
	struct snap_manifest m;
	struct snap_manifest saved; /* what the worker writes and completes; then it is @m */
	struct err unusable; /* code 0: it is not. Nothing of @m is known then but the id */
	bool is_stored, is_removed;
	int memory_fd, state_fd; /* -1: not hot */
	uint64_t used_ns, pause_us;
	char stages[SET_STAGES]; /* of its capture, as a record's map; lost with the daemon */
	size_t stages_n;
	struct loop_timer expiry;
	/* One job at a time; a removal waits for the one before. */
	enum { SET_IDLE, SET_LOADING, SET_SAVING, SET_REMOVING } doing;
	struct work job;
	struct list turn; /* in engine->set_jobs */
	struct snap_set loaded;
	struct err job_error;
	char layers_from[64]; /* "sandboxes/<id>" until it is stored, then "snapshots/<id>" */
	struct list loads;	      /* who waits for its memory */
	struct set_wait *save, *remove; /* who waits for the disk; NULL: nobody */
	bool wants_removal;
	struct loop_call hot_call;
};

/* Read what is on disk. Blocks; before anything is served. What can't be used is logged and left. */
int sets_start(struct engine *g, struct err *e);
void sets_drop(struct engine *g); /* the engine ends; the pool has joined */

/* A set of m->sandbox, in memory only; the descriptors are given. One reference, the caller's. */
struct set *set_new(struct engine *g, const struct snap_manifest *m, int memory_fd, int state_fd);
struct set *set_ref(struct set *s);
struct set *set_unref(struct set *s); /* NULL: fine; returns NULL */

void set_close_memory(struct engine *g, int *fd); /* of a machine: where that holds up nobody. -1: fine */

bool set_is_hot(const struct set *s);
bool set_is_files(const struct set *s); /* of a process sandbox: no machine, its files */
/* Stored, not a pause; perhaps unusable. NULL: none. */
struct set *set_find(struct engine *g, const char *tenant, struct span ref);
struct set *set_of_pause(struct engine *g, const struct id *sandbox);
bool set_name_is_taken(struct engine *g, const char *tenant, struct span name);

/* The hot template that fits what @sb asked for, whoever may have to load it. NULL: none. */
struct set *set_for(struct sandbox *sb);
/* The processor that guests get here, and how: as manifests say it. */
const char *set_cpu_here(const struct engine *g);
/* Can machines be started from it here? -ERR_UNSUPPORTED says why not and the way out. */
int set_check(const struct set *s, struct err *e);

/* Each completes later, from the loop. A set that is being loaded, saved or removed: after that. */
void set_load(struct set *s, struct set_wait *w);
void set_save(struct set *s, struct set_wait *w);
void set_remove(struct set *s, struct set_wait *w); /* from disk; w NULL: nobody waits */
void set_forget(struct set_wait *w); /* not waiting: fine */
/* Remove what is stored of the same template in the same shape: nobody starts from it any more. */
void set_retire_others(const struct set *s);

void set_info(const struct set *s, struct rec_snapshot_info *ret); /* texts point into @s */
