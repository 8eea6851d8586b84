/* guest/process_start.c - first process of a process sandbox */
#include "guest/process_start.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "loop/link.h"
#include "sys/fd.h"

enum {
	LINK_FD = 3,
	FILTER_FD = 4,
	CGROUP_FD = 5,
	OOM_FD = 6,
	FILTER_MAX = 4096, /* instructions; the kernel's BPF_MAXINSNS */
	LAST_CAPABILITY = 63,
};

/* The link may be opened again after a broken one, until the host's end is closed. */
static int open_link(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char byte;
	ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);

	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		return -EPIPE;
	return sys_dup(fd);
}

/* By position: the keeper lends the same open file to every agent, and so its offset. */
static int read_at_start(void *p, size_t n)
{
	for (size_t done = 0; done < n;) {
		ssize_t r = sys_pread(FILTER_FD, (char *)p + done, n - done, done);

		if (r <= 0)
			return r < 0 ? (int)r : -EIO;
		done += (size_t)r;
	}
	return 0;
}

static int read_filter(struct sock_fprog *ret, struct err *e)
{
	struct stat st;
	size_t n;
	int r;

	if (fstat(FILTER_FD, &st) < 0)
		return err_sys(e, -errno, "descriptor 4 (the system call filter)");
	n = (size_t)st.st_size / sizeof(struct sock_filter);
	if (st.st_size <= 0 || (size_t)st.st_size % sizeof(struct sock_filter) || n > FILTER_MAX)
		return err_set(e, ERR_INVALID, "descriptor 4 holds no system call filter (%lld bytes)",
			       (long long)st.st_size);
	ret->filter = mem_new(n * sizeof(struct sock_filter));
	ret->len = (unsigned short)n;
	r = read_at_start(ret->filter, n * sizeof(struct sock_filter));
	if (r == 0)
		return 0;
	free(ret->filter);
	return err_sys(e, r, "read the system call filter");
}

static int close_on_exec(int fd)
{
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

/* Nothing that is executed from here on can have a capability; what we have, we keep. */
static int empty_bounding_set(void)
{
	for (int cap = 0; cap <= LAST_CAPABILITY; cap++)
		if (prctl(PR_CAPBSET_DROP, cap) < 0)
			return errno == EINVAL && cap ? 0 : -errno; /* the kernel's last was before */
	return 0;
}

int process_start(struct agent_config *ret, struct err *e)
{
	*ret = (struct agent_config){
		.cgroup_fd = -1,
		.oom_fd = -1,
		.proc_fd = -1,
		.log_fd = -1,
		.link_flags = LINK_SOCKET,
		.walls.on = true,
		.open_link = open_link,
		.arg = (void *)(intptr_t)LINK_FD,
	};
	int r = close_on_exec(LINK_FD);

	if (r < 0)
		return err_sys(e, r, "descriptor 3 (the link): start me from the keeper");
	r = read_filter(&ret->walls.filter, e);
	if (r < 0)
		return r;
	(void)close(FILTER_FD);
	if (close_on_exec(CGROUP_FD) == 0)
		ret->cgroup_fd = CGROUP_FD;
	if (close_on_exec(OOM_FD) == 0)
		ret->oom_fd = OOM_FD;
	/* The newborn children share our memory for a moment: nobody may look into it. */
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)umask(022);
	r = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : empty_bounding_set();
	if (r < 0)
		return err_sys(e, r, "give up capabilities for good");
	ret->proc_fd = sys_open("/proc", O_RDONLY | O_DIRECTORY);
	if (ret->proc_fd < 0)
		return err_sys(e, ret->proc_fd, "/proc");
	ret->log_fd = sys_dup(STDERR_FILENO);
	return 0;
}
