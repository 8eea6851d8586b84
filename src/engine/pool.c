/* engine/pool.c - pools: what is wanted, what there is, and who gets it */
#include "engine/pool.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "engine/claim.h"
#include "engine/engine_int.h"
#include "engine/sandbox.h"
#include "engine/serve.h"
#include "engine/sets.h"
#include "engine/step.h"
#include "engine/waiter.h"
#include "loop/link.h"
#include "store/store.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { ISOLATION_TEXT = 32, MEAN_OF = 8 /* spares, of the running mean */ };

struct pool {
	struct list link; /* in engine->pools */
	struct engine *engine;
	uint64_t serial; /* grows */
	/* Its name: constant. */
	char tenant[SANDBOX_TEXT], template[SANDBOX_TEXT], isolation[ISOLATION_TEXT];
	uint64_t vcpus, memory_mb, disk_mb;
	/* What is wanted. */
	uint64_t size, prestarted;
	struct strv unenforced; /* owned */

	struct list spares; /* struct sandbox, the oldest first */
	struct loop_timer timer;
	unsigned patience; /* turns that filling still waits for creates */
	unsigned failures; /* in a row */
	uint64_t retry_at_ns;
	struct err reason; /* of the last failure; code 0: none since */
	uint64_t hits, shell_hits, misses, unhealthy, created, refill_us;
};

/* ---- the table ---- */

static struct pool *find(struct engine *g, const struct store_pool *key)
{
	LIST_FOR_EACH(pos, &g->pools) {
		struct pool *p = LIST_ENTRY(pos, struct pool, link);

		if (str_eq(p->tenant, key->tenant) && str_eq(p->template, key->template) &&
		    str_eq(p->isolation, key->isolation) && p->vcpus == key->vcpus &&
		    p->memory_mb == key->memory_mb && p->disk_mb == key->disk_mb)
			return p;
	}
	return NULL;
}

static struct pool *pool_new(struct engine *g, const struct store_pool *key)
{
	struct pool *p = mem_new(sizeof(*p));

	*p = (struct pool){.engine = g, .serial = ++g->next_serial_pool, .vcpus = key->vcpus,
			   .memory_mb = key->memory_mb, .disk_mb = key->disk_mb};
	span_copy(span_of(key->tenant), p->tenant, sizeof(p->tenant));
	span_copy(span_of(key->template), p->template, sizeof(p->template));
	span_copy(span_of(key->isolation), p->isolation, sizeof(p->isolation));
	list_init(&p->spares);
	list_add_tail(&g->pools, &p->link);
	return p;
}

/* Its spares may outlive it: they are on their way out. */
static void pool_free(struct pool *p)
{
	loop_timer_cancel(p->engine->loop, &p->timer);
	while (!list_empty(&p->spares)) {
		struct sandbox *sb = LIST_ENTRY(p->spares.next, struct sandbox, spare);

		list_del(&sb->spare);
		sb->pool = NULL;
	}
	list_del(&p->link);
	free((char *)p->unenforced.p);
	free(p);
}

/* ---- counting ---- */

struct counts {
	uint64_t filling, ready, shells; /* there are */
	uint64_t ready_coming, shells_coming;
};

static struct counts count(const struct pool *p)
{
	struct counts n = {0};

	LIST_FOR_EACH(pos, &p->spares) {
		const struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, spare);

		n.filling += sb->spare_as == SPARE_FILLING;
		n.ready += sb->spare_as == SPARE_READY;
		n.shells += sb->spare_as == SPARE_SHELL;
		n.ready_coming += !sb->is_shell;
		n.shells_coming += sb->is_shell;
	}
	return n;
}

/* ---- filling ---- */

static void on_timer(struct loop_timer *t);

static void fill_in(struct pool *p, uint64_t ms)
{
	struct loop *l = p->engine->loop;
	uint64_t at = MAX(loop_now(l) + ms * NS_PER_MS, p->retry_at_ns);

	loop_timer_set(l, &p->timer, at, on_timer);
}

static bool are_creates_under_way(const struct engine *g)
{
	LIST_FOR_EACH(pos, &g->sandboxes) {
		const struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, all);

		if (sb->state == SANDBOX_CREATING && !sb->is_spare)
			return true;
	}
	return false;
}

/* With all that are on their way. What one needs is known when the first one was made. */
static int check_budget(const struct pool *p, struct err *e)
{
	const struct engine *g = p->engine;
	uint64_t most = g->limits.memory_budget_mb * POOL_BUDGET_PERCENT / 100;
	uint64_t coming = 1, each = p->memory_mb;

	LIST_FOR_EACH(pos, &p->spares) {
		const struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, spare);

		coming += !sb->promised_mb;
		each = MAX(each, sb->promised_mb);
	}
	if (!most || g->usage.memory_promised_mb + coming * each <= most)
		return 0;
	return err_set(e, ERR_LIMIT, "%llu of %llu MiB of memory are promised: pools leave the rest to creates",
		       (unsigned long long)g->usage.memory_promised_mb,
		       (unsigned long long)g->limits.memory_budget_mb);
}

static void failed(struct pool *p, const struct err *why)
{
	struct loop *l = p->engine->loop;
	uint64_t ms = POOL_RETRY_MS;

	for (unsigned i = 0; i < p->failures && ms < POOL_RETRY_MAX_MS; i++)
		ms *= 2;
	p->failures++;
	p->retry_at_ns = loop_now(l) + MIN(ms, (uint64_t)POOL_RETRY_MAX_MS) * NS_PER_MS;
	p->reason = *why;
	engine_emit_for(p->engine, p->tenant, "warn", EVENT_POOL_FAILED, "%s: %s", p->template, why->text);
	fill_in(p, 0);
}

static int make_spare(struct pool *p, bool is_shell, struct err *e)
{
	const struct policy_principal who = {p->tenant, "pool"};
	const struct rec_sandbox_create rec = {
		.template = span_of(p->template),
		.isolation = span_of(p->isolation),
		.vcpus = p->vcpus,
		.memory_mb = p->memory_mb,
		.disk_mb = p->disk_mb,
		.unenforced = p->unenforced,
	};
	struct sandbox *sb;
	int r = check_budget(p, e);

	if (r == 0)
		r = sandbox_spare(p->engine, &who, &rec, p, is_shell, &sb, e);
	if (r == 0 && sb->pool) /* else it ended at once */
		list_add_tail(&p->spares, &sb->spare);
	return r;
}

static void fill(struct pool *p)
{
	struct err e = ERR_INIT;

	for (;;) {
		struct counts n = count(p);
		bool wants_ready = n.ready_coming < p->size;

		if (n.filling >= POOL_FILLS_MAX || (!wants_ready && n.shells_coming >= p->prestarted))
			return;
		if (make_spare(p, !wants_ready, &e) < 0) {
			failed(p, &e);
			return;
		}
	}
}

/* Creates that are under way go first, for a while. */
static void on_timer(struct loop_timer *t)
{
	struct pool *p = CONTAINER_OF(t, struct pool, timer);

	if (p->engine->state != ENGINE_SERVING)
		return;
	if (p->patience && are_creates_under_way(p->engine)) {
		p->patience--;
		fill_in(p, POOL_REFILL_MS);
		return;
	}
	p->patience = POOL_REFILL_PATIENCE;
	fill(p);
}

/* Fewer are wanted: the youngest go. */
static void shrink(struct pool *p, bool shells, uint64_t wanted)
{
	struct err why = ERR_INIT;
	uint64_t n = 0;

	err_set(&why, ERR_CANCELED, "its pool was made smaller");
	LIST_FOR_EACH_SAFE(pos, &p->spares) {
		struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, spare);

		if (sb->is_shell == shells && ++n > wanted)
			sandbox_remove(sb, &why);
	}
}

void pool_parked(struct sandbox *sb, enum spare as)
{
	struct pool *p = sb->pool;
	uint64_t us = (loop_now(p->engine->loop) - sb->plan_started_ns) / NS_PER_US;

	sb->spare_as = as;
	p->created++;
	p->refill_us = p->refill_us ? (p->refill_us * (MEAN_OF - 1) + us) / MEAN_OF : us;
	p->failures = 0;
	p->retry_at_ns = 0;
	p->reason = (struct err)ERR_INIT;
	fill_in(p, 0);
}

/* ---- taking ---- */

static bool fits_size(uint64_t asked, uint64_t pool, uint64_t spare)
{
	return asked ? asked == spare : !pool; /* asked for nothing: the template's, as the pool did */
}

static bool fits(const struct pool *p, const struct sandbox *sb, const struct rec_sandbox_create *rec)
{
	return fits_size(rec->vcpus, p->vcpus, sb->verdict.vcpus) &&
	       fits_size(rec->memory_mb, p->memory_mb, sb->verdict.memory_mb) &&
	       fits_size(rec->disk_mb, p->disk_mb, sb->verdict.disk_mb);
}

static bool is_alive(const struct sandbox *sb)
{
	return plan_is_forward(&sb->plan) && (sb->spare_as == SPARE_SHELL || (sb->link && link_is_up(sb->link)));
}

/* The oldest; a ready one rather than a shell. */
static struct sandbox *choose(const struct pool *p, const struct rec_sandbox_create *rec, struct sandbox *found)
{
	LIST_FOR_EACH(pos, &p->spares) {
		struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, spare);

		if (sb->spare_as != SPARE_FILLING && (!found || sb->spare_as > found->spare_as) && is_alive(sb) &&
		    fits(p, sb, rec))
			found = sb;
	}
	return found;
}

static bool is_for(const struct pool *p, const struct policy_principal *who, const struct rec_sandbox_create *rec)
{
	return str_eq(p->tenant, who->tenant) &&
	       span_is(rec->template.n ? rec->template : span_of("base"), p->template) &&
	       span_is(rec->isolation.n ? rec->isolation : span_of("vm"), p->isolation);
}

static void on_go(struct loop_call *c)
{
	step_go_on(CONTAINER_OF(c, struct claim, go)->sandbox);
}

struct claim *claim_free(struct claim *c)
{
	if (!c)
		return NULL;
	loop_call_cancel(c->sandbox->engine->loop, &c->go);
	image_close(&c->now);
	free((char *)c->request.p);
	free(c);
	return NULL;
}

static int copy_request(const struct rec_sandbox_create *rec, struct span *ret, struct err *e)
{
	struct str s = STR_INIT(LIMIT_RECORD);
	int r = rec_encode(&rec_sandbox_create_type, rec, &s, e);

	if (r == 0)
		*ret = (struct span){mem_dup(s.p, s.len), s.len};
	str_deinit(&s);
	return r;
}

/* It leaves the pool: from here on it is the request's. */
static int take(struct pool *p, struct sandbox *sb, const struct policy_principal *who,
		const struct rec_sandbox_create *rec)
{
	struct claim *c = mem_new(sizeof(*c));
	const char *path = sb->path;
	int r = copy_request(rec, &c->request, NULL);

	c->sandbox = sb;
	c->pool = p->serial;
	c->from_step = sb->plan.at;
	c->now = (struct image)IMAGE_INIT;
	sb->path = sb->is_shell ? "prestarted" : "pool";
	if (r == 0)
		r = sandbox_bind(sb, who, rec, NULL);
	if (r < 0) {
		sb->path = path;
		(void)claim_free(c);
		return r;
	}
	*(sb->is_shell ? &p->shell_hits : &p->hits) += 1;
	list_del(&sb->spare);
	sb->pool = NULL;
	sb->claim = c;
	sb->plan_started_ns = sb->plan.started_ns = loop_now(p->engine->loop);
	engine_emit(p->engine, "info", EVENT_POOL_TAKEN, sb, NULL, "%s, %s", sb->template, sb->path);
	loop_defer(p->engine->loop, &c->go, on_go);
	fill_in(p, POOL_REFILL_MS);
	return 0;
}

struct sandbox *pool_take(struct engine *g, const struct policy_principal *who,
			  const struct rec_sandbox_create *rec)
{
	struct sandbox *sb = NULL;
	struct pool *missed = NULL;

	if (rec->cold || rec->disk_only || rec->snapshot.n || sandbox_knows_request(g, who->tenant, rec->request_id))
		return NULL;
	LIST_FOR_EACH(pos, &g->pools) {
		struct pool *p = LIST_ENTRY(pos, struct pool, link);

		if (!is_for(p, who, rec))
			continue;
		missed = p;
		sb = choose(p, rec, sb);
	}
	if (!missed || (sb && take(sb->pool, sb, who, rec) == 0))
		return sb;
	missed->misses++;
	engine_emit_for(g, who->tenant, NULL, EVENT_POOL_MISS, "%s", missed->template);
	fill_in(missed, POOL_REFILL_MS);
	return NULL;
}

/* ---- spares that fail ---- */

static void lose_spare(struct sandbox *sb, const struct err *why)
{
	struct pool *p = sb->pool;
	bool was_made = sb->spare_as != SPARE_FILLING;

	list_del(&sb->spare);
	sb->pool = NULL;
	if (sb->fate == SANDBOX_GONE) { /* it was told to go */
		fill_in(p, POOL_REFILL_MS);
		return;
	}
	p->unhealthy += was_made;
	if (was_made)
		engine_emit(p->engine, "warn", EVENT_POOL_UNHEALTHY, sb, NULL, "%s", why->text);
	failed(p, why);
}

static void count_unhealthy(struct engine *g, uint64_t serial)
{
	LIST_FOR_EACH(pos, &g->pools) {
		struct pool *p = LIST_ENTRY(pos, struct pool, link);

		p->unhealthy += p->serial == serial;
	}
}

/* Who waited for it waits for one that is made for the request. */
static void pass_on(struct sandbox *sb, const struct err *why)
{
	char tenant[SANDBOX_TEXT], owner[SANDBOX_TEXT];
	const struct policy_principal who = {tenant, owner};
	struct rec_sandbox_create rec;
	struct sandbox *next;
	struct err e = ERR_INIT;

	memcpy(tenant, sb->tenant, sizeof(tenant));
	memcpy(owner, sb->owner, sizeof(owner));
	count_unhealthy(sb->engine, sb->claim->pool);
	engine_emit(sb->engine, "warn", EVENT_POOL_UNHEALTHY, sb, NULL, "%s", why->text);
	sandbox_unbind(sb);
	if (rec_decode(&rec_sandbox_create_type, sb->claim->request.p, sb->claim->request.n, &rec, &e) == 0 &&
	    sandbox_create(sb->engine, &who, &rec, &next, &e) == 0)
		waiters_move(sb, next);
	else
		waiters_fail(sb, &e);
}

void pool_failed(struct sandbox *sb, const struct err *why)
{
	if (sb->pool)
		lose_spare(sb, why);
	else if (sb->claim && sb->fate != SANDBOX_GONE) /* else its client let go of it */
		pass_on(sb, why);
}

void pools_renew(struct engine *g, const char *tenant, const char *template)
{
	struct err why = ERR_INIT;

	err_set(&why, ERR_CANCELED, "its template was built again");
	LIST_FOR_EACH(pos, &g->pools) {
		struct pool *p = LIST_ENTRY(pos, struct pool, link);

		if (!str_eq(p->tenant, tenant) || !str_eq(p->template, template))
			continue;
		LIST_FOR_EACH_SAFE(at, &p->spares)
			sandbox_remove(LIST_ENTRY(at, struct sandbox, spare), &why);
		p->retry_at_ns = 0;
		fill_in(p, POOL_REFILL_MS);
	}
}

/* ---- pool.list ---- */

static void pool_info(const struct pool *p, struct rec_pool_info *ret)
{
	struct counts n = count(p);

	*ret = (struct rec_pool_info){
		.template = span_of(p->template),
		.tenant = span_of(p->tenant),
		.isolation = span_of(p->isolation),
		.vcpus = p->vcpus,
		.memory_mb = p->memory_mb,
		.disk_mb = p->disk_mb,
		.size = p->size,
		.prestarted = p->prestarted,
		.ready = n.ready,
		.shells = n.shells,
		.filling = n.filling,
		.hits = p->hits,
		.shell_hits = p->shell_hits,
		.misses = p->misses,
		.unhealthy = p->unhealthy,
		.created = p->created,
		.refill_us = p->refill_us,
		.reason = span_of(p->reason.code ? p->reason.text : ""),
	};
}

static bool send_pools(struct client *c, struct stream *s, uint64_t *after)
{
	LIST_FOR_EACH(pos, &c->engine->pools) {
		const struct pool *p = LIST_ENTRY(pos, struct pool, link);
		struct rec_pool_info info;

		if (p->serial <= *after || !policy_may_use(&c->who, p->tenant))
			continue;
		pool_info(p, &info);
		if (!stream_send_item(s, &rec_pool_info_type, &info))
			return false;
		*after = p->serial;
	}
	return true;
}

void run_pool_list(struct client *c, struct stream *s, const void *rec)
{
	(void)rec;
	serve_items(c, s, send_pools);
}

/* ---- pool.set: written down by a worker, one after the other, then done ---- */

struct setting {
	struct list link; /* in engine->pool_sets; the first is on its way */
	struct engine *engine;
	struct stream *stream; /* NULL: its client is gone */
	char tenant[SANDBOX_TEXT], template[SANDBOX_TEXT], isolation[ISOLATION_TEXT];
	struct store_pool want; /* points into this */
	struct work job;
	struct err error;
};

static const struct stream_ops deaf = {0};

static void setting_free(struct setting *t)
{
	list_del(&t->link);
	free((char *)t->want.unenforced.p);
	free(t);
}

static void run_setting(struct work *w)
{
	struct setting *t = CONTAINER_OF(w, struct setting, job);
	const struct engine_host *host = t->engine->host;
	struct image image = IMAGE_INIT;

	if (!t->error.code && (t->want.size || t->want.prestarted)) /* a name nothing stands behind is a mistake */
		(void)host->image_open(host->arg, t->template, &image, &t->error);
	image_close(&image);
	if (!t->error.code)
		(void)store_pool_set(t->engine->store, &t->want, &t->error);
}

static void apply(struct engine *g, const struct store_pool *want, struct rec_pool_info *ret)
{
	struct pool *p = find(g, want);

	if (!p)
		p = pool_new(g, want);
	free((char *)p->unenforced.p);
	p->unenforced = mem_dup_strv(want->unenforced);
	p->size = want->size;
	p->prestarted = want->prestarted;
	p->retry_at_ns = 0;
	shrink(p, false, p->size);
	shrink(p, true, p->prestarted);
	fill_in(p, 0);
	if (ret)
		pool_info(p, ret);
}

static void next_setting(struct engine *g);

static void setting_done(struct work *w)
{
	struct setting *t = CONTAINER_OF(w, struct setting, job);
	struct engine *g = t->engine;
	struct rec_pool_info info = {0};

	if (!t->error.code)
		apply(g, &t->want, &info);
	if (t->stream)
		stream_accept(t->stream, &deaf, NULL);
	if (t->stream && t->error.code)
		stream_fail(t->stream, &t->error);
	else if (t->stream)
		(void)stream_reply(t->stream, &rec_pool_info_type, &info, false, NULL, 0, NULL);
	if (!t->error.code && !t->want.size && !t->want.prestarted)
		pool_free(find(g, &t->want));
	setting_free(t);
	next_setting(g);
}

static void next_setting(struct engine *g)
{
	struct setting *t;

	if (list_empty(&g->pool_sets))
		return;
	t = LIST_ENTRY(g->pool_sets.next, struct setting, link);
	if (!t->want.size && !t->want.prestarted && !find(g, &t->want))
		err_set(&t->error, ERR_NOT_FOUND, "there is no %s pool of template %s with these sizes; "
			"hotcell pool list shows them", t->isolation, t->template);
	t->job.run = run_setting;
	t->job.done = setting_done;
	work_submit(g->pool, &t->job);
}

static void setting_closed(struct stream *s, const struct err *why)
{
	struct setting *t = stream_arg(s);

	(void)why;
	t->stream = NULL;
}

static unsigned count_pools(const struct engine *g)
{
	unsigned n = 0;

	LIST_FOR_EACH(pos, &g->pools)
		n++;
	LIST_FOR_EACH(pos, &g->pool_sets)
		n++;
	return n;
}

/* The bounds of a create, and that there is such a wall. */
static int check_set(const struct client *c, const struct rec_pool_set *rq, struct err *e)
{
	const struct rec_sandbox_create rec = {
		.template = rq->template,
		.isolation = rq->isolation,
		.vcpus = rq->vcpus,
		.memory_mb = rq->memory_mb,
		.disk_mb = rq->disk_mb,
		.unenforced = rq->unenforced,
	};
	const struct policy_usage none = {0};
	struct policy_verdict v;
	const struct driver *d;
	int r = policy_create(&c->who, &rec, &c->engine->limits, &none, &v, e);

	if (r < 0)
		return r;
	d = engine_driver(c->engine, v.wall->driver);
	if (rq->prestarted && !(d->caps & DRIVER_CAN_CAPTURE))
		return err_set(e, ERR_UNSUPPORTED, "prestarted: a %s sandbox has no state to load; use size",
			       v.wall->isolation);
	if ((rq->size || rq->prestarted) && count_pools(c->engine) >= POOLS_MAX)
		return err_set(e, ERR_LIMIT, "there are %d pools already", POOLS_MAX);
	return 0;
}

void run_pool_set(struct client *c, struct stream *s, const void *rec)
{
	static const struct stream_ops ops = {.closed = setting_closed};
	const struct rec_pool_set *rq = rec;
	struct engine *g = c->engine;
	struct err e = ERR_INIT;
	bool is_first = list_empty(&g->pool_sets);
	struct setting *t;

	if (check_set(c, rq, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	t = mem_new(sizeof(*t));
	*t = (struct setting){.engine = g, .stream = s};
	span_copy(span_of(c->who.tenant), t->tenant, sizeof(t->tenant));
	span_copy(rq->template, t->template, sizeof(t->template));
	span_copy(rq->isolation.n ? rq->isolation : span_of("vm"), t->isolation, sizeof(t->isolation));
	t->want = (struct store_pool){
		t->tenant, t->template, t->isolation, rq->vcpus, rq->memory_mb, rq->disk_mb,
		rq->size, rq->prestarted,
		mem_dup_strv(rq->unenforced)};
	list_add_tail(&g->pool_sets, &t->link);
	stream_accept(s, &ops, t);
	if (is_first)
		next_setting(g);
}

/* ---- start and end ---- */

static void load_one(void *arg, const struct store_pool *want)
{
	struct pool *p = pool_new(arg, want);

	p->size = want->size;
	p->prestarted = want->prestarted;
	p->unenforced = mem_dup_strv(want->unenforced);
}

int pools_start(struct engine *g, struct err *e)
{
	return store_pool_each(g->store, load_one, g, e);
}

void pools_serve(struct engine *g)
{
	LIST_FOR_EACH(pos, &g->pools)
		fill_in(LIST_ENTRY(pos, struct pool, link), 0);
}

void pools_drop(struct engine *g)
{
	while (!list_empty(&g->pool_sets)) {
		struct setting *t = LIST_ENTRY(g->pool_sets.next, struct setting, link);

		if (t->stream)
			stream_accept(t->stream, &deaf, NULL);
		setting_free(t);
	}
	while (!list_empty(&g->pools))
		pool_free(LIST_ENTRY(g->pools.next, struct pool, link));
}
