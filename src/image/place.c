/* image/place.c - atomic entries in a folder */
#include "image/place.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "image/tree.h"
#include "sys/fd.h"

#define LOCK_FILE   ".lock"
#define NEW_POINTER ".pointer"

int place_open(int state_dirfd, const char *folder, int *ret_fd, struct err *e)
{
	int fd = sys_open_beneath(state_dirfd, folder, O_RDONLY | O_DIRECTORY, 0);

	if (fd == -ENOENT)
		return err_set(e, ERR_NOT_FOUND, "nothing was built yet; run: hotcell image build");
	if (fd < 0)
		return err_sys(e, fd, "open %s in the state directory", folder);
	*ret_fd = fd;
	return 0;
}

/* Checks first that nothing is mounted below: what belongs to somebody else must not be removed. */
static int remove_new(int place_fd, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(place_fd, PLACE_NEW, O_RDONLY | O_DIRECTORY, 0);
	struct tree_size unused;
	int r = fd < 0 ? 0 : tree_measure(fd, &unused, e);

	if (r < 0)
		return err_wrap(e, "remove what an interrupted build left");
	r = sys_remove_tree(place_fd, PLACE_NEW);
	return r < 0 ? err_sys(e, r, "remove %s in the state directory", PLACE_NEW) : 0;
}

static int lock(int place_fd, const char *folder, int *ret_lock, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(place_fd, LOCK_FILE, O_RDWR | O_CREAT, 0644);
	int r;

	if (fd < 0)
		return err_sys(e, fd, "open the lock of %s in the state directory", folder);
	r = sys_lock(fd);
	if (r == -EAGAIN)
		return err_set(e, ERR_CONFLICT,
			       "another process is changing %s; try again when it is done", folder);
	if (r < 0)
		return err_sys(e, r, "lock %s in the state directory", folder);
	*ret_lock = take_fd(&fd);
	return 0;
}

int place_enter(int state_dirfd, const char *folder, int *ret_fd, int *ret_lock, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	AUTO_CLOSE int lock_fd = -1;
	int r = sys_mkdir(state_dirfd, folder, 0755);

	if (r < 0)
		return err_sys(e, r, "make the folder %s in the state directory", folder);
	r = place_open(state_dirfd, folder, &fd, e);
	if (r == 0)
		r = lock(fd, folder, &lock_fd, e);
	if (r < 0)
		return r;
	r = remove_new(fd, e);
	if (r < 0)
		return r;
	r = sys_unlink(fd, NEW_POINTER);
	if (r < 0)
		return err_sys(e, r, "remove what an interrupted build left in %s", folder);
	*ret_fd = take_fd(&fd);
	*ret_lock = take_fd(&lock_fd);
	return 0;
}

int place_begin(int place_fd, int *ret_fd, struct err *e)
{
	int r = sys_mkdir(place_fd, PLACE_NEW, 0755);
	int fd;

	if (r < 0)
		return err_sys(e, r, "make a folder in the state directory");
	fd = sys_open_beneath(place_fd, PLACE_NEW, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, fd, "open a new folder in the state directory");
	*ret_fd = fd;
	return 0;
}

static int rename_entry(int place_fd, const char *from, const char *to, struct err *e)
{
	if (renameat(place_fd, from, place_fd, to) < 0 || fsync(place_fd) < 0)
		return err_sys(e, -errno, "put %s into the state directory", to);
	return 0;
}

int place_commit(int place_fd, const char *name, struct err *e)
{
	if (syncfs(place_fd) < 0)
		return err_sys(e, -errno, "write %s to disk", name);
	if (renameat2(place_fd, PLACE_NEW, place_fd, name, RENAME_NOREPLACE) == 0)
		return fsync(place_fd) < 0
			       ? err_sys(e, -errno, "put %s into the state directory", name)
			       : 0;
	if (errno != EEXIST)
		return err_sys(e, -errno, "put %s into the state directory", name);
	/* There is an older one: change places in one step, then remove it. */
	if (renameat2(place_fd, PLACE_NEW, place_fd, name, RENAME_EXCHANGE) < 0 ||
	    fsync(place_fd) < 0)
		return err_sys(e, -errno, "replace %s in the state directory", name);
	return remove_new(place_fd, e);
}

void place_abandon(int place_fd)
{
	(void)remove_new(place_fd, NULL);
}

int place_remove(int place_fd, const char *name, struct err *e)
{
	int r = rename_entry(place_fd, name, PLACE_NEW, e);

	return r < 0 ? r : remove_new(place_fd, e);
}

int place_read_pointer(int place_fd, const char *name, char ret[PLACE_NAME_MAX], struct err *e)
{
	char text[PLACE_NAME_MAX];
	ssize_t n = readlinkat(place_fd, name, text, sizeof(text));

	if (n < 0)
		return err_sys(e, -errno, "look up %s", name);
	if (!n || (size_t)n == sizeof(text) || memchr(text, '/', (size_t)n) || text[0] == '.')
		return err_set(e, ERR_INVALID, "the pointer %s in the state directory is damaged",
			       name);
	memcpy(ret, text, (size_t)n);
	ret[n] = '\0';
	return 0;
}

int place_set_pointer(int place_fd, const char *name, const char *entry, struct err *e)
{
	if (symlinkat(entry, place_fd, NEW_POINTER) < 0)
		return err_sys(e, -errno, "point %s to %s", name, entry);
	return rename_entry(place_fd, NEW_POINTER, name, e);
}
