#!/usr/bin/env python3
"""escape.py SECRET PORT - run inside a process sandbox: try to get out; a line "OPEN what: how" for everything that works

SECRET is the path of a file of the host, PORT a TCP port that the host listens on at 127.0.0.1.
"""
import ctypes
import errno
import glob
import mmap
import os
import signal
import socket
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
tried = 0


def attempt(what, action):
    """The action runs in a child: a filter may kill it. Truth or a returned text means that it worked."""
    global tried
    tried += 1
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            got = action()
        except (OSError, ValueError):
            got = None
        if got:
            print(f"OPEN {what}: {got}", flush=True)
        os._exit(0)
    os.waitpid(pid, 0)


def call(number, *args):
    """True if the system call is let through: whatever it answers but "not permitted" and "no such call"."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_void_p(a) if isinstance(a, int) else a for a in args])
    error = ctypes.get_errno()
    if result == -1 and error in (errno.EPERM, errno.ENOSYS, errno.EACCES):
        return None
    return f"returned {result}, errno {errno.errorcode.get(error, error)}"


def reads(path):
    def action():
        with open(path, "rb") as f:
            got = f.read(64)
        return repr(got) if got else None  # hidden files are empty ones
    return action


def writes(path, data=b"1"):
    def action():
        fd = os.open(path, os.O_WRONLY)
        return f"{os.write(fd, data)} bytes"
    return action


def mounts(source, target, kind, flags=0):
    def action():
        os.makedirs(target, exist_ok=True)
        if libc.mount(source, target.encode(), kind, flags, None) == 0:
            return "mounted"
        return None
    return action


def connects(address, family=socket.AF_INET):
    def action():
        s = socket.socket(family, socket.SOCK_STREAM)
        s.settimeout(2)
        s.connect(address)
        return "connected"
    return action


def opens_socket(family, kind, protocol=0):
    def action():
        socket.socket(family, kind, protocol)
        return "a socket"
    return action


def machine_code(code):
    """Run bytes as a function: system calls by doors that a filter may forget."""
    def action():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
        result = function()
        return f"returned {result}" if result >= 0 else None
    return action


def interfaces():
    names = [name for _, name in socket.if_nameindex() if name != "lo"]
    return ", ".join(names)


def foreign_processes():
    """Process 1 is the reaper; all others must be ours."""
    ours = os.getppid(), os.getpid()
    found = [pid for pid in (int(p[6:]) for p in glob.glob("/proc/[0-9]*")) if pid != 1 and pid not in ours]
    names = []
    for pid in found:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = f.read().replace(b"\0", b" ").decode(errors="replace")
            if "escape" not in words and "python3 -" not in words:
                names.append(f"{pid} {words}")
        except OSError:
            pass
    return "; ".join(names)


def descriptors():
    return ", ".join(f"{fd} -> {os.readlink('/proc/self/fd/' + fd)}" for fd in os.listdir("/proc/self/fd")
                     if int(fd) > 2 and os.path.exists(f"/proc/self/fd/{fd}") and "/proc/" not in os.readlink(f"/proc/self/fd/{fd}"))


def capabilities():
    with open("/proc/self/status", encoding="ascii") as f:
        held = [line.strip() for line in f if line.startswith("Cap") and not line.startswith("CapBnd") and int(line.split()[1], 16)]
    return "; ".join(held)


def privileges_can_come_back():
    with open("/proc/self/status", encoding="ascii") as f:
        lines = dict(line.strip().split(":\t", 1) for line in f if ":\t" in line)
    return None if lines["NoNewPrivs"].strip() == "1" and lines["Seccomp"].strip() == "2" else f"{lines['NoNewPrivs']} {lines['Seccomp']}"


def chroot_away():
    os.chroot("/tmp")
    return "chroot"


def becomes_root():
    if os.getuid() == 0:
        return None
    os.setuid(0)
    return "uid 0"


def makes_device():
    os.mknod("/tmp/sda", 0o660 | 0o060000, os.makedev(8, 0))
    return "block device 8:0"


def keeps_set_id():
    """A set-id file made inside gives nothing to whoever runs it."""
    if os.getuid() != 0:
        return None
    with open("/usr/bin/id", "rb") as f:
        program = f.read()
    with open("/tmp/id", "wb") as f:
        f.write(program)
    os.chmod("/tmp/id", 0o4755)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setgid(1000)
        os.setuid(1000)
        os.dup2(writer, 1)
        os.execv("/tmp/id", ["id", "-u"])
    os.close(writer)
    os.wait()
    return "uid 0" if os.read(reader, 16).strip() == b"0" else None


def traces_the_agent():
    PTRACE_ATTACH = 16
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    if libc.ptrace(PTRACE_ATTACH, 1, 0, 0) == 0:
        return "attached to process 1"
    return None


def kills_one():
    os.kill(1, signal.SIGKILL)
    import time
    time.sleep(0.2)
    return None  # process 1 of the namespace ignores it; if not, our own end is seen outside


def reads_memory_of_one():
    here = ctypes.create_string_buffer(8)
    to, start = struct.pack("<QQ", ctypes.addressof(here), 8), 0x400000
    for offset in range(0, 0x400000, 4096):
        if libc.syscall(310, 1, to, 1, struct.pack("<QQ", start + offset, 8), 1, 0) == 8:
            return repr(here.raw)
    return None


def takes_descriptor_of_one():
    pidfd = libc.syscall(434, 1, 0)
    for fd in range(64):
        if pidfd >= 0 and libc.syscall(438, pidfd, fd, 0) >= 0:
            return f"descriptor {fd}"
    return None


def host_addresses(port):
    yield "127.0.0.1", port
    yield "10.0.2.2", port
    yield "169.254.169.254", 80
    yield "1.1.1.1", 53


NEW = {"user": 0x10000000, "mount": 0x20000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000, "cgroup": 0x02000000}
CALLS = {  # x86-64 numbers, with arguments that do no harm should they be let through
    "init_module": (175, 0, 0, 0), "finit_module": (313, -1, 0, 0), "delete_module": (176, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0), "kexec_file_load": (320, -1, -1, 0, 0, 0), "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0),
    "userfaultfd": (323, 0), "io_uring_setup": (425, 1, 0), "keyctl": (250, 0, 0, 0, 0, 0), "add_key": (248, 0, 0, 0, 0, 0),
    "request_key": (249, 0, 0, 0, 0), "open_by_handle_at": (304, -1, 0, 0), "name_to_handle_at": (303, -1, 0, 0, 0, 0),
    "swapon": (167, 0, 0), "reboot": (169, 0, 0, 0, 0), "iopl": (172, 3), "ioperm": (173, 0, 0x400, 1), "acct": (163, 0),
    "quotactl": (179, 0, 0, 0, 0), "settimeofday": (164, 0, 0), "clock_settime": (227, 0, 0), "adjtimex": (159, 0), "syslog": (103, 3, 0, 0),
    "sethostname": (170, 0, 1), "pivot_root": (155, 0, 0), "umount2": (166, 0, 0), "fsopen": (430, 0, 0), "open_tree": (428, -1, 0, 0),
    "move_mount": (429, -1, 0, -1, 0, 0), "mount_setattr": (442, -1, 0, 0, 0, 0), "kcmp": (312, 1, 1, 0, 0, 0), "lookup_dcookie": (212, 0, 0, 0),
    "fanotify_init": (300, 0, 0), "move_pages": (279, 1, 0, 0, 0, 0, 0), "migrate_pages": (256, 1, 0, 0, 0), "nfsservctl": (180, 0, 0, 0),
    "io_setup": (206, 65536, 0),
    "uselib": (134, 0), "modify_ldt": (154, 0, 0, 0), "vhangup": (153,), "setns": (308, 0, 0),
}


def main():
    secret, port = sys.argv[1], int(sys.argv[2])
    for path in (secret, f"/proc/1/root{secret}", f"/proc/self/root/../..{secret}", f"/..{secret}", "/etc/shadow.host", "/proc/1/environ",
                 "/proc/1/mem", "/proc/kcore", "/proc/kmsg", "/proc/kallsyms.gz", "/dev/mem", "/dev/kmem", "/dev/kvm", "/dev/vda", "/dev/sda",
                 "/dev/fuse", "/dev/net/tun", "/dev/loop0", "/sys/kernel/debug", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/vmstat",
                 "/proc/buddyinfo", "/proc/zoneinfo", "/proc/diskstats", "/proc/partitions", "/proc/swaps", "/proc/locks", "/proc/devices",
                 "/proc/pressure/memory", "/proc/pressure/cpu"):
        attempt(f"read {path}", reads(path))
    for path, data in (("/proc/sys/kernel/core_pattern", b"|/tmp/x"), ("/proc/sysrq-trigger", b"h"), ("/proc/sys/vm/drop_caches", b"1"),
                       ("/proc/sys/kernel/hostname", b"x"), ("/proc/sys/net/ipv4/ip_forward", b"1"), ("/proc/sys/kernel/modprobe", b"/tmp/x"),
                       ("/sys/power/state", b"x"), ("/proc/self/oom_score_adj", b"-1000"),
                       ("/proc/irq/default_smp_affinity", b"1"), ("/dev/kmsg", b"x")):
        attempt(f"write {path}", writes(path, data))
    for name, flag in NEW.items():
        attempt(f"unshare {name}", lambda flag=flag: libc.unshare(flag) == 0 and "unshared")
        attempt(f"clone with a new {name}", lambda flag=flag: call(56, flag | signal.SIGCHLD, 0, 0, 0, 0))
    attempt("clone3 with a new user", lambda: call(435, ctypes.create_string_buffer(struct.pack("<11Q", NEW["user"], *[0] * 10)), 88))
    for source, kind, flags in ((b"none", b"tmpfs", 0), (b"proc", b"proc", 0), (b"sysfs", b"sysfs", 0), (b"/", None, 4096), (b"/dev/vda", b"ext4", 0),
                                (b"none", b"cgroup2", 0), (b"none", b"devpts", 0)):
        attempt(f"mount {kind or b'bind'}", mounts(source, "/tmp/m", kind, flags))
    attempt("remount / writable", mounts(b"none", "/", None, 32 | 4096))
    for what, (number, *args) in CALLS.items():
        attempt(f"system call {what}", lambda number=number, args=args: call(number, *args))
    attempt("int 0x80 (getpid)", machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"))
    attempt("x32 (getpid)", machine_code(b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"))
    for address in host_addresses(port):
        attempt(f"connect to {address}", connects(address))
    for name in ("\0/tmp/.X11-unix/X0", "\0hotcell", "/run/hotcell/hotcelld.sock", "/run/docker.sock", "/run/systemd/private"):
        attempt(f"connect to {name!r}", connects(name, socket.AF_UNIX))
    attempt("raw socket", opens_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    attempt("packet socket", opens_socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
    for what, protocol in (("route", 0), ("to oneself", 2), ("audit", 9), ("generic", 16)):
        attempt(f"netlink socket, {what}", opens_socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))
    for what, kind, protocol in (("MPTCP", socket.SOCK_STREAM, 262), ("SCTP", socket.SOCK_STREAM, 132), ("UDP-Lite", socket.SOCK_DGRAM, 136),
                                 ("SCTP", socket.SOCK_SEQPACKET, 132), ("DCCP", 6, 33), ("ping", socket.SOCK_DGRAM, 1)):
        for family in (socket.AF_INET, socket.AF_INET6):
            attempt(f"{what} socket of family {int(family)}", opens_socket(family, kind, protocol))
    attempt("TIPC socket pair", lambda: socket.socketpair(30, socket.SOCK_STREAM) and "a pair")
    attempt("vsock", opens_socket(socket.AF_VSOCK, socket.SOCK_STREAM))
    attempt("kernel crypto", opens_socket(socket.AF_ALG, socket.SOCK_SEQPACKET))
    attempt("other network interfaces", interfaces)
    attempt("processes of others", foreign_processes)
    attempt("inherited descriptors", descriptors)
    attempt("capabilities", capabilities)
    attempt("privileges that can come back", privileges_can_come_back)
    attempt("chroot", chroot_away)
    attempt("become root", becomes_root)
    attempt("make a device", makes_device)
    attempt("set-id program", keeps_set_id)
    attempt("ptrace of process 1", traces_the_agent)
    attempt("kill process 1", kills_one)
    attempt("memory of process 1", reads_memory_of_one)
    attempt("descriptors of process 1", takes_descriptor_of_one)
    print(f"tried {tried}")


main()
