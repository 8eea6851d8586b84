/*
 * cli/t_main.c - the whole command line, word by word, against a double
 *
 * cli_main() runs in a child with pipes for its three descriptors; what comes out of them and
 * its exit status are what a shell would see.
 */
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include "base/str.h"
#include "base/testing.h"
#include "cli/cli.h"
#include "client/t_echo.h"

enum { WORDS = 12, MAX_TEXT = 1 << 20, END_MS = 20000 };

struct test {
	struct double_daemon d;
	struct echo x;
	struct str out, err;
};

static int set_up(void **state)
{
	struct test *t = calloc(1, sizeof(*t));

	assert(t);
	(void)t_before(state);
	t->x.in = t->x.out = (struct str)STR_INIT(8 << 20);
	t->out = t->err = (struct str)STR_INIT(MAX_TEXT);
	t->d.request = echo_answer;
	t->d.arg = &t->x;
	double_start(&t->d);
	assert_int_equal(setenv("HOTCELL_RUN", t->d.dir, 1), 0);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct test *t = *state;

	double_stop(&t->d);
	str_deinit(&t->x.in);
	str_deinit(&t->x.out);
	str_deinit(&t->out);
	str_deinit(&t->err);
	free(t);
	return t_after(state);
}

struct child {
	pid_t pid;
	int fds[3]; /* our ends of its 0, 1, 2 */
};

static _Noreturn void be_hotcell(const char *const *words, const int theirs[3])
{
	static const struct cli_hooks hooks = {0};
	char *argv[WORDS + 2] = {(char *)"hotcell"};
	int argc = 1;

	for (; words[argc - 1]; argc++)
		argv[argc] = (char *)words[argc - 1];
	for (int i = 0; i < 3; i++)
		(void)dup2(theirs[i], i);
	(void)close_range(3, ~0u, 0);
	_exit(cli_main(argc, argv, &hooks));
}

static struct child start(const char *const *words)
{
	int ends[3][2], theirs[3];
	struct child c;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(sys_pipe(ends[i]), 0);
		theirs[i] = ends[i][i == 0 ? 0 : 1];
		c.fds[i] = ends[i][i == 0 ? 1 : 0];
	}
	c.pid = fork();
	if (c.pid == 0)
		be_hotcell(words, theirs);
	for (int i = 0; i < 3; i++)
		(void)sys_close(theirs[i]);
	return c;
}

/* Read both outputs until they end, or until @until is in the first. */
static void collect(struct test *t, struct child *c, const char *until)
{
	struct pollfd p[2] = {{c->fds[1], POLLIN, 0}, {c->fds[2], POLLIN, 0}};
	char piece[4096];

	while ((p[0].fd >= 0 || p[1].fd >= 0) && !(until && strstr(str_text(&t->out), until))) {
		assert_true(poll(p, 2, END_MS) > 0);
		for (int i = 0; i < 2; i++) {
			ssize_t n;

			if (p[i].fd < 0 || !p[i].revents)
				continue;
			n = sys_read(p[i].fd, piece, sizeof(piece));
			if (n <= 0)
				p[i].fd = -1;
			else
				str_add_mem(i ? &t->err : &t->out, piece, (size_t)n);
		}
	}
}

static int end(struct test *t, struct child *c)
{
	int status;

	collect(t, c, NULL);
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	(void)sys_close(c->fds[0]);
	(void)sys_close(c->fds[1]);
	(void)sys_close(c->fds[2]);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int run(struct test *t, const char *input, const char *const *words)
{
	struct child c = start(words);

	str_clear(&t->out);
	str_clear(&t->err);
	assert_int_equal(sys_write_full(c.fds[0], input, strlen(input)), 0);
	c.fds[0] = sys_close(c.fds[0]);
	return end(t, &c);
}

#define RUN(t, input, ...) run(t, input, (const char *const[]){__VA_ARGS__, NULL})

static void t_programs_pass_through_double(void **state)
{
	static const struct {
		const char *words[WORDS], *input, *out, *err;
		int status;
	} cases[] = {
		{{"run", "--", "cat"}, "one\ntwo\n", "one\ntwo\n", "", 0},
		{{"exec", "lab", "cat"}, "\n", "\n", "", 0},
		{{"run", "-c", "fail"}, "", "out", "err", 7},
		{{"exec", "lab", "-c", "fail"}, "", "out", "err", 7},
		{{"run", "-c", "die"}, "", "", "", 137},
		{{"run", "-c", "late"}, "", "",
		 "hotcell: the program ran longer than --timeout and was killed\n", 124},
		{{"run", "--quiet", "-c", "late"}, "", "", "", 124},
		{{"exec", "lab", "-c", "nobody"}, "", "", "hotcell: no user 'nobody'\n", 125},
		{{"exec", "lab", "missing"}, "", "", "hotcell: program 'missing' not found in PATH\n", 127},
		{{"run", "--", "missing"}, "", "", "hotcell: program 'missing' not found in PATH\n", 127},
		{{"exec", "lab", "locked"}, "", "", "hotcell: can't execute 'locked': Permission denied\n", 126},
		{{"attach", "lab", "x"}, "", "",
		 "hotcell: SESSION: \"x\" is not a number; see 'hotcell sessions lab'\n", 125},
		{{"exec", "lab", "--detach", "-c", "wait"}, "", "1\n", "", 0},
	};
	struct test *t = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int status = run(t, cases[i].input, cases[i].words);

		if (status != cases[i].status)
			fail_msg("case %zu: status %d, \"%s\"", i, status, str_text(&t->err));
		assert_string_equal(str_text(&t->out), cases[i].out);
		assert_string_equal(str_text(&t->err), cases[i].err);
	}
}

static void t_run_leaves_nothing_behind_double(void **state)
{
	struct test *t = *state;

	assert_int_equal(RUN(t, "", "run", "-c", "fail"), 7);
	assert_int_equal(t->x.removed, 1);
	assert_true(t->x.create.ephemeral);
	assert_int_equal(t->x.held, 1); /* the double's create does not hold by itself */
	assert_int_equal(RUN(t, "", "run", "-c", "nobody"), 125);
	assert_int_equal(t->x.removed, 2);
	/* a mistake is found before anything is made */
	t->x.calls = 0;
	assert_int_equal(RUN(t, "", "run"), 125);
	assert_int_equal(RUN(t, "", "run", "--cpus", "99", "ls"), 125);
	assert_int_equal(t->x.calls, 0);
}

static json_t *answer(struct test *t)
{
	json_t *root = json_loads(str_text(&t->out), JSON_REJECT_DUPLICATES, NULL);

	if (!root)
		fail_msg("not one JSON object: %s", str_text(&t->out));
	assert_string_equal(str_text(&t->err), "");
	return root;
}

static const char *text_of(const json_t *root, const char *key)
{
	const char *s = json_string_value(json_object_get(root, key));

	return s ? s : "(none)";
}

static void t_json_answers_double(void **state)
{
	struct test *t = *state;
	json_t *root;

	assert_int_equal(RUN(t, "", "run", "--json", "-c", "fail"), 7);
	root = answer(t);
	assert_string_equal(text_of(root, "stdout"), "out");
	assert_string_equal(text_of(root, "stderr"), "err");
	assert_string_equal(text_of(root, "wall"), "process");
	assert_int_equal(json_integer_value(json_object_get(root, "exit_code")), 7);
	assert_true(json_is_integer(json_object_get(json_object_get(root, "times_us"), "create")));
	assert_string_equal(text_of(json_object_get(root, "sandbox"), "template"), "base");
	json_decref(root);
	assert_int_equal(RUN(t, "", "exec", "lab", "--json", "-c", "binary"), 0);
	root = answer(t);
	assert_string_equal(text_of(root, "stdout"), "/wD+");
	assert_string_equal(text_of(root, "stdout_encoding"), "base64");
	json_decref(root);
	assert_int_equal(RUN(t, "", "info", "--json", "nobody"), 4);
	root = answer(t);
	assert_string_equal(text_of(root, "error"), "not_found");
	assert_string_equal(text_of(root, "message"), "there is no sandbox nobody");
	json_decref(root);
	assert_int_equal(RUN(t, "", "--json", "craete"), 2);
	root = answer(t);
	assert_non_null(strstr(text_of(root, "message"), "'create'"));
	json_decref(root);
}

static void t_lists_are_json_lines_double(void **state)
{
	struct test *t = *state;
	unsigned lines = 0;

	assert_int_equal(RUN(t, "", "list", "--json"), 0);
	for (char *save, *line = strtok_r(t->out.p, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		json_t *root = json_loads(line, JSON_REJECT_DUPLICATES, NULL);

		assert_non_null(root);
		json_decref(root);
		lines++;
	}
	assert_int_equal(lines, ECHO_ITEMS);
}

#define ID_1 "00000000000000000000000000000001\n"
#define SET  "a1000000000000000000000000000000\n"

static void t_whole_machines_double(void **state)
{
	static const struct {
		const char *words[WORDS], *out;
		int status;
	} cases[] = {
		{{"fork", "lab", "-n", "3", "--name", "try"},
		 "01000000000000000000000000000000\n02000000000000000000000000000000\n"
		 "03000000000000000000000000000000\n", 0},
		{{"fork", "lab", "-n", "257"}, "", 7},
		{{"fork"}, "", 2},
		{{"pause", "lab"}, ID_1, 0},
		{{"resume", "lab"}, ID_1, 0},
		{{"rollback", "lab", "before"}, ID_1, 0},
		{{"restore", "before", "--name", "again"}, ID_1, 0},
		{{"snapshot", "lab", "--name", "before"}, SET, 0},
		{{"snapshot", "create", "lab"}, SET, 0},
		{{"snapshot", "create"}, "", 2},
		{{"snapshot", "list", "all"}, "", 2},
		{{"snapshot", "craete", "lab"}, "", 2},
		{{"snapshot", "rm", "before"}, "before\n", 0},
		{{"snapshot", "rm", "--json", "before"}, "{}\n", 0},
		{{"snapshot", "rm", "nobody"}, "", 4},
		{{"snapshot", "info", "nobody"}, "", 4},
		{{"template", "build", "base", "--quiet"}, SET, 0},
		{{"template", "rm", "python"}, "03000000000000000000000000000000\n", 0},
		{{"template", "rm", "nobody"}, "", 4},
		{{"template"}, "", 2},
	};
	struct test *t = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int status = run(t, "", cases[i].words);

		if (status != cases[i].status)
			fail_msg("case %zu: status %d, \"%s\"", i, status, str_text(&t->err));
		assert_string_equal(str_text(&t->out), cases[i].out);
	}
	assert_int_equal(t->x.fork.count, 3);
}

static void t_sets_have_tables_double(void **state)
{
	struct test *t = *state;
	json_t *root;

	assert_int_equal(RUN(t, "", "snapshot", "list"), 0);
	assert_non_null(strstr(str_text(&t->out), " before "));
	assert_null(strstr(str_text(&t->out), "python"));
	assert_int_equal(RUN(t, "", "template", "list"), 0);
	assert_non_null(strstr(str_text(&t->out), " base      0123456789ab "));
	assert_null(strstr(str_text(&t->out), "before"));
	assert_int_equal(RUN(t, "", "template", "info", "--json", "base"), 0);
	root = answer(t);
	assert_string_equal(text_of(root, "image"), "0123456789abcdef");
	assert_true(json_is_true(json_object_get(root, "hot")));
	json_decref(root);
	assert_int_equal(RUN(t, "", "snapshot", "info", "before"), 0);
	assert_non_null(strstr(str_text(&t->out), "pause                0.017 ms\n"));
	assert_null(strstr(str_text(&t->out), "parent")); /* there is none */
}

static void t_errors_have_their_status_double(void **state)
{
	struct test *t = *state;

	assert_int_equal(RUN(t, "", "info", "nobody"), 4);
	assert_string_equal(str_text(&t->err), "hotcell: there is no sandbox nobody\n");
	assert_int_equal(RUN(t, "", "cp", "a", "b"), 2);
	assert_int_equal(RUN(t, "", "ps", "lab"), 9); /* the double does not play it */
	assert_int_equal(RUN(t, "", "signal", "lab", "1", "NOPE"), 2);
	assert_int_equal(RUN(t, "", "port", "lab", "0"), 2);
	assert_int_equal(RUN(t, "", "port", "lab", "99999"), 2);
	assert_int_equal(RUN(t, "", "nonsense"), 2);
	assert_int_equal(RUN(t, "", "doctor"), 9); /* no hook here */
	assert_int_equal(RUN(t, "", "help", "run"), 0);
	assert_non_null(strstr(str_text(&t->out), "One of: vm, process.")); /* not what is for tests only */
}

/* The first is the program's; it ends from it, and with it we do. */
static void t_first_interrupt_is_the_programs_double(void **state)
{
	struct test *t = *state;
	struct child c = start((const char *const[]){"run", "-c", "hang", NULL});

	collect(t, &c, "ready");
	assert_int_equal(kill(c.pid, SIGINT), 0);
	assert_int_equal(end(t, &c), 128 + SIGINT);
	assert_int_equal(t->x.removed, 1);
}

/* TERM is passed on too, but does not wait for anybody; the sandbox still goes. */
static void t_term_ends_at_once_double(void **state)
{
	struct test *t = *state;
	struct child c = start((const char *const[]){"run", "-c", "hang", NULL});

	collect(t, &c, "ready");
	assert_int_equal(kill(c.pid, SIGTERM), 0);
	assert_int_equal(end(t, &c), 128 + SIGTERM);
	assert_int_equal(t->x.removed, 1);
}

static void t_closed_output_ends_the_program_double(void **state)
{
	struct test *t = *state;
	struct child c = start((const char *const[]){"run", "--", "cat", NULL});

	c.fds[1] = sys_close(c.fds[1]);
	assert_int_equal(sys_write_full(c.fds[0], "text", 4), 0);
	assert_int_equal(end(t, &c), 128 + SIGPIPE);
	assert_int_equal(t->x.removed, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

T_MAIN(TEST(t_programs_pass_through_double),
       TEST(t_run_leaves_nothing_behind_double),
       TEST(t_json_answers_double),
       TEST(t_lists_are_json_lines_double),
       TEST(t_whole_machines_double),
       TEST(t_sets_have_tables_double),
       TEST(t_errors_have_their_status_double),
       TEST(t_first_interrupt_is_the_programs_double),
       TEST(t_term_ends_at_once_double),
       TEST(t_closed_output_ends_the_program_double))
