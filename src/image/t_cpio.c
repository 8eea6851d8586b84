/* image/t_cpio.c - what is written is read back by a reader of our own, and by cpio where it is
 * installed */
#include "image/cpio.h"
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fault.h"
#include "sys/fd.h"

enum { MAX_BYTES = 1 << 20 };

struct entry {
	const char *name;
	const unsigned char *data;
	uint32_t ino, mode, links, size, major, minor;
};

static uint32_t field(const unsigned char *h, int i)
{
	char hex[9] = "";

	memcpy(hex, h + 6 + 8 * i, 8);
	return (uint32_t)strtoul(hex, NULL, 16);
}

/* Read the entry at *at. False at the trailer. */
static bool read_entry(const unsigned char *p, size_t n, size_t *at, struct entry *ret)
{
	const unsigned char *h = p + *at;
	uint32_t name_n;

	assert_true(*at + 110 <= n);
	assert_memory_equal(h, "070701", 6);
	for (int i = 2; i <= 3; i++)
		assert_int_equal(field(h, i), 0); /* root's */
	assert_int_equal(field(h, 5), 0);         /* no time */
	name_n = field(h, 11);
	*ret = (struct entry){ .name = (const char *)h + 110,
			       .ino = field(h, 0),
			       .mode = field(h, 1),
			       .links = field(h, 4),
			       .size = field(h, 6),
			       .major = field(h, 9),
			       .minor = field(h, 10) };
	assert_int_equal(ret->name[name_n - 1], '\0');
	*at = (*at + 110 + name_n + 3) & ~(size_t)3;
	ret->data = p + *at;
	*at = (*at + ret->size + 3) & ~(size_t)3;
	assert_true(*at <= n);
	return strcmp(ret->name, "TRAILER!!!") != 0;
}

static size_t slurp(int fd, unsigned char *p)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	assert_true(st.st_size <= MAX_BYTES);
	assert_int_equal(sys_pread(fd, p, MAX_BYTES, 0), st.st_size);
	return (size_t)st.st_size;
}

static void write_example(int fd, int file)
{
	struct cpio c = CPIO_INIT(fd);

	cpio_dir(&c, "dev", 0755);
	cpio_char_node(&c, "dev/console", 0600, 5, 1);
	cpio_file(&c, "init", 0755, file);
	cpio_mem(&c, "empty", 0644, NULL, 0);
	cpio_mem(&c, "five", 0644, "12345", 5);
	assert_int_equal(cpio_end(&c), 0);
}

static void comes_back_as_written(void **state)
{
	AUTO_FREE unsigned char *p = malloc(MAX_BYTES);
	AUTO_CLOSE int out = sys_memfd("out", 0), file = sys_memfd("file", 0);
	AUTO_FREE unsigned char *content = malloc(200001);
	struct entry en;
	size_t n, at = 0;

	T_UNUSED(state);
	for (size_t i = 0; i < 200001; i++)
		content[i] = (unsigned char)(i * 7);
	assert_int_equal(sys_write_full(file, content, 200001),
			 0); /* the offset stands at its end */
	write_example(out, file);
	n = slurp(out, p);
	assert_int_equal(n % 512, 0);
	assert_true(read_entry(p, n, &at, &en));
	assert_string_equal(en.name, "dev");
	assert_int_equal(en.mode, S_IFDIR | 0755);
	assert_int_equal(en.links, 2);
	assert_true(read_entry(p, n, &at, &en));
	assert_int_equal(en.mode, S_IFCHR | 0600);
	assert_int_equal(en.major, 5);
	assert_int_equal(en.minor, 1);
	assert_true(read_entry(p, n, &at, &en));
	assert_string_equal(en.name, "init");
	assert_int_equal(en.size, 200001);
	assert_memory_equal(en.data, content, 200001);
	assert_int_equal(en.ino,
			 3); /* every entry has one of its own, or they would be hard links */
	assert_true(read_entry(p, n, &at, &en));
	assert_int_equal(en.size, 0);
	assert_true(read_entry(p, n, &at, &en));
	assert_memory_equal(en.data, "12345", 5);
	assert_false(read_entry(p, n, &at, &en));
}

static void is_the_same_every_time(void **state)
{
	AUTO_FREE unsigned char *a = malloc(MAX_BYTES), *b = malloc(MAX_BYTES);
	AUTO_CLOSE int one = sys_memfd("1", 0), two = sys_memfd("2", 0),
		       file = sys_memfd("file", 0);
	size_t n;

	T_UNUSED(state);
	write_example(one, file);
	write_example(two, file);
	n = slurp(one, a);
	assert_int_equal(slurp(two, b), n);
	assert_memory_equal(a, b, n);
}

static void bad_names_are_refused(void **state)
{
	char longest[CPIO_NAME_MAX + 2];
	AUTO_CLOSE int fd = sys_memfd("out", 0);
	const char *const bad[] = { "", "/init", "a/../b", "..", longest };

	T_UNUSED(state);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct cpio c = CPIO_INIT(fd);

		cpio_dir(&c, bad[i], 0755);
		cpio_dir(&c, "good", 0755);
		assert_int_equal(cpio_end(&c), -EINVAL);
	}
	longest[CPIO_NAME_MAX] = '\0';
	struct cpio c = CPIO_INIT(fd);
	cpio_dir(&c, longest, 0755);
	assert_int_equal(cpio_end(&c), 0);
}

static void a_failed_write_is_reported_at_the_end(void **state)
{
	AUTO_CLOSE int file = sys_memfd("file", 0);

	T_UNUSED(state);
	assert_int_equal(sys_write_full(file, "abc", 3), 0);
	FOR_EACH_FAULT(nth, ENOSPC)
	{
		AUTO_CLOSE int out = memfd_create("out", 0);
		struct cpio c = CPIO_INIT(out);
		bool failed;

		cpio_dir(&c, "dev", 0755);
		cpio_file(&c, "init", 0755, file);
		failed = cpio_end(&c) == -ENOSPC;
		assert_int_equal(failed, sys_fault_seen() >= nth);
	}
}

/* The reader everybody has, with names and sizes in its listing. */
static void cpio_reads_it(void **state)
{
	char path[] = "/tmp/t_cpio.XXXXXX", command[200], line[200];
	AUTO_CLOSE int out = -1, file = -1;
	int found = 0;
	FILE *f;

	T_UNUSED(state);
	if (system("command -v cpio >/dev/null") != 0)
		skip();
	out = mkstemp(path);
	file = sys_memfd("file", 0);
	write_example(out, file);
	(void)snprintf(command, sizeof(command), "cpio -itv --quiet < %s", path);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		found += (strstr(line, "crw-------") && strstr(line, "dev/console") &&
			  strstr(line, "5,   1")) ||
			 (strstr(line, "-rwxr-xr-x") && strstr(line, "init")) ||
			 (strstr(line, " 5 ") && strstr(line, "five"));
	assert_int_equal(pclose(f), 0);
	assert_int_equal(found, 3);
	unlink(path);
}

T_MAIN(T(comes_back_as_written), T(is_the_same_every_time), T(bad_names_are_refused),
       T(a_failed_write_is_reported_at_the_end), T(cpio_reads_it))
