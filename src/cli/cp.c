/* cli/cp.c - hotcell cp: files and trees, both ways */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "base/unit.h"
#include "cli/cli.h"
#include "cli/place.h"
#include "cli/terminal.h"
#include "client/conn.h"
#include "client/file.h"
#include "client/holes.h"
#include "client/host.h"
#include "client/tree.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/methods.h"

enum {
	PROGRESS_MS = 200,
	PERMISSIONS = 0777,
	NEW_FILE = 0644,
	NAMED_MAX = 1048576, /* bytes of JSON that name what was left out; more is counted only */
	PARTLY = 1,	     /* exit status: something was left out, and said so */
};

struct cp_flags {
	struct span user;
	uint64_t max_size;
};

static const struct rec_field cp_fields[] = {
	{.name = "user", .type = REC_TEXT, .offset = offsetof(struct cp_flags, user),
	 .max = LIMIT_TEXT_SHORT, .flag = "user", .arg = "USER",
	 .doc = "Act as this user of the guest (user)."},
	{.name = "max_size", .type = REC_U64, .offset = offsetof(struct cp_flags, max_size), .min = 1,
	 .max = UINT64_MAX / MIB, .unit = REC_MIB, .flag = "max-size", .arg = "SIZE",
	 .doc = "Out of a sandbox: take no more than this, of a file or a tree (what its disk and memory hold)."},
};
const struct rec_type cp_type = {.name = "cp_flags", .fields = cp_fields,
				 .n_fields = ARRAY_LEN(cp_fields), .size = sizeof(struct cp_flags)};

struct cp {
	struct cli *cli;
	struct span user;
	struct tree_stats stats;
	struct file_sum sum;
	uint64_t room;
	struct str left_out; /* JSON */
	bool is_tree;
	bool shows; /* progress, on a terminal */
	uint64_t shown_ns;
	/* one file */
	int fd;
	off_t start; /* where it stood; -1: it can't be read twice */
	struct holes from;
	unsigned mode;
	uint64_t mtime_ns;
	struct host_file file;
};

/* ---- progress ---- */

static void show(struct cp *p, const struct tree_stats *s)
{
	uint64_t now = sys_now_ns();
	char done[UNIT_TEXT], total[UNIT_TEXT];

	if (!p->shows || now - p->shown_ns < PROGRESS_MS * NS_PER_MS)
		return;
	p->shown_ns = now;
	unit_format_bytes(s->bytes, done);
	unit_format_bytes(s->bytes_total, total);
	(void)fprintf(stderr, "\r%s%s%s, %llu files \033[K", done, s->bytes_total ? " of " : "",
		      s->bytes_total ? total : "", (unsigned long long)s->files);
}

static void on_progress(void *arg, const struct tree_stats *s)
{
	show(arg, s);
}

static void end_progress(struct cp *p)
{
	if (p->shows && p->shown_ns)
		(void)fputs("\r\033[K", stderr);
}

/* Said even with --quiet: the copy is not whole. */
static void name_left_out(struct cp *p, struct span name, const char *what, const char *why)
{
	struct cli loud = *p->cli;
	struct str one = STR_INIT(NAMED_MAX);

	loud.quiet = false;
	end_progress(p);
	cli_note(&loud, "%.*s: %s: %s", (int)name.n, name.p, what, why);
	str_add(&one, p->left_out.len ? ",{\"name\":" : "{\"name\":");
	str_add_json(&one, name.p, name.n);
	str_add(&one, ",\"why\":");
	str_add_json(&one, why, strlen(why));
	str_add(&one, "}");
	if (p->left_out.len + one.len < NAMED_MAX)
		str_add_mem(&p->left_out, one.p, one.len);
	str_deinit(&one);
}

static void on_skipped(void *arg, struct span name, const char *why)
{
	name_left_out(arg, name, "not copied", why);
}

static void on_failed(void *arg, struct span name, const struct err *why)
{
	name_left_out(arg, name, "failed", why->text);
}

/* ---- out of a sandbox ---- */

static int stat_guest(struct cp *p, const struct guest_path *at, struct str *bytes,
		      struct rec_file_info *ret, struct err *e)
{
	struct rec_file_ref ref = {.sandbox = span_of(at->sandbox),
				   .path = span_of(at->path),
				   .user = p->user,
				   .follow = true};

	return conn_call(p->cli->conn, METHOD_FILE_STAT, &ref, bytes, ret, e);
}

static int begin(void *arg, const struct rec_file_info *info, struct err *e)
{
	struct cp *p = arg;

	(void)e;
	p->mode = info->mode & PERMISSIONS;
	p->mtime_ns = info->mtime_ns;
	p->stats.bytes_total = info->size;
	return 0;
}

static int put(void *arg, const void *bytes, size_t n, struct err *e)
{
	struct cp *p = arg;
	int r = p->fd >= 0 ? sys_write_full(p->fd, bytes, n) : host_file_put(&p->file, bytes, n, e);

	if (p->fd >= 0 && r < 0)
		return err_sys(e, r, "write");
	p->stats.bytes += n;
	show(p, &p->stats);
	return r;
}

static int put_hole(void *arg, uint64_t n, struct err *e)
{
	struct cp *p = arg;

	p->stats.bytes += n;
	show(p, &p->stats);
	return host_file_skip(&p->file, n, e);
}

static int fetch(struct cp *p, const struct guest_path *from, struct err *e)
{
	struct file_sink sink = {.begin = begin, .put = put, .arg = p, .hole = p->fd >= 0 ? NULL : put_hole,
				 .max = p->room};
	struct rec_file_read rec = {
		.sandbox = span_of(from->sandbox), .path = span_of(from->path), .user = p->user};
	int r = file_fetch(p->cli->conn, &rec, &sink, &p->sum, e);

	if (r == -ERR_LIMIT)
		(void)err_wrap(e, "%s:%s", from->sandbox, from->path);
	p->stats.files += r == 0;
	return r;
}

/* To what cannot be replaced by a new file: standard output, a device, a FIFO. */
static int fetch_into(struct cp *p, const struct guest_path *from, int fd, struct err *e)
{
	p->fd = fd;
	return fetch(p, from, e);
}

static int fetch_as_file(struct cp *p, const struct guest_path *from, int dir_fd, const char *name,
			 struct err *e)
{
	int r = host_file_open(dir_fd, span_of(name), &p->file, e);

	if (r == 0)
		r = fetch(p, from, e);
	if (r == 0)
		r = host_file_keep(&p->file, p->mode, p->mtime_ns, e);
	host_file_drop(&p->file);
	return r;
}

/* The directory and name that a path of this host, typed by its user, stands for. */
static int open_above(const char *path, char name[256], int *ret_fd, struct err *e)
{
	char dir[LIMIT_PATH + 1];
	const char *slash = strrchr(path, '/');
	int fd;

	if (!path_last(path, name) || (slash && slash[1] == '\0'))
		return err_set(e, ERR_INVALID, "%s: not a name for a new file or directory", path);
	span_copy(slash ? (struct span){path, (size_t)(slash - path) + 1} : span_of("."), dir,
		  sizeof(dir));
	fd = sys_open(dir, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return err_sys(e, fd, "open the directory %s", dir);
	*ret_fd = fd;
	return 0;
}

static int open_target_dir(const char *path, struct err *e)
{
	int fd = sys_open(path, O_RDONLY | O_DIRECTORY);

	return fd < 0 ? err_sys(e, fd, "open the directory %s", path) : fd;
}

static int fetch_file(struct cp *p, const struct guest_path *from, const char *to, struct err *e)
{
	AUTO_CLOSE int fd = -1;
	char name[256];
	struct stat st;

	if (strcmp(to, "-") == 0)
		return fetch_into(p, from, STDOUT_FILENO, e);
	if (stat(to, &st) == 0 && S_ISDIR(st.st_mode)) {
		fd = open_target_dir(to, e);
		if (fd < 0)
			return fd;
		if (!path_last(from->path, name))
			return err_set(e, ERR_INVALID, "%s: has no name to copy it under",
				       from->path);
		return fetch_as_file(p, from, fd, name, e);
	}
	if (stat(to, &st) == 0 && !S_ISREG(st.st_mode)) {
		fd = sys_open(to, O_WRONLY | O_NOCTTY);
		return fd < 0 ? err_sys(e, fd, "open %s", to) : fetch_into(p, from, fd, e);
	}
	if (open_above(to, name, &fd, e) < 0)
		return -e->code;
	return fetch_as_file(p, from, fd, name, e);
}

/* Under its own name into a directory that is there, else as a new directory. */
static int fetch_tree(struct cp *p, const struct guest_path *from, const char *to,
		      const struct rec_file_info *info, struct err *e)
{
	struct tree_events ev = {on_progress, on_skipped, on_failed, p};
	unsigned mode = info->mode & PERMISSIONS;
	uint64_t mtime_ns = info->mtime_ns;
	struct err late = ERR_INIT;
	AUTO_CLOSE int above = -1, fd = -1;
	char name[256], bare[LIMIT_PATH + 1];
	struct stat st;
	size_t n = strlen(to);
	int r = 0;

	if (strcmp(to, "-") == 0)
		return err_set(e, ERR_INVALID, "%s is a directory: it can't go to standard output; "
					       "use 'hotcell exec %s -- tar c ...'",
			       from->path, from->sandbox);
	while (n > 1 && to[n - 1] == '/')
		n--;
	span_copy((struct span){to, n}, bare, sizeof(bare));
	p->is_tree = true;
	if (stat(bare, &st) == 0 && S_ISDIR(st.st_mode)) {
		above = open_target_dir(bare, e);
		if (above < 0)
			return above;
		if (!path_last(from->path, name)) /* "lab:." into here */
			return tree_fetch(p->cli->conn, from->sandbox, p->user, from->path, above, p->room, &ev,
					  &p->stats, e);
	} else {
		r = open_above(bare, name, &above, e);
	}
	if (r == 0)
		r = host_mkdir(above, span_of(name), e);
	if (r < 0)
		return r;
	fd = sys_open_beneath(above, name, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return err_sys(e, fd, "open the directory %s", name);
	r = tree_fetch(p->cli->conn, from->sandbox, p->user, from->path, fd, p->room, &ev, &p->stats, e);
	if (host_dir_done(above, span_of(name), mode, mtime_ns, &late) < 0 && r == 0)
		r = err_copy(e, &late);
	return r;
}

static int copy_out(struct cp *p, const struct guest_path *from, const char *to, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_file_info info;
	int r = p->room ? 0 : file_room(p->cli->conn, from->sandbox, &p->room, e);

	if (r == 0)
		r = stat_guest(p, from, &bytes, &info, e);
	if (r == 0 && span_is(info.kind, "directory"))
		r = fetch_tree(p, from, to, &info, e);
	else if (r == 0 && span_is(info.kind, "file"))
		r = fetch_file(p, from, to, e);
	else if (r == 0)
		r = err_set(e, ERR_INVALID, "%s: neither a file nor a directory", from->path);
	str_deinit(&bytes);
	return r;
}

/* ---- into a sandbox ---- */

static ssize_t get(void *arg, void *bytes, size_t n, struct err *e)
{
	struct cp *p = arg;
	ssize_t r = holes_get(&p->from, bytes, n);

	if (r < 0)
		return err_sys(e, (int)r, p->fd == STDIN_FILENO ? "read standard input" : "read");
	p->stats.bytes += (size_t)r;
	show(p, &p->stats);
	return r;
}

static int64_t get_hole(void *arg, struct err *e)
{
	struct cp *p = arg;
	int64_t r = holes_skip(&p->from);

	if (r < 0)
		return err_sys(e, (int)r, "read");
	p->stats.bytes += (uint64_t)r;
	show(p, &p->stats);
	return r;
}

static int rewind_file(void *arg, uint64_t bytes, struct err *e)
{
	struct cp *p = arg;

	p->stats.bytes -= bytes;
	if (p->from.regular)
		return holes_rewind(&p->from);
	return lseek(p->fd, p->start, SEEK_SET) < 0 ? err_sys(e, -errno, "read it again") : 0;
}

/* @st: of a file, whose bits and time go with it; NULL: of standard input, from where it stands. */
static int store_file(struct cp *p, int fd, const struct stat *st, const struct guest_path *to, struct err *e)
{
	struct file_source source = {.get = get, .arg = p};
	struct rec_file_write rec = {.sandbox = span_of(to->sandbox),
				     .path = span_of(to->path),
				     .user = p->user,
				     .mode = st ? st->st_mode & PERMISSIONS : NEW_FILE,
				     .exact = true,
				     .parents = true};
	int r;

	p->fd = fd;
	p->start = lseek(fd, 0, SEEK_CUR);
	p->from = (struct holes){.fd = fd};
	if (st) {
		holes_init(&p->from, fd, st);
		rec.mtime_ns = S_ISREG(st->st_mode) ? file_mtime(st) : 0;
	}
	if (p->start >= 0)
		source.rewind = rewind_file;
	if (p->from.sparse)
		source.hole = get_hole;
	r = file_store(p->cli->conn, &rec, &source, &p->sum, e);
	p->stats.files += r == 0;
	return r;
}

/* "lab:dir/" or an existing directory: the source goes in under its own name. */
static int resolve_target(struct cp *p, const char *from, struct guest_path *to, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	size_t n = strlen(to->path);
	bool slash = n > 0 && to->path[n - 1] == '/';
	struct rec_file_info info;
	struct err why = ERR_INIT;
	char name[256];
	int r = stat_guest(p, to, &bytes, &info, &why);
	bool is_dir = r == 0 && span_is(info.kind, "directory");

	str_deinit(&bytes);
	if (r < 0 && r != -ERR_NOT_FOUND)
		return err_copy(e, &why);
	if (!is_dir && !slash)
		return 0;
	if (strcmp(from, "-") == 0)
		return err_set(e, ERR_INVALID, "%s:%s is a directory; name the file to write",
			       to->sandbox, to->path);
	if (!path_last(from, name))
		return is_dir ? 0 : err_set(e, ERR_INVALID, "%s: has no name to copy it under", from);
	if (n + strlen(name) + 1 > LIMIT_PATH)
		return err_set(e, ERR_LIMIT, "the path in the sandbox is longer than %d bytes",
			       LIMIT_PATH);
	(void)snprintf(to->path + n, sizeof(to->path) - n, "%s%s", slash ? "" : "/", name);
	return 0;
}

static int copy_in(struct cp *p, const char *from, struct guest_path *to, struct err *e)
{
	struct tree_events ev = {on_progress, on_skipped, on_failed, p};
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int r = resolve_target(p, from, to, e);

	if (r < 0)
		return r;
	if (strcmp(from, "-") == 0)
		return store_file(p, STDIN_FILENO, NULL, to, e);
	fd = sys_open(from, O_RDONLY | O_NOCTTY);
	if (fd < 0)
		return err_sys(e, fd, "open %s", from);
	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at %s", from);
	p->is_tree = S_ISDIR(st.st_mode);
	if (p->is_tree)
		return tree_store(p->cli->conn, to->sandbox, p->user, fd, to->path, &ev, &p->stats,
				  e);
	p->stats.bytes_total = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	return store_file(p, fd, &st, to, e);
}

/* ---- the verb ---- */

static int report(struct cp *p, struct err *e)
{
	struct str out = STR_INIT(NAMED_MAX + 1024);
	const struct tree_stats *s = &p->stats;
	char sum[2 * FILE_SHA256 + 1];
	int r;

	if (!p->cli->json)
		return 0;
	str_addf(&out,
		 "{\"files\":%llu,\"directories\":%llu,\"links\":%llu,\"skipped\":%llu,\"failed\":%llu,"
		 "\"bytes\":%llu,\"left_out\":[%s]",
		 (unsigned long long)s->files, (unsigned long long)s->directories,
		 (unsigned long long)s->links, (unsigned long long)s->skipped,
		 (unsigned long long)s->failed, (unsigned long long)s->bytes, str_text(&p->left_out));
	file_sum_text(&p->sum, sum);
	if (p->is_tree)
		str_add(&out, ",\"sha256\":null}\n");
	else
		str_addf(&out, ",\"sha256\":\"%s\"}\n", sum);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

static int check_sides(const struct guest_path *from, const struct guest_path *to, bool json,
		       struct err *e)
{
	if (!from->sandbox[0] == !to->sandbox[0])
		return err_set(e, ERR_INVALID, from->sandbox[0]
			       ? "both sides are in a sandbox; copy by way of this host"
			       : "neither side is in a sandbox; write one as SANDBOX:PATH");
	if (json && !to->sandbox[0] && strcmp(to->path, "-") == 0)
		return err_set(e, ERR_INVALID, "--json: not while the file itself goes to standard output");
	return 0;
}

/* All that is there was copied, or each exception was named. */
static int conclude(struct cp *p, struct err *e)
{
	uint64_t left_out = p->stats.skipped + p->stats.failed;
	struct cli loud = *p->cli;
	int r = report(p, e);

	if (r < 0 || !left_out)
		return r;
	loud.quiet = false;
	cli_note(&loud, "%llu of the tree's entries were not copied, as said above", (unsigned long long)left_out);
	return PARTLY;
}

int run_cp(struct cli *c, const struct args *a, struct err *e)
{
	const struct cp_flags *flags = args_rec(a, &cp_type);
	struct cp p = {.cli = c,
		       .user = flags->user,
		       .fd = -1,
		       .room = flags->max_size * MIB,
		       .left_out = STR_INIT(2 * NAMED_MAX),
		       .file = HOST_FILE_INIT,
		       .shows = !c->quiet && !c->json && terminal_is(STDERR_FILENO)};
	struct guest_path from, to;
	int r = guest_path_parse(a->operand[0], &from, e);

	if (r == 0)
		r = guest_path_parse(a->operand[1], &to, e);
	if (r == 0)
		r = check_sides(&from, &to, c->json, e);
	if (r == 0)
		r = cli_connect(c, e);
	/* A pipe may make us wait where no signal is looked at: then they end us as usual. */
	if (r == 0 && strcmp(from.path, "-") != 0 && strcmp(to.path, "-") != 0)
		r = cli_signals(c, e);
	if (r == 0)
		r = from.sandbox[0] ? copy_out(&p, &from, to.path, e)
				    : copy_in(&p, from.path, &to, e);
	end_progress(&p);
	if (r == 0)
		r = conclude(&p, e);
	str_deinit(&p.left_out);
	return r;
}
