/*
 * guest/cgroup.h - one cgroup per session, so that a whole process tree can be
 * killed whatever it did to hide. Version 2 only; controllers are not needed.
 *
 * CGROUP-1 A session's cgroup holds no process of an earlier session: what a
 *	    session leaves running moves to the cgroup "background".
 * CGROUP-2 A cgroup that was killed once is never used again. Kernels count the
 *	    kills of a cgroup and, when cloning into one, compare with the count of
 *	    the parent's: the newborn is killed (seen on 6.18).
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct err;

enum { CGROUP_SPARE_MAX = 8, CGROUP_DYING_MAX = 256 };

struct cgroup {
	int fd; /* of its directory; clone3(CLONE_INTO_CGROUP) takes it */
	char name[24];
	bool was_killed;
	uint64_t cpu_base_us; /* used by earlier sessions */
	uint64_t cpu_seen_us; /* as cgroup_cpu_us() last read it, base included */
};

struct cgroups {
	int root_fd; /* owned; -1: this host gives us none */
	int oom_fd;  /* owned; counts who was killed for memory; negative: nobody does */
	uint64_t next;
	struct cgroup *spare[CGROUP_SPARE_MAX]; /* making one costs more than the program it holds */
	size_t n_spare;
	struct cgroup *dying[CGROUP_DYING_MAX]; /* can't be removed until the killed are gone */
	size_t n_dying;
};

/* @root_fd: directory of a cgroup that is ours alone, given; -1: none. -errno (and no cgroups). */
int cgroups_init(struct cgroups *all, int root_fd);
void cgroups_deinit(struct cgroups *all);

int cgroup_take(struct cgroups *all, struct cgroup **ret, struct err *e); /* NULL: no cgroups here */
void cgroup_give(struct cgroups *all, struct cgroup *cg); /* back; NULL: fine */
int cgroup_kill(struct cgroup *cg); /* every process in it, at once; -errno */
int cgroup_freeze(int dir_fd, bool on); /* what is in it stands still soon; -errno */
bool cgroup_is_frozen(int dir_fd);
bool cgroup_is_empty(int dir_fd); /* nothing lives in it or below */
bool cgroup_has_only(const struct cgroup *cg, pid_t pid); /* one process of one thread, and no cgroup below */
uint64_t cgroup_cpu_us(struct cgroup *cg); /* since cgroup_take() */

/* Processes the kernel killed for memory in all sessions so far; 0 where nobody counts. */
uint64_t cgroups_oom_kills(const struct cgroups *all);

/* Nothing of ended sessions runs any more (or nobody can tell). */
bool cgroups_background_empty(const struct cgroups *all);
