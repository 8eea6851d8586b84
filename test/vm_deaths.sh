#!/bin/sh
# test/vm_deaths.sh - deaths and leaks, with machines. BOOTS=50 by hand, also with a busy processor
. "${0%/*}/lib.sh"
WALL=vm MANY=${BOOTS:-4} MOMENTS='0 0.05 0.2 1 2 4'
. "${0%/*}/deaths.sh"
TEST_SECONDS=${BOOTS:+3600}
TEST_SECONDS=${TEST_SECONDS:-240}

setup() {
	need_root
	need_program qemu-system-x86_64
}

run_tests "${0%/*}/deaths.sh"
