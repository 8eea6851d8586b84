/* sys/t_confine.c - filters, Landlock, capabilities, descriptors, pidfds, the KVM probe */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "base/testing.h"
#include "sys/caps.h"
#include "sys/fault.h"
#include "sys/fd.h"
#include "sys/kvm_probe.h"
#include "sys/landlock.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"

/* Run in a child; its exit status: 0 when every step of @body was as it should be, else its line. */
static int in_child(int (*body)(void *arg), void *arg)
{
	struct sys_exit how;
	int pidfd;
	pid_t pid = sys_clone(0, -1, &pidfd);

	if (pid == 0)
		_exit(body(arg));
	assert_true(pid > 0);
	assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
	(void)sys_close(pidfd);
	assert_int_equal(how.signal, 0);
	return how.code;
}

/* ---- seccomp ---- */

static bool answers(long r, int no)
{
	return r < 0 && errno == no;
}

/* What each answers: 0 is a socket. */
static bool sockets_are_chosen(void)
{
	const struct {
		int family, type, protocol, want;
	} tries[] = {
		{AF_UNIX, SOCK_STREAM, 0, 0},
		{AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, 0},
		{AF_INET, SOCK_STREAM, 0, 0},
		{AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP, 0},
		{AF_INET, SOCK_DGRAM, IPPROTO_UDP, 0},
		{AF_INET, SOCK_DGRAM, IPPROTO_ICMP, EACCES},
		{AF_INET, SOCK_RAW, IPPROTO_ICMP, EPERM},
		{AF_INET, SOCK_STREAM, IPPROTO_MPTCP, EPROTONOSUPPORT},
		{AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, EPROTONOSUPPORT},
		{AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP, EPROTONOSUPPORT},
		{AF_INET, SOCK_DCCP, IPPROTO_DCCP, ENOSYS},
		{AF_INET6, SOCK_STREAM, IPPROTO_MPTCP, EPROTONOSUPPORT},
		{AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6, EPERM},
		{AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE, EAFNOSUPPORT},
		{AF_NETLINK, SOCK_DGRAM, NETLINK_USERSOCK, EAFNOSUPPORT},
	};
	int pair[2];

	for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
		int fd = socket(tries[i].family, tries[i].type, tries[i].protocol);

		if (tries[i].want ? !answers(fd, tries[i].want) : fd < 0)
			return false;
	}
	return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && socketpair(AF_TIPC, SOCK_STREAM, 0, pair) < 0 &&
	       errno == ENOSYS;
}

/* What all sandboxes of a host share is not touched; -1 would be EBADF if it were looked at. */
static bool hosts_things_are_spared(void)
{
	aio_context_t context = 0;

	return syscall(SYS_sync) == 0 && syscall(SYS_syncfs, -1) == 0 &&
	       syscall(SYS_fadvise64, -1, 0, 0, POSIX_FADV_DONTNEED) == 0 &&
	       answers(syscall(SYS_fadvise64, -1, 0, 0, POSIX_FADV_WILLNEED), EBADF) &&
	       answers(syscall(SYS_io_setup, 1, &context), ENOSYS);
}

/* Everybody may lower a limit; this one must not become 0. */
static bool no_core_stays(void)
{
	const struct rlimit one = {1, 1}, none = {0, 0};
	struct rlimit now = {7, 7};

	if (syscall(SYS_setrlimit, RLIMIT_CORE, &none) != 0 || setrlimit(RLIMIT_CORE, &none) != 0 ||
	    syscall(SYS_prlimit64, 0, 0x100000000ul | RLIMIT_CORE, &none, NULL) != 0)
		return false;
	if (getrlimit(RLIMIT_CORE, &now) < 0 || now.rlim_cur != one.rlim_cur || now.rlim_max != one.rlim_max)
		return false;
	now = (struct rlimit){20, 30};
	return setrlimit(RLIMIT_NOFILE, &now) == 0 && getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_max == 30;
}

static int under_the_filter(void *arg)
{
	const struct rlimit one = {1, 1};
	const int *fd = arg;

	if (setrlimit(RLIMIT_CORE, &one) < 0 || sys_no_new_privs() < 0 || seccomp_install(*fd) < 0)
		return 1;
	if (!answers(mount("none", "/tmp", "tmpfs", 0, NULL), EPERM))
		return 2;
	if (!answers(unshare(CLONE_NEWUSER), EPERM) || unshare(CLONE_FS) < 0)
		return 3;
	if (!answers(syscall(SYS_clone, CLONE_NEWNET | SIGCHLD, NULL, NULL, NULL, NULL), EPERM))
		return 4;
	if (!answers(syscall(SYS_clone3, NULL, 0), ENOSYS))
		return 5;
	if (!answers(syscall(SYS_bpf, 0, NULL, 0), EPERM) || !answers(syscall(SYS_keyctl, 0, 0), EPERM))
		return 6;
	if (!answers(syscall(1000), ENOSYS)) /* not invented yet */
		return 7;
	if (!answers(socket(AF_VSOCK, SOCK_STREAM, 0), ENOSYS) || !answers(socket(AF_ALG, SOCK_SEQPACKET, 0), ENOSYS))
		return 8;
	if (!sockets_are_chosen())
		return 9;
	if (!answers(syscall(SYS_personality, 0x0400000), ENOSYS) || syscall(SYS_personality, 0xffffffff) < 0)
		return 10;
	/* bits that the kernel cuts off must not change what the filter sees */
	if (!answers(syscall(SYS_socket, 0x100000000ul | AF_VSOCK, SOCK_STREAM, 0), ENOSYS))
		return 11;
	if (!answers(syscall(SYS_unshare, 0x100000000ul | CLONE_NEWUSER), EPERM))
		return 12;
	if (!hosts_things_are_spared())
		return 13;
	if (!no_core_stays())
		return 14;
	return getpid() > 0 ? 0 : 15;
}

static void workloads_are_filtered(void **state)
{
	int fd = -1;

	T_UNUSED(state);
	assert_int_equal(seccomp_compile(&seccomp_workload, &fd), 0);
	assert_int_equal(in_child(under_the_filter, &fd), 0);
	assert_true(sys_write(fd, "x", 1) < 0); /* sealed */
	(void)sys_close(fd);
}

static int under_the_keepers(void *arg)
{
	const int *fd = arg;

	if (sys_no_new_privs() < 0 || seccomp_install(*fd) < 0)
		return 1;
	if (!answers(syscall(SYS_bpf, 0, NULL, 0), EPERM) || !answers(syscall(SYS_reboot, 0, 0, 0, NULL), EPERM))
		return 2;
	return answers(syscall(SYS_clone3, NULL, 0), EINVAL) ? 0 : 3; /* it starts machines with that */
}

static void the_keeper_is_filtered(void **state)
{
	int fd = -1;

	T_UNUSED(state);
	assert_int_equal(seccomp_compile(&seccomp_keeper, &fd), 0);
	assert_int_equal(in_child(under_the_keepers, &fd), 0);
	(void)sys_close(fd);
}

/* ---- the daemon's ---- */

/* What a daemon never does, and what it would take to get further from there. By number: some have no wrapper. */
static const struct {
	long call, a, b, c;
	int answer;
} never_daemon[] = {
	{SYS_execve, 0, 0, 0, EPERM},
	{SYS_execveat, -1, 0, 0, EPERM},
	{SYS_fork, 0, 0, 0, EPERM},
	{SYS_vfork, 0, 0, 0, EPERM},
	{SYS_clone, SIGCHLD, 0, 0, ENOSYS},
	{SYS_clone, CLONE_NEWNET | SIGCHLD, 0, 0, ENOSYS},
	{SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND | CLONE_NEWUSER, 0, 0, ENOSYS},
	{SYS_clone3, 0, 0, 0, ENOSYS},
	{SYS_unshare, CLONE_NEWUSER, 0, 0, EPERM},
	{SYS_unshare, CLONE_FILES, 0, 0, EPERM},
	{SYS_setns, -1, 0, 0, EPERM},
	{SYS_mount, 0, 0, 0, EPERM},
	{SYS_umount2, 0, 0, 0, EPERM},
	{SYS_open_tree, AT_FDCWD, 0, 0, EPERM},
	{SYS_move_mount, -1, 0, -1, EPERM},
	{SYS_fsopen, 0, 0, 0, EPERM},
	{SYS_fsmount, -1, 0, 0, EPERM},
	{SYS_mount_setattr, -1, 0, 0, EPERM},
	{SYS_pivot_root, 0, 0, 0, EPERM},
	{SYS_chroot, 0, 0, 0, EPERM},
	{SYS_ptrace, PTRACE_TRACEME, 0, 0, EPERM},
	{SYS_process_vm_readv, 1, 0, 0, EPERM},
	{SYS_process_vm_writev, 1, 0, 0, EPERM},
	{SYS_pidfd_open, 1, 0, 0, EPERM},
	{SYS_pidfd_getfd, -1, 0, 0, EPERM},
	{SYS_kill, 1, 0, 0, EPERM},
	{SYS_tkill, 1, 0, 0, EPERM},
	{SYS_bpf, 0, 0, 0, EPERM},
	{SYS_perf_event_open, 0, 0, 0, EPERM},
	{SYS_keyctl, 0, 0, 0, EPERM},
	{SYS_add_key, 0, 0, 0, EPERM},
	{SYS_io_uring_setup, 1, 0, 0, EPERM},
	{SYS_userfaultfd, 0, 0, 0, EPERM},
	{SYS_setuid, 0, 0, 0, EPERM},
	{SYS_setresuid, 0, 0, 0, EPERM},
	{SYS_setgroups, 0, 0, 0, EPERM},
	{SYS_setfsuid, 0, 0, 0, EPERM},
	{SYS_capset, 0, 0, 0, EPERM},
	{SYS_mknod, 0, 0, 0, EPERM},
	{SYS_symlink, 0, 0, 0, EPERM},
	{SYS_chown, 0, 0, 0, EPERM},
	{SYS_chmod, 0, 0, 0, EPERM},
	{SYS_bind, -1, 0, 0, EPERM},
	{SYS_listen, -1, 0, 0, EPERM},
	{SYS_socket, AF_INET, SOCK_STREAM, 0, ENOSYS},
	{SYS_socket, AF_INET6, SOCK_DGRAM, 0, ENOSYS},
	{SYS_socket, AF_NETLINK, SOCK_RAW, 0, ENOSYS},
	{SYS_socket, AF_VSOCK, SOCK_STREAM, 0, ENOSYS},
	{SYS_socket, 0x100000000l | AF_INET, SOCK_STREAM, 0, ENOSYS}, /* what the kernel cuts off */
	{SYS_prctl, PR_SET_DUMPABLE, 1, 0, ENOSYS},
	{SYS_prctl, PR_SET_PTRACER, 1, 0, ENOSYS},
	{SYS_ioctl, 0, TIOCSTI, 0, ENOSYS},
	{SYS_prlimit64, 0, 0, 1, ENOSYS},
	{SYS_personality, 0, 0, 0, EPERM},
	{1000, 0, 0, 0, ENOSYS}, /* not invented yet */
};

/* A thread from before the second filter. */
struct older_thread {
	pthread_t thread;
	int gate[2], answer;
};

static void *older_main(void *arg)
{
	struct older_thread *t = arg;
	char byte;

	(void)sys_read(t->gate[0], &byte, 1);
	t->answer = socket(AF_UNIX, SOCK_STREAM, 0) < 0 ? errno : 0;
	return NULL;
}

static int connects_nowhere(const int settled_fd)
{
	struct older_thread t = {.answer = -1};
	int sock = socket(AF_UNIX, SOCK_STREAM, 0), pair[2];

	if (sock < 0 || sys_pipe(t.gate) < 0 || pthread_create(&t.thread, NULL, older_main, &t) != 0)
		return 102; /* threads go on starting */
	if (seccomp_install_all(settled_fd) < 0)
		return 103;
	if (!answers(socket(AF_UNIX, SOCK_STREAM, 0), EPERM) || !answers(connect(sock, NULL, 0), EPERM))
		return 104;
	if (sys_socketpair(pair) < 0) /* with nobody but itself */
		return 105;
	if (sys_write(t.gate[1], "x", 1) != 1 || pthread_join(t.thread, NULL) != 0)
		return 106;
	return t.answer == EPERM ? 0 : 107;
}

static int under_the_daemons(void *arg)
{
	const int *fds = arg;

	if (sys_no_new_privs() < 0 || seccomp_install_all(fds[0]) < 0)
		return 101;
	for (size_t i = 0; i < ARRAY_LEN(never_daemon); i++) {
		const long call = never_daemon[i].call, a = never_daemon[i].a, b = never_daemon[i].b;

		if (!answers(syscall(call, a, b, never_daemon[i].c, 0, 0), never_daemon[i].answer))
			return (int)i + 1;
	}
	return connects_nowhere(fds[1]);
}

static void the_daemon_is_filtered(void **state)
{
	int fds[2] = {-1, -1};

	T_UNUSED(state);
	_Static_assert(ARRAY_LEN(never_daemon) < 100, "an exit status says which");
	assert_int_equal(seccomp_compile(&seccomp_daemon, &fds[0]), 0);
	assert_int_equal(seccomp_compile(&seccomp_daemon_settled, &fds[1]), 0);
	assert_int_equal(in_child(under_the_daemons, fds), 0);
	(void)sys_close(fds[0]);
	(void)sys_close(fds[1]);
}

static void a_denial_is_never_lost_to_a_typing_mistake(void **state)
{
	static const struct seccomp_rule denied[] = {
		{.call = "mouunt", .act = SECCOMP_DO_ERRNO, .answer = EPERM}, {0}};
	static const struct seccomp_rule allowed[] = {{.call = "mouunt", .act = SECCOMP_DO_ALLOW}, {0}};
	const struct seccomp_rule *tables[] = {denied, NULL};
	struct seccomp_policy p = {.name = "x", .otherwise = SECCOMP_DO_ALLOW, .tables = tables};
	int fd = -1;

	T_UNUSED(state);
	assert_int_equal(seccomp_compile(&p, &fd), -EINVAL);
	tables[0] = allowed; /* a call this libseccomp does not know: simply not allowed */
	p.otherwise = SECCOMP_DO_KILL;
	assert_int_equal(seccomp_compile(&p, &fd), 0);
	(void)sys_close(fd);
}

static void other_files_are_no_filters(void **state)
{
	int fd = sys_memfd("x", 0);

	T_UNUSED(state);
	assert_int_equal(seccomp_install(fd), -EINVAL);
	assert_int_equal(sys_write_full(fd, "123", 3), 0);
	assert_int_equal(seccomp_install(fd), -EINVAL);
	assert_int_equal(ftruncate(fd, (SECCOMP_INSTRUCTIONS_MAX + 1) * (off_t)sizeof(struct sock_filter)), 0);
	assert_int_equal(seccomp_install(fd), -EINVAL);
	(void)sys_close(fd);
}

static void compiling_cleans_up(void **state)
{
	unsigned failed = 0, made = 0;

	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO) {
		int fd = -1, r = seccomp_compile(&seccomp_keeper, &fd);

		assert_true(r == 0 || r == -EIO);
		assert_int_equal(fd >= 0, r == 0);
		failed += r < 0;
		made += r == 0;
		(void)sys_close(fd);
	}
	assert_true(failed > 0);
	assert_int_equal(made, 1); /* in peace, once; no failure is taken for a success */
}

/* ---- Landlock ---- */

static int under_landlock(void *arg)
{
	const char *dir = arg;
	const struct landlock_rule rules[] = {{dir, LANDLOCK_MAY_READ}, {"/nowhere", LANDLOCK_MAY_READ}};

	if (sys_no_new_privs() < 0 || landlock_confine(rules, ARRAY_LEN(rules), true) < 0)
		return 1;
	if (open(dir, O_RDONLY | O_DIRECTORY) < 0)
		return 2;
	if (!answers(open("/etc/passwd", O_RDONLY), EACCES))
		return 3;
	if (!answers(mkdirat(AT_FDCWD, "/var/tmp/t_confine.x", 0755), EACCES))
		return 4;
	return mount("none", "/tmp", "tmpfs", 0, NULL) == 0 ? 5 : 0;
}

static void landlock_confines(void **state)
{
	char dir[] = "/usr";

	T_UNUSED(state);
	if (landlock_abi() == 0)
		skip();
	assert_int_equal(in_child(under_landlock, dir), 0);
}

/* ---- capabilities ---- */

static int without_capabilities(void *arg)
{
	T_UNUSED(arg);
	if (caps_limit(CAP_BIT(CAP_KILL)) < 0 || (caps_effective() & ~CAP_BIT(CAP_KILL)))
		return 1;
	if (caps_limit(0) < 0 || caps_effective() != 0)
		return 2;
	return caps_limit(~0ull) == 0 && caps_effective() == 0 ? 0 : 3; /* they don't come back */
}

static void capabilities_go_for_good(void **state)
{
	T_UNUSED(state);
	assert_int_equal(in_child(without_capabilities, NULL), 0);
}

/* ---- processes ---- */

static int close_others(void *arg)
{
	const int *fds = arg; /* 3 of them */
	const int keep[] = {fds[1], -1, fds[1]};

	if (sys_close_all_but(keep, ARRAY_LEN(keep)) < 0)
		return 1;
	if (fcntl(fds[0], F_GETFD) >= 0 || fcntl(fds[2], F_GETFD) >= 0)
		return 2;
	return fcntl(fds[1], F_GETFD) >= 0 && fcntl(2, F_GETFD) >= 0 ? 0 : 3;
}

static void descriptors_are_closed_but_those_kept(void **state)
{
	int fds[3];

	T_UNUSED(state);
	for (int i = 0; i < 3; i++)
		fds[i] = sys_open("/dev/null", O_RDONLY);
	assert_int_equal(in_child(close_others, fds), 0);
	for (int i = 0; i < 3; i++)
		(void)sys_close(fds[i]);
}

static void ends_are_told_apart(void **state)
{
	struct sys_exit how;
	int pidfd = -1, pipe_fds[2];
	pid_t pid;

	T_UNUSED(state);
	assert_int_equal(sys_clone(CLONE_VM, -1, &pidfd), -EINVAL);
	assert_int_equal(sys_pipe(pipe_fds), 0);
	pid = sys_clone(0, -1, &pidfd);
	if (pid == 0) {
		char byte;

		(void)sys_close(pipe_fds[1]);
		(void)sys_read(pipe_fds[0], &byte, 1);
		_exit(42);
	}
	assert_int_equal(sys_pidfd_reap(pidfd, &how), -EAGAIN);
	(void)sys_close(pipe_fds[1]);
	assert_int_equal(sys_pidfd_wait(pidfd, &how), 0);
	assert_int_equal(how.code, 42);
	assert_int_equal(how.signal, 0);
	assert_int_equal(sys_pidfd_signal(pidfd, SIGKILL), -ESRCH);
	(void)sys_close(pidfd);
	(void)sys_close(pipe_fds[0]);
}

/* ---- KVM ---- */

static void kvm_is_measured(void **state)
{
	struct kvm_probe p;

	T_UNUSED(state);
	kvm_probe(&p);
	assert_int_equal(p.usable, p.loops_per_s >= KVM_PROBE_LOOPS_PER_S && !p.reason[0]);
	assert_true(p.usable || p.reason[0]);
}

T_MAIN(T(workloads_are_filtered), T(the_keeper_is_filtered), T(the_daemon_is_filtered),
       T(a_denial_is_never_lost_to_a_typing_mistake),
       T(other_files_are_no_filters), T(compiling_cleans_up), T(landlock_confines), T(capabilities_go_for_good),
       T(descriptors_are_closed_but_those_kept), T(ends_are_told_apart), T(kvm_is_measured))
