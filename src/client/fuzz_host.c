/*
 * client/fuzz_host.c - a guest's names against a real directory
 *
 * The bytes are lines: 'd' name, 'f' name, or 'l' name TAB target, done one after the other below
 * a directory. Afterwards nothing beside it has changed, and no link in it leads out (HOST-1, HOST-3).
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/err.h"
#include "client/host.h"
#include "sys/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { LINES_MAX = 64 };

/* Where the kernel ends up, links followed: EXDEV says that it would have left the root. */
static void check_stays(int root_fd, struct span path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_BENEATH};
	char name[HOST_PATH];
	long fd;

	span_copy(path, name, sizeof(name));
	fd = syscall(SYS_openat2, root_fd, name, &how, sizeof(how));
	if (fd < 0 && errno == EXDEV)
		abort();
	(void)sys_close((int)fd);
}

static void do_line(int root_fd, struct span line)
{
	const char *tab = memchr(line.p, '\t', line.n);
	struct span name = {line.p + 1, (tab ? (size_t)(tab - line.p) : line.n) - 1};
	struct span target = tab ? (struct span){tab + 1, line.n - (size_t)(tab + 1 - line.p)}
				 : (struct span){0};
	struct host_file f = HOST_FILE_INIT;
	struct err e = ERR_INIT;
	int r = -1;

	switch (line.p[0]) {
	case 'd': r = host_mkdir(root_fd, name, &e); break;
	case 'l': r = host_symlink(root_fd, name, target, 0, &e); break;
	case 'f':
		r = host_file_open(root_fd, name, &f, &e);
		if (r == 0 && host_file_put(&f, "x", 1, &e) == 0)
			r = host_file_keep(&f, 07777, 0, &e);
		host_file_drop(&f);
		break;
	default: return;
	}
	if (r == 0)
		check_stays(root_fd, name);
	else if (e.code && !e.text[0])
		abort();
}

static void check_outside(int base_fd)
{
	struct stat st;

	/* "root" and "victim" and nothing else: links of the directory itself, and its only file */
	if (fstat(base_fd, &st) < 0 || st.st_nlink != 3 ||
	    fstatat(base_fd, "victim", &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_size != 4)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char base[] = "/tmp/hotcell-fuzz-XXXXXX";
	const char *p = (const char *)data, *end = p + size;
	int base_fd, root_fd;

	if (!mkdtemp(base))
		return 0;
	base_fd = sys_open(base, O_RDONLY | O_DIRECTORY);
	if (base_fd < 0 || mkdirat(base_fd, "root", 0700) < 0 ||
	    sys_write_file(base_fd, "victim", "safe") < 0)
		abort();
	root_fd = sys_openat(base_fd, "root", O_RDONLY | O_DIRECTORY, 0);
	for (int i = 0; i < LINES_MAX && p < end; i++) {
		const char *stop = memchr(p, '\n', (size_t)(end - p));
		size_t n = stop ? (size_t)(stop - p) : (size_t)(end - p);

		if (n)
			do_line(root_fd, (struct span){p, n});
		p += n + 1;
	}
	check_outside(base_fd);
	(void)sys_close(root_fd);
	(void)sys_close(base_fd);
	if (sys_remove_tree(-1, base) < 0)
		abort();
	return 0;
}
