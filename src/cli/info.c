/* cli/info.c - hotcell info, rm, signal, events */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/str.h"
#include "cli/cli.h"
#include "client/conn.h"
#include "wire/gen/methods.h"

enum { OUT_MAX = 1048576, NAME_COLUMN = 20, SANDBOXES_MAX = LIMIT_SANDBOXES };

#define SINCE_1970_MS UINT64_C(100000000000) /* a time of the year 1973 or later; durations are shorter */

/* ---- info ---- */

/* What the end of a number's name says of it, for people. */
static void put_time(const char *what, int n, uint64_t ms, struct str *out)
{
	time_t seconds = (time_t)(ms / 1000);
	char text[64];
	struct tm tm;

	if (ms < SINCE_1970_MS) {
		str_addf(out, "%-*.*s %llu.%03llu s\n", NAME_COLUMN, n, what, (unsigned long long)ms / 1000,
			 (unsigned long long)ms % 1000);
	} else if (localtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S %z", &tm)) {
		str_addf(out, "%-*.*s %s\n", NAME_COLUMN, n, what, text);
	}
}

static void put_us(const char *what, int n, uint64_t us, struct str *out)
{
	str_addf(out, "%-*.*s %llu.%03llu ms\n", NAME_COLUMN, n, what, (unsigned long long)us / 1000,
		 (unsigned long long)us % 1000);
}

static void put_size(const char *what, int n, uint64_t mb, struct str *out)
{
	str_addf(out, "%-*.*s %llu MiB\n", NAME_COLUMN, n, what, (unsigned long long)mb);
}

static void put_number(const char *name, uint64_t v, struct str *out)
{
	static const struct {
		const char *end;
		void (*put)(const char *what, int n, uint64_t v, struct str *out);
	} kinds[] = {{"_ms", put_time}, {"_us", put_us}, {"_mb", put_size}};
	size_t n = strlen(name);

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (n > 3 && str_eq(name + n - 3, kinds[i].end)) {
			kinds[i].put(name, (int)n - 3, v, out);
			return;
		}
	str_addf(out, "%-*s %llu\n", NAME_COLUMN, name, (unsigned long long)v);
}

/* Entries are microseconds: one line, in milliseconds, without what took none. */
static void put_stages(const char *name, struct strv v, struct str *out)
{
	const char *comma = "";

	str_addf(out, "%-*s ", NAME_COLUMN, name);
	for (const char *s = strv_first(v); s; s = strv_next(v, s)) {
		const char *eq = strchr(s, '=');
		double ms = eq ? strtod(eq + 1, NULL) / 1000 : 0;

		if (ms < 0.05)
			continue;
		str_add(out, comma);
		str_add_escaped(out, s, (size_t)(eq - s));
		str_addf(out, " %.1f", ms);
		comma = ", ";
	}
	str_add(out, *comma ? " ms\n" : "none took 0.1 ms\n");
}

static void put_list(const char *name, struct strv v, struct str *out)
{
	for (const char *s = strv_first(v); s; s = strv_next(v, s)) {
		str_addf(out, "%-*s ", NAME_COLUMN, s == v.p ? name : "");
		str_add_escaped(out, s, strlen(s));
		str_add(out, "\n");
	}
}

/* "name   value" lines from the record table; what is empty is left out. Programs read JSON. */
static void describe(const struct rec_type *t, const void *rec, struct str *out)
{
	for (size_t i = 0; i < t->n_fields; i++) {
		const struct rec_field *f = &t->fields[i];
		const void *p = (const char *)rec + f->offset;
		char id[ID_TEXT];

		if (f->type == REC_U64 && *(const uint64_t *)p) {
			put_number(f->name, *(const uint64_t *)p, out);
		} else if (f->type == REC_BOOL && *(const bool *)p) {
			str_addf(out, "%-*s yes\n", NAME_COLUMN, f->name);
		} else if (f->type == REC_ID && !id_is_zero(p)) {
			id_format(p, id);
			str_addf(out, "%-*s %s\n", NAME_COLUMN, f->name, id);
		} else if (f->type == REC_TEXT && ((const struct span *)p)->n) {
			str_addf(out, "%-*s ", NAME_COLUMN, f->name);
			str_add_escaped(out, ((const struct span *)p)->p, ((const struct span *)p)->n);
			str_add(out, "\n");
		} else if (f->type == REC_MAP && f->unit == REC_COUNT && ((const struct strv *)p)->n) {
			put_stages(f->name, *(const struct strv *)p, out);
		} else if (f->type == REC_LIST || f->type == REC_MAP) {
			put_list(f->name, *(const struct strv *)p, out);
		}
	}
}

int cli_describe(const struct rec_type *t, const void *rec, struct err *e)
{
	struct str out = STR_INIT(OUT_MAX);
	int r;

	describe(t, rec, &out);
	r = cli_put(&out, e);
	str_deinit(&out);
	return r;
}

static int daemon_info(struct cli *c, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX);
	struct rec_empty nothing = {0};
	struct rec_daemon_info d;
	int r = conn_call(c->conn, METHOD_DAEMON_INFO, &nothing, &bytes, &d, e);

	if (r == 0)
		r = c->json ? cli_put_json(&rec_daemon_info_type, &d, e)
			    : cli_describe(&rec_daemon_info_type, &d, e);
	str_deinit(&bytes);
	return r;
}

/* What the guest says comes after what the host knows, and may be missing. */
static int sandbox_info(struct cli *c, const char *name, struct err *e)
{
	struct str bytes = STR_INIT(RECORD_MAX), more = STR_INIT(RECORD_MAX), out = STR_INIT(OUT_MAX);
	struct rec_sandbox_ref ref = {span_of(name)};
	struct rec_sandbox_info info;
	struct rec_guest_info guest;
	struct err why = ERR_INIT;
	bool answers = false;
	int r = conn_call(c->conn, METHOD_SANDBOX_INFO, &ref, &bytes, &info, e);

	if (r == 0)
		answers = span_is(info.state, "running") &&
			  conn_call(c->conn, METHOD_GUEST_INFO, &ref, &more, &guest, &why) == 0;
	if (r == 0 && c->json) {
		rec_json(&rec_sandbox_info_type, &info, &out);
		out.len--; /* its '}' */
		str_add(&out, ",\"guest\":");
		if (answers)
			rec_json(&rec_guest_info_type, &guest, &out);
		else
			str_add(&out, "null");
		str_add(&out, "}\n");
	} else if (r == 0) {
		describe(&rec_sandbox_info_type, &info, &out);
		if (answers) {
			str_add(&out, "\ninside:\n");
			describe(&rec_guest_info_type, &guest, &out);
		}
	}
	if (r == 0)
		r = cli_put(&out, e);
	if (r == 0 && why.code)
		cli_note(c, "%s", why.text);
	str_deinit(&out);
	str_deinit(&bytes);
	str_deinit(&more);
	return r;
}

int run_info(struct cli *c, const struct args *a, struct err *e)
{
	int r = cli_connect(c, e);

	if (r < 0)
		return r;
	return a->n_operands ? sandbox_info(c, a->operand[0], e) : daemon_info(c, e);
}

/* ---- rm ---- */

struct rm_flags {
	bool all;
};

static const struct rec_field rm_fields[] = {
	{.name = "all", .type = REC_BOOL, .offset = offsetof(struct rm_flags, all), .flag = "all",
	 .doc = "Every sandbox of yours, but those that build templates."},
};
const struct rec_type rm_type = {.name = "rm_flags", .fields = rm_fields,
				 .n_fields = ARRAY_LEN(rm_fields), .size = sizeof(struct rm_flags)};

static int remove_one(struct cli *c, const char *name, struct err *e)
{
	struct rec_sandbox_ref ref = {span_of(name)};
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(OUT_MAX);
	struct rec_sandbox_info info;
	int r = conn_call(c->conn, METHOD_SANDBOX_REMOVE, &ref, &bytes, &info, e);

	if (r == 0 && c->json) {
		r = cli_put_json(&rec_sandbox_info_type, &info, e);
	} else if (r == 0) {
		str_add_escaped(&out, name, strlen(name));
		str_add(&out, "\n");
		r = cli_put(&out, e);
	} else {
		r = err_wrap(e, "%.64s", name);
	}
	str_deinit(&out);
	str_deinit(&bytes);
	return r;
}

struct ids {
	struct str text; /* NUL behind each */
	unsigned spared;
};

static int on_sandbox(void *arg, const void *item, struct err *e)
{
	const struct rec_sandbox_info *info = item;
	struct ids *ids = arg;
	char id[ID_TEXT];

	if (info->purpose.n) { /* the daemon's own, which removes it itself */
		ids->spared++;
		return 0;
	}
	id_format(&info->id, id);
	strv_add(&ids->text, id);
	return ids->text.failed ? err_set(e, ERR_LIMIT, "more than %d sandboxes", SANDBOXES_MAX) : 0;
}

/* Go on after a failure: the rest is to go as well. All but the first are notices. */
static int remove_each(struct cli *c, const char *name, int so_far, struct err *e)
{
	struct err why = ERR_INIT;
	int r = remove_one(c, name, &why);

	if (r == 0)
		return so_far;
	if (so_far == 0)
		return err_copy(e, &why);
	cli_note(c, "%s", why.text);
	return so_far;
}

static int remove_all(struct cli *c, struct err *e)
{
	struct ids ids = {.text = STR_INIT(SANDBOXES_MAX * ID_TEXT)};
	struct rec_empty nothing = {0};
	struct strv v;
	int r = conn_items(c->conn, METHOD_SANDBOX_LIST, &nothing, on_sandbox, &ids, e);

	v = strv_of(&ids.text);
	if (r == 0)
		for (const char *s = strv_first(v); s; s = strv_next(v, s))
			r = remove_each(c, s, r, e);
	if (ids.spared)
		cli_note(c, "%u %s a template and left alone; hotcell rm ID ends such a build", ids.spared,
			 ids.spared == 1 ? "sandbox builds" : "sandboxes build");
	str_deinit(&ids.text);
	return r;
}

int run_rm(struct cli *c, const struct args *a, struct err *e)
{
	const struct rm_flags *flags = args_rec(a, &rm_type);
	int r = 0;

	if (flags->all == (a->n_operands > 0))
		return err_set(e, ERR_INVALID, "name the sandboxes to remove, or say --all");
	r = cli_connect(c, e);
	if (r < 0)
		return r;
	if (flags->all)
		return remove_all(c, e);
	for (unsigned i = 0; i < a->n_operands; i++)
		r = remove_each(c, a->operand[i], r, e);
	return r;
}

/* ---- signal ---- */

static int signal_number(const char *word, uint64_t *ret, struct err *e)
{
	const char *name = str_starts(word, "SIG") ? word + 3 : word;

	if (str_to_u64(word, 1, 64, ret) == 0)
		return 0;
	for (int s = 1; s < NSIG; s++) {
		const char *abbrev = sigabbrev_np(s);

		if (abbrev && strcmp(abbrev, name) == 0) {
			*ret = (uint64_t)s;
			return 0;
		}
	}
	return err_set(e, ERR_INVALID, "SIGNAL: \"%.60s\" is neither a name (TERM, KILL, USR1, ...) nor a "
				       "number from 1 to 64",
		       word);
}

int run_signal(struct cli *c, const struct args *a, struct err *e)
{
	struct rec_exec_signal rec = {.sandbox = span_of(a->operand[0])};
	struct str bytes = STR_INIT(RECORD_MAX), out = STR_INIT(64);
	int r = signal_number(a->operand[2], &rec.signal, e);

	if (r == 0 && str_to_u64(a->operand[1], 0, UINT64_MAX, &rec.session) < 0)
		r = err_set(e, ERR_INVALID, "SESSION: \"%.60s\" is not a number; see 'hotcell sessions'",
			    a->operand[1]);
	if (r == 0)
		r = cli_connect(c, e);
	if (r == 0)
		r = conn_call(c->conn, METHOD_EXEC_SIGNAL, &rec, &bytes, NULL, e);
	if (r == 0 && c->json) {
		str_add(&out, "{}\n");
		r = cli_put(&out, e);
	}
	str_deinit(&out);
	str_deinit(&bytes);
	return r;
}

/* ---- events ---- */

struct events_flags {
	uint64_t after;
};

static const struct rec_field events_fields[] = {
	{.name = "after", .type = REC_U64, .offset = offsetof(struct events_flags, after),
	 .max = UINT64_MAX, .flag = "after", .arg = "SEQ", .doc = "Start behind this event, if it is still kept."},
};
const struct rec_type events_type = {.name = "events_flags", .fields = events_fields,
				     .n_fields = ARRAY_LEN(events_fields),
				     .size = sizeof(struct events_flags)};

struct watching {
	struct cli *cli;
	uint64_t last;
};

static int on_event(void *arg, const void *item, struct err *e)
{
	struct watching *w = arg;
	const struct rec_event *v = item;
	const struct span texts[] = {v->sandbox, v->step, v->message};
	struct str line = STR_INIT(OUT_MAX);
	int r;

	w->last = v->seq;
	if (w->cli->json)
		return cli_put_json(&rec_event_type, v, e);
	str_addf(&line, "%llu %llu.%03llu ", (unsigned long long)v->seq,
		 (unsigned long long)v->time_ms / 1000, (unsigned long long)v->time_ms % 1000);
	str_add_escaped(&line, v->type.p, v->type.n);
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		if (!texts[i].n)
			continue;
		str_add(&line, " ");
		str_add_escaped(&line, texts[i].p, texts[i].n);
	}
	str_add(&line, "\n");
	r = cli_put(&line, e);
	str_deinit(&line);
	return r;
}

int run_events(struct cli *c, const struct args *a, struct err *e)
{
	const struct events_flags *flags = args_rec(a, &events_type);
	struct watching w = {c, flags->after};
	int r = cli_connect(c, e);

	if (r == 0)
		r = cli_signals(c, e);
	if (r < 0)
		return r;
	do { /* across the daemon's death: from the next one, behind what was seen */
		struct rec_event_watch rec = {
			.sandbox = a->n_operands ? span_of(a->operand[0]) : span_of(""),
			.after = w.last};

		r = conn_items(c->conn, METHOD_EVENT_WATCH, &rec, on_event, &w, e);
	} while (r == -ERR_GONE && conn_state(c->conn) != CONN_UP);
	return r == -ERR_CANCELED ? 0 : r;
}
