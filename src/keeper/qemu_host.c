/*
 * keeper/qemu_host.c - find QEMU, copy what it needs
 *
 * {closures}/<hash>/root/		the jail's root: qemu, lib*, modules, firmware, places for /dev/kvm and /proc
 * {closures}/<hash>/manifest	version, then hash, size and name of every file; <hash> is its hash
 * {closures}/stamp-<hash>	-> <hash>; named after device, inode, size and times of the originals
 *
 * The stamp makes the everyday case cheap: nothing is read but the loader's list.
 */
#include "keeper/qemu_host.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/span.h"
#include "base/str.h"
#include "sys/fd.h"

#define LOADER	"/lib64/ld-linux-x86-64.so.2" /* the x86-64 psABI fixes this path */
#define INSTALL "type: apt-get install qemu-system-x86"

enum {
	FILES_MAX = 256,
	OUTPUT_MAX = 64 * 1024,	  /* of the loader's list, or of --version */
	MANIFEST_MAX = 64 * 1024,
	HASH_TEXT = 65,
	OLDEST_MAJOR = 7, /* 7.2: what the command line and the filter were tried with */
	OLDEST_MINOR = 2,
};

/* Known programs. The small microvm binary is not here: it has no TCG. */
static const char *const programs[] = {
	"/usr/bin/qemu-system-x86_64",
	"/usr/local/bin/qemu-system-x86_64",
};

/* Where distributions put modules and firmware, seen from the program's folder, then absolute. */
static const char *const module_folders[] = {
	"../lib/x86_64-linux-gnu/qemu", "../lib/qemu", "../lib64/qemu", "/usr/lib/x86_64-linux-gnu/qemu",
};
static const char *const firmware_folders[] = {
	"../share/qemu", "../share/seabios", "/usr/share/qemu", "/usr/share/seabios",
};

/*
 * What microvm asks for, seen by tracing QEMU 7.2 and 10.0, and what it is given. Some distributions have
 * SeaBIOS under the first name, others qboot. With SeaBIOS the kernel finds no ACPI tables, so no disk, or
 * the boot ends in its first second, under either version; qboot comes with QEMU itself.
 */
static const struct {
	const char *asked, *given;
	bool needed;
} firmware[] = {
	{"bios-microvm.bin", "qboot.rom", true},
	{"pvh.bin", "pvh.bin", true},
	{"linuxboot_dma.bin", "linuxboot_dma.bin", false}, /* kernels that are not PVH */
	{"kvmvapic.bin", "kvmvapic.bin", false},	   /* only with KVM on old processors */
};

/* Not in 10.0, where the translator is in the program. */
static const char *const modules[] = {"accel-tcg-x86_64.so"};

struct file {
	char from[PATH_MAX];
	char to[128]; /* below the closure's root */
	struct stat st;
	char hash[HASH_TEXT];
};

struct closure {
	char program[PATH_MAX];
	bool root;
	unsigned n;
	struct file files[FILES_MAX];
};

/* ---- hashing ---- */

static void to_hex(const unsigned char *p, unsigned n, char *ret)
{
	for (unsigned i = 0; i < n; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", p[i]);
}

static int hash_bytes(const void *p, size_t n, char ret[HASH_TEXT], struct err *e)
{
	unsigned char md[EVP_MAX_MD_SIZE];
	unsigned len = 0;

	if (!EVP_Digest(p, n, md, &len, EVP_sha256(), NULL) || len != 32)
		return err_set(e, ERR_INTERNAL, "SHA-256 failed");
	to_hex(md, len, ret);
	return 0;
}

static int hash_fd(int fd, char ret[HASH_TEXT], struct err *e)
{
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	unsigned char md[EVP_MAX_MD_SIZE], buf[64 * 1024];
	unsigned len = 0;
	ssize_t n = 0;
	int ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

	for (uint64_t off = 0; ok; off += (uint64_t)n) {
		n = sys_pread(fd, buf, sizeof(buf), off);
		if (n <= 0)
			break;
		ok = EVP_DigestUpdate(ctx, buf, (size_t)n);
	}
	ok = ok && EVP_DigestFinal_ex(ctx, md, &len);
	EVP_MD_CTX_free(ctx);
	if (n < 0)
		return err_sys(e, (int)n, "read a file to hash");
	if (!ok || len != 32)
		return err_set(e, ERR_INTERNAL, "SHA-256 failed");
	to_hex(md, len, ret);
	return 0;
}

/* ---- asking programs of the host ---- */

static int read_all(int fd, char *ret, size_t size)
{
	size_t have = 0;
	ssize_t n;

	while ((n = sys_read(fd, ret + have, size - 1 - have)) > 0) {
		have += (size_t)n;
		if (have == size - 1)
			return -EFBIG;
	}
	ret[have] = '\0';
	return n < 0 ? (int)n : 0;
}

static int spawn(const char *const *argv, int out, pid_t *ret)
{
	static const char *const env[] = {"LC_ALL=C", NULL};
	posix_spawn_file_actions_t fa;
	int r = posix_spawn_file_actions_init(&fa);

	if (r)
		return -r;
	r = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&fa, out, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(&fa, out, 2);
	if (r == 0)
		r = posix_spawn(ret, argv[0], &fa, NULL, (char *const *)argv, (char *const *)env);
	(void)posix_spawn_file_actions_destroy(&fa);
	return -r;
}

/* Run a trusted program and read what it says. */
static int ask(const char *const *argv, char *ret, size_t size, struct err *e)
{
	AUTO_CLOSE int out = -1, in = -1;
	int pair[2], status = 0, r;
	pid_t pid;

	r = sys_pipe(pair);
	if (r < 0)
		return err_sys(e, r, "make a pipe");
	out = pair[0];
	in = pair[1];
	r = spawn(argv, in, &pid);
	if (r < 0)
		return err_sys(e, r, "run %s", argv[0]);
	in = sys_close(in);
	r = read_all(out, ret, size);
	out = sys_close(out); /* whoever still writes gets SIGPIPE */
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r < 0)
		return err_sys(e, r, "read what %s says", argv[0]);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return err_set(e, ERR_UNSUPPORTED, "%s %s failed: %.*s", argv[0], argv[1],
			       (int)MIN(strcspn(ret, "\n"), (size_t)200), ret);
	return 0;
}

/* ---- who may have written it ---- */

static int check_owner(const struct closure *c, const char *path, const struct stat *st, struct err *e)
{
	bool others = (st->st_mode & 022) && !(S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX));

	if (st->st_uid != 0 && (c->root || st->st_uid != geteuid()))
		return err_set(e, ERR_UNSUPPORTED, "%s belongs to uid %u, not to root: it will not be run",
			       path, st->st_uid);
	if (others)
		return err_set(e, ERR_UNSUPPORTED,
			       "%s can be written by others than its owner: it will not be run", path);
	return 0;
}

/* The file and every folder above it; @path is free of links. */
static int check_trusted(const struct closure *c, const char *path, struct err *e)
{
	char part[PATH_MAX];
	struct stat st;

	(void)snprintf(part, sizeof(part), "%s", path);
	for (;;) {
		char *slash;
		int r;

		if (lstat(part[0] ? part : "/", &st) < 0)
			return err_sys(e, -errno, "look at %s", part);
		r = check_owner(c, part, &st, e);
		if (r < 0)
			return r;
		slash = strrchr(part, '/');
		if (!slash || part[0] == '\0')
			return 0;
		*slash = '\0';
	}
}

/* ---- the list of files ---- */

/* Add the file at @from (links resolved) as @to. -ERR_NOT_FOUND without a message worth showing. */
static int add_file(struct closure *c, const char *from, const char *to, struct err *e)
{
	struct file *f;
	int r;

	for (unsigned i = 0; i < c->n; i++)
		if (str_eq(c->files[i].to, to))
			return 0;
	if (c->n == FILES_MAX)
		return err_set(e, ERR_LIMIT, "QEMU needs more than %d files", FILES_MAX);
	f = &c->files[c->n];
	if (!realpath(from, f->from))
		return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_UNSUPPORTED, "%s: %s", from,
			       strerror(errno));
	if (lstat(f->from, &f->st) < 0 || !S_ISREG(f->st.st_mode))
		return err_set(e, ERR_UNSUPPORTED, "%s is not a file", f->from);
	r = check_trusted(c, f->from, e);
	if (r < 0)
		return r;
	if (snprintf(f->to, sizeof(f->to), "%s", to) >= (int)sizeof(f->to))
		return err_set(e, ERR_LIMIT, "%s has too long a name", from);
	c->n++;
	return 0;
}

/* "	libz.so.1 => /lib/libz.so.1 (0x7f..)", "	/lib64/ld.so (0x7f..)", "	linux-vdso.so.1 (0x7f..)" */
static int add_library(struct closure *c, char *line, struct err *e)
{
	char to[PATH_MAX + 8], *path = strstr(line, "=> "), *end;

	path = path ? path + 3 : line + strspn(line, " \t");
	if (str_starts(path, "not found"))
		return err_set(e, ERR_UNSUPPORTED, "QEMU lacks a library (%s): " INSTALL, line);
	if (path[0] != '/' || str_starts(path, LOADER))
		return 0;
	end = strstr(path, " (0x");
	if (end)
		*end = '\0';
	(void)snprintf(to, sizeof(to), "lib/%s", strrchr(path, '/') + 1);
	return add_file(c, path, to, e);
}

static int add_libraries(struct closure *c, const char *of, struct err *e)
{
	const char *const argv[] = {LOADER, "--list", of, NULL};
	char said[OUTPUT_MAX], *save = NULL;
	int r = ask(argv, said, sizeof(said), e);

	if (r < 0)
		return err_wrap(e, "list the libraries of %s", of);
	for (char *line = strtok_r(said, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save))
		r = add_library(c, line, e);
	return r;
}

/* Look for @name in folders seen from the program's own. Return: 1 added, 0 nowhere. */
static int add_from(struct closure *c, const char *const *folders, size_t n, const char *name,
		    const char *to, struct err *e)
{
	char own[PATH_MAX], path[2 * PATH_MAX + 64];
	struct err why = ERR_INIT;

	(void)snprintf(own, sizeof(own), "%s", c->program);
	*strrchr(own, '/') = '\0';
	for (size_t i = 0; i < n; i++) {
		int r;

		(void)snprintf(path, sizeof(path), "%s%s%s/%s", folders[i][0] == '/' ? "" : own,
			       folders[i][0] == '/' ? "" : "/", folders[i], name);
		r = add_file(c, path, to, &why);
		if (r == 0)
			return 1;
		if (r != -ERR_NOT_FOUND)
			return err_copy(e, &why);
	}
	return 0;
}

static int add_modules(struct closure *c, struct err *e)
{
	char to[128];
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(modules) && r >= 0; i++) {
		(void)snprintf(to, sizeof(to), "modules/%s", modules[i]);
		r = add_from(c, module_folders, ARRAY_LEN(module_folders), modules[i], to, e);
		if (r > 0)
			r = add_libraries(c, c->files[c->n - 1].from, e);
	}
	return r < 0 ? r : 0;
}

static int add_firmware(struct closure *c, struct err *e)
{
	char to[128];

	for (size_t i = 0; i < ARRAY_LEN(firmware); i++) {
		int r;

		(void)snprintf(to, sizeof(to), "firmware/%s", firmware[i].asked);
		r = add_from(c, firmware_folders, ARRAY_LEN(firmware_folders), firmware[i].given, to, e);
		if (r < 0)
			return r;
		if (r == 0 && firmware[i].needed)
			return err_set(e, ERR_UNSUPPORTED, "QEMU's firmware %s is missing: %s",
				       firmware[i].given, INSTALL);
	}
	return 0;
}

static int collect(struct closure *c, struct err *e)
{
	int r = add_file(c, c->program, "qemu", e);

	if (r == 0)
		r = add_file(c, LOADER, &LOADER[1], e);
	if (r == 0)
		r = add_libraries(c, c->program, e);
	if (r == 0)
		r = add_modules(c, e);
	return r < 0 ? r : add_firmware(c, e);
}

/* ---- finding ---- */

static int find_program(const char *program, struct closure *c, struct err *e)
{
	if (program && program[0] != '/')
		return err_set(e, ERR_INVALID, "--qemu %s: the path must be absolute", program);
	if (program && !realpath(program, c->program))
		return err_set(e, ERR_UNSUPPORTED, "--qemu %s: %s", program, strerror(errno));
	if (program)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(programs); i++)
		if (realpath(programs[i], c->program))
			return 0;
	return err_set(e, ERR_UNSUPPORTED, "QEMU is not installed: %s", INSTALL);
}

/* "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)" */
static int ask_version(const char *program, char ret[QEMU_VERSION_MAX + 1], struct err *e)
{
	static const char before[] = "QEMU emulator version ";
	const char *const argv[] = {program, "--version", NULL};
	char said[OUTPUT_MAX], *v;
	unsigned major, minor;
	size_t n;
	int r = ask(argv, said, sizeof(said), e);

	if (r < 0)
		return r;
	v = strstr(said, before);
	v = v ? v + strlen(before) : said;
	n = strspn(v, "0123456789.");
	if (n == 0 || n > QEMU_VERSION_MAX || sscanf(v, "%u.%u", &major, &minor) != 2)
		return err_set(e, ERR_UNSUPPORTED, "%s does not say which version it is", program);
	v[n] = '\0';
	if (major < OLDEST_MAJOR || (major == OLDEST_MAJOR && minor < OLDEST_MINOR))
		return err_set(e, ERR_UNSUPPORTED, "QEMU %s is too old: %d.%d or newer is needed", v,
			       OLDEST_MAJOR, OLDEST_MINOR);
	span_copy((struct span){v, n}, ret, QEMU_VERSION_MAX + 1);
	return 0;
}

static int stamp_of(const struct closure *c, char ret[HASH_TEXT], struct err *e)
{
	struct str s = STR_INIT(FILES_MAX * (PATH_MAX + 256));
	int r;

	str_add(&s, "layout 1\n");
	for (unsigned i = 0; i < c->n; i++) {
		const struct file *f = &c->files[i];

		str_addf(&s, "%s %s %llu %llu %lld %lld.%09ld %lld.%09ld\n", f->to, f->from,
			 (unsigned long long)f->st.st_dev, (unsigned long long)f->st.st_ino,
			 (long long)f->st.st_size, (long long)f->st.st_mtim.tv_sec,
			 f->st.st_mtim.tv_nsec, (long long)f->st.st_ctim.tv_sec,
			 f->st.st_ctim.tv_nsec);
	}
	r = s.failed ? err_set(e, ERR_INTERNAL, "out of memory")
		     : hash_bytes(s.p, s.len, ret, e);
	str_deinit(&s);
	return r;
}

/* ---- building ---- */

/* copy_file_range shares the blocks where the file system can. */
static int copy_bytes(int from, int to)
{
	char buf[64 * 1024];
	ssize_t n;

	do
		n = copy_file_range(from, NULL, to, NULL, 1u << 30, 0);
	while (n > 0 || (n < 0 && errno == EINTR));
	if (n == 0)
		return 0;
	if (errno != EXDEV && errno != ENOSYS && errno != EINVAL && errno != EOPNOTSUPP)
		return -errno;
	while ((n = sys_read(from, buf, sizeof(buf))) > 0) {
		int r = sys_write_full(to, buf, (size_t)n);

		if (r < 0)
			return r;
	}
	return (int)n;
}

static int copy_file(int root, struct file *f, struct err *e)
{
	AUTO_CLOSE int from = sys_open(f->from, O_RDONLY | O_NOFOLLOW), to = -1;
	bool runs = str_eq(f->to, "qemu") || str_eq(f->to, &LOADER[1]);
	int r;

	if (from < 0)
		return err_sys(e, from, "open %s", f->from);
	to = sys_openat(root, f->to, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (to < 0)
		return err_sys(e, to, "create %s", f->to);
	r = copy_bytes(from, to);
	if (r < 0)
		return err_sys(e, r, "copy %s", f->from);
	if (fchmod(to, runs ? 0555 : 0444) < 0)
		return err_sys(e, -errno, "chmod %s", f->to);
	return hash_fd(to, f->hash, e);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct file *)a)->to, ((const struct file *)b)->to);
}

static void write_manifest(const struct closure *c, const char *version, struct str *s)
{
	str_addf(s, "hotcell closure 1\nversion %s\n", version);
	for (unsigned i = 0; i < c->n; i++)
		str_addf(s, "%s %lld %s\n", c->files[i].hash, (long long)c->files[i].st.st_size,
			 c->files[i].to);
}

static int fill(struct closure *c, int dir, const char *version, char hash[HASH_TEXT], struct err *e)
{
	static const char *const folders[] = {"root",	      "root/lib",      "root/lib64", "root/modules",
					      "root/firmware", "root/dev", "root/proc"};
	struct str s = STR_INIT(MANIFEST_MAX);
	AUTO_CLOSE int root = -1, node = -1;
	int r = 0;

	for (size_t i = 0; i < ARRAY_LEN(folders) && r == 0; i++) {
		r = sys_mkdir(dir, folders[i], 0755);
		if (r == 0 && fchmodat(dir, folders[i], 0755, 0) < 0) /* whatever the umask: a slot's uid reads it */
			r = -errno;
	}
	if (r == 0)
		r = root = sys_openat(dir, "root", O_RDONLY | O_DIRECTORY, 0);
	if (r >= 0)
		r = node = sys_openat(root, "dev/kvm", O_WRONLY | O_CREAT | O_EXCL, 0444); /* to mount on */
	if (r < 0)
		return err_sys(e, r, "make a closure's folders");
	qsort(c->files, c->n, sizeof(c->files[0]), by_name);
	r = 0;
	for (unsigned i = 0; i < c->n && r == 0; i++)
		r = copy_file(root, &c->files[i], e);
	if (r < 0)
		return r;
	write_manifest(c, version, &s);
	r = s.failed ? err_set(e, ERR_LIMIT, "a closure's manifest is larger than %d bytes", MANIFEST_MAX)
		     : hash_bytes(s.p, s.len, hash, e);
	if (r == 0) {
		r = sys_replace_file(dir, "manifest", s.p, s.len, 0644);
		if (r < 0)
			r = err_sys(e, r, "write a closure's manifest");
	}
	str_deinit(&s);
	if (r == 0 && syncfs(dir) < 0)
		r = err_sys(e, -errno, "sync a closure");
	return r;
}

/* @name -> @target, replaced in one step. */
static int point(int closures, const char *name, const char *target, struct err *e)
{
	(void)sys_unlink(closures, ".link");
	if (symlinkat(target, closures, ".link") < 0 || renameat(closures, ".link", closures, name) < 0)
		return err_sys(e, -errno, "link %s", name);
	return 0;
}

/* Under the lock. QEMU-1: what an interrupted build left is thrown away first. */
static int build(struct closure *c, int closures, const char *stamp, struct err *e)
{
	char version[QEMU_VERSION_MAX + 1], hash[HASH_TEXT];
	AUTO_CLOSE int dir = -1;
	int r = sys_remove_tree(closures, ".new");

	if (r < 0)
		return err_sys(e, r, "remove an unfinished closure");
	r = ask_version(c->program, version, e);
	if (r < 0)
		return r;
	r = sys_mkdir(closures, ".new", 0755);
	if (r == 0)
		r = dir = sys_openat(closures, ".new", O_RDONLY | O_DIRECTORY, 0);
	if (r < 0)
		return err_sys(e, r, "make a closure's folder");
	r = fill(c, dir, version, hash, e);
	if (r < 0) {
		(void)sys_remove_tree(closures, ".new");
		return r;
	}
	/* The same contents may stand there from other inodes, whole or damaged: then they change places. */
	if (renameat(closures, ".new", closures, hash) < 0 &&
	    renameat2(closures, ".new", closures, hash, RENAME_EXCHANGE) < 0)
		return err_sys(e, -errno, "name a closure");
	(void)sys_remove_tree(closures, ".new");
	return point(closures, stamp, hash, e);
}

/* ---- using ---- */

static bool is_hash(const char *text)
{
	return strlen(text) == HASH_TEXT - 1 && strspn(text, "0123456789abcdef") == HASH_TEXT - 1;
}

/* -ERR_NOT_FOUND: not there or not whole. */
static int use_hash(const char *closures, int closures_fd, const char *hash, struct qemu_host *ret,
		    struct err *e)
{
	char manifest[MANIFEST_MAX], path[HASH_TEXT + 16];
	struct qemu_host h = QEMU_HOST_INIT;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/manifest", hash);
	n = sys_read_file(closures_fd, path, manifest, sizeof(manifest));
	if (n < 0 || sscanf(manifest, "hotcell closure 1\nversion %64s\n", h.version) != 1)
		return err_set(e, ERR_NOT_FOUND, "no manifest");
	(void)snprintf(path, sizeof(path), "%s/root", hash);
	h.root_fd = sys_openat(closures_fd, path, O_PATH | O_DIRECTORY, 0);
	if (h.root_fd < 0)
		return err_set(e, ERR_NOT_FOUND, "no root");
	(void)snprintf(h.hash, sizeof(h.hash), "%s", hash);
	if (snprintf(h.closure, sizeof(h.closure), "%s/%s/root", closures, hash) >= (int)sizeof(h.closure)) {
		qemu_host_deinit(&h);
		return err_set(e, ERR_LIMIT, "%s is too long", closures);
	}
	*ret = h;
	return 0;
}

/* @name: the stamp's link. */
static int use(const char *closures, int closures_fd, const char *name, struct qemu_host *ret,
	       struct err *e)
{
	char hash[HASH_TEXT + 1] = "";
	ssize_t n = readlinkat(closures_fd, name, hash, sizeof(hash) - 1);

	if (n < 0 || !is_hash(hash))
		return err_set(e, ERR_NOT_FOUND, "no closure");
	return use_hash(closures, closures_fd, hash, ret, e);
}

/* "<hash> <size> <name>" of a manifest, and the file itself. */
static int verify_file(int root, const char *line, struct err *e)
{
	char want[HASH_TEXT], name[sizeof(((struct file *)0)->to)], hash[HASH_TEXT];
	long long size;
	AUTO_CLOSE int fd = -1;
	int r;

	if (sscanf(line, "%64s %lld %127s", want, &size, name) != 3 || name[0] == '/' || strstr(name, ".."))
		return err_set(e, ERR_UNSUPPORTED, "its manifest is not one of ours");
	fd = sys_openat(root, name, O_RDONLY | O_NOFOLLOW, 0);
	r = fd < 0 ? err_sys(e, fd, "open %s", name) : hash_fd(fd, hash, e);
	if (r == 0 && !str_eq(hash, want))
		r = err_set(e, ERR_UNSUPPORTED, "%s was changed", name);
	return r;
}

/* The name is the manifest's hash, and the manifest has one of every file. */
static int verify(int closures_fd, const struct qemu_host *h, struct err *e)
{
	char manifest[MANIFEST_MAX], path[HASH_TEXT + 16], hash[HASH_TEXT], *save = NULL;
	ssize_t n;
	int r;

	(void)snprintf(path, sizeof(path), "%s/manifest", h->hash);
	n = sys_read_file(closures_fd, path, manifest, sizeof(manifest));
	if (n < 0)
		return err_sys(e, (int)n, "read its manifest");
	r = hash_bytes(manifest, (size_t)n, hash, e);
	if (r == 0 && !str_eq(hash, h->hash))
		r = err_set(e, ERR_UNSUPPORTED, "its manifest was changed");
	(void)strtok_r(manifest, "\n", &save);
	(void)strtok_r(NULL, "\n", &save); /* what it is, and its version */
	for (char *line = strtok_r(NULL, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save))
		r = verify_file(h->root_fd, line, e);
	return r;
}

static int open_closures(const char *path, int *ret, struct err *e)
{
	int fd, r = sys_mkdirs(path, 0755);

	if (r < 0)
		return err_sys(e, r, "make %s", path);
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return err_sys(e, fd, "open %s", path);
	*ret = fd;
	return 0;
}

static int ensure(struct closure *c, const char *closures, struct qemu_host *ret, struct err *e)
{
	AUTO_CLOSE int dir = -1, lock = -1;
	char hash[HASH_TEXT], stamp[HASH_TEXT + 8];
	int r = open_closures(closures, &dir, e);

	if (r == 0)
		r = stamp_of(c, hash, e);
	if (r < 0)
		return r;
	(void)snprintf(stamp, sizeof(stamp), "stamp-%s", hash);
	if (use(closures, dir, stamp, ret, NULL) == 0)
		return 0;
	lock = sys_openat(dir, ".lock", O_RDWR | O_CREAT, 0600);
	if (lock < 0)
		return err_sys(e, lock, "open %s/.lock", closures);
	while (flock(lock, LOCK_EX) < 0) /* a copy takes less than a second */
		if (errno != EINTR)
			return err_sys(e, -errno, "lock %s", closures);
	if (use(closures, dir, stamp, ret, NULL) == 0)
		return 0; /* another keeper built it while we waited */
	r = build(c, dir, stamp, e);
	return r < 0 ? r : use(closures, dir, stamp, ret, e);
}

int qemu_host_probe(const char *program, const char *closures, bool root, struct qemu_host *ret,
		    struct err *e)
{
	struct closure *c = mem_try(sizeof(*c));
	int r;

	if (!c)
		return err_set(e, ERR_INTERNAL, "out of memory");
	c->root = root;
	r = find_program(program, c, e);
	if (r == 0)
		r = collect(c, e);
	if (r == 0)
		r = ensure(c, closures, ret, e);
	if (r == -ERR_NOT_FOUND) { /* a file vanished while we looked */
		if (e)
			e->code = ERR_UNSUPPORTED;
		(void)err_wrap(e, "QEMU is not complete (" INSTALL ")");
		r = -ERR_UNSUPPORTED;
	}
	free(c);
	return r;
}

int qemu_host_open(const char *closures, const char *hash, struct qemu_host *ret, struct err *e)
{
	struct qemu_host h = QEMU_HOST_INIT;
	AUTO_CLOSE int dir = -1;
	int r;

	if (!is_hash(hash))
		return err_set(e, ERR_INVALID, "a closure's name is 64 hexadecimal digits");
	dir = sys_open(closures, O_RDONLY | O_DIRECTORY);
	if (dir < 0)
		return err_sys(e, dir, "open %s", closures);
	r = use_hash(closures, dir, hash, &h, e);
	if (r == 0)
		r = verify(dir, &h, e);
	if (r < 0) {
		qemu_host_deinit(&h);
		return err_wrap(e, "closure %.12s", hash);
	}
	*ret = h;
	return 0;
}

void qemu_host_deinit(struct qemu_host *h)
{
	h->root_fd = sys_close(h->root_fd);
}
