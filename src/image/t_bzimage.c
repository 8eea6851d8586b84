/* image/t_bzimage.c */
#include "image/bzimage.h"
#include <elf.h>
#include "base/err.h"
#include "base/testing.h"

enum { SECTS = 3, PAYLOAD_AT = 64, IMAGE_BYTES = 4096 };

static void put(unsigned char *p, uint64_t v, int bytes)
{
	for (int i = 0; i < bytes; i++)
		p[i] = (unsigned char)(v >> (8 * i));
}

/* A bzImage with @magic at the start of @payload_bytes and @unpacked at their end. */
static void make_image(unsigned char *p, const char *magic, size_t magic_n, uint32_t payload_bytes,
		       uint32_t unpacked)
{
	size_t at = (SECTS + 1) * 512 + PAYLOAD_AT;

	memset(p, 0, IMAGE_BYTES);
	p[0x1f1] = SECTS;
	put(p + 0x1fe, 0xaa55, 2);
	memcpy(p + 0x202, "HdrS", 4);
	put(p + 0x206, 0x20f, 2);
	put(p + 0x248, PAYLOAD_AT, 4);
	put(p + 0x24c, payload_bytes, 4);
	memcpy(p + at, magic, magic_n);
	put(p + at + payload_bytes - 4, unpacked, 4);
}

static void finds_the_payload_of_every_packing(void **state)
{
	static const struct {
		const char *magic, *program;
		size_t n, cut;
	} table[] = {
		{ "\x1f\x8b", "gzip", 2, 0 },
		{ "\xfd"
		  "7zXZ\0",
		  "xz", 6, 4 },
		{ "\x02\x21\x4c\x18", "lz4", 4, 4 },
		{ "\x28\xb5\x2f\xfd", "zstd", 4, 4 },
	};
	unsigned char image[IMAGE_BYTES];
	struct err e = ERR_INIT;
	struct bzimage b;

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(table); i++) {
		make_image(image, table[i].magic, table[i].n, 500, 12345);
		assert_int_equal(bzimage_parse(image, sizeof(image), &b, &e), 0);
		assert_string_equal(b.unpacker, table[i].program);
		assert_ptr_equal(b.payload, image + (SECTS + 1) * 512 + PAYLOAD_AT);
		assert_int_equal(b.payload_bytes,
				 500 - table[i].cut); /* a program chokes on the appended size */
		assert_int_equal(b.unpacked_bytes, 12345);
	}
}

static void no_setup_sectors_means_four(void **state)
{
	unsigned char image[IMAGE_BYTES];
	struct bzimage b;

	T_UNUSED(state);
	make_image(image, "\x1f\x8b", 2, 500, 1);
	image[0x1f1] = 0;
	memcpy(image + 5 * 512 + PAYLOAD_AT, "\x1f\x8b", 2);
	put(image + 5 * 512 + PAYLOAD_AT + 496, 7, 4);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), 0);
	assert_ptr_equal(b.payload, image + 5 * 512 + PAYLOAD_AT);
}

static void says_what_it_cannot_unpack(void **state)
{
	unsigned char image[IMAGE_BYTES];
	struct err e = ERR_INIT;
	struct bzimage b;

	T_UNUSED(state);
	make_image(image, "BZh9", 4, 500, 1000);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "bzip2"));
	make_image(image, "\x1f\x8b", 2, 500, 1000);
	put(image + 0x206, 0x207, 2);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "2.07"));
	make_image(image, "what", 4, 500, 1000);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, &e), -ERR_INVALID);
}

static void refuses_sizes_that_lie(void **state)
{
	unsigned char image[IMAGE_BYTES];
	struct bzimage b;

	T_UNUSED(state);
	make_image(image, "\x1f\x8b", 2, 500, 0);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), -ERR_LIMIT);
	make_image(image, "\x1f\x8b", 2, 500, VMLINUX_MAX_BYTES + 1);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), -ERR_LIMIT);
	for (uint32_t bytes = 0; bytes <= 4; bytes++) {
		make_image(image, "\x1f\x8b", 2, 500, 1000);
		put(image + 0x24c, bytes, 4);
		assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), -ERR_INVALID);
	}
	make_image(image, "\x1f\x8b", 2, 500, 1000);
	put(image + 0x248, UINT32_MAX, 4);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), -ERR_INVALID);
	put(image + 0x248, PAYLOAD_AT, 4);
	put(image + 0x24c, UINT32_MAX, 4);
	assert_int_equal(bzimage_parse(image, sizeof(image), &b, NULL), -ERR_INVALID);
}

/* A copy of exactly n bytes on the heap: the sanitizer sees a read past any of them. */
static void every_truncation_is_refused(void **state)
{
	unsigned char image[IMAGE_BYTES];
	size_t whole = (SECTS + 1) * 512 + PAYLOAD_AT + 500;
	struct bzimage b;

	T_UNUSED(state);
	make_image(image, "\x1f\x8b", 2, 500, 1000);
	for (size_t n = 0; n <= whole; n++) {
		unsigned char *cut = malloc(n ? n : 1);

		memcpy(cut, image, n);
		assert_int_equal(bzimage_parse(cut, n, &b, NULL), n == whole ? 0 : -ERR_INVALID);
		free(cut);
	}
}

enum {
	PHDR_AT = sizeof(Elf64_Ehdr),
	NOTE_AT = PHDR_AT + 2 * sizeof(Elf64_Phdr),
	ELF_BYTES = NOTE_AT + 40
};

/* Program headers: a load segment, and notes: one of somebody else, then the PVH entry. */
static void make_elf(unsigned char *p)
{
	Elf64_Ehdr eh = { .e_ident = { 0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, 1 },
			  .e_type = ET_EXEC,
			  .e_machine = EM_X86_64,
			  .e_phoff = PHDR_AT,
			  .e_phentsize = sizeof(Elf64_Phdr),
			  .e_phnum = 2 };
	Elf64_Phdr ph[2] = { { .p_type = PT_LOAD },
			     { .p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = 40 } };
	Elf64_Nhdr other = { .n_namesz = 4, .n_descsz = 3, .n_type = 1 };
	Elf64_Nhdr pvh = { .n_namesz = 4, .n_descsz = 4, .n_type = 18 };

	memset(p, 0, ELF_BYTES);
	memcpy(p, &eh, sizeof(eh));
	memcpy(p + PHDR_AT, ph, sizeof(ph));
	memcpy(p + NOTE_AT, &other, sizeof(other));
	memcpy(p + NOTE_AT + 12, "GNU", 4);
	memcpy(p + NOTE_AT + 20, &pvh, sizeof(pvh));
	memcpy(p + NOTE_AT + 32, "Xen", 4);
}

static void knows_a_kernel_with_a_pvh_entry(void **state)
{
	unsigned char elf[ELF_BYTES];
	struct err e = ERR_INIT;

	T_UNUSED(state);
	make_elf(elf);
	assert_int_equal(vmlinux_check(elf, sizeof(elf), &e), 0);
	elf[NOTE_AT + 20 + 8] = 17; /* another type of note */
	assert_int_equal(vmlinux_check(elf, sizeof(elf), &e), -ERR_UNSUPPORTED);
	assert_non_null(strstr(e.text, "PVH"));
}

static void a_bad_elf_is_refused(void **state)
{
	unsigned char elf[ELF_BYTES];

	T_UNUSED(state);
	for (size_t n = 0; n < ELF_BYTES; n++) {
		unsigned char *cut = malloc(n ? n : 1);

		make_elf(elf);
		memcpy(cut, elf, n);
		assert_true(vmlinux_check(cut, n, NULL) < 0);
		free(cut);
	}
	make_elf(elf);
	put(elf + offsetof(Elf64_Ehdr, e_phoff), UINT64_MAX - 8, 8);
	assert_int_equal(vmlinux_check(elf, sizeof(elf), NULL), -ERR_INVALID);
	make_elf(elf);
	put(elf + PHDR_AT + sizeof(Elf64_Phdr) + offsetof(Elf64_Phdr, p_filesz), UINT64_MAX, 8);
	assert_int_equal(vmlinux_check(elf, sizeof(elf), NULL), -ERR_UNSUPPORTED);
	make_elf(elf);
	put(elf + NOTE_AT + 4, UINT32_MAX, 4); /* a note that claims to be endless */
	assert_int_equal(vmlinux_check(elf, sizeof(elf), NULL), -ERR_UNSUPPORTED);
}

static void random_bytes_do_no_harm(void **state)
{
	unsigned char image[IMAGE_BYTES], elf[ELF_BYTES];
	uint64_t seed = 1;
	struct bzimage b;

	T_UNUSED(state);
	for (int round = 0; round < 20000; round++) {
		uint64_t r = t_random(&seed);

		make_image(image, "\x1f\x8b", 2, 500, 1000);
		put(image + 0x1f0 + r % 0x60, r >> 8, 4);
		if (bzimage_parse(image, sizeof(image), &b, NULL) == 0)
			assert_true(b.payload >= image &&
				    b.payload + b.payload_bytes <= image + sizeof(image));
		make_elf(elf);
		elf[r % sizeof(elf)] = (unsigned char)(r >> 16);
		(void)vmlinux_check(elf, sizeof(elf), NULL);
	}
}

T_MAIN(T(finds_the_payload_of_every_packing), T(no_setup_sectors_means_four),
       T(says_what_it_cannot_unpack), T(refuses_sizes_that_lie), T(every_truncation_is_refused),
       T(knows_a_kernel_with_a_pvh_entry), T(a_bad_elf_is_refused), T(random_bytes_do_no_harm))
