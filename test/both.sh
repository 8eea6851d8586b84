# shellcheck shell=sh
# test/both.sh - what holds behind every wall; sourced by process_basics.sh and vm_basics.sh, which set WALL

sandbox() {
	id=$(hotcell create --isolation "$WALL" "$@") || fail "hotcell create --isolation $WALL $*"
}

run() {
	hotcell run --isolation "$WALL" "$@"
}

# The words of the issue: 42, a kernel, status 3.
test_runs_a_program_and_leaves_nothing() {
	host
	status 3 run -- python3 -c 'import os,sys;print(6*7);print(os.uname().release);sys.exit(3)'
	same 42 "$(sed -n 1p "$OUT")"
	check_kernel "$(sed -n 2p "$OUT")"
	same "" "$(cat "$ERR")" "standard error"
	no_traces
}

test_says_its_wall() {
	host
	status 0 run --json -- true
	check_wall "$(json "$OUT" 'd["wall"]')"
	same 0 "$(json "$OUT" 'd["code"]')"
	[ "$(json "$OUT" 'len(d["sandbox"]["stages"])')" -ge 4 ] || fail "the stages are not timed"
}

test_keeps_streams_and_status_apart() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'echo out; echo err >&2'
	same out "$(cat "$OUT")"
	same err "$(cat "$ERR")"
	status 143 hotcell exec "$id" -- sh -c 'kill -TERM $$'
	status 127 hotcell exec "$id" -- sh -c 'exit 127'
	status 124 hotcell exec "$id" --timeout 500ms -- sleep 1000
	status 0 hotcell exec "$id" --env A=b --cwd /tmp -- sh -c 'echo $A; pwd; id -un'
	same "b /tmp user" "$(tr '\n' ' ' <"$OUT" | sed 's/ $//')"
	status 0 hotcell rm "$id"
	no_traces
}

test_a_timeout_ends_the_whole_tree() {
	host
	sandbox
	status 124 hotcell exec "$id" --timeout 1s -- sh -c 'setsid sleep 4321 & setsid sh -c "sleep 4322" & wait'
	status 0 hotcell ps "$id"
	! grep -q 'sleep 432' "$OUT" || fail "processes live on: $(cat "$OUT")"
}

test_bytes_pass_unharmed() {
	host
	sandbox
	head -c 3000000 /dev/urandom >"$SCRATCH/bytes"
	hotcell exec "$id" -- cat <"$SCRATCH/bytes" >"$SCRATCH/back" || fail "cat"
	cmp "$SCRATCH/bytes" "$SCRATCH/back" || fail "standard input or output changed bytes"
	status 0 hotcell cp "$SCRATCH/bytes" "$id:/home/user/b"
	status 0 hotcell cp "$id:b" "$SCRATCH/again"
	cmp "$SCRATCH/bytes" "$SCRATCH/again" || fail "cp changed bytes"
}

test_copies_trees_both_ways() {
	host
	sandbox
	mkdir -p "$SCRATCH/tree/a/b c" "$SCRATCH/tree/empty"
	printf 'x\0y\n' >"$SCRATCH/tree/a/b c/binary"
	printf '#!/bin/sh\necho it runs\n' >"$SCRATCH/tree/run"
	chmod 755 "$SCRATCH/tree/run"
	printf 'ü\n' >"$SCRATCH/tree/grüße"
	status 0 hotcell cp "$SCRATCH/tree" "$id:/home/user/"
	status 0 hotcell exec "$id" -- ./tree/run
	same "it runs" "$(cat "$OUT")"
	status 0 hotcell cp "$id:/home/user/tree" "$SCRATCH/back"
	diff -r "$SCRATCH/tree" "$SCRATCH/back" || fail "the tree changed on its way"
	status 0 hotcell ls "$id:/home/user/tree" --json
}

test_paths_stay_inside() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'mkdir d && ln -s /etc d/link && ln -s ../../../../etc/passwd d/out && echo fine >d/f'
	mkdir "$SCRATCH/target"
	echo precious >"$SCRATCH/passwd"
	hotcell cp "$id:d" "$SCRATCH/target/" >"$SCRATCH/out" 2>&1 || true
	[ ! -e "$SCRATCH/target/d/link/passwd" ] || fail "a link led out of the target"
	same precious "$(cat "$SCRATCH/passwd")"
}

# It keeps its uid and has no way up.
test_the_workload_is_a_user() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'id -u; cat /proc/self/status | grep -E "^(CapEff|NoNewPrivs)"'
	same 1000 "$(sed -n 1p "$OUT")"
	contains "$(cat "$OUT")" "CapEff:	0000000000000000"
}

test_no_network_unless_asked_for() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'cat /proc/net/dev | tail -n +3 | cut -d: -f1 | grep -v lo || true'
	same "" "$(tr -d ' \n' <"$OUT")" "interfaces"
}

# kill -9 of the daemon: the machine is adopted, the running program lives, no byte lost or doubled.
test_the_daemon_dies_and_nobody_notices() {
	host
	sandbox
	hotcell exec "$id" -- sh -c 'i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i + 1)); sleep 0.1; done' \
		>"$SCRATCH/lines" 2>"$SCRATCH/err" &
	follower=$!
	eventually 60 grep -q 'line 5$' "$SCRATCH/lines"
	daemon=$(pid_of hotcelld)
	kill -KILL "$daemon"
	result=0
	wait $follower || result=$?
	same 0 "$result" "status of the exec that was running ($(cat "$SCRATCH/err"))"
	i=0
	while [ $i -lt 40 ]; do
		echo "line $i"
		i=$((i + 1))
	done | diff - "$SCRATCH/lines" || fail "output lost or doubled"
	[ "$(pid_of hotcelld)" != "$daemon" ] || fail "the daemon is still the old one"
	status 0 hotcell exec "$id" -- echo alive
	status 0 hotcell rm "$id"
	no_traces
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

# Whoever holds an ephemeral sandbox may be killed too.
test_the_command_line_dies() {
	host
	hotcell run --isolation "$WALL" -- sleep 1000 >"$SCRATCH/out" 2>&1 &
	client=$!
	eventually 60 running_sandboxes 1
	eventually 60 a_session_runs
	kill -KILL $client
	wait $client 2>/dev/null || true
	eventually 30 running_sandboxes 0
	no_traces
}

running_sandboxes() {
	hotcell list --json >"$SCRATCH/list" && [ "$(json "$SCRATCH/list" 'len([s for s in d if s["state"] == "running"])')" = "$1" ]
}

a_session_runs() {
	hotcell list --json >"$SCRATCH/list"
	hotcell ps "$(json "$SCRATCH/list" 'd[0]["id"]')" | grep -q 'sleep 1000'
}

test_names_are_unique_and_findable() {
	host
	sandbox --name lab
	status 0 hotcell exec lab -- true
	status 5 hotcell create --isolation "$WALL" --name lab
	same 1 "$(wc -l <"$ERR")" "lines of the message"
	contains "$(cat "$ERR")" lab
	status 0 hotcell rm lab
	status 0 hotcell create --isolation "$WALL" --name lab
	status 0 hotcell rm lab
	no_traces
}

# Descriptors of daemon and keeper after many sandboxes: as before.
test_many_in_a_row_leak_nothing() {
	host
	status 0 run -- true
	daemon=$(pid_of hotcelld) keeper=$(pid_of hotcell-keeper)
	before="$(fds "$daemon") $(fds "$keeper")"
	i=0
	while [ $i -lt "$MANY" ]; do
		status 0 run -- true
		i=$((i + 1))
	done
	no_traces
	same "$before" "$(fds "$daemon") $(fds "$keeper")" "descriptors of daemon and keeper"
}
