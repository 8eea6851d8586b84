/*
 * cli/daemon.c - hotcell daemon: is it there, what is on disk, end it
 *
 * Who to end is what the kernel says of the two sockets' owners, not what the daemon says of itself.
 */
#include <errno.h>
#include <fts.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/unit.h"
#include "cli/cli.h"
#include "cli/command.h"
#include "client/conn.h"
#include "client/place.h"
#include "sys/fd.h"
#include "sys/process.h"
#include "sys/sock.h"
#include "wire/gen/methods.h"

enum { TEXT_MAX = 65536, NAMES_MAX = 400, END_MS = 30000, FIRST_COLUMN = 12 };

struct daemon_flags {
	bool force;
};

static const struct rec_field daemon_fields[] = {
	{.name = "force", .type = REC_BOOL, .offset = offsetof(struct daemon_flags, force), .flag = "force",
	 .doc = "stop: although sandboxes run; they end."},
};
const struct rec_type daemon_type = {.name = "daemon_flags", .fields = daemon_fields,
				     .n_fields = ARRAY_LEN(daemon_fields), .size = sizeof(struct daemon_flags)};

/* ---- who is there ---- */

/* The process that listens at @path, by a descriptor that can't come to mean another one. -1: nobody. */
static int owner_of(const char *path, pid_t *ret_pid)
{
	AUTO_CLOSE int fd = sys_unix_connect(path);
	uid_t uid;

	if (fd < 0 || sys_peer(fd, ret_pid, &uid) < 0)
		return -1;
	return sys_pidfd_open(*ret_pid);
}

/* Not while there is a daemon, whose connection a new one would replace. */
static int keeper_of(const struct place *p, pid_t *ret_pid)
{
	char path[PLACE_PATH + 32];

	(void)snprintf(path, sizeof(path), "%s/keeper/keeper.sock", p->run);
	return owner_of(path, ret_pid);
}

/* ---- disk ---- */

static const char *const parts[] = {"images", "kernels", "initrds", "snapshots", "sandboxes", "closures", "db"};

struct linked {
	struct map_node node;
	struct {
		dev_t dev;
		ino_t ino;
	} key;
	struct linked *next;
};

/* A file with several names counts once, where it is met first. */
struct count {
	struct map seen;
	struct linked *all;
	uint64_t bytes[ARRAY_LEN(parts)], total;
	bool is_partial; /* something could not be read */
};

static bool seen_before(struct count *c, const struct stat *st)
{
	struct linked *l = mem_new(sizeof(*l));

	l->key.dev = st->st_dev;
	l->key.ino = st->st_ino;
	if (map_find(&c->seen, &l->key, sizeof(l->key))) {
		free(l);
		return true;
	}
	map_add(&c->seen, &l->node, &l->key, sizeof(l->key));
	l->next = c->all;
	c->all = l;
	return false;
}

static void count_file(struct count *c, const FTSENT *f, uint64_t *bytes)
{
	const struct stat *st = f->fts_statp;

	if (f->fts_info == FTS_DNR || f->fts_info == FTS_NS || f->fts_info == FTS_ERR)
		c->is_partial |= f->fts_errno != ENOENT; /* it may go while we look */
	else if (f->fts_info != FTS_DP && !(st->st_nlink > 1 && !S_ISDIR(st->st_mode) && seen_before(c, st)))
		*bytes += (uint64_t)st->st_blocks * 512;
}

static void count_part(struct count *c, const char *state, size_t part)
{
	char path[PLACE_PATH + 32];
	char *const paths[] = {path, NULL};
	FTS *fts;

	(void)snprintf(path, sizeof(path), "%s/%s", state, parts[part]);
	fts = access(path, F_OK) < 0 ? NULL : fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	for (FTSENT *f; fts && (f = fts_read(fts));)
		count_file(c, f, &c->bytes[part]);
	if (fts)
		(void)fts_close(fts);
	c->total += c->bytes[part];
}

static void count_all(struct count *c, const char *state)
{
	c->seen = (struct map)MAP_INIT((uintptr_t)c);
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		count_part(c, state, i);
	map_deinit(&c->seen);
	while (c->all) {
		struct linked *l = c->all;

		c->all = l->next;
		free(l);
	}
}

static void add_disk_json(struct str *s, const struct count *c)
{
	str_addf(s, ",\"disk_complete\":%s,\"disk_bytes\":{", c->is_partial ? "false" : "true");
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		str_addf(s, "\"%s\":%llu,", parts[i], (unsigned long long)c->bytes[i]);
	str_addf(s, "\"total\":%llu}", (unsigned long long)c->total);
}

static void add_disk(struct str *s, const struct count *c)
{
	char size[UNIT_TEXT];

	unit_format_bytes(c->total, size);
	str_addf(s, "%-*s %s%s\n", FIRST_COLUMN, "disk", size, c->is_partial ? " and what you may not read" : "");
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		unit_format_bytes(c->bytes[i], size);
		str_addf(s, "  %-*s %s\n", FIRST_COLUMN - 2, parts[i], size);
	}
}

/* ---- status ---- */

static void add_daemon(struct str *s, const struct rec_daemon_info *d, bool json)
{
	if (json)
		str_addf(s, ",\"pid\":%llu,\"keeper_pid\":%llu,\"sandboxes\":%llu", (unsigned long long)d->pid,
			 (unsigned long long)d->keeper_pid, (unsigned long long)d->sandboxes);
	else
		str_addf(s, "%-*s runs, pid %llu\n%-*s pid %llu\n%-*s %llu\n", FIRST_COLUMN, "daemon",
			 (unsigned long long)d->pid, FIRST_COLUMN, "keeper", (unsigned long long)d->keeper_pid,
			 FIRST_COLUMN, "sandboxes", (unsigned long long)d->sandboxes);
}

static void add_places(struct str *s, const char *state, const struct place *p, bool json)
{
	if (json) {
		str_add(s, ",\"state\":");
		str_add_json(s, state, strlen(state));
		str_add(s, ",\"run\":");
		str_add_json(s, p->run, strlen(p->run));
		return;
	}
	str_addf(s, "%-*s ", FIRST_COLUMN, "state");
	str_add_escaped(s, state, strlen(state));
	str_addf(s, "\n%-*s ", FIRST_COLUMN, "run");
	str_add_escaped(s, p->run, strlen(p->run));
	str_add(s, "\n");
}

/* Never starts a daemon. */
static int daemon_status(struct cli *c, const struct args *a, struct err *e)
{
	const struct conn_options quiet = {.no_start = true};
	const struct rec_empty nothing = {0};
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(TEXT_MAX);
	struct rec_daemon_info d = {0};
	char state[PLACE_PATH];
	struct count count = {0};
	struct place p;
	bool runs;
	int r = place_find(NULL, &p, e);

	(void)a;
	if (r == 0)
		r = place_state(state, sizeof(state), e);
	if (r < 0)
		return r;
	runs = conn_open(&quiet, &c->conn, NULL) == 0 &&
	       conn_call(c->conn, METHOD_DAEMON_INFO, &nothing, &bytes, &d, NULL) == 0;
	count_all(&count, state);
	if (c->json)
		str_addf(&out, "{\"running\":%s", runs ? "true" : "false");
	if (runs)
		add_daemon(&out, &d, c->json);
	else if (!c->json)
		str_addf(&out, "%-*s does not run\n", FIRST_COLUMN, "daemon");
	add_places(&out, state, &p, c->json);
	if (c->json)
		add_disk_json(&out, &count);
	else
		add_disk(&out, &count);
	if (c->json)
		str_add(&out, "}\n");
	r = cli_put(&out, e);
	str_deinit(&out);
	str_deinit(&bytes);
	return r;
}

/* ---- stop ---- */

struct running {
	struct str names;
	unsigned n;
};

/* A paused sandbox is on disk, and a failed one has nothing to lose. */
static int on_sandbox(void *arg, const void *item, struct err *e)
{
	const struct rec_sandbox_info *s = item;
	struct running *l = arg;
	char id[ID_TEXT];

	(void)e;
	if (span_is(s->state, "paused") || span_is(s->state, "failed"))
		return 0;
	id_format(&s->id, id);
	str_add(&l->names, l->n++ ? ", " : "");
	if (s->name.n)
		str_add_escaped(&l->names, s->name.p, s->name.n);
	else
		str_add(&l->names, id);
	return 0;
}

static int check_running(struct cli *c, bool force, struct err *e)
{
	const struct rec_empty nothing = {0};
	struct running l = {STR_INIT(NAMES_MAX)};
	int r = conn_items(c->conn, METHOD_SANDBOX_LIST, &nothing, on_sandbox, &l, e);

	if (r == 0 && l.n && !force)
		r = err_set(e, ERR_CONFLICT,
			    "%u %s and would end: %s%s; 'hotcell pause' keeps one, 'hotcell rm' removes it, 'hotcell "
			    "daemon stop --force' ends them",
			    l.n, l.n == 1 ? "sandbox runs" : "sandboxes run", str_text(&l.names),
			    l.names.failed ? ", ..." : "");
	else if (r == 0 && l.n)
		cli_note(c, "ends with it: %s%s", str_text(&l.names), l.names.failed ? ", ..." : "");
	str_deinit(&l.names);
	return r;
}

static int end(const char *what, pid_t pid, int pidfd, struct err *e)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};
	int r = sys_pidfd_signal(pidfd, SIGTERM);

	if (r == -ESRCH)
		return 0;
	if (r < 0)
		return err_sys(e, r, "end the %s, process %d", what, (int)pid);
	do
		r = poll(&p, 1, END_MS);
	while (r < 0 && errno == EINTR);
	return r > 0 ? 0 : err_set(e, ERR_TIMEOUT, "the %s, process %d, did not end within %d s", what, (int)pid,
				   END_MS / 1000);
}

static int say_stopped(struct cli *c, bool was_there, struct err *e)
{
	struct str out = STR_INIT(64);
	int r;

	if (c->json)
		str_addf(&out, "{\"stopped\":%s}\n", was_there ? "true" : "false");
	else
		str_add(&out, was_there ? "stopped\n" : "no daemon runs\n");
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

/* The daemon first: it must not see its keeper end. */
static int end_both(struct cli *c, const struct place *p, struct err *e)
{
	AUTO_CLOSE int daemon = -1, keeper = -1;
	pid_t pid = 0;
	int r = 0;

	c->conn = conn_close(c->conn);
	daemon = owner_of(p->socket, &pid);
	if (daemon >= 0)
		r = end("daemon", pid, daemon, e);
	if (r == 0)
		keeper = keeper_of(p, &pid);
	if (keeper >= 0)
		r = end("keeper", pid, keeper, e);
	return r;
}

static int daemon_stop(struct cli *c, const struct args *a, struct err *e)
{
	const struct daemon_flags *flags = args_rec(a, &daemon_type);
	AUTO_CLOSE int someone = -1;
	struct place p;
	pid_t pid;
	int r = place_find(NULL, &p, e);

	if (r < 0)
		return r;
	someone = owner_of(p.socket, &pid);
	if (someone < 0)
		someone = keeper_of(&p, &pid);
	if (someone < 0)
		return say_stopped(c, false, e);
	r = cli_connect(c, e); /* of a keeper alone, only a daemon can say what it keeps */
	if (r == 0)
		r = check_running(c, flags->force, e);
	if (r == 0)
		r = end_both(c, &p, e);
	return r < 0 ? r : say_stopped(c, true, e);
}

int run_daemon(struct cli *c, const struct args *a, struct err *e)
{
	static const struct command commands[] = {{"status", 0, daemon_status}, {"stop", 0, daemon_stop}};

	return command_run(c, a, commands, ARRAY_LEN(commands), e);
}
