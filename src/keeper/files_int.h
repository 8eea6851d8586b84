/*
 * keeper/files_int.h - the stream of keeper/files.h
 *
 *	FILES_MAGIC, then records; each has the bytes of its name behind it, then @size bytes of
 *	content where the table says so. Numbers are the host's: a stream never leaves its host.
 *
 *	record	name	content		what
 *	'd'	yes			a folder; what is in it follows, to its 'e'
 *	'f'	yes			a file of @size bytes; its data and attributes follow, to its 'e'
 *	'b'		the bytes	data of that file, from @at on; the rest of it is holes
 *	'x'	yes	the value	an attribute of the innermost folder or file; after what is in it
 *	'e'				end of the innermost folder or file
 *	'l'	yes	its target	a symbolic link
 *	'h'	yes	a path		another name of what the stream has at this path from the root
 *	'p' 's'	yes			a FIFO, a socket
 *	'w'	yes			a deleted name of the template
 *	'z'				the end
 *
 * Private to files_pack.c, files_unpack.c and their tests.
 */
#pragma once
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#define FILES_MAGIC "hotcell files 1\n"

enum {
	FILES_MAGIC_BYTES = 16,
	FILES_NAME_MAX = 255,	   /* bytes of one */
	FILES_PATH_MAX = 4095,	   /* of a target, and of a path */
	FILES_VALUE_MAX = 1 << 16, /* of an attribute */
	FILES_DATA_MAX = 1 << 18,  /* in one record */
};

struct files_record {
	uint32_t type, name_len, mode, uid, gid, mtime_ns;
	int64_t mtime_s;
	uint64_t size, at;
};

static_assert(sizeof(struct files_record) == 48, "no padding: it is written as it is");

/* The folders of the root, in their order. */
static const char *const files_roots[] = {"upper", "tmp"};

/* Is this an attribute to keep? Not what the overlay notes for itself about the template it lay on. */
bool files_keeps_xattr(const char *name, bool is_folder);
