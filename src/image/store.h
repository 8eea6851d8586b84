/*
 * image/store.h - the images on disk: open, list, verify, remove.
 *
 *	{state}/images/<name>@<digest>/root.ext4	file system, only ever read
 *	{state}/images/<name>@<digest>/tree/		the same, unpacked, disarmed (tree_disarm())
 *	{state}/images/<name>@<digest>/warm		what a hot template runs (recipe.h), if anything:
 *	{state}/images/<name>@<digest>/interpreters	texts, a NUL behind each
 *	{state}/images/<name>@<digest>/manifest		<digest> is its SHA-256
 *	{state}/images/<name>				pointer to the newest build
 *
 * An image is named by `name`, `name@digest` or a digest; a digest may be cut to
 * IMAGE_DIGEST_MIN digits. Never a path. Any thread; the functions block on disk only.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/span.h"
#include "image/hash.h"
#include "image/kernel.h"
#include "image/recipe.h"
struct err;

enum { IMAGE_DIGEST_MIN = 12, IMAGES_MAX = 1000 };

#define IMAGES_FOLDER "images"
#define IMAGE_ROOT    "root.ext4"
#define IMAGE_TREE    "tree"
#define IMAGE_WARM    "warm"
#define IMAGE_CODE    "interpreters"

/*
 * An open image. While it is open nobody can remove it: dir_fd carries a shared
 * lock, which lasts until every copy of that descriptor is closed.
 */
struct image {
	char name[RECIPE_NAME_MAX];
	char digest[HASH_TEXT];
	char kernel_release[KERNEL_RELEASE_MAX];
	struct recipe_defaults defaults;
	struct strv warm;	  /* shell commands run once in a hot template; owned */
	struct strv interpreters; /* "language=source", likewise */
	uint64_t root_bytes;
	int dir_fd;    /* the lock */
	int root_fd;   /* O_RDONLY: root.ext4 */
	int tree_fd;   /* O_PATH: tree/ */
	int kernel_fd; /* O_RDONLY: vmlinux */
	int initrd_fd; /* O_RDONLY */
};

#define IMAGE_INIT                                                                                 \
	{                                                                                          \
		.dir_fd = -1, .root_fd = -1, .tree_fd = -1, .kernel_fd = -1, .initrd_fd = -1       \
	}

/*
 * image_open() - everything a driver needs to start a sandbox
 * @ref:	see above
 *
 * Sizes are checked against the manifests, contents are not (image_verify() does).
 * Return: 0; -ERR_INVALID for a reference that is none and for damage; -ERR_NOT_FOUND;
 * -ERR_CONFLICT when a digest is ambiguous or the image is being removed.
 */
int image_open(int state_dirfd, const char *ref, struct image *ret, struct err *e);
void image_close(struct image *i);

/* Hash image, tree, kernel and initramfs again. -ERR_INVALID names what changed. */
int image_verify(int state_dirfd, const char *ref, struct err *e);

/* Remove the build @ref names, and the name if it points there. -ERR_CONFLICT while it is open
 * anywhere. */
int image_remove(int state_dirfd, const char *ref, struct err *e);

struct image_info {
	char name[RECIPE_NAME_MAX];
	char digest[HASH_TEXT];
	char recipe[HASH_TEXT];
	char suite[KERNEL_RELEASE_MAX];
	bool is_current; /* the name points here */
	bool is_damaged; /* nothing below is set */
	uint64_t built_unix_s, root_bytes, n_packages;
	struct recipe_defaults defaults;
};

/* @ret: given, freed with free(); sorted by name, newest first. No images: 0 and *ret_n 0. */
int image_list(int state_dirfd, struct image_info **ret, size_t *ret_n, struct err *e);

/* One image's facts and its manifest (given). Works also when the kernel is missing. */
int image_inspect(int state_dirfd, const char *ref, struct image_info *ret,
		  struct manifest *ret_manifest, struct err *e);
