/* sys/t_sock.c - sockets, descriptors over them, clocks */
#include "sys/sock.h"
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include "base/testing.h"
#include "sys/clock.h"
#include "sys/fault.h"
#include "sys/fd.h"

static ssize_t send_text(int fd, const char *text, const int *fds, unsigned n)
{
	struct iovec iov = { (char *)text, strlen(text) };

	return sys_send(fd, &iov, 1, fds, n);
}

static void descriptors_pass_and_close_on_exec(void **state)
{
	int pair[2], zero[SYS_FDS_MAX + 1], got[SYS_FDS_MAX];
	unsigned n = SYS_FDS_MAX;
	char text[8];

	T_UNUSED(state);
	assert_int_equal(sys_socketpair(pair), 0);
	for (int i = 0; i <= SYS_FDS_MAX; i++)
		zero[i] = i % 3;
	assert_int_equal(send_text(pair[0], "hi", zero, SYS_FDS_MAX), 2);
	assert_int_equal(sys_recv(pair[1], text, sizeof(text), got, &n), 2);
	assert_int_equal(n, SYS_FDS_MAX);
	while (n) {
		assert_int_equal(fcntl(got[--n], F_GETFD), FD_CLOEXEC);
		(void)sys_close(got[n]);
	}
	n = SYS_FDS_MAX;
	assert_int_equal(sys_recv(pair[1], text, sizeof(text), got, &n), -EAGAIN);
	assert_int_equal(n, 0);
	assert_int_equal(send_text(pair[0], "hi", zero, SYS_FDS_MAX + 1), -EINVAL);
	(void)sys_close(pair[0]);
	assert_int_equal(sys_recv(pair[1], text, sizeof(text), got, &n), 0);
	assert_int_equal(send_text(pair[1], "hi", NULL, 0), -EPIPE); /* and no SIGPIPE */
	(void)sys_close(pair[1]);
}

/* More than asked for, more than fits: none kept, none leaked. */
static void too_many_descriptors_are_refused_and_closed(void **state)
{
	union {
		struct cmsghdr head;
		char space[CMSG_SPACE(100 * sizeof(int))];
	} control = { 0 };
	char byte = 'x', text[8];
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	int pair[2], got[8];
	unsigned n;

	T_UNUSED(state);
	assert_int_equal(sys_socketpair(pair), 0);
	control.head.cmsg_level = SOL_SOCKET;
	control.head.cmsg_type = SCM_RIGHTS;
	control.head.cmsg_len = CMSG_LEN(100 * sizeof(int)); /* a hundred times descriptor 0 */
	assert_int_equal(sendmsg(pair[0], &m, 0), 1);
	n = 8;
	assert_int_equal(sys_recv(pair[1], text, sizeof(text), got, &n), -EPROTO);
	assert_int_equal(n, 0);
	for (unsigned max = 0; max < 3; max++) {
		assert_int_equal(send_text(pair[0], "hi", (int[]){ 0, 1, 2 }, 3), 2);
		n = max;
		assert_int_equal(sys_recv(pair[1], text, sizeof(text), got, &n), -EPROTO);
		assert_int_equal(n, 0);
	}
	(void)sys_close(pair[0]);
	(void)sys_close(pair[1]);
}

static void descriptors_never_received_are_not_leaked(void **state)
{
	int pair[2];

	T_UNUSED(state);
	assert_int_equal(sys_socketpair(pair), 0);
	assert_int_equal(send_text(pair[0], "hi", (int[]){ 0, 1 }, 2), 2);
	(void)sys_close(pair[0]);
	(void)sys_close(pair[1]);
}

static void listeners_accept_and_know_their_peer(void **state)
{
	char dir[] = "/tmp/hotcell-t_sock.XXXXXX", path[64], longer[200];
	int l, a, b;
	struct stat st;
	pid_t pid;
	uid_t uid;

	T_UNUSED(state);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(sys_unix_listen(longer, 0600), -ENAMETOOLONG);
	assert_int_equal(sys_unix_connect(longer), -ENAMETOOLONG);
	assert_int_equal(sys_unix_connect(path), -ENOENT);
	l = sys_unix_listen(path, 0620);
	assert_true(l >= 0);
	(void)sys_close(l);
	assert_int_equal(sys_unix_connect(path), -ECONNREFUSED);
	l = sys_unix_listen(path, 0620); /* the old one is replaced */
	assert_true(l >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0620);
	assert_int_equal(sys_accept(l), -EAGAIN);
	a = sys_unix_connect(path);
	b = sys_accept(l);
	assert_true(a >= 0 && b >= 0);
	assert_true(fcntl(b, F_GETFL) & O_NONBLOCK && fcntl(a, F_GETFL) & O_NONBLOCK);
	assert_int_equal(sys_peer(b, &pid, &uid), 0);
	assert_int_equal(pid, getpid());
	assert_int_equal(uid, getuid());
	(void)sys_close(a);
	(void)sys_close(b);
	(void)sys_close(l);
	assert_int_equal(chdir(dir), 0);
	l = sys_unix_listen("relative", 0600);
	assert_true(l >= 0);
	(void)sys_close(l);
	l = sys_unix_listen("relative", 0600);
	assert_true(l >= 0);
	(void)sys_close(l);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(sys_remove_tree(AT_FDCWD, dir), 0);
}

static void failing_calls_leak_nothing(void **state)
{
	char dir[] = "/tmp/hotcell-t_sock.XXXXXX", path[64];

	T_UNUSED(state);
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	FOR_EACH_FAULT(nth, EIO)
	{
		int pair[2] = { -1, -1 }, l, c, a = -1;
		unsigned n = 1;
		char byte;
		int fd = -1;

		if (sys_socketpair(pair) == 0 && send_text(pair[0], "x", (int[]){ 0 }, 1) == 1 &&
		    sys_recv(pair[1], &byte, 1, &fd, &n) == 1 && n == 1)
			(void)sys_close(fd);
		l = sys_unix_listen(path, 0600);
		c = sys_unix_connect(path);
		if (l >= 0)
			a = sys_accept(l);
		(void)sys_close(pair[0]);
		(void)sys_close(pair[1]);
		if (l >= 0)
			(void)sys_close(l);
		if (c >= 0)
			(void)sys_close(c);
		if (a >= 0)
			(void)sys_close(a);
	}
	assert_int_equal(sys_remove_tree(AT_FDCWD, dir), 0);
}

static void clocks_run_and_randomness_differs(void **state)
{
	unsigned char a[64] = { 0 }, b[64] = { 0 };
	uint64_t before = sys_now_ns(), khz = 0;
	int r = sys_tsc_khz(20, &khz);

	T_UNUSED(state);
	assert_true(sys_now_ns() >= before);
	assert_true(sys_unix_ns() / NS_PER_S > 1700000000);
	assert_int_equal(sys_random(a, sizeof(a)), 0);
	assert_int_equal(sys_random(b, sizeof(b)), 0);
	assert_memory_not_equal(a, b, sizeof(a));
	assert_true(r == -ENOTSUP || (r == 0 && khz > 100000 && khz < 20000000));
	sys_fault_arm(1, -EIO);
	assert_int_equal(sys_random(a, sizeof(a)), -EIO);
	assert_int_equal(sys_random(a, sizeof(a)), 0); /* once only */
	assert_int_equal(sys_fault_seen(), 2);
}

T_MAIN(T(descriptors_pass_and_close_on_exec), T(too_many_descriptors_are_refused_and_closed),
       T(descriptors_never_received_are_not_leaked), T(listeners_accept_and_know_their_peer),
       T(failing_calls_leak_nothing), T(clocks_run_and_randomness_differs))
