#!/usr/bin/env python3
"""soak.py SCRATCH ISOLATION COUNT SECONDS - COUNT sandboxes at once: created, used, destroyed, again and again

After every round nothing may be left, and daemon and keeper must hold as many descriptors, and about as much
memory, as after the first one.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
CLIENTS = 8  # command lines at the same time
SECONDS = 600
GROWTH_KIB = 8192


class Failed(Exception):
    pass


def hotcell(*words, data=None):
    done = subprocess.run(["hotcell", *words], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=SECONDS, check=False)
    if done.returncode != 0:
        raise Failed(f"hotcell {' '.join(words)}: exit status {done.returncode}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def create(isolation, name):
    begin = time.monotonic()
    hotcell("create", "--isolation", isolation, "--name", name, "--memory", "128M", "--disk", "64M")
    return time.monotonic() - begin


def use(name):
    data = os.urandom(100_000)
    hotcell("cp", "-", f"{name}:data", data=data)
    got = hotcell("exec", name, "-c", "hostname; sha256sum <data; cat >>data; wc -c <data", data=b"more").decode().split()
    want = [name, hashlib.sha256(data).hexdigest(), "-", "100004"]
    if got != want:
        raise Failed(f"{name}: wanted {want}, got {got}")
    if hotcell("cp", f"{name}:data", "-") != data + b"more":
        raise Failed(f"{name}: other bytes came back")


def remove(name):
    hotcell("rm", name)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(("RssAnon:", "RssShmem:")))


def settled(scratch):
    end = time.monotonic() + 15
    while True:
        left = subprocess.run([sys.executable, HERE / "traces.py", scratch], stdout=subprocess.PIPE, text=True, check=True).stdout
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.1)


def main():
    scratch, isolation, count, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
    names = [f"box{n}" for n in range(count)]
    hotcell("list")
    info = json.loads(hotcell("info", "--json"))
    pids = {"daemon": info["pid"], "keeper": info["keeper_pid"]}
    first, last, rounds, created, slowest = {}, {}, 0, 0, 0.0
    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(CLIENTS if isolation == "process" else count) as pool:
        while rounds < 2 or time.monotonic() - begin < seconds:
            times = list(pool.map(create, [isolation] * count, names))
            created, slowest = created + count, max(slowest, *times)
            alive = [json.loads(line)["state"] for line in hotcell("list", "--json").splitlines()]
            if alive != ["running"] * count:
                raise Failed(f"of {count} sandboxes the list says: {alive}")
            list(pool.map(use, names))
            list(pool.map(remove, names))
            left = settled(scratch)
            if left:
                raise Failed(f"left behind after round {rounds}:\n{left}")
            rounds += 1
            last = {who: (descriptors(pid), memory_kib(pid)) for who, pid in pids.items()}
            if rounds == 1:
                first = last
    print(f"{rounds} rounds of {count}, {created} sandboxes in {time.monotonic() - begin:.0f} s, slowest create {slowest:.2f} s;",
          "; ".join(f"{who}: {first[who][0]} then {last[who][0]} descriptors, {first[who][1]} then {last[who][1]} KiB" for who in pids))
    for who in pids:
        if last[who][0] > first[who][0] + 2:
            raise Failed(f"the {who} has {last[who][0]} descriptors open, after the first round it had {first[who][0]}")
        if last[who][1] > first[who][1] + GROWTH_KIB:
            raise Failed(f"the {who} grew from {first[who][1]} to {last[who][1]} KiB")
    if json.loads(hotcell("info", "--json"))["pid"] != pids["daemon"]:
        raise Failed("the daemon is another one than at the start")


try:
    main()
except Failed as why:
    print("failed:", why)
    sys.exit(1)
