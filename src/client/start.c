/* client/start.c - start the daemon in the background */
#include "client/start.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "client/place.h"
#include "sys/fd.h"

enum { READY_FD = 3, TAIL_BYTES = 360, LOG_MODE = 0640 };

/* Descriptors 0 to 3 as the daemon wants them; every other one is closed. */
static int arrange(int log_fd, int ready_fd)
{
	int null_fd = open("/dev/null", O_RDWR);
	int from[] = {null_fd, log_fd, log_fd, ready_fd};

	/* Above 3 first, so that no dup2() overwrites what a later one needs. */
	for (size_t i = 0; i < ARRAY_LEN(from); i++) {
		from[i] = fcntl(from[i], F_DUPFD, READY_FD + 1);
		if (from[i] < 0)
			return -1;
	}
	for (size_t i = 0; i < ARRAY_LEN(from); i++)
		if (dup2(from[i], (int)i) < 0)
			return -1;
	return close_range(READY_FD + 1, ~0u, 0);
}

/* The caller may block or ignore signals; the daemon starts with none of that. */
static void fresh_signals(void)
{
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		(void)signal(s, SIG_DFL);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* In the child of a possibly threaded program: only async-signal-safe calls. */
static _Noreturn void become_daemon(const char *program, const char *const *argv, int log_fd, int ready_fd)
{
	static const char no_exec[] = "hotcelld: cannot be executed\n";

	if (setsid() < 0 || fork() != 0)
		_exit(0); /* the daemon is the grandchild: nobody here needs to reap it */
	fresh_signals();
	(void)umask(022);
	if (arrange(log_fd, ready_fd) == 0)
		(void)execv(program, (char *const *)argv);
	(void)!write(STDERR_FILENO, no_exec, sizeof(no_exec) - 1);
	_exit(127);
}

static int open_log(const struct place *p, uint64_t *ret_size, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int r = place_claim(p->run, "HOTCELL_RUN", e);

	if (r < 0)
		return r;
	fd = sys_create(p->log, O_WRONLY | O_APPEND | O_NOFOLLOW, LOG_MODE);
	if (fd < 0)
		return err_sys(e, fd, "open the daemon's log %s", p->log);
	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at the daemon's log %s", p->log);
	*ret_size = (uint64_t)st.st_size;
	return take_fd(&fd);
}

int start_daemon(const struct place *p, int *ret_ready_fd, uint64_t *ret_log_start, struct err *e)
{
	char program[PLACE_PATH + 64];
	AUTO_CLOSE int log_fd = -1, ready_r = -1, ready_w = -1;
	char state[PLACE_PATH];
	/* As arguments, so that they tell whoever looks at processes which daemon it is. */
	const char *const argv[] = {"hotcelld", "--state", state, "--run", p->run, "--ready-fd", "3", NULL};
	int ends[2], r = place_program("hotcelld", program, sizeof(program), e);
	pid_t pid;

	if (r == 0)
		r = place_state(state, sizeof(state), e);
	if (r < 0)
		return r;
	log_fd = open_log(p, ret_log_start, e);
	if (log_fd < 0)
		return log_fd;
	r = sys_pipe(ends);
	if (r < 0)
		return err_sys(e, r, "start %s: pipe", program);
	ready_r = ends[0];
	ready_w = ends[1];
	pid = fork();
	if (pid == 0)
		become_daemon(program, argv, log_fd, ready_w);
	if (pid < 0)
		return err_sys(e, -errno, "start %s: fork", program);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	*ret_ready_fd = take_fd(&ready_r);
	return 0;
}

void start_log_tail(const struct place *p, uint64_t log_start, char *ret, size_t size)
{
	AUTO_CLOSE int fd = sys_open(p->log, O_RDONLY);
	struct str text = STR_INIT(8 * TAIL_BYTES);
	char tail[TAIL_BYTES];
	struct stat st;
	ssize_t n = 0;

	if (fd >= 0 && fstat(fd, &st) == 0 && st.st_size > 0 && (uint64_t)st.st_size != log_start) {
		uint64_t end = (uint64_t)st.st_size;

		if (end < log_start) /* it was full and has started again (sys/logfile.h) */
			log_start = 0;
		n = sys_pread(fd, tail, sizeof(tail),
			      end - log_start > sizeof(tail) ? end - sizeof(tail) : log_start);
	}
	while (n > 0 && tail[n - 1] == '\n')
		n--;
	for (ssize_t i = 0; i < n; i++) {
		if (tail[i] == '\n')
			str_add(&text, " | ");
		else if (str_utf8_len(tail + i, 1) == 1)
			str_add_escaped(&text, tail + i, 1);
		else
			str_add(&text, "?");
	}
	(void)snprintf(ret, size, "%s", str_text(&text));
	str_deinit(&text);
}
