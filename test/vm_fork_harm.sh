#!/bin/sh
# test/vm_fork_harm.sh - copies of machines, and what may go wrong with them: full disks, damaged sets, hostile children
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 240 7200)

setup() {
	need_root
	need_program qemu-system-x86_64
}

hot() {
	host
	status 0 hotcell template build base
}

# set_id KIND [NAME] - of the only one, or of that name
set_id() {
	hotcell "$1" list --json | python3 -c 'import json, sys
found = [d["id"] for d in map(json.loads, sys.stdin) if len(sys.argv) < 2 or d.get("name") == sys.argv[1]]
(one,) = found
print(one)' ${2:+"$2"}
}

# ---- hostile children ----

# What everybody starts from: the files of the set, and the template's image below them.
sums() {
	(cd "$HOTCELL_STATE/snapshots/$id" && sha256sum ./*)
	python3 - "$(pid_of hotcelld)" <<'END_OF_PROGRAM'
import hashlib, os, sys
folder = f"/proc/{sys.argv[1]}/fd"
for name in sorted(os.listdir(folder), key=int):
    if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
        with open(f"{folder}/{name}", "rb") as f:
            print(hashlib.file_digest(f, "sha256").hexdigest(), "hot")
END_OF_PROGRAM
	[ -z "$FULL" ] || sha256sum "$(find "$HOTCELL_STATE/images/" -name 'root*' -type f -size +1M | head -n 1)"
}

# A child changes nothing of its template: from inside, with its kernel's rights, or as its own QEMU.
test_hostile_child() {
	hot
	id=$(set_id template)
	status 0 hotcell create --name sibling
	status 0 hotcell exec sibling -- sh -c 'sha256sum /usr/bin/python3 /etc/passwd'
	files=$(cat "$OUT")
	sums | sort >"$SCRATCH/before"
	same "$(size 6 7)" "$(wc -l <"$SCRATCH/before")" "things compared: $(cat "$SCRATCH/before")"
	status 0 hotcell create --name wild
	pid=$(hotcell info --json wild | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
	status 0 python3 "$TOP/test/fork_writes.py" "$pid"
	contains "$(cat "$OUT")" 'layer ram'
	hotcell cp "$TOP/test/fork_hostile.py" wild:/tmp/hostile.py
	status 0 hotcell exec --user root wild -- python3 /tmp/hostile.py "$(size 1 10)"
	same 'wrote /dev/vdb' "$(tail -n 1 "$OUT")" "disks it could write to"
	sums | sort >"$SCRATCH/after"
	same "$(cat "$SCRATCH/before")" "$(cat "$SCRATCH/after")" "what a template is made of"
	status 0 hotcell exec sibling -- sh -c 'echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sha256sum /usr/bin/python3 /etc/passwd'
	same "$files" "$(cat "$OUT")" "files of a sibling"
	status 0 hotcell create --name next
	status 0 hotcell exec next -- python3 -c 'import json'
	done_with
}

# of_others SANDBOX... - sums of all snapshots, and of what these have but the layers that they write themselves
of_others() {
	python3 - "$HOTCELL_STATE" "$@" <<'END_OF_PROGRAM'
import hashlib, json, os, subprocess, sys
state, names = sys.argv[1], sys.argv[2:]


def digest(path):
    """Of its length and its data; its holes take too long."""
    sum_ = hashlib.sha256(b"%d" % os.path.getsize(path))
    with open(path, "rb", buffering=0) as f:
        at = 0
        while True:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return sum_.hexdigest()
            end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            while at < end:
                piece = os.pread(f.fileno(), min(end - at, 1 << 20), at)
                sum_.update(b"%d" % at + piece)
                at += len(piece)


paths = []
for name in names:
    folder = f"{state}/sandboxes/" + json.loads(subprocess.check_output(["hotcell", "info", "--json", name]))["id"]
    layers = sorted(n for n in os.listdir(folder) if n.startswith("layer-"))
    paths += [f"{folder}/{n}" for n in layers[:-1]]
for folder, _, files in sorted(os.walk(f"{state}/snapshots")):
    paths += [f"{folder}/{n}" for n in sorted(files)]
for path in paths:
    print(digest(path), path[len(state):])
END_OF_PROGRAM
}

# A QEMU that is taken over after it was copied has the old layers of its disk open for writing, and nobody else has them.
test_old_descriptors() {
	hot
	status 0 hotcell create --name wild
	status 0 hotcell exec wild -- sh -c 'head -c 3000000 /dev/urandom >data; sha256sum data; sync'
	data=$(cat "$OUT")
	status 0 hotcell fork wild --count 2 --name kid
	status 0 hotcell exec wild -- sh -c 'echo more >more; sync'
	status 0 hotcell snapshot create wild --name s
	of_others kid-1 kid-2 >"$SCRATCH/before"
	contains "$(cat "$SCRATCH/before")" layer-2
	pid=$(hotcell info --json wild | python3 -c 'import json, sys; print(json.load(sys.stdin)["pid"])')
	status 0 python3 "$TOP/test/fork_writes.py" "$pid" old
	same '2 spoiled' "$(cat "$OUT")" "layers it wrote to before"
	of_others kid-1 kid-2 >"$SCRATCH/after"
	same "$(cat "$SCRATCH/before")" "$(cat "$SCRATCH/after")" "what others have of it"
	for kid in kid-1 kid-2; do
		status 0 hotcell exec $kid -- sh -c 'echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sha256sum data'
		same "$data" "$(cat "$OUT")" "file of $kid"
	done
	status 0 hotcell rm wild
	status 0 hotcell restore s --name again
	status 0 hotcell exec again -- sh -c 'echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sha256sum data; cat more'
	same "$data
more" "$(cat "$OUT")" "files of the snapshot"
	# one that was copied goes on by itself
	status 0 hotcell fork kid-1 --name grandkid
	status 0 hotcell pause kid-1
	status 0 hotcell resume kid-1
	for kid in kid-1 grandkid; do
		status 0 hotcell exec $kid -- sh -c 'echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sha256sum data'
		same "$data" "$(cat "$OUT")" "file of $kid"
	done
	done_with
}

# ---- a full disk ----

# small_host MIB - a host whose state directory has so much room
small_host() {
	mkdir "$SCRATCH/state"
	mount -t tmpfs -o "size=${1}m,mode=755" small "$SCRATCH/state"
	hot
}

# room KIB - so much is left, and no more
room() {
	rm -f "$HOTCELL_STATE/ballast"
	left=$(df --output=avail -k "$HOTCELL_STATE" | tail -n 1)
	[ "$left" -le "$1" ] || fallocate -l $(((left - $1) * 1024)) "$HOTCELL_STATE/ballast"
}

# The program in src that counts goes on, and nothing of what failed is left.
src_runs_on() {
	said=$(hotcell exec src -- cat /dev/shm/count)
	eventually 30 sh -c "[ \$(hotcell exec src -- cat /dev/shm/count) -gt $said ]"
	same "" "$(find "$HOTCELL_STATE/snapshots" "$HOTCELL_STATE/sandboxes" -name '*.new' -o -name '*.old')" "half made"
	same 2 "$(find "$HOTCELL_STATE/snapshots" -mindepth 1 -maxdepth 1 | wc -l)" "sets: the template's and first"
}

# patient STATUS COMMAND... - a workload that did not freeze in time is asked again: this host may be busy
patient() {
	wanted=$1
	shift
	for i in $(seq 20); do
		got=0
		"$@" >"$SCRATCH/out" 2>"$SCRATCH/err" || got=$?
		[ $got = 15 ] || break
		sleep 0.2
	done
	OUT=$SCRATCH/out ERR=$SCRATCH/err
	[ $got = "$wanted" ] || fail "exit status $got, wanted $wanted: $* ($i tries): $(cat "$ERR")"
}

# is_full VERB... - fails, since the disk is full, and says so
is_full() {
	patient 7 timeout 60 hotcell "$@"
	contains "$(tail -n 1 "$ERR")" "full"
}

# With any room at all the source runs on. Without, a machine that writes waits for some, and loses nothing.
test_full_disk() {
	small_host 400
	status 0 hotcell create --name src
	status 0 hotcell exec --detach src -c 'n=0; while :; do n=$((n + 1)); echo $n >/dev/shm/new; mv /dev/shm/new /dev/shm/count; sleep 0.02; done'
	patient 0 hotcell snapshot create src --name first
	for kib in $(size 1000 "500 1000 1500"); do
		room "$kib"
		for verb in "snapshot create src --name s" "pause src" "template build base"; do
			# shellcheck disable=SC2086 # words
			is_full $verb
			src_runs_on
		done
	done
	for kib in $(size 0 "0 16 64 150 200 300 1000"); do
		room "$kib"
		is_full snapshot create src --name s
		is_full template build base
		if [ "$kib" = 0 ]; then
			is_full fork src
			is_full rollback src first
		fi
		rm "$HOTCELL_STATE/ballast"
		src_runs_on
	done
	patient 0 hotcell snapshot create src --name s
	status 0 hotcell snapshot rm s
	patient 0 hotcell pause src
	status 0 hotcell resume src
	src_runs_on
	status 0 hotcell rollback src first
	src_runs_on
	done_with
}

# ---- damaged sets ----

daemon_dies() {
	pid=$(pid_of hotcelld)
	[ -z "$pid" ] || kill -KILL "$pid"
}

# damaged FILE HOW STATUS WORDS [disk] - the set s is refused; disk: and its disk is still good for a start
damaged() {
	folder=$HOTCELL_STATE/snapshots/$id
	cp -a "$folder" "$SCRATCH/whole"
	rm -r "$folder" # what it shares with others is not to be damaged
	cp -a "$SCRATCH/whole" "$folder"
	cp -p "$HOTCELL_STATE/db/node.key" "$SCRATCH/key"
	case $1 in
	node.key) printf '%32s' 'another host' >"$HOTCELL_STATE/db/node.key" ;;
	*) python3 "$TOP/test/fork_damage.py" "$folder" "$HOTCELL_STATE/snapshots/$other" "$SCRATCH/key" "$1" "$2" ;;
	esac
	case $1 in
	manifest | node.key) daemon_dies ;; # read when it starts
	esac
	refuses "$3" "$4" restore "$id" --name broken
	same 1 "$(wc -l <"$ERR")" "lines of: $(cat "$ERR")"
	contains "$(hotcell snapshot list --json)" "$id"
	if [ "${5:-}" ]; then
		contains "$(cat "$ERR")" disk-only
		if [ "$FULL" ] || [ "$1 $2" = "state other" ]; then
			status 0 hotcell restore "$id" --disk-only --name b
			same mine "$(hotcell exec b -- cat mark)" "file on the disk"
			status 0 hotcell rm b
		fi
	else
		contains "$(cat "$ERR")" "hotcell snapshot rm $id"
		refuses "$3" "$4" restore "$id" --disk-only --name broken
	fi
	if [ "$FULL" ] || [ "$1 $2" = "manifest flip" ] || [ "$1 $2" = "layer-1 cut" ]; then
		status 0 hotcell snapshot rm "$id"
		[ ! -e "$folder" ] || fail "$folder is still there"
		daemon_dies
	fi
	rm -rf "$folder"
	cp -a "$SCRATCH/whole" "$folder"
	cp -p "$SCRATCH/key" "$HOTCELL_STATE/db/node.key"
	rm -rf "$SCRATCH/whole"
	case $1 in
	manifest | node.key) daemon_dies ;;
	esac
}

test_damage() {
	hot
	for name in other s; do
		status 0 hotcell create --name "of-$name"
		status 0 hotcell exec "of-$name" -- sh -c "echo mine >mark; head -c 3000000 /dev/urandom >data-$name; sync"
		status 0 hotcell snapshot create "of-$name" --name "$name"
	done
	id=$(set_id snapshot s)
	other=$(set_id snapshot other)
	status 0 hotcell rm --all
	daemon_dies # what is hot needs no file
	damaged manifest flip 6 'another installation or changed'
	damaged manifest cut 2 'manifest is damaged'
	damaged manifest longer 2 'manifest is damaged'
	damaged manifest missing 2 'manifest is damaged: it is missing'
	damaged manifest other 2 'that of another snapshot'
	damaged manifest id 2 'that of another snapshot'
	damaged manifest format 9 'it has format 99'
	damaged manifest closure 9 'made by another QEMU' disk
	damaged node.key - 6 'made on another installation'
	for how in $(size "cut other" "flip cut longer missing other"); do
		case $how in missing) is=missing ;; *) is=damaged ;; esac
		damaged memory $how 2 "memory is $is" disk
		damaged state $how 2 "state is $is" disk
		damaged layer-1 $how 2 "layer-1 is $is"
		[ $how = other ] || damaged layer-0 $how 2 "layer-0 is $is" # the template's, in both
		[ $how = other ] || damaged base $how 2 "base is $is" disk  # so is this one
	done
	damaged base foreign 2 'base is damaged' disk
	# and whole again, whatever becomes of the template
	status 0 hotcell template rm base
	status 0 hotcell restore "$id" --name again
	same mine "$(hotcell exec again -- cat mark)" "file on the disk"
	status 0 hotcell exec again -- test -e data-s
	done_with
}

run_tests
