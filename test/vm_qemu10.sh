#!/bin/sh
# test/vm_qemu10.sh - the same machines with the QEMU of the distribution's backports, unpacked and not installed
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=180

# backports - $HOTCELL_QEMU is a newer QEMU, fetched once and kept beside the templates
backports() {
	[ "${HOTCELL_FULL:-}" ] || skip "only with HOTCELL_FULL=1: one of 15 boots in QEMU 10.0 ended in its first second, unexplained"
	need_root
	need_program apt-get
	# shellcheck source=/dev/null
	. /etc/os-release
	[ "${ID:-} ${VERSION_CODENAME:-}" = "debian bookworm" ] || skip "knows the backports of Debian 12 only"
	kept=$TEMPLATE_STATE/qemu-backports
	[ -x "$kept/usr/bin/qemu-system-x86_64" ] || fetch "$kept"
	export HOTCELL_QEMU="$kept/usr/bin/qemu-system-x86_64"
}

# fetch DIRECTORY - with lists of our own: what this machine installs from stays as it is
fetch() {
	to=$1
	apt=$(scratch)
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/root"
	echo "deb http://deb.debian.org/debian bookworm-backports main" >"$apt/sources.list"
	set -- -q -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root \
		-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
	apt-get "$@" update >/dev/null 2>&1 || skip "the backports can't be reached"
	(cd "$apt" && apt-get "$@" -t bookworm-backports download \
		qemu-system-x86 qemu-system-common qemu-system-data seabios >/dev/null 2>&1) ||
		skip "the backports have no QEMU"
	for package in "$apt"/*.deb; do
		dpkg-deb -x "$package" "$apt/root"
	done
	chmod -R go-w "$apt/root"
	rm -rf "$to"
	mv "$apt/root" "$to"
	chmod 755 "$to"
}

test_runs_in_the_newer_qemu() {
	backports
	host
	hotcell doctor --json >"$SCRATCH/doctor" || true
	found=$(json "$SCRATCH/doctor" 'next(c["found"] for c in d["checks"] if c["name"] == "qemu")')
	case $found in
	1[0-9].*) ;;
	*) fail "QEMU is \"$found\", not the newer one" ;;
	esac
	status 3 hotcell run -- python3 -c 'import sys; print(6 * 7); sys.exit(3)'
	same 42 "$(cat "$OUT")"
	no_traces
}

test_files_in_the_newer_qemu() {
	backports
	suite_files 16
}

test_boots_in_the_newer_qemu() {
	backports
	host
	boots=${HOTCELL_FULL:+20}
	for i in $(seq "${boots:-3}"); do
		status 0 hotcell run -- echo "boot $i"
		same "boot $i" "$(cat "$OUT")"
	done
	no_traces
}

run_tests
