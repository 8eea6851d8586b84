/*
 * sys/seccomp_daemon.c - what hotcelld may call once it serves
 *
 * It parses what every guest and every client says, so whoever finds a mistake there gets what is
 * listed here, and no more: files it may open anyway, memory, threads, waiting, and sockets it has.
 * It can't start a program (image/formatter.h does that for it), make a namespace or a mount, watch
 * another process, or become another user.
 *
 * Unknown is ENOSYS, so that libraries fall back; known and dangerous is EPERM. Nothing kills: a
 * library that asks for something new must not cost every tenant the daemon. What is refused stands
 * in the kernel's log (seccomp_install_all()).
 */
#include <errno.h>
#include <linux/fs.h>
#include <linux/fiemap.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <sys/ioctl.h>
#include "sys/seccomp.h"

#define ALLOW(name) {.call = #name, .act = SECCOMP_DO_ALLOW}
#define ALLOW_IF(name, n, m, v) {.call = #name, .act = SECCOMP_DO_ALLOW, .arg = n, .mask = m, .value = v}
#define DENY(name) {.call = #name, .act = SECCOMP_DO_ERRNO, .answer = EPERM}
#define ALL_BITS 0xffffffffull /* ints: what stands above them never reaches the kernel */

static const struct seccomp_rule files[] = {
	ALLOW(access), ALLOW(close), ALLOW(close_range), ALLOW(copy_file_range), ALLOW(dup), ALLOW(dup2),
	ALLOW(dup3), ALLOW(faccessat), ALLOW(faccessat2), ALLOW(fadvise64), ALLOW(fallocate), ALLOW(fchmod),
	ALLOW(fcntl), ALLOW(fdatasync), ALLOW(flock), ALLOW(fstat), ALLOW(fstatfs), ALLOW(fsync),
	ALLOW(ftruncate), ALLOW(getcwd), ALLOW(getdents), ALLOW(getdents64), ALLOW(link), ALLOW(linkat),
	ALLOW(lseek), ALLOW(lstat), ALLOW(memfd_create), ALLOW(mkdir), ALLOW(mkdirat), ALLOW(newfstatat),
	ALLOW(open), ALLOW(openat), ALLOW(openat2), ALLOW(pread64), ALLOW(preadv), ALLOW(preadv2),
	ALLOW(pwrite64), ALLOW(pwritev), ALLOW(pwritev2), ALLOW(read), ALLOW(readahead), ALLOW(readlink),
	ALLOW(readlinkat), ALLOW(readv), ALLOW(rename), ALLOW(renameat), ALLOW(renameat2), ALLOW(rmdir),
	ALLOW(sendfile), ALLOW(splice), ALLOW(stat), ALLOW(statfs), ALLOW(statx), ALLOW(sync_file_range),
	ALLOW(syncfs), ALLOW(umask), ALLOW(unlink), ALLOW(unlinkat), ALLOW(utimensat), ALLOW(write),
	ALLOW(writev),
	/* sharing blocks of files; asking for them; is this a terminal; how much waits */
	ALLOW_IF(ioctl, 1, ALL_BITS, FICLONE), ALLOW_IF(ioctl, 1, ALL_BITS, FICLONERANGE),
	ALLOW_IF(ioctl, 1, ALL_BITS, FS_IOC_FIEMAP), ALLOW_IF(ioctl, 1, ALL_BITS, TCGETS),
	ALLOW_IF(ioctl, 1, ALL_BITS, FIONREAD),
	{0},
};

static const struct seccomp_rule memory[] = {
	ALLOW(brk), ALLOW(madvise), ALLOW(membarrier), ALLOW(mincore), ALLOW(mmap), ALLOW(mprotect),
	ALLOW(mremap), ALLOW(msync), ALLOW(munmap),
	{0},
};

#define THREAD (CLONE_THREAD | CLONE_VM | CLONE_SIGHAND)
#define NEW_NS                                                                                     \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)

/* Threads, no processes. clone3's flags lie in memory: it is ENOSYS, and libraries call clone. */
static const struct seccomp_rule threads[] = {
	ALLOW_IF(clone, 0, THREAD | NEW_NS, THREAD),
	ALLOW(exit), ALLOW(exit_group), ALLOW(futex), ALLOW(get_robust_list), ALLOW(getcpu), ALLOW(getegid),
	ALLOW(geteuid), ALLOW(getgid), ALLOW(getpgrp), ALLOW(getpid), ALLOW(getppid), ALLOW(getpriority),
	ALLOW(getresgid), ALLOW(getresuid), ALLOW(getrlimit), ALLOW(getrusage), ALLOW(getsid), ALLOW(gettid),
	ALLOW(getuid), ALLOW(rseq), ALLOW(rt_sigaction), ALLOW(rt_sigpending), ALLOW(rt_sigprocmask),
	ALLOW(rt_sigreturn), ALLOW(rt_sigsuspend), ALLOW(rt_sigtimedwait), ALLOW(sched_getaffinity),
	ALLOW(sched_getparam), ALLOW(sched_getscheduler), ALLOW(sched_yield), ALLOW(set_robust_list),
	ALLOW(set_tid_address), ALLOW(sigaltstack), ALLOW(sysinfo), ALLOW(tgkill), ALLOW(times), ALLOW(uname),
	ALLOW(wait4), ALLOW(waitid),
	ALLOW_IF(prlimit64, 2, ~0ull, 0), /* to look */
	ALLOW_IF(prctl, 0, ALL_BITS, PR_SET_NAME), ALLOW_IF(prctl, 0, ALL_BITS, PR_GET_NAME),
	ALLOW_IF(prctl, 0, ALL_BITS, PR_SET_VMA), ALLOW_IF(prctl, 0, ALL_BITS, PR_SET_SECCOMP),
	ALLOW_IF(seccomp, 0, ALL_BITS, 1), /* one more filter */
	{0},
};

static const struct seccomp_rule waiting[] = {
	ALLOW(clock_getres), ALLOW(clock_gettime), ALLOW(clock_nanosleep), ALLOW(epoll_create), ALLOW(epoll_create1),
	ALLOW(epoll_ctl), ALLOW(epoll_pwait), ALLOW(epoll_pwait2), ALLOW(epoll_wait), ALLOW(eventfd2),
	ALLOW(getrandom), ALLOW(gettimeofday), ALLOW(nanosleep), ALLOW(pause), ALLOW(pipe2), ALLOW(poll), ALLOW(ppoll),
	ALLOW(pselect6), ALLOW(restart_syscall), ALLOW(select), ALLOW(signalfd4), ALLOW(time),
	ALLOW(timerfd_create), ALLOW(timerfd_gettime), ALLOW(timerfd_settime),
	{0},
};

static const struct seccomp_rule talking[] = {
	ALLOW_IF(socket, 0, ALL_BITS, 1), ALLOW_IF(socketpair, 0, ALL_BITS, 1), ALLOW(accept), ALLOW(accept4),
	ALLOW(connect), ALLOW(getpeername), ALLOW(getsockname), ALLOW(getsockopt), ALLOW(recvfrom), ALLOW(recvmsg),
	ALLOW(sendmsg), ALLOW(sendto), ALLOW(setsockopt), ALLOW(shutdown),
	{0},
};

static const struct seccomp_rule refused[] = {
	DENY(execve), DENY(execveat), DENY(fork), DENY(vfork), DENY(unshare), DENY(setns), DENY(mount), DENY(umount2),
	DENY(pivot_root), DENY(chroot), DENY(move_mount), DENY(open_tree), DENY(fsopen), DENY(fsconfig),
	DENY(fsmount), DENY(fspick), DENY(mount_setattr), DENY(ptrace), DENY(process_vm_readv),
	DENY(process_vm_writev), DENY(process_madvise), DENY(pidfd_open), DENY(pidfd_getfd),
	DENY(pidfd_send_signal), DENY(kcmp), DENY(kill), DENY(tkill), DENY(rt_sigqueueinfo),
	DENY(rt_tgsigqueueinfo), DENY(setuid), DENY(setgid), DENY(setreuid), DENY(setregid), DENY(setresuid),
	DENY(setresgid), DENY(setfsuid), DENY(setfsgid), DENY(setgroups), DENY(capset), DENY(bpf),
	DENY(perf_event_open), DENY(keyctl), DENY(add_key), DENY(request_key), DENY(userfaultfd),
	DENY(io_uring_setup), DENY(io_uring_enter), DENY(io_uring_register), DENY(io_setup), DENY(mknod),
	DENY(mknodat), DENY(symlink), DENY(symlinkat), DENY(chown), DENY(lchown), DENY(fchown), DENY(fchownat),
	DENY(chmod), DENY(fchmodat), DENY(setxattr), DENY(lsetxattr), DENY(fsetxattr), DENY(name_to_handle_at),
	DENY(open_by_handle_at), DENY(bind), DENY(listen), DENY(personality), DENY(modify_ldt),
	DENY(init_module), DENY(finit_module), DENY(delete_module), DENY(kexec_load), DENY(reboot),
	DENY(fanotify_init), DENY(quotactl), DENY(swapon), DENY(swapoff), DENY(sethostname), DENY(settimeofday),
	DENY(clock_settime), DENY(syslog), DENY(acct), DENY(iopl), DENY(ioperm),
	{0},
};

static const struct seccomp_rule *const daemon_tables[] = {files, memory, threads, waiting, talking, refused, NULL};

const struct seccomp_policy seccomp_daemon = {
	.name = "daemon",
	.otherwise = SECCOMP_DO_ERRNO,
	.otherwise_answer = ENOSYS,
	.tables = daemon_tables,
};

/*
 * Once it is connected to its keeper. A Unix socket with a path is no file to Landlock, and a user's own
 * daemon could ask the user's other services for what it may not do itself.
 */
static const struct seccomp_rule connecting[] = {DENY(socket), DENY(connect), {0}};

static const struct seccomp_rule *const settled_tables[] = {connecting, NULL};

const struct seccomp_policy seccomp_daemon_settled = {
	.name = "daemon-settled",
	.otherwise = SECCOMP_DO_ALLOW,
	.tables = settled_tables,
};
