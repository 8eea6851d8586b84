"""fork_writes.py PID [old] - what a QEMU that was taken over could do with its own descriptors, done by its uid

PID: a fork's QEMU. Each of its files but the top layer of its disk and its console is shared, and
must stay as it is whatever is tried.
old: of a QEMU that was copied since it began, write to the layers it wrote to before, which nobody can forbid.
"""
import ctypes
import errno
import fcntl
import mmap
import os
import re
import sys

PUNCH_HOLE_KEEP_SIZE, F_ADD_SEALS, MADV_REMOVE = 3, 1033, 9
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def check(result):
    if result == -1 or result == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def map_it(fd, flags):
    return check(libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0))


def remove(fd):
    """Frees the file's pages, not only one's own."""
    check(libc.madvise(map_it(fd, mmap.MAP_PRIVATE), 4096, MADV_REMOVE))


ATTACKS = {
    "write": lambda fd: os.write(fd, b"x"),
    "pwrite": lambda fd: os.pwrite(fd, b"x", 4096),
    "cut": lambda fd: os.ftruncate(fd, 4096),
    "lengthen": lambda fd: os.ftruncate(fd, os.fstat(fd).st_size + 4096),
    "punch": lambda fd: check(libc.fallocate(fd, PUNCH_HOLE_KEEP_SIZE, 0, 4096)),
    "map": lambda fd: map_it(fd, mmap.MAP_SHARED),
    "remove": remove,
    "send": lambda fd: os.sendfile(fd, os.open("/proc/self/exe", os.O_RDONLY), 0, 16),
}


def attack(fd, what):
    for name, act in ATTACKS.items():
        try:
            act(fd)
        except OSError as e:
            assert e.errno in (errno.EPERM, errno.EBADF, errno.EACCES, errno.EINVAL), (what, name, e)
        else:
            raise SystemExit(f"{what}: {name} was let through")


def owner(pid):
    status = open(f"/proc/{pid}/status").read()
    return [int(re.search(rf"^{key}:\t(\d+)", status, re.M)[1]) for key in ("Gid", "Uid")]


def shared(pid):
    """Its regular files, taken from it: (descriptor, name)."""
    pidfd = os.pidfd_open(pid)
    own = set()  # its top layer
    for n in map(int, os.listdir(f"/proc/{pid}/fd")):
        name = os.readlink(f"/proc/{pid}/fd/{n}")
        if not (name.startswith("/memfd:") or re.search(r"/layer-\d+$|/images/", name)):
            continue
        fd = check(libc.syscall(438, pidfd, n, 0))  # pidfd_getfd
        if not name.startswith("/memfd:") and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
            own.add(name)
        else:
            yield fd, name
    (top,) = own
    assert "/sandboxes/" in top and os.stat(top).st_nlink == 1, top


def layers_before(pid):
    """Descriptors it may write with of layers below its top one, taken from it."""
    pidfd = os.pidfd_open(pid)
    found = {}
    for n in map(int, os.listdir(f"/proc/{pid}/fd")):
        name = re.search(r"/sandboxes/.*/layer-(\d+)(?: \(deleted\))?$", os.readlink(f"/proc/{pid}/fd/{n}"))
        if name:
            fd = check(libc.syscall(438, pidfd, n, 0))  # pidfd_getfd
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR:
                found.setdefault(int(name[1]), []).append(fd)
    del found[max(found)]
    return [fd for fds in found.values() for fd in fds]


def spoil(fd):
    """Its header, its tables, what is in it, its length."""
    size = os.fstat(fd).st_size
    for at in 0, 65536, 131072, size // 2, size - 4096:
        os.pwrite(fd, b"\xee" * 4096, max(at, 0))
    os.ftruncate(fd, size + 4096)


def main():
    pid = int(sys.argv[1])
    if sys.argv[2:] == ["old"]:
        fds = layers_before(pid)
        gid, uid = owner(pid)
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        for fd in fds:
            spoil(fd)
        print(len({os.fstat(fd).st_ino for fd in fds}), "spoiled")
        return
    files = list(shared(pid))
    kinds = {re.sub(r"-\d+|/memfd:|/.*/(?=layer|images)", "", name.split(" ")[0]) for _, name in files}
    assert len(files) >= 3, files  # memory, a layer, the root image; the state was closed when it was loaded
    gid, uid = owner(pid)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    for fd, name in files:
        attack(fd, name)
        if name.startswith("/memfd:"):
            try:
                fcntl.fcntl(fd, F_ADD_SEALS, 0)
            except PermissionError:
                pass
            else:
                raise SystemExit(f"{name}: may be sealed further")
        try:
            again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        except OSError:
            continue
        assert name.startswith("/memfd:"), f"{name}: was opened for writing"
        attack(again, name + ", opened again")
    print(len(files), "files:", *sorted(kinds))


main()
