#!/bin/sh
# test/vm_user.sh - a user without control groups of its own: what holds no longer is named, accepted, and then all works
. "${0%/*}/lib.sh"
TEST_SECONDS=300

setup() {
	need_root # to become somebody else
	need_program qemu-system-x86_64
}

as_user() {
	setpriv --reuid 65534 --regid 65534 --clear-groups "$@"
}

# user_host - like host, and it belongs to nobody
user_host() {
	template
	export HOTCELL_STATE="$SCRATCH/state" HOTCELL_RUN="$SCRATCH/run"
	mkdir -p "$HOTCELL_STATE" "$HOTCELL_RUN"
	for part in $LENT; do
		mkdir -p "$TEMPLATE_STATE/$part"
		cp -al "$TEMPLATE_STATE/$part" "$HOTCELL_STATE/$part"
		rm -f "$HOTCELL_STATE/$part/.lock"
		chown 65534:65534 "$HOTCELL_STATE/$part"
	done
	chown 65534:65534 "$SCRATCH" "$HOTCELL_STATE" "$HOTCELL_RUN"
	as_user hotcell doctor --json >"$SCRATCH/doctor"
	[ "$(json "$SCRATCH/doctor" '[c["status"] for c in d["checks"] if c["name"] == "memory limit"][0]')" = missing ] ||
		skip "this user has control groups of its own"
}

# The image is root's and there: the daemon is asked for the rest.
build() {
	as_user env PATH=/usr/bin:/bin python3 -B -c 'import sys
sys.path.insert(0, sys.argv[1] + "/test")
import link
print(link.Link(seconds=200).shake().call("template.build", link.record("template_build", template="base", unenforced=sys.argv[2:])))' \
		"$TOP" "$@"
}

test_template_where_limits_do_not_hold() {
	user_host
	status 0 as_user hotcell list # starts the daemon
	build >"$SCRATCH/refused" 2>&1 || true
	contains "$(cat "$SCRATCH/refused")" 'accept that with --unenforced memory --unenforced cpu --unenforced pids'
	same "" "$(as_user hotcell template list --json)" "hot after a refusal"
	build memory cpu pids >"$SCRATCH/built" 2>&1 || fail "$(cat "$SCRATCH/built")"
	same base "$(as_user hotcell template list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["template"])')" "the hot template"
	status 9 as_user hotcell create --name none
	status 0 as_user hotcell create --json --unenforced memory --unenforced cpu --unenforced pids --name box
	same 'fork ["memory", "cpu", "pids"]' "$(json "$OUT" 'd["path"] + " " + json.dumps(d["unenforced"])')" "how it was made"
	status 0 as_user hotcell exec box -- id -un
	same user "$(cat "$OUT")"
	status 0 as_user hotcell rm box
	status 0 as_user hotcell daemon stop
	same "" "$(host_pids)" "processes left"
}

run_tests
