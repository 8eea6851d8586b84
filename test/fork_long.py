#!/usr/bin/env python3
"""fork_long.py SCRATCH CYCLES FORKS - a workload goes through pauses, and through forks of forks, byte-exact

A program checks its memory against its sums and against its files all the time, while files are written and a second
program prints to a terminal that a client follows. After each pause and resume, and in each fork of a fork, both must
go on, and what the client saw until then must be whole. Descriptors, memory, files and sets do not grow meanwhile.
"""
import atexit
import json
import os
import pathlib
import subprocess
import sys
import time
import zlib
import crash
from crash import calmly, fail, hotcell, wait_until

STATE = pathlib.Path(os.environ["HOTCELL_STATE"])
LINES_BYTES = 400  # on a terminal, before anything is done to its machine
REST_S = 15
GROWTH_KIB = 6144  # of the daemon's and the keeper's own memory, whatever the number of cycles

KEEPER_OF_STATE = """
import hashlib, os, time
SIZE, PIECE, FILES = 8 << 20, 1 << 18, 4
block = bytearray(os.urandom(SIZE))
sums = [hashlib.sha256(block[i:i + PIECE]).digest() for i in range(0, SIZE, PIECE)]
contents = [b""] * FILES
n = 0
def bad(words):
    open("bad", "a").write("%d: %s\\n" % (n, words))
while True:
    piece = n % len(sums)
    at = piece * PIECE
    if hashlib.sha256(block[at:at + PIECE]).digest() != sums[piece]:
        bad("memory, piece %d" % piece)
    block[at:at + 4096] = os.urandom(4096)
    sums[piece] = hashlib.sha256(block[at:at + PIECE]).digest()
    f = n % FILES
    if contents[f]:
        got = open("file-%d" % f, "rb").read()
        if got != contents[f]:
            bad("file %d has %d bytes, wanted %d" % (f, len(got), len(contents[f])))
    contents[f] = os.urandom(1000 + n % 30000)
    with open("file-%d" % f, "wb") as out:
        out.write(contents[f])
        if n % 8 == 0:
            out.flush()
            os.fsync(out.fileno())
    n += 1
    with open("count.new", "w") as out:
        out.write("%d\\n" % n)
    os.rename("count.new", "count")
    time.sleep(0.01)
"""
PRINTER = """
import os, time, zlib
n, sum = 0, 0
while True:
    line = "%d %08x" % (n, sum)
    sum = zlib.crc32(line.encode(), sum)
    print(line, flush=True)
    n += 1
    if n % 20 == 0:
        with open("/dev/shm/printed.new", "w") as out:
            out.write("%d\\n" % n)
        os.rename("/dev/shm/printed.new", "/dev/shm/printed")
        time.sleep(0.01)
"""


def look(name, first=""):
    """What both programs count; what one complains about ends the test."""
    said = hotcell("exec", "--user", "root", name, "-c",
                   first + "cd /home/user && cat count /dev/shm/printed && cat bad 2>/dev/null; :").stdout.split("\n", 2)
    if len(said) != 3 or said[2]:
        fail(f"{name}: {said}")
    return int(said[0]), int(said[1])


def goes_on(name):
    """Both programs go on and have nothing to complain about; of the disk itself, too."""
    before = look(name, "sync; echo 3 >/proc/sys/vm/drop_caches; ")
    wait_until(f"both programs in {name} go on",
               lambda: all(new > old for new, old in zip(look(name), before)))


class Terminal:
    """A client that follows a program on a terminal."""

    def __init__(self, name, scratch):
        self.path = pathlib.Path(scratch, "terminal")
        hotcell("exec", name, "-c", "pkill -f '[z]lib'; echo 0 >/dev/shm/printed")
        with open(self.path, "wb") as out:
            self.client = subprocess.Popen(["hotcell", "exec", "-t", name, "--", "python3", "-c", PRINTER], stdin=subprocess.DEVNULL,
                                           stdout=out, stderr=subprocess.PIPE, text=True)
        atexit.register(self.end)  # left alone, it would start the next daemon
        wait_until("the program prints", lambda: self.path.stat().st_size > LINES_BYTES)

    def is_over(self, words):
        """The client was told that its session is over, and has every byte until then."""
        try:
            _, stderr = self.client.communicate(timeout=crash.SECONDS)
        except subprocess.TimeoutExpired:
            fail("the client of a terminal hangs")
        if self.client.returncode != 125 or words not in stderr:
            fail(f"the client of a terminal ends with {self.client.returncode}: {stderr!r}")
        sum = 0
        lines = self.path.read_bytes().replace(b"\r\n", b"\n").split(b"\n")
        for n, line in enumerate(lines[:-1]):
            want = b"%d %08x" % (n, sum)
            if line != want:
                fail(f"line {n} on the terminal is {line!r}, wanted {want!r}")
            sum = zlib.crc32(want, sum)
        if not (b"%d %08x" % (len(lines) - 1, sum)).startswith(lines[-1]):
            fail(f"the last line on the terminal begins with {lines[-1]!r}")
        atexit.unregister(self.end)
        return len(lines) - 1

    def end(self):
        if self.client.poll() is None:
            self.client.kill()
            self.client.communicate()


def own_kib(pid):
    """What a process has for itself; files in memory, which sets are, are not counted."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


class Leaks:
    def __init__(self):
        self.first, self.memory = None, None

    def now(self):
        """Descriptors of daemon and keeper; sets and sandboxes on disk; and what is kept of the first two's memory."""
        facts = json.loads(hotcell("info", "--json").stdout)
        pids = facts["pid"], facts["keeper_pid"]
        entries = sorted(path.name for path in STATE.glob("snapshots/*")), len(list(STATE.glob("sandboxes/*")))
        self.memory = [own_kib(pid) for pid in pids]
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids], entries

    def look(self):
        """What must not grow, at rest with one running sandbox; what was given up goes away in its time."""
        if self.first is None:
            self.first = self.now(), self.memory
            return
        (descriptors, entries), memory = self.first
        end = time.monotonic() + REST_S
        while True:
            now = self.now()
            if now[1] == entries and all(n <= first for n, first in zip(now[0], descriptors)):
                break
            if time.monotonic() > end:
                fail(f"descriptors of daemon and keeper, sets, sandboxes: {now}; before: {self.first[0]}")
            time.sleep(0.1)
        for name, kib, first in zip(("daemon", "keeper"), self.memory, memory):
            if kib > first + GROWTH_KIB:
                fail(f"the {name} has grown from {first} to {kib} KiB")

    def words(self):
        return f"descriptors {self.first[0][0]}, KiB of daemon and keeper {self.first[1]} -> {self.memory}"


def pauses(scratch, cycles):
    leaks, lines = Leaks(), 0
    for cycle in range(cycles):
        terminal = Terminal("src", scratch)
        calmly("pause", "src")
        lines += terminal.is_over("paused")
        hotcell("resume", "src")
        goes_on("src")  # nobody reads its terminal any more; that must not stop it
        if cycle in (1, cycles - 1) or cycle % 25 == 24:
            leaks.look()
            print(f"cycle {cycle + 1}: count {look('src')[0]}, {lines} lines; {leaks.words()}", flush=True)


def forks(scratch, n):
    leaks, name, lines = Leaks(), "src", 0
    for i in range(n):
        terminal = Terminal(name, scratch)
        young = f"fork-{i}"
        calmly("fork", name, "--name", young)
        goes_on(young)
        goes_on(name)
        hotcell("rm", name)
        lines += terminal.is_over("removed")
        name = young
        if i in (1, n - 1) or i % 25 == 24:
            leaks.look()
            print(f"fork {i + 1}: count {look(name)[0]}, {lines} lines; {leaks.words()}", flush=True)


def main():
    scratch, cycles, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    hotcell("create", "--name", "src")
    hotcell("exec", "--detach", "src", "--", "python3", "-c", KEEPER_OF_STATE)
    wait_until("the program counts", lambda: hotcell("exec", "src", "--", "test", "-s", "count", check=False).returncode == 0)
    pauses(scratch, cycles)
    forks(scratch, n)


main()
