/* base/t_map.c - what base/map.h promises */
#include "base/map.h"
#include "base/testing.h"

enum { MANY = 5000 };

struct thing {
	struct map_node node;
	char name[16];
};

static void finds_what_was_added_and_nothing_else(void **state)
{
	struct map m = MAP_INIT(7);
	struct thing *all = calloc(MANY, sizeof(*all));

	T_UNUSED(state);
	assert_null(map_find(&m, "x", 1));
	for (int i = 0; i < MANY; i++) {
		(void)snprintf(all[i].name, sizeof(all[i].name), "n%d", i);
		map_add(&m, &all[i].node, all[i].name, strlen(all[i].name));
	}
	assert_int_equal(m.used, MANY);
	for (int i = 0; i < MANY; i += 2)
		map_del(&m, &all[i].node);
	assert_int_equal(m.used, MANY / 2);
	for (int i = 0; i < MANY; i++) {
		struct map_node *got = map_find(&m, all[i].name, strlen(all[i].name));

		assert_ptr_equal(got, i % 2 ? &all[i].node : NULL);
	}
	assert_null(map_find(&m, "n1", 1));
	map_deinit(&m);
	free(all);
}

static void removing_twice_is_harmless(void **state)
{
	struct map m = MAP_INIT(1);
	struct thing a = {.name = "a"}, never = {.name = "b"};

	T_UNUSED(state);
	map_del(&m, &never.node);
	map_add(&m, &a.node, a.name, 1);
	map_del(&m, &a.node);
	map_del(&m, &a.node);
	map_del(&m, &never.node);
	assert_int_equal(m.used, 0);
	map_add(&m, &a.node, a.name, 1);
	assert_ptr_equal(map_find(&m, "a", 1), &a.node);
	map_deinit(&m);
}

static void another_seed_is_another_order(void **state)
{
	struct map m1 = MAP_INIT(1), m2 = MAP_INIT(2);
	struct thing a = {.name = "same"}, b = {.name = "same"};

	T_UNUSED(state);
	map_add(&m1, &a.node, a.name, 4);
	map_add(&m2, &b.node, b.name, 4);
	assert_true(a.node.hash != b.node.hash);
	map_deinit(&m1);
	map_deinit(&m2);
}

T_MAIN(T(finds_what_was_added_and_nothing_else), T(removing_twice_is_harmless),
       T(another_seed_is_another_order))
