#!/bin/sh
# What the command line says to people: output that can't be written, sizes and words of habit, who uses what.
. "${0%/*}/lib.sh"

box() {
	host
	status 0 hotcell create --isolation process --name box
}

# Output that nobody can have is an error, and the error is said where somebody can read it.
test_output_that_is_lost_is_an_error() {
	box
	hotcell exec box -- true
	for words in "list" "list --json" "info box" "sessions box --json" "exec box -- echo hi" "run --isolation process -- echo hi"; do
		for to in closed /dev/full; do
			got=0
			# shellcheck disable=SC2086 # words
			if [ $to = closed ]; then
				hotcell $words >&- 2>"$SCRATCH/said" || got=$?
			else
				hotcell $words >/dev/full 2>"$SCRATCH/said" || got=$?
			fi
			[ $got -ne 0 ] || fail "hotcell $words to $to: exit status 0"
			same 1 "$(grep -c 'standard output' "$SCRATCH/said")" "sentences on standard error of hotcell $words to $to"
		done
	done
	status 0 hotcell exec box -- true
	hotcell exec box -- true >&- || fail "a program that prints nothing needs no output"
	hotcell exec box -c 'echo lost >&2' 2>&- || fail "standard error may be closed"
}

# A list says what each sandbox uses, as info does.
test_list_says_what_is_used() {
	box
	status 0 hotcell create --isolation process --name idle
	status 0 hotcell exec box --detach -c 'head -c 60M /dev/zero | tail -c 60M; python3 -c "
kept = bytearray(b\"x\") * (80 << 20)
for i in range(10 ** 7): pass
print(\"ready\", flush=True)
import time
time.sleep(600)"'
	uses() {
		hotcell list --json | python3 -c '
import json, sys
of = {d["name"]: d for d in map(json.loads, sys.stdin)}
box, idle = of["box"], of["idle"]
sys.exit(not (80 <= box["memory_used_mb"] <= 512 and idle["memory_used_mb"] < 60 and box["cpu_ms"] > idle["cpu_ms"] >= 0))'
	}
	eventually 30 uses
}

# Sizes, words and options that people bring along from other tools.
test_habits_are_understood_or_answered() {
	host
	status 0 hotcell create --isolation process --name box --memory 512m --disk 256m
	status 0 hotcell info box --json
	same "512 256" "$(json "$OUT" '"%d %d" % (d["memory_mb"], d["disk_mb"])')" "sizes in small letters"
	echo data >"$SCRATCH/file"
	status 0 hotcell cp "$SCRATCH/file" box:
	status 0 hotcell exec -i box -- cat /home/user/file
	same data "$(cat "$OUT")" "a file copied to SANDBOX:"
	for word in stop logs delete inspect; do
		status 2 hotcell $word box
		contains "$(cat "$ERR")" "'hotcell "
	done
	status 2 hotcell create --disk 1K
	contains "$(cat "$ERR")" "1K is less than 1M"
	status 7 hotcell create --lifetime 400d
	contains "$(cat "$ERR")" "30d"
}

# People read times and sizes with their units; programs read JSON.
test_info_for_people() {
	box
	status 0 hotcell info box
	contains "$(cat "$OUT")" "memory               512 MiB"
	contains "$(cat "$OUT")" "created              $(date +%Y)-"
	same 1 "$(grep -c '^stages .* ms$' "$OUT")" "lines about stages"
	same 0 "$(grep -cE '_ms|_mb' "$OUT")" "names of JSON in $(cat "$OUT")"
}

# A state directory of one's own is never served by the daemon of another one.
test_state_directory_alone() {
	box
	own=$SCRATCH/own
	(
		unset HOTCELL_RUN
		export HOTCELL_STATE="$own"
		same "" "$(hotcell list --json)" "sandboxes of another state, at $own"
		[ -S "$own/run/hotcelld.sock" ] || fail "no socket below $own"
		kill "$(hotcell info --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["keeper_pid"])')"
	)
	eventually 10 sh -c "! find /proc/[0-9]*/cwd -lname '$own*' 2>/dev/null | grep -q ."
	contains "$(hotcell list)" box
}

# Every piece of advice can be typed, and fits the case: who may not open a device is not sent to the firmware.
test_doctor_advises_what_can_be_typed() {
	setpriv --reuid 65534 --regid 65534 --clear-groups env HOME="$SCRATCH" "$BUILD/src/bin/hotcell-keeper" --probe --json \
		>"$SCRATCH/doctor" || [ -s "$SCRATCH/doctor" ] || skip "another user can't run the keeper from $BUILD"
	advice=$(json "$SCRATCH/doctor" '" ".join(c["type"] for c in d["checks"])')
	case $advice in
	*"see the reason"*) fail "advice that can't be typed: $advice" ;;
	esac
	same '["root", "user"]' "$(json "$SCRATCH/doctor" 'sorted({r["who"] for r in d["matrix"]})')" "who there is"
	[ -e /dev/kvm ] || skip "there is no /dev/kvm"
	[ "$(stat -c %a /dev/kvm)" != 666 ] || skip "everybody may open /dev/kvm"
	kvm=$(json "$SCRATCH/doctor" 'next(c["type"] for c in d["checks"] if c["name"] == "kvm")')
	contains "$kvm" "usermod -aG kvm"
}

run_tests
