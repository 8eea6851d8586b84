#!/usr/bin/env python3
"""slow.py SANDBOX - a follower that asks for on_slow=drop holds nobody up, and is told where bytes are missing"""
import sys
import time
import link

MIB = 1 << 20


def follow(box, on_slow, total):
    """Start a writer of @total bytes, read nothing until it has ended, then read what there is: (bytes, holes)."""
    client = link.Link(seconds=60).shake()
    script = f"head -c {total} /dev/zero | tr '\\\\0' x"
    stream = client.open("exec.start", link.record("exec_start", sandbox=box, command=script, on_slow=on_slow))
    kind, at, _, _, payload = client.frame()
    if kind != link.RES or at != stream:
        sys.exit(f"failed: no answer to exec.start: {kind} {payload!r}")
    session = link.fields("exec_started", payload)["session"]
    other = link.Link(seconds=60).shake()
    end = time.monotonic() + (60 if on_slow == "drop" else 3)
    ended = False
    while not ended and time.monotonic() < end:
        ended = not running(other, box, session)
        time.sleep(0.05)
    if ended != (on_slow == "drop"):
        sys.exit(f"failed: with on_slow={on_slow} the writer {'ended' if ended else 'waits'} while nobody reads")
    got, holes, next_offset, seen = 0, 0, None, b""
    while True:
        kind, at, _, offset, payload = client.frame()
        if at != stream:
            continue
        if kind == link.DATA:
            holes += next_offset is not None and offset != next_offset
            next_offset = offset + len(payload)
            got += len(payload)
            seen = (seen + payload)[-4096:]
            client.send(link.frame(link.WINDOW, stream, offset=got))
        elif kind == link.END:
            return got, holes
        elif kind == link.RESET:
            sys.exit(f"failed: reset: {payload!r}")


def running(client, box, session):
    stream = client.open("exec.list", link.record("sandbox_ref", sandbox=box))
    held, is_running = b"", None
    while True:
        kind, at, _, _, payload = client.frame()
        if at != stream:
            continue
        if kind == link.DATA:
            held += payload
        elif kind == link.END:
            break
    while held:
        n = int.from_bytes(held[:4], "little")
        item, held = link.fields("exec_info", held[4:4 + n]), held[4 + n:]
        if item["session"] == session:
            is_running = bool(item.get("running"))
    return is_running


def main():
    box = sys.argv[1]
    got, holes = follow(box, "drop", 4 * MIB)
    if not holes or got >= 4 * MIB:
        sys.exit(f"failed: on_slow=drop: {got} bytes of {4 * MIB}, {holes} holes: nothing was dropped")
    print(f"drop: {got} of {4 * MIB} bytes, {holes} holes")
    got, holes = follow(box, "block", 4 * MIB)
    if holes or got < 4 * MIB:
        sys.exit(f"failed: on_slow=block: {got} bytes of {4 * MIB}, {holes} holes")
    print(f"block: {got} bytes, no hole")


main()
