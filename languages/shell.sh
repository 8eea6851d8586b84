# shell.sh - a live bash that runs what hotcell sends it
# hotcell-language: bash --norc --noprofile
#
# Frames on descriptor 3 (doc/code.md), which moves out of the way of what sources open. Everything happens at the
# top level, so that what a source declares stays; each is sourced, so that an interrupt can return out of it from
# any depth. A source that ends the shell without saying exit (an unset variable under set -u) has its state carried
# over into a new shell in the same process.

# Read whole, and kept for that: standard input, which this comes from, becomes empty.
IFS= read -r -d '' __hc_program; eval "$__hc_program"; exit

if [ -z "${__hc_revived-}" ]; then
	exec </dev/null 62<&3 3<&-
	__hc_link=$(readlink /proc/$$/fd/62)
fi

# One unsigned little-endian number of $1 bytes, into __hc_number. An empty read is a NUL.
__hc_read() {
	local LC_ALL=C byte code shift=0
	__hc_number=0
	while [ "$shift" -lt "$((8 * $1))" ]; do
		IFS= read -r -d '' -n 1 -u 62 byte || return 1
		printf -v code %d "'$byte"
		[ -n "$byte" ] || code=0
		__hc_number=$((__hc_number | (code & 255) << shift))
		shift=$((shift + 8))
	done
}

# $1 bytes without a NUL: source.
__hc_text() {
	local LC_ALL=C
	__hc_source=
	[ "$1" -eq 0 ] || IFS= read -r -N "$1" -u 62 __hc_source
}

# Texts with a NUL behind each, $1 bytes together: into the array __hc_texts.
__hc_read_texts() {
	local LC_ALL=C left=$1 text
	__hc_texts=()
	while [ "$left" -gt 0 ]; do
		IFS= read -r -d '' -u 62 text || return 1
		__hc_texts+=("$text")
		left=$((left - ${#text} - 1))
	done
}

# A frame of kind $1 with $2 bytes, which printf(1) makes of $3.
__hc_frame() {
	local head
	printf -v head '\\x%02x\\x%02x\\x%02x\\x%02x' "$1" "$(($2 & 255))" "$(($2 >> 8 & 255))" "$(($2 >> 16))"
	printf "$head$3" >&62
}

# SIGINT: from here on every command of the source returns instead. Its children got the signal themselves.
__hc_interrupt() {
	[ "$__hc_state" = running ] || return 0
	__hc_state=interrupted
	shopt -s extdebug
	trap '__hc_return' DEBUG
}
# With extdebug, 2 leaves the function or the sourced file; back at our own level nothing is left to leave.
__hc_return() { [ "${#FUNCNAME[@]}" -lt 2 ] || return 2; }

# A command failed. Under set -e that would end the shell; what it has to end is the source.
__hc_failed() {
	case $-,$BASH_SUBSHELL,$__hc_state in
	*e*,0,running) ;;
	*) return 0 ;;
	esac
	set +e
	__hc_state=failed __hc_had_e=e __hc_code=$1
	shopt -s extdebug
	trap '__hc_return' DEBUG
}

exit() {
	[ "$BASH_SUBSHELL" -ne 0 ] || __hc_state=leaving
	builtin exit "$@"
}

# The shell ends in the middle of a source. All it knows goes into a file that a new one begins with.
__hc_carry_over() {
	[ "$BASH_SUBSHELL" -eq 0 ] && [ "$__hc_state" != leaving ] && [ "$__hc_state" != idle ] || return 0
	__hc_code=$1 __hc_keep=${-//[!euvx]/}
	set +euvx
	trap - DEBUG ERR EXIT
	shopt -u extdebug
	# The source had no 62. Where the shell keeps it, only the shell knows; that one is closed by exec, and so is
	# a copy of it, unless it goes by way of 2.
	exec 61>&2
	for __hc_file in /proc/$$/fd/*; do
		[ "$(readlink "$__hc_file")" != "$__hc_link" ] || exec 2<&"${__hc_file##*/}"
	done
	exec 62<&2 2>&61 61>&-
	__hc_file=$(mktemp) || return 0
	{
		shopt -p
		declare -fp
		alias -p
		declare -p # those that can't be set say so, and the rest is
		printf 'umask %s\n' "$(umask)"
	} >|"$__hc_file" 2>/dev/null # also under set -C
	__hc_revived=1 exec bash --norc --noprofile -c '. "$0" 2>/dev/null; rm -f "$__hc_file"; eval "$__hc_program"' "$__hc_file"
}

__hc_end() {
	local outcome=0 code=$1 bytes
	if [ "$__hc_state" = interrupted ]; then
		outcome=2 code=130
	elif [ "$code" -ne 0 ]; then
		outcome=1
	fi
	__hc_state=idle
	printf -v bytes '\\x%02x\\x%02x\\x00\\x00\\x00' "$outcome" "$code"
	__hc_frame 6 5 "$bytes"
}

trap __hc_interrupt INT
trap 'RANDOM=$SRANDOM' USR2
trap '__hc_carry_over $?' EXIT
if [ -n "${__hc_revived-}" ]; then
	unset -v __hc_revived
	__hc_end "$__hc_code"
else
	__hc_state=idle __hc_keep=
	__hc_frame 1 0 ''
fi

while __hc_read 1; do
	__hc_kind=$__hc_number
	__hc_read 3 || break
	case $__hc_kind in
	1)
		__hc_text "$__hc_number" || break
		__hc_state=running
		__hc_frame 2 0 ''
		# The options e, u, v and x are the source's, not ours.
		__hc_had_e=
		set -E
		trap '__hc_failed $?' ERR
		. /proc/self/fd/63 62<&- 63<<<"${__hc_keep:+set -$__hc_keep; }${__hc_source#$'\xef\xbb\xbf'}"
		{
			__hc_status=$? __hc_keep=${-//[!euvx]/}$__hc_had_e
			trap - DEBUG ERR
			shopt -u extdebug
			set +euvxE
			[ "$__hc_state" != failed ] || __hc_status=$__hc_code
		} 2>/dev/null
		__hc_end "$__hc_status"
		;;
	2)
		RANDOM=$SRANDOM
		__hc_text "$__hc_number" || break
		__hc_frame 7 16 "$__hc_source"
		;;
	3)
		__hc_read_texts "$__hc_number" || break
		for __hc_source in "${__hc_texts[@]}"; do
			case $__hc_source in
			*=*) export "$__hc_source" ;;
			*) unset -v "$__hc_source" ;;
			esac
		done 2>/dev/null # names that are none here, and read-only ones
		;;
	esac
done
__hc_state=leaving
