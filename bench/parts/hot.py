"""Pools, and what machines use: parts of the suites about forks."""
import json
import select
import time

from . import host
from .duel import Skip
from .system import NoHotcell

FILL_S = 60
POLL_S = 0.05
MB = 1e6


def pause(seconds):
    select.select([], [], [], max(seconds, 0))


def wait_for(is_true, seconds, what):
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise RuntimeError(f"{what} within {seconds} s")
        pause(POLL_S)


class Pool:
    """Spares of the template; at most one pool is wanted at a time."""

    def __init__(self, cell):
        self.cell, self.is_set, self.missing = cell, False, ""

    def command(self, *args):
        if self.missing:
            raise Skip(self.missing)
        try:
            return self.cell.hotcell.command("pool", *args)
        except NoHotcell as e:
            self.missing = str(e)
            raise Skip(self.missing) from e

    def _is_full(self, size, prestarted):
        rows = [json.loads(line) for line in self.command("list", "--json").splitlines()]
        return any((r["ready"], r["shells"], r["filling"]) == (size, prestarted, 0) for r in rows)

    def fill(self, size, prestarted):
        if self.cell.absent:
            raise Skip("no hotcell, see the top")
        self.cell.hot()
        wanted = [f"--{name}={n}" for name, n in (("size", size), ("prestarted", prestarted)) if n]
        self.command("set", "base", *wanted)
        self.is_set = True
        wait_for(lambda: self._is_full(size, prestarted), FILL_S, "the pool was not full")

    def end(self):
        """Until the last of its spares is gone."""
        if self.is_set:
            self.command("rm", "base")
            self.is_set = False
            wait_for(lambda: self._promised_mb() == 0, FILL_S, "the pool's spares were not gone")

    def _promised_mb(self):
        return json.loads(self.cell.hotcell.command("info", "--json"))["memory_promised_mb"]


def cpu_s(cell, machines=()):
    """Processor seconds so far of daemon, keeper, all it started and waited for, and everything alive below."""
    servers = cell.hotcell.pids().values()
    alive = {pid for root in [*servers, *machines] for pid in host.family(root)}
    return (sum(host.cpu_ns(pid) for pid in alive) + sum(host.reaped_ns(pid) for pid in servers)) / 1e9


def anonymous_mb(pid):
    """Of a machine's monitor, 10^6 bytes: what it wrote to, or has no template's page for. (smaps calls a page
    of the template private as well while only one machine has it mapped.)"""
    rollup = host.smaps(pid)
    if not rollup:
        raise RuntimeError("its memory can't be read by this user")
    return rollup["Anonymous"] * 1024 / MB
