#!/usr/bin/env python3
"""fork_differ.py TEMPLATE COUNT - COUNT machines, half of the template and half of one that runs: no two are alike

Nothing random, and no name, is the same in two of them; all clocks are right (at full size within 50 ms); and a program that
was getting random numbers all the time never got one, after it was thawed in a copy, that another machine got too.
"""
import os
import subprocess
import sys
import time
from crash import calmly, fail, hotcell, wait_until

CLOCK_MS = 50 if os.environ.get("HOTCELL_FULL") else 1000  # a host that is busy with other tests is late itself
BATCH = 8

# Says its name first: what a line with the name of a copy has was got in the copy.
SPINNER = """
import os
with open("/dev/shm/log", "w", buffering=1) as log:
    while True:
        log.write(os.uname().nodename + " " + os.getrandom(16).hex() + "\\n")
"""
FRESH = """
import os, random, uuid
print("getrandom", os.getrandom(16).hex())
print("urandom", open("/dev/urandom", "rb").read(16).hex())
print("boot_id", open("/proc/sys/kernel/random/boot_id").read().strip())
print("machine_id", open("/etc/machine-id").read().strip())
print("hostname", os.uname().nodename)
print("random", random.random())
print("uuid4", uuid.uuid4())
try:
    import numpy
    print("numpy", numpy.random.random())
except ImportError:
    pass
"""
# In the interpreter that was warm in the template or in the source.
WARM = """
import os, random, uuid
print("warm_random", random.random())
print("warm_getrandom", os.getrandom(16).hex())
print("warm_uuid4", uuid.uuid4())
try:
    import numpy
    print("warm_numpy", numpy.random.random())
except ImportError:
    pass
"""
CLOCK = """
import sys, time
for line in sys.stdin:
    print(time.time_ns(), flush=True)
"""

values = {}  # value: where it was seen


def note(name, text, want):
    lines = [line.split(" ", 1) for line in text.splitlines()]
    if len(lines) < want:
        fail(f"{name} says only {text!r}")
    for what, value in lines:
        if value in values:
            fail(f"{name} has the {what} {value}, which {values[value]} has too")
        values[value] = f"{name} ({what})"


def clock(name):
    """(off by, give or take, name), ms: of the quickest of some questions"""
    with subprocess.Popen(["hotcell", "exec", name, "--", "python3", "-u", "-c", CLOCK], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as client:
        best = None
        for _ in range(8):
            before = time.time_ns()
            client.stdin.write(b"?\n")
            client.stdin.flush()
            line = client.stdout.readline()
            after = time.time_ns()
            if not line:
                fail(f"the clock of {name} does not answer")
            half = (after - before) / 2
            if best is None or half < best[1]:
                best = int(line) - before - half, half
        client.stdin.close()
    off, half = best[0] / 1e6, best[1] / 1e6
    return off, half, name


def drawn(name):
    """Lines of its log: pairs of the name that the machine had, and what it drew."""
    return [tuple(line.split()) for line in hotcell("exec", name, "-c", "cat /dev/shm/log 2>/dev/null; :").stdout.split("\n")[:-1]]


def check_drawn(names):
    """Of some copies made at once, and of the source: what was drawn since is nobody else's."""
    logs = {}
    for name in names:
        wait_until(f"the program goes on in {name}", lambda name=name: int(hotcell(
            "exec", name, "-c", f"grep -c '^{name} ' /dev/shm/log; :").stdout) >= 50)
        logs[name] = drawn(name)
        hotcell("exec", name, "-c", "pkill -f '[n]odename'; rm /dev/shm/log")
    logs["source"] = drawn("source")
    seen = {}
    for name, log in logs.items():
        for value in {value for of, value in log if of == name and name != "source"}:
            if value in seen:
                fail(f"{name} and {seen[value]} both drew {value}")
            seen[value] = name
    if set(value for _, value in logs["source"]) & set(seen):
        fail("the source drew what a copy drew")
    source = [value for _, value in logs["source"]]
    for name in names:
        old = [value for of, value in logs[name] if of == "source"]
        # one may have been on its way to the log when all stood still
        if old[:-1] != source[:len(old) - 1]:
            fail(f"the log of {name} does not begin as that of the source")
    return len(seen)


def main():
    template, count = sys.argv[1], int(sys.argv[2])
    hotcell("create", "--template", template, "--name", "source")
    hotcell("code", "run", "source", "import random, uuid, os; random.random()")
    clocks, total = [], 0
    for start in range(0, count // 2, BATCH):
        n = min(BATCH, count // 2 - start)
        hotcell("exec", "source", "-c", "pkill -f '[n]odename'; rm -f /dev/shm/log; :")
        hotcell("exec", "--detach", "source", "--", "python3", "-c", SPINNER)
        wait_until("the program draws", lambda: len(drawn("source")) > 100)
        prefix = f"twin{start}" if n == 1 else f"twin{start}-"
        calmly("fork", "source", "--count", str(n), "--name", f"twin{start}")
        twins = [prefix if n == 1 else f"{prefix}{i + 1}" for i in range(n)]
        total += check_drawn(twins)
        hotcell("exec", "source", "-c", "pkill -f '[n]odename'; :")
        fresh = [f"fresh{start}-{i + 1}" for i in range(n)]
        for name in fresh:
            hotcell("create", "--template", template, "--name", name)
        for name in twins + fresh:
            note(name, hotcell("exec", name, "--", "python3", "-c", FRESH).stdout, 7)
            note(name, hotcell("code", "run", name, WARM).stdout, 3)
            clocks.append(clock(name))
        print(f"{2 * (start + n)} machines: {len(values)} values, {total} random numbers of the program; clocks off by at most "
              f"{max(abs(c[0]) for c in clocks):.1f} ms, give or take {max(c[1] for c in clocks):.1f}", flush=True)
        hotcell("rm", *twins, *fresh)
    wrong = [f"{name} by {off:.1f} ms, give or take {half:.1f}" for off, half, name in clocks if abs(off) - half > CLOCK_MS]
    if wrong:
        fail("clocks are off: " + "; ".join(wrong))


main()
