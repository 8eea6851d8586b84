/* driver/t_null.c - the null driver keeps the contract of driver.h and does what scripts say */
#include "base/testing.h"
#include "driver/driver.h"
#include "driver/null.h"
#include "loop/loop.h"
#include "sys/fd.h"

/* A request that remembers how often and how it completed. */
struct asked {
	struct driver_usage_req usage; /* .req is the request of every call */
	unsigned done;
	int code;
	struct asked *before; /* must have completed earlier */
};

struct world_of_test {
	struct loop *loop;
	struct null_script script;
	struct machine_spec spec;
	struct machine_events ev;
	unsigned gone;
	char why[ERR_TEXT_MAX];
	int agent_fd;
};

static void on_done(struct driver_req *r, const struct err *why)
{
	struct asked *a = CONTAINER_OF(r, struct asked, usage.req);

	a->done++;
	a->code = why ? why->code : 0;
	if (a->before)
		assert_int_equal(a->before->done, 1);
}

#define ASKED {.usage.req.done = on_done}

static void on_gone(void *arg, const struct err *why)
{
	struct world_of_test *t = arg;

	t->gone++;
	(void)snprintf(t->why, sizeof(t->why), "%s", why->text);
}

static void on_agent(struct null_script *s, const struct id *id, int fd)
{
	struct world_of_test *t = s->arg;

	assert_true(id_eq(id, &t->spec.id));
	t->agent_fd = fd;
}

static void begin(struct world_of_test *t)
{
	*t = (struct world_of_test){
		.spec = {.id = {{1}}, .memory_mb = 256, .pids_max = 7, .root_fd = -1, .kernel_fd = -1, .initrd_fd = -1},
		.agent_fd = -1,
	};
	t->ev = (struct machine_events){.gone = on_gone, .arg = t};
	assert_int_equal(loop_new(true, &t->loop), 0);
	null_script_begin(&t->script);
	t->script.arg = t;
}

static void end(struct world_of_test *t)
{
	null_script_end(&t->script);
	(void)sys_close(t->agent_fd);
	t->loop = loop_free(t->loop);
}

static void turn(struct world_of_test *t)
{
	for (int i = 0; i < 3; i++)
		assert_true(loop_turn(t->loop, 0) >= 0);
}

static struct machine *create(struct world_of_test *t)
{
	struct machine *m = NULL;

	assert_int_equal(driver_null.create(t->loop, NULL, &t->spec, &t->ev, &m, NULL), 0);
	return m;
}

static struct machine *running(struct world_of_test *t)
{
	struct machine *m = create(t);
	struct asked a = ASKED;

	assert_int_equal(driver_null.start(m, &t->spec, &a.usage.req, NULL), 0);
	turn(t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
	return m;
}

static void destroy(struct world_of_test *t, struct machine *m)
{
	struct asked a = ASKED;

	driver_null.destroy(m, &a.usage.req);
	assert_int_equal(a.done, 0);
	turn(t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
}

static void lives_and_ends(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a = ASKED;
	char byte = 'x';
	int link;

	T_UNUSED(state);
	begin(&t);
	t.script.agent = on_agent;
	m = create(&t);
	assert_int_equal(driver_null.start(m, &t.spec, &a.usage.req, NULL), 0);
	assert_int_equal(a.done, 0); /* DRIVER-1: never from inside the call */
	assert_int_equal(null_script_running(&t.script), 0);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(null_script_running(&t.script), 1);
	link = driver_null.take_link(m);
	assert_true(link >= 0);
	assert_int_equal(driver_null.take_link(m), -1);
	assert_int_equal(sys_write(t.agent_fd, &byte, 1), 1);
	byte = 0;
	assert_int_equal(sys_read(link, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	(void)sys_close(link);
	destroy(&t, m);
	assert_int_equal(null_script_running(&t.script), 0);
	assert_int_equal(t.gone, 0);
	end(&t);
}

static void refuses(void **state)
{
	struct world_of_test t;
	struct machine *m = NULL;
	struct asked a = ASKED;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	begin(&t);
	t.script.steps[NULL_CREATE].mode = NULL_REFUSE;
	(void)err_set(&t.script.steps[NULL_CREATE].why, ERR_LIMIT, "no slot");
	assert_int_equal(driver_null.create(t.loop, NULL, &t.spec, &t.ev, &m, &e), -ERR_LIMIT);
	assert_string_equal(e.text, "no slot");
	assert_null(m);
	t.script.steps[NULL_CREATE].mode = NULL_OK;
	t.script.steps[NULL_START].mode = NULL_REFUSE;
	t.script.steps[NULL_ADOPT].mode = NULL_REFUSE;
	m = create(&t);
	assert_int_equal(driver_null.start(m, &t.spec, &a.usage.req, NULL), -ERR_INTERNAL);
	destroy(&t, m);
	m = NULL;
	assert_int_equal(driver_null.adopt(t.loop, NULL, &t.spec.id, &t.ev, &a.usage.req, &m, NULL),
			 -ERR_INTERNAL);
	assert_null(m);
	turn(&t);
	assert_int_equal(a.done, 0);
	assert_int_equal(t.script.seen[NULL_CREATE], 2);
	end(&t);
}

static void fails_late(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a = ASKED;

	T_UNUSED(state);
	begin(&t);
	t.script.steps[NULL_START] = (struct null_step){.mode = NULL_FAIL, .after_ns = NS_PER_S};
	(void)err_set(&t.script.steps[NULL_START].why, ERR_TIMEOUT, "late");
	m = create(&t);
	assert_int_equal(driver_null.start(m, &t.spec, &a.usage.req, NULL), 0);
	loop_advance(t.loop, NS_PER_S - 1);
	turn(&t);
	assert_int_equal(a.done, 0);
	loop_advance(t.loop, 1);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, ERR_TIMEOUT);
	assert_int_equal(null_script_running(&t.script), 0);
	assert_int_equal(driver_null.take_link(m), -1);
	destroy(&t, m);
	end(&t);
}

static void destroy_cancels_first(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked never = ASKED, soon = ASKED, d = ASKED;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	t.script.steps[NULL_RESUME].mode = NULL_NEVER;
	assert_int_equal(driver_null.resume(m, &never.usage.req, NULL), 0);
	assert_int_equal(driver_null.usage(m, &soon.usage, NULL), 0);
	d.before = &never; /* DRIVER-3 */
	driver_null.destroy(m, &d.usage.req);
	assert_int_equal(never.done, 0);
	turn(&t);
	assert_int_equal(never.done, 1);
	assert_int_equal(never.code, ERR_CANCELED);
	assert_int_equal(soon.code, ERR_CANCELED);
	assert_int_equal(d.done, 1);
	assert_int_equal(d.code, 0);
	end(&t);
}

static void dies_once(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a = ASKED;
	struct err why = ERR_INIT;

	T_UNUSED(state);
	begin(&t);
	t.script.dies_after_ns = 5 * NS_PER_S;
	m = running(&t);
	loop_advance(t.loop, 4 * NS_PER_S);
	turn(&t);
	assert_int_equal(t.gone, 0);
	(void)err_set(&why, ERR_GONE, "pulled the plug");
	assert_int_equal(null_script_kill(&t.script, &t.spec.id, &why), 0);
	assert_int_equal(t.gone, 0);
	turn(&t);
	assert_int_equal(t.gone, 1);
	assert_string_equal(t.why, "pulled the plug");
	loop_advance(t.loop, 4 * NS_PER_S);
	assert_int_equal(driver_null.stop(m, 0, &a.usage.req, NULL), 0);
	turn(&t);
	assert_int_equal(t.gone, 1); /* DRIVER-2 */
	destroy(&t, m);
	assert_int_equal(null_script_kill(&t.script, &t.spec.id, &why), -ENOENT);
	end(&t);
}

static void stop_ends_it(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a = ASKED, u = ASKED;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	assert_int_equal(driver_null.usage(m, &u.usage, NULL), 0);
	turn(&t);
	assert_int_equal(u.usage.usage.memory_max_bytes, 256 * MIB);
	assert_int_equal(u.usage.usage.pids_max, 7);
	assert_int_equal(driver_null.stop(m, 100, &a.usage.req, NULL), 0);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(t.gone, 1);
	destroy(&t, m);
	end(&t);
}

static void another_adopts(void **state)
{
	struct world_of_test t;
	struct machine *m, *n = NULL;
	struct asked a = ASKED, b = ASKED;
	struct id stranger = {{9}};

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	driver_null.forget(m);
	assert_int_equal(null_script_running(&t.script), 1);
	assert_int_equal(driver_null.adopt(t.loop, NULL, &t.spec.id, &t.ev, &a.usage.req, &m, NULL), 0);
	assert_int_equal(driver_null.adopt(t.loop, NULL, &stranger, &t.ev, &b.usage.req, &n, NULL), 0);
	turn(&t);
	assert_int_equal(a.code, 0);
	assert_int_equal(b.code, ERR_NOT_FOUND);
	destroy(&t, n);
	destroy(&t, m);
	assert_int_equal(null_script_running(&t.script), 0);
	end(&t);
}

static void adopts_the_dead(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a = ASKED;
	struct err why = ERR_INIT;

	T_UNUSED(state);
	begin(&t);
	driver_null.forget(running(&t));
	(void)err_set(&why, ERR_GONE, "died alone");
	assert_int_equal(null_script_kill(&t.script, &t.spec.id, &why), 0);
	assert_int_equal(driver_null.adopt(t.loop, NULL, &t.spec.id, &t.ev, &a.usage.req, &m, NULL), 0);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(t.gone, 1);
	assert_string_equal(t.why, "died alone");
	destroy(&t, m);
	end(&t);
}

static void second_fails(struct null_script *s, enum null_call call, const struct id *id,
			 unsigned nth, struct null_step *step)
{
	(void)s;
	(void)id;
	if (call == NULL_USAGE && nth == 2)
		step->mode = NULL_FAIL;
}

static void chooses_by_call(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked a[3] = {ASKED, ASKED, ASKED};

	T_UNUSED(state);
	begin(&t);
	t.script.choose = second_fails;
	m = running(&t);
	for (int i = 0; i < 3; i++)
		assert_int_equal(driver_null.usage(m, &a[i].usage, NULL), 0);
	turn(&t);
	assert_int_equal(a[0].code, 0);
	assert_int_equal(a[1].code, ERR_INTERNAL);
	assert_int_equal(a[2].code, 0);
	destroy(&t, m);
	end(&t);
}

static void destroy_may_hang_or_fail(void **state)
{
	struct world_of_test t;
	struct machine *m;
	struct asked hung = ASKED, failed = ASKED, never = ASKED;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	t.script.steps[NULL_RESUME].mode = NULL_NEVER;
	t.script.steps[NULL_DESTROY].mode = NULL_FAIL;
	driver_null.destroy(m, &failed.usage.req);
	turn(&t);
	assert_int_equal(failed.code, ERR_INTERNAL);
	assert_int_equal(null_script_running(&t.script), 1); /* what runs is out of reach, not gone */
	assert_int_equal(driver_null.adopt(t.loop, NULL, &t.spec.id, &t.ev, &hung.usage.req, &m, NULL), 0);
	turn(&t);
	hung = (struct asked)ASKED;
	assert_int_equal(driver_null.resume(m, &never.usage.req, NULL), 0);
	t.script.steps[NULL_DESTROY].mode = NULL_NEVER;
	driver_null.destroy(m, &hung.usage.req);
	turn(&t);
	assert_int_equal(never.code, ERR_CANCELED);
	assert_int_equal(hung.done, 0);
	end(&t);
}

static void runs_without_script(void **state)
{
	struct world_of_test t;

	T_UNUSED(state);
	begin(&t);
	null_script_end(&t.script); /* NULL-1 */
	destroy(&t, running(&t));
	driver_null.forget(running(&t));
	t.loop = loop_free(t.loop);
}

T_MAIN(T(lives_and_ends), T(refuses), T(fails_late), T(destroy_cancels_first), T(dies_once),
       T(stop_ends_it), T(another_adopts), T(adopts_the_dead), T(chooses_by_call),
       T(destroy_may_hang_or_fail), T(runs_without_script))
