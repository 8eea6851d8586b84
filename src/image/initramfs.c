/* image/initramfs.c - pack the archive and keep it */
#include "image/initramfs.h"
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "image/cpio.h"
#include "image/kernel.h"
#include "image/place.h"
#include "sys/fd.h"

enum {
	LAYOUT = 1, /* part of the key: raise it when the layout in the header comment changes */
	ORDER_MAX = 1 << 16,
	PROGRAM_HEADERS_MAX = 64,
};

/* ---- the archive ---- */

/* Nothing in the guest could load a dynamic one: say so here, not as a panic at boot. */
static int check_init(int fd, const char *path, struct err *e)
{
	Elf64_Ehdr eh;
	Elf64_Phdr ph;

	if (sys_pread(fd, &eh, sizeof(eh), 0) != sizeof(eh) ||
	    memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_machine != EM_X86_64 || eh.e_phentsize != sizeof(ph) ||
	    eh.e_phnum > PROGRAM_HEADERS_MAX)
		return err_set(e, ERR_INVALID, "%s is not an x86-64 program", path);
	for (unsigned i = 0; i < eh.e_phnum; i++) {
		if (sys_pread(fd, &ph, sizeof(ph), eh.e_phoff + i * sizeof(ph)) != sizeof(ph))
			return err_set(e, ERR_INVALID, "%s is cut off", path);
		if (ph.p_type == PT_INTERP)
			return err_set(e, ERR_INVALID,
				       "%s is not statically linked; the guest could not start it",
				       path);
	}
	return 0;
}

static int add_modules(struct cpio *c, const struct kernel *k, struct err *e)
{
	struct str order = STR_INIT(ORDER_MAX);
	struct str path = STR_INIT(CPIO_NAME_MAX);
	struct manifest_line line;
	size_t at = 0;
	int r = 0;

	while (r == 0 && manifest_next(&k->manifest, &at, &line)) {
		AUTO_CLOSE int fd = -1;

		if (strcmp(line.word[0], "module") != 0)
			continue;
		r = kernel_open_module(k, &line, &fd, e);
		if (r < 0)
			break;
		str_clear(&path);
		str_addf(&path, "modules/%s", line.word[3]);
		str_addf(&order, "%s\n", line.word[3]);
		cpio_file(c, str_text(&path), 0644, fd);
	}
	if (r == 0 && (order.failed || path.failed))
		r = err_set(e, ERR_LIMIT, "the kernel's modules have names that are too long");
	if (r == 0)
		cpio_mem(c, "modules/order", 0644, str_text(&order), order.len);
	str_deinit(&order);
	str_deinit(&path);
	return r;
}

int initramfs_write(int fd, const struct kernel *k, int init_fd, struct err *e)
{
	static const struct {
		const char *name;
		mode_t mode;
	} dirs[] = { { "dev", 0755 },  { "proc", 0555 },    { "sys", 0555 },    { "run", 0755 },
		     { "tmp", 01777 }, { "newroot", 0755 }, { "modules", 0755 } };
	struct cpio c = CPIO_INIT(fd);
	int r;

	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		cpio_dir(&c, dirs[i].name, dirs[i].mode);
	cpio_char_node(&c, "dev/console", 0600, 5, 1);
	cpio_file(&c, "init", 0755, init_fd);
	r = add_modules(&c, k, e);
	if (r < 0)
		return r;
	r = cpio_end(&c);
	return r < 0 ? err_sys(e, r, "write the initramfs") : 0;
}

/* ---- the store ---- */

struct initrd {
	int dir_fd, file_fd;
	struct manifest manifest;
	struct manifest_sum sum;
};

#define INITRD_INIT                                                                                \
	{                                                                                          \
		.dir_fd = -1, .file_fd = -1                                                        \
	}

static void initrd_close(struct initrd *i)
{
	i->dir_fd = sys_close(i->dir_fd);
	i->file_fd = sys_close(i->file_fd);
	manifest_deinit(&i->manifest);
}

static int open_parts(int place, const char *key, struct initrd *i, struct err *e)
{
	struct stat st;
	int r = i->dir_fd = sys_open_beneath(place, key, O_RDONLY | O_DIRECTORY, 0);

	if (r < 0)
		return err_sys(e, r, "open the initramfs");
	r = manifest_load(i->dir_fd, "initrd", &i->manifest, e);
	if (r == 0)
		r = manifest_sum(&i->manifest, INITRD_FILE, &i->sum, e);
	if (r < 0)
		return r;
	r = i->file_fd = sys_open_beneath(i->dir_fd, INITRD_FILE, O_RDONLY, 0);
	if (r < 0)
		return err_sys(e, r, "open the initramfs");
	if (fstat(i->file_fd, &st) < 0)
		return err_sys(e, -errno, "look at the initramfs");
	if ((uint64_t)st.st_size != i->sum.size)
		return err_set(e, ERR_INVALID,
			       "the initramfs is damaged: %jd bytes instead of %" PRIu64,
			       (intmax_t)st.st_size, i->sum.size);
	return 0;
}

static int open_current(int state_dirfd, const char *release, struct initrd *ret, struct err *e)
{
	AUTO_CLOSE int place = -1;
	char key[PLACE_NAME_MAX];
	struct initrd i = INITRD_INIT;
	int r = place_open(state_dirfd, INITRDS_FOLDER, &place, e);

	if (r == 0)
		r = place_read_pointer(place, release, key, e);
	if (r == 0)
		r = open_parts(place, key, &i, e);
	if (r < 0) {
		initrd_close(&i);
		return err_wrap(e, "the initramfs for %s (hotcell image build makes it anew)",
				release);
	}
	*ret = i;
	return 0;
}

int initramfs_open(int state_dirfd, const char *release, int *ret_fd, struct err *e)
{
	struct initrd i = INITRD_INIT;
	int r = open_current(state_dirfd, release, &i, e);

	if (r < 0)
		return r;
	*ret_fd = take_fd(&i.file_fd);
	initrd_close(&i);
	return 0;
}

static int check_content(const struct initrd *i, struct err *e)
{
	char found[HASH_TEXT];
	int r = hash_fd(i->file_fd, found, NULL, e);

	if (r == 0 && strcmp(found, i->sum.hash) != 0)
		r = err_set(
			e, ERR_INVALID,
			"the initramfs is damaged: its content changed; run: hotcell image build");
	return r;
}

int initramfs_verify(int state_dirfd, const char *release, struct err *e)
{
	struct initrd i = INITRD_INIT;
	int r = open_current(state_dirfd, release, &i, e);

	if (r == 0)
		r = check_content(&i, e);
	initrd_close(&i);
	return r;
}

/* What the key is the hash of; also the beginning of the manifest. */
static void add_sources(struct str *s, const struct kernel *k, const char *init_hash)
{
	manifest_begin(s, "initrd");
	str_addf(s, "layout %d\nkernel %s\ninit %s\n", LAYOUT, k->manifest.hash, init_hash);
}

static int make(int place, const char *key, const struct kernel *k, int init_fd,
		struct str *manifest, struct err *e)
{
	AUTO_CLOSE int dir = -1, file = -1;
	char hash[HASH_TEXT];
	uint64_t bytes;
	int r = place_begin(place, &dir, e);

	if (r < 0)
		return r;
	file = sys_open_beneath(dir, INITRD_FILE, O_RDWR | O_CREAT | O_EXCL, 0644);
	if (file < 0)
		return err_sys(e, file, "make the initramfs");
	r = initramfs_write(file, k, init_fd, e);
	if (r == 0)
		r = hash_fd(file, hash, &bytes, e);
	if (r < 0)
		return r;
	str_addf(manifest, INITRD_FILE " %s %" PRIu64 "\n", hash, bytes);
	r = manifest->failed
		    ? -ENOMEM
		    : sys_replace_file(dir, MANIFEST_FILE, manifest->p, manifest->len, 0644);
	return r < 0 ? err_sys(e, r, "write the manifest of the initramfs")
		     : place_commit(place, key, e);
}

/* Point @release to @key and drop the entry it pointed to before: nothing but the pointer finds
 * one. */
static int switch_to(int place, const char *release, const char *key, struct err *e)
{
	char old[PLACE_NAME_MAX];
	bool had_old = place_read_pointer(place, release, old, NULL) == 0;
	int r;

	if (had_old && strcmp(old, key) == 0)
		return 0;
	r = place_set_pointer(place, release, key, e);
	if (r == 0 && had_old && faccessat(place, old, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		r = place_remove(place, old, e);
	return r;
}

static int ensure(int place, const struct kernel *k, int init_fd, struct str *manifest,
		  struct err *e)
{
	struct initrd i = INITRD_INIT;
	char hash[HASH_TEXT], key[HASH_TEXT];
	bool is_whole;
	int r = hash_fd(init_fd, hash, NULL, e);

	if (r < 0)
		return r;
	add_sources(manifest, k, hash);
	r = hash_mem(str_text(manifest), manifest->len, key, e);
	if (r < 0)
		return r;
	is_whole = open_parts(place, key, &i, NULL) == 0 && check_content(&i, NULL) == 0;
	initrd_close(&i);
	if (!is_whole)
		r = make(place, key, k, init_fd, manifest, e);
	return r < 0 ? r : switch_to(place, k->release, key, e);
}

int initramfs_ensure(int state_dirfd, const struct kernel *k, const char *init_path, struct err *e)
{
	AUTO_CLOSE int init_fd = sys_open(init_path, O_RDONLY);
	AUTO_CLOSE int place = -1, lock = -1;
	struct str manifest = STR_INIT(MANIFEST_MAX);
	int r;

	if (init_fd < 0)
		return err_sys(e, init_fd, "open %s", init_path);
	r = check_init(init_fd, init_path, e);
	if (r == 0)
		r = place_enter(state_dirfd, INITRDS_FOLDER, &place, &lock, e);
	if (r == 0)
		r = ensure(place, k, init_fd, &manifest, e);
	str_deinit(&manifest);
	return r;
}
