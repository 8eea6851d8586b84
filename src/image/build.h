/*
 * image/build.h - from a recipe to an image: bootstrap the distribution's
 * packages into a tree, pack it as a file system, seal both.
 *
 * Nothing is mounted by us and no loop device is used. As root the tree has its
 * real owners; otherwise user namespaces make the file system right, and the tree
 * belongs to who builds. Interrupted at any point, the store is as before.
 * Any thread; blocks for about half a minute.
 */
#pragma once
#include <stdbool.h>
#include "image/hash.h"
struct err;
struct progress;

struct build_request {
	int state_dirfd;           /* lent */
	int templates_dirfd;       /* lent; holds <name>.yaml */
	const char *name;          /* of the template */
	const char *init_path;     /* hotcell-init, for the initramfs */
	bool is_forced;            /* also when nothing changed; asks apt for a newer kernel, too */
	struct progress *progress; /* may be NULL */
};

struct build_result {
	char digest[HASH_TEXT];
	bool is_new; /* false: recipe, kernel and initramfs were all there already */
};

/*
 * image_build() - make kernel, initramfs and image, as far as they are missing or out of date
 *
 * Return: 0; -ERR_NOT_FOUND without such a template; -ERR_INVALID for a bad recipe;
 * -ERR_UNSUPPORTED when the host lacks a program (named, with its package) or is
 * no Debian on x86-64; -ERR_LIMIT when the disk is full; -ERR_CONFLICT while
 * another build runs; -ERR_UNAVAILABLE when packages can't be had.
 */
int image_build(const struct build_request *rq, struct build_result *ret, struct err *e);
