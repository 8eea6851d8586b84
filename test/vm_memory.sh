#!/bin/sh
# test/vm_memory.sh - a machine may use all memory it has, however it came to be; when there is no more, its own kernel
# ends the hog and nothing else; and what it uses is its own: the file it was started from does not grow
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 400 3600)
SIZES=$(size 512M '256M 512M 2G')

setup() {
	need_root
	need_program qemu-system-x86_64
}

# memory_files - memory files of daemon and keeper: inode and blocks of each, once
memory_files() {
	for pid in $(pid_of hotcelld) $(pid_of hotcell-keeper); do
		for fd in /proc/"$pid"/fd/*; do
			case $(readlink "$fd" || true) in
			'/memfd:ram (deleted)') stat -Lc '%i %b' "$fd" ;;
			esac
		done
	done | sort -u
}

# path_of SANDBOX - how it was made
path_of() {
	status 0 hotcell info --json "$1"
	json "$OUT" 'd["path"]'
}

# left SANDBOX - MiB it has left, less some for those who measure
left() {
	hotcell exec "$1" -- awk '$1 == "MemAvailable:" { print int($2 / 1024) - 24 }' /proc/meminfo
}

# takes_all SANDBOX - memory of programs: all there is. Then more than there is: the hog goes, its neighbour stays.
takes_all() {
	mib=$(left "$1")
	status 0 hotcell exec "$1" -- python3 -c 'import sys; print(len(bytearray(int(sys.argv[1]) << 20)) >> 20)' "$mib"
	same "$mib" "$(cat "$OUT")" "MiB taken by $1"
	status 0 hotcell exec --detach "$1" -- sh -c 'echo $$ >neighbour; exec sleep 1000'
	eventually 30 hotcell exec "$1" -- test -s neighbour
	status 137 hotcell exec "$1" -- python3 -c '
all = []
while True:
    all.append(bytearray(b"x") * (4 << 20))'
	status 0 hotcell exec "$1" -c 'kill $(cat neighbour) && rm neighbour'
	same running "$(state_of "$1")" "state of $1"
}

state_of() {
	hotcell info --json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["state"])'
}

# caches_all SANDBOX - files: more than there is memory, while a program holds half of it
caches_all() {
	mib=$(($(left "$1") / 2))
	file=$((2 * mib < 1200 ? 2 * mib : 1200)) # its disk is no larger than that
	status 0 hotcell exec "$1" -- python3 -c '
import os, sys
held = bytearray(int(sys.argv[1]) << 20)
piece = os.urandom(1 << 20)
with open("big", "wb") as f:
    for _ in range(int(sys.argv[2])):
        f.write(piece)
with open("big", "rb") as f:
    print(sum(len(p) for p in iter(lambda: f.read(1 << 20), b"")) >> 20)' "$mib" "$file"
	same "$file" "$(cat "$OUT")" "MiB of a file read back"
	status 0 hotcell exec "$1" -- rm big
}

# shares_all SANDBOX - files in memory
shares_all() {
	mib=$(($(left "$1") - 24))
	status 0 hotcell exec "$1" -c "sudo mount -t tmpfs -o size=100% none /mnt && head -c ${mib}M /dev/zero |
		sudo tee /mnt/x >/dev/null && stat -c %s /mnt/x && sudo umount /mnt"
	same $((mib << 20)) "$(cat "$OUT")" "bytes in a tmpfs"
}

# copied_in SANDBOX - files of the caller's
copied_in() {
	for mib in $(size 220 '220 380'); do
		head -c "${mib}M" /dev/urandom >"$SCRATCH/in"
		status 0 hotcell cp "$SCRATCH/in" "$1:copied"
		same "$(sha256sum <"$SCRATCH/in")" "$(hotcell exec "$1" -c 'sha256sum <copied')" "what was copied in"
		status 0 hotcell exec "$1" -- rm copied
	done
	rm "$SCRATCH/in"
}

# everything SANDBOX - in every way, in no order that helps
everything() {
	takes_all "$1"
	[ -z "$FULL" ] || caches_all "$1"
	[ -z "$FULL" ] || shares_all "$1"
	[ -z "$FULL" ] || takes_all "$1"
}

test_booted() {
	host
	for size in $SIZES; do
		status 0 hotcell create --cold --name box --memory "$size"
		same boot "$(path_of box)" path
		before=$(memory_files)
		[ "$size" = 256M ] || copied_in box
		takes_all box
		caches_all box
		shares_all box
		same "$before" "$(memory_files)" "memory files, inode and blocks"
		status 0 hotcell rm box
	done
	done_with
}

test_forked() {
	host
	for size in $SIZES; do
		status 0 hotcell template build base --memory "$size"
		status 0 hotcell create --name a --memory "$size"
		status 0 hotcell create --name b --memory "$size"
		same 'fork fork' "$(path_of a) $(path_of b)" path
		before=$(memory_files)
		everything a
		everything b # the first did not pay for the others
		same "$before" "$(memory_files)" "memory files, inode and blocks"
		status 0 hotcell rm a b
		same "$before" "$(memory_files)" "memory files afterwards"
	done
	done_with
}

# Copies of a machine that used much, of copies, of what lay on the disk, of a spare.
test_copied() {
	host
	status 0 hotcell template build base
	status 0 hotcell create --name a
	status 0 hotcell exec a -- python3 -c 'import sys; bytearray(100 << 20)'
	status 0 hotcell exec a -c 'echo kept >/dev/shm/word'
	status 0 hotcell fork a --name b
	status 0 hotcell snapshot create a --name set
	status 0 hotcell rm a
	status 0 hotcell create --snapshot set --name c
	status 0 hotcell pause c
	status 0 hotcell resume c
	before=$(memory_files)
	for box in b c; do
		same kept "$(hotcell exec $box -- cat /dev/shm/word)" "in the memory of $box"
		everything $box
		same kept "$(hotcell exec $box -- cat /dev/shm/word)" "in the memory of $box, afterwards"
	done
	same "$before" "$(memory_files)" "memory files, inode and blocks"
	status 0 hotcell rm b c
	status 0 hotcell pool set base --size 1
	eventually 60 sh -c "hotcell pool list --json | grep -q '\"ready\":1'"
	status 0 hotcell create --name d
	same pool "$(path_of d)" path
	everything d
	status 0 hotcell pool rm base
	done_with
}

# What may run beside each other is what fits: with all that a machine may take, not only its guest.
test_admission() {
	host
	box=$(hotcell info --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["memory_promised_mb"])')
	same 0 "$box" "promised to nobody"
	status 0 hotcell create --cold --name box --memory 300M
	status 0 hotcell info --json
	promised=$(json "$OUT" 'd["memory_promised_mb"]')
	status 0 hotcell info --json box
	pid=$(json "$OUT" 'd["pid"]')
	limit=$(python3 - "$pid" <<'P'
import sys
for line in open("/proc/%s/cgroup" % sys.argv[1]):
    n, names, path = line.rstrip("\n").split(":", 2)
    for at in ("/sys/fs/cgroup/memory%s/memory.limit_in_bytes", "/sys/fs/cgroup%s/memory.max",
               "/sys/fs/cgroup/unified%s/memory.max"):
        if ("memory" in names.split(",")) == ("limit" in at):
            try:
                print(int(open(at % path).read()) >> 20)
                sys.exit()
            except (OSError, ValueError):
                pass
P
)
	[ -n "$limit" ] || skip "no control group for memory here"
	same "$limit" "$promised" "MiB of its control group, and promised"
	done_with
}

# Programs without number, each with some memory.
test_fork_bomb() {
	[ -n "$FULL" ] || skip "HOTCELL_FULL=1: takes a minute"
	host
	status 0 hotcell create --cold --name box --memory 1G
	status 0 hotcell exec --detach box -- sh -c 'echo $$ >neighbour; exec sleep 1000'
	hotcell exec --timeout 60s box -- python3 -c '
import os, time
while True:
    try:
        if os.fork() == 0:
            b = bytearray(4 << 20)
            time.sleep(30)
            os._exit(0)
    except OSError:
        time.sleep(0.1)' >"$SCRATCH/bomb" 2>&1 || true
	same running "$(state_of box)" state
	eventually 120 hotcell exec box -- true
	done_with
}

run_tests
