/* loop/loop.c - epoll, a binary heap of timers, and a queue of deferred calls */
#include "loop/loop.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "base/mem.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { BATCH = 64, FIRST_HEAP = 64 };

struct loop {
	int epoll_fd, wake_fd;
	bool fake, stopped;
	uint64_t now, unix_offset_ns; /* fake: unix time at now = 0 */
	struct epoll_event batch[BATCH];
	int batch_n;
	struct loop_timer **heap; /* heap[1..heap_n] */
	size_t heap_n, heap_cap;
	struct list calls;
	pthread_mutex_t lock; /* guards posted */
	struct list posted;
	uint64_t slow_ns;
	void (*on_slow)(void *arg, uint64_t took_ns);
	void *slow_arg;
};

static uint32_t to_epoll(unsigned events)
{
	return (events & LOOP_READ ? (uint32_t)EPOLLIN | (uint32_t)EPOLLRDHUP : 0u) |
	       (events & LOOP_WRITE ? (uint32_t)EPOLLOUT : 0u);
}

static unsigned from_epoll(uint32_t events)
{
	return (events & (EPOLLIN | EPOLLRDHUP) ? LOOP_READ : 0u) |
	       (events & EPOLLOUT ? LOOP_WRITE : 0u) |
	       (events & (EPOLLHUP | EPOLLERR) ? LOOP_HANGUP : 0u);
}

int loop_new(bool fake_clock, struct loop **ret)
{
	struct loop *l = mem_new(sizeof(*l));
	struct epoll_event ev = {.events = EPOLLIN};
	int r = 0;

	l->fake = fake_clock;
	l->now = fake_clock ? 0 : sys_now_ns();
	l->unix_offset_ns = fake_clock ? 1700000000ull * NS_PER_S : 0;
	list_init(&l->calls);
	list_init(&l->posted);
	pthread_mutex_init(&l->lock, NULL);
	l->heap_cap = FIRST_HEAP;
	l->heap = mem_new(l->heap_cap * sizeof(*l->heap));
	l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epoll_fd < 0 || l->wake_fd < 0 ||
	    epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &ev) < 0)
		r = -errno;
	if (r < 0)
		l = loop_free(l);
	*ret = l;
	return r;
}

struct loop *loop_free(struct loop *l)
{
	if (!l)
		return NULL;
	(void)sys_close(l->epoll_fd);
	(void)sys_close(l->wake_fd);
	pthread_mutex_destroy(&l->lock);
	free(l->heap);
	free(l);
	return NULL;
}

uint64_t loop_now(const struct loop *l)
{
	return l->now;
}

uint64_t loop_unix_ms(const struct loop *l)
{
	return (l->fake ? l->unix_offset_ns + l->now : sys_unix_ns()) / NS_PER_MS;
}

/* ---- descriptors ---- */

int loop_io_add(struct loop *l, struct loop_io *io, int fd, unsigned events,
		void (*cb)(struct loop_io *io, unsigned events))
{
	struct epoll_event ev = {.events = to_epoll(events), .data.ptr = io};

	assert(!io->added);
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	*io = (struct loop_io){.cb = cb, .fd = fd, .events = events, .added = true};
	return 0;
}

int loop_io_set(struct loop *l, struct loop_io *io, unsigned events)
{
	struct epoll_event ev = {.events = to_epoll(events), .data.ptr = io};

	if (!io->added || io->events == events)
		return 0;
	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, io->fd, &ev) < 0)
		return -errno;
	io->events = events;
	return 0;
}

void loop_io_del(struct loop *l, struct loop_io *io)
{
	if (!io->added)
		return;
	(void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, io->fd, NULL);
	io->added = false;
	for (int i = 0; i < l->batch_n; i++) /* LOOP-1 */
		if (l->batch[i].data.ptr == io)
			l->batch[i].data.ptr = NULL;
}

/* ---- timers ---- */

static void heap_put(struct loop *l, size_t place, struct loop_timer *t)
{
	l->heap[place] = t;
	t->place = place;
}

static void sift_up(struct loop *l, size_t i)
{
	struct loop_timer *t = l->heap[i];

	for (; i > 1 && l->heap[i / 2]->at_ns > t->at_ns; i /= 2)
		heap_put(l, i, l->heap[i / 2]);
	heap_put(l, i, t);
}

static void sift_down(struct loop *l, size_t i)
{
	struct loop_timer *t = l->heap[i];

	for (;;) {
		size_t kid = 2 * i;

		if (kid > l->heap_n)
			break;
		if (kid < l->heap_n && l->heap[kid + 1]->at_ns < l->heap[kid]->at_ns)
			kid++;
		if (l->heap[kid]->at_ns >= t->at_ns)
			break;
		heap_put(l, i, l->heap[kid]);
		i = kid;
	}
	heap_put(l, i, t);
}

void loop_timer_cancel(struct loop *l, struct loop_timer *t)
{
	size_t place = t->place;
	struct loop_timer *last;

	if (!place)
		return;
	t->place = 0;
	last = l->heap[l->heap_n--];
	if (last == t)
		return;
	heap_put(l, place, last);
	sift_up(l, place);
	sift_down(l, last->place);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ns,
		    void (*cb)(struct loop_timer *t))
{
	loop_timer_cancel(l, t);
	if (l->heap_n + 2 > l->heap_cap) {
		struct loop_timer **bigger = mem_new(2 * l->heap_cap * sizeof(*bigger));

		for (size_t i = 1; i <= l->heap_n; i++)
			bigger[i] = l->heap[i];
		free(l->heap);
		l->heap = bigger;
		l->heap_cap *= 2;
	}
	t->cb = cb;
	t->at_ns = at_ns;
	heap_put(l, ++l->heap_n, t);
	sift_up(l, l->heap_n);
}

static void run_timers(struct loop *l)
{
	/* No more than are set now: one that sets itself again for at once must not hold the loop. */
	for (size_t n = l->heap_n; n && l->heap_n && l->heap[1]->at_ns <= l->now; n--) {
		struct loop_timer *t = l->heap[1];

		loop_timer_cancel(l, t);
		t->cb(t);
	}
}

/* ---- deferred calls ---- */

void loop_defer(struct loop *l, struct loop_call *c, void (*cb)(struct loop_call *c))
{
	c->cb = cb;
	if (c->queued)
		return;
	c->queued = true;
	list_add_tail(&l->calls, &c->link);
}

void loop_call_cancel(struct loop *l, struct loop_call *c)
{
	pthread_mutex_lock(&l->lock); /* it may still be among the posted ones */
	if (c->queued) {
		c->queued = false;
		list_del(&c->link);
	}
	pthread_mutex_unlock(&l->lock);
}

void loop_post(struct loop *l, struct loop_call *c, void (*cb)(struct loop_call *c))
{
	uint64_t one = 1;

	pthread_mutex_lock(&l->lock);
	assert(!c->queued);
	c->cb = cb;
	c->queued = true;
	list_add_tail(&l->posted, &c->link);
	pthread_mutex_unlock(&l->lock);
	(void)!write(l->wake_fd, &one, sizeof(one)); /* full counter: it wakes all the same */
}

static void take_posted(struct loop *l)
{
	struct list taken;

	pthread_mutex_lock(&l->lock);
	list_take(&l->posted, &taken);
	pthread_mutex_unlock(&l->lock);
	while (!list_empty(&taken)) {
		struct list *first = taken.next;

		list_del(first);
		list_add_tail(&l->calls, first);
	}
}

static void run_calls(struct loop *l)
{
	struct list turn;

	take_posted(l);
	list_take(&l->calls, &turn); /* LOOP-2: what these add runs next turn */
	while (!list_empty(&turn)) {
		struct loop_call *c = LIST_ENTRY(turn.next, struct loop_call, link);

		list_del(&c->link);
		c->queued = false;
		c->cb(c);
	}
}

/* ---- turns ---- */

static int wait_ms(struct loop *l, int timeout_ms)
{
	uint64_t ms;

	if (!list_empty(&l->calls))
		return 0;
	if (!l->heap_n || l->fake)
		return timeout_ms;
	if (l->heap[1]->at_ns <= l->now)
		return 0;
	ms = (l->heap[1]->at_ns - l->now + NS_PER_MS - 1) / NS_PER_MS;
	if (ms > 3600000)
		ms = 3600000;
	return timeout_ms < 0 || ms < (uint64_t)timeout_ms ? (int)ms : timeout_ms;
}

static void drain_wake(struct loop *l)
{
	uint64_t count;

	(void)!read(l->wake_fd, &count, sizeof(count));
}

void loop_on_slow(struct loop *l, uint64_t ns, void (*cb)(void *arg, uint64_t took_ns), void *arg)
{
	l->slow_ns = ns;
	l->on_slow = cb;
	l->slow_arg = arg;
}

static void tell_slow(struct loop *l)
{
	uint64_t took_ns = sys_now_ns() - l->now;

	if (took_ns >= l->slow_ns)
		l->on_slow(l->slow_arg, took_ns);
}

int loop_turn(struct loop *l, int timeout_ms)
{
	int n;

	if (!l->fake)
		l->now = sys_now_ns();
	n = epoll_wait(l->epoll_fd, l->batch, BATCH, wait_ms(l, timeout_ms));
	if (n < 0 && errno != EINTR)
		return -errno;
	if (!l->fake)
		l->now = sys_now_ns();
	l->batch_n = n < 0 ? 0 : n;
	for (int i = 0; i < l->batch_n; i++) {
		struct loop_io *io = l->batch[i].data.ptr;
		unsigned events = from_epoll(l->batch[i].events);

		if (io)
			io->cb(io, events);
		else
			drain_wake(l); /* the wake descriptor has no source; so look removed ones */
	}
	l->batch_n = 0;
	run_timers(l);
	run_calls(l);
	if (l->on_slow && !l->fake)
		tell_slow(l);
	return 0;
}

void loop_advance(struct loop *l, uint64_t ns)
{
	uint64_t end = l->now + ns;

	assert(l->fake);
	while (l->heap_n && l->heap[1]->at_ns <= end) {
		l->now = MAX(l->now, l->heap[1]->at_ns);
		(void)loop_turn(l, 0);
	}
	l->now = end;
	(void)loop_turn(l, 0);
}

int loop_run(struct loop *l)
{
	int r = 0;

	l->stopped = false;
	while (!l->stopped && r == 0)
		r = loop_turn(l, -1);
	return r;
}

void loop_stop(struct loop *l)
{
	l->stopped = true;
}
