/* sys/t_cgroup.c - groups on whatever hierarchies this host has. Needs root; skipped otherwise. */
#include "sys/cgroup.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"
#include "sys/process.h"

enum { PATIENCE_MS = 10000 };

static struct cgroup_root *root_or_skip(const char *suffix)
{
	struct cgroup_root *r = NULL;
	char name[CGROUP_NAME_MAX];

	(void)snprintf(name, sizeof(name), "hotcell-t-cgroup-%s-%d", suffix, getpid());
	if (geteuid() != 0 || cgroup_root_open(name, &r) < 0)
		skip();
	return r;
}

/* A child in the group that waits to be killed. */
static pid_t child_in(struct cgroup *c, int *ret_pidfd)
{
	int doors[CGROUP_DOORS], ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(cgroup_doors(c, cgroup_clone_fd(c) >= 0, doors), 0);
	assert_int_equal(sys_pipe(ready), 0);
	pid = sys_clone(0, cgroup_clone_fd(c), ret_pidfd);
	if (pid == 0) {
		for (int i = 0; i < CGROUP_DOORS; i++)
			if (doors[i] >= 0 && sys_write_full(doors[i], "0", 1) < 0)
				_exit(1);
		(void)sys_write_full(ready[1], "r", 1);
		for (;;)
			pause();
	}
	assert_true(pid > 0);
	for (int i = 0; i < CGROUP_DOORS; i++)
		(void)sys_close(doors[i]);
	(void)sys_close(ready[1]);
	assert_int_equal(sys_read(ready[0], &byte, 1), 1); /* otherwise it could not enter */
	(void)sys_close(ready[0]);
	return pid;
}

static void limits_are_read_back(void **state)
{
	struct cgroup_root *r = root_or_skip("limits");
	const struct cgroup_limits l = {.memory_bytes = 48 * MIB, .cpu_milli = 1500, .pids = 17, .oom_group = true};
	unsigned have = cgroup_root_limits(r), failed = ~0u;
	struct cgroup_usage use;
	struct cgroup *c;
	int err;

	T_UNUSED(state);
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	err = cgroup_set(c, &l, &failed);
	assert_int_equal(err < 0, failed != 0);
	assert_int_equal(failed, (CGROUP_MEMORY | CGROUP_CPU | CGROUP_PIDS) & ~have);
	assert_int_equal(cgroup_usage(c, &use), 0);
	assert_int_equal(use.memory_max_bytes, have & CGROUP_MEMORY ? 48 * MIB : 0);
	assert_int_equal(use.pids_max, have & CGROUP_PIDS ? 17 : 0);
	assert_int_equal(use.oom_kills, 0);
	assert_int_equal(cgroup_remove(c), 0);
	(void)cgroup_free(c);
	(void)cgroup_root_close(r);
}

static void no_limit_reads_as_none(void **state)
{
	struct cgroup_root *r = root_or_skip("none");
	struct cgroup_usage use;
	struct cgroup *c;

	T_UNUSED(state);
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	assert_int_equal(cgroup_usage(c, &use), 0);
	assert_int_equal(use.memory_max_bytes, 0);
	assert_int_equal(use.pids_max, 0);
	assert_int_equal(cgroup_remove(c), 0);
	(void)cgroup_free(c);
	(void)cgroup_root_close(r);
}

/* Exit status of a child: 0 when groups are made although a hierarchy is mounted twice, 77 when that can't be tried. */
static int groups_are_made_once(const char *bound, bool without_v2)
{
	struct cgroup_root *r = NULL;
	struct cgroup *c = NULL;
	char name[CGROUP_NAME_MAX];
	int err;

	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(bound, "/mnt", NULL, MS_BIND, NULL) < 0)
		return 77;
	if (without_v2) /* which would count processor time by itself */
		(void)umount2("/sys/fs/cgroup/unified", MNT_DETACH);
	(void)snprintf(name, sizeof(name), "hotcell-t-cgroup-twice-%d", getpid());
	if (cgroup_root_open(name, &r) < 0)
		return 77;
	err = cgroup_new(r, "one", &c);
	if (err == 0) {
		err = cgroup_remove(c);
		(void)cgroup_free(c);
	}
	(void)cgroup_root_close(r);
	return err < 0 ? 1 : 0;
}

static void a_hierarchy_may_be_mounted_twice(void **state)
{
	static const char *const places[] = {"/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup/cpu,cpuacct",
					     "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
	unsigned tried = 0;

	T_UNUSED(state);
	for (size_t i = 0; i < 2 * ARRAY_LEN(places) && geteuid() == 0; i++) {
		const char *place = places[i / 2];
		struct sys_exit how;
		int pidfd;

		if (access(place, F_OK) < 0)
			continue;
		if (sys_clone(0, -1, &pidfd) == 0)
			_exit(groups_are_made_once(place, i % 2));
		assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
		(void)sys_close(pidfd);
		if (how.code == 77)
			continue;
		if (how.code)
			fail_msg("%s, mounted at /mnt as well: no group can be made", place);
		tried++;
	}
	if (tried == 0)
		skip();
}

/* Enough in UDP sockets to show: it is told as memory in use, and v1 bounds it, apart, by a quarter of the memory. */
static int fill_sockets(void)
{
	static char bytes[60000];
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int got = 0;

	for (int i = 0; i < 500; i++) {
		int to = socket(AF_INET, SOCK_DGRAM, 0), room = 1 << 20;

		sa.sin_port = 0;
		(void)setsockopt(to, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
		if (to < 0 || bind(to, (struct sockaddr *)&sa, len) < 0 ||
		    getsockname(to, (struct sockaddr *)&sa, &len) < 0)
			return -1;
		for (int n = 0; n < 8; n++)
			got += sendto(to, bytes, sizeof(bytes), MSG_DONTWAIT, (struct sockaddr *)&sa, len) > 0;
	}
	return got;
}

static void sockets_are_memory(void **state)
{
	struct cgroup_root *r = root_or_skip("sockets");
	const struct cgroup_limits l = {.memory_bytes = 64 * MIB};
	int doors[CGROUP_DOORS], ready[2], go[2], pidfd;
	struct cgroup_usage use;
	struct sys_exit how;
	struct cgroup *c;
	unsigned failed;
	char byte;

	T_UNUSED(state);
	if (!(cgroup_root_limits(r) & CGROUP_MEMORY) || !cgroup_root_counts_sockets(r)) {
		(void)cgroup_root_close(r);
		skip();
	}
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	assert_int_equal(cgroup_set(c, &l, &failed), 0);
	assert_int_equal(cgroup_doors(c, cgroup_clone_fd(c) >= 0, doors), 0);
	assert_int_equal(sys_pipe(ready) | sys_pipe(go), 0);
	if (sys_clone(0, cgroup_clone_fd(c), &pidfd) == 0) {
		for (int i = 0; i < CGROUP_DOORS; i++)
			if (doors[i] >= 0 && sys_write_full(doors[i], "0", 1) < 0)
				_exit(1);
		(void)sys_close(go[1]);
		if (fill_sockets() < 0 || sys_write_full(ready[1], "r", 1) < 0)
			_exit(2);
		_exit(sys_read(go[0], &byte, 1) == 0 ? 0 : 3);
	}
	for (int i = 0; i < CGROUP_DOORS; i++)
		(void)sys_close(doors[i]);
	(void)sys_close(ready[1]);
	(void)sys_close(go[0]);
	assert_int_equal(sys_read(ready[0], &byte, 1), 1);
	assert_int_equal(cgroup_usage(c, &use), 0);
	assert_in_range(use.memory_bytes, 8 * MIB, (64 + 64 / 4) * MIB); /* of 240 MB that were sent */
	(void)sys_close(go[1]);
	(void)sys_close(ready[0]);
	assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
	assert_int_equal(how.code, 0);
	(void)sys_close(pidfd);
	assert_int_equal(cgroup_remove(c), 0);
	(void)cgroup_free(c);
	(void)cgroup_root_close(r);
}

static void full_groups_stay_until_they_are_empty(void **state)
{
	struct cgroup_root *r = root_or_skip("full");
	struct sys_exit how;
	struct pollfd p = {.events = POLLPRI};
	struct cgroup *c, *twin;
	int pidfd;

	T_UNUSED(state);
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	assert_int_equal(cgroup_new(r, "one", &twin), -EEXIST);
	assert_int_equal(cgroup_is_populated(c), 0);
	(void)child_in(c, &pidfd);
	assert_int_equal(cgroup_is_populated(c), 1);
	assert_int_equal(cgroup_remove(c), -EBUSY); /* CGROUP-2 */
	assert_int_equal(cgroup_kill(c), 0);
	assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
	assert_int_equal(how.signal, SIGKILL);
	p.fd = cgroup_events_fd(c);
	while (p.fd >= 0 && cgroup_is_populated(c) == 1)
		assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
	assert_int_equal(cgroup_remove(c), 0);
	(void)sys_close(pidfd);
	(void)cgroup_free(c);
	(void)cgroup_root_close(r);
}

static void a_sweep_leaves_nothing(void **state)
{
	struct cgroup_root *r = root_or_skip("sweep");
	struct sys_exit how;
	struct cgroup *c, *again;
	int pidfd, dir;

	T_UNUSED(state);
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	(void)child_in(c, &pidfd);
	dir = cgroup_delegate(c, 12345, 12345);
	if (dir >= 0)
		assert_int_equal(sys_mkdir(dir, "below", 0755), 0);
	(void)sys_close(dir);
	(void)cgroup_free(c); /* as if we had died */
	assert_int_equal(cgroup_root_sweep(r, PATIENCE_MS), 0);
	assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
	assert_int_equal(how.signal, SIGKILL);
	(void)sys_close(pidfd);
	assert_int_equal(cgroup_new(r, "one", &again), 0);
	assert_int_equal(cgroup_remove(again), 0);
	(void)cgroup_free(again);
	(void)cgroup_root_close(r);
}

static void a_delegate_may_make_groups_but_not_change_limits(void **state)
{
	struct cgroup_root *r = root_or_skip("delegate");
	struct cgroup *c;
	struct sys_exit how;
	int dir, pidfd;

	T_UNUSED(state);
	assert_int_equal(cgroup_new(r, "one", &c), 0);
	dir = cgroup_delegate(c, 12345, 12345);
	if (cgroup_clone_fd(c) < 0) {
		assert_int_equal(dir, -EOPNOTSUPP);
	} else {
		assert_true(dir >= 0);
		if (sys_clone(0, -1, &pidfd) == 0) {
			if (setresgid(12345, 12345, 12345) < 0 || setresuid(12345, 12345, 12345) < 0 ||
			    mkdirat(dir, "mine", 0755) < 0)
				_exit(1);
			if (openat(dir, "cgroup.max.depth", O_WRONLY) >= 0 || openat(dir, "cgroup.kill", O_WRONLY) >= 0)
				_exit(2);
			_exit(0);
		}
		assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
		assert_int_equal(how.code, 0);
		(void)sys_close(pidfd);
	}
	(void)sys_close(dir);
	assert_int_equal(cgroup_remove(c), 0);
	(void)cgroup_free(c);
	(void)cgroup_root_close(r);
}

static void names_are_checked(void **state)
{
	struct cgroup_root *r = NULL;
	struct cgroup *c;

	T_UNUSED(state);
	assert_int_equal(cgroup_root_open("a/b", &r), -EINVAL);
	r = root_or_skip("names");
	assert_int_equal(cgroup_new(r, "../x", &c), -EINVAL);
	assert_int_equal(cgroup_new(r, ".x", &c), -EINVAL);
	(void)cgroup_root_close(r);
}

static void failing_calls_leak_nothing(void **state)
{
	struct cgroup_root *r = root_or_skip("faults");

	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO) {
		struct cgroup *c;

		if (cgroup_new(r, "one", &c) == 0) {
			if (cgroup_remove(c) < 0)
				(void)cgroup_remove(c); /* only one call fails */
			(void)cgroup_free(c);
		}
	}
	assert_int_equal(cgroup_root_sweep(r, PATIENCE_MS), 0);
	(void)cgroup_root_close(r);
}

T_MAIN(T(limits_are_read_back), T(no_limit_reads_as_none), T(a_hierarchy_may_be_mounted_twice), T(sockets_are_memory),
       T(full_groups_stay_until_they_are_empty),
       T(a_sweep_leaves_nothing), T(a_delegate_may_make_groups_but_not_change_limits), T(names_are_checked),
       T(failing_calls_leak_nothing))
