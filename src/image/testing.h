/* image/testing.h - for t_*.c only: a state directory with a kernel, an initramfs and an image, by
 * hand */
#pragma once
#include <elf.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/str.h"
#include "base/testing.h"
#include "image/initramfs.h"
#include "image/place.h"
#include "image/store.h"
#include "image/tree.h"
#include "sys/fd.h"

#define RELEASE "6.1.0-test"

/* Where the store of the current test is. */
static inline char *store_dir(void)
{
	static char dir[64];

	return dir;
}

/* ---- making one ---- */

static inline int folder(int at, const char *path)
{
	int fd;

	assert_int_equal(sys_mkdir(at, path, 0755), 0);
	fd = sys_openat(at, path, O_RDONLY | O_DIRECTORY, 0);
	assert_true(fd >= 0);
	return fd;
}

/* Write the file and add "<key> <hash> <bytes>[ <name>]" to the manifest. */
static inline void add_file(int at, const char *path, const char *text, struct str *manifest,
			    const char *key, const char *name)
{
	char hash[HASH_TEXT];

	assert_int_equal(sys_write_file(at, path, text), 0);
	assert_int_equal(hash_mem(text, strlen(text), hash, NULL), 0);
	str_addf(manifest, "%s %s %zu%s%s\n", key, hash, strlen(text), name ? " " : "",
		 name ? name : "");
}

static inline void make_kernel(int state)
{
	AUTO_CLOSE int place = folder(state, KERNELS_FOLDER), entry = folder(place, RELEASE);
	AUTO_CLOSE int modules = folder(entry, KERNEL_MODULES);
	struct str m = STR_INIT(MANIFEST_MAX);

	manifest_begin(&m, "kernel");
	str_add(&m, "release " RELEASE "\npackage linux-image-" RELEASE " 6.1-1\n");
	add_file(entry, KERNEL_FILE, "the kernel", &m, KERNEL_FILE, NULL);
	add_file(modules, "b.ko", "module b", &m, "module", "b.ko");
	add_file(modules, "a.ko", "module a", &m, "module", "a.ko");
	assert_int_equal(sys_write_file(entry, MANIFEST_FILE, str_text(&m)), 0);
	assert_int_equal(place_set_pointer(place, KERNEL_CURRENT, RELEASE, NULL), 0);
	str_deinit(&m);
}

/* A static program, as far as anybody looks. @mark tells one from another. */
static inline void make_init(const char *path, char mark, bool is_dynamic)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr ph;
		char mark;
	} elf = {
		.eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 1 },
		.ph = { .p_type = is_dynamic ? PT_INTERP : PT_LOAD },
		.mark = mark,
	};
	AUTO_CLOSE int fd = sys_create(path, O_WRONLY | O_TRUNC, 0755);

	assert_int_equal(sys_write_full(fd, &elf, sizeof(elf)), 0);
}

#define STORE_WARM "true\0git --version"

/* Build @name by hand; its digest goes to @ret. */
static inline void make_image(int state, const char *name, uint64_t built, char ret[HASH_TEXT])
{
	AUTO_CLOSE int place = -1, lock = -1, entry = -1, tree = -1;
	char entry_name[PLACE_NAME_MAX], hash[HASH_TEXT];
	struct str m = STR_INIT(MANIFEST_MAX);
	uint64_t entries;

	assert_int_equal(place_enter(state, IMAGES_FOLDER, &place, &lock, NULL), 0);
	assert_int_equal(place_begin(place, &entry, NULL), 0);
	tree = folder(entry, IMAGE_TREE);
	assert_int_equal(sys_write_file(tree, "etc", "a file of the tree"), 0);
	assert_int_equal(tree_hash(tree, hash, &entries, NULL), 0);
	assert_int_equal(hash_mem(name, strlen(name), ret, NULL), 0);
	manifest_begin(&m, "image");
	str_addf(&m,
		 "name %s\narch amd64\nsuite bookworm\nrecipe %s\nowners real\nvcpus 1\nmemory_mb "
		 "512\ndisk_mb 2048\n",
		 name, ret);
	str_addf(&m, "built %" PRIu64 "\ntree %s %" PRIu64 "\n", built, hash, entries);
	add_file(entry, IMAGE_ROOT, "the root file system", &m, IMAGE_ROOT, NULL);
	assert_int_equal(sys_replace_file(entry, IMAGE_WARM, STORE_WARM, sizeof(STORE_WARM), 0644), 0);
	assert_int_equal(hash_mem(STORE_WARM, sizeof(STORE_WARM), hash, NULL), 0);
	str_addf(&m, IMAGE_WARM " %s %zu\n", hash, sizeof(STORE_WARM));
	str_add(&m, "package git 2.39\npackage curl 7.88\n");
	assert_int_equal(sys_write_file(entry, MANIFEST_FILE, str_text(&m)), 0);
	assert_int_equal(hash_mem(m.p, m.len, ret, NULL), 0);
	(void)snprintf(entry_name, sizeof(entry_name), "%s@%s", name, ret);
	assert_int_equal(place_commit(place, entry_name, NULL), 0);
	assert_int_equal(place_set_pointer(place, name, entry_name, NULL), 0);
	str_deinit(&m);
}

static inline void init_path(char ret[128])
{
	(void)snprintf(ret, 128, "%s/init", store_dir());
}

static inline int ensure_initramfs(int state, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	char path[128];
	int r = kernel_open(state, &k, e);

	init_path(path);
	if (r == 0)
		r = initramfs_ensure(state, &k, path, e);
	kernel_close(&k);
	return r;
}

/* A state directory with a kernel, an initramfs and the image "base". */
static inline int make_store(char ret_digest[HASH_TEXT])
{
	struct err e = ERR_INIT;
	char path[128];
	int state;

	strcpy(store_dir(), "/tmp/t_store.XXXXXX");
	assert_non_null(mkdtemp(store_dir()));
	init_path(path);
	make_init(path, 'a', false);
	state = sys_open(store_dir(), O_RDONLY | O_DIRECTORY);
	make_kernel(state);
	if (ensure_initramfs(state, &e) < 0)
		fail_msg("%s", e.text);
	make_image(state, "base", 1000, ret_digest);
	return state;
}

static inline void unmake_store(int state)
{
	sys_close(state);
	assert_int_equal(sys_remove_tree(AT_FDCWD, store_dir()), 0);
}
