#!/bin/sh
# test/process_mistakes.sh - bad input of every kind gets one clear sentence, and limits hold
. "${0%/*}/lib.sh"

setup() {
	need_root
}

sandbox() {
	id=$(hotcell create --isolation process "$@") || fail "hotcell create $*"
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
	refused 7 memory hotcell create --isolation process --memory 900T
	refused 2 isolation hotcell create --isolation wishful
	refused 2 name hotcell create --isolation process --name ../etc
	refused 2 name hotcell create --isolation process --name "$(printf 'a\nb')"
	refused 2 colour hotcell create --colour red
	refused 4 nowhere hotcell create --isolation process --template nowhere
	refused 5 lab hotcell create --isolation process --name lab
	refused 4 ghost hotcell rm ghost
	refused 4 /nothing hotcell cp lab:/nothing "$SCRATCH/x"
	refused 2 '' hotcell cp a b
	refused 2 frobnicate hotcell frobnicate
	status 0 hotcell exec lab -- true
	status 0 hotcell rm lab
	no_traces
}

test_names_are_free_again() {
	host
	sandbox --name lab
	status 0 hotcell rm lab
	sandbox --name lab
	status 0 hotcell rm "$id"
	no_traces
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

test_the_workload_is_a_user() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'id -u; grep -E "^(CapEff|NoNewPrivs)" /proc/self/status'
	same 1000 "$(sed -n 1p "$OUT")"
	contains "$(cat "$OUT")" "CapEff:	0000000000000000"
	contains "$(cat "$OUT")" "NoNewPrivs:	1"
}

test_no_network_unless_asked_for() {
	host
	sandbox
	status 0 hotcell exec "$id" -- sh -c 'tail -n +3 /proc/net/dev | cut -d: -f1 | grep -v lo || true'
	same "" "$(tr -d ' \n' <"$OUT")" "interfaces"
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
	status 0 hotcell exec "$id" -- python3 -c '
import os, time
made = 0
try:
    while made < 200:
        if os.fork() == 0:
            time.sleep(1000)
        made += 1
except OSError:
    pass
print(made)'
	made=$(cat "$OUT")
	[ "$made" -ge 10 ] && [ "$made" -lt 40 ] || fail "of 200 processes $made could be made, the limit is 40"
}

run_tests
