/* sys/sock.h - Unix sockets, descriptors over them, peer credentials. Any thread. */
#pragma once
#include <stdint.h>
#include <sys/types.h>

enum { SYS_FDS_MAX = 16 };		/* descriptors in one message */

struct iovec;

int sys_socketpair(int ret[2]);		/* stream, close-on-exec, non-blocking */
/* Bind and listen at @path (an old socket there is replaced), mode @mode. Returns a descriptor. */
int sys_unix_listen(const char *path, mode_t mode);
int sys_unix_connect(const char *path);	/* blocking connect, then non-blocking descriptor */
int sys_accept(int fd);			/* non-blocking; -EAGAIN when none waits */

/* Without blocking and without SIGPIPE; @fds (at most SYS_FDS_MAX) go with the first byte. */
ssize_t sys_send(int fd, const struct iovec *iov, unsigned n_iov, const int *fds, unsigned n_fds);

/*
 * Without blocking. Up to *n_fds received descriptors land in @fds (given, close-on-exec) and
 * *n_fds becomes their number. More than that, or a cut control message: -EPROTO, none kept.
 */
ssize_t sys_recv(int fd, void *p, size_t n, int *fds, unsigned *n_fds);

int sys_peer(int fd, pid_t *ret_pid, uid_t *ret_uid); /* SO_PEERCRED */
