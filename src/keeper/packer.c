/* keeper/packer.c - the process that writes files down, and the keeper's side of it */
#include "keeper/packer.h"
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/files.h"
#include "keeper/jail_qemu.h"
#include "loop/loop.h"
#include "sys/caps.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"

/* Whoever lacks memory takes it from the copy before anything else of ours; the sandbox runs on. */
#define OOM_SCORE "500"

/* ---- in the process that packs ---- */

struct job {
	int folder_fd, userns_fd, to_fd, talk_fd;
	uint64_t max_bytes;
};

/* Only what reading everything takes; what a bug here could do ends at the sandbox's files. */
static int confine(const struct job *j, struct err *e)
{
	const int keep[] = {j->folder_fd, j->userns_fd, j->to_fd, j->talk_fd};
	int r;

	(void)prctl(PR_SET_NAME, "hotcell-packer", 0, 0, 0);
	(void)sys_close_all_but(keep, ARRAY_LEN(keep));
	(void)sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE);
	if (setns(j->userns_fd, CLONE_NEWUSER) < 0)
		return err_sys(e, -errno, "join the sandbox's user namespace");
	(void)setgroups(0, NULL); /* a namespace of a single id forbids it, and then there are none to drop */
	if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
		return err_sys(e, -errno, "become the sandbox's root");
	r = sys_die_with_parent();
	if (r < 0)
		return err_sys(e, r, "ask for SIGKILL at the keeper's end");
	if (fchdir(j->folder_fd) < 0 || chroot(".") < 0)
		return err_sys(e, -errno, "enter the sandbox's files");
	r = caps_limit(CAP_BIT(CAP_DAC_READ_SEARCH));
	if (r == 0)
		r = sys_no_new_privs();
	return r < 0 ? err_sys(e, r, "drop capabilities") : 0;
}

static _Noreturn void work(const struct job *j)
{
	struct err e = ERR_INIT;

	if (sys_die_with_parent() < 0)
		_exit(1);
	if (confine(j, &e) == 0)
		(void)files_pack(j->folder_fd, j->to_fd, j->max_bytes, &e);
	(void)sys_write_full(j->talk_fd, &e, sizeof(e));
	_exit(0);
}

/* ---- in the keeper ---- */

struct packer {
	struct loop *loop;
	struct packer_events ev;
	int pidfd, talk_fd, to_fd;
	uint64_t begun_ns;
	struct loop_io io;
	struct loop_timer late;
};

static void stop(struct packer *p)
{
	struct sys_exit how;

	loop_io_del(p->loop, &p->io);
	loop_timer_cancel(p->loop, &p->late);
	p->talk_fd = sys_close(p->talk_fd);
	if (p->pidfd >= 0) {
		(void)sys_pidfd_signal(p->pidfd, SIGKILL);
		while (sys_pidfd_wait(p->pidfd, &how) == -EIO) /* only ever injected */
			;
	}
	p->pidfd = sys_close(p->pidfd);
}

static void fail(struct packer *p, const struct err *why)
{
	stop(p);
	p->ev.failed(p->ev.arg, why); /* the last use of @p */
}

static void on_late(struct loop_timer *t)
{
	struct err e = ERR_INIT;

	(void)err_set(&e, ERR_TIMEOUT, "copying the sandbox's files took longer than %d s", PACKER_MS / 1000);
	fail(CONTAINER_OF(t, struct packer, late), &e);
}

/* It is dead before the seal: nobody writes any more. */
static void finish(struct packer *p)
{
	uint64_t us = (sys_now_ns() - p->begun_ns) / NS_PER_US;
	struct err e = ERR_INIT;
	struct stat st;

	stop(p);
	if (fstat(p->to_fd, &st) < 0)
		(void)err_sys(&e, -errno, "look at the copy of the sandbox's files");
	else
		(void)jail_qemu_memory_seal(p->to_fd, &e);
	if (e.code)
		p->ev.failed(p->ev.arg, &e);
	else
		p->ev.packed(p->ev.arg, p->to_fd, (uint64_t)st.st_size, us);
}

static void on_word(struct loop_io *io, unsigned events)
{
	struct packer *p = CONTAINER_OF(io, struct packer, io);
	struct err e = ERR_INIT;

	(void)events;
	if (sys_read_full(p->talk_fd, &e, sizeof(e)) < 0) {
		(void)err_set(&e, ERR_INTERNAL,
			      "the process that copies the sandbox's files was killed: too little memory?");
		fail(p, &e);
	} else if (e.code) {
		e.text[sizeof(e.text) - 1] = '\0';
		fail(p, &e);
	} else {
		finish(p);
	}
}

static int start(struct packer *p, struct job *j, struct err *e)
{
	int pair[2], r = sys_socketpair(pair);
	pid_t pid;

	if (r < 0)
		return err_sys(e, r, "talk to the process that copies files");
	p->talk_fd = pair[0];
	j->talk_fd = pair[1];
	pid = sys_clone(0, -1, &p->pidfd);
	if (pid == 0)
		work(j);
	(void)sys_close(pair[1]);
	if (pid < 0)
		return err_sys(e, (int)pid, "start a process that copies files");
	r = loop_io_add(p->loop, &p->io, p->talk_fd, LOOP_READ, on_word);
	return r < 0 ? err_sys(e, r, "watch the process that copies files") : 0;
}

int packer_new(struct loop *l, int folder_fd, int userns_fd, uint64_t disk_bytes, const struct packer_events *ev,
	       struct packer **ret, struct err *e)
{
	struct packer *p = mem_new(sizeof(*p));
	struct job j = {.folder_fd = folder_fd, .userns_fd = userns_fd, .max_bytes = files_max_bytes(disk_bytes)};
	int r;

	*p = (struct packer){.loop = l, .ev = *ev, .pidfd = -1, .talk_fd = -1, .begun_ns = sys_now_ns()};
	p->to_fd = j.to_fd = sys_memfd("files", MFD_ALLOW_SEALING);
	r = p->to_fd < 0 ? err_sys(e, p->to_fd, "make a memory file") : start(p, &j, e);
	if (r < 0) {
		(void)packer_free(p);
		return r;
	}
	loop_timer_set(l, &p->late, loop_now(l) + PACKER_MS * NS_PER_MS, on_late);
	*ret = p;
	return 0;
}

struct packer *packer_free(struct packer *p)
{
	if (!p)
		return NULL;
	stop(p);
	(void)sys_close(p->to_fd);
	free(p);
	return NULL;
}
