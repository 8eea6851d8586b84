/* engine/sandbox.c - the only writer of a sandbox's state */
#include "engine/sandbox.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "engine/claim.h"
#include "engine/engine_int.h"
#include "engine/heat.h"
#include "engine/forks.h"
#include "engine/relay.h"
#include "engine/waiter.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/records.h"

/* ---- states ---- */

static const char *const state_names[] = {
	[SANDBOX_NEW] = "new",		 [SANDBOX_CREATING] = "creating",
	[SANDBOX_RUNNING] = "running",	 [SANDBOX_PAUSED] = "paused",
	[SANDBOX_STOPPING] = "stopping", [SANDBOX_FAILED] = "failed",
	[SANDBOX_GONE] = "gone",
};

#define TO(s) (1u << SANDBOX_##s)

static const unsigned arrows[SANDBOX_STATE_N] = {
	[SANDBOX_NEW] = TO(CREATING) | TO(PAUSED) | TO(STOPPING) | TO(FAILED) | TO(GONE),
	[SANDBOX_CREATING] = TO(RUNNING) | TO(PAUSED) | TO(STOPPING),
	[SANDBOX_RUNNING] = TO(PAUSED) | TO(STOPPING),
	[SANDBOX_PAUSED] = TO(CREATING) | TO(STOPPING),
	[SANDBOX_STOPPING] = TO(FAILED) | TO(GONE),
	[SANDBOX_FAILED] = TO(GONE),
	[SANDBOX_GONE] = 0,
};

const char *sandbox_state_name(enum sandbox_state s)
{
	return state_names[s];
}

bool sandbox_arrow_exists(enum sandbox_state from, enum sandbox_state to)
{
	return arrows[from] & 1u << to;
}

void sandbox_set_state(struct sandbox *sb, enum sandbox_state to)
{
	assert(sandbox_arrow_exists(sb->state, to)); /* SANDBOX-1 */
	sb->state = to;
}

bool sandbox_is_live(const struct sandbox *sb)
{
	return sb->state == SANDBOX_CREATING || sb->state == SANDBOX_RUNNING ||
	       sb->state == SANDBOX_PAUSED;
}

void sandbox_explain_end(const struct sandbox *sb, struct err *e)
{
	static const char oom[] = "ended: oom";
	const char *at = strstr(e->text, oom);
	struct err told = *e;
	const char *words;

	if (!at || !sb->verdict.memory_mb)
		return;
	words = told.text + (at - e->text) + sizeof(oom) - 1;
	words += strspn(words, ": .");
	*e = (struct err)ERR_INIT;
	err_set(e, told.code, "the machine used more than its memory (%llu MiB) and was killed; hotcell create "
		"--memory makes one with more%s%s", (unsigned long long)sb->verdict.memory_mb,
		*words ? ". Its last words: " : "", words);
}

/* As people know it. */
const char *sandbox_called(const struct sandbox *sb)
{
	return sb->name[0] ? sb->name : sb->id_text;
}

/* What can be done about a sandbox that does not run; "": nothing but to wait. */
static const char *way_out(const struct sandbox *sb)
{
	switch (sb->state) {
	case SANDBOX_PAUSED: return "hotcell resume lets it go on";
	case SANDBOX_FAILED: return "hotcell rm removes it";
	default: return "";
	}
}

int sandbox_check_running(const struct sandbox *sb, struct err *e)
{
	const char *out = way_out(sb);

	if (sb->state == SANDBOX_RUNNING && sb->link && link_is_up(sb->link))
		return health_check(sb, e);
	if (sb->state == SANDBOX_RUNNING)
		return err_set(e, ERR_GONE, "sandbox %s has lost its agent and is ending", sandbox_called(sb));
	return err_set(e, ERR_CONFLICT, "sandbox %s is %s%s%s%s%s", sandbox_called(sb), sandbox_state_name(sb->state),
		       sb->reason.code ? ": " : "", sb->reason.code ? sb->reason.text : "", out[0] ? "; " : "", out);
}

/* ---- those inside the engine who wait for it ---- */

void sandbox_follow(struct sandbox *sb, struct sandbox_follow *f)
{
	list_add_tail(&sb->followers, &f->link);
}

void sandbox_unfollow(struct sandbox_follow *f)
{
	if (f->link.next)
		list_del(&f->link);
}

void followers_tell(struct sandbox *sb, const struct err *why)
{
	struct list turn;

	list_take(&sb->followers, &turn);
	while (!list_empty(&turn)) {
		struct sandbox_follow *f = LIST_ENTRY(turn.next, struct sandbox_follow, link);

		list_del(&f->link);
		f->done(f, sb, why);
	}
}

/* ---- time ---- */

uint64_t sandbox_deadline_ms(const struct sandbox *sb, uint64_t at_ns)
{
	struct loop *l = sb->engine->loop;
	uint64_t now = loop_now(l);

	if (!at_ns)
		return 0;
	return loop_unix_ms(l) + (at_ns > now ? (at_ns - now) / NS_PER_MS : 0);
}

static uint64_t loop_time_of(const struct sandbox *sb, uint64_t unix_ms)
{
	struct loop *l = sb->engine->loop;
	uint64_t now_ms = loop_unix_ms(l);

	if (!unix_ms)
		return 0;
	return loop_now(l) + (unix_ms > now_ms ? (unix_ms - now_ms) * NS_PER_MS : 1);
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return !a ? b : !b ? a : MIN(a, b);
}

static void on_timer(struct loop_timer *t);

/* A pause stops the idle clock; the absolute one runs on. */
void sandbox_arm_timer(struct sandbox *sb)
{
	uint64_t at = 0;

	if (sb->state == SANDBOX_FAILED)
		at = sb->forget_at_ns;
	else if (sb->state == SANDBOX_RUNNING)
		at = sooner(sooner(sb->idle_at_ns, sb->end_at_ns), sb->grace_at_ns);
	else if (sb->state == SANDBOX_PAUSED)
		at = sooner(sb->end_at_ns, sb->grace_at_ns);
	if (at)
		loop_timer_set(sb->engine->loop, &sb->timer, at, on_timer);
	else
		loop_timer_cancel(sb->engine->loop, &sb->timer);
}

static void expire(struct sandbox *sb, const char *why)
{
	struct err e = ERR_INIT;

	engine_emit(sb->engine, "info", EVENT_SANDBOX_EXPIRED, sb, NULL, "%s", why);
	err_set(&e, ERR_TIMEOUT, "%s", why);
	sandbox_remove(sb, &e);
}

static bool is_past(const struct sandbox *sb, uint64_t at_ns)
{
	return at_ns && loop_now(sb->engine->loop) >= at_ns;
}

/* A call or a copy that goes on is use, and so is a hold of what does not go with its holder. */
static bool is_used(const struct sandbox *sb)
{
	return !list_empty(&sb->relays) || sb->task || (!sb->ephemeral && waiters_hold(sb));
}

void sandbox_expire_idle(struct sandbox *sb)
{
	expire(sb, "nobody used it for its idle timeout");
}

static void on_timer(struct loop_timer *t)
{
	struct sandbox *sb = CONTAINER_OF(t, struct sandbox, timer);
	struct err e = ERR_INIT;

	if (sb->state == SANDBOX_FAILED) {
		err_set(&e, ERR_GONE, "the failure was kept long enough");
		sandbox_remove(sb, &e);
	} else if (is_past(sb, sb->end_at_ns)) {
		expire(sb, "its lifetime is over");
	} else if (is_past(sb, sb->grace_at_ns)) {
		expire(sb, "nobody holds it");
	} else if (is_past(sb, sb->idle_at_ns) && !is_used(sb)) {
		health_ask_use(sb); /* for what nobody follows */
	} else {
		if (is_past(sb, sb->idle_at_ns))
			sandbox_touch(sb);
		sandbox_arm_timer(sb);
	}
}

/* Written down only when it moved by a visible part: a restart loses no more than that. */
static void save_idle(struct sandbox *sb)
{
	uint64_t now_ms = sandbox_deadline_ms(sb, sb->idle_at_ns);
	uint64_t step = MAX(sb->verdict.idle_timeout_ms / 64, (uint64_t)1000);

	if (now_ms >= sb->idle_saved_ms + step)
		(void)sandbox_save(sb, NULL);
}

void sandbox_touch(struct sandbox *sb)
{
	if (!sb->verdict.idle_timeout_ms || sb->state != SANDBOX_RUNNING)
		return;
	sb->idle_at_ns = loop_now(sb->engine->loop) + sb->verdict.idle_timeout_ms * NS_PER_MS;
	sb->health.decides = false;
	if (!sb->task) /* what is done to it may have written down what it shall be */
		save_idle(sb); /* the timer stays: when it fires it looks again */
}

/* ---- store ---- */

void sandbox_start_clocks(struct sandbox *sb)
{
	const struct policy_verdict *v = &sb->verdict;
	uint64_t now = loop_now(sb->engine->loop);

	sb->idle_at_ns = v->idle_timeout_ms ? now + v->idle_timeout_ms * NS_PER_MS : 0;
	sb->end_at_ns = v->lifetime_ms ? now + v->lifetime_ms * NS_PER_MS : 0;
}

void sandbox_row(struct sandbox *sb, struct store_sandbox *ret)
{
	const struct policy_verdict *v = &sb->verdict;

	*ret = (struct store_sandbox){
		.id = sb->id,
		.name = sb->name,
		.tenant = sb->tenant,
		.owner = sb->owner,
		.request_id = sb->request_id,
		.template = sb->template,
		.image = sb->image_digest,
		.driver = sb->driver->name,
		.vcpus = v->vcpus,
		.memory_mb = v->memory_mb,
		.disk_mb = v->disk_mb,
		.pids_max = v->pids_max,
		.ephemeral = sb->ephemeral,
		.metadata = sb->metadata,
		.unenforced = sb->unenforced,
		.state = sandbox_state_name(sb->state),
		.reason = "",
		.created_ms = sb->created_ms,
		.idle_timeout_ms = v->idle_timeout_ms,
		.idle_deadline_ms = sandbox_deadline_ms(sb, sb->idle_at_ns),
		.deadline_ms = sandbox_deadline_ms(sb, sb->end_at_ns),
		.lifetime_ms = v->lifetime_ms,
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.path = sb->path,
		.parent = sb->parent,
		.closure = sb->closure,
	};
}

/* Only a failure has a reason in the store: so the next daemon knows removal from failure. */
int sandbox_save(struct sandbox *sb, struct err *e)
{
	struct store_life life = {
		.state = sandbox_state_name(sb->state),
		.reason = sb->fate == SANDBOX_FAILED ? sb->reason.text : "",
		.idle_deadline_ms = sandbox_deadline_ms(sb, sb->idle_at_ns),
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.stages = {sb->stages, sb->stages_n},
	};
	int r = store_sandbox_update(sb->engine->store, &sb->id, &life, e);

	if (r == 0)
		sb->idle_saved_ms = life.idle_deadline_ms;
	return r;
}

/* ---- the object ---- */

/* Names are unique per tenant: the key is both, with a byte between that neither holds. */
static size_t make_key(char key[SANDBOX_KEY], const char *tenant, struct span name)
{
	size_t n = strlen(tenant) + 1;

	memcpy(key, tenant, n);
	memcpy(key + n, name.p, name.n);
	return n + name.n;
}

static struct sandbox *find_by(struct map *m, size_t offset, const char *tenant, struct span name)
{
	char key[SANDBOX_KEY];
	struct map_node *node;

	if (name.n == 0 || name.n >= SANDBOX_TEXT)
		return NULL;
	node = map_find(m, key, make_key(key, tenant, name));
	return node ? (struct sandbox *)(void *)((char *)node - offset) : NULL;
}

static struct sandbox *find_name(struct engine *g, const char *tenant, struct span name)
{
	return find_by(&g->by_name, offsetof(struct sandbox, by_name), tenant, name);
}

static struct sandbox *find_request(struct engine *g, const char *tenant, struct span request)
{
	return find_by(&g->by_request, offsetof(struct sandbox, by_request), tenant, request);
}

struct sandbox *sandbox_find(struct engine *g, const char *tenant, struct span ref)
{
	struct map_node *node;
	struct sandbox *sb;
	struct id id;

	if (id_parse(ref.p, ref.n, &id) < 0)
		return find_name(g, tenant, ref);
	node = map_find(&g->by_id, id.b, ID_BYTES);
	sb = node ? CONTAINER_OF(node, struct sandbox, by_id) : NULL;
	return sb && !sb->is_spare && strcmp(sb->tenant, tenant) == 0 ? sb : NULL; /* POOL-1 */
}

bool sandbox_knows_request(struct engine *g, const char *tenant, struct span request_id)
{
	return find_request(g, tenant, request_id) != NULL;
}

static struct sandbox *sandbox_new(struct engine *g, const struct id *id)
{
	struct sandbox *sb = mem_new(sizeof(*sb));

	sb->engine = g;
	sb->id = *id;
	id_format(id, sb->id_text);
	sb->serial = ++g->next_serial;
	sb->image = (struct image)IMAGE_INIT;
	sb->disk = (struct layers)LAYERS_INIT;
	sb->path = "boot";
	list_init(&sb->followers);
	sb->fate = SANDBOX_FAILED;
	sb->generation = 1;
	list_init(&sb->turn);
	list_init(&sb->spare);
	list_init(&sb->waiters);
	list_init(&sb->relays);
	list_add_tail(&g->sandboxes, &sb->all);
	map_add(&g->by_id, &sb->by_id, sb->id.b, ID_BYTES);
	return sb;
}

static void index_names(struct sandbox *sb)
{
	struct engine *g = sb->engine;

	if (sb->name[0])
		map_add(&g->by_name, &sb->by_name, sb->name_key,
			make_key(sb->name_key, sb->tenant, span_of(sb->name)));
	if (sb->request_id[0])
		map_add(&g->by_request, &sb->by_request, sb->request_key,
			make_key(sb->request_key, sb->tenant, span_of(sb->request_id)));
}

static void free_lists(struct sandbox *sb)
{
	struct strv *lists[] = {&sb->metadata, &sb->unenforced, &sb->env};

	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		free((char *)lists[i]->p);
		*lists[i] = (struct strv){0};
	}
}

void sandbox_forget(struct sandbox *sb)
{
	struct engine *g = sb->engine;

	task_lost(sb);
	while (!list_empty(&sb->followers))
		list_del(sb->followers.next);
	loop_timer_cancel(g->loop, &sb->timer);
	loop_timer_cancel(g->loop, &sb->retry_timer);
	loop_timer_cancel(g->loop, &sb->gone_timer);
	plan_drop(&sb->plan);
	map_del(&g->by_id, &sb->by_id);
	map_del(&g->by_name, &sb->by_name);
	map_del(&g->by_request, &sb->by_request);
	list_del(&sb->all);
	list_del(&sb->spare);
	(void)claim_free(sb->claim);
	free_lists(sb);
	free(sb);
}

void sandbox_info(const struct sandbox *sb, struct rec_sandbox_info *ret)
{
	const struct driver *d = sb->driver;

	*ret = (struct rec_sandbox_info){
		.id = sb->id,
		.name = span_of(sb->name),
		.state = span_of(sandbox_state_name(sb->state)),
		.wall = span_of(d ? d->wall(sb->engine->keeper) : ""),
		.driver = span_of(d ? d->name : ""),
		.template = span_of(sb->template),
		.image = span_of(sb->image_digest),
		.tenant = span_of(sb->tenant),
		.owner = span_of(sb->owner),
		.vcpus = sb->verdict.vcpus,
		.memory_mb = sb->verdict.memory_mb,
		.disk_mb = sb->verdict.disk_mb,
		.pids_max = sb->verdict.pids_max,
		.created_ms = sb->created_ms,
		.idle_deadline_ms = sandbox_deadline_ms(sb, sb->idle_at_ns),
		.deadline_ms = sandbox_deadline_ms(sb, sb->end_at_ns),
		.reason = span_of(sb->reason.code ? sb->reason.text : ""),
		.stages = {sb->stages, sb->stages_n},
		.metadata = sb->metadata,
		.unenforced = sb->unenforced,
		.request_id = span_of(sb->request_id),
		.ephemeral = sb->ephemeral,
		.path = span_of(sb->path),
		.parent = sb->parent,
		.pid = sb->machine && d->pid ? (uint64_t)d->pid(sb->machine) : 0,
		.purpose = span_of(sb->is_builder ? "template build" : ""),
		.unhealthy_since_ms = sb->health.since_ms,
		.unhealthy = span_of(sb->health.since_ms ? sb->health.why.text : ""),
	};
}

/* ---- birth ---- */

static int replay(struct sandbox *sb, const struct rec_sandbox_create *rec, struct err *e)
{
	if (!span_is(rec->name, sb->name))
		return err_set(e, ERR_CONFLICT,
			       "request_id: was used before, for a sandbox of another name");
	return 0;
}

/* A failed sandbox keeps its reason, not its name. */
static int free_name(struct engine *g, const char *tenant, struct span name, struct err *e)
{
	struct sandbox *old = find_name(g, tenant, name);
	struct err why = ERR_INIT;

	if (old && old->state == SANDBOX_FAILED) {
		err_set(&why, ERR_GONE, "its name was given to a new sandbox");
		sandbox_remove(old, &why);
		old = find_name(g, tenant, name);
	}
	if (!old)
		return 0;
	return err_set(e, ERR_CONFLICT, "name: %.*s is taken by sandbox %s", (int)name.n, name.p,
		       old->id_text);
}

static int make_id(struct engine *g, struct id *ret, struct err *e)
{
	int r = g->host->random(g->host->arg, ret->b, sizeof(ret->b));

	return r < 0 ? err_sys(e, r, "random id") : 0;
}

static void take_request(struct sandbox *sb, const struct policy_principal *who,
			 const struct rec_sandbox_create *rec)
{
	span_copy(rec->name, sb->name, sizeof(sb->name));
	span_copy(rec->template.n ? rec->template : span_of("base"), sb->template,
		  sizeof(sb->template));
	span_copy(rec->request_id, sb->request_id, sizeof(sb->request_id));
	span_copy(span_of(who->tenant), sb->tenant, sizeof(sb->tenant));
	span_copy(span_of(who->owner), sb->owner, sizeof(sb->owner));
	sb->ephemeral = rec->ephemeral;
	sb->is_cold = rec->cold;
	sb->is_disk_only = rec->disk_only;
	sb->metadata = mem_dup_strv(rec->metadata);
	sb->unenforced = mem_dup_strv(rec->unenforced);
	sb->env = mem_dup_strv(rec->env);
	sb->created_ms = loop_unix_ms(sb->engine->loop);
	index_names(sb);
}

static int find_set(struct engine *g, const struct policy_principal *who,
		    const struct rec_sandbox_create *rec, struct set **ret, struct err *e)
{
	struct set *s;

	if (rec->disk_only && !rec->snapshot.n)
		return err_set(e, ERR_INVALID, "disk_only: goes with snapshot");
	if (!rec->snapshot.n)
		return 0;
	s = set_find(g, who->tenant, rec->snapshot);
	if (!s)
		return err_set(e, ERR_NOT_FOUND, "there is no snapshot %.*s", (int)rec->snapshot.n,
			       rec->snapshot.p);
	if (s->unusable.code)
		return err_copy(e, &s->unusable);
	if (rec->template.n && !span_is(rec->template, s->m.template))
		return err_set(e, ERR_INVALID, "template: the snapshot's is %s", s->m.template);
	if (!set_is_files(s) && span_is(rec->isolation, "process"))
		return err_set(e, ERR_UNSUPPORTED,
			       "isolation: a snapshot of a machine needs one, with a kernel of its own");
	if (set_is_files(s) && rec->isolation.n && !span_is(rec->isolation, "process"))
		return err_set(e, ERR_UNSUPPORTED, "isolation: this snapshot has the files of a process sandbox and no "
			       "machine to go on with: leave isolation out, or copy files with hotcell cp");
	*ret = s;
	return 0;
}

/* Files go behind the wall they come from, which somebody asked for then. */
static void follow_set(struct rec_sandbox_create *rec, const struct set *set)
{
	if (set && set_is_files(set))
		rec->isolation = span_of("process");
}

static void take_set(struct sandbox *sb, struct set *set)
{
	sb->set = set_ref(set);
	span_copy(span_of(set->m.template), sb->template, sizeof(sb->template));
	span_copy(span_of(set->m.image), sb->image_digest, sizeof(sb->image_digest));
}

/* Admitted: it exists from here on. */
static struct sandbox *give_birth(struct engine *g, const struct policy_principal *who,
				  const struct rec_sandbox_create *rec, const struct policy_verdict *v,
				  const struct driver *driver, const struct id *id)
{
	struct sandbox *sb = sandbox_new(g, id);

	sb->verdict = *v;
	sb->driver = driver;
	take_request(sb, who, rec);
	g->usage.sandboxes++;
	sandbox_set_state(sb, SANDBOX_CREATING);
	return sb;
}

/* What every birth asks first. */
static int admit(struct engine *g, const struct policy_principal *who, const struct rec_sandbox_create *rec,
		 struct policy_verdict *v, struct id *id, struct err *e)
{
	int r = policy_create(who, rec, &g->limits, &g->usage, v, e);

	if (r == 0)
		r = free_name(g, who->tenant, rec->name, e);
	if (r == 0)
		r = make_id(g, id, e);
	return r;
}

int sandbox_create(struct engine *g, const struct policy_principal *who,
		   const struct rec_sandbox_create *rec, struct sandbox **ret, struct err *e)
{
	struct sandbox *sb = find_request(g, who->tenant, rec->request_id);
	struct rec_sandbox_create want = *rec;
	struct policy_verdict v;
	struct set *set = NULL;
	struct id id;
	int r;

	if (sb) {
		*ret = sb;
		return replay(sb, rec, e);
	}
	r = find_set(g, who, rec, &set, e);
	follow_set(&want, set);
	if (r == 0)
		r = admit(g, who, &want, &v, &id, e);
	if (r < 0)
		return r;
	sb = give_birth(g, who, &want, &v, engine_driver(g, v.wall->driver), &id);
	if (set)
		take_set(sb, set);
	engine_emit(g, "info", EVENT_SANDBOX_CREATING, sb, NULL, "%s, template %s", v.wall->isolation,
		    sb->template);
	*ret = sb;
	create_start(sb);
	return 0;
}

int sandbox_fork(struct engine *g, const struct policy_principal *who, const struct sandbox *source,
		 struct set *set, const char *name, bool ephemeral, struct sandbox **ret, struct err *e)
{
	const struct rec_sandbox_create rec = {
		.name = span_of(name),
		.vcpus = set->m.vcpus,
		.memory_mb = set->m.memory_mb,
		.disk_mb = set->m.disk_mb,
		.pids_max = set->m.pids_max,
		.idle_timeout_ms = source->verdict.idle_timeout_ms,
		.idle_never = !source->verdict.idle_timeout_ms,
		.lifetime_ms = source->verdict.lifetime_ms,
		.ephemeral = ephemeral,
		.metadata = source->metadata,
		.unenforced = source->unenforced,
	};
	struct policy_verdict v;
	struct sandbox *sb;
	struct id id;
	int r = admit(g, who, &rec, &v, &id, e);

	if (r < 0)
		return r;
	sb = give_birth(g, who, &rec, &v, source->driver, &id);
	sb->is_child = true;
	take_set(sb, set);
	engine_emit(g, "info", EVENT_SANDBOX_CREATING, sb, NULL, "fork of sandbox %s", source->id_text);
	*ret = sb;
	create_start(sb);
	return 0;
}

/* ---- spares ---- */

int sandbox_spare(struct engine *g, const struct policy_principal *who, const struct rec_sandbox_create *rec,
		  struct pool *pool, bool is_shell, struct sandbox **ret, struct err *e)
{
	struct policy_verdict v;
	struct sandbox *sb;
	struct id id;
	int r = admit(g, who, rec, &v, &id, e);

	if (r < 0)
		return r;
	sb = give_birth(g, who, rec, &v, engine_driver(g, v.wall->driver), &id);
	sb->ephemeral = true; /* a failure is the pool's to remember */
	sb->is_spare = true;
	sb->is_shell = is_shell;
	sb->pool = pool;
	engine_emit(g, NULL, EVENT_SANDBOX_CREATING, sb, NULL, "a spare, template %s", sb->template);
	*ret = sb;
	create_start(sb);
	return 0;
}

/* Its machine was made for these bounds; what its agent enforces is set when it is handed over. */
static int check_bounds(const struct sandbox *sb, const struct policy_verdict *v, struct err *e)
{
	if (v->wall != sb->verdict.wall || sb->verdict.unenforced & ~v->unenforced ||
	    (!v->wall->own_kernel && v->pids_max != sb->verdict.pids_max))
		return err_set(e, ERR_CONFLICT, "the spare was made for other limits");
	return 0;
}

int sandbox_bind(struct sandbox *sb, const struct policy_principal *who, const struct rec_sandbox_create *rec,
		 struct err *e)
{
	struct engine *g = sb->engine;
	struct policy_usage usage = g->usage;
	struct policy_verdict v;
	struct store_sandbox row;
	int r;

	usage.sandboxes--; /* it counts already */
	r = policy_create(who, rec, &g->limits, &usage, &v, e);
	if (r == 0)
		r = check_bounds(sb, &v, e);
	if (r == 0)
		r = free_name(g, who->tenant, rec->name, e);
	if (r < 0)
		return r;
	sb->verdict.pids_max = v.pids_max;
	sb->verdict.idle_timeout_ms = v.idle_timeout_ms;
	sb->verdict.lifetime_ms = v.lifetime_ms;
	free_lists(sb);
	take_request(sb, who, rec);
	sb->is_spare = false;
	sandbox_start_clocks(sb);
	sandbox_row(sb, &row);
	r = store_sandbox_rewrite(g->store, &row, e);
	if (r < 0)
		sandbox_unbind(sb);
	return r;
}

void sandbox_unbind(struct sandbox *sb)
{
	struct engine *g = sb->engine;
	struct store_sandbox row;

	map_del(&g->by_name, &sb->by_name);
	map_del(&g->by_request, &sb->by_request);
	sb->name[0] = sb->request_id[0] = '\0';
	sb->ephemeral = sb->is_spare = true;
	sandbox_row(sb, &row);
	(void)store_sandbox_rewrite(g->store, &row, NULL); /* else its names are free when it is gone */
}

/* ---- pause and resume ---- */

void sandbox_paused(struct sandbox *sb)
{
	uint64_t given_back = sb->promised_mb;

	sb->engine->usage.memory_promised_mb -= sb->promised_mb;
	sb->promised_mb = 0;
	sandbox_set_state(sb, SANDBOX_PAUSED);
	sandbox_arm_timer(sb);
	engine_emit(sb->engine, "info", EVENT_SANDBOX_PAUSED, sb, NULL, "%llu MiB given back",
		    (unsigned long long)given_back);
}

int sandbox_resume_paused(struct sandbox *sb, struct set *set, struct err *e)
{
	const struct policy_limits *l = &sb->engine->limits;
	uint64_t promised = sb->engine->usage.memory_promised_mb;
	uint64_t wanted = policy_promise(sb->verdict.wall, sb->verdict.memory_mb);

	if (l->memory_budget_mb && promised + wanted > l->memory_budget_mb)
		return err_set(e, ERR_LIMIT,
			       "memory_mb: %llu of %llu MiB are promised to others, this sandbox needs %llu",
			       (unsigned long long)promised, (unsigned long long)l->memory_budget_mb,
			       (unsigned long long)wanted);
	sb->set = set_ref(set);
	sb->is_resuming = true;
	sb->is_committed = false;
	sb->generation++;
	sb->path = "fork";
	sandbox_set_state(sb, SANDBOX_CREATING);
	create_resume(sb);
	return 0;
}

void sandbox_resumed(struct sandbox *sb, const struct err *why)
{
	struct err e = ERR_INIT;
	bool was_committed = sb->is_committed;

	err_copy(&e, why);
	sb->is_resuming = false;
	if (!why) {
		sandbox_touch(sb);
		sandbox_arm_timer(sb);
		engine_emit(sb->engine, "info", EVENT_SANDBOX_RESUMED, sb, NULL, "%llu us",
			    (unsigned long long)((loop_now(sb->engine->loop) - sb->plan_started_ns) / NS_PER_US));
		waiters_ready(sb);
		followers_tell(sb, NULL);
		return;
	}
	sb->set = set_unref(sb->set);
	if (sb->fate == SANDBOX_GONE || was_committed) { /* removed meanwhile, or no way back */
		plan_undo(&sb->plan, &e);
		return;
	}
	sandbox_set_state(sb, SANDBOX_PAUSED);
	sandbox_arm_timer(sb);
	followers_tell(sb, &e);
}

/* ---- recovery ---- */

static const char *path_of(const char *name)
{
	static const char *const paths[] = {"boot", "fork", "prestarted", "pool"};

	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		if (strcmp(name, paths[i]) == 0)
			return paths[i];
	return "boot";
}

/* A record of before has the end of its own life only, not what its forks get; the same span, then. */
static uint64_t lifetime_of(const struct store_sandbox *row)
{
	if (row->lifetime_ms || !row->deadline_ms)
		return row->lifetime_ms;
	return row->deadline_ms > row->created_ms ? row->deadline_ms - row->created_ms : 1;
}

static void take_row(struct sandbox *sb, const struct store_sandbox *row)
{
	const struct {
		char *to;
		const char *from;
	} texts[] = {
		{sb->name, row->name},	       {sb->tenant, row->tenant},
		{sb->owner, row->owner},       {sb->request_id, row->request_id},
		{sb->template, row->template}, {sb->image_digest, row->image},
	};

	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		span_copy(span_of(texts[i].from), texts[i].to, SANDBOX_TEXT);
	sb->driver = engine_driver(sb->engine, row->driver);
	sb->verdict = (struct policy_verdict){
		.wall = engine_wall(sb->engine, row->driver),
		.vcpus = row->vcpus,
		.memory_mb = row->memory_mb,
		.disk_mb = row->disk_mb,
		.pids_max = row->pids_max,
		.idle_timeout_ms = row->idle_timeout_ms,
		.lifetime_ms = lifetime_of(row),
	};
	sb->ephemeral = row->ephemeral;
	sb->metadata = mem_dup_strv(row->metadata);
	sb->unenforced = mem_dup_strv(row->unenforced);
	sb->stages_n = MIN(row->stages.n, sizeof(sb->stages));
	if (sb->stages_n)
		memcpy(sb->stages, row->stages.p, sb->stages_n);
	sb->created_ms = row->created_ms;
	sb->idle_saved_ms = row->idle_deadline_ms;
	sb->idle_at_ns = loop_time_of(sb, row->idle_deadline_ms);
	sb->end_at_ns = loop_time_of(sb, row->deadline_ms);
	sb->generation = row->generation + 1;
	sb->layers = (unsigned)row->layers;
	sb->node = (unsigned)row->node;
	sb->path = path_of(row->path);
	sb->parent = row->parent;
	span_copy(span_of(row->closure), sb->closure, sizeof(sb->closure));
	sb->is_resuming = strcmp(row->state, SANDBOX_RESUMING) == 0;
	sb->is_rolling_back = strcmp(row->state, SANDBOX_ROLLING_BACK) == 0;
	sb->is_recorded = true;
	if (row->reason[0])
		err_set(&sb->reason, ERR_GONE, "%s", row->reason);
	if (strncmp(row->reason, SANDBOX_DISK_LEFT, strlen(SANDBOX_DISK_LEFT)) == 0)
		sb->disk_left = sb->reason;
	index_names(sb);
}

static void keep_a_while(struct sandbox *sb)
{
	sb->forget_at_ns = loop_now(sb->engine->loop) + ENGINE_FAILED_MS * NS_PER_MS;
	sandbox_arm_timer(sb);
}

static void keep_failure(struct sandbox *sb)
{
	sandbox_set_state(sb, SANDBOX_FAILED);
	keep_a_while(sb);
}

static enum sandbox_state state_of(const char *name)
{
	for (enum sandbox_state i = SANDBOX_NEW; i < SANDBOX_STATE_N; i++)
		if (strcmp(name, state_names[i]) == 0)
			return i;
	return SANDBOX_STOPPING; /* an unknown word: clean up */
}

void sandbox_load(struct engine *g, const struct store_sandbox *row)
{
	struct sandbox *sb = sandbox_new(g, &row->id);

	take_row(sb, row);
	sb->loaded_state = sb->is_resuming	 ? SANDBOX_RUNNING
			   : sb->is_rolling_back ? SANDBOX_PAUSED
						 : state_of(row->state);
}

/* What a crash left half made or half removed is undone; what had failed stays a failure. */
static void resume_undo(struct sandbox *sb, const struct err *why)
{
	sb->fate = why->code == ERR_CANCELED || sb->ephemeral ? SANDBOX_GONE : SANDBOX_FAILED;
	sandbox_set_state(sb, SANDBOX_STOPPING);
	create_resume_undo(sb, why);
}

static void pause_released(struct keeper_call *c, const struct err *why)
{
	(void)c;
	(void)why; /* nothing of it counts: the pause is whole */
}

/* Its machine, if the keeper still has one, was on its way out or not yet in. */
static void stay_paused(struct sandbox *sb)
{
	sb->promised_mb = 0;
	sandbox_set_state(sb, SANDBOX_PAUSED);
	create_paused(sb);
	sandbox_arm_timer(sb);
	sb->release_call.done = pause_released;
	if (sb->was_listed && sb->engine->keeper)
		(void)keeper_release(sb->engine->keeper, &sb->id, &sb->release_call, NULL);
}

void sandbox_resume(struct sandbox *sb, const struct err *machine_ended)
{
	bool was_running = sb->loaded_state == SANDBOX_RUNNING;
	struct set *pause = set_of_pause(sb->engine, &sb->id);
	struct err why = ERR_INIT;

	if (sb->loaded_state == SANDBOX_FAILED) {
		keep_failure(sb);
		return;
	}
	sb->engine->usage.sandboxes++;
	if (sb->loaded_state == SANDBOX_PAUSED) { /* without its memory, too: rollback needs only the disk */
		stay_paused(sb);
		return;
	}
	if (pause) /* the daemon died before it wrote down that the sandbox is paused, or after that it is not */
		set_remove(pause, NULL);
	sb->engine->recovering++;
	sb->is_recovering = true;
	if (was_running && machine_ended->code) {
		resume_undo(sb, machine_ended);
	} else if (was_running && !sb->driver) {
		err_set(&why, ERR_UNSUPPORTED, "this daemon does not have its driver");
		resume_undo(sb, &why);
	} else if (was_running) {
		sandbox_set_state(sb, SANDBOX_CREATING);
		create_adopt(sb);
	} else if (sb->reason.code) {
		why = sb->reason;
		resume_undo(sb, &why);
	} else {
		err_set(&why, ERR_CANCELED, "the daemon ended while it was being made or removed");
		resume_undo(sb, &why);
	}
}

/* ---- the end ---- */

static void become_gone(struct sandbox *sb, const struct err *why)
{
	sandbox_set_state(sb, SANDBOX_GONE);
	followers_tell(sb, why);
	waiters_over(sb, why);
	engine_emit(sb->engine, "info", EVENT_SANDBOX_REMOVED, sb, NULL, "%s", why->text);
	sandbox_forget(sb);
}

/* Only a record is left; a store that is full keeps it, and us, until it can write again. */
static void forget_row(struct sandbox *sb, const struct err *why)
{
	struct err e = ERR_INIT;

	if (store_sandbox_remove(sb->engine->store, &sb->id, &e) == 0) {
		become_gone(sb, why);
		return;
	}
	engine_emit(sb->engine, "error", EVENT_SANDBOX_FAILED, sb, NULL, "%s", e.text);
	sb->forget_at_ns = loop_now(sb->engine->loop) + ENGINE_STORE_RETRY_MS * NS_PER_MS;
	sandbox_arm_timer(sb);
}

static void remove_disk(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);
	const struct engine_host *host = sb->engine->host;

	(void)host->disk_remove(host->arg, sb->id_text, &sb->job_error);
}

/* Who asked for its removal is told what is left. */
static void tell_disk_left(struct sandbox *sb)
{
	struct err e = sb->disk_left;

	err_wrap(&e, "sandbox %s", sandbox_called(sb));
	waiters_fail(sb, &e);
}

static void disk_removed(struct work *w)
{
	struct sandbox *sb = CONTAINER_OF(w, struct sandbox, job);

	sb->is_forgetting = false;
	if (!sb->job_error.code) {
		forget_row(sb, &sb->forget_why);
		return;
	}
	sb->disk_left = sb->job_error;
	err_wrap(&sb->disk_left, SANDBOX_DISK_LEFT);
	sb->reason = sb->disk_left;
	tell_disk_left(sb);
	keep_a_while(sb);
}

static void forget_failed(struct sandbox *sb, const struct err *why)
{
	if (!sb->disk_left.code) {
		forget_row(sb, why);
		return;
	}
	if (sb->is_forgetting)
		return;
	sb->is_forgetting = true;
	sb->forget_why = *why;
	sb->job_error = (struct err)ERR_INIT;
	sb->job.run = remove_disk;
	sb->job.done = disk_removed;
	work_submit(sb->engine->pool, &sb->job);
}

void sandbox_remove(struct sandbox *sb, const struct err *why)
{
	if (sb->state == SANDBOX_FAILED) {
		forget_failed(sb, why);
		return;
	}
	sb->fate = SANDBOX_GONE;
	if (sb->is_swapping) { /* again when its disk is back */
		sb->reason = *why;
		return;
	}
	if (sb->state == SANDBOX_STOPPING && sb->is_recorded)
		(void)sandbox_save(sb, NULL);
	plan_undo(&sb->plan, why);
}

void sandbox_break(struct sandbox *sb, const struct err *why)
{
	if (sandbox_is_live(sb))
		plan_undo(&sb->plan, why);
}

void sandbox_lost(struct sandbox *sb, const struct err *why)
{
	struct store_life life = {
		.state = sandbox_state_name(SANDBOX_STOPPING),
		.reason = why->text,
		.generation = sb->generation,
		.layers = sb->layers,
		.node = sb->node,
		.stages = {sb->stages, sb->stages_n},
	};

	/* Paused, on its way there, or not yet back: its record says all, and it had no machine to lose. */
	if (sb->state == SANDBOX_PAUSED || sb->parked || (sb->is_resuming && !sb->is_committed))
		return;
	if (sb->is_recorded && sb->state != SANDBOX_FAILED && sb->fate != SANDBOX_GONE)
		(void)store_sandbox_update(sb->engine->store, &sb->id, &life, NULL);
}

static void settle_ready(struct sandbox *sb)
{
	struct engine *g = sb->engine;

	if (sb->is_adopted) {
		g->adopted++;
		engine_emit(g, "info", EVENT_SANDBOX_ADOPTED, sb, NULL, "generation %llu",
			    (unsigned long long)sb->generation);
	} else {
		engine_emit(g, "info", EVENT_SANDBOX_READY, sb, NULL, "%llu us",
			    (unsigned long long)((loop_now(g->loop) - sb->plan_started_ns) / NS_PER_US));
	}
	sb->is_child = false;
	heat_after(sb);
	waiters_ready(sb);
	followers_tell(sb, NULL);
}

static void settle_over(struct sandbox *sb, const struct err *why)
{
	bool failed = sb->fate == SANDBOX_FAILED;

	if (failed)
		engine_emit(sb->engine, "warn", EVENT_SANDBOX_FAILED, sb, NULL, "%s", why->text);
	if (!sb->is_recorded) { /* SANDBOX-3, or it failed before its record */
		become_gone(sb, why);
		return;
	}
	keep_failure(sb);
	followers_tell(sb, why);
	if (failed && sb->disk_left.code)
		tell_disk_left(sb);
	else if (failed)
		waiters_over(sb, why);
	else /* removed after the failure had been written, before it was told */
		forget_failed(sb, why);
}

void sandbox_settle(struct sandbox *sb, const struct err *why)
{
	struct engine *g = sb->engine;
	bool is_recovery = sb->is_recovering;

	sb->is_recovering = false;
	if (!why) {
		settle_ready(sb);
	} else {
		g->usage.sandboxes--;
		settle_over(sb, why);
	}
	if (is_recovery)
		engine_recovered(g);
}

void sandbox_detach(struct sandbox *sb, const struct err *why)
{
	waiters_fail(sb, why);
	relay_end_all(&sb->relays, why);
	create_drop(sb);
}
