#!/usr/bin/env python3
"""terminal.py SANDBOX - hotcell exec -t on a real terminal: size, resize, Ctrl-C, colours of nothing, exit status"""
import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

SECONDS = 60


def fail(words, seen):
    print("failed:", words)
    print("seen:", seen)
    sys.exit(1)


def resize(fd, rows, cols):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def expect(fd, text, seen):
    """Read on until the text has come; returns what comes after it."""
    end = time.monotonic() + SECONDS
    while text not in seen:
        ready, _, _ = select.select([fd], [], [], max(0, end - time.monotonic()))
        if not ready:
            fail(f"{text!r} did not come within {SECONDS} s", seen)
        try:
            got = os.read(fd, 4096)
        except OSError:
            got = b""
        if not got:
            fail(f"the terminal ended before {text!r} came", seen)
        seen += got
    return seen.split(text, 1)[1]


def main():
    pid, fd = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvp("hotcell", ["hotcell", "exec", "-t", "--env", "PS1=", sys.argv[1], "--", "bash", "--norc", "-i"])
    resize(fd, 33, 99)
    os.kill(pid, signal.SIGWINCH)
    os.write(fd, b"echo is'-'up; tty; id -un\n")
    seen = expect(fd, b"is-up\r\n", b"")
    seen = expect(fd, b"/dev/pts/", seen)
    os.write(fd, b"stty size; echo '='\n")
    seen = expect(fd, b"33 99\r\n", seen)
    resize(fd, 20, 50)
    time.sleep(0.5)  # SIGWINCH travels beside the input
    os.write(fd, b"stty size\n")
    seen = expect(fd, b"20 50\r\n", seen)
    os.write(fd, "echo =é\x7fe-ok=\n".encode())
    seen = expect(fd, b"=e-ok=\r\n", seen)
    os.write(fd, b"sleep 1000; echo status'='$?\n")
    time.sleep(1)  # until bash has started it; Ctrl-C to the shell itself would prove nothing
    os.write(fd, b"\x03")
    seen = expect(fd, b"^C", seen)
    os.write(fd, b"echo after'-'$?\n")
    seen = expect(fd, b"after-130", seen)
    os.write(fd, b"exit 5\n")
    while True:
        try:
            if not os.read(fd, 4096):
                break
        except OSError:
            break
    _, how = os.waitpid(pid, 0)
    if os.waitstatus_to_exitcode(how) != 5:
        fail(f"exit status {os.waitstatus_to_exitcode(how)}, wanted 5", seen)


main()
