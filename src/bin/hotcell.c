/* bin/hotcell.c - the command line: wiring */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "cli/cli.h"
#include "client/place.h"
#include "image/cmd.h"

/* Of an installation, in share/ beside bin/; in a build directory the same name leads to the source tree. */
static void find_templates(char *ret, size_t size)
{
	const char *given = getenv("HOTCELL_TEMPLATES");
	char exe[PLACE_PATH - 64];
	AUTO_FREE char *real = NULL;
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	exe[n > 0 ? n : 0] = '\0';
	if (given && *given) {
		(void)snprintf(ret, size, "%s", given);
		return;
	}
	(void)snprintf(ret, size, "%s/../share/hotcell/templates", dirname(exe));
	real = realpath(ret, NULL);
	if (real)
		(void)snprintf(ret, size, "%s", real);
}

static int image(int argc, char **argv, struct err *e)
{
	char state[PLACE_PATH], init[PLACE_PATH + 64], templates[PLACE_PATH];
	struct image_cmd_env env = {state, init, templates};
	int r = place_state(state, sizeof(state), e);

	if (r == 0)
		r = place_program("hotcell-init", init, sizeof(init), e);
	find_templates(templates, sizeof(templates));
	return r < 0 ? r : image_cmd(argc - 1, argv + 1, &env, e);
}

/* The keeper measures: it is the one who will have to do it. */
static int doctor(bool json, struct err *e)
{
	char program[PLACE_PATH + 64];
	int r = place_program("hotcell-keeper", program, sizeof(program), e);

	if (r < 0)
		return r;
	(void)execl(program, program, "--probe", json ? "--json" : (char *)NULL, (char *)NULL);
	return err_sys(e, -errno, "run %s", program);
}

int main(int argc, char **argv)
{
	static const struct cli_hooks hooks = {.image = image, .doctor = doctor};

	(void)umask(umask(0) & ~(mode_t)0700); /* what it makes for the daemon, its owner can use */
	return cli_main(argc, argv, &hooks);
}
