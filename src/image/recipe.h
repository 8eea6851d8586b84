/*
 * image/recipe.h - what a template is made of: templates/<name>.yaml, strictly read.
 *
 *	name: base
 *	description: Debian with Python, git and curl
 *	packages: [python3, git]
 *	defaults:
 *	  vcpus: 1
 *	  memory_mb: 512
 *	  disk_mb: 2048
 *	warm:
 *	  - git --version
 *	interpreters:
 *	  python: import json
 *
 * `warm` are shell commands that `hotcell template build` runs once before it saves the
 * machine, `interpreters` what it runs once in a live interpreter of each language: what they
 * read and import is in the memory of every fork. `name` and `packages` are required.
 * Unknown and repeated keys, aliases, tags and a second document are refused with the line
 * they stand in. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
struct err;

enum {
	RECIPE_MAX = 1 << 16, /* bytes of a recipe */
	RECIPES_MAX = 1000,   /* in a folder; more are not listed */
	RECIPE_NAME_MAX = 33, /* with NUL */
	RECIPE_TEXT_MAX = 201,
	RECIPE_PACKAGES_MAX = 256,
	RECIPE_PACKAGE_MAX = 101,
	RECIPE_WARMS_MAX = 32,
	RECIPE_WARM_MAX = 1024, /* bytes of a command */
	RECIPE_INTERPRETERS_MAX = 8,
	RECIPE_SOURCE_MAX = 4096, /* bytes of what an interpreter runs */
	RECIPE_LANGUAGE_MAX = RECIPE_NAME_MAX,
	RECIPE_DEFAULT_VCPUS = 1,
	RECIPE_DEFAULT_MEMORY_MB = 512,
	RECIPE_DEFAULT_DISK_MB = 2048,
	RECIPE_VCPUS_MAX = 32,
	RECIPE_MEMORY_MB_MIN = 128,
	RECIPE_MEMORY_MB_MAX = 1 << 20,
	RECIPE_DISK_MB_MIN = 16,
	RECIPE_DISK_MB_MAX = 1 << 22,
};

/* What a sandbox gets when its creator says nothing. */
struct recipe_defaults {
	uint32_t vcpus, memory_mb, disk_mb;
};

struct recipe {
	char name[RECIPE_NAME_MAX];
	char description[RECIPE_TEXT_MAX];
	char package[RECIPE_PACKAGES_MAX][RECIPE_PACKAGE_MAX];
	size_t n_packages;
	struct recipe_defaults defaults;
	char warm[RECIPE_WARMS_MAX][RECIPE_WARM_MAX + 1];
	size_t n_warm;
	/* "language=source" */
	char interpreter[RECIPE_INTERPRETERS_MAX][RECIPE_LANGUAGE_MAX + RECIPE_SOURCE_MAX + 1];
	size_t n_interpreters;
};

/* -ERR_INVALID with line and key; -ERR_LIMIT for what is too long, too much or out of range. */
int recipe_parse(const char *text, size_t n, struct recipe *ret, struct err *e);

/* Read {dirfd}/<name>.yaml; the name inside must be the same. -ERR_NOT_FOUND. */
int recipe_load(int dirfd, const char *name, struct recipe *ret, struct err *e);

/* The recipes in the folder by name, sorted; not read. @ret: to be freed, also when there is none. */
int recipe_names(int dirfd, char (**ret)[RECIPE_NAME_MAX], size_t *ret_n, struct err *e);

/* Names of templates and images: [a-z][a-z0-9-]*, at most 32. */
bool recipe_name_ok(const char *s);
