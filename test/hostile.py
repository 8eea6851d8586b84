#!/usr/bin/env python3
"""hostile.py - peers of the daemon's socket that break every rule; the daemon must go on serving others

Prints a line per kind of peer; stops at the first one after which the daemon is not as before.
"""
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time
import link

OPENS = 10_000
CLIENTS_MAX = 512  # ENGINE_CLIENTS_MAX
GROWTH_KIB = 8192


def info():
    done = subprocess.run(["hotcell", "info", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
    if done.returncode != 0:
        sys.exit(f"failed: the daemon doesn't answer any more: {done.stderr.decode(errors='replace').strip()}")
    return json.loads(done.stdout)


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return sum(int(line.split()[1]) for line in f if line.startswith("RssAnon:"))


def raw(data):
    """Bytes without a handshake, then the end."""
    client = link.Link()
    try:
        client.send(data)
    except OSError:
        pass  # it may have closed already
    client.close()


def after_shake(data):
    client = link.Link().shake()
    try:
        client.send(data)
        client.socket.shutdown(socket.SHUT_WR)
        while client.socket.recv(1 << 16):  # until the daemon closes too
            pass
    except ConnectionError:
        pass
    client.close()


def refused(method, payload, *codes):
    """One answer, an error of these; the link lives on."""
    client = link.Link().shake()
    code, words = client.call(method, payload)
    if code not in codes:
        sys.exit(f"failed: {method} {payload[:80]!r}: answered {code} {words!r}, wanted one of {codes}")
    if not words or len(words) > 1024 or "\n" in words:
        sys.exit(f"failed: {method}: no clear sentence: {words!r}")
    code, _ = client.call("daemon.info", b"")
    if code != "ok":
        sys.exit(f"failed: after a refused {method} the link is of no use: {code}")
    client.close()
    return words


def garbage():
    for _ in range(200):
        raw(random.randbytes(random.randrange(1, 100_000)))
        after_shake(random.randbytes(random.randrange(1, 10_000)))


def torn_frames():
    whole = link.frame(link.REQ, 1, link.record("sandbox_ref", sandbox="x"), arg=link.METHODS["sandbox.info"])
    for cut in range(len(whole)):
        after_shake(whole[:cut])
        if cut % 8 == 0:
            after_shake(whole[:cut] + whole)
    for cut in range(link.SYNC_BYTES):
        raw(link.sync(os.urandom(16))[:cut])


def lengths():
    for length in (65537, 1 << 20, 1 << 31, (1 << 32) - 1):
        after_shake(link.frame(link.REQ, 1, b"x" * 100, arg=1, length=length))
        after_shake(link.frame(link.DATA, 1, b"", length=length))


def frames():
    for kind in range(256):
        after_shake(link.frame(kind, random.choice([0, 1, 2, 1 << 31]), b"payload", arg=random.randrange(1 << 32),
                               offset=random.choice([0, 1, (1 << 64) - 1])))
    after_shake(link.frame(link.REQ, 1, b"", arg=100, flags=255))
    after_shake(link.frame(link.REQ, 1, b"", arg=100, fds=255))
    after_shake(link.frame(link.REQ, 1, b"", arg=100, trailer=b"\0") * 3)
    after_shake(link.frame(link.RES, 1, b"x") + link.frame(link.END, 1) + link.frame(link.RESET, 1))
    for offset in (1, 1 << 40, (1 << 64) - 1):  # credit for what was never sent, data that was never allowed
        opened = link.frame(link.REQ, 1, link.record("event_watch"), arg=link.METHODS["event.watch"])
        after_shake(opened + link.frame(link.WINDOW, 1, offset=offset))
        after_shake(opened + link.frame(link.DATA, 1, b"x" * 1000, offset=offset))
        after_shake(opened + link.frame(link.END, 1, offset=offset))
    after_shake(link.frame(link.REQ, 1, b"", arg=100) * 2)  # the same stream twice
    after_shake(link.frame(link.REQ, 2, b"", arg=100))  # a number that is not the client's
    after_shake(link.frame(link.REQ, 0, b"", arg=100))


def versions():
    for low, high in ((0, 0), (2, 2), (65535, 65535), (5, 1)):
        client = link.Link()
        client.socket.settimeout(0.5)
        client.send(link.sync(os.urandom(16), low, high))
        try:
            client.bytes(link.SYNC_BYTES)
        except (OSError, link.Ended):
            pass
        client.close()


def records():
    ref = lambda value: link.record("sandbox_ref", sandbox=value)
    for value in ("", "x" * 65, "x\0y", "../../etc/passwd", "a/b", "\x1b[2J", "ü", "x" * 60000):
        refused("sandbox.info", ref(value), "invalid", "limit", "not_found")
    for tag, value in ((1, b""), (1, b"x" * 64 + b"\0"), (9999, b"y")):
        refused("sandbox.info", link.field(tag, value), "invalid", "limit", "not_found")
    refused("sandbox.info", struct.pack("<HI", 1, 0xffffffff) + b"x", "invalid", "limit")
    refused("sandbox.info", b"\1", "invalid", "limit")
    refused("sandbox.info", ref("x") * 2, "invalid")
    create = lambda **values: link.record("sandbox_create", isolation="process", **values)
    for values in ({"memory_mb": 1 << 63}, {"memory_mb": 1}, {"vcpus": 1 << 32}, {"disk_mb": (1 << 64) - 1}, {"pids_max": 1 << 40},
                   {"name": "../x"}, {"name": "a b"}, {"name": "x" * 65}, {"template": "../../etc"}, {"template": "no-such"},
                   {"idle_timeout_ms": 1 << 62}, {"lifetime_ms": (1 << 64) - 1}, {"unenforced": ["everything"]}):
        words = refused("sandbox.create", create(**values), "invalid", "limit", "not_found")
        key = next(iter(values)).removesuffix("_mb").removesuffix("_ms").removesuffix("_max")
        if key != "template" and key.split("_")[0] not in words:
            sys.exit(f"failed: the sentence doesn't name {key}: {words!r}")
    words = refused("sandbox.create", link.record("sandbox_create", isolation="wish"), "invalid")
    if "isolation" not in words or "vm, process" not in words:
        sys.exit(f"failed: the sentence doesn't say what may be asked for: {words!r}")
    refused("sandbox.create", create() + link.field(11, b"A=1\0" * 600), "invalid", "limit")
    refused("sandbox.create", create() + link.field(11, b"no end"), "invalid", "limit")
    refused("sandbox.create", create() + link.field(4, b"short"), "invalid", "limit")
    refused("exec.start", link.record("exec_start", sandbox="nobody", argv=["x"]), "not_found")
    for method, name in (("file.read", "file_read"), ("file.stat", "file_ref"), ("file.list", "file_ref"), ("file.remove", "file_ref"),
                         ("file.mkdir", "file_ref"), ("file.write", "file_write")):
        for path, code in (("a\0b", "invalid"), ("\0", "invalid"), ("", "invalid"), ("x" * 4097, "limit")):
            words = refused(method, link.record(name, sandbox="box", path=path), code)
            if f"{name}.path" not in words:
                sys.exit(f"failed: {method}: the sentence doesn't name the path: {words!r}")
    for method in (0, 7, 80, 84, 140, 160, 163, 9999, 0xffffffff):  # unknown, the guest's and the keeper's own
        refused(method, ref("x"), "invalid", "not_found", "unsupported", "denied")


def many_opens():
    for _ in range(OPENS):
        link.Link().close()
    held = []
    try:
        for _ in range(2000):
            held.append(link.Link())
    except OSError:
        pass
    for client in held:
        client.close()


def full_house():
    """When all places are taken the next client hears the limit; it is served as soon as somebody leaves."""
    held = [link.Link().shake() for _ in range(CLIENTS_MAX)]
    done = subprocess.run(["hotcell", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30, check=False)
    words = done.stderr.decode(errors="replace")
    if done.returncode != 7 or str(CLIENTS_MAX) not in words or words.count("\n") != 1:
        sys.exit(f"failed: client {CLIENTS_MAX + 1} ends with {done.returncode}: {words!r}")
    for client in held:
        client.close()


def many_streams():
    client = link.Link().shake()
    for n in range(3000):  # more than LIMIT link_streams
        try:
            client.send(link.frame(link.REQ, 1 + 2 * n, link.record("event_watch"), arg=link.METHODS["event.watch"]))
        except OSError:
            break
    client.close()


def silent_readers():
    """They ask for everything and never read."""
    clients = []
    for _ in range(20):
        client = link.Link().shake()
        client.socket.settimeout(0.3)
        try:
            for n in range(2000):
                client.send(link.frame(link.REQ, 1 + 2 * n, b"", arg=link.METHODS["sandbox.list"]) + link.frame(link.END, 1 + 2 * n))
        except OSError:
            pass
        clients.append(client)
    info()  # others are served meanwhile
    for client in clients:
        client.close()


def main():
    seed = int(os.environ.get("SEED", time.time_ns() % 10**6))
    random.seed(seed)
    before = info()
    pid = before["pid"]
    fds, kib = descriptors(pid), memory_kib(pid)
    for kind in (records, garbage, torn_frames, lengths, frames, versions, many_opens, full_house, many_streams, silent_readers):
        begin = time.monotonic()
        try:
            kind()
        except (link.Ended, OSError, ValueError) as why:
            sys.exit(f"failed: {kind.__name__} (SEED={seed}): {why!r}")
        now = info()
        if now["pid"] != pid:
            sys.exit(f"failed: {kind.__name__} ended the daemon (SEED={seed})")
        for _ in range(50):
            if descriptors(pid) <= fds:
                break
            time.sleep(0.1)
        print(f"{kind.__name__}: {time.monotonic() - begin:.1f} s, {descriptors(pid)} descriptors, {memory_kib(pid)} KiB", flush=True)
        if descriptors(pid) > fds:
            sys.exit(f"failed: {kind.__name__} left {descriptors(pid) - fds} descriptors open")
    if memory_kib(pid) > kib + GROWTH_KIB:
        sys.exit(f"failed: the daemon grew from {kib} to {memory_kib(pid)} KiB")


main()
