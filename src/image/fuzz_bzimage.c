/* image/fuzz_bzimage.c - both parsers of kernel files against arbitrary bytes */
#include <stdint.h>
#include <stdlib.h>
#include "base/err.h"
#include "image/bzimage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bzimage b;
	struct err e = ERR_INIT;

	if (bzimage_parse(data, size, &b, &e) == 0 &&
	    (b.payload < data || b.payload + b.payload_bytes > data + size || !b.unpacker))
		abort(); /* a payload outside of the image */
	(void)vmlinux_check(data, size, &e);
	return 0;
}
