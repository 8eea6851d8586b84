"""Exec round trips on an open connection: with a new process and without one."""
import json
import subprocess
import time

from parts.duel import Contestant, Skip, duel
from parts.report import Aim, Row, Table
from parts.walls import runsc_program

PROGRAM = "/bin/true"


class Gvisor:
    """A gVisor container that waits for `runsc exec`."""

    def __init__(self, cell):
        self.cell, self.name, self.argv = cell, f"hotcell-bench-{time.monotonic_ns()}", None

    def start(self):
        bundle, state = self.cell.scratch / "bundle", self.cell.scratch / "runsc"
        bundle.mkdir(exist_ok=True)
        state.mkdir(exist_ok=True)
        spaces = [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount")]
        (bundle / "config.json").write_text(json.dumps({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "3600"], "cwd": "/",
                        "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": str(self.cell.hotcell.tree), "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": spaces}}))
        argv = [runsc_program(self.cell.peers), f"--root={state}", "--platform=ptrace", "--network=none",
                "--ignore-cgroups"]
        done = subprocess.run([*argv, "run", "--detach", "--bundle", str(bundle), self.name],
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=30, check=False)
        if done.returncode:
            raise Skip(f"runsc run ended with {done.returncode}")
        self.argv = argv

    def sample(self):
        if self.argv is None:
            self.start()
        return self.cell.probe.whole_ms([*self.argv, "exec", self.name, PROGRAM])

    def close(self):
        if self.argv:
            subprocess.run([*self.argv, "delete", "-force", self.name], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, timeout=30, check=False)


def ours(cell, wall):
    """Sample functions on one sandbox of this wall, which is made when first needed."""
    box = {}

    def need():
        if not box:
            box.update(cell.box(wall))
            cell.use(box)

    def execute():
        need()
        return cell.took_ms("exec", PROGRAM)

    def ping():
        need()
        return cell.took_ms("ping")

    def by_command():
        need()
        return cell.hotcell.probe.whole_ms([str(cell.hotcell.cli), "exec", box["id"], "--", PROGRAM])

    return box, execute, ping, by_command


def process(cell):
    box, execute, ping, by_command = ours(cell, "process")
    gvisor = Gvisor(cell)
    e = Contestant("hotcell exec, to the exit code", execute, f"hotcell_execute_argv(), {PROGRAM}")
    p = Contestant("hotcell ping, nothing started", ping, "hotcell_sandbox_is_healthy()")
    c = Contestant("hotcell exec, as a command", by_command, f"hotcell exec ID -- {PROGRAM}")
    g = Contestant("gVisor exec, as a command", gvisor.sample, f"runsc exec ID {PROGRAM}", peer=True, heavy=10)
    h = Contestant("no wall: posix_spawn and wait", lambda: cell.probe.whole_ms([PROGRAM]), PROGRAM, peer=True)
    try:
        duel([e, p, c, g, h], *cell.scale(300, 30), warm=5)
    finally:
        gvisor.close()
        if box:
            cell.drop(box)
    return Table("process: round trip into a running sandbox",
                 [Row(e, h, Aim(0.8)), Row(p, None, Aim(0.2)), Row(c, g), Row(g), Row(h)])


def machine(cell):
    box, execute, ping, by_command = ours(cell, "vm")

    def timed(work):
        agent = cell.qga()
        started = time.perf_counter()
        work(agent)
        return (time.perf_counter() - started) * 1000

    def agent_exec(agent):
        code, _ = agent.execute(PROGRAM)
        if code != 0:
            raise RuntimeError(f"guest-exec {PROGRAM} ended with {code}")

    e = Contestant("hotcell exec, to the exit code", execute, f"hotcell_execute_argv(), {PROGRAM}")
    p = Contestant("hotcell ping, nothing started", ping, "hotcell_sandbox_is_healthy()")
    c = Contestant("hotcell exec, as a command", by_command, f"hotcell exec ID -- {PROGRAM}", heavy=4)
    qe = Contestant("qemu-guest-agent exec", lambda: timed(agent_exec),
                    f"guest-exec {PROGRAM}, guest-exec-status every 5 ms until it has exited", peer=True)
    qp = Contestant("qemu-guest-agent ping", lambda: timed(lambda a: a.call("guest-ping")), "guest-ping", peer=True)
    try:
        duel([e, p, c, qe, qp], *cell.scale(120, 25), warm=3)
    finally:
        if box:
            cell.drop(box)
    return Table("qemu: round trip into a running machine",
                 [Row(e, qe), Row(p, qp), Row(c, qe), Row(qe), Row(qp)])


def tables(cell):
    yield process(cell)
    yield machine(cell)
