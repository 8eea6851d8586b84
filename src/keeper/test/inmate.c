/*
 * keeper/test/inmate.c - stands in for hotcell-init in t_keeper.c: it tries to get out
 *
 * Descriptors as the agent's: 3 link, 4 system call filter, 5 cgroup directory. A command is one
 * byte; the answer a number of 8 bytes: what was reached, or -errno. Commands run in
 * a child that is confined as a workload is, except the ones that say "agent".
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINK = 3, FILTER = 4, MIB_BYTES = 1 << 20, BOMB_MIB = 4096, FORKS_MAX = 10000, FILTER_MAX = 4096, MUCH_MIB = 8 };

static int64_t code(int64_t r)
{
	return r < 0 ? -errno : r;
}

static int64_t try_open(const char *path, int flags)
{
	int fd = open(path, flags);

	return fd < 0 ? -errno : close(fd);
}

static int64_t try_mount(void)
{
	return code(mount("none", "/tmp", "tmpfs", 0, NULL));
}

static int64_t try_umount(void)
{
	return code(umount2("/proc", MNT_DETACH));
}

static int64_t try_unshare(void)
{
	return code(unshare(CLONE_NEWUSER));
}

static int64_t try_clone_ns(void)
{
	return code(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL));
}

static int64_t try_clone3(void)
{
	return code(syscall(SYS_clone3, NULL, 0));
}

static int64_t try_bpf(void)
{
	return code(syscall(SYS_bpf, 0, NULL, 0));
}

static int64_t try_io_uring(void)
{
	return code(syscall(SYS_io_uring_setup, 1, NULL));
}

static int64_t try_keyctl(void)
{
	return code(syscall(SYS_keyctl, 0, 0, 0, 0, 0));
}

static int64_t try_ptrace(void)
{
	return code(ptrace(PTRACE_ATTACH, 1, NULL, NULL));
}

static int64_t try_proc_sys(void)
{
	return try_open("/proc/sys/kernel/hostname", O_WRONLY);
}

static int64_t try_kcore(void)
{
	char byte;
	int fd = open("/proc/kcore", O_RDONLY);

	return fd < 0 ? -errno : read(fd, &byte, 1); /* absent, or an empty file */
}

static int64_t try_shadow(void)
{
	return try_open("/etc/shadow", O_RDONLY);
}

static int64_t try_init_root(void)
{
	return try_open("/proc/1/root/etc/shadow", O_RDONLY);
}

static int64_t try_device(void)
{
	if (mknod("/tmp/disk", S_IFBLK | 0600, makedev(254, 0)) < 0)
		return -errno;
	return try_open("/tmp/disk", O_RDONLY);
}

static int64_t try_host_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(22222)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return fd < 0 ? -errno : code(connect(fd, (struct sockaddr *)&sa, sizeof(sa)));
}

static int64_t try_outside(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(53)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	sa.sin_addr.s_addr = htonl(0x08080808);
	return fd < 0 ? -errno : code(connect(fd, (struct sockaddr *)&sa, sizeof(sa)));
}

static int64_t try_lower(void)
{
	int fd = open("/hello", O_WRONLY | O_TRUNC);

	return fd < 0 ? -errno : write(fd, "changed", 7);
}

/* A folder of the template goes and comes again, empty. */
static int64_t replace_folder(void)
{
	if (unlink("/old/file") < 0 || rmdir("/old") < 0 || mkdir("/old", 0755) < 0)
		return -errno;
	return access("/old/file", F_OK) == 0 ? -EEXIST : 0;
}

static int make_file(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);

	if (fd < 0)
		return -1;
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		close(fd);
		return -1;
	}
	return close(fd);
}

/* Files of every kind, links that lead out of the sandbox among them. */
static int64_t leave_files(void)
{
	if (make_file("/var/mine", "mine", 0600) < 0 || make_file("/tmp/too", "too", 0640) < 0 ||
	    chown("/var/mine", 1000, 1001) < 0 || unlink("/hello") < 0 || unlink("/old/file") < 0 ||
	    rmdir("/old") < 0 || mkdir("/old", 0700) < 0 || symlink("/etc/shadow", "/var/shadow") < 0 ||
	    symlink("/proc/1/root", "/var/root") < 0 || link("/var/mine", "/var/again") < 0 ||
	    mkfifo("/var/fifo", 0600) < 0)
		return -errno;
	return 0;
}

/* Is all of that here, and nothing else? Which one is not. */
static int64_t find_files(void)
{
	char text[16] = "";
	struct stat st, again;
	int fd = open("/var/mine", O_RDONLY);

	if (fd < 0 || read(fd, text, sizeof(text) - 1) != 4 || strcmp(text, "mine") != 0)
		return 1;
	if (fstat(fd, &st) < 0 || st.st_uid != 1000 || st.st_gid != 1001 || (st.st_mode & 07777) != 0600)
		return 2;
	if (stat("/var/again", &again) < 0 || again.st_ino != st.st_ino || again.st_nlink != 2)
		return 3;
	if (stat("/tmp/too", &st) < 0 || st.st_uid != 0 || (st.st_mode & 0777) != (0640 & ~022))
		return 4;
	if (access("/hello", F_OK) == 0 || access("/old/file", F_OK) == 0)
		return 5;
	if (stat("/old", &st) < 0 || (st.st_mode & 0777) != 0700)
		return 6;
	if (lstat("/var/shadow", &st) < 0 || !S_ISLNK(st.st_mode) || access("/var/shadow", F_OK) == 0)
		return 7;
	if (lstat("/var/root", &st) < 0 || !S_ISLNK(st.st_mode))
		return 8;
	if (lstat("/var/fifo", &st) < 0 || !S_ISFIFO(st.st_mode))
		return 9;
	return close(fd);
}

static int64_t fork_bomb(void)
{
	static pid_t kids[FORKS_MAX];
	int64_t n = 0;

	while (n < FORKS_MAX) {
		kids[n] = fork();
		if (kids[n] == 0)
			for (;;)
				pause();
		if (kids[n] < 0)
			break;
		n++;
	}
	for (int64_t i = 0; i < n; i++) {
		kill(kids[i], SIGKILL);
		waitpid(kids[i], NULL, 0);
	}
	return n;
}

static int64_t disk_bomb(void)
{
	static char block[MIB_BYTES];
	int fd = open("/var/bomb", O_WRONLY | O_CREAT, 0600);
	int64_t n = 0;

	if (fd < 0)
		return -errno;
	while (n < BOMB_MIB && write(fd, block, sizeof(block)) == (ssize_t)sizeof(block))
		n++;
	unlink("/var/bomb");
	return n;
}

/* Some MiB that are worth copying. */
static int64_t leave_much(void)
{
	static char block[MIB_BYTES];
	int fd = open("/var/much", O_WRONLY | O_CREAT, 0600);

	memset(block, 'x', sizeof(block));
	for (int i = 0; fd >= 0 && i < MUCH_MIB; i++)
		if (write(fd, block, sizeof(block)) != (ssize_t)sizeof(block))
			return -errno;
	return fd < 0 ? -errno : close(fd);
}

static int64_t memory_bomb(void)
{
	size_t size = (size_t)BOMB_MIB * MIB_BYTES;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	for (size_t i = 0; i < size; i += 4096)
		p[i] = 1;
	return BOMB_MIB;
}

static int64_t count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int64_t n = 0;

	if (!d)
		return -errno;
	for (struct dirent *e = readdir(d); e; e = readdir(d))
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1; /* the one that looks */
}

static int64_t own_pid(void)
{
	return getpid();
}

static int64_t make_group(void)
{
	return code(mkdirat(5, "session", 0755));
}

static int64_t raise_limit(void)
{
	int fd = openat(5, "cgroup.max.descendants", O_WRONLY);

	return fd < 0 ? -errno : write(fd, "max", 3);
}

static int64_t leave_quietly(void)
{
	static const char words[] = "[    0.2] PCI: Fatal: No config space access function found\r\n"
				    "\ngood\tbye\r\n\nand\n";

	(void)!write(2, words, sizeof(words) - 1);
	exit(7);
}

static int64_t ignore_term(void)
{
	signal(SIGTERM, SIG_IGN);
	return 0;
}

static const struct {
	char name;
	int agent; /* unconfined */
	int64_t (*run)(void);
} commands[] = {
	{'m', 0, try_mount}, {'u', 0, try_umount}, {'n', 0, try_unshare}, {'c', 0, try_clone_ns},
	{'3', 0, try_clone3}, {'b', 0, try_bpf}, {'i', 0, try_io_uring}, {'k', 0, try_keyctl},
	{'p', 0, try_ptrace}, {'s', 0, try_proc_sys}, {'K', 0, try_kcore}, {'h', 0, try_shadow},
	{'r', 0, try_init_root}, {'d', 0, try_device}, {'l', 0, try_host_port}, {'o', 0, try_outside},
	{'w', 0, try_lower}, {'R', 0, replace_folder}, {'F', 0, fork_bomb}, {'D', 0, disk_bomb},
	{'M', 0, memory_bomb}, {'f', 1, count_fds}, {'P', 1, own_pid}, {'g', 1, make_group},
	{'L', 1, raise_limit}, {'W', 1, leave_files}, {'V', 1, find_files}, {'E', 1, leave_much},
	{'q', 1, leave_quietly}, {'t', 1, ignore_term},
};

static void confine(void)
{
	static struct sock_filter filter[FILTER_MAX];
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {0};
	ssize_t n = pread(FILTER, filter, sizeof(filter), 0);
	struct sock_fprog prog = {(unsigned short)(n / (ssize_t)sizeof(filter[0])), filter};

	if (n <= 0 || syscall(SYS_capset, &head, none) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog, 0, 0) < 0)
		_exit(99);
}

/* The result of a confined child: its number, or -1000 - signal when one killed it. */
static int64_t run_confined(int64_t (*run)(void))
{
	int64_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		confine();
		*shared = run();
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return -errno;
	if (WIFSIGNALED(status))
		*shared = -1000 - WTERMSIG(status);
	else if (WEXITSTATUS(status))
		*shared = -2000 - WEXITSTATUS(status);
	return *shared;
}

static void obey(char name)
{
	int64_t result = -ENOTSUP;

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (commands[i].name == name)
			result = commands[i].agent ? commands[i].run() : run_confined(commands[i].run);
	(void)!write(LINK, &result, sizeof(result));
}

int main(void)
{
	struct pollfd p = {.fd = LINK, .events = POLLIN};
	char name;

	while (poll(&p, 1, -1) > 0) {
		ssize_t n = read(LINK, &name, 1);

		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		if (n == 1)
			obey(name);
	}
	return 0;
}
