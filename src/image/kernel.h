/*
 * image/kernel.h - the guest's kernel: the distribution's cloud kernel, taken
 * from its package without installing it.
 *
 *	{state}/kernels/<release>/vmlinux	uncompressed, starts at a PVH entry
 *	{state}/kernels/<release>/modules/x.ko	what the initramfs loads, uncompressed
 *	{state}/kernels/<release>/manifest	release, package, hashes; modules in load order
 *	{state}/kernels/current			pointer to a release
 *
 * Any thread; the functions block.
 */
#pragma once
#include <stdbool.h>
#include "image/manifest.h"
struct err;
struct progress;

enum { KERNEL_RELEASE_MAX = 65 }; /* with NUL */

#define KERNELS_FOLDER "kernels"
#define KERNEL_CURRENT "current"
#define KERNEL_FILE    "vmlinux"
#define KERNEL_MODULES "modules"

struct kernel {
	int dir_fd; /* owned */
	char release[KERNEL_RELEASE_MAX];
	struct manifest manifest; /* owned */
};

#define KERNEL_INIT                                                                                \
	{                                                                                          \
		.dir_fd = -1                                                                       \
	}

/* Open the current kernel. -ERR_NOT_FOUND when none was fetched; -ERR_INVALID when damaged. */
int kernel_open(int state_dirfd, struct kernel *ret, struct err *e);
void kernel_close(struct kernel *k);

/* vmlinux for reading; its size is checked, its content is not. Given. */
int kernel_open_file(const struct kernel *k, int *ret_fd, struct err *e);

/* Open a module by a "module" line of the manifest; its size is checked. Given. */
int kernel_open_module(const struct kernel *k, const struct manifest_line *line, int *ret_fd,
		       struct err *e);

/* Hash everything again. -ERR_INVALID names the file that changed. */
int kernel_verify(const struct kernel *k, struct err *e);

/*
 * kernel_fetch() - make the newest kernel the package lists know the current one
 * @progress:	may be NULL
 *
 * Asks apt, downloads and unpacks unless the current one is already that
 * version. Return: 0; -ERR_UNSUPPORTED on hosts that are not Debian on x86-64 or
 * lack a program; -ERR_UNAVAILABLE when apt knows no such package or cannot fetch it.
 */
int kernel_fetch(int state_dirfd, struct progress *progress, struct err *e);
