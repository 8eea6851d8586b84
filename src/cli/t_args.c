/* cli/t_args.c - the command line: options from tables, places, JSON of bytes, help */
#include "cli/args.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "base/testing.h"
#include "cli/cli.h"
#include "cli/encode.h"
#include "cli/follow.h"
#include "cli/place.h"
#include "cli/program.h"
#include "cli/table.h"
#include "sys/fd.h"

enum { WORDS = 16 };

static int parse(const char *verb, const char *const *words, struct args *ret, struct err *e)
{
	int n = 0;

	while (words[n])
		n++;
	return args_parse(cli_verb(verb), n, words, ret, e);
}

/* ---- options ---- */

static void t_options_fill_the_record(void **state)
{
	static const char *const words[] = {
		"--memory", "1.5G",	 "--cpus=4",   "--env",	 "A=1",	  "-eB=2", "--idle-timeout",
		"90m",	    "--name=lab", "--isolation", "process", "--json", NULL};
	struct args a;
	struct err e = ERR_INIT;
	const struct rec_sandbox_create *rec;

	(void)state;
	assert_int_equal(parse("create", words, &a, &e), 0);
	rec = args_rec(&a, &rec_sandbox_create_type);
	assert_int_equal(rec->memory_mb, 1536);
	assert_int_equal(rec->vcpus, 4);
	assert_int_equal(rec->idle_timeout_ms, 90 * 60 * 1000);
	assert_true(span_is(rec->name, "lab"));
	assert_true(span_is(rec->isolation, "process"));
	assert_int_equal(rec->env.n, 8);
	assert_memory_equal(rec->env.p, "A=1\0B=2", 8);
	assert_true(((struct common_options *)args_rec(&a, &common_type))->json);
	args_free(&a);
}

static void t_the_programs_words_stay_its_own(void **state)
{
	static const struct {
		const char *verb;
		const char *words[WORDS];
		const char *operands[WORDS];
	} cases[] = {
		{"run", {"ls", "-l", "--json", NULL}, {"ls", "-l", "--json", NULL}},
		{"run", {"--", "-x", NULL}, {"-x", NULL}},
		{"run", {"--quiet", "--", "ls", "--", "-x", NULL}, {"ls", "--", "-x", NULL}},
		{"exec", {"lab", "--quiet", "ls", "--quiet", NULL}, {"lab", "ls", "--quiet", NULL}},
		{"exec", {"lab", "--", "ls", "-l", NULL}, {"lab", "ls", "-l", NULL}},
		{"exec", {"-it", "lab", "sh", NULL}, {"lab", "sh", NULL}},
		{"exec", {"-i", "lab", "ls", "-i", NULL}, {"lab", "ls", "-i", NULL}},
		{"exec", {"-u", "root", "lab", "id", NULL}, {"lab", "id", NULL}},
		{"ls", {"-lR", "lab:/", NULL}, {"lab:/", NULL}},
		{"rm", {"a", "--json", "b", NULL}, {"a", "b", NULL}},
		{"cp", {"-", "lab:x", NULL}, {"-", "lab:x", NULL}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct args a;
		struct err e = ERR_INIT;
		unsigned n = 0;

		if (parse(cases[i].verb, cases[i].words, &a, &e) < 0)
			fail_msg("case %zu: %s", i, e.text);
		for (; cases[i].operands[n]; n++) {
			assert_true(n < a.n_operands);
			assert_string_equal(a.operand[n], cases[i].operands[n]);
		}
		assert_int_equal(a.n_operands, n);
		args_free(&a);
	}
}

static void t_mistakes_get_one_clear_sentence(void **state)
{
	static const struct {
		const char *verb;
		const char *words[WORDS];
		int code;
		const char *says[3];
	} cases[] = {
		{"create", {"--memroy", "1G", NULL}, ERR_INVALID, {"--memroy", "--memory"}},
		{"create", {"--zzzzzz", NULL}, ERR_INVALID, {"--zzzzzz", "--help"}},
		{"create", {"--memory", "lots", NULL}, ERR_INVALID, {"--memory", "lots", "512M"}},
		{"create", {"--memory", "512", NULL}, ERR_INVALID, {"--memory", "512M"}},
		{"create", {"--disk", "1K", NULL}, ERR_INVALID, {"--disk", "1K is less than 1M"}},
		{"create", {"--memory", "64G", NULL}, ERR_LIMIT, {"--memory", "32G"}},
		{"create", {"--memory", "99999999999T", NULL}, ERR_LIMIT, {"--memory"}},
		{"create", {"--memory", "18446744073709551615", NULL}, ERR_LIMIT, {"--memory", "32M to 32G"}},
		{"create", {"--memory", "0", NULL}, ERR_LIMIT, {"--memory", "32M to 32G"}},
		{"create", {"--idle-timeout", "31d", NULL}, ERR_LIMIT, {"--idle-timeout", "to 30d"}},
		{"code", {"--context", "99999999999999999999", NULL}, ERR_LIMIT, {"0 to 18446744073709551615"}},
		{"create", {"--memory", NULL}, ERR_INVALID, {"--memory", "needs a value", "SIZE"}},
		{"create", {"--cpus", "33", NULL}, ERR_LIMIT, {"--cpus", "33", "32"}},
		{"create", {"--cpus", "-1", NULL}, ERR_INVALID, {"--cpus", "-1"}},
		{"create", {"--cpus", "", NULL}, ERR_INVALID, {"--cpus"}},
		{"create", {"--env", "NOVALUE", NULL}, ERR_INVALID, {"--env", "NAME=VALUE"}},
		{"create", {"--env", "=x", NULL}, ERR_INVALID, {"--env", "NAME=VALUE"}},
		{"create", {"--isolation", "vmm", NULL}, ERR_INVALID, {"--isolation", "vmm", "process"}},
		{"create", {"--isolation", "null", NULL}, ERR_INVALID, {"\"null\" is none of: vm, process"}},
		{"create", {"--lifetime", "31d", NULL}, ERR_LIMIT, {"--lifetime", "0s to 30d"}},
		{"create", {"--lifetime", "soon", NULL}, ERR_INVALID, {"--lifetime", "30s"}},
		{"create", {"--name", "", NULL}, ERR_INVALID, {"--name", "empty"}},
		{"create", {"--json=yes", NULL}, ERR_INVALID, {"--json", "no value"}},
		{"create", {"-x", NULL}, ERR_INVALID, {"-x"}},
		{"create", {"lab", NULL}, ERR_INVALID, {"lab", "create"}},
		{"exec", {"--timeout", "25h", "lab", "ls", NULL}, ERR_LIMIT, {"--timeout", "1d"}},
		{"exec", {NULL}, ERR_INVALID, {"exec", "SANDBOX"}},
		{"cp", {"a", NULL}, ERR_INVALID, {"cp", "FROM TO"}},
		{"cp", {"a", "b", "c", NULL}, ERR_INVALID, {"cp", "\"c\""}},
		{"run", {"--max-output", "2G", "ls", NULL}, ERR_LIMIT, {"--max-output", "1G"}},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct args a;
		struct err e = ERR_INIT;
		int r = parse(cases[i].verb, cases[i].words, &a, &e);

		args_free(&a);
		if (r != -cases[i].code)
			fail_msg("case %zu: %d \"%s\"", i, r, e.text);
		for (size_t k = 0; k < 3 && cases[i].says[k]; k++)
			if (!strstr(e.text, cases[i].says[k]))
				fail_msg("case %zu: \"%s\" does not say %s", i, e.text,
					 cases[i].says[k]);
		assert_null(strchr(e.text, '\n'));
	}
}

static void t_words_of_other_tools_get_an_answer(void **state)
{
	static const char *const words[] = {"stop",    "start",  "kill",  "delete", "logs",
					    "inspect", "images", "build", NULL};
	struct err e = ERR_INIT;

	(void)state;
	for (const char *const *w = words; *w; w++) {
		const char *verb;
		char name[16] = "";

		e = (struct err)ERR_INIT;
		assert_int_equal(cli_no_verb(*w, &e), -ERR_INVALID);
		verb = strstr(e.text, "'hotcell ");
		if (!verb || sscanf(verb, "'hotcell %15[a-z]", name) != 1 || !cli_verb(name))
			fail_msg("%s: %s", *w, e.text);
	}
}

static void t_sizes_in_small_letters(void **state)
{
	static const char *const words[] = {"-m", "512m", "--disk", "1g", NULL};
	struct args a;
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(parse("create", words, &a, &e), 0);
	assert_int_equal(((struct rec_sandbox_create *)args_rec(&a, &rec_sandbox_create_type))->memory_mb, 512);
	assert_int_equal(((struct rec_sandbox_create *)args_rec(&a, &rec_sandbox_create_type))->disk_mb, 1024);
	args_free(&a);
}

static void t_repeated_options_have_limits(void **state)
{
	static char big[40000];
	const char *words[2 * 70 + 1];
	struct args a;
	struct err e = ERR_INIT;

	(void)state;
	for (size_t i = 0; i < 140; i += 2) {
		words[i] = "--meta";
		words[i + 1] = "k=v";
	}
	words[128] = NULL; /* 64 of them */
	assert_int_equal(parse("create", words, &a, &e), 0);
	args_free(&a);
	words[128] = "--meta";
	words[140] = NULL;
	assert_int_equal(parse("create", words, &a, &e), -ERR_LIMIT);
	args_free(&a);
	assert_non_null(strstr(e.text, "64"));
	memset(big, 'x', sizeof(big) - 1);
	big[1] = '=';
	words[0] = "--env";
	words[1] = big;
	words[2] = NULL;
	assert_int_equal(parse("create", words, &a, &e), -ERR_LIMIT);
	args_free(&a);
	assert_non_null(strstr(e.text, "32768"));
}

static void t_nearest_word(void **state)
{
	static const char *const names[] = {"run", "create", "exec", "list", "ls", "info", "shell", NULL};

	(void)state;
	assert_string_equal(args_nearest("rnu", names), "run");
	assert_string_equal(args_nearest("craete", names), "create");
	assert_string_equal(args_nearest("lst", names), "list");
	assert_string_equal(args_nearest("exe", names), "exec");
	assert_null(args_nearest("destroy", names));
	assert_null(args_nearest("x", names));
	assert_null(args_nearest("a-very-long-word-that-is-longer-than-any-name", names));
}

/* ---- programs ---- */

static int program(const char *const *words, struct err *e)
{
	struct args a;
	struct program p;
	int r = parse("run", words, &a, e);

	assert_int_equal(r, 0);
	r = program_init(&p, "lab", args_rec(&a, &run_type), &a, 0, e);
	if (r == 0)
		r = rec_check(&rec_exec_start_type, &p.rec, e);
	program_deinit(&p);
	args_free(&a);
	return r;
}

static void t_programs_are_checked_before_anything_is_made(void **state)
{
	static char big[LIMIT_ARGV_BYTES + 2];
	static const char *many[LIMIT_ARGV_COUNT + 2];
	struct err e = ERR_INIT;

	(void)state;
	assert_int_equal(program((const char *const[]){"ls", "-l", NULL}, &e), 0);
	assert_int_equal(program((const char *const[]){"-c", "ls", NULL}, &e), 0);
	assert_int_equal(program((const char *const[]){NULL}, &e), -ERR_INVALID);
	assert_int_equal(program((const char *const[]){"-c", "ls", "ls", NULL}, &e), -ERR_INVALID);
	memset(big, 'x', sizeof(big) - 1);
	assert_int_equal(program((const char *const[]){"echo", big, NULL}, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "2097152"));
	for (size_t i = 0; i < ARRAY_LEN(many); i++)
		many[i] = "x";
	many[ARRAY_LEN(many) - 1] = NULL;
	assert_int_equal(program(many, &e), -ERR_LIMIT);
	assert_non_null(strstr(e.text, "65536"));
}

/* ---- places ---- */

static void t_places(void **state)
{
	static const struct {
		const char *word, *sandbox, *path;
		int code;
	} cases[] = {
		{"lab:/etc/x", "lab", "/etc/x", 0},
		{"lab:x", "lab", "x", 0},
		{"lab:a:b", "lab", "a:b", 0},
		{"0123456789abcdef0123456789abcdef:x", "0123456789abcdef0123456789abcdef", "x", 0},
		{"./a:b", "", "./a:b", 0},
		{"/a:b", "", "/a:b", 0},
		{"file", "", "file", 0},
		{"-", "", "-", 0},
		{"lab:", "lab", ".", 0},
		{":x", "", "", ERR_INVALID},
		{"", "", "", ERR_INVALID},
		{"-lab:x", "", "", ERR_INVALID},
		{"la b:x", "", "", ERR_INVALID},
	};
	struct guest_path p;
	char name[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int r = guest_path_parse(cases[i].word, &p, NULL);

		if (r != -cases[i].code)
			fail_msg("%s: %d", cases[i].word, r);
		if (r < 0)
			continue;
		assert_string_equal(p.sandbox, cases[i].sandbox);
		assert_string_equal(p.path, cases[i].path);
	}
	assert_int_equal(guest_path_or_home("lab", &p, NULL), 0);
	assert_string_equal(p.path, ".");
	assert_int_equal(guest_path_or_home("lab:", &p, NULL), 0);
	assert_string_equal(p.path, ".");
	assert_string_equal(path_last("/a/b/", name), "b");
	assert_string_equal(path_last("b", name), "b");
	assert_null(path_last("/", name));
	assert_null(path_last("a/..", name));
	assert_null(path_last(".", name));
}

static void t_long_places(void **state)
{
	static char word[LIMIT_PATH + 16];
	struct guest_path p;

	(void)state;
	memset(word, 'x', sizeof(word) - 1);
	memcpy(word, "lab:", 4);
	assert_int_equal(guest_path_parse(word, &p, NULL), -ERR_LIMIT);
	memcpy(word, "yyyy", 4);
	word[100] = ':';
	assert_int_equal(guest_path_parse(word, &p, NULL), -ERR_INVALID);
}

/* ---- bytes as JSON ---- */

static void t_base64(void **state)
{
	/* RFC 4648, section 10 */
	static const char *const pairs[][2] = {
		{"", ""},	  {"f", "Zg=="},       {"fo", "Zm8="},	     {"foo", "Zm9v"},
		{"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"},
	};
	struct str out = STR_INIT(64);

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		str_clear(&out);
		encode_base64(pairs[i][0], strlen(pairs[i][0]), &out);
		assert_string_equal(str_text(&out), pairs[i][1]);
	}
	str_clear(&out);
	encode_base64("\xff\x00\xfe", 3, &out);
	assert_string_equal(str_text(&out), "/wD+");
	str_deinit(&out);
}

static void t_results_are_json(void **state)
{
	static const struct {
		const char *bytes;
		size_t n;
		const char *encoding, *text;
	} cases[] = {
		{"plain\n", 6, "utf-8", "plain\n"},
		{"gr\xc3\xbc\xc3\x9f", 6, "utf-8", "gr\xc3\xbc\xc3\x9f"},
		{"\"\\\x1b\x7f\t", 5, "utf-8", "\"\\\x1b\x7f\t"},
		{"\xff\xfe", 2, "base64", "//4="},
		{"cut \xc3", 5, "base64", "Y3V0IMM="},
		{"", 0, "utf-8", ""},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct follow_result r = {.status = 3,
					  .finished = true,
					  .exit = {.code = 3, .reason = span_of("exited")},
					  .out = {STR_INIT(64), 100},
					  .err = {STR_INIT(64), 0}};
		struct str text = STR_INIT(65536);
		json_t *root;

		str_add_mem(&r.out.bytes, cases[i].bytes, cases[i].n);
		str_add(&text, "{");
		follow_json(&r, &text);
		str_add(&text, "}");
		root = json_loads(str_text(&text), JSON_REJECT_DUPLICATES, NULL);
		if (!root)
			fail_msg("not JSON: %s", str_text(&text));
		assert_string_equal(json_string_value(json_object_get(root, "stdout")), cases[i].text);
		assert_string_equal(json_string_value(json_object_get(root, "stdout_encoding")),
				    cases[i].encoding);
		assert_int_equal(json_integer_value(json_object_get(root, "stdout_bytes")), 100);
		assert_true(json_is_true(json_object_get(root, "stdout_truncated")));
		assert_true(json_is_false(json_object_get(root, "stderr_truncated")));
		assert_int_equal(json_integer_value(json_object_get(root, "exit_code")), 3);
		assert_string_equal(json_string_value(json_object_get(json_object_get(root, "exit"),
								      "reason")),
				    "exited");
		json_decref(root);
		str_deinit(&text);
		follow_result_free(&r);
	}
}

/* ---- text for people ---- */

static void t_tables_escape_what_a_guest_says(void **state)
{
	static const char *const heads[] = {"NAME", ">SIZE"};
	struct table t;
	struct str out = STR_INIT(4096);

	(void)state;
	table_init(&t, heads, 2);
	table_add(&t, span_of("a\033[2Jb\nc"));
	table_addf(&t, "%d", 7);
	table_add(&t, span_of("gr\xc3\xbc\xc3\x9f"));
	table_add(&t, (struct span){0});
	table_print(&t, &out);
	assert_string_equal(str_text(&out), "NAME          SIZE\n"
					    "a\\x1b[2Jb\\nc     7\n"
					    "gr\xc3\xbc\xc3\x9f             -\n");
	table_deinit(&t);
	str_deinit(&out);
}

static void t_every_verb_has_help(void **state)
{
	(void)state;
	for (const struct verb *v = cli_verbs; v->name; v++) {
		struct str out = STR_INIT(65536);

		assert_ptr_equal(cli_verb(v->name), v);
		assert_non_null(v->summary);
		assert_non_null(v->operands);
		assert_true(v->foreign || v->run);
		args_help(v, &out);
		assert_false(out.failed);
		/* each option once, even when two records have it */
		for (const char *p = str_text(&out), *next; (next = strstr(p, "--env ")); p = next + 1)
			assert_null(strstr(next + 1, "--env "));
		str_deinit(&out);
	}
	assert_null(cli_verb("nothing"));
}

/* The manual names every verb and every option. */
static void t_manual_is_complete(void **state)
{
	const char *source = getenv("HOTCELL_SOURCE");
	char path[512], text[65536];

	(void)state;
	if (!source)
		skip();
	(void)snprintf(path, sizeof(path), "%s/doc/man/hotcell.1", source);
	assert_true(sys_read_file(-1, path, text, sizeof(text)) > 0);
	for (const struct verb *v = cli_verbs; v->name; v++) {
		struct str words = STR_INIT(65536), verb = STR_INIT(64);

		str_addf(&verb, ".It Nm Cm %s", v->name);
		if (!strstr(text, str_text(&verb)))
			fail_msg("the manual lacks '%s'", v->name);
		args_words(v, &words);
		for (char *save, *w = strtok_r(words.p, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
			char flag[64];

			(void)snprintf(flag, sizeof(flag), " %.40s", w + 1); /* "Fl -x" or "Fl y , -x" */
			if (!strstr(text, flag))
				fail_msg("the manual lacks %s of '%s'", w, v->name);
		}
		str_deinit(&words);
		str_deinit(&verb);
	}
}

T_MAIN(T(t_options_fill_the_record),
       T(t_the_programs_words_stay_its_own),
       T(t_mistakes_get_one_clear_sentence),
       T(t_words_of_other_tools_get_an_answer),
       T(t_sizes_in_small_letters),
       T(t_repeated_options_have_limits),
       T(t_nearest_word),
       T(t_programs_are_checked_before_anything_is_made),
       T(t_places),
       T(t_long_places),
       T(t_base64),
       T(t_results_are_json),
       T(t_tables_escape_what_a_guest_says),
       T(t_every_verb_has_help),
       T(t_manual_is_complete))
