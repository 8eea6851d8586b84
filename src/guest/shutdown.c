/* guest/shutdown.c - guest.shutdown: TERM, a grace, KILL, and the end */
#include <signal.h>
#include "base/err.h"
#include "guest/agent.h"
#include "guest/session.h"
#include "loop/link.h"
#include "wire/gen/records.h"

static const uint64_t LOOK_NS = 10 * NS_PER_MS;

static void finish(struct agent *a)
{
	struct rec_empty none = {0};
	struct stream *s = a->shutdown_call;

	a->shutdown_call = NULL;
	(void)kill(-1, SIGKILL); /* in a machine, kernel threads don't mind */
	if (s)
		agent_answer(s, &rec_empty_type, &none, 0, NULL);
	a->end = AGENT_SHUTDOWN;
	loop_stop(a->loop);
}

static void look(struct loop_timer *t)
{
	struct agent *a = CONTAINER_OF(t, struct agent, killing);
	uint64_t now = loop_now(a->loop);
	bool empty = sessions_running(a->sessions) == 0 && cgroups_background_empty(&a->cgroups);

	if (empty || now >= a->shutdown_deadline_ns)
		finish(a);
	else
		loop_timer_set(a->loop, &a->killing, now + LOOK_NS, look);
}

static void on_closed(struct stream *s, const struct err *why)
{
	struct agent *a = stream_arg(s);

	(void)why;
	a->shutdown_call = NULL; /* who asked has left; it goes on */
}

static const struct stream_ops ops = {.closed = on_closed};

void guest_shutdown_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_guest_shutdown *rq = rec;
	static const struct err again = {ERR_CONFLICT, "the sandbox is already ending"};

	if (a->shutdown_deadline_ns) {
		stream_fail(s, &again);
		return;
	}
	a->shutdown_call = s;
	stream_accept(s, &ops, a);
	a->shutdown_deadline_ns = loop_now(a->loop) + rq->grace_ms * NS_PER_MS;
	(void)kill(-1, SIGTERM); /* all but ourselves; the reaper, as process 1, is deaf to it */
	(void)kill(-1, SIGCONT); /* a stopped program can't hear the first */
	look(&a->killing);
}
