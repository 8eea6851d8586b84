/*
 * snap/qcow2.h - an empty qcow2 image, the only kind we make
 *
 * Nothing here reads one: an image that a machine has written is the machine's,
 * and only its jailed monitor parses it. What lies below an overlay is not written
 * into it either; the monitor is told by descriptor. Any thread; blocks on disk.
 *
 * Source: QEMU docs/interop/qcow2, version 3.
 */
#pragma once
#include <stdint.h>
struct err;

enum {
	QCOW2_CLUSTER = 1 << 16,
	QCOW2_SECTOR = 512,
};

/* What one cluster of first-level entries reaches: 4 TiB. Larger disks are refused. */
#define QCOW2_VIRTUAL_MAX ((uint64_t)(QCOW2_CLUSTER / 8) * (QCOW2_CLUSTER / 8) * QCOW2_CLUSTER)

/*
 * qcow2_make() - make @fd an image of @virtual_bytes in which nothing was written yet
 * @fd:			an empty file, open for writing; not synced
 * @virtual_bytes:	a multiple of QCOW2_SECTOR, at most QCOW2_VIRTUAL_MAX
 *
 * Clusters of 64 KiB, reference counts of 16 bits, nothing lazy, no backing file
 * by name; four clusters long and 12 KiB on disk.
 *
 * Return: 0; -ERR_LIMIT for a larger disk or when the host's disk is full;
 * -ERR_INVALID for a size of 0 or of half a sector.
 */
int qcow2_make(int fd, uint64_t virtual_bytes, struct err *e);
