#!/bin/sh
# test/process_deaths.sh - deaths and leaks, with process sandboxes
. "${0%/*}/lib.sh"
WALL=process MANY=30 MOMENTS='0 0.002 0.004 0.006 0.01 0.015 0.02 0.03 0.05 0.1'
. "${0%/*}/deaths.sh"

setup() {
	need_root
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

run_tests "${0%/*}/deaths.sh"
