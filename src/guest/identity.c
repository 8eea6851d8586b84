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
static const char hosts_path[] = "/etc/hosts";

/* ---- life ---- */

static void read_boot_id(struct identity *i, int dirfd, const char *path)
{
	if (sys_read_file(dirfd, path, i->boot_id, sizeof(i->boot_id)) < 0)
		i->boot_id[0] = '\0';
	i->boot_id[strcspn(i->boot_id, "\n")] = '\0';
}

void identity_init(struct identity *i, struct loop *l, int proc_fd)
{
	*i = (struct identity){.loop = l, .random_fd = -1, .machine_id_fd = -1, .boot_id_fd = -1, .hosts_fd = -1};
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
	(void)sys_close(i->hosts_fd);
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

/* Always as long, so that the next one fits in its place. */
static void format_line(char ret[IDENTITY_LINE + 1])
{
	char name[IDENTITY_LINE] = "";

	(void)gethostname(name, sizeof(name) - 1);
	(void)snprintf(ret, IDENTITY_LINE + 1, "127.0.1.1\t%-64s\n", name);
}

/* The line that we wrote is where it was, in the file that is there: another name takes its place. */
static bool replace_line(struct identity *i, const char *line)
{
	char now[IDENTITY_LINE];
	struct stat st;

	if (i->hosts_fd < 0 || lstat(hosts_path, &st) < 0 || st.st_ino != i->hosts_ino ||
	    sys_pread(i->hosts_fd, now, sizeof(now), i->hosts_at) != IDENTITY_LINE ||
	    memcmp(now, i->hosts_line, IDENTITY_LINE) != 0)
		return false;
	return sys_pwrite_full(i->hosts_fd, line, IDENTITY_LINE, i->hosts_at) == 0;
}

/* @ret: @file without our line, wherever somebody moved it, and with the new one at its end. */
static void move_line(const struct identity *i, struct span file, const char *line, struct str *ret)
{
	const char *old = *i->hosts_line ? memmem(file.p, file.n, i->hosts_line, IDENTITY_LINE) : NULL;
	size_t before = old ? (size_t)(old - file.p) : file.n;

	str_add_mem(ret, file.p, before);
	if (old)
		str_add_mem(ret, old + IDENTITY_LINE, file.n - before - IDENTITY_LINE);
	if (ret->len && ret->p[ret->len - 1] != '\n')
		str_add(ret, "\n");
	str_add(ret, line);
}

/* In place: it may be a mount, and others may have it open. */
static int write_hosts(struct identity *i, const struct str *text)
{
	AUTO_CLOSE int fd =
		sys_openat(AT_FDCWD, hosts_path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0644);
	struct stat st;
	int r = fd < 0 ? fd : sys_pwrite_full(fd, text->p, text->len, 0);

	if (r == 0)
		r = sys_truncate(fd, text->len);
	if (r < 0 || fstat(fd, &st) < 0)
		return r < 0 ? r : -errno;
	(void)sys_close(i->hosts_fd);
	i->hosts_fd = take_fd(&fd);
	i->hosts_ino = st.st_ino;
	i->hosts_at = text->len - IDENTITY_LINE;
	return 0;
}

/* A name that does not resolve makes sudo and others complain or wait. */
static void on_hosts(struct loop_call *c)
{
	struct identity *i = CONTAINER_OF(c, struct identity, hosts);
	struct str text = STR_INIT(HOSTS_MAX);
	char line[IDENTITY_LINE + 1];
	struct span file = {0};
	bool done;

	format_line(line);
	done = replace_line(i, line);
	if (!done && user_load(hosts_path, &file, NULL) == 0) { /* else it is the workload's business */
		move_line(i, file, line, &text);
		done = !text.failed && write_hosts(i, &text) == 0;
	}
	if (done)
		(void)strcpy(i->hosts_line, line);
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
