/* keeper/trees.c - trees by hash */
#include "keeper/trees.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "sys/fd.h"

enum { HASH_DIGITS = 64, FOLDER_PATH = 4096 + 16 };

/* As image/store.h lays them out; the keeper needs nothing else of it. */
#define FOLDER "images"
#define TREE   "tree"
#define TRIAL  "trial"

/* Ours, and nobody else may put something into it. */
static int check_ours(int fd, const char *name, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at %s", name);
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return err_set(e, ERR_DENIED,
			       "%s belongs to user %u with mode %03o: a template must be of user %u, who runs the "
			       "keeper, and be writable for nobody else; type: chown -h %u %s; chmod go-w %s", name,
			       st.st_uid, st.st_mode & 07777, geteuid(), geteuid(), name, name);
	return 0;
}

int trees_open(const char *state, int *ret_fd, struct err *e)
{
	char path[FOLDER_PATH];
	AUTO_CLOSE int fd = -1;
	int r;

	(void)snprintf(path, sizeof(path), "%s/" FOLDER, state);
	r = sys_mkdirs(path, 0755);
	if (r < 0)
		return err_sys(e, r, "make %s", path);
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return err_sys(e, fd, "open %s", path);
	r = check_ours(fd, path, e);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

static int open_folder(int dir_fd, const char *name, int flags, int *ret_fd, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_within(dir_fd, name, flags | O_DIRECTORY);
	int r;

	if (fd == -EXDEV)
		return err_set(e, ERR_DENIED,
			       "%s of the templates is a mount: a template must lie where all of them lie", name);
	if (fd < 0)
		return err_sys(e, fd, "open %s of the templates", name);
	r = check_ours(fd, name, e);
	if (r == 0)
		*ret_fd = take_fd(&fd);
	return r;
}

/* <name>@<hash> */
static bool has_hash(const char *entry, const char *hash)
{
	const char *at = strchr(entry, '@');

	return at && at != entry && strcmp(at + 1, hash) == 0;
}

static int find(int images_fd, const char *hash, char ret[NAME_MAX + 1], struct err *e)
{
	int fd = sys_openat(images_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *d = NULL;

	if (!dir) {
		int r = fd < 0 ? fd : -errno;

		(void)sys_close(fd);
		return err_sys(e, r, "list the templates");
	}
	while ((d = readdir(dir)) && !has_hash(d->d_name, hash))
		;
	if (d)
		(void)snprintf(ret, NAME_MAX + 1, "%s", d->d_name);
	(void)closedir(dir);
	return d ? 0 : err_set(e, ERR_NOT_FOUND, "the keeper finds no template with the hash %.12s", hash);
}

int tree_open(int images_fd, struct span hash, int *ret_fd, struct err *e)
{
	char digits[HASH_DIGITS + 1], entry[NAME_MAX + 1];
	AUTO_CLOSE int folder = -1;
	int r;

	span_copy(hash, digits, sizeof(digits));
	if (hash.n != HASH_DIGITS || strspn(digits, "0123456789abcdef") != HASH_DIGITS)
		return err_set(e, ERR_INVALID, "machine_start.image: a template is named by the %d digits of its hash",
			       HASH_DIGITS);
	r = find(images_fd, digits, entry, e);
	if (r == 0)
		r = open_folder(images_fd, entry, O_PATH, &folder, e);
	return r < 0 ? r : open_folder(folder, TREE, O_PATH, ret_fd, e);
}

int trees_open_trial(int images_fd, int *ret_fd, struct err *e)
{
	int r = sys_mkdir(images_fd, TRIAL, 0755);

	if (r < 0)
		return err_sys(e, r, "make a folder to try a jail with");
	return open_folder(images_fd, TRIAL, O_RDONLY, ret_fd, e);
}

void trees_close_trial(int images_fd)
{
	(void)unlinkat(images_fd, TRIAL, AT_REMOVEDIR);
}
