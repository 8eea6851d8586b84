/* guest/identity.c - the files behind the ids, the kernel's pool, and the line in /etc/hosts */
#include "guest/identity.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/id.h"
#include "base/str.h"
#include "guest/log.h"
#include "guest/reaper.h"
#include "guest/user.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { HOSTS_MAX = 1024 * 1024 };
static const char machine_id_path[] = "/etc/machine-id", machine_id_cover[] = "/run/hotcell-machine-id";
static const char hosts_path[] = "/etc/hosts", hosts_head[] = "127.0.1.1\t";

/* ---- life ---- */

static void read_boot_id(struct identity *i, int dirfd, const char *path)
{
	if (sys_read_file(dirfd, path, i->boot_id, sizeof(i->boot_id)) < 0)
		i->boot_id[0] = '\0';
	i->boot_id[strcspn(i->boot_id, "\n")] = '\0';
}

void identity_init(struct identity *i, struct loop *l, int proc_fd)
{
	*i = (struct identity){.loop = l, .random_fd = -1, .machine_id_fd = -1, .boot_id_fd = -1};
	read_boot_id(i, proc_fd, "sys/kernel/random/boot_id");
}

/* The workload of before may have put anything there, a pipe or a link: only a plain file can be covered. */
static int cover_machine_id(void)
{
	AUTO_CLOSE int target = -1;
	struct stat st;
	int r = 0, fd;

	if (lstat(machine_id_path, &st) < 0 || !S_ISREG(st.st_mode)) {
		r = sys_unlink(AT_FDCWD, machine_id_path);
		if (r == 0)
			r = target = sys_openat(AT_FDCWD, machine_id_path, O_WRONLY | O_CREAT | O_EXCL, 0444);
	}
	if (r < 0)
		return r;
	fd = sys_openat(AT_FDCWD, machine_id_cover, O_WRONLY | O_CREAT | O_NOFOLLOW, 0444);
	if (fd >= 0 && mount(machine_id_cover, machine_id_path, NULL, MS_BIND, NULL) < 0) {
		r = -errno;
		(void)sys_close(fd);
		return r;
	}
	return fd;
}

void identity_cover(struct identity *i, struct guest_log *log)
{
	if (i->random_fd < 0)
		i->random_fd = sys_open("/dev/urandom", O_RDONLY);
	if (i->machine_id_fd < 0)
		i->machine_id_fd = cover_machine_id();
	if (i->machine_id_fd < 0)
		log_line(log, "%s can't be laid over (%d): it is written itself", machine_id_path, i->machine_id_fd);
	(void)sys_close(i->boot_id_fd);
	i->boot_id_fd = sys_open(REAPER_BOOT_ID, O_WRONLY | O_NOFOLLOW);
	read_boot_id(i, AT_FDCWD, REAPER_BOOT_ID);
}

void identity_deinit(struct identity *i)
{
	loop_call_cancel(i->loop, &i->hosts);
	(void)sys_close(i->random_fd);
	(void)sys_close(i->machine_id_fd);
	(void)sys_close(i->boot_id_fd);
}

/* ---- randomness ---- */

int identity_reseed(const struct identity *i, struct span seed, struct err *e)
{
	_Alignas(struct rand_pool_info) unsigned char room[sizeof(struct rand_pool_info) + IDENTITY_SEED_MAX];
	struct rand_pool_info *pool = (void *)room;
	int r = 0;

	if (seed.n > IDENTITY_SEED_MAX)
		return err_set(e, ERR_LIMIT, "seed: at most %d bytes", IDENTITY_SEED_MAX);
	pool->entropy_count = (int)(seed.n * 8);
	pool->buf_size = (int)seed.n;
	memcpy(pool->buf, seed.p, seed.n);
	if (ioctl(i->random_fd, RNDADDENTROPY, pool) < 0 || ioctl(i->random_fd, RNDRESEEDCRNG) < 0)
		r = err_sys(e, -errno, "reseed the random pool");
	explicit_bzero(room, sizeof(room));
	return r;
}

/* ---- ids ---- */

static int replace_machine_id(const char *text)
{
	AUTO_CLOSE int fd = -1;
	int r = sys_unlink(AT_FDCWD, machine_id_path);

	if (r == 0)
		r = fd = sys_openat(AT_FDCWD, machine_id_path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0444);
	if (r >= 0)
		r = sys_write_full(fd, text, strlen(text));
	return r == -ENOENT ? 0 : r; /* an image without /etc has no use for it */
}

int identity_set_machine_id(const struct identity *i, const struct id *id, struct err *e)
{
	char text[ID_TEXT + 1];
	int r;

	id_format(id, text);
	(void)strcat(text, "\n");
	r = i->machine_id_fd < 0 ? replace_machine_id(text) : sys_pwrite_full(i->machine_id_fd, text, strlen(text), 0);
	return r < 0 ? err_sys(e, r, "write %s", machine_id_path) : 0;
}

/* Hexadecimal, with the dashes of a UUID: 8-4-4-4-12. */
static void uuid_format(const struct id *id, char ret[ID_TEXT + 4])
{
	static const unsigned char groups[] = {8, 4, 4, 4, 12};
	char hex[ID_TEXT], *from = hex;

	id_format(id, hex);
	for (size_t g = 0; g < ARRAY_LEN(groups); g++) {
		memcpy(ret, from, groups[g]);
		ret += groups[g];
		from += groups[g];
		*ret++ = '-';
	}
	ret[-1] = '\0';
}

int identity_renew_boot_id(struct identity *i, struct err *e)
{
	char text[ID_TEXT + 5];
	struct id id;
	int r = sys_random(id.b, sizeof(id.b));

	if (r < 0)
		return err_sys(e, r, "random boot id");
	id.b[6] = (unsigned char)((id.b[6] & 0x0f) | 0x40); /* version 4 */
	id.b[8] = (unsigned char)((id.b[8] & 0x3f) | 0x80);
	uuid_format(&id, text);
	(void)strcpy(i->boot_id, text);
	(void)strcat(text, "\n");
	r = i->boot_id_fd < 0 ? -ENOENT : sys_pwrite_full(i->boot_id_fd, text, strlen(text), 0);
	return r < 0 ? err_sys(e, r, "write %s", REAPER_BOOT_ID) : 0;
}

/* ---- host name ---- */

static bool line_has(struct span line, const char *name)
{
	size_t n = strlen(name);

	for (size_t at = 0; n && at + n <= line.n; at++) {
		bool begins = at > 0 && (line.p[at - 1] == ' ' || line.p[at - 1] == '\t');
		bool ends = at + n == line.n || strchr(" \t#", line.p[at + n]);

		if (begins && ends && memcmp(line.p + at, name, n) == 0)
			return true;
	}
	return false;
}

/* The line that we wrote, whole: what somebody else changed is theirs. */
static bool is_ours(struct span line, const char *name)
{
	size_t head = strlen(hosts_head);

	return *name && line.n == head + strlen(name) && memcmp(line.p, hosts_head, head) == 0 &&
	       memcmp(line.p + head, name, line.n - head) == 0;
}

/* @ret: @file without our line of @old and with one of @name. Returns false when @name was there already. */
static bool edit_hosts(struct span file, const char *old, const char *name, struct str *ret)
{
	bool same = strcmp(old, name) == 0, has = false;

	while (file.n) {
		const char *end = memchr(file.p, '\n', file.n);
		struct span line = {file.p, end ? (size_t)(end - file.p) : file.n};

		if (same || !is_ours(line, old)) {
			str_add_mem(ret, line.p, line.n);
			str_add(ret, "\n");
			has |= line.n && line.p[0] != '#' && line_has(line, name);
		}
		file.p += line.n + (end != NULL);
		file.n -= line.n + (end != NULL);
	}
	if (!has)
		str_addf(ret, "%s%s\n", hosts_head, name);
	return !has;
}

/* In place: it may be a mount, and others may have it open. */
static int write_hosts(const struct str *text)
{
	AUTO_CLOSE int fd =
		sys_openat(AT_FDCWD, hosts_path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644);
	int r = fd < 0 ? fd : sys_pwrite_full(fd, text->p, text->len, 0);

	return r < 0 ? r : sys_truncate(fd, text->len);
}

/* A name that does not resolve makes sudo and others complain or wait. */
static void on_hosts(struct loop_call *c)
{
	struct identity *i = CONTAINER_OF(c, struct identity, hosts);
	char name[LIMIT_TEXT_SHORT + 1] = "";
	struct str text = STR_INIT(HOSTS_MAX);
	struct span file;
	bool added;

	(void)gethostname(name, sizeof(name) - 1);
	if (user_load(hosts_path, &file, NULL) < 0)
		return; /* the workload has put something else there: its business */
	added = edit_hosts(file, i->listed, name, &text);
	if (!text.failed && (added || text.len < file.n) && write_hosts(&text) == 0)
		(void)strcpy(i->listed, added || strcmp(i->listed, name) == 0 ? name : "");
	free((void *)file.p);
	str_deinit(&text);
}

void identity_resolve_hostname(struct identity *i)
{
	loop_defer(i->loop, &i->hosts, on_hosts);
}

int identity_set_hostname(struct span name, struct err *e)
{
	for (size_t at = 0; at < name.n; at++)
		if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-", name.p[at]))
			return err_set(e, ERR_INVALID, "hostname: letters, digits, dots and dashes only");
	if (sethostname(name.p, name.n) < 0)
		return err_sys(e, -errno, "set the host name");
	return 0;
}
