/* guest/language.c - find a harness by name */
#include "guest/language.h"
#include "base/err.h"
#include "base/str.h"

enum { NAMES_MAX = 256 };

const struct language *language_find(struct span name, struct err *e)
{
	struct str names = STR_INIT(NAMES_MAX);

	if (!name.n)
		name = span_of("python");
	for (const struct language *l = languages; l->name; l++)
		if (span_is(name, l->name))
			return l;
	for (const struct language *l = languages; l->name; l++)
		str_addf(&names, "%s%s", l == languages ? "" : ", ", l->name);
	err_set(e, ERR_NOT_FOUND, "there is no language %.*s; there are: %s", (int)name.n, name.p,
		str_text(&names));
	str_deinit(&names);
	return NULL;
}
