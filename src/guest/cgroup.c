/* guest/cgroup.c - one cgroup per session */
#include "guest/cgroup.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "sys/fd.h"

enum {
	FILE_MAX = 8192,
	COUNTS_MAX = 16384, /* the longest, vmstat, has some 5 KB */
	MOVE_ROUNDS = 8, /* a fork bomb outruns us; then it is killed instead */
};

static const char background[] = "background";

int cgroups_init(struct cgroups *all, int root_fd)
{
	int r;

	*all = (struct cgroups){.root_fd = root_fd, .oom_fd = -1};
	if (root_fd < 0)
		return 0;
	/* There since Linux 5.14. The one of the root stays its maker's; those of our groups are ours. */
	r = faccessat(root_fd, "cgroup.kill", F_OK, 0) < 0 ? -errno : 0;
	if (r == 0)
		r = sys_mkdir(root_fd, background, 0755);
	if (r < 0)
		all->root_fd = sys_close(all->root_fd);
	return r;
}

static bool remove_group(const struct cgroups *all, struct cgroup *cg)
{
	if (unlinkat(all->root_fd, cg->name, AT_REMOVEDIR) < 0 && errno == EBUSY)
		return false;
	free(cg);
	return true;
}

static void bury_dying(struct cgroups *all)
{
	size_t left = 0;

	for (size_t i = 0; i < all->n_dying; i++)
		if (!remove_group(all, all->dying[i]))
			all->dying[left++] = all->dying[i];
	all->n_dying = left;
}

static void drop(struct cgroups *all, struct cgroup *cg)
{
	cg->fd = sys_close(cg->fd);
	if (remove_group(all, cg))
		return;
	if (all->n_dying < CGROUP_DYING_MAX)
		all->dying[all->n_dying++] = cg;
	else
		free(cg); /* the host removes it with the sandbox */
}

void cgroups_deinit(struct cgroups *all)
{
	while (all->n_spare)
		drop(all, all->spare[--all->n_spare]);
	bury_dying(all);
	while (all->n_dying)
		free(all->dying[--all->n_dying]);
	if (all->root_fd >= 0)
		(void)unlinkat(all->root_fd, background, AT_REMOVEDIR);
	all->root_fd = sys_close(all->root_fd);
	if (all->oom_fd >= 0)
		all->oom_fd = sys_close(all->oom_fd);
}

/* The number behind @key in "key number" lines; 0 when it is not there. */
static uint64_t number_of(const char *text, const char *key)
{
	size_t n = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) == 0 && line[n] == ' ')
			return strtoull(line + n, NULL, 10);
	}
	return 0;
}

static uint64_t number_in(int dirfd, const char *file, const char *key)
{
	char text[FILE_MAX];

	return sys_read_file(dirfd, file, text, sizeof(text)) < 0 ? 0 : number_of(text, key);
}

int cgroup_take(struct cgroups *all, struct cgroup **ret, struct err *e)
{
	struct cgroup *cg;
	int r;

	*ret = NULL;
	if (all->root_fd < 0)
		return 0;
	if (all->n_spare) {
		*ret = all->spare[--all->n_spare];
		return 0;
	}
	cg = mem_new(sizeof(*cg));
	(void)snprintf(cg->name, sizeof(cg->name), "s%" PRIu64, all->next++);
	r = sys_mkdir(all->root_fd, cg->name, 0755);
	if (r == 0)
		r = cg->fd = sys_open_beneath(all->root_fd, cg->name, O_RDONLY | O_DIRECTORY, 0);
	if (r < 0) {
		free(cg);
		return err_sys(e, r, "make a cgroup for the program");
	}
	*ret = cg;
	return 0;
}

/* Move what is in @cg to the background; returns false when something is still there. */
static bool move_out(const struct cgroups *all, const struct cgroup *cg)
{
	char pids[FILE_MAX];
	ssize_t n = sys_read_file(cg->fd, "cgroup.procs", pids, sizeof(pids));

	if (n == 0)
		return true;
	for (char *line = strtok(n > 0 ? pids : NULL, "\n"); line; line = strtok(NULL, "\n")) {
		AUTO_CLOSE int fd = sys_openat(all->root_fd, "background/cgroup.procs", O_WRONLY, 0);

		if (fd >= 0)
			(void)sys_write(fd, line, strlen(line));
	}
	return false;
}

void cgroup_give(struct cgroups *all, struct cgroup *cg)
{
	bool empty = false;

	if (!cg)
		return;
	bury_dying(all);
	if (cg->was_killed) { /* CGROUP-2 */
		drop(all, cg);
		return;
	}
	for (int i = 0; i < MOVE_ROUNDS && !empty; i++)
		empty = move_out(all, cg);
	if (!empty) {
		(void)cgroup_kill(cg);
		drop(all, cg);
		return;
	}
	if (all->n_spare == CGROUP_SPARE_MAX) {
		drop(all, cg);
		return;
	}
	cg->cpu_base_us = cg->cpu_seen_us; /* what leftovers used since is nobody's */
	all->spare[all->n_spare++] = cg;
}

int cgroup_kill(struct cgroup *cg)
{
	AUTO_CLOSE int fd = sys_openat(cg->fd, "cgroup.kill", O_WRONLY, 0);

	cg->was_killed = true;
	return fd < 0 ? fd : sys_write_full(fd, "1", 1);
}

int cgroup_freeze(int dir_fd, bool on)
{
	AUTO_CLOSE int fd = sys_openat(dir_fd, "cgroup.freeze", O_WRONLY, 0);

	return fd < 0 ? fd : sys_write_full(fd, on ? "1" : "0", 1);
}

bool cgroup_is_frozen(int dir_fd)
{
	return number_in(dir_fd, "cgroup.events", "frozen") == 1;
}

bool cgroup_is_empty(int dir_fd)
{
	return number_in(dir_fd, "cgroup.events", "populated") == 0;
}

bool cgroup_has_only(const struct cgroup *cg, pid_t pid)
{
	char threads[64], wanted[32];

	(void)snprintf(wanted, sizeof(wanted), "%d\n", (int)pid);
	return sys_read_file(cg->fd, "cgroup.threads", threads, sizeof(threads)) > 0 &&
	       strcmp(threads, wanted) == 0 && number_in(cg->fd, "cgroup.stat", "nr_descendants") == 0;
}

uint64_t cgroup_cpu_us(struct cgroup *cg)
{
	cg->cpu_seen_us = number_in(cg->fd, "cpu.stat", "usage_usec");
	return cg->cpu_seen_us - cg->cpu_base_us;
}

uint64_t cgroups_oom_kills(const struct cgroups *all)
{
	char text[COUNTS_MAX];
	ssize_t n = all->oom_fd < 0 ? -1 : sys_pread(all->oom_fd, text, sizeof(text) - 1, 0);

	if (n < 0)
		return all->root_fd < 0 ? 0 : number_in(all->root_fd, "memory.events", "oom_kill");
	text[n] = '\0';
	return number_of(text, "oom_kill");
}

bool cgroups_background_empty(const struct cgroups *all)
{
	return all->root_fd < 0 ||
	       number_in(all->root_fd, "background/cgroup.events", "populated") == 0;
}
