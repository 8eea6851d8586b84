"""Files into a sandbox and out of it, in MB/s (10^6 bytes), hashed on the way."""
import os
import time

from parts.duel import Contestant, duel
from parts.report import Aim, Row, Table

KIB, MIB = 1 << 10, 1 << 20
PATH = "/tmp/bench.bin"
AGENT_CHUNK = 64 * KIB  # the fastest of 4 KiB to 1 MiB for qemu-guest-agent


def size_text(n):
    return f"{n // MIB} MiB" if n >= MIB else f"{n // KIB} KiB"


class Ours:
    """Both directions of one size in one sandbox; reading follows writing, so the file is there."""

    def __init__(self, cell, wall, box, size):
        self.cell, self.wall, self.box, self.size = cell, wall, box, size
        # The layer of a `process` sandbox is memory, and an upload stands beside the file it replaces.
        self.memory_mb = 2048 if wall == "process" else 0
        name = size_text(size)
        self.up = Contestant(f"hotcell upload {name}", self.put, unit="MB/s")
        self.down = Contestant(f"hotcell download {name}", self.get, unit="MB/s")

    def rate(self, *fields):
        return self.size / 1e3 / self.cell.took_ms(*fields)

    def put(self):
        if not self.box:
            self.box.update(self.cell.box(self.wall, self.memory_mb))
        self.cell.use(self.box)
        return self.rate("put", PATH, self.size)

    def get(self):
        if not self.box:
            self.put()
        self.cell.use(self.box)
        return self.rate("get", PATH)


class Agents:
    def __init__(self, cell, size):
        self.cell, self.size, self.data = cell, size, os.urandom(size)
        name = size_text(size)
        how = f"guest-file-open, %s of {AGENT_CHUNK // KIB} KiB in base64, guest-file-close"
        self.up = Contestant(f"qemu-guest-agent upload {name}", self.put, how % "guest-file-write",
                             unit="MB/s", peer=True)
        self.down = Contestant(f"qemu-guest-agent download {name}", self.get, how % "guest-file-read",
                               unit="MB/s", peer=True)

    def rate(self, work):
        started = time.perf_counter()
        work()
        return self.size / 1e6 / (time.perf_counter() - started)

    def put(self):
        agent = self.cell.qga()
        return self.rate(lambda: agent.write(PATH, self.data, AGENT_CHUNK))

    def check(self, got):
        if got != self.data:
            raise RuntimeError("guest-file-read gave other bytes back")

    def get(self):
        agent = self.cell.qga()
        return self.rate(lambda: self.check(agent.read(PATH, AGENT_CHUNK)))


def process(cell):
    box = {}
    sizes = [64 * KIB, MIB, 64 * MIB] + cell.pick([256 * MIB], [])
    ours = [Ours(cell, "process", box, size) for size in sizes]
    try:
        # One size after the other: a download reads what the upload before it wrote.
        for o in ours:
            duel([o.up, o.down], *cell.scale(64 if o.size <= MIB else 8, 6))
    finally:
        if box:
            cell.drop(box)
    return Table("process: files", [Row(c) for o in ours for c in (o.up, o.down)])


def machine(cell):
    box = {}
    small = [(Ours(cell, "vm", box, s), Agents(cell, s)) for s in (64 * KIB, MIB)]
    large = Ours(cell, "vm", box, 64 * MIB)
    try:
        for o, a in small:
            duel([o.up, o.down, a.up, a.down], *cell.scale(24, 14))
        duel([large.up, large.down], *cell.scale(4, 20), warm=0)
    finally:
        if box:
            cell.drop(box)
        cell.drop_guest()
    aim = Aim(20, of_peer=True, at_least=True)
    rows = [row for o, a in small for row in (Row(o.up, a.up, aim), Row(o.down, a.down, aim), Row(a.up), Row(a.down))]
    a = small[-1][1]
    rows += [Row(large.up, a.up, aim), Row(large.down, a.down, aim)]
    return Table("qemu: files", rows,
                 ["64 MiB is held against the agent's rate at 1 MiB: the agent would need half a minute for each."])


def tables(cell):
    yield process(cell)
    yield machine(cell)
