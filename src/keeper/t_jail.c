/*
 * keeper/t_jail.c - a jail whose n-th system call fails, for every n: nothing may stay
 *
 * Needs root and the inmate as agent; skipped otherwise.
 */
#include "keeper/jail.h"
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/files.h"
#include "keeper/host.h"
#include "keeper/jail_process.h"
#include "keeper/process_root.h"
#include "sys/cgroup.h"
#include "sys/fault.h"
#include "sys/fd.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/sock.h"

enum { PATH_ROOM = 512, PATIENCE_MS = 20000, CHILD_CALLS = 200, UID = (int)(HOST_UID_TRIAL + 65536 * 8u) };

struct rig {
	char init[PATH_ROOM], tree[PATH_ROOM];
	int tree_fd;
	int files_fd; /* what its writable layer starts with; -1: this kernel can't */
	char group[64];
};

/* What one try holds; all of it is given back in give_back(). */
struct try {
	struct process_host *host;
	struct cgroup_root *root;
	struct cgroup *group;
	struct process_shell *shell;
	struct process_ends ends;
};

/* In the host's mount namespace, where nothing of ours belongs. */
static bool is_mounted(const char *what)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f))
		found = strstr(line, what) != NULL;
	(void)fclose(f);
	return found;
}

/* What a sandbox has written: a file and a folder. */
static int make_files(void)
{
	char dir[] = "/var/tmp/t_jail.XXXXXX";
	AUTO_CLOSE int root = -1;
	int fd = sys_memfd("files", 0);

	assert_non_null(mkdtemp(dir));
	root = sys_open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(sys_mkdir(root, "upper", 0755), 0);
	assert_int_equal(sys_mkdir(root, "upper/folder", 0755), 0);
	assert_int_equal(sys_mkdir(root, "tmp", 01777), 0);
	assert_int_equal(sys_write_file(root, "upper/folder/file", "text"), 0);
	assert_int_equal(files_pack(root, fd, MIB, NULL), 0);
	assert_int_equal(sys_remove_tree(AT_FDCWD, dir), 0);
	return fd;
}

static void rig_init(struct rig *g)
{
	if (geteuid() != 0 || !getenv("HOTCELL_BUILD"))
		skip();
	(void)snprintf(g->init, sizeof(g->init), "%s/src/bin/inmate", getenv("HOTCELL_BUILD"));
	(void)snprintf(g->tree, sizeof(g->tree), "/var/tmp/t_jail.XXXXXX");
	(void)snprintf(g->group, sizeof(g->group), "hotcell-t-jail-%d", getpid());
	assert_non_null(mkdtemp(g->tree));
	g->tree_fd = sys_open(g->tree, O_PATH | O_DIRECTORY);
	assert_true(g->tree_fd >= 0);
	g->files_fd = process_root_by_user() ? make_files() : -1;
}

static void rig_deinit(struct rig *g)
{
	g->files_fd = sys_close(g->files_fd);
	g->tree_fd = sys_close(g->tree_fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, g->tree), 0);
}

/* 0 when the program runs. */
static int await_program(int status_fd, struct err *e)
{
	struct pollfd p = {.fd = status_fd, .events = POLLIN};
	int r;

	while ((r = jail_status(status_fd, e)) == 1)
		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	return r;
}

static int run(struct rig *g, struct try *t, struct err *e)
{
	const struct cgroup_limits limits = {.memory_bytes = 64 * MIB, .cpu_milli = 1000, .pids = 20};
	const struct process_go go = {g->tree_fd, g->files_fd, MIB};
	unsigned failed = 0;
	int r = process_host_open(g->init, &t->host, e);

	if (r == 0)
		r = cgroup_root_open(g->group, &t->root) < 0 ? -ERR_INTERNAL : 0;
	if (r == 0)
		r = cgroup_new(t->root, "one", &t->group) < 0 ? -ERR_INTERNAL : 0;
	if (r == 0)
		r = process_shell_new(t->host, (uid_t)UID, t->group, &t->shell, e);
	if (r == 0)
		r = cgroup_set(t->group, &limits, &failed) < 0 ? -ERR_INTERNAL : 0;
	if (r == 0)
		r = process_shell_go(t->shell, &go, &t->ends, e);
	return r < 0 ? r : await_program(t->ends.child.status_fd, e);
}

static void give_back(struct try *t)
{
	(void)process_shell_free(t->shell);
	jail_end(&t->ends.child);
	(void)sys_close(t->ends.link_fd);
	(void)sys_close(t->ends.console_fd);
	(void)sys_close(t->ends.layer_fd);
	(void)cgroup_free(t->group);
	if (t->root)
		assert_int_equal(cgroup_root_sweep(t->root, PATIENCE_MS), 0);
	(void)cgroup_root_close(t->root);
	(void)process_host_close(t->host);
}

static bool group_is_left(const struct rig *g)
{
	char path[PATH_ROOM];

	(void)snprintf(path, sizeof(path), "ls -d /sys/fs/cgroup/%s /sys/fs/cgroup/*/%s >/dev/null 2>&1", g->group,
		       g->group);
	return system(path) == 0;
}

/* Returns whether a call failed at all, that is, whether there is a next one to try. */
static bool try_nth(struct rig *g, unsigned nth)
{
	struct try t = {.ends = {JAIL_CHILD_INIT, -1, -1, -1}};
	struct err e = ERR_INIT;
	struct t_fds then;
	unsigned seen;
	int r;

	t_fds_read(&then);
	sys_fault_arm(nth, -EIO);
	r = run(g, &t, &e);
	seen = sys_fault_seen();
	sys_fault_arm(0, 0);
	give_back(&t);
	if (nth == 0 && r < 0)
		fail_msg("without a fault: %s", e.text);
	if (r < 0 && r != -ERR_INTERNAL && !e.text[0])
		fail_msg("call %u: no sentence for error %d", nth, r);
	assert_int_equal(t_fds_leaked(&then), 0);
	assert_false(is_mounted(g->tree));
	assert_int_equal(waitpid(-1, NULL, __WALL), -1); /* no child, dead or alive */
	return seen >= nth;
}

static void every_failing_call_leaves_nothing(void **state)
{
	struct rig g;
	unsigned nth = 0, failures = 0;

	T_UNUSED(state);
	rig_init(&g);
	(void)try_nth(&g, 0);
	while (try_nth(&g, ++nth))
		failures++;
	assert_true(failures > 50); /* otherwise nothing was injected */
	for (unsigned last = nth + CHILD_CALLS; nth < last;) /* the child counts on from the clone */
		(void)try_nth(&g, ++nth);
	assert_false(group_is_left(&g));
	rig_deinit(&g);
}

/* What fails in the child before exec reaches the parent as a sentence (JAIL-3). */
static int fail_on_purpose(void *arg, struct err *e)
{
	T_UNUSED(arg);
	return err_set(e, ERR_LIMIT, "on purpose");
}

static void a_childs_failure_is_heard(void **state)
{
	static const char *const argv[] = {"nothing", NULL};
	const struct jail_spec spec = {
		.name = "nothing",
		.uid_base = (uid_t)UID,
		.gid_base = (gid_t)UID,
		.id_count = JAIL_IDS,
		.setup = fail_on_purpose,
		.seccomp_fd = -1,
		.exec_fd = -1,
		.exec_path = "/nothing",
		.argv = argv,
		.envp = argv + 1,
	};
	struct jail_spec no_program = spec;
	struct jail_child c = JAIL_CHILD_INIT;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	if (geteuid() != 0)
		skip();
	assert_int_equal(jail_start(&spec, &c, &e), 0);
	assert_int_equal(await_program(c.status_fd, &e), -ERR_LIMIT);
	assert_string_equal(e.text, "on purpose");
	jail_end(&c);

	no_program.setup = NULL;
	assert_int_equal(jail_start(&no_program, &c, &e), 0);
	assert_int_equal(await_program(c.status_fd, &e), -ERR_NOT_FOUND);
	jail_end(&c);
}

/* An ordinary program under another id: not even the bounding set is left. */
static void no_capability_is_left(void **state)
{
	static const char *const argv[] = {"grep", "^Cap", "/proc/self/status", NULL};
	static const char *const none[] = {NULL};
	static const char *const sets[] = {"Inh", "Prm", "Eff", "Bnd", "Amb"};
	struct err e = ERR_INIT;
	char text[512] = "";
	int out[2];

	T_UNUSED(state);
	if (geteuid() != 0)
		skip();
	assert_int_equal(sys_pipe(out), 0);
	const struct jail_fd fds[] = {{out[1], 1}};
	const struct jail_spec spec = {
		.name = "grep",
		.uid_base = (uid_t)UID,
		.gid_base = (gid_t)UID,
		.id_count = JAIL_IDS,
		.uid = 1,
		.gid = 1,
		.seccomp_fd = -1,
		.fds = fds,
		.n_fds = ARRAY_LEN(fds),
		.exec_fd = -1,
		.exec_path = "/bin/grep",
		.argv = argv,
		.envp = none,
	};
	struct jail_child c = JAIL_CHILD_INIT;

	assert_int_equal(jail_start(&spec, &c, &e), 0);
	(void)sys_close(out[1]);
	assert_int_equal(await_program(c.status_fd, &e), 0);
	for (size_t n = 0; sys_read(out[0], text + n, sizeof(text) - 1 - n) > 0; n = strlen(text))
		;
	for (size_t i = 0; i < ARRAY_LEN(sets); i++) {
		char line[64];

		(void)snprintf(line, sizeof(line), "Cap%s:\t0000000000000000\n", sets[i]);
		if (!strstr(text, line))
			fail_msg("Cap%s is not empty:\n%s", sets[i], text);
	}
	(void)sys_close(out[0]);
	jail_end(&c);
}

/* What older kernels need; here it must work just as well, and leave nothing. */
static void a_helper_lends_a_root(void **state)
{
	struct rig g;

	T_UNUSED(state);
	rig_init(&g);
	FOR_EACH_FAULT(nth, EIO) {
		struct process_root t = PROCESS_ROOT_INIT;
		struct err e = ERR_INIT;
		int tree = sys_tree_clone(g.tree_fd, "");

		if (tree >= 0 && process_root_lend(tree, MIB, (uid_t)UID, &t, &e) == 0) {
			struct stat st;

			assert_int_equal(fstatat(t.root, "", &st, AT_EMPTY_PATH), 0);
			assert_int_equal(st.st_uid, UID);
			assert_int_equal(fstatat(t.tmp, "", &st, AT_EMPTY_PATH), 0);
			assert_int_equal(st.st_mode & 07777, 01777);
		}
		process_root_close(&t);
		(void)sys_close(tree);
		assert_int_equal(waitpid(-1, NULL, __WALL), -1);
	}
	assert_false(is_mounted(g.tree));
	rig_deinit(&g);
}

/* Nobody sent the folder: an older kernel, whose helper mounted the root. */
static void without_a_folder_no_copy(void **state)
{
	struct err e = ERR_INIT;
	int pair[2], fd = -1;

	T_UNUSED(state);
	assert_int_equal(process_layer(-1, &fd, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "Linux 6.6"));
	assert_int_equal(sys_socketpair(pair), 0);
	assert_int_equal(process_layer(pair[0], &fd, &e), -ERR_UNSUPPORTED);
	assert_int_equal(sys_write_full(pair[1], "x", 1), 0); /* a byte, and nothing with it */
	assert_int_equal(process_layer(pair[0], &fd, &e), -ERR_UNSUPPORTED);
	assert_int_equal(fd, -1);
	(void)sys_close(pair[0]);
	(void)sys_close(pair[1]);
}

T_MAIN(T(no_capability_is_left), T(a_helper_lends_a_root), T(every_failing_call_leaves_nothing),
       T(a_childs_failure_is_heard), T(without_a_folder_no_copy))
