/* keeper/jail_qemu.c - compose the command line, assemble the root */
#include "keeper/jail_qemu.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/id.h"
#include "base/macro.h"
#include "base/mem.h"
#include "keeper/jail.h"
#include "keeper/jail_qemu_calls.h"
#include "keeper/qemu_host.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/ns.h"
#include "sys/seccomp.h"
#include "wire/gen/records.h"

#define STAGE "/tmp" /* in the child's own mount namespace; any folder that exists everywhere */
#define QUIET (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)

/* QEMU's descriptors; its standard output and error are the console. */
enum { FD_ROOT = 3, FD_DISK, FD_KERNEL, FD_INITRD, FD_LINK, FD_MONITOR, FD_CONSOLE, FD_END };

enum {
	MEMORY_MIN_MB = 128,
	TB_MB = 128, /* translated code: the default, an eighth of the guest's memory, has no bound of its own */
	HEAP_MB = 128, /* QEMU itself: 20 MB idle, page tables, disk requests in flight */
	THREADS = 128, /* 64 disk workers, and some */
	ARGS_MAX = 64,
	TEXT_MAX = 256,
	QEMU_ID = 1, /* inside its user namespace: not root there either */
};

struct jail_qemu {
	char closure[QEMU_PATH_MAX];
	int closure_mount; /* detached, made by root's keeper; -1: the child binds the path */
	int dev_mount;	   /* a /dev with kvm in it, or kvm alone; -1: none, or the child binds it */
	bool kvm, root;
	uint64_t disk_bytes;
	int seccomp_fd;
	int lent[2];
	struct jail_fd fds[FD_END];
	struct jail_rlimit rlimits[8];
	struct landlock_rule landlock[8];
	unsigned n_rlimits, n_landlock;
	unsigned n_args, n_texts;
	const char *args[ARGS_MAX + 1];
	char texts[8][TEXT_MAX]; /* arguments made of numbers */
};

/* ---- command line ---- */

static void add(struct jail_qemu *q, const char *option, const char *value)
{
	if (q->n_args + 2 > ARGS_MAX)
		abort(); /* our own tables */
	q->args[q->n_args++] = option;
	if (value)
		q->args[q->n_args++] = value;
}

[[gnu::format(printf, 3, 4)]] static void addf(struct jail_qemu *q, const char *option,
						const char *fmt, ...)
{
	char *text = q->texts[q->n_texts++];
	va_list ap;

	if (q->n_texts > ARRAY_LEN(q->texts))
		abort();
	va_start(ap, fmt);
	(void)vsnprintf(text, TEXT_MAX, fmt, ap);
	va_end(ap);
	add(q, option, text);
}

/*
 * The same for every machine. Nodes are named and typed one by one: nothing is probed, so
 * no guest can write a header that makes its disk another format.
 *
 * Files are not locked: a root has many readers, a disk one owner, its sandbox; and QEMU's
 * locks need a /dev/null it may open for writing. Flushes of the disk are not passed on: it
 * has to survive the guest, not the host. Disks come in the order the guest counts them.
 */
static const struct {
	const char *option, *value;
} fixed[] = {
	{"-nodefaults", NULL},
	{"-no-user-config", NULL},
	{"-no-reboot", NULL},
	{"-display", "none"},
	{"-L", "/firmware"},
	{"-add-fd", "fd=3,set=3"},
	{"-add-fd", "fd=4,set=4"},
	{"-add-fd", "fd=9,set=9"},
	{"-blockdev", "driver=file,node-name=root-file,filename=/dev/fdset/3,read-only=on,"
		      "auto-read-only=off,locking=off"},
	{"-blockdev", "driver=raw,node-name=root,file=root-file,read-only=on"},
	{"-blockdev", "driver=file,node-name=disk-file,filename=/dev/fdset/4,read-only=off,"
		      "auto-read-only=off,locking=off,discard=unmap,cache.no-flush=on"},
	{"-blockdev", "driver=raw,node-name=disk,file=disk-file,read-only=off,discard=unmap,"
		      "cache.no-flush=on"},
	{"-device", "virtio-blk-device,drive=root"},
	{"-device", "virtio-blk-device,drive=disk"},
	{"-chardev", "socket,id=link,fd=7"},
	{"-device", "virtio-serial-device"},
	{"-device", "virtserialport,chardev=link,nr=1,id=agent0,name=agent0"},
	{"-chardev", "socket,id=monitor,fd=8"},
	{"-mon", "chardev=monitor,mode=control"},
	{"-chardev", "file,id=console,path=/dev/fdset/9,append=on"},
	{"-serial", "chardev:console"},
	{"-kernel", "/proc/self/fd/5"},
	{"-initrd", "/proc/self/fd/6"},
	{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
};

_Static_assert(FD_ROOT == 3 && FD_DISK == 4 && FD_KERNEL == 5 && FD_INITRD == 6 && FD_LINK == 7 &&
		       FD_MONITOR == 8 && FD_CONSOLE == 9,
	       "the command line names them");

/*
 * Emulated: `arat` lets an idle guest sleep (0.5 % of a core instead of 2.7); the clock's
 * frequency is told because calibrating it against emulated timers hangs half of all boots
 * on a busy host; mitigations guard a processor that the guest never touches; testing the
 * kernel's ciphers takes a tenth of the boot.
 */
static void compose(struct jail_qemu *q, const struct jail_qemu_parts *p)
{
	static const char console[] = "console=ttyS0 quiet panic=-1 reboot=t";
	char id[ID_TEXT];

	id_format(&p->rec->id, id);
	add(q, "qemu", NULL);
	addf(q, "-name", "%s", id);
	add(q, "-machine", "microvm,mem-merge=off,dump-guest-core=off");
	if (q->kvm) {
		add(q, "-accel", "kvm");
		add(q, "-cpu", "host");
		add(q, "-append", console);
	} else {
		addf(q, "-accel", "tcg,tb-size=%d", TB_MB);
		add(q, "-cpu", "qemu64,+arat");
		addf(q, "-append", "%s tsc_early_khz=%llu tsc=reliable mitigations=off cryptomgr.notests",
		     console, (unsigned long long)p->tsc_khz);
	}
	addf(q, "-smp", "%llu", (unsigned long long)p->rec->vcpus);
	addf(q, "-m", "%lluM", (unsigned long long)p->rec->memory_mb);
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		add(q, fixed[i].option, fixed[i].value);
	q->args[q->n_args] = NULL;
}

/* Libraries first: the closure's layout is ours, not the distribution's. */
static const char *const environment[] = {
	"LD_LIBRARY_PATH=/lib", "QEMU_MODULE_DIR=/modules", "LC_ALL=C", "TZ=UTC0", NULL,
};

/* ---- descriptors ---- */

static int check_fd(int fd, const char *name, int mode, bool reopened, struct stat *st, struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, st) < 0)
		return err_sys(e, -errno, "look at the %s", name);
	if (!S_ISREG(st->st_mode) || (flags & O_ACCMODE) != mode || (flags & O_PATH))
		return err_set(e, ERR_INVALID, "the %s must be a file opened for %s", name,
			       mode == O_RDONLY ? "reading" : "reading and writing");
	if (st->st_size == 0)
		return err_set(e, ERR_INVALID, "the %s is empty", name);
	if (reopened && !(st->st_mode & S_IROTH))
		return err_set(e, ERR_INVALID, "the %s must be readable by everybody (chmod a+r)", name);
	return 0;
}

static int check_parts(const struct jail_qemu_parts *p, struct jail_qemu *q, struct err *e)
{
	static const struct {
		const char *name;
		int mode;
		bool reopened; /* by name below /proc, under a uid that owns nothing */
	} wants[JAIL_QEMU_FDS] = {
		[JAIL_QEMU_ROOT] = {"root image", O_RDONLY, false},
		[JAIL_QEMU_DISK] = {"disk", O_RDWR, false},
		[JAIL_QEMU_KERNEL] = {"kernel", O_RDONLY, true},
		[JAIL_QEMU_INITRD] = {"initial file system", O_RDONLY, true},
	};
	int r = 0;

	if (p->n_fds != JAIL_QEMU_FDS)
		return err_set(e, ERR_INVALID, "a machine takes %d descriptors, not %u", JAIL_QEMU_FDS,
			       p->n_fds);
	if (p->rec->memory_mb < MEMORY_MIN_MB)
		return err_set(e, ERR_INVALID,
			       "memory_mb: %llu is too little, a kernel of its own needs %d",
			       (unsigned long long)p->rec->memory_mb, MEMORY_MIN_MB);
	if (!p->rec->kvm && p->tsc_khz == 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "this host's time stamp counter can't be measured, and emulated guests "
			       "hang without its frequency");
	for (unsigned i = 0; i < JAIL_QEMU_FDS && r == 0; i++) {
		struct stat st;

		r = check_fd(p->fds[i], wants[i].name, wants[i].mode, wants[i].reopened && p->root, &st, e);
		if (r == 0 && i == JAIL_QEMU_DISK)
			q->disk_bytes = (uint64_t)st.st_size;
	}
	return r;
}

static void name_fds(struct jail_qemu *q, const struct jail_qemu_parts *p)
{
	const struct jail_fd fds[] = {
		{p->console_fd, 1},
		{p->console_fd, 2},
		{p->fds[JAIL_QEMU_ROOT], FD_ROOT},
		{p->fds[JAIL_QEMU_DISK], FD_DISK},
		{p->fds[JAIL_QEMU_KERNEL], FD_KERNEL},
		{p->fds[JAIL_QEMU_INITRD], FD_INITRD},
		{p->link_fd, FD_LINK},
		{p->monitor_fd, FD_MONITOR},
		{p->console_fd, FD_CONSOLE},
	};

	_Static_assert(ARRAY_LEN(fds) <= ARRAY_LEN(q->fds), "descriptors");
	memcpy(q->fds, fds, sizeof(fds));
}

/* ---- the root ---- */

static int make_closure_mount(struct jail_qemu *q, const struct qemu_host *h, struct err *e)
{
	int fd;

	(void)snprintf(q->closure, sizeof(q->closure), "%s", h->closure);
	if (!q->root)
		return 0;
	/* Cloned by us, the way to it need not be open to the slot's uid. */
	fd = sys_tree_clone(h->root_fd, "");
	if (fd < 0)
		return err_sys(e, fd, "clone QEMU's closure");
	q->closure_mount = fd;
	return 0;
}

/*
 * Root's keeper: a /dev with one node that belongs to the slot, since the host's belongs to
 * root and a group. Otherwise the child binds the host's node, which its user may open or not.
 */
static int make_dev_mount(struct jail_qemu *q, const struct jail_qemu_parts *p, struct err *e)
{
	static const char *const opts[] = {"size=4k", "nr_inodes=2", "mode=0555", NULL};
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int r;

	if (!q->kvm || !q->root)
		return 0;
	if (stat("/dev/kvm", &st) < 0 || !S_ISCHR(st.st_mode))
		return err_set(e, ERR_UNSUPPORTED, "/dev/kvm is not here");
	fd = sys_mount_new("tmpfs", opts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (fd < 0)
		return err_sys(e, fd, "make a /dev for QEMU");
	if (mknodat(fd, "kvm", S_IFCHR | 0600, st.st_rdev) < 0 ||
	    fchownat(fd, "kvm", p->uid_base + QEMU_ID, p->gid_base + QEMU_ID, AT_SYMLINK_NOFOLLOW) < 0)
		return err_sys(e, -errno, "make /dev/kvm for QEMU");
	r = sys_mount_attr(fd, "", QUIET | MOUNT_ATTR_NOEXEC, 0, false);
	if (r < 0)
		return err_sys(e, r, "make QEMU's /dev read-only");
	q->dev_mount = take_fd(&fd);
	return 0;
}

/* ---- in the child ---- */

static int attach_closure(const struct jail_qemu *q, struct err *e)
{
	AUTO_CLOSE int own = -1;
	int mount = q->closure_mount, r;

	if (mount < 0)
		mount = own = sys_tree_clone(AT_FDCWD, q->closure);
	if (mount < 0)
		return err_sys(e, mount, "clone %s", q->closure);
	r = sys_mount_attr(mount, "", QUIET | MOUNT_ATTR_NODEV, 0, false);
	if (r < 0)
		return err_sys(e, r, "make QEMU's root read-only");
	r = sys_mount_attach(mount, AT_FDCWD, STAGE);
	return r < 0 ? err_sys(e, r, "attach QEMU's root") : 0;
}

static int attach_kvm(const struct jail_qemu *q, struct err *e)
{
	AUTO_CLOSE int own = -1;
	int r;

	if (!q->kvm)
		return 0;
	if (q->dev_mount >= 0) {
		r = sys_mount_attach(q->dev_mount, AT_FDCWD, STAGE "/dev");
	} else {
		r = own = sys_tree_clone(AT_FDCWD, "/dev/kvm");
		if (r >= 0)
			r = sys_mount_attach(own, AT_FDCWD, STAGE "/dev/kvm");
	}
	return r < 0 ? err_sys(e, r, "lend /dev/kvm to QEMU") : 0;
}

/* Only to open kernel and initrd, by the numbers of their descriptors; shows QEMU nothing but itself. */
static int attach_proc(struct err *e)
{
	static const char *const opts[] = {"subset=pid", "hidepid=invisible", NULL};
	AUTO_CLOSE int fd = sys_mount_new("proc", opts, QUIET | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	int r;

	if (fd == -EPERM || fd == -EACCES)
		return err_set(e, ERR_UNSUPPORTED,
			       "this host hides parts of /proc, so no new /proc can be mounted in a user "
			       "namespace: run hotcell outside the container that hides them");
	if (fd < 0)
		return err_sys(e, fd, "make a /proc for QEMU");
	r = sys_mount_attach(fd, AT_FDCWD, STAGE "/proc");
	return r < 0 ? err_sys(e, r, "attach QEMU's /proc") : 0;
}

static int setup(void *arg, struct err *e)
{
	const struct jail_qemu *q = arg;
	int r;

	/* Above the host's /proc nothing may be mounted when a new one is asked for: that first. */
	r = attach_closure(q, e);
	if (r == 0)
		r = attach_proc(e);
	if (r == 0)
		r = attach_kvm(q, e);
	if (r < 0)
		return r;
	r = sys_pivot(STAGE);
	return r < 0 ? err_sys(e, r, "enter QEMU's root") : 0;
}

/* ---- second layers ---- */

static void limit(struct jail_qemu *q)
{
	const struct jail_rlimit limits[] = {
		{RLIMIT_CORE, 0, 0},
		{RLIMIT_NOFILE, 256, 256},
		{RLIMIT_FSIZE, q->disk_bytes, q->disk_bytes}, /* its disk is the largest thing it writes */
		{RLIMIT_NPROC, THREADS + 32, THREADS + 32},
		{RLIMIT_MEMLOCK, 0, 0},
		{RLIMIT_MSGQUEUE, 0, 0},
		{RLIMIT_RTPRIO, 0, 0},
		{RLIMIT_NICE, 0, 0},
	};

	_Static_assert(ARRAY_LEN(limits) <= ARRAY_LEN(q->rlimits), "limits");
	memcpy(q->rlimits, limits, sizeof(limits));
	q->n_rlimits = ARRAY_LEN(limits);
}

static void confine(struct jail_qemu *q)
{
	static const struct landlock_rule rules[] = {
		{"/qemu", LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC},
		{"/lib64", LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC},
		{"/lib", LANDLOCK_MAY_READ},
		{"/modules", LANDLOCK_MAY_READ},
		{"/firmware", LANDLOCK_MAY_READ},
		{"/proc/self/fd/5", LANDLOCK_MAY_READ}, /* the kernel's file */
		{"/proc/self/fd/6", LANDLOCK_MAY_READ}, /* the initrd's */
		{"/dev/kvm", LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
	};

	_Static_assert(ARRAY_LEN(rules) <= ARRAY_LEN(q->landlock), "rules");
	memcpy(q->landlock, rules, sizeof(rules));
	q->n_landlock = ARRAY_LEN(rules) - !q->kvm;
}

/* ---- public ---- */

int jail_qemu_new(const struct jail_qemu_parts *p, struct jail_qemu **ret, struct err *e)
{
	struct jail_qemu *q = mem_new(sizeof(*q));
	int r;

	q->closure_mount = q->dev_mount = q->seccomp_fd = -1;
	q->kvm = p->rec->kvm;
	q->root = p->root;
	r = check_parts(p, q, e);
	if (r == 0)
		r = make_closure_mount(q, p->host, e);
	if (r == 0)
		r = make_dev_mount(q, p, e);
	if (r == 0) {
		r = seccomp_compile(q->kvm ? &jail_qemu_calls_kvm : &jail_qemu_calls, &q->seccomp_fd);
		if (r < 0)
			r = err_sys(e, r, "compile QEMU's system call filter");
	}
	if (r == 0) {
		/* A guest that floods its console loses bytes instead of stopping QEMU. */
		r = sys_nonblock(p->console_fd, true);
		if (r < 0)
			r = err_sys(e, r, "prepare QEMU's console");
	}
	if (r < 0) {
		(void)jail_qemu_free(q);
		return r;
	}
	name_fds(q, p);
	compose(q, p);
	limit(q);
	confine(q);
	*ret = q;
	return 0;
}

void jail_qemu_spec(struct jail_qemu *q, struct jail_spec *s)
{
	s->namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS |
			CLONE_NEWCGROUP;
	s->setup = setup;
	s->arg = q;
	s->n_lent = 0;
	if (q->closure_mount >= 0)
		q->lent[s->n_lent++] = q->closure_mount;
	if (q->dev_mount >= 0)
		q->lent[s->n_lent++] = q->dev_mount;
	s->lent = q->lent;
	s->rlimits = q->rlimits;
	s->n_rlimits = q->n_rlimits;
	s->uid = q->root ? QEMU_ID : 0; /* a user has but one id to map */
	s->gid = q->root ? QEMU_ID : 0;
	s->keep_caps = false;
	s->landlock = q->landlock;
	s->n_landlock = q->n_landlock;
	s->seccomp_fd = q->seccomp_fd;
	s->fds = q->fds;
	s->n_fds = FD_END - 1; /* 1 to 9 */
	s->exec_fd = -1;
	s->exec_path = "/qemu";
	s->argv = q->args;
	s->envp = environment;
}

struct jail_qemu *jail_qemu_free(struct jail_qemu *q)
{
	if (!q)
		return NULL;
	(void)sys_close(q->closure_mount);
	(void)sys_close(q->dev_mount);
	(void)sys_close(q->seccomp_fd);
	free(q);
	return NULL;
}

uint64_t jail_qemu_memory(const struct rec_machine_start *rec)
{
	return (rec->memory_mb + (rec->kvm ? 0 : TB_MB) + HEAP_MB) * MIB;
}

unsigned jail_qemu_pids(const struct rec_machine_start *rec)
{
	return THREADS + (unsigned)rec->vcpus;
}
