#!/usr/bin/env python3
"""tree.py make DIR | same DIR DIR - a directory of awkward names, sizes and modes, and whether two are alike"""
import os
import pathlib
import sys

NAMES = ["plain", "two words", "-rf", "--help", ".hidden", "new\nline", "tab\there", "quote'\"`$(id)", "back\\slash", "*?[x]",
         "ümläut-日本", "x" * 255, "a:b", "~user", "%s%n", "\x1b[31mred", "trailing "]
DEPTH = 40


def make(top):
    top.mkdir()
    for n, name in enumerate(NAMES):
        folder = top / name
        folder.mkdir()
        for m, inner in enumerate(NAMES):
            (folder / inner).write_bytes(os.urandom(n * m * 7))
        (folder / "plain").chmod(0o755)
        (folder / ".hidden").chmod(0o400)
    (top / "empty").mkdir()
    deep = top
    for level in range(DEPTH):
        deep = deep / f"d{level}"
        deep.mkdir()
    (deep / "bottom").write_text("here")
    (top / "read-only").mkdir()
    (top / "read-only" / "file").write_text("fixed")


def describe(top):
    found = {}
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = pathlib.Path(folder, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(top))] = (mode, path.read_bytes() if path.is_file() else None)
    return found


def main():
    if sys.argv[1] == "make":
        make(pathlib.Path(sys.argv[2]))
        return 0
    one, other = (describe(folder) for folder in sys.argv[2:4])
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            what = "missing" if name not in other else "extra" if name not in one else \
                f"mode {one[name][0]:o}, then {other[name][0]:o}" if one[name][0] != other[name][0] else "other bytes"
            print(f"{name!r}: {what}")
    print(f"{len(one)} entries")
    return 0 if one == other and len(one) > 300 else 1


sys.exit(main())
