/* image/kernel.c - open and verify the kernel in the store */
#include "image/kernel.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/str.h"
#include "image/place.h"
#include "sys/fd.h"

int kernel_open(int state_dirfd, struct kernel *ret, struct err *e)
{
	AUTO_CLOSE int place = -1;
	char release[PLACE_NAME_MAX];
	struct kernel k = KERNEL_INIT;
	struct manifest_line line;
	int r = place_open(state_dirfd, KERNELS_FOLDER, &place, e);

	if (r == 0)
		r = place_read_pointer(place, KERNEL_CURRENT, release, e);
	if (r < 0)
		return err_wrap(e, "the guest's kernel");
	k.dir_fd = sys_open_beneath(place, release, O_RDONLY | O_DIRECTORY, 0);
	if (k.dir_fd < 0)
		return err_sys(e, k.dir_fd, "open the kernel %s", release);
	r = manifest_load(k.dir_fd, "kernel", &k.manifest, e);
	if (r == 0)
		r = manifest_find(&k.manifest, "release", 2, &line, e);
	if (r == 0 && (strcmp(line.word[1], release) != 0 || strlen(release) >= sizeof(k.release)))
		r = err_set(e, ERR_INVALID, "the manifest is that of %s", line.word[1]);
	if (r < 0) {
		kernel_close(&k);
		return err_wrap(e, "the kernel %s", release);
	}
	memcpy(k.release, release, strlen(release) + 1);
	*ret = k;
	return 0;
}

void kernel_close(struct kernel *k)
{
	k->dir_fd = sys_close(k->dir_fd);
	manifest_deinit(&k->manifest);
}

static int open_sized(const struct kernel *k, const char *path, uint64_t size, int *ret_fd,
		      struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(k->dir_fd, path, O_RDONLY, 0);
	struct stat st;

	if (fd < 0)
		return err_sys(e, fd, "open %s of the kernel %s", path, k->release);
	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at %s of the kernel %s", path, k->release);
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != size)
		return err_set(e, ERR_INVALID,
			       "the kernel %s is damaged: %s has %jd bytes instead of %" PRIu64
			       "; run: hotcell image build --force",
			       k->release, path, (intmax_t)st.st_size, size);
	*ret_fd = take_fd(&fd);
	return 0;
}

int kernel_open_file(const struct kernel *k, int *ret_fd, struct err *e)
{
	struct manifest_sum sum;
	int r = manifest_sum(&k->manifest, KERNEL_FILE, &sum, e);

	return r < 0 ? r : open_sized(k, KERNEL_FILE, sum.size, ret_fd, e);
}

/* module <hash> <bytes> <file> */
int kernel_open_module(const struct kernel *k, const struct manifest_line *line, int *ret_fd,
		       struct err *e)
{
	char path[MANIFEST_WORD_MAX + sizeof(KERNEL_MODULES "/")];
	uint64_t size;

	if (line->n_words != 4 || strchr(line->word[3], '/') ||
	    str_to_u64(line->word[2], 1, UINT32_MAX, &size) < 0)
		return err_set(e, ERR_INVALID,
			       "the manifest of the kernel %s is damaged: \"module\"", k->release);
	(void)snprintf(path, sizeof(path), KERNEL_MODULES "/%s", line->word[3]);
	return open_sized(k, path, size, ret_fd, e);
}

static int verify_one(int fd, const char *hash, const char *what, const struct kernel *k,
		      struct err *e)
{
	char found[HASH_TEXT];
	int r = hash_fd(fd, found, NULL, e);

	if (r == 0 && strcmp(found, hash) != 0)
		r = err_set(
			e, ERR_INVALID,
			"the kernel %s is damaged: %s changed; run: hotcell image build --force",
			k->release, what);
	return r;
}

int kernel_verify(const struct kernel *k, struct err *e)
{
	AUTO_CLOSE int vmlinux = -1;
	struct manifest_line line;
	struct manifest_sum sum;
	size_t at = 0;
	int r = kernel_open_file(k, &vmlinux, e);

	if (r == 0)
		r = manifest_sum(&k->manifest, KERNEL_FILE, &sum, e);
	if (r == 0)
		r = verify_one(vmlinux, sum.hash, KERNEL_FILE, k, e);
	while (r == 0 && manifest_next(&k->manifest, &at, &line)) {
		AUTO_CLOSE int fd = -1;

		if (strcmp(line.word[0], "module") != 0)
			continue;
		r = kernel_open_module(k, &line, &fd, e);
		if (r == 0)
			r = verify_one(fd, line.word[1], line.word[3], k, e);
	}
	return r;
}
