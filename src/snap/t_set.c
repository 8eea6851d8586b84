/* snap/t_set.c - sets come back as they were saved, or are refused by name */
#include "snap/set.h"
#include <limits.h>
#include <sys/mman.h>
#include "base/str.h"
#include "snap/key_int.h"
#include "snap/manifest_int.h"
#include "snap/memory_int.h"
#include "snap/testing.h"

enum { PAGE = MEMORY_PAGE, MEMORY = 8 << 20, STATE = 70001, DATA_PAGES = 4 };

#define SET_A SNAPSHOTS_FOLDER "/" A_TEXT

/* Data at the start, across a chunk border, and in the last page; an explicit page of zeros. */
static int memory_new(void)
{
	static const uint64_t at[DATA_PAGES] = {0, MEMORY_CHUNK - PAGE, MEMORY_CHUNK, MEMORY - PAGE};
	int fd = sys_memfd("test", MFD_ALLOW_SEALING);
	unsigned char page[PAGE] = {0};
	uint64_t seed = 1;

	assert_true(fd >= 0);
	assert_int_equal(sys_truncate(fd, MEMORY), 0);
	assert_int_equal(sys_pwrite_full(fd, page, PAGE, 5 * MEMORY_CHUNK), 0);
	for (size_t i = 0; i < DATA_PAGES; i++) {
		for (size_t k = 0; k < PAGE; k++)
			page[k] = (unsigned char)t_random(&seed);
		assert_int_equal(sys_pwrite_full(fd, page, PAGE, at[i]), 0);
	}
	return fd;
}

static int device_state_new(void)
{
	int fd = sys_memfd("test", 0);
	unsigned char b[STATE];
	uint64_t seed = 2;

	assert_true(fd >= 0);
	for (size_t i = 0; i < STATE; i++)
		b[i] = (unsigned char)t_random(&seed);
	assert_int_equal(sys_write_full(fd, b, STATE), 0);
	return fd;
}

static struct snap_manifest manifest(const struct id *id, const char *kind)
{
	struct snap_manifest m = {
		.id = *id, .name = "after-install", .tenant = "default", .owner = "uid 1000",
		.sandbox = B, .parent = C, .template = "base", .image = "sha256", .driver = "qemu",
		.closure = "c10", .cpu = "Nehalem,+arat, tcg", .kernel = "6.1.0", .tsc_khz = 2100000,
		.vcpus = 2, .memory_mb = 8, .disk_mb = 64, .pids_max = 100, .created_ms = 1700000000000,
		.delete_ms = 0, .generation = 7};

	strcpy(m.kind, kind);
	return m;
}

static void same_manifest(const struct snap_manifest *a, const struct snap_manifest *b)
{
	struct str x = STR_INIT(SNAP_MANIFEST_MAX), y = STR_INIT(SNAP_MANIFEST_MAX);

	manifest_write_body(a, &x);
	manifest_write_body(b, &y);
	assert_string_equal(str_text(&x), str_text(&y));
	str_deinit(&x);
	str_deinit(&y);
}

/* Save set A with memory and, from the disk of B, a layer. */
static int save_a(int s, struct snap_manifest *m, struct err *e)
{
	AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();

	m->layers = 1;
	return snap_save(s, m, memory, device_state, SANDBOXES_FOLDER "/" B_TEXT, e);
}

static int state_with_a(void)
{
	struct snap_manifest m = manifest(&A, "snapshot");
	struct err e = ERR_INIT;
	int s = state_new();

	disk_new(s, B_TEXT, "disk");
	if (save_a(s, &m, &e) < 0)
		fail_msg("%s", e.text);
	return s;
}

static void same_bytes(int a, int b, uint64_t size)
{
	unsigned char x[PAGE], y[PAGE];

	for (uint64_t at = 0; at < size; at += PAGE) {
		ssize_t n = sys_pread(a, x, PAGE, at);

		assert_int_equal(n, sys_pread(b, y, PAGE, at));
		assert_memory_equal(x, y, (size_t)n);
	}
	assert_int_equal(sys_pread(b, y, 1, size), 0);
}

static void is_sealed(int fd)
{
	assert_int_equal(fcntl(fd, F_GET_SEALS), F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	assert_int_equal(pwrite(fd, "x", 1, 0), -1);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 0);
}

static void loads(int s, const struct id *id)
{
	AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();
	struct snap_set set = SNAP_SET_INIT;
	struct err e = ERR_INIT;

	if (snap_load(s, id, &set, &e) < 0)
		fail_msg("%s", e.text);
	same_bytes(memory, set.memory_fd, MEMORY);
	same_bytes(device_state, set.state_fd, STATE);
	is_sealed(set.memory_fd);
	is_sealed(set.state_fd);
	assert_int_equal(set.manifest.memory_bytes, DATA_PAGES * PAGE);
	snap_set_close(&set);
	assert_int_equal(set.memory_fd, -1);
}

static void comes_back(void **state)
{
	struct snap_manifest m = manifest(&A, "snapshot"), back;
	struct err e = ERR_INIT;
	struct stat st;
	int s = state_with_a();

	T_UNUSED(state);
	loads(s, &A);
	assert_int_equal(snap_manifest_load(s, &A, &back, &e), 0);
	m.layers = 1;
	m.memory_size = MEMORY;
	m.memory_bytes = DATA_PAGES * PAGE;
	m.state_bytes = STATE;
	memcpy(m.memory_salt, back.memory_salt, sizeof(m.memory_salt));
	memcpy(m.memory_tag, back.memory_tag, sizeof(m.memory_tag));
	memcpy(m.state_sum, back.state_sum, sizeof(m.state_sum));
	memcpy(m.layer_sums, back.layer_sums, sizeof(m.layer_sums));
	same_manifest(&m, &back);
	assert_int_equal(fstatat(s, SET_A "/memory", &st, 0), 0);
	assert_int_equal(st.st_size, MEMORY);
	assert_true(st.st_blocks * 512 <= 2 * DATA_PAGES * PAGE); /* sparse, and zeros are not written */
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(fstatat(s, SET_A, &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(fstatat(s, "db/node.key", &st, 0), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, KEY_BYTES);
	assert_int_equal(entries(s, SET_A), 4);
	assert_int_equal(entries(s, "db"), 1);
	assert_int_equal(save_a(s, &m, &e), -ERR_CONFLICT);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 1);
	loads(s, &A);
	assert_int_equal(snap_load(s, &B, &(struct snap_set){0}, &e), -ERR_NOT_FOUND);
	state_free(s);
}

static void a_disk_comes_out_of_a_set(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	int s = state_with_a();

	T_UNUSED(state);
	assert_int_equal(layers_remove(s, &B, &e), 0);
	assert_int_equal(layers_link(s, SET_A, 1, &C, 64 << 20, &l, &e), 0);
	assert_int_equal(l.n, 2);
	layers_close(&l);
	assert_int_equal(snap_remove(s, &A, &e), 0);
	assert_int_equal(layers_open(s, &C, &l, &e), 0);
	assert_int_equal(l.n, 2);
	layers_close(&l);
	state_free(s);
}

/* LAYERS-3: whoever wrote to a layer may go on; the set has a copy, and it is that which was summed. */
static void a_set_has_its_own_layers(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	char text[8] = "";
	int s = state_with_a(), machine;

	T_UNUSED(state);
	machine = openat(s, SANDBOXES_FOLDER "/" B_TEXT "/" LAYER_0, O_RDWR | O_CLOEXEC);
	assert_int_equal(sys_pwrite_full(machine, "evil", 4, 0), 0);
	loads(s, &A);
	/* nor has who is made of a set that was made before there were copies */
	assert_int_equal(unlinkat(s, SET_A "/" LAYER_0, 0), 0);
	assert_int_equal(sys_pwrite_full(machine, "disk", 4, 0), 0);
	assert_int_equal(sys_link(s, SANDBOXES_FOLDER "/" B_TEXT "/" LAYER_0, s, SET_A "/" LAYER_0), 0);
	loads(s, &A);
	assert_int_equal(layers_link(s, SET_A, 1, &C, 64 << 20, &l, &e), 0);
	assert_int_equal(sys_pwrite_full(machine, "evil", 4, 0), 0);
	assert_int_equal(sys_pread(l.fds[0], text, 4, 0), 4);
	assert_string_equal(text, "disk");
	layers_close(&l);
	(void)sys_close(machine);
	state_free(s);
}

static void a_pause_leaves_the_disk_where_it_is(void **state)
{
	AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();
	struct snap_manifest m = manifest(&B, "pause");
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	m.layers = 1;
	assert_int_equal(snap_save(s, &m, memory, device_state, NULL, &e), -ERR_NOT_FOUND); /* no such disk */
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
	disk_new(s, B_TEXT, "disk");
	assert_int_equal(snap_save(s, &m, memory, device_state, NULL, &e), 0);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER "/" B_TEXT), 3);
	loads(s, &B);
	state_free(s);
}

static void a_disk_alone_is_a_set_too(void **state)
{
	struct snap_manifest m = manifest(&A, "snapshot");
	struct snap_set set = SNAP_SET_INIT;
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, B_TEXT, "disk");
	m.layers = 1;
	assert_int_equal(snap_save(s, &m, -1, -1, SANDBOXES_FOLDER "/" B_TEXT, &e), 0);
	assert_int_equal(entries(s, SET_A), 2);
	assert_int_equal(snap_load(s, &A, &set, &e), 0);
	assert_int_equal(set.memory_fd, -1);
	assert_int_equal(set.manifest.memory_size, 0);
	snap_set_close(&set);
	state_free(s);
}

static void odd_values_are_refused(void **state)
{
	static const char *const odd[] = {"a\nmac 0", "tab\t", " before", "after ", "\xc3\xa9", "\x7f"};
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, B_TEXT, "disk");
	for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
		struct snap_manifest m = manifest(&A, "snapshot");

		strcpy(m.name, odd[i]);
		assert_int_equal(save_a(s, &m, &e), -ERR_INVALID);
		assert_non_null(strstr(e.text, "name"));
	}
	for (unsigned i = 0; i < 6; i++) {
		struct snap_manifest m = manifest(&A, "snapshot");

		if (i == 0)
			memset(m.owner, 'x', sizeof(m.owner)); /* no end */
		else if (i == 1)
			m.vcpus = LIMIT_VCPUS_MAX + 1;
		else if (i == 2)
			m.kind[0] = '\0';
		else if (i == 3)
			m.driver[0] = '\0';
		else if (i == 4)
			m.id = (struct id){{0}};
		else
			m.memory_mb = LIMIT_MEMORY_MB_MAX + 1;
		assert_int_equal(save_a(s, &m, &e), -ERR_INVALID);
	}
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
	state_free(s);
}

/* ---- damage ---- */

static void flip(int s, const char *path, uint64_t at, unsigned char bits)
{
	AUTO_CLOSE int fd = -1;
	unsigned char b;

	assert_int_equal(fchmodat(s, path, 0600, 0), 0); /* a layer's is 0400 */
	fd = openat(s, path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(sys_pread(fd, &b, 1, at), 1);
	b ^= bits;
	assert_int_equal(sys_pwrite_full(fd, &b, 1, at), 0);
}

/* Loading fails with @code and says @word. */
static void refused(int s, int code, const char *word)
{
	struct snap_set set = SNAP_SET_INIT;
	struct err e = ERR_INIT;

	assert_int_equal(snap_load(s, &A, &set, &e), -code);
	if (!strstr(e.text, word) || !strstr(e.text, "hotcell snapshot rm " A_TEXT))
		fail_msg("no \"%s\" or no way out in: %s", word, e.text);
	assert_int_equal(set.memory_fd, -1);
}

/* Of a process sandbox: one part more than the manifest, as well sealed and verified as memory. */
static void files_are_a_set_too(void **state)
{
	struct snap_manifest m = manifest(&A, "snapshot");
	AUTO_CLOSE int files = memory_new();
	struct snap_set set = SNAP_SET_INIT;
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	strcpy(m.driver, "process");
	assert_int_equal(snap_save(s, &m, files, -1, NULL, &e), 0);
	assert_int_equal(entries(s, SET_A), 2);
	assert_int_equal(snap_load(s, &A, &set, &e), 0);
	same_bytes(files, set.memory_fd, MEMORY);
	is_sealed(set.memory_fd);
	assert_int_equal(set.state_fd, -1);
	snap_set_close(&set);
	flip(s, SET_A "/files", 17, 0x40);
	assert_int_equal(snap_load(s, &A, &set, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "its archive of files is damaged"));
	assert_non_null(strstr(e.text, "hotcell snapshot rm"));
	assert_null(strstr(e.text, "--disk-only"));
	state_free(s);
}

static void damaged_memory_is_refused(void **state)
{
	static const uint64_t at[] = {0, 17, PAGE - 1, /* a hole: */ 2 * MEMORY_CHUNK + 5, 5 * MEMORY_CHUNK,
				      MEMORY - 1};
	int s = state_with_a();

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		flip(s, SET_A "/memory", at[i], 0x40);
		refused(s, ERR_INVALID, "memory is damaged");
		refused(s, ERR_INVALID, "hotcell create --snapshot " A_TEXT " --disk-only");
		flip(s, SET_A "/memory", at[i], 0x40);
		loads(s, &A);
	}
	state_free(s);
}

static void moved_memory_is_refused(void **state)
{
	char path[PATH_MAX];
	unsigned char a[PAGE], b[PAGE];
	int s = state_with_a(), fd;

	T_UNUSED(state);
	(void)snprintf(path, sizeof(path), "%s/" SET_A "/memory", state_path());
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(sys_pread(fd, a, PAGE, 0), PAGE);
	assert_int_equal(sys_pread(fd, b, PAGE, MEMORY_CHUNK), PAGE);
	assert_int_equal(sys_pwrite_full(fd, b, PAGE, 0), 0);
	assert_int_equal(sys_pwrite_full(fd, a, PAGE, MEMORY_CHUNK), 0);
	refused(s, ERR_INVALID, "memory is damaged");
	(void)sys_close(fd);
	state_free(s);
}

static void damaged_state_is_refused(void **state)
{
	static const uint64_t at[] = {0, STATE / 2, STATE - 1};
	int s = state_with_a();

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		flip(s, SET_A "/state", at[i], 1);
		refused(s, ERR_INVALID, "device state is damaged");
		flip(s, SET_A "/state", at[i], 1);
	}
	loads(s, &A);
	state_free(s);
}

/* Every single byte of it, and one bit each. */
static void a_damaged_manifest_is_refused(void **state)
{
	struct stat st;
	int s = state_with_a();

	T_UNUSED(state);
	assert_int_equal(fstatat(s, SET_A "/manifest", &st, 0), 0);
	for (off_t at = 0; at < st.st_size; at++) {
		struct snap_manifest m;
		struct err e = ERR_INIT;
		int r;

		flip(s, SET_A "/manifest", (uint64_t)at, (unsigned char)(1 << at % 8));
		r = snap_manifest_load(s, &A, &m, &e);
		if (r != -ERR_DENIED && r != -ERR_INVALID)
			fail_msg("byte %ld: %d %s", (long)at, r, e.text);
		assert_non_null(strstr(e.text, "hotcell snapshot rm " A_TEXT));
		flip(s, SET_A "/manifest", (uint64_t)at, (unsigned char)(1 << at % 8));
	}
	flip(s, SET_A "/manifest", 40, 1);
	refused(s, ERR_DENIED, "another installation or changed");
	flip(s, SET_A "/manifest", 40, 1);
	loads(s, &A);
	state_free(s);
}

static void cut(int s, const char *path, off_t by)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;

	assert_int_equal(fchmodat(s, path, 0600, 0), 0);
	fd = openat(s, path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(ftruncate(fd, st.st_size - by), 0);
}

static void cut_and_missing_parts_are_refused(void **state)
{
	static const struct {
		const char *name, *word;
		int cut_by; /* 0: remove it */
	} cases[] = {
		{"memory", "memory is damaged", PAGE},	  {"memory", "memory is damaged", 1},
		{"memory", "memory is damaged", -PAGE},	  {"memory", "memory is missing", 0},
		{"state", "state is damaged", 1},	  {"state", "state is damaged", -1},
		{"state", "state is missing", 0},	  {"manifest", "manifest is damaged", 1},
		{"manifest", "manifest is damaged", 300}, {"manifest", "manifest is damaged", -1},
		{"manifest", "manifest is damaged", -10000}, {"manifest", "manifest is damaged", 0},
		{"layer-0", "layer-0 is damaged", 1},	  {"layer-0", "layer-0 is damaged", -1},
		{"layer-0", "layer-0 is missing", 0},
	};

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		int s = state_with_a();
		char path[128];

		(void)snprintf(path, sizeof(path), SET_A "/%s", cases[i].name);
		if (cases[i].cut_by)
			cut(s, path, cases[i].cut_by);
		else
			assert_int_equal(unlinkat(s, path, 0), 0);
		refused(s, ERR_INVALID, cases[i].word);
		state_free(s);
	}
}

/* What the disk is good for is said without its memory, and the other way round. */
static void a_damaged_disk_is_refused(void **state)
{
	struct err e = ERR_INIT;
	int s = state_with_a();

	T_UNUSED(state);
	flip(s, SET_A "/memory", 1, 1);
	assert_int_equal(snap_disk_check(s, &A, &e), 0);
	flip(s, SET_A "/memory", 1, 1);
	loads(s, &A);
	flip(s, SET_A "/layer-0", 2, 4);
	refused(s, ERR_INVALID, "layer-0 is damaged");
	assert_int_equal(snap_disk_check(s, &A, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "layer-0 is damaged"));
	assert_null(strstr(e.text, "--disk-only")); /* that is no way out */
	state_free(s);
}

/* A pause's disk is its sandbox's. */
static void a_damaged_disk_of_a_pause_is_refused(void **state)
{
	AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();
	struct snap_manifest m = manifest(&B, "pause");
	struct snap_set set = SNAP_SET_INIT;
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	m.layers = 1;
	disk_new(s, B_TEXT, "disk");
	assert_int_equal(snap_save(s, &m, memory, device_state, NULL, &e), 0);
	cut(s, SANDBOXES_FOLDER "/" B_TEXT "/" LAYER_0, 1);
	assert_int_equal(snap_load(s, &B, &set, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "layer-0 is damaged"));
	assert_non_null(strstr(e.text, "roll it back"));
	state_free(s);
}

static void a_foreign_set_is_refused(void **state)
{
	static const unsigned char other[KEY_BYTES] = {1};
	int s = state_with_a();

	T_UNUSED(state);
	assert_int_equal(sys_replace_file(s, "db/node.key", other, sizeof(other), 0600), 0);
	refused(s, ERR_DENIED, "another installation");
	assert_int_equal(unlinkat(s, "db/node.key", 0), 0);
	refused(s, ERR_DENIED, "another installation");
	assert_false(exists(s, "db/node.key")); /* looking makes no key */
	assert_int_equal(sys_replace_file(s, "db/node.key", other, 31, 0600), 0);
	refused(s, ERR_INVALID, "not a key");
	assert_int_equal(sys_replace_file(s, "db/node.key", other, sizeof(other), 0600), 0);
	assert_int_equal(fchmodat(s, "db/node.key", 0640, 0), 0);
	refused(s, ERR_DENIED, "may be read by others");
	state_free(s);
}

/* A whole set of this installation under another id is not that set. */
static void a_renamed_set_is_refused(void **state)
{
	struct snap_manifest m;
	struct err e = ERR_INIT;
	int s = state_with_a();

	T_UNUSED(state);
	assert_int_equal(renameat(s, SET_A, s, SNAPSHOTS_FOLDER "/" C_TEXT), 0);
	assert_int_equal(snap_manifest_load(s, &C, &m, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "another snapshot"));
	state_free(s);
}

/* With the right MAC, so that what is behind it is reached. */
static void a_newer_format_is_refused(void **state)
{
	struct snap_manifest m = manifest(&A, "snapshot"), back;
	struct str text = STR_INIT(SNAP_MANIFEST_MAX);
	struct err e = ERR_INIT;

	T_UNUSED(state);
	manifest_write_body(&m, &text);
	assert_int_equal(manifest_read_body(text.p, text.len, &back, &e), 0);
	same_manifest(&m, &back);
	text.p[strlen("hotcell-snapshot ")] = '0' + SNAP_FORMAT + 1;
	assert_int_equal(manifest_read_body(text.p, text.len, &back, &e), -ERR_UNSUPPORTED);
	str_deinit(&text);
}

/* ---- a base ---- */

static void put_page(int fd, uint64_t at, unsigned char c)
{
	unsigned char page[PAGE];

	memset(page, c, PAGE);
	assert_int_equal(sys_pwrite_full(fd, page, PAGE, at), 0);
}

/* What machine B began with: some pages as in memory_new(), some not. */
static void base_new(int s, uint64_t size)
{
	AUTO_CLOSE int memory = memory_new(), fd = -1;
	unsigned char page[PAGE];

	fd = openat(s, SANDBOXES_FOLDER "/" B_TEXT "/base", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(sys_truncate(fd, size), 0);
	assert_int_equal(sys_pread(memory, page, PAGE, 0), PAGE);
	assert_int_equal(sys_pwrite_full(fd, page, PAGE, 0), 0);	/* the same */
	put_page(fd, MEMORY_CHUNK, 'x');				/* differs */
	put_page(fd, 3 * MEMORY_CHUNK + 7 * (uint64_t)PAGE, 'y');	/* is zero now: a hole */
	put_page(fd, 5 * MEMORY_CHUNK, 'z');				/* is zero now: written */
}

static int state_with_base(void)
{
	struct snap_manifest m = manifest(&A, "snapshot");
	struct err e = ERR_INIT;
	int s = state_new();

	disk_new(s, B_TEXT, "disk");
	base_new(s, MEMORY);
	if (save_a(s, &m, &e) < 0)
		fail_msg("%s", e.text);
	assert_int_equal(m.base_size, MEMORY);
	assert_int_equal(m.own_bytes, DATA_PAGES * PAGE); /* one less is its own, and one is the map */
	assert_int_equal(m.memory_bytes, DATA_PAGES * PAGE);
	return s;
}

static uint64_t blocks(int s, const char *path)
{
	struct stat st;

	assert_int_equal(fstatat(s, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void only_what_differs_is_stored(void **state)
{
	struct snap_manifest m;
	struct err e = ERR_INIT;
	struct stat st;
	int s = state_with_base();

	T_UNUSED(state);
	loads(s, &A);
	assert_int_equal(fstatat(s, SET_A "/base", &st, 0), 0);
	assert_int_equal(st.st_nlink, 2); /* shared */
	assert_int_equal(blocks(s, SET_A "/memory"), DATA_PAGES * PAGE);
	assert_int_equal(snap_manifest_load(s, &A, &m, &e), 0);
	assert_int_equal(snap_own_bytes(&m), DATA_PAGES * PAGE + STATE);
	/* what it began with may go: the set has it */
	assert_int_equal(layers_remove(s, &B, &e), 0);
	loads(s, &A);
	state_free(s);
}

/* Made of a set with a base, and of one without: both begin with a whole memory. */
static void a_machine_keeps_what_it_began_with(void **state)
{
	struct layers l = LAYERS_INIT;
	struct err e = ERR_INIT;
	struct stat a, b;
	int s = state_with_base();

	T_UNUSED(state);
	assert_int_equal(layers_link(s, SET_A, 1, &C, 64 << 20, &l, &e), 0);
	layers_close(&l);
	assert_int_equal(fstatat(s, SET_A "/base", &a, 0), 0);
	assert_int_equal(fstatat(s, SANDBOXES_FOLDER "/" C_TEXT "/base", &b, 0), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	assert_int_equal(layers_remove(s, &C, &e), 0);
	assert_int_equal(layers_link(s, SANDBOXES_FOLDER "/" B_TEXT, 1, &C, 64 << 20, &l, &e), 0); /* a fork */
	layers_close(&l);
	assert_int_equal(fstatat(s, SANDBOXES_FOLDER "/" C_TEXT "/base", &b, 0), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	state_free(s);

	s = state_with_a();
	assert_int_equal(layers_link(s, SET_A, 1, &C, 64 << 20, &l, &e), 0);
	layers_close(&l);
	assert_int_equal(fstatat(s, SET_A "/memory", &a, 0), 0);
	assert_int_equal(fstatat(s, SANDBOXES_FOLDER "/" C_TEXT "/base", &b, 0), 0);
	assert_int_equal(a.st_ino, b.st_ino);
	state_free(s);
}

/* A template is whole, and so is what began with a memory of another size. */
static void some_sets_have_no_base(void **state)
{
	struct snap_manifest m = manifest(&A, "template");
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, B_TEXT, "disk");
	base_new(s, MEMORY);
	assert_int_equal(save_a(s, &m, &e), 0);
	assert_int_equal(m.base_size, 0);
	assert_false(exists(s, SET_A "/base"));
	loads(s, &A);
	assert_int_equal(snap_remove(s, &A, &e), 0);
	assert_int_equal(unlinkat(s, SANDBOXES_FOLDER "/" B_TEXT "/base", 0), 0);
	base_new(s, MEMORY + MEMORY_CHUNK);
	m = manifest(&A, "snapshot");
	assert_int_equal(save_a(s, &m, &e), 0);
	assert_int_equal(m.base_size, 0);
	assert_false(exists(s, SET_A "/base"));
	loads(s, &A);
	state_free(s);
}

static void a_damaged_base_is_refused(void **state)
{
	static const uint64_t at[] = {9, /* not used: */ MEMORY_CHUNK + 1, 5 * MEMORY_CHUNK, /* a hole: */ MEMORY - 9};
	int s = state_with_base();

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		flip(s, SET_A "/base", at[i], 0x40);
		refused(s, ERR_INVALID, "its base is damaged");
		refused(s, ERR_INVALID, "hotcell create --snapshot " A_TEXT " --disk-only");
		flip(s, SET_A "/base", at[i], 0x40);
		loads(s, &A);
	}
	cut(s, SET_A "/base", PAGE);
	refused(s, ERR_INVALID, "its base is damaged: it has another size");
	cut(s, SET_A "/base", -PAGE);
	loads(s, &A); /* its last page is a hole */
	assert_int_equal(unlinkat(s, SET_A "/base", 0), 0);
	refused(s, ERR_INVALID, "its base is missing");
	assert_int_equal(unlinkat(s, SANDBOXES_FOLDER "/" B_TEXT "/base", 0), 0);
	base_new(s, MEMORY); /* one of another machine that happens to be the same is as good */
	assert_int_equal(sys_link(s, SANDBOXES_FOLDER "/" B_TEXT "/base", s, SET_A "/base"), 0);
	loads(s, &A);
	flip(s, SET_A "/base", 5 * MEMORY_CHUNK, 1);
	refused(s, ERR_INVALID, "its base is damaged");
	state_free(s);
}

/* The pages and the map behind them. */
static void a_damaged_delta_is_refused(void **state)
{
	static const uint64_t at[] = {/* holes: */ 0, 3 * MEMORY_CHUNK, MEMORY_CHUNK - PAGE, MEMORY_CHUNK,
				      /* the map: */ MEMORY, MEMORY + PAGE - 1};
	int s = state_with_base();

	T_UNUSED(state);
	for (size_t i = 0; i < ARRAY_LEN(at); i++) {
		flip(s, SET_A "/memory", at[i], 0x40);
		refused(s, ERR_INVALID, "memory is damaged");
		flip(s, SET_A "/memory", at[i], 0x40);
		loads(s, &A);
	}
	cut(s, SET_A "/memory", 1);
	refused(s, ERR_INVALID, "memory is damaged");
	state_free(s);
}

/* ---- all of them, removing, sweeping ---- */

struct seen {
	unsigned good, bad;
	char why[ERR_TEXT_MAX];
};

static void see(void *arg, const struct id *id, const struct snap_manifest *m, const struct err *why)
{
	struct seen *seen = arg;

	if (m) {
		assert_true(id_eq(id, &m->id));
		seen->good++;
	} else {
		strcpy(seen->why, why->text);
		seen->bad++;
	}
}

static void lists_good_and_bad(void **state)
{
	struct snap_manifest m = manifest(&C, "template");
	struct seen seen = {0};
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	assert_int_equal(snap_each(s, see, &seen, &e), 0); /* none yet */
	disk_new(s, B_TEXT, "disk");
	assert_int_equal(save_a(s, &m, &e), 0);
	m = manifest(&A, "snapshot");
	assert_int_equal(save_a(s, &m, &e), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/" B_TEXT ".new", 0700), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/lost+found", 0700), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/AA010000-0000-0000-0000-000000000000", 0700), 0);
	flip(s, SET_A "/manifest", 40, 1);
	assert_int_equal(snap_each(s, see, &seen, &e), 0);
	assert_int_equal(seen.good, 1);
	assert_int_equal(seen.bad, 1);
	assert_non_null(strstr(seen.why, A_TEXT));
	state_free(s);
}

static void is_removed_and_swept(void **state)
{
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	assert_int_equal(snap_remove(s, &A, &e), 0);
	assert_int_equal(snap_sweep(s, &e), 0);
	state_free(s);
	s = state_with_a();
	assert_int_equal(snap_remove(s, &A, &e), 0);
	assert_int_equal(snap_remove(s, &A, &e), 0);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/" B_TEXT ".new", 0700), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/" B_TEXT ".old", 0700), 0);
	assert_int_equal(sys_write_file(s, SNAPSHOTS_FOLDER "/" B_TEXT ".old/memory", "x"), 0);
	assert_int_equal(sys_mkdir(s, SNAPSHOTS_FOLDER "/" C_TEXT, 0700), 0);
	assert_int_equal(snap_sweep(s, &e), 0);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 1);
	state_free(s);
}

/* ---- whatever call fails ---- */

static void a_failed_save_leaves_nothing(void **state)
{
	unsigned rounds = 0;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, B_TEXT, "disk");
	base_new(s, MEMORY);
	for (unsigned nth = 1, met = 1; met; nth++, rounds++) {
		AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();
		struct snap_manifest m = manifest(&A, "snapshot");
		struct err e = ERR_INIT;
		int r;

		m.layers = 1;
		sys_fault_arm(nth, -ENOSPC);
		r = snap_save(s, &m, memory, device_state, SANDBOXES_FOLDER "/" B_TEXT, &e);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_int_equal(r, met ? -ERR_LIMIT : 0);
		assert_int_equal(entries(s, SNAPSHOTS_FOLDER), r < 0 ? 0 : 1);
		assert_int_equal(m.memory_size, r < 0 ? 0 : MEMORY); /* untouched on failure */
		if (exists(s, "db/node.key"))
			assert_int_equal(entries(s, "db"), 1);
	}
	assert_true(rounds > 30);
	loads(s, &A);
	state_free(s);
}

static void a_failed_load_gives_nothing(void **state)
{
	unsigned rounds = 0;
	int s = state_with_base();

	T_UNUSED(state);
	FOR_EACH_FAULT(nth, EIO) {
		struct snap_set set = SNAP_SET_INIT;
		struct err e = ERR_INIT;
		int r = snap_load(s, &A, &set, &e);

		assert_int_equal(r, sys_fault_seen() >= nth ? -ERR_INTERNAL : 0);
		assert_int_equal(set.memory_fd >= 0, r == 0);
		snap_set_close(&set);
		rounds++;
	}
	assert_true(rounds > 15);
	loads(s, &A);
	state_free(s);
}

static void a_failed_removal_is_finished_later(void **state)
{
	T_UNUSED(state);
	for (unsigned nth = 1, met = 1; met; nth++) {
		int s = state_with_a(), r;
		struct err e = ERR_INIT;

		sys_fault_arm(nth, -EIO);
		r = snap_remove(s, &A, &e);
		met = sys_fault_seen() >= nth;
		sys_fault_arm(0, 0);
		assert_int_equal(r, met ? -ERR_INTERNAL : 0);
		if (exists(s, SET_A))
			loads(s, &A); /* all of it or nothing */
		assert_int_equal(snap_remove(s, &A, &e), 0);
		assert_int_equal(snap_sweep(s, &e), 0);
		assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
		state_free(s);
	}
}

/* ---- whenever it dies ---- */

static void act_save(int s)
{
	struct snap_manifest m = manifest(&A, "snapshot");

	(void)save_a(s, &m, NULL);
}

static void a_is_whole_or_absent(int s, bool died)
{
	struct err e = ERR_INIT;

	if (exists(s, SET_A))
		loads(s, &A);
	else
		assert_true(died);
	assert_int_equal(snap_sweep(s, &e), 0);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), exists(s, SET_A) ? 1 : 0);
	assert_int_equal(entries(s, "db"), exists(s, "db/node.key") ? 1 : 0);
	assert_int_equal(snap_remove(s, &A, &e), 0);
}

static void act_remove(int s)
{
	(void)snap_remove(s, &A, NULL);
}

static void a_is_whole_or_gone(int s, bool died)
{
	struct snap_manifest m = manifest(&A, "snapshot");
	struct err e = ERR_INIT;

	if (exists(s, SET_A)) {
		assert_true(died);
		loads(s, &A);
		assert_int_equal(snap_remove(s, &A, &e), 0);
	}
	assert_int_equal(snap_sweep(s, &e), 0);
	assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
	assert_int_equal(save_a(s, &m, &e), 0);
}

static void a_death_at_any_call_leaves_all_or_nothing(void **state)
{
	struct err e = ERR_INIT;
	int s = state_new();

	T_UNUSED(state);
	disk_new(s, B_TEXT, "disk");
	base_new(s, MEMORY);
	assert_true(deaths(s, act_save, a_is_whole_or_absent) > 30);
	assert_int_equal(snap_remove(s, &A, &e), 0);
	act_save(s);
	assert_true(deaths(s, act_remove, a_is_whole_or_gone) > 5);
	state_free(s);
}

/* Whether it could be saved with @kib of room; if not, there is nothing. */
static bool saved_in(unsigned kib)
{
	AUTO_CLOSE int memory = memory_new(), device_state = device_state_new();
	struct snap_manifest m = manifest(&A, "snapshot");
	struct err e = ERR_INIT;
	int s = -1, r;

	assert_true(small_state(kib, &s));
	r = snap_save(s, &m, memory, device_state, NULL, &e);
	if (r == 0) {
		loads(s, &A);
	} else {
		assert_int_equal(r, -ERR_LIMIT);
		assert_non_null(strstr(e.text, "full"));
		assert_int_equal(entries(s, SNAPSHOTS_FOLDER), 0);
	}
	small_state_free(s);
	return r == 0;
}

static void a_full_disk_leaves_nothing(void **state)
{
	unsigned full = 0, saved = 0;
	int s = -1;

	T_UNUSED(state);
	if (!small_state(8, &s)) {
		print_message("[ SKIP     ] no right to mount a small file system\n");
		skip();
	}
	small_state_free(s);
	for (unsigned kib = 8; kib < 256; kib += 8) {
		if (saved_in(kib))
			saved++;
		else
			full++;
	}
	assert_true(full > 5 && saved > 5);
}

T_MAIN(T(comes_back), T(a_disk_comes_out_of_a_set), T(a_set_has_its_own_layers),
       T(a_pause_leaves_the_disk_where_it_is),
       T(a_disk_alone_is_a_set_too), T(files_are_a_set_too), T(odd_values_are_refused),
       T(damaged_memory_is_refused), T(moved_memory_is_refused), T(damaged_state_is_refused),
       T(a_damaged_manifest_is_refused), T(cut_and_missing_parts_are_refused), T(a_foreign_set_is_refused),
       T(a_damaged_disk_is_refused), T(a_damaged_disk_of_a_pause_is_refused),
       T(a_renamed_set_is_refused), T(a_newer_format_is_refused), T(only_what_differs_is_stored),
       T(a_machine_keeps_what_it_began_with), T(some_sets_have_no_base), T(a_damaged_base_is_refused),
       T(a_damaged_delta_is_refused), T(lists_good_and_bad), T(is_removed_and_swept),
       T(a_failed_save_leaves_nothing), T(a_failed_load_gives_nothing), T(a_failed_removal_is_finished_later),
       T(a_death_at_any_call_leaves_all_or_nothing), T(a_full_disk_leaves_nothing))
