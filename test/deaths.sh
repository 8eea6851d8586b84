# shellcheck shell=sh
# test/deaths.sh - whoever is killed, nothing leaks, errors are clear and the rest works.
# Sourced by process_deaths.sh and vm_deaths.sh, which set WALL and MANY.

sandbox() {
	id=$(hotcell create --isolation "$WALL" "$@") || fail "hotcell create --isolation $WALL $*"
}

run() {
	hotcell run --isolation "$WALL" "$@"
}

nothing_listed() {
	hotcell list --json >"$SCRATCH/list" && [ ! -s "$SCRATCH/list" ]
}

# Numbered lines, LINES of them, and what they must look like on this side.
LINES=40
counting='i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i + 1)); sleep 0.1; done'

all_lines() {
	i=0
	while [ $i -lt $LINES ]; do
		echo "line $i"
		i=$((i + 1))
	done | diff - "$1" || fail "output lost or doubled"
}

# The machine is adopted, the running program lives on, no byte is lost or doubled.
test_the_daemon_dies_and_nobody_notices() {
	host
	sandbox
	hotcell exec "$id" -- sh -c "$counting" >"$SCRATCH/lines" 2>"$SCRATCH/err" &
	follower=$!
	eventually 60 grep -q 'line 5$' "$SCRATCH/lines"
	daemon=$(pid_of hotcelld)
	kill -KILL "$daemon"
	result=0
	wait $follower || result=$?
	same 0 "$result" "status of the exec that was running ($(cat "$SCRATCH/err"))"
	all_lines "$SCRATCH/lines"
	[ "$(pid_of hotcelld)" != "$daemon" ] || fail "the daemon is still the old one"
	status 0 hotcell exec "$id" -- echo alive
	status 0 hotcell rm "$id"
	no_traces
}

test_the_daemon_dies_again_and_again() {
	host
	sandbox
	hotcell exec "$id" -- sh -c "$counting" >"$SCRATCH/lines" 2>"$SCRATCH/err" &
	follower=$!
	for n in 5 12 20 30; do
		eventually 60 grep -q "line $n\$" "$SCRATCH/lines"
		kill -KILL "$(pid_of hotcelld)"
	done
	result=0
	wait $follower || result=$?
	same 0 "$result" "status of the exec ($(cat "$SCRATCH/err"))"
	all_lines "$SCRATCH/lines"
	status 0 hotcell rm "$id"
	no_traces
}

# At moments spread over the create plan: whatever it had got to, the next daemon ends up with all or nothing.
test_the_daemon_dies_while_it_creates() {
	host
	status 0 run -- true
	for delay in $MOMENTS; do
		hotcell create --isolation "$WALL" --name "born-$delay" >"$SCRATCH/out" 2>&1 &
		creator=$!
		sleep "$delay"
		kill -KILL "$(pid_of hotcelld)"
		wait $creator || true
		hotcell list --json >"$SCRATCH/list" || fail "list after a daemon's death at $delay s"
		if grep -q "born-$delay" "$SCRATCH/list"; then
			hotcell exec "born-$delay" -- true >"$SCRATCH/out" 2>&1 ||
				grep -q '"state":"failed"' "$SCRATCH/list" ||
				fail "neither gone nor usable after a death at $delay s: $(cat "$SCRATCH/list" "$SCRATCH/out")"
			status 0 hotcell rm "born-$delay"
		fi
		no_traces
	done
}

test_the_keeper_dies_and_all_machines_with_it() {
	host
	sandbox
	keeper=$(pid_of hotcell-keeper)
	below=$(descendants "$keeper")
	[ -n "$below" ] || fail "the keeper has no machine"
	kill -KILL "$keeper"
	# shellcheck disable=SC2086 # a list of numbers
	eventually 20 all_dead $below
	result=0
	hotcell exec "$id" -- true >"$SCRATCH/out" 2>&1 || result=$?
	[ $result -ne 0 ] || fail "a dead machine ran a program"
	hotcell rm "$id" >"$SCRATCH/out" 2>&1 || true
	status 0 run -- echo again
	no_traces
}

# Its init, QEMU or the agent: the sandbox has failed, says so, and goes.
test_a_machine_dies() {
	host
	sandbox --name doomed
	sandbox --name bystander
	machine=$(hotcell list --json | python3 -c 'import json, sys
print(next(s["pid"] for s in map(json.loads, sys.stdin) if s["name"] == "doomed"))')
	hotcell exec doomed -- sleep 1000 >"$SCRATCH/out" 2>&1 &
	follower=$!
	eventually 60 sleeps doomed
	kill -KILL "$machine"
	result=0
	wait $follower || result=$?
	[ $result -ne 0 ] || fail "its program succeeded"
	[ -s "$SCRATCH/out" ] || fail "nobody was told why"
	status 0 hotcell exec bystander -- echo unharmed
	hotcell rm doomed >"$SCRATCH/out" 2>&1 || true
	status 0 hotcell rm bystander
	no_traces
}

sleeps() {
	hotcell ps "$1" | grep -q 'sleep 1000'
}

# Whoever holds an ephemeral sandbox may be killed too.
test_the_command_line_dies() {
	host
	hotcell run --isolation "$WALL" --name held -- sleep 1000 >"$SCRATCH/out" 2>&1 &
	client=$!
	eventually 60 sleeps held
	kill -KILL $client
	wait $client 2>/dev/null || true
	eventually 40 nothing_listed
	no_traces
}

# Descriptors of daemon and keeper after many sandboxes: as before.
test_many_in_a_row_leak_nothing() {
	host
	status 0 run -- true
	status 0 run -- true
	no_traces
	daemon=$(pid_of hotcelld) keeper=$(pid_of hotcell-keeper)
	before="$(fds "$daemon") $(fds "$keeper")"
	i=0
	while [ $i -lt "$MANY" ]; do
		status 0 run -- echo "number $i"
		same "number $i" "$(cat "$OUT")"
		i=$((i + 1))
	done
	no_traces
	eventually 10 as_before
}

# The keeper may be making the next spare shell: asked more than once.
as_before() {
	[ "$before" = "$(fds "$daemon") $(fds "$keeper")" ]
}
