#!/bin/sh
# test/vm_python.sh - the template python: what its forks find imported, and what comes back of a plot and a frame
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=1800

setup() {
	need_root
	need_program qemu-system-x86_64
	[ -n "$FULL" ] || skip "only with HOTCELL_FULL=1: its image takes minutes to build"
}

# run SANDBOX SOURCE - the answer as JSON lines in $OUT
run() {
	status 0 hotcell code run --json "$1" "$2"
}

# mimes - of the results in $OUT, in order
mimes() {
	python3 -c 'import json, sys
print(*(d["part"]["mime"] for d in map(json.loads, open(sys.argv[1])) if d["kind"] == "result"))' "$OUT"
}

test_forks_of_python() {
	mkdir -p "$TEMPLATE_STATE"
	HOTCELL_STATE=$TEMPLATE_STATE HOTCELL_RUN=$SCRATCH/no-run hotcell image build python
	host
	status 0 hotcell create --template python --name cold
	contains "$(cat "$ERR")" "hotcell template build python"
	status 0 hotcell rm cold
	status 0 hotcell template build python
	status 0 hotcell create --template python --name a
	same "" "$(cat "$ERR")" "notices of a fork"
	status 0 hotcell create --template python --name b
	modules='import sys; print(*(m in sys.modules for m in ("numpy", "pandas", "matplotlib.pyplot")))'
	same 'True True True' "$(hotcell code run a "$modules")" "imported before"
	for source in 'import numpy; numpy.random.random()' 'numpy.random.default_rng().random()'; do
		[ "$(hotcell code run a "$source")" != "$(hotcell code run b "$source")" ] || fail "both forks say the same: $source"
	done
	run a 'import pandas; pandas.DataFrame({"x": [1, 2]})'
	same 'text/html application/json text/plain' "$(mimes)" "forms of a frame"
	run a 'import matplotlib.pyplot as plt; _ = plt.plot([1, 2, 3])'
	same 'image/png image/svg+xml' "$(mimes)" "forms of a plot"
	same 4.0 "$(hotcell code run a 'float(numpy.linalg.det(numpy.eye(2) * 2))')" "a determinant"
	same 0 "$(hotcell exec a -- python3 -m pip --version >/dev/null; echo $?)" "status of pip"
	done_with
}

run_tests
