/* loop/t_loop.c - descriptors, timers, deferred and posted calls, worker threads */
#include "loop/loop.h"
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include "base/mem.h"
#include "base/testing.h"
#include "loop/work.h"
#include "sys/fd.h"

static struct loop *fake(void)
{
	struct loop *l;

	assert_int_equal(loop_new(true, &l), 0);
	return l;
}

/* ---- timers ---- */

struct tick {
	struct loop_timer t;
	struct loop *l;
	struct tick *cancels;
	uint64_t again_in, fired_at;
	unsigned fired, order;
	unsigned *counter;
};

static void on_tick(struct loop_timer *t)
{
	struct tick *k = CONTAINER_OF(t, struct tick, t);

	k->fired++;
	k->fired_at = loop_now(k->l);
	if (k->counter)
		k->order = ++*k->counter;
	if (k->cancels)
		loop_timer_cancel(k->l, &k->cancels->t);
	if (k->again_in != UINT64_MAX)
		loop_timer_set(k->l, t, loop_now(k->l) + k->again_in, on_tick);
}

static struct tick tick(struct loop *l)
{
	return (struct tick){ .l = l, .again_in = UINT64_MAX };
}

/* Against sorting: set, moved and cancelled at random, they fire once, in order, at their time. */
static void timers_fire_in_order_at_their_time(void **state)
{
	enum { N = 1000 };
	static struct tick ticks[N];
	static bool live[N];
	struct loop *l = fake();
	unsigned counter = 0;
	uint64_t seed = 11;

	T_UNUSED(state);
	for (int i = 0; i < N; i++) {
		ticks[i] = tick(l);
		ticks[i].counter = &counter;
	}
	for (int i = 0; i < 10 * N; i++) {
		size_t j = t_random(&seed) % N;

		live[j] = t_random(&seed) % 3 != 0;
		if (live[j])
			loop_timer_set(l, &ticks[j].t, 1 + t_random(&seed) % 1000000, on_tick);
		else
			loop_timer_cancel(l, &ticks[j].t);
	}
	loop_advance(l, 2000000);
	for (int i = 0; i < N; i++) {
		assert_int_equal(ticks[i].fired, live[i]);
		if (live[i])
			assert_int_equal(ticks[i].fired_at, ticks[i].t.at_ns);
		for (int j = 0; j < i; j++)
			if (live[i] && live[j] && ticks[i].t.at_ns < ticks[j].t.at_ns)
				assert_true(ticks[i].order < ticks[j].order);
	}
	loop_free(l);
}

static void time_stands_still_but_for_advance(void **state)
{
	struct loop *l = fake();
	struct tick a = tick(l);
	uint64_t wall = loop_unix_ms(l);

	T_UNUSED(state);
	loop_timer_set(l, &a.t, loop_now(l) + 5 * NS_PER_MS, on_tick);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(loop_now(l), 0);
	loop_advance(l, 5 * NS_PER_MS - 1);
	assert_int_equal(a.fired, 0);
	loop_advance(l, 1);
	assert_int_equal(a.fired, 1);
	assert_int_equal(loop_unix_ms(l) - wall, 5);
	loop_advance(l, NS_PER_S);
	assert_int_equal(a.fired, 1);
	loop_free(l);
}

static void a_timer_may_move_or_cancel_any(void **state)
{
	struct loop *l = fake();
	struct tick a = tick(l), b = tick(l), c = tick(l);

	T_UNUSED(state);
	a.cancels = &b;
	a.again_in = 10;
	loop_timer_set(l, &a.t, 10, on_tick);
	loop_timer_set(l, &b.t, 11, on_tick);
	loop_timer_set(l, &c.t, 50, on_tick);
	loop_timer_set(l, &c.t, 12, on_tick);
	loop_advance(l, 100);
	assert_int_equal(a.fired, 10);
	assert_int_equal(b.fired, 0);
	assert_int_equal(c.fired, 1);
	assert_int_equal(c.fired_at, 12);
	loop_timer_cancel(l, &a.t);
	loop_timer_cancel(l, &a.t);
	loop_advance(l, 100);
	assert_int_equal(a.fired, 10);
	loop_free(l);
}

/* One that sets itself again for at once must leave room for others in every turn. */
static void an_impatient_timer_does_not_hold_the_loop(void **state)
{
	struct loop *l = fake();
	struct tick a = tick(l), b = tick(l);

	T_UNUSED(state);
	a.again_in = 0;
	loop_timer_set(l, &a.t, 0, on_tick);
	loop_timer_set(l, &b.t, 0, on_tick);
	for (int i = 0; i < 10; i++)
		assert_int_equal(loop_turn(l, 0), 0);
	assert_true(a.fired >= 10 && a.fired <= 20);
	assert_int_equal(b.fired, 1);
	loop_free(l);
}

static void real_time_passes(void **state)
{
	struct loop *l;
	struct tick a;
	uint64_t start;

	T_UNUSED(state);
	assert_int_equal(loop_new(false, &l), 0);
	a = tick(l);
	start = loop_now(l);
	loop_timer_set(l, &a.t, start + 5 * NS_PER_MS, on_tick);
	while (!a.fired)
		assert_int_equal(loop_turn(l, 10000), 0);
	assert_true(a.fired_at >= start + 5 * NS_PER_MS); /* never early */
	loop_free(l);
}

/* ---- descriptors ---- */

struct ear {
	struct loop_io io;
	struct loop *l;
	struct ear *silences;
	unsigned heard, events;
	bool del_self;
};

static void on_ear(struct loop_io *io, unsigned events)
{
	struct ear *e = CONTAINER_OF(io, struct ear, io);
	char c;

	e->heard++;
	e->events |= events;
	if (e->silences)
		loop_io_del(e->l, &e->silences->io);
	if (e->del_self)
		loop_io_del(e->l, io);
	else if (events & LOOP_READ)
		(void)!read(io->fd, &c, 1);
}

/* LOOP-1: both are ready, so both were fetched; whichever runs first removes the other. */
static void a_removed_source_is_never_called(void **state)
{
	struct loop *l = fake();
	struct ear a = { .l = l }, b = { .l = l };
	int p[2], q[2];

	T_UNUSED(state);
	assert_int_equal(sys_pipe(p), 0);
	assert_int_equal(sys_pipe(q), 0);
	a.silences = &b;
	b.silences = &a;
	assert_int_equal(loop_io_add(l, &a.io, p[0], LOOP_READ, on_ear), 0);
	assert_int_equal(loop_io_add(l, &b.io, q[0], LOOP_READ, on_ear), 0);
	assert_int_equal(sys_write(p[1], "xx", 2), 2);
	assert_int_equal(sys_write(q[1], "xx", 2), 2);
	for (int i = 0; i < 3; i++)
		assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(MIN(a.heard, b.heard), 0);
	assert_int_equal(MAX(a.heard, b.heard), 2);
	loop_io_del(l, &a.io);
	loop_io_del(l, &b.io);
	loop_io_del(l, &b.io);
	for (int i = 0; i < 2; i++) {
		(void)sys_close(p[i]);
		(void)sys_close(q[i]);
	}
	loop_free(l);
}

static void interest_can_change_and_hangups_come_unasked(void **state)
{
	struct loop *l = fake();
	struct ear a = { .l = l };
	int p[2];

	T_UNUSED(state);
	assert_int_equal(sys_pipe(p), 0);
	assert_int_equal(loop_io_add(l, &a.io, p[0], 0, on_ear), 0);
	assert_int_equal(sys_write(p[1], "x", 1), 1);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(a.heard, 0);
	assert_int_equal(loop_io_set(l, &a.io, LOOP_READ), 0);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(a.events, LOOP_READ);
	assert_int_equal(loop_io_set(l, &a.io, 0), 0);
	(void)sys_close(p[1]);
	a.del_self = true;
	assert_int_equal(loop_turn(l, 0), 0);
	assert_true(a.events & LOOP_HANGUP);
	assert_int_equal(a.heard, 2);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(a.heard, 2);
	(void)sys_close(p[0]);
	assert_true(loop_io_add(l, &a.io, p[0], LOOP_READ, on_ear) < 0);
	loop_free(l);
}

/* ---- calls ---- */

struct note {
	struct loop_call c;
	struct loop *l;
	struct note *cancels;
	unsigned made, again;
};

static void on_note(struct loop_call *c)
{
	struct note *n = CONTAINER_OF(c, struct note, c);

	n->made++;
	if (n->cancels)
		loop_call_cancel(n->l, &n->cancels->c);
	if (n->again) {
		n->again--;
		loop_defer(n->l, c, on_note);
		assert_int_equal(n->c.queued, true);
	}
}

/* LOOP-2 */
static void deferred_calls_run_once_in_the_next_turn(void **state)
{
	struct loop *l = fake();
	struct note a = { .l = l, .again = 2 }, b = { .l = l }, c = { .l = l, .cancels = &b };

	T_UNUSED(state);
	loop_defer(l, &a.c, on_note);
	loop_defer(l, &a.c, on_note);
	assert_int_equal(a.made, 0);
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(loop_turn(l, -1), 0); /* never waits while calls are due */
		assert_int_equal(a.made, i);
	}
	loop_defer(l, &c.c, on_note);
	loop_defer(l, &b.c, on_note);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(c.made, 1);
	assert_int_equal(b.made, 0);
	loop_defer(l, &b.c, on_note);
	loop_call_cancel(l, &b.c);
	loop_call_cancel(l, &b.c);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(b.made, 0);
	loop_free(l);
}

enum { POSTERS = 4, POSTS = 2000 };

struct poster {
	pthread_t thread;
	struct loop *l;
	struct note notes[POSTS];
};

static void *post_all(void *arg)
{
	struct poster *p = arg;

	for (int i = 0; i < POSTS; i++)
		loop_post(p->l, &p->notes[i].c, on_note);
	return NULL;
}

static void calls_come_from_any_thread(void **state)
{
	static struct poster posters[POSTERS];
	struct loop *l;
	unsigned made;

	T_UNUSED(state);
	assert_int_equal(loop_new(false, &l), 0);
	for (int i = 0; i < POSTERS; i++) {
		memset(&posters[i], 0, sizeof(posters[i]));
		posters[i].l = l;
		assert_int_equal(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
	}
	do {
		assert_int_equal(loop_turn(l, 10000), 0);
		made = 0;
		for (int i = 0; i < POSTERS; i++)
			for (int j = 0; j < POSTS; j++)
				made += posters[i].notes[j].made;
	} while (made < POSTERS * POSTS);
	for (int i = 0; i < POSTERS; i++)
		pthread_join(posters[i].thread, NULL);
	assert_int_equal(loop_turn(l, 0), 0);
	for (int i = 0; i < POSTERS; i++)
		for (int j = 0; j < POSTS; j++)
			assert_int_equal(posters[i].notes[j].made, 1);
	loop_free(l);
}

static void a_posted_call_can_be_cancelled(void **state)
{
	struct loop *l = fake();
	struct note a = { .l = l }, b = { .l = l };

	T_UNUSED(state);
	loop_post(l, &a.c, on_note);
	loop_post(l, &b.c, on_note);
	loop_call_cancel(l, &a.c);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(a.made, 0);
	assert_int_equal(b.made, 1);
	loop_free(l);
}

static void stop(struct loop_call *c)
{
	loop_stop(CONTAINER_OF(c, struct note, c)->l);
}

static void run_ends_at_stop(void **state)
{
	struct loop *l = fake();
	struct note a = { .l = l };

	T_UNUSED(state);
	loop_defer(l, &a.c, stop);
	assert_int_equal(loop_run(l), 0);
	loop_free(l);
}

/* ---- worker threads ---- */

struct job {
	struct work w;
	pthread_t ran_on;
	atomic_uint ran;
	unsigned done;
};

static void job_run(struct work *w)
{
	struct job *j = CONTAINER_OF(w, struct job, w);

	j->ran_on = pthread_self();
	atomic_fetch_add(&j->ran, 1);
}

static void job_done(struct work *w)
{
	CONTAINER_OF(w, struct job, w)->done++;
}

static void jobs_run_elsewhere_and_answer_here(void **state)
{
	enum { N = 500 };
	static struct job jobs[N];
	struct work_pool *p;
	struct loop *l;
	unsigned done;

	T_UNUSED(state);
	memset(jobs, 0, sizeof(jobs));
	assert_int_equal(loop_new(false, &l), 0);
	assert_int_equal(work_pool_new(l, 3, &p), 0);
	for (int i = 0; i < N; i++) {
		jobs[i].w = (struct work){ .run = job_run, .done = job_done };
		work_submit(p, &jobs[i].w);
		assert_int_equal(jobs[i].done, 0);
	}
	do {
		assert_int_equal(loop_turn(l, 10000), 0);
		done = 0;
		for (int i = 0; i < N; i++)
			done += jobs[i].done;
	} while (done < N);
	for (int i = 0; i < N; i++) {
		assert_int_equal(atomic_load(&jobs[i].ran), 1);
		assert_int_equal(jobs[i].done, 1);
		assert_false(pthread_equal(jobs[i].ran_on, pthread_self()));
	}
	work_pool_free(p);
	loop_free(l);
}

struct gate {
	struct job job;
	int fd;
};

static void gate_run(struct work *w)
{
	struct gate *g = CONTAINER_OF(w, struct gate, job.w);
	char c;

	(void)!read(g->fd, &c, 1);
	atomic_fetch_add(&g->job.ran, 1);
}

/*
 * What was submitted has run when the pool is freed, and nothing is answered
 * any more, be it that it ends meanwhile or that it ended before the loop looked.
 */
static void a_freed_pool_answers_nothing(void **state)
{
	struct job *early = mem_new(sizeof(*early)), *queued = mem_new(sizeof(*queued));
	struct gate *g = mem_new(sizeof(*g));
	struct work_pool *p;
	struct loop *l;
	int go[2];

	T_UNUSED(state);
	assert_int_equal(sys_pipe(go), 0);
	assert_int_equal(loop_new(false, &l), 0);
	assert_int_equal(work_pool_new(l, 1, &p), 0);
	early->w = queued->w = (struct work){ .run = job_run, .done = job_done };
	g->job.w = (struct work){ .run = gate_run, .done = job_done };
	g->fd = go[0];
	work_submit(p, &early->w);
	while (!atomic_load(&early->ran))
		sched_yield();
	work_submit(p, &g->job.w);
	work_submit(p, &queued->w);
	assert_int_equal(write(go[1], "g", 1), 1);
	work_pool_free(p);
	assert_int_equal(atomic_load(&early->ran), 1);
	assert_int_equal(atomic_load(&g->job.ran), 1);
	assert_int_equal(atomic_load(&queued->ran), 1);
	assert_int_equal(early->done + g->job.done + queued->done, 0);
	free(early);
	free(queued);
	free(g);
	assert_int_equal(loop_turn(l, 0), 0); /* would walk into what is freed */
	loop_free(l);
	(void)sys_close(go[0]);
	(void)sys_close(go[1]);
}

/* ---- slow turns ---- */

static void count_slow(void *arg, uint64_t took_ns)
{
	unsigned *n = arg;

	T_UNUSED(took_ns);
	++*n;
}

static void a_slow_turn_is_told(void **state)
{
	struct loop *l;
	unsigned n = 0;

	T_UNUSED(state);
	assert_int_equal(loop_new(false, &l), 0);
	loop_on_slow(l, UINT64_MAX, count_slow, &n);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(n, 0);
	loop_on_slow(l, 0, count_slow, &n); /* whatever it took was long */
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(n, 1);
	loop_on_slow(l, 0, NULL, NULL);
	assert_int_equal(loop_turn(l, 0), 0);
	assert_int_equal(n, 1);
	loop_free(l);
}

T_MAIN(T(timers_fire_in_order_at_their_time), T(time_stands_still_but_for_advance),
       T(a_timer_may_move_or_cancel_any), T(an_impatient_timer_does_not_hold_the_loop), T(real_time_passes),
       T(a_removed_source_is_never_called), T(interest_can_change_and_hangups_come_unasked),
       T(deferred_calls_run_once_in_the_next_turn), T(calls_come_from_any_thread), T(a_posted_call_can_be_cancelled),
       T(run_ends_at_stop), T(a_slow_turn_is_told), T(jobs_run_elsewhere_and_answer_here),
       T(a_freed_pool_answers_nothing))
