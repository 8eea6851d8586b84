#!/bin/sh
# test/process_basics.sh - process sandboxes, from the outside
. "${0%/*}/lib.sh"
WALL=process MANY=20
. "${0%/*}/both.sh"

setup() {
	need_root
}

check_kernel() {
	same "$(uname -r)" "$1" "kernel"
}

check_wall() {
	same process "$1" "wall"
}

# A command that must fail with this status and one sentence holding these words.
refused() {
	want=$1 words=$2
	shift 2
	status "$want" "$@"
	same 1 "$(wc -l <"$ERR")" "lines of the message for: $*"
	contains "$(cat "$ERR")" "$words"
}

test_mistakes_get_one_clear_sentence() {
	host
	sandbox --name lab
	refused 2 memory hotcell create --isolation process --memory 1
	refused 2 memory hotcell create --isolation process --memory lots
	refused 2 isolation hotcell create --isolation wishful
	refused 2 name hotcell create --isolation process --name ../etc
	refused 2 colour hotcell create --colour red
	refused 4 nowhere hotcell create --isolation process --template nowhere
	refused 4 ghost hotcell rm ghost
	refused 4 /nothing hotcell cp lab:/nothing "$SCRATCH/x"
	refused 2 '' hotcell cp a b
	refused 2 frobnicate hotcell frobnicate
	status 0 hotcell exec lab -- true
	status 0 hotcell rm lab
	no_traces
}

test_memory_is_limited() {
	host
	sandbox --memory 64M
	result=0
	hotcell exec "$id" -- python3 -c 'b = bytearray(200 << 20); print(len(b))' >"$SCRATCH/out" 2>&1 || result=$?
	[ $result -ne 0 ] || fail "took 200 MiB of 64: $(cat "$SCRATCH/out")"
	status 0 hotcell exec "$id" -- echo alive
}

test_processes_are_limited() {
	host
	sandbox --pids 40
	status 0 hotcell exec "$id" -- sh -c 'i=0; while [ $i -lt 200 ]; do sleep 100 & i=$((i + 1)); done 2>/dev/null; true'
	status 0 hotcell ps "$id" --json
	[ "$(json "$OUT" 'len(d)')" -le 40 ] || fail "more than 40 processes"
}

test_ten_at_once() {
	host
	status 0 run -- true
	i=0
	while [ $i -lt 10 ]; do
		hotcell run --isolation process -- sh -c "echo $i; sleep 1" >"$SCRATCH/out.$i" 2>&1 &
		i=$((i + 1))
	done
	wait
	i=0
	while [ $i -lt 10 ]; do
		same $i "$(cat "$SCRATCH/out.$i")"
		i=$((i + 1))
	done
	no_traces
}

run_tests "${0%/*}/both.sh"
