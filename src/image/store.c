/* image/store.c - find, open, check and remove images */
#include "image/store.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/initramfs.h"
#include "image/place.h"
#include "image/tree.h"
#include "sys/fd.h"

enum { REF_MAX = RECIPE_NAME_MAX + HASH_TEXT };

/* A reference taken apart. */
struct ref {
	char name[RECIPE_NAME_MAX]; /* "" : any */
	char digest[HASH_TEXT];     /* "" : the newest; else the first digits */
};

/* Which entry of {state}/images a reference means. */
struct found {
	char entry[PLACE_NAME_MAX];
	char name[RECIPE_NAME_MAX];
	char digest[HASH_TEXT];
};

static bool is_digest_prefix(const char *s)
{
	size_t n = strspn(s, "0123456789abcdef");

	return !s[n] && n >= IMAGE_DIGEST_MIN && n < HASH_TEXT;
}

static int parse_ref(const char *text, struct ref *ret, struct err *e)
{
	const char *at = strchr(text, '@');
	size_t name_n = at ? (size_t)(at - text) : strlen(text);
	struct ref ref = { 0 };

	if (strlen(text) >= REF_MAX)
		return err_set(e, ERR_INVALID, "the name of an image has at most %d bytes",
			       REF_MAX - 1);
	if (name_n < sizeof(ref.name))
		memcpy(ref.name, text, name_n);
	if (at && is_digest_prefix(at + 1))
		memcpy(ref.digest, at + 1, strlen(at + 1) + 1);
	if (recipe_name_ok(ref.name) && !at == !ref.digest[0]) {
		*ret = ref;
		return 0;
	}
	if (at || !is_digest_prefix(text))
		return err_set(e, ERR_INVALID,
			       "an image is named by a name ([a-z][a-z0-9-]*), name@digest, or %d "
			       "or more digits of a digest",
			       IMAGE_DIGEST_MIN);
	ref.name[0] = '\0';
	memcpy(ref.digest, text, strlen(text) + 1);
	*ret = ref;
	return 0;
}

/* "<name>@<digest>" taken apart; false for anything else. */
static bool parse_entry(const char *entry, struct found *ret)
{
	const char *at = strchr(entry, '@');

	if (!at || (size_t)(at - entry) >= sizeof(ret->name) || !hash_text_ok(at + 1))
		return false;
	memset(ret->name, 0, sizeof(ret->name));
	memcpy(ret->name, entry, (size_t)(at - entry));
	memcpy(ret->digest, at + 1, HASH_TEXT);
	(void)snprintf(ret->entry, sizeof(ret->entry), "%s", entry);
	return recipe_name_ok(ret->name);
}

/* Every entry of {state}/images that looks like one, unsorted. */
static int read_entries(int place, struct found **ret, size_t *ret_n, struct err *e)
{
	AUTO_FREE struct found *all = mem_new(IMAGES_MAX * sizeof(*all));
	int fd = sys_openat(place, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	size_t n = 0;

	if (!dir) {
		sys_close(fd);
		return err_sys(e, fd < 0 ? fd : -errno, "list the images");
	}
	for (struct dirent *d; n < IMAGES_MAX && (d = readdir(dir));)
		if (parse_entry(d->d_name, &all[n]))
			n++;
	closedir(dir);
	*ret = take_ptr(&all);
	*ret_n = n;
	return 0;
}

static int find_by_digest(int place, const struct ref *ref, struct found *ret, struct err *e)
{
	AUTO_FREE struct found *all = NULL;
	size_t n, hits = 0;
	int r = read_entries(place, &all, &n, e);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		if ((!ref->name[0] || !strcmp(all[i].name, ref->name)) &&
		    !strncmp(all[i].digest, ref->digest, strlen(ref->digest)) && !hits++)
			*ret = all[i];
	if (hits > 1)
		return err_set(e, ERR_CONFLICT,
			       "%zu images begin with the digest %s; give more digits", hits,
			       ref->digest);
	if (!hits)
		return err_set(e, ERR_NOT_FOUND, "there is no image with the digest %s",
			       ref->digest);
	return 0;
}

static int by_entry(const void *a, const void *b)
{
	return strcmp(((const struct found *)a)->entry, ((const struct found *)b)->entry);
}

/* Which there are; only who builds knows which there could be. */
static int no_image(int place, const char *name, struct err *e)
{
	struct str list = STR_INIT(ERR_TEXT_MAX / 2);
	AUTO_FREE struct found *all = NULL;
	size_t n = 0;
	int r = read_entries(place, &all, &n, e);

	if (r == 0)
		qsort(all, n, sizeof(*all), by_entry);
	for (size_t i = 0; r == 0 && i < n; i++)
		if (i == 0 || strcmp(all[i - 1].name, all[i].name) != 0)
			str_addf(&list, "%s%s", list.len ? ", " : "", all[i].name);
	if (r == 0)
		r = err_set(e, ERR_NOT_FOUND,
			    "there is no image %s (there are: %s%s); if 'hotcell image recipes' lists it, run: "
			    "hotcell image build %s", name, n ? str_text(&list) : "none",
			    list.failed ? ", ..." : "", name);
	str_deinit(&list);
	return r;
}

static int find_by_name(int place, const char *name, struct found *ret, struct err *e)
{
	char entry[PLACE_NAME_MAX];
	int r = place_read_pointer(place, name, entry, e);

	if (r == -ERR_NOT_FOUND)
		return no_image(place, name, e);
	if (r < 0)
		return r;
	if (!parse_entry(entry, ret) || strcmp(ret->name, name) != 0)
		return err_set(
			e, ERR_INVALID,
			"the pointer of image %s is damaged; run: hotcell image build --force %s",
			name, name);
	return 0;
}

static int find(int place, const char *text, struct found *ret, struct err *e)
{
	struct ref ref;
	int r = parse_ref(text, &ref, e);

	if (r < 0)
		return r;
	if (ref.digest[0])
		return find_by_digest(place, &ref, ret, e);
	r = find_by_name(place, ref.name, ret, e);
	if (r != -ERR_NOT_FOUND || !is_digest_prefix(text))
		return r;
	/* Many digests look like names: only what is no name is taken for a digest. */
	ref.name[0] = '\0';
	memcpy(ref.digest, text, strlen(text) + 1);
	return find_by_digest(place, &ref, ret, e);
}

/* Open the entry's folder under a shared lock, and see that it was not removed in between. */
static int open_locked(int place, const struct found *f, int *ret_fd, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(place, f->entry, O_RDONLY | O_DIRECTORY, 0);
	struct stat opened, there;

	if (fd < 0)
		return err_sys(e, fd, "open the image %s", f->entry);
	if (flock(fd, LOCK_SH | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "the image %s is being removed", f->name);
	if (fstat(fd, &opened) < 0 || fstatat(place, f->entry, &there, AT_SYMLINK_NOFOLLOW) < 0 ||
	    opened.st_ino != there.st_ino)
		return err_set(e, ERR_NOT_FOUND, "the image %s was removed", f->name);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* The manifest of an entry, sealed by the digest in the entry's name. */
static int load_manifest(int dir_fd, const struct found *f, struct manifest *ret, struct err *e)
{
	struct manifest m = { 0 };
	int r = manifest_load(dir_fd, "image", &m, e);

	if (r == 0 && strcmp(m.hash, f->digest) != 0)
		r = err_set(e, ERR_INVALID, "its manifest changed");
	if (r < 0) {
		manifest_deinit(&m);
		return err_wrap(
			e, "the image %s is damaged (hotcell image build --force %s makes it anew)",
			f->name, f->name);
	}
	*ret = m;
	return 0;
}

static int read_defaults(const struct manifest *m, struct recipe_defaults *ret, struct err *e)
{
	const struct {
		const char *key;
		uint64_t min, max;
		uint32_t *to;
	} table[] = {
		{ "vcpus", 1, RECIPE_VCPUS_MAX, &ret->vcpus },
		{ "memory_mb", RECIPE_MEMORY_MB_MIN, RECIPE_MEMORY_MB_MAX, &ret->memory_mb },
		{ "disk_mb", RECIPE_DISK_MB_MIN, RECIPE_DISK_MB_MAX, &ret->disk_mb },
	};
	uint64_t v;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_LEN(table); i++) {
		r = manifest_u64(m, table[i].key, table[i].min, table[i].max, &v, e);
		if (r == 0)
			*table[i].to = (uint32_t)v;
	}
	return r;
}

static int open_root(struct image *i, const struct manifest *m, struct err *e)
{
	struct manifest_sum sum;
	struct stat st;
	int r = manifest_sum(m, IMAGE_ROOT, &sum, e);

	if (r < 0)
		return r;
	i->root_fd = sys_open_beneath(i->dir_fd, IMAGE_ROOT, O_RDONLY, 0);
	if (i->root_fd < 0)
		return err_sys(e, i->root_fd, "open " IMAGE_ROOT " of the image %s", i->name);
	if (fstat(i->root_fd, &st) < 0)
		return err_sys(e, -errno, "look at " IMAGE_ROOT " of the image %s", i->name);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != sum.size)
		return err_set(e, ERR_INVALID,
			       "the image %s is damaged: " IMAGE_ROOT
			       " has %jd bytes instead of %" PRIu64
			       "; run: hotcell image build --force %s",
			       i->name, (intmax_t)st.st_size, sum.size, i->name);
	i->root_bytes = sum.size;
	return 0;
}

/* A file of texts with a NUL behind each; images without it have none. */
static int read_texts(const struct image *i, const struct manifest *m, const char *file,
		      uint64_t max, struct strv *ret, struct err *e)
{
	AUTO_FREE char *text = NULL;
	struct manifest_sum sum;
	char found[HASH_TEXT];
	ssize_t n;
	int r;

	if (!manifest_has(m, file))
		return 0;
	r = manifest_sum(m, file, &sum, e);
	if (r < 0)
		return r;
	if (sum.size == 0 || sum.size > max)
		return err_set(e, ERR_INVALID, "the manifest is damaged: size of %s", file);
	text = mem_new(sum.size + 2);
	n = sys_read_file(i->dir_fd, file, text, sum.size + 2);
	if (n < 0)
		return err_sys(e, (int)n, "read %s of the image %s", file, i->name);
	r = hash_mem(text, (size_t)n, found, e);
	if (r < 0)
		return r;
	if ((uint64_t)n != sum.size || strcmp(found, sum.hash) != 0 || text[n - 1] != '\0')
		return err_set(e, ERR_INVALID,
			       "the image %s is damaged: %s changed; run: hotcell image build --force %s",
			       i->name, file, i->name);
	*ret = (struct strv){ take_ptr(&text), (size_t)n };
	return 0;
}

static int open_warmth(struct image *i, const struct manifest *m, struct err *e)
{
	const struct recipe *rc = NULL;
	int r = read_texts(i, m, IMAGE_WARM, sizeof(rc->warm), &i->warm, e);

	return r < 0 ? r
		     : read_texts(i, m, IMAGE_CODE, sizeof(rc->interpreter), &i->interpreters, e);
}

/* Everything in the image's own folder. */
static int open_image(int state_dirfd, const char *ref, struct image *i, struct manifest *m,
		      struct err *e)
{
	AUTO_CLOSE int place = -1;
	struct found f;
	int r = place_open(state_dirfd, IMAGES_FOLDER, &place, e);

	if (r == 0)
		r = find(place, ref, &f, e);
	if (r == 0)
		r = open_locked(place, &f, &i->dir_fd, e);
	if (r == 0)
		r = load_manifest(i->dir_fd, &f, m, e);
	if (r < 0)
		return r;
	memcpy(i->name, f.name, sizeof(i->name));
	memcpy(i->digest, f.digest, sizeof(i->digest));
	r = read_defaults(m, &i->defaults, e);
	if (r == 0)
		r = open_warmth(i, m, e);
	if (r == 0)
		r = open_root(i, m, e);
	if (r < 0)
		return r;
	i->tree_fd = sys_open_beneath(i->dir_fd, IMAGE_TREE, O_PATH | O_DIRECTORY, 0);
	return i->tree_fd < 0 ? err_sys(e, i->tree_fd, "open the tree of the image %s", i->name)
			      : 0;
}

static int open_kernel(int state_dirfd, struct image *i, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	int r = kernel_open(state_dirfd, &k, e);

	if (r == 0)
		r = kernel_open_file(&k, &i->kernel_fd, e);
	if (r == 0)
		r = initramfs_open(state_dirfd, k.release, &i->initrd_fd, e);
	memcpy(i->kernel_release, k.release, sizeof(i->kernel_release));
	kernel_close(&k);
	return r;
}

int image_open(int state_dirfd, const char *ref, struct image *ret, struct err *e)
{
	struct image i = IMAGE_INIT;
	struct manifest m = { 0 };
	int r = open_image(state_dirfd, ref, &i, &m, e);

	manifest_deinit(&m);
	if (r == 0)
		r = open_kernel(state_dirfd, &i, e);
	if (r < 0) {
		image_close(&i);
		return r;
	}
	*ret = i;
	return 0;
}

void image_close(struct image *i)
{
	int *fds[] = { &i->root_fd, &i->tree_fd, &i->kernel_fd, &i->initrd_fd, &i->dir_fd };

	for (size_t n = 0; n < ARRAY_LEN(fds); n++)
		*fds[n] = sys_close(*fds[n]);
	free((char *)i->warm.p);
	free((char *)i->interpreters.p);
	i->warm = i->interpreters = (struct strv){ 0 };
}

/* ---- verify ---- */

static int verify_root(const struct image *i, const struct manifest *m, struct err *e)
{
	struct manifest_sum sum;
	char found[HASH_TEXT];
	int r = manifest_sum(m, IMAGE_ROOT, &sum, e);

	if (r == 0)
		r = hash_fd(i->root_fd, found, NULL, e);
	if (r == 0 && strcmp(found, sum.hash) != 0)
		r = err_set(e, ERR_INVALID,
			    "the image %s is damaged: " IMAGE_ROOT
			    " changed; run: hotcell image build --force %s",
			    i->name, i->name);
	return r;
}

static int verify_tree(const struct image *i, const struct manifest *m, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(i->dir_fd, IMAGE_TREE, O_RDONLY | O_DIRECTORY, 0);
	struct manifest_sum sum;
	char found[HASH_TEXT];
	int r = manifest_sum(m, IMAGE_TREE, &sum, e);

	if (fd < 0)
		return err_sys(e, fd, "open the tree of the image %s", i->name);
	if (r == 0)
		r = tree_hash(fd, found, NULL, e);
	if (r == -ERR_DENIED)
		return err_wrap(e, "the tree of the image %s can only be verified by its owner",
				i->name);
	if (r == 0 && strcmp(found, sum.hash) != 0)
		r = err_set(e, ERR_INVALID,
			    "the image %s is damaged: " IMAGE_TREE
			    " changed; run: hotcell image build --force %s",
			    i->name, i->name);
	return r;
}

static int verify_kernel(int state_dirfd, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	int r = kernel_open(state_dirfd, &k, e);

	if (r == 0)
		r = kernel_verify(&k, e);
	if (r == 0)
		r = initramfs_verify(state_dirfd, k.release, e);
	kernel_close(&k);
	return r;
}

int image_verify(int state_dirfd, const char *ref, struct err *e)
{
	struct image i = IMAGE_INIT;
	struct manifest m = { 0 };
	int r = open_image(state_dirfd, ref, &i, &m, e);

	if (r == 0)
		r = verify_root(&i, &m, e);
	if (r == 0)
		r = verify_tree(&i, &m, e);
	if (r == 0)
		r = verify_kernel(state_dirfd, e);
	manifest_deinit(&m);
	image_close(&i);
	return r;
}

/* ---- remove ---- */

static int remove_entry(int place, const struct found *f, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(place, f->entry, O_RDONLY | O_DIRECTORY, 0);
	char current[PLACE_NAME_MAX];
	int r;

	/* A pointer to nothing can be removed as well. */
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
		return err_set(e, ERR_CONFLICT, "the image %s is in use by a sandbox", f->name);
	if (fd < 0 && fd != -ENOENT)
		return err_sys(e, fd, "open the image %s", f->entry);
	if (place_read_pointer(place, f->name, current, NULL) == 0 && !strcmp(current, f->entry)) {
		r = sys_unlink(place, f->name);
		if (r < 0)
			return err_sys(e, r, "remove the name %s", f->name);
	}
	return fd < 0 ? 0 : place_remove(place, f->entry, e);
}

int image_remove(int state_dirfd, const char *ref, struct err *e)
{
	AUTO_CLOSE int place = -1, lock = -1;
	struct found f;
	int r = place_enter(state_dirfd, IMAGES_FOLDER, &place, &lock, e);

	if (r == 0)
		r = find(place, ref, &f, e);
	return r < 0 ? r : remove_entry(place, &f, e);
}

/* ---- list ---- */

static int read_info(const struct manifest *m, struct image_info *ret, struct err *e)
{
	struct manifest_line line;
	struct manifest_sum sum;
	size_t at = 0;
	int r = manifest_find(m, "recipe", 2, &line, e);

	if (r < 0)
		return r;
	(void)snprintf(ret->recipe, sizeof(ret->recipe), "%.*s", HASH_TEXT - 1, line.word[1]);
	r = manifest_find(m, "suite", 2, &line, e);
	if (r < 0)
		return r;
	(void)snprintf(ret->suite, sizeof(ret->suite), "%.*s", KERNEL_RELEASE_MAX - 1,
		       line.word[1]);
	r = manifest_sum(m, IMAGE_ROOT, &sum, e);
	if (r == 0)
		r = manifest_u64(m, "built", 0, INT64_MAX, &ret->built_unix_s, e);
	if (r == 0)
		r = read_defaults(m, &ret->defaults, e);
	if (r < 0)
		return r;
	ret->root_bytes = sum.size;
	ret->n_packages = 0;
	while (manifest_next(m, &at, &line))
		ret->n_packages += !strcmp(line.word[0], "package");
	return 0;
}

static int load_info(int place, const struct found *f, struct image_info *ret,
		     struct manifest *ret_manifest, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(place, f->entry, O_RDONLY | O_DIRECTORY, 0);
	char current[PLACE_NAME_MAX];
	int r;

	*ret = (struct image_info){ 0 };
	memcpy(ret->name, f->name, sizeof(ret->name));
	memcpy(ret->digest, f->digest, sizeof(ret->digest));
	ret->is_current = place_read_pointer(place, f->name, current, NULL) == 0 &&
			  !strcmp(current, f->entry);
	if (fd < 0)
		return err_sys(e, fd, "open the image %s", f->entry);
	r = load_manifest(fd, f, ret_manifest, e);
	if (r == 0)
		r = read_info(ret_manifest, ret, e);
	return r;
}

static int by_name_and_age(const void *a, const void *b)
{
	const struct image_info *x = a, *y = b;
	int c = strcmp(x->name, y->name);

	if (c)
		return c;
	return x->built_unix_s == y->built_unix_s ? strcmp(x->digest, y->digest)
						  : (x->built_unix_s < y->built_unix_s ? 1 : -1);
}

int image_list(int state_dirfd, struct image_info **ret, size_t *ret_n, struct err *e)
{
	AUTO_CLOSE int place = -1;
	AUTO_FREE struct found *all = NULL;
	AUTO_FREE struct image_info *infos = NULL;
	size_t n = 0;
	int r = place_open(state_dirfd, IMAGES_FOLDER, &place, e);

	if (r == -ERR_NOT_FOUND && e)
		*e = (struct err)ERR_INIT; /* nothing was ever built: an empty list */
	else if (r == 0)
		r = read_entries(place, &all, &n, e);
	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	infos = mem_new((n + 1) * sizeof(*infos));
	for (size_t i = 0; i < n; i++) {
		struct manifest m = { 0 };

		r = load_info(place, &all[i], &infos[i], &m, NULL);
		infos[i].is_damaged = r < 0;
		manifest_deinit(&m);
	}
	qsort(infos, n, sizeof(*infos), by_name_and_age);
	*ret = take_ptr(&infos);
	*ret_n = n;
	return 0;
}

int image_inspect(int state_dirfd, const char *ref, struct image_info *ret,
		  struct manifest *ret_manifest, struct err *e)
{
	AUTO_CLOSE int place = -1;
	struct manifest m = { 0 };
	struct image_info info;
	struct found f;
	int r = place_open(state_dirfd, IMAGES_FOLDER, &place, e);

	if (r == 0)
		r = find(place, ref, &f, e);
	if (r == 0)
		r = load_info(place, &f, &info, &m, e);
	if (r < 0) {
		manifest_deinit(&m);
		return r;
	}
	*ret = info;
	*ret_manifest = m;
	return 0;
}
