/* t_env.c - environments: the last word counts, and the size is bounded */
#include "base/err.h"
#include "base/testing.h"
#include "guest/env.h"

static void t_later_replaces(void **state)
{
	struct env env;

	(void)state;
	env_init(&env);
	assert_int_equal(env_set(&env, "PATH", "/bin", NULL), 0);
	assert_int_equal(env_set(&env, "PATHS", "x", NULL), 0);
	assert_int_equal(env_add_all(&env, (struct strv){"A=1\0PATH=/usr/bin\0A=", 21}, NULL), 0);
	assert_int_equal(env.n, 3);
	assert_string_equal(env_get(&env, "PATH"), "/usr/bin");
	assert_string_equal(env_get(&env, "A"), "");
	assert_string_equal(env.v[1], "PATHS=x");
	assert_null(env.v[3]);
	assert_null(env_get(&env, "PAT"));
	env_deinit(&env);
}

static void t_bad_entries(void **state)
{
	struct err e = ERR_INIT;
	struct env env;

	(void)state;
	env_init(&env);
	assert_int_equal(env_add(&env, "NOVALUE", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "NOVALUE"));
	assert_int_equal(env_add(&env, "=x", &e), -ERR_INVALID);
	assert_int_equal(env.n, 0);
	env_deinit(&env);
}

static void t_bounds(void **state)
{
	static char big[ENV_BYTES_MAX + 16];
	struct err e = ERR_INIT;
	struct env env;
	char name[16];
	int r = 0;

	(void)state;
	env_init(&env);
	for (int i = 0; i <= ENV_COUNT_MAX && r == 0; i++) {
		(void)snprintf(name, sizeof(name), "N%d=", i);
		r = env_add(&env, name, &e);
	}
	assert_int_equal(r, -ERR_LIMIT);
	assert_int_equal(env.n, ENV_COUNT_MAX);
	memset(big, 'x', sizeof(big) - 1);
	memcpy(big, "N1=", 3);
	assert_int_equal(env_add(&env, big, &e), -ERR_LIMIT);
	assert_string_equal(env_get(&env, "N1"), "");
	env_deinit(&env);
}

T_MAIN(T(t_later_replaces), T(t_bad_entries), T(t_bounds))
