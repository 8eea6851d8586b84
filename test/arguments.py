#!/usr/bin/env python3
"""arguments.py SANDBOX - long arguments, scripts and environments come through whole, or are refused in clear words"""
import hashlib
import os
import subprocess
import sys

BOX = sys.argv[1]
LONGEST = 131071  # of one string


def run(*words, data=None):
    done = subprocess.run(["hotcell", "exec", *words], input=data, capture_output=True, check=False)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def want(what, got, wanted):
    if got != wanted:
        print(f"failed: {what}: wanted {str(wanted)[:300]}, got {str(got)[:300]}")
        sys.exit(1)


def digest(words):
    return hashlib.sha256("".join(word + "\0" for word in words).encode()).hexdigest()


def main():
    # about what a record holds, one more than that, and all that Linux takes; the rest of the input is the program's
    count = ["sh", "-c", 'printf "%s\\0" "$@" | sha256sum; cat', "sh"]
    for words in (["a" * 57000], ["b" * 100000], ["c" * LONGEST], ["d" * (LONGEST - 9)] * 12, ["e"] * 60000, ["", "x" * 70000, ""]):
        got = run(BOX, "--", *count, *words, data=b"input")
        want(f"{len(words)} arguments of {len(words[0])}", got, (0, f"{digest(words)}  -\ninput", ""))
        got = run("--no-stdin", BOX, "--", *count, *words)
        want("the same without input", got, (0, f"{digest(words)}  -\n", ""))
    # input of more than all windows behind them
    data = bytes(range(256)) * 8192
    got = run(BOX, "--", "sh", "-c", "sha256sum", "x" * 100000, data=data)
    want("input behind long arguments", got, (0, hashlib.sha256(data).hexdigest() + "  -\n", ""))
    script = ": " + "x" * (LONGEST - 20) + "\necho end"
    want("a long script", run(BOX, "-c", script), (0, "end\n", ""))
    # the environment, alone and with arguments, and what the sandbox was made with
    names = [f"N{i}={i}" + "v" * 1000 for i in range(700)]
    got = run(*(word for name in names for word in ("--env", name)), BOX, "-c", "env | grep -c ^N; echo ${#N699} ${#BOX}; echo $N7")
    want("a large environment", got, (0, f"700\n1003 20000\n7{'v' * 1000}\n", ""))
    got = run("--env", "A=" + "a" * 100000, BOX, "-c", "echo ${#A} ${#1}", "--", "x")
    want("--command with words", got[0], 125)
    got = run("--env", "A=" + "a" * 100000, BOX, "--", "sh", "-c", "echo ${#A} ${#1}", "sh", "b" * 100000)
    want("both", got, (0, "100000 100000\n", ""))
    # missing programs are still found missing
    want("no such program", run(BOX, "--", "no-such-program", "x" * 100000)[0], 127)
    # together more than Linux takes: said by whoever finds it, with what to do
    room = 2 * 1024 * 1024 - sum(len(a) + len(b) + 10 for a, b in os.environb.items()) - 8192  # we have to live with it too
    words = ["f" * 100000] * (room // 100009) + ["g" * (room % 100009)]
    status, out, text = run(BOX, "--", "true", *words)
    want("too much together", (status, out), (125, ""))
    for word in ("arguments and environment", "standard input"):
        if word not in text:
            want("the sentence", text, word)


main()
