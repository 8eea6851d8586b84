/* guest/language.h - the harnesses of languages/, as tools/embed puts them into the agent */
#pragma once
#include <stddef.h>
#include "base/span.h"

struct err;

struct language {
	const char *name;
	struct strv argv; /* of its interpreter, which finds the harness on standard input */
	struct span harness;
};

extern const struct language languages[]; /* ends with a NULL name */

/* @name: empty: the default, python. NULL and -ERR_NOT_FOUND in @e, with the names there are. */
const struct language *language_find(struct span name, struct err *e);
