#!/bin/sh
# test/vm_suite.sh - what holds behind every wall, in machines with a kernel of their own
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=${HOTCELL_FULL:+1800}
TEST_SECONDS=${TEST_SECONDS:-180}

setup() {
	need_root
}

test_run() { suite_run; }
test_exec() { suite_exec; }
test_streams() { suite_streams; }
test_timeout() { suite_timeout; }
test_terminal() { suite_terminal; }
test_sessions() { suite_sessions; }
test_files() { suite_files 16; }
test_trees() { suite_trees; }
test_ports() { suite_ports; }
test_info() { suite_info; }
test_deadlines() { suite_deadlines 8s; }
test_pressure() { suite_pressure 64 256; }
test_example() { suite_example; }
test_code() { suite_code; }
test_code_results() { suite_code_results; }
test_code_ends() { suite_code_ends; }

run_tests
