"""test/link.py - the link of schema/ and wire/frame.h in Python, so that tests can also speak it wrongly

Records are built from schema/records.toml at run time; nothing is checked here on purpose.
"""
import os
import pathlib
import socket
import struct
import tomllib

SCHEMA = pathlib.Path(__file__).resolve().parent.parent / "schema"
MAGIC = b"HOTCELL\rlink\n\x1a\xff\x01"
TRAILER = b"\xa5"
REQ, RES, DATA, WINDOW, END, RESET = 1, 2, 3, 4, 5, 6
SYNC_BYTES = 64


def load(name):
    with open(SCHEMA / name, "rb") as f:
        return tomllib.load(f)


METHODS = {f"{group}.{verb}": m["number"] for group, verbs in load("methods.toml").items() for verb, m in verbs.items()}
FIELDS = {r["name"]: {f["name"]: f for f in r.get("fields", [])} for r in load("records.toml")["record"]}
ERRORS = {e["number"]: name for name, e in load("errors.toml").items()}


def field(tag, value):
    """One encoded field; the value is bytes already."""
    return struct.pack("<HI", tag, len(value)) + value


def record(name, /, **values):
    out = b""
    for key, value in values.items():
        if isinstance(value, bool):
            value = b"\1" if value else b""
        elif isinstance(value, int):
            value = struct.pack("<Q", value & (1 << 64) - 1)
        elif isinstance(value, str):
            value = value.encode()
        elif isinstance(value, list):
            value = b"".join(v.encode() + b"\0" for v in value)
        out += field(FIELDS[name][key]["tag"], value)
    return out


def fields(name, data):
    """{field: raw bytes or number} of an encoded record."""
    names = {f["tag"]: (f["name"], f["type"]) for f in FIELDS[name].values()}
    out = {}
    while data:
        tag, n = struct.unpack_from("<HI", data)
        value, data = data[6:6 + n], data[6 + n:]
        key, kind = names.get(tag, (tag, "bytes"))
        out[key] = struct.unpack("<Q", value)[0] if kind in ("u64", "i64") else value
    return out


def frame(kind, stream, payload=b"", arg=0, offset=0, length=None, flags=0, fds=0, trailer=TRAILER):
    length = len(payload) if length is None else length
    return struct.pack("<BBBBIIIQ", kind, flags, fds, 0, stream, length, arg, offset) + payload + trailer


def sync(nonce, low=1, high=1, generation=1):
    return (MAGIC + struct.pack("<HH", low, high) + nonce + struct.pack("<Q", generation)).ljust(SYNC_BYTES - 1, b"\0") + TRAILER


class Ended(Exception):
    """The other side closed."""


class Link:
    """A client of the daemon's socket."""

    def __init__(self, path=None, seconds=20):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path or os.environ["HOTCELL_RUN"] + "/hotcelld.sock")  # waits when many others do
        self.socket.settimeout(seconds)
        self.held = b""
        self.stream = -1

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def bytes(self, n):
        while len(self.held) < n:
            try:
                got = self.socket.recv(1 << 16)
            except ConnectionResetError:
                got = b""
            if not got:
                raise Ended
            self.held += got
        out, self.held = self.held[:n], self.held[n:]
        return out

    def shake(self):
        nonce = os.urandom(16)
        self.send(sync(nonce))
        block = self.bytes(SYNC_BYTES)
        if block[:16] != MAGIC or block[20:36] != nonce:
            raise ValueError("no SYNC came back")
        return self

    def frame(self):
        """(type, stream, arg, offset, payload)"""
        kind, _, _, _, stream, length, arg, offset = struct.unpack("<BBBBIIIQ", self.bytes(24))
        payload = self.bytes(length)
        if self.bytes(1) != TRAILER:
            raise ValueError("a frame without its last byte")
        return kind, stream, arg, offset, payload

    def open(self, method, payload, more=False):
        """Start a call; returns its stream."""
        self.stream += 2
        number = METHODS.get(method, method)
        self.send(frame(REQ, self.stream, payload, arg=number))
        if not more:
            self.send(frame(END, self.stream))
        return self.stream

    def answer(self, stream):
        """The reply of a call: ("ok", payload), or (error name, message)."""
        while True:
            kind, at, arg, _, payload = self.frame()
            if at != stream:
                continue
            if kind == RES:
                return "ok", payload
            if kind == RESET:
                return ERRORS.get(arg, str(arg)), fields("failure", payload).get("message", b"").decode(errors="replace")

    def call(self, method, payload):
        return self.answer(self.open(method, payload))
