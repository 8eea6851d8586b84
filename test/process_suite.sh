#!/bin/sh
# test/process_suite.sh - what holds behind every wall, behind namespaces
. "${0%/*}/suite.sh"
ISOLATION=process
TEST_SECONDS=${HOTCELL_FULL:+900}
TEST_SECONDS=${TEST_SECONDS:-120}

setup() {
	need_root
}

test_run() { suite_run; }
test_exec() { suite_exec; }
test_streams() { suite_streams; }
test_standard_files() { suite_standard_files; }
test_broken_streams() { suite_broken_streams; }
test_text() { suite_text; }
test_one_stream() { suite_one_stream; }
test_arguments() { suite_arguments; }
test_names() { suite_names; }
test_users() { suite_users; }
test_timeout() { suite_timeout; }
test_terminal() { suite_terminal; }
test_sessions() { suite_sessions; }
test_files() { suite_files 64; }
test_trees() { suite_trees; }
test_ports() { suite_ports; }
test_info() { suite_info; }
test_deadlines() { suite_deadlines 2s; }
test_pressure() { suite_pressure 512 4096; }
test_example() { suite_example; }
test_code() { suite_code; }
test_code_results() { suite_code_results; }
test_code_ends() { suite_code_ends; }
test_pool() { host; suite_pool boot; }

run_tests
