/* guest/info.c - guest.ping, guest.info, guest.processes */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/code.h"
#include "guest/file.h"
#include "guest/items.h"
#include "guest/session.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { PROC_TEXT = 8192, PIDS_MAX = LIMIT_PIDS_MAX };

static uint64_t uptime_ms(void)
{
	struct timespec ts = {0};

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / NS_PER_MS;
}

void guest_ping_call(struct agent *a, struct stream *s, const void *rec)
{
	struct rec_guest_health health = {
		.time_ns = sys_unix_ns(),
		.uptime_ms = uptime_ms(),
		.sessions = sessions_running(a->sessions),
		.generation = a->generation,
		.features = FILE_KNOWS_HOLES,
		.busy = sessions_left(a->sessions) + codes_busy(a->codes),
	};

	(void)rec;
	agent_answer(s, &rec_guest_health_type, &health, 0, NULL);
}

/* ---- guest.info ---- */

/* "Key:   123 kB" and the like; 0 when it is not there. */
static uint64_t number_after(const char *text, const char *key)
{
	const char *p = strstr(text, key);

	return p ? strtoull(p + strlen(key), NULL, 10) : 0;
}

static uint64_t memory_available_kib(int proc_fd)
{
	char text[PROC_TEXT];

	if (sys_read_file(proc_fd, "meminfo", text, sizeof(text)) < 0)
		return 0;
	return number_after(text, "MemAvailable:");
}

/* PRETTY_NAME of the guest's own file; the value, without its quotes. */
static void read_os(char *ret, size_t size)
{
	static const char key[] = "\nPRETTY_NAME=";
	struct span file;
	AUTO_FREE char *text = NULL;
	char *p;

	*ret = '\0';
	if (user_load("/etc/os-release", &file, NULL) < 0 || !file.n)
		return;
	text = mem_new(file.n + 2);
	text[0] = '\n';
	memcpy(text + 1, file.p, file.n);
	free((void *)file.p);
	p = strstr(text, key);
	if (!p)
		return;
	p += strlen(key);
	p += *p == '"';
	(void)snprintf(ret, size, "%.*s", (int)strcspn(p, "\"\n"), p);
}

static unsigned count_processes(const struct agent *a);

void guest_info_call(struct agent *a, struct stream *s, const void *rec)
{
	char os[256];
	struct utsname u = {0};
	struct sysinfo si = {0};
	struct statvfs vfs = {0};

	(void)rec;
	(void)uname(&u);
	(void)sysinfo(&si);
	(void)statvfs("/", &vfs);
	read_os(os, sizeof(os));
	struct rec_guest_info info = {
		.kernel = {u.release, strnlen(u.release, LIMIT_TEXT_SHORT)},
		.os = span_of(os),
		.hostname = {u.nodename, strnlen(u.nodename, LIMIT_TEXT_SHORT)},
		.cpus = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN),
		.memory_kib = si.totalram * si.mem_unit / KIB,
		.memory_free_kib = memory_available_kib(a->c.proc_fd),
		.disk_kib = vfs.f_blocks * vfs.f_frsize / KIB,
		.disk_free_kib = vfs.f_bavail * vfs.f_frsize / KIB,
		.uptime_ms = uptime_ms(),
		.load_milli = si.loads[0] * 1000 / (1 << SI_LOAD_SHIFT),
		.processes = count_processes(a),
		.agent = span_of(HOTCELL_VERSION),
	};
	agent_answer(s, &rec_guest_info_type, &info, 0, NULL);
}

/* ---- guest.processes: the numbers are the workload's own ---- */

static DIR *open_pids(const struct agent *a)
{
	int fd = sys_openat(a->reaper.proc_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d)
		(void)sys_close(fd);
	return d;
}

/* The next process but the reaper; 0: no more. */
static pid_t next_pid(DIR *d)
{
	struct dirent *ent;

	while ((ent = readdir(d)))
		if (isdigit((unsigned char)ent->d_name[0]) && atoi(ent->d_name) > 1)
			return atoi(ent->d_name);
	return 0;
}

static unsigned count_processes(const struct agent *a)
{
	DIR *d = open_pids(a);
	unsigned n = 0;

	while (d && next_pid(d))
		n++;
	if (d)
		(void)closedir(d);
	return n;
}

struct processes {
	int proc_fd; /* lent by the agent */
	pid_t *pids;
	size_t n, i;
	struct file_names names;
	char command[LIMIT_TEXT_MEDIUM + 1], state[2], user[LIMIT_TEXT_SHORT + 1];
};

static void processes_free(void *arg)
{
	struct processes *ps = arg;

	file_names_free(&ps->names);
	free(ps->pids);
	free(ps);
}

static ssize_t read_of(const struct processes *ps, pid_t pid, const char *file, char *ret,
		       size_t size)
{
	char path[64];
	AUTO_CLOSE int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%d/%s", pid, file);
	fd = sys_openat(ps->proc_fd, path, O_RDONLY, 0);
	n = fd < 0 ? fd : sys_read(fd, ret, size - 1);
	ret[MAX(n, 0)] = '\0';
	return n;
}

/* The arguments with blanks between them; a kernel's or dead process's name else. */
static void read_command(struct processes *ps, pid_t pid)
{
	ssize_t n = read_of(ps, pid, "cmdline", ps->command, sizeof(ps->command));

	while (n > 0 && ps->command[n - 1] == '\0')
		n--;
	for (ssize_t i = 0; i < n; i++)
		if (ps->command[i] == '\0')
			ps->command[i] = ' ';
	if (n <= 0) {
		n = read_of(ps, pid, "comm", ps->command, sizeof(ps->command));
		ps->command[strcspn(ps->command, "\n")] = '\0';
	}
}

/* utime and stime: fields 14 and 15 of stat, counted behind the name, which may hold anything. */
static uint64_t cpu_ms_of(const char *stat)
{
	const char *p = strrchr(stat, ')');
	unsigned long long user = 0, kernel = 0;
	long tick = sysconf(_SC_CLK_TCK);

	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &user,
			 &kernel) != 2)
		return 0;
	return (user + kernel) * 1000 / (uint64_t)tick;
}

static bool describe(struct processes *ps, pid_t pid, struct rec_process_info *ret)
{
	char status[PROC_TEXT], stat[1024];
	const char *state;
	struct span name;
	uint64_t uid;

	if (read_of(ps, pid, "status", status, sizeof(status)) <= 0 ||
	    read_of(ps, pid, "stat", stat, sizeof(stat)) <= 0)
		return false;
	read_command(ps, pid);
	state = strstr(status, "\nState:");
	ps->state[0] = state ? state[sizeof("\nState:\t") - 1] : '?';
	uid = number_after(status, "\nUid:");
	name = passwd_name_of(ps->names.passwd, (uint32_t)uid);
	if (!name.n) {
		(void)snprintf(ps->user, sizeof(ps->user), "%u", (unsigned)uid);
		name = span_of(ps->user);
	}
	*ret = (struct rec_process_info){
		.pid = (uint64_t)pid,
		.parent = number_after(status, "\nPPid:"),
		.user = name,
		.state = span_of(ps->state),
		.rss_kib = number_after(status, "\nVmRSS:"),
		.cpu_ms = cpu_ms_of(stat),
		.command = span_of(ps->command),
	};
	return true;
}

static int fill(void *arg, void *rec, struct err *e)
{
	struct processes *ps = arg;

	(void)e;
	for (; ps->i < ps->n; ps->i++)
		if (describe(ps, ps->pids[ps->i], rec))
			return ITEMS_ONE;
	return ITEMS_END;
}

static void advance(void *arg)
{
	struct processes *ps = arg;

	ps->i++;
}

static const struct items_source source = {&rec_process_info_type, fill, advance, processes_free};

void guest_processes_call(struct agent *a, struct stream *s, const void *rec)
{
	struct processes *ps = mem_new(sizeof(*ps));
	DIR *d = open_pids(a);
	pid_t pid;

	(void)rec;
	ps->proc_fd = a->reaper.proc_fd;
	ps->pids = mem_new(PIDS_MAX * sizeof(*ps->pids));
	while (d && ps->n < PIDS_MAX && (pid = next_pid(d)))
		ps->pids[ps->n++] = pid;
	if (d)
		(void)closedir(d);
	file_names_load(&ps->names);
	items_start(s, &source, ps);
}
