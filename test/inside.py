#!/usr/bin/env python3
"""inside.py PID STATE RUN - what could somebody do who has taken over the daemon PID? A line OPEN for each way out

Its main thread, which waits for events, is made to make system calls of ours, with all the rights and under all the
filters it has, and then goes on. The last line says how many were tried. As root.
"""
import ctypes
import errno
import os
import signal
import sys

PTRACE_GETREGS, PTRACE_SETREGS, PTRACE_SINGLESTEP, PTRACE_ATTACH, PTRACE_DETACH = 12, 13, 9, 16, 17
NAMES = ("r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base "
         "ds es fs gs").split()
CALLS = {"read": 0, "close": 3, "socket": 41, "connect": 42, "clone": 56, "fork": 57, "execve": 59, "kill": 62, "ptrace": 101, "setuid": 105,
         "prctl": 157, "mount": 165, "keyctl": 250, "openat": 257, "unlinkat": 263, "unshare": 272, "setns": 308,
         "process_vm_readv": 310, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425, "open_tree": 428,
         "move_mount": 429, "fsopen": 430, "pidfd_open": 434, "clone3": 435}
AT_FDCWD, READ, WRITE, CREATE = -100, os.O_RDONLY, os.O_WRONLY, os.O_WRONLY | os.O_CREAT
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Regs(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in NAMES]


def ptrace(request, pid, data=None):
    if libc.ptrace(request, pid, None, data) < 0:
        raise OSError(ctypes.get_errno(), "ptrace %d" % request)


class Inside:
    def __init__(self, pid):
        self.pid, self.regs = pid, Regs()
        ptrace(PTRACE_ATTACH, pid)
        os.waitpid(pid, 0)
        ptrace(PTRACE_GETREGS, pid, ctypes.byref(self.regs))
        self.memory = open(f"/proc/{pid}/mem", "r+b", buffering=0)
        self.memory.seek(self.regs.rip - 2)
        if self.memory.read(2) != b"\x0f\x05":
            raise SystemExit("it does not wait in a system call")

    def call(self, name, *args):
        at = self.regs.rsp - 8192
        values = []
        for arg in args:
            if isinstance(arg, str):
                self.memory.seek(at)
                self.memory.write(arg.encode() + b"\0")
                values.append(at)
                at += len(arg) + 1
            else:
                values.append(arg % 2**64)
        regs = Regs.from_buffer_copy(self.regs)
        regs.rip, regs.rax, regs.orig_rax = self.regs.rip - 2, CALLS[name], 2**64 - 1
        for register, value in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), values + [0] * 6):
            setattr(regs, register, value)
        ptrace(PTRACE_SETREGS, self.pid, ctypes.byref(regs))
        ptrace(PTRACE_SINGLESTEP, self.pid)
        os.waitpid(self.pid, 0)
        ptrace(PTRACE_GETREGS, self.pid, ctypes.byref(regs))
        return ctypes.c_long(regs.rax).value

    def leave(self):
        self.regs.rax, self.regs.orig_rax = 2**64 - errno.EINTR, 2**64 - 1  # the wait was interrupted, that is all
        ptrace(PTRACE_SETREGS, self.pid, ctypes.byref(self.regs))
        ptrace(PTRACE_DETACH, self.pid)


def attempts(state, run):
    perm, none, access = errno.EPERM, errno.ENOSYS, errno.EACCES
    yield 0, "openat", AT_FDCWD, f"{state}/db/run.db", READ  # its own: it can be reached this way at all
    yield 0, "openat", AT_FDCWD, f"{state}/sandboxes/.trial", CREATE, 0o600
    yield 0, "unlinkat", AT_FDCWD, f"{state}/sandboxes/.trial"
    yield access, "openat", AT_FDCWD, "/etc/passwd", READ
    yield access, "openat", AT_FDCWD, "/proc/self/maps", READ
    yield access, "openat", AT_FDCWD, "/dev/null", WRITE
    yield access, "openat", AT_FDCWD, "/tmp/hotcell-inside", CREATE, 0o600
    yield access, "openat", AT_FDCWD, f"{state}/images/evil", CREATE, 0o600
    yield access, "openat", AT_FDCWD, f"{state}/closures/evil", CREATE, 0o600
    yield access, "openat", AT_FDCWD, f"{run}/evil", CREATE, 0o600
    yield access, "openat", AT_FDCWD, f"{run}/keeper.log", READ
    for name in ("execve", "fork", "ptrace", "setuid", "mount", "keyctl", "setns", "process_vm_readv", "bpf", "userfaultfd",
                 "io_uring_setup", "open_tree", "move_mount", "fsopen", "connect"):
        yield perm, name
    yield perm, "unshare", 0x10000000
    yield perm, "kill", os.getpid(), signal.SIGCONT
    yield perm, "pidfd_open", os.getpid()
    yield perm, "socket", 1, 1
    yield perm, "socket", 2, 1
    yield perm, "socket", 16, 3
    yield none, "clone", 17
    yield none, "clone3"
    yield none, "prctl", 4, 1


def main():
    inside = Inside(int(sys.argv[1]))
    tried = 0
    try:
        for want, name, *args in attempts(*sys.argv[2:]):
            got = inside.call(name, *args)
            tried += 1
            if name == "openat" and got >= 0:
                inside.call("close", got)
                got = 0
            if got != -want:
                print("OPEN", name, *args, "answered", got, "instead of", -want)
    finally:
        inside.leave()
    print("tried", tried)


main()
