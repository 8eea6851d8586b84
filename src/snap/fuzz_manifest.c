/* snap/fuzz_manifest.c - manifests from arbitrary bytes: what is read is what would be written */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/err.h"
#include "base/str.h"
#include "snap/key_int.h"
#include "snap/manifest_int.h"
#include "snap/set.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct str again = STR_INIT(SNAP_MANIFEST_MAX);
	const struct key k = {{0}};
	struct snap_manifest m;
	struct err e = ERR_INIT;

	if (manifest_read((const char *)data, size, &k, &m, &e) == 0)
		abort(); /* nobody guesses a MAC */
	if (manifest_read_body((const char *)data, size, &m, &e) == 0) {
		manifest_write_body(&m, &again);
		if (again.len != size || memcmp(again.p, data, size) != 0)
			abort();
	}
	str_deinit(&again);
	return 0;
}
