/*
 * driver/driver.h - what every way of running a sandbox offers
 *
 * A sandbox is an agent behind a byte stream; a driver only starts
 * hotcell-init somewhere and hands back that stream.
 *
 * Thread: every call and every callback happens on the engine's loop.
 * DRIVER-1 A call with a `struct driver_req` either returns a negative code and
 *	    the request is never completed, or returns 0 and it is completed
 *	    exactly once, later, never from inside the call.
 * DRIVER-2 `gone` comes at most once, and only after `start` or `adopt` completed.
 * DRIVER-3 destroy() is legal in every state, at any moment, once; requests in
 *	    flight are then completed with ERR_CANCELED before its own completes.
 * DRIVER-4 A member that is NULL means unsupported.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "base/err.h"
#include "base/id.h"
#include "base/span.h"
#include "wire/gen/limits.h"

struct loop;
struct machine;
struct keeper;

/* Embedded by the caller; lent to the driver until it completes. */
struct driver_req {
	void (*done)(struct driver_req *r, const struct err *why); /* why NULL: success */
};

/* All a driver may know of a sandbox: descriptors and numbers. Descriptors are lent for the call. */
struct machine_spec {
	struct id id;
	unsigned vcpus;
	uint64_t memory_mb, disk_mb;
	unsigned pids_max;	  /* 0: none */
	int root_fd;		  /* with DRIVER_NEEDS_IMAGE: the image; else -1 */
	const char *image;	  /* without: the hash of the template, whose tree is the root */
	int kernel_fd, initrd_fd; /* -1: none */
	int layers[LIMIT_DISK_LAYERS]; /* writable disk, oldest first: raw, then qcow2; only the last is written */
	unsigned n_layers;
	/*
	 * A fork: goes on from these. memory_fd: a sealed memory file; state_fd: read from its start. -1: it boots.
	 * With DRIVER_CAN_COPY_FILES: memory_fd has the files it starts with, and it boots in any case.
	 */
	int memory_fd, state_fd;
	const char *closure;	  /* of the monitor that made them; "": the current one */
	struct strv unenforced;	  /* limits the caller agreed to lose */
	uint64_t lease_ms;
};

struct machine_events {
	void (*gone)(void *arg, const struct err *why); /* the machine ended; why says how */
	void *arg;
};

enum driver_cap {
	DRIVER_OWN_KERNEL = 1 << 0,
	DRIVER_NEEDS_IMAGE = 1 << 1, /* root is an image with kernel and initrd; otherwise a tree */
	DRIVER_CAN_CAPTURE = 1 << 2, /* memory and all: snapshot, fork, pause, rollback */
	DRIVER_CAN_COPY_FILES = 1 << 3, /* capture() copies the files alone: snapshot, and create from one */
};

struct machine_usage {
	uint64_t memory_bytes, memory_max_bytes, cpu_us, pids, pids_max, oom_kills;
};

struct driver_usage_req {
	struct driver_req req;
	struct machine_usage usage; /* set on success */
};

/*
 * What a machine is at one instant. The machine stands still between the first and the last
 * step of it, for pause_us; afterwards it goes on, its disk on @overlay_fd, or stays stopped.
 */
struct driver_capture {
	struct driver_req req;
	/* Once, when all that can be done while it runs is done: then capture_now(). NULL: it is not waited for. */
	void (*prepared)(struct driver_capture *c);
	int overlay_fd;	   /* lent: an empty qcow2 layer it goes on with; -1: it writes no more */
	unsigned node;	   /* of its disk that it writes now: l<node>. The overlay is the next one */
	bool stay_stopped; /* until resume() or destroy() */
	/* Set on success, given. Of files alone: memory_fd has them; the caller has frozen who writes to them. */
	int memory_fd, state_fd;
	uint64_t pause_us, copied_bytes;
	/* Set in any case: it writes to the overlay now. */
	bool is_layered;
};

struct driver {
	const char *name;
	unsigned caps; /* enum driver_cap */

	/* The wall as replies name it ("vm", "vm-emulated", "process"); constant after the keeper said hello. */
	const char *(*wall)(const struct keeper *k);

	/* Can it run here? Immediate. -ERR_UNSUPPORTED with the reason and what to type. */
	int (*probe)(const struct keeper *k, struct err *e);

	/* What a machine may use besides its memory: fixed, and per thousand of that. NULL: nothing. */
	void (*extra)(const struct keeper *k, unsigned *ret_mb, unsigned *ret_permille);

	/* Allocate; nothing runs yet. @ev is copied. */
	int (*create)(struct loop *l, struct keeper *k, const struct machine_spec *s,
		      const struct machine_events *ev, struct machine **ret, struct err *e);

	/*
	 * Start it; afterwards take_link() gives the agent's stream. @s as in create.
	 * A fork is an empty shell then, until load() and resume().
	 */
	int (*start)(struct machine *m, const struct machine_spec *s, struct driver_req *r,
		     struct err *e);

	/* Instead of create and start: take over a machine that already runs. */
	int (*adopt)(struct loop *l, struct keeper *k, const struct id *id,
		     const struct machine_events *ev, struct driver_req *r, struct machine **ret,
		     struct err *e);

	/* A fork takes the state it goes on from, once, and stands still until resume(). */
	int (*load)(struct machine *m, struct driver_req *r, struct err *e);

	/* After start or adopt: the agent's stream, given away once; -1 afterwards. */
	int (*take_link)(struct machine *m);
	int (*pid)(const struct machine *m); /* on the host; 0: none */
	/* After adopt: the node of its disk that it writes to (driver_capture.node); -1: it has no layers. */
	int (*top)(const struct machine *m);

	/* Does it stand still just now because this host's disk is full? It goes on by itself. NULL: never. */
	bool (*lacks_room)(const struct machine *m);

	int (*usage)(struct machine *m, struct driver_usage_req *r, struct err *e);

	/* Copy it as it is; see struct driver_capture. A failure lets it run on. One at a time. */
	int (*capture)(struct machine *m, struct driver_capture *c, struct err *e);
	/* Once, after `prepared` and perhaps from inside it: go on; with @why: walk back, and complete with it. */
	void (*capture_now)(struct machine *m, const struct err *why);
	/*
	 * Copy what the disk's layers between the lowest and the top one hold into the top one,
	 * while it runs; then it uses those two only. @first to @node - 1 are the others.
	 */
	int (*flatten)(struct machine *m, unsigned first, unsigned node, struct driver_req *r, struct err *e);
	/* Go on: after a fork was started, and after stay_stopped. */
	int (*resume)(struct machine *m, struct driver_req *r, struct err *e);

	/* Ask it to end (TERM inside, then KILL after @grace_ms); `gone` follows. */
	int (*stop)(struct machine *m, unsigned grace_ms, struct driver_req *r, struct err *e);

	/* Kill, clean up, free @m; completes when nothing of it is left. Cannot be refused. */
	void (*destroy)(struct machine *m, struct driver_req *r);

	/*
	 * Free @m and leave what runs to whoever adopts it: the daemon ends, the machine
	 * does not. Requests in flight never complete, `gone` never comes.
	 */
	void (*forget)(struct machine *m);
};

extern const struct driver driver_null, driver_process, driver_qemu;
