#!/usr/bin/env python3
"""greedy.py udp MIB | tcp MIB | terminals | aio - run inside a process sandbox: take what all share, say how much, hold it

udp, tcp: bytes that nobody reads, in sockets; prints the MiB that the kernel keeps there and the number of sockets.
"""
import ctypes
import errno
import os
import resource
import signal
import socket
import struct
import sys

ROOM = 1 << 24
held = []


def memory(s, of):
    """What the kernel says that it holds for a socket: 0 not yet read, 5 not yet sent (SO_MEMINFO)."""
    return struct.unpack("9I", s.getsockopt(socket.SOL_SOCKET, 55, 36))[of]


def datagrams():
    a, b = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    a.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    a.bind(("127.0.0.1", 0))
    b.connect(a.getsockname())
    b.setblocking(False)
    for _ in range(128):  # what does not fit is dropped
        b.send(b"x" * 60000)
    return a, b


def stream():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)
    b = socket.socket()
    b.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    b.connect(listener.getsockname())
    a, _ = listener.accept()
    listener.close()
    b.setblocking(False)
    try:
        while True:
            b.send(b"x" * 65536)
    except BlockingIOError:
        return a, b


def fill(make, mib):
    for _ in range(mib // 4):
        try:
            held.append(make())
        except OSError as why:
            if why.errno not in (errno.EMFILE, errno.ENOBUFS):
                raise
            break
    print(sum(memory(a, 0) + memory(b, 5) for a, b in held) >> 20, 2 * len(held), flush=True)


def terminals():
    try:
        while True:
            held.append(os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY))
    except OSError as why:
        print(len(held), errno.errorcode[why.errno], flush=True)


def aio():
    context = ctypes.c_ulong(0)
    libc = ctypes.CDLL(None, use_errno=True)
    r = libc.syscall(206, 65536, ctypes.byref(context))  # io_setup
    print(errno.errorcode[ctypes.get_errno()] if r < 0 else "a context", flush=True)


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if sys.argv[1] in ("udp", "tcp"):
        fill(datagrams if sys.argv[1] == "udp" else stream, int(sys.argv[2]))
    else:
        {"terminals": terminals, "aio": aio}[sys.argv[1]]()
    signal.pause()


main()
