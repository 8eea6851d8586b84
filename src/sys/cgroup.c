/*
 * sys/cgroup.c - groups over v2, v1, or both
 *
 * A root is a list of trees: the directory of our parent group in one hierarchy, and
 * what that hierarchy does for us. v2 comes first; a v1 hierarchy is used only for a
 * limit that v2 does not offer here. A group is one directory per tree.
 */
#include "sys/cgroup.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/call_int.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum {
	TREES_MAX = CGROUP_DOORS,
	FILE_MAX = 4096,
	MOUNTS_MAX = 1 << 20,
	PERIOD_US = 100000,
	DESCENDANTS_MAX = 1024, /* groups a delegate may make; a session needs one */
	PATH_ROOM = 4096,
	SOCKETS_PART = 4, /* v1 counts what lies in TCP and UDP sockets apart from memory: a quarter of it, on top */
};

struct tree {
	int version;
	unsigned limits;   /* CGROUP_* */
	bool counts_cpu;   /* v1 cpuacct */
	int dir;	   /* of the parent group */
	int above;	   /* the directory it was made in */
};

struct cgroup_root {
	struct tree trees[TREES_MAX];
	unsigned n;
	char name[CGROUP_NAME_MAX];
};

struct cgroup {
	struct cgroup_root *root;
	int dirs[TREES_MAX];
	int events; /* cgroup.events of the v2 one */
	char name[CGROUP_NAME_MAX];
};

static const struct {
	const char *name;
	unsigned limit;
	bool counts_cpu;
} controllers[] = {
	{"memory", CGROUP_MEMORY, false},
	{"cpu", CGROUP_CPU, false},
	{"pids", CGROUP_PIDS, false},
	{"cpuacct", 0, true},
};

/* ---- small files ---- */

static int read_u64(int dir, const char *file, uint64_t *ret)
{
	char text[64];
	ssize_t n = sys_read_file(dir, file, text, sizeof(text));

	if (n < 0)
		return (int)n;
	text[strcspn(text, " \n")] = '\0';
	if (strcmp(text, "max") == 0 || strcmp(text, "-1") == 0) {
		*ret = UINT64_MAX;
		return 0;
	}
	return str_to_u64(text, 0, UINT64_MAX, ret);
}

/* The number behind "key " in a file of such lines. */
static int read_key(int dir, const char *file, const char *key, uint64_t *ret)
{
	char text[FILE_MAX];
	ssize_t n = sys_read_file(dir, file, text, sizeof(text));
	size_t len = strlen(key);

	if (n < 0)
		return (int)n;
	for (char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, len) == 0 && line[len] == ' ') {
			*ret = strtoull(line + len + 1, NULL, 10);
			return 0;
		}
	}
	return -ENOENT;
}

/* Existing files only: in a cgroup directory nothing can be created. */
static int write_text(int dir, const char *file, const char *text)
{
	AUTO_CLOSE int fd = sys_openat(dir, file, O_WRONLY, 0);

	return fd < 0 ? fd : sys_write_full(fd, text, strlen(text));
}

static int write_u64(int dir, const char *file, uint64_t v)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)v);
	return write_text(dir, file, text);
}

/* CGROUP-1 */
static int write_checked(int dir, const char *file, uint64_t v)
{
	uint64_t is = 0;
	int r = write_u64(dir, file, v);

	if (r == 0)
		r = read_u64(dir, file, &is);
	return r < 0 ? r : is == v ? 0 : -ERANGE;
}

/* ---- directories ---- */

/* Call @each for every group below @dir; the first failure is returned, the rest is still visited. */
static int for_each_group(int dir, int (*each)(int dir, const char *name, unsigned depth),
			  unsigned depth)
{
	int fd = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0), first = 0;
	DIR *d;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		(void)sys_close(fd);
		return -ENOMEM;
	}
	for (struct dirent *ent = readdir(d); ent; ent = readdir(d)) {
		int r;

		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		r = each(dir, ent->d_name, depth);
		if (r < 0 && first == 0)
			first = r;
	}
	(void)closedir(d);
	return first;
}

static int remove_group(int dir, const char *name, unsigned depth)
{
	int r = SYS_CALL(unlinkat(dir, name, AT_REMOVEDIR));
	AUTO_CLOSE int fd = -1;

	if (r == 0 || r == -ENOENT)
		return 0;
	if (r != -EBUSY && r != -ENOTEMPTY)
		return r;
	if (depth >= CGROUP_DEPTH_MAX)
		return -ELOOP;
	fd = sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = for_each_group(fd, remove_group, depth + 1);
	return r < 0 ? r : SYS_CALL(unlinkat(dir, name, AT_REMOVEDIR));
}

static int kill_listed(int dir)
{
	AUTO_CLOSE int fd = sys_openat(dir, "cgroup.procs", O_RDONLY, 0);
	AUTO_FREE char *line = NULL;
	size_t cap = 0;
	FILE *f;

	if (fd < 0)
		return fd;
	f = fdopen(take_fd(&fd), "re");
	if (!f)
		return -ENOMEM;
	while (getline(&line, &cap, f) > 0) {
		pid_t pid = (pid_t)strtol(line, NULL, 10);

		if (pid > 1) /* 0: a process this pid namespace can't see */
			(void)kill(pid, SIGKILL);
	}
	(void)fclose(f);
	return 0;
}

static int kill_group(int dir, const char *name, unsigned depth)
{
	AUTO_CLOSE int fd = sys_openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	int r, below;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = write_text(fd, "cgroup.kill", "1"); /* v2 since Linux 5.14, groups below included */
	if (r == 0)
		return 0;
	below = depth < CGROUP_DEPTH_MAX ? for_each_group(fd, kill_group, depth + 1) : -ELOOP;
	r = kill_listed(fd);
	return r < 0 ? r : below;
}

static int has_processes(int dir)
{
	char text[16];
	AUTO_CLOSE int fd = sys_openat(dir, "cgroup.procs", O_RDONLY, 0);
	ssize_t n = fd < 0 ? fd : sys_read(fd, text, sizeof(text));

	return n < 0 ? (int)n : n > 0;
}

/* ---- finding the hierarchies ---- */

static bool has_word(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = strstr(list, word); p; p = strstr(p + 1, word)) {
		bool starts = p == list || strchr(", \n", p[-1]);

		if (starts && strchr(", \n", p[n])) /* strchr finds the NUL as well */
			return true;
	}
	return false;
}

static void enable_controllers(int dir)
{
	static const char *const words[] = {"+memory", "+cpu", "+pids"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		(void)write_text(dir, "cgroup.subtree_control", words[i]); /* what holds is read afterwards */
}

static unsigned enabled_limits(int dir)
{
	char text[FILE_MAX];
	unsigned limits = 0;

	if (sys_read_file(dir, "cgroup.subtree_control", text, sizeof(text)) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_LEN(controllers); i++)
		if (has_word(text, controllers[i].name))
			limits |= controllers[i].limit;
	return limits;
}

static unsigned limits_so_far(const struct cgroup_root *r)
{
	unsigned all = 0;

	for (unsigned i = 0; i < r->n; i++)
		all |= r->trees[i].limits;
	return all;
}

/* What is named in the list of mounts may have been covered by something else. */
static bool is_cgroup(int dir)
{
	struct statfs f;

	return fstatfs(dir, &f) == 0 && (f.f_type == CGROUP_SUPER_MAGIC || f.f_type == CGROUP2_SUPER_MAGIC);
}

/* Make our parent group in the directory @above (given). */
static int add_tree(struct cgroup_root *r, int above, struct tree t)
{
	AUTO_CLOSE int up = above;
	int err = up < 0 ? up : r->n == TREES_MAX ? -E2BIG : is_cgroup(up) ? 0 : -ENODEV;

	if (err == 0)
		err = sys_mkdir(up, r->name, 0755);

	if (err < 0)
		return err;
	t.dir = sys_openat(up, r->name, O_RDONLY | O_DIRECTORY, 0);
	if (t.dir < 0)
		return t.dir;
	if (t.version == 2) {
		enable_controllers(up);
		enable_controllers(t.dir);
		t.limits = enabled_limits(t.dir);
	}
	t.above = take_fd(&up);
	r->trees[r->n++] = t;
	return 0;
}

/*
 * v2: at the top of the hierarchy where we may; otherwise in the highest group above
 * our own that was delegated to us.
 */
static int add_v2(struct cgroup_root *r, const char *mount)
{
	char own[FILE_MAX], path[PATH_ROOM + FILE_MAX];
	char *line, *end;
	int err = add_tree(r, sys_open(mount, O_RDONLY | O_DIRECTORY), (struct tree){.version = 2});

	if (err != -EACCES && err != -EROFS && err != -EPERM)
		return err;
	if (sys_read_file(AT_FDCWD, "/proc/self/cgroup", own, sizeof(own)) < 0)
		return err;
	line = strstr(own, "0::/");
	if (!line)
		return err;
	line += 4;
	line[strcspn(line, "\n")] = '\0';
	for (end = strchr(line, '/'); end; end = strchr(end + 1, '/')) {
		*end = '\0';
		(void)snprintf(path, sizeof(path), "%s%s", mount, line);
		*end = '/';
		if (add_tree(r, sys_open(path, O_RDONLY | O_DIRECTORY), (struct tree){.version = 2}) == 0)
			return 0;
	}
	return err;
}

static bool counts_cpu_so_far(const struct cgroup_root *r)
{
	bool counts = false;

	for (unsigned i = 0; i < r->n; i++)
		counts |= r->trees[i].counts_cpu;
	return counts;
}

/* A hierarchy may be mounted more than once: what one mount of it does for us, no other is asked for. */
static void add_v1(struct cgroup_root *r, const char *mount, const char *options)
{
	struct tree t = {.version = 1};
	bool have_v2 = r->n && r->trees[0].version == 2; /* which counts by itself */

	for (size_t i = 0; i < ARRAY_LEN(controllers); i++)
		if (has_word(options, controllers[i].name)) {
			t.limits |= controllers[i].limit & ~limits_so_far(r);
			t.counts_cpu |= controllers[i].counts_cpu && !have_v2 && !counts_cpu_so_far(r);
		}
	if (t.limits || t.counts_cpu)
		(void)add_tree(r, sys_open(mount, O_RDONLY | O_DIRECTORY), t);
}

/*
 * One pass over /proc/self/mounts for one version. Those in their customary place first: another one may
 * show a part of a hierarchy only, that of some container.
 */
static int scan(struct cgroup_root *r, const char *mounts, int version, bool customary)
{
	static const char place[] = "/sys/fs/cgroup";
	const char *want = version == 2 ? "cgroup2" : "cgroup";
	char mount[PATH_ROOM], type[32], options[256];
	int last = 0;

	for (const char *line = mounts; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		if (sscanf(line, "%*s %4095s %31s %255s", mount, type, options) != 3 ||
		    strcmp(type, want) != 0 || (strncmp(mount, place, sizeof(place) - 1) == 0) != customary)
			continue;
		if (version == 1)
			add_v1(r, mount, options);
		else if (r->n == 0)
			last = add_v2(r, mount);
	}
	return last;
}

int cgroup_root_open(const char *name, struct cgroup_root **ret)
{
	AUTO_FREE char *mounts = mem_new(MOUNTS_MAX);
	struct cgroup_root *r;
	ssize_t n = sys_read_file(AT_FDCWD, "/proc/self/mounts", mounts, MOUNTS_MAX);
	int why;

	if (strlen(name) >= sizeof(r->name) || strchr(name, '/'))
		return -EINVAL;
	if (n < 0)
		return (int)n;
	r = mem_new(sizeof(*r));
	(void)snprintf(r->name, sizeof(r->name), "%s", name);
	why = scan(r, mounts, 2, true);
	if (r->n == 0)
		why = MIN(why, scan(r, mounts, 2, false));
	(void)scan(r, mounts, 1, true);
	(void)scan(r, mounts, 1, false);
	if (r->n == 0) {
		free(r);
		return why < 0 ? why : -ENOENT;
	}
	*ret = r;
	return 0;
}

struct cgroup_root *cgroup_root_close(struct cgroup_root *r)
{
	if (!r)
		return NULL;
	for (unsigned i = 0; i < r->n; i++) {
		(void)unlinkat(r->trees[i].above, r->name, AT_REMOVEDIR); /* not empty: for a successor */
		(void)sys_close(r->trees[i].dir);
		(void)sys_close(r->trees[i].above);
	}
	free(r);
	return NULL;
}

unsigned cgroup_root_limits(const struct cgroup_root *r)
{
	return limits_so_far(r);
}

int cgroup_root_version(const struct cgroup_root *r)
{
	bool v1 = false, v2 = false;

	for (unsigned i = 0; i < r->n; i++)
		*(r->trees[i].version == 2 ? &v2 : &v1) = true;
	return v1 && v2 ? 12 : v2 ? 2 : 1;
}

/* Try to remove; while somebody is still dying in there, wait for the kernel to say so. */
static int remove_waiting(int dir, const char *name, uint64_t deadline_ns)
{
	for (;;) {
		AUTO_CLOSE int fd = sys_openat(dir, name, O_RDONLY | O_DIRECTORY, 0);
		AUTO_CLOSE int events = fd < 0 ? -1 : sys_openat(fd, "cgroup.events", O_RDONLY, 0);
		struct pollfd p = {.fd = events, .events = POLLPRI};
		uint64_t populated = 1, now = sys_now_ns();
		int r = remove_group(dir, name, 0);

		if (r != -EBUSY || now >= deadline_ns)
			return r;
		(void)kill_group(dir, name, 0);
		if (events >= 0 && read_key(fd, "cgroup.events", "populated", &populated) == 0 && populated)
			(void)poll(&p, 1, (int)MIN((deadline_ns - now) / NS_PER_MS + 1, (uint64_t)1000));
	}
}

static int sweep_tree(const struct tree *t, uint64_t deadline_ns)
{
	int fd = sys_openat(t->dir, ".", O_RDONLY | O_DIRECTORY, 0), first = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		(void)sys_close(fd);
		return fd < 0 ? fd : -ENOMEM;
	}
	for (struct dirent *ent = readdir(d); ent; ent = readdir(d)) {
		int r;

		if (ent->d_type != DT_DIR || ent->d_name[0] == '.')
			continue;
		r = remove_waiting(t->dir, ent->d_name, deadline_ns);
		if (r < 0 && first == 0)
			first = r;
	}
	(void)closedir(d);
	return first;
}

int cgroup_root_sweep(struct cgroup_root *r, unsigned timeout_ms)
{
	uint64_t deadline_ns = sys_now_ns() + timeout_ms * NS_PER_MS;
	int first = 0;

	for (unsigned i = 0; i < r->n; i++)
		(void)for_each_group(r->trees[i].dir, kill_group, 0);
	for (unsigned i = 0; i < r->n; i++) {
		int err = sweep_tree(&r->trees[i], deadline_ns);

		if (err < 0 && first == 0)
			first = err;
	}
	return first;
}

/* ---- one group ---- */

static const struct tree *tree_of(const struct cgroup *c, unsigned limit, int *ret_dir)
{
	for (unsigned i = 0; i < c->root->n; i++)
		if (c->root->trees[i].limits & limit) {
			*ret_dir = c->dirs[i];
			return &c->root->trees[i];
		}
	return NULL;
}

static bool has_v2(const struct cgroup *c)
{
	return c->root->trees[0].version == 2;
}

int cgroup_new(struct cgroup_root *r, const char *name, struct cgroup **ret)
{
	struct cgroup *c;
	int err = 0;

	if (strlen(name) >= sizeof(c->name) || strchr(name, '/') || name[0] == '.')
		return -EINVAL;
	c = mem_new(sizeof(*c));
	c->root = r;
	c->events = -1;
	(void)snprintf(c->name, sizeof(c->name), "%s", name);
	for (unsigned i = 0; i < TREES_MAX; i++)
		c->dirs[i] = -1;
	for (unsigned i = 0; i < r->n && err >= 0; i++) {
		err = SYS_CALL(mkdirat(r->trees[i].dir, name, 0755));
		if (err == 0)
			err = c->dirs[i] = sys_openat(r->trees[i].dir, name, O_RDONLY | O_DIRECTORY, 0);
		if (err == -EEXIST)
			break; /* somebody else's: leave it alone */
		if (c->dirs[i] < 0)
			(void)unlinkat(r->trees[i].dir, name, AT_REMOVEDIR);
	}
	if (err >= 0 && has_v2(c))
		err = c->events = sys_openat(c->dirs[0], "cgroup.events", O_RDONLY, 0);
	if (err < 0) {
		(void)cgroup_remove(c);
		(void)cgroup_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

struct cgroup *cgroup_free(struct cgroup *c)
{
	if (!c)
		return NULL;
	for (unsigned i = 0; i < TREES_MAX; i++)
		(void)sys_close(c->dirs[i]);
	(void)sys_close(c->events);
	free(c);
	return NULL;
}

int cgroup_remove(struct cgroup *c)
{
	int first = 0;

	for (unsigned i = 0; i < c->root->n; i++) {
		int r = c->dirs[i] < 0 ? 0 : remove_group(c->root->trees[i].dir, c->name, 0);

		if (r < 0 && first == 0)
			first = r;
	}
	return first;
}

int cgroup_clone_fd(const struct cgroup *c)
{
	return has_v2(c) ? c->dirs[0] : -1;
}

int cgroup_doors(struct cgroup *c, bool born, int ret[CGROUP_DOORS])
{
	int doors[CGROUP_DOORS], r = 0;

	for (unsigned i = 0; i < CGROUP_DOORS; i++) {
		bool is_v2 = i < c->root->n && c->root->trees[i].version == 2;
		bool needed = i < c->root->n && !(born && is_v2);

		doors[i] = -1;
		if (needed && r >= 0)
			r = doors[i] = sys_openat(c->dirs[i], is_v2 ? "cgroup.procs" : "tasks", O_WRONLY, 0);
	}
	if (r < 0) {
		for (unsigned i = 0; i < CGROUP_DOORS; i++)
			(void)sys_close(doors[i]);
		return r;
	}
	memcpy(ret, doors, sizeof(doors));
	return 0;
}

/* ---- limits ---- */

/* Its name says TCP; UDP is charged to it, too (seen on Linux 6.18). */
static const char sockets_limit[] = "memory.kmem.tcp.limit_in_bytes";
static const char sockets_usage[] = "memory.kmem.tcp.usage_in_bytes";

bool cgroup_root_counts_sockets(const struct cgroup_root *r)
{
	for (unsigned i = 0; i < r->n; i++)
		if (r->trees[i].limits & CGROUP_MEMORY)
			return r->trees[i].version == 2 || faccessat(r->trees[i].dir, sockets_limit, F_OK, 0) == 0;
	return false;
}

static int set_memory(const struct tree *t, int dir, const struct cgroup_limits *l)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), v = l->memory_bytes / page * page;
	int r;

	if (t->version == 1) {
		r = write_checked(dir, "memory.limit_in_bytes", v);
		if (r < 0)
			return r;
		r = write_checked(dir, "memory.memsw.limit_in_bytes", v);
		if (r == 0 || r == -ENOENT) /* no swap accounting: memory alone */
			r = write_checked(dir, sockets_limit, v / SOCKETS_PART / page * page);
		return r == -ENOENT ? 0 : r; /* doctor tells: cgroup_root_counts_sockets() */
	}
	r = write_checked(dir, "memory.max", v);
	if (r < 0)
		return r;
	r = write_checked(dir, "memory.swap.max", 0);
	if (r == 0 || r == -ENOENT)
		r = write_checked(dir, "memory.oom.group", l->oom_group);
	return r == -ENOENT ? 0 : r;
}

static int set_cpu(const struct tree *t, int dir, const struct cgroup_limits *l)
{
	uint64_t quota = (uint64_t)l->cpu_milli * PERIOD_US / 1000;
	char want[64], is[64];
	int r;

	if (t->version == 1) {
		r = write_checked(dir, "cpu.cfs_period_us", PERIOD_US);
		return r < 0 ? r : write_checked(dir, "cpu.cfs_quota_us", quota);
	}
	(void)snprintf(want, sizeof(want), "%llu %d\n", (unsigned long long)quota, PERIOD_US);
	r = write_text(dir, "cpu.max", want);
	if (r < 0)
		return r;
	r = (int)sys_read_file(dir, "cpu.max", is, sizeof(is));
	return r < 0 ? r : strcmp(want, is) == 0 ? 0 : -ERANGE;
}

static int set_pids(const struct tree *t, int dir, const struct cgroup_limits *l)
{
	(void)t;
	return write_checked(dir, "pids.max", l->pids);
}

int cgroup_set(struct cgroup *c, const struct cgroup_limits *l, unsigned *ret_failed)
{
	const struct {
		unsigned limit;
		bool wanted;
		int (*set)(const struct tree *t, int dir, const struct cgroup_limits *l);
	} steps[] = {
		{CGROUP_MEMORY, l->memory_bytes != 0, set_memory},
		{CGROUP_CPU, l->cpu_milli != 0, set_cpu},
		{CGROUP_PIDS, l->pids != 0, set_pids},
	};
	int first = 0;

	*ret_failed = 0;
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		int dir = -1, r;
		const struct tree *t = tree_of(c, steps[i].limit, &dir);

		if (!steps[i].wanted)
			continue;
		r = t ? steps[i].set(t, dir, l) : -EOPNOTSUPP;
		if (r < 0) {
			*ret_failed |= steps[i].limit;
			first = first ? first : r;
		}
	}
	return first;
}

/* ---- use ---- */

static uint64_t no_limit_is_0(uint64_t v)
{
	return v >= INT64_MAX / 4096 * 4096 ? 0 : v; /* v1 says "none" with the largest page-rounded number */
}

static void use_memory(struct cgroup *c, struct cgroup_usage *ret)
{
	int dir = -1;
	const struct tree *t = tree_of(c, CGROUP_MEMORY, &dir);
	bool v1 = t && t->version == 1;
	uint64_t sockets = 0;

	if (!t)
		return;
	(void)read_u64(dir, v1 ? "memory.usage_in_bytes" : "memory.current", &ret->memory_bytes);
	if (v1 && read_u64(dir, sockets_usage, &sockets) == 0)
		ret->memory_bytes += sockets;
	(void)read_u64(dir, v1 ? "memory.limit_in_bytes" : "memory.max", &ret->memory_max_bytes);
	(void)read_key(dir, v1 ? "memory.oom_control" : "memory.events", "oom_kill", &ret->oom_kills);
	ret->memory_max_bytes = no_limit_is_0(ret->memory_max_bytes);
}

int cgroup_oom_fd(struct cgroup *c)
{
	int dir = -1;
	const struct tree *t = tree_of(c, CGROUP_MEMORY, &dir);

	if (!t)
		return -EOPNOTSUPP;
	return sys_openat(dir, t->version == 1 ? "memory.oom_control" : "memory.events", O_RDONLY, 0);
}

static void use_cpu(struct cgroup *c, struct cgroup_usage *ret)
{
	uint64_t ns;

	if (has_v2(c)) {
		(void)read_key(c->dirs[0], "cpu.stat", "usage_usec", &ret->cpu_us);
		return;
	}
	for (unsigned i = 0; i < c->root->n; i++)
		if (c->root->trees[i].counts_cpu && read_u64(c->dirs[i], "cpuacct.usage", &ns) == 0)
			ret->cpu_us = ns / NS_PER_US;
}

int cgroup_usage(struct cgroup *c, struct cgroup_usage *ret)
{
	int dir = -1;

	*ret = (struct cgroup_usage){0};
	use_memory(c, ret);
	use_cpu(c, ret);
	if (tree_of(c, CGROUP_PIDS, &dir)) {
		(void)read_u64(dir, "pids.current", &ret->pids);
		(void)read_u64(dir, "pids.max", &ret->pids_max);
		ret->pids_max = no_limit_is_0(ret->pids_max);
	}
	return 0;
}

/* ---- ending ---- */

int cgroup_kill(struct cgroup *c)
{
	return c->dirs[0] < 0 ? 0 : kill_group(c->root->trees[0].dir, c->name, 0);
}

/* Through the descriptor that is polled: reading it arms the next event. */
int cgroup_is_populated(struct cgroup *c)
{
	char text[128];
	ssize_t n;

	if (!has_v2(c))
		return has_processes(c->dirs[0]);
	n = sys_pread(c->events, text, sizeof(text) - 1, 0);
	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return strstr(text, "populated 0") == NULL;
}

int cgroup_events_fd(struct cgroup *c)
{
	return c->events;
}

int cgroup_delegate(struct cgroup *c, uid_t uid, gid_t gid)
{
	static const char *const files[] = {"cgroup.procs", "cgroup.threads", "cgroup.subtree_control"};
	AUTO_CLOSE int fd = -1;
	int r;

	if (!has_v2(c))
		return -EOPNOTSUPP;
	fd = sys_openat(c->dirs[0], ".", O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd;
	r = write_u64(fd, "cgroup.max.depth", CGROUP_DEPTH_MAX);
	if (r == 0)
		r = write_u64(fd, "cgroup.max.descendants", DESCENDANTS_MAX);
	for (size_t i = 0; i < ARRAY_LEN(files) && r == 0; i++)
		r = SYS_CALL(fchownat(fd, files[i], uid, gid, 0));
	if (r == 0)
		r = SYS_CALL(fchown(fd, uid, gid));
	return r < 0 ? r : take_fd(&fd);
}
