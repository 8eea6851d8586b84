/* engine/sets.c - the table of snapshot sets, and the jobs that move them between disk and memory */
#include "engine/sets.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/log.h"
#include "engine/sandbox.h"
#include "snap/layers.h"
#include "wire/gen/events.h"
#include "wire/gen/records.h"

enum {
	RETRY_MS = 60000,		/* a deletion that was due and failed */
	JOBS_MAX = ENGINE_WORKERS / 2, /* the other workers are for sandboxes: a set takes seconds */
};

static void on_expiry(struct loop_timer *t);

static void arm_expiry(struct set *s, uint64_t at_least_ms)
{
	struct loop *l = s->engine->loop;
	uint64_t now_ms = loop_unix_ms(l);
	uint64_t left_ms = s->m.delete_ms > now_ms ? s->m.delete_ms - now_ms : 0;

	if (s->m.delete_ms)
		loop_timer_set(l, &s->expiry, loop_now(l) + MAX(left_ms, at_least_ms) * NS_PER_MS, on_expiry);
}

/* Where its layers are from now on. */
static void name_folder(struct set *s)
{
	char text[ID_TEXT];

	id_format(&s->m.id, text);
	(void)snprintf(s->layers_from, sizeof(s->layers_from), "%s/%s", SNAPSHOTS_FOLDER, text);
}

struct set *set_new(struct engine *g, const struct snap_manifest *m, int memory_fd, int state_fd)
{
	struct set *s = mem_new(sizeof(*s));
	char text[ID_TEXT];

	*s = (struct set){
		.engine = g, .refs = 1, .serial = ++g->next_serial_set, .m = *m,
		.memory_fd = memory_fd, .state_fd = state_fd,
		.used_ns = loop_now(g->loop), .loaded = SNAP_SET_INIT};
	list_init(&s->loads);
	list_init(&s->turn);
	id_format(&m->sandbox, text);
	(void)snprintf(s->layers_from, sizeof(s->layers_from), "%s/%s", SANDBOXES_FOLDER, text);
	list_add_tail(&g->sets, &s->link);
	return s;
}

struct set *set_ref(struct set *s)
{
	s->refs++;
	s->used_ns = loop_now(s->engine->loop);
	return s;
}

static void close_one(struct engine *g, int *fd)
{
	if (*fd >= 0)
		g->host->close_fd(g->host->arg, *fd);
	*fd = -1;
}

/* The last descriptor of a machine's memory takes the kernel half a second a GiB: not on the loop. */
struct closing {
	struct work work;
	struct list link; /* in engine->closings */
	struct engine *engine;
	int fd;
};

static void run_close(struct work *w)
{
	struct closing *c = CONTAINER_OF(w, struct closing, work);

	close_one(c->engine, &c->fd);
}

static void closed(struct work *w)
{
	struct closing *c = CONTAINER_OF(w, struct closing, work);

	list_del(&c->link);
	free(c);
}

void set_close_memory(struct engine *g, int *fd)
{
	struct closing *c;

	if (*fd < 0 || !g->pool) { /* at the end */
		close_one(g, fd);
		return;
	}
	c = mem_new(sizeof(*c));
	*c = (struct closing){.work = {.run = run_close, .done = closed}, .engine = g, .fd = *fd};
	*fd = -1;
	list_add_tail(&g->closings, &c->link);
	work_submit(g->pool, &c->work);
}

static void cool(struct set *s)
{
	set_close_memory(s->engine, &s->memory_fd);
	close_one(s->engine, &s->state_fd);
}

static void set_free(struct set *s)
{
	loop_timer_cancel(s->engine->loop, &s->expiry);
	loop_call_cancel(s->engine->loop, &s->hot_call);
	cool(s);
	set_close_memory(s->engine, &s->loaded.memory_fd);
	close_one(s->engine, &s->loaded.state_fd);
	list_del(&s->turn);
	list_del(&s->link);
	free(s);
}

static void on_budget(struct loop_call *c);

struct set *set_unref(struct set *s)
{
	if (!s)
		return NULL;
	if (--s->refs == 0)
		set_free(s);
	else if (s->refs == 1 && s->is_stored) /* nobody uses its memory any more; a caller may yet look at it */
		loop_defer(s->engine->loop, &s->engine->budget_call, on_budget);
	return NULL;
}

bool set_is_hot(const struct set *s)
{
	return s->memory_fd >= 0;
}

bool set_is_files(const struct set *s)
{
	return strcmp(s->m.driver, "process") == 0;
}

/* ---- the budget of memory ---- */

static struct set *coldest(struct engine *g, uint64_t *ret_bytes)
{
	struct set *found = NULL;

	*ret_bytes = 0;
	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);

		if (!set_is_hot(s))
			continue;
		*ret_bytes += s->m.memory_bytes;
		if (s->refs == 1 && s->is_stored && s->doing == SET_IDLE && (!found || s->used_ns < found->used_ns))
			found = s;
	}
	return found;
}

static void keep_to_budget(struct engine *g)
{
	for (;;) {
		uint64_t bytes;
		struct set *s = coldest(g, &bytes);

		if (!s || bytes <= g->hot_budget_bytes)
			return;
		cool(s);
	}
}

static void on_budget(struct loop_call *c)
{
	keep_to_budget(CONTAINER_OF(c, struct engine, budget_call));
}

/* ---- finding ---- */

static bool is_for(const struct set *s, const char *tenant)
{
	return s->is_stored && !s->is_removed && strcmp(s->m.tenant, tenant) == 0;
}

struct set *set_find(struct engine *g, const char *tenant, struct span ref)
{
	struct id id;
	bool is_id = id_parse(ref.p, ref.n, &id) == 0;

	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);

		if (!is_for(s, tenant) || strcmp(s->m.kind, "pause") == 0)
			continue;
		if (is_id ? id_eq(&s->m.id, &id) : s->m.name[0] && span_is(ref, s->m.name))
			return s;
	}
	return NULL;
}

struct set *set_of_pause(struct engine *g, const struct id *sandbox)
{
	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);

		if (s->is_stored && !s->is_removed && strcmp(s->m.kind, "pause") == 0 &&
		    id_eq(&s->m.id, sandbox))
			return s;
	}
	return NULL;
}

bool set_name_is_taken(struct engine *g, const char *tenant, struct span name)
{
	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);

		if (!s->is_removed && s->m.name[0] && strcmp(s->m.tenant, tenant) == 0 &&
		    span_is(name, s->m.name))
			return true;
	}
	return false;
}

static const char *closure_here(const struct engine *g)
{
	return g->keeper ? keeper_host(g->keeper)->closure : "";
}

const char *set_cpu_here(const struct engine *g)
{
	return g->keeper && keeper_host(g->keeper)->kvm ? "host, kvm" : KEEPER_CPU ", tcg";
}

struct set *set_for(struct sandbox *sb)
{
	struct engine *g = sb->engine;
	struct set *found = NULL;

	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);
		const struct snap_manifest *m = &s->m;

		if (!is_for(s, sb->tenant) || strcmp(m->kind, "template") != 0 ||
		    strcmp(m->image, sb->image.digest) != 0 || strcmp(m->driver, sb->driver->name) != 0 ||
		    strcmp(m->closure, closure_here(g)) != 0 || strcmp(m->cpu, set_cpu_here(g)) != 0 ||
		    m->vcpus != sb->verdict.vcpus ||
		    m->memory_mb != sb->verdict.memory_mb || m->disk_mb != sb->verdict.disk_mb)
			continue;
		if (!found || m->created_ms > found->m.created_ms)
			found = s;
	}
	return found;
}

int set_check(const struct set *s, struct err *e)
{
	const struct engine *g = s->engine;
	const struct keeper_host *h = g->keeper ? keeper_host(g->keeper) : NULL;

	if (s->unusable.code)
		return err_copy(e, &s->unusable);
	if (!set_is_files(s) && strcmp(s->m.cpu, set_cpu_here(g)) != 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "the snapshot was taken on a processor \"%s\", and guests here get \"%s\": its "
			       "programs could not go on; --disk-only takes the disk and boots",
			       s->m.cpu, set_cpu_here(g));
	if (h && h->tsc_khz && s->m.tsc_khz && s->m.tsc_khz / 1000 != h->tsc_khz / 1000)
		return err_set(e, ERR_UNSUPPORTED,
			       "the snapshot was taken at %llu kHz of the time stamp counter, this host has "
			       "%llu: its clocks would run wrong; --disk-only takes the disk and boots",
			       (unsigned long long)s->m.tsc_khz, (unsigned long long)h->tsc_khz);
	return 0;
}

/* ---- jobs ---- */

static void start_removal(struct set *s);
static void job_over(struct set *s);

static void start_jobs(struct engine *g)
{
	while (g->n_set_jobs < JOBS_MAX && !list_empty(&g->set_jobs)) {
		struct set *s = LIST_ENTRY(g->set_jobs.next, struct set, turn);

		list_del(&s->turn);
		g->n_set_jobs++;
		work_submit(g->pool, &s->job);
	}
}

static void submit(struct set *s, int what, void (*run)(struct work *w), void (*done)(struct work *w))
{
	s->doing = what;
	s->job_error = (struct err)ERR_INIT;
	s->job.run = run;
	s->job.done = done;
	s->refs++; /* the job's */
	list_add_tail(&s->engine->set_jobs, &s->turn);
	start_jobs(s->engine);
}

static void complete(struct set_wait *w, const struct err *why)
{
	if (w)
		w->done(w, why);
}

static void tell_loads(struct set *s, const struct err *why)
{
	struct list turn;

	list_take(&s->loads, &turn);
	while (!list_empty(&turn)) {
		struct set_wait *w = LIST_ENTRY(turn.next, struct set_wait, link);

		list_del(&w->link);
		w->done(w, why);
	}
}

static void run_load(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);
	const struct engine_host *h = s->engine->host;

	(void)h->set_load(h->arg, &s->m.id, &s->loaded, &s->job_error);
}

static void load_done(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);

	if (!s->job_error.code) {
		s->memory_fd = s->loaded.memory_fd;
		s->state_fd = s->loaded.state_fd;
		s->loaded = (struct snap_set)SNAP_SET_INIT;
	}
	tell_loads(s, s->job_error.code ? &s->job_error : NULL);
	job_over(s);
}

static void on_hot(struct loop_call *c);

/* Who asked for its memory while something else was done to it. */
static void serve_loads(struct set *s)
{
	struct err gone = ERR_INIT;

	if (list_empty(&s->loads))
		return;
	if (set_is_hot(s)) {
		loop_defer(s->engine->loop, &s->hot_call, on_hot);
	} else if (s->is_stored) {
		submit(s, SET_LOADING, run_load, load_done);
	} else {
		err_set(&gone, ERR_NOT_FOUND, "the snapshot was removed meanwhile");
		tell_loads(s, &gone);
	}
}

/* The last use of @s by a job. */
static void job_over(struct set *s)
{
	s->doing = SET_IDLE;
	s->engine->n_set_jobs--;
	start_jobs(s->engine);
	if (s->wants_removal)
		start_removal(s);
	else
		serve_loads(s);
	keep_to_budget(s->engine);
	(void)set_unref(s);
}

static void on_hot(struct loop_call *c)
{
	struct set *s = CONTAINER_OF(c, struct set, hot_call);

	s->refs++; /* who is told may let go of it */
	tell_loads(s, NULL);
	(void)set_unref(s);
}

void set_load(struct set *s, struct set_wait *w)
{
	s->used_ns = loop_now(s->engine->loop);
	list_add_tail(&s->loads, &w->link);
	if (set_is_hot(s))
		loop_defer(s->engine->loop, &s->hot_call, on_hot);
	else if (s->doing == SET_IDLE)
		submit(s, SET_LOADING, run_load, load_done);
}

void set_forget(struct set_wait *w)
{
	if (w->link.next)
		list_del(&w->link);
}

/* For people: its name, else its id. */
static const char *call_it(const struct set *s, char text[ID_TEXT])
{
	id_format(&s->m.id, text);
	return s->m.name[0] ? s->m.name : text;
}

static void run_save(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);
	const struct engine_host *h = s->engine->host;

	(void)h->set_save(h->arg, &s->saved, s->memory_fd, s->state_fd,
			  strcmp(s->saved.kind, "pause") == 0 ? NULL : s->layers_from, &s->job_error);
}

static void save_done(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);
	struct err why = s->job_error;
	char text[ID_TEXT];

	if (!why.code) {
		s->m = s->saved;
		s->is_stored = true;
		s->refs++; /* SETS-1 */
		name_folder(s);
		arm_expiry(s, 0);
		engine_emit_for(s->engine, s->m.tenant, "info", EVENT_SNAPSHOT_CREATED, "%s %s, %llu MiB",
				s->m.kind, call_it(s, text), (unsigned long long)(snap_own_bytes(&s->m) / MIB));
	}
	complete(take_ptr(&s->save), why.code ? &why : NULL);
	job_over(s);
}

void set_save(struct set *s, struct set_wait *w)
{
	s->save = w;
	s->saved = s->m; /* the worker's: the loop goes on reading the other */
	submit(s, SET_SAVING, run_save, save_done);
}

static void run_remove(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);
	const struct engine_host *h = s->engine->host;

	(void)h->set_remove(h->arg, &s->m.id, &s->job_error);
}

static void remove_done(struct work *w)
{
	struct set *s = CONTAINER_OF(w, struct set, job);
	struct err why = s->job_error;
	char text[ID_TEXT];

	if (why.code) {
		s->is_removed = false; /* it is still there, and can be asked to go again */
		arm_expiry(s, RETRY_MS);
	} else {
		s->is_stored = false;
		s->refs--; /* SETS-1; the job holds one */
		if (strcmp(s->m.kind, "pause") != 0)
			engine_emit_for(s->engine, s->m.tenant, "info", EVENT_SNAPSHOT_REMOVED, "%s %s",
					s->m.kind, call_it(s, text));
	}
	complete(take_ptr(&s->remove), why.code ? &why : NULL);
	job_over(s);
}

static void start_removal(struct set *s)
{
	s->wants_removal = false;
	submit(s, SET_REMOVING, run_remove, remove_done);
}

void set_remove(struct set *s, struct set_wait *w)
{
	s->is_removed = true;
	s->remove = w;
	if (s->doing == SET_IDLE)
		start_removal(s);
	else
		s->wants_removal = true;
}

static void on_expiry(struct loop_timer *t)
{
	struct set *s = CONTAINER_OF(t, struct set, expiry);

	if (!s->is_removed)
		set_remove(s, NULL);
}

static bool is_same_template(const struct set *s, const struct set *t)
{
	const struct snap_manifest *a = &s->m, *b = &t->m;

	return s != t && s->is_stored && !s->is_removed && strcmp(a->kind, "template") == 0 &&
	       strcmp(b->kind, "template") == 0 && strcmp(a->tenant, b->tenant) == 0 &&
	       strcmp(a->template, b->template) == 0 && strcmp(a->driver, b->driver) == 0 && a->vcpus == b->vcpus &&
	       a->memory_mb == b->memory_mb && a->disk_mb == b->disk_mb;
}

void set_retire_others(const struct set *s)
{
	LIST_FOR_EACH(pos, &s->engine->sets) { /* a removal ends later, from the loop */
		struct set *other = LIST_ENTRY(pos, struct set, link);

		if (is_same_template(other, s))
			set_remove(other, NULL);
	}
}

/* ---- start and end ---- */

static bool is_newer(const struct snap_manifest *a, const struct snap_manifest *b)
{
	return a->created_ms != b->created_ms ? a->created_ms > b->created_ms
					      : memcmp(a->id.b, b->id.b, ID_BYTES) > 0;
}

/* A daemon that died between storing a template and removing the one before left both. */
static void retire_older(struct engine *g)
{
	LIST_FOR_EACH(pos, &g->sets) {
		struct set *s = LIST_ENTRY(pos, struct set, link);
		bool is_old = false;

		LIST_FOR_EACH(at, &g->sets) {
			const struct set *t = LIST_ENTRY(at, struct set, link);

			is_old = is_old || (is_same_template(s, t) && is_newer(&t->m, &s->m));
		}
		if (is_old)
			set_remove(s, NULL);
	}
}

static void found(void *arg, const struct id *id, const struct snap_manifest *m, const struct err *why)
{
	const struct snap_manifest unknown = {.id = *id, .tenant = ENGINE_TENANT, .kind = SET_UNUSABLE};
	struct engine *g = arg;
	struct set *s = set_new(g, why ? &unknown : m, -1, -1);
	char text[ID_TEXT];

	if (why) {
		s->unusable = *why;
		id_format(id, text);
		log_line(g->host, g->loop, "warn", "snapshot_unusable", text, "text", why->text, NULL);
	}
	s->is_stored = true;
	name_folder(s);
	arm_expiry(s, 0);
}

int sets_start(struct engine *g, struct err *e)
{
	int r = g->host->set_each ? g->host->set_each(g->host->arg, found, g, e) : 0;

	if (r == 0)
		retire_older(g);
	return r;
}

void sets_drop(struct engine *g)
{
	while (!list_empty(&g->sets))
		set_free(LIST_ENTRY(g->sets.next, struct set, link));
	while (!list_empty(&g->closings)) /* they ran when the pool joined */
		closed(&LIST_ENTRY(g->closings.next, struct closing, link)->work);
}

void set_info(const struct set *s, struct rec_snapshot_info *ret)
{
	const struct snap_manifest *m = &s->m;

	*ret = (struct rec_snapshot_info){
		.id = m->id,
		.name = span_of(m->name),
		.kind = span_of(m->kind),
		.tenant = span_of(m->tenant),
		.sandbox = m->sandbox,
		.parent = m->parent,
		.template = span_of(m->template),
		.image = span_of(m->image),
		.driver = span_of(m->driver),
		.vcpus = m->vcpus,
		.memory_mb = m->memory_mb,
		.disk_mb = m->disk_mb,
		.layers = m->layers,
		.created_ms = m->created_ms,
		.delete_ms = m->delete_ms,
		.bytes = snap_own_bytes(m),
		.hot = set_is_hot(s),
		.pause_us = s->pause_us,
		.stages = {s->stages, s->stages_n},
		.reason = span_of(s->unusable.text),
	};
}
