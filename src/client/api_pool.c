/* client/api_pool.c - hotcell.h: sandboxes made before anybody asks */
#include "base/mem.h"
#include "client/api_int.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { JSON_MAX = 65536 };

struct hotcell_pool {
	char template[LIMIT_TEXT_SHORT + 1], isolation[33], reason[LIMIT_TEXT_MEDIUM + 1];
	unsigned size, ready;
	uint64_t hits, misses;
	struct str json;
};

static struct hotcell_pool *pool_new(const struct rec_pool_info *info)
{
	struct hotcell_pool *p = mem_new(sizeof(*p));

	span_copy(info->template, p->template, sizeof(p->template));
	span_copy(info->isolation, p->isolation, sizeof(p->isolation));
	span_copy(info->reason, p->reason, sizeof(p->reason));
	p->size = (unsigned)info->size;
	p->ready = (unsigned)info->ready;
	p->hits = info->hits + info->shell_hits;
	p->misses = info->misses;
	p->json = (struct str)STR_INIT(JSON_MAX);
	rec_json(&rec_pool_info_type, info, &p->json);
	return p;
}

/* Set the sizes of the pool of this shape; none at all ends it. */
static int ask(struct hotcell *h, const char *template_name, unsigned ready, unsigned prestarted,
	       const struct hotcell_pool_options *o, struct hotcell_pool **ret, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX), list = STR_INIT(RECORD_MAX);
	struct rec_pool_set rec = {.template = span_of(template_name), .size = ready, .prestarted = prestarted};
	struct hotcell_pool_options mine;
	struct rec_pool_info info;
	int r = api_options(o, &mine, sizeof(mine), "hotcell_pool_options", e);

	rec.isolation = span_of(mine.isolation);
	rec.vcpus = mine.vcpus;
	rec.memory_mb = mine.memory_mib;
	rec.disk_mb = mine.disk_mib;
	if (r == 0)
		r = api_list(mine.unenforced, &list, &rec.unenforced, "hotcell_pool_options.unenforced", e);
	if (r == 0)
		r = conn_call(h->conn, METHOD_POOL_SET, &rec, &bytes, &info, e);
	if (r == 0 && ret)
		*ret = pool_new(&info);
	str_deinit(&bytes);
	str_deinit(&list);
	return r;
}

int hotcell_pool_set(struct hotcell *h, const char *template_name, unsigned ready, unsigned prestarted,
		     const struct hotcell_pool_options *o, struct hotcell_pool **ret, struct hotcell_error *e)
{
	if (!ready && !prestarted)
		return err_set(api_err(e), ERR_INVALID,
			       "ready, prestarted: both are 0; hotcell_pool_remove() ends a pool");
	return ask(h, template_name, ready, prestarted, o, ret, api_err(e));
}

int hotcell_pool_remove(struct hotcell *h, const char *template_name, const struct hotcell_pool_options *o,
			struct hotcell_error *e)
{
	return ask(h, template_name, 0, 0, o, NULL, api_err(e));
}

struct walk {
	int (*fn)(void *arg, const struct hotcell_pool *p);
	void *arg;
};

static int on_pool(void *arg, const void *item, struct err *e)
{
	const struct walk *w = arg;
	struct hotcell_pool *p = pool_new(item);
	int r = w->fn(w->arg, p);

	hotcell_pool_free(p);
	return r == 0 ? 0 : err_set(e, ERR_CANCELED, "ended by the caller");
}

int hotcell_pool_list(struct hotcell *h, int (*fn)(void *arg, const struct hotcell_pool *p), void *arg,
		      struct hotcell_error *e)
{
	const struct rec_empty nothing = {0};
	struct walk w = {fn, arg};

	return conn_items(h->conn, METHOD_POOL_LIST, &nothing, on_pool, &w, api_err(e));
}

const char *hotcell_pool_template(const struct hotcell_pool *p)
{
	return p->template;
}

const char *hotcell_pool_isolation(const struct hotcell_pool *p)
{
	return p->isolation;
}

unsigned hotcell_pool_size(const struct hotcell_pool *p)
{
	return p->size;
}

unsigned hotcell_pool_ready(const struct hotcell_pool *p)
{
	return p->ready;
}

uint64_t hotcell_pool_hits(const struct hotcell_pool *p)
{
	return p->hits;
}

uint64_t hotcell_pool_misses(const struct hotcell_pool *p)
{
	return p->misses;
}

const char *hotcell_pool_reason(const struct hotcell_pool *p)
{
	return p->reason;
}

const char *hotcell_pool_json(const struct hotcell_pool *p)
{
	return str_text(&p->json);
}

void hotcell_pool_free(struct hotcell_pool *p)
{
	if (!p)
		return;
	str_deinit(&p->json);
	free(p);
}
