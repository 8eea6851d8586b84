/* guest/reaper.c - the workload's process-id namespace */
#include "guest/reaper.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "sys/fd.h"
#include "sys/ns.h"

/* A kernel tells one boot id all its life; a copy of a machine needs another: a file over it. */
static int cover_boot_id(void)
{
	static const char kernels[] = "/proc/" NS_BOOT_ID;
	char text[64];
	int r = 0;

	if (access(REAPER_BOOT_ID, F_OK) < 0) {
		ssize_t n = sys_read_file(AT_FDCWD, kernels, text, sizeof(text));

		r = n < 0 ? (int)n : sys_write_file(AT_FDCWD, REAPER_BOOT_ID, text);
	}
	if (r == 0 && mount(REAPER_BOOT_ID, kernels, NULL, MS_BIND, NULL) < 0)
		r = -errno;
	return r;
}

/* A process sandbox has got a boot id of its own, laid over the host's in the /proc before this one. */
static int mask_proc(int boot_id)
{
	int r = sys_proc_mask("/proc");

	return r < 0 ? r : sys_mount_attach(boot_id, AT_FDCWD, "/proc/" NS_BOOT_ID);
}

static int mount_proc(bool shared_kernel)
{
	AUTO_CLOSE int boot_id = shared_kernel ? sys_tree_clone(AT_FDCWD, "/proc/" NS_BOOT_ID) : -1;

	if (shared_kernel && boot_id < 0)
		return boot_id;
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return -errno;
	return shared_kernel ? mask_proc(boot_id) : cover_boot_id();
}

static void lose_powers(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	(void)syscall(SYS_capset, &head, none);
}

/* Process 1 of the workload: orphans come here, and the kernel buries them unseen. */
static _Noreturn void reaper_main(int report_fd, bool shared_kernel)
{
	int r;

	(void)prctl(PR_SET_NAME, "hotcell-reaper");
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)signal(SIGCHLD, SIG_IGN);
	r = mount_proc(shared_kernel);
	if (shared_kernel)
		lose_powers();
	else /* its death would be everybody's; the agent, as the kernel's process 1, is safe anyway */
		(void)sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-1000");
	(void)sys_write_full(report_fd, &r, sizeof(r));
	(void)syscall(SYS_close_range, 0, ~0u, 0);
	for (;;)
		(void)pause();
}

static int new_namespace(struct reaper *rp, int proc_fd)
{
	if (rp->own_ns_fd <= 0)
		rp->own_ns_fd = sys_openat(proc_fd, "self/ns/pid", O_RDONLY, 0);
	if (rp->own_ns_fd < 0)
		return rp->own_ns_fd;
	if (setns(rp->own_ns_fd, CLONE_NEWPID) < 0 || unshare(CLONE_NEWPID) < 0)
		return -errno;
	return 0;
}

int reaper_start(struct reaper *rp, int proc_fd, bool shared_kernel, struct err *e)
{
	AUTO_CLOSE int get = -1;
	AUTO_CLOSE int put = -1;
	int report[2], answer = 0;
	int r = new_namespace(rp, proc_fd);

	if (r < 0)
		return err_sys(e, r, "make the workload's process namespace");
	r = sys_pipe(report);
	if (r < 0)
		return err_sys(e, r, "make the workload's process namespace");
	get = report[0];
	put = report[1];
	rp->pid = fork();
	if (rp->pid < 0) {
		rp->pid = 0;
		return err_sys(e, -errno, "start the workload's first process");
	}
	if (rp->pid == 0)
		reaper_main(put, shared_kernel);
	put = sys_close(put);
	r = sys_read_full(get, &answer, sizeof(answer));
	if (r == 0)
		r = answer;
	if (r == 0) {
		if (rp->proc_fd > 0)
			(void)sys_close(rp->proc_fd);
		r = rp->proc_fd = sys_open("/proc", O_RDONLY | O_DIRECTORY);
	}
	if (r < 0) {
		reaper_kill(rp);
		return err_sys(e, r, "mount /proc for the workload");
	}
	return 0;
}

void reaper_kill(struct reaper *rp)
{
	pid_t gone;

	if (!rp->pid)
		return;
	if (kill(rp->pid, SIGKILL) < 0)
		return; /* out of reach behind Landlock: it goes when we, its parent, do */
	/* It is gone only after all others, and the programs among them are ours to bury. */
	do
		gone = waitpid(-1, NULL, 0);
	while (gone != rp->pid && (gone >= 0 || errno == EINTR));
	rp->pid = 0;
}

void reaper_deinit(struct reaper *rp)
{
	reaper_kill(rp);
	if (rp->own_ns_fd > 0)
		(void)sys_close(rp->own_ns_fd);
	if (rp->proc_fd > 0)
		(void)sys_close(rp->proc_fd);
}
