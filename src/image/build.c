/* image/build.c - the steps of a build, each a program of the distribution */
#include "image/build.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "image/initramfs.h"
#include "image/kernel.h"
#include "image/place.h"
#include "image/progress.h"
#include "image/recipe.h"
#include "image/store.h"
#include "image/tool.h"
#include "image/tree.h"
#include "sys/clock.h"
#include "sys/fd.h"

#define ARCH	 "amd64"
#define TARBALL	 "tree.tar"	/* without root: the tree with its real owners */
#define OWNERS	 "owners.fakeroot" /* without root: who owns what in the unpacked tree */
#define KEYRING	 "/usr/share/keyrings/debian-archive-keyring.gpg"

enum {
	LAYOUT = 1, /* part of the recipe's digest: raise it when a build's result changes by our doing */
	SUITE_MAX = 33,
	OS_RELEASE_MAX = 1 << 14,
	FREE_BYTES_MIN = 1 << 30, /* package archives, tree and file system together, with air */
	INODE_BYTES = 256,
	SPARE_INODES = 1024,
	SPARE_BLOCKS = 8192,
	UUID_TEXT = 37,
};

/* Drop what only people read, and keep packages from bringing it again. Licences stay. */
static const char extract_hook[] =
	"set -eu; cd \"$1\"; "
	"printf '%s\\n' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' "
	"'path-exclude=/usr/share/info/*' 'path-exclude=/usr/share/doc/*' "
	"'path-include=/usr/share/doc/*/copyright' > etc/dpkg/dpkg.cfg.d/hotcell; "
	"rm -rf usr/share/man/* usr/share/locale/* usr/share/info/*; "
	"find usr/share/doc -type f ! -name copyright -delete";

/*
 * The user, an identity to be filled in by hotcell-init, and nothing of the host that built it.
 * tmp/ is left alone: mmdebstrap keeps its apt.conf there, and without that its last step,
 * the removal of package lists, would work on the host.
 */
static const char customize_hook[] =
	"set -eu; cd \"$1\"; "
	"chroot . useradd --create-home --uid 1000 --user-group --shell /bin/bash user; "
	"if [ -d etc/sudoers.d ]; then echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > etc/sudoers.d/user; "
	"chmod 0440 etc/sudoers.d/user; fi; "
	"echo hotcell > etc/hostname; "
	"printf '%s\\n' '127.0.0.1 localhost' '127.0.1.1 hotcell' '::1 localhost' > etc/hosts; "
	"rm -f etc/resolv.conf; : > etc/resolv.conf; : > etc/machine-id; "
	"printf 'deb http://deb.debian.org/debian %s main\\n' \"$SUITE\" \"$SUITE-updates\" > etc/apt/sources.list; "
	"printf 'deb http://security.debian.org/debian-security %s main\\n' \"$SUITE-security\" >> etc/apt/sources.list; "
	"rm -f etc/apt/apt.conf.d/99mmdebstrap; "
	"find var/cache var/log -type f -delete";

/* A build on its way. */
struct build {
	const struct build_request *rq;
	struct recipe recipe;
	char suite[SUITE_MAX];
	char recipe_hash[HASH_TEXT];
	char uuid[UUID_TEXT];
	bool is_root;
	int place, lock, new_fd, tree_fd; /* {state}/images, its lock, its ".new", the tree in it */
	struct str manifest;
};

/* ---- the host ---- */

/* The value of KEY=value or KEY="value" in os-release text. */
static bool os_release_is(const char *text, const char *key, char *ret, size_t size)
{
	size_t key_n = strlen(key), n;

	for (const char *line = text; line && *line; line = strchr(line, '\n'), line += line ? 1 : 0) {
		const char *v = line + key_n + 1;

		if (strncmp(line, key, key_n) != 0 || line[key_n] != '=')
			continue;
		v += *v == '"';
		n = strspn(v, "abcdefghijklmnopqrstuvwxyz0123456789-");
		if (!n || n >= size)
			return false;
		memcpy(ret, v, n);
		ret[n] = '\0';
		return true;
	}
	return false;
}

static int find_suite(struct build *b, struct err *e)
{
	char text[OS_RELEASE_MAX], id[SUITE_MAX];
	ssize_t n = sys_read_file(AT_FDCWD, "/etc/os-release", text, sizeof(text));

#ifndef __x86_64__
	return err_set(e, ERR_UNSUPPORTED, "images are built on x86-64 only");
#endif
	if (n < 0)
		return err_sys(e, (int)n, "read /etc/os-release");
	if (!os_release_is(text, "ID", id, sizeof(id)) || strcmp(id, "debian") != 0 ||
	    !os_release_is(text, "VERSION_CODENAME", b->suite, sizeof(b->suite)))
		return err_set(e, ERR_UNSUPPORTED, "images are built from the host's own Debian; this host is something else");
	return 0;
}

static int check_host(struct build *b, struct err *e)
{
	static const char *const programs[] = {"apt-get", "apt-config", "mmdebstrap", "mke2fs", "dpkg-query", "sh",
					       "tar", "newuidmap", "fakeroot"};
	enum { FOR_ROOT = 6 }; /* of them */
	struct statvfs v;
	int r = tool_need(programs, b->is_root ? FOR_ROOT : ARRAY_LEN(programs), e);

	if (r < 0)
		return r;
	if (fstatvfs(b->rq->state_dirfd, &v) < 0)
		return err_sys(e, -errno, "look at the state directory's file system");
	if ((uint64_t)v.f_bavail * v.f_frsize < FREE_BYTES_MIN)
		return err_set(e, ERR_LIMIT, "a build needs 1 GiB of free space on the disk with the state directory; %" PRIu64
			       " MiB are there", (uint64_t)v.f_bavail * v.f_frsize / MIB);
	return 0;
}

/* ---- is there anything to do? ---- */

/* Everything that decides what comes out, except for the versions the archive has today. */
static int hash_recipe(struct build *b, struct err *e)
{
	const struct recipe *rc = &b->recipe;
	struct str s = STR_INIT(RECIPE_MAX);
	const char *h = b->recipe_hash;
	int r;

	str_addf(&s, "layout %d\nname %s\nsuite %s\nowners %d\n%s\n%s\n", LAYOUT, rc->name, b->suite, b->is_root,
		 extract_hook, customize_hook);
	str_addf(&s, "%u %u %u\n", rc->defaults.vcpus, rc->defaults.memory_mb, rc->defaults.disk_mb);
	for (size_t i = 0; i < rc->n_packages; i++)
		str_addf(&s, "%s\n", rc->package[i]);
	r = s.failed ? err_set(e, ERR_LIMIT, "the recipe is too long") : hash_mem(str_text(&s), s.len, b->recipe_hash, e);
	str_deinit(&s);
	if (r < 0)
		return r;
	(void)snprintf(b->uuid, sizeof(b->uuid), "%.8s-%.4s-8%.3s-8%.3s-%.12s", h, h + 8, h + 12, h + 15, h + 18);
	return 0;
}

/* Is the current build of this very recipe, and does it open? */
static bool is_up_to_date(const struct build *b, char ret_digest[HASH_TEXT])
{
	struct manifest m = {0};
	struct image i = IMAGE_INIT;
	struct image_info info;
	bool is = image_inspect(b->rq->state_dirfd, b->recipe.name, &info, &m, NULL) == 0 &&
		  !strcmp(info.recipe, b->recipe_hash) && image_open(b->rq->state_dirfd, b->recipe.name, &i, NULL) == 0;

	if (is)
		memcpy(ret_digest, info.digest, HASH_TEXT);
	image_close(&i);
	manifest_deinit(&m);
	return is;
}

static int make_kernel(const struct build_request *rq, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	AUTO_CLOSE int vmlinux = -1;
	bool is_there = kernel_open(rq->state_dirfd, &k, NULL) == 0 && kernel_open_file(&k, &vmlinux, NULL) == 0;
	int r = 0;

	if (!is_there || rq->is_forced) {
		kernel_close(&k);
		r = kernel_fetch(rq->state_dirfd, rq->progress, e);
		if (r == 0)
			r = kernel_open(rq->state_dirfd, &k, e);
	}
	if (r == 0)
		r = initramfs_ensure(rq->state_dirfd, &k, rq->init_path, e);
	kernel_close(&k);
	return r;
}

/* ---- bootstrap ---- */

static int run(const struct build *b, const char *const *argv, const char *const *env, int stdin_fd, struct str *output,
	       void (*on_line)(struct progress *, const char *), struct err *e)
{
	struct tool t = TOOL_INIT;

	t.argv = argv;
	t.env = env;
	t.cwd_fd = b->new_fd;
	t.stdin_fd = stdin_fd;
	t.output = output;
	t.progress = b->rq->progress;
	t.on_line = on_line;
	t.lock_fd = b->lock;
	t.is_contained = b->is_root; /* mmdebstrap and its mounts of proc, sys and dev must not outlive us */
	return tool_run(&t, e);
}

/* "<uri> <release> <component> <origin>": one of the suite's own, by Debian? */
static void add_source(struct str *to, const struct build *b, const char *uri, const char *release, const char *component,
		       const char *origin)
{
	size_t n = strlen(b->suite);

	if (strcmp(component, "main") != 0 || strncmp(release, b->suite, n) != 0 ||
	    (strcmp(release + n, "") != 0 && strcmp(release + n, "-updates") != 0 && strcmp(release + n, "-security") != 0))
		return;
	if (strcmp(origin, "Debian") != 0 && strcmp(origin, "") != 0)
		return; /* somebody else's archive that is named after the suite */
	str_addf(to, "deb [signed-by=" KEYRING "] %s %s %s\n", uri, release, component);
}

/* The host's own package sources, whatever form they are written in, so that its mirror is used. */
static int find_sources(const struct build *b, struct str *ret, struct err *e)
{
	static const char *const argv[] = {"apt-get", "indextargets", "--format",
					   "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|", "Created-By: Packages", NULL};
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);
	int r = run(b, argv, NULL, -1, &out, NULL, e);
	char *save = NULL;

	for (char *line = r == 0 && out.p ? strtok_r(out.p, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
		const char *uri = strsep(&line, "|"), *release = strsep(&line, "|");
		const char *component = strsep(&line, "|"), *origin = strsep(&line, "|");

		if (uri && release && component && origin && !strpbrk(uri, " \t"))
			add_source(ret, b, uri, release, component, origin[0] == '$' ? "" : origin);
	}
	str_deinit(&out);
	return r;
}

/* What the host's apt was told about getting at its archive; mmdebstrap starts from nothing. */
static int find_apt_options(const struct build *b, struct str *ret, struct err *e)
{
	static const char *const wanted[] = {"Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::https::CaInfo ",
					     "Acquire::Check-Valid-Until ", "Acquire::Check-Date ", "Acquire::Retries "};
	static const char *const argv[] = {"apt-config", "dump", "--no-empty", "--format", "%f \"%v\";%n", "Acquire", NULL};
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);
	int r = run(b, argv, NULL, -1, &out, NULL, e);
	char *save = NULL;

	for (char *line = r == 0 && out.p ? strtok_r(out.p, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
			if (str_starts(line, wanted[i]))
				str_addf(ret, "%s ", line);
	str_deinit(&out);
	return r;
}

/* mmdebstrap says "I: extracting archives..." */
static void on_bootstrap_line(struct progress *p, const char *line)
{
	if (str_starts(line, "I: "))
		progress_stage(p, line + 3);
}

static int text_file(const struct str *s)
{
	AUTO_CLOSE int fd = sys_memfd("text", 0);
	int r = fd < 0 ? fd : sys_write_full(fd, str_text(s), s->len);

	if (r < 0)
		return r;
	return lseek(fd, 0, SEEK_SET) < 0 ? -errno : take_fd(&fd);
}

/* Whose fault it is: the recipe's, or that of a network or mirror that may work later. */
static int blame(int r, struct err *e)
{
	static const struct {
		const char *says;
		int code;
	} table[] = {
		{"Unable to locate package", ERR_INVALID},	{"has no installation candidate", ERR_INVALID},
		{"Failed to fetch", ERR_UNAVAILABLE},		{"Unable to fetch", ERR_UNAVAILABLE},
		{"apt-get update", ERR_UNAVAILABLE},		{"Temporary failure", ERR_UNAVAILABLE},
		{"Could not connect", ERR_UNAVAILABLE},
	};

	for (size_t i = 0; r == -ERR_INTERNAL && e && i < ARRAY_LEN(table); i++)
		if (strstr(e->text, table[i].says))
			return -(e->code = table[i].code);
	return r;
}

static int run_mmdebstrap(const struct build *b, const struct str *sources, const struct str *options, struct err *e)
{
	struct str include = STR_INIT(RECIPE_MAX), suite = STR_INIT(SUITE_MAX + 16), extract = STR_INIT(4096);
	struct str customize = STR_INIT(4096), apt = STR_INIT(RECIPE_MAX);
	AUTO_CLOSE int in = text_file(sources);
	int r;

	str_add(&include, "--include=");
	for (size_t i = 0; i < b->recipe.n_packages; i++)
		str_addf(&include, "%s%s", i ? "," : "", b->recipe.package[i]);
	str_addf(&suite, "SUITE=%s", b->suite);
	str_addf(&extract, "--extract-hook=%s", extract_hook);
	str_addf(&customize, "--customize-hook=%s", customize_hook);
	str_addf(&apt, "--aptopt=%s", str_text(options));
	{
		const char *const argv[] = {"mmdebstrap", "--variant=minbase", b->is_root ? "--mode=root" : "--mode=unshare",
					    b->is_root ? "--format=directory" : "--format=tar", "--dpkgopt=force-unsafe-io",
					    str_text(&include), str_text(&apt), str_text(&extract), str_text(&customize),
					    b->suite, b->is_root ? IMAGE_TREE : TARBALL, sources->len ? "-" : NULL, NULL};
		const char *const env[] = {str_text(&suite), NULL};

		if (in < 0)
			r = err_sys(e, in, "hand the package sources over");
		else if (include.failed || apt.failed || extract.failed || customize.failed)
			r = err_set(e, ERR_LIMIT, "the recipe is too long for one command line");
		else
			r = blame(run(b, argv, env, in, NULL, on_bootstrap_line, e), e);
	}
	str_deinit(&include);
	str_deinit(&suite);
	str_deinit(&extract);
	str_deinit(&customize);
	str_deinit(&apt);
	return r;
}

/* Without root: unpack the tarball as who we are, and note who owns what. */
static int unpack_tarball(struct build *b, struct err *e)
{
	static const char *const argv[] = {"fakeroot", "-s", OWNERS, "--", "tar", "--numeric-owner", "-p", "-xf", TARBALL,
					   "-C", IMAGE_TREE, NULL};
	int r = sys_mkdir(b->new_fd, IMAGE_TREE, 0755);

	if (r < 0)
		return err_sys(e, r, "make the folder for the tree");
	return run(b, argv, NULL, -1, NULL, NULL, e);
}

static int bootstrap(struct build *b, struct err *e)
{
	struct str sources = STR_INIT(RECIPE_MAX), options = STR_INIT(RECIPE_MAX);
	int r = find_sources(b, &sources, e);

	if (r == 0)
		r = find_apt_options(b, &options, e);
	if (r == 0)
		r = run_mmdebstrap(b, &sources, &options, e);
	str_deinit(&sources);
	str_deinit(&options);
	if (r == 0 && !b->is_root)
		r = unpack_tarball(b, e);
	if (r < 0)
		return r;
	b->tree_fd = sys_open_beneath(b->new_fd, IMAGE_TREE, O_RDONLY | O_DIRECTORY, 0);
	if (b->tree_fd < 0)
		return err_sys(e, b->tree_fd, "open the new tree");
	if (fchmod(b->tree_fd, 0755) < 0)
		return err_sys(e, -errno, "set the mode of the new tree");
	return 0;
}

/* ---- pack and seal ---- */

/* Content, inodes, and a tenth for folders' own blocks and extents; what stays unused is a hole. */
static uint64_t blocks_for(const struct tree_size *size)
{
	uint64_t inodes = (size->entries + SPARE_INODES) * INODE_BYTES / TREE_BLOCK;

	return (size->blocks + inodes) / 10 * 11 + SPARE_BLOCKS;
}

static int pack(const struct build *b, struct err *e)
{
	char blocks[32], inodes[32], hash_seed[UUID_TEXT + 64];
	const char *const with_owners[] = {"fakeroot", "-i", OWNERS, "--"};
	const char *argv[32];
	struct tree_size size;
	size_t n = 0;
	int r = tree_measure(b->tree_fd, &size, e);

	if (r < 0)
		return r;
	(void)snprintf(blocks, sizeof(blocks), "%" PRIu64, blocks_for(&size));
	(void)snprintf(inodes, sizeof(inodes), "%" PRIu64, size.entries + SPARE_INODES);
	(void)snprintf(hash_seed, sizeof(hash_seed), "root_owner=0:0,lazy_itable_init=0,hash_seed=%s", b->uuid);
	for (size_t i = 0; !b->is_root && i < ARRAY_LEN(with_owners); i++)
		argv[n++] = with_owners[i];
	/* No journal: nobody ever writes to it. */
	const char *const mke2fs[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0",
				      "-O", "^has_journal,^resize_inode", "-L", "hotcell", "-U", b->uuid, "-E", hash_seed,
				      "-N", inodes, "-d", IMAGE_TREE, IMAGE_ROOT, blocks, NULL};
	for (size_t i = 0; i < ARRAY_LEN(mke2fs); i++)
		argv[n++] = mke2fs[i];
	progress_stage(b->rq->progress, "writing the file system");
	return run(b, argv, NULL, -1, NULL, NULL, e);
}

/* What the tree needs no longer: devices (hotcell makes its own), and what the packing without root left. */
static int clean(const struct build *b, struct err *e)
{
	int r = sys_remove_tree(b->tree_fd, "dev");

	if (r == 0)
		r = sys_mkdir(b->tree_fd, "dev", 0755);
	if (r == 0)
		r = sys_unlink(b->new_fd, TARBALL);
	if (r == 0)
		r = sys_unlink(b->new_fd, OWNERS);
	return r < 0 ? err_sys(e, r, "clean up after the build") : tree_disarm(b->tree_fd, e);
}

static int seal_packages(struct build *b, struct err *e)
{
	static const char *const argv[] = {"dpkg-query", "--admindir=" IMAGE_TREE "/var/lib/dpkg", "-W", "-f",
					   "package ${Package} ${Version}\\n", NULL};

	return run(b, argv, NULL, -1, &b->manifest, NULL, e);
}

static int seal_content(struct build *b, struct err *e)
{
	AUTO_CLOSE int root = sys_open_beneath(b->new_fd, IMAGE_ROOT, O_RDONLY, 0);
	char root_hash[HASH_TEXT], tree_sum[HASH_TEXT];
	uint64_t bytes, entries;
	int r = root < 0 ? err_sys(e, root, "open the new file system") : hash_fd(root, root_hash, &bytes, e);

	if (r == 0)
		r = tree_hash(b->tree_fd, tree_sum, &entries, e);
	if (r == 0)
		str_addf(&b->manifest, IMAGE_ROOT " %s %" PRIu64 "\n" IMAGE_TREE " %s %" PRIu64 "\n", root_hash, bytes,
			 tree_sum, entries);
	return r;
}

static int seal(struct build *b, char ret_digest[HASH_TEXT], struct err *e)
{
	const struct recipe *rc = &b->recipe;
	int r;

	progress_stage(b->rq->progress, "hashing the result");
	manifest_begin(&b->manifest, "image");
	str_addf(&b->manifest, "name %s\narch " ARCH "\nsuite %s\nrecipe %s\nowners %s\n", rc->name, b->suite,
		 b->recipe_hash, b->is_root ? "real" : "builder");
	str_addf(&b->manifest, "vcpus %u\nmemory_mb %u\ndisk_mb %u\nbuilt %" PRIu64 "\n", rc->defaults.vcpus,
		 rc->defaults.memory_mb, rc->defaults.disk_mb, sys_unix_ns() / NS_PER_S);
	r = seal_content(b, e);
	if (r == 0)
		r = seal_packages(b, e);
	if (r < 0)
		return r;
	r = b->manifest.failed ? -ENOMEM
			       : sys_replace_file(b->new_fd, MANIFEST_FILE, b->manifest.p, b->manifest.len, 0644);
	if (r < 0)
		return err_sys(e, r, "write the manifest");
	return hash_mem(b->manifest.p, b->manifest.len, ret_digest, e);
}

static int make(struct build *b, char ret_digest[HASH_TEXT], struct err *e)
{
	char entry[PLACE_NAME_MAX];
	int r = place_begin(b->place, &b->new_fd, e);

	if (r == 0)
		r = bootstrap(b, e);
	if (r == 0)
		r = pack(b, e);
	if (r == 0)
		r = clean(b, e);
	if (r == 0)
		r = seal(b, ret_digest, e);
	if (r < 0)
		return r;
	progress_stage(b->rq->progress, "writing to disk");
	(void)snprintf(entry, sizeof(entry), "%s@%s", b->recipe.name, ret_digest);
	r = place_commit(b->place, entry, e);
	return r < 0 ? r : place_set_pointer(b->place, b->recipe.name, entry, e);
}

static int build_locked(struct build *b, struct build_result *ret, struct err *e)
{
	int r = place_enter(b->rq->state_dirfd, IMAGES_FOLDER, &b->place, &b->lock, e);

	if (r < 0)
		return r;
	ret->is_new = b->rq->is_forced || !is_up_to_date(b, ret->digest);
	if (!ret->is_new)
		return 0;
	r = check_host(b, e);
	if (r == 0)
		r = make(b, ret->digest, e);
	if (r < 0) /* what is left is big; the next build would also remove it, if there is one */
		place_abandon(b->place);
	return r;
}

static int build(struct build *b, struct build_result *ret, struct err *e)
{
	int r = recipe_load(b->rq->templates_dirfd, b->rq->name, &b->recipe, e);

	if (r == 0)
		r = find_suite(b, e);
	if (r == 0)
		r = hash_recipe(b, e);
	if (r == 0)
		r = make_kernel(b->rq, e);
	if (r == 0)
		r = build_locked(b, ret, e);
	return r;
}

int image_build(const struct build_request *rq, struct build_result *ret, struct err *e)
{
	AUTO_FREE struct build *b = mem_new(sizeof(*b));
	struct build_result result = {0};
	int r;

	*b = (struct build){.rq = rq, .is_root = geteuid() == 0, .place = -1, .lock = -1, .new_fd = -1, .tree_fd = -1,
			    .manifest = STR_INIT(MANIFEST_MAX)};
	r = build(b, &result, e);
	sys_close(b->tree_fd);
	sys_close(b->new_fd);
	sys_close(b->place);
	sys_close(b->lock);
	str_deinit(&b->manifest);
	if (r == 0)
		*ret = result;
	return r;
}
