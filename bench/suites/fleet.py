"""Idle forks: what each takes, alone and in a fleet that grows to what this host's memory holds; and after work."""
import time

from parts import host
from parts.cell import Effort, derived
from parts.duel import FAILED, Skip
from parts.hot import MB, anonymous_mb, pause
from parts.report import Aim, Row, Table

IDLE_S = 60  # after which the idle figures are taken
CPU_S = 30
NEEDED_MB = 80  # of the host, for each; with less the fleet is smaller
STRIDE = 100  # of the fleet that grows beyond a hundred
ROOM_MB = 2048  # of MemAvailable, which it leaves
SLOTS = 1000  # machines that a keeper holds, less some to work with
WORKERS = 10
WORK = ("import json, re, collections; x = json.loads(json.dumps([{'n': i, 's': str(i) * 5} for i in range(5000)])); "
        "y = collections.Counter(re.sub('[0-4]', '', r['s']) for r in x); len(y)")


class Fleet:
    def __init__(self, cell):
        self.cell, self.boxes = cell, []
        self.before_kib = self.born = 0

    def open(self):
        self.cell.hot()
        self.cell.drop(self.cell.box("vm"))  # what the first one alone makes is there from now on
        pause(1)
        self.before_kib = host.mem_available_kib()

    def grow(self, n):
        """To @n machines; the milliseconds that each new one took."""
        took = []
        while len(self.boxes) < n:
            if self.cell.left_s() <= 0:
                raise Skip("the run is out of time")
            self.boxes.append(self.cell.box("vm"))
            took.append(self.boxes[-1]["ms"])
        self.born = time.monotonic()
        return took

    def fill(self, n):
        """Towards @n, as long as there is room; the milliseconds of each."""
        took = []
        while len(self.boxes) < n and host.mem_available_kib() * 1024 > ROOM_MB * MB:
            took += self.grow(len(self.boxes) + 1)
        return took

    def lost_mb(self):
        """MemAvailable that went away, per machine."""
        return (self.before_kib - host.mem_available_kib()) * 1024 / MB / len(self.boxes)

    def cpu_percent(self, seconds):
        """Of a core: each machine, and daemon and keeper together, over @seconds."""
        servers = self.cell.hotcell.pids().values()
        start, before = time.monotonic(), [host.cpu_ns(b["pid"]) for b in self.boxes]
        of_servers = sum(map(host.cpu_ns, servers))
        pause(seconds)
        took_ns = (time.monotonic() - start) * 1e9
        each = [(host.cpu_ns(b["pid"]) - ns) / took_ns * 100 for b, ns in zip(self.boxes, before)]
        return each, (sum(map(host.cpu_ns, servers)) - of_servers) / took_ns * 100

    def close(self):
        for box in self.boxes:
            self.cell.drop(box)


def filled(name, unit, values):
    row = derived(name, unit)
    for value in values:
        row.series.add(value)
    return row


def point(fleet, took, settle_s, cpu_s_):
    """Of the density curve, when the last ones @took so many milliseconds each."""
    n = len(fleet.boxes)
    pause(settle_s)
    each, _ = fleet.cpu_percent(cpu_s_)
    return [Row(filled(f"{n} machines: create of the last {len(took)}", "ms", took)),
            Row(filled(f"{n} machines: Anonymous of each", "MB", [anonymous_mb(b["pid"]) for b in fleet.boxes])),
            Row(filled(f"{n} machines: MemAvailable per machine", "MB", [fleet.lost_mb()])),
            Row(filled(f"{n} machines: all of them together", "% core", [sum(each)]))]


def idle(fleet, idle_s, cpu_s_):
    """All of them a while after the last one came."""
    pause(fleet.born + idle_s - cpu_s_ - time.monotonic())
    each, servers = fleet.cpu_percent(cpu_s_)
    rows = [Row(filled(f"idle for {idle_s:g} s: Anonymous", "MB", [anonymous_mb(b["pid"]) for b in fleet.boxes]),
                None, Aim(34)),
            Row(filled("  MemAvailable per machine", "MB", [fleet.lost_mb()])),
            Row(filled(f"  its processor time over {cpu_s_:g} s", "% core", each), None, Aim(0.6)),
            Row(filled(f"  daemon and keeper, {len(fleet.boxes)} machines", "% core", [servers]))]
    answers = []
    for box in fleet.boxes:
        fleet.cell.use(box)
        answers.append(fleet.cell.took_ms("exec", "/bin/true"))
    return rows + [Row(filled("  each of them asked in turn: first exec", "ms", answers))]


def crowd(fleet, curve, settle_s, cpu_s_):
    """As many as this host's memory holds; every tenth of them answers."""
    took = [0]
    while took and len(fleet.boxes) < SLOTS:
        took = fleet.fill(min(len(fleet.boxes) + STRIDE, SLOTS))
        if took:
            curve += point(fleet, took, settle_s, cpu_s_)
    answers = []
    for box in fleet.boxes[::10]:
        fleet.cell.use(box)
        answers.append(fleet.cell.took_ms("exec", "/bin/true"))
    curve.append(Row(filled(f"{len(fleet.boxes)} machines: first exec of every tenth", "ms", answers)))


def worked(fleet, n, settle_s):
    before, available = [], host.mem_available_kib()
    boxes = fleet.boxes[:n]
    for box in boxes:
        before.append(anonymous_mb(box["pid"]))
        fleet.cell.use(box)
        fleet.cell.ask("code", WORK)
        fleet.cell.ask("exec", "/usr/bin/git", "--version")
    pause(settle_s)
    lost = (available - host.mem_available_kib()) * 1024 / MB / len(boxes)
    after = [anonymous_mb(b["pid"]) for b in boxes]
    return [Row(filled("after work: Anonymous", "MB", after)),
            Row(filled("  more than before it", "MB", [a - b for a, b in zip(after, before)])),
            Row(filled("  MemAvailable more per machine", "MB", [lost]))]


def tables(cell):
    fits = int(host.mem_available_kib() * 1024 / MB / NEEDED_MB)
    steps = [min(n, fits) for n in cell.pick((10, 25, 50, 75, 100), (5, 10, 25), (2, 3))]
    idle_s, watch_s, settle_s = cell.pick((IDLE_S, CPU_S, 3), (20, 10, 1), (2, 1, 0.2))
    fleet, curve, rest, why = Fleet(cell), [], [], ""
    try:
        fleet.open()
        for n in dict.fromkeys(steps):
            curve += point(fleet, fleet.grow(n), settle_s, min(watch_s, 5))
        rest = idle(fleet, idle_s, watch_s) + worked(fleet, min(WORKERS, len(fleet.boxes)), settle_s)
        if cell.effort is Effort.FULL:
            crowd(fleet, curve, settle_s, min(watch_s, 5))
    except (Skip, *FAILED) as e:
        why = f"stopped at {len(fleet.boxes)} machines: {e}"
    finally:
        fleet.close()
    notes = [why] if why else [f"{len(fleet.boxes)} ran at the same time; the first {steps[-1]} of them answered, then every tenth of all."]
    if steps[-1] == fits:
        notes.append(f"More than {fits} do not fit this host's memory.")
    yield Table("qemu: idle forks, and after work", rest, [*notes, f"Work: {WORK}; and git --version."])
    yield Table("qemu: how many fit", curve, [
        "MemAvailable is what the whole host lost since there was none, kernel memory included, so it is one figure.",
        f"A full run goes on until {ROOM_MB} MB of MemAvailable are left, or a keeper's slots are used."])
