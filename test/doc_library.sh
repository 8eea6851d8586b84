#!/bin/sh
# test/doc_library.sh - the C programs of examples/library do what they say
. "${0%/*}/lib.sh"
TEST_SECONDS=180

setup() {
	need_root
}

hello() { # WALL
	status 0 example-library "$1"
	contains "$(sed -n 1p "$OUT")" "wall $1"
	contains "$(sed -n 2p "$OUT")" "exit 4: 10 on "
	same "squares: 8 bytes
> one
> two
numbers.txt 8
squares.txt 8" "$(sed -n '3,$p' "$OUT")" "the rest"
	no_traces
}

test_hello_process() {
	host
	hello process
}

test_hello_vm() {
	need_program qemu-system-x86_64
	host
	hello vm
}

# Copies and a rollback of a machine that its program holds: it is paused and goes on, and the daemon too.
test_fork() {
	need_program qemu-system-x86_64
	host
	status 0 hotcell list
	pid=$(pid_of hotcelld)
	status 0 example-fork
	same "machine: ['start']
machine: ['start', 'more']
fork 1: (['start', 'more', 'left'], *)
fork 2: (['start', 'more', 'right'], *)
rolled back: ['start']" "$(sed 's/, 0\.[0-9]*e*-*[0-9]*)/, *)/' "$OUT")" "what happened to the notes"
	same 2 "$(sed -n 's/^fork.*\], //p' "$OUT" | sort -u | grep -c .)" "different random numbers"
	same "$pid" "$(pid_of hotcelld)" "the daemon"
	same "" "$(hotcell snapshot list --json)" "snapshots left"
	no_traces
}

# A sandbox that waited in a pool, and nothing of the pool afterwards.
test_pool() {
	host
	status 0 example-pool process
	same "at once
taken from the pool: 1" "$(cat "$OUT")" "what it said"
	same "" "$(hotcell pool list --json)" "pools left"
	no_traces
}

run_tests
