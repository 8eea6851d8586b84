/* image/t_manifest.c */
#include "image/manifest.h"
#include <fcntl.h>
#include "base/err.h"
#include "base/str.h"
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

#define SUM                                                                                        \
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" /* of nothing: FIPS     \
									      180-4 */

static const char good[] =
	"hotcell-image 1\nname base\nroot " SUM " 42\npackage git 2.39\nvcpus 2\n";

static int parse(const char *text, struct manifest *m, struct err *e)
{
	return manifest_parse(text, strlen(text), "image", m, e);
}

static void reads_lines_numbers_and_sums(void **state)
{
	struct manifest m;
	struct manifest_line line;
	struct manifest_sum sum;
	uint64_t v;
	size_t at = 0, n = 0;

	T_UNUSED(state);
	assert_int_equal(parse(good, &m, NULL), 0);
	while (manifest_next(&m, &at, &line))
		n++;
	assert_int_equal(n, 5);
	assert_int_equal(manifest_find(&m, "package", 3, &line, NULL), 0);
	assert_string_equal(line.word[2], "2.39");
	assert_int_equal(manifest_sum(&m, "root", &sum, NULL), 0);
	assert_string_equal(sum.hash, SUM);
	assert_int_equal(sum.size, 42);
	assert_int_equal(manifest_u64(&m, "vcpus", 1, 2, &v, NULL), 0);
	assert_int_equal(v, 2);
	assert_int_equal(manifest_u64(&m, "vcpus", 3, 9, &v, NULL), -ERR_INVALID);
	assert_int_equal(manifest_u64(&m, "name", 0, 9, &v, NULL), -ERR_INVALID);
	assert_int_equal(manifest_find(&m, "package", 2, &line, NULL), -ERR_INVALID);
	assert_int_equal(manifest_find(&m, "absent", 2, &line, NULL), -ERR_INVALID);
	assert_int_equal(manifest_sum(&m, "package", &sum, NULL), -ERR_INVALID);
	manifest_deinit(&m);
	manifest_deinit(&m);
}

static void damage_is_seen(void **state)
{
	static const struct {
		const char *text;
		int code;
	} table[] = {
		{ "", ERR_INVALID },
		{ "hotcell-image", ERR_INVALID },
		{ "hotcell-image 1", ERR_INVALID },
		{ "hotcell-image x\n", ERR_INVALID },
		{ "hotcell-kernel 1\n", ERR_INVALID },
		{ "hotcell-image 2\n", ERR_UNSUPPORTED },
		{ "hotcell-image 1\nname base", ERR_INVALID },
		{ "hotcell-image 1\nname  base\n", ERR_INVALID },
		{ "hotcell-image 1\nname base \n", ERR_INVALID },
		{ "hotcell-image 1\n\n", ERR_INVALID },
		{ "hotcell-image 1\na b c d e\n", ERR_INVALID },
		{ "hotcell-image 1\nname \x1b[31m\n", ERR_INVALID },
		{ "hotcell-image 1\nname b\xc3\xa4\n", ERR_INVALID },
	};
	struct manifest m;

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(table); i++)
		if (parse(table[i].text, &m, NULL) != -table[i].code)
			fail_msg("accepted: %s", table[i].text);
	assert_int_equal(manifest_parse("hotcell-image 1\nname a\0b\n", 25, "image", &m, NULL),
			 -ERR_INVALID);
	/* Cut at a line's end it is a manifest still: that is why its hash is part of the image's
	 * name. */
	for (size_t n = 0; n < strlen(good); n++)
		if (!n || good[n - 1] != '\n')
			assert_int_equal(manifest_parse(good, n, "image", &m, NULL), -ERR_INVALID);
}

static void is_bounded(void **state)
{
	static char text[MANIFEST_MAX + 100];
	struct manifest m;
	size_t n = (size_t)sprintf(text, "hotcell-image 1\na ");

	T_UNUSED(state);
	memset(text + n, 'x', MANIFEST_WORD_MAX);
	strcpy(text + n + MANIFEST_WORD_MAX, "\n");
	assert_int_equal(parse(text, &m, NULL), -ERR_INVALID);
	strcpy(text + n + MANIFEST_WORD_MAX - 1, "\n");
	assert_int_equal(parse(text, &m, NULL), 0);
	manifest_deinit(&m);
	memset(text + n, 'x', MANIFEST_MAX);
	assert_int_equal(manifest_parse(text, MANIFEST_MAX + 1, "image", &m, NULL), -ERR_LIMIT);
}

static void hashes_what_was_written(void **state)
{
	char hash[HASH_TEXT];
	AUTO_CLOSE int fd = sys_memfd("x", 0);
	uint64_t bytes;

	T_UNUSED(state);
	assert_int_equal(hash_mem("", 0, hash, NULL), 0);
	assert_string_equal(hash, SUM);
	assert_int_equal(hash_mem("abc", 3, hash, NULL), 0);
	assert_string_equal(hash,
			    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(sys_write_full(fd, "abc", 3), 0);
	FOR_EACH_FAULT(nth, EIO)
	{
		char other[HASH_TEXT] = "untouched";
		int r = hash_fd(fd, other, &bytes, NULL);

		assert_int_equal(r == 0, sys_fault_seen() < nth);
		assert_string_equal(other, r == 0 ? hash : "untouched");
	}
	assert_int_equal(bytes, 3);
	assert_true(hash_text_ok(hash));
	hash[0] = 'G';
	assert_false(hash_text_ok(hash));
	hash[0] = '\0';
	assert_false(hash_text_ok(hash));
}

static void loads_from_a_folder(void **state)
{
	char dir[] = "/tmp/t_manifest.XXXXXX";
	struct err e = ERR_INIT;
	struct manifest m;
	int fd;

	T_UNUSED(state);
	assert_non_null(mkdtemp(dir));
	fd = sys_open(dir, O_RDONLY | O_DIRECTORY);
	assert_int_equal(manifest_load(fd, "image", &m, &e), -ERR_NOT_FOUND);
	assert_int_equal(sys_write_file(fd, MANIFEST_FILE, good), 0);
	FOR_EACH_FAULT(nth, EIO)
	{
		int r = manifest_load(fd, "image", &m, &e);

		assert_int_equal(r == 0, sys_fault_seen() < nth);
		if (r == 0)
			manifest_deinit(&m);
	}
	assert_int_equal(sys_unlink(fd, MANIFEST_FILE), 0);
	assert_int_equal(symlinkat("/etc/passwd", fd, MANIFEST_FILE), 0);
	assert_int_equal(manifest_load(fd, "image", &m, &e), -ERR_DENIED);
	sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, dir), 0);
}

static void what_is_begun_can_be_read(void **state)
{
	struct str s = STR_INIT(100);
	struct manifest m;

	T_UNUSED(state);
	manifest_begin(&s, "image");
	assert_int_equal(parse(str_text(&s), &m, NULL), 0);
	manifest_deinit(&m);
	str_deinit(&s);
}

T_MAIN(T(reads_lines_numbers_and_sums), T(damage_is_seen), T(is_bounded),
       T(hashes_what_was_written), T(loads_from_a_folder), T(what_is_begun_can_be_read))
