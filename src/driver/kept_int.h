/*
 * driver/kept_int.h - a kept machine from inside. Private to driver/kept.c and driver/capture.c.
 *
 * An *op* is a request under way. Its keeper_call belongs to the keeper until it is done, so
 * a machine that is destroyed or forgotten lives on, unseen, until its last op is back.
 */
#pragma once
#include <stdbool.h>
#include "base/err.h"
#include "base/id.h"
#include "base/list.h"
#include "driver/driver.h"
#include "driver/monitor.h"
#include "keeper/keeper.h"
#include "loop/loop.h"
#include "wire/qmp.h"

/*
 * NEW		start
 * STARTING	start or adopt is under way
 * UP		take_link, usage, load, capture, resume, stop
 * GONE		ended and told, or failed to start: only destroy and forget, as always
 * ENDING	destroyed or forgotten: nothing is legal
 */
enum kept_state { KEPT_NEW, KEPT_STARTING, KEPT_UP, KEPT_GONE, KEPT_ENDING };

struct op {
	struct list link;
	struct machine *machine;
	struct driver_req *req; /* NULL: completed already, or nobody waits any more */
	struct keeper_call call;
};

struct machine {
	struct loop *loop;
	struct keeper *keeper;
	struct id id;
	struct machine_events ev;
	enum kept_state state;
	int link_fd, pid;
	bool was_adopted, is_fork;
	int top;		 /* node of its disk that it writes to, of one that was taken over */
	struct keeper_watch watch;
	struct monitor *monitor;
	char last_event[QMP_TEXT_MAX * 2 + 3]; /* of the monitor: why QEMU ends */
	struct driver_req *start_req; /* waits for the monitor */
	struct loop_timer down_timer; /* QEMU went while it started: the keeper may know why */
	struct err down_why;
	struct driver_req *load_req;
	struct monitor_call say;      /* while it starts or loads */
	void (*tidied)(struct machine *m, const struct err *why);
	unsigned tidy_part;
	struct driver_req *resume_req;
	struct monitor_call resume;
	struct loop_timer room;	      /* its disk was full: it stands still, and tries again then */
	uint64_t no_room_ns;	      /* its disk was full, and until then it still is, as far as we know */
	struct monitor_call try_again;
	bool is_trying, is_held;      /* held: it stands still because a capture said so */
	struct capture *capture; /* under way; NULL: none */
	struct flatten *flatten; /* likewise */
	struct list ops;
	struct loop_call cancel;
	struct driver_req *release_req;
	struct loop_call released; /* a release that failed at once */
	struct err release_why;
};

/* ---- kept.c, for capture.c ---- */

struct op *op_new(struct machine *m, struct driver_req *req,
		  void (*done)(struct keeper_call *c, const struct err *why));
void op_free(struct op *op); /* the machine may go with it */

/* ---- tidy.c, for kept.c ---- */

/* What the daemon before left half said in the monitor: undone. Then @done, once, or the monitor's `down`. */
void tidy(struct machine *m, void (*done)(struct machine *m, const struct err *why));

/* ---- capture.c, for kept.c ---- */

/* The machine ended or is destroyed: so is what is under way. None: fine. */
void capture_end(struct machine *m, const struct err *why);
void capture_forget(struct machine *m); /* without a word */

/* ---- flatten.c, for kept.c: the same ---- */

void flatten_event(struct machine *m, const struct qmp_message *msg);
void flatten_end(struct machine *m, const struct err *why);
void flatten_forget(struct machine *m);
