/* cli/encode.c - bytes as text */
#include "cli/encode.h"
#include <stdint.h>
#include "base/str.h"

static void encode_group(const unsigned char *p, size_t n, char ret[4])
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t v = (uint32_t)p[0] << 16 | (n > 1 ? (uint32_t)p[1] << 8 : 0u) | (n > 2 ? p[2] : 0u);

	ret[0] = digits[v >> 18];
	ret[1] = digits[v >> 12 & 63];
	ret[2] = n > 1 ? digits[v >> 6 & 63] : '=';
	ret[3] = n > 2 ? digits[v & 63] : '=';
}

void encode_base64(const void *p, size_t n, struct str *out)
{
	const unsigned char *u = p;
	char group[4];

	for (size_t i = 0; i < n; i += 3) {
		encode_group(u + i, n - i, group);
		str_add_mem(out, group, sizeof(group));
	}
}

bool encode_is_utf8(const void *p, size_t n)
{
	const char *s = p;

	for (size_t i = 0; i < n;) {
		size_t len = str_utf8_len(s + i, n - i);

		if (!len)
			return false;
		i += len;
	}
	return true;
}

void encode_bytes_json(const void *p, size_t n, const char *name, struct str *out)
{
	bool is_text = encode_is_utf8(p, n);

	if (is_text) {
		str_add_json(out, p, n);
	} else {
		str_add(out, "\"");
		encode_base64(p, n, out);
		str_add(out, "\"");
	}
	str_addf(out, ",\"%s_encoding\":\"%s\"", name, is_text ? "utf-8" : "base64");
}
