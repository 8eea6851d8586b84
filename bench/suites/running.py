"""Verbs of a running machine whose program holds memory: snapshot, fork, rollback, pause, resume; a parked one."""
import json

from parts import host
from parts.cell import derived
from parts.duel import Contestant, duel
from parts.hot import MB, anonymous_mb
from parts.report import Aim, Row, Table

PRIVATE_MB = 64
FORKS = 3  # of one source, one by one; each adds a layer to its disk, of at most 8
HOLD = "held = globals().get('held', []) + [__import__('os').urandom(1 << 20) * %d]; len(held)"


class Source:
    """One sample is a new machine that all of it is done to; @private_mb 0: an idle one."""

    def __init__(self, cell, name, mb, copies):
        self.cell, self.mb, self.copies, self.rows_of = cell, mb, copies, {}
        self.all = Contestant(name, self.sample)
        for key, text, unit in (
                ("private", "Anonymous of its monitor", "MB"), ("still", "snapshot: it stands still", "ms"),
                ("programs", "snapshot: its programs stand still", "ms"),
                ("snapshot", "snapshot: until it is taken", "ms"), ("fork", "fork: until the copy is ready", "ms"),
                ("forks", f"fork of {copies}: until all are ready", "ms"), ("rollback", "rollback", "ms"),
                ("pause", "pause: until its memory is given back", "ms"), ("parked", "parked: its files", "MiB"),
                ("resume", "resume: until it runs", "ms")):
            self.rows_of[key] = derived(f"{name}: {text}", unit)
        self.all.also = list(self.rows_of.values())

    def note(self, key, value):
        self.rows_of[key].series.add(value)

    def timed(self, key, *fields):
        self.note(key, self.cell.took_ms(*fields))

    def sample(self):
        self.cell.hot()
        box, taken = self.cell.box("vm"), None
        try:
            self.cell.use(box)
            for part in (0.7, 1):
                self.fill(box, self.mb * part)
            self.note("private", anonymous_mb(box["pid"]))
            taken = self.snapshot()
            for _ in range(FORKS):
                self.timed("fork", "fork", 1)
            self.timed("forks", "fork", self.copies)
            self.timed("rollback", "rollback", taken)
            self.park(box)
        finally:
            self.cell.drop(box)
            if taken:
                self.cell.ask("forget", taken)
        return 0

    def fill(self, box, mb):
        """Up to @mb, with what it had changed anyway. Its interpreter holds it; filling costs it some as well."""
        mib = int((mb - anonymous_mb(box["pid"])) * MB / (1 << 20))
        if mib > 0:
            self.cell.ask("code", HOLD % mib)

    def snapshot(self):
        got = self.cell.ask("snapshot")
        self.note("snapshot", float(got["us"]) / 1000)
        info = json.loads(got["info"])
        self.note("still", info["pause_us"] / 1000)
        self.note("programs", sum(info["stages"].get(stage, 0) for stage in ("freeze", "copy", "thaw")) / 1000)
        return got["id"]

    def park(self, box):
        state = self.cell.hotcell.state
        self.timed("pause", "pause")
        self.note("parked", sum(host.blocks_mib(state / part / box["id"]) for part in ("snapshots", "sandboxes")))
        self.timed("resume", "resume")

    def rows(self, aims):
        return [Row(c, None, aims.get(key)) for key, c in self.rows_of.items()]


def tables(cell):
    copies = cell.pick(10, 10, 2)
    held, idle = Source(cell, f"{PRIVATE_MB} MB", PRIVATE_MB, copies), Source(cell, "idle", 0, copies)
    sources = cell.pick([held, idle], [held, idle], [held])
    duel([s.all for s in sources], *cell.scale(20, 90), warm=0)
    yield Table("qemu: verbs of a running machine", [row for s in sources for row in s.rows({"still": Aim(15)} if s is held else {})],
                [f"{PRIVATE_MB} MB: a Python interpreter holds bytes, so that this much differs from the template.",
                 "Parked: all of its memory that is not zero, whether the template has it too or not, and its disk."])
