"""A QEMU guest with qemu-guest-agent: the peer of `qemu` sandboxes.

Same QEMU, kernel, modules and command line as a hotcell machine; the root file
system comes from bench/peers/prepare.
"""
import base64
import json
import os
import select
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAM = "qemu-system-x86_64"
NEEDED = {PROGRAM: "qemu-system-x86", "mke2fs": "e2fsprogs"}  # program: Debian package
BOOT_S = 60
REPLY_S = 60
POLL_S = 0.005
LAYER_MIB = 256
MEMORY_MIB = 512


class AgentError(RuntimeError):
    pass


def find(program):
    """Also where a user's PATH doesn't look."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if not found:
        raise AgentError(f"{program} is not installed: apt-get install {NEEDED[program]}")
    return found


class Agent:
    """One connection to qemu-ga: JSON lines."""

    def __init__(self, sock):
        self.sock = sock
        self.sock.setblocking(False)
        self.buf = bytearray()

    def _line(self, deadline):
        while True:
            end = self.buf.find(b"\n")
            if end >= 0:
                line = bytes(self.buf[:end])
                del self.buf[:end + 1]
                return line
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                raise AgentError("qemu-guest-agent did not answer in time")
            got = self.sock.recv(1 << 20)
            if not got:
                raise AgentError("the guest ended")
            self.buf += got

    def _send(self, data, deadline):
        view = memoryview(data)
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self.sock], [], left)[1]:
                raise AgentError("qemu-guest-agent does not read")
            view = view[self.sock.send(view):]

    def call(self, name, seconds=REPLY_S, **arguments):
        deadline = time.monotonic() + seconds
        self._send(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n", deadline)
        reply = json.loads(self._line(deadline))
        if "error" in reply:
            raise AgentError(f"{name}: {reply['error'].get('desc')}")
        return reply["return"]

    def sync(self, seconds):
        """The agent reads from its first byte on, so one question is enough: it waits in the port."""
        mark = int.from_bytes(os.urandom(4), "big")
        if self.call("guest-sync", seconds, id=mark) != mark:
            raise AgentError("guest-sync came back wrong")

    def execute(self, path, *args):
        """guest-exec, then guest-exec-status until it has ended. Returns (exit code, output)."""
        started = self.call("guest-exec", path=path, arg=list(args), **{"capture-output": True})
        while True:
            # There is no event for it. Asking without a pause takes the guest's only processor
            # away from the program: 5 ms gave the agent its best figures.
            time.sleep(POLL_S)
            status = self.call("guest-exec-status", pid=started["pid"])
            if status["exited"]:
                return status.get("exitcode", -1), base64.b64decode(status.get("out-data", ""))

    def read(self, path, chunk):
        handle = self.call("guest-file-open", path=path, mode="r")
        got = bytearray()
        try:
            while True:
                part = self.call("guest-file-read", handle=handle, count=chunk)
                got += base64.b64decode(part["buf-b64"])
                if part["eof"] or part["count"] == 0:
                    return bytes(got)
        finally:
            self.call("guest-file-close", handle=handle)

    def write(self, path, data, chunk):
        handle = self.call("guest-file-open", path=path, mode="w")
        try:
            for at in range(0, len(data), chunk):
                self.call("guest-file-write", handle=handle,
                          **{"buf-b64": base64.b64encode(data[at:at + chunk]).decode()})
        finally:
            self.call("guest-file-close", handle=handle)


def command_line(files, disk, port_fd, tsc_khz):
    append = f"console=ttyS0 quiet panic=-1 reboot=t tsc_early_khz={tsc_khz} tsc=reliable mitigations=off"
    return [find(PROGRAM), "-M", "microvm", "-accel", "tcg", "-cpu", "qemu64,+arat", "-m", str(MEMORY_MIB),
            "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-serial", "stdio",
            "-chardev", f"socket,id=ga,fd={port_fd}", "-device", "virtio-serial-device",
            "-device", "virtserialport,chardev=ga,nr=1,name=org.qemu.guest_agent.0",
            "-drive", f"id=root,file={files / 'root.ext4'},format=raw,if=none,read-only=on",
            "-device", "virtio-blk-device,drive=root",
            "-drive", f"id=layer,file={disk},format=raw,if=none",
            "-device", "virtio-blk-device,drive=layer",
            "-kernel", str(files / "vmlinux"), "-initrd", str(files / "initrd"), "-append", append]


class Guest:
    """A booted machine; close() ends it."""

    def __init__(self, files, scratch, tsc_khz):
        disk = Path(scratch) / "qga-layer.img"
        subprocess.run([find("mke2fs"), "-q", "-t", "ext4", "-O", "^has_journal", str(disk), f"{LAYER_MIB}M"],
                       check=True, stdout=subprocess.DEVNULL)
        self.console = Path(scratch) / "qga-console.log"
        ours, theirs = socket.socketpair()
        started = time.monotonic()
        with theirs, self.console.open("wb") as log:
            self.argv = command_line(files, disk, theirs.fileno(), tsc_khz)
            self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, pass_fds=[theirs.fileno()],
                                            start_new_session=True)
        self.sock = ours
        try:
            self.agent = Agent(ours)
            self.agent.sync(BOOT_S)
        except (AgentError, OSError) as e:
            tail = self.console.read_bytes()[-200:].decode(errors="replace").strip()
            self.close()
            raise AgentError(f"{e} (console: {tail!r})") from e
        self.boot_s = time.monotonic() - started

    def close(self):
        self.sock.close()
        self.process.kill()
        self.process.wait()
