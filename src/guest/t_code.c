/*
 * t_code.c - frames of harnesses, and real interpreters driven over a link
 *
 * The second half needs root (programs run as a user), python3 and bash. Every wait ends with
 * an event or, when broken, with WAIT_MS.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/testing.h"
#include "guest/agent.h"
#include "guest/code.h"
#include "guest/code_int.h"
#include "guest/t_peer.h"
#include "sys/sock.h"
#include "wire/bytes.h"
#include "wire/gen/limits.h"

/* ---- frames ---- */

static struct code_frame frame_of(enum code_say kind, const char *body, size_t n)
{
	return (struct code_frame){kind, {body, n}};
}

static int take(struct code_state *st, enum code_say kind, const char *body, size_t n)
{
	struct code_frame f = frame_of(kind, body, n);

	return code_state_take(st, &f, NULL);
}

static void feed(struct code_reader *r, const void *p, size_t n)
{
	const char *from = p;

	while (n) {
		size_t room, piece;
		void *to = code_reader_space(r, &room);

		piece = MIN(room, n);
		assert_true(piece > 0);
		memcpy(to, from, piece);
		r->used += piece;
		from += piece;
		n -= piece;
	}
}

static void t_frames_in_pieces(void **state)
{
	struct code_reader *r = mem_new(sizeof(*r));
	struct code_frame f;

	(void)state;
	for (size_t i = 0; i < 7; i++) {
		assert_int_equal(code_reader_frame(r, &f, NULL), 0);
		feed(r, &"\4\3\0\0abc"[i], 1);
	}
	assert_int_equal(code_reader_frame(r, &f, NULL), 1);
	assert_int_equal(f.kind, CODE_BODY);
	assert_true(span_is(f.body, "abc"));
	code_reader_drop(r);
	assert_int_equal(code_reader_frame(r, &f, NULL), 0);
	free(r);
}

static void t_frame_too_long(void **state)
{
	struct code_reader *r = mem_new(sizeof(*r));
	struct code_frame f;
	unsigned char head[CODE_HEAD];
	size_t room;

	(void)state;
	code_head(head, CODE_BODY, CODE_FRAME_MAX);
	feed(r, head, sizeof(head));
	assert_int_equal(code_reader_frame(r, &f, NULL), 0);
	(void)code_reader_space(r, &room);
	assert_int_equal(room, CODE_FRAME_MAX);
	code_reader_drop(r);
	code_head(head, CODE_BODY, CODE_FRAME_MAX + 1);
	feed(r, head, sizeof(head));
	assert_int_equal(code_reader_frame(r, &f, NULL), -ERR_INVALID);
	free(r);
}

static void t_out_of_turn(void **state)
{
	struct code_state st = {0};

	(void)state;
	assert_int_equal(take(&st, CODE_RUNNING, "", 0), -ERR_INVALID); /* before READY */
	assert_int_equal(take(&st, CODE_READY, "", 0), 0);
	assert_int_equal(take(&st, CODE_READY, "", 0), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_END, "\0\0\0\0\0", 5), -ERR_INVALID); /* nothing runs */
	assert_int_equal(take(&st, CODE_RESEEDED, "0123456789abcdef", 16), -ERR_INVALID);
	st.running = true;
	assert_int_equal(take(&st, CODE_PART, "\1\0\0\0\1text/plain", 15), -ERR_INVALID); /* before RUNNING */
	assert_int_equal(take(&st, CODE_RUNNING, "", 0), 0);
	assert_int_equal(take(&st, CODE_RUNNING, "", 0), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_BODY, "x", 1), -ERR_INVALID); /* of nothing */
	assert_int_equal(take(&st, 0, "", 0), -ERR_INVALID);
	assert_int_equal(take(&st, 8, "", 0), -ERR_INVALID);
	assert_int_equal(take(&st, 255, "", 0), -ERR_INVALID);
}

static void t_results_are_exact(void **state)
{
	struct code_state st = {.ready = true, .running = true, .told = true};

	(void)state;
	assert_int_equal(take(&st, CODE_PART, "\3\0\0\0\1text/plain", 15), 0);
	assert_int_equal(take(&st, CODE_PART, "\3\0\0\0\1text/plain", 15), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_END, "\0\0\0\0\0", 5), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_BODY, "abcd", 4), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_BODY, "ab", 2), 0);
	assert_int_equal(take(&st, CODE_BODY, "", 0), -ERR_INVALID); /* would never end */
	assert_int_equal(take(&st, CODE_BODY, "c", 1), 0);
	assert_int_equal(take(&st, CODE_END, "\3\0\0\0\0", 5), -ERR_INVALID); /* no such outcome */
	assert_int_equal(take(&st, CODE_END, "\0\0\0\0", 4), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_END, "\1\7\0\0\0", 5), 0);
}

static void t_heads(void **state)
{
	struct code_state st = {.ready = true, .running = true, .told = true};
	char big[4] = {0};

	(void)state;
	assert_int_equal(take(&st, CODE_PART, "\1\0\0\0\1", 5), -ERR_INVALID); /* no type */
	assert_int_equal(take(&st, CODE_PART, "\1\0\0", 3), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_PART, "\1\0\0\0\1te\nt", 9), -ERR_INVALID);
	put_u32(big, LIMIT_CODE_PART + 1);
	assert_int_equal(take(&st, CODE_ERROR, (char[6]){big[0], big[1], big[2], big[3]}, 6), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_ERROR, "\1\0\0\0\2\0x", 7), -ERR_INVALID); /* name beyond the frame */
	assert_int_equal(take(&st, CODE_ERROR, "\1\0\0\0\1", 5), -ERR_INVALID);
	assert_int_equal(take(&st, CODE_ERROR, "\0\0\0\0\1\0x", 7), 0);
}

static void t_error_head_is_cut_and_clean(void **state)
{
	struct str out = STR_INIT(CODE_PART_MAX);
	struct rec_code_part part;
	struct code_frame f;
	char body[6 + 2 + 2000] = "\0\0\0\0\2\0a";

	(void)state;
	memset(body + 8, 'm', 2000);
	memcpy(body + 8 + LIMIT_TEXT_MEDIUM - 1, "\xc3\xa9", 2); /* a character across the limit */
	f = frame_of(CODE_ERROR, body, sizeof(body));
	code_part_encode(&f, &out);
	assert_int_equal(rec_decode(&rec_code_part_type, out.p, out.len, &part, NULL), 0);
	assert_true(span_is(part.name, "a?"));
	assert_int_equal(part.message.n, LIMIT_TEXT_MEDIUM - 1);
	str_deinit(&out);
}

/* ---- interpreters ---- */

struct rig {
	struct loop *loop;
	struct agent a;
	struct peer peer;
	struct loop_io children;
	int children_fd;
	unsigned proofs;
	bool reseeded;
};

static void on_child(struct loop_io *io, unsigned events)
{
	struct rig *g = CONTAINER_OF(io, struct rig, children);
	struct signalfd_siginfo info[8];
	int status;
	pid_t pid;

	(void)events;
	(void)sys_read(g->children_fd, info, sizeof(info));
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		(void)codes_child_gone(g->a.codes, pid, status);
}

static void on_request(struct link *k, struct stream *s, unsigned number, struct span payload,
		       const int *fds, unsigned n_fds)
{
	static const struct agent_method methods[] = {
		{METHOD_CODE_RUN, code_run_call},	    {METHOD_CODE_OPEN, code_open_call},
		{METHOD_CODE_LIST, code_list_call},	    {METHOD_CODE_INTERRUPT, code_interrupt_call},
		{METHOD_CODE_RESTART, code_restart_call}, {METHOD_CODE_CLOSE, code_close_call},
	};
	struct rig *g = link_arg(k);
	const struct method_info *info = method_find(number);
	AUTO_FREE void *rec = mem_new(info->request->size);

	(void)fds;
	(void)n_fds;
	assert_int_equal(rec_decode(info->request, payload.p, payload.n, rec, NULL), 0);
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (methods[i].number == number)
			methods[i].call(&g->a, s, rec);
}

static void rig_down(struct link *k, const struct err *why)
{
	(void)k;
	(void)why;
}

static struct rig *rig_open(void)
{
	static const struct link_ops ops = {.request = on_request, .down = rig_down};
	struct rig *g = mem_new(sizeof(*g));
	sigset_t child;
	int ends[2];

	assert_int_equal(loop_new(false, &g->loop), 0);
	g->a.loop = g->loop;
	g->a.cgroups.root_fd = -1;
	g->a.c.proc_fd = sys_open("/proc", O_RDONLY | O_DIRECTORY);
	(void)strcpy(g->a.default_user, "root");
	g->a.codes = codes_new(&g->a);
	(void)sigemptyset(&child);
	(void)sigaddset(&child, SIGCHLD);
	(void)sigprocmask(SIG_BLOCK, &child, NULL);
	g->children_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
	assert_int_equal(loop_io_add(g->loop, &g->children, g->children_fd, LOOP_READ, on_child), 0);
	assert_int_equal(sys_socketpair(ends), 0);
	assert_int_equal(link_new(g->loop, ends[0], LINK_SOCKET, 0, &ops, g, &g->a.link, NULL), 0);
	g->peer = (struct peer){.loop = g->loop, .fd = ends[1]};
	assert_true(peer_open(&g->peer, LINK_SOCKET));
	return g;
}

static void rig_close(struct rig *g)
{
	struct rec_code_context info;

	while (code_next(g->a.codes, 0, &info)) { /* their processes go with them */
		struct rec_code_ref ref = {.context = info.context};

		call_free(call_wait(&g->peer, METHOD_CODE_CLOSE, &ref, NULL));
	}
	for (bool some = true; some;) {
		some = false;
		for (size_t i = 0; i < LIMIT_CONTEXTS; i++)
			some |= g->a.codes->table[i] != NULL;
		if (some)
			peer_turn(&g->peer, 1000);
	}
	g->peer.link = link_free(g->peer.link);
	g->a.link = link_free(g->a.link);
	(void)codes_free(g->a.codes);
	loop_io_del(g->loop, &g->children);
	(void)sys_close(g->children_fd);
	(void)sys_close(g->peer.fd);
	(void)sys_close(g->a.c.proc_fd);
	(void)loop_free(g->loop);
	free(g);
}

/* Run to the end. */
static struct call *run_in(struct rig *g, uint64_t context, const char *source, struct heard *h)
{
	struct rec_code_run rq = {.context = context, .source = span_of(source)};
	struct call *c = call_wait(&g->peer, METHOD_CODE_RUN, &rq, NULL);

	if (c->why.code)
		print_message("%s\n", c->why.text);
	assert_int_equal(c->why.code, 0);
	hear(h, &c->bytes);
	assert_true(h->has_end && !h->torn);
	return c;
}

static void expect(struct rig *g, uint64_t context, const char *source, const char *status,
		   const char *value)
{
	struct heard h;
	struct call *c = run_in(g, context, source, &h);

	if (!span_is(h.end.status, status))
		print_message("%s: %s%s\n", source, str_text(&h.err), str_text(&h.body));
	assert_true(span_is(h.end.status, status));
	if (value)
		assert_string_equal(str_text(&h.body), value);
	heard_free(&h);
	call_free(c);
}

static bool can_run(void)
{
	return geteuid() == 0 && access("/usr/bin/env", X_OK) == 0;
}

static void t_values_follow_output(void **state)
{
	struct rig *g;
	struct heard h;
	struct call *c;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	c = run_in(g, 0, "import sys\nprint('a'); print('b', file=sys.stderr)\nx = 6 * 7\nx", &h);
	assert_string_equal(str_text(&h.out), "a\n");
	assert_string_equal(str_text(&h.err), "b\n");
	assert_string_equal(str_text(&h.body), "42");
	assert_true(span_is(h.part.mime, "text/plain") && h.part.is_main);
	assert_string_equal(h.order + 2, "346"); /* CODE-2: behind both outputs */
	heard_free(&h);
	call_free(c);
	expect(g, 1, "x + 1", "ok", "43");
	expect(g, 1, "1 / 0", "error", NULL);
	expect(g, 1, "import os; os._exit(3)", "ended", NULL);
	expect(g, 1, "'x' in dir()", "ok", "False"); /* a new one */
	rig_close(g);
}

static void t_one_at_a_time(void **state)
{
	struct rec_code_run endless = {.source = span_of("import time\nwhile True: time.sleep(1)")};
	struct rec_code_run named = {.context = 1, .source = span_of("1")};
	struct rec_code_ref ref = {.context = 1};
	struct rig *g;
	struct call *busy, *c;
	struct heard h;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	busy = call_start(&g->peer, METHOD_CODE_RUN, &endless, false);
	assert_true(peer_wait(&g->peer, &busy->replied));
	c = call_wait(&g->peer, METHOD_CODE_RUN, &named, NULL);
	assert_int_equal(c->why.code, ERR_CONFLICT); /* CODE-1 */
	call_free(c);
	named.context = 7;
	c = call_wait(&g->peer, METHOD_CODE_RUN, &named, NULL);
	assert_int_equal(c->why.code, ERR_NOT_FOUND);
	call_free(c);
	call_free(call_wait(&g->peer, METHOD_CODE_INTERRUPT, &ref, NULL));
	assert_true(peer_wait(&g->peer, &busy->closed));
	hear(&h, &busy->bytes);
	assert_true(span_is(h.end.status, "interrupted"));
	assert_true(span_is(h.part.name, "KeyboardInterrupt"));
	heard_free(&h);
	call_free(busy);
	rig_close(g);
}

static void t_reader_that_stops(void **state)
{
	enum { TOTAL = 4000000 };
	struct rec_code_run rq = {.source = span_of("print('x' * 3999999)")};
	struct rec_code_context info;
	struct rig *g;
	struct call *c;
	struct heard h;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	c = call_start(&g->peer, METHOD_CODE_RUN, &rq, false);
	c->hold = true;
	/* As far as it gets: what remains of the credit is less than a chunk and the reserve. */
	while (c->held < LIMIT_WINDOW - 16384)
		peer_turn(&g->peer, 1000);
	assert_true(c->held <= LIMIT_WINDOW); /* CODE-3 */
	assert_true(code_next(g->a.codes, 0, &info) && span_is(info.state, "busy"));
	c->hold = false;
	stream_consumed_to(c->s, c->next);
	assert_true(peer_wait(&g->peer, &c->closed));
	hear(&h, &c->bytes);
	assert_int_equal(h.out.len, TOTAL);
	assert_true(h.has_end && span_is(h.end.status, "ok"));
	heard_free(&h);
	call_free(c);
	rig_close(g);
}

static void t_reader_that_leaves(void **state)
{
	struct rec_code_run rq = {.source = span_of("done = 0\nprint('x' * 3999999)\ndone = 1")};
	struct rec_code_context info;
	struct rig *g;
	struct call *c;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	c = call_start(&g->peer, METHOD_CODE_RUN, &rq, false);
	c->hold = true;
	while (!c->held)
		peer_turn(&g->peer, 1000);
	call_free(c);
	while (code_next(g->a.codes, 0, &info) && !span_is(info.state, "idle"))
		peer_turn(&g->peer, 1000);
	expect(g, 1, "done", "ok", "1");
	rig_close(g);
}

static void t_hostile_harness(void **state)
{
	/* Frames no harness may send, written past it: descriptor 900 is its line. */
	static const char *const sources[] = {
		"import os, time; os.write(900, b'\\x63\\0\\0\\0'); time.sleep(60)",
		"import os, time; os.write(900, b'\\x04\\xff\\xff\\xff'); time.sleep(60)",
		"import os, time; os.write(900, b'\\x04\\x01\\0\\0x'); time.sleep(60)",
		"import os, time; os.write(900, b'\\x07\\x10\\0\\0' + bytes(16)); time.sleep(60)",
		"import os, time; os.close(900); time.sleep(60)",
	};
	struct rig *g;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	for (size_t i = 0; i < ARRAY_LEN(sources); i++) /* CODE-4 */
		expect(g, 0, sources[i], "ended", NULL);
	expect(g, 1, "1 + 1", "ok", "2");
	rig_close(g);
}

static void t_shell(void **state)
{
	struct rec_code_open rq = {.language = span_of("shell"), .cwd = span_of("/usr")};
	struct rec_code_context info;
	struct rig *g;
	struct heard h;
	struct call *c;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	c = call_wait(&g->peer, METHOD_CODE_OPEN, &rq, &info);
	assert_int_equal(c->why.code, 0);
	assert_true(span_is(info.state, "idle") && span_is(info.cwd, "/usr"));
	call_free(c);
	expect(g, 1, "x=5; declare -A m; m[k]=v; cd bin", "ok", NULL);
	c = run_in(g, 1, "echo $PWD $x ${m[k]}; (exit 3)", &h);
	assert_string_equal(str_text(&h.out), "/usr/bin 5 v\n");
	assert_int_equal(h.end.exit_code, 3);
	heard_free(&h);
	call_free(c);
	expect(g, 1, "exit 4", "ended", NULL);
	rig_close(g);
}

/* What guest.setup says reaches interpreters that live; what it says no more goes back to what it was. */
static void t_env_follows(void **state)
{
	static const char first[] = "COLOR=red\0HOME=/nowhere\0SHAPE=theirs", second[] = "SIZE=a b=c\nd";
	struct rec_code_open python = {.env = {"SHAPE=mine", 11}};
	struct rec_code_open shell = {.language = span_of("shell"), .env = {"SHAPE=mine", 11}};
	struct rec_code_context info;
	struct rig *g;
	struct heard h;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	call_free(call_wait(&g->peer, METHOD_CODE_OPEN, &python, &info));
	call_free(call_wait(&g->peer, METHOD_CODE_OPEN, &shell, &info));
	g->a.env = mem_dup(first, sizeof(first));
	g->a.env_len = sizeof(first);
	expect(g, 1, "import os\n[os.environ.get(x) for x in ('COLOR', 'HOME', 'SHAPE', 'SIZE')]", "ok",
	       "['red', '/nowhere', 'mine', None]");
	call_free(run_in(g, 2, "echo $COLOR $HOME $SHAPE", &h));
	assert_string_equal(str_text(&h.out), "red /nowhere mine\n");
	heard_free(&h);
	free(g->a.env);
	g->a.env = mem_dup(second, sizeof(second));
	g->a.env_len = sizeof(second);
	expect(g, 1, "[os.environ.get(x) for x in ('COLOR', 'HOME', 'SHAPE', 'SIZE')]", "ok",
	       "[None, '/root', 'mine', 'a b=c\\nd']");
	call_free(run_in(g, 2, "echo ${COLOR-gone} $HOME $SHAPE; env | grep -A1 SIZE=", &h));
	assert_string_equal(str_text(&h.out), "gone /root mine\nSIZE=a b=c\nd\n");
	heard_free(&h);
	free(g->a.env);
	g->a.env = NULL;
	g->a.env_len = 0;
	expect(g, 1, "os.environ['HOME'] = '/tmp'; [os.environ.get(x) for x in ('HOME', 'SIZE')]", "ok",
	       "['/tmp', None]"); /* what nobody speaks of is the code's */
	rig_close(g);
}

/* ---- after a fork ---- */

static void reseeded(void *arg, unsigned proofs)
{
	struct rig *g = arg;

	g->proofs = proofs;
	g->reseeded = true;
}

static void t_reseed(void **state)
{
	static const char seed[] = "import random; mine = random.Random(1); random.seed(1)\n"
				   "was = mine.getstate(), random.getstate()";
	static const char same[] = "[mine.getstate() == was[0], random.getstate() == was[1]]";
	struct rec_code_open rq = {0};
	struct rec_code_run busy = {.context = 2,
				    .source = span_of("import time\n"
						      "while random.getstate() == was[1]: time.sleep(0.01)\n1")};
	struct rec_code_context info;
	struct rig *g;
	struct call *c;

	(void)state;
	if (!can_run())
		skip();
	g = rig_open();
	for (unsigned i = 1; i <= 3; i++) {
		call_free(call_wait(&g->peer, METHOD_CODE_OPEN, &rq, &info));
		expect(g, i, seed, "ok", NULL);
	}
	expect(g, 1, same, "ok", "[True, True]");
	assert_int_equal(kill(code_find(g->a.codes, 3)->pid, SIGSTOP), 0); /* it will not answer */
	c = call_start(&g->peer, METHOD_CODE_RUN, &busy, false);
	assert_true(peer_wait(&g->peer, &c->replied));
	code_reseed(g->a.codes, reseeded, g);
	assert_false(g->reseeded); /* nobody can tell here that they are alone */
	assert_true(peer_wait(&g->peer, &g->reseeded));
	assert_int_equal(g->proofs, 1);
	expect(g, 1, same, "ok", "[False, False]");
	assert_true(peer_wait(&g->peer, &c->closed)); /* the busy one left its loop */
	call_free(c);
	while (code_find(g->a.codes, 3)->state != CODE_ENDED) /* CODE-5 */
		peer_turn(&g->peer, 1000);
	expect(g, 3, "'mine' in dir()", "ok", "False");
	assert_true(code_next(g->a.codes, 0, &info) && info.warm);
	rig_close(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t_frames_in_pieces),	 cmocka_unit_test(t_frame_too_long),
		cmocka_unit_test(t_out_of_turn),	 cmocka_unit_test(t_results_are_exact),
		cmocka_unit_test(t_heads),		 cmocka_unit_test(t_error_head_is_cut_and_clean),
		cmocka_unit_test(t_values_follow_output), cmocka_unit_test(t_one_at_a_time),
		cmocka_unit_test(t_reader_that_stops),	 cmocka_unit_test(t_reader_that_leaves),
		cmocka_unit_test(t_hostile_harness),	 cmocka_unit_test(t_shell),
		cmocka_unit_test(t_env_follows),	 cmocka_unit_test(t_reseed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
