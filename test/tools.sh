#!/bin/sh
# test/tools.sh - the checks find what they look for: faults are planted in a small tree
# check-words: allow
. "${0%/*}/lib.sh"

setup() {
	tree=$(scratch)
	mkdir -p "$tree/src/base" "$tree/src/wire" "$tree/src/loop"
	printf 'base:\nwire: base\nsys: base\nloop: base wire sys\n' >"$tree/uses.txt"
}

# plant FILE LINE... - one file with these lines
plant() {
	file=$1
	shift
	printf '%s\n' "$@" >"$tree/$file"
}

refused() {
	if "$@" >"$tree/out" 2>&1; then
		cat "$tree/out"
		return 1
	fi
}

uses() {
	"$TOP/tools/check-uses" "$tree/uses.txt" "$tree/src"
}

test_uses_accepts_what_is_allowed() {
	plant src/loop/a.c '#include "wire/x.h"' '#include "loop/b_int.h"' '#include <sys/epoll.h>'
	plant src/wire/a.c '#include <endian.h>' '#include <jansson.h>'
	uses
}

test_uses_refuses_upward_includes() {
	plant src/base/a.c '#include "loop/loop.h"'
	refused uses
}

test_uses_refuses_includes_without_a_folder() {
	plant src/base/a.c '#include "err.h"'
	refused uses
}

test_uses_refuses_private_headers() {
	plant src/loop/a.c '#include "wire/x_int.h"'
	refused uses
}

test_uses_refuses_system_calls_at_the_bottom() {
	plant src/wire/a.c '#include <unistd.h>'
	refused uses
	plant src/wire/a.c '#  include <sys/stat.h>'
	refused uses
}

test_uses_refuses_cycles_and_strangers() {
	plant src/base/a.c ''
	plant src/loop/a.c ''
	uses
	printf 'base: loop\nloop: base\nwire:\n' >"$tree/uses.txt"
	refused uses
	printf 'base:\nwire: base\n' >"$tree/uses.txt"
	refused uses
}

test_headers_must_compile_alone() {
	mkdir -p "$tree/include"
	plant src/base/a.h '#include <stddef.h>' 'size_t a(void);'
	(cd "$tree" && "$TOP/tools/check-headers" cc)
	plant src/base/b.h 'size_t b(void);'
	refused sh -c "cd '$tree' && '$TOP/tools/check-headers' cc"
}

test_words_of_unfinished_work() {
	plant src/base/a.c '/* fine */'
	(cd "$tree" && "$TOP/tools/check-words" src/base/a.c)
	for word in 'TODO: later' 'a stub' 'not implemented yet' 'good enough for now.' "$tree/place"; do
		plant src/base/a.c "/* $word */"
		refused sh -c "cd '$tree' && '$TOP/tools/check-words' src/base/a.c"
	done
}

run_tests
