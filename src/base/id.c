/* base/id.c - identifiers */
#include "base/id.h"
#include <errno.h>
#include <string.h>

enum { NAME_MAX_LEN = 64, UUID_LEN = 36 };

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

void id_format(const struct id *id, char ret[ID_TEXT])
{
	static const char digits[] = "0123456789abcdef";

	for (int i = 0; i < ID_BYTES; i++) {
		ret[2 * i] = digits[id->b[i] >> 4];
		ret[2 * i + 1] = digits[id->b[i] & 15];
	}
	ret[ID_TEXT - 1] = '\0';
}

int id_parse(const char *s, size_t n, struct id *ret)
{
	struct id id;
	bool dashed = n == UUID_LEN;
	size_t digit = 0;

	if (n != ID_TEXT - 1 && !dashed)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int v = hex(s[i]);

		if (dashed && (i == 8 || i == 13 || i == 18 || i == 23)) {
			if (s[i] != '-')
				return -EINVAL;
			continue;
		}
		if (v < 0)
			return -EINVAL;
		if (digit % 2 == 0)
			id.b[digit / 2] = (unsigned char)(v << 4);
		else
			id.b[digit / 2] |= (unsigned char)v;
		digit++;
	}
	*ret = id;
	return 0;
}

bool id_eq(const struct id *a, const struct id *b)
{
	return memcmp(a->b, b->b, ID_BYTES) == 0;
}

bool id_is_zero(const struct id *id)
{
	static const struct id zero;

	return id_eq(id, &zero);
}

bool id_name_ok(const char *s, size_t n)
{
	struct id unused;

	if (n < 1 || n > NAME_MAX_LEN || s[0] == '.' || s[0] == '-')
		return false;
	for (size_t i = 0; i < n; i++) {
		char c = s[i];

		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
		      c == '_' || c == '.' || c == '-'))
			return false;
	}
	return id_parse(s, n, &unused) < 0; /* a name never shadows an id */
}
