#!/bin/sh
# test/vm_qemu10.sh - the same machines with the QEMU of the distribution's backports, unpacked and not
# installed; and sets that one QEMU made where the other one runs. HOTCELL_FULL=1: the other suites with it, too.
. "${0%/*}/suite.sh"
ISOLATION=vm
TEST_SECONDS=$(size 180 7200)
LENT="images kernels initrds" # closures come and go here
NEWER=$TEMPLATE_STATE/qemu-backports/usr/bin/qemu-system-x86_64

setup() {
	need_root
	need_program qemu-system-x86_64
	need_program apt-get
	# shellcheck source=/dev/null
	. /etc/os-release
	[ "${ID:-} ${VERSION_CODENAME:-}" = "debian bookworm" ] || skip "knows the backports of Debian 12 only"
	[ -x "$NEWER" ] || fetch "$TEMPLATE_STATE/qemu-backports"
}

# mirror - where this machine has its Debian from
mirror() {
	apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		sed -n 's/^bookworm //p' | head -n 1
}

# fetch DIRECTORY - with lists of our own: what this machine installs from stays as it is
fetch() {
	to=$1
	apt=$(scratch)
	from=$(mirror)
	key=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -n "$from" ] || skip "apt has no source of Debian 12, so none of its backports"
	mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/root"
	[ ! -f $key ] || signed="[signed-by=$key] "
	echo "deb ${signed:-}$from bookworm-backports main" >"$apt/sources.list"
	set -- -q -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root \
		-o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- \
		-o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o APT::Update::Error-Mode=any
	apt-get "$@" update >"$apt/log" 2>&1 ||
		skip "the backports can't be reached: $(grep -m 1 '^[EW]:' "$apt/log" || tail -n 1 "$apt/log")"
	(cd "$apt" && apt-get "$@" -t bookworm-backports download \
		qemu-system-x86 qemu-system-common qemu-system-data >"$apt/log" 2>&1) ||
		skip "the backports have no QEMU: $(tail -n 1 "$apt/log")"
	for package in "$apt"/*.deb; do
		dpkg-deb -x "$package" "$apt/root"
	done
	chmod -R go-w "$apt/root"
	rm -rf "$to"
	mkdir -p "${to%/*}"
	mv "$apt/root" "$to"
	chmod 755 "$to"
}

newer() { export HOTCELL_QEMU="$NEWER"; }
older() { unset HOTCELL_QEMU; }

# change_to newer|older - the host's QEMU is another one from now on
change_to() {
	pids=$(host_pids)
	host_end
	# shellcheck disable=SC2086 # a list of numbers
	all_dead $pids || fail "the keeper would not end"
	"$1"
}

# closures - the copies of QEMU that are kept
closures() {
	find "$HOTCELL_STATE/closures" -mindepth 1 -maxdepth 1 -type d -printf '%f\n'
}

test_boots_and_forks_in_the_newer_qemu() {
	newer
	host
	hotcell doctor --json >"$SCRATCH/doctor" || true
	found=$(json "$SCRATCH/doctor" 'next(c["found"] for c in d["checks"] if c["name"] == "qemu")')
	case $found in
	1[0-9].*) ;;
	*) fail "QEMU is \"$found\", not the newer one" ;;
	esac
	status 0 hotcell template build base
	status 0 hotcell create --json --name a
	same fork "$(json "$OUT" 'd["path"]')" "how a was made"
	status 0 hotcell code run a 'x = 6 * 7; open("file", "w").write("before")'
	status 0 hotcell snapshot create a --name s
	status 0 hotcell code run a 'open("file", "w").write("after")'
	status 0 hotcell fork a --name b
	same '42 after' "$(hotcell code run b 'print(x, open("file").read())')" "the fork"
	status 0 hotcell rollback a s
	same '42 before' "$(hotcell code run a 'print(x, open("file").read())')" "what was rolled back"
	status 0 hotcell pause a
	status 0 hotcell resume a
	same 42 "$(hotcell code run a x)" "what was resumed"
	status 3 hotcell run --cold -- sh -c 'echo booted; exit 3'
	same booted "$(cat "$OUT")"
	done_with
}

# A set runs in the QEMU that made it, whichever the host has by now. When that one is not kept any more the
# set is refused, and its disk is still good.
sets_of_the_other() {
	"$1"
	host
	status 0 hotcell create --cold --name a
	maker=$(closures)
	status 0 hotcell code run a 'x = 6 * 7; open("file", "w").write("kept")'
	status 0 hotcell snapshot create a --name s
	status 0 hotcell rm a
	change_to "$2"
	status 0 hotcell restore s --name b
	same '42 kept' "$(hotcell code run b 'print(x, open("file").read())')" "the set in its own QEMU"
	status 0 hotcell fork b --name c
	same 42 "$(hotcell code run c x)" "its fork"
	status 0 hotcell rm --all
	same 2 "$(closures | wc -l)" "kept QEMUs"
	change_to "$2"
	rm -rf "$HOTCELL_STATE/closures/$maker"
	refuses 9 'made by another QEMU' restore s --name d
	contains "$(cat "$ERR")" '--disk-only'
	status 0 hotcell restore s --disk-only --name e
	same kept "$(hotcell exec e -- cat file)" "the file of its disk"
	done_with
}

test_sets_of_the_older_qemu() { sets_of_the_other older newer; }
test_sets_of_the_newer_qemu() { sets_of_the_other newer older; }

# the_suite SCRIPT - all of it in the newer QEMU
the_suite() {
	[ "$FULL" ] || skip "only with HOTCELL_FULL=1"
	newer
	env -u HOTCELL_ONE_TEST -u HOTCELL_FULL -u TESTS sh "$TOP/test/$1" || fail "$1 in the newer QEMU"
}

test_vm_suite_in_the_newer_qemu() { the_suite vm_suite.sh; }
test_vm_fork_in_the_newer_qemu() { the_suite vm_fork.sh; }

test_boots_in_the_newer_qemu() {
	[ "$FULL" ] || skip "only with HOTCELL_FULL=1"
	newer
	host
	for i in $(seq 100); do
		status 0 hotcell run --cold -- echo "boot $i"
		same "boot $i" "$(cat "$OUT")"
	done
	no_traces
}

run_tests
