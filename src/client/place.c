/* client/place.c - run directory and programs */
#include "client/place.h"
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/err.h"
#include "sys/fd.h"

/* A variable that must hold an absolute path: the daemon runs in another directory. */
static int variable(const char *name, const char **ret, struct err *e)
{
	const char *v = getenv(name);

	*ret = NULL;
	if (!v || !*v)
		return 0;
	if (*v != '/')
		return err_set(e, ERR_INVALID, "%s=%s: must be an absolute path", name, v);
	*ret = v;
	return 0;
}

int place_state(char *ret, size_t size, struct err *e)
{
	const char *state = NULL, *xdg = NULL, *home = NULL;
	int r = variable("HOTCELL_STATE", &state, e);

	if (r == 0)
		r = variable("XDG_STATE_HOME", &xdg, e);
	if (r == 0)
		r = variable("HOME", &home, e);
	if (r < 0)
		return r;
	if (state)
		(void)snprintf(ret, size, "%s", state);
	else if (geteuid() == 0)
		(void)snprintf(ret, size, "/var/lib/hotcell");
	else if (xdg)
		(void)snprintf(ret, size, "%s/hotcell", xdg);
	else if (home)
		(void)snprintf(ret, size, "%s/.local/state/hotcell", home);
	else
		return err_set(e, ERR_UNSUPPORTED,
			       "no place for state and sockets: set HOTCELL_STATE, XDG_STATE_HOME or HOME");
	return 0;
}

static int run_dir_of_environment(char *ret, size_t size, struct err *e)
{
	char state[PLACE_PATH - 8];
	const char *run = NULL, *xdg = NULL, *own = NULL;
	int r = variable("HOTCELL_RUN", &run, e);

	if (r == 0)
		r = variable("HOTCELL_STATE", &own, e);
	if (r == 0)
		r = variable("XDG_RUNTIME_DIR", &xdg, e);
	if (r < 0)
		return r;
	if (run) {
		(void)snprintf(ret, size, "%s", run);
	} else if (own) { /* the default's daemon has another state */
		(void)snprintf(ret, size, "%s/run", own);
	} else if (geteuid() == 0) {
		(void)snprintf(ret, size, "/run/hotcell");
	} else if (xdg) {
		(void)snprintf(ret, size, "%s/hotcell", xdg);
	} else {
		r = place_state(state, sizeof(state), e);
		if (r == 0)
			(void)snprintf(ret, size, "%s/run", state);
	}
	return r;
}

int place_find(const char *run_dir, struct place *ret, struct err *e)
{
	struct place p = {0};
	int r = 0;

	if (!run_dir)
		r = run_dir_of_environment(p.run, sizeof(p.run), e);
	else if (*run_dir != '/')
		r = err_set(e, ERR_INVALID, "run directory %s: must be an absolute path", run_dir);
	else
		(void)snprintf(p.run, sizeof(p.run), "%s", run_dir);
	if (r < 0)
		return r;
	(void)snprintf(p.socket, sizeof(p.socket), "%s/hotcelld.sock", p.run);
	(void)snprintf(p.log, sizeof(p.log), "%s/hotcelld.log", p.run);
	(void)snprintf(p.lock, sizeof(p.lock), "%s/hotcelld.start", p.run);
	if (strlen(p.socket) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return err_set(e, ERR_INVALID,
			       "run directory %s: too long for a Unix socket below it (%zu bytes at "
			       "most); set HOTCELL_RUN to a shorter one",
			       p.run, sizeof(((struct sockaddr_un *)0)->sun_path) - 16);
	*ret = p;
	return 0;
}

static bool is_trusted(uid_t uid)
{
	return uid == 0 || uid == geteuid();
}

static int refuse_owner(const char *path, uid_t owner, const char *variable, struct err *e)
{
	return err_set(e, ERR_DENIED,
		       "%s belongs to user %u, who could exchange what user %u opens there; type: chown -h %u %s, or "
		       "set %s to a directory of your own", path, owner, geteuid(), geteuid(), path, variable);
}

int place_claim(const char *path, const char *variable, struct err *e)
{
	const mode_t others = geteuid() == 0 ? S_IWGRP | S_IWOTH : S_IWOTH; /* a user's own group is the user */
	AUTO_CLOSE int fd = -1;
	struct stat link, st;
	int r = sys_mkdirs(path, 0755);

	if (r < 0)
		return err_sys(e, r, "make the directory %s", path);
	fd = sys_open(path, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return err_sys(e, fd, "open the directory %s", path);
	if (lstat(path, &link) < 0 || fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at the directory %s", path);
	if (!is_trusted(link.st_uid) || !is_trusted(st.st_uid))
		return refuse_owner(path, is_trusted(st.st_uid) ? link.st_uid : st.st_uid, variable, e);
	if (st.st_mode & others && !(st.st_mode & S_ISVTX))
		return err_set(e, ERR_DENIED,
			       "others may write to %s (mode %03o), and so exchange what user %u opens there; type: "
			       "chmod %s %s, or set %s to another directory", path, st.st_mode & 07777, geteuid(),
			       geteuid() == 0 ? "go-w" : "o-w", path, variable);
	return 0;
}

static int try_program(char *ret, size_t size, const char *dir, size_t dir_len, const char *name)
{
	if (snprintf(ret, size, "%.*s/%s", (int)dir_len, dir, name) >= (int)size)
		return -1;
	return access(ret, X_OK);
}

/* Beside a folder of PATH too: a program that uses libhotcell is where its author put it. */
static int in_search_path(const char *name, char *ret, size_t size)
{
	const char *dir = getenv("PATH") ?: "/usr/local/bin:/usr/bin:/bin";
	char other[PLACE_PATH + 32];

	while (*dir) {
		size_t n = strcspn(dir, ":");

		if (n && dir[0] == '/' && try_program(ret, size, dir, n, name) == 0)
			return 0;
		(void)snprintf(other, sizeof(other), "%.*s/../libexec/hotcell", (int)n, dir);
		if (n && n < PLACE_PATH && dir[0] == '/' && try_program(ret, size, other, strlen(other), name) == 0)
			return 0;
		dir += n + (dir[n] == ':');
	}
	return -1;
}

int place_program(const char *name, char *ret, size_t size, struct err *e)
{
	char exe[PLACE_PATH], other[PLACE_PATH + 32];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	const char *slash;

	exe[n > 0 ? n : 0] = '\0';
	slash = strrchr(exe, '/');
	if (slash) {
		size_t dir = (size_t)(slash - exe);

		if (try_program(ret, size, exe, dir, name) == 0)
			return 0;
		(void)snprintf(other, sizeof(other), "%.*s/../libexec/hotcell", (int)dir, exe);
		if (try_program(ret, size, other, strlen(other), name) == 0)
			return 0;
	}
	if (in_search_path(name, ret, size) == 0)
		return 0;
	return err_set(e, ERR_NOT_FOUND,
		       "%s: not beside %s, not in ../libexec/hotcell from there, nor in or so beside a folder of PATH: "
		       "hotcell is not completely installed",
		       name, exe[0] ? exe : "the running program");
}
