/* guest/boot.c - start of a machine */
#include "guest/boot.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { MODULES_MAX = 128, ORDER_MAX = 8192, DISKS_MAX = 8, OPEN_FILES = 65536 };
static const uint64_t DEVICE_WAIT_NS = 15 * NS_PER_S;

static const char port_name[] = "agent0";

/* ---- mounts ---- */

struct mount_step {
	const char *what, *where, *type;
	unsigned long flags;
	const char *options;
	mode_t mode; /* of the directory to make; 0: it is there */
	bool optional;
};

static int mount_one(const struct mount_step *m, struct err *e)
{
	if (m->mode)
		(void)mkdir(m->where, m->mode);
	if (mount(m->what, m->where, m->type, m->flags, m->options) == 0 || errno == EBUSY ||
	    m->optional)
		return 0;
	return err_sys(e, -errno, "mount %s", m->where);
}

static int mount_all(const struct mount_step *m, size_t n, struct err *e)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = mount_one(&m[i], e);
	return r;
}

static const struct mount_step early[] = {
	{"dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", 0755},
	{"proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0755},
	{"sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0755},
};

/* /tmp stays on the writable layer: that is bounded by disk_mb, a tmpfs would take memory. */
static const struct mount_step late[] = {
	{"devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", 0755},
	{"shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", 01777},
	{"run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755", 0755},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0, true},
};

/* ---- modules ---- */

static int load_module(const char *name, struct err *e)
{
	char path[128];
	AUTO_CLOSE int fd = -1;

	if (strchr(name, '/') ||
	    snprintf(path, sizeof(path), "/modules/%s", name) >= (int)sizeof(path))
		return err_set(e, ERR_INVALID, "/modules/order names '%.64s'", name);
	fd = sys_open(path, O_RDONLY);
	if (fd < 0)
		return err_sys(e, fd, "%s", path);
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return err_sys(e, -errno, "load %s", path);
	return 0;
}

static int load_modules(struct err *e)
{
	char order[ORDER_MAX];
	ssize_t n = sys_read_file(AT_FDCWD, "/modules/order", order, sizeof(order));
	int r = 0;

	if (n == -ENOENT)
		return 0; /* a kernel that has everything built in */
	if (n < 0)
		return err_sys(e, (int)n, "/modules/order");
	for (char *name = strtok(order, "\n"); name && r == 0; name = strtok(NULL, "\n")) {
		char path[128];

		r = load_module(name, e);
		if (snprintf(path, sizeof(path), "/modules/%s", name) < (int)sizeof(path))
			(void)unlink(path); /* the initramfs is memory */
	}
	return r;
}

/* ---- devices ---- */

/* Call @found until it is happy; in between wait for /dev to change. */
static int wait_for(bool (*found)(void *arg), void *arg, const char *what, struct err *e)
{
	uint64_t end = sys_now_ns() + DEVICE_WAIT_NS;
	AUTO_CLOSE int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

	if (fd < 0 || inotify_add_watch(fd, "/dev", IN_CREATE) < 0)
		return err_sys(e, -errno, "watch /dev");
	while (!found(arg)) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		uint64_t now = sys_now_ns();
		char events[4096];

		if (now >= end)
			return err_set(e, ERR_UNAVAILABLE, "%s did not appear in /dev", what);
		(void)poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
		(void)sys_read(fd, events, sizeof(events));
	}
	return 0;
}

/* Disks by what they are, not by the order in which the bus found them. */
struct disks {
	char root[16], layer[16]; /* read-only; writable */
	size_t wanted;
};

static bool is_read_only(const char *name)
{
	char path[64], text[8];

	(void)snprintf(path, sizeof(path), "/sys/block/%s/ro", name);
	return sys_read_file(AT_FDCWD, path, text, sizeof(text)) > 0 && text[0] == '1';
}

static bool find_disks(void *arg)
{
	struct disks *d = arg;
	char name[8] = "vda";

	for (int i = 0; i < DISKS_MAX; i++, name[2]++) {
		char path[16];

		(void)snprintf(path, sizeof(path), "/dev/%s", name);
		if (access(path, F_OK) == 0)
			(void)snprintf(is_read_only(name) ? d->root : d->layer, sizeof(d->root), "%s",
				       path);
	}
	return d->root[0] && (d->wanted < 2 || d->layer[0]);
}

/* How many disks the machine has, known before their nodes appear. */
static size_t count_disks(void)
{
	DIR *dir = opendir("/sys/block");
	size_t n = 0;

	for (struct dirent *ent = dir ? readdir(dir) : NULL; ent; ent = readdir(dir))
		n += strncmp(ent->d_name, "vd", 2) == 0;
	if (dir)
		(void)closedir(dir);
	return n;
}

/* The port's device node, as the host named the port and not as the bus numbered it. */
static bool find_port(void *arg)
{
	char *ret = arg;
	DIR *dir = opendir("/sys/class/virtio-ports");

	*ret = '\0';
	for (struct dirent *ent = dir ? readdir(dir) : NULL; ent && !*ret; ent = readdir(dir)) {
		char path[PATH_MAX], name[32];

		(void)snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", ent->d_name);
		if (sys_read_file(AT_FDCWD, path, name, sizeof(name)) <= 0)
			continue;
		name[strcspn(name, "\n")] = '\0';
		(void)snprintf(path, sizeof(path), "/dev/%s", ent->d_name);
		if (strcmp(name, port_name) == 0 && access(path, F_OK) == 0)
			(void)snprintf(ret, PATH_MAX, "%s", path);
	}
	if (dir)
		(void)closedir(dir);
	return *ret != '\0';
}

/* ---- the root ---- */

static int mount_layer(const struct disks *d, struct err *e)
{
	(void)mkdir("/layer", 0755);
	/* No second disk: changes live in memory, as a machine without disk_mb has no other place. */
	if (!d->layer[0] && mount("layer", "/layer", "tmpfs", 0, "mode=0755") < 0)
		return err_sys(e, -errno, "mount the writable layer");
	/*
	 * The layer ends with the sandbox: nothing is gained by writing a replaced file back at once.
	 * It was made a moment ago on zeros: its inode tables need no zeroing, which took 33 MB.
	 */
	if (d->layer[0] &&
	    mount(d->layer, "/layer", "ext4", MS_NOATIME | MS_NODEV | MS_NOSUID, "noauto_da_alloc,noinit_itable") < 0)
		return err_sys(e, -errno, "mount the writable layer %s", d->layer);
	if ((mkdir("/layer/upper", 0755) < 0 && errno != EEXIST) ||
	    (mkdir("/layer/work", 0755) < 0 && errno != EEXIST))
		return err_sys(e, -errno, "prepare the writable layer");
	return 0;
}

static int mount_root(struct err *e)
{
	struct disks d = {.wanted = 1};
	int r;

	r = wait_for(find_disks, &d, "the root disk", e);
	if (r == 0 && count_disks() > 1) {
		d.wanted = 2;
		r = wait_for(find_disks, &d, "the writable disk", e);
	}
	if (r < 0)
		return r;
	(void)mkdir("/lower", 0755);
	(void)mkdir("/newroot", 0755);
	if (mount(d.root, "/lower", "ext4", MS_RDONLY, NULL) < 0)
		return err_sys(e, -errno, "mount the template %s", d.root);
	r = mount_layer(&d, e);
	if (r < 0)
		return r;
	if (mount("root", "/newroot", "overlay", 0,
		  "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work") < 0)
		return err_sys(e, -errno, "lay the writable layer over the template");
	return 0;
}

/* A root file system in memory can't be pivoted away: cover it and step in. */
static int switch_root(struct err *e)
{
	static const char *const carried[] = {"/dev", "/proc", "/sys"};

	(void)unlink("/modules/order");
	(void)unlink("/init");
	for (size_t i = 0; i < ARRAY_LEN(carried); i++) {
		char to[32];

		(void)snprintf(to, sizeof(to), "/newroot%s", carried[i]);
		(void)mkdir(to, 0755);
		if (mount(carried[i], to, NULL, MS_MOVE, NULL) < 0)
			return err_sys(e, -errno, "move %s into the new root", carried[i]);
	}
	if (chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		return err_sys(e, -errno, "switch to the new root");
	return 0;
}

static void link_standard_files(void)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	};

	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		(void)!symlink(links[i][0], links[i][1]);
	(void)mkdir("/tmp", 01777);
	(void)chmod("/tmp", 01777);
}

static int loopback_up(struct err *e)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		return err_sys(e, -errno, "bring the loopback interface up");
	return 0;
}

/*
 * The workload's cgroup below the root one. Its counters say when memory ran
 * out; sessions below it need no controllers.
 */
static int open_cgroup(struct guest_log *log)
{
	int r = sys_write_file(AT_FDCWD, "/sys/fs/cgroup/cgroup.subtree_control", "+pids +memory");
	int fd;

	if (r < 0)
		log_line(log, "cgroup controllers can't be used (%d)", r);
	(void)mkdir("/sys/fs/cgroup/workload", 0755);
	fd = sys_open("/sys/fs/cgroup/workload", O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		log_line(log, "no cgroup for the workload (%d)", fd);
	return fd;
}

/* Descriptors 0-2 must exist, or the next open would land there. */
static int standard_descriptors(void)
{
	int fd = sys_open("/dev/null", O_RDWR);

	if (fd < 0)
		return fd;
	for (int i = 0; i <= 2; i++)
		if (fd != i)
			(void)dup2(fd, i);
	if (fd > 2)
		(void)sys_close(fd);
	return 0;
}

static void raise_limits(void)
{
	struct rlimit files = {OPEN_FILES, OPEN_FILES};

	(void)setrlimit(RLIMIT_NOFILE, &files);
}

/* An idle machine shall not wake up to find that there is nothing to do: a host may have hundreds. */
static void calm_kernel(void)
{
	static const char *const settings[][2] = {
		{"/proc/sys/vm/compaction_proactiveness", "0"}, /* twice a second */
		{"/proc/sys/vm/stat_interval", "60"},		/* every second */
		{"/proc/sys/kernel/watchdog", "0"}, /* and a machine that was paused is not locked up */
	};

	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		(void)sys_write_file(AT_FDCWD, settings[i][0], settings[i][1]); /* a kernel without: fine */
}

/*
 * A PC's interval timer runs from power-on, with nobody listening where the kernel ticks by the
 * processor's own: 36 times a second the monitor wakes up for it. One shot, and it is silent.
 */
static void stop_interval_timer(void)
{
#ifdef __x86_64__
	enum { CHANNEL_0 = 0x40, COMMAND = 0x43, ONE_SHOT = 0x30 };
	char interrupts[16384];

	if (sys_read_file(AT_FDCWD, "/proc/interrupts", interrupts, sizeof(interrupts)) < 0 ||
	    strstr(interrupts, " timer\n"))
		return; /* this kernel listens, or may */
	if (ioperm(CHANNEL_0, COMMAND - CHANNEL_0 + 1, 1) < 0)
		return;
	outb(ONE_SHOT, COMMAND);
	outb(0, CHANNEL_0);
	outb(0, CHANNEL_0);
	(void)ioperm(CHANNEL_0, COMMAND - CHANNEL_0 + 1, 0);
#endif
}

static int open_port(void *arg)
{
	char path[PATH_MAX];

	(void)arg;
	if (!find_port(path))
		return -ENOENT;
	return sys_open(path, O_RDWR | O_NONBLOCK);
}

static int start_system(struct guest_log *log, struct err *e)
{
	char port[PATH_MAX];
	int r = mount_all(early, ARRAY_LEN(early), e);

	if (r < 0)
		return r;
	log_init(log, sys_open("/dev/kmsg", O_WRONLY), true);
	r = standard_descriptors() < 0 ? err_set(e, ERR_INTERNAL, "/dev/null is missing") : 0;
	if (r == 0)
		r = load_modules(e);
	if (r == 0)
		r = mount_root(e);
	if (r == 0)
		r = wait_for(find_port, port, "the agent's port", e);
	if (r == 0)
		r = switch_root(e);
	if (r == 0)
		r = mount_all(late, ARRAY_LEN(late), e);
	if (r == 0)
		r = loopback_up(e);
	return r;
}

int boot_machine(struct guest_log *log, struct agent_config *ret, struct err *e)
{
	int r = start_system(log, e);

	if (r < 0)
		return r;
	link_standard_files();
	raise_limits();
	calm_kernel();
	stop_interval_timer();
	*ret = (struct agent_config){
		.is_machine = true,
		.proc_fd = sys_open("/proc", O_RDONLY | O_DIRECTORY),
		.cgroup_fd = open_cgroup(log),
		.oom_fd = sys_open("/proc/vmstat", O_RDONLY), /* all that this kernel kills is of the workload */
		.log_fd = sys_dup(log->fd),
		.open_link = open_port,
	};
	if (ret->proc_fd < 0)
		return err_sys(e, ret->proc_fd, "/proc");
	/* The guest's root must not find it under the one the workload gets. */
	if (umount2("/proc", MNT_DETACH) < 0)
		return err_sys(e, -errno, "take /proc away");
	return 0;
}

void boot_end(void)
{
	sync();
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
	sync();
	for (;;)
		(void)reboot(RB_AUTOBOOT);
}
