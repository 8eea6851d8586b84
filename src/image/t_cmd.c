/* image/t_cmd.c - the verbs, by what they print and refuse */
#include "image/cmd.h"
#include <jansson.h>
#include "image/testing.h"

enum { OUTPUT_MAX = 1 << 16, ARGS_MAX = 8 };

/* Run `hotcell image` with these words; what it prints goes to @ret. */
static int run(char ret[OUTPUT_MAX], struct err *e, const char *words)
{
	AUTO_CLOSE int out = sys_memfd("stdout", 0);
	int stdout_before = dup(STDOUT_FILENO), r, argc = 0;
	struct image_cmd_env env = { .state_dir = store_dir(),
				     .init_path = "/nonexistent/init",
				     .templates_dir = "/nonexistent/templates" };
	char *argv[ARGS_MAX + 1] = { NULL }, text[400], *save = NULL;

	(void)snprintf(text, sizeof(text), "%s", words);
	for (char *w = strtok_r(text, " ", &save); w && argc < ARGS_MAX;
	     w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	(void)fflush(stdout);
	assert_true(dup2(out, STDOUT_FILENO) >= 0);
	r = image_cmd(argc, argv, &env, e);
	(void)fflush(stdout);
	assert_true(dup2(stdout_before, STDOUT_FILENO) >= 0);
	sys_close(stdout_before);
	memset(ret, 0, OUTPUT_MAX);
	assert_true(sys_pread(out, ret, OUTPUT_MAX - 1, 0) >= 0);
	return r;
}

static void lists_for_people_and_programs(void **unused)
{
	static char text[OUTPUT_MAX];
	char digest[HASH_TEXT];
	struct err e = ERR_INIT;
	int state = make_store(digest);
	json_t *j;

	T_UNUSED(unused);
	assert_int_equal(run(text, &e, "list"), 0);
	assert_non_null(strstr(text, "NAME"));
	assert_non_null(strstr(text, "1970-01-01T00:16:40Z"));
	assert_int_equal(run(text, &e, "list --json"), 0);
	j = json_loads(text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(j, "digest")), digest);
	assert_true(json_is_true(json_object_get(j, "current")));
	json_decref(j);
	assert_int_equal(run(text, &e, "info base --json"), 0);
	j = json_loads(text, 0, NULL);
	assert_int_equal(json_integer_value(json_object_get(j, "root_bytes")), 20);
	assert_string_equal(json_string_value(json_object_get(j, "kernel")), RELEASE);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(j, "package_versions"), "curl")),
		"7.88");
	json_decref(j);
	assert_int_equal(run(text, &e, "info base"), 0);
	assert_non_null(strstr(text, digest));
	unmake_store(state);
}

static void verifies_and_removes(void **unused)
{
	static char text[OUTPUT_MAX];
	char digest[HASH_TEXT];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	assert_int_equal(run(text, &e, "verify"), 0);
	assert_int_equal(run(text, &e, "verify --json base"), 0);
	assert_string_equal(text, "{\"name\":\"base\",\"ok\":true}\n");
	assert_int_equal(run(text, &e, "rm base --json"), 0);
	assert_string_equal(text, "{\"name\":\"base\",\"removed\":true}\n");
	assert_int_equal(run(text, &e, "verify base"), -ERR_NOT_FOUND);
	assert_string_equal(text, "");
	assert_int_equal(run(text, &e, "list --json"), 0);
	assert_string_equal(text, "");
	assert_int_equal(run(text, &e, "list"), 0);
	assert_non_null(strstr(text, "hotcell image build"));
	unmake_store(state);
}

static void mistakes_get_one_sentence(void **unused)
{
	static const struct {
		const char *words, *says;
	} table[] = {
		{ "", "needs one of build, recipes, list, info, verify, rm" },
		{ "frob", "not frob" },
		{ "info", "name of an image is missing" },
		{ "rm", "name of an image is missing" },
		{ "rm a b", "one argument too many: b" },
		{ "list base", "one argument too many: base" },
		{ "list --jason", "unknown option --jason" },
		{ "list --force", "unknown option --force" },
		{ "info ../base", "an image is named by" },
		{ "rm -- -x", "an image is named by" },
	};
	static char text[OUTPUT_MAX];
	char digest[HASH_TEXT];
	struct err e;
	int state = make_store(digest);

	T_UNUSED(unused);
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		e = (struct err)ERR_INIT;
		if (run(text, &e, table[i].words) != -ERR_INVALID ||
		    !strstr(e.text, table[i].says) || text[0])
			fail_msg("%s: %s", table[i].words, e.text);
	}
	assert_int_equal(run(text, &e, "build base"), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "/nonexistent/templates"));
	unmake_store(state);
}

static void help_is_there_for_every_verb(void **unused)
{
	static const char *const words[] = { "build --help", "recipes --help", "list -h", "info --help",
					     "verify --help", "rm --help" };
	static char text[OUTPUT_MAX];
	char expected[64];

	T_UNUSED(unused);
	strcpy(store_dir(), "/nonexistent");
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		(void)snprintf(expected, sizeof(expected), "Usage: hotcell image %.*s",
			       (int)strcspn(words[i], " "), words[i]);
		assert_int_equal(run(text, NULL, words[i]), 0);
		assert_int_equal(strncmp(text, expected, strlen(expected)), 0);
	}
	assert_int_equal(run(text, NULL, "--help"), 0);
	assert_non_null(strstr(text, "hotcell image verify"));
}

T_MAIN(T(lists_for_people_and_programs), T(verifies_and_removes), T(mistakes_get_one_sentence),
       T(help_is_there_for_every_verb))
