#!/bin/sh
# test/vm_silent.sh - guests whose root takes the voice of their agent: every call ends all the same,
# `info` says so, the idle timeout comes, and `rm` removes.
. "${0%/*}/lib.sh"
TEST_SECONDS=300

setup() {
	need_root
	export HOTCELL_PING=1s # unhealthy after three of them in vain
}

# silent COMMAND - a machine in which root runs this; from then on it says nothing
silent() {
	host
	status 0 hotcell create --memory 256M --name box --idle-timeout 90s
	timeout 60 hotcell exec --timeout 1s box -- sudo sh -c "$1" >"$SCRATCH/silenced" 2>&1 || true
	eventually 60 is_silent
}

is_silent() {
	timeout 30 hotcell exec --timeout 1s box -- true 2>/dev/null && return 1
	hotcell info box --json >"$SCRATCH/info" 2>/dev/null && [ "$(json "$SCRATCH/info" 'd["unhealthy_since_ms"] > 0')" = true ]
}

# ends ARGUMENT... - hotcell ARGUMENT... fails within 30 s, with words about it
ends() {
	got=0
	timeout 30 hotcell "$@" >"$SCRATCH/out" 2>"$SCRATCH/err" </dev/null || got=$?
	[ $got -ne 0 ] && [ $got -ne 124 ] || fail "hotcell $*: exit status $got: $(cat "$SCRATCH/out" "$SCRATCH/err")"
	contains "$(cat "$SCRATCH/err")" unhealthy
}

# What everybody asks of a machine that says nothing.
every_verb_ends() {
	ends exec --timeout 3s box -- true
	ends exec box -- true
	ends ps box
	ends ls box:/
	ends cp "$0" box:/tmp/x
	ends cp box:/etc/passwd "$SCRATCH/passwd"
	ends sessions box
	ends code run box 1
	ends snapshot box
	ends pause box
	ends fork box
	status 0 timeout 30 hotcell info box
	contains "$(cat "$OUT")" unhealthy
	contains "$(hotcell list)" unhealthy
	timeout 30 hotcell port box 80 >"$SCRATCH/address" 2>"$SCRATCH/port" &
	forward=$!
	eventually 20 test -s "$SCRATCH/address"
	! timeout 20 python3 "$TOP/test/fetch.py" "$(cat "$SCRATCH/address")" '' >"$SCRATCH/page" 2>&1 || fail "something answers"
	eventually 10 grep -q unhealthy "$SCRATCH/port"
	contains "$(timeout 2 hotcell events --after 1 || true)" sandbox_unhealthy
	status 0 timeout 60 hotcell rm box
	wait $forward || true
	contains "$(cat "$SCRATCH/port")" 'the sandbox is gone'
	no_traces
}

# The port's driver is taken off: what the daemon writes is read by nobody.
test_unbound() {
	silent 'cd /sys/bus/virtio/drivers/virtio_console && for d in virtio*; do echo $d >unbind; done'
	every_verb_ends
}

# An open call, not a later one: it ends, and does not keep the machine.
test_an_open_call_ends_and_idle_comes() {
	host
	status 0 hotcell create --memory 256M --name box --idle-timeout 20s
	hotcell exec box -- sudo sh -c 'cd /sys/bus/virtio/drivers/virtio_console && for d in virtio*; do echo $d >unbind; done; sleep 1000' \
		>"$SCRATCH/out" 2>"$SCRATCH/err" &
	client=$!
	eventually 60 grep -q unhealthy "$SCRATCH/err"
	got=0
	wait $client || got=$?
	same 125 $got "exit status"
	eventually 60 sh -c '! hotcell info box'
	no_traces
}

# The kernel stands still.
test_halted() {
	silent 'echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger'
	ends exec --timeout 3s box -- true
	status 0 timeout 60 hotcell rm box
	no_traces
}

# Whoever has the processor before everybody else never gives it away.
test_outrun() {
	silent 'echo -1 >/proc/sys/kernel/sched_rt_runtime_us; for i in 1 2 3 4; do chrt -f 99 sh -c "while :; do :; done" & done; wait'
	ends exec --timeout 3s box -- true
	status 0 timeout 60 hotcell rm box
	no_traces
}

# The whole device goes, not its driver only.
test_device_removed() {
	silent 'for d in /sys/bus/virtio/drivers/virtio_console/virtio*; do p=$(readlink -f $d/..); cd /sys/bus/platform/drivers/virtio-mmio && echo ${p##*/} >unbind; done'
	ends exec --timeout 3s box -- true
	status 0 timeout 60 hotcell rm box
	no_traces
}

# Everything that runs is put to sleep, the agent with it.
test_asleep() {
	silent 'echo freeze >/sys/power/state'
	ends exec --timeout 3s box -- true
	status 0 timeout 60 hotcell rm box
	no_traces
}

# One that is only slow keeps its calls.
test_slow_but_alive() {
	host
	status 0 hotcell create --memory 256M --name box
	status 0 hotcell exec box -c 'for i in 1 2 3 4; do sh -c "while :; do :; done" & done; sleep 15; kill $(jobs -p); echo done'
	same "done" "$(cat "$OUT")" stdout
	hotcell info box --json >"$SCRATCH/info"
	same 0 "$(json "$SCRATCH/info" 'd["unhealthy_since_ms"]')" "unhealthy"
	status 0 hotcell rm box
	no_traces
}

run_tests
