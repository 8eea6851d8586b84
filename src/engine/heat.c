/* engine/heat.c - whether a template is made hot unasked */
#include "engine/heat.h"
#include <stdio.h>
#include "base/macro.h"
#include "base/span.h"
#include "base/str.h"
#include "engine/engine_int.h"
#include "engine/forks.h"
#include "engine/sandbox.h"
#include "engine/sets.h"
#include "policy/policy.h"

/* What a request that names no size gets: those are the ones to come. */
static bool has_default_size(const struct sandbox *sb)
{
	const struct recipe_defaults *d = &sb->image.defaults;
	const struct policy_verdict *v = &sb->verdict;

	return (!d->vcpus || v->vcpus == d->vcpus) && (!d->memory_mb || v->memory_mb == d->memory_mb) &&
	       (!d->disk_mb || v->disk_mb == d->disk_mb);
}

static bool was_tried(const struct engine *g, const char *digest)
{
	for (unsigned i = 0; i < ENGINE_HEATED; i++)
		if (str_eq(g->heated[i], digest))
			return true;
	return false;
}

void heat_after(struct sandbox *sb)
{
	struct engine *g = sb->engine;
	const struct policy_principal who = {sb->tenant, sb->owner};

	if (!g->config->heats || sb->is_cold || sb->is_disk_only || sb->is_adopted || !str_eq(sb->path, "boot") ||
	    !(sb->driver->caps & DRIVER_CAN_CAPTURE) || !has_default_size(sb) || set_for(sb) ||
	    was_tried(g, sb->image.digest))
		return;
	span_copy(span_of(sb->image.digest), g->heated[g->n_heated++ % ENGINE_HEATED], sizeof(g->heated[0]));
	template_heat(g, &who, sb->template);
}
