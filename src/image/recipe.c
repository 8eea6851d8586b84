/*
 * image/recipe.c - YAML events (libyaml scans) walked by a table of keys.
 * Adding a key is adding a row.
 */
#include "image/recipe.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/fd.h"

#define RECIPE_SUFFIX ".yaml"

struct reader {
	yaml_parser_t yaml;
	yaml_event_t event; /* the current one */
	struct recipe *recipe;
	struct err *e;
};

struct key {
	const char *name;
	/* Called with the first event of the value as current event; consumes the value. */
	int (*read)(struct reader *r, const struct key *key);
	size_t offset;     /* of the member in struct recipe */
	uint64_t min, max; /* of numbers; max of texts: bytes with NUL */
};

static size_t line_of(const struct reader *r)
{
	return r->event.start_mark.line + 1;
}

static int refuse(struct reader *r, int code, const char *what)
{
	return err_set(r->e, code, "line %zu: %s", line_of(r), what);
}

static int next(struct reader *r)
{
	yaml_event_delete(&r->event);
	if (!yaml_parser_parse(&r->yaml, &r->event))
		return err_set(r->e, ERR_INVALID, "line %zu: %s", r->yaml.problem_mark.line + 1,
			       r->yaml.problem ? r->yaml.problem : "unreadable YAML");
	if (r->event.type == YAML_ALIAS_EVENT)
		return refuse(r, ERR_INVALID, "aliases are not allowed");
	return 0;
}

/* The current event's text: a plain scalar without tag, anchor or control characters but @allowed. */
static const char *scalar_with(struct reader *r, const char *allowed)
{
	const char *s = (const char *)r->event.data.scalar.value;

	if (r->event.type != YAML_SCALAR_EVENT || r->event.data.scalar.tag ||
	    r->event.data.scalar.anchor || strlen(s) != r->event.data.scalar.length)
		return NULL;
	for (const char *c = s; *c; c++)
		if (((unsigned char)*c < ' ' || *c == 0x7f) && !strchr(allowed, *c))
			return NULL;
	return s;
}

static const char *scalar(struct reader *r)
{
	return scalar_with(r, "");
}

static int read_number(struct reader *r, const struct key *key)
{
	const char *s = scalar(r);
	uint32_t number;
	uint64_t v;
	int bad = s ? str_to_u64(s, key->min, key->max, &v) : -EINVAL;

	if (bad == -ERANGE)
		return err_set(r->e, ERR_LIMIT, "line %zu: %s must be between %llu and %llu",
			       line_of(r), key->name, (unsigned long long)key->min,
			       (unsigned long long)key->max);
	if (bad < 0)
		return err_set(r->e, ERR_INVALID, "line %zu: %s must be a whole number", line_of(r),
			       key->name);
	number = (uint32_t)v;
	memcpy((char *)r->recipe + key->offset, &number, sizeof(number));
	return 0;
}

static int read_text(struct reader *r, const struct key *key)
{
	const char *s = scalar(r);

	if (!s)
		return err_set(r->e, ERR_INVALID, "line %zu: %s must be one line of text",
			       line_of(r), key->name);
	if (strlen(s) >= key->max)
		return err_set(r->e, ERR_LIMIT, "line %zu: %s is longer than %llu bytes",
			       line_of(r), key->name, (unsigned long long)key->max - 1);
	memcpy((char *)r->recipe + key->offset, s, strlen(s) + 1);
	return 0;
}

static int read_name(struct reader *r, const struct key *key)
{
	int bad = read_text(r, key);

	if (bad < 0)
		return bad;
	if (!recipe_name_ok(r->recipe->name))
		return refuse(
			r, ERR_INVALID,
			"name must be a lower-case letter followed by letters, digits or '-'");
	return 0;
}

/* Debian policy 5.6.1; the argument list of a package manager must not see anything else. */
static bool is_package_ok(const char *s)
{
	if (!((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9')) || strlen(s) < 2)
		return false;
	return s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789+-.")] == '\0';
}

static int add_package(struct reader *r)
{
	struct recipe *to = r->recipe;
	const char *s = scalar(r);

	if (!s || !is_package_ok(s))
		return refuse(r, ERR_INVALID, "packages must be a list of package names");
	if (strlen(s) >= RECIPE_PACKAGE_MAX || to->n_packages == RECIPE_PACKAGES_MAX)
		return err_set(r->e, ERR_LIMIT,
			       "line %zu: at most %d packages with names of at most %d bytes",
			       line_of(r), RECIPE_PACKAGES_MAX, RECIPE_PACKAGE_MAX - 1);
	for (size_t i = 0; i < to->n_packages; i++)
		if (strcmp(to->package[i], s) == 0)
			return err_set(r->e, ERR_INVALID, "line %zu: package %s is listed twice",
				       line_of(r), s);
	memcpy(to->package[to->n_packages++], s, strlen(s) + 1);
	return 0;
}

static int read_packages(struct reader *r, const struct key *key)
{
	int bad;

	(void)key;
	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return refuse(r, ERR_INVALID, "packages must be a list of package names");
	while ((bad = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
		bad = add_package(r);
		if (bad < 0)
			return bad;
	}
	return bad;
}

/* What a hot template runs: a text of one or more lines. */
static int read_source(struct reader *r, const char *what, size_t max, const char **ret)
{
	const char *s = scalar_with(r, "\n\t");

	if (!s || !*s)
		return err_set(r->e, ERR_INVALID, "line %zu: %s must be a text", line_of(r), what);
	if (strlen(s) > max)
		return err_set(r->e, ERR_LIMIT, "line %zu: %s is longer than %zu bytes", line_of(r),
			       what, max);
	*ret = s;
	return 0;
}

static int add_warm(struct reader *r)
{
	struct recipe *to = r->recipe;
	const char *s;
	int bad = read_source(r, "a command of warm", RECIPE_WARM_MAX, &s);

	if (bad < 0)
		return bad;
	if (to->n_warm == RECIPE_WARMS_MAX)
		return err_set(r->e, ERR_LIMIT, "line %zu: at most %d commands in warm", line_of(r),
			       RECIPE_WARMS_MAX);
	memcpy(to->warm[to->n_warm++], s, strlen(s) + 1);
	return 0;
}

static int read_warm(struct reader *r, const struct key *key)
{
	int bad;

	(void)key;
	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return refuse(r, ERR_INVALID, "warm must be a list of shell commands");
	while ((bad = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
		bad = add_warm(r);
		if (bad < 0)
			return bad;
	}
	return bad;
}

/* The current event: a language, which was not there before. */
static int read_language(struct reader *r, char ret[RECIPE_LANGUAGE_MAX])
{
	const char *s = scalar(r);
	const struct recipe *to = r->recipe;

	if (!s || !recipe_name_ok(s))
		return refuse(r, ERR_INVALID, "interpreters must be languages with their source");
	if (to->n_interpreters == RECIPE_INTERPRETERS_MAX)
		return err_set(r->e, ERR_LIMIT, "line %zu: at most %d interpreters", line_of(r),
			       RECIPE_INTERPRETERS_MAX);
	for (size_t i = 0; i < to->n_interpreters; i++)
		if (str_starts(to->interpreter[i], s) && to->interpreter[i][strlen(s)] == '=')
			return err_set(r->e, ERR_INVALID, "line %zu: language %s stands twice",
				       line_of(r), s);
	memcpy(ret, s, strlen(s) + 1);
	return 0;
}

static int add_interpreter(struct reader *r)
{
	struct recipe *to = r->recipe;
	char language[RECIPE_LANGUAGE_MAX];
	const char *s;
	int bad = read_language(r, language);

	if (bad == 0)
		bad = next(r);
	if (bad == 0)
		bad = read_source(r, "a source of interpreters", RECIPE_SOURCE_MAX, &s);
	if (bad < 0)
		return bad;
	(void)snprintf(to->interpreter[to->n_interpreters++], sizeof(to->interpreter[0]), "%s=%s",
		       language, s);
	return 0;
}

static int read_interpreters(struct reader *r, const struct key *key)
{
	int bad;

	(void)key;
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return refuse(r, ERR_INVALID, "interpreters must be languages with their source");
	while ((bad = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
		bad = add_interpreter(r);
		if (bad < 0)
			return bad;
	}
	return bad;
}

static int read_mapping(struct reader *r, const struct key *keys, size_t n_keys);

static int read_defaults(struct reader *r, const struct key *key)
{
	static const struct key keys[] = {
		{ "vcpus", read_number, offsetof(struct recipe, defaults.vcpus), 1,
		  RECIPE_VCPUS_MAX },
		{ "memory_mb", read_number, offsetof(struct recipe, defaults.memory_mb),
		  RECIPE_MEMORY_MB_MIN, RECIPE_MEMORY_MB_MAX },
		{ "disk_mb", read_number, offsetof(struct recipe, defaults.disk_mb),
		  RECIPE_DISK_MB_MIN, RECIPE_DISK_MB_MAX },
	};

	(void)key;
	return read_mapping(r, keys, ARRAY_LEN(keys));
}

static const struct key recipe_keys[] = {
	{ "name", read_name, offsetof(struct recipe, name), 0, RECIPE_NAME_MAX },
	{ "description", read_text, offsetof(struct recipe, description), 0, RECIPE_TEXT_MAX },
	{ "packages", read_packages, 0, 0, 0 },
	{ "defaults", read_defaults, 0, 0, 0 },
	{ "warm", read_warm, 0, 0, 0 },
	{ "interpreters", read_interpreters, 0, 0, 0 },
};

static int read_entry(struct reader *r, const struct key *keys, size_t n_keys, uint32_t *seen)
{
	const char *name = scalar(r);
	int bad;

	for (size_t i = 0; name && i < n_keys; i++) {
		if (strcmp(name, keys[i].name) != 0)
			continue;
		if (*seen & (1u << i))
			return err_set(r->e, ERR_INVALID, "line %zu: key %s stands twice",
				       line_of(r), name);
		*seen |= 1u << i;
		bad = next(r);
		return bad < 0 ? bad : keys[i].read(r, &keys[i]);
	}
	return err_set(r->e, ERR_INVALID, "line %zu: unknown key %.40s", line_of(r),
		       name ? name : "(not a text)");
}

static int read_mapping(struct reader *r, const struct key *keys, size_t n_keys)
{
	uint32_t seen = 0;
	int bad;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return refuse(r, ERR_INVALID, "keys with values are expected");
	while ((bad = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
		bad = read_entry(r, keys, n_keys, &seen);
		if (bad < 0)
			return bad;
	}
	return bad;
}

static int expect(struct reader *r, yaml_event_type_t type, const char *otherwise)
{
	int bad = next(r);

	if (bad < 0)
		return bad;
	return r->event.type == type ? 0 : refuse(r, ERR_INVALID, otherwise);
}

static int read_document(struct reader *r)
{
	int bad = expect(r, YAML_STREAM_START_EVENT, "unreadable");

	if (bad == 0)
		bad = expect(r, YAML_DOCUMENT_START_EVENT, "the recipe is empty");
	if (bad == 0)
		bad = next(r);
	if (bad == 0)
		bad = read_mapping(r, recipe_keys, ARRAY_LEN(recipe_keys));
	if (bad == 0)
		bad = expect(r, YAML_DOCUMENT_END_EVENT, "nothing may follow the recipe");
	if (bad == 0)
		bad = expect(r, YAML_STREAM_END_EVENT, "a second document is not allowed");
	return bad;
}

int recipe_parse(const char *text, size_t n, struct recipe *ret, struct err *e)
{
	AUTO_FREE struct recipe *recipe = mem_new(sizeof(*recipe));
	struct reader r = { .recipe = recipe, .e = e };
	int bad;

	if (n > RECIPE_MAX)
		return err_set(e, ERR_LIMIT, "the recipe is larger than %d bytes", RECIPE_MAX);
	recipe->defaults = (struct recipe_defaults){ RECIPE_DEFAULT_VCPUS, RECIPE_DEFAULT_MEMORY_MB,
						     RECIPE_DEFAULT_DISK_MB };
	if (!yaml_parser_initialize(&r.yaml))
		return err_set(e, ERR_LIMIT, "no memory to read the recipe");
	yaml_parser_set_input_string(&r.yaml, (const unsigned char *)text, n);
	bad = read_document(&r);
	yaml_event_delete(&r.event);
	yaml_parser_delete(&r.yaml);
	if (bad < 0)
		return bad;
	if (!recipe->name[0] || !recipe->n_packages)
		return err_set(e, ERR_INVALID, "the recipe lacks the key %s",
			       recipe->name[0] ? "packages" : "name");
	*ret = *recipe;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* "base.yaml" is the recipe base. */
static bool is_recipe(const char *file, char ret[RECIPE_NAME_MAX])
{
	size_t n = strlen(file), end = strlen(RECIPE_SUFFIX);

	if (n <= end || n - end >= RECIPE_NAME_MAX || strcmp(file + n - end, RECIPE_SUFFIX) != 0)
		return false;
	memcpy(ret, file, n - end);
	ret[n - end] = '\0';
	return recipe_name_ok(ret);
}

int recipe_names(int dirfd, char (**ret)[RECIPE_NAME_MAX], size_t *ret_n, struct err *e)
{
	AUTO_FREE char (*names)[RECIPE_NAME_MAX] = mem_new(RECIPES_MAX * sizeof(*names));
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d;
	size_t n = 0;

	if (!dir) {
		int r = fd < 0 ? fd : -errno;

		sys_close(fd);
		return err_sys(e, r, "list the recipes");
	}
	while (n < RECIPES_MAX && (d = readdir(dir)))
		n += is_recipe(d->d_name, names[n]);
	(void)closedir(dir);
	qsort(names, n, sizeof(*names), by_name);
	*ret = take_ptr(&names);
	*ret_n = n;
	return 0;
}

static int no_recipe(int dirfd, const char *name, struct err *e)
{
	struct str list = STR_INIT(ERR_TEXT_MAX / 2);
	AUTO_FREE char (*names)[RECIPE_NAME_MAX] = NULL;
	size_t n = 0;
	int r = recipe_names(dirfd, &names, &n, e);

	for (size_t i = 0; r == 0 && i < n; i++)
		str_addf(&list, "%s%s", i ? ", " : "", names[i]);
	if (r == 0)
		r = err_set(e, ERR_NOT_FOUND, "there is no recipe %s; there %s: %s%s", name, n == 1 ? "is" : "are",
			    n ? str_text(&list) : "none", list.failed ? ", ..." : "");
	str_deinit(&list);
	return r;
}

int recipe_load(int dirfd, const char *name, struct recipe *ret, struct err *e)
{
	AUTO_FREE char *text = mem_new(RECIPE_MAX + 2);
	char file[RECIPE_NAME_MAX + sizeof(RECIPE_SUFFIX)];
	ssize_t n;
	int r;

	if (!recipe_name_ok(name))
		return err_set(e, ERR_INVALID,
			       "\"%.40s\" is no name of a template: [a-z][a-z0-9-]*, at most %d",
			       name, RECIPE_NAME_MAX - 1);
	(void)snprintf(file, sizeof(file), "%s" RECIPE_SUFFIX, name);
	n = sys_read_file(dirfd, file, text, RECIPE_MAX + 2);
	if (n == -ENOENT)
		return no_recipe(dirfd, name, e);
	if (n < 0)
		return err_sys(e, (int)n, "read template %s", name);
	r = recipe_parse(text, (size_t)n, ret, e);
	if (r < 0)
		return err_wrap(e, "template %s", name);
	if (strcmp(ret->name, name) != 0)
		return err_set(e, ERR_INVALID, "template %s calls itself %s", name, ret->name);
	return 0;
}

bool recipe_name_ok(const char *s)
{
	if (*s < 'a' || *s > 'z' || strlen(s) >= RECIPE_NAME_MAX)
		return false;
	return s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}
