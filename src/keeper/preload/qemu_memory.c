/*
 * keeper/preload/qemu_memory.c - loaded into QEMU: the machine's memory is the file where it has data, and
 * private memory where it has none; see keeper/qemu_memory.h
 *
 * Only what every libc has: system calls by number, no function younger than the oldest QEMU's libc.
 */
#undef _FILE_OFFSET_BITS /* mmap and mmap64 are two names, and QEMU may call either */
#include "keeper/qemu_memory.h"
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, STDERR = 2 };

struct extent {
	off_t at, end;
};

static struct {
	dev_t dev;
	ino_t ino;
	off_t bytes;
	uintptr_t ram; /* where it is mapped; 0: not yet */
	off_t narrow;  /* holes below this are mapped with the data around them */
	unsigned n;
	struct extent extents[QEMU_EXTENTS_MAX];
} memory;

static void say(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	(void)syscall(SYS_write, STDERR, text, n);
}

static _Noreturn void fail(const char *what)
{
	say("hotcell: the machine's memory can't be mapped: ");
	say(what);
	say("\n");
	for (;;)
		(void)syscall(SYS_exit_group, 1);
}

[[gnu::constructor]] static void begin(void)
{
	struct stat st;

	if (syscall(SYS_fstat, QEMU_FD_MEMORY, &st) < 0 || syscall(SYS_dup2, QEMU_FD_MEMORY, QEMU_FD_RAM) < 0)
		fail("it was not lent");
	memory.dev = st.st_dev;
	memory.ino = st.st_ino;
	memory.bytes = st.st_size;
	(void)syscall(SYS_close, QEMU_FD_OBJECT); /* it is loaded */
}

/* ---- where the file has data ---- */

static void widen(void)
{
	unsigned kept = 0;

	memory.narrow = memory.narrow ? memory.narrow * 2 : 2 * PAGE;
	for (unsigned i = 1; i < memory.n; i++)
		if (memory.extents[i].at - memory.extents[kept].end < memory.narrow)
			memory.extents[kept].end = memory.extents[i].end;
		else
			memory.extents[++kept] = memory.extents[i];
	memory.n = kept + 1;
}

static void add(off_t at, off_t end)
{
	while (memory.n == QEMU_EXTENTS_MAX)
		widen();
	if (memory.n && at - memory.extents[memory.n - 1].end < memory.narrow)
		memory.extents[memory.n - 1].end = end;
	else
		memory.extents[memory.n++] = (struct extent){at, end};
}

/* @fd is QEMU's own description of the file: nobody else's offset moves. */
static void find_data(int fd)
{
	off_t at = 0;

	while (at < memory.bytes) {
		off_t data = syscall(SYS_lseek, fd, at, SEEK_DATA), end;

		if (data < 0 && errno == ENXIO)
			break; /* holes from here on */
		end = data < 0 ? data : syscall(SYS_lseek, fd, data, SEEK_HOLE);
		if (data < 0 || end <= data)
			fail("its data can't be found");
		add(data, end);
		at = end;
	}
}

/* ---- mapping it ---- */

static long map(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	return syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

static void *map_memory(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	long where;

	if ((flags & MAP_TYPE) != MAP_PRIVATE || offset != 0 || n != (size_t)memory.bytes || memory.ram)
		fail("QEMU asks for it in a way that is not known here");
	find_data(fd);
	where = map(at, n, prot, flags, QEMU_FD_ZERO, 0);
	if (where == -1)
		fail("no room for it");
	memory.ram = (uintptr_t)where;
	/* In huge pages a machine that uses little would hold much. */
	(void)syscall(SYS_madvise, where, n, MADV_NOHUGEPAGE);
	for (unsigned i = 0; i < memory.n; i++) {
		const struct extent *x = &memory.extents[i];
		char *to = (char *)memory.ram + x->at;

		if (map(to, (size_t)(x->end - x->at), prot, flags | MAP_FIXED, fd, x->at) == -1)
			fail("the kernel refuses one of its pieces");
	}
	(void)syscall(SYS_close, QEMU_FD_ZERO);
	return (void *)memory.ram;
}

static int is_memory(int fd)
{
	struct stat st;

	return syscall(SYS_fstat, fd, &st) == 0 && st.st_dev == memory.dev && st.st_ino == memory.ino;
}

/* ---- in the place of libc's ---- */

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && is_memory(fd))
		return map_memory(at, n, prot, flags, fd, offset);
	return (void *)map(at, n, prot, flags, fd, offset);
}

void *mmap64(void *at, size_t n, int prot, int flags, int fd, off64_t offset)
{
	return mmap(at, n, prot, flags, fd, offset);
}

/* QEMU asks for huge pages for all of its memory. */
int madvise(void *at, size_t n, int advice)
{
	uintptr_t from = (uintptr_t)at;

	if (advice == MADV_HUGEPAGE && memory.ram && from < memory.ram + (uintptr_t)memory.bytes &&
	    from + n > memory.ram)
		return 0;
	return (int)syscall(SYS_madvise, at, n, advice);
}
