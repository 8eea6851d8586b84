"""What every suite needs: the system measured, the peers, and how much time there is."""
import enum
import json
import time
from pathlib import Path

from .duel import Contestant, Skip
from .guestagent import AgentError, Guest
from .probe import ProbeError


class Effort(enum.Enum):
    FULL = "full"
    QUICK = "quick"  # a quarter of the samples
    SMOKE = "smoke"  # one of each: it shows that everything runs


class Cell:
    def __init__(self, hotcell, probe, peers, scratch, effort, limit_s):
        self.end = time.monotonic() + limit_s
        self.hotcell, self.probe = hotcell, probe
        self.peers, self.scratch, self.effort = Path(peers), Path(scratch), effort
        self.absent = ""  # why there is no hotcell to measure
        self.dead_walls = {}  # wall -> why it can't be used here
        self.template = None  # the hot one's snapshot record, and why there is none
        self.template_absent = ""
        self.guest = None
        self.guest_absent = ""
        self.boxes = []

    def left_s(self):
        """Of the time for the whole run."""
        return self.end - time.monotonic()

    def scale(self, rounds, seconds):
        """Rounds and seconds of the full run, or of a shorter one; none when the run is out of time."""
        if self.effort is Effort.QUICK:
            rounds, seconds = max(1, rounds // 4), seconds / 4
        elif self.effort is Effort.SMOKE:
            rounds = 1
        return rounds, min(seconds, self.left_s())

    def pick(self, full, quick, smoke=None):
        """A value by effort; @smoke None: as quick."""
        if self.effort is Effort.FULL:
            return full
        return smoke if smoke is not None and self.effort is Effort.SMOKE else quick

    def ask(self, *fields):
        """A question to hotcell."""
        if self.absent:
            raise Skip("no hotcell, see the top")
        return self.hotcell.probe.ask(*fields)

    def took_ms(self, *fields):
        return float(self.ask(*fields)["us"]) / 1000

    def box(self, wall, memory_mb=0):
        """One sandbox that stays for the suite; a wall that failed once is not tried again.
        @wall: process, vm, or vm-cold: booted even if the template is hot.
        @memory_mb 0: as much as the template says."""
        if wall in self.dead_walls:
            raise Skip(self.dead_walls[wall])
        try:
            made = self.ask("create", wall, memory_mb)
        except ProbeError as e:
            self.dead_walls[wall] = str(e)
            raise Skip(str(e)) from e
        self.boxes.append(made["id"])
        return {"id": made["id"], "pid": json.loads(made["info"])["pid"], "ms": float(made["us"]) / 1000}

    def use(self, box):
        """What exec, ping, put, code and so on are about from now on."""
        self.ask("use", box["id"])

    def drop(self, box):
        if box["id"] in self.boxes:
            self.boxes.remove(box["id"])
            self.ask("remove", box["id"])

    def hot(self):
        """Boot and warm the template, once: machines are forks from then on."""
        if self.template_absent:
            raise Skip(self.template_absent)
        if self.template is None:
            try:
                self.template = self.ask("build", "base")
            except (ProbeError, Skip) as e:
                self.template_absent = str(e)
                raise Skip(self.template_absent) from e
        return self.template

    def qga(self):
        """The guest with qemu-guest-agent, booted when first asked for."""
        if self.guest_absent:
            raise Skip(self.guest_absent)
        if self.guest is None:
            try:
                self.guest = self.new_guest()
            except (AgentError, OSError, ProbeError) as e:
                self.guest_absent = str(e)
                raise Skip(self.guest_absent) from e
        return self.guest.agent

    def new_guest(self):
        files = self.peers / "qga"
        if not files.exists():
            raise Skip(f"{files} is missing: run bench/peers/prepare --out {self.peers}")
        return Guest(files, self.scratch, self.probe.ask("tsc")["khz"])

    def drop_guest(self):
        if self.guest:
            self.guest.close()
        self.guest = None

    def close(self):
        self.drop_guest()
        for box in list(self.boxes):
            try:
                self.drop({"id": box})
            except (ProbeError, Skip, OSError):
                pass  # stopping the daemon takes it down


def derived(name, unit="ms"):
    """A contestant that is filled by another one's samples."""
    return Contestant(name, None, unit=unit)
