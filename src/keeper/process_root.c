/* keeper/process_root.c - overlay over tmpfs, by whoever can */
#include "keeper/process_root.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "keeper/files.h"
#include "sys/caps.h"
#include "sys/fd.h"
#include "sys/ns.h"
#include "sys/process.h"
#include "sys/sock.h"

/* How many files the writable layer may hold per MiB. */
enum { INODES_PER_MIB = 256, INODES_MIN = 4096, INODES_OWN = 64, STAGE_PATH = 128, OPTION_MAX = STAGE_PATH + 32 };

#define QUIET (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
#define HELPERS_STAGE "/tmp" /* in its own mount namespace; any folder that exists everywhere */

void process_root_close(struct process_root *r)
{
	r->root = sys_close(r->root);
	r->tmp = sys_close(r->tmp);
	r->shm = sys_close(r->shm);
}

bool process_root_by_user(void)
{
	static const char *const opts[] = {"size=64k", NULL};
	AUTO_CLOSE int mount = sys_mount_new("tmpfs", opts, QUIET), dir = -1;

	if (mount < 0)
		return false;
	dir = sys_openat(mount, ".", O_RDONLY | O_DIRECTORY, 0);
	return dir >= 0 && fsetxattr(dir, "user.hotcell", "1", 1, 0) == 0;
}

/* ---- building ---- */

static int make_folders(const char *stage, uid_t owner, struct err *e)
{
	static const struct {
		const char *name;
		mode_t mode;
	} folders[] = {{"upper", 0755}, {"work", 0755}, {"tmp", 01777}, {"shm", 01777}};

	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		char path[STAGE_PATH];

		(void)snprintf(path, sizeof(path), "%s/write/%s", stage, folders[i].name);
		if (mkdir(path, 0) < 0 || chmod(path, folders[i].mode) < 0 || lchown(path, owner, owner) < 0)
			return err_sys(e, -errno, "make the sandbox's folder %s", folders[i].name);
	}
	return 0;
}

static uint64_t inodes_of(uint64_t bytes)
{
	return MAX(bytes / MIB * INODES_PER_MIB, (uint64_t)INODES_MIN);
}

/*
 * Mounting an overlay makes files, the agent's set-up replaces some: a layer that came from a sandbox which had used up
 * its own must leave room for that. What is left of the room is the new sandbox's.
 */
static int bound_files(const char *stage, uint64_t bytes, struct err *e)
{
	char path[STAGE_PATH], inodes[48];
	struct statfs f;
	uint64_t max;

	(void)snprintf(path, sizeof(path), "%s/write", stage);
	if (statfs(path, &f) < 0)
		return err_sys(e, -errno, "count the files of the writable layer");
	max = MAX(inodes_of(bytes), (uint64_t)f.f_files - f.f_ffree + INODES_OWN);
	(void)snprintf(inodes, sizeof(inodes), "nr_inodes=%llu", (unsigned long long)max);
	if (mount(NULL, path, NULL, MS_REMOUNT | MS_NOSUID | MS_NODEV, inodes) < 0)
		return err_sys(e, -errno, "bound the files of the writable layer");
	return 0;
}

static int mount_disk(const char *stage, uint64_t bytes, uint64_t files, uid_t owner, struct err *e)
{
	char size[48], inodes[48], path[STAGE_PATH];
	const char *const opts[] = {size, inodes, "mode=0755", NULL};
	AUTO_CLOSE int fd = -1;
	int r;

	(void)snprintf(size, sizeof(size), "size=%llu", (unsigned long long)bytes);
	(void)snprintf(inodes, sizeof(inodes), "nr_inodes=%llu", (unsigned long long)files);
	(void)snprintf(path, sizeof(path), "%s/write", stage);
	fd = sys_mount_new("tmpfs", opts, QUIET);
	if (fd < 0)
		return err_sys(e, fd, "make a tmpfs of %llu bytes", (unsigned long long)bytes);
	r = sys_mount_attach(fd, AT_FDCWD, path);
	return r < 0 ? err_sys(e, r, "mount the writable layer") : make_folders(stage, owner, e);
}

static int mount_overlay(const char *stage, int tree_fd, bool by_user, int *ret, struct err *e)
{
	char lower[OPTION_MAX], upper[OPTION_MAX], work[OPTION_MAX], path[STAGE_PATH];
	const char *const opts[] = {lower, upper, work, by_user ? "userxattr" : NULL, NULL};
	int r;

	(void)snprintf(path, sizeof(path), "%s/lower", stage);
	(void)snprintf(lower, sizeof(lower), "lowerdir=%s/lower", stage);
	(void)snprintf(upper, sizeof(upper), "upperdir=%s/write/upper", stage);
	(void)snprintf(work, sizeof(work), "workdir=%s/write/work", stage);
	r = sys_mount_attach(tree_fd, AT_FDCWD, path);
	if (r < 0)
		return err_sys(e, r, "attach the template's tree");
	r = sys_mount_new("overlay", opts, QUIET);
	if (r == -ENODEV)
		return err_set(e, ERR_UNSUPPORTED, "this kernel has no overlay file system: modprobe overlay");
	if (r < 0)
		return err_sys(e, r, "make an overlay");
	*ret = r;
	return 0;
}

/* A folder of the writable layer as a mount of its own. */
static int clone_folder(const char *stage, const char *name, int *ret, struct err *e)
{
	char path[STAGE_PATH];
	int r;

	(void)snprintf(path, sizeof(path), "%s/write/%s", stage, name);
	r = *ret = sys_tree_clone(AT_FDCWD, path);
	return r < 0 ? err_sys(e, r, "lend the sandbox's %s", name) : 0;
}

/* ---- a layer that does not start empty ---- */

static int enter_layer(const char *stage, const int keep[2], struct err *e)
{
	char path[STAGE_PATH];
	int r = sys_die_with_parent();

	(void)snprintf(path, sizeof(path), "%s/write", stage);
	(void)sys_close_all_but(keep, 2);
	if (r == 0 && (chroot(path) < 0 || chdir("/") < 0))
		r = -errno;
	if (r == 0)
		r = caps_limit(CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_DAC_READ_SEARCH) |
			       CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) | CAP_BIT(CAP_SETFCAP));
	if (r == 0)
		r = sys_no_new_privs();
	return r < 0 ? err_sys(e, r, "enter the new writable layer") : 0;
}

static _Noreturn void filler_main(const char *stage, int sock, int files_fd)
{
	const int keep[] = {sock, files_fd};
	struct err e = ERR_INIT;
	AUTO_CLOSE int root = -1;

	if (enter_layer(stage, keep, &e) == 0) {
		root = sys_open("/", O_RDONLY | O_DIRECTORY);
		if (root < 0)
			(void)err_sys(&e, root, "open the new writable layer");
		else
			(void)files_unpack(files_fd, root, &e);
	}
	(void)sys_write_full(sock, &e, sizeof(e));
	_exit(0);
}

/* By a process that has nothing but the layer: the stream was made of a guest's files. */
static int fill_layer(const char *stage, int files_fd, struct err *e)
{
	AUTO_CLOSE int ours = -1, theirs = -1, pidfd = -1;
	struct err said = ERR_INIT;
	struct sys_exit how;
	int pair[2], r = sys_socketpair(pair);
	pid_t pid;

	if (r < 0)
		return err_sys(e, r, "make a socket pair");
	ours = pair[0];
	theirs = pair[1];
	pid = sys_clone(0, -1, &pidfd);
	if (pid == 0)
		filler_main(stage, theirs, files_fd);
	if (pid < 0)
		return err_sys(e, (int)pid, "start a process that fills the writable layer");
	theirs = sys_close(theirs);
	r = sys_await_readable(ours);
	if (r == 0)
		r = sys_read_full(ours, &said, sizeof(said));
	while (sys_pidfd_wait(pidfd, &how) == -EIO) /* only ever injected */
		;
	if (r < 0)
		return err_set(e, ERR_LIMIT, "the process that fills the writable layer was killed: the snapshot's "
			       "files don't fit into the sandbox's memory");
	said.text[sizeof(said.text) - 1] = '\0';
	return said.code ? err_copy(e, &said) : 0;
}

int process_root_layer(const char *stage)
{
	char path[STAGE_PATH];

	(void)snprintf(path, sizeof(path), "%s/write", stage);
	return sys_open(path, O_RDONLY | O_DIRECTORY);
}

int process_root_build(const char *stage, int tree_fd, int files_fd, uint64_t disk_bytes, uid_t owner, bool by_user,
		       struct process_root *ret, struct err *e)
{
	struct process_root t = PROCESS_ROOT_INIT;
	uint64_t files = inodes_of(disk_bytes) * (files_fd >= 0 ? 2 : 1);
	int r = mount_disk(stage, disk_bytes, files, owner, e);

	if (r == 0 && files_fd >= 0)
		r = fill_layer(stage, files_fd, e);
	if (r == 0 && files_fd >= 0)
		r = bound_files(stage, disk_bytes, e);
	if (r == 0)
		r = mount_overlay(stage, tree_fd, by_user, &t.root, e);
	if (r == 0)
		r = clone_folder(stage, "tmp", &t.tmp, e);
	if (r == 0)
		r = clone_folder(stage, "shm", &t.shm, e);
	if (r < 0) {
		process_root_close(&t);
		return r;
	}
	*ret = t;
	return 0;
}

/* ---- the helper ---- */

static int prepare_stage(struct err *e)
{
	static const char *const opts[] = {"size=64k", "mode=0755", NULL};
	AUTO_CLOSE int fd = -1;
	int r = sys_die_with_parent();

	if (r == 0)
		r = sys_mount_private();
	if (r == 0)
		r = fd = sys_mount_new("tmpfs", opts, QUIET);
	if (r >= 0)
		r = sys_mount_attach(fd, AT_FDCWD, HELPERS_STAGE);
	if (r == 0 && (mkdir(HELPERS_STAGE "/lower", 0755) < 0 || mkdir(HELPERS_STAGE "/write", 0755) < 0))
		r = -errno;
	return r < 0 ? err_sys(e, r, "prepare a place to mount") : 0;
}

static _Noreturn void helper_main(int sock, int tree_fd, uint64_t disk_bytes, uid_t owner)
{
	struct process_root t = PROCESS_ROOT_INIT;
	struct err e = ERR_INIT;
	struct iovec iov = {&e, sizeof(e)};
	int r = prepare_stage(&e);

	if (r == 0)
		r = process_root_build(HELPERS_STAGE, tree_fd, -1, disk_bytes, owner, false, &t, &e);
	if (r == 0)
		(void)sys_send(sock, &iov, 1, (const int[]){t.root, t.tmp, t.shm}, PROCESS_ROOT_FDS);
	else
		(void)sys_send(sock, &iov, 1, NULL, 0);
	_exit(0);
}

static int hear_helper(int sock, struct process_root *ret, struct err *e)
{
	struct err said = ERR_INIT;
	int fds[PROCESS_ROOT_FDS];
	unsigned n = PROCESS_ROOT_FDS;
	ssize_t got = sys_await_readable(sock);

	if (got == 0)
		got = sys_recv(sock, &said, sizeof(said), fds, &n);
	if (got != sizeof(said))
		return err_set(e, ERR_INTERNAL, "the keeper's mount helper ended without a word");
	if (n != PROCESS_ROOT_FDS)
		return err_copy(e, &said);
	*ret = (struct process_root){fds[0], fds[1], fds[2]};
	return 0;
}

int process_root_lend(int tree_fd, uint64_t disk_bytes, uid_t owner, struct process_root *ret, struct err *e)
{
	AUTO_CLOSE int ours = -1, theirs = -1, pidfd = -1;
	struct sys_exit how;
	int pair[2], r = sys_socketpair(pair);
	pid_t pid;

	if (r < 0)
		return err_sys(e, r, "make a socket pair");
	ours = pair[0];
	theirs = pair[1];
	pid = sys_clone(CLONE_NEWNS, -1, &pidfd);
	if (pid == 0)
		helper_main(theirs, tree_fd, disk_bytes, owner);
	if (pid < 0)
		return err_sys(e, pid, "start a mount helper");
	theirs = sys_close(theirs);
	r = hear_helper(ours, ret, e);
	while (sys_pidfd_wait(pidfd, &how) == -EIO) /* only ever injected */
		;
	return r;
}
