/* image/manifest.c - the manifest's grammar, strict: what it does not expect is damage */
#include "image/manifest.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/macro.h"
#include "base/mem.h"
#include "base/str.h"
#include "sys/fd.h"

static int split(const char *line, size_t n, struct manifest_line *ret)
{
	size_t len;

	ret->n_words = 0;
	for (size_t at = 0; at <= n; at += len + 1) {
		const char *space = memchr(line + at, ' ', n - at);

		len = space ? (size_t)(space - line) - at : n - at;
		if (!len || len >= MANIFEST_WORD_MAX || ret->n_words == MANIFEST_WORDS_MAX)
			return -EINVAL;
		for (size_t i = 0; i < len; i++)
			if (line[at + i] <= ' ' || line[at + i] > '~')
				return -EINVAL;
		memcpy(ret->word[ret->n_words], line + at, len);
		ret->word[ret->n_words++][len] = '\0';
	}
	return 0;
}

/* The line at *at; 0 at the end, 1 when there is one, -EINVAL for damage. */
static int step(const char *text, size_t n, size_t *at, struct manifest_line *ret)
{
	const char *end;
	size_t len;

	if (*at == n)
		return 0;
	end = memchr(text + *at, '\n', n - *at);
	if (!end)
		return -EINVAL; /* cut off */
	len = (size_t)(end - text) - *at;
	if (split(text + *at, len, ret) < 0)
		return -EINVAL;
	*at += len + 1;
	return 1;
}

static int check_all(const char *text, size_t n, struct err *e)
{
	struct manifest_line line;
	size_t at = 0, number = 1;
	int r;

	while ((r = step(text, n, &at, &line)) > 0)
		number++;
	if (r < 0)
		return err_set(e, ERR_INVALID, "the manifest is damaged in line %zu", number);
	return 0;
}

static int check_kind(const char *text, size_t n, const char *kind, struct err *e)
{
	struct manifest_line line;
	size_t at = 0;
	uint64_t format;

	if (step(text, n, &at, &line) <= 0 || line.n_words != 2 ||
	    !str_starts(line.word[0], "hotcell-") ||
	    strcmp(line.word[0] + strlen("hotcell-"), kind) != 0 ||
	    str_to_u64(line.word[1], 1, UINT32_MAX, &format) < 0)
		return err_set(e, ERR_INVALID, "this is not the manifest of a %s", kind);
	if (format != MANIFEST_FORMAT)
		return err_set(e, ERR_UNSUPPORTED,
			       "the manifest has format %s; this program reads format %d",
			       line.word[1], MANIFEST_FORMAT);
	return 0;
}

int manifest_parse(const char *text, size_t n, const char *kind, struct manifest *ret,
		   struct err *e)
{
	struct manifest m = { .n = n };
	int r;

	if (n > MANIFEST_MAX)
		return err_set(e, ERR_LIMIT, "the manifest is larger than %d bytes", MANIFEST_MAX);
	r = check_kind(text, n, kind, e);
	if (r == 0)
		r = check_all(text, n, e);
	if (r == 0)
		r = hash_mem(text, n, m.hash, e);
	if (r < 0)
		return r;
	m.text = mem_strndup(text, n);
	*ret = m;
	return 0;
}

int manifest_load(int dirfd, const char *kind, struct manifest *ret, struct err *e)
{
	AUTO_CLOSE int fd = sys_open_beneath(dirfd, MANIFEST_FILE, O_RDONLY, 0);
	AUTO_FREE char *text = mem_new(MANIFEST_MAX + 2);
	size_t n = 0;
	ssize_t r;

	if (fd < 0)
		return err_sys(e, fd, "open the manifest");
	while (n <= MANIFEST_MAX && (r = sys_read(fd, text + n, MANIFEST_MAX + 1 - n)) != 0) {
		if (r < 0)
			return err_sys(e, (int)r, "read the manifest");
		n += (size_t)r;
	}
	return manifest_parse(text, n, kind, ret, e);
}

void manifest_deinit(struct manifest *m)
{
	free(m->text);
	*m = (struct manifest){ 0 };
}

bool manifest_next(const struct manifest *m, size_t *at, struct manifest_line *ret)
{
	return step(m->text, m->n, at, ret) > 0;
}

int manifest_find(const struct manifest *m, const char *key, size_t n_words,
		  struct manifest_line *ret, struct err *e)
{
	size_t at = 0;

	while (manifest_next(m, &at, ret))
		if (strcmp(ret->word[0], key) == 0) {
			if (ret->n_words == n_words)
				return 0;
			break;
		}
	return err_set(e, ERR_INVALID, "the manifest is damaged: no proper line \"%s\"", key);
}

bool manifest_has(const struct manifest *m, const char *key)
{
	struct manifest_line line;
	size_t at = 0;

	while (manifest_next(m, &at, &line))
		if (strcmp(line.word[0], key) == 0)
			return true;
	return false;
}

int manifest_u64(const struct manifest *m, const char *key, uint64_t min, uint64_t max,
		 uint64_t *ret, struct err *e)
{
	struct manifest_line line;
	int r = manifest_find(m, key, 2, &line, e);

	if (r < 0)
		return r;
	if (str_to_u64(line.word[1], min, max, ret) < 0)
		return err_set(e, ERR_INVALID, "the manifest is damaged: \"%s %s\" is out of range",
			       key, line.word[1]);
	return 0;
}

int manifest_sum(const struct manifest *m, const char *key, struct manifest_sum *ret, struct err *e)
{
	struct manifest_line line;
	uint64_t size;
	int r = manifest_find(m, key, 3, &line, e);

	if (r < 0)
		return r;
	if (!hash_text_ok(line.word[1]) || str_to_u64(line.word[2], 0, UINT64_MAX, &size) < 0)
		return err_set(e, ERR_INVALID,
			       "the manifest is damaged: \"%s\" has no hash and size", key);
	memcpy(ret->hash, line.word[1], HASH_TEXT);
	ret->size = size;
	return 0;
}

void manifest_begin(struct str *s, const char *kind)
{
	str_addf(s, "hotcell-%s %d\n", kind, MANIFEST_FORMAT);
}
