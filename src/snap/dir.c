/* snap/dir.c - folders that appear and disappear whole */
#include "snap/dir_int.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "snap/layers.h"
#include "snap/set.h"
#include "sys/fd.h"

void dir_name(const struct id *id, const char *suffix, char ret[DIR_NAME])
{
	char text[ID_TEXT];

	id_format(id, text);
	(void)snprintf(ret, DIR_NAME, "%s%.7s", text, suffix);
}

int dir_open(int state_fd, const char *folder, const char *name, int *ret_fd, struct err *e)
{
	char path[DIR_PATH];
	int fd;

	(void)snprintf(path, sizeof(path), "%s%s%s", folder, *name ? "/" : "", name);
	fd = sys_open_beneath(state_fd, path, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, fd, "open the folder %s", path);
	*ret_fd = fd;
	return 0;
}

int dir_make(int state_fd, const char *folder, const char *name, int *ret_parent, int *ret_fd,
	     struct err *e)
{
	AUTO_CLOSE int parent = -1, fd = -1;
	int r = sys_mkdir(state_fd, folder, 0700);

	if (r < 0)
		return err_disk(e, r, "make the folder %s", folder);
	r = dir_open(state_fd, folder, "", &parent, e);
	if (r < 0)
		return r;
	r = sys_remove_tree(parent, name);
	if (r == 0)
		r = sys_mkdir(parent, name, 0700);
	if (r < 0)
		return err_disk(e, r, "make the folder %s/%s", folder, name);
	fd = sys_open_beneath(parent, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0) {
		(void)sys_remove_tree(parent, name);
		return err_sys(e, fd, "open the folder %s/%s", folder, name);
	}
	*ret_parent = take_fd(&parent);
	*ret_fd = take_fd(&fd);
	return 0;
}

int dir_each(int state_fd, const char *folder,
	     int (*each)(void *arg, int folder_fd, const char *name, struct err *e), void *arg,
	     struct err *e)
{
	int fd = sys_open_beneath(state_fd, folder, O_RDONLY | O_DIRECTORY, 0), r = 0;
	DIR *d;

	if (fd < 0)
		return fd == -ENOENT ? 0 : err_sys(e, fd, "open the folder %s", folder);
	d = fdopendir(fd);
	if (!d) {
		r = err_sys(e, -errno, "read the folder %s", folder);
		(void)sys_close(fd);
		return r;
	}
	for (struct dirent *ent = readdir(d); ent && r == 0; ent = readdir(d))
		if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
			r = each(arg, fd, ent->d_name, e);
	(void)closedir(d);
	return r;
}

static int sweep_one(void *arg, int folder_fd, const char *name, struct err *e)
{
	const char *dot = strrchr(name, '.');
	int r = 0;

	(void)arg;
	if (dot && (strcmp(dot, ".new") == 0 || strcmp(dot, ".old") == 0))
		r = sys_remove_tree(folder_fd, name);
	return r < 0 ? err_sys(e, r, "remove the unfinished %s", name) : 0;
}

int dir_sweep(int state_fd, const char *folder, struct err *e)
{
	return dir_each(state_fd, folder, sweep_one, NULL, e);
}

int dir_path_ok(const char *path, struct err *e)
{
	static const char *const folders[] = {SANDBOXES_FOLDER "/", SNAPSHOTS_FOLDER "/"};

	for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
		const char *id = path + strlen(folders[i]);

		if (str_starts(path, folders[i]) && strlen(id) == ID_TEXT - 1 &&
		    strspn(id, "0123456789abcdef") == ID_TEXT - 1)
			return 0;
	}
	return err_set(e, ERR_INVALID, "a folder of disk layers can't have this name");
}
