/*
 * keeper/test/qemu_inmate.c - stands in for QEMU in t_qemu_jail.c: it tries to get out
 *
 * Descriptors as QEMU's: 3 image, 4 link, 5 monitor, 6 console, 7 kernel, 8 initrd, 10 memory, 12 disk. A
 * command is one byte on the monitor; the answer a number of 8 bytes: what was reached, or
 * -errno. A command that the filter forbids has no answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { IMAGE = 3, LINK, MONITOR, CONSOLE, KERNEL, INITRD, MEMORY = 10, DISK = 12, FDS_MAX = 256, PIDS_MAX = 100000 };

static int64_t code(int64_t r)
{
	return r < 0 ? -errno : r;
}

static int64_t try_open(const char *path, int flags)
{
	int fd = open(path, flags, 0600);

	return fd < 0 ? -errno : close(fd);
}

static int64_t image_for_writing(void)
{
	return try_open("/proc/self/fd/3", O_RDWR);
}

static int64_t image_by_name(void)
{
	return try_open("/proc/self/fd/3", O_RDONLY);
}

static int64_t kernel_by_name(void)
{
	return try_open("/proc/self/fd/7", O_RDONLY);
}

static int64_t kernel_for_writing(void)
{
	return try_open("/proc/self/fd/7", O_WRONLY | O_TRUNC);
}

static int64_t own_memory(void)
{
	return try_open("/proc/self/mem", O_RDONLY);
}

static int64_t own_program(void)
{
	return try_open("/qemu", O_RDONLY);
}

static int64_t program_for_writing(void)
{
	return try_open("/qemu", O_RDWR);
}

static int64_t new_file(void)
{
	return try_open("/firmware/x", O_CREAT | O_WRONLY);
}

static int64_t host_file(void)
{
	return try_open("/etc/passwd", O_RDONLY);
}

static int64_t kvm(void)
{
	return try_open("/dev/kvm", O_RDONLY);
}

static int64_t write_image(void)
{
	return code(write(IMAGE, "x", 1));
}

static int64_t write_kernel(void)
{
	return code(write(KERNEL, "x", 1));
}

static int64_t write_disk(void)
{
	return code(pwrite(DISK, "x", 1, 0));
}

static int64_t grow_disk(void)
{
	struct stat st;

	(void)signal(SIGXFSZ, SIG_IGN);
	if (fstat(DISK, &st) < 0)
		return -errno;
	return code(pwrite(DISK, "x", 1, 2 * st.st_size + (16 << 20)));
}

static int64_t memory_by_name(void)
{
	return try_open("/proc/self/fd/10", O_RDWR); /* as QEMU does */
}

static int64_t write_memory(void)
{
	return code(pwrite(MEMORY, "x", 1, 0));
}

static int64_t punch_memory(void)
{
	return code(fallocate(MEMORY, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
}

static int64_t share_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, MEMORY, 0) == MAP_FAILED ? -errno : 0;
}

static int64_t map_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, MEMORY, 0) == MAP_FAILED ? -errno : 0;
}

static int64_t write_memory_opened(void)
{
	int fd = open("/proc/self/fd/10", O_RDWR);

	return fd < 0 ? -errno : code(pwrite(fd, "x", 1, 0));
}

/* Older kernels refuse the mapping itself. */
static void *memory_to_read(void)
{
	return mmap(NULL, 4096, PROT_READ, MAP_SHARED, MEMORY, 0);
}

static int64_t remap_memory(void)
{
	void *p = memory_to_read();

	return p == MAP_FAILED ? -EACCES : code(mprotect(p, 4096, PROT_READ | PROT_WRITE));
}

static int64_t discard_memory(void)
{
	void *p = memory_to_read();

	return p == MAP_FAILED ? -EACCES : code(madvise(p, 4096, MADV_REMOVE));
}

static int64_t cut_memory(void)
{
	return code(ftruncate(MEMORY, 0));
}

static int64_t count_descriptors(void)
{
	int64_t n = 0;

	for (int fd = 0; fd < FDS_MAX; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static int64_t count_processes(void)
{
	int64_t n = 0;
	char path[32];

	for (int pid = 1; pid < PIDS_MAX; pid++) {
		(void)snprintf(path, sizeof(path), "/proc/%d", pid);
		n += access(path, F_OK) == 0;
	}
	return n;
}

static int64_t machine_wide_proc(void)
{
	return access("/proc/sys", F_OK) == 0 || access("/proc/kcore", F_OK) == 0 || access("/proc/version", F_OK) == 0;
}

static int64_t host_root(void)
{
	return code(access("/usr", F_OK));
}

static int64_t uid(void)
{
	return getuid();
}

static int64_t sockets(void)
{
	return code(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int64_t netlink(void)
{
	return code(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int64_t limit_files(void)
{
	struct rlimit r;

	return getrlimit(RLIMIT_NOFILE, &r) < 0 ? -errno : (int64_t)r.rlim_max;
}

static int64_t become_root(void)
{
	return code(setuid(0));
}

static int64_t forks(void)
{
	return code(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
}

static int64_t mounts(void)
{
	return code(mount("none", "/proc", "proc", 0, NULL));
}

static int64_t unshares(void)
{
	return code(unshare(CLONE_NEWUSER));
}

static int64_t traces(void)
{
	return code(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static int64_t signals(void)
{
	return code(kill(-1, SIGKILL));
}

static int64_t chroots(void)
{
	return code(chroot("/proc"));
}

static int64_t raises_limit(void)
{
	const struct rlimit r = {RLIM_INFINITY, RLIM_INFINITY};

	return code(setrlimit(RLIMIT_FSIZE, &r));
}

static int64_t changes_mode(void)
{
	return code(fchmod(DISK, 0777));
}

/* In the order of t_qemu_jail.c. */
static int64_t (*const commands[])(void) = {
	image_for_writing, image_by_name, kernel_by_name, kernel_for_writing, own_memory, own_program,
	program_for_writing, new_file, host_file, kvm, write_image, write_kernel, write_disk, grow_disk,
	count_descriptors, count_processes, machine_wide_proc, host_root, uid, sockets, netlink, limit_files,
	become_root, forks, mounts, unshares, traces, signals, chroots, raises_limit, changes_mode,
	memory_by_name, write_memory, punch_memory, share_memory, map_memory, write_memory_opened, remap_memory,
	discard_memory, cut_memory,
};

int main(void)
{
	unsigned char c;

	while (read(MONITOR, &c, 1) == 1) {
		int64_t r = c < sizeof(commands) / sizeof(commands[0]) ? commands[c]() : -ENOSYS;

		if (write(MONITOR, &r, sizeof(r)) != sizeof(r))
			return 1;
	}
	return 0;
}
