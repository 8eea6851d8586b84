/* image/bootstrap.c - the distribution's packages become a tree: by mmdebstrap, from the host's
 * sources */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "image/build_int.h"
#include "image/progress.h"
#include "image/store.h"
#include "sys/fd.h"

#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"

enum { OS_RELEASE_MAX = 1 << 14 };

/* Drop what only people read, and keep packages from bringing it again. Licences stay. */
static const char extract_hook[] =
	"--extract-hook=set -eu; cd \"$1\"; "
	"printf '%s\\n' 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/locale/*' "
	"'path-exclude=/usr/share/info/*' 'path-exclude=/usr/share/doc/*' "
	"'path-include=/usr/share/doc/*/copyright' > etc/dpkg/dpkg.cfg.d/hotcell; "
	"rm -rf usr/share/man/* usr/share/locale/* usr/share/info/*; "
	"find usr/share/doc -type f ! -name copyright -delete";

/*
 * The user, an identity to be filled in by hotcell-init, and nothing of the host that built it.
 * tmp/ is left alone: mmdebstrap keeps its apt.conf there, and without that its last step,
 * the removal of package lists, would work on the host.
 * Of the caches, fontconfig's stays: a guest would need seconds for it, and its programs would wait for each other.
 * Python's byte code is beside its modules and stays as well; ldconfig's knows inodes, which are others in an image.
 */
static const char customize_hook[] =
	"--customize-hook=set -eu; cd \"$1\"; "
	"chroot . useradd --create-home --uid 1000 --user-group --shell /bin/bash user; "
	"if [ -d etc/sudoers.d ]; then echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > "
	"etc/sudoers.d/user; "
	"chmod 0440 etc/sudoers.d/user; fi; "
	/* a sandbox is the environment: pip install needs no other one around it */
	"printf '[global]\\nbreak-system-packages = true\\ndisable-pip-version-check = true\\n' > etc/pip.conf; "
	"echo hotcell > etc/hostname; "
	"printf '%s\\n' '127.0.0.1 localhost' '127.0.1.1 hotcell' '::1 localhost' > etc/hosts; "
	"rm -f etc/resolv.conf; : > etc/resolv.conf; : > etc/machine-id; "
	"printf 'deb http://deb.debian.org/debian %s main\\n' \"$SUITE\" \"$SUITE-updates\" > "
	"etc/apt/sources.list; "
	"printf 'deb http://security.debian.org/debian-security %s main\\n' \"$SUITE-security\" >> "
	"etc/apt/sources.list; "
	"rm -f etc/apt/apt.conf.d/99mmdebstrap; "
	"find var/cache var/log -type f ! -path 'var/cache/fontconfig/*' -delete";

void bootstrap_describe(struct str *s)
{
	str_addf(s, "%s\n%s\n", extract_hook, customize_hook);
}

/* ---- the host ---- */

/* The value of KEY=value or KEY="value" in os-release text. */
static bool os_release_is(const char *text, const char *key, char *ret, size_t size)
{
	size_t key_n = strlen(key), n;

	for (const char *line = text; line && *line;
	     line = strchr(line, '\n'), line += line ? 1 : 0) {
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

int bootstrap_find_suite(char ret[BUILD_SUITE_MAX], struct err *e)
{
	char text[OS_RELEASE_MAX], id[BUILD_SUITE_MAX];
	ssize_t n = sys_read_file(AT_FDCWD, "/etc/os-release", text, sizeof(text));

#ifndef __x86_64__
	return err_set(e, ERR_UNSUPPORTED, "images are built on x86-64 only");
#endif
	if (n < 0)
		return err_sys(e, (int)n, "read /etc/os-release");
	if (!os_release_is(text, "ID", id, sizeof(id)) || strcmp(id, "debian") != 0 ||
	    !os_release_is(text, "VERSION_CODENAME", ret, BUILD_SUITE_MAX))
		return err_set(
			e, ERR_UNSUPPORTED,
			"images are built from the host's own Debian; this host is something else");
	return 0;
}

/* "<uri> <release> <component> <origin>": one of the suite's own, by Debian? */
static void add_source(struct str *to, const struct build *b, const char *uri, const char *release,
		       const char *component, const char *origin)
{
	size_t n = strlen(b->suite);

	if (strcmp(component, "main") != 0 || strncmp(release, b->suite, n) != 0 ||
	    (strcmp(release + n, "") != 0 && strcmp(release + n, "-updates") != 0 &&
	     strcmp(release + n, "-security") != 0))
		return;
	if (strcmp(origin, "Debian") != 0 && strcmp(origin, "") != 0)
		return; /* somebody else's archive that is named after the suite */
	str_addf(to, "deb [signed-by=" KEYRING "] %s %s %s\n", uri, release, component);
}

/* The host's own package sources, whatever form they are written in, so that its mirror is used. */
static int find_sources(const struct build *b, struct str *ret, struct err *e)
{
	static const char *const argv[] = { "apt-get",
					    "indextargets",
					    "--format",
					    "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)|",
					    "Created-By: Packages",
					    NULL };
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);
	int r = build_run(b, argv, &out, e);
	char *save = NULL;

	for (char *line = r == 0 && out.p ? strtok_r(out.p, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
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
	static const char *const wanted[] = {
		"Acquire::http::Proxy ",       "Acquire::https::Proxy ", "Acquire::https::CaInfo ",
		"Acquire::Check-Valid-Until ", "Acquire::Check-Date ",   "Acquire::Retries "
	};
	static const char *const argv[] = { "apt-config",   "dump",    "--no-empty", "--format",
					    "%f \"%v\";%n", "Acquire", NULL };
	struct str out = STR_INIT(TOOL_OUTPUT_MAX);
	int r = build_run(b, argv, &out, e);
	char *save = NULL;

	for (char *line = r == 0 && out.p ? strtok_r(out.p, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save))
		for (size_t i = 0; i < ARRAY_LEN(wanted); i++)
			if (str_starts(line, wanted[i]))
				str_addf(ret, "%s ", line);
	str_deinit(&out);
	return r;
}

/* mmdebstrap says "I: extracting archives...", and prints the hooks it runs. */
static void on_bootstrap_line(struct progress *p, const char *line)
{
	if (str_starts(line, "I: ") && !strstr(line, "-hook"))
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
		{ "Unable to locate package", ERR_INVALID },
		{ "has no installation candidate", ERR_INVALID },
		{ "Failed to fetch", ERR_UNAVAILABLE },
		{ "Unable to fetch", ERR_UNAVAILABLE },
		{ "apt-get update", ERR_UNAVAILABLE },
		{ "Temporary failure", ERR_UNAVAILABLE },
		{ "Could not connect", ERR_UNAVAILABLE },
	};

	for (size_t i = 0; r == -ERR_INTERNAL && e && i < ARRAY_LEN(table); i++)
		if (strstr(e->text, table[i].says))
			return -(e->code = table[i].code);
	return r;
}

static int run_mmdebstrap(const struct build *b, const char *include, const char *apt,
			  const struct str *sources, struct err *e)
{
	char suite[BUILD_SUITE_MAX + sizeof("SUITE=")];
	const char *const env[] = { suite, NULL };
	const char *const argv[] = { "mmdebstrap",
				     "--variant=minbase",
				     b->is_root ? "--mode=root" : "--mode=unshare",
				     b->is_root ? "--format=directory" : "--format=tar",
				     "--dpkgopt=force-unsafe-io",
				     include,
				     apt,
				     extract_hook,
				     customize_hook,
				     b->suite,
				     b->is_root ? IMAGE_TREE : BUILD_TARBALL,
				     sources->len ? "-" : NULL,
				     NULL };
	struct tool t = build_tool(b, argv);
	AUTO_CLOSE int in = text_file(sources);

	if (in < 0)
		return err_sys(e, in, "hand the package sources over");
	(void)snprintf(suite, sizeof(suite), "SUITE=%s", b->suite); /* the hooks read it */
	t.env = env;
	t.stdin_fd = in;
	t.on_line = on_bootstrap_line;
	return blame(tool_run(&t, e), e);
}

/* Make the tree, or its tarball, from what was found out about the host. */
static int install(const struct build *b, const struct str *sources, const struct str *options,
		   struct err *e)
{
	struct str include = STR_INIT(RECIPE_MAX), apt = STR_INIT(RECIPE_MAX);
	int r;

	str_add(&include, "--include=");
	for (size_t i = 0; i < b->recipe.n_packages; i++)
		str_addf(&include, "%s%s", i ? "," : "", b->recipe.package[i]);
	/* never empty, which mmdebstrap refuses: a fresh machine has no such configuration of its own */
	str_addf(&apt, "--aptopt=Acquire::Languages \"none\"; %s", str_text(options));
	if (include.failed || apt.failed || sources->failed || options->failed)
		r = err_set(e, ERR_LIMIT, "the recipe or apt's configuration is too long");
	else
		r = run_mmdebstrap(b, str_text(&include), str_text(&apt), sources, e);
	str_deinit(&include);
	str_deinit(&apt);
	return r;
}

/* Without root: unpack the tarball as who we are, and note who owns what. */
static int unpack_tarball(struct build *b, struct err *e)
{
	static const char *const argv[] = { "fakeroot", "-s",       BUILD_OWNERS,
					    "--",       "tar",      "--numeric-owner",
					    "-p",       "-xf",      BUILD_TARBALL,
					    "-C",       IMAGE_TREE, NULL };
	int r = sys_mkdir(b->new_fd, IMAGE_TREE, 0755);

	if (r < 0)
		return err_sys(e, r, "make the folder for the tree");
	return build_run(b, argv, NULL, e);
}

int bootstrap(struct build *b, struct err *e)
{
	struct str sources = STR_INIT(RECIPE_MAX), options = STR_INIT(RECIPE_MAX);
	int r = find_sources(b, &sources, e);

	if (r == 0)
		r = find_apt_options(b, &options, e);
	if (r == 0)
		r = install(b, &sources, &options, e);
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
