# shellcheck shell=sh
# test/suite.sh - what holds behind every wall. Sourced by process_suite.sh and vm_suite.sh, which set
# ISOLATION (what is asked for) and name the tests. HOTCELL_FULL=1: at full size.
. "${0%/*}/lib.sh"

FULL=${HOTCELL_FULL:-}

# small SIZE FULL_SIZE
size() {
	if [ -n "$FULL" ]; then echo "$2"; else echo "$1"; fi
}

# box OPTION... - a host, and a sandbox called "box"
box() {
	host
	status 0 hotcell create --isolation "$ISOLATION" --name box "$@"
}

# done_with - the sandboxes go, and nothing is left
done_with() {
	status 0 hotcell rm --all
	no_traces
}

# says STATUS STDOUT ARGUMENT... - hotcell exec box ARGUMENT... ends and prints like this
says() {
	want_status=$1 want_text=$2
	shift 2
	status "$want_status" hotcell exec box "$@"
	same "$want_text" "$(cat "$OUT")" "stdout of $*"
}

# refuses STATUS WORDS ARGUMENT... - hotcell ARGUMENT... fails with one sentence that holds these words
refuses() {
	want_status=$1 words=$2
	shift 2
	status "$want_status" hotcell "$@"
	same 1 "$(grep -c . "$ERR")" "lines on standard error of hotcell $*: $(cat "$ERR")"
	contains "$(cat "$ERR")" "$words"
}

# The wall that this host can give a machine.
expected_wall() {
	case $ISOLATION in
	process) echo process ;;
	*) hotcell-keeper --probe --json >"$SCRATCH/probe" 2>/dev/null || true
	   if grep -q '"kvm": *true' "$SCRATCH/probe"; then echo vm; else echo vm-emulated; fi ;;
	esac
}

# ---- run ----

suite_run() {
	host
	program='import os,sys;print(6*7);print(os.uname().release);sys.exit(3)'
	status 3 hotcell run --isolation "$ISOLATION" -- python3 -c "$program"
	same 42 "$(sed -n 1p "$OUT")" "the answer"
	inside=$(sed -n 2p "$OUT")
	[ -n "$inside" ] || fail "no kernel printed"
	case $ISOLATION in
	process) same "$(uname -r)" "$inside" "kernel" ;;
	*) [ "$(uname -r)" != "$inside" ] || fail "the kernel inside is the host's, $inside" ;;
	esac
	no_traces
	status 3 hotcell run --json --isolation "$ISOLATION" -- python3 -c "$program"
	same "$(expected_wall)" "$(json "$OUT" 'd["wall"]')" "wall"
	same 3 "$(json "$OUT" 'd["exit_code"]')" "exit code"
	same "$inside" "$(json "$OUT" 'd["kernel"]')" "kernel in JSON"
	same "42
$inside" "$(json "$OUT" 'd["stdout"].rstrip()')" "stdout in JSON"
	no_traces
}

# ---- programs ----

suite_exec() {
	box --env FROM=create
	says 0 'hello' -- echo hello
	says 0 'a b|c"d|$e|' -- printf '%s|' 'a b' 'c"d' '$e'
	says 7 '' -- sh -c 'exit 7'
	says 143 '' -c 'kill -TERM $$'
	says 137 '' -c 'kill -KILL $$'
	says 0 'one two create' --env A=one --env 'B=two' -c 'echo $A $B $FROM'
	says 0 'exec' --env FROM=exec -c 'echo $FROM'
	says 0 '/home/user' -- pwd
	says 0 '/usr' --cwd /usr -- pwd
	says 0 'user 1000' -c 'echo $(id -un) $(id -u)'
	says 0 'root 0' --user root -c 'echo $(id -un) $(id -u)'
	says 0 '/home/user user' -c 'echo $HOME $USER'
	says 1 'not a tty' -c 'tty'
	says 0 'box' -- hostname
	says 0 '0' --no-stdin -c 'wc -c'
	says 0 '1' -c 'ls /proc | grep -cx 1'
	refuses 127 'no-such-program' exec box -- no-such-program
	refuses 127 '/no/such/program' exec box -- /no/such/program
	refuses 126 '/etc/passwd' exec box -- /etc/passwd
	refuses 125 '/no/such/dir' exec --cwd /no/such/dir box -- true
	refuses 125 'nobody-known' exec --user nobody-known box -- true
	refuses 125 'no-such-box' exec no-such-box -- true
	done_with
}

suite_streams() {
	box
	mib=$(size 10 10)
	head -c "${mib}M" /dev/urandom >"$SCRATCH/input"
	sum=$(sha256sum <"$SCRATCH/input" | cut -d ' ' -f 1)
	hotcell exec box -- sha256sum <"$SCRATCH/input" >"$SCRATCH/got"
	same "$sum  -" "$(cat "$SCRATCH/got")" "sha256 of $mib MiB on stdin"
	hotcell exec box -- cat <"$SCRATCH/input" | cmp - "$SCRATCH/input" || fail "cat gave other bytes back"
	# two streams, apart
	says 0 'out' -c 'echo out; echo err >&2'
	same 'err' "$(cat "$ERR")" "stderr"
	# in order when read as one
	hotcell exec box -c 'for i in 1 2 3 4 5; do echo o$i; sleep 0.2; echo e$i >&2; sleep 0.2; done' >"$SCRATCH/both" 2>&1
	same 'o1 e1 o2 e2 o3 e3 o4 e4 o5 e5' "$(tr '\n' ' ' <"$SCRATCH/both" | sed 's/ $//')" "order"
	# live: the program waits for an answer to what it said
	mkfifo "$SCRATCH/to" "$SCRATCH/from"
	hotcell exec box -c 'echo question; read -r answer; echo got $answer' <"$SCRATCH/to" >"$SCRATCH/from" &
	talk=$!
	exec 8>"$SCRATCH/to" 9<"$SCRATCH/from"
	read -r line <&9
	same question "$line" "first line"
	echo forty-two >&8
	exec 8>&-
	read -r line <&9
	exec 9<&-
	same 'got forty-two' "$line" "second line"
	wait $talk || fail "exit status $?"
	# a reader that goes away ends the program as a closed pipe would
	hotcell exec box -- yes | head -n 1 >"$SCRATCH/one"
	same y "$(cat "$SCRATCH/one")" "a line of yes"
	eventually 10 sh -c '! hotcell ps box | grep -q yes'
	# JSON
	status 9 hotcell exec --json box -c 'printf out; printf err >&2; exit 9'
	same 'out err 9 exited' "$(json "$OUT" '" ".join([d["stdout"], d["stderr"], str(d["exit_code"]), d["exit"]["reason"]])')"
	done_with
}

# The program's own streams, by the names that files have.
suite_standard_files() {
	box
	for user in user root 4711 4711:77; do
		echo in | status 0 hotcell exec --user "$user" box -c 'cat /dev/stdin; echo out >/dev/stdout
			echo both | tee /dev/stderr; echo fd >/proc/self/fd/1; echo err >/dev/stderr'
		same 'in out both fd' "$(paste -s -d ' ' "$OUT")" "stdout of $user"
		same 'both err' "$(paste -s -d ' ' "$ERR")" "stderr of $user"
		echo in | status 0 hotcell exec -t --user "$user" box -c 'read x </dev/stdin; echo out >/dev/stdout; echo err >/dev/stderr'
		same 'in out err' "$(tr -d '\r' <"$OUT" | paste -s -d ' ')" "terminal of $user"
	done
	runs 0 'out' 'import sys
with open("/dev/stdout", "w") as f: f.write("out\n")
with open("/dev/stderr", "w") as f: f.write("err\n")'
	same err "$(cat "$ERR")" "/dev/stderr of code"
	runs 0 'x' --language shell 'echo x | tee /dev/stderr'
	same x "$(cat "$ERR")" "/dev/stderr of code in a shell"
	done_with
}

# What can't be read is no empty input, what can't be written no success.
suite_broken_streams() {
	box
	refuses 125 'read standard input (--no-stdin gives the program an empty one): Is a directory' exec box -- wc -c </
	refuses 125 'standard input' exec box -- wc -c <&-
	refuses 125 'standard input: Is a directory' code run box - </
	refuses 125 'standard input' code run box - <&-
	refuses 2 'standard input: Is a directory' cp - box:/tmp/directory </
	status 13 hotcell cp - box:/tmp/closed <&-
	says 1 '' -c 'test -e /tmp/directory || test -e /tmp/closed'
	says 0 0 --no-stdin -- wc -c <&-
	status 125 sh -c 'exec hotcell exec box -- echo lost >&-'
	status 125 sh -c 'exec hotcell exec box -- echo lost >/dev/full'
	done_with
}

# Texts beyond ASCII, and the end of a terminal's input.
suite_text() {
	box
	says 0 UTF-8 -- locale charmap
	says 0 ANSI_X3.4-1968 --env LANG=C -- locale charmap
	runs 0 "('C.UTF-8', 'UTF-8')" 'import locale, os
os.environ["LANG"], locale.getpreferredencoding()'
	runs 0 UTF-8 --language shell 'locale charmap'
	status 0 hotcell exec -t box -c 'touch é; ls -d é' </dev/null
	same é "$(tr -d '\r' <"$OUT")" "a name on a terminal"
	printf 'aé\177b\n' | status 0 hotcell exec -t box -c 'read -r x; echo "=$x="'
	same '=ab=' "$(tr -d '\r' <"$OUT" | tail -n 1)" "a line with a character that was taken back"
	# lines, and lines that were only begun; for every program that reads on
	printf abc | status 0 timeout 60 hotcell exec -t box -- cat
	same abcabc "$(cat "$OUT")" "echo and output of a line without an end"
	printf 'cat\nx\n' | status 0 timeout 60 hotcell exec -t box -- sh
	status 0 timeout 60 hotcell exec -t box -c 'cat; cat; sleep 0.2; cat; echo done' </dev/null
	same 'done' "$(tr -d '\r' <"$OUT")" "three readers of nothing"
	printf 'exit 4\n' | status 4 timeout 60 hotcell exec -t box -- bash --norc -i
	printf 'true\n' | status 0 timeout 60 hotcell exec -t box -- bash --norc -i
	status 3 timeout 60 hotcell exec -t --no-stdin box -c 'cat; exit 3'
	# who reads keys gets one for the end
	mkfifo "$SCRATCH/keys"
	timeout 60 hotcell exec -t box -c 'stty raw -echo; echo ready; head -c 2 | od -An -tx1' <"$SCRATCH/keys" >"$SCRATCH/seen" &
	client=$!
	exec 8>"$SCRATCH/keys"
	eventually 30 grep -q ready "$SCRATCH/seen"
	printf x >&8
	exec 8>&-
	wait $client || fail "exit status $?"
	same ' 78 04' "$(tail -n 1 "$SCRATCH/seen" | tr -d '\r')" "keys"
	done_with
}

# One stream for both, in the order it was written; and less of it than there is.
suite_one_stream() {
	box
	both='for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done'
	says 0 "$(sh -c "$both" 2>&1)" --merge-output -c "$both"
	same '' "$(cat "$ERR")" "stderr"
	status 0 hotcell exec --json --merge-output box -c "$both"
	same "$(sh -c "$both" 2>&1 | paste -s -d ' ')" "$(json "$OUT" 'd["stdout"].replace("\n", " ").strip()')"
	same '' "$(json "$OUT" 'd["stderr"]')"
	status 0 hotcell run --isolation "$ISOLATION" --merge-output -c "$both"
	same "$(sh -c "$both" 2>&1)" "$(cat "$OUT")" "stdout of run"
	status 0 hotcell exec --json --max-output 3 box -c 'echo abcdef'
	same 'abc 7 true' "$(json "$OUT" '" ".join([d["stdout"], str(d["stdout_bytes"]), json.dumps(d["stdout_truncated"])])')"
	status 0 hotcell exec --json --max-output 2K box -c 'head -c 5000 /dev/zero'
	same '2048 5000' "$(json "$OUT" 'str(len(d["stdout"])) + " " + str(d["stdout_bytes"])')"
	refuses 125 '--max-output: 0 is out of range; allowed is 1 to' exec --max-output 0 box -- true
	# a time limit that strikes before the program runs
	for i in 1 2 3 4 5 6 7 8; do
		status 124 hotcell exec --timeout 1ms box -- sleep 1000
		contains "$(cat "$ERR")" 'longer than --timeout'
	done
	done_with
}

# As much as Linux itself takes, in arguments and in the environment.
suite_arguments() {
	box --env "BOX=$(printf '%020000d' 0)"
	python3 "$TOP/test/arguments.py" box || fail "arguments.py"
	done_with
}

# What can't be is refused before anything is booted, and what is allowed works.
suite_names() {
	host
	status 0 hotcell create --isolation "$ISOLATION" --name my_box_
	status 0 hotcell exec my_box_ -- hostname
	same my-box "$(cat "$OUT")" "host name"
	status 0 hotcell exec my_box_ -c 'getent hosts "$(hostname)"'
	for name in -x .x 'a b' a/b 0123456789abcdef0123456789abcdef; do
		status 2 hotcell create --isolation "$ISOLATION" "--name=$name"
		status 2 hotcell fork "--name=$name" my_box_
		status 2 hotcell snapshot create "--name=$name" my_box_
	done
	refuses 5 my_box_ fork --name my_box_ my_box_
	refuses 7 'no program can start' create --isolation "$ISOLATION" --pids 2
	status 0 hotcell list --json
	same 1 "$(grep -c . "$OUT")" "sandboxes"
	hotcell snapshot list --json >"$OUT"
	same 0 "$(grep -c . "$OUT" || true)" "snapshots"
	done_with
}

# Numbers are users whatever stands in /etc/passwd; that file is the workload's.
suite_users() {
	box
	who='while read -r a b c; do case $a in Uid: | Gid:) echo "$b" ;; esac; done </proc/self/status; pwd; echo "$HOME"'
	says 0 '0 5' --user 0:5 -c 'echo $(id -u) $(id -g)'
	says 0 '1000 77' --user 1000:77 -c 'echo $(id -u) $(id -g)'
	says 0 '/home/user' --user 1000 -c 'echo $HOME'
	for bad in 'mkfifo /etc/passwd' 'mkdir /etc/passwd' 'truncate -s 2M /etc/passwd' 'ln -s passwd /etc/passwd' 'true' \
		'echo 0:x:1000:1000::/home/user:/bin/sh >/etc/passwd' 'head -c 100000 /dev/urandom >/etc/passwd'; do
		status 0 hotcell exec --user 0 box -c "rm -rf /etc/passwd; $bad"
		says 0 '0
0
/
/' --user 0 -c "$who"
		says 0 '4711
12
/
/' --user 4711:12 -c "$who"
		says 0 '0
0
/root
/root' --user root -c "$who"
		status 125 hotcell exec --user user box -- true
	done
	status 0 hotcell exec --user 0 box -c 'rm -f /etc/passwd; mkfifo /etc/passwd'
	refuses 125 '--user 0 (root) and other numbers work without that file' exec box -- true
	echo x | hotcell cp --user 0 - box:/root/there
	says 0 x --user 0 -- cat /root/there
	done_with
}

suite_timeout() {
	box
	# a tree that leaves its session and its parent
	tree='import os, time
for i in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", str(7000 + i)])
        os._exit(0)
print("started", flush=True)
time.sleep(1000)'
	status 124 hotcell exec --timeout 4s box -- python3 -c "$tree"
	same started "$(cat "$OUT")" "stdout"
	contains "$(cat "$ERR")" timeout
	eventually 10 sh -c '! hotcell ps box | grep -E "sleep 700|python3"'
	# Ctrl-C to the client reaches the program
	hotcell exec box -c 'trap "echo interrupted; exit 3" INT; echo ready; while :; do sleep 0.1; done' >"$SCRATCH/out" &
	client=$!
	eventually 20 grep -q ready "$SCRATCH/out"
	kill -INT $client
	got=0
	wait $client || got=$?
	same "3 ready interrupted" "$got $(tr '\n' ' ' <"$SCRATCH/out" | sed 's/ $//')" "after SIGINT"
	done_with
}

suite_terminal() {
	box
	python3 "$TOP/test/terminal.py" box || fail "terminal.py"
	done_with
}

suite_sessions() {
	box
	# detached, found again, followed from its first byte
	number=$(hotcell exec --detach --tag server box -c 'for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.3; done; exit 6')
	status 0 hotcell sessions --json box
	same "server True" "$(head -n 1 "$OUT" | python3 -c 'import json,sys; d=json.load(sys.stdin); print(d["tag"], d["running"])')"
	hotcell attach --no-stdin box "$number" >"$SCRATCH/second" &
	second=$!
	status 6 hotcell attach --no-stdin box "$number"
	lines=$(printf 'line %s\n' 1 2 3 4 5 6 7 8)
	same "$lines" "$(cat "$OUT")" "first follower"
	got=0
	wait $second || got=$?
	same "6 $lines" "$got $(cat "$SCRATCH/second")" "second follower"
	# it can be followed after its end
	status 6 hotcell attach --no-stdin box "$number"
	same "$lines" "$(cat "$OUT")" "after the end"
	# without anybody's interest an ordinary session ends
	hotcell exec box -- sleep 8123 &
	client=$!
	eventually 20 sh -c 'hotcell ps box | grep "sleep 8123"'
	kill -KILL $client
	eventually 45 sh -c '! hotcell ps box | grep "sleep 8123"'
	# signals by name and number
	number=$(hotcell exec --detach box -- sleep 8124)
	status 0 hotcell signal box "$number" TERM
	status 143 hotcell attach --no-stdin box "$number"
	number=$(hotcell exec --detach box -- sleep 8125)
	status 0 hotcell signal box "$number" 9
	status 137 hotcell attach --no-stdin box "$number"
	refuses 125 9999 attach --no-stdin box 9999
	# a program does not wait for who may miss output: it ends while nothing is read, and its last words come
	mkfifo "$SCRATCH/slow"
	hotcell exec --on-slow drop box -c 'head -c 8M /dev/zero; echo last words; touch ended' >"$SCRATCH/slow" &
	client=$!
	exec 8<"$SCRATCH/slow"
	eventually 30 hotcell exec box -- test -e ended
	cat <&8 >"$SCRATCH/slow-output"
	exec 8<&-
	wait $client || fail "exit status $?"
	same 'last words' "$(tail -c 11 "$SCRATCH/slow-output")" "the end of what was read slowly"
	got=$(stat -c %s "$SCRATCH/slow-output")
	[ "$got" -lt 4000000 ] || fail "nothing was left out: $got bytes"
	python3 "$TOP/test/slow.py" box || fail "slow.py"
	done_with
}

# ---- files ----

suite_files() {
	box --memory 512M --disk 200M
	mib=$(size "$1" 64)
	: >"$SCRATCH/empty"
	head -c "${mib}M" /dev/urandom >"$SCRATCH/big"
	python3 -c 'import sys; open(sys.argv[1], "wb").write(bytes(range(256)) * 3)' "$SCRATCH/binary"
	chmod 0640 "$SCRATCH/binary"
	for name in empty big binary; do
		status 0 hotcell cp --json "$SCRATCH/$name" "box:/home/user/in/$name"
		same "$(sha256sum <"$SCRATCH/$name" | cut -d ' ' -f 1)" "$(json "$OUT" 'd["sha256"]')" "sha256 of $name sent"
		status 0 hotcell cp "box:in/$name" "$SCRATCH/back-$name"
		cmp "$SCRATCH/$name" "$SCRATCH/back-$name" || fail "$name came back different"
	done
	same 640 "$(stat -c %a "$SCRATCH/back-binary")" "mode that came back"
	says 0 '640 user user 768' -- stat -c '%a %U %G %s' in/binary
	says 0 "$(sha256sum <"$SCRATCH/big" | cut -d ' ' -f 1)  in/big" -- sha256sum in/big
	echo piped | hotcell cp - box:/tmp/piped
	same piped "$(hotcell cp box:/tmp/piped -)" "by way of standard output"
	hotcell cp --user root "$SCRATCH/binary" box:/root/secret
	# changes, as they happen
	says 0 '' -- mkdir seen
	hotcell watch --recursive box:seen >"$SCRATCH/changes" &
	watcher=$!
	eventually 20 sh -c "hotcell exec box -- touch seen/probe && grep -q probe '$SCRATCH/changes'"
	says 0 '' -c 'echo x >seen/new; mv seen/new seen/newer; rm seen/newer'
	eventually 20 grep -qx 'remove newer' "$SCRATCH/changes"
	same 'create new,write new,rename new,create newer,remove newer' \
		"$(grep -v probe "$SCRATCH/changes" | paste -s -d ,)" "changes"
	kill -TERM $watcher
	wait $watcher || same 143 $? "exit status of watch"
	refuses 4 'seen/none' watch box:seen/none
	refuses 6 secret cp box:/root/secret "$SCRATCH/stolen"
	[ ! -e "$SCRATCH/stolen" ] || fail "a file that could not be read was made"
	refuses 4 '/no/such/file' cp box:/no/such/file "$SCRATCH/none"
	refuses 4 'no-such-file' cp "$SCRATCH/no-such-file" box:/tmp/
	refuses 6 '/etc' cp "$SCRATCH/binary" box:/etc/new
	# a full disk: a clear sentence, no half file, the sandbox goes on
	status 7 sh -c 'head -c 300M /dev/zero | hotcell cp - box:/home/user/too-big'
	contains "$(cat "$ERR")" 'no space left'
	says 1 '' -c 'test -e too-big'
	says 0 'still here' -- echo still here
	# what would turn a terminal's text around is shown, not done: right-to-left, and a C1 control
	says 0 '' -c 'mkdir odd; touch "odd/$(printf "a\342\200\256b\302\233c")"'
	same 'a\xe2\x80\xaeb\xc2\x9bc' "$(hotcell ls box:odd)" "an odd name"
	same 'a\u202eb\u009bc' "$(hotcell ls --json box:odd | sed 's/.*"path":"\([^"]*\)".*/\1/')" "an odd name in JSON"
	# what is listed is what is there
	same "$(hotcell ls box:in | tr '\n' ' ')" 'big binary empty ' "hotcell ls"
	done_with
}

suite_trees() {
	box
	python3 "$TOP/test/tree.py" make "$SCRATCH/tree"
	chmod 555 "$SCRATCH/tree/read-only"
	status 0 hotcell cp "$SCRATCH/tree" box:/home/user/tree
	status 0 hotcell cp box:tree "$SCRATCH/back"
	python3 "$TOP/test/tree.py" same "$SCRATCH/tree" "$SCRATCH/back" || fail "the tree came back different"
	# a tree that wants out of the directory it is copied to
	echo host >"$SCRATCH/target"
	mkdir "$SCRATCH/jail"
	status 0 hotcell exec box -c 'mkdir -p evil/deep && cd evil && ln -s /etc/passwd absolute && ln -s ../../target above &&
		ln -s deep inner && echo x >deep/file && mkfifo pipe && ln -s ../../../../../../tmp deep/out'
	status 1 hotcell cp box:evil "$SCRATCH/jail/"
	for name in absolute above deep/out pipe; do
		[ ! -e "$SCRATCH/jail/evil/$name" ] && [ ! -L "$SCRATCH/jail/evil/$name" ] || fail "$name was copied out"
	done
	same deep "$(readlink "$SCRATCH/jail/evil/inner")" "a link within the tree"
	same x "$(cat "$SCRATCH/jail/evil/inner/file")" "a file behind it"
	for name in absolute above deep/out pipe; do
		contains "$(cat "$ERR")" "$name: not copied"
	done
	# what is written through a link inside the target must not leave it
	ln -s "$SCRATCH" "$SCRATCH/jail/evil2"
	rm -rf "$SCRATCH/jail/evil" && mkdir "$SCRATCH/jail/evil" && ln -s "$SCRATCH" "$SCRATCH/jail/evil/deep"
	status 1 hotcell cp box:evil "$SCRATCH/jail/"
	contains "$(cat "$ERR")" 'deep: failed: deep: something else of that name is there'
	[ ! -e "$SCRATCH/file" ] || fail "a link in the target was followed out of it"
	same host "$(cat "$SCRATCH/target")" "a file beside the target"
	done_with
}

# A copy can be made again, over the one before, both ways.
suite_copies_again() {
	box
	mkdir "$SCRATCH/got"
	says 0 '' -c 'mkdir -p t/ro && cd t && echo one >f && echo one >ro/x && ln -s f l && ln -s f was-link && echo one >was-file &&
		chmod 555 ro'
	status 0 hotcell cp box:t "$SCRATCH/got/"
	same 'one f one f' "$(cd "$SCRATCH/got/t" && echo "$(cat f) $(readlink l) $(cat was-link) $(readlink was-link)")" "first copy"
	says 0 '' -c 'cd t && chmod 755 ro && echo two >f && echo two >ro/x && ln -sfn ro l && rm was-link was-file && echo two >was-link &&
		ln -s ro/x was-file && chmod 555 ro && echo two >z'
	status 0 hotcell cp box:t "$SCRATCH/got/"
	same 'two ro two two 555 two two ro/x' "$(cd "$SCRATCH/got/t" && echo "$(cat f) $(readlink l) $(cat l/x) $(cat ro/x) $(stat -c %a ro) $(cat z) \
$(cat was-link) $(readlink was-file)")" "second copy"
	[ ! -L "$SCRATCH/got/t/was-link" ] || fail "a file that was a link is one"
	same "" "$(find "$SCRATCH/got" -name '.hotcell*')" "temporary files"
	# where a directory meets something else, the sentence says so and the rest comes
	says 0 '' -c 'cd t && rm f l && mkdir f && echo three >f/in && echo three >z && chmod 755 ro && rm ro/x && rmdir ro && echo three >ro && ln -s z l'
	status 1 hotcell cp --json box:t "$SCRATCH/got/"
	contains "$(cat "$ERR")" 'f: failed: f: something else of that name is there'
	contains "$(cat "$ERR")" 'ro: failed: ro: a directory of that name is there'
	same '["f", "ro"] 3 0 three z' "$(json "$OUT" '" ".join([str(sorted(x["name"] for x in d["left_out"])).replace("\x27", "\x22"), str(d["failed"]), str(d["skipped"])])') $(cat "$SCRATCH/got/t/z") $(readlink "$SCRATCH/got/t/l")" "what failed, and the rest"
	# in again, over what is there: the top as it is, what is below it like the source
	mkdir -p "$SCRATCH/up/sub"
	echo one >"$SCRATCH/up/sub/f"
	ln -s sub/f "$SCRATCH/up/l"
	chmod 555 "$SCRATCH/up/sub"
	status 0 hotcell cp "$SCRATCH/up" box:up
	status 0 hotcell exec box -- chmod 700 up
	chmod 755 "$SCRATCH/up/sub"
	echo two >"$SCRATCH/up/sub/f"
	ln -sfn sub "$SCRATCH/up/l"
	chmod 555 "$SCRATCH/up/sub"
	status 0 hotcell cp "$SCRATCH/up/." box:up
	says 0 'two sub 555 700' -c 'echo $(cat up/sub/f) $(readlink up/l) $(stat -c %a up/sub up)'
	done_with
}

# What is left out or fails is named and changes the exit status; everything else comes.
suite_copies_partly() {
	box
	mkdir -p "$SCRATCH/up/deep"
	echo x >"$SCRATCH/up/deep/file"
	ln -s deep/file "$SCRATCH/up/good"
	ln -s ../good "$SCRATCH/up/deep/back"
	ln -s nowhere "$SCRATCH/up/dangling"
	status 0 hotcell cp --json "$SCRATCH/up" box:up
	same '3 0 0' "$(json "$OUT" '" ".join(str(d[k]) for k in ("links", "skipped", "failed"))')" "links that stay inside"
	says 0 'deep/file ../good nowhere x user' -c 'cd up; echo $(readlink good deep/back dangling) $(cat deep/back) $(stat -c %U good)'
	ln -s /etc/passwd "$SCRATCH/up/absolute"
	ln -s ../target "$SCRATCH/up/above"
	ln -s ../../x "$SCRATCH/up/deep/out"
	mkfifo "$SCRATCH/up/pipe"
	echo last >"$SCRATCH/up/z"
	status 1 hotcell cp --quiet --json "$SCRATCH/up" box:up2
	same '3 4' "$(json "$OUT" '" ".join(str(d[k]) for k in ("links", "skipped"))')" "links in and left out"
	mv "$ERR" "$SCRATCH/said"
	for name in absolute above deep/out pipe; do
		contains "$(cat "$SCRATCH/said")" "up2/$name: not copied"
		status 0 hotcell exec box -c "! test -e up2/$name && ! test -L up2/$name"
	done
	says 0 last -- cat up2/z
	# out: one file and one directory that the user can't read, and what comes behind them
	says 0 '' -c 'mkdir -p t/closed t/ro && cd t && echo a >a && echo b >b && echo x >ro/x && echo z >z && touch closed/in &&
		chmod 555 ro && chmod 0 b closed && chmod 751 .'
	status 1 hotcell cp --json box:t "$SCRATCH/partly"
	contains "$(cat "$ERR")" 'b: failed:'
	contains "$(cat "$ERR")" 'closed: failed: its contents'
	same '["b", "closed"]' "$(json "$OUT" 'json.dumps(sorted(x["name"] for x in d["left_out"]))')" "names in JSON"
	same 'a x z 555 751' "$(cd "$SCRATCH/partly" && echo "$(cat a) $(cat ro/x) $(cat z) $(stat -c %a ro) $(stat -c %a .)")" "what is readable"
	[ ! -e "$SCRATCH/partly/b" ] || fail "a file that can't be read was made"
	same "" "$(find "$SCRATCH/partly" -name '.hotcell*')" "temporary files"
	done_with
}

# Permission bits, times and holes go with a file, both ways; what is said to be larger than the sandbox is refused.
suite_copies_whole() {
	box --memory 512M --disk 200M
	mkdir -p "$SCRATCH/up/ro" "$SCRATCH/up/none"
	echo x >"$SCRATCH/up/ro/file"
	echo y >"$SCRATCH/up/ro/shut"
	echo r >"$SCRATCH/up/run"
	chmod 4755 "$SCRATCH/up/run"
	ln "$SCRATCH/up/run" "$SCRATCH/up/same"
	truncate -s 64M "$SCRATCH/up/sparse"
	printf middle | dd of="$SCRATCH/up/sparse" bs=1M seek=32 conv=notrunc 2>/dev/null
	touch -h -d '2001-02-03 04:05:06.789' "$SCRATCH/up/ro/file" "$SCRATCH/up/ro/shut" "$SCRATCH/up/run" "$SCRATCH/up/sparse"
	touch -d '1999-01-01 00:00:00.5' "$SCRATCH/up/ro" "$SCRATCH/up/none"
	touch -d '1965-01-01 00:00:00.5' "$SCRATCH/up"
	[ "$(id -u)" != 0 ] || chmod 0 "$SCRATCH/up/ro/shut" "$SCRATCH/up/none"
	chmod 555 "$SCRATCH/up/ro"
	status 0 hotcell cp "$SCRATCH/up" box:up
	(cd "$SCRATCH/up" && stat -c '%n %a %y' . ro ro/file ro/shut none sparse | sed 's/ [-+][0-9]*$//') >"$SCRATCH/want"
	status 0 hotcell exec --user root --cwd /home/user/up box -- stat -c '%n %a %y' . ro ro/file ro/shut none sparse
	same "$(cat "$SCRATCH/want")" "$(sed 's/ [-+][0-9]*$//' "$OUT")" "modes and times inside"
	says 0 "$(sha256sum <"$SCRATCH/up/sparse" | cut -d ' ' -f 1)  up/sparse" -- sha256sum up/sparse
	says 0 'few' -c '[ $(stat -c %b up/sparse) -lt 2048 ] && echo few || stat -c %b up/sparse'
	# no set-user-id, and two names of one file are two files
	says 0 '755 1 1' -c 'echo $(stat -c %a up/run) $(stat -c %h up/run up/same)'
	status 0 hotcell cp --user root box:/home/user/up "$SCRATCH/back"
	same "$(cat "$SCRATCH/want")" "$(cd "$SCRATCH/back" && stat -c '%n %a %y' . ro ro/file ro/shut none sparse | sed 's/ [-+][0-9]*$//')" "modes and times back"
	cmp "$SCRATCH/up/sparse" "$SCRATCH/back/sparse" || fail "a sparse file came back different"
	[ "$(stat -c %b "$SCRATCH/back/sparse")" -lt 2048 ] || fail "a sparse file came back dense: $(stat -c %b "$SCRATCH/back/sparse") blocks"
	# alone, too; and where there can't be holes, zeros come
	status 0 hotcell cp --json "$SCRATCH/up/sparse" box:alone
	same "$(sha256sum <"$SCRATCH/up/sparse" | cut -d ' ' -f 1)" "$(json "$OUT" 'd["sha256"]')" "sha256 of a sparse file sent"
	says 0 'few 2001' -c '[ $(stat -c %b alone) -lt 2048 ] && echo few $(date -r alone +%Y)'
	status 0 hotcell cp --json box:alone "$SCRATCH/alone"
	same "$(sha256sum <"$SCRATCH/up/sparse" | cut -d ' ' -f 1)" "$(json "$OUT" 'd["sha256"]')" "sha256 of a sparse file that came"
	[ "$(stat -c %b "$SCRATCH/alone")" -lt 2048 ] || fail "it came back dense"
	same "$(stat -c %Y "$SCRATCH/up/sparse")" "$(stat -c %Y "$SCRATCH/alone")" "its time"
	hotcell cp box:alone - | cmp - "$SCRATCH/up/sparse" || fail "other bytes by way of standard output"
	# a file with nothing but a hole, and an empty one
	says 0 '' -c 'truncate -s 5M hole; : >empty'
	status 0 hotcell cp box:hole "$SCRATCH/hole"
	status 0 hotcell cp box:empty "$SCRATCH/empty"
	same '5242880 0' "$(stat -c %s "$SCRATCH/hole" "$SCRATCH/empty" | paste -s -d ' ')" "sizes"
	# files that announce no size
	contains "$(hotcell cp box:/proc/cpuinfo -)" processor
	# more than the sandbox can have
	says 0 '' -c 'mkdir huge && truncate -s 1T huge/file'
	refuses 7 'it is 1' cp box:huge/file "$SCRATCH/huge"
	refuses 7 'it is 1' cp box:huge "$SCRATCH/huge-tree"
	refuses 7 'it is 5' cp --max-size 4M box:hole "$SCRATCH/huge"
	same "" "$(find "$SCRATCH" -maxdepth 2 -name '*huge*' ! -name huge-tree -o -maxdepth 2 -name '.hotcell*')" "half files"
	status 0 hotcell cp --max-size 5M box:hole "$SCRATCH/hole"
	done_with
}

# ---- the rest ----

suite_ports() {
	box
	status 0 hotcell exec --detach box -c 'mkdir www && cd www && head -c 3000000 /dev/urandom >data && exec python3 -m http.server --bind 127.0.0.1 8000'
	hotcell port box 8000 >"$SCRATCH/address" &
	forward=$!
	eventually 20 test -s "$SCRATCH/address"
	address=$(cat "$SCRATCH/address")
	eventually 60 python3 "$TOP/test/fetch.py" "$address" ''
	want=$(hotcell exec box -- sha256sum www/data | cut -d ' ' -f 1)
	for i in 1 2 3; do
		python3 "$TOP/test/fetch.py" "$address" data "$SCRATCH/page$i" &
		pids="${pids:-} $!"
	done
	for pid in $pids; do
		wait "$pid" || fail "fetch.py: exit status $?"
	done
	for i in 1 2 3; do
		same "$want" "$(sha256sum <"$SCRATCH/page$i" | cut -d ' ' -f 1)" "sha256 of download $i"
	done
	kill -INT $forward
	wait $forward || fail "hotcell port: exit status $?"
	# nobody listens there
	hotcell port box 8001 >"$SCRATCH/nobody" &
	forward=$!
	eventually 20 test -s "$SCRATCH/nobody"
	status 3 python3 "$TOP/test/fetch.py" "$(cat "$SCRATCH/nobody")" ''
	kill -INT $forward
	wait $forward || fail "hotcell port: exit status $?"
	done_with
}

suite_info() {
	box --cpus 1 --memory 300M --disk 200M --meta colour=red
	status 0 hotcell info --json box
	same 'box running base 1 300 200 red' "$(json "$OUT" '" ".join([d["name"], d["state"], d["template"], str(d["vcpus"]), str(d["memory_mb"]), str(d["disk_mb"]), d["metadata"]["colour"]])')"
	same "$(expected_wall)" "$(json "$OUT" 'd["wall"]')" "wall"
	id=$(json "$OUT" 'd["id"]')
	says 0 "$(json "$OUT" 'd["guest"]["kernel"]')" -- uname -r
	same "$id box" "$(hotcell list --json | python3 -c 'import json,sys; d=json.loads(sys.stdin.readline()); print(d["id"], d["name"])')"
	status 0 hotcell exec "$id" -- true
	dashed=$(echo "$id" | sed 's/\(.\{8\}\)\(.\{4\}\)\(.\{4\}\)\(.\{4\}\)/\1-\2-\3-\4-/')
	status 0 hotcell exec "$dashed" -- true
	status 0 hotcell info --json
	same 1 "$(json "$OUT" 'd["sandboxes"]')" "sandboxes"
	refuses 5 'box' create --isolation "$ISOLATION" --name box
	number=$(hotcell exec --detach box -- sleep 8200)
	contains "$(hotcell ps box)" 'sleep 8200'
	status 0 hotcell signal box "$number" KILL
	status 0 hotcell doctor
	done_with
}

suite_deadlines() {
	host
	status 0 hotcell create --isolation "$ISOLATION" --name short --lifetime "$1"
	status 0 hotcell create --isolation "$ISOLATION" --name idle --idle-timeout "$1"
	status 0 hotcell create --isolation "$ISOLATION" --name stays
	eventually 30 sh -c '! hotcell list | grep -E "short|idle"'
	contains "$(hotcell list)" stays
	refuses 125 short exec short -- true
	contains "$(timeout 2 hotcell events --after 1 || true)" sandbox_expired
	done_with
}

# What runs without being followed is use, and so is an open port; nothing else keeps a sandbox with a timeout.
suite_use() {
	host
	status 0 hotcell create --isolation "$ISOLATION" --name works --idle-timeout 6s
	status 0 hotcell exec --detach works -- sleep 600
	status 0 hotcell create --isolation "$ISOLATION" --name ported --idle-timeout 6s
	hotcell port ported 8000 >"$SCRATCH/address" 2>"$SCRATCH/port" &
	forward=$!
	eventually 20 test -s "$SCRATCH/address"
	status 0 hotcell create --isolation "$ISOLATION" --name ever --idle-timeout 0
	status 0 hotcell create --isolation "$ISOLATION" --name idle --idle-timeout 6s
	eventually 60 sh -c '! hotcell list | grep -q idle'
	status 0 hotcell create --isolation "$ISOLATION" --name idle --idle-timeout 6s # as long once more
	eventually 60 sh -c '! hotcell list | grep -q idle'
	same "ever ported works " "$(hotcell list --json | python3 -c 'import json,sys
print(*sorted(json.loads(l)["name"] for l in sys.stdin), end=" ")')" "what is left"
	hotcell info ever --json >"$SCRATCH/info"
	same 0 "$(json "$SCRATCH/info" 'd["idle_deadline_ms"]')" "deadline of --idle-timeout 0"
	# the listener ends with its sandbox, and says so
	status 0 hotcell rm ported
	got=0
	wait $forward || got=$?
	same 11 $got "exit status of hotcell port"
	contains "$(cat "$SCRATCH/port")" 'the sandbox is gone'
	done_with
}

# A fork bomb whose first process has ended: its time limit holds, and where there is none, a signal ends it.
suite_leftovers() {
	box --pids 64
	bomb='for i in 1 2 3 4 5 6 7 8; do (while :; do sleep 1 & sleep 1; done) & done >/dev/null 2>&1; exit 0'
	status 0 hotcell exec --timeout 5s box -c "$bomb"
	eventually 30 sh -c '! hotcell ps box | grep -q sleep'
	number=$(hotcell exec --detach box -c "python3 -c '
import os, time
while True:
    try:
        if os.fork() == 0: time.sleep(1000)
    except OSError: time.sleep(0.1)' & exit 0")
	eventually 60 sh -c '! hotcell exec box -- true'
	has_ended() { # while what it left behind lives
		hotcell sessions --json box | python3 -c 'import json, sys
for d in map(json.loads, sys.stdin):
    if d["session"] == int(sys.argv[1]): sys.exit((d["running"], d["left"]) != (False, True))
sys.exit(1)' "$number"
	}
	eventually 10 has_ended
	status 0 hotcell signal box "$number" KILL
	eventually 30 hotcell exec box -- true
	status 11 hotcell signal box "$number" KILL
	done_with
}

# Who was killed for memory is told so.
suite_oom() {
	box --memory 256M
	eater='b = []
while True: b.append(b"x" * (1 << 20))'
	status 137 hotcell exec box -- python3 -c "$eater"
	contains "$(cat "$ERR")" 'killed: out of memory (limit 256 MiB)'
	got=0
	hotcell exec --json box -- python3 -c "$eater" >"$SCRATCH/json" 2>/dev/null || got=$?
	same "oom 137" "$(json "$SCRATCH/json" 'd["exit"]["reason"]') $got" "with --json"
	status 0 hotcell exec box -c "python3 -c '$eater' >/dev/null 2>&1; true"
	contains "$(cat "$ERR")" 'something in the sandbox was killed meanwhile: out of memory (limit 256 MiB)'
	status 137 hotcell run --isolation "$ISOLATION" --memory 256M -- python3 -c "$eater"
	contains "$(cat "$ERR")" 'killed: out of memory (limit 256 MiB)'
	status 137 hotcell exec box -c 'kill -9 $$'
	same "" "$(cat "$ERR")" "of a signal of its own"
	done_with
}

# A stalled reader: $1 MiB ($2 at full size).
suite_pressure() {
	box
	python3 "$TOP/test/pressure.py" box "$(size "$1" "$2")" "$(size 2 30)" "$(pid_of hotcelld)" "$(pid_of hotcell-keeper)" ||
		fail "pressure.py"
	done_with
}

# A real program on real input.
suite_example() {
	host
	OUT=$SCRATCH/report sh "$TOP/examples/csv-report/run.sh" --isolation "$ISOLATION" >"$SCRATCH/log" 2>&1 ||
		fail "examples/csv-report: $(tail -n 5 "$SCRATCH/log")"
	test -s "$SCRATCH/report/plot.svg" || fail "no plot came back"
	same 100001 "$(wc -l <"$SCRATCH/report/sales.csv")" "lines of the CSV"
	no_traces
}

# ---- code ----

# runs STATUS STDOUT ARGUMENT... - hotcell code run box ARGUMENT... ends and prints like this
runs() {
	want_status=$1 want_text=$2
	shift 2
	status "$want_status" hotcell code run box "$@"
	same "$want_text" "$(cat "$OUT")" "stdout of $*"
}

suite_code() {
	box
	runs 0 '' 'x = 6 * 7; import os; os.chdir("/tmp")'
	runs 0 "(42, '/tmp')" 'x, os.getcwd()'
	runs 0 9731 'text = "héllo ☃"; ord(text[-1])'
	runs 0 'héllo ☃' 'print(text)'
	# output of every kind, in order, and of children
	runs 0 'one
child
two
3' 'import subprocess, sys
print("one"); subprocess.run("echo child; echo oops >&2", shell=True); print("two"); 3'
	same oops "$(cat "$ERR")" "stderr of a child"
	runs 1 before 'print("before")
def f():
    raise ValueError("no such luck")
f()'
	contains "$(cat "$ERR")" 'File "<cell'
	contains "$(cat "$ERR")" 'ValueError: no such luck'
	[ "$(grep -c 'File ' "$ERR")" = 2 ] || fail "frames that are not the code's: $(cat "$ERR")"
	runs 1 '' 'a b'
	contains "$(cat "$ERR")" 'SyntaxError: invalid syntax'
	runs 1 '' 'input()'
	contains "$(cat "$ERR")" EOFError
	runs 3 '' 'sys.exit(3)'
	runs 0 awake 'import asyncio
await asyncio.sleep(0.01)
print("awake")'
	runs 0 '4' 'if os.fork() == 0: sys.exit(4)
os.wait()[1] >> 8'
	# other contexts know nothing of it
	other=$(hotcell code open box --cwd /usr --env A=b)
	runs 0 "(False, '/usr', 'b')" --context "$other" 'import os; "x" in dir(), os.getcwd(), os.environ["A"]'
	status 0 hotcell code close box "$other"
	refuses 125 'no context' code run box --context "$other" 1
	refuses 125 'python, shell' code run box --language klingon 1
	echo 'print(x)' | runs 0 42 -
	echo 'x + 1' >"$SCRATCH/source.py"
	runs 0 43 --file "$SCRATCH/source.py"
	refuses 125 'one of them' code run box --file "$SCRATCH/source.py" 1
	status 0 hotcell run --isolation "$ISOLATION" --code 'print(6 * 7)' --env A=b
	same 42 "$(cat "$OUT")" "run --code"
	status 7 hotcell run --isolation "$ISOLATION" --language shell --code 'exit 7'
	done_with
}

# What models and notebooks write: top-level await after lines that need its loop, !commands, %words, odd bytes.
suite_code_notebook() {
	box
	runs 0 7 'import asyncio
async def g():
    await asyncio.sleep(0.01)
    return 7
t = asyncio.create_task(g())
await t'
	runs 1 '' 'await asyncio.sleep(0)
1 / 0'
	contains "$(cat "$ERR")" 'File "<cell'
	same 0 "$(grep -c base_events "$ERR")" "frames of the event loop: $(cat "$ERR")"
	runs 0 8 'async def h(): return 8
asyncio.run(h())'
	runs 0 '' ''
	printf '\357\273\277print("marked")' >"$SCRATCH/source.py"
	runs 0 marked --file "$SCRATCH/source.py"
	printf 'print("a\377b")' >"$SCRATCH/source.py"
	runs 1 '' --file "$SCRATCH/source.py"
	contains "$(cat "$ERR")" 'the source is not UTF-8: byte 0xff at offset 8'
	runs 0 'hi 2 /home/user' 'n = 2
!echo hi {n} $HOME'
	runs 0 "['a', 'b']" 'x = !printf "a\nb\n"
x'
	runs 0 3 'def f():
    !exit 3
    return _exit_code
f()'
	runs 0 '/tmp' '%cd /tmp'
	runs 0 "'\\n%x\\n!y\\n'" '"""
%x
!y
"""'
	runs 0 2 '(5
% 3)'
	status 0 hotcell code run box '%timeit sum(range(10))'
	contains "$(cat "$OUT")" 'per loop (best of'
	runs 1 'from bash' '%%bash
echo from bash
exit 3'
	contains "$(cat "$ERR")" 'exit status 3'
	runs 0 'wrote /tmp/f' '%%writefile /tmp/f
text'
	says 0 text -- cat /tmp/f
	runs 1 '' '%frobnicate'
	contains "$(cat "$ERR")" '%frobnicate is not known here; there are %cd'
	runs 1 '' 'x = 1 +'
	contains "$(cat "$ERR")" 'SyntaxError: invalid syntax'
	# pictures where they are shown, also before an exception; a small stand-in for matplotlib, which base has not
	says 0 '' -c 'mkdir -p /tmp/lib/matplotlib && cd /tmp/lib/matplotlib && : >__init__.py && cat >figure.py <<EOF
class Figure:
    def savefig(self, data, format, bbox_inches): data.write(b"picture of " + self.name)
EOF
cat >pyplot.py <<EOF
from matplotlib.figure import Figure
open_ones = {}
def figure(number=None):
    if number not in open_ones:
        number = len(open_ones) + 1
        open_ones[number] = Figure()
    return open_ones[number]
def get_fignums(): return sorted(open_ones)
def close(which): open_ones.clear()
def show(): raise RuntimeError("nothing is shown")
EOF'
	status 1 hotcell code run --json box 'import sys; sys.path.insert(0, "/tmp/lib")
import matplotlib.pyplot as plt
for i in range(2):
    plt.figure().name = b"%d" % i
    plt.show()
    print("after", i)
plt.figure().name = b"last"
1 / 0'
	same 'picture of 0, picture of 1, picture of last, error; after 0 after 1' "$(python3 - "$OUT" <<'EOF'
import base64, json, sys
said, printed = [], ""
for d in map(json.loads, open(sys.argv[1])):
    if d["kind"] == "result" and d["part"]["mime"] == "image/png":
        said.append(d["data"] if d["data_encoding"] == "utf-8" else base64.b64decode(d["data"]).decode())
    elif d["kind"] == "error":
        said.append("error")
    elif d["kind"] == "stdout":
        printed += d["data"]
print(", ".join(said) + "; " + " ".join(printed.split()))
EOF
)" "pictures in order"
	runs 0 '' 'None'
	# a shell that fails under set -e or -u ends the source, not the shell
	runs 1 before --language shell 'kept=1; list=(a b); set -e; cd /tmp; echo before; false; echo behind'
	runs 0 '1 b /tmp' --language shell 'echo $kept ${list[1]} $PWD'
	runs 1 '' --language shell 'set -Ceuo pipefail; f() { echo $nosuch; }; f; echo behind'
	contains "$(cat "$ERR")" 'nosuch: unbound variable'
	runs 0 '1 b /tmp f' --language shell 'echo $kept ${list[1]} $PWD $(declare -F f)'
	runs 1 '' --language shell ': ${other?is missing}'
	runs 0 '1 on' --language shell 'set +eu; echo $kept on'
	runs 1 '' --language shell 'set -e; ( exit 4 ) || false'
	runs 0 'still 1' --language shell 'set +e; echo still $kept'
	done_with
}

suite_code_results() {
	box
	status 0 hotcell code run --json box 'class Rich:
    def _repr_html_(self): return "<b>é</b>"
    def _repr_png_(self): return b"\x89PNG\0\xff"
    def _repr_svg_(self): return "<svg/>"
    def _repr_json_(self): return {"a": [1, 2]}
    def __repr__(self): return "rich"
display(1)
Rich()'
	python3 - "$OUT" <<'EOF' || fail "$(cat "$OUT")"
import base64, json, sys
pieces = [json.loads(line) for line in open(sys.argv[1])]
got = {}
for p in pieces[:-1]:
    data = p["data"] if p["data_encoding"] == "utf-8" else base64.b64decode(p["data"])
    assert p["kind"] == "result" and p["part"]["bytes"] == len(data.encode() if isinstance(data, str) else data), p
    got[p["part"]["mime"], p["part"]["is_main"]] = data
assert got == {("text/plain", False): "1", ("text/html", True): "<b>é</b>", ("image/png", True): b"\x89PNG\0\xff",
               ("image/svg+xml", True): "<svg/>", ("application/json", True): '{"a": [1, 2]}',
               ("text/plain", True): "rich"}, got
assert pieces[-1]["kind"] == "end" and pieces[-1]["end"]["status"] == "ok", pieces[-1]
EOF
	status 0 hotcell code run box 'Rich()'
	same rich "$(cat "$OUT")" "the text of a result"
	contains "$(cat "$ERR")" 'image/png, 6 bytes'
	mkdir "$SCRATCH/saved"
	status 0 hotcell code run --save "$SCRATCH/saved" box 'Rich()'
	same '3c7376672f3e' "$(od -An -tx1 "$SCRATCH"/saved/result-*.svg | tr -d ' ')" "the saved image"
	same 4 "$(find "$SCRATCH/saved" -type f | wc -l)" "files saved"
	# more than fits into any buffer, and more than may be
	runs 0 '5000001 xz' 'big = "x" * 5000000 + "z"
print(len(big), big[0] + big[-1])'
	status 0 hotcell code run box 'print(big)'
	same 5000002 "$(wc -c <"$OUT")" "bytes of a large output"
	status 0 hotcell code run box 'type("Big", (), {"__repr__": lambda s: big * 7})()'
	contains "$(tail -c 100 "$OUT")" 'cut: 35000007 bytes, 33554432 is the limit'
	done_with
}

suite_code_ends() {
	box
	# live: the first line is here before the last one can be
	hotcell code run box 'import os, time
print("ready")
while not os.path.exists("/tmp/go"): time.sleep(0.05)
print("gone")' >"$SCRATCH/live" &
	client=$!
	eventually 30 grep -q ready "$SCRATCH/live"
	refuses 125 busy code run box --context 1 1
	status 0 hotcell exec box -- touch /tmp/go
	wait $client
	same 'ready gone' "$(tr '\n' ' ' <"$SCRATCH/live" | sed 's/ $//')" "live output"
	# Ctrl-C reaches the code; the state stays
	rm "$SCRATCH/live" # so that nobody takes the last one's line for the next one's
	hotcell code run box 'kept = 1
print("ready")
while True: time.sleep(1)' >"$SCRATCH/live" 2>"$SCRATCH/trace" &
	client=$!
	eventually 30 grep -q ready "$SCRATCH/live"
	kill -INT $client
	got=0
	wait $client || got=$?
	same 130 "$got" "status after SIGINT"
	contains "$(cat "$SCRATCH/trace")" KeyboardInterrupt
	runs 0 1 kept
	# a client that dies leaves the run; hotcell code interrupt ends it
	rm "$SCRATCH/live"
	hotcell code run box 'print("ready")
while True: time.sleep(1)' >"$SCRATCH/live" 2>/dev/null &
	client=$!
	eventually 30 grep -q ready "$SCRATCH/live"
	kill -KILL $client
	wait $client || true
	contains "$(hotcell code list box)" busy
	status 0 hotcell code interrupt box 1
	eventually 10 sh -c 'hotcell code list box | grep -q idle'
	runs 0 1 kept
	# a limit: interrupted, and when that is ignored, killed
	runs 124 '' --timeout 300ms 'while True: pass'
	contains "$(cat "$ERR")" 'was interrupted'
	runs 0 1 kept
	runs 124 '' --timeout 300ms 'import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
while True: pass'
	contains "$(cat "$ERR")" 'its state is lost'
	runs 0 False '"kept" in dir()'
	# a crash, and what it had started
	runs 134 '' 'import os, subprocess
subprocess.Popen(["sleep", "7531"])
os.abort()'
	contains "$(cat "$ERR")" 'signal 6'
	eventually 10 sh -c '! hotcell ps box | grep "sleep 7531"'
	runs 9 '' 'import os; os._exit(9)'
	runs 0 2 'kept = 2; kept'
	status 0 hotcell code restart box 1
	runs 0 False '"kept" in dir()'
	# the shell keeps its state, too
	runs 3 '/tmp 5 v' --language shell 'cd /tmp; n=5; declare -A m; m[k]=v
echo $PWD $n ${m[k]}; (exit 3)'
	runs 0 '/tmp 5 v' --language shell 'echo $PWD $n ${m[k]}'
	runs 124 '' --language shell --timeout 300ms 'while true; do sleep 1; done; echo never'
	runs 0 5 --language shell 'echo $n'
	done_with
}

# ---- pools ----

# pool_is FIELD VALUE - of the only pool
pool_is() {
	hotcell pool list --json >"$SCRATCH/pool" && same "$2" "$(json "$SCRATCH/pool" "d['$1']")" "$1"
}

# pool_is_full N - N spares are ready, none is being made
pool_is_full() {
	(pool_is ready "$1" && pool_is filling 0) >/dev/null
}

# spare_pids - host processes of machines that no sandbox in the list has
spare_pids() {
	hotcell list --json | sed 's/^{"id":"\([0-9a-f]*\)".*/\1/' >"$SCRATCH/taken"
	sed -n 's/.* id=\([0-9a-f]*\) state=running pid=\([0-9]*\)$/\1 \2/p' "$HOTCELL_RUN/keeper.log" |
		grep -vFf "$SCRATCH/taken" | while read -r _ pid; do
		is_dead "$pid" || echo "$pid"
	done
}

# create_from WHERE NAME OPTION... - hotcell create NAME, which came from there
create_from() {
	where=$1 name=$2
	shift 2
	status 0 hotcell create --isolation "$ISOLATION" --name "$name" --json "$@"
	same "$where" "$(json "$OUT" 'd["path"]')" "how $name was made"
	same "$name" "$(hotcell exec "$name" -- hostname)" "host name of $name"
}

# suite_pool LONGER - on a host; what a create that finds no spare does instead
suite_pool() {
	refuses 4 'there is no image nonesuch' pool set nonesuch --size 1 --isolation "$ISOLATION"
	refuses 2 '--size or --prestarted' pool set base --isolation "$ISOLATION"
	status 0 hotcell pool set base --size 2 --isolation "$ISOLATION"
	eventually 120 pool_is_full 2
	same "" "$(hotcell list --json)" "spares in the list"
	create_from pool one --env COLOR=red
	same red "$(hotcell exec one -- sh -c 'echo $COLOR')" "environment"
	eventually 120 pool_is_full 2
	create_from pool two
	same "" "$(hotcell exec two -- sh -c 'echo $COLOR')" "environment of another one"
	[ "$(hotcell exec one -- cat /etc/machine-id)" != "$(hotcell exec two -- cat /etc/machine-id)" ] ||
		fail "two machines have one machine id"
	eventually 120 pool_is_full 2
	status 0 hotcell run --isolation "$ISOLATION" -- echo ran
	same ran "$(cat "$OUT")" "what it printed"
	pool_is hits 3
	# spares that don't answer are thrown away, and the create succeeds all the same
	eventually 120 pool_is_full 2
	spare_pids >"$SCRATCH/spares"
	same 2 "$(wc -l <"$SCRATCH/spares")" "processes of spares"
	xargs kill -STOP <"$SCRATCH/spares"
	create_from "$1" three
	eventually 120 pool_is_full 2
	# the daemon's death: what was taken stays, spares are made again
	kill -KILL "$(pid_of hotcelld)"
	eventually 120 pool_is_full 2
	same one "$(hotcell exec one -- hostname)" "host name after the daemon's death"
	create_from pool four
	status 0 hotcell pool rm base --isolation "$ISOLATION"
	same "" "$(hotcell pool list --json)" "pools"
	done_with
}

# ---- crashes ----

# The handler that core_pattern names runs as the host's root: no crash in a sandbox, nor one of its QEMU, may start it.
suite_core_handler() {
	pattern=/proc/sys/kernel/core_pattern
	cp "$(readlink -f /bin/sh)" "$SCRATCH/crash7613"
	printf '#!/bin/sh\necho "$1 $2" >>"%s/crashes"\n' "$SCRATCH" >"$SCRATCH/handler"
	chmod 755 "$SCRATCH/handler"
	box
	status 0 hotcell cp "$SCRATCH/crash7613" box:/tmp/crash7613
	status 0 hotcell exec box -- chmod 755 /tmp/crash7613
	qemu=
	for pid in $(host_pids); do
		case $(cat "/proc/$pid/comm" 2>/dev/null) in qemu*) qemu=$pid ;; esac
	done
	: >"$SCRATCH/crashes"
	name=crash7613 crashes=3
	if [ -n "$qemu" ]; then # the first of its namespace, which no signal from outside makes dump: its limit is what can be seen
		grep -q '^Max core file size  *1  *1 ' "/proc/$qemu/limits" || fail "$(cat "/proc/$qemu/limits")"
		done_with
		return
	fi
	before=$(dmesg | grep -cE "\($name\).* RLIMIT_CORE (is )?set to 1" || true)
	( # the shortest time: it is the whole host's
		old=$(cat $pattern)
		trap 'echo "$old" >$pattern' EXIT
		trap 'exit 1' TERM INT HUP
		{ echo "|$SCRATCH/handler %P %e" >$pattern; } 2>"$SCRATCH/refused" || exit 0
		for limit in '' 'ulimit -S -c 0;' 'ulimit -c 0;'; do
			status 139 hotcell exec box -- /tmp/crash7613 -c "$limit kill -SEGV \$\$"
		done
	)
	[ ! -s "$SCRATCH/refused" ] || skip "core_pattern can't be written here"
	! grep -q "$name" "$SCRATCH/crashes" || fail "a crash started the host's handler: $(cat "$SCRATCH/crashes")"
	# what the kernel says is asked for as well: in some containers it looks for the handler in another root
	after=$(dmesg | grep -cE "\($name\).* RLIMIT_CORE (is )?set to 1" || true)
	dmesg >"$SCRATCH/dmesg" || skip "neither the kernel's log can be read"
	same "$crashes" "$((after - before))" "crashes of $name of which the kernel says that no handler is started"
	done_with
}
