/*
 * t_agent.c - the real agent in a process sandbox of its own, driven over its link
 *
 * The sandbox is made from the host's /usr, read-only, in new namespaces; that
 * takes root. Nothing here depends on how fast anything is: every wait ends with
 * an event or, when broken, with WAIT_MS.
 */
#include <sys/mman.h>
#include "guest/t_box.h"
#include "wire/gen/limits.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED true
#elif defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED false
#endif

/* ---- exec ---- */

static void t_output_and_code(void **state)
{
	struct peer *p = peer_of(state);

	expect(p, "echo hello", "hello\n", "", 0);
	expect(p, "echo oops >&2; exit 7", "", "oops\n", 7);
	expect(p, "id -u; id -G; pwd; umask", "1000\n1000 77\n/home/user\n0022\n", "", 0);
	expect(p, "echo $HOME $USER $LOGNAME", "/home/user user user\n", "", 0);
	expect(p, "cat; echo end", "end\n", "", 0); /* no stdin: empty */
}

static void t_other_users(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("id -u; pwd"), .user = span_of("ghost")};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	struct said x;

	said_parse(&x, &c->bytes);
	assert_string_equal(str_text(&x.out), "1002\n/\n"); /* a home that is not there is no failure */
	said_free(&x);
	call_free(c);
	rq.user = span_of("4711"); /* a number without a line */
	rq.cwd = span_of("/tmp");
	c = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	said_parse(&x, &c->bytes);
	assert_string_equal(str_text(&x.out), "4711\n/tmp\n");
	said_free(&x);
	call_free(c);
}

static void t_order(void **state)
{
	struct peer *p = peer_of(state);
	struct said x;
	/* Each line is read by the agent before the next is written: the pipe says when it is empty. */
	struct call *c = run_shell(p,
				   "python3 -c '\n"
				   "import os,fcntl,termios,array\n"
				   "def put(fd):\n"
				   "  os.write(fd,b\"x\")\n"
				   "  n=array.array(\"i\",[1])\n"
				   "  while n[0]: fcntl.ioctl(fd,termios.FIONREAD,n)\n"
				   "for i in range(5): put(1); put(2)'",
				   &x);

	assert_int_equal(c->why.code, 0);
	assert_string_equal(str_text(&x.err), "xxxxx");
	assert_memory_equal(x.order, "oeoeoeoeoe", 10);
	said_free(&x);
	call_free(c);
}

static void t_walls(void **state)
{
	struct peer *p = peer_of(state);

	expect(p, "grep -E 'NoNewPrivs|Seccomp:|Cap(Prm|Eff|Bnd|Amb)' /proc/self/status",
	       "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\n"
	       "CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
	       "", 0);
	expect(p, "ln -s a /tmp/link 2>/dev/null; echo $?", "1\n", "", 0); /* the filter */
	expect(p, "cat /proc/1/comm; set -- /proc/[0-9]*; echo $#", "hotcell-reaper\n2\n", "", 0);
	expect(p, "exec ls /proc/self/fd", "0\n1\n2\n3\n", "", 0); /* 3 is its own; none of ours */
}

static void t_failures_are_no_exit_codes(void **state)
{
	static const struct {
		const char *program, *cwd, *user, *says;
		int code;
	} cases[] = {
		{"no-such-program", "", "", "not found in PATH", ERR_NOT_FOUND},
		{"/no/such", "", "", "'/no/such' not found", ERR_NOT_FOUND},
		{"/etc/passwd", "", "", "can't execute", ERR_DENIED},
		{"/bin/true", "/nowhere", "", "cwd '/nowhere' does not exist", ERR_INVALID},
		{"/bin/true", "", "nobody-here", "no user 'nobody-here'", ERR_NOT_FOUND},
		{"", "", "", "name is empty", ERR_INVALID},
	};
	struct peer *p = peer_of(state);

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct rec_exec_start rq = {
			.argv = {cases[i].program, strlen(cases[i].program) + 1},
			.cwd = span_of(cases[i].cwd),
			.user = span_of(cases[i].user),
		};
		struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);

		assert_false(c->replied);
		assert_non_null(strstr(c->why.text, cases[i].says));
		assert_int_equal(c->why.code, cases[i].code);
		call_free(c);
	}
}

static void t_signals(void **state)
{
	struct peer *p = peer_of(state);
	struct said x;
	struct call *c = run_shell(p, "kill -TERM $$", &x);

	assert_int_equal(x.exit.code, -1);
	assert_int_equal(x.exit.signal, SIGTERM);
	assert_true(span_is(x.exit.reason, "signaled"));
	said_free(&x);
	call_free(c);
}

static void t_signal_method(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {
		.command = span_of("trap 'echo got; exit 3' USR1; echo ready; while :; do sleep 1; done")};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);
	struct rec_exec_signal sig = {.signal = SIGUSR1};
	struct said x;

	sig.session = session_of(p, c);
	wait_bytes(p, c, OUTPUT_HEAD + 6);
	call_free(call_wait(p, METHOD_EXEC_SIGNAL, &sig, NULL));
	assert_true(peer_wait(p, &c->closed));
	said_parse(&x, &c->bytes);
	assert_true(str_is(&x.out, "ready\ngot\n"));
	assert_int_equal(x.exit.code, 3);
	said_free(&x);
	call_free(c);
}

static const char stubborn[] =
	"trap '' TERM; (trap '' TERM; setsid sleep 4242 & setsid sleep 4242 & "
	"setsid sh -c 'kill -STOP $$' & ) ; sleep 4242";

static void timeout_kills(struct peer *p)
{
	struct rec_exec_start rq = {.command = span_of(stubborn), .timeout_ms = 300};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	struct said x;

	said_parse(&x, &c->bytes);
	assert_true(x.has_exit);
	assert_int_equal(x.exit.signal, SIGKILL);
	assert_true(span_is(x.exit.reason, "timeout"));
	said_free(&x);
	call_free(c);
	expect_none(p, "4242");
	expect_none(p, "kill -STOP");
	for (int i = 0; i < 20; i++) /* CGROUP-2: whatever place the next ones get, they live */
		expect(p, "echo alive", "alive\n", "", 0);
}

static void t_timeout_kills_the_tree(void **state)
{
	timeout_kills(peer_of(state));
}

static void t_timeout_without_cgroup(void **state)
{
	struct box b;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(open_box(&b, false), 0);
	timeout_kills(&b.peer);
	close_box(&b);
}

static void t_detach_kills(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("echo x; sleep 4343")};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);

	wait_bytes(p, c, OUTPUT_HEAD + 2);
	assert_true(count_commands(p, "4343") > 0);
	call_free(c); /* reset */
	expect_none(p, "4343");
}

static void t_background(void **state)
{
	struct peer *p = peer_of(state);
	/* The loop goes on writing into the pipe after the session's end: it must not die of that. */
	struct said x;
	struct call *c = run_shell(p, "(while sleep 0.05; do echo tick; done) & echo main", &x);

	assert_true(x.has_exit && x.exit.code == 0);
	assert_memory_equal(x.out.p, "main\n", 5);
	said_free(&x);
	call_free(c);
	assert_true(count_commands(p, "tick") > 0);
	expect(p, "pkill -f 'echo [t]ick'; echo", "\n", "", 0);
	expect_none(p, "echo tick");
}

static void t_table_full(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("exec sleep 4545")};
	struct call *calls[LIMIT_SESSIONS], *more;

	for (size_t i = 0; i < LIMIT_SESSIONS; i++) {
		calls[i] = call_start(p, METHOD_EXEC_START, &rq, false);
		(void)session_of(p, calls[i]);
	}
	more = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	assert_int_equal(more->why.code, ERR_LIMIT);
	assert_non_null(strstr(more->why.text, "256 programs are running"));
	call_free(more);
	for (size_t i = 0; i < LIMIT_SESSIONS; i++)
		call_free(calls[i]);
	expect_none(p, "4545");
	expect(p, "echo room again", "room again\n", "", 0);
}

static void t_fork_bomb(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {
		.command = span_of("ulimit -u 300; b() { b 4646 | b 4646 & }; b 2>/dev/null; sleep 4646"),
		.timeout_ms = 500,
	};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	struct said x;

	said_parse(&x, &c->bytes);
	assert_true(x.has_exit);
	said_free(&x);
	call_free(c);
	expect_none(p, "4646");
}

/* What stands in the guest's own files is the workload's word. */
static void t_hostile_passwd(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("mv /etc/passwd /etc/kept; mkfifo /etc/passwd"),
				    .user = span_of("root")};
	struct rec_file_ref ref = {.path = span_of("/etc/passwd")};
	struct rec_sandbox_ref ping = {.sandbox = span_of("x")};
	struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);

	assert_int_equal(c->why.code, 0);
	call_free(c);
	rq = (struct rec_exec_start){.command = span_of("id")};
	c = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	assert_int_equal(c->why.code, ERR_INVALID);
	assert_non_null(strstr(c->why.text, "/etc/passwd in the guest is not a regular file"));
	call_free(c);
	c = call_wait(p, METHOD_FILE_STAT, &ref, NULL);
	assert_int_equal(c->why.code, ERR_INVALID);
	call_free(c);
	c = call_wait(p, METHOD_GUEST_PING, &ping, NULL);
	assert_int_equal(c->why.code, 0);
	call_free(c);
}

static void t_stdin_10_mib(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("cat"), .stdin = true};
	size_t n = 10 * MIB;
	AUTO_FREE char *data = mem_new(n);
	struct call *c;
	struct said x;

	for (size_t i = 0; i < n; i++)
		data[i] = (char)(i * 2654435761u >> 13);
	c = call_start(p, METHOD_EXEC_START, &rq, true);
	c->send = data;
	c->send_n = n;
	c->end_after_send = true;
	call_push(c);
	assert_true(peer_wait(p, &c->closed));
	said_parse(&x, &c->bytes);
	assert_int_equal(x.exit.code, 0);
	assert_int_equal(x.out.len, n);
	assert_memory_equal(x.out.p, data, n);
	said_free(&x);
	call_free(c);
}

static void t_pty(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {
		.command = span_of("trap 'stty size; exit 5' WINCH; tty; stty size; while :; do sleep 1; done"),
		.pty = true,
		.rows = 10,
		.cols = 40,
		.stdin = true,
	};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, true);
	struct rec_exec_resize rs = {.rows = 55, .cols = 132};
	struct said x;

	rs.session = session_of(p, c);
	wait_bytes(p, c, strlen("/dev/pts/0\r\n10 40\r\n") + OUTPUT_HEAD);
	call_free(call_wait(p, METHOD_EXEC_RESIZE, &rs, NULL));
	assert_true(peer_wait(p, &c->ended));
	said_parse(&x, &c->bytes);
	assert_non_null(strstr(str_text(&x.pty), "/dev/pts/"));
	assert_non_null(strstr(str_text(&x.pty), "10 40\r\n"));
	assert_non_null(strstr(str_text(&x.pty), "55 132\r\n"));
	assert_int_equal(x.exit.code, 5);
	said_free(&x);
	call_free(c);
}

static void t_pty_end_of_input(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("stty -echo; cat; echo done"), .pty = true, .stdin = true};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, true);
	struct said x;

	c->send = "hello\n";
	c->send_n = 6;
	c->end_after_send = true;
	(void)session_of(p, c);
	call_push(c);
	assert_true(peer_wait(p, &c->closed));
	said_parse(&x, &c->bytes);
	assert_non_null(strstr(str_text(&x.pty), "hello\r\n"));
	assert_non_null(strstr(str_text(&x.pty), "done\r\n"));
	assert_int_equal(x.exit.code, 0);
	said_free(&x);
	call_free(c);
}

/* ---- replay ---- */

/* Lines that number themselves: a lost or doubled byte can't hide. */
static void check_lines(const struct str *out, unsigned lines)
{
	struct str want = STR_INIT(KEEP_MAX);

	for (unsigned i = 1; i <= lines; i++)
		str_addf(&want, "%u\n", i);
	assert_int_equal(out->len, want.len);
	assert_memory_equal(out->p, want.p, want.len);
	str_deinit(&want);
}

static void t_resync_in_mid_output(void **state)
{
	enum { LINES = 400000, CUTS = 5 };
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("seq 400000; echo end >&2")};
	struct rec_exec_attach at = {0};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);
	struct str all = STR_INIT(KEEP_MAX);
	struct said x;

	at.session = session_of(p, c);
	for (unsigned i = 1; i <= CUTS; i++) {
		wait_bytes(p, c, i * 70001);
		str_add_mem(&all, c->bytes.p, c->bytes.len);
		at.offset = c->next;
		c->s = NULL; /* vanishes with its link, as when a daemon is killed */
		p->link = link_free(p->link);
		call_free(c);
		assert_true(peer_open(p, LINK_SOCKET | LINK_RESYNC));
		c = call_start(p, METHOD_EXEC_ATTACH, &at, false);
		assert_true(peer_wait(p, &c->replied));
	}
	assert_true(peer_wait(p, &c->closed));
	assert_int_equal(c->why.code, 0);
	str_add_mem(&all, c->bytes.p, c->bytes.len);
	said_parse(&x, &all);
	assert_true(x.has_exit && !x.torn);
	check_lines(&x.out, LINES);
	assert_true(str_is(&x.err, "end\n"));
	said_free(&x);
	str_deinit(&all);
	call_free(c);
}

static void t_attach_after_exit(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("echo once; exit 4")};
	struct rec_exec_attach at = {0};
	struct call *first = call_wait(p, METHOD_EXEC_START, &rq, NULL);
	struct call *again;

	at.session = session_of(p, first);
	again = call_wait(p, METHOD_EXEC_ATTACH, &at, NULL);
	assert_int_equal(again->why.code, 0);
	assert_int_equal(again->bytes.len, first->bytes.len);
	assert_memory_equal(again->bytes.p, first->bytes.p, first->bytes.len);
	call_free(again);
	at.offset = first->next + 1;
	again = call_wait(p, METHOD_EXEC_ATTACH, &at, NULL);
	assert_int_equal(again->why.code, ERR_INVALID);
	call_free(again);
	call_free(first);
}

static void t_slow_reader_blocks_the_writer(void **state)
{
	enum { KEPT_BACK = 8192 }; /* room for the exit chunk, and too little for another read */
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("seq 300000; echo finished > /tmp/finished")};
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);
	struct said x;

	c->hold = true;
	wait_bytes(p, c, LIMIT_WINDOW - KEPT_BACK);
	for (int i = 0; i < 20; i++) {
		expect(p, "cat /tmp/finished 2>&1 | wc -c", "46\n", "", 0);
		if (i == 0)
			assert_true(c->bytes.len <= LIMIT_WINDOW);
	}
	assert_false(c->closed);
	c->hold = false;
	stream_consumed_to(c->s, c->next);
	assert_true(peer_wait(p, &c->closed));
	said_parse(&x, &c->bytes);
	check_lines(&x.out, 300000);
	said_free(&x);
	call_free(c);
}

static void t_slow_reader_drops(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_exec_start rq = {.command = span_of("seq 300000"), .on_slow = span_of("drop")};
	struct rec_exec_info info;
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);
	struct said x;
	bool running = true;

	c->hold = true;
	(void)session_of(p, c);
	while (running) { /* it ends although nobody reads */
		struct rec_sandbox_ref ref = {.sandbox = span_of("x")};
		struct call *list = call_wait(p, METHOD_EXEC_LIST, &ref, NULL);

		running = false;
		for (int at = 0, used; (used = rec_item_next(&rec_exec_info_type, list->bytes.p + at,
							     list->bytes.len - (size_t)at, &info,
							     NULL)) > 0;
		     at += used)
			running |= info.running;
		call_free(list);
	}
	c->hold = false;
	stream_consumed_to(c->s, c->next);
	assert_true(peer_wait(p, &c->closed));
	assert_true(c->next > c->bytes.len); /* offsets jumped over what was dropped */
	said_parse(&x, &c->bytes);	      /* and only whole chunks are missing */
	assert_true(x.has_exit && !x.torn);
	assert_int_equal(x.exit.code, 0);
	said_free(&x);
	call_free(c);
}

static size_t descriptors(pid_t pid)
{
	char path[64];
	DIR *d;
	size_t n = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	d = opendir(path);
	while (d && readdir(d))
		n++;
	if (d)
		(void)closedir(d);
	return n;
}

static long resident_kib(pid_t pid)
{
	char path[64], text[4096];
	const char *p;

	(void)snprintf(path, sizeof(path), "/proc/%d/status", pid);
	if (sys_read_file(AT_FDCWD, path, text, sizeof(text)) < 0)
		return -1;
	p = strstr(text, "VmRSS:");
	return p ? strtol(p + 6, NULL, 10) : -1;
}

static void t_stalled_reader_does_not_grow_us(void **state)
{
	struct peer *p = peer_of(state);
	struct box *b = *state;
	/* 4 GiB if anybody read on; a sixteenth is read here, the rest waits and dies with its reader. */
	struct rec_exec_start rq = {.command = span_of("head -c 4294967296 /dev/zero")};
	long before = resident_kib(b->agent);
	struct call *c = call_start(p, METHOD_EXEC_START, &rq, false);
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;

	c->discard = true;
	while (c->discarded < 256 * MIB && sys_now_ns() < end)
		peer_turn(p, 100);
	assert_true(c->discarded >= 256 * MIB);
	c->hold = true;
	while (c->held < LIMIT_WINDOW - OUTPUT_CHUNK_MAX && sys_now_ns() < end)
		peer_turn(p, 10);
	expect(p, "echo others go on", "others go on\n", "", 0);
	if (!SANITIZED)
		assert_true(resident_kib(b->agent) - before < 4096);
	call_free(c);
}

static void t_thousand_execs(void **state)
{
	struct peer *p = peer_of(state);
	struct box *b = *state;
	static const char argv[] = "/bin/true";
	struct rec_exec_start rq = {.argv = {argv, sizeof(argv)}};
	uint64_t took[1000];
	size_t fds = 0;
	long rss = 0;

	for (size_t i = 0; i < ARRAY_LEN(took); i++) {
		uint64_t t = sys_now_ns();
		struct call *c = call_wait(p, METHOD_EXEC_START, &rq, NULL);

		took[i] = sys_now_ns() - t;
		assert_int_equal(c->why.code, 0);
		call_free(c);
		if (i == LIMIT_SESSIONS + 10) { /* the table of ended sessions is full: from here on flat */
			fds = descriptors(b->agent);
			rss = resident_kib(b->agent);
		}
	}
	assert_int_equal(descriptors(b->agent), fds);
	if (!SANITIZED) /* a sanitizer keeps what is freed */
		assert_true(resident_kib(b->agent) - rss < 512);
	for (size_t i = 0; i < ARRAY_LEN(took); i++) /* the median is for people: nothing fails by it */
		for (size_t j = i; j > 0 && took[j - 1] > took[j]; j--) {
			uint64_t swap = took[j];

			took[j] = took[j - 1];
			took[j - 1] = swap;
		}
	print_message("exec /bin/true: p50 %llu us, p95 %llu us\n",
		      (unsigned long long)took[500] / 1000, (unsigned long long)took[950] / 1000);
}

/* ---- files ---- */

static void write_file(struct peer *p, const char *path, const void *data, size_t n, int code)
{
	struct rec_file_write rq = {.path = span_of(path), .parents = true};
	struct call *c = call_start(p, METHOD_FILE_WRITE, &rq, true);

	c->send = data;
	c->send_n = n;
	c->end_after_send = true;
	call_push(c);
	assert_true(peer_wait(p, &c->closed));
	if (c->why.code != code)
		print_error("%s: %s\n", path, c->why.text);
	assert_int_equal(c->why.code, code);
	call_free(c);
}

static void t_file_round_trip(void **state)
{
	struct peer *p = peer_of(state);
	size_t n = 50 * MIB;
	AUTO_FREE char *data = mem_new(n);
	struct rec_file_read rq = {.path = span_of("dir/big")};
	struct rec_file_info info;
	struct call *c;

	for (size_t i = 0; i < n; i++)
		data[i] = (char)(i * 40503u >> 7);
	write_file(p, "dir/big", data, n, 0);
	c = call_wait(p, METHOD_FILE_READ, &rq, &info);
	assert_int_equal(c->why.code, 0);
	assert_int_equal(info.size, n);
	assert_int_equal(info.mode, 0644);
	assert_int_equal(info.uid, 1000);
	assert_true(span_is(info.owner, "user"));
	assert_int_equal(c->bytes.len, n);
	assert_memory_equal(c->bytes.p, data, n);
	call_free(c);
	rq.offset = 12345;
	rq.length = 100;
	c = call_wait(p, METHOD_FILE_READ, &rq, NULL);
	assert_int_equal(c->bytes.len, 100);
	assert_memory_equal(c->bytes.p, data + 12345, 100);
	call_free(c);
	expect(p, "ls -A dir", "big\n", "", 0); /* no temporary is left */
}

static void t_file_half_upload(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_write rq = {.path = span_of("half")};
	struct call *c = call_start(p, METHOD_FILE_WRITE, &rq, true);
	static const char part[] = "only a part";

	write_file(p, "half", "whole", 5, 0);
	c->send = part;
	c->send_n = sizeof(part);
	call_push(c);
	expect(p, "cat half", "whole", "", 0);
	call_free(c); /* reset: it is taken back */
	expect(p, "cat half; ls -A | grep upload", "whole", "", 1);
}

static void expect_error(struct peer *p, unsigned method, const void *rq, int code, const char *says)
{
	struct call *c = call_wait(p, method, rq, NULL);

	if (c->why.code != code || !strstr(c->why.text, says))
		print_error("wanted %d \"%s\", got %d \"%s\"\n", code, says, c->why.code,
			    c->why.text);
	assert_int_equal(c->why.code, code);
	assert_non_null(strstr(c->why.text, says));
	call_free(c);
}

/* What the sender skips is a hole; bits and time are the sender's, 0 included. */
static void t_file_holes_and_facts(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_write rq = {.path = span_of("sparse"), .exact = true, .mtime_ns = 981173106789000000};
	struct rec_file_read rd = {.path = span_of("sparse"), .holes = true, .offset = 1000};
	struct rec_file_link ln = {.path = span_of("new/link"), .target = span_of("../sparse")};
	struct rec_file_set set = {.path = span_of("new"), .mode = 0500, .mtime_ns = 1000000000};
	struct rec_guest_health health;
	struct rec_sandbox_ref ref = {span_of("box")};
	struct call *c = call_start(p, METHOD_FILE_WRITE, &rq, true);

	c->send = "middle";
	c->send_n = 6;
	stream_skip(c->s, 1 << 20);
	call_push(c);
	stream_skip(c->s, 2 << 20);
	stream_end(c->s);
	assert_true(peer_wait(p, &c->closed));
	assert_int_equal(c->why.code, 0);
	call_free(c);
	expect(p, "stat -c '%a %Y %s' sparse; [ $(stat -c %b sparse) -lt 100 ] && echo few",
	       "0 981173106 2097152\nfew\n", "", 0);
	expect(p, "chmod 600 sparse; tail -c +1048577 sparse | head -c 6", "middle", "", 0);
	c = call_wait(p, METHOD_FILE_READ, &rd, NULL);
	assert_int_equal(c->why.code, 0);
	assert_true(c->bytes.len < 100000 && memmem(c->bytes.p, c->bytes.len, "middle", 6));
	call_free(c);
	call_free(call_wait(p, METHOD_FILE_LINK, &ln, NULL));
	ln.target = span_of("elsewhere"); /* replaced */
	call_free(call_wait(p, METHOD_FILE_LINK, &ln, NULL));
	call_free(call_wait(p, METHOD_FILE_SET, &set, NULL));
	expect(p, "readlink new/link; stat -c '%a %Y' new; ls -A new", "elsewhere\n500 1\nlink\n", "", 0);
	ln.path = span_of("new");
	expect_error(p, METHOD_FILE_LINK, &ln, ERR_INVALID, "is a directory");
	set.path = span_of("/etc/passwd");
	expect_error(p, METHOD_FILE_SET, &set, ERR_DENIED, "/etc/passwd");
	c = call_wait(p, METHOD_GUEST_PING, &ref, &health);
	assert_int_equal(health.features, 1);
	call_free(c);
}

static void t_file_errors(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_read rd = {.path = span_of("/nowhere")};
	struct rec_file_ref ref = {.path = span_of("/etc/passwd")};
	struct rec_file_move mv = {.from = span_of("/no"), .to = span_of("/tmp/x/y")};

	expect_error(p, METHOD_FILE_READ, &rd, ERR_NOT_FOUND, "'/nowhere' does not exist");
	rd.path = span_of("/tmp");
	expect_error(p, METHOD_FILE_READ, &rd, ERR_INVALID, "is a directory");
	expect(p, "mkfifo /tmp/fifo", "", "", 0);
	rd.path = span_of("/tmp/fifo"); /* would hang whoever opens it plainly */
	expect_error(p, METHOD_FILE_READ, &rd, ERR_INVALID, "not a regular file");
	rd.path = span_of("/dev/zero");
	expect_error(p, METHOD_FILE_READ, &rd, ERR_INVALID, "not a regular file");
	write_file(p, "/tmp/fifo", "x", 1, ERR_INVALID);
	write_file(p, "/etc/new", "x", 1, ERR_DENIED);
	write_file(p, "/tmp", "x", 1, ERR_INVALID);
	expect_error(p, METHOD_FILE_LIST, &ref, ERR_INVALID, "not a directory");
	expect_error(p, METHOD_FILE_MOVE, &mv, ERR_NOT_FOUND, "'/no' does not exist");
	expect(p, "ls /tmp/x 2>/dev/null", "", "", 2); /* no parents for nothing */
	ref.path = span_of("/etc/group");
	expect_error(p, METHOD_FILE_REMOVE, &ref, ERR_DENIED, "'/etc/group'");
	ref.user = span_of("other");
	ref.path = span_of("/home/user/secret/x");
	expect(p, "mkdir -m 700 secret; echo s > secret/x", "", "", 0);
	expect_error(p, METHOD_FILE_STAT, &ref, ERR_DENIED, "");
}

static void t_disk_full(void **state)
{
	struct peer *p = peer_of(state);
	size_t n = 64 * MIB;
	AUTO_FREE char *data = mem_new(n);

	expect(p, "head -c 470m /dev/zero > /tmp/fill", "", "", 0);
	write_file(p, "/tmp/more", data, n, ERR_LIMIT);
	expect(p, "ls -A /tmp | grep -c -e more -e upload; rm /tmp/fill", "0\n", "", 0);
}

static void t_file_list(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_ref rq = {.path = span_of("~/tree"), .depth = 3};
	struct str got = STR_INIT(65536);
	struct rec_file_info info;
	struct call *c;

	expect(p,
	       "mkdir -p tree/b/c tree/a; echo 1 > tree/b/c/z; echo 22 > \"tree/b/$(printf 'n\\n\\377')\";"
	       "chmod 640 tree/b/c/z; mkfifo tree/a/p",
	       "", "", 0);
	c = call_wait(p, METHOD_FILE_LIST, &rq, NULL);
	assert_int_equal(c->why.code, 0);
	for (int at = 0, used; (used = rec_item_next(&rec_file_info_type, c->bytes.p + at,
						     c->bytes.len - (size_t)at, &info, NULL)) > 0;
	     at += used)
		str_addf(&got, "%.*s|%.*s|%o;", (int)info.path.n, info.path.p, (int)info.kind.n,
			 info.kind.p, (unsigned)info.mode);
	assert_string_equal(str_text(&got),
			    "a|directory|755;a/p|fifo|644;b|directory|755;b/c|directory|755;"
			    "b/c/z|file|640;b/n\n\377|file|644;");
	str_deinit(&got);
	call_free(c);
}

static void t_big_list(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_ref rq = {.path = span_of("/tmp/many")};
	struct rec_file_info info;
	unsigned n = 0;
	struct call *c;

	expect(p, "mkdir /tmp/many; cd /tmp/many; seq -f %05g 20000 | xargs touch", "", "", 0);
	c = call_wait(p, METHOD_FILE_LIST, &rq, NULL);
	for (int at = 0, used; (used = rec_item_next(&rec_file_info_type, c->bytes.p + at,
						     c->bytes.len - (size_t)at, &info, NULL)) > 0;
	     at += used) {
		char want[16];

		(void)snprintf(want, sizeof(want), "%05u", ++n);
		assert_true(span_is(info.path, want));
	}
	assert_int_equal(n, 20000);
	call_free(c);
	rq.recursive = true;
	c = call_wait(p, METHOD_FILE_REMOVE, &rq, NULL);
	assert_int_equal(c->why.code, 0);
	call_free(c);
	expect(p, "ls /tmp/many", "", "ls: cannot access '/tmp/many': No such file or directory\n", 2);
}

static void t_mkdir_move_remove(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_ref mk = {.path = span_of("m/n/o"), .recursive = true, .mode = 0700};
	struct rec_file_ref rm = {.path = span_of("m")};
	struct rec_file_move mv = {.from = span_of("m/n"), .to = span_of("m/q/r")};

	call_free(call_wait(p, METHOD_FILE_MKDIR, &mk, NULL));
	expect(p, "stat -c '%a %U %n' m/n m/n/o", "755 user m/n\n700 user m/n/o\n", "", 0);
	expect_error(p, METHOD_FILE_MKDIR, &mk, ERR_CONFLICT, "exists");
	call_free(call_wait(p, METHOD_FILE_MOVE, &mv, NULL));
	expect(p, "find m | sort", "m\nm/q\nm/q/r\nm/q/r/o\n", "", 0);
	expect_error(p, METHOD_FILE_REMOVE, &rm, ERR_CONFLICT, "not empty");
	rm.recursive = true;
	call_free(call_wait(p, METHOD_FILE_REMOVE, &rm, NULL));
	expect(p, "ls", "", "", 0);
}

/* Wait until an event of that kind and path is among those told. */
static void expect_event(struct peer *p, struct call *c, const char *kind, const char *path)
{
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;
	bool found = false;

	while (!found && sys_now_ns() < end) {
		struct rec_file_event ev;

		for (int at = 0, used; (used = rec_item_next(&rec_file_event_type, c->bytes.p + at,
							     c->bytes.len - (size_t)at, &ev, NULL)) > 0;
		     at += used)
			found |= span_is(ev.kind, kind) && span_is(ev.path, path);
		if (!found)
			peer_turn(p, 50);
	}
	if (!found)
		print_error("no event %s %s\n", kind, path);
	assert_true(found);
}

static void t_watch(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_file_ref rq = {.path = span_of("w"), .recursive = true};
	struct call *c;

	expect(p, "mkdir w", "", "", 0);
	c = call_start(p, METHOD_FILE_WATCH, &rq, false);
	assert_true(peer_wait(p, &c->replied));
	expect(p, "echo 1 > w/f; mkdir -p w/d/e; echo 2 > w/d/e/g; mv w/f w/h; chmod 600 w/h; rm w/h",
	       "", "", 0);
	expect_event(p, c, "create", "f");
	expect_event(p, c, "write", "f");
	expect_event(p, c, "create", "d/e/g");
	expect_event(p, c, "rename", "f");
	expect_event(p, c, "create", "h");
	expect_event(p, c, "chmod", "h");
	expect_event(p, c, "remove", "h");
	expect(p, "echo 3 > w/d/e/later; mv w/d w/moved; echo 4 > w/moved/e/last", "", "", 0);
	expect_event(p, c, "create", "d/e/later");
	expect_event(p, c, "create", "moved/e/last");
	call_free(c);
	rq.path = span_of("/etc/passwd");
	expect_error(p, METHOD_FILE_WATCH, &rq, ERR_INVALID, "not a directory");
}

/* ---- ports, setup, info ---- */

static void t_port(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_port_connect rq = {.port = 8123};
	struct rec_exec_start server = {
		.command = span_of(
			"python3 -c '\n"
			"import socket\n"
			"s=socket.socket(); s.bind((\"127.0.0.1\",8123)); s.listen()\n"
			"print(\"up\",flush=True); c,_=s.accept(); n=0; d=b\"\"\n"
			"while True:\n"
			"  b=c.recv(65536)\n"
			"  if not b: break\n"
			"  d+=b\n"
			"c.sendall(d[::-1]); c.close()'")};
	size_t n = 2 * MIB;
	AUTO_FREE char *data = mem_new(n);
	struct call *c, *run;

	expect_error(p, METHOD_PORT_CONNECT, &rq, ERR_UNAVAILABLE, "nothing listens");
	run = call_start(p, METHOD_EXEC_START, &server, false);
	wait_bytes(p, run, OUTPUT_HEAD + 3);
	for (size_t i = 0; i < n; i++)
		data[i] = (char)(i * 7919u >> 5);
	c = call_start(p, METHOD_PORT_CONNECT, &rq, true);
	c->send = data;
	c->send_n = n;
	c->end_after_send = true; /* half closed: the answer comes after that */
	call_push(c);
	assert_true(peer_wait(p, &c->closed));
	assert_int_equal(c->why.code, 0);
	assert_int_equal(c->bytes.len, n);
	for (size_t i = 0; i < n; i++)
		if (c->bytes.p[i] != data[n - 1 - i])
			fail_msg("byte %zu differs", i);
	call_free(c);
	call_free(run);
}

static void t_port_on_v6(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_port_connect rq = {.port = 8124};
	struct rec_exec_start server = {
		.command = span_of("python3 -c '\n"
				   "import socket\n"
				   "s=socket.socket(socket.AF_INET6); s.bind((\"::1\",8124)); s.listen()\n"
				   "print(\"up\",flush=True); c,_=s.accept(); c.sendall(b\"six\")'")};
	struct call *run = call_start(p, METHOD_EXEC_START, &server, false);
	struct call *c;

	wait_bytes(p, run, OUTPUT_HEAD + 3);
	c = call_wait(p, METHOD_PORT_CONNECT, &rq, NULL);
	assert_int_equal(c->why.code, 0);
	assert_string_equal(str_text(&c->bytes), "six");
	call_free(c);
	call_free(run);
}

static void t_setup_and_info(void **state)
{
	struct peer *p = peer_of(state);
	struct rec_guest_setup rq = {
		.hostname = span_of("cell-seven"),
		.env = {"COLOR=red\0PATH=/bin", 20},
		.user = span_of("other"),
		.seed = {"seed", 4},
		.machine_id = {{0xab, 0xcd}},
	};
	struct rec_guest_ready ready;
	struct rec_guest_info info;
	struct rec_guest_health health;
	struct rec_sandbox_ref ref = {.sandbox = span_of("x")};
	struct call *c = call_wait(p, METHOD_GUEST_SETUP, &rq, &ready);

	assert_int_equal(c->why.code, 0);
	assert_true(span_is(ready.hostname, "cell-seven"));
	assert_true(span_is(ready.wall, "process"));
	assert_false(ready.seeded); /* the pool is the host's: we may not and did not */
	call_free(c);
	expect(p, "id -un; echo $COLOR $PATH; pwd; cat /etc/machine-id; hostname; getent hosts $(hostname)",
	       "other\nred /bin\n/tmp\nabcd0000000000000000000000000000\ncell-seven\n"
	       "127.0.1.1       cell-seven\n",
	       "", 0);
	c = call_wait(p, METHOD_GUEST_INFO, &ref, &info);
	assert_true(span_is(info.hostname, "cell-seven"));
	assert_true(info.memory_kib > 0 && info.disk_kib > 0 && info.cpus > 0);
	call_free(c);
	c = call_wait(p, METHOD_GUEST_PING, &ref, &health);
	assert_int_equal(health.sessions, 0);
	assert_int_equal(health.generation, 1);
	call_free(c);
}

static void t_reaper_killed(void **state)
{
	struct rec_exec_start rq = {.command = span_of("echo x; sleep 4444")};
	char path[64], text[64];
	struct call *c;
	struct box b;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(open_box(&b, true), 0);
	c = call_start(&b.peer, METHOD_EXEC_START, &rq, false);
	wait_bytes(&b.peer, c, OUTPUT_HEAD + 2);
	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", b.agent, b.agent);
	assert_true(sys_read_file(AT_FDCWD, path, text, sizeof(text)) > 0);
	assert_int_equal(kill((pid_t)strtol(text, NULL, 10), SIGKILL), 0);
	assert_true(peer_wait(&b.peer, &c->closed)); /* everything died with it */
	call_free(c);
	close_box(&b);
}

static void t_shutdown(void **state)
{
	struct rec_guest_shutdown rq = {.grace_ms = 60000};
	struct rec_exec_start polite = {
		.command = span_of("trap 'echo bye > /tmp/bye; exit 0' TERM; echo x; while :; do sleep 0.1; done")};
	struct call *c, *run;
	struct box b;
	int status;

	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(open_box(&b, true), 0);
	run = call_start(&b.peer, METHOD_EXEC_START, &polite, false);
	wait_bytes(&b.peer, run, OUTPUT_HEAD + 2);
	c = call_wait(&b.peer, METHOD_GUEST_SHUTDOWN, &rq, NULL);
	assert_int_equal(c->why.code, 0);
	call_free(c);
	call_free(run);
	assert_int_equal(waitpid(b.agent, &status, 0), b.agent);
	assert_int_equal(status, 0);
	b.peer.link = link_free(b.peer.link);
	(void)close(b.peer.fd);
	(void)loop_free(b.peer.loop);
	remove_cgroup(b.cgroup);
}

#define BOXED(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		BOXED(t_output_and_code),
		BOXED(t_other_users),
		BOXED(t_order),
		BOXED(t_walls),
		BOXED(t_failures_are_no_exit_codes),
		BOXED(t_signals),
		BOXED(t_signal_method),
		BOXED(t_timeout_kills_the_tree),
		T(t_timeout_without_cgroup),
		BOXED(t_detach_kills),
		BOXED(t_background),
		BOXED(t_table_full),
		BOXED(t_fork_bomb),
		BOXED(t_hostile_passwd),
		BOXED(t_stdin_10_mib),
		BOXED(t_pty),
		BOXED(t_pty_end_of_input),
		BOXED(t_resync_in_mid_output),
		BOXED(t_attach_after_exit),
		BOXED(t_slow_reader_blocks_the_writer),
		BOXED(t_slow_reader_drops),
		BOXED(t_stalled_reader_does_not_grow_us),
		BOXED(t_thousand_execs),
		BOXED(t_file_round_trip),
		BOXED(t_file_half_upload),
		BOXED(t_file_holes_and_facts),
		BOXED(t_file_errors),
		BOXED(t_disk_full),
		BOXED(t_file_list),
		BOXED(t_big_list),
		BOXED(t_mkdir_move_remove),
		BOXED(t_watch),
		BOXED(t_port),
		BOXED(t_port_on_v6),
		BOXED(t_setup_and_info),
		T(t_reaper_killed),
		T(t_shutdown),
	};

	if (argc > 1) /* names to run, "*" allowed */
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
