# shellcheck shell=sh
# test/lib.sh - what black-box test scripts share; see test/README.md
#
# A script sources this file, defines functions named test_..., and ends with
# `run_tests [file sourced too...]`. Each test runs in a process of its own, with a time limit, under
# `set -eu`, and everything it started or made is gone afterwards or it fails.

TOP=$(cd "$(dirname "$0")/.." && pwd)
BUILD=${HOTCELL_BUILD:-$TOP/build}
TEMPLATE_STATE=${HOTCELL_TEST_STATE:-$BUILD/test-state}
TEST_SECONDS=${TEST_SECONDS:-120}
PATH=$BUILD/src/bin:$PATH
export TOP BUILD TEMPLATE_STATE PATH
# Nothing that happens to be set where this runs may make a test pass, or fail.
for variable in $(env | sed -n 's/^\([A-Za-z_][A-Za-z_0-9]*\)=.*/\1/p'); do
	case $variable in
	HOTCELL_STATE | HOTCELL_RUN) unset "$variable" ;;
	HOTCELL_* | TEST* | TOP | BUILD | PATH | CYCLES | FORKS | COUNT | TEMPLATE* | *_proxy | *_PROXY) ;;
	*) unset "$variable" ;;
	esac
done
export HOTCELL_HEAT=no # what a test did not ask for does not run beside it
SKIPPED=77
LENT="images kernels initrds closures" # of a state directory: the parts that tests share

# ---- saying what happened ----

# skip REASON - this test can't run here
skip() {
	echo "skip: $*"
	exit $SKIPPED
}

# fail WORDS - this test found something wrong
fail() {
	echo "failed: $*"
	exit 1
}

# same WANT GOT [WHAT] - two texts are equal
same() {
	[ "$1" = "$2" ] || fail "${3:-text}: wanted \"$1\", got \"$2\""
}

# contains TEXT PART - PART stands in TEXT
contains() {
	case $1 in
	*"$2"*) ;;
	*) fail "\"$2\" is not in \"$1\"" ;;
	esac
}

# status WANT COMMAND... - the command ends with this exit status; its output goes to $OUT and $ERR
status() {
	want=$1
	shift
	OUT=$SCRATCH/out ERR=$SCRATCH/err
	got=0
	"$@" >"$OUT" 2>"$ERR" || got=$?
	[ "$got" = "$want" ] || fail "exit status $got, wanted $want: $*
$(tail -n 20 "$OUT" "$ERR")"
}

# eventually SECONDS COMMAND... - the command succeeds within that time (asked ten times a second)
eventually() {
	tries=$(($1 * 10))
	shift
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "never came true: $*"
		sleep 0.1
	done
}

# scratch - a new directory that goes away with the test
scratch() {
	mktemp -d "$SCRATCH/XXXXXX"
}

need_root() {
	[ "$(id -u)" -eq 0 ] || skip "needs root"
}

need_program() {
	command -v "$1" >/dev/null || skip "needs the program $1"
}

# json FILE EXPRESSION - a value of a JSON document, by a Python expression on `d`
json() {
	python3 -c 'import json, sys
d = json.load(open(sys.argv[1]))
v = eval(sys.argv[2])
print(v if isinstance(v, str) else json.dumps(v))' "$1" "$2"
}

# ---- a host of our own ----

# template - build the template `base` once; the state directory it is in is kept between runs
template() {
	mkdir -p "$TEMPLATE_STATE"
	(
		flock 9
		HOTCELL_STATE=$TEMPLATE_STATE HOTCELL_RUN=$SCRATCH/no-run hotcell image build base >"$SCRATCH/template.log" 2>&1
	) 9>"$TEMPLATE_STATE/.test-lock" || {
		tail -n 15 "$SCRATCH/template.log"
		fail "hotcell image build base"
	}
}

# host - a daemon's directories of our own, templates lent from $TEMPLATE_STATE; the first call starts the daemon
host() {
	template
	export HOTCELL_STATE="$SCRATCH/state" HOTCELL_RUN="$SCRATCH/run"
	mkdir -p "$HOTCELL_STATE" "$HOTCELL_RUN"
	chmod 755 "$SCRATCH" "$HOTCELL_STATE" "$HOTCELL_RUN"
	for part in $LENT; do
		mkdir -p "$TEMPLATE_STATE/$part"
		if [ "$(id -u)" -eq 0 ]; then
			mkdir "$HOTCELL_STATE/$part"
			mount --bind "$TEMPLATE_STATE/$part" "$HOTCELL_STATE/$part"
		else
			cp -al "$TEMPLATE_STATE/$part" "$HOTCELL_STATE/$part"
		fi
	done
}

# let_go DIR - unmount it, soon: a child the keeper was just making dies with it, but a moment later
let_go() {
	tries=50
	while mountpoint -q "$1" && ! umount "$1" 2>"$SCRATCH/umount"; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { cat "$SCRATCH/umount"; return 1; }
		sleep 0.1
	done
}

# What `host` mounted, and whatever else is mounted in this test's directory.
unmount() {
	for part in $LENT; do
		let_go "$SCRATCH/state/$part" || return 1
	done
	let_go "$SCRATCH/state"
}

# Processes of our host: each carries HOTCELL_RUN in its environment, or descends from one that does.
host_pids() {
	for dir in $(grep -lzxF "HOTCELL_RUN=$HOTCELL_RUN" /proc/[0-9]*/environ 2>/dev/null); do
		dir=${dir%/environ}
		case $(readlink "$dir/exe" 2>/dev/null) in
		"$BUILD"/src/bin/hotcelld* | "$BUILD"/src/bin/hotcell-keeper* | "$SCRATCH"/*/hotcelld* | "$SCRATCH"/*/hotcell-keeper*)
			echo "${dir#/proc/}"
			descendants "${dir#/proc/}"
			;;
		esac
	done | sort -un
}

descendants() {
	for child in $(cat "/proc/$1/task"/*/children 2>/dev/null); do
		echo "$child"
		descendants "$child"
	done
}

# pid_of hotcelld|hotcell-keeper - of our host; empty when there is none
pid_of() {
	for pid in $(host_pids); do
		case $(readlink "/proc/$pid/exe" 2>/dev/null) in
		*/"$1") echo "$pid"; return ;;
		esac
	done
}

# where_they_are - what the threads of daemon and keeper wait for in the kernel: why something hung
where_they_are() {
	for name in hotcelld hotcell-keeper; do
		for task in /proc/"$(pid_of $name)"/task/[0-9]*; do
			[ -d "$task" ] || continue
			echo "-- $name ${task##*/}: $(sed -n 's/^State:[[:space:]]*//p' "$task/status") $(cat "$task/wchan") $(cat "$task/syscall")"
		done
	done
}

# is_dead PID - gone, or only a name in the process table
is_dead() {
	[ ! -d "/proc/$1" ] || grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null || [ ! -d "/proc/$1" ]
}

all_dead() {
	for one; do
		is_dead "$one" || return 1
	done
}

# host_end - end daemon, keeper and what they hold, by pid
host_end() {
	pids=$(host_pids)
	[ -n "$pids" ] || return 0
	# shellcheck disable=SC2086 # a list of numbers
	kill -KILL $pids 2>/dev/null || true
	tries=100
	# shellcheck disable=SC2086
	until all_dead $pids; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { echo "would not die: $pids"; return 1; }
		sleep 0.1
	done
}

# traces - what sandboxes have on this machine: control groups, mounts, files, processes, records; a line each
traces() {
	python3 "$TOP/test/traces.py" "$SCRATCH"
}

# no_traces - every sandbox is gone; so must be all it used, soon. Keeper and daemon may stay.
no_traces() {
	same "" "$(hotcell list --json)" "sandboxes left"
	tries=50
	until traces >"$SCRATCH/traces" && [ ! -s "$SCRATCH/traces" ]; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "left behind:
$(cat "$SCRATCH/traces")"
		sleep 0.1
	done
}

# fds PID - how many descriptors it has open
fds() {
	find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l
}

# rss_kib PID - private memory of a process
rss_kib() {
	awk '/^(Private_Clean|Private_Dirty):/ { sum += $2 } END { print sum + 0 }' "/proc/$1/smaps_rollup"
}

# ---- running the tests of a script ----

# Whatever happened: nothing of the test stays. A leak after a success is a failure.
cleanup() {
	result=$?
	trap - EXIT
	set +e
	if [ -n "${HOTCELL_RUN:-}" ]; then
		if [ $result -ne 0 ] && [ $result -ne $SKIPPED ]; then
			for log in "$HOTCELL_RUN"/*.log; do
				[ ! -s "$log" ] || { echo "-- the end of ${log##*/}"; tail -n 20 "$log"; }
			done
			where_they_are
		fi
		# shellcheck disable=SC2046 # numbers; a client that lives on would start the next daemon
		kill -KILL $(descendants $$) 2>/dev/null
		host_end || result=1
		unmount || result=1
		for top in $(python3 "$TOP/test/traces.py" "$SCRATCH" --groups); do # a keeper that was killed could not
			find "$top" -depth -type d -exec rmdir {} + || result=1
		done
		awk -v dir="$SCRATCH" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r at; do
			echo "left mounted: $at"
			umount -l "$at"
		done
	fi
	case $SCRATCH in
	/tmp/hotcell-test.*) rm -rf "$SCRATCH" ;;
	esac
	exit $result
}

run_one() {
	SCRATCH=$(mktemp -d /tmp/hotcell-test.XXXXXX) || exit 1
	trap cleanup EXIT
	trap 'exit 1' INT TERM HUP
	set -eu
	if command -v setup >/dev/null; then
		setup
	fi
	"$1"
}

# run_tests [FILE...] - every test_... of this script and of these files in order; TESTS="test_a test_b": only those
run_tests() {
	if [ "${HOTCELL_ONE_TEST:-}" ]; then
		run_one "$HOTCELL_ONE_TEST"
		exit
	fi
	passed=0 failed=0 skipped=0
	log=$(mktemp /tmp/hotcell-log.XXXXXX) || exit 1
	trap 'rm -f "$log"' EXIT
	for name in $(sed -n 's/^\(test_[a-z0-9_]*\)().*/\1/p' "$0" "$@"); do
		case " ${TESTS:-$name} " in
		*" $name "*) ;;
		*) continue ;;
		esac
		start=$(date +%s%N)
		result=0
		HOTCELL_ONE_TEST=$name timeout -k 10 "$TEST_SECONDS" sh "$0" >"$log" 2>&1 </dev/null || result=$?
		took=$((($(date +%s%N) - start) / 1000000))
		took=$(printf '%d.%03d' $((took / 1000)) $((took % 1000)))
		case $result in
		0) passed=$((passed + 1)); echo "  ok    $name ($took s)" ;;
		"$SKIPPED") skipped=$((skipped + 1)); echo "  skip  $name: $(sed -n 's/^skip: //p' "$log" | tail -n 1)" ;;
		*)
			failed=$((failed + 1))
			echo "  FAIL  $name ($took s)"
			[ $result -ne 124 ] || echo "        not done after $TEST_SECONDS s"
			{
				sed '/^-- the end of /,$d' "$log" | tail -n 20 # what the test said, then what its host did
				sed -n '/^-- the end of /,$p' "$log" | tail -n 40
			} | sed 's/^/        /'
			;;
		esac
	done
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed -eq 0 ]
	exit
}
