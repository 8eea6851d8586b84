#!/bin/sh
# test/vm_bench.sh - bench/run at its smallest: every suite about forks measures, and nothing stays behind
. "${0%/*}/lib.sh"
TEST_SECONDS=300

setup() {
	need_root
	need_program qemu-system-x86_64
	template
	mkdir "$SCRATCH/state"
	for part in images kernels initrds; do
		cp -al "$TEMPLATE_STATE/$part" "$SCRATCH/state/$part" || cp -a "$TEMPLATE_STATE/$part" "$SCRATCH/state/$part"
	done
	chmod 755 "$SCRATCH" "$SCRATCH/state"
	export HOTCELL_RUN="$SCRATCH/run" # nobody serves there; it tells the end of a failed test to kill what it started
}

bench() {
	TMPDIR=$SCRATCH env --default-signal=INT "$TOP/bench/run" --smoke --build "$BUILD" --state "$SCRATCH/state" \
		--peers "$SCRATCH/peers" --json "$SCRATCH/bench.json" "$@"
}

# Processes that have one of its directories in their environment, mounts and files there; a line each.
left_by_bench() {
	grep -lF "$SCRATCH/hotcell-bench-" /proc/[0-9]*/environ 2>/dev/null || true
	grep -F "$SCRATCH/" /proc/self/mountinfo || true
	find "$SCRATCH" -maxdepth 1 -name '*hotcell-bench-*'
}

nothing_left() {
	[ -z "$(left_by_bench)" ]
}

test_every_suite_measures() {
	status 0 bench hot
	python3 - "$SCRATCH/bench.json" <<'EOF' || fail "what it wrote"
import json, sys
d = json.load(open(sys.argv[1]))
assert d["effort"] == "smoke" and d["machine"]["kernel"] and d["versions"]["hotcell"], d
assert {t["suite"] for t in d["tables"]} == {"paths", "after-fork", "fork-burst", "running", "fleet"}, d["tables"]
rows = [r for t in d["tables"] for r in t["rows"]]
for r in rows:
    assert r["peer"] or (r["n"] > 0 and not r["failures"]), r
    assert r["peer"] or "MemAvailable" in r["name"] or "more than" in r["name"] or min(r["samples"]) >= 0, r
for path in ("fork", "prestarted", "pool", "boot"):
    assert any(r["name"].strip() == f"{path}: total" and r["unit"] == "us" and r["p50"] > 0 for r in rows), path
assert len([r for r in rows if r.get("aim")]) >= 12
EOF
	status 0 "$TOP/bench/quote" "$SCRATCH/bench.json"
	contains "$(cat "$OUT")" '| fork: until the create reply |'
	nothing_left || fail "left behind: $(left_by_bench)"
}

# groups_of RUN - control groups of a keeper
groups_of() {
	PYTHONPATH=$TOP/test python3 -B -c 'import sys, traces; print(*traces.groups(sys.argv[1]))' "$1"
}

has_machines() {
	cat "$SCRATCH"/hotcell-bench-*/keeper.log | grep -q 'event=machine .* state=running'
}

# Ctrl-C while machines run.
test_interrupted() {
	bench fleet >"$SCRATCH/said" 2>&1 &
	pid=$!
	eventually 60 has_machines
	keeper=$(echo "$SCRATCH"/hotcell-bench-*/keeper.log)
	[ -n "$(groups_of "${keeper%/*}")" ] || fail "its machines have no control groups"
	kill -INT "$(pgrep -P $pid)"
	code=0
	wait $pid || code=$?
	same 130 $code "exit status of an interrupted one: $(tail -n 3 "$SCRATCH/said")"
	nothing_left || fail "left behind: $(left_by_bench)"
	same "" "$(groups_of "${keeper%/*}")" "control groups left"
}

run_tests
