/*
 * keeper/test/qemu_mapper.c - stands in for QEMU in t_qemu_memory.c: maps the memory as QEMU does, or as it does not
 *
 * Exit status: 0: all is as it should be; 2: the memory could not be opened; 10 and up: what was wrong.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096, MAPPINGS_MAX = 2 * 4096 + 256 };

static int count_mappings(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	int n = 0;

	for (int c = f ? getc(f) : EOF; c != EOF; c = getc(f))
		n += c == '\n';
	if (f)
		(void)fclose(f);
	return n;
}

/* What is seen is the file; what is written is seen again; and the file is what it was. */
static int use(int fd, char *p, off_t n)
{
	char page[PAGE];

	for (off_t at = 0; at < n; at += PAGE)
		if (pread(fd, page, PAGE, at) != PAGE || memcmp(page, p + at, PAGE) != 0)
			return 10;
	for (off_t at = 0; at < n; at += PAGE)
		memset(p + at, 1 + (int)(at / PAGE % 200), PAGE);
	for (off_t at = 0; at < n; at += PAGE)
		if (p[at] != (char)(1 + at / PAGE % 200) || p[at + PAGE - 1] != p[at])
			return 11;
	return count_mappings() > MAPPINGS_MAX ? 12 : 0;
}

int main(int argc, char **argv)
{
	const char *how = argc > 1 ? argv[1] : "";
	int fd = open("/proc/self/fd/9", O_RDWR | O_CLOEXEC);
	int flags = strcmp(how, "shared") == 0 ? MAP_SHARED : MAP_PRIVATE;
	int prot = flags == MAP_SHARED ? PROT_READ : PROT_READ | PROT_WRITE;
	struct stat st;
	off_t n;
	char *room, *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 2;
	n = strcmp(how, "part") == 0 ? st.st_size / 2 : st.st_size;
	room = mmap(NULL, (size_t)n, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	p = mmap(room, (size_t)n, prot, flags | MAP_FIXED, fd, 0);
	if (room == MAP_FAILED || p != room)
		return 13;
	if (madvise(p, (size_t)n, MADV_HUGEPAGE) < 0) /* as QEMU asks; it is told that it has them */
		return 14;
	if (strcmp(how, "twice") == 0 && mmap(NULL, (size_t)n, prot, flags, fd, 0) != MAP_FAILED)
		return 15;
	return use(fd, p, n);
}
