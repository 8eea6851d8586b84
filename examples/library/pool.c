/*
 * pool.c - have sandboxes made before they are needed, with libhotcell
 *
 *	cc pool.c -o pool $(pkg-config --cflags --libs hotcell) && ./pool [vm|process]
 *
 * A pool keeps one sandbox ready. When it is, a create only has to take it, and the next is made.
 */
#include <hotcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { PATIENCE_MS = 60000, LOOK_MS = 50 };

struct known {
	const char *isolation;
	bool is_ready;
	unsigned long long hits;
};

static int look(void *arg, const struct hotcell_pool *p)
{
	struct known *k = arg;

	if (strcmp(hotcell_pool_isolation(p), k->isolation) == 0) {
		k->is_ready = hotcell_pool_ready(p) == hotcell_pool_size(p);
		k->hits = hotcell_pool_hits(p);
		if (*hotcell_pool_reason(p))
			(void)fprintf(stderr, "pool: %s\n", hotcell_pool_reason(p));
	}
	return 0;
}

static int wait_for_pool(struct hotcell *h, struct known *k, struct hotcell_error *e)
{
	const struct timespec pause = {.tv_nsec = LOOK_MS * 1000000L};

	for (int left = PATIENCE_MS / LOOK_MS; left > 0; left--) {
		if (hotcell_pool_list(h, look, k, e) < 0)
			return -1;
		if (k->is_ready)
			return 0;
		(void)nanosleep(&pause, NULL);
	}
	(void)fprintf(stderr, "pool: still not ready after %d s\n", PATIENCE_MS / 1000);
	return 0;
}

static int use(struct hotcell *h, struct known *k, struct hotcell_error *e)
{
	struct hotcell_config config = HOTCELL_CONFIG_INIT;
	struct hotcell_result *result;
	struct hotcell_sandbox *s;
	int r;

	config.isolation = k->isolation;
	config.ephemeral = true; /* gone with this program, however it ends */
	if (wait_for_pool(h, k, e) < 0 || hotcell_create(h, &config, &s, e) < 0)
		return -1;
	r = hotcell_execute(s, "echo at once", NULL, &result, e);
	if (r == 0) {
		(void)fputs(hotcell_result_stdout(result, NULL), stdout);
		hotcell_result_free(result);
		r = hotcell_pool_list(h, look, k, e);
	}
	if (hotcell_sandbox_destroy(s, r < 0 ? NULL : e) < 0)
		return -1;
	if (r == 0)
		(void)printf("taken from the pool: %llu\n", k->hits);
	return r;
}

static int fail(const char *what, const struct hotcell_error *e)
{
	(void)fprintf(stderr, "%s: %s (%s)\n", what, e->message, hotcell_code_name(e->code));
	return EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	struct hotcell_pool_options options = HOTCELL_POOL_OPTIONS_INIT;
	struct known known = {.isolation = argc > 1 ? argv[1] : "vm"};
	struct hotcell_error e;
	struct hotcell *h;
	int r = EXIT_SUCCESS;

	options.isolation = known.isolation;
	if (hotcell_connect(NULL, &h, &e) < 0)
		return fail("connect", &e);
	if (hotcell_pool_set(h, "base", 1, 0, &options, NULL, &e) < 0)
		r = fail("pool", &e);
	else if (use(h, &known, &e) < 0)
		r = fail("sandbox", &e);
	if (r == EXIT_SUCCESS && hotcell_pool_remove(h, "base", &options, &e) < 0)
		r = fail("remove the pool", &e);
	hotcell_disconnect(h);
	return r;
}
