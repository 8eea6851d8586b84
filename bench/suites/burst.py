"""Twenty sandboxes asked for at once."""
from parts.cell import derived
from parts.duel import Contestant, duel
from parts.report import Row, Table
from parts.walls import bwrap

N = 20
PROGRAM = ("/bin/echo", "hi")


def tables(cell):
    tree = cell.hotcell.tree
    ready, median = derived("  all create replies there"), derived("  first output of the median")
    peer_median = derived("  first output of the median")
    peer_median.peer = True

    def ours():
        got = cell.ask("crowd", "process", N, *PROGRAM)
        ready.series.add(float(got["ready_us"]) / 1000)
        median.series.add(float(got["median_us"]) / 1000)
        return float(got["last_us"]) / 1000

    def theirs():
        got = cell.probe.ask("burst", 60000, N, *bwrap(tree, *PROGRAM))
        peer_median.series.add(float(got["median_us"]) / 1000)
        return float(got["last_us"]) / 1000

    def one():
        return float(cell.ask("fresh", "process", 0, *PROGRAM)["first_us"]) / 1000

    o = Contestant(f"hotcell, {N} at once: first output of the last", ours, "on a connection each")
    b = Contestant(f"bwrap, {N} at once: first output of the last", theirs, "bwrap ... /bin/echo hi", peer=True)
    s = Contestant("hotcell, one alone: first output", one)
    o.also, b.also = [ready, median], [peer_median]
    duel([o, b, s], *cell.scale(12, 15))
    notes = []
    if len(o.series) and len(s.series):
        notes.append(f"the batch took {o.series.p(50) / (N * s.series.p(50)):.2f}x of {N} one after the other")
    rows = [Row(o, b), Row(median, peer_median), Row(ready), Row(b), Row(peer_median), Row(s)]
    yield Table(f"process: burst of {N} creates", rows, notes)
