/*
 * guest/t_box.h - for tests: the real agent in a sandbox of its own, driven over its link
 *
 * The sandbox is made from the host's /usr, read-only, in new namespaces; that
 * takes root. Nothing here depends on how fast anything is: every wait ends with
 * an event or, when broken, with WAIT_MS.
 */
#pragma once
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/testing.h"
#include "guest/agent.h"
#include "guest/process_start.h"
#include "guest/t_peer.h"
#include "sys/sock.h"

struct box {
	struct peer peer;
	pid_t agent;
	bool is_machine; /* the agent thinks so: forks, boot id; nobody confines what it starts */
	char cgroup[256]; /* "": this host gives none */
};

static inline void must(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "sandbox: %s: %s\n", what, strerror(errno));
	_exit(99);
}

static inline void put_file(const char *path, const char *text)
{
	must(sys_write_file(AT_FDCWD, path, text) == 0, path);
}

static inline void bind_device(const char *name)
{
	char from[64], to[64];

	(void)snprintf(from, sizeof(from), "/dev/%s", name);
	(void)snprintf(to, sizeof(to), "root/dev/%s", name);
	put_file(to, "");
	must(mount(from, to, NULL, MS_BIND, NULL) == 0, to);
}

/* A root of our own in the current directory: the host's programs, our own /etc. */
static inline void build_root(void)
{
	static const char *const dirs[] = {"root/usr", "root/etc", "root/dev",	"root/dev/pts",
					   "root/proc", "root/tmp", "root/home", "root/home/user",
					   "root/old",	"root/run"};
	static const char *const links[][2] = {
		{"usr/bin", "root/bin"}, {"usr/lib", "root/lib"}, {"usr/lib64", "root/lib64"}};
	static const char *const devices[] = {"null", "zero", "urandom"};

	must(mkdir("root", 0755) == 0 && mount("root", "root", NULL, MS_BIND, NULL) == 0, "root");
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++)
		must(mkdir(dirs[i], 0755) == 0, dirs[i]);
	for (size_t i = 0; i < ARRAY_LEN(links); i++)
		must(symlink(links[i][0], links[i][1]) == 0, links[i][1]);
	for (size_t i = 0; i < ARRAY_LEN(devices); i++)
		bind_device(devices[i]);
	must(mount("/usr", "root/usr", NULL, MS_BIND | MS_REC, NULL) == 0, "bind /usr");
	must(mount(NULL, "root/usr", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0, "ro /usr");
	must(chmod("root/tmp", 01777) == 0, "/tmp");
	must(chown("root/home/user", 1000, 1000) == 0, "home");
	put_file("root/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
				    "user:x:1000:1000::/home/user:/bin/sh\n"
				    "other:x:1001:1001::/tmp:/bin/sh\n"
				    "ghost:x:1002:1002::/no/home:/bin/sh\n");
	put_file("root/etc/ld.so.cache", "");
	must(mount("/etc/ld.so.cache", "root/etc/ld.so.cache", NULL, MS_BIND, NULL) == 0, "ld.so.cache");
	put_file("root/etc/group", "root:x:0:\nuser:x:1000:\ncrew:x:77:other,user\n");
}

static inline void enter_root(void)
{
	must(mount("proc", "root/proc", "proc", 0, NULL) == 0, "proc");
	must(mount("pts", "root/dev/pts", "devpts", 0, "newinstance,ptmxmode=666,mode=620") == 0,
	     "devpts");
	must(chdir("root") == 0 && syscall(SYS_pivot_root, ".", "old") == 0 && chdir("/") == 0 &&
		     umount2("/old", MNT_DETACH) == 0,
	     "pivot_root");
}

static inline void loopback(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	AUTO_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	must(ioctl(fd, SIOCSIFFLAGS, &ifr) == 0, "loopback");
}

/* Everything but making symbolic links. */
static inline int make_filter(void)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_symlinkat, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	int fd = sys_memfd("filter", 0);

	must(fd >= 0 && sys_write_full(fd, f, sizeof(f)) == 0, "filter");
	return fd;
}

_Noreturn static inline void agent_main(const struct box *b, const char *dir, int link_fd, int cgroup_fd)
{
	struct agent_config c;
	struct err e = ERR_INIT;
	struct agent *a = NULL;
	struct loop *l = NULL;
	int filter = make_filter();

	must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private mounts");
	must(mount("t", dir, "tmpfs", 0, "size=512m") == 0 && chdir(dir) == 0, dir);
	build_root();
	enter_root();
	loopback();
	/* Away from where they must land, then there. */
	link_fd = fcntl(link_fd, F_DUPFD, 100);
	filter = fcntl(filter, F_DUPFD, 100);
	cgroup_fd = cgroup_fd < 0 ? -1 : fcntl(cgroup_fd, F_DUPFD, 100);
	must(dup2(link_fd, 3) == 3 && dup2(filter, 4) == 4, "descriptors");
	(void)close(5);
	must(cgroup_fd < 0 || dup2(cgroup_fd, 5) == 5, "descriptors");
	(void)syscall(SYS_close_range, 6, ~0u, 0); /* nobody counts those killed for memory */
	if (process_start(&c, &e) == 0 && b->is_machine) {
		c.is_machine = true;
		c.walls.on = false;
	}
	if (!e.code && loop_new(false, &l) == 0 && agent_new(l, &c, &a, &e) == 0)
		(void)loop_run(l);
	if (e.code)
		(void)fprintf(stderr, "agent: %s\n", e.text);
	(void)agent_free(a);
	(void)loop_free(l);
	_exit(e.code != 0); /* a leak checker could not trace us in here: t_thousand_execs looks for growth */
}

/* A directory of our own in the version 2 hierarchy, wherever it is mounted. */
static inline int make_cgroup(struct box *b)
{
	char line[1024], where[512], type[64];
	FILE *f = fopen("/proc/mounts", "re");
	int fd = -1;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%*s %511s %63s", where, type) != 2 || strcmp(type, "cgroup2") != 0)
			continue;
		if (snprintf(b->cgroup, sizeof(b->cgroup), "%s/hotcell-test-%d", where, getpid()) <
			    (int)sizeof(b->cgroup) &&
		    mkdir(b->cgroup, 0755) == 0)
			fd = sys_open(b->cgroup, O_RDONLY | O_DIRECTORY);
		break;
	}
	if (f)
		(void)fclose(f);
	if (fd < 0)
		b->cgroup[0] = '\0';
	return fd;
}

static inline int open_box_as(struct box *b, bool with_cgroup, bool is_machine)
{
	char dir[] = "/tmp/hotcell-agent-XXXXXX";
	struct clone_args args = {
		.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
		.exit_signal = SIGCHLD,
	};
	AUTO_CLOSE int cgroup_fd = -1;
	int ends[2];

	*b = (struct box){.is_machine = is_machine};
	if (with_cgroup)
		cgroup_fd = make_cgroup(b);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(sys_socketpair(ends), 0);
	(void)fflush(NULL);
	b->agent = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	assert_true(b->agent >= 0);
	if (b->agent == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		agent_main(b, dir, ends[1], cgroup_fd);
	}
	(void)close(ends[1]);
	b->peer.fd = ends[0];
	assert_int_equal(loop_new(false, &b->peer.loop), 0);
	assert_true(peer_open(&b->peer, LINK_SOCKET));
	return rmdir(dir); /* what is mounted there is so in the other namespace only */
}

static inline int open_box(struct box *b, bool with_cgroup)
{
	return open_box_as(b, with_cgroup, false);
}

/* As the keeper does when a machine is gone; EBUSY would mean that something still lives. */
static inline void remove_cgroup(const char *path)
{
	DIR *d;

	if (!*path)
		return;
	d = opendir(path);
	for (struct dirent *ent = d ? readdir(d) : NULL; ent; ent = readdir(d))
		if (ent->d_type == DT_DIR && ent->d_name[0] != '.')
			assert_int_equal(unlinkat(dirfd(d), ent->d_name, AT_REMOVEDIR), 0);
	if (d)
		(void)closedir(d);
	assert_int_equal(rmdir(path), 0);
}

static inline void close_box(struct box *b)
{
	int status;

	b->peer.link = link_free(b->peer.link);
	(void)close(b->peer.fd);
	(void)loop_free(b->peer.loop);
	if (b->is_machine) /* it would wait for the next host */
		(void)kill(b->agent, SIGKILL);
	/* LINK GONE: the agent ends by itself, kills everything, and has nothing left. */
	assert_int_equal(waitpid(b->agent, &status, 0), b->agent);
	if (!b->is_machine) {
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
	remove_cgroup(b->cgroup);
}

static inline int setup(void **state)
{
	struct box *b;

	(void)t_before(NULL);
	if (geteuid() != 0)
		return 0;
	b = mem_new(sizeof(*b));
	*state = b;
	return open_box(b, true);
}

static inline int teardown(void **state)
{
	if (*state)
		close_box(*state);
	free(*state);
	return t_after(NULL);
}

static inline struct peer *peer_of(void **state)
{
	struct box *b = *state;

	if (!b)
		skip(); /* namespaces take root here */
	return &b->peer;
}

static inline bool str_is(const struct str *s, const char *text)
{
	return strcmp(str_text(s), text) == 0;
}

/* ---- programs in it ---- */

static inline void expect(struct peer *p, const char *command, const char *out, const char *err, int code)
{
	struct said x;
	struct call *c = run_shell(p, command, &x);

	if (c->why.code)
		print_error("%s: %s\n", command, c->why.text);
	assert_int_equal(c->why.code, 0);
	assert_true(x.has_exit && !x.torn);
	assert_string_equal(str_text(&x.out), out);
	assert_string_equal(str_text(&x.err), err);
	assert_int_equal(x.exit.code, code);
	said_free(&x);
	call_free(c);
}

static inline uint64_t session_of(struct peer *p, struct call *c)
{
	struct rec_exec_started started;

	assert_true(peer_wait(p, &c->replied));
	assert_int_equal(rec_decode(&rec_exec_started_type, c->reply.p, c->reply.len, &started, NULL),
			 0);
	return started.session;
}

/* Until @n bytes of output are there. */
static inline void wait_bytes(struct peer *p, struct call *c, size_t n)
{
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;

	while (c->bytes.len < n && !c->closed && sys_now_ns() < end)
		peer_turn(p, 100);
	assert_true(c->bytes.len >= n);
}

static inline size_t count_commands(struct peer *p, const char *wanted)
{
	struct rec_sandbox_ref ref = {.sandbox = span_of("x")};
	struct call *c = call_wait(p, METHOD_GUEST_PROCESSES, &ref, NULL);
	struct rec_process_info info;
	size_t n = 0, at = 0;
	int used;

	assert_int_equal(c->why.code, 0);
	while ((used = rec_item_next(&rec_process_info_type, c->bytes.p + at, c->bytes.len - at,
				     &info, NULL)) > 0) {
		at += (size_t)used;
		n += info.command.n > 0 && memmem(info.command.p, info.command.n, wanted, strlen(wanted)) != NULL &&
		     !span_is(info.state, "Z");
	}
	call_free(c);
	return n;
}

/* What was killed may take a moment to be gone; it must be gone in the end. */
static inline void expect_none(struct peer *p, const char *wanted)
{
	uint64_t end = sys_now_ns() + WAIT_MS * NS_PER_MS;

	while (count_commands(p, wanted) && sys_now_ns() < end)
		peer_turn(p, 10);
	assert_int_equal(count_commands(p, wanted), 0);
}
