#!/usr/bin/env python3
"""fork_crash.py SCRATCH VERB VICTIM [ROUNDS] - kill -9 somebody at every step of a verb on whole machines
fork_crash.py SCRATCH telling - at those where most could be lost

VERB: template, snapshot, fork, restore, pause, resume, rollback, rollback-paused. VICTIM: daemon, keeper, copier, client,
both (daemon and client, which would ask the next daemon again), source (the machine it is done to), child (a machine that
is made by it).

A first run, in which nobody is killed, tells the steps: what is made, renamed and removed below the state and run
directories, the daemon's events, the keeper's log; those that come together are one, as a kill could not hit between
them. Then there is a round for each step (or for ROUNDS of them, evenly spread), in which the victim is killed when it is
seen; with HOTCELL_FULL=1 also one that kills a random while later.

After each kill: the client ends with one clear sentence or succeeds; the source runs on, or is paused, or says that it
failed, each with memory and disk of one and the same instant; a snapshot is there and whole, or not there; what was
asked for succeeds when asked for again; and when all is removed nothing is left but the hot template.
"""
import ctypes
import json
import os
import pathlib
import queue
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import crash
import link
from crash import calmly, fail, hotcell, sandboxes, wait_until

FULL = bool(os.environ.get("HOTCELL_FULL"))
STATE = pathlib.Path(os.environ["HOTCELL_STATE"])
RUN = pathlib.Path(os.environ["HOTCELL_RUN"])
HERE = pathlib.Path(__file__).resolve().parent

# Counts in memory and in a file; "bad" appears when the two are not of one instant.
COUNTER = """
import os, time, zlib
n, block = 0, bytearray(os.urandom(1 << 18))
sum = zlib.crc32(block)
while True:
    try:
        kept = int(open("count").read())
    except FileNotFoundError:
        kept = 0
    if kept != n or zlib.crc32(block) != sum:
        open("bad", "a").write("memory says %d, disk says %d\\n" % (n, kept))
    n += 1
    block[n % len(block)] ^= 255
    sum = zlib.crc32(block)
    with open("count.new", "w") as f:
        f.write("%d\\n" % n)
    os.rename("count.new", "count")
    time.sleep(0.02)
"""
TOGETHER_S = 0.002  # no kill would hit between them
LATER = "sleep 86007"  # runs, and is written in the file `mark`, only since after the snapshot


# ---- steps ----

class Inotify:
    """What is made, written first, renamed and removed below some directories."""
    CREATE, CLOSE_WRITE, MOVED_TO, DELETE = 0x100, 0x8, 0x80, 0x200
    NAMES = {CREATE: "made", CLOSE_WRITE: "written", MOVED_TO: "moved", DELETE: "removed"}
    NEW_DIR = 0x40000000

    def __init__(self, tops):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_CLOEXEC)
        if self.fd < 0:
            fail(f"inotify_init1: {os.strerror(ctypes.get_errno())}")
        self.paths = {}
        for top in tops:
            top.mkdir(exist_ok=True)
            self.add(top, lambda label: None)

    def add(self, folder, say):
        watch = self.libc.inotify_add_watch(self.fd, os.fsencode(folder), sum(self.NAMES))
        if watch < 0:
            return
        self.paths[watch] = folder
        try:
            entries = list(folder.iterdir())
        except OSError:
            return
        for entry in entries:  # made before the watch was
            say(f"made {entry}")
            if entry.is_dir() and not entry.is_symlink():
                self.add(entry, say)

    def read(self, say):
        if not select.select([self.fd], [], [], 0.05)[0]:
            return
        data = os.read(self.fd, 1 << 16)
        while data:
            watch, mask, _, n = (int.from_bytes(data[i:i + 4], "little") for i in (0, 4, 8, 12))
            path = self.paths.get(watch, pathlib.Path("?")) / data[16:16 + n].rstrip(b"\0").decode()
            data = data[16 + n:]
            for bit, name in self.NAMES.items():
                if mask & bit:
                    say(f"{name} {path}")
            if mask & self.NEW_DIR and mask & (self.CREATE | self.MOVED_TO):
                self.add(path, say)


class Steps:
    """Labels of what happens, as it happens; `at`: call `hit` when this one is seen."""

    def __init__(self, at=None, hit=None):
        self.at, self.hit, self.seen, self.times, self.reached = at, hit, [], [], threading.Event()
        self.lock = threading.Lock()
        self.ended = False
        self.keeper = info()["keeper_pid"]
        self.inotify = Inotify([STATE / "snapshots", STATE / "sandboxes", RUN / "machines"])
        self.log = open(RUN / "keeper.log", "rb")
        self.log.seek(0, os.SEEK_END)
        self.events = link.Link(seconds=crash.SECONDS).shake()
        self.events.open("event.watch", link.record("event_watch"))
        while self.events.frame()[0] != link.RES:
            pass
        works = self.watch_files, self.watch_events, self.watch_log, self.watch_copier
        self.threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in self.threads:
            thread.start()

    def say(self, label):
        if self.ended:
            return
        label = label.replace(str(STATE) + "/", "").replace(str(RUN) + "/", "")
        label = re.sub("[0-9a-f]{32}", "ID", label)
        if re.search(r"\.blank-|-journal", label):
            return
        with self.lock:
            label = f"{label} ({1 + sum(s.startswith(label + ' (') for s in self.seen)})"
            self.seen.append(label)
            self.times.append(time.monotonic())
            mine = label == self.at and not self.reached.is_set()
            if mine:
                self.reached.set()
        if mine:
            self.hit()

    def watch_files(self):
        while not self.ended:
            self.inotify.read(self.say)

    def watch_log(self):
        held = b""
        while not self.ended:
            held += self.log.read()
            *lines, held = held.split(b"\n")
            for line in lines:
                found = re.search(rb"event=machine .* state=(\w+)", line)
                if found:
                    self.say(f"machine {found.group(1).decode()}")
            time.sleep(0.001)

    def watch_events(self):
        held = b""
        try:
            while not self.ended:
                kind, _, _, _, payload = self.events.frame()
                held += payload if kind == link.DATA else b""
                while len(held) >= 4 and len(held) >= 4 + int.from_bytes(held[:4], "little"):
                    n = int.from_bytes(held[:4], "little")
                    event, held = link.fields("event", held[4:4 + n]), held[4 + n:]
                    kind = event["type"].decode()
                    if kind.startswith(("sandbox_", "snapshot_")):
                        self.say(f"event {kind} {event.get('step', b'').decode()}".rstrip())
        except (link.Ended, OSError):
            pass

    def watch_copier(self):
        there = False
        while not self.ended:
            if bool(of_keeper(self.keeper, "copier")) != there:
                there = not there
                self.say("copier runs" if there else "copier is done")
            time.sleep(0.001)

    def apart(self):
        """The steps without those that a kill can't tell from the one before."""
        kept, last = [], 0
        for label, at in zip(self.seen, self.times):
            if at - last >= TOGETHER_S or label.startswith("copier runs"):
                kept.append(label)
                last = at
        return kept

    def close(self):
        """Nobody reads any more when it is closed: a number in use would soon be that of a client's pipe, and keep it open."""
        self.ended = True
        try:
            self.events.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the daemon is gone
            pass
        for thread in self.threads:
            thread.join()
        self.events.close()
        self.log.close()
        os.close(self.inotify.fd)


# ---- who ----

def info():
    return json.loads(hotcell("info", "--json").stdout)


def of_keeper(keeper, kind):
    """Its children: the one that copies, or machines, those included that have not become QEMU yet."""
    try:
        pids = pathlib.Path(f"/proc/{keeper}/task/{keeper}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    names = {int(pid): crash.comm(pid) for pid in pids}
    return [pid for pid, name in names.items() if (name == "hotcell-copier") == (kind == "copier") and name not in ("hotcell-shell", "")]


def target(who, client):
    """A function that says whom to kill now; asked for beforehand, as a daemon in trouble does not answer."""
    facts = info()
    source = [s["pid"] for s in sandboxes() if s["name"] == "src" and s["state"] == "running"]
    before = set(of_keeper(facts["keeper_pid"], "machine"))
    return {
        "daemon": lambda: [facts["pid"]],
        "keeper": lambda: [facts["keeper_pid"]],
        "client": lambda: [client[0].pid],
        "both": lambda: [client[0].pid, facts["pid"]],
        "source": lambda: source,
        "child": lambda: [pid for pid in of_keeper(facts["keeper_pid"], "machine") if pid not in before],
        "copier": lambda: of_keeper(facts["keeper_pid"], "copier"),
    }[who]


# ---- what is whole ----

def state_of(name):
    return next((s["state"] for s in sandboxes() if s["name"] == name), "none")


def inside(name, command):
    return hotcell("exec", name, "-c", command).stdout.strip()


def start_counter(name):
    hotcell("exec", "--detach", name, "--", "python3", "-c", COUNTER)
    wait_until("the counter counts", lambda: hotcell("exec", name, "--", "test", "-s", "count", check=False).returncode == 0)


def counts(name):
    """Its program goes on, and memory and disk are of one instant; what the kernel only remembers is read again."""
    said = inside(name, "cat count bad 2>/dev/null; pgrep -cf '[k]ept = int'; :").split()
    if len(said) != 2 or said[1] == "0":
        fail(f"{name}: the counter says {said}")
    hotcell("exec", "--user", "root", name, "-c", "sync; echo 3 >/proc/sys/vm/drop_caches")
    wait_until(f"{name} goes on", lambda: int(inside(name, "cat count")) > int(said[0]) + 2)
    bad = inside(name, "cat bad 2>/dev/null; :")
    if bad:
        fail(f"{name}: {bad}")


def sets():
    """Snapshots and hot templates."""
    return [json.loads(line) for kind in ("snapshot", "template") for line in hotcell(kind, "list", "--json").stdout.splitlines()]


def set_named(name):
    return any(s["name"] == name for s in sets())


def settle(who, worked):
    """The next daemon has done what it found; then whatever runs is whole."""
    wait_until("nothing is half made", lambda: all(s["state"] in ("running", "paused", "failed") for s in sandboxes()))
    if who == "keeper":
        wait_until("the keeper's death is known", lambda: all(s["state"] in ("paused", "failed") for s in sandboxes()) or worked)
    wait_until("half made sets are gone", lambda: not [path for folder in ("snapshots", "sandboxes")
                                                     for end in ("new", "old") for path in STATE.glob(f"{folder}/*.{end}")])


def check_source(who, may=("running",)):
    """The source is in one of these states; it is dead only if it, or everything, was killed."""
    state = state_of("src")
    if who in ("keeper", "source", "child") and state in ("failed", "none"):
        return state
    if state not in may:
        if state == "running":  # its death is on the way; then the list must know
            wait_until("src, which does not run, is called failed", lambda: state_of("src") == "failed")
            return "failed"
        fail(f"src is {state}, not {' or '.join(may)}: {[s.get('reason') for s in sandboxes() if s['name'] == 'src']}")
    if state == "running":
        if hotcell("exec", "src", "--", "true", check=False).returncode != 0 and who in ("keeper", "source", "child"):
            wait_until("src, which does not run, is called failed", lambda: state_of("src") == "failed")
            return "failed"
        counts("src")
    return state


def check_resumes(who):
    state = check_source(who, ("running", "paused"))
    if state == "paused":
        done = hotcell("resume", "src", check=False)
        if done.returncode == 0:
            counts("src")
        elif who not in ("keeper", "source", "child"):  # those may die a moment after the pause was answered
            fail(f"resume: {done.stderr}")
    return state


def marks():
    """old or new: what the disk and the memory of src say, which must be the same"""
    disk = inside("src", "cat mark")
    memory = "new" if int(inside("src", f"pgrep -cfx '{LATER}'; :")) else "old"
    if disk != memory:
        fail(f"src has the disk of {disk} and the memory of {memory}")
    return disk


# ---- verbs: prepare; the words; check afterwards ----

def prepare_source():
    hotcell("create", "--name", "src")
    start_counter("src")


def snapshot_check(who, worked):
    state = check_source(who)
    if not set_named("s"):
        if worked:
            fail("the snapshot that was answered is not there")
        if state == "running":
            calmly("snapshot", "create", "src", "--name", "s")
        else:
            return "none"
    hotcell("restore", "s", "--name", "back")
    counts("back")
    return "there"


def template_check(who, worked):
    kept = [s for s in sets() if s["kind"] == "template"]
    if not kept:
        fail("there is no hot template: not the old one, and not the new one")
    if len(kept) > 1:
        fail(f"there are {len(kept)} hot templates of one shape")
    got = json.loads(hotcell("create", "--name", "x", "--json").stdout)
    if got["path"] != "fork":
        fail(f"a create is a {got['path']}")
    hotcell("exec", "x", "--", "git", "--version")
    hotcell("rm", "x")
    return kept[0]["id"][:6]


def children_check(who, worked, names):
    found = {s["name"]: s["state"] for s in sandboxes()}
    for name in names:
        state = found.get(name, "none")
        if state == "running" and who in ("keeper", "child") and hotcell("exec", name, "--", "true", check=False).returncode != 0:
            wait_until(f"{name} is called failed", lambda: state_of(name) in ("failed", "none"))
        elif state == "running":
            counts(name)
        elif worked and who not in ("keeper", "child", "source"):
            fail(f"{name} is {state}, and the client was told that it runs")
        elif state not in ("failed", "none"):
            fail(f"{name} is {state}")
    return " ".join(found.get(name, "none") for name in names)


def fork_check(who, worked):
    state = check_source(who)
    said = children_check(who, worked, ("kid-1", "kid-2"))
    if state == "running":
        calmly("fork", "src", "--name", "again")
        counts("again")
    return f"{state}: {said}"


def restore_prepare():
    if not set_named("kept"):
        prepare_source()
        calmly("snapshot", "create", "src", "--name", "kept")
        hotcell("rm", "src")


def restore_check(who, worked):
    said = children_check(who, worked, ("r",))
    hotcell("restore", "kept", "--name", "again")
    counts("again")
    return said


def resume_prepare():
    prepare_source()
    calmly("pause", "src")


def pause_check(who, worked):
    if worked and state_of("src") != "paused":
        fail(f"the pause was answered, and src is {state_of('src')}: {[s.get('reason') for s in sandboxes()]}")
    return check_resumes(who)


def rollback_prepare():
    prepare_source()
    inside("src", "echo old >mark")
    calmly("snapshot", "create", "src", "--name", "s")
    hotcell("exec", "--detach", "src", "--", *LATER.split())
    inside("src", "echo new >mark; sync")


def rollback_paused_prepare():
    rollback_prepare()
    calmly("pause", "src")


def rollback_check(who, worked):
    state = state_of("src")
    if state in ("failed", "none"):
        if who not in ("keeper", "source", "child"):
            fail(f"src is {state}: {[s.get('reason') for s in sandboxes()]}")
        hotcell("restore", "s", "--name", "back")
        counts("back")
        return state
    if state == "paused":
        done = hotcell("resume", "src", check=False)
        if done.returncode != 0:
            if "roll it back again" not in done.stderr:
                fail(f"resume: {done.stderr}")
            hotcell("rollback", "src", "s")
            if marks() != "old":
                fail("after the second rollback it is not what it was")
    elif check_source(who) != "running":
        return "failed"
    counts("src")
    now = marks()
    if worked and now != "old":
        fail("the rollback was answered, and src is not what it was")
    hotcell("rollback", "src", "s")
    counts("src")
    if marks() != "old":
        fail("after a rollback it is not what it was")
    return f"{state}, {now}"


VERBS = {
    "template": (lambda: None, ["template", "build", "base"], template_check),
    "snapshot": (prepare_source, ["snapshot", "create", "src", "--name", "s"], snapshot_check),
    "fork": (prepare_source, ["fork", "src", "--count", "2", "--name", "kid"], fork_check),
    "restore": (restore_prepare, ["restore", "kept", "--name", "r"], restore_check),
    "pause": (prepare_source, ["pause", "src"], pause_check),
    "resume": (resume_prepare, ["resume", "src"], lambda who, worked: check_resumes(who)),
    "rollback": (rollback_prepare, ["rollback", "src", "s"], rollback_check),
    "rollback-paused": (rollback_paused_prepare, ["rollback", "src", "s"], rollback_check),
}


# ---- rounds ----

fd_counts = {}  # of a daemon and a keeper at rest


def check_rest(scratch):
    """All is removed; nothing is left but what is kept on purpose, and the next one works."""
    hotcell("rm", "--all")
    if set_named("s"):
        hotcell("snapshot", "rm", "s")
    hotcell("run", "--", "true")
    wait_until("nothing is left", lambda: not sandboxes())
    left = "not looked"
    end = time.monotonic() + 15
    while left and time.monotonic() < end:
        left = subprocess.run([sys.executable, HERE / "traces.py", scratch], stdout=subprocess.PIPE, text=True, check=True).stdout
        there, known = {p.name for p in STATE.glob("snapshots/*")}, {s["id"] for s in sets()}
        left += "".join(f"snapshots/{name}, which no list has\n" for name in there - known)
        facts = info()
        for name, pid in (("daemon", facts["pid"]), ("keeper", facts["keeper_pid"])):
            n = len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))
            if n > fd_counts.setdefault((name, pid), n):
                left += f"the {name} has {n} descriptors, it had {fd_counts[name, pid]}\n"
        time.sleep(0.1)
    if left:
        fail(f"left behind:\n{left}")


def calm(steps):
    """Nobody waits for the verb any more; it ends all the same, and nothing happens then for a second."""
    before = None
    while before != len(steps.seen):
        before = len(steps.seen)
        time.sleep(1)


def run_verb(verb, who=None, at=None, delay=0.0):
    """(the steps that were seen, was somebody killed, exit status and words of the client)"""
    prepare, words, _ = VERBS[verb]
    prepare()
    client, hits = [], queue.Queue()
    pids = target(who, client) if who else None

    def hit():
        time.sleep(delay)
        while not client:
            time.sleep(0.001)
        for pid in pids():
            try:
                os.kill(pid, signal.SIGKILL)
                hits.put(pid)
            except ProcessLookupError:
                pass

    steps = Steps(at, hit)
    client.append(subprocess.Popen(["hotcell", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    try:
        _, stderr = client[0].communicate(timeout=crash.SECONDS)
    except subprocess.TimeoutExpired:
        crash.say_where(client[0])
        client[0].kill()
        fail(f"hotcell {' '.join(words)} hangs after kill -9 of {who} at {at}")
    if client[0].returncode == -signal.SIGKILL:
        calm(steps)
    seen = steps.apart()
    steps.close()
    return seen, not hits.empty(), client[0], stderr


def round_of(scratch, verb, who, at, delay, where):
    _, hit, client, stderr = run_verb(verb, who, at, delay)
    print(f"{where}: {'killed' if hit else 'not there'}; ", end="", flush=True)
    said = crash.check_sentence(client, stderr)
    print(said, end="; ", flush=True)
    settle(who, said == "worked")
    print(VERBS[verb][2](who, said == "worked"), flush=True)
    check_rest(scratch)
    return hit


TELLING = [
    ("snapshot", "daemon", "moved sandboxes/ID/layer-2 (1)"),
    ("fork", "keeper", "machine starting (1)"),
    ("pause", "keeper", "machine cleaning (1)"),
    ("rollback", "daemon", "machine cleaning (1)"),
    ("rollback-paused", "both", "moved sandboxes/ID (1)"),
]


def telling(scratch):
    for verb, who, at in TELLING:
        begin = time.monotonic()
        if not round_of(scratch, verb, who, at, 0, f"{verb}: {who} at {at}"):
            fail(f"{who} was not hit")
        print(f"{time.monotonic() - begin:.1f} s")


def main():
    if sys.argv[2] == "telling":
        telling(sys.argv[1])
        return
    scratch, verb, who = sys.argv[1:4]
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    random.seed(seed)
    print(f"SEED={seed}")
    check = VERBS[verb][2]
    if not any(s["kind"] == "template" for s in sets()):
        hotcell("template", "build", "base")
    begin = time.monotonic()
    labels, _, client, stderr = run_verb(verb)
    if client.returncode != 0:
        fail(f"hotcell {verb}: {stderr}")
    took = time.monotonic() - begin
    check("nobody", True)
    check_rest(scratch)
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else len(labels)
    if who == "copier":  # it lives for a moment only
        labels = [label for label in labels if label.startswith("copier runs (1)")] * (rounds if FULL else 1)
    chosen = labels if rounds >= len(labels) else [labels[int((i + random.random()) * len(labels) / rounds)] for i in range(rounds)]
    print("\n".join(labels))
    print(f"{verb}: {len(labels)} steps in {took:.1f} s; kill -9 of {who} at {len(chosen)} of them", flush=True)
    killed, failures = 0, []
    for at in chosen:
        for delay in (0, random.random() * (0.1 if who == "copier" else 0.03)) if FULL else (0,):
            where = f"{verb} {at} + {delay * 1000:.0f} ms"
            try:
                killed += round_of(scratch, verb, who, at, delay, where)
            except SystemExit:  # fail() has said why; the rest of the matrix is worth seeing
                failures.append(where)
                fd_counts.clear()
                check_rest(scratch)
    if failures:
        fail(f"kill -9 of {who}: {len(failures)} rounds failed: " + "; ".join(failures))
    if killed == 0:
        fail(f"{who} was never hit")
    print(f"{verb}: {who} killed {killed} times")


main()
