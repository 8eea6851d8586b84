/*
 * guest/spawn_child.c - between clone and exec
 *
 * The code in here runs in the agent's memory while the agent runs too. So it
 * calls the kernel directly, never the C library (whose errno belongs to the
 * agent), allocates nothing, and writes only to its own stack.
 */
#include "guest/spawn_child.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/macro.h"

enum { FILES_SOFT = 1024, PROGRAM_PATH_MAX = 4096, EXEC_FAILED = 127, TALK_FD = 3 };

#if defined(__x86_64__)
#define SHARED_MEMORY CLONE_VM

static long call(long nr, long a, long b, long c, long d, long e)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
			 : "rcx", "r11", "memory");
	return ret;
}

/* clone3 whose child goes to @start(@arg) on the stack named in @args and never comes back. */
static long clone_onto(struct clone_args *args, void (*start)(struct child *), struct child *arg)
{
	long ret;

	__asm__ volatile("syscall\n\t"
			 "test %%rax, %%rax\n\t"
			 "jnz 1f\n\t"
			 "xor %%ebp, %%ebp\n\t"
			 "mov %[arg], %%rdi\n\t"
			 "call *%[start]\n\t"
			 "hlt\n"
			 "1:"
			 : "=a"(ret)
			 : "a"((long)SYS_clone3), "D"(args), "S"(sizeof(*args)), [start] "r"(start),
			   [arg] "r"(arg)
			 : "rcx", "r11", "memory");
	return ret;
}
#else
#define SHARED_MEMORY 0 /* elsewhere the child gets a copy, and its own errno with it */

static long call(long nr, long a, long b, long c, long d, long e)
{
	long ret = syscall(nr, a, b, c, d, e);

	return ret < 0 ? -errno : ret;
}

static long clone_onto(struct clone_args *args, void (*start)(struct child *), struct child *arg)
{
	long ret;

	args->stack = args->stack_size = 0;
	ret = syscall(SYS_clone3, args, sizeof(*args));
	if (ret == 0)
		start(arg);
	return ret < 0 ? -errno : ret;
}
#endif

#define CALL(nr, ...) CALL_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0)
#define CALL_(nr, a, b, c, d, e, ...)                                                              \
	call(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

static void report(const struct child *c, enum child_stage stage, long error)
{
	struct child_report say = {(uint32_t)stage, (int32_t)error};

	(void)CALL(SYS_write, c->report_fd, &say, sizeof(say));
}

/* In shared memory if possible: a report now would wake the agent for nothing. */
static void say_alive(struct child *c)
{
	c->own_pid = (pid_t)CALL(SYS_getpid);
	if (!SHARED_MEMORY)
		report(c, CHILD_ALIVE, c->own_pid);
}

static long take_terminal(const struct child *c)
{
	long r = CALL(SYS_setsid);

	return r < 0 || !c->pty ? r : CALL(SYS_ioctl, c->fds[0], TIOCSCTTY, 0);
}

static long take_descriptors(struct child *c)
{
	long r = 0;

	for (int i = 0; i < 3 && r >= 0; i++)
		r = CALL(SYS_dup3, c->fds[i], i, 0);
	if (r >= 0) /* all of ours have the flag; this is for the one that was forgotten */
		r = CALL(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
	if (r >= 0 && c->talk_fd && c->report_fd == TALK_FD) /* it has our number: move it */
		r = c->report_fd = (int)CALL(SYS_fcntl, TALK_FD, F_DUPFD_CLOEXEC, TALK_FD + 1);
	if (r >= 0 && c->talk_fd == TALK_FD)
		r = CALL(SYS_fcntl, TALK_FD, F_SETFD, 0);
	else if (r >= 0 && c->talk_fd)
		r = CALL(SYS_dup3, c->talk_fd, TALK_FD, 0);
	return r;
}

/* The agent's own limits are generous; programs get the customary ones. */
static long take_limits(bool walls)
{
	struct rlimit files, core = {walls, RLIM_INFINITY}; /* 1: the host runs no handler of core files either */
	long r = CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &files);

	files.rlim_cur = MIN(files.rlim_max, (rlim_t)FILES_SOFT);
	if (r >= 0)
		r = CALL(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, NULL);
	if (r >= 0)
		r = CALL(SYS_prlimit64, 0, RLIMIT_CORE, NULL, &files);
	core.rlim_max = files.rlim_max;
	if (r >= 0)
		r = CALL(SYS_prlimit64, 0, RLIMIT_CORE, &core, NULL);
	(void)CALL(SYS_umask, 022);
	return r;
}

static long become_user(const struct child *c)
{
	long r = CALL(SYS_setgroups, c->n_groups, c->groups);

	if (r >= 0)
		r = CALL(SYS_setresgid, c->gid, c->gid, c->gid);
	if (r >= 0)
		r = CALL(SYS_setresuid, c->uid, c->uid, c->uid);
	return r;
}

static long enter_cwd(const struct child *c)
{
	long r = CALL(SYS_chdir, c->cwd);

	return r < 0 && c->cwd_may_fail ? CALL(SYS_chdir, "/") : r;
}

static long raise_walls(const struct child *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};
	long r;

	if (!c->walls)
		return 0;
	r = CALL(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (r >= 0)
		r = CALL(SYS_capset, &head, none);
	/* no_new_privs and an empty bounding set come from the agent, which never executes anything. */
	if (r >= 0 && c->filter->len)
		r = CALL(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, c->filter);
	return r;
}

/* "dir/name" into @out; false when it does not fit. Empty @dir means here. */
static bool join(char *out, const char *dir, size_t n, const char *name)
{
	size_t len = strlen(name);

	if (n + len + 2 > PROGRAM_PATH_MAX)
		return false;
	memcpy(out, dir, n);
	if (n)
		out[n++] = '/';
	memcpy(out + n, name, len + 1);
	return true;
}

/* As execvpe(3) searches: permission trouble is remembered, the search goes on. */
static long execute(const struct child *c)
{
	char path[PROGRAM_PATH_MAX];
	long r, worst = -ENOENT;

	if (strchr(c->argv[0], '/'))
		return CALL(SYS_execve, c->argv[0], c->argv, c->envp);
	for (const char *dir = c->path; dir && c->argv[0][0];) {
		const char *end = strchr(dir, ':');

		if (join(path, dir, end ? (size_t)(end - dir) : strlen(dir), c->argv[0])) {
			r = CALL(SYS_execve, path, c->argv, c->envp);
			if (r == -EACCES)
				worst = r;
			else if (r != -ENOENT && r != -ENOTDIR)
				return r;
		}
		dir = end ? end + 1 : NULL;
	}
	return worst;
}

static void run(struct child *c)
{
	uint64_t no_signals = 0;
	enum child_stage stage = CHILD_TERMINAL;
	long r;

	say_alive(c);
	r = take_terminal(c);
	if (r >= 0 && (stage = CHILD_DESCRIPTORS))
		r = take_descriptors(c);
	if (r >= 0 && (stage = CHILD_LIMITS))
		r = take_limits(c->walls);
	if (r >= 0 && (stage = CHILD_USER))
		r = become_user(c);
	if (r >= 0 && (stage = CHILD_CWD)) /* as the user: their permissions count */
		r = enter_cwd(c);
	(void)CALL(SYS_rt_sigprocmask, SIG_SETMASK, &no_signals, NULL, sizeof(no_signals));
	if (r >= 0 && (stage = CHILD_WALLS))
		r = raise_walls(c);
	if (r >= 0 && (stage = CHILD_EXEC))
		r = execute(c);
	report(c, stage, r);
	(void)CALL(SYS_exit_group, EXEC_FAILED);
}

pid_t child_clone(struct child *c, void *stack, size_t size, int cgroup_fd)
{
	struct clone_args args = {
		.flags = SHARED_MEMORY | (cgroup_fd >= 0 ? CLONE_INTO_CGROUP : 0),
		.exit_signal = SIGCHLD,
		.stack = (uintptr_t)stack,
		.stack_size = size,
		.cgroup = cgroup_fd >= 0 ? (uint64_t)cgroup_fd : 0,
	};

	return (pid_t)clone_onto(&args, run, c);
}
