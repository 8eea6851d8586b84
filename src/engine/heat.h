/*
 * engine/heat.h - templates are hot by default
 *
 * A sandbox that had to boot because its template is not hot in its own size says that the template is wanted: it is
 * made hot beside it, so that the next one is a fork. In another size than the template's, the second one says so.
 * Once per image and size in a daemon's life, whatever comes of it: one that was removed since, or can't be warmed,
 * is not built again unasked. engine_config.heats switches it.
 *
 * Private to engine/. Thread: the loop's.
 */
#pragma once
struct sandbox;

void heat_after(struct sandbox *sb); /* it runs now */
