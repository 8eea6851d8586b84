/*
 * t_freeze.c - standing still, going on, and what a copy is told first
 *
 * How long things take is tested with cgroup files that are plain ones and a clock
 * that we move; the rest with the real agent, which believes to be in a machine.
 */
#include "guest/code.h"
#include "guest/session_int.h"
#include "guest/t_box.h"
#include "sys/fd.h"

/* ---- an agent with cgroups made of paper ---- */

struct rig {
	struct agent a;
	struct peer peer;
	char dir[64];
};

static void on_request(struct link *k, struct stream *s, unsigned number, struct span payload, const int *fds,
		       unsigned n_fds)
{
	static const struct agent_method methods[] = {
		{METHOD_GUEST_FREEZE, guest_freeze_call},
		{METHOD_GUEST_THAW, guest_thaw_call},
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

/* Group @name whose cgroup.events says @events; it was told nothing yet. */
static void put_group(const struct rig *g, const char *name, const char *events)
{
	char path[64];

	assert_int_equal(sys_mkdir(g->a.cgroups.root_fd, name, 0755), 0);
	(void)snprintf(path, sizeof(path), "%s/cgroup.events", name);
	assert_int_equal(sys_write_file(g->a.cgroups.root_fd, path, events), 0);
	(void)snprintf(path, sizeof(path), "%s/cgroup.freeze", name);
	assert_int_equal(sys_write_file(g->a.cgroups.root_fd, path, "-"), 0);
}

static void told(const struct rig *g, const char *name, const char *wanted)
{
	char path[64], text[16];

	(void)snprintf(path, sizeof(path), "%s/cgroup.freeze", name);
	assert_true(sys_read_file(g->a.cgroups.root_fd, path, text, sizeof(text)) >= 0);
	assert_string_equal(text, wanted);
}

static void turns(struct rig *g)
{
	for (int i = 0; i < 20; i++)
		peer_turn(&g->peer, 0);
}

static struct rig *rig_open(void)
{
	static const struct link_ops ops = {.request = on_request};
	struct rig *g = mem_new(sizeof(*g));
	struct sessions_config c = {.cgroups = &g->a.cgroups};
	int ends[2];

	(void)strcpy(g->dir, "/tmp/hotcell-freeze-XXXXXX");
	assert_non_null(mkdtemp(g->dir));
	assert_int_equal(loop_new(true, &g->a.loop), 0);
	g->a.cgroups.root_fd = sys_open(g->dir, O_RDONLY | O_DIRECTORY);
	assert_true(g->a.cgroups.root_fd >= 0);
	c.loop = g->a.loop;
	g->a.sessions = sessions_new(&c);
	g->a.codes = codes_new(&g->a);
	assert_int_equal(sys_socketpair(ends), 0);
	assert_int_equal(link_new(g->a.loop, ends[0], LINK_SOCKET, 0, &ops, g, &g->a.link, NULL), 0);
	g->peer = (struct peer){.loop = g->a.loop, .fd = ends[1]};
	assert_true(peer_open(&g->peer, LINK_SOCKET));
	return g;
}

static void rig_close(struct rig *g)
{
	g->peer.link = link_free(g->peer.link);
	g->a.link = link_free(g->a.link);
	freeze_drop(&g->a);
	(void)codes_free(g->a.codes);
	(void)sessions_free(g->a.sessions);
	(void)sys_close(g->peer.fd);
	(void)sys_close(g->a.cgroups.root_fd);
	(void)loop_free(g->a.loop);
	assert_int_equal(sys_remove_tree(AT_FDCWD, g->dir), 0);
	free(g);
}

static struct call *start_freeze(struct rig *g)
{
	struct rec_guest_freeze rq = {0};
	struct call *c = call_start(&g->peer, METHOD_GUEST_FREEZE, &rq, false);

	turns(g);
	return c;
}

static void t_busy(void **state)
{
	struct rig *g = rig_open();
	struct call *c;

	T_UNUSED(state);
	put_group(g, "stubborn", "populated 1\nfrozen 0\n");
	put_group(g, "polite", "populated 1\nfrozen 1\n");
	put_group(g, "empty", "populated 0\nfrozen 0\n");
	c = start_freeze(g);
	loop_advance(g->a.loop, 99 * NS_PER_MS);
	turns(g);
	assert_false(c->closed);
	told(g, "stubborn", "1");
	told(g, "polite", "1");
	loop_advance(g->a.loop, 2 * NS_PER_MS);
	turns(g);
	assert_true(c->closed);
	assert_int_equal(c->why.code, ERR_BUSY);
	assert_non_null(strstr(c->why.text, "100 ms"));
	told(g, "stubborn", "0"); /* it all goes on */
	told(g, "polite", "0");
	told(g, "empty", "-");
	call_free(c);
	rig_close(g);
}

static void t_silence_until_the_thaw(void **state)
{
	struct rec_empty none = {0};
	struct rig *g = rig_open();
	struct call *c, *second;

	T_UNUSED(state);
	put_group(g, "late", "populated 1\nfrozen 0\n");
	c = start_freeze(g);
	assert_false(c->closed);
	assert_int_equal(sys_write_file(g->a.cgroups.root_fd, "late/cgroup.events", "populated 1\nfrozen 1\n"), 0);
	loop_advance(g->a.loop, NS_PER_MS);
	turns(g);
	assert_true(c->closed && !c->why.code);
	call_free(c);
	loop_advance(g->a.loop, 3600 * NS_PER_S); /* nobody is in a hurry now */
	told(g, "late", "1");
	c = call_start(&g->peer, METHOD_GUEST_PING, &(struct rec_sandbox_ref){.sandbox = span_of("x")}, false);
	turns(g);
	assert_false(c->closed); /* FREEZE-1: not even that it knows no such call here */
	second = call_start(&g->peer, METHOD_GUEST_THAW, &none, false);
	turns(g);
	assert_true(second->closed && !second->why.code);
	assert_true(c->closed);
	told(g, "late", "0");
	call_free(second);
	call_free(c);
	rig_close(g);
}

static void t_host_changes_its_mind(void **state)
{
	struct rig *g = rig_open();

	T_UNUSED(state);
	put_group(g, "stubborn", "populated 1\nfrozen 0\n");
	call_free(start_freeze(g)); /* reset */
	turns(g);
	told(g, "stubborn", "0");
	loop_advance(g->a.loop, NS_PER_S);
	rig_close(g);
}

static void t_twice(void **state)
{
	struct rig *g = rig_open();
	struct call *c;

	T_UNUSED(state);
	put_group(g, "a", "populated 1\nfrozen 1\n");
	for (int i = 0; i < 3; i++) { /* hosts that die in between */
		c = start_freeze(g);
		assert_true(c->closed && !c->why.code);
		call_free(c);
		told(g, "a", "1");
		g->peer.link = link_free(g->peer.link);
		assert_true(peer_open(&g->peer, LINK_SOCKET | LINK_RESYNC));
	}
	rig_close(g);
}

static void note(struct loop_timer *t)
{
	(void)t; /* that it ran is seen by its place */
}

static void t_time_stands_still(void **state)
{
	struct rec_empty none = {0};
	struct rig *g = rig_open();
	struct session ss = {.all = g->a.sessions, .state = SESSION_RUNNING, .number = 1};

	T_UNUSED(state);
	list_init(&ss.subscribers);
	g->a.sessions->table[0] = &ss;
	loop_timer_set(g->a.loop, &ss.timeout, loop_now(g->a.loop) + NS_PER_S, note);
	loop_advance(g->a.loop, 400 * NS_PER_MS);
	call_free(start_freeze(g));
	loop_advance(g->a.loop, 10 * NS_PER_S);
	call_free(call_start(&g->peer, METHOD_GUEST_THAW, &none, false));
	turns(g);
	loop_advance(g->a.loop, 590 * NS_PER_MS);
	assert_true(ss.timeout.place);
	loop_advance(g->a.loop, 20 * NS_PER_MS);
	assert_false(ss.timeout.place);
	g->a.sessions->table[0] = NULL;
	rig_close(g);
}

/* ---- the real one ---- */

static bool open_machine(struct box *b)
{
	if (geteuid() != 0 || open_box_as(b, true, true) != 0)
		return false;
	if (b->cgroup[0])
		return true;
	close_box(b);
	return false;
}

static const char seed[32] = "thirty-two bytes for any test...";

static struct rec_guest_setup identity_of(char letter, bool forked)
{
	struct rec_guest_setup rq = {.seed = {seed, sizeof(seed)}, .forked = forked};

	memset(rq.machine_id.b, letter, sizeof(rq.machine_id.b));
	rq.hostname = span_of(letter == 'a' ? "cell-a" : letter == 'b' ? "cell-b" : "local");
	return rq;
}

static void set_up(struct peer *p, const struct rec_guest_setup *rq, struct rec_guest_ready *ret,
		   struct call **ret_call)
{
	*ret_call = call_wait(p, METHOD_GUEST_SETUP, rq, ret);
	if ((*ret_call)->why.code)
		print_message("%s\n", (*ret_call)->why.text);
	assert_int_equal((*ret_call)->why.code, 0);
	assert_true(ret->seeded && span_is(ret->wall, "vm"));
}

static void freeze(struct peer *p)
{
	struct rec_guest_freeze rq = {.timeout_ms = 10000};
	struct call *c = call_wait(p, METHOD_GUEST_FREEZE, &rq, NULL);

	assert_int_equal(c->why.code, 0);
	call_free(c);
}

/* As the daemon of a copy comes. */
static void come_anew(struct peer *p)
{
	p->link = link_free(p->link);
	assert_true(peer_open(p, LINK_SOCKET | LINK_RESYNC));
}

/* How many cgroups of the workload stand still with somebody in them. */
static unsigned standing(const struct box *b)
{
	DIR *d = opendir(b->cgroup);
	char path[640], text[128];
	unsigned n = 0;

	assert_non_null(d);
	for (struct dirent *ent = readdir(d); ent; ent = readdir(d)) {
		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/%s/cgroup.events", b->cgroup, ent->d_name);
		assert_true(sys_read_file(AT_FDCWD, path, text, sizeof(text)) > 0);
		n += strstr(text, "frozen 1") && strstr(text, "populated 1");
	}
	(void)closedir(d);
	return n;
}

/* What a source prints. */
static void run_code(struct peer *p, const char *source, char *ret, size_t size)
{
	struct rec_code_run rq = {.language = span_of("shell"), .source = span_of(source)};
	struct call *c = call_wait(p, METHOD_CODE_RUN, &rq, NULL);
	struct heard h;

	assert_int_equal(c->why.code, 0);
	hear(&h, &c->bytes);
	assert_true(h.has_end && span_is(h.end.status, "ok"));
	(void)snprintf(ret, size, "%s", str_text(&h.out));
	heard_free(&h);
	call_free(c);
}

static void t_a_copy(void **state)
{
	struct rec_exec_start sleeper = {.command = span_of("exec sleep 4747")};
	struct rec_guest_setup rq = identity_of('a', false);
	struct rec_guest_ready ready;
	struct call *c, *c2, *session;
	char text[256], old_boot_id[64];
	struct rec_exec_attach attach = {0};
	struct box b;

	T_UNUSED(state);
	if (!open_machine(&b))
		skip();
	set_up(&b.peer, &rq, &ready, &c);
	(void)snprintf(old_boot_id, sizeof(old_boot_id), "%.*s", (int)ready.boot_id.n, ready.boot_id.p);
	call_free(c);
	session = call_start(&b.peer, METHOD_EXEC_START, &sleeper, false);
	attach.session = session_of(&b.peer, session);
	freeze(&b.peer);
	assert_int_equal(standing(&b), 1);
	session->s = NULL; /* vanishes with its link */
	come_anew(&b.peer);
	call_free(session);

	rq = identity_of('b', true); /* without seed nothing goes on */
	rq.seed.n = 0;
	c = call_wait(&b.peer, METHOD_GUEST_SETUP, &rq, NULL);
	assert_int_equal(c->why.code, ERR_INVALID);
	call_free(c);
	assert_int_equal(standing(&b), 1);

	rq = identity_of('b', true);
	set_up(&b.peer, &rq, &ready, &c);
	assert_true(ready.thawed && ready.reseeded == 0 && span_is(ready.hostname, "cell-b"));
	assert_int_equal(standing(&b), 0);
	(void)snprintf(text, sizeof(text), "%.*s\n62626262626262626262626262626262\ncell-b\n127.0.1.1\tcell-b\n",
		       (int)ready.boot_id.n, ready.boot_id.p);
	assert_true(ready.boot_id.n == 36 && memcmp(ready.boot_id.p, old_boot_id, 36) != 0);
	expect(&b.peer,
	       "cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname; grep cell /etc/hosts | tr -d ' '", text,
	       "", 0);
	call_free(c);

	c2 = call_wait(&b.peer, METHOD_EXEC_ATTACH, &attach, NULL);
	assert_int_equal(c2->why.code, ERR_FORKED);
	call_free(c2);
	assert_int_equal(count_commands(&b.peer, "4747"), 1); /* its program lives */
	close_box(&b);
}

static void t_an_idle_interpreter_waits(void **state)
{
	static const char again[] = "echo $RANDOM $RANDOM $RANDOM";
	struct rec_guest_setup rq = identity_of('a', false);
	struct rec_guest_ready ready;
	char first[64], second[64];
	struct call *c;
	struct box b;

	T_UNUSED(state);
	if (!open_machine(&b))
		skip();
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	run_code(&b.peer, "RANDOM=1; echo $RANDOM $RANDOM $RANDOM; RANDOM=1", first, sizeof(first));
	for (int copies = 0; copies < 3; copies++) { /* a copy of a copy, which never used it, too */
		freeze(&b.peer);
		assert_int_equal(standing(&b), 1);
		come_anew(&b.peer);
		rq = identity_of('b', true);
		set_up(&b.peer, &rq, &ready, &c);
		assert_true(ready.thawed && ready.reseeded == 0);
		call_free(c);
		assert_int_equal(standing(&b), 1); /* CODE-5 */
	}
	run_code(&b.peer, again, second, sizeof(second));
	assert_string_not_equal(second, first);
	assert_int_equal(standing(&b), 0);
	/* The same without a copy: a host that is handed the machine brings randomness of its own. */
	run_code(&b.peer, "RANDOM=1", second, sizeof(second));
	rq = identity_of('a', false);
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	run_code(&b.peer, again, second, sizeof(second));
	assert_string_not_equal(second, first);
	close_box(&b);
}

/* A child may have been copied before it executed its program. */
static void wait_command(struct peer *p, const char *wanted)
{
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;

	while (count_commands(p, wanted) != 1 && sys_now_ns() < end)
		peer_turn(p, 10);
	assert_int_equal(count_commands(p, wanted), 1);
}

static void t_an_interpreter_with_company_proves_first(void **state)
{
	struct rec_guest_setup rq = identity_of('a', false);
	struct rec_guest_ready ready;
	char text[64];
	struct call *c;
	struct box b;

	T_UNUSED(state);
	if (!open_machine(&b))
		skip();
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	run_code(&b.peer, "sleep 4848 >/dev/null 2>&1 &", text, sizeof(text));
	freeze(&b.peer);
	come_anew(&b.peer);
	rq = identity_of('b', true);
	set_up(&b.peer, &rq, &ready, &c);
	assert_true(ready.thawed);
	assert_int_equal(ready.reseeded, 1);
	call_free(c);
	assert_int_equal(standing(&b), 0);
	wait_command(&b.peer, "4848");
	close_box(&b);
}

/* A source that is running is copied: it goes on, and so does its interpreter. */
static void t_a_busy_interpreter_goes_on(void **state)
{
	struct rec_code_run busy = {.language = span_of("shell"),
				    .source = span_of("echo go; until [ -e /tmp/go ]; do sleep 0.01; done; "
						      "echo >/tmp/gone")};
	struct rec_guest_setup rq = identity_of('a', false);
	struct rec_guest_ready ready;
	struct call *c, *run;
	char text[64];
	struct box b;

	T_UNUSED(state);
	if (!open_machine(&b))
		skip();
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	run = call_start(&b.peer, METHOD_CODE_RUN, &busy, false);
	wait_bytes(&b.peer, run, CODE_HEAD + 3);
	freeze(&b.peer);
	assert_int_equal(standing(&b), 1);
	run->s = NULL; /* vanishes with its link */
	come_anew(&b.peer);
	call_free(run);
	rq = identity_of('b', true);
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	assert_int_equal(standing(&b), 0);
	expect(&b.peer, "echo >/tmp/go; until [ -e /tmp/gone ]; do sleep 0.01; done", "", "", 0);
	run_code(&b.peer, "echo and on", text, sizeof(text));
	assert_string_equal(text, "and on\n");
	close_box(&b);
}

static void as_root(struct peer *p, const char *command)
{
	struct rec_exec_start rq = {.command = span_of(command), .user = span_of("root")};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);

	assert_int_equal(c->why.code, 0);
	call_free(c);
}

/* A ready machine is handed to somebody: the same call again, with what it shall be now. */
static void t_a_second_setup(void **state)
{
	struct rec_guest_setup rq = identity_of('a', false);
	struct rec_guest_ready ready;
	struct call *c;
	struct box b;

	T_UNUSED(state);
	if (!open_machine(&b))
		skip();
	rq.env = (struct strv){"OWNER=first\0LEFT=over", 22};
	rq.user = span_of("other");
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	expect(&b.peer, "echo $OWNER $LEFT; id -un; tr -d ' ' </etc/hosts",
	       "first over\nother\n127.0.1.1\tcell-a\n", "", 0);
	as_root(&b.peer, "echo 10.0.0.1 theirs localhost >>/etc/hosts");
	rq = identity_of('b', false);
	rq.env = (struct strv){"OWNER=second", 13};
	for (int i = 0; i < 2; i++) { /* twice is the same as once */
		set_up(&b.peer, &rq, &ready, &c);
		assert_true(span_is(ready.hostname, "cell-b"));
		call_free(c);
		expect(&b.peer, "echo $OWNER $LEFT; id -un; hostname; cat /etc/machine-id; sed 's/ *$//' /etc/hosts",
		       "second\nuser\ncell-b\n62626262626262626262626262626262\n"
		       "127.0.1.1\tcell-b\n10.0.0.1 theirs localhost\n",
		       "", 0);
	}
	/* Whoever writes the file anew, in place or beside, keeps what is theirs. */
	as_root(&b.peer, "sed -i s/theirs/other/ /etc/hosts; sed '1!G;h;$!d' /etc/hosts >/tmp/h; "
			 "cat /tmp/h >/etc/hosts");
	rq = identity_of('c', false);
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	expect(&b.peer, "echo $OWNER; sed 's/ *$//' /etc/hosts", "second\n10.0.0.1 other localhost\n127.0.1.1\tlocal\n",
	       "", 0); /* no environment is as it was */
	as_root(&b.peer, "printf '1.1.1.1 a' >/etc/hosts");
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	expect(&b.peer, "sed 's/ *$//' /etc/hosts", "1.1.1.1 a\n127.0.1.1\tlocal\n", "", 0);
	as_root(&b.peer, "rm /etc/hosts; mkfifo /etc/hosts"); /* nothing is written there, and nobody waits */
	set_up(&b.peer, &rq, &ready, &c);
	call_free(c);
	expect(&b.peer, "[ -p /etc/hosts ] && echo still", "still\n", "", 0);
	close_box(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(t_busy),
		T(t_silence_until_the_thaw),
		T(t_host_changes_its_mind),
		T(t_twice),
		T(t_time_stands_still),
		T(t_a_copy),
		T(t_an_idle_interpreter_waits),
		T(t_an_interpreter_with_company_proves_first),
		T(t_a_busy_interpreter_goes_on),
		T(t_a_second_setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
