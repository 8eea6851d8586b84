/* engine/event.c - the ring and its watchers */
#include "engine/event.h"
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/id.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/str.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

struct event {
	uint64_t seq, time_ms;
	const char *type, *step;
	char sandbox[ID_TEXT], tenant[LIMIT_TEXT_SHORT + 1];
	char *message; /* owned */
};

struct events {
	struct loop *loop;
	struct list watchers;
	uint64_t first, next; /* kept: [first, next) */
	size_t keep;
	struct event ring[];
};

struct watcher {
	struct list link;
	struct events *events;
	struct stream *stream;
	char tenant[LIMIT_TEXT_SHORT + 1];
	char sandbox[ID_TEXT]; /* "": all */
	uint64_t next;
};

struct events *events_new(struct loop *l, size_t keep, uint64_t epoch)
{
	struct events *ev = mem_new(sizeof(*ev) + keep * sizeof(ev->ring[0]));

	ev->loop = l;
	ev->keep = keep;
	ev->first = ev->next = epoch * EVENTS_PER_EPOCH + 1;
	list_init(&ev->watchers);
	return ev;
}

static struct event *at(struct events *ev, uint64_t seq)
{
	return &ev->ring[seq % ev->keep];
}

static void drop_watcher(struct watcher *w)
{
	list_del(&w->link);
	free(w);
}

struct events *events_free(struct events *ev)
{
	if (!ev)
		return NULL;
	while (!list_empty(&ev->watchers)) {
		struct watcher *w = LIST_ENTRY(ev->watchers.next, struct watcher, link);

		stream_end(w->stream);
		drop_watcher(w);
	}
	for (size_t i = 0; i < ev->keep; i++)
		free(ev->ring[i].message);
	free(ev);
	return NULL;
}

/* ---- watchers ---- */

static bool send_event(struct watcher *w, const struct event *v)
{
	struct rec_event rec = {
		.seq = v->seq,
		.time_ms = v->time_ms,
		.type = span_of(v->type),
		.sandbox = span_of(v->sandbox),
		.step = span_of(v->step),
		.message = span_of(v->message),
		.tenant = span_of(v->tenant),
	};

	if (strcmp(w->tenant, v->tenant) != 0)
		return true;
	if (w->sandbox[0] && strcmp(w->sandbox, v->sandbox) != 0)
		return true;
	return stream_send_item(w->stream, &rec_event_type, &rec);
}

static void catch_up(struct watcher *w)
{
	struct events *ev = w->events;

	if (w->next < ev->first)
		w->next = ev->first;
	while (w->next < ev->next && send_event(w, at(ev, w->next)))
		w->next++;
}

static void on_writable(struct stream *s)
{
	catch_up(stream_arg(s));
}

static void on_closed(struct stream *s, const struct err *why)
{
	(void)why;
	drop_watcher(stream_arg(s));
}

void events_watch(struct events *ev, struct stream *s, const char *tenant, const char *sandbox, uint64_t after)
{
	static const struct stream_ops ops = {.writable = on_writable, .closed = on_closed};
	struct watcher *w = mem_new(sizeof(*w));

	w->events = ev;
	w->stream = s;
	w->next = after && after < ev->next ? after + 1 : ev->next;
	span_copy(span_of(tenant), w->tenant, sizeof(w->tenant));
	if (sandbox)
		span_copy(span_of(sandbox), w->sandbox, sizeof(w->sandbox));
	list_add_tail(&ev->watchers, &w->link);
	stream_accept(s, &ops, w);
	(void)stream_reply(s, &rec_empty_type, &(struct rec_empty){0}, true, NULL, 0, NULL);
	catch_up(w);
}

/* ---- the ring ---- */

void events_add(struct events *ev, const char *tenant, const char *type, const char *sandbox,
		const char *step, const char *message)
{
	struct event *v = at(ev, ev->next);

	if (ev->next - ev->first == ev->keep)
		ev->first++;
	free(v->message);
	*v = (struct event){
		.seq = ev->next++,
		.time_ms = loop_unix_ms(ev->loop),
		.type = type,
		.step = step,
		.message = message ? mem_strndup(message, LIMIT_TEXT_MEDIUM) : NULL,
	};
	span_copy(span_of(sandbox), v->sandbox, sizeof(v->sandbox));
	span_copy(span_of(tenant), v->tenant, sizeof(v->tenant));
	/* LINK-5: sending calls nobody back, so the list stands still. */
	LIST_FOR_EACH(pos, &ev->watchers)
		catch_up(LIST_ENTRY(pos, struct watcher, link));
}

uint64_t events_last(const struct events *ev)
{
	return ev->next > ev->first ? ev->next - 1 : 0;
}
