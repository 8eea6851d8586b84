/* base/map.h - hash table of embedded nodes; the key lives in the owner */
#pragma once
#include <stddef.h>
#include <stdint.h>

/*
 * The owner keeps node and key alive while the node is in the map, and the key
 * unchanged. Keys may come from outside: the hash is keyed by a seed, so that
 * nobody can choose names that collide.
 */
struct map_node {
	struct map_node *next;
	const void *key; /* lent */
	size_t n;
	uint64_t hash;
};

struct map {
	struct map_node **buckets; /* owned */
	size_t cap, used;	   /* cap: 0 or a power of two */
	uint64_t seed;
};

#define MAP_INIT(seed_) {.seed = (seed_)}

void map_deinit(struct map *m); /* nodes are forgotten, not freed */

/* Add @node under @key; the key must not be in the map yet. */
void map_add(struct map *m, struct map_node *node, const void *key, size_t n);
struct map_node *map_find(const struct map *m, const void *key, size_t n); /* NULL: none */
void map_del(struct map *m, struct map_node *node);			   /* not in it: fine */
