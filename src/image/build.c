/* image/build.c - decide whether there is anything to do, then bootstrap, pack and seal */
#include "image/build.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "image/build_int.h"
#include "image/initramfs.h"
#include "image/kernel.h"
#include "image/place.h"
#include "image/progress.h"
#include "image/store.h"
#include "image/tree.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define ARCH "amd64"

enum {
	LAYOUT = 1, /* part of the digest: raise it when we change what a build makes */
	FREE_BYTES_MIN = 1 << 30, /* package archives, tree and file system together, with air */
	INODE_BYTES = 256,
	SPARE_INODES = 1024,
	SPARE_BLOCKS = 8192,
	IDS_BYTES = 1 << 16,
};

/* ---- the host ---- */

/* A line "NAME:..." or "UID:..." of /etc/subuid or /etc/subgid. */
static bool has_ids(const char *file, const char *name)
{
	AUTO_FREE char *text = mem_new(IDS_BYTES);
	char uid[32];
	ssize_t n = sys_read_file(AT_FDCWD, file, text, IDS_BYTES);

	(void)snprintf(uid, sizeof(uid), "%u", (unsigned)geteuid());
	for (const char *line = n < 0 ? NULL : text; line && *line; line = strchr(line, '\n'), line += line ? 1 : 0) {
		size_t len = strcspn(line, ":\n");

		if (line[len] == ':' && ((len == strlen(name) && !strncmp(line, name, len)) ||
					 (len == strlen(uid) && !strncmp(line, uid, len))))
			return true;
	}
	return false;
}

/* Without root, the owners of files in a new system are ids that root has set aside for this user. */
static int check_ids(struct err *e)
{
	const struct passwd *pw = getpwuid(geteuid());
	const char *name = pw ? pw->pw_name : "";

	if (has_ids("/etc/subuid", name) && has_ids("/etc/subgid", name))
		return 0;
	return err_set(e, ERR_UNSUPPORTED,
		       "images are built with ids set aside in /etc/subuid and /etc/subgid, and user %s has none; as "
		       "root, type: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
		       name, *name ? name : "NAME");
}

static int check_host(struct build *b, struct err *e)
{
	static const char *const programs[] = { "apt-get", "apt-config", "mmdebstrap",
						"mke2fs",  "dpkg-query", "sh",
						"tar",     "newuidmap",  "fakeroot" };
	enum { FOR_ROOT = 6 }; /* of them */
	struct statvfs v;
	int r = tool_need(programs, b->is_root ? FOR_ROOT : ARRAY_LEN(programs), e);

	if (r == 0 && !b->is_root)
		r = check_ids(e);
	if (r < 0)
		return r;
	if (fstatvfs(b->rq->state_dirfd, &v) < 0)
		return err_sys(e, -errno, "look at the state directory's file system");
	if ((uint64_t)v.f_bavail * v.f_frsize < FREE_BYTES_MIN)
		return err_set(e, ERR_LIMIT,
			       "a build needs 1 GiB of free space on the disk with the state "
			       "directory; %" PRIu64 " MiB are there",
			       (uint64_t)v.f_bavail * v.f_frsize / MIB);
	return 0;
}

/* ---- is there anything to do? ---- */

/* Everything that decides what comes out, except for the versions the archive has today. */
static int hash_recipe(struct build *b, struct err *e)
{
	const struct recipe *rc = &b->recipe;
	struct str s = STR_INIT(2 * RECIPE_MAX);
	const char *h = b->recipe_hash;
	int r;

	str_addf(&s, "layout %d\nname %s\nsuite %s\nowners %d\n", LAYOUT, rc->name, b->suite,
		 b->is_root);
	bootstrap_describe(&s);
	str_addf(&s, "%u %u %u\n", rc->defaults.vcpus, rc->defaults.memory_mb,
		 rc->defaults.disk_mb);
	for (size_t i = 0; i < rc->n_packages; i++)
		str_addf(&s, "%s\n", rc->package[i]);
	for (size_t i = 0; i < rc->n_warm; i++)
		str_addf(&s, "warm %zu %s\n", strlen(rc->warm[i]), rc->warm[i]);
	for (size_t i = 0; i < rc->n_interpreters; i++)
		str_addf(&s, "code %zu %s\n", strlen(rc->interpreter[i]), rc->interpreter[i]);
	r = s.failed ? err_set(e, ERR_LIMIT, "the recipe is too long")
		     : hash_mem(str_text(&s), s.len, b->recipe_hash, e);
	str_deinit(&s);
	if (r < 0)
		return r;
	(void)snprintf(b->uuid, sizeof(b->uuid), "%.8s-%.4s-8%.3s-8%.3s-%.12s", h, h + 8, h + 12,
		       h + 15, h + 18);
	return 0;
}

/* Is the current build of this very recipe, and does it open? */
static bool is_up_to_date(const struct build *b, char ret_digest[HASH_TEXT])
{
	struct manifest m = { 0 };
	struct image i = IMAGE_INIT;
	struct image_info info;
	bool is = image_inspect(b->rq->state_dirfd, b->recipe.name, &info, &m, NULL) == 0 &&
		  !strcmp(info.recipe, b->recipe_hash) &&
		  image_open(b->rq->state_dirfd, b->recipe.name, &i, NULL) == 0;

	if (is)
		memcpy(ret_digest, info.digest, HASH_TEXT);
	image_close(&i);
	manifest_deinit(&m);
	return is;
}

static int make_kernel(const struct build_request *rq, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	AUTO_CLOSE int vmlinux = -1;
	bool is_there = kernel_open(rq->state_dirfd, &k, NULL) == 0 &&
			kernel_open_file(&k, &vmlinux, NULL) == 0;
	int r = 0;

	if (!is_there || rq->is_forced) {
		kernel_close(&k);
		r = kernel_fetch(rq->state_dirfd, rq->progress, e);
		if (r == 0)
			r = kernel_open(rq->state_dirfd, &k, e);
	}
	if (r == 0)
		r = initramfs_ensure(rq->state_dirfd, &k, rq->init_path, e);
	kernel_close(&k);
	return r;
}

/* ---- pack and seal ---- */

struct tool build_tool(const struct build *b, const char *const *argv)
{
	struct tool t = TOOL_INIT;

	t.argv = argv;
	t.cwd_fd = b->new_fd;
	t.lock_fd = b->lock;
	t.progress = b->rq->progress;
	/* mmdebstrap and its mounts of proc, sys and dev must not outlive us. */
	t.is_contained = b->is_root;
	return t;
}

int build_run(const struct build *b, const char *const *argv, struct str *output, struct err *e)
{
	struct tool t = build_tool(b, argv);

	t.output = output;
	return tool_run(&t, e);
}

/* Content, inodes, and a tenth for folders' own blocks and extents; what stays unused is a hole. */
static uint64_t blocks_for(const struct tree_size *size)
{
	uint64_t inodes = (size->entries + SPARE_INODES) * INODE_BYTES / TREE_BLOCK;

	return (size->blocks + inodes) / 10 * 11 + SPARE_BLOCKS;
}

static int pack(const struct build *b, struct err *e)
{
	char blocks[32], inodes[32], hash_seed[BUILD_UUID_MAX + 64];
	const char *const with_owners[] = { "fakeroot", "-i", BUILD_OWNERS, "--" };
	const char *argv[32];
	struct tree_size size;
	size_t n = 0;
	int r = tree_measure(b->tree_fd, &size, e);

	if (r < 0)
		return r;
	(void)snprintf(blocks, sizeof(blocks), "%" PRIu64, blocks_for(&size));
	(void)snprintf(inodes, sizeof(inodes), "%" PRIu64, size.entries + SPARE_INODES);
	(void)snprintf(hash_seed, sizeof(hash_seed),
		       "root_owner=0:0,lazy_itable_init=0,hash_seed=%s", b->uuid);
	for (size_t i = 0; !b->is_root && i < ARRAY_LEN(with_owners); i++)
		argv[n++] = with_owners[i];
	/* No journal: nobody ever writes to it. */
	const char *const mke2fs[] = { "mke2fs",
				       "-q",
				       "-F",
				       "-t",
				       "ext4",
				       "-b",
				       "4096",
				       "-I",
				       "256",
				       "-m",
				       "0",
				       "-O",
				       "^has_journal,^resize_inode",
				       "-L",
				       "hotcell",
				       "-U",
				       b->uuid,
				       "-E",
				       hash_seed,
				       "-N",
				       inodes,
				       "-d",
				       IMAGE_TREE,
				       IMAGE_ROOT,
				       blocks,
				       NULL };
	for (size_t i = 0; i < ARRAY_LEN(mke2fs); i++)
		argv[n++] = mke2fs[i];
	progress_stage(b->rq->progress, "writing the file system");
	return build_run(b, argv, NULL, e);
}

/* What the tree needs no longer: devices (hotcell makes its own), and what the packing without root
 * left. */
static int clean(const struct build *b, struct err *e)
{
	int r = sys_remove_tree(b->tree_fd, "dev");

	if (r == 0)
		r = sys_mkdir(b->tree_fd, "dev", 0755);
	if (r == 0)
		r = sys_unlink(b->new_fd, BUILD_TARBALL);
	if (r == 0)
		r = sys_unlink(b->new_fd, BUILD_OWNERS);
	return r < 0 ? err_sys(e, r, "clean up after the build") : tree_disarm(b->tree_fd, e);
}

static int seal_packages(struct build *b, struct err *e)
{
	static const char *const argv[] = {
		"dpkg-query", "--admindir=" IMAGE_TREE "/var/lib/dpkg", "-W",
		"-f",         "package ${Package} ${Version}\\n",       NULL
	};

	return build_run(b, argv, &b->manifest, e);
}

static int seal_content(struct build *b, struct err *e)
{
	AUTO_CLOSE int root = sys_open_beneath(b->new_fd, IMAGE_ROOT, O_RDONLY, 0);
	char root_hash[HASH_TEXT], tree_sum[HASH_TEXT];
	uint64_t bytes, entries;
	int r = root < 0 ? err_sys(e, root, "open the new file system")
			 : hash_fd(root, root_hash, &bytes, e);

	if (r == 0)
		r = tree_hash(b->tree_fd, tree_sum, &entries, e);
	if (r == 0)
		str_addf(&b->manifest,
			 IMAGE_ROOT " %s %" PRIu64 "\n" IMAGE_TREE " %s %" PRIu64 "\n", root_hash,
			 bytes, tree_sum, entries);
	return r;
}

/* What a hot template runs, as image_open() reads it. */
static int seal_texts(struct build *b, const char *file, struct str *texts, struct err *e)
{
	char hash[HASH_TEXT];
	int r = 0;

	if (texts->len && !texts->failed)
		r = sys_replace_file(b->new_fd, file, texts->p, texts->len, 0644);
	if (r < 0 || texts->failed)
		return err_sys(e, r < 0 ? r : -ENOMEM, "write %s", file);
	r = texts->len ? hash_mem(texts->p, texts->len, hash, e) : 0;
	if (texts->len && r == 0)
		str_addf(&b->manifest, "%s %s %zu\n", file, hash, texts->len);
	return r;
}

static int seal_warmth(struct build *b, struct err *e)
{
	const struct recipe *rc = &b->recipe;
	struct str warm = STR_INIT(sizeof(rc->warm)), code = STR_INIT(sizeof(rc->interpreter));
	int r;

	for (size_t i = 0; i < rc->n_warm; i++)
		str_add_mem(&warm, rc->warm[i], strlen(rc->warm[i]) + 1);
	for (size_t i = 0; i < rc->n_interpreters; i++)
		str_add_mem(&code, rc->interpreter[i], strlen(rc->interpreter[i]) + 1);
	r = seal_texts(b, IMAGE_WARM, &warm, e);
	if (r == 0)
		r = seal_texts(b, IMAGE_CODE, &code, e);
	str_deinit(&warm);
	str_deinit(&code);
	return r;
}

static int seal(struct build *b, char ret_digest[HASH_TEXT], struct err *e)
{
	const struct recipe *rc = &b->recipe;
	int r;

	progress_stage(b->rq->progress, "hashing the result");
	manifest_begin(&b->manifest, "image");
	str_addf(&b->manifest, "name %s\narch " ARCH "\nsuite %s\nrecipe %s\nowners %s\n", rc->name,
		 b->suite, b->recipe_hash, b->is_root ? "real" : "builder");
	str_addf(&b->manifest, "vcpus %u\nmemory_mb %u\ndisk_mb %u\nbuilt %" PRIu64 "\n",
		 rc->defaults.vcpus, rc->defaults.memory_mb, rc->defaults.disk_mb,
		 sys_unix_ns() / NS_PER_S);
	r = seal_content(b, e);
	if (r == 0)
		r = seal_warmth(b, e);
	if (r == 0)
		r = seal_packages(b, e);
	if (r < 0)
		return r;
	r = b->manifest.failed ? -ENOMEM
			       : sys_replace_file(b->new_fd, MANIFEST_FILE, b->manifest.p,
						  b->manifest.len, 0644);
	if (r < 0)
		return err_sys(e, r, "write the manifest");
	return hash_mem(b->manifest.p, b->manifest.len, ret_digest, e);
}

static int make(struct build *b, char ret_digest[HASH_TEXT], struct err *e)
{
	char entry[PLACE_NAME_MAX];
	int r = place_begin(b->place, &b->new_fd, e);

	if (r == 0)
		r = bootstrap(b, e);
	if (r == 0)
		r = pack(b, e);
	if (r == 0)
		r = clean(b, e);
	if (r == 0)
		r = seal(b, ret_digest, e);
	if (r < 0)
		return r;
	progress_stage(b->rq->progress, "writing to disk");
	(void)snprintf(entry, sizeof(entry), "%s@%s", b->recipe.name, ret_digest);
	r = place_commit(b->place, entry, e);
	return r < 0 ? r : place_set_pointer(b->place, b->recipe.name, entry, e);
}

static int build_locked(struct build *b, struct build_result *ret, struct err *e)
{
	int r = place_enter(b->rq->state_dirfd, IMAGES_FOLDER, &b->place, &b->lock, e);

	if (r < 0)
		return r;
	ret->is_new = b->rq->is_forced || !is_up_to_date(b, ret->digest);
	if (!ret->is_new)
		return 0;
	r = make(b, ret->digest, e);
	if (r < 0) /* what is left is big; the next build would also remove it, if there is one */
		place_abandon(b->place);
	return r;
}

static int build(struct build *b, struct build_result *ret, struct err *e)
{
	char digest[HASH_TEXT];
	int r = recipe_load(b->rq->templates_dirfd, b->rq->name, &b->recipe, e);

	if (r == 0)
		r = bootstrap_find_suite(b->suite, e);
	if (r == 0)
		r = hash_recipe(b, e);
	if (r == 0 && (b->rq->is_forced || !is_up_to_date(b, digest)))
		r = check_host(b, e); /* before anything is fetched */
	if (r == 0)
		r = make_kernel(b->rq, e);
	if (r == 0)
		r = build_locked(b, ret, e);
	return r;
}

int image_build(const struct build_request *rq, struct build_result *ret, struct err *e)
{
	AUTO_FREE struct build *b = mem_new(sizeof(*b));
	struct build_result result = { 0 };
	int r;

	*b = (struct build){ .rq = rq,
			     .is_root = geteuid() == 0,
			     .place = -1,
			     .lock = -1,
			     .new_fd = -1,
			     .tree_fd = -1,
			     .manifest = STR_INIT(MANIFEST_MAX) };
	r = build(b, &result, e);
	sys_close(b->tree_fd);
	sys_close(b->new_fd);
	sys_close(b->place);
	sys_close(b->lock);
	str_deinit(&b->manifest);
	if (r == 0)
		*ret = result;
	return r;
}
