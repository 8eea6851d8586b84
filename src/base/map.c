/* base/map.c - chained hash table that doubles when it is full */
#include "base/map.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"

enum { FIRST_CAP = 64 };

static uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Eight bytes at a time through a keyed mixer: a stranger cannot aim without the seed. */
static uint64_t hash_of(const struct map *m, const void *key, size_t n)
{
	const unsigned char *p = key;
	uint64_t h = mix(m->seed + n), word;

	for (; n >= sizeof(word); p += sizeof(word), n -= sizeof(word)) {
		memcpy(&word, p, sizeof(word));
		h = mix(h ^ (word + m->seed));
	}
	word = 0;
	if (n)
		memcpy(&word, p, n);
	return mix(h ^ (word + m->seed));
}

static struct map_node **bucket(const struct map *m, uint64_t hash)
{
	return &m->buckets[hash & (m->cap - 1)];
}

static void push(struct map *m, struct map_node *node)
{
	struct map_node **b = bucket(m, node->hash);

	node->next = *b;
	*b = node;
}

static void grow(struct map *m)
{
	struct map old = *m;

	m->cap = old.cap ? 2 * old.cap : FIRST_CAP;
	m->buckets = mem_new(m->cap * sizeof(*m->buckets));
	for (size_t i = 0; i < old.cap; i++)
		for (struct map_node *node = old.buckets[i], *next; node; node = next) {
			next = node->next;
			push(m, node);
		}
	free(old.buckets);
}

void map_deinit(struct map *m)
{
	free(m->buckets);
	*m = (struct map){.seed = m->seed};
}

void map_add(struct map *m, struct map_node *node, const void *key, size_t n)
{
	assert(!map_find(m, key, n));
	if (m->used >= m->cap)
		grow(m);
	*node = (struct map_node){.key = key, .n = n, .hash = hash_of(m, key, n)};
	push(m, node);
	m->used++;
}

struct map_node *map_find(const struct map *m, const void *key, size_t n)
{
	uint64_t hash = hash_of(m, key, n);

	if (!m->cap)
		return NULL;
	for (struct map_node *node = *bucket(m, hash); node; node = node->next)
		if (node->hash == hash && node->n == n && memcmp(node->key, key, n) == 0)
			return node;
	return NULL;
}

void map_del(struct map *m, struct map_node *node)
{
	if (!node->key || !m->cap)
		return;
	for (struct map_node **at = bucket(m, node->hash); *at; at = &(*at)->next)
		if (*at == node) {
			*at = node->next;
			m->used--;
			break;
		}
	*node = (struct map_node){0};
}
