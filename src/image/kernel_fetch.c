/* image/kernel_fetch.c - the kernel's package: download, unpack, pick, hash, seal */
#include "image/kernel.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/bzimage.h"
#include "image/modules.h"
#include "image/place.h"
#include "image/progress.h"
#include "image/tool.h"
#include "sys/fd.h"

#define META_PACKAGE   "linux-image-cloud-amd64"
#define PACKAGE_PREFIX "linux-image-"
#define WORK           "work" /* in the new entry: package, its content; gone before the commit */

enum { VERSION_MAX = 65, PATH_BYTES = 512 };

/* What the guest can't do without. A kernel that has one built in needs no file for it. */
static const struct module_wish wishes[] = {
	{ "virtio_mmio", false }, { "virtio_console", false }, { "virtio_blk", false },
	{ "overlay", false },     { "ext4", false },           { "virtio_rng", true },
};

/* A package of the distribution, and the kernel in it. */
struct package {
	char name[KERNEL_RELEASE_MAX + sizeof(PACKAGE_PREFIX)];
	char version[VERSION_MAX];
	char release[KERNEL_RELEASE_MAX];
};

/* A fetch on its way. */
struct fetch {
	struct package package;
	int lock_fd, new_fd, work_fd;
	struct progress *progress;
	struct str manifest;
};

/* ---- which package ---- */

/* "Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2), ..." */
static int parse_depends(const char *show, struct package *ret)
{
	const char *line = str_starts(show, "Depends: ") ? show : strstr(show, "\nDepends: ");
	struct package p;

	if (!line)
		return -EINVAL;
	line = strstr(line, "Depends: ") + strlen("Depends: ");
	if (!str_starts(line, PACKAGE_PREFIX) ||
	    sscanf(line, "%76[a-z0-9.+-] (= %64[A-Za-z0-9.+~:-])", p.name, p.version) != 2)
		return -EINVAL;
	if (strlen(p.name) - strlen(PACKAGE_PREFIX) >= sizeof(p.release) || strstr(p.name, ".."))
		return -EINVAL;
	strcpy(p.release, p.name + strlen(PACKAGE_PREFIX));
	*ret = p;
	return 0;
}
_Static_assert(sizeof(((struct package *)0)->name) > 76, "the scan above must fit");

static int ask_apt(int cwd_fd, struct package *ret, struct progress *progress, struct err *e)
{
	static const char *const argv[] = { "apt-cache", "show", "--no-all-versions", META_PACKAGE,
					    NULL };
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);
	struct tool t = TOOL_INIT;
	int r;

	t.argv = argv;
	t.cwd_fd = cwd_fd;
	t.output = &out;
	t.progress = progress;
	r = tool_run(&t, e);
	if (r == -ERR_INTERNAL || (r == 0 && parse_depends(str_text(&out), ret) < 0))
		r = err_set(e, ERR_UNAVAILABLE,
			    "apt knows no package " META_PACKAGE "; run: apt-get update");
	str_deinit(&out);
	return r;
}

static bool is_current(int state_dirfd, const struct package *p)
{
	struct kernel k = KERNEL_INIT;
	struct manifest_line line;
	bool is = kernel_open(state_dirfd, &k, NULL) == 0 &&
		  manifest_find(&k.manifest, "package", 3, &line, NULL) == 0 &&
		  !strcmp(line.word[1], p->name) && !strcmp(line.word[2], p->version) &&
		  kernel_verify(&k, NULL) == 0;

	kernel_close(&k);
	return is;
}

/* ---- fetching ---- */

static int run(struct fetch *f, const char *const *argv, int stdin_fd, int stdout_fd, struct err *e)
{
	struct tool t = TOOL_INIT;

	t.argv = argv;
	t.cwd_fd = f->work_fd;
	t.stdin_fd = stdin_fd;
	t.stdout_fd = stdout_fd;
	t.lock_fd = f->lock_fd;
	t.progress = f->progress;
	return tool_run(&t, e);
}

static int find_deb(int dirfd, char ret[PATH_BYTES], struct err *e)
{
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	int r = -ERR_NOT_FOUND;

	if (!dir) {
		sys_close(fd);
		return err_sys(e, fd < 0 ? fd : -errno, "list what apt downloaded");
	}
	for (struct dirent *d; r < 0 && (d = readdir(dir));)
		if (strlen(d->d_name) > 4 && !strcmp(d->d_name + strlen(d->d_name) - 4, ".deb"))
			r = snprintf(ret, PATH_BYTES, "./%s", d->d_name) < PATH_BYTES ? 0
										      : -ERR_LIMIT;
	closedir(dir);
	return r < 0 ? err_set(e, ERR_UNAVAILABLE, "apt downloaded no package") : 0;
}

/* Package in WORK, its content in WORK too; then modules.dep, which packages don't bring. */
static int download(struct fetch *f, struct err *e)
{
	char wanted[sizeof(f->package.name) + VERSION_MAX + 1], deb[PATH_BYTES];
	const char *const get[] = { "apt-get", "-q", "download", wanted, NULL };
	const char *const unpack[] = { "dpkg-deb", "-x", deb, ".", NULL };
	const char *const depmod[] = { "depmod", "-b", ".", f->package.release, NULL };
	int r;

	(void)snprintf(wanted, sizeof(wanted), "%s=%s", f->package.name, f->package.version);
	progress_stage(f->progress, "downloading the guest's kernel");
	r = run(f, get, -1, -1, e);
	if (r == -ERR_INTERNAL)
		return err_set(e, ERR_UNAVAILABLE, "apt-get can't download %s; try: apt-get update",
			       wanted);
	if (r == 0)
		r = find_deb(f->work_fd, deb, e);
	progress_stage(f->progress, "unpacking the guest's kernel");
	if (r == 0)
		r = run(f, unpack, -1, -1, e);
	if (r < 0)
		return r;
	/* Newer packages keep everything below usr/, where depmod does not look. */
	if (faccessat(f->work_fd, "lib", F_OK, 0) < 0 &&
	    symlinkat("usr/lib", f->work_fd, "lib") < 0)
		return err_sys(e, -errno, "link lib to usr/lib in the kernel's package");
	return run(f, depmod, -1, -1, e);
}

static int map_file(int fd, size_t max, void **ret, size_t *ret_n, struct err *e)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at a file of the kernel");
	if (st.st_size <= 0 || (uint64_t)st.st_size > max)
		return err_set(e, ERR_LIMIT,
			       "a file of the kernel has %jd bytes; the maximum is %zu",
			       (intmax_t)st.st_size, max);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return err_sys(e, -errno, "map a file of the kernel");
	*ret = p;
	*ret_n = (size_t)st.st_size;
	return 0;
}

/* Feed the payload to its unpacker; the payload goes through a file without a name. */
static int unpack_payload(struct fetch *f, const struct bzimage *b, int out, struct err *e)
{
	const char *const argv[] = { b->unpacker, "-dc", NULL };
	AUTO_CLOSE int in = sys_memfd("payload", 0);
	int r = in < 0 ? in : sys_write_full(in, b->payload, b->payload_bytes);

	if (r < 0)
		return err_sys(e, r, "copy the packed kernel");
	if (lseek(in, 0, SEEK_SET) < 0)
		return err_sys(e, -errno, "copy the packed kernel");
	return run(f, argv, in, out, e);
}

static int check_vmlinux(int fd, uint64_t expected, struct err *e)
{
	void *elf;
	size_t n;
	int r = map_file(fd, VMLINUX_MAX_BYTES, &elf, &n, e);

	if (r < 0)
		return r;
	r = n == expected
		    ? vmlinux_check(elf, n, e)
		    : err_set(e, ERR_INVALID,
			      "the kernel unpacked to %zu bytes instead of %" PRIu64, n, expected);
	(void)munmap(elf, n);
	return r;
}

/* Append "<key> <hash> <bytes>" or, with a name, "<key> <hash> <bytes> <name>" to the manifest. */
static int seal(struct fetch *f, int fd, const char *key, const char *name, struct err *e)
{
	char hash[HASH_TEXT];
	uint64_t bytes;
	int r = hash_fd(fd, hash, &bytes, e);

	if (r == 0)
		str_addf(&f->manifest, "%s %s %" PRIu64 "%s%s\n", key, hash, bytes, name ? " " : "",
			 name ? name : "");
	return r;
}

static int make_vmlinux(struct fetch *f, struct err *e)
{
	char path[PATH_BYTES];
	AUTO_CLOSE int in = -1, out = -1;
	struct bzimage b;
	void *image;
	size_t n;
	int r;

	(void)snprintf(path, sizeof(path), "boot/vmlinuz-%s", f->package.release);
	in = sys_open_beneath(f->work_fd, path, O_RDONLY, 0);
	if (in < 0)
		return err_sys(e, in, "open %s of the kernel's package", path);
	out = sys_open_beneath(f->new_fd, KERNEL_FILE, O_RDWR | O_CREAT | O_EXCL, 0644);
	if (out < 0)
		return err_sys(e, out, "make " KERNEL_FILE);
	r = map_file(in, BZIMAGE_MAX_BYTES, &image, &n, e);
	if (r < 0)
		return r;
	r = bzimage_parse(image, n, &b, e);
	if (r == 0)
		r = unpack_payload(f, &b, out, e);
	(void)munmap(image, n);
	if (r == 0)
		r = check_vmlinux(out, b.unpacked_bytes, e);
	return r < 0 ? r : seal(f, out, KERNEL_FILE, NULL, e);
}

/* The program that unpacks a module with this ending; NULL: it is not packed. */
static const char *module_unpacker(const char *path)
{
	static const struct {
		const char *ending, *program;
	} table[] = { { ".ko.xz", "xz" }, { ".ko.zst", "zstd" }, { ".ko.gz", "gzip" } };

	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (strlen(path) > strlen(table[i].ending) &&
		    !strcmp(path + strlen(path) - strlen(table[i].ending), table[i].ending))
			return table[i].program;
	return NULL;
}

/* A packed module is unpacked into place, any other is moved there. */
static int place_module(struct fetch *f, const char *from, int modules_fd, const char *name,
			struct err *e)
{
	const char *const argv[] = { module_unpacker(from), "-dc", NULL };
	AUTO_CLOSE int in = -1, out = -1;

	if (!argv[0]) {
		if (renameat(f->work_fd, from, modules_fd, name) < 0)
			return err_sys(e, -errno, "move %s out of the kernel's package", from);
		return 0;
	}
	in = sys_openat(f->work_fd, from, O_RDONLY | O_NOFOLLOW, 0);
	if (in < 0)
		return err_sys(e, in, "open %s of the kernel's package", from);
	out = sys_open_beneath(modules_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (out < 0)
		return err_sys(e, out, "make the module %s", name);
	return run(f, argv, in, out, e);
}

static int make_module(struct fetch *f, const char *path, int modules_fd, struct err *e)
{
	char from[PATH_BYTES], name[MODULES_PATH_MAX];
	AUTO_CLOSE int fd = -1;
	int r;

	(void)snprintf(from, sizeof(from), "lib/modules/%s/%s", f->package.release, path);
	modules_file_name(path, name);
	r = place_module(f, from, modules_fd, name, e);
	if (r < 0)
		return r;
	fd = sys_open_beneath(modules_fd, name, O_RDONLY, 0);
	return fd < 0 ? err_sys(e, fd, "open the module %s", name) : seal(f, fd, "module", name, e);
}

static char *read_text(struct fetch *f, const char *file, struct err *e)
{
	AUTO_FREE char *text = mem_new(MODULES_TEXT_MAX);
	char path[PATH_BYTES];
	ssize_t n;

	(void)snprintf(path, sizeof(path), "lib/modules/%s/%s", f->package.release, file);
	n = sys_read_file(f->work_fd, path, text, MODULES_TEXT_MAX);
	if (n < 0) {
		err_sys(e, (int)n, "read %s of the kernel", file);
		return NULL;
	}
	return take_ptr(&text);
}

static int make_modules(struct fetch *f, struct err *e)
{
	AUTO_FREE char *dep = read_text(f, "modules.dep", e);
	AUTO_FREE char *builtin = dep ? read_text(f, "modules.builtin", e) : NULL;
	AUTO_FREE struct module_list *list = mem_new(sizeof(*list));
	AUTO_CLOSE int fd = -1;
	int r;

	if (!dep || !builtin)
		return e ? -e->code : -ERR_INTERNAL;
	r = modules_order(dep, builtin, wishes, ARRAY_LEN(wishes), list, e);
	if (r < 0)
		return r;
	r = sys_mkdir(f->new_fd, KERNEL_MODULES, 0755);
	if (r == 0)
		r = fd = sys_open_beneath(f->new_fd, KERNEL_MODULES, O_RDONLY | O_DIRECTORY, 0);
	if (r < 0)
		return err_sys(e, r, "make the folder " KERNEL_MODULES);
	for (size_t i = 0; i < list->n; i++) {
		r = make_module(f, list->path[i], fd, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int make_entry(struct fetch *f, struct err *e)
{
	int r;

	manifest_begin(&f->manifest, "kernel");
	str_addf(&f->manifest, "release %s\npackage %s %s\n", f->package.release, f->package.name,
		 f->package.version);
	r = download(f, e);
	if (r == 0)
		r = make_vmlinux(f, e);
	if (r == 0)
		r = make_modules(f, e);
	if (r < 0)
		return r;
	r = f->manifest.failed ? -ENOMEM
			       : sys_replace_file(f->new_fd, MANIFEST_FILE, f->manifest.p,
						  f->manifest.len, 0644);
	if (r == 0)
		r = sys_remove_tree(f->new_fd, WORK);
	return r < 0 ? err_sys(e, r, "finish the kernel %s", f->package.release) : 0;
}

static int fetch(int place, struct fetch *f, struct err *e)
{
	int r = place_begin(place, &f->new_fd, e);

	if (r < 0)
		return r;
	r = sys_mkdir(f->new_fd, WORK, 0755);
	if (r == 0)
		r = f->work_fd = sys_open_beneath(f->new_fd, WORK, O_RDONLY | O_DIRECTORY, 0);
	if (r < 0)
		return err_sys(e, r, "make a folder in the state directory");
	r = make_entry(f, e);
	if (r == 0)
		r = place_commit(place, f->package.release, e);
	if (r == 0)
		r = place_set_pointer(place, KERNEL_CURRENT, f->package.release, e);
	return r;
}

int kernel_fetch(int state_dirfd, struct progress *progress, struct err *e)
{
	static const char *const programs[] = { "apt-cache", "apt-get", "dpkg-deb", "depmod" };
	struct fetch f = { .lock_fd = -1,
			   .new_fd = -1,
			   .work_fd = -1,
			   .progress = progress,
			   .manifest = STR_INIT(MANIFEST_MAX) };
	AUTO_CLOSE int place = -1, lock = -1;
	int r = tool_need(programs, ARRAY_LEN(programs), e);

	if (r == 0)
		r = place_enter(state_dirfd, KERNELS_FOLDER, &place, &lock, e);
	if (r == 0)
		r = ask_apt(place, &f.package, progress, e);
	if (r < 0 || is_current(state_dirfd, &f.package))
		return r;
	f.lock_fd = lock;
	r = fetch(place, &f, e);
	if (r < 0)
		place_abandon(place);
	sys_close(f.new_fd);
	sys_close(f.work_fd);
	str_deinit(&f.manifest);
	return r < 0 ? err_wrap(e, "get the guest's kernel") : 0;
}
