/*
 * bin/hotcell_keeper.c - the keeper: parent of every machine, outlives the daemon
 *
 * Start: one keeper per run directory (a lock), sweep what a killed predecessor
 * left, measure the host, listen, drop what is not needed, serve. One thread.
 *
 * no_new_privs and the deny-list of system calls are set although children make
 * namespaces later: neither hinders that, both are inherited, and nothing here ever executes
 * a program that should gain by it.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "client/place.h"
#include "keeper/doctor.h"
#include "keeper/host.h"
#include "keeper/jail.h"
#include "keeper/keeper.h"
#include "keeper/klog.h"
#include "keeper/machines.h"
#include "keeper/server.h"
#include "loop/loop.h"
#include "sys/caps.h"
#include "sys/cgroup.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/seccomp.h"
#include "sys/sock.h"

enum {
	READY_SHELLS = 4,
	SWEEP_MS = 10000,
	LOCK_WAIT_MS = 5000,
	LOCK_LOOK_MS = 20,
	EXIT_USAGE = 2,
	LINGER_MS_MAX = 86400000,
	FILES_MAX = 1 << 20, /* a machine takes 5 */
};

#define OOM_SCORE "-950" /* the last of ours; lowering needs a privilege, so this may fail */

static const char usage[] =
	"usage: hotcell-keeper [--state DIR] [--run DIR] [--qemu FILE] [--kvm WHETHER] [--slots N] [--linger MS]\n"
	"                      [--ready-fd N] [--guard-fd N]\n"
	"       hotcell-keeper --probe [--json] [--state DIR] [--qemu FILE] [--kvm WHETHER]\n"
	"\n"
	"Keeps the machines of hotcelld, which starts it. --probe says what this host can do.\n"
	"  --state DIR    images and closures (HOTCELL_STATE)\n"
	"  --run DIR      sockets (HOTCELL_RUN)\n"
	"  --qemu FILE    the QEMU to run (HOTCELL_QEMU)\n"
	"  --kvm WHETHER  machines run on it: yes, no, or probe: if it is quick enough (HOTCELL_KVM; probe)\n"
	"  --slots N      machines at most, 1 to 1024 (1024)\n"
	"  --linger MS    without daemon and machines, end after this long (60000)\n"
	"  --ready-fd N   write a byte there when it serves\n"
	"  --guard-fd N   end when this ends before a byte came: whoever started it has failed\n";

struct options {
	struct host_paths paths;
	bool probe, json, has_kvm;
	uint64_t slots, linger_ms, ready_fd, guard_fd; /* of a descriptor 0: none */
};

struct keeper_program {
	struct loop *loop;
	struct host host;
	struct machines *machines;
	struct server *server;
	struct loop_io signals;
	struct loop_io guard;
	int lock_fd, signal_fd, guard_fd;
};

/* ---- options ---- */

static int set_path(char ret[HOST_PATH_MAX], const char *path, struct err *e)
{
	if (path[0] != '/')
		return err_set(e, ERR_INVALID, "%s is not an absolute path", path);
	if (snprintf(ret, HOST_PATH_MAX, "%s", path) >= HOST_PATH_MAX - 64)
		return err_set(e, ERR_LIMIT, "%s is too long a path", path);
	return 0;
}

static int set_kvm(enum host_kvm *ret, const char *word, struct err *e)
{
	static const char *const words[] = {[HOST_KVM_PROBE] = "probe", [HOST_KVM_YES] = "yes", [HOST_KVM_NO] = "no"};

	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (str_eq(word, words[i])) {
			*ret = (enum host_kvm)i;
			return 0;
		}
	return err_set(e, ERR_INVALID, "--kvm (HOTCELL_KVM): yes, no or probe, not %s", word);
}

static int fill_in(struct options *o, struct err *e)
{
	struct host_paths *p = &o->paths;
	const char *qemu = getenv("HOTCELL_QEMU"), *kvm = getenv("HOTCELL_KVM");
	struct place place;
	int r = 0;

	if (!o->has_kvm && kvm)
		r = set_kvm(&p->kvm, kvm, e);

	if (r == 0 && !p->qemu[0] && qemu)
		r = set_path(p->qemu, qemu, e);
	if (r == 0 && !p->state[0])
		r = place_state(p->state, sizeof(p->state), e);
	else if (r == 0 && setenv("HOTCELL_STATE", p->state, 1) < 0) /* the run directory follows it */
		r = err_sys(e, -errno, "note the state directory");
	if (r == 0 && !p->run[0]) {
		r = place_find(NULL, &place, e);
		if (r == 0)
			r = set_path(p->run, place.run, e);
	}
	return r;
}

static int find_init(struct host_paths *p)
{
	static const char *const places[] = {"hotcell-init", "../libexec/hotcell/hotcell-init"};
	char self[HOST_PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 64);
	char *slash;

	if (n < 0)
		return -errno;
	self[n] = '\0';
	slash = strrchr(self, '/');
	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		(void)snprintf(p->init, sizeof(p->init), "%.*s%s", (int)(slash + 1 - self), self, places[i]);
		if (access(p->init, F_OK) == 0)
			break; /* otherwise the last one stands in the message */
	}
	return 0;
}

static int take_option(struct options *o, int opt, struct err *e)
{
	switch (opt) {
	case 's':
		return set_path(o->paths.state, optarg, e);
	case 'r':
		return set_path(o->paths.run, optarg, e);
	case 'q':
		return set_path(o->paths.qemu, optarg, e);
	case 'k':
		o->has_kvm = true;
		return set_kvm(&o->paths.kvm, optarg, e);
	case 'n':
		if (str_to_u64(optarg, 1, MACHINES_SLOTS_MAX, &o->slots) < 0)
			return err_set(e, ERR_INVALID, "--slots: a number from 1 to %d", MACHINES_SLOTS_MAX);
		return 0;
	case 'l':
		if (str_to_u64(optarg, 1, LINGER_MS_MAX, &o->linger_ms) < 0)
			return err_set(e, ERR_INVALID, "--linger: milliseconds, 1 to %d", LINGER_MS_MAX);
		return 0;
	case 'f':
		if (str_to_u64(optarg, 3, 65535, &o->ready_fd) < 0)
			return err_set(e, ERR_INVALID, "--ready-fd: a descriptor from 3 to 65535");
		return 0;
	case 'g':
		if (str_to_u64(optarg, 3, 65535, &o->guard_fd) < 0)
			return err_set(e, ERR_INVALID, "--guard-fd: a descriptor from 3 to 65535");
		return 0;
	case 'p':
		o->probe = true;
		return 0;
	case 'j':
		o->json = true;
		return 0;
	case 'h':
		(void)fputs(usage, stdout);
		exit(0);
	default:
		return err_set(e, ERR_INVALID, "see hotcell-keeper --help");
	}
}

static int parse_options(int argc, char **argv, struct options *o, struct err *e)
{
	static const struct option longs[] = {
		{"state", 1, NULL, 's'}, {"run", 1, NULL, 'r'},	  {"slots", 1, NULL, 'n'},
		{"linger", 1, NULL, 'l'},
		{"qemu", 1, NULL, 'q'},	  {"kvm", 1, NULL, 'k'},
		{"ready-fd", 1, NULL, 'f'}, {"guard-fd", 1, NULL, 'g'}, {"probe", 0, NULL, 'p'}, {"json", 0, NULL, 'j'},
		{"help", 0, NULL, 'h'},	 {0},
	};
	int opt, r = 0;

	*o = (struct options){.slots = MACHINES_SLOTS_MAX, .linger_ms = KEEPER_LEASE_MS};
	while (r == 0 && (opt = getopt_long(argc, argv, "", longs, NULL)) >= 0)
		r = take_option(o, opt, e);
	if (r == 0 && optind < argc)
		r = err_set(e, ERR_INVALID, "unexpected argument %s", argv[optind]);
	if (r == 0)
		r = fill_in(o, e);
	if (r == 0 && find_init(&o->paths) < 0)
		r = err_set(e, ERR_INTERNAL, "/proc is not mounted");
	return r;
}

/* ---- one keeper per run directory ---- */

static uid_t daemon_uid(void)
{
	return geteuid() == 0 ? HOST_UID_DAEMON : geteuid();
}

static int take_lock(const char *run, int *ret_fd, struct err *e)
{
	char path[HOST_PATH_MAX + 32];
	AUTO_CLOSE int fd = -1;
	int r = place_claim(run, "HOTCELL_RUN", e);

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "%s/keeper.lock", run);
	fd = sys_create(path, O_RDWR | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_sys(e, fd, "open %s", path);
	/* We are started when no keeper answers: who has the lock all the same is ending, and cleans up. */
	for (int waited = 0; (r = sys_lock(fd)) == -EAGAIN && waited < LOCK_WAIT_MS; waited += LOCK_LOOK_MS)
		(void)poll(NULL, 0, LOCK_LOOK_MS);
	if (r == -EAGAIN)
		return err_set(e, ERR_CONFLICT, "another keeper has %s", run);
	if (r < 0)
		return err_sys(e, r, "lock %s", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

/*
 * The folder is root's, so that the daemon's uid can't swap the socket while it is set
 * up; its group lets the daemon through.
 */
static int open_socket(const char *run, int *ret_fd, struct err *e)
{
	char path[HOST_PATH_MAX + 32];
	AUTO_CLOSE int dir = -1, fd = -1;
	bool root = geteuid() == 0;
	int r;

	(void)snprintf(path, sizeof(path), "%s/keeper", run);
	r = sys_mkdir(AT_FDCWD, path, 0700);
	if (r == 0)
		r = dir = sys_open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (r >= 0 && root && (fchown(dir, 0, HOST_UID_DAEMON) < 0 || fchmod(dir, 0710) < 0))
		r = -errno;
	if (r < 0)
		return err_sys(e, r, "prepare %s", path);
	(void)snprintf(path, sizeof(path), "%s/keeper/keeper.sock", run);
	fd = sys_unix_listen(path, 0600);
	if (fd < 0)
		return err_sys(e, fd, "listen at %s", path);
	if (root && lchown(path, daemon_uid(), HOST_UID_DAEMON) < 0)
		return err_sys(e, -errno, "give %s to the daemon", path);
	*ret_fd = take_fd(&fd);
	return 0;
}

/* A name that belongs to this run directory: FNV-1a. */
static void name_groups(const char *run, char ret[CGROUP_NAME_MAX])
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (const char *p = run; *p; p++)
		h = (h ^ (unsigned char)*p) * 0x100000001b3ull;
	(void)snprintf(ret, CGROUP_NAME_MAX, "hotcell-%016llx", (unsigned long long)h);
}

/* ---- privileges ---- */

static int drop_privileges(struct err *e)
{
	/*
	 * Mounts and cgroups; id maps; signals to slots' uids; QEMU's own /dev/kvm; delegating a cgroup;
	 * groups made by slots' uids. These two are used by overlays that the mount helper makes (process_root.h).
	 * The least out-of-memory score that a machine may choose (jail.c).
	 */
	const uint64_t keep = CAP_BIT(CAP_SYS_ADMIN) | CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID) |
			      CAP_BIT(CAP_KILL) | CAP_BIT(CAP_MKNOD) | CAP_BIT(CAP_CHOWN) |
			      CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) |
			      CAP_BIT(CAP_SYS_RESOURCE);
	const struct rlimit core = {JAIL_NO_CORE, JAIL_NO_CORE}; /* what it starts inherits it */
	AUTO_CLOSE int filter = -1;
	struct rlimit files;
	int r;

	if (sys_write_file(AT_FDCWD, "/proc/self/oom_score_adj", OOM_SCORE) < 0)
		klog("event=oom-score why=\"may not lower it; the kernel could pick the keeper when memory runs out\"");
	(void)setrlimit(RLIMIT_CORE, &core);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = MIN(files.rlim_max, (rlim_t)FILES_MAX);
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	r = caps_limit(keep);
	if (r < 0)
		return err_sys(e, r, "drop capabilities");
	r = sys_no_new_privs();
	if (r == 0)
		r = seccomp_compile(&seccomp_keeper, &filter);
	if (r == 0)
		r = seccomp_install(filter);
	return r < 0 ? err_sys(e, r, "install the keeper's system call filter") : 0;
}

/* ---- serving ---- */

static void on_signal(struct loop_io *io, unsigned events)
{
	struct keeper_program *k = CONTAINER_OF(io, struct keeper_program, signals);
	struct signalfd_siginfo si;

	(void)events;
	if (sys_read(io->fd, &si, sizeof(si)) != sizeof(si))
		return;
	klog("event=stopping signal=%u", si.ssi_signo);
	loop_stop(k->loop);
}

/* The daemon that started us serves, or it failed; then it has no machine here, and the next one starts its own. */
static void on_guard(struct loop_io *io, unsigned events)
{
	struct keeper_program *k = CONTAINER_OF(io, struct keeper_program, guard);
	char byte;

	(void)events;
	loop_io_del(k->loop, io);
	if (sys_read(k->guard_fd, &byte, 1) != 1) {
		klog("event=stopping why=\"the daemon that started this keeper ended before it served\"");
		loop_stop(k->loop);
	}
	k->guard_fd = sys_close(k->guard_fd);
}

static int watch_guard(struct keeper_program *k, struct err *e)
{
	int r;

	if (k->guard_fd < 0)
		return 0;
	r = loop_io_add(k->loop, &k->guard, k->guard_fd, LOOP_READ, on_guard);
	return r < 0 ? err_sys(e, r, "watch whoever started it") : 0;
}

static int watch_signals(struct keeper_program *k, struct err *e)
{
	sigset_t set;
	int r;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return err_sys(e, -errno, "block signals");
	k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (k->signal_fd < 0)
		return err_sys(e, -errno, "watch signals");
	r = loop_io_add(k->loop, &k->signals, k->signal_fd, LOOP_READ, on_signal);
	return r < 0 ? err_sys(e, r, "watch signals") : 0;
}

static void on_gone(void *arg, struct slot *s)
{
	struct keeper_program *k = arg;

	server_machine_gone(k->server, s);
}

static void on_unused(void *arg)
{
	struct keeper_program *k = arg;

	klog("event=stopping why=\"no daemon, and no machine is left\"");
	loop_stop(k->loop);
}

static int serve(struct keeper_program *k, const struct options *o, const char *closures, struct err *e)
{
	struct host *h = &k->host;
	const struct machines_config config = {
		.slots = (unsigned)o->slots,
		.ready = READY_SHELLS,
		.root = h->root,
		.uid_base = h->root ? HOST_UID_SLOTS : geteuid(),
		.gid_base = h->root ? HOST_UID_SLOTS : getegid(),
		.images_fd = h->images_fd,
		.groups = h->groups,
		.process = h->process,
		.qemu = h->has_qemu ? &h->qemu : NULL,
		.closures = closures,
		.process_reason = h->process_reason,
		.qemu_reason = h->qemu_reason,
		.kvm = h->kvm.usable,
		.tsc_khz = h->tsc_khz,
		.gone = on_gone,
		.arg = k,
	};
	const struct server_info info = {
		.root = h->root,
		.kvm = h->kvm.usable,
		.tsc_khz = h->tsc_khz,
		.kvm_reason = h->kvm.reason,
		.qemu = h->has_qemu ? h->qemu.version : "",
		.closure = h->has_qemu ? h->qemu.hash : "",
		.qemu_reason = h->qemu_reason,
		.process_reason = h->process_reason,
		.limits = h->limits,
		.unused = on_unused,
		.arg = k,
		.linger_ms = o->linger_ms,
	};
	int listen_fd = -1, r = open_socket(o->paths.run, &listen_fd, e);

	if (r < 0)
		return r;
	r = server_new(k->loop, listen_fd, daemon_uid(), &info, &k->server, e);
	if (r < 0) {
		(void)sys_close(listen_fd);
		return r;
	}
	r = drop_privileges(e);
	if (r == 0)
		r = machines_new(k->loop, &config, &k->machines, e);
	if (r == 0)
		server_attach(k->server, k->machines);
	return r;
}

static void say_ready(uint64_t fd)
{
	if (fd == 0)
		return;
	(void)!write((int)fd, "r", 1);
	(void)close((int)fd);
}

static int run(const struct options *o, struct err *e)
{
	struct keeper_program k = {.lock_fd = -1, .signal_fd = -1, .guard_fd = o->guard_fd ? (int)o->guard_fd : -1};
	char groups[CGROUP_NAME_MAX], closures[HOST_PATH_MAX + 16];
	int r = take_lock(o->paths.run, &k.lock_fd, e);

	if (r == 0)
		r = place_claim(o->paths.state, "HOTCELL_STATE", e);
	if (r < 0) {
		(void)sys_close(k.lock_fd);
		return r;
	}
	(void)snprintf(closures, sizeof(closures), "%s/closures", o->paths.state);
	name_groups(o->paths.run, groups);
	host_probe(&o->paths, groups, &k.host);
	if (k.host.groups && (r = cgroup_root_sweep(k.host.groups, SWEEP_MS)) < 0)
		klog("event=sweep why=\"%s\"", strerror(-r));
	r = loop_new(false, &k.loop);
	r = r < 0 ? err_sys(e, r, "make an event loop") : watch_signals(&k, e);
	if (r == 0)
		r = watch_guard(&k, e);
	if (r == 0)
		r = serve(&k, o, closures, e);
	if (r == 0) {
		klog("event=serving pid=%d root=%d kvm=%d qemu=%s process=%d limits=%x", getpid(), k.host.root,
		     k.host.kvm.usable, k.host.has_qemu ? k.host.qemu.version : "none", k.host.process != NULL,
		     k.host.limits);
		say_ready(o->ready_fd);
		r = loop_run(k.loop);
		if (r < 0)
			r = err_sys(e, r, "wait for events");
	}
	k.server = server_free(k.server);
	k.machines = machines_free(k.machines);
	if (k.loop)
		loop_io_del(k.loop, &k.signals);
	if (k.loop)
		loop_io_del(k.loop, &k.guard);
	(void)sys_close(k.guard_fd);
	(void)sys_close(k.signal_fd);
	k.loop = loop_free(k.loop);
	host_deinit(&k.host);
	(void)sys_close(k.lock_fd);
	return r;
}

int main(int argc, char **argv)
{
	struct options o;
	struct err e = ERR_INIT;
	int r = parse_options(argc, argv, &o, &e);

	if (r < 0) {
		(void)fprintf(stderr, "hotcell-keeper: %s\n%s", e.text, usage);
		return EXIT_USAGE;
	}
	(void)umask(022);
	if (o.probe)
		return doctor_print(&o.paths, o.json);
	r = run(&o, &e);
	if (r < 0)
		klog("event=failed why=\"%s\"", e.text);
	return r < 0;
}
