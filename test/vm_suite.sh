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
test_files() { suite_files 16; }
test_trees() { suite_trees; }
test_copies_again() { suite_copies_again; }
test_copies_partly() { suite_copies_partly; }
test_copies_whole() { suite_copies_whole; }
test_ports() { suite_ports; }
test_info() { suite_info; }
test_use() { suite_use; }
test_leftovers() { suite_leftovers; }
test_oom() { suite_oom; }
test_deadlines() { suite_deadlines 8s; }
test_pressure() { suite_pressure 64 256; }
test_example() { suite_example; }
test_code() { suite_code; }
test_code_notebook() { suite_code_notebook; }
test_code_results() { suite_code_results; }
test_code_ends() { suite_code_ends; }

# A guest that floods its console costs the host neither its disk nor a processor.
test_console_flood() {
	box
	keeper=$(pid_of hotcell-keeper)
	reads=$(awk '$1 == "syscr:" { print $2 }' "/proc/$keeper/io")
	status 0 hotcell exec box -- sudo sh -c 'head -c 1M /dev/zero | tr "\0" x >/dev/ttyS0'
	reads=$(($(awk '$1 == "syscr:" { print $2 }' "/proc/$keeper/io") - reads))
	[ $reads -lt 20000 ] || fail "$reads reads of the keeper for 1 MiB of console"
	kib=$(du -sk "$HOTCELL_RUN" | cut -f 1)
	[ "$kib" -lt 256 ] || fail "$kib KiB in $HOTCELL_RUN"
	says 0 'still here' -- echo still here
	done_with
}

# Who waits for a boot at a terminal sees that it goes on, and how the next one can be a fork; a pipe gets neither.
test_boot_is_told() {
	host
	status 0 hotcell run -- echo "done"
	same "done" "$(cat "$OUT")" "output in a pipe"
	same "" "$(cat "$ERR")" "standard error in a pipe"
	status 0 python3 -c '
import os, pty, sys
said = b""
def read(fd):
    global said
    got = os.read(fd, 4096)
    said += got
    return got
status = pty.spawn(["hotcell", "run", "--", "echo", "done"], read, lambda fd: b"")
sys.stderr.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(status))'
	contains "$(cat "$ERR")" "making the sandbox (a boot takes seconds) ... 1 s"
	contains "$(cat "$ERR")" "booted: template base is not hot"
	status 0 hotcell list --json
	same "" "$(cat "$OUT")" "sandboxes left"
}

# A guest that hangs is said to; whoever asks is not kept waiting.
test_hung_guest() {
	box
	for pid in $(host_pids); do
		case $(cat "/proc/$pid/comm") in
		qemu) kill -STOP "$pid"; hung=$pid ;;
		esac
	done
	status 0 timeout 20 hotcell info box
	contains "$(cat "$OUT")" vm
	contains "$(cat "$ERR")" 'the guest did not answer within 5 s'
	kill -CONT "$hung"
	says 0 'still here' -- echo still here
	status 0 hotcell info box
	contains "$(cat "$OUT")" inside:
	done_with
}
test_core_handler() { suite_core_handler; }

run_tests
