/* image/t_disk.c - disks are whole, sparse, empty file systems, and leave nothing */
#include "image/disk.h"
#include <fcntl.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/id.h"
#include "base/testing.h"
#include "image/formatter.h"
#include "snap/layers.h"
#include "sys/fd.h"
#include "sys/landlock.h"

enum { EXT4_MAGIC_AT = 1024 + 56, SIZE_MB = 64 };

static const char id[] = "00112233445566778899aabbccddeeff";
static const char other[] = "ffeeddccbbaa99887766554433221100";

static int disk_remove(int state_fd, const char *text, struct err *e)
{
	struct id parsed;

	assert_int_equal(id_parse(text, strlen(text), &parsed), 0);
	return layers_remove(state_fd, &parsed, e);
}

static int state_new(char path[64])
{
	int fd;

	(void)snprintf(path, 64, "/tmp/t_disk.XXXXXX");
	assert_non_null(mkdtemp(path));
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	assert_true(fd >= 0);
	assert_int_equal(sys_mkdir(fd, SANDBOXES_FOLDER, 0700), 0);
	return fd;
}

static void state_free(int fd, const char *path)
{
	(void)sys_close(fd);
	assert_int_equal(sys_remove_tree(AT_FDCWD, path), 0);
}

static void is_an_empty_file_system(int fd)
{
	unsigned char magic[2];
	struct stat st;

	assert_int_equal(sys_pread(fd, magic, 2, EXT4_MAGIC_AT), 2);
	assert_int_equal(magic[0], 0x53);
	assert_int_equal(magic[1], 0xef);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, (off_t)SIZE_MB * 1024 * 1024);
	assert_true(st.st_blocks * 512 < st.st_size / 4); /* sparse */
}

static void is_made_twice_formatted_once(void **state)
{
	char path[64];
	int state_fd = state_new(path), a = -1, b = -1;
	struct stat blank, again;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	if (disk_make(state_fd, NULL, id, SIZE_MB, &a, &e) == -ERR_UNSUPPORTED) { /* no mke2fs here */
		state_free(state_fd, path);
		skip();
	}
	assert_string_equal(e.text, "");
	assert_int_equal(fstatat(state_fd, SANDBOXES_FOLDER "/.blank-64", &blank, 0), 0);
	assert_int_equal(disk_make(state_fd, NULL, other, SIZE_MB, &b, &e), 0);
	assert_int_equal(fstatat(state_fd, SANDBOXES_FOLDER "/.blank-64", &again, 0), 0);
	assert_int_equal(blank.st_ino, again.st_ino);
	is_an_empty_file_system(a);
	is_an_empty_file_system(b);
	assert_int_equal(sys_close(a), -1);
	assert_int_equal(sys_close(b), -1);
	assert_int_equal(disk_make(state_fd, NULL, id, SIZE_MB, &a, &e), -ERR_CONFLICT);
	assert_int_equal(disk_remove(state_fd, id, &e), 0);
	assert_int_equal(disk_remove(state_fd, id, &e), 0); /* nothing there: fine */
	assert_int_equal(fstatat(state_fd, SANDBOXES_FOLDER "/00112233445566778899aabbccddeeff", &again, 0), -1);
	state_free(state_fd, path);
}

/* As a daemon does it that may start no program itself. */
static void another_process_formats(void **state)
{
	char path[64], disks[96];
	int state_fd = state_new(path), a = -1, r;
	AUTO_CLOSE int nowhere = sys_open("/", O_PATH | O_DIRECTORY), elsewhere = -1;
	struct formatter *f = NULL;
	struct err e = ERR_INIT;

	T_UNUSED(state);
	(void)snprintf(disks, sizeof(disks), "%s/" SANDBOXES_FOLDER, path);
	assert_int_equal(formatter_new(disks, &f, &e), 0);
	r = disk_make(state_fd, f, id, SIZE_MB, &a, &e);
	if (r != -ERR_UNSUPPORTED) { /* mke2fs is here */
		assert_string_equal(e.text, "");
		is_an_empty_file_system(a);
		(void)sys_close(a);
		/* it writes among the disks and nowhere else, whatever folder it is handed */
		assert_int_equal(sys_mkdir(state_fd, "elsewhere", 0777), 0);
		elsewhere = sys_openat(state_fd, "elsewhere", O_RDONLY | O_DIRECTORY, 0);
		if (landlock_abi()) {
			assert_int_equal(formatter_run(f, elsewhere, SIZE_MB, &e), -ERR_INTERNAL);
			assert_int_equal(faccessat(elsewhere, DISK_NEW, F_OK, 0), -1);
		}
		assert_int_equal(disk_make(state_fd, f, other, SIZE_MB, &a, &e), 0); /* and goes on */
		(void)sys_close(a);
	}
	assert_int_equal(formatter_run(f, nowhere, 0, &e), -ERR_UNAVAILABLE); /* no size: not what a daemon says */
	assert_non_null(strstr(e.text, "end hotcelld"));
	assert_null(formatter_free(f));
	state_free(state_fd, path);
	if (r == -ERR_UNSUPPORTED)
		skip();
}

static void a_failure_at_any_call_leaves_what_remove_removes(void **state)
{
	char path[64];
	int state_fd = state_new(path), fd = -1;

	T_UNUSED(state);
	if (disk_make(state_fd, NULL, other, SIZE_MB, &fd, NULL) == -ERR_UNSUPPORTED) {
		state_free(state_fd, path);
		skip();
	}
	(void)sys_close(fd);
	for (unsigned nth = 1, met = 1; met; nth++) {
		struct err e = ERR_INIT;
		int got = -1, r;

		sys_fault_arm(nth, -ENOSPC);
		r = disk_make(state_fd, NULL, id, SIZE_MB, &got, &e);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_int_equal(r, met ? -ERR_LIMIT : 0);
		assert_int_equal(r == 0, got >= 0);
		(void)sys_close(got);
		assert_int_equal(disk_remove(state_fd, id, &e), 0);
	}
	state_free(state_fd, path);
}

T_MAIN(T(is_made_twice_formatted_once), T(another_process_formats), T(a_failure_at_any_call_leaves_what_remove_removes))
