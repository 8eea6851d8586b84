/* bin/hotcell.c - the command line: wiring */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "cli/cli.h"
#include "client/place.h"
#include "image/cmd.h"

static bool has_json(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--json") == 0)
			return true;
	return false;
}

/* Installed: ../share/hotcell/templates beside bin/; else those of the source tree. */
static void find_templates(char *ret, size_t size)
{
	const char *given = getenv("HOTCELL_TEMPLATES");
	char exe[PLACE_PATH - 64];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[n > 0 ? n : 0] = '\0';
	if (given && *given) {
		(void)snprintf(ret, size, "%s", given);
		return;
	}
	(void)snprintf(ret, size, "%s/../share/hotcell/templates", dirname(exe));
	if (access(ret, R_OK | X_OK) < 0)
		(void)snprintf(ret, size, "%s", HOTCELL_SOURCE_TEMPLATES);
}

static int image(int argc, char **argv)
{
	char state[PLACE_PATH], init[PLACE_PATH + 64], templates[PLACE_PATH];
	struct image_cmd_env env = {state, init, templates};
	struct err e = ERR_INIT;
	int r = place_state(state, sizeof(state), &e);

	if (r == 0)
		r = place_program("hotcell-init", init, sizeof(init), &e);
	find_templates(templates, sizeof(templates));
	if (r == 0)
		r = image_cmd(argc - 1, argv + 1, &env, &e);
	return r < 0 ? cli_fail(&e, has_json(argc, argv)) : 0;
}

/* The keeper measures: it is the one who will have to do it. */
static int doctor(int argc, char **argv)
{
	char program[PLACE_PATH + 64];
	struct err e = ERR_INIT;
	char **words = calloc((size_t)argc + 2, sizeof(*words));
	int r = place_program("hotcell-keeper", program, sizeof(program), &e);

	if (r == 0 && !words)
		r = err_set(&e, ERR_LIMIT, "out of memory");
	if (r == 0) {
		words[0] = program;
		words[1] = (char *)"--probe";
		memcpy(words + 2, argv + 1, (size_t)(argc - 1) * sizeof(*words));
		(void)execv(program, words);
		err_sys(&e, -errno, "run %s", program);
	}
	free(words);
	return cli_fail(&e, has_json(argc, argv));
}

int main(int argc, char **argv)
{
	static const struct cli_hooks hooks = {.image = image, .doctor = doctor};

	return cli_main(argc, argv, &hooks);
}
