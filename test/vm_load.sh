#!/bin/sh
# test/vm_load.sh - many machines at once, for a while; boots without a miss
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 240 3600)

setup() {
	need_root
	need_program qemu-system-x86_64
}

test_many_at_once() {
	host
	python3 "$TOP/test/soak.py" "$SCRATCH" vm "$(size 4 20)" "$(size 20 300)" || fail "soak.py"
	no_traces
}

# boots COUNT - one after the other, each with the time that it took
boots() {
	host
	for n in $(seq "$1"); do
		begin=$(date +%s%N)
		status 0 hotcell run -- echo "boot $n"
		same "boot $n" "$(cat "$OUT")"
		echo "boot $n: $((($(date +%s%N) - begin) / 1000000)) ms"
	done
	no_traces
}

test_boots() { boots "$(size 3 50)"; }

# The same with the other processor busy.
test_boots_under_load() {
	timeout "$TEST_SECONDS" sh -c 'while :; do :; done' &
	load=$!
	boots "$(size 2 50)"
	kill $load
}

run_tests
