#!/usr/bin/env python3
"""pressure.py SANDBOX MIB STALL_SECONDS DAEMON KEEPER - a reader that stops must make the writer wait, not memory grow

Runs a writer of MIB numbered blocks in the sandbox, stops reading twice, samples the memory of every process of
ours meanwhile, and checks every byte that arrives in the end.
"""
import subprocess
import sys
import time

BLOCK = 1 << 20
GROWTH_MIB = 8
AHEAD_MIB = 8
WRITER = """
import os, sys
block = bytearray(i * 7 + 13 & 255 for i in range(1 << 20))
note = os.open('/tmp/written', os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o644)
for n in range(int(sys.argv[1])):
    block[:8] = n.to_bytes(8, 'little')
    left = memoryview(block)
    while left:
        left = left[os.write(1, left):]
    os.pwrite(note, b'%012d' % (n + 1), 0)
"""
PATTERN = bytes(i * 7 + 13 & 255 for i in range(BLOCK))


def fail(words):
    print("failed:", words)
    sys.exit(1)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
            found = [int(word) for word in f.read().split()]
    except OSError:
        return []
    return found + [deeper for child in found for deeper in children(child)]


def name(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def memory_kib(pid):
    """Memory that is the process's own: no page of a file."""
    kib = 0
    try:
        with open(f"/proc/{pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    kib += int(line.split()[1])
    except OSError:
        pass
    return kib


class Sampler:
    def __init__(self, roots):
        self.roots = roots
        self.first, self.most = {}, {}

    def sample(self):
        for pid in [p for root in self.roots for p in [root, *children(root)]]:
            label = name(pid)
            if not label.startswith(("hotcell", "qemu")) or label == "hotcell-shell":
                continue
            kib = memory_kib(pid)
            key = f"{label}[{pid}]"
            self.first.setdefault(key, kib)
            self.most[key] = max(self.most.get(key, 0), kib)

    def growth(self):
        return {key: (self.most[key] - self.first[key]) / 1024 for key in self.first}


def start(box, mib):
    return subprocess.Popen(["hotcell", "exec", "--no-stdin", box, "--", "python3", "-c", WRITER, str(mib)],
                            stdout=subprocess.PIPE, bufsize=0)


def written(box):
    got = subprocess.run(["hotcell", "cp", f"{box}:/tmp/written", "-"], stdout=subprocess.PIPE, check=True).stdout
    return int(got or 0)


class Reader:
    def __init__(self, program, mib):
        self.pipe, self.total, self.at = program.stdout, mib * BLOCK, 0

    def read(self, upto, sampler):
        """Up to this offset, every byte checked."""
        ticks = 0
        while self.at < upto:
            n, here = divmod(self.at, BLOCK)
            got = self.pipe.read(min(BLOCK - here, upto - self.at))
            if not got:
                fail(f"output ended at byte {self.at} of {self.total}")
            want = (n.to_bytes(8, "little") + PATTERN[8:])[here:here + len(got)]
            if got != want:
                fail(f"byte {self.at + next(i for i, (a, b) in enumerate(zip(got, want)) if a != b)} is not what was written")
            self.at += len(got)
            ticks += 1
            if ticks % 256 == 0:
                sampler.sample()


def stall(box, reader, sampler, seconds):
    """Read nothing; the writer must come to rest, and stay there."""
    rest, last, since = None, -1, time.monotonic()
    while True:
        sampler.sample()
        now = written(box)
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= seconds:
            rest = now
            break
        time.sleep(0.1)
    ahead = rest - reader.at / BLOCK
    if rest * BLOCK >= reader.total or ahead > AHEAD_MIB:
        fail(f"the writer went on while nobody read: {rest} MiB written, {reader.at / BLOCK:.1f} MiB read")
    return ahead


def main():
    box, mib, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    roots = [int(word) for word in sys.argv[4:]]
    warm = start(box, 32)  # Python, page tables, translated code: not what this is about
    Reader(warm, 32).read(32 * BLOCK, Sampler([]))
    warm.wait()
    program = start(box, mib)
    while name(program.pid) != "hotcell":
        time.sleep(0.01)
    sampler = Sampler([*roots, program.pid])
    reader = Reader(program, mib)
    reader.read(4096, sampler)
    ahead = stall(box, reader, sampler, seconds)
    reader.read(mib // 2 * BLOCK + 4321, sampler)
    stall(box, reader, sampler, min(seconds, 2))
    begin, base = time.monotonic(), reader.at
    reader.read(mib * BLOCK, sampler)
    took = time.monotonic() - begin
    if program.stdout.read(1):
        fail("more came than was written")
    if program.wait() != 0:
        fail(f"exit status {program.returncode}")
    growth = sampler.growth()
    print(f"{mib} MiB exact; writer at rest {ahead:.1f} MiB ahead; {(mib * BLOCK - base) / BLOCK / took:.0f} MiB/s; growth in MiB:",
          ", ".join(f"{key} {value:.1f}" for key, value in sorted(growth.items())))
    for key, value in growth.items():
        if value > GROWTH_MIB:
            fail(f"{key} grew by {value:.1f} MiB, limit {GROWTH_MIB}")


main()
