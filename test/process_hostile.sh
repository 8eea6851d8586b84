#!/bin/sh
# test/process_hostile.sh - bad input of every kind: one clear sentence, and nothing is lost
. "${0%/*}/suite.sh"
ISOLATION=process
TEST_SECONDS=$(size 120 900)

setup() {
	need_root
}

test_hostile_clients() {
	box
	status 0 python3 "$TOP/test/hostile.py"
	cat "$OUT"
	says 0 'still here' -- echo still here
	done_with
}
run_tests
