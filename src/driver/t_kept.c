/* driver/t_kept.c - the drivers of the keeper keep the contract of driver.h, against a keeper played here */
#include "driver/kept.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include "base/err.h"
#include "base/str.h"
#include "base/testing.h"
#include "driver/monitor.h"
#include "keeper/jail_qemu.h"
#include "keeper/keeper.h"
#include "loop/link.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"
#include "wire/gen/records.h"

enum { TURNS = 50, HELD_MAX = 4 };
enum answer { ANSWERS, FAILS, HOLDS };

struct asked {
	struct driver_usage_req usage; /* .req is the request of every call */
	unsigned done;
	int code;
	char text[ERR_TEXT_MAX];
	struct asked *before; /* must have completed earlier */
};

struct stage {
	struct loop *loop;
	struct keeper *keeper;
	bool up, lost;

	/* the keeper played here */
	char dir[64], path[96];
	int listen_fd;
	struct loop_io accept_io;
	struct link *link;
	struct stream *watcher, *held[HELD_MAX];
	unsigned n_held, releases;
	bool is_old; /* of 0.1.0 */
	enum answer start, others;
	bool has_monitor;
	int agent_fd, qemu_fd; /* the guest's end of the link, QEMU's of the monitor */

	/* the machine */
	struct machine_spec spec;
	struct machine_events ev;
	unsigned gone;
	char why[ERR_TEXT_MAX];
};

/* ---- the keeper ---- */

static void close_all(const int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)sys_close(fds[i]);
}

static void reply_started(struct stage *t, struct stream *s)
{
	const struct rec_machine_started rec = {.id = t->spec.id, .pid = 4711, .kind = 2};
	int link[2], monitor[2] = {-1, -1}, fds[3];

	assert_int_equal(sys_socketpair(link), 0);
	if (t->has_monitor)
		assert_int_equal(sys_socketpair(monitor), 0);
	t->agent_fd = link[1];
	t->qemu_fd = monitor[1];
	fds[KEEPER_LINK] = link[0];
	fds[KEEPER_PIDFD] = eventfd(0, EFD_CLOEXEC);
	fds[KEEPER_MONITOR] = monitor[0];
	assert_int_equal(stream_reply(s, &rec_machine_started_type, &rec, false, fds, t->has_monitor ? 3 : 2, NULL), 0);
	close_all(fds, 3);
}

static void reply_copied(struct stream *s)
{
	const struct rec_machine_copied rec = {.bytes = 4096, .copy_us = 12};
	AUTO_CLOSE int fd = eventfd(0, EFD_CLOEXEC);

	assert_int_equal(stream_reply(s, &rec_machine_copied_type, &rec, false, &fd, 1, NULL), 0);
}

static void reply(struct stage *t, struct stream *s, unsigned method)
{
	const struct rec_keeper_info host = {.version = span_of("t"), .qemu = span_of("7.2.22"), .root = true,
					      .pid = 4711, .opens_trees = !t->is_old};
	const struct rec_machine_stats stats = {.memory_bytes = 5, .memory_max_bytes = 6, .cpu_us = 7, .pids = 8};

	if (method == METHOD_KEEPER_HELLO)
		assert_int_equal(stream_reply(s, &rec_keeper_info_type, &host, false, NULL, 0, NULL), 0);
	else if (method == METHOD_MACHINE_TAKE)
		reply_copied(s);
	else if (method == METHOD_MACHINE_START || method == METHOD_MACHINE_ADOPT)
		reply_started(t, s);
	else if (method == METHOD_MACHINE_STATS)
		assert_int_equal(stream_reply(s, &rec_machine_stats_type, &stats, false, NULL, 0, NULL), 0);
	else
		assert_int_equal(stream_reply(s, &rec_empty_type, &(struct rec_empty){0},
					      method == METHOD_MACHINE_WATCH, NULL, 0, NULL), 0);
}

static enum answer answer_to(const struct stage *t, unsigned method)
{
	switch (method) {
	case METHOD_MACHINE_START:
	case METHOD_MACHINE_ADOPT:
		return t->start;
	case METHOD_MACHINE_STATS:
	case METHOD_MACHINE_STOP:
	case METHOD_MACHINE_TAKE:
		return t->others;
	default:
		return ANSWERS;
	}
}

static void on_request(struct link *k, struct stream *s, unsigned method, struct span payload,
		       const int *fds, unsigned n_fds)
{
	static const struct stream_ops none;
	struct stage *t = link_arg(k);
	struct err e;

	(void)payload;
	close_all(fds, n_fds);
	t->releases += method == METHOD_MACHINE_RELEASE;
	if (answer_to(t, method) == FAILS) {
		(void)err_set(&e, ERR_LIMIT, "no free slot");
		stream_fail(s, &e);
		return;
	}
	stream_accept(s, &none, NULL);
	if (method == METHOD_MACHINE_WATCH)
		t->watcher = s;
	if (answer_to(t, method) == HOLDS)
		t->held[t->n_held++] = s;
	else
		reply(t, s, method);
}

static void on_link_down(struct link *k, const struct err *why)
{
	(void)why;
	(void)k;
}

static void on_accept(struct loop_io *io, unsigned events)
{
	static const struct link_ops ops = {.request = on_request, .down = on_link_down};
	struct stage *t = CONTAINER_OF(io, struct stage, accept_io);
	int fd = sys_accept(io->fd);

	(void)events;
	assert_true(fd >= 0);
	assert_int_equal(link_new(t->loop, fd, LINK_FDS | LINK_SOCKET, 0, &ops, t, &t->link, NULL), 0);
}

/* The machine ended, says the keeper. */
static void tell_gone(struct stage *t, const char *reason, unsigned signal)
{
	const struct rec_machine_info info = {
		.id = t->spec.id, .kind = 2, .gone = true, .signal = signal, .reason = span_of(reason),
	};

	assert_true(stream_send_item(t->watcher, &rec_machine_info_type, &info));
}

/* ---- the stage ---- */

static void turn(struct stage *t)
{
	for (int i = 0; i < TURNS; i++)
		assert_true(loop_turn(t->loop, 0) >= 0);
}

static void on_up(void *arg)
{
	((struct stage *)arg)->up = true;
}

static void on_lost(void *arg, const struct err *why)
{
	(void)why;
	((struct stage *)arg)->lost = true;
}

static void on_gone(void *arg, const struct err *why)
{
	struct stage *t = arg;

	t->gone++;
	(void)snprintf(t->why, sizeof(t->why), "%s", why->text);
}

static void begin_with(struct stage *t, bool is_old)
{
	const struct keeper_events ev = {.up = on_up, .lost = on_lost, .arg = t};

	*t = (struct stage){
		.dir = "/tmp/t_kept.XXXXXX", .is_old = is_old, .has_monitor = true, .agent_fd = -1, .qemu_fd = -1,
		.spec = {.id = {{1, 2, 3}}, .vcpus = 1, .memory_mb = 256, .n_layers = 1,
			 .memory_fd = -1, .state_fd = -1,
			 .closure = "", .image = "5eed", .lease_ms = 1000},
	};
	t->ev = (struct machine_events){.gone = on_gone, .arg = t};
	assert_non_null(mkdtemp(t->dir));
	(void)snprintf(t->path, sizeof(t->path), "%s/s", t->dir);
	t->spec.root_fd = t->spec.kernel_fd = t->spec.initrd_fd = t->spec.layers[0] =
		sys_open("/dev/null", O_RDWR);
	assert_int_equal(loop_new(true, &t->loop), 0);
	t->listen_fd = sys_unix_listen(t->path, 0600);
	assert_true(t->listen_fd >= 0);
	assert_int_equal(loop_io_add(t->loop, &t->accept_io, t->listen_fd, LOOP_READ, on_accept), 0);
	assert_int_equal(keeper_new(t->loop, t->path, &ev, &t->keeper, NULL), 0);
	turn(t);
	assert_true(t->up && t->watcher);
}

static void begin(struct stage *t)
{
	begin_with(t, false);
}

static void end(struct stage *t)
{
	t->keeper = keeper_free(t->keeper);
	t->link = link_free(t->link);
	loop_io_del(t->loop, &t->accept_io);
	t->loop = loop_free(t->loop);
	(void)sys_close(t->listen_fd);
	(void)sys_close(t->agent_fd);
	(void)sys_close(t->qemu_fd);
	(void)sys_close(t->spec.root_fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, t->dir), 0);
}

static void on_done(struct driver_req *r, const struct err *why)
{
	struct asked *a = CONTAINER_OF(r, struct asked, usage.req);

	a->done++;
	a->code = why ? why->code : 0;
	(void)snprintf(a->text, sizeof(a->text), "%s", why ? why->text : "");
	if (a->before)
		assert_int_equal(a->before->done, 1);
}

#define ASKED {.usage.req.done = on_done}

static void qemu_says(struct stage *t, const char *line)
{
	assert_int_equal(sys_write_full(t->qemu_fd, line, strlen(line)), 0);
	turn(t);
}

/* QEMU hears a command that holds @word, and answers with this. */
static void qemu_hears_and_says(struct stage *t, const char *word, const char *kind, const char *what)
{
	char heard[256], line[256], *id;
	ssize_t n = sys_read(t->qemu_fd, heard, sizeof(heard) - 1);

	assert_true(n > 0);
	heard[n] = '\0';
	if (!strstr(heard, word))
		fail_msg("\"%s\", wanted %s", heard, word);
	id = strstr(heard, "\"id\":");
	assert_non_null(id);
	(void)snprintf(line, sizeof(line), "{\"%s\": %s, \"id\": %llu}\n", kind, what, strtoull(id + 5, NULL, 10));
	qemu_says(t, line);
}

/* It answers well, or @failure. */
static void qemu_hears(struct stage *t, const char *word, const char *failure)
{
	char what[128];

	(void)snprintf(what, sizeof(what), "{\"class\": \"GenericError\", \"desc\": \"%s\"}", failure ? failure : "");
	qemu_hears_and_says(t, word, failure ? "error" : "return", failure ? what : "{}");
}

/* QEMU answers the hello with what follows it. */
static void qemu_answers(struct stage *t)
{
	qemu_hears(t, "", NULL);
}

static struct machine *starting(struct stage *t, struct asked *a)
{
	struct machine *m = NULL;

	assert_int_equal(driver_qemu.create(t->loop, t->keeper, &t->spec, &t->ev, &m, NULL), 0);
	assert_int_equal(driver_qemu.start(m, &t->spec, &a->usage.req, NULL), 0);
	assert_int_equal(a->done, 0);
	turn(t);
	return m;
}

static struct machine *running(struct stage *t)
{
	struct asked a = ASKED;
	struct machine *m = starting(t, &a);

	assert_int_equal(a.done, 0); /* not before QEMU answers */
	qemu_answers(t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
	return m;
}

static void destroy(struct stage *t, struct machine *m)
{
	struct asked a = ASKED;

	driver_qemu.destroy(m, &a.usage.req);
	assert_int_equal(a.done, 0);
	turn(t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
	assert_int_equal(t->releases, 1);
}

/* ---- tests ---- */

static void lives(void **state)
{
	struct asked u = ASKED, s = ASKED, again = ASKED;
	struct machine *m;
	struct stage t;
	char byte = 'x';
	int link;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	assert_int_equal(driver_qemu.pid(m), 4711);
	link = driver_qemu.take_link(m);
	assert_int_equal(driver_qemu.take_link(m), -1);
	assert_int_equal(sys_write(t.agent_fd, &byte, 1), 1);
	byte = 0;
	assert_int_equal(sys_read(link, &byte, 1), 1);
	assert_int_equal(byte, 'x');
	(void)sys_close(link);
	assert_int_equal(driver_qemu.start(m, &t.spec, &again.usage.req, NULL), -ERR_CONFLICT);
	assert_int_equal(driver_qemu.usage(m, &u.usage, NULL), 0);
	assert_int_equal(driver_qemu.stop(m, 10, &s.usage.req, NULL), 0);
	turn(&t);
	assert_int_equal(u.done + s.done, 2);
	assert_int_equal(u.usage.usage.memory_max_bytes, 6);
	assert_int_equal(t.gone, 0);
	destroy(&t, m);
	end(&t);
}

#define SHUTDOWN(why) "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"" why "\"}}\n"

static void tells_the_end_once(void **state)
{
	static const struct {
		const char *event, *reason, *says;
		unsigned signal;
	} cases[] = {
		{SHUTDOWN("guest-reset"), "exited: x", "restarted or panicked", 0},
		{SHUTDOWN("guest-shutdown"), "exited", "from inside", 0},
		{"", "killed", "jail forbids", SIGSYS},
		{"nonsense\n", "oom: \x1b[31mred\n", "oom: \\x1b[31mred\\n", SIGKILL},
		{"", "", "the machine ended", SIGKILL},
		{"", "exited: [1] Kernel panic - not syncing: why\n[1] more", "... Kernel panic - not syncing: why", 0},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct asked u = ASKED;
		struct machine *m;
		struct stage t;

		begin(&t);
		m = running(&t);
		tell_gone(&t, cases[i].reason, cases[i].signal);
		assert_int_equal(sys_write_full(t.qemu_fd, cases[i].event, strlen(cases[i].event)), 0);
		turn(&t);
		tell_gone(&t, "again", 0);
		turn(&t);
		assert_int_equal(t.gone, 1); /* DRIVER-2 */
		assert_non_null(strstr(t.why, cases[i].says));
		assert_int_equal(driver_qemu.usage(m, &u.usage, NULL), -ERR_GONE);
		destroy(&t, m);
		end(&t);
	}
}

static void cuts_long_last_words(void **state)
{
	struct str s = STR_INIT(4096);
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	str_add(&s, "exited: ");
	for (int i = 0; i < 90; i++)
		str_addf(&s, "line %d ", i);
	str_add(&s, "the end");
	tell_gone(&t, str_text(&s), 0);
	turn(&t);
	assert_non_null(strstr(t.why, "exited: ... "));
	assert_non_null(strstr(t.why, "the end"));
	assert_null(strstr(t.why, "line 1 "));
	str_deinit(&s);
	destroy(&t, m);
	end(&t);
}

static void a_start_can_fail(void **state)
{
	struct asked a = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	t.start = FAILS;
	m = starting(&t, &a);
	assert_int_equal(a.code, ERR_LIMIT);
	assert_string_equal(a.text, "no free slot");
	assert_int_equal(driver_qemu.take_link(m), -1);
	destroy(&t, m);
	assert_int_equal(t.gone, 0);
	end(&t);
}

static void dies_while_starting(void **state)
{
	struct asked a = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = starting(&t, &a);
	tell_gone(&t, "exited: no such machine type", 0);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, ERR_GONE);
	assert_non_null(strstr(a.text, "no such machine type"));
	assert_int_equal(t.gone, 0);
	destroy(&t, m);
	end(&t);
}

static void a_silent_monitor_fails_the_start(void **state)
{
	struct asked a = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = starting(&t, &a);
	loop_advance(t.loop, MONITOR_HELLO_MS * NS_PER_MS);
	turn(&t);
	assert_int_equal(a.code, ERR_TIMEOUT);
	destroy(&t, m);
	end(&t);
}

/* QEMU says why it ends on its console, which the keeper reads: that is the reason, if it comes. */
static void a_qemu_that_ends_at_once_says_why(void **state)
{
	struct asked told = ASKED, silent = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = starting(&t, &told);
	t.qemu_fd = sys_close(t.qemu_fd);
	turn(&t);
	assert_int_equal(told.done, 0);
	tell_gone(&t, "exited with status 1: image is corrupt", 0);
	turn(&t);
	assert_int_equal(told.code, ERR_GONE);
	assert_non_null(strstr(told.text, "image is corrupt"));
	destroy(&t, m);
	t.releases = 0;
	t.agent_fd = sys_close(t.agent_fd);
	m = starting(&t, &silent);
	t.qemu_fd = sys_close(t.qemu_fd);
	turn(&t);
	assert_int_equal(silent.done, 0);
	loop_advance(t.loop, 1001 * NS_PER_MS);
	turn(&t);
	assert_int_equal(silent.done, 1);
	assert_non_null(strstr(silent.text, "monitor"));
	destroy(&t, m);
	end(&t);
}

static void a_broken_monitor_ends_alone(void **state)
{
	struct asked u = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	assert_int_equal(sys_write_full(t.qemu_fd, "[[[[\n", 5), 0);
	turn(&t);
	assert_int_equal(t.gone, 0);
	assert_int_equal(driver_qemu.usage(m, &u.usage, NULL), 0);
	turn(&t);
	assert_int_equal(u.code, 0);
	destroy(&t, m);
	end(&t);
}

static void destroy_cancels_first(void **state)
{
	static const bool in_start[] = {true, false};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(in_start); i++) {
		struct asked a = ASKED, d = ASKED;
		struct machine *m;
		struct stage t;

		begin(&t);
		t.start = in_start[i] ? HOLDS : ANSWERS;
		t.others = HOLDS;
		m = in_start[i] ? starting(&t, &a) : running(&t);
		if (!in_start[i])
			assert_int_equal(driver_qemu.usage(m, &a.usage, NULL), 0);
		turn(&t);
		assert_int_equal(a.done, 0);
		d.before = &a; /* DRIVER-3 */
		driver_qemu.destroy(m, &d.usage.req);
		assert_int_equal(a.done, 0);
		turn(&t);
		assert_int_equal(a.done, 1);
		assert_int_equal(a.code, ERR_CANCELED);
		assert_int_equal(d.done, 1);
		reply(&t, t.held[0], in_start[i] ? METHOD_MACHINE_START : METHOD_MACHINE_STATS);
		turn(&t); /* descriptors nobody wants any more are closed: t_after looks */
		assert_int_equal(a.done, 1);
		end(&t);
	}
}

static void forgets(void **state)
{
	static const enum answer starts[] = {HOLDS, ANSWERS};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
		struct asked a = ASKED;
		struct stage t;

		begin(&t);
		t.start = starts[i];
		driver_qemu.forget(starting(&t, &a));
		turn(&t);
		if (starts[i] == HOLDS)
			reply(&t, t.held[0], METHOD_MACHINE_START);
		turn(&t);
		tell_gone(&t, "exited", 0);
		turn(&t);
		assert_int_equal(a.done + t.gone + t.releases, 0);
		end(&t);
	}
}

static void adopts(void **state)
{
	struct asked a = ASKED, b = ASKED;
	struct machine *m, *n;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	assert_int_equal(driver_qemu.adopt(t.loop, t.keeper, &t.spec.id, &t.ev, &a.usage.req, &m, NULL), 0);
	turn(&t);
	assert_int_equal(a.done, 0);
	qemu_answers(&t); /* the hello */
	qemu_hears_and_says(&t, "qom-get", "return", "\"l3\"");
	qemu_hears(&t, "\"l4\"", "no such node"); /* nothing was left */
	qemu_hears(&t, "\"l4-file\"", NULL);	     /* this was */
	qemu_hears(&t, "remove-fd", "no such set");
	qemu_hears(&t, "remove-fd", "no such set");
	assert_int_equal(a.done, 0);
	qemu_hears(&t, "cont", NULL); /* in case it stands still */
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
	assert_int_equal(driver_qemu.top(m), 3);
	t.start = FAILS;
	assert_int_equal(driver_qemu.adopt(t.loop, t.keeper, &t.spec.id, &t.ev, &b.usage.req, &n, NULL), 0);
	turn(&t);
	assert_int_equal(b.code, ERR_LIMIT);
	driver_qemu.forget(n);
	destroy(&t, m);
	end(&t);
}

static void a_lost_keeper_ends_calls(void **state)
{
	struct asked a = ASKED, d = ASKED, b = ASKED;
	struct machine *m, *n;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	t.start = HOLDS;
	m = starting(&t, &a);
	t.link = link_free(t.link);
	turn(&t);
	assert_true(t.lost);
	assert_int_equal(a.done, 1);
	assert_true(a.code != 0);
	driver_qemu.destroy(m, &d.usage.req);
	assert_int_equal(d.done, 0);
	turn(&t);
	assert_int_equal(d.done, 1);
	assert_true(d.code != 0);
	assert_true(driver_qemu.adopt(t.loop, t.keeper, &t.spec.id, &t.ev, &b.usage.req, &n, NULL) < 0);
	end(&t);
}

/* Two places know it, for the promise and for the control group. */
static void promises_what_a_machine_may_take(void **state)
{
	static const uint64_t sizes[] = {128, 300, 512, 2048, 32768};
	unsigned mb = 0, permille = 0;

	T_UNUSED(state);
	driver_qemu.extra(NULL, &mb, &permille);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		const struct rec_machine_start rec = {.kind = 2, .memory_mb = sizes[i]};

		assert_int_equal(jail_qemu_memory(&rec), (sizes[i] + mb + (sizes[i] * permille + 999) / 1000) * MIB);
	}
}

static void checks_the_spec(void **state)
{
	struct machine_spec none;
	struct machine *m = NULL;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	assert_string_equal(driver_qemu.wall(t.keeper), "vm-emulated");
	assert_int_equal(driver_qemu.probe(NULL, NULL), -ERR_UNSUPPORTED);
	none = t.spec;
	none.kernel_fd = -1;
	assert_int_equal(driver_qemu.create(t.loop, t.keeper, &none, &t.ev, &m, NULL), -ERR_INVALID);
	none = t.spec;
	none.n_layers = LIMIT_DISK_LAYERS + 1;
	assert_int_equal(driver_qemu.create(t.loop, t.keeper, &none, &t.ev, &m, NULL), -ERR_INVALID);
	none = t.spec;
	none.memory_fd = none.root_fd; /* a fork without state */
	assert_int_equal(driver_qemu.create(t.loop, t.keeper, &none, &t.ev, &m, NULL), -ERR_INVALID);
	assert_null(m);
	end(&t);
}

/* No monitor: it is up as soon as the keeper says so. */
static void process_needs_no_monitor(void **state)
{
	struct asked a = ASKED;
	struct machine *m = NULL;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	t.has_monitor = false;
	assert_int_equal(driver_process.create(t.loop, t.keeper, &t.spec, &t.ev, &m, NULL), -ERR_UNSUPPORTED);
	t.spec.n_layers = 0;
	assert_int_equal(driver_process.create(t.loop, t.keeper, &t.spec, &t.ev, &m, NULL), 0);
	assert_int_equal(driver_process.start(m, &t.spec, &a.usage.req, NULL), 0);
	turn(&t);
	assert_int_equal(a.done, 1);
	assert_int_equal(a.code, 0);
	destroy(&t, m);
	end(&t);
}

struct copied {
	struct driver_capture rq;
	unsigned done;
	int code;
};

static void on_copied(struct driver_req *r, const struct err *why)
{
	struct copied *c = CONTAINER_OF(CONTAINER_OF(r, struct driver_capture, req), struct copied, rq);

	c->done++;
	c->code = why ? why->code : 0;
}

/* It would take the root of a process sandbox as a descriptor, of anything. Machines are as they were. */
static void an_older_keeper_starts_no_process_sandbox(void **state)
{
	struct machine *m = NULL;
	struct err e = ERR_INIT;
	struct stage t;

	T_UNUSED(state);
	begin_with(&t, true);
	assert_int_equal(driver_qemu.probe(t.keeper, &e), 0);
	assert_int_equal(driver_process.probe(t.keeper, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "version t"));
	assert_non_null(strstr(e.text, "kill 4711"));
	t.spec.n_layers = 0;
	assert_int_equal(driver_process.create(t.loop, t.keeper, &t.spec, &t.ev, &m, &e), -ERR_UNSUPPORTED);
	end(&t);
}

static void process_files_are_copied(void **state)
{
	struct asked a = ASKED;
	struct copied good = {.rq.req.done = on_copied}, bad = good, held = good, late = good;
	struct machine *m = NULL;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	t.has_monitor = false;
	t.spec.n_layers = 0;
	t.spec.memory_fd = t.spec.root_fd; /* it starts with files itself */
	assert_int_equal(driver_process.create(t.loop, t.keeper, &t.spec, &t.ev, &m, NULL), 0);
	assert_int_equal(driver_process.capture(m, &late.rq, NULL), -ERR_GONE);
	assert_int_equal(driver_process.start(m, &t.spec, &a.usage.req, NULL), 0);
	turn(&t);
	assert_int_equal(a.code, 0);
	assert_int_equal(driver_process.capture(m, &good.rq, NULL), 0);
	turn(&t);
	assert_int_equal(good.done, 1);
	assert_int_equal(good.code, 0);
	assert_true(good.rq.memory_fd >= 0);
	assert_int_equal(good.rq.state_fd, -1);
	assert_int_equal(good.rq.copied_bytes, 4096);
	assert_int_equal(good.rq.pause_us, 12);
	assert_false(good.rq.is_layered);
	(void)sys_close(good.rq.memory_fd);
	t.others = FAILS;
	assert_int_equal(driver_process.capture(m, &bad.rq, NULL), 0);
	turn(&t);
	assert_int_equal(bad.code, ERR_LIMIT);
	assert_int_equal(bad.rq.memory_fd, -1);
	t.others = HOLDS;
	assert_int_equal(driver_process.capture(m, &held.rq, NULL), 0);
	turn(&t);
	assert_int_equal(held.done, 0);
	destroy(&t, m); /* DRIVER-3 */
	assert_int_equal(held.done, 1);
	assert_int_equal(held.code, ERR_CANCELED);
	end(&t);
}

/* The keeper answers in the very turn in which the machine is destroyed: nobody is left to be asked. */
static void a_copy_that_ends_with_its_machine(void **state)
{
	struct copied c = {.rq.req.done = on_copied, .rq.overlay_fd = -1};
	struct asked gone = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	t.others = HOLDS;
	assert_int_equal(driver_qemu.capture(m, &c.rq, NULL), 0);
	turn(&t);
	qemu_hears(&t, "add-fd", NULL);
	qemu_hears(&t, "\"stop\"", NULL);
	qemu_hears(&t, "xen-save-devices-state", NULL);
	qemu_hears(&t, "\"cont\"", NULL);
	assert_int_equal(t.n_held, 1);
	reply(&t, t.held[0], METHOD_MACHINE_TAKE);
	assert_int_equal(loop_turn(t.loop, 0), 0); /* it is on its way, not yet read */
	assert_int_equal(c.done, 0);
	driver_qemu.destroy(m, &gone.usage.req);
	turn(&t);
	assert_int_equal(c.done, 1);
	assert_int_equal(c.code, ERR_CANCELED);
	assert_int_equal(gone.done, 1);
	end(&t);
}

/* A QEMU that says anything else is its guest's. */
static void an_odd_layer_is_not_believed(void **state)
{
	static const char *const words[] = {"{}", "\"\"", "\"3\"", "\"l-1\"", "\"l3 \"", "\"l03\"", "\"l99999999999\"",
					    "\"l2147483647\""};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct asked a = ASKED;
		struct machine *m;
		struct stage t;

		begin(&t);
		assert_int_equal(driver_qemu.adopt(t.loop, t.keeper, &t.spec.id, &t.ev, &a.usage.req, &m, NULL), 0);
		turn(&t);
		qemu_answers(&t);
		qemu_hears_and_says(&t, "qom-get", "return", words[i]);
		assert_int_equal(a.code, ERR_INVALID);
		assert_int_equal(driver_qemu.top(m), -1);
		destroy(&t, m);
		end(&t);
	}
}

/* ---- a full disk ---- */

static const char no_room[] =
	"{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"action\": \"stop\", \"reason\": \"No space left on device\"}}\n";

static void a_machine_without_room_tries_again(void **state)
{
	struct asked a = ASKED;
	struct machine *m;
	struct stage t;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	for (int i = 0; i < 3; i++) {
		qemu_says(&t, no_room);
		turn(&t);
		assert_true(driver_qemu.lacks_room(m));
		loop_advance(t.loop, 900 * NS_PER_MS);
		turn(&t);
		assert_int_equal(sys_read(t.qemu_fd, (char[1]){0}, 1), -EAGAIN); /* not at once */
		loop_advance(t.loop, 101 * NS_PER_MS);
		turn(&t);
		qemu_hears(&t, "cont", i == 1 ? "still full" : NULL);
	}
	loop_advance(t.loop, 10000 * NS_PER_MS);
	turn(&t);
	assert_int_equal(sys_read(t.qemu_fd, (char[1]){0}, 1), -EAGAIN); /* there was room */
	assert_false(driver_qemu.lacks_room(m));
	qemu_says(&t, no_room);
	assert_int_equal(driver_qemu.resume(m, &a.usage.req, NULL), 0);
	destroy(&t, m);
	end(&t);
}

/* ---- flatten ---- */

static const char job_over[] = "{\"event\": \"BLOCK_JOB_COMPLETED\", \"data\": {\"device\": \"flatten\"}}\n";
static const char job_failed[] = "{\"event\": \"BLOCK_JOB_COMPLETED\", \"data\": {\"error\": \"it broke\"}}\n";
static const char job_full[] =
	"{\"event\": \"BLOCK_JOB_COMPLETED\", \"data\": {\"error\": \"No space left on device\"}}\n";

/* The event may come before the answer to what caused it. */
static void merged_layers_are_let_go_of(void **state)
{
	T_UNUSED(state);
	for (int early = 0; early < 2; early++) {
		struct asked a = ASKED, other = ASKED;
		struct stage t;
		struct machine *m;

		begin(&t);
		m = running(&t);
		assert_int_equal(driver_qemu.flatten(m, 3, 5, &a.usage.req, NULL), 0);
		assert_int_equal(driver_qemu.flatten(m, 3, 5, &other.usage.req, NULL), -ERR_CONFLICT);
		turn(&t);
		if (early)
			qemu_says(&t, job_over);
		qemu_hears(&t, "\"block-stream\"", NULL);
		if (!early)
			qemu_says(&t, job_over);
		for (int node = 3; node < 5; node++) {
			char word[32];

			(void)snprintf(word, sizeof(word), "\"l%d\"", node);
			qemu_hears(&t, word, NULL);
			(void)snprintf(word, sizeof(word), "\"l%d-file\"", node);
			qemu_hears(&t, word, node == 3 ? "busy" : NULL); /* costs a descriptor, no more */
			assert_int_equal(a.done, 0);
			(void)snprintf(word, sizeof(word), "%d", KEEPER_LAYER_SET + node);
			qemu_hears(&t, word, NULL);
		}
		assert_int_equal(a.done, 1);
		assert_int_equal(a.code, 0);
		assert_int_equal(other.done, 0);
		destroy(&t, m);
		end(&t);
	}
}

static void a_failed_merge_is_told(void **state)
{
	struct asked refused = ASKED, broken = ASKED, full = ASKED, held = ASKED;
	struct stage t;
	struct machine *m;

	T_UNUSED(state);
	begin(&t);
	m = running(&t);
	assert_int_equal(driver_qemu.flatten(m, 1, 7, &refused.usage.req, NULL), 0);
	turn(&t);
	qemu_hears(&t, "\"l7\"", "node is busy");
	assert_int_equal(refused.done, 1);
	assert_non_null(strstr(refused.text, "node is busy"));
	assert_int_equal(driver_qemu.flatten(m, 1, 7, &broken.usage.req, NULL), 0);
	turn(&t);
	qemu_hears(&t, "block-stream", NULL);
	qemu_says(&t, job_failed);
	assert_int_equal(broken.code, ERR_UNAVAILABLE);
	assert_non_null(strstr(broken.text, "it broke"));
	assert_int_equal(driver_qemu.flatten(m, 1, 7, &full.usage.req, NULL), 0);
	turn(&t);
	qemu_hears(&t, "block-stream", NULL);
	qemu_says(&t, job_full);
	assert_int_equal(full.code, ERR_LIMIT);
	assert_non_null(strstr(full.text, "is full"));
	assert_int_equal(driver_qemu.flatten(m, 1, 7, &held.usage.req, NULL), 0);
	turn(&t);
	destroy(&t, m); /* DRIVER-3 */
	assert_int_equal(held.code, ERR_CANCELED);
	end(&t);
}

/* QEMU never says that it is done, or nothing at all any more. */
static void a_merge_has_an_end(void **state)
{
	T_UNUSED(state);
	for (int ends = 0; ends < 2; ends++) {
		struct asked a = ASKED;
		struct stage t;
		struct machine *m;

		begin(&t);
		m = running(&t);
		assert_int_equal(driver_qemu.flatten(m, 1, 7, &a.usage.req, NULL), 0);
		turn(&t);
		qemu_hears(&t, "block-stream", NULL);
		assert_int_equal(a.done, 0);
		if (ends)
			t.qemu_fd = sys_close(t.qemu_fd);
		else
			loop_advance(t.loop, 1801 * NS_PER_S);
		turn(&t);
		assert_int_equal(a.done, 1);
		assert_int_equal(a.code, ends ? ERR_GONE : ERR_TIMEOUT);
		destroy(&t, m);
		end(&t);
	}
}

T_MAIN(T(lives), T(tells_the_end_once), T(cuts_long_last_words), T(a_start_can_fail),
       T(dies_while_starting), T(a_silent_monitor_fails_the_start), T(a_qemu_that_ends_at_once_says_why),
       T(a_broken_monitor_ends_alone),
       T(destroy_cancels_first), T(forgets), T(adopts), T(a_lost_keeper_ends_calls), T(checks_the_spec),
       T(promises_what_a_machine_may_take),
       T(process_needs_no_monitor), T(an_older_keeper_starts_no_process_sandbox), T(process_files_are_copied),
       T(a_copy_that_ends_with_its_machine),
       T(an_odd_layer_is_not_believed), T(a_machine_without_room_tries_again),
       T(merged_layers_are_let_go_of), T(a_failed_merge_is_told), T(a_merge_has_an_end))
