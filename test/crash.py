#!/usr/bin/env python3
"""crash.py SCRATCH ISOLATION VICTIM [random N] - kill -9 somebody at every step of the create plan

VICTIM: daemon, keeper, machine (QEMU or the agent), client. After each kill: the client ends with one clear
sentence or succeeds, the rest works, what exists is whole, and what is removed leaves no trace.
"""
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import link

STEPS = ["image", "promise", "record", "disk", "machine", "link", "hello", "setup", "ready"]
if os.environ.get("HOTCELL_FULL"):  # all of them, those too that do nothing in a boot
    STEPS = ["image", "promise", "record", "load", "disk", "turn", "machine", "state", "go", "link", "hello", "setup", "pool", "ready"]
SECONDS = 120
BUSY = 15  # exit status
HERE = pathlib.Path(__file__).resolve().parent


def fail(words):
    print("failed:", words)
    sys.exit(1)


def of_process(pid, name):
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").strip()
    except OSError as e:
        return e.strerror


def link_of(path):
    try:
        return os.readlink(path)
    except OSError as e:
        return e.strerror


def say_where(client):
    """What a client that hangs waits for and has open; who else has the pipes in which we wait for its words, or
    may, as our threads do that wait for something."""
    pid, pipes = client.pid, {link_of(f"/proc/self/fd/{pipe.fileno()}") for pipe in (client.stdout, client.stderr)}
    print(f"-- {pid}: {of_process(pid, 'stat')[:60]} {of_process(pid, 'wchan')} {of_process(pid, 'syscall')}; we wait for {pipes}")
    for thread in pathlib.Path("/proc/self/task").iterdir():
        print(f"-- our thread {thread.name}: {of_process('self', f'task/{thread.name}/syscall')}")
    for fd in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        who, to = fd.parts[2], link_of(fd)
        if who == str(pid) or to in pipes:
            print(f"-- {who} {comm(who)}: {fd.name} {to} {of_process(who, f'fdinfo/{fd.name}')!r}")


def hotcell(*words, check=True):
    with subprocess.Popen(["hotcell", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        try:
            out, err = client.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            say_where(client)
            client.kill()
            fail(f"hotcell {' '.join(words)}: hangs")
    done = subprocess.CompletedProcess(client.args, client.returncode, out, err)
    if check and done.returncode != 0:
        fail(f"hotcell {' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done


def calmly(*words, check=True):
    """The same, again as long as the workload is said not to stand still in time: on a busy machine that is no mistake."""
    end = time.monotonic() + SECONDS
    done = hotcell(*words, check=False)
    while done.returncode == BUSY and time.monotonic() < end:
        done = hotcell(*words, check=False)
    if check and done.returncode != 0:
        fail(f"hotcell {' '.join(words)}: exit status {done.returncode}: {done.stderr.strip()}")
    return done


def sandboxes():
    return [json.loads(line) for line in hotcell("list", "--json").stdout.splitlines()]


def wait_until(what, true):
    end = time.monotonic() + SECONDS
    while not true():
        if time.monotonic() > end:
            fail(f"never came true: {what}")
        time.sleep(0.05)


class Events:
    """The daemon's events, attached before anything happens."""

    def __init__(self):
        self.link = link.Link(seconds=SECONDS).shake()
        self.stream = self.link.open("event.watch", link.record("event_watch"))
        self.held = b""
        while self.link.frame()[0] != link.RES:
            pass

    def await_step(self, step):
        """True when it was passed; false when the sandbox failed or the daemon ended before."""
        try:
            while True:
                kind, _, _, _, payload = self.link.frame()
                if kind != link.DATA:
                    continue
                self.held += payload
                while len(self.held) >= 4 and len(self.held) >= 4 + int.from_bytes(self.held[:4], "little"):
                    n = int.from_bytes(self.held[:4], "little")
                    event, self.held = link.fields("event", self.held[4:4 + n]), self.held[4 + n:]
                    if event["type"] == b"sandbox_step" and event.get("step", b"").decode() == step:
                        return True
                    if event["type"] in (b"sandbox_failed", b"sandbox_removed"):
                        return False
        except link.Ended:
            return False

    def close(self):
        self.link.close()


def comm(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def machines(keeper):
    """Children of the keeper that are machines: no parked shells."""
    try:
        pids = pathlib.Path(f"/proc/{keeper}/task/{keeper}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(pid) for pid in pids if comm(pid) not in ("hotcell-shell", "hotcell-keeper", "")]


def victims(who, client):
    info = json.loads(hotcell("info", "--json").stdout) if who != "client" else {}
    return {"daemon": lambda: [info["pid"]], "keeper": lambda: [info["keeper_pid"]], "client": lambda: [client.pid],
            "machine": lambda: machines(info["keeper_pid"])}[who]


def check_sentence(client, stderr):
    lines = [line for line in stderr.splitlines() if line]
    if client.returncode == -signal.SIGKILL:
        return "killed"
    if client.returncode == 0:
        return "worked"
    if not lines or not lines[-1].startswith("hotcell: ") or len(lines) > 3:  # progress may stand before it
        fail(f"exit status {client.returncode} and no clear sentence: {stderr!r}")
    return f"status {client.returncode}: {lines[-1]}"


def check_rest(isolation, scratch):
    """Whatever exists is whole; afterwards nothing is left."""
    wait_until("no sandbox is half made", lambda: all(s["state"] in ("running", "failed") for s in sandboxes()))
    for sandbox in sandboxes():
        if sandbox["state"] == "running" and not sandbox["ephemeral"]:
            got = hotcell("exec", sandbox["id"], "--", "echo", "alive", check=False)
            if got.stdout != "alive\n":  # its death was on the way; then the list must know
                wait_until(f"{sandbox['id']} doesn't run ({got.stderr.strip()}) and is called failed",
                           lambda id=sandbox["id"]: all(s["state"] == "failed" for s in sandboxes() if s["id"] == id))
    hotcell("rm", "--all")
    if isolation == "process":
        got = hotcell("run", "--isolation", isolation, "--", "echo", "next").stdout
        if got != "next\n":
            fail(f"the next one printed {got!r}")
    wait_until("ephemeral sandboxes are gone", lambda: not sandboxes())
    left = "not looked"
    end = time.monotonic() + 15
    while left and time.monotonic() < end:
        left = subprocess.run([sys.executable, HERE / "traces.py", scratch], stdout=subprocess.PIPE, text=True, check=True).stdout
        time.sleep(0.1)
    if left:
        fail(f"left behind:\n{left}")


def round_of(scratch, isolation, who, step, delay):
    verb = ["run", "--isolation", isolation, "--", "sleep", "0.2"] if random.random() < 0.5 else ["create", "--isolation", isolation]
    hotcell("list")
    events = Events()
    idle = subprocess.Popen(["sleep", "1"])  # victims() wants the daemon's pid before anything starts
    targets = victims(who, idle)
    client = subprocess.Popen(["hotcell", *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if who == "client":
        targets = victims(who, client)
    hit = []
    if step is None:
        time.sleep(delay)
        hit = targets()
    elif events.await_step(step):
        hit = targets()
    for pid in hit:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    try:
        _, stderr = client.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        client.kill()
        fail(f"hotcell {' '.join(verb)} hangs after kill -9 of {who} at {step or delay}")
    events.close()
    idle.kill()
    idle.wait()
    said = check_sentence(client, stderr)
    check_rest(isolation, scratch)
    where = step or f"{delay * 1000:.0f} ms"
    print(f"{verb[0]:6} {where:8} {'killed' if hit else 'not there yet':13} {said}", flush=True)
    return bool(hit)


def main():
    scratch, isolation, who = sys.argv[1:4]
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    random.seed(seed)
    print(f"SEED={seed}")
    hits = 0
    if sys.argv[4:5] == ["random"]:
        span = 0.03 if isolation == "process" else 5.0
        for _ in range(int(sys.argv[5])):
            hits += round_of(scratch, isolation, who, None, random.random() * span)
    else:
        for step in sys.argv[4:] or STEPS:
            hits += round_of(scratch, isolation, who, step, 0)
    if hits == 0:
        fail(f"{who} was never hit")


if __name__ == "__main__":
    main()
