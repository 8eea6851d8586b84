/* keeper/doctor.c - a table of checks over a measured host */
#include "keeper/doctor.h"
#include <fcntl.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "base/macro.h"
#include "base/str.h"
#include "base/unit.h"
#include "keeper/host.h"
#include "sys/cgroup.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/process.h"

enum { FOUND_MAX = HOST_REASON_MAX + 64, REPORT_MAX = 1 << 16, PROC_FILE_MAX = 1 << 16, ROWS = 4 };

enum verdict { CHECK_OK, CHECK_WEAK, CHECK_MISSING, CHECK_VERDICT_N };

static const char *const verdict_names[CHECK_VERDICT_N] = {"ok", "weak", "missing"};

struct check {
	const char *name, *why, *type;
	/* Fills @found with what is there. */
	enum verdict (*look)(const struct check *c, const struct host *h, char found[FOUND_MAX]);
	/* What to type in this host's case; NULL: nothing typed would help. Not set: @type. */
	const char *(*advise)(const struct host *h);
	unsigned limit;	      /* of look_limit() */
	const char *file;     /* of look_tool() and look_file() */
	const char *good;     /* of look_file(): what it should hold */
};

/* ---- looking ---- */

[[gnu::format(printf, 2, 3)]] static void say(char found[FOUND_MAX], const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(found, FOUND_MAX, fmt, ap);
	va_end(ap);
}

static enum verdict look_kvm(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)c;
	if (h->kvm.usable) {
		say(found, "%.0f million kernel-mode loops/s", (double)h->kvm.loops_per_s / 1e6);
		return CHECK_OK;
	}
	say(found, "%s", h->kvm.reason);
	return CHECK_WEAK; /* emulation stands in */
}

static bool cpu_virtualises(void)
{
	AUTO_FREE char *text = calloc(1, PROC_FILE_MAX);

	if (!text || sys_read_file(AT_FDCWD, "/proc/cpuinfo", text, PROC_FILE_MAX) < 0)
		return false;
	return strstr(text, " vmx") || strstr(text, " svm");
}

static const char *advise_kvm(const struct host *h)
{
	(void)h;
	if (access("/dev/kvm", F_OK) == 0 && access("/dev/kvm", R_OK | W_OK) < 0)
		return "usermod -aG kvm NAME (as root; you as NAME), then log in again";
	if (access("/dev/kvm", F_OK) == 0)
		return NULL; /* it is there, and no good: the reason says why */
	if (cpu_virtualises())
		return "modprobe kvm_intel || modprobe kvm_amd";
	return "nothing here: enable virtualisation in the firmware; in a virtual machine, in its host";
}

static const char *advise_process(const struct host *h)
{
	return h->root ? NULL : "sudo hotcell doctor";
}

static enum verdict look_qemu(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)c;
	say(found, "%s", h->has_qemu ? h->qemu.version : h->qemu_reason);
	return h->has_qemu ? CHECK_OK : CHECK_MISSING;
}

static enum verdict look_process(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)c;
	say(found, "%s", h->process ? "a trial jail was built" : h->process_reason);
	return h->process ? CHECK_OK : CHECK_MISSING;
}

static enum verdict look_limit(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	if (!h->groups) {
		say(found, "%s", h->groups_reason);
		return CHECK_MISSING;
	}
	if (!(h->limits & c->limit)) {
		say(found, "no controller for it");
		return CHECK_MISSING;
	}
	say(found, "cgroup v%s", cgroup_root_version(h->groups) == 12  ? "1, killing by v2"
				 : cgroup_root_version(h->groups) == 2 ? "2"
								       : "1");
	return CHECK_OK;
}

static enum verdict look_landlock(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	int abi = landlock_abi();

	(void)c;
	(void)h;
	if (abi == 0) {
		say(found, "not in this kernel, or not switched on");
		return CHECK_WEAK;
	}
	if (abi < LANDLOCK_LINKS) {
		say(found, "ABI %d: sandboxes have it, the daemon goes on without (Linux 5.19)", abi);
		return CHECK_WEAK;
	}
	say(found, "ABI %d", abi);
	return CHECK_OK;
}

static enum verdict look_seccomp(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)c;
	(void)h;
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0) {
		say(found, "not in this kernel");
		return CHECK_MISSING;
	}
	say(found, "filters");
	return CHECK_OK;
}

static enum verdict look_user_namespaces(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	char text[32] = "?";

	(void)c;
	(void)h;
	(void)sys_read_file(AT_FDCWD, "/proc/sys/user/max_user_namespaces", text, sizeof(text));
	text[strcspn(text, "\n")] = '\0';
	say(found, "%s at most", text);
	return strcmp(text, "0") == 0 || strcmp(text, "?") == 0 ? CHECK_MISSING : CHECK_OK;
}

static enum verdict look_memory(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	AUTO_FREE char *text = calloc(1, PROC_FILE_MAX);
	const char *line = NULL;
	char size[UNIT_TEXT];
	uint64_t bytes;

	(void)c;
	(void)h;
	if (text && sys_read_file(AT_FDCWD, "/proc/meminfo", text, PROC_FILE_MAX) > 0)
		line = strstr(text, "MemAvailable:");
	if (!line) {
		say(found, "/proc/meminfo does not say");
		return CHECK_WEAK;
	}
	bytes = strtoull(line + strlen("MemAvailable:"), NULL, 10) * KIB;
	unit_format_bytes(bytes, size);
	say(found, "%s available", size);
	return bytes < GIB ? CHECK_WEAK : CHECK_OK;
}

static bool in_path(const char *tool)
{
	const char *path = getenv("PATH");
	AUTO_FREE char *dirs = NULL;
	char *save = NULL;

	/* the folders of root's tools as well: a user's PATH often lacks them */
	if (asprintf(&dirs, "%s:/usr/sbin:/sbin", path ? path : "/usr/bin:/bin") < 0) {
		dirs = NULL;
		return false;
	}
	for (char *dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
		char file[HOST_PATH_MAX];

		(void)snprintf(file, sizeof(file), "%s/%s", dir, tool);
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

static enum verdict look_tool(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)h;
	if (in_path(c->file)) {
		say(found, "installed");
		return CHECK_OK;
	}
	say(found, "%s is not installed", c->file);
	return CHECK_MISSING;
}

static enum verdict look_device(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)h;
	if (access(c->file, F_OK) == 0) {
		say(found, "%s", c->file);
		return CHECK_OK;
	}
	say(found, "%s is absent", c->file);
	return CHECK_WEAK;
}

/* What is in use by sockets: bounded with the sandbox's memory, beside it, or not at all. */
static enum verdict look_sockets(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	(void)c;
	if (!h->groups || !(h->limits & CGROUP_MEMORY)) {
		say(found, "no memory controller");
		return CHECK_MISSING;
	}
	if (!cgroup_root_counts_sockets(h->groups)) {
		say(found, "cgroup v1 without memory.kmem.tcp: what sandboxes leave unread in sockets is the host's");
		return CHECK_WEAK;
	}
	say(found, "%s", cgroup_root_version(h->groups) == 2 ? "part of it" : "cgroup v1: a quarter of it, on top");
	return CHECK_OK;
}

/* A process wall's programs crash on the host's kernel, and so does QEMU. */
static enum verdict look_core_pattern(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	char text[256];

	(void)h;
	if (sys_read_file(AT_FDCWD, c->file, text, sizeof(text)) < 0) {
		say(found, "not in this kernel");
		return CHECK_OK;
	}
	text[strcspn(text, "\n")] = '\0';
	say(found, "%s", text);
	return text[0] == '|' ? CHECK_WEAK : CHECK_OK;
}

/* Daemon and keeper go last when memory runs out: asked of a child, so that nobody keeps the score. */
static enum verdict look_oom_score(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	struct sys_exit how = {.code = 1};
	int pidfd = -1;
	pid_t pid;

	(void)c;
	(void)h;
	pid = sys_clone(0, -1, &pidfd);
	if (pid == 0)
		_exit(sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", "-950") < 0);
	if (pid > 0)
		(void)sys_pidfd_wait(pidfd, &how);
	(void)sys_close(pidfd);
	if (pid > 0 && how.code == 0) {
		say(found, "may be lowered");
		return CHECK_OK;
	}
	say(found, "no CAP_SYS_RESOURCE: out of memory, the kernel may kill daemon or keeper, with the keeper every "
		   "sandbox; programs in process sandboxes may choose the keeper's own score");
	return CHECK_WEAK;
}

/* A setting that weakens walls between tenants when it has another value. */
static enum verdict look_setting(const struct check *c, const struct host *h, char found[FOUND_MAX])
{
	char text[64];

	(void)h;
	if (sys_read_file(AT_FDCWD, c->file, text, sizeof(text)) < 0) {
		say(found, "not in this kernel");
		return CHECK_OK;
	}
	text[strcspn(text, "\n")] = '\0';
	say(found, "%s", text);
	return strcmp(text, c->good) == 0 ? CHECK_OK : CHECK_WEAK;
}

static const struct check checks[] = {
	{"kvm", "machines at the processor's speed",
	 NULL, look_kvm, .advise = advise_kvm},
	{"qemu", "runs machines with a kernel of their own",
	 "apt-get install qemu-system-x86", look_qemu},
	{"process wall", "sandboxes without a kernel of their own, as root",
	 NULL, look_process, .advise = advise_process},
	{"memory limit", "a sandbox can't take the host's memory",
	 "boot with cgroup v2 and its memory controller", look_limit, .limit = CGROUP_MEMORY},
	{"cpu limit", "a sandbox can't take the host's processors",
	 "boot with cgroup v2 and its cpu controller", look_limit, .limit = CGROUP_CPU},
	{"pids limit", "a fork bomb stays inside",
	 "boot with cgroup v2 and its pids controller", look_limit, .limit = CGROUP_PIDS},
	{"user namespaces", "root inside is nobody outside",
	 "sysctl -w user.max_user_namespaces=65536", look_user_namespaces},
	{"seccomp", "the system calls a sandbox may make",
	 "use a kernel with CONFIG_SECCOMP_FILTER", look_seccomp},
	{"landlock", "a second layer around files",
	 "boot with lsm=landlock,...", look_landlock},
	{"memory", "every running sandbox takes some",
	 "free memory, or use smaller sandboxes", look_memory},
	{"tun", "networks for machines",
	 "modprobe tun", look_device, .file = "/dev/net/tun"},
	{"smt", "siblings of a core share caches with other tenants",
	 "echo off > /sys/devices/system/cpu/smt/control", look_setting,
	 .file = "/sys/devices/system/cpu/smt/active", .good = "0"},
	{"page sharing", "merged pages tell tenants about each other",
	 "echo 2 > /sys/kernel/mm/ksm/run", look_setting, .file = "/sys/kernel/mm/ksm/run", .good = "0"},
	{"socket memory", "a sandbox can't take the host's memory by what it leaves unread",
	 "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)", look_sockets},
	{"core handler", "it runs as root; sandboxes, QEMU and keeper never start it, the daemon may",
	 "sysctl -w kernel.core_pattern=core", look_core_pattern, .file = "/proc/sys/kernel/core_pattern"},
	{"oom score", "daemon and keeper outlive a lack of memory",
	 "run hotcelld as root with CAP_SYS_RESOURCE (containers: --cap-add SYS_RESOURCE)", look_oom_score},
	{"mmdebstrap", "builds templates",
	 "apt-get install mmdebstrap", look_tool, .file = "mmdebstrap"},
	{"mke2fs", "makes disks",
	 "apt-get install e2fsprogs", look_tool, .file = "mke2fs"},
	{"zstd", "unpacks kernels",
	 "apt-get install zstd", look_tool, .file = "zstd"},
	{"lz4", "unpacks kernels",
	 "apt-get install lz4", look_tool, .file = "lz4"},
	{"kmod", "orders kernel modules",
	 "apt-get install kmod", look_tool, .file = "modinfo"},
};

/* ---- who may run what, and which limits hold ---- */

struct row {
	const char *who, *driver, *wall;
	char limits[64], why[FOUND_MAX];
	bool works;
};

static void join_limits(unsigned limits, char ret[64])
{
	(void)snprintf(ret, 64, "%s%s%sdisk", limits & CGROUP_MEMORY ? "memory " : "",
		       limits & CGROUP_CPU ? "cpu " : "", limits & CGROUP_PIDS ? "pids " : "");
}

static void row_of_user(const struct host *h, struct row *ret)
{
	if (h->root) {
		(void)snprintf(ret->limits, sizeof(ret->limits), "disk");
		say(ret->why, "memory, cpu and pids only where a cgroup v2 is delegated: run doctor as that user");
	}
}

/* The rows that hold on this host; the mode that is not ours is told from what is known. */
static size_t build_matrix(const struct host *h, struct row ret[ROWS])
{
	static const char *const who[] = {"root", "user"};
	size_t n = 0;

	for (size_t w = 0; w < ARRAY_LEN(who); w++)
		for (int process = 0; process < 2; process++) {
			struct row *row = &ret[n++];
			bool rooted = w == 0;

			*row = (struct row){
				.who = who[w],
				.driver = process ? "process" : "qemu",
				.wall = process ? "process" : h->kvm.usable ? "vm" : "vm-emulated",
				.works = process ? rooted && h->process : h->has_qemu,
			};
			join_limits(h->limits, row->limits);
			if (process && !rooted)
				say(row->why, "needs root");
			else if (rooted && !h->root)
				say(row->why, "not measured: run doctor as root");
			else if (!row->works)
				say(row->why, "%s", process ? h->process_reason : h->qemu_reason);
			else if (!rooted)
				row_of_user(h, row);
			row->works = row->works && !(rooted && !h->root);
		}
	return n;
}

/* ---- printing ---- */

static void add_text(struct str *out, const char *name, const char *text, bool last)
{
	str_addf(out, "\"%s\": ", name);
	str_add_json(out, text, strlen(text));
	str_add(out, last ? "" : ", ");
}

static void print_check(struct str *out, const struct check *c, enum verdict v, const char *found,
			const char *type, bool json)
{
	if (!json) {
		str_addf(out, "%-8s %-16s ", verdict_names[v], c->name);
		str_add_escaped(out, found, strlen(found));
		if (v != CHECK_OK)
			str_addf(out, "\n%26sfor: %s", "", c->why);
		if (v != CHECK_OK && type)
			str_addf(out, "\n%26stype: %s", "", type);
		str_add(out, "\n");
		return;
	}
	str_add(out, c == checks ? "\n    {" : ",\n    {");
	add_text(out, "name", c->name, false);
	add_text(out, "status", verdict_names[v], false);
	add_text(out, "found", found, false);
	add_text(out, "why", c->why, false);
	add_text(out, "type", type ? type : "", true);
	str_add(out, "}");
}

static void print_row(struct str *out, const struct row *r, bool first, bool json)
{
	if (!json) {
		str_addf(out, "%-24s %-8s %-12s %-4s %s", r->who, r->driver, r->wall, r->works ? "yes" : "no",
			 r->works ? r->limits : "");
		if (r->why[0]) {
			str_add(out, r->works ? " (" : "(");
			str_add_escaped(out, r->why, strlen(r->why));
			str_add(out, ")");
		}
		str_add(out, "\n");
		return;
	}
	str_add(out, first ? "\n    {" : ",\n    {");
	add_text(out, "who", r->who, false);
	add_text(out, "driver", r->driver, false);
	add_text(out, "wall", r->wall, false);
	str_addf(out, "\"works\": %s, ", r->works ? "true" : "false");
	add_text(out, "limits", r->works ? r->limits : "", false);
	add_text(out, "why", r->why, true);
	str_add(out, "}");
}

static void print_all(struct str *out, const struct host *h, bool json)
{
	struct row rows[ROWS];
	struct utsname u = {0};
	size_t n;

	(void)uname(&u);
	if (json)
		str_addf(out, "{\n  \"kernel\": \"%s\",\n  \"mode\": \"%s\",\n  \"tsc_khz\": %llu,\n  \"checks\": [",
			 u.release, h->root ? "root" : "user", (unsigned long long)h->tsc_khz);
	else
		str_addf(out, "Linux %s, as %s\n\n", u.release, h->root ? "root" : "an ordinary user");
	for (size_t i = 0; i < ARRAY_LEN(checks); i++) {
		char found[FOUND_MAX] = "";
		enum verdict v = checks[i].look(&checks[i], h, found);

		print_check(out, &checks[i], v, found, checks[i].advise ? checks[i].advise(h) : checks[i].type, json);
	}
	n = build_matrix(h, rows);
	str_add(out, json ? "\n  ],\n  \"matrix\": ["
			  : "\nwho                      driver   wall         runs limits that hold\n");
	for (size_t i = 0; i < n; i++)
		print_row(out, &rows[i], i == 0, json);
	if (json)
		str_add(out, "\n  ]\n}\n");
}

int doctor_print(const struct host_paths *p, bool json)
{
	struct str out = STR_INIT(REPORT_MAX);
	char groups[CGROUP_NAME_MAX];
	struct host h;
	int usable;

	(void)snprintf(groups, sizeof(groups), "hotcell-probe-%d", getpid());
	host_probe(p, groups, &h);
	print_all(&out, &h, json);
	usable = h.has_qemu || h.process;
	host_deinit(&h);
	(void)fputs(str_text(&out), stdout);
	str_deinit(&out);
	return usable ? 0 : 1;
}
