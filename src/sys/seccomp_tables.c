/*
 * sys/seccomp_tables.c - what a workload may call, and what nobody below the keeper may
 *
 * A workload gets what compilers, interpreters, package managers and their tests use.
 * What is young or unknown answers ENOSYS, so that libraries fall back; what is known and
 * dangerous answers EPERM. Three decisions:
 *
 * - clone3 is ENOSYS because its flags lie in memory, out of a filter's sight; libraries
 *   fall back to clone, whose flags are checked.
 * - ptrace and process_vm_* are allowed: debuggers are everyday tools, the agent is in
 *   another pid namespace, and without capabilities a workload reaches only its own kind.
 * - sockets are of the families, types and protocols that programs use in a network of loopback alone. Others
 *   would load modules; memory of netlink sockets is charged to nobody, not even by cgroup v2.
 * - what one sandbox could do to everybody's disk and caches is answered as if it had been done: its own files lie
 *   in memory, there is nothing to write out. Contexts of asynchronous I/O are counted for the whole host, and what
 *   is counted for one sandbox is missing to the next: libraries fall back to threads.
 * - ioctl is allowed whole: /dev holds harmless devices only, and stuffing a terminal
 *   (TIOCSTI) reaches nobody, because the other end of a workload's terminal is the agent.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "sys/seccomp.h"

#define ALLOW(name) {.call = #name, .act = SECCOMP_DO_ALLOW}
#define ALLOW_NR(name, nr) {.call = #name, .act = SECCOMP_DO_ALLOW, .number = nr}
#define ALLOW_IF(name, n, m, v) {.call = #name, .act = SECCOMP_DO_ALLOW, .arg = n, .mask = m, .value = v}
#define DENY(name) {.call = #name, .act = SECCOMP_DO_ERRNO, .answer = EPERM}
#define DENY_IF(name, n, m, v)                                                                     \
	{.call = #name, .act = SECCOMP_DO_ERRNO, .answer = EPERM, .arg = n, .mask = m, .value = v}
#define PRETEND(name) {.call = #name, .act = SECCOMP_DO_ERRNO, .answer = 0}
#define PRETEND_IF(name, n, m, v)                                                                  \
	{.call = #name, .act = SECCOMP_DO_ERRNO, .answer = 0, .arg = n, .mask = m, .value = v}
#define ALL_BITS 0xffffffffull /* ints: what stands above them never reaches the kernel */

static const struct seccomp_rule files[] = {
	ALLOW(access), ALLOW(chdir), ALLOW(chmod), ALLOW(chown), ALLOW(close), ALLOW(close_range),
	ALLOW(copy_file_range), ALLOW(creat), ALLOW(dup), ALLOW(dup2), ALLOW(dup3), ALLOW(faccessat),
	ALLOW(faccessat2), ALLOW(fallocate), ALLOW(fchdir), ALLOW(fchmod),
	ALLOW(fchmodat), ALLOW_NR(fchmodat2, 452), ALLOW(fchown), ALLOW(fchownat), ALLOW(fcntl),
	ALLOW(fdatasync), ALLOW(fgetxattr), ALLOW(flistxattr), ALLOW(flock), ALLOW(fremovexattr),
	ALLOW(fsetxattr), ALLOW(fstat), ALLOW(fstatfs), ALLOW(fsync), ALLOW(ftruncate), ALLOW(futimesat),
	ALLOW(getcwd), ALLOW(getdents), ALLOW(getdents64), ALLOW(getxattr), ALLOW(inotify_add_watch),
	ALLOW(inotify_init), ALLOW(inotify_init1), ALLOW(inotify_rm_watch), ALLOW(ioctl), ALLOW(lchown),
	ALLOW(lgetxattr), ALLOW(link), ALLOW(linkat), ALLOW(listxattr), ALLOW(llistxattr),
	ALLOW(lremovexattr), ALLOW(lseek), ALLOW(lsetxattr), ALLOW(lstat), ALLOW(mkdir), ALLOW(mkdirat),
	ALLOW(mknod), ALLOW(mknodat), ALLOW(newfstatat), ALLOW(open), ALLOW(openat), ALLOW(openat2),
	ALLOW(pread64), ALLOW(preadv), ALLOW(preadv2), ALLOW(pwrite64), ALLOW(pwritev), ALLOW(pwritev2),
	ALLOW(read), ALLOW(readahead), ALLOW(readlink), ALLOW(readlinkat), ALLOW(readv),
	ALLOW(removexattr), ALLOW(rename), ALLOW(renameat), ALLOW(renameat2), ALLOW(rmdir),
	ALLOW(sendfile), ALLOW(setxattr), ALLOW(splice), ALLOW(stat), ALLOW(statfs), ALLOW(statx),
	ALLOW(symlink), ALLOW(symlinkat), PRETEND(sync), ALLOW(sync_file_range), PRETEND(syncfs), ALLOW(tee),
	ALLOW(truncate), ALLOW(umask), ALLOW(unlink), ALLOW(unlinkat), ALLOW(utime), ALLOW(utimensat),
	ALLOW(utimes), ALLOW(vmsplice), ALLOW(write), ALLOW(writev), ALLOW_NR(cachestat, 451),
	/* advice about files; that to forget a template's pages would have its neighbours read them again */
	ALLOW_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_NORMAL), ALLOW_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_RANDOM),
	ALLOW_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_SEQUENTIAL), ALLOW_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_WILLNEED),
	PRETEND_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_DONTNEED), PRETEND_IF(fadvise64, 3, ALL_BITS, POSIX_FADV_NOREUSE),
	{0},
};

static const struct seccomp_rule memory[] = {
	ALLOW(brk), ALLOW(get_mempolicy), ALLOW(madvise), ALLOW(membarrier), ALLOW(memfd_create),
	ALLOW(mincore), ALLOW(mlock), ALLOW(mlock2), ALLOW(mlockall), ALLOW(mmap), ALLOW(mprotect),
	ALLOW(mremap), ALLOW(msync), ALLOW(munlock), ALLOW(munlockall), ALLOW(munmap),
	ALLOW(pkey_alloc), ALLOW(pkey_free), ALLOW(pkey_mprotect), ALLOW(remap_file_pages),
	ALLOW_NR(map_shadow_stack, 453), ALLOW_NR(mseal, 462),
	{0},
};

#define NEW_NS                                                                                     \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
	 CLONE_NEWPID | CLONE_NEWNET)

static const struct seccomp_rule processes[] = {
	ALLOW_IF(clone, 0, NEW_NS, 0),
	DENY_IF(clone, 0, CLONE_NEWNS, CLONE_NEWNS),
	DENY_IF(clone, 0, CLONE_NEWCGROUP, CLONE_NEWCGROUP),
	DENY_IF(clone, 0, CLONE_NEWUTS, CLONE_NEWUTS),
	DENY_IF(clone, 0, CLONE_NEWIPC, CLONE_NEWIPC),
	DENY_IF(clone, 0, CLONE_NEWUSER, CLONE_NEWUSER),
	DENY_IF(clone, 0, CLONE_NEWPID, CLONE_NEWPID),
	DENY_IF(clone, 0, CLONE_NEWNET, CLONE_NEWNET),
	ALLOW(arch_prctl), ALLOW(capget), ALLOW(capset), ALLOW(execve), ALLOW(execveat), ALLOW(exit),
	ALLOW(exit_group), ALLOW(fork), ALLOW(get_robust_list), ALLOW(get_thread_area),
	ALLOW(getcpu), ALLOW(getegid), ALLOW(geteuid), ALLOW(getgid), ALLOW(getgroups), ALLOW(getpgid),
	ALLOW(getpgrp), ALLOW(getpid), ALLOW(getppid), ALLOW(getpriority), ALLOW(getresgid),
	ALLOW(getresuid), ALLOW(getrlimit), ALLOW(getrusage), ALLOW(getsid), ALLOW(gettid), ALLOW(getuid),
	ALLOW(ioprio_get), ALLOW(ioprio_set), ALLOW(kill), ALLOW(landlock_add_rule),
	ALLOW(landlock_create_ruleset), ALLOW(landlock_restrict_self), ALLOW(pidfd_getfd),
	ALLOW(pidfd_open), ALLOW(pidfd_send_signal), ALLOW(prctl),
	ALLOW(process_vm_readv), ALLOW(process_vm_writev), ALLOW(ptrace), ALLOW(rseq),
	ALLOW(rt_sigaction), ALLOW(rt_sigpending), ALLOW(rt_sigprocmask), ALLOW(rt_sigqueueinfo),
	ALLOW(rt_sigreturn), ALLOW(rt_sigsuspend), ALLOW(rt_sigtimedwait), ALLOW(rt_tgsigqueueinfo),
	ALLOW(sched_get_priority_max), ALLOW(sched_get_priority_min), ALLOW(sched_getaffinity),
	ALLOW(sched_getattr), ALLOW(sched_getparam), ALLOW(sched_getscheduler),
	ALLOW(sched_rr_get_interval), ALLOW(sched_setaffinity), ALLOW(sched_setattr),
	ALLOW(sched_setparam), ALLOW(sched_setscheduler), ALLOW(sched_yield), ALLOW(seccomp),
	ALLOW(set_robust_list), ALLOW(set_thread_area), ALLOW(set_tid_address), ALLOW(setfsgid),
	ALLOW(setfsuid), ALLOW(setgid), ALLOW(setgroups), ALLOW(setpgid), ALLOW(setpriority),
	ALLOW(setregid), ALLOW(setresgid), ALLOW(setresuid), ALLOW(setreuid),
	ALLOW(setsid), ALLOW(setuid), ALLOW(sigaltstack), ALLOW(signalfd), ALLOW(signalfd4),
	ALLOW(sysinfo), ALLOW(tgkill), ALLOW(times), ALLOW(tkill), ALLOW(uname), ALLOW(vfork),
	ALLOW(wait4), ALLOW(waitid),
	/* only values that programs use: ordinary, 32-bit uname, no address randomisation, "which is it" */
	ALLOW_IF(personality, 0, ALL_BITS, 0x0), ALLOW_IF(personality, 0, ALL_BITS, 0x8),
	ALLOW_IF(personality, 0, ALL_BITS, 0x20000), ALLOW_IF(personality, 0, ALL_BITS, 0x20008),
	ALLOW_IF(personality, 0, ALL_BITS, 0x40000), ALLOW_IF(personality, 0, ALL_BITS, ALL_BITS),
	{0},
};

#define LIMIT_OF(n)                                                                                \
	ALLOW_IF(setrlimit, 0, ALL_BITS, n), ALLOW_IF(prlimit64, 1, ALL_BITS, n)

/*
 * RLIMIT_CORE stays 1: with 0, which everybody may lower it to, a crash in here would start the host's handler of core
 * files, as root, where core_pattern is a pipe. It may be read; setting it is answered as if it had been done.
 */
static const struct seccomp_rule limits[] = {
	LIMIT_OF(RLIMIT_CPU), LIMIT_OF(RLIMIT_FSIZE), LIMIT_OF(RLIMIT_DATA), LIMIT_OF(RLIMIT_STACK),
	LIMIT_OF(RLIMIT_RSS), LIMIT_OF(RLIMIT_NPROC), LIMIT_OF(RLIMIT_NOFILE), LIMIT_OF(RLIMIT_MEMLOCK),
	LIMIT_OF(RLIMIT_AS), LIMIT_OF(RLIMIT_LOCKS), LIMIT_OF(RLIMIT_SIGPENDING), LIMIT_OF(RLIMIT_MSGQUEUE),
	LIMIT_OF(RLIMIT_NICE), LIMIT_OF(RLIMIT_RTPRIO), LIMIT_OF(RLIMIT_RTTIME),
	PRETEND_IF(setrlimit, 0, ALL_BITS, RLIMIT_CORE),
	{.call = "prlimit64", .act = SECCOMP_DO_ALLOW, .arg = 1, .mask = ALL_BITS, .value = RLIMIT_CORE,
	 .also = {{2, ~0ull, 0}}},
	{.call = "prlimit64", .act = SECCOMP_DO_ERRNO, .answer = 0, .arg = 1, .mask = ALL_BITS, .value = RLIMIT_CORE,
	 .also = {{.arg = 2, .value = 0, .differs = true}}},
	{0},
};

static const struct seccomp_rule waiting[] = {
	ALLOW(alarm), ALLOW(clock_getres), ALLOW(clock_gettime), ALLOW(clock_nanosleep),
	ALLOW(epoll_create), ALLOW(epoll_create1), ALLOW(epoll_ctl), ALLOW(epoll_pwait),
	ALLOW(epoll_pwait2), ALLOW(epoll_wait), ALLOW(eventfd), ALLOW(eventfd2), ALLOW(futex),
	ALLOW(futex_waitv), ALLOW_NR(futex_wake, 454), ALLOW_NR(futex_wait, 455),
	ALLOW_NR(futex_requeue, 456), ALLOW(getitimer), ALLOW(getrandom), ALLOW(gettimeofday),
	ALLOW(nanosleep), ALLOW(pause), ALLOW(poll), ALLOW(ppoll),
	ALLOW(pselect6), ALLOW(restart_syscall), ALLOW(select), ALLOW(setitimer), ALLOW(time),
	ALLOW(timer_create), ALLOW(timer_delete), ALLOW(timer_getoverrun), ALLOW(timer_gettime),
	ALLOW(timer_settime), ALLOW(timerfd_create), ALLOW(timerfd_gettime), ALLOW(timerfd_settime),
	{0},
};

#define TYPE_BITS (ALL_BITS & ~(uint64_t)(SOCK_NONBLOCK | SOCK_CLOEXEC))
#define OF(family, type, protocol)                                                                 \
	.arg = 0, .mask = ALL_BITS, .value = (family),                                              \
	.also = {{1, TYPE_BITS, type}, {2, ALL_BITS, protocol}}
#define SOCKET(family, type, protocol)                                                             \
	{.call = "socket", .act = SECCOMP_DO_ALLOW, OF(family, type, protocol)}
#define NO_SOCKET(no, family, type, protocol)                                                      \
	{.call = "socket", .act = SECCOMP_DO_ERRNO, .answer = (no), OF(family, type, protocol)}
#define NO_RAW(family)                                                                             \
	{.call = "socket", .act = SECCOMP_DO_ERRNO, .answer = EPERM, .arg = 0, .mask = ALL_BITS,     \
	 .value = (family), .also = {{1, TYPE_BITS, SOCK_RAW}}}
#define NO_FAMILY(name, no, family)                                                                \
	{.call = #name, .act = SECCOMP_DO_ERRNO, .answer = (no), .arg = 0, .mask = ALL_BITS, .value = (family)}
#define INTERNET(family, ping)                                                                     \
	SOCKET(family, SOCK_STREAM, 0), SOCKET(family, SOCK_STREAM, IPPROTO_TCP),                   \
	SOCKET(family, SOCK_DGRAM, 0), SOCKET(family, SOCK_DGRAM, IPPROTO_UDP),                     \
	NO_SOCKET(EACCES, family, SOCK_DGRAM, ping),                                                \
	NO_SOCKET(EPROTONOSUPPORT, family, SOCK_STREAM, IPPROTO_MPTCP),                             \
	NO_SOCKET(EPROTONOSUPPORT, family, SOCK_STREAM, IPPROTO_SCTP),                              \
	NO_SOCKET(EPROTONOSUPPORT, family, SOCK_SEQPACKET, IPPROTO_SCTP),                           \
	NO_SOCKET(EPROTONOSUPPORT, family, SOCK_DGRAM, IPPROTO_UDPLITE), NO_RAW(family)

/*
 * Answers are the kernel's own for what it does not have, where libraries go on by them: resolvers ask netlink for
 * addresses, Go tries MPTCP first.
 */
static const struct seccomp_rule talking[] = {
	ALLOW_IF(socket, 0, ALL_BITS, AF_UNIX), ALLOW_IF(socketpair, 0, ALL_BITS, AF_UNIX),
	INTERNET(AF_INET, IPPROTO_ICMP), INTERNET(AF_INET6, IPPROTO_ICMPV6),
	NO_FAMILY(socket, EAFNOSUPPORT, AF_NETLINK), NO_FAMILY(socketpair, EOPNOTSUPP, AF_INET),
	NO_FAMILY(socketpair, EOPNOTSUPP, AF_INET6),
	ALLOW(accept), ALLOW(accept4), ALLOW(bind), ALLOW(connect), ALLOW(getpeername),
	ALLOW(getsockname), ALLOW(getsockopt), ALLOW(listen), ALLOW(mq_getsetattr), ALLOW(mq_notify),
	ALLOW(mq_open), ALLOW(mq_timedreceive), ALLOW(mq_timedsend), ALLOW(mq_unlink), ALLOW(msgctl),
	ALLOW(msgget), ALLOW(msgrcv), ALLOW(msgsnd), ALLOW(pipe), ALLOW(pipe2), ALLOW(recvfrom),
	ALLOW(recvmmsg), ALLOW(recvmsg), ALLOW(semctl), ALLOW(semget), ALLOW(semop), ALLOW(semtimedop),
	ALLOW(sendmmsg), ALLOW(sendmsg), ALLOW(sendto), ALLOW(setsockopt), ALLOW(shmat), ALLOW(shmctl),
	ALLOW(shmdt), ALLOW(shmget), ALLOW(shutdown),
	{0},
};

/* Known, and no. (Most would fail for want of a capability; here they fail earlier.) */
static const struct seccomp_rule refused[] = {
	DENY(mount), DENY(umount2), DENY(pivot_root), DENY(chroot), DENY(move_mount), DENY(open_tree),
	DENY(fsopen), DENY(fsconfig), DENY(fsmount), DENY(fspick), DENY(mount_setattr), DENY(setns),
	DENY(fanotify_init), DENY(fanotify_mark), DENY(name_to_handle_at), DENY(mbind),
	DENY(set_mempolicy), DENY(migrate_pages), DENY(move_pages), DENY(kcmp), DENY(vhangup),
	DENY(sethostname), DENY(setdomainname), DENY(modify_ldt), DENY(uselib), DENY(ustat),
	DENY(sysfs), DENY(_sysctl),
	/* without namespaces it is harmless (a thread of its own cwd or descriptors) */
	ALLOW_IF(unshare, 0, NEW_NS | CLONE_NEWTIME, 0),
	DENY_IF(unshare, 0, CLONE_NEWNS, CLONE_NEWNS),
	DENY_IF(unshare, 0, CLONE_NEWCGROUP, CLONE_NEWCGROUP),
	DENY_IF(unshare, 0, CLONE_NEWUTS, CLONE_NEWUTS),
	DENY_IF(unshare, 0, CLONE_NEWIPC, CLONE_NEWIPC),
	DENY_IF(unshare, 0, CLONE_NEWUSER, CLONE_NEWUSER),
	DENY_IF(unshare, 0, CLONE_NEWPID, CLONE_NEWPID),
	DENY_IF(unshare, 0, CLONE_NEWNET, CLONE_NEWNET),
	DENY_IF(unshare, 0, CLONE_NEWTIME, CLONE_NEWTIME),
	{0},
};

/* Nothing below the keeper needs these, the keeper itself included. */
static const struct seccomp_rule never[] = {
	DENY(acct), DENY(add_key), DENY(adjtimex), DENY(bpf), DENY(clock_adjtime), DENY(clock_settime),
	DENY(delete_module), DENY(finit_module), DENY(init_module), DENY(io_uring_enter),
	DENY(io_uring_register), DENY(io_uring_setup), DENY(ioperm), DENY(iopl),
	DENY(kexec_file_load), DENY(kexec_load), DENY(keyctl), DENY(lookup_dcookie), DENY(nfsservctl),
	DENY(open_by_handle_at), DENY(perf_event_open), DENY(quotactl), DENY(quotactl_fd),
	DENY(reboot), DENY(request_key), DENY(settimeofday), DENY(swapoff), DENY(swapon), DENY(syslog),
	DENY(userfaultfd),
	{0},
};

static const struct seccomp_rule *const workload_tables[] = {
	files, memory, processes, limits, waiting, talking, refused, never, NULL,
};

const struct seccomp_policy seccomp_workload = {
	.name = "workload",
	.otherwise = SECCOMP_DO_ERRNO,
	.otherwise_answer = ENOSYS,
	.tables = workload_tables,
};

static const struct seccomp_rule *const keeper_tables[] = {never, NULL};

const struct seccomp_policy seccomp_keeper = {
	.name = "keeper",
	.otherwise = SECCOMP_DO_ALLOW,
	.tables = keeper_tables,
};
