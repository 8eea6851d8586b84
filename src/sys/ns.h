/*
 * sys/ns.h - user namespaces and mounts, by descriptor where the kernel allows it.
 * Everything returns 0 or a descriptor, or a negative errno. Any thread, but a
 * process that changes its own namespaces should have one thread.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Ids 0..@count-1 inside the user namespace of @pid become @uid.., @gid.. outside.
 * Without CAP_SETUID only one's own uid and gid with @count 1 (setgroups is then denied).
 */
int sys_userns_map(pid_t pid, uid_t uid, gid_t gid, unsigned count);
int sys_ns_open(pid_t pid, const char *kind); /* "user", "net", ...: a descriptor of the namespace */

/* A detached mount of the directory or file @path below @dirfd ("" : @dirfd itself). */
int sys_tree_clone(int dirfd, const char *path);
/* The owners on disk 0..n appear as the ids that @userns_fd maps 0..n to. Detached mounts only. */
int sys_mount_idmap(int mount_fd, int userns_fd);
/* Set and clear MOUNT_ATTR_* on one mount, or on all below with @recursive. */
int sys_mount_attr(int fd, const char *path, uint64_t set, uint64_t clear, bool recursive);
/* Attach a detached mount, or move an attached one with all below it, to @path ("": @dirfd itself). */
int sys_mount_attach(int mount_fd, int dirfd, const char *path);

/*
 * sys_mount_new() - make a file system instance: fsopen, fsconfig, fsmount
 * @opts:	"key=value" or "flag" entries, NULL-terminated; lent
 * @attrs:	MOUNT_ATTR_*
 *
 * Return: a detached mount. Source: fsopen(2); Linux 5.2.
 */
int sys_mount_new(const char *type, const char *const *opts, unsigned attrs);

int sys_mount_private(void); /* nothing mounted here reaches the parent's mount namespace */
int sys_bind(const char *from, const char *to);
/* Make @new_root (a mount point) the root and let go of the old one; cwd is "/" afterwards. */
int sys_pivot(const char *new_root);

#define NS_BOOT_ID "sys/kernel/random/boot_id" /* in /proc */

/*
 * Hide what /proc says about the whole machine, and make what configures it
 * read-only. In a user namespace these are second layers: the files belong to
 * ids that are not mapped there. Files a kernel does not have are passed over.
 */
int sys_proc_mask(const char *proc);

int sys_loopback_up(void); /* in the network namespace of the caller */
int sys_hostname(const char *name);
