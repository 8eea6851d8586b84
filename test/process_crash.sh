#!/bin/sh
# test/process_crash.sh - kill -9 of everybody, while sandboxes are made and while programs run in them
. "${0%/*}/crash.sh"
ISOLATION=process
ROUNDS=$(size 8 60)
TEST_SECONDS=$(size 150 1800)

setup() {
	need_root
}

test_daemon_at_every_step() { kill_while_creating daemon; }
test_keeper_at_every_step() { kill_while_creating keeper; }
test_agent_at_every_step() { kill_while_creating machine; }
test_client_at_every_step() { kill_while_creating client; }
test_daemon_at_random() { kill_while_creating daemon random "$ROUNDS"; }
test_keeper_at_random() { kill_while_creating keeper random "$ROUNDS"; }
test_adoption() { adoption 5; }
test_output_across_daemons() { output_across_daemons 60000; }
test_input_across_daemons() { input_across_daemons 8; }
test_agent_under_a_program() { machine_under_a_program; }
test_keeper_under_a_program() { keeper_under_a_program; }
test_client_under_a_program() { client_under_a_program; }

run_tests
