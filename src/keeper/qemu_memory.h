/*
 * keeper/qemu_memory.h - how a machine's memory comes to be its own
 *
 * QEMU would map the memory file as a whole. But whoever first touches a hole of a memory file makes a page in the
 * file, which can't be taken back, and when it was a write, a copy of that page as well: a machine would
 * pay twice for what it uses, and swell the file that it shares with others. So a small object of ours is loaded
 * into QEMU before its libraries (preload/qemu_memory.c) and maps the file only where it has data. The holes are
 * private memory: a private mapping of /dev/zero, which is anonymous to the kernel, and yet tells keeper/copier.h
 * by its offset which part of the memory it is.
 *
 * QMEM-1 Without the object QEMU finds no memory and ends: the number on its command line is one that only the
 *	  object makes (QEMU_FD_RAM). If the memory can't be mapped so, the object ends QEMU with the reason.
 * QMEM-2 The object is part of this program, not of a closure: closures that sealed older snapshots stay what
 *	  they are. It needs nothing of libc that is newer than any QEMU we run.
 */
#pragma once
#include <stddef.h>
#include "wire/gen/limits.h"

struct err;

/* Descriptors of QEMU that the object knows. */
enum {
	QEMU_FD_RAM = 9,     /* what the command line names: the object's copy of the next one */
	QEMU_FD_MEMORY = 10, /* the memory file */
	QEMU_FD_ZERO = 12 + LIMIT_DISK_LAYERS, /* /dev/zero */
	QEMU_FD_OBJECT,			       /* the object, sealed */
};

#define QEMU_ZERO "/dev/zero"

/* A file of more pieces than this is mapped with its narrowest holes. Twice as many mappings stay far below the
 * kernel's bound for a process (vm.max_map_count, 65530). */
enum { QEMU_EXTENTS_MAX = 4096 };

extern const unsigned char qemu_memory_object[];
extern const size_t qemu_memory_object_bytes;

/* The object as a sealed memory file, to be lent to every QEMU; the caller closes it. */
int qemu_memory_object_new(int *ret_fd, struct err *e);
