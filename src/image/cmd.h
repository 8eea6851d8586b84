/* image/cmd.h - the verbs of `hotcell image`. Main thread of the command line. */
#pragma once
struct err;

/* Where things are. All lent; init_path and templates are only needed to build. */
struct image_cmd_env {
	const char *state_dir;     /* made when missing, by build */
	const char *init_path;     /* hotcell-init */
	const char *templates_dir; /* holds <name>.yaml */
};

/*
 * image_cmd() - `hotcell image <verb> ...`
 * @argv:	argv[0] is the verb: build, recipes, list, info, verify, rm
 *
 * Results go to standard output, progress to standard error, complaints into @e.
 * Return: 0, or -ERR_x.
 */
int image_cmd(int argc, char **argv, const struct image_cmd_env *env, struct err *e);
