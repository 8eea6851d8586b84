/* snap/t_qcow2.c - what is written is what QEMU's own tool takes for an empty image */
#include "snap/qcow2.h"
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/testing.h"
#include "sys/fd.h"

enum { OUTPUT = 4096 };

static int image(char path[64])
{
	int fd;

	strcpy(path, "/tmp/t_qcow2.XXXXXX");
	fd = mkostemp(path, O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

/* Run a command of ours; its output, cut. Return: exit status, 127: no such program. */
static int tell(const char *command, char out[OUTPUT])
{
	FILE *f = popen(command, "re");
	size_t n;
	int status;

	assert_non_null(f);
	n = fread(out, 1, OUTPUT - 1, f);
	out[n] = '\0';
	status = pclose(f);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void qemu_finds_nothing_wrong(void **state)
{
	static const uint64_t sizes[] = {512, 1 * MIB, 64 * MIB, 512 * MIB, 512 * MIB + 512, 2 * GIB,
					 1024 * GIB, QCOW2_VIRTUAL_MAX};
	char path[64], command[256], out[OUTPUT], want[64];

	T_UNUSED(state);
	if (tell("command -v qemu-img 2>&1", out) != 0) {
		print_message("[ SKIP     ] qemu-img is not installed (Debian: qemu-utils)\n");
		skip();
	}
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		AUTO_CLOSE int fd = image(path);
		struct err e = ERR_INIT;

		assert_int_equal(qcow2_make(fd, sizes[i], &e), 0);
		(void)snprintf(command, sizeof(command), "qemu-img check -f qcow2 %s 2>&1", path);
		if (tell(command, out) != 0 || !strstr(out, "No errors were found"))
			fail_msg("%s", out);
		(void)snprintf(command, sizeof(command), "qemu-img info -f qcow2 --output=json %s 2>&1", path);
		assert_int_equal(tell(command, out), 0);
		(void)snprintf(want, sizeof(want), "\"virtual-size\": %" PRIu64, sizes[i]);
		assert_non_null(strstr(out, want));
		assert_non_null(strstr(out, "\"cluster-size\": 65536"));
		assert_non_null(strstr(out, "\"compat\": \"1.1\""));
		assert_non_null(strstr(out, "\"lazy-refcounts\": false"));
		assert_non_null(strstr(out, "\"refcount-bits\": 16"));
		assert_null(strstr(out, "backing"));
		assert_int_equal(unlink(path), 0);
	}
}

/* The checker can fail: a count that is wrong is found. */
static void qemu_finds_a_wrong_count(void **state)
{
	char path[64], command[256], out[OUTPUT];
	AUTO_CLOSE int fd = image(path);

	T_UNUSED(state);
	if (tell("command -v qemu-img 2>&1", out) != 0) {
		assert_int_equal(unlink(path), 0);
		skip();
	}
	assert_int_equal(qcow2_make(fd, MIB, NULL), 0);
	assert_int_equal(sys_pwrite_full(fd, "\0\2", 2, 2 * QCOW2_CLUSTER), 0);
	(void)snprintf(command, sizeof(command), "qemu-img check -f qcow2 %s 2>&1", path);
	assert_int_not_equal(tell(command, out), 0);
	assert_int_equal(unlink(path), 0);
}

/* What QEMU writes into an overlay of ours over a raw file is read back, and the file below stays. */
static void qemu_writes_over_a_raw_layer(void **state)
{
	char below[64], path[64], command[512], out[OUTPUT];
	AUTO_CLOSE int raw = image(below), fd = image(path);

	T_UNUSED(state);
	if (tell("command -v qemu-io 2>&1", out) != 0) {
		assert_int_equal(unlink(below), 0);
		assert_int_equal(unlink(path), 0);
		skip();
	}
	assert_int_equal(sys_truncate(raw, 64 * MIB), 0);
	assert_int_equal(sys_pwrite_full(raw, "below", 5, 0), 0);
	assert_int_equal(qcow2_make(fd, 64 * MIB, NULL), 0);
	(void)snprintf(command, sizeof(command),
		       "qemu-io -c 'read -P 0x62 0 1' -c 'write -P 0x41 1M 64k' -c 'read -P 0x41 1M 64k' "
		       "--image-opts driver=qcow2,file.driver=file,file.filename=%s,"
		       "backing.driver=raw,backing.file.driver=file,backing.file.filename=%s 2>&1",
		       path, below);
	if (tell(command, out) != 0 || strstr(out, "failed"))
		fail_msg("%s", out);
	assert_int_equal(sys_pread(raw, out, 1, MIB), 1);
	assert_int_equal(out[0], 0);
	(void)snprintf(command, sizeof(command), "qemu-img check -f qcow2 %s 2>&1", path);
	assert_int_equal(tell(command, out), 0);
	assert_int_equal(unlink(below), 0);
	assert_int_equal(unlink(path), 0);
}

static void it_is_small(void **state)
{
	char path[64];
	AUTO_CLOSE int fd = image(path);
	struct stat st;

	T_UNUSED(state);
	assert_int_equal(qcow2_make(fd, 1024 * GIB, NULL), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 4 * QCOW2_CLUSTER);
	assert_true(st.st_blocks * 512 <= 3 * 4096);
	assert_int_equal(unlink(path), 0);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
	char path[64];
	AUTO_CLOSE int fd = image(path);
	struct err e = ERR_INIT;
	struct stat st;

	T_UNUSED(state);
	assert_int_equal(qcow2_make(fd, 0, &e), -ERR_INVALID);
	assert_int_equal(qcow2_make(fd, MIB + 1, &e), -ERR_INVALID);
	assert_int_equal(qcow2_make(fd, QCOW2_VIRTUAL_MAX + 512, &e), -ERR_LIMIT);
	assert_int_equal(qcow2_make(fd, UINT64_MAX - 511, &e), -ERR_LIMIT);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 0);
	assert_int_equal(unlink(path), 0);
}

static void a_full_disk_is_said(void **state)
{
	char path[64];

	T_UNUSED(state);
	FOR_EACH_FAULT(nth, ENOSPC) {
		AUTO_CLOSE int fd = image(path);
		struct err e = ERR_INIT;
		int r = qcow2_make(fd, MIB, &e);

		assert_int_equal(r, sys_fault_seen() >= nth ? -ERR_LIMIT : 0);
		assert_int_equal(unlink(path), 0);
	}
}

T_MAIN(T(qemu_finds_nothing_wrong), T(qemu_finds_a_wrong_count), T(qemu_writes_over_a_raw_layer),
       T(it_is_small), T(sizes_that_cannot_be_are_refused), T(a_full_disk_is_said))
