/* engine/step_place.c - image, memory, record and disk: what a sandbox needs before its machine */
#include "engine/step.h"
#include <stdio.h>
#include "base/macro.h"
#include "engine/engine_int.h"
#include "engine/sandbox.h"
#include "store/store.h"
#include "wire/gen/events.h"

struct sandbox *step_sandbox(struct plan *p)
{
	return CONTAINER_OF(p, struct sandbox, plan);
}

bool step_is_fork(const struct sandbox *sb)
{
	return sb->set && !sb->is_disk_only && sb->driver->caps & DRIVER_CAN_CAPTURE;
}

bool step_brings_files(const struct sandbox *sb)
{
	return sb->set && sb->driver->caps & DRIVER_CAN_COPY_FILES;
}

bool step_needs_image(const struct sandbox *sb)
{
	return sb->driver && sb->driver->caps & DRIVER_NEEDS_IMAGE;
}

/* ---- jobs on a worker ---- */

static void job_done(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		plan_fail(&sb->plan, &sb->job_error);
	else
		plan_next(&sb->plan);
}

static void submit(struct sandbox *sb, void (*run)(struct work *w), void (*done)(struct work *w))
{
	sb->job_error = (struct err)ERR_INIT;
	sb->job.run = run;
	sb->job.done = done;
	work_submit(sb->engine->pool, &sb->job);
}

/* ---- image: open the template, hold its lock ---- */

static void open_image(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;
	char ref[2 * SANDBOX_TEXT + 1];

	if (sb->is_adopted || sb->set) /* exactly the one it runs on, whatever the name means by now */
		(void)snprintf(ref, sizeof(ref), "%s@%s", sb->template, sb->image_digest);
	else
		(void)snprintf(ref, sizeof(ref), "%s", sb->template);
	(void)host->image_open(host->arg, ref, &sb->image, &sb->job_error);
}

int step_run_image(struct plan *p, struct err *e)
{
	(void)e;
	submit(step_sandbox(p), open_image, job_done);
	return 0;
}

/* A machine that runs has its files open: a template that was removed since is no reason to end it. */
static void readopted(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		engine_emit(sb->engine, "warn", EVENT_SANDBOX_STEP, sb, "image", "%s",
			    sb->job_error.text);
	plan_next(&sb->plan);
}

int step_run_reopen(struct plan *p, struct err *e)
{
	(void)e;
	submit(step_sandbox(p), open_image, readopted);
	return 0;
}

void step_undo_image(struct plan *p)
{
	image_close(&step_sandbox(p)->image);
	plan_undone(p);
}

/* The machine has its own copies; the lock in dir_fd stays. */
void step_close_files(struct sandbox *sb)
{
	const struct engine_host *host = sb->engine->host;
	int *fds[] = {&sb->image.root_fd, &sb->image.tree_fd, &sb->image.kernel_fd,
		      &sb->image.initrd_fd};

	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		if (*fds[i] >= 0)
			host->close_fd(host->arg, *fds[i]);
		*fds[i] = -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(sb->disk.fds); i++) {
		if (sb->disk.fds[i] >= 0)
			host->close_fd(host->arg, sb->disk.fds[i]);
		sb->disk.fds[i] = -1;
	}
	sb->disk.n = 0;
}

/* ---- promise: memory against the budget ---- */

/* A fork has the shape of what it is a fork of; for a disk or files, only what has to hold them counts. */
static int check_shape(const struct sandbox *sb, struct err *e)
{
	const struct policy_verdict *v = &sb->verdict;
	const struct snap_manifest *m = &sb->set->m;
	const struct {
		const char *field;
		uint64_t want, have;
	} sizes[] = {
		{"vcpus", v->vcpus, m->vcpus},
		{"memory_mb", v->memory_mb, m->memory_mb},
		{"disk_mb", v->disk_mb, m->disk_mb},
	};

	for (size_t i = step_is_fork(sb) ? 0 : 2; i < ARRAY_LEN(sizes); i++)
		if (sizes[i].want != sizes[i].have)
			return err_set(e, ERR_INVALID, "%s: the snapshot has %llu, and that can't be changed",
				       sizes[i].field, (unsigned long long)sizes[i].have);
	return 0;
}

static void choose_set(struct sandbox *sb)
{
	if (sb->set || sb->is_cold || !(sb->driver->caps & DRIVER_CAN_CAPTURE))
		return;
	sb->set = set_for(sb);
	if (sb->set)
		(void)set_ref(sb->set);
}

/* A fork goes on in the monitor that saved it, whatever the current one is. */
static void note_closure(struct sandbox *sb)
{
	const struct keeper_host *h = sb->engine->keeper ? keeper_host(sb->engine->keeper) : NULL;
	const char *closure = step_is_fork(sb) ? sb->set->m.closure : h && step_needs_image(sb) ? h->closure : "";

	span_copy(span_of(closure), sb->closure, sizeof(sb->closure));
}

int step_run_promise(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
	struct engine *g = sb->engine;
	const struct policy_principal who = {sb->tenant, sb->owner};
	const struct snap_manifest *m = sb->set ? &sb->set->m : NULL;
	const struct policy_defaults defaults = {
		m ? m->vcpus : sb->image.defaults.vcpus, m ? m->memory_mb : sb->image.defaults.memory_mb,
		m ? m->disk_mb : sb->image.defaults.disk_mb};
	int r;

	if (step_brings_files(sb) && !sb->verdict.disk_mb) /* not the wall's default */
		sb->verdict.disk_mb = m->disk_mb;
	r = policy_size(&who, &defaults, &g->limits, &g->usage, &sb->verdict, e);
	if (r == 0 && sb->set)
		r = check_shape(sb, e);
	if (r < 0) {
		engine_emit(g, "info", EVENT_CREATE_DENIED, sb, "promise", "%s", e->text);
		return r;
	}
	span_copy(span_of(sb->image.digest), sb->image_digest, sizeof(sb->image_digest));
	sb->promised_mb = policy_promise(sb->verdict.wall, sb->verdict.memory_mb);
	g->usage.memory_promised_mb += sb->promised_mb;
	choose_set(sb);
	note_closure(sb);
	if (step_is_fork(sb) || step_brings_files(sb))
		sb->parent = sb->set->m.id;
	if (step_is_fork(sb)) {
		sb->path = "fork";
		sb->generation = sb->set->m.generation + 1;
	}
	plan_next(p);
	return 0;
}

int step_run_repromise(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	(void)e;
	sb->promised_mb = policy_promise(sb->verdict.wall, sb->verdict.memory_mb);
	engine_count_adopted(sb->engine, sb->promised_mb);
	plan_next(p);
	return 0;
}

void step_undo_promise(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	sb->engine->usage.memory_promised_mb -= sb->promised_mb;
	sb->promised_mb = 0;
	plan_undone(p);
}

/* ---- record: STORE-2 ---- */

int step_run_record(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
	struct store_sandbox row;
	int r;

	sandbox_start_clocks(sb);
	sb->layers = sb->set ? (unsigned)sb->set->m.layers + 1 : 1;
	sandbox_row(sb, &row);
	r = store_sandbox_add(sb->engine->store, &row, e);
	if (r < 0)
		return r;
	sb->idle_saved_ms = row.idle_deadline_ms;
	sb->is_recorded = true;
	plan_next(p);
	return 0;
}

static void try_forget(struct sandbox *sb);

static void on_retry(struct loop_timer *t)
{
	try_forget(CONTAINER_OF(t, struct sandbox, retry_timer));
}

static bool keeps_failure(const struct sandbox *sb)
{
	return sb->disk_left.code || (sb->fate == SANDBOX_FAILED && !sb->ephemeral && !sb->is_child && !sb->is_builder);
}

static int write_end(struct sandbox *sb, struct err *e)
{
	struct store_life life = {
		.state = sandbox_state_name(SANDBOX_FAILED),
		.reason = sb->reason.text,
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.stages = {sb->stages, sb->stages_n},
	};

	int r;

	if (!sb->is_recorded)
		return 0;
	if (keeps_failure(sb))
		return store_sandbox_update(sb->engine->store, &sb->id, &life, e);
	r = store_sandbox_remove(sb->engine->store, &sb->id, e);
	if (r == 0)
		sb->is_recorded = false;
	return r;
}

/* Everything is gone but the row. A store that can't write now (full disk) is asked again. */
static void try_forget(struct sandbox *sb)
{
	struct loop *l = sb->engine->loop;
	struct err e = ERR_INIT;

	if (write_end(sb, &e) == 0) {
		plan_undone(&sb->plan);
		return;
	}
	engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "record", "%s", e.text);
	loop_timer_set(l, &sb->retry_timer, loop_now(l) + ENGINE_STORE_RETRY_MS * NS_PER_MS, on_retry);
}

void step_undo_record(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);
	struct set *pause = set_of_pause(sb->engine, &sb->id);

	if (pause)
		set_remove(pause, NULL);
	try_forget(sb);
}

/* ---- load: the set's memory, from disk when it is not hot ---- */

static void loaded(struct set_wait *w, const struct err *why)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, set_wait);

	if (why)
		plan_fail(&sb->plan, why);
	else
		plan_next(&sb->plan);
}

int step_run_load(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	if (!step_is_fork(sb) && !step_brings_files(sb)) {
		plan_next(p);
		return 0;
	}
	if (set_check(sb->set, e) < 0)
		return -e->code;
	sb->set_wait.done = loaded;
	if (set_is_hot(sb->set))
		plan_next(p);
	else
		set_load(sb->set, &sb->set_wait);
	return 0;
}

void step_undo_load(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	set_forget(&sb->set_wait);
	sb->set = set_unref(sb->set);
	plan_undone(p);
}

/* ---- disk: the writable layers of a machine with a kernel of its own ---- */

static void make_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;
	const struct set *set = sb->set;

	if (set && sb->is_disk_only && host->set_disk_check(host->arg, &set->m.id, &sb->job_error) < 0)
		return;
	if (set)
		(void)host->layers_link(host->arg, set->layers_from, (unsigned)set->m.layers, &sb->id,
					sb->verdict.disk_mb * MIB, &sb->disk, &sb->job_error);
	else if (host->disk_make(host->arg, sb->id_text, sb->verdict.disk_mb, &sb->disk.fds[0],
				 &sb->job_error) == 0)
		sb->disk.n = 1;
}

/* The command line of the machine counts them from 0. */
static void note_layers(struct sandbox *sb)
{
	sb->layers = sb->disk.n;
	sb->node = sb->disk.n ? sb->disk.n - 1 : 0;
}

static void disk_made(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	note_layers(sb);
	job_done(w);
}

int step_run_disk(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);

	(void)e;
	if (step_needs_image(sb))
		submit(sb, make_disk, disk_made);
	else
		plan_next(p);
	return 0;
}

static void open_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->layers_open(host->arg, &sb->id, &sb->disk, &sb->job_error);
}

int step_run_disk_again(struct plan *p, struct err *e)
{
	(void)e;
	submit(step_sandbox(p), open_disk, disk_made);
	return 0;
}

/*
 * The daemon before may have died between the machine's going on with a new layer and its record,
 * or before that, and after it had made the layer.
 */
static void drop_layer(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->layers_drop(host->arg, &sb->id, sb->layers, &sb->job_error);
}

int step_run_layers(struct plan *p, struct err *e)
{
	struct sandbox *sb = step_sandbox(p);
	int top = sb->driver->top ? sb->driver->top(sb->machine) : -1;
	int r = 0;

	if (top < 0) {
		plan_next(p);
		return 0;
	}
	if ((unsigned)top == sb->node + 1 && sb->layers < LIMIT_DISK_LAYERS) {
		sb->node++;
		sb->layers++;
		r = sandbox_save(sb, e);
	} else if ((unsigned)top != sb->node) {
		r = err_set(e, ERR_INVALID, "its disk writes to layer node %d, and %u was written down", top, sb->node);
	}
	if (r < 0)
		return r;
	if (sb->layers < LIMIT_DISK_LAYERS)
		submit(sb, drop_layer, job_done);
	else
		plan_next(p);
	return 0;
}

void step_undo_disk_again(struct plan *p)
{
	step_close_files(step_sandbox(p));
	plan_undone(p);
}

static void remove_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->disk_remove(host->arg, sb->id_text, &sb->job_error);
}

static void disk_removed(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	if (sb->job_error.code)
		engine_emit(sb->engine, "error", EVENT_SANDBOX_STEP, sb, "disk", "%s",
			    sb->job_error.text);
	if (sb->job_error.code && sb->is_recorded && !sb->is_spare) { /* else nobody would know of it */
		sb->disk_left = sb->job_error;
		err_wrap(&sb->disk_left, SANDBOX_DISK_LEFT);
		sb->reason = sb->disk_left;
		sb->fate = SANDBOX_FAILED;
	}
	plan_undone(&sb->plan);
}

void step_undo_disk(struct plan *p)
{
	struct sandbox *sb = step_sandbox(p);

	step_close_files(sb);
	if (step_needs_image(sb) || !sb->driver)
		submit(sb, remove_disk, disk_removed);
	else
		plan_undone(p);
}
