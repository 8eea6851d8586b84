/* client/t_api.c - hotcell.h, against a double that echoes */
#include <hotcell.h>
#include "base/str.h"
#include "base/testing.h"
#include "client/t_echo.h"

/* ---- the tests ---- */

struct test {
	struct double_daemon d;
	struct echo x;
	struct hotcell *h;
	struct hotcell_sandbox *s;
	struct hotcell_error e;
};

static int set_up(void **state)
{
	struct test *t = calloc(1, sizeof(*t));
	struct hotcell_connect_options o = HOTCELL_CONNECT_OPTIONS_INIT;

	assert(t);
	(void)t_before(state);
	t->x.in = t->x.out = (struct str)STR_INIT(8 << 20);
	t->d.request = echo_answer;
	t->d.arg = &t->x;
	double_start(&t->d);
	o.run_dir = t->d.dir;
	o.no_start = true;
	assert(hotcell_connect(&o, &t->h, &t->e) == 0);
	assert(hotcell_create_default(t->h, &t->s, &t->e) == 0);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct test *t = *state;

	hotcell_sandbox_close(t->s);
	hotcell_disconnect(t->h);
	double_stop(&t->d);
	str_deinit(&t->x.in);
	str_deinit(&t->x.out);
	free(t);
	return t_after(state);
}

static void t_sandboxes_double(void **state)
{
	static const char *const metadata[] = {"a=1", "b=2", NULL};
	struct hotcell_config c = HOTCELL_CONFIG_INIT;
	struct test *t = *state;
	struct hotcell_sandbox *s;
	bool exists;

	c.name = "lab";
	c.isolation = "process";
	c.memory_mib = 256;
	c.metadata = metadata;
	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), 0);
	assert_string_equal(t->x.name, "lab");
	assert_string_equal(t->x.isolation, "process");
	assert_string_equal(t->x.metadata, "a=1;b=2;");
	assert_int_equal(t->x.create.memory_mb, 256);
	assert_string_equal(hotcell_sandbox_id(s), "00000000000000000000000000000001");
	assert_string_equal(hotcell_sandbox_name(s), "lab");
	assert_string_equal(hotcell_sandbox_wall(s), "process");
	assert_int_equal(hotcell_sandbox_state(s), HOTCELL_READY);
	assert_int_equal(hotcell_sandbox_vcpus(s), 2);
	assert_non_null(strstr(hotcell_sandbox_json(s), "\"name\":\"lab\""));
	assert_int_equal(hotcell_sandbox_refresh(s, &t->e), 0);
	assert_int_equal(hotcell_sandbox_destroy(s, &t->e), 0);
	assert_int_equal(t->x.removed, 1);
	assert_int_equal(hotcell_exists(t->h, "lab", &exists, &t->e), 0);
	assert_true(exists);
	assert_int_equal(hotcell_exists(t->h, "nobody", &exists, &t->e), 0);
	assert_false(exists);
	assert_int_equal(hotcell_open(t->h, "nobody", &s, &t->e), -HOTCELL_NOT_FOUND);
	assert_string_equal(t->e.message, "there is no sandbox nobody");
	assert_string_equal(hotcell_code_name(t->e.code), "not_found");
}

static void t_machines_double(void **state)
{
	struct hotcell_config c = HOTCELL_CONFIG_INIT;
	struct test *t = *state;
	struct hotcell_sandbox *s;
	struct hotcell_list *l = NULL;

	assert_int_equal(hotcell_fork(t->s, 3, "try", &l, &t->e), 0);
	assert_int_equal(hotcell_list_count(l), ECHO_ITEMS);
	assert_int_equal(t->x.fork.count, 3);
	assert_string_equal(t->x.name, "try");
	hotcell_list_free(l);
	assert_int_equal(hotcell_fork(t->s, 0, NULL, &l, &t->e), -HOTCELL_LIMIT);
	assert_int_equal(hotcell_fork(t->s, 257, NULL, &l, &t->e), -HOTCELL_LIMIT);
	assert_int_equal(hotcell_pause(t->s, &t->e), 0);
	assert_int_equal(hotcell_sandbox_state(t->s), HOTCELL_PAUSED);
	assert_int_equal(hotcell_resume(t->s, &t->e), 0);
	assert_int_equal(hotcell_sandbox_state(t->s), HOTCELL_READY);
	assert_int_equal(hotcell_rollback(t->s, "before", &t->e), 0);
	assert_string_equal(t->x.snapshot, "before");
	assert_string_equal(t->x.sandbox, hotcell_sandbox_id(t->s));
	assert_string_equal(hotcell_sandbox_name(t->s), "back");
	c.snapshot = "after";
	c.disk_only = c.cold = true;
	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), 0);
	assert_string_equal(t->x.snapshot, "after");
	assert_true(t->x.create.disk_only && t->x.create.cold);
	hotcell_sandbox_close(s);
}

static int count_to(void *arg, const struct hotcell_snapshot *s)
{
	unsigned *left = arg;

	assert_int_equal(hotcell_snapshot_is_template(s), strcmp(hotcell_snapshot_name(s), "before") != 0);
	return --*left == 0 ? -1 : 0;
}

static void t_snapshots_double(void **state)
{
	struct test *t = *state;
	struct hotcell_snapshot *s = NULL;
	unsigned left = 10;

	assert_int_equal(hotcell_snapshot_create(t->s, "before", 5000, &s, &t->e), 0);
	assert_int_equal(t->x.keep.keep_ms, 5000);
	assert_string_equal(t->x.sandbox, hotcell_sandbox_id(t->s));
	assert_string_equal(hotcell_snapshot_id(s), "a1000000000000000000000000000000");
	assert_string_equal(hotcell_snapshot_name(s), "before");
	assert_false(hotcell_snapshot_is_template(s));
	assert_non_null(strstr(hotcell_snapshot_json(s), "\"pause_us\":17"));
	hotcell_snapshot_free(s);
	assert_int_equal(hotcell_snapshot_open(t->h, "before", &s, &t->e), 0);
	hotcell_snapshot_free(s);
	s = NULL;
	assert_int_equal(hotcell_snapshot_open(t->h, "nobody", &s, &t->e), -HOTCELL_NOT_FOUND);
	assert_null(s);
	assert_int_equal(hotcell_snapshot_list(t->h, count_to, &left, &t->e), 0);
	assert_int_equal(left, 10 - ECHO_ITEMS);
	left = 2;
	assert_int_equal(hotcell_snapshot_list(t->h, count_to, &left, &t->e), -HOTCELL_CANCELED);
	assert_int_equal(left, 0);
	assert_int_equal(hotcell_snapshot_remove(t->h, "before", &t->e), 0);
	assert_int_equal(t->x.removed, 1);
	assert_int_equal(hotcell_snapshot_remove(t->h, "nobody", &t->e), -HOTCELL_NOT_FOUND);
	assert_int_equal(hotcell_template_build(t->h, "base", 2, 256, 0, &s, &t->e), 0);
	assert_true(hotcell_snapshot_is_template(s));
	assert_string_equal(t->x.name, "base");
	assert_int_equal(t->x.build.vcpus, 2);
	assert_int_equal(t->x.build.memory_mb, 256);
	hotcell_snapshot_free(s);
	hotcell_snapshot_free(NULL);
}

static int see_pool(void *arg, const struct hotcell_pool *p)
{
	struct str *seen = arg;

	str_addf(seen, "%s %s %u/%u %s;", hotcell_pool_template(p), hotcell_pool_isolation(p),
		 hotcell_pool_ready(p), hotcell_pool_size(p), hotcell_pool_reason(p));
	return strcmp(hotcell_pool_isolation(p), "process") == 0 ? -1 : 0;
}

static void t_pools_double(void **state)
{
	static const char *const unenforced[] = {"cpu", "pids", NULL};
	struct hotcell_pool_options o = HOTCELL_POOL_OPTIONS_INIT;
	struct str seen = STR_INIT(1024);
	struct test *t = *state;
	struct hotcell_pool *p = NULL;

	o.isolation = "vm";
	o.vcpus = 2;
	o.memory_mib = 256;
	o.disk_mib = 512;
	o.unenforced = unenforced;
	assert_int_equal(hotcell_pool_set(t->h, "base", 3, 2, &o, &p, &t->e), 0);
	assert_string_equal(t->x.name, "base");
	assert_string_equal(t->x.isolation, "vm");
	assert_string_equal(t->x.metadata, "cpu;pids;");
	assert_int_equal(t->x.pool.size, 3);
	assert_int_equal(t->x.pool.prestarted, 2);
	assert_int_equal(t->x.pool.vcpus, 2);
	assert_int_equal(t->x.pool.memory_mb, 256);
	assert_int_equal(t->x.pool.disk_mb, 512);
	assert_string_equal(hotcell_pool_template(p), "base");
	assert_int_equal(hotcell_pool_size(p), 3);
	assert_int_equal(hotcell_pool_ready(p), 1);
	assert_int_equal(hotcell_pool_hits(p), 5);
	assert_int_equal(hotcell_pool_misses(p), 4);
	assert_non_null(strstr(hotcell_pool_json(p), "\"prestarted\":2"));
	hotcell_pool_free(p);
	hotcell_pool_free(NULL);
	/* a pool of nothing, too many, no such template; nothing is answered */
	p = NULL;
	assert_int_equal(hotcell_pool_set(t->h, "base", 0, 0, &o, &p, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_pool_set(t->h, "base", LIMIT_POOL + 1, 0, &o, &p, &t->e), -HOTCELL_LIMIT);
	assert_non_null(strstr(t->e.message, "size"));
	assert_int_equal(hotcell_pool_set(t->h, "nobody", 1, 0, NULL, &p, &t->e), -HOTCELL_NOT_FOUND);
	assert_null(p);
	assert_int_equal(hotcell_pool_remove(t->h, "base", &o, &t->e), 0);
	assert_int_equal(t->x.pool.size + t->x.pool.prestarted, 0);
	assert_int_equal(t->x.pool.memory_mb, 256);
	assert_int_equal(hotcell_pool_remove(t->h, "nobody", NULL, &t->e), -HOTCELL_NOT_FOUND);
	assert_int_equal(hotcell_pool_list(t->h, see_pool, &seen, &t->e), -HOTCELL_CANCELED);
	assert_string_equal(str_text(&seen), "base vm 3/3 ;python vm 0/2 no room;base process 0/0 ;");
	str_deinit(&seen);
}

static void t_lists_double(void **state)
{
	struct test *t = *state;
	struct hotcell_list *l;
	struct hotcell_dir *d;
	size_t n;

	assert_int_equal(hotcell_count(t->h, &n, &t->e), 0);
	assert_int_equal(n, ECHO_ITEMS);
	assert_int_equal(hotcell_list(t->h, &l, &t->e), 0);
	assert_int_equal(hotcell_list_count(l), ECHO_ITEMS);
	assert_int_equal(hotcell_sandbox_state(hotcell_list_get(l, 1)), HOTCELL_PAUSED);
	assert_int_equal(hotcell_sandbox_id(hotcell_list_get(l, 2))[1], '3');
	assert_null(hotcell_list_get(l, ECHO_ITEMS));
	hotcell_list_free(l);
	assert_int_equal(hotcell_list_dir(t->s, "/", &d, &t->e), 0);
	assert_int_equal(hotcell_dir_count(d), ECHO_ITEMS);
	assert_string_equal(hotcell_dir_name(d, 0), "a");
	assert_int_equal(hotcell_dir_size(d, 0), 5);
	assert_true(hotcell_dir_is_dir(d, 1));
	assert_int_equal(hotcell_dir_size(d, 1), 0);
	assert_null(hotcell_dir_name(d, ECHO_ITEMS));
	hotcell_dir_free(d);
	assert_int_equal(hotcell_destroy_all(t->h, &t->e), 0);
	assert_int_equal(t->x.removed, ECHO_ITEMS);
}

static int see_change(void *arg, const char *kind, const char *path)
{
	struct str *seen = arg;

	str_addf(seen, "%s %s;", kind, path);
	return strcmp(kind, "write") == 0 && str_text(seen)[0] == '.' ? -1 : 0;
}

static void t_changes_double(void **state)
{
	struct str seen = STR_INIT(1024);
	struct test *t = *state;

	assert_int_equal(hotcell_watch_dir(t->s, "in", true, 300, see_change, &seen, &t->e), -HOTCELL_TIMEOUT);
	assert_string_equal(str_text(&seen), "create a;write a;overflow ;");
	assert_string_equal(t->x.name, "in");
	assert_true(t->x.watch.recursive);
	str_clear(&seen);
	str_add(&seen, ".");
	assert_int_equal(hotcell_watch_dir(t->s, "in", false, HOTCELL_FOREVER, see_change, &seen, &t->e),
			 -HOTCELL_CANCELED);
	assert_string_equal(str_text(&seen), ".create a;write a;");
	str_deinit(&seen);
	/* the connection is as good as before */
	assert_true(hotcell_sandbox_refresh(t->s, &t->e) == 0);
}

static void t_followers_double(void **state)
{
	struct hotcell_exec_options start = HOTCELL_EXEC_OPTIONS_INIT;
	struct hotcell_attach_options o = HOTCELL_ATTACH_OPTIONS_INIT;
	struct test *t = *state;
	struct hotcell_session *x;
	int code;

	start.drop_output = true;
	assert_int_equal(hotcell_start(t->s, "fail", NULL, &start, &x, &t->e), 0);
	assert_string_equal(t->x.on_slow, "drop");
	hotcell_session_close(x);
	assert_int_equal(hotcell_attach(t->s, 1, &x, &t->e), 0);
	assert_string_equal(t->x.on_slow, "");
	assert_true(t->x.attach.stdin && !t->x.attach.from_now);
	assert_int_equal(hotcell_session_wait(x, HOTCELL_FOREVER, &code, &t->e), 0);
	assert_int_equal(code, 5);
	hotcell_session_close(x);
	o.drop_output = o.from_now = o.watch_only = true;
	assert_int_equal(hotcell_attach_with(t->s, 1, &o, &x, &t->e), 0);
	assert_string_equal(t->x.on_slow, "drop");
	assert_true(t->x.attach.from_now && !t->x.attach.stdin);
	hotcell_session_close(x);
}

static void t_programs_double(void **state)
{
	static const char *const env[] = {"A=1", NULL};
	static char big[1000000];
	struct hotcell_exec_options o = HOTCELL_EXEC_OPTIONS_INIT;
	struct test *t = *state;
	struct hotcell_result *r;
	size_t n;

	assert_int_equal(hotcell_execute(t->s, "fail", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), 7);
	assert_false(hotcell_result_success(r));
	assert_string_equal(hotcell_result_stdout(r, NULL), "out");
	assert_string_equal(hotcell_result_stderr(r, &n), "err");
	assert_int_equal(n, 3);
	assert_string_equal(hotcell_result_reason(r), "exited");
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute(t->s, "die", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), -1);
	assert_int_equal(hotcell_result_signal(r), 9);
	hotcell_result_free(r);
	/* more than every window in both directions, at once */
	memset(big, 'x', sizeof(big));
	o.input = big;
	o.input_size = sizeof(big);
	o.env = env;
	o.cwd = "/tmp";
	o.timeout_ms = 1500;
	assert_int_equal(hotcell_execute(t->s, "cat", &o, &r, &t->e), 0);
	assert_memory_equal(hotcell_result_stdout(r, &n), big, sizeof(big));
	assert_int_equal(n, sizeof(big));
	assert_false(hotcell_result_truncated(r));
	assert_string_equal(t->x.env, "A=1;");
	assert_string_equal(t->x.cwd, "/tmp");
	assert_int_equal(t->x.timeout_ms, 1500);
	hotcell_result_free(r);
	o = (struct hotcell_exec_options)HOTCELL_EXEC_OPTIONS_INIT;
	o.max_output = 55;
	assert_int_equal(hotcell_execute(t->s, "much", &o, &r, &t->e), 0);
	assert_true(hotcell_result_truncated(r));
	assert_int_equal(strlen(hotcell_result_stdout(r, NULL)), 55);
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute(t->s, "nobody", NULL, &r, &t->e), -HOTCELL_NOT_FOUND);
	assert_int_equal(hotcell_execute(t->s, "", NULL, &r, &t->e), -HOTCELL_INVALID);
}

static void t_code_double(void **state)
{
	struct hotcell_exec_options o = HOTCELL_EXEC_OPTIONS_INIT;
	struct test *t = *state;
	struct hotcell_result *r;

	assert_int_equal(hotcell_execute_code(t->s, "python", "print(1)", NULL, &r, &t->e), 0);
	assert_string_equal(t->x.argv, "python3;-;");
	assert_string_equal(hotcell_result_stdout(r, NULL), "print(1)"); /* its input, echoed */
	hotcell_result_free(r);
	assert_int_equal(hotcell_execute_code(t->s, "cobol", "x", NULL, &r, &t->e), 0);
	assert_int_equal(hotcell_result_exit_code(r), -1);
	assert_non_null(strstr(hotcell_result_stderr(r, NULL), "cobol"));
	hotcell_result_free(r);
	o.input = "x";
	assert_int_equal(hotcell_execute_code(t->s, "sh", "x", &o, &r, &t->e), -HOTCELL_INVALID);
}

static void t_sessions_double(void **state)
{
	static const char *const argv[] = {"cat", NULL};
	struct test *t = *state;
	struct hotcell_session *x;
	enum hotcell_stream which = 0;
	char p[64];
	size_t n = 0;
	int code = 99;

	assert_int_equal(hotcell_start(t->s, NULL, argv, NULL, &x, &t->e), 0);
	assert_int_equal(hotcell_session_number(x), 1);
	assert_string_equal(t->x.argv, "cat;");
	assert_int_equal(hotcell_session_read(x, p, sizeof(p), 20, &which, &n, &t->e), -HOTCELL_TIMEOUT);
	assert_int_equal(hotcell_session_write(x, "hello", 5, &t->e), 0);
	assert_int_equal(hotcell_session_read(x, p, 2, HOTCELL_FOREVER, &which, &n, &t->e), 0);
	assert_int_equal(which, HOTCELL_STDOUT);
	assert_memory_equal(p, "he", 2);
	assert_int_equal(hotcell_session_signal(x, 65, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_session_resize(x, 0, 5, &t->e), -HOTCELL_INVALID);
	hotcell_session_end_input(x);
	assert_int_equal(hotcell_session_wait(x, HOTCELL_FOREVER, &code, &t->e), 0);
	assert_int_equal(code, 0);
	assert_int_equal(hotcell_session_read(x, p, sizeof(p), 0, &which, &n, &t->e), 0);
	assert_int_equal(n, 0); /* over, as often as one asks */
	hotcell_session_close(x);
	assert_int_equal(hotcell_start(t->s, "cat", argv, NULL, &x, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_start(t->s, NULL, NULL, NULL, &x, &t->e), -HOTCELL_INVALID);
	assert_int_equal(hotcell_start(t->s, "wait", NULL, NULL, &x, &t->e), 0);
	assert_int_equal(hotcell_session_wait(x, 10, &code, &t->e), -HOTCELL_TIMEOUT);
	hotcell_session_close(x);
}

/* Programs built against older and newer headers. */
static void t_option_sizes_double(void **state)
{
	struct {
		struct hotcell_config c;
		int newer;
	} future = {HOTCELL_CONFIG_INIT, 0};
	struct hotcell_config c = {.size = offsetof(struct hotcell_config, isolation),
				   .name = "old",
				   .isolation = "not looked at"};
	struct test *t = *state;
	struct hotcell_sandbox *s;

	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), 0);
	assert_string_equal(t->x.isolation, "");
	hotcell_sandbox_close(s);
	future.c.size = sizeof(future);
	assert_int_equal(hotcell_create(t->h, &future.c, &s, &t->e), 0);
	hotcell_sandbox_close(s);
	future.newer = 1;
	assert_int_equal(hotcell_create(t->h, &future.c, &s, &t->e), -HOTCELL_INVALID);
	c.size = 0;
	assert_int_equal(hotcell_create(t->h, &c, &s, &t->e), -HOTCELL_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

T_MAIN(TEST(t_sandboxes_double),
       TEST(t_machines_double),
       TEST(t_snapshots_double),
       TEST(t_pools_double),
       TEST(t_lists_double),
       TEST(t_changes_double),
       TEST(t_followers_double),
       TEST(t_programs_double),
       TEST(t_code_double),
       TEST(t_sessions_double),
       TEST(t_option_sizes_double))
