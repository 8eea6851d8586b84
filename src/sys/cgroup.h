/*
 * sys/cgroup.h - one group of processes over whatever hierarchies the host has
 *
 * cgroup v2 where it has the controllers, v1 for those it lacks; both at once
 * is common (v2 core for killing and freezing, v1 for limits). All groups of
 * one root sit below one parent group per hierarchy, so one look finds leftovers.
 *
 * CGROUP-1 A limit that was set was read back and is what was asked (the kernel rounds to pages).
 * CGROUP-2 A group is removed only when it is empty; it is never killed by removing it.
 *
 * Everything returns 0 or a value, or a negative errno. Thread: one at a time per root.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct cgroup;
struct cgroup_root;

enum cgroup_limit { CGROUP_MEMORY = 1, CGROUP_CPU = 2, CGROUP_PIDS = 4 };

struct cgroup_limits {
	uint64_t memory_bytes; /* swap included; 0: none. v1: sockets may hold a quarter of it more */
	unsigned cpu_milli;    /* thousandths of a processor; 0: none */
	unsigned pids;	       /* 0: none */
	bool oom_group;	       /* out of memory: kill all of it, not the largest (v2 only) */
};

struct cgroup_usage {
	uint64_t memory_bytes, memory_max_bytes; /* sockets included; max 0: no limit */
	uint64_t cpu_us;
	uint64_t pids, pids_max;
	uint64_t oom_kills;
};

enum { CGROUP_NAME_MAX = 64, CGROUP_DEPTH_MAX = 8 };

/*
 * Find the hierarchies and make the parent group @name in each that can be written.
 * -EROFS or -EACCES when there is none.
 */
int cgroup_root_open(const char *name, struct cgroup_root **ret);
/* Removes the parent groups if they are empty. NULL: fine. */
struct cgroup_root *cgroup_root_close(struct cgroup_root *r);
unsigned cgroup_root_limits(const struct cgroup_root *r); /* CGROUP_*: limits that hold here */
int cgroup_root_version(const struct cgroup_root *r);	  /* 2, 1, or 12 for both at once */
/* Whether the memory of TCP and UDP sockets is bounded with the rest. */
bool cgroup_root_counts_sockets(const struct cgroup_root *r);
/* Kill and remove every group below the parents: what a predecessor left. Waits @timeout_ms at most. */
int cgroup_root_sweep(struct cgroup_root *r, unsigned timeout_ms);

int cgroup_new(struct cgroup_root *r, const char *name, struct cgroup **ret); /* -EEXIST */
/* Forgets the group; what is left of it stays for the next sweep. NULL: fine. */
struct cgroup *cgroup_free(struct cgroup *c);
/* Remove it and the groups its processes made: -EBUSY while anybody is in it. */
int cgroup_remove(struct cgroup *c);

int cgroup_clone_fd(const struct cgroup *c); /* lent: for sys_clone(); -1: no v2 here */
/*
 * Doors into the hierarchies that sys_clone() does not serve (all of them when not @born): the
 * process that goes in, of one thread, writes "0" to each. It may have lost every right by then. In v1
 * it goes in as a thread: for a whole process the kernel would first wait until nobody forks, 17 ms here.
 * CGROUP_DOORS descriptors, given, -1 where absent.
 */
enum { CGROUP_DOORS = 6 };
int cgroup_doors(struct cgroup *c, bool born, int ret[CGROUP_DOORS]);
/* CGROUP-1; *ret_failed: CGROUP_* */
int cgroup_set(struct cgroup *c, const struct cgroup_limits *l, unsigned *ret_failed);
int cgroup_usage(struct cgroup *c, struct cgroup_usage *ret);
/* A file with a line "oom_kill N", for who may not see the group itself. Given; -EOPNOTSUPP: nobody counts. */
int cgroup_oom_fd(struct cgroup *c);

int cgroup_kill(struct cgroup *c);	     /* SIGKILL to everybody in it, groups below included */
int cgroup_is_populated(struct cgroup *c);   /* 1, 0 */
int cgroup_events_fd(struct cgroup *c);	     /* lent: raises EPOLLPRI when populated changes; -1: no v2 */

/*
 * Let @uid make groups below and move its processes about in them; it can't
 * change the limits. Return: a directory descriptor, given; -EOPNOTSUPP without v2.
 */
int cgroup_delegate(struct cgroup *c, uid_t uid, gid_t gid);
