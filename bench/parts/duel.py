"""Contestants measured turn by turn, so that a noisy moment hits all of them."""
import time

from .probe import ProbeError
from .stats import Series

FAILURES_MAX = 3


class Skip(Exception):
    """A contestant can't run here; the text says why."""


# What one failed sample may raise: it is counted and reported, the run goes on.
FAILED = (ProbeError, OSError, RuntimeError, ValueError, KeyError)


class Contestant:
    """@sample() returns one value; @command is shown beside its figures."""

    def __init__(self, name, sample, command="", unit="ms", peer=False, heavy=1):
        self.name, self.sample, self.command, self.peer = name, sample, command, peer
        self.series = Series(unit)
        self.heavy = heavy  # takes part only in every heavy-th round
        self.failures = 0
        self.skipped = ""
        self.also = []  # contestants that this one's samples fill

    def skip(self, why):
        for c in (self, *self.also):
            c.skipped = why

    def take(self, keep=True):
        if self.skipped:
            return
        try:
            value = self.sample()
        except Skip as e:
            self.skip(str(e))
            return
        except FAILED as e:
            self.failures += 1
            if not len(self.series) or self.failures >= FAILURES_MAX:
                self.skip(str(e) or type(e).__name__)
            return
        if keep:
            self.series.add(value)

    def as_json(self):
        out = {"name": self.name, "peer": self.peer, "command": self.command, "failures": self.failures}
        if self.skipped:
            out["skip"] = self.skipped
        if len(self.series):
            out |= self.series.summary() | {"samples": self.series.samples}
        return out


def duel(contestants, rounds, seconds, warm=1):
    """Up to @rounds samples each, less when @seconds are over; at least one unless there are none."""
    if seconds <= 0:
        for c in contestants:
            c.skip("the run is out of time")
    for _ in range(warm):
        for c in contestants:
            c.take(keep=False)
    for c in contestants:
        for other in c.also:
            other.series.samples.clear()
    end = time.monotonic() + seconds
    for i in range(rounds):
        if i and time.monotonic() > end:
            break
        for c in contestants:
            if i % c.heavy == 0:
                c.take()
    return contestants
