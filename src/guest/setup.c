/* guest/setup.c - guest.setup: clock, randomness, identity, before anything else */
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "base/str.h"
#include "guest/agent.h"
#include "guest/code.h"
#include "guest/session.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/limits.h"
#include "wire/gen/records.h"

enum { SEED_MAX = 64 };

static int set_clock(uint64_t unix_ns, struct err *e)
{
	struct timespec ts = {(time_t)(unix_ns / NS_PER_S), (long)(unix_ns % NS_PER_S)};

	return clock_settime(CLOCK_REALTIME, &ts) < 0 ? err_sys(e, -errno, "set the clock") : 0;
}

/* Mix the host's bytes in, count them, and make the generator use them at once. */
static int reseed(struct span seed, struct err *e)
{
	_Alignas(struct rand_pool_info) unsigned char room[sizeof(struct rand_pool_info) + SEED_MAX];
	struct rand_pool_info *pool = (void *)room;
	AUTO_CLOSE int fd = sys_open("/dev/urandom", O_RDONLY);
	int r = 0;

	if (fd < 0)
		return err_sys(e, fd, "/dev/urandom");
	pool->entropy_count = (int)(seed.n * 8);
	pool->buf_size = (int)seed.n;
	memcpy(pool->buf, seed.p, seed.n);
	if (ioctl(fd, RNDADDENTROPY, pool) < 0 || ioctl(fd, RNDRESEEDCRNG) < 0)
		r = err_sys(e, -errno, "reseed the random pool");
	explicit_bzero(room, sizeof(room));
	return r;
}

static int set_machine_id(const struct id *id, struct err *e)
{
	static const char path[] = "/etc/machine-id";
	char text[ID_TEXT + 1];
	AUTO_CLOSE int fd = -1;
	int r = sys_unlink(AT_FDCWD, path);

	id_format(id, text);
	(void)strcat(text, "\n");
	/* The workload may have put anything there, a pipe or a link: only a new file will do. */
	if (r == 0)
		r = fd = sys_openat(AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0444);
	if (r >= 0)
		r = sys_write_full(fd, text, strlen(text));
	return r < 0 && r != -ENOENT ? err_sys(e, r, "write %s", path) : 0;
}

static int set_pids_max(const struct agent *a, uint64_t max, struct err *e)
{
	char text[32];
	int r;

	(void)snprintf(text, sizeof(text), "%llu", (unsigned long long)max);
	if (a->cgroups.root_fd < 0)
		return err_set(e, ERR_UNSUPPORTED, "pids_max: no cgroups in this guest");
	r = sys_write_file(a->cgroups.root_fd, "pids.max", text);
	return r < 0 ? err_sys(e, r, "limit the processes of the workload") : 0;
}

static int take_env(struct agent *a, struct strv env, struct err *e)
{
	struct env check;
	int r;

	env_init(&check);
	r = env_add_all(&check, env, e);
	env_deinit(&check);
	if (r < 0)
		return r;
	free(a->env);
	a->env = env.n ? mem_dup(env.p, env.n) : NULL;
	a->env_len = env.n;
	return 0;
}

static bool mentions(const struct span *file, struct span word)
{
	return file->n && memmem(file->p, file->n, word.p, word.n);
}

/* A name that does not resolve makes sudo and others complain or wait. */
static void make_resolvable(struct span name)
{
	AUTO_CLOSE int fd = -1;
	struct str line = STR_INIT(256);
	struct span hosts;

	if (user_load("/etc/hosts", &hosts, NULL) < 0)
		return; /* the workload has put something else there: its business */
	if (!mentions(&hosts, name)) {
		str_addf(&line, "127.0.1.1\t%.*s\n", (int)name.n, name.p);
		fd = sys_openat(AT_FDCWD, "/etc/hosts",
				O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644);
		if (fd >= 0)
			(void)sys_write_full(fd, line.p, line.len);
	}
	free((void *)hosts.p);
	str_deinit(&line);
}

static int set_hostname(struct span name, struct err *e)
{
	for (size_t i = 0; i < name.n; i++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", name.p[i]))
			return err_set(e, ERR_INVALID, "hostname: letters, digits, dots and dashes only");
	if (sethostname(name.p, name.n) < 0)
		return err_sys(e, -errno, "set the host name");
	make_resolvable(name);
	return 0;
}

/* A machine's kernel is ours alone; of a process sandbox only the names are. */
static int set_machine(struct agent *a, const struct rec_guest_setup *rq, bool *ret_seeded,
		       struct err *e)
{
	int r = 0;

	if (rq->time_ns)
		r = set_clock(rq->time_ns, e);
	if (r == 0 && rq->seed.n) {
		r = reseed(rq->seed, e);
		*ret_seeded = r == 0;
	}
	if (r == 0 && rq->pids_max)
		r = set_pids_max(a, rq->pids_max, e);
	return r;
}

static void read_boot_id(const struct agent *a, char ret[LIMIT_TEXT_SHORT + 1])
{
	if (a->c.is_machine && sys_read_file(AT_FDCWD, REAPER_BOOT_ID, ret, LIMIT_TEXT_SHORT) >= 0) {
		ret[strcspn(ret, "\n")] = '\0';
		return;
	}
	if (sys_read_file(a->c.proc_fd, "sys/kernel/random/boot_id", ret, LIMIT_TEXT_SHORT) < 0)
		ret[0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
}

/* Time from kernel start until now; the daemon asks once, right after boot. */
static uint64_t uptime_us(void)
{
	struct timespec ts = {0};

	(void)clock_gettime(CLOCK_BOOTTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* ---- boot id: the kernel's never changes, so a file of ours lies over it ---- */

static int write_boot_id(const char *text, struct err *e)
{
	int r = sys_write_file(AT_FDCWD, REAPER_BOOT_ID, text);

	return r < 0 ? err_sys(e, r, "write %s", REAPER_BOOT_ID) : 0;
}

/* Random, version 4; the pool was reseeded before. */
static int renew_boot_id(struct err *e)
{
	unsigned char b[16];
	char text[64];
	int r = sys_random(b, sizeof(b));

	if (r < 0)
		return err_sys(e, r, "random boot id");
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	(void)snprintf(text, sizeof(text),
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x\n", b[0], b[1], b[2],
		       b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return write_boot_id(text, e);
}

/* ---- the call ---- */

static void answer(struct agent *a, struct stream *s, bool seeded, bool forked, unsigned proofs)
{
	char boot_id[LIMIT_TEXT_SHORT + 1];
	struct utsname u = {0};

	(void)uname(&u);
	read_boot_id(a, boot_id);
	struct rec_guest_ready ready = {
		.agent = span_of(HOTCELL_VERSION),
		.kernel = (struct span){u.release, strnlen(u.release, LIMIT_TEXT_SHORT)},
		.time_ns = sys_unix_ns(),
		.boot_id = span_of(boot_id),
		.seeded = seeded,
		.hostname = span_of(u.nodename),
		.boot_us = a->c.is_machine && !forked ? uptime_us() : 0,
		.wall = span_of(a->c.is_machine ? "vm" : "process"),
		.reseeded = proofs,
		.thawed = !a->freeze.is_frozen,
	};
	agent_answer(s, &rec_guest_ready_type, &ready, 0, NULL);
}

static void setup_closed(struct stream *s, const struct err *why)
{
	struct agent *a = stream_arg(s);

	(void)why;
	if (a->setup_call == s)
		a->setup_call = NULL;
}

/* FREEZE-2 */
static void interpreters_reseeded(void *arg, unsigned proofs)
{
	struct agent *a = arg;
	struct stream *s = a->setup_call;

	a->setup_call = NULL;
	if (!s) /* the host went: the next one begins anew, and nothing runs before */
		return;
	freeze_thaw_all(a);
	answer(a, s, true, true, proofs);
}

static void finish_copy(struct agent *a, struct stream *s)
{
	static const struct stream_ops ops = {.closed = setup_closed};

	sessions_fork(a->sessions);
	stream_accept(s, &ops, a);
	a->setup_call = s;
	code_reseed(a->codes, freeze_thaw_group, interpreters_reseeded, a);
}

void guest_setup_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_guest_setup *rq = rec;
	struct err e = ERR_INIT;
	bool seeded = false;
	int r = rq->forked && !rq->env.n ? 0 : take_env(a, rq->env, &e);

	if (r == 0 && a->c.is_machine)
		r = set_machine(a, rq, &seeded, &e);
	if (r == 0 && rq->forked && !seeded)
		r = err_set(&e, ERR_INVALID, "seed: a copy without one would repeat its original's random numbers");
	if (r == 0 && rq->hostname.n)
		r = set_hostname(rq->hostname, &e);
	if (r == 0 && !id_is_zero(&rq->machine_id))
		r = set_machine_id(&rq->machine_id, &e);
	if (r == 0 && rq->forked)
		r = renew_boot_id(&e);
	if (r < 0) {
		stream_fail(s, &e);
		return;
	}
	span_copy(rq->user, a->default_user, sizeof(a->default_user));
	if (rq->forked)
		finish_copy(a, s);
	else
		answer(a, s, seeded, false, 0);
}
