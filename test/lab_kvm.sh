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

# One boot of the lab for all of it: machines boot on KVM, a hot template is made, forked, kept and put back; and
# process sandboxes have limits in control groups v2, which hosts with v1 can't show.
test_forks_on_kvm() {
	"$TOP/tools/kvmlab" make "$SCRATCH/lab" "$BUILD" "$TEMPLATE_STATE"
	cat >"$SCRATCH/inside" <<-END
		export HOTCELL_KVM=yes HOTCELL_TEMPLATES=/opt/hotcell/templates HOTCELL_FULL=$FULL
		export HOTCELL_BUILD=/opt/hotcell/build HOTCELL_TEST_STATE=/var/lib/hotcell
		hotcell-keeper --probe
		TESTS="test_run test_exec test_timeout" sh /opt/hotcell/test/process_suite.sh &&
			TESTS="$(size test_snapshot_restore_rollback \
		"test_snapshot_restore_rollback test_create_is_a_fork test_forks_differ test_pool")" sh /opt/hotcell/test/vm_fork.sh
	END
	"$TOP/tools/kvmlab" run "$SCRATCH/lab" "$((TEST_SECONDS - 60))" <"$SCRATCH/inside" >"$SCRATCH/said" 2>&1 || {
		cat "$SCRATCH/said"
		fail "the tests did not pass in the lab"
	}
	cat "$SCRATCH/said"
	grep -q '^root *qemu *vm ' "$SCRATCH/said" || fail "the lab has no KVM"
	grep -q 'cgroup v2' "$SCRATCH/said" || fail "the lab has no control groups v2"
	same 2 "$(grep -c ' passed, 0 failed, 0 skipped$' "$SCRATCH/said")" "scripts that passed"
}

run_tests
