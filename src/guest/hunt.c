/* guest/hunt.c - kill marked processes */
#include "guest/hunt.h"
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/macro.h"
#include "base/mem.h"
#include "sys/fd.h"

enum { ENVIRON_MAX = 262144 };

static bool has_mark(const char *environ_text, size_t n, const char *mark)
{
	size_t len = strlen(mark) + 1; /* with its NUL */

	for (const char *p = environ_text; p + len <= environ_text + n;) {
		if (memcmp(p, mark, len) == 0)
			return true;
		p = memchr(p, '\0', (size_t)(environ_text + n - p));
		if (!p)
			return false;
		p++;
	}
	return false;
}

static bool is_marked(int proc_fd, const char *pid, const char *mark, char *buf)
{
	char path[NAME_MAX + 16];
	AUTO_CLOSE int fd = -1;
	size_t n = 0;
	ssize_t r;

	(void)snprintf(path, sizeof(path), "%s/environ", pid);
	fd = sys_openat(proc_fd, path, O_RDONLY, 0);
	if (fd < 0)
		return false;
	while (n < ENVIRON_MAX && (r = sys_read(fd, buf + n, ENVIRON_MAX - n)) > 0)
		n += (size_t)r;
	return has_mark(buf, n, mark);
}

unsigned hunt_kill(int proc_fd, uint64_t session)
{
	char mark[64];
	AUTO_FREE char *buf = mem_try(ENVIRON_MAX);
	int fd = sys_openat(proc_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned killed = 0;

	(void)snprintf(mark, sizeof(mark), HUNT_MARK "=%" PRIu64, session);
	for (struct dirent *ent = d ? readdir(d) : NULL; ent && buf; ent = readdir(d)) {
		pid_t pid = isdigit((unsigned char)ent->d_name[0]) ? atoi(ent->d_name) : 0;

		if (pid > 1 && pid != getpid() && is_marked(proc_fd, ent->d_name, mark, buf))
			killed += kill(pid, SIGKILL) == 0;
	}
	if (d)
		(void)closedir(d);
	else
		(void)sys_close(fd);
	return killed;
}
