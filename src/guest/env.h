/* guest/env.h - a program's environment: later entries replace earlier ones. Pure. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include "base/span.h"

struct err;

/* Of setup's and an interpreter's, and ours; env_reserve() makes room for more. */
enum { ENV_COUNT_MAX = 1100, ENV_BYTES_MAX = 81920 };

struct env {
	char **v; /* NULL-terminated, pointing into text */
	size_t n;
	char *text;
	size_t used, size, count_max;
};

void env_init(struct env *env);
void env_reserve(struct env *env, size_t bytes, size_t count); /* as much more; while it is empty */
void env_deinit(struct env *env);
/* Add "NAME=value"; an older entry of that name gives way. -ERR_INVALID without a name, -ERR_LIMIT. */
int env_add(struct env *env, const char *entry, struct err *e);
int env_set(struct env *env, const char *name, const char *value, struct err *e);
int env_add_all(struct env *env, struct strv entries, struct err *e);
const char *env_get(const struct env *env, const char *name); /* NULL: not there */
