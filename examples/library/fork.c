/*
 * fork.c - copy a machine while it runs, and put it back, with libhotcell
 *
 *	cc fork.c -o fork $(pkg-config --cflags --libs hotcell) && ./fork
 *
 * A live interpreter holds some state. Two copies of the whole machine go on from there, each on
 * its own; then the machine they were made of goes back to a snapshot, as if nothing had happened.
 */
#include <hotcell.h>
#include <stdio.h>
#include <stdlib.h>

enum { FORKS = 2 };

/* Run Python that keeps its variables, and print what it shows. */
static int run(struct hotcell_sandbox *s, const char *who, const char *source, struct hotcell_error *e)
{
	struct hotcell_code_result *r;
	const char *text;

	if (hotcell_code_run(s, source, NULL, &r, e) < 0)
		return -1;
	text = hotcell_code_text(r);
	(void)printf("%s: %s%s\n", who, text ? text : hotcell_code_status(r), hotcell_code_traceback(r));
	hotcell_code_result_free(r);
	return 0;
}

/* Each has the memory of @s, and randomness of its own. The copies go when we are done with them. */
static int try_two_ways(struct hotcell *h, struct hotcell_sandbox *s, struct hotcell_error *e)
{
	struct hotcell_list *forks;
	int r;

	if (hotcell_fork(s, FORKS, NULL, &forks, e) < 0)
		return -1;
	r = run(hotcell_list_get(forks, 0), "fork 1", "notes.append('left'); (notes, random.random())", e);
	if (r == 0)
		r = run(hotcell_list_get(forks, 1), "fork 2", "notes.append('right'); (notes, random.random())", e);
	for (size_t i = 0; i < hotcell_list_count(forks); i++)
		if (hotcell_destroy(h, hotcell_sandbox_id(hotcell_list_get(forks, i)), r < 0 ? NULL : e) < 0)
			r = -1;
	hotcell_list_free(forks);
	return r;
}

static int play(struct hotcell *h, struct hotcell_sandbox *s, struct hotcell_error *e)
{
	struct hotcell_snapshot *start;
	int r = run(s, "machine", "import random; notes = ['start']; notes", e);

	if (r < 0 || hotcell_snapshot_create(s, NULL, 0, &start, e) < 0)
		return -1;
	r = run(s, "machine", "notes.append('more'); notes", e);
	if (r == 0)
		r = try_two_ways(h, s, e);
	if (r == 0)
		r = hotcell_rollback(s, hotcell_snapshot_id(start), e);
	if (r == 0)
		r = run(s, "rolled back", "notes", e);
	if (hotcell_snapshot_remove(h, hotcell_snapshot_id(start), r < 0 ? NULL : e) < 0)
		r = -1;
	hotcell_snapshot_free(start);
	return r;
}

static int fail(const char *what, const struct hotcell_error *e)
{
	(void)fprintf(stderr, "%s: %s (%s)\n", what, e->message, hotcell_code_name(e->code));
	return EXIT_FAILURE;
}

int main(void)
{
	struct hotcell_config config = HOTCELL_CONFIG_INIT;
	struct hotcell_sandbox *s;
	struct hotcell_error e;
	struct hotcell *h;
	int r;

	config.ephemeral = true; /* gone with this program, however it ends */
	if (hotcell_connect(NULL, &h, &e) < 0)
		return fail("connect", &e);
	if (hotcell_create(h, &config, &s, &e) < 0) {
		hotcell_disconnect(h);
		return fail("create", &e);
	}
	r = play(h, s, &e) < 0 ? fail("sandbox", &e) : EXIT_SUCCESS;
	if (hotcell_sandbox_destroy(s, &e) < 0)
		r = fail("destroy", &e);
	hotcell_disconnect(h);
	return r;
}
