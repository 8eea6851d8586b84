/*
 * keeper/t_qemu_host.c - closures are whole, named by content, built once
 *
 * The test program plays QEMU: called with --version it prints what the file `version`
 * beside it says. Its own libraries are the closure's.
 */
#include "keeper/qemu_host.h"
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fd.h"

[[gnu::constructor]] static void play_qemu(int argc, char **argv)
{
	char path[PATH_MAX + 16], text[256];
	ssize_t n;

	if (argc != 2 || strcmp(argv[1], "--version") != 0)
		return;
	(void)snprintf(path, sizeof(path), "%s.version", argv[0]);
	n = sys_read_file(AT_FDCWD, path, text, sizeof(text));
	if (n > 0 && write(1, text, (size_t)n) != n)
		_exit(2);
	_exit(n < 0);
}

struct place {
	char dir[64], qemu[128], closures[128];
	struct qemu_host h;
	struct err e;
};

static void put(const struct place *p, const char *name, const char *text)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s/%s", p->dir, name);
	assert_int_equal(sys_write_file(AT_FDCWD, path, text), 0);
	assert_int_equal(chmod(path, 0644), 0);
}

static void copy_self(const char *to)
{
	AUTO_CLOSE int from = sys_open("/proc/self/exe", O_RDONLY), out = sys_create(to, O_WRONLY, 0755);
	char bytes[65536];
	ssize_t n;

	assert_true(from >= 0 && out >= 0);
	while ((n = sys_read(from, bytes, sizeof(bytes))) > 0)
		assert_int_equal(sys_write_full(out, bytes, (size_t)n), 0);
	assert_int_equal(n, 0);
}

static void begin(struct place *p)
{
	*p = (struct place){.dir = "/tmp/t_qemu_host.XXXXXX", .h = QEMU_HOST_INIT};
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(p->qemu, sizeof(p->qemu), "%s/bin/qemu", p->dir);
	(void)snprintf(p->closures, sizeof(p->closures), "%s/state/closures", p->dir);
	for (const char *const *d = (const char *const[]){"bin", "share", "share/qemu", NULL}; *d; d++) {
		char path[128];

		(void)snprintf(path, sizeof(path), "%s/%s", p->dir, *d);
		assert_int_equal(sys_mkdirs(path, 0755), 0);
	}
	copy_self(p->qemu);
	put(p, "bin/qemu.version", "QEMU emulator version 9.1.2 (Test)\nCopyright\n");
	put(p, "share/qemu/qboot.rom", "qboot");
	put(p, "share/qemu/bios-microvm.bin", "a BIOS that does not boot");
	put(p, "share/qemu/pvh.bin", "pvh");
	put(p, "share/qemu/linuxboot_dma.bin", "linuxboot");
	put(p, "share/qemu/kvmvapic.bin", "vapic");
}

static void end(struct place *p)
{
	qemu_host_deinit(&p->h);
	assert_int_equal(sys_remove_tree(AT_FDCWD, p->dir), 0);
}

static int probe(struct place *p)
{
	qemu_host_deinit(&p->h);
	p->e = (struct err)ERR_INIT;
	return qemu_host_probe(p->qemu, p->closures, geteuid() == 0, &p->h, &p->e);
}

static ino_t inode_of(const struct place *p, const char *name)
{
	struct stat st;

	if (fstatat(p->h.root_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return st.st_ino;
}

static void assert_content(const struct place *p, const char *name, const char *want)
{
	char text[64];

	assert_true(sys_read_file(p->h.root_fd, name, text, sizeof(text)) >= 0);
	assert_string_equal(text, want);
}

static void builds_once(void **state)
{
	struct place p;
	struct stat st;
	char hash[65];
	ino_t first;
	mode_t mask;

	T_UNUSED(state);
	begin(&p);
	mask = umask(077); /* the operator's; the closure's readers are other uids */
	assert_int_equal(probe(&p), 0);
	(void)umask(mask);
	assert_int_equal(fstatat(p.h.root_fd, "lib", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0755);
	assert_int_equal(fstatat(p.h.root_fd, "qemu", &st, 0), 0);
	assert_int_equal(st.st_mode & 0777, 0555);
	assert_string_equal(p.h.version, "9.1.2");
	assert_content(&p, "firmware/bios-microvm.bin", "qboot");
	assert_content(&p, "firmware/pvh.bin", "pvh");
	assert_true(inode_of(&p, "qemu") && inode_of(&p, "lib/libc.so.6") && inode_of(&p, "dev/kvm"));
	assert_true(inode_of(&p, "lib64/ld-linux-x86-64.so.2") && inode_of(&p, "proc"));
	assert_non_null(strstr(p.h.closure, p.h.hash));
	first = inode_of(&p, "qemu");
	(void)snprintf(hash, sizeof(hash), "%s", p.h.hash);
	assert_int_equal(probe(&p), 0);
	assert_int_equal(inode_of(&p, "qemu"), first);
	assert_string_equal(p.h.hash, hash);
	end(&p);
}

static void follows_changes(void **state)
{
	struct place p;
	char hash[65], old[QEMU_PATH_MAX];

	T_UNUSED(state);
	begin(&p);
	assert_int_equal(probe(&p), 0);
	(void)snprintf(hash, sizeof(hash), "%s", p.h.hash);
	(void)snprintf(old, sizeof(old), "%s", p.h.closure);
	put(&p, "share/qemu/pvh.bin", "pvh2");
	assert_int_equal(probe(&p), 0);
	assert_string_not_equal(p.h.hash, hash);
	assert_content(&p, "firmware/pvh.bin", "pvh2");
	assert_int_equal(access(old, F_OK), 0); /* machines may run from it */
	put(&p, "share/qemu/pvh.bin", "pvh"); /* the old contents at other times */
	assert_int_equal(probe(&p), 0);
	assert_string_equal(p.h.hash, hash);
	end(&p);
}

/* What an upgrade left behind still runs what it saved, as long as it is what it was. */
static void opens_older_ones(void **state)
{
	struct qemu_host old = QEMU_HOST_INIT;
	struct place p;
	char hash[65], path[256];

	T_UNUSED(state);
	begin(&p);
	assert_int_equal(probe(&p), 0);
	(void)snprintf(hash, sizeof(hash), "%s", p.h.hash);
	put(&p, "share/qemu/pvh.bin", "pvh2");
	assert_int_equal(probe(&p), 0);
	assert_string_not_equal(p.h.hash, hash);
	assert_int_equal(qemu_host_open(p.closures, hash, &old, &p.e), 0);
	assert_string_equal(old.hash, hash);
	assert_string_equal(old.version, "9.1.2");
	assert_int_equal(faccessat(old.root_fd, "qemu", X_OK, 0), 0);
	qemu_host_deinit(&old);
	assert_int_equal(qemu_host_open(p.closures, "../etc", &old, &p.e), -ERR_INVALID);
	(void)snprintf(path, sizeof(path), "%064d", 0);
	assert_int_equal(qemu_host_open(p.closures, path, &old, &p.e), -ERR_NOT_FOUND);
	(void)snprintf(path, sizeof(path), "%s/%s/root/firmware/pvh.bin", p.closures, hash);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(sys_write_file(AT_FDCWD, path, "PVH"), 0);
	assert_int_equal(qemu_host_open(p.closures, hash, &old, &p.e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(p.e.text, "firmware/pvh.bin was changed"));
	(void)snprintf(path, sizeof(path), "%s/%s/manifest", p.closures, hash);
	assert_int_equal(sys_write_file(AT_FDCWD, path, "hotcell closure 1\nversion 9.1.2\n"), 0);
	assert_int_equal(qemu_host_open(p.closures, hash, &old, &p.e), -ERR_UNSUPPORTED);
	assert_int_equal(old.root_fd, -1);
	end(&p);
}

/* QEMU-1: what a killed builder left does not matter. */
static void survives_interruption(void **state)
{
	struct place p;
	char path[256];

	T_UNUSED(state);
	begin(&p);
	(void)snprintf(path, sizeof(path), "%s/.new/root/lib", p.closures);
	assert_int_equal(sys_mkdirs(path, 0755), 0);
	put(&p, "state/closures/.new/root/qemu", "half a program");
	put(&p, "state/closures/.link", "");
	assert_int_equal(probe(&p), 0);
	assert_true(inode_of(&p, "lib/libc.so.6"));
	(void)snprintf(path, sizeof(path), "%s/%s/manifest", p.closures, p.h.hash);
	assert_int_equal(unlink(path), 0); /* damaged: made anew */
	assert_int_equal(probe(&p), 0);
	assert_content(&p, "firmware/pvh.bin", "pvh");
	(void)snprintf(path, sizeof(path), "%s/%s", p.closures, p.h.hash);
	assert_int_equal(sys_remove_tree(AT_FDCWD, path), 0); /* a stamp that points nowhere */
	assert_int_equal(probe(&p), 0);
	assert_content(&p, "firmware/pvh.bin", "pvh");
	end(&p);
}

static void refuses(void **state)
{
	static const struct {
		const char *file, *text, *says;
		mode_t mode;
	} cases[] = {
		{"bin/qemu.version", "QEMU emulator version 5.2.0\n", "too old", 0644},
		{"bin/qemu.version", "QEMU emulator version 7.1.9\n", "too old", 0644},
		{"bin/qemu.version", "GNU hello 1\n", "which version", 0644},
		{"share/qemu/pvh.bin", "pvh", "written by others", 0666},
		{"share/qemu/qboot.rom", "qboot", "written by others", 0664},
	};
	struct place p;

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char path[256];

		begin(&p);
		put(&p, cases[i].file, cases[i].text);
		(void)snprintf(path, sizeof(path), "%s/%s", p.dir, cases[i].file);
		assert_int_equal(chmod(path, cases[i].mode), 0);
		assert_int_equal(probe(&p), -ERR_UNSUPPORTED);
		assert_non_null(strstr(p.e.text, cases[i].says));
		end(&p);
	}
}

static void says_what_is_missing(void **state)
{
	struct place p;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	begin(&p);
	assert_int_equal(qemu_host_probe("bin/qemu", p.closures, false, &p.h, &e), -ERR_INVALID);
	assert_int_equal(qemu_host_probe("/nowhere/qemu", p.closures, false, &p.h, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "/nowhere/qemu"));
	assert_int_equal(qemu_host_probe("/etc/passwd", p.closures, false, &p.h, &e), -ERR_UNSUPPORTED);
	end(&p);
}

/* A fault at (a sample of) every step: an error with a sentence, and the next try succeeds. */
static void every_fault(void **state)
{
	enum { STEP = 37 };
	struct place p;
	unsigned seen;

	T_UNUSED(state);
	begin(&p);
	for (unsigned nth = 1;; nth += STEP) {
		struct t_fds then;
		int r;

		assert_int_equal(sys_remove_tree(AT_FDCWD, p.closures), 0);
		t_fds_read(&then);
		sys_fault_arm(nth, -ENOSPC);
		r = probe(&p);
		seen = sys_fault_seen();
		sys_fault_arm(0, 0);
		qemu_host_deinit(&p.h);
		assert_int_equal(t_fds_leaked(&then), 0);
		if (r < 0)
			assert_true(p.e.text[0] != '\0');
		assert_int_equal(probe(&p), 0);
		assert_content(&p, "firmware/pvh.bin", "pvh");
		if (seen < nth)
			break;
	}
	end(&p);
}

T_MAIN(T(builds_once), T(follows_changes), T(opens_older_ones), T(survives_interruption), T(refuses),
       T(says_what_is_missing), T(every_fault))
