/* guest/env.c - a program's environment */
#include "guest/env.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/mem.h"

void env_init(struct env *env)
{
	*env = (struct env){
		.v = mem_new((ENV_COUNT_MAX + 1) * sizeof(*env->v)),
		.text = mem_new(ENV_BYTES_MAX),
		.size = ENV_BYTES_MAX,
		.count_max = ENV_COUNT_MAX,
	};
}

void env_reserve(struct env *env, size_t bytes, size_t count)
{
	size_t size = env->size + bytes, count_max = env->count_max + count;

	assert(env->n == 0);
	env_deinit(env);
	*env = (struct env){
		.v = mem_new((count_max + 1) * sizeof(*env->v)),
		.text = mem_new(size),
		.size = size,
		.count_max = count_max,
	};
}

void env_deinit(struct env *env)
{
	free(env->v);
	free(env->text);
	*env = (struct env){0};
}

static char **find(const struct env *env, const char *name, size_t n)
{
	for (size_t i = 0; i < env->n; i++)
		if (strncmp(env->v[i], name, n) == 0 && env->v[i][n] == '=')
			return &env->v[i];
	return NULL;
}

int env_add(struct env *env, const char *entry, struct err *e)
{
	const char *eq = strchr(entry, '=');
	size_t size = strlen(entry) + 1;
	char **slot;

	if (!eq || eq == entry)
		return err_set(e, ERR_INVALID, "environment: '%.64s' is not NAME=value", entry);
	if (size > env->size - env->used)
		return err_set(e, ERR_LIMIT, "environment: more than %zu bytes", env->size);
	slot = find(env, entry, (size_t)(eq - entry));
	if (!slot) {
		if (env->n == env->count_max)
			return err_set(e, ERR_LIMIT, "environment: more than %zu entries", env->count_max);
		slot = &env->v[env->n++];
	}
	*slot = memcpy(env->text + env->used, entry, size);
	env->used += size;
	return 0;
}

int env_set(struct env *env, const char *name, const char *value, struct err *e)
{
	char entry[4096 + 128];

	if (snprintf(entry, sizeof(entry), "%s=%s", name, value) >= (int)sizeof(entry))
		return err_set(e, ERR_LIMIT, "environment: the value of %s is too long", name);
	return env_add(env, entry, e);
}

int env_add_all(struct env *env, struct strv entries, struct err *e)
{
	int r = 0;

	for (const char *s = strv_first(entries); s && r == 0; s = strv_next(entries, s))
		r = env_add(env, s, e);
	return r;
}

const char *env_get(const struct env *env, const char *name)
{
	size_t n = strlen(name);
	char **slot = find(env, name, n);

	return slot ? *slot + n + 1 : NULL;
}
