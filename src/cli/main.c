/* cli/main.c - verbs to functions, errors to sentences and exit status */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "client/conn.h"

enum { LINE_MAX_BYTES = 1048576, VERBS_MAX = 64 };

static const struct rec_field common_fields[] = {
	{.name = "json", .type = REC_BOOL, .offset = offsetof(struct common_options, json),
	 .flag = "json", .doc = "Answer in JSON on standard output, errors too."},
	{.name = "quiet", .type = REC_BOOL, .offset = offsetof(struct common_options, quiet),
	 .flag = "quiet", .doc = "No notices and no progress."},
	{.name = "help", .type = REC_BOOL, .offset = offsetof(struct common_options, help),
	 .flag = "help", .doc = "Show this help."},
};
const struct rec_type common_type = {.name = "options", .fields = common_fields,
				     .n_fields = ARRAY_LEN(common_fields),
				     .size = sizeof(struct common_options)};

/* ---- what verbs share ---- */

int cli_connect(struct cli *c, struct err *e)
{
	return c->conn ? 0 : conn_open(NULL, &c->conn, e);
}

static void on_signal(void *arg, int signo)
{
	struct cli *c = arg;

	if (signo == SIGINT || signo == SIGTERM || signo == SIGHUP || signo == SIGQUIT) {
		c->interrupted = signo;
		conn_cancel(c->conn);
	} else if (signo == SIGTSTP) {
		(void)kill(getpid(), SIGSTOP);
	}
}

int cli_signals(struct cli *c, struct err *e)
{
	return c->signals ? 0 : signals_new(conn_loop(c->conn), on_signal, c, &c->signals, e);
}

void cli_default_signals(struct cli *c)
{
	signals_redirect(c->signals, on_signal, c);
}

int cli_put(const struct str *line, struct err *e)
{
	if (line->failed)
		return err_set(e, ERR_LIMIT, "the answer is longer than %zu bytes", line->max);
	if (fwrite(str_text(line), 1, line->len, stdout) != line->len || fflush(stdout) != 0)
		return err_set(e, ERR_GONE, "standard output is closed or full");
	return 0;
}

int cli_put_json(const struct rec_type *t, const void *rec, struct err *e)
{
	struct str line = STR_INIT(LINE_MAX_BYTES);
	int r;

	rec_json(t, rec, &line);
	str_add(&line, "\n");
	r = cli_put(&line, e);
	str_deinit(&line);
	return r;
}

void cli_note(const struct cli *c, const char *fmt, ...)
{
	struct str text = STR_INIT(LINE_MAX_BYTES), line = STR_INIT(LINE_MAX_BYTES);
	va_list ap;

	if (c->quiet)
		return;
	va_start(ap, fmt);
	str_addv(&text, fmt, ap);
	va_end(ap);
	str_add(&line, "hotcell: ");
	str_add_escaped(&line, text.p, text.len); /* may quote a guest */
	str_add(&line, "\n");
	(void)fputs(str_text(&line), stderr);
	str_deinit(&text);
	str_deinit(&line);
}

/* ---- errors ---- */

static int exit_of(const struct cli *c, const struct verb *v, int code)
{
	static const int exits[] = ERR_CODE_EXITS;
	int interrupted = c ? c->interrupted : 0;

	if (c && c->failed_status)
		return c->failed_status;
	if (v && v->error_status && code == ERR_CANCELED && interrupted)
		return CLI_SIGNAL + interrupted;
	if (v && v->error_status)
		return v->error_status;
	return code > 0 && (size_t)code < ARRAY_LEN(exits) ? exits[code] : 1;
}

static void print_error(const struct err *e, bool json)
{
	struct str line = STR_INIT(LINE_MAX_BYTES);
	bool said = false;

	if (json) {
		str_addf(&line, "{\"error\":\"%s\",\"message\":", err_code_name(e->code));
		str_add_json(&line, e->text, strlen(e->text));
		str_add(&line, "}\n");
		said = fputs(str_text(&line), stdout) >= 0 && fflush(stdout) == 0;
		line.len = 0;
	}
	if (!said) { /* also where standard output takes nothing */
		str_add(&line, "hotcell: ");
		str_add_escaped(&line, e->text, strlen(e->text)); /* may quote a guest */
		str_add(&line, "\n");
		(void)fputs(str_text(&line), stderr);
	}
	str_deinit(&line);
}

/* ---- the program ---- */

const struct verb *cli_verb(const char *name)
{
	for (const struct verb *v = cli_verbs; v->name; v++)
		if (strcmp(v->name, name) == 0)
			return v;
	return NULL;
}

/* Words of other tools for what is called something else here, or is not there. */
static const struct {
	const char *word, *answer;
} habits[] = {
	{"stop", "'hotcell pause' keeps a sandbox without its memory, 'hotcell rm' removes it"},
	{"start", "'hotcell resume' lets a paused sandbox go on, 'hotcell create' makes one"},
	{"kill", "'hotcell rm' ends a sandbox, 'hotcell signal' a program in it"},
	{"delete", "it is 'hotcell rm'"},
	{"remove", "it is 'hotcell rm'"},
	{"logs", "'hotcell sessions' lists a sandbox's programs, 'hotcell attach' shows what one wrote and follows it"},
	{"inspect", "it is 'hotcell info --json'"},
	{"stats", "'hotcell info' says what a sandbox uses, 'hotcell ps' what its processes use"},
	{"top", "it is 'hotcell ps'"},
	{"images", "it is 'hotcell image list'"},
	{"rmi", "it is 'hotcell image rm'"},
	{"build", "'hotcell template build' makes a template, 'hotcell image build' its image alone"},
	{"pull", "templates are built here: 'hotcell template build'"},
	{"commit", "it is 'hotcell snapshot create'"},
	{"clone", "it is 'hotcell fork'"},
	{"ssh", "it is 'hotcell shell'"},
	{"console", "it is 'hotcell shell'"},
};

int cli_no_verb(const char *word, struct err *e)
{
	const char *names[VERBS_MAX + 1] = {NULL}, *near;
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(habits); i++)
		if (str_eq(word, habits[i].word))
			return err_set(e, ERR_INVALID, "\"%s\" is no command; %s", word, habits[i].answer);
	for (const struct verb *v = cli_verbs; v->name && n < VERBS_MAX; v++)
		names[n++] = v->name;
	near = args_nearest(word, names);
	if (near)
		return err_set(e, ERR_INVALID, "\"%.60s\" is no command; did you mean '%s'?", word,
			       near);
	return err_set(e, ERR_INVALID, "\"%.60s\" is no command; 'hotcell help' lists them", word);
}

static int show_help(struct cli *c, const char *verb, struct err *e)
{
	const char *const words[] = {verb};
	struct args a = {.operand = words, .n_operands = verb ? 1 : 0};

	return run_help(c, &a, e);
}

static int run_verb(struct cli *c, int argc, const char *const *argv, struct err *e)
{
	const struct common_options *common;
	struct args a;
	int r = args_parse(c->verb, argc, argv, &a, e);

	common = a.recs[0] ? args_rec(&a, &common_type) : NULL;
	c->json |= common && common->json;
	c->quiet |= common && common->quiet;
	if (r == 0)
		r = common->help ? show_help(c, c->verb->name, e) : c->verb->run(c, &a, e);
	args_free(&a);
	return r;
}

/* Words before the verb: --json, --quiet, --help, --version. Returns how many, or an error. */
static int global_words(struct cli *c, int argc, char **argv, const char **ret_verb, struct err *e)
{
	int i = 1;

	for (; i < argc && argv[i][0] == '-'; i++) {
		if (strcmp(argv[i], "--json") == 0 || strcmp(argv[i], "-j") == 0)
			c->json = true;
		else if (strcmp(argv[i], "--quiet") == 0 || strcmp(argv[i], "-q") == 0)
			c->quiet = true;
		else if (strcmp(argv[i], "--version") == 0)
			*ret_verb = "version";
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			*ret_verb = "help";
		else
			return err_set(e, ERR_INVALID,
				       "%.60s: not an option before the command; "
				       "usage: hotcell COMMAND [OPTIONS] ...",
				       argv[i]);
	}
	return i;
}

/* @argv[0] is the verb. A --json in front of it goes behind it, where the hook looks. */
static int run_foreign(struct cli *c, int argc, char **argv, struct err *e)
{
	char **words;
	int r;

	if (!c->hooks->image)
		return err_set(e, ERR_UNSUPPORTED, "'%s' is not part of this build", c->verb->name);
	words = mem_new(((size_t)argc + 2) * sizeof(*words));
	memcpy(words, argv, (size_t)argc * sizeof(*words));
	if (c->json)
		words[argc++] = (char *)"--json";
	for (int i = 1; i < argc; i++)
		c->json |= strcmp(words[i], "--json") == 0;
	r = c->hooks->image(argc, words, e);
	if (r == 0 && argc > 2 && strcmp(words[1], "rm") == 0)
		r = cli_forget_hot(c, words[words[2][0] == '-' ? 3 : 2], e);
	free(words);
	return r;
}

static int dispatch(struct cli *c, int argc, char **argv, int *ret_status, struct err *e)
{
	const char *name = NULL;
	int at = global_words(c, argc, argv, &name, e), r;

	if (at < 0)
		return at;
	if (!name && at < argc)
		name = argv[at++];
	if (!name)
		return show_help(c, NULL, e);
	c->verb = cli_verb(name);
	if (!c->verb)
		return cli_no_verb(name, e);
	if (c->verb->foreign)
		r = run_foreign(c, argc - at + 1, argv + at - 1, e);
	else
		r = run_verb(c, argc - at, (const char *const *)argv + at, e);
	*ret_status = r;
	return r < 0 ? r : 0;
}

/*
 * A program started without one of the first three descriptors would find our sockets there. What
 * stands in for standard input can't be read, and for standard output not be written: it is an
 * error to take nothing for an empty input, or to lose output. Standard error may be closed.
 */
static void open_missing_descriptors(void)
{
	static const int modes[] = {O_WRONLY, O_RDONLY, O_RDWR};

	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", modes[fd]); /* the lowest number that is free */
}

int cli_main(int argc, char **argv, const struct cli_hooks *hooks)
{
	struct cli c = {.hooks = hooks};
	struct err e = ERR_INIT;
	int status = 0, r;

	open_missing_descriptors();
	(void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is an error of the write */
	r = dispatch(&c, argc, argv, &status, &e);
	signals_free(c.signals);
	conn_close(c.conn);
	if (r < 0) {
		print_error(&e, c.json);
		status = exit_of(&c, c.verb, e.code);
	}
	return status;
}
