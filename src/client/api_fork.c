/* client/api_fork.c - hotcell.h: forks, pauses, snapshots, hot templates */
#include "base/mem.h"
#include "client/api_int.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { JSON_MAX = 1048576 };

/* ---- sandboxes ---- */

int hotcell_fork(struct hotcell_sandbox *s, unsigned count, const char *name, struct hotcell_list **ret,
		 struct hotcell_error *e)
{
	const struct rec_sandbox_fork rec = {
		.sandbox = span_of(s->id), .count = count, .name = span_of(name)};
	struct hotcell_list *l;
	int r;

	if (count == 0 || count > LIMIT_FORKS)
		return err_set(api_err(e), ERR_LIMIT, "count: %u is not between 1 and %d", count, LIMIT_FORKS);
	l = mem_new(sizeof(*l));
	l->h = s->h;
	r = conn_items(s->h->conn, METHOD_SANDBOX_FORK, &rec, api_on_sandbox, l, api_err(e));
	if (r < 0) {
		hotcell_list_free(l);
		return r;
	}
	*ret = l;
	return 0;
}

int hotcell_pause(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	const struct rec_sandbox_ref ref = {span_of(s->id)};

	return api_sandbox_ask(s, METHOD_SANDBOX_PAUSE, &ref, api_err(e));
}

int hotcell_resume(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	const struct rec_sandbox_ref ref = {span_of(s->id)};

	return api_sandbox_ask(s, METHOD_SANDBOX_RESUME, &ref, api_err(e));
}

int hotcell_rollback(struct hotcell_sandbox *s, const char *snapshot, struct hotcell_error *e)
{
	const struct rec_sandbox_rollback rec = {span_of(s->id), span_of(snapshot)};

	return api_sandbox_ask(s, METHOD_SANDBOX_ROLLBACK, &rec, api_err(e));
}

/* ---- snapshots ---- */

struct hotcell_snapshot {
	char id[ID_TEXT], name[LIMIT_TEXT_SHORT + 1];
	bool is_template;
	struct str json;
};

static struct hotcell_snapshot *snapshot_new(const struct rec_snapshot_info *info)
{
	struct hotcell_snapshot *s = mem_new(sizeof(*s));

	id_format(&info->id, s->id);
	span_copy(info->name, s->name, sizeof(s->name));
	s->is_template = span_is(info->kind, "template");
	s->json = (struct str)STR_INIT(JSON_MAX);
	rec_json(&rec_snapshot_info_type, info, &s->json);
	return s;
}

static int ask(struct hotcell *h, unsigned method, const void *req, struct hotcell_snapshot **ret,
	       struct hotcell_error *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_snapshot_info info;
	int r = conn_call(h->conn, method, req, &bytes, &info, api_err(e));

	if (r == 0)
		*ret = snapshot_new(&info);
	str_deinit(&bytes);
	return r;
}

int hotcell_snapshot_create(struct hotcell_sandbox *s, const char *name, uint64_t keep_ms,
			    struct hotcell_snapshot **ret, struct hotcell_error *e)
{
	const struct rec_snapshot_create rec = {
		.sandbox = span_of(s->id), .name = span_of(name), .keep_ms = keep_ms};

	return ask(s->h, METHOD_SNAPSHOT_CREATE, &rec, ret, e);
}

int hotcell_snapshot_open(struct hotcell *h, const char *snapshot, struct hotcell_snapshot **ret,
			  struct hotcell_error *e)
{
	const struct rec_snapshot_ref ref = {span_of(snapshot)};

	return ask(h, METHOD_SNAPSHOT_INFO, &ref, ret, e);
}

int hotcell_snapshot_remove(struct hotcell *h, const char *snapshot, struct hotcell_error *e)
{
	const struct rec_snapshot_ref ref = {span_of(snapshot)};
	struct str bytes = STR_INIT(RECORD_MAX);
	int r = conn_call(h->conn, METHOD_SNAPSHOT_REMOVE, &ref, &bytes, NULL, api_err(e));

	str_deinit(&bytes);
	return r;
}

struct walk {
	int (*fn)(void *arg, const struct hotcell_snapshot *s);
	void *arg;
};

static int on_snapshot(void *arg, const void *item, struct err *e)
{
	const struct walk *w = arg;
	struct hotcell_snapshot *s = snapshot_new(item);
	int r = w->fn(w->arg, s);

	hotcell_snapshot_free(s);
	return r == 0 ? 0 : err_set(e, ERR_CANCELED, "ended by the caller");
}

int hotcell_snapshot_list(struct hotcell *h, int (*fn)(void *arg, const struct hotcell_snapshot *s),
			  void *arg, struct hotcell_error *e)
{
	const struct rec_empty nothing = {0};
	struct walk w = {fn, arg};

	return conn_items(h->conn, METHOD_SNAPSHOT_LIST, &nothing, on_snapshot, &w, api_err(e));
}

int hotcell_template_build(struct hotcell *h, const char *template_name, uint32_t vcpus, uint32_t memory_mib,
			   uint32_t disk_mib, struct hotcell_snapshot **ret, struct hotcell_error *e)
{
	const struct rec_template_build rec = {.template = span_of(template_name),
					       .vcpus = vcpus,
					       .memory_mb = memory_mib,
					       .disk_mb = disk_mib};

	return ask(h, METHOD_TEMPLATE_BUILD, &rec, ret, e);
}

const char *hotcell_snapshot_id(const struct hotcell_snapshot *s)
{
	return s->id;
}

const char *hotcell_snapshot_name(const struct hotcell_snapshot *s)
{
	return s->name;
}

bool hotcell_snapshot_is_template(const struct hotcell_snapshot *s)
{
	return s->is_template;
}

const char *hotcell_snapshot_json(const struct hotcell_snapshot *s)
{
	return str_text(&s->json);
}

void hotcell_snapshot_free(struct hotcell_snapshot *s)
{
	if (!s)
		return;
	str_deinit(&s->json);
	free(s);
}
