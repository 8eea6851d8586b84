#!/bin/sh
# test/vm_fork_long.sh - machines that are paused, resumed and forked again and again, and many that must differ
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 600 14400)

setup() {
	need_root
	need_program qemu-system-x86_64
}

# hot TEMPLATE
hot() {
	host
	[ "$1" = base ] || status 0 hotcell image build "$1"
	status 0 hotcell template build "$1"
}

test_pauses_and_forks_of_forks() {
	hot base
	python3 "$TOP/test/fork_long.py" "$SCRATCH" "${CYCLES:-$(size 3 1000)}" "${FORKS:-$(size 3 200)}" || fail "fork_long.py"
	done_with
}

# At full size the template is five minutes old, as what it knows of the time and of chance is, and has numpy.
test_no_two_are_alike() {
	template=${TEMPLATE:-$(size base python)}
	hot "$template"
	sleep "$(size 0 300)"
	python3 "$TOP/test/fork_differ.py" "$template" "${COUNT:-$(size 8 256)}" || fail "fork_differ.py"
	done_with
}

run_tests
