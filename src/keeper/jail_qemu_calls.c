/*
 * keeper/jail_qemu_calls.c - the system calls QEMU is left with
 *
 * Found by tracing QEMU 7.2 and 10.0 through start, boot, disk and link traffic, monitor
 * commands and shutdown. What is not here ends the process (SIGSYS), so that a guest which
 * took QEMU over can't even try. Three kinds of entry are not plain permission:
 *
 * - files are opened for reading, the sealed memory alone for writing as well: what is
 *   written came in as a descriptor;
 * - processes: threads, nothing else. execve has to stay for the program itself (a filter
 *   can't count); QEMU's own filter takes it away once it runs;
 * - what libraries try and survive answers an error: it is part of a normal start.
 *
 * memory stays executable at will: the translator lives of that.
 */
#include "keeper/jail_qemu_calls.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#define ALLOW(name) {.call = #name, .act = SECCOMP_DO_ALLOW}
#define ALLOW_NR(name, nr) {.call = #name, .act = SECCOMP_DO_ALLOW, .number = nr}
#define ALLOW_IF(name, n, m, v) {.call = #name, .act = SECCOMP_DO_ALLOW, .arg = n, .mask = m, .value = v}
#define ANSWER(name, no) {.call = #name, .act = SECCOMP_DO_ERRNO, .answer = no}
#define ANSWER_IF(name, no, n, m, v)                                                               \
	{.call = #name, .act = SECCOMP_DO_ERRNO, .answer = no, .arg = n, .mask = m, .value = v}
#define INT 0xffffffffull /* the bits of an int that reach the kernel */

static const struct seccomp_rule always[] = {
	/* descriptors it holds */
	ALLOW(close), ALLOW(dup), ALLOW(dup2), ALLOW(dup3), ALLOW(fallocate), ALLOW(fcntl),
	ALLOW(fdatasync), ALLOW(fstat), ALLOW(fsync), ALLOW(ftruncate), ALLOW(lseek), ALLOW(pread64),
	ALLOW(preadv), ALLOW(pwrite64), ALLOW(pwritev), ALLOW(read), ALLOW(readv), ALLOW(recvfrom),
	ALLOW(recvmsg), ALLOW(sendmsg), ALLOW(sendto), ALLOW(shutdown), ALLOW(write), ALLOW(writev),
	ALLOW(getsockname), ALLOW(getpeername), ALLOW(getsockopt), ALLOW(setsockopt),
	ALLOW(sync_file_range), ALLOW(fadvise64), ALLOW(copy_file_range),
	/* waiting */
	ALLOW(clock_gettime), ALLOW(clock_getres), ALLOW(clock_nanosleep), ALLOW(epoll_create1),
	ALLOW(epoll_ctl), ALLOW(epoll_pwait), ALLOW(epoll_wait), ALLOW(eventfd2), ALLOW(futex),
	ALLOW(gettimeofday), ALLOW(nanosleep), ALLOW(pipe2), ALLOW(poll), ALLOW(ppoll), ALLOW(pselect6),
	ALLOW(restart_syscall), ALLOW(signalfd4), ALLOW(time), ALLOW(timer_create), ALLOW(timer_delete),
	ALLOW(timer_gettime), ALLOW(timer_settime), ALLOW(timerfd_create), ALLOW(timerfd_settime),
	ALLOW_NR(futex_waitv, 449), ALLOW_NR(epoll_pwait2, 441),
	/* memory */
	ALLOW(brk), ALLOW(madvise), ALLOW(membarrier), ALLOW(memfd_create), ALLOW(mincore), ALLOW(mmap),
	ALLOW(mprotect), ALLOW(mremap), ALLOW(msync), ALLOW(munmap), ALLOW_NR(mseal, 462),
	/* itself */
	ALLOW(arch_prctl), ALLOW(execve), ALLOW(exit), ALLOW(exit_group), ALLOW(getcpu), ALLOW(getegid),
	ALLOW(geteuid), ALLOW(getgid), ALLOW(getpid), ALLOW(getppid), ALLOW(getrandom), ALLOW(getrlimit),
	ALLOW(getrusage), ALLOW(gettid), ALLOW(getuid), ALLOW(prctl), ALLOW(rseq), ALLOW(rt_sigaction),
	ALLOW(rt_sigpending), ALLOW(rt_sigprocmask), ALLOW(rt_sigreturn), ALLOW(rt_sigsuspend),
	ALLOW(rt_sigtimedwait), ALLOW(sched_getaffinity), ALLOW(sched_yield), ALLOW(seccomp),
	ALLOW(set_robust_list), ALLOW(set_tid_address), ALLOW(sigaltstack), ALLOW(sysinfo),
	ALLOW(tgkill), ALLOW(uname), ALLOW(umask),
	ALLOW_IF(prlimit64, 2, ~0ull, 0), /* to read */
	ANSWER(setrlimit, EPERM),
	/* threads */
	ALLOW_IF(clone, 0, CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_NEWUSER,
		 CLONE_VM | CLONE_THREAD | CLONE_SIGHAND),
	ANSWER(clone3, ENOSYS), /* its flags lie in memory, out of a filter's sight: libraries fall back */
	/* looking about in an empty root */
	ALLOW(access), ALLOW(faccessat), ALLOW(faccessat2), ALLOW(newfstatat), ALLOW(stat), ALLOW(lstat),
	ALLOW(statx), ALLOW(getdents64), ALLOW(getcwd), ALLOW(readlink), ALLOW(readlinkat), ALLOW(fchdir),
	ANSWER(open, EPERM), ANSWER(openat2, ENOSYS), ANSWER(statfs, ENOENT), ANSWER(fstatfs, EPERM),
	/* what libraries try at their start, and what QEMU asks for and can do without */
	ANSWER(get_mempolicy, EPERM), ANSWER(set_mempolicy, EPERM), ANSWER(mbind, EPERM),
	ANSWER(io_uring_setup, ENOSYS), ANSWER(userfaultfd, ENOSYS), ANSWER(perf_event_open, EPERM),
	ANSWER(sched_setaffinity, EPERM), ANSWER(sched_setscheduler, EPERM), ANSWER(setpriority, EPERM),
	ANSWER(sched_getscheduler, EPERM), ANSWER(sched_getparam, EPERM), ANSWER(socket, EPERM),
	ANSWER(mlock, EPERM), ANSWER(mlock2, EPERM), ANSWER(mlockall, EPERM), ANSWER(munlock, EPERM),
	ANSWER(unlink, EPERM), ANSWER(capget, EPERM), ANSWER(ioprio_get, EPERM),
	{0},
};

/*
 * QEMU opens its memory for reading and writing, though it maps it privately and the file is
 * sealed; Landlock and the owners of files leave nothing else to open so.
 */
static const struct seccomp_rule files_read_only[] = {
	ALLOW_IF(openat, 2, O_WRONLY | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0),
	ANSWER_IF(openat, EPERM, 2, O_WRONLY, O_WRONLY),
	ANSWER_IF(openat, EPERM, 2, O_CREAT, O_CREAT),
	ANSWER_IF(openat, EPERM, 2, O_TRUNC, O_TRUNC),
	{0},
};

/* What QEMU asks of disks and sockets; no terminal, no network, no device. */
static const struct seccomp_rule few_ioctls[] = {
	ALLOW_IF(ioctl, 1, INT, FIONBIO),
	ALLOW_IF(ioctl, 1, INT, FIONREAD),
	ALLOW_IF(ioctl, 1, INT, FIOCLEX),
	ANSWER_IF(ioctl, ENOTTY, 1, INT, TCGETS),
	{0},
};

/* /dev/kvm is opened read-write; Landlock and the empty root leave nothing else to open so. */
static const struct seccomp_rule with_kvm[] = {
	ALLOW_IF(openat, 2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0),
	ANSWER_IF(openat, EPERM, 2, O_CREAT, O_CREAT),
	ANSWER_IF(openat, EPERM, 2, O_TRUNC, O_TRUNC),
	ALLOW_IF(ioctl, 1, INT, FIONBIO),
	ALLOW_IF(ioctl, 1, INT, FIONREAD),
	ALLOW_IF(ioctl, 1, INT, FIOCLEX),
	ANSWER_IF(ioctl, ENOTTY, 1, INT, TCGETS),
	ALLOW_IF(ioctl, 1, 0xff00, 0xae00), /* KVMIO */
	{0},
};

static const struct seccomp_rule *const emulating[] = {always, files_read_only, few_ioctls, NULL};
static const struct seccomp_rule *const accelerated[] = {always, with_kvm, NULL};

const struct seccomp_policy jail_qemu_calls = {
	.name = "qemu", .otherwise = SECCOMP_DO_KILL, .tables = emulating,
};

const struct seccomp_policy jail_qemu_calls_kvm = {
	.name = "qemu-kvm", .otherwise = SECCOMP_DO_KILL, .tables = accelerated,
};
