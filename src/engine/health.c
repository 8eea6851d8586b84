/* engine/health.c - pings, misses, and what follows */
#include "engine/health.h"
#include "base/macro.h"
#include "engine/engine_int.h"
#include "engine/relay.h"
#include "engine/sandbox.h"
#include "loop/link.h"
#include "wire/gen/events.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

#define ASKER "hotcelld" /* who asks; the agent does not care */

static uint64_t interval_ns(const struct sandbox *sb)
{
	uint64_t ms = sb->engine->config->ping_ms;

	return (ms ? ms : ENGINE_PING_MS) * NS_PER_MS;
}

static bool is_asked(const struct sandbox *sb)
{
	return !list_empty(&sb->relays) || sb->health.decides;
}

/* ---- the answer ---- */

static void healed(struct sandbox *sb)
{
	struct health *h = &sb->health;

	h->missed = 0;
	if (!h->since_ms)
		return;
	h->since_ms = 0;
	engine_emit(sb->engine, "info", EVENT_SANDBOX_HEALTHY, sb, NULL, "it answers again");
}

static void decide(struct sandbox *sb, bool runs)
{
	if (!sb->health.decides)
		return;
	sb->health.decides = false;
	if (!runs) {
		sandbox_expire_idle(sb);
		return;
	}
	sandbox_touch(sb);
	sandbox_arm_timer(sb);
}

static void pong(struct stream *s, struct span payload, const int *fds, unsigned n_fds)
{
	struct sandbox *sb = stream_arg(s);
	struct rec_guest_health rec;
	struct err e = ERR_INIT;

	(void)fds;
	(void)n_fds;
	if (rec_decode(&rec_guest_health_type, payload.p, payload.n, &rec, &e) < 0) {
		err_wrap(&e, "the guest's answer to guest.ping");
		engine_emit(sb->engine, "warn", EVENT_LINK_BROKEN, sb, NULL, "%s", e.text);
		sandbox_break(sb, &e);
		return;
	}
	healed(sb);
	decide(sb, rec.sessions > 0 || rec.busy > 0);
}

static void ping_closed(struct stream *s, const struct err *why)
{
	struct sandbox *sb = stream_arg(s);

	sb->health.ping = NULL;
	if (!why || !link_is_up(stream_link(s)))
		return;
	healed(sb); /* a refusal is an answer, too */
	decide(sb, false);
}

static void ping(struct sandbox *sb)
{
	static const struct stream_ops ops = {.reply = pong, .closed = ping_closed};
	const struct rec_sandbox_ref rec = {.sandbox = span_of(ASKER)};

	if (sb->health.ping)
		return;
	(void)link_call(sb->link, METHOD_GUEST_PING, &rec_sandbox_ref_type, &rec, false, NULL, 0, &ops, sb,
			&sb->health.ping, NULL); /* no room for it: looked at again */
}

/* ---- looking ---- */

static void fall_silent(struct sandbox *sb)
{
	struct health *h = &sb->health;
	struct loop *l = sb->engine->loop;
	uint64_t silent_ms = (loop_now(l) - link_heard_ns(sb->link)) / NS_PER_MS;

	h->since_ms = loop_unix_ms(l) - silent_ms;
	h->why = (struct err)ERR_INIT;
	err_set(&h->why, ERR_UNAVAILABLE,
		"sandbox %s is unhealthy: it has not said a word for %llu s, not even when it was asked whether it "
		"lives. What runs in it may have silenced it; hotcell rm %s ends it, and of a machine hotcell rollback "
		"puts it back to a snapshot",
		sandbox_called(sb), (unsigned long long)(silent_ms / 1000), sandbox_called(sb));
	engine_emit(sb->engine, "warn", EVENT_SANDBOX_UNHEALTHY, sb, NULL, "%s", h->why.text);
	relay_end_all(&sb->relays, &h->why);
	decide(sb, false);
}

static bool lacks_room(const struct sandbox *sb)
{
	return sb->driver->lacks_room && sb->driver->lacks_room(sb->machine);
}

static void on_look(struct loop_timer *t);

static void look_later(struct sandbox *sb)
{
	struct loop *l = sb->engine->loop;

	sb->health.looked_ns = loop_now(l);
	loop_timer_set(l, &sb->health.timer, loop_now(l) + interval_ns(sb), on_look);
}

static void on_look(struct loop_timer *t)
{
	struct sandbox *sb = CONTAINER_OF(CONTAINER_OF(t, struct health, timer), struct sandbox, health);
	struct health *h = &sb->health;

	if (sb->state != SANDBOX_RUNNING || !sb->link || !link_is_up(sb->link) || !is_asked(sb) || h->since_ms)
		return;
	if (link_heard_ns(sb->link) > h->looked_ns || h->stopped_ns || lacks_room(sb)) /* HEALTH-2 */
		h->missed = 0;
	else if (h->ping && ++h->missed >= ENGINE_PING_MISSED) {
		fall_silent(sb);
		return;
	}
	if (!h->stopped_ns)
		ping(sb);
	look_later(sb);
}

/* ---- public ---- */

void health_watch(struct sandbox *sb)
{
	struct health *h = &sb->health;

	if (h->timer.place)
		return;
	h->missed = 0;
	look_later(sb);
}

void health_ask_use(struct sandbox *sb)
{
	struct health *h = &sb->health;
	uint64_t most_ns = (ENGINE_PING_MISSED + 2) * interval_ns(sb);

	if (h->since_ms || h->decides || !sb->link || !link_is_up(sb->link)) {
		sandbox_expire_idle(sb);
		return;
	}
	h->decides = true;
	sb->idle_at_ns = loop_now(sb->engine->loop) + most_ns; /* the answer comes, or fall_silent() */
	sandbox_arm_timer(sb);
	ping(sb);
	health_watch(sb);
}

void health_drop(struct sandbox *sb)
{
	struct health *h = &sb->health;

	loop_timer_cancel(sb->engine->loop, &h->timer);
	*h = (struct health){0}; /* the ping goes with the link */
}

int health_check(const struct sandbox *sb, struct err *e)
{
	return sb->health.since_ms ? err_copy(e, &sb->health.why) : 0;
}

void health_hold(struct sandbox *sb)
{
	sb->health.stopped_ns = loop_now(sb->engine->loop);
}

void health_release(struct sandbox *sb)
{
	sb->health.still_ns = health_still_ns(sb);
	sb->health.stopped_ns = 0;
	sb->health.missed = 0;
}

uint64_t health_still_ns(const struct sandbox *sb)
{
	const struct health *h = &sb->health;

	return h->still_ns + (h->stopped_ns ? loop_now(sb->engine->loop) - h->stopped_ns : 0);
}
