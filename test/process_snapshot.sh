#!/bin/sh
# test/process_snapshot.sh - snapshots of process sandboxes have their files, all of them and nothing else
. "${0%/*}/suite.sh"
ISOLATION=process
TEST_SECONDS=$(size 240 1800)

setup() {
	need_root
}

# files SANDBOX FILE - what is there, as the sandbox sees it
files() {
	: >"$2"
	for user in root user; do
		status 0 hotcell exec --user $user "$1" -- python3 /tmp/kinds.py list
		cat "$OUT" >>"$2"
	done
	[ "$(grep -c . "$2")" -gt 1000 ] || fail "only $(grep -c . "$2") files found in $1"
}

# same_files A B - two such lists
same_files() {
	diff "$1" "$2" >"$SCRATCH/diff" || fail "not the same files:
$(head -c 4000 "$SCRATCH/diff")"
}

# set_of NAME - the folder of a snapshot
set_of() {
	hotcell snapshot info "$1" --json >"$SCRATCH/info"
	echo "$HOTCELL_STATE/snapshots/$(json "$SCRATCH/info" 'd["id"]')"
}

# As many files as the layer may hold: a copy has them all, and is bounded as well.
test_all_files_used() {
	box --disk 16M
	status 0 hotcell exec box -- python3 -c 'import os
n = 0
try:
    while True:
        open(str(n), "w").close(); n += 1
except OSError as e: print(n, e.errno)'
	used=$(cat "$OUT")
	[ "${used#* }" = 28 ] && [ "${used% *}" -gt 4000 ] || fail "files made, and the error then: $used"
	status 0 hotcell snapshot create box --name s
	status 0 hotcell create --snapshot s --name copy
	status 0 hotcell exec copy -c 'ls | wc -l'
	same "${used% *}" "$(cat "$OUT")" "files in the copy"
	status 1 hotcell exec copy -- python3 -c 'for n in range(200): open(f"more{n}", "w").close()'
	contains "$(cat "$ERR")" 'No space left'
	status 0 hotcell exec copy -c 'rm 1 2 3; touch again'
	# and a copy of the copy, which used what is free
	status 0 hotcell exec copy -c 'n=0; while touch "new$n" 2>/dev/null; do n=$((n + 1)); done; ls | wc -l'
	left=$(cat "$OUT")
	status 0 hotcell snapshot create copy --name s2
	status 0 hotcell create --snapshot s2 --name third
	status 0 hotcell exec third -c 'ls | wc -l'
	same "$left" "$(cat "$OUT")" "files in the third"
	done_with
}

test_every_kind_of_file() {
	box
	status 0 hotcell cp "$TOP/test/kinds.py" box:/tmp/kinds.py
	status 0 hotcell exec box -- python3 /tmp/kinds.py make
	status 0 hotcell exec --user root box -- python3 /tmp/kinds.py make
	files box "$SCRATCH/box"
	grep -q 'kinds/random' "$SCRATCH/box" || fail "kinds.py made nothing"
	! grep -q "'/etc/issue'" "$SCRATCH/box" || fail "kinds.py deleted nothing"
	[ "$(grep -c "'user.binary'" "$SCRATCH/box")" -ge 2 ] || fail "kinds.py set no attributes"
	[ "$(grep -c "'system.posix_acl_default'" "$SCRATCH/box")" -ge 2 ] || fail "kinds.py set no ACLs"
	status 0 hotcell snapshot create box --name s
	files box "$SCRATCH/after" # it runs on, as it was
	same_files "$SCRATCH/box" "$SCRATCH/after"
	status 0 hotcell create --snapshot s --name one
	files one "$SCRATCH/one"
	same_files "$SCRATCH/box" "$SCRATCH/one"
	# what changes in one changes nowhere else
	status 0 hotcell exec --user root one -c 'rm -r /root/kinds /home/user/kinds; echo new >/etc/issue'
	files box "$SCRATCH/after"
	same_files "$SCRATCH/box" "$SCRATCH/after"
	# of a clone, in the slot of another
	status 0 hotcell restore s --name two
	status 0 hotcell rm box one
	status 0 hotcell snapshot two --name s2
	status 0 hotcell restore s2 --name three
	files three "$SCRATCH/three"
	same_files "$SCRATCH/box" "$SCRATCH/three"
	done_with
}

test_a_new_sandbox() {
	box
	status 0 hotcell exec --detach box -- sleep 4321
	status 0 hotcell code run box 'x = 1'
	status 0 hotcell exec box -c 'echo mine >file; echo shared >/dev/shm/gone; echo kept >/tmp/kept'
	status 0 hotcell snapshot create box --name s
	status 0 hotcell create --snapshot s --name clone
	same process "$(hotcell info --json clone | python3 -c 'import json,sys; print(json.load(sys.stdin)["wall"])')" wall
	same mine "$(hotcell exec clone -- cat file)" "the file"
	same kept "$(hotcell exec clone -- cat /tmp/kept)" "the file in /tmp"
	status 1 hotcell exec clone -- test -e /dev/shm/gone
	status 1 hotcell exec clone -- pgrep -f 'sleep 4321'
	same clone "$(hotcell exec clone -- hostname)" "host name"
	[ "$(hotcell exec box -- cat /etc/machine-id)" != "$(hotcell exec clone -- cat /etc/machine-id)" ] ||
		fail "the same machine-id twice"
	status 0 hotcell code run clone 'print(6 * 7)'
	same 42 "$(cat "$OUT")" "code in the clone"
	# the source was not disturbed
	status 0 hotcell exec box -- pgrep -f 'sleep 4321'
	status 0 hotcell code run box 'print(x + 1)'
	same 2 "$(cat "$OUT")" "the context of the source"
	done_with
}

test_refusals() {
	box
	status 0 hotcell snapshot create box --name s
	for verb in "fork box" "pause box" "resume box" "rollback box s"; do
		# shellcheck disable=SC2086 # words
		refuses 9 'has no memory of its own to copy: hotcell snapshot create and hotcell create --snapshot clone' $verb
	done
	refuses 9 'files of a process sandbox' create --snapshot s --isolation vm
	refuses 2 'the snapshot has 256' create --snapshot s --disk 128M
	refuses 7 'disk: 256 MiB; the writable layer' create --snapshot s --memory 300M
	refuses 2 "the snapshot's is base" create --snapshot s --template python
	same running "$(hotcell info --json box | python3 -c 'import json,sys; print(json.load(sys.stdin)["state"])')" state
	status 0 hotcell exec box -- true
	status 0 hotcell create --snapshot s --isolation process --memory 1G --name other
	done_with
}

# A snapshot outlives its sandbox, the daemon and the keeper; a damaged or removed one is refused.
test_lives_on() {
	box
	status 0 hotcell exec box -c 'echo here >file'
	status 0 hotcell snapshot create box --name s
	status 0 hotcell exec box -c 'echo later >file'
	kill -KILL "$(pid_of hotcelld)"
	status 0 hotcell snapshot create box --name t # taken over
	host_end
	status 0 hotcell restore s --name one
	status 0 hotcell restore t --name two
	same "here later" "$(hotcell exec one -- cat file) $(hotcell exec two -- cat file)" "files"
	folder=$(set_of s)
	same "files manifest" "$(ls "$folder" | tr '\n' ' ' | sed 's/ $//')" "parts of the set"
	same 600 "$(stat -c %a "$folder/files")" "mode"
	status 0 hotcell snapshot rm s
	[ ! -e "$folder" ] || fail "the set is still there"
	refuses 4 'no snapshot s' restore s
	same here "$(hotcell exec one -- cat file)" "the file, without the snapshot"
	# one byte of a file's content, while nobody has it in memory
	folder=$(set_of t)
	status 0 hotcell rm --all
	host_end
	python3 - "$folder/files" <<'END'
import sys
with open(sys.argv[1], "r+b") as file:
    text = file.read()
    file.seek(text.rindex(b"later\n"))
    file.write(b"never\n")
END
	refuses 2 'archive of files is damaged' restore t
	status 0 hotcell snapshot rm t
	done_with
}

test_limits() {
	box --memory 256M --disk 64M
	status 0 hotcell exec box -c 'dd if=/dev/zero of=big bs=1M count=100 2>/dev/null; ls -l big >size; true'
	status 0 hotcell snapshot create box --name full # a disk that is full is copied as it is
	status 0 hotcell restore full --name clone
	same "$(hotcell exec box -- sha1sum big)" "$(hotcell exec clone -- sha1sum big)" "the file that filled it"
	status 0 hotcell rm clone
	# as deep as nobody should nest: refused, named, and nothing happened
	status 0 hotcell exec box -- python3 -c 'import os
os.truncate("big", 0)
os.chdir("/tmp")
for _ in range(400):
    os.mkdir("d")
    os.chdir("d")'
	before=$(hotcell snapshot list)
	refuses 7 'within one another' snapshot create box --name deep
	same "$before" "$(hotcell snapshot list)" "snapshots"
	status 0 hotcell exec box -- sh -c 'rm -r /tmp/d'
	status 0 hotcell snapshot create box --name again
	# more empty files than names fit beside
	status 0 hotcell exec box -- python3 -c 'import os
os.mkdir("many")
try:
    for n in range(100000):
        os.close(os.open("many/" + "n" * 240 + str(n), os.O_CREAT))
except OSError:
    pass
print(len(os.listdir("many")))'
	n=$(cat "$OUT")
	[ "$n" -gt 5000 ] || fail "only $n files"
	status 0 hotcell exec box -- sh -c 'rm big size'
	status 0 hotcell snapshot create box --name many
	status 0 hotcell restore many --name clone
	same "$n" "$(hotcell exec clone -- sh -c 'ls -f many | grep -c nnn')" "files"
	done_with
}

# Where the agent looks in a new sandbox, the old one's root may have left anything.
test_hostile_files() {
	box
	status 0 hotcell exec --user root box -c 'cd /etc; rm -f hosts passwd group /run/hotcell-machine-id
mkfifo hosts passwd /run/hotcell-machine-id; ln -s /dev/zero group; rm -rf /usr/bin/python3* /bin/sh; chmod 0 /run /root'
	status 0 hotcell snapshot create box --name s
	for n in 1 2; do
		status 0 timeout 60 hotcell restore s --name "clone$n"
		status 0 timeout 60 hotcell ps "clone$n"
		refuses 125 'not a regular file' exec "clone$n" -- true
	done
	status 0 hotcell create --isolation process --name other
	status 0 hotcell exec other -- true
	done_with
}

# The workload stands still while it is copied: what is written later can't be newer in the copy.
test_one_instant() {
	box
	status 0 hotcell exec --detach box -- python3 -c 'import os
late = os.open("late", os.O_WRONLY | os.O_CREAT)
with open("between", "wb") as file:
    file.write(os.urandom(40 << 20))
early = os.open("early", os.O_WRONLY | os.O_CREAT) # folders of a tmpfs are listed backwards: this is copied first
for n in range(10 ** 9):
    os.pwrite(early, b"%12d" % n, 0)
    os.pwrite(late, b"%12d" % n, 0)'
	eventually 20 hotcell exec box -- test -s late
	for round in $(seq "$(size 3 20)"); do
		status 0 hotcell snapshot create box --name s
		status 0 hotcell restore s --name "clone$round"
		# shellcheck disable=SC2016 # for the shell inside
		status 0 hotcell exec "clone$round" -c 'echo $(($(cat early) - $(cat late)))'
		case $(cat "$OUT") in
		0 | 1) ;;
		*) fail "$(cat "$OUT") steps between the first and the last file" ;;
		esac
		status 0 hotcell rm "clone$round"
		status 0 hotcell snapshot rm s
	done
	before=$(hotcell exec box -- cat early)
	eventually 10 sh -c "[ \$(hotcell exec box -- cat early) -gt $before ]"
	done_with
}

# kill_one KIND SANDBOX - daemon, keeper, or the sandbox itself
kill_one() {
	case $1 in
	sandbox) hotcell rm "$2" >/dev/null 2>&1 || true ;;
	*) kill -KILL "$(pid_of "$1")" ;;
	esac
}

# later N - a moment, other for every N
later() {
	sleep "$(printf '0.%03d' $(($1 * 37 % 150)))"
}

# Whoever ends while files are copied or written: the snapshot is whole, or there is none.
test_ends_meanwhile() {
	host
	for round in $(seq "$(size 6 60)"); do
		case $((round % 3)) in 0) victim=sandbox ;; 1) victim=hotcelld ;; 2) victim=hotcell-keeper ;; esac
		status 0 hotcell create --isolation process --name box --memory 512M
		status 0 hotcell exec box -c 'head -c 60M /dev/urandom >big; sha1sum big'
		cp "$OUT" "$SCRATCH/sum"
		hotcell snapshot create box --name s >"$SCRATCH/said" 2>&1 &
		snapshot=$!
		later "$round"
		kill_one $victim box
		wait $snapshot || true
		status 0 hotcell list
		if [ $victim = hotcelld ]; then # frozen or not when the daemon died
			status 0 hotcell exec box -- true
		fi
		if hotcell restore s --name clone --memory 512M >/dev/null 2>&1; then
			same "$(cat "$SCRATCH/sum")" "$(hotcell exec clone -- sha1sum big)" "the file of the clone, round $round"
		fi
		status 0 hotcell rm --all
		hotcell snapshot rm s >/dev/null 2>&1 || true
		same "" "$(ls "$HOTCELL_STATE/snapshots" 2>/dev/null)" "parts of snapshots, round $round"
	done
	no_traces
}

# Whoever ends while a sandbox is made from one: it is whole, or nothing of it is left.
test_ends_while_starting() {
	box --memory 512M
	status 0 hotcell exec box -c 'head -c 60M /dev/urandom >big; sha1sum big'
	cp "$OUT" "$SCRATCH/sum"
	status 0 hotcell snapshot create box --name s
	for round in $(seq "$(size 4 40)"); do
		case $((round % 2)) in 0) victim=hotcelld ;; 1) victim=hotcell-keeper ;; esac
		hotcell restore s --name clone --memory 512M >"$SCRATCH/said" 2>&1 &
		restore=$!
		later "$round"
		kill_one $victim clone
		wait $restore || true
		status 0 hotcell list
		if hotcell exec clone -- sha1sum big >"$SCRATCH/sum2" 2>/dev/null; then
			same "$(cat "$SCRATCH/sum")" "$(cat "$SCRATCH/sum2")" "the file of the clone, round $round"
		fi
		status 0 hotcell rm --all
		no_traces
	done
	status 0 hotcell restore s --name clone --memory 512M
	same "$(cat "$SCRATCH/sum")" "$(hotcell exec clone -- sha1sum big)" "the file of the last clone"
	done_with
}

run_tests
