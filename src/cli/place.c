/* cli/place.c - SANDBOX:PATH */
#include "cli/place.h"
#include <string.h>
#include "base/err.h"
#include "base/id.h"
#include "base/span.h"

static int take_sandbox(const char *word, size_t n, struct guest_path *ret, struct err *e)
{
	struct id id;

	if (n == 0)
		return err_set(e, ERR_INVALID, "\"%.80s\": no sandbox before the ':'", word);
	if (id_parse(word, n, &id) < 0 && !id_name_ok(word, n))
		return err_set(e, ERR_INVALID,
			       "\"%.*s\" is neither a sandbox id nor a name (1 to 64 letters, digits, "
			       "'_', '.' or '-')",
			       (int)(n < 80 ? n : 80), word);
	span_copy((struct span){word, n}, ret->sandbox, sizeof(ret->sandbox));
	return 0;
}

static int take_path(const char *path, struct guest_path *ret, struct err *e)
{
	if (strlen(path) > LIMIT_PATH)
		return err_set(e, ERR_LIMIT, "the path is %zu bytes long, the limit is %d",
			       strlen(path), LIMIT_PATH);
	span_copy(span_of(path), ret->path, sizeof(ret->path));
	return 0;
}

int guest_path_parse(const char *word, struct guest_path *ret, struct err *e)
{
	const char *colon = strchr(word, ':'), *slash = strchr(word, '/');
	int r = 0;

	*ret = (struct guest_path){0};
	if (!colon || (slash && slash < colon))
		return *word ? take_path(word, ret, e)
			     : err_set(e, ERR_INVALID, "an empty word where a path belongs");
	r = take_sandbox(word, (size_t)(colon - word), ret, e);
	return r < 0 ? r : take_path(colon[1] ? colon + 1 : ".", ret, e); /* nothing: the home directory */
}

int guest_path_or_home(const char *word, struct guest_path *ret, struct err *e)
{
	const char *colon = strchr(word, ':');
	int r;

	*ret = (struct guest_path){0};
	r = take_sandbox(word, colon ? (size_t)(colon - word) : strlen(word), ret, e);
	return r < 0 ? r : take_path(colon && colon[1] ? colon + 1 : ".", ret, e);
}

const char *path_last(const char *path, char ret[256])
{
	size_t end = strlen(path), start;

	while (end && path[end - 1] == '/')
		end--;
	for (start = end; start && path[start - 1] != '/';)
		start--;
	if (end == start || end - start > 255)
		return NULL;
	span_copy((struct span){path + start, end - start}, ret, 256);
	return strcmp(ret, ".") == 0 || strcmp(ret, "..") == 0 ? NULL : ret;
}
