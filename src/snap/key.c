/* snap/key.c - the key of this installation */
#include "snap/key_int.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "snap/dir_int.h"
#include "snap/set.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { PURPOSE_MAX = 64 };

#define KEY_PATH SNAP_KEY_FOLDER "/" SNAP_KEY

void key_wipe(struct key *k)
{
	OPENSSL_cleanse(k, sizeof(*k));
}

static int check_file(int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at " KEY_PATH);
	if (!S_ISREG(st.st_mode) || st.st_size != KEY_BYTES)
		return err_set(e, ERR_INVALID, KEY_PATH " is not a key of %d bytes: put the right one "
			       "back, or remove it together with all snapshots", KEY_BYTES);
	if (st.st_mode & 077)
		return err_set(e, ERR_DENIED, KEY_PATH " may be read by others: chmod 600 it");
	return 0;
}

int key_load(int state_fd, struct key *ret, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(state_fd, KEY_PATH, O_RDONLY, 0);
	struct key k;
	int r;

	if (fd < 0)
		return err_sys(e, fd, "open " KEY_PATH);
	r = check_file(fd, e);
	if (r < 0)
		return r;
	r = sys_read_full(fd, k.b, sizeof(k.b));
	if (r < 0)
		return err_sys(e, r, "read " KEY_PATH);
	*ret = k;
	key_wipe(&k);
	return 0;
}

/* Several may do this at once; the first to rename wins, and all then read that one. */
static int write_key(int folder_fd, const char *fresh, const struct key *k)
{
	AUTO_CLOSE int fd = sys_open_beneath(folder_fd, fresh, O_WRONLY | O_CREAT | O_EXCL, 0600);
	int r = fd < 0 ? fd : sys_write_full(fd, k->b, sizeof(k->b));

	if (r == 0)
		r = sys_fsync(fd);
	if (r == 0)
		r = sys_rename(folder_fd, fresh, folder_fd, SNAP_KEY, RENAME_NOREPLACE);
	if (r < 0 && fd >= 0)
		(void)sys_unlink(folder_fd, fresh);
	return r == 0 ? sys_fsync(folder_fd) : r;
}

static int make_key(int state_fd, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	char fresh[64];
	uint64_t suffix;
	struct key k;
	int r = sys_mkdir(state_fd, SNAP_KEY_FOLDER, 0700);

	if (r < 0)
		return err_disk(e, r, "make the folder " SNAP_KEY_FOLDER);
	r = dir_open(state_fd, SNAP_KEY_FOLDER, "", &folder, e);
	if (r < 0)
		return r;
	r = sys_random(&k, sizeof(k));
	if (r == 0)
		r = sys_random(&suffix, sizeof(suffix));
	if (r == 0) {
		(void)snprintf(fresh, sizeof(fresh), SNAP_KEY ".%016" PRIx64 ".new", suffix);
		r = write_key(folder, fresh, &k);
	}
	key_wipe(&k);
	return r < 0 && r != -EEXIST ? err_disk(e, r, "make " KEY_PATH) : 0;
}

int key_ensure(int state_fd, struct key *ret, struct err *e)
{
	struct err missing = ERR_INIT;
	int r = key_load(state_fd, ret, &missing);

	if (r != -ERR_NOT_FOUND)
		return r < 0 ? err_copy(e, &missing) : 0;
	r = make_key(state_fd, e);
	return r < 0 ? r : key_load(state_fd, ret, e);
}

static int sweep_one(void *arg, int folder_fd, const char *name, struct err *e)
{
	int r = str_starts(name, SNAP_KEY ".") ? sys_unlink(folder_fd, name) : 0;

	(void)arg;
	return r < 0 ? err_sys(e, r, "remove the unfinished %s", name) : 0;
}

int key_sweep(int state_fd, struct err *e)
{
	return dir_each(state_fd, SNAP_KEY_FOLDER, sweep_one, NULL, e);
}

int key_mac(const struct key *k, const void *p, size_t n, unsigned char ret[KEY_MAC], struct err *e)
{
	unsigned len = 0;

	if (!HMAC(EVP_sha256(), k->b, sizeof(k->b), p, n, ret, &len) || len != KEY_MAC)
		return err_set(e, ERR_INTERNAL, "the cryptographic library refused to compute HMAC-SHA256");
	return 0;
}

int key_derive(const struct key *k, const char *purpose, const void *salt, size_t n, struct key *ret,
	       struct err *e)
{
	unsigned char text[PURPOSE_MAX + SNAP_SALT] = {0};

	if (strlen(purpose) >= PURPOSE_MAX || n > SNAP_SALT)
		return err_set(e, ERR_INTERNAL, "a key can't be derived for this purpose");
	memcpy(text, purpose, strlen(purpose));
	memcpy(text + PURPOSE_MAX, salt, n);
	return key_mac(k, text, sizeof(text), ret->b, e);
}
