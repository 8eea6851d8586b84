#!/bin/sh
# test/lab_kvm.sh - machines on a real KVM, in a throw-away Linux that has one (tools/kvmlab); and control groups v2
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 600 3600)

setup() {
	need_root
	for program in qemu-system-x86_64 cpio mke2fs busybox; do
		need_program "$program"
	done
	template
}

# in_lab SCRIPT TEST... - of test/SCRIPT, run in the lab; it must say that they passed
in_lab() {
	script=$1
	shift
	TMPDIR=$SCRATCH "$TOP/tools/kvmlab" make "$SCRATCH/lab" "$BUILD" "$TEMPLATE_STATE"
	cat >"$SCRATCH/inside" <-END
		export HOTCELL_KVM=yes HOTCELL_TEMPLATES=/opt/hotcell/templates HOTCELL_FULL=$FULL
		export HOTCELL_BUILD=/opt/hotcell/build HOTCELL_TEST_STATE=/var/lib/hotcell TESTS="$*"
		hotcell-keeper --probe
		exec sh /opt/hotcell/test/$script
	END
	"$TOP/tools/kvmlab" run "$SCRATCH/lab" "$((TEST_SECONDS - 60))" <"$SCRATCH/inside" >"$SCRATCH/said" || {
		cat "$SCRATCH/said"
		fail "$script $* in the lab"
	}
	same "$# passed, 0 failed, 0 skipped" "$(tail -n 1 "$SCRATCH/said")" "the lab's last line"
	rm -r "$SCRATCH/lab"
}

# A machine boots on KVM; a hot template is made of it, forked, kept, put back.
test_forks_on_kvm() {
	in_lab vm_fork.sh test_snapshot_restore_rollback $(size "" "test_create_is_a_fork test_pause_resume test_forks_differ")
	grep -q '^root *qemu *vm ' "$SCRATCH/said" || fail "the lab has no KVM: $(cat "$SCRATCH/said")"
}

# Where control groups are v2, which hosts with v1 can't show.
test_process_wall_with_cgroup_v2() {
	in_lab process_suite.sh test_run test_exec test_timeout
	grep -q 'cgroup v2' "$SCRATCH/said" || fail "no control groups v2 in the lab: $(cat "$SCRATCH/said")"
}

run_tests
