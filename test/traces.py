#!/usr/bin/env python3
"""traces.py SCRATCH - what sandboxes of the daemon in SCRATCH left on this machine, a line each; none: nothing

A shell that the keeper keeps ready is no trace of a sandbox. Tests that need root see everything; a user sees
what is theirs.
"""
import functools
import os
import pathlib
import shutil
import sqlite3
import sys
import tempfile

LENT = ("images", "kernels", "initrds", "closures")  # of a state directory: what lib.sh mounts there
READY_SHELLS = 4
OURS = ("hotcelld", "hotcell-keeper", "hotcell-shell")


def read(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def group_name(run):
    """As the keeper names its control groups: FNV-1a of its run directory."""
    return "hotcell-%016x" % functools.reduce(lambda h, c: (h ^ c) * 0x100000001b3 % 2**64, run.encode(), 0xcbf29ce484222325)


def is_parked(group):
    pids = read(group / "cgroup.procs").split()
    return pids and all(read(f"/proc/{pid}/comm") == "hotcell-shell" for pid in pids) and not any(
        entry.is_dir() for entry in group.iterdir())


def groups(run):
    name = group_name(run)
    for mount in (line.split()[4] for line in read("/proc/self/mountinfo").splitlines() if " - cgroup" in line):
        for above in (pathlib.Path(mount), *pathlib.Path(mount).glob("*.slice")):
            if (above / name).is_dir():
                yield above / name


def trace_groups(run):
    for top in groups(run):
        for group in top.iterdir():
            if group.is_dir() and not is_parked(group):
                yield f"cgroup {group}"


def trace_mounts(scratch):
    for line in read("/proc/self/mountinfo").splitlines():
        at = line.split()[4]
        if at.startswith(scratch + "/") and at != scratch + "/state" and at.removeprefix(scratch + "/state/") not in LENT:
            yield f"mount {at}"


def trace_files(scratch):
    for folder in ("state/sandboxes", "state/keeper", "run/machines"):
        for path in pathlib.Path(scratch, folder).rglob("*"):
            if not path.name.startswith(".blank-"):
                yield f"file {path}"


def children(pid):
    return [int(child) for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children") for child in read(task).split()]


def family(pid):
    return [pid] + [deeper for child in children(pid) for deeper in family(child)]


def roots(run):
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            program = os.path.basename(os.readlink(folder / "exe")).split(" ")[0]
        except OSError:
            continue
        if program in ("hotcelld", "hotcell-keeper") and f"HOTCELL_RUN={run}" in read(folder / "environ").split("\0"):
            yield int(folder.name)


def trace_processes(run):
    shells = 0
    for pid in sorted({member for root in roots(run) for member in family(root)}):
        name = read(f"/proc/{pid}/comm")
        shells += name == "hotcell-shell"
        state = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        if name and (name not in OURS or state[:1] == ["Z"]):
            yield f"process {pid} ({name}) state {state[0]} {read(f'/proc/{pid}/cmdline')!r}"
    if shells > READY_SHELLS:
        yield f"{shells} parked shells, {READY_SHELLS} are kept"


def trace_rows(scratch):
    """The daemon holds its store locked, so a copy is read."""
    source = pathlib.Path(scratch, "state/db")
    if not (source / "run.db").exists():
        return
    with tempfile.TemporaryDirectory(dir=scratch) as copy:
        for path in source.glob("run.db*"):
            shutil.copy(path, copy)
        db = sqlite3.connect(copy + "/run.db")
        for table in ("sandbox", "intent"):
            for (n,) in db.execute(f"select count(*) from {table} having count(*) > 0"):
                yield f"{n} rows in the table {table}"
        db.close()


def main():
    scratch = sys.argv[1]
    run = scratch + "/run"
    if sys.argv[2:] == ["--groups"]:
        print("\n".join(str(top) for top in groups(run)))
        return
    for line in (*trace_groups(run), *trace_mounts(scratch), *trace_files(scratch), *trace_processes(run), *trace_rows(scratch)):
        print(line)


main()
