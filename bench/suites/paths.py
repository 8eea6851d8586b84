"""A machine by each create path, to the first output of a program in it; gVisor in the same rounds."""
import json

from parts.cell import derived
from parts.duel import Contestant, Skip, duel
from parts.hot import Pool
from parts.report import Aim, Row, Table
from parts.walls import runsc_do

PROGRAM = ("/bin/echo", "hi")


class Path:
    """One sample makes, uses and removes a machine that must have come by this path."""

    def __init__(self, cell, name, before, aim_ms=None, kind="vm", heavy=1):
        self.cell, self.name, self.before, self.kind = cell, name, before, kind
        self.aim = Aim(aim_ms) if aim_ms else None
        self.stages = {}
        self.ready = derived(f"  {name}: until the create reply")
        self.contestant = Contestant(f"hotcell {name}: to the first output", self.sample, heavy=heavy)
        self.contestant.also = [self.ready]

    def sample(self):
        self.cell.hot()
        self.before()
        got = self.cell.ask("fresh", self.kind, 0, *PROGRAM)
        info = json.loads(got["info"])
        if info["path"] != self.name:
            raise RuntimeError(f"asked for {self.name}, made by {info['path']}")
        for stage, us in info["stages"].items():
            if stage not in self.stages:
                self.stages[stage] = derived(f"    {self.name}: {stage}", "us")
                self.contestant.also.append(self.stages[stage])
            self.stages[stage].series.add(int(us))
        self.ready.series.add(float(got["ready_us"]) / 1000)
        return float(got["first_us"]) / 1000

    def rows(self, peer, own_aim=None):
        return [Row(self.contestant, peer, own_aim), Row(self.ready, None, self.aim),
                *(Row(c) for c in self.stages.values())]


def by_command(cell, pool):
    argv = [str(cell.hotcell.cli), "run", "--isolation", "vm", "--", *PROGRAM]

    def sample():
        cell.hot()
        pool.end()
        return cell.hotcell.probe.first_output_ms(argv, timeout_ms=60000)
    return Contestant("hotcell run, by fork: to the first output", sample, " ".join(["hotcell", *argv[1:]]))


def gvisor(cell):
    state = cell.scratch / "runsc"
    state.mkdir(exist_ok=True)
    tree = cell.hotcell.tree
    try:
        shown = " ".join(runsc_do(cell.peers, state, tree, *PROGRAM))
    except Skip:
        shown = ""
    return Contestant("runsc do", lambda: cell.probe.first_output_ms(runsc_do(cell.peers, state, tree, *PROGRAM)),
                      shown, peer=True)


def tables(cell):
    pool = Pool(cell)
    fork = Path(cell, "fork", pool.end, 80)
    command, peer = by_command(cell, pool), gvisor(cell)
    prestarted = Path(cell, "prestarted", lambda: pool.fill(0, 1), 50)
    ready = Path(cell, "pool", lambda: pool.fill(1, 0), 3)
    boot = Path(cell, "boot", pool.end, kind="vm-cold", heavy=10)
    try:
        duel([p.contestant for p in (fork, prestarted, ready, boot)] + [command, peer], *cell.scale(100, 120))
    finally:
        pool.end()
    sooner = Aim(1, of_peer=True)
    yield Table("qemu: from asking for a machine to the first output of /bin/echo, by create path",
                [*fork.rows(peer, sooner), Row(command, peer, sooner), *prestarted.rows(peer), *ready.rows(peer),
                 *boot.rows(peer), Row(peer)],
                ["Stages are the daemon's own times. The pool makes its next spare while the program runs."])
