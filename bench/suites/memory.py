"""Memory per idle sandbox, and what daemon and keeper take.

Anonymous and PSS are sums over the processes of a sandbox (smaps_rollup): Anonymous is what
only it holds, PSS adds its share of files and of memory mapped by several. MemAvailable is
what the whole machine lost per sandbox, kernel memory included; it is noisy, so it is taken
over all sandboxes at once.
"""
import os
import select
import signal
import subprocess

from parts import host
from parts.cell import derived
from parts.duel import FAILED, Skip
from parts.guestagent import AgentError
from parts.report import Row, Table
from parts.walls import bwrap, runsc_do

N = 10
SLEEP = ("/bin/sleep", "3600")
SETTLE_S = 1.0  # for what sandboxes free after their start


class Group:
    """The three figures of N sandboxes of one kind."""

    def __init__(self, name, command="", peer=False):
        self.rows = [derived(f"{name}: {what}", "MiB") for what in ("Anonymous", "PSS", "MemAvailable")]
        for row in self.rows:
            row.peer, row.command = peer, ""
        self.rows[0].command = command

    def fill(self, before_kib, roots):
        """@roots: the first process of each sandbox."""
        for root in roots:
            use = host.memory_of(host.family(root))
            self.rows[0].series.add(use["Anonymous"] / 1024)
            self.rows[1].series.add(use["Pss"] / 1024)
        lost = before_kib - host.mem_available_kib()  # below zero when something else gave memory back
        self.rows[2].series.add(lost / 1024 / len(roots))

    def skip(self, why):
        for row in self.rows:
            row.skipped = why


def settle():
    select.select([], [], [], SETTLE_S)


def footprint(cell, rows, when):
    """Daemon and keeper, by name."""
    if cell.absent:
        return
    for name, pid in cell.hotcell.pids().items():
        use = host.smaps(pid)
        for key in ("Rss", "Pss"):
            row = derived(f"{name}: {key.upper()}, {when}", "MiB")
            if use:
                row.series.add(use[key] / 1024)
            else:
                row.skipped = "its memory can't be read by this user"
            rows.append(row)


def fill_ours(cell, wall, group, n, footprints):
    boxes = []
    try:
        before = host.mem_available_kib()
        while len(boxes) < n:
            boxes.append(cell.box(wall))
            if cell.left_s() <= 0:
                raise Skip("the run is out of time")
        settle()
        group.fill(before, [b["pid"] for b in boxes])
        footprint(cell, footprints, f"{n} {wall} sandboxes")
    except (Skip, *FAILED) as e:
        group.skip(str(e))
    finally:
        for box in boxes:
            cell.drop(box)


class Sleepers:
    """N peers that sleep."""

    def __init__(self, make, n):
        self.children, self.make, self.n = [], make, n

    def __enter__(self):
        argv = self.make()
        for _ in range(self.n):
            self.children.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                  stderr=subprocess.DEVNULL, start_new_session=True))
        return self

    def __exit__(self, *_):
        for c in self.children:
            for pid in reversed(host.family(c.pid)):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            c.wait()


def fill_peer(group, make, n, running):
    try:
        before = host.mem_available_kib()
        with Sleepers(make, n) as s:
            if not running(s.children):
                raise Skip("it did not start")
            settle()
            group.fill(before, [c.pid for c in s.children])
    except (Skip, *FAILED) as e:
        group.skip(str(e))


def all_sleep(children):
    """Until each has the sleeping program below it; bounded."""
    for _ in range(100):
        if all(any(named(p, "sleep") for p in host.family(c.pid)) for c in children):
            return True
        if any(c.poll() is not None for c in children):
            return False
        select.select([], [], [], 0.1)
    return False


def named(pid, name):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
            return f.read().strip() == name
    except OSError:
        return False


def all_live(children):
    """gVisor's programs have no process of their own name on the host: wait for the sandbox process."""
    for _ in range(100):
        if all(len(host.family(c.pid)) >= 3 for c in children):
            return True
        if any(c.poll() is not None for c in children):
            return False
        select.select([], [], [], 0.1)
    return False


def process(cell):
    n, tree = cell.pick(N, 5), cell.hotcell.tree
    state = cell.scratch / "runsc"
    state.mkdir(exist_ok=True)
    feet = []
    footprint(cell, feet, "no sandbox")
    ours = Group(f"hotcell, {n} idle")
    fill_ours(cell, "process", ours, n, feet)
    b = Group(f"bwrap, {n} sleeping", "bwrap ... /bin/sleep", peer=True)
    fill_peer(b, lambda: bwrap(tree, *SLEEP), n, all_sleep)
    g = Group(f"gVisor, {n} sleeping", "runsc do ... /bin/sleep", peer=True)
    fill_peer(g, lambda: runsc_do(cell.peers, state, tree, *SLEEP), n, all_live)
    rows = [Row(o, p) for o, p in zip(ours.rows, b.rows)] + [Row(c) for c in b.rows + g.rows]
    return Table("process: memory per sandbox; daemon and keeper", rows + [Row(c) for c in feet])


def machine(cell):
    n = cell.pick(N, 2)
    feet = []
    ours = Group(f"hotcell, {n} idle")
    fill_ours(cell, "vm-cold", ours, n, feet)
    q = Group("qemu-guest-agent guest, 1 idle", peer=True)
    before = host.mem_available_kib()
    try:
        cell.qga()
        settle()
        q.fill(before, [cell.guest.process.pid])
    except (Skip, AgentError, *FAILED) as e:
        q.skip(str(e))
    finally:
        cell.drop_guest()
    return Table("qemu: memory per machine; daemon and keeper",
                 [Row(o, p) for o, p in zip(ours.rows, q.rows)] + [Row(c) for c in q.rows + feet])


def tables(cell):
    yield process(cell)
    yield machine(cell)
