/*
 * keeper/t_files.c - files of every kind, written down and made again; and streams of nobody's
 *
 * Needs root (owners, marks, a tmpfs of its own); skipped otherwise.
 */
#include "keeper/files.h"
#include <fcntl.h>
#include <linux/mount.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include "base/err.h"
#include "base/testing.h"
#include "keeper/files_int.h"
#include "sys/fd.h"
#include "sys/ns.h"

enum { UID = 1234, GID = 5678, SPARSE = 1 << 30, ROOM = 64 << 10 };

struct world {
	int mounts[2], folders[2]; /* from, to: each with "upper" and "tmp" */
	int stream;
};

static int new_folder(struct world *w, unsigned i)
{
	static const char *const opts[] = {"size=64m", "nr_inodes=20000", NULL};
	int fd;

	w->mounts[i] = sys_mount_new("tmpfs", opts, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
	assert_true(w->mounts[i] >= 0);
	assert_int_equal(sys_write_file(w->mounts[i], "outside", "nobody's business"), 0);
	assert_int_equal(sys_mkdir(w->mounts[i], "layer", 0755), 0);
	fd = sys_openat(w->mounts[i], "layer", O_RDONLY | O_DIRECTORY, 0);
	assert_true(fd >= 0);
	for (size_t n = 0; n < ARRAY_LEN(files_roots); n++)
		assert_int_equal(sys_mkdir(fd, files_roots[n], 0755), 0);
	return fd;
}

/* Both layers and the stream, empty. */
static struct world open_world(void)
{
	struct world w;

	if (geteuid() != 0)
		skip();
	for (unsigned i = 0; i < 2; i++)
		w.folders[i] = new_folder(&w, i);
	w.stream = sys_memfd("stream", 0);
	return w;
}

static void close_world(struct world *w)
{
	for (unsigned i = 0; i < 2; i++) {
		(void)sys_close(w->folders[i]);
		(void)sys_close(w->mounts[i]);
	}
	(void)sys_close(w->stream);
}

/* An empty folder to unpack to again. */
static void renew(struct world *w)
{
	(void)sys_close(w->folders[1]);
	(void)sys_close(w->mounts[1]);
	w->folders[1] = new_folder(w, 1);
}

#define WORLD(name)                                                       \
	[[gnu::cleanup(close_world)]] struct world name##_ = open_world(); \
	struct world *name = &name##_

/* ---- making and looking ---- */

static void make(int dir, const char *path, const char *text, mode_t mode)
{
	AUTO_CLOSE int fd = sys_openat(dir, path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	assert_true(fd >= 0);
	assert_int_equal(sys_write_full(fd, text, strlen(text)), 0);
	assert_int_equal(fchown(fd, UID, GID), 0);
	assert_int_equal(fchmod(fd, mode), 0);
}

static void set_attribute(int dir, const char *path, const char *name, const char *value)
{
	AUTO_CLOSE int fd = sys_openat(dir, path, O_RDONLY, 0);

	assert_true(fd >= 0);
	assert_int_equal(fsetxattr(fd, name, value, strlen(value), 0), 0);
}

static void same_attribute(int dir, const char *path, const char *name, const char *want)
{
	AUTO_CLOSE int fd = sys_openat(dir, path, O_RDONLY, 0);
	char got[64] = "";
	ssize_t n;

	assert_true(fd >= 0);
	n = fgetxattr(fd, name, got, sizeof(got) - 1);
	if (!want) {
		assert_int_equal(n, -1);
		assert_int_equal(errno, ENODATA);
	} else {
		assert_int_equal(n, strlen(want));
		assert_string_equal(got, want);
	}
}

static struct stat look(int dir, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(dir, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static void same_text(int dir, const char *path, const char *want)
{
	char got[64];

	assert_int_equal(sys_read_file(dir, path, got, sizeof(got)), strlen(want));
	assert_string_equal(got, want);
}

static void pack(struct world *w)
{
	struct err e = ERR_INIT;

	if (files_pack(w->folders[0], w->stream, 16 * MIB, &e) < 0)
		fail_msg("%s", e.text);
}

static void copy(struct world *w)
{
	struct err e = ERR_INIT;

	pack(w);
	if (files_unpack(w->stream, w->folders[1], &e) < 0)
		fail_msg("%s", e.text);
}

static void refuses_to_pack(struct world *w, uint64_t max, int code, const char *part)
{
	struct err e = ERR_INIT;

	assert_int_equal(files_pack(w->folders[0], w->stream, max, &e), -code);
	assert_non_null(strstr(e.text, part));
}

/* ---- there and back ---- */

static void files_and_folders(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	const struct timespec when[2] = {{0, UTIME_OMIT}, {1234567890, 987654321}};
	int from = w->folders[0], to = w->folders[1];
	struct stat st;

	assert_int_equal(sys_mkdir(from, "upper/a", 0700), 0);
	assert_int_equal(sys_mkdir(from, "upper/a/b", 0700), 0);
	make(from, "upper/a/b/file", "what is in it", 0640);
	make(from, "upper/set-ids", "program", 06755);
	make(from, "upper/none of\nyour\x01 names\xff", "", 0);
	make(from, "tmp/there", "too", 0600);
	assert_int_equal(fchmodat(from, "upper/a", 0501, 0), 0);
	assert_int_equal(fchownat(from, "upper/a", UID, GID, 0), 0);
	assert_int_equal(fchmodat(from, "tmp", 01777, 0), 0);
	assert_int_equal(utimensat(from, "upper/a/b/file", when, 0), 0);
	assert_int_equal(utimensat(from, "upper/a", when, 0), 0);
	copy(w);
	same_text(to, "upper/a/b/file", "what is in it");
	same_text(to, "tmp/there", "too");
	st = look(to, "upper/a/b/file");
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_uid, UID);
	assert_int_equal(st.st_gid, GID);
	assert_int_equal(st.st_mtim.tv_sec, when[1].tv_sec);
	assert_int_equal(st.st_mtim.tv_nsec, when[1].tv_nsec);
	st = look(to, "upper/a");
	assert_int_equal(st.st_mode, S_IFDIR | 0501);
	assert_int_equal(st.st_uid, UID);
	assert_int_equal(st.st_mtim.tv_nsec, when[1].tv_nsec);
	assert_int_equal(look(to, "upper/set-ids").st_mode, S_IFREG | 06755);
	assert_int_equal(look(to, "upper/none of\nyour\x01 names\xff").st_mode, S_IFREG);
	assert_int_equal(look(to, "tmp").st_mode, S_IFDIR | 01777);
}

static void links_and_specials(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	int from = w->folders[0], to = w->folders[1];
	char target[64] = "";

	make(from, "upper/first", "one file", 0644);
	assert_int_equal(sys_mkdir(from, "upper/d", 0755), 0);
	assert_int_equal(sys_link(from, "upper/first", from, "upper/d/second"), 0);
	assert_int_equal(sys_link(from, "upper/first", from, "tmp/third"), 0);
	assert_int_equal(symlinkat("/etc/passwd", from, "upper/out"), 0);
	assert_int_equal(symlinkat("../../../../outside", from, "upper/up"), 0);
	assert_int_equal(fchownat(from, "upper/out", UID, GID, AT_SYMLINK_NOFOLLOW), 0);
	assert_int_equal(mknodat(from, "upper/fifo", S_IFIFO | 0620, 0), 0);
	assert_int_equal(mknodat(from, "upper/socket", S_IFSOCK | 0777, 0), 0);
	assert_int_equal(mknodat(from, "upper/deleted", S_IFCHR, 0), 0);
	assert_int_equal(sys_link(from, "upper/deleted", from, "upper/deleted too"), 0); /* as overlays do */
	copy(w);
	assert_int_equal(look(to, "upper/first").st_nlink, 3);
	assert_int_equal(look(to, "upper/first").st_ino, look(to, "upper/d/second").st_ino);
	assert_int_equal(look(to, "upper/first").st_ino, look(to, "tmp/third").st_ino);
	same_text(to, "tmp/third", "one file");
	assert_int_equal(readlinkat(to, "upper/out", target, sizeof(target)), strlen("/etc/passwd"));
	assert_string_equal(target, "/etc/passwd");
	assert_int_equal(look(to, "upper/out").st_uid, UID);
	assert_true(S_ISLNK(look(to, "upper/up").st_mode));
	assert_int_equal(look(to, "upper/fifo").st_mode & ~0022, S_IFIFO | 0600);
	assert_int_equal(look(to, "upper/fifo").st_mode, look(from, "upper/fifo").st_mode);
	assert_true(S_ISSOCK(look(to, "upper/socket").st_mode));
	assert_true(S_ISCHR(look(to, "upper/deleted").st_mode));
	assert_true(S_ISCHR(look(to, "upper/deleted too").st_mode));
	assert_int_equal(look(to, "upper/deleted").st_rdev, 0);
	same_text(w->mounts[1], "outside", "nobody's business");
}

static void attributes(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const char capability[] = "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0";
	int from = w->folders[0], to = w->folders[1];
	AUTO_CLOSE int fd = -1;
	char got[32];

	make(from, "upper/file", "", 0644);
	assert_int_equal(sys_mkdir(from, "upper/new", 0755), 0);
	fd = sys_openat(from, "upper/file", O_RDONLY, 0);
	if (fsetxattr(fd, "user.hotcell", "1", 1, 0) < 0 && errno == EOPNOTSUPP)
		skip(); /* Linux before 6.6 */
	assert_int_equal(fsetxattr(fd, "security.capability", capability, 20, 0), 0);
	set_attribute(from, "upper/new", "user.overlay.opaque", "y");
	set_attribute(from, "upper/new", "user.overlay.origin", "somewhere");
	set_attribute(from, "upper/new", "user.overlay.overlay.opaque", "y");
	set_attribute(from, "upper/new", "trusted.mine", "no");
	set_attribute(from, "upper/file", "user.overlay.redirect", "/etc");
	copy(w);
	same_attribute(to, "upper/file", "user.hotcell", "1");
	same_attribute(to, "upper/file", "user.overlay.redirect", NULL);
	same_attribute(to, "upper/new", "user.overlay.opaque", "y");
	same_attribute(to, "upper/new", "user.overlay.overlay.opaque", "y");
	same_attribute(to, "upper/new", "user.overlay.origin", NULL);
	same_attribute(to, "upper/new", "trusted.mine", NULL);
	fd = sys_close(fd);
	fd = sys_openat(to, "upper/file", O_RDONLY, 0);
	assert_int_equal(fgetxattr(fd, "security.capability", got, sizeof(got)), 20);
	assert_memory_equal(got, capability, 20);
}

static void holes(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	int from = w->folders[0], to = w->folders[1];
	AUTO_CLOSE int fd = sys_openat(from, "upper/sparse", O_RDWR | O_CREAT, 0600), got = -1;
	struct stat st;
	char text[8] = "";

	assert_int_equal(sys_truncate(fd, SPARSE), 0);
	assert_int_equal(sys_pwrite_full(fd, "middle", 6, SPARSE / 2), 0);
	assert_int_equal(sys_pwrite_full(fd, "end", 3, SPARSE - 3), 0);
	copy(w);
	assert_int_equal(fstat(w->stream, &st), 0);
	assert_true(st.st_size < ROOM);
	assert_int_equal(st.st_size % 4096, 0);
	st = look(to, "upper/sparse");
	assert_int_equal(st.st_size, SPARSE);
	assert_true(st.st_blocks * 512 <= ROOM);
	got = sys_openat(to, "upper/sparse", O_RDONLY, 0);
	assert_int_equal(sys_pread(got, text, 6, SPARSE / 2), 6);
	assert_string_equal(text, "middle");
	assert_int_equal(sys_pread(got, text, 8, SPARSE - 3), 3);
	assert_memory_equal(text, "end", 3);
}

/* A stream of a stream's files is the same stream; every second time, as a tmpfs lists backwards. */
static void again_and_again(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	char *first, *last, name[32];
	struct stat st, now;

	for (unsigned i = 0; i < 300; i++) {
		(void)snprintf(name, sizeof(name), "upper/file %u", i);
		make(w->folders[0], name, name, 0600 + i % 8);
	}
	copy(w);
	assert_int_equal(fstat(w->stream, &st), 0);
	first = malloc((size_t)st.st_size);
	assert_int_equal(sys_pread(w->stream, first, (size_t)st.st_size, 0), st.st_size);
	for (unsigned turn = 0; turn < 2; turn++) {
		(void)sys_close(w->folders[0]);
		(void)sys_close(w->mounts[0]);
		w->mounts[0] = w->mounts[1];
		w->folders[0] = w->folders[1];
		w->folders[1] = new_folder(w, 1);
		assert_int_equal(ftruncate(w->stream, 0), 0);
		copy(w);
	}
	assert_int_equal(fstat(w->stream, &now), 0);
	assert_int_equal(now.st_size, st.st_size);
	last = malloc((size_t)st.st_size);
	assert_int_equal(sys_pread(w->stream, last, (size_t)st.st_size, 0), st.st_size);
	assert_memory_equal(last, first, (size_t)st.st_size);
	free(last);
	free(first);
}

/* ---- what is not written down ---- */

static void a_device(void **state)
{
	T_UNUSED(state);
	WORLD(w);

	assert_int_equal(mknodat(w->folders[0], "upper/null", S_IFCHR | 0666, makedev(1, 3)), 0);
	refuses_to_pack(w, MIB, ERR_INVALID, "null: is a device");
}

static void too_much(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	char bytes[4096];

	memset(bytes, 'x', sizeof(bytes) - 1);
	bytes[sizeof(bytes) - 1] = '\0';
	make(w->folders[0], "upper/big", bytes, 0600);
	refuses_to_pack(w, 4096, ERR_LIMIT, "to write down");
	pack(w);
}

static int dig(int dir, unsigned depth)
{
	int at = sys_openat(dir, "upper", O_RDONLY | O_DIRECTORY, 0);

	for (unsigned i = 1; i < depth; i++) {
		int next;

		assert_int_equal(sys_mkdir(at, "d", 0755), 0);
		next = sys_openat(at, "d", O_RDONLY | O_DIRECTORY, 0);
		(void)sys_close(at);
		at = next;
	}
	return at;
}

static void depth(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	AUTO_CLOSE int deepest = dig(w->folders[0], FILES_DEPTH_MAX), there = -1;

	make(deepest, "file", "down here", 0600);
	copy(w);
	there = sys_openat(w->folders[1], "upper", O_RDONLY | O_DIRECTORY, 0);
	for (unsigned i = 1; i < FILES_DEPTH_MAX; i++) {
		int next = sys_openat(there, "d", O_RDONLY | O_DIRECTORY, 0);

		assert_true(next >= 0);
		(void)sys_close(there);
		there = next;
	}
	same_text(there, "file", "down here");
	assert_int_equal(sys_mkdir(deepest, "one more", 0755), 0);
	refuses_to_pack(w, MIB, ERR_LIMIT, "within one another");
}

/* ---- streams nobody packed ---- */

struct writer {
	int fd;
	uint64_t at;
};

static void add(struct writer *t, const void *p, size_t n)
{
	assert_int_equal(sys_pwrite_full(t->fd, p, n, t->at), 0);
	t->at += n;
}

static struct writer begin(struct world *w)
{
	struct writer t = {w->stream, 0};

	assert_int_equal(sys_truncate(w->stream, 0), 0);
	add(&t, FILES_MAGIC, FILES_MAGIC_BYTES);
	return t;
}

static void record(struct writer *t, char type, const char *name, const char *content, uint64_t at)
{
	const struct files_record rec = {
		.type = (uint32_t)type,
		.name_len = name ? (uint32_t)strlen(name) : 0,
		.mode = 0755,
		.size = content ? strlen(content) : 0,
		.at = at,
	};

	add(t, &rec, sizeof(rec));
	add(t, name ? name : "", rec.name_len);
	add(t, content ? content : "", (size_t)rec.size);
}

static void refused(struct world *w, const char *part)
{
	struct err e = ERR_INIT;
	int r = files_unpack(w->stream, w->folders[1], &e);

	assert_true(r < 0);
	if (!strstr(e.text, part))
		fail_msg("\"%s\" is not in \"%s\"", part, e.text);
	same_text(w->mounts[1], "outside", "nobody's business");
}

static void names_that_lead_out(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const char *const names[] = {"..", ".", "../outside", "/outside", "a/b", "a/"};
	static const char types[] = "dflpsw";

	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		for (const char *type = types; *type; type++) {
			struct writer t = begin(w);

			record(&t, 'd', "upper", NULL, 0);
			record(&t, *type, names[i], *type == 'l' ? "x" : NULL, 0);
			refused(w, "a name that is none");
		}
}

static void links_that_lead_out(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const struct {
		const char *path, *part;
	} links[] = {
		{"../outside", "find what a link is another name of"},
		{"upper/../../outside", "find what a link is another name of"},
		{"upper/way/outside", "find what a link is another name of"},
		{"/etc/passwd", "find what a link is another name of"},
		{"upper/..", "no path"},
		{"upper", "no path"},
		{"upper/", "no path"},
		{"/", "no path"},
		{"upper/nothing", "make a hard link"},
	};

	for (size_t i = 0; i < ARRAY_LEN(links); i++) {
		struct writer t = begin(w);

		record(&t, 'd', "upper", NULL, 0);
		if (i == 0)
			record(&t, 'l', "way", "../..", 0);
		record(&t, 'h', "name", links[i].path, 0);
		refused(w, links[i].part);
	}
}

/* A symbolic link made by the stream is no way for what comes after it in the stream. */
static void through_a_link(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	struct writer t = begin(w);

	record(&t, 'd', "upper", NULL, 0);
	record(&t, 'l', "way", "../../outside", 0);
	record(&t, 'f', "way", NULL, 0);
	refused(w, "make a file");
	t = begin(w);
	record(&t, 'd', "upper", NULL, 0);
	record(&t, 'd', "way", NULL, 0);
	refused(w, "make a folder");
}

static void out_of_place(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const struct {
		char type;
		const char *name, *content, *part;
	} first[] = {
		{'f', "file", NULL, "outside of a folder"}, {'d', "work", NULL, "no place"},
		{'d', "..", NULL, "no place"},		    {'e', NULL, NULL, "an end of nothing"},
		{'b', NULL, "data", "outside of a file"},   {'x', "user.x", "1", "an attribute of nothing"},
		{'?', NULL, NULL, "of no kind"},	    {'d', NULL, NULL, "no length"},
		{'e', "upper", NULL, "no length"},
	};

	for (size_t i = 0; i < ARRAY_LEN(first); i++) {
		struct writer t = begin(w);

		record(&t, first[i].type, first[i].name, first[i].content, 0);
		refused(w, first[i].part);
	}
}

static void what_nobody_may_bring(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const char *const attributes_[] = {"trusted.overlay.redirect", "user.overlay.redirect",
						  "user.overlay.metacopy", "security.selinux", "system.x"};

	for (size_t i = 0; i < ARRAY_LEN(attributes_); i++) {
		struct writer t = begin(w);

		record(&t, 'd', "upper", NULL, 0);
		record(&t, 'x', attributes_[i], "/etc", 0);
		refused(w, "nobody may bring");
	}
}

static void beyond_the_end(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	static const uint64_t places[] = {1, UINT64_MAX, UINT64_MAX - 2, INT64_MAX};

	for (size_t i = 0; i < ARRAY_LEN(places); i++) {
		struct writer t = begin(w);
		char name[16];

		(void)snprintf(name, sizeof(name), "file %zu", i);
		record(&t, 'd', "upper", NULL, 0);
		record(&t, 'f', name, NULL, 0);
		record(&t, 'b', NULL, "data", places[i]);
		refused(w, "beyond the end");
	}
}

static void cut_off_or_changed(void **state)
{
	T_UNUSED(state);
	WORLD(w);
	char *bytes;
	size_t n;
	struct stat st;
	struct err e = ERR_INIT;

	make(w->folders[0], "upper/file", "text", 0644);
	assert_int_equal(symlinkat("there", w->folders[0], "upper/link"), 0);
	assert_int_equal(sys_link(w->folders[0], "upper/file", w->folders[0], "tmp/name"), 0);
	pack(w);
	assert_int_equal(fstat(w->stream, &st), 0);
	n = (size_t)st.st_size;
	bytes = malloc(n);
	assert_int_equal(sys_pread(w->stream, bytes, n, 0), n);
	while (n && bytes[n - 1] == 0)
		n--;
	for (size_t cut = 0; cut < n; cut++) { /* the last record's own tail is zeros */
		assert_int_equal(sys_truncate(w->stream, 0), 0);
		assert_int_equal(sys_pwrite_full(w->stream, bytes, cut, 0), 0);
		renew(w);
		assert_int_equal(files_unpack(w->stream, w->folders[1], &e), -ERR_INVALID);
	}
	for (size_t at = 0; at < n; at++) { /* whatever comes of it: nothing outside */
		char other = (char)(bytes[at] ^ (at % 2 ? 0xff : 1));

		assert_int_equal(sys_pwrite_full(w->stream, bytes, n, 0), 0);
		assert_int_equal(sys_pwrite_full(w->stream, &other, 1, at), 0);
		assert_int_equal(sys_truncate(w->stream, (n + 48 + 4095) & ~4095ull), 0);
		renew(w);
		(void)files_unpack(w->stream, w->folders[1], &e);
		same_text(w->mounts[1], "outside", "nobody's business");
	}
	free(bytes);
}

T_MAIN(T(files_and_folders), T(links_and_specials), T(attributes), T(holes), T(again_and_again), T(a_device),
       T(too_much), T(depth), T(names_that_lead_out), T(links_that_lead_out), T(through_a_link), T(out_of_place),
       T(what_nobody_may_bring), T(beyond_the_end), T(cut_off_or_changed))
