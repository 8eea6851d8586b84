/*
 * snap/set.h - snapshot sets: a machine at one instant, on disk
 *
 *	{state}/snapshots/<id>/memory		sparse: pages that are not all zero, at their addresses;
 *						with a base, those that differ from it: snap/memory_int.h
 *	{state}/snapshots/<id>/base		memory of the set it descends from, a hard link: snap/layers.h
 *	{state}/snapshots/<id>/state		what the monitor says of its devices
 *	{state}/snapshots/<id>/files		instead of both, of a process sandbox: a stream of its files
 *	{state}/snapshots/<id>/layer-N		the disk: hard links and copies, see snap/layers.h
 *	{state}/snapshots/<id>/manifest		what it is, sums of the above, and a MAC over all that
 *	{state}/db/node.key			32 random bytes, made at first use; keys the MAC
 *
 * A snapshot, a template and the memory of a paused sandbox are the same thing. A
 * pause set has the sandbox's id and no layers of its own: the sandbox still has them.
 * A set whose driver is "process" has files where others have memory; they are kept, sealed
 * and verified alike, and below "memory" means them. It has no state and no layers.
 *
 * A machine that was made of a set has that set's memory, whole, as the base of all sets that are made
 * of it; so has one that was made of these. So a base has no base of its own, and is there as long as
 * anybody's needs it: each has a link. What a base holds is fixed by its tag in the manifest of the set
 * that needs it, whatever it was when the machine began. A template has none.
 *
 * SET-1 A set is there only when everything in it was synced: it is made in
 *	 "<id>.new" and renamed. What a death leaves goes with snap_sweep().
 * SET-2 Nothing in a set is ever written again.
 * SET-3 Nothing of a set is used before the MAC over its manifest was right, and
 *	 nothing of its memory or state before their sums were. Of a layer, length and
 *	 beginning are checked: that tells one that is cut or another's, not every change.
 *
 * Any thread, but one at a time for the same id; all functions block on disk.
 * @state_fd is the state directory. A full disk is ERR_LIMIT and leaves nothing.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>
#include "base/id.h"
#include "wire/gen/limits.h"
struct err;

#define SNAPSHOTS_FOLDER "snapshots"
#define SNAP_MEMORY	 "memory"
#define SNAP_KEY_FOLDER	 "db"
#define SNAP_KEY	 "node.key"

enum {
	SNAP_SUM = 32,			/* bytes of a SHA-256 */
	SNAP_SALT = 32, SNAP_TAG = 16,	/* bytes: of what a tag's key is made of, and of a tag */
	SNAP_STATE_MAX = 64 << 20,	/* bytes of the device state */
	SNAP_LAYER_SUM = 8,		/* bytes of a SHA-256, of a layer's length and beginning */
	SNAP_LAYER_HEAD = 1 << 20,	/* bytes: that beginning */
	SNAP_MANIFEST_MAX = 8192,	/* bytes of the text */
	SNAP_FORMAT = 3, SNAP_FORMAT_BEFORE = 2, /* with a base, and without */
};

/*
 * Texts are printable ASCII without a space at either end; "" where there is nothing to say.
 * What is set by snap_save() may be anything before.
 */
struct snap_manifest {
	struct id id;
	char kind[33]; /* "snapshot", "template", "pause" */
	char name[LIMIT_TEXT_SHORT + 1], tenant[LIMIT_TEXT_SHORT + 1], owner[LIMIT_TEXT_SHORT + 1];
	struct id sandbox, parent;	       /* zero: none */
	char template[LIMIT_TEXT_SHORT + 1];   /* it descends from */
	char image[LIMIT_TEXT_SHORT + 1];      /* digest */
	char driver[33];
	char closure[LIMIT_TEXT_SHORT + 1];    /* of the monitor; keeper_info.closure */
	char cpu[LIMIT_TEXT_SHORT + 1];	       /* the guest's processor and what runs it */
	char kernel[LIMIT_TEXT_SHORT + 1];     /* release */
	uint64_t tsc_khz, vcpus, memory_mb, disk_mb, pids_max;
	uint64_t layers;		       /* of the disk that the memory goes with */
	uint64_t created_ms, delete_ms;	       /* since 1970; delete 0: kept */
	uint64_t generation;		       /* of the link when it was taken */
	/* Set by snap_save(): */
	uint64_t memory_size, memory_bytes;    /* of all; of the pages that are not zero */
	uint64_t state_bytes;
	unsigned char memory_salt[SNAP_SALT], memory_tag[SNAP_TAG];
	unsigned char state_sum[SNAP_SUM];
	unsigned char layer_sums[LIMIT_DISK_LAYERS][SNAP_LAYER_SUM];
	uint64_t own_bytes, base_size;	       /* of the pages in its own file; of the base, 0: it has none */
	unsigned char base_tag[SNAP_TAG];
};

/* What it takes on disk that others can't have too. */
static inline uint64_t snap_own_bytes(const struct snap_manifest *m)
{
	return (m->base_size ? m->own_bytes : m->memory_bytes) + m->state_bytes;
}

/*
 * snap_save() - write a set
 * @m:			what it is; sizes and sums are set on success
 * @memory_fd:		memory file of the machine, sealed or at rest; -1: no memory (and no state): a disk alone
 * @device_state_fd:	device state, from its start to its end; -1 with files
 * @layers_from:	"sandboxes/<id>" or "snapshots/<id>": its layers 0 to m->layers - 1 are shared
 *			or copied; NULL: none, those of the sandbox m->id are synced where they are (a pause)
 *
 * Return: 0; -ERR_CONFLICT when there is a set of this id; -ERR_INVALID for a manifest
 * that can't be written; -ERR_LIMIT when the host's disk is full: then nothing is left.
 */
int snap_save(int state_fd, struct snap_manifest *m, int memory_fd, int device_state_fd,
	      const char *layers_from, struct err *e);

struct snap_set {
	struct snap_manifest manifest;
	int memory_fd, state_fd; /* sealed memory files; -1 in a set without memory. state_fd is at its start */
};

#define SNAP_SET_INIT {.memory_fd = -1, .state_fd = -1}

void snap_set_close(struct snap_set *s);

/*
 * snap_load() - bring a set into memory, verified
 * @ret:	given: snap_set_close()
 *
 * The layers are opened by layers_link() or, for a pause, layers_open().
 *
 * Return: 0; -ERR_NOT_FOUND; -ERR_DENIED when the manifest was made on another installation
 * or changed; -ERR_INVALID when something is damaged: the text says what, and the way out;
 * -ERR_UNSUPPORTED for a newer format; -ERR_LIMIT without memory for it.
 */
int snap_load(int state_fd, const struct id *id, struct snap_set *ret, struct err *e);

/* For whoever takes the disk alone: the manifest and the layers are what they were. Failures as snap_load(). */
int snap_disk_check(int state_fd, const struct id *id, struct err *e);

/* The manifest alone, its MAC verified. Failures as snap_load(). */
int snap_manifest_load(int state_fd, const struct id *id, struct snap_manifest *ret, struct err *e);

/*
 * Call @each for every set: with its manifest, or with NULL and why it can't be used.
 * Order: any. @each must not call functions of this module that change sets.
 */
int snap_each(int state_fd,
	      void (*each)(void *arg, const struct id *id, const struct snap_manifest *m,
			   const struct err *why),
	      void *arg, struct err *e);

/* Gone in one instant, freed afterwards. Layers live on in who else has them. None there: 0. */
int snap_remove(int state_fd, const struct id *id, struct err *e);

/* Remove what deaths left here and, with layers_sweep(), among the sandboxes. At start, before any other call. */
int snap_sweep(int state_fd, struct err *e);
