/* keeper/jail.c - one program in namespaces of its own: fork, agree with the parent, confine, exec */
#include "keeper/jail.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "sys/caps.h"
#include "sys/cgroup.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"

/* Descriptors are moved up here first, so that none stands where another has to go. */
enum { HIGH_FD = 256, EXIT_FAILED = 127 };

/* Before keeper and daemon, which are below zero, and before ordinary processes of the host. */
#define OOM_SCORE "200"

/* ---- child ---- */

struct child {
	const struct jail_spec *s;
	int status;
	int exec_fd;
	const int *doors; /* CGROUP_DOORS of them */
	struct jail_fd fds[JAIL_FDS_MAX];
};

static int close_foreign(struct child *c, struct err *e)
{
	int keep[JAIL_FDS_MAX * 2 + CGROUP_DOORS + 4];
	unsigned n = 0;
	int r;

	for (unsigned i = 0; i < c->s->n_fds; i++)
		keep[n++] = c->s->fds[i].from;
	for (unsigned i = 0; i < c->s->n_lent; i++)
		keep[n++] = c->s->lent[i];
	for (unsigned i = 0; i < CGROUP_DOORS; i++)
		keep[n++] = c->doors[i];
	keep[n++] = c->s->exec_fd;
	keep[n++] = c->s->seccomp_fd;
	keep[n++] = c->status;
	r = sys_close_all_but(keep, n);
	return r < 0 ? err_sys(e, r, "close descriptors") : 0;
}

static int enter_cgroups(struct child *c, struct err *e)
{
	for (unsigned i = 0; i < CGROUP_DOORS; i++) {
		int r = c->doors[i] < 0 ? 0 : sys_write_full(c->doors[i], "0", 1);

		if (r < 0)
			return err_sys(e, r, "enter a cgroup");
		(void)sys_close(c->doors[i]);
	}
	return 0;
}

/* The parent says when ids are mapped; if it dies instead, so do we. */
static int await_parent(struct child *c, struct err *e)
{
	char go;
	int r = sys_read_full(c->status, &go, 1);

	return r < 0 ? err_sys(e, r, "the keeper went away") : 0;
}

/* Take ids that exist inside; this forgets pdeathsig, so ask for it (again). */
static int become(uid_t uid, gid_t gid, bool drop_groups, struct err *e)
{
	int r;

	if (drop_groups && setgroups(0, NULL) < 0)
		return err_sys(e, -errno, "drop groups");
	if (setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
		return err_sys(e, -errno, "become %u:%u", uid, gid);
	r = sys_die_with_parent();
	return r < 0 ? err_sys(e, r, "ask for SIGKILL at the keeper's end") : 0;
}

static int leave_host(struct child *c, struct err *e)
{
	uint64_t ns = c->s->namespaces;
	int r = 0;

	/* Not at clone: the root of a cgroup namespace is the group of whoever asks, then the parent's. */
	if (ns & CLONE_NEWCGROUP && unshare(CLONE_NEWCGROUP) < 0)
		return err_sys(e, -errno, "unshare the cgroup namespace");
	if (ns & CLONE_NEWNS)
		r = sys_mount_private();
	if (r < 0)
		return err_sys(e, r, "make mounts private");
	if (ns & CLONE_NEWNET) {
		r = sys_loopback_up();
		if (r < 0)
			return err_sys(e, r, "bring loopback up");
	}
	if (c->s->setup)
		return c->s->setup(c->s->arg, e);
	return 0;
}

static int move_up(int *fd, struct err *e)
{
	int r;

	if (*fd < 0)
		return 0;
	r = fcntl(*fd, F_DUPFD_CLOEXEC, HIGH_FD);
	if (r < 0)
		return err_sys(e, -errno, "move descriptor %d", *fd);
	*fd = r;
	return 0;
}

static bool names_fd(const struct jail_spec *s, int to)
{
	for (unsigned i = 0; i < s->n_fds; i++)
		if (s->fds[i].to == to)
			return true;
	return false;
}

/* Put descriptors where the program expects them. @null was opened while /dev was in sight. */
static int place_fds(struct child *c, int null, struct err *e)
{
	int r = move_up(&c->status, e);

	if (r == 0)
		r = move_up(&c->exec_fd, e);
	for (unsigned i = 0; i < c->s->n_fds && r == 0; i++) {
		c->fds[i] = c->s->fds[i];
		r = move_up(&c->fds[i].from, e);
	}
	for (unsigned i = 0; i < c->s->n_fds && r == 0; i++)
		if (dup2(c->fds[i].from, c->fds[i].to) < 0)
			r = err_sys(e, -errno, "place descriptor %d", c->fds[i].to);
	for (int to = 0; to <= 2 && r == 0; to++)
		if (!names_fd(c->s, to) && dup2(null, to) < 0)
			r = err_sys(e, -errno, "place descriptor %d", to);
	return r;
}

static int set_rlimits(const struct jail_spec *s, struct err *e)
{
	for (unsigned i = 0; i < s->n_rlimits; i++) {
		const struct jail_rlimit *l = &s->rlimits[i];
		struct rlimit old, new = {l->soft, l->hard};

		if (getrlimit((__rlimit_resource_t)l->what, &old) < 0)
			return err_sys(e, -errno, "read rlimit %d", l->what);
		new.rlim_max = MIN(new.rlim_max, old.rlim_max); /* only ever down: up needs a privilege */
		new.rlim_cur = MIN(new.rlim_cur, new.rlim_max);
		if (setrlimit((__rlimit_resource_t)l->what, &new) < 0)
			return err_sys(e, -errno, "set rlimit %d", l->what);
	}
	return 0;
}

static int confine(struct child *c, int seccomp_fd, struct err *e)
{
	const struct jail_spec *s = c->s;
	int r = set_rlimits(s, e);

	if (r == 0 && !s->keep_caps) { /* changing ids takes away the right to do this */
		r = caps_bound(0);
		if (r < 0)
			return err_sys(e, r, "empty the capability bounding set");
	}
	if (r == 0 && (s->uid || s->gid))
		r = become(s->uid, s->gid, false, e);
	if (r < 0)
		return r;
	if (!s->keep_caps) {
		r = caps_limit(0);
		if (r < 0)
			return err_sys(e, r, "drop capabilities");
	}
	r = sys_no_new_privs();
	if (r < 0)
		return err_sys(e, r, "set no_new_privs");
	if (s->landlock) {
		r = landlock_confine(s->landlock, s->n_landlock, true);
		if (r < 0)
			return err_sys(e, r, "confine by Landlock");
	}
	if (seccomp_fd >= 0) {
		r = seccomp_install(seccomp_fd);
		if (r < 0)
			return err_sys(e, r, "install the system call filter");
	}
	return 0;
}

static int execute(struct child *c, struct err *e)
{
	char *const *argv = (char *const *)c->s->argv, *const *envp = (char *const *)c->s->envp;

	if (c->exec_fd >= 0)
		(void)execveat(c->exec_fd, "", argv, envp, AT_EMPTY_PATH);
	else
		(void)execve(c->s->exec_path, argv, envp);
	return err_sys(e, -errno, "execute %s", c->s->argv[0]);
}

/* Returns only when something failed. */
static int child_steps(struct child *c, struct err *e)
{
	int null = -1, seccomp_fd, r;

	/* Ids change below and forget this; but from here to there the keeper may die, too. */
	r = sys_die_with_parent();
	if (r < 0)
		return err_sys(e, r, "ask for SIGKILL at the keeper's end");
	r = close_foreign(c, e);
	if (r == 0)
		r = enter_cgroups(c, e);
	if (r == 0)
		r = await_parent(c, e);
	if (r == 0)
		r = become(0, 0, c->s->id_count > 1, e);
	if (r < 0)
		return r;
	null = sys_open("/dev/null", O_RDWR);
	if (null < 0)
		return err_sys(e, null, "open /dev/null");
	r = move_up(&null, e);
	if (r == 0)
		r = leave_host(c, e);
	seccomp_fd = c->s->seccomp_fd;
	if (r == 0)
		r = move_up(&seccomp_fd, e);
	if (r == 0)
		r = place_fds(c, null, e);
	if (r == 0)
		r = confine(c, seccomp_fd, e);
	return r < 0 ? r : execute(c, e);
}

static _Noreturn void child_main(const struct jail_spec *s, int status, const int *doors)
{
	struct child c = {.s = s, .status = status, .exec_fd = s->exec_fd, .doors = doors};
	struct err e = ERR_INIT;
	sigset_t none;

	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL); /* ignored ones would be inherited */
	(void)child_steps(&c, &e);
	(void)sys_write_full(c.status, &e, sizeof(e));
	_exit(EXIT_FAILED);
}

/* ---- parent ---- */

static int explain_clone(int r, struct err *e)
{
	if (r == -EPERM || r == -ENOSPC || r == -EUSERS)
		return err_set(e, ERR_UNSUPPORTED,
			       "this host refuses a new user namespace (%s): check "
			       "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
			       "kernel.apparmor_restrict_unprivileged_userns with sysctl",
			       strerror(-r));
	return err_sys(e, r, "clone a process with namespaces of its own");
}

/*
 * By us and not by the child: what a process with CAP_SYS_RESOURCE writes is also the least that it, and whoever
 * it starts, may choose. Otherwise that is what we inherited, and a workload could make itself as safe as we are.
 */
static int offer_to_oom(pid_t pid, struct err *e)
{
	char path[64];
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d/oom_score_adj", pid);
	r = sys_write_file(AT_FDCWD, path, OOM_SCORE);
	return r < 0 ? err_sys(e, r, "offer it to the out-of-memory killer") : 0;
}

static int admit(const struct jail_spec *s, struct jail_child *c, struct err *e)
{
	static const char go = 1;
	int r = offer_to_oom(c->pid, e);

	if (r < 0)
		return r;
	r = sys_userns_map(c->pid, s->uid_base, s->gid_base, s->id_count);
	if (r < 0)
		return err_sys(e, r, "map the ids of %s", s->name);
	r = c->userns_fd = sys_ns_open(c->pid, "user");
	if (r < 0)
		return err_sys(e, r, "open the user namespace of %s", s->name);
	r = sys_write_full(c->status_fd, &go, 1);
	return r < 0 ? err_sys(e, r, "start %s", s->name) : 0;
}

/* Both ends of the status socket, and the doors of the cgroup. */
static int prepare(const struct jail_spec *s, int *ret_ours, int *ret_theirs, int doors[CGROUP_DOORS],
		   struct err *e)
{
	int pair[2], r = 0;

	for (unsigned i = 0; i < CGROUP_DOORS; i++)
		doors[i] = -1;
	if (s->n_fds > JAIL_FDS_MAX || s->n_lent > JAIL_FDS_MAX)
		return err_set(e, ERR_LIMIT, "%s: more than %d descriptors", s->name, JAIL_FDS_MAX);
	r = sys_socketpair(pair);
	if (r < 0)
		return err_sys(e, r, "make a socket pair");
	*ret_ours = pair[0];
	*ret_theirs = pair[1];
	r = sys_nonblock(pair[1], false);
	if (r < 0)
		return err_sys(e, r, "make a socket blocking");
	if (s->cgroup)
		r = cgroup_doors(s->cgroup, cgroup_clone_fd(s->cgroup) >= 0, doors);
	return r < 0 ? err_sys(e, r, "open the cgroup of %s", s->name) : 0;
}

int jail_start(const struct jail_spec *s, struct jail_child *ret, struct err *e)
{
	struct jail_child c = JAIL_CHILD_INIT;
	uint64_t flags = (s->namespaces & ~(uint64_t)CLONE_NEWCGROUP) | CLONE_NEWUSER;
	AUTO_CLOSE int theirs = -1;
	int doors[CGROUP_DOORS];
	int r = prepare(s, &c.status_fd, &theirs, doors, e);

	if (r == 0) {
		r = c.pid = sys_clone(flags, s->cgroup ? cgroup_clone_fd(s->cgroup) : -1, &c.pidfd);
		if (r == 0)
			child_main(s, theirs, doors);
		r = r < 0 ? explain_clone(r, e) : admit(s, &c, e);
	}
	for (unsigned i = 0; i < CGROUP_DOORS; i++)
		(void)sys_close(doors[i]);
	if (r < 0) {
		jail_end(&c);
		return r;
	}
	*ret = c;
	return 0;
}

int jail_status(int status_fd, struct err *e)
{
	struct err theirs = ERR_INIT;
	unsigned none = 0;
	ssize_t n = sys_recv(status_fd, &theirs, sizeof(theirs), NULL, &none);

	if (n == -EAGAIN)
		return 1;
	if (n == 0 || n == -ECONNRESET)
		return 0; /* closed at exec */
	if (n < 0)
		return err_sys(e, (int)n, "hear from a jail");
	theirs.text[sizeof(theirs.text) - 1] = '\0';
	if (n != sizeof(theirs) || theirs.code <= 0)
		return err_set(e, ERR_INTERNAL, "a jail's last words were cut");
	return err_copy(e, &theirs);
}

void jail_end(struct jail_child *c)
{
	struct sys_exit how;

	c->status_fd = sys_close(c->status_fd); /* one that still waits for us ends by itself */
	if (c->pidfd >= 0) {
		(void)sys_pidfd_signal(c->pidfd, SIGKILL);
		while (sys_pidfd_wait(c->pidfd, &how) == -EIO) /* only ever injected */
			;
	}
	(void)sys_close(c->pidfd);
	(void)sys_close(c->userns_fd);
	*c = (struct jail_child)JAIL_CHILD_INIT;
}
