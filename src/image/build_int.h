/* image/build_int.h - what build.c and bootstrap.c share. Private to image/. */
#pragma once
#include <stdbool.h>
#include "base/str.h"
#include "image/build.h"
#include "image/recipe.h"
#include "image/tool.h"

#define BUILD_TARBALL "tree.tar"        /* without root: the tree with its real owners */
#define BUILD_OWNERS  "owners.fakeroot" /* without root: who owns what in the unpacked tree */

enum { BUILD_SUITE_MAX = 33, BUILD_UUID_MAX = 37 };

/* A build on its way. */
struct build {
	const struct build_request *rq;
	struct recipe recipe;
	char suite[BUILD_SUITE_MAX]; /* of the host's Debian: "bookworm" */
	char recipe_hash[HASH_TEXT];
	char uuid[BUILD_UUID_MAX];
	bool is_root;
	int place, lock;     /* {state}/images and its lock */
	int new_fd, tree_fd; /* ".new" in it, and the tree in that */
	struct str manifest;
};

/* A program to be run in new_fd, ended with the build; the caller adds what it likes. */
struct tool build_tool(const struct build *b, const char *const *argv);

/* Run such a program; @output: NULL, or where its standard output goes. */
int build_run(const struct build *b, const char *const *argv, struct str *output, struct err *e);

/* Find the host's suite. -ERR_UNSUPPORTED where that is none of Debian's. */
int bootstrap_find_suite(char ret[BUILD_SUITE_MAX], struct err *e);

/* Add what of the bootstrap decides about the result. */
void bootstrap_describe(struct str *s);

/*
 * Make new_fd/tree (and open tree_fd): the recipe's packages of the suite, the user,
 * nothing of the host. Without root BUILD_TARBALL and BUILD_OWNERS lie beside it.
 */
int bootstrap(struct build *b, struct err *e);
