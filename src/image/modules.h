/*
 * image/modules.h - which kernel modules to load, in which order, by what
 * depmod wrote. Pure functions over text. Any thread.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
struct err;

enum {
	MODULES_MAX = 64,           /* of one guest */
	MODULES_PATH_MAX = 256,     /* of one path below lib/modules/<release>, with NUL */
	MODULES_DEPTH_MAX = 16,     /* of a chain of dependencies */
	MODULES_TEXT_MAX = 4 << 20, /* of modules.dep and modules.builtin */
};

struct module_wish {
	const char *name; /* '-' and '_' are the same letter */
	bool may_lack;    /* the guest works without it */
};

/* Paths as modules.dep has them, dependencies first, each once. */
struct module_list {
	char path[MODULES_MAX][MODULES_PATH_MAX];
	size_t n;
};

/*
 * modules_order() - everything to load for @wish
 * @dep:	text of modules.dep
 * @builtin:	text of modules.builtin: what needs no file
 *
 * Return: 0; -ERR_NOT_FOUND when the kernel lacks a module that may not be lacking;
 * -ERR_INVALID for paths that leave the folder; -ERR_LIMIT (also for a cycle).
 */
int modules_order(const char *dep, const char *builtin, const struct module_wish *wish,
		  size_t n_wish, struct module_list *ret, struct err *e);

/* The file name of a module path, without a compression suffix: "kernel/a/x-y.ko.xz" -> "x-y.ko".
 */
void modules_file_name(const char *path, char ret[MODULES_PATH_MAX]);
