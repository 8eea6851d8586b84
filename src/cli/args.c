/* cli/args.c - the command line as records */
#include "cli/args.h"
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "base/unit.h"
#include "wire/gen/records.h"

enum { WORD_MAX = 32, HELP_COLUMN = 30, NEAR = 2, FLAGS_MAX = 64 };

static const struct {
	char letter;
	const char *flag;
} letters[] = {
	{'a', "all"},	{'c', "command"}, {'d', "detach"}, {'e', "env"},     {'h', "help"},
	{'j', "json"},	{'l', "long"},	  {'m', "memory"}, {'n', "count"},   {'q', "quiet"},
	{'R', "recursive"}, {'t', "tty"}, {'u', "user"},   {'v', "verbose"}, {'w', "cwd"},
};

struct option {
	const struct rec_type *type;
	const struct rec_field *field;
	unsigned place; /* of the type in the verb */
};

static char letter_of(const char *flag)
{
	for (size_t i = 0; i < ARRAY_LEN(letters); i++)
		if (strcmp(letters[i].flag, flag) == 0)
			return letters[i].letter;
	return '\0';
}

static const char *flag_of(char letter)
{
	for (size_t i = 0; i < ARRAY_LEN(letters); i++)
		if (letters[i].letter == letter)
			return letters[i].flag;
	return NULL;
}

static bool find(const struct verb *v, const char *flag, size_t n, struct option *ret)
{
	for (unsigned t = 0; v->types[t]; t++) {
		for (size_t i = 0; i < v->types[t]->n_fields; i++) {
			const struct rec_field *f = &v->types[t]->fields[i];

			if (!f->flag || strlen(f->flag) != n || memcmp(f->flag, flag, n) != 0)
				continue;
			*ret = (struct option){v->types[t], f, t};
			return true;
		}
	}
	return false;
}

/* ---- did you mean ---- */

/* Edits (insert, delete, replace, swap) from @a to @b; more than WORD_MAX letters: far. */
static unsigned distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	unsigned row[3][WORD_MAX + 1];

	if (n > WORD_MAX || m > WORD_MAX)
		return WORD_MAX;
	for (size_t j = 0; j <= m; j++)
		row[0][j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

		now[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned cost = a[i - 1] != b[j - 1];

			now[j] = MIN(last[j] + 1, now[j - 1] + 1);
			now[j] = MIN(now[j], last[j - 1] + cost);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				now[j] = MIN(now[j], before[j - 2] + 1);
		}
	}
	return row[n % 3][m];
}

const char *args_nearest(const char *word, const char *const *names)
{
	const char *best = NULL;
	unsigned least = NEAR + 1;

	for (; *names; names++) {
		unsigned d = distance(word, *names);

		/* A prefix is a good guess too; a word that is all edits is not. */
		if (strlen(word) >= 3 && str_starts(*names, word))
			d = MIN(d, 1u);
		if (d < least && d < strlen(word)) {
			least = d;
			best = *names;
		}
	}
	return best;
}

static int unknown(const struct verb *v, const char *word, const char *flag, size_t n,
		   struct err *e)
{
	const char *names[FLAGS_MAX + 1] = {NULL}, *near;
	char given[WORD_MAX * 2];
	size_t count = 0;

	for (unsigned t = 0; v->types[t]; t++)
		for (size_t i = 0; i < v->types[t]->n_fields && count < FLAGS_MAX; i++)
			if (v->types[t]->fields[i].flag)
				names[count++] = v->types[t]->fields[i].flag;
	span_copy((struct span){flag, n}, given, sizeof(given));
	near = args_nearest(given, names);
	if (near)
		return err_set(e, ERR_INVALID, "%s: no such option of '%s'; did you mean --%s?", word,
			       v->name, near);
	return err_set(e, ERR_INVALID, "%s: no such option of '%s'; 'hotcell %s --help' lists them",
		       word, v->name, v->name);
}

/* ---- values ---- */

/* A limit in the words it would be typed in. */
static const char *as_typed(const struct rec_field *f, uint64_t value, char ret[UNIT_TEXT])
{
	if (f->unit == REC_MS)
		unit_format_ms(value, ret);
	else if (f->unit == REC_SIZE && value % (1024 * MIB) == 0 && value)
		(void)snprintf(ret, UNIT_TEXT, "%lluG", (unsigned long long)(value / (1024 * MIB)));
	else if (f->unit == REC_MIB && value % 1024 == 0 && value)
		(void)snprintf(ret, UNIT_TEXT, "%lluG", (unsigned long long)value / 1024);
	else
		(void)snprintf(ret, UNIT_TEXT, "%llu%s", (unsigned long long)value, f->unit == REC_MIB ? "M" : "");
	return ret;
}

static int not_a(const struct option *o, const char *value, const char *what, struct err *e)
{
	return err_set(e, ERR_INVALID, "--%s: \"%.80s\" is not %s", o->field->flag, value, what);
}

static int number(const struct option *o, const char *value, uint64_t *ret, struct err *e)
{
	uint64_t max = o->field->max ? o->field->max : UINT64_MAX;
	char least[UNIT_TEXT], most[UNIT_TEXT];
	int r = 0;

	switch (o->field->unit) {
	case REC_MIB:
		r = unit_parse_bytes(value, ret);
		if (r == -EINVAL)
			return not_a(o, value, "a size, for example 512M or 2G", e);
		if (r == 0 && *ret && *ret < MIB && value[strspn(value, "0123456789")] == '\0')
			return err_set(e, ERR_INVALID, "--%s: %s bytes are less than one MiB; write %sM for %s MiB",
				       o->field->flag, value, value, value);
		if (r == 0 && *ret && *ret < MIB)
			return err_set(e, ERR_INVALID, "--%s: %s is less than 1M, the smallest size there is",
				       o->field->flag, value);
		*ret = *ret / MIB + (*ret % MIB != 0);
		break;
	case REC_SIZE:
		r = unit_parse_bytes(value, ret);
		if (r == -EINVAL)
			return not_a(o, value, "a size, for example 64K or 2M", e);
		break;
	case REC_MS:
		r = unit_parse_ms(value, ret);
		if (r == -EINVAL)
			return not_a(o, value, "a time, for example 30s, 500ms or 2h", e);
		break;
	case REC_PLAIN:
	case REC_MILLI:
	case REC_OCTAL:
	case REC_COUNT:
		r = str_to_u64(value, 0, UINT64_MAX, ret);
		if (r == -EINVAL)
			return not_a(o, value, "a number", e);
		break;
	}
	if (r == -ERANGE || *ret > max || *ret < o->field->min)
		return err_set(e, ERR_LIMIT, "--%s: %s is out of range; allowed is %s to %s", o->field->flag, value,
			       as_typed(o->field, o->field->min, least), as_typed(o->field, max, most));
	return 0;
}

static int choice(const struct option *o, const char *value, struct err *e)
{
	struct str all = STR_INIT(512);
	int r = -1;

	for (const char *const *c = o->field->choices; *c; c++) {
		if (**c) /* "", the default, is nobody's to choose */
			str_addf(&all, "%s%s", all.len ? ", " : "", *c);
		if (**c && strcmp(*c, value) == 0)
			r = 0;
	}
	if (r < 0)
		r = err_set(e, ERR_INVALID, "--%s: \"%.80s\" is none of: %s", o->field->flag, value,
			    str_text(&all));
	str_deinit(&all);
	return r;
}

static int text(const struct option *o, const char *value, struct span *ret, struct err *e)
{
	struct span s = span_of(value);

	if (s.n == 0)
		return err_set(e, ERR_INVALID, "--%s: the value is empty", o->field->flag);
	if (s.n > o->field->max)
		return err_set(e, ERR_LIMIT, "--%s: %zu bytes, the limit is %llu", o->field->flag,
			       s.n, (unsigned long long)o->field->max);
	*ret = s;
	return o->field->choices ? choice(o, value, e) : 0;
}

static int entry(const struct option *o, const char *value, struct str *list, struct strv *ret,
		 struct err *e)
{
	const char *eq = strchr(value, '=');
	/* What does not fit into the record goes another way. */
	uint64_t max = o->field->max == LIMIT_EXEC_INLINE ? LIMIT_ARGV_BYTES : o->field->max;
	size_t count = strv_count(strv_of(list));

	if (o->field->arg && strchr(o->field->arg, '=') && (!eq || eq == value))
		return not_a(o, value, o->field->arg, e);
	if (!*value)
		return err_set(e, ERR_INVALID, "--%s: the value is empty", o->field->flag);
	if (count >= o->field->count)
		return err_set(e, ERR_LIMIT, "--%s: given more than %u times", o->field->flag,
			       o->field->count);
	strv_add(list, value);
	if (list->failed || list->len > max)
		return err_set(e, ERR_LIMIT, "--%s: more than %llu bytes in all", o->field->flag,
			       (unsigned long long)max);
	*ret = strv_of(list);
	return 0;
}

/* The list a field collects into: one per (type, field), made at first use. */
static struct str *list_of(struct args *a, const struct option *o)
{
	size_t place = 0;

	for (unsigned t = 0; t < o->place; t++)
		place += a->verb->types[t]->n_fields;
	place += (size_t)(o->field - o->type->fields);
	assert(place < a->n_lists);
	return &a->lists[place];
}

/* "0: never" is not "nothing was said", which is 0 as well: the record says it in a word of its own. */
static void note_never(const struct option *o, void *rec)
{
	struct rec_sandbox_create *c = rec;
	size_t at = offsetof(struct rec_sandbox_create, idle_timeout_ms);

	if (o->type == &rec_sandbox_create_type && o->field->offset == at)
		c->idle_never = c->idle_timeout_ms == 0;
}

static int store(struct args *a, const struct option *o, const char *value, struct err *e)
{
	void *to = (char *)a->recs[o->place] + o->field->offset;
	int r;

	switch (o->field->type) {
	case REC_BOOL: *(bool *)to = true; return 0;
	case REC_U64:
		r = number(o, value, to, e);
		note_never(o, a->recs[o->place]);
		return r;
	case REC_TEXT: return text(o, value, to, e);
	case REC_LIST:
	case REC_MAP: return entry(o, value, list_of(a, o), to, e);
	case REC_I64:
	case REC_BYTES:
	case REC_ID: break;
	}
	return err_set(e, ERR_INTERNAL, "--%s: no command line form", o->field->flag);
}

/* ---- words ---- */

struct words {
	int argc;
	const char *const *argv;
	int at;
};

static int take_value(struct words *w, const struct option *o, const char *inline_value,
		      const char **ret, struct err *e)
{
	bool wants = o->field->type != REC_BOOL;

	*ret = inline_value;
	if (!wants && inline_value)
		return err_set(e, ERR_INVALID, "--%s takes no value", o->field->flag);
	if (!wants || inline_value)
		return 0;
	if (w->at >= w->argc)
		return err_set(e, ERR_INVALID, "--%s: needs a value (%s)", o->field->flag,
			       o->field->arg ? o->field->arg : "VALUE");
	*ret = w->argv[w->at++];
	return 0;
}

static int long_option(struct args *a, struct words *w, const char *word, struct err *e)
{
	const char *flag = word + 2, *eq = strchr(flag, '='), *value;
	size_t n = eq ? (size_t)(eq - flag) : strlen(flag);
	struct option o;
	int r;

	if (!find(a->verb, flag, n, &o))
		return unknown(a->verb, word, flag, n, e);
	r = take_value(w, &o, eq ? eq + 1 : NULL, &value, e);
	return r < 0 ? r : store(a, &o, value, e);
}

/* -l, -lR, -e A=B, -eA=B */
static int short_options(struct args *a, struct words *w, const char *word, struct err *e)
{
	for (const char *p = word + 1; *p; p++) {
		const char *flag = flag_of(*p), *value;
		struct option o;
		int r;

		if (*p == 'i' && find(a->verb, "tty", 3, &o)) /* -it: standard input is passed on in any case */
			continue;
		if (!flag || !find(a->verb, flag, strlen(flag), &o))
			return err_set(e, ERR_INVALID,
				       "-%c: no such option of '%s'; 'hotcell %s --help' lists them",
				       *p, a->verb->name, a->verb->name);
		if (o.field->type != REC_BOOL && p[1])
			return store(a, &o, p + 1, e);
		r = take_value(w, &o, NULL, &value, e);
		if (r == 0)
			r = store(a, &o, value, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int walk(struct args *a, struct words *w, struct err *e)
{
	bool options = true;
	int r = 0;

	while (w->at < w->argc && r == 0) {
		const char *word = w->argv[w->at++];

		/* "--" ends the options; behind the first word of a program it is the program's */
		if (options && strcmp(word, "--") == 0) {
			options = false;
			continue;
		}
		if (options && word[0] == '-' && word[1] == '-') {
			r = long_option(a, w, word, e);
		} else if (options && word[0] == '-' && word[1]) {
			r = short_options(a, w, word, e);
		} else {
			a->kept[a->n_operands++] = word;
		}
		if (a->verb->program && a->n_operands >= a->verb->max)
			while (w->at < w->argc)
				a->kept[a->n_operands++] = w->argv[w->at++];
	}
	return r;
}

static bool wants_help(const struct args *a)
{
	struct option o;

	return find(a->verb, "help", 4, &o) &&
	       *(const bool *)((char *)a->recs[o.place] + o.field->offset);
}

static int check_count(const struct args *a, struct err *e)
{
	const struct verb *v = a->verb;

	if (wants_help(a))
		return 0;
	if (a->n_operands < v->min)
		return err_set(e, ERR_INVALID, "'%s' needs %s; usage: hotcell %s [OPTIONS] %s",
			       v->name, a->n_operands ? "more" : v->operands, v->name, v->operands);
	if (!v->program && a->n_operands > v->max)
		return err_set(e, ERR_INVALID, "'%s': too many arguments at \"%.80s\"; usage: hotcell %s [OPTIONS] %s",
			       v->name, a->operand[v->max], v->name, v->operands);
	return 0;
}

int args_parse(const struct verb *v, int argc, const char *const *argv, struct args *ret,
	       struct err *e)
{
	struct words w = {argc, argv, 0};
	int r;

	*ret = (struct args){.verb = v};
	if (argc > ARGS_MAX)
		return err_set(e, ERR_LIMIT, "more than %d words on the command line", ARGS_MAX);
	for (unsigned t = 0; v->types[t]; t++) {
		ret->recs[t] = mem_new(v->types[t]->size);
		ret->n_lists += v->types[t]->n_fields;
	}
	ret->lists = mem_new((ret->n_lists + 1) * sizeof(*ret->lists));
	for (size_t i = 0; i < ret->n_lists; i++)
		ret->lists[i] = (struct str)STR_INIT(LIMIT_ARGV_BYTES);
	ret->kept = mem_new(((size_t)argc + 1) * sizeof(*ret->kept));
	ret->operand = ret->kept;
	r = walk(ret, &w, e);
	return r < 0 ? r : check_count(ret, e);
}

void args_free(struct args *a)
{
	for (unsigned t = 0; t < VERB_TYPES; t++)
		free(a->recs[t]);
	for (size_t i = 0; i < a->n_lists; i++)
		str_deinit(&a->lists[i]);
	free(a->lists);
	free(a->kept);
	*a = (struct args){0};
}

void *args_rec(const struct args *a, const struct rec_type *t)
{
	for (unsigned i = 0; a->verb->types[i]; i++)
		if (a->verb->types[i] == t)
			return a->recs[i];
	assert(!"a verb asks for a record it does not list");
	return NULL;
}

/* ---- help ---- */

static bool is_shadowed(const struct verb *v, unsigned type, const char *flag)
{
	struct option o;

	return find(v, flag, strlen(flag), &o) && o.place != type;
}

static void help_line(const struct rec_field *f, struct str *out)
{
	struct str left = STR_INIT(256);
	char letter = letter_of(f->flag);
	const char *value = f->arg ? f->arg : "VALUE";

	if (letter)
		str_addf(&left, "  -%c, --%s", letter, f->flag);
	else
		str_addf(&left, "      --%s", f->flag);
	if (f->type != REC_BOOL)
		str_addf(&left, " %s", value);
	str_addf(out, "%-*s %s", HELP_COLUMN, str_text(&left), f->doc);
	if (f->choices) {
		const char *comma = " One of: ";

		for (const char *const *c = f->choices; *c; c++) {
			if (!**c)
				continue;
			str_addf(out, "%s%s", comma, *c);
			comma = ", ";
		}
		str_add(out, ".");
	}
	str_add(out, "\n");
	str_deinit(&left);
}

void args_help(const struct verb *v, struct str *out)
{
	for (unsigned t = 0; v->types[t]; t++)
		for (size_t i = 0; i < v->types[t]->n_fields; i++) {
			const struct rec_field *f = &v->types[t]->fields[i];

			if (f->flag && !is_shadowed(v, t, f->flag))
				help_line(f, out);
		}
}

void args_words(const struct verb *v, struct str *out)
{
	for (unsigned t = 0; v->types[t]; t++)
		for (size_t i = 0; i < v->types[t]->n_fields; i++)
			if (v->types[t]->fields[i].flag)
				str_addf(out, "--%s ", v->types[t]->fields[i].flag);
}
