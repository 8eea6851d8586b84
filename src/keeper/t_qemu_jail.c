/*
 * keeper/t_qemu_jail.c - somebody took QEMU over: what can he reach?
 *
 * The real jail around a static program in QEMU's place (keeper/test/qemu_inmate.c). As root
 * with a slot's ids; otherwise with one's own, where the host allows it.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/jail.h"
#include "keeper/jail_qemu.h"
#include "keeper/qemu_host.h"
#include "keeper/qemu_memory.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/process.h"
#include "sys/sock.h"
#include "wire/gen/records.h"

enum { ROOT, DISK, KERNEL, INITRD, GIVEN };
enum { IDS = 0x70010000, FILE_BYTES = 1 << 20, FDS = 13, NO_ANSWER = 1 << 20, PATIENCE_MS = 20000 };

struct world {
	char dir[64];
	struct qemu_host host;
	struct rec_machine_start rec;
	int fds[GIVEN], memory, object, monitor, link, console;
	struct jail_child child;
};

static void put(struct world *w, const char *name, const char *from, mode_t mode)
{
	char path[256], bytes[65536];
	AUTO_CLOSE int in = sys_open(from, O_RDONLY), out = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	out = sys_create(path, O_WRONLY | O_EXCL, 0600);
	assert_true(in >= 0 && out >= 0);
	while ((n = sys_read(in, bytes, sizeof(bytes))) > 0)
		assert_int_equal(sys_write_full(out, bytes, (size_t)n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(fchmod(out, mode), 0);
}

static int file_of(struct world *w, const char *name, int flags)
{
	char path[256];
	AUTO_CLOSE int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/%s", w->dir, name);
	fd = sys_create(path, O_RDWR | O_EXCL, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0644), 0);
	assert_int_equal(ftruncate(fd, FILE_BYTES), 0);
	return sys_open(path, flags);
}

static bool begin(struct world *w)
{
	static const char *const folders[] = {"root", "root/lib", "root/lib64", "root/modules",
					      "root/firmware", "root/dev", "root/proc"};
	char inmate[512], path[256];

	*w = (struct world){.dir = "/tmp/t_qemu_jail.XXXXXX", .host = QEMU_HOST_INIT, .child = JAIL_CHILD_INIT};
	if (!getenv("HOTCELL_BUILD"))
		return false;
	(void)snprintf(inmate, sizeof(inmate), "%s/src/bin/qemu-inmate", getenv("HOTCELL_BUILD"));
	if (access(inmate, X_OK) < 0)
		return false;
	assert_non_null(mkdtemp(w->dir));
	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", w->dir, folders[i]);
		assert_int_equal(sys_mkdir(AT_FDCWD, path, 0755), 0);
	}
	put(w, "root/qemu", inmate, 0555);
	put(w, "root/dev/kvm", "/dev/null", 0444);
	(void)snprintf(w->host.closure, sizeof(w->host.closure), "%s/root", w->dir);
	w->host.root_fd = sys_open(w->host.closure, O_PATH | O_DIRECTORY);
	w->rec = (struct rec_machine_start){.kind = 2, .vcpus = 1, .memory_mb = 128};
	w->fds[ROOT] = file_of(w, "image", O_RDONLY);
	w->fds[DISK] = file_of(w, "disk", O_RDWR);
	w->fds[KERNEL] = file_of(w, "kernel", O_RDONLY);
	w->fds[INITRD] = file_of(w, "initrd", O_RDONLY);
	w->memory = sys_memfd("ram", MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(w->memory, 128 << 20), 0);
	assert_int_equal(jail_qemu_memory_seal(w->memory, NULL), 0);
	assert_int_equal(qemu_memory_object_new(&w->object, NULL), 0);
	return true;
}

static void end(struct world *w)
{
	for (int i = 0; i < GIVEN; i++)
		(void)sys_close(w->fds[i]);
	(void)sys_close(w->memory);
	(void)sys_close(w->object);
	qemu_host_deinit(&w->host);
	assert_int_equal(sys_remove_tree(AT_FDCWD, w->dir), 0);
}

/* Return: 0, or what the host says to a jail. */
static int enter(struct world *w, struct err *e)
{
	bool root = geteuid() == 0;
	int link[2], monitor[2], console[2], r;
	struct jail_spec s = {
		.name = "qemu",
		.uid_base = root ? IDS : geteuid(),
		.gid_base = root ? IDS : getegid(),
		.id_count = root ? JAIL_IDS : 1,
	};
	struct jail_qemu *q = NULL;
	struct jail_qemu_parts p = {
		.host = &w->host, .rec = &w->rec, .fds = w->fds, .n_fds = GIVEN, .memory_fd = w->memory,
		.object_fd = w->object,
		.tsc_khz = 1000000,
		.root = root, .uid_base = s.uid_base, .gid_base = s.gid_base,
	};

	assert_int_equal(sys_socketpair(link) | sys_socketpair(monitor) | sys_pipe(console), 0);
	assert_int_equal(sys_nonblock(monitor[1], false), 0); /* the inmate's end; QEMU does this itself */
	p.link_fd = link[1];
	p.monitor_fd = monitor[1];
	p.console_fd = console[1];
	assert_int_equal(jail_qemu_new(&p, &q, e), 0);
	jail_qemu_spec(q, &s);
	r = jail_start(&s, &w->child, e);
	(void)jail_qemu_free(q);
	(void)sys_close(link[1]);
	(void)sys_close(monitor[1]);
	(void)sys_close(console[1]);
	w->link = link[0];
	w->monitor = monitor[0];
	w->console = console[0];
	return r;
}

static void leave(struct world *w)
{
	jail_end(&w->child);
	(void)sys_close(w->link);
	(void)sys_close(w->monitor);
	(void)sys_close(w->console);
}

/* What command @c answers; NO_ANSWER + signal when it died of it. */
static int64_t ask(struct world *w, unsigned char c)
{
	struct pollfd fds[2] = {{.fd = w->monitor, .events = POLLIN}, {.fd = w->child.pidfd, .events = POLLIN}};
	struct sys_exit how;
	int64_t r;

	assert_int_equal(sys_write_full(w->monitor, &c, 1), 0);
	assert_true(poll(fds, 2, PATIENCE_MS) > 0);
	if (sys_read(w->monitor, &r, sizeof(r)) == sizeof(r))
		return r;
	assert_int_equal(sys_pidfd_wait(w->child.pidfd, &how), 0);
	w->child.pidfd = sys_close(w->child.pidfd);
	return NO_ANSWER + how.signal;
}

static void nothing_to_reach(void **state)
{
	const int landlock = landlock_abi() ? -EACCES : 0, kill = NO_ANSWER + SIGSYS;
	const struct {
		const char *what;
		int64_t want;
	} tries[] = {
		{"open the shared image for writing", -EACCES},
		{"open the shared image again", landlock},
		{"open the kernel by number", 0}, /* as QEMU does */
		{"open the kernel for writing", -EPERM},
		{"open /proc/self/mem", landlock},
		{"read its own program", 0},
		{"open its own program for writing", landlock ? landlock : -EROFS},
		{"make a file", -EPERM},
		{"open a file of the host", -ENOENT},
		{"open /dev/kvm without KVM", landlock},
		{"write to the image", -EBADF},
		{"write to the kernel", -EBADF},
		{"write to its disk", 1}, /* as it should */
		{"write behind its disk", -EFBIG},
		{"count descriptors", FDS},
		{"count processes", 1},
		{"see /proc beyond its own process", 0},
		{"see /usr", -ENOENT},
		{"uid", geteuid() == 0},
		{"open a Unix socket", -EPERM},
		{"open a netlink socket", -EPERM},
		{"limit of files", 256},
		{"become root", kill},
		{"fork", kill},
		{"mount", kill},
		{"unshare", kill},
		{"trace", kill},
		{"signal everybody", kill},
		{"chroot", kill},
		{"raise a limit", kill},
		{"change a mode", kill},
		{"open the memory by number", 0}, /* as QEMU does */
		{"write to the memory", -EPERM},
		{"punch a hole into the memory", -EPERM},
		{"map the memory so that others see it", -EPERM},
		{"map the memory for itself", 0},
		{"write to the memory, opened again", -EPERM},
		{"map the memory to read, then to write", -EACCES},
		{"discard the memory", -EACCES},
		{"cut the memory", -EPERM},
	};
	struct world w;

	T_UNUSED(state);
	if (!begin(&w)) {
		print_message("no qemu-inmate in the build\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_LEN(tries); i++) {
		struct err e = ERR_INIT;
		int64_t got;

		if (enter(&w, &e) < 0) {
			leave(&w);
			end(&w);
			print_message("%s\n", e.text);
			assert_int_not_equal(geteuid(), 0);
			skip();
		}
		got = ask(&w, (unsigned char)i);
		if (got != tries[i].want)
			fail_msg("%s: %lld, not %lld (%s)", tries[i].what, (long long)got,
				 (long long)tries[i].want, jail_status(w.child.status_fd, &e) < 0 ? e.text : "");
		leave(&w);
	}
	end(&w);
}

T_MAIN(T(nothing_to_reach))
