/* image/bzimage.c - bzImage and vmlinux, read with every offset checked first */
#include "image/bzimage.h"
#include <elf.h>
#include <stdbool.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"

/* Offsets in the setup header, and what must stand there. */
enum {
	AT_SETUP_SECTS = 0x1f1,
	AT_BOOT_FLAG = 0x1fe,
	AT_MAGIC = 0x202,
	AT_VERSION = 0x206,
	AT_PAYLOAD_OFFSET = 0x248,
	AT_PAYLOAD_BYTES = 0x24c,
	HEADER_BYTES = 0x250,
	BOOT_FLAG = 0xaa55,
	VERSION_WITH_PAYLOAD = 0x208,
	SECTOR = 512,
	DEFAULT_SETUP_SECTS = 4,
	SIZE_BYTES = 4, /* the unpacked size, last in every payload */
	MAGIC_MAX = 6,
	NOTE_PVH_ENTRY = 18,
};

/*
 * gzip ends in the unpacked size by its own format; behind the others the
 * kernel's build appends those four bytes, and an unpacker chokes on them.
 */
static const struct packing {
	const char *name, *unpacker;
	unsigned char magic[MAGIC_MAX];
	unsigned char magic_bytes;
	bool size_is_appended;
} packings[] = {
	{ "gzip", "gzip", { 0x1f, 0x8b }, 2, false },
	{ "xz", "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6, true },
	{ "lz4", "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4, true },
	{ "zstd", "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4, true },
	{ "bzip2", NULL, { 'B', 'Z', 'h' }, 3, true },
	{ "lzma", NULL, { 0x5d, 0, 0 }, 3, true },
	{ "lzo", NULL, { 0x89, 'L', 'Z', 'O' }, 4, true },
};

static uint32_t le(const unsigned char *p, int bytes)
{
	uint32_t v = 0;

	for (int i = 0; i < bytes; i++)
		v |= (uint32_t)p[i] << (8 * i);
	return v;
}

static const struct packing *find_packing(const unsigned char *p, size_t n)
{
	for (size_t i = 0; i < ARRAY_LEN(packings); i++)
		if (n >= packings[i].magic_bytes &&
		    !memcmp(p, packings[i].magic, packings[i].magic_bytes))
			return &packings[i];
	return NULL;
}

static int find_payload(const unsigned char *p, size_t n, size_t *ret_at, size_t *ret_bytes,
			struct err *e)
{
	uint64_t sects, at, bytes;

	if (n < HEADER_BYTES || le(p + AT_BOOT_FLAG, 2) != BOOT_FLAG ||
	    memcmp(p + AT_MAGIC, "HdrS", 4) != 0)
		return err_set(e, ERR_INVALID, "the kernel is not a bzImage");
	if (le(p + AT_VERSION, 2) < VERSION_WITH_PAYLOAD)
		return err_set(e, ERR_UNSUPPORTED,
			       "the kernel speaks boot protocol %u.%02u; at least 2.08 is needed",
			       p[AT_VERSION + 1], p[AT_VERSION]);
	sects = p[AT_SETUP_SECTS] ? p[AT_SETUP_SECTS] : DEFAULT_SETUP_SECTS;
	at = (sects + 1) * SECTOR + le(p + AT_PAYLOAD_OFFSET, 4); /* 64 bits hold the sum */
	bytes = le(p + AT_PAYLOAD_BYTES, 4);
	if (at > n || bytes > n - at || bytes <= SIZE_BYTES)
		return err_set(e, ERR_INVALID,
			       "the bzImage is damaged: its payload lies outside the file");
	*ret_at = (size_t)at;
	*ret_bytes = (size_t)bytes;
	return 0;
}

int bzimage_parse(const void *image, size_t n, struct bzimage *ret, struct err *e)
{
	const unsigned char *p = image;
	const struct packing *packing;
	size_t at = 0, bytes = 0;
	uint64_t unpacked;
	int r;

	if (n > BZIMAGE_MAX_BYTES)
		return err_set(e, ERR_LIMIT, "the bzImage has %zu bytes; the maximum is %zu", n,
			       BZIMAGE_MAX_BYTES);
	r = find_payload(p, n, &at, &bytes, e);
	if (r < 0)
		return r;
	packing = find_packing(p + at, bytes);
	if (!packing)
		return err_set(
			e, ERR_INVALID,
			"the bzImage is damaged: its payload begins with no known magic number");
	if (!packing->unpacker)
		return err_set(
			e, ERR_UNSUPPORTED,
			"the kernel is packed with %s; gzip, xz, lz4 and zstd can be unpacked",
			packing->name);
	unpacked = le(p + at + bytes - SIZE_BYTES, SIZE_BYTES);
	if (!unpacked || unpacked > VMLINUX_MAX_BYTES)
		return err_set(e, ERR_LIMIT,
			       "the kernel claims to unpack to %llu bytes; the maximum is %zu",
			       (unsigned long long)unpacked, VMLINUX_MAX_BYTES);
	*ret = (struct bzimage){
		.payload = p + at,
		.payload_bytes = packing->size_is_appended ? bytes - SIZE_BYTES : bytes,
		.unpacked_bytes = unpacked,
		.unpacker = packing->unpacker,
	};
	return 0;
}

/* Does the note segment of @n bytes at @p hold the PVH entry? Notes: header, name, descriptor,
 * 4-aligned. */
static bool notes_have_pvh(const unsigned char *p, size_t n)
{
	Elf64_Nhdr note;
	size_t name, desc;

	while (n >= sizeof(note)) {
		memcpy(&note, p, sizeof(note));
		name = ((size_t)note.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)note.n_descsz + 3) & ~(size_t)3;
		p += sizeof(note);
		n -= sizeof(note);
		if (name > n || desc > n - name)
			return false;
		if (note.n_type == NOTE_PVH_ENTRY && note.n_namesz == sizeof("Xen") &&
		    !memcmp(p, "Xen", sizeof("Xen")))
			return note.n_descsz == 4 || note.n_descsz == 8;
		p += name + desc;
		n -= name + desc;
	}
	return false;
}

static bool has_pvh_entry(const unsigned char *p, size_t n, const Elf64_Ehdr *eh)
{
	Elf64_Phdr ph;

	for (unsigned i = 0; i < eh->e_phnum; i++) {
		memcpy(&ph, p + eh->e_phoff + i * sizeof(ph),
		       sizeof(ph)); /* the caller checked the table */
		if (ph.p_type != PT_NOTE || ph.p_offset > n || ph.p_filesz > n - ph.p_offset)
			continue;
		if (notes_have_pvh(p + ph.p_offset, ph.p_filesz))
			return true;
	}
	return false;
}

int vmlinux_check(const void *elf, size_t n, struct err *e)
{
	const unsigned char *p = elf;
	Elf64_Ehdr eh;

	if (n < sizeof(eh))
		return err_set(e, ERR_INVALID, "the unpacked kernel is too short to be one");
	memcpy(&eh, p, sizeof(eh));
	if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0 || eh.e_ident[EI_CLASS] != ELFCLASS64 ||
	    eh.e_ident[EI_DATA] != ELFDATA2LSB || eh.e_machine != EM_X86_64 || eh.e_type != ET_EXEC)
		return err_set(e, ERR_INVALID,
			       "the unpacked kernel is not an x86-64 ELF executable");
	if (eh.e_phentsize != sizeof(Elf64_Phdr) || eh.e_phoff > n ||
	    (size_t)eh.e_phnum * sizeof(Elf64_Phdr) > n - eh.e_phoff)
		return err_set(
			e, ERR_INVALID,
			"the unpacked kernel is damaged: its program headers lie outside the file");
	if (!has_pvh_entry(p, n, &eh))
		return err_set(e, ERR_UNSUPPORTED,
			       "the kernel has no PVH entry (CONFIG_PVH); monitors without "
			       "firmware can't start it");
	return 0;
}
