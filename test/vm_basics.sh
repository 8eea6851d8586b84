#!/bin/sh
# test/vm_basics.sh - machines with a kernel of their own, from the outside
. "${0%/*}/lib.sh"
WALL=vm MANY=3
BOOTS=${BOOTS:-5} # 50 by hand, also with a busy processor
. "${0%/*}/both.sh"

setup() {
	need_root
	need_program qemu-system-x86_64
}

check_kernel() {
	[ "$1" != "$(uname -r)" ] || fail "the machine has the host's kernel"
}

check_wall() {
	case $1 in
	vm | vm-emulated) ;;
	*) fail "wall $1" ;;
	esac
}

test_every_boot_arrives() {
	host
	i=0
	while [ $i -lt "$BOOTS" ]; do
		status 0 run -- echo "boot $i"
		same "boot $i" "$(cat "$OUT")"
		i=$((i + 1))
	done
	no_traces
}

run_tests "${0%/*}/both.sh"
