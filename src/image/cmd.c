/* image/cmd.c - the verbs, by a table */
#include "image/cmd.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/unit.h"
#include "image/build.h"
#include "image/progress.h"
#include "image/recipe.h"
#include "image/store.h"
#include "image/tool.h"
#include "sys/clock.h"
#include "sys/fd.h"

enum { SHORT_DIGEST = IMAGE_DIGEST_MIN, TEXT_MAX = 1 << 20, TIME_TEXT = 32 };

#define DEFAULT_TEMPLATE "base"

struct call {
	const struct image_cmd_env *env;
	const char *ref; /* NULL when none was given */
	bool is_json, is_forced;
	int state; /* the state directory; -1 when there is none yet */
	struct str out;
};

struct verb {
	const char *name, *usage, *help;
	int (*run)(struct call *c, struct err *e);
	bool needs_ref, takes_ref, takes_force;
};

static void add_key(struct str *s, const char *key, const char *text)
{
	str_addf(s, "\"%s\":", key);
	str_add_json(s, text, strlen(text));
}

static void format_time(uint64_t unix_s, char ret[TIME_TEXT])
{
	time_t t = (time_t)unix_s;
	struct tm tm;

	if (!gmtime_r(&t, &tm) || !strftime(ret, TIME_TEXT, "%Y-%m-%dT%H:%M:%SZ", &tm))
		(void)snprintf(ret, TIME_TEXT, "-");
}

/* ---- build ---- */

static int open_state(struct call *c, bool may_make, struct err *e)
{
	int r = may_make ? sys_mkdirs(c->env->state_dir, 0755) : 0;

	if (r == 0)
		r = c->state = sys_open(c->env->state_dir, O_RDONLY | O_DIRECTORY);
	if (r == -ENOENT && !may_make)
		return err_set(e, ERR_NOT_FOUND, "nothing was built yet; run: hotcell image build");
	return r < 0 ? err_sys(e, r, "open the state directory %s", c->env->state_dir) : 0;
}

static int do_build(struct call *c, struct err *e)
{
	AUTO_CLOSE int templates = sys_open(c->env->templates_dir, O_RDONLY | O_DIRECTORY);
	struct build_result result;
	struct progress progress;
	struct tool_signals signals;
	uint64_t start = sys_now_ns(), ms;
	int r = open_state(c, true, e);

	if (r < 0)
		return r;
	if (templates < 0)
		return err_sys(e, templates, "open the folder of templates %s",
			       c->env->templates_dir);
	progress_begin(&progress);
	tool_signals_take(&signals);
	r = image_build(&(struct build_request){ .state_dirfd = c->state,
						 .templates_dirfd = templates,
						 .name = c->ref ? c->ref : DEFAULT_TEMPLATE,
						 .init_path = c->env->init_path,
						 .is_forced = c->is_forced,
						 .progress = &progress },
			&result, e);
	tool_signals_return(&signals);
	progress_end(&progress);
	if (r < 0)
		return r;
	ms = (sys_now_ns() - start) / NS_PER_MS;
	if (c->is_json)
		str_addf(&c->out,
			 "{\"name\":\"%s\",\"digest\":\"%s\",\"built\":%s,\"ms\":%" PRIu64 "}\n",
			 c->ref ? c->ref : DEFAULT_TEMPLATE, result.digest,
			 result.is_new ? "true" : "false", ms);
	else
		str_addf(&c->out, "%s@%.*s %s in %" PRIu64 ".%" PRIu64 " s\n",
			 c->ref ? c->ref : DEFAULT_TEMPLATE, SHORT_DIGEST, result.digest,
			 result.is_new ? "built" : "is up to date, checked", ms / 1000,
			 ms % 1000 / 100);
	return 0;
}

/* ---- recipes ---- */

static void add_recipe(struct str *s, const char *name, const struct recipe *rc, const struct err *why, bool is_json)
{
	const char *text = why->code ? why->text : rc->description;

	if (!is_json) {
		str_addf(s, "%-20s ", name);
		str_add_escaped(s, text, strlen(text));
		str_add(s, "\n");
		return;
	}
	str_add(s, "{");
	add_key(s, "name", name);
	str_add(s, ",");
	add_key(s, why->code ? "error" : "description", text);
	if (!why->code)
		str_addf(s, ",\"packages\":%zu,\"vcpus\":%u,\"memory_mb\":%u,\"disk_mb\":%u", rc->n_packages,
			 rc->defaults.vcpus, rc->defaults.memory_mb, rc->defaults.disk_mb);
	str_add(s, "}\n");
}

/* One that can't be read stands in the list with what is wrong with it. */
static int do_recipes(struct call *c, struct err *e)
{
	AUTO_CLOSE int templates = sys_open(c->env->templates_dir, O_RDONLY | O_DIRECTORY);
	AUTO_FREE char (*names)[RECIPE_NAME_MAX] = NULL;
	AUTO_FREE struct recipe *rc = mem_new(sizeof(*rc));
	size_t n = 0;
	int r = templates < 0 ? err_sys(e, templates, "open the folder of templates %s", c->env->templates_dir)
			      : recipe_names(templates, &names, &n, e);

	if (r < 0)
		return r;
	if (!c->is_json)
		str_addf(&c->out, "%-20s %s\n", "NAME", "DESCRIPTION");
	for (size_t i = 0; i < n; i++) {
		struct err why = ERR_INIT;

		(void)recipe_load(templates, names[i], rc, &why);
		add_recipe(&c->out, names[i], rc, &why, c->is_json);
	}
	if (!c->is_json)
		str_addf(&c->out, "\nin %s (HOTCELL_TEMPLATES); make the image of one with: hotcell image build NAME\n",
			 c->env->templates_dir);
	return 0;
}

/* ---- list, info ---- */

static void add_info_json(struct str *s, const struct image_info *i)
{
	str_add(s, "{");
	add_key(s, "name", i->name);
	str_add(s, ",");
	add_key(s, "digest", i->digest);
	str_addf(s, ",\"current\":%s,\"damaged\":%s", i->is_current ? "true" : "false",
		 i->is_damaged ? "true" : "false");
	if (!i->is_damaged)
		str_addf(s,
			 ",\"suite\":\"%s\",\"recipe\":\"%s\",\"built_unix_s\":%" PRIu64
			 ",\"root_bytes\":%" PRIu64 ",\"packages\":%" PRIu64
			 ",\"vcpus\":%u,\"memory_mb\":%u,\"disk_mb\":%u",
			 i->suite, i->recipe, i->built_unix_s, i->root_bytes, i->n_packages,
			 i->defaults.vcpus, i->defaults.memory_mb, i->defaults.disk_mb);
}

static void add_row(struct str *s, const struct image_info *i)
{
	char size[UNIT_TEXT], built[TIME_TEXT];

	if (i->is_damaged) {
		str_addf(s, "%-20s %-14.*s damaged; run: hotcell image build --force %s\n", i->name,
			 SHORT_DIGEST, i->digest, i->name);
		return;
	}
	unit_format_bytes(i->root_bytes, size);
	format_time(i->built_unix_s, built);
	str_addf(s, "%-20s %-14.*s %-10s %8" PRIu64 "  %s%s\n", i->name, SHORT_DIGEST, i->digest,
		 size, i->n_packages, built, i->is_current ? "" : "  (older build)");
}

static int do_list(struct call *c, struct err *e)
{
	AUTO_FREE struct image_info *all = NULL;
	size_t n = 0;
	int r = open_state(c, false, e);

	if (r == 0)
		r = image_list(c->state, &all, &n, e);
	if (r < 0 && r != -ERR_NOT_FOUND)
		return r;
	if (!c->is_json && n)
		str_addf(&c->out, "%-20s %-14s %-10s %8s  %s\n", "NAME", "DIGEST", "SIZE",
			 "PACKAGES", "BUILT");
	for (size_t i = 0; i < n; i++) {
		if (!c->is_json) {
			add_row(&c->out, &all[i]);
			continue;
		}
		add_info_json(&c->out, &all[i]);
		str_add(&c->out, "}\n");
	}
	if (!c->is_json && !n)
		str_add(&c->out, "No images. Make the default one with: hotcell image build\n");
	return 0;
}

static void add_packages(struct str *s, const struct manifest *m, bool is_json)
{
	struct manifest_line line;
	size_t at = 0, n = 0;

	while (manifest_next(m, &at, &line)) {
		if (strcmp(line.word[0], "package") != 0 || line.n_words != 3)
			continue;
		if (is_json) {
			str_add(s, n++ ? "," : "");
			add_key(s, line.word[1], line.word[2]);
		} else {
			str_addf(s, "  %-32s %s\n", line.word[1], line.word[2]);
		}
	}
}

static void add_info_text(struct str *s, const struct image_info *i, const char *kernel)
{
	char size[UNIT_TEXT], built[TIME_TEXT];

	unit_format_bytes(i->root_bytes, size);
	format_time(i->built_unix_s, built);
	str_addf(s,
		 "name      %s\ndigest    %s\nsuite     %s\nkernel    %s\nsize      %s\nbuilt     "
		 "%s\n",
		 i->name, i->digest, i->suite, kernel, size, built);
	str_addf(s, "defaults  %u vCPU, %u MiB memory, %u MiB disk\npackages  %" PRIu64 "\n",
		 i->defaults.vcpus, i->defaults.memory_mb, i->defaults.disk_mb, i->n_packages);
}

static int do_info(struct call *c, struct err *e)
{
	struct kernel k = KERNEL_INIT;
	struct manifest m = { 0 };
	struct image_info info;
	const char *kernel;
	int r = open_state(c, false, e);

	if (r == 0)
		r = image_inspect(c->state, c->ref, &info, &m, e);
	if (r < 0)
		return r;
	kernel = kernel_open(c->state, &k, NULL) == 0 ? k.release : "(missing)";
	if (c->is_json) {
		add_info_json(&c->out, &info);
		str_add(&c->out, ",");
		add_key(&c->out, "kernel", kernel);
		str_add(&c->out, ",\"package_versions\":{");
		add_packages(&c->out, &m, true);
		str_add(&c->out, "}}\n");
	} else {
		add_info_text(&c->out, &info, kernel);
		add_packages(&c->out, &m, false);
	}
	kernel_close(&k);
	manifest_deinit(&m);
	return 0;
}

/* ---- verify, rm ---- */

static int do_verify(struct call *c, struct err *e)
{
	const char *ref = c->ref ? c->ref : DEFAULT_TEMPLATE;
	int r = open_state(c, false, e);

	if (r == 0)
		r = image_verify(c->state, ref, e);
	if (r == 0)
		str_addf(&c->out,
			 c->is_json ? "{\"name\":\"%s\",\"ok\":true}\n"
				    : "%s: file system, tree, kernel and initramfs are as built\n",
			 ref);
	return r;
}

static int do_remove(struct call *c, struct err *e)
{
	int r = open_state(c, false, e);

	if (r == 0)
		r = image_remove(c->state, c->ref, e);
	if (r == 0)
		str_addf(&c->out,
			 c->is_json ? "{\"name\":\"%s\",\"removed\":true}\n" : "%s removed\n",
			 c->ref);
	return r;
}

/* ---- the table ---- */

static const struct verb verbs[] = {
	{ "build", "build [NAME] [--force] [--json]",
	  "Build the image of template NAME (default: base) unless it is up to date.\n"
	  "  --force   build although nothing changed; takes new package versions and a newer "
	  "kernel\n"
	  "  --json    print the result as JSON\n",
	  do_build, false, true, true },
	{ "recipes", "recipes [--json]", "List what images can be built of.\n", do_recipes, false, false, false },
	{ "list", "list [--json]", "List the images on this machine.\n", do_list, false, false,
	  false },
	{ "info", "info NAME [--json]",
	  "Show an image: digest, sizes, defaults, packages with versions.\n", do_info, true, true,
	  false },
	{ "verify", "verify [NAME] [--json]",
	  "Hash image (default: base), kernel and initramfs again and compare with what was "
	  "built.\n",
	  do_verify, false, true, false },
	{ "rm", "rm NAME [--json]",
	  "Remove an image that no sandbox uses. NAME may be name@digest for an older build.\n",
	  do_remove, true, true, false },
};

static void print_help(const struct verb *only)
{
	if (!only)
		printf("Usage: hotcell image VERB ...\n\nThe images sandboxes start from.\n\n");
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (!only || only == &verbs[i])
			printf("%shotcell image %s\n%s\n", only ? "Usage: " : "", verbs[i].usage,
			       verbs[i].help);
}

static int parse(int argc, char **argv, const struct verb *v, struct call *c, struct err *e)
{
	bool only_names = false;

	for (int i = 1; i < argc; i++) {
		if (!only_names && !strcmp(argv[i], "--")) {
			only_names = true;
		} else if (!only_names && !strcmp(argv[i], "--json")) {
			c->is_json = true;
		} else if (!only_names && v->takes_force && !strcmp(argv[i], "--force")) {
			c->is_forced = true;
		} else if (!only_names && argv[i][0] == '-') {
			return err_set(e, ERR_INVALID,
				       "unknown option %.60s; usage: hotcell image %s", argv[i],
				       v->usage);
		} else if (!v->takes_ref || c->ref) {
			return err_set(e, ERR_INVALID,
				       "one argument too many: %.60s; usage: hotcell image %s",
				       argv[i], v->usage);
		} else {
			c->ref = argv[i];
		}
	}
	if (v->needs_ref && !c->ref)
		return err_set(e, ERR_INVALID,
			       "the name of an image is missing; usage: hotcell image %s",
			       v->usage);
	return 0;
}

static bool wants_help(int argc, char **argv)
{
	for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

static int run_verb(const struct verb *v, int argc, char **argv, const struct image_cmd_env *env,
		    struct err *e)
{
	struct call c = { .env = env, .state = -1, .out = STR_INIT(TEXT_MAX) };
	int r = parse(argc, argv, v, &c, e);

	if (r == 0)
		r = v->run(&c, e);
	if (r == 0 && (c.out.failed || fputs(str_text(&c.out), stdout) < 0 || fflush(stdout) < 0))
		r = err_set(e, ERR_INTERNAL, "the answer could not be written to standard output");
	sys_close(c.state);
	str_deinit(&c.out);
	return r;
}

int image_cmd(int argc, char **argv, const struct image_cmd_env *env, struct err *e)
{
	const struct verb *v = NULL;

	for (size_t i = 0; argc > 0 && i < ARRAY_LEN(verbs); i++)
		if (!strcmp(argv[0], verbs[i].name))
			v = &verbs[i];
	if (wants_help(argc, argv) || (argc > 0 && !strcmp(argv[0], "help"))) {
		print_help(v);
		return 0;
	}
	if (!v)
		return err_set(e, ERR_INVALID,
			       "hotcell image needs one of build, recipes, list, info, verify, rm%s%.60s",
			       argc > 0 ? ", not " : "", argc > 0 ? argv[0] : "");
	return run_verb(v, argc, argv, env, e);
}
