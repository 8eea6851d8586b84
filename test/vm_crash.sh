#!/bin/sh
# test/vm_crash.sh - kill -9 of everybody, while machines are made and while programs run in them
. "${0%/*}/crash.sh"
ISOLATION=vm
TEST_SECONDS=$(size 180 3600)
STEPS=$(size "record machine hello" "")
MACHINE_STEPS=$(size machine "")

setup() {
	need_root
}

test_daemon_while_creating() { kill_while_creating daemon $STEPS; }
test_keeper_while_creating() { kill_while_creating keeper $STEPS; }
test_machine_while_creating() { kill_while_creating machine $MACHINE_STEPS; }
test_client_while_creating() { kill_while_creating client $STEPS; }
test_adoption() { adoption 2; }
test_output_across_daemons() { output_across_daemons 20000; }
test_input_across_daemons() { input_across_daemons 2; }
test_machine_under_a_program() { machine_under_a_program; }
test_keeper_under_a_program() { keeper_under_a_program; }
test_client_under_a_program() { client_under_a_program; }

run_tests
