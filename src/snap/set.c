/*
 * snap/set.c - snapshot sets on disk
 *
 * The manifest is written last and the folder renamed after everything is synced,
 * so whoever sees a set sees all of it (SET-1).
 */
#include "snap/set.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "snap/dir_int.h"
#include "snap/key_int.h"
#include "snap/layers.h"
#include "snap/layers_int.h"
#include "snap/manifest_int.h"
#include "snap/memory_int.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define FILES	 "files"
#define STATE	 "state"
#define MANIFEST "manifest"
#define PURPOSE	 "hotcell memory 1"
#define OF_BASE	 "hotcell base 1"

/* A process sandbox has no memory of its own; what its set has is the files. */
static bool is_files(const struct snap_manifest *m)
{
	return strcmp(m->driver, "process") == 0;
}

static const char *memory_name(const struct snap_manifest *m)
{
	return is_files(m) ? FILES : SNAP_MEMORY;
}

static int sum_of(const void *p, size_t n, unsigned char ret[SNAP_SUM], struct err *e)
{
	unsigned len = 0;

	if (EVP_Digest(p, n, ret, &len, EVP_sha256(), NULL) != 1 || len != SNAP_SUM)
		return err_set(e, ERR_INTERNAL, "the cryptographic library refused to compute SHA-256");
	return 0;
}

static int file_size(int fd, uint64_t *ret, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_sys(e, -errno, "look at a file's size");
	*ret = (uint64_t)st.st_size;
	return 0;
}

/* ---- writing ---- */

struct save {
	struct snap_manifest m;
	struct key key;
	int state_fd, folder; /* the state directory; the new set's folder */
};

static int sync_file(int fd, const char *name, struct err *e)
{
	int r = sys_fsync(fd);

	return r < 0 ? err_disk(e, r, "sync the %s", name) : 0;
}

static int new_file(const struct save *s, const char *name, struct err *e)
{
	int fd = sys_open_beneath(s->folder, name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	return fd < 0 ? err_disk(e, fd, "make the file of the %s", name) : fd;
}

/* Keys of two tags: their nonces are constant. */
static int derive(const struct key *k, const struct snap_manifest *m, struct key *ret, struct key *ret_base,
		  struct err *e)
{
	int r = key_derive(k, PURPOSE, m->memory_salt, SNAP_SALT, ret, e);

	return r == 0 ? key_derive(k, OF_BASE, m->memory_salt, SNAP_SALT, ret_base, e) : r;
}

/* The memory its machine began with becomes a part of the set; -1: it has none that is of use. */
static int link_base(const struct save *s, int *ret, struct err *e)
{
	AUTO_CLOSE int from = -1, fd = -1;
	char name[DIR_NAME], path[DIR_PATH];
	uint64_t size = 0;
	int r;

	*ret = -1;
	if (is_files(&s->m) || strcmp(s->m.kind, "template") == 0)
		return 0;
	dir_name(&s->m.sandbox, "", name);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s", name);
	from = sys_open_beneath(s->state_fd, path, O_RDONLY | O_DIRECTORY, 0);
	r = from < 0 ? from : layers_link_base(from, LAYERS_BASE, s->folder);
	if (r == 0)
		r = fd = sys_open_beneath(s->folder, LAYERS_BASE, O_RDONLY, 0);
	if (r < 0)
		return r == -ENOENT ? 0 : err_disk(e, r, "keep what the memory began with");
	r = file_size(fd, &size, e);
	if (r == 0 && size == s->m.memory_size) {
		*ret = take_fd(&fd);
	} else if (r == 0) {
		r = sys_unlink(s->folder, LAYERS_BASE);
		r = r < 0 ? err_sys(e, r, "let go of another machine's memory") : 0;
	}
	return r;
}

static int write_memory(struct save *s, int memory_fd, int base, int fd, struct err *e)
{
	struct snap_manifest *m = &s->m;
	struct memory_delta d = {0};
	struct key k, base_k;
	int r = derive(&s->key, m, &k, &base_k, e);

	if (r == 0 && base >= 0)
		r = memory_compare(memory_fd, base, fd, m->memory_size, &k, &base_k, &d, e);
	else if (r == 0)
		r = memory_copy(memory_fd, fd, m->memory_size, &k, &d.own, e);
	key_wipe(&k);
	key_wipe(&base_k);
	if (r < 0)
		return r;
	memcpy(m->memory_tag, d.own.tag, SNAP_TAG);
	m->memory_bytes = base >= 0 ? d.bytes : d.own.bytes;
	if (base >= 0) {
		m->own_bytes = d.own.bytes;
		m->base_size = m->memory_size;
		memcpy(m->base_tag, d.base.tag, SNAP_TAG);
	}
	return 0;
}

static int save_memory(struct save *s, int memory_fd, struct err *e)
{
	AUTO_CLOSE int fd = -1, base = -1;
	int r = file_size(memory_fd, &s->m.memory_size, e);

	if (r < 0)
		return r;
	if (!s->m.memory_size || s->m.memory_size % MEMORY_PAGE)
		return err_set(e, ERR_INVALID, "the %s of a snapshot is not whole pages", memory_name(&s->m));
	r = sys_random(s->m.memory_salt, SNAP_SALT);
	if (r < 0)
		return err_sys(e, r, "get random bytes");
	r = fd = new_file(s, memory_name(&s->m), e);
	if (r >= 0)
		r = link_base(s, &base, e);
	if (r >= 0)
		r = write_memory(s, memory_fd, base, fd, e);
	return r < 0 ? r : sync_file(fd, memory_name(&s->m), e);
}

/* All @n bytes from the start; *ret is to be freed. @what: in messages. */
static int read_whole(int fd, const char *what, uint64_t n, char **ret, struct err *e)
{
	AUTO_FREE char *text = mem_try(n ? n : 1);

	if (!text)
		return err_set(e, ERR_LIMIT, "no memory to read the %s", what);
	for (uint64_t done = 0; done < n;) {
		ssize_t r = sys_pread(fd, text + done, n - done, done);

		if (r < 0)
			return err_sys(e, (int)r, "read the %s", what);
		if (r == 0)
			return err_set(e, ERR_INVALID, "the %s is cut off", what);
		done += (uint64_t)r;
	}
	*ret = take_ptr(&text);
	return 0;
}

static int save_state(struct save *s, int device_state_fd, struct err *e)
{
	AUTO_FREE char *bytes = NULL;
	AUTO_CLOSE int fd = -1;
	int r = file_size(device_state_fd, &s->m.state_bytes, e);

	if (r < 0)
		return r;
	if (s->m.state_bytes > SNAP_STATE_MAX)
		return err_set(e, ERR_LIMIT, "the machine's devices have more state than %d MiB",
			       SNAP_STATE_MAX >> 20);
	r = read_whole(device_state_fd, STATE, s->m.state_bytes, &bytes, e);
	if (r == 0)
		r = sum_of(bytes, s->m.state_bytes, s->m.state_sum, e);
	if (r == 0)
		r = fd = new_file(s, STATE, e);
	if (r < 0)
		return r;
	r = sys_write_full(fd, bytes, s->m.state_bytes);
	return r < 0 ? err_disk(e, r, "write the state") : sync_file(fd, STATE, e);
}

/* ---- layers: length and beginning ---- */

static int sum_layer(int folder, unsigned n, unsigned char ret[SNAP_LAYER_SUM], struct err *e)
{
	unsigned char all[SNAP_SUM + sizeof(uint64_t)], sum[SNAP_SUM];
	AUTO_FREE char *head = NULL;
	AUTO_CLOSE int fd = -1;
	uint64_t size = 0, head_bytes;
	char name[32];
	int r;

	(void)snprintf(name, sizeof(name), "layer-%u", n);
	fd = sys_open_beneath(folder, name, O_RDONLY, 0);
	if (fd < 0)
		return fd == -ENOENT ? err_set(e, ERR_INVALID, "its %s is missing", name)
				     : err_sys(e, fd, "open its %s", name);
	r = file_size(fd, &size, e);
	if (r < 0)
		return r;
	head_bytes = MIN(size, (uint64_t)SNAP_LAYER_HEAD);
	r = read_whole(fd, name, head_bytes, &head, e);
	if (r == 0)
		r = sum_of(head, head_bytes, all, e);
	size = htole64(size);
	memcpy(all + SNAP_SUM, &size, sizeof(size));
	if (r == 0)
		r = sum_of(all, sizeof(all), sum, e);
	if (r == 0)
		memcpy(ret, sum, SNAP_LAYER_SUM);
	return r;
}

static int sum_layers(struct snap_manifest *m, int folder, struct err *e)
{
	int r = 0;

	for (unsigned i = 0; i < m->layers && r == 0; i++)
		r = sum_layer(folder, i, m->layer_sums[i], e);
	return r;
}

static int check_layers(const struct snap_manifest *m, int folder, struct err *e)
{
	for (unsigned i = 0; i < m->layers; i++) {
		unsigned char sum[SNAP_LAYER_SUM];
		int r = sum_layer(folder, i, sum, e);

		if (r < 0)
			return r;
		if (memcmp(sum, m->layer_sums[i], SNAP_LAYER_SUM) != 0)
			return err_set(e, ERR_INVALID, "its layer-%u is damaged: it has another length or "
				       "beginning", i);
	}
	return 0;
}

/* The disk of a pause stays where it is; that of a snapshot is shared. Both are synced. */
static int save_layers(struct save *s, const char *layers_from, struct err *e)
{
	AUTO_CLOSE int from = -1;
	char path[DIR_PATH], name[DIR_NAME];
	int r = 0, disk;

	if (!s->m.layers)
		return 0;
	dir_name(&s->m.id, "", name);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s", name);
	if (layers_from)
		r = dir_path_ok(layers_from, e);
	if (r == 0)
		r = dir_open(s->state_fd, layers_from ? layers_from : path, "", &from, e);
	if (r == 0 && layers_from)
		r = layers_share(from, s->folder, (unsigned)s->m.layers, e);
	if (r < 0)
		return r;
	disk = layers_from ? s->folder : from;
	r = layers_sync(disk, (unsigned)s->m.layers, e);
	if (r == 0)
		r = sum_layers(&s->m, disk, e); /* of the copies, if they are any: nobody else writes to them */
	return r == 0 && !layers_from ? sync_file(from, "folder of the disk", e) : r;
}

static int save_manifest(struct save *s, struct err *e)
{
	struct str text = STR_INIT(SNAP_MANIFEST_MAX);
	AUTO_CLOSE int fd = -1;
	int r = manifest_write(&s->m, &s->key, &text, e);

	if (r == 0)
		r = fd = new_file(s, MANIFEST, e);
	if (r >= 0) {
		r = sys_write_full(fd, text.p, text.len);
		r = r < 0 ? err_disk(e, r, "write the manifest") : sync_file(fd, MANIFEST, e);
	}
	str_deinit(&text);
	return r;
}

static int save_files(struct save *s, int memory_fd, int device_state_fd, const char *layers_from,
		      struct err *e)
{
	int r = 0;

	if (memory_fd >= 0)
		r = save_memory(s, memory_fd, e);
	if (r == 0 && memory_fd >= 0 && !is_files(&s->m))
		r = save_state(s, device_state_fd, e);
	if (r == 0)
		r = save_layers(s, layers_from, e);
	if (r == 0)
		r = save_manifest(s, e);
	return r == 0 ? sync_file(s->folder, "snapshot's folder", e) : r;
}

/* The set appears. When that can't be made to last, it disappears again. */
static int publish(int parent, const char *fresh, const char *name, struct err *e)
{
	int r = sys_rename(parent, fresh, parent, name, RENAME_NOREPLACE);

	if (r < 0)
		return r == -EEXIST ? err_set(e, ERR_CONFLICT, "there is a snapshot %s already", name)
				    : err_disk(e, r, "put a snapshot in its place");
	r = sync_file(parent, "folder of the snapshots", e);
	if (r < 0)
		(void)sys_rename(parent, name, parent, fresh, 0);
	return r;
}

static void forget_sums(struct snap_manifest *m)
{
	m->memory_size = m->memory_bytes = m->state_bytes = m->own_bytes = m->base_size = 0;
	memset(m->memory_salt, 0, sizeof(m->memory_salt));
	memset(m->memory_tag, 0, sizeof(m->memory_tag));
	memset(m->state_sum, 0, sizeof(m->state_sum));
	memset(m->layer_sums, 0, sizeof(m->layer_sums));
	memset(m->base_tag, 0, sizeof(m->base_tag));
}

static int save_set(struct save *s, int memory_fd, int device_state_fd, const char *layers_from,
		    struct err *e)
{
	AUTO_CLOSE int parent = -1, folder = -1;
	char name[DIR_NAME], fresh[DIR_NAME];
	int r;

	dir_name(&s->m.id, "", name);
	dir_name(&s->m.id, ".new", fresh);
	r = dir_make(s->state_fd, SNAPSHOTS_FOLDER, fresh, &parent, &folder, e);
	if (r < 0)
		return r;
	s->folder = folder;
	r = save_files(s, memory_fd, device_state_fd, layers_from, e);
	if (r == 0)
		r = publish(parent, fresh, name, e);
	if (r < 0)
		(void)sys_remove_tree(parent, fresh);
	return r;
}

int snap_save(int state_fd, struct snap_manifest *m, int memory_fd, int device_state_fd,
	      const char *layers_from, struct err *e)
{
	struct save s = {.m = *m, .state_fd = state_fd, .folder = -1};
	int r;

	forget_sums(&s.m);
	r = manifest_check(&s.m, e);
	if (r == 0)
		r = key_ensure(state_fd, &s.key, e);
	if (r == 0)
		r = save_set(&s, memory_fd, device_state_fd, layers_from, e);
	key_wipe(&s.key);
	if (r == 0)
		*m = s.m;
	return r;
}

/* ---- reading ---- */

/* An unusable set: which, why, and what can still be done with it. @m: NULL when even that is not known. */
static int unusable(const struct id *id, const struct snap_manifest *m, int code, struct err *e)
{
	char name[ID_TEXT], out[192];

	if (code != -ERR_INVALID && code != -ERR_DENIED && code != -ERR_UNSUPPORTED)
		return code;
	id_format(id, name);
	if (m && strcmp(m->kind, "pause") == 0)
		(void)snprintf(out, sizeof(out), "the sandbox can't go on: roll it back or remove it");
	else if (m && m->layers)
		(void)snprintf(out, sizeof(out), "hotcell create --snapshot %s --disk-only starts from its "
			       "disk, hotcell snapshot rm %s removes it", name, name);
	else
		(void)snprintf(out, sizeof(out), "hotcell snapshot rm %s removes it", name);
	if (e)
		(void)snprintf(e->text + strnlen(e->text, 200), sizeof(e->text) - 200, "; %s", out);
	return err_wrap(e, "snapshot %s", name);
}

static int read_manifest(int folder, const struct key *k, const struct id *id,
			 struct snap_manifest *ret, struct err *e)
{
	char text[SNAP_MANIFEST_MAX + 2];
	ssize_t n = sys_read_file(folder, MANIFEST, text, sizeof(text));
	struct snap_manifest m;
	int r;

	if (n == -ENOENT || n == -EFBIG)
		return err_set(e, ERR_INVALID, "its manifest is damaged: it is %s",
			       n == -EFBIG ? "too long" : "missing");
	if (n < 0)
		return err_sys(e, (int)n, "read its manifest");
	r = manifest_read(text, (size_t)n, k, &m, e);
	if (r < 0)
		return r;
	if (!id_eq(&m.id, id))
		return err_set(e, ERR_INVALID, "its manifest is that of another snapshot");
	*ret = m;
	return 0;
}

static int open_set(int state_fd, const struct id *id, int *ret, struct err *e)
{
	char path[DIR_PATH], name[DIR_NAME];
	int fd;

	dir_name(id, "", name);
	(void)snprintf(path, sizeof(path), SNAPSHOTS_FOLDER "/%s", name);
	fd = sys_open_beneath(state_fd, path, O_RDONLY | O_DIRECTORY, 0);
	if (fd < 0)
		return fd == -ENOENT ? err_set(e, ERR_NOT_FOUND, "there is no snapshot %s", name)
				     : err_sys(e, fd, "open snapshot %s", name);
	*ret = fd;
	return 0;
}

static int load_key(int state_fd, struct key *ret, struct err *e)
{
	int r = key_load(state_fd, ret, e);

	return r == -ERR_NOT_FOUND ? err_set(e, ERR_DENIED, "it was made on another installation: the key "
					     "of this one, " SNAP_KEY_FOLDER "/" SNAP_KEY ", is missing") : r;
}

/* Open and verify the manifest; *ret_folder, *k for what else is to be read. */
static int enter(int state_fd, const struct id *id, int *ret_folder, struct key *k,
		 struct snap_manifest *ret, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	int r = open_set(state_fd, id, &folder, e);

	if (r < 0)
		return r;
	r = load_key(state_fd, k, e);
	if (r == 0)
		r = read_manifest(folder, k, id, ret, e);
	if (r < 0)
		return unusable(id, NULL, r, e);
	*ret_folder = take_fd(&folder);
	return 0;
}

int snap_manifest_load(int state_fd, const struct id *id, struct snap_manifest *ret, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	struct key k = {{0}};
	int r = enter(state_fd, id, &folder, &k, ret, e);

	key_wipe(&k);
	return r;
}

/* Open a part that should have @size bytes. */
static int open_part(int folder, const char *name, uint64_t size, int *ret, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(folder, name, O_RDONLY, 0);
	uint64_t is;
	int r;

	if (fd < 0)
		return fd == -ENOENT ? err_set(e, ERR_INVALID, "its %s is missing", name)
				     : err_sys(e, fd, "open its %s", name);
	r = file_size(fd, &is, e);
	if (r < 0)
		return r;
	if (is != size)
		return err_set(e, ERR_INVALID, "its %s is damaged: it has another size", name);
	*ret = take_fd(&fd);
	return 0;
}

static int seal(int fd, struct err *e)
{
	int r = sys_seal(fd, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);

	return r < 0 ? err_sys(e, r, "seal a memory file") : 0;
}

static int new_memfd(const char *name, struct err *e)
{
	int fd = sys_memfd(name, MFD_ALLOW_SEALING);

	return fd < 0 ? err_sys(e, fd, "make a memory file") : fd;
}

/* One of the files a memory consists of. */
struct part {
	const char *name, *what; /* what: for people */
	uint64_t size;
	const unsigned char *tag;
};

static int load_part(int folder, const struct part *p, const struct key *k, int to, struct err *e)
{
	AUTO_CLOSE int from = -1;
	struct memory_sum sum;
	int r = open_part(folder, p->name, p->size, &from, e);

	if (r == 0)
		r = memory_copy(from, to, p->size, k, &sum, e);
	if (r < 0)
		return r;
	if (CRYPTO_memcmp(sum.tag, p->tag, SNAP_TAG) != 0)
		return err_set(e, ERR_INVALID, "its %s is damaged", p->what);
	return 0;
}

static int load_parts(int folder, const struct key *k, const struct snap_manifest *m, int to, struct err *e)
{
	const struct part base = {LAYERS_BASE, LAYERS_BASE, m->base_size, m->base_tag};
	const struct part own = {memory_name(m), is_files(m) ? "archive of files" : SNAP_MEMORY,
				 m->base_size ? memory_delta_size(m->memory_size) : m->memory_size, m->memory_tag};
	struct key mine, base_k;
	int r = derive(k, m, &mine, &base_k, e);

	if (r == 0 && m->base_size)
		r = load_part(folder, &base, &base_k, to, e);
	if (r == 0)
		r = load_part(folder, &own, &mine, to, e);
	if (r == 0 && m->base_size)
		r = memory_clear(to, m->memory_size, e);
	key_wipe(&mine);
	key_wipe(&base_k);
	return r;
}

static int load_memory(int folder, const struct key *k, const struct snap_manifest *m, int *ret,
		       struct err *e)
{
	AUTO_CLOSE int to = -1;
	int r = to = new_memfd("hotcell-memory", e);

	if (r >= 0)
		r = load_parts(folder, k, m, to, e);
	if (r == 0)
		r = seal(to, e);
	if (r == 0)
		*ret = take_fd(&to);
	return r;
}

static int load_state(int folder, const struct snap_manifest *m, int *ret, struct err *e)
{
	AUTO_CLOSE int from = -1, to = -1;
	unsigned char sum[SNAP_SUM];
	AUTO_FREE char *bytes = NULL;
	int r = open_part(folder, STATE, m->state_bytes, &from, e);

	if (r == 0)
		r = read_whole(from, STATE, m->state_bytes, &bytes, e);
	if (r == 0)
		r = sum_of(bytes, m->state_bytes, sum, e);
	if (r < 0)
		return r;
	if (CRYPTO_memcmp(sum, m->state_sum, SNAP_SUM) != 0)
		return err_set(e, ERR_INVALID, "its device state is damaged");
	r = to = new_memfd("hotcell-state", e);
	if (r >= 0) {
		r = sys_pwrite_full(to, bytes, m->state_bytes, 0);
		r = r < 0 ? err_sys(e, r, "copy its device state") : seal(to, e);
	}
	if (r == 0)
		*ret = take_fd(&to);
	return r;
}

void snap_set_close(struct snap_set *s)
{
	s->memory_fd = sys_close(s->memory_fd);
	s->state_fd = sys_close(s->state_fd);
}

/* @folder is the set's own; the disk of a pause is its sandbox's. */
static int load_disk(int state_fd, int folder, const struct snap_manifest *m, struct err *e)
{
	AUTO_CLOSE int disk = -1;
	char path[DIR_PATH], name[DIR_NAME];
	int r;

	if (!m->layers || strcmp(m->kind, "pause") != 0)
		return check_layers(m, folder, e);
	dir_name(&m->id, "", name);
	(void)snprintf(path, sizeof(path), SANDBOXES_FOLDER "/%s", name);
	r = dir_open(state_fd, path, "", &disk, e);
	return r < 0 ? r : check_layers(m, disk, e);
}

int snap_disk_check(int state_fd, const struct id *id, struct err *e)
{
	AUTO_CLOSE int folder = -1;
	struct key k = {{0}};
	struct snap_manifest m;
	int r = enter(state_fd, id, &folder, &k, &m, e);

	key_wipe(&k);
	if (r < 0)
		return r;
	r = load_disk(state_fd, folder, &m, e);
	return r < 0 ? unusable(id, NULL, r, e) : 0;
}

int snap_load(int state_fd, const struct id *id, struct snap_set *ret, struct err *e)
{
	struct snap_set s = SNAP_SET_INIT;
	AUTO_CLOSE int folder = -1;
	struct key k = {{0}};
	int r = enter(state_fd, id, &folder, &k, &s.manifest, e);

	if (r == 0) { /* without its disk, a set is good for nothing */
		bool is_pause = strcmp(s.manifest.kind, "pause") == 0;

		r = load_disk(state_fd, folder, &s.manifest, e);
		if (r < 0)
			r = unusable(id, is_pause ? &s.manifest : NULL, r, e);
	}
	if (r == 0 && s.manifest.memory_size) {
		r = load_memory(folder, &k, &s.manifest, &s.memory_fd, e);
		if (r == 0 && !is_files(&s.manifest))
			r = load_state(folder, &s.manifest, &s.state_fd, e);
		if (r < 0)
			r = unusable(id, &s.manifest, r, e);
	}
	key_wipe(&k);
	if (r < 0) {
		snap_set_close(&s);
		return r;
	}
	*ret = s;
	return 0;
}

/* ---- all of them ---- */

struct walk {
	int state_fd;
	void (*each)(void *arg, const struct id *id, const struct snap_manifest *m,
		     const struct err *why);
	void *arg;
};

/* Names that are no ids are not ours: unfinished sets, what a file system puts there. */
static int visit(void *arg, int folder_fd, const char *name, struct err *e)
{
	const struct walk *w = arg;
	struct snap_manifest m;
	struct err why = ERR_INIT;
	struct id id;
	char text[ID_TEXT];

	(void)folder_fd, (void)e;
	if (id_parse(name, strlen(name), &id) < 0)
		return 0;
	id_format(&id, text);
	if (strcmp(text, name) != 0)
		return 0;
	if (snap_manifest_load(w->state_fd, &id, &m, &why) == 0)
		w->each(w->arg, &id, &m, NULL);
	else if (why.code != ERR_NOT_FOUND) /* removed meanwhile */
		w->each(w->arg, &id, NULL, &why);
	return 0;
}

int snap_each(int state_fd,
	      void (*each)(void *arg, const struct id *id, const struct snap_manifest *m,
			   const struct err *why),
	      void *arg, struct err *e)
{
	struct walk w = {state_fd, each, arg};

	return dir_each(state_fd, SNAPSHOTS_FOLDER, visit, &w, e);
}

int snap_remove(int state_fd, const struct id *id, struct err *e)
{
	char name[DIR_NAME], old[DIR_NAME];
	AUTO_CLOSE int parent = -1;
	int r;

	dir_name(id, "", name);
	dir_name(id, ".old", old);
	parent = sys_open_beneath(state_fd, SNAPSHOTS_FOLDER, O_RDONLY | O_DIRECTORY, 0);
	if (parent < 0)
		return parent == -ENOENT ? 0 : err_sys(e, parent, "open the folder " SNAPSHOTS_FOLDER);
	r = sys_remove_tree(parent, old); /* of a predecessor that was killed */
	if (r == 0) {
		r = sys_rename(parent, name, parent, old, 0);
		if (r == -ENOENT)
			return 0;
	}
	if (r == 0)
		r = sys_fsync(parent);
	if (r == 0)
		r = sys_remove_tree(parent, old);
	return r < 0 ? err_sys(e, r, "remove snapshot %s", name) : 0;
}

int snap_sweep(int state_fd, struct err *e)
{
	int r = key_sweep(state_fd, e);

	return r < 0 ? r : dir_sweep(state_fd, SNAPSHOTS_FOLDER, e);
}
