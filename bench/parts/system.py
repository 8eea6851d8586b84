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
        self.scratch = self.state = self.run = self.probe = self.info = None

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
        self.env = dict(os.environ, HOTCELL_STATE=str(self.state), HOTCELL_RUN=str(self.run))
        self.env["PATH"] = f"{self.programs}:{os.environ.get('PATH', '')}"
        self.probe = Probe(probe_path, self.env)
        self.probe.connect(self.run)
        said = subprocess.run([self.cli, "info", "--json"], env=self.env, capture_output=True, text=True,
                              timeout=30, check=False)
        if said.returncode:
            raise NoHotcell(f"hotcell info: {said.stderr.strip()}")
        self.info = json.loads(said.stdout)

    def pids(self):
        return {"daemon": self.info["pid"], "keeper": self.info["keeper_pid"]}

    def stop(self):
        """Daemon first, so that it takes its sandboxes down; then the keeper; then the files."""
        if self.probe:
            self.probe.close()
        if self.info:
            for pid in self.pids().values():
                end(pid, signal.SIGTERM)
        for path in (self.run, self.state):
            if path:
                shutil.rmtree(path, ignore_errors=True)


