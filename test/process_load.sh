#!/bin/sh
# test/process_load.sh - many process sandboxes at once, for a while
. "${0%/*}/suite.sh"
ISOLATION=process
TEST_SECONDS=$(size 120 900)

setup() {
	need_root
}

test_many_at_once() {
	host
	python3 "$TOP/test/soak.py" "$SCRATCH" process "$(size 20 100)" "$(size 15 300)" || fail "soak.py"
	no_traces
}

run_tests
