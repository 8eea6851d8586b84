/* client/api.c - hotcell.h: connection and sandboxes */
#include <assert.h>
#include <string.h>
#include "base/macro.h"
#include "base/mem.h"
#include "client/api_int.h"
#include "client/conn.h"
#include "client/hold.h"
#include "sys/clock.h"
#include "wire/gen/methods.h"

static_assert(sizeof(struct err) == sizeof(struct hotcell_error) &&
		      offsetof(struct err, text) == offsetof(struct hotcell_error, message),
	      "an error is handed through without copying");
static_assert((int)HOTCELL_INTERNAL == (int)ERR_INTERNAL && (int)HOTCELL_BUSY == (int)ERR_BUSY &&
		      (int)HOTCELL_BUSY + 1 == (int)ERR_CODE_N,
	      "codes are those of schema/errors.toml, all of them");

enum { JSON_MAX = 1048576, SANDBOXES_MAX = LIMIT_SANDBOXES };

const char *hotcell_version(void)
{
	return HOTCELL_VERSION;
}

const char *hotcell_code_name(int code)
{
	return err_code_name(code);
}

int api_options(const void *given, void *ret, size_t size, const char *what, struct err *e)
{
	size_t n = given ? *(const size_t *)given : 0;

	memset(ret, 0, size);
	if (!given)
		return 0;
	if (n < sizeof(size_t) || n > 65536)
		return err_set(e, ERR_INVALID, "%s.size: %zu is not the size of the struct; use its _INIT",
			       what, n);
	for (size_t i = size; i < n; i++)
		if (((const char *)given)[i])
			return err_set(e, ERR_INVALID,
				       "%s: sets a field that this version of the library does not know",
				       what);
	memcpy(ret, given, MIN(n, size));
	return 0;
}

int api_list(const char *const *texts, struct str *list, struct strv *ret, const char *what,
	     struct err *e)
{
	for (; texts && *texts; texts++)
		strv_add(list, *texts);
	if (list->failed)
		return err_set(e, ERR_LIMIT, "%s: longer than %zu bytes", what, list->max);
	*ret = strv_of(list);
	return 0;
}

/* ---- connection ---- */

int hotcell_connect(const struct hotcell_connect_options *o, struct hotcell **ret,
		    struct hotcell_error *e)
{
	struct hotcell_connect_options mine;
	struct conn_options options;
	struct hotcell *h;
	struct conn *c;
	int r = api_options(o, &mine, sizeof(mine), "hotcell_connect_options", api_err(e));

	if (r < 0)
		return r;
	options = (struct conn_options){
		.run_dir = mine.run_dir, .no_start = mine.no_start, .start_ms = mine.start_timeout_ms};
	r = conn_open(&options, &c, api_err(e));
	if (r < 0)
		return r;
	h = mem_new(sizeof(*h));
	h->conn = c;
	*ret = h;
	return 0;
}

void hotcell_disconnect(struct hotcell *h)
{
	if (!h)
		return;
	conn_close(h->conn);
	free(h);
}

/* ---- handles ---- */

static struct hotcell_sandbox *new_handle(struct hotcell *h)
{
	struct hotcell_sandbox *s = mem_new(sizeof(*s));

	s->h = h;
	s->bytes = (struct str)STR_INIT(RECORD_MAX);
	s->json = (struct str)STR_INIT(JSON_MAX);
	return s;
}

/* From the record in s->bytes, decoded. */
static void fill(struct hotcell_sandbox *s)
{
	id_format(&s->info.id, s->id);
	span_copy(s->info.name, s->name, sizeof(s->name));
	span_copy(s->info.wall, s->wall, sizeof(s->wall));
	span_copy(s->info.template, s->template, sizeof(s->template));
	str_clear(&s->json);
	rec_json(&rec_sandbox_info_type, &s->info, &s->json);
}

int api_sandbox_ask(struct hotcell_sandbox *s, unsigned method, const void *req, struct err *e)
{
	struct rec_sandbox_info info;
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(s->h->conn, method, req, &bytes, &info, e);

	if (r < 0) {
		str_deinit(&bytes);
		return r;
	}
	str_deinit(&s->bytes);
	s->bytes = bytes;
	s->info = info;
	fill(s);
	return 0;
}

void hotcell_sandbox_close(struct hotcell_sandbox *s)
{
	if (!s)
		return;
	hold_stop(s->hold);
	str_deinit(&s->bytes);
	str_deinit(&s->json);
	free(s);
}

static int with_lists(const struct hotcell_config *c, struct rec_sandbox_create *rec,
		      struct str lists[3], struct err *e)
{
	int r = api_list(c->env, &lists[0], &rec->env, "hotcell_config.env", e);

	if (r == 0)
		r = api_list(c->metadata, &lists[1], &rec->metadata, "hotcell_config.metadata", e);
	if (r == 0)
		r = api_list(c->unenforced, &lists[2], &rec->unenforced, "hotcell_config.unenforced", e);
	return r;
}

static int create(struct hotcell *h, const struct hotcell_config *c,
		  const struct rec_sandbox_create *rec, struct hotcell_sandbox **ret, struct err *e)
{
	struct hotcell_sandbox *s = new_handle(h);
	int r;

	if (c->ephemeral) {
		r = hold_create(h->conn, rec, &s->bytes, &s->info, &s->hold, e);
		if (r == 0)
			fill(s);
	} else {
		r = api_sandbox_ask(s, METHOD_SANDBOX_CREATE, rec, e);
	}
	if (r < 0) {
		hotcell_sandbox_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int hotcell_create(struct hotcell *h, const struct hotcell_config *config,
		   struct hotcell_sandbox **ret, struct hotcell_error *e)
{
	struct str lists[3] = {STR_INIT(RECORD_MAX), STR_INIT(RECORD_MAX), STR_INIT(RECORD_MAX)};
	struct rec_sandbox_create rec;
	struct hotcell_config c;
	char request[ID_TEXT];
	struct id id;
	int r = api_options(config, &c, sizeof(c), "hotcell_config", api_err(e));

	rec = (struct rec_sandbox_create){
		.name = span_of(c.name),
		.template = span_of(c.template_name),
		.isolation = span_of(c.isolation),
		.vcpus = c.vcpus,
		.memory_mb = c.memory_mib,
		.disk_mb = c.disk_mib,
		.pids_max = c.pids_max,
		.idle_timeout_ms = c.idle_timeout_ms,
		.lifetime_ms = c.lifetime_ms,
		.ephemeral = c.ephemeral,
		.snapshot = span_of(c.snapshot),
		.disk_only = c.disk_only,
		.cold = c.cold,
		.idle_never = c.idle_never,
	};
	if (r == 0)
		r = with_lists(&c, &rec, lists, api_err(e));
	if (r == 0 && sys_random(&id, sizeof(id)) < 0)
		r = err_set(api_err(e), ERR_INTERNAL, "no random numbers");
	if (r == 0) {
		id_format(&id, request);
		rec.request_id = span_of(request);
		r = create(h, &c, &rec, ret, api_err(e));
	}
	for (size_t i = 0; i < ARRAY_LEN(lists); i++)
		str_deinit(&lists[i]);
	return r;
}

int hotcell_create_default(struct hotcell *h, struct hotcell_sandbox **ret, struct hotcell_error *e)
{
	return hotcell_create(h, NULL, ret, e);
}

int hotcell_open(struct hotcell *h, const char *id, struct hotcell_sandbox **ret,
		 struct hotcell_error *e)
{
	struct hotcell_sandbox *s = new_handle(h);
	struct rec_sandbox_ref ref = {span_of(id)};
	int r = api_sandbox_ask(s, METHOD_SANDBOX_INFO, &ref, api_err(e));

	if (r < 0) {
		hotcell_sandbox_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int hotcell_with_sandbox(struct hotcell *h, const char *id,
			 int (*fn)(struct hotcell_sandbox *s, void *arg, struct hotcell_error *e),
			 void *arg, struct hotcell_error *e)
{
	struct hotcell_sandbox *s;
	int r = hotcell_open(h, id, &s, e);

	if (r < 0)
		return r;
	r = fn(s, arg, e);
	hotcell_sandbox_close(s);
	return r;
}

int hotcell_destroy(struct hotcell *h, const char *id, struct hotcell_error *e)
{
	struct rec_sandbox_ref ref = {span_of(id)};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(h->conn, METHOD_SANDBOX_REMOVE, &ref, &bytes, NULL, api_err(e));

	str_deinit(&bytes);
	return r;
}

int hotcell_sandbox_destroy(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	int r;

	if (!s)
		return 0;
	r = hotcell_destroy(s->h, s->id, e);
	hotcell_sandbox_close(s);
	return r;
}

int hotcell_sandbox_refresh(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	struct rec_sandbox_ref ref = {span_of(s->id)};

	return api_sandbox_ask(s, METHOD_SANDBOX_INFO, &ref, api_err(e));
}

bool hotcell_sandbox_is_healthy(struct hotcell_sandbox *s)
{
	struct rec_sandbox_ref ref = {span_of(s->id)};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(s->h->conn, METHOD_GUEST_PING, &ref, &bytes, NULL, NULL);

	str_deinit(&bytes);
	return r == 0;
}

/* ---- lists ---- */

int api_on_sandbox(void *arg, const void *item, struct err *e)
{
	struct hotcell_list *l = arg;
	struct hotcell_sandbox *s;
	int r;

	if (l->n >= SANDBOXES_MAX)
		return err_set(e, ERR_LIMIT, "more than %d sandboxes", SANDBOXES_MAX);
	if (l->n == l->cap) {
		struct hotcell_sandbox **bigger;

		l->cap = l->cap ? 2 * l->cap : 16;
		bigger = realloc(l->items, l->cap * sizeof(*bigger));
		if (!bigger)
			return err_set(e, ERR_LIMIT, "out of memory");
		l->items = bigger;
	}
	s = new_handle(l->h);
	l->items[l->n++] = s;
	r = rec_encode(&rec_sandbox_info_type, item, &s->bytes, e);
	if (r == 0)
		r = rec_decode(&rec_sandbox_info_type, s->bytes.p, s->bytes.len, &s->info, e);
	if (r == 0)
		fill(s);
	return r;
}

int hotcell_list(struct hotcell *h, struct hotcell_list **ret, struct hotcell_error *e)
{
	struct hotcell_list *l = mem_new(sizeof(*l));
	struct rec_empty nothing = {0};
	int r;

	l->h = h;
	r = conn_items(h->conn, METHOD_SANDBOX_LIST, &nothing, api_on_sandbox, l, api_err(e));
	if (r < 0) {
		hotcell_list_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

size_t hotcell_list_count(const struct hotcell_list *l)
{
	return l->n;
}

struct hotcell_sandbox *hotcell_list_get(const struct hotcell_list *l, size_t i)
{
	return i < l->n ? l->items[i] : NULL;
}

void hotcell_list_free(struct hotcell_list *l)
{
	if (!l)
		return;
	for (size_t i = 0; i < l->n; i++)
		hotcell_sandbox_close(l->items[i]);
	free(l->items);
	free(l);
}

int hotcell_count(struct hotcell *h, size_t *ret, struct hotcell_error *e)
{
	struct hotcell_list *l;
	int r = hotcell_list(h, &l, e);

	if (r < 0)
		return r;
	*ret = l->n;
	hotcell_list_free(l);
	return 0;
}

int hotcell_exists(struct hotcell *h, const char *id, bool *ret, struct hotcell_error *e)
{
	struct hotcell_sandbox *s;
	int r = hotcell_open(h, id, &s, e);

	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	*ret = r == 0;
	if (r == 0)
		hotcell_sandbox_close(s);
	return 0;
}

int hotcell_destroy_all(struct hotcell *h, struct hotcell_error *e)
{
	struct hotcell_list *l;
	int first = 0, r = hotcell_list(h, &l, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < l->n; i++) {
		struct hotcell_error why;

		r = hotcell_destroy(h, l->items[i]->id, &why);
		if (r < 0 && r != -ERR_NOT_FOUND && first == 0)
			first = err_copy(api_err(e), api_err(&why));
	}
	hotcell_list_free(l);
	return first;
}

/* ---- accessors ---- */

const char *hotcell_sandbox_id(const struct hotcell_sandbox *s)
{
	return s->id;
}

const char *hotcell_sandbox_name(const struct hotcell_sandbox *s)
{
	return s->name;
}

enum hotcell_state hotcell_sandbox_state(const struct hotcell_sandbox *s)
{
	static const char *const names[] = {[HOTCELL_CREATING] = "creating",
					    [HOTCELL_READY] = "running",
					    [HOTCELL_PAUSED] = "paused",
					    [HOTCELL_STOPPING] = "stopping"};

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (span_is(s->info.state, names[i]))
			return (enum hotcell_state)i;
	return HOTCELL_FAILED;
}

const char *hotcell_sandbox_wall(const struct hotcell_sandbox *s)
{
	return s->wall;
}

const char *hotcell_sandbox_template(const struct hotcell_sandbox *s)
{
	return s->template;
}

uint32_t hotcell_sandbox_vcpus(const struct hotcell_sandbox *s)
{
	return (uint32_t)s->info.vcpus;
}

uint32_t hotcell_sandbox_memory_mib(const struct hotcell_sandbox *s)
{
	return (uint32_t)s->info.memory_mb;
}

uint64_t hotcell_sandbox_created_ms(const struct hotcell_sandbox *s)
{
	return s->info.created_ms;
}

const char *hotcell_sandbox_json(const struct hotcell_sandbox *s)
{
	return str_text(&s->json);
}
