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
	refuses 2 'build, list, info, verify, rm' image bild
	refuses 2 'did you mean --json' doctor --jsn
	refuses 2 '"x"' doctor x
	refuses 4 'no vm pool of template nosuch' pool rm nosuch
	refuses 4 'no template nosuch' template build nosuch
	refuses 4 'no hot template nosuch' template rm nosuch
	refuses 4 'no hot template nosuch' template info nosuch
	refuses 2 'did you mean --memory' create --memroy 1G
	refuses 2 '--colour' create --colour red
	refuses 2 '--memory' create --memory lots
	refuses 2 '--memory' create --memory 12
	refuses 7 32768 create --memory 900T
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
	refuses 125 32768 exec box -- "$(printf '%040000d' 0)"
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
