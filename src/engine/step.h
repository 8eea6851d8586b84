/*
 * engine/step.h - the steps of the create and adopt plans. Private to engine/create.c and engine/step_*.c.
 *
 * step_place.c	 what a sandbox needs first: image, memory, record, disk
 * step_machine.c the turn to boot, and the machine
 * step_agent.c	 the link and what is said on it
 * step_pool.c	 where a spare waits
 *
 * Every undo copes with things that are half there, not there, or only known
 * to the keeper (PLAN-2). Thread: the loop's.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "driver/driver.h"
#include "engine/plan.h"

struct sandbox;
struct str;

int step_run_image(struct plan *p, struct err *e);
int step_run_reopen(struct plan *p, struct err *e); /* of what is adopted */
void step_undo_image(struct plan *p);
int step_run_promise(struct plan *p, struct err *e);
int step_run_repromise(struct plan *p, struct err *e); /* of what is adopted */
void step_undo_promise(struct plan *p);
int step_run_record(struct plan *p, struct err *e);
void step_undo_record(struct plan *p);
int step_run_disk(struct plan *p, struct err *e);
void step_undo_disk(struct plan *p);
int step_run_load(struct plan *p, struct err *e); /* the set's memory */
void step_undo_load(struct plan *p);
int step_run_disk_again(struct plan *p, struct err *e); /* of a resume: it is there */
void step_undo_disk_again(struct plan *p);
int step_run_turn(struct plan *p, struct err *e);
void step_undo_turn(struct plan *p);
int step_run_machine(struct plan *p, struct err *e);
int step_run_adopt(struct plan *p, struct err *e);
int step_run_layers(struct plan *p, struct err *e); /* of what is adopted: which of them it writes to */
void step_undo_machine(struct plan *p);
int step_run_link(struct plan *p, struct err *e);
void step_undo_link(struct plan *p);
int step_run_state(struct plan *p, struct err *e); /* of a fork: an empty shell until then */
int step_load_state(struct sandbox *sb, struct err *e); /* of a shell, which waited there */
int step_run_go(struct plan *p, struct err *e); /* a fork stands still until then */
int step_run_commit(struct plan *p, struct err *e); /* of a resume: from here on the disk changes */
int step_run_thaw(struct plan *p, struct err *e); /* of what is adopted */
int step_run_hello(struct plan *p, struct err *e);
int step_run_setup(struct plan *p, struct err *e);
/* The same again, with what it is now, on one that is set up. -ERR_x: @done never comes. */
int step_say_setup(struct sandbox *sb, void (*done)(struct sandbox *sb), struct err *e);
int step_run_pool(struct plan *p, struct err *e); /* a spare waits here */
void step_undo_pool(struct plan *p);
void step_go_on(struct sandbox *sb); /* a spare that was taken, from where it waits */
int step_run_ready(struct plan *p, struct err *e);

void step_add_stage(struct str *s, const char *name, uint64_t us); /* to a record's map of stages */
struct sandbox *step_sandbox(struct plan *p);
bool step_is_fork(const struct sandbox *sb); /* goes on from memory and state */
bool step_brings_files(const struct sandbox *sb); /* boots, with the files of a set */
bool step_needs_image(const struct sandbox *sb);	  /* a kernel of its own: image and disk */
uint64_t step_deadline_ms(const struct sandbox *sb);	  /* of its create plan */
void step_close_files(struct sandbox *sb);		  /* of image and disk; the machine has its own */
void step_give_turn(struct sandbox *sb);		  /* it boots no more; none: fine */
/* End the link and the machine of a sandbox that stays; @then comes when nothing of it is left, unless it ends. */
void step_park(struct sandbox *sb, void (*then)(struct sandbox *sb));
void step_unlink(struct sandbox *sb, const struct err *why); /* the link and all calls on it */
void step_forget_machine(struct sandbox *sb);		  /* the daemon ends, the machine does not */
