"""Many forks asked for at once: against the processor time that they need one by one."""
import os

from parts.cell import derived
from parts.duel import Contestant, duel
from parts.hot import Pool, cpu_s, pause
from parts.report import Aim, Row, Table
from parts.walls import runsc_do

PROGRAM = ("/bin/echo", "hi")
SETTLED_S = 5  # after which a new machine does nothing any more


class Alone:
    """Forks one after the other: processor seconds of one, with nobody beside it."""

    def __init__(self, cell, pool):
        self.cell, self.pool, self.n = cell, pool, cell.pick(10, 10, 2)
        self.wall = derived("a fork alone: until the create reply")
        self.cpu = Contestant("a fork alone: processor time, all processes", self.sample)
        self.settled = derived(f"  and of its first {SETTLED_S} s, idle")
        self.cpu.also = [self.wall, self.settled]

    def sample(self):
        self.cell.hot()
        self.pool.end()
        boxes, before = [], cpu_s(self.cell)
        try:
            for _ in range(self.n):
                boxes.append(self.cell.box("vm"))
                self.wall.series.add(boxes[-1]["ms"])
            ready = cpu_s(self.cell, [b["pid"] for b in boxes])
            pause(SETTLED_S)
            self.settled.series.add((cpu_s(self.cell, [b["pid"] for b in boxes]) - before) / self.n * 1000)
            return (ready - before) / self.n * 1000
        finally:
            for box in boxes:
                self.cell.drop(box)


class Burst:
    def __init__(self, cell, pool, n, heavy):
        self.cell, self.pool, self.n = cell, pool, n
        self.ready = Contestant(f"{n} at once: all create replies", self.all_ready, "on a connection each", heavy=heavy)
        self.spoken = Contestant(f"{n} at once: first output of the last", self.all_spoken, heavy=heavy)
        self.ideal = derived(f"{n} x processor time of one / cores")
        self.ideal.peer = True

    def ask(self, *program):
        self.cell.hot()
        self.pool.end()
        return self.cell.ask("crowd", "vm", self.n, *program)

    def all_ready(self):
        return float(self.ask()["ready_us"]) / 1000

    def all_spoken(self):
        return float(self.ask(*PROGRAM)["last_us"]) / 1000

    def judge(self, alone):
        """What the processors alone would allow, from what one took in the same run."""
        for ms in alone.cpu.series.samples:
            self.ideal.series.add(self.n * ms / os.cpu_count())
        if not len(self.ideal.series):
            self.ideal.skipped = alone.cpu.skipped or "one alone was not measured"

    def rows(self, peer=None):
        return [Row(self.ready, self.ideal, Aim(1.3, of_peer=True)), Row(self.ideal), Row(self.spoken, peer)]


def from_pool(cell, pool, n):
    def sample():
        pool.fill(n, 0)
        return float(cell.ask("crowd", "vm", n)["ready_us"]) / 1000
    return Contestant(f"{n} at once, from a pool of {n}: all replies", sample)


def gvisors(cell, n):
    state = cell.scratch / "runsc"
    state.mkdir(exist_ok=True)

    def sample():
        argv = runsc_do(cell.peers, state, cell.hotcell.tree, *PROGRAM)
        return float(cell.probe.ask("burst", 60000, n, *argv)["last_us"]) / 1000
    return Contestant(f"runsc do, {n} at once: first output of the last", sample, peer=True)


def tables(cell):
    pool = Pool(cell)
    few, many = cell.pick((20, 100), (20, 50), (2, 4))
    alone = Alone(cell, pool)
    small, large = Burst(cell, pool, few, 1), Burst(cell, pool, many, 2)
    pooled, peer = from_pool(cell, pool, few), gvisors(cell, few)
    try:
        duel([alone.cpu, small.ready, small.spoken, large.ready, large.spoken, pooled, peer],
             *cell.scale(cell.pick(6, 4), 130), warm=0)
    finally:
        pool.end()
    for burst in (small, large):
        burst.judge(alone)
    notes = [f"Processor time of one: daemon, keeper, monitor and guest; mean of {alone.n} forks, one by one."]
    rows = [Row(alone.cpu), Row(alone.settled), Row(alone.wall), *small.rows(peer), Row(pooled, small.ready), Row(peer), *large.rows()]
    yield Table(f"qemu: bursts of {few} and of {many} forks, without a pool", rows, notes)
