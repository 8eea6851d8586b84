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
test_copies_again() { suite_copies_again; }
test_copies_partly() { suite_copies_partly; }
test_copies_whole() { suite_copies_whole; }
test_ports() { suite_ports; }
test_info() { suite_info; }
test_use() { suite_use; }
test_leftovers() { suite_leftovers; }
test_oom() { suite_oom; }
test_deadlines() { suite_deadlines 2s; }
test_pressure() { suite_pressure 512 4096; }
test_example() { suite_example; }
test_code() { suite_code; }
test_code_notebook() { suite_code_notebook; }
test_code_results() { suite_code_results; }
test_code_ends() { suite_code_ends; }
test_pool() { host; suite_pool boot; }

# A local wheel is installed by the command everybody knows, from a program, from an interpreter and in a venv.
test_pip() {
	box
	says 0 '' -c 'mkdir -p /tmp/w && cd /tmp/w && python3 -c "
import zipfile
with zipfile.ZipFile(\"tiny-1.0-py3-none-any.whl\", \"w\") as z:
    z.writestr(\"tiny.py\", \"answer = 42\n\")
    z.writestr(\"tiny-1.0.dist-info/METADATA\", \"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n\")
    z.writestr(\"tiny-1.0.dist-info/WHEEL\", \"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n\")
    z.writestr(\"tiny-1.0.dist-info/RECORD\", \"tiny.py,,\ntiny-1.0.dist-info/RECORD,,\n\")
"'
	status 0 hotcell exec box -- pip install --no-index /tmp/w/tiny-1.0-py3-none-any.whl
	says 0 42 -- python3 -c 'import tiny; print(tiny.answer)'
	status 0 hotcell exec box -- pip uninstall -y tiny
	status 0 hotcell code run box '%pip install --no-index /tmp/w/tiny-1.0-py3-none-any.whl'
	contains "$(cat "$OUT")" 'Successfully installed tiny-1.0'
	runs 0 42 'import tiny; tiny.answer'
	says 0 42 -c 'python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -q --no-index /tmp/w/tiny-1.0-py3-none-any.whl &&
/tmp/venv/bin/python -c "import tiny; print(tiny.answer)"'
	done_with
}

run_tests
