/* cli/place.h - SANDBOX:PATH. Pure. Any thread. */
#pragma once
#include "wire/gen/limits.h"

struct err;

struct guest_path {
	char sandbox[LIMIT_TEXT_SHORT + 1]; /* "" : a path of this host */
	char path[LIMIT_PATH + 1];
};

/*
 * guest_path_parse() - a word of `cp`: SANDBOX:PATH, or a path of this host
 *
 * A word is of this host when it is "-", has no colon, or has a '/' before its first colon
 * * ("./a:b" names a file with a colon). An empty path is ".", the home directory.
 * Return: 0; -ERR_INVALID, -ERR_LIMIT.
 */
int guest_path_parse(const char *word, struct guest_path *ret, struct err *e);

/* A word of `ls`: SANDBOX or SANDBOX:PATH; without a path: the home directory. */
int guest_path_or_home(const char *word, struct guest_path *ret, struct err *e);

/* The last component, or NULL when there is none to take ("/", "..", "a/."). Lent from @path. */
const char *path_last(const char *path, char ret[256]);
