/* keeper/jail_process.c - a root from an overlay, and the parked child that builds it */
#include "keeper/jail_process.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/process_root.h"
#include "sys/cgroup.h"
#include "sys/fd.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"
#include "wire/gen/limits.h"

/* The agent's descriptors. */
enum { FD_LINK = 3, FD_FILTER = 4, FD_CGROUP = 5, FD_OOM = 6 };

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define STAGE "/tmp" /* in the child's own mount namespace; any folder that exists everywhere */

struct process_host {
	int init_fd, filter_fd;
	bool by_user; /* shells mount their root themselves; see process_root.h */
};

/* To the child, with the shifted tree and perhaps files for it, or with a struct process_root. */
struct go_message {
	uint64_t disk_bytes;
	bool by_user; /* it has a tree, or two descriptors */
	bool probe;   /* stop before exec */
};

enum { TREE_FD, FILES_FD, BY_USER_FDS }; /* no more than PROCESS_ROOT_FDS: struct go has room for those */

struct go {
	struct go_message m;
	int fds[PROCESS_ROOT_FDS];
	unsigned n_fds;
};

struct process_shell {
	struct jail_child child;
	int go_fd;	  /* ours; the child waits at the other end */
	int link_fd;	  /* host end */
	int console_fd;	  /* read end */
	bool by_user;	  /* as the host's */
	uid_t uid_base;
};

/* ---- in the child: before the request ---- */

static int mount_at(const char *type, const char *const *opts, unsigned attrs, const char *path,
		    struct err *e)
{
	AUTO_CLOSE int fd = sys_mount_new(type, opts, attrs);
	int r;

	if (fd < 0)
		return err_sys(e, fd, "make a %s for the sandbox", type);
	r = mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : sys_mount_attach(fd, AT_FDCWD, path);
	return r < 0 ? err_sys(e, r, "mount the sandbox's %s", type) : 0;
}

/* The host's node at the same place, harmless ones only. */
static int lend_device(const char *name, struct err *e)
{
	char from[32], to[64];
	AUTO_CLOSE int mount = -1, node = -1;
	int r;

	(void)snprintf(from, sizeof(from), "/dev/%s", name);
	(void)snprintf(to, sizeof(to), STAGE "/dev/%s", name);
	mount = sys_tree_clone(AT_FDCWD, from);
	if (mount < 0)
		return err_sys(e, mount, "lend %s", from);
	r = sys_mount_attr(mount, "", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0, false);
	if (r == 0)
		r = node = sys_create(to, O_WRONLY | O_EXCL, 0666);
	if (r >= 0)
		r = sys_mount_attach(mount, AT_FDCWD, to);
	return r < 0 ? err_sys(e, r, "lend %s", from) : 0;
}

static int build_dev(struct err *e)
{
	static const char *const opts[] = {"size=64k", "nr_inodes=64", "mode=0755", NULL};
	char max[32];
	const char *const pts[] = {"newinstance", "ptmxmode=0666", "mode=0620", "gid=5", max, NULL};
	static const char *const nodes[] = {"null", "zero", "full", "random", "urandom", "tty"};
	static const struct {
		const char *to, *name;
	} links[] = {
		{"/proc/self/fd", STAGE "/dev/fd"},
		{"/proc/self/fd/0", STAGE "/dev/stdin"},
		{"/proc/self/fd/1", STAGE "/dev/stdout"},
		{"/proc/self/fd/2", STAGE "/dev/stderr"},
		{"pts/ptmx", STAGE "/dev/ptmx"},
	};
	int r = mount_at("tmpfs", opts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, STAGE "/dev", e);

	/* All terminals of a host together are bounded as well: one sandbox must leave some to the others. */
	(void)snprintf(max, sizeof(max), "max=%d", LIMIT_TERMINALS);
	for (size_t i = 0; i < ARRAY_LEN(nodes) && r == 0; i++)
		r = lend_device(nodes[i], e);
	if (r == 0)
		r = mount_at("devpts", pts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, STAGE "/dev/pts", e);
	for (size_t i = 0; i < ARRAY_LEN(links) && r == 0; i++)
		if (symlink(links[i].to, links[i].name) < 0)
			r = err_sys(e, -errno, "link %s", links[i].name);
	if (r == 0 && mkdir(STAGE "/dev/shm", 01777) < 0)
		r = err_sys(e, -errno, "make /dev/shm");
	return r;
}

/* The host's would tell sandboxes that they are neighbours. On the stage, which nobody sees: the mount holds it. */
static int cover_boot_id(struct err *e)
{
	char text[64];
	ssize_t n = sys_read_file(AT_FDCWD, STAGE "/proc/sys/kernel/random/uuid", text, sizeof(text));
	int r = n < 0 ? (int)n : 0;
	AUTO_CLOSE int fd = r < 0 ? -1 : sys_create(STAGE "/boot-id", O_WRONLY | O_EXCL, 0444);

	if (r == 0)
		r = fd < 0 ? fd : sys_write_full(fd, text, strlen(text));
	if (r == 0)
		r = sys_bind(STAGE "/boot-id", STAGE "/proc/" NS_BOOT_ID);
	if (r == 0)
		r = sys_mount_attr(AT_FDCWD, STAGE "/proc/" NS_BOOT_ID, MOUNT_ATTR_RDONLY | QUIET | MOUNT_ATTR_NOEXEC,
				   0, false);
	return r < 0 ? err_sys(e, r, "give the sandbox a boot id") : 0;
}

static int build_proc(struct err *e)
{
	static const char *const none[] = {NULL};
	int r = mount_at("proc", none, QUIET | MOUNT_ATTR_NOEXEC, STAGE "/proc", e);

	if (r == -ERR_DENIED)
		return err_set(e, ERR_UNSUPPORTED,
			       "this host hides parts of /proc, so no new /proc can be mounted in a user "
			       "namespace: run hotcell outside the container that hides them");
	if (r < 0)
		return r;
	r = sys_proc_mask(STAGE "/proc");
	return r < 0 ? err_sys(e, r, "hide parts of /proc") : cover_boot_id(e);
}

static int build_stage(struct err *e)
{
	static const char *const opts[] = {"size=64k", "nr_inodes=64", "mode=0755", NULL};
	static const char *const empty[] = {"size=4k", "nr_inodes=1", "mode=0555", NULL};
	int r = mount_at("tmpfs", opts, QUIET, STAGE, e);

	if (r == 0)
		r = build_proc(e);
	if (r == 0)
		r = build_dev(e);
	if (r == 0)
		r = mount_at("tmpfs", empty, QUIET | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, STAGE "/sys", e);
	if (r == 0 && (mkdir(STAGE "/lower", 0755) < 0 || mkdir(STAGE "/write", 0755) < 0 ||
		       mkdir(STAGE "/root", 0755) < 0))
		r = err_sys(e, -errno, "make folders to mount on");
	return r;
}

/* ---- in the child: the request is here ---- */

static int receive_go(int fd, struct go *ret, struct err *e)
{
	ssize_t r;

	/* No time limit: the socket ends when the keeper closes it or dies. */
	do {
		ret->n_fds = PROCESS_ROOT_FDS;
		r = sys_recv(fd, &ret->m, sizeof(ret->m), ret->fds, &ret->n_fds);
	} while (r == -EAGAIN && sys_await_readable(fd) == 0);
	if (r == 0)
		_exit(0); /* a shell nobody needed */
	if (r != sizeof(ret->m) || (ret->m.by_user ? ret->n_fds < 1 || ret->n_fds > BY_USER_FDS
						   : ret->n_fds != PROCESS_ROOT_FDS))
		return err_set(e, ERR_INTERNAL, "a shell got a torn message");
	return 0;
}

/* The keeper finds the folder in the socket when somebody wants to copy the files. */
static int offer_layer(int go_fd, struct err *e)
{
	AUTO_CLOSE int layer = process_root_layer(STAGE);
	char byte = 0;
	struct iovec iov = {&byte, 1};
	ssize_t r = layer < 0 ? layer : sys_send(go_fd, &iov, 1, &layer, 1);

	return r < 0 ? err_sys(e, (int)r, "tell the keeper where the sandbox's files are") : 0;
}

static int take_root(int go_fd, const struct go *go, struct process_root *ret, struct err *e)
{
	int files = go->n_fds > FILES_FD ? go->fds[FILES_FD] : -1, r;

	if (!go->m.by_user) {
		*ret = (struct process_root){go->fds[0], go->fds[1], go->fds[2]};
		return 0;
	}
	r = process_root_build(STAGE, go->fds[TREE_FD], files, go->m.disk_bytes, 0, true, ret, e);
	return r < 0 ? r : offer_layer(go_fd, e);
}

/* A folder of the new root to mount on, made if the template lacks it; never through a link. */
static int folder_in_root(int root, const char *name, int *ret, struct err *e)
{
	int fd = sys_open_beneath(root, name, O_PATH | O_DIRECTORY, 0);

	if (fd == -ENOENT) {
		fd = sys_mkdir(root, name, 0755);
		if (fd == 0)
			fd = sys_open_beneath(root, name, O_PATH | O_DIRECTORY, 0);
	}
	if (fd < 0)
		return err_sys(e, fd, "the template has no usable /%s", name);
	*ret = fd;
	return 0;
}

static int put(int root, int mount, const char *to, struct err *e)
{
	AUTO_CLOSE int target = -1;
	int r = folder_in_root(root, to, &target, e);

	if (r < 0)
		return r;
	r = sys_mount_attach(mount, target, "");
	return r < 0 ? err_sys(e, r, "mount /%s", to) : 0;
}

/* What was prepared on the stage moves over, with all that is mounted in it. */
static int move_from_stage(int root, const char *name, struct err *e)
{
	char path[64];
	AUTO_CLOSE int from = -1;

	(void)snprintf(path, sizeof(path), STAGE "/%s", name);
	from = sys_open(path, O_PATH | O_DIRECTORY);
	return from < 0 ? err_sys(e, from, "take %s", path) : put(root, from, name, e);
}

static int furnish(const struct process_root *t, struct err *e)
{
	static const char *const prepared[] = {"proc", "sys", "dev"};
	AUTO_CLOSE int root = -1;
	int r = sys_mount_attach(t->root, AT_FDCWD, STAGE "/root");

	if (r < 0)
		return err_sys(e, r, "mount the new root");
	root = sys_open(STAGE "/root", O_PATH | O_DIRECTORY);
	if (root < 0)
		return err_sys(e, root, "open the new root");
	for (size_t i = 0; i < ARRAY_LEN(prepared) && r == 0; i++)
		r = move_from_stage(root, prepared[i], e);
	if (r == 0)
		r = put(root, t->shm, "dev/shm", e);
	return r < 0 ? r : put(root, t->tmp, "tmp", e);
}

static int setup(void *arg, struct err *e)
{
	const int *go_fd = arg;
	struct process_root root = PROCESS_ROOT_INIT;
	struct go go;
	int r;

	(void)prctl(PR_SET_NAME, "hotcell-shell", 0, 0, 0);
	r = build_stage(e);
	if (r == 0)
		r = receive_go(*go_fd, &go, e);
	if (r == 0)
		r = take_root(*go_fd, &go, &root, e);
	if (r == 0)
		r = furnish(&root, e);
	if (r == 0) {
		r = sys_pivot(STAGE "/root");
		if (r < 0)
			r = err_sys(e, r, "enter the new root");
	}
	if (r == 0 && go.m.probe)
		r = err_set(e, ERR_CANCELED, "the host can do it");
	return r; /* descriptors that are left close at exec */
}

/* ---- the keeper's side ---- */

int process_host_open(const char *init_path, struct process_host **ret, struct err *e)
{
	AUTO_CLOSE int init = sys_open(init_path, O_RDONLY), filter = -1;
	struct process_host *h;
	int r;

	if (init < 0)
		return err_set(e, ERR_UNSUPPORTED, "%s can't be opened (%s): reinstall hotcell", init_path,
			       strerror(-init));
	r = seccomp_compile(&seccomp_workload, &filter);
	if (r < 0)
		return err_sys(e, r, "compile the workload's system call filter");
	h = mem_new(sizeof(*h));
	h->init_fd = take_fd(&init);
	h->filter_fd = take_fd(&filter);
	h->by_user = process_root_by_user();
	*ret = h;
	return 0;
}

struct process_host *process_host_close(struct process_host *h)
{
	if (!h)
		return NULL;
	(void)sys_close(h->init_fd);
	(void)sys_close(h->filter_fd);
	free(h);
	return NULL;
}

static const struct jail_rlimit rlimits[] = {
	{RLIMIT_CORE, JAIL_NO_CORE, JAIL_NO_CORE},
	{RLIMIT_NOFILE, 65536, 65536},
	{RLIMIT_MEMLOCK, 64 * MIB, 64 * MIB},
	{RLIMIT_MSGQUEUE, 819200, 819200},
	{RLIMIT_NICE, 0, 0},
	{RLIMIT_RTPRIO, 0, 0},
};

struct ends {
	int go, link, console, cgroup, oom; /* the child's */
};

static void ends_close(struct ends *t)
{
	(void)sys_close(t->go);
	(void)sys_close(t->link);
	(void)sys_close(t->console);
	(void)sys_close(t->cgroup);
	(void)sys_close(t->oom);
}

static int make_ends(struct process_shell *s, struct ends *t, struct err *e)
{
	int pair[2], r;

	r = sys_socketpair(pair);
	if (r < 0)
		return err_sys(e, r, "make a socket pair");
	s->go_fd = pair[0];
	t->go = pair[1];
	r = sys_socketpair(pair);
	if (r < 0)
		return err_sys(e, r, "make a link");
	s->link_fd = pair[0];
	t->link = pair[1];
	r = sys_pipe(pair);
	if (r < 0)
		return err_sys(e, r, "make a pipe");
	s->console_fd = pair[0];
	t->console = pair[1];
	r = sys_nonblock(s->console_fd, true);
	return r < 0 ? err_sys(e, r, "make a pipe non-blocking") : 0;
}

static int start_child(struct process_host *h, uid_t uid_base, struct cgroup *cg, struct ends *t,
		       struct process_shell *s, struct err *e)
{
	static const char *const argv[] = {"hotcell-init", "--process", NULL};
	static const char *const envp[] = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
					   NULL};
	struct jail_fd fds[] = {
		{t->console, 1}, {t->console, 2}, {t->link, FD_LINK}, {h->filter_fd, FD_FILTER}, {0}, {0},
	};
	unsigned n_fds = ARRAY_LEN(fds) - 2; /* the others may be absent */
	struct jail_spec spec = {
		.name = "a process sandbox",
		.namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			      CLONE_NEWCGROUP,
		.uid_base = uid_base,
		.gid_base = uid_base,
		.id_count = JAIL_IDS,
		.cgroup = cg,
		.setup = setup,
		.arg = &t->go,
		.lent = &t->go,
		.n_lent = 1,
		.rlimits = rlimits,
		.n_rlimits = ARRAY_LEN(rlimits),
		.keep_caps = true, /* within its user namespace: it mounts, makes namespaces and users' processes */
		.seccomp_fd = -1,
		.fds = fds,
		.exec_fd = h->init_fd,
		.argv = argv,
		.envp = envp,
	};

	if (t->cgroup >= 0)
		fds[n_fds++] = (struct jail_fd){t->cgroup, FD_CGROUP};
	if (t->oom >= 0)
		fds[n_fds++] = (struct jail_fd){t->oom, FD_OOM};
	spec.n_fds = n_fds;
	return jail_start(&spec, &s->child, e);
}

int process_shell_new(struct process_host *h, uid_t uid_base, struct cgroup *cg,
		      struct process_shell **ret, struct err *e)
{
	struct process_shell *s = mem_new(sizeof(*s));
	struct ends t = {-1, -1, -1, -1, -1};
	int r;

	*s = (struct process_shell){JAIL_CHILD_INIT, -1, -1, -1, h->by_user, uid_base};
	r = make_ends(s, &t, e);
	if (r == 0 && cg) {
		t.cgroup = cgroup_delegate(cg, uid_base, uid_base);
		if (t.cgroup < 0 && t.cgroup != -EOPNOTSUPP)
			r = err_sys(e, t.cgroup, "delegate a cgroup");
		t.oom = cgroup_oom_fd(cg); /* without it nobody is told why a program was killed */
	}
	if (r == 0)
		r = start_child(h, uid_base, cg, &t, s, e);
	ends_close(&t);
	if (r < 0)
		s = process_shell_free(s);
	*ret = s;
	return r;
}

struct process_shell *process_shell_free(struct process_shell *s)
{
	if (!s)
		return NULL;
	jail_end(&s->child);
	(void)sys_close(s->go_fd);
	(void)sys_close(s->link_fd);
	(void)sys_close(s->console_fd);
	free(s);
	return NULL;
}

int process_shell_pidfd(const struct process_shell *s)
{
	return s->child.pidfd;
}

/* A private view of the tree in which the owners on disk are the slot's ids. */
static int shift_tree(int tree_fd, int userns_fd, int *ret, struct err *e)
{
	AUTO_CLOSE int mount = sys_tree_clone(tree_fd, "");
	int r;

	if (mount < 0)
		return err_sys(e, mount, "clone the template's tree");
	r = sys_mount_idmap(mount, userns_fd);
	if (r == -EINVAL || r == -EOPNOTSUPP)
		return err_set(e, ERR_UNSUPPORTED,
			       "the file system of the templates can't shift owners (idmapped mounts): put "
			       "HOTCELL_STATE on ext4, xfs or btrfs, on Linux 5.19 or newer");
	if (r < 0)
		return err_sys(e, r, "shift the owners of the template's tree");
	r = sys_mount_attr(mount, "", QUIET | MOUNT_ATTR_RDONLY, 0, false);
	if (r < 0)
		return err_sys(e, r, "make the template's tree read-only");
	*ret = take_fd(&mount);
	return 0;
}

static int old_kernel(struct err *e)
{
	return err_set(e, ERR_UNSUPPORTED, "the files of a process sandbox can be copied where a tmpfs keeps user.* "
		       "attributes: Linux 6.6 or newer; hotcell cp copies single files anywhere");
}

static int send_go(struct process_shell *s, const struct process_go *go, bool probe, struct err *e)
{
	struct go_message m = {.disk_bytes = go->disk_bytes, .by_user = s->by_user, .probe = probe};
	struct iovec iov = {&m, sizeof(m)};
	struct process_root t = PROCESS_ROOT_INIT;
	AUTO_CLOSE int tree = -1;
	ssize_t n;
	int r = go->files_fd >= 0 && !s->by_user ? old_kernel(e) : 0;

	if (r == 0)
		r = shift_tree(go->tree_fd, s->child.userns_fd, &tree, e);
	if (r == 0 && !s->by_user)
		r = process_root_lend(tree, go->disk_bytes, s->uid_base, &t, e);
	if (r < 0)
		return r;
	if (s->by_user)
		n = sys_send(s->go_fd, &iov, 1, (const int[]){tree, go->files_fd}, go->files_fd >= 0 ? 2 : 1);
	else
		n = sys_send(s->go_fd, &iov, 1, (const int[]){t.root, t.tmp, t.shm}, PROCESS_ROOT_FDS);
	process_root_close(&t);
	if (n == sizeof(m))
		return 0;
	r = jail_status(s->child.status_fd, e); /* it died while it waited: what did it say? */
	return r < 0 ? r : err_sys(e, n < 0 ? (int)n : -EPIPE, "a shell is gone");
}

int process_shell_go(struct process_shell *s, const struct process_go *go, struct process_ends *ret, struct err *e)
{
	int r = send_go(s, go, false, e);

	if (r < 0)
		return r;
	*ret = (struct process_ends){s->child, take_fd(&s->link_fd), take_fd(&s->console_fd), take_fd(&s->go_fd)};
	s->child = (struct jail_child)JAIL_CHILD_INIT;
	return 0;
}

int process_layer(int layer_fd, int *ret, struct err *e)
{
	unsigned n = 1;
	char byte;

	/* What was sent before it ran, by a program of ours; nobody has the other end any more. */
	if (layer_fd < 0 || sys_recv(layer_fd, &byte, sizeof(byte), ret, &n) != sizeof(byte) || n != 1)
		return old_kernel(e);
	return 0;
}

int process_probe(struct process_host *h, int folder_fd, uid_t uid_base, struct err *e)
{
	struct process_go go = {.tree_fd = folder_fd, .files_fd = -1, .disk_bytes = MIB};
	struct process_shell *s = NULL;
	struct err said = ERR_INIT;
	int r = process_shell_new(h, uid_base, NULL, &s, e);

	if (r == 0)
		r = send_go(s, &go, true, e);
	if (r == 0) {
		do
			r = jail_status(s->child.status_fd, &said);
		while (r == 1 && sys_await_readable(s->child.status_fd) == 0);
		if (r == 0)
			r = err_set(e, ERR_INTERNAL, "a trial jail ended without a word");
		else if (r == -ERR_CANCELED)
			r = 0; /* it came to the end of its set-up */
		else
			r = err_set(e, ERR_UNSUPPORTED, "a trial jail failed: %s", said.text);
	}
	(void)process_shell_free(s);
	return r;
}
