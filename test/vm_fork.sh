#!/bin/sh
# test/vm_fork.sh - hot templates, forks, snapshots, pauses: whole machines and what runs in them
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 180 3600)

setup() {
	need_root
	need_program qemu-system-x86_64
}

# hot - a host whose template base is hot
hot() {
	host
	status 0 hotcell template build base --json
	same template "$(json "$OUT" 'd["kind"]')" kind
	status 0 hotcell template list
	contains "$(cat "$OUT")" base
}

# path_of SANDBOX - how it was made
path_of() {
	hotcell info --json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["path"])'
}

# A program in $1 that counts, and checks what it counted: "bad" appears when a step is missing.
start_counter() {
	status 0 hotcell exec --detach "$1" -c 'python3 -u -c "
import time
seen = []
while True:
    seen.append(len(seen))
    if seen != list(range(len(seen))):
        open(\"bad\", \"w\").write(\"x\")
    with open(\"count.new\", \"w\") as f: f.write(str(len(seen)))
    __import__(\"os\").rename(\"count.new\", \"count\")
    time.sleep(0.02)
"'
	eventually 30 hotcell exec "$1" -- test -s count
}

# counts SANDBOX - it goes on counting, and never lost a step
counts() {
	before=$(hotcell exec "$1" -- cat count)
	eventually 30 sh -c "[ \$(hotcell exec $1 -- cat count) -gt $before ]"
	status 1 hotcell exec "$1" -- test -e bad
}

test_create_is_a_fork() {
	hot
	status 0 hotcell create --name a
	status 0 hotcell create --name b
	status 0 hotcell create --name c --cold
	same 'fork fork boot' "$(path_of a) $(path_of b) $(path_of c)" "how they were made"
	status 0 hotcell exec a -- sh -c 'echo of a >mine; sync'
	status 1 hotcell exec b -- test -e mine
	same a "$(hotcell exec a -- hostname)" "host name"
	# another shape boots
	status 0 hotcell create --name d --memory 300M
	same boot "$(path_of d)" "how d was made"
	# the template outlives the daemon
	kill -KILL "$(pid_of hotcelld)"
	status 0 hotcell create --name e
	same fork "$(path_of e)" "how e was made"
	same 'of a' "$(hotcell exec a -- cat mine)" "the file of a, adopted"
	status 0 hotcell rm --all
	status 0 hotcell template rm base
	status 0 hotcell create --name f
	same boot "$(path_of f)" "how f was made"
	done_with
}

# Nothing random is the same in two forks, and all clocks are right.
test_forks_differ() {
	hot
	status 0 hotcell create --name source
	program='import os,random,time,uuid;print(os.urandom(16).hex(), random.random(), uuid.uuid4(), open("/proc/sys/kernel/random/boot_id").read().strip(), open("/etc/machine-id").read().strip(), os.uname().nodename); print(time.time())'
	status 0 hotcell code run source 'import random; random.random()'
	n=$(size 4 128)
	status 0 hotcell fork source --count "$n" --name twin
	for i in $(seq "$n"); do
		status 0 hotcell create --name "fresh-$i"
	done
	for i in $(seq "$n"); do
		for name in "twin-$i" "fresh-$i"; do
			hotcell exec "$name" -- python3 -c "$program" >"$SCRATCH/said"
			now=$(date +%s)
			sed -n 1p "$SCRATCH/said" | tr ' ' '\n' >>"$SCRATCH/values"
			then=$(sed -n 's/\..*//;2p' "$SCRATCH/said")
			[ $((now - then)) -le 2 ] && [ $((then - now)) -le 2 ] || fail "clock of $name: $then, here $now"
			# the warm interpreter's own generator
			hotcell code run "$name" 'import random; random.random()' >>"$SCRATCH/values"
		done
	done
	same "$((n * 2 * 7))" "$(wc -l <"$SCRATCH/values")" "values"
	same "" "$(sort "$SCRATCH/values" | uniq -d)" "values that two forks share"
	done_with
}

test_fork_of_a_running_one() {
	hot
	status 0 hotcell create --name a
	start_counter a
	status 0 hotcell exec a -- sh -c 'echo in the file >file'
	status 0 hotcell fork a --count 3 --name kid
	for kid in kid-1 kid-2 kid-3; do
		same 'in the file' "$(hotcell exec "$kid" -- cat file)" "file of $kid"
		counts "$kid"
		same "$kid" "$(hotcell exec "$kid" -- hostname)" "host name"
	done
	status 0 hotcell exec kid-1 -- rm file
	same 'in the file' "$(hotcell exec kid-2 -- cat file)" "file of kid-2"
	counts a
	# forks of forks
	status 0 hotcell fork kid-2 --name grandkid
	counts grandkid
	same 'in the file' "$(hotcell exec grandkid -- cat file)" "file of the fork of a fork"
	refuses 5 'kid-1 is taken' fork a --count 2 --name kid
	counts a
	done_with
}

# Interpreters of the template were born before anybody asked for a sandbox.
test_warm_code_knows_the_environment() {
	hot
	status 0 hotcell create --name a --env COLOR=red
	same red "$(hotcell code run a 'import os; print(os.environ["COLOR"])')" "in Python"
	same red "$(hotcell code run a --language shell 'echo $COLOR')" "in bash"
	status 0 hotcell fork a --name b
	same red "$(hotcell code run b 'print(os.environ["COLOR"])')" "in a fork"
	done_with
}

# Sessions of before end, their programs live on.
test_sessions_end_with_forked() {
	hot
	status 0 hotcell create --name a
	number=$(hotcell exec --detach a -- sh -c 'echo here; sleep 8300')
	status 0 hotcell fork a --name b
	refuses 125 'copy of' attach b "$number"
	contains "$(hotcell ps b)" 'sleep 8300'
	done_with
}

# own_kib - disk that snapshots and the disks of sandboxes take; what several have is counted once
own_kib() {
	du -skc "$HOTCELL_STATE/snapshots" "$HOTCELL_STATE/sandboxes" | tail -n 1 | cut -f 1
}

# snapshot_takes SANDBOX NAME LEAST MOST - MiB of disk, found and told
snapshot_takes() {
	took=$(own_kib)
	status 0 hotcell snapshot create "$1" --name "$2"
	took=$(($(own_kib) - took))
	[ $took -le $(($4 * 1024)) ] || fail "snapshot $2 takes $took KiB of disk"
	told=$(hotcell snapshot info "$2" --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["bytes"] // 1024)')
	[ "$told" -ge $(($3 * 1024)) ] && [ "$told" -le $(($4 * 1024)) ] || fail "snapshot $2 is said to take $told KiB"
}

# base_of NAME - which file a snapshot's memory is compared with
base_of() {
	stat -c %i "$HOTCELL_STATE/snapshots/$(hotcell snapshot info "$1" --json | python3 -c 'import json, sys
print(json.load(sys.stdin)["id"])')/base"
}

# What a snapshot shares with its template is not stored again, and is there as long as the snapshot is.
test_snapshots_store_what_differs() {
	hot
	status 0 hotcell create --name a
	snapshot_takes a idle 1 12
	status 0 hotcell exec a -- sh -c 'head -c 1000000 /dev/urandom >bit; for i in $(seq 64); do cat bit; done >/dev/shm/data; md5sum /dev/shm/data'
	data=$(cat "$OUT")
	snapshot_takes a busy 61 80
	status 0 hotcell pause a
	status 0 hotcell resume a
	same "$data" "$(hotcell exec a -- md5sum /dev/shm/data)" "data after a pause"
	status 0 hotcell template rm base
	status 0 hotcell rm a
	kill -KILL "$(pid_of hotcelld)" # nothing is hot
	status 0 hotcell restore busy --name b
	same "$data" "$(hotcell exec b -- md5sum /dev/shm/data)" "data of a snapshot without its template"
	# what is zero again takes nothing
	status 0 hotcell exec b -- sh -c 'head -c 64000000 /dev/zero >/dev/shm/data; mv /dev/shm/data /dev/shm/zero'
	snapshot_takes b zero 1 40
	status 0 hotcell fork b --name c
	snapshot_takes c of-a-fork 1 40
	same "$(base_of busy)" "$(base_of zero)" "base of a snapshot of a snapshot"
	same "$(base_of busy)" "$(base_of of-a-fork)" "base of a snapshot of a fork of it"
	status 0 hotcell snapshot rm busy
	status 0 hotcell snapshot rm zero
	kill -KILL "$(pid_of hotcelld)"
	status 0 hotcell restore of-a-fork --name d
	status 0 hotcell exec d -- cmp -n 64000000 /dev/zero /dev/shm/zero
	done_with
}

test_snapshot_restore_rollback() {
	hot
	status 0 hotcell create --name a
	start_counter a
	status 0 hotcell exec a -- sh -c 'echo before >file'
	status 0 hotcell snapshot create a --name s
	at=$(hotcell exec a -- cat count)
	status 0 hotcell exec a -- sh -c 'echo after >file'
	refuses 5 's' snapshot create a --name s
	status 0 hotcell restore s --name b
	same before "$(hotcell exec b -- cat file)" "file of the restored one"
	counts b
	status 0 hotcell restore s --name c --disk-only
	same before "$(hotcell exec c -- cat file)" "file of the one with the disk only"
	eventually 20 sh -c "[ \$(hotcell exec a -- cat count) -gt $((at + 50)) ]"
	status 0 hotcell rollback a s
	same before "$(hotcell exec a -- cat file)" "file after the rollback"
	[ "$(hotcell exec a -- cat count)" -lt $((at + 50)) ] || fail "the counter was not put back"
	counts a
	refuses 2 'another sandbox' rollback b s
	refuses 4 'no snapshot' rollback a nothing
	status 0 hotcell snapshot list
	contains "$(cat "$OUT")" s
	status 0 hotcell snapshot rm s
	counts b
	refuses 4 'no snapshot' restore s
	done_with
}

test_pause_resume() {
	hot
	status 0 hotcell create --name a
	start_counter a
	for i in $(seq "$(size 3 1000)"); do
		status 0 hotcell pause a
		same paused "$(hotcell info --json a | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])')" state
		refuses 125 paused exec a -- true
		if [ "$i" = 2 ]; then # a paused one outlives daemon and keeper
			kill -KILL "$(pid_of hotcelld)" "$(pid_of hotcell-keeper)"
		fi
		status 0 hotcell resume a
		counts a
	done
	refuses 5 'not paused' resume a
	status 0 hotcell pause a
	done_with
	id=$(hotcell template list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
	eventually 10 sh -c "[ \"\$(ls $HOTCELL_STATE/snapshots)\" = $id ]" # the template's, and no pause's
}

# A child that writes wherever it can changes nothing of its template.
test_template_stays_what_it_was() {
	hot
	id=$(hotcell template list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
	sums() { (cd "$HOTCELL_STATE/snapshots/$id" && sha256sum memory state layer-0 manifest); }
	sums >"$SCRATCH/before"
	status 0 hotcell create --name wild
	status 0 hotcell exec wild -- sh -c 'head -c 20000000 /dev/urandom >big; sync; rm big; sync; sudo fstrim / 2>/dev/null; python3 -c "b = bytearray(64 << 20); b[::4096] = bytes(len(b[::4096]))"'
	sums >"$SCRATCH/after"
	same "$(cat "$SCRATCH/before")" "$(cat "$SCRATCH/after")" "the template's files"
	status 0 hotcell create --name next
	status 0 hotcell exec next -- python3 -c 'import json'
	done_with
}

# Memory and state that machines start from are sealed as long as they are kept, whoever made them and runs on.
test_sets_are_sealed() {
	hot
	status 0 hotcell create --name source
	status 0 hotcell snapshot create source --name kept
	status 0 hotcell fork source --name copy
	python3 - "$(pid_of hotcelld)" <<'END'
import fcntl, os, sys
F_GET_SEALS, SHRINK_GROW_WRITE = 1034, 14
folder = f"/proc/{sys.argv[1]}/fd"
files = [n for n in os.listdir(folder) if os.readlink(f"{folder}/{n}").startswith("/memfd:")]
assert len(files) >= 4, files
for name in files:
    fd = os.open(f"{folder}/{name}", os.O_RDONLY)
    seals = fcntl.fcntl(fd, F_GET_SEALS)
    assert seals & SHRINK_GROW_WRITE == SHRINK_GROW_WRITE, (os.readlink(f"{folder}/{name}"), hex(seals))
END
	done_with
}

# A set that was changed or cut is refused with the reason and the way out.
test_damage() {
	hot
	status 0 hotcell create --name a
	status 0 hotcell snapshot create a --name s
	id=$(hotcell snapshot list --json | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])')
	status 0 hotcell rm a
	kill -KILL "$(pid_of hotcelld)" # what is hot needs no disk
	printf 'x' | dd of="$HOTCELL_STATE/snapshots/$id/memory" bs=1 seek=1048576 conv=notrunc 2>/dev/null
	refuses 2 'disk-only' restore s
	status 0 hotcell restore s --disk-only --name b
	status 0 hotcell exec b -- true
	status 0 hotcell snapshot rm s
	done_with
}

test_walls_without() {
	host
	status 0 hotcell create --isolation process --name p
	for verb in fork pause; do
		refuses 9 'process' "$verb" p
	done
	status 0 hotcell exec p -- true
	done_with
}

test_pool() { hot; suite_pool fork; }

# Ready forks, empty shells, and a template that is built again under them.
test_pool_of_forks() {
	hot
	refuses 9 'has no state to load' pool set base --prestarted 1 --isolation process
	status 0 hotcell pool set base --size 1 --prestarted 1
	eventually 120 pool_is_full 1
	eventually 120 pool_is shells 1
	status 0 hotcell create --name a
	status 0 hotcell create --name b
	same 'pool prestarted' "$(path_of a) $(path_of b)" "how they were made"
	eventually 120 pool_is_full 1
	for name in a b; do
		same "$name" "$(hotcell exec "$name" -- hostname)" "host name"
		hotcell exec "$name" -- sh -c 'cat /proc/sys/kernel/random/boot_id /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1' >>"$SCRATCH/values"
		hotcell code run "$name" 'import random; random.random()' >>"$SCRATCH/values"
	done
	same "" "$(sort "$SCRATCH/values" | uniq -d)" "values that two of them share"
	status 0 hotcell template build base
	eventually 120 pool_is_full 1
	status 0 hotcell create --name c
	same pool "$(path_of c)" "how c was made"
	status 0 hotcell pool rm base
	done_with
}

# As many copies as you like of one machine, and of copies: its disk's layers are merged in time.
test_many_copies() {
	hot
	status 0 hotcell create --name a
	n=$(size 8 40)
	for i in $(seq "$n"); do
		status 0 hotcell exec a -- sh -c "echo $i >>all; head -c 100000 /dev/urandom >data-$i; sha256sum data-$i >>sums"
		status 0 hotcell fork a --name "kid-$i"
		[ "$i" -lt 3 ] || status 0 hotcell rm "kid-$((i - 2))"
	done
	same "$n" "$(hotcell exec a -- sh -c 'wc -l <all')" "lines of the source"
	status 0 hotcell exec a -- sha256sum --quiet -c sums
	# what a copy has is what there was then
	status 0 hotcell exec "kid-$n" -- sha256sum --quiet -c sums
	# forks of forks
	last=a
	for i in $(seq "$n"); do
		status 0 hotcell fork "$last" --name "link-$i"
		status 0 hotcell rm "$last"
		last=link-$i
		status 0 hotcell exec "$last" -- sh -c "echo $i >>links"
	done
	same "$n" "$(hotcell exec "$last" -- sh -c 'wc -l <links')" "lines of the last fork"
	status 0 hotcell exec "$last" -- sha256sum --quiet -c sums
	# merged disks survive a pause and the daemon's death
	kill -KILL "$(pid_of hotcelld)"
	status 0 hotcell snapshot create "$last" --name here
	status 0 hotcell pause "$last"
	status 0 hotcell resume "$last"
	status 0 hotcell exec "$last" -- sha256sum --quiet -c sums
	status 0 hotcell rm --all
	status 0 hotcell create --snapshot here --name again
	status 0 hotcell exec again -- sha256sum --quiet -c sums
	status 0 hotcell snapshot rm here
	done_with
}

run_tests
