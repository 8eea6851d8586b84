"""A hotcell of the benchmark's own: private state and run directories, gone afterwards."""
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from .probe import Probe

KEPT = ("images", "kernels", "initrds")  # what `hotcell image build` made; never written here
END_S = 20
START_S = 30
BUDGET = "1024G"  # promised to idle machines that use a fraction of it


class NoHotcell(Exception):
    """No hotcell to measure; the text says why and what to do."""


def end(pid, sig):
    """Signal a process and wait until it is gone; kill it after END_S."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for s in (sig, signal.SIGKILL):
            signal.pidfd_send_signal(fd, s)
            if select.select([fd], [], [], END_S)[0]:
                return
    except ProcessLookupError:
        pass
    finally:
        os.close(fd)


class Hotcell:
    def __init__(self, build, state):
        self.programs = Path(build) / "src/bin"
        self.cli = self.programs / "hotcell"
        self.source = Path(state)
        self.state = self.run = self.probe = self.info = self.server = None

    def check(self):
        for name in ("hotcell", "hotcelld", "hotcell-keeper", "hotcell-init"):
            if not (self.programs / name).exists():
                raise NoHotcell(f"{self.programs / name} is missing; build first (./quickstart)")
        if not (self.source / "images/base").exists():
            raise NoHotcell(f"no image `base` in {self.source}; run `hotcell image build base`")

    def _borrow(self):
        """Images by hard link where that works: same bytes, own names."""
        self.state = Path(tempfile.mkdtemp(prefix=".hotcell-bench-", dir=self.source.parent))
        self.state.chmod(0o755)
        for name in KEPT:
            if (self.source / name).exists():
                done = subprocess.run(["cp", "-al", self.source / name, self.state / name],
                                      capture_output=True, check=False)
                if done.returncode:
                    shutil.rmtree(self.state / name, ignore_errors=True)
                    subprocess.run(["cp", "-a", self.source / name, self.state / name], check=True)
                (self.state / name / ".lock").unlink(missing_ok=True)  # a lock of its own

    @property
    def tree(self):
        """The template's files, for walls that share this kernel."""
        return ((self.state or self.source) / "images/base").resolve() / "tree"

    @property
    def kernel(self):
        return ((self.state or self.source) / "kernels/current").resolve()

    def start(self, probe_path):
        self.check()
        self._borrow()
        self.run = Path(tempfile.mkdtemp(prefix="hotcell-bench-"))
        self.run.chmod(0o755)
        self.env = dict(os.environ, HOTCELL_STATE=str(self.state), HOTCELL_RUN=str(self.run), HOTCELL_HEAT="no")
        self.env["PATH"] = f"{self.programs}:{os.environ.get('PATH', '')}"
        self._serve()
        self.probe = Probe(probe_path, self.env)
        self.probe.connect(self.run)
        self.info = json.loads(self.command("info", "--json"))

    def _serve(self):
        """A daemon by hand, because of its budget; in a session of its own, so that Ctrl-C is not for it."""
        log = self.run / "hotcelld.log"
        ours, theirs = os.pipe()
        with log.open("wb") as out, os.fdopen(ours, "rb") as ready:
            try:
                self.server = subprocess.Popen(
                    [self.programs / "hotcelld", "--memory-budget", BUDGET, "--ready-fd", str(theirs)], env=self.env,
                    pass_fds=[theirs], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
            finally:
                os.close(theirs)
            if not select.select([ready], [], [], START_S)[0] or not ready.read(1):
                raise NoHotcell(f"hotcelld did not start: {log.read_text()[-300:].strip()}")

    def command(self, *args, seconds=60):
        """What a command of hotcell prints; NoHotcell with its last words when it fails."""
        done = subprocess.run([self.cli, *args], env=self.env, capture_output=True, text=True, timeout=seconds,
                              check=False)
        if done.returncode:
            raise NoHotcell(f"hotcell {args[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def pids(self):
        return {"daemon": self.info["pid"], "keeper": self.info["keeper_pid"]}

    def _programs_of_ours(self):
        """Daemon, then keeper, also when the start was interrupted: our run directory is in their environment."""
        mark, found = f"HOTCELL_RUN={self.run}".encode(), {}
        for entry in Path("/proc").iterdir():
            try:
                program = os.readlink(entry / "exe") if entry.name.isdigit() else ""
                if program in self._servers() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = program
            except OSError:
                pass
        return [pid for server in self._servers() for pid, program in found.items() if program == server]

    def _servers(self):
        return [str((self.programs / name).resolve()) for name in ("hotcelld", "hotcell-keeper")]

    def stop(self):
        """Daemon first, so that nobody starts the next keeper; then the keeper with its machines; then the files."""
        if self.probe:
            self.probe.close()
        if self.run:
            for pid in self._programs_of_ours():
                end(pid, signal.SIGTERM)
        if self.server:
            self.server.wait()
        for path in (self.run, self.state):
            if path:
                shutil.rmtree(path, ignore_errors=True)
