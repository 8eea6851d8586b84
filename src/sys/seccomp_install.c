/* sys/seccomp_install.c - BPF to the kernel; apart, because it must not need libseccomp */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/macro.h"
#include "base/mem.h"
#include "sys/call_int.h"
#include "sys/fd.h"
#include "sys/seccomp.h"

static int install(const struct sock_fprog *prog)
{
	return SYS_CALL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, prog, 0, 0));
}

/* A thread that can't follow makes it fail with its number: none of ours has a filter of its own. */
static int install_all(const struct sock_fprog *prog)
{
	long r = SYS_CALL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
				  SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_LOG, prog));

	return r > 0 ? -ESRCH : (int)r;
}

static int read_and(int fd, int (*use)(const struct sock_fprog *prog))
{
	AUTO_FREE struct sock_filter *code = NULL;
	struct sock_fprog prog;
	struct stat st;
	ssize_t r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= 0 || st.st_size % (off_t)sizeof(*code) ||
	    st.st_size > SECCOMP_INSTRUCTIONS_MAX * (off_t)sizeof(*code))
		return -EINVAL;
	code = mem_new((size_t)st.st_size);
	r = sys_pread(fd, code, (size_t)st.st_size, 0);
	if (r != st.st_size)
		return r < 0 ? (int)r : -EIO;
	prog = (struct sock_fprog){(unsigned short)(st.st_size / (off_t)sizeof(*code)), code};
	return use(&prog);
}

int seccomp_install(int fd)
{
	return read_and(fd, install);
}

int seccomp_install_all(int fd)
{
	return read_and(fd, install_all);
}
