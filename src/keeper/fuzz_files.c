/*
 * keeper/fuzz_files.c - streams of arbitrary bytes: nothing is made outside of the folder, and
 * what could be made can be written down again
 *
 * Root works in a tmpfs nobody else sees; others in a folder below /tmp.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "keeper/files.h"
#include "keeper/files_int.h"
#include "sys/fd.h"
#include "sys/ns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[] = "/tmp/fuzz_files.XXXXXX";

static void remove_folder(void)
{
	(void)sys_remove_tree(AT_FDCWD, folder);
}

static int open_place(void)
{
	static const char *const opts[] = {"size=256m", "mode=0755", NULL};
	int mount = sys_mount_new("tmpfs", opts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);

	if (mount >= 0)
		return mount;
	if (!mkdtemp(folder) || atexit(remove_folder) != 0)
		abort();
	return sys_open(folder, O_RDONLY | O_DIRECTORY);
}

static int new_layer(int place)
{
	int fd;

	if (sys_remove_tree(place, "layer") < 0 || sys_mkdir(place, "layer", 0700) < 0)
		abort();
	fd = sys_openat(place, "layer", O_RDONLY | O_DIRECTORY, 0);
	for (size_t i = 0; i < ARRAY_LEN(files_roots); i++)
		if (sys_mkdir(fd, files_roots[i], 0700) < 0)
			abort();
	return fd;
}

/* All there is beside the layer. */
static void check_outside(int place)
{
	char text[8];

	if (sys_read_file(place, "outside", text, sizeof(text)) != 4 || faccessat(place, "way", F_OK, 0) == 0)
		abort();
}

static void try_stream(int stream, int layer)
{
	AUTO_CLOSE int again = -1;
	struct err e = ERR_INIT;

	if (files_unpack(stream, layer, &e) < 0) {
		if (!e.code || !e.text[0])
			abort();
		return;
	}
	again = sys_memfd("again", 0);
	if (files_pack(layer, again, 64 * MIB, &e) < 0 && (geteuid() == 0 && e.code != ERR_LIMIT))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int place = -1;
	AUTO_CLOSE int stream = sys_memfd("stream", 0), layer = -1;

	if (place < 0) {
		place = open_place();
		if (sys_write_file(place, "outside", "text") < 0)
			abort();
	}
	layer = new_layer(place);
	if (sys_pwrite_full(stream, data, size, 0) < 0)
		abort();
	try_stream(stream, layer);
	check_outside(place);
	return 0;
}
