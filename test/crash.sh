# shellcheck shell=sh
# test/crash.sh - kill -9 of everybody. Sourced by process_crash.sh and vm_crash.sh, which set ISOLATION.
. "${0%/*}/suite.sh"

# kill_while_creating VICTIM [STEP... | random ROUNDS]
kill_while_creating() {
	host
	status 0 hotcell list
	python3 "$TOP/test/crash.py" "$SCRATCH" "$ISOLATION" "$@" || fail "crash.py"
	no_traces
}

kill_daemon() {
	pid=$(pid_of hotcelld)
	[ -n "$pid" ] || fail "there is no daemon to kill"
	kill -KILL "$pid"
	eventually 10 is_dead "$pid"
}

# All sandboxes live on, under the next daemon.
adoption() {
	host
	for n in $(seq "$1"); do
		status 0 hotcell create --isolation "$ISOLATION" --name "box$n"
		status 0 hotcell exec "box$n" -c "echo $n >mark"
	done
	before=$(hotcell list --json | python3 -c 'import json,sys
for s in sorted((json.loads(line) for line in sys.stdin), key=lambda s: s["id"]): print(s["id"], s["name"], s["state"], s["pid"], s["created_ms"])')
	for round in 1 2 3; do
		kill_daemon
		after=$(hotcell list --json | python3 -c 'import json,sys
for s in sorted((json.loads(line) for line in sys.stdin), key=lambda s: s["id"]): print(s["id"], s["name"], s["state"], s["pid"], s["created_ms"])')
		same "$before" "$after" "the list after the daemon's death number $round"
		status 0 hotcell info --json
		same "$1" "$(json "$OUT" 'd["adopted"]')" "adopted"
		for n in $(seq "$1"); do
			status 0 hotcell exec "box$n" -- cat mark
			same "$n" "$(cat "$OUT")" "what was written in box$n"
		done
	done
	done_with
}

# A program's output arrives whole while daemons die: $1 numbered, check-summed lines.
output_across_daemons() {
	box
	: >"$SCRATCH/lines"
	hotcell exec box -- python3 -c 'import sys, time, zlib
sum = 0
for n in range(int(sys.argv[1])):
    line = "%d %08x" % (n, sum)
    sum = zlib.crc32(line.encode(), sum)
    print(line, flush=n % 100 == 0)
    if n % 1000 == 0: time.sleep(0.1)
sys.exit(9)' "$1" >"$SCRATCH/lines" 2>"$SCRATCH/notes" &
	client=$!
	for _ in 1 2 3; do
		lines=$(wc -l <"$SCRATCH/lines")
		eventually 60 sh -c "test \$(wc -l <'$SCRATCH/lines') -gt $((lines + $1 / 20))"
		kill_daemon
	done
	got=0
	wait $client || got=$?
	same 9 "$got" "exit status of the program ($(cat "$SCRATCH/notes"))"
	python3 -c 'import sys, zlib
sum, n = 0, -1
for n, line in enumerate(open(sys.argv[1])):
    line = line.rstrip("\n")
    want = "%d %08x" % (n, sum)
    if line != want: sys.exit(f"line {n}: wanted {want}, got {line}")
    sum = zlib.crc32(line.encode(), sum)
if n + 1 != int(sys.argv[2]): sys.exit(f"{n + 1} lines of {sys.argv[2]}")' "$SCRATCH/lines" "$1" || fail "output is not what was written"
	done_with
}

# The same towards the program: $1 MiB of input.
input_across_daemons() {
	box
	: >"$SCRATCH/output"
	head -c "${1}M" /dev/urandom >"$SCRATCH/input"
	python3 -c 'import sys, time
data = open(sys.argv[1], "rb").read()
piece = len(data) // 40
for at in range(0, len(data), piece):
    sys.stdout.buffer.write(data[at:at + piece])
    sys.stdout.flush()
    time.sleep(0.15)' "$SCRATCH/input" | hotcell exec box -- cat >"$SCRATCH/output" 2>"$SCRATCH/notes" &
	client=$!
	for _ in 1 2 3; do
		size=$(stat -c %s "$SCRATCH/output")
		eventually 60 sh -c "test \$(stat -c %s '$SCRATCH/output') -gt $((size + $1 * 100000))"
		kill_daemon
	done
	wait $client || fail "exit status $?: $(cat "$SCRATCH/notes")"
	cmp "$SCRATCH/input" "$SCRATCH/output" || fail "input came to the program changed"
	done_with
}

# running MARK - a program that runs until it is ended, followed by $client
running() {
	hotcell exec box -c 'echo up; exec sleep 8600' >"$SCRATCH/out" 2>"$SCRATCH/err" &
	client=$!
	eventually 30 grep -q up "$SCRATCH/out"
}

# ended - the client noticed, and says so in words
ended() {
	got=0
	eventually 60 is_dead $client
	wait $client || got=$?
	same 125 "$got" "exit status of the client"
	contains "$(cat "$SCRATCH/err")" "hotcell: "
	same 1 "$(grep -c . "$SCRATCH/err")" "lines: $(cat "$SCRATCH/err")"
}

machine_under_a_program() {
	box
	status 0 hotcell create --isolation process --name other
	running
	kill -KILL "$(hotcell info --json box | python3 -c 'import json,sys; print(json.load(sys.stdin)["pid"])')"
	ended
	eventually 20 sh -c 'hotcell info --json box | grep -q "\"state\":\"failed\""' # what it had is given back first
	refuses 125 box exec box -- true
	status 0 hotcell exec other -- true
	done_with
}

keeper_under_a_program() {
	box
	running
	kill -KILL "$(pid_of hotcell-keeper)"
	ended
	status 0 hotcell list --json
	status 0 hotcell run --isolation process -- echo next
	same next "$(cat "$OUT")"
	done_with
}

client_under_a_program() {
	host
	hotcell run --isolation "$ISOLATION" -c 'echo up; exec sleep 8601' >"$SCRATCH/out" &
	client=$!
	eventually 60 grep -q up "$SCRATCH/out"
	kill -KILL $client
	eventually 20 sh -c 'test -z "$(hotcell list --json)"'
	no_traces
}
