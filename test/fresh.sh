#!/bin/sh
# test/fresh.sh [--suite SUITE] [--root DIR] [SUITE] [quickstart] [check [LANE...]] - what a stranger's first minutes are like
#
# Makes a minimal Debian (of this host's release, or of SUITE: bookworm, trixie) from where this host's apt has its
# own, copies what is committed here into it, and runs the two commands of the README there: as root, with an empty
# environment, in namespaces and control groups of its own. Nothing named: both. All of it is gone afterwards, except
# with --root, which keeps the file system, and uses it again. Too long for ./check; run by hand.
TOP=$(cd "$(dirname "$0")/.." && pwd) || exit 1
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
suite='' root='' kept='' commands='' lanes=''

usage() {
	echo "usage: sh test/fresh.sh [--suite SUITE] [--root DIR] [SUITE] [quickstart] [check [LANE...]]" >&2
	exit 2
}

give_up() {
	echo "fresh.sh: $*" >&2
	exit 1
}

# ---- inside: in namespaces of our own, the new root is at $1 ----

# The control groups of the namespace, so that nothing here meets those of a daemon outside.
mount_groups() {
	mount -t tmpfs -o mode=755 none "$1/sys/fs/cgroup"
	if ! grep -q '^[^ ]* [^ ]* cgroup ' /proc/self/mounts; then
		mount -t cgroup2 none "$1/sys/fs/cgroup"
		return
	fi
	while IFS=: read -r _ controllers _; do
		case $controllers in
		'' | name=*) continue ;;
		esac
		mkdir "$1/sys/fs/cgroup/$controllers"
		mount -t cgroup -o "$controllers" none "$1/sys/fs/cgroup/$controllers"
	done </proc/self/cgroup
}

inside() {
	set -eu
	at=$1
	shift
	mount --bind "$at" "$at" # a root that is no mount point is refused what a root may do
	mount -t proc none "$at/proc"
	mount -t sysfs none "$at/sys"
	mount_groups "$at"
	mount --rbind /dev "$at/dev"
	mount -t tmpfs -o mode=755 none "$at/run"
	mount -t tmpfs -o mode=1777 none "$at/tmp"
	umask 022
	# Whose root was changed by chroot may make no user namespaces; so the root of this namespace is exchanged. The
	# new one may lack umount.
	cd "$at"
	mkdir -p mnt
	pivot_root . mnt
	libraries=/mnt/lib/x86_64-linux-gnu:/mnt/usr/lib/x86_64-linux-gnu
	/mnt/lib64/ld-linux-x86-64.so.2 --library-path $libraries /mnt/bin/umount -l /mnt
	# shellcheck disable=SC2016 # the inner shell expands it
	exec /usr/bin/env -i /bin/sh -c 'cd /root/hotcell && exec "$@"' sh "$@"
}

# ---- outside ----

# sources SUITE - apt's lines for it, from where this host has its own release
sources() {
	here=$(. /etc/os-release && echo "$VERSION_CODENAME")
	[ ! -f $KEYRING ] || signed="[signed-by=$KEYRING] "
	apt-get indextargets --format '$(RELEASE)|$(REPO_URI)|$(COMPONENT)|$(ORIGIN)|' 'Created-By: Packages' |
		awk -F '|' -v here="$here" -v suite="$1" -v signed="${signed:-}" '
			$3 == "main" && $4 == "Debian" && ($1 == here || $1 == here "-updates" || $1 == here "-security") {
				print "deb", signed, $2, suite substr($1, length(here) + 1), "main"
			}' | sort -u
}

# apt_options - what this host's apt was told about getting there
apt_options() {
	apt-config dump --no-empty --format '%f "%v";%n' Acquire |
		grep -E '^Acquire::(https?::Proxy|https::CaInfo|Check-Valid-Until|Check-Date|Retries) '
}

make_root() {
	sources "$suite" >"$work/sources"
	apt_options >"$work/apt"
	[ -s "$work/sources" ] || give_up "apt here has no source of Debian; is there an 'apt-get update' to be done?"
	extra=
	! grep -q https: "$work/sources" || extra=--include=ca-certificates
	mmdebstrap --quiet --mode=root --variant=apt ${extra:+"$extra"} --aptopt="$work/apt" "$suite" "$root.new" - \
		<"$work/sources" >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; give_up "mmdebstrap failed"; }
	sed 's/ \[signed-by=[^]]*\]//' "$work/sources" >"$root.new/etc/apt/sources.list"
	cp "$work/apt" "$root.new/etc/apt/apt.conf.d/90host"
	cat /etc/resolv.conf >"$root.new/etc/resolv.conf"
	cat /etc/hosts >"$root.new/etc/hosts"
	mv "$root.new" "$root"
}

# Each hierarchy gets a group for us, and we are in it: the root of the namespace that follows.
enter_groups() {
	while IFS=: read -r _ controllers path; do
		mounted=$(awk -v c="$controllers" '
			$3 == "cgroup2" && c == "" { print $2; exit }
			$3 == "cgroup" && c != "" { n = split(c, want, ","); for (i = 1; i <= n; i++) if ("," $4 "," !~ "," want[i] ",") next; print $2; exit }
		' /proc/self/mounts)
		[ -n "$mounted" ] || continue
		group=$mounted$path/hotcell-fresh.$$
		mkdir "$group" || continue
		if [ -f "$group/cpuset.cpus" ] && [ -z "$(cat "$group/cpuset.cpus")" ] && [ ! -f "$group/cgroup.controllers" ]; then
			cat "$mounted$path/cpuset.cpus" >"$group/cpuset.cpus"
			cat "$mounted$path/cpuset.mems" >"$group/cpuset.mems"
		fi
		echo "$group" >>"$work/groups"
	done </proc/self/cgroup
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
	trap - EXIT INT TERM
	[ -z "${child:-}" ] || { kill -KILL "$child" 2>/dev/null; wait "$child" 2>/dev/null; }
	while read -r group; do
		for i in 1 2 3 4 5 6 7 8 9 10; do # the last process is dying
			find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
			[ "$i" -lt 10 ] || echo "fresh.sh: left: $group" >&2
			sleep 0.5
		done
	done <"$work/groups"
	rm -rf --one-file-system "$work"
}

# run COMMAND... - in the new root, and wait for it
run() {
	echo "== $suite: $*"
	# shellcheck disable=SC2016 # the inner shell expands it
	sh -c 'while read -r group; do echo $$ >"$group/cgroup.procs"; done <"$1"; shift; exec "$@"' sh "$work/groups" \
		unshare --mount --pid --cgroup --ipc --uts --fork --kill-child sh "$TOP/test/fresh.sh" --inside "$root" "$@" &
	child=$!
	wait $child
	result=$?
	child=
	echo "== $suite: $*: status $result"
	[ $result -eq 0 ] || failed=1
}

if [ "${1:-}" = --inside ]; then
	shift
	inside "$@"
fi
while [ $# -gt 0 ]; do
	case $1 in
	--suite) [ $# -gt 1 ] || usage; suite=$2; shift ;;
	--root) [ $# -gt 1 ] || usage; root=$2 kept=1; shift ;;
	quickstart) commands="$commands quickstart" ;;
	check) commands="$commands check"; shift; lanes=$*; break ;;
	bookworm | trixie) suite=$1 ;;
	*) usage ;;
	esac
	shift
done
[ "$(id -u)" -eq 0 ] || give_up "needs root"
for program in mmdebstrap unshare git apt-get pivot_root; do
	command -v $program >/dev/null || give_up "$program is not installed; type: apt-get install mmdebstrap util-linux git"
done
# shellcheck source=/dev/null
suite=${suite:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
work=$(mktemp -d "${TMPDIR:-/tmp}/hotcell-fresh.XXXXXX") || exit 1
chmod 755 "$work"
root=${root:-$work/root} failed=0 child=
: >"$work/groups"
trap clean_up EXIT
trap 'exit 130' INT TERM
if [ ! -d "$root" ]; then
	echo "== a minimal Debian, $suite"
	make_root
fi
rm -rf "$root/root/hotcell.new"
git clone -q --no-hardlinks "$TOP" "$root/root/hotcell.new" || give_up "git clone failed"
if [ "$kept" ] && [ -d "$root/root/hotcell" ]; then # its build directories stay
	find "$root/root/hotcell" -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
	cp -a "$root/root/hotcell.new/." "$root/root/hotcell/"
	rm -rf "$root/root/hotcell.new"
else
	mv "$root/root/hotcell.new" "$root/root/hotcell"
fi
enter_groups
for command in ${commands:-quickstart check}; do
	case $command in
	quickstart) run ./quickstart ;;
	check)
		# shellcheck disable=SC2086 # a list of words
		run ./check $lanes
		;;
	esac
done
[ $failed -eq 0 ]
