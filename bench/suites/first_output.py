"""Cold create: stages, and the time from asking for a sandbox to the first output of a program in it."""
import json
import time

from parts.cell import derived
from parts.duel import Contestant, Skip, duel
from parts.guestagent import AgentError
from parts.report import Aim, Row, Table
from parts.walls import bwrap, runsc_do

PROGRAM = ("/bin/echo", "hi")


class Fresh:
    """hotcell's side: one sample makes, uses and removes a sandbox and fills the rows of its stages."""

    def __init__(self, cell, wall):
        self.cell, self.wall, self.stages = cell, wall, {}
        self.ready, self.removed = derived("  until the create reply"), derived("  removing it")
        self.contestant = Contestant("hotcell, on an open connection", self.sample)
        self.contestant.also = [self.ready, self.removed]

    def sample(self):
        if self.wall in self.cell.dead_walls:
            raise Skip(self.cell.dead_walls[self.wall])
        got = self.cell.ask("fresh", self.wall, 0, *PROGRAM)
        for name, us in json.loads(got["info"])["stages"].items():
            if name not in self.stages:
                self.stages[name] = derived(f"    stage {name}")
                self.contestant.also.append(self.stages[name])
            self.stages[name].series.add(int(us) / 1000)
        self.ready.series.add(float(got["ready_us"]) / 1000)
        self.removed.series.add(float(got["remove_us"]) / 1000)
        return float(got["first_us"]) / 1000

    def rows(self):
        if not len(self.ready.series):
            return []
        return [Row(self.ready), *(Row(c) for c in self.stages.values()), Row(self.removed)]


def command(cell, isolation):
    argv = [str(cell.hotcell.cli), "run", "--isolation", isolation, "--", *PROGRAM]

    def sample():
        if cell.absent:
            raise Skip("no hotcell, see the top")
        return cell.hotcell.probe.first_output_ms(argv, timeout_ms=60000)
    return sample, " ".join(["hotcell", *argv[1:]])


def process(cell):
    tree = cell.hotcell.tree
    fresh = Fresh(cell, "process")
    run, run_command = command(cell, "process")
    state = cell.scratch / "runsc"
    state.mkdir(exist_ok=True)

    def shown(make):
        try:
            return " ".join(make())
        except Skip:
            return ""

    by_bwrap = lambda: bwrap(tree, *PROGRAM)
    by_runsc = lambda: runsc_do(cell.peers, state, tree, *PROGRAM)
    ours = fresh.contestant
    ours_command = Contestant("hotcell, as a command", run, run_command)
    b = Contestant("bwrap", lambda: cell.probe.first_output_ms(by_bwrap()), shown(by_bwrap), peer=True)
    g = Contestant("gVisor", lambda: cell.probe.first_output_ms(by_runsc()), shown(by_runsc), peer=True, heavy=5)
    floor = ["chroot", str(tree), *PROGRAM]
    c = Contestant("no wall", lambda: cell.probe.first_output_ms(floor), " ".join(floor), peer=True)
    duel([ours, ours_command, b, g, c], *cell.scale(120, 40))
    aim = Aim(1.5, of_peer=True)
    return Table("process: from asking for a sandbox to the first output of /bin/echo",
                 [Row(ours, b, aim), *fresh.rows(), Row(ours_command, b, aim), Row(b), Row(g, b), Row(c, b)])


def machine(cell):
    fresh = Fresh(cell, "vm-cold")

    def peer():
        started = time.perf_counter()
        guest = cell.new_guest()
        try:
            code, out = guest.agent.execute(*PROGRAM)
            if code != 0 or out != b"hi\n":
                raise AgentError("guest-exec of echo failed")
            return (time.perf_counter() - started) * 1000
        finally:
            guest.close()

    ours = fresh.contestant
    q = Contestant("qemu-guest-agent", peer, "start QEMU with the same kernel, guest-sync, guest-exec, "
                   "guest-exec-status", peer=True, heavy=2)
    first = derived("hotcell, first machine of a new state directory")
    ours.take(keep=False)  # copies QEMU and its libraries, once
    if len(fresh.ready.series):
        first.series.add(fresh.ready.series.samples[0])
    else:
        first.skipped = ours.skipped or "it failed"
    for c in ours.also:
        c.series.samples.clear()
    duel([ours, q], *cell.scale(6, 45), warm=0)
    return Table("qemu: cold boot, from asking for a machine to the first output of /bin/echo",
                 [Row(ours, q), *fresh.rows(), Row(first, q), Row(q)])


def tables(cell):
    yield process(cell)
    yield machine(cell)
