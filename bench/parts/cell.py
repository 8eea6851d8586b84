"""What every suite needs: the system measured, the peers, and how much time there is."""
import json
import time
from pathlib import Path

from .duel import Contestant, Skip
from .guestagent import AgentError, Guest
from .probe import ProbeError



class Cell:
    def __init__(self, hotcell, probe, peers, scratch, quick, limit_s):
        self.end = time.monotonic() + limit_s
        self.hotcell, self.probe = hotcell, probe
        self.peers, self.scratch, self.quick = Path(peers), Path(scratch), quick
        self.absent = ""  # why there is no hotcell to measure
        self.dead_walls = {}  # wall -> why it can't be used here
        self.guest = None
        self.guest_absent = ""
        self.boxes = []

    def left_s(self):
        """Of the time for the whole run."""
        return self.end - time.monotonic()

    def scale(self, rounds, seconds):
        """Rounds and seconds of the default run, or of the quick one; none when the run is out of time."""
        if self.quick:
            rounds, seconds = max(1, rounds // 4), seconds / 4
        return rounds, min(seconds, self.left_s())

    def pick(self, default, quick):
        return quick if self.quick else default

    def ask(self, *fields):
        """A question to hotcell."""
        if self.absent:
            raise Skip("no hotcell, see the top")
        return self.hotcell.probe.ask(*fields)

    def took_ms(self, *fields):
        return float(self.ask(*fields)["us"]) / 1000

    def box(self, wall, memory_mb=0):
        """One sandbox that stays for the suite; a wall that failed once is not tried again.
        @memory_mb 0: as much as the template says."""
        if wall in self.dead_walls:
            raise Skip(self.dead_walls[wall])
        try:
            made = self.ask("create", wall, memory_mb)
        except ProbeError as e:
            self.dead_walls[wall] = str(e)
            raise Skip(str(e)) from e
        self.boxes.append(made["id"])
        return {"id": made["id"], "pid": json.loads(made["info"])["pid"]}

    def use(self, box):
        """What exec, ping, put and get are about from now on."""
        self.ask("use", box["id"])

    def drop(self, box):
        if box["id"] in self.boxes:
            self.boxes.remove(box["id"])
            self.ask("remove", box["id"])

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
