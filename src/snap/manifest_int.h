/*
 * snap/manifest_int.h - the manifest of a set as text
 *
 *	hotcell-snapshot 2
 *	id 00112233445566778899aabbccddeeff
 *	kind snapshot
 *	...
 *	mac <64 hex digits>
 *
 * A key, a space, the value to the end of the line; what is empty is left out. Every
 * manifest has exactly one text: what is read must be what would be written. The last
 * line is HMAC-SHA256 over all above it. Any thread.
 */
#pragma once
#include <stddef.h>
struct err;
struct key;
struct snap_manifest;
struct str;

/* -ERR_INVALID names the value that can't be written. */
int manifest_check(const struct snap_manifest *m, struct err *e);

/* Everything but the last line, of a manifest that was checked; and back. */
void manifest_write_body(const struct snap_manifest *m, struct str *out);
int manifest_read_body(const char *text, size_t n, struct snap_manifest *ret, struct err *e);

/* All of it. Reading: -ERR_DENIED when the MAC is not @k's; only then is it looked at. */
int manifest_write(const struct snap_manifest *m, const struct key *k, struct str *out, struct err *e);
int manifest_read(const char *text, size_t n, const struct key *k, struct snap_manifest *ret,
		  struct err *e);
