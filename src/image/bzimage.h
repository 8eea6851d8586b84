/*
 * image/bzimage.h - find the kernel proper inside a Linux/x86 bzImage.
 * Source: the kernel's Documentation/arch/x86/boot.rst (setup header, fields
 * payload_offset and payload_length); the PVH entry is
 * the ELF note XEN_ELFNOTE_PHYS32_ENTRY of xen/include/public/elfnote.h.
 * Pure functions over bytes in memory. Any thread.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
struct err;

#define BZIMAGE_MAX_BYTES ((size_t)128 << 20)
#define VMLINUX_MAX_BYTES ((size_t)512 << 20)

struct bzimage {
	const unsigned char *payload; /* lent: points into the image */
	size_t payload_bytes;         /* what the unpacker must be fed, no more and no less */
	uint64_t unpacked_bytes;      /* what must come out */
	const char *unpacker; /* program that reads -dc from stdin: "gzip", "xz", "lz4", "zstd" */
};

/*
 * bzimage_parse() - locate the compressed kernel
 * Return: 0; -ERR_INVALID for what is no bzImage or a damaged one; -ERR_UNSUPPORTED for a
 * boot protocol before 2.08 or a compression that is not in the list; -ERR_LIMIT for sizes
 * beyond the maxima above.
 */
int bzimage_parse(const void *image, size_t n, struct bzimage *ret, struct err *e);

/*
 * vmlinux_check() - is this an x86-64 ELF kernel that starts at a PVH entry?
 * That note is what lets a monitor without firmware start it.
 */
int vmlinux_check(const void *elf, size_t n, struct err *e);
