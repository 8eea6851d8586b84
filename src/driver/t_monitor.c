/* driver/t_monitor.c - hello, events, takeover in mid-sentence, and QEMUs that misbehave */
#include "driver/monitor.h"
#include <sys/socket.h>
#include "base/err.h"
#include "base/testing.h"
#include "loop/loop.h"
#include "sys/fd.h"
#include "sys/sock.h"
#include "wire/qmp.h"

struct talk {
	struct loop *loop;
	struct monitor *monitor;
	int qemu; /* QEMU's end */
	unsigned ready, down, events;
	bool frees_itself;
	char name[QMP_TEXT_MAX + 1], text[QMP_TEXT_MAX + 1], why[ERR_TEXT_MAX];
	char heard[512]; /* by QEMU */
};

static void maybe_free(struct talk *t)
{
	if (t->frees_itself)
		t->monitor = monitor_free(t->monitor);
}

static void on_ready(void *arg)
{
	struct talk *t = arg;

	t->ready++;
	maybe_free(t);
}

static void on_event(void *arg, const struct qmp_message *m)
{
	struct talk *t = arg;

	t->events++;
	(void)snprintf(t->name, sizeof(t->name), "%s", m->name);
	(void)snprintf(t->text, sizeof(t->text), "%s", m->text);
	maybe_free(t);
}

static void on_down(void *arg, const struct err *why)
{
	struct talk *t = arg;

	t->down++;
	(void)snprintf(t->why, sizeof(t->why), "%s", why->text);
	maybe_free(t);
}

static void begin(struct talk *t, bool used)
{
	static const struct monitor_ops ops = {.ready = on_ready, .event = on_event, .down = on_down};
	int pair[2];

	*t = (struct talk){.qemu = -1};
	assert_int_equal(loop_new(true, &t->loop), 0);
	assert_int_equal(sys_socketpair(pair), 0);
	t->qemu = pair[0];
	assert_int_equal(monitor_new(t->loop, pair[1], used, &ops, t, &t->monitor, NULL), 0);
}

static void end(struct talk *t)
{
	t->monitor = monitor_free(t->monitor);
	t->loop = loop_free(t->loop);
	(void)sys_close(t->qemu);
}

static void turn(struct talk *t)
{
	for (int i = 0; i < 4; i++)
		assert_true(loop_turn(t->loop, 0) >= 0);
}

static void say(struct talk *t, const char *text)
{
	assert_int_equal(sys_write_full(t->qemu, text, strlen(text)), 0);
	turn(t);
}

/* Return: the id of the hello. */
static unsigned long long hear(struct talk *t)
{
	ssize_t n;
	char *id;

	turn(t);
	n = sys_read(t->qemu, t->heard, sizeof(t->heard) - 1);
	assert_true(n > 0);
	t->heard[n] = '\0';
	id = strstr(t->heard, "\"id\":");
	assert_non_null(id);
	return strtoull(id + 5, NULL, 10);
}

static void answer(struct talk *t, unsigned long long id, const char *how)
{
	char line[256];

	(void)snprintf(line, sizeof(line), "{%s, \"id\": %llu}\r\n", how, id);
	say(t, line);
}

static void says_hello(void **state)
{
	struct talk t;
	unsigned long long id;

	T_UNUSED(state);
	begin(&t, false);
	say(&t, "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n");
	id = hear(&t);
	assert_int_equal(t.heard[0], '{');
	assert_non_null(strstr(t.heard, "\"qmp_capabilities\""));
	assert_int_equal(t.ready, 0);
	answer(&t, id, "\"return\": {}");
	assert_int_equal(t.ready, 1);
	say(&t, "{\"event\": \"SHUTDOWN\", \"data\": {\"reason\": \"guest-reset\"}}\r\n");
	assert_int_equal(t.events, 1);
	assert_string_equal(t.name, "SHUTDOWN");
	assert_string_equal(t.text, "guest-reset");
	t.qemu = sys_close(t.qemu);
	turn(&t);
	assert_int_equal(t.down, 1);
	loop_advance(t.loop, 2ull * MONITOR_HELLO_MS * NS_PER_MS);
	turn(&t);
	assert_int_equal(t.down, 1); /* MON-2 */
	end(&t);
}

/* MON-1: the end of an answer to somebody else, QEMU's complaint about the flush, then ours. */
static void takes_over(void **state)
{
	struct talk t;
	unsigned long long id;

	T_UNUSED(state);
	begin(&t, true);
	id = hear(&t);
	assert_int_equal((unsigned char)t.heard[0], 0xff);
	say(&t, "tatus\": \"running\"}, \"id\": 7}\r\n");
	say(&t, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\r\n");
	answer(&t, id == 9 ? 8 : 9, "\"return\": {}");
	assert_int_equal(t.ready, 0);
	answer(&t, id, "\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"negotiated before\"}");
	assert_int_equal(t.ready, 1);
	assert_int_equal(t.down, 0);
	end(&t);
}

static void silence_has_an_end(void **state)
{
	struct talk t;

	T_UNUSED(state);
	begin(&t, false);
	turn(&t);
	loop_advance(t.loop, MONITOR_HELLO_MS * NS_PER_MS - 1);
	turn(&t);
	assert_int_equal(t.down, 0);
	loop_advance(t.loop, 1);
	turn(&t);
	assert_int_equal(t.down, 1);
	assert_non_null(strstr(t.why, "30 s"));
	end(&t);
}

static void bad_lines_end_it(void **state)
{
	struct talk t;

	T_UNUSED(state);
	begin(&t, false);
	say(&t, "all your base\r\n{\"event\": \"SHUTDOWN\"}\r\n");
	assert_int_equal(t.down, 1);
	assert_int_equal(t.events, 0);
	say(&t, "{\"event\": \"SHUTDOWN\"}\r\n");
	assert_int_equal(t.events, 0);
	end(&t);
}

static void may_be_freed_by_its_owner(void **state)
{
	static const char *const lines[] = {
		"{\"event\": \"A\"}\r\n{\"event\": \"B\"}\r\n",
		"nonsense\r\n",
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		struct talk t;

		begin(&t, false);
		t.frees_itself = true;
		say(&t, lines[i]);
		assert_null(t.monitor);
		assert_int_equal(t.events + t.down, 1);
		end(&t);
	}
}

static void drains(void **state)
{
	struct talk t;

	T_UNUSED(state);
	begin(&t, false);
	turn(&t);
	assert_int_equal(sys_write_full(t.qemu, "{\"event\": \"X\"}\n", 15), 0);
	monitor_drain(t.monitor);
	assert_int_equal(t.events, 1);
	monitor_drain(t.monitor);
	t.qemu = sys_close(t.qemu);
	monitor_drain(t.monitor);
	end(&t);
}

static unsigned n_done;

static void on_done(struct monitor_call *c, const struct err *why)
{
	(void)c;
	assert_null(why);
	n_done++;
}

/* An answer to a command that was not said yet is none: its descriptor lives until it is, and the next call, too. */
static void early_answers_are_none(void **state)
{
	struct monitor_call a = {.done = on_done}, b = {.done = on_done};
	struct talk t;
	unsigned long long id;
	char early[64];

	(void)state;
	n_done = 0;
	begin(&t, false);
	turn(&t);
	id = hear(&t);
	answer(&t, id, "\"return\": {}");
	turn(&t);
	assert_int_equal(t.ready, 1);
	assert_int_equal(monitor_call(t.monitor, "getfd", NULL, t.qemu, &a, NULL), 0);
	assert_int_equal(monitor_call(t.monitor, "cont", NULL, -1, &b, NULL), 0);
	(void)snprintf(early, sizeof(early), "{\"return\": {}, \"id\": %llu}\n", id + 1);
	assert_int_equal(sys_write(t.qemu, early, strlen(early)), strlen(early));
	monitor_drain(t.monitor); /* before a turn of the loop says anything */
	assert_int_equal(n_done, 0);
	turn(&t);
	assert_int_equal(hear(&t), id + 1);
	answer(&t, id + 1, "\"return\": {}");
	turn(&t);
	assert_int_equal(n_done, 1);
	assert_int_equal(hear(&t), id + 2);
	answer(&t, id + 2, "\"return\": {}");
	turn(&t);
	assert_int_equal(n_done, 2);
	end(&t);
}

static void every_fault(void **state)
{
	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO)
	{
		static const struct monitor_ops ops = {.ready = on_ready, .event = on_event, .down = on_down};
		struct talk t = {.qemu = -1};
		int pair[2];

		if (loop_new(true, &t.loop) == 0) {
			if (sys_socketpair(pair) == 0) {
				struct err e = ERR_INIT;

				t.qemu = pair[0];
				if (monitor_new(t.loop, pair[1], true, &ops, &t, &t.monitor, &e) < 0)
					assert_true(e.text[0] != '\0');
				for (int i = 0; i < 4; i++)
					(void)loop_turn(t.loop, 0);
				if (send(t.qemu, "{}\n", 3, MSG_NOSIGNAL) < 0)
					assert_int_equal(errno, EPIPE);
				for (int i = 0; i < 4; i++)
					(void)loop_turn(t.loop, 0);
			}
			end(&t);
		}
	}
}

T_MAIN(T(says_hello), T(takes_over), T(silence_has_an_end), T(bad_lines_end_it),
       T(may_be_freed_by_its_owner), T(drains), T(early_answers_are_none), T(every_fault))
