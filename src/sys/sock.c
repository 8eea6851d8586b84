/* sys/sock.c - Unix sockets */
#include "sys/sock.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include "sys/fault.h"
#include "sys/fd.h"

enum { BACKLOG = 128 };

int sys_socketpair(int ret[2])
{
	int r = sys_fault();

	if (r)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) < 0)
		return -errno;
	return 0;
}

static int address(const char *path, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (strlen(path) >= sizeof(ret->sun_path))
		return -ENAMETOOLONG;
	memcpy(ret->sun_path, path, strlen(path) + 1);
	return 0;
}

int sys_unix_listen(const char *path, mode_t mode)
{
	struct sockaddr_un sa;
	AUTO_CLOSE int fd = -1;
	int r = sys_fault();

	if (r == 0)
		r = address(path, &sa);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = sys_unlink(AT_FDCWD, path);
	if (r < 0)
		return r;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, mode) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return -errno;
	return take_fd(&fd);
}

int sys_unix_connect(const char *path)
{
	struct sockaddr_un sa;
	AUTO_CLOSE int fd = -1;
	int r = sys_fault();

	if (r == 0)
		r = address(path, &sa);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	do
		r = connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ? -errno : 0;
	while (r == -EINTR);
	if (r == 0)
		r = sys_nonblock(fd, true);
	return r < 0 ? r : take_fd(&fd);
}

int sys_accept(int fd)
{
	int r = sys_fault();

	if (r)
		return r;
	do
		r = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	while (r < 0 && (errno == EINTR || errno == ECONNABORTED));
	return r < 0 ? -errno : r;
}

ssize_t sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(SYS_FDS_MAX * sizeof(int))];
	} control = {0};
	struct msghdr m = {.msg_iov = (struct iovec *)iov, .msg_iovlen = n_iov};
	ssize_t r = sys_fault();

	if (r)
		return r;
	if (n_fds > SYS_FDS_MAX)
		return -EINVAL;
	if (n_fds) {
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		control.head.cmsg_level = SOL_SOCKET;
		control.head.cmsg_type = SCM_RIGHTS;
		control.head.cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(&control.head), fds, n_fds * sizeof(int));
	}
	do
		r = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* Collect descriptors; what does not fit is closed, and that is an error. */
static int collect(struct msghdr *m, int *fds, unsigned max, unsigned *ret_n)
{
	unsigned n = 0;
	int r = m->msg_flags & MSG_CTRUNC ? -EPROTO : 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		size_t count;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
			if (n < max) {
				fds[n++] = fd;
				continue;
			}
			(void)sys_close(fd);
			r = -EPROTO;
		}
	}
	if (r < 0)
		while (n)
			(void)sys_close(fds[--n]);
	*ret_n = n;
	return r;
}

ssize_t sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(SYS_FDS_MAX * sizeof(int))];
	} control;
	struct iovec iov = {p, n};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &control,
			   .msg_controllen = sizeof(control)};
	unsigned max = *n_fds;
	ssize_t r = sys_fault();
	int c;

	*n_fds = 0;
	if (r)
		return r;
	do
		r = recvmsg(fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	c = collect(&m, fds, max, n_fds);
	return c < 0 ? c : r;
}

int sys_peer(int fd, pid_t *ret_pid, uid_t *ret_uid)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int r = sys_fault();

	if (r)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return -errno;
	*ret_pid = cred.pid;
	*ret_uid = cred.uid;
	return 0;
}
