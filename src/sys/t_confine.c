/* sys/t_confine.c - filters, Landlock, capabilities, descriptors, pidfds, the KVM probe */
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/mount.h>
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

T_MAIN(T(workloads_are_filtered), T(the_keeper_is_filtered), T(a_denial_is_never_lost_to_a_typing_mistake),
       T(other_files_are_no_filters), T(compiling_cleans_up), T(landlock_confines), T(capabilities_go_for_good),
       T(descriptors_are_closed_but_those_kept), T(ends_are_told_apart), T(kvm_is_measured))
