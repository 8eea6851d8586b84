/*
 * snap/layers.h - the writable disk of a sandbox: a chain of files, oldest first
 *
 *	{state}/sandboxes/<id>/layer-0		raw ext4, sparse; made by image/disk.h
 *	{state}/sandboxes/<id>/layer-1 ...	qcow2 overlays, at most LIMIT_DISK_LAYERS layers in all
 *	{state}/sandboxes/<id>/base		what its memory began as, a hard link; see snap/set.h
 *	{state}/snapshots/<id>/layer-0 ...	the layers a snapshot consists of, shared by hard links
 *
 * LAYERS-1 Only the last layer of a sandbox is ever written by a machine that does what it should.
 *	    A layer below it, or in a snapshot, never changes again.
 * LAYERS-2 A folder or file appears under its name whole or not at all. What a death
 *	    leaves has a name ending in ".new" and goes with layers_sweep().
 * LAYERS-3 A monitor that was taken over writes to whatever file it was ever given for writing, for as
 *	    long as it lives. So a file has its place below several machines or snapshots only if no
 *	    machine ever had it open for writing; it is *sealed*, which its mode says: 0400. Only
 *	    copies that we made are, and they are never opened for writing again. What is not sealed
 *	    (0600: a layer that a machine writes or has written, and all that older versions made) is
 *	    copied, never linked, into whatever else needs it: layers_link(), layers_rollback() and
 *	    snap_save() see to that. layers_seal() replaces such layers by sealed copies, so that one is
 *	    copied once; the machine that wrote it keeps its own file, which then has no name. What
 *	    is summed in a manifest, and what other machines open, is the copy.
 *
 * No file's content is parsed here: machines wrote it. Folders are 0700, files 0600.
 * Nothing is synced: a running machine does not outlive the host; snap_save() syncs
 * what it keeps.
 *
 * Any thread, but one at a time for the same sandbox; all functions block on disk.
 * @state_fd is the state directory. A full disk is ERR_LIMIT.
 */
#pragma once
#include <stdint.h>
#include "base/id.h"
#include "wire/gen/limits.h"
struct err;

#define SANDBOXES_FOLDER "sandboxes"
#define LAYER_0		 "layer-0"

struct layers {
	int fds[LIMIT_DISK_LAYERS]; /* the last one O_RDWR, the others O_RDONLY; -1 beyond n */
	unsigned n;
};

#define LAYERS_INIT {.fds = {[0 ... LIMIT_DISK_LAYERS - 1] = -1}}

void layers_close(struct layers *l); /* all of them; l is then LAYERS_INIT. None: fine */

/*
 * layers_open() - open the chain of @id as it is: for a resume
 * @ret:	given: layers_close()
 *
 * Return: 0; -ERR_NOT_FOUND when it has no disk; -ERR_CONFLICT when the last layer is in
 * a snapshot as well or sealed (LAYERS-3): layers_add() one first.
 */
int layers_open(int state_fd, const struct id *id, struct layers *ret, struct err *e);

/*
 * layers_add() - make layer @n, an empty overlay of @virtual_bytes, in @id's folder
 * @ret_fd:	given: open for reading and writing
 *
 * Return: 0; -ERR_CONFLICT when there is one; -ERR_LIMIT when the chain is as long as it may
 * be (n == LIMIT_DISK_LAYERS: they count from 0) or the host's disk is full.
 */
int layers_add(int state_fd, const struct id *id, unsigned n, uint64_t virtual_bytes, int *ret_fd,
	       struct err *e);

/*
 * layers_flatten() - the layers between the lowest and the top one go; the top one is layer 1
 * @n:		layers of @id; the top one has what the others between had
 *
 * Whatever a death leaves is finished by the next call for @id. Two layers or fewer: nothing
 * to do. Return: 0; -ERR_NOT_FOUND when there is no layer n - 1 nor what a death left of this.
 */
int layers_flatten(int state_fd, const struct id *id, unsigned n, struct err *e);

/*
 * layers_seal() - layers 0 to @n - 1 of @id are sealed from now on (LAYERS-3), those that are not by copying
 *
 * Its machine may run, and writes to none of them if it does what it should. What a failure
 * leaves is as good as before, and goes on with the next call.
 * Return: 0; -ERR_NOT_FOUND when one is missing.
 */
int layers_seal(int state_fd, const struct id *id, unsigned n, struct err *e);

/* Undo layers_add() before anything went on in it. Missing: 0. Layer 0 is refused. */
int layers_drop(int state_fd, const struct id *id, unsigned n, struct err *e);

/*
 * layers_link() - make the disk of the new sandbox @to out of layers that stay as they are
 * @from_dir:		"sandboxes/<id>" or "snapshots/<id>", id as 32 lower-case hex digits
 * @n:			its layers 0 to n-1 are shared, or copied (LAYERS-3); layer n is a new empty overlay
 * @virtual_bytes:	of the disk
 * @ret:		given: n + 1 layers
 *
 * Return: 0; -ERR_CONFLICT when @to has a disk; -ERR_NOT_FOUND when a layer is missing;
 * -ERR_LIMIT when that is more than LIMIT_DISK_LAYERS or the host's disk is full.
 */
int layers_link(int state_fd, const char *from_dir, unsigned n, const struct id *to,
		uint64_t virtual_bytes, struct layers *ret, struct err *e);

/*
 * layers_rollback() - the disk of @id becomes that of the snapshot @set, in one instant
 * @n:		layers of the set; the chain has n + 1 afterwards
 * @ret:	given
 *
 * No machine may have it open any more. After a failure the old disk is what it was.
 * Return: as layers_link(), but @id must have a disk.
 */
int layers_rollback(int state_fd, const struct id *id, const struct id *set, unsigned n,
		    uint64_t virtual_bytes, struct layers *ret, struct err *e);

/* Remove the folder of @id with all its layers, whole or half made. None there: 0. */
int layers_remove(int state_fd, const struct id *id, struct err *e);

/* Remove what deaths left of unfinished links and rollbacks. At start, before any other call. */
int layers_sweep(int state_fd, struct err *e);
