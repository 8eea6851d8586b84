#!/bin/sh
# test/vm_fork_crash.sh - kill -9 of everybody while machines are copied: what was, or what shall be, never a mixture
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 600 10800)

setup() {
	need_root
	need_program qemu-system-x86_64
}

test_where_most_could_be_lost() {
	host
	status 0 hotcell template build base
	python3 "$TOP/test/fork_crash.py" "$SCRATCH" telling || fail "fork_crash.py"
}

# kill_during VERB VICTIM - at full size: at every step of the verb, or at ROUNDS of them
kill_during() {
	host
	status 0 hotcell template build base
	python3 "$TOP/test/fork_crash.py" "$SCRATCH" "$1" "$2" ${ROUNDS:+"$ROUNDS"} || fail "fork_crash.py"
}

test_daemon_in_template() { kill_during template daemon; }
test_keeper_in_template() { kill_during template keeper; }
test_copier_in_template() { kill_during template copier; }
test_client_in_template() { kill_during template client; }
test_child_in_template() { kill_during template child; }
test_daemon_in_snapshot() { kill_during snapshot daemon; }
test_keeper_in_snapshot() { kill_during snapshot keeper; }
test_copier_in_snapshot() { kill_during snapshot copier; }
test_client_in_snapshot() { kill_during snapshot client; }
test_source_in_snapshot() { kill_during snapshot source; }
test_daemon_in_fork() { kill_during fork daemon; }
test_keeper_in_fork() { kill_during fork keeper; }
test_copier_in_fork() { kill_during fork copier; }
test_client_in_fork() { kill_during fork client; }
test_source_in_fork() { kill_during fork source; }
test_child_in_fork() { kill_during fork child; }
test_daemon_in_restore() { kill_during restore daemon; }
test_keeper_in_restore() { kill_during restore keeper; }
test_client_in_restore() { kill_during restore client; }
test_child_in_restore() { kill_during restore child; }
test_daemon_in_pause() { kill_during pause daemon; }
test_keeper_in_pause() { kill_during pause keeper; }
test_copier_in_pause() { kill_during pause copier; }
test_client_in_pause() { kill_during pause client; }
test_source_in_pause() { kill_during pause source; }
test_daemon_in_resume() { kill_during resume daemon; }
test_keeper_in_resume() { kill_during resume keeper; }
test_client_in_resume() { kill_during resume client; }
test_child_in_resume() { kill_during resume child; }
test_daemon_in_rollback() { kill_during rollback daemon; }
test_keeper_in_rollback() { kill_during rollback keeper; }
test_client_in_rollback() { kill_during rollback client; }
test_source_in_rollback() { kill_during rollback source; }
test_child_in_rollback() { kill_during rollback child; }
test_daemon_in_rollback_paused() { kill_during rollback-paused daemon; }
test_keeper_in_rollback_paused() { kill_during rollback-paused keeper; }
test_both_in_rollback_paused() { kill_during rollback-paused both; }
test_both_in_template() { kill_during template both; }
test_both_in_snapshot() { kill_during snapshot both; }
test_both_in_fork() { kill_during fork both; }
test_both_in_restore() { kill_during restore both; }
test_both_in_pause() { kill_during pause both; }
test_both_in_resume() { kill_during resume both; }
test_both_in_rollback() { kill_during rollback both; }

TESTS=${TESTS:-$(size test_where_most_could_be_lost "")}
run_tests
