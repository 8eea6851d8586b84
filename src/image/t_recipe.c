/* image/t_recipe.c */
#include "image/recipe.h"
#include <fcntl.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fd.h"

static struct recipe recipe; /* large */

static int parse(const char *text, struct err *e)
{
	return recipe_parse(text, strlen(text), &recipe, e);
}

static void reads_a_whole_recipe(void **state)
{
	T_UNUSED(state);
	assert_int_equal(parse("name: base\ndescription: \"Debian, small\"\npackages: [python3, "
			       "libstdc++6]\n"
			       "defaults:\n  vcpus: 2\n  memory_mb: 1024\n  disk_mb: 4096\n",
			       NULL),
			 0);
	assert_string_equal(recipe.name, "base");
	assert_string_equal(recipe.description, "Debian, small");
	assert_int_equal(recipe.n_packages, 2);
	assert_string_equal(recipe.package[1], "libstdc++6");
	assert_int_equal(recipe.defaults.vcpus, 2);
	assert_int_equal(recipe.defaults.memory_mb, 1024);
	assert_int_equal(recipe.defaults.disk_mb, 4096);
}

static void reads_what_a_hot_template_runs(void **state)
{
	T_UNUSED(state);
	assert_int_equal(parse("name: a\npackages: [git]\nwarm:\n- git --version\n- |\n  a\n  b\n"
			       "interpreters:\n  python: x = 1\n  py: |\n    if x:\n    \ty\n",
			       NULL),
			 0);
	assert_int_equal(recipe.n_warm, 2);
	assert_string_equal(recipe.warm[0], "git --version");
	assert_string_equal(recipe.warm[1], "a\nb\n");
	assert_int_equal(recipe.n_interpreters, 2);
	assert_string_equal(recipe.interpreter[0], "python=x = 1");
	assert_string_equal(recipe.interpreter[1], "py=if x:\n\ty\n");
}

/* @times entries of @n bytes under the key @head: a list, or a mapping. */
static int parse_long(const char *head, size_t n, bool is_map, unsigned times)
{
	static char text[2 * RECIPE_MAX];
	size_t at = (size_t)sprintf(text, "name: a\npackages: [git]\n%s", head);

	for (unsigned i = 0; i < times; i++) {
		at += (size_t)(is_map ? sprintf(text + at, " l%u: ", i) : sprintf(text + at, "- "));
		memset(text + at, 'x', n);
		at += n;
		at += (size_t)sprintf(text + at, "\n");
	}
	return recipe_parse(text, at, &recipe, NULL);
}

static void what_a_hot_template_runs_has_limits(void **state)
{
	T_UNUSED(state);
	assert_int_equal(parse_long("warm:\n", RECIPE_WARM_MAX, false, 2), 0);
	assert_int_equal(parse_long("warm:\n", RECIPE_WARM_MAX + 1, false, 1), -ERR_LIMIT);
	assert_int_equal(parse_long("warm:\n", 1, false, RECIPE_WARMS_MAX), 0);
	assert_int_equal(parse_long("warm:\n", 1, false, RECIPE_WARMS_MAX + 1), -ERR_LIMIT);
	assert_int_equal(parse_long("interpreters:\n", RECIPE_SOURCE_MAX, true, 2), 0);
	assert_int_equal(strlen(recipe.interpreter[1]), RECIPE_SOURCE_MAX + 3);
	assert_int_equal(parse_long("interpreters:\n", RECIPE_SOURCE_MAX + 1, true, 1), -ERR_LIMIT);
	assert_int_equal(parse_long("interpreters:\n", 1, true, RECIPE_INTERPRETERS_MAX), 0);
	assert_int_equal(parse_long("interpreters:\n", 1, true, RECIPE_INTERPRETERS_MAX + 1),
			 -ERR_LIMIT);
}

static void what_is_left_out_has_defaults(void **state)
{
	T_UNUSED(state);
	assert_int_equal(parse("packages:\n  - git\nname: a\ndefaults: {vcpus: 3}\n", NULL), 0);
	assert_int_equal(recipe.defaults.vcpus, 3);
	assert_int_equal(recipe.defaults.memory_mb, RECIPE_DEFAULT_MEMORY_MB);
	assert_int_equal(recipe.defaults.disk_mb, RECIPE_DEFAULT_DISK_MB);
}

/* Each with the code and a piece of the sentence a person needs. */
static void everything_else_is_refused(void **state)
{
	static const struct {
		const char *text;
		int code;
		const char *says;
	} table[] = {
		{ "", ERR_INVALID, "empty" },
		{ "[]", ERR_INVALID, "keys with values" },
		{ "name: a\n", ERR_INVALID, "lacks the key packages" },
		{ "packages: [git]\n", ERR_INVALID, "lacks the key name" },
		{ "name: a\npackages: []\n", ERR_INVALID, "lacks the key packages" },
		{ "name: a\npackages: [git]\nwarmth: [x]\n", ERR_INVALID,
		  "line 3: unknown key warmth" },
		{ "name: a\npackages: [git]\nwarm: ls\n", ERR_INVALID, "list of shell commands" },
		{ "name: a\npackages: [git]\nwarm: [[ls]]\n", ERR_INVALID, "must be a text" },
		{ "name: a\npackages: [git]\nwarm: [\"\"]\n", ERR_INVALID, "must be a text" },
		{ "name: a\npackages: [git]\nwarm: [\"a\\0b\"]\n", ERR_INVALID, "must be a text" },
		{ "name: a\npackages: [git]\ninterpreters: [x]\n", ERR_INVALID,
		  "languages with their source" },
		{ "name: a\npackages: [git]\ninterpreters: {\"a=b\": x}\n", ERR_INVALID,
		  "languages with their source" },
		{ "name: a\npackages: [git]\ninterpreters: {x: [y]}\n", ERR_INVALID,
		  "must be a text" },
		{ "name: a\npackages: [git]\ninterpreters: {x: y, x: z}\n", ERR_INVALID,
		  "language x stands twice" },
		{ "name: a\nname: b\npackages: [git]\n", ERR_INVALID,
		  "line 2: key name stands twice" },
		{ "name: a\npackages: [git]\ndefaults:\n  memory: 4\n", ERR_INVALID,
		  "line 4: unknown key memory" },
		{ "name: a\npackages: [git]\ndefaults: {vcpus: 0}\n", ERR_LIMIT,
		  "vcpus must be between 1 and 32" },
		{ "name: a\npackages: [git]\ndefaults: {vcpus: 33}\n", ERR_LIMIT, "vcpus" },
		{ "name: a\npackages: [git]\ndefaults: {memory_mb: 127}\n", ERR_LIMIT,
		  "memory_mb" },
		{ "name: a\npackages: [git]\ndefaults: {disk_mb: 99999999999999999999}\n",
		  ERR_LIMIT, "disk_mb" },
		{ "name: a\npackages: [git]\ndefaults: {vcpus: two}\n", ERR_INVALID,
		  "whole number" },
		{ "name: a\npackages: [git]\ndefaults: {vcpus: -1}\n", ERR_INVALID,
		  "whole number" },
		{ "name: a\npackages: [git]\ndefaults: {vcpus: [1]}\n", ERR_INVALID,
		  "whole number" },
		{ "name: ../a\npackages: [git]\n", ERR_INVALID, "lower-case letter" },
		{ "name: A\npackages: [git]\n", ERR_INVALID, "lower-case letter" },
		{ "name: [a]\npackages: [git]\n", ERR_INVALID, "one line of text" },
		{ "name: \"a\\0b\"\npackages: [git]\n", ERR_INVALID, "one line of text" },
		{ "name: a23456789012345678901234567890123\npackages: [git]\n", ERR_LIMIT,
		  "longer than 32" },
		{ "name: a\npackages: git\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [git, [curl]]\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [--help]\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [\"git curl\"]\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [\"git,curl\"]\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [\"../x\"]\n", ERR_INVALID, "list of package names" },
		{ "name: a\npackages: [git, git]\n", ERR_INVALID, "git is listed twice" },
		{ "name: &x a\npackages: [git]\n", ERR_INVALID, "one line of text" },
		{ "name: a\ndescription: &x b\npackages: [*x]\n", ERR_INVALID, "one line of text" },
		{ "name: a\npackages: [git, *x]\n", ERR_INVALID, "aliases" },
		{ "name: !!str a\npackages: [git]\n", ERR_INVALID, "one line of text" },
		{ "name: a\npackages: [git]\n---\nname: b\n", ERR_INVALID, "second document" },
		{ "name: a\npackages: [git\n", ERR_INVALID, "line" },
		{ "? [a]\n: b\n", ERR_INVALID, "unknown key (not a text)" },
		{ "\tname: a\n", ERR_INVALID, "line" },
	};
	struct recipe before;
	struct err e;

	T_UNUSED(state);
	memset(&recipe, 0x5a, sizeof(recipe));
	before = recipe;
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		e = (struct err)ERR_INIT;
		if (parse(table[i].text, &e) != -table[i].code || !strstr(e.text, table[i].says))
			fail_msg("%s -> %d %s", table[i].text, e.code, e.text);
	}
	assert_memory_equal(&before, &recipe, sizeof(recipe)); /* untouched by failures */
}

static void has_limits(void **state)
{
	static char text[RECIPE_MAX + 2];
	size_t n = (size_t)sprintf(text, "name: a\npackages:\n");

	T_UNUSED(state);
	for (int i = 0; i <= RECIPE_PACKAGES_MAX; i++)
		n += (size_t)sprintf(text + n, "- p%d\n", i);
	assert_int_equal(parse(text, NULL), -ERR_LIMIT);
	memset(text, ' ', RECIPE_MAX + 1);
	text[RECIPE_MAX + 1] = '\0';
	assert_int_equal(parse(text, NULL), -ERR_LIMIT);
}

static void random_changes_do_no_harm(void **state)
{
	static const char good[] =
		"name: base\npackages: [python3, git]\ndefaults: {vcpus: 2, disk_mb: 4096}\n";
	uint64_t seed = 7;
	char text[sizeof(good)];

	T_UNUSED(state);
	for (int round = 0; round < 5000; round++) {
		memcpy(text, good, sizeof(good));
		for (int i = 0; i < 3; i++) {
			uint64_t r = t_random(&seed);

			text[r % (sizeof(text) - 1)] = (char)(r >> 32);
		}
		if (recipe_parse(text, sizeof(text) - 1, &recipe, NULL) == 0)
			assert_true(recipe_name_ok(recipe.name) && recipe.n_packages >= 1);
	}
}

static void loads_by_name_only(void **state)
{
	char dir[] = "/tmp/t_recipe.XXXXXX";
	struct err e = ERR_INIT;
	int fd;

	T_UNUSED(state);
	assert_non_null(mkdtemp(dir));
	fd = sys_open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(sys_write_file(fd, "a.yaml", "name: a\npackages: [git]\n"), 0);
	assert_int_equal(sys_write_file(fd, "b.yaml", "name: a\npackages: [git]\n"), 0);
	assert_int_equal(recipe_load(fd, "a", &recipe, &e), 0);
	assert_int_equal(recipe_load(fd, "b", &recipe, &e), -ERR_INVALID);
	assert_int_equal(recipe_load(fd, "c", &recipe, &e), -ERR_NOT_FOUND);
	assert_int_equal(recipe_load(fd, "../a", &recipe, &e), -ERR_INVALID);
	assert_int_equal(recipe_load(fd, "", &recipe, &e), -ERR_INVALID);
	sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, dir), 0);
}

/* Those that come with the source must always be good. */
static void the_templates_are_good(void **state)
{
	const char *source = getenv("HOTCELL_SOURCE");
	struct err e = ERR_INIT;
	char path[4096];
	int fd;

	T_UNUSED(state);
	if (!source)
		skip();
	(void)snprintf(path, sizeof(path), "%s/templates", source);
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	if (recipe_load(fd, "base", &recipe, &e) < 0 || recipe_load(fd, "python", &recipe, &e) < 0)
		fail_msg("%s", e.text);
	sys_close(fd);
}

T_MAIN(T(reads_a_whole_recipe), T(reads_what_a_hot_template_runs),
       T(what_a_hot_template_runs_has_limits), T(what_is_left_out_has_defaults), T(everything_else_is_refused),
       T(has_limits), T(random_changes_do_no_harm), T(loads_by_name_only),
       T(the_templates_are_good))
