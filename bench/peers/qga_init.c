/*
 * qga_init.c - PID 1 of the guest in which qemu-guest-agent is measured.
 *
 * Does what hotcell-init does before it serves, and no more: modules, root file
 * system (read-only template on vda, writable layer on vdb), /dev, /proc, /sys,
 * /run; then starts qemu-ga on the first virtio port and reaps. Statically
 * linked. When qemu-ga ends, the machine ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	NODE_WAIT_MS = 5000, /* for a device node that the kernel makes asynchronously */
	NAME_MAX_BYTES = 128,
};

static void die(const char *what)
{
	fprintf(stderr, "qga_init: %s: %s\n", what, strerror(errno));
	sync();
	reboot(RB_AUTOBOOT);
	_exit(1);
}

static void must_mount(const char *src, const char *dst, const char *type, unsigned long flags,
		       const char *data)
{
	mkdir(dst, 0755); /* there already in the usual case; mount() says if it is not */
	if (mount(src, dst, type, flags, data) < 0)
		die(dst);
}

static void load_modules(void)
{
	FILE *list = fopen("/modules/order", "r");
	char name[NAME_MAX_BYTES], path[NAME_MAX_BYTES + 16];

	if (!list)
		die("/modules/order");
	while (fgets(name, sizeof(name), list)) {
		name[strcspn(name, "\n")] = '\0';
		snprintf(path, sizeof(path), "/modules/%s", name);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
			die(path);
		close(fd);
	}
	fclose(list);
}

/* devtmpfs offers no event to wait for before udev runs, so look until it is there. */
static void wait_node(const char *path)
{
	const struct timespec ms = { .tv_nsec = 1000000 };

	for (int waited = 0; access(path, F_OK) < 0; waited++) {
		if (waited == NODE_WAIT_MS)
			die(path);
		nanosleep(&ms, NULL);
	}
}

static void enter_root(void)
{
	wait_node("/dev/vda");
	wait_node("/dev/vdb");
	must_mount("/dev/vda", "/lower", "ext4", MS_RDONLY, NULL);
	must_mount("/dev/vdb", "/layer", "ext4", 0, NULL);
	mkdir("/layer/upper", 0755);
	mkdir("/layer/work", 0755);
	must_mount("overlay", "/newroot", "overlay", 0,
		   "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work");
	must_mount("/dev", "/newroot/dev", NULL, MS_MOVE, NULL);
	if (chdir("/newroot") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
	    chdir("/") < 0)
		die("switch root");
	must_mount("proc", "/proc", "proc", 0, NULL);
	must_mount("sysfs", "/sys", "sysfs", 0, NULL);
	must_mount("tmpfs", "/run", "tmpfs", 0, NULL);
}

int main(void)
{
	char *const argv[] = { "qemu-ga",      "-m", "virtio-serial", "-p", "/dev/vport0p1", "-f",
			       "/run/qga.pid", "-t", "/run",          NULL };
	char *const env[] = { "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", NULL };

	must_mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	int console = open("/dev/console", O_RDWR);
	for (int fd = 0; console >= 0 && fd < 3; fd++)
		dup2(console, fd);
	load_modules();
	enter_root();
	wait_node("/dev/vport0p1");

	pid_t agent = fork();
	if (agent < 0)
		die("fork");
	if (agent == 0) {
		execve("/usr/sbin/qemu-ga", argv, env);
		die("/usr/sbin/qemu-ga");
	}
	for (pid_t pid = 0; pid != agent;)
		pid = wait(NULL);
	die("qemu-ga ended");
}
