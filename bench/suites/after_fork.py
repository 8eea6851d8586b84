"""The first things that run in a new fork, and the later ones."""
from parts.cell import derived
from parts.duel import Contestant, duel
from parts.report import Aim, Row, Table

PROGRAM = "/bin/true"
SOURCE = "sum(i * i for i in range(100))"
ANSWER = "328350"
FIFTH = 5


class Series:
    """One sample is a new fork in which the same thing is done five times; its own value is the first time."""

    def __init__(self, cell, what, step):
        self.cell, self.step = cell, step
        self.later = derived(f"  {what}, second to fourth")
        self.fifth = derived(f"  {what}, fifth")
        self.first = Contestant(f"{what}, first after the fork", self.sample)
        self.first.also = [self.later, self.fifth]

    def sample(self):
        self.cell.hot()
        box = self.cell.box("vm")
        try:
            self.cell.use(box)
            took = [self.step() for _ in range(FIFTH)]
        finally:
            self.cell.drop(box)
        for ms in took[1:-1]:
            self.later.series.add(ms)
        self.fifth.series.add(took[-1])
        return took[0]


def tables(cell):
    inner = derived("  of which in the interpreter")

    def code():
        got = cell.ask("code", SOURCE)
        if got["text"] != ANSWER:
            raise RuntimeError(f"{SOURCE} gave {got['text']}")
        inner.series.add(float(got["inner_us"]) / 1000)
        return float(got["us"]) / 1000

    e = Series(cell, f"exec {PROGRAM}", lambda: cell.took_ms("exec", PROGRAM))
    c = Series(cell, "run_code", code)
    c.first.also.append(inner)
    duel([e.first, c.first], *cell.scale(60, 60))
    yield Table("qemu: first and later calls into a new fork",
                [Row(e.first), Row(e.later), Row(e.fifth), Row(c.first, None, Aim(150)), Row(c.later, None, Aim(15)),
                 Row(c.fifth, None, Aim(15)), Row(inner)],
                [f"run_code: {SOURCE} in Python's live interpreter"])
