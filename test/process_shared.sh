#!/bin/sh
# test/process_shared.sh - what all sandboxes of a host share: none may take it from the others, or see them in it
. "${0%/*}/suite.sh"
ISOLATION=process

setup() {
	need_root
}

# greedy WORD... - greedy.py runs in box and stays; what it says first is in $SCRATCH/said
greedy() {
	hotcell cp "$TOP/test/greedy.py" box:/tmp/greedy.py
	hotcell exec --no-stdin box -- python3 /tmp/greedy.py "$@" >"$SCRATCH/said" 2>&1 &
	taker=$!
	eventually 60 grep -q . "$SCRATCH/said"
}

# let_go_of_it - and it ends
let_go_of_it() {
	kill -INT $taker
	wait $taker || true
}

# Bytes nobody reads, 600 MiB if they could: a quarter of the memory at most, and it is told.
test_memory_of_sockets() {
	host
	status 0 hotcell create --isolation process --name neighbour
	for kind in udp tcp; do
		status 0 hotcell create --isolation process --name box --memory 256M
		greedy $kind 600
		used=$(hotcell info --json box | python3 -c 'import json,sys; print(json.load(sys.stdin)["memory_used_mb"])')
		read -r got sockets <"$SCRATCH/said"
		case $got$sockets$used in *[!0-9]*) fail "greedy.py says: $(cat "$SCRATCH/said"); used: $used" ;; esac
		[ "$got" -gt 16 ] || fail "$kind: greedy.py took only $got MiB"
		# each TCP socket may have a page or two beyond any bound; what it is itself is in the sandbox's memory
		[ "$got" -le $((64 + sockets * 8 / 1024)) ] ||
			fail "$kind: $got MiB in $sockets sockets of a sandbox of 256 MiB"
		[ "$used" -ge "$got" ] || fail "$kind: $got MiB in sockets, info says that $used MiB are used"
		status 0 timeout 20 hotcell exec neighbour -- python3 -c 'import socket
a = socket.create_server(("127.0.0.1", 0)); b = socket.create_connection(a.getsockname()); c, _ = a.accept()
b.sendall(b"x" * 100000); b.close()
print(sum(len(p) for p in iter(lambda: c.recv(65536), b"")))'
		same 100000 "$(cat "$OUT")" "a neighbour's bytes"
		let_go_of_it
		status 0 hotcell rm box
	done
	done_with
}

test_terminals() {
	box
	status 0 hotcell create --isolation process --name neighbour
	greedy terminals
	same '64 ENOSPC' "$(cat "$SCRATCH/said")" "terminals, and the end of them"
	says=$(hotcell exec neighbour -- python3 -c 'import os; print(len([os.openpty() for _ in range(32)]))')
	same 32 "$says" "a neighbour's terminals"
	let_go_of_it
	says 0 '1' -- python3 -c 'import os; print(len([os.openpty()]))'
	done_with
}

# Contexts of asynchronous I/O are counted for the host; libraries hear that there are none.
test_asynchronous_io() {
	box
	before=$(cat /proc/sys/fs/aio-nr)
	greedy aio
	same "ENOSYS" "$(cat "$SCRATCH/said")" "io_setup"
	same "$before" "$(cat /proc/sys/fs/aio-nr)" "contexts of the host"
	let_go_of_it
	done_with
}

# Its own files are in memory: nothing is written out for it, and all of this is answered.
test_sync() {
	box
	says 0 'done' -- python3 -c 'import os
os.sync()
f = open("x", "w"); f.write("x"); f.flush()
os.fsync(f.fileno()); os.fdatasync(f.fileno()); os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
print("done")'
	says 0 '' -- sync
	says 0 '' -- sync -f /usr/bin/python3
	done_with
}

# The least score that a program may choose is what it started with, where the keeper may say so.
test_oom_score() {
	[ $((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> 24 & 1)) = 1 ] ||
		skip "root has no CAP_SYS_RESOURCE here"
	box
	for user in user root; do
		status 0 hotcell exec --user $user box -- python3 -c 'for score in range(500, -1001, -1):
    try: open("/proc/self/oom_score_adj", "w").write(str(score))
    except OSError: break
print(open("/proc/self/oom_score_adj").read().strip())'
		same 200 "$(cat "$OUT")" "lowest score of $user"
	done
	done_with
}

test_core_handler() { suite_core_handler; }

# What /proc says of the host is empty; what programs count by is there.
test_proc() {
	box
	status 0 hotcell create --isolation process --name neighbour
	status 0 hotcell exec --user root box -c 'cd /proc; for name in buddyinfo pagetypeinfo zoneinfo vmstat diskstats partitions swaps \
		locks consoles crypto misc devices interrupts kallsyms; do if [ -e $name ] && head -c 1 $name | grep -q .; then echo $name; fi; done
		ls pressure 2>/dev/null; true'
	same '' "$(cat "$OUT")" "files of /proc that say something"
	for part in 'os.cpu_count() >= 1' 'os.sysconf("SC_PHYS_PAGES") > 0' 'os.getloadavg()' 'open("/proc/meminfo").read(9) == "MemTotal:"' \
		'open("/proc/stat").read(3) == "cpu"' 'open("/proc/cpuinfo").read(9)' 'float(open("/proc/uptime").read().split()[0]) > 0'; do
		says 0 True -- python3 -c "import os; print(bool($part))"
	done
	for name in box neighbour; do
		hotcell exec $name -- cat /proc/sys/kernel/random/boot_id >>"$SCRATCH/ids"
	done
	status 0 hotcell snapshot create box --name s
	status 0 hotcell create --snapshot s --name copy
	hotcell exec copy -- cat /proc/sys/kernel/random/boot_id >>"$SCRATCH/ids"
	cat /proc/sys/kernel/random/boot_id >>"$SCRATCH/ids"
	grep -cE '^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' "$SCRATCH/ids" >"$SCRATCH/n" || true
	same '4 4' "$(cat "$SCRATCH/n") $(sort -u "$SCRATCH/ids" | wc -l)" "boot ids, and different ones: $(cat "$SCRATCH/ids")"
	same "$(sed -n 1p "$SCRATCH/ids")" "$(hotcell exec box -- cat /proc/sys/kernel/random/boot_id)" "the id, once more"
	status 2 hotcell exec --user root box -c 'echo x >/proc/sys/kernel/random/boot_id'
	done_with
}

# Programs hear what a kernel without these sockets says, and go on.
test_sockets_of_other_kinds() {
	box
	status 0 hotcell exec box -- python3 -c 'import asyncio, errno, multiprocessing, socket
for kind in ((socket.AF_NETLINK, socket.SOCK_RAW, 0), (socket.AF_INET, socket.SOCK_STREAM, 262), (socket.AF_INET6, socket.SOCK_DGRAM, 136)):
    try: socket.socket(*kind); print(kind, "is open")
    except OSError as e: print(errno.errorcode[e.errno])
print(sorted({a[4][0] for a in socket.getaddrinfo("localhost", 80)})[0])
async def talk():
    server = await asyncio.start_server(lambda r, w: (w.write(b"hello"), w.close()), "localhost", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    return (await reader.read()).decode()
print(asyncio.run(talk()))
a, b = multiprocessing.Pipe()
a.send("piped"); print(b.recv())
print(multiprocessing.Pool(1).apply(str, (7,)))'
	same 'EAFNOSUPPORT EPROTONOSUPPORT EPROTONOSUPPORT 127.0.0.1 hello piped 7' "$(paste -s -d ' ' "$OUT")"
	done_with
}

run_tests
