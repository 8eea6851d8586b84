/*
 * engine/recover.c - what the daemon before left: records and machines
 *
 *	record, machine		adopt it
 *	record, no machine	undo what is left, keep the reason
 *	no record, machine	release it: its creator died before STORE-2, or its row was lost
 *
 * The keeper's list is taken before anything new is started, so a machine that
 * is not in it ran for nobody.
 */
#include <stdlib.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "engine/engine_int.h"
#include "engine/log.h"
#include "engine/sandbox.h"
#include "store/store.h"
#include "wire/gen/records.h"

/* A machine without a record. */
struct stray {
	struct list link;
	struct engine *engine;
	struct keeper_call call;
};

static void load_row(void *arg, const struct store_sandbox *row)
{
	sandbox_load(arg, row);
}

static void stray_released(struct keeper_call *c, const struct err *why)
{
	struct stray *st = CONTAINER_OF(c, struct stray, call);
	struct engine *g = st->engine;

	if (why)
		log_line(g->host, g->loop, "error", "stray_machine", NULL, "text", why->text, NULL);
	list_del(&st->link);
	free(st);
	engine_recovered(g);
}

static void release_stray(struct engine *g, const struct id *id)
{
	struct stray *st = mem_new(sizeof(*st));
	char text[ID_TEXT];

	id_format(id, text);
	log_line(g->host, g->loop, "warn", "stray_machine", text, "text",
		 "no record knows it: ended", NULL);
	*st = (struct stray){.engine = g, .call.done = stray_released};
	if (keeper_release(g->keeper, id, &st->call, NULL) < 0) {
		free(st); /* the keeper is going: `lost` follows */
		return;
	}
	list_add_tail(&g->strays, &st->link);
	g->recovering++;
}

static void each_machine(struct keeper_list_call *c, const struct rec_machine_info *m)
{
	struct engine *g = CONTAINER_OF(c, struct engine, list_call);
	struct map_node *node = map_find(&g->by_id, m->id.b, ID_BYTES);
	struct sandbox *sb = node ? CONTAINER_OF(node, struct sandbox, by_id) : NULL;

	if (!sb) {
		release_stray(g, &m->id);
		return;
	}
	sb->was_listed = true;
	if (m->gone) {
		err_set(&sb->machine_ended, ERR_GONE, "its machine ended: %.*s (while no daemon ran)",
			(int)m->reason.n, m->reason.p ? m->reason.p : "");
		sandbox_explain_end(sb, &sb->machine_ended);
	}
}

static void resume_all(struct engine *g)
{
	LIST_FOR_EACH_SAFE(pos, &g->sandboxes) {
		struct sandbox *sb = LIST_ENTRY(pos, struct sandbox, all);

		if (g->keeper && !sb->was_listed)
			err_set(&sb->machine_ended, ERR_GONE,
				"its machine is gone: the keeper was started anew");
		sandbox_resume(sb, &sb->machine_ended);
	}
	engine_recovered(g);
}

static void listed(struct keeper_call *c, const struct err *why)
{
	struct engine *g = CONTAINER_OF(c, struct engine, list_call.call);

	if (why)
		engine_end(g, why);
	else
		resume_all(g);
}

int recover_start(struct engine *g, struct err *e)
{
	int r = store_sandbox_each(g->store, load_row, g, e);

	if (r < 0)
		return r;
	g->recovering = 1; /* this function */
	if (!g->keeper) {
		resume_all(g);
		return 0;
	}
	g->list_call = (struct keeper_list_call){.call.done = listed, .each = each_machine};
	return keeper_list(g->keeper, &g->list_call, e);
}

void recover_drop(struct engine *g)
{
	while (!list_empty(&g->strays)) {
		struct stray *st = LIST_ENTRY(g->strays.next, struct stray, link);

		list_del(&st->link);
		free(st);
	}
}
