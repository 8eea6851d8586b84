/* image/tool.c - child processes with a folder, a lifeline and a memory of what they said last */
#include "image/tool.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/progress.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum {
	LINE_MAX_BYTES = 300,
	ENV_MAX = 1024,
	READ_BYTES = 4096,
	EXIT_NO_EXEC = 126,
	FULL_BELOW_BYTES = 8 << 20, /* less than this is free: the disk is what failed */
	GRACE_MS = 10000,	    /* for a tool that was told to end */
};

#define TEMPORARY ".temporary" /* in the tool's folder: gone after it, however it ended */

/* mke2fs, depmod and others live in sbin, which is not in everybody's PATH. */
#define SBIN ":/usr/local/sbin:/usr/sbin:/sbin"

static const struct {
	const char *program, *package;
} packages[] = {
	{ "apt-get", "apt" },           { "apt-cache", "apt" },    { "apt-config", "apt" },
	{ "dpkg-deb", "dpkg" },         { "depmod", "kmod" },      { "gzip", "gzip" },
	{ "xz", "xz-utils" },           { "lz4", "lz4" },          { "zstd", "zstd" },
	{ "mmdebstrap", "mmdebstrap" }, { "mke2fs", "e2fsprogs" }, { "newuidmap", "uidmap" },
	{ "fakeroot", "fakeroot" },     { "tar", "tar" },          { "sh", "dash" },
};

/* What a running child is seen through. */
struct run {
	const struct tool *tool;
	pid_t pid;
	int out_fd, err_fd; /* our ends; -1 once they ended */
	char line[LINE_MAX_BYTES],
		last[LINE_MAX_BYTES]; /* of standard error: being read, worth telling */
	size_t line_n;
	bool last_is_error;
	uint64_t kill_ns; /* when it is killed; 0: nobody told it to end */
};

/* ---- interruption ---- */

static const int signals[TOOL_SIGNALS] = { SIGINT, SIGTERM, SIGHUP };
static volatile sig_atomic_t interrupted; /* by this signal */

static void on_interrupt(int signo)
{
	interrupted = signo;
}

void tool_signals_take(struct tool_signals *s)
{
	struct sigaction ours = { .sa_handler = on_interrupt };

	interrupted = 0;
	for (size_t i = 0; i < ARRAY_LEN(signals); i++) {
		(void)sigaction(signals[i], NULL, &s->before[i]);
		if (s->before[i].sa_handler != SIG_IGN)
			(void)sigaction(signals[i], &ours, NULL);
	}
}

void tool_signals_return(const struct tool_signals *s)
{
	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		(void)sigaction(signals[i], &s->before[i], NULL);
}

static int say_interrupted(struct err *e)
{
	return err_set(e, ERR_CANCELED, "interrupted by signal %d (%s); nothing of it is left",
		       (int)interrupted, strsignal((int)interrupted));
}

/* In the child: a part of it waits and never becomes another program. */
static void forget_signals(void)
{
	struct sigaction now;

	for (size_t i = 0; i < ARRAY_LEN(signals); i++)
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler == on_interrupt)
			(void)signal(signals[i], SIG_DFL);
}

/* Most tools tidy up when they are told to end. */
static void pass_on(struct run *run)
{
	if (!interrupted)
		return;
	if (!run->kill_ns) {
		(void)kill(run->pid, SIGTERM);
		run->kill_ns = sys_now_ns() + GRACE_MS * NS_PER_MS;
	} else if (sys_now_ns() > run->kill_ns) {
		(void)kill(run->pid, SIGKILL);
	}
}

/* ---- the child ---- */

static char *search_path(void)
{
	const char *path = getenv("PATH");
	char *ret;

	return asprintf(&ret, "%s%s", path && *path ? path : "/usr/local/bin:/usr/bin:/bin", SBIN) <
			       0
		       ? NULL
		       : ret;
}

/* Where the program is, or NULL. */
static char *find_program(const char *name)
{
	AUTO_FREE char *path = search_path();
	char *save = NULL, *file;

	for (char *dir = path ? strtok_r(path, ":", &save) : NULL; dir;
	     dir = strtok_r(NULL, ":", &save)) {
		if (asprintf(&file, "%s/%s", dir, name) < 0)
			return NULL;
		if (access(file, X_OK) == 0)
			return file;
		free(file);
	}
	return NULL;
}

static const char *package_of(const char *program)
{
	for (size_t i = 0; i < ARRAY_LEN(packages); i++)
		if (strcmp(packages[i].program, program) == 0)
			return packages[i].package;
	return program;
}

int tool_need(const char *const *programs, size_t n, struct err *e)
{
	struct str names = STR_INIT(ERR_TEXT_MAX / 4), install = STR_INIT(ERR_TEXT_MAX / 4);
	int r = 0;

	for (size_t i = 0; i < n; i++) {
		AUTO_FREE char *file = find_program(programs[i]);

		if (file)
			continue;
		str_addf(&names, "%s%s", names.len ? ", " : "", programs[i]);
		if (!strstr(str_text(&install), package_of(programs[i])))
			str_addf(&install, " %s", package_of(programs[i]));
	}
	if (names.len)
		r = err_set(e, ERR_UNSUPPORTED, "%s: not installed; run: apt-get install%s",
			    str_text(&names), str_text(&install));
	str_deinit(&names);
	str_deinit(&install);
	return r;
}

/* The child's environment: ours, then these, then the tool's; a later NAME replaces an earlier one.
 */
static void set_env(const char *const *env)
{
	AUTO_FREE char *path = search_path();

	if (path)
		(void)setenv("PATH", path, 1);
	(void)setenv("LC_ALL", "C.UTF-8", 1);
	(void)setenv("DEBIAN_FRONTEND", "noninteractive", 1);
	for (; env && *env; env++)
		(void)putenv((char *)(uintptr_t)*env);
}

/* What a tool that is killed leaves in its TMPDIR goes with the folder. The kernel's path of it is absolute. */
static void set_temporary(void)
{
	AUTO_FREE char *cwd = getcwd(NULL, 0);
	AUTO_FREE char *path = NULL;

	if (cwd && asprintf(&path, "%s/" TEMPORARY, cwd) > 0)
		(void)setenv("TMPDIR", path, 1);
}

static int null_fd(void)
{
	return sys_open("/dev/null", O_RDWR);
}

static int reap(pid_t pid)
{
	int status, r;

	do
		r = waitpid(pid, &status, 0);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -1 : status;
}

[[gnu::noreturn]] static void give_up(const char *what)
{
	(void)dprintf(STDERR_FILENO, "E: %s: %s\n", what, strerror(errno));
	_exit(EXIT_NO_EXEC);
}

/* Wait for @pid and end as it did, as far as an exit status can tell. */
[[gnu::noreturn]] static void end_like(pid_t pid)
{
	int status = reap(pid);

	if (WIFSIGNALED(status))
		(void)raise(WTERMSIG(status));
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_NO_EXEC);
}

/*
 * The first process of a new process namespace goes on; we stay outside and wait for it.
 * When the caller dies we are killed, then the first process is, and with it every other.
 */
static void contain(void)
{
	pid_t pid;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || unshare(CLONE_NEWNS | CLONE_NEWPID) < 0 ||
	    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		give_up("get namespaces of its own");
	pid = fork();
	if (pid < 0)
		give_up("fork");
	if (pid > 0)
		end_like(pid);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
	    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		give_up("mount /proc");
}

[[gnu::noreturn]] static void child(const struct tool *t, const char *file, pid_t parent, int out,
				    int err)
{
	int in = t->stdin_fd >= 0 ? sys_dup(t->stdin_fd) : null_fd();

	forget_signals();
	/* SIGTERM, not SIGKILL: mmdebstrap passes it on to what runs in its root. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != parent)
		_exit(EXIT_NO_EXEC);
	if (out < 0)
		out = t->stdout_fd >= 0 ? sys_dup(t->stdout_fd) : null_fd();
	if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
		_exit(EXIT_NO_EXEC);
	if (fchdir(t->cwd_fd) < 0 || (t->lock_fd >= 0 && sys_inherit(t->lock_fd) < 0))
		give_up("enter the folder");
	if (t->is_contained)
		contain();
	(void)umask(022);
	if (t->is_contained)
		set_temporary();
	set_env(t->env);
	execv(file, (char *const *)(uintptr_t)t->argv);
	give_up(file);
}

static int start(struct run *run, const char *file, struct err *e)
{
	int out[2] = { -1, -1 }, err[2] = { -1, -1 };
	pid_t parent = getpid();
	int r = sys_pipe(err);

	if (r == 0 && run->tool->output)
		r = sys_pipe(out);
	if (r == 0) {
		run->pid = fork();
		if (run->pid == 0)
			child(run->tool, file, parent, out[1], err[1]);
		r = run->pid < 0 ? -errno : 0;
	}
	sys_close(out[1]);
	sys_close(err[1]);
	run->out_fd = out[0];
	run->err_fd = err[0];
	return r < 0 ? err_sys(e, r, "start %s", run->tool->argv[0]) : 0;
}

/* Remember the last line, but the first that names an error: what follows are its consequences. */
static void end_line(struct run *run)
{
	bool is_error = str_starts(run->line, "E:") || strstr(run->line, "rror: ");

	run->line[run->line_n] = '\0';
	run->line_n = 0;
	if (!run->line[0])
		return;
	if (run->tool->on_line)
		run->tool->on_line(run->tool->progress, run->line);
	if (run->last_is_error)
		return;
	memcpy(run->last, run->line, sizeof(run->last));
	run->last_is_error = is_error;
}

static void take_err(struct run *run, const char *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] == '\n' || p[i] == '\r') {
			run->line[run->line_n] = '\0';
			end_line(run);
		} else if (run->line_n < sizeof(run->line) - 1) {
			run->line[run->line_n++] = p[i];
		}
}

/* Read what there is; at its end close *fd. */
static void drain(struct run *run, int *fd)
{
	char buf[READ_BYTES];
	ssize_t n = sys_read(*fd, buf, sizeof(buf));

	if (n <= 0)
		*fd = sys_close(*fd);
	else if (fd == &run->err_fd)
		take_err(run, buf, (size_t)n);
	else
		str_add_mem(run->tool->output, buf, (size_t)n);
}

static void watch(struct run *run)
{
	int *fds[] = { &run->err_fd, &run->out_fd };
	struct pollfd p[ARRAY_LEN(fds)];

	while (run->err_fd >= 0 || run->out_fd >= 0) {
		for (size_t i = 0; i < ARRAY_LEN(fds); i++)
			p[i] = (struct pollfd){ .fd = *fds[i], .events = POLLIN };
		(void)poll(p, ARRAY_LEN(fds), PROGRESS_EVERY_MS);
		for (size_t i = 0; i < ARRAY_LEN(fds); i++)
			if (p[i].revents)
				drain(run, fds[i]);
		pass_on(run);
		progress_tick(run->tool->progress);
	}
	if (run->line_n)
		end_line(run);
}

static bool is_full(int fd)
{
	struct statvfs v;

	return fstatvfs(fd, &v) == 0 && (uint64_t)v.f_bavail * v.f_frsize < FULL_BELOW_BYTES;
}

static int complain(const struct run *run, int status, struct err *e)
{
	const char *name = run->tool->argv[0];
	struct str said = STR_INIT(ERR_TEXT_MAX);
	int r;

	str_add_escaped(&said, run->last, strlen(run->last));
	if (is_full(run->tool->cwd_fd))
		r = err_set(e, ERR_LIMIT,
			    "the disk with the state directory is full; free some space and run it "
			    "again");
	else if (WIFSIGNALED(status))
		r = err_set(e, ERR_INTERNAL, "%s was killed by signal %d (%s)", name,
			    WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		r = err_set(e, ERR_INTERNAL, "%s failed with exit status %d: %s", name,
			    WEXITSTATUS(status), said.len ? str_text(&said) : "it did not say why");
	str_deinit(&said);
	return r;
}

static int run_program(const struct tool *t, const char *file, struct err *e)
{
	struct run run = { .tool = t, .out_fd = -1, .err_fd = -1 };
	int status, r = interrupted ? say_interrupted(e) : start(&run, file, e);

	if (r < 0) {
		sys_close(run.out_fd);
		sys_close(run.err_fd);
		return r;
	}
	watch(&run);
	status = reap(run.pid);
	if (interrupted)
		return say_interrupted(e);
	if (status != 0)
		return complain(&run, status, e);
	if (t->output && t->output->failed)
		return err_set(e, ERR_LIMIT, "%s wrote more than %d bytes", t->argv[0],
			       TOOL_OUTPUT_MAX);
	return 0;
}

/* Open to all, as /tmp is: apt gives its own work to a user of its own. */
static int make_temporary(int cwd_fd, struct err *e)
{
	int r = sys_remove_tree(cwd_fd, TEMPORARY);

	if (r == 0)
		r = sys_mkdir(cwd_fd, TEMPORARY, 01777);
	if (r == 0 && fchmodat(cwd_fd, TEMPORARY, 01777, 0) < 0)
		r = -errno;
	return r < 0 ? err_sys(e, r, "make a folder for temporary files") : 0;
}

int tool_run(const struct tool *t, struct err *e)
{
	AUTO_FREE char *file = find_program(t->argv[0]);
	int r;

	if (!file)
		return tool_need(&t->argv[0], 1, e);
	r = t->is_contained ? make_temporary(t->cwd_fd, e) : 0;
	if (r == 0)
		r = run_program(t, file, e);
	if (t->is_contained)
		(void)sys_remove_tree(t->cwd_fd, TEMPORARY);
	return r;
}
