#!/bin/sh
# test/process_hostile.sh - bad input of every kind: one clear sentence, and nothing is lost
. "${0%/*}/suite.sh"
ISOLATION=process
TEST_SECONDS=$(size 120 900)

setup() {
	need_root
}

# What a person mistypes, with what the sentence must name and the exit status of its kind of error.
test_mistakes() {
	box
	refuses 2 "did you mean 'list'" lisst
	refuses 2 frobnicate frobnicate
	refuses 2 "did you mean 'image'" help imag
	refuses 2 "did you mean 'build'" template buld base
	refuses 2 "did you mean 'create'" snapshot creat box
	refuses 2 "did you mean 'set'" pool st base
	refuses 125 "did you mean 'run'" code rn box 1
	refuses 2 'build, recipes, list, info, verify, rm' image bild
	refuses 2 'did you mean --json' doctor --jsn
	refuses 2 '"x"' doctor x
	refuses 4 'no vm pool of template nosuch' pool rm nosuch
	refuses 4 'no recipe nosuch; there are: base' template build nosuch
	refuses 4 'no hot template nosuch' template rm nosuch
	refuses 4 'no hot template nosuch' template info nosuch
	refuses 2 'did you mean --memory' create --memroy 1G
	refuses 2 '--colour' create --colour red
	refuses 2 '--memory' create --memory lots
	refuses 2 '--memory' create --memory 12
	refuses 7 32G create --memory 900T
	refuses 7 '--memory' create --memory 99999999999999999999G
	refuses 2 '--memory: needs a value' create --memory
	refuses 2 '--json takes no value' list --json=yes
	refuses 7 '32' create --cpus 33
	refuses 2 '--cpus' create --cpus -1
	refuses 2 '--cpus' create --cpus 1x
	refuses 7 '32768' create --pids 40000
	refuses 7 '--disk' create --disk 2000000G
	refuses 2 '--lifetime' create --lifetime soon
	refuses 7 '--lifetime' create --lifetime 400d
	refuses 2 'vm, process' create --isolation wishful
	refuses 2 '--name' create --name ../etc
	refuses 2 '--name' create --name "$(printf 'a\nb')"
	refuses 7 '64' create --name "$(printf '%065d' 0)"
	refuses 2 '--meta' create --meta novalue
	refuses 4 nowhere create --isolation process --template nowhere
	refuses 2 'image is named' create --isolation process --template ../../etc
	refuses 5 box create --isolation process --name box
	refuses 2 unenforced create --isolation process --unenforced everything
	refuses 4 ghost rm ghost
	refuses 4 ghost info ghost
	refuses 2 'say --all' rm
	refuses 4 /nothing cp box:/nothing "$SCRATCH/x"
	refuses 2 SANDBOX cp a b
	refuses 2 'both sides' cp box:a box:b
	refuses 7 4096 cp "$TOP/meson.build" "box:$(printf '%05000d' 0)"
	refuses 125 SESSION attach box first
	refuses 4 9999 signal box 9999 TERM
	refuses 2 NOSUCH signal box 1 NOSUCH
	refuses 2 70000 port box 70000
	refuses 125 terminal shell box
	refuses 125 '--timeout' exec --timeout 2d box -- true
	refuses 125 '--timeout' run --isolation process --timeout never -- true
	refuses 125 PROGRAM run --isolation process
	refuses 125 '--env' exec --env =x box -- true
	# a file that is not one
	mkfifo "$SCRATCH/pipe"
	mkdir "$SCRATCH/folder"
	refuses 4 missing cp "$SCRATCH/missing" box:/tmp/
	status 0 hotcell cp "$SCRATCH/folder" box:/tmp/
	status 0 hotcell exec box -- true
	# nothing was made
	same 1 "$(hotcell list --json | wc -l)" "sandboxes"
	done_with
}

# absurd VERB... - each number, size and time it takes refuses what is none, or too much, by the flag's name
absurd() {
	operand=$1
	shift
	for flag in $(hotcell help "$1" | sed -nE 's/^.* (--[a-z-]+) (N|SIZE|TIME|SEQ) .*/\1/p'); do
		flags=$((flags + 1))
		for value in -1 1x 1e3 +5 0x10 '' ' 5' 99999999999999999999 18446744073709551615; do
			case $flag$value in # every number of 64 bits may name one of these
			--context1844* | --after1844*) continue ;;
			esac
			got=0
			timeout 20 hotcell "$@" "$flag" "$value" "$operand" >"$SCRATCH/out" 2>"$SCRATCH/err" || got=$?
			case $got in
			2 | 7 | 125) ;;
			*) fail "$* $flag '$value' ends with $got: $(cat "$SCRATCH/out" "$SCRATCH/err")" ;;
			esac
			same 1 "$(grep -c . "$SCRATCH/err")" "lines of $* $flag '$value'"
			contains "$(cat "$SCRATCH/err")" "$flag"
		done
	done
}

test_absurd_numbers() {
	mkdir -p "$SCRATCH/state" "$SCRATCH/run"
	export HOTCELL_STATE="$SCRATCH/state" HOTCELL_RUN="$SCRATCH/run"
	flags=0
	for verb in run create exec shell attach fork restore events; do
		absurd x "$verb"
	done
	absurd x code run
	absurd x snapshot create
	absurd x template build
	absurd x pool set
	[ $flags -ge 30 ] || fail "only $flags flags take numbers?"
	[ ! -e "$HOTCELL_RUN/hotcelld.sock" ] || fail "a daemon was started for nonsense"
}

# No room at either end of a copy: the sentence says where, nothing half is left, and there is room again.
test_full_copies() {
	box --disk 64M
	head -c 100M /dev/zero >"$SCRATCH/big"
	mkdir "$SCRATCH/tree" "$SCRATCH/small"
	ln "$SCRATCH/big" "$SCRATCH/tree/a"
	refuses 7 "the sandbox's disk for '/home/user/big'" cp "$SCRATCH/big" box:big
	refuses 7 "the sandbox's disk for '/home/user/tree/a'" cp "$SCRATCH/tree" box:tree
	says 0 '' -- find . -name 'big*' -o -path './tree/*'
	says 0 '' -- sh -c 'head -c 32M /dev/zero >fits'
	mount -t tmpfs -o size=1m tmpfs "$SCRATCH/small"
	refuses 7 'fits: write: No space left' cp box:fits "$SCRATCH/small/"
	same '' "$(ls -A "$SCRATCH/small")" "what is left of a file that did not fit"
	status 0 hotcell cp box:.profile "$SCRATCH/small/"
	umount "$SCRATCH/small"
	done_with
}

# The same words as JSON: a document on standard output for programs.
test_mistakes_in_json() {
	host
	status 4 hotcell info --json ghost
	same not_found "$(json "$OUT" 'd["error"]')" "code"
	contains "$(json "$OUT" 'd["message"]')" ghost
	no_traces
}

test_hostile_clients() {
	box
	status 0 python3 "$TOP/test/hostile.py"
	cat "$OUT"
	says 0 'still here' -- echo still here
	done_with
}

# Logs don't grow for ever: what a full one holds moves to a second file, and both processes go on.
test_logs_are_bounded() {
	box
	for log in hotcelld keeper; do
		head -c 8388000 /dev/zero | tr '\0' x >>"$HOTCELL_RUN/$log.log"
		echo >>"$HOTCELL_RUN/$log.log"
	done
	for n in 1 2 3 4; do
		status 0 hotcell run --isolation process -- true
	done
	for log in hotcelld keeper; do
		new=$(stat -c %s "$HOTCELL_RUN/$log.log") old=$(stat -c %s "$HOTCELL_RUN/$log.log.1")
		{ [ "$new" -gt 0 ] && [ "$new" -lt 100000 ]; } || fail "$log.log has $new bytes"
		{ [ "$old" -gt 8388000 ] && [ "$old" -le 8388608 ]; } || fail "$log.log.1 has $old bytes"
		grep -q 'event=' "$HOTCELL_RUN/$log.log" || fail "nothing new is in $log.log"
	done
	done_with
}

# Whoever takes over the daemon has little: no other files, no programs, no namespaces, no sockets.
test_daemon_is_confined() {
	box
	pid=$(pid_of hotcelld)
	for task in /proc/"$pid"/task/*; do
		same 1 "$(sed -n 's/^NoNewPrivs:[[:space:]]*//p' "$task/status")" "no_new_privs"
		same 2 "$(sed -n 's/^Seccomp:[[:space:]]*//p' "$task/status")" "mode of the system call filter"
		same 2 "$(sed -n 's/^Seccomp_filters:[[:space:]]*//p' "$task/status")" "filters"
	done
	status 0 hotcell doctor --json
	case $(json "$OUT" '[x["found"] for x in d["checks"] if x["name"] == "landlock"][0]') in
	"ABI 1" | not*) skip "this kernel's Landlock does not do" ;;
	esac
	status 0 python3 "$TOP/test/inside.py" "$pid" "$HOTCELL_STATE" "$HOTCELL_RUN"
	cat "$OUT"
	! grep -q ^OPEN "$OUT" || fail "something is open (above)"
	[ "$(sed -n 's/^tried //p' "$OUT")" -gt 30 ] || fail "inside.py did not try everything"
	same "$pid" "$(pid_of hotcelld)" "the daemon"
	says 0 'still here' -- echo still here
	done_with
}

# Who connects and says nothing has a place for a while, and is then no reason to turn others away.
test_silent_clients() {
	host
	status 0 hotcell list
	python3 -c 'import socket, sys, time
held = []
for _ in range(600):
    held.append(socket.socket(socket.AF_UNIX))
    held[-1].connect(sys.argv[1])
print("held", flush=True)
held[0].recv(1) # its end: then all have ended, or will in a moment
print("let go", flush=True)
time.sleep(1000)' "$HOTCELL_RUN/hotcelld.sock" >"$SCRATCH/held" &
	eventually 20 grep -q held "$SCRATCH/held"
	eventually 30 timeout 5 hotcell list
	eventually 30 grep -q 'let go' "$SCRATCH/held"
	status 0 hotcell list
	no_traces
}

# Before it says a word, a client looks who listens.
test_false_daemon() {
	host
	setpriv --reuid 65534 --regid 65534 --clear-groups /usr/bin/python3 -c 'import os, socket
s = socket.socket(socket.AF_UNIX)
s.bind("/tmp/.hotcell-false-%d" % os.getpid())
os.chmod(s.getsockname(), 0o666)
s.listen()
print(s.getsockname(), flush=True)
c, _ = s.accept()
print("heard", len(c.recv(100)), flush=True)' >"$SCRATCH/false" &
	eventually 20 grep -q tmp "$SCRATCH/false"
	name=$(head -n 1 "$SCRATCH/false")
	mv "$name" "$HOTCELL_RUN/hotcelld.sock"
	refuses 6 'user 65534 listens' list
	eventually 10 grep -q heard "$SCRATCH/false"
	same 'heard 0' "$(tail -n 1 "$SCRATCH/false")" "what the false daemon heard"
	rm "$HOTCELL_RUN/hotcelld.sock"
	status 0 hotcell list
	no_traces
}

# turned_away WORDS... - no daemon starts, and the one sentence has these words
turned_away() {
	ERR=$SCRATCH/err
	! hotcell list 2>"$ERR" || fail "hotcell list succeeded"
	same 1 "$(grep -c . "$ERR")" "lines on standard error: $(cat "$ERR")"
	for words; do
		contains "$(cat "$ERR")" "$words"
	done
	eventually 10 no_keeper
}

no_keeper() {
	[ -z "$(pid_of hotcell-keeper)" ]
}

# Root keeps nothing where somebody else could exchange it, and changes nothing through a link.
test_foreign_directories() {
	host
	for variable in STATE RUN; do
		eval "dir=\$HOTCELL_$variable"
		chown 65534 "$dir"
		turned_away "$dir belongs to user 65534" "chown -h 0 $dir" "HOTCELL_$variable"
		chown 0 "$dir"
		chmod 775 "$dir"
		turned_away "chmod go-w $dir"
		chmod 755 "$dir"
	done
	mkdir "$SCRATCH/victim"
	chmod 711 "$SCRATCH/victim"
	ln -s "$SCRATCH/victim" "$HOTCELL_STATE/db"
	turned_away "$HOTCELL_STATE/db"
	same '711 0' "$(stat -c '%a %u' "$SCRATCH/victim")" "mode and owner of what the link leads to"
	rm "$HOTCELL_STATE/db"
	ln -s "$SCRATCH/victim" "$SCRATCH/link"
	chown -h 65534 "$SCRATCH/link"
	HOTCELL_STATE=$SCRATCH/link turned_away 'belongs to user 65534'
	same '' "$(ls "$SCRATCH/victim")" "what was made there"
	umount "$HOTCELL_STATE/images"
	chown 65534 "$HOTCELL_STATE/images"
	status 0 hotcell doctor --json
	contains "$(cat "$OUT")" 'images belongs to user 65534'
	chown 0 "$HOTCELL_STATE/images"
	status 0 hotcell list
}

test_any_umask() {
	host
	rmdir "$HOTCELL_RUN"
	(
		umask 777
		status 0 hotcell run --isolation process -- true
	)
	same 755 "$(stat -c %a "$HOTCELL_RUN")" "mode of the run directory"
	same 700 "$(stat -c %a "$HOTCELL_STATE/db")" "mode of the database's folder"
	no_traces
}

test_any_umask_of_a_user() {
	chmod 755 "$SCRATCH"
	mkdir "$SCRATCH/user"
	chown 65534 "$SCRATCH/user"
	export HOTCELL_STATE="$SCRATCH/user/state" HOTCELL_RUN="$SCRATCH/user/run"
	(
		umask 777
		status 0 setpriv --reuid 65534 --regid 65534 --clear-groups hotcell list
	)
	same '700 65534' "$(stat -c '%a %u' "$HOTCELL_RUN")" "mode and owner of the run directory"
	same 65534 "$(awk '/^Uid:/ { print $2 }' "/proc/$(pid_of hotcelld)/status")" "who runs the daemon"
}

# A daemon that can't start says why, and the keeper it had started ends with it.
test_failed_start() {
	host
	mkdir -p "$HOTCELL_STATE/db"
	echo nonsense >"$HOTCELL_STATE/db/run.db"
	turned_away run.db
	grep -q 'ended before it served' "$HOTCELL_RUN/keeper.log" || fail "the keeper's log does not say why it ended"
	rm -r "$HOTCELL_STATE/db"
	rm "$HOTCELL_RUN/keeper.lock"
	mkdir "$HOTCELL_RUN/keeper.lock" # and a keeper that can't
	turned_away keeper.lock
	rmdir "$HOTCELL_RUN/keeper.lock"
	status 0 hotcell list
	status 0 hotcell run --isolation process -- true
	no_traces
}

# Somebody else's user may not even connect.
test_strangers() {
	host
	status 0 hotcell list
	status 6 setpriv --reuid 65534 --regid 65534 --clear-groups env HOTCELL_STATE="$SCRATCH/elsewhere" hotcell list
	same 1 "$(grep -c . "$ERR")" "lines on standard error"
	same 600 "$(stat -c %a "$HOTCELL_RUN/hotcelld.sock")" "mode of the socket"
	no_traces
}

test_no_image() {
	mkdir -p "$SCRATCH/state" "$SCRATCH/run"
	export HOTCELL_STATE="$SCRATCH/state" HOTCELL_RUN="$SCRATCH/run"
	chmod 755 "$SCRATCH"
	for isolation in process vm; do
		refuses 4 'hotcell image build' create --isolation $isolation
	done
	no_traces
}

# What happens with an image that is not what was built.
damaged() { # FUNCTION STATUS
	host
	umount "$HOTCELL_STATE/images"
	mkdir "$SCRATCH/upper" "$SCRATCH/work"
	mount -t overlay -o "lowerdir=$TEMPLATE_STATE/images,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work" overlay "$HOTCELL_STATE/images"
	for image in "$HOTCELL_STATE"/images/base@*; do
		"$1" "$image"
	done
	refuses "$2" base create --isolation vm
	status 0 hotcell list
	no_traces
}

cut_root() { truncate -s 4096 "$1/root.ext4"; }
cut_manifest() { truncate -s 40 "$1/manifest"; }
no_root() { rm "$1/root.ext4"; }
test_damaged_root() { damaged cut_root 2; }
test_damaged_manifest() { damaged cut_manifest 2; }
test_missing_root() { damaged no_root 4; }

test_no_qemu() {
	export HOTCELL_QEMU="$SCRATCH/no-qemu"
	host
	refuses 9 qemu create --isolation vm
	contains "$(cat "$ERR")" "$HOTCELL_QEMU: No such file"
	status 0 hotcell run --isolation process -- echo fine
	status 0 hotcell doctor
	no_traces
}

test_broken_qemu() {
	printf '#!/bin/sh\necho "QEMU emulator version 1.0"\n' >"$SCRATCH/old-qemu"
	chmod 755 "$SCRATCH/old-qemu"
	export HOTCELL_QEMU="$SCRATCH/old-qemu"
	host
	refuses 9 qemu create --isolation vm
	status 0 hotcell run --isolation process -- echo fine
	no_traces
}

# KVM that opens and is of no use is not used, and the reply says which wall stands.
test_kvm_is_measured() {
	host
	status 0 hotcell doctor --json
	[ -e /dev/kvm ] || skip "there is no /dev/kvm"
	kvm=$(json "$OUT" 'next(c["status"] for c in d["checks"] if c["name"] == "kvm")')
	[ "$kvm" != ok ] || skip "KVM is usable here"
	json "$OUT" 'next(c["found"] for c in d["checks"] if c["name"] == "kvm")' | grep -qE 'measured|opened|permission' ||
		fail "doctor doesn't say why KVM is $kvm: $(cat "$OUT")"
	contains "$(hotcell doctor)" vm-emulated
}

# No room for the daemon's own records and disks.
test_full_state() {
	mkdir -p "$SCRATCH/state"
	mount -t tmpfs -o size=16m,mode=755 tmpfs "$SCRATCH/state"
	host
	status 0 hotcell create --isolation process --name before
	dd if=/dev/zero of="$HOTCELL_STATE/filler" bs=64k 2>/dev/null || true
	refuses 7 'full' create --isolation vm
	for n in 1 2 3; do
		timeout 30 hotcell create --isolation process --name "full$n" >"$SCRATCH/out" 2>"$SCRATCH/err" || {
			got=$?
			[ $got -ne 124 ] || fail "create hangs on a full disk"
			same 1 "$(grep -c . "$SCRATCH/err")" "lines: $(cat "$SCRATCH/err")"
		}
	done
	status 0 hotcell exec before -- echo alive
	status 0 hotcell list
	rm "$HOTCELL_STATE/filler"
	status 0 timeout 30 hotcell create --isolation process --name after
	status 0 hotcell exec after -- true
	done_with
}

run_tests
