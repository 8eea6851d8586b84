/* loop/work.c - a bounded pool of threads; `lock` guards the lists and `closing` */
#include "loop/work.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include "base/mem.h"

struct work_pool {
	struct loop *loop;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct list queue, finished; /* to run; run, and not yet answered */
	bool closing;
	unsigned n;
	pthread_t threads[];
};

static void finish(struct loop_call *c)
{
	struct work *w = CONTAINER_OF(c, struct work, call);
	struct work_pool *p = w->pool;

	pthread_mutex_lock(&p->lock);
	list_del(&w->link);
	pthread_mutex_unlock(&p->lock);
	w->done(w);
}

static void *serve(void *arg)
{
	struct work_pool *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct work *w;

		while (list_empty(&p->queue) && !p->closing)
			pthread_cond_wait(&p->wake, &p->lock);
		if (list_empty(&p->queue))
			break;
		w = LIST_ENTRY(p->queue.next, struct work, link);
		list_del(&w->link);
		pthread_mutex_unlock(&p->lock);
		w->run(w);
		pthread_mutex_lock(&p->lock);
		list_add_tail(&p->finished, &w->link);
		loop_post(p->loop, &w->call, finish);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

struct work_pool *work_pool_free(struct work_pool *p)
{
	if (!p)
		return NULL;
	pthread_mutex_lock(&p->lock);
	p->closing = true;
	pthread_cond_broadcast(&p->wake);
	pthread_mutex_unlock(&p->lock);
	for (unsigned i = 0; i < p->n; i++)
		pthread_join(p->threads[i], NULL);
	LIST_FOR_EACH(pos, &p->finished)
		loop_call_cancel(p->loop, &LIST_ENTRY(pos, struct work, link)->call);
	pthread_cond_destroy(&p->wake);
	pthread_mutex_destroy(&p->lock);
	free(p);
	return NULL;
}

int work_pool_new(struct loop *l, unsigned threads, struct work_pool **ret)
{
	struct work_pool *p = mem_new(sizeof(*p) + threads * sizeof(p->threads[0]));
	sigset_t all, old;
	int r = 0;

	p->loop = l;
	list_init(&p->queue);
	list_init(&p->finished);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->wake, NULL);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* signals belong to the loop's thread */
	while (p->n < threads && r == 0) {
		r = -pthread_create(&p->threads[p->n], NULL, serve, p);
		if (r == 0)
			p->n++;
	}
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r < 0)
		p = work_pool_free(p);
	*ret = p;
	return r;
}

void work_submit(struct work_pool *p, struct work *w)
{
	w->pool = p;
	list_init(&w->link);
	pthread_mutex_lock(&p->lock);
	list_add_tail(&p->queue, &w->link);
	pthread_cond_signal(&p->wake);
	pthread_mutex_unlock(&p->lock);
}
