/* cli/watch.c - hotcell watch: what changes in a directory of a sandbox */
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/place.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { LINE_MAX_BYTES = 65536 };

struct watch_flags {
	bool recursive;
	struct span user;
};

static const struct rec_field watch_fields[] = {
	{.name = "recursive", .type = REC_BOOL, .offset = offsetof(struct watch_flags, recursive),
	 .flag = "recursive", .doc = "What is below its directories, too."},
	{.name = "user", .type = REC_TEXT, .offset = offsetof(struct watch_flags, user),
	 .max = LIMIT_TEXT_SHORT, .flag = "user", .arg = "USER", .doc = "Look as this user of the guest (user)."},
};
const struct rec_type watch_type = {.name = "watch_flags", .fields = watch_fields,
				    .n_fields = ARRAY_LEN(watch_fields),
				    .size = sizeof(struct watch_flags)};

static int on_change(void *arg, const void *item, struct err *e)
{
	const struct rec_file_event *v = item;
	struct str line = STR_INIT(LINE_MAX_BYTES);
	int r;

	if (((struct cli *)arg)->json)
		return cli_put_json(&rec_file_event_type, v, e);
	str_add_escaped(&line, v->kind.p, v->kind.n);
	str_add(&line, v->path.n ? " " : "");
	str_add_escaped(&line, v->path.p, v->path.n);
	str_add(&line, "\n");
	r = cli_put(&line, e);
	str_deinit(&line);
	return r;
}

int run_watch(struct cli *c, const struct args *a, struct err *e)
{
	const struct watch_flags *flags = args_rec(a, &watch_type);
	struct rec_file_ref ref;
	struct guest_path at;
	int r = guest_path_or_home(a->operand[0], &at, e);

	if (r == 0)
		r = cli_connect(c, e);
	if (r == 0)
		r = cli_signals(c, e);
	if (r < 0)
		return r;
	ref = (struct rec_file_ref){.sandbox = span_of(at.sandbox),
				    .path = span_of(at.path),
				    .user = flags->user,
				    .recursive = flags->recursive};
	r = conn_items(c->conn, METHOD_FILE_WATCH, &ref, on_change, c, e);
	return r == -ERR_CANCELED ? 0 : r;
}
