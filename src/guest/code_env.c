/*
 * guest/code_env.c - an interpreter learns what guest.setup said since it started
 *
 * Those of a hot template were born before anybody asked for a sandbox, and with it
 * for variables. Only names that one of the two environments has are spoken of: the
 * rest is the interpreter's, which may have changed it.
 */
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/code_int.h"

void code_env_keep(struct code *c)
{
	const struct agent *a = c->all->agent;

	free(c->told);
	c->told = a->env_len ? mem_dup(a->env, a->env_len) : NULL;
	c->told_n = a->env_len;
}

/* Add the names in @of that @but has not, with their value in @env if there is one. */
static void add_names(struct strv of, struct strv but, const struct env *env, struct str *ret)
{
	for (const char *entry = strv_first(of); entry; entry = strv_next(of, entry)) {
		struct span name = {entry, strcspn(entry, "=") + 1};
		const char *other = strv_first(but);

		while (other && strncmp(other, name.p, name.n) != 0)
			other = strv_next(but, other);
		if (other)
			continue;
		for (size_t i = 0; i < env->n && other == NULL; i++)
			if (strncmp(env->v[i], name.p, name.n) == 0)
				other = env->v[i];
		if (other)
			str_add_mem(ret, other, strlen(other) + 1);
		else
			str_addf(ret, "%.*s%c", (int)name.n - 1, name.p, '\0');
	}
}

void code_env_tell(struct code *c)
{
	const struct agent *a = c->all->agent;
	struct strv now = {a->env, a->env_len}, before = {c->told, c->told_n};
	struct str text = STR_INIT(2 * LIMIT_ENV_BYTES);
	struct env env;

	if (now.n == before.n && (now.n == 0 || memcmp(now.p, before.p, now.n) == 0))
		return;
	env_init(&env);
	if (agent_env(a, &c->user, false, (struct strv){c->env.p, c->env.len}, &env, NULL) == 0) {
		add_names(now, (struct strv){0}, &env, &text);
		add_names(before, now, &env, &text);
	}
	env_deinit(&env);
	if (text.len)
		code_order(c, CODE_ENV, text.p, text.len);
	str_deinit(&text);
	code_env_keep(c);
}
