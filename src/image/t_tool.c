/* image/t_tool.c */
#include "image/tool.h"
#include <fcntl.h>
#include <sched.h>
#include "base/err.h"
#include "base/str.h"
#include "base/testing.h"
#include "image/progress.h"
#include "sys/fd.h"

enum { INTERRUPTED = 42 };

static int sh(const char *script, struct str *output, int stdin_fd, struct err *e)
{
	const char *const argv[] = { "sh", "-c", script, NULL };
	AUTO_CLOSE int cwd = sys_open("/tmp", O_RDONLY | O_DIRECTORY);
	struct tool t = TOOL_INIT;

	t.argv = argv;
	t.cwd_fd = cwd;
	t.output = output;
	t.stdin_fd = stdin_fd;
	return tool_run(&t, e);
}

static void runs_where_it_is_told_and_returns_output(void **state)
{
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);

	T_UNUSED(state);
	assert_int_equal(sh("pwd; read x || echo no input", &out, -1, NULL), 0);
	assert_string_equal(str_text(&out), "/tmp\nno input\n");
	str_deinit(&out);
}

static void speaks_one_language_and_finds_sbin(void **state)
{
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);

	T_UNUSED(state);
	assert_int_equal(sh("echo $LC_ALL; case :$PATH: in *:/usr/sbin:*) echo sbin;; esac; umask",
			    &out, -1, NULL),
			 0);
	assert_string_equal(str_text(&out), "C.UTF-8\nsbin\n0022\n");
	str_deinit(&out);
}

static void reads_the_given_input(void **state)
{
	AUTO_CLOSE int in = sys_memfd("in", 0);
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);

	T_UNUSED(state);
	assert_int_equal(sys_write_full(in, "given", 5), 0);
	assert_int_equal(lseek(in, 0, SEEK_SET), 0);
	assert_int_equal(sh("cat", &out, in, NULL), 0);
	assert_string_equal(str_text(&out), "given");
	str_deinit(&out);
}

static void failure_tells_what_was_said(void **state)
{
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(sh("echo first >&2; echo 'E: no such thing' >&2; echo bye >&2; exit 3",
			    NULL, -1, &e),
			 -ERR_INTERNAL);
	assert_string_equal(e.text, "sh failed with exit status 3: E: no such thing");
	assert_int_equal(sh("printf 'esc\\033[31m' >&2; exit 1", NULL, -1, &e), -ERR_INTERNAL);
	assert_string_equal(e.text, "sh failed with exit status 1: esc\\x1b[31m");
	assert_int_equal(sh("exit 1", NULL, -1, &e), -ERR_INTERNAL);
	assert_string_equal(e.text, "sh failed with exit status 1: it did not say why");
	assert_int_equal(sh("kill -9 $$", NULL, -1, &e), -ERR_INTERNAL);
	assert_non_null(strstr(e.text, "signal 9"));
}

static void endless_talk_is_harmless(void **state)
{
	struct str out = STR_INIT(1000);
	struct err e = ERR_INIT;

	T_UNUSED(state);
	assert_int_equal(
		sh("head -c 300000 /dev/zero | tr '\\0' x >&2; echo >&2; echo E: end >&2; exit 1",
		   NULL, -1, &e),
		-ERR_INTERNAL);
	assert_non_null(strstr(e.text, "E: end"));
	assert_int_equal(sh("head -c 300000 /dev/zero | tr '\\0' x", &out, -1, &e), -ERR_LIMIT);
	str_deinit(&out);
}

static void note_line(struct progress *p, const char *line)
{
	size_t n = strlen(p->stage);

	(void)snprintf(p->stage + n, sizeof(p->stage) - n, "[%s]", line);
}

static void every_line_is_seen(void **state)
{
	static const char *const argv[] = { "sh", "-c", "printf 'a\\n\\nb\\rc' >&2", NULL };
	AUTO_CLOSE int cwd = sys_open("/tmp", O_RDONLY | O_DIRECTORY);
	struct progress p = { 0 };
	struct tool t = TOOL_INIT;

	T_UNUSED(state);
	t.argv = argv;
	t.cwd_fd = cwd;
	t.progress = &p;
	t.on_line = note_line;
	assert_int_equal(tool_run(&t, NULL), 0);
	assert_string_equal(p.stage, "[a][b][c]");
}

static void what_is_missing_is_named_with_its_package(void **state)
{
	static const char *const argv[] = { "hotcell-no-such-program", NULL };
	static const char *const programs[] = { "sh", "mke2fs-is-elsewhere",
						"hotcell-no-such-program" };
	AUTO_CLOSE int cwd = sys_open("/tmp", O_RDONLY | O_DIRECTORY);
	struct err e = ERR_INIT;
	struct tool t = TOOL_INIT;

	T_UNUSED(state);
	t.argv = argv;
	t.cwd_fd = cwd;
	assert_int_equal(tool_run(&t, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "hotcell-no-such-program: not installed"));
	assert_int_equal(tool_need(programs, 1, &e), 0);
	assert_int_equal(tool_need(programs, 3, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "mke2fs-is-elsewhere, hotcell-no-such-program"));
	assert_non_null(strstr(e.text, "apt-get install"));
}

/* A tool that survives us keeps the store locked. */
static void the_lock_is_handed_down(void **state)
{
	AUTO_CLOSE int cwd = sys_open("/tmp", O_RDONLY | O_DIRECTORY), lock = sys_memfd("lock", 0);
	char script[64];
	const char *const argv[] = { "sh", "-c", script, NULL };
	struct tool t = TOOL_INIT;

	T_UNUSED(state);
	(void)snprintf(script, sizeof(script), "test -e /proc/self/fd/%d", lock);
	t.argv = argv;
	t.cwd_fd = cwd;
	assert_int_equal(tool_run(&t, NULL), -ERR_INTERNAL);
	t.lock_fd = lock;
	assert_int_equal(tool_run(&t, NULL), 0);
}

/* Containers often have a root that may not make namespaces. */
static bool unshare_is_refused(void)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(unshare(CLONE_NEWNS | CLONE_NEWPID) < 0);
	return waitpid(pid, &status, 0) != pid || status != 0;
}

/* Runs until it is killed: a tool with a child that ignores every polite request. */
[[gnu::noreturn]] static void run_for_ever(int cwd, int held)
{
	static const char *const argv[] = {
		"sh", "-c",
		"echo >\"$TMPDIR/file\" || exit; "
		"(trap '' TERM HUP INT; echo >/proc/self/fd/$HELD; while :; do sleep 1000; done) & "
		"wait",
		NULL
	};
	char name[32];
	const char *const env[] = { name, NULL };
	struct tool_signals signals;
	struct tool t = TOOL_INIT;
	int r;

	(void)snprintf(name, sizeof(name), "HELD=%d", held);
	t.argv = argv;
	t.env = env;
	t.cwd_fd = cwd;
	t.lock_fd = held;
	t.is_contained = true;
	tool_signals_take(&signals);
	r = tool_run(&t, NULL);
	tool_signals_return(&signals);
	_exit(r == -ERR_CANCELED ? INTERRUPTED : r != 0);
}

/* Start it, wait until it runs, send the signal: how it ended. Whatever it started is gone then. */
static int end_by(int signo)
{
	char folder[] = "/tmp/hotcell-tool.XXXXXX", byte;
	AUTO_CLOSE int cwd = -1;
	int held[2], status;
	pid_t pid;

	assert_non_null(mkdtemp(folder));
	cwd = sys_open(folder, O_RDONLY | O_DIRECTORY);
	assert_int_equal(sys_pipe(held), 0);
	pid = fork();
	if (pid == 0) {
		sys_close(held[0]);
		run_for_ever(cwd, held[1]);
	}
	sys_close(held[1]);
	assert_int_equal(sys_read(held[0], &byte, 1), 1); /* it runs */
	assert_int_equal(kill(pid, signo), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(sys_read(held[0], &byte, 1), 0); /* comes when the last holder is gone */
	sys_close(held[0]);
	if (signo != SIGKILL) /* it could tidy up */
		assert_int_equal(rmdir(folder), 0);
	else
		assert_int_equal(sys_remove_tree(AT_FDCWD, folder), 0);
	return status;
}

static void what_is_contained_dies_with_us(void **state)
{
	T_UNUSED(state);
	if (geteuid() != 0 || unshare_is_refused())
		skip();
	assert_int_equal(end_by(SIGKILL), SIGKILL);
}

static void an_interrupted_tool_leaves_nothing(void **state)
{
	int status;

	T_UNUSED(state);
	if (geteuid() != 0 || unshare_is_refused())
		skip();
	status = end_by(SIGTERM);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), INTERRUPTED);
	status = end_by(SIGINT);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), INTERRUPTED);
}

T_MAIN(T(runs_where_it_is_told_and_returns_output), T(speaks_one_language_and_finds_sbin),
       T(reads_the_given_input), T(failure_tells_what_was_said), T(endless_talk_is_harmless),
       T(every_line_is_seen), T(what_is_missing_is_named_with_its_package),
       T(the_lock_is_handed_down), T(what_is_contained_dies_with_us),
       T(an_interrupted_tool_leaves_nothing))
