/* base/list.h - circular list of embedded links; a list head is a link too */
#pragma once
#include <stdbool.h>
#include "base/macro.h"

struct list {
	struct list *next, *prev;
};

/* A detached link points to itself, so list_del() twice is harmless. */
static inline void list_init(struct list *l)
{
	l->next = l->prev = l;
}

static inline bool list_empty(const struct list *l)
{
	return l->next == l;
}

static inline void list_add_tail(struct list *head, struct list *l)
{
	l->prev = head->prev;
	l->next = head;
	head->prev->next = l;
	head->prev = l;
}

static inline void list_del(struct list *l)
{
	l->prev->next = l->next;
	l->next->prev = l->prev;
	list_init(l);
}

/* Move everything from @from to the empty list @to: walk a list that callbacks may change. */
static inline void list_take(struct list *from, struct list *to)
{
	list_init(to);
	if (list_empty(from))
		return;
	*to = *from;
	to->next->prev = to;
	to->prev->next = to;
	list_init(from);
}

#define LIST_ENTRY(ptr, type, member) CONTAINER_OF(ptr, type, member)

#define LIST_FOR_EACH(pos, head)                                                                   \
	for (struct list *pos = (head)->next; pos != (head); pos = pos->next)

/* As above; the body may remove @pos (and only @pos). */
#define LIST_FOR_EACH_SAFE(pos, head)                                                              \
	for (struct list *pos = (head)->next, *pos##_next_ = pos->next; pos != (head);             \
	     pos = pos##_next_, pos##_next_ = pos->next)
