/*
 * snap/qcow2.c - header, reference counts and an empty first-level table
 *
 *	cluster 0	header
 *	cluster 1	reference count table, of which the first entry is used
 *	cluster 2	the block it names: one count each for clusters 0 to 3
 *	cluster 3	first-level table, all zero: nothing allocated
 *
 * What is zero stays a hole.
 */
#include "snap/qcow2.h"
#include <endian.h>
#include <inttypes.h>
#include "base/err.h"
#include "base/macro.h"
#include "snap/dir_int.h"
#include "sys/fd.h"

enum {
	AT_COUNT_TABLE = 1 * QCOW2_CLUSTER,
	AT_COUNTS = 2 * QCOW2_CLUSTER,
	AT_L1 = 3 * QCOW2_CLUSTER,
	CLUSTERS = 4,
	CLUSTER_BITS = 16,
	COUNT_ORDER = 4, /* 1 << 4 bits */
};

#define MAGIC 0x514649fbu /* "QFI" and 0xfb */

/* Big-endian on disk. */
struct header {
	uint32_t magic, version;
	uint64_t backing_at;
	uint32_t backing_bytes, cluster_bits;
	uint64_t virtual_bytes;
	uint32_t encryption, l1_entries;
	uint64_t l1_at, count_table_at;
	uint32_t count_table_clusters, snapshots;
	uint64_t snapshots_at;
	uint64_t incompatible, compatible, autoclear;
	uint32_t count_order, header_bytes;
	uint32_t end_of_extensions[2];
};

_Static_assert(sizeof(struct header) == 112, "104 bytes and the end of the extensions");

/* Bytes of the disk that one first-level entry reaches. */
static uint64_t reach(void)
{
	return (uint64_t)(QCOW2_CLUSTER / 8) * QCOW2_CLUSTER;
}

static int write_header(int fd, uint64_t virtual_bytes)
{
	const struct header h = {
		.magic = htobe32(MAGIC),
		.version = htobe32(3),
		.cluster_bits = htobe32(CLUSTER_BITS),
		.virtual_bytes = htobe64(virtual_bytes),
		.l1_entries = htobe32((uint32_t)((virtual_bytes + reach() - 1) / reach())),
		.l1_at = htobe64(AT_L1),
		.count_table_at = htobe64(AT_COUNT_TABLE),
		.count_table_clusters = htobe32(1),
		.count_order = htobe32(COUNT_ORDER),
		.header_bytes = htobe32(offsetof(struct header, end_of_extensions)),
	};

	return sys_pwrite_full(fd, &h, sizeof(h), 0);
}

static int write_all(int fd, uint64_t virtual_bytes)
{
	const uint64_t block = htobe64(AT_COUNTS);
	uint16_t counts[CLUSTERS];
	int r;

	for (unsigned i = 0; i < CLUSTERS; i++)
		counts[i] = htobe16(1);
	r = sys_truncate(fd, (uint64_t)CLUSTERS * QCOW2_CLUSTER);
	if (r == 0)
		r = sys_pwrite_full(fd, counts, sizeof(counts), AT_COUNTS);
	if (r == 0)
		r = sys_pwrite_full(fd, &block, sizeof(block), AT_COUNT_TABLE);
	return r < 0 ? r : write_header(fd, virtual_bytes);
}

int qcow2_make(int fd, uint64_t virtual_bytes, struct err *e)
{
	int r;

	if (!virtual_bytes || virtual_bytes % QCOW2_SECTOR)
		return err_set(e, ERR_INVALID, "a disk can't have %" PRIu64 " bytes", virtual_bytes);
	if (virtual_bytes > QCOW2_VIRTUAL_MAX)
		return err_set(e, ERR_LIMIT, "a disk layer has at most %" PRIu64 " bytes",
			       (uint64_t)QCOW2_VIRTUAL_MAX);
	r = write_all(fd, virtual_bytes);
	return r < 0 ? err_disk(e, r, "make a disk layer") : 0;
}
