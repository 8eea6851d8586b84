/*
 * engine/log.h - log lines: key=value, one line, nothing from outside unescaped
 *
 *	log_line(g->host, "warn", EVENT_LINK_BROKEN, id, "why", text, NULL);
 *
 * A guest can cause at most two lines in its life (link_broken, sandbox_failed), so
 * it cannot flood the log; clients cause one per call. Thread: the loop's.
 */
#pragma once
struct engine_host;
struct loop;

/* @sandbox: id text or NULL; then pairs of key and value (values may be NULL: left out), then NULL. */
[[gnu::sentinel]] void log_line(const struct engine_host *host, const struct loop *l,
				const char *level, const char *event, const char *sandbox, ...);
