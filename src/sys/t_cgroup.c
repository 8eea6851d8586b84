/* sys/t_cgroup.c - groups on whatever hierarchies this host has. Needs root; skipped otherwise. */
#include "sys/cgroup.h"
#include <fcntl.h>
#include <poll.h>
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

T_MAIN(T(limits_are_read_back), T(no_limit_reads_as_none), T(full_groups_stay_until_they_are_empty),
       T(a_sweep_leaves_nothing), T(a_delegate_may_make_groups_but_not_change_limits), T(names_are_checked),
       T(failing_calls_leak_nothing))
