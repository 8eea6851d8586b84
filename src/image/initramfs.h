/*
 * image/initramfs.h - what a guest starts from: hotcell-init as /init, the modules
 * it needs to find its disks and its link, and empty folders to mount on.
 *
 *	/init				the given static program
 *	/modules/<x>.ko			those of the kernel's manifest
 *	/modules/order			their file names, one per line, to be loaded from first to
 *last /dev/console			character device 5:1 /dev /proc /sys /run /tmp /newroot
 *
 * One per kernel and program, kept as {state}/initrds/<key>/{initrd,manifest}
 * with <key> the hash of both; {state}/initrds/<release> points to the one in use.
 * Any thread; the functions block.
 */
#pragma once
#include <stdint.h>
struct err;
struct kernel;

#define INITRDS_FOLDER "initrds"
#define INITRD_FILE    "initrd"

/*
 * initramfs_ensure() - make the one for this kernel and program, unless it is there and whole
 * @init_path:	hotcell-init; must be a static x86-64 executable (-ERR_INVALID)
 */
int initramfs_ensure(int state_dirfd, const struct kernel *k, const char *init_path, struct err *e);

/* The one in use with @release, for reading. -ERR_NOT_FOUND; -ERR_INVALID when damaged. Given. */
int initramfs_open(int state_dirfd, const char *release, int *ret_fd, struct err *e);

/* Hash it again. */
int initramfs_verify(int state_dirfd, const char *release, struct err *e);

/* Write the archive to @fd: the part without a store. @init_fd: the program. */
int initramfs_write(int fd, const struct kernel *k, int init_fd, struct err *e);
