#!/bin/sh
# test/process_install.sh - installed, stopped, interrupted, with recipes of one's own: what an operator does
. "${0%/*}/lib.sh"
TEST_SECONDS=300

setup() {
	need_root
}

# ---- installation ----

# packed - install into a folder, as a package's build would; $TOOLS is where its programs are then
packed() {
	need_program ninja
	DESTDIR=$SCRATCH/packed ninja -C "$BUILD" install >"$SCRATCH/install.log" 2>&1 || fail "ninja install: $(tail "$SCRATCH/install.log")"
	INSTALLED=$SCRATCH/packed/usr/local
	PATH=$INSTALLED/bin:$PATH
}

test_install_brings_everything() {
	packed
	for file in bin/hotcell libexec/hotcell/hotcelld libexec/hotcell/hotcell-keeper libexec/hotcell/hotcell-init \
		include/hotcell.h share/hotcell/templates/base.yaml share/hotcell/templates/python.yaml \
		share/man/man1/hotcell.1 share/man/man3/libhotcell.3 share/man/man8/hotcelld.8 \
		share/man/man8/hotcell-keeper.8 share/bash-completion/completions/hotcell; do
		[ -s "$INSTALLED/$file" ] || fail "$file is not installed"
	done
	for recipe in "$TOP"/templates/*.yaml; do
		cmp "$recipe" "$INSTALLED/share/hotcell/templates/${recipe##*/}" || fail "${recipe##*/} differs"
	done
	for program in bin/hotcell libexec/hotcell/hotcelld libexec/hotcell/hotcell-keeper; do
		! grep -qF "$TOP/templates" "$INSTALLED/$program" || fail "$program knows the folder it was built from"
	done
}

test_installed_programs_find_each_other() {
	host
	packed
	same "$INSTALLED/bin/hotcell" "$(command -v hotcell)"
	printf 'name: own\ndescription: of this installation\npackages:\n  - less\n' >"$INSTALLED/share/hotcell/templates/own.yaml"
	status 0 hotcell image recipes --json
	same '["base", "own", "python"]' "$(python3 -c 'import json, sys; print(json.dumps([json.loads(l)["name"] for l in open(sys.argv[1])]))' "$OUT")" "recipes"
	status 0 hotcell image build base
	contains "$(cat "$OUT")" 'base@'
	hotcell doctor --json >"$SCRATCH/doctor"
	same root "$(json "$SCRATCH/doctor" 'd["mode"]')" "what doctor says"
	status 0 hotcell run --isolation process -- echo installed
	same installed "$(cat "$OUT")"
	for name in hotcelld hotcell-keeper; do
		same "$INSTALLED/libexec/hotcell/$name" "$(readlink "/proc/$(pid_of $name)/exe")" "the $name that runs"
	done
}

test_library_is_where_pkg_config_looks() {
	host
	packed
	need_program pkg-config
	need_program gcc
	file=$(find "$INSTALLED" -name hotcell.pc)
	dir=${file%/hotcell.pc}
	case :$(pkg-config --variable pc_path pkg-config): in
	*:"${dir#"$SCRATCH/packed"}":*) ;;
	*) [ "${dir#"$INSTALLED"}" = /lib/pkgconfig ] || # a build directory that was set up long ago
		fail "pkg-config does not look in ${dir#"$SCRATCH/packed"}, but in $(pkg-config --variable pc_path pkg-config)" ;;
	esac
	export PKG_CONFIG_PATH="$dir" PKG_CONFIG_SYSROOT_DIR="$SCRATCH/packed"
	# shellcheck disable=SC2046 # options
	gcc -o "$SCRATCH/hello" "$TOP/examples/library/hello.c" $(pkg-config --cflags --libs hotcell)
	LD_LIBRARY_PATH=${dir%/pkgconfig} status 0 "$SCRATCH/hello" process
	contains "$(sed -n 1p "$OUT")" 'wall process'
	same "$INSTALLED/libexec/hotcell/hotcelld" "$(readlink "/proc/$(pid_of hotcelld)/exe")" "the daemon it started"
}

# ---- the daemon ----

test_daemon_stop_and_status() {
	host
	status 0 hotcell daemon status --json
	same false "$(json "$OUT" 'd["running"]')" "running before anything"
	same "" "$(host_pids)" "started by asking"
	status 0 hotcell daemon stop
	same 'no daemon runs' "$(cat "$OUT")"
	status 0 hotcell create --isolation process --name box
	daemon=$(pid_of hotcelld) keeper=$(pid_of hotcell-keeper)
	status 0 hotcell daemon status --json
	same "true $daemon $keeper 1" "$(json "$OUT" '"%s %d %d %d" % (str(d["running"]).lower(), d["pid"], d["keeper_pid"], d["sandboxes"])')" "status"
	same "$HOTCELL_STATE $HOTCELL_RUN" "$(json "$OUT" 'd["state"] + " " + d["run"]')" "directories"
	for pid in $daemon $keeper; do # what ps shows
		contains "$(tr '\0' ' ' <"/proc/$pid/cmdline")" "--state $HOTCELL_STATE --run $HOTCELL_RUN "
	done
	status 5 hotcell daemon stop
	contains "$(cat "$ERR")" '1 sandbox runs and would end: box;'
	same "$daemon $keeper" "$(pid_of hotcelld) $(pid_of hotcell-keeper)" "after a refused stop"
	status 0 hotcell exec box -- true
	status 0 hotcell daemon stop --force
	same stopped "$(cat "$OUT")"
	contains "$(cat "$ERR")" 'ends with it: box'
	all_dead "$daemon" "$keeper" || fail "they live"
	same "" "$(host_pids)" "processes left"
	status 0 hotcell rm box # by a new daemon, which knows what became of it
	status 0 hotcell daemon stop # nothing runs
	same "" "$(host_pids)" "processes left"
}

# A keeper alone has machines that only a daemon can name.
test_daemon_stop_after_the_daemon_died() {
	host
	status 0 hotcell create --isolation process --name box
	keeper=$(pid_of hotcell-keeper)
	kill -KILL "$(pid_of hotcelld)"
	status 5 hotcell daemon stop
	contains "$(cat "$ERR")" 'would end: box'
	same "$keeper" "$(pid_of hotcell-keeper)" "the keeper"
	status 0 hotcell rm box
	status 0 hotcell daemon stop
	same "" "$(host_pids)" "processes left"
}

# Hard links count once, holes not at all, and what is said is what du says.
test_disk_is_counted() {
	host
	mkdir -p "$HOTCELL_STATE/snapshots/x"
	head -c 3145728 /dev/urandom >"$HOTCELL_STATE/snapshots/x/file"
	ln "$HOTCELL_STATE/snapshots/x/file" "$HOTCELL_STATE/snapshots/x/again"
	truncate -s 1G "$HOTCELL_STATE/snapshots/x/hole"
	status 0 hotcell daemon status --json
	for part in snapshots images kernels; do
		same "$(du -s --block-size=1 "$HOTCELL_STATE/$part" | cut -f 1)" "$(json "$OUT" "d['disk_bytes']['$part']")" "bytes of $part"
	done
	same True "$(json "$OUT" 'str(sum(v for k, v in d["disk_bytes"].items() if k != "total") == d["disk_bytes"]["total"])')" "the sum"
	status 0 hotcell daemon status
	contains "$(cat "$OUT")" 'does not run'
	contains "$(sed -n '/^disk/,$p' "$OUT")" '  snapshots  3.0 MiB'
}

# ---- templates ----

test_recipes_of_ones_own() {
	host
	umount "$HOTCELL_STATE/images" # an image that nobody else wants
	export HOTCELL_TEMPLATES="$SCRATCH/recipes"
	mkdir "$HOTCELL_TEMPLATES"
	printf 'name: fonts\npackages: [fontconfig, fonts-dejavu-core]\ndefaults:\n  memory_mb: 256\n' >"$HOTCELL_TEMPLATES/fonts.yaml"
	printf 'name: other\n' >"$HOTCELL_TEMPLATES/broken.yaml"
	status 0 hotcell image recipes --json
	same 'broken fonts' "$(python3 -c 'import json, sys; print(*(json.loads(l)["name"] for l in open(sys.argv[1])))' "$OUT")" "recipes"
	contains "$(sed -n 1p "$OUT")" '"error":"template broken: '
	contains "$(sed -n 2p "$OUT")" '"packages":2,"vcpus":1,"memory_mb":256'
	status 4 hotcell image build nosuch
	contains "$(cat "$ERR")" 'there is no recipe nosuch; there are: broken, fonts'
	status 0 hotcell image build fonts
	status 4 hotcell create --isolation process --template nosuch
	contains "$(cat "$ERR")" "there is no image nosuch (there are: fonts); if 'hotcell image recipes' lists it"
	# what is dear to make again in a guest came with the image, and holds there
	status 0 hotcell run --isolation process --template fonts -- fc-cache -v
	contains "$(cat "$OUT")" '/usr/share/fonts/truetype/dejavu: skipping, existing cache is valid: '
	status 0 hotcell image rm fonts
}

test_interrupted_build_leaves_nothing() {
	host
	umount "$HOTCELL_STATE/images"
	for signal in TERM INT; do
		mkdir "$SCRATCH/tmp$signal"
		# in front: a shell has what it starts behind itself ignore SIGINT
		TMPDIR=$SCRATCH/tmp$signal status 0 python3 -c 'import os, signal, subprocess, sys, time
build = subprocess.Popen(["hotcell", "image", "build", "base"], stderr=subprocess.PIPE)
tree, end = sys.argv[2] + "/images/.new/tree/usr", time.monotonic() + 120
while not os.path.isdir(tree):
    assert build.poll() is None and time.monotonic() < end, "the build did not begin"
    time.sleep(0.05)
build.send_signal(getattr(signal, "SIG" + sys.argv[1]))
said = build.communicate()[1].decode()
assert build.returncode not in (0, -signal.SIGTERM, -signal.SIGINT), build.returncode
assert "interrupted" in said, said' "$signal" "$HOTCELL_STATE"
		same "" "$(ls -A "$SCRATCH/tmp$signal")" "temporary files after $signal"
		same ".lock" "$(ls -A "$HOTCELL_STATE/images")" "images after $signal"
	done
}

# ---- packages that are missing ----

test_missing_packages_are_named_at_once() {
	mkdir "$SCRATCH/bin"
	printf '#!/bin/sh\nexit 1\n' >"$SCRATCH/bin/dpkg-query" # nothing is installed
	printf '#!/bin/sh\nexit 1\n' >"$SCRATCH/bin/sudo"
	chmod 755 "$SCRATCH" "$SCRATCH/bin" "$SCRATCH/bin"/*
	mkdir "$SCRATCH/tree"
	cp -r "$TOP/tools" "$TOP/quickstart" "$SCRATCH/tree"
	chmod -R a+rX "$SCRATCH/tree"
	for command in 'tools/install build run' ./quickstart; do
		# shellcheck disable=SC2086 # words
		status 1 timeout 60 setpriv --reuid 65534 --regid 65534 --clear-groups env PATH="$SCRATCH/bin:$PATH" \
			sh -c 'cd "$1" && shift && exec "$@"' sh "$SCRATCH/tree" $command
		same 1 "$(wc -l <"$ERR")" "lines said by $command"
		contains "$(cat "$ERR")" 'As root, type: apt-get install --no-install-recommends gcc '
		contains "$(cat "$ERR")" ' qemu-system-x86 '
	done
	status 0 timeout 60 setpriv --reuid 65534 --regid 65534 --clear-groups env PATH="$SCRATCH/bin:$PATH" \
		sh -c 'cd "$1" && exec tools/install --may test' sh "$SCRATCH/tree"
	contains "$(cat "$ERR")" ' libcmocka-dev '
}

run_tests
