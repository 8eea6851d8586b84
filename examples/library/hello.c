/*
 * hello.c - run code in a sandbox from C, with libhotcell
 *
 *	cc hello.c -o hello $(pkg-config --cflags --libs hotcell) && ./hello [vm|process]
 */
#include <hotcell.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char program[] = "import platform, sys\n"
			      "numbers = [int(n) for n in open('numbers.txt')]\n"
			      "print(sum(numbers), 'on', platform.release())\n"
			      "open('squares.txt', 'w').write('\\n'.join(str(n * n) for n in numbers))\n"
			      "sys.exit(len(numbers))\n";

static int fail(const char *what, const struct hotcell_error *e)
{
	(void)fprintf(stderr, "%s: %s (%s)\n", what, e->message, hotcell_code_name(e->code));
	return EXIT_FAILURE;
}

/* Whole programs: files in, code, files out. */
static int compute(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	static const char numbers[] = "1\n2\n3\n4\n";
	struct hotcell_exec_options o = HOTCELL_EXEC_OPTIONS_INIT;
	struct hotcell_result *r;
	char *squares;
	size_t n;

	o.timeout_ms = 60000;
	if (hotcell_write_file(s, "numbers.txt", numbers, strlen(numbers), 0, e) < 0 ||
	    hotcell_execute_code(s, "python", program, &o, &r, e) < 0)
		return -1;
	(void)printf("exit %d: %s%s", hotcell_result_exit_code(r), hotcell_result_stdout(r, NULL),
		     hotcell_result_stderr(r, NULL));
	hotcell_result_free(r);
	if (hotcell_read_file(s, "squares.txt", 4096, &squares, &n, e) < 0)
		return -1;
	(void)printf("squares: %zu bytes\n", n);
	free(squares);
	return 0;
}

/* A program while it runs: what it writes arrives as it is written. */
static int follow(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	static const char *const argv[] = {"sed", "-u", "s/^/> /", NULL};
	enum hotcell_stream which;
	struct hotcell_session *x;
	char piece[4096];
	size_t n = 1;
	int r = hotcell_start(s, NULL, argv, NULL, &x, e);

	if (r < 0)
		return r;
	r = hotcell_session_write(x, "one\ntwo\n", 8, e);
	hotcell_session_end_input(x);
	while (r == 0 && n) {
		r = hotcell_session_read(x, piece, sizeof(piece), 30000, &which, &n, e);
		if (r == 0)
			(void)fwrite(piece, 1, n, stdout);
	}
	hotcell_session_close(x);
	return r;
}

static int look_around(struct hotcell_sandbox *s, struct hotcell_error *e)
{
	struct hotcell_dir *d;

	if (hotcell_list_dir(s, ".", &d, e) < 0)
		return -1;
	for (size_t i = 0; i < hotcell_dir_count(d); i++)
		if (hotcell_dir_name(d, i)[0] != '.')
			(void)printf("%s %llu\n", hotcell_dir_name(d, i),
				     (unsigned long long)hotcell_dir_size(d, i));
	hotcell_dir_free(d);
	return 0;
}

int main(int argc, char **argv)
{
	struct hotcell_config config = HOTCELL_CONFIG_INIT;
	struct hotcell_sandbox *s;
	struct hotcell_error e;
	struct hotcell *h;
	int r;

	config.isolation = argc > 1 ? argv[1] : NULL;
	config.ephemeral = true; /* gone with this program, however it ends */
	if (hotcell_connect(NULL, &h, &e) < 0)
		return fail("connect", &e);
	if (hotcell_create(h, &config, &s, &e) < 0) {
		hotcell_disconnect(h);
		return fail("create", &e);
	}
	(void)printf("wall %s, template %s\n", hotcell_sandbox_wall(s), hotcell_sandbox_template(s));
	r = compute(s, &e);
	if (r == 0)
		r = follow(s, &e);
	if (r == 0)
		r = look_around(s, &e);
	if (r < 0)
		r = fail("sandbox", &e);
	if (hotcell_sandbox_destroy(s, &e) < 0)
		r = fail("destroy", &e);
	hotcell_disconnect(h);
	return r;
}
