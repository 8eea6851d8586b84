/*
 * engine/engine.h - the one owner of sandbox state
 *
 * Decide (policy), write down (store), act (image, keeper, driver), write down.
 * A sandbox is a plan that ran forward; its end is the plan walked backward.
 * Clients speak the link protocol; so do guests; loop/link.h between them.
 *
 * ENGINE-1 Only engine/sandbox.c changes the state of a sandbox.
 * ENGINE-2 Machines are never ended because the daemon ends: another one adopts them.
 * ENGINE-3 Clients are served only after every sandbox of the daemon before is
 *	    adopted or being undone, so nobody sees half of the truth.
 *
 * Thread: the loop's. No system calls: what the engine needs of the host comes
 * in through struct engine_host, time through the loop.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/span.h"

struct driver;
struct engine;
struct err;
struct id;
struct image;
struct layers;
struct loop;
struct policy_principal;
struct snap_manifest;
struct snap_set;
struct store;

/* What the host does for the engine. "worker": called on a pool thread, may block. */
struct engine_host {
	void *arg;
	/* worker: open template @ref. -ERR_NOT_FOUND and what image_open() says. */
	int (*image_open)(void *arg, const char *ref, struct image *ret, struct err *e);
	/* worker: make the writable disk of sandbox @id (hex) and open it; given. */
	int (*disk_make)(void *arg, const char *id, uint64_t size_mb, int *ret_fd, struct err *e);
	/* worker: remove what disk_make() left, whole or half. Nothing there: 0. */
	int (*disk_remove)(void *arg, const char *id, struct err *e);
	/* worker: as in snap/layers.h and snap/set.h, below the state directory. */
	int (*layers_open)(void *arg, const struct id *id, struct layers *ret, struct err *e);
	int (*layers_add)(void *arg, const struct id *id, unsigned n, uint64_t bytes, int *ret_fd,
			  struct err *e);
	int (*layers_flatten)(void *arg, const struct id *id, unsigned n, struct err *e);
	int (*layers_seal)(void *arg, const struct id *id, unsigned n, struct err *e);
	int (*layers_drop)(void *arg, const struct id *id, unsigned n, struct err *e);
	int (*layers_link)(void *arg, const char *from, unsigned n, const struct id *to, uint64_t bytes,
			   struct layers *ret, struct err *e);
	int (*layers_rollback)(void *arg, const struct id *id, const struct id *set, unsigned n,
			       uint64_t bytes, struct layers *ret, struct err *e);
	int (*set_save)(void *arg, struct snap_manifest *m, int memory_fd, int state_fd,
			const char *layers_from, struct err *e);
	int (*set_load)(void *arg, const struct id *id, struct snap_set *ret, struct err *e);
	int (*set_disk_check)(void *arg, const struct id *id, struct err *e);
	int (*set_remove)(void *arg, const struct id *id, struct err *e);
	int (*set_each)(void *arg,
			void (*each)(void *each_arg, const struct id *id, const struct snap_manifest *m,
				     const struct err *why),
			void *each_arg, struct err *e); /* at start, on the loop */
	int (*random)(void *arg, void *p, size_t n); /* -errno */
	void (*close_fd)(void *arg, int fd);
	void (*log)(void *arg, const char *line); /* one line, no newline */
};

/* A way to run sandboxes, and the word by which requests ask for it. */
struct engine_wall {
	const struct driver *driver;
	const char *isolation; /* "vm", "process" */
};

struct engine_config {
	struct loop *loop;
	struct store *store;
	const struct engine_host *host;
	const struct engine_wall *walls; /* ends with a NULL driver */
	const char *keeper_socket;	 /* NULL: no keeper (tests) */
	const char *version;
	int pid;
	uint64_t epoch;		     /* store_epoch_next() */
	uint64_t memory_budget_mb;   /* 0: derived from the next two */
	uint64_t memory_available_mb, memory_total_mb;
	uint64_t create_deadline_ms; /* 0: ENGINE_CREATE_MS */
	uint64_t hot_budget_mb;	     /* memory that hot sets nobody uses may keep; 0: an eighth of all */
	bool heats;		     /* a template that had to be booted is made hot (engine/heat.h) */
	unsigned boots_max;	     /* kernels that start at once, others wait their turn; 0: no bound */
	uint64_t ping_ms;	     /* silence after which a guest is asked whether it lives; 0: ENGINE_PING_MS */
	/* May @who call this method at all; NULL: policy_method(). */
	int (*allows)(const struct policy_principal *who, unsigned method, struct err *e);
	const unsigned *uids;	     /* who is served */
	unsigned n_uids;
};

enum {
	ENGINE_CREATE_MS = 60000,	/* of a create plan, from its turn to boot on */
	ENGINE_ADOPT_MS = 15000,	/* of an adopt plan */
	ENGINE_IDLE_MS = 3600000,	/* idle timeout when the request names none */
	ENGINE_GRACE_MS = 30000,	/* an ephemeral sandbox nobody holds yet or any more */
	ENGINE_FAILED_MS = 600000,	/* how long a failure can be looked up */
	ENGINE_SLOW_MS = 1000,		/* a turn of the loop that is told in the log */
	ENGINE_GONE_WAIT_MS = 1000,	/* a link ended: wait for the machine's own last word */
	ENGINE_STORE_RETRY_MS = 1000,	/* the store refused to forget (full disk) */
	ENGINE_RESERVE_MB = 512,	/* left to the host by the derived budget */
	ENGINE_PIDS_MAX = 1024,		/* processes when the request names none */
	ENGINE_PING_MS = 10000,		/* a call is silent this long: ask whether the guest lives */
	ENGINE_PING_MISSED = 3,		/* so often in a row without a word: unhealthy */
	ENGINE_LATE_MS = 10000,		/* beyond a call's own time limit, which the guest keeps */
	ENGINE_CLIENTS_MAX = 512,
	ENGINE_CLIENTS_SPARE = 64,	/* connections beyond it that are told so; further ones are closed */
	ENGINE_SILENT_MS = 10000,	/* for a connection to say its first words (loop/link.h, SYNC) */
	ENGINE_EVENTS = 4096,		/* kept */
	ENGINE_WORKERS = 4,
};

struct engine_ops {
	void (*ready)(void *arg); /* once: everything of the daemon before is settled */
	/* Once: it is time to free the engine and exit. @why NULL: a client asked for it. */
	void (*over)(void *arg, const struct err *why);
	void *arg;
};

/* @config, and what it points to, is lent until engine_free(). */
int engine_new(const struct engine_config *config, const struct engine_ops *ops,
	       struct engine **ret, struct err *e);

/*
 * engine_free() - close every connection and forget; machines stay with the keeper
 *
 * Waits for jobs on worker threads. NULL fine.
 */
struct engine *engine_free(struct engine *g);

/* Connect to the keeper, adopt what runs, undo what was half done; `ready` or `over` follows. */
int engine_start(struct engine *g, struct err *e);

/*
 * engine_serve() - talk to a client on @fd, which is given
 * @uid:	its user, from the kernel
 *
 * Users who are not served are told so, and so is who comes when ENGINE_CLIENTS_MAX are connected.
 */
int engine_serve(struct engine *g, int fd, unsigned uid, struct err *e);

unsigned engine_sandboxes(const struct engine *g); /* for logs and tests */
