/* image/t_store.c - a store made by hand: every way in, every kind of damage */
#include "image/store.h"
#include "image/testing.h"
#include "sys/fault.h"

/* Change the content of a file of the store, keeping its size or not. */
static void overwrite(int state, const char *digest, const char *file, const char *text)
{
	char path[512];

	(void)snprintf(path, sizeof(path), "images/base@%s/%s", digest, file);
	assert_int_equal(sys_write_file(state, path, text), 0);
}

static int try_open(int state, const char *ref, struct err *e)
{
	struct image i = IMAGE_INIT;
	int r = image_open(state, ref, &i, e);

	image_close(&i);
	return r;
}

/* ---- the tests ---- */

static void opens_by_name_and_digest(void **unused)
{
	char digest[HASH_TEXT], ref[128], content[64] = "";
	struct image i = IMAGE_INIT;
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	if (image_open(state, "base", &i, &e) < 0)
		fail_msg("%s", e.text);
	assert_string_equal(i.name, "base");
	assert_string_equal(i.digest, digest);
	assert_string_equal(i.kernel_release, RELEASE);
	assert_int_equal(i.defaults.memory_mb, 512);
	assert_int_equal(sys_pread(i.root_fd, content, sizeof(content), 0), i.root_bytes);
	assert_string_equal(content, "the root file system");
	assert_int_equal(sys_pread(i.kernel_fd, content, sizeof(content), 0), 10);
	assert_int_equal(faccessat(i.tree_fd, "etc", F_OK, 0), 0);
	assert_int_equal(sys_pread(i.initrd_fd, content, 6, 0), 6);
	assert_memory_equal(content, "070701", 6);
	assert_int_equal(strv_count(i.warm), 2);
	assert_string_equal(strv_next(i.warm, strv_first(i.warm)), "git --version");
	assert_int_equal(strv_count(i.interpreters), 0); /* no such file: none */
	image_close(&i);
	image_close(&i);
	assert_int_equal(strv_count(i.warm), 0);
	(void)snprintf(ref, sizeof(ref), "base@%s", digest);
	assert_int_equal(try_open(state, ref, &e), 0);
	(void)snprintf(ref, sizeof(ref), "base@%.12s", digest);
	assert_int_equal(try_open(state, ref, &e), 0);
	assert_int_equal(try_open(state, digest, &e), 0);
	digest[IMAGE_DIGEST_MIN] = '\0';
	assert_int_equal(try_open(state, digest, &e), 0);
	unmake_store(state);
}

static void what_is_no_reference_is_refused(void **unused)
{
	static const char *const bad[] = {
		"",     ".",     "..",       "../base", "base/", "/etc",          "base/../base",
		"BASE", "base@", "base@xyz", "base@..", "@",     "@0123456789ab", "base@0123",
		"0123", "a b",   "base\n"
	};
	char digest[HASH_TEXT], longest[200];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (try_open(state, bad[i], &e) != -ERR_INVALID ||
		    image_remove(state, bad[i], &e) != -ERR_INVALID)
			fail_msg("\"%s\": %s", bad[i], e.text);
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(try_open(state, longest, &e), -ERR_INVALID);
	assert_int_equal(try_open(state, "absent", &e), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "hotcell image build absent"));
	assert_int_equal(try_open(state, "base@000000000000", &e), -ERR_NOT_FOUND);
	unmake_store(state);
}

static void an_empty_state_says_what_to_do(void **unused)
{
	struct image_info *all = NULL;
	struct err e = ERR_INIT;
	size_t n = 1;
	int state;

	T_UNUSED(unused);
	strcpy(store_dir(), "/tmp/t_store.XXXXXX");
	assert_non_null(mkdtemp(store_dir()));
	state = sys_open(store_dir(), O_RDONLY | O_DIRECTORY);
	assert_int_equal(try_open(state, "base", &e), -ERR_NOT_FOUND);
	assert_non_null(strstr(e.text, "hotcell image build"));
	assert_int_equal(image_list(state, &all, &n, &e), 0);
	assert_int_equal(n, 0);
	free(all);
	unmake_store(state);
}

static void changed_commands_are_seen_at_opening(void **unused)
{
	static const char *const texts[] = {"true.rm -rf /home", "true", "", NULL};
	char digest[HASH_TEXT];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	for (size_t i = 0; texts[i]; i++) {
		overwrite(state, digest, IMAGE_WARM, texts[i]);
		assert_int_equal(try_open(state, "base", &e), -ERR_INVALID);
		assert_non_null(strstr(e.text, "warm changed"));
		assert_int_equal(image_verify(state, "base", &e), -ERR_INVALID);
	}
	unmake_store(state);
}

/* Pointers that lead elsewhere must not be followed. */
static void a_pointer_that_leads_out_is_refused(void **unused)
{
	static const char *const targets[] = { "/etc", "../images", "..", ".new", "other@0" };
	char digest[HASH_TEXT], entry[PLACE_NAME_MAX];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
		assert_int_equal(sys_unlink(state, "images/base"), 0);
		assert_int_equal(symlinkat(targets[i], state, "images/base"), 0);
		if (try_open(state, "base", &e) != -ERR_INVALID)
			fail_msg("%s: %s", targets[i], e.text);
		if (i < 4)
			assert_int_equal(place_read_pointer(state, "images/base", entry, &e),
					 -ERR_INVALID);
	}
	assert_int_equal(sys_unlink(state, "images/base"), 0);
	assert_int_equal(sys_write_file(state, "images/base", "no pointer"), 0);
	assert_int_equal(try_open(state, "base", &e), -ERR_INVALID);
	unmake_store(state);
}

static void a_file_that_is_a_link_is_refused(void **unused)
{
	char digest[HASH_TEXT], path[256];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	(void)snprintf(path, sizeof(path), "images/base@%s/root.ext4", digest);
	assert_int_equal(sys_unlink(state, path), 0);
	assert_int_equal(symlinkat("/etc/passwd", state, path), 0);
	assert_int_equal(try_open(state, "base", &e), -ERR_DENIED);
	unmake_store(state);
}

static void cut_off_files_are_seen_at_opening(void **unused)
{
	char digest[HASH_TEXT];
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	overwrite(state, digest, IMAGE_ROOT, "the root");
	assert_int_equal(try_open(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "root.ext4 has 8 bytes instead of 20"));
	assert_non_null(strstr(e.text, "hotcell image build --force base"));
	overwrite(state, digest, IMAGE_ROOT, "the root file system");
	assert_int_equal(sys_write_file(state, "kernels/" RELEASE "/vmlinux", "short"), 0);
	assert_int_equal(try_open(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "vmlinux has 5 bytes instead of 10"));
	unmake_store(state);
}

static void a_changed_manifest_is_seen_at_opening(void **unused)
{
	char digest[HASH_TEXT], path[256], text[4096], *vcpus;
	struct err e = ERR_INIT;
	int state = make_store(digest);

	T_UNUSED(unused);
	(void)snprintf(path, sizeof(path), "images/base@%s/manifest", digest);
	assert_true(sys_read_file(state, path, text, sizeof(text)) > 0);
	vcpus = strstr(text, "vcpus 1");
	vcpus[6] = '2';
	overwrite(state, digest, MANIFEST_FILE, text);
	assert_int_equal(try_open(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "its manifest changed"));
	unmake_store(state);
}

static void verifying_finds_one_changed_byte(void **unused)
{
	char digest[HASH_TEXT], path[256], initrd[PLACE_NAME_MAX];
	struct err e = ERR_INIT;
	int state = make_store(digest);
	ssize_t n;

	T_UNUSED(unused);
	if (image_verify(state, "base", &e) < 0)
		fail_msg("%s", e.text);
	overwrite(state, digest, IMAGE_ROOT, "the root file systeM");
	assert_int_equal(try_open(state, "base", &e), 0); /* the size is right */
	assert_int_equal(image_verify(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "root.ext4 changed"));
	overwrite(state, digest, IMAGE_ROOT, "the root file system");
	overwrite(state, digest, IMAGE_TREE "/etc", "a file of the treE");
	assert_int_equal(image_verify(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "tree changed"));
	overwrite(state, digest, IMAGE_TREE "/etc", "a file of the tree");
	assert_int_equal(sys_write_file(state, "kernels/" RELEASE "/modules/a.ko", "module A"), 0);
	assert_int_equal(image_verify(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "a.ko changed"));
	assert_int_equal(sys_write_file(state, "kernels/" RELEASE "/modules/a.ko", "module a"), 0);
	n = readlinkat(state, "initrds/" RELEASE, initrd, sizeof(initrd) - 1);
	assert_true(n > 0);
	initrd[n] = '\0';
	(void)snprintf(path, sizeof(path), "initrds/%s/initrd", initrd);
	AUTO_CLOSE int fd = sys_openat(state, path, O_WRONLY, 0);
	assert_int_equal(sys_pwrite_full(fd, "X", 1, 0), 0);
	assert_int_equal(image_verify(state, "base", &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "initramfs"));
	unmake_store(state);
}

static void an_open_image_cannot_be_removed(void **unused)
{
	char digest[HASH_TEXT];
	struct image i = IMAGE_INIT;
	struct err e = ERR_INIT;
	int state = make_store(digest), copy;

	T_UNUSED(unused);
	assert_int_equal(image_open(state, "base", &i, &e), 0);
	assert_int_equal(image_remove(state, "base", &e), -ERR_CONFLICT);
	assert_non_null(strstr(e.text, "in use"));
	copy = sys_dup(i.dir_fd); /* as a sandbox would hold it */
	image_close(&i);
	assert_int_equal(image_remove(state, "base", &e), -ERR_CONFLICT);
	assert_int_equal(try_open(state, "base", &e),
			 0); /* the refusal removed nothing, not even the name */
	sys_close(copy);
	assert_int_equal(image_remove(state, "base", &e), 0);
	assert_int_equal(try_open(state, "base", &e), -ERR_NOT_FOUND);
	assert_int_equal(image_remove(state, "base", &e), -ERR_NOT_FOUND);
	unmake_store(state);
}

static void removing_an_older_build_keeps_the_name(void **unused)
{
	char old[HASH_TEXT], digest[HASH_TEXT];
	struct image_info *all = NULL;
	struct err e = ERR_INIT;
	size_t n;
	int state = make_store(old);

	T_UNUSED(unused);
	make_image(state, "base", 2000, digest);
	make_image(state, "apple", 1, digest);
	assert_int_equal(image_list(state, &all, &n, &e), 0);
	assert_int_equal(n, 3);
	assert_string_equal(all[0].name, "apple");
	assert_int_equal(all[1].built_unix_s, 2000);
	assert_true(all[1].is_current);
	assert_int_equal(all[1].n_packages, 2);
	assert_string_equal(all[2].digest, old);
	assert_false(all[2].is_current);
	free(all);
	assert_int_equal(image_remove(state, old, &e), 0);
	assert_int_equal(try_open(state, "base", &e), 0);
	assert_int_equal(try_open(state, old, &e), -ERR_NOT_FOUND);
	unmake_store(state);
}

static void a_damaged_image_is_listed_as_such(void **unused)
{
	char digest[HASH_TEXT];
	struct image_info *all = NULL, info;
	struct manifest m = { 0 };
	struct err e = ERR_INIT;
	size_t n;
	int state = make_store(digest);

	T_UNUSED(unused);
	overwrite(state, digest, MANIFEST_FILE, "hotcell-image 1\nname ");
	assert_int_equal(image_list(state, &all, &n, &e), 0);
	assert_int_equal(n, 1);
	assert_true(all[0].is_damaged);
	free(all);
	assert_int_equal(image_inspect(state, "base", &info, &m, &e), -ERR_INVALID);
	assert_int_equal(image_remove(state, "base", &e), 0); /* and can be removed */
	unmake_store(state);
}

/* PLACE-2 */
static void what_an_interrupted_build_left_is_swept(void **unused)
{
	char digest[HASH_TEXT];
	struct err e = ERR_INIT;
	int state = make_store(digest), place, lock, other, other_lock;

	T_UNUSED(unused);
	assert_int_equal(sys_mkdir(state, "images/.new", 0755), 0);
	assert_int_equal(sys_mkdir(state, "images/.new/tree", 0700), 0);
	assert_int_equal(sys_write_file(state, "images/.new/tree/x", "half"), 0);
	assert_int_equal(symlinkat("base@x", state, "images/.pointer"), 0);
	assert_int_equal(try_open(state, "base", &e), 0); /* readers never see it */
	assert_int_equal(place_enter(state, IMAGES_FOLDER, &place, &lock, &e), 0);
	assert_int_equal(faccessat(state, "images/.new", F_OK, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(faccessat(state, "images/.pointer", F_OK, AT_SYMLINK_NOFOLLOW), -1);
	assert_int_equal(place_enter(state, IMAGES_FOLDER, &other, &other_lock, &e), -ERR_CONFLICT);
	assert_int_equal(image_remove(state, "base", &e), -ERR_CONFLICT);
	sys_close(lock);
	sys_close(place);
	unmake_store(state);
}

static void committing_replaces_in_one_step(void **unused)
{
	char digest[HASH_TEXT], text[16];
	struct err e = ERR_INIT;
	int state = make_store(digest), place, lock, entry;

	T_UNUSED(unused);
	assert_int_equal(place_enter(state, "things", &place, &lock, &e), 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(place_begin(place, &entry, &e), 0);
		(void)snprintf(text, sizeof(text), "%d", i);
		assert_int_equal(sys_write_file(entry, "x", text), 0);
		sys_close(entry);
		assert_int_equal(place_commit(place, "thing", &e), 0);
		assert_int_equal(sys_read_file(state, "things/thing/x", text, sizeof(text)), 1);
		assert_int_equal(text[0], '0' + i);
		assert_int_equal(faccessat(place, PLACE_NEW, F_OK, AT_SYMLINK_NOFOLLOW), -1);
	}
	sys_close(lock);
	sys_close(place);
	unmake_store(state);
}

static size_t count_entries(int state, const char *path)
{
	AUTO_CLOSE int fd = sys_openat(state, path, O_RDONLY | O_DIRECTORY, 0);
	DIR *d = fdopendir(sys_dup(fd));
	size_t n = 0;

	while (d && readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static ino_t inode_of(int place, const char *name)
{
	struct stat st;

	assert_int_equal(fstatat(place, name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_ino;
}

static void the_initramfs_follows_its_program(void **unused)
{
	ino_t pointer;
	char digest[HASH_TEXT], path[128], before[PLACE_NAME_MAX], after[PLACE_NAME_MAX];
	struct err e = ERR_INIT;
	int state = make_store(digest);
	AUTO_CLOSE int place = sys_openat(state, INITRDS_FOLDER, O_RDONLY | O_DIRECTORY, 0);

	T_UNUSED(unused);
	init_path(path);
	assert_int_equal(place_read_pointer(place, RELEASE, before, &e), 0);
	pointer = inode_of(place, RELEASE);
	assert_int_equal(ensure_initramfs(state, &e), 0);
	assert_int_equal(place_read_pointer(place, RELEASE, after, &e), 0);
	assert_string_equal(before, after);
	assert_int_equal(inode_of(place, RELEASE), pointer); /* not written again */
	make_init(path, 'b', false);
	assert_int_equal(ensure_initramfs(state, &e), 0);
	assert_int_equal(place_read_pointer(place, RELEASE, after, &e), 0);
	assert_string_not_equal(before, after);
	assert_int_equal(count_entries(state, INITRDS_FOLDER),
			 3); /* lock, pointer, and only the new one */
	assert_int_equal(initramfs_verify(state, RELEASE, &e), 0);
	make_init(path, 'c', true);
	assert_int_equal(ensure_initramfs(state, &e), -ERR_INVALID);
	assert_non_null(strstr(e.text, "not statically linked"));
	assert_int_equal(sys_write_file(AT_FDCWD, path, "#!/bin/sh\n"), 0);
	assert_int_equal(ensure_initramfs(state, &e), -ERR_INVALID);
	assert_int_equal(try_open(state, "base", &e), 0); /* the last good one stays */
	unmake_store(state);
}

/* A damaged one is made anew, not found again by its name. */
static void a_damaged_initramfs_heals(void **unused)
{
	char digest[HASH_TEXT], key[PLACE_NAME_MAX], path[256];
	struct err e = ERR_INIT;
	int state = make_store(digest);
	AUTO_CLOSE int place = sys_openat(state, INITRDS_FOLDER, O_RDONLY | O_DIRECTORY, 0);

	T_UNUSED(unused);
	assert_int_equal(place_read_pointer(place, RELEASE, key, &e), 0);
	(void)snprintf(path, sizeof(path), "%s/initrd", key);
	AUTO_CLOSE int fd = sys_openat(place, path, O_WRONLY, 0);
	assert_int_equal(sys_pwrite_full(fd, "X", 1, 100), 0);
	assert_int_equal(initramfs_verify(state, RELEASE, &e), -ERR_INVALID);
	assert_int_equal(ensure_initramfs(state, &e), 0);
	assert_int_equal(initramfs_verify(state, RELEASE, &e), 0);
	unmake_store(state);
}

static void no_failure_is_swallowed(void **unused)
{
	char digest[HASH_TEXT];
	int state = make_store(digest);

	T_UNUSED(unused);
	FOR_EACH_FAULT(nth, EIO)
	{
		int r = try_open(state, "base", NULL);

		assert_int_equal(r == 0, sys_fault_seen() < nth);
	}
	FOR_EACH_FAULT(nth, EIO)
	{
		int r = image_verify(state, "base", NULL);

		assert_int_equal(r == 0, sys_fault_seen() < nth);
	}
	unmake_store(state);
}

/* Whichever call fails, the store afterwards holds the old initramfs or the new one, whole. */
static void a_failed_rebuild_leaves_a_whole_store(void **unused)
{
	char digest[HASH_TEXT], path[128];
	struct err e = ERR_INIT;
	int state = make_store(digest);
	char mark = 'b';

	T_UNUSED(unused);
	init_path(path);
	FOR_EACH_FAULT(nth, ENOSPC)
	{
		unsigned seen;
		int r;

		sys_fault_arm(0, 0);
		make_init(path, mark = mark == 'b' ? 'c' : 'b', false);
		sys_fault_arm(nth, -ENOSPC);
		r = ensure_initramfs(state, &e);
		seen = sys_fault_seen();
		sys_fault_arm(0, 0);
		if (seen < nth)
			assert_int_equal(r, 0);
		if (try_open(state, "base", &e) < 0 || initramfs_verify(state, RELEASE, &e) < 0)
			fail_msg("call %u: %s", nth, e.text);
		sys_fault_arm(nth, -ENOSPC);
		for (unsigned i = 0; i < seen; i++)
			(void)sys_fault();
	}
	unmake_store(state);
}

T_MAIN(T(opens_by_name_and_digest), T(what_is_no_reference_is_refused),
       T(an_empty_state_says_what_to_do), T(changed_commands_are_seen_at_opening),
       T(a_pointer_that_leads_out_is_refused),
       T(a_file_that_is_a_link_is_refused), T(cut_off_files_are_seen_at_opening),
       T(a_changed_manifest_is_seen_at_opening), T(verifying_finds_one_changed_byte),
       T(an_open_image_cannot_be_removed), T(removing_an_older_build_keeps_the_name),
       T(a_damaged_image_is_listed_as_such), T(what_an_interrupted_build_left_is_swept),
       T(committing_replaces_in_one_step), T(the_initramfs_follows_its_program),
       T(a_damaged_initramfs_heals), T(no_failure_is_swallowed),
       T(a_failed_rebuild_leaves_a_whole_store))
