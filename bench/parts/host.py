"""The machine the figures belong to, and what /proc says about processes."""
import os
import platform
import subprocess
import time
from pathlib import Path


def _field(path, key):
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def mem_available_kib():
    return int(_field("/proc/meminfo", "MemAvailable").split()[0])


def describe():
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    return {
        "cpu": _field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "memory_mib": int(_field("/proc/meminfo", "MemTotal").split()[0]) // 1024,
        "virtual": "hypervisor" in _field("/proc/cpuinfo", "flags").split(),
        "kernel": platform.release(),
        "system": release.get("PRETTY_NAME", "").strip('"'),
    }


def version_of(*argv):
    """First line a program says about its version; None without the program."""
    try:
        out = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (out.stdout or out.stderr).strip().partition("\n")[0]


def load():
    return [round(x, 2) for x in os.getloadavg()]


def smaps(pid):
    """KiB by name, from smaps_rollup; {} when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (OSError, ProcessLookupError):
        return {}
    return {k: int(v.split()[0]) for k, _, v in (line.partition(":") for line in text.splitlines())
            if v.strip().endswith("kB")}


def children():
    """pid -> pids of its children, for all of /proc."""
    tree = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        tree.setdefault(parent, []).append(int(entry.name))
    return tree


def family(pid):
    """@pid and all its descendants."""
    tree, found, todo = children(), [], [pid]
    while todo:
        p = todo.pop()
        found.append(p)
        todo += tree.get(p, [])
    return found


def memory_of(pids):
    """Summed KiB over processes: what they hold privately in anonymous memory, and their share of all."""
    total = {"Anonymous": 0, "Pss": 0, "Rss": 0}
    for pid in pids:
        rollup = smaps(pid)
        for key in total:
            total[key] += rollup.get(key, 0)
    return total


TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_ns(pid):
    """Processor time of a process, its ended threads included; 0 when it is gone."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)  # how Linux names the clock of another process
    except OSError:
        return 0


def reaped_ns(pid):
    """Processor time of the children that a process has waited for, to 10 ms."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * TICK_NS


def blocks_mib(path):
    """What the files below a directory take on disk."""
    return sum(p.lstat().st_blocks for p in Path(path).rglob("*")) * 512 / (1 << 20)
