#!/bin/sh
# test/process_escape.sh - attempts to get out of, or to hurt from, a process sandbox
. "${0%/*}/suite.sh"
ISOLATION=process

setup() {
	need_root
}

# Everything that escape.py finds open is a failure; its own count proves that it ran to its end.
try_to_escape() {
	box --memory 512M
	status 0 hotcell create --isolation process --name neighbour
	number=$(hotcell exec --detach neighbour -- sleep 8642)
	echo "host secret" >"$SCRATCH/secret"
	chmod 644 "$SCRATCH/secret"
	python3 -u -m http.server --bind 127.0.0.1 --directory "$SCRATCH" 0 >"$SCRATCH/server" 2>&1 &
	server=$!
	eventually 10 grep -q 'port' "$SCRATCH/server"
	port=$(sed -n 's/.*port \([0-9]*\).*/\1/p' "$SCRATCH/server")
	hotcell cp "$TOP/test/escape.py" box:/tmp/escape.py
	status 0 hotcell exec --user "$1" box -- python3 /tmp/escape.py "$SCRATCH/secret" "$port"
	kill $server
	cat "$OUT"
	! grep -q ^OPEN "$OUT" || fail "something is open (above)"
	[ "$(sed -n 's/^tried //p' "$OUT")" -gt 100 ] || fail "escape.py did not try everything"
	contains "$(hotcell ps neighbour)" 'sleep 8642'
	status 0 hotcell exec box -- true
	status 0 hotcell signal neighbour "$number" KILL
	done_with
}

test_escape_as_user() { try_to_escape user; }
test_escape_as_root() { try_to_escape root; }

# still_fine - the daemon answers, and a neighbour lives
still_fine() {
	status 0 timeout 20 hotcell exec neighbour -- echo alive
	same alive "$(cat "$OUT")"
}

test_fork_bomb() {
	box --pids 64
	status 0 hotcell create --isolation process --name neighbour
	before=$(cut -d / -f 2 /proc/loadavg | cut -d ' ' -f 1)
	# as many as it may, and they stay
	hotcell exec --timeout 10s box -- python3 -c 'import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(100)
        n += 1
except OSError as e:
    print(n, e.errno, flush=True)
time.sleep(3)
os.killpg(0, 9)' >"$OUT.bomb" &
	bomb=$!
	eventually 15 grep -q . "$OUT.bomb"
	still_fine
	read -r made error <"$OUT.bomb"
	same 11 "$error" "errno of the last fork"
	[ "$made" -lt 64 ] || fail "$made processes, the limit is 64"
	after=$(cut -d / -f 2 /proc/loadavg | cut -d ' ' -f 1)
	[ $((after - before)) -lt 200 ] || fail "the host has $((after - before)) processes more"
	wait $bomb || true
	# the classic one, without an end of its own
	status 124 hotcell exec --timeout 3s box -- python3 -c 'import os
while True:
    try: os.fork()
    except OSError: pass'
	still_fine
	eventually 15 sh -c 'test $(hotcell ps box | wc -l) -le 2'
	says 0 'again' -- echo again
	done_with
}

test_memory_bomb() {
	box --memory 128M
	status 0 hotcell create --isolation process --name neighbour
	status 137 hotcell exec --json box -- python3 -c 'x = []
while True: x.append(bytearray(1 << 20))'
	same oom "$(json "$OUT" 'd["exit"]["reason"]')" "reason"
	still_fine
	says 0 'again' -- echo again
	# many small ones together
	hotcell exec --timeout 20s box -c 'for i in 1 2 3 4 5 6 7 8; do python3 -c "x = bytearray(60 << 20); import time; time.sleep(5)" & done; wait' || true
	still_fine
	says 0 'again' -- echo again
	done_with
}

test_disk_bomb() {
	box --memory 256M --disk 64M
	status 0 hotcell create --isolation process --name neighbour
	before=$(df --output=avail -k "$SCRATCH" | tail -n 1)
	for target in /home/user/big /tmp/big /dev/shm/big; do
		status 1 hotcell exec box -- dd if=/dev/zero "of=$target" bs=1M count=1000
		contains "$(cat "$ERR")" 'No space left'
		says 0 '' -- rm "$target"
	done
	status 1 hotcell exec box -- python3 -c 'import os
os.mkdir("many")
for i in range(10**6): open(f"many/{i}", "w").close()'
	contains "$(cat "$ERR")" 'No space left'
	after=$(df --output=avail -k "$SCRATCH" | tail -n 1)
	[ $((before - after)) -lt 1000000 ] || fail "the host's disk lost $(((before - after) / 1024)) MiB"
	status 1 hotcell exec box -- dd if=/dev/zero of=/etc/big bs=1M count=1
	still_fine
	done_with
}

test_cpu_hog() {
	box --cpus 1
	status 0 hotcell create --isolation process --name neighbour
	number=$(hotcell exec --detach box -c 'for i in 1 2 3 4 5 6; do (while :; do :; done) & done; wait')
	still_fine
	used() { hotcell info --json box | python3 -c 'import json,sys; print(json.load(sys.stdin)["cpu_ms"])'; }
	begin=$(date +%s%N) first=$(used)
	sleep 3
	last=$(used) end=$(date +%s%N)
	share=$(((last - first) * 100000000 / (end - begin)))
	[ $share -gt 20 ] && [ $share -lt 130 ] || fail "six busy loops got $share % of a processor, allowed is 100 %"
	status 0 hotcell signal box "$number" KILL
	done_with
}

run_tests
