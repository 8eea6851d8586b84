/*
 * keeper/t_keeper.c - the real keeper program, a throw-away tree, and an inmate that tries to get out
 *
 * Needs root (id ranges, owner shifts, cgroups); skipped otherwise.
 */
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/host.h"
#include "keeper/keeper.h"
#include "loop/loop.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/sock.h"
#include "wire/gen/records.h"

enum { PATH_ROOM = 512, PATIENCE_MS = 20000, SLOTS = 8, PIDS = 40, MEMORY_MB = 64, DISK_MB = 16 };

#define HASH  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define IMAGE "state/images/x@" HASH

struct world {
	char dir[PATH_ROOM / 4];
	pid_t pid; /* of the keeper */
	const char *linger; /* its --linger */
	struct loop *loop;
	struct keeper *keeper;
	bool up, lost, gone;
	struct id gone_id;
	char reason[1100];
	int64_t code;
	uint64_t signal;
};

struct waiter {
	struct keeper_call call;
	bool done;
	struct err why; /* code 0: success */
};

/* ---- the world around a keeper ---- */

static void path_of(const struct world *w, const char *name, char ret[PATH_ROOM])
{
	(void)snprintf(ret, PATH_ROOM, "%s/%s", w->dir, name);
}

static void copy_program(const struct world *w, const char *from, const char *to)
{
	char source[PATH_ROOM], target[PATH_ROOM];
	AUTO_CLOSE int in = -1, out = -1;
	char block[65536];
	ssize_t n;

	(void)snprintf(source, sizeof(source), "%s/src/bin/%s", getenv("HOTCELL_BUILD"), from);
	path_of(w, to, target);
	in = sys_open(source, O_RDONLY);
	out = sys_create(target, O_WRONLY | O_TRUNC, 0755);
	assert_true(in >= 0 && out >= 0);
	while ((n = sys_read(in, block, sizeof(block))) > 0)
		assert_int_equal(sys_write_full(out, block, (size_t)n), 0);
}

static void make_dirs(const struct world *w)
{
	static const char *const names[] = {"bin",
					    "run",
					    IMAGE "/tree/etc",
					    IMAGE "/tree/var",
					    IMAGE "/tree/old",
					    "elsewhere"};
	char path[PATH_ROOM];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		path_of(w, names[i], path);
		assert_int_equal(sys_mkdirs(path, 0755), 0);
	}
	path_of(w, IMAGE "/tree/hello", path);
	assert_int_equal(sys_write_file(AT_FDCWD, path, "as it was"), 0);
	path_of(w, IMAGE "/tree/old/file", path);
	assert_int_equal(sys_write_file(AT_FDCWD, path, ""), 0);
}

static void start_keeper(struct world *w)
{
	char program[PATH_ROOM], state[PATH_ROOM], run[PATH_ROOM], log[PATH_ROOM];
	struct pollfd p = {.events = POLLIN};
	int ready[2];

	path_of(w, "bin/hotcell-keeper", program);
	path_of(w, "state", state);
	path_of(w, "run", run);
	path_of(w, "run/keeper.log", log);
	assert_int_equal(sys_pipe(ready), 0);
	w->pid = fork();
	if (w->pid == 0) {
		int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

		if (dup2(fd, 2) < 0 || dup2(ready[1], 3) < 0 || setsid() < 0)
			_exit(126);
		execl(program, "hotcell-keeper", "--state", state, "--run", run, "--slots", "8", "--linger",
		      w->linger, "--ready-fd", "3", NULL);
		_exit(127);
	}
	assert_true(w->pid > 0);
	(void)sys_close(ready[1]);
	p.fd = ready[0];
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	assert_int_equal(sys_read(ready[0], state, 1), 1); /* 0: it ended; see its log */
	(void)sys_close(ready[0]);
}

static void on_up(void *arg)
{
	((struct world *)arg)->up = true;
}

static void on_gone(void *arg, const struct rec_machine_info *m)
{
	struct world *w = arg;

	w->gone = true;
	w->gone_id = m->id;
	w->code = m->code;
	w->signal = m->signal;
	span_copy(m->reason, w->reason, sizeof(w->reason));
}

static void on_lost(void *arg, const struct err *why)
{
	T_UNUSED(why);
	((struct world *)arg)->lost = true;
}

/* Turn the loop until *flag, or fail. */
static void turn_until(struct world *w, const bool *flag)
{
	uint64_t end = sys_now_ns() + PATIENCE_MS * NS_PER_MS;

	while (!*flag) {
		assert_true(sys_now_ns() < end);
		assert_int_equal(loop_turn(w->loop, 1000), 0);
	}
}

static void connect_keeper(struct world *w)
{
	const struct keeper_events ev = {.up = on_up, .gone = on_gone, .lost = on_lost, .arg = w};
	char path[PATH_ROOM];
	struct err e = ERR_INIT;

	path_of(w, "run/keeper/keeper.sock", path);
	w->up = w->lost = w->gone = false;
	assert_int_equal(keeper_new(w->loop, path, &ev, &w->keeper, &e), 0);
	turn_until(w, &w->up);
}

static struct world *world_new_lingering(const char *linger)
{
	static struct world world;
	struct world *w = &world;

	if (geteuid() != 0)
		skip();
	*w = (struct world){.dir = "/var/tmp/t_keeper.XXXXXX", .linger = linger};
	assert_non_null(mkdtemp(w->dir));
	assert_int_equal(chmod(w->dir, 0755), 0);
	make_dirs(w);
	copy_program(w, "hotcell-keeper", "bin/hotcell-keeper");
	copy_program(w, "inmate", "bin/hotcell-init");
	assert_int_equal(loop_new(false, &w->loop), 0);
	start_keeper(w);
	connect_keeper(w);
	if (keeper_host(w->keeper)->process_reason[0])
		fail_msg("no process wall here: %s", keeper_host(w->keeper)->process_reason);
	return w;
}

static struct world *world_new(void)
{
	return world_new_lingering("60000");
}

static void end_keeper(struct world *w, int sig)
{
	int status;

	assert_int_equal(kill(w->pid, sig), 0);
	assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
	if (sig == SIGTERM)
		assert_int_equal(status, 0); /* with a leak sanitizer: nothing leaked */
	w->pid = 0;
}

static unsigned count_matches(const char *pattern)
{
	glob_t g;
	unsigned n;

	if (glob(pattern, 0, NULL, &g) != 0)
		return 0;
	n = (unsigned)g.gl_pathc;
	globfree(&g);
	return n;
}

static void hash_name(const struct world *w, char ret[64])
{
	char run[PATH_ROOM];
	uint64_t h = 0xcbf29ce484222325ull;

	path_of(w, "run", run);
	for (const char *p = run; *p; p++)
		h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
	(void)snprintf(ret, 64, "hotcell-%016llx", (unsigned long long)h);
}

static unsigned count_groups(const struct world *w, const char *below)
{
	char name[64], pattern[PATH_ROOM];

	hash_name(w, name);
	(void)snprintf(pattern, sizeof(pattern), "/sys/fs/cgroup/*/%s%s", name, below);
	return count_matches(pattern);
}

/* Ends the keeper; nothing may be left, above all no cgroup, and so no process. */
static void world_free(struct world *w)
{
	w->keeper = keeper_free(w->keeper);
	if (w->pid)
		end_keeper(w, SIGTERM);
	w->loop = loop_free(w->loop);
	assert_int_equal(count_groups(w, ""), 0);
	assert_int_equal(sys_remove_tree(AT_FDCWD, w->dir), 0);
}

/* ---- calls that wait ---- */

static void on_done(struct keeper_call *c, const struct err *why)
{
	struct waiter *x = CONTAINER_OF(c, struct waiter, call);

	x->done = true;
	x->why = why ? *why : (struct err)ERR_INIT;
}

static struct id id_of(unsigned char n)
{
	struct id id = {.b = {1, 2, 3, n}};

	return id;
}

static struct rec_machine_start request(unsigned char n)
{
	return (struct rec_machine_start){
		.id = id_of(n), .kind = 1, .vcpus = 1, .memory_mb = MEMORY_MB, .disk_mb = DISK_MB, .pids_max = PIDS,
		.image = span_of(HASH)};
}

/* Start with @rec, handing over @fd unless it is -1; the error's code, 0 on success. */
static int start_with(struct world *w, const struct rec_machine_start *rec, int fd, struct waiter *x)
{
	struct err e = ERR_INIT;

	*x = (struct waiter){.call.done = on_done};
	assert_int_equal(keeper_start(w->keeper, rec, &fd, fd >= 0 ? 1 : 0, &x->call, &e), 0);
	turn_until(w, &x->done);
	return x->why.code;
}

static int start(struct world *w, const struct rec_machine_start *rec, struct waiter *x)
{
	return start_with(w, rec, -1, x);
}

static void release(struct world *w, unsigned char n)
{
	struct waiter x = {.call.done = on_done};
	struct id id = id_of(n);

	assert_int_equal(keeper_release(w->keeper, &id, &x.call, NULL), 0);
	turn_until(w, &x.done);
	assert_int_equal(x.why.code, 0);
}

static void close_fds(struct waiter *x)
{
	for (int i = 0; i < KEEPER_FDS; i++)
		x->call.fds[i] = sys_close(x->call.fds[i]);
}

static int64_t ask(int link, char command)
{
	struct pollfd p = {.fd = link, .events = POLLIN};
	int64_t answer = 0;

	assert_int_equal(sys_write_full(link, &command, 1), 0);
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	assert_int_equal(sys_read(link, &answer, sizeof(answer)), sizeof(answer));
	return answer;
}

struct counter {
	struct keeper_list_call list;
	bool done;
	unsigned n;
};

static void on_each(struct keeper_list_call *c, const struct rec_machine_info *m)
{
	T_UNUSED(m);
	CONTAINER_OF(c, struct counter, list)->n++;
}

static void on_counted(struct keeper_call *c, const struct err *why)
{
	struct counter *x = CONTAINER_OF(CONTAINER_OF(c, struct keeper_list_call, call), struct counter, list);

	assert_null(why);
	x->done = true;
}

static unsigned count_machines(struct world *w)
{
	struct counter x = {.list = {.call.done = on_counted, .each = on_each}};

	assert_int_equal(keeper_list(w->keeper, &x.list, NULL), 0);
	turn_until(w, &x.done);
	return x.n;
}

/* ---- tests ---- */

static void a_machine_lives_and_leaves_nothing(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct id id = id_of(1);
	struct waiter x, s = {.call.done = on_done};
	struct stat st;
	char proc[64];

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'f'), 7); /* JAIL-1; one counts what ended by lack of memory */
	(void)snprintf(proc, sizeof(proc), "/proc/%d", x.call.pid);
	assert_int_equal(stat(proc, &st), 0);
	assert_true(st.st_uid >= HOST_UID_SLOTS && st.st_uid < HOST_UID_SLOTS + SLOTS * 65536);
	assert_int_equal((st.st_uid - HOST_UID_SLOTS) % 65536, 0);

	assert_int_equal(keeper_stats(w->keeper, &id, &s.call, NULL), 0);
	turn_until(w, &s.done);
	assert_int_equal(s.why.code, 0);
	if (keeper_host(w->keeper)->enforces_memory)
		assert_int_equal(s.call.memory_max_bytes, MEMORY_MB * MIB);
	if (keeper_host(w->keeper)->enforces_pids)
		assert_int_equal(s.call.pids_max, PIDS);
	assert_int_equal(count_machines(w), 1);
	release(w, 1);
	assert_int_equal(count_machines(w), 0);
	assert_int_not_equal(stat(proc, &st), 0);
	close_fds(&x);
	world_free(w);
}

static void nobody_gets_out(void **state)
{
	static const struct {
		char command;
		int64_t answer;
	} attempts[] = {
		{'m', -EPERM},	     {'u', -EPERM},  {'n', -EPERM}, {'c', -EPERM}, {'3', -ENOSYS},
		{'b', -EPERM},	     {'i', -EPERM},  {'k', -EPERM}, {'p', -EPERM}, {'s', -EACCES},
		{'h', -ENOENT},	     {'r', -EACCES}, {'d', -EPERM}, {'l', -ECONNREFUSED},
		{'o', -ENETUNREACH}, {'w', 7}, {'R', 0},	     {'g', 0},	    {'L', -EACCES},
	};
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x;
	char path[PATH_ROOM], text[64];
	int64_t kcore;

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	for (size_t i = 0; i < ARRAY_LEN(attempts); i++) {
		int64_t answer = ask(x.call.fds[KEEPER_LINK], attempts[i].command);

		if (answer != attempts[i].answer)
			fail_msg("'%c' answered %lld, not %lld", attempts[i].command, (long long)answer,
				 (long long)attempts[i].answer);
	}
	kcore = ask(x.call.fds[KEEPER_LINK], 'K');
	assert_true(kcore == 0 || kcore == -ENOENT || kcore == -EACCES);
	path_of(w, IMAGE "/tree/hello", path); /* the inmate wrote to it */
	assert_true(sys_read_file(AT_FDCWD, path, text, sizeof(text)) > 0);
	assert_string_equal(text, "as it was");
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static void bombs_stay_inside(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x, s = {.call.done = on_done};
	struct id id = id_of(1);
	int64_t n;

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	if (keeper_host(w->keeper)->enforces_pids) {
		n = ask(x.call.fds[KEEPER_LINK], 'F');
		assert_true(n > 0 && n < PIDS);
	}
	n = ask(x.call.fds[KEEPER_LINK], 'D');
	assert_true(n > DISK_MB / 2 && n <= DISK_MB);
	if (keeper_host(w->keeper)->enforces_memory) {
		assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'M'), -1000 - SIGKILL);
		assert_int_equal(keeper_stats(w->keeper, &id, &s.call, NULL), 0);
		turn_until(w, &s.done);
		assert_true(s.call.oom_kills >= 1);
	}
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1); /* the agent lives */
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static void another_daemon_takes_over(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x, y = {.call.done = on_done};
	struct id id = id_of(1), other = id_of(2);

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	close_fds(&x);
	w->keeper = keeper_free(w->keeper);
	connect_keeper(w);
	assert_int_equal(count_machines(w), 1);
	assert_int_equal(keeper_adopt(w->keeper, &id, &y.call, NULL), 0);
	turn_until(w, &y.done);
	assert_int_equal(y.why.code, 0);
	assert_int_equal(y.call.pid, x.call.pid);
	assert_int_equal(ask(y.call.fds[KEEPER_LINK], 'P'), 1);
	close_fds(&y);
	y = (struct waiter){.call.done = on_done};
	assert_int_equal(keeper_adopt(w->keeper, &other, &y.call, NULL), 0);
	turn_until(w, &y.done);
	assert_int_equal(y.why.code, ERR_NOT_FOUND);
	release(w, 1);
	world_free(w);
}

static void ends_are_told_with_their_reason(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x, s = {.call.done = on_done};
	struct id id = id_of(2);
	char command = 'q';

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(sys_write_full(x.call.fds[KEEPER_LINK], &command, 1), 0);
	turn_until(w, &w->gone);
	assert_int_equal(w->code, 7);
	assert_string_equal(w->reason, "exited: good bye and"); /* without what every boot says */
	close_fds(&x);
	release(w, 1);

	w->gone = false;
	rec = request(2);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 't'), 0); /* TERM won't do */
	assert_int_equal(keeper_stop(w->keeper, &id, 50, &s.call, NULL), 0);
	turn_until(w, &w->gone);
	assert_int_equal(w->signal, SIGKILL);
	assert_string_equal(w->reason, "stopped");
	close_fds(&x);
	release(w, 2);
	world_free(w);
}

static void a_lease_ends(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	uint64_t end = sys_now_ns() + PATIENCE_MS * NS_PER_MS;
	struct waiter x;

	T_UNUSED(state);
	rec.lease_ms = 200;
	assert_int_equal(start(w, &rec, &x), 0);
	turn_until(w, &w->gone);
	assert_string_equal(w->reason, "lease");
	assert_int_equal(w->signal, SIGKILL);
	while (count_machines(w)) /* MACH-3: nobody releases it */
		assert_true(sys_now_ns() < end);
	close_fds(&x);
	world_free(w);
}

/* Without a daemon it stays as long as it has a machine, and not longer. */
static void ends_when_nobody_needs_it(void **state)
{
	struct world *w = world_new_lingering("1");
	struct rec_machine_start rec = request(1);
	struct pollfd p = {.events = POLLIN};
	struct waiter x;
	int status;

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	close_fds(&x);
	p.fd = sys_pidfd_open(w->pid);
	w->keeper = keeper_free(w->keeper);
	assert_int_equal(poll(&p, 1, 200), 0); /* 200 times what it lingers */
	connect_keeper(w);
	assert_int_equal(count_machines(w), 1);
	release(w, 1);
	w->keeper = keeper_free(w->keeper);
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	assert_int_equal(waitpid(w->pid, &status, 0), w->pid);
	assert_int_equal(status, 0);
	w->pid = 0;
	(void)sys_close(p.fd);
	world_free(w);
}

static void machines_die_with_the_keeper(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x, unheard = {.call.done = on_done};
	struct pollfd p = {.events = POLLIN};

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(kill(w->pid, SIGSTOP), 0);
	assert_int_equal(keeper_stats(w->keeper, &rec.id, &unheard.call, NULL), 0);
	end_keeper(w, SIGKILL);
	p.fd = x.call.fds[KEEPER_PIDFD];
	assert_int_equal(poll(&p, 1, PATIENCE_MS), 1); /* JAIL-2 */
	turn_until(w, &unheard.done);
	assert_int_equal(unheard.why.code, ERR_GONE);
	assert_non_null(strstr(unheard.why.text, "the keeper is gone"));
	assert_non_null(strstr(unheard.why.text, "the next command starts both again"));
	turn_until(w, &w->lost);
	close_fds(&x);
	w->keeper = keeper_free(w->keeper);
	assert_true(count_groups(w, "/*/") > 0); /* left behind */

	start_keeper(w);
	connect_keeper(w);
	assert_int_equal(count_machines(w), 0);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1);
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static int copy_code(struct world *w, unsigned char n,
		     int (*what)(struct keeper *k, const struct id *id, struct keeper_call *c, struct err *e))
{
	struct waiter x = {.call.done = on_done};
	struct id id = id_of(n);

	assert_int_equal(what(w->keeper, &id, &x.call, NULL), 0);
	turn_until(w, &x.done);
	assert_int_equal(x.call.fds[KEEPER_LINK], -1);
	return x.why.code;
}

static void only_machines_have_memory_to_copy(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x;

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(copy_code(w, 1, keeper_save), ERR_UNSUPPORTED);
	assert_int_equal(copy_code(w, 2, keeper_save), ERR_NOT_FOUND);
	assert_int_equal(copy_code(w, 1, keeper_copy), ERR_CONFLICT);
	assert_int_equal(copy_code(w, 2, keeper_copy), ERR_NOT_FOUND);
	assert_int_equal(copy_code(w, 2, keeper_take), ERR_NOT_FOUND);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1);
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static int copy_files(struct world *w, unsigned char n)
{
	struct waiter x = {.call.done = on_done};
	struct id id = id_of(n);

	assert_int_equal(keeper_take(w->keeper, &id, &x.call, NULL), 0);
	turn_until(w, &x.done);
	if (x.why.code == ERR_UNSUPPORTED)
		return -1;
	if (x.why.code)
		fail_msg("%s", x.why.text);
	assert_true(x.call.copied_bytes > 0);
	return x.call.fds[KEEPER_LINK];
}

static void files_are_copied(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1), clone = request(2), third = request(3);
	struct waiter x, y, z;
	AUTO_CLOSE int files = -1, again = -1;

	T_UNUSED(state);
	clone.forked = third.forked = true;
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'W'), 0);
	files = copy_files(w, 1);
	if (files >= 0) {
		assert_true(fcntl(files, F_GET_SEALS) & F_SEAL_WRITE);
		assert_int_equal(start_with(w, &clone, files, &y), 0);
		assert_int_equal(ask(y.call.fds[KEEPER_LINK], 'V'), 0);
		assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'V'), 0); /* the first has them as well */
		release(w, 1);
		again = copy_files(w, 2);
		assert_int_equal(start_with(w, &third, again, &z), 0);
		assert_int_equal(ask(z.call.fds[KEEPER_LINK], 'V'), 0);
		release(w, 2);
		release(w, 3);
		close_fds(&y);
		close_fds(&z);
	} else {
		release(w, 1);
	}
	close_fds(&x);
	world_free(w);
	if (files < 0)
		skip(); /* Linux before 6.6 */
}

/* What is no such file, or does not fit, ends that start and nothing else. */
static void files_of_nobody(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1), clone = request(2), small = request(3), plain = request(4);
	struct waiter x, y;
	AUTO_CLOSE int nonsense = sys_memfd("nonsense", MFD_ALLOW_SEALING), files = -1;

	T_UNUSED(state);
	clone.forked = small.forked = true;
	small.disk_mb = 1;
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'E'), 0);
	files = copy_files(w, 1);
	if (files >= 0) {
		assert_int_equal(start_with(w, &clone, nonsense, &y), ERR_INVALID);
		assert_non_null(strstr(y.why.text, "sealed")); /* it could change while it is read */
		assert_int_equal(sys_seal(nonsense, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK), 0);
		assert_int_equal(start_with(w, &clone, nonsense, &y), ERR_INVALID);
		assert_non_null(strstr(y.why.text, "cut off"));
		assert_int_equal(start_with(w, &small, files, &y), ERR_LIMIT);
		assert_non_null(strstr(y.why.text, "don't fit"));
	}
	assert_int_equal(start_with(w, &plain, nonsense, &y), ERR_INVALID);
	assert_int_equal(count_machines(w), 1);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1);
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static void a_copy_that_is_not_waited_for(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x, copy = {.call.done = on_done};

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'E'), 0);
	assert_int_equal(keeper_take(w->keeper, &rec.id, &copy.call, NULL), 0);
	release(w, 1);
	turn_until(w, &copy.done); /* made, or told that it was not */
	copy.call.fds[KEEPER_LINK] = sys_close(copy.call.fds[KEEPER_LINK]);
	assert_int_equal(count_machines(w), 0);
	close_fds(&x);
	world_free(w);
}

static void nonsense_is_refused(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1), same = request(1), no_disk = request(2);
	struct waiter x, y;

	T_UNUSED(state);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(start(w, &same, &y), ERR_CONFLICT);
	no_disk.disk_mb = 0;
	assert_int_equal(start(w, &no_disk, &y), ERR_INVALID);
	no_disk = request(0);
	no_disk.id = (struct id){0};
	assert_int_equal(start(w, &no_disk, &y), ERR_INVALID);
	assert_int_equal(count_machines(w), 1);
	release(w, 1);
	release(w, 9); /* never had: success */
	close_fds(&x);
	world_free(w);
}

/* ---- a daemon that was taken over ---- */

/* As the daemon's uid may: a mount nobody else sees, in which the path of a template leads to @secret. */
static int make_false_tree(const char *images, const char *secret, int *ret_root)
{
	static const char *const opts[] = {"mode=0755", NULL};
	char path[2 * PATH_ROOM];
	AUTO_CLOSE int root = -1, tree = -1;

	(void)prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || sys_write_file(AT_FDCWD, "/proc/self/setgroups", "deny") < 0)
		return -errno;
	(void)snprintf(path, sizeof(path), "0 %u 1", HOST_UID_DAEMON);
	if (sys_write_file(AT_FDCWD, "/proc/self/uid_map", path) < 0 ||
	    sys_write_file(AT_FDCWD, "/proc/self/gid_map", path) < 0)
		return -errno;
	root = sys_mount_new("tmpfs", opts, 0);
	(void)snprintf(path, sizeof(path), "%s/evil", images + 1);
	for (char *p = path; root >= 0 && p; p = strchr(p + 1, '/')) {
		char *slash = strchr(p + 1, '/');

		if (slash)
			*slash = '\0';
		if (mkdirat(root, path, 0755) < 0)
			return -errno;
		if (slash)
			*slash = '/';
	}
	tree = sys_tree_clone(AT_FDCWD, secret);
	if (root < 0 || tree < 0 || sys_mount_attach(tree, root, path) < 0)
		return -errno;
	*ret_root = take_fd(&root);
	return sys_openat(*ret_root, path, O_PATH | O_DIRECTORY, 0);
}

static _Noreturn void evil_main(int sock, const char *images, const char *secret)
{
	struct iovec iov = {(char[]){"x"}, 1};
	int fd, root = -1;

	if (setgroups(0, NULL) < 0 || setresgid(HOST_UID_DAEMON, HOST_UID_DAEMON, HOST_UID_DAEMON) < 0 ||
	    setresuid(HOST_UID_DAEMON, HOST_UID_DAEMON, HOST_UID_DAEMON) < 0)
		_exit(1);
	fd = make_false_tree(images, secret, &root);
	if (fd >= 0 && sys_send(sock, &iov, 1, &fd, 1) == 1)
		(void)sys_await_readable(sock); /* while @root is open, the path says what it should */
	_exit(0);
}

struct false_tree {
	int fd; /* -1: not on this kernel */
	int sock;
	pid_t pid;
};

/* A descriptor of a folder only root can look into, where its path says that it is a template. */
static struct false_tree false_tree_new(const struct world *w)
{
	char images[PATH_ROOM], secret[PATH_ROOM], byte;
	struct false_tree t = {.fd = -1};
	unsigned n = 1;
	int pair[2];

	path_of(w, "state/images", images);
	path_of(w, "elsewhere", secret);
	assert_int_equal(chmod(secret, 0700), 0);
	assert_int_equal(sys_socketpair(pair), 0);
	t.pid = fork();
	if (t.pid == 0) {
		(void)sys_close(pair[0]);
		evil_main(pair[1], images, secret);
	}
	(void)sys_close(pair[1]);
	t.sock = pair[0];
	assert_int_equal(sys_await_readable(t.sock), 0);
	if (sys_recv(t.sock, &byte, 1, &t.fd, &n) != 1 || n != 1)
		t.fd = -1;
	return t;
}

static void false_tree_end(struct false_tree *t)
{
	(void)sys_close(t->sock);
	(void)sys_close(t->fd);
	assert_int_equal(waitpid(t->pid, NULL, 0), t->pid);
}

static void no_descriptor_is_a_tree(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x;
	char path[PATH_ROOM];
	struct false_tree evil = false_tree_new(w);
	AUTO_CLOSE int honest = -1;

	T_UNUSED(state);
	path_of(w, IMAGE "/tree", path);
	honest = sys_open(path, O_PATH | O_DIRECTORY);
	assert_int_equal(start_with(w, &rec, honest, &x), ERR_INVALID); /* a daemon of 0.1.0 */
	assert_non_null(strstr(x.why.text, "end hotcelld"));
	if (evil.fd >= 0)
		assert_int_equal(start_with(w, &rec, evil.fd, &x), ERR_INVALID);
	rec.forked = true; /* then there is one, but of a memory file */
	assert_int_equal(start_with(w, &rec, honest, &x), ERR_INVALID);
	if (evil.fd >= 0)
		assert_int_equal(start_with(w, &rec, evil.fd, &x), ERR_INVALID);
	assert_int_equal(count_machines(w), 0);
	false_tree_end(&evil);
	world_free(w);
	if (evil.fd < 0)
		skip(); /* before Linux 6.15 nothing can be mounted in a mount that is nowhere */
}

/* Swap the image or its tree for @other, start, and swap back. */
static int start_instead(struct world *w, const char *name, const char *other, struct waiter *x)
{
	struct rec_machine_start rec = request(1);
	char at[PATH_ROOM], from[PATH_ROOM];
	int r;

	path_of(w, name, at);
	path_of(w, other, from);
	assert_int_equal(sys_rename(AT_FDCWD, at, AT_FDCWD, from, RENAME_EXCHANGE), 0);
	r = start(w, &rec, x);
	assert_int_equal(sys_rename(AT_FDCWD, at, AT_FDCWD, from, RENAME_EXCHANGE), 0);
	return r;
}

static void a_tree_is_root_s_and_where_templates_are(void **state)
{
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	char path[PATH_ROOM], link[PATH_ROOM], mount[PATH_ROOM];
	struct waiter x;

	T_UNUSED(state);
	path_of(w, "elsewhere/tree", path);
	assert_int_equal(sys_mkdirs(path, 0755), 0);
	path_of(w, "link", link);
	path_of(w, "elsewhere", path);
	assert_int_equal(symlink(path, link), 0);
	assert_int_not_equal(start_instead(w, IMAGE, "link", &x), 0);
	assert_int_not_equal(start_instead(w, IMAGE "/tree", "link", &x), 0);

	assert_int_equal(chown(path, HOST_UID_DAEMON, HOST_UID_DAEMON), 0);
	assert_int_equal(start_instead(w, IMAGE, "elsewhere", &x), ERR_DENIED);
	assert_non_null(strstr(x.why.text, "chown"));
	assert_int_equal(start_instead(w, IMAGE "/tree", "elsewhere", &x), ERR_DENIED);
	assert_int_equal(chown(path, 0, 0), 0);
	assert_int_equal(chmod(path, 0775), 0);
	assert_int_equal(start_instead(w, IMAGE, "elsewhere", &x), ERR_DENIED);
	assert_int_equal(chmod(path, 0755), 0);

	path_of(w, IMAGE "/tree", mount);
	assert_int_equal(sys_bind(path, mount), 0);
	assert_int_equal(start(w, &rec, &x), ERR_DENIED);
	assert_non_null(strstr(x.why.text, "is a mount"));
	assert_int_equal(umount2(mount, MNT_DETACH), 0);
	assert_int_equal(start(w, &rec, &x), 0);
	assert_int_equal(ask(x.call.fds[KEEPER_LINK], 'P'), 1);
	release(w, 1);
	close_fds(&x);
	world_free(w);
}

static void a_tree_is_named_by_a_whole_hash(void **state)
{
	static const struct {
		const char *name;
		int code;
	} names[] = {
		{"", ERR_INVALID},
		{"x", ERR_INVALID},
		{"../../elsewhere", ERR_INVALID},
		{"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", ERR_INVALID},
		{"0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef", ERR_INVALID},
		{"../3456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", ERR_INVALID},
		{"1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", ERR_NOT_FOUND},
	};
	struct world *w = world_new();
	struct rec_machine_start rec = request(1);
	struct waiter x;

	T_UNUSED(state);
	assert_true(keeper_host(w->keeper)->opens_trees);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		rec.image = span_of(names[i].name);
		assert_int_equal(start(w, &rec, &x), names[i].code);
	}
	assert_int_equal(count_machines(w), 0);
	world_free(w);
}

static void all_slots_and_again(void **state)
{
	struct world *w = world_new();
	struct waiter x[SLOTS], y;

	T_UNUSED(state);
	for (int round = 0; round < 3; round++) {
		for (unsigned char i = 0; i < SLOTS; i++) {
			struct rec_machine_start rec = request(i);

			assert_int_equal(start(w, &rec, &x[i]), 0);
			assert_int_equal(ask(x[i].call.fds[KEEPER_LINK], 'P'), 1);
		}
		struct rec_machine_start rec = request(SLOTS);

		assert_int_equal(start(w, &rec, &y), ERR_LIMIT);
		for (unsigned char i = 0; i < SLOTS; i++) {
			release(w, i);
			close_fds(&x[i]);
		}
	}
	world_free(w);
}

T_MAIN(T(a_machine_lives_and_leaves_nothing), T(nobody_gets_out), T(bombs_stay_inside),
       T(another_daemon_takes_over), T(ends_are_told_with_their_reason), T(a_lease_ends),
       T(ends_when_nobody_needs_it),
       T(machines_die_with_the_keeper), T(nonsense_is_refused), T(no_descriptor_is_a_tree),
       T(a_tree_is_root_s_and_where_templates_are),
       T(a_tree_is_named_by_a_whole_hash), T(only_machines_have_memory_to_copy),
       T(files_are_copied), T(files_of_nobody), T(a_copy_that_is_not_waited_for), T(all_slots_and_again))
