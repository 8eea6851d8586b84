/* engine/forks.c - fork, snapshot, pause, resume, rollback, hot templates: tasks on whole machines */
#include "engine/forks.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "engine/capture.h"
#include "engine/ending.h"
#include "engine/engine_int.h"
#include "engine/pool.h"
#include "engine/sandbox.h"
#include "engine/serve.h"
#include "engine/sets.h"
#include "engine/step.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/limits.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum {
	WARM_MS = 300000, /* one command or source of a template */
	CHILD_NAME = SANDBOX_TEXT + 16,
};

/* One copy of a fork. */
struct child {
	struct sandbox_follow follow;
	struct task *task;
	struct id id;
	bool runs;
};

struct task {
	struct list link; /* in engine->tasks */
	struct engine *engine;
	struct stream *stream; /* NULL: its client is gone, or nobody asked */
	struct policy_principal who;
	char tenant[SANDBOX_TEXT], owner[SANDBOX_TEXT];
	struct sandbox *sb; /* NULL: none, or gone */
	struct set *set;
	struct capture_call capture;
	struct set_wait wait;
	struct sandbox_follow follow;
	struct err why; /* of a failure that is being walked back from */
	bool awaits_sandbox; /* nothing else will come: its sandbox's end must end it */
	/* fork */
	struct child *children;
	unsigned count, settled, sent;
	bool is_ephemeral;
	char name[SANDBOX_TEXT];
	/* snapshot */
	uint64_t keep_ms;
	/* rollback */
	struct work job;
	struct err job_error;
	struct layers layers;
	/* template */
	const char *warm;
	bool warms_code, is_unasked;
	struct ending ending; /* of @warm */
};

/* ---- tasks ---- */

static void on_closed(struct stream *s, const struct err *why)
{
	struct task *t = stream_arg(s);

	(void)why;
	t->stream = NULL; /* what was begun is finished all the same */
}

static const struct stream_ops task_ops = {.closed = on_closed};
static const struct stream_ops deaf = {0};

/* @s NULL: nobody asked. */
static struct task *task_for(struct engine *g, const struct policy_principal *who, struct stream *s,
			     struct sandbox *sb)
{
	struct task *t = mem_new(sizeof(*t));

	*t = (struct task){.engine = g, .stream = s, .sb = sb, .layers = LAYERS_INIT};
	span_copy(span_of(who->tenant), t->tenant, sizeof(t->tenant));
	span_copy(span_of(who->owner), t->owner, sizeof(t->owner));
	t->who = (struct policy_principal){t->tenant, t->owner};
	if (sb)
		sb->task = t;
	list_add_tail(&g->tasks, &t->link);
	if (s)
		stream_accept(s, &task_ops, t);
	return t;
}

static struct task *task_new(struct client *c, struct stream *s, struct sandbox *sb)
{
	return task_for(c->engine, &c->who, s, sb);
}

static void task_free(struct task *t)
{
	if (t->sb)
		t->sb->task = NULL;
	for (unsigned i = 0; t->children && i < t->count; i++)
		sandbox_unfollow(&t->children[i].follow);
	sandbox_unfollow(&t->follow);
	set_forget(&t->wait);
	(void)set_unref(t->set);
	ending_deinit(&t->ending);
	list_del(&t->link);
	free(t->children);
	free(t);
}

static void task_fail(struct task *t, const struct err *why)
{
	struct err e = *why;

	if (t->stream) {
		struct stream *s = take_ptr(&t->stream);

		stream_fail(s, &e);
	}
	task_free(t);
}

static void reply_sandbox(struct task *t)
{
	struct rec_sandbox_info info;

	if (t->stream) {
		sandbox_info(t->sb, &info);
		stream_accept(t->stream, &deaf, NULL);
		(void)stream_reply(t->stream, &rec_sandbox_info_type, &info, false, NULL, 0, NULL);
	}
	task_free(t);
}

static void reply_set(struct task *t)
{
	struct rec_snapshot_info info;

	if (t->stream) {
		set_info(t->set, &info);
		stream_accept(t->stream, &deaf, NULL);
		(void)stream_reply(t->stream, &rec_snapshot_info_type, &info, false, NULL, 0, NULL);
	}
	task_free(t);
}

static void tell_cold(struct engine *g, const char *tenant, struct sandbox *sb, const struct err *why)
{
	static const char text[] = "it was to be made hot: ";

	if (sb)
		engine_emit(g, "warn", EVENT_TEMPLATE_NOT_HOT, sb, NULL, "%s%s", text, why->text);
	else
		engine_emit_for(g, tenant, "warn", EVENT_TEMPLATE_NOT_HOT, "%s%s", text, why->text);
}

void task_lost(struct sandbox *sb)
{
	struct task *t = sb->task;
	struct err e = ERR_INIT;

	sb->task = NULL;
	if (!t)
		return;
	t->sb = NULL;
	if (!t->awaits_sandbox)
		return; /* a job, a copy or a follower ends it */
	err_set(&e, ERR_GONE, "the sandbox ended meanwhile");
	if (t->is_unasked)
		tell_cold(t->engine, t->tenant, NULL, &e);
	task_fail(t, &e);
}

void tasks_drop(struct engine *g)
{
	while (!list_empty(&g->tasks)) {
		struct task *t = LIST_ENTRY(g->tasks.next, struct task, link);

		if (t->stream)
			stream_accept(t->stream, &deaf, NULL);
		task_free(t);
	}
}

/* Its sandbox went while something else was waited for. */
static bool is_lost(struct task *t, enum sandbox_state want)
{
	struct err e = ERR_INIT;

	if (t->sb && t->sb->state == want && !t->sb->plan.why.code)
		return false;
	err_set(&e, ERR_GONE, "the sandbox ended meanwhile");
	task_fail(t, &e);
	return true;
}

static struct sandbox *find(struct client *c, struct stream *s, struct span ref)
{
	struct sandbox *sb = sandbox_find(c->engine, c->who.tenant, ref);
	struct err e = ERR_INIT;

	if (!sb)
		err_set(&e, ERR_NOT_FOUND, "there is no sandbox %.*s", (int)ref.n, ref.p);
	else if (sb->task)
		err_set(&e, ERR_CONFLICT, "sandbox %s is being copied, saved or put back", sb->id_text);
	if (!e.code) {
		sandbox_touch(sb);
		return sb;
	}
	stream_fail(s, &e);
	return NULL;
}

/* Start to capture, or fail the task. */
static void capture(struct task *t, const char *kind, bool stay,
		    void (*done)(struct capture_call *c, struct set *set, const struct err *why))
{
	struct err e = ERR_INIT;

	t->capture = (struct capture_call){.done = done, .stay = stay, .kind = kind};
	if (capture_start(t->sb, &t->capture, &e) < 0)
		task_fail(t, &e);
}

/* ---- fork ---- */

static void fork_send(struct task *t)
{
	for (; t->sent < t->count; t->sent++) {
		struct map_node *node = map_find(&t->engine->by_id, t->children[t->sent].id.b, ID_BYTES);
		struct rec_sandbox_info info;

		if (!node) /* removed since */
			continue;
		sandbox_info(CONTAINER_OF(node, struct sandbox, by_id), &info);
		if (!stream_send_item(t->stream, &rec_sandbox_info_type, &info))
			return;
	}
	stream_end(t->stream);
}

static void fork_writable(struct stream *s)
{
	struct task *t = stream_arg(s);

	if (t->settled == t->count)
		fork_send(t);
}

static void fork_closed(struct stream *s, const struct err *why)
{
	struct task *t = stream_arg(s);

	(void)why;
	t->stream = NULL;
	if (t->settled == t->count)
		task_free(t);
}

static void fork_answer(struct task *t)
{
	static const struct stream_ops ops = {.writable = fork_writable, .closed = fork_closed};

	if (!t->stream) {
		task_free(t);
		return;
	}
	if (t->sb)
		t->sb->task = NULL; /* the source is done with; only words are left */
	t->sb = NULL;
	stream_accept(t->stream, &ops, t);
	(void)stream_reply(t->stream, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, NULL);
	fork_send(t);
}

/* All or nothing. */
static void fork_undo(struct task *t)
{
	struct err why = t->why;

	for (unsigned i = 0; i < t->count; i++) {
		struct map_node *node = t->children[i].runs
						? map_find(&t->engine->by_id, t->children[i].id.b, ID_BYTES)
						: NULL;

		if (node)
			sandbox_remove(CONTAINER_OF(node, struct sandbox, by_id), &why);
	}
	task_fail(t, &why);
}

static void fork_settled(struct task *t)
{
	if (++t->settled < t->count)
		return;
	if (t->why.code)
		fork_undo(t);
	else
		fork_answer(t);
}

static void child_done(struct sandbox_follow *f, struct sandbox *sb, const struct err *why)
{
	struct child *ch = CONTAINER_OF(f, struct child, follow);

	(void)sb;
	ch->runs = !why;
	if (why && !ch->task->why.code) {
		err_copy(&ch->task->why, why);
		if (ch->task->count > 1)
			err_wrap(&ch->task->why, "copy %u of %u", (unsigned)(ch - ch->task->children) + 1,
				 ch->task->count);
	}
	fork_settled(ch->task);
}

/* Of copy @i. */
static void child_name(const struct task *t, unsigned i, char ret[CHILD_NAME])
{
	ret[0] = '\0';
	if (t->name[0] && t->count == 1)
		(void)snprintf(ret, CHILD_NAME, "%s", t->name);
	else if (t->name[0])
		(void)snprintf(ret, CHILD_NAME, "%s-%u", t->name, i + 1);
}

static void start_child(struct task *t, unsigned i, const struct sandbox *source)
{
	struct child *ch = &t->children[i];
	char name[CHILD_NAME];
	struct sandbox *sb;
	struct err e = ERR_INIT;

	child_name(t, i, name);
	ch->task = t;
	if (t->why.code || sandbox_fork(t->engine, &t->who, source, t->set, name, t->is_ephemeral, &sb, &e) < 0) {
		if (!t->why.code)
			err_copy(&t->why, &e);
		fork_settled(t);
		return;
	}
	ch->id = sb->id;
	ch->follow.done = child_done;
	sandbox_follow(sb, &ch->follow);
}

static void fork_captured(struct capture_call *c, struct set *set, const struct err *why)
{
	struct task *t = CONTAINER_OF(c, struct task, capture);
	const struct sandbox *source = t->sb;
	unsigned count = t->count;

	if (why) {
		task_fail(t, why);
		return;
	}
	t->set = set;
	engine_emit(t->engine, "info", EVENT_SANDBOX_FORKED, t->sb, NULL, "%u times, it stood still for %llu us",
		    count, (unsigned long long)set->pause_us);
	for (unsigned i = 0; i < count; i++)
		start_child(t, i, source); /* the last one may free @t, when all had failed */
}

/* Before anything stands still. */
static int check_names(const struct task *t, struct err *e)
{
	char name[CHILD_NAME];
	const struct sandbox *other;
	int r = 0;

	for (unsigned i = 0; t->name[0] && i < t->count && r == 0; i++) {
		child_name(t, i, name);
		r = policy_name(span_of(name), e);
		other = r == 0 ? sandbox_find(t->engine, t->tenant, span_of(name)) : NULL;
		if (other && other->state != SANDBOX_FAILED) /* which would lose its name */
			r = err_set(e, ERR_CONFLICT, "name: %s is taken by sandbox %s", name, other->id_text);
	}
	return r;
}

void run_fork(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_sandbox_fork *rq = rec;
	struct sandbox *sb = find(c, s, rq->sandbox);
	struct err e = ERR_INIT;
	struct task *t;

	if (!sb)
		return;
	t = task_new(c, s, sb);
	t->count = rq->count ? (unsigned)rq->count : 1;
	t->children = mem_new(t->count * sizeof(*t->children));
	t->is_ephemeral = rq->ephemeral;
	span_copy(rq->name, t->name, sizeof(t->name));
	if (check_names(t, &e) < 0)
		task_fail(t, &e);
	else
		capture(t, "fork", false, fork_captured);
}

/* ---- snapshot ---- */

static void snapshot_saved(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);

	if (why)
		task_fail(t, why);
	else
		reply_set(t);
}

static int check_name(const struct task *t, struct err *e)
{
	if (!t->name[0] || !set_name_is_taken(t->engine, t->tenant, span_of(t->name)))
		return 0;
	return err_set(e, ERR_CONFLICT, "name: there is a snapshot %s", t->name);
}

static void snapshot_captured(struct capture_call *c, struct set *set, const struct err *why)
{
	struct task *t = CONTAINER_OF(c, struct task, capture);
	struct err e = ERR_INIT;

	if (why) {
		task_fail(t, why);
		return;
	}
	t->set = set;
	if (check_name(t, &e) < 0) { /* given to another one meanwhile */
		task_fail(t, &e);
		return;
	}
	(void)snprintf(set->m.name, sizeof(set->m.name), "%s", t->name);
	if (t->keep_ms)
		set->m.delete_ms = set->m.created_ms + t->keep_ms;
	t->wait.done = snapshot_saved;
	set_save(set, &t->wait);
}

static unsigned count_sets(const struct engine *g)
{
	unsigned n = 0;

	LIST_FOR_EACH(pos, &g->sets)
		n++;
	return n;
}

static int check_snapshot(struct client *c, const struct rec_snapshot_create *rq, struct err *e)
{
	int r = policy_name(rq->name, e);

	if (r < 0)
		return r;
	if (rq->name.n && set_name_is_taken(c->engine, c->who.tenant, rq->name))
		return err_set(e, ERR_CONFLICT, "name: there is a snapshot %.*s", (int)rq->name.n, rq->name.p);
	if (count_sets(c->engine) >= LIMIT_SNAPSHOTS)
		return err_set(e, ERR_LIMIT, "there are %d snapshots already", LIMIT_SNAPSHOTS);
	return 0;
}

void run_snapshot_create(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_snapshot_create *rq = rec;
	struct sandbox *sb = find(c, s, rq->sandbox);
	struct err e = ERR_INIT;
	struct task *t;

	if (!sb)
		return;
	if (check_snapshot(c, rq, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	t = task_new(c, s, sb);
	span_copy(rq->name, t->name, sizeof(t->name));
	t->keep_ms = rq->keep_ms;
	capture(t, "snapshot", false, snapshot_captured);
}

static struct set *find_set(struct client *c, struct stream *s, struct span ref)
{
	struct set *set = set_find(c->engine, c->who.tenant, ref);
	struct err e = ERR_INIT;

	if (set)
		return set;
	err_set(&e, ERR_NOT_FOUND, "there is no snapshot %.*s", (int)ref.n, ref.p);
	stream_fail(s, &e);
	return NULL;
}

void run_snapshot_info(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_snapshot_ref *rq = rec;
	struct set *set = find_set(c, s, rq->snapshot);
	struct rec_snapshot_info info;

	if (!set)
		return;
	set_info(set, &info);
	stream_accept(s, &deaf, NULL);
	(void)stream_reply(s, &rec_snapshot_info_type, &info, false, NULL, 0, NULL);
}

static void set_removed(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);

	if (why) {
		task_fail(t, why);
		return;
	}
	if (t->stream) {
		stream_accept(t->stream, &deaf, NULL);
		(void)stream_reply(t->stream, &rec_empty_type, &(struct rec_empty){0}, false, NULL, 0, NULL);
	}
	task_free(t);
}

void run_snapshot_remove(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_snapshot_ref *rq = rec;
	struct set *set = find_set(c, s, rq->snapshot);
	struct task *t;

	if (!set)
		return;
	t = task_new(c, s, NULL);
	t->wait.done = set_removed;
	set_remove(set, &t->wait);
}

static bool send_sets(struct client *c, struct stream *s, uint64_t *after)
{
	LIST_FOR_EACH(pos, &c->engine->sets) {
		const struct set *set = LIST_ENTRY(pos, struct set, link);
		struct rec_snapshot_info info;

		if (set->serial <= *after || !set->is_stored || set->is_removed ||
		    strcmp(set->m.kind, "pause") == 0 || !policy_may_use(&c->who, set->m.tenant))
			continue;
		set_info(set, &info);
		if (!stream_send_item(s, &rec_snapshot_info_type, &info))
			return false;
		*after = set->serial;
	}
	return true;
}

void run_snapshot_list(struct client *c, struct stream *s, const void *rec)
{
	(void)rec;
	serve_items(c, s, send_sets);
}

/* ---- pause ---- */

static void pause_back(struct capture_call *c, struct set *set, const struct err *why)
{
	struct task *t = CONTAINER_OF(c, struct task, capture);
	struct err e = t->why;

	(void)set;
	(void)why; /* it ends, and says so itself */
	task_fail(t, &e);
}

/* It could not be written down: it runs on. */
static void pause_undo(struct task *t, const struct err *why)
{
	err_copy(&t->why, why);
	if (t->set->is_stored)
		set_remove(t->set, NULL);
	t->capture.done = pause_back;
	capture_go_on(t->sb, &t->capture);
}

static void pause_parked(struct sandbox *sb)
{
	sandbox_paused(sb);
	reply_sandbox(sb->task);
}

/* Its machine goes; @then comes unless the sandbox goes, too. */
static void park(struct task *t, const char *why, void (*then)(struct sandbox *sb))
{
	struct err gone = ERR_INIT;

	err_set(&gone, ERR_FORKED, "%s", why);
	step_unlink(t->sb, &gone);
	t->awaits_sandbox = true;
	step_park(t->sb, then);
}

static void run_sync(struct work *w)
{
	struct task *t = CONTAINER_OF(w, struct task, job);

	(void)store_sync(t->engine->store, &t->job_error);
}

/* After a power cut the next daemon finds the set, and must find that it counts. */
static void pause_synced(struct work *w)
{
	struct task *t = CONTAINER_OF(w, struct task, job);

	if (!t->sb || t->sb->state != SANDBOX_RUNNING) {
		set_remove(t->set, NULL);
		(void)is_lost(t, SANDBOX_RUNNING);
	} else if (t->job_error.code) {
		(void)sandbox_save(t->sb, NULL);
		pause_undo(t, &t->job_error);
	} else {
		park(t, "the sandbox was paused; its programs go on when it is resumed", pause_parked);
	}
}

static void pause_saved(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);
	struct sandbox *sb = t->sb;
	struct store_life life;
	struct err e = ERR_INIT;

	if (!sb || sb->state != SANDBOX_RUNNING) {
		if (!why)
			set_remove(t->set, NULL);
		(void)is_lost(t, SANDBOX_RUNNING);
		return;
	}
	life = (struct store_life){
		.state = sandbox_state_name(SANDBOX_PAUSED),
		.reason = "",
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.stages = {sb->stages, sb->stages_n},
	};
	err_copy(&e, why);
	if (!e.code)
		(void)store_sandbox_update(t->engine->store, &sb->id, &life, &e);
	if (e.code) {
		pause_undo(t, &e);
		return;
	}
	t->job.run = run_sync;
	t->job.done = pause_synced;
	work_submit(t->engine->pool, &t->job);
}

static void pause_captured(struct capture_call *c, struct set *set, const struct err *why)
{
	struct task *t = CONTAINER_OF(c, struct task, capture);

	if (why) {
		task_fail(t, why);
		return;
	}
	t->set = set;
	set->m.id = t->sb->id;
	t->wait.done = pause_saved;
	set_save(set, &t->wait);
}

void run_pause(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_sandbox_ref *rq = rec;
	struct sandbox *sb = find(c, s, rq->sandbox);

	if (sb)
		capture(task_new(c, s, sb), "pause", true, pause_captured);
}

/* ---- resume ---- */

static void resume_done(struct sandbox_follow *f, struct sandbox *sb, const struct err *why)
{
	struct task *t = CONTAINER_OF(f, struct task, follow);

	(void)sb;
	if (why)
		task_fail(t, why);
	else
		reply_sandbox(t);
}

static void start_resume(struct task *t, struct set *set)
{
	struct err e = ERR_INIT;

	t->follow.done = resume_done;
	image_close(&t->sb->image); /* held since it was made; the resume opens it anew */
	if (sandbox_resume_paused(t->sb, set, &e) < 0)
		task_fail(t, &e);
	else
		sandbox_follow(t->sb, &t->follow);
}

/* One that was stopped in the middle of a rollback is put back where it was to go. */
static struct set *set_of_rollback(const struct sandbox *sb)
{
	char text[ID_TEXT];
	struct set *set;

	if (!sb->is_rolling_back)
		return NULL;
	id_format(&sb->parent, text);
	set = set_find(sb->engine, sb->tenant, span_of(text));
	return set && id_eq(&set->m.sandbox, &sb->id) ? set : NULL;
}

static void start_rollback(struct client *c, struct stream *s, struct sandbox *sb, struct set *set);

void run_resume(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_sandbox_ref *rq = rec;
	struct sandbox *sb = find(c, s, rq->sandbox);
	struct set *set;
	struct err e = ERR_INIT;

	if (!sb)
		return;
	set = set_of_pause(c->engine, &sb->id);
	if (capture_check_memory(sb, &e) == 0 && sb->state != SANDBOX_PAUSED)
		err_set(&e, ERR_CONFLICT, "sandbox %s is %s, not paused", sb->id_text,
			sandbox_state_name(sb->state));
	if (!e.code && !set && (set = set_of_rollback(sb))) {
		start_rollback(c, s, sb, set);
		return;
	}
	if (!e.code && !set)
		err_set(&e, ERR_NOT_FOUND, "sandbox %s: what was saved of it at its pause is missing or damaged; "
			"hotcell rollback puts it back to a snapshot of it, if there is one", sb->id_text);
	if (e.code)
		stream_fail(s, &e);
	else
		start_resume(task_new(c, s, sb), set);
}

/* ---- rollback ---- */

static void run_swap(struct work *w)
{
	struct task *t = CONTAINER_OF(w, struct task, job);
	const struct engine_host *h = t->engine->host;

	(void)h->layers_rollback(h->arg, &t->sb->id, &t->set->m.id, (unsigned)t->set->m.layers,
				 t->set->m.disk_mb * MIB, &t->layers, &t->job_error);
}

static void swapped(struct work *w)
{
	struct task *t = CONTAINER_OF(w, struct task, job);
	const struct engine_host *h = t->engine->host;
	struct sandbox *sb = t->sb;

	for (unsigned i = 0; i < t->layers.n; i++)
		h->close_fd(h->arg, t->layers.fds[i]);
	sb->is_swapping = false;
	if (!t->job_error.code)
		sb->layers = t->layers.n;
	if (sb->fate == SANDBOX_GONE) { /* removed meanwhile */
		sandbox_remove(sb, &sb->reason);
		(void)is_lost(t, SANDBOX_PAUSED);
	} else if (t->job_error.code) {
		task_fail(t, &t->job_error);
	} else {
		start_resume(t, t->set);
	}
}

static void swap(struct task *t)
{
	t->sb->is_swapping = true;
	t->job.run = run_swap;
	t->job.done = swapped;
	work_submit(t->engine->pool, &t->job);
}

static void rollback_parked(struct sandbox *sb)
{
	sb->task->awaits_sandbox = false;
	sandbox_paused(sb);
	swap(sb->task);
}

static void pause_dropped(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);

	if (why)
		task_fail(t, why);
	else if (!is_lost(t, SANDBOX_PAUSED))
		swap(t);
}

/* The memory of the pause is not of the disk that comes: it goes first, so nothing can bring them together. */
static void drop_pause(struct task *t)
{
	struct set *pause = set_of_pause(t->engine, &t->sb->id);

	t->wait.done = pause_dropped;
	if (pause)
		set_remove(pause, &t->wait);
	else
		swap(t);
}

/*
 * From here on it is paused without memory, on its way to the set: if we die, the next daemon
 * finds that, and a resume goes there.
 */
static bool note_rollback(struct task *t)
{
	struct sandbox *sb = t->sb;
	struct id before = sb->parent;
	struct store_sandbox row;
	struct err e = ERR_INIT;

	sb->parent = t->set->m.id;
	sandbox_row(sb, &row);
	row.state = SANDBOX_ROLLING_BACK;
	if (store_sandbox_rewrite(t->engine->store, &row, &e) == 0) {
		sb->is_rolling_back = true;
		return true;
	}
	sb->parent = before;
	task_fail(t, &e);
	return false;
}

static void rollback_loaded(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);

	if (why) {
		task_fail(t, why);
		return;
	}
	if (t->sb && t->sb->state == SANDBOX_PAUSED) {
		if (note_rollback(t))
			drop_pause(t);
		return;
	}
	if (!is_lost(t, SANDBOX_RUNNING) && note_rollback(t))
		park(t, "the sandbox was rolled back", rollback_parked);
}

static void start_rollback(struct client *c, struct stream *s, struct sandbox *sb, struct set *set)
{
	struct task *t = task_new(c, s, sb);

	t->set = set_ref(set);
	t->wait.done = rollback_loaded;
	set_load(set, &t->wait);
}

static int check_rollback(const struct sandbox *sb, const struct set *set, struct err *e)
{
	if (capture_check_memory(sb, e) < 0 || set_check(set, e) < 0)
		return -e->code;
	if (sb->state != SANDBOX_RUNNING && sb->state != SANDBOX_PAUSED)
		return err_set(e, ERR_CONFLICT, "sandbox %s is %s", sb->id_text, sandbox_state_name(sb->state));
	if (!id_eq(&set->m.sandbox, &sb->id))
		return err_set(e, ERR_INVALID, "snapshot: it was taken of another sandbox; hotcell create --snapshot "
			       "makes a new one from it");
	if (set->m.layers + 1 > LIMIT_DISK_LAYERS)
		return err_set(e, ERR_LIMIT, "the snapshot's disk has %llu layers, %d is the most",
			       (unsigned long long)set->m.layers, LIMIT_DISK_LAYERS - 1);
	return 0;
}

void run_rollback(struct client *c, struct stream *s, const void *rec)
{
	const struct rec_sandbox_rollback *rq = rec;
	struct sandbox *sb = find(c, s, rq->sandbox);
	struct set *set = sb ? find_set(c, s, rq->snapshot) : NULL;
	struct err e = ERR_INIT;

	if (!set)
		return;
	if (check_rollback(sb, set, &e) < 0)
		stream_fail(s, &e);
	else
		start_rollback(c, s, sb, set);
}

/* ---- hot templates ---- */

static void next_warm(struct task *t);

/* The builder goes, whatever came of it. */
static void builder_away(struct task *t, const char *text)
{
	struct sandbox *sb = t->sb;
	struct err why = ERR_INIT;

	if (!sb)
		return;
	sb->task = NULL;
	t->sb = NULL;
	err_set(&why, ERR_GONE, "%s", text);
	sandbox_remove(sb, &why);
}

static void template_fail(struct task *t, const struct err *why)
{
	struct err e = *why;

	if (t->is_unasked)
		tell_cold(t->engine, t->tenant, t->sb, &e);
	builder_away(t, "the template could not be built");
	task_fail(t, &e);
}

static void template_saved(struct set_wait *w, const struct err *why)
{
	struct task *t = CONTAINER_OF(w, struct task, wait);

	if (why) {
		template_fail(t, why);
		return;
	}
	set_retire_others(t->set);
	pools_renew(t->engine, t->tenant, t->set->m.template);
	builder_away(t, "the template is built");
	reply_set(t);
}

static void template_captured(struct capture_call *c, struct set *set, const struct err *why)
{
	struct task *t = CONTAINER_OF(c, struct task, capture);

	if (why) {
		template_fail(t, why);
		return;
	}
	t->set = set;
	t->wait.done = template_saved;
	set_save(set, &t->wait);
}

static void warm_data(struct stream *s, uint64_t offset, struct span bytes)
{
	struct task *t = stream_arg(s);

	(void)offset;
	ending_read(&t->ending, bytes);
	stream_consumed(s, bytes.n);
}

static void warm_closed(struct stream *s, const struct err *why)
{
	struct task *t = stream_arg(s);
	struct err e = ERR_INIT;

	t->awaits_sandbox = false;
	if (!t->sb || t->sb->state != SANDBOX_RUNNING) {
		(void)is_lost(t, SANDBOX_RUNNING);
		return;
	}
	if (why)
		err_copy(&e, why);
	if (why || ending_check(&t->ending, &e) < 0) {
		err_wrap(&e, "warm: %.*s", (int)strcspn(t->warm, "\n"), t->warm);
		template_fail(t, &e);
		return;
	}
	next_warm(t);
}

static const struct stream_ops warm_ops = {.data = warm_data, .closed = warm_closed};

static int warm_command(struct task *t, struct err *e)
{
	const struct rec_exec_start rec = {.command = span_of(t->warm), .timeout_ms = WARM_MS};

	return link_call(t->sb->link, METHOD_EXEC_START, &rec_exec_start_type, &rec, false, NULL, 0, &warm_ops, t,
			 NULL, e);
}

static int warm_code(struct task *t, struct err *e)
{
	const char *source = strchr(t->warm, '=');
	const struct rec_code_run rec = {
		.language = {t->warm, (size_t)(source - t->warm)},
		.source = span_of(source[1] ? source + 1 : "\n"),
		.timeout_ms = WARM_MS,
	};

	return link_call(t->sb->link, METHOD_CODE_RUN, &rec_code_run_type, &rec, false, NULL, 0, &warm_ops, t,
			 NULL, e);
}

static const char *warm_after(struct task *t)
{
	const struct image *i = &t->sb->image;
	const char *next = t->warm ? strv_next(t->warms_code ? i->interpreters : i->warm, t->warm)
				   : strv_first(i->warm);

	if (!next && !t->warms_code) {
		t->warms_code = true;
		next = strv_first(i->interpreters);
	}
	return next;
}

static void next_warm(struct task *t)
{
	struct err e = ERR_INIT;
	bool is_code;
	int r;

	t->warm = warm_after(t);
	if (!t->warm) {
		capture(t, "template", true, template_captured);
		return;
	}
	is_code = t->warms_code && strchr(t->warm, '=');
	ending_deinit(&t->ending);
	ending_init(&t->ending, is_code);
	r = is_code ? warm_code(t, &e) : warm_command(t, &e);
	if (r < 0)
		template_fail(t, &e);
	else
		t->awaits_sandbox = true;
}

static void builder_ready(struct sandbox_follow *f, struct sandbox *sb, const struct err *why)
{
	struct task *t = CONTAINER_OF(f, struct task, follow);

	if (why) {
		if (t->is_unasked)
			tell_cold(t->engine, t->tenant, sb, why);
		task_fail(t, why);
		return;
	}
	if (!(sb->driver->caps & DRIVER_CAN_CAPTURE)) {
		struct err e = ERR_INIT;

		err_set(&e, ERR_UNSUPPORTED, "driver %s can't be copied", sb->driver->name);
		template_fail(t, &e);
		return;
	}
	next_warm(t);
}

static int build_template(struct engine *g, const struct policy_principal *who, struct stream *s,
			  const struct rec_template_build *rq, struct err *e)
{
	const struct rec_sandbox_create want = {
		.template = rq->template,
		.vcpus = rq->vcpus,
		.memory_mb = rq->memory_mb,
		.disk_mb = rq->disk_mb,
		.unenforced = rq->unenforced,
		.cold = true,
	};
	struct sandbox *sb;
	struct task *t;
	int r = sandbox_create(g, who, &want, &sb, e);

	if (r < 0)
		return r;
	sb->is_builder = true;
	t = task_for(g, who, s, sb);
	t->is_unasked = !s;
	t->follow.done = builder_ready;
	sandbox_follow(sb, &t->follow);
	return 0;
}

void template_heat(struct engine *g, const struct policy_principal *who, const struct rec_template_build *rec)
{
	struct err e = ERR_INIT;

	engine_emit_for(g, who->tenant, "info", EVENT_TEMPLATE_HEATING, "template %.*s is made hot",
			(int)rec->template.n, rec->template.p);
	if (build_template(g, who, NULL, rec, &e) < 0)
		tell_cold(g, who->tenant, NULL, &e);
}

void run_template_build(struct client *c, struct stream *s, const void *rec)
{
	struct err e = ERR_INIT;

	if (build_template(c->engine, &c->who, s, rec, &e) < 0)
		stream_fail(s, &e);
}
