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
#include "wire/gen/records.h"

enum { HEAT_BOOTS = 2 }; /* of a size that is not the template's, until it is worth keeping hot */

/* What a request that names no size gets: those are the ones to come. */
static bool has_default_size(const struct sandbox *sb)
{
	const struct recipe_defaults *d = &sb->image.defaults;
	const struct policy_verdict *v = &sb->verdict;

	return (!d->vcpus || v->vcpus == d->vcpus) && (!d->memory_mb || v->memory_mb == d->memory_mb) &&
	       (!d->disk_mb || v->disk_mb == d->disk_mb);
}

static bool is_shape_of(const struct heat *h, const struct sandbox *sb)
{
	const struct policy_verdict *v = &sb->verdict;

	return str_eq(h->image, sb->image.digest) && h->vcpus == v->vcpus && h->memory_mb == v->memory_mb &&
	       h->disk_mb == v->disk_mb;
}

static struct heat *heat_of(struct engine *g, const struct sandbox *sb)
{
	const struct policy_verdict *v = &sb->verdict;
	struct heat *h;

	for (unsigned i = 0; i < ENGINE_HEATED; i++)
		if (is_shape_of(&g->heats[i], sb))
			return &g->heats[i];
	h = &g->heats[g->n_heats++ % ENGINE_HEATED];
	*h = (struct heat){.vcpus = v->vcpus, .memory_mb = v->memory_mb, .disk_mb = v->disk_mb};
	span_copy(span_of(sb->image.digest), h->image, sizeof(h->image));
	return h;
}

void heat_after(struct sandbox *sb)
{
	struct engine *g = sb->engine;
	const struct policy_principal who = {sb->tenant, sb->owner};
	struct heat *h;

	if (!g->config->heats || sb->is_cold || sb->is_disk_only || sb->is_adopted || !str_eq(sb->path, "boot") ||
	    !(sb->driver->caps & DRIVER_CAN_CAPTURE) || set_for(sb))
		return;
	h = heat_of(g, sb);
	if (++h->boots == (has_default_size(sb) ? 1 : HEAT_BOOTS))
		template_heat(g, &who,
			      &(struct rec_template_build){.template = span_of(sb->template),
							   .vcpus = h->vcpus,
							   .memory_mb = h->memory_mb,
							   .disk_mb = h->disk_mb,
							   .unenforced = sb->unenforced});
}
