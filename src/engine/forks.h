/*
 * engine/forks.h - what can be done with a whole machine: copy it, keep it, put it back
 *
 * A *task* is one such request under way: it captures a sandbox and does something with the
 * set. It outlives its client, whose stream may go at any time, and ends before its sandbox.
 *
 * TASK-1 One at a time per sandbox; a second one is a conflict.
 *
 * Private to engine/. Thread: the loop's.
 */
#pragma once

struct client;
struct engine;
struct policy_principal;
struct rec_template_build;
struct sandbox;
struct stream;

void task_lost(struct sandbox *sb);	 /* it is about to be freed */
void tasks_drop(struct engine *g);	 /* the engine ends */

/* Make @template hot for @who, unasked: events say what comes of it. */
void template_heat(struct engine *g, const struct policy_principal *who, const struct rec_template_build *rec);

/* Verbs; see engine/serve.h. */
void run_fork(struct client *c, struct stream *s, const void *rec);
void run_pause(struct client *c, struct stream *s, const void *rec);
void run_resume(struct client *c, struct stream *s, const void *rec);
void run_rollback(struct client *c, struct stream *s, const void *rec);
void run_snapshot_create(struct client *c, struct stream *s, const void *rec);
void run_snapshot_list(struct client *c, struct stream *s, const void *rec);
void run_snapshot_info(struct client *c, struct stream *s, const void *rec);
void run_snapshot_remove(struct client *c, struct stream *s, const void *rec);
void run_template_build(struct client *c, struct stream *s, const void *rec);
