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
#include "keeper/keeper.h"
#include "keeper/qemu_host.h"
#include "keeper/qemu_memory.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/ns.h"
#include "sys/seccomp.h"
#include "wire/gen/records.h"

#define STAGE "/tmp" /* in the child's own mount namespace; any folder that exists everywhere */
#define QUIET (MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID)

/* QEMU's descriptors; its standard output and error are the console. */
enum {
	FD_ROOT = 3,
	FD_LINK,
	FD_MONITOR,
	FD_CONSOLE,
	FD_KERNEL,
	FD_INITRD,
	FD_STATE = KEEPER_STATE_FD,
	FD_LAYER, /* and up */
	FDS_MAX = 12 + LIMIT_DISK_LAYERS, /* and those of keeper/qemu_memory.h */
};

enum {
	MEMORY_MIN_MB = 128,
	THREADS = 128, /* 64 disk workers, and some */
	ARGS_MAX = 128,
	TEXTS_MAX = 8 + 3 * LIMIT_DISK_LAYERS,
	TEXT_MAX = 256,
	QEMU_ID = 1, /* inside its user namespace: not root there either */
};

struct jail_qemu {
	char closure[QEMU_PATH_MAX];
	int closure_mount; /* detached, made by root's keeper; -1: the child binds the path */
	int dev_mount;	   /* a /dev with kvm in it, or kvm alone; -1: none, or the child binds it */
	bool kvm, root, is_fork;
	uint64_t disk_bytes;
	int seccomp_fd;
	int zero_fd;
	int state_fd; /* our own description of it: children of one set must not share an offset */
	int lent[2];
	unsigned n_fds;
	struct jail_fd fds[FDS_MAX];
	struct jail_rlimit rlimits[8];
	struct landlock_rule landlock[8];
	unsigned n_rlimits, n_landlock;
	unsigned n_args, n_texts;
	const char *args[ARGS_MAX + 1];
	char texts[TEXTS_MAX][TEXT_MAX]; /* arguments made of numbers */
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
	char *text;
	va_list ap;

	if (q->n_texts == ARRAY_LEN(q->texts))
		abort();
	text = q->texts[q->n_texts++];
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
 * locks need a /dev/null it may open for writing.
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
	{"-add-fd", "fd=6,set=6"},
	{"-blockdev", "driver=file,node-name=root-file,filename=/dev/fdset/3,read-only=on,"
		      "auto-read-only=off,locking=off"},
	{"-blockdev", "driver=raw,node-name=root,file=root-file,read-only=on"},
	{"-device", "virtio-blk-device,drive=root"},
	{"-chardev", "socket,id=link,fd=4"},
	{"-device", "virtio-serial-device"},
	{"-device", "virtserialport,chardev=link,nr=1,id=agent0,name=agent0"},
	{"-chardev", "socket,id=monitor,fd=5"},
	{"-mon", "chardev=monitor,mode=control"},
	{"-chardev", "file,id=console,path=/dev/fdset/6,append=on"},
	{"-serial", "chardev:console"},
	{"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"},
};

static const struct {
	const char *option, *value;
} boot[] = {
	{"-kernel", "/proc/self/fd/7"},
	{"-initrd", "/proc/self/fd/8"},
}, fork_off[] = {
	{"-S", NULL},
	{"-incoming", "defer"},
	{"-global", "migration.send-configuration=off"},
};

_Static_assert(FD_ROOT == 3 && FD_LINK == 4 && FD_MONITOR == 5 && FD_CONSOLE == 6 && FD_KERNEL == 7 &&
		       FD_INITRD == 8,
	       "the command line names them");
_Static_assert((int)FD_INITRD < (int)QEMU_FD_RAM && (int)QEMU_FD_MEMORY < (int)FD_STATE &&
		       (int)FD_LAYER + LIMIT_DISK_LAYERS == (int)QEMU_FD_ZERO && QEMU_FD_OBJECT == 21,
	       "each has a number of its own; the environment names the last");

/*
 * Layer i is node l<i> on l<i>-file, descriptor set KEEPER_LAYER_SET + i; the driver goes on
 * counting when it adds one to a machine that runs. Flushes of the disk are not passed on: it
 * has to survive the guest, not the host.
 */
static void compose_disk(struct jail_qemu *q, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		const char *read_only = i + 1 == n ? "off" : "on";
		char backing[32] = "";

		if (i)
			(void)snprintf(backing, sizeof(backing), ",backing=l%u", i - 1);
		addf(q, "-add-fd", "fd=%u,set=%u", FD_LAYER + i, KEEPER_LAYER_SET + i);
		addf(q, "-blockdev",
		     "driver=file,node-name=l%u-file,filename=/dev/fdset/%u,read-only=%s,"
		     "auto-read-only=off,locking=off,discard=unmap,cache.no-flush=on",
		     i, KEEPER_LAYER_SET + i, read_only);
		addf(q, "-blockdev",
		     "driver=%s,node-name=l%u,file=l%u-file%s,read-only=%s,discard=unmap,cache.no-flush=on",
		     i ? "qcow2" : "raw", i, i, backing, read_only);
	}
	addf(q, "-device", "virtio-blk-device,drive=l%u,id=" KEEPER_DISK, n - 1);
}

static unsigned layers_of(const struct jail_qemu_parts *p)
{
	return p->rec->layers ? (unsigned)p->rec->layers : 1;
}

/*
 * Emulated: the processor is one that was made, since libraries choose their code by its name: for
 * qemu64, OpenBLAS takes that of the first Opteron, whose 3DNow! it lacks. Nehalem has what x86-64-v2
 * asks for, and no more.
 * `arat` lets an idle guest sleep (0.5 % of a core instead of 2.7); the clock's
 * frequency is told because calibrating it against emulated timers hangs half of all boots
 * on a busy host; mitigations guard a processor that the guest never touches; testing the
 * kernel's ciphers takes a tenth of the boot.
 */
static void compose(struct jail_qemu *q, const struct jail_qemu_parts *p)
{
	/*
	 * A microvm on KVM has no CMOS clock, and a kernel that looks for one waits for seconds. Emulated it has one,
	 * which nobody reads: the agent is told the time.
	 */
	static const char console[] = "console=ttyS0 quiet panic=-1 reboot=t initcall_blacklist=cmos_init";
	char id[ID_TEXT];

	id_format(&p->rec->id, id);
	add(q, "qemu", NULL);
	addf(q, "-name", "%s", id);
	add(q, "-machine", "microvm,memory-backend=ram,mem-merge=off,dump-guest-core=off");
	if (q->kvm) {
		add(q, "-accel", "kvm");
		add(q, "-cpu", "host");
	} else {
		addf(q, "-accel", "tcg,tb-size=%d", KEEPER_TB_MB);
		add(q, "-cpu", KEEPER_CPU);
	}
	if (q->kvm && !q->is_fork)
		add(q, "-append", console);
	else if (!q->is_fork)
		addf(q, "-append", "%s tsc_early_khz=%llu tsc=reliable mitigations=off cryptomgr.notests",
		     console, (unsigned long long)p->tsc_khz);
	addf(q, "-smp", "%llu", (unsigned long long)p->rec->vcpus);
	addf(q, "-m", "%lluM", (unsigned long long)p->rec->memory_mb);
	addf(q, "-object", "memory-backend-file,id=ram,size=%lluM,mem-path=/proc/self/fd/%d,share=off",
	     (unsigned long long)p->rec->memory_mb, QEMU_FD_RAM);
	for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
		add(q, fixed[i].option, fixed[i].value);
	compose_disk(q, layers_of(p)); /* behind the root: the guest counts them */
	for (size_t i = 0; i < ARRAY_LEN(boot) && !q->is_fork; i++)
		add(q, boot[i].option, boot[i].value);
	for (size_t i = 0; i < ARRAY_LEN(fork_off) && q->is_fork; i++)
		add(q, fork_off[i].option, fork_off[i].value);
	q->args[q->n_args] = NULL;
}

/* Libraries first: the closure's layout is ours, not the distribution's. */
static const char *const environment[] = {
	"LD_LIBRARY_PATH=/lib", "LD_PRELOAD=/proc/self/fd/21", "QEMU_MODULE_DIR=/modules", "LC_ALL=C", "TZ=UTC0", NULL,
};

/* ---- descriptors ---- */

/*
 * @guarded: QEMU has an id of its own, so the modes of files count. It may open files for writing
 * by the numbers of its descriptors; Landlock says no to that, and so do modes where there is none.
 */
static int check_fd(int fd, const char *name, int mode, bool reopened, bool guarded, struct stat *st,
		    struct err *e)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, st) < 0)
		return err_sys(e, -errno, "look at the %s", name);
	if (!S_ISREG(st->st_mode) || (flags & O_ACCMODE) != mode || (flags & O_PATH))
		return err_set(e, ERR_INVALID, "the %s must be a file opened for %s", name,
			       mode == O_RDONLY ? "reading" : "reading and writing");
	if (st->st_size == 0)
		return err_set(e, ERR_INVALID, "the %s is empty", name);
	if (guarded && mode == O_RDONLY && (st->st_mode & S_IWOTH))
		return err_set(e, ERR_INVALID, "the %s may be written by everybody (chmod o-w)", name);
	if (guarded && reopened && !(st->st_mode & S_IROTH))
		return err_set(e, ERR_INVALID, "the %s must be readable by everybody (chmod a+r)", name);
	return 0;
}

/* What a descriptor of machine.start is. */
enum { ROOT, LAST_LAYER, LAYER, KERNEL, INITRD };

static int check_part(const struct jail_qemu_parts *p, unsigned i, int what, struct stat *st, struct err *e)
{
	static const struct {
		const char *name;
		int mode;
		bool reopened; /* named below /proc and opened under a uid that owns nothing */
	} wants[] = {
		[ROOT] = {"root image", O_RDONLY, false},
		[LAST_LAYER] = {"disk", O_RDWR, false},
		[LAYER] = {"disk's lower layer", O_RDONLY, false},
		[KERNEL] = {"kernel", O_RDONLY, true},
		[INITRD] = {"initial file system", O_RDONLY, true},
	};

	return check_fd(p->fds[i], wants[what].name, wants[what].mode, wants[what].reopened, p->root, st, e);
}

static int check_files(const struct jail_qemu_parts *p, struct jail_qemu *q, struct err *e)
{
	unsigned n = layers_of(p), at = 0;
	struct stat st;
	int r = check_part(p, at++, ROOT, &st, e);

	for (unsigned i = 0; i < n && r == 0; i++) {
		r = check_part(p, at++, i + 1 == n ? LAST_LAYER : LAYER, &st, e);
		if (r == 0 && i == 0)
			q->disk_bytes = (uint64_t)st.st_size;
	}
	if (r == 0 && !q->is_fork)
		r = check_part(p, at++, KERNEL, &st, e);
	if (r == 0 && !q->is_fork)
		r = check_part(p, at++, INITRD, &st, e);
	return r;
}

enum { SEALS = F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK };

/*
 * Machines share it, and who has taken one over must not change it for the others. One that may only
 * be written would be opened for reading here, with more rights than whoever handed it over has.
 */
static bool is_sealed(int fd)
{
	return sys_is_sealed(fd, SEALS);
}

static int open_state(struct jail_qemu *q, int fd, struct err *e)
{
	char path[32];
	struct stat st;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size == 0)
		return err_set(e, ERR_INVALID, "the machine's saved state must be a file with something in it");
	if (!is_sealed(fd))
		return err_set(e, ERR_INVALID, "the machine's saved state must be sealed against writing, growing and "
			       "shrinking");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	q->state_fd = sys_open(path, O_RDONLY);
	return q->state_fd < 0 ? err_sys(e, q->state_fd, "open the machine's saved state") : 0;
}

static int check_parts(const struct jail_qemu_parts *p, struct jail_qemu *q, struct err *e)
{
	unsigned n = layers_of(p);
	int r;

	if (n > LIMIT_DISK_LAYERS)
		return err_set(e, ERR_INVALID, "layers: a disk has at most %d, not %u", LIMIT_DISK_LAYERS, n);
	if (p->n_fds != n + 3)
		return err_set(e, ERR_INVALID, "a machine with a disk of %u layers takes %u descriptors, not %u", n,
			       n + 3, p->n_fds);
	if (p->rec->memory_mb < MEMORY_MIN_MB)
		return err_set(e, ERR_INVALID,
			       "memory_mb: %llu is too little, a kernel of its own needs %d",
			       (unsigned long long)p->rec->memory_mb, MEMORY_MIN_MB);
	if (!p->root && landlock_abi() == 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "this kernel has no Landlock; without it a machine under your own uid could write "
			       "to files it may only read: run hotcell as root");
	if (!p->rec->kvm && p->tsc_khz == 0)
		return err_set(e, ERR_UNSUPPORTED,
			       "this host's time stamp counter can't be measured, and emulated guests "
			       "hang without its frequency");
	if (p->rec->closure.n && !span_is(p->rec->closure, p->host->hash))
		return err_set(e, ERR_UNSUPPORTED,
			       "the snapshot was made by another QEMU (%.*s) than this host's (%.12s), and that one "
			       "is not kept here; --disk-only takes its disk and boots",
			       (int)MIN(p->rec->closure.n, (size_t)12), p->rec->closure.p, p->host->hash);
	r = check_files(p, q, e);
	if (r == 0)
		r = jail_qemu_memory_check(p->memory_fd, p->rec->memory_mb, e);
	if (r == 0 && q->is_fork)
		r = open_state(q, p->fds[n + 2], e);
	return r;
}

static void lend(struct jail_qemu *q, int from, int to)
{
	q->fds[q->n_fds++] = (struct jail_fd){from, to};
}

static void name_fds(struct jail_qemu *q, const struct jail_qemu_parts *p)
{
	unsigned n = layers_of(p);

	lend(q, p->console_fd, 1);
	lend(q, p->console_fd, 2);
	lend(q, p->fds[0], FD_ROOT);
	lend(q, p->link_fd, FD_LINK);
	lend(q, p->monitor_fd, FD_MONITOR);
	lend(q, p->console_fd, FD_CONSOLE);
	if (q->is_fork) {
		lend(q, q->state_fd, FD_STATE);
	} else {
		lend(q, p->fds[n + 1], FD_KERNEL);
		lend(q, p->fds[n + 2], FD_INITRD);
	}
	lend(q, p->memory_fd, QEMU_FD_MEMORY);
	lend(q, q->zero_fd, QEMU_FD_ZERO);
	lend(q, p->object_fd, QEMU_FD_OBJECT);
	for (unsigned i = 0; i < n; i++)
		lend(q, p->fds[1 + i], (int)(FD_LAYER + i));
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
	/* Its disk is the largest thing it writes; a layer of it has tables besides. */
	const rlim_t file = q->disk_bytes + q->disk_bytes / 512 + 4 * MIB;
	const struct jail_rlimit limits[] = {
		{RLIMIT_CORE, JAIL_NO_CORE, JAIL_NO_CORE},
		{RLIMIT_NOFILE, 256, 256},
		{RLIMIT_FSIZE, file, file},
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
	static const struct landlock_rule always[] = {
		{"/qemu", LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC},
		{"/lib64", LANDLOCK_MAY_READ | LANDLOCK_MAY_EXEC},
		{"/lib", LANDLOCK_MAY_READ},
		{"/modules", LANDLOCK_MAY_READ},
		{"/firmware", LANDLOCK_MAY_READ},
	};
	static const struct landlock_rule to_boot[] = {
		{"/proc/self/fd/7", LANDLOCK_MAY_READ}, /* the kernel's file */
		{"/proc/self/fd/8", LANDLOCK_MAY_READ}, /* the initrd's */
	};
	static const struct landlock_rule with_kvm = {"/dev/kvm", LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE};

	_Static_assert(ARRAY_LEN(always) + ARRAY_LEN(to_boot) + 1 <= ARRAY_LEN(q->landlock), "rules");
	for (size_t i = 0; i < ARRAY_LEN(always); i++)
		q->landlock[q->n_landlock++] = always[i];
	for (size_t i = 0; i < ARRAY_LEN(to_boot) && !q->is_fork; i++)
		q->landlock[q->n_landlock++] = to_boot[i];
	if (q->kvm)
		q->landlock[q->n_landlock++] = with_kvm;
}

/* ---- public ---- */

int jail_qemu_new(const struct jail_qemu_parts *p, struct jail_qemu **ret, struct err *e)
{
	struct jail_qemu *q = mem_new(sizeof(*q));
	int r;

	q->closure_mount = q->dev_mount = q->seccomp_fd = q->zero_fd = q->state_fd = -1;
	q->kvm = p->rec->kvm;
	q->is_fork = p->rec->forked;
	q->root = p->root;
	r = check_parts(p, q, e);
	if (r == 0)
		r = make_closure_mount(q, p->host, e);
	if (r == 0)
		r = make_dev_mount(q, p, e);
	if (r == 0) {
		r = q->zero_fd = sys_open(QEMU_ZERO, O_RDONLY);
		r = r < 0 ? err_sys(e, r, "open " QEMU_ZERO) : 0;
	}
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
	s->n_fds = q->n_fds;
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
	(void)sys_close(q->zero_fd);
	(void)sys_close(q->state_fd);
	free(q);
	return NULL;
}

/* ---- memory ---- */

int jail_qemu_memory_check(int fd, uint64_t mb, struct err *e)
{
	struct stat st;

	if (fcntl(fd, F_GET_SEALS) < 0 || fstat(fd, &st) < 0)
		return err_set(e, ERR_INVALID, "the memory must be a memory file");
	if (!is_sealed(fd))
		return err_set(e, ERR_INVALID, "the memory must be sealed against writing, growing and shrinking");
	if ((uint64_t)st.st_size != mb * MIB)
		return err_set(e, ERR_INVALID, "the memory is %llu bytes long, memory_mb says %llu MiB",
			       (unsigned long long)st.st_size, (unsigned long long)mb);
	return 0;
}

int jail_qemu_memory_seal(int fd, struct err *e)
{
	return fcntl(fd, F_ADD_SEALS, SEALS | F_SEAL_SEAL) < 0 ? err_sys(e, -errno, "seal a memory file") : 0;
}

uint64_t jail_qemu_memory(const struct rec_machine_start *rec)
{
	const uint64_t tables_mb = (rec->memory_mb * KEEPER_TABLES_PERMILLE + 999) / 1000;

	return (rec->memory_mb + (rec->kvm ? 0 : KEEPER_TB_MB) + KEEPER_HEAP_MB + tables_mb) * MIB;
}

unsigned jail_qemu_pids(const struct rec_machine_start *rec)
{
	return THREADS + (unsigned)rec->vcpus;
}
