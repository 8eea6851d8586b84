/* sys/ns.c - user namespaces and mounts */
#include "sys/ns.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <linux/mount.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/call_int.h"
#include "sys/fd.h"

/* ---- namespaces ---- */

static int write_map(int proc, const char *file, unsigned outside, unsigned count)
{
	char line[64];

	(void)snprintf(line, sizeof(line), "0 %u %u\n", outside, count);
	return sys_write_file(proc, file, line);
}

int sys_userns_map(pid_t pid, uid_t uid, gid_t gid, unsigned count)
{
	char path[32];
	AUTO_CLOSE int proc = -1;
	int r;

	(void)snprintf(path, sizeof(path), "/proc/%d", pid);
	proc = sys_open(path, O_PATH | O_DIRECTORY);
	if (proc < 0)
		return proc;
	r = write_map(proc, "uid_map", uid, count);
	if (r == 0 && count == 1) /* without CAP_SETGID a group map needs this first */
		r = sys_write_file(proc, "setgroups", "deny");
	return r < 0 ? r : write_map(proc, "gid_map", gid, count);
}

int sys_ns_open(pid_t pid, const char *kind)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, kind);
	return sys_open(path, O_RDONLY);
}

int sys_loopback_up(void)
{
	AUTO_CLOSE int fd = SYS_CALL(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	struct ifreq ifr = {.ifr_name = "lo"};

	if (fd < 0)
		return fd;
	ifr.ifr_flags = IFF_UP | IFF_RUNNING;
	return SYS_CALL(ioctl(fd, SIOCSIFFLAGS, &ifr));
}

int sys_hostname(const char *name)
{
	return SYS_CALL(sethostname(name, strlen(name)));
}

/* ---- mounts by descriptor ---- */

int sys_tree_clone(int dirfd, const char *path)
{
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW |
			 (path[0] ? 0u : (unsigned)AT_EMPTY_PATH);

	return (int)SYS_CALL(syscall(SYS_open_tree, dirfd, path, flags));
}

static int set_attr(int fd, const char *path, struct mount_attr *a, bool recursive)
{
	unsigned flags = (path[0] ? 0u : (unsigned)AT_EMPTY_PATH) |
			 (recursive ? (unsigned)AT_RECURSIVE : 0u);

	return (int)SYS_CALL(syscall(SYS_mount_setattr, fd, path, flags, a, sizeof(*a)));
}

int sys_mount_idmap(int mount_fd, int userns_fd)
{
	struct mount_attr a = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};

	return set_attr(mount_fd, "", &a, false);
}

int sys_mount_attr(int fd, const char *path, uint64_t set, uint64_t clear, bool recursive)
{
	struct mount_attr a = {.attr_set = set, .attr_clr = clear};

	return set_attr(fd, path, &a, recursive);
}

int sys_mount_attach(int mount_fd, int dirfd, const char *path)
{
	unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | (path[0] ? 0u : MOVE_MOUNT_T_EMPTY_PATH);

	return (int)SYS_CALL(syscall(SYS_move_mount, mount_fd, "", dirfd, path, flags));
}

static int configure(int fs, const char *opt)
{
	const char *eq = strchr(opt, '=');
	char key[64];

	if (!eq)
		return (int)SYS_CALL(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FLAG, opt, NULL, 0));
	if ((size_t)(eq - opt) >= sizeof(key))
		return -ENAMETOOLONG;
	memcpy(key, opt, (size_t)(eq - opt));
	key[eq - opt] = '\0';
	return (int)SYS_CALL(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, key, eq + 1, 0));
}

int sys_mount_new(const char *type, const char *const *opts, unsigned attrs)
{
	AUTO_CLOSE int fs = (int)SYS_CALL(syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
	int r;

	if (fs < 0)
		return fs;
	for (; *opts; opts++) {
		r = configure(fs, *opts);
		if (r < 0)
			return r;
	}
	r = (int)SYS_CALL(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	if (r < 0)
		return r;
	return (int)SYS_CALL(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attrs));
}

/* ---- mounts by path ---- */

int sys_mount_private(void)
{
	return SYS_CALL(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

int sys_bind(const char *from, const char *to)
{
	return SYS_CALL(mount(from, to, NULL, MS_BIND, NULL));
}

int sys_pivot(const char *new_root)
{
	int r = SYS_CALL(chdir(new_root));

	/* Both names the same: the old root lands on top of the new one and is let go from there. */
	if (r == 0)
		r = (int)SYS_CALL(syscall(SYS_pivot_root, ".", "."));
	if (r == 0)
		r = SYS_CALL(umount2(".", MNT_DETACH));
	if (r == 0)
		r = SYS_CALL(chdir("/"));
	return r;
}

/* ---- /proc ---- */

static int hide_file(const char *path)
{
	int r = sys_bind("/dev/null", path);

	return r == -ENOENT ? 0 : r;
}

static int hide_folder(const char *path)
{
	static const char *const opts[] = {"size=0", "mode=0555", "nr_inodes=1", NULL};
	AUTO_CLOSE int fd = -1;
	int r;

	if (access(path, F_OK) < 0)
		return 0;
	fd = sys_mount_new("tmpfs", opts,
			   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (fd < 0)
		return fd;
	r = sys_mount_attach(fd, AT_FDCWD, path);
	return r == -ENOENT ? 0 : r;
}

static int freeze(const char *path)
{
	AUTO_CLOSE int fd = -1;
	int r;

	if (access(path, F_OK) < 0)
		return 0;
	fd = sys_tree_clone(AT_FDCWD, path);
	if (fd < 0)
		return fd;
	r = sys_mount_attr(fd, "",
			   MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
			   0, false);
	return r < 0 ? r : sys_mount_attach(fd, AT_FDCWD, path);
}

int sys_proc_mask(const char *proc)
{
	static const struct {
		const char *name;
		int (*how)(const char *path);
	} masks[] = {
		/* the host's memory, keys and addresses */
		{"kcore", hide_file},	    {"keys", hide_file},	{"key-users", hide_file},
		{"kallsyms", hide_file},    {"kmsg", hide_file},	{"kpagecount", hide_file},
		{"kpageflags", hide_file},  {"kpagecgroup", hide_file}, {"vmallocinfo", hide_file},
		{"slabinfo", hide_file},    {"modules", hide_file},	{"iomem", hide_file},
		{"ioports", hide_file},
		/* what its other processes do, down to the microsecond */
		{"timer_list", hide_file},  {"sched_debug", hide_file}, {"latency_stats", hide_file},
		{"interrupts", hide_file},  {"softirqs", hide_file},	{"cmdline", hide_file},
		{"buddyinfo", hide_file},   {"pagetypeinfo", hide_file}, {"zoneinfo", hide_file},
		{"vmstat", hide_file},	    {"diskstats", hide_file},	{"partitions", hide_file},
		{"swaps", hide_file},	    {"locks", hide_file},	{"consoles", hide_file},
		{"crypto", hide_file},	    {"misc", hide_file},	{"devices", hide_file},
		{"pressure", hide_folder},
		{"config.gz", hide_file},   {"acpi", hide_folder},	{"scsi", hide_folder},
		{"asound", hide_folder},    {"dynamic_debug", hide_folder},
		/* what configures it */
		{"sysrq-trigger", freeze},  {"sys", freeze},		{"bus", freeze},
		{"fs", freeze},		    {"irq", freeze},		{"driver", freeze},
		{"tty", freeze},	    {"mtrr", freeze},
	};
	char path[PATH_MAX];

	for (size_t i = 0; i < ARRAY_LEN(masks); i++) {
		int r;

		(void)snprintf(path, sizeof(path), "%s/%s", proc, masks[i].name);
		r = masks[i].how(path);
		if (r < 0)
			return r;
	}
	return 0;
}
