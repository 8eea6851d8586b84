/*
 * image/modules.c - modules.dep, one line per module: "path: path path ...".
 * A line lists all dependencies, also indirect ones, but only their own lines
 * say in which order those go, so the order is made by a depth-first walk.
 */
#include "image/modules.h"
#include <string.h>
#include "base/err.h"
#include "base/macro.h"

static char letter(char c)
{
	return c == '-' ? '_' : c;
}

/* Is the module at @path (of @n bytes) called @name? */
static bool is_called(const char *path, size_t n, const char *name, size_t name_n)
{
	const char *slash = memrchr(path, '/', n);
	const char *file = slash ? slash + 1 : path;
	size_t left = n - (size_t)(file - path);

	if (left <= name_n + 2 || memcmp(file + name_n, ".ko", 3) != 0)
		return false;
	for (size_t i = 0; i < name_n; i++)
		if (letter(file[i]) != letter(name[i]))
			return false;
	return true;
}

/* Step to the next line of @text; NULL at the end. */
static const char *next_line(const char *line)
{
	const char *end = strchr(line, '\n');

	return end && end[1] ? end + 1 : NULL;
}

/* The line of modules.dep about the module, and the length of its path. */
static const char *find_by_name(const char *dep, const char *name, size_t *ret_n)
{
	for (const char *line = *dep ? dep : NULL; line; line = next_line(line)) {
		size_t n = strcspn(line, ":\n");

		if (line[n] == ':' && is_called(line, n, name, strlen(name))) {
			*ret_n = n;
			return line;
		}
	}
	return NULL;
}

static const char *find_by_path(const char *dep, const char *path, size_t path_n)
{
	for (const char *line = *dep ? dep : NULL; line; line = next_line(line))
		if (strcspn(line, ":\n") == path_n && line[path_n] == ':' &&
		    !memcmp(line, path, path_n))
			return line;
	return NULL;
}

static bool is_builtin(const char *builtin, const char *name)
{
	for (const char *line = *builtin ? builtin : NULL; line; line = next_line(line))
		if (is_called(line, strcspn(line, "\n"), name, strlen(name)))
			return true;
	return false;
}

static bool is_listed(const struct module_list *list, const char *path, size_t n)
{
	for (size_t i = 0; i < list->n; i++)
		if (strlen(list->path[i]) == n && !memcmp(list->path[i], path, n))
			return true;
	return false;
}

static int append(struct module_list *list, const char *path, size_t n, struct err *e)
{
	if (!n || n >= MODULES_PATH_MAX || list->n == MODULES_MAX)
		return err_set(e, ERR_LIMIT,
			       "the kernel's modules exceed %d files or %d bytes of path",
			       MODULES_MAX, MODULES_PATH_MAX - 1);
	if (path[0] == '/' || memmem(path, n, "..", 2))
		return err_set(e, ERR_INVALID,
			       "modules.dep names a file outside of its folder: %.*s", (int)n,
			       path);
	memcpy(list->path[list->n], path, n);
	list->path[list->n][n] = '\0';
	list->n++;
	return 0;
}

/* Append what @line depends on, then its own module (path of @path_n bytes). */
static int add(const char *dep, const char *line, size_t path_n, int depth,
	       struct module_list *list, struct err *e)
{
	const char *at = line + path_n + 1;
	const char *needed;
	size_t n;
	int r;

	if (is_listed(list, line, path_n))
		return 0;
	if (depth > MODULES_DEPTH_MAX)
		return err_set(e, ERR_LIMIT,
			       "modules.dep has a chain of more than %d dependencies, or a cycle",
			       MODULES_DEPTH_MAX);
	for (;; at += n) {
		at += strspn(at, " \t");
		n = strcspn(at, " \t\n");
		if (!n)
			break;
		needed = find_by_path(dep, at, n);
		if (!needed)
			return err_set(e, ERR_NOT_FOUND, "modules.dep has no line for %.*s", (int)n,
				       at);
		r = add(dep, needed, n, depth + 1, list, e);
		if (r < 0)
			return r;
	}
	return append(list, line, path_n, e);
}

int modules_order(const char *dep, const char *builtin, const struct module_wish *wish,
		  size_t n_wish, struct module_list *ret, struct err *e)
{
	const char *line;
	size_t n;
	int r;

	ret->n = 0;
	for (size_t i = 0; i < n_wish; i++) {
		line = find_by_name(dep, wish[i].name, &n);
		if (!line && (wish[i].may_lack || is_builtin(builtin, wish[i].name)))
			continue;
		if (!line)
			return err_set(e, ERR_NOT_FOUND, "the kernel has no module %s",
				       wish[i].name);
		r = add(dep, line, n, 0, ret, e);
		if (r < 0)
			return r;
	}
	return 0;
}

void modules_file_name(const char *path, char ret[MODULES_PATH_MAX])
{
	const char *slash = strrchr(path, '/');
	char *ko;

	strncpy(ret, slash ? slash + 1 : path, MODULES_PATH_MAX - 1);
	ret[MODULES_PATH_MAX - 1] = '\0';
	ko = strstr(ret, ".ko");
	if (ko)
		ko[3] = '\0';
}
