/* guest/files.c - stat, link, set, move, remove, mkdir */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/mem.h"
#include "guest/agent.h"
#include "guest/file.h"
#include "guest/user.h"
#include "loop/link.h"
#include "sys/clock.h"
#include "sys/fd.h"
#include "wire/gen/records.h"

/* What every file call begins with. */
struct subject {
	struct user user;
	char path[FILE_PATH_SIZE];
};

static int subject_of(const struct agent *a, struct span path, struct span user,
		      struct subject *ret, struct err *e)
{
	int r = agent_user(a, user, &ret->user, e);

	return r < 0 ? r : file_path(path, &ret->user, ret->path, e);
}

static void answer_facts(struct stream *s, const char *path, bool follow, const struct user *user)
{
	struct file_facts facts;
	struct file_names names;
	struct err e = ERR_INIT;
	int r;

	file_names_load(&names);
	user_enter(user);
	r = file_look(AT_FDCWD, path, path, follow, &names, &facts);
	user_leave();
	if (r < 0)
		r = file_error(&e, r, path);
	agent_answer(s, &rec_file_info_type, &facts.info, r, &e);
	file_names_free(&names);
}

void file_stat_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_ref *rq = rec;
	struct subject sub;
	struct err e = ERR_INIT;

	if (subject_of(a, rq->path, rq->user, &sub, &e) < 0)
		stream_fail(s, &e);
	else
		answer_facts(s, sub.path, rq->follow, &sub.user);
}

static int make_dir(const char *path, mode_t mode, bool parents)
{
	char parent[FILE_PATH_SIZE];
	const char *slash = strrchr(path, '/');
	int r = 0;

	if (parents && slash > path) {
		(void)snprintf(parent, sizeof(parent), "%.*s", (int)(slash - path), path);
		r = file_make_dirs(parent, 0755);
	}
	if (r == 0 && mkdir(path, mode) < 0)
		r = -errno;
	if (r == 0 && chmod(path, mode) < 0) /* whatever the umask is */
		r = -errno;
	return r;
}

void file_mkdir_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_ref *rq = rec;
	struct subject sub;
	struct err e = ERR_INIT;
	size_t n;
	int r;

	if (subject_of(a, rq->path, rq->user, &sub, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	for (n = strlen(sub.path); n > 1 && sub.path[n - 1] == '/';)
		sub.path[--n] = '\0';
	user_enter(&sub.user);
	r = make_dir(sub.path, rq->mode ? (mode_t)rq->mode : 0755, rq->recursive);
	user_leave();
	if (r < 0) {
		(void)file_error(&e, r, sub.path);
		stream_fail(s, &e);
		return;
	}
	answer_facts(s, sub.path, false, &sub.user);
}

/* ---- links, modes, times ---- */

static int make_link(char *path, const char *target)
{
	char *name, temporary[64];
	AUTO_CLOSE int dir = file_open_parent(path, true, &name);
	struct stat st;
	uint64_t random;
	int r;

	if (dir < 0)
		return dir;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EEXIST;
	r = sys_random(&random, sizeof(random));
	if (r < 0)
		return r;
	(void)snprintf(temporary, sizeof(temporary), ".hotcell-upload-%016llx", (unsigned long long)random);
	if (symlinkat(target, dir, temporary) < 0)
		return -errno;
	r = sys_rename(dir, temporary, dir, name, 0);
	if (r < 0)
		(void)unlinkat(dir, temporary, 0);
	return r;
}

void file_link_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_link *rq = rec;
	char target[FILE_PATH_SIZE];
	struct subject sub;
	struct err e = ERR_INIT;
	int r;

	if (subject_of(a, rq->path, rq->user, &sub, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	span_copy(rq->target, target, sizeof(target));
	user_enter(&sub.user);
	r = make_link(sub.path, target);
	user_leave();
	if (r < 0) {
		(void)file_error(&e, r, sub.path);
		stream_fail(s, &e);
		return;
	}
	answer_facts(s, sub.path, false, &sub.user);
}

static int set_facts(char *path, mode_t mode, uint64_t mtime_ns)
{
	char *name;
	AUTO_CLOSE int dir = file_open_parent(path, false, &name);
	struct timespec times[2];
	struct stat st;

	if (dir < 0)
		return dir;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	file_times(mtime_ns, times);
	if (utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return !S_ISLNK(st.st_mode) && fchmodat(dir, name, mode, 0) < 0 ? -errno : 0;
}

void file_set_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_set *rq = rec;
	struct subject sub;
	struct err e = ERR_INIT;
	int r;

	if (subject_of(a, rq->path, rq->user, &sub, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	user_enter(&sub.user);
	r = set_facts(sub.path, (mode_t)rq->mode, rq->mtime_ns);
	user_leave();
	if (r < 0) {
		(void)file_error(&e, r, sub.path);
		stream_fail(s, &e);
		return;
	}
	answer_facts(s, sub.path, false, &sub.user);
}

static int move(char *from, char *to)
{
	char *from_name, *to_name;
	AUTO_CLOSE int from_dir = file_open_parent(from, false, &from_name);
	AUTO_CLOSE int to_dir = -1;

	if (from_dir < 0)
		return from_dir;
	/* Look first: parents are not made for nothing. */
	if (faccessat(from_dir, from_name, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	to_dir = file_open_parent(to, true, &to_name);
	if (to_dir < 0)
		return to_dir;
	return renameat(from_dir, from_name, to_dir, to_name) < 0 ? -errno : 0;
}

void file_move_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_move *rq = rec;
	struct subject from, to;
	struct err e = ERR_INIT;
	int r;

	if (subject_of(a, rq->from, rq->user, &from, &e) < 0 ||
	    subject_of(a, rq->to, rq->user, &to, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	user_enter(&from.user);
	r = move(from.path, to.path);
	user_leave();
	if (r < 0) {
		(void)file_error(&e, r, from.path);
		stream_fail(s, &e);
		return;
	}
	answer_facts(s, to.path, false, &to.user);
}

/* ---- remove: a tree can be large, so a child does it ---- */

struct removal {
	struct stream *s; /* NULL: nobody waits any more */
	struct loop *loop;
	struct loop_io io;
	int fd;
	char path[FILE_PATH_SIZE];
};

static void removal_free(struct removal *rm)
{
	loop_io_del(rm->loop, &rm->io);
	(void)sys_close(rm->fd);
	free(rm);
}

static void on_removed(struct loop_io *io, unsigned events)
{
	struct removal *rm = CONTAINER_OF(io, struct removal, io);
	struct rec_empty none = {0};
	struct stream *s = rm->s;
	struct err e = ERR_INIT;
	int answer = -EINTR; /* what a child that was killed says */
	ssize_t n = sys_read(rm->fd, &answer, sizeof(answer));

	(void)events;
	if (n == -EAGAIN)
		return;
	if (answer < 0)
		(void)file_error(&e, answer, rm->path);
	if (s)
		agent_answer(s, &rec_empty_type, &none, answer, &e);
	removal_free(rm);
}

static void removal_closed(struct stream *s, const struct err *why)
{
	struct removal *rm = stream_arg(s);

	(void)why;
	rm->s = NULL;
}

static const struct stream_ops removal_ops = {.closed = removal_closed};

static _Noreturn void remove_as(const struct user *u, const char *path, int report_fd)
{
	int r = 0;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	user_enter(u);
	if (setresgid(u->gid, u->gid, u->gid) < 0 || setresuid(u->uid, u->uid, u->uid) < 0)
		r = -errno;
	if (r == 0)
		r = sys_remove_tree(AT_FDCWD, path);
	(void)sys_write_full(report_fd, &r, sizeof(r));
	_exit(0);
}

static int start_removal(struct removal *rm, const struct subject *sub)
{
	AUTO_CLOSE int put = -1;
	int ends[2], r = sys_pipe(ends);
	pid_t pid;

	if (r < 0)
		return r;
	rm->fd = ends[0];
	put = ends[1];
	r = sys_nonblock(rm->fd, true);
	if (r == 0)
		r = loop_io_add(rm->loop, &rm->io, rm->fd, LOOP_READ, on_removed);
	if (r < 0)
		return r;
	pid = fork();
	if (pid == 0)
		remove_as(&sub->user, sub->path, put);
	return pid < 0 ? -errno : 0;
}

static void remove_tree(struct agent *a, struct stream *s, const struct subject *sub)
{
	struct removal *rm = mem_new(sizeof(*rm));
	struct err e = ERR_INIT;
	int r;

	*rm = (struct removal){.s = s, .loop = a->loop, .fd = -1};
	memcpy(rm->path, sub->path, sizeof(rm->path));
	r = start_removal(rm, sub);
	if (r < 0) {
		(void)file_error(&e, r, sub->path);
		stream_fail(s, &e);
		removal_free(rm);
		return;
	}
	stream_accept(s, &removal_ops, rm);
}

/* One file or an empty directory. */
static int remove_one(char *path)
{
	char *name;
	AUTO_CLOSE int dir = file_open_parent(path, false, &name);

	if (dir < 0)
		return dir;
	if (unlinkat(dir, name, 0) == 0)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return -errno;
	return unlinkat(dir, name, AT_REMOVEDIR) < 0 ? -errno : 0;
}

void file_remove_call(struct agent *a, struct stream *s, const void *rec)
{
	const struct rec_file_ref *rq = rec;
	struct rec_empty none = {0};
	struct subject sub;
	struct err e = ERR_INIT;
	int r;

	if (subject_of(a, rq->path, rq->user, &sub, &e) < 0) {
		stream_fail(s, &e);
		return;
	}
	if (rq->recursive) {
		remove_tree(a, s, &sub);
		return;
	}
	user_enter(&sub.user);
	r = remove_one(sub.path);
	user_leave();
	if (r < 0)
		r = file_error(&e, r, sub.path);
	agent_answer(s, &rec_empty_type, &none, r, &e);
}
