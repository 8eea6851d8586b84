/*
 * bin/hotcelld.c - the daemon: directories, lock, keeper, privileges, then the engine's loop
 *
 * Started as root it prepares what only root can, starts the keeper, and becomes
 * UID_BASE for good, before it reads a byte of any client or guest. Then, root's or not, it
 * confines itself: the files it works on, the system calls it makes, no programs. Machines
 * are the keeper's children: they stay when this process ends.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/err.h"
#include "base/id.h"
#include "base/macro.h"
#include "base/str.h"
#include "base/unit.h"
#include "client/place.h"
#include "client/start.h"
#include "driver/driver.h"
#include "engine/engine.h"
#include "image/disk.h"
#include "image/formatter.h"
#include "image/hash.h"
#include "image/store.h"
#include "loop/loop.h"
#include "snap/layers.h"
#include "snap/set.h"
#include "store/store.h"
#include "sys/caps.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "sys/landlock.h"
#include "sys/logfile.h"
#include "sys/seccomp.h"
#include "sys/sock.h"

enum {
	UID_BASE = 0x70000000,
	KEEPER_START_MS = 30000,
	OOM_SCORE = -900, /* after the machines, before the keeper */
	FILES_MAX = 65536,
	ACCEPTS_PER_EVENT = 16,
	EXIT_KEEPER_LOST = 3,
	DIR_MODE = 0700,
	RUN_MODE = 0755,
	TAIL_TEXT = 400,
	PING_MS_MIN = 100,
	PING_MS_MAX = 3600000,
};

#define ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define LOG_NAME  "hotcelld.log" /* as client/place.c calls it */
#define DB_FOLDER "db"

struct daemon {
	char state[PLACE_PATH], run[PLACE_PATH];
	uint64_t memory_budget_mb;
	bool heats, has_heats;
	uint64_t ping_ms; /* 0: not said */
	int ready_fd;
	bool is_root;
	unsigned uids[3];
	int state_fd, lock_fd, listen_fd, signal_fd;
	int guard_fd; /* the keeper we started ends when this closes before a byte came; -1: it was there */
	struct formatter *formatter;
	struct loop *loop;
	struct store *store;
	struct engine *engine;
	struct loop_io listen_io, signal_io;
	struct loop_timer accept_timer;
	int exit_code;
};

/* ---- every way to run a sandbox, and the word for it ---- */

static const struct engine_wall walls[] = {
	{&driver_qemu, "vm"},
	{&driver_process, "process"},
	{NULL, NULL},
};

/* ---- what the engine needs of the host ---- */

static int host_image_open(void *arg, const char *ref, struct image *ret, struct err *e)
{
	const struct daemon *d = arg;

	return image_open(d->state_fd, ref, ret, e);
}

static int host_disk_make(void *arg, const char *id, uint64_t size_mb, int *ret_fd, struct err *e)
{
	const struct daemon *d = arg;

	return disk_make(d->state_fd, d->formatter, id, size_mb, ret_fd, e);
}

static int host_disk_remove(void *arg, const char *id, struct err *e)
{
	const struct daemon *d = arg;
	struct id which;

	if (id_parse(id, strlen(id), &which) < 0)
		return err_set(e, ERR_INVALID, "a sandbox can't have this id");
	return layers_remove(d->state_fd, &which, e);
}

static int host_layers_open(void *arg, const struct id *id, struct layers *ret, struct err *e)
{
	const struct daemon *d = arg;

	return layers_open(d->state_fd, id, ret, e);
}

static int host_layers_add(void *arg, const struct id *id, unsigned n, uint64_t bytes, int *ret_fd, struct err *e)
{
	const struct daemon *d = arg;

	return layers_add(d->state_fd, id, n, bytes, ret_fd, e);
}

static int host_layers_flatten(void *arg, const struct id *id, unsigned n, struct err *e)
{
	const struct daemon *d = arg;

	return layers_flatten(d->state_fd, id, n, e);
}

static int host_layers_seal(void *arg, const struct id *id, unsigned n, struct err *e)
{
	const struct daemon *d = arg;

	return layers_seal(d->state_fd, id, n, e);
}

static int host_layers_drop(void *arg, const struct id *id, unsigned n, struct err *e)
{
	const struct daemon *d = arg;

	return layers_drop(d->state_fd, id, n, e);
}

static int host_layers_link(void *arg, const char *from, unsigned n, const struct id *to, uint64_t bytes,
			    struct layers *ret, struct err *e)
{
	const struct daemon *d = arg;

	return layers_link(d->state_fd, from, n, to, bytes, ret, e);
}

static int host_layers_rollback(void *arg, const struct id *id, const struct id *set, unsigned n, uint64_t bytes,
				struct layers *ret, struct err *e)
{
	const struct daemon *d = arg;

	return layers_rollback(d->state_fd, id, set, n, bytes, ret, e);
}

static int host_set_save(void *arg, struct snap_manifest *m, int memory_fd, int state_fd, const char *layers_from,
			 struct err *e)
{
	const struct daemon *d = arg;

	return snap_save(d->state_fd, m, memory_fd, state_fd, layers_from, e);
}

static int host_set_load(void *arg, const struct id *id, struct snap_set *ret, struct err *e)
{
	const struct daemon *d = arg;

	return snap_load(d->state_fd, id, ret, e);
}

static int host_set_disk_check(void *arg, const struct id *id, struct err *e)
{
	const struct daemon *d = arg;

	return snap_disk_check(d->state_fd, id, e);
}

static int host_set_remove(void *arg, const struct id *id, struct err *e)
{
	const struct daemon *d = arg;

	return snap_remove(d->state_fd, id, e);
}

static int host_set_each(void *arg,
			 void (*each)(void *each_arg, const struct id *id, const struct snap_manifest *m,
				      const struct err *why),
			 void *each_arg, struct err *e)
{
	const struct daemon *d = arg;
	int r = snap_sweep(d->state_fd, e);

	if (r == 0)
		r = layers_sweep(d->state_fd, e);
	return r < 0 ? r : snap_each(d->state_fd, each, each_arg, e);
}

static int host_random(void *arg, void *p, size_t n)
{
	(void)arg;
	return sys_random(p, n);
}

static void host_close_fd(void *arg, int fd)
{
	(void)arg;
	(void)sys_close(fd);
}

/* One write per line, so that lines of several processes in one log stay whole. */
static void host_log(void *arg, const char *line)
{
	char text[4200];
	int n = snprintf(text, sizeof(text), "%s\n", line);

	(void)arg;
	logfile_write(STDERR_FILENO, LOG_NAME, LOGFILE_MAX, text, MIN((size_t)n, sizeof(text) - 1));
}

/* ---- arguments ---- */

static const char usage[] =
	"usage: hotcelld [options]\n"
	"The daemon. hotcell starts it when it is needed; it stays in the foreground.\n"
	"\n"
	"  --state DIR           images, records, disks (HOTCELL_STATE)\n"
	"  --run DIR             sockets and logs (HOTCELL_RUN)\n"
	"  --memory-budget SIZE  memory that may be promised to sandboxes, e.g. 8G\n"
	"                        (what is available at the start, less 512M)\n"
	"  --heat yes|no         make a template hot when a sandbox had to boot (HOTCELL_HEAT; yes)\n"
	"  --ping TIME           ask a guest whether it lives when its calls are silent this long;\n"
	"                        three times in vain, and it is unhealthy (HOTCELL_PING; 10s)\n"
	"  --ready-fd N          write one byte there when it serves\n"
	"  --version, --help\n";

static int copy_path(char *to, const char *from, const char *flag, struct err *e)
{
	if (*from != '/')
		return err_set(e, ERR_INVALID, "%s %s: must be an absolute path", flag, from);
	if (strlen(from) >= PLACE_PATH - 64)
		return err_set(e, ERR_LIMIT, "%s: longer than %d bytes", flag, PLACE_PATH - 64);
	(void)snprintf(to, PLACE_PATH, "%s", from);
	return 0;
}

static int set_heats(struct daemon *d, const char *word, struct err *e)
{
	if (!str_eq(word, "yes") && !str_eq(word, "no"))
		return err_set(e, ERR_INVALID, "--heat (HOTCELL_HEAT): yes or no, not %s", word);
	d->heats = str_eq(word, "yes");
	d->has_heats = true;
	return 0;
}

static int set_ping(struct daemon *d, const char *word, struct err *e)
{
	if (unit_parse_ms(word, &d->ping_ms) < 0 || d->ping_ms < PING_MS_MIN || d->ping_ms > PING_MS_MAX)
		return err_set(e, ERR_INVALID, "--ping (HOTCELL_PING): a time from 100ms to 1h, not %s", word);
	return 0;
}

static int take_option(struct daemon *d, int option, struct err *e)
{
	uint64_t n = 0;

	switch (option) {
	case 's': return copy_path(d->state, optarg, "--state", e);
	case 'r': return copy_path(d->run, optarg, "--run", e);
	case 'm':
		if (unit_parse_bytes(optarg, &n) < 0 || n < MIB)
			return err_set(e, ERR_INVALID, "--memory-budget %s: a size such as 8G",
				       optarg);
		d->memory_budget_mb = n / MIB;
		return 0;
	case 'H': return set_heats(d, optarg, e);
	case 'p': return set_ping(d, optarg, e);
	case 'f':
		if (str_to_u64(optarg, 0, 65535, &n) < 0)
			return err_set(e, ERR_INVALID, "--ready-fd %s: a descriptor number", optarg);
		d->ready_fd = (int)n;
		return 0;
	case 'h': (void)fputs(usage, stdout); exit(0);
	case 'v': (void)puts("hotcelld " HOTCELL_VERSION); exit(0);
	}
	return err_set(e, ERR_INVALID, "unknown option; see hotcelld --help");
}

static int read_arguments(struct daemon *d, int argc, char **argv, struct err *e)
{
	static const struct option options[] = {
		{"state", required_argument, NULL, 's'},
		{"run", required_argument, NULL, 'r'},
		{"memory-budget", required_argument, NULL, 'm'},
		{"heat", required_argument, NULL, 'H'},
		{"ping", required_argument, NULL, 'p'},
		{"ready-fd", required_argument, NULL, 'f'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	int option, r = 0;

	opterr = 0;
	while (r == 0 && (option = getopt_long(argc, argv, "", options, NULL)) >= 0)
		r = take_option(d, option, e);
	if (r == 0 && optind < argc)
		r = err_set(e, ERR_INVALID, "%s: no such argument; see hotcelld --help", argv[optind]);
	if (r == 0 && !d->has_heats)
		r = set_heats(d, getenv("HOTCELL_HEAT") ?: "yes", e);
	if (r == 0 && !d->ping_ms && getenv("HOTCELL_PING"))
		r = set_ping(d, getenv("HOTCELL_PING"), e);
	return r;
}

static int find_places(struct daemon *d, struct err *e)
{
	struct place place;
	int r = 0;

	if (!d->state[0])
		r = place_state(d->state, sizeof(d->state), e);
	else if (setenv("HOTCELL_STATE", d->state, 1) < 0) /* the run directory follows it */
		r = err_sys(e, -errno, "note the state directory");
	if (r == 0 && !d->run[0]) {
		r = place_find(NULL, &place, e);
		(void)snprintf(d->run, sizeof(d->run), "%s", place.run);
	}
	if (r == 0 && (setenv("HOTCELL_STATE", d->state, 1) < 0 || setenv("HOTCELL_RUN", d->run, 1) < 0))
		r = err_sys(e, -errno, "tell the keeper where things are");
	return r;
}

/* ---- directories, lock, socket ---- */

/*
 * A folder of the daemon's own in the state directory, whose other inhabitants are root's. Owner and mode
 * go to what was opened, and a link is not opened.
 */
static int make_dir(const struct daemon *d, const char *name, struct err *e)
{
	char path[PLACE_PATH + 32];
	AUTO_CLOSE int fd = -1;
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", d->state, name);
	r = sys_mkdir(AT_FDCWD, path, DIR_MODE);
	if (r == 0)
		r = fd = sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (r >= 0 && d->is_root && (fchown(fd, UID_BASE, UID_BASE) < 0 || fchmod(fd, DIR_MODE) < 0))
		r = -errno;
	if (r == -EEXIST || r == -ENOTDIR || r == -ELOOP)
		return err_set(e, ERR_DENIED, "%s is a link or no directory: remove it, or move it away", path);
	return r < 0 ? err_sys(e, r, "make the directory %s", path) : 0;
}

/* The user we are going to be must get through to the keeper's socket, whatever umask made the directory. */
static int open_run(const struct daemon *d, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;

	if (!d->is_root)
		return 0;
	fd = sys_open(d->run, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return err_sys(e, fd, "open the directory %s", d->run);
	if (fstat(fd, &st) < 0 || fchmod(fd, (st.st_mode & 07777) | RUN_MODE) < 0)
		return err_sys(e, -errno, "let others search the directory %s", d->run);
	return 0;
}

/* Can the user we are going to be reach our files? Asked before anything is started. */
static int check_reach(const struct daemon *d, struct err *e)
{
	char path[PLACE_PATH + 32];
	AUTO_CLOSE int fd = -1;

	(void)snprintf(path, sizeof(path), "%s/" DB_FOLDER, d->state);
	if (d->is_root)
		(void)setfsuid(UID_BASE);
	fd = sys_open(path, O_RDONLY | O_DIRECTORY);
	if (d->is_root)
		(void)setfsuid(0);
	if (fd < 0)
		return err_sys(e, fd, "user %d cannot open %s; each directory above it must be searchable "
			       "for all (chmod a+x)", d->is_root ? UID_BASE : (int)geteuid(), path);
	return 0;
}

static int make_dirs(struct daemon *d, struct err *e)
{
	static const char *const own[] = {DB_FOLDER, SANDBOXES_FOLDER, SNAPSHOTS_FOLDER};
	int r = place_claim(d->run, "HOTCELL_RUN", e);

	if (r == 0)
		r = open_run(d, e);
	if (r == 0)
		r = place_claim(d->state, "HOTCELL_STATE", e);
	for (size_t i = 0; i < ARRAY_LEN(own) && r == 0; i++)
		r = make_dir(d, own[i], e);
	if (r == 0)
		r = check_reach(d, e);
	if (r < 0)
		return r;
	d->state_fd = sys_open(d->state, O_RDONLY | O_DIRECTORY);
	return d->state_fd < 0 ? err_sys(e, d->state_fd, "open %s", d->state) : 0;
}

static int take_lock(struct daemon *d, struct err *e)
{
	char path[PLACE_PATH + 32];
	int r;

	(void)snprintf(path, sizeof(path), "%s/hotcelld.lock", d->run);
	d->lock_fd = sys_create(path, O_RDWR | O_NOFOLLOW, 0600);
	if (d->lock_fd < 0)
		return err_sys(e, d->lock_fd, "open %s", path);
	r = sys_lock(d->lock_fd);
	if (r == -EAGAIN)
		return err_set(e, ERR_CONFLICT, "another hotcelld runs already (it holds %s)", path);
	return r < 0 ? err_sys(e, r, "lock %s", path) : 0;
}

static int open_socket(struct daemon *d, struct err *e)
{
	char path[PLACE_PATH + 32];

	(void)snprintf(path, sizeof(path), "%s/hotcelld.sock", d->run);
	d->listen_fd = sys_unix_listen(path, 0600);
	return d->listen_fd < 0 ? err_sys(e, d->listen_fd, "listen on %s", path) : 0;
}

/* ---- the keeper ---- */

static void keeper_socket(const struct daemon *d, char ret[PLACE_PATH + 32])
{
	(void)snprintf(ret, PLACE_PATH + 32, "%s/keeper/keeper.sock", d->run);
}

static bool keeper_answers(const struct daemon *d)
{
	char path[PLACE_PATH + 32];
	AUTO_CLOSE int fd = -1;

	keeper_socket(d, path);
	fd = sys_unix_connect(path);
	return fd >= 0;
}

/* Between fork and exec: its own session, its own log, nothing of ours but the ready pipe. */
static _Noreturn void become_keeper(const struct daemon *d, int log_fd, const char *program, int ready_fd, int guard_fd)
{
	/* The directories are in the environment too; here they tell whoever looks at processes which one it is. */
	const char *const argv[] = {"hotcell-keeper", "--state", d->state, "--run", d->run,
				    "--ready-fd", "3", "--guard-fd", "4", NULL};
	int from[] = {open("/dev/null", O_RDWR), log_fd, log_fd, ready_fd, guard_fd};

	if (setsid() < 0 || fork() != 0)
		_exit(0);
	/* Above them first, so that no dup2() overwrites what a later one needs. */
	for (size_t i = 0; i < ARRAY_LEN(from); i++)
		if ((from[i] = fcntl(from[i], F_DUPFD, ARRAY_LEN(from))) < 0)
			_exit(126);
	for (size_t i = 0; i < ARRAY_LEN(from); i++)
		if (dup2(from[i], (int)i) < 0)
			_exit(126);
	if (close_range(ARRAY_LEN(from), ~0u, 0) < 0)
		_exit(126);
	(void)execv(program, (char *const *)argv);
	_exit(127);
}

static int keeper_failed(const struct place *log, uint64_t log_start, struct err *e)
{
	char tail[TAIL_TEXT];

	start_log_tail(log, log_start, tail, sizeof(tail));
	return err_set(e, ERR_UNAVAILABLE, "hotcell-keeper ended at once%s%s; see %s",
		       tail[0] ? "; its last words: " : "", tail, log->log);
}

static int await_keeper(const struct place *log, uint64_t log_start, int fd, struct err *e)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char byte;
	int r;

	do
		r = poll(&p, 1, KEEPER_START_MS);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return err_set(e, ERR_TIMEOUT, "hotcell-keeper did not start within %d s; see %s",
			       KEEPER_START_MS / 1000, log->log);
	return sys_read(fd, &byte, 1) == 1 ? 0 : keeper_failed(log, log_start, e);
}

static int open_keeper_log(const struct daemon *d, struct place *ret, uint64_t *ret_start, struct err *e)
{
	struct stat st;
	int fd;

	(void)snprintf(ret->log, sizeof(ret->log), "%s/keeper.log", d->run);
	fd = sys_create(ret->log, O_WRONLY | O_APPEND | O_NOFOLLOW, 0640);
	if (fd < 0)
		return err_sys(e, fd, "open %s", ret->log);
	*ret_start = fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
	return fd;
}

static int start_keeper(struct daemon *d, struct err *e)
{
	char program[PLACE_PATH + 64];
	AUTO_CLOSE int ready_r = -1, ready_w = -1, guard_r = -1, log_fd = -1;
	int ends[2], r = place_program("hotcell-keeper", program, sizeof(program), e);
	uint64_t log_start = 0;
	struct place log;
	pid_t pid;

	if (r == 0)
		r = log_fd = open_keeper_log(d, &log, &log_start, e);
	if (r < 0)
		return r;
	r = sys_pipe(ends);
	if (r < 0)
		return err_sys(e, r, "start hotcell-keeper: pipe");
	ready_r = ends[0];
	ready_w = ends[1];
	r = sys_pipe(ends);
	if (r < 0)
		return err_sys(e, r, "start hotcell-keeper: pipe");
	guard_r = ends[0];
	d->guard_fd = ends[1];
	pid = fork();
	if (pid == 0)
		become_keeper(d, log_fd, program, ready_w, guard_r);
	ready_w = sys_close(ready_w);
	if (pid < 0)
		return err_sys(e, -errno, "start hotcell-keeper: fork");
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return await_keeper(&log, log_start, ready_r, e);
}

/* We serve: from here on it outlives us. */
static void keep_keeper(struct daemon *d)
{
	if (d->guard_fd >= 0)
		(void)!write(d->guard_fd, "k", 1);
	d->guard_fd = sys_close(d->guard_fd);
}

/* ---- privileges ---- */

/* More descriptors than connections and machines together will want. */
static void raise_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		return;
	l.rlim_cur = MIN(l.rlim_max, (rlim_t)FILES_MAX);
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

static void spare_from_oom(void)
{
	char text[16];

	(void)snprintf(text, sizeof(text), "%d", OOM_SCORE);
	(void)sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", text); /* a user may not: fine */
}

static int drop_root(struct err *e)
{
	int r = caps_bound(0);

	if (r < 0)
		return err_sys(e, r, "empty the capability bounding set");
	if (setgroups(0, NULL) < 0 || setresgid(UID_BASE, UID_BASE, UID_BASE) < 0 ||
	    setresuid(UID_BASE, UID_BASE, UID_BASE) < 0)
		return err_sys(e, -errno, "become user %d", UID_BASE);
	if (setuid(0) == 0 || seteuid(0) == 0)
		return err_set(e, ERR_INTERNAL, "root's powers could not be given up");
	return 0;
}

static int give_up_powers(const struct daemon *d, struct err *e)
{
	int r = d->is_root ? drop_root(e) : 0;

	if (r < 0)
		return r;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_sys(e, -errno, "give up privileges");
	return 0;
}

static int install(const struct seccomp_policy *p, struct err *e)
{
	AUTO_CLOSE int filter = -1;
	int r = seccomp_compile(p, &filter);

	if (r == 0)
		r = seccomp_install_all(filter);
	return r < 0 ? err_sys(e, r, "install the daemon's system call filter") : 0;
}

/*
 * Before the first thread, and before a byte of anybody's: what is left of this host to somebody who
 * finds a mistake in here. Written is below the daemon's own folders and nowhere else; templates are
 * read, nothing is executed.
 */
static int confine_files(const struct daemon *d, struct err *e)
{
	char paths[5][PLACE_PATH + 32];
	const struct landlock_rule rules[] = {
		{.fd = d->state_fd, .may = LANDLOCK_MAY_READ},
		{paths[0], LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{paths[1], LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{paths[2], LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{paths[3], LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{paths[4], LANDLOCK_MAY_READ | LANDLOCK_MAY_WRITE},
		{"/dev/urandom", LANDLOCK_MAY_READ},
		{"/proc/meminfo", LANDLOCK_MAY_READ},
		{"/sys/devices/system/cpu/online", LANDLOCK_MAY_READ}, /* sysconf() */
	};
	int r;

	(void)snprintf(paths[0], sizeof(paths[0]), "%s/" DB_FOLDER, d->state);
	(void)snprintf(paths[1], sizeof(paths[1]), "%s/" SANDBOXES_FOLDER, d->state);
	(void)snprintf(paths[2], sizeof(paths[2]), "%s/" SNAPSHOTS_FOLDER, d->state);
	(void)snprintf(paths[3], sizeof(paths[3]), "%s/" LOG_NAME, d->run);
	(void)snprintf(paths[4], sizeof(paths[4]), "%s/" LOG_NAME ".1", d->run);
	if (landlock_abi() < LANDLOCK_LINKS) {
		host_log(NULL, "hotcelld: this kernel has no Landlock that allows links between folders (Linux 5.19): "
			       "going on without; the system call filter holds");
		return 0;
	}
	r = landlock_confine(rules, ARRAY_LEN(rules), true);
	return r < 0 ? err_sys(e, r, "confine the daemon to its files") : 0;
}

static int confine(struct daemon *d, struct err *e)
{
	char disks[PLACE_PATH + 32], text[HASH_TEXT];
	int r;

	(void)snprintf(disks, sizeof(disks), "%s/" SANDBOXES_FOLDER, d->state);
	r = formatter_new(disks, &d->formatter, e);
	if (r == 0)
		r = hash_mem("", 0, text, e); /* libcrypto reads its settings while it may */
	if (r == 0)
		r = confine_files(d, e);
	return r < 0 ? r : install(&seccomp_daemon, e);
}

/* ---- the loop's sources ---- */

static void on_connection(struct loop_io *io, unsigned events);

static int listen_again(struct daemon *d)
{
	return loop_io_add(d->loop, &d->listen_io, d->listen_fd, LOOP_READ, on_connection);
}

static void on_accept_timer(struct loop_timer *t)
{
	struct daemon *d = CONTAINER_OF(t, struct daemon, accept_timer);

	if (listen_again(d) < 0)
		loop_timer_set(d->loop, t, loop_now(d->loop) + ACCEPT_PAUSE_NS, on_accept_timer);
}

/* Out of descriptors: the socket would report the same connection for ever, so look away a while. */
static void pause_accepting(struct daemon *d)
{
	loop_io_del(d->loop, &d->listen_io);
	loop_timer_set(d->loop, &d->accept_timer, loop_now(d->loop) + ACCEPT_PAUSE_NS, on_accept_timer);
}

static void greet(struct daemon *d, int fd)
{
	struct err e = ERR_INIT;
	uid_t uid;
	pid_t pid;

	if (sys_peer(fd, &pid, &uid) < 0)
		(void)sys_close(fd);
	else
		(void)engine_serve(d->engine, fd, uid, &e);
}

static void on_connection(struct loop_io *io, unsigned events)
{
	struct daemon *d = CONTAINER_OF(io, struct daemon, listen_io);
	int fd = 0;

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_EVENT && fd >= 0; i++) {
		fd = sys_accept(d->listen_fd);
		if (fd >= 0)
			greet(d, fd);
		else if (fd != -EAGAIN && fd != -ECONNABORTED)
			pause_accepting(d);
	}
}

static void on_signal(struct loop_io *io, unsigned events)
{
	struct daemon *d = CONTAINER_OF(io, struct daemon, signal_io);
	struct signalfd_siginfo info;

	(void)events;
	if (sys_read(d->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		loop_stop(d->loop);
}

static void on_ready(void *arg)
{
	struct daemon *d = arg;

	if (listen_again(d) < 0) {
		d->exit_code = 1;
		loop_stop(d->loop);
		return;
	}
	keep_keeper(d);
	if (d->ready_fd >= 0)
		(void)!write(d->ready_fd, "\n", 1);
	d->ready_fd = sys_close(d->ready_fd);
}

static void on_over(void *arg, const struct err *why)
{
	struct daemon *d = arg;

	if (why)
		d->exit_code = EXIT_KEEPER_LOST;
	loop_stop(d->loop);
}

static int watch_signals(struct daemon *d, struct err *e)
{
	sigset_t set;
	int r;

	(void)signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (d->signal_fd < 0)
		return err_sys(e, -errno, "signalfd");
	r = loop_io_add(d->loop, &d->signal_io, d->signal_fd, LOOP_READ, on_signal);
	return r < 0 ? err_sys(e, r, "watch signals") : 0;
}

/* ---- the engine ---- */

static void read_memory(uint64_t *ret_available_mb, uint64_t *ret_total_mb)
{
	char text[4096];
	unsigned long long kib;
	const char *p;

	if (sys_read_file(AT_FDCWD, "/proc/meminfo", text, sizeof(text)) < 0)
		return;
	p = strstr(text, "MemAvailable:");
	if (p && sscanf(p, "MemAvailable: %llu", &kib) == 1)
		*ret_available_mb = kib / 1024;
	p = strstr(text, "MemTotal:");
	if (p && sscanf(p, "MemTotal: %llu", &kib) == 1)
		*ret_total_mb = kib / 1024;
}

/*
 * An emulated kernel keeps a processor busy for seconds. Two for each, so that
 * other load on the host does not get all of the time between them.
 */
static unsigned boots_at_once(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n > 2 ? 2 * (unsigned)n : 4;
}

static int serve(struct daemon *d, struct err *e)
{
	const struct engine_host host = {
		.arg = d,
		.image_open = host_image_open,
		.disk_make = host_disk_make,
		.disk_remove = host_disk_remove,
		.layers_open = host_layers_open,
		.layers_add = host_layers_add,
		.layers_flatten = host_layers_flatten,
		.layers_seal = host_layers_seal,
		.layers_drop = host_layers_drop,
		.layers_link = host_layers_link,
		.layers_rollback = host_layers_rollback,
		.set_save = host_set_save,
		.set_load = host_set_load,
		.set_disk_check = host_set_disk_check,
		.set_remove = host_set_remove,
		.set_each = host_set_each,
		.random = host_random,
		.close_fd = host_close_fd,
		.log = host_log,
	};
	const struct engine_ops ops = {on_ready, on_over, d};
	char socket[PLACE_PATH + 32];
	struct engine_config config = {
		.loop = d->loop,
		.store = d->store,
		.host = &host,
		.walls = walls,
		.keeper_socket = socket,
		.version = HOTCELL_VERSION,
		.pid = getpid(),
		.memory_budget_mb = d->memory_budget_mb,
		.heats = d->heats,
		.ping_ms = d->ping_ms,
		.boots_max = boots_at_once(),
		.uids = d->uids,
		.n_uids = ARRAY_LEN(d->uids),
	};
	int r = store_epoch_next(d->store, &config.epoch, e);

	keeper_socket(d, socket);
	read_memory(&config.memory_available_mb, &config.memory_total_mb);
	if (r == 0)
		r = engine_new(&config, &ops, &d->engine, e);
	if (r == 0)
		r = engine_start(d->engine, e); /* connects to the keeper */
	if (r == 0)
		r = install(&seccomp_daemon_settled, e);
	if (r == 0 && loop_run(d->loop) < 0)
		r = err_set(e, ERR_INTERNAL, "the event loop failed");
	loop_timer_cancel(d->loop, &d->accept_timer);
	loop_io_del(d->loop, &d->listen_io); /* new clients wait for, or start, the next daemon */
	d->engine = engine_free(d->engine);
	return r;
}

static int open_store(struct daemon *d, struct err *e)
{
	char path[PLACE_PATH + 32];

	(void)snprintf(path, sizeof(path), "%s/" DB_FOLDER, d->state);
	return store_open(path, &d->store, e);
}

/* As root: whatever needs it. Afterwards: no way back. */
static int prepare(struct daemon *d, struct err *e)
{
	int r = find_places(d, e);

	if (r == 0)
		r = make_dirs(d, e);
	if (r == 0)
		r = take_lock(d, e);
	if (r == 0 && !keeper_answers(d))
		r = start_keeper(d, e);
	if (r == 0)
		r = open_socket(d, e);
	if (r < 0)
		return r;
	raise_files();
	spare_from_oom();
	/* May fail on a full disk: then a full log starts again without its older half. */
	(void)logfile_give(STDERR_FILENO, LOG_NAME, d->is_root ? UID_BASE : geteuid());
	return give_up_powers(d, e);
}

static int run(struct daemon *d, int argc, char **argv, struct err *e)
{
	int r = read_arguments(d, argc, argv, e);

	if (r == 0)
		r = prepare(d, e);
	(void)umask(077);
	if (r == 0)
		r = confine(d, e);
	if (r == 0)
		r = open_store(d, e);
	if (r < 0)
		return r;
	r = loop_new(false, &d->loop);
	if (r < 0)
		return err_sys(e, r, "make the event loop");
	r = watch_signals(d, e);
	if (r == 0)
		r = serve(d, e);
	loop_io_del(d->loop, &d->signal_io);
	d->loop = loop_free(d->loop);
	return r;
}

int main(int argc, char **argv)
{
	struct daemon d = {.ready_fd = -1,
			   .is_root = geteuid() == 0,
			   .uids = {0, getuid(), 0},
			   .state_fd = -1,
			   .lock_fd = -1,
			   .listen_fd = -1,
			   .signal_fd = -1,
			   .guard_fd = -1};
	struct err e = ERR_INIT;
	int r;

	(void)umask(022); /* whatever it was: directories and the keeper depend on it */
	d.uids[2] = d.is_root ? UID_BASE : getuid();
	r = run(&d, argc, argv, &e);
	store_close(d.store);
	d.formatter = formatter_free(d.formatter);
	(void)sys_close(d.guard_fd);
	(void)sys_close(d.signal_fd);
	(void)sys_close(d.listen_fd);
	(void)sys_close(d.lock_fd);
	(void)sys_close(d.state_fd);
	if (r < 0) {
		(void)fprintf(stderr, "hotcelld: %s\n", e.text);
		return 1;
	}
	return d.exit_code;
}
