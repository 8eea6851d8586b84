/* keeper/t_jail_qemu.c - what QEMU is given, and what its filter leaves it */
#include "keeper/jail_qemu.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/jail.h"
#include "keeper/jail_qemu_calls.h"
#include "keeper/keeper.h"
#include "keeper/qemu_host.h"
#include "keeper/qemu_memory.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"
#include "wire/gen/records.h"

enum { ROOT, DISK, KERNEL, INITRD, GIVEN };

struct given {
	struct qemu_host host;
	struct rec_machine_start rec;
	int fds[GIVEN], memory, object, link[2], monitor[2], console[2];
	struct jail_qemu_parts parts;
};

static int file_of(int flags, mode_t mode)
{
	char name[] = "/tmp/t_jail_qemu.XXXXXX";
	int fd = mkstemp(name), again;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	again = sys_open(name, flags);
	assert_int_equal(unlink(name), 0);
	(void)sys_close(fd);
	return again;
}

static int memory_of(uint64_t mb, bool sealed)
{
	int fd = sys_memfd("ram", MFD_ALLOW_SEALING);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(mb * MIB)), 0);
	if (sealed)
		assert_int_equal(jail_qemu_memory_seal(fd, NULL), 0);
	return fd;
}

static void begin(struct given *g)
{
	*g = (struct given){
		.host = {.version = "9.0", .closure = "/nowhere", .root_fd = -1},
		.rec = {.id = {{0xab}}, .kind = 2, .vcpus = 2, .memory_mb = 300},
		.fds = {file_of(O_RDONLY, 0600), file_of(O_RDWR, 0600), file_of(O_RDONLY, 0644),
			file_of(O_RDONLY, 0644)},
		.memory = memory_of(300, true),
		.object = -1,
	};
	assert_int_equal(qemu_memory_object_new(&g->object, NULL), 0);
	assert_int_equal(sys_socketpair(g->link), 0);
	assert_int_equal(sys_socketpair(g->monitor), 0);
	assert_int_equal(sys_pipe(g->console), 0);
	g->parts = (struct jail_qemu_parts){
		.host = &g->host,
		.rec = &g->rec,
		.fds = g->fds,
		.n_fds = GIVEN,
		.memory_fd = g->memory,
		.object_fd = g->object,
		.link_fd = g->link[1],
		.monitor_fd = g->monitor[1],
		.console_fd = g->console[1],
		.tsc_khz = 2600123,
	};
}

static void end(struct given *g)
{
	int all[] = {g->fds[0],  g->fds[1],	g->fds[2],     g->fds[3],     g->link[0],
		     g->link[1], g->memory, g->object, g->monitor[0], g->monitor[1], g->console[0], g->console[1]};

	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		(void)sys_close(all[i]);
}

static bool has(const struct jail_spec *s, const char *option, const char *value)
{
	for (const char *const *a = s->argv; *a; a++)
		if (strcmp(*a, option) == 0 && a[1] && strstr(a[1], value))
			return true;
	return false;
}

static int lent_as(const struct jail_spec *s, int to)
{
	for (unsigned i = 0; i < s->n_fds; i++)
		if (s->fds[i].to == to)
			return s->fds[i].from;
	return -1;
}

static void composes(void **state)
{
	struct jail_spec s = {0};
	struct jail_qemu *q = NULL;
	struct given g;
	bool bounded = false;

	T_UNUSED(state);
	begin(&g);
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), 0);
	jail_qemu_spec(q, &s);
	assert_true(has(&s, "-accel", "tcg,tb-size=") && has(&s, "-cpu", KEEPER_CPU));
	assert_true(has(&s, "-m", "300M") && has(&s, "-smp", "2"));
	assert_true(has(&s, "-append", "tsc_early_khz=2600123 tsc=reliable"));
	assert_true(has(&s, "-append", "initcall_blacklist=cmos_init"));
	assert_true(has(&s, "-name", "ab000000000000000000000000000000"));
	assert_true(has(&s, "-sandbox", "spawn=deny"));
	assert_true(has(&s, "-machine", "memory-backend=ram"));
	assert_true(has(&s, "-object", "size=300M,mem-path=/proc/self/fd/9,share=off"));
	assert_true(has(&s, "-kernel", "/proc/self/fd/7") && has(&s, "-initrd", "/proc/self/fd/8"));
	assert_false(has(&s, "-incoming", "defer"));
	assert_true(has(&s, "-blockdev", "driver=raw,node-name=l0,file=l0-file,read-only=off"));
	assert_true(has(&s, "-device", "drive=l0"));
	assert_int_equal(lent_as(&s, 3), g.fds[ROOT]);
	assert_int_equal(lent_as(&s, 12), g.fds[DISK]);
	assert_int_equal(lent_as(&s, 10), g.memory);
	assert_int_equal(lent_as(&s, 9), -1); /* only the object makes it */
	assert_int_equal(lent_as(&s, QEMU_FD_OBJECT), g.object);
	assert_int_equal(s.n_fds, 12);
	assert_int_equal(s.namespaces & CLONE_NEWNET, CLONE_NEWNET);
	assert_false(s.keep_caps);
	assert_true(s.seccomp_fd >= 0 && s.landlock && s.n_landlock);
	for (unsigned i = 0; i < s.n_rlimits; i++)
		bounded |= s.rlimits[i].what == RLIMIT_FSIZE && s.rlimits[i].hard > 1 << 20 &&
			   s.rlimits[i].hard < 8 << 20;
	assert_true(bounded);
	for (unsigned i = 0; i < s.n_landlock; i++)
		assert_string_not_equal(s.landlock[i].path, "/dev/kvm");
	assert_true(jail_qemu_memory(&g.rec) > 300 * MIB && jail_qemu_memory(&g.rec) < 600 * MIB);
	assert_true(fcntl(g.console[1], F_GETFL) & O_NONBLOCK);
	(void)jail_qemu_free(q);
	end(&g);
}

/* Three layers, memory and state; no kernel, and nothing that lends one. */
static void composes_a_fork(void **state)
{
	struct jail_spec s = {0};
	struct jail_qemu *q = NULL;
	struct given g;
	int fds[6];

	T_UNUSED(state);
	begin(&g);
	fds[0] = g.fds[ROOT];
	fds[1] = g.fds[KERNEL]; /* any file that is open for reading */
	fds[2] = g.fds[INITRD];
	fds[3] = g.fds[DISK];
	fds[4] = g.memory;
	fds[5] = memory_of(1, true);
	g.rec.forked = true;
	g.rec.layers = 3;
	g.parts.fds = fds;
	g.parts.n_fds = ARRAY_LEN(fds);
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), 0);
	jail_qemu_spec(q, &s);
	assert_true(has(&s, "-incoming", "defer") && has(&s, "-global", "migration.send-configuration=off"));
	assert_false(has(&s, "-kernel", "") || has(&s, "-initrd", "") || has(&s, "-append", ""));
	assert_true(has(&s, "-blockdev", "driver=raw,node-name=l0,file=l0-file,read-only=on"));
	assert_true(has(&s, "-blockdev", "driver=qcow2,node-name=l1,file=l1-file,backing=l0,read-only=on"));
	assert_true(has(&s, "-blockdev", "driver=qcow2,node-name=l2,file=l2-file,backing=l1,read-only=off"));
	assert_true(has(&s, "-device", "drive=l2") && !has(&s, "-device", "drive=l1"));
	assert_int_equal(lent_as(&s, 14), fds[3]);
	assert_true(lent_as(&s, KEEPER_STATE_FD) >= 0);
	assert_int_not_equal(lent_as(&s, KEEPER_STATE_FD), fds[5]); /* an offset of its own */
	for (unsigned i = 0; i < s.n_landlock; i++)
		assert_null(strstr(s.landlock[i].path, "/proc"));
	q = jail_qemu_free(q);
	fds[1] = g.fds[DISK]; /* a lower layer that could be written */
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), -ERR_INVALID);
	fds[1] = g.fds[KERNEL];
	(void)sys_close(fds[5]);
	for (int i = 0; i < 2; i++) { /* state that somebody could change */
		fds[5] = i ? g.fds[KERNEL] : memory_of(1, false);
		assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), -ERR_INVALID);
		if (!i)
			(void)sys_close(fds[5]);
	}
	g.rec.closure = span_of("0123");
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), -ERR_UNSUPPORTED);
	end(&g);
}

/* As many as a disk may have, and one more. */
static void composes_all_layers(void **state)
{
	struct jail_spec s = {0};
	struct jail_qemu *q = NULL;
	struct err e = ERR_INIT;
	int fds[JAIL_QEMU_FDS_MAX];
	struct given g;

	T_UNUSED(state);
	begin(&g);
	for (unsigned i = 0; i < ARRAY_LEN(fds); i++)
		fds[i] = g.fds[ROOT];
	fds[LIMIT_DISK_LAYERS] = g.fds[DISK];
	fds[LIMIT_DISK_LAYERS + 2] = g.memory; /* any that is sealed */
	g.rec.forked = true;
	g.rec.layers = LIMIT_DISK_LAYERS;
	g.parts.fds = fds;
	g.parts.n_fds = ARRAY_LEN(fds);
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), 0);
	jail_qemu_spec(q, &s);
	for (int i = 0; i < LIMIT_DISK_LAYERS; i++)
		assert_int_equal(lent_as(&s, 12 + i), fds[1 + i]);
	q = jail_qemu_free(q);
	g.rec.layers = LIMIT_DISK_LAYERS + 1;
	g.parts.n_fds++;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "layers"));
	g.rec.layers = LIMIT_DISK_LAYERS - 1;
	g.parts.n_fds--;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "takes 10 descriptors, not 11"));
	end(&g);
}

static void refuse_memory(int fd, const char *says)
{
	struct jail_qemu *q = NULL;
	struct err e = ERR_INIT;
	struct given g;

	begin(&g);
	g.parts.memory_fd = fd;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, says));
	(void)sys_close(fd);
	end(&g);
}

static void refuses_memory(void **state)
{
	T_UNUSED(state);
	refuse_memory(memory_of(300, false), "sealed");
	refuse_memory(memory_of(301, true), "memory_mb");
	refuse_memory(file_of(O_RDWR, 0600), "memory");
	refuse_memory(-1, "memory file");
	refuse_memory(sys_open("/dev/zero", O_RDWR), "memory file");
}

static void composes_for_kvm(void **state)
{
	struct jail_spec s = {0};
	struct jail_qemu *q = NULL;
	struct given g;

	T_UNUSED(state);
	begin(&g);
	g.rec.kvm = true;
	g.parts.tsc_khz = 0; /* the guest asks KVM */
	assert_int_equal(jail_qemu_new(&g.parts, &q, NULL), 0);
	jail_qemu_spec(q, &s);
	assert_true(has(&s, "-accel", "kvm") && has(&s, "-cpu", "host"));
	assert_false(has(&s, "-append", "mitigations"));
	assert_true(has(&s, "-append", "initcall_blacklist=cmos_init"));
	assert_string_equal(s.landlock[s.n_landlock - 1].path, "/dev/kvm");
	assert_true(jail_qemu_memory(&g.rec) > 300 * MIB);
	(void)jail_qemu_free(q);
	end(&g);
}

/* Replace one descriptor and expect a refusal that names it. */
static void refuse_fd(unsigned which, int fd, bool root, const char *says)
{
	struct jail_qemu *q = NULL;
	struct err e = ERR_INIT;
	struct given g;

	begin(&g);
	g.parts.root = root;
	(void)sys_close(g.fds[which]);
	g.fds[which] = fd;
	assert_true(jail_qemu_new(&g.parts, &q, &e) < 0);
	assert_null(q);
	assert_non_null(strstr(e.text, says));
	end(&g);
}

static void refuses_descriptors(void **state)
{
	int pair[2];

	T_UNUSED(state);
	refuse_fd(ROOT, file_of(O_RDWR, 0644), false, "root image must be a file opened for reading");
	refuse_fd(ROOT, file_of(O_PATH, 0644), false, "root image");
	refuse_fd(DISK, file_of(O_RDONLY, 0644), false, "disk must be a file opened for reading and writing");
	refuse_fd(ROOT, file_of(O_RDONLY, 0666), true, "written by everybody");
	refuse_fd(KERNEL, sys_open("/tmp", O_RDONLY), false, "kernel must be a file");
	refuse_fd(KERNEL, sys_open("/dev/null", O_RDONLY), false, "kernel must be a file");
	refuse_fd(KERNEL, file_of(O_RDONLY, 0600), true, "readable by everybody");
	refuse_fd(INITRD, sys_memfd("empty", 0), false, "initial file system");
	refuse_fd(INITRD, -1, false, "initial file system");
	assert_int_equal(sys_pipe(pair), 0);
	(void)sys_close(pair[1]);
	refuse_fd(INITRD, pair[0], false, "initial file system");
}

static void refuses_numbers(void **state)
{
	struct jail_qemu *q = NULL;
	struct err e = ERR_INIT;
	struct given g;

	T_UNUSED(state);
	begin(&g);
	g.parts.n_fds = 3;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_INVALID);
	g.parts.n_fds = GIVEN;
	g.rec.memory_mb = 127;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "128"));
	g.rec.memory_mb = 128;
	g.parts.tsc_khz = 0;
	assert_int_equal(jail_qemu_new(&g.parts, &q, &e), -ERR_UNSUPPORTED);
	end(&g);
}

static void every_fault(void **state)
{
	struct given g;

	T_UNUSED(state);
	begin(&g);
	FOR_EACH_FAULT(nth, EMFILE)
	{
		struct jail_qemu *q = NULL;
		struct err e = ERR_INIT;

		if (jail_qemu_new(&g.parts, &q, &e) < 0)
			assert_true(e.text[0] != '\0');
		(void)jail_qemu_free(q);
	}
	end(&g);
}

/* ---- the filter, in a child ---- */

static long writes(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY, 0);
}

static long writes_and_reads(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR, 0);
}

static long creates(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/tmp/t_jail_qemu", O_CREAT, 0600);
}

static long makes_tmpfile(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/tmp", O_TMPFILE | O_RDWR, 0600);
}

static long reads(void)
{
	return syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0);
}

static long connects(void)
{
	return syscall(SYS_socket, AF_UNIX, SOCK_STREAM, 0);
}

static long forks(void)
{
	return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static long clones3(void)
{
	return syscall(SYS_clone3, NULL, 0);
}

static long mounts(void)
{
	return syscall(SYS_mount, NULL, "/", NULL, 0, NULL);
}

static long traces(void)
{
	return syscall(SYS_ptrace, 0, 0, 0, 0);
}

static long kills(void)
{
	return syscall(SYS_kill, 1, 0);
}

static long stuffs_terminal(void)
{
	return syscall(SYS_ioctl, 0, TIOCSTI, "x");
}

static long raises_limit(void)
{
	static const struct rlimit more = {1 << 20, 1 << 20};

	return syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &more, NULL);
}

static long unshares(void)
{
	return syscall(SYS_unshare, CLONE_NEWUSER);
}

/* Returns the errno, 0, or minus the signal that ended the child. */
static int try(const struct seccomp_policy *p, long (*what)(void))
{
	AUTO_CLOSE int filter = -1;
	int status = 0;
	pid_t pid;

	assert_int_equal(seccomp_compile(p, &filter), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		static const struct rlimit none = {0, 0};

		if (setrlimit(RLIMIT_CORE, &none) < 0 || sys_no_new_privs() < 0 || seccomp_install(filter) < 0)
			_exit(200);
		syscall(SYS_exit_group, what() < 0 ? errno : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void filters(void **state)
{
	static const struct {
		long (*what)(void);
		int tcg, kvm;
	} cases[] = {
		{reads, 0, 0},
		{writes, EPERM, 0}, /* /dev/kvm; the rest is Landlock's */
		{writes_and_reads, 0, 0}, /* the sealed memory; Landlock again */
		{creates, EPERM, EPERM},
		{makes_tmpfile, -SIGSYS, -SIGSYS},
		{connects, EPERM, EPERM},
		{clones3, ENOSYS, ENOSYS},
		{forks, -SIGSYS, -SIGSYS},
		{mounts, -SIGSYS, -SIGSYS},
		{traces, -SIGSYS, -SIGSYS},
		{kills, -SIGSYS, -SIGSYS},
		{stuffs_terminal, -SIGSYS, -SIGSYS},
		{raises_limit, -SIGSYS, -SIGSYS},
		{unshares, -SIGSYS, -SIGSYS},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(try(&jail_qemu_calls, cases[i].what), cases[i].tcg);
		assert_int_equal(try(&jail_qemu_calls_kvm, cases[i].what), cases[i].kvm);
	}
}

T_MAIN(T(composes), T(composes_a_fork), T(composes_all_layers), T(refuses_memory), T(composes_for_kvm),
       T(refuses_descriptors), T(refuses_numbers), T(every_fault), T(filters))
