/*
 * driver/kept.h - machines behind the keeper: what `process` and `qemu` have in common
 *
 * The keeper starts, stops and cleans up; here is the engine's view of it: requests in
 * flight, the link to hand over, the end to tell, and QEMU's monitor where there is one.
 * The functions are members of struct driver, except kept_new(), kept_host() and kept_start(),
 * which a driver calls when it has checked the spec and written the keeper's record.
 *
 * Thread: the loop's. Contract: driver/driver.h.
 */
#pragma once
#include "driver/driver.h"

struct keeper_host;
struct rec_machine_start;

struct machine *kept_new(struct loop *l, struct keeper *k, const struct id *id,
			 const struct machine_events *ev);
const struct keeper_host *kept_host(const struct machine *m);
/* @fds: lent. A machine with a monitor is started when QEMU answers on it. */
int kept_start(struct machine *m, const struct rec_machine_start *rec, const int *fds, unsigned n_fds,
	       struct driver_req *r, struct err *e);

int kept_adopt(struct loop *l, struct keeper *k, const struct id *id, const struct machine_events *ev,
	       struct driver_req *r, struct machine **ret, struct err *e);
int kept_take_link(struct machine *m);
int kept_pid(const struct machine *m);
int kept_top(const struct machine *m);
bool kept_lacks_room(const struct machine *m);
int kept_usage(struct machine *m, struct driver_usage_req *r, struct err *e);
int kept_capture(struct machine *m, struct driver_capture *c, struct err *e); /* driver/capture.c */
void kept_capture_now(struct machine *m, const struct err *why);
int kept_copy_files(struct machine *m, struct driver_capture *c, struct err *e); /* of a process sandbox */
int kept_load(struct machine *m, struct driver_req *r, struct err *e);
int kept_flatten(struct machine *m, unsigned first, unsigned node, struct driver_req *r,
		 struct err *e); /* driver/flatten.c */
int kept_resume(struct machine *m, struct driver_req *r, struct err *e);
int kept_stop(struct machine *m, unsigned grace_ms, struct driver_req *r, struct err *e);
void kept_destroy(struct machine *m, struct driver_req *r);
void kept_forget(struct machine *m);
