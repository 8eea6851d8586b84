#!/usr/bin/env python3
"""Run the examples of a Markdown page: every ```sh run block, in order, in the current directory.

usage: readme.py PAGE.md

The ```text block behind one is its output, word for word. All blocks share the directory.
"""
import re
import subprocess
import sys


def blocks(text):
    """Each example as (line, commands, expected output or None)."""
    fences = list(re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S))
    for i, fence in enumerate(fences):
        if fence[1] == "sh run":
            after = fences[i + 1] if i + 1 < len(fences) and fences[i + 1][1] == "text" else None
            yield text[: fence.start()].count("\n") + 2, fence[2], after and after[2]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    page = sys.argv[1]
    count = 0
    for line, commands, expected in blocks(open(page, encoding="utf-8").read()):
        done = subprocess.run(["sh", "-eu", "-c", commands], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{page}:{line}: status {done.returncode}\n{done.stdout}{done.stderr}")
        if expected is not None and done.stdout != expected:
            sys.exit(f"{page}:{line}: printed\n{done.stdout}{done.stderr}instead of\n{expected}")
        count += 1
    if not count:
        sys.exit(f"{page}: no example to run")
    print(f"{count} examples")


main()
