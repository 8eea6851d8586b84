/* sys/landlock.c - Landlock by raw system call: constants of newer kernels are spelled out */
#include "sys/landlock.h"
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/macro.h"
#include "sys/call_int.h"
#include "sys/fd.h"

/* Source: linux/landlock.h, Linux 6.12; the ABI in which each appeared is in brackets. */
enum {
	FS_EXECUTE = 1 << 0,
	FS_WRITE_FILE = 1 << 1,
	FS_READ_FILE = 1 << 2,
	FS_READ_DIR = 1 << 3,
	FS_CHANGE = 0x1ff0, /* remove, make_*: bits 4-12 */
	FS_REFER = 1 << 13,	/* [2] */
	FS_TRUNCATE = 1 << 14,	/* [3] */
	FS_IOCTL_DEV = 1 << 15, /* [5] */
	NET_TCP = 3,		/* bind, connect [4] */
	SCOPE_ALL = 3,		/* abstract sockets, signals [6] */
	FILE_ONLY = FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV,
	CREATE_VERSION = 1,
	RULE_PATH_BENEATH = 1,
};

struct ruleset {
	uint64_t fs, net, scoped;
};

struct [[gnu::packed]] path_beneath {
	uint64_t allowed;
	int32_t parent_fd;
};

/* What each ABI understands: bigger structs than it knows are refused when not zero. */
static uint64_t fs_of_abi(int abi)
{
	uint64_t fs = 0x1fff;

	if (abi >= 2)
		fs |= FS_REFER;
	if (abi >= 3)
		fs |= FS_TRUNCATE;
	if (abi >= 5)
		fs |= FS_IOCTL_DEV;
	return fs;
}

static size_t size_of_abi(int abi)
{
	return abi >= 6 ? sizeof(struct ruleset)
	     : abi >= 4 ? offsetof(struct ruleset, scoped)
			: offsetof(struct ruleset, net);
}

int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, CREATE_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

static int add(int set, const struct landlock_rule *rule, uint64_t handled)
{
	AUTO_CLOSE int fd = rule->path ? sys_open(rule->path, O_PATH) : sys_dup(rule->fd);
	struct path_beneath p = {.parent_fd = fd};
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (rule->may & LANDLOCK_MAY_READ)
		p.allowed |= FS_READ_FILE | FS_READ_DIR;
	if (rule->may & LANDLOCK_MAY_EXEC)
		p.allowed |= FS_EXECUTE;
	if (rule->may & LANDLOCK_MAY_WRITE)
		p.allowed |= FS_WRITE_FILE | FS_CHANGE | FS_REFER | FS_TRUNCATE | FS_IOCTL_DEV;
	p.allowed &= handled;
	if (!S_ISDIR(st.st_mode))
		p.allowed &= FILE_ONLY;
	return (int)SYS_CALL(syscall(SYS_landlock_add_rule, set, RULE_PATH_BENEATH, &p, 0));
}

int landlock_confine(const struct landlock_rule *rules, unsigned n, bool no_tcp)
{
	int abi = landlock_abi();
	struct ruleset rs = {
		.fs = fs_of_abi(abi),
		.net = abi >= 4 && no_tcp ? NET_TCP : 0,
		.scoped = abi >= 6 ? SCOPE_ALL : 0,
	};
	AUTO_CLOSE int set = -1;
	int r = 0;

	if (abi == 0)
		return 0;
	set = (int)SYS_CALL(syscall(SYS_landlock_create_ruleset, &rs, size_of_abi(abi), 0));
	if (set < 0)
		return set;
	for (unsigned i = 0; i < n && r == 0; i++)
		r = add(set, &rules[i], rs.fs);
	return r < 0 ? r : (int)SYS_CALL(syscall(SYS_landlock_restrict_self, set, 0));
}
