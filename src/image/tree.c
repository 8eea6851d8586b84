/* image/tree.c - one walker, three uses */
#include "image/tree.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "sys/fd.h"

#define FILE_CAPABILITY "security.capability"

struct entry {
	const char *path; /* from the top of the tree */
	const char *name; /* in dirfd */
	int dirfd;
	struct statx st;
};

typedef int (*visit_fn)(void *arg, const struct entry *en, struct err *e);

struct walk {
	visit_fn visit;
	void *arg;
	uint64_t entries;
	int depth;
	char path[TREE_PATH_MAX];
	size_t path_n;
	struct err *e;
};

/* The names in one folder. */
struct names {
	char **name;
	size_t n, cap;
};

static void names_deinit(struct names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->name[i]);
	free(names->name);
}

static int names_add(struct names *names, const char *name)
{
	char **more;

	if (names->n == TREE_ENTRIES_MAX)
		return -E2BIG;
	if (names->n == names->cap) {
		names->cap = names->cap ? names->cap * 2 : 32;
		more = reallocarray(names->name, names->cap, sizeof(*more));
		if (!more)
			return -ENOMEM;
		names->name = more;
	}
	names->name[names->n++] = mem_strdup(name);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int names_read(int dirfd, struct names *ret)
{
	int fd = sys_openat(dirfd, ".", O_RDONLY | O_DIRECTORY, 0);
	struct dirent *d;
	DIR *dir;
	int r = 0;

	if (fd < 0)
		return fd;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		sys_close(fd);
		return r;
	}
	while (errno = 0, r == 0 && (d = readdir(dir)))
		if (strcmp(d->d_name, ".") != 0 && strcmp(d->d_name, "..") != 0)
			r = names_add(ret, d->d_name);
	if (r == 0)
		r = -errno;
	closedir(dir);
	if (r == 0 && ret->n)
		qsort(ret->name, ret->n, sizeof(*ret->name), by_text);
	return r;
}

static int walk_dir(struct walk *w, int dirfd);

static int enter(struct walk *w, int dirfd, const char *name)
{
	AUTO_CLOSE int fd = -1;
	int r;

	if (w->depth == TREE_DEPTH_MAX)
		return err_set(w->e, ERR_LIMIT, "the tree is deeper than %d folders",
			       TREE_DEPTH_MAX);
	fd = sys_open_beneath(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (fd < 0)
		return err_sys(w->e, fd, "open %s", w->path);
	w->depth++;
	r = walk_dir(w, fd);
	w->depth--;
	return r;
}

static int visit(struct walk *w, int dirfd, const char *name)
{
	struct entry en = { .path = w->path, .name = name, .dirfd = dirfd };
	size_t path_n = w->path_n;
	int n = snprintf(w->path + path_n, sizeof(w->path) - path_n, "%s%s", path_n ? "/" : "",
			 name);
	int r;

	if (n < 0 || (size_t)n >= sizeof(w->path) - path_n || ++w->entries > TREE_ENTRIES_MAX)
		return err_set(w->e, ERR_LIMIT,
			       "the tree has more than %d entries or a path of more than %d bytes",
			       TREE_ENTRIES_MAX, TREE_PATH_MAX - 1);
	w->path_n += (size_t)n;
	if (statx(dirfd, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, STATX_BASIC_STATS, &en.st) <
	    0)
		return err_sys(w->e, -errno, "look at %s", w->path);
	if (en.st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return err_set(w->e, ERR_CONFLICT,
			       "%s is a mount of something else; unmount it first", w->path);
	r = w->visit(w->arg, &en, w->e);
	if (r == 0 && S_ISDIR(en.st.stx_mode))
		r = enter(w, dirfd, name);
	w->path_n = path_n;
	w->path[path_n] = '\0';
	return r;
}

static int walk_dir(struct walk *w, int dirfd)
{
	struct names names = { 0 };
	int r = names_read(dirfd, &names);

	if (r < 0)
		r = err_sys(w->e, r, "list the folder %s", w->path_n ? w->path : "/");
	for (size_t i = 0; r == 0 && i < names.n; i++)
		r = visit(w, dirfd, names.name[i]);
	names_deinit(&names);
	return r;
}

static int walk(int tree_fd, visit_fn fn, void *arg, uint64_t *ret_entries, struct err *e)
{
	AUTO_FREE struct walk *w = mem_new(sizeof(*w));
	int r;

	*w = (struct walk){ .visit = fn, .arg = arg, .e = e };
	r = walk_dir(w, tree_fd);
	if (r == 0 && ret_entries)
		*ret_entries = w->entries;
	return r;
}

static int measure_one(void *arg, const struct entry *en, struct err *e)
{
	struct tree_size *size = arg;

	(void)e;
	if (S_ISREG(en->st.stx_mode) || S_ISDIR(en->st.stx_mode))
		size->blocks += ((uint64_t)en->st.stx_size + TREE_BLOCK - 1) / TREE_BLOCK;
	else
		size->blocks++; /* a long link text takes a block, most take none */
	return 0;
}

int tree_measure(int tree_fd, struct tree_size *ret, struct err *e)
{
	struct tree_size size = { 0 };
	int r = walk(tree_fd, measure_one, &size, &size.entries, e);

	if (r == 0)
		*ret = size;
	return r;
}

static int disarm_file(const struct entry *en, struct err *e)
{
	AUTO_CLOSE int fd =
		sys_open_beneath(en->dirfd, en->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);

	if (fd < 0)
		return err_sys(e, fd, "open %s", en->path);
	/* Asked for first: removing what is not there is still refused to all but root. */
	if (fgetxattr(fd, FILE_CAPABILITY, NULL, 0) >= 0 && fremovexattr(fd, FILE_CAPABILITY) < 0)
		return err_sys(e, -errno, "take the file capabilities from %s", en->path);
	if (!(en->st.stx_mode & (S_ISUID | S_ISGID)))
		return 0;
	if (fchmod(fd, en->st.stx_mode & 01777) < 0)
		return err_sys(e, -errno, "take the set-id bits from %s", en->path);
	return 0;
}

static int disarm_one(void *arg, const struct entry *en, struct err *e)
{
	(void)arg;
	if (S_ISREG(en->st.stx_mode))
		return disarm_file(en, e);
	if (S_ISDIR(en->st.stx_mode) || S_ISLNK(en->st.stx_mode))
		return 0;
	if (unlinkat(en->dirfd, en->name, 0) < 0)
		return err_sys(e, -errno, "remove the special file %s", en->path);
	return 0;
}

int tree_disarm(int tree_fd, struct err *e)
{
	return walk(tree_fd, disarm_one, NULL, NULL, e);
}

static int hash_link(struct hash *h, const struct entry *en, struct err *e)
{
	char text[TREE_PATH_MAX];
	ssize_t n = readlinkat(en->dirfd, en->name, text, sizeof(text));

	if (n < 0)
		return err_sys(e, -errno, "read the link %s", en->path);
	hash_add(h, text, (size_t)n);
	return 0;
}

static int hash_content(struct hash *h, const struct entry *en, struct err *e)
{
	AUTO_CLOSE int fd =
		sys_open_beneath(en->dirfd, en->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	int r;

	if (fd < 0)
		return err_sys(e, fd, "open %s", en->path);
	r = hash_add_fd(h, fd, NULL, e);
	return r < 0 ? err_wrap(e, "%s", en->path) : 0;
}

static int hash_one(void *arg, const struct entry *en, struct err *e)
{
	struct hash *h = arg;
	bool is_file = S_ISREG(en->st.stx_mode);
	char head[128];
	int n = snprintf(head, sizeof(head), "%o %u %u %" PRIu64 " %u:%u",
			 (unsigned)en->st.stx_mode, en->st.stx_uid, en->st.stx_gid,
			 is_file ? (uint64_t)en->st.stx_size : 0, en->st.stx_rdev_major,
			 en->st.stx_rdev_minor);

	/* Every part ends in NUL or has its length in front: no two trees give the same bytes. */
	hash_add(h, en->path, strlen(en->path) + 1);
	hash_add(h, head, (size_t)n + 1);
	if (is_file)
		return hash_content(h, en, e);
	if (!S_ISLNK(en->st.stx_mode))
		return 0;
	n = hash_link(h, en, e);
	hash_add(h, "", 1);
	return n;
}

int tree_hash(int tree_fd, char ret[HASH_TEXT], uint64_t *ret_entries, struct err *e)
{
	char text[HASH_TEXT];
	struct hash h;
	int r, end;

	hash_begin(&h);
	r = walk(tree_fd, hash_one, &h, ret_entries, e);
	end = hash_end(&h, text, r < 0 ? NULL : e);
	if (r < 0 || end < 0)
		return r < 0 ? r : end;
	memcpy(ret, text, sizeof(text));
	return 0;
}
