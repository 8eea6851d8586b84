#!/usr/bin/env python3
"""kinds.py make | list - inside a sandbox: files of every kind, and what is there, a line each, to compare

What one user may not read, the other lists. As root it changes the template's own files as well: deleted, replaced, renamed, links that lead out.
"""
import hashlib
import os
import pathlib
import shutil
import socket
import stat
import struct
import sys

HOME = pathlib.Path("/root/kinds" if os.geteuid() == 0 else "/home/user/kinds")
SPARSE = 3 << 30
DEPTH = 180
OWN = ("/proc", "/sys", "/dev")  # mounts of the sandbox itself
AGENTS = ("/etc/machine-id", "/etc/hosts", "/etc/hostname", "/run/hotcell-machine-id")  # new in every sandbox


def make_odd(top):
    for number, name in enumerate([b"two words", b"-rf", b"new\nline", b"\xff\xfe", b"x" * 255, b"\x1b[31m", b"..."]):
        (top / os.fsdecode(name)).write_bytes(b"odd" * number)
    for mode in (0o000, 0o400, 0o755, 0o1777, 0o2755, 0o4711, 0o6755):
        path = top / f"mode-{mode:o}"
        path.write_text("mode")
        path.chmod(mode)
    for number in range(300):
        (top / f"empty-{number}").touch()
    os.utime(top / "empty-7", ns=(1, 987654321123456789))


def make_links(top):
    (top / "first").write_text("one file")
    (top / "links").mkdir()
    os.link(top / "first", top / "links" / "second")
    os.link(top / "first", top / "links" / "third")
    for name, target in (("absolute", "/etc/shadow"), ("up", "../" * 40 + "etc/shadow"), ("host", "/proc/1/root/etc/shadow"),
                         ("loop", "loop"), ("fd", "/proc/self/fd/3"), ("long", "y" * 4000)):
        (top / name).symlink_to(target)
    os.mkfifo(top / "fifo", 0o640)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(top / "socket"))


def make_large(top):
    with open(top / "sparse", "wb") as file:
        file.truncate(SPARSE)
        for place in (0, 4095, SPARSE // 2, SPARSE - 4):
            file.seek(place)
            file.write(b"data")
    (top / "random").write_bytes(os.urandom(9 * 1024 * 1024 + 13))


def make_deep(top):
    where = os.open(top, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=where)
        deeper = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = deeper
    os.close(os.open("bottom", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=where))
    os.close(where)


def make_attributes(top):
    path = top / "attributes"
    path.write_text("")
    try:
        os.setxattr(path, "user.one", b"1")
        os.setxattr(path, "user.binary", bytes(range(256)))
        os.setxattr(top, "user.folder", b"")
        entries = ((1, 6, -1), (2, 4, 33), (4, 4, -1), (16, 4, -1), (32, 0, -1))  # the owner, user 33, group, mask, others
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(path, "system.posix_acl_access", acl)
        os.setxattr(top / "links", "system.posix_acl_default", acl)
    except OSError as error:
        print("no attributes here:", error)


def change_template():
    pathlib.Path("/etc/issue").unlink()
    shutil.rmtree("/usr/share/doc", ignore_errors=True)
    for folder in ("/opt", "/etc/skel"):  # an empty one, and one with files
        shutil.rmtree(folder)
        os.mkdir(folder, 0o751)
    os.rename("/etc/profile", "/etc/profile.was")
    with open("/etc/passwd", "a", encoding="ascii") as file:
        file.write("more:x:1234:1234::/:/bin/false\n")
    os.chmod("/usr/bin/env", 0o700)
    pathlib.Path("/etc/motd").unlink(missing_ok=True)
    os.symlink("/etc/shadow", "/etc/motd")


def describe(path):
    st = os.lstat(path)
    line = [path, f"{st.st_mode:o}", st.st_uid, st.st_gid, st.st_nlink if not stat.S_ISDIR(st.st_mode) else 0]
    if path not in ("/", "/etc", "/run"):  # the agent makes names there
        line.append(st.st_mtime_ns)
    if stat.S_ISLNK(st.st_mode):
        line.append(os.readlink(path))
    elif stat.S_ISREG(st.st_mode):
        line += [st.st_size, st.st_blocks <= (1 << 17)]
        line.append(digest(path) if os.access(path, os.R_OK) else "?")
    if not stat.S_ISLNK(st.st_mode):
        line += sorted((name, read_attribute(path, name)) for name in list_attributes(path))
    return repr(line)


def list_attributes(path):
    try:
        return [name for name in os.listxattr(path) if not name.startswith("user.overlay.")]
    except OSError:
        return []


def read_attribute(path, name):
    try:
        return os.getxattr(path, name)
    except PermissionError:
        return "?"


def digest(path):
    found = hashlib.sha1()
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size >= SPARSE:
            for place in (0, SPARSE // 2, SPARSE - 4096):
                found.update(os.pread(file.fileno(), 8192, place))
        else:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def make():
    HOME.mkdir()
    for part in (make_odd, make_links, make_large, make_deep, make_attributes):
        part(HOME)
    if os.geteuid() == 0:
        change_template()


def show():
    lines = []
    for folder, folders, files in os.walk("/"):
        folders[:] = sorted(name for name in folders if os.path.join(folder, name) not in OWN)
        lines += [describe(os.path.join(folder, name)) for name in folders + files
                  if os.path.join(folder, name) not in AGENTS]
    print("\n".join(sorted(lines)))


if sys.argv[1] == "make":
    make()
else:
    show()
